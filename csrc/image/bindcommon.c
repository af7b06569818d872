/* SPDX-License-Identifier: MIT
 *
 * What the files of the binding share: errors, arguments, types.
 */
#include "bind.h"

#include <string.h>

#define TYPE_ERROR "fcproc.error"

int image_fail(lua_State *L, const fcproc_error *err)
{
    lua_pushnil(L);
    lua_createtable(L, 0, 5);
    luaL_setmetatable(L, TYPE_ERROR);
    lua_pushstring(L, fcproc_code_name(err->code));
    lua_setfield(L, -2, "code");
    lua_pushstring(L, err->op ? err->op : "image");
    lua_setfield(L, -2, "op");
    lua_pushstring(L, err->message);
    lua_setfield(L, -2, "message");
    if (err->sys_errno) {
        lua_pushinteger(L, err->sys_errno);
        lua_setfield(L, -2, "errno");
    }
    return 2;
}

const char *image_check_string(lua_State *L, int index)
{
    size_t len;
    const char *s = luaL_checklstring(L, index, &len);

    luaL_argcheck(L, strlen(s) == len, index, "a string with a zero byte in it");
    return s;
}

const char *image_field_bytes(lua_State *L, int table, const char *name, size_t *ret_len)
{
    int type = lua_getfield(L, table, name);

    *ret_len = 0;
    if (type == LUA_TNIL)
        return NULL;
    if (type != LUA_TSTRING)
        luaL_error(L, "%s must be a string, not a %s", name, luaL_typename(L, -1));
    return lua_tolstring(L, -1, ret_len);
}

const char *image_field_string(lua_State *L, int table, const char *name)
{
    size_t len;
    const char *s = image_field_bytes(L, table, name, &len);

    if (s && strlen(s) != len)
        luaL_error(L, "%s holds a zero byte", name);
    return s;
}

lua_Integer image_field_integer(lua_State *L, int table, const char *name, lua_Integer least,
                                lua_Integer most, lua_Integer missing)
{
    lua_Integer value = missing;

    if (lua_getfield(L, table, name) != LUA_TNIL) {
        int is_integer;

        value = lua_tointegerx(L, -1, &is_integer);
        if (!is_integer || value < least || value > most)
            luaL_error(L, "%s must be a whole number from %I to %I", name, least, most);
    }
    lua_pop(L, 1);
    return value;
}

bool image_field_boolean(lua_State *L, int table, const char *name)
{
    bool value;

    lua_getfield(L, table, name);
    value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

static int l_tostring(lua_State *L)
{
    void *const *object = lua_touserdata(L, 1);

    luaL_getmetafield(L, 1, "__name");
    if (object && *object)
        lua_pushfstring(L, "%s (%p)", lua_tostring(L, -1), *object);
    else
        lua_pushfstring(L, "%s (closed)", lua_tostring(L, -1));
    return 1;
}

void image_type(lua_State *L, const char *type, const luaL_Reg *methods, lua_CFunction l_close)
{
    luaL_newmetatable(L, type);
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__close");
    lua_pushcfunction(L, l_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "close");
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

void image_add_methods(lua_State *L, const char *type, const luaL_Reg *methods)
{
    luaL_getmetatable(L, type);
    lua_getfield(L, -1, "__index");
    luaL_setfuncs(L, methods, 0);
    lua_pop(L, 2);
}
