/* SPDX-License-Identifier: MIT
 *
 * What comes from Lua: every string that becomes a C string, and every integer that becomes a narrower
 * one, is checked here. All may raise.
 */
#include <limits.h>

#include "binding.h"

/* ---- arguments ---- */

const char *bind_check_string(lua_State *L, int index)
{
    size_t len;
    const char *s = luaL_checklstring(L, index, &len);

    luaL_argcheck(L, strlen(s) == len, index, "a string with a zero byte in it");
    return s;
}

lua_Integer bind_check_integer(lua_State *L, int index, lua_Integer least, lua_Integer most)
{
    lua_Integer value = luaL_checkinteger(L, index);

    if (value < least || value > most)
        luaL_argerror(L, index,
                      lua_pushfstring(L, "%I is not between %I and %I", value, least, most));
    return value;
}

int bind_check_int(lua_State *L, int index)
{
    return (int)bind_check_integer(L, index, INT_MIN, INT_MAX);
}

int bind_opt_int(lua_State *L, int index, int missing)
{
    return lua_isnoneornil(L, index) ? missing : bind_check_int(L, index);
}

pid_t bind_check_pid(lua_State *L, int index)
{
    lua_Integer pid = luaL_checkinteger(L, index);

    luaL_argcheck(L, pid == (pid_t)pid, index, "no process number");
    return (pid_t)pid;
}

int64_t bind_opt_id(lua_State *L, int index)
{
    lua_Integer id = luaL_optinteger(L, index, -1);

    luaL_argcheck(L, id >= -1 && id <= BIND_MOST_ID, index, "no user or group number");
    return id;
}

int64_t bind_check_size(lua_State *L, int index)
{
    lua_Integer size = luaL_checkinteger(L, index);

    luaL_argcheck(L, size >= 0, index, "a size must be 0 bytes or more");
    return size;
}

mode_t bind_check_mode(lua_State *L, int index)
{
    lua_Integer mode = luaL_checkinteger(L, index);

    luaL_argcheck(L, mode >= 0 && mode <= BIND_MOST_MODE, index,
                  "a mode must be between 0 and 4095 (07777)");
    return (mode_t)mode;
}

unsigned bind_without(lua_State *L, int index)
{
    return lua_isnoneornil(L, index) ? 0 : (unsigned)bind_check_integer(L, index, 0, INT_MAX);
}

int64_t bind_timeout_ms(lua_State *L, int index)
{
    lua_Number seconds;
    int64_t ms;

    if (lua_isnoneornil(L, index))
        return -1;
    seconds = luaL_checknumber(L, index);
    luaL_argcheck(L, seconds >= 0, index, "a time must be 0 seconds or more");
    if (seconds > 1e12)
        return -1;
    ms = (int64_t)(seconds * 1e3);
    return (lua_Number)ms < seconds * 1e3 ? ms + 1 : ms;
}

/* ---- fields of a table ----
 * Reading one may run a metamethod, which may make the value for this time only: it stays on the stack
 * for as long as it is used. */

const char *bind_field_bytes(lua_State *L, int table, const char *name, size_t *ret_len)
{
    int type = lua_getfield(L, table, name);

    *ret_len = 0;
    if (type == LUA_TNIL)
        return NULL;
    if (type != LUA_TSTRING)
        luaL_error(L, "%s must be a string, not a %s", name, luaL_typename(L, -1));
    return lua_tolstring(L, -1, ret_len);
}

const char *bind_field_string(lua_State *L, int table, const char *name)
{
    size_t len;
    const char *s = bind_field_bytes(L, table, name, &len);

    if (s && strlen(s) != len)
        luaL_error(L, "%s holds a zero byte", name);
    return s;
}

lua_Integer bind_field_integer(lua_State *L, int table, const char *name, lua_Integer least,
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

bool bind_field_boolean(lua_State *L, int table, const char *name)
{
    bool value;

    lua_getfield(L, table, name);
    value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

int64_t bind_field_id(lua_State *L, int table, const char *name)
{
    int64_t id;

    lua_getfield(L, table, name);
    id = bind_opt_id(L, -1);
    lua_pop(L, 1);
    return id;
}

const char *const *bind_string_list(lua_State *L, int index, const char *name, size_t *ret_n)
{
    size_t n = lua_rawlen(L, index), len;
    int table = lua_absindex(L, index);
    const char **list, *s;
    luaL_Buffer all;

    luaL_buffinit(L, &all);
    for (size_t i = 0; i < n; i++) {
        if (lua_rawgeti(L, table, (lua_Integer)i + 1) != LUA_TSTRING)
            luaL_error(L, "%s[%d] must be a string, not a %s", name, (int)i + 1,
                       luaL_typename(L, -1));
        s = lua_tolstring(L, -1, &len);
        if (strlen(s) != len)
            luaL_error(L, "%s[%d] holds a zero byte", name, (int)i + 1);
        luaL_addvalue(&all);
        luaL_addchar(&all, '\0');
    }
    luaL_pushresult(&all);
    s = lua_tostring(L, -1);
    list = lua_newuserdatauv(L, (n + 1) * sizeof(*list), 1);
    for (size_t i = 0; i < n; i++, s += strlen(s) + 1)
        list[i] = s;
    list[n] = NULL;
    lua_insert(L, -2);
    lua_setiuservalue(L, -2, 1); /* the text lasts as long as the list */
    if (ret_n)
        *ret_n = n;
    return list;
}
