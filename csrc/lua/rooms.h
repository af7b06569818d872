/* SPDX-License-Identifier: MIT
 *
 * What this binding and those of other rooms share: handles, errors, arguments. A function marked "may
 * raise" can leave by longjmp: no memory or descriptor may be held in a C variable across it. Everything
 * is owned by a userdata, made closed, before a library is called.
 */
#ifndef FCPROC_LUA_ROOMS_H
#define FCPROC_LUA_ROOMS_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <string.h>

#include "fcproc.h"

#define TYPE_ERROR "fcproc.error"

/* Every handle is one pointer, or begins with it; NULL is closed. */
struct bind_handle {
    void *object;
};

/* [-0, +2, m] nil and the error; returns 2. */
int bind_fail(lua_State *L, const fcproc_error *err);
/* [-0, +1, m] the error object alone. */
void bind_push_error(lua_State *L, const fcproc_error *err);
/* [-0, +1, m] a closed handle of the type. */
struct bind_handle *bind_new(lua_State *L, const char *type);
/* The object of a handle; raises when it is closed or of another type. */
void *bind_check(lua_State *L, int index, const char *type);
/* The object of the handle that is the first argument, which is closed from now on; NULL: it was. May
 * raise. */
void *bind_take(lua_State *L, const char *type);
/* NULL for nil or none. May raise. */
void *bind_opt(lua_State *L, int index, const char *type);
/* Makes a type with a __gc and __close that call l_close, and methods, "close" among them. [-0, +0, m] */
void bind_type(lua_State *L, const char *type, const luaL_Reg *methods, lua_CFunction l_close);
/* [-0, +0, m] A field of the table on top. */
void bind_set_integer(lua_State *L, const char *name, lua_Integer value);

/* Arguments and fields (arguments.c). All may raise; a string must have no NUL byte in it. */
const char *bind_check_string(lua_State *L, int index);
lua_Integer bind_check_integer(lua_State *L, int index, lua_Integer least, lua_Integer most);
/* [-0, +1, e] The field's value, which holds the string, stays on top; NULL and a nil for none. */
const char *bind_field_string(lua_State *L, int table, const char *name);
/* The same, with any bytes. */
const char *bind_field_bytes(lua_State *L, int table, const char *name, size_t *ret_len);
/* [-0, +0, e] From least to most. */
lua_Integer bind_field_integer(lua_State *L, int table, const char *name, lua_Integer least,
                               lua_Integer most, lua_Integer missing);
bool bind_field_boolean(lua_State *L, int table, const char *name);

#endif
