/* SPDX-License-Identifier: MIT
 *
 * What the core's errors do not know of files in images, and names, which may be long, in messages.
 */
#include "image.h"

static int code_for(int sys_errno)
{
    switch (sys_errno) {
    case ENOTDIR:
    case EISDIR:
        return FCPROC_ERR_CONFLICT;
    case ELOOP:
        return FCPROC_ERR_INVALID;
    default:
        return error_code_for(sys_errno);
    }
}

int image_errno(fcproc_error *err, const char *op, int sys_errno, const char *format, ...)
{
    int code = code_for(sys_errno);
    va_list args;

    va_start(args, format);
    (void)error_errno_as(err, code, op, sys_errno, format, args);
    va_end(args);
    return code;
}

struct shown image_shown(const char *name, size_t len)
{
    struct shown s;
    size_t most = sizeof(s.text) - 4, n = len < most ? len : most;

    memcpy(s.text, name, n);
    memcpy(s.text + n, len > n ? "..." : "", len > n ? 4 : 1);
    return s;
}
