/* SPDX-License-Identifier: MIT
 *
 * Bytes into a file: small ones are gathered into blocks, large ones are copied by the kernel.
 */
#ifndef FCPROC_IMAGE_OUTPUT_H
#define FCPROC_IMAGE_OUTPUT_H

#include "job.h"

struct output {
    job_t *job;
    int fd; /* the caller's */
    char *buffer;
    size_t used;
    uint64_t at;    /* of the buffer in the file */
    int64_t source; /* that is open, or -1 */
    int source_fd;
    bool source_close;
    bool by_buffer; /* copy_file_range can't, from this source */
};

/* All with a code: 0, or it fills the job's error. */

/* As tree_walk, with 0 in every mark first; with a code. */
int output_walk(const struct tree *tree,
                int (*visit)(void *arg, const char *path, size_t len, const struct entry *entry,
                             struct inode *inode),
                void *arg, const char *op, fcproc_error *err);

int output_new(struct output *out, job_t *job, int fd);
void output_free(struct output *out);
/* What is between two is not written. */
int output_put(struct output *out, const void *data, size_t len, uint64_t at);
/* So many bytes of the source. path is whose they are. */
int output_copy(struct output *out, uint32_t source, uint64_t from, uint64_t len, uint64_t at,
                const char *path, size_t path_len);
int output_flush(struct output *out);
/* So many bytes of the source into data. */
int output_read(struct output *out, uint32_t source, uint64_t from, void *data, size_t len,
                const char *path, size_t path_len);

/* ---- the formats: all of the job's tree to the descriptor ---- */

int ext4_write(job_t *job, int fd, int64_t now);
enum archive_format { ARCHIVE_TAR, ARCHIVE_CPIO };
int archive_out(job_t *job, int fd, enum archive_format format, bool gzip);

#endif
