/* SPDX-License-Identifier: MIT
 *
 * Keys in Lua: what is typed, for a guest's console.
 */
#include "binding.h"

/* core.keys() -> keys */
static int l_keys(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_handle *h = bind_new(L, TYPE_KEYS);
    fcproc_keys *k = NULL;

    if (fcproc_keys_new(&k, &err) < 0)
        return bind_fail(L, &err);
    h->object = k;
    return 1;
}

/* keys:reader() -> fd */
static int l_keys_reader(lua_State *L)
{
    lua_pushinteger(L, fcproc_keys_reader(bind_check(L, 1, TYPE_KEYS)));
    return 1;
}

static int push_escaped(lua_State *L, fcproc_op *op)
{
    lua_pushboolean(L, fcproc_keys_escaped(op));
    return 1;
}

/* keys:copy_op(fd, timeout?, ctx?) -> op */
static int l_keys_copy_op(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_op *b = bind_first_op(L, 4, push_escaped);
    fcproc_keys *k = bind_check(L, 1, TYPE_KEYS);
    int fd = bind_check_int(L, 2);
    int64_t timeout_ms = bind_timeout_ms(L, 3);
    fcproc_ctx *ctx = bind_ctx(L, 4);

    if (fcproc_keys_copy(k, fd, timeout_ms, ctx, &b->op, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

static int l_keys_close(lua_State *L)
{
    fcproc_keys_close(bind_take(L, TYPE_KEYS));
    return 0;
}

void bind_open_keys(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "reader", l_keys_reader },
        { "copy_op", l_keys_copy_op },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = { { "keys", l_keys }, { NULL, NULL } };

    bind_type(L, TYPE_KEYS, methods, l_keys_close);
    luaL_setfuncs(L, functions, 0);
}
