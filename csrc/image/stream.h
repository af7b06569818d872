/* SPDX-License-Identifier: MIT
 *
 * An archive's bytes, unpacked by whatever packed them, with the digests of both sides.
 */
#ifndef FCPROC_IMAGE_STREAM_H
#define FCPROC_IMAGE_STREAM_H

#include <archive.h>
#include <zlib.h>

#include "digest.h"
#include "job.h"

enum stream_kind {
    STREAM_PLAIN,
    STREAM_PASSED, /* plain, by way of libarchive: what it took to look at can't be read again */
    STREAM_GZIP,   /* from here on, packed */
    STREAM_OTHER,
};

struct stream {
    job_t *job;
    const char *name; /* for messages */
    int fd;
    bool seekable;       /* a regular file, */
    uint64_t base, size; /* of which this begins at base and has so many bytes */
    enum stream_kind kind;
    uint64_t ratio, ratio_from; /* the limit, and from how many unpacked bytes on it counts */
    bool hashes;                /* both digests are taken */
    char *in;                   /* what was read last: */
    size_t in_len;              /* so many bytes, */
    size_t in_at;               /* up to here taken */
    bool in_end;                /* nothing comes any more */
    char *out;                  /* of gzip */
    z_stream gzip;
    bool gzip_member; /* inside one */
    struct archive *other;
    uint64_t packed, plain; /* bytes so far */
    struct digest packed_digest, plain_digest;
    int code; /* what failed first; job->error is filled */
};

/* So many bytes of a file. */
struct window {
    uint64_t from, len;
};

/* Takes the descriptor, which is read from where it stands, or at the window. 0 or a code, in job->error. */
int stream_open(struct stream *s, job_t *job, int fd, const struct window *window, const char *name,
                uint64_t ratio, bool hashes);
/* The next bytes, which are the stream's; *ret_len 0 at the end. */
int stream_next(struct stream *s, const void **ret, size_t *ret_len);
/* At most so many bytes further on without reading them: how many, 0 when all must be read. */
uint64_t stream_skip(struct stream *s, uint64_t len);
/* To the end, and the digests: packed, unpacked. */
int stream_finish(struct stream *s, char packed[DIGEST_SIZE], char plain[DIGEST_SIZE]);
void stream_close(struct stream *s);

#endif
