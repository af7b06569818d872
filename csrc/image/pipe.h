/* SPDX-License-Identifier: MIT
 *
 * What is written to a descriptor of the caller's, which may be a pipe that nobody reads.
 */
#ifndef FCPROC_IMAGE_PIPE_H
#define FCPROC_IMAGE_PIPE_H

#include "job.h"

/* One of our own for the same, from 3 on; of a pipe one that does not block, as the caller's may. Or -1. */
int pipe_own(int fd);
/* All of it; a full pipe is waited for until the job is cancelled. 0 or -errno: -ECANCELED. */
int pipe_write(const job_t *job, int fd, const void *data, size_t len);

#endif
