/* SPDX-License-Identifier: MIT
 *
 * Folders with what is in them: listed, and removed by descriptors, at any depth, without ever
 * following a link or leaving the file system.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>

#include "file.h"

/* ---- listing ---- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct fcproc_dir_entry *)a)->name,
                  ((const struct fcproc_dir_entry *)b)->name);
}

static enum fcproc_file_type entry_type(int dir_fd, const struct dirent *entry)
{
    struct stat st;

    if (entry->d_type != DT_UNKNOWN)
        return file_type(DTTOIF(entry->d_type));
    /* Not every file system tells. What went meanwhile is anything. */
    return fstatat(dir_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? FCPROC_FILE_OTHER
                                                                        : file_type(st.st_mode);
}

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static void close_dir(DIR **dir)
{
    if (*dir)
        (void)closedir(*dir);
}

#define cleanup_dir __attribute__((cleanup(close_dir)))

/* A stream over the folder, which owns fd even when it fails. */
static DIR *open_stream(int fd)
{
    DIR *dir = fdopendir(fd);

    if (!dir)
        close_fd(&fd);
    return dir;
}

FCPROC_API int fcproc_dir_list(const char *path, struct fcproc_dir_entry **ret, size_t *ret_n,
                               fcproc_error *err)
{
    static const char op[] = "dir.list";
    cleanup_free struct fcproc_dir_entry *list = NULL;
    cleanup_dir DIR *dir = NULL;
    char buf[PATH_MAX];
    size_t n = 0, room = 0;
    int fd = open(file_plain_path(path, buf), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return file_error(err, op, errno, "can't list the folder %s", path);
    dir = open_stream(fd);
    if (!dir)
        return file_error(err, op, errno, "can't list the folder %s", path);
    for (;;) {
        struct dirent *entry;

        errno = 0;
        entry = readdir(dir);
        if (!entry && errno)
            return file_error(err, op, errno, "can't list the folder %s", path);
        if (!entry)
            break;
        if (is_dot(entry->d_name))
            continue;
        if (n == room) {
            struct fcproc_dir_entry *grown;

            room = room ? room * 2 : 16;
            grown = reallocarray(list, room, sizeof(*list));
            if (!grown)
                return error_nomem(err, op);
            list = grown;
        }
        list[n].type = entry_type(fd, entry);
        (void)snprintf(list[n].name, sizeof(list[n].name), "%s", entry->d_name);
        n++;
    }
    if (n > 0)
        qsort(list, n, sizeof(*list), compare_names);
    *ret = list;
    *ret_n = n;
    list = NULL;
    return 0;
}

/* ---- removing ---- */

/* A folder on the way down. Only the deepest is open: a tree may be deeper than the limits on
 * paths and descriptors. To go back up is to open "..", which must be the very folder that was
 * left, else somebody has moved things. */
struct level {
    dev_t dev;
    ino_t ino;
    char *name; /* in the level above; in the folder of the path for the first */
};

struct removal {
    const char *path;
    const char *mark; /* a file in the folder without which it is not ours; NULL: no matter */
    struct level *levels;
    size_t depth, room;
    int64_t removed;
    int refilled; /* how often an emptied folder was not empty */
    fcproc_error *err;
};

enum { MOST_REFILLS = 1000 };

static const char tree_op[] = "tree.remove";

static void free_levels(struct removal *t)
{
    while (t->depth > 0)
        free(t->levels[--t->depth].name);
    free(t->levels);
}

/* The path of name in the deepest level, for messages; when it is too long, its end. */
static const char *shown_path(const struct removal *t, const char *name, char *buf, size_t size)
{
    size_t at = size - 1;

    buf[at] = '\0';
    for (size_t i = t->depth + 1; i-- > 0;) {
        const char *part = i == 0 ? t->path : i == t->depth ? name : t->levels[i].name;
        size_t len = part ? strlen(part) : 0;

        if (!part)
            continue;
        if (len + 5 > at) {
            at -= 4;
            memcpy(buf + at, ".../", 4);
            break;
        }
        if (buf[at] != '\0')
            buf[--at] = '/';
        at -= len;
        memcpy(buf + at, part, len);
    }
    return buf + at;
}

static int fail(struct removal *t, int sys_errno, const char *name)
{
    char buf[400];

    return file_error(t->err, tree_op, sys_errno, "can't remove %s",
                      shown_path(t, name, buf, sizeof(buf)));
}

/* Is it where something is mounted? A bind mount of the same file system has the same st_dev, so
 * the kernel is asked (STATX_ATTR_MOUNT_ROOT, Linux 5.8). */
static int look_at_level(int fd, struct level *ret, bool *ret_mounted)
{
    struct statx stx;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_INO, &stx) < 0)
        return -errno;
    ret->dev = (dev_t)stx.stx_dev_major << 32 | stx.stx_dev_minor; /* only compared */
    ret->ino = stx.stx_ino;
    *ret_mounted = stx.stx_attributes & STATX_ATTR_MOUNT_ROOT;
    return 0;
}

/* Opens the folder name in dir_fd as one level deeper. Returns its descriptor, -ENOTDIR when it
 * is no folder or none any more (and no error is set), or a code. */
static int go_down(struct removal *t, int dir_fd, const char *name)
{
    cleanup_fd int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct level level = { 0 };
    bool mounted = false;
    char buf[400];
    int r;

    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP || errno == ENOENT))
        return -ENOTDIR;
    if (fd < 0)
        return fail(t, errno, name);
    r = look_at_level(fd, &level, &mounted);
    if (r < 0)
        return fail(t, -r, name);
    if (mounted)
        return error_set(t->err, FCPROC_ERR_BUSY, tree_op, EBUSY,
                         "another file system is mounted on %s: not touched; unmount it first",
                         shown_path(t, name, buf, sizeof(buf)));
    if (t->depth == t->room) {
        size_t room = t->room ? t->room * 2 : 16;
        struct level *grown = reallocarray(t->levels, room, sizeof(*grown));

        if (!grown)
            return error_nomem(t->err, tree_op);
        t->levels = grown;
        t->room = room;
    }
    level.name = strdup(name);
    if (!level.name)
        return error_nomem(t->err, tree_op);
    t->levels[t->depth++] = level;
    return take_fd(&fd);
}

/* Removes what is no folder from the deepest level, and empty folders. 0: all is gone; 1: a
 * folder is left, whose name is copied; or a code. Without a stream, which would cost five calls
 * and 32 KiB a folder. */
static int empty_level(struct removal *t, int fd, char left[NAME_MAX + 1])
{
    char buf[8192] __attribute__((aligned(8)));
    ssize_t n;

    while ((n = getdents64(fd, buf, sizeof(buf))) > 0) {
        const struct dirent64 *entry;

        for (ssize_t at = 0; at < n; at += entry->d_reclen) {
            entry = (const struct dirent64 *)(buf + at);
            if (is_dot(entry->d_name) ||
                (t->mark && t->depth == 1 && strcmp(entry->d_name, t->mark) == 0))
                continue;
            /* A file that a link replaces meanwhile is removed as a link: unlinkat follows none. */
            if (unlinkat(fd, entry->d_name, entry->d_type == DT_DIR ? AT_REMOVEDIR : 0) == 0)
                t->removed++;
            else if (errno == ENOTEMPTY || errno == EEXIST || errno == EISDIR) {
                (void)snprintf(left, NAME_MAX + 1, "%s", entry->d_name);
                return 1;
            } else if (errno != ENOENT && errno != ENOTDIR) {
                return fail(t, errno, entry->d_name);
            } /* else it went, or is no folder now: then this one is not empty and is read again */
        }
    }
    return n < 0 && errno != ENOENT ? fail(t, errno, NULL) : 0; /* ENOENT: it has been removed */
}

/* Closes the deepest level, whose descriptor is *fd, and removes it from the one above, which is
 * *fd then; above the first is top_fd. */
static int go_up(struct removal *t, int top_fd, int *fd)
{
    struct level gone = t->levels[t->depth - 1];
    int above = top_fd;
    bool ignored;
    int r = 0;

    if (t->depth > 1) {
        const struct level *want = &t->levels[t->depth - 2];
        struct level level = { 0 };

        above = openat(*fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = above < 0 ? -errno : look_at_level(above, &level, &ignored);
        if (r < 0)
            r = fail(t, -r, NULL);
        else if (level.ino != want->ino || level.dev != want->dev)
            r = error_set(t->err, FCPROC_ERR_BUSY, tree_op, 0,
                          "%s was moved while %s was being removed; try again", gone.name, t->path);
    }
    close_fd(fd);
    if (above != top_fd)
        *fd = above;
    t->depth--;
    if (r == 0 && unlinkat(above, gone.name, AT_REMOVEDIR) == 0)
        t->removed++;
    else if (r == 0 && (errno == ENOTEMPTY || errno == EEXIST))
        r = ++t->refilled < MOST_REFILLS ? 1 : fail(t, EBUSY, gone.name);
    else if (r == 0 && errno != ENOENT)
        r = fail(t, errno, gone.name);
    free(gone.name);
    return r;
}

/* Is the folder one that we made, and nobody else could put something into? 1; 0: it was empty, and is
 * gone; or a code. */
static int check_mark(struct removal *t, int fd, int top_fd, const char *base)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return fail(t, errno, NULL);
    if (st.st_uid == geteuid() && !(st.st_mode & 077)) {
        if (fstatat(fd, t->mark, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
            st.st_uid == geteuid())
            return 1;
        if (unlinkat(top_fd, base, AT_REMOVEDIR) == 0) {
            t->removed++;
            return 0;
        }
    }
    return error_set(t->err, FCPROC_ERR_CONFLICT, tree_op, 0,
                     "%.400s is left untouched: it does not show that we made it (it has no %s of "
                     "ours, or is somebody else's); look at it, and remove it yourself",
                     t->path, t->mark);
}

static int remove_levels(struct removal *t, int top_fd, const char *base)
{
    cleanup_fd int fd = go_down(t, top_fd, base);
    char left[NAME_MAX + 1];
    int r;

    if (fd < 0)
        return fd;
    if (t->mark) {
        r = check_mark(t, fd, top_fd, base);
        if (r <= 0)
            return r;
    }
    for (;;) {
        r = empty_level(t, fd, left);
        if (r == 0 && t->mark && t->depth == 1 && unlinkat(fd, t->mark, 0) == 0)
            t->removed++;
        if (r == 0) {
            r = go_up(t, top_fd, &fd);
            if (r == 1 && t->depth == 0) { /* refilled: start over */
                fd = go_down(t, top_fd, base);
                if (fd < 0)
                    return fd;
                continue;
            }
            if (r < 0 || t->depth == 0)
                return r;
        } else if (r == 1) {
            int below = go_down(t, fd, left);

            if (below == -ENOTDIR && ++t->refilled < MOST_REFILLS && lseek(fd, 0, SEEK_SET) == 0)
                continue; /* no folder any more: it goes with the files */
            if (below == -ENOTDIR)
                return fail(t, EBUSY, left);
            if (below < 0)
                return below;
            close_fd(&fd);
            fd = below;
        } else {
            return r;
        }
    }
}

FCPROC_API int fcproc_tree_remove(const char *path, int64_t *ret_removed, fcproc_error *err)
{
    return fcproc_tree_remove_marked(path, NULL, ret_removed, err);
}

FCPROC_API int fcproc_tree_remove_marked(const char *path, const char *mark, int64_t *ret_removed,
                                         fcproc_error *err)
{
    struct removal t = { .err = err, .mark = mark };
    struct split_path split;
    struct stat st;
    char buf[PATH_MAX];
    int r;

    t.path = file_plain_path(path, buf);
    r = path_split(t.path, &split);
    if (r == -ENOENT) {
        TELL(ret_removed, 0);
        return 0;
    }
    if (r < 0)
        return file_error(err, tree_op, -r, "can't remove the folder %s", path);
    if (*split.base == '\0' || is_dot(split.base)) {
        r = error_set(err, FCPROC_ERR_INVALID, tree_op, 0, "'%s' does not name a folder to remove",
                      path);
    } else {
        r = remove_levels(&t, split.dir_fd, split.base);
        if (r == -ENOTDIR)
            r = fstatat(split.dir_fd, split.base, &st, AT_SYMLINK_NOFOLLOW) == 0
                    ? file_conflict(err, tree_op, st.st_mode, "a folder", path)
                    : 0; /* missing */
    }
    free_levels(&t);
    close_fd(&split.dir_fd);
    if (r == 0)
        TELL(ret_removed, t.removed);
    return r;
}
