/* SPDX-License-Identifier: MIT
 *
 * Every kind of wait, cancelled from another thread or from a signal handler: it must end as
 * cancelled, long before its own time-out. And contexts held and let go of by many threads.
 * cancel-test FOLDER
 */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fcproc.h"

enum { PATIENCE_MS = 20000, LATE_MS = 5000, WAITERS = 4, HOLDERS = 8, HOLDS = 20000 };

static fcproc_ctx *volatile current;
static double cancelled_at;

static void *cancel_soon(void *ctx)
{
    (void)usleep(50000);
    cancelled_at = fcproc_now();
    fcproc_ctx_cancel(ctx);
    fcproc_ctx_unref(ctx);
    return NULL;
}

static void on_alarm(int sig)
{
    (void)sig;
    cancelled_at = fcproc_now();
    fcproc_ctx_cancel(current);
}

static int judge_at(const char *name, int r, const fcproc_error *err, double woken_at)
{
    double late_ms = (woken_at - cancelled_at) * 1e3;

    (void)printf("%-24s %s, %.2f ms after the cancel\n", name, fcproc_code_name(r), late_ms);
    if (r == FCPROC_ERR_CANCELLED && late_ms < LATE_MS)
        return 0;
    (void)printf("    %s\n", err->message);
    return 1;
}

static int judge(const char *name, int r, const fcproc_error *err)
{
    return judge_at(name, r, err, fcproc_now());
}

static int finish(const char *name, int r, fcproc_op *op, fcproc_error *err)
{
    pthread_t thread;

    if (r < 0) {
        (void)printf("%s: %s\n", name, err->message);
        return 1;
    }
    (void)pthread_create(&thread, NULL, cancel_soon, fcproc_ctx_ref(current));
    r = fcproc_op_wait(op, err);
    r = judge(name, r, err);
    (void)pthread_join(thread, NULL);
    fcproc_op_close(op);
    return r;
}

static void fresh_context(void)
{
    fcproc_ctx_unref(current);
    if (fcproc_ctx_new(NULL, -1, (fcproc_ctx **)(uintptr_t)&current, NULL) < 0)
        current = NULL;
}

struct waiter {
    pthread_t thread;
    fcproc_ctx *ctx;
    int result;
    double woken_at; /* before the close, in which the kernel takes its time over inotify */
};

static void *wait_for_ever(void *arg)
{
    struct waiter *w = arg;
    fcproc_op *op = NULL;

    w->result = fcproc_path_wait("/not/there", false, PATIENCE_MS, "x", 0, w->ctx, &op, NULL);
    if (w->result == 0)
        w->result = fcproc_op_wait(op, NULL);
    w->woken_at = fcproc_now();
    fcproc_op_close(op);
    fcproc_ctx_unref(w->ctx);
    return NULL;
}

/* Four waiters on four children of one context. */
static int cancel_family(void)
{
    struct waiter waiters[WAITERS];
    pthread_t canceller;
    int failed = 0;

    fresh_context();
    for (int i = 0; i < WAITERS; i++) {
        if (fcproc_ctx_new(current, PATIENCE_MS, &waiters[i].ctx, NULL) < 0)
            return 1;
        (void)pthread_create(&waiters[i].thread, NULL, wait_for_ever, &waiters[i]);
    }
    (void)pthread_create(&canceller, NULL, cancel_soon, fcproc_ctx_ref(current));
    for (int i = 0; i < WAITERS; i++) {
        fcproc_error none = FCPROC_ERROR_INIT;

        (void)pthread_join(waiters[i].thread, NULL);
        failed |= judge_at("four threads, children", waiters[i].result, &none, waiters[i].woken_at);
    }
    (void)pthread_join(canceller, NULL);
    return failed;
}

/* A host's own loop over the descriptor sees it too. */
static int cancel_poller(void)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_op *op = NULL;
    pthread_t canceller;
    int fd, r;

    fresh_context();
    r = fcproc_path_wait("/not/there", false, PATIENCE_MS, "x", 0, current, &op, &err);
    if (r < 0 || fcproc_op_step(op, &err) != 0)
        return 1;
    (void)pthread_create(&canceller, NULL, cancel_soon, fcproc_ctx_ref(current));
    fd = fcproc_op_pollfd(op);
    r = fcproc_poll(&fd, NULL, 1, fcproc_op_timeout_ms(op), &err);
    r = judge("polled from outside", r == 1 ? fcproc_op_step(op, &err) : r, &err);
    (void)pthread_join(canceller, NULL);
    fcproc_op_close(op);
    return r;
}

/* Takes and lets go of the context again and again, cancels it once, and drops the reference
 * that it was given: whoever is last frees it. */
static void *hold(void *ctx)
{
    for (int i = 0; i < HOLDS; i++) {
        (void)fcproc_ctx_ref(ctx);
        if (i == HOLDS / 2)
            fcproc_ctx_cancel(ctx);
        fcproc_ctx_unref(ctx);
    }
    bool right = fcproc_ctx_status(ctx, NULL) == FCPROC_ERR_CANCELLED;

    fcproc_ctx_unref(ctx);
    return (void *)(intptr_t)right;
}

static int hold_from_threads(void)
{
    pthread_t threads[HOLDERS];
    fcproc_ctx *parent = NULL, *child = NULL;
    int wrong = 0;

    if (fcproc_ctx_new(NULL, -1, &parent, NULL) < 0 || fcproc_ctx_new(parent, -1, &child, NULL) < 0)
        return 1;
    fcproc_ctx_unref(parent); /* the child's alone now */
    for (int i = 0; i < HOLDERS; i++)
        (void)pthread_create(&threads[i], NULL, hold, fcproc_ctx_ref(child));
    fcproc_ctx_unref(child);
    for (int i = 0; i < HOLDERS; i++) {
        void *right;

        (void)pthread_join(threads[i], &right);
        wrong += !right;
    }
    (void)printf("%d threads, %d holds each: %s\n", HOLDERS, HOLDS, wrong ? "WRONG" : "right");
    return wrong != 0;
}

static int bind_only(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return -1;
    return fd;
}

int main(int argc, char **argv)
{
    const char *const sleeping[] = { "sleep", "60", NULL };
    struct fcproc_spawn spawn = FCPROC_SPAWN_INIT;
    struct fcproc_command command = { .struct_size = sizeof(command),
                                      .spawn = FCPROC_SPAWN_INIT,
                                      .output_limit = 10,
                                      .timeout_ms = PATIENCE_MS };
    struct sigaction action = { .sa_handler = on_alarm };
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_process *process = NULL;
    fcproc_client *client = NULL;
    fcproc_op *op = NULL;
    char sock[100], deaf[100];
    int failed = 0, fd, deaf_fd, r;

    if (argc != 2)
        return 2;
    (void)snprintf(sock, sizeof(sock), "%s/hangs.sock", argv[1]);
    (void)snprintf(deaf, sizeof(deaf), "%s/deaf.sock", argv[1]);
    fd = bind_only(sock);
    deaf_fd = bind_only(deaf);
    spawn.argv = command.spawn.argv = sleeping;
    /* One that never answers, and one to which every connect is refused. */
    if (fd < 0 || listen(fd, 5) < 0 || deaf_fd < 0 || fcproc_spawn(&spawn, &process, &err) < 0 ||
        fcproc_client_new(sock, &client, &err) < 0)
        return 2;

    fresh_context();
    r = fcproc_path_wait("/not/there", false, PATIENCE_MS, "x", 0, current, &op, &err);
    failed |= finish("path", r, op, &err);
    fresh_context();
    r = fcproc_path_wait("/not/there", true, PATIENCE_MS, "x", FCPROC_WITHOUT_INOTIFY, current, &op,
                         &err);
    failed |= finish("socket, by the timer", r, op, &err);
    fresh_context();
    r = fcproc_path_wait(deaf, true, PATIENCE_MS, "x", 0, current, &op, &err);
    failed |= finish("socket that refuses", r, op, &err);
    fresh_context();
    r = fcproc_process_wait(process, PATIENCE_MS, 0, current, &op, &err);
    failed |= finish("process", r, op, &err);
    fresh_context();
    r = fcproc_command_run(&command, current, &op, &err);
    failed |= finish("command", r, op, &err);
    fresh_context();
    r = fcproc_request(client, "GET", "/", NULL, 0, PATIENCE_MS, current, &op, &err);
    failed |= finish("request", r, op, &err);
    failed |= cancel_family();
    failed |= cancel_poller();
    failed |= hold_from_threads();

    fresh_context();
    (void)sigaction(SIGALRM, &action, NULL);
    (void)ualarm(50000, 0);
    r = fcproc_process_wait(process, PATIENCE_MS, 0, current, &op, &err);
    if (r == 0)
        r = fcproc_op_wait(op, &err);
    failed |= judge("from a signal handler", r, &err);
    fcproc_op_close(op);

    (void)!fcproc_process_signal(process, SIGKILL, NULL);
    if (fcproc_process_wait(process, PATIENCE_MS, 0, NULL, &op, &err) == 0) {
        (void)!fcproc_op_wait(op, NULL);
        fcproc_op_close(op);
    }
    fcproc_process_close(process);
    fcproc_client_close(client);
    fcproc_ctx_unref(current);
    (void)close(fd);
    (void)close(deaf_fd);
    (void)puts(failed ? "FAILED" : "ok");
    return failed;
}
