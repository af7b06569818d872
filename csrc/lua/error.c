/* SPDX-License-Identifier: MIT
 *
 * fcproc_error as a Lua object. Its methods are Lua's (error.lua fills the metatable); here it is
 * only made, so that C and Lua make the same kind.
 */
#include "binding.h"

void bind_push_error(lua_State *L, const fcproc_error *err)
{
    lua_createtable(L, 0, 5);
    luaL_setmetatable(L, TYPE_ERROR);
    lua_pushstring(L, fcproc_code_name(err->code));
    lua_setfield(L, -2, "code");
    lua_pushstring(L, err->op ? err->op : "fcproc");
    lua_setfield(L, -2, "op");
    lua_pushstring(L, err->message);
    lua_setfield(L, -2, "message");
    if (err->sys_errno) {
        lua_pushinteger(L, err->sys_errno);
        lua_setfield(L, -2, "errno");
    }
    if (err->pid) {
        lua_pushinteger(L, err->pid);
        lua_setfield(L, -2, "pid");
    }
}

/* [-0, +1, e] The field as text. */
static void push_field(lua_State *L, const char *name)
{
    lua_pushstring(L, name);
    lua_rawget(L, 1);
    luaL_tolstring(L, -1, NULL);
    lua_remove(L, -2);
}

/* "op: message (code)", also in a state that has not loaded error.lua. */
static int l_error_tostring(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    push_field(L, "op");
    lua_pushliteral(L, ": ");
    push_field(L, "message");
    lua_pushliteral(L, " (");
    push_field(L, "code");
    lua_pushliteral(L, ")");
    lua_concat(L, 6);
    return 1;
}

int bind_fail(lua_State *L, const fcproc_error *err)
{
    lua_pushnil(L);
    bind_push_error(L, err);
    return 2;
}

int bind_fail_at(lua_State *L, const fcproc_error *err, int index)
{
    bind_fail(L, err);
    lua_pushvalue(L, index);
    lua_setfield(L, -2, "path");
    return 2;
}

void bind_open_error(lua_State *L)
{
    static const struct {
        const char *name, *text, *meaning;
    } codes[] = {
#define FCPROC_X(name, number, text, meaning) { #name, text, meaning },
        FCPROC_ERROR_LIST(FCPROC_X)
#undef FCPROC_X
    };

    luaL_newmetatable(L, TYPE_ERROR);
    lua_pushcfunction(L, l_error_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_setfield(L, -2, "error_metatable");
    lua_createtable(L, sizeof(codes) / sizeof(codes[0]), 0);
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        lua_createtable(L, 0, 3);
        lua_pushstring(L, codes[i].name);
        lua_setfield(L, -2, "name");
        lua_pushstring(L, codes[i].text);
        lua_setfield(L, -2, "code");
        lua_pushstring(L, codes[i].meaning);
        lua_setfield(L, -2, "meaning");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "codes");
}
