/* SPDX-License-Identifier: MIT
 *
 * A lock on a file of its own, which the kernel gives up when its holder dies, however it dies.
 */
#include <fcntl.h>
#include <stdio.h>

#include "file.h"

struct fcproc_lock {
    pid_t pid; /* who holds it */
    int fd;
    dev_t dev;
    ino_t ino;
    char path[];
};

enum { MOST_TRIES = 100 };

/* Does the path still name the file that is open? */
static bool is_at_path(const fcproc_lock *lock)
{
    struct stat st;

    return lstat(lock->path, &st) == 0 && st.st_dev == lock->dev && st.st_ino == lock->ino;
}

/* Open-file-description locks, fcntl(2): the holder is our one descriptor, and others may ask. */
static const struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

/* 1: held; 0: the file that was locked is not at the path any more; a code. */
static int try_lock(fcproc_lock *lock, mode_t mode, bool *ret_created, fcproc_error *err)
{
    static const char op[] = "file.lock";
    enum { FLAGS = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC };
    struct stat st;

    lock->fd = open(lock->path, FLAGS | O_EXCL, mode);
    TELL(ret_created, lock->fd >= 0);
    if (lock->fd < 0 && errno == EEXIST)
        lock->fd = open(lock->path, FLAGS, mode);
    if (lock->fd < 0)
        return file_error(err, op, errno, "can't open the lock file %s", lock->path);
    if (fstat(lock->fd, &st) < 0)
        return file_error(err, op, errno, "can't look at the lock file %s", lock->path);
    if (!S_ISREG(st.st_mode))
        return file_conflict(err, op, st.st_mode, "a lock file", lock->path);
    lock->dev = st.st_dev;
    lock->ino = st.st_ino;
    while (fcntl(lock->fd, F_OFD_SETLK, &whole) < 0) {
        if (errno == EAGAIN || errno == EACCES)
            return error_set(err, FCPROC_ERR_BUSY, op, errno,
                             "somebody else holds the lock %s; wait until they are done",
                             lock->path);
        if (errno != EINTR)
            return file_error(err, op, errno, "can't lock %s", lock->path);
    }
    /* Its holder may have removed it between our open and our lock: then the next one locks a
     * new file, and both of us would think we have it. */
    return is_at_path(lock);
}

FCPROC_API int fcproc_lock_open(const char *path, mode_t mode, fcproc_lock **ret, bool *ret_created,
                                fcproc_error *err)
{
    size_t size = strlen(path) + 1;
    fcproc_lock *lock = malloc(sizeof(*lock) + size);
    int r = 0;

    if (!lock)
        return error_nomem(err, "file.lock");
    lock->fd = -EBADF;
    lock->pid = getpid();
    memcpy(lock->path, path, size);
    for (int i = 0; r == 0 && i < MOST_TRIES; i++) {
        close_fd(&lock->fd);
        r = try_lock(lock, mode, ret_created, err);
    }
    if (r == 0)
        r = error_set(err, FCPROC_ERR_BUSY, "file.lock", 0,
                      "the lock %s is taken and removed all the time; try again", path);
    if (r < 0) {
        close_fd(&lock->fd);
        free(lock);
        return r;
    }
    *ret = lock;
    return 0;
}

FCPROC_API int fcproc_lock_taken(const char *path, bool *ret, fcproc_error *err)
{
    static const char op[] = "file.lock";
    cleanup_fd int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct flock seen = whole;

    *ret = false;
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0)
        return file_error(err, op, errno, "can't open the lock file %s", path);
    if (fcntl(fd, F_OFD_GETLK, &seen) < 0)
        return file_error(err, op, errno, "can't look at the lock %s", path);
    *ret = seen.l_type != F_UNLCK;
    return 0;
}

FCPROC_API int fcproc_lock_remove(fcproc_lock *lock, fcproc_error *err)
{
    int r = check_maker(lock->pid, "lock.remove", err);

    if (r == 0 && is_at_path(lock) && unlink(lock->path) < 0 && errno != ENOENT)
        r = file_error(err, "lock.remove", errno, "can't remove the lock file %s", lock->path);
    fcproc_lock_close(lock);
    return r;
}

FCPROC_API void fcproc_lock_close(fcproc_lock *lock)
{
    if (!lock)
        return;
    /* Not by close alone: a child of the caller that is about to exec has the descriptor too. In a fork
     * it would be our lock that is given up. */
    if (lock->pid == getpid())
        (void)fcntl(lock->fd, F_OFD_SETLK,
                    &(struct flock){ .l_type = F_UNLCK, .l_whence = SEEK_SET });
    close_fd(&lock->fd);
    free(lock);
}
