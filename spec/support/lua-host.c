/* SPDX-License-Identifier: MIT
 *
 * A Lua interpreter with fcproc.core linked in, for the sanitizers: their reports then name our
 * functions, and no preloaded runtime is handed to the commands that specs start. Like lua.c it
 * takes a script and its arguments, or -e CODE, and turns SIGINT into an error by a hook.
 */
#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "fcproc_lua.h"

static lua_State *interrupted_state;

static void raise_interrupt(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    lua_sethook(L, NULL, 0, 0);
    luaL_error(L, "interrupted!");
}

static void on_sigint(int sig)
{
    (void)signal(sig, SIG_DFL);
    lua_sethook(interrupted_state, raise_interrupt,
                LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

static int traceback(lua_State *L)
{
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

int main(int argc, char **argv)
{
    lua_State *L = luaL_newstate();
    int script = 1, n = 0, r;

    if (!L)
        return 1;
    luaL_openlibs(L);
    luaL_requiref(L, "fcproc.core", luaopen_fcproc_core, 0);
    lua_pop(L, 1);
    lua_newtable(L);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - script);
    }
    lua_setglobal(L, "arg");
    lua_pushcfunction(L, traceback);
    /* The words of -e come one by one: busted passes its own set-up this way. */
    r = LUA_OK;
    while (r == LUA_OK && script + 1 < argc && strcmp(argv[script], "-e") == 0) {
        r = luaL_loadstring(L, argv[script + 1]);
        if (r == LUA_OK)
            r = lua_pcall(L, 0, 0, 1);
        script += 2;
    }
    if (r == LUA_OK && script < argc) {
        lua_newtable(L);
        for (int i = 0; i < argc; i++) {
            lua_pushstring(L, argv[i]);
            lua_rawseti(L, -2, i - script);
        }
        lua_setglobal(L, "arg");
        r = luaL_loadfile(L, argv[script]);
        for (int i = script + 1; r == LUA_OK && i < argc; i++, n++)
            lua_pushstring(L, argv[i]);
        if (r == LUA_OK) {
            interrupted_state = L;
            (void)signal(SIGINT, on_sigint);
            r = lua_pcall(L, n, 0, 1);
            (void)signal(SIGINT, SIG_DFL);
        }
    }
    if (r != LUA_OK)
        (void)fprintf(stderr, "%s: %s\n", argv[0], lua_tostring(L, -1));
    lua_close(L);
    return r == LUA_OK ? 0 : 1;
}
