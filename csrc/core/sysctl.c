/* SPDX-License-Identifier: MIT
 *
 * Numbers below /proc/sys/net, of the network namespace that a fcproc_net is for: the kernel shows
 * those of whoever opens the file, so a thread enters the namespace for it.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

#include "netlink.h"

struct access {
    char path[PATH_MAX];
    int set; /* negative: only looked at */
    int value;
};

static int access_run(void *arg)
{
    struct access *a = arg;
    cleanup_fd int fd = open(a->path, (a->set < 0 ? O_RDONLY : O_WRONLY) | O_CLOEXEC);
    char text[16], *end = NULL;
    ssize_t n;
    long value;

    if (fd < 0)
        return -errno;
    if (a->set >= 0) {
        n = snprintf(text, sizeof(text), "%d\n", a->set);
        return write(fd, text, (size_t)n) < 0 ? -errno : 0; /* all of it or nothing */
    }
    n = read(fd, text, sizeof(text) - 1);
    if (n < 0)
        return -errno;
    text[n] = '\0';
    value = strtol(text, &end, 10);
    if (end == text || value < 0 || value > INT_MAX)
        return -ERANGE;
    a->value = (int)value;
    return 0;
}

/* Nothing that leads out of the folder. */
static bool is_inside(const char *name)
{
    return *name && *name != '/' && !strstr(name, "..");
}

static int sysctl_access(fcproc_net *net, const char *name, int set, fcproc_error *err)
{
    static const char op[] = "net.sysctl";
    struct access a = { .set = set };
    int r = check_maker(net->pid, op, err);

    if (r < 0)
        return r;
    r = snprintf(a.path, sizeof(a.path), "/proc/sys/net/%s", name);
    if (!is_inside(name) || r < 0 || (size_t)r >= sizeof(a.path))
        return error_set(err, FCPROC_ERR_INVALID, op, 0, "'%s' is no name below /proc/sys/net",
                         name);
    if (net->place.user_fd >= 0)
        return error_set(err, FCPROC_ERR_UNSUPPORTED, op, 0,
                         "%s is of a user's own namespaces, which nobody enters", a.path);
    r = net->place.net_fd < 0 ? access_run(&a) : thread_call(net->place.net_fd, access_run, &a);
    if (r < 0)
        return error_errno(err, op, -r, "can't %s %s", set < 0 ? "read" : "write", a.path);
    return a.value;
}

FCPROC_API int fcproc_net_sysctl(fcproc_net *net, const char *name, fcproc_error *err)
{
    return sysctl_access(net, name, -1, err);
}

FCPROC_API int fcproc_net_set_sysctl(fcproc_net *net, const char *name, int value,
                                     fcproc_error *err)
{
    if (value < 0)
        return error_set(err, FCPROC_ERR_INVALID, "net.sysctl", 0, "%s can't be %d", name, value);
    return sysctl_access(net, name, value, err);
}
