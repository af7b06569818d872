/* SPDX-License-Identifier: MIT
 *
 * The jobs that fill a tree, in Lua.
 */
#include "bind.h"

static void push_archive(lua_State *L, fcproc_image_job *job)
{
    const struct fcproc_image_archive_result *result = fcproc_image_read_archive_result(job);

    lua_createtable(L, 0, 7);
    lua_pushstring(L, result->digest); /* nil for NULL */
    lua_setfield(L, -2, "digest");
    lua_pushstring(L, result->diff_id);
    lua_setfield(L, -2, "diff_id");
    bind_set_integer(L, "packed_bytes", (lua_Integer)result->packed_bytes);
    bind_set_integer(L, "bytes", (lua_Integer)result->bytes);
    bind_set_integer(L, "entries", (lua_Integer)result->entries);
    bind_set_integer(L, "hidden_bytes", (lua_Integer)result->hidden_bytes);
    image_push_warnings(L, job);
}

/* Tree:read_archive(options) -> Job */
static int l_read_archive(lua_State *L)
{
    struct fcproc_image_archive spec = FCPROC_IMAGE_ARCHIVE_INIT;
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_image_tree *tree;
    struct bind_job *b;

    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    b = image_new_job(L, 1, push_archive);
    spec.path = bind_field_string(L, 2, "path");
    spec.fd = (int)bind_field_integer(L, 2, "fd", 0, INT32_MAX, -1);
    luaL_argcheck(L, !spec.path != (spec.fd < 0), 2, "either path or fd must be given");
    spec.offset = (uint64_t)bind_field_integer(L, 2, "offset", 0, LUA_MAXINTEGER, 0);
    spec.length = (uint64_t)bind_field_integer(L, 2, "length", 0, LUA_MAXINTEGER, 0);
    spec.layer = bind_field_boolean(L, 2, "layer");
    spec.digest = bind_field_string(L, 2, "digest");
    spec.diff_id = bind_field_string(L, 2, "diff_id");
    tree = bind_check(L, 1, TYPE_TREE);
    if (fcproc_image_read_archive(tree, &spec, &b->job, &err) < 0)
        return bind_fail(L, &err);
    lua_settop(L, 3);
    return 1;
}

static void push_warnings_alone(lua_State *L, fcproc_image_job *job)
{
    lua_createtable(L, 0, 1);
    image_push_warnings(L, job);
}

/* Tree:read_folder(options) -> Job */
static int l_read_folder(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    bool one_file_system;
    struct bind_job *b;
    const char *path;

    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    b = image_new_job(L, 1, push_warnings_alone);
    one_file_system = bind_field_boolean(L, 2, "one_file_system");
    path = bind_field_string(L, 2, "path");
    luaL_argcheck(L, path, 2, "path is missing");
    if (fcproc_image_read_folder(bind_check(L, 1, TYPE_TREE), path, one_file_system, &b->job,
                                 &err) < 0)
        return bind_fail(L, &err);
    lua_settop(L, 3);
    return 1;
}

/* Tree:merge() -> Job */
static int l_merge(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_job *b;

    lua_settop(L, 1);
    b = image_new_job(L, 1, push_warnings_alone);
    if (fcproc_image_merge(bind_check(L, 1, TYPE_TREE), &b->job, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

static void push_piece(lua_State *L, fcproc_image_job *job)
{
    struct fcproc_image_piece piece = fcproc_image_extract_result(job);

    lua_createtable(L, 0, 3);
    bind_set_integer(L, "fd", piece.fd);
    bind_set_integer(L, "offset", (lua_Integer)piece.offset);
    bind_set_integer(L, "length", (lua_Integer)piece.length);
}

/* Tree:extract(path) -> Job */
static int l_extract(lua_State *L)
{
    const char *path = bind_check_string(L, 2);
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_job *b;

    lua_settop(L, 2);
    b = image_new_job(L, 1, push_piece);
    if (fcproc_image_extract(bind_check(L, 1, TYPE_TREE), path, &b->job, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

void image_open_read(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "read_archive", l_read_archive },
        { "read_folder", l_read_folder },
        { "merge", l_merge },
        { "extract", l_extract },
        { NULL, NULL },
    };

    image_add_methods(L, TYPE_TREE, methods);
}
