/* SPDX-License-Identifier: MIT
 *
 * Fills fcproc_error and maps errno to our codes. Allocates nothing: it must work when memory
 * has run out.
 */
#include <stdio.h>

#include "private.h"

FCPROC_API const char *fcproc_code_name(int code)
{
    switch (code) {
#define FCPROC_X(name, number, text, meaning) \
    case FCPROC_ERR_##name:                   \
        return text;
        FCPROC_ERROR_LIST(FCPROC_X)
#undef FCPROC_X
    default:
        return "unknown";
    }
}

int error_code_for(int sys_errno)
{
    switch (sys_errno) {
    case EPERM:
    case EACCES:
        return FCPROC_ERR_PERMISSION;
    case ENOENT:
    case ENODEV:
    case ESRCH:
    case ECONNREFUSED:
        return FCPROC_ERR_NOT_FOUND;
    case EBUSY:
        return FCPROC_ERR_BUSY;
    case EEXIST:
        return FCPROC_ERR_CONFLICT;
    case ENOMEM:
        return FCPROC_ERR_NOMEM;
    case EOPNOTSUPP:
    case ENOSYS:
        return FCPROC_ERR_UNSUPPORTED;
    case ENAMETOOLONG:
        return FCPROC_ERR_INVALID;
    default:
        return FCPROC_ERR_SYSTEM;
    }
}

/* What to do about it, where that is always the same. */
static const char *hint_for(int sys_errno)
{
    switch (sys_errno) {
    case EMFILE:
        return "; raise the limit of open files (ulimit -n)";
    case EAGAIN: /* of a process or a thread that can't be started */
        return "; raise the limit of processes (ulimit -u)";
    case ENFILE:
        return "; raise the host's limit of open files (sysctl fs.file-max)";
    case ETOOMANYREFS: /* unix(7): of all processes of that user, whose managers keep some there */
        return "; as many descriptors of this user are on their way as may be: raise the hard "
               "limit of open files (ulimit -Hn)";
    default:
        return "";
    }
}

/* What a long name leaves of a message for the reason. */
enum { REASON_ROOM = 128 };

/* How much of its message the caller's own struct holds, if any of it. */
static size_t message_room(const fcproc_error *err)
{
    const size_t before = offsetof(fcproc_error, message);

    if (!err || err->struct_size <= before)
        return 0;
    return err->struct_size < sizeof(*err) ? err->struct_size - before : sizeof(err->message);
}

void error_append(fcproc_error *err, const char *format, ...)
{
    size_t room = message_room(err), used;
    va_list args;

    if (room == 0)
        return;
    used = strlen(err->message);
    va_start(args, format);
    (void)vsnprintf(err->message + used, room - used, format, args);
    va_end(args);
}

int error_about(fcproc_error *err, pid_t pid, int code)
{
    if (message_room(err) > 0)
        err->pid = pid;
    return code;
}

static int error_fill(fcproc_error *err, int code, const char *op, int sys_errno,
                      const char *format, va_list args)
{
    size_t room = message_room(err);

    if (room > 0) {
        err->code = code;
        err->sys_errno = sys_errno;
        err->pid = 0;
        err->op = op;
        (void)vsnprintf(err->message, room, format, args);
    }
    return code;
}

int error_set(fcproc_error *err, int code, const char *op, int sys_errno, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)error_fill(err, code, op, sys_errno, format, args);
    va_end(args);
    return code;
}

int error_errno_as(fcproc_error *err, int code, const char *op, int sys_errno, const char *format,
                   va_list args)
{
    /* strerrordesc_np: no locale and no static buffer, so that threads never meet here. */
    const char *text = strerrordesc_np(sys_errno);
    size_t room = message_room(err);

    (void)error_fill(err, code, op, sys_errno, format, args);
    if (room > REASON_ROOM)
        err->message[room - REASON_ROOM] = '\0';
    error_append(err, ": %s%s", text ? text : "unknown error", hint_for(sys_errno));
    return code;
}

int error_errno(fcproc_error *err, const char *op, int sys_errno, const char *format, ...)
{
    int code = error_code_for(sys_errno);
    va_list args;

    va_start(args, format);
    (void)error_errno_as(err, code, op, sys_errno, format, args);
    va_end(args);
    return code;
}

int error_nomem(fcproc_error *err, const char *op)
{
    return error_set(err, FCPROC_ERR_NOMEM, op, ENOMEM, "out of memory");
}

int check_maker(pid_t maker, const char *op, fcproc_error *err)
{
    if (maker == getpid())
        return 0;
    return error_set(
        err, FCPROC_ERR_INVALID, op, 0,
        "it belongs to pid %d, of which this process is a fork: close it here, and make "
        "one of your own",
        maker);
}

int check_struct(const void *given, size_t known, const char *name, const char *op,
                 fcproc_error *err)
{
    size_t size = 0;

    if (!given)
        return error_set(err, FCPROC_ERR_INVALID, op, 0, "no struct %s was given", name);
    memcpy(&size, given, sizeof(size)); /* each begins with it */
    if (size < known)
        return error_set(err, FCPROC_ERR_INVALID, op, 0,
                         "the struct_size of the struct %s is %zu, which it never had: set it up "
                         "by its _INIT",
                         name, size);
    for (size_t i = known; i < size; i++)
        if (((const char *)given)[i])
            return error_set(err, FCPROC_ERR_UNSUPPORTED, op, 0,
                             "the struct %s asks for what this libfcproc, which is version %s and "
                             "older than its header, does not know",
                             name, FCPROC_VERSION);
    return 0;
}

int check_given(const void *pointer, const char *what, const char *op, fcproc_error *err)
{
    return pointer ? 0 : error_set(err, FCPROC_ERR_INVALID, op, 0, "no %s was given", what);
}
