/* SPDX-License-Identifier: MIT
 *
 * The file that an image becomes. Until it is published it has no name, so that whatever ends the build
 * leaves nothing; then it has its own at once, and is on the disk. All by the folder's descriptor.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>

#include "job.h"
#include "target.h"

static const char OPEN[] = "image.target", PUBLISH[] = "image.publish";

static const char PREFIX[] = ".fcproc-target-";

enum { TEMPORARY_SIZE = sizeof(PREFIX) + 16 };

struct fcproc_image_target {
    atomic_uint references; /* the handle's, and each job's */
    pid_t maker;
    int folder, fd;
    char *path;
    const char *name;               /* in path */
    char temporary[TEMPORARY_SIZE]; /* its name until then, where files need one; else "" */
    bool published;
};
typedef struct fcproc_image_target target_t;

static const char *kind_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return "a folder";
    case S_IFLNK:
        return "a symbolic link, which is not followed";
    case S_IFBLK:
    case S_IFCHR:
        return "a device";
    default:
        return "no regular file";
    }
}

/* What stands there is replaced only if it is a file. */
static int check_there(const target_t *t, const char *op, fcproc_error *err)
{
    struct stat st;

    if (fstatat(t->folder, t->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : image_errno(err, op, errno, "can't make %s", t->path);
    if (S_ISREG(st.st_mode))
        return 0;
    return error_set(err, FCPROC_ERR_CONFLICT, op, 0, "%s is %s: name another target", t->path,
                     kind_of(st.st_mode));
}

static int random_name(char name[TEMPORARY_SIZE])
{
    uint64_t number;

    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        return -errno;
    (void)snprintf(name, TEMPORARY_SIZE, "%s%016llx", PREFIX, (unsigned long long)number);
    return 0;
}

/* What a builder that was killed has left: it is ours, and nobody has its lock. A program that the builder
 * started has it, too. */
static void remove_dead(int folder, const char *name)
{
    cleanup_fd int fd = openat(folder, name,
                               O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat st;

    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
        flock(fd, LOCK_EX | LOCK_NB) == 0)
        (void)unlinkat(folder, name, 0);
}

static void sweep(int folder)
{
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;

    if (!dir) {
        close_fd(&fd);
        return;
    }
    while ((entry = readdir(dir)) != NULL)
        if (strncmp(entry->d_name, PREFIX, sizeof(PREFIX) - 1) == 0)
            remove_dead(folder, entry->d_name);
    (void)closedir(dir);
}

/* A file with a name that nobody takes for a dead builder's. */
static int make_temporary(target_t *t)
{
    for (;;) {
        struct stat st;
        int r = random_name(t->temporary);

        if (r == 0)
            t->fd = openat(t->folder, t->temporary,
                           O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
        if (r < 0 || t->fd < 0)
            return r < 0 ? r : -errno;
        /* Where there are no locks nobody sweeps; else a sweep may have met it before its lock. */
        if (flock(t->fd, LOCK_EX | LOCK_NB) < 0 ? errno != EWOULDBLOCK
                                                : fstat(t->fd, &st) == 0 && st.st_nlink > 0)
            return 0;
        (void)unlinkat(t->folder, t->temporary, 0);
        close_fd(&t->fd);
    }
}

static int open_file(target_t *t)
{
    int r;

    t->fd = openat(t->folder, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
    if (t->fd >= 0)
        return 0;
    /* open(2): EOPNOTSUPP; and EISDIR where nobody knows the flag. */
    if (errno != EOPNOTSUPP && errno != EISDIR)
        return -errno;
    sweep(t->folder);
    r = make_temporary(t);
    if (r < 0)
        t->temporary[0] = '\0';
    return r;
}

static int target_open(target_t *t, fcproc_error *err)
{
    char *slash = strrchr(t->path, '/');
    int r;

    t->name = slash ? slash + 1 : t->path;
    if (*t->name == '\0' || strcmp(t->name, ".") == 0 || strcmp(t->name, "..") == 0)
        return error_set(err, FCPROC_ERR_INVALID, OPEN, 0, "the target %s is no file's name",
                         t->path);
    if (slash)
        *slash = '\0';
    t->folder = open(!slash             ? "."
                     : slash == t->path ? "/"
                                        : t->path,
                     O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r = t->folder < 0 ? -errno : 0;
    if (slash)
        *slash = '/';
    if (r < 0)
        return image_errno(err, OPEN, -r, "can't open the folder of %s", t->path);
    r = check_there(t, OPEN, err);
    if (r < 0)
        return r;
    r = open_file(t);
    return r < 0 ? image_errno(err, OPEN, -r, "can't make %s", t->path) : 0;
}

FCPROC_API int fcproc_image_target_open(const char *path, fcproc_image_target **ret,
                                        fcproc_error *err)
{
    target_t *t = calloc(1, sizeof(*t));
    int r;

    if (!t)
        return error_nomem(err, OPEN);
    atomic_init(&t->references, 1);
    t->maker = getpid();
    t->folder = t->fd = -EBADF;
    t->path = strdup(path);
    r = t->path ? target_open(t, err) : error_nomem(err, OPEN);
    if (r < 0) {
        fcproc_image_target_close(t);
        return r;
    }
    *ret = t;
    return 0;
}

fcproc_image_target *target_ref(fcproc_image_target *t)
{
    (void)atomic_fetch_add(&t->references, 1);
    return t;
}

FCPROC_API int fcproc_image_target_fd(const fcproc_image_target *t)
{
    return t->fd;
}

FCPROC_API int fcproc_image_target_resize(fcproc_image_target *t, uint64_t size, fcproc_error *err)
{
    if (size > INT64_MAX || ftruncate(t->fd, (off_t)size) < 0)
        return image_errno(err, OPEN, size > INT64_MAX ? EFBIG : errno,
                           "can't make %s %llu bytes large", t->path, (unsigned long long)size);
    return 0;
}

FCPROC_API void fcproc_image_target_close(fcproc_image_target *t)
{
    struct stat made, there;

    if (!t || atomic_fetch_sub(&t->references, 1) != 1)
        return;
    if (t->temporary[0] && !t->published && t->maker == getpid() && fstat(t->fd, &made) == 0 &&
        fstatat(t->folder, t->temporary, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
        made.st_dev == there.st_dev && made.st_ino == there.st_ino)
        (void)unlinkat(t->folder, t->temporary, 0);
    close_fd(&t->fd);
    close_fd(&t->folder);
    free(t->path);
    free(t);
}

/* ---- published ---- */

struct publish_job {
    job_t job;
    target_t *target;
    int64_t bytes;
};

static int give_name(const target_t *t, const char *name)
{
    char self[32];

    (void)snprintf(self, sizeof(self), "/proc/self/fd/%d", t->fd);
    return linkat(AT_FDCWD, self, t->folder, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

/* A link can't replace what is there, a rename can. A publisher that was killed between the two has left
 * the name that all use one after the other. */
static int replace(target_t *t)
{
    static const char between[] = ".fcproc-between";
    char name[TEMPORARY_SIZE];
    int r;

    if (flock(t->folder, LOCK_EX | LOCK_NB) == 0) {
        memcpy(name, between, sizeof(between));
        (void)unlinkat(t->folder, name, 0);
    } else {
        r = random_name(name);
        if (r < 0)
            return r;
    }
    r = give_name(t, name);
    if (r == 0 && renameat(t->folder, name, t->folder, t->name) < 0) {
        r = -errno;
        (void)unlinkat(t->folder, name, 0);
    }
    (void)flock(t->folder, LOCK_UN);
    return r;
}

static int publish_name(target_t *t)
{
    int r;

    if (t->temporary[0]) {
        r = renameat(t->folder, t->temporary, t->folder, t->name) < 0 ? -errno : 0;
        if (r == 0)
            (void)flock(t->fd, LOCK_UN);
        return r;
    }
    r = give_name(t, t->name);
    return r == -EEXIST ? replace(t) : r;
}

/* As of a file that is written anew. What somebody else has put where all may write may be there to get
 * what root makes. */
static void keep_attributes(const target_t *t)
{
    struct stat there, made, folder;

    if (fstatat(t->folder, t->name, &there, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(there.st_mode) ||
        fstat(t->fd, &made) < 0 || fstat(t->folder, &folder) < 0)
        return;
    if (there.st_uid != made.st_uid && there.st_uid != folder.st_uid &&
        (folder.st_mode & (S_IWGRP | S_IWOTH)))
        return;
    (void)fchmod(t->fd, there.st_mode & 0777);
    if ((there.st_uid != made.st_uid || there.st_gid != made.st_gid) &&
        fchown(t->fd, there.st_uid, there.st_gid) < 0 && fchown(t->fd, (uid_t)-1, there.st_gid) < 0)
        return; /* it is the builder's: only root gives files away */
}

static int publish_run(job_t *job)
{
    struct publish_job *p = (struct publish_job *)job;
    target_t *t = p->target;
    struct stat st;
    int r;

    job_step(job, "syncing");
    keep_attributes(t);
    if (fsync(t->fd) < 0 || fstat(t->fd, &st) < 0)
        return image_errno(&job->error, PUBLISH, errno, "can't write all of %s to its disk",
                           t->path);
    r = job_check(job);
    if (r == 0)
        r = check_there(t, PUBLISH, &job->error);
    if (r < 0)
        return r;
    r = publish_name(t);
    if (r < 0)
        return image_errno(&job->error, PUBLISH, -r, "can't give %s its name", t->path);
    t->published = true;
    p->bytes = st.st_size;
    if (fsync(t->folder) < 0 && errno != EINVAL && errno != EROFS)
        return image_errno(&job->error, PUBLISH, errno,
                           "%s is there, but the folder's new name is not on its disk yet",
                           t->path);
    return 0;
}

static void publish_destroy(job_t *job)
{
    fcproc_image_target_close(((struct publish_job *)job)->target);
}

FCPROC_API int fcproc_image_target_publish(fcproc_image_target *target, fcproc_image_job **ret,
                                           fcproc_error *err)
{
    job_t *job = NULL;
    int r;

    if (target->published)
        return error_set(err, FCPROC_ERR_INVALID, PUBLISH, 0, "%s is published already",
                         target->path);
    r = job_new(sizeof(struct publish_job), PUBLISH, NULL, publish_run, publish_destroy, &job, err);
    if (r < 0)
        return r;
    ((struct publish_job *)job)->target = target_ref(target);
    return job_hand_out(job, 0, ret, err);
}

FCPROC_API int64_t fcproc_image_target_bytes(const fcproc_image_job *job)
{
    return ((const struct publish_job *)job)->bytes;
}
