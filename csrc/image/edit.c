/* SPDX-License-Identifier: MIT
 *
 * Trees for a host: made, looked at and edited by paths, sealed.
 */
#include "tree.h"

static struct tree *tree_of(fcproc_image_tree *handle)
{
    return (struct tree *)handle;
}

FCPROC_API int fcproc_image_tree_new(const struct fcproc_image_limits *limits,
                                     fcproc_image_tree **ret, fcproc_error *err)
{
    struct tree *tree;
    int r = limits ? check_struct(limits, sizeof(*limits), "fcproc_image_limits", "image.tree", err)
                   : 0;

    if (r == 0)
        r = tree_new(limits, &tree, err);
    if (r == 0)
        *ret = (fcproc_image_tree *)tree;
    return r;
}

FCPROC_API void fcproc_image_tree_close(fcproc_image_tree *handle)
{
    tree_unref(tree_of(handle));
}

/* ---- put ---- */

/* "..": what an edit names is meant as it stands. */
static int check_path(const char *path, const char *op, fcproc_error *err)
{
    for (const char *p = path; *p; p += strcspn(p, "/")) {
        p += strspn(p, "/");
        if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == '\0'))
            return error_set(err, FCPROC_ERR_INVALID, op, 0, "there is .. in the path %s",
                             SHOWN(path, strlen(path)));
    }
    return 0;
}

static int put_extent(struct tree *tree, struct inode *inode, uint64_t len, uint32_t source,
                      uint64_t from, const char *op, fcproc_error *err)
{
    if (len == 0)
        return 0;
    inode->extents = tree_alloc(tree, sizeof(struct extent));
    if (!inode->extents)
        return error_nomem(err, op);
    inode->extents[0] = (struct extent){ .len = len, .from = from, .source = source };
    inode->n_extents = 1;
    inode->size = len;
    return 0;
}

static int put_from(struct tree *tree, struct inode *inode, const char *from, const char *op,
                    fcproc_error *err)
{
    struct source source = { .owned = true };
    uint64_t size;
    int r = image_open_regular(from, &source.fd, &size, op, err);

    if (r == 0)
        r = source_add(tree, &source, op, err);
    return r < 0 ? r : put_extent(tree, inode, size, (uint32_t)r, 0, op, err);
}

static int put_content(struct tree *tree, struct inode *inode, const struct fcproc_image_node *node,
                       const char *path, const char *op, fcproc_error *err)
{
    size_t len;

    switch (inode->mode & S_IFMT) {
    case S_IFREG:
        if (node->from)
            return put_from(tree, inode, node->from, op, err);
        if (node->len > 0) {
            uint64_t from = 0;
            int r = spool_write(tree, node->data, node->len, &from, op, err);

            return r < 0 ? r
                         : put_extent(tree, inode, node->len, (uint32_t)tree->spool, from, op, err);
        }
        return 0;
    case S_IFLNK:
        len = node->target ? strlen(node->target) : 0;
        if (len == 0 || len > TREE_PATH_MOST)
            return error_set(err, FCPROC_ERR_INVALID, op, 0,
                             "the symbolic link %s needs a target of 1 to %d bytes",
                             SHOWN(path, strlen(path)), TREE_PATH_MOST);
        inode->mode = S_IFLNK | 0777; /* Linux has no other */
        inode->target = tree_bytes(tree, node->target, len);
        inode->size = len;
        return inode->target ? 0 : error_nomem(err, op);
    default:
        return 0;
    }
}

static int put_xattrs(struct tree *tree, struct inode *inode, const struct fcproc_image_node *node,
                      const char *op, fcproc_error *err)
{
    inode->xattrs = NULL;
    for (size_t i = 0; i < node->n_xattrs; i++) {
        const struct fcproc_image_xattr *x = &node->xattrs[i];
        size_t len = x->name_len > 0 ? x->name_len : strlen(x->name);

        if (len == 0 || len > XATTR_NAME_MOST || x->len > XATTR_SIZE_MOST)
            return error_set(err, FCPROC_ERR_INVALID, op, 0,
                             "no file can have the xattr %s of %zu bytes", SHOWN(x->name, len),
                             x->len);
        if (tree_set_xattr(tree, inode, x->name, len, x->value, x->len) < 0)
            return error_nomem(err, op);
    }
    return 0;
}

static bool is_kind(uint32_t mode)
{
    return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) ||
           S_ISFIFO(mode) || S_ISSOCK(mode);
}

FCPROC_API int fcproc_image_put(fcproc_image_tree *handle, const char *path,
                                const struct fcproc_image_node *node, fcproc_error *err)
{
    static const char op[] = "image.put";
    struct tree *tree = tree_of(handle);
    struct inode *inode;
    struct place place;
    int r = check_struct(node, sizeof(*node), "fcproc_image_node", op, err);

    if (r == 0)
        r = tree_check(tree, TREE_CHANGES, op, err);
    if (r == 0)
        r = check_path(path, op, err);
    if (r < 0)
        return r;
    if (!is_kind(node->mode))
        return error_set(err, FCPROC_ERR_INVALID, op, 0, "the mode 0%o has no kind of file in it",
                         node->mode);
    inode = tree_inode(tree, node->mode);
    if (!inode)
        return error_nomem(err, op);
    inode->uid = node->uid;
    inode->gid = node->gid;
    inode->mtime = node->mtime;
    inode->mtime_ns = node->mtime_ns;
    if (S_ISCHR(node->mode) || S_ISBLK(node->mode)) {
        inode->rdev_major = node->rdev_major;
        inode->rdev_minor = node->rdev_minor;
    }
    r = put_content(tree, inode, node, path, op, err);
    if (r == 0)
        r = put_xattrs(tree, inode, node, op, err);
    if (r == 0)
        r = tree_place(tree, path, strlen(path), PLACE_MAKE, inode, &place, op, err);
    if (r < 0)
        return r;
    if (place.inode && S_ISDIR(place.inode->mode) && S_ISDIR(node->mode)) {
        tree_take_attributes(place.inode, inode);
        return 0;
    }
    if (place.len == 0)
        return error_set(err, FCPROC_ERR_CONFLICT, op, 0, "%s is a folder and stays one",
                         SHOWN(path, strlen(path)));
    if (tree_add(tree, place.folder, place.name, place.len, inode) < 0)
        return error_nomem(err, op);
    return 0;
}

FCPROC_API int fcproc_image_remove(fcproc_image_tree *handle, const char *path, fcproc_error *err)
{
    static const char op[] = "image.remove";
    struct tree *tree = tree_of(handle);
    struct place place;
    int r = tree_check(tree, TREE_CHANGES, op, err);

    if (r == 0)
        r = check_path(path, op, err);
    if (r == 0)
        r = tree_place(tree, path, strlen(path), 0, NULL, &place, op, err);
    if (r < 0)
        return r;
    if (place.len == 0)
        return error_set(err, FCPROC_ERR_INVALID, op, 0, "the root can't be removed");
    if (!place.inode)
        return error_set(err, FCPROC_ERR_NOT_FOUND, op, ENOENT, "there is no %s",
                         SHOWN(path, strlen(path)));
    tree_drop(tree, tree_find(tree, place.folder, place.name, place.len));
    return 0;
}

FCPROC_API int fcproc_image_seal(fcproc_image_tree *handle, struct fcproc_image_sealed *ret,
                                 fcproc_error *err)
{
    static const char op[] = "image.seal";
    struct tree *tree = tree_of(handle);
    int r = ret ? check_struct(ret, sizeof(*ret), "fcproc_image_sealed", op, err) : 0;

    if (r == 0)
        r = tree_check(tree, TREE_LOOKS, op, err);
    if (r < 0)
        return r;
    tree_seal(tree);
    if (ret) {
        ret->entries = tree->n_entries;
        ret->inodes = tree->n_inodes;
        ret->bytes = tree->content_bytes;
        ret->apparent = tree->apparent_bytes;
        ret->largest = tree->largest_size > 0 ? tree->largest : NULL;
    }
    return 0;
}
