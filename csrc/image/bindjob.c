/* SPDX-License-Identifier: MIT
 *
 * Jobs in Lua: fd, progress, result, cancel, close. The loop that waits for them is Lua's.
 */
#include "bind.h"

struct bind_job *image_new_job(lua_State *L, int keeps,
                               void (*push)(lua_State *L, fcproc_image_job *job))
{
    struct bind_job *b = lua_newuserdatauv(L, sizeof(*b), 1);

    *b = (struct bind_job){ .push = push };
    luaL_setmetatable(L, TYPE_JOB);
    if (keeps != 0) {
        lua_pushvalue(L, keeps);
        lua_setiuservalue(L, -2, 1);
    }
    return b;
}

void image_push_warnings(lua_State *L, const fcproc_image_job *job)
{
    const char *text;

    lua_newtable(L);
    for (size_t i = 0; (text = fcproc_image_job_warning(job, i)) != NULL; i++) {
        lua_pushstring(L, text);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "warnings");
}

static struct bind_job *check_job(lua_State *L)
{
    struct bind_job *b = luaL_checkudata(L, 1, TYPE_JOB);

    if (!b->job)
        luaL_error(L, "attempt to use a closed %s", TYPE_JOB);
    return b;
}

static int l_job_close(lua_State *L)
{
    struct bind_job *b = luaL_checkudata(L, 1, TYPE_JOB);
    fcproc_image_job *job = b->job;

    b->job = NULL;
    fcproc_image_job_close(job);
    return 0;
}

static int l_job_fd(lua_State *L)
{
    lua_pushinteger(L, fcproc_image_job_fd(check_job(L)->job));
    return 1;
}

static int l_job_progress(lua_State *L)
{
    const struct bind_job *b = check_job(L);
    struct fcproc_image_progress p = FCPROC_IMAGE_PROGRESS_INIT;
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_image_job_progress(b->job, &p, &err) < 0)
        return bind_fail(L, &err);
    lua_createtable(L, 0, 4);
    lua_pushstring(L, p.step);
    lua_setfield(L, -2, "step");
    bind_set_integer(L, "bytes", (lua_Integer)p.bytes);
    bind_set_integer(L, "total", (lua_Integer)p.total);
    bind_set_integer(L, "entries", (lua_Integer)p.entries);
    return 1;
}

static int l_job_result(lua_State *L)
{
    const struct bind_job *b = check_job(L);
    fcproc_error err = FCPROC_ERROR_INIT;
    int r = fcproc_image_job_step(b->job, &err);

    if (r < 0)
        return bind_fail(L, &err);
    if (r == 0) {
        lua_pushboolean(L, false);
        return 1;
    }
    b->push(L, b->job);
    return 1;
}

static int l_job_cancel(lua_State *L)
{
    fcproc_image_job_cancel(check_job(L)->job);
    return 0;
}

static void push_hash(lua_State *L, fcproc_image_job *job)
{
    lua_createtable(L, 0, 1);
    lua_pushstring(L, fcproc_image_hash_result(job));
    lua_setfield(L, -2, "digest");
}

/* imagecore.hash{ path } -> Job */
static int l_hash(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_job *b;
    const char *path;

    luaL_checktype(L, 1, LUA_TTABLE);
    b = image_new_job(L, 0, push_hash);
    path = bind_field_string(L, 1, "path");
    luaL_argcheck(L, path, 1, "path is missing");
    if (fcproc_image_hash(path, &b->job, &err) < 0)
        return bind_fail(L, &err);
    lua_settop(L, 2);
    return 1;
}

/* imagecore.digest(bytes) -> "sha256:..." */
static int l_digest(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    char digest[72];
    size_t len;
    const char *data = luaL_checklstring(L, 1, &len);

    if (fcproc_image_digest(data, len, digest, &err) < 0)
        return bind_fail(L, &err);
    lua_pushstring(L, digest);
    return 1;
}

void image_open_job(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "fd", l_job_fd },
        { "progress", l_job_progress },
        { "result", l_job_result },
        { "cancel", l_job_cancel },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "digest", l_digest },
        { "hash", l_hash },
        { NULL, NULL },
    };

    bind_type(L, TYPE_JOB, methods, l_job_close);
    luaL_setfuncs(L, functions, 0);
}
