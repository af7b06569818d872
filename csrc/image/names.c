/* SPDX-License-Identifier: MIT
 *
 * Names in folders, and the table that finds one. It is one for the whole tree, keyed by a secret: whoever
 * makes an archive can't choose names that collide.
 */
#include "tree.h"

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
