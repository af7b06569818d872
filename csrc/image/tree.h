/* SPDX-License-Identifier: MIT
 *
 * The tree in memory: what an image will hold, but for the contents of its files. Records come from an
 * arena and are as old as the tree: what has lost its name stays until the tree is freed.
 */
#ifndef FCPROC_IMAGE_TREE_H
#define FCPROC_IMAGE_TREE_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "image.h"

enum {
    TREE_NAME_MOST = 255,
    TREE_PATH_MOST = 4095, /* bytes; so deep can a tree be, too */
    TREE_DEPTH_MOST = 2048,
    TREE_LINKS_MOST = 40, /* symbolic links on one way, as path_resolution(7) */
    XATTR_NAME_MOST = 255,
    XATTR_SIZE_MOST = 65536, /* xattr(7): what the kernel takes */
    XATTRS_MOST = 1000,      /* of one file */
};

/* Bytes, not text; data[len] is 0 all the same. */
struct bytes {
    size_t len;
    char data[];
};

struct xattr {
    struct xattr *next;
    uint32_t value_len;
    uint16_t name_len;
    char data[]; /* the name, then the value */
};

/* So many bytes of a file, from the offset in tree->sources[source]; what is between extents is a hole. */
struct extent {
    uint64_t at, from, len;
    uint32_t source;
};

struct inode {
    uint32_t mode, uid, gid, rdev_major, rdev_minor;
    uint32_t mtime_ns;
    int64_t mtime;
    uint32_t nlink; /* its names; of a folder 2 and one for each folder in it */
    uint32_t n_extents;
    uint64_t size;        /* of a file, or a symbolic link's target */
    struct xattr *xattrs; /* sorted by name */
    union {
        struct bytes *target;   /* S_IFLNK */
        struct extent *extents; /* S_IFREG: n_extents of them, in order */
        struct folder *folder;  /* S_IFDIR */
    };
    uint64_t mark; /* for whoever writes: the inode's number there, 0 when it has none yet */
};

struct entry {
    struct inode *inode;
    struct folder *in;
    struct entry *chain; /* in the tree's table of names */
    uint32_t hash;
    uint32_t index; /* in->sorted[index] */
    uint8_t name_len;
    char name[]; /* name[name_len] is 0 */
};

struct folder {
    struct entry **sorted; /* by bytes, the shorter first, once the tree is sealed */
    size_t n, room;
    struct inode *inode;
    struct folder *parent; /* of the root: itself */
    struct entry *self;    /* its name there; of the root: NULL */
    uint32_t path_len;     /* of its own path, with a slash behind; of the root: 0 */
    struct folder *next;   /* in tree->folders */
};

/* Where contents are. */
struct source {
    int fd;           /* the file; or, when there is a path, the folder that the path is from */
    const char *path; /* never through a symbolic link */
    uint64_t dev, ino, size;
    int64_t mtime, ctime;
    uint32_t mtime_ns, ctime_ns;
    bool owned; /* fd is closed with the tree */
};

struct chunk; /* of the arena */
struct layer; /* see layer.h */

struct tree {
    atomic_uint references; /* the handle's, and each job's */
    pid_t maker;
    bool sealed;
    bool broken; /* a job did not end well */
    const struct fcproc_image_job *job;
    struct inode *root;
    struct source *sources;
    size_t n_sources, room_sources;
    int spool; /* index of its source, or -1 */
    uint64_t spool_size;
    int spool_folder; /* descriptor, or -EBADF */
    char *spool_path;
    uint64_t n_entries;      /* names, without the root */
    uint64_t n_inodes;       /* with the root; right once it is sealed */
    uint64_t content_bytes;  /* without holes, each inode's once; right once it is sealed */
    uint64_t apparent_bytes; /* the same with them, */
    uint64_t largest_size;   /* and of whom the most are; "": of nobody */
    char largest[TREE_PATH_MOST + 1];
    uint64_t limit_entries, limit_bytes, limit_ratio, limit_memory;
    uint64_t ratio_from;               /* unpacked bytes, from which on the ratio counts */
    uint64_t memory;                   /* of the arena */
    uint64_t read_entries, read_bytes; /* of all that was read, for the limits */
    uint64_t key[2];                   /* of the table's hash */
    struct entry **table;
    size_t table_size, table_used;
    struct folder *folders;
    struct chunk *chunks;
    /* Layers that are not merged yet, the lowest first, and what hides what: layer.c. */
    struct layer *layers;
    struct tree *shade;
    struct inode *shade_end;
    void (*free_layers)(struct tree *tree);
};

/* All with err: 0 or a code. op is fcproc_error.op. */

int tree_new(const struct fcproc_image_limits *limits, struct tree **ret, fcproc_error *err);
struct tree *tree_ref(struct tree *tree);
void tree_unref(struct tree *tree);
enum tree_use { TREE_LOOKS, TREE_CHANGES, TREE_ADDS_LAYER, TREE_MERGES };
/* May this call? */
int tree_check(const struct tree *tree, enum tree_use use, const char *op, fcproc_error *err);

/* Zeroed, for as long as the tree; NULL: no memory. */
void *tree_alloc(struct tree *tree, size_t size);
struct bytes *tree_bytes(struct tree *tree, const void *data, size_t len);
/* Without names. A folder has its struct folder. */
struct inode *tree_inode(struct tree *tree, uint32_t mode);
/* Adds one in its place by name; a second of the name takes the first's place. 0 or -ENOMEM. */
int tree_set_xattr(struct tree *tree, struct inode *inode, const char *name, size_t name_len,
                   const void *value, size_t value_len);
/* A folder's: mode, owner, times and xattrs, of another one. */
void tree_take_attributes(struct inode *to, const struct inode *from);

/* As memcmp, the shorter first. */
int tree_compare(const void *a, size_t a_len, const void *b, size_t b_len);

/* ---- names (names.c) ---- */

struct entry *tree_find(const struct tree *tree, const struct folder *folder, const char *name,
                        size_t len);
/* Gives the inode the name, which another one loses. 0 or -ENOMEM. */
int tree_add(struct tree *tree, struct folder *folder, const char *name, size_t len,
             struct inode *inode);
/* The name goes, and all below it. */
void tree_drop(struct tree *tree, struct entry *entry);
/* What is in the folder goes. */
void tree_clear(struct tree *tree, struct folder *folder);

/* ---- the walk (walk.c) ---- */

/* Each name, a folder's before those in it, in order once it is sealed; first the root, whose path is
 * empty and whose entry is NULL. Paths have no slash in front. Ends at the first answer that is not 0,
 * and returns it; -ENAMETOOLONG: a path of more than TREE_PATH_MOST. */
int tree_walk(const struct tree *tree,
              int (*visit)(void *arg, const char *path, size_t len, const struct entry *entry,
                           struct inode *inode),
              void *arg);
/* For who marks inodes: none is, as far as a walk comes, whose answer this is. */
int tree_unmark(const struct tree *tree);
/* Sorts, and counts. */
void tree_seal(struct tree *tree);

/* ---- places (place.c) ---- */

enum {
    PLACE_FOLLOW = 1, /* the last name, too */
    PLACE_MAKE = 2,   /* missing folders on the way */
};

struct place {
    struct folder *folder;
    char name[TREE_NAME_MOST + 1]; /* "": the root itself */
    size_t len;
    struct inode *inode; /* NULL: there is none of the name */
};

/* "..", "." and empty names in path are judged by the caller. made is the folder whose attributes made
 * ones take, or NULL. FCPROC_ERR_NOT_FOUND: no such folder; FCPROC_ERR_CONFLICT: something on the way is
 * no folder; FCPROC_ERR_INVALID: too many links or too long a name. */
int tree_place(struct tree *tree, const char *path, size_t len, int flags, const struct inode *made,
               struct place *ret, const char *op, fcproc_error *err);

/* ---- looks (look.c) ---- */

/* What the path leads to, which must be there. */
int tree_look(struct tree *tree, const char *path, bool follow, struct place *ret, const char *op,
              fcproc_error *err);
/* The same with links followed; FCPROC_ERR_CONFLICT: it is no regular file. */
int tree_look_regular(struct tree *tree, const char *path, struct inode **ret, const char *op,
                      fcproc_error *err);

/* ---- contents (source.c) ---- */

/* Takes the descriptor. Its index, or a code. */
int source_add(struct tree *tree, const struct source *source, const char *op, fcproc_error *err);
/* A descriptor that the source's bytes can be read from, and whether it is to be closed. A folder's file
 * that is not what it was is FCPROC_ERR_BUSY. */
int source_open(const struct tree *tree, uint32_t source, int *ret_fd, bool *ret_close,
                const char *op, fcproc_error *err);
/* At most so many bytes of what the file holds from the offset on, holes as zeros; fewer at its end only.
 * How many, or a code. */
ssize_t source_read(const struct tree *tree, const struct inode *inode, uint64_t at, void *buffer,
                    size_t len, const char *op, fcproc_error *err);
/* Appends to the spool, which it makes if there is none yet. *ret_from is where it went. */
int spool_write(struct tree *tree, const void *data, size_t len, uint64_t *ret_from, const char *op,
                fcproc_error *err);

#endif
