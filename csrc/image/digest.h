/* SPDX-License-Identifier: MIT
 *
 * SHA-256 sums as OCI writes them: "sha256:" and 64 hexadecimal digits.
 */
#ifndef FCPROC_IMAGE_DIGEST_H
#define FCPROC_IMAGE_DIGEST_H

#include <openssl/evp.h>

#include "image.h"

enum { DIGEST_SIZE = 7 + 64 + 1 };

struct digest {
    EVP_MD_CTX *state;
};

/* 0 or -ENOMEM. */
int digest_begin(struct digest *d);
int digest_add(struct digest *d, const void *data, size_t len);
int digest_end(struct digest *d, char ret[DIGEST_SIZE]);
void digest_free(struct digest *d);
/* Is it written as a digest is? Others than sha256 are not known. */
bool digest_is_valid(const char *text);

#endif
