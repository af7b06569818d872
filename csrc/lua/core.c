/* SPDX-License-Identifier: MIT
 *
 * The module fcproc.core: the list of all that is in it.
 */
#include "binding.h"

static int l_now(lua_State *L)
{
    lua_pushnumber(L, fcproc_now());
    return 1;
}

static int l_guest_path(lua_State *L)
{
    lua_pushstring(L, fcproc_default_guest_path());
    return 1;
}

const char bind_interrupt_key = 0;

static int pass_on(lua_State *L, int status, lua_KContext unused)
{
    (void)status;
    (void)unused;
    return lua_gettop(L);
}

int bind_uninterrupted(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, pass_on);
    return pass_on(L, LUA_OK, 0);
}

/* core.uninterruptible(fn) -> function: a C function, since a hook comes also before the first line of
 * one of Lua's */
static int l_uninterruptible(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    lua_pushcclosure(L, bind_uninterrupted, 1);
    return 1;
}

/* core.interrupted() -> boolean */
static int l_interrupted(lua_State *L)
{
    const struct bind_handle *h;

    lua_rawgetp(L, LUA_REGISTRYINDEX, &bind_interrupt_key);
    h = lua_touserdata(L, -1);
    lua_pushboolean(L, h && fcproc_ctx_status(h->object, NULL) < 0);
    return 1;
}

int luaopen_fcproc_core(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "now", l_now },
        { "uninterruptible", l_uninterruptible },
        { "interrupted", l_interrupted },
        { "guest_path", l_guest_path },
        { NULL, NULL },
    };
    static const struct {
        const char *name;
        int bit;
    } without[] = {
        { "peerpidfd", FCPROC_WITHOUT_PEERPIDFD },
        { "pidfd_info", FCPROC_WITHOUT_PIDFD_INFO },
        { "inotify", FCPROC_WITHOUT_INOTIFY },
        { "close_range", FCPROC_WITHOUT_CLOSE_RANGE },
        { "cgroup_kill", FCPROC_WITHOUT_CGROUP_KILL },
    };

    luaL_newlib(L, functions);
    lua_pushstring(L, FCPROC_VERSION);
    lua_setfield(L, -2, "version");
#if defined(__x86_64__)
    lua_pushliteral(L, "x86_64");
#elif defined(__aarch64__)
    lua_pushliteral(L, "aarch64");
#else
    lua_pushliteral(L, "unknown");
#endif
    lua_setfield(L, -2, "arch");
    lua_newtable(L);
    for (size_t i = 0; i < sizeof(without) / sizeof(without[0]); i++) {
        lua_pushinteger(L, without[i].bit);
        lua_setfield(L, -2, without[i].name);
    }
    lua_setfield(L, -2, "without");
    bind_open_guard(L);
    bind_open_error(L);
    bind_open_context(L);
    bind_open_op(L);
    bind_open_process(L);
    bind_open_netns(L);
    bind_open_spawn(L);
    bind_open_net(L);
    bind_open_client(L);
    bind_open_path(L);
    bind_open_file(L);
    bind_open_fileop(L);
    bind_open_lock(L);
    bind_open_capper(L);
    bind_open_cgroup(L);
    bind_open_log(L);
    bind_open_checks(L);
    bind_open_terminal(L);
    bind_open_keys(L);
    return 1;
}

FCPROC_API void fcproc_lua_set_context(lua_State *L, fcproc_ctx *ctx)
{
    luaL_requiref(L, "fcproc.core", luaopen_fcproc_core, 0); /* makes the types, if nobody has */
    lua_pop(L, 1);
    bind_set_default_context(L, ctx);
}
