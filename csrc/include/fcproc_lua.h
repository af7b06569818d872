/* SPDX-License-Identifier: MIT
 *
 * For C programs that run Lua policies. libfcproc-lua holds the binding and the Lua sources, so
 * that no LUA_PATH is needed; it takes the Lua symbols from the host.
 *
 * Errors of these calls are Lua's: call them in protected mode, as any function that allocates.
 */
#ifndef FCPROC_LUA_H
#define FCPROC_LUA_H

#include <lua.h>

#include "fcproc.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Makes require "fcproc" work in this state, by entries in package.preload. The standard
 * libraries must be open. API requests need lua-cjson on the host's own paths. [-0, +0, m] */
FCPROC_API void fcproc_lua_open(lua_State *L);

/* ctx ends every wait of this state whose call names no context of its own. The state keeps a
 * reference until another context, or NULL, takes its place. [-0, +0, m] */
FCPROC_API void fcproc_lua_set_context(lua_State *L, fcproc_ctx *ctx);

/* fn receives what managers without a logger of their own log; level is "debug", "info", "warn"
 * or "error". NULL: nobody. [-0, +0, m] */
typedef void (*fcproc_lua_log)(void *data, const char *level, const char *message);
FCPROC_API void fcproc_lua_set_log(lua_State *L, fcproc_lua_log fn, void *data);

/* Opt-in: every count instructions of L, and of coroutines made later, ctx is looked at, and once
 * it has ended an error is raised, again on every line, so that no pcall can swallow it. Only what
 * fcproc itself does to clean up, as for a VM in a closing variable, runs to its end, which takes at
 * most two minutes; what a policy has given it (hooks, logger, runner) is interrupted there, too. NULL
 * takes the hook away. [-0, +0, m] */
FCPROC_API void fcproc_lua_interrupt(lua_State *L, fcproc_ctx *ctx, int count);

/* The C module alone, for luaL_requiref or package.preload. */
FCPROC_API int luaopen_fcproc_core(lua_State *L);

#ifdef __cplusplus
}
#endif
#endif
