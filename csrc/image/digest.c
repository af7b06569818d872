/* SPDX-License-Identifier: MIT
 *
 * Digests, by libcrypto, and the one of a whole file.
 */
#include "digest.h"

#include <stdio.h>

#include "job.h"

int digest_begin(struct digest *d)
{
    d->state = EVP_MD_CTX_new();
    if (!d->state || EVP_DigestInit_ex(d->state, EVP_sha256(), NULL) != 1)
        return -ENOMEM;
    return 0;
}

int digest_add(struct digest *d, const void *data, size_t len)
{
    return EVP_DigestUpdate(d->state, data, len) == 1 ? 0 : -ENOMEM;
}

int digest_end(struct digest *d, char ret[DIGEST_SIZE])
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    if (EVP_DigestFinal_ex(d->state, sum, &len) != 1 || len != 32)
        return -ENOMEM;
    memcpy(ret, "sha256:", 8);
    for (size_t i = 0; i < len; i++)
        (void)snprintf(ret + 7 + 2 * i, 3, "%02x", sum[i]);
    return 0;
}

void digest_free(struct digest *d)
{
    EVP_MD_CTX_free(d->state);
    d->state = NULL;
}

bool digest_is_valid(const char *text)
{
    return strncmp(text, "sha256:", 7) == 0 && strspn(text + 7, "0123456789abcdef") == 64 &&
           text[7 + 64] == '\0';
}

FCPROC_API int fcproc_image_digest(const void *data, size_t len, char ret[72], fcproc_error *err)
{
    struct digest d = { NULL };
    int r = digest_begin(&d);

    if (r == 0)
        r = digest_add(&d, data, len);
    if (r == 0)
        r = digest_end(&d, ret);
    digest_free(&d);
    return r < 0 ? error_nomem(err, "image.digest") : 0;
}

/* ---- the job ---- */

struct hash_job {
    job_t job;
    int fd;
    char *path;
    char digest[DIGEST_SIZE];
};

static int hash_run(job_t *job)
{
    struct hash_job *h = (struct hash_job *)job;
    cleanup_free char *buffer = malloc(JOB_BLOCK);
    struct digest d = { NULL };
    int r = buffer && digest_begin(&d) == 0 ? 0 : error_nomem(&job->error, job->op);

    job_step(job, "hashing");
    while (r == 0) {
        ssize_t n = read(h->fd, buffer, JOB_BLOCK);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            r = image_errno(&job->error, job->op, errno, "can't read %s", h->path);
        if (n <= 0)
            break;
        atomic_fetch_add_explicit(&job->bytes, (uint64_t)n, memory_order_relaxed);
        r = digest_add(&d, buffer, (size_t)n) < 0 ? error_nomem(&job->error, job->op)
                                                  : job_check(job);
    }
    if (r == 0 && digest_end(&d, h->digest) < 0)
        r = error_nomem(&job->error, job->op);
    digest_free(&d);
    return r;
}

static void hash_destroy(job_t *job)
{
    struct hash_job *h = (struct hash_job *)job;

    close_fd(&h->fd);
    free(h->path);
}

FCPROC_API int fcproc_image_hash(const char *path, fcproc_image_job **ret, fcproc_error *err)
{
    struct hash_job *h;
    uint64_t size;
    job_t *job;
    int r = job_new(sizeof(*h), "image.hash", NULL, hash_run, hash_destroy, &job, err);

    if (r < 0)
        return r;
    h = (struct hash_job *)job;
    h->fd = -EBADF;
    h->path = strdup(path);
    r = h->path ? image_open_regular(path, &h->fd, &size, job->op, err) : error_nomem(err, job->op);
    if (r == 0)
        atomic_store(&job->total, size);
    return job_hand_out(job, r, ret, err);
}

FCPROC_API const char *fcproc_image_hash_result(const fcproc_image_job *job)
{
    return ((const struct hash_job *)job)->digest;
}
