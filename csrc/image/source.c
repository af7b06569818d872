/* SPDX-License-Identifier: MIT
 *
 * Where the contents of files are: in an archive, in a folder's files, or in the spool, a file without a
 * name beside the image that is to be.
 */
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/syscall.h>

#include "tree.h"

int source_add(struct tree *tree, const struct source *source, const char *op, fcproc_error *err)
{
    if (tree->n_sources == tree->room_sources) {
        size_t room = tree->room_sources ? 2 * tree->room_sources : 8;
        struct source *list = realloc(tree->sources, room * sizeof(*list));

        if (!list) {
            int fd = source->fd;

            if (source->owned)
                close_fd(&fd);
            return error_nomem(err, op);
        }
        tree->sources = list;
        tree->room_sources = room;
    }
    tree->sources[tree->n_sources] = *source;
    return (int)tree->n_sources++;
}

/* Is it, as far as can be seen, what it was when it was read? */
static bool is_same(const struct source *s, const struct stat *st)
{
    return st->st_dev == s->dev && st->st_ino == s->ino && (uint64_t)st->st_size == s->size &&
           st->st_mtim.tv_sec == s->mtime && (uint32_t)st->st_mtim.tv_nsec == s->mtime_ns &&
           st->st_ctim.tv_sec == s->ctime && (uint32_t)st->st_ctim.tv_nsec == s->ctime_ns;
}

int source_open(const struct tree *tree, uint32_t source, int *ret_fd, bool *ret_close,
                const char *op, fcproc_error *err)
{
    const struct source *s = &tree->sources[source];
    struct open_how how = { .flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };
    struct stat st;
    int fd;

    if (!s->path) {
        *ret_fd = s->fd;
        *ret_close = false;
        return 0;
    }
    fd = (int)syscall(SYS_openat2, s->fd, s->path, &how, sizeof(how));
    if (fd < 0 || fstat(fd, &st) < 0) {
        int e = errno;

        close_fd(&fd);
        return image_errno(err, op, e, "can't open the folder's file %s",
                           SHOWN(s->path, strlen(s->path)));
    }
    if (!is_same(s, &st)) {
        close_fd(&fd);
        return error_set(err, FCPROC_ERR_BUSY, op, 0,
                         "the folder's file %s was changed meanwhile: build from what nobody "
                         "writes to",
                         SHOWN(s->path, strlen(s->path)));
    }
    *ret_fd = fd;
    *ret_close = true;
    return 0;
}

/* From one extent, all of it. */
static int read_extent(const struct tree *tree, const struct extent *e, uint64_t at, char *buffer,
                       size_t len, const char *op, fcproc_error *err)
{
    bool own = false;
    int fd = -1, r = source_open(tree, e->source, &fd, &own, op, err);
    size_t done = 0;

    while (r == 0 && done < len) {
        ssize_t n = pread(fd, buffer + done, len - done, (off_t)(e->from + (at - e->at) + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            r = image_errno(err, op, errno, "can't read contents");
        else if (n == 0)
            r = error_set(err, FCPROC_ERR_BUSY, op, 0,
                          "what contents are read from became shorter meanwhile");
        else
            done += (size_t)n;
    }
    if (own)
        close_fd(&fd);
    return r;
}

ssize_t source_read(const struct tree *tree, const struct inode *inode, uint64_t at, void *buffer,
                    size_t len, const char *op, fcproc_error *err)
{
    if (at >= inode->size)
        return 0;
    if (len > inode->size - at)
        len = (size_t)(inode->size - at);
    memset(buffer, 0, len);
    for (uint32_t i = 0; i < inode->n_extents; i++) {
        const struct extent *e = &inode->extents[i];
        uint64_t from = e->at > at ? e->at : at;
        uint64_t to = e->at + e->len < at + len ? e->at + e->len : at + len;
        int r = from < to ? read_extent(tree, e, from, (char *)buffer + (from - at),
                                        (size_t)(to - from), op, err)
                          : 0;

        if (r < 0)
            return r;
    }
    return (ssize_t)len;
}

/* Where the file system has no O_TMPFILE. */
static int make_unlinked(int folder)
{
    char name[] = ".fcproc-0123456789abcdef";
    uint64_t number;
    int fd;

    if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
        return -1;
    (void)snprintf(name, sizeof(name), ".fcproc-%016llx", (unsigned long long)number);
    fd = openat(folder, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0)
        (void)unlinkat(folder, name, 0);
    return fd;
}

static int spool_make(struct tree *tree, const char *op, fcproc_error *err)
{
    struct source spool = { .owned = true };
    int r;

    if (tree->spool_folder < 0)
        return error_set(err, FCPROC_ERR_INVALID, op, 0,
                         "the contents of files need a place: give the tree a spool_folder");
    spool.fd = openat(tree->spool_folder, ".", O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    if (spool.fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR))
        spool.fd = make_unlinked(tree->spool_folder);
    if (spool.fd < 0)
        return image_errno(err, op, errno, "can't make a file for contents in %s",
                           tree->spool_path);
    r = source_add(tree, &spool, op, err);
    if (r < 0)
        return r;
    tree->spool = r;
    return 0;
}

int spool_write(struct tree *tree, const void *data, size_t len, uint64_t *ret_from, const char *op,
                fcproc_error *err)
{
    size_t done = 0;

    if (tree->spool < 0) {
        int r = spool_make(tree, op, err);

        if (r < 0)
            return r;
    }
    while (done < len) {
        ssize_t n = pwrite(tree->sources[tree->spool].fd, (const char *)data + done, len - done,
                           (off_t)(tree->spool_size + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return image_errno(err, op, errno, "can't keep contents in %s", tree->spool_path);
        done += (size_t)n;
    }
    *ret_from = tree->spool_size;
    tree->spool_size += len;
    return 0;
}
