/* SPDX-License-Identifier: MIT
 *
 * Jobs that read archives: each entry becomes a record, judged first, for what makes archives may be
 * hostile. Contents stay in an archive that is not packed, else they go to the spool.
 */
#include "read.h"

#include <archive_entry.h>
#include <fcntl.h>

#define LARGEST_FILE ((uint64_t)1 << 44) /* of ext4, with blocks of 4 KiB */

static int bad(struct reader *r, const char *why)
{
    return error_set(&r->job->error, FCPROC_ERR_INVALID, r->job->op, 0, "the entry %s %s",
                     r->shown.text, why);
}

static int nomem(struct reader *r)
{
    return error_nomem(&r->job->error, r->job->op);
}

/* What libarchive says, with where it was. */
static int archive_failed(struct reader *r)
{
    const char *why = archive_error_string(r->archive);

    if (r->stream.code < 0)
        return r->stream.code;
    if (archive_errno(r->archive) == ENOMEM)
        return nomem(r);
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
        return nomem(r);
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

/* Without sums, a tar that ends where an entry could begin may be one that was cut. */
static int check_end(struct reader *r)
{
    if (archive_read_header_position(r->archive) < archive_filter_bytes(r->archive, 0))
        return 0;
    r->unmarked = true;
    return 0;
}

int reader_next(struct reader *r, struct archive_entry **ret)
{
    const char *name;
    int code = job_check(r->job), a;

    if (code < 0)
        return code;
    a = archive_read_next_header(r->archive, ret);
    if (a == ARCHIVE_EOF)
        return check_end(r);
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
        return bad(r, "has no name");
    return 1;
}

/* ---- names ---- */

/* Without slashes in front, behind or in a row, and without ".". */
static int clean_path(struct reader *r, const char *path, const char *what, struct bytes **ret)
{
    char clean[TREE_PATH_MOST + 1];
    size_t len = 0;

    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/");

        if (n == 2 && p[0] == '.' && p[1] == '.')
            return bad(r, what);
        if (n > TREE_NAME_MOST)
            return bad(r, "has a name of more than 255 bytes in its path");
        if (n > 0 && !(n == 1 && p[0] == '.')) {
            if (len + (len > 0) + n > TREE_PATH_MOST)
                return bad(r, "has a path of more than 4,095 bytes");
            if (len > 0)
                clean[len++] = '/';
            memcpy(clean + len, p, n);
            len += n;
        }
        p += n;
        p += strspn(p, "/");
    }
    *ret = tree_bytes(r->tree, clean, len);
    return *ret ? 0 : nomem(r);
}

/* ---- whiteouts ---- */

static const char WHITEOUT[] = ".wh.", META[] = ".wh..wh.", OPAQUE[] = ".wh..wh..opq",
                  PLNK[] = ".wh..wh.plnk";
#define STARTS(name, len, prefix) \
    ((len) >= sizeof(prefix) - 1 && memcmp(name, prefix, sizeof(prefix) - 1) == 0)

/* *ret_skip: it is nothing at all. */
static int judge_whiteout(struct reader *r, struct record *record, bool *ret_skip)
{
    struct bytes *path = record->path;
    const char *last = memrchr(path->data, '/', path->len);
    size_t before = last ? (size_t)(last - path->data) : 0, len;

    last = last ? last + 1 : path->data;
    len = path->len - (size_t)(last - path->data);
    *ret_skip = false;
    if (len == sizeof(OPAQUE) - 1 && STARTS(last, len, OPAQUE)) {
        record->kind = RECORD_OPAQUE;
        record->path = tree_bytes(r->tree, path->data, before);
        return record->path ? 0 : nomem(r);
    }
    /* aufs's own: the files in the folder of its hard links are linked to. */
    if (STARTS(path->data, path->len, META) || memmem(path->data, path->len, "/.wh..wh.", 9)) {
        *ret_skip = !(STARTS(path->data, path->len, PLNK) &&
                      (path->data[sizeof(PLNK) - 1] == '/' || path->len == sizeof(PLNK) - 1));
        return 0;
    }
    if (STARTS(last, len, WHITEOUT)) {
        size_t n = len - (sizeof(WHITEOUT) - 1);
        const char *name = last + sizeof(WHITEOUT) - 1;

        if (n == 0 || (n == 1 && name[0] == '.') || (n == 2 && name[0] == '.' && name[1] == '.'))
            return bad(r, "is a whiteout of no name");
        record->kind = RECORD_WHITEOUT;
        memmove(path->data + (last - path->data), name, n + 1);
        path->len -= sizeof(WHITEOUT) - 1;
    }
    return 0;
}

/* ---- attributes ---- */

static int take_xattrs(struct reader *r, struct archive_entry *entry, struct inode *inode)
{
    int left = archive_entry_xattr_reset(entry);
    const void *value;
    const char *name;
    size_t len;

    if (archive_entry_acl_types(entry) != 0)
        job_warn(r->job, "%s: its access control list is not kept", r->shown.text);
    if (left > XATTRS_MOST)
        return bad(r, "has more than 1,000 xattrs");
    while (left-- > 0 && archive_entry_xattr_next(entry, &name, &value, &len) == ARCHIVE_OK) {
        size_t name_len = strlen(name);

        if (name_len == 0 || name_len > XATTR_NAME_MOST || len > XATTR_SIZE_MOST)
            return bad(r, "has an xattr that no file can have");
        if (tree_set_xattr(r->tree, inode, name, name_len, value, len) < 0)
            return nomem(r);
    }
    return 0;
}

static bool is_id(int64_t id)
{
    return id >= 0 && id < UINT32_MAX; /* the last one is nobody's: chown(2) */
}

static int take_attributes(struct reader *r, struct archive_entry *entry, struct inode *inode)
{
    int64_t uid = archive_entry_uid(entry), gid = archive_entry_gid(entry);

    if (!is_id(uid) || !is_id(gid))
        return bad(r, "has an owner that is no 32-bit number");
    inode->uid = (uint32_t)uid;
    inode->gid = (uint32_t)gid;
    inode->mtime = archive_entry_mtime(entry);
    inode->mtime_ns = (uint32_t)archive_entry_mtime_nsec(entry);
    if (inode->mtime_ns > 999999999)
        return bad(r, "has a time that is none");
    /* Of "-1.25" libarchive makes -1 s and 0.25 s more. */
    if (inode->mtime < 0 && inode->mtime_ns > 0) {
        inode->mtime--;
        inode->mtime_ns = 1000000000 - inode->mtime_ns;
    }
    return take_xattrs(r, entry, inode);
}

static int take_kind(struct reader *r, struct archive_entry *entry, struct inode *inode)
{
    const char *target;
    int64_t size;

    switch (inode->mode & S_IFMT) {
    case S_IFREG:
        size = archive_entry_size(entry);
        if (size < 0 || (uint64_t)size > LARGEST_FILE)
            return bad(r, "is larger than a file can be");
        inode->size = (uint64_t)size;
        return 0;
    case S_IFLNK:
        target = archive_entry_symlink(entry);
        if (!target || !*target || strlen(target) > TREE_PATH_MOST)
            return bad(r, "is a symbolic link without a target of 1 to 4,095 bytes");
        inode->mode = S_IFLNK | 0777; /* Linux has no other */
        inode->size = strlen(target);
        inode->target = tree_bytes(r->tree, target, (size_t)inode->size);
        return inode->target ? 0 : nomem(r);
    case S_IFCHR:
    case S_IFBLK:
        inode->rdev_major = (uint32_t)archive_entry_rdevmajor(entry);
        inode->rdev_minor = (uint32_t)archive_entry_rdevminor(entry);
        return 0;
    case S_IFDIR:
    case S_IFIFO:
        return 0;
    default:
        return bad(r, "is of an unknown kind");
    }
}

int reader_record(struct reader *r, struct archive_entry *entry, bool layer, struct record *ret,
                  bool *ret_skip)
{
    const char *link = archive_entry_hardlink(entry);
    uint32_t mode = (uint32_t)archive_entry_mode(entry);
    struct tree *tree = r->tree;
    int code;

    *ret = (struct record){ .ordinal = r->ordinal };
    *ret_skip = false;
    if (++tree->read_entries > tree->limit_entries)
        return error_set(&r->job->error, FCPROC_ERR_INVALID, r->job->op, 0,
                         "%s has more entries than the limit of %llu, from %s on", r->stream.name,
                         (unsigned long long)tree->limit_entries, r->shown.text);
    if (tree->memory > tree->limit_memory)
        return error_set(&r->job->error, FCPROC_ERR_INVALID, r->job->op, 0,
                         "what %s says of its entries, up to %s, takes more than the limit of %llu "
                         "bytes of memory",
                         r->stream.name, r->shown.text, (unsigned long long)tree->limit_memory);
    code = clean_path(r, r->entry_name, "leads out of the tree by \"..\"", &ret->path);
    if (code == 0 && layer)
        code = judge_whiteout(r, ret, ret_skip);
    if (code < 0 || *ret_skip || ret->kind >= RECORD_WHITEOUT)
        return code;
    if (link) {
        ret->kind = RECORD_LINK;
        return clean_path(r, link, "is a hard link out of the tree", &ret->link);
    }
    if (layer && S_ISCHR(mode) && archive_entry_rdevmajor(entry) == 0 &&
        archive_entry_rdevminor(entry) == 0) { /* overlayfs's own whiteout */
        ret->kind = RECORD_WHITEOUT;
        return 0;
    }
    if (ret->path->len == 0 && !S_ISDIR(mode))
        return bad(r, "has no name");
    ret->inode = tree_inode(tree, mode);
    if (!ret->inode)
        return nomem(r);
    code = take_kind(r, entry, ret->inode);
    return code < 0 ? code : take_attributes(r, entry, ret->inode);
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
        return nomem(r);
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
            code = bad(r, "holds more than its size");
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
            return bad(r, "is cut");
        code = count_bytes(r, inode->size);
        if (code == 0)
            code = filler_extent(&r->filler, 0, r->source, r->stream.base + data, inode->size);
    } else if (code > 0) {
        code = take_blocks(r, inode, in_place);
    }
    return code < 0 ? code : filler_end(&r->filler, inode);
}
