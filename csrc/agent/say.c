/* SPDX-License-Identifier: MIT
 *
 * What /init says: a line on the console, or in the kernel's log where there is none.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
#include "init.h"

#define PREFIX "fcproc init: "

/* Words of the command line are in it: nothing that upsets a terminal gets through. */
static void write_line(const char *format, va_list arguments)
{
    char line[1024] = PREFIX;
    size_t size = sizeof PREFIX - 1;
    int fd = 2, opened = -1;

    int wanted = vsnprintf(line + size, sizeof line - size - 1, format, arguments);
    size += wanted < 0 ? 0 : strlen(line + size);
    for (size_t i = 0; i < size; i++) {
        if (line[i] < ' ' || line[i] > '~')
            line[i] = '?';
    }
    line[size++] = '\n';
    if (fcntl(fd, F_GETFD) < 0)
        fd = opened = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    for (size_t done = 0; fd >= 0 && done < size;) {
        ssize_t more = write(fd, line + done, size - done);
        if (more < 0 && errno == EINTR)
            continue;
        if (more <= 0)
            break;
        done += (size_t)more;
    }
    if (opened >= 0)
        close(opened);
}

void say(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    write_line(format, arguments);
    va_end(arguments);
}

void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    write_line(format, arguments);
    va_end(arguments);
    tcdrain(2); /* the panic does not wait for what the console has not sent yet */
    _exit(1);
}

long read_file(const char *path, char *to, size_t size)
{
    size_t used = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    while (used < size) {
        ssize_t more = read(fd, to + used, size - used);
        if (more < 0 && errno == EINTR)
            continue;
        if (more < 0) {
            close(fd);
            return -1;
        }
        if (more == 0)
            break;
        used += (size_t)more;
    }
    close(fd);
    return (long)used;
}
