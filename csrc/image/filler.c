/* SPDX-License-Identifier: MIT
 *
 * Contents on their way into the spool.
 */
#include "filler.h"

void filler_begin(struct filler *f)
{
    f->n = 0;
    f->used = 0;
    f->at = 0;
}

int filler_extent(struct filler *f, uint64_t at, uint32_t source, uint64_t from, uint64_t len)
{
    struct extent *last = f->n > 0 ? &f->extents[f->n - 1] : NULL;

    if (len == 0)
        return 0;
    if (last && last->source == source && last->at + last->len == at &&
        last->from + last->len == from) {
        last->len += len;
        return 0;
    }
    if (f->n == f->room) {
        uint32_t room = f->room ? 2 * f->room : 16;
        struct extent *list = realloc(f->extents, room * sizeof(*list));

        if (!list)
            return error_nomem(f->err, f->op);
        f->extents = list;
        f->room = room;
    }
    f->extents[f->n++] = (struct extent){ .at = at, .from = from, .len = len, .source = source };
    return 0;
}

static bool is_zero(const char *data, size_t len)
{
    return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

static int keep(struct filler *f, uint64_t at, const char *data, size_t len)
{
    uint64_t from = 0;
    int r;

    if (is_zero(data, len))
        return 0;
    r = spool_write(f->tree, data, len, &from, f->op, f->err);
    return r < 0 ? r : filler_extent(f, at, (uint32_t)f->tree->spool, from, len);
}

static int flush(struct filler *f)
{
    int r = f->used > 0 ? keep(f, f->at, f->piece, f->used) : 0;

    f->used = 0;
    return r;
}

int filler_add(struct filler *f, uint64_t at, const void *data, size_t len)
{
    const char *from = data;
    int r = 0;

    if (!f->piece && !(f->piece = malloc(FILLER_PIECE)))
        return error_nomem(f->err, f->op);
    if (f->used > 0 && f->at + f->used != at)
        r = flush(f);
    while (r == 0 && len > 0) {
        size_t n = FILLER_PIECE - (size_t)(at % FILLER_PIECE);

        if (n > len)
            n = len;
        if (n == FILLER_PIECE) {
            r = keep(f, at, from, n);
        } else {
            if (f->used == 0)
                f->at = at;
            memcpy(f->piece + f->used, from, n);
            f->used += n;
            if ((at + n) % FILLER_PIECE == 0)
                r = flush(f);
        }
        at += n;
        from += n;
        len -= n;
    }
    return r;
}

int filler_end(struct filler *f, struct inode *inode)
{
    int r = flush(f);

    if (r < 0 || f->n == 0)
        return r;
    inode->extents = tree_alloc(f->tree, f->n * sizeof(struct extent));
    if (!inode->extents)
        return error_nomem(f->err, f->op);
    memcpy(inode->extents, f->extents, f->n * sizeof(struct extent));
    inode->n_extents = f->n;
    return 0;
}

void filler_free(struct filler *f)
{
    free(f->piece);
    free(f->extents);
    f->piece = NULL;
    f->extents = NULL;
}
