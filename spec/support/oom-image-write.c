/* SPDX-License-Identifier: MIT
 *
 * What memory that runs out does to image builds: how a tree becomes a disk or an archive, and what else
 * is made of it.
 * oom-image-write FOLDER, which holds in/ (a folder), 1.tar.gz, packed.xz, out/ (empty), and blank.ext4, an
 * empty file system
 */
#include <fcntl.h>
#include <sys/mman.h>

#include "oom-image.h"

static fcproc_image_tree *sealed; /* of in/, and what warns when it is written */

static int put(const char *path, struct fcproc_image_node node)
{
    return fcproc_image_put(sealed, path, &node, &error);
}

static int make_sealed(void)
{
    static const struct fcproc_image_xattr xattr = { "com.apple.x", 0, "b", 1 };
    struct fcproc_image_node node = FCPROC_IMAGE_NODE_INIT;
    fcproc_image_job *job = NULL;
    int r = new_tree(&sealed);

    if (r == 0)
        r = fcproc_image_read_folder(sealed, in_folder("in"), false, &job, &error);
    r = finish(r, job);
    node.mode = S_IFSOCK | 0600;
    if (r == 0)
        r = put("/socket", node);
    node.mode = S_IFREG | 0644;
    node.mtime = INT64_MAX >> 8;
    if (r == 0)
        r = put("/late", node);
    node.mtime = 0;
    node.xattrs = &xattr;
    node.n_xattrs = 1;
    if (r == 0)
        r = put("/odd", node);
    return r < 0 ? r : fcproc_image_seal(sealed, NULL, &error);
}

/* ---- formats ---- */

static int write_to(int fd, enum fcproc_image_format format, bool gzip)
{
    struct fcproc_image_output output = FCPROC_IMAGE_OUTPUT_INIT;
    fcproc_image_job *job = NULL;
    int r;

    if (fd < 0)
        return FCPROC_ERR_SYSTEM;
    output.fd = fd;
    output.format = format;
    output.gzip = gzip;
    r = fcproc_image_write(sealed, &output, &job, &error);
    r = finish(r, job);
    (void)close(fd);
    return r;
}

/* A copy of blank.ext4 without its zeros; -1: none could be made. */
static int blank_disk(void)
{
    enum { BLOCK = 4096 };
    static const char zeros[BLOCK];
    char block[BLOCK];
    int from = open(in_folder("blank.ext4"), O_RDONLY | O_CLOEXEC);
    int disk = memfd_create("disk", MFD_CLOEXEC);
    off_t at = 0;
    bool fine = true;

    while (fine && read(from, block, BLOCK) == BLOCK) {
        if (memcmp(block, zeros, BLOCK) != 0)
            fine = pwrite(disk, block, BLOCK, at) == BLOCK;
        at += BLOCK;
    }
    fine = fine && ftruncate(disk, at) == 0;
    (void)close(from);
    if (!fine)
        (void)close(disk);
    return fine ? disk : -1;
}

static int call_ext4(void)
{
    return write_to(blank_disk(), FCPROC_IMAGE_EXT4, false);
}

static int nowhere(void)
{
    return open("/dev/null", O_WRONLY | O_CLOEXEC);
}

static int call_tar(void)
{
    return write_to(nowhere(), FCPROC_IMAGE_TAR, false);
}

static int call_cpio(void)
{
    return write_to(nowhere(), FCPROC_IMAGE_CPIO, true);
}

static int call_measure(void)
{
    struct fcproc_image_need need = FCPROC_IMAGE_NEED_INIT;

    return fcproc_image_measure(sealed, &need, &error);
}

/* ---- what else there is to a tree ---- */

/* By a link, whose target is put in front of the way. */
static int call_look(void)
{
    struct fcproc_image_stat st = FCPROC_IMAGE_STAT_INIT;
    const char *name;
    char path[64], byte;
    int r = fcproc_image_stat(sealed, "/link/name1", true, &st, &error);

    if (r == 0)
        r = fcproc_image_list(sealed, "/link", 0, &name, &error);
    if (r == 0)
        r = fcproc_image_resolve(sealed, "/link/name1", path, sizeof(path), &error);
    if (r == 0) {
        ssize_t n = fcproc_image_read(sealed, "/link/name1", 0, &byte, 1, &error);

        r = n < 0 ? (int)n : 0;
    }
    return r;
}

/* Into a spool of its own, which the tree then has. */
static int call_extract(void)
{
    struct fcproc_image_node node = FCPROC_IMAGE_NODE_INIT;
    fcproc_image_tree *tree = NULL;
    fcproc_image_job *job = NULL;
    int r = new_tree(&tree);

    node.mode = S_IFREG | 0644;
    node.from = in_folder("in/big");
    if (r == 0)
        r = fcproc_image_put(tree, "/file", &node, &error);
    node.mode = S_IFLNK | 0777;
    node.from = NULL;
    node.target = "file";
    if (r == 0)
        r = fcproc_image_put(tree, "/link", &node, &error);
    if (r == 0)
        r = fcproc_image_extract(tree, "/link", &job, &error);
    r = finish(r, job);
    fcproc_image_tree_close(tree);
    return r;
}

/* ---- files ---- */

/* A name for what is new, then for what takes its place. */
static int publish(void)
{
    fcproc_image_target *target = NULL;
    fcproc_image_job *job = NULL;
    int r = fcproc_image_target_open(in_folder("out/target"), &target, &error);

    if (r == 0)
        r = fcproc_image_target_resize(target, 4096, &error);
    if (r == 0)
        r = fcproc_image_target_publish(target, &job, &error);
    r = finish(r, job);
    fcproc_image_target_close(target);
    return r;
}

static int copy(void)
{
    fcproc_image_target *target = NULL;
    fcproc_image_job *job = NULL;
    int r = fcproc_image_target_open(in_folder("out/target"), &target, &error);

    if (r == 0)
        r = fcproc_image_target_copy(target, in_folder("1.tar.gz"), &job, &error);
    r = finish(r, job);
    fcproc_image_target_close(target);
    return r;
}

static int call_target(void)
{
    enum { NOTHING = 2 }; /* but "." and ".." */
    int there = 0, r = publish();

    if (r == 0) {
        there = 1;
        r = publish();
    }
    if (r == 0)
        r = copy();
    if (count_entries(in_folder("out")) != NOTHING + there) {
        (void)snprintf(error.message, sizeof(error.message), "out/ holds something else");
        r = FCPROC_ERR_SYSTEM;
    }
    (void)unlink(in_folder("out/target"));
    return r;
}

static int unpack(const char *name)
{
    static const char *const marks[] = { "name1", "never" };
    struct fcproc_image_unpacking given = FCPROC_IMAGE_UNPACKING_INIT;
    struct fcproc_image_unpacked unpacked = FCPROC_IMAGE_UNPACKED_INIT;
    fcproc_image_job *job = NULL;
    int r;

    given.path = in_folder(name);
    given.keep = true;
    given.marks = marks;
    given.n_marks = 2;
    r = fcproc_image_unpack(&given, &job, &error);
    if (r == 0)
        r = fcproc_image_job_wait(job, &error);
    if (r == 0)
        r = fcproc_image_unpack_result(job, &unpacked, &error);
    fcproc_image_job_close(job);
    return r;
}

static int call_unpack(void)
{
    int r = unpack("1.tar.gz");

    return r < 0 ? r : unpack("packed.xz");
}

static int call_pipe(void)
{
    fcproc_image_pipe *pipe = NULL;
    int r = fcproc_image_pipe_open(&pipe, &error);

    fcproc_image_pipe_close(pipe);
    return r;
}

int main(int argc, char **argv)
{
    static const struct walked list[] = {
        { "ext4", call_ext4, 9 },     { "tar", call_tar, 7 },
        { "cpio", call_cpio, 6 },     { "measure", call_measure, 0 },
        { "look", call_look, 4 },     { "extract", call_extract, 8 },
        { "target", call_target, 6 }, { "unpack", call_unpack, 10 },
        { "pipe", call_pipe, 1 },
    };
    int failed;

    if (argc != 2)
        return 2;
    start(argv);
    if (make_sealed() < 0) {
        (void)printf("no tree: %s\n", error.message);
        return 1;
    }
    failed = WALK_ALL(list);
    fcproc_image_tree_close(sealed);
    return failed;
}
