/* SPDX-License-Identifier: MIT
 *
 * What the files of the binding of this room share. A function marked "may raise" can leave by longjmp:
 * no memory or descriptor may be held in a C variable across it. Everything is owned by a userdata, made
 * closed before the library is called.
 */
#ifndef FCPROC_IMAGE_BIND_H
#define FCPROC_IMAGE_BIND_H

#include <lauxlib.h>
#include <lua.h>

#include "fcproc_image.h"

#define TYPE_TREE   "fcproc.image.tree"
#define TYPE_JOB    "fcproc.image.job"
#define TYPE_TARGET "fcproc.image.target"
#define TYPE_PIPE   "fcproc.image.pipe"

struct bind_tree {
    fcproc_image_tree *tree;
};

struct bind_job {
    fcproc_image_job *job;
    /* [-0, +1, m] The result, a table. May raise. */
    void (*push)(lua_State *L, fcproc_image_job *job);
};

/* [-0, +2, m] nil and the error; returns 2. */
int image_fail(lua_State *L, const fcproc_error *err);
/* Raises when it is closed. */
fcproc_image_tree *image_check_tree(lua_State *L, int index);
/* [-0, +1, m] A job, closed as yet, that keeps the value at `keeps` (0: nothing) for as long as it is. */
struct bind_job *image_new_job(lua_State *L, int keeps,
                               void (*push)(lua_State *L, fcproc_image_job *job));
/* [-0, +0, m] The list of its warnings becomes a field of the table on top. */
void image_push_warnings(lua_State *L, const fcproc_image_job *job);

/* Arguments: each may raise. A string has no NUL in it. */
const char *image_check_string(lua_State *L, int index);
/* [-0, +1, e] The field's value stays on top; NULL and a nil for none. */
const char *image_field_string(lua_State *L, int table, const char *name);
/* The same, with any bytes. */
const char *image_field_bytes(lua_State *L, int table, const char *name, size_t *ret_len);
/* [-0, +0, e] From least to most. */
lua_Integer image_field_integer(lua_State *L, int table, const char *name, lua_Integer least,
                                lua_Integer most, lua_Integer missing);
bool image_field_boolean(lua_State *L, int table, const char *name);

/* Each adds its types and functions to the module table on top. [-0, +0, m] */
void image_open_job(lua_State *L);
void image_open_tree(lua_State *L);
void image_open_read(lua_State *L);
void image_open_write(lua_State *L);
void image_open_unpack(lua_State *L);
/* Adds a type with methods, "close" among them, to the registry. [-0, +0, m] */
void image_type(lua_State *L, const char *type, const luaL_Reg *methods, lua_CFunction l_close);
/* More of them. [-0, +0, m] */
void image_add_methods(lua_State *L, const char *type, const luaL_Reg *methods);

#endif
