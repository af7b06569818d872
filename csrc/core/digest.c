/* SPDX-License-Identifier: MIT
 *
 * What a file holds, as a SHA-256 of libcrypto. A GiB takes seconds, so a thread does it.
 */
#include <endian.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>

#include "file.h"
#include "library.h"
#include "worker.h"

/* ---- libcrypto ---- */

static struct crypto_functions {
#define CRYPTO_FUNCTION(name) __typeof__(&EVP_##name) name
    CRYPTO_FUNCTION(sha256);
    CRYPTO_FUNCTION(MD_CTX_new);
    CRYPTO_FUNCTION(MD_CTX_free);
    CRYPTO_FUNCTION(DigestInit_ex);
    CRYPTO_FUNCTION(DigestUpdate);
    CRYPTO_FUNCTION(DigestFinal_ex);
#undef CRYPTO_FUNCTION
} crypto;

static int crypto_load(const char *op, fcproc_error *err)
{
    static const struct library_symbol symbols[] = {
#define SYMBOL(name) LIBRARY_SYMBOL(struct crypto_functions, EVP_, name)
        SYMBOL(sha256),        SYMBOL(MD_CTX_new),   SYMBOL(MD_CTX_free),
        SYMBOL(DigestInit_ex), SYMBOL(DigestUpdate), SYMBOL(DigestFinal_ex),
#undef SYMBOL
    };
    static const char *const files[] = { "libcrypto.so.3", "libcrypto.so.1.1", NULL };
    static struct library library = {
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .name = "libcrypto",
        .package = "libssl3",
        .files = files,
        .symbols = symbols,
        .n = ELEMENTS(symbols),
        .functions = &crypto,
    };

    return library_load(&library, op, err);
}

/* ---- hashing ---- */

enum { BLOCK = 4096, CHUNK = 64 * BLOCK, SHA256_SIZE = 32 };

struct digest {
    struct work work;
    char *path;
    int fd;
    bool blocks;
    int64_t size;
    _Atomic int64_t at;
    EVP_MD_CTX *state;
    unsigned char *buffer;
    char hex[FCPROC_HASH_SIZE];
};

static bool update(const struct digest *d, const void *data, size_t len)
{
    return crypto.DigestUpdate(d->state, data, len) == 1;
}

static bool update_number(const struct digest *d, int64_t number)
{
    uint64_t little = htole64((uint64_t)number);

    return update(d, &little, sizeof(little));
}

static bool is_zero(const unsigned char *data, size_t len)
{
    return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

static bool update_blocks(const struct digest *d, int64_t at, size_t len)
{
    for (size_t i = 0; i < len; i += BLOCK) {
        size_t n = len - i < BLOCK ? len - i : BLOCK;

        if (!is_zero(d->buffer + i, n) &&
            !(update_number(d, at + (int64_t)i) && update(d, d->buffer + i, n)))
            return false;
    }
    return true;
}

/* To the block in which the next data is: what is before it is zeros. At the end of the file when
 * there is none. 0 or -errno. */
static int skip_hole(struct digest *d)
{
    off_t data = lseek(d->fd, d->at, SEEK_DATA);

    if (data >= 0)
        d->at = data - data % BLOCK > d->at ? data - data % BLOCK : d->at;
    else if (errno == ENXIO)
        d->at = d->size;
    else if (errno != EINVAL) /* a file system that can't tell */
        return -errno;
    return 0;
}

/* All of a chunk, or what is left of the file. How many bytes, or -errno: -ESTALE when it is shorter
 * than it was. */
static ssize_t read_chunk(const struct digest *d)
{
    int64_t left = d->size - d->at;
    size_t want = left < CHUNK ? (size_t)left : CHUNK, done = 0;

    while (done < want) {
        ssize_t n = pread(d->fd, d->buffer + done, want - done, d->at + (int64_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -ESTALE;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

/* 0 or -errno. */
static int digest_all(struct digest *d)
{
    unsigned char sum[SHA256_SIZE];

    if (crypto.DigestInit_ex(d->state, crypto.sha256(), NULL) != 1)
        return -ENOMEM;
    if (d->blocks && !update_number(d, d->size))
        return -ENOMEM;
    while (d->at < d->size) {
        ssize_t n;
        int r = d->blocks ? skip_hole(d) : 0;

        if (r < 0)
            return r;
        if (atomic_load(&d->work.unwanted))
            return -ECANCELED;
        if (d->at >= d->size)
            break;
        n = read_chunk(d);
        if (n < 0)
            return (int)n;
        if (!(d->blocks ? update_blocks(d, d->at, (size_t)n) : update(d, d->buffer, (size_t)n)))
            return -ENOMEM;
        d->at += n;
    }
    if (crypto.DigestFinal_ex(d->state, sum, NULL) != 1)
        return -ENOMEM;
    for (size_t i = 0; i < SHA256_SIZE; i++)
        (void)snprintf(d->hex + 2 * i, 3, "%02x", sum[i]);
    return 0;
}

static void digest_run(struct work *work)
{
    struct digest *d = (struct digest *)work;
    int r = digest_all(d);

    if (r == -ESTALE)
        work->code = error_set(&work->error, FCPROC_ERR_BUSY, work->error.op, 0,
                               "can't hash %.400s: it became shorter meanwhile", d->path);
    else if (r < 0)
        work->code = file_error(&work->error, work->error.op, -r, "can't hash %s", d->path);
}

static void digest_free(struct work *work)
{
    struct digest *d = (struct digest *)work;

    if (d->state)
        crypto.MD_CTX_free(d->state);
    close_fd(&d->fd);
    free(d->buffer);
    free(d->path);
    free(d);
}

static void digest_describe(const fcproc_op *op, char *buf, size_t size)
{
    const struct digest *d = work_of(op);

    (void)snprintf(buf, size, "the hash of %.300s was at %lld of %lld bytes", d->path,
                   (long long)d->at, (long long)d->size);
}

static int digest_open(struct digest *d, const struct fcproc_hash *spec, fcproc_error *err)
{
    const char *op = d->work.error.op;
    struct stat st;

    if (spec->follow) {
        d->fd = open(spec->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (d->fd < 0)
            return file_error(err, op, errno, "can't open the file %s", spec->path);
        if (fstat(d->fd, &st) < 0)
            return file_error(err, op, errno, "can't look at the file %s", spec->path);
        if (!S_ISREG(st.st_mode))
            return file_conflict(err, op, st.st_mode, "a file", spec->path);
    } else {
        int fd = file_open_expected(op, spec->path, O_RDONLY, spec->expected, &st, err);

        if (fd < 0)
            return fd;
        d->fd = fd;
    }
    d->size = st.st_size;
    d->path = strdup(spec->path);
    d->buffer = malloc(CHUNK);
    d->state = crypto.MD_CTX_new();
    return d->path && d->buffer && d->state ? 0 : error_nomem(err, op);
}

FCPROC_API int fcproc_file_hash(const struct fcproc_hash *spec, fcproc_ctx *ctx, fcproc_op **ret,
                                fcproc_error *err)
{
    static const struct op_class class = {
        .name = "file.hash", .step = work_step, .destroy = work_destroy, .describe = digest_describe
    };
    struct digest *d;
    int r = check_struct(spec, sizeof(*spec), "fcproc_hash", class.name, err);

    if (r == 0)
        r = check_given(spec->path, "file to hash", class.name, err);
    if (r == 0)
        r = fcproc_ctx_status(ctx, err);
    if (r == 0)
        r = crypto_load(class.name, err);
    if (r < 0)
        return r;
    d = work_new(sizeof(*d), class.name, digest_run, digest_free);
    if (!d)
        return error_nomem(err, class.name);
    d->fd = -EBADF;
    d->blocks = spec->blocks;
    r = digest_open(d, spec, err);
    if (r < 0) {
        work_unref(&d->work);
        return r;
    }
    return work_start(&class, &d->work, ctx, ret, err);
}

FCPROC_API const char *fcproc_file_hash_result(const fcproc_op *op)
{
    return ((const struct digest *)work_of(op))->hex;
}
