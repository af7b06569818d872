/* SPDX-License-Identifier: MIT
 *
 * HTTP over a unix socket in Lua: status and body as they came. api.lua speaks JSON.
 */
#include "binding.h"

static int l_client_close(lua_State *L)
{
    fcproc_client_close(bind_take(L, TYPE_CLIENT));
    return 0;
}

/* core.client(path, process?) -> client */
static int l_client(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *path = bind_check_string(L, 1);
    fcproc_process *process = bind_opt(L, 2, TYPE_PROCESS);
    struct bind_handle *h = bind_new(L, TYPE_CLIENT);
    fcproc_client *client = NULL;

    if (fcproc_client_new(path, &client, &err) < 0)
        return bind_fail(L, &err);
    h->object = client;
    fcproc_client_expect(client, process);
    return 1;
}

static int push_response(lua_State *L, fcproc_op *op)
{
    struct fcproc_response r = fcproc_request_result(op);

    lua_pushinteger(L, r.status);
    lua_pushlstring(L, r.body, r.body_len);
    return 2;
}

/* client:request(method, target, body?, timeout?, ctx?) -> op, whose result is status, body */
static int l_client_request(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_op *b = bind_first_op(L, 6, push_response);
    fcproc_client *client = bind_check(L, 1, TYPE_CLIENT);
    const char *method = bind_check_string(L, 2);
    const char *target = bind_check_string(L, 3);
    size_t len = 0;
    const char *body = luaL_optlstring(L, 4, NULL, &len);
    int64_t timeout_ms = bind_timeout_ms(L, 5);
    fcproc_ctx *ctx = bind_ctx(L, 6);

    if (fcproc_request(client, method, target, body, len, timeout_ms, ctx, &b->op, &err) < 0)
        return bind_fail(L, &err);
    return 1;
}

static int push_responses(lua_State *L, fcproc_op *op)
{
    size_t n = fcproc_request_all_count(op);

    lua_createtable(L, (int)n, 0);
    lua_newtable(L);
    for (size_t i = 0; i < n; i++) {
        fcproc_error err = FCPROC_ERROR_INIT;
        struct fcproc_response r;

        if (fcproc_request_all_result(op, i, &r, &err) < 0) {
            bind_push_error(L, &err);
        } else {
            lua_pushlstring(L, r.body, r.body_len);
            lua_rawseti(L, -2, (lua_Integer)i + 1);
            lua_pushinteger(L, r.status);
        }
        lua_rawseti(L, -3, (lua_Integer)i + 1);
    }
    return 2;
}

/* core.request_all(paths, processes, method, target, body?, each?, ctx?) -> op, whose results are a
 * table of statuses and errors, and one of bodies */
static int l_request_all(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_op *b = bind_first_op(L, 7, push_responses);
    const char *method = bind_check_string(L, 3);
    const char *target = bind_check_string(L, 4);
    size_t len = 0, n;
    const char *body = luaL_optlstring(L, 5, NULL, &len);
    int64_t each_ms = bind_timeout_ms(L, 6);
    fcproc_ctx *ctx = bind_ctx(L, 7);
    const char *const *paths;
    fcproc_process **processes;

    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    paths = bind_string_list(L, 1, "paths", &n);
    processes = lua_newuserdatauv(L, n * sizeof(*processes) + 1, 0);
    for (size_t i = 0; i < n; i++) { /* the table holds them */
        lua_rawgeti(L, 2, (lua_Integer)i + 1);
        processes[i] = bind_opt(L, -1, TYPE_PROCESS);
        lua_pop(L, 1);
    }
    if (fcproc_request_all(paths, processes, n, method, target, body, len, each_ms, ctx, &b->op,
                           &err) < 0)
        return bind_fail(L, &err);
    lua_pushvalue(L, 8); /* the operation */
    return 1;
}

void bind_open_client(lua_State *L)
{
    static const luaL_Reg methods[] = { { "request", l_client_request }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "client", l_client },
                                          { "request_all", l_request_all },
                                          { NULL, NULL } };

    bind_type(L, TYPE_CLIENT, methods, l_client_close);
    luaL_setfuncs(L, functions, 0);
}
