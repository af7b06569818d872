/* SPDX-License-Identifier: MIT
 *
 * An archive, entry by entry. Errors are in the job's.
 */
#ifndef FCPROC_IMAGE_READ_H
#define FCPROC_IMAGE_READ_H

#include "filler.h"
#include "layer.h"
#include "stream.h"

struct archive_entry;

struct reader {
    job_t *job;
    struct tree *tree;
    struct stream stream;
    struct archive *archive;
    struct filler filler;
    uint32_t source;        /* of contents that stay in the archive: the archive itself */
    const char *entry_name; /* libarchive's, until it is asked for the next one */
    struct shown shown;     /* the same for messages, for longer */
    uint32_t ordinal;       /* from 1 */
    bool unmarked;          /* it ended without an end mark */
    bool pads;              /* its last block may be cut where nothing is missing: a digest tells */
};

/* Takes the descriptor; name lasts as long as the reader. To be closed in any case. */
int reader_open(struct reader *r, job_t *job, int fd, const struct window *window, const char *name,
                bool hashes);
void reader_close(struct reader *r);
/* 1: one; 0: the end. */
int reader_next(struct reader *r, struct archive_entry **ret);
/* What it says, without contents; *ret_skip: nothing. (record.c) */
int reader_record(struct reader *r, struct archive_entry *entry, bool layer, struct record *ret,
                  bool *ret_skip);
/* What the file holds that was the last one. */
int reader_content(struct reader *r, struct inode *inode);

/* Fill the job's error: of the entry, or of a lack of memory. */
int reader_bad(struct reader *r, const char *why);
static inline int reader_nomem(struct reader *r)
{
    return error_nomem(&r->job->error, r->job->op);
}

#endif
