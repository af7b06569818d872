/* SPDX-License-Identifier: MIT
 *
 * Cappers in Lua.
 */
#include "binding.h"

/* core.capper() -> capper */
static int l_capper(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_handle *h = bind_new(L, TYPE_CAPPER);
    fcproc_capper *c = NULL;

    if (fcproc_capper_new(&c, &err) < 0)
        return bind_fail(L, &err);
    h->object = c;
    return 1;
}

/* capper:add(path, most, expected?) -> true */
static int l_capper_add(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_capper *c = bind_check(L, 1, TYPE_CAPPER);
    const char *path = bind_check_string(L, 2);
    int64_t most = bind_check_size(L, 3);
    struct fcproc_expected room;

    if (fcproc_capper_add(c, path, bind_expected(L, 4, &room), most, &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* capper:remove(path) */
static int l_capper_remove(lua_State *L)
{
    fcproc_capper_remove(bind_check(L, 1, TYPE_CAPPER), bind_check_string(L, 2));
    return 0;
}

static int l_capper_close(lua_State *L)
{
    fcproc_capper_close(bind_take(L, TYPE_CAPPER));
    return 0;
}

void bind_open_capper(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "add", l_capper_add },
        { "remove", l_capper_remove },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = { { "capper", l_capper }, { NULL, NULL } };

    bind_type(L, TYPE_CAPPER, methods, l_capper_close);
    luaL_setfuncs(L, functions, 0);
}
