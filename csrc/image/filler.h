/* SPDX-License-Identifier: MIT
 *
 * The contents of one file, as they come out of an archive: kept in the spool, without their zeros.
 */
#ifndef FCPROC_IMAGE_FILLER_H
#define FCPROC_IMAGE_FILLER_H

#include "tree.h"

enum { FILLER_PIECE = 64 << 10 };

/* One serves for file after file. */
struct filler {
    struct tree *tree;
    const char *op;
    fcproc_error *err;
    char *piece; /* a part of FILLER_PIECE bytes, at a multiple of them, */
    uint64_t at; /* from here */
    size_t used; /* so much of it */
    struct extent *extents;
    uint32_t n, room;
};

void filler_begin(struct filler *f);
/* More, from the offset on, which never goes back. 0 or a code. */
int filler_add(struct filler *f, uint64_t at, const void *data, size_t len);
/* An extent of another source. */
int filler_extent(struct filler *f, uint64_t at, uint32_t source, uint64_t from, uint64_t len);
/* The file is whole: the inode gets its extents. */
int filler_end(struct filler *f, struct inode *inode);
void filler_free(struct filler *f);

#endif
