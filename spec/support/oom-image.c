/* SPDX-License-Identifier: MIT
 *
 * Lets malloc fail in libfcproc-image at the n-th of its own calls, for n = 0, 1, 2, ... until a call
 * succeeds without a failure: each ends as FCPROC_ERR_NOMEM, and no block or descriptor may be left. What
 * libarchive, zlib and libcrypto allocate does not fail: libarchive's strings end the process then.
 * oom-image FOLDER, which holds in/ (a folder), plain.tar, and the layers 1.tar.gz and 2.tar.gz
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fcproc_image.h"

#if defined(__SANITIZE_ADDRESS__)
int main(void)
{
    (void)puts("the sanitizer has the allocator: nothing to interpose\nok");
    return 0;
}
#else

#define INTERPOSE_CALLER
#include "interposer.h"

enum { MOST_FAILURES = 20000 };

static const char *folder;
static fcproc_error error;

static const char *in_folder(const char *name)
{
    static char paths[4][4096];
    static unsigned next;
    char *path = paths[next++ % 4];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static int finish(int r, fcproc_image_job *job)
{
    if (r == 0 && job)
        r = fcproc_image_job_wait(job, &error);
    fcproc_image_job_close(job);
    return r;
}

static int new_tree(fcproc_image_tree **ret)
{
    struct fcproc_image_limits limits = FCPROC_IMAGE_LIMITS_INIT;

    limits.spool_folder = folder;
    return fcproc_image_tree_new(&limits, ret, &error);
}

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

/* One attempt with the n-th allocation failing; -1: wrong; else how many failed. */
static int attempt(const char *name, int (*call)(void), long n, int descriptors)
{
    int failed, r;

    wait_until_alone();
    error = (fcproc_error)FCPROC_ERROR_INIT;
    atomic_store(&failures, 0);
    atomic_store(&tracking, true);
    atomic_store(&left, n);
    r = call();
    disarm();
    atomic_store(&tracking, false);
    failed = atomic_load(&failures);
    wait_until_alone();
    if (blocks_left() > 0 || count_descriptors() != descriptors) {
        (void)printf("%s: failure at %ld leaves %d blocks, %d descriptors\n", name, n,
                     blocks_left(), count_descriptors() - descriptors);
        return -1;
    }
    if (r != (failed > 0 ? FCPROC_ERR_NOMEM : 0)) {
        (void)printf("%s: failure at %ld ends as %s: %s\n", name, n, fcproc_code_name(r),
                     error.message);
        return -1;
    }
    return failed;
}

static int walk(const char *name, int (*call)(void))
{
    int descriptors;
    long n;

    for (int i = 0; i < 3; i++) /* in peace: caches fill */
        if (call() < 0) {
            (void)printf("%s: does not work: %s\n", name, error.message);
            return 1;
        }
    wait_until_alone();
    descriptors = count_descriptors();
    for (n = 0; n < MOST_FAILURES; n++) {
        int failed = attempt(name, call, n, descriptors);

        if (failed < 0)
            return 1;
        if (failed == 0)
            break;
    }
    (void)printf("%s, %s: %ld failures walked\n", name, all_later ? "all later" : "one", n);
    return n == MOST_FAILURES;
}

int main(int argc, char **argv)
{
    int failed = 0;

    (void)setvbuf(stdout, NULL, _IONBF, 0);
    if (argc != 2)
        return 2;
    folder = argv[1];
    armed_thread = pthread_self();
    all_threads = true;
    for (int mode = 0; mode < 2; mode++) {
        all_later = mode;
        failed |= walk("layers", call_layers);
        failed |= walk("plain", call_plain);
        failed |= walk("folder", call_folder);
        failed |= walk("hash", call_hash);
    }
    (void)puts(failed ? "FAILED" : "ok");
    return failed;
}
#endif
