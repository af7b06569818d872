/* SPDX-License-Identifier: MIT
 *
 * The tree itself, and its records: their memory, and inodes.
 */
#include "tree.h"

#include <fcntl.h>
#include <sys/random.h>

/* ---- memory ---- */

enum { CHUNK_SIZE = 64 << 10, LARGE = CHUNK_SIZE / 4 };

struct chunk {
    struct chunk *next;
    size_t used;
    char data[];
};

void *tree_alloc(struct tree *tree, size_t size)
{
    struct chunk *chunk = tree->chunks;
    void *p;

    size = (size + 7) & ~(size_t)7;
    tree->memory += size;
    if (size > LARGE || !chunk || CHUNK_SIZE - chunk->used < size) {
        struct chunk *made = calloc(1, sizeof(*made) + (size > LARGE ? size : CHUNK_SIZE));

        if (!made)
            return NULL;
        if (size > LARGE && chunk) { /* behind the one that has room still */
            made->used = CHUNK_SIZE;
            made->next = chunk->next;
            chunk->next = made;
            return made->data;
        }
        made->next = chunk;
        tree->chunks = made;
        if (size > LARGE) {
            made->used = CHUNK_SIZE;
            return made->data;
        }
        chunk = made;
    }
    p = chunk->data + chunk->used;
    chunk->used += size;
    return p;
}

struct bytes *tree_bytes(struct tree *tree, const void *data, size_t len)
{
    struct bytes *bytes = tree_alloc(tree, sizeof(*bytes) + len + 1);

    if (bytes) {
        bytes->len = len;
        memcpy(bytes->data, data, len);
    }
    return bytes;
}

/* ---- the tree itself ---- */

/* deflate makes 1,032 bytes of one at the most, and what is no bomb rarely 20. */
enum { DEFAULT_ENTRIES = 2000000, DEFAULT_RATIO = 200 };
#define DEFAULT_BYTES      ((uint64_t)1 << 40)
#define DEFAULT_MEMORY     ((uint64_t)1 << 30)
#define DEFAULT_RATIO_FROM ((uint64_t)8 << 30) /* a file of zeros is no bomb */
#define RATIO_FROM         ((uint64_t)1 << 30)

int tree_new(const struct fcproc_image_limits *limits, struct tree **ret, fcproc_error *err)
{
    static const char op[] = "image.tree";
    struct tree *tree = calloc(1, sizeof(*tree));
    int r = 0;

    if (!tree)
        return error_nomem(err, op);
    atomic_init(&tree->references, 1);
    tree->maker = getpid();
    tree->spool = -1;
    tree->spool_folder = -EBADF;
    tree->limit_entries = limits && limits->entries ? limits->entries : DEFAULT_ENTRIES;
    tree->limit_bytes = limits && limits->bytes ? limits->bytes : DEFAULT_BYTES;
    tree->limit_memory = limits && limits->memory ? limits->memory : DEFAULT_MEMORY;
    tree->limit_ratio = limits && limits->ratio ? limits->ratio : DEFAULT_RATIO;
    tree->ratio_from = limits && limits->ratio ? RATIO_FROM : DEFAULT_RATIO_FROM;
    if (getrandom(tree->key, sizeof(tree->key), 0) != (ssize_t)sizeof(tree->key))
        r = image_errno(err, op, errno, "no random bytes");
    if (r == 0 && limits && limits->spool_folder) {
        tree->spool_path = strdup(limits->spool_folder);
        tree->spool_folder = open(limits->spool_folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (tree->spool_folder < 0)
            r = image_errno(err, op, errno, "can't use the folder %s for contents",
                            limits->spool_folder);
    }
    if (r == 0) {
        tree->root = tree_inode(tree, S_IFDIR | 0755);
        if (!tree->root || (limits && limits->spool_folder && !tree->spool_path))
            r = error_nomem(err, op);
    }
    if (r < 0) {
        tree_unref(tree);
        return r;
    }
    tree->root->folder->parent = tree->root->folder;
    *ret = tree;
    return 0;
}

struct tree *tree_ref(struct tree *tree)
{
    (void)atomic_fetch_add(&tree->references, 1);
    return tree;
}

void tree_unref(struct tree *tree)
{
    if (!tree || atomic_fetch_sub(&tree->references, 1) != 1)
        return;
    if (tree->free_layers)
        tree->free_layers(tree);
    for (struct folder *f = tree->folders; f; f = f->next)
        free(f->sorted);
    for (size_t i = 0; i < tree->n_sources; i++)
        if (tree->sources[i].owned)
            close_fd(&tree->sources[i].fd);
    free(tree->sources);
    close_fd(&tree->spool_folder);
    free(tree->spool_path);
    free(tree->table);
    while (tree->chunks) {
        struct chunk *next = tree->chunks->next;

        free(tree->chunks);
        tree->chunks = next;
    }
    free(tree);
}

int tree_check(const struct tree *tree, enum tree_use use, const char *op, fcproc_error *err)
{
    if (tree->maker != getpid())
        return error_set(err, FCPROC_ERR_INVALID, op, 0,
                         "the tree belongs to pid %d, of which this process is a fork: close it "
                         "here, and make one of your own",
                         tree->maker);
    if (tree->job)
        return error_set(err, FCPROC_ERR_BUSY, op, 0,
                         "a job works on the tree: wait for its end and close it first");
    if (tree->broken)
        return error_set(err, FCPROC_ERR_INVALID, op, 0,
                         "a job on the tree has failed, so it is not whole: close it, and begin "
                         "anew");
    if (use != TREE_LOOKS && tree->sealed)
        return error_set(err, FCPROC_ERR_INVALID, op, 0,
                         "the tree is sealed, and can't be changed any more");
    if (use <= TREE_CHANGES && tree->layers)
        return error_set(err, FCPROC_ERR_INVALID, op, 0,
                         "layers were read and are not merged yet: merge them first");
    return 0;
}

/* ---- inodes ---- */

struct inode *tree_inode(struct tree *tree, uint32_t mode)
{
    struct inode *inode = tree_alloc(tree, sizeof(*inode));
    struct folder *folder;

    if (!inode)
        return NULL;
    inode->mode = mode;
    if (!S_ISDIR(mode))
        return inode;
    folder = tree_alloc(tree, sizeof(*folder));
    if (!folder)
        return NULL;
    folder->inode = inode;
    folder->next = tree->folders;
    tree->folders = folder;
    inode->folder = folder;
    inode->nlink = 2;
    return inode;
}

int tree_compare(const void *a, size_t a_len, const void *b, size_t b_len)
{
    int r = memcmp(a, b, a_len < b_len ? a_len : b_len);

    return r ? r : (a_len > b_len) - (a_len < b_len);
}

int tree_set_xattr(struct tree *tree, struct inode *inode, const char *name, size_t name_len,
                   const void *value, size_t value_len)
{
    struct xattr *x = tree_alloc(tree, sizeof(*x) + name_len + value_len), **at = &inode->xattrs;
    int r = 1;

    if (!x)
        return -ENOMEM;
    x->name_len = (uint16_t)name_len;
    x->value_len = (uint32_t)value_len;
    memcpy(x->data, name, name_len);
    if (value_len > 0)
        memcpy(x->data + name_len, value, value_len);
    while (*at && (r = tree_compare((*at)->data, (*at)->name_len, name, name_len)) < 0)
        at = &(*at)->next;
    x->next = *at && r == 0 ? (*at)->next : *at;
    *at = x;
    return 0;
}

void tree_take_attributes(struct inode *to, const struct inode *from)
{
    to->mode = from->mode;
    to->uid = from->uid;
    to->gid = from->gid;
    to->mtime = from->mtime;
    to->mtime_ns = from->mtime_ns;
    to->xattrs = from->xattrs;
}
