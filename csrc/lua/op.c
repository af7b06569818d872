/* SPDX-License-Identifier: MIT
 *
 * Operations in Lua: pollfd, events, timeout, step, close. The loop over them is Lua's
 * (loop.lua), so that it can yield and so that Ctrl-C gets a word in.
 */
#include "binding.h"

struct bind_op *bind_first_op(lua_State *L, int n, int (*push)(lua_State *, fcproc_op *))
{
    struct bind_op *b;

    lua_settop(L, n);
    b = lua_newuserdatauv(L, sizeof(*b), 1);
    *b = (struct bind_op){ .push = push };
    luaL_setmetatable(L, TYPE_OP);
    return b;
}

static struct bind_op *check_op(lua_State *L)
{
    struct bind_op *b = luaL_checkudata(L, 1, TYPE_OP);

    if (!b->op)
        luaL_error(L, "attempt to use a closed %s", TYPE_OP);
    return b;
}

static int l_op_close(lua_State *L)
{
    struct bind_op *b = luaL_checkudata(L, 1, TYPE_OP);
    fcproc_op *op = b->op;

    b->op = NULL;
    fcproc_op_close(op);
    return 0;
}

static int l_op_pollfd(lua_State *L)
{
    lua_pushinteger(L, fcproc_op_pollfd(check_op(L)->op));
    return 1;
}

static int l_op_events(lua_State *L)
{
    check_op(L);
    lua_pushliteral(L, "r");
    return 1;
}

static int l_op_timeout(lua_State *L)
{
    int64_t ms = fcproc_op_timeout_ms(check_op(L)->op);

    if (ms < 0)
        return 0;
    lua_pushnumber(L, (lua_Number)ms / 1e3);
    return 1;
}

static int l_op_step(lua_State *L)
{
    struct bind_op *b = check_op(L);
    fcproc_error err = FCPROC_ERROR_INIT;
    int r = fcproc_op_step(b->op, &err);

    if (r < 0) {
        bind_fail(L, &err);
        if (b->decorate)
            b->decorate(L, b->op);
        return 2;
    }
    lua_pushboolean(L, r > 0);
    return r > 0 && b->push ? 1 + b->push(L, b->op) : 1;
}

/* core.poll(fd, timeout?) -> ready: one descriptor. */
static int l_poll(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    int fd = bind_check_int(L, 1);
    int r = fcproc_poll(&fd, NULL, 1, bind_timeout_ms(L, 2), &err);

    if (r < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, r > 0);
    return 1;
}

/* core.poll_many(fds, ready, timeout?) -> how many: sets ready[i] to true or false for each. */
static int l_poll_many(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    int64_t timeout_ms = bind_timeout_ms(L, 3);
    size_t n;
    int *fds;
    bool *ready;
    int r;

    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    n = lua_rawlen(L, 1);
    fds = lua_newuserdatauv(L, n * (sizeof(*fds) + sizeof(*ready)) + 1, 0);
    ready = (bool *)(fds + n);
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 1, (lua_Integer)i + 1);
        fds[i] = bind_check_int(L, -1);
        lua_pop(L, 1);
    }
    r = fcproc_poll(fds, ready, n, timeout_ms, &err);
    if (r < 0)
        return bind_fail(L, &err);
    for (size_t i = 0; i < n; i++) {
        lua_pushboolean(L, ready[i]);
        lua_rawseti(L, 2, (lua_Integer)i + 1);
    }
    lua_pushinteger(L, r);
    return 1;
}

void bind_open_op(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "pollfd", l_op_pollfd },
        { "events", l_op_events },
        { "timeout", l_op_timeout },
        { "step", l_op_step },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "poll", l_poll },
        { "poll_many", l_poll_many },
        { NULL, NULL },
    };

    bind_type(L, TYPE_OP, methods, l_op_close);
    luaL_setfuncs(L, functions, 0);
}
