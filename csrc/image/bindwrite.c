/* SPDX-License-Identifier: MIT
 *
 * Trees into files, in Lua: what they need, what they become, and the file that has its name when it is
 * whole.
 */
#include "bind.h"

/* Tree:measure() -> { inodes, blocks, digest } */
static int l_tree_measure(lua_State *L)
{
    struct fcproc_image_need need = FCPROC_IMAGE_NEED_INIT;
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_image_measure(bind_check(L, 1, TYPE_TREE), &need, &err) < 0)
        return bind_fail(L, &err);
    lua_createtable(L, 0, 3);
    lua_pushstring(L, need.digest);
    lua_setfield(L, -2, "digest");
    bind_set_integer(L, "inodes", (lua_Integer)need.inodes);
    bind_set_integer(L, "blocks", (lua_Integer)need.blocks);
    return 1;
}

static void push_written(lua_State *L, fcproc_image_job *job)
{
    lua_createtable(L, 0, 1);
    image_push_warnings(L, job);
}

/* Tree:write{ format, fd, time, gzip } -> Job */
static int l_tree_write(lua_State *L)
{
    static const char *const names[] = { "ext4", "tar", "cpio", NULL };
    static const enum fcproc_image_format formats[] = { FCPROC_IMAGE_EXT4, FCPROC_IMAGE_TAR,
                                                        FCPROC_IMAGE_CPIO };
    struct fcproc_image_output output = FCPROC_IMAGE_OUTPUT_INIT;
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_job *b;

    luaL_checktype(L, 2, LUA_TTABLE);
    lua_getfield(L, 2, "format");
    output.format = formats[luaL_checkoption(L, -1, NULL, names)];
    output.fd = (int)bind_field_integer(L, 2, "fd", 0, INT32_MAX, -1);
    output.time = bind_field_integer(L, 2, "time", 0, LUA_MAXINTEGER, 0);
    output.gzip = bind_field_boolean(L, 2, "gzip");
    luaL_argcheck(L, output.fd >= 0, 2, "fd is missing");
    b = image_new_job(L, 1, push_written);
    if (fcproc_image_write(bind_check(L, 1, TYPE_TREE), &output, &b->job, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

/* ---- targets ---- */

static int l_target_close(lua_State *L)
{
    struct bind_handle *h = luaL_checkudata(L, 1, TYPE_TARGET);
    fcproc_image_target *target = h->object;

    h->object = NULL;
    fcproc_image_target_close(target);
    return 0;
}

static int l_target_fd(lua_State *L)
{
    lua_pushinteger(L, fcproc_image_target_fd(bind_check(L, 1, TYPE_TARGET)));
    return 1;
}

/* Target:resize(bytes) -> true */
static int l_target_resize(lua_State *L)
{
    fcproc_image_target *target = bind_check(L, 1, TYPE_TARGET);
    lua_Integer size = luaL_checkinteger(L, 2);
    fcproc_error err = FCPROC_ERROR_INIT;

    luaL_argcheck(L, size >= 0, 2, "less than 0");
    if (fcproc_image_target_resize(target, (uint64_t)size, &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, true);
    return 1;
}

static void push_copied(lua_State *L, fcproc_image_job *job)
{
    (void)job;
    lua_newtable(L);
}

/* Target:copy(path) -> Job */
static int l_target_copy(lua_State *L)
{
    const char *path = bind_check_string(L, 2);
    struct bind_job *b = image_new_job(L, 1, push_copied);
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_image_target_copy(bind_check(L, 1, TYPE_TARGET), path, &b->job, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

static void push_published(lua_State *L, fcproc_image_job *job)
{
    lua_createtable(L, 0, 1);
    bind_set_integer(L, "bytes", fcproc_image_target_bytes(job));
}

/* Target:publish() -> Job */
static int l_target_publish(lua_State *L)
{
    struct bind_job *b = image_new_job(L, 1, push_published);
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_image_target_publish(bind_check(L, 1, TYPE_TARGET), &b->job, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

/* imagecore.target(path) -> Target */
static int l_target(lua_State *L)
{
    const char *path = bind_check_string(L, 1);
    struct bind_handle *h = bind_new(L, TYPE_TARGET);
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_image_target *target;

    if (fcproc_image_target_open(path, &target, &err) < 0)
        return bind_fail(L, &err);
    h->object = target;
    return 1;
}

/* ---- pipes ---- */

static int l_pipe_close(lua_State *L)
{
    struct bind_handle *h = luaL_checkudata(L, 1, TYPE_PIPE);
    fcproc_image_pipe *pipe = h->object;

    h->object = NULL;
    fcproc_image_pipe_close(pipe);
    return 0;
}

static int l_pipe_reader(lua_State *L)
{
    lua_pushinteger(L, fcproc_image_pipe_reader(bind_check(L, 1, TYPE_PIPE)));
    return 1;
}

static int l_pipe_writer(lua_State *L)
{
    lua_pushinteger(L, fcproc_image_pipe_writer(bind_check(L, 1, TYPE_PIPE)));
    return 1;
}

/* imagecore.pipe() -> Pipe */
static int l_pipe(lua_State *L)
{
    struct bind_handle *h = bind_new(L, TYPE_PIPE);
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_image_pipe *pipe;

    if (fcproc_image_pipe_open(&pipe, &err) < 0)
        return bind_fail(L, &err);
    h->object = pipe;
    return 1;
}

/* imagecore.versions() -> { name = version } */
static int l_versions(lua_State *L)
{
    struct fcproc_image_versions v = fcproc_image_versions();

    lua_createtable(L, 0, 4);
    lua_pushstring(L, v.ext2fs);
    lua_setfield(L, -2, "libext2fs");
    lua_pushstring(L, v.archive);
    lua_setfield(L, -2, "libarchive");
    return 1;
}

void image_open_write(lua_State *L)
{
    static const luaL_Reg tree_methods[] = {
        { "measure", l_tree_measure },
        { "write", l_tree_write },
        { NULL, NULL },
    };
    static const luaL_Reg target_methods[] = {
        { "fd", l_target_fd },
        { "resize", l_target_resize },
        { "copy", l_target_copy },
        { "publish", l_target_publish },
        { NULL, NULL },
    };
    static const luaL_Reg pipe_methods[] = {
        { "reader", l_pipe_reader },
        { "writer", l_pipe_writer },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "target", l_target },
        { "pipe", l_pipe },
        { "versions", l_versions },
        { NULL, NULL },
    };

    image_add_methods(L, TYPE_TREE, tree_methods);
    bind_type(L, TYPE_TARGET, target_methods, l_target_close);
    bind_type(L, TYPE_PIPE, pipe_methods, l_pipe_close);
    luaL_setfuncs(L, functions, 0);
}
