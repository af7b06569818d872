/* SPDX-License-Identifier: MIT
 *
 * A jail that needs no root: a root of its own in which there is nothing but what the VMM uses, each
 * under the name that it has outside, and no capability, now or ever.
 */
#include "rootless.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

enum { MOST_PATHS = 64, LAST_CAPABILITY = 63 };

struct thing {
    const char *path;
    int fd; /* O_PATH */
    bool is_folder, writable, device;
};

struct jail {
    struct thing folder;
    struct thing things[MOST_PATHS];
    size_t n;
};

/* By its descriptor from here on: what has the name later is of no matter. */
static void hold(struct thing *t)
{
    struct stat st;

    if (t->path[0] != '/') {
        errno = EINVAL;
        fail("the jail's %s is no absolute path", t->path);
    }
    t->fd = open(t->path, O_PATH | O_CLOEXEC);
    if (t->fd < 0 || fstat(t->fd, &st) < 0)
        fail("can't put %s into the jail", t->path);
    t->is_folder = S_ISDIR(st.st_mode);
    t->device = t->device || S_ISBLK(st.st_mode);
}

static bool is_inside(const char *path, const char *folder)
{
    size_t len = strlen(folder);

    return strncmp(path, folder, len) == 0 && path[len] == '/';
}

/* What has the path already, if anything: it is put there once, with all that is asked of it. */
static struct thing *find(struct jail *jail, const char *path)
{
    for (size_t i = 0; i < jail->n; i++)
        if (strcmp(jail->things[i].path, path) == 0)
            return &jail->things[i];
    return NULL;
}

/* The arguments up to "--"; what comes after it. */
static char **read_arguments(struct jail *jail, char **argv)
{
    jail->folder = (struct thing){ .path = argv[0], .writable = true };
    hold(&jail->folder);
    for (argv++; argv[0] && strcmp(argv[0], "--") != 0; argv += 2) {
        bool writable = strcmp(argv[0], "--ro") != 0, device = strcmp(argv[0], "--device") == 0;
        struct thing *t;

        if (!argv[1] || jail->n == MOST_PATHS) {
            errno = EINVAL;
            fail("'%s' has no path, or there are too many", argv[0]);
        }
        if (is_inside(argv[1], jail->folder.path))
            continue; /* it is there with the folder */
        t = find(jail, argv[1]);
        if (!t) {
            t = &jail->things[jail->n++];
            *t = (struct thing){ .path = argv[1] };
            hold(t);
        }
        t->writable = t->writable || writable;
        t->device = t->device || device;
    }
    if (!argv[0] || !argv[1]) {
        errno = EINVAL;
        fail("no command");
    }
    return argv + 1;
}

/* What a mount that we have no right to loosen must stay. */
static unsigned long kept_flags(int fd)
{
    struct statvfs st;
    unsigned long flags = 0;

    if (fstatvfs(fd, &st) < 0)
        fail("can't look at a mount");
    if (st.f_flag & ST_NODEV)
        flags |= MS_NODEV;
    if (st.f_flag & ST_NOEXEC)
        flags |= MS_NOEXEC;
    if (st.f_flag & ST_RDONLY)
        flags |= MS_RDONLY;
    if (st.f_flag & ST_NOATIME)
        flags |= MS_NOATIME;
    if (st.f_flag & ST_NODIRATIME)
        flags |= MS_NODIRATIME;
    if (st.f_flag & ST_RELATIME)
        flags |= MS_RELATIME;
    return flags;
}

/* In the new root, which is our folder: the folders above it, and a place to mount it on. */
static void make_place(const struct thing *t)
{
    char path[4096];
    int fd;

    if (snprintf(path, sizeof(path), "%s", t->path + 1) >= (int)sizeof(path)) {
        errno = ENAMETOOLONG;
        fail("can't put %s into the jail", t->path);
    }
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            fail("can't make the jail's /%s", path);
        *slash = '/';
    }
    if (t->is_folder) {
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            fail("can't make the jail's %s", t->path);
        return;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        fail("can't make the jail's %s", t->path);
    (void)close(fd);
}

static void put(const struct thing *t)
{
    char source[32];
    unsigned long flags = kept_flags(t->fd) | MS_NOSUID;

    make_place(t);
    (void)snprintf(source, sizeof(source), "/proc/self/fd/%d", t->fd);
    if (mount(source, t->path + 1, NULL, MS_BIND, NULL) < 0)
        fail("can't mount %s in the jail", t->path);
    if (!t->writable)
        flags |= MS_RDONLY;
    if (!t->device)
        flags |= MS_NODEV;
    if (mount(NULL, t->path + 1, NULL, MS_BIND | MS_REMOUNT | flags, NULL) < 0)
        fail("can't restrict %s in the jail", t->path);
}

static void make_root(struct jail *jail, char **argv, char ***ret_command)
{
    mode_t before;

    if (unshare(CLONE_NEWNS) < 0)
        fail(errno == ENOSPC ? "can't make another mount namespace (sysctl user.max_mnt_namespaces)"
                             : "can't make a mount namespace");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        fail("can't make the mounts private");
    *ret_command = read_arguments(jail, argv);
    before = umask(022);
    if (mount("fcproc", jail->folder.path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m") < 0)
        fail("can't make the jail's root");
    if (chdir(jail->folder.path) < 0)
        fail("can't enter the jail's root");
    for (size_t i = 0; i < jail->n; i++)
        put(&jail->things[i]);
    put(&jail->folder);
    (void)umask(before);
    /* The old root comes to lie upon the new one, and goes from there. */
    if (syscall(SYS_pivot_root, ".", ".") < 0)
        fail("can't change the root");
    if (umount2(".", MNT_DETACH) < 0)
        fail("can't leave the old root");
    if (mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
        fail("can't make the jail's root read-only");
    if (chdir(jail->folder.path) < 0)
        fail("can't enter %s in the jail", jail->folder.path);
    for (size_t i = 0; i < jail->n; i++)
        (void)close(jail->things[i].fd);
    (void)close(jail->folder.fd);
}

/* linux/landlock.h as of 6.12. */
struct landlock_scope {
    uint64_t fs, net, scoped;
};
enum { SCOPE_SIGNAL = 1 << 1, MAKE_BLOCK = 1 << 11 };
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_restrict_self  446
#endif

/* All that the user runs has his uid, and so have we: without this the VMM could send it signals, and trace,
 * read and write the user's other VMMs, which have no more rights than it. Whoever restricts himself by
 * Landlock traces nobody outside, whatever else the restriction is (from 5.13 on); before 6.12 there is none
 * for signals, so it is one of what nobody here may do anyway. What a kernel has not, Firecracker's own
 * filter forbids; what it has, and fails at just then, is not left out. */
static void keep_to_itself(void)
{
    struct landlock_scope scope = { .scoped = SCOPE_SIGNAL }, older = { .fs = MAKE_BLOCK };
    int fd = (int)syscall(SYS_landlock_create_ruleset, &scope, sizeof(scope), 0);

    if (fd < 0 && errno == E2BIG)
        fd = (int)syscall(SYS_landlock_create_ruleset, &older, sizeof(older.fs), 0);
    if (fd < 0 && errno != ENOMEM && errno != EMFILE && errno != ENFILE)
        return;
    if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0) < 0)
        fail("can't keep the jail's processes to themselves");
    (void)close(fd);
}

/* No right is left, and no program that is executed gets one. */
void drop_rights(void)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };
    unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                         SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                         SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail("can't set no_new_privs");
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        fail("can't clear the ambient capabilities");
    if (prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) < 0)
        fail("can't lock the securebits");
    for (int i = 0; i <= LAST_CAPABILITY; i++)
        if (prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0 && errno != EINVAL)
            fail("can't drop a capability for good");
    if (syscall(SYS_capset, &head, none) < 0)
        fail("can't drop the capabilities");
}

int jail_main(int argc, char **argv)
{
    struct jail jail = { .n = 0 };
    char **command = NULL;

    if (argc < 3) {
        errno = EINVAL;
        fail("too few arguments");
    }
    make_root(&jail, argv, &command);
    drop_rights();
    keep_to_itself();
    (void)execv(command[0], command);
    fail("can't execute %s in its jail%s", command[0],
         errno == ENOENT ? " (a script, or a program that is not static?)" : "");
}
