/* SPDX-License-Identifier: MIT
 *
 * What takes its time with a file, in Lua: copies, hashes and syncs. Every error has the path: of two,
 * the new name.
 */
#include "binding.h"

static int push_copied(lua_State *L, fcproc_op *op)
{
    struct fcproc_copied copied = fcproc_file_copy_result(op);

    lua_pushstring(L, copied.method == FCPROC_COPY_REFLINK ? "reflink" : "sparse");
    lua_pushinteger(L, copied.bytes);
    bind_push_file_id(L, &copied.id);
    return 3;
}

/* [-0, +0, m] The path of the error on top: the operation's user value. */
static void set_file_path(lua_State *L, fcproc_op *op)
{
    (void)op;
    lua_getiuservalue(L, 1, 1);
    lua_setfield(L, -2, "path");
}

/* The errors of the operation at that index of the stack tell the path at the other. */
static void tell_path(lua_State *L, struct bind_op *b, int op, int path)
{
    b->decorate = set_file_path;
    lua_pushvalue(L, path);
    lua_setiuservalue(L, op, 1);
}

static const struct fcproc_expected *expected_field(lua_State *L, int i,
                                                    struct fcproc_expected *room)
{
    const struct fcproc_expected *expected;

    lua_getfield(L, i, "expected");
    expected = bind_expected(L, lua_gettop(L), room);
    lua_pop(L, 1);
    return expected;
}

/* core.copy_file(from, to, method, mode, options?, ctx?) -> op, whose results are the method, the
 * bytes and the copy's identity. options: uid, gid, expected */
static int l_copy_file(lua_State *L)
{
    static const char *const methods[] = { "reflink", "sparse", NULL };
    fcproc_error err = FCPROC_ERROR_INIT;
    struct fcproc_copy spec = FCPROC_COPY_INIT;
    struct fcproc_expected room;
    struct bind_op *b = bind_first_op(L, 6, push_copied);

    spec.from = bind_check_string(L, 1);
    spec.to = bind_check_string(L, 2);
    spec.method = (enum fcproc_copy_method)luaL_checkoption(L, 3, NULL, methods);
    spec.mode = bind_check_mode(L, 4);
    if (!lua_isnoneornil(L, 5)) {
        luaL_checktype(L, 5, LUA_TTABLE);
        spec.uid = bind_field_id(L, 5, "uid");
        spec.gid = bind_field_id(L, 5, "gid");
        spec.expected = expected_field(L, 5, &room);
    }
    tell_path(L, b, 7, 2);
    if (fcproc_file_copy(&spec, bind_ctx(L, 6), &b->op, &err) < 0)
        return bind_fail_at(L, &err, 2);
    return 1;
}

static int push_hash(lua_State *L, fcproc_op *op)
{
    lua_pushstring(L, fcproc_file_hash_result(op));
    return 1;
}

/* core.hash_file(path, options?, ctx?) -> op, whose result is the hash. options: blocks, follow,
 * expected */
static int l_hash_file(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct fcproc_hash spec = FCPROC_HASH_INIT;
    struct fcproc_expected room;
    struct bind_op *b = bind_first_op(L, 3, push_hash);

    spec.path = bind_check_string(L, 1);
    if (!lua_isnoneornil(L, 2)) {
        luaL_checktype(L, 2, LUA_TTABLE);
        spec.follow = bind_field_boolean(L, 2, "follow");
        spec.blocks = bind_field_boolean(L, 2, "blocks");
        spec.expected = expected_field(L, 2, &room);
    }
    tell_path(L, b, 4, 1);
    if (fcproc_file_hash(&spec, bind_ctx(L, 3), &b->op, &err) < 0)
        return bind_fail_at(L, &err, 1);
    return 1;
}

/* core.sync(path, ctx?) -> op */
static int l_sync(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *path = bind_check_string(L, 1);
    struct bind_op *b = bind_first_op(L, 2, NULL);

    tell_path(L, b, 3, 1);
    if (fcproc_file_sync(path, bind_ctx(L, 2), &b->op, &err) < 0)
        return bind_fail_at(L, &err, 1);
    return 1;
}

void bind_open_fileop(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "copy_file", l_copy_file },
        { "hash_file", l_hash_file },
        { "sync", l_sync },
        { NULL, NULL },
    };

    luaL_setfuncs(L, functions, 0);
}
