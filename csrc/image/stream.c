/* SPDX-License-Identifier: MIT
 *
 * Streams: gzip by zlib, which checks its sums (libarchive's does not), all else by libarchive's filters,
 * but for those that it leaves to other programs.
 */
#include "stream.h"

#include <poll.h>
#include <sys/stat.h>

enum { IN_SIZE = 128 << 10, OUT_SIZE = 256 << 10 };

static int failed(struct stream *s, int code)
{
    s->code = code;
    return code;
}

static int corrupt(struct stream *s, const char *why)
{
    return failed(s, error_set(&s->job->error, FCPROC_ERR_INVALID, s->job->op, 0,
                               "%s is cut or damaged: %s", SHOWN(s->name, strlen(s->name)),
                               why ? why : "it can't be unpacked"));
}

/* A pipe may be silent for long: a cancel ends the wait. */
static int wait_for_data(struct stream *s)
{
    struct pollfd p[] = { { .fd = s->fd, .events = POLLIN },
                          { .fd = s->job->cancel_fd, .events = POLLIN } };

    if (s->seekable)
        return 0;
    while (poll(p, 2, -1) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

/* As read(2). */
static ssize_t read_some(struct stream *s, char *buffer, size_t len)
{
    ssize_t n;

    if (s->seekable) {
        uint64_t left = s->size > s->packed ? s->size - s->packed : 0;

        n = pread(s->fd, buffer, left < len ? (size_t)left : len, (off_t)(s->base + s->packed));
    } else {
        n = read(s->fd, buffer, len);
    }
    if (n > 0)
        s->packed += (uint64_t)n;
    return n;
}

/* More into s->in, behind so many bytes that are not taken yet. */
static int fill_behind(struct stream *s, size_t kept)
{
    for (;;) {
        int r = job_check(s->job);
        ssize_t n;

        if (r == 0 && (r = wait_for_data(s)) < 0)
            return failed(s, image_errno(&s->job->error, s->job->op, -r, "can't wait for %s",
                                         SHOWN(s->name, strlen(s->name))));
        if (r == 0)
            r = job_check(s->job);
        if (r < 0)
            return failed(s, r);
        n = read_some(s, s->in + kept, IN_SIZE - kept);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return failed(s, image_errno(&s->job->error, s->job->op, errno, "can't read %s",
                                         SHOWN(s->name, strlen(s->name))));
        s->in_at = 0;
        s->in_len = kept + (size_t)n;
        s->in_end = n == 0;
        atomic_store_explicit(&s->job->bytes, s->packed, memory_order_relaxed);
        if (s->hashes && digest_add(&s->packed_digest, s->in + kept, (size_t)n) < 0)
            return failed(s, error_nomem(&s->job->error, s->job->op));
        return 0;
    }
}

/* The same when all of it was taken. */
static int fill(struct stream *s)
{
    return s->in_at < s->in_len || s->in_end ? 0 : fill_behind(s, 0);
}

/* ---- gzip ---- */

/* Two bytes tell it, and of a pipe one may come alone. */
static int fill_magic(struct stream *s)
{
    int r = fill(s);

    if (r == 0 && s->in_len - s->in_at == 1 && !s->in_end) {
        s->in[0] = s->in[s->in_at];
        r = fill_behind(s, 1);
    }
    return r;
}

static bool begins_gzip(const struct stream *s)
{
    return s->in_len - s->in_at >= 2 && (unsigned char)s->in[s->in_at] == 0x1f &&
           (unsigned char)s->in[s->in_at + 1] == 0x8b;
}

/* Between two members: 1 when there is another one, 0 at the end. */
static int next_member(struct stream *s)
{
    int r = fill_magic(s);

    if (r < 0)
        return r;
    if (s->in_len == s->in_at)
        return 0;
    if (!begins_gzip(s)) {
        /* Zeros fill up a tape's block; what else is there gzip ignores, too. */
        while (s->in_at < s->in_len && s->in[s->in_at] == 0)
            s->in_at++;
        if (s->in_at < s->in_len)
            job_warn(s->job, "%s: what follows the packed data is ignored",
                     SHOWN(s->name, strlen(s->name)));
        s->in_at = s->in_len;
        return 0;
    }
    return inflateReset(&s->gzip) == Z_OK ? 1 : corrupt(s, "zlib");
}

static int next_gzip(struct stream *s, const void **ret, size_t *ret_len)
{
    *ret = s->out;
    *ret_len = 0;
    s->gzip.next_out = (unsigned char *)s->out;
    s->gzip.avail_out = OUT_SIZE;
    while (s->gzip.avail_out > 0) {
        int r, z;

        if (!s->gzip_member) {
            r = next_member(s);
            if (r < 0)
                return r;
            if (r == 0)
                break;
            s->gzip_member = true;
        }
        r = fill(s);
        if (r < 0)
            return r;
        if (s->in_end)
            return corrupt(s, "its end is missing");
        s->gzip.next_in = (unsigned char *)s->in + s->in_at;
        s->gzip.avail_in = (unsigned)(s->in_len - s->in_at);
        z = inflate(&s->gzip, Z_NO_FLUSH);
        s->in_at = s->in_len - s->gzip.avail_in;
        if (z == Z_STREAM_END)
            s->gzip_member = false;
        else if (z == Z_MEM_ERROR)
            return failed(s, error_nomem(&s->job->error, s->job->op));
        else if (z != Z_OK && z != Z_BUF_ERROR)
            return corrupt(s, s->gzip.msg);
    }
    *ret_len = OUT_SIZE - s->gzip.avail_out;
    return 0;
}

static int begin_gzip(struct stream *s)
{
    s->out = malloc(OUT_SIZE);
    if (!s->out || inflateInit2(&s->gzip, 16 + MAX_WBITS) != Z_OK)
        return error_nomem(&s->job->error, s->job->op);
    s->kind = STREAM_GZIP;
    return 0;
}

/* ---- what libarchive unpacks ---- */

static la_ssize_t read_packed(struct archive *a, void *arg, const void **ret)
{
    struct stream *s = arg;
    size_t len;

    if (fill(s) < 0) {
        archive_set_error(a, EIO, "reading failed");
        return -1;
    }
    *ret = s->in + s->in_at;
    len = s->in_len - s->in_at;
    s->in_at = s->in_len;
    return (la_ssize_t)len;
}

static int archive_failed(struct stream *s)
{
    if (s->code < 0)
        return s->code;
    if (archive_errno(s->other) == ENOMEM)
        return failed(s, error_nomem(&s->job->error, s->job->op));
    return corrupt(s, archive_error_string(s->other));
}

static int begin_other(struct stream *s)
{
    struct archive_entry *entry;
    int r;

    s->other = archive_read_new();
    if (!s->other || archive_read_support_format_raw(s->other) != ARCHIVE_OK ||
        archive_read_support_format_empty(s->other) != ARCHIVE_OK ||
        archive_read_support_filter_bzip2(s->other) < ARCHIVE_WARN ||
        archive_read_support_filter_compress(s->other) < ARCHIVE_WARN ||
        archive_read_support_filter_lz4(s->other) < ARCHIVE_WARN ||
        archive_read_support_filter_lzip(s->other) < ARCHIVE_WARN ||
        archive_read_support_filter_lzma(s->other) < ARCHIVE_WARN ||
        archive_read_support_filter_xz(s->other) < ARCHIVE_WARN ||
        archive_read_support_filter_zstd(s->other) < ARCHIVE_WARN)
        return error_nomem(&s->job->error, s->job->op);
    if (archive_read_open(s->other, s, NULL, read_packed, NULL) != ARCHIVE_OK)
        return archive_failed(s);
    r = archive_read_next_header(s->other, &entry);
    if (r != ARCHIVE_OK && r != ARCHIVE_WARN && r != ARCHIVE_EOF)
        return archive_failed(s);
    if (archive_filter_code(s->other, 0) != ARCHIVE_FILTER_NONE)
        s->kind = STREAM_OTHER;
    else
        s->kind = s->seekable ? STREAM_PLAIN : STREAM_PASSED;
    return 0;
}

static int next_other(struct stream *s, const void **ret, size_t *ret_len)
{
    la_int64_t offset;
    int r = archive_read_data_block(s->other, ret, ret_len, &offset);

    if (r == ARCHIVE_EOF)
        *ret_len = 0;
    else if (r < ARCHIVE_WARN)
        return archive_failed(s);
    return 0;
}

/* ---- streams ---- */

static int begin_digests(struct stream *s)
{
    digest_free(&s->packed_digest);
    digest_free(&s->plain_digest);
    if (s->hashes && (digest_begin(&s->packed_digest) < 0 || digest_begin(&s->plain_digest) < 0))
        return error_nomem(&s->job->error, s->job->op);
    return 0;
}

/* What unpacked it. */
static void unpacked(struct stream *s)
{
    if (s->kind == STREAM_GZIP)
        (void)inflateEnd(&s->gzip);
    s->kind = STREAM_PLAIN;
    (void)archive_read_free(s->other);
    s->other = NULL;
    free(s->out);
    s->out = NULL;
    s->gzip_member = false;
}

static int restart(struct stream *s)
{
    unpacked(s);
    s->in_len = s->in_at = 0;
    s->in_end = false;
    s->packed = s->plain = 0;
    return begin_digests(s);
}

static int begin(struct stream *s)
{
    int r = fill_magic(s);

    if (r < 0)
        return r;
    if (begins_gzip(s))
        return begin_gzip(s);
    if (s->in_len == 0) /* nothing at all, of which libarchive makes an error of its own */
        return 0;
    r = begin_other(s);
    /* Not packed at all: it is read without libarchive's filters, which could not skip. */
    return r == 0 && s->kind == STREAM_PLAIN ? restart(s) : r;
}

static int next_plain(struct stream *s, const void **ret, size_t *ret_len)
{
    int r = fill(s);

    if (r < 0)
        return r;
    *ret = s->in + s->in_at;
    *ret_len = s->in_len - s->in_at;
    s->in_at = s->in_len;
    return 0;
}

int stream_open(struct stream *s, job_t *job, int fd, const struct window *window, const char *name,
                uint64_t ratio, bool hashes)
{
    struct stat st;
    off_t at;

    *s = (struct stream){ .job = job, .name = name, .fd = fd, .ratio = ratio, .hashes = hashes };
    s->in = malloc(IN_SIZE);
    if (!s->in || begin_digests(s) < 0)
        return error_nomem(&job->error, job->op);
    if (window) {
        s->seekable = true;
        s->base = window->from;
        s->size = window->len;
    } else if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (at = lseek(fd, 0, SEEK_CUR)) >= 0) {
        s->seekable = true;
        s->base = (uint64_t)at;
        s->size = st.st_size > at ? (uint64_t)(st.st_size - at) : 0;
    }
    atomic_store(&job->total, s->size);
    return begin(s);
}

int stream_next(struct stream *s, const void **ret, size_t *ret_len)
{
    int r = s->code;

    if (r < 0)
        return r;
    if (s->kind == STREAM_GZIP)
        r = next_gzip(s, ret, ret_len);
    else if (s->kind == STREAM_PLAIN)
        r = next_plain(s, ret, ret_len);
    else
        r = next_other(s, ret, ret_len);
    if (r < 0)
        return r;
    s->plain += *ret_len;
    if (s->kind >= STREAM_GZIP && s->plain > s->ratio_from && s->plain / s->ratio > s->packed)
        return failed(s,
                      error_set(&s->job->error, FCPROC_ERR_INVALID, s->job->op, 0,
                                "%s unpacks to more than %llu times its size, which is a "
                                "bomb's way: if it is none, raise limits.ratio, or say how much it "
                                "may be (--max-size)",
                                SHOWN(s->name, strlen(s->name)), (unsigned long long)s->ratio));
    if (s->hashes && s->kind >= STREAM_GZIP && digest_add(&s->plain_digest, *ret, *ret_len) < 0)
        return failed(s, error_nomem(&s->job->error, s->job->op));
    return 0;
}

uint64_t stream_skip(struct stream *s, uint64_t len)
{
    uint64_t here = s->in_len - s->in_at;

    if (s->kind != STREAM_PLAIN || s->hashes)
        return 0;
    if (len <= here) {
        s->in_at += (size_t)len;
    } else {
        /* Never past the end, where a cut file would look whole. */
        uint64_t left = s->size > s->packed ? s->size - s->packed : 0, over = len - here;

        if (over > left) {
            len -= over - left;
            over = left;
        }
        s->in_at = s->in_len = 0;
        s->packed += over;
        atomic_store_explicit(&s->job->bytes, s->packed, memory_order_relaxed);
    }
    s->plain += len;
    return len;
}

int stream_finish(struct stream *s, char packed[DIGEST_SIZE], char plain[DIGEST_SIZE])
{
    const void *data;
    size_t len = 1;
    int r = 0;

    while (r == 0 && len > 0)
        r = stream_next(s, &data, &len);
    while (r == 0 && !s->in_end) {
        s->in_at = s->in_len;
        r = fill(s);
    }
    if (r < 0 || !s->hashes)
        return r;
    if (digest_end(&s->packed_digest, packed) < 0 || digest_end(&s->plain_digest, plain) < 0)
        return error_nomem(&s->job->error, s->job->op);
    if (s->kind < STREAM_GZIP)
        memcpy(plain, packed, DIGEST_SIZE);
    return 0;
}

void stream_close(struct stream *s)
{
    unpacked(s);
    digest_free(&s->packed_digest);
    digest_free(&s->plain_digest);
    free(s->in);
    s->in = NULL;
    close_fd(&s->fd);
}
