/* SPDX-License-Identifier: MIT
 *
 * A file without what packed it, in Lua.
 */
#include "bind.h"

enum { MARKS_MOST = 4 };

static void push_unpacked(lua_State *L, fcproc_image_job *job)
{
    struct fcproc_image_unpacked u = FCPROC_IMAGE_UNPACKED_INIT;
    fcproc_error err = FCPROC_ERROR_INIT;

    lua_createtable(L, 0, 4);
    if (fcproc_image_unpack_result(job, &u, &err) < 0) {
        luaL_error(L, "%s", err.message);
        return;
    }
    bind_set_integer(L, "bytes", (lua_Integer)u.bytes);
    lua_pushboolean(L, u.packed);
    lua_setfield(L, -2, "packed");
    if (u.data) {
        lua_pushlstring(L, u.data, (size_t)u.bytes);
        lua_setfield(L, -2, "data");
    }
    lua_createtable(L, MARKS_MOST, 0);
    for (int i = 0; i < MARKS_MOST; i++) {
        if (u.marks[i] >= 0)
            lua_pushinteger(L, (lua_Integer)u.marks[i]);
        else
            lua_pushboolean(L, false);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "marks");
}

/* imagecore.unpack{ path, from, len, limit, fd, keep, marks } -> Job */
static int l_unpack(lua_State *L)
{
    struct fcproc_image_unpacking given = FCPROC_IMAGE_UNPACKING_INIT;
    const char *marks[MARKS_MOST];
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_job *b;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    b = image_new_job(L, 0, push_unpacked);
    given.path = bind_field_string(L, 1, "path");
    luaL_argcheck(L, given.path, 1, "path is missing");
    given.from = (uint64_t)bind_field_integer(L, 1, "from", 0, LUA_MAXINTEGER, 0);
    given.len = (uint64_t)bind_field_integer(L, 1, "len", 1, LUA_MAXINTEGER, 0);
    given.limit = (uint64_t)bind_field_integer(L, 1, "limit", 1, LUA_MAXINTEGER, 0);
    given.fd = (int)bind_field_integer(L, 1, "fd", 0, INT32_MAX, -1);
    given.keep = bind_field_boolean(L, 1, "keep");
    given.marks = marks;
    if (lua_getfield(L, 1, "marks") != LUA_TNIL) {
        luaL_argcheck(L, lua_istable(L, -1) && lua_rawlen(L, -1) <= MARKS_MOST, 1,
                      "marks must be a list of at most four");
        given.n_marks = (size_t)lua_rawlen(L, -1);
        for (size_t i = 0; i < given.n_marks; i++) { /* they stay in the list */
            lua_rawgeti(L, -1, (lua_Integer)i + 1);
            marks[i] = bind_check_string(L, -1);
            lua_pop(L, 1);
        }
    }
    if (fcproc_image_unpack(&given, &b->job, &err) < 0)
        return bind_fail(L, &err);
    lua_settop(L, 2);
    return 1;
}

void image_open_unpack(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "unpack", l_unpack },
        { NULL, NULL },
    };

    luaL_setfuncs(L, functions, 0);
}
