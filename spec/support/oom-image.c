/* SPDX-License-Identifier: MIT
 *
 * What memory that runs out does to image builds: how archives and folders become a tree.
 * oom-image FOLDER, which holds in/ (a folder), plain.tar, and the layers 1.tar.gz and 2.tar.gz
 */
#include "oom-image.h"

static int archive(fcproc_image_tree *tree, const char *name, bool layer)
{
    struct fcproc_image_archive spec = FCPROC_IMAGE_ARCHIVE_INIT;
    fcproc_image_job *job = NULL;
    int r;

    spec.path = in_folder(name);
    spec.layer = layer;
    r = fcproc_image_read_archive(tree, &spec, &job, &error);
    return finish(r, job);
}

static int put(fcproc_image_tree *tree)
{
    static const struct fcproc_image_xattr xattr = { "user.a", 0, "b", 1 };
    struct fcproc_image_node node = FCPROC_IMAGE_NODE_INIT;
    int r;

    node.mode = S_IFREG | 0644;
    node.data = "data";
    node.len = 4;
    node.xattrs = &xattr;
    node.n_xattrs = 1;
    r = fcproc_image_put(tree, "/new/folder/file", &node, &error);
    node.mode = S_IFLNK | 0777;
    node.target = "folder";
    if (r == 0)
        r = fcproc_image_put(tree, "/new/link", &node, &error);
    node.mode = S_IFREG | 0644;
    node.data = NULL;
    node.from = in_folder("plain.tar");
    return r < 0 ? r : fcproc_image_put(tree, "/new/link/copy", &node, &error);
}

static int call_layers(void)
{
    fcproc_image_tree *tree = NULL;
    fcproc_image_job *job = NULL;
    int r = new_tree(&tree);

    if (r == 0)
        r = archive(tree, "2.tar.gz", true);
    if (r == 0)
        r = archive(tree, "1.tar.gz", true);
    if (r == 0)
        r = fcproc_image_merge(tree, &job, &error);
    r = finish(r, job);
    if (r == 0)
        r = put(tree);
    if (r == 0)
        r = fcproc_image_seal(tree, NULL, &error);
    fcproc_image_tree_close(tree);
    return r;
}

static int call_plain(void)
{
    fcproc_image_tree *tree = NULL;
    char byte;
    int r = new_tree(&tree);

    if (r == 0)
        r = archive(tree, "plain.tar", false);
    if (r == 0) {
        ssize_t n = fcproc_image_read(tree, "a", 0, &byte, 1, &error);

        r = n < 0 ? (int)n : 0;
    }
    fcproc_image_tree_close(tree);
    return r;
}

static int call_folder(void)
{
    fcproc_image_tree *tree = NULL;
    fcproc_image_job *job = NULL;
    int r = new_tree(&tree);

    if (r == 0)
        r = fcproc_image_read_folder(tree, in_folder("in"), false, &job, &error);
    r = finish(r, job);
    fcproc_image_tree_close(tree);
    return r;
}

static int call_hash(void)
{
    fcproc_image_job *job = NULL;
    int r = fcproc_image_hash(in_folder("plain.tar"), &job, &error);

    return finish(r, job);
}

int main(int argc, char **argv)
{
    static const struct walked list[] = { { "layers", call_layers, 40 },
                                          { "plain", call_plain, 20 },
                                          { "folder", call_folder, 20 },
                                          { "hash", call_hash, 3 } };

    if (argc != 2)
        return 2;
    start(argv);
    return WALK_ALL(list);
}
