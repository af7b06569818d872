/* SPDX-License-Identifier: MIT
 *
 * The root: mounted as the kernel would mount it, alone or read-only below a scratch disk, and entered.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "init.h"

#define WAIT_SECONDS   5
#define ASKED_SECONDS  60 /* rootwait */
#define BASE           "/base"
#define SCRATCH        "/scratch"
#define SCRATCH_OPTION "fcproc.overlay"

static bool is_block_device(const void *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISBLK(info.st_mode);
}

/* The names of what there is, for who has named something else. */
static const char *block_devices(void)
{
    static char names[256];
    size_t used = 0;
    DIR *folder = opendir("/sys/class/block");

    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        size_t size = strlen(entry->d_name);
        if (entry->d_name[0] == '.' || size + 3 > sizeof names - used)
            continue;
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "",
                                 entry->d_name);
    }
    if (folder)
        closedir(folder);
    return used ? names : "none: the kernel lacks their driver, virtio_blk, or the VM has no drive";
}

static void wait_for(const struct cmdline *line, const char *option, const char *path)
{
    bool patient = cmdline_value(line, "rootwait") != NULL;
    int seconds = cmdline_seconds(line, "rootwait", patient ? ASKED_SECONDS : WAIT_SECONDS);

    if (strncmp(path, "/dev/", 5) != 0)
        fail("%s=%.200s: only a block device is known here, as /dev/vda", option, path);
    if (!devices_wait(is_block_device, path, seconds))
        fail("%s=%.200s: no such block device has come in %d s; there are: %s", option, path,
             seconds, block_devices());
}

static void make_folder(const char *path)
{
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        fail("make the folder %s: %s", path, strerror(errno));
}

/* Turns /proc/filesystems, one a line, "nodev" before what needs no disk, into "ext4,squashfs". */
static void known_types(char *to, size_t size)
{
    static char list[8192];
    char *rest = list;
    long read = read_file("/proc/filesystems", list, sizeof list - 1);
    size_t used = 0;

    list[read < 0 ? 0 : read] = 0;
    *to = 0;
    for (char *row; (row = strsep(&rest, "\n"));) {
        if (*row++ != '\t' || strlen(row) + 2 > size - used)
            continue;
        used += (size_t)snprintf(to + used, size - used, "%s%s", used ? "," : "", row);
    }
}

static const char *advice(int problem, bool read_only)
{
    if (problem == EINVAL || problem == ENODEV)
        return ": it holds none, or the kernel lacks the module for it";
    if (problem == EROFS && read_only)
        return ": its journal is to be replayed first, which needs a drive that is not read-only";
    return "";
}

/* Tries the types, "a,b", in turn. */
static void mount_one_of(const char *option, const char *device, const char *at, const char *types,
                         unsigned long flags, const char *data)
{
    char rest[512], *next = rest;
    int problem = ENODEV;

    snprintf(rest, sizeof rest, "%s", types);
    if (strchr(types, ',')) /* else the kernel's log names what each of them misses */
        flags |= MS_SILENT;
    for (char *type; (type = strsep(&next, ","));) {
        if (mount(device, at, type, flags, data) == 0)
            return;
        if (errno == EACCES && !(flags & MS_RDONLY) &&
            mount(device, at, type, flags | MS_RDONLY, data) == 0)
            return say("%s=%.200s is read-only, and so is its file system", option, device);
        if (errno != ENODEV && errno != EINVAL)
            fail("%s=%.200s: mount it as %.200s: %s%s", option, device, type, strerror(errno),
                 advice(errno, flags & MS_RDONLY));
        if (problem == ENODEV)
            problem = errno;
    }
    fail("%s=%.200s: mount it as %.200s: %s%s", option, device, *types ? types : "a file system",
         strerror(problem), advice(problem, false));
}

/* The merged root is what its upper folder is: it shall look as the base's. */
static void make_upper(const char *path)
{
    struct stat base;

    if (mkdir(path, 0755) < 0) {
        if (errno == EEXIST) /* the scratch disk of an earlier boot */
            return;
        fail("make the folder %s: %s", path, strerror(errno));
    }
    if (stat(BASE, &base) < 0 || chown(path, base.st_uid, base.st_gid) < 0 ||
        chmod(path, base.st_mode & 07777) < 0)
        fail("give %s the mode of the base's root: %s", path, strerror(errno));
    struct timespec times[] = { base.st_atim, base.st_mtim };
    (void)utimensat(AT_FDCWD, path, times, 0);
}

static void mount_overlay(const struct cmdline *line, const char *device, const char *at)
{
    wait_for(line, SCRATCH_OPTION, device);
    make_folder(SCRATCH);
    mount_one_of(SCRATCH_OPTION, device, SCRATCH, "ext4", 0, NULL);
    make_upper(SCRATCH "/upper");
    make_folder(SCRATCH "/work");
    if (mount("overlay", at, "overlay", 0,
              "lowerdir=" BASE ",upperdir=" SCRATCH "/upper,workdir=" SCRATCH "/work") < 0)
        fail(SCRATCH_OPTION "=%.200s: mount the overlay: %s%s", device, strerror(errno),
             errno == ENODEV ? ": the kernel lacks the module overlay" : "");
}

void root_mount(const struct cmdline *line, const char *at)
{
    char types[512];
    const char *device = cmdline_value(line, "root"),
               *scratch = cmdline_value(line, SCRATCH_OPTION);
    const char *wanted = cmdline_value(line, "rootfstype"),
               *data = cmdline_value(line, "rootflags");
    bool writable = cmdline_which(line, "ro", "rw") == 2 && !scratch;

    if (!device)
        fail("the kernel's command line names no root, as root=/dev/vda; there are: %s",
             block_devices());
    wait_for(line, "root", device);
    known_types(types, sizeof types);
    make_folder(at);
    if (scratch)
        make_folder(BASE);
    mount_one_of("root", device, scratch ? BASE : at, wanted && *wanted ? wanted : types,
                 writable ? 0 : MS_RDONLY, data);
    if (scratch)
        mount_overlay(line, scratch, at);
}

/* Below the new root: what has no folder there is given up. */
static void hand_over(const char *name, const char *at)
{
    char to[64];
    struct stat info;

    snprintf(to, sizeof to, "%s%s", at, name);
    if (lstat(to, &info) == 0 && S_ISDIR(info.st_mode) && mount(name, to, NULL, MS_MOVE, NULL) == 0)
        return;
    say("the root has no folder %s to mount on: what it starts goes without", name);
    (void)umount2(name, MNT_DETACH);
}

static void become(const char *path, char **argv)
{
    argv[0] = (char *)path;
    execv(path, argv);
}

void root_enter(const struct cmdline *line, const char *at, char **argv)
{
    static const char *const defaults[] = { "/sbin/init", "/etc/init", "/bin/init", "/bin/sh" };
    const char *wanted = cmdline_value(line, "init");

    unlink("/init");
    hand_over("/dev", at);
    hand_over("/proc", at);
    hand_over("/sys", at);
    hand_over("/run", at);
    if (chdir(at) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
        chdir("/") < 0)
        fail("make the root that was mounted /: %s", strerror(errno));
    if (wanted && *wanted) {
        become(wanted, argv);
        fail("init=%.200s: start it: %s%s", wanted, strerror(errno),
             errno == ENOENT ? ": the root does not hold it, or not the interpreter that it names"
                             : "");
    }
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++) {
        become(defaults[i], argv);
        if (errno != ENOENT)
            say("start %s: %s", defaults[i], strerror(errno));
    }
    fail(
        "the root has none of /sbin/init, /etc/init, /bin/init, /bin/sh that can be started, and no init= "
        "names another");
}
