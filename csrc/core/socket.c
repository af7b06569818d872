/* SPDX-License-Identifier: MIT
 *
 * Unix sockets: connecting at any path depth, and setting who may use one.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

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

static int unix_connect_address(const struct sockaddr_un *address)
{
    cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
        return -errno;
    return take_fd(&fd);
}

int unix_path_at(const struct split_path *at, char *buf, size_t size)
{
    int len = snprintf(buf, size, "/proc/self/fd/%d/%s", at->dir_fd, at->base);

    return (size_t)len >= size ? -ENAMETOOLONG : 0;
}

int unix_connect(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct split_path split;
    size_t len = strlen(path);
    int r;

    if (len == 0)
        return -ENOENT; /* an empty sun_path would be an abstract address */
    if (len < sizeof(address.sun_path)) {
        memcpy(address.sun_path, path, len + 1);
        return unix_connect_address(&address);
    }
    r = path_split(path, &split);
    if (r < 0)
        return r;
    r = unix_path_at(&split, address.sun_path, sizeof(address.sun_path));
    if (r == 0)
        r = unix_connect_address(&address);
    close_fd(&split.dir_fd);
    return r;
}

FCPROC_API int fcproc_socket_access(const char *path, int64_t want_uid, int64_t want_gid,
                                    bool *ret_changed, fcproc_error *err)
{
    static const char op[] = "socket.access";
    uid_t uid = want_uid < 0 ? geteuid() : (uid_t)want_uid;
    gid_t gid = want_gid < 0 ? getegid() : (gid_t)want_gid;
    cleanup_fd int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    char by_fd[32];
    struct stat st;
    bool changed = false;

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
        (void)snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", fd);
        if (chmod(by_fd, 0600) < 0)
            return error_errno(err, op, errno, "can't set mode 0600 on the socket %s", path);
        changed = true;
    }
    if (ret_changed)
        *ret_changed = changed;
    return 0;
}
