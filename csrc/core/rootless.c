/* SPDX-License-Identifier: MIT
 *
 * Where the program is that enters a user's own namespaces: beside the module or the library, or where
 * it was installed.
 */
#include <dlfcn.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "private.h"

#ifndef FCPROC_ROOTLESS_PATH
#define FCPROC_ROOTLESS_PATH "/usr/local/lib/fcproc/fcproc-rootless"
#endif

static bool is_there(char *buf, const char *folder, size_t len, const char *name)
{
    return len + strlen(name) < PATH_MAX &&
           snprintf(buf, PATH_MAX, "%.*s%s", (int)len, folder, name) > 0 && access(buf, X_OK) == 0;
}

int rootless_program(char *buf, const char *op, fcproc_error *err)
{
    Dl_info info;
    const char *slash;

    /* Whose path may be relative; the child may be in another folder by then. */
    if (dladdr((void *)(uintptr_t)&rootless_program, &info) && info.dli_fname &&
        (slash = strrchr(info.dli_fname, '/'))) {
        size_t len = (size_t)(slash + 1 - info.dli_fname);

        if ((is_there(buf, info.dli_fname, len, "fcproc-rootless") ||
             is_there(buf, info.dli_fname, len, "fcproc/fcproc-rootless")) &&
            (*buf == '/' || fcproc_absolute_path(buf, buf, err) == 0))
            return 0;
    }
    if (is_there(buf, FCPROC_ROOTLESS_PATH, strlen(FCPROC_ROOTLESS_PATH), ""))
        return 0;
    return error_set(err, FCPROC_ERR_NOT_FOUND, op, ENOENT,
                     "the program fcproc-rootless is neither beside the library nor at %s: install "
                     "fcproc whole",
                     FCPROC_ROOTLESS_PATH);
}

int rootless_wait(int fd, int events)
{
    enum { PATIENCE_MS = 10000 };
    int64_t until = now_ns() / NS_PER_MS + PATIENCE_MS;

    for (int64_t left = PATIENCE_MS; left > 0; left = until - now_ns() / NS_PER_MS) {
        struct pollfd p = { .fd = fd, .events = (short)events };
        int r = poll(&p, 1, (int)left);

        if (r > 0)
            return 0;
        if (r < 0 && errno != EINTR)
            return -errno;
    }
    return -ETIMEDOUT;
}

int rootless_report(int fd, char *buf, size_t size)
{
    char *what;
    long sys_errno;
    ssize_t n;

    *buf = '\0';
    if (rootless_wait(fd, POLLIN) < 0)
        return -1;
    n = recv(fd, buf, size - 1, MSG_DONTWAIT);
    if (n <= 0)
        return -1;
    buf[n] = '\0';
    sys_errno = strtol(buf, &what, 10);
    what += *what == ' ';
    memmove(buf, what, strlen(what) + 1);
    return sys_errno >= 0 && sys_errno < 4096 ? (int)sys_errno : -1;
}
