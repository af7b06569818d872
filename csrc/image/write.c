/* SPDX-License-Identifier: MIT
 *
 * A sealed tree written out, for a host: as a job.
 */
#include <archive.h>
#include <ext2fs/ext2fs.h>

#include "output.h"
#include "pipe.h"

struct write_job {
    job_t job;
    enum fcproc_image_format format;
    int fd;
    int64_t time;
    bool gzip;
};

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
    w->fd = pipe_own(output->fd);
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
