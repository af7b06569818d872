/* SPDX-License-Identifier: MIT
 *
 * Contexts in Lua. The user value is the waiter: how a coroutine waits under this context.
 */
#include "binding.h"

static const char default_key = 0; /* its address names the registry entry */

fcproc_ctx *bind_ctx(lua_State *L, int index)
{
    struct bind_handle *h;

    if (!lua_isnoneornil(L, index))
        return bind_check(L, index, TYPE_CONTEXT);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &default_key);
    h = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return h ? h->object : NULL;
}

static int l_context_close(lua_State *L)
{
    fcproc_ctx_unref(bind_take(L, TYPE_CONTEXT));
    return 0;
}

static int push_context(lua_State *L, fcproc_ctx *parent, int64_t timeout_ms)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_handle *h = bind_new(L, TYPE_CONTEXT);
    fcproc_ctx *ctx = NULL;

    if (fcproc_ctx_new(parent, timeout_ms, &ctx, &err) < 0)
        return bind_fail(L, &err);
    h->object = ctx;
    return 1;
}

/* core.context(parent?, timeout?, waiter?) */
static int l_context(lua_State *L)
{
    fcproc_ctx *parent = bind_opt(L, 1, TYPE_CONTEXT);
    int64_t timeout_ms = bind_timeout_ms(L, 2);
    int n;

    lua_settop(L, 3);
    n = push_context(L, parent, timeout_ms);
    if (n == 1) {
        if (parent && lua_isnil(L, 3))
            lua_getiuservalue(L, 1, 1);
        else
            lua_pushvalue(L, 3);
        lua_setiuservalue(L, -2, 1);
    }
    return n;
}

static int l_context_with_timeout(lua_State *L)
{
    fcproc_ctx *parent = bind_check(L, 1, TYPE_CONTEXT);
    int64_t timeout_ms;
    int n;

    luaL_checknumber(L, 2);
    timeout_ms = bind_timeout_ms(L, 2);
    n = push_context(L, parent, timeout_ms);
    if (n == 1) {
        lua_getiuservalue(L, 1, 1);
        lua_setiuservalue(L, -2, 1);
    }
    return n;
}

static int l_context_cancel(lua_State *L)
{
    fcproc_ctx_cancel(bind_check(L, 1, TYPE_CONTEXT));
    return 0;
}

static int l_context_status(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_ctx_status(bind_check(L, 1, TYPE_CONTEXT), &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int l_context_remaining(lua_State *L)
{
    int64_t ms = fcproc_ctx_remaining_ms(bind_check(L, 1, TYPE_CONTEXT));

    if (ms < 0)
        return 0;
    lua_pushnumber(L, (lua_Number)ms / 1e3);
    return 1;
}

static int l_context_waiter(lua_State *L)
{
    bind_check(L, 1, TYPE_CONTEXT);
    lua_getiuservalue(L, 1, 1);
    return 1;
}

/* context:wait_op(timeout?, ctx?) -> op */
static int l_context_wait_op(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_op *b = bind_first_op(L, 3, NULL);
    fcproc_ctx *watched = bind_check(L, 1, TYPE_CONTEXT);
    int64_t timeout_ms = bind_timeout_ms(L, 2);
    fcproc_ctx *ctx = bind_ctx(L, 3);

    if (fcproc_ctx_wait(watched, timeout_ms, ctx, &b->op, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

/* The context that a host has set for the whole state: a handle of the caller's own, so that closing
 * it takes the host's from nobody. */
static int l_default_context(lua_State *L)
{
    struct bind_handle *own = bind_new(L, TYPE_CONTEXT);

    lua_pushnil(L);
    own->object = fcproc_ctx_ref(bind_ctx(L, -1));
    if (own->object)
        lua_pop(L, 1);
    return 1;
}

void bind_set_default_context(lua_State *L, fcproc_ctx *ctx)
{
    if (ctx)
        bind_new(L, TYPE_CONTEXT)->object = fcproc_ctx_ref(ctx);
    else
        lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &default_key);
}

void bind_open_context(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "with_timeout", l_context_with_timeout },
        { "cancel", l_context_cancel },
        { "status", l_context_status },
        { "remaining", l_context_remaining },
        { "waiter", l_context_waiter },
        { "wait_op", l_context_wait_op },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "context", l_context },
        { "default_context", l_default_context },
        { NULL, NULL },
    };

    bind_type(L, TYPE_CONTEXT, methods, l_context_close);
    luaL_setfuncs(L, functions, 0);
}
