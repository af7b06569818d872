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

int luaopen_fcproc_core(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "now", l_now },
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
    bind_open_spawn(L);
    bind_open_net(L);
    bind_open_client(L);
    bind_open_path(L);
    bind_open_file(L);
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
