/* SPDX-License-Identifier: MIT
 *
 * Libraries that are loaded when they are first needed, so that who never needs them neither has
 * them in memory nor must have them installed.
 */
#ifndef FCPROC_LIBRARY_H
#define FCPROC_LIBRARY_H

#include <pthread.h>
#include <stddef.h>

#include "private.h"

struct library_symbol {
    const char *name;
    size_t offset; /* into the struct of functions */
};
#define LIBRARY_SYMBOL(type, prefix, member)                      \
    {                                                             \
        .name = #prefix #member, .offset = offsetof(type, member) \
    }

/* One for the whole process. */
struct library {
    /* Of loaded, and of what functions points to, which is written once: whoever reads it has been
     * through the mutex. */
    pthread_mutex_t mutex;
    bool loaded;
    const char *name, *package; /* "libcurl", and Debian's package */
    const char *const *files;   /* any of them; NULL at the end */
    const struct library_symbol *symbols;
    size_t n;
    void *functions;
    int (*init)(void); /* 0 or -errno; or NULL */
};

/* Loads it if it is not; 0, or FCPROC_ERR_UNSUPPORTED: it is not there. */
int library_load(struct library *library, const char *op, fcproc_error *err);

#endif
