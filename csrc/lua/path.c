/* SPDX-License-Identifier: MIT
 *
 * Paths and sockets in Lua.
 */
#include <limits.h>

#include "binding.h"

/* core.wait_path(path, listening, timeout?, label, without?, ctx?) -> op */
static int l_wait_path(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_op *b = bind_first_op(L, 6, NULL);
    const char *path = bind_check_string(L, 1);
    bool listening = lua_toboolean(L, 2);
    int64_t timeout_ms = bind_timeout_ms(L, 3);
    const char *label = bind_check_string(L, 4);
    unsigned without = bind_without(L, 5);
    fcproc_ctx *ctx = bind_ctx(L, 6);

    if (fcproc_path_wait(path, listening, timeout_ms, label, without, ctx, &b->op, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

/* core.socket_access(path) -> changed */
static int l_socket_access(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *path = bind_check_string(L, 1);
    bool changed = false;

    if (fcproc_socket_access(path, -1, -1, &changed, &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, changed);
    return 1;
}

/* core.socket_dir(path) -> changed */
static int l_socket_dir(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    bool changed = false;

    if (fcproc_socket_dir(bind_check_string(L, 1), &changed, &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, changed);
    return 1;
}

/* core.check_dir(path) -> true */
static int l_check_dir(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_dir_check(bind_check_string(L, 1), &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.find_executable(name) -> path */
static int l_find_executable(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    char path[PATH_MAX];

    if (fcproc_find_executable(bind_check_string(L, 1), path, sizeof(path), &err) < 0)
        return bind_fail(L, &err);
    lua_pushstring(L, path);
    return 1;
}

/* core.absolute_path(path) -> path */
static int l_absolute_path(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    char path[PATH_MAX];

    if (fcproc_absolute_path(bind_check_string(L, 1), path, &err) < 0)
        return bind_fail(L, &err);
    lua_pushstring(L, path);
    return 1;
}

void bind_open_path(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "wait_path", l_wait_path },
        { "socket_access", l_socket_access },
        { "socket_dir", l_socket_dir },
        { "check_dir", l_check_dir },
        { "find_executable", l_find_executable },
        { "absolute_path", l_absolute_path },
        { NULL, NULL },
    };

    luaL_setfuncs(L, functions, 0);
}
