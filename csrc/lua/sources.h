/* SPDX-License-Identifier: MIT
 *
 * The Lua files that libfcproc-lua carries, made into C by embed.lua.
 */
#ifndef FCPROC_SOURCES_H
#define FCPROC_SOURCES_H

#include <stddef.h>

struct lua_source {
    const char *module;
    const unsigned char *text;
    size_t len;
};

/* Ends with a NULL module. */
extern const struct lua_source lua_sources[];

#endif
