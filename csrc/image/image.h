/* SPDX-License-Identifier: MIT
 *
 * What the files of this room share: ownership and errors.
 */
#ifndef FCPROC_IMAGE_PRIVATE_H
#define FCPROC_IMAGE_PRIVATE_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fcproc_image.h"

#define IMAGE_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define ELEMENTS(a)        (sizeof(a) / sizeof((a)[0]))

/* ---- ownership: the cleaners keep errno and accept what is not there ---- */

static inline void close_fd(int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        (void)close(*fd);
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

/* ---- errors: each fills err (which may be NULL) and returns the code ---- */

int image_error(fcproc_error *err, int code, const char *op, int sys_errno, const char *format, ...)
    IMAGE_PRINTF(5, 6);
/* With the code that fits the errno, whose text is appended. */
int image_errno(fcproc_error *err, const char *op, int sys_errno, const char *format, ...)
    IMAGE_PRINTF(4, 5);
int image_nomem(fcproc_error *err, const char *op);
/* Is it a struct of a size that this library and its header agree upon? 0 or a code. */
int image_check_struct(const void *given, size_t known, const char *name, const char *op,
                       fcproc_error *err);

/* A name for a message: its start, if it is long. */
enum { SHOWN_SIZE = 204 };
struct shown {
    char text[SHOWN_SIZE];
};
struct shown image_shown(const char *name, size_t len);
#define SHOWN(name, len) (image_shown((name), (len)).text)

#endif
