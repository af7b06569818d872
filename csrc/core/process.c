/* SPDX-License-Identifier: MIT
 *
 * A process held by its pidfd: signals, the wait for its end and its exit status.
 * A number is never signalled; it is opened, verified while the pidfd is held, then used.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "private.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

struct fcproc_process {
    unsigned references; /* one thread only: an operation and a handle share it */
    pid_t pid;
    int pidfd;
    uint64_t start_time; /* 0: /proc tells */
    bool child;          /* ours to reap */
    bool recorded;       /* known from its start, not from its number */
    bool ended;
    struct fcproc_exit exit;
    struct spawn_gate *gate; /* it is not known to have executed yet */
    void (*abandon_gate)(struct spawn_gate *gate, fcproc_process *p);
};

/* ---- handles ---- */

/* waitid(2) by pidfd: an owned child is reaped, any other child of this process only looked at,
 * since its own parent code will want to. 1: ended; 0: runs; -ECHILD: no child. */
static int pidfd_wait(int pidfd, bool reap, struct fcproc_exit *ret)
{
    siginfo_t info = { 0 };

    if (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | (reap ? 0 : WNOWAIT)) < 0)
        return -errno;
    if (info.si_pid == 0)
        return 0;
    *ret = (struct fcproc_exit){ .known = true,
                                 .signaled = info.si_code != CLD_EXITED,
                                 .value = info.si_status };
    return 1;
}

int process_new(pid_t pid, int pidfd, bool child, fcproc_process **ret, fcproc_error *err)
{
    fcproc_process *p = calloc(1, sizeof(*p));

    if (!p) {
        close_fd(&pidfd);
        return error_nomem(err, "process");
    }
    *p = (fcproc_process){
        .references = 1, .pid = pid, .pidfd = pidfd, .child = child, .recorded = child
    };
    *ret = p;
    return 0;
}

void process_started(fcproc_process *p, pid_t pid, int pidfd, uint64_t start_time)
{
    p->pid = pid;
    p->pidfd = pidfd;
    p->start_time = start_time;
}

void process_set_gate(fcproc_process *p, struct spawn_gate *gate,
                      void (*abandon)(struct spawn_gate *gate, fcproc_process *p))
{
    p->gate = gate;
    p->abandon_gate = abandon;
}

struct spawn_gate *process_gate(const fcproc_process *p)
{
    return p->gate;
}

fcproc_process *process_ref(fcproc_process *p)
{
    p->references++;
    return p;
}

struct fcproc_exit process_exit(const fcproc_process *p)
{
    return p->exit;
}

FCPROC_API void fcproc_process_close(fcproc_process *p)
{
    if (!p || --p->references > 0)
        return;
    if (p->gate)
        p->abandon_gate(p->gate, p);
    /* It has ended unseen, or will: no zombie stays. In a fork of us it is no child. */
    if (p->child && !p->ended && p->pidfd >= 0 && pidfd_wait(p->pidfd, true, &p->exit) == 0)
        linger_child(take_fd(&p->pidfd));
    close_fd(&p->pidfd);
    free(p);
}

FCPROC_API int fcproc_process_open(pid_t pid, fcproc_process **ret, fcproc_error *err)
{
    static const char op[] = "process.open";
    int fd;

    if (pid <= 0)
        return error_set(err, FCPROC_ERR_INVALID, op, 0, "%d is no process: a pid is above 0", pid);
    fd = pidfd_open_number(pid);
    if (fd < 0)
        return error_about(err, pid, error_errno(err, op, -fd, "can't open pid %d", pid));
    return process_new(pid, fd, false, ret, err);
}

FCPROC_API pid_t fcproc_process_pid(const fcproc_process *p)
{
    return p->pid;
}

FCPROC_API int fcproc_process_pidfd(const fcproc_process *p)
{
    return p->pidfd;
}

void process_set_recorded(fcproc_process *p)
{
    p->recorded = true;
}

uint64_t process_start_time(const fcproc_process *p)
{
    return p->start_time;
}

void process_set_start_time(fcproc_process *p, uint64_t start_time)
{
    p->start_time = start_time;
}

FCPROC_API bool fcproc_process_is_recorded(const fcproc_process *p)
{
    return p->recorded;
}

FCPROC_API bool fcproc_process_alive(const fcproc_process *p)
{
    return !pidfd_is_dead(p->pidfd);
}

/* A child of ours keeps it until it is reaped, be it by us or by somebody else in this process. */
bool process_has_lost_its_number(const fcproc_process *p)
{
    struct fcproc_exit unused;

    if (!pidfd_is_dead(p->pidfd))
        return false;
    return !p->child || p->ended || pidfd_wait(p->pidfd, false, &unused) < 0;
}

FCPROC_API int fcproc_process_signal(fcproc_process *p, int sig, fcproc_error *err)
{
    if (syscall(SYS_pidfd_send_signal, p->pidfd, sig, NULL, 0) == 0)
        return 0;
    return error_about(err, p->pid,
                       error_errno(err, "process.signal", errno, "can't send signal %d to pid %d",
                                   sig, p->pid));
}

/* ---- the end ---- */

static struct fcproc_exit exit_from_wait_status(int status)
{
    if (WIFSIGNALED(status))
        return (struct fcproc_exit){ .known = true, .signaled = true, .value = WTERMSIG(status) };
    return (struct fcproc_exit){ .known = true, .value = WEXITSTATUS(status) };
}

int process_reap(fcproc_process *p)
{
    int r;

    if (p->ended)
        return 1;
    r = pidfd_wait(p->pidfd, p->child, &p->exit);
    p->ended = r > 0;
    return r;
}

void process_abandon(fcproc_process *p)
{
    if (!p)
        return;
    if (process_reap(p) == 0)
        (void)!fcproc_process_signal(p, SIGKILL, NULL);
    fcproc_process_close(p);
}

/* include/uapi/linux/pidfd.h as of 6.15; Debian 12's headers are older. */
struct pidfd_info_v0 {
    uint64_t mask;
    uint64_t cgroupid;
    uint32_t pid, tgid, ppid;
    uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
};
#define PIDFD_GET_INFO_V0 _IOWR(0xFF, 11, struct pidfd_info_v0)
enum { PIDFD_INFO_EXIT_BIT = 1 << 3 };

/* The exit status of a process that somebody else has reaped. 1: known; 0: not yet; -errno: this
 * kernel never tells. */
static int pidfd_exit_info(int pidfd, struct fcproc_exit *ret)
{
    struct pidfd_info_v0 info = { .mask = PIDFD_INFO_EXIT_BIT };

    if (ioctl(pidfd, PIDFD_GET_INFO_V0, &info) < 0)
        return errno == ESRCH ? 0 : -errno; /* ESRCH: reaped, and no record yet or at all */
    if (!(info.mask & PIDFD_INFO_EXIT_BIT))
        return 0;
    *ret = exit_from_wait_status(info.exit_code);
    return 1;
}

enum { STATUS_PATIENCE_MS = 100, TRACER_PATIENCE_MS = 2000 };

/* From its death on only how it ended is waited for. A stranger's shows when its own parent has
 * reaped it, which makes the pidfd hang up. That of our child which somebody traces shows when he has
 * waited for it, which wakes the pidfd once more and leaves it as readable as before. */
static bool watch_status(fcproc_op *op, int pidfd, bool traced)
{
    struct epoll_event news = { .events = traced ? EPOLLIN | EPOLLET : 0, .data.u64 = OP_WAKE };

    return epoll_ctl(op->epoll_fd, EPOLL_CTL_MOD, pidfd, &news) == 0;
}

int process_collect(fcproc_process *p, unsigned without, fcproc_op *op, int64_t *patience_ns)
{
    struct epoll_event taken[8];
    int r;

    if (p->ended)
        return 1;
    if (*patience_ns != 0)
        (void)epoll_wait(op->epoll_fd, taken, ELEMENTS(taken), 0); /* before the look */
    else if (!pidfd_is_dead(p->pidfd))
        return 0;
    r = process_reap(p);
    if (r > 0)
        return 1;
    if (*patience_ns == 0)
        *patience_ns = !watch_status(op, p->pidfd, r == 0)
                           ? now_ns()
                           : deadline_after_ms(r == 0 ? TRACER_PATIENCE_MS : STATUS_PATIENCE_MS);
    if (r < 0) {
        r = without & FCPROC_WITHOUT_PIDFD_INFO ? -EOPNOTSUPP : pidfd_exit_info(p->pidfd, &p->exit);
        p->ended = r != 0 || now_ns() >= *patience_ns;
    }
    /* One that is traced has not been reaped: its status may be asked for again. An early end of the
     * wait must not hide that the process is gone. */
    if (p->ended || now_ns() >= *patience_ns || fcproc_ctx_status(op->ctx, NULL) < 0)
        return 1;
    op->deadline_ns = NEVER;
    op->timer_ns = *patience_ns;
    return 0;
}

struct wait_op {
    fcproc_op op;
    fcproc_process *process;
    unsigned without;
    int64_t patience_ns; /* when its status is given up; 0: it still runs */
};

static int wait_step(fcproc_op *op, fcproc_error *err)
{
    struct wait_op *w = (struct wait_op *)op;

    (void)err;
    return process_collect(w->process, w->without, op, &w->patience_ns);
}

static void wait_describe(const fcproc_op *op, char *buf, size_t size)
{
    (void)snprintf(buf, size, "pid %d still running", ((const struct wait_op *)op)->process->pid);
}

static void wait_destroy(fcproc_op *op)
{
    fcproc_process_close(((struct wait_op *)op)->process);
}

FCPROC_API int fcproc_process_wait(fcproc_process *p, int64_t timeout_ms, unsigned without,
                                   fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err)
{
    static const struct op_class class = { .name = "process.wait",
                                           .step = wait_step,
                                           .destroy = wait_destroy,
                                           .describe = wait_describe };
    struct wait_op *w;
    fcproc_op *op = NULL;
    int r = op_new(sizeof(*w), &class, ctx, timeout_ms, &op, err);

    if (r < 0)
        return r;
    w = (struct wait_op *)op;
    w->process = process_ref(p);
    w->without = without;
    r = op_watch(&w->op, p->pidfd, EPOLLIN, OP_WAKE, err);
    if (r < 0) {
        fcproc_op_close(&w->op);
        return r;
    }
    *ret = &w->op;
    return 0;
}

FCPROC_API struct fcproc_exit fcproc_process_wait_result(const fcproc_op *op)
{
    return ((const struct wait_op *)op)->process->exit;
}
