/* SPDX-License-Identifier: MIT
 *
 * Runs every call of a Lua script (oom_calls.lua) again and again while Lua's allocator fails at
 * the n-th allocation, for n = 0, 1, 2, ... until none fails any more. First all later ones fail
 * too, so that the call does; then only the n-th, which Lua answers with a full collection at
 * that very point. After each, no descriptor, child or memory may be left.
 * oom-lua SCRIPT ARGUMENTS...
 */
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "count.h"
#include "fcproc_lua.h"

enum { MOST_FAILURES = 5000, MEMORY_SLACK = 8192 };

static long left = -1; /* allocations until failure; negative: disarmed */
static bool all_later;
static long failures;
static size_t in_use; /* by all Lua states */

static bool fails(void)
{
    if (left < 0 || left-- > 0)
        return false;
    if (all_later)
        left = 0;
    failures++;
    return true;
}

static void *allocate(void *data, void *block, size_t old_size, size_t size)
{
    void *moved;

    (void)data;
    if (!block)
        old_size = 0; /* it says what kind of object it will be */
    if (size == 0) {
        in_use -= old_size;
        free(block);
        return NULL;
    }
    if (size > old_size && fails())
        return NULL;
    moved = realloc(block, size);
    if (moved)
        in_use += size - old_size;
    return moved;
}

/* ---- what is left ---- */

/* Running or not reaped. */
static int count_children(void)
{
    char path[64], text[4096];
    ssize_t len;
    int fd, n = 0;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    len = read(fd, text, sizeof(text));
    (void)close(fd);
    for (ssize_t i = 0; i < len; i++)
        n += text[i] == ' ';
    return n;
}

static size_t settled_memory(lua_State *L)
{
    lua_gc(L, LUA_GCCOLLECT);
    lua_gc(L, LUA_GCCOLLECT);
    return (size_t)lua_gc(L, LUA_GCCOUNT) * 1024 + (size_t)lua_gc(L, LUA_GCCOUNTB);
}

struct baseline {
    int descriptors, children;
    size_t lua;
};

/* What is more than before, or NULL; the core's own memory is the sanitizers' affair. Threads
 * that reap or remove need a moment. */
static const char *what_is_left(lua_State *L, const struct baseline *before)
{
    const char *what = NULL;

    for (int i = 0; i < 3000; i++) {
        if (settled_memory(L) > before->lua + MEMORY_SLACK)
            what = "Lua memory";
        else if (count_descriptors() > before->descriptors)
            what = "a descriptor";
        else if (count_children() > before->children)
            what = "a child";
        else
            return NULL;
        (void)usleep(i < 10 ? 1000 : 10000);
    }
    return what;
}

/* ---- the walk ---- */

/* Calls the function at index after, if any, with whether the call went well. */
static bool settle(lua_State *L, int after, bool fine)
{
    if (lua_isnil(L, after))
        return true;
    lua_pushvalue(L, after);
    lua_pushboolean(L, fine);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK)
        return true;
    (void)printf("    afterwards: %s\n", luaL_tolstring(L, -1, NULL));
    return false;
}

static bool attempt(lua_State *L, const char *name, int call, int after, long n,
                    const struct baseline *before)
{
    const char *what;
    int r;

    lua_pushvalue(L, call);
    failures = 0;
    left = n;
    r = lua_pcall(L, 0, 0, 0);
    left = -1;
    if (r != LUA_OK && !strstr(luaL_tolstring(L, -1, NULL), "not enough memory")) {
        (void)printf("%s: allocation %ld: %s\n", name, n, lua_tostring(L, -1));
        return false;
    }
    lua_settop(L, after);
    if (!settle(L, after, r == LUA_OK)) {
        (void)printf("%s: allocation %ld\n", name, n);
        return false;
    }
    what = what_is_left(L, before);
    if (what)
        (void)printf("%s: allocation %ld leaves %s\n", name, n, what);
    return !what;
}

/* On the stack from index first: the name, the call, what comes after it. */
static int walk(lua_State *L, int first)
{
    const char *name = lua_tostring(L, first);
    int call = first + 1, after = first + 2;
    struct baseline before;
    long n;

    for (int i = 0; i < 3; i++) { /* in peace: caches fill */
        lua_pushvalue(L, call);
        if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
            (void)printf("%s: does not work: %s\n", name, luaL_tolstring(L, -1, NULL));
            return 1;
        }
        if (!settle(L, after, true))
            return 1;
    }
    (void)usleep(20000);
    before = (struct baseline){ .descriptors = count_descriptors(),
                                .children = count_children(),
                                .lua = settled_memory(L) };
    for (n = 0; n < MOST_FAILURES; n++) {
        if (!attempt(L, name, call, after, n, &before))
            return 1;
        if (failures == 0)
            break;
    }
    (void)printf("%s, %s: %ld failures walked\n", name, all_later ? "all later" : "one", n);
    return n == MOST_FAILURES;
}

/* Opening the module, in a state of its own for each n. */
static int walk_opening(void)
{
    size_t before = in_use;
    int descriptors = count_descriptors();
    long n;

    for (n = 0; n < MOST_FAILURES; n++) {
        lua_State *L = lua_newstate(allocate, NULL);
        int r;

        if (!L)
            return 1;
        luaL_openlibs(L);
        lua_pushcfunction(L, luaopen_fcproc_core);
        failures = 0;
        left = n;
        r = lua_pcall(L, 0, 1, 0);
        left = -1;
        lua_settop(L, 0);
        lua_pushcfunction(L, luaopen_fcproc_core);
        r = r != LUA_OK && r != LUA_ERRMEM ? r : lua_pcall(L, 0, 1, 0); /* a second try works */
        lua_close(L);
        if (r != LUA_OK || in_use != before || count_descriptors() > descriptors) {
            (void)printf("opening the module: allocation %ld\n", n);
            return 1;
        }
        if (failures == 0)
            break;
    }
    (void)printf("opening the module, %s: %ld failures walked\n", all_later ? "all later" : "one",
                 n);
    return n == MOST_FAILURES;
}

static void take_log(void *data, const char *level, const char *message)
{
    (void)data;
    (void)level;
    (void)message;
}

int main(int argc, char **argv)
{
    lua_State *L = lua_newstate(allocate, NULL);
    int failed = 0;

    (void)setvbuf(stdout, NULL, _IONBF, 0);
    if (!L || argc < 2)
        return 2;
    luaL_openlibs(L);
    luaL_requiref(L, "fcproc.core", luaopen_fcproc_core, 0);
    fcproc_lua_set_log(L, take_log, NULL);
    lua_settop(L, 0);
    if (luaL_loadfile(L, argv[1]) != LUA_OK)
        return 2;
    for (int i = 2; i < argc; i++)
        lua_pushstring(L, argv[i]);
    if (lua_pcall(L, argc - 2, 2, 0) != LUA_OK) {
        (void)printf("%s\n", luaL_tolstring(L, -1, NULL));
        return 2;
    }
    for (int mode = 0; mode < 2; mode++) {
        all_later = mode == 0;
        failed |= walk_opening();
        /* A list of {name, call, after}, and what ends the script. */
        for (lua_Integer i = 1; lua_rawgeti(L, 1, i) == LUA_TTABLE; i++) {
            for (int part = 1; part <= 3; part++)
                lua_rawgeti(L, 3, part);
            failed |= walk(L, 4);
            lua_settop(L, 2);
        }
        lua_settop(L, 2);
    }
    if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
        (void)printf("%s\n", luaL_tolstring(L, -1, NULL));
        failed = 1;
    }
    lua_close(L);
    if (in_use != 0) {
        (void)printf("the closed state leaves %zu bytes\n", in_use);
        failed = 1;
    }
    (void)puts(failed ? "FAILED" : "ok");
    return failed;
}
