/* SPDX-License-Identifier: MIT
 *
 * For programs that own their process, as the fcproc command: its terminal and its signals.
 */
#include "binding.h"

enum { MOST_SIGNALS = 8 };

/* core.is_terminal(fd) -> boolean */
static int l_is_terminal(lua_State *L)
{
    lua_pushboolean(L, fcproc_is_terminal(bind_check_int(L, 1)));
    return 1;
}

static int wait_fd(lua_State *L, int (*begin)(int fd, int64_t timeout_ms, fcproc_ctx *ctx,
                                              fcproc_op **ret, fcproc_error *err))
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_op *b = bind_first_op(L, 3, NULL);
    int fd = bind_check_int(L, 1);
    int64_t timeout_ms = bind_timeout_ms(L, 2);
    fcproc_ctx *ctx = bind_ctx(L, 3);

    if (begin(fd, timeout_ms, ctx, &b->op, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

/* core.wait_reader(fd, timeout?, ctx?) -> op */
static int l_wait_reader(lua_State *L)
{
    return wait_fd(L, fcproc_reader_wait);
}

/* core.wait_readable(fd, timeout?, ctx?) -> op */
static int l_wait_readable(lua_State *L)
{
    return wait_fd(L, fcproc_readable_wait);
}

static int push_signal(lua_State *L, fcproc_op *op)
{
    lua_pushinteger(L, fcproc_signal_wait_result(op));
    return 1;
}

/* core.wait_signal(numbers, timeout?, ctx?) -> op */
static int l_wait_signal(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_op *b = bind_first_op(L, 3, push_signal);
    int64_t timeout_ms = bind_timeout_ms(L, 2);
    fcproc_ctx *ctx = bind_ctx(L, 3);
    int signals[MOST_SIGNALS];
    size_t n;

    luaL_checktype(L, 1, LUA_TTABLE);
    n = lua_rawlen(L, 1);
    luaL_argcheck(L, n >= 1 && n <= MOST_SIGNALS, 1, "1 to 8 signals");
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 1, (lua_Integer)i + 1);
        signals[i] = bind_check_int(L, -1);
        lua_pop(L, 1);
    }
    if (fcproc_signal_wait(signals, n, timeout_ms, ctx, &b->op, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

void bind_open_terminal(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "is_terminal", l_is_terminal },
        { "wait_reader", l_wait_reader },
        { "wait_readable", l_wait_readable },
        { "wait_signal", l_wait_signal },
        { NULL, NULL },
    };

    luaL_setfuncs(L, functions, 0);
}
