/* SPDX-License-Identifier: MIT
 *
 * Cgroups in Lua. Every error has the path.
 */
#include "binding.h"

/* core.cgroup_holds(path, pid?) -> boolean */
static int l_cgroup_holds(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *path = bind_check_string(L, 1);
    pid_t pid = lua_isnoneornil(L, 2) ? 0 : bind_check_pid(L, 2);
    bool holds;

    luaL_argcheck(L, pid >= 0, 2, "no process number");
    if (fcproc_cgroup_holds(path, pid, &holds, &err) < 0)
        return bind_fail_at(L, &err, 1);
    lua_pushboolean(L, holds);
    return 1;
}

/* core.enter_cgroup(path, pid) -> true */
static int l_enter_cgroup(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *path = bind_check_string(L, 1);
    pid_t pid = bind_check_pid(L, 2);

    luaL_argcheck(L, pid > 0, 2, "no process number");
    if (fcproc_cgroup_enter(path, pid, &err) < 0)
        return bind_fail_at(L, &err, 1);
    lua_pushboolean(L, true);
    return 1;
}

static int push_killed(lua_State *L, fcproc_op *op)
{
    lua_pushinteger(L, (lua_Integer)fcproc_cgroup_remove_result(op));
    return 1;
}

/* core.remove_cgroup(path, timeout?, without?, ctx?) -> op, whose result is how many were killed */
static int l_remove_cgroup(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_op *b = bind_first_op(L, 4, push_killed);
    const char *path = bind_check_string(L, 1);
    int64_t timeout_ms = bind_timeout_ms(L, 2);
    unsigned without = bind_without(L, 3);
    fcproc_ctx *ctx = bind_ctx(L, 4);

    if (fcproc_cgroup_remove(path, timeout_ms, without, ctx, &b->op, &err) < 0)
        return bind_fail_at(L, &err, 1);
    return 1;
}

void bind_open_cgroup(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "cgroup_holds", l_cgroup_holds },
        { "enter_cgroup", l_enter_cgroup },
        { "remove_cgroup", l_remove_cgroup },
        { NULL, NULL },
    };

    luaL_setfuncs(L, functions, 0);
}
