/* SPDX-License-Identifier: MIT
 *
 * A sealed tree into an ext4 file system that mke2fs has just made in a file: what its files share. All
 * is placed one behind the other, in the tree's order, so that the same tree gives the same bytes.
 */
#ifndef FCPROC_IMAGE_EXT4_H
#define FCPROC_IMAGE_EXT4_H

#include <ext2fs/ext2fs.h>

#include "job.h"
#include "output.h"

enum {
    EXT4_NAMES_MOST = 65000,  /* of one inode: EXT4_LINK_MAX in fs/ext4/ext4.h */
    EXT4_EXTENT_MOST = 32768, /* blocks of one extent: EXT_INIT_MAX_LEN */
    EXT4_EXTENTS_INSIDE = 4,  /* in an inode itself */
    EXT4_TARGET_INSIDE = 60,  /* a symbolic link's target in its inode is shorter */
    EXT4_TARGET_MOST = 4095,  /* PATH_MAX less its NUL */
    EXT4_INODE_SIZE = 256,
};

/* In inode->mark: the first of its numbers, how many names of it folders hold by now, and whether it is
 * written. */
#define MARK_NUMBER(mark) ((ext2_ino_t)(mark))
#define MARK_NAME         ((uint64_t)1 << 32)
#define MARK_NAMES(mark)  (((mark) & ~MARK_WRITTEN) >> 32)
#define MARK_WRITTEN      ((uint64_t)1 << 63)

/* So many blocks of a file, from its block at on, and where they are in the file system. */
struct run {
    blk64_t at, block, len;
};

struct ext4 {
    job_t *job;
    ext2_filsys fs;
    struct output out;
    uint32_t block_size;
    ext2_ino_t next;       /* number */
    ext2_ino_t lost_found; /* its number when the tree has none, or 0 */
    blk64_t cursor;        /* no block before it is free */
    struct run *runs;      /* of what is being written */
    size_t n_runs, room_runs;
    char *block; /* one */
    const char *path;
    size_t path_len;
};

/* All with a code: 0, or it fills the job's error. */

/* What libext2fs said of the entry that is being written. */
int ext4_failed(struct ext4 *e, errcode_t code, const char *what);

/* Adds blocks for the file's blocks from at on to e->runs. */
int ext4_allocate(struct ext4 *e, blk64_t at, blk64_t len);
/* Makes e->runs the inode's own, and counts them. */
int ext4_map(struct ext4 *e, ext2_ino_t number, struct ext2_inode_large *raw);
/* A file's contents; it allocates and maps. */
int ext4_contents(struct ext4 *e, ext2_ino_t number, const struct inode *inode,
                  struct ext2_inode_large *raw);
/* How many inodes it takes: one with too many names for ext4 several. */
unsigned ext4_numbers(const struct inode *inode);
/* The number for the entry, whose inode may have several. */
ext2_ino_t ext4_number(const struct entry *entry);
/* A folder's blocks; it allocates and maps. */
int ext4_folder(struct ext4 *e, ext2_ino_t number, const struct folder *folder,
                struct ext2_inode_large *raw);
int ext4_xattrs(struct ext4 *e, ext2_ino_t number, const struct inode *inode);

static inline uint64_t ext4_record(size_t name_len)
{
    return (8 + name_len + 3) & ~(uint64_t)3;
}

#endif
