/* SPDX-License-Identifier: MIT
 *
 * Where the program is that enters a user's own namespaces: beside the module or the library, or where
 * it was installed.
 */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>

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
