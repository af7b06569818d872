/* SPDX-License-Identifier: MIT
 *
 * What the host can do, found out by doing it: KVM, TAP devices, room on a disk, shared blocks.
 * Nothing is left behind.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

/* The kernel's headers come last: net/if.h and linux/if.h exclude each other the other way. */
#include <net/if.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>

#include "file.h"

enum { CLONED_BYTES = 64 * 1024 }; /* more than a file system keeps inside an inode */

FCPROC_API uid_t fcproc_own_uid(void)
{
    return geteuid();
}

FCPROC_API int fcproc_uid_in_use(uid_t uid, bool *ret, fcproc_error *err)
{
    /* For getpriority(2) 0 means the caller. */
    *ret = uid == 0;
    if (*ret)
        return 0;
    errno = 0;
    (void)getpriority(PRIO_USER, uid); /* -1 is a priority, too */
    if (errno != 0 && errno != ESRCH)
        return error_errno(err, "uid.find", errno, "can't look for processes of uid %u", uid);
    *ret = errno == 0;
    return 0;
}

FCPROC_API int fcproc_kvm_check(const char *path, fcproc_error *err)
{
    static const char op[] = "kvm.check";
    cleanup_fd int fd = open(path, O_RDWR | O_CLOEXEC), vm = -EBADF;
    int version;

    if (fd < 0)
        return error_errno(err, op, errno, "can't open %s", path);
    version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version < 0)
        return error_set(err, FCPROC_ERR_UNSUPPORTED, op, errno, "%s is not KVM", path);
    /* It has been 12 since Linux 2.6.22, and the manual tells to refuse any other. */
    if (version != KVM_API_VERSION)
        return error_set(err, FCPROC_ERR_UNSUPPORTED, op, 0,
                         "%s speaks version %d of the KVM interface, not %d", path, version,
                         KVM_API_VERSION);
    /* Only who makes a VM learns whether the processor's virtualization is to be had. */
    do
        vm = ioctl(fd, KVM_CREATE_VM, 0);
    while (vm < 0 && errno == EINTR);
    if (vm < 0)
        return error_errno(
            err, op, errno, "%s opens and makes no VM%s", path,
            errno == EBUSY ? " (another hypervisor, as VirtualBox or VMware, has the processor's "
                             "virtualization: end its machines, or unload its module)"
                           : "");
    return 0;
}

FCPROC_API int fcproc_tun_check(const char *path, fcproc_error *err)
{
    static const char op[] = "tun.check";
    cleanup_fd int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    unsigned features = 0;

    if (fd < 0)
        return error_errno(err, op, errno, "can't open %s", path);
    if (ioctl(fd, TUNGETFEATURES, &features) < 0)
        return error_set(err, FCPROC_ERR_UNSUPPORTED, op, errno, "%s makes no TAP devices", path);
    if (!(features & IFF_TAP) || !(features & IFF_VNET_HDR))
        return error_set(err, FCPROC_ERR_UNSUPPORTED, op, 0,
                         "%s has no TAP devices with a vnet header, which Firecracker needs", path);
    return 0;
}

static int64_t bytes_of(fsblkcnt_t blocks, unsigned long size)
{
    int64_t bytes;

    return __builtin_mul_overflow(blocks, size, &bytes) ? INT64_MAX : bytes;
}

FCPROC_API int fcproc_disk_free(const char *path, struct fcproc_disk *ret, fcproc_error *err)
{
    struct statvfs st;

    if (statvfs(path, &st) < 0)
        return error_errno(err, "disk.free", errno, "can't look at the disk of %s", path);
    ret->free_bytes = bytes_of(st.f_bavail, st.f_frsize);
    ret->total_bytes = bytes_of(st.f_blocks, st.f_frsize);
    ret->free_files = st.f_files ? (int64_t)st.f_favail : -1;
    return 0;
}

/* A file in the folder that has no name any more when this returns. Its descriptor or -errno. */
static int nameless_file(const char *folder)
{
    cleanup_free char *path = NULL;
    cleanup_fd int fd = -EBADF;

    /* Not O_TMPFILE: network and stacked file systems that share blocks may lack it. */
    if (asprintf(&path, "%s/.fcproc-XXXXXX", folder) < 0) {
        path = NULL;
        return -ENOMEM;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0 || unlink(path) < 0)
        return -errno;
    return take_fd(&fd);
}

FCPROC_API int fcproc_reflink_check(const char *folder, fcproc_error *err)
{
    static const char op[] = "reflink.check";
    static const char data[CLONED_BYTES] = { 1 };
    cleanup_fd int from = nameless_file(folder);
    cleanup_fd int to = from < 0 ? from : nameless_file(folder);
    int r;

    if (to < 0)
        return error_errno(err, op, -to, "can't make a file in %s", folder);
    r = file_write_all(from, data, sizeof(data));
    if (r < 0)
        return error_errno(err, op, -r, "can't write a file in %s", folder);
    if (ioctl(to, FICLONE, from) == 0)
        return 0;
    switch (errno) {
    case EOPNOTSUPP:
    case ENOTTY:
    case EINVAL:
    case EXDEV:
    case ENOSYS:
        return error_set(err, FCPROC_ERR_UNSUPPORTED, op, errno,
                         "the file system of %s can't share blocks between files", folder);
    default:
        return error_errno(err, op, errno, "can't clone a file in %s", folder);
    }
}
