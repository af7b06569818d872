/* SPDX-License-Identifier: MIT
 *
 * What the files of the binding share, beside what rooms.h says, and by its rules.
 */
#ifndef FCPROC_BINDING_H
#define FCPROC_BINDING_H

#include "fcproc_lua.h"
#include "rooms.h"

#define TYPE_CONTEXT "fcproc.context"
#define TYPE_OP      "fcproc.op"
#define TYPE_PROCESS "fcproc.process"
#define TYPE_NETNS   "fcproc.netns"
#define TYPE_NET     "fcproc.net"
#define TYPE_CLIENT  "fcproc.client"
#define TYPE_LOCK    "fcproc.lock"
#define TYPE_CAPPER  "fcproc.capper"
#define TYPE_KEYS    "fcproc.keys"
#define TYPE_GUARD   "fcproc.guard"

/* An operation and what its result looks like. */
struct bind_op {
    fcproc_op *op;
    /* Pushes the result, returns how many values. May raise. */
    int (*push)(lua_State *L, fcproc_op *op);
    /* Optional: adds fields to the error on top of the stack. May raise. */
    void (*decorate)(lua_State *L, fcproc_op *op);
};

/* [-0, +2, m] nil and the error, with the path that is the argument at the index; returns 2. */
int bind_fail_at(lua_State *L, const fcproc_error *err, int index);
/* The context given, else the state's default, else NULL. May raise. */
fcproc_ctx *bind_ctx(lua_State *L, int index);
/* What core.uninterruptible makes calls its function: where it stands in the stack, the hook of
 * fcproc_lua_interrupt leaves fcproc's own code alone. */
int bind_uninterrupted(lua_State *L);
/* Its address names the registry entry of the context that fcproc_lua_interrupt got. */
extern const char bind_interrupt_key;
/* NULL: none. [-0, +0, m] */
void bind_set_default_context(lua_State *L, fcproc_ctx *ctx);
/* An operation, closed as yet, above the first n arguments, of which missing ones are nil. Made before
 * the arguments are looked at: making it may run a finalizer, which may close what they hold.
 * [-?, +1, m] */
struct bind_op *bind_first_op(lua_State *L, int n, int (*push)(lua_State *, fcproc_op *));
/* [-0, +1, m] {status = n} or {signal = n} or {}. */
void bind_push_exit(lua_State *L, struct fcproc_exit e);
/* A table of core.d.lua's fcproc.Expected in room, or NULL for nil. May raise. */
const struct fcproc_expected *bind_expected(lua_State *L, int index, struct fcproc_expected *room);
/* [-0, +1, m] */
void bind_push_file_id(lua_State *L, const struct fcproc_file_id *id);

/* Arguments and fields, beside those of rooms.h (arguments.c). All may raise. */
enum { BIND_MOST_MODE = 07777 };
#define BIND_MOST_ID ((lua_Integer)UINT32_MAX - 1) /* of a user or group: the last means none */
int bind_check_int(lua_State *L, int index);       /* what fits an int: never cut */
int bind_opt_int(lua_State *L, int index, int missing);
pid_t bind_check_pid(lua_State *L, int index);
int64_t bind_opt_id(lua_State *L, int index);     /* a user or group number; nil is -1 */
int64_t bind_check_size(lua_State *L, int index); /* of a file, in bytes */
mode_t bind_check_mode(lua_State *L, int index);
unsigned bind_without(lua_State *L, int index); /* bits of fcproc_without; nil is 0 */
/* Seconds to milliseconds, rounded up; nil is -1 (no limit). */
int64_t bind_timeout_ms(lua_State *L, int index);
/* [-0, +0, e] A user or group number; nil is -1. */
int64_t bind_field_id(lua_State *L, int table, const char *name);
/* [-0, +1, e] A NULL-terminated array, and in it copies, of the strings in the list at the index. */
const char *const *bind_string_list(lua_State *L, int index, const char *name, size_t *ret_n);

/* Frees one malloc'ed block when Lua's collector or an error comes by. [-0, +1, m] */
struct bind_handle *bind_guard(lua_State *L);
void bind_guard_release(struct bind_handle *guard);

/* Each adds its types and functions to the module table on top. [-0, +0, m] */
void bind_open_guard(lua_State *L);
void bind_open_error(lua_State *L);
void bind_open_context(lua_State *L);
void bind_open_op(lua_State *L);
void bind_open_process(lua_State *L);
void bind_open_netns(lua_State *L);
void bind_open_spawn(lua_State *L);
void bind_open_net(lua_State *L);
void bind_open_client(lua_State *L);
void bind_open_path(lua_State *L);
void bind_open_file(lua_State *L);
void bind_open_fileop(lua_State *L);
void bind_open_lock(lua_State *L);
void bind_open_capper(lua_State *L);
void bind_open_cgroup(lua_State *L);
void bind_open_log(lua_State *L);
void bind_open_checks(lua_State *L);
void bind_open_terminal(lua_State *L);
void bind_open_keys(lua_State *L);

#endif
