/* SPDX-License-Identifier: MIT
 *
 * The tree's records: inodes, names, and the table that finds a name in a folder. The table is one for
 * the whole tree, keyed by a secret: whoever makes an archive can't choose names that collide.
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

static int compare_bytes(const void *a, size_t a_len, const void *b, size_t b_len)
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
    while (*at && (r = compare_bytes((*at)->data, (*at)->name_len, name, name_len)) < 0)
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

/* ---- the table of names ---- */

static inline uint64_t rotate(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

#define SIP_ROUND                \
    do {                         \
        v[0] += v[1];            \
        v[1] = rotate(v[1], 13); \
        v[1] ^= v[0];            \
        v[0] = rotate(v[0], 32); \
        v[2] += v[3];            \
        v[3] = rotate(v[3], 16); \
        v[3] ^= v[2];            \
        v[0] += v[3];            \
        v[3] = rotate(v[3], 21); \
        v[3] ^= v[0];            \
        v[2] += v[1];            \
        v[1] = rotate(v[1], 17); \
        v[1] ^= v[2];            \
        v[2] = rotate(v[2], 32); \
    } while (0)

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    SIP_ROUND;
    v[0] ^= word;
}

/* SipHash-1-3 of the name, with its folder in front. */
static uint32_t hash_of(const struct tree *tree, const struct folder *folder, const char *name,
                        size_t len)
{
    uint64_t v[4] = { tree->key[0] ^ 0x736f6d6570736575, tree->key[1] ^ 0x646f72616e646f6d,
                      tree->key[0] ^ 0x6c7967656e657261, tree->key[1] ^ 0x7465646279746573 };
    uint64_t word = (uint64_t)len << 56;
    size_t at = 0;

    sip_word(v, (uint64_t)(uintptr_t)folder);
    for (; len - at >= 8; at += 8) {
        uint64_t eight;

        memcpy(&eight, name + at, 8);
        sip_word(v, eight);
    }
    for (size_t i = 0; at + i < len; i++)
        word |= (uint64_t)(unsigned char)name[at + i] << (8 * i);
    sip_word(v, word);
    v[2] ^= 0xff;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    return (uint32_t)(v[0] ^ v[1] ^ v[2] ^ v[3]);
}

static struct entry *find_hashed(const struct tree *tree, const struct folder *folder,
                                 uint32_t hash, const char *name, size_t len)
{
    struct entry *e = tree->table ? tree->table[hash & (tree->table_size - 1)] : NULL;

    while (e && !(e->hash == hash && e->in == folder && e->name_len == len &&
                  memcmp(e->name, name, len) == 0))
        e = e->chain;
    return e;
}

struct entry *tree_find(const struct tree *tree, const struct folder *folder, const char *name,
                        size_t len)
{
    return find_hashed(tree, folder, hash_of(tree, folder, name, len), name, len);
}

static int table_grow(struct tree *tree)
{
    size_t size = tree->table_size ? 2 * tree->table_size : 256;
    struct entry **table;

    if (tree->table_used < tree->table_size)
        return 0;
    table = calloc(size, sizeof(struct entry *));
    if (!table)
        return -ENOMEM;
    for (size_t i = 0; i < tree->table_size; i++)
        for (struct entry *e = tree->table[i], *next; e; e = next) {
            next = e->chain;
            e->chain = table[e->hash & (size - 1)];
            table[e->hash & (size - 1)] = e;
        }
    free(tree->table);
    tree->table = table;
    tree->table_size = size;
    return 0;
}

static void table_remove(struct tree *tree, const struct entry *entry)
{
    struct entry **at = &tree->table[entry->hash & (tree->table_size - 1)];

    while (*at != entry)
        at = &(*at)->chain;
    *at = entry->chain;
    tree->table_used--;
}

static int folder_grow(struct folder *folder)
{
    size_t room = folder->room ? 2 * folder->room : 4;
    struct entry **list;

    if (folder->n < folder->room)
        return 0;
    list = realloc(folder->sorted, room * sizeof(struct entry *));
    if (!list)
        return -ENOMEM;
    folder->sorted = list;
    folder->room = room;
    return 0;
}

/* ---- names ---- */

/* One name less; of a folder, which has but one, also all that is below it. */
static void unlink_inode(struct tree *tree, struct folder *in, struct inode *inode)
{
    if (S_ISDIR(inode->mode)) {
        in->inode->nlink--;
        inode->nlink = 0;
        tree_clear(tree, inode->folder);
    } else {
        inode->nlink--;
    }
}

static void link_inode(struct folder *in, struct entry *entry, struct inode *inode)
{
    if (S_ISDIR(inode->mode)) {
        in->inode->nlink++;
        inode->nlink = 2;
        inode->folder->parent = in;
        inode->folder->self = entry;
        inode->folder->path_len = in->path_len + 1 + entry->name_len;
    } else {
        inode->nlink++;
    }
}

int tree_add(struct tree *tree, struct folder *folder, const char *name, size_t len,
             struct inode *inode)
{
    uint32_t hash = hash_of(tree, folder, name, len);
    struct entry *e = find_hashed(tree, folder, hash, name, len), **bucket;

    if (e && e->inode == inode)
        return 0;
    if (e) {
        unlink_inode(tree, folder, e->inode);
    } else {
        if (table_grow(tree) < 0 || folder_grow(folder) < 0)
            return -ENOMEM;
        e = tree_alloc(tree, sizeof(*e) + len + 1);
        if (!e)
            return -ENOMEM;
        e->in = folder;
        e->hash = hash;
        e->index = (uint32_t)folder->n;
        e->name_len = (uint8_t)len;
        memcpy(e->name, name, len);
        bucket = &tree->table[hash & (tree->table_size - 1)];
        e->chain = *bucket;
        *bucket = e;
        tree->table_used++;
        folder->sorted[folder->n++] = e;
        tree->n_entries++;
    }
    e->inode = inode;
    link_inode(folder, e, inode);
    return 0;
}

void tree_drop(struct tree *tree, struct entry *entry)
{
    struct folder *folder = entry->in;
    struct entry *last = folder->sorted[--folder->n];

    last->index = entry->index;
    folder->sorted[entry->index] = last;
    table_remove(tree, entry);
    tree->n_entries--;
    unlink_inode(tree, folder, entry->inode);
}

/* Folder by folder from the inside out, without recursion: each is emptied from its end, and a folder
 * there is gone into first. */
void tree_clear(struct tree *tree, struct folder *folder)
{
    struct folder *at = folder;

    for (;;) {
        struct entry *last;

        if (at->n == 0) {
            if (at == folder)
                return;
            at = at->parent;
            continue;
        }
        last = at->sorted[at->n - 1];
        if (S_ISDIR(last->inode->mode) && last->inode->folder->n > 0) {
            at = last->inode->folder;
            continue;
        }
        at->n--;
        table_remove(tree, last);
        tree->n_entries--;
        if (S_ISDIR(last->inode->mode)) {
            at->inode->nlink--;
            last->inode->nlink = 0;
        } else {
            last->inode->nlink--;
        }
    }
}

/* ---- sealed ---- */

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;

    return compare_bytes(x->name, x->name_len, y->name, y->name_len);
}

static int count_inode(void *arg, const char *path, size_t len, const struct entry *entry,
                       struct inode *inode)
{
    struct tree *tree = arg;

    (void)entry;
    if (inode->mark)
        return 0;
    inode->mark = 1;
    tree->n_inodes++;
    if (!S_ISREG(inode->mode))
        return 0;
    for (uint32_t i = 0; i < inode->n_extents; i++)
        tree->content_bytes += inode->extents[i].len;
    if (inode->size > INT64_MAX - tree->apparent_bytes)
        tree->apparent_bytes = INT64_MAX;
    else
        tree->apparent_bytes += inode->size;
    if (inode->size > tree->largest_size) {
        tree->largest_size = inode->size;
        memcpy(tree->largest, path, len + 1);
    }
    return 0;
}

static int clear_mark(void *arg, const char *path, size_t len, const struct entry *entry,
                      struct inode *inode)
{
    (void)arg;
    (void)path;
    (void)len;
    (void)entry;
    inode->mark = 0;
    return 0;
}

void tree_seal(struct tree *tree)
{
    if (tree->sealed)
        return;
    for (struct folder *f = tree->folders; f; f = f->next) {
        if (f->n > 1)
            qsort(f->sorted, f->n, sizeof(struct entry *), compare_entries);
        for (size_t i = 0; i < f->n; i++)
            f->sorted[i]->index = (uint32_t)i;
    }
    (void)tree_walk(tree, clear_mark, NULL);
    (void)tree_walk(tree, count_inode, tree);
    (void)tree_walk(tree, clear_mark, NULL);
    tree->sealed = true;
}

/* ---- the walk ---- */

int tree_walk(const struct tree *tree,
              int (*visit)(void *arg, const char *path, size_t len, const struct entry *entry,
                           struct inode *inode),
              void *arg)
{
    char path[TREE_PATH_MOST + 1] = "";
    const struct folder *at = tree->root->folder;
    size_t len = 0, next = 0; /* the place in `at` that comes next */
    int r = visit(arg, path, 0, NULL, tree->root);

    while (r == 0) {
        const struct entry *e;

        if (next == at->n) {
            if (at == tree->root->folder)
                return 0;
            len -= at->self->name_len;
            len -= len > 0; /* the slash */
            next = at->self->index + 1;
            at = at->parent;
            continue;
        }
        e = at->sorted[next];
        if (len + (len > 0) + e->name_len > TREE_PATH_MOST)
            return -ENAMETOOLONG;
        if (len > 0)
            path[len] = '/';
        memcpy(path + len + (len > 0), e->name, (size_t)e->name_len + 1);
        r = visit(arg, path, len + (len > 0) + e->name_len, e, e->inode);
        if (r == 0 && S_ISDIR(e->inode->mode) && e->inode->folder->n > 0) {
            len += (size_t)(len > 0) + e->name_len;
            at = e->inode->folder;
            next = 0;
        } else {
            next++;
        }
    }
    return r;
}
