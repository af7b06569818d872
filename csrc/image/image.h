/* SPDX-License-Identifier: MIT
 *
 * What the files of this room share: ownership and errors, which are the core's, and names in messages.
 */
#ifndef FCPROC_IMAGE_PRIVATE_H
#define FCPROC_IMAGE_PRIVATE_H

#include "../core/rooms.h"
#include "fcproc_image.h"

/* Fills err as error_set does, with the code that fits the errno of a file, whose text is appended. */
int image_errno(fcproc_error *err, const char *op, int sys_errno, const char *format, ...)
    FCPROC_PRINTF(4, 5);

/* The host's file of that path, to read: symbolic links are followed, and a FIFO has nobody wait for its
 * writer. FCPROC_ERR_CONFLICT: it is no regular file. */
int image_open_regular(const char *path, int *ret_fd, uint64_t *ret_size, const char *op,
                       fcproc_error *err);

/* A name for a message: its start, if it is long. */
enum { SHOWN_SIZE = 204 };
struct shown {
    char text[SHOWN_SIZE];
};
struct shown image_shown(const char *name, size_t len);
#define SHOWN(name, len) (image_shown((name), (len)).text)

#endif
