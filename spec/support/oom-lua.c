/* SPDX-License-Identifier: MIT
 *
 * Runs every call of a Lua script (oom_calls.lua) again and again, letting Lua's allocator fail
 * from the n-th allocation on, for n = 0, 1, 2, ... until the call succeeds; after each, no
 * descriptor, child or Lua memory may be left. oom-lua SCRIPT ARGUMENTS...
 */
#include <dirent.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fcproc_lua.h"

enum { MOST_FAILURES = 5000, MEMORY_SLACK = 8192 };

static long left = -1; /* allocations until failure; negative: disarmed */

static void *allocate(void *data, void *block, size_t old_size, size_t size)
{
    (void)data;
    if (size == 0) {
        free(block);
        return NULL;
    }
    if (left >= 0 && (!block || size > old_size)) {
        if (left == 0)
            return NULL;
        left--;
    }
    return realloc(block, size);
}

static int count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    while (dir && readdir(dir))
        n++;
    if (dir)
        (void)closedir(dir);
    return n;
}

static int has_zombies(void)
{
    siginfo_t info = { 0 };

    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
}

static size_t settled_memory(lua_State *L)
{
    lua_gc(L, LUA_GCCOLLECT);
    lua_gc(L, LUA_GCCOLLECT);
    return (size_t)lua_gc(L, LUA_GCCOUNT) * 1024 + (size_t)lua_gc(L, LUA_GCCOUNTB);
}

/* Threads that reap or remove need a moment. */
static int is_back(int descriptors)
{
    for (int i = 0; i < 300; i++) {
        if (count_descriptors() <= descriptors && !has_zombies())
            return 1;
        (void)usleep(10000);
    }
    return 0;
}

/* The call is on top of the stack, its name below it. */
static int walk(lua_State *L)
{
    const char *name = lua_tostring(L, -2);
    int descriptors;
    size_t memory;

    lua_pushvalue(L, -1);
    if (lua_pcall(L, 0, 0, 0) != LUA_OK) { /* once in peace: caches fill */
        (void)printf("%s: does not work: %s\n", name, lua_tostring(L, -1));
        return 1;
    }
    memory = settled_memory(L);
    (void)usleep(20000);
    descriptors = count_descriptors();
    for (long n = 0; n < MOST_FAILURES; n++) {
        int r;

        lua_pushvalue(L, -1);
        left = n;
        r = lua_pcall(L, 0, 0, 0);
        left = -1;
        if (r != LUA_OK && !strstr(lua_tostring(L, -1), "not enough memory")) {
            (void)printf("%s: allocation %ld: %s\n", name, n, lua_tostring(L, -1));
            return 1;
        }
        if (r != LUA_OK)
            lua_pop(L, 1);
        if (settled_memory(L) > memory + MEMORY_SLACK) {
            (void)printf("%s: allocation %ld leaves memory\n", name, n);
            return 1;
        }
        if (!is_back(descriptors)) {
            (void)printf("%s: allocation %ld leaves a descriptor or a child\n", name, n);
            return 1;
        }
        if (r == LUA_OK) {
            (void)printf("%s: %ld failures walked\n", name, n);
            return 0;
        }
    }
    (void)printf("%s: never succeeds\n", name);
    return 1;
}

int main(int argc, char **argv)
{
    lua_State *L = lua_newstate(allocate, NULL);
    int failed = 0;

    if (!L || argc < 2)
        return 2;
    luaL_openlibs(L);
    luaL_requiref(L, "fcproc.core", luaopen_fcproc_core, 0);
    lua_settop(L, 0);
    if (luaL_loadfile(L, argv[1]) != LUA_OK)
        return 2;
    for (int i = 2; i < argc; i++)
        lua_pushstring(L, argv[i]);
    if (lua_pcall(L, argc - 2, 2, 0) != LUA_OK) {
        (void)printf("%s\n", lua_tostring(L, -1));
        return 2;
    }
    /* A list of {name, function}, and what ends the script. */
    for (lua_Integer i = 1; lua_rawgeti(L, 1, i) == LUA_TTABLE; i++) {
        lua_rawgeti(L, -1, 1);
        lua_rawgeti(L, -2, 2);
        failed |= walk(L);
        (void)fflush(stdout);
        lua_settop(L, 2);
    }
    lua_settop(L, 2);
    if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
        (void)printf("%s\n", lua_tostring(L, -1));
        failed = 1;
    }
    lua_close(L);
    (void)puts(failed ? "FAILED" : "ok");
    return failed;
}
