/* SPDX-License-Identifier: MIT
 *
 * Bridges and TAPs in Lua.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "binding.h"

static int l_net_close(lua_State *L)
{
    fcproc_net_close(bind_take(L, TYPE_NET));
    return 0;
}

/* core.net(netns?) -> net */
static int l_net(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const fcproc_netns *ns = bind_opt(L, 1, TYPE_NETNS);
    struct bind_handle *h = bind_new(L, TYPE_NET);
    fcproc_net *net = NULL;

    if (fcproc_net_open(ns, &net, &err) < 0)
        return bind_fail(L, &err);
    h->object = net;
    return 1;
}

static void set_flag(lua_State *L, const char *name, bool value)
{
    lua_pushboolean(L, value);
    lua_setfield(L, -2, name);
}

static void set_mac(lua_State *L, const unsigned char mac[FCPROC_MAC_LEN])
{
    char text[18];

    (void)snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
                   mac[3], mac[4], mac[5]);
    lua_pushstring(L, text);
    lua_setfield(L, -2, "mac");
}

static const char *opt_alias(lua_State *L, int at)
{
    const char *alias = lua_isnoneornil(L, at) ? NULL : bind_check_string(L, at);

    luaL_argcheck(L, !alias || strlen(alias) <= FCPROC_ALIAS_MAX, at,
                  "an alias has at most 255 bytes");
    return alias;
}

/* Into the table on top. Once it has the fields, setting them again allocates nothing: results are
 * filled in before the call and after it, so that nothing raises when there is a link already. */
static void set_bridge(lua_State *L, const struct fcproc_bridge_info *info)
{
    bind_set_integer(L, "ifindex", info->ifindex);
    set_flag(L, "created", info->created);
    set_flag(L, "addressed", info->addressed);
    set_flag(L, "brought_up", info->brought_up);
}

/* net:ensure_bridge(name, address?, prefix?, alias?, ctx?)
 *     -> {ifindex, created, addressed, brought_up} */
static int l_net_ensure_bridge(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_net *net = bind_check(L, 1, TYPE_NET);
    struct fcproc_bridge spec = { .struct_size = sizeof(spec), .name = bind_check_string(L, 2) };
    struct fcproc_bridge_info info = { 0 };
    fcproc_ctx *ctx = bind_ctx(L, 6);

    spec.alias = opt_alias(L, 5);
    if (!lua_isnoneornil(L, 3)) {
        spec.address = bind_check_string(L, 3);
        spec.prefix = bind_check_int(L, 4);
    }
    lua_createtable(L, 0, 4);
    set_bridge(L, &info);
    if (fcproc_bridge_ensure(net, &spec, ctx, &info, &err) < 0)
        return bind_fail(L, &err);
    set_bridge(L, &info);
    return 1;
}

/* net:delete_bridge(name, ctx?) -> op */
static int l_net_delete_bridge(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_op *b = bind_first_op(L, 3, NULL);
    fcproc_net *net = bind_check(L, 1, TYPE_NET);
    const char *name = bind_check_string(L, 2);
    fcproc_ctx *ctx = bind_ctx(L, 3);

    if (fcproc_bridge_delete(net, name, ctx, &b->op, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

static bool parse_mac(const char *text, unsigned char mac[FCPROC_MAC_LEN])
{
    for (int i = 0; i < FCPROC_MAC_LEN; i++, text += 3) {
        if (!isxdigit((unsigned char)text[0]) || !isxdigit((unsigned char)text[1]) ||
            text[2] != (i + 1 < FCPROC_MAC_LEN ? ':' : '\0'))
            return false;
        mac[i] = (unsigned char)strtoul(text, NULL, 16);
    }
    return true;
}

/* net:create_tap(name, bridge?, uid?, gid?, mac?, mtu?, isolated?, bridge_ifindex?, alias?, ctx?)
 *     -> tap */
static int l_net_create_tap(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_net *net = bind_check(L, 1, TYPE_NET);
    unsigned char mac[FCPROC_MAC_LEN];
    struct fcproc_tap spec = { .struct_size = sizeof(spec),
                               .name = bind_check_string(L, 2),
                               .bridge = lua_isnoneornil(L, 3) ? NULL : bind_check_string(L, 3),
                               .uid = bind_opt_id(L, 4),
                               .gid = bind_opt_id(L, 5),
                               .mtu = bind_opt_int(L, 7, 0),
                               .isolated = lua_toboolean(L, 8),
                               .bridge_ifindex = bind_opt_int(L, 9, 0),
                               .alias = opt_alias(L, 10) };
    struct fcproc_tap_info tap;
    fcproc_ctx *ctx = bind_ctx(L, 11);

    if (!lua_isnoneornil(L, 6)) {
        luaL_argcheck(L, parse_mac(bind_check_string(L, 6), mac), 6,
                      "a MAC address is written aa:bb:cc:dd:ee:ff");
        luaL_argcheck(L, !(mac[0] & 1), 6, "the MAC address is a multicast one");
    } else {
        fcproc_tap_mac(spec.name, mac);
    }
    spec.mac = mac;
    lua_createtable(L, 0, 4); /* as for a bridge: before there is a TAP */
    lua_pushvalue(L, 2);
    lua_setfield(L, -2, "name");
    set_mac(L, mac);
    bind_set_integer(L, "ifindex", 0);
    set_flag(L, "created", false);
    if (fcproc_tap_create(net, &spec, ctx, &tap, &err) < 0)
        return bind_fail(L, &err);
    bind_set_integer(L, "ifindex", tap.ifindex);
    set_flag(L, "created", tap.created);
    return 1;
}

static int push_removed(lua_State *L, fcproc_op *op)
{
    lua_pushinteger(L, (lua_Integer)fcproc_taps_delete_result(op));
    return 1;
}

typedef int remove_fn(fcproc_net *net, const char *const *names, size_t n, fcproc_ctx *ctx,
                      fcproc_op **ret, fcproc_error *err);

static int push_flushed(lua_State *L, fcproc_op *op)
{
    lua_pushinteger(L, (lua_Integer)fcproc_conntrack_flush_result(op));
    return 1;
}

static int begin_removal(lua_State *L, remove_fn *fn, int (*push)(lua_State *, fcproc_op *))
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_op *b = bind_first_op(L, 3, push);
    const char *const *names;
    size_t n;

    luaL_checktype(L, 2, LUA_TTABLE);
    names = bind_string_list(L, 2, "names", &n);
    luaL_argcheck(L, n > 0, 2, "an empty list of names");
    lua_insert(L, -2); /* the operation is the result */
    if (fn(bind_check(L, 1, TYPE_NET), names, n, bind_ctx(L, 3), &b->op, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

/* net:delete_taps(names, ctx?) -> op, whose result is how many there were */
static int l_net_delete_taps(lua_State *L)
{
    return begin_removal(L, fcproc_taps_delete, push_removed);
}

/* net:flush_conntrack(addresses, ctx?) -> op, likewise */
static int l_net_flush_conntrack(lua_State *L)
{
    return begin_removal(L, fcproc_conntrack_flush, push_flushed);
}

/* net:link_exists(name) -> boolean */
static int l_net_link_exists(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    int r = fcproc_link_exists(bind_check(L, 1, TYPE_NET), bind_check_string(L, 2), &err);

    if (r < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, r);
    return 1;
}

/* net:link_index(name) -> integer? */
static int l_net_link_index(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    int r = fcproc_link_index(bind_check(L, 1, TYPE_NET), bind_check_string(L, 2), &err);

    if (r < 0)
        return bind_fail(L, &err);
    if (r == 0)
        return 0;
    lua_pushinteger(L, r);
    return 1;
}

/* net:link_mtu(name) -> integer */
static int l_net_link_mtu(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    int r = fcproc_link_mtu(bind_check(L, 1, TYPE_NET), bind_check_string(L, 2), &err);

    if (r < 0)
        return bind_fail(L, &err);
    lua_pushinteger(L, r);
    return 1;
}

/* net:sysctl(name, value?) -> integer, what is there now */
static int l_net_sysctl(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_net *net = bind_check(L, 1, TYPE_NET);
    const char *name = bind_check_string(L, 2);
    int value = bind_opt_int(L, 3, -1);
    int r = lua_isnoneornil(L, 3) ? fcproc_net_sysctl(net, name, &err)
                                  : fcproc_net_set_sysctl(net, name, value, &err);

    if (r < 0)
        return bind_fail(L, &err);
    lua_pushinteger(L, lua_isnoneornil(L, 3) ? r : value);
    return 1;
}

/* net:list_taps(bridge?, ctx?) -> list */
static int l_net_list_taps(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_net *net = bind_check(L, 1, TYPE_NET);
    const char *bridge = lua_isnoneornil(L, 2) ? NULL : bind_check_string(L, 2);
    fcproc_ctx *ctx = bind_ctx(L, 3);
    struct bind_handle *guard = bind_guard(L);
    struct fcproc_tap_info *taps = NULL;
    size_t n = 0;

    if (fcproc_tap_list(net, bridge, ctx, &taps, &n, &err) < 0)
        return bind_fail(L, &err);
    guard->object = taps;
    lua_createtable(L, (int)n, 0);
    for (size_t i = 0; i < n; i++) {
        lua_createtable(L, 0, 11);
        lua_pushstring(L, taps[i].name);
        lua_setfield(L, -2, "name");
        bind_set_integer(L, "ifindex", taps[i].ifindex);
        set_mac(L, taps[i].mac);
        bind_set_integer(L, "mtu", taps[i].mtu);
        if (taps[i].uid >= 0)
            bind_set_integer(L, "uid", taps[i].uid);
        if (taps[i].gid >= 0)
            bind_set_integer(L, "gid", taps[i].gid);
        if (taps[i].alias[0]) {
            lua_pushstring(L, taps[i].alias);
            lua_setfield(L, -2, "alias");
        }
        if (taps[i].master)
            bind_set_integer(L, "master", taps[i].master);
        set_flag(L, "up", taps[i].up);
        set_flag(L, "isolated", taps[i].isolated);
        set_flag(L, "in_use", taps[i].in_use);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    bind_guard_release(guard);
    return 1;
}

/* core.check_ifname(name) -> true */
static int l_check_ifname(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_check_ifname(bind_check_string(L, 1), &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.address_family(text) -> 4 or 6 */
static int l_address_family(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    int family = fcproc_check_address(bind_check_string(L, 1), &err);

    if (family < 0)
        return bind_fail(L, &err);
    lua_pushinteger(L, family == AF_INET ? 4 : 6);
    return 1;
}

void bind_open_net(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "ensure_bridge", l_net_ensure_bridge },
        { "delete_bridge", l_net_delete_bridge },
        { "create_tap", l_net_create_tap },
        { "delete_taps", l_net_delete_taps },
        { "list_taps", l_net_list_taps },
        { "link_exists", l_net_link_exists },
        { "link_index", l_net_link_index },
        { "link_mtu", l_net_link_mtu },
        { "sysctl", l_net_sysctl },
        { "flush_conntrack", l_net_flush_conntrack },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "net", l_net },
        { "check_ifname", l_check_ifname },
        { "address_family", l_address_family },
        { NULL, NULL },
    };

    bind_type(L, TYPE_NET, methods, l_net_close);
    luaL_setfuncs(L, functions, 0);
}
