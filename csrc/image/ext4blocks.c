/* SPDX-License-Identifier: MIT
 *
 * Blocks of an ext4 file system: which are taken, and the extents that tell of it. And what else the files
 * about it share.
 */
#include "ext4.h"

int ext4_failed(struct ext4 *e, errcode_t code, const char *what)
{
    fcproc_error *err = &e->job->error;

    switch (code) {
    case EXT2_ET_NO_MEMORY:
    case ENOMEM:
        return error_nomem(err, e->job->op);
    case EXT2_ET_BLOCK_ALLOC_FAIL:
        return error_set(err, FCPROC_ERR_SYSTEM, e->job->op, ENOSPC,
                         "the file system of %llu blocks is full at /%s",
                         (unsigned long long)ext2fs_blocks_count(e->fs->super),
                         SHOWN(e->path, e->path_len));
    default:
        break;
    }
    if (code > 0 && code < 256) /* an errno */
        return image_errno(err, e->job->op, (int)code, "can't write %s of /%s", what,
                           SHOWN(e->path, e->path_len));
    return error_set(err, FCPROC_ERR_SYSTEM, e->job->op, 0,
                     "can't write %s of /%s: libext2fs says %ld", what, SHOWN(e->path, e->path_len),
                     (long)code);
}

unsigned ext4_numbers(const struct inode *inode)
{
    return S_ISDIR(inode->mode) ? 1 : (inode->nlink + EXT4_NAMES_MOST - 1) / EXT4_NAMES_MOST;
}

ext2_ino_t ext4_number(const struct entry *entry)
{
    struct inode *inode = entry->inode;
    uint64_t names = MARK_NAMES(inode->mark);

    if (S_ISDIR(inode->mode))
        return MARK_NUMBER(inode->mark);
    inode->mark += MARK_NAME;
    return MARK_NUMBER(inode->mark) + (ext2_ino_t)(names / EXT4_NAMES_MOST);
}

int ext4_allocate(struct ext4 *e, blk64_t at, blk64_t len)
{
    blk64_t last = ext2fs_blocks_count(e->fs->super) - 1;

    while (len > 0) {
        blk64_t start = 0, end = 0, n;
        errcode_t code = e->cursor > last
                             ? ENOENT
                             : ext2fs_find_first_zero_block_bitmap2(e->fs->block_map, e->cursor,
                                                                    last, &start);

        if (code)
            return ext4_failed(e, code == ENOENT ? EXT2_ET_BLOCK_ALLOC_FAIL : code, "the blocks");
        end = last - start < len ? last : start + len - 1;
        code = ext2fs_find_first_set_block_bitmap2(e->fs->block_map, start, end, &end);
        if (code && code != ENOENT)
            return ext4_failed(e, code, "the blocks");
        n = code ? end - start + 1 : end - start;
        if (n > EXT4_EXTENT_MOST)
            n = EXT4_EXTENT_MOST;
        if (e->n_runs == e->room_runs) {
            size_t room = e->room_runs ? 2 * e->room_runs : 64;
            struct run *more = realloc(e->runs, room * sizeof(*more));

            if (!more)
                return error_nomem(&e->job->error, e->job->op);
            e->runs = more;
            e->room_runs = room;
        }
        e->runs[e->n_runs++] = (struct run){ .at = at, .block = start, .len = n };
        ext2fs_block_alloc_stats_range(e->fs, start, (blk_t)n, 1);
        e->cursor = start + n;
        at += n;
        len -= n;
    }
    return 0;
}

int ext4_map(struct ext4 *e, ext2_ino_t number, struct ext2_inode_large *raw)
{
    struct ext2_inode *inode = (struct ext2_inode *)raw;
    ext2_extent_handle_t handle = NULL;
    blk64_t blocks = 0;
    errcode_t code = ext2fs_extent_open2(e->fs, number, inode, &handle);

    for (size_t i = 0; !code && i < e->n_runs; i++) {
        struct ext2fs_extent extent = { .e_pblk = e->runs[i].block,
                                        .e_lblk = e->runs[i].at,
                                        .e_len = (uint32_t)e->runs[i].len };

        code = ext2fs_extent_insert(handle, EXT2_EXTENT_INSERT_AFTER, &extent);
        blocks += e->runs[i].len;
    }
    ext2fs_extent_free(handle);
    if (!code)
        code = ext2fs_iblk_add_blocks(e->fs, inode, blocks);
    return code ? ext4_failed(e, code, "the extents") : 0;
}
