/* SPDX-License-Identifier: MIT
 *
 * Every kind of object, made here and closed in a fork of this process: there it must free the copy
 * and change nothing, and here it must work on. fork-test FOLDER. Prints what is wrong, or "ok".
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fcproc.h"

enum { LIMIT_S = 10, LIMIT_MS = 1000 * LIMIT_S, MIB = 1 << 20 };

static int failures;
static const char *folder;
static fcproc_error err = FCPROC_ERROR_INIT;

#define CHECK(condition)                                                               \
    do {                                                                               \
        if (!(condition)) {                                                            \
            (void)printf("%s:%d: not true: %s (%s)\n", __FILE__, __LINE__, #condition, \
                         err.message);                                                 \
            (void)fflush(stdout);                                                      \
            failures++;                                                                \
        }                                                                              \
    } while (0)

/* For what makes no sense to go on without. */
#define NEED(condition)        \
    do {                       \
        int before = failures; \
                               \
        CHECK(condition);      \
        if (failures > before) \
            exit(1);           \
    } while (0)

/* Runs fn in a fork, where a hang is its end. */
static void in_fork(void (*fn)(void *), void *arg)
{
    int status = -1;
    pid_t pid;

    (void)fflush(stdout);
    pid = fork();
    if (pid == 0) {
        (void)alarm(LIMIT_S);
        failures = 0;
        fn(arg);
        _exit(failures > 0);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
}

static const char *at(const char *name)
{
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static void write_file(const char *path, size_t size)
{
    static char block[MIB];
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    memset(block, 'x', sizeof(block));
    for (size_t done = 0; done < size; done += sizeof(block))
        NEED(write(fd, block, size - done < sizeof(block) ? size - done : sizeof(block)) > 0);
    (void)close(fd);
}

static int64_t size_of(const char *path)
{
    struct stat st;

    return stat(path, &st) < 0 ? -1 : st.st_size;
}

/* To be closed in the fork; stepping it there is refused. */
static void close_op(void *op)
{
    CHECK(fcproc_op_step(op, &err) == FCPROC_ERR_INVALID);
    CHECK(strstr(err.message, "is a fork") != NULL);
    fcproc_op_close(op);
}

static void finishes(const char *what, fcproc_op *op)
{
    int fd = fcproc_op_pollfd(op), r;
    double began = fcproc_now();

    /* By its descriptor and timer alone, as a host's loop has it. */
    while ((r = fcproc_op_step(op, &err)) == 0 && fcproc_now() - began < LIMIT_S) {
        int64_t ms = fcproc_op_timeout_ms(op);

        (void)!fcproc_poll(&fd, NULL, 1, ms < 0 || ms > LIMIT_MS ? LIMIT_MS : ms, &err);
    }
    if (r != 1) {
        (void)printf("%s: %s\n", what, r < 0 ? err.message : "did not end");
        failures++;
    }
}

static fcproc_process *start(const char *text, bool gate)
{
    const char *const argv[] = { "sh", "-c", text, NULL };
    struct fcproc_spawn spec = FCPROC_SPAWN_INIT;
    fcproc_process *p = NULL;

    spec.argv = argv;
    spec.gate = gate;
    NEED(fcproc_spawn(&spec, &p, &err) == 0);
    return p;
}

/* ---- files ---- */

static void close_lock(void *lock)
{
    fcproc_lock_close(lock);
}

static void remove_lock(void *lock)
{
    CHECK(fcproc_lock_remove(lock, &err) == FCPROC_ERR_INVALID);
}

static void lock_is_held_on(void)
{
    fcproc_lock *lock = NULL;
    bool created, taken = false;

    NEED(fcproc_lock_open(at("lock"), 0600, &lock, &created, &err) == 0);
    in_fork(close_lock, lock);
    CHECK(fcproc_lock_taken(at("lock"), &taken, &err) == 0 && taken);
    in_fork(remove_lock, lock);
    CHECK(fcproc_lock_taken(at("lock"), &taken, &err) == 0 && taken);
    CHECK(size_of(at("lock")) == 0);
    fcproc_lock_close(lock);
    CHECK(fcproc_lock_taken(at("lock"), &taken, &err) == 0 && !taken);
}

static void copy_goes_on(void)
{
    struct fcproc_copy copy = FCPROC_COPY_INIT;
    fcproc_op *op = NULL;

    copy.from = at("from");
    copy.to = at("to");
    copy.method = FCPROC_COPY_SPARSE;
    copy.mode = 0600;
    write_file(at("from"), (size_t)40 * MIB);
    NEED(fcproc_file_copy(&copy, NULL, &op, &err) == 0);
    CHECK(fcproc_op_step(op, &err) == 0);
    in_fork(close_op, op);
    finishes("copy", op);
    fcproc_op_close(op);
    CHECK(size_of(at("to")) == (int64_t)40 * MIB);
}

static void close_capper(void *capper)
{
    CHECK(fcproc_capper_add(capper, at("other"), NULL, MIB, &err) == FCPROC_ERR_INVALID);
    fcproc_capper_remove(capper, at("capped"));
    fcproc_capper_close(capper);
}

static void capper_works_on(void)
{
    fcproc_capper *capper = NULL;
    struct stat st = { 0 };

    write_file(at("capped"), 1);
    NEED(fcproc_capper_new(&capper, &err) == 0);
    NEED(fcproc_capper_add(capper, at("capped"), NULL, MIB, &err) == 0);
    in_fork(close_capper, capper);
    write_file(at("capped"), (size_t)4 * MIB);
    for (int i = 0; i < LIMIT_MS / 20; i++) {
        (void)usleep(20000);
        if (stat(at("capped"), &st) == 0 && st.st_blocks * 512 <= MIB)
            break;
    }
    CHECK(st.st_blocks * 512 <= MIB);
    fcproc_capper_close(capper);
}

/* ---- waits ---- */

/* It must be the event that ends it: the timers beside are slower. */
static void wakes_at_once(const char *what, fcproc_op *op, const char *command)
{
    fcproc_process *p;
    double began;
    int fd = fcproc_op_pollfd(op);

    CHECK(fcproc_op_step(op, &err) == 0);
    in_fork(close_op, op);
    CHECK(fcproc_op_step(op, &err) == 0);
    p = start(command, false);
    began = fcproc_now();
    (void)!fcproc_poll(&fd, NULL, 1, LIMIT_MS, &err);
    if (fcproc_now() - began > LIMIT_S - 1) {
        (void)printf("%s: not woken\n", what);
        failures++;
    }
    finishes(what, op);
    fcproc_op_close(op);
    fcproc_process_close(p);
}

static void waits_go_on(void)
{
    fcproc_process *writer = start("sleep 60", false);
    fcproc_ctx *ctx = NULL;
    fcproc_op *op = NULL;
    char command[1200];

    NEED(fcproc_ctx_new(NULL, LIMIT_MS, &ctx, &err) == 0);
    NEED(fcproc_path_wait(at("new"), false, LIMIT_MS, "x", 0, ctx, &op, &err) == 0);
    (void)snprintf(command, sizeof(command), "touch %s", at("new"));
    wakes_at_once("path", op, command);
    write_file(at("log"), 1);
    NEED(fcproc_file_wait(at("log"), NULL, 1, writer, LIMIT_MS, ctx, &op, &err) == 0);
    (void)snprintf(command, sizeof(command), "echo text >> %s", at("log"));
    wakes_at_once("growth", op, command);
    NEED(fcproc_text_wait(at("log"), NULL, "more", writer, LIMIT_MS, ctx, &op, &err) == 0);
    (void)snprintf(command, sizeof(command), "echo more >> %s", at("log"));
    wakes_at_once("text", op, command);
    NEED(fcproc_process_wait(writer, LIMIT_MS, 0, ctx, &op, &err) == 0);
    (void)snprintf(command, sizeof(command), "kill %d", fcproc_process_pid(writer));
    wakes_at_once("process", op, command);
    fcproc_process_close(writer);
    fcproc_ctx_unref(ctx);
}

static void use_context(void *arg)
{
    fcproc_ctx *ctx = arg;
    fcproc_op *op = NULL;

    CHECK(fcproc_path_wait(at("never"), false, LIMIT_MS, "x", 0, ctx, &op, &err) == 0);
    CHECK(fcproc_op_step(op, &err) == 0);
    fcproc_ctx_cancel(ctx);
    CHECK(fcproc_poll(&(int){ fcproc_op_pollfd(op) }, NULL, 1, 0, &err) == 1);
    CHECK(fcproc_op_step(op, &err) == FCPROC_ERR_CANCELLED);
    fcproc_op_close(op);
    CHECK(fcproc_path_wait(at("never"), false, LIMIT_MS, "x", 0, ctx, &op, &err) == 0);
    CHECK(fcproc_op_step(op, &err) == FCPROC_ERR_CANCELLED);
    fcproc_op_close(op);
    fcproc_ctx_unref(ctx);
}

/* Where there is no descriptor left for its own, in a signal handler perhaps: errno is as it was. */
static void cancel_without_descriptors(void *arg)
{
    struct rlimit none = { 0, 0 };

    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    errno = 4242;
    fcproc_ctx_cancel(arg);
    CHECK(errno == 4242);
    CHECK(fcproc_ctx_status(arg, &err) == FCPROC_ERR_CANCELLED);
}

/* The fork's copy is another context: it works there, and its cancel is not ours. */
static void contexts_are_two(void)
{
    fcproc_ctx *parent = NULL, *ctx = NULL;
    fcproc_op *op = NULL;
    int fd;

    NEED(fcproc_ctx_new(NULL, -1, &parent, &err) == 0);
    NEED(fcproc_ctx_new(parent, -1, &ctx, &err) == 0);
    NEED(fcproc_path_wait(at("never"), false, LIMIT_MS, "x", 0, ctx, &op, &err) == 0);
    CHECK(fcproc_op_step(op, &err) == 0);
    in_fork(use_context, ctx);
    in_fork(use_context, parent);
    in_fork(cancel_without_descriptors, ctx);
    CHECK(fcproc_ctx_status(ctx, &err) == 0);
    fd = fcproc_op_pollfd(op);
    CHECK(fcproc_poll(&fd, NULL, 1, 0, &err) == 0);
    fcproc_ctx_cancel(parent);
    CHECK(fcproc_poll(&fd, NULL, 1, 0, &err) == 1);
    CHECK(fcproc_op_step(op, &err) == FCPROC_ERR_CANCELLED);
    fcproc_op_close(op);
    fcproc_ctx_unref(ctx);
    fcproc_ctx_unref(parent);
}

/* ---- processes ---- */

static void close_process(void *p)
{
    fcproc_process_close(p);
}

static void refuse_release(void *p)
{
    CHECK(fcproc_process_release(p, true, &err) == FCPROC_ERR_INVALID);
    fcproc_process_close(p);
}

static struct fcproc_exit end_of(fcproc_process *p)
{
    struct fcproc_exit end;
    fcproc_op *op = NULL;

    NEED(fcproc_process_wait(p, LIMIT_MS, 0, NULL, &op, &err) == 0);
    finishes("end", op);
    end = fcproc_process_wait_result(op);
    fcproc_op_close(op);
    fcproc_process_close(p);
    return end;
}

static void processes_stay_ours(void)
{
    fcproc_process *p = start("sleep 60", false);
    struct fcproc_exit end;

    in_fork(close_process, p);
    CHECK(fcproc_process_alive(p));
    CHECK(fcproc_process_signal(p, SIGTERM, &err) == 0);
    end = end_of(p);
    CHECK(end.known && end.signaled && end.value == SIGTERM);

    p = start("exit 3", true);
    in_fork(refuse_release, p);
    in_fork(close_process, p);
    CHECK(fcproc_process_alive(p));
    CHECK(fcproc_process_release(p, true, &err) == 0);
    end = end_of(p);
    CHECK(end.known && !end.signaled && end.value == 3);
}

static void command_goes_on(void)
{
    const char *const argv[] = { "sh", "-c", "cat; sleep 0.2; echo out; exit 3", NULL };
    struct fcproc_command command = { .struct_size = sizeof(command),
                                      .spawn = FCPROC_SPAWN_INIT,
                                      .input = "in\n",
                                      .input_len = 3,
                                      .output_limit = 100,
                                      .timeout_ms = LIMIT_MS };
    struct fcproc_output out, err_out;
    struct fcproc_exit end;
    fcproc_op *op = NULL;

    command.spawn.argv = argv;
    NEED(fcproc_command_run(&command, NULL, &op, &err) == 0);
    in_fork(close_op, op);
    finishes("command", op);
    end = fcproc_command_result(op, &out, &err_out);
    CHECK(end.known && end.value == 3 && out.len == 7 && memcmp(out.data, "in\nout\n", 7) == 0);
    fcproc_op_close(op);
}

static bool is_our_child(pid_t pid)
{
    siginfo_t info;

    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

static void is_reaped(pid_t pid)
{
    for (int i = 0; i < LIMIT_MS / 10 && is_our_child(pid); i++)
        (void)usleep(10000);
    CHECK(!is_our_child(pid));
}

static void reap_own(void *arg)
{
    fcproc_process *p = start("sleep 0.1", false);
    pid_t pid = fcproc_process_pid(p);
    fcproc_op *op = NULL;

    (void)arg;
    fcproc_process_close(p);
    is_reaped(pid);
    /* And waits of its own. */
    CHECK(fcproc_path_wait(at("later"), false, 50, "x", 0, NULL, &op, &err) == 0);
    CHECK(fcproc_op_wait(op, &err) == FCPROC_ERR_DEADLINE);
    fcproc_op_close(op);
}

/* The thread that reaps is not in the fork, which gets one of its own. */
static void reapers_are_two(void)
{
    fcproc_process *p = start("sleep 0.5", false);
    pid_t pid = fcproc_process_pid(p);
    fcproc_op *op = NULL;

    CHECK(fcproc_path_wait(at("later"), false, 0, "x", 0, NULL, &op, &err) == 0);
    CHECK(fcproc_op_wait(op, &err) == FCPROC_ERR_DEADLINE);
    fcproc_op_close(op); /* an idle inotify instance */
    fcproc_process_close(p);
    in_fork(reap_own, NULL);
    is_reaped(pid);
}

/* ---- requests ---- */

static int listen_at(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    NEED(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 5) == 0);
    return fd;
}

static void ask(void *client)
{
    fcproc_op *op = NULL;

    CHECK(fcproc_request(client, "GET", "/", NULL, 0, LIMIT_MS, NULL, &op, &err) ==
          FCPROC_ERR_INVALID);
    fcproc_client_close(client);
}

static void request_goes_on(void)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntext";
    fcproc_client *client = NULL;
    fcproc_op *op = NULL;
    int server = listen_at(at("sock")), fd;
    struct fcproc_response response;
    char buf[1024];

    NEED(fcproc_client_new(at("sock"), &client, &err) == 0);
    for (int i = 0; i < 2; i++) { /* the second one on the kept connection */
        NEED(fcproc_request(client, "GET", "/", NULL, 0, LIMIT_MS, NULL, &op, &err) == 0);
        CHECK(fcproc_op_step(op, &err) == 0);
        if (i == 0)
            fd = accept(server, NULL, NULL);
        CHECK(fd >= 0 && recv(fd, buf, sizeof(buf), 0) > 0);
        in_fork(close_op, op);
        CHECK(send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL) > 0);
        finishes("request", op);
        response = fcproc_request_result(op);
        CHECK(response.status == 200 && response.body_len == 4);
        fcproc_op_close(op);
        in_fork(ask, client);
    }
    fcproc_client_close(client);
    (void)close(fd);
    (void)close(server);
}

/* ---- links ---- */

static void use_net(void *net)
{
    struct fcproc_tap tap = { .struct_size = sizeof(tap), .name = "t2", .uid = -1, .gid = -1 };
    struct fcproc_bridge bridge = { .struct_size = sizeof(bridge), .name = "b" };
    struct fcproc_tap_info info, *list = NULL;
    size_t n = 0;

    CHECK(fcproc_link_exists(net, "t1", &err) == FCPROC_ERR_INVALID);
    CHECK(fcproc_tap_list(net, NULL, NULL, &list, &n, &err) == FCPROC_ERR_INVALID);
    CHECK(fcproc_tap_create(net, &tap, NULL, &info, &err) == FCPROC_ERR_INVALID);
    CHECK(fcproc_bridge_ensure(net, &bridge, NULL, NULL, &err) == FCPROC_ERR_INVALID);
    fcproc_net_close(net);
}

static void links_are_removed(void)
{
    struct fcproc_tap tap = { .struct_size = sizeof(tap), .name = "t1", .uid = -1, .gid = -1 };
    const char *const names[] = { "t1" };
    struct fcproc_tap_info info;
    fcproc_netns *ns = NULL;
    fcproc_net *net = NULL;
    fcproc_op *op = NULL;

    NEED(fcproc_netns_new(&ns, &err) == 0);
    NEED(fcproc_net_open(ns, &net, &err) == 0);
    NEED(fcproc_tap_create(net, &tap, NULL, &info, &err) == 0);
    in_fork(use_net, net);
    CHECK(fcproc_link_exists(net, "t1", &err) == 1);
    NEED(fcproc_taps_delete(net, names, 1, NULL, &op, &err) == 0);
    in_fork(close_op, op);
    finishes("removal", op);
    CHECK(fcproc_taps_delete_result(op) == 1);
    fcproc_op_close(op);
    CHECK(fcproc_link_exists(net, "t1", &err) == 0);
    fcproc_net_close(net);
    fcproc_netns_close(ns);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    folder = argv[1];
    (void)signal(SIGPIPE, SIG_IGN);
    lock_is_held_on();
    copy_goes_on();
    capper_works_on();
    waits_go_on();
    contexts_are_two();
    processes_stay_ours();
    command_goes_on();
    reapers_are_two();
    request_goes_on();
    links_are_removed();
    if (!failures)
        (void)printf("ok\n");
    return failures ? 1 : 0;
}
