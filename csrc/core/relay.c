/* SPDX-License-Identifier: MIT
 *
 * Starts the relay of a VM's published ports, which lives as long as the VMM does.
 */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>

#include "private.h"

static const char op_name[] = "relay.start";

enum { MOST_PORTS = 256 };

static int refused(int sys_errno, const char *what, fcproc_error *err)
{
    if (sys_errno == EADDRINUSE)
        return error_set(err, FCPROC_ERR_CONFLICT, op_name, sys_errno,
                         "%s is in use by another socket: publish another port", what);
    if (sys_errno == EADDRNOTAVAIL)
        return error_set(err, FCPROC_ERR_INVALID, op_name, sys_errno,
                         "%s: this host has no such address", what);
    return error_errno(err, op_name, sys_errno, "the relay of published ports: %s", what);
}

/* With the ports that it did get: they are free when it fails. */
static void end_now(fcproc_process *process)
{
    enum { PATIENCE_MS = 1000 };
    int fd = fcproc_process_pidfd(process);

    (void)!fcproc_process_signal(process, SIGKILL, NULL);
    (void)!fcproc_poll(&fd, NULL, 1, PATIENCE_MS, NULL);
    process_abandon(process);
}

FCPROC_API int fcproc_relay_start(const fcproc_netns *ns, const fcproc_process *vmm,
                                  const char *guest, const char *const *ports, size_t n,
                                  fcproc_process **ret, fcproc_error *err)
{
    char program[PATH_MAX], text[ROOTLESS_REPORT];
    const char *argv[MOST_PORTS + 4] = { program, "relay", guest };
    const char *const envp[] = { NULL };
    struct fcproc_spawn spec = FCPROC_SPAWN_INIT;
    struct fcproc_fd_map map[] = { { .to = 3 },
                                   { .from = ns->place.net_fd, .to = 5 },
                                   { .from = fcproc_process_pidfd(vmm), .to = 6 },
                                   { .from = ns->place.user_fd, .to = 4 } };
    fcproc_process *process = NULL;
    struct fcproc_identity id;
    int pair[2], r = rootless_program(program, op_name, err);

    if (r < 0)
        return r;
    if (n < 1 || n > MOST_PORTS)
        return error_set(err, FCPROC_ERR_INVALID, op_name, 0, "%zu ports: it takes 1 to %d", n,
                         MOST_PORTS);
    memcpy(&argv[3], ports, n * sizeof(*ports));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(err, op_name, errno, "can't make a pair of sockets");
    map[0].from = pair[1];
    spec.argv = argv;
    spec.envp = envp;
    spec.streams[1].kind = spec.streams[2].kind = FCPROC_STDIO_NULL;
    spec.fds = map;
    spec.n_fds = ELEMENTS(map) - (ns->place.user_fd < 0); /* the last is for a user's own alone */
    spec.new_session = true;
    spec.cwd = "/";
    /* Who it is, is read before it hides: with hidepid, /proc shows nobody who is not dumpable. */
    spec.gate = true;
    r = fcproc_spawn(&spec, &process, err);
    close_fd(&pair[1]);
    if (r == 0)
        r = fcproc_process_identity(process, &id, err);
    if (r == 0)
        r = fcproc_process_release(process, true, err);
    if (r < 0) {
        close_fd(&pair[0]);
        process_abandon(process);
        return r;
    }
    r = rootless_report(pair[0], text, sizeof(text));
    close_fd(&pair[0]);
    if (r == 0) {
        *ret = process;
        return 0;
    }
    end_now(process);
    if (r < 0)
        return error_set(err, FCPROC_ERR_SYSTEM, op_name, 0,
                         "the relay of published ports has ended before it was ready");
    return refused(r, text, err);
}
