/* SPDX-License-Identifier: MIT
 *
 * The holder of a namespace: an ordinary process outside of it that has it open, and is the parent of
 * what gives it its uplink. It makes no call for anybody. When nobody has the FIFO open for writing any
 * more, which each manager and each VMM of the namespace has, it ends, and with it all that is there.
 *
 * Who comes to use it holds the lock meanwhile, so that it does not end just then.
 */
#include "rootless.h"

#include <fcntl.h>
#include <linux/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* Where others find it: /proc/PID/fd/3 and 4; and at 6 a pidfd of what gives the uplink, whose
 * /proc/PID/fdinfo/6 tells who it is, or that it has ended. */
enum { USER_FD = 3, NET_FD = 4, REPORT_FD = 5, UPLINK_FD = 6 };
enum { MEMBER_SECONDS = 10 };

static void write_file(const char *path, const char *format, unsigned id)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || dprintf(fd, format, id) < 0)
        fail("can't write %s", path);
    (void)close(fd);
}

/* Its own loopback is up, and it forwards for its guests: all that is its user's to say. */
static void set_up_network(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };

    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) < 0)
        fail("can't bring the loopback up");
    (void)close(fd);
    write_file("/proc/sys/net/ipv4/ip_forward", "%u", 1);
}

static void make_namespaces(void)
{
    unsigned uid = geteuid(), gid = getegid();

    if (unshare(CLONE_NEWUSER) < 0)
        fail("can't make a user namespace");
    write_file("/proc/self/setgroups", "deny", 0);
    write_file("/proc/self/uid_map", "0 %u 1", uid);
    write_file("/proc/self/gid_map", "0 %u 1", gid);
    if (unshare(CLONE_NEWNET) < 0)
        fail("can't make a network namespace");
    set_up_network();
    /* Who is here makes no user namespace of his own, in which he would have every capability. */
    write_file("/proc/sys/user/max_user_namespaces", "%u", 0);
}

static void open_at(const char *format, int pid, int number)
{
    char path[64];
    int fd;

    (void)snprintf(path, sizeof(path), format, pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (fd != number && dup3(fd, number, O_CLOEXEC) < 0))
        fail("can't open %s", path);
    if (fd != number)
        (void)close(fd);
}

/* A process that is in the namespaces for a while: by it we open them, and so does what gives them their
 * uplink, since it is in there already when it comes to the second, and from there can't look at us. */
static pid_t start_member(bool making)
{
    int ready[2];
    char byte;
    pid_t pid;

    if (pipe2(ready, O_CLOEXEC) < 0)
        fail("can't make a pipe");
    pid = fork();
    if (pid < 0)
        fail("can't start a process");
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (making)
            make_namespaces();
        else
            enter_namespaces(USER_FD, NET_FD);
        if (write(ready[1], "", 1) != 1)
            fail("can't say that the namespaces are there");
        (void)alarm(MEMBER_SECONDS);
        for (;;)
            (void)pause();
    }
    (void)close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        exit(127); /* it has told why */
    (void)close(ready[0]);
    return pid;
}

/* What gives the namespace its uplink: it ends with us. It is told where the namespaces are. Its pidfd. */
static int start_uplink(int argc, char **argv, pid_t member)
{
    enum { MOST = 64, OURS = 6 };
    char user[48], net[48], *command[MOST + OURS];
    pid_t us = getpid(), pid;

    if (argc > MOST) {
        errno = E2BIG;
        fail("too many arguments of %s", argv[0]);
    }
    memcpy(command, argv, (size_t)argc * sizeof(*argv));
    (void)snprintf(user, sizeof(user), "/proc/%d/ns/user", member);
    (void)snprintf(net, sizeof(net), "/proc/%d/ns/net", member);
    command[argc++] = "--userns";
    command[argc++] = user;
    command[argc++] = "--netns";
    command[argc++] = net;
    command[argc] = NULL;
    pid = fork();
    if (pid < 0)
        fail("can't start a process");
    if (pid > 0)
        return (int)syscall(SYS_pidfd_open, pid, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != us)
        _exit(127);
    (void)execv(command[0], command);
    _exit(127);
}

/* Is there nobody for whom we are here? */
static bool is_unused(int fifo)
{
    struct pollfd p = { .fd = fifo };

    return poll(&p, 1, 0) > 0 && (p.revents & POLLHUP);
}

/* While we have it nobody comes to use the namespace. */
static int lock(const char *path)
{
    struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    /* One that can't be locked was removed, with its folder. */
    while (fd >= 0 && fcntl(fd, F_OFD_SETLKW, &whole) < 0 && errno == EINTR) { }
    return fd;
}

/* Which has no writer: we are one once, since without any ever there is no end of file either. */
static int open_fifo(const char *path)
{
    int fifo = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    int end = fifo < 0 ? -1 : open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);

    if (end < 0)
        fail("can't open %s", path);
    (void)close(end);
    end = fcntl(fifo, F_DUPFD_CLOEXEC, UPLINK_FD + 1); /* out of the others' places */
    if (end < 0)
        fail("can't keep %s", path);
    (void)close(fifo);
    return end;
}

int hold_main(int argc, char **argv)
{
    struct pollfd p = { .events = 0 };
    pid_t member = -1;
    int uplink = -1;
    bool making;

    if (argc < 3) {
        errno = EINVAL;
        fail("too few arguments");
    }
    report_fd = REPORT_FD;
    for (int fd = USER_FD; fd <= REPORT_FD; fd++)
        close_on_exec(fd);
    p.fd = open_fifo(argv[0]);
    making = strcmp(argv[2], "make") == 0;
    if (making || argc > 3)
        member = start_member(making);
    if (making) {
        open_at("/proc/%d/ns/user", member, USER_FD);
        open_at("/proc/%d/ns/net", member, NET_FD);
    }
    if (argc > 3) {
        uplink = start_uplink(argc - 3, argv + 3, member);
        if (uplink < 0)
            fail("can't hold what gives the uplink");
    } else if (member > 0)
        (void)kill(member, SIGKILL);
    /* From here on who ends needs nobody to wait for it. */
    (void)signal(SIGCHLD, SIG_IGN);
    while (waitpid(-1, NULL, WNOHANG) > 0) { }
    if (uplink >= 0 && uplink != UPLINK_FD && dup3(uplink, UPLINK_FD, O_CLOEXEC) < 0)
        fail("can't keep what gives the uplink");
    (void)dprintf(REPORT_FD, "0 ready");
    (void)close(REPORT_FD);
    for (;;) {
        int held;

        if (poll(&p, 1, -1) < 0 && errno != EINTR)
            return 1;
        if (!is_unused(p.fd))
            continue;
        held = lock(argv[1]);
        if (is_unused(p.fd))
            return 0;
        if (held >= 0)
            (void)close(held);
    }
}
