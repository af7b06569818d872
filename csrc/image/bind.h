/* SPDX-License-Identifier: MIT
 *
 * What the files of the binding of this room share, beside what all bindings do, and by their rules.
 */
#ifndef FCPROC_IMAGE_BIND_H
#define FCPROC_IMAGE_BIND_H

#include "../lua/rooms.h"
#include "fcproc_image.h"

#define TYPE_TREE   "fcproc.image.tree"
#define TYPE_JOB    "fcproc.image.job"
#define TYPE_TARGET "fcproc.image.target"
#define TYPE_PIPE   "fcproc.image.pipe"

struct bind_job {
    fcproc_image_job *job;
    /* [-0, +1, m] The result, a table. May raise. */
    void (*push)(lua_State *L, fcproc_image_job *job);
};

/* [-0, +1, m] A job, closed as yet, that keeps the value at `keeps` (0: nothing) for as long as it is. */
struct bind_job *image_new_job(lua_State *L, int keeps,
                               void (*push)(lua_State *L, fcproc_image_job *job));
/* [-0, +0, m] The list of its warnings becomes a field of the table on top. */
void image_push_warnings(lua_State *L, const fcproc_image_job *job);

/* Each adds its types and functions to the module table on top. [-0, +0, m] */
void image_open_job(lua_State *L);
void image_open_tree(lua_State *L);
void image_open_read(lua_State *L);
void image_open_write(lua_State *L);
void image_open_unpack(lua_State *L);
/* More methods of a type that there is already. [-0, +0, m] */
void image_add_methods(lua_State *L, const char *type, const luaL_Reg *methods);

#endif
