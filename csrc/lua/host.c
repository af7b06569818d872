/* SPDX-License-Identifier: MIT
 *
 * For C programs that run Lua policies (fcproc_lua.h): the module from memory, and the hook
 * that ends a script with its context. Only in libfcproc-lua.
 */
#include "binding.h"
#include "sources.h"

/* The loader of every carried module; its upvalue is the entry. */
static int l_load(lua_State *L)
{
    const struct lua_source *source = lua_touserdata(L, lua_upvalueindex(1));
    const char *chunk = lua_pushfstring(L, "=%s", source->module);

    if (luaL_loadbufferx(L, (const char *)source->text, source->len, chunk, "t") != LUA_OK)
        return lua_error(L);
    lua_pushstring(L, source->module);
    lua_call(L, 1, 1);
    return 1;
}

FCPROC_API void fcproc_lua_open(lua_State *L)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_fcproc_core);
    lua_setfield(L, -2, "fcproc.core");
    for (const struct lua_source *s = lua_sources; s->module; s++) {
        lua_pushlightuserdata(L, (void *)(uintptr_t)s);
        lua_pushcclosure(L, l_load, 1);
        lua_setfield(L, -2, s->module);
    }
    lua_pop(L, 1);
}

enum {
    CLEANUP_LIMIT = 120, /* seconds, more than any clean-up's own: a name can be forged */
    EVERY = 1000         /* instructions, for lines that are long */
};

/* Is it a Lua file that is carried here? */
static bool is_carried(const char *source)
{
    return strncmp(source, "=fcproc", 7) == 0 && (source[7] == '.' || source[7] == '\0');
}

/* Is what runs a clean-up of fcproc's own? What a policy has given (a hook, a logger, a runner) has
 * frames of its own above that clean-up's. */
static bool in_own_cleanup(lua_State *L)
{
    lua_Debug ar;

    for (int level = 0; lua_getstack(L, level, &ar); level++) {
        bool begins;

        lua_getinfo(L, "Sf", &ar);
        begins = lua_tocfunction(L, -1) == bind_uninterrupted;
        lua_pop(L, 1);
        if (begins)
            return true;
        if (*ar.what != 'C' && !is_carried(ar.source))
            return false;
    }
    return false;
}

/* Seconds since the first look at the ended context whose handle is on top. [-0, +0, m] */
static double since_noticed(lua_State *L)
{
    double now = fcproc_now();

    if (lua_getiuservalue(L, -1, 1) != LUA_TNUMBER) {
        lua_pushnumber(L, now);
        lua_setiuservalue(L, -3, 1);
    } else {
        now -= lua_tonumber(L, -1);
        lua_pop(L, 1);
        return now;
    }
    lua_pop(L, 1);
    return 0;
}

static void on_count(lua_State *L, lua_Debug *ar)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct bind_handle *h;
    double since = 0;

    (void)ar;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &bind_interrupt_key);
    h = lua_touserdata(L, -1);
    if (h && fcproc_ctx_status(h->object, &err) == 0)
        h = NULL;
    if (h)
        since = since_noticed(L);
    lua_pop(L, 1);
    if (!h)
        return;
    /* From now on at every line: a pcall round the loop must not be the end of it. */
    lua_sethook(L, on_count, LUA_MASKLINE | LUA_MASKCOUNT, EVERY);
    if (since < CLEANUP_LIMIT && in_own_cleanup(L))
        return;
    bind_push_error(L, &err);
    lua_error(L);
}

FCPROC_API void fcproc_lua_interrupt(lua_State *L, fcproc_ctx *ctx, int count)
{
    if (ctx) {
        luaL_requiref(L, "fcproc.core", luaopen_fcproc_core,
                      0); /* makes the types, if nobody has */
        lua_pop(L, 1);
        bind_new(L, TYPE_CONTEXT)->object = fcproc_ctx_ref(ctx);
    } else {
        lua_pushnil(L);
    }
    lua_rawsetp(L, LUA_REGISTRYINDEX, &bind_interrupt_key);
    lua_sethook(L, ctx ? on_count : NULL, ctx ? LUA_MASKCOUNT : 0, count);
}
