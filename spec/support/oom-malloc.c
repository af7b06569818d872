/* SPDX-License-Identifier: MIT
 *
 * Lets malloc fail at the n-th call inside the core, for n = 0, 1, 2, ... until a call succeeds
 * without a failure; after each, no block, descriptor or child may be left. The interposer is
 * this program's own malloc and counts for the armed thread only. oom-malloc FOLDER SOCKET
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fcproc.h"

#if defined(__SANITIZE_ADDRESS__)
int main(void)
{
    (void)puts("the sanitizer has the allocator: nothing to interpose\nok");
    return 0;
}
#else

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void __libc_free(void *block);

/* Seen by all libraries: this replaces libc's. */
enum { MOST_BLOCKS = 4096, MOST_FAILURES = 3000 };

static __thread long left = -1; /* calls until one fails; negative: disarmed */
static __thread int failures;
static __thread int tracking;
static void *volatile blocks[MOST_BLOCKS];

static int fails(void)
{
    if (left < 0)
        return 0;
    if (left-- > 0)
        return 0;
    failures++;
    errno = ENOMEM;
    return 1;
}

static void *track(void *block)
{
    for (int i = 0; block && tracking && i < MOST_BLOCKS; i++) {
        void *expected = NULL;

        if (__atomic_compare_exchange_n(&blocks[i], &expected, block, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST))
            break;
    }
    return block;
}

static void forget(void *block)
{
    for (int i = 0; block && i < MOST_BLOCKS; i++)
        if (blocks[i] == block) {
            blocks[i] = NULL;
            break;
        }
}

FCPROC_API void *malloc(size_t size)
{
    return fails() ? NULL : track(__libc_malloc(size));
}

FCPROC_API void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : track(__libc_calloc(n, size));
}

FCPROC_API void *realloc(void *block, size_t size)
{
    void *bigger;

    if (fails())
        return NULL;
    bigger = __libc_realloc(block, size);
    if (bigger) {
        forget(block);
        track(bigger);
    }
    return bigger;
}

FCPROC_API void free(void *block)
{
    forget(block);
    __libc_free(block);
}

static int blocks_left(void)
{
    int n = 0;

    for (int i = 0; i < MOST_BLOCKS; i++)
        n += blocks[i] != NULL;
    return n;
}

static int count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    while (dir && readdir(dir))
        n++;
    if (dir)
        (void)closedir(dir);
    return n;
}

static int has_zombies(void)
{
    siginfo_t info = { 0 };

    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
}

/* ---- the calls: 0 or an error code ---- */

static const char *folder, *sock;
static fcproc_netns *netns;
static fcproc_net *net;

static int finish(int r, fcproc_op *op)
{
    if (r < 0)
        return r;
    r = fcproc_op_wait(op, NULL);
    fcproc_op_close(op);
    return r;
}

static int call_context(void)
{
    fcproc_ctx *a = NULL, *b = NULL;
    int r = fcproc_ctx_new(NULL, 5, &a, NULL);

    if (r == 0)
        r = fcproc_ctx_new(a, 5, &b, NULL);
    fcproc_ctx_unref(b);
    fcproc_ctx_unref(a);
    return r;
}

static int call_path_wait(void)
{
    fcproc_op *op = NULL;
    char path[4096];

    (void)snprintf(path, sizeof(path), "%s/not/there", folder);
    int r = fcproc_path_wait(path, false, 0, "x", 0, NULL, &op, NULL);

    r = finish(r, op);
    return r == FCPROC_ERR_DEADLINE ? 0 : r;
}

static int call_socket_dir(void)
{
    char path[4096];

    (void)snprintf(path, sizeof(path), "%s/a/b", folder);
    int r = fcproc_socket_dir(path, NULL, NULL);

    (void)rmdir(path);
    *strrchr(path, '/') = '\0';
    (void)rmdir(path);
    return r;
}

static int call_process(void)
{
    fcproc_process *p = NULL;
    struct fcproc_identity id;
    int r = fcproc_process_open(getpid(), &p, NULL);

    if (r == 0)
        r = fcproc_process_identity(p, &id, NULL);
    fcproc_process_close(p);
    p = NULL;
    if (r == 0)
        r = fcproc_process_open_identity(&id, &p, NULL);
    fcproc_process_close(p);
    return r;
}

static int call_listener(void)
{
    fcproc_process *p = NULL;
    pid_t pid;
    int r = fcproc_process_open_listener(sock, 0, &p, NULL);

    fcproc_process_close(p);
    if (r == 0)
        r = fcproc_listener_pid(sock, FCPROC_WITHOUT_PEERPIDFD, &pid, NULL);
    return r;
}

static int call_match(void)
{
    fcproc_process *p = NULL;
    int r = fcproc_process_open_listener(sock, 0, &p, NULL);

    if (r == 0)
        r = fcproc_process_matches(p, "/bin/sh", sock, NULL, NULL);
    fcproc_process_close(p);
    if (r >= 0) {
        p = NULL;
        r = fcproc_process_open_api_sock("/bin/sh", sock, &p, NULL);
        r = r == FCPROC_ERR_NOT_FOUND ? 0 : r;
    }
    return r;
}

static int call_spawn(void)
{
    const char *const argv[] = { "true", NULL };
    struct fcproc_spawn spec = FCPROC_SPAWN_INIT;
    fcproc_process *p = NULL;
    fcproc_op *op = NULL;
    int r;

    spec.argv = argv;
    r = fcproc_spawn(&spec, &p, NULL);
    if (r < 0)
        return r;
    r = fcproc_process_wait(p, 5000, 0, NULL, &op, NULL);
    r = finish(r, op);
    if (r < 0) {
        int fd = fcproc_process_pidfd(p);

        (void)!fcproc_poll(&fd, NULL, 1, 5000, NULL);
    }
    fcproc_process_close(p);
    return r;
}

static int call_command(void)
{
    const char *const argv[] = { "cat", NULL };
    struct fcproc_command spec = { .struct_size = sizeof(spec),
                                   .spawn = FCPROC_SPAWN_INIT,
                                   .input = "hello",
                                   .input_len = 5,
                                   .output_limit = 100,
                                   .timeout_ms = 5000 };
    fcproc_op *op = NULL;
    int r;

    spec.spawn.argv = argv;
    r = fcproc_command_run(&spec, NULL, &op, NULL);
    return finish(r, op);
}

static int call_netns(void)
{
    fcproc_netns *ns = NULL;
    fcproc_net *n = NULL;
    int r = fcproc_netns_new(&ns, NULL);

    if (r == 0)
        r = fcproc_net_open(ns, &n, NULL);
    fcproc_net_close(n);
    fcproc_netns_close(ns);
    return r;
}

static int call_bridge(void)
{
    struct fcproc_bridge spec = { .struct_size = sizeof(spec), .name = "br0",
                                  .address = "10.1.0.1", .prefix = 24 };

    return fcproc_bridge_ensure(net, &spec, NULL, NULL, NULL);
}

static int call_tap(void)
{
    struct fcproc_tap spec = { .struct_size = sizeof(spec), .name = "tap0", .bridge = "br0",
                               .uid = -1, .gid = -1, .isolated = true };
    struct fcproc_tap_info info, *list = NULL;
    size_t n = 0;
    int r = fcproc_tap_create(net, &spec, NULL, &info, NULL);

    if (r == 0)
        r = fcproc_tap_list(net, "br0", NULL, &list, &n, NULL);
    free(list);
    return r;
}

static int call_delete(void)
{
    const char *const names[] = { "tap0", "tap9" };
    fcproc_op *op = NULL;
    int r = fcproc_taps_delete(net, names, 2, NULL, &op, NULL);

    return finish(r, op);
}

static int call_delete_bridge(void)
{
    fcproc_op *op = NULL;
    int r = fcproc_bridge_delete(net, "br9", NULL, &op, NULL);

    return finish(r, op);
}

static int call_request(void)
{
    fcproc_client *client = NULL;
    fcproc_op *op = NULL;
    int r = fcproc_client_new(sock, &client, NULL);

    if (r == 0)
        r = fcproc_request(client, "PUT", "/nothing", "{}", 2, 5000, NULL, &op, NULL);
    if (r == 0)
        r = finish(r, op);
    fcproc_client_close(client);
    return r;
}

static int walk(const char *name, int (*call)(void))
{
    int descriptors;

    for (int i = 0; i < 2; i++) /* caches fill */
        if (call() < 0) {
            (void)printf("%s: does not work\n", name);
            return 1;
        }
    (void)usleep(20000);
    descriptors = count_descriptors();
    for (long n = 0; n < MOST_FAILURES; n++) {
        int r, tries = 0;

        left = n;
        failures = 0;
        tracking = 1;
        r = call();
        left = -1;
        tracking = 0;
        while ((blocks_left() || count_descriptors() > descriptors || has_zombies()) &&
               tries++ < 200)
            (void)usleep(10000); /* a thread of ours may still be at it */
        if (blocks_left() || count_descriptors() > descriptors || has_zombies()) {
            (void)printf("%s: allocation %ld leaves %d blocks, %d descriptors, %d zombies\n", name,
                         n, blocks_left(), count_descriptors() - descriptors, has_zombies());
            return 1;
        }
        if (failures == 0) {
            (void)printf("%s: %ld failures walked\n", name, n);
            return r < 0;
        }
    }
    return 1;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*call)(void);
    } calls[] = {
        { "context", call_context },       { "path wait", call_path_wait },
        { "socket dir", call_socket_dir }, { "process", call_process },
        { "listener", call_listener },     { "match", call_match },
        { "spawn", call_spawn },           { "command", call_command },
        { "netns", call_netns },           { "bridge", call_bridge },
        { "tap", call_tap },               { "delete", call_delete },
        { "bridge delete", call_delete_bridge }, { "request", call_request },
    };
    int failed = 0;

    if (argc != 3 || fcproc_netns_new(&netns, NULL) < 0 || fcproc_net_open(netns, &net, NULL) < 0)
        return 2;
    folder = argv[1];
    sock = argv[2];
    (void)setvbuf(stdout, NULL, _IONBF, 0);
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        failed |= walk(calls[i].name, calls[i].call);
    fcproc_net_close(net);
    fcproc_netns_close(netns);
    (void)puts(failed ? "FAILED" : "ok");
    return failed;
}
#endif
