/* SPDX-License-Identifier: MIT
 *
 * Programs to execute: where they are, and whether they can be.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "private.h"

/* 0, or -errno: -EISDIR stands for anything that is no regular file. */
static int check_executable(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EISDIR;
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0 ? -errno : 0;
}

FCPROC_API int fcproc_find_executable(const char *name, char *buf, size_t size, fcproc_error *err)
{
    static const char op[] = "executable.find";
    const char *folders = getenv("PATH");
    bool relative = false;
    int refused = 0;

    if (strchr(name, '/')) {
        int r = check_executable(name);

        if (r == -EISDIR)
            return error_set(err, FCPROC_ERR_INVALID, op, EISDIR, "%s is not a regular file", name);
        if (r < 0)
            return error_errno(err, op, -r, "%s cannot be executed", name);
        if ((size_t)snprintf(buf, size, "%s", name) >= size)
            return error_errno(err, op, ENAMETOOLONG, "%s", name);
        return 0;
    }
    for (const char *p = folders ? folders : "/usr/local/bin:/usr/bin:/bin"; *name; p++) {
        size_t len = strcspn(p, ":");

        /* An empty entry, "." and all that is relative depend on the current folder: what runs as
         * root never comes from there. */
        if (*p == '/' && (size_t)snprintf(buf, size, "%.*s/%s", (int)len, p, name) < size) {
            int r = check_executable(buf);

            if (r == 0)
                return 0;
            /* In a folder that we may not search it is none of ours. */
            if (r == -EACCES && faccessat(AT_FDCWD, buf, F_OK, AT_EACCESS) == 0)
                refused = EACCES;
        }
        relative = relative || *p != '/';
        p += len;
        if (*p == '\0')
            break;
    }
    if (refused)
        return error_errno(err, op, refused, "'%s' is on PATH but cannot be executed", name);
    return error_set(err, FCPROC_ERR_NOT_FOUND, op, ENOENT, "'%s' is not on PATH%s", name,
                     relative ? ", whose relative folders are not looked in" : "");
}
