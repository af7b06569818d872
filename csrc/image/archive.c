/* SPDX-License-Identifier: MIT
 *
 * The jobs around an archive: into the tree at once, as a layer, and the layers' merge.
 */
#include <fcntl.h>

#include "read.h"

static const char READ[] = "image.read_archive", MERGE[] = "image.merge";

struct archive_job {
    job_t job;
    struct reader reader;
    char *name;
    int fd;
    bool has_window;
    struct window window;
    bool layer;
    char digest[DIGEST_SIZE], diff_id[DIGEST_SIZE]; /* "": not asked for */
    struct fcproc_image_archive_result result;
    char got_digest[DIGEST_SIZE], got_diff_id[DIGEST_SIZE];
};

/* ---- reading ---- */

/* The archive itself holds the contents, as long as the tree does. */
static int keep_archive(struct archive_job *a)
{
    struct source source = { .owned = true };
    int r;

    source.fd = fcntl(a->reader.stream.fd, F_DUPFD_CLOEXEC, 0);
    if (source.fd < 0)
        return image_errno(&a->job.error, a->job.op, errno, "can't keep %s open", a->name);
    r = source_add(a->job.tree, &source, a->job.op, &a->job.error);
    if (r < 0)
        return r;
    a->reader.source = (uint32_t)r;
    return 0;
}

/* Will the contents of the record be seen? If it can't be read again, they are kept in any case. */
static bool is_hidden(const struct archive_job *a, const struct record *record)
{
    return a->layer && a->reader.stream.seekable && a->reader.stream.kind != STREAM_PLAIN &&
           layer_hides(a->job.tree, record->path->data, record->path->len);
}

static int take_entry(struct archive_job *a, struct layer *layer, struct archive_entry *entry)
{
    struct reader *reader = &a->reader;
    struct record record;
    bool skip;
    int r = reader_record(reader, entry, a->layer, &record, &skip);

    if (r < 0 || skip)
        return r;
    if (record.kind == RECORD_ADD && S_ISREG(record.inode->mode) && record.inode->size > 0) {
        record.skipped = is_hidden(a, &record);
        if (record.skipped)
            a->result.hidden_bytes += record.inode->size;
        r = record.skipped ? 0 : reader_content(reader, record.inode);
    }
    if (r < 0)
        return r;
    atomic_fetch_add_explicit(&a->job.entries, 1, memory_order_relaxed);
    if (!layer)
        return record_apply(a->job.tree, &record, a->job.op, &a->job.error);
    return layer_add(layer, &record) < 0 ? error_nomem(&a->job.error, a->job.op) : 0;
}

static int compare_digest(struct archive_job *a, const char *what, const char *wanted,
                          const char *got)
{
    if (!wanted[0] || strcmp(wanted, got) == 0)
        return 0;
    return error_set(&a->job.error, FCPROC_ERR_INVALID, a->job.op, 0,
                     "%s is not what it should be: its %s is %s, not %s",
                     SHOWN(a->name, strlen(a->name)), what, got, wanted);
}

static int finish(struct archive_job *a)
{
    struct stream *s = &a->reader.stream;
    int r = 0;

    if (s->hashes || s->kind >= STREAM_GZIP)
        r = stream_finish(s, a->got_digest, a->got_diff_id);
    if (r == 0)
        r = compare_digest(a, "digest", a->digest, a->got_digest);
    if (r == 0)
        r = compare_digest(a, "diff_id", a->diff_id, a->got_diff_id);
    if (r == 0 && a->reader.unmarked && !a->digest[0] && !a->diff_id[0])
        r = error_set(&a->job.error, FCPROC_ERR_INVALID, a->job.op, 0,
                      "%s is cut: it ends without the two blocks of zeros that end a tar",
                      SHOWN(a->name, strlen(a->name)));
    /* Some builders write every layer so. */
    if (r == 0 && a->reader.unmarked && !a->layer)
        job_warn(&a->job, "%s has no end mark: it may be cut", s->name);
    a->result.packed_bytes = s->packed;
    a->result.bytes = s->plain;
    a->result.entries = atomic_load(&a->job.entries);
    return r;
}

static int keep_layer(struct archive_job *a, struct layer *layer)
{
    layer->base = a->reader.stream.base;
    layer->size = a->reader.stream.size;
    for (size_t i = 0; i < layer->n; i++)
        if (layer->records[i].skipped) {
            layer->fd = fcntl(a->reader.stream.fd, F_DUPFD_CLOEXEC, 0);
            if (layer->fd < 0)
                return image_errno(&a->job.error, a->job.op, errno, "can't keep %s open", a->name);
            break;
        }
    return layer_end(a->job.tree, layer) < 0 ? error_nomem(&a->job.error, a->job.op) : 0;
}

static int archive_run(job_t *job)
{
    struct archive_job *a = (struct archive_job *)job;
    bool hashes = a->layer || a->digest[0] || a->diff_id[0];
    struct layer *layer = NULL;
    struct archive_entry *entry;
    int r;

    job_step(job, "reading");
    r = reader_open(&a->reader, job, a->fd, a->has_window ? &a->window : NULL, a->name, hashes);
    a->fd = -EBADF;
    a->reader.pads = a->digest[0] || a->diff_id[0];
    if (r == 0 && a->reader.stream.kind == STREAM_PLAIN)
        r = keep_archive(a);
    if (r == 0 && a->layer && !(layer = layer_new(job->tree, a->name)))
        r = error_nomem(&job->error, job->op);
    while (r == 0 && (r = reader_next(&a->reader, &entry)) > 0)
        r = take_entry(a, layer, entry);
    if (r == 0)
        r = finish(a);
    if (r == 0 && layer)
        r = keep_layer(a, layer);
    reader_close(&a->reader);
    return r;
}

static void archive_destroy(job_t *job)
{
    struct archive_job *a = (struct archive_job *)job;

    close_fd(&a->fd);
    free(a->name);
}

/* ---- merging ---- */

/* The archive of a layer once more, for what is seen after all. */
static int read_again(job_t *job, struct layer *layer)
{
    struct reader reader = { 0 };
    struct archive_entry *entry;
    struct window window = { layer->base, layer->size };
    size_t i = 0;
    int r = reader_open(&reader, job, take_fd(&layer->fd), &window, layer->name, false);

    reader.pads = true;
    while (r == 0 && (r = reader_next(&reader, &entry)) > 0) {
        struct record *record;

        while (i < layer->n && layer->records[i].ordinal < reader.ordinal)
            i++;
        r = 0;
        if (i == layer->n)
            break;
        record = &layer->records[i];
        if (record->ordinal == reader.ordinal && record->skipped && record->inode->nlink > 0)
            r = reader_content(&reader, record->inode);
    }
    reader_close(&reader);
    return r;
}

static bool is_wanted(const struct layer *layer)
{
    for (size_t i = 0; i < layer->n; i++)
        if (layer->records[i].skipped && layer->records[i].inode->nlink > 0)
            return true;
    return false;
}

static int merge_run(job_t *job)
{
    int r;

    job_step(job, "merging");
    r = layers_apply(job->tree, job->op, &job->error);
    for (struct layer *layer = job->tree->layers; r == 0 && layer; layer = layer->above)
        if (is_wanted(layer))
            r = read_again(job, layer);
    layers_free(job->tree);
    return r;
}

/* ---- for a host ---- */

static int take_digest(char to[DIGEST_SIZE], const char *digest, const char *what, const char *op,
                       fcproc_error *err)
{
    if (!digest)
        return 0;
    if (!digest_is_valid(digest))
        return error_set(err, FCPROC_ERR_INVALID, op, 0,
                         "the %s %s is not sha256: and 64 hexadecimal digits", what,
                         SHOWN(digest, strlen(digest)));
    memcpy(to, digest, DIGEST_SIZE);
    return 0;
}

static int open_archive(struct archive_job *a, const struct fcproc_image_archive *spec,
                        fcproc_error *err)
{
    struct stat st;

    if (spec->path)
        a->fd = open(spec->path, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    else
        a->fd = fcntl(spec->fd, F_DUPFD_CLOEXEC, 0);
    if (a->fd < 0)
        return image_errno(err, READ, errno, "can't open %s", a->name);
    if (fstat(a->fd, &st) < 0)
        return image_errno(err, READ, errno, "can't look at %s", a->name);
    if (S_ISDIR(st.st_mode))
        return error_set(err, FCPROC_ERR_CONFLICT, READ, 0, "%s is a folder", a->name);
    if (spec->length > 0) {
        if (!S_ISREG(st.st_mode) || spec->offset + spec->length < spec->offset ||
            spec->offset + spec->length > (uint64_t)st.st_size)
            return error_set(err, FCPROC_ERR_INVALID, READ, 0,
                             "%s has not the %llu bytes from %llu on", a->name,
                             (unsigned long long)spec->length, (unsigned long long)spec->offset);
        a->has_window = true;
        a->window = (struct window){ spec->offset, spec->length };
    }
    return 0;
}

FCPROC_API int fcproc_image_read_archive(fcproc_image_tree *handle,
                                         const struct fcproc_image_archive *spec,
                                         fcproc_image_job **ret, fcproc_error *err)
{
    struct tree *tree = (struct tree *)handle;
    struct archive_job *a;
    job_t *job;
    int r = check_struct(spec, sizeof(*spec), "fcproc_image_archive", READ, err);

    if (r == 0)
        r = tree_check(tree, spec->layer ? TREE_ADDS_LAYER : TREE_CHANGES, READ, err);
    if (r == 0)
        r = job_new(sizeof(*a), READ, tree, archive_run, archive_destroy, &job, err);
    if (r < 0)
        return r;
    a = (struct archive_job *)job;
    a->fd = -EBADF;
    a->layer = spec->layer;
    a->name = strdup(spec->path                 ? spec->path
                     : spec->fd == STDIN_FILENO ? "standard input"
                                                : "the stream");
    job->changes_tree = true;
    r = a->name ? open_archive(a, spec, err) : error_nomem(err, READ);
    if (r == 0)
        r = take_digest(a->digest, spec->digest, "digest", READ, err);
    if (r == 0)
        r = take_digest(a->diff_id, spec->diff_id, "diff_id", READ, err);
    return job_hand_out(job, r, ret, err);
}

FCPROC_API const struct fcproc_image_archive_result *fcproc_image_read_archive_result(
    const fcproc_image_job *job)
{
    struct archive_job *a = (struct archive_job *)(uintptr_t)job;

    a->result.digest = a->got_digest[0] ? a->got_digest : NULL;
    a->result.diff_id = a->got_diff_id[0] ? a->got_diff_id : NULL;
    return &a->result;
}

FCPROC_API int fcproc_image_merge(fcproc_image_tree *handle, fcproc_image_job **ret,
                                  fcproc_error *err)
{
    struct tree *tree = (struct tree *)handle;
    job_t *job;
    int r = tree_check(tree, TREE_MERGES, MERGE, err);

    if (r == 0)
        r = job_new(sizeof(*job), MERGE, tree, merge_run, NULL, &job, err);
    if (r < 0)
        return r;
    job->changes_tree = true;
    return job_hand_out(job, 0, ret, err);
}
