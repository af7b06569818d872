/* SPDX-License-Identifier: MIT
 *
 * Locks in Lua. The user value is the path, which every error has.
 */
#include "binding.h"

static int l_lock_close(lua_State *L)
{
    fcproc_lock_close(bind_take(L, TYPE_LOCK));
    return 0;
}

/* lock:remove() -> true */
static int l_lock_remove(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;

    bind_check(L, 1, TYPE_LOCK);
    if (fcproc_lock_remove(bind_take(L, TYPE_LOCK), &err) < 0) {
        bind_fail(L, &err);
        lua_getiuservalue(L, 1, 1);
        lua_setfield(L, -2, "path");
        return 2;
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* core.lock_taken(path) -> boolean */
static int l_lock_taken(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    bool taken;

    if (fcproc_lock_taken(bind_check_string(L, 1), &taken, &err) < 0)
        return bind_fail_at(L, &err, 1);
    lua_pushboolean(L, taken);
    return 1;
}

/* core.lock_file(path, mode?) -> lock, created */
static int l_lock_file(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *path = bind_check_string(L, 1);
    mode_t mode = lua_isnoneornil(L, 2) ? 0600 : bind_check_mode(L, 2);
    struct bind_handle *h = bind_new(L, TYPE_LOCK);
    fcproc_lock *lock = NULL;
    bool created = false;

    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    if (fcproc_lock_open(path, mode, &lock, &created, &err) < 0)
        return bind_fail_at(L, &err, 1);
    h->object = lock;
    lua_pushboolean(L, created);
    return 2;
}

void bind_open_lock(lua_State *L)
{
    static const luaL_Reg methods[] = { { "remove", l_lock_remove }, { NULL, NULL } };
    static const luaL_Reg functions[] = {
        { "lock_file", l_lock_file },
        { "lock_taken", l_lock_taken },
        { NULL, NULL },
    };

    bind_type(L, TYPE_LOCK, methods, l_lock_close);
    luaL_setfuncs(L, functions, 0);
}
