/* SPDX-License-Identifier: MIT
 *
 * Reads /proc/PID. What is read belongs to whoever has the number now: a caller holds a pidfd and
 * looks afterwards whether that process still lives.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>

#include "private.h"

/* Up to size - 1 bytes and a NUL; -ESRCH when the process is gone. */
static ssize_t read_file(const char *path, char *buf, size_t size)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t used = 0;

    if (fd < 0)
        return errno == ENOENT ? -ESRCH : -errno;
    while (used < size - 1) {
        ssize_t n = read(fd, buf + used, size - 1 - used);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        used += (size_t)n;
        if (n == 0 || (used < size - 1 && buf[used - 1] == '\n'))
            break; /* a line is whole, and the file with it */
    }
    buf[used] = '\0';
    return (ssize_t)used;
}

/* proc(5): "pid (comm) state ppid ... flags(9) ... starttime(22)". comm may hold spaces and
 * brackets, so it ends at the last one. */
int proc_parse_stat(const char *text, struct proc_stat *ret)
{
    const char *open = strchr(text, '(');
    const char *close = strrchr(text, ')');
    struct proc_stat st = { 0 };
    const char *p;
    size_t len;

    if (!open || !close || close < open || close[1] != ' ' || close[2] == '\0')
        return -EBADMSG;
    len = (size_t)(close - open - 1);
    if (len >= sizeof(st.comm))
        len = sizeof(st.comm) - 1;
    memcpy(st.comm, open + 1, len);
    st.state = close[2];
    p = close + 3;
    for (int field = 4; field <= 22; field++) {
        if (*p++ != ' ')
            return -EBADMSG;
        if (field == 9)
            st.flags = (unsigned)strtoul(p, NULL, 10);
        if (field == 22)
            st.start_time = strtoull(p, NULL, 10);
        p += strcspn(p, " \n");
    }
    if (*p == '\0') /* cut short: the last number may be, too */
        return -EBADMSG;
    *ret = st;
    return 0;
}

int proc_read_stat(pid_t pid, struct proc_stat *ret)
{
    char path[32], text[1024];
    ssize_t n;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    n = read_file(path, text, sizeof(text));
    return n < 0 ? (int)n : proc_parse_stat(text, ret);
}

int proc_check_ours(const char *op, fcproc_error *err)
{
    char self[16] = "";

    if (readlink("/proc/self", self, sizeof(self) - 1) > 0 && strtol(self, NULL, 10) == getpid())
        return 0;
    return error_set(err, FCPROC_ERR_UNSUPPORTED, op, 0,
                     "/proc is not that of our own PID namespace; mount it (unshare --mount-proc)");
}

int proc_read_boot_id(char ret[37])
{
    /* The same for as long as the kernel runs, so for this process's life. */
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static char known[37];
    char text[64];
    ssize_t n = 36;

    (void)pthread_mutex_lock(&mutex);
    if (!known[0]) {
        n = read_file("/proc/sys/kernel/random/boot_id", text, sizeof(text));
        if (n >= 36)
            memcpy(known, text, 36);
    }
    memcpy(ret, known, sizeof(known));
    (void)pthread_mutex_unlock(&mutex);
    if (n == -ESRCH) /* of no process: /proc is not mounted, or hides it */
        return -EOPNOTSUPP;
    return n < 0 ? (int)n : n < 36 ? -EBADMSG : 0;
}

const char *proc_argument_after(const char *cmdline, size_t len, const char *name)
{
    const char *end = cmdline + len;

    for (const char *p = cmdline; p < end; p += strlen(p) + 1)
        if (strcmp(p, name) == 0) {
            const char *next = p + strlen(p) + 1;

            return next < end ? next : NULL;
        }
    return NULL;
}

ssize_t proc_read_cmdline(pid_t pid, char **ret)
{
    cleanup_free char *text = NULL;
    char path[32];
    size_t size = 4096;

    (void)snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
    for (;;) {
        ssize_t n;

        text = malloc(size);
        if (!text)
            return -ENOMEM;
        n = read_file(path, text, size);
        if (n < 0)
            return n;
        if ((size_t)n < size - 1 || size >= (4U << 20)) {
            *ret = text;
            text = NULL;
            return n;
        }
        free(text);
        text = NULL;
        size *= 4;
    }
}
