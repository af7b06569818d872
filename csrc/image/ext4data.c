/* SPDX-License-Identifier: MIT
 *
 * What files hold in an ext4 file system, and the attributes of whatever has some.
 */
#include "ext4.h"

/* Blocks for all that is no hole. */
static int allocate_contents(struct ext4 *e, const struct inode *inode)
{
    blk64_t start = 0, end = 0; /* of what is to be allocated */
    int r = 0;

    for (uint32_t i = 0; i < inode->n_extents; i++) {
        const struct extent *x = &inode->extents[i];
        blk64_t first = x->at / e->block_size;

        if (x->len == 0)
            continue;
        if (first > end || end == 0) {
            r = ext4_allocate(e, start, end - start);
            if (r < 0)
                return r;
            start = first;
        }
        end = (x->at + x->len - 1) / e->block_size + 1;
    }
    return ext4_allocate(e, start, end - start);
}

static int copy_extent(struct ext4 *e, const struct extent *x, size_t *run)
{
    uint64_t done = 0;
    int r = 0;

    while (r == 0 && done < x->len) {
        const struct run *at = &e->runs[*run];
        uint64_t start = at->at * e->block_size, end = start + at->len * e->block_size;
        uint64_t here = x->at + done, n = x->len - done;

        if (here >= end) {
            ++*run;
            continue;
        }
        if (n > end - here)
            n = end - here;
        r = output_copy(&e->out, x->source, x->from + done, n,
                        at->block * e->block_size + (here - start), e->path, e->path_len);
        done += n;
    }
    return r;
}

int ext4_contents(struct ext4 *e, ext2_ino_t number, const struct inode *inode,
                  struct ext2_inode_large *raw)
{
    size_t run = 0;
    int r;

    if (inode->size / e->block_size >= UINT32_MAX)
        return error_set(&e->job->error, FCPROC_ERR_INVALID, e->job->op, 0,
                         "/%s is too large for ext4: %llu bytes", SHOWN(e->path, e->path_len),
                         (unsigned long long)inode->size);
    raw->i_size = (uint32_t)inode->size;
    raw->i_size_high = (uint32_t)(inode->size >> 32);
    r = allocate_contents(e, inode);
    if (r == 0)
        r = ext4_map(e, number, raw);
    for (uint32_t i = 0; r == 0 && i < inode->n_extents; i++)
        r = copy_extent(e, &inode->extents[i], &run);
    return r;
}

/* Attributes that Linux knows: another file system's would be in the image, and seen by nobody. */
static bool is_known(const struct xattr *xattr)
{
    static const char *const spaces[] = { "user.", "trusted.", "security.",
                                          "system.posix_acl_access", "system.posix_acl_default" };

    for (size_t i = 0; i < ELEMENTS(spaces); i++) {
        size_t len = strlen(spaces[i]);

        if (xattr->name_len >= len && memcmp(xattr->data, spaces[i], len) == 0 &&
            (spaces[i][len - 1] == '.') == (xattr->name_len > len))
            return true;
    }
    return false;
}

/* An inode's blocks are also those of its values that have inodes of their own, which libext2fs forgets. */
static int count_values(struct ext4 *e, ext2_ino_t number, const struct ext2_inode *before,
                        uint64_t blocks)
{
    struct ext2_inode inode, counted = *before;
    errcode_t code = ext2fs_read_inode(e->fs, number, &inode);

    if (!code && ext2fs_file_acl_block(e->fs, &inode) != 0)
        blocks++;
    if (!code)
        code = ext2fs_iblk_add_blocks(e->fs, &counted, blocks);
    if (!code) {
        inode.i_blocks = counted.i_blocks;
        inode.osd2.linux2.l_i_blocks_hi = counted.osd2.linux2.l_i_blocks_hi;
        code = ext2fs_write_inode(e->fs, number, &inode);
    }
    return code ? ext4_failed(e, code, "the attributes") : 0;
}

static int set_xattr(struct ext4 *e, struct ext2_xattr_handle *handle, const struct xattr *x,
                     uint64_t *blocks)
{
    uint32_t free_inodes = e->fs->super->s_free_inodes_count;
    char name[256];
    errcode_t code;

    if (x->name_len >= sizeof(name) || !is_known(x)) {
        job_warn(e->job, "/%s loses its attribute %s: Linux has none of the kind",
                 SHOWN(e->path, e->path_len), SHOWN(x->data, x->name_len));
        return 0;
    }
    memcpy(name, x->data, x->name_len);
    name[x->name_len] = '\0';
    code = ext2fs_xattr_set(handle, name, x->data + x->name_len, x->value_len);
    if (code == EXT2_ET_EA_NO_SPACE)
        return error_set(&e->job->error, FCPROC_ERR_INVALID, e->job->op, 0,
                         "the attributes of /%s are more than ext4 has room for, at %s of %u "
                         "bytes: remove some, or build with ea_inode",
                         SHOWN(e->path, e->path_len), name, x->value_len);
    if (code)
        return ext4_failed(e, code, name);
    if (e->fs->super->s_free_inodes_count != free_inodes)
        *blocks += (x->value_len + e->block_size - 1) / e->block_size;
    return 0;
}

int ext4_xattrs(struct ext4 *e, ext2_ino_t number, const struct inode *inode)
{
    struct ext2_xattr_handle *handle = NULL;
    struct ext2_inode before;
    uint64_t blocks = 0;
    errcode_t code = ext2fs_read_inode(e->fs, number, &before);
    int r = 0;

    if (!code)
        code = ext2fs_xattrs_open(e->fs, number, &handle);
    if (code)
        return ext4_failed(e, code, "the attributes");
    for (const struct xattr *x = inode->xattrs; x && r == 0; x = x->next)
        r = set_xattr(e, handle, x, &blocks);
    (void)ext2fs_xattrs_close(&handle);
    return r == 0 && blocks > 0 ? count_values(e, number, &before, blocks) : r;
}
