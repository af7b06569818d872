/* SPDX-License-Identifier: MIT
 *
 * Archives, entry by entry. Contents stay in an archive that is not packed, else they go to the spool.
 */
#include "read.h"

#include <archive_entry.h>

int reader_bad(struct reader *r, const char *why)
{
    return error_set(&r->job->error, FCPROC_ERR_INVALID, r->job->op, 0, "the entry %s of %s %s",
                     r->shown.text, SHOWN(r->stream.name, strlen(r->stream.name)), why);
}

/* What libarchive says, with where it was. */
static int archive_failed(struct reader *r)
{
    const char *why = archive_error_string(r->archive);

    if (r->stream.code < 0)
        return r->stream.code;
    if (archive_errno(r->archive) == ENOMEM)
        return reader_nomem(r);
    if (r->stream.plain == 0 && r->stream.in_end)
        return error_set(&r->job->error, FCPROC_ERR_INVALID, r->job->op, 0,
                         "%s is empty: a tar has at least the two blocks of zeros that end it",
                         SHOWN(r->stream.name, strlen(r->stream.name)));
    return error_set(&r->job->error, FCPROC_ERR_INVALID, r->job->op, 0,
                     "%s is cut or damaged%s%s: %s", SHOWN(r->stream.name, strlen(r->stream.name)),
                     r->shown.text[0] ? " at or after the entry " : "", r->shown.text,
                     why ? why : "it is no tar");
}

/* ---- libarchive's callbacks ---- */

enum { TAR_BLOCK = 512 };

static la_ssize_t read_stream(struct archive *a, void *arg, const void **ret)
{
    static const char zeros[TAR_BLOCK];
    struct reader *r = arg;
    size_t len = 0;

    if (stream_next(&r->stream, ret, &len) < 0) {
        archive_set_error(a, EIO, "reading failed");
        return -1;
    }
    /* umoci 0.4 does not fill it up. */
    if (len == 0 && r->pads && r->stream.plain % TAR_BLOCK != 0) {
        r->pads = false;
        *ret = zeros;
        len = TAR_BLOCK - (size_t)(r->stream.plain % TAR_BLOCK);
    }
    return (la_ssize_t)len;
}

static la_int64_t skip_stream(struct archive *a, void *arg, la_int64_t len)
{
    struct reader *r = arg;

    (void)a;
    return len > 0 ? (la_int64_t)stream_skip(&r->stream, (uint64_t)len) : 0;
}

static int reader_start(struct reader *r)
{
    archive_read_free(r->archive);
    r->archive = archive_read_new();
    r->entry_name = "";
    r->shown = image_shown("", 0);
    r->ordinal = 0;
    if (!r->archive || archive_read_support_format_tar(r->archive) != ARCHIVE_OK)
        return reader_nomem(r);
    if (archive_read_set_read_callback(r->archive, read_stream) != ARCHIVE_OK ||
        archive_read_set_skip_callback(r->archive, skip_stream) != ARCHIVE_OK ||
        archive_read_set_callback_data(r->archive, r) != ARCHIVE_OK ||
        archive_read_open1(r->archive) != ARCHIVE_OK)
        return archive_failed(r);
    return 0;
}

int reader_open(struct reader *r, job_t *job, int fd, const struct window *window, const char *name,
                bool hashes)
{
    int code;

    r->job = job;
    r->tree = job->tree;
    r->filler = (struct filler){ .tree = job->tree, .op = job->op, .err = &job->error };
    code = stream_open(&r->stream, job, fd, window, name, job->tree->limit_ratio, hashes);
    r->stream.ratio_from = job->tree->ratio_from;
    return code < 0 ? code : reader_start(r);
}

void reader_close(struct reader *r)
{
    archive_read_free(r->archive);
    r->archive = NULL;
    if (r->job)
        stream_close(&r->stream);
    filler_free(&r->filler);
}

int reader_next(struct reader *r, struct archive_entry **ret)
{
    const char *name;
    int code = job_check(r->job), a;

    if (code < 0)
        return code;
    a = archive_read_next_header(r->archive, ret);
    if (a == ARCHIVE_EOF) {
        /* Without sums, a tar that ends where an entry could begin may be one that was cut. */
        r->unmarked = archive_read_header_position(r->archive) >=
                      archive_filter_bytes(r->archive, 0);
        return 0;
    }
    if (a < ARCHIVE_WARN)
        return archive_failed(r);
    name = archive_entry_pathname(*ret);
    r->entry_name = name ? name : "";
    r->shown = image_shown(r->entry_name, strlen(r->entry_name));
    r->ordinal++;
    if (a == ARCHIVE_WARN) {
        const char *why = archive_error_string(r->archive);

        /* Names stay bytes: that is as it should be. */
        if (!why || !strstr(why, "can't be converted"))
            job_warn(r->job, "%s: %s", r->shown.text,
                     why ? why : "something in its header is not understood");
    }
    if (!name)
        return reader_bad(r, "has no name");
    return 1;
}

/* ---- contents ---- */

/* Of what is not packed: does the header say that there are holes? */
static int looks_sparse(struct reader *r, uint64_t from, uint64_t to)
{
    enum { BLOCK = 512, TYPE = 156, MOST = 1 << 20 };
    cleanup_free char *header = NULL;
    size_t len = (size_t)(to - from);
    ssize_t n;

    if (to <= from || to - from > MOST)
        return 1;
    header = malloc(len);
    if (!header)
        return reader_nomem(r);
    n = pread(r->stream.fd, header, len, (off_t)(r->stream.base + from));
    if (n != (ssize_t)len)
        return 1;
    for (size_t at = 0; at + BLOCK <= len; at += BLOCK)
        if (header[at + TYPE] == 'S')
            return 1;
    return memmem(header, len, "GNU.sparse.", 11) != NULL;
}

static int count_bytes(struct reader *r, uint64_t len)
{
    struct tree *tree = r->tree;

    tree->read_bytes += len;
    if (tree->read_bytes > tree->limit_bytes)
        return error_set(&r->job->error, FCPROC_ERR_INVALID, r->job->op, 0,
                         "%s holds more than the limit of %llu bytes, at the entry %s",
                         r->stream.name, (unsigned long long)tree->limit_bytes, r->shown.text);
    return 0;
}

/* Block by block: kept in the spool, or, of what is not packed, noted where they are. */
static int take_blocks(struct reader *r, struct inode *inode, bool in_place)
{
    const void *data;
    la_int64_t at;
    size_t len;
    int a, code = 0;

    while (code == 0 &&
           (a = archive_read_data_block(r->archive, &data, &len, &at)) != ARCHIVE_EOF) {
        if (a < ARCHIVE_WARN)
            return archive_failed(r);
        code = job_check(r->job);
        if (code == 0)
            code = count_bytes(r, len);
        if (code == 0 && (at < 0 || (uint64_t)at + len > inode->size))
            code = reader_bad(r, "holds more than its size");
        if (code == 0 && in_place)
            code = filler_extent(&r->filler, (uint64_t)at, r->source,
                                 r->stream.base + (uint64_t)archive_filter_bytes(r->archive, 0),
                                 len);
        else if (code == 0)
            code = filler_add(&r->filler, (uint64_t)at, data, len);
    }
    return code;
}

int reader_content(struct reader *r, struct inode *inode)
{
    uint64_t header = (uint64_t)archive_read_header_position(r->archive),
             data = (uint64_t)archive_filter_bytes(r->archive, 0);
    bool in_place = r->stream.kind == STREAM_PLAIN;
    int code;

    if (inode->size == 0)
        return 0;
    filler_begin(&r->filler);
    code = in_place ? looks_sparse(r, header, data) : 1;
    if (code == 0) {
        if (data + inode->size > r->stream.size)
            return reader_bad(r, "is cut");
        code = count_bytes(r, inode->size);
        if (code == 0)
            code = filler_extent(&r->filler, 0, r->source, r->stream.base + data, inode->size);
    } else if (code > 0) {
        code = take_blocks(r, inode, in_place);
    }
    return code < 0 ? code : filler_end(&r->filler, inode);
}
