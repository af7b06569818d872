/* SPDX-License-Identifier: MIT
 *
 * A folder's blocks, written whole: libext2fs would look through all of them for each name. What has
 * more than one has an index by hash, as Documentation/filesystems/ext4/directory.rst lays it out.
 */
#include "ext4.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "file systems are little endian");

struct name {
    const char *name;
    ext2_ino_t number;
    uint32_t hash, minor;
    uint8_t len, type;
};

/* What is known of the folder while it is written. */
struct layout {
    struct name *names;
    size_t n;
    size_t end; /* of the entries in a block: behind it is its checksum */
    bool indexed;
    uint32_t version; /* of the hash, in the index */
    uint32_t *hashes; /* of each leaf's first name */
    size_t n_leaves;
};

static uint8_t type_of(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return EXT2_FT_REG_FILE;
    case S_IFDIR:
        return EXT2_FT_DIR;
    case S_IFLNK:
        return EXT2_FT_SYMLINK;
    case S_IFCHR:
        return EXT2_FT_CHRDEV;
    case S_IFBLK:
        return EXT2_FT_BLKDEV;
    case S_IFIFO:
        return EXT2_FT_FIFO;
    case S_IFSOCK:
        return EXT2_FT_SOCK;
    default:
        return EXT2_FT_UNKNOWN;
    }
}

/* ---- blocks ---- */

/* Returns where the next one is. */
static size_t put_name(char *block, size_t at, size_t record, ext2_ino_t number, const char *name,
                       uint8_t len, uint8_t type)
{
    struct ext2_dir_entry_2 *d = (struct ext2_dir_entry_2 *)(block + at);

    d->inode = number;
    d->rec_len = (uint16_t)record; /* 65536 is 0 there too */
    d->name_len = len;
    d->file_type = type;
    memcpy(d->name, name, len);
    return at + record;
}

/* The last entry takes what is left. */
static void stretch(char *block, size_t last, size_t end)
{
    ((struct ext2_dir_entry_2 *)(block + last))->rec_len = (uint16_t)(end - last);
}

static int put_block(struct ext4 *e, ext2_ino_t number, uint64_t index)
{
    size_t run = 0;
    errcode_t code;

    if (ext2fs_has_feature_metadata_csum(e->fs->super)) {
        code = ext2fs_dir_block_csum_set(e->fs, number, (struct ext2_dir_entry *)e->block);
        if (code)
            return ext4_failed(e, code, "the folder");
    }
    while (index >= e->runs[run].at + e->runs[run].len)
        run++;
    return output_put(&e->out, e->block, e->block_size,
                      (e->runs[run].block + index - e->runs[run].at) * e->block_size);
}

static void start_block(struct ext4 *e)
{
    memset(e->block, 0, e->block_size);
    if (ext2fs_has_feature_metadata_csum(e->fs->super))
        ext2fs_initialize_dirent_tail(e->fs, EXT2_DIRENT_TAIL(e->block, e->block_size));
}

/* ---- names ---- */

static int collect(struct ext4 *e, const struct folder *folder, ext2_ino_t number, struct layout *l)
{
    l->names = malloc((folder->n + 1) * sizeof(*l->names));
    if (!l->names)
        return error_nomem(&e->job->error, e->job->op);
    for (size_t i = 0; i < folder->n; i++) {
        const struct entry *entry = folder->sorted[i];

        l->names[l->n++] = (struct name){ .name = entry->name,
                                          .len = entry->name_len,
                                          .number = ext4_number(entry),
                                          .type = type_of(entry->inode->mode) };
    }
    if (number == EXT2_ROOT_INO && e->lost_found)
        l->names[l->n++] = (struct name){
            .name = "lost+found", .len = 10, .number = e->lost_found, .type = EXT2_FT_DIR
        };
    return 0;
}

static int by_hash(const void *a, const void *b)
{
    const struct name *x = a, *y = b;
    int r;

    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    if (x->minor != y->minor)
        return x->minor < y->minor ? -1 : 1;
    r = memcmp(x->name, y->name, x->len < y->len ? x->len : y->len);
    return r ? r : x->len - y->len;
}

static int hash_names(struct ext4 *e, struct layout *l)
{
    const struct ext2_super_block *super = e->fs->super;
    int version = l->version <= EXT2_HASH_TEA && super->s_flags & EXT2_FLAGS_UNSIGNED_HASH
                      ? (int)l->version + 3
                      : (int)l->version;

    for (size_t i = 0; i < l->n; i++) {
        struct name *name = &l->names[i];
        errcode_t code = ext2fs_dirhash2(version, name->name, name->len, NULL, 0,
                                         super->s_hash_seed, &name->hash, &name->minor);

        if (code)
            return ext4_failed(e, code, "the folder");
    }
    qsort(l->names, l->n, sizeof(*l->names), by_hash);
    return 0;
}

/* From the i-th on: how many are in one block that begins with used bytes. */
static size_t fitting(const struct layout *l, size_t i, size_t used)
{
    size_t first = i;

    for (; i < l->n && used + ext4_record(l->names[i].len) <= l->end; i++)
        used += ext4_record(l->names[i].len);
    return i - first;
}

static int put_names(struct ext4 *e, const struct layout *l, ext2_ino_t number, size_t first,
                     size_t n, size_t at, size_t last, uint64_t index)
{
    for (size_t i = first; i < first + n; i++) {
        const struct name *name = &l->names[i];

        last = at;
        at = put_name(e->block, at, ext4_record(name->len), name->number, name->name, name->len,
                      name->type);
    }
    stretch(e->block, last, l->end);
    return put_block(e, number, index);
}

static int put_leaves(struct ext4 *e, const struct layout *l, ext2_ino_t number, uint64_t index)
{
    int r = 0;

    for (size_t i = 0, n; r == 0 && i < l->n; i += n, index++) {
        n = fitting(l, i, 0);
        start_block(e);
        r = put_names(e, l, number, i, n, 0, 0, index);
    }
    return r;
}

/* ---- the index ---- */

static size_t put_dots(struct ext4 *e, ext2_ino_t number, ext2_ino_t parent)
{
    size_t at = put_name(e->block, 0, ext4_record(1), number, ".", 1, EXT2_FT_DIR);

    return put_name(e->block, at, ext4_record(2), parent, "..", 2, EXT2_FT_DIR);
}

enum { ROOT_HEAD = 32, NODE_HEAD = 8 };

static size_t index_limit(const struct ext4 *e, size_t head)
{
    size_t tail = ext2fs_has_feature_metadata_csum(e->fs->super) ? sizeof(struct ext2_dx_tail) : 0;

    return (e->block_size - head - tail) / sizeof(struct ext2_dx_entry);
}

/* n blocks from the first on, of which every step-th hash is the first. */
static void put_index(struct ext4 *e, const struct layout *l, size_t head, size_t leaf, size_t step,
                      size_t n, uint64_t first)
{
    struct ext2_dx_entry *entries = (struct ext2_dx_entry *)(e->block + head);
    struct ext2_dx_countlimit *count = (struct ext2_dx_countlimit *)entries;

    for (size_t i = 0; i < n; i++)
        entries[i] = (struct ext2_dx_entry){ .hash = l->hashes[leaf + i * step],
                                             .block = (uint32_t)(first + i) };
    *count = (struct ext2_dx_countlimit){ .limit = (uint16_t)index_limit(e, head),
                                          .count = (uint16_t)n };
}

static int put_tree(struct ext4 *e, const struct layout *l, ext2_ino_t number, ext2_ino_t parent,
                    size_t nodes)
{
    size_t most = index_limit(e, NODE_HEAD);
    int r;

    memset(e->block, 0, e->block_size);
    (void)put_dots(e, number, parent);
    stretch(e->block, ext4_record(1), e->block_size);
    *(struct ext2_dx_root_info *)(e->block + ROOT_HEAD - sizeof(struct ext2_dx_root_info)) =
        (struct ext2_dx_root_info){ .hash_version = (uint8_t)l->version,
                                    .info_length = sizeof(struct ext2_dx_root_info),
                                    .indirect_levels = nodes > 0 };
    if (nodes == 0)
        put_index(e, l, ROOT_HEAD, 0, 1, l->n_leaves, 1);
    else
        put_index(e, l, ROOT_HEAD, 0, most, nodes, 1);
    r = put_block(e, number, 0);
    for (size_t i = 0; r == 0 && i < nodes; i++) {
        size_t leaf = i * most, left = l->n_leaves - leaf;

        memset(e->block, 0, e->block_size);
        stretch(e->block, 0, e->block_size);
        put_index(e, l, NODE_HEAD, leaf, 1, left < most ? left : most, 1 + nodes + leaf);
        r = put_block(e, number, 1 + i);
    }
    return r;
}

static int find_leaves(struct ext4 *e, struct layout *l)
{
    uint32_t before = 0;

    l->hashes = malloc((l->n + 1) * sizeof(*l->hashes));
    if (!l->hashes)
        return error_nomem(&e->job->error, e->job->op);
    for (size_t i = 0, n; i < l->n; i += n) {
        n = fitting(l, i, 0);
        /* The lowest bit: names of this hash are in the leaf before, too. */
        l->hashes[l->n_leaves++] = i > 0 && l->names[i].hash == before ? l->names[i].hash | 1
                                                                       : l->names[i].hash;
        before = l->names[i + n - 1].hash;
    }
    l->hashes[0] = 0;
    return 0;
}

/* ---- */

static int set_size(struct ext4 *e, ext2_ino_t number, uint64_t blocks,
                    struct ext2_inode_large *raw)
{
    uint64_t size = blocks * e->block_size;
    int r = ext4_allocate(e, 0, blocks);

    raw->i_size = (uint32_t)size;
    raw->i_size_high = (uint32_t)(size >> 32);
    return r < 0 ? r : ext4_map(e, number, raw);
}

static int write_indexed(struct ext4 *e, struct layout *l, ext2_ino_t number, ext2_ino_t parent,
                         struct ext2_inode_large *raw)
{
    size_t most = index_limit(e, NODE_HEAD), nodes = 0;
    int r = hash_names(e, l);

    if (r == 0)
        r = find_leaves(e, l);
    if (r < 0)
        return r;
    if (l->n_leaves > index_limit(e, ROOT_HEAD))
        nodes = (l->n_leaves + most - 1) / most;
    if (nodes > index_limit(e, ROOT_HEAD))
        return error_set(&e->job->error, FCPROC_ERR_INVALID, e->job->op, 0,
                         "/%s has %zu names, more than a folder of ext4 can have",
                         SHOWN(e->path, e->path_len), l->n);
    raw->i_flags |= EXT2_INDEX_FL;
    r = set_size(e, number, 1 + nodes + l->n_leaves, raw);
    if (r == 0)
        r = put_tree(e, l, number, parent, nodes);
    return r < 0 ? r : put_leaves(e, l, number, 1 + nodes);
}

static int write_plain(struct ext4 *e, const struct layout *l, ext2_ino_t number, ext2_ino_t parent,
                       struct ext2_inode_large *raw)
{
    size_t dots = ext4_record(1) + ext4_record(2);
    size_t n = fitting(l, 0, dots);
    uint64_t blocks = 1;
    int r;

    for (size_t i = n; i < l->n; i += fitting(l, i, 0))
        blocks++;
    r = set_size(e, number, blocks, raw);
    if (r < 0)
        return r;
    start_block(e);
    (void)put_dots(e, number, parent);
    r = put_names(e, l, number, 0, n, dots, ext4_record(1), 0);
    if (r < 0 || n == l->n)
        return r;
    return put_leaves(e, &(struct layout){ .names = l->names + n, .n = l->n - n, .end = l->end },
                      number, 1);
}

int ext4_folder(struct ext4 *e, ext2_ino_t number, const struct folder *folder,
                struct ext2_inode_large *raw)
{
    struct ext2_super_block *super = e->fs->super;
    struct layout l = { .end = e->block_size, .version = super->s_def_hash_version };
    ext2_ino_t parent = (ext2_ino_t)folder->parent->inode->mark;
    int r = collect(e, folder, number, &l);

    if (ext2fs_has_feature_metadata_csum(super))
        l.end -= sizeof(struct ext2_dir_entry_tail);
    if (r == 0 && ext2fs_has_feature_dir_index(super) &&
        fitting(&l, 0, ext4_record(1) + ext4_record(2)) < l.n)
        r = write_indexed(e, &l, number, parent, raw);
    else if (r == 0)
        r = write_plain(e, &l, number, parent, raw);
    free(l.names);
    free(l.hashes);
    return r;
}
