/* SPDX-License-Identifier: MIT
 *
 * Starting processes and running commands from Lua. The option names are checked by spawn.lua;
 * here only types are. All temporary memory is userdata, and the strings stay anchored in the
 * caller's table for the length of the call.
 */
#include <signal.h>

#include "binding.h"

/* [-0, +1, m] a NULL-terminated array of the strings in field name; NULL and nothing pushed when
 * the field is nil. */
static const char *const *list_field(lua_State *L, int table, const char *name)
{
    const char **list;
    size_t n;

    if (lua_getfield(L, table, name) == LUA_TNIL) {
        lua_pop(L, 1);
        return NULL;
    }
    if (!lua_istable(L, -1))
        luaL_error(L, "%s must be a list of strings", name);
    n = lua_rawlen(L, -1);
    list = lua_newuserdatauv(L, (n + 1) * sizeof(*list), 0);
    for (size_t i = 0; i < n; i++) {
        size_t len;

        if (lua_rawgeti(L, -2, (lua_Integer)i + 1) != LUA_TSTRING)
            luaL_error(L, "%s[%d] must be a string, not a %s", name, (int)i + 1,
                       luaL_typename(L, -1));
        list[i] = lua_tolstring(L, -1, &len);
        if (strlen(list[i]) != len)
            luaL_error(L, "%s[%d] holds a zero byte", name, (int)i + 1);
        lua_pop(L, 1);
    }
    list[n] = NULL;
    lua_remove(L, -2);
    return list;
}

static const char *string_field(lua_State *L, int table, const char *name)
{
    const char *s = NULL;
    int type = lua_getfield(L, table, name);

    if (type == LUA_TSTRING)
        s = lua_tostring(L, -1);
    else if (type != LUA_TNIL)
        luaL_error(L, "%s must be a string, not a %s", name, luaL_typename(L, -1));
    lua_pop(L, 1); /* the table keeps it */
    return s;
}

static lua_Integer integer_field(lua_State *L, int table, const char *name, lua_Integer missing)
{
    lua_Integer value = missing;

    if (lua_getfield(L, table, name) != LUA_TNIL) {
        int is_integer;

        value = lua_tointegerx(L, -1, &is_integer);
        if (!is_integer || value < 0)
            luaL_error(L, "%s must be a whole number of 0 or more", name);
    }
    lua_pop(L, 1);
    return value;
}

/* "null", "inherit", a descriptor, or {file = path} */
static struct fcproc_stream stream_field(lua_State *L, int table, const char *name,
                                         enum fcproc_stdio missing)
{
    struct fcproc_stream s = { .kind = missing };
    int type = lua_getfield(L, table, name);

    if (type == LUA_TNUMBER) {
        s.kind = FCPROC_STDIO_FD;
        s.fd = (int)lua_tointeger(L, -1);
    } else if (type == LUA_TTABLE) {
        s.kind = FCPROC_STDIO_FILE;
        s.path = string_field(L, lua_gettop(L), "file");
        if (!s.path)
            luaL_error(L, "%s: expected {file = path}", name);
    } else if (type == LUA_TSTRING && strcmp(lua_tostring(L, -1), "null") == 0) {
        s.kind = FCPROC_STDIO_NULL;
    } else if (type == LUA_TSTRING && strcmp(lua_tostring(L, -1), "inherit") == 0) {
        s.kind = FCPROC_STDIO_INHERIT;
    } else if (type != LUA_TNIL) {
        luaL_error(L, "%s must be \"null\", \"inherit\", a descriptor or {file = path}", name);
    }
    lua_pop(L, 1);
    return s;
}

/* fds = {[3] = descriptor, ...} */
static void fds_field(lua_State *L, int table, struct fcproc_spawn *spec)
{
    struct fcproc_fd_map *map;
    size_t n = 0;

    if (lua_getfield(L, table, "fds") == LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    if (!lua_istable(L, -1))
        luaL_error(L, "fds must be a table {[number in the child] = descriptor}");
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
        n++;
    map = lua_newuserdatauv(L, n * sizeof(*map) + 1, 0);
    lua_insert(L, -2);
    spec->fds = map;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        if (!lua_isinteger(L, -2) || lua_tointeger(L, -2) < 3 || lua_tointeger(L, -2) > 1023 ||
            !lua_isinteger(L, -1))
            luaL_error(L, "fds must map numbers from 3 to 1023 to descriptors");
        map[spec->n_fds++] = (struct fcproc_fd_map){ .from = (int)lua_tointeger(L, -1),
                                                     .to = (int)lua_tointeger(L, -2) };
    }
    lua_pop(L, 1);
}

/* Reads the table at index into spec. What must outlive the call is pushed. May raise. */
static void read_spawn(lua_State *L, int table, struct fcproc_spawn *spec)
{
    luaL_checktype(L, table, LUA_TTABLE);
    luaL_checkstack(L, 20, NULL);
    *spec = (struct fcproc_spawn)FCPROC_SPAWN_INIT;
    spec->argv = list_field(L, table, "argv");
    spec->envp = list_field(L, table, "env");
    spec->cwd = string_field(L, table, "cwd");
    spec->streams[0] = stream_field(L, table, "stdin", FCPROC_STDIO_NULL);
    spec->streams[1] = stream_field(L, table, "stdout", FCPROC_STDIO_INHERIT);
    spec->streams[2] = stream_field(L, table, "stderr", FCPROC_STDIO_INHERIT);
    fds_field(L, table, spec);
    spec->umask = (int)integer_field(L, table, "umask", -1);
    spec->uid = integer_field(L, table, "uid", -1);
    spec->gid = integer_field(L, table, "gid", -1);
    spec->without = (unsigned)integer_field(L, table, "without", 0);
    lua_getfield(L, table, "session");
    spec->new_session = lua_toboolean(L, -1);
    lua_getfield(L, table, "gate");
    spec->gate = lua_toboolean(L, -1);
    lua_pop(L, 2);
    if (lua_getfield(L, table, "netns") != LUA_TNIL)
        spec->netns = bind_check(L, lua_gettop(L), TYPE_NETNS);
    lua_pop(L, 1); /* the table keeps it */
}

/* core.spawn(spec, ctx?) -> process */
static int l_spawn(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct fcproc_spawn spec;
    fcproc_process *p = NULL;
    struct bind_handle *h;
    fcproc_ctx *ctx = bind_ctx(L, 2);

    read_spawn(L, 1, &spec);
    h = bind_new(L, TYPE_PROCESS);
    if (fcproc_ctx_status(ctx, &err) < 0 || fcproc_spawn(&spec, &p, &err) < 0)
        return bind_fail(L, &err);
    h->object = p;
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
    struct fcproc_command spec = { .struct_size = sizeof(spec) };
    fcproc_ctx *ctx = bind_ctx(L, 2);
    struct bind_op *b;

    read_spawn(L, 1, &spec.spawn);
    if (lua_getfield(L, 1, "input") != LUA_TNIL)
        spec.input = luaL_checklstring(L, lua_gettop(L), &spec.input_len);
    spec.output_limit = (size_t)integer_field(L, 1, "output_limit", 1024 * 1024);
    spec.end_signal = (int)integer_field(L, 1, "end_signal", SIGKILL);
    lua_getfield(L, 1, "timeout");
    spec.timeout_ms = bind_timeout_ms(L, lua_gettop(L));
    lua_getfield(L, 1, "grace");
    spec.grace_ms = bind_timeout_ms(L, lua_gettop(L));
    b = bind_new_op(L, push_command_result);
    b->decorate = set_outputs;
    if (fcproc_command_run(&spec, ctx, &b->op, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

void bind_open_spawn(lua_State *L)
{
    static const struct {
        const char *name;
        int number;
    } signals[] = {
        { "HUP", SIGHUP },   { "INT", SIGINT },   { "QUIT", SIGQUIT }, { "KILL", SIGKILL },
        { "USR1", SIGUSR1 }, { "USR2", SIGUSR2 }, { "TERM", SIGTERM }, { "CONT", SIGCONT },
        { "STOP", SIGSTOP },
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
