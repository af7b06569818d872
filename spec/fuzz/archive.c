/* SPDX-License-Identifier: MIT
 *
 * For libFuzzer: archives, read into trees as they are and as layers. Whatever they hold, they become a
 * tree or are FCPROC_ERR_INVALID.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fcproc_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void fail(const char *what, const fcproc_error *err)
{
    (void)fprintf(stderr, "%s: %s\n", what, err->message);
    abort();
}

static int finish(int r, fcproc_image_job *job, fcproc_error *err)
{
    if (r == 0)
        r = fcproc_image_job_wait(job, err);
    fcproc_image_job_close(job);
    return r;
}

/* Every name of the root, and what it leads to, can be looked at. */
static void look(fcproc_image_tree *tree, fcproc_error *err)
{
    const char *name;
    char path[8192];

    for (size_t i = 0;; i++) {
        struct fcproc_image_stat st = FCPROC_IMAGE_STAT_INIT;

        if (fcproc_image_list(tree, "/", i, &name, err) < 0)
            fail("list", err);
        if (!name)
            return;
        if (strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || !*name)
            fail("a name that is none", err);
        if (fcproc_image_stat(tree, name, false, &st, err) < 0)
            fail("stat", err);
        if (S_ISREG(st.mode) && fcproc_image_read(tree, name, 0, path, sizeof(path), err) < 0)
            fail("read", err);
        (void)!fcproc_image_resolve(tree, name, path, sizeof(path), err);
    }
}

static void read_one(int fd, bool layer)
{
    struct fcproc_image_limits limits = FCPROC_IMAGE_LIMITS_INIT;
    struct fcproc_image_archive spec = FCPROC_IMAGE_ARCHIVE_INIT;
    struct fcproc_image_sealed sealed = FCPROC_IMAGE_SEALED_INIT;
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_image_tree *tree = NULL;
    fcproc_image_job *job = NULL;
    int r;

    limits.entries = 10000;
    limits.bytes = 64 << 20;
    limits.spool_folder = "/tmp";
    if (fcproc_image_tree_new(&limits, &tree, &err) < 0)
        fail("tree", &err);
    spec.fd = fd;
    spec.layer = layer;
    r = fcproc_image_read_archive(tree, &spec, &job, &err);
    r = finish(r, job, &err);
    if (r == 0 && layer) {
        job = NULL;
        r = fcproc_image_merge(tree, &job, &err);
        r = finish(r, job, &err);
    }
    if (r < 0 && r != FCPROC_ERR_INVALID)
        fail(fcproc_code_name(r), &err);
    if (r == 0) {
        look(tree, &err);
        if (fcproc_image_seal(tree, &sealed, &err) < 0)
            fail("seal", &err);
        look(tree, &err);
    }
    fcproc_image_tree_close(tree);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    int fd = memfd_create("archive", MFD_CLOEXEC);

    if (fd < 0 || write(fd, data, len) != (ssize_t)len)
        abort();
    for (int layer = 0; layer < 2; layer++) {
        (void)lseek(fd, 0, SEEK_SET);
        read_one(fd, layer);
    }
    (void)close(fd);
    return 0;
}
