/* SPDX-License-Identifier: MIT
 *
 * A sealed tree written out, for a host: as a job.
 */
#include <archive.h>
#include <ext2fs/ext2fs.h>
#include <fcntl.h>

#include "output.h"

struct write_job {
    job_t job;
    enum fcproc_image_format format;
    int fd;
    int64_t time;
    bool gzip;
};

/* ---- trees ---- */

static int write_run(job_t *job)
{
    struct write_job *w = (struct write_job *)job;
    int r = 0;

    if (w->format == FCPROC_IMAGE_EXT4)
        r = ext4_write(job, w->fd, w->time);
    else
        r = archive_out(job, w->fd, w->format == FCPROC_IMAGE_TAR ? ARCHIVE_TAR : ARCHIVE_CPIO,
                        w->gzip);
    close_fd(&w->fd); /* so that the reader of a pipe sees its end */
    return r;
}

static void write_destroy(job_t *job)
{
    close_fd(&((struct write_job *)job)->fd);
}

FCPROC_API int fcproc_image_write(fcproc_image_tree *handle,
                                  const struct fcproc_image_output *output, fcproc_image_job **ret,
                                  fcproc_error *err)
{
    static const char op[] = "image.write";
    struct tree *tree = (struct tree *)handle;
    job_t *job = NULL;
    struct write_job *w;
    int r = check_struct(output, sizeof(*output), "fcproc_image_output", op, err);

    if (r == 0)
        r = tree_check(tree, TREE_LOOKS, op, err);
    if (r == 0 && !tree->sealed)
        r = error_set(err, FCPROC_ERR_INVALID, op, 0, "the tree is not sealed yet");
    if (r == 0)
        r = job_new(sizeof(*w), op, tree, write_run, write_destroy, &job, err);
    if (r < 0)
        return r;
    w = (struct write_job *)job;
    w->format = output->format;
    w->time = output->time > 0 ? output->time : 1; /* 0 is the present to libext2fs */
    w->gzip = output->gzip;
    w->fd = fcntl(output->fd, F_DUPFD_CLOEXEC, 3);
    if (w->fd < 0)
        r = image_errno(err, op, errno, "no descriptor to write the image by");
    return job_hand_out(job, r, ret, err);
}

FCPROC_API struct fcproc_image_versions fcproc_image_versions(void)
{
    struct fcproc_image_versions v = { 0 };

    (void)ext2fs_get_library_version(&v.ext2fs, NULL);
    v.archive = archive_version_string();
    return v;
}

/* ---- pipes: what reads is another program ---- */

struct fcproc_image_pipe {
    int ends[2];
};

FCPROC_API int fcproc_image_pipe_open(fcproc_image_pipe **ret, fcproc_error *err)
{
    static const char op[] = "image.pipe";
    fcproc_image_pipe *pipe = malloc(sizeof(*pipe));

    if (!pipe)
        return error_nomem(err, op);
    if (pipe2(pipe->ends, O_CLOEXEC) < 0) {
        int e = errno;

        free(pipe);
        return image_errno(err, op, e, "no pipe can be made");
    }
    *ret = pipe;
    return 0;
}

FCPROC_API int fcproc_image_pipe_reader(const fcproc_image_pipe *pipe)
{
    return pipe->ends[0];
}

FCPROC_API int fcproc_image_pipe_writer(const fcproc_image_pipe *pipe)
{
    return pipe->ends[1];
}

FCPROC_API void fcproc_image_pipe_close(fcproc_image_pipe *pipe)
{
    if (!pipe)
        return;
    close_fd(&pipe->ends[0]);
    close_fd(&pipe->ends[1]);
    free(pipe);
}
