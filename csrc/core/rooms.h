/* SPDX-License-Identifier: MIT
 *
 * What the core and the rooms that are linked with it share beside the public headers: ownership and
 * errors. Nothing here is seen by the binding or by a host.
 */
#ifndef FCPROC_ROOMS_H
#define FCPROC_ROOMS_H

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fcproc.h"

#define FCPROC_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define ELEMENTS(a)         (sizeof(a) / sizeof((a)[0]))

/* ---- ownership: the cleaners keep errno and accept what is not there ---- */

static inline void close_fd(int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        (void)close(*fd); /* never retried: Linux frees the number even on EINTR */
        errno = saved;
    }
    *fd = -EBADF;
}

static inline int take_fd(int *fd)
{
    int taken = *fd;
    *fd = -EBADF;
    return taken;
}

static inline void free_pointer(void *p)
{
    void **pp = p;
    free(*pp);
    *pp = NULL;
}

#define cleanup_fd   __attribute__((cleanup(close_fd)))
#define cleanup_free __attribute__((cleanup(free_pointer)))

/* ---- errors ---- */

/* Fill err (which may be NULL) and return code. */
int error_set(fcproc_error *err, int code, const char *op, int sys_errno, const char *format, ...)
    FCPROC_PRINTF(5, 6);
int error_code_for(int sys_errno);
/* The same, with the code that fits the errno, whose text is appended. */
int error_errno(fcproc_error *err, const char *op, int sys_errno, const char *format, ...)
    FCPROC_PRINTF(4, 5);
/* The same with a code that is given. */
int error_errno_as(fcproc_error *err, int code, const char *op, int sys_errno, const char *format,
                   va_list args) FCPROC_PRINTF(5, 0);
int error_nomem(fcproc_error *err, const char *op);
/* What the caller has set up: is it one, of a size that this library (which knows so much of it) and its
 * header agree upon? 0 or a code. */
int check_struct(const void *given, size_t known, const char *name, const char *op,
                 fcproc_error *err);

#endif
