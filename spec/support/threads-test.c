/* SPDX-License-Identifier: MIT
 *
 * One root context, and operations of every kind under it from several threads at once, as a host
 * with a thread for each VM has them; then its cancel, which ends all. What must not race is shown by
 * ThreadSanitizer: make test SANITIZE=thread. threads-test FOLDER
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fcproc.h"

enum { THREADS = 4, ROUNDS = 12, PATIENCE_MS = 20000 };

static atomic_int failures;
static const char *folder;
static fcproc_ctx *root;

static void expect(const char *what, int got, int want, const fcproc_error *err)
{
    if (got == want)
        return;
    (void)printf("%s: %s, not %s: %s\n", what, got ? fcproc_code_name(got) : "success",
                 want ? fcproc_code_name(want) : "success", err->message);
    failures++;
}

static int finish(int r, fcproc_op *op, fcproc_error *err)
{
    if (r == 0)
        r = fcproc_op_wait(op, err);
    if (op)
        fcproc_op_close(op);
    return r;
}

static fcproc_process *start(const char *program, const char *argument, bool gate,
                             fcproc_error *err)
{
    const char *const argv[] = { program, argument, NULL };
    struct fcproc_spawn spec = FCPROC_SPAWN_INIT;
    fcproc_process *p = NULL;

    spec.argv = argv;
    spec.gate = gate;
    expect("spawn", fcproc_spawn(&spec, &p, err), 0, err);
    return p;
}

/* The descriptor is given away to a thread that reaps; so is the answer that never comes. */
static void leave_behind(const char *sock, fcproc_error *err)
{
    fcproc_client *client = NULL;
    fcproc_op *op = NULL;
    int r;

    fcproc_process_close(start("sleep", "0.05", false, err));
    r = fcproc_client_new(sock, &client, err);
    expect("client", r, 0, err);
    if (r < 0)
        return;
    r = fcproc_request(client, "GET", "/", NULL, 0, 5, root, &op, err);
    expect("request", finish(r, op, err), FCPROC_ERR_WAIT_TIMEOUT, err);
    fcproc_client_close(client);
}

static void run_command(fcproc_ctx *ctx, fcproc_error *err)
{
    const char *const argv[] = { "echo", "text", NULL };
    struct fcproc_command command = { .struct_size = sizeof(command),
                                      .spawn = FCPROC_SPAWN_INIT,
                                      .output_limit = 100,
                                      .timeout_ms = PATIENCE_MS };
    fcproc_op *op = NULL;
    int r;

    command.spawn.argv = argv;
    r = fcproc_command_run(&command, ctx, &op, err);
    expect("command", finish(r, op, err), 0, err);
}

static void one_round(int number, int round)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_process *p = start("sleep", "60", round % 2 == 0, &err);
    fcproc_ctx *ctx = NULL;
    fcproc_op *op = NULL;
    bool created;
    char path[200], sock[200];
    int r;

    if (!p)
        return;
    (void)snprintf(sock, sizeof(sock), "%s/sock", folder);
    (void)snprintf(path, sizeof(path), "%s/%d-%d", folder, number, round);
    r = fcproc_path_wait(path, false, 2, "x", 0, root, &op, &err);
    expect("path", finish(r, op, &err), FCPROC_ERR_DEADLINE, &err);
    expect("file", fcproc_file_create(path, "x", 1, 0600, -1, -1, &created, NULL, &err), 0, &err);
    op = NULL;
    r = fcproc_path_wait(path, false, PATIENCE_MS, "x", 0, root, &op, &err);
    expect("path", finish(r, op, &err), 0, &err);
    op = NULL;
    r = fcproc_text_wait(path, NULL, "never", p, 2, root, &op, &err);
    expect("text", finish(r, op, &err), FCPROC_ERR_WAIT_TIMEOUT, &err);
    expect("context", fcproc_ctx_new(root, PATIENCE_MS, &ctx, &err), 0, &err);
    run_command(ctx, &err);
    op = NULL;
    r = fcproc_ctx_wait(ctx, 1, root, &op, &err);
    expect("context's end", finish(r, op, &err), FCPROC_ERR_WAIT_TIMEOUT, &err);
    fcproc_ctx_unref(ctx);
    leave_behind(sock, &err);
    expect("release", fcproc_process_release(p, true, &err), 0, &err);
    expect("signal", fcproc_process_signal(p, SIGKILL, &err), 0, &err);
    op = NULL;
    r = fcproc_process_wait(p, PATIENCE_MS, 0, root, &op, &err);
    expect("process", finish(r, op, &err), 0, &err);
    fcproc_process_close(p);
}

static atomic_int waiting;

static void *work(void *arg)
{
    int number = (int)(intptr_t)arg;
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_op *op = NULL;
    int r;

    for (int round = 0; round < ROUNDS; round++)
        one_round(number, round);
    r = fcproc_path_wait("/not/there", false, PATIENCE_MS, "x", 0, root, &op, &err);
    waiting++;
    expect("the last wait", finish(r, op, &err), FCPROC_ERR_CANCELLED, &err);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int deaf = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pthread_t threads[THREADS];

    if (argc != 2 || strlen(argv[1]) > 90)
        return 2;
    folder = argv[1];
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/sock", folder);
    if (bind(deaf, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(deaf, THREADS * ROUNDS) < 0 || fcproc_ctx_new(NULL, -1, &root, NULL) < 0)
        return 2;
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i) != 0)
            return 2;
    while (waiting < THREADS)
        (void)usleep(1000);
    fcproc_ctx_cancel(root);
    for (int i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL);
    fcproc_ctx_unref(root);
    (void)close(deaf);
    if (!failures)
        (void)printf("ok\n");
    return failures > 0;
}
