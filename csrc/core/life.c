/* SPDX-License-Identifier: MIT
 *
 * Alive, dead, or not to be told: what the answer to a look at a process says. "Can't tell" is never
 * death: whoever takes it for that removes what a living VM has.
 */
#include <poll.h>
#include <sys/syscall.h>

#include "private.h"

enum life life_of(int r)
{
    if (r >= 0)
        return LIFE_ALIVE;
    switch (-r) {
    case ESRCH:   /* no such process; /proc/PID is missing or was closed by its end */
    case EINVAL:  /* pidfd_open(2) of a thread's number; SO_PEERPIDFD of a peer that was reaped */
    case ENODATA: /* SO_PEERPIDFD of a socket without a peer any more */
        return LIFE_DEAD;
    default:
        return LIFE_UNKNOWN;
    }
}

bool is_shortage(int r)
{
    return r == -EMFILE || r == -ENFILE || r == -ENOMEM;
}

int pidfd_open_number(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0); /* close-on-exec by itself, pidfd_open(2) */

    if (fd >= 0)
        return fd;
    /* ENOENT: a thread's number, on newer kernels. */
    return errno == ENOENT || life_of(-errno) == LIFE_DEAD ? -ESRCH : -errno;
}

bool pidfd_is_dead(int pidfd)
{
    struct pollfd p = { .fd = pidfd, .events = POLLIN };
    int r;

    do
        r = poll(&p, 1, 0);
    while (r < 0 && errno == EINTR); /* a signal is pending, however short the look is */
    return r > 0 && (p.revents & (POLLIN | POLLHUP));
}

int life_of_held(int pidfd, int r)
{
    return life_of(r) == LIFE_DEAD && !pidfd_is_dead(pidfd) ? -EACCES : r;
}
