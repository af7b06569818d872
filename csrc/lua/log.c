/* SPDX-License-Identifier: MIT
 *
 * The log that a C host has set for a state: managers without a logger of their own write there.
 */
#include "binding.h"

static const char log_key = 0; /* its address names the registry entry */

static int l_host_logging(lua_State *L)
{
    lua_pushboolean(L, lua_rawgetp(L, LUA_REGISTRYINDEX, &log_key) == LUA_TTABLE);
    return 1;
}

/* core.host_log(level, message) */
static int l_host_log(lua_State *L)
{
    fcproc_lua_log fn;
    void *data;

    lua_rawgetp(L, LUA_REGISTRYINDEX, &log_key);
    if (lua_type(L, -1) != LUA_TTABLE)
        return 0;
    lua_rawgeti(L, -1, 1);
    lua_rawgeti(L, -2, 2);
    memcpy(&fn, lua_touserdata(L, -2), sizeof(fn)); /* ISO C has no cast to a function pointer */
    data = lua_touserdata(L, -1);
    fn(data, bind_check_string(L, 1), bind_check_string(L, 2));
    return 0;
}

FCPROC_API void fcproc_lua_set_log(lua_State *L, fcproc_lua_log fn, void *data)
{
    if (fn) {
        lua_createtable(L, 2, 0);
        memcpy(lua_newuserdatauv(L, sizeof(fn), 0), &fn, sizeof(fn));
        lua_rawseti(L, -2, 1);
        lua_pushlightuserdata(L, data);
        lua_rawseti(L, -2, 2);
    } else {
        lua_pushnil(L);
    }
    lua_rawsetp(L, LUA_REGISTRYINDEX, &log_key);
}

void bind_open_log(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "host_logging", l_host_logging },
        { "host_log", l_host_log },
        { NULL, NULL },
    };

    luaL_setfuncs(L, functions, 0);
}
