/* SPDX-License-Identifier: MIT
 *
 * What a tree needs in an ext4 file system, before there is one: never less than it will be.
 */
#include "digest.h"
#include "ext4.h"

enum {
    BLOCK = 4096,
    TAIL = sizeof(struct ext2_dir_entry_tail),
    LEAF_EXTENTS = 340, /* in a block */
    XATTR_INSIDE = EXT4_INODE_SIZE - sizeof(struct ext2_inode_large) - 4,
    XATTR_HEAD = 16, /* of each, before its name */
};

struct sum {
    struct digest digest; /* of all but the contents */
    uint64_t inodes, blocks, marks;
    bool no_memory;
};

static uint64_t divided(uint64_t n, uint64_t by)
{
    return (n + by - 1) / by;
}

static uint64_t folder_blocks(const struct folder *folder)
{
    uint64_t bytes = ext4_record(1) + ext4_record(2), leaves;
    size_t longest = 10; /* lost+found, which the root may get */

    if (folder->parent == folder)
        bytes += ext4_record(longest);
    for (size_t i = 0; i < folder->n; i++) {
        size_t len = folder->sorted[i]->name_len;

        bytes += ext4_record(len);
        if (len > longest)
            longest = len;
    }
    if (bytes <= BLOCK - TAIL)
        return 1;
    /* What is left over in each is too short for the next name. */
    leaves = divided(bytes, BLOCK - TAIL - ext4_record(longest) + 1);
    return 1 + leaves + divided(leaves, 500);
}

static uint64_t file_blocks(const struct inode *inode)
{
    uint64_t blocks = 0, extents = 0, start = 0, end = 0;

    for (uint32_t i = 0; i < inode->n_extents; i++) {
        const struct extent *x = &inode->extents[i];
        uint64_t first = x->at / BLOCK;

        if (x->len == 0)
            continue;
        if (first > end || end == 0) {
            blocks += end - start;
            /* Where block groups keep their own an extent ends early. */
            extents += 2 * divided(end - start, EXT4_EXTENT_MOST);
            start = first;
        }
        end = (x->at + x->len - 1) / BLOCK + 1;
    }
    blocks += end - start;
    extents += 2 * divided(end - start, EXT4_EXTENT_MOST);
    if (extents > EXT4_EXTENTS_INSIDE)
        blocks += 1 + divided(extents, LEAF_EXTENTS / 2);
    return blocks;
}

/* Those that do not fit into the inode have a block, and with ea_inode a large one has an inode. */
static void add_xattrs(struct sum *sum, const struct inode *inode, unsigned copies)
{
    uint64_t bytes = 4, inodes = 0, blocks = 1;

    for (const struct xattr *x = inode->xattrs; x; x = x->next) {
        bytes += XATTR_HEAD + ((x->name_len + 3U) & ~3U) + ((x->value_len + 3U) & ~3U);
        if (x->value_len > BLOCK / 4) {
            inodes++;
            blocks += divided(x->value_len, BLOCK);
        }
    }
    if (inode->xattrs && bytes > XATTR_INSIDE) {
        sum->blocks += copies * blocks;
        sum->inodes += copies * inodes;
    }
}

static void add_bytes(struct sum *sum, const void *data, size_t len)
{
    if (digest_add(&sum->digest, data, len) < 0)
        sum->no_memory = true;
}

static void add_name(struct sum *sum, const char *path, size_t len, const struct inode *inode)
{
    const uint64_t facts[] = { len,
                               inode->mode,
                               inode->uid,
                               inode->gid,
                               inode->rdev_major,
                               inode->rdev_minor,
                               (uint64_t)inode->mtime,
                               inode->mtime_ns,
                               inode->size,
                               inode->mark };

    add_bytes(sum, facts, sizeof(facts));
    add_bytes(sum, path, len);
    if (S_ISLNK(inode->mode))
        add_bytes(sum, inode->target->data, inode->target->len);
    for (const struct xattr *x = inode->xattrs; x; x = x->next) {
        const uint64_t lengths[] = { x->name_len, x->value_len };

        add_bytes(sum, lengths, sizeof(lengths));
        add_bytes(sum, x->data, x->name_len + (size_t)x->value_len);
    }
}

static void add_inode(struct sum *sum, const struct inode *inode)
{
    unsigned copies = ext4_numbers(inode);
    uint64_t blocks = 0;

    if (S_ISDIR(inode->mode))
        blocks = folder_blocks(inode->folder);
    else if (S_ISREG(inode->mode))
        blocks = file_blocks(inode);
    else if (S_ISLNK(inode->mode))
        blocks = inode->target->len >= EXT4_TARGET_INSIDE;
    sum->inodes += copies;
    sum->blocks += copies * blocks;
    add_xattrs(sum, inode, copies);
}

static int add_entry(void *arg, const char *path, size_t len, const struct entry *entry,
                     struct inode *inode)
{
    struct sum *sum = arg;

    (void)entry;
    if (inode->mark == 0) {
        inode->mark = ++sum->marks;
        add_inode(sum, inode);
    }
    add_name(sum, path, len, inode);
    return sum->no_memory ? FCPROC_ERR_NOMEM : 0;
}

FCPROC_API int fcproc_image_measure(fcproc_image_tree *handle, struct fcproc_image_need *ret,
                                    fcproc_error *err)
{
    static const char op[] = "image.measure";
    struct tree *tree = (struct tree *)handle;
    char digest[DIGEST_SIZE];
    struct sum sum = { 0 };
    int r = check_struct(ret, sizeof(*ret), "fcproc_image_need", op, err);

    if (r == 0)
        r = tree_check(tree, TREE_LOOKS, op, err);
    if (r == 0 && !tree->sealed)
        r = error_set(err, FCPROC_ERR_INVALID, op, 0, "the tree is not sealed yet");
    if (r < 0)
        return r;
    if (digest_begin(&sum.digest) < 0)
        return error_nomem(err, op);
    r = output_walk(tree, add_entry, &sum, op, err);
    if (r == 0 && digest_end(&sum.digest, digest) < 0)
        r = FCPROC_ERR_NOMEM;
    digest_free(&sum.digest);
    if (r == FCPROC_ERR_NOMEM)
        return error_nomem(err, op);
    if (r < 0)
        return r;
    ret->inodes = sum.inodes;
    ret->blocks = sum.blocks;
    memcpy(ret->digest, digest, sizeof(digest));
    return 0;
}
