/* SPDX-License-Identifier: MIT
 *
 * A file that is seen at a second place, read-only, where a hard link can't cross to another file system
 * and a copy would cost as much as the file: by a bind mount, made on descriptors alone.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include "file.h"

#define BOUND_ATTRS (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
#define BOUND_FLAGS (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)

/* Where a copy will do: no right to mount, or a kernel that can't. */
static int bind_failed(fcproc_error *err, int sys_errno, const char *from, const char *to)
{
    static const char op[] = "file.bind";

    if (sys_errno == EPERM || sys_errno == ENOSYS || sys_errno == EINVAL)
        return error_set(err, FCPROC_ERR_UNSUPPORTED, op, sys_errno,
                         "%.300s can't be mounted at %.300s: %s; copy it instead", from, to,
                         sys_errno == EPERM ? "that needs CAP_SYS_ADMIN"
                                            : "the kernel, or the mount that it is in, can't");
    return file_error(err, op, sys_errno, "can't mount %s at %s", from, to);
}

/* A mount of that file alone, which is nowhere yet. The descriptor, or -errno. */
static int detached_mount(int fd)
{
    struct mount_attr attr = { .attr_set = BOUND_ATTRS };
    int tree = (int)syscall(SYS_open_tree, fd, "",
                            OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);

    if (tree < 0)
        return -errno;
    /* Before 5.12 there is none: see fcproc_file_bind. */
    if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 &&
        errno != ENOSYS) {
        int r = -errno;
        close_fd(&tree);
        return r;
    }
    return tree;
}

/* The empty file that was made to mount on goes, unless something else has its name by now. */
static void drop_place(const struct split_path *to, int fd)
{
    struct stat made, there;

    if (fstat(fd, &made) == 0 && fstatat(to->dir_fd, to->base, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
        made.st_dev == there.st_dev && made.st_ino == there.st_ino)
        (void)unlinkat(to->dir_fd, to->base, 0);
}

FCPROC_API int fcproc_file_bind(const char *from, const struct fcproc_expected *expected,
                                const char *to, fcproc_error *err)
{
    static const char op[] = "file.bind";
    cleanup_fd int fd = file_open_source(op, from, expected, err);
    cleanup_fd int tree = -EBADF;
    cleanup_fd int place = -EBADF;
    cleanup_fd int above = -EBADF;
    struct split_path split;
    char by_fd[32];
    int r;

    if (fd < 0)
        return fd;
    r = path_split(to, &split);
    if (r < 0)
        return file_error(err, op, -r, "can't look at %s", to);
    above = split.dir_fd;
    tree = detached_mount(fd);
    if (tree < 0)
        return bind_failed(err, -tree, from, to);
    place = openat(above, split.base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0400);
    if (place < 0)
        return file_error(err, op, errno, "can't make %s", to);
    if (syscall(SYS_move_mount, tree, "", place, "",
                MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0) {
        r = errno;
        drop_place(&split, place);
        return bind_failed(err, r, from, to);
    }
    (void)snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", tree);
    if (mount(NULL, by_fd, NULL, MS_REMOUNT | MS_BIND | BOUND_FLAGS, NULL) < 0) {
        r = errno;
        (void)umount2(by_fd, MNT_DETACH);
        drop_place(&split, place);
        return bind_failed(err, r, from, to);
    }
    return 0;
}

FCPROC_API int fcproc_file_unbind(const char *path, bool *ret_removed, fcproc_error *err)
{
    static const char op[] = "file.unbind";
    cleanup_fd int above = -EBADF;
    cleanup_fd int fd = -EBADF;
    struct split_path split;
    struct statx stx;
    char by_fd[32 + NAME_MAX + 1];
    int r = path_split(path, &split);

    *ret_removed = false;
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return file_error(err, op, -r, "can't look at %s", path);
    above = split.dir_fd;
    fd = openat(above, split.base, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 || statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &stx) < 0)
        return file_error(err, op, errno, "can't look at %s", path);
    if (!S_ISREG(stx.stx_mode) || !(stx.stx_attributes & STATX_ATTR_MOUNT_ROOT))
        return 0;
    close_fd(&fd);
    if (strlen(split.base) > NAME_MAX)
        return file_error(err, op, ENAMETOOLONG, "can't look at %s", path);
    (void)snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d/%s", above, split.base);
    /* Whoever has it open keeps it. */
    if (umount2(by_fd, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
        return file_error(err, op, errno, "can't unmount %s", path);
    *ret_removed = true;
    return 0;
}
