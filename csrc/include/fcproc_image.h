/* SPDX-License-Identifier: MIT
 *
 * fcproc's image builds: archives and folders become a tree in memory, and the tree becomes a disk. The
 * contents of files are never in memory: they stay where they are, or go to a file without a name.
 *
 * Errors, time, descriptors, forks, pointers and structs are as fcproc.h says. A tree, and the jobs of
 * it, belong to one thread at a time; a job itself works in a thread of its own, and until it is closed
 * every other call on its tree is FCPROC_ERR_BUSY.
 * Memory that runs out is FCPROC_ERR_NOMEM, and nothing is left. libarchive and libext2fs mostly tell of
 * their own, and then it is the same; but in places they end the process, or crash, when they get none:
 * what must not fall with them builds in a process of its own.
 * Paths inside a tree are bytes without a NUL, absolute or not: both are from its root. Symbolic links on
 * the way are followed as in a chroot, never the last name.
 */
#ifndef FCPROC_IMAGE_H
#define FCPROC_IMAGE_H

#include "fcproc.h"

#ifdef __cplusplus
extern "C" {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored \
    "-Wshadow" /* fcproc_image_stat is a struct and a function, as in C */
#endif

typedef struct fcproc_image_tree fcproc_image_tree;
typedef struct fcproc_image_job fcproc_image_job;

/* ---- jobs: what takes long ----------------------------------------------------------------- */

struct fcproc_image_progress {
    size_t struct_size;
    const char *step;      /* "reading": a string that lives for ever */
    uint64_t bytes, total; /* of what is read or written; total 0: not known */
    uint64_t entries;
};
#define FCPROC_IMAGE_PROGRESS_INIT                          \
    {                                                       \
        sizeof(struct fcproc_image_progress), NULL, 0, 0, 0 \
    }

/* Readable (POLLIN) once the job is over. It stays the job's. */
FCPROC_API int fcproc_image_job_fd(const fcproc_image_job *job);
FCPROC_CHECKED int fcproc_image_job_progress(const fcproc_image_job *job,
                                             struct fcproc_image_progress *ret, fcproc_error *err);
/* 1: done; 0: not yet; negative: failed. Never blocks. */
FCPROC_CHECKED int fcproc_image_job_step(fcproc_image_job *job, fcproc_error *err);
/* Waits for its end. */
FCPROC_CHECKED int fcproc_image_job_wait(fcproc_image_job *job, fcproc_error *err);
/* It ends as FCPROC_ERR_CANCELLED, soon. From any thread. */
FCPROC_API void fcproc_image_job_cancel(fcproc_image_job *job);
/* Cancels, and waits until its thread has ended, which takes one block of data at the most. A tree in
 * which a job has failed or was cancelled is only to be closed. */
FCPROC_API void fcproc_image_job_close(fcproc_image_job *job);

/* Of some bytes: "sha256:", 64 digits and a zero byte. */
FCPROC_CHECKED int fcproc_image_digest(const void *data, size_t len, char ret[72],
                                       fcproc_error *err);
/* Job: what a regular file holds, as "sha256:" and 64 digits. The text is the job's. */
FCPROC_CHECKED int fcproc_image_hash(const char *path, fcproc_image_job **ret, fcproc_error *err);
FCPROC_API const char *fcproc_image_hash_result(const fcproc_image_job *job);

/* What the user should know, though the work went on: the i-th from 0; NULL: there are no more. The job's,
 * once it is done. */
FCPROC_API const char *fcproc_image_job_warning(const fcproc_image_job *job, size_t i);

/* ---- one file, unpacked --------------------------------------------------------------------- */

/* What gzip, bzip2, compress, lz4, lzip, lzma, xz or zstd has packed, by how it begins; else as it is. */
struct fcproc_image_unpacking {
    size_t struct_size;
    const char *path;         /* a regular file, */
    uint64_t from, len;       /* or a part of it; len 0: to its end */
    uint64_t limit;           /* bytes that may come out; 0: 1 GiB */
    int fd;                   /* where they are written, which stays the caller's; -1: nowhere */
    bool keep;                /* in memory */
    const char *const *marks; /* texts of 1 to 31 bytes, of which it is told where they first are */
    size_t n_marks;           /* at most 4 */
};
#define FCPROC_IMAGE_UNPACKING_INIT                                              \
    {                                                                            \
        sizeof(struct fcproc_image_unpacking), NULL, 0, 0, 0, -1, false, NULL, 0 \
    }
/* Job. FCPROC_ERR_INVALID: cut or damaged, or more than the limit. */
FCPROC_CHECKED int fcproc_image_unpack(const struct fcproc_image_unpacking *unpacking,
                                       fcproc_image_job **ret, fcproc_error *err);

struct fcproc_image_unpacked {
    size_t struct_size;
    uint64_t bytes;   /* that came out */
    bool packed;      /* else it was taken as it is */
    const char *data; /* what was kept, which lasts as long as the job; or NULL */
    int64_t marks[4]; /* offsets in what came out; -1: not in it */
};
#define FCPROC_IMAGE_UNPACKED_INIT                            \
    {                                                         \
        sizeof(struct fcproc_image_unpacked), 0, false, NULL, \
        {                                                     \
            0, 0, 0, 0                                        \
        }                                                     \
    }
/* Of that job, once it is done. */
FCPROC_CHECKED int fcproc_image_unpack_result(const fcproc_image_job *job,
                                              struct fcproc_image_unpacked *ret, fcproc_error *err);

/* ---- trees ----------------------------------------------------------------------------------- */

struct fcproc_image_limits {
    size_t struct_size;
    uint64_t entries; /* names in all that is read; 0: 2,000,000 */
    uint64_t bytes;   /* of contents; 0: 1 TiB */
    uint64_t ratio;   /* of unpacked to packed bytes, beyond the first GiB; 0: 200, beyond the
                         first 8 GiB */
    uint64_t memory;  /* for names, xattrs and all but contents; 0: 1 GiB */
    const char *spool_folder; /* where contents go that can't stay where they are; NULL: nowhere */
};
#define FCPROC_IMAGE_LIMITS_INIT                             \
    {                                                        \
        sizeof(struct fcproc_image_limits), 0, 0, 0, 0, NULL \
    }

/* An empty root folder, 0755, 0:0. limits may be NULL. */
FCPROC_CHECKED int fcproc_image_tree_new(const struct fcproc_image_limits *limits,
                                         fcproc_image_tree **ret, fcproc_error *err);
/* Lasts as long as a job of it. */
FCPROC_API void fcproc_image_tree_close(fcproc_image_tree *tree);

struct fcproc_image_archive {
    size_t struct_size;
    const char *path; /* a file, or a pipe, */
    int fd;           /* or, when there is no path, a descriptor, which stays the caller's */
    uint64_t offset,
        length; /* of a file: these bytes only; length 0: all, a descriptor from where it stands */
    bool layer; /* whiteouts are understood, and what is above hides it */
    const char *digest;  /* what it must be as it is: "sha256:..."; or NULL */
    const char *diff_id; /* and unpacked */
};
#define FCPROC_IMAGE_ARCHIVE_INIT                                              \
    {                                                                          \
        sizeof(struct fcproc_image_archive), NULL, -1, 0, 0, false, NULL, NULL \
    }

struct fcproc_image_archive_result {
    const char *digest, *diff_id; /* NULL: it was not read whole; else the job's */
    uint64_t packed_bytes, bytes, entries;
    uint64_t hidden_bytes; /* of contents that were not kept, as an upper layer hides them */
};

/* Job: a tar, packed by whatever libarchive knows but other programs, into the tree. Of one that is not
 * packed, and a file, the contents stay there; else they go to the spool. A layer waits for its merge: layers
 * are given from the top down, and of what an upper one hides nothing is kept. What is hostile or damaged
 * is FCPROC_ERR_INVALID and names the entry; so is another digest. */
FCPROC_CHECKED int fcproc_image_read_archive(fcproc_image_tree *tree,
                                             const struct fcproc_image_archive *spec,
                                             fcproc_image_job **ret, fcproc_error *err);
/* The job's. */
FCPROC_API const struct fcproc_image_archive_result *fcproc_image_read_archive_result(
    const fcproc_image_job *job);
/* Job: a folder of the host, with owners as they are there. Contents stay in its files until they are
 * written: one that was changed by then is FCPROC_ERR_BUSY. one_file_system: what is mounted in it is an
 * empty folder. */
FCPROC_CHECKED int fcproc_image_read_folder(fcproc_image_tree *tree, const char *path,
                                            bool one_file_system, fcproc_image_job **ret,
                                            fcproc_error *err);
/* Job: the layers become the tree, as if they had been unpacked into it one after another, from the
 * bottom up. */
FCPROC_CHECKED int fcproc_image_merge(fcproc_image_tree *tree, fcproc_image_job **ret,
                                      fcproc_error *err);

struct fcproc_image_piece {
    int fd;
    uint64_t offset, length;
};

/* Job: a file of the tree in one piece, to be read as an archive: where it lies, or a copy in the spool.
 * Symbolic links are followed, also the last name. FCPROC_ERR_INVALID: it is empty. */
FCPROC_CHECKED int fcproc_image_extract(fcproc_image_tree *tree, const char *path,
                                        fcproc_image_job **ret, fcproc_error *err);
/* The descriptor is the tree's. */
FCPROC_API struct fcproc_image_piece fcproc_image_extract_result(const fcproc_image_job *job);

struct fcproc_image_xattr {
    const char *name;
    size_t name_len; /* 0: up to its NUL */
    const void *value;
    size_t len;
};

struct fcproc_image_node {
    size_t struct_size;
    uint32_t mode; /* with its kind: S_IFREG | 0644 */
    uint32_t uid, gid;
    uint32_t rdev_major, rdev_minor; /* of devices */
    uint32_t mtime_ns;
    int64_t mtime;
    const char *target; /* of symbolic links */
    const void *data;   /* of files: what they hold, */
    size_t len;
    const char *
        from; /* or the file on the host that holds it, which must not change until it is written */
    const struct fcproc_image_xattr *xattrs;
    size_t n_xattrs;
};
#define FCPROC_IMAGE_NODE_INIT                                                              \
    {                                                                                       \
        sizeof(struct fcproc_image_node), 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 0, NULL, NULL, 0 \
    }

/* Puts it there; missing folders on the way are made, 0755, 0:0, of its mtime. What has the name already
 * is replaced; a folder by a folder gets its mode, owner, time and xattrs and keeps its entries. */
FCPROC_CHECKED int fcproc_image_put(fcproc_image_tree *tree, const char *path,
                                    const struct fcproc_image_node *node, fcproc_error *err);
/* Removes the name, and what is below it. FCPROC_ERR_NOT_FOUND. */
FCPROC_CHECKED int fcproc_image_remove(fcproc_image_tree *tree, const char *path,
                                       fcproc_error *err);

struct fcproc_image_stat {
    size_t struct_size;
    uint32_t mode, uid, gid, rdev_major, rdev_minor, nlink, mtime_ns;
    int64_t mtime;
    uint64_t size;
    const char *target; /* these last as long as the tree */
    uint64_t id;        /* the same for all names of one file */
    size_t n_xattrs;
};
#define FCPROC_IMAGE_STAT_INIT                                                  \
    {                                                                           \
        sizeof(struct fcproc_image_stat), 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0 \
    }

/* follow: of what a symbolic link there leads to. FCPROC_ERR_NOT_FOUND. */
FCPROC_CHECKED int fcproc_image_stat(fcproc_image_tree *tree, const char *path, bool follow,
                                     struct fcproc_image_stat *ret, fcproc_error *err);

/* The i-th of its xattrs, from 0; its name has no NUL. FCPROC_ERR_NOT_FOUND. */
FCPROC_CHECKED int fcproc_image_stat_xattr(const struct fcproc_image_stat *st, size_t i,
                                           struct fcproc_image_xattr *ret, fcproc_error *err);

/* The i-th name in a folder, from 0; NULL: there are no more. In order once the tree is sealed. Links are
 * followed, here and below. It lasts as long as the tree. */
FCPROC_CHECKED int fcproc_image_list(fcproc_image_tree *tree, const char *path, size_t i,
                                     const char **ret, fcproc_error *err);
/* The path without links, ".." and the like. */
FCPROC_CHECKED int fcproc_image_resolve(fcproc_image_tree *tree, const char *path, char *ret,
                                        size_t size, fcproc_error *err);
/* What a regular file holds from the offset on. How many bytes: fewer than len at its end only. */
FCPROC_CHECKED ssize_t fcproc_image_read(fcproc_image_tree *tree, const char *path, uint64_t at,
                                         void *buffer, size_t len, fcproc_error *err);

struct fcproc_image_sealed {
    size_t struct_size;
    uint64_t entries, inodes;
    uint64_t bytes;      /* of contents without their holes, */
    uint64_t apparent;   /* and with them; INT64_MAX: that, or more */
    const char *largest; /* the largest file's path, without a slash before it; NULL: all are empty.
                            It lasts as long as the tree */
};
#define FCPROC_IMAGE_SEALED_INIT                             \
    {                                                        \
        sizeof(struct fcproc_image_sealed), 0, 0, 0, 0, NULL \
    }

/* Sorts it. From then on it does not change any more, and can be written. */
FCPROC_CHECKED int fcproc_image_seal(fcproc_image_tree *tree, struct fcproc_image_sealed *ret,
                                     fcproc_error *err);

/* ---- results: what becomes of a sealed tree ----------------------------------------------------- */

struct fcproc_image_need {
    size_t struct_size;
    uint64_t inodes; /* in an ext4 file system of blocks of 4096 bytes and inodes of 256, */
    uint64_t blocks; /* besides what mke2fs itself puts there; not less than it will be */
    char digest[72]; /* "sha256:...", of all but what files hold */
};
#define FCPROC_IMAGE_NEED_INIT                  \
    {                                           \
        sizeof(struct fcproc_image_need), 0, 0, \
        {                                       \
            0                                   \
        }                                       \
    }
FCPROC_CHECKED int fcproc_image_measure(fcproc_image_tree *tree, struct fcproc_image_need *ret,
                                        fcproc_error *err);

enum fcproc_image_format {
    FCPROC_IMAGE_EXT4, /* into the file system that mke2fs has just made in a file that was empty */
    FCPROC_IMAGE_TAR,  /* pax */
    FCPROC_IMAGE_CPIO, /* newc: what Linux takes as its initramfs */
};

struct fcproc_image_output {
    size_t struct_size;
    enum fcproc_image_format format;
    int fd;    /* the file; or for a tar or cpio whatever can be written. It stays the caller's */
    bool gzip; /* of a tar or cpio */
    int64_t time; /* of the file system itself, in seconds since 1970; 0: its first second */
};
#define FCPROC_IMAGE_OUTPUT_INIT                                        \
    {                                                                   \
        sizeof(struct fcproc_image_output), FCPROC_IMAGE_EXT4, -1, 0, 0 \
    }
/* The same tree gives the same bytes. FCPROC_ERR_INVALID: what the format can't hold. FCPROC_ERR_SYSTEM
 * with ENOSPC: the file system, or the disk, is too small. */
FCPROC_CHECKED int fcproc_image_write(fcproc_image_tree *tree,
                                      const struct fcproc_image_output *output,
                                      fcproc_image_job **ret, fcproc_error *err);

/* Of the libraries that write, as they are loaded: with others the bytes may be others. */
struct fcproc_image_versions {
    const char *ext2fs, *archive; /* "1.47.0", "libarchive 3.6.2" */
};
FCPROC_API struct fcproc_image_versions fcproc_image_versions(void);

/* A file that has no name until it is whole. */
typedef struct fcproc_image_target fcproc_image_target;

/* In the path's folder, less the umask. FCPROC_ERR_CONFLICT: what has the name is no regular file. Where
 * there is no O_TMPFILE it is .fcproc-target-* until then, and locked: those of the same user that nobody
 * has locked, which killed builders left, are removed. */
FCPROC_CHECKED int fcproc_image_target_open(const char *path, fcproc_image_target **ret,
                                            fcproc_error *err);
FCPROC_API int fcproc_image_target_fd(const fcproc_image_target *target);
FCPROC_CHECKED int fcproc_image_target_resize(fcproc_image_target *target, uint64_t size,
                                              fcproc_error *err);
/* All that a regular file holds becomes what the target does, shared where the file system can. */
FCPROC_CHECKED int fcproc_image_target_copy(fcproc_image_target *target, const char *path,
                                            fcproc_image_job **ret, fcproc_error *err);
/* Writes it to its disk, and gives it its name. A file that has it is replaced, and its mode kept, as are
 * its owner and group where this process may set them; but not those of somebody else's in a folder where
 * others may write, as /tmp. */
FCPROC_CHECKED int fcproc_image_target_publish(fcproc_image_target *target, fcproc_image_job **ret,
                                               fcproc_error *err);
/* Its size, once that job is done. */
FCPROC_API int64_t fcproc_image_target_bytes(const fcproc_image_job *job);
/* What a job works on stays until that is closed. */
FCPROC_API void fcproc_image_target_close(fcproc_image_target *target);

/* For a program that reads what is written. Both ends are close-on-exec. */
typedef struct fcproc_image_pipe fcproc_image_pipe;

FCPROC_CHECKED int fcproc_image_pipe_open(fcproc_image_pipe **ret, fcproc_error *err);
FCPROC_API int fcproc_image_pipe_reader(const fcproc_image_pipe *pipe);
FCPROC_API int fcproc_image_pipe_writer(const fcproc_image_pipe *pipe);
/* Of both ends. */
FCPROC_API void fcproc_image_pipe_close(fcproc_image_pipe *pipe);

#ifdef __cplusplus
#pragma GCC diagnostic pop
}
#endif

#endif
