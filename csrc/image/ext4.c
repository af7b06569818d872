/* SPDX-License-Identifier: MIT
 *
 * A sealed tree into an ext4 file system: numbers for its inodes, then each with what it holds, folders
 * before what is in them. mke2fs has made the file system; that way its layout is e2fsprogs' own.
 */
#include <fcntl.h>
#include <stdio.h>

#include "ext4.h"

static const char OP[] = "image.write";

/* ---- numbers ---- */

static int give_number(struct ext4 *e, struct inode *inode)
{
    unsigned n = ext4_numbers(inode);

    if (n > e->fs->super->s_inodes_count - (e->next - 1))
        return error_set(&e->job->error, FCPROC_ERR_SYSTEM, OP, ENOSPC,
                         "the file system has %u inodes, and %llu files are to be in it",
                         e->fs->super->s_inodes_count, (unsigned long long)e->job->tree->n_inodes);
    inode->mark = e->next;
    for (; n > 0; n--)
        ext2fs_inode_alloc_stats2(e->fs, e->next++, 1, S_ISDIR(inode->mode));
    return 0;
}

/* Those in one folder one after the other. */
static int number_folder(void *arg, const char *path, size_t len, const struct entry *entry,
                         struct inode *inode)
{
    struct ext4 *e = arg;
    int r = 0;

    (void)path, (void)len;
    if (!S_ISDIR(inode->mode))
        return 0;
    if (!entry)
        inode->mark = EXT2_ROOT_INO;
    for (size_t i = 0; r == 0 && i < inode->folder->n; i++) {
        struct entry *in = inode->folder->sorted[i];

        if (!entry && in->name_len == 10 && memcmp(in->name, "lost+found", 10) == 0) {
            if (!S_ISDIR(in->inode->mode))
                return error_set(&e->job->error, FCPROC_ERR_INVALID, OP, 0,
                                 "/lost+found is no folder, as e2fsck wants it: remove it");
            in->inode->mark = e->lost_found;
            e->lost_found = 0;
        }
        if (in->inode->mark == 0)
            r = give_number(e, in->inode);
    }
    return r < 0 ? r : job_check(e->job);
}

/* ---- inodes ---- */

static void set_time(uint32_t *low, uint32_t *extra, int64_t seconds, uint32_t ns)
{
    *low = (uint32_t)seconds;
    /* include/ext4/ext4.h: two bits of what is above 32, which themselves are signed. */
    *extra = (uint32_t)(((seconds - (int32_t)seconds) >> 32) & 3) | ns << 2;
}

static void set_times(struct ext4 *e, const struct inode *inode, struct ext2_inode_large *raw)
{
    static const int64_t first = INT32_MIN, last = ((int64_t)3 << 32) + INT32_MAX;
    int64_t at = inode->mtime;
    uint32_t ns = inode->mtime_ns;

    if (at < first || at > last) {
        job_warn(e->job, "/%s is dated out of ext4's years 1901 to 2446: the nearest is taken",
                 SHOWN(e->path, e->path_len));
        at = at < first ? first : last;
        ns = 0;
    }
    set_time(&raw->i_mtime, &raw->i_mtime_extra, at, ns);
    raw->i_atime = raw->i_ctime = raw->i_crtime = raw->i_mtime;
    raw->i_atime_extra = raw->i_ctime_extra = raw->i_crtime_extra = raw->i_mtime_extra;
}

static int set_device(struct ext4 *e, const struct inode *inode, struct ext2_inode_large *raw)
{
    uint32_t major = inode->rdev_major, minor = inode->rdev_minor;

    if (major >= 1 << 12 || minor >= 1 << 20)
        return error_set(&e->job->error, FCPROC_ERR_INVALID, OP, 0,
                         "/%s is the device %u:%u, and Linux has 4095:1048575 at the most",
                         SHOWN(e->path, e->path_len), major, minor);
    /* As old_encode_dev and new_encode_dev in linux/kdev_t.h. */
    if (major < 256 && minor < 256)
        raw->i_block[0] = major << 8 | minor;
    else
        raw->i_block[1] = (minor & 0xff) | major << 8 | (minor & ~0xffU) << 12;
    return 0;
}

static int set_target(struct ext4 *e, ext2_ino_t number, const struct inode *inode,
                      struct ext2_inode_large *raw)
{
    const struct bytes *target = inode->target;
    int r;

    if (target->len < EXT4_TARGET_INSIDE) {
        memcpy(raw->i_block, target->data, target->len);
        return 0;
    }
    if (target->len > EXT4_TARGET_MOST || target->len >= e->block_size)
        return error_set(&e->job->error, FCPROC_ERR_INVALID, OP, 0,
                         "the symbolic link /%s leads to a path of %zu bytes, and Linux follows "
                         "%d at the most",
                         SHOWN(e->path, e->path_len), target->len, EXT4_TARGET_MOST);
    r = ext4_allocate(e, 0, 1);
    if (r == 0)
        r = ext4_map(e, number, raw);
    if (r == 0)
        r = output_put(&e->out, target->data, target->len, e->runs[0].block * e->block_size);
    return r;
}

static int write_one(struct ext4 *e, ext2_ino_t number, const struct inode *inode, uint32_t nlink)
{
    struct ext2_inode_large raw = { .i_mode = (uint16_t)inode->mode,
                                    .i_extra_isize = sizeof(raw) - EXT2_GOOD_OLD_INODE_SIZE };
    errcode_t code;
    int r = 0;

    raw.i_uid = (uint16_t)inode->uid;
    raw.i_uid_high = (uint16_t)(inode->uid >> 16);
    raw.i_gid = (uint16_t)inode->gid;
    raw.i_gid_high = (uint16_t)(inode->gid >> 16);
    raw.i_links_count = (uint16_t)(nlink > EXT4_NAMES_MOST ? 1 : nlink);
    set_times(e, inode, &raw);
    e->n_runs = 0;
    switch (inode->mode & S_IFMT) {
    case S_IFDIR:
        r = ext4_folder(e, number, inode->folder, &raw);
        break;
    case S_IFREG:
        r = ext4_contents(e, number, inode, &raw);
        break;
    case S_IFLNK:
        raw.i_size = (uint32_t)inode->target->len;
        r = set_target(e, number, inode, &raw);
        break;
    case S_IFCHR:
    case S_IFBLK:
        r = set_device(e, inode, &raw);
        break;
    default:
        break;
    }
    if (r < 0)
        return r;
    code = ext2fs_write_inode_full(e->fs, number, (struct ext2_inode *)&raw, sizeof(raw));
    if (code)
        return ext4_failed(e, code, "the inode");
    return inode->xattrs ? ext4_xattrs(e, number, inode) : 0;
}

static int write_inode(void *arg, const char *path, size_t len, const struct entry *entry,
                       struct inode *inode)
{
    struct ext4 *e = arg;
    unsigned n = ext4_numbers(inode);
    ext2_ino_t number = MARK_NUMBER(inode->mark);
    uint32_t names = inode->nlink;
    int r = job_check(e->job);

    e->path = path;
    e->path_len = len;
    atomic_fetch_add_explicit(&e->job->entries, 1, memory_order_relaxed);
    if (r < 0 || inode->mark & MARK_WRITTEN)
        return r;
    inode->mark |= MARK_WRITTEN;
    if (S_ISDIR(inode->mode))
        return write_one(e, number, inode, names + (!entry && e->lost_found));
    if (n > 1)
        job_warn(
            e->job,
            "/%s has %u names, and a file of ext4 %d at the most: it became %u files that hold "
            "the same",
            SHOWN(path, len), names, EXT4_NAMES_MOST, n);
    for (; r == 0 && n > 0; n--, number++) {
        r = write_one(e, number, inode, names < EXT4_NAMES_MOST ? names : EXT4_NAMES_MOST);
        names -= EXT4_NAMES_MOST;
    }
    return r;
}

/* ---- the file system ---- */

/* What mke2fs has put in a folder that we write ourselves. */
static int empty_folder(struct ext4 *e, ext2_ino_t number)
{
    struct ext2_inode inode;
    errcode_t code = ext2fs_read_inode(e->fs, number, &inode);

    if (!code)
        code = ext2fs_punch(e->fs, number, &inode, NULL, 0, ~0ULL);
    return code ? ext4_failed(e, code, "the folders") : 0;
}

/* libext2fs closes what it was given, but when it has no memory for so much as that. */
static void close_same(int own, int fd)
{
    struct stat a, b;

    if (fstat(own, &a) == 0 && fstat(fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        (void)close(own);
}

/* Whether a group without data has a bitmap on the disk differs among the releases of e2fsprogs. */
static void have_all_bitmaps(ext2_filsys fs)
{
    for (dgrp_t group = 0; group < fs->group_desc_count; group++) {
        ext2fs_bg_flags_clear(fs, group, EXT2_BG_BLOCK_UNINIT);
        ext2fs_group_desc_csum_set(fs, group);
    }
    ext2fs_mark_bb_dirty(fs);
}

static int open_filesystem(struct ext4 *e, int fd, int64_t now)
{
    char name[16];
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    errcode_t code;

    if (own < 0)
        return image_errno(&e->job->error, OP, errno, "no descriptor to write the image by");
    (void)snprintf(name, sizeof(name), "%d", own);
    code = ext2fs_open(name, EXT2_FLAG_RW | EXT2_FLAG_64BITS, 0, 0, unixfd_io_manager, &e->fs);
    if (!code)
        code = ext2fs_read_bitmaps(e->fs);
    if (code == EXT2_ET_NO_MEMORY || code == ENOMEM) {
        if (!e->fs)
            close_same(own, fd);
        return error_nomem(&e->job->error, OP);
    }
    if (code)
        return error_set(&e->job->error, FCPROC_ERR_INVALID, OP, 0,
                         "there is no file system of mke2fs in the file: libext2fs says %ld",
                         (long)code);
    have_all_bitmaps(e->fs);
    e->fs->flags &= ~EXT2_FLAG_MASTER_SB_ONLY; /* nor may the copies be mke2fs' of then */
    e->fs->now = (time_t)now;
    e->block_size = e->fs->blocksize;
    e->cursor = e->fs->super->s_first_data_block;
    e->next = EXT2_FIRST_INODE(e->fs->super) + 1; /* behind lost+found */
    e->lost_found = EXT2_FIRST_INODE(e->fs->super);
    return 0;
}

/* mke2fs takes room on the disk for all inodes, of which most may never be. */
static void free_unused(struct ext4 *e)
{
    ext2_filsys fs = e->fs;

    for (dgrp_t group = 0; group < fs->group_desc_count; group++) {
        uint32_t used = fs->super->s_inodes_per_group - ext2fs_bg_itable_unused(fs, group);
        uint64_t start = (used * EXT2_INODE_SIZE(fs->super) + e->block_size - 1) / e->block_size;

        if (start < fs->inode_blocks_per_group)
            (void)fallocate(e->out.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                            (off_t)((ext2fs_inode_table_loc(fs, group) + start) * e->block_size),
                            (off_t)((fs->inode_blocks_per_group - start) * e->block_size));
    }
}

static int close_filesystem(struct ext4 *e)
{
    ext2_filsys fs = e->fs;
    errcode_t code;

    /* What the disk was written to in its life: that differs with the library's caching. */
    fs->super->s_kbytes_written = 0;
    ext2fs_mark_super_dirty(fs);
    free_unused(e);
    code = ext2fs_close2(fs, EXT2_FLAG_FLUSH_NO_SYNC);
    e->path_len = 0;
    e->fs = NULL;
    if (code) {
        ext2fs_free(fs);
        return ext4_failed(e, code, "the file system");
    }
    return 0;
}

static int fill(struct ext4 *e)
{
    bool given;
    int r = output_walk(e->job->tree, number_folder, e, OP, &e->job->error);

    given = e->lost_found == 0;
    if (r == 0)
        r = empty_folder(e, EXT2_ROOT_INO);
    if (r == 0 && given)
        r = empty_folder(e, EXT2_FIRST_INODE(e->fs->super));
    if (r == 0)
        r = tree_walk(e->job->tree, write_inode, e);
    return r < 0 ? r : output_flush(&e->out);
}

int ext4_write(job_t *job, int fd, int64_t now)
{
    struct ext4 e = { .job = job, .path = "" };
    int r;

    job_step(job, "writing");
    atomic_store_explicit(&job->total, job->tree->content_bytes, memory_order_relaxed);
    r = output_new(&e.out, job, fd);
    if (r == 0)
        r = open_filesystem(&e, fd, now);
    if (r == 0) {
        e.block = malloc(e.block_size);
        r = e.block ? fill(&e) : error_nomem(&job->error, OP);
    }
    if (r == 0)
        r = close_filesystem(&e);
    if (e.fs)
        ext2fs_free(e.fs);
    free(e.block);
    free(e.runs);
    output_free(&e.out);
    return r;
}
