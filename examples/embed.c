/* SPDX-License-Identifier: MIT
 *
 * A C program that runs a Lua policy: the module comes from libfcproc-lua, so no LUA_PATH is
 * needed. Everything in the script ends with the host's context, here after 30 seconds, or when
 * SIGTERM comes; what the script holds in closing variables is cleaned up all the same.
 *
 *     cc embed.c $(pkg-config --cflags --libs fcproc-lua) -o embed && ./embed policy.lua
 */
#include <fcproc_lua.h>
#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>

static fcproc_ctx *ctx;

static void end_policy(int number)
{
    (void)number;
    fcproc_ctx_cancel(ctx); /* which may be done in a signal handler */
}

static void print_log(void *data, const char *level, const char *message)
{
    (void)data;
    (void)printf("[%s] %s\n", level, message);
}

int main(int argc, char **argv)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    lua_State *L = luaL_newstate();
    int failed;

    if (argc != 2 || !L || fcproc_ctx_new(NULL, 30000, &ctx, &err) < 0) {
        (void)fprintf(stderr, "usage: embed policy.lua %s\n", err.message);
        return 2;
    }
    (void)signal(SIGTERM, end_policy);
    luaL_openlibs(L);
    fcproc_lua_open(L);             /* require "fcproc" works */
    fcproc_lua_set_context(L, ctx); /* the default context of every call */
    fcproc_lua_set_log(L, print_log, NULL);
    fcproc_lua_interrupt(L, ctx, 10000); /* ends also a script that never calls us */
    failed = luaL_dofile(L, argv[1]);
    if (failed)
        (void)fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
    lua_close(L);
    fcproc_ctx_unref(ctx);
    return failed;
}
