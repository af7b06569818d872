/* SPDX-License-Identifier: MIT
 *
 * Which process listens on a unix socket: the live peer of a connection.
 */
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

#include "private.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* FIXME(kernel >= 6.5): without SO_PEERPIDFD the peer is a number. The process that has it is the
 * listener if a second connection tells the same number while we hold its pidfd, and it started
 * before the socket was bound: who got the number later started later. Its pidfd, or -errno. */
static int peer_by_number(const char *path, pid_t pid)
{
    cleanup_fd int pidfd = pidfd_open_number(pid);
    cleanup_fd int again = -EBADF;
    struct proc_stat proc;
    struct stat st;
    struct timespec real, boot;
    double started, bound;
    pid_t pid_again = 0;
    int r;

    if (pidfd < 0)
        return pidfd;
    again = unix_connect(path);
    r = again < 0 ? again : unix_peer_pid(again, &pid_again);
    if (r >= 0 && pid_again != pid)
        r = -ESRCH;
    if (r >= 0)
        r = life_of_held(pidfd, proc_read_stat(pid, &proc));
    if (r >= 0 && lstat(path, &st) < 0)
        r = -errno;
    if (r < 0)
        return r;
    (void)clock_gettime(CLOCK_REALTIME, &real);
    (void)clock_gettime(CLOCK_BOOTTIME, &boot);
    started = (double)proc.start_time / (double)sysconf(_SC_CLK_TCK) +
              (double)(real.tv_sec - boot.tv_sec);
    bound = (double)st.st_mtim.tv_sec;
    if (started > bound + 2.0) /* both clocks are coarse, and the real one is corrected */
        return -ESRCH;
    return take_fd(&pidfd);
}

/* The peer's pidfd, or -errno: -ESRCH when it is dead. */
static int peer_pidfd(int fd, const char *path, pid_t pid, unsigned without)
{
    int pidfd = -EBADF;
    socklen_t len = sizeof(pidfd);
    int r = -ENOPROTOOPT;

    if (!(without & FCPROC_WITHOUT_PEERPIDFD))
        r = getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) < 0 ? -errno : pidfd;
    if (r == -ENOPROTOOPT)
        r = pid > 0 ? peer_by_number(path, pid) : -EREMOTE;
    return life_of(r) == LIFE_DEAD ? -ESRCH : r;
}

/* The pid and, in ret_pidfd, a pidfd of the live listener; -ESRCH when it is dead; -EREMOTE when it
 * lives, or may, outside of our PID namespace, where it has no number for us. */
static int listener_open(const char *path, unsigned without, pid_t *ret, int *ret_pidfd)
{
    cleanup_fd int fd = unix_connect_settled(path);
    cleanup_fd int pidfd = -EBADF;
    pid_t pid = 0;
    int r;

    if (fd < 0)
        return fd;
    r = unix_peer_pid(fd, &pid);
    if (r < 0)
        return r;
    pidfd = peer_pidfd(fd, path, pid, without);
    if (pidfd < 0)
        return pidfd;
    if (pidfd_is_dead(pidfd))
        return -ESRCH;
    if (pid <= 0)
        return -EREMOTE;
    *ret = pid;
    *ret_pidfd = take_fd(&pidfd);
    return 0;
}

static int listener_error(const char *path, int r, fcproc_error *err)
{
    static const char op[] = "listener.find";

    switch (-r) {
    case ESRCH:
        return error_set(err, FCPROC_ERR_NOT_FOUND, op, ESRCH,
                         "the process that listened on %s is dead", path);
    case ECONNREFUSED:
    case ENOENT:
        return error_errno(err, op, -r, "nothing listens on %s", path);
    case EREMOTE:
        return error_set(err, FCPROC_ERR_SYSTEM, op, EREMOTE,
                         "who listens on %s is outside of our PID namespace: it has no number here",
                         path);
    case EAGAIN:
        return error_set(err, FCPROC_ERR_BUSY, op, EAGAIN,
                         "the accept queue of %s is full: its server hangs", path);
    case ELOOP:
        return error_set(err, FCPROC_ERR_CONFLICT, op, ELOOP, UNIX_IS_LINK, path);
    default:
        return error_errno(err, op, -r, "can't find out who listens on %s", path);
    }
}

FCPROC_API int fcproc_process_open_listener(const char *path, unsigned without,
                                            fcproc_process **ret, fcproc_error *err)
{
    int pidfd = -EBADF;
    pid_t pid = 0;
    int r = listener_open(path, without, &pid, &pidfd);

    return r < 0 ? listener_error(path, r, err) : process_new(pid, pidfd, false, ret, err);
}

FCPROC_API int fcproc_listener_pid(const char *path, unsigned without, pid_t *ret,
                                   fcproc_error *err)
{
    cleanup_fd int pidfd = -EBADF;
    int r = listener_open(path, without, ret, &pidfd);

    return r < 0 ? listener_error(path, r, err) : 0;
}
