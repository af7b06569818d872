/* SPDX-License-Identifier: MIT
 *
 * Processes in Lua.
 */
#include "binding.h"

void bind_push_exit(lua_State *L, struct fcproc_exit e)
{
    lua_createtable(L, 0, 1);
    if (!e.known)
        return;
    lua_pushinteger(L, e.value);
    lua_setfield(L, -2, e.signaled ? "signal" : "status");
}

static int l_process_close(lua_State *L)
{
    fcproc_process_close(bind_take(L, TYPE_PROCESS));
    return 0;
}

/* Fills the closed handle on top of the stack, or fails. */
static int finish_process(lua_State *L, struct bind_handle *h, int r, fcproc_process *p,
                          const fcproc_error *err)
{
    if (r < 0)
        return bind_fail(L, err);
    h->object = p;
    return 1;
}

/* core.process(pid) or core.process({pid, start_time, boot_id, inode?, pid_ns?, time_ns?}) */
static int l_process(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_process *p = NULL;
    struct bind_handle *h;
    int r;

    if (lua_istable(L, 1)) {
        struct fcproc_identity id = { 0 };
        const char *boot_id;

        lua_settop(L, 1);
        lua_getfield(L, 1, "pid");
        lua_getfield(L, 1, "start_time");
        lua_getfield(L, 1, "boot_id");
        lua_getfield(L, 1, "inode");
        lua_getfield(L, 1, "pid_ns");
        lua_getfield(L, 1, "time_ns");
        id.pid = bind_check_pid(L, 2);
        id.start_time = (uint64_t)luaL_checkinteger(L, 3);
        boot_id = bind_check_string(L, 4);
        id.inode = (uint64_t)luaL_optinteger(L, 5, 0);
        id.pid_ns = (uint64_t)luaL_optinteger(L, 6, 0);
        id.time_ns = (uint64_t)luaL_optinteger(L, 7, 0);
        strncpy(id.boot_id, boot_id, sizeof(id.boot_id) - 1);
        h = bind_new(L, TYPE_PROCESS);
        r = fcproc_process_open_identity(&id, &p, &err);
    } else {
        pid_t pid = bind_check_pid(L, 1);

        h = bind_new(L, TYPE_PROCESS);
        r = fcproc_process_open(pid, &p, &err);
    }
    return finish_process(L, h, r, p, &err);
}

/* core.open_listener(path, without?) -> process */
static int l_open_listener(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_process *p = NULL;
    const char *path = bind_check_string(L, 1);
    unsigned without = bind_without(L, 2);
    struct bind_handle *h = bind_new(L, TYPE_PROCESS);
    int r = fcproc_process_open_listener(path, without, &p, &err);

    return finish_process(L, h, r, p, &err);
}

/* core.listener_pid(path, without?) -> pid */
static int l_listener_pid(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    pid_t pid = 0;

    if (fcproc_listener_pid(bind_check_string(L, 1), bind_without(L, 2), &pid, &err) < 0)
        return bind_fail(L, &err);
    lua_pushinteger(L, pid);
    return 1;
}

/* core.open_api_sock(exe, api_sock) -> process */
static int l_open_api_sock(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_process *p = NULL;
    const char *exe = bind_check_string(L, 1);
    const char *api_sock = bind_check_string(L, 2);
    struct bind_handle *h = bind_new(L, TYPE_PROCESS);
    int r = fcproc_process_open_api_sock(exe, api_sock, &p, &err);

    return finish_process(L, h, r, p, &err);
}

/* core.open_by_root(path) -> process */
static int l_open_by_root(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_process *p = NULL;
    const char *path = bind_check_string(L, 1);
    struct bind_handle *h = bind_new(L, TYPE_PROCESS);
    int r = fcproc_process_open_root(path, &p, &err);

    return finish_process(L, h, r, p, &err);
}

static int l_process_pid(lua_State *L)
{
    lua_pushinteger(L, fcproc_process_pid(bind_check(L, 1, TYPE_PROCESS)));
    return 1;
}

static int l_process_pidfd(lua_State *L)
{
    lua_pushinteger(L, fcproc_process_pidfd(bind_check(L, 1, TYPE_PROCESS)));
    return 1;
}

static int l_process_alive(lua_State *L)
{
    lua_pushboolean(L, fcproc_process_alive(bind_check(L, 1, TYPE_PROCESS)));
    return 1;
}

static int l_process_recorded(lua_State *L)
{
    lua_pushboolean(L, fcproc_process_is_recorded(bind_check(L, 1, TYPE_PROCESS)));
    return 1;
}

static int l_process_identity(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct fcproc_identity id;

    if (fcproc_process_identity(bind_check(L, 1, TYPE_PROCESS), &id, &err) < 0)
        return bind_fail(L, &err);
    struct {
        const char *name;
        uint64_t value;
    } known[] = { { "inode", id.inode }, { "pid_ns", id.pid_ns }, { "time_ns", id.time_ns } };

    lua_createtable(L, 0, 6);
    lua_pushinteger(L, id.pid);
    lua_setfield(L, -2, "pid");
    lua_pushinteger(L, (lua_Integer)id.start_time);
    lua_setfield(L, -2, "start_time");
    lua_pushstring(L, id.boot_id);
    lua_setfield(L, -2, "boot_id");
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (known[i].value) {
            lua_pushinteger(L, (lua_Integer)known[i].value);
            lua_setfield(L, -2, known[i].name);
        }
    return 1;
}

/* process:matches(exe, api_sock?, folder?) -> "yes", "no" or "exiting" */
static int l_process_matches(lua_State *L)
{
    static const char *const text[] = { "no", "yes", "exiting" };
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_process *p = bind_check(L, 1, TYPE_PROCESS);
    const char *api_sock = lua_isnoneornil(L, 3) ? NULL : bind_check_string(L, 3);
    const char *folder = lua_isnoneornil(L, 4) ? NULL : bind_check_string(L, 4);
    int r = fcproc_process_matches(p, bind_check_string(L, 2), api_sock, folder, &err);

    if (r < 0)
        return bind_fail(L, &err);
    lua_pushstring(L, text[r]);
    return 1;
}

/* process:in_folder(path) -> whether it is, while it lives */
static int l_process_in_folder(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    bool in = false;

    if (fcproc_process_in_folder(bind_check(L, 1, TYPE_PROCESS), bind_check_string(L, 2), &in,
                                 &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, in);
    return 1;
}

static int l_process_signal(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_process *p = bind_check(L, 1, TYPE_PROCESS);

    if (fcproc_process_signal(p, bind_check_int(L, 2), &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int l_process_release(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_process *p = bind_check(L, 1, TYPE_PROCESS);
    bool wait = lua_isnoneornil(L, 2) || lua_toboolean(L, 2);

    if (fcproc_process_release(p, wait, &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int push_wait_result(lua_State *L, fcproc_op *op)
{
    bind_push_exit(L, fcproc_process_wait_result(op));
    return 1;
}

/* process:wait_op(timeout?, without?, ctx?) -> op */
static int l_process_wait_op(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_op *b = bind_first_op(L, 4, push_wait_result);
    fcproc_process *p = bind_check(L, 1, TYPE_PROCESS);
    int64_t timeout_ms = bind_timeout_ms(L, 2);
    unsigned without = bind_without(L, 3);
    fcproc_ctx *ctx = bind_ctx(L, 4);

    if (fcproc_process_wait(p, timeout_ms, without, ctx, &b->op, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

static int push_server_result(lua_State *L, fcproc_op *op)
{
    lua_pushboolean(L, fcproc_server_wait_result(op));
    return 1;
}

/* process:wait_server_op(path, timeout?, label, without?, ctx?) -> op */
static int l_process_wait_server_op(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_op *b = bind_first_op(L, 6, push_server_result);
    fcproc_process *p = bind_check(L, 1, TYPE_PROCESS);
    const char *path = bind_check_string(L, 2);
    int64_t timeout_ms = bind_timeout_ms(L, 3);
    const char *label = bind_check_string(L, 4);
    unsigned without = bind_without(L, 5);
    fcproc_ctx *ctx = bind_ctx(L, 6);

    if (fcproc_server_wait(path, p, timeout_ms, label, without, ctx, &b->op, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

/* process:wait_file_op(path, size, expected?, timeout?, ctx?) -> op */
static int l_process_wait_file_op(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_op *b = bind_first_op(L, 6, NULL);
    fcproc_process *p = bind_check(L, 1, TYPE_PROCESS);
    const char *path = bind_check_string(L, 2);
    int64_t size = luaL_checkinteger(L, 3);
    struct fcproc_expected room;
    const struct fcproc_expected *expected = bind_expected(L, 4, &room);
    int64_t timeout_ms = bind_timeout_ms(L, 5);
    fcproc_ctx *ctx = bind_ctx(L, 6);

    if (fcproc_file_wait(path, expected, size, p, timeout_ms, ctx, &b->op, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

static int push_text_result(lua_State *L, fcproc_op *op)
{
    lua_pushboolean(L, fcproc_text_wait_result(op));
    return 1;
}

/* process:wait_text_op(path, text, expected?, timeout?, ctx?) -> op */
static int l_process_wait_text_op(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_op *b = bind_first_op(L, 6, push_text_result);
    fcproc_process *p = bind_check(L, 1, TYPE_PROCESS);
    const char *path = bind_check_string(L, 2);
    const char *text = bind_check_string(L, 3);
    struct fcproc_expected room;
    const struct fcproc_expected *expected = bind_expected(L, 4, &room);
    int64_t timeout_ms = bind_timeout_ms(L, 5);
    fcproc_ctx *ctx = bind_ctx(L, 6);

    if (fcproc_text_wait(path, expected, text, p, timeout_ms, ctx, &b->op, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

void bind_open_process(lua_State *L)
{
    static const luaL_Reg process_methods[] = {
        { "pid", l_process_pid },
        { "pidfd", l_process_pidfd },
        { "alive", l_process_alive },
        { "recorded", l_process_recorded },
        { "identity", l_process_identity },
        { "matches", l_process_matches },
        { "in_folder", l_process_in_folder },
        { "signal_number", l_process_signal },
        { "release", l_process_release },
        { "wait_op", l_process_wait_op },
        { "wait_server_op", l_process_wait_server_op },
        { "wait_file_op", l_process_wait_file_op },
        { "wait_text_op", l_process_wait_text_op },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "process", l_process },           { "open_listener", l_open_listener },
        { "listener_pid", l_listener_pid }, { "open_api_sock", l_open_api_sock },
        { "open_by_root", l_open_by_root }, { NULL, NULL },
    };

    bind_type(L, TYPE_PROCESS, process_methods, l_process_close);
    luaL_getmetatable(L, TYPE_PROCESS);
    lua_getfield(L, -1, "__index");
    lua_setfield(L, -3, "process_methods"); /* process.lua adds wait and signal */
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
