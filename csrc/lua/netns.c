/* SPDX-License-Identifier: MIT
 *
 * Network namespaces in Lua, and what keeps those of an ordinary user.
 */
#include "binding.h"

static int l_netns_close(lua_State *L)
{
    fcproc_netns_close(bind_take(L, TYPE_NETNS));
    return 0;
}

/* core.netns(name?) -> netns: without a name, a new one */
static int l_netns(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *name = lua_isnoneornil(L, 1) ? NULL : bind_check_string(L, 1);
    struct bind_handle *h = bind_new(L, TYPE_NETNS);
    fcproc_netns *ns = NULL;

    if ((name ? fcproc_netns_open(name, &ns, &err) : fcproc_netns_new(&ns, &err)) < 0)
        return bind_fail(L, &err);
    h->object = ns;
    return 1;
}

static int l_netns_fd(lua_State *L)
{
    lua_pushinteger(L, fcproc_netns_fd(bind_check(L, 1, TYPE_NETNS)));
    return 1;
}

/* netns:keep(fifo) -> true */
static int l_netns_keep(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_netns_keep(bind_check(L, 1, TYPE_NETNS), bind_check_string(L, 2), &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* netns:is_rootless() -> boolean */
static int l_netns_is_rootless(lua_State *L)
{
    lua_pushboolean(L, fcproc_netns_is_rootless(bind_check(L, 1, TYPE_NETNS)));
    return 1;
}

/* core.hold_netns(fifo, lock, join?, uplink?) -> process */
static int l_hold_netns(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *fifo = bind_check_string(L, 1), *lock = bind_check_string(L, 2);
    const char *const *uplink = NULL;
    struct bind_handle *h;
    fcproc_process *p = NULL;

    lua_settop(L, 4);
    h = bind_new(L, TYPE_PROCESS);
    if (!lua_isnil(L, 4))
        uplink = bind_string_list(L, 4, "uplink", NULL);
    if (fcproc_netns_hold(fifo, lock, bind_opt(L, 3, TYPE_NETNS), uplink, &p, &err) < 0)
        return bind_fail(L, &err);
    h->object = p;
    lua_settop(L, 5);
    return 1;
}

/* core.relay(netns, process, guest, ports) -> process */
static int l_relay(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const fcproc_netns *ns = bind_check(L, 1, TYPE_NETNS);
    const fcproc_process *vmm = bind_check(L, 2, TYPE_PROCESS);
    const char *guest = bind_check_string(L, 3);
    const char *const *ports;
    struct bind_handle *h;
    fcproc_process *p = NULL;
    size_t n;

    lua_settop(L, 4);
    luaL_checktype(L, 4, LUA_TTABLE);
    h = bind_new(L, TYPE_PROCESS);
    ports = bind_string_list(L, 4, "ports", &n);
    if (fcproc_relay_start(ns, vmm, guest, ports, n, &p, &err) < 0)
        return bind_fail(L, &err);
    h->object = p;
    lua_settop(L, 5);
    return 1;
}

void bind_open_netns(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "fd", l_netns_fd },
        { "keep", l_netns_keep },
        { "is_rootless", l_netns_is_rootless },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "netns", l_netns },
        { "hold_netns", l_hold_netns },
        { "relay", l_relay },
        { NULL, NULL },
    };

    bind_type(L, TYPE_NETNS, methods, l_netns_close);
    luaL_setfuncs(L, functions, 0);
}
