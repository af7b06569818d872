/* SPDX-License-Identifier: MIT
 *
 * Layers. They are read from the top down, so that of what an upper one hides nothing need be kept; and
 * applied one after another from the bottom up, as the OCI text says, which alone is right for links
 * on the way and hard links to names that are gone.
 */
#include "layer.h"

/* ---- into the tree ---- */

static int add(struct tree *tree, const struct record *record, struct inode *inode, const char *op,
               fcproc_error *err)
{
    const struct bytes *path = record->path;
    struct place place;
    int r = tree_place(tree, path->data, path->len, PLACE_MAKE, inode, &place, op, err);

    if (r < 0)
        return r;
    if (place.inode && S_ISDIR(place.inode->mode) && S_ISDIR(inode->mode)) {
        if (place.inode != inode)
            tree_take_attributes(place.inode, inode);
        return 0;
    }
    if (place.len == 0)
        return error_set(err, FCPROC_ERR_INVALID, op, 0, "the entry %s would be the root itself",
                         SHOWN(path->data, path->len));
    return tree_add(tree, place.folder, place.name, place.len, inode) < 0 ? error_nomem(err, op)
                                                                          : 0;
}

static int add_link(struct tree *tree, const struct record *record, const char *op,
                    fcproc_error *err)
{
    const struct bytes *path = record->path, *link = record->link;
    struct place from;
    int r = tree_place(tree, link->data, link->len, 0, NULL, &from, op, err);

    if (r < 0 && r != FCPROC_ERR_NOT_FOUND && r != FCPROC_ERR_CONFLICT)
        return r;
    if (r < 0 || !from.inode)
        return error_set(err, FCPROC_ERR_INVALID, op, 0,
                         "the entry %s is a hard link to %s, which is not there",
                         SHOWN(path->data, path->len), SHOWN(link->data, link->len));
    if (S_ISDIR(from.inode->mode))
        return error_set(err, FCPROC_ERR_INVALID, op, 0,
                         "the entry %s is a hard link to %s, which is a folder",
                         SHOWN(path->data, path->len), SHOWN(link->data, link->len));
    return add(tree, record, from.inode, op, err);
}

int record_apply(struct tree *tree, const struct record *record, const char *op, fcproc_error *err)
{
    int r = record->kind == RECORD_LINK ? add_link(tree, record, op, err)
                                        : add(tree, record, record->inode, op, err);

    /* Whatever is wrong in an archive is the archive's: a "conflict" would be ours. */
    if (r == FCPROC_ERR_CONFLICT)
        r = error_set(err, FCPROC_ERR_INVALID, op, 0, "of the entry %s a parent is no folder",
                      SHOWN(record->path->data, record->path->len));
    return r;
}

/* What the layers below have: a name that nothing is left of is no fault. */
static int hide(struct tree *tree, const struct record *record, const char *op, fcproc_error *err)
{
    const struct bytes *path = record->path;
    struct place place;
    int r = tree_place(tree, path->data, path->len, 0, NULL, &place, op, err);

    if (r == FCPROC_ERR_NOT_FOUND || r == FCPROC_ERR_CONFLICT)
        return 0;
    if (r < 0 || !place.inode)
        return r;
    if (record->kind == RECORD_WHITEOUT && place.len > 0)
        tree_drop(tree, tree_find(tree, place.folder, place.name, place.len));
    else if (S_ISDIR(place.inode->mode))
        tree_clear(tree, place.inode->folder);
    return 0;
}

/* aufs keeps the files of its hard links there; they are names of nothing. */
static const char PLNK[] = ".wh..wh.plnk";

int layers_apply(struct tree *tree, const char *op, fcproc_error *err)
{
    for (const struct layer *layer = tree->layers; layer; layer = layer->above) {
        struct entry *plnk;
        int r = 0;

        for (size_t i = 0; r == 0 && i < layer->n; i++)
            if (layer->records[i].kind >= RECORD_WHITEOUT)
                r = hide(tree, &layer->records[i], op, err);
        for (size_t i = 0; r == 0 && i < layer->n; i++)
            if (layer->records[i].kind < RECORD_WHITEOUT)
                r = record_apply(tree, &layer->records[i], op, err);
        if (r < 0)
            return r;
        plnk = tree_find(tree, tree->root->folder, PLNK, sizeof(PLNK) - 1);
        if (plnk)
            tree_drop(tree, plnk);
    }
    return 0;
}

/* ---- what is hidden ----
 * A tree of the names of the layers read so far, without links, in which whatever is no folder hides all
 * that is below its path, and a folder's mark all that the layers below have in it. */

static struct folder *shade_root(const struct tree *tree)
{
    return tree->shade->root->folder;
}

/* The next name of the path; NULL at its end. */
static const char *next_name(const char **at, const char *end, size_t *ret_len)
{
    const char *name = *at, *slash;

    if (name >= end)
        return NULL;
    slash = memchr(name, '/', (size_t)(end - name));
    *ret_len = (size_t)((slash ? slash : end) - name);
    *at = slash ? slash + 1 : end;
    return name;
}

bool layer_hides(const struct tree *tree, const char *path, size_t len)
{
    const char *at = path, *end = path + len, *name;
    const struct folder *folder;
    bool opaque = false;
    size_t n = 0;

    if (!tree->shade)
        return false;
    folder = shade_root(tree);
    while ((name = next_name(&at, end, &n)) != NULL) {
        const struct entry *e = tree_find(tree->shade, folder, name, n);

        opaque = opaque || folder->inode->mark;
        if (!e)
            return opaque;
        if (!S_ISDIR(e->inode->mode))
            return true;
        folder = e->inode->folder;
    }
    return true; /* a folder, which hides a file */
}

/* What the record says of its path to the layers below. */
static int cast_shade(struct tree *tree, const struct record *record)
{
    bool is_folder = record->kind == RECORD_OPAQUE ||
                     (record->kind == RECORD_ADD && S_ISDIR(record->inode->mode));
    const char *at = record->path->data, *end = at + record->path->len, *name;
    struct tree *shade = tree->shade;
    struct folder *folder = shade_root(tree);
    size_t n = 0;

    while ((name = next_name(&at, end, &n)) != NULL) {
        const struct entry *e = tree_find(shade, folder, name, n);
        bool last = at >= end;
        struct inode *inode;

        if (e && !S_ISDIR(e->inode->mode))
            return 0;
        if (e) {
            folder = e->inode->folder;
            /* Beneath an upper folder something else: nothing of lower ones comes through that. */
            if (last && !is_folder)
                folder->inode->mark = 1;
            continue;
        }
        if (last && !is_folder) {
            if (!tree->shade_end)
                tree->shade_end = tree_inode(shade, S_IFCHR);
            inode = tree->shade_end;
        } else {
            inode = tree_inode(shade, S_IFDIR);
        }
        if (!inode || tree_add(shade, folder, name, n, inode) < 0)
            return -ENOMEM;
        if (S_ISDIR(inode->mode))
            folder = inode->folder;
    }
    if (record->kind == RECORD_OPAQUE)
        folder->inode->mark = 1;
    return 0;
}

int layer_end(struct tree *tree, const struct layer *layer)
{
    if (!tree->shade && tree_new(NULL, &tree->shade, NULL) < 0)
        return -ENOMEM;
    for (size_t i = 0; i < layer->n; i++)
        if (cast_shade(tree, &layer->records[i]) < 0)
            return -ENOMEM;
    return 0;
}

/* ---- their list ---- */

struct layer *layer_new(struct tree *tree, const char *name)
{
    struct layer *layer = calloc(1, sizeof(*layer));

    if (!layer)
        return NULL;
    layer->fd = -EBADF;
    layer->name = strdup(name);
    if (!layer->name) {
        free(layer);
        return NULL;
    }
    tree->free_layers = layers_free;
    layer->above = tree->layers;
    tree->layers = layer;
    return layer;
}

int layer_add(struct layer *layer, const struct record *record)
{
    if (layer->n == layer->room) {
        size_t room = layer->room ? 2 * layer->room : 64;
        struct record *list = realloc(layer->records, room * sizeof(*list));

        if (!list)
            return -ENOMEM;
        layer->records = list;
        layer->room = room;
    }
    layer->records[layer->n++] = *record;
    return 0;
}

void layers_free(struct tree *tree)
{
    while (tree->layers) {
        struct layer *layer = tree->layers;

        tree->layers = layer->above;
        close_fd(&layer->fd);
        free(layer->records);
        free(layer->name);
        free(layer);
    }
    tree_unref(tree->shade);
    tree->shade = NULL;
    tree->shade_end = NULL;
}
