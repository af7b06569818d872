/* SPDX-License-Identifier: MIT
 *
 * Looks at a tree, for a host.
 */
#include "tree.h"

static struct tree *tree_of(fcproc_image_tree *handle)
{
    return (struct tree *)handle;
}

int tree_look(struct tree *tree, const char *path, bool follow, struct place *ret, const char *op,
              fcproc_error *err)
{
    int r = tree_check(tree, TREE_LOOKS, op, err);

    if (r == 0)
        r = tree_place(tree, path, strlen(path), follow ? PLACE_FOLLOW : 0, NULL, ret, op, err);
    if (r == 0 && !ret->inode)
        return error_set(err, FCPROC_ERR_NOT_FOUND, op, ENOENT, "there is no %s",
                         SHOWN(path, strlen(path)));
    return r;
}

int tree_look_regular(struct tree *tree, const char *path, struct inode **ret, const char *op,
                      fcproc_error *err)
{
    struct place place;
    int r = tree_look(tree, path, true, &place, op, err);

    if (r < 0)
        return r;
    if (!S_ISREG(place.inode->mode))
        return error_set(err, FCPROC_ERR_CONFLICT, op, 0, "%s is no regular file",
                         SHOWN(path, strlen(path)));
    *ret = place.inode;
    return 0;
}

FCPROC_API int fcproc_image_stat(fcproc_image_tree *handle, const char *path, bool follow,
                                 struct fcproc_image_stat *ret, fcproc_error *err)
{
    static const char op[] = "image.stat";
    const struct inode *inode;
    struct place place;
    int r = check_struct(ret, sizeof(*ret), "fcproc_image_stat", op, err);

    if (r == 0)
        r = tree_look(tree_of(handle), path, follow, &place, op, err);
    if (r < 0)
        return r;
    inode = place.inode;
    ret->mode = inode->mode;
    ret->uid = inode->uid;
    ret->gid = inode->gid;
    ret->rdev_major = inode->rdev_major;
    ret->rdev_minor = inode->rdev_minor;
    ret->nlink = inode->nlink;
    ret->mtime = inode->mtime;
    ret->mtime_ns = inode->mtime_ns;
    ret->size = inode->size;
    ret->target = S_ISLNK(inode->mode) ? inode->target->data : NULL;
    ret->id = (uint64_t)(uintptr_t)inode;
    ret->n_xattrs = 0;
    for (const struct xattr *x = inode->xattrs; x; x = x->next)
        ret->n_xattrs++;
    return 0;
}

FCPROC_API int fcproc_image_stat_xattr(const struct fcproc_image_stat *st, size_t i,
                                       struct fcproc_image_xattr *ret, fcproc_error *err)
{
    const struct xattr *x = ((const struct inode *)(uintptr_t)st->id)->xattrs;

    while (x && i-- > 0)
        x = x->next;
    if (!x)
        return error_set(err, FCPROC_ERR_NOT_FOUND, "image.stat", 0, "it has no more xattrs");
    *ret = (struct fcproc_image_xattr){ .name = x->data,
                                        .name_len = x->name_len,
                                        .value = x->data + x->name_len,
                                        .len = x->value_len };
    return 0;
}

FCPROC_API int fcproc_image_list(fcproc_image_tree *handle, const char *path, size_t i,
                                 const char **ret, fcproc_error *err)
{
    static const char op[] = "image.list";
    struct place place;
    int r = tree_look(tree_of(handle), path, true, &place, op, err);

    if (r < 0)
        return r;
    if (!S_ISDIR(place.inode->mode))
        return error_set(err, FCPROC_ERR_CONFLICT, op, ENOTDIR, "%s is no folder",
                         SHOWN(path, strlen(path)));
    *ret = i < place.inode->folder->n ? place.inode->folder->sorted[i]->name : NULL;
    return 0;
}

FCPROC_API int fcproc_image_resolve(fcproc_image_tree *handle, const char *path, char *ret,
                                    size_t size, fcproc_error *err)
{
    static const char op[] = "image.resolve";
    char text[2 * TREE_PATH_MOST];
    size_t at = sizeof(text) - 1;
    const struct folder *folder;
    struct place place;
    int r = tree_look(tree_of(handle), path, true, &place, op, err);

    if (r < 0)
        return r;
    text[at] = '\0';
    if (place.len > 0) {
        at -= place.len + 1;
        text[at] = '/';
        memcpy(text + at + 1, place.name, place.len);
    }
    for (folder = place.folder; folder->self; folder = folder->parent) {
        size_t len = folder->self->name_len;

        if (at < len + 1)
            return error_set(err, FCPROC_ERR_INVALID, op, ENAMETOOLONG, "the path is too long: %s",
                             SHOWN(path, strlen(path)));
        at -= len + 1;
        text[at] = '/';
        memcpy(text + at + 1, folder->self->name, len);
    }
    if (text[at] == '\0')
        text[--at] = '/';
    if (sizeof(text) - at > size)
        return error_set(err, FCPROC_ERR_INVALID, op, ENAMETOOLONG,
                         "%zu bytes are too few for the path", size);
    memcpy(ret, text + at, sizeof(text) - at);
    return 0;
}

FCPROC_API ssize_t fcproc_image_read(fcproc_image_tree *handle, const char *path, uint64_t at,
                                     void *buffer, size_t len, fcproc_error *err)
{
    static const char op[] = "image.read";
    struct inode *inode;
    int r = tree_look_regular(tree_of(handle), path, &inode, op, err);

    return r < 0 ? r : source_read(tree_of(handle), inode, at, buffer, len, op, err);
}
