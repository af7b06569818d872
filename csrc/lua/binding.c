/* SPDX-License-Identifier: MIT
 *
 * Helpers that every file of the binding uses: handles and guards.
 */
#include <stdlib.h>

#include "binding.h"

static int l_handle_tostring(lua_State *L)
{
    const struct bind_handle *h = lua_touserdata(L, 1);

    luaL_getmetafield(L, 1, "__name");
    if (h && h->object)
        lua_pushfstring(L, "%s (%p)", lua_tostring(L, -1), h->object);
    else
        lua_pushfstring(L, "%s (closed)", lua_tostring(L, -1));
    return 1;
}

void bind_type(lua_State *L, const char *type, const luaL_Reg *methods, lua_CFunction l_close)
{
    luaL_newmetatable(L, type);
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__close");
    lua_pushcfunction(L, l_handle_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "close");
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

struct bind_handle *bind_new(lua_State *L, const char *type)
{
    struct bind_handle *h = lua_newuserdatauv(L, sizeof(*h), 1);

    h->object = NULL;
    luaL_setmetatable(L, type);
    return h;
}

void *bind_check(lua_State *L, int index, const char *type)
{
    struct bind_handle *h = luaL_checkudata(L, index, type);

    if (!h->object)
        luaL_error(L, "attempt to use a closed %s", type);
    return h->object;
}

void bind_set_integer(lua_State *L, const char *name, lua_Integer value)
{
    lua_pushinteger(L, value);
    lua_setfield(L, -2, name);
}

void *bind_take(lua_State *L, const char *type)
{
    struct bind_handle *h = luaL_checkudata(L, 1, type);
    void *object = h->object;

    h->object = NULL;
    return object;
}

void *bind_opt(lua_State *L, int index, const char *type)
{
    return lua_isnoneornil(L, index) ? NULL : bind_check(L, index, type);
}

void bind_guard_release(struct bind_handle *guard)
{
    free(guard->object);
    guard->object = NULL;
}

static int l_guard_close(lua_State *L)
{
    bind_guard_release(luaL_checkudata(L, 1, TYPE_GUARD));
    return 0;
}

struct bind_handle *bind_guard(lua_State *L)
{
    return bind_new(L, TYPE_GUARD);
}

void bind_open_guard(lua_State *L)
{
    static const luaL_Reg none[] = { { NULL, NULL } };

    bind_type(L, TYPE_GUARD, none, l_guard_close);
}
