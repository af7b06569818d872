/* SPDX-License-Identifier: MIT
 *
 * Targets on a file system without O_TMPFILE, which is a fake here: openat refuses the flag. What a killed
 * builder leaves beside its target the next one removes; not what belongs to one that lives, to its
 * program, or to somebody else.
 * target-test FOLDER (empty)
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "count.h"
#include "fcproc_image.h"

extern int __real_openat(int folder, const char *path, int flags, ...);
extern int __wrap_openat(int folder, const char *path, int flags, ...);

int __wrap_openat(int folder, const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    va_start(args, flags);
    if (flags & O_CREAT)
        mode = va_arg(args, mode_t);
    va_end(args);
    if ((flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return __real_openat(folder, path, flags, mode);
}

static const char *folder;
static char path[4096];
static int failed;

static void holds(int n, const char *when)
{
    int there = count_entries(folder) - 2; /* "." and ".." */

    if (there == n)
        return;
    (void)printf("%s: %d files, and not %d\n", when, there, n);
    failed = 1;
}

static fcproc_image_target *open_target(void)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_image_target *target = NULL;

    if (fcproc_image_target_open(path, &target, &err) < 0) {
        (void)printf("%s\n", err.message);
        failed = 1;
    }
    return target;
}

/* A builder in the middle of its work; with a program of its own, which has the target, too. */
static pid_t start_builder(uid_t uid, pid_t *ret_program)
{
    int ready[2];
    pid_t pid, program = 0;

    if (pipe(ready) < 0 || (pid = fork()) < 0)
        return -1;
    if (pid == 0) {
        if (uid == 0 || setresuid(uid, uid, uid) == 0)
            (void)open_target();
        if (ret_program)
            program = fork();
        if (program != 0 || !ret_program)
            (void)!write(ready[1], &program, sizeof(program));
        for (;;)
            (void)pause();
    }
    if (read(ready[0], &program, sizeof(program)) != sizeof(program))
        failed = 1;
    if (ret_program)
        *ret_program = program;
    (void)close(ready[0]);
    (void)close(ready[1]);
    return pid;
}

static void end(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

static void build(bool publish)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_image_target *target = open_target();
    fcproc_image_job *job = NULL;

    if (target && publish &&
        (fcproc_image_target_publish(target, &job, &err) < 0 ||
         fcproc_image_job_wait(job, &err) < 0)) {
        (void)printf("%s\n", err.message);
        failed = 1;
    }
    fcproc_image_job_close(job);
    fcproc_image_target_close(target);
}

int main(int argc, char **argv)
{
    enum { NOBODY = 65534 };
    pid_t living, dead, program;

    (void)setvbuf(stdout, NULL, _IONBF, 0);
    if (argc != 2 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return 2;
    folder = argv[1];
    (void)snprintf(path, sizeof(path), "%s/disk", folder);
    living = start_builder(0, NULL);
    end(start_builder(0, NULL));
    holds(2, "a living one's and a dead one's");
    build(false);
    holds(1, "a build that gave up, after a dead one's");
    build(true);
    holds(2, "a build, beside a living one's");
    dead = start_builder(0, &program);
    end(dead);
    build(true);
    holds(3, "a build, beside a living program's of a dead one");
    end(program);
    end(living);
    if (chmod(folder, 0777) < 0)
        return 1;
    end(start_builder(NOBODY, NULL));
    build(true);
    holds(2, "a build, beside somebody else's");
    (void)puts(failed ? "FAILED" : "ok");
    return failed;
}
