/* SPDX-License-Identifier: MIT
 *
 * Starting processes and running commands from Lua. The option names are checked by spawn.lua;
 * here only types and ranges are. All temporary memory is userdata, and the strings stay on the stack.
 */
#include <limits.h>
#include <signal.h>

#include "binding.h"

/* [-0, +1, e] The list of strings in the field; NULL for none. */
static const char *const *list_field(lua_State *L, int table, const char *name)
{
    if (lua_getfield(L, table, name) == LUA_TNIL)
        return NULL;
    if (!lua_istable(L, -1))
        luaL_error(L, "%s must be a list of strings", name);
    return bind_string_list(L, -1, name, NULL);
}

static bool is_text(lua_State *L, int index, const char *text)
{
    size_t len;
    const char *s = lua_tolstring(L, index, &len);

    return len == strlen(text) && memcmp(s, text, len) == 0;
}

/* "null", "inherit", a descriptor, or {file = path} */
static struct fcproc_stream stream_field(lua_State *L, int table, const char *name,
                                         enum fcproc_stdio missing)
{
    struct fcproc_stream s = { .kind = missing };
    int type = lua_getfield(L, table, name);
    lua_Integer fd = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : -1;

    if (type == LUA_TNUMBER && fd >= 0 && fd <= INT_MAX) {
        s.kind = FCPROC_STDIO_FD;
        s.fd = (int)fd;
    } else if (type == LUA_TTABLE) {
        s.kind = FCPROC_STDIO_FILE;
        s.path = bind_field_string(L, lua_gettop(L), "file");
        if (!s.path)
            luaL_error(L, "%s: expected {file = path}", name);
    } else if (type == LUA_TSTRING && is_text(L, -1, "null")) {
        s.kind = FCPROC_STDIO_NULL;
    } else if (type == LUA_TSTRING && is_text(L, -1, "inherit")) {
        s.kind = FCPROC_STDIO_INHERIT;
    } else if (type != LUA_TNIL) {
        luaL_error(L, "%s must be \"null\", \"inherit\", a descriptor or {file = path}", name);
    }
    return s;
}

/* fds = {[3] = descriptor, ...} */
static void fds_field(lua_State *L, int table, struct fcproc_spawn *spec)
{
    struct fcproc_fd_map *map;
    size_t n = 0;

    if (lua_getfield(L, table, "fds") == LUA_TNIL)
        return;
    if (!lua_istable(L, -1))
        luaL_error(L, "fds must be a table {[number in the child] = descriptor}");
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
        n++;
    map = lua_newuserdatauv(L, n * sizeof(*map) + 1, 0);
    lua_insert(L, -2);
    spec->fds = map;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        lua_Integer to = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : -1;
        lua_Integer from = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : -1;

        if (to < 3 || to > 1023 || from < 0 || from > INT_MAX)
            luaL_error(L, "fds must map numbers from 3 to 1023 to descriptors");
        if (spec->n_fds == n)
            luaL_error(L, "fds changed while it was read");
        map[spec->n_fds++] = (struct fcproc_fd_map){ .from = (int)from, .to = (int)to };
    }
}

/* Reads the table at index into spec, but for the namespace, whose value's index it returns: what is
 * read later may close it. What spec points to is on the stack. May raise. */
static int read_spawn(lua_State *L, int table, struct fcproc_spawn *spec)
{
    luaL_checktype(L, table, LUA_TTABLE);
    luaL_checkstack(L, 30, NULL);
    *spec = (struct fcproc_spawn)FCPROC_SPAWN_INIT;
    spec->argv = list_field(L, table, "argv");
    spec->envp = list_field(L, table, "env");
    spec->cwd = bind_field_string(L, table, "cwd");
    spec->cgroup = bind_field_string(L, table, "cgroup");
    spec->streams[0] = stream_field(L, table, "stdin", FCPROC_STDIO_NULL);
    spec->streams[1] = stream_field(L, table, "stdout", FCPROC_STDIO_INHERIT);
    spec->streams[2] = stream_field(L, table, "stderr", FCPROC_STDIO_INHERIT);
    fds_field(L, table, spec);
    spec->umask = (int)bind_field_integer(L, table, "umask", 0, 0777, -1);
    spec->uid = bind_field_integer(L, table, "uid", 0, BIND_MOST_ID, -1);
    spec->gid = bind_field_integer(L, table, "gid", 0, BIND_MOST_ID, -1);
    spec->no_file = bind_field_integer(L, table, "no_file", 0, INT_MAX, 0);
    spec->without = (unsigned)bind_field_integer(L, table, "without", 0, INT_MAX, 0);
    spec->new_session = bind_field_boolean(L, table, "session");
    spec->gate = bind_field_boolean(L, table, "gate");
    spec->jail = list_field(L, table, "jail");
    lua_getfield(L, table, "netns");
    return lua_gettop(L);
}

/* core.spawn(spec, ctx?) -> process */
static int l_spawn(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct fcproc_spawn spec;
    fcproc_process *p = NULL;
    struct bind_handle *h;
    int netns;

    lua_settop(L, 2);
    h = bind_new(L, TYPE_PROCESS);
    netns = read_spawn(L, 1, &spec);
    spec.netns = bind_opt(L, netns, TYPE_NETNS);
    if (fcproc_ctx_status(bind_ctx(L, 2), &err) < 0 || fcproc_spawn(&spec, &p, &err) < 0)
        return bind_fail(L, &err);
    h->object = p;
    lua_settop(L, 3);
    return 1;
}

static void push_output(lua_State *L, struct fcproc_output out, const char *name,
                        const char *truncated_name)
{
    lua_pushlstring(L, out.data ? out.data : "", out.len);
    lua_setfield(L, -2, name);
    if (out.truncated) {
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, truncated_name);
    }
}

/* Sets stdout, stderr and, when they were cut, *_truncated in the table on top. */
static void set_outputs(lua_State *L, fcproc_op *op)
{
    struct fcproc_output out, err;

    (void)fcproc_command_result(op, &out, &err);
    push_output(L, out, "stdout", "stdout_truncated");
    push_output(L, err, "stderr", "stderr_truncated");
}

static int push_command_result(lua_State *L, fcproc_op *op)
{
    struct fcproc_output out, err;

    bind_push_exit(L, fcproc_command_result(op, &out, &err));
    set_outputs(L, op);
    return 1;
}

/* core.command(spec, ctx?) -> op, whose result is {status|signal, stdout, stderr}. Besides the
 * fields of spawn: input, output_limit, timeout, end_signal, grace. */
static int l_command(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct fcproc_command spec = FCPROC_COMMAND_INIT;
    struct bind_op *b = bind_first_op(L, 2, push_command_result);
    int netns = read_spawn(L, 1, &spec.spawn);

    b->decorate = set_outputs;
    if (lua_getfield(L, 1, "input") != LUA_TNIL)
        spec.input = luaL_checklstring(L, lua_gettop(L), &spec.input_len);
    spec.output_limit = (size_t)bind_field_integer(L, 1, "output_limit", 0, LUA_MAXINTEGER,
                                                   1024 * 1024);
    spec.end_signal = (int)bind_field_integer(L, 1, "end_signal", 0, INT_MAX, SIGKILL);
    lua_getfield(L, 1, "timeout");
    spec.timeout_ms = bind_timeout_ms(L, lua_gettop(L));
    lua_getfield(L, 1, "grace");
    spec.grace_ms = bind_timeout_ms(L, lua_gettop(L));
    spec.spawn.netns = bind_opt(L, netns, TYPE_NETNS);
    if (fcproc_command_run(&spec, bind_ctx(L, 2), &b->op, &err) < 0)
        return bind_fail(L, &err);
    lua_settop(L, 3);
    return 1;
}

void bind_open_spawn(lua_State *L)
{
    static const struct {
        const char *name;
        int number;
    } signals[] = {
        { "HUP", SIGHUP },   { "INT", SIGINT },   { "QUIT", SIGQUIT },
        { "KILL", SIGKILL }, { "USR1", SIGUSR1 }, { "USR2", SIGUSR2 },
        { "TERM", SIGTERM }, { "CONT", SIGCONT }, { "STOP", SIGSTOP },
    };
    static const luaL_Reg functions[] = {
        { "spawn", l_spawn },
        { "command", l_command },
        { NULL, NULL },
    };

    luaL_setfuncs(L, functions, 0);
    lua_newtable(L);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        lua_pushinteger(L, signals[i].number);
        lua_setfield(L, -2, signals[i].name);
    }
    lua_setfield(L, -2, "signals");
}
