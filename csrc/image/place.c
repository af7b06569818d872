/* SPDX-License-Identifier: MIT
 *
 * Where a path leads to inside a tree: as in a chroot, so that no link leaves it.
 */

#include "tree.h"

/* What is left of the way: the rest of the path, in front of which links' targets are put. */
struct way {
    char *text; /* malloc'ed once a link is on it */
    const char *at, *end;
    int links;
};

static int too_long(const char *path, size_t len, const char *op, fcproc_error *err)
{
    return error_set(err, FCPROC_ERR_INVALID, op, ENAMETOOLONG,
                     "the path is too long: %zu bytes: %s", len, SHOWN(path, len));
}

/* The target in front of what is left. */
static int follow(struct way *way, const struct bytes *target, const char *path, size_t path_len,
                  const char *op, fcproc_error *err)
{
    size_t rest = (size_t)(way->end - way->at), len = target->len + 1 + rest;
    char *text;

    if (++way->links > TREE_LINKS_MOST)
        return error_set(err, FCPROC_ERR_INVALID, op, ELOOP,
                         "too many symbolic links on the way to %s", SHOWN(path, path_len));
    if (len > (size_t)2 * TREE_PATH_MOST)
        return too_long(path, len, op, err);
    text = malloc(len);
    if (!text)
        return error_nomem(err, op);
    memcpy(text, target->data, target->len);
    text[target->len] = '/';
    memcpy(text + target->len + 1, way->at, rest);
    free(way->text);
    way->text = text;
    way->at = text;
    way->end = text + len;
    return 0;
}

/* A folder that is missing on the way. */
static int make_folder(struct tree *tree, struct folder *in, const char *name, size_t len,
                       const struct inode *made, struct folder **ret, const char *op,
                       fcproc_error *err)
{
    struct inode *inode = tree_inode(tree, S_IFDIR | 0755);

    if (!inode || tree_add(tree, in, name, len, inode) < 0)
        return error_nomem(err, op);
    if (made) {
        inode->mtime = made->mtime;
        inode->mtime_ns = made->mtime_ns;
    }
    *ret = inode->folder;
    return 0;
}

static bool is_last(const struct way *way)
{
    const char *p = way->at;

    while (p < way->end && *p == '/')
        p++;
    return p == way->end;
}

static int walk_way(struct tree *tree, struct way *way, const char *path, size_t path_len,
                    int flags, const struct inode *made, struct place *ret, const char *op,
                    fcproc_error *err)
{
    struct folder *folder = tree->root->folder;

    *ret = (struct place){ .folder = folder, .inode = tree->root };
    for (;;) {
        const char *name, *end;
        struct entry *e;
        bool last;
        size_t len;
        int r;

        while (way->at < way->end && *way->at == '/')
            way->at++;
        if (way->at == way->end)
            return 0;
        name = way->at;
        end = memchr(name, '/', (size_t)(way->end - name));
        if (!end)
            end = way->end;
        len = (size_t)(end - name);
        way->at = end;
        if (len == 1 && name[0] == '.')
            continue;
        if (len == 2 && name[0] == '.' && name[1] == '.') {
            folder = folder->parent;
            *ret = (struct place){ .folder = folder, .inode = folder->inode };
            continue;
        }
        if (len > TREE_NAME_MOST)
            return error_set(err, FCPROC_ERR_INVALID, op, ENAMETOOLONG,
                             "a name of %zu bytes, of which no file system takes more than %d: %s",
                             len, TREE_NAME_MOST, SHOWN(path, path_len));
        if (folder->path_len + len > TREE_PATH_MOST)
            return too_long(path, folder->path_len + len, op, err);
        last = is_last(way);
        e = tree_find(tree, folder, name, len);
        if (e && S_ISLNK(e->inode->mode) && (!last || flags & PLACE_FOLLOW)) {
            const struct bytes *target = e->inode->target;

            r = follow(way, target, path, path_len, op, err);
            if (r < 0)
                return r;
            if (target->len > 0 && target->data[0] == '/')
                folder = tree->root->folder;
            *ret = (struct place){ .folder = folder, .inode = folder->inode };
            continue;
        }
        if (last) {
            ret->folder = folder;
            ret->len = len;
            memcpy(ret->name, name, len);
            ret->name[len] = '\0';
            ret->inode = e ? e->inode : NULL;
            return 0;
        }
        if (!e && !(flags & PLACE_MAKE))
            return error_set(err, FCPROC_ERR_NOT_FOUND, op, ENOENT, "no folder on the way to %s",
                             SHOWN(path, path_len));
        if (e && !S_ISDIR(e->inode->mode))
            return error_set(err, FCPROC_ERR_CONFLICT, op, ENOTDIR,
                             "what is on the way to %s is no folder", SHOWN(path, path_len));
        if (e) {
            folder = e->inode->folder;
        } else {
            r = make_folder(tree, folder, name, len, made, &folder, op, err);
            if (r < 0)
                return r;
        }
        *ret = (struct place){ .folder = folder, .inode = folder->inode };
    }
}

int tree_place(struct tree *tree, const char *path, size_t len, int flags, const struct inode *made,
               struct place *ret, const char *op, fcproc_error *err)
{
    struct way way = { .at = path, .end = path + len };
    int r;

    if (len > TREE_PATH_MOST)
        return too_long(path, len, op, err);
    r = walk_way(tree, &way, path, len, flags, made, ret, op, err);
    free(way.text);
    return r;
}
