/* SPDX-License-Identifier: MIT
 *
 * All names of a tree, one after another; and a sealed tree, which has them in order, and counted.
 */
#include "tree.h"

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

static int clear_mark(void *arg, const char *path, size_t len, const struct entry *entry,
                      struct inode *inode)
{
    (void)arg, (void)path, (void)len, (void)entry;
    inode->mark = 0;
    return 0;
}

int tree_unmark(const struct tree *tree)
{
    return tree_walk(tree, clear_mark, NULL);
}

/* ---- sealed ---- */

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;

    return tree_compare(x->name, x->name_len, y->name, y->name_len);
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
    (void)tree_unmark(tree);
    (void)tree_walk(tree, count_inode, tree);
    (void)tree_unmark(tree);
    tree->sealed = true;
}
