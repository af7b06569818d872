/* SPDX-License-Identifier: MIT
 *
 * Who a process is, so that it can be written down, and found again after a crash: by its number while
 * that is its own, and by what no later process with that number has.
 */
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "private.h"

/* On pidfs a pidfd's inode is the process's own; before, all pidfds shared one. */
static uint64_t pidfd_inode(int pidfd)
{
    struct statfs fs;
    struct stat st;

    if (fstatfs(pidfd, &fs) < 0 || fs.f_type != 0x50494446 /* PID_FS_MAGIC */ ||
        fstat(pidfd, &st) < 0)
        return 0;
    /* A counter from the boot on. What JSON would round is not told. */
    return st.st_ino < UINT64_C(1) << 53 ? st.st_ino : 0;
}

/* The namespace ("pid") that our own numbers hold in; 0: not known. */
static uint64_t own_namespace(const char *name)
{
    char path[32];
    struct stat st;

    (void)snprintf(path, sizeof(path), "/proc/self/ns/%s", name);
    return stat(path, &st) < 0 ? 0 : st.st_ino;
}

static int of_another_namespace(const struct fcproc_identity *id, const char *what,
                                fcproc_error *err)
{
    return error_about(
        err, id->pid,
        error_set(err, FCPROC_ERR_UNSUPPORTED, "process.open", 0,
                  "pid %d was noted down in another %s namespace, and can't be told from here",
                  id->pid, what));
}

/* 1: p is the one that is named; 0: another has its number; or a code. */
static int is_named_by(const struct fcproc_identity *id, fcproc_process *p, fcproc_error *err)
{
    uint64_t inode = pidfd_inode(fcproc_process_pidfd(p));
    struct fcproc_identity now;
    int r;

    if (inode && id->inode)
        return inode == id->inode;
    if (id->time_ns && id->time_ns != own_namespace("time"))
        return of_another_namespace(id, "time", err);
    r = fcproc_process_identity(p, &now, err);
    return r < 0 ? r : now.start_time == id->start_time;
}

FCPROC_API int fcproc_process_open_identity(const struct fcproc_identity *id, fcproc_process **ret,
                                            fcproc_error *err)
{
    static const char op[] = "process.open";
    fcproc_process *p = NULL;
    char boot_id[37];
    int r = proc_read_boot_id(boot_id);

    if (r < 0)
        return error_about(err, id->pid, error_errno(err, op, -r, "can't tell which boot this is"));
    if (strcmp(boot_id, id->boot_id) != 0)
        return error_about(err, id->pid,
                           error_set(err, FCPROC_ERR_NOT_FOUND, op, ESRCH,
                                     "pid %d is of another boot: the recorded one is gone",
                                     id->pid));
    if (id->pid_ns && id->pid_ns != own_namespace("pid"))
        return of_another_namespace(id, "PID", err);
    r = fcproc_process_open(id->pid, &p, err);
    if (r < 0)
        return r;
    r = is_named_by(id, p, err);
    if (r == 0)
        r = error_about(err, id->pid,
                        error_set(err, FCPROC_ERR_NOT_FOUND, op, ESRCH,
                                  "pid %d is another process now: the recorded one is gone",
                                  id->pid));
    /* Dead and not reaped, it has its number yet. */
    if (r > 0 && !fcproc_process_alive(p))
        r = error_about(err, id->pid,
                        error_set(err, FCPROC_ERR_NOT_FOUND, op, ESRCH,
                                  "pid %d, which was recorded, has ended", id->pid));
    if (r < 0) {
        fcproc_process_close(p);
        return r;
    }
    process_set_recorded(p);
    *ret = p;
    return 0;
}

FCPROC_API int fcproc_process_identity(fcproc_process *p, struct fcproc_identity *ret,
                                       fcproc_error *err)
{
    static const char op[] = "process.identity";
    pid_t pid = fcproc_process_pid(p);
    struct proc_stat st;
    struct fcproc_identity id = { .pid = pid, .start_time = process_start_time(p) };
    int r = 0;

    if (!id.start_time) {
        r = proc_check_ours(op, err);
        if (r < 0)
            return error_about(err, pid, r);
        r = proc_read_stat(pid, &st);
        id.start_time = r == 0 ? st.start_time : 0;
    }
    if (r == 0)
        r = proc_read_boot_id(id.boot_id);
    if (process_has_lost_its_number(p))
        r = -ESRCH;
    r = life_of_held(fcproc_process_pidfd(p), r);
    if (r < 0)
        return error_about(err, pid, error_errno(err, op, -r, "can't identify pid %d", pid));
    id.inode = pidfd_inode(fcproc_process_pidfd(p));
    id.pid_ns = own_namespace("pid");
    id.time_ns = own_namespace("time");
    process_set_start_time(p, id.start_time); /* /proc may hide it later */
    *ret = id;
    return 0;
}
