/* SPDX-License-Identifier: MIT
 *
 * Short-lived threads with all signals blocked, and network namespaces entered in them: the
 * caller's own thread never changes its namespace.
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/vfs.h>

#include "private.h"

enum { THREAD_STACK_SIZE = 256 * 1024 };

int thread_start(pthread_t *thread, int detached, void *(*fn)(void *), void *arg)
{
    pthread_attr_t attr;
    sigset_t all, before;
    int r;

    r = pthread_attr_init(&attr);
    if (r != 0)
        return -r;
    (void)pthread_attr_setdetachstate(&attr, detached);
    (void)pthread_attr_setstacksize(&attr, THREAD_STACK_SIZE);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited by the thread from birth */
    r = pthread_create(thread, &attr, fn, arg);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attr);
    return -r;
}

int thread_detach(void *(*fn)(void *), void *arg)
{
    pthread_t thread;

    return thread_start(&thread, PTHREAD_CREATE_DETACHED, fn, arg);
}

int enter_netns(int ns_fd)
{
    return ns_fd >= 0 && setns(ns_fd, CLONE_NEWNET) < 0 ? -errno : 0;
}

struct thread_call {
    int ns_fd;
    int (*fn)(void *);
    void *arg;
    int result;
};

static void *thread_call_main(void *arg)
{
    struct thread_call *call = arg;

    call->result = enter_netns(call->ns_fd);
    if (call->result == 0)
        call->result = call->fn(call->arg);
    return NULL;
}

int thread_call(int ns_fd, int (*fn)(void *), void *arg)
{
    struct thread_call call = { .ns_fd = ns_fd, .fn = fn, .arg = arg };
    pthread_t thread;
    int r = thread_start(&thread, PTHREAD_CREATE_JOINABLE, thread_call_main, &call);

    if (r < 0)
        return r;
    (void)pthread_join(thread, NULL);
    return call.result;
}

static int copy_fd(int fd, int *ret)
{
    if (fd < 0)
        return 0;
    *ret = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return *ret < 0 ? -errno : 0;
}

int place_copy(const struct place *from, struct place *ret)
{
    int r;

    *ret = (struct place)PLACE_INIT;
    r = copy_fd(from->net_fd, &ret->net_fd);
    if (r == 0)
        r = copy_fd(from->user_fd, &ret->user_fd);
    if (r == 0)
        r = copy_fd(from->alive_fd, &ret->alive_fd);
    if (r < 0)
        place_close(ret);
    return r;
}

void place_close(struct place *place)
{
    close_fd(&place->net_fd);
    close_fd(&place->user_fd);
    close_fd(&place->alive_fd);
}

/* ioctl_ns(2) */
#ifndef NS_GET_USERNS
#define NS_GET_USERNS    _IO(0xb7, 0x1)
#define NS_GET_NSTYPE    _IO(0xb7, 0x3)
#define NS_GET_OWNER_UID _IO(0xb7, 0x4)
#endif

/* The user namespace that it belongs to, when we have made that and have no right of our own to enter:
 * then its descriptor; else -EBADF. */
static int own_user_namespace(int net_fd)
{
    cleanup_fd int user_fd = ioctl(net_fd, NS_GET_USERNS);
    uid_t owner;
    struct stat ours, its;

    if (geteuid() == 0 || user_fd < 0 || ioctl(user_fd, NS_GET_OWNER_UID, &owner) < 0 ||
        owner != geteuid() || stat("/proc/self/ns/user", &ours) < 0 || fstat(user_fd, &its) < 0 ||
        (ours.st_dev == its.st_dev && ours.st_ino == its.st_ino))
        return -EBADF;
    return take_fd(&user_fd);
}

static int netns_wrap(int fd, fcproc_netns **ret, fcproc_error *err)
{
    fcproc_netns *ns = malloc(sizeof(*ns));

    if (!ns) {
        close_fd(&fd);
        return error_nomem(err, "netns");
    }
    ns->place = (struct place)PLACE_INIT;
    ns->place.net_fd = fd;
    ns->place.user_fd = own_user_namespace(fd);
    *ret = ns;
    return 0;
}

/* Only what is on nsfs is opened: to open a FIFO waits, and a device may do anything. The descriptor;
 * -ENOTTY: it is something else; or -errno. */
static int open_namespace(const char *path)
{
    cleanup_fd int fd = open(path, O_PATH | O_CLOEXEC);
    struct statfs fs;
    char by_fd[32];
    int opened;

    if (fd < 0 || fstatfs(fd, &fs) < 0)
        return -errno;
    if (fs.f_type != NSFS_MAGIC)
        return -ENOTTY;
    (void)snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", fd);
    opened = open(by_fd, O_RDONLY | O_CLOEXEC);
    return opened < 0 ? -errno : opened;
}

FCPROC_API int fcproc_netns_open(const char *name, fcproc_netns **ret, fcproc_error *err)
{
    static const char op[] = "netns.open";
    char path[PATH_MAX];
    int fd;

    if (name[0] == '\0' ||
        snprintf(path, sizeof(path), "%s%s", strchr(name, '/') ? "" : "/run/netns/", name) >=
            (int)sizeof(path))
        return error_set(err, FCPROC_ERR_INVALID, op, 0, "no usable namespace name: '%s'", name);
    fd = open_namespace(path);
    if (fd < 0 && fd != -ENOTTY)
        return error_errno(err, op, -fd, "no network namespace at %s", path);
    if (fd < 0 || ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET) {
        close_fd(&fd);
        return error_set(err, FCPROC_ERR_INVALID, op, 0, "%s is no network namespace", path);
    }
    return netns_wrap(fd, ret, err);
}

static int loopback_up(void)
{
    cleanup_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };

    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) < 0)
        return -errno;
    return 0;
}

static int unshare_here(void *arg)
{
    int *ret_fd = arg;
    cleanup_fd int fd = -EBADF;
    int r;

    if (unshare(CLONE_NEWNET) < 0)
        return -errno;
    r = loopback_up();
    if (r < 0)
        return r;
    fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    *ret_fd = take_fd(&fd);
    return 0;
}

FCPROC_API int fcproc_netns_new(fcproc_netns **ret, fcproc_error *err)
{
    int fd = -EBADF;
    int r = thread_call(-1, unshare_here, &fd);

    if (r < 0)
        return error_errno(err, "netns.new", -r, "can't make a network namespace");
    return netns_wrap(fd, ret, err);
}

FCPROC_API int fcproc_netns_fd(const fcproc_netns *ns)
{
    return ns->place.net_fd;
}

FCPROC_API bool fcproc_netns_is_rootless(const fcproc_netns *ns)
{
    return ns->place.user_fd >= 0;
}

FCPROC_API int fcproc_netns_keep(fcproc_netns *ns, const char *fifo, fcproc_error *err)
{
    static const char op[] = "netns.keep";
    cleanup_fd int fd = open(fifo, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    if (fd < 0)
        return error_errno(err, op, errno, "can't open %s, by which the namespace's holder lives%s",
                           fifo, errno == ENXIO ? " (there is no holder)" : "");
    if (fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode))
        return error_set(err, FCPROC_ERR_CONFLICT, op, 0, "%s is no FIFO", fifo);
    close_fd(&ns->place.alive_fd);
    ns->place.alive_fd = take_fd(&fd);
    return 0;
}

FCPROC_API void fcproc_netns_close(fcproc_netns *ns)
{
    if (!ns)
        return;
    place_close(&ns->place);
    free(ns);
}
