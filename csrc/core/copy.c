/* SPDX-License-Identifier: MIT
 *
 * Copies of drives: by sharing their blocks where the file system can, else the data alone, with
 * holes left holes; and making an old log give back its blocks. A copy is an operation that does
 * a bounded piece at each step, so that others run in between and a cancel is seen.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "file.h"

enum { CHUNK = 16 << 20, BUFFER = 1 << 20 };

enum stage { STAGE_CLONE, STAGE_SPARSE, STAGE_DONE };

struct copy_op {
    fcproc_op op;
    int from_fd, to_fd;
    struct split_path to; /* so that what is removed is what was made, whatever chdir does */
    char *from_path, *to_path;
    enum stage stage;
    enum fcproc_copy_method method;
    bool by_buffer; /* copy_file_range can't, so a buffer does */
    char *buffer;
    int64_t size, at, copied;
    struct fcproc_file_id id;
};

/* Removes the copy, unless something else has its name by now, or another process makes it. */
static void drop_copy(struct copy_op *c)
{
    struct stat made, there;

    if (c->to_fd >= 0 && op_is_ours(&c->op) && fstat(c->to_fd, &made) == 0 &&
        fstatat(c->to.dir_fd, c->to.base, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
        made.st_dev == there.st_dev && made.st_ino == there.st_ino)
        (void)unlinkat(c->to.dir_fd, c->to.base, 0);
    close_fd(&c->to_fd);
}

static int copy_failed(struct copy_op *c, int sys_errno, fcproc_error *err)
{
    drop_copy(c);
    return file_error(err, c->op.class->name, sys_errno, "can't copy %s to %s", c->from_path,
                      c->to_path);
}

/* Data from the position on: *ret_end is where it ends. 1: some; 0: none is left; -errno. */
static int next_data(struct copy_op *c, int64_t *ret_end)
{
    off_t data = lseek(c->from_fd, c->at, SEEK_DATA), hole;

    if (data < 0 && errno == ENXIO) /* a hole up to the end */
        return 0;
    if (data < 0 && errno != EINVAL)
        return -errno;
    hole = data < 0 ? -1 : lseek(c->from_fd, data, SEEK_HOLE);
    if (data >= 0)
        c->at = data;
    *ret_end = hole < 0 || hole > c->size ? c->size : hole; /* it may grow: that is not ours */
    return c->at < *ret_end;
}

static ssize_t copy_by_buffer(struct copy_op *c, size_t len)
{
    ssize_t n;
    size_t done = 0;

    if (!c->buffer)
        c->buffer = malloc(BUFFER);
    if (!c->buffer) {
        errno = ENOMEM;
        return -1;
    }
    n = pread(c->from_fd, c->buffer, len < BUFFER ? len : BUFFER, c->at);
    while (n > 0 && done < (size_t)n) {
        ssize_t written = pwrite(c->to_fd, c->buffer + done, (size_t)n - done,
                                 c->at + (int64_t)done);

        if (written < 0 && errno != EINTR)
            return -1;
        if (written > 0)
            done += (size_t)written;
    }
    return n;
}

/* At most len bytes at the position. How many, 0 when the file is shorter now, or -1. */
static ssize_t copy_some(struct copy_op *c, size_t len)
{
    while (!c->by_buffer) {
        off_t in = c->at, out = c->at;
        ssize_t n = copy_file_range(c->from_fd, &in, c->to_fd, &out, len, 0);

        if (n > 0)
            return n;
        if (n < 0 && errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS &&
            errno != EPERM)
            return -1;
        /* copy_file_range(2): EXDEV between file systems, but for Linux 5.3 to 5.18. A seccomp
         * filter says EPERM. Some file systems say 0. */
        c->by_buffer = true;
    }
    return copy_by_buffer(c, len);
}

/* 1: all is there; 0: go on; -errno. */
static int copy_chunk(struct copy_op *c)
{
    int64_t budget = CHUNK;

    while (budget > 0) {
        int64_t end = 0;
        ssize_t n;
        int r = next_data(c, &end);

        if (r <= 0)
            return r < 0 ? r : 1;
        n = copy_some(c, (size_t)(end - c->at < budget ? end - c->at : budget));
        if (n < 0 && errno == EINTR)
            return 0;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -ESTALE;
        c->at += n;
        c->copied += n;
        budget -= n;
    }
    return 0;
}

/* What was cut off meanwhile looks like a hole. */
static bool is_shorter(const struct copy_op *c)
{
    struct stat st;

    return fstat(c->from_fd, &st) == 0 && st.st_size < c->size;
}

static int copy_step(fcproc_op *op, fcproc_error *err)
{
    struct copy_op *c = (struct copy_op *)op;
    int r = 0;

    if (c->stage == STAGE_CLONE) {
        if (ioctl(c->to_fd, FICLONE, c->from_fd) == 0) {
            c->method = FCPROC_COPY_REFLINK;
            r = 1;
        } else if (errno == ENOSPC || errno == EDQUOT || errno == EIO || errno == EROFS) {
            return copy_failed(c, errno, err);
        } else {
            c->stage = STAGE_SPARSE; /* another file system, or one without shared blocks */
        }
    }
    if (c->stage == STAGE_SPARSE) {
        /* First its size: a hole at the end is data to nobody. */
        if (c->at == 0 && ftruncate(c->to_fd, c->size) < 0)
            return copy_failed(c, errno, err);
        c->method = FCPROC_COPY_SPARSE;
        r = copy_chunk(c);
    }
    if (r > 0 && is_shorter(c))
        r = -ESTALE;
    if (r == -ESTALE) {
        drop_copy(c);
        return error_set(err, FCPROC_ERR_BUSY, op->class->name, 0,
                         "can't copy %s: it became shorter meanwhile; copy what nobody writes to",
                         c->from_path);
    }
    if (r < 0)
        return copy_failed(c, -r, err);
    if (r == 0) {
        op->timer_ns = now_ns(); /* again at once, after the others */
        return 0;
    }
    c->stage = STAGE_DONE;
    r = close(take_fd(&c->to_fd));
    if (r < 0 && errno != EINTR) {
        r = errno;
        (void)unlinkat(c->to.dir_fd, c->to.base, 0);
        return copy_failed(c, r, err);
    }
    return 1;
}

static int copy_end(fcproc_op *op)
{
    drop_copy((struct copy_op *)op);
    return 1;
}

static void copy_destroy(fcproc_op *op)
{
    struct copy_op *c = (struct copy_op *)op;

    drop_copy(c); /* there is one only when it is not finished */
    close_fd(&c->from_fd);
    close_fd(&c->to.dir_fd);
    free(c->buffer);
    free(c->from_path);
    free(c->to_path);
}

static void copy_describe(const fcproc_op *op, char *buf, size_t size)
{
    const struct copy_op *c = (const struct copy_op *)op;

    (void)snprintf(buf, size, "the copy of %.150s to %.150s had %lld of %lld bytes; it is removed",
                   c->from_path, c->to_path, (long long)c->at, (long long)c->size);
}

static int copy_open(struct copy_op *c, const struct fcproc_copy *spec, fcproc_error *err)
{
    const char *op = c->op.class->name;
    struct stat st;
    int r = ids_check(op, spec->uid, spec->gid, err);

    if (r < 0)
        return r;
    r = file_open_expected(op, c->from_path, O_RDONLY, spec->expected, &st, err);
    if (r < 0)
        return r;
    c->from_fd = r;
    c->size = st.st_size;
    r = path_split(c->to_path, &c->to);
    if (r == 0 && *c->to.base == '\0')
        r = -EISDIR;
    if (r < 0)
        return file_error(err, op, -r, "can't copy to %s", c->to_path);
    c->to_fd = openat(c->to.dir_fd, c->to.base,
                      O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, spec->mode);
    if (c->to_fd < 0)
        return file_error(err, op, errno, "can't copy to %s", c->to_path);
    r = file_give(c->to_fd, spec->uid, spec->gid);
    if (r < 0)
        return file_error(err, op, -r, "can't give %s to %lld:%lld", c->to_path,
                          (long long)spec->uid, (long long)spec->gid);
    if (fchmod(c->to_fd, spec->mode) < 0) /* the umask has taken from it */
        return file_error(err, op, errno, "can't set mode %04o on %s", spec->mode, c->to_path);
    r = file_id(c->to_fd, &c->id);
    return r < 0 ? file_error(err, op, -r, "can't look at %s", c->to_path) : 0;
}

FCPROC_API int fcproc_file_copy(const struct fcproc_copy *spec, fcproc_ctx *ctx, fcproc_op **ret,
                                fcproc_error *err)
{
    static const struct op_class class = { .name = "file.copy",
                                           .step = copy_step,
                                           .end = copy_end,
                                           .destroy = copy_destroy,
                                           .describe = copy_describe };
    struct copy_op *c;
    fcproc_op *op = NULL;
    int r = check_struct(spec, sizeof(*spec), "fcproc_copy", class.name, err);

    if (r == 0)
        r = check_given(spec->from, "file to copy", class.name, err);
    if (r == 0)
        r = check_given(spec->to, "name for the copy", class.name, err);
    if (r == 0)
        r = op_new(sizeof(*c), &class, ctx, -1, &op, err);
    if (r < 0)
        return r;
    c = (struct copy_op *)op;
    c->from_fd = c->to_fd = c->to.dir_fd = -EBADF;
    c->stage = spec->method == FCPROC_COPY_REFLINK ? STAGE_CLONE : STAGE_SPARSE;
    c->from_path = strdup(spec->from);
    c->to_path = strdup(spec->to);
    r = c->from_path && c->to_path ? copy_open(c, spec, err) : error_nomem(err, class.name);
    if (r < 0) {
        fcproc_op_close(op);
        return r;
    }
    *ret = op;
    return 0;
}

FCPROC_API struct fcproc_copied fcproc_file_copy_result(const fcproc_op *op)
{
    const struct copy_op *c = (const struct copy_op *)op;

    return (struct fcproc_copied){ .method = c->method, .bytes = c->copied, .id = c->id };
}

FCPROC_API int fcproc_file_punch(const char *path, const struct fcproc_expected *expected,
                                 int64_t most, int64_t *ret_freed, fcproc_error *err)
{
    static const char op[] = "file.punch";
    struct stat before, after;
    int64_t end, freed;
    cleanup_fd int fd = file_open_expected(op, path, O_RDWR, expected, &before, err);

    if (fd < 0)
        return fd;
    /* Whole blocks only: of the others the bytes would be cleared and no room won. */
    end = before.st_size - most / 2;
    end -= end % before.st_blksize;
    if ((int64_t)before.st_blocks * 512 <= most || end <= 0) {
        TELL(ret_freed, 0);
        return 0;
    }
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, end) < 0)
        return file_error(err, op, errno, "can't free the start of %s", path);
    if (fstat(fd, &after) < 0)
        return file_error(err, op, errno, "can't look at %s", path);
    freed = (int64_t)(before.st_blocks - after.st_blocks) * 512;
    TELL(ret_freed, freed < 0 ? 0 : freed); /* its writer was faster */
    return 0;
}
