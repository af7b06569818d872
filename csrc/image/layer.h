/* SPDX-License-Identifier: MIT
 *
 * What an archive says, entry by entry, and its way into the tree: at once, or, of layers, once all of
 * them are known.
 */
#ifndef FCPROC_IMAGE_LAYER_H
#define FCPROC_IMAGE_LAYER_H

#include "tree.h"

enum record_kind { RECORD_ADD, RECORD_LINK, RECORD_WHITEOUT, RECORD_OPAQUE };

struct record {
    enum record_kind kind;
    bool skipped;     /* its contents seemed to be hidden, and were not kept */
    uint32_t ordinal; /* in the archive */
    struct bytes *
        path; /* without a slash in front or at the end, "." or ".."; of an opaque folder, its own */
    union {
        struct inode *inode; /* RECORD_ADD */
        struct bytes *link;  /* RECORD_LINK */
    };
};

struct layer {
    struct layer *above;
    struct record *records; /* malloc'ed */
    size_t n, room;
    int fd; /* of its archive, to read again what turns out to be needed; or -EBADF */
    uint64_t base, size;
    char *name;
};

/* Puts one entry into the tree, over what is there. Not of whiteouts. */
int record_apply(struct tree *tree, const struct record *record, const char *op, fcproc_error *err);

/* A new one, under those that were read before. Freed with the tree, or when it is merged. */
struct layer *layer_new(struct tree *tree, const char *name);
int layer_add(struct layer *layer, const struct record *record);
/* Would what a lower layer has at the path be seen? */
bool layer_hides(const struct tree *tree, const char *path, size_t len);
/* The layer is whole: from now on it hides what is below. 0 or -ENOMEM. */
int layer_end(struct tree *tree, const struct layer *layer);
/* All of them into the tree, the lowest first. */
int layers_apply(struct tree *tree, const char *op, fcproc_error *err);
void layers_free(struct tree *tree);

#endif
