/* SPDX-License-Identifier: MIT
 *
 * What only the core sees: the parsers of /proc, the code for each errno, times, socket paths, and
 * netlink where it fails.
 * core-test FOLDER [ARGUMENT...]: FOLDER is root's alone; ARGUMENTs make the command line long.
 * Prints what is wrong, or "ok".
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "../../csrc/core/private.h"

static int failures;

#define CHECK(condition)                                                     \
    do {                                                                     \
        if (!(condition)) {                                                  \
            printf("%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            failures++;                                                      \
        }                                                                    \
    } while (0)

enum { NOBODY = 65534 };

/* Fields 4 to 24 of a stat line: flags, field 9, are 4194560; the start time, field 22, 987654. */
#define TAIL "1 42 42 34816 42 4194560 100 0 0 0 1 2 3 4 20 0 1 0 987654 1000 200"

static void check_comm(const char *comm, const char *want)
{
    struct proc_stat st = { 0 };
    char line[512];

    (void)snprintf(line, sizeof(line), "42 (%s) S " TAIL "\n", comm);
    if (proc_parse_stat(line, &st) != 0 || strcmp(st.comm, want) != 0 || st.state != 'S' ||
        st.flags != 4194560 || st.start_time != 987654) {
        printf("comm '%s' was read as '%s', state %c, flags %u, start %llu\n", comm, st.comm,
               st.state ? st.state : '?', st.flags, (unsigned long long)st.start_time);
        failures++;
    }
}

static void parses_hostile_names(void)
{
    check_comm("firecracker", "firecracker");
    check_comm("", "");
    check_comm(") R 1 (", ") R 1 (");
    check_comm("(", "(");
    check_comm(")", ")");
    check_comm("))) ((", "))) ((");
    check_comm(") Z 0 0 0 0", ") Z 0 0 0 0");
    check_comm("two words  more", "two words  more");
    check_comm("line\nbreak", "line\nbreak");
    check_comm("42 (x) R 1 2 3", "42 (x) R 1 2 3");
    check_comm("fifteen bytes!!", "fifteen bytes!!");
    check_comm("kworker/u8:3+flush-a-long-one", "kworker/u8:3+fl"); /* only kernel threads */
}

/* Each text is a block of its own, so that a sanitizer sees a read past its end. */
static int parse_copy(const char *text, size_t len, struct proc_stat *ret)
{
    char *copy = strndup(text, len);
    int r = copy ? proc_parse_stat(copy, ret) : -ENOMEM;

    free(copy);
    return r;
}

static void refuses_what_is_no_stat_line(void)
{
    static const char *const bad[] = {
        "",
        "42",
        "42 (",
        "42 (x",
        "42 (x)",
        "42 (x) ",
        "42 (x) S",
        "42 (x) S ",
        "42 x) S " TAIL,
        "42 )x( S " TAIL,
        "42 (x)S " TAIL,
        "42 (x) S\n" TAIL,
        "(",
        ")",
        "()",
        "\n",
    };
    static const char line[] = "42 (a b) S " TAIL "\n";
    const size_t start_time_at = (size_t)(strstr(line, "987654") - line);
    struct proc_stat st = { .start_time = 7 };

    for (size_t i = 0; i < ELEMENTS(bad); i++)
        if (parse_copy(bad[i], strlen(bad[i]), &st) != -EBADMSG) {
            printf("not refused: '%s'\n", bad[i]);
            failures++;
        }
    for (size_t len = 0; len < start_time_at; len++)
        CHECK(parse_copy(line, len, &st) == -EBADMSG);
    CHECK(st.start_time == 7); /* untouched by all of them */
    for (size_t len = start_time_at + strlen("987654 "); len < sizeof(line); len++)
        CHECK(parse_copy(line, len, &st) == 0 && st.start_time == 987654);
}

/* The kernel's own text for a name that tries to look like the rest of the line. */
static void reads_itself(int argc, char **argv)
{
    cleanup_free char *cmdline = NULL;
    struct proc_stat st = { 0 };
    char boot_id[37] = "";
    size_t want = 0;
    ssize_t n;

    CHECK(prctl(PR_SET_NAME, ") R 1 (") == 0);
    CHECK(proc_read_stat(getpid(), &st) == 0);
    CHECK(strcmp(st.comm, ") R 1 (") == 0);
    CHECK(st.state == 'R' && st.start_time > 0 && !(st.flags & PROC_FLAG_EXITING));

    for (int i = 0; i < argc; i++)
        want += strlen(argv[i]) + 1;
    n = proc_read_cmdline(getpid(), &cmdline);
    CHECK(n == (ssize_t)want);
    if (n == (ssize_t)want && argc > 1) {
        const char *after = proc_argument_after(cmdline, (size_t)n, argv[argc - 2]);

        CHECK(after && strcmp(after, argv[argc - 1]) == 0);
    }
    CHECK(proc_read_boot_id(boot_id) == 0);
    CHECK(strlen(boot_id) == 36 && boot_id[8] == '-' && boot_id[23] == '-');
}

/* One that ended and is not reaped has a name and no arguments; then it is gone altogether. */
static void reads_the_dead(void)
{
    cleanup_free char *cmdline = NULL;
    struct proc_stat st = { 0 };
    siginfo_t info;
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
    CHECK(proc_read_stat(pid, &st) == 0 && st.state == 'Z');
    CHECK(proc_read_cmdline(pid, &cmdline) == 0);
    CHECK(waitpid(pid, NULL, 0) == pid);
    CHECK(proc_read_stat(pid, &st) == -ESRCH);
    free_pointer(&cmdline);
    CHECK(proc_read_cmdline(pid, &cmdline) == -ESRCH);
}

static void judges_life(void)
{
    static const int unknown[] = { EMFILE, ENFILE, ENOMEM, EPERM,  EACCES,  EAGAIN,      EINTR,
                                   EIO,    ENOENT, EBUSY,  ENOSYS, ENOBUFS, ENOPROTOOPT, EBADMSG };

    CHECK(life_of(0) == LIFE_ALIVE && life_of(7) == LIFE_ALIVE);
    CHECK(life_of(-ESRCH) == LIFE_DEAD && life_of(-EINVAL) == LIFE_DEAD);
    CHECK(life_of(-ENODATA) == LIFE_DEAD);
    for (size_t i = 0; i < ELEMENTS(unknown); i++)
        CHECK(life_of(-unknown[i]) == LIFE_UNKNOWN);
}

/* Somebody else in this process has reaped our child: whoever has its number is not it. */
static void has_no_identity_when_reaped(void)
{
    static const char *const argv[] = { "/bin/true", NULL };
    struct fcproc_spawn spec = FCPROC_SPAWN_INIT;
    fcproc_error err = FCPROC_ERROR_INIT;
    struct fcproc_identity id;
    fcproc_process *p = NULL;
    siginfo_t info;

    spec.argv = argv;
    CHECK(fcproc_spawn(&spec, &p, &err) == 0);
    if (!p)
        return;
    CHECK(waitid(P_PID, (id_t)fcproc_process_pid(p), &info, WEXITED | WNOWAIT) == 0);
    CHECK(fcproc_process_identity(p, &id, &err) == 0); /* dead, but the number is its own yet */
    CHECK(waitpid(fcproc_process_pid(p), NULL, 0) == fcproc_process_pid(p));
    CHECK(fcproc_process_identity(p, &id, &err) == FCPROC_ERR_NOT_FOUND && err.sys_errno == ESRCH);
    fcproc_process_close(p);
}

/* In the kernel's 32 bits these are 4294967295, which changes nothing, and 0. */
static void refuses_ids(void)
{
    static const int64_t bad[] = { UINT32_MAX, INT64_C(1) << 32,    INT64_MAX,
                                   -2,         -(INT64_C(1) << 32), INT64_MIN };
    static const char *const argv[] = { "/bin/true", NULL };
    struct fcproc_spawn spawn = FCPROC_SPAWN_INIT;
    struct fcproc_copy copy = FCPROC_COPY_INIT;
    struct fcproc_expected expected = FCPROC_EXPECTED_INIT;
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_net *net = NULL;
    fcproc_process *p = NULL;
    fcproc_op *op = NULL;
    bool flag;

    CHECK(fcproc_net_open(NULL, &net, &err) == 0);
    spawn.argv = argv;
    copy.from = "/etc/passwd";
    copy.to = "/none/x";
    for (size_t i = 0; i < 2 * ELEMENTS(bad); i++) {
        int64_t uid = i % 2 ? -1 : bad[i / 2], gid = i % 2 ? bad[i / 2] : -1;
        struct fcproc_tap tap = {
            .struct_size = sizeof(tap), .name = "fctest0", .uid = uid, .gid = gid
        };
        struct fcproc_tap_info info;
        char *data = NULL;
        size_t len;

        spawn.uid = copy.uid = expected.reader_uid = uid;
        spawn.gid = copy.gid = expected.reader_gid = gid;
        CHECK(fcproc_spawn(&spawn, &p, &err) == FCPROC_ERR_INVALID &&
              strstr(err.message, "can't be a"));
        CHECK(fcproc_tap_create(net, &tap, NULL, &info, &err) == FCPROC_ERR_INVALID);
        CHECK(fcproc_file_own("/none", NULL, uid, gid, -1, &err) == FCPROC_ERR_INVALID);
        CHECK(fcproc_file_create("/none/x", "", 0, 0600, uid, gid, &flag, NULL, &err) ==
              FCPROC_ERR_INVALID);
        CHECK(fcproc_file_write("/none/x", "", 0, 0600, uid, gid, NULL, &err) ==
              FCPROC_ERR_INVALID);
        CHECK(fcproc_file_seal("/none", NULL, uid, gid, 0600, &flag, &err) == FCPROC_ERR_INVALID);
        CHECK(fcproc_file_copy(&copy, NULL, &op, &err) == FCPROC_ERR_INVALID);
        CHECK(fcproc_socket_access("/none", uid, gid, &flag, &err) == FCPROC_ERR_INVALID);
        CHECK(fcproc_file_read("/etc/passwd", &expected, 0, 1, &data, &len, &err) ==
              FCPROC_ERR_INVALID);
    }
    fcproc_net_close(net);
}

static const char *after_name(const char *text, size_t len)
{
    return proc_argument_after(text, len, "--api-sock");
}
/* The text of a literal, NULs inside, as /proc has it. */
#define AFTER(text) after_name(text, sizeof(text) - 1)

static bool same(const char *a, const char *b)
{
    return a && strcmp(a, b) == 0;
}

static void finds_the_argument(void)
{
    CHECK(same(AFTER("firecracker\0--api-sock\0/run/a.sock\0"), "/run/a.sock"));
    CHECK(same(AFTER("firecracker\0--id\0x\0--api-sock\0/a\0--seccomp\0"), "/a"));
    CHECK(same(AFTER("firecracker\0--api-sock\0\0x\0"), "")); /* an empty one is one */
    CHECK(same(AFTER("firecracker\0--api-sock\0/a"), "/a"));  /* cut: no NUL at the end */
    CHECK(same(AFTER("firecracker\0\0\0--api-sock\0/a\0"), "/a"));
    CHECK(!AFTER(""));
    CHECK(!AFTER("firecracker\0"));
    CHECK(!AFTER("firecracker\0--api-sock\0")); /* the last word has nothing after it */
    CHECK(!AFTER("firecracker\0--api-sock"));
    CHECK(!AFTER("firecracker\0--api-socket\0/a\0"));
    CHECK(!AFTER("firecracker\0x--api-sock\0/a\0"));
    CHECK(!AFTER("vi\0--api-sock /run/a.sock\0"));
    CHECK(!AFTER("sh\0-c\0firecracker --api-sock /a\0"));
}

static void maps_codes(void)
{
    static const struct {
        int sys_errno, code;
    } want[] = {
        { EPERM, FCPROC_ERR_PERMISSION },
        { EACCES, FCPROC_ERR_PERMISSION },
        { ENOENT, FCPROC_ERR_NOT_FOUND },
        { ESRCH, FCPROC_ERR_NOT_FOUND },
        { ENODEV, FCPROC_ERR_NOT_FOUND },
        { ECONNREFUSED, FCPROC_ERR_NOT_FOUND },
        { EBUSY, FCPROC_ERR_BUSY },
        { EEXIST, FCPROC_ERR_CONFLICT },
        { ENOMEM, FCPROC_ERR_NOMEM },
        { ENOSYS, FCPROC_ERR_UNSUPPORTED },
        { EOPNOTSUPP, FCPROC_ERR_UNSUPPORTED },
        { ENAMETOOLONG, FCPROC_ERR_INVALID },
        { EIO, FCPROC_ERR_SYSTEM },
        { ENOTDIR, FCPROC_ERR_SYSTEM },
        { EINTR, FCPROC_ERR_SYSTEM },
        { 0, FCPROC_ERR_SYSTEM },
        { 99999, FCPROC_ERR_SYSTEM },
    };
    char path[2000];
    fcproc_error err = FCPROC_ERROR_INIT;

    for (size_t i = 0; i < ELEMENTS(want); i++) {
        CHECK(error_code_for(want[i].sys_errno) == want[i].code);
        CHECK(error_errno(NULL, "x", want[i].sys_errno, "x") == want[i].code);
    }
#define FCPROC_X(name, number, text, meaning) \
    CHECK(FCPROC_ERR_##name == -(number) && strcmp(fcproc_code_name(-(number)), text) == 0);
    FCPROC_ERROR_LIST(FCPROC_X)
#undef FCPROC_X
    CHECK(strcmp(fcproc_code_name(0), "unknown") == 0);
    CHECK(strcmp(fcproc_code_name(-9999), "unknown") == 0);

    CHECK(error_errno(&err, "some.op", EBUSY, "%s", "tap0") == FCPROC_ERR_BUSY);
    CHECK(err.code == FCPROC_ERR_BUSY && err.sys_errno == EBUSY && err.pid == 0);
    CHECK(same(err.op, "some.op") && same(err.message, "tap0: Device or resource busy"));
    CHECK(error_errno(&err, "some.op", 99999, "x") == FCPROC_ERR_SYSTEM);
    CHECK(same(err.message, "x: unknown error"));
    memset(path, 'p', sizeof(path) - 1); /* cut, so that the reason is whole */
    path[sizeof(path) - 1] = '\0';
    CHECK(error_errno(&err, "some.op", ENOENT, "%s", path) == FCPROC_ERR_NOT_FOUND);
    CHECK(strlen(err.message) < sizeof(err.message) &&
          same(err.message + strlen(err.message) - 29, "pp: No such file or directory"));
}

static void counts_time(void)
{
    int64_t now = now_ns();

    CHECK(deadline_after_ms(-1) == NEVER && deadline_after_ms(INT64_MAX) == NEVER);
    CHECK(deadline_after_ms(INT64_MAX / NS_PER_MS) == NEVER);
    CHECK(ms_until(NEVER) == -1 && ms_until(now) == 0 && ms_until(0) == 0);
    CHECK(ms_until(now_ns() + 3600000LL * NS_PER_MS) > 3500000);
    CHECK(ms_until(now_ns() + 1000LL * NS_PER_MS) <= 1000);
    CHECK(ms_until(now_ns() + 900LL * NS_PER_MS + 1) > 0); /* rounded up, never to 0 */
}

static void splits_paths(const char *folder)
{
    struct split_path split;
    char name[200], deep[512];

    CHECK(path_split("/dev/null", &split) == 0 && same(split.base, "null"));
    close_fd(&split.dir_fd);
    CHECK(path_split("/x", &split) == 0 && same(split.base, "x"));
    close_fd(&split.dir_fd);
    CHECK(path_split("x", &split) == 0 && same(split.base, "x"));
    close_fd(&split.dir_fd);
    CHECK(path_split("/no/such/folder/x", &split) == -ENOENT);
    CHECK(path_split("/dev/null/x", &split) == -ENOTDIR);

    CHECK(unix_connect("") == -ENOENT); /* and not an abstract address */
    CHECK(unix_connect("/dev/null") == -ECONNREFUSED);
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    (void)snprintf(deep, sizeof(deep), "%s/%s", folder, name);
    CHECK(unix_connect(deep) == -ENOENT && unix_connect_settled(deep) == -ENOENT);
}

/* As another user, a folder that only root may enter: told at once, with no waiting. */
static void tells_a_refusal(const char *folder)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    int64_t began = now_ns();
    char path[512];

    CHECK(setegid(NOBODY) == 0 && seteuid(NOBODY) == 0);
    for (int listening = 0; listening < 2; listening++) {
        fcproc_op *op = NULL;

        (void)snprintf(path, sizeof(path), "%s/file", folder);
        CHECK(fcproc_path_wait(path, listening, 60000, "x", 0, NULL, &op, &err) == 0);
        CHECK(fcproc_op_wait(op, &err) == FCPROC_ERR_PERMISSION && err.sys_errno == EACCES);
        fcproc_op_close(op);
    }
    CHECK(fcproc_socket_access(path, -1, -1, NULL, &err) == FCPROC_ERR_PERMISSION);
    (void)snprintf(path, sizeof(path), "%s/run", folder);
    CHECK(fcproc_socket_dir(path, NULL, &err) == FCPROC_ERR_PERMISSION);
    CHECK(now_ns() - began < 30000LL * NS_PER_MS);
    CHECK(seteuid(0) == 0 && setegid(0) == 0);
}

/* In this thread the system call fails from now on. */
static bool forbid(long number, int sys_errno)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)sys_errno),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = ELEMENTS(code), .filter = code };

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static void *ask_in_vain(void *number)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct fcproc_tap_info *taps = NULL;
    fcproc_net *net = NULL;
    size_t n;

    CHECK(fcproc_net_open(NULL, &net, &err) == 0);
    CHECK(forbid(*(const long *)number, ENOBUFS));
    CHECK(fcproc_link_exists(net, "lo", &err) == FCPROC_ERR_SYSTEM && err.sys_errno == ENOBUFS);
    /* Which looks again when links came or went meanwhile, and for nothing else. */
    CHECK(fcproc_tap_list(net, NULL, NULL, &taps, &n, &err) == FCPROC_ERR_SYSTEM &&
          err.sys_errno == ENOBUFS);
    fcproc_net_close(net);
    return NULL;
}

/* An exchange that breaks off says why, and ends. */
static void tells_why_netlink_failed(void)
{
    static const long numbers[] = { SYS_sendmsg, SYS_recvmsg };

    (void)alarm(20);
    for (size_t i = 0; i < ELEMENTS(numbers); i++) {
        pthread_t thread;
        long number = numbers[i];

        CHECK(pthread_create(&thread, NULL, ask_in_vain, &number) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    (void)alarm(0);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        printf("usage: core-test FOLDER [ARGUMENT...]\n");
        return 2;
    }
    parses_hostile_names();
    refuses_what_is_no_stat_line();
    reads_itself(argc, argv);
    reads_the_dead();
    judges_life();
    has_no_identity_when_reaped();
    refuses_ids();
    finds_the_argument();
    maps_codes();
    counts_time();
    splits_paths(argv[1]);
    tells_a_refusal(argv[1]);
    tells_why_netlink_failed();
    if (failures)
        return 1;
    printf("ok\n");
    return 0;
}
