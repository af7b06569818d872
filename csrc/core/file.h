/* SPDX-License-Identifier: MIT
 *
 * What the files about files share: errors that say what stands in the way, and paths whose last
 * component is never followed.
 */
#ifndef FCPROC_FILE_H
#define FCPROC_FILE_H

#include <limits.h>
#include <sys/stat.h>

#include "private.h"

/* Like error_errno, with what the errno means for a file and what to do about it, which is said
 * however long the path is. */
int file_error(fcproc_error *err, const char *op, int sys_errno, const char *format, ...)
    FCPROC_PRINTF(4, 5);
/* FCPROC_ERR_CONFLICT: what is at the path is not the wanted ("a folder"). */
int file_conflict(fcproc_error *err, const char *op, mode_t mode, const char *wanted,
                  const char *path);
enum fcproc_file_type file_type(mode_t mode);
/* path without the slashes at its end, with which the kernel would follow a link. */
const char *file_plain_path(const char *path, char buf[PATH_MAX]);
/* Takes an O_PATH descriptor too, unlike fchmod. 0 or -errno. */
int file_set_mode(int fd, mode_t mode);
/* Opens a regular file, never waiting for one that is none. Returns the descriptor. */
int file_open_regular(const char *op, const char *path, int flags, struct stat *ret_stat,
                      fcproc_error *err);

#endif
