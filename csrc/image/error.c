/* SPDX-License-Identifier: MIT
 *
 * Fills fcproc_error. Allocates nothing: it must work when memory has run out.
 */
#include <stdarg.h>
#include <stdio.h>

#include "image.h"

static int code_for(int sys_errno)
{
    switch (sys_errno) {
    case EPERM:
    case EACCES:
        return FCPROC_ERR_PERMISSION;
    case ENOENT:
        return FCPROC_ERR_NOT_FOUND;
    case EBUSY:
        return FCPROC_ERR_BUSY;
    case EEXIST:
    case ENOTDIR:
    case EISDIR:
        return FCPROC_ERR_CONFLICT;
    case ENOMEM:
        return FCPROC_ERR_NOMEM;
    case EOPNOTSUPP:
    case ENOSYS:
        return FCPROC_ERR_UNSUPPORTED;
    case ENAMETOOLONG:
    case ELOOP:
        return FCPROC_ERR_INVALID;
    default:
        return FCPROC_ERR_SYSTEM;
    }
}

/* How much of its message the caller's own struct holds, if any of it. */
static size_t message_room(const fcproc_error *err)
{
    const size_t before = offsetof(fcproc_error, message);

    if (!err || err->struct_size <= before)
        return 0;
    return err->struct_size < sizeof(*err) ? err->struct_size - before : sizeof(err->message);
}

static void fill(fcproc_error *err, int code, const char *op, int sys_errno, const char *format,
                 va_list args)
{
    size_t room = message_room(err);

    if (room == 0)
        return;
    err->code = code;
    err->sys_errno = sys_errno;
    err->pid = 0;
    err->op = op;
    (void)vsnprintf(err->message, room, format, args);
}

int image_error(fcproc_error *err, int code, const char *op, int sys_errno, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fill(err, code, op, sys_errno, format, args);
    va_end(args);
    return code;
}

int image_errno(fcproc_error *err, const char *op, int sys_errno, const char *format, ...)
{
    int code = code_for(sys_errno);
    size_t room = message_room(err), used;
    const char *text;
    va_list args;

    va_start(args, format);
    fill(err, code, op, sys_errno, format, args);
    va_end(args);
    if (room > 0) {
        used = strlen(err->message);
        text = strerrordesc_np(sys_errno); /* no locale and no static buffer */
        (void)snprintf(err->message + used, room - used, ": %s", text ? text : "unknown error");
    }
    return code;
}

int image_nomem(fcproc_error *err, const char *op)
{
    return image_error(err, FCPROC_ERR_NOMEM, op, ENOMEM, "out of memory");
}

int image_check_struct(const void *given, size_t known, const char *name, const char *op,
                       fcproc_error *err)
{
    size_t size = 0;

    if (!given)
        return image_error(err, FCPROC_ERR_INVALID, op, 0, "no struct %s was given", name);
    memcpy(&size, given, sizeof(size)); /* each begins with it */
    if (size < known)
        return image_error(err, FCPROC_ERR_INVALID, op, 0,
                           "the struct_size of the struct %s is %zu, which it never had: set it up "
                           "by its _INIT",
                           name, size);
    for (size_t i = known; i < size; i++)
        if (((const char *)given)[i])
            return image_error(err, FCPROC_ERR_UNSUPPORTED, op, 0,
                               "the struct %s asks for what this libfcproc-image, which is version "
                               "%s and older than its header, does not know",
                               name, FCPROC_VERSION);
    return 0;
}

struct shown image_shown(const char *name, size_t len)
{
    struct shown s;
    size_t most = sizeof(s.text) - 4, n = len < most ? len : most;

    memcpy(s.text, name, n);
    memcpy(s.text + n, len > n ? "..." : "", len > n ? 4 : 1);
    return s;
}
