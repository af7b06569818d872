/* SPDX-License-Identifier: MIT
 *
 * The job that reads a folder of the host. Contents stay in its files, which are opened when they are
 * copied, and compared then. What it finds it reaches from the folder's descriptor, through no symbolic
 * link, so that who may write there leads it nowhere else.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "filler.h"
#include "job.h"

static const char OP[] = "image.read_folder";

/* The first name of a file with several. */
struct seen {
    uint64_t dev, ino;
    struct inode *inode;
};

struct folder_job {
    job_t job;
    char *path;
    int fd;
    bool one_file_system;
    uint64_t dev;
    struct filler filler;
    uint32_t source;   /* the folder itself, which its files are opened from */
    struct seen *seen; /* by (dev, ino), open addressing */
    size_t n_seen, room_seen;
    char *xattrs; /* a list of names, and a value */
    char *value;
    /* Folders that are still to be read: their paths, in the tree's memory. */
    struct bytes **todo;
    size_t n_todo, room_todo;
};

static int failed(struct folder_job *f, int e, const char *what, const char *path)
{
    return image_errno(&f->job.error, OP, e, "can't %s %s/%s", what,
                       SHOWN(f->path, strlen(f->path)), SHOWN(path, strlen(path)));
}

static int nomem(struct folder_job *f)
{
    return error_nomem(&f->job.error, OP);
}

static int open_beneath(const struct folder_job *f, const char *path, uint64_t flags)
{
    struct open_how how = { .flags = flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };

    return (int)syscall(SYS_openat2, f->fd, *path ? path : ".", &how, sizeof(how));
}

/* ---- names of one file ---- */

static struct seen *seen_slot(struct seen *list, size_t room, uint64_t dev, uint64_t ino)
{
    size_t i = (size_t)((ino * 0x9e3779b97f4a7c15u) ^ dev) & (room - 1);

    while (list[i].inode && !(list[i].dev == dev && list[i].ino == ino))
        i = (i + 1) & (room - 1);
    return &list[i];
}

static struct seen *find_seen(struct folder_job *f, const struct stat *st)
{
    if (2 * f->n_seen >= f->room_seen) {
        size_t room = f->room_seen ? 2 * f->room_seen : 256;
        struct seen *list = calloc(room, sizeof(*list));

        if (!list)
            return NULL;
        for (size_t i = 0; i < f->room_seen; i++)
            if (f->seen[i].inode)
                *seen_slot(list, room, f->seen[i].dev, f->seen[i].ino) = f->seen[i];
        free(f->seen);
        f->seen = list;
        f->room_seen = room;
    }
    return seen_slot(f->seen, f->room_seen, st->st_dev, st->st_ino);
}

/* ---- attributes ---- */

/* Of the name in the folder, not of what it links to: f?etxattr(2) take no O_PATH descriptor. */
static int take_xattrs(struct folder_job *f, int dir, const char *name, const char *path,
                       struct inode *inode)
{
    char by_fd[32 + TREE_NAME_MOST + 1];
    ssize_t len;

    (void)snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d/%s", dir, name);
    len = llistxattr(by_fd, f->xattrs, XATTR_SIZE_MOST);
    if (len < 0)
        return errno == EOPNOTSUPP ? 0 : failed(f, errno, "list the xattrs of", path);
    for (const char *x = f->xattrs; x < f->xattrs + len; x += strlen(x) + 1) {
        ssize_t n = lgetxattr(by_fd, x, f->value, XATTR_SIZE_MOST);

        if (n < 0 && errno == ENODATA) /* removed meanwhile */
            continue;
        if (n < 0)
            return failed(f, errno, "read the xattrs of", path);
        if (tree_set_xattr(f->job.tree, inode, x, strlen(x), f->value, (size_t)n) < 0)
            return nomem(f);
    }
    return 0;
}

static int take_target(struct folder_job *f, int dir, const char *name, const char *path,
                       struct inode *inode)
{
    char target[TREE_PATH_MOST + 2];
    ssize_t len = readlinkat(dir, name, target, sizeof(target));

    if (len < 0 || len > TREE_PATH_MOST)
        return failed(f, len < 0 ? errno : ENAMETOOLONG, "read the symbolic link", path);
    inode->size = (uint64_t)len;
    inode->target = tree_bytes(f->job.tree, target, (size_t)len);
    return inode->target ? 0 : nomem(f);
}

/* ---- contents ---- */

/* Its data, without the holes. */
static int take_extents(struct folder_job *f, const char *path, const struct stat *st,
                        uint32_t source)
{
    cleanup_fd int fd = -EBADF;
    uint64_t at = 0, size = (uint64_t)st->st_size;

    /* As many blocks as it has bytes: no holes. */
    if ((uint64_t)st->st_blocks * 512 >= size)
        return filler_extent(&f->filler, 0, source, 0, size);
    fd = open_beneath(f, path, O_RDONLY);
    if (fd < 0)
        return failed(f, errno, "open", path);
    while (at < size) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;
        int r;

        if (data < 0 && errno == ENXIO)
            return 0;
        if (data < 0)
            return filler_extent(&f->filler, at, source, at, size - at);
        hole = lseek(fd, data, SEEK_HOLE);
        if (hole < 0 || (uint64_t)hole > size)
            hole = (off_t)size;
        if (hole <= data)
            return 0;
        r = filler_extent(&f->filler, (uint64_t)data, source, (uint64_t)data,
                          (uint64_t)(hole - data));
        if (r < 0)
            return r;
        at = (uint64_t)hole;
    }
    return 0;
}

static int take_content(struct folder_job *f, const char *path, const struct stat *st,
                        struct inode *inode)
{
    struct tree *tree = f->job.tree;
    struct bytes *kept = tree_bytes(tree, path, strlen(path));
    struct source source = { .fd = tree->sources[f->source].fd,
                             .dev = st->st_dev,
                             .ino = st->st_ino,
                             .size = (uint64_t)st->st_size,
                             .mtime = st->st_mtim.tv_sec,
                             .mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
                             .ctime = st->st_ctim.tv_sec,
                             .ctime_ns = (uint32_t)st->st_ctim.tv_nsec };
    int r;

    inode->size = (uint64_t)st->st_size;
    if (inode->size == 0)
        return 0;
    if (!kept)
        return nomem(f);
    source.path = kept->data;
    r = source_add(tree, &source, OP, &f->job.error);
    if (r < 0)
        return r;
    filler_begin(&f->filler);
    r = take_extents(f, path, st, (uint32_t)r);
    return r < 0 ? r : filler_end(&f->filler, inode);
}

/* ---- entries ---- */

static int add_todo(struct folder_job *f, const char *path)
{
    struct bytes *kept = tree_bytes(f->job.tree, path, strlen(path));

    if (f->n_todo == f->room_todo) {
        size_t room = f->room_todo ? 2 * f->room_todo : 64;
        struct bytes **list = realloc(f->todo, room * sizeof(*list));

        if (!list)
            return nomem(f);
        f->todo = list;
        f->room_todo = room;
    }
    if (!kept)
        return nomem(f);
    f->todo[f->n_todo++] = kept;
    return 0;
}

static struct inode *make_inode(struct folder_job *f, const struct stat *st)
{
    struct inode *inode = tree_inode(f->job.tree, st->st_mode);

    if (!inode)
        return NULL;
    inode->uid = st->st_uid;
    inode->gid = st->st_gid;
    inode->mtime = st->st_mtim.tv_sec;
    inode->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
    if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) {
        inode->rdev_major = major(st->st_rdev);
        inode->rdev_minor = minor(st->st_rdev);
    }
    return inode;
}

static int take_new(struct folder_job *f, int dir, const char *name, const char *path,
                    const struct stat *st, struct inode *inode)
{
    int r = 0;

    if (S_ISLNK(st->st_mode))
        r = take_target(f, dir, name, path, inode);
    else if (S_ISREG(st->st_mode))
        r = take_content(f, path, st, inode);
    else if (S_ISDIR(st->st_mode) && (!f->one_file_system || st->st_dev == f->dev))
        r = add_todo(f, path);
    return r < 0 ? r : take_xattrs(f, dir, name, path, inode);
}

static int take_entry(struct folder_job *f, int dir, struct folder *in, const char *name,
                      const char *path)
{
    struct tree *tree = f->job.tree;
    struct seen *seen = NULL;
    struct inode *inode;
    struct stat st;
    int r;

    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : failed(f, errno, "look at", path);
    if (++tree->read_entries > tree->limit_entries)
        return error_set(&f->job.error, FCPROC_ERR_INVALID, OP, 0,
                         "%s has more entries than the limit of %llu", f->path,
                         (unsigned long long)tree->limit_entries);
    atomic_fetch_add_explicit(&f->job.entries, 1, memory_order_relaxed);
    if (!S_ISDIR(st.st_mode) && st.st_nlink > 1) {
        seen = find_seen(f, &st);
        if (!seen)
            return nomem(f);
        if (seen->inode)
            return tree_add(tree, in, name, strlen(name), seen->inode) < 0 ? nomem(f) : 0;
    }
    inode = make_inode(f, &st);
    if (!inode)
        return nomem(f);
    r = take_new(f, dir, name, path, &st, inode);
    if (r < 0)
        return r;
    if (seen) {
        *seen = (struct seen){ st.st_dev, st.st_ino, inode };
        f->n_seen++;
    }
    return tree_add(tree, in, name, strlen(name), inode) < 0 ? nomem(f) : 0;
}

static int read_one(struct folder_job *f, const struct bytes *path)
{
    char full[TREE_PATH_MOST + TREE_NAME_MOST + 2];
    struct place place;
    struct dirent *d;
    DIR *dir;
    int r, fd = open_beneath(f, path->data, O_RDONLY | O_DIRECTORY);

    if (fd < 0)
        return failed(f, errno, "read the folder", path->data);
    r = tree_place(f->job.tree, path->data, path->len, 0, NULL, &place, OP, &f->job.error);
    dir = r == 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        close_fd(&fd);
        return r < 0 ? r : nomem(f);
    }
    memcpy(full, path->data, path->len);
    while (r == 0 && (errno = 0, d = readdir(dir)) != NULL) {
        size_t at = path->len, len = strlen(d->d_name);

        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        if (at > 0)
            full[at++] = '/';
        memcpy(full + at, d->d_name, len + 1);
        r = at + len > TREE_PATH_MOST ? failed(f, ENAMETOOLONG, "take", full) : job_check(&f->job);
        if (r == 0)
            r = take_entry(f, dirfd(dir), place.inode->folder, d->d_name, full);
    }
    if (r == 0 && errno != 0)
        r = failed(f, errno, "read the folder", path->data);
    (void)closedir(dir);
    return r;
}

static int folder_run(job_t *job)
{
    struct folder_job *f = (struct folder_job *)job;
    struct source root = { .owned = true };
    struct inode *inode;
    struct stat st;
    int r = 0;

    job_step(job, "reading");
    f->filler = (struct filler){ .tree = job->tree, .op = OP, .err = &job->error };
    f->xattrs = malloc(XATTR_SIZE_MOST);
    f->value = malloc(XATTR_SIZE_MOST);
    if (!f->xattrs || !f->value)
        r = nomem(f);
    else if ((root.fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 0)) < 0)
        r = failed(f, errno, "keep open", "");
    else
        r = source_add(job->tree, &root, OP, &job->error);
    if (r < 0)
        return r;
    f->source = (uint32_t)r;
    if (fstat(f->fd, &st) < 0 || !(inode = make_inode(f, &st)))
        return nomem(f);
    f->dev = st.st_dev;
    r = take_xattrs(f, f->fd, ".", "", inode);
    if (r == 0) {
        tree_take_attributes(job->tree->root, inode);
        r = add_todo(f, "");
    }
    for (size_t i = 0; r == 0 && i < f->n_todo; i++)
        r = read_one(f, f->todo[i]);
    return r;
}

static void folder_destroy(job_t *job)
{
    struct folder_job *f = (struct folder_job *)job;

    close_fd(&f->fd);
    filler_free(&f->filler);
    free(f->path);
    free(f->seen);
    free(f->todo);
    free(f->xattrs);
    free(f->value);
}

FCPROC_API int fcproc_image_read_folder(fcproc_image_tree *handle, const char *path,
                                        bool one_file_system, fcproc_image_job **ret,
                                        fcproc_error *err)
{
    struct tree *tree = (struct tree *)handle;
    struct folder_job *f;
    job_t *job;
    int r = tree_check(tree, TREE_CHANGES, OP, err);

    if (r == 0)
        r = job_new(sizeof(*f), OP, tree, folder_run, folder_destroy, &job, err);
    if (r < 0)
        return r;
    f = (struct folder_job *)job;
    f->one_file_system = one_file_system;
    f->path = strdup(path);
    f->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!f->path)
        r = error_nomem(err, OP);
    else if (f->fd < 0)
        r = image_errno(err, OP, errno, "can't read the folder %s", path);
    job->changes_tree = true;
    return job_hand_out(job, r, ret, err);
}
