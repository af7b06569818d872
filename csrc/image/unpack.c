/* SPDX-License-Identifier: MIT
 *
 * One file, or a part of it, without whatever packed it: to a descriptor, or in memory where it is small.
 * And where in it some texts stand, which nobody must look for a second time.
 */
#include "pipe.h"
#include "stream.h"

static const char OP[] = "image.unpack";

enum { MARKS_MOST = 4, MARK_SIZE = 32 };

struct unpack_job {
    job_t job;
    char *path;
    int fd; /* of what is unpacked, until the stream has it */
    struct window window;
    uint64_t limit;
    int to; /* of our own, or less than 0 */
    bool keep;
    char *data;
    size_t len, room;
    uint64_t bytes;
    bool packed;
    size_t n_marks;
    char marks[MARKS_MOST][MARK_SIZE];
    int64_t found[MARKS_MOST]; /* -1: not there */
    char tail[MARK_SIZE - 1];  /* the last of what came before the block */
    size_t tail_len;
};

/* ---- in the thread ---- */

static void look(struct unpack_job *u, const char *data, size_t len)
{
    char seam[2 * MARK_SIZE];
    size_t head = len < MARK_SIZE - 1 ? len : MARK_SIZE - 1, seam_len = u->tail_len + head, keep;

    memcpy(seam, u->tail, u->tail_len);
    memcpy(seam + u->tail_len, data, head);
    for (size_t i = 0; i < u->n_marks; i++) {
        const char *mark = u->marks[i];
        const char *there;

        if (u->found[i] >= 0)
            continue;
        there = memmem(seam, seam_len, mark, strlen(mark));
        if (there) {
            u->found[i] = (int64_t)(u->bytes - u->tail_len) + (there - seam);
            continue;
        }
        there = memmem(data, len, mark, strlen(mark));
        if (there)
            u->found[i] = (int64_t)u->bytes + (there - data);
    }
    if (len >= sizeof(u->tail)) {
        u->tail_len = sizeof(u->tail);
        memcpy(u->tail, data + len - u->tail_len, u->tail_len);
        return;
    }
    keep = seam_len < sizeof(u->tail) ? seam_len : sizeof(u->tail);
    memcpy(u->tail, seam + seam_len - keep, keep);
    u->tail_len = keep;
}

static int put(struct unpack_job *u, const char *data, size_t len)
{
    int r = u->to < 0 ? 0 : pipe_write(&u->job, u->to, data, len);

    if (r == -ECANCELED)
        return job_check(&u->job);
    if (r < 0)
        return image_errno(&u->job.error, OP, -r, "can't write what %s holds", u->path);
    if (!u->keep)
        return 0;
    if (u->room - u->len < len) {
        size_t room = u->len + len > 2 * u->room ? u->len + len : 2 * u->room;
        char *grown = realloc(u->data, room);

        if (!grown)
            return error_nomem(&u->job.error, OP);
        u->data = grown;
        u->room = room;
    }
    memcpy(u->data + u->len, data, len);
    u->len += len;
    return 0;
}

static int unpack_all(struct unpack_job *u, struct stream *s)
{
    for (;;) {
        const void *data;
        size_t len;
        int r = stream_next(s, &data, &len);

        if (r < 0 || len == 0)
            return r;
        if (len > u->limit - u->bytes)
            return error_set(&u->job.error, FCPROC_ERR_INVALID, OP, 0,
                             "%s unpacks to more than %llu bytes, more than it may", u->path,
                             (unsigned long long)u->limit);
        look(u, data, len);
        r = put(u, data, len);
        if (r < 0)
            return r;
        u->bytes += len;
    }
}

static int unpack_run(job_t *job)
{
    struct unpack_job *u = (struct unpack_job *)job;
    struct stream s;
    int r;

    job_step(job, "unpacking");
    r = stream_open(&s, job, take_fd(&u->fd), &u->window, u->path, UINT64_MAX, false);
    if (r == 0)
        r = unpack_all(u, &s);
    u->packed = s.kind >= STREAM_GZIP;
    stream_close(&s);
    close_fd(&u->to); /* so that the reader of a pipe sees its end */
    return r;
}

/* ---- for a host ---- */

static void unpack_destroy(job_t *job)
{
    struct unpack_job *u = (struct unpack_job *)job;

    close_fd(&u->fd);
    close_fd(&u->to);
    free(u->path);
    free(u->data);
}

static int take_marks(struct unpack_job *u, const struct fcproc_image_unpacking *given,
                      fcproc_error *err)
{
    if (given->n_marks > MARKS_MOST)
        return error_set(err, FCPROC_ERR_INVALID, OP, 0, "%zu marks are more than %d",
                         given->n_marks, MARKS_MOST);
    for (size_t i = 0; i < given->n_marks; i++) {
        size_t len = strlen(given->marks[i]);

        if (len == 0 || len >= MARK_SIZE)
            return error_set(err, FCPROC_ERR_INVALID, OP, 0, "a mark has 1 to %d bytes, not %zu",
                             MARK_SIZE - 1, len);
        memcpy(u->marks[i], given->marks[i], len + 1);
        u->found[i] = -1;
    }
    u->n_marks = given->n_marks;
    return 0;
}

static int unpack_prepare(struct unpack_job *u, const struct fcproc_image_unpacking *given,
                          fcproc_error *err)
{
    uint64_t size;
    int r;

    u->path = strdup(given->path);
    if (!u->path)
        return error_nomem(err, OP);
    r = image_open_regular(u->path, &u->fd, &size, OP, err);
    if (r < 0)
        return r;
    if (given->from > size || given->len > size - given->from)
        return error_set(err, FCPROC_ERR_INVALID, OP, 0,
                         "%s has %llu bytes, and %llu from %llu on are asked for", u->path,
                         (unsigned long long)size, (unsigned long long)given->len,
                         (unsigned long long)given->from);
    u->window.from = given->from;
    u->window.len = given->len ? given->len : size - given->from;
    u->limit = given->limit ? given->limit : (uint64_t)1 << 30;
    if (given->fd >= 0 && (u->to = pipe_own(given->fd)) < 0)
        return image_errno(err, OP, errno, "no descriptor to write what %s holds by", u->path);
    u->keep = given->keep;
    return take_marks(u, given, err);
}

FCPROC_API int fcproc_image_unpack(const struct fcproc_image_unpacking *given,
                                   fcproc_image_job **ret, fcproc_error *err)
{
    job_t *job = NULL;
    int r = check_struct(given, sizeof(*given), "fcproc_image_unpacking", OP, err);

    if (r == 0)
        r = job_new(sizeof(struct unpack_job), OP, NULL, unpack_run, unpack_destroy, &job, err);
    if (r < 0)
        return r;
    ((struct unpack_job *)job)->fd = ((struct unpack_job *)job)->to = -EBADF;
    r = unpack_prepare((struct unpack_job *)job, given, err);
    return job_hand_out(job, r, ret, err);
}

FCPROC_API int fcproc_image_unpack_result(const fcproc_image_job *job,
                                          struct fcproc_image_unpacked *ret, fcproc_error *err)
{
    const struct unpack_job *u = (const struct unpack_job *)job;
    int r = check_struct(ret, sizeof(*ret), "fcproc_image_unpacked", OP, err);

    if (r < 0)
        return r;
    ret->bytes = u->bytes;
    ret->packed = u->packed;
    ret->data = u->keep ? (u->data ? u->data : "") : NULL;
    for (size_t i = 0; i < MARKS_MOST; i++)
        ret->marks[i] = i < u->n_marks ? u->found[i] : -1;
    return 0;
}
