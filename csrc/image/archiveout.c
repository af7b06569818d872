/* SPDX-License-Identifier: MIT
 *
 * A sealed tree as a tar (pax) or a cpio (newc, which Linux unpacks as an initramfs), by libarchive.
 * Sorted, and without anything of whoever builds: the same tree gives the same bytes.
 */
#include <archive.h>
#include <archive_entry.h>

#include "output.h"
#include "pipe.h"

enum { RECORD = 10240, CPIO_MOST = UINT32_MAX };

struct writer {
    job_t *job;
    int fd;
    enum archive_format format;
    struct archive *archive;
    struct archive_entry *entry;
    struct output out; /* what reads the sources */
    char **names; /* by an inode's number: the first of its names, of those that have several */
    size_t n_names, room_names;
    uint64_t bare; /* that lose their attributes */
    char *first_bare;
    bool ending;    /* all entries are in it */
    bool giving_up; /* what is still written goes nowhere */
};

static int nomem(struct writer *w)
{
    return error_nomem(&w->job->error, w->job->op);
}

/* What stopped the writing has told its own error. */
static int archive_failed(struct writer *w, const char *path, size_t len)
{
    int sys_errno = archive_errno(w->archive);
    const char *text = archive_error_string(w->archive);

    if (w->job->error.code != 0)
        return w->job->error.code;
    /* It has no word for some of its own allocations, and for nothing else. */
    if (sys_errno == ENOMEM || !text)
        return nomem(w);
    return error_set(&w->job->error, FCPROC_ERR_INVALID, w->job->op, sys_errno > 0 ? sys_errno : 0,
                     "can't write /%s: %s", SHOWN(path, len), text);
}

/* libarchive loses its memory when it hears of an error in a header: it is told when it is freed, and
 * its caller looks at the job's. */
static la_ssize_t on_write(struct archive *archive, void *arg, const void *data, size_t len)
{
    struct writer *w = arg;
    int r = 0;

    (void)archive;
    if (w->giving_up)
        return -1;
    if (w->job->error.code == 0 && job_check(w->job) == 0)
        r = pipe_write(w->job, w->fd, data, len);
    if (r == -ECANCELED)
        (void)job_check(w->job);
    /* A reader that has seen the end need not take what fills the last record. */
    else if (r < 0 && !(r == -EPIPE && w->ending))
        (void)image_errno(&w->job->error, w->job->op, -r, "can't write the %s",
                          w->format == ARCHIVE_TAR ? "tar" : "cpio");
    return (la_ssize_t)len;
}

/* ---- contents ---- */

static int put_data(struct writer *w, size_t len, const char *path, size_t path_len)
{
    if (archive_write_data(w->archive, w->out.buffer, len) != (la_ssize_t)len ||
        w->job->error.code != 0)
        return archive_failed(w, path, path_len);
    return job_check(w->job); /* in a hole nothing is written */
}

/* libarchive leaves out those of holes that it was told of. */
static int put_zeros(struct writer *w, uint64_t len, const char *path, size_t path_len)
{
    int r = 0;

    memset(w->out.buffer, 0, len < JOB_BLOCK ? (size_t)len : JOB_BLOCK);
    while (r == 0 && len > 0) {
        size_t n = len < JOB_BLOCK ? (size_t)len : JOB_BLOCK;

        r = put_data(w, n, path, path_len);
        len -= n;
    }
    return r;
}

static int put_contents(struct writer *w, const struct inode *inode, const char *path, size_t len)
{
    uint64_t at = 0;
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < inode->n_extents; i++) {
        const struct extent *x = &inode->extents[i];

        r = put_zeros(w, x->at - at, path, len);
        for (uint64_t done = 0; r == 0 && done < x->len;) {
            size_t n = x->len - done < JOB_BLOCK ? (size_t)(x->len - done) : JOB_BLOCK;

            r = output_read(&w->out, x->source, x->from + done, w->out.buffer, n, path, len);
            if (r == 0)
                r = put_data(w, n, path, len);
            done += n;
        }
        at = x->at + x->len;
    }
    return r < 0 ? r : put_zeros(w, inode->size - at, path, len);
}

/* ---- entries ---- */

/* Here and below libarchive returns nothing when it has no memory, and would leave out what it was given:
 * it is counted. */
static int set_holes(struct writer *w, const struct inode *inode)
{
    uint64_t data = 0, end = 0;
    int n = 0;

    for (uint32_t i = 0; i < inode->n_extents; i++)
        data += inode->extents[i].len;
    if (w->format == ARCHIVE_CPIO || data == inode->size)
        return 0;
    for (uint32_t i = 0; i < inode->n_extents; i++) {
        const struct extent *x = &inode->extents[i];

        archive_entry_sparse_add_entry(w->entry, (la_int64_t)x->at, (la_int64_t)x->len);
        n += n == 0 || x->at != end; /* one that follows closely is joined */
        end = x->at + x->len;
    }
    if (data == 0) {
        archive_entry_sparse_add_entry(w->entry, (la_int64_t)inode->size, 0);
        n = 1;
    }
    return archive_entry_sparse_count(w->entry) < n ? nomem(w) : 0;
}

/* So many, of so many bytes? */
static bool has_xattrs(struct archive_entry *entry, int n, uint64_t bytes)
{
    const char *name;
    const void *value;
    size_t len;

    if (archive_entry_xattr_reset(entry) != n)
        return false;
    while (archive_entry_xattr_next(entry, &name, &value, &len) == ARCHIVE_OK)
        bytes -= len;
    return bytes == 0;
}

static int set_xattrs(struct writer *w, const struct inode *inode, const char *path, size_t len)
{
    uint64_t bytes = 0;
    int n = 0;

    /* A cpio has none. */
    if (inode->xattrs && w->format == ARCHIVE_CPIO && w->bare++ == 0) {
        w->first_bare = strndup(path, len);
        if (!w->first_bare)
            return nomem(w);
    }
    for (const struct xattr *x = inode->xattrs; x && w->format == ARCHIVE_TAR; x = x->next) {
        char *name = strndup(x->data, x->name_len);

        if (!name)
            return nomem(w);
        archive_entry_xattr_add_entry(w->entry, name, x->data + x->name_len, x->value_len);
        free(name);
        n++;
        bytes += x->value_len;
    }
    return has_xattrs(w->entry, n, bytes) ? 0 : nomem(w);
}

/* The number of an inode with several names; *ret_again: one of them is written already. */
static int number_links(struct writer *w, struct inode *inode, const char *name, bool *ret_again)
{
    *ret_again = inode->mark != 0;
    if (*ret_again)
        return 0;
    if (w->n_names == w->room_names) {
        size_t room = w->room_names ? 2 * w->room_names : 64;
        char **names = realloc(w->names, room * sizeof(*names));

        if (!names)
            return nomem(w);
        w->names = names;
        w->room_names = room;
    }
    w->names[w->n_names] = strdup(name);
    if (!w->names[w->n_names])
        return nomem(w);
    inode->mark = ++w->n_names;
    return 0;
}

/* A tar names the first of an inode's names; a cpio has its number in each. */
static int set_links(struct writer *w, struct inode *inode, const char *name, bool *ret_again)
{
    int r;

    *ret_again = false;
    if (S_ISDIR(inode->mode) || inode->nlink < 2)
        return 0;
    r = number_links(w, inode, name, ret_again);
    if (r < 0)
        return r;
    if (w->format == ARCHIVE_CPIO) {
        archive_entry_set_nlink(w->entry, inode->nlink);
        archive_entry_set_ino64(w->entry, (la_int64_t)inode->mark);
    } else if (*ret_again) {
        archive_entry_copy_hardlink(w->entry, w->names[inode->mark - 1]);
    }
    if (*ret_again)
        archive_entry_set_size(w->entry, 0);
    return 0;
}

/* A cpio has 32 bits for the seconds, and libarchive would put there what fits. */
static void set_time(struct writer *w, const struct inode *inode, const char *path, size_t len)
{
    int64_t at = inode->mtime;

    if (w->format == ARCHIVE_CPIO && (at < 0 || at > CPIO_MOST)) {
        job_warn(w->job, "/%s is dated out of a cpio's years 1970 to 2106: the nearest is taken",
                 SHOWN(path, len));
        at = at < 0 ? 0 : CPIO_MOST;
    }
    archive_entry_set_mtime(w->entry, at, (long)inode->mtime_ns);
}

static int set_entry(struct writer *w, struct inode *inode, const char *path, size_t len,
                     bool *ret_again)
{
    static const char here[] = "./";
    char name[TREE_PATH_MOST + sizeof(here) + 1];
    size_t at = 0;
    int r;

    /* As tar and cpio of the folder itself would write it. */
    if (w->format == ARCHIVE_TAR || len == 0) {
        memcpy(name, here, sizeof(here));
        at = w->format == ARCHIVE_TAR ? 2 : 1;
    }
    memcpy(name + at, path, len);
    name[at + len] = '\0';
    archive_entry_clear(w->entry);
    archive_entry_copy_pathname(w->entry, name);
    archive_entry_set_mode(w->entry, (mode_t)inode->mode);
    archive_entry_set_uid(w->entry, inode->uid);
    archive_entry_set_gid(w->entry, inode->gid);
    set_time(w, inode, path, len);
    archive_entry_set_nlink(w->entry, 1);
    archive_entry_set_size(w->entry, S_ISREG(inode->mode) ? (la_int64_t)inode->size : 0);
    if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode)) {
        archive_entry_set_rdevmajor(w->entry, inode->rdev_major);
        archive_entry_set_rdevminor(w->entry, inode->rdev_minor);
    }
    if (S_ISLNK(inode->mode))
        archive_entry_copy_symlink(w->entry, inode->target->data);
    r = set_links(w, inode, name, ret_again);
    if (r < 0 || *ret_again)
        return r;
    if (S_ISREG(inode->mode))
        r = set_holes(w, inode);
    return r < 0 ? r : set_xattrs(w, inode, path, len);
}

static int write_entry(void *arg, const char *path, size_t len, const struct entry *entry,
                       struct inode *inode)
{
    struct writer *w = arg;
    bool again = false;
    int r = job_check(w->job);

    (void)entry;
    atomic_fetch_add_explicit(&w->job->entries, 1, memory_order_relaxed);
    if (r < 0)
        return r;
    if (S_ISSOCK(inode->mode) && w->format == ARCHIVE_TAR) {
        job_warn(w->job, "the socket /%s is left out: a tar has none", SHOWN(path, len));
        return 0;
    }
    if (w->format == ARCHIVE_CPIO && S_ISREG(inode->mode) && inode->size > CPIO_MOST)
        return error_set(&w->job->error, FCPROC_ERR_INVALID, w->job->op, 0,
                         "/%s has %llu bytes, and a file in a cpio less than 4 GiB",
                         SHOWN(path, len), (unsigned long long)inode->size);
    r = set_entry(w, inode, path, len, &again);
    if (r < 0)
        return r;
    /* ARCHIVE_WARN: a name that is not UTF-8 is written as its bytes. */
    if (archive_write_header(w->archive, w->entry) < ARCHIVE_WARN || w->job->error.code != 0)
        return archive_failed(w, path, len);
    return S_ISREG(inode->mode) && !again ? put_contents(w, inode, path, len) : 0;
}

/* ---- the whole ---- */

static int check(int r)
{
    return r < ARCHIVE_WARN ? -1 : 0;
}

static int has_fraction(void *arg, const char *path, size_t len, const struct entry *entry,
                        struct inode *inode)
{
    (void)arg, (void)path, (void)len, (void)entry;
    return inode->mtime_ns != 0;
}

static int set_tar(struct writer *w)
{
    int fractions = output_walk(w->job->tree, has_fraction, NULL, w->job->op, &w->job->error);

    if (fractions < 0)
        return fractions;
    /* The restricted form has headers of its own only where they say more than the old ones, but for
     * the fractions of seconds. */
    return check(fractions ? archive_write_set_format_pax(w->archive)
                           : archive_write_set_format_pax_restricted(w->archive)) |
           check(archive_write_set_options(w->archive, "xattrheader=SCHILY"));
}

static int set_up(struct writer *w, bool gzip)
{
    struct archive *a = w->archive;
    int r = w->format == ARCHIVE_TAR ? set_tar(w) : check(archive_write_set_format_cpio_newc(a));

    if (gzip)
        r |= check(archive_write_add_filter_gzip(a)) |
             check(archive_write_set_options(a, "gzip:!timestamp"));
    r |= check(archive_write_set_bytes_per_block(a, JOB_BLOCK)) |
         check(archive_write_set_bytes_in_last_block(a, w->format == ARCHIVE_TAR && !gzip ? RECORD
                                                                                          : 1)) |
         check(archive_write_open(a, w, NULL, on_write, NULL));
    return r < 0 ? archive_failed(w, "", 0) : 0;
}

int archive_out(job_t *job, int fd, enum archive_format format, bool gzip)
{
    struct writer w = { .job = job, .fd = fd, .format = format };
    int r;

    job_step(job, "writing");
    atomic_store_explicit(&job->total, job->tree->content_bytes, memory_order_relaxed);
    r = output_new(&w.out, job, -1);
    w.archive = archive_write_new();
    w.entry = archive_entry_new();
    if (r == 0 && (!w.archive || !w.entry))
        r = nomem(&w);
    if (r == 0)
        r = set_up(&w, gzip);
    if (r == 0)
        r = output_walk(job->tree, write_entry, &w, job->op, &job->error);
    w.ending = true;
    if (r == 0 && w.bare > 0)
        job_warn(job, "a cpio has no attributes: %llu files lose theirs, first /%s",
                 (unsigned long long)w.bare, SHOWN(w.first_bare, strlen(w.first_bare)));
    if (r == 0 && (check(archive_write_close(w.archive)) < 0 || job->error.code != 0))
        r = archive_failed(&w, "", 0);
    w.giving_up = r < 0;
    archive_entry_free(w.entry);
    archive_write_free(w.archive);
    for (size_t i = 0; i < w.n_names; i++)
        free(w.names[i]);
    free(w.names);
    free(w.first_bare);
    output_free(&w.out);
    return r;
}
