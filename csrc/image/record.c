/* SPDX-License-Identifier: MIT
 *
 * An archive's entry as a record. What makes archives may be hostile: all that an entry says is judged
 * first.
 */
#include <archive_entry.h>

#include "read.h"

#define LARGEST_FILE ((uint64_t)1 << 44) /* of ext4, with blocks of 4 KiB */

/* ---- names ---- */

/* Without slashes in front, behind or in a row, and without ".". */
static int clean_path(struct reader *r, const char *path, const char *what, struct bytes **ret)
{
    char clean[TREE_PATH_MOST + 1];
    size_t len = 0;

    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/");

        if (n == 2 && p[0] == '.' && p[1] == '.')
            return reader_bad(r, what);
        if (n > TREE_NAME_MOST)
            return reader_bad(r, "has a name of more than 255 bytes in its path");
        if (n > 0 && !(n == 1 && p[0] == '.')) {
            if (len + (len > 0) + n > TREE_PATH_MOST)
                return reader_bad(r, "has a path of more than 4,095 bytes");
            if (len > 0)
                clean[len++] = '/';
            memcpy(clean + len, p, n);
            len += n;
        }
        p += n;
        p += strspn(p, "/");
    }
    *ret = tree_bytes(r->tree, clean, len);
    return *ret ? 0 : reader_nomem(r);
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
        return record->path ? 0 : reader_nomem(r);
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
            return reader_bad(r, "is a whiteout of no name");
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
        return reader_bad(r, "has more than 1,000 xattrs");
    while (left-- > 0 && archive_entry_xattr_next(entry, &name, &value, &len) == ARCHIVE_OK) {
        size_t name_len = strlen(name);

        if (name_len == 0 || name_len > XATTR_NAME_MOST || len > XATTR_SIZE_MOST)
            return reader_bad(r, "has an xattr that no file can have");
        if (tree_set_xattr(r->tree, inode, name, name_len, value, len) < 0)
            return reader_nomem(r);
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
        return reader_bad(r, "has an owner that is no 32-bit number");
    inode->uid = (uint32_t)uid;
    inode->gid = (uint32_t)gid;
    inode->mtime = archive_entry_mtime(entry);
    inode->mtime_ns = (uint32_t)archive_entry_mtime_nsec(entry);
    if (inode->mtime_ns > 999999999)
        return reader_bad(r, "has a time that is none");
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
            return reader_bad(r, "is larger than a file can be");
        inode->size = (uint64_t)size;
        return 0;
    case S_IFLNK:
        target = archive_entry_symlink(entry);
        if (!target || !*target || strlen(target) > TREE_PATH_MOST)
            return reader_bad(r, "is a symbolic link without a target of 1 to 4,095 bytes");
        inode->mode = S_IFLNK | 0777; /* Linux has no other */
        inode->size = strlen(target);
        inode->target = tree_bytes(r->tree, target, (size_t)inode->size);
        return inode->target ? 0 : reader_nomem(r);
    case S_IFCHR:
    case S_IFBLK:
        inode->rdev_major = (uint32_t)archive_entry_rdevmajor(entry);
        inode->rdev_minor = (uint32_t)archive_entry_rdevminor(entry);
        return 0;
    case S_IFDIR:
    case S_IFIFO:
        return 0;
    default:
        return reader_bad(r, "is of an unknown kind");
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
        return reader_bad(r, "has no name");
    ret->inode = tree_inode(tree, mode);
    if (!ret->inode)
        return reader_nomem(r);
    code = take_kind(r, entry, ret->inode);
    return code < 0 ? code : take_attributes(r, entry, ret->inode);
}
