/* SPDX-License-Identifier: MIT
 *
 * Unix sockets: connecting at any path depth and never through a symbolic link, and setting who may
 * use one.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "private.h"

int path_split(const char *path, struct split_path *ret)
{
    const char *slash = strrchr(path, '/');
    cleanup_free char *folder = NULL;
    int fd;

    if (slash) {
        folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
        if (!folder)
            return -ENOMEM;
    }
    fd = open(folder ? folder : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ret->dir_fd = fd;
    ret->base = slash ? slash + 1 : path;
    return 0;
}

int unix_open_at(int dir_fd, const char *name, struct stat *ret)
{
    cleanup_fd int fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (S_ISLNK(st.st_mode))
        return -ELOOP;
    if (!S_ISSOCK(st.st_mode))
        return -ENOTSOCK;
    if (ret)
        *ret = st;
    return take_fd(&fd);
}

void unix_link(int socket_fd, char buf[SOCKET_LINK_SIZE])
{
    (void)snprintf(buf, SOCKET_LINK_SIZE, "/proc/self/fd/%d", socket_fd);
}

static int connect_to(const struct sockaddr_un *address)
{
    cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
        return -errno;
    return take_fd(&fd);
}

int unix_connect(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    cleanup_fd int socket_fd = unix_open_at(AT_FDCWD, path, NULL);

    if (socket_fd < 0)
        return socket_fd == -ENOTSOCK ? -ECONNREFUSED : socket_fd; /* as connect(2) says */
    unix_link(socket_fd, address.sun_path);
    return connect_to(&address);
}

/* Was the file changed before that time of the kernel's coarse clock, beyond doubt? A change that comes
 * later is stamped with that clock or a finer one, which is at most cut to what the file system keeps:
 * whole seconds, or some tenths of a microsecond. */
static bool is_older(const struct timespec *changed, const struct timespec *time)
{
    enum { MARGIN_NS = 10 * NS_PER_MS };
    int64_t seconds = (int64_t)time->tv_sec - changed->tv_sec;

    if (changed->tv_nsec == 0)
        return seconds > 0;
    return seconds > 1 ||
           (seconds >= 0 &&
            seconds * 1000 * NS_PER_MS + time->tv_nsec - changed->tv_nsec > MARGIN_NS);
}

/* A file that comes to stand at a path gets there by its creation, a rename or a link, and each of
 * them changes its ctime. So a socket that is at the path after the connect, with a ctime from
 * before, was there all the time, and no link was followed. */
int unix_connect_settled(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    size_t len = strlen(path);
    cleanup_fd int fd = -EBADF;
    struct timespec before;
    struct stat st;

    if (len == 0 || len >= sizeof(address.sun_path))
        return unix_connect(path);
    memcpy(address.sun_path, path, len + 1);
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &before);
    fd = connect_to(&address);
    if (fd >= 0 && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && is_older(&st.st_ctim, &before))
        return take_fd(&fd);
    close_fd(&fd);
    return unix_connect(path);
}

int unix_peer_pid(int fd, pid_t *ret)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return -errno;
    *ret = peer.pid;
    return 0;
}

FCPROC_API int fcproc_socket_access(const char *path, int64_t want_uid, int64_t want_gid,
                                    bool *ret_changed, fcproc_error *err)
{
    static const char op[] = "socket.access";
    uid_t uid = want_uid < 0 ? geteuid() : (uid_t)want_uid;
    gid_t gid = want_gid < 0 ? getegid() : (gid_t)want_gid;
    cleanup_fd int fd = -EBADF;
    char by_fd[SOCKET_LINK_SIZE];
    struct stat st;
    bool changed = false;
    int r = ids_check(op, want_uid, want_gid, err);

    if (r < 0)
        return r;
    fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, op, errno, "can't open the socket %s", path);
    if (fstat(fd, &st) < 0)
        return error_errno(err, op, errno, "can't look at the socket %s", path);
    if (!S_ISSOCK(st.st_mode))
        return error_set(err, FCPROC_ERR_CONFLICT, op, 0,
                         "%s is not a socket but a %s; left untouched", path,
                         S_ISLNK(st.st_mode) ? "symbolic link" : "file of another kind");
    if (st.st_uid != uid || st.st_gid != gid) {
        if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0)
            return error_errno(err, op, errno, "can't give the socket %s (of uid %u) to %u:%u",
                               path, st.st_uid, uid, gid);
        changed = true;
    }
    if ((st.st_mode & 07777) != 0600) {
        /* fchmod refuses an O_PATH descriptor, and fchmodat2 came with 6.6: go by its link. */
        unix_link(fd, by_fd);
        if (chmod(by_fd, 0600) < 0)
            return error_errno(err, op, errno, "can't set mode 0600 on the socket %s", path);
        changed = true;
    }
    if (ret_changed)
        *ret_changed = changed;
    return 0;
}
