/* SPDX-License-Identifier: MIT */
#include "rootless.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>

int report_fd = STDERR_FILENO;

void fail(const char *format, ...)
{
    int sys_errno = errno;
    char what[512]; /* told in one piece, which the caller reads in one */
    va_list values;

    va_start(values, format);
    (void)vsnprintf(what, sizeof(what), format, values);
    va_end(values);
    if (report_fd != STDERR_FILENO)
        (void)dprintf(report_fd, "%d %s", sys_errno, what);
    else if (sys_errno)
        (void)dprintf(report_fd, "fcproc-rootless: %s: %s\n", what, strerror(sys_errno));
    else
        (void)dprintf(report_fd, "fcproc-rootless: %s", what);
    exit(127);
}

int descriptor(const char *text)
{
    char *end;
    long number = strtol(text, &end, 10);

    if (*text == '\0' || *end != '\0' || number < -1 || number > INT_MAX) {
        errno = EINVAL;
        fail("'%s' is no descriptor", text);
    }
    return (int)number;
}

void enter_namespaces(int user_fd, int net_fd)
{
    if (setns(user_fd, CLONE_NEWUSER) < 0)
        fail("can't enter the user namespace");
    if (setns(net_fd, CLONE_NEWNET) < 0)
        fail("can't enter the network namespace");
}

void close_on_exec(int fd)
{
    if (fd >= 0)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = {
        { "enter", enter_main },
        { "descriptors", descriptors_main },
        { "hold", hold_main },
        { "relay", relay_main },
    };

    for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 2, argv + 2);
    errno = 0;
    fail("it is run by fcproc, and by nobody else\n");
}
