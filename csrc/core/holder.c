/* SPDX-License-Identifier: MIT
 *
 * Starts the holder of a user's own namespaces. It is no child to be waited for: it lives as long as
 * somebody has its FIFO open for writing.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/socket.h>

#include "private.h"

static const char op_name[] = "netns.hold";

enum { MOST_ARGUMENTS = 60 };

/* What forbids it to an ordinary user, by what the kernel says of it: each has a switch of its own. */
static const char *forbidden_by(int sys_errno)
{
    static const struct {
        const char *path, *value, *text;
    } switches[] = {
        { "/proc/sys/user/max_user_namespaces", "0",
          "; user.max_user_namespaces is 0: sysctl user.max_user_namespaces=10000" },
        { "/proc/sys/user/max_net_namespaces", "0",
          "; user.max_net_namespaces is 0: sysctl user.max_net_namespaces=10000" },
        { "/proc/sys/kernel/unprivileged_userns_clone", "0",
          "; kernel.unprivileged_userns_clone is 0: sysctl kernel.unprivileged_userns_clone=1" },
        { "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
          "; AppArmor forbids it: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give "
          "fcproc-rootless a profile with 'userns,'" },
    };

    if (sys_errno != EPERM && sys_errno != ENOSPC && sys_errno != EACCES)
        return "";
    for (size_t i = 0; i < ELEMENTS(switches); i++) {
        cleanup_fd int fd = open(switches[i].path, O_RDONLY | O_CLOEXEC);
        char value[2] = "";

        if (fd >= 0 && read(fd, value, 1) == 1 && strcmp(value, switches[i].value) == 0)
            return switches[i].text;
    }
    return sys_errno == ENOSPC
               ? "; user.max_user_namespaces or user.max_net_namespaces is reached: "
                 "raise them by sysctl, or `fcproc net down` where none is needed"
               : "";
}

static int wait_until_ready(int fd, fcproc_error *err)
{
    char text[ROOTLESS_REPORT];
    int sys_errno = rootless_report(fd, text, sizeof(text));
    const char *forbidden;

    if (sys_errno < 0)
        return error_set(err, FCPROC_ERR_SYSTEM, op_name, 0,
                         "the holder of the namespaces has ended before they were there");
    if (sys_errno == 0)
        return 0;
    forbidden = forbidden_by(sys_errno);
    if (*forbidden)
        return error_set(err, FCPROC_ERR_PERMISSION, op_name, sys_errno,
                         "rootless networking: %s: %s%s", text, strerrordesc_np(sys_errno),
                         forbidden);
    if (sys_errno == EROFS)
        return error_set(
            err, FCPROC_ERR_SYSTEM, op_name, sys_errno,
            "rootless networking: %s: %s; in a container, have /proc/sys mounted writable", text,
            strerrordesc_np(sys_errno));
    return error_errno(err, op_name, sys_errno, "rootless networking: %s", text);
}

FCPROC_API int fcproc_netns_hold(const char *fifo, const char *lock, const fcproc_netns *join,
                                 const char *const *uplink, fcproc_process **ret, fcproc_error *err)
{
    char program[PATH_MAX];
    const char *argv[MOST_ARGUMENTS + 6] = { program, "hold", fifo, lock, join ? "join" : "make" };
    struct fcproc_spawn spec = FCPROC_SPAWN_INIT;
    struct fcproc_fd_map map[3] = { { .to = 5 }, { .to = 3 }, { .to = 4 } };
    fcproc_process *process = NULL;
    size_t n = 5;
    int pair[2];
    int r = rootless_program(program, op_name, err);

    if (r < 0)
        return r;
    for (; uplink && *uplink; uplink++) {
        if (n == ELEMENTS(argv) - 1)
            return error_set(err, FCPROC_ERR_INVALID, op_name, 0,
                             "too many arguments of an uplink");
        argv[n++] = *uplink;
    }
    if (mkfifo(fifo, 0600) < 0 && errno != EEXIST)
        return error_errno(err, op_name, errno, "can't make the FIFO %s", fifo);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(err, op_name, errno, "can't make a pair of sockets");
    map[0].from = pair[1];
    spec.argv = argv;
    spec.streams[1].kind = spec.streams[2].kind = FCPROC_STDIO_NULL;
    spec.fds = map;
    spec.n_fds = 1;
    if (join) {
        map[1].from = join->place.user_fd;
        map[2].from = join->place.net_fd;
        spec.n_fds = 3;
    }
    spec.new_session = true;
    spec.cwd = "/";
    r = fcproc_spawn(&spec, &process, err);
    close_fd(&pair[1]);
    if (r == 0)
        r = wait_until_ready(pair[0], err);
    close_fd(&pair[0]);
    if (r < 0) {
        process_abandon(process);
        return r;
    }
    *ret = process;
    return 0;
}
