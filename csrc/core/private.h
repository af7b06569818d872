/* SPDX-License-Identifier: MIT
 *
 * What the files of the core share. Nothing here is seen by the binding or by a host.
 */
#ifndef FCPROC_PRIVATE_H
#define FCPROC_PRIVATE_H

#include <stdarg.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "rooms.h"

enum { NS_PER_MS = 1000000 };
#define NEVER INT64_MAX

/* ---- errors ---- */

/* Adds to the message, as far as there is room. */
void error_append(fcproc_error *err, const char *format, ...) FCPROC_PRINTF(2, 3);
/* Names the process in an error just filled; returns its code. */
int error_about(fcproc_error *err, pid_t pid, int code);
/* An object is its maker's alone. 0, or FCPROC_ERR_INVALID in a fork of that process. */
int check_maker(pid_t maker, const char *op, fcproc_error *err);
/* What must not be NULL, though an _INIT leaves it so. */
int check_given(const void *pointer, const char *what, const char *op, fcproc_error *err);
/* A result that the caller may not want. */
#define TELL(ret, value)      \
    do {                      \
        if (ret)              \
            *(ret) = (value); \
    } while (0)

/* ---- users and groups ---- */

/* 0, or FCPROC_ERR_INVALID when one is no number of a user or group, nor -1. */
int ids_check(const char *op, int64_t uid, int64_t gid, fcproc_error *err);

/* ---- time ---- */

int64_t now_ns(void);
/* An absolute time from a relative one; negative is NEVER. */
int64_t deadline_after_ms(int64_t timeout_ms);
/* For poll(2): rounded up so that a wait never ends early; -1 for NEVER. */
int64_t ms_until(int64_t deadline_ns);

/* ---- context ---- */

/* Adds the eventfds of ctx and its parents to an epoll set, tagged OP_WAKE. */
int ctx_watch(fcproc_ctx *ctx, int epoll_fd, fcproc_error *err);
void ctx_unwatch(fcproc_ctx *ctx, int epoll_fd);
int64_t ctx_deadline_ns(const fcproc_ctx *ctx);

/* ---- operation ---- */

struct op_class {
    const char *name; /* fcproc_error.op */
    int (*step)(fcproc_op *op, fcproc_error *err);
    /* Optional: what must be done first when the wait ends early. 1: report the end now;
     * 0: not yet, keep stepping. */
    int (*end)(fcproc_op *op);
    void (*destroy)(fcproc_op *op);
    /* What is being waited for, as the start of a sentence: "pid 42 still running". */
    void (*describe)(const fcproc_op *op, char *buf, size_t size);
};

struct fcproc_op {
    const struct op_class *class;
    pid_t pid; /* whose it is */
    fcproc_ctx *ctx;
    int epoll_fd;
    int timeout_code;    /* of the call's own time-out */
    int64_t timeout_ms;  /* as given, for the message */
    int64_t deadline_ns; /* the call's own */
    int64_t timer_ns;    /* when step wants to be called anyway */
    int ending;          /* the code of an early end that class->end still works on */
    bool done;
};

#define OP_WAKE UINT64_MAX /* epoll tag of descriptors that only wake */

/* An operation of size bytes, of which the first are a fcproc_op and the rest zero: give it the
 * descriptors it closes before anything can fail. */
int op_new(size_t size, const struct op_class *class, fcproc_ctx *ctx, int64_t timeout_ms,
           fcproc_op **ret, fcproc_error *err);
int op_watch(fcproc_op *op, int fd, uint32_t events, uint64_t tag, fcproc_error *err);
void op_unwatch(fcproc_op *op, int fd);
/* False in a fork of the process that began it: there it is only to be closed, which must change
 * nothing that the fork shares with its parent (the epoll set, a lock, a file). */
bool op_is_ours(const fcproc_op *op);
/* A timer that doubles from first_ms to most_ms each time it is armed. */
void op_backoff(fcproc_op *op, int64_t *delay_ms, int64_t first_ms, int64_t most_ms);

/* ---- paths ---- */

/* A folder's descriptor and the last component, so that a path of any depth can be used. */
struct split_path {
    int dir_fd;
    const char *base; /* into the path given */
};
int path_split(const char *path, struct split_path *ret);

/* ---- unix sockets: a symbolic link in a socket's place is never followed ---- */

enum { SOCKET_LINK_SIZE = 32 };
#define UNIX_IS_LINK "%s is a symbolic link, which is not followed: name the socket itself"

/* An O_PATH descriptor of the socket file; -ELOOP: it is a symbolic link; -ENOTSOCK: another kind of
 * file; or -errno. ret may be NULL. */
int unix_open_at(int dir_fd, const char *name, struct stat *ret);
/* The path that leads to that very file, for sun_path. */
void unix_link(int socket_fd, char buf[SOCKET_LINK_SIZE]);
/* Non-blocking connect to a unix stream socket. Returns the descriptor or -errno, as above. */
int unix_connect(const char *path);
/* The same, with one look-up less for a socket that has stood there for a moment. */
int unix_connect_settled(const char *path);
/* Who listened (SO_PEERCRED); 0: a process that our PID namespace can't see. 0 or -errno. */
int unix_peer_pid(int fd, pid_t *ret);

/* One without a watch. The descriptor, or -errno. */
int inotify_take(void);
/* The operation is done with it and its watch (-1: it has none). */
void inotify_give(const fcproc_op *op, int *fd, int watch);

/* ---- what outlives its object: linger.c. Each owns what it is given ---- */

/* What a connection needs to outlive its request; NULL: no memory. To be freed if it is not used. self is
 * this process, as the caller knows: getpid is a system call. */
struct lingering;
struct lingering *linger_prepare(pid_t self);
/* Reads the answer that nobody waits for any more, then closes the connection. begun: some of it, maybe
 * all, has been read. Takes both, and can't fail. */
void linger_answer(struct lingering *e, int fd, bool begun);
/* Reaps the child when it ends. */
void linger_child(int pidfd);
/* Keeps an idle instance for a moment. */
void linger_inotify(int fd);
/* One that is idle, or -EBADF. */
int linger_take_inotify(void);

/* ---- /proc ---- */

struct proc_stat {
    char comm[16];
    char state;
    unsigned flags; /* PF_* */
    uint64_t start_time;
};
enum { PROC_FLAG_EXITING = 0x4 }; /* PF_EXITING, include/linux/sched.h */

/* The parsers return 0 or -errno. A process that is gone is -ESRCH. */
int proc_parse_stat(const char *text, struct proc_stat *ret);
int proc_read_stat(pid_t pid, struct proc_stat *ret);
int proc_read_boot_id(char ret[37]);
/* Does /proc show our own PID namespace? Else its numbers are not ours. 0, or a code. */
int proc_check_ours(const char *op, fcproc_error *err);
/* The argument after name ("--api-sock") in a NUL-separated command line, or NULL. */
const char *proc_argument_after(const char *cmdline, size_t len, const char *name);
/* The whole command line, malloc'ed; its length, or -errno. */
ssize_t proc_read_cmdline(pid_t pid, char **ret);

/* ---- processes ---- */

enum life { LIFE_ALIVE, LIFE_DEAD, LIFE_UNKNOWN };
/* What a call about a process says of it, by what it returned: 0 or more, or -errno. Every look at a
 * process asks here; -ESRCH is how the dead are told of further on. */
enum life life_of(int r);
/* r of a look by number at the process that is held. Not to be seen, though it lives, is -EACCES:
 * /proc hides it (hidepid), or is not mounted. */
int life_of_held(int pidfd, int r);
/* Did it fail for want of something of ours, whoever was looked at? */
bool is_shortage(int r);
/* The pidfd of whoever has the number, or -errno: -ESRCH when nobody has. */
int pidfd_open_number(pid_t pid);

fcproc_process *process_ref(fcproc_process *p);
/* Takes pidfd whatever happens. */
int process_new(pid_t pid, int pidfd, bool child, fcproc_process **ret, fcproc_error *err);
/* Completes a handle made before its process. Takes pidfd. */
void process_started(fcproc_process *p, pid_t pid, int pidfd, uint64_t start_time);
/* Collects a child's status if it has ended. 1: ended; 0: not yet, or somebody traces it, who comes
 * first: ptrace(2); -errno (-ECHILD: not ours). */
int process_reap(fcproc_process *p);
/* For an operation that watches p's pidfd: has p ended? 0: not yet. 1: it has, and how is known, or
 * was given up at *patience_ns, which stays with the operation and is 0 at first. */
int process_collect(fcproc_process *p, unsigned without, fcproc_op *op, int64_t *patience_ns);
struct fcproc_exit process_exit(const fcproc_process *p);
/* It is the one that was written down, not just who has its number. */
void process_set_recorded(fcproc_process *p);
/* 0: /proc tells. */
uint64_t process_start_time(const fcproc_process *p);
void process_set_start_time(fcproc_process *p, uint64_t start_time);
/* Dead, and what has its number now may be another? */
bool process_has_lost_its_number(const fcproc_process *p);
/* SIGKILL if it still runs, and have it reaped without waiting here. Consumes the reference. */
void process_abandon(fcproc_process *p);
bool pidfd_is_dead(int pidfd);

/* A child that waits at its gate (gate.c), until it is released or its handle closed: then it is
 * abandoned. */
struct spawn_gate;
void process_set_gate(fcproc_process *p, struct spawn_gate *gate,
                      void (*abandon)(struct spawn_gate *gate, fcproc_process *p));
struct spawn_gate *process_gate(const fcproc_process *p);

/* ---- threads and namespaces ---- */

/* Runs fn(arg) in a short-lived thread with all signals blocked, inside the namespace when ns_fd
 * is not negative, and waits for it. Returns fn's answer or -errno. */
int thread_call(int ns_fd, int (*fn)(void *), void *arg);
/* Starts such a thread. 0 or -errno. */
int thread_start(pthread_t *ret, int detach_state, void *(*fn)(void *), void *arg);
/* The same, and does not wait. fn owns arg. */
int thread_detach(void *(*fn)(void *), void *arg);
int enter_netns(int ns_fd);

/* Where links are made. Of a user's own namespace the one that it belongs to is entered first, and by
 * nobody who shares our memory: who is there may have capabilities over it. */
struct place {
    int net_fd;   /* negative: where the calling thread is */
    int user_fd;  /* negative: the right to enter it is ours */
    int alive_fd; /* of a user's own, what its holder lives by; else negative */
};
#define PLACE_INIT             \
    {                          \
        -EBADF, -EBADF, -EBADF \
    }
struct fcproc_netns {
    struct place place;
};
/* A copy of its own, which the caller closes. 0 or -errno, with nothing to close. */
int place_copy(const struct place *from, struct place *ret);
void place_close(struct place *place);
/* The program that enters a user's own namespaces; buf holds PATH_MAX bytes. 0 or a code. */
int rootless_program(char *buf, const char *op, fcproc_error *err);
/* Waits for what poll tells of the program's end of the conversation, through signals. 0 or -errno. */
int rootless_wait(int fd, int events);
/* Waits for the program's one line: 0: "0 ready"; an errno, with what failed in buf; -1: it has ended, or
 * says nothing. */
int rootless_report(int fd, char *buf, size_t size);
enum { ROOTLESS_REPORT = 512 };
/* Of a user's own namespace: a queue of descriptors that a program has opened there, of kinds as
 * descriptors.c has them, each with a number; -errno. They are in no table, ours or another's, until they
 * are taken. */
int inside_start(const struct place *place, const char *const *kinds);
/* The next one; why it could not be opened; or -EPIPE: that was all. */
int inside_take(int queue);
/* /dev/net/tun in a place that we may enter ourselves; or -errno. */
int tun_open(const struct place *place);

#endif
