/* SPDX-License-Identifier: MIT
 *
 * Which process is a Firecracker of ours when nothing listens: one whose executable and --api-sock say
 * so, never a substring of a command line, or whose root or working folder it is.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "private.h"

/* ---- executable and --api-sock ---- */

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool is_inside(const char *path, const char *folder)
{
    size_t len = strlen(folder);

    while (len > 1 && folder[len - 1] == '/')
        len--;
    return strncmp(path, folder, len) == 0 && path[len] == '/' && !strstr(path + len, "/../");
}

/* An fcproc_match for whoever has the number, or -errno. */
static int number_matches(pid_t pid, const struct stat *exe, const char *exe_name,
                          const char *api_sock, const char *folder)
{
    char link[32];
    struct stat st;
    struct proc_stat proc;
    cleanup_free char *cmdline = NULL;
    const char *argument;
    ssize_t len;
    int r;

    (void)snprintf(link, sizeof(link), "/proc/%d/exe", pid);
    if (stat(link, &st) < 0) {
        if (errno != ENOENT)
            return -errno;
        /* No memory any more: dying or dead. Only its name is left to tell who it was. */
        r = proc_read_stat(pid, &proc);
        if (r < 0)
            return r;
        return (proc.flags & PROC_FLAG_EXITING) && strncmp(proc.comm, exe_name, 15) == 0
                   ? FCPROC_MATCH_EXITING
                   : FCPROC_MATCH_NO;
    }
    if (!same_file(&st, exe))
        return FCPROC_MATCH_NO;
    len = proc_read_cmdline(pid, &cmdline);
    if (len < 0)
        return (int)len;
    if (len == 0)
        return FCPROC_MATCH_EXITING;
    argument = proc_argument_after(cmdline, (size_t)len, "--api-sock");
    if (!argument)
        return FCPROC_MATCH_NO;
    if (api_sock)
        return strcmp(argument, api_sock) == 0 ? FCPROC_MATCH_YES : FCPROC_MATCH_NO;
    return folder && is_inside(argument, folder) ? FCPROC_MATCH_YES : FCPROC_MATCH_NO;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

FCPROC_API int fcproc_process_matches(const fcproc_process *p, const char *exe,
                                      const char *api_sock, const char *folder, fcproc_error *err)
{
    pid_t pid = fcproc_process_pid(p);
    struct stat st;
    int r;

    if (stat(exe, &st) < 0)
        return error_errno(err, "process.match", errno, "can't look at the binary %s", exe);
    r = number_matches(pid, &st, base_name(exe), api_sock, folder);
    /* What was read was p's only if p still has the number now. */
    if (pidfd_is_dead(fcproc_process_pidfd(p)))
        return FCPROC_MATCH_NO;
    r = life_of_held(fcproc_process_pidfd(p), r);
    if (r < 0)
        return error_errno(err, "process.match", -r, "can't look at pid %d", pid);
    return r;
}

/* Is the one that has the number the one that is looked for? 1, 0 or -errno. */
struct wanted {
    int (*fits)(pid_t pid, const struct wanted *w);
    struct stat st; /* the executable, or the root folder */
    const char *exe_name, *api_sock;
};

/* Who can't be seen is not there, for a search; but it has not looked when it is we who lacked
 * something. 1, 0 or -errno. */
static int fits(pid_t pid, const struct wanted *w)
{
    int r = w->fits(pid, w);

    return r < 0 && !is_shortage(r) ? 0 : r;
}

/* Holds the process with the number if it fits, and may have started after the newest so far: 1; 0; or
 * -errno. */
static int hold_newer(pid_t pid, const struct wanted *w, uint64_t *newest_start, int *newest)
{
    cleanup_fd int pidfd = -EBADF;
    struct proc_stat now;
    int r = fits(pid, w);

    if (r <= 0)
        return r;
    pidfd = pidfd_open_number(pid);
    if (pidfd < 0)
        return life_of(pidfd) == LIFE_DEAD ? 0 : pidfd;
    /* Again, now that it is held, and it was alive after that: it was this one. */
    r = fits(pid, w);
    if (r > 0) {
        r = proc_read_stat(pid, &now);
        r = is_shortage(r) ? r : r == 0;
    }
    if (r <= 0 || pidfd_is_dead(pidfd) || (*newest >= 0 && now.start_time < *newest_start))
        return r < 0 ? r : 0;
    close_fd(newest);
    *newest = take_fd(&pidfd);
    *newest_start = now.start_time;
    return 1;
}

/* The newest process that fits: 1; 0: none; or a code. */
static int open_newest(const struct wanted *w, const char *op, fcproc_process **ret,
                       fcproc_error *err)
{
    cleanup_fd int newest = -EBADF;
    uint64_t newest_start = 0;
    pid_t newest_pid = 0;
    struct dirent *entry;
    int r = proc_check_ours(op, err);
    DIR *proc;

    if (r < 0)
        return r;
    proc = opendir("/proc");
    r = proc ? 0 : -errno;
    while (r >= 0 && (errno = 0, entry = readdir(proc))) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

        r = pid > 0 ? hold_newer(pid, w, &newest_start, &newest) : 0;
        if (r > 0)
            newest_pid = pid;
    }
    if (r >= 0)
        r = -errno; /* readdir's */
    if (proc)
        (void)closedir(proc);
    if (r < 0)
        return error_errno(err, op, -r, "can't look for it in /proc");
    if (newest < 0)
        return 0;
    r = process_new(newest_pid, take_fd(&newest), false, ret, err);
    return r < 0 ? r : 1;
}

static int has_api_sock(pid_t pid, const struct wanted *w)
{
    int r = number_matches(pid, &w->st, w->exe_name, w->api_sock, NULL);

    return r < 0 ? r : r == FCPROC_MATCH_YES;
}

FCPROC_API int fcproc_process_open_api_sock(const char *exe, const char *api_sock,
                                            fcproc_process **ret, fcproc_error *err)
{
    static const char op[] = "process.find";
    struct wanted w = { .fits = has_api_sock, .exe_name = base_name(exe), .api_sock = api_sock };
    int r;

    if (stat(exe, &w.st) < 0)
        return error_errno(err, op, errno, "can't look at the binary %s", exe);
    r = open_newest(&w, op, ret, err);
    if (r == 0)
        return error_set(err, FCPROC_ERR_NOT_FOUND, op, ESRCH,
                         "no process of %s has the API socket %s", exe, api_sock);
    return r < 0 ? r : 0;
}

static int has_root(pid_t pid, const struct wanted *w)
{
    char link[32];
    struct stat st;

    (void)snprintf(link, sizeof(link), "/proc/%d/root", pid);
    return stat(link, &st) < 0 ? -errno : same_file(&st, &w->st);
}

FCPROC_API int fcproc_process_open_root(const char *path, fcproc_process **ret, fcproc_error *err)
{
    static const char op[] = "process.find";
    struct wanted w = { .fits = has_root };
    struct stat own;
    int r;

    if (lstat(path, &w.st) < 0)
        return error_errno(err, op, errno, "can't look at the root folder %s", path);
    if (!S_ISDIR(w.st.st_mode))
        return error_set(err, FCPROC_ERR_CONFLICT, op, ENOTDIR, "%s is not a folder", path);
    if (stat("/", &own) == 0 && same_file(&own, &w.st))
        return error_set(err, FCPROC_ERR_INVALID, op, 0,
                         "%s is our own root: that many processes have", path);
    r = open_newest(&w, op, ret, err);
    if (r == 0)
        return error_set(err, FCPROC_ERR_NOT_FOUND, op, ESRCH,
                         "no process that this user may look at has its root at %s", path);
    return r < 0 ? r : 0;
}

/* ---- where it is ---- */

static int look_at_folder(const char *path, int flags, struct statx *ret)
{
    /* What a server does not answer for must not hold us up: a stranger's folder may be anywhere. */
    return statx(AT_FDCWD, path, flags | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
                 STATX_TYPE | STATX_INO, ret) < 0
               ? -errno
               : 0;
}

/* Is the process's "cwd" or "root" the folder? 1, 0, or -errno. */
static int link_leads_to(pid_t pid, const char *what, const struct statx *folder)
{
    struct statx stx;
    char link[32];
    int r;

    (void)snprintf(link, sizeof(link), "/proc/%d/%s", pid, what);
    r = look_at_folder(link, 0, &stx);
    if (r < 0)
        return r;
    return stx.stx_ino == folder->stx_ino && stx.stx_dev_major == folder->stx_dev_major &&
           stx.stx_dev_minor == folder->stx_dev_minor;
}

FCPROC_API int fcproc_process_in_folder(const fcproc_process *p, const char *path, bool *ret,
                                        fcproc_error *err)
{
    static const char op[] = "process.place";
    pid_t pid = fcproc_process_pid(p);
    struct proc_stat now;
    struct statx folder;
    int r = look_at_folder(path, AT_SYMLINK_NOFOLLOW, &folder);

    *ret = false;
    if (r == 0 && !S_ISDIR(folder.stx_mode))
        r = -ENOTDIR;
    if (r < 0)
        return error_set(err, FCPROC_ERR_CONFLICT, op, -r, "can't tell whether pid %d is in %s: %s",
                         pid, path,
                         r == -ENOENT ? "there is no such folder any more"
                                      : "it can't be looked at, or is no folder");
    r = link_leads_to(pid, "cwd", &folder);
    if (r == 0)
        r = link_leads_to(pid, "root", &folder);
    /* On its way out it has neither any more, and is still who it was. */
    if (r == -ENOENT) {
        r = proc_read_stat(pid, &now);
        if (r == 0)
            r = (now.flags & PROC_FLAG_EXITING) != 0;
    }
    /* What was read was p's only if p still has the number now. */
    if (pidfd_is_dead(fcproc_process_pidfd(p)))
        return 0;
    r = life_of_held(fcproc_process_pidfd(p), r);
    if (r < 0)
        return error_errno(err, op, -r, "can't see in which folder pid %d is (CAP_SYS_PTRACE)",
                           pid);
    *ret = r > 0;
    return 0;
}
