/* SPDX-License-Identifier: MIT
 *
 * Pipes: one to another program, which reads what is written, and how it is written, since that program
 * may take nothing for long.
 */
#include "pipe.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>

int pipe_own(int fd)
{
    cleanup_fd int other = -EBADF;
    char self[32];
    struct stat st;

    if (fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode)) {
        (void)snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
        other = open(self, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    }
    return fcntl(other >= 0 ? other : fd, F_DUPFD_CLOEXEC, 3);
}

int pipe_write(const job_t *job, int fd, const void *data, size_t len)
{
    struct pollfd p[] = { { .fd = fd, .events = POLLOUT },
                          { .fd = job->cancel_fd, .events = POLLIN } };

    for (size_t done = 0; done < len;) {
        ssize_t n = write(fd, (const char *)data + done, len - done);

        if (n >= 0)
            done += (size_t)n;
        else if (errno == EAGAIN)
            (void)poll(p, 2, -1);
        else if (errno != EINTR)
            return -errno;
        if (done < len && atomic_load_explicit(&job->cancelled, memory_order_relaxed))
            return -ECANCELED;
    }
    return 0;
}

/* ---- for a host ---- */

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
