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
/* Which file it is: as statx(2) told, asked for STATX_INO | STATX_BTIME; and 0 or -errno. */
struct fcproc_file_id file_id_of(const struct statx *stx);
int file_id(int fd, struct fcproc_file_id *ret);
/* Is what fd is a regular file, and the expected one? */
int file_check(const char *op, int fd, const struct fcproc_expected *expected,
               const struct stat *st, const char *path, fcproc_error *err);
/* Opens the expected file (NULL: any regular one), never waiting. Returns the descriptor. */
int file_open_expected(const char *op, const char *path, int flags,
                       const struct fcproc_expected *expected, struct stat *ret_stat,
                       fcproc_error *err);
/* What is to have a second name: no right to the file is needed, unless it is another user's that
 * counts. */
int file_open_source(const char *op, const char *from, const struct fcproc_expected *expected,
                     fcproc_error *err);
/* open(2) with this user's and group's rights alone. The descriptor, or -errno. */
int open_as(const char *path, int flags, uid_t uid, gid_t gid);
/* 0 or -errno. */
int file_write_all(int fd, const char *data, size_t len);
/* Gives a new file away (-1: it stays the caller's). Before its mode is set: chown(2) changes that.
 * 0 or -errno. */
int file_give(int fd, int64_t uid, int64_t gid);
/* Opens (O_PATH) the folder that holds the last part of an absolute path, which is copied to base, if
 * nobody but root and the caller may put another in the place of it or of one above it. */
int folder_open_above(const char *op, const char *path, char base[PATH_MAX], fcproc_error *err);

#endif
