/* SPDX-License-Identifier: MIT
 *
 * The runtime folder, and paths made absolute.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "file.h"

static int make_parents(const char *path)
{
    cleanup_free char *copy = strdup(path);

    if (!copy)
        return -ENOMEM;
    for (char *p = copy + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(copy, 0700) < 0 && errno != EEXIST)
            return -errno;
        *p = '/';
    }
    return 0;
}

/* Does the folder hold things of others? Ours has .fcproc in it, or .host with the host's leases, or
 * nothing yet. 1, 0 or a code. */
static int holds_others(const char *path, fcproc_error *err)
{
    cleanup_free struct fcproc_dir_entry *list = NULL;
    size_t n = 0;
    int r = fcproc_dir_list(path, &list, &n, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].name, ".fcproc") == 0 || strcmp(list[i].name, ".host") == 0)
            return 0;
    return n > 0;
}

static int cannot_make(const char *what, const char *path, int sys_errno, fcproc_error *err)
{
    int code = error_errno(err, "socket_dir.ensure", sys_errno, "can't make %s%s", what, path);

    if (sys_errno == EACCES || sys_errno == EROFS)
        error_append(err, "; choose another runtime_dir");
    return code;
}

FCPROC_API int fcproc_socket_dir(const char *path, bool *ret_changed, fcproc_error *err)
{
    static const char op[] = "socket_dir.ensure";
    cleanup_fd int above = -EBADF;
    cleanup_fd int fd = -EBADF;
    char base[PATH_MAX];
    bool changed = false;
    struct stat st;
    int r;

    above = folder_open_above(op, path, base, err);
    if (above == FCPROC_ERR_NOT_FOUND) {
        r = make_parents(path);
        if (r < 0)
            return cannot_make("the parents of the runtime folder ", path, -r, err);
        above = folder_open_above(op, path, base, err);
    }
    if (above < 0)
        return above;
    if (mkdirat(above, base, 0700) == 0)
        changed = true;
    else if (errno != EEXIST) /* EEXIST: another process may have been faster */
        return cannot_make("the runtime folder ", path, errno, err);
    fd = openat(above, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
        return error_set(err, FCPROC_ERR_CONFLICT, op, errno,
                         "%s is no folder of its own but a link or a file; remove it or choose "
                         "another runtime_dir",
                         path);
    if (fd < 0 && errno == EACCES && fstatat(above, base, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        st.st_uid != geteuid())
        return error_set(
            err, FCPROC_ERR_PERMISSION, op, EACCES,
            "the runtime folder %s belongs to uid %u, and this is uid %u; choose another "
            "runtime_dir, or do this as that user",
            path, st.st_uid, geteuid());
    if (fd < 0)
        return error_errno(err, op, errno, "can't open the runtime folder %s", path);
    if (fstat(fd, &st) < 0)
        return error_errno(err, op, errno, "can't look at the runtime folder %s", path);
    if (st.st_uid != geteuid())
        return error_set(err, FCPROC_ERR_CONFLICT, op, 0,
                         "the runtime folder %s belongs to uid %u, not to us (uid %u); choose "
                         "another runtime_dir",
                         path, st.st_uid, geteuid());
    /* /tmp, /etc and their like: taken from the others, it would break the host. */
    r = (st.st_mode & 07777) == 0700 ? 0 : holds_others(path, err);
    if (r < 0)
        return r;
    if (r > 0 || (st.st_mode & S_ISVTX))
        return error_set(err, FCPROC_ERR_CONFLICT, op, 0,
                         "%s is shared with others (mode %04o) and is left as it is; choose a "
                         "runtime_dir of its own, such as %s/fcproc",
                         path, st.st_mode & 07777U, path);
    if ((st.st_mode & 07777) != 0700) {
        if (fchmod(fd, 0700) < 0)
            return error_errno(err, op, errno, "can't make the runtime folder %s private", path);
        changed = true;
    }
    if (ret_changed)
        *ret_changed = changed;
    return 0;
}

FCPROC_API int fcproc_absolute_path(const char *path, char *buf, fcproc_error *err)
{
    if (!realpath(path, buf))
        return error_errno(err, "path.absolute", errno, "can't find %s", path);
    return 0;
}
