/* SPDX-License-Identifier: MIT
 *
 * Lets malloc fail in the core at the n-th call, for n = 0, 1, 2, ... until a call succeeds
 * without a failure; after each, no block, descriptor, child or half-made TAP may be left. Walked
 * twice: the n-th fails, or all from the n-th on; where the core has a thread do the work, twice
 * more with its allocations counted too.
 * oom-malloc FOLDER SOCKET SOCKET
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fcproc.h"

#if defined(__SANITIZE_ADDRESS__)
int main(void)
{
    (void)puts("the sanitizer has the allocator: nothing to interpose\nok");
    return 0;
}
#else

#include "interposer.h"

enum { MOST_FAILURES = 3000, OWN_TIMEOUT_MS = 20000 };

/* ---- the calls: 0 or an error code ---- */

static const char *folder, *sock, *second_sock;
static fcproc_netns *netns;
static fcproc_net *net;
static const char *const two_taps[] = { "tap0", "tap1" };

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

static int call_poll(void)
{
    int fds[100];

    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        fds[i] = fcproc_netns_fd(netns);
    return fcproc_poll(fds, NULL, sizeof(fds) / sizeof(fds[0]), 0, NULL) < 0 ? FCPROC_ERR_NOMEM : 0;
}

static int call_signal_wait(void)
{
    static const int one[] = { SIGUSR2 };
    fcproc_op *op = NULL;

    int r = fcproc_signal_wait(one, 1, 0, NULL, &op, NULL);

    r = finish(r, op);
    if (r != FCPROC_ERR_WAIT_TIMEOUT)
        return r;
    op = NULL;
    r = fcproc_reader_wait(fcproc_netns_fd(netns), 0, NULL, &op, NULL);
    r = finish(r, op);
    return r == FCPROC_ERR_WAIT_TIMEOUT ? 0 : r;
}

static int call_path_wait(void)
{
    fcproc_op *op = NULL;
    char path[4096];
    int r;

    (void)snprintf(path, sizeof(path), "%s/not/there", folder);
    r = fcproc_path_wait(path, false, 0, "x", 0, NULL, &op, NULL);
    r = finish(r, op);
    if (r != FCPROC_ERR_DEADLINE)
        return r;
    r = fcproc_path_wait(sock, true, OWN_TIMEOUT_MS, "x", 0, NULL, &op, NULL);
    return finish(r, op);
}

static int call_paths(void)
{
    char path[4096];
    int r;

    r = fcproc_find_executable("sh", path, sizeof(path), NULL);
    if (r == 0)
        r = fcproc_absolute_path(folder, path, NULL);
    if (r == 0)
        r = fcproc_socket_access(sock, -1, -1, NULL, NULL);
    (void)snprintf(path, sizeof(path), "%s/a/b", folder);
    if (r == 0)
        r = fcproc_socket_dir(path, NULL, NULL);
    (void)rmdir(path);
    *strrchr(path, '/') = '\0';
    (void)rmdir(path);
    return r;
}

/* Where the file system can't share blocks, as much of the way as there is. */
static int call_reflink(void)
{
    int r = fcproc_reflink_check(folder, NULL);

    return r == FCPROC_ERR_UNSUPPORTED ? 0 : r;
}

static bool failed_copy_left;

static int copy(const char *from, const char *to, enum fcproc_copy_method method)
{
    struct fcproc_copy spec = FCPROC_COPY_INIT;
    fcproc_op *op = NULL;
    int r;

    spec.from = from;
    spec.to = to;
    spec.method = method;
    spec.mode = 0600;
    r = fcproc_file_copy(&spec, NULL, &op, NULL);

    r = finish(r, op);
    if (r < 0 && access(to, F_OK) == 0)
        failed_copy_left = true;
    return r;
}

static int hash_and_sync(const char *path)
{
    struct fcproc_hash spec = FCPROC_HASH_INIT;
    fcproc_op *op = NULL;
    int r;

    spec.path = path;
    spec.blocks = true;
    r = fcproc_file_hash(&spec, NULL, &op, NULL);
    r = finish(r, op);
    op = NULL;
    if (r == 0) {
        r = fcproc_file_sync(path, NULL, &op, NULL);
        r = finish(r, op);
    }
    return r;
}

static const char elsewhere[] = "/dev/shm/fcproc-oom";

/* folder/tree and what is in it: the path is good until the next call but seven. */
static const char *in_tree(const char *name)
{
    static char paths[8][4096];
    static unsigned next;
    char *path = paths[next++ % 8];

    (void)snprintf(path, sizeof(paths[0]), "%s/tree%s", folder, name);
    return path;
}

/* A tree with a file in it, and what can be done to them. */
static int call_files(void)
{
    struct fcproc_dir_entry *list = NULL;
    char *data = NULL;
    size_t n;
    int64_t removed;
    bool made;
    int r = fcproc_dir_make(in_tree(""), 0700, &made, NULL);

    if (r == 0)
        r = fcproc_dir_make(in_tree("/sub"), 0700, &made, NULL);
    if (r == 0)
        r = fcproc_file_write(in_tree("/sub/file"), "data", 4, 0600, -1, -1, NULL, NULL);
    if (r == 0)
        r = fcproc_file_read(in_tree("/sub/file"), NULL, 0, -1, &data, &n, NULL);
    free(data);
    if (r == 0)
        r = fcproc_dir_list(in_tree("/sub"), &list, &n, NULL);
    free(list);
    if (r == 0)
        r = hash_and_sync(in_tree("/sub/file"));
    if (r == 0)
        r = copy(in_tree("/sub/file"), in_tree("/sub/copy"), FCPROC_COPY_SPARSE);
    if (r == 0)
        r = copy(in_tree("/sub/file"), elsewhere, FCPROC_COPY_REFLINK); /* by a buffer */
    return r < 0 ? r : fcproc_tree_remove(in_tree(""), &removed, NULL);
}

static int after_files(int r)
{
    int64_t removed;

    (void)r;
    (void)unlink(elsewhere);
    r = fcproc_tree_remove(in_tree(""), &removed, NULL);
    return failed_copy_left ? FCPROC_ERR_SYSTEM : r;
}

static int call_lock(void)
{
    fcproc_lock *lock = NULL;
    char path[4096];
    bool created;
    int r;

    (void)snprintf(path, sizeof(path), "%s/lock", folder);
    r = fcproc_lock_open(path, 0600, &lock, &created, NULL);
    return r < 0 ? r : fcproc_lock_remove(lock, NULL);
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
    p = NULL;
    if (r == 0)
        r = fcproc_process_open_listener(sock, FCPROC_WITHOUT_PEERPIDFD, &p, NULL);
    fcproc_process_close(p);
    if (r == 0)
        r = fcproc_listener_pid(sock, 0, &pid, NULL);
    return r;
}

static int call_match(void)
{
    fcproc_process *p = NULL;
    int r = fcproc_process_open_listener(sock, 0, &p, NULL);

    if (r == 0)
        r = fcproc_process_matches(p, "/bin/sh", sock, NULL, NULL);
    fcproc_process_close(p);
    p = NULL;
    if (r >= 0) {
        r = fcproc_process_open_api_sock("/bin/sh", sock, &p, NULL);
        r = r == FCPROC_ERR_NOT_FOUND ? 0 : r;
    }
    return r;
}

static int call_spawn(void)
{
    const char *const argv[] = { "true", NULL };
    const struct fcproc_fd_map map = { .from = fcproc_netns_fd(netns), .to = 5 };
    struct fcproc_spawn spec = FCPROC_SPAWN_INIT;
    fcproc_process *p = NULL;
    fcproc_op *op = NULL;
    int r;

    spec.argv = argv;
    spec.fds = &map;
    spec.n_fds = 1;
    spec.netns = netns;
    r = fcproc_spawn(&spec, &p, NULL);
    if (r < 0)
        return r;
    r = fcproc_process_wait(p, OWN_TIMEOUT_MS, 0, NULL, &op, NULL);
    r = finish(r, op);
    if (r < 0) { /* a close reaps what has ended */
        int fd = fcproc_process_pidfd(p);

        (void)!fcproc_poll(&fd, NULL, 1, OWN_TIMEOUT_MS, NULL);
    }
    fcproc_process_close(p);
    return r;
}

static int call_command(void)
{
    const char *const argv[] = { "sh", "-c", "cat; seq 1000 2000; seq 1000 2000 >&2", NULL };
    struct fcproc_command spec = { .struct_size = sizeof(spec),
                                   .spawn = FCPROC_SPAWN_INIT,
                                   .input = "hello",
                                   .input_len = 5,
                                   .output_limit = 100000,
                                   .timeout_ms = OWN_TIMEOUT_MS };
    fcproc_op *op = NULL;
    int r;

    spec.spawn.argv = argv;
    r = fcproc_command_run(&spec, NULL, &op, NULL);
    return finish(r, op);
}

/* With a process in it, which is killed without cgroup.kill, too. */
static int call_cgroup(void)
{
    const char *const argv[] = { "/bin/sleep", "60", NULL };
    const char *point = access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0 ? "/sys/fs/cgroup"
                                                                         : "/sys/fs/cgroup/unified";
    struct fcproc_spawn spec = FCPROC_SPAWN_INIT;
    fcproc_process *p = NULL;
    fcproc_op *op = NULL;
    char path[128];
    bool holds;
    int r;

    (void)snprintf(path, sizeof(path), "%s/fcproc-oom-%d", point, getpid());
    (void)mkdir(path, 0755);
    spec.argv = argv;
    spec.cgroup = path;
    r = fcproc_spawn(&spec, &p, NULL);
    if (r == 0)
        r = fcproc_cgroup_holds(path, fcproc_process_pid(p), &holds, NULL);
    if (r == 0)
        r = fcproc_cgroup_remove(path, OWN_TIMEOUT_MS, FCPROC_WITHOUT_CGROUP_KILL, NULL, &op, NULL);
    r = finish(r, op);
    if (p && r < 0)
        (void)!fcproc_process_signal(p, SIGKILL, NULL);
    if (p) {
        int fd = fcproc_process_pidfd(p);

        (void)!fcproc_poll(&fd, NULL, 1, OWN_TIMEOUT_MS, NULL);
    }
    fcproc_process_close(p);
    return r;
}

static int after_cgroup(int r)
{
    char path[128];

    (void)r;
    for (int i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof(path), "/sys/fs/cgroup%s/fcproc-oom-%d", i ? "/unified" : "",
                       getpid());
        for (int tries = 0; rmdir(path) < 0 && errno == EBUSY && tries < 1000; tries++)
            (void)!fcproc_poll(NULL, NULL, 0, 1, NULL);
    }
    return 0;
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
    ns = NULL;
    if (r == 0)
        r = fcproc_netns_open("/proc/self/ns/net", &ns, NULL);
    fcproc_netns_close(ns);
    return r;
}

static int ensure(const char *name, const char *address)
{
    struct fcproc_bridge spec = {
        .struct_size = sizeof(spec), .name = name, .address = address, .prefix = 24
    };

    return fcproc_bridge_ensure(net, &spec, NULL, NULL, NULL);
}

static int delete_bridge(const char *name)
{
    fcproc_op *op = NULL;
    int r = fcproc_bridge_delete(net, name, NULL, &op, NULL);

    return finish(r, op);
}

static int create(const char *name)
{
    struct fcproc_tap spec = { .struct_size = sizeof(spec),
                               .name = name,
                               .bridge = "br0",
                               .uid = -1,
                               .gid = -1,
                               .isolated = true };
    struct fcproc_tap_info info;

    return fcproc_tap_create(net, &spec, NULL, &info, NULL);
}

static int delete_taps(void)
{
    fcproc_op *op = NULL;
    int r = fcproc_taps_delete(net, two_taps, 2, NULL, &op, NULL);

    return finish(r, op);
}

static int count_taps(void)
{
    struct fcproc_tap_info *list = NULL;
    size_t n = 0;
    int r = fcproc_tap_list(net, "br0", NULL, &list, &n, NULL);

    free(list);
    return r < 0 ? r : (int)n;
}

/* What a failed ensure has left is what the next one starts from. */
static int call_new_bridge(void)
{
    return ensure("br1", "10.1.1.1");
}

static int after_new_bridge(int r)
{
    (void)r;
    r = ensure("br1", "10.1.1.1");
    return r < 0 ? r : delete_bridge("br1");
}

static int call_old_bridge(void)
{
    return ensure("br0", "10.1.0.1");
}

static int call_new_tap(void)
{
    return create("tap0");
}

static int after_new_tap(int r)
{
    int n = count_taps();

    if (n != (r == 0))
        return FCPROC_ERR_CONFLICT;
    return delete_taps();
}

static int before_old_tap(void)
{
    return create("tap0");
}

static int call_old_tap(void)
{
    int r = create("tap0");

    if (r == 0)
        r = count_taps();
    return r < 0 ? r : 0;
}

static int after_old_tap(int r)
{
    (void)r;
    return delete_taps();
}

static int before_delete(void)
{
    int r = create("tap0");

    return r < 0 ? r : create("tap1");
}

/* None may still be held by the attempt that failed: a second one must succeed. */
static int after_delete(int r)
{
    if (r == 0 && count_taps() != 0)
        return FCPROC_ERR_CONFLICT;
    r = delete_taps();
    return r < 0 ? r : -count_taps();
}

static int before_delete_bridge(void)
{
    return ensure("br2", NULL);
}

static int call_delete_bridge(void)
{
    return delete_bridge("br2");
}

static int after_delete_bridge(int r)
{
    (void)r;
    return delete_bridge("br2");
}

static int request(fcproc_client *client)
{
    fcproc_op *op = NULL;
    int r = fcproc_request(client, "PUT", "/nothing", "{}", 2, OWN_TIMEOUT_MS, NULL, &op, NULL);

    return finish(r, op);
}

static int call_request(void)
{
    fcproc_client *client = NULL;
    fcproc_process *server = NULL;
    int r = fcproc_client_new(sock, &client, NULL);

    if (r == 0)
        r = request(client);
    if (r == 0)
        r = fcproc_process_open_listener(sock, 0, &server, NULL);
    if (r == 0) {
        fcproc_client_expect(client, server);
        r = request(client); /* over the kept connection */
    }
    fcproc_process_close(server);
    disarm();
    if (client && request(client) < 0)
        r = FCPROC_ERR_CLOSED; /* a failed one must not spoil the client */
    fcproc_client_close(client);
    return r;
}

static int call_request_all(void)
{
    const char *paths[] = { sock, second_sock, "/none/x.sock" };
    struct fcproc_response response;
    fcproc_op *op = NULL;
    int r = fcproc_request_all(paths, NULL, sizeof(paths) / sizeof(paths[0]), "GET", "/version",
                               NULL, 0, OWN_TIMEOUT_MS, NULL, &op, NULL);

    if (r == 0)
        r = fcproc_op_wait(op, NULL);
    for (size_t i = 0; r == 0 && i < 2; i++)
        r = fcproc_request_all_result(op, i, &response, NULL);
    fcproc_op_close(op);
    return r;
}

/* So that a server that has been asked is about to answer when memory ends. */
static int before_requests(void)
{
    failing_us = 1;
    return 0;
}

/* A Firecracker whose answer found no connection would have died of it. */
static int after_requests(int r)
{
    const char *paths[] = { sock, second_sock };

    (void)r;
    r = 0;
    failing_us = 0;
    for (size_t i = 0; r == 0 && i < 2; i++) {
        fcproc_client *client = NULL;

        r = fcproc_client_new(paths[i], &client, NULL);
        if (r == 0)
            r = request(client);
        fcproc_client_close(client);
    }
    return r;
}

/* ---- the walk ---- */

struct call {
    const char *name;
    int (*before)(void);
    int (*call)(void);
    int (*after)(int r);
    bool threaded;
};

static bool something_left(int descriptors)
{
    return blocks_left() || count_descriptors() > descriptors || has_children();
}

/* One attempt with the n-th allocation failing; -1: wrong; else how many failed. */
static int attempt(const struct call *c, long n, int descriptors)
{
    int tries = 0, failed, r;

    if (c->before && c->before() < 0)
        return -1;
    wait_until_alone();
    atomic_store(&failures, 0);
    atomic_store(&tracking, true);
    atomic_store(&left, n);
    r = c->call();
    disarm();
    atomic_store(&tracking, false);
    failed = atomic_load(&failures);
    while (something_left(descriptors) && tries++ < 3000) /* a thread of ours may still be at it: */
        (void)usleep(tries < 10 ? 1000 : 10000);          /* a busy disk is synced in seconds */
    if (something_left(descriptors)) {
        (void)printf("%s: failure at %ld leaves %d blocks, %d descriptors, %s\n", c->name, n,
                     blocks_left(), count_descriptors() - descriptors,
                     has_children() ? "a child" : "no child");
        for (int i = 0; i < MOST_BLOCKS; i++)
            atomic_store(&blocks[i], NULL);
        return -1;
    }
    /* A time-out would mean that the failure was swallowed and the wait lasted for ever. */
    if (r == FCPROC_ERR_CLOSED || r == FCPROC_ERR_WAIT_TIMEOUT || r == FCPROC_ERR_DEADLINE ||
        (r < 0 && failed == 0)) {
        (void)printf("%s: failure at %ld ends as %s\n", c->name, n, fcproc_code_name(r));
        return -1;
    }
    if (c->after && (r = c->after(r)) < 0) {
        (void)printf("%s: failure at %ld has a sequel: %s\n", c->name, n, fcproc_code_name(r));
        return -1;
    }
    return failed;
}

static int walk(const struct call *c)
{
    double started = fcproc_now();
    int descriptors;
    long n;

    for (int i = 0; i < 3; i++) /* in peace: caches fill */
        if ((c->before && c->before() < 0) || c->call() < 0 || (c->after && c->after(0) < 0)) {
            (void)printf("%s: does not work\n", c->name);
            return 1;
        }
    (void)usleep(20000);
    descriptors = count_descriptors();
    for (n = 0; n < MOST_FAILURES; n++) {
        int failed = attempt(c, n, descriptors);

        if (failed < 0)
            return 1;
        if (failed == 0)
            break;
    }
    (void)printf("%s, %s, %s: %ld failures walked in %.0f ms\n", c->name,
                 all_threads ? "all threads" : "this thread", all_later ? "all later" : "one", n,
                 (fcproc_now() - started) * 1e3);
    return n == MOST_FAILURES;
}

static void *meet(void *barrier)
{
    (void)pthread_barrier_wait(barrier);
    return NULL;
}

/* glibc keeps ended threads' stacks, and with each a block of memory: there shall be enough of them
 * before blocks are counted. */
static void fill_stack_cache(void)
{
    enum { THREADS = 4 };
    pthread_barrier_t barrier;
    pthread_t threads[THREADS];
    int started = 0;

    (void)pthread_barrier_init(&barrier, NULL, THREADS);
    while (started < THREADS && pthread_create(&threads[started], NULL, meet, &barrier) == 0)
        started++;
    for (int i = 0; started == THREADS && i < started; i++)
        (void)pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    static const struct call calls[] = {
        { "context", NULL, call_context, NULL, false },
        { "poll", NULL, call_poll, NULL, false },
        { "signal", NULL, call_signal_wait, NULL, false },
        { "path wait", NULL, call_path_wait, NULL, false },
        { "paths", NULL, call_paths, NULL, false },
        { "reflink", NULL, call_reflink, NULL, false },
        { "files", NULL, call_files, after_files, false },
        { "lock", NULL, call_lock, NULL, false },
        { "process", NULL, call_process, NULL, false },
        { "listener", NULL, call_listener, NULL, false },
        { "match", NULL, call_match, NULL, false },
        { "spawn", NULL, call_spawn, NULL, false },
        { "command", NULL, call_command, NULL, false },
        { "cgroup", NULL, call_cgroup, after_cgroup, false },
        { "netns", NULL, call_netns, NULL, true },
        { "new bridge", NULL, call_new_bridge, after_new_bridge, false },
        { "old bridge", NULL, call_old_bridge, NULL, false },
        { "new TAP", NULL, call_new_tap, after_new_tap, false },
        { "old TAP", before_old_tap, call_old_tap, after_old_tap, false },
        { "TAPs deleted", before_delete, delete_taps, after_delete, true },
        { "bridge deleted", before_delete_bridge, call_delete_bridge, after_delete_bridge, true },
        { "request", before_requests, call_request, after_requests, false },
        { "request_all", before_requests, call_request_all, after_requests, false },
    };
    int failed = 0;

    fill_stack_cache();
    (void)setvbuf(stdout, NULL, _IONBF, 0);
    if (argc != 4 || fcproc_netns_new(&netns, NULL) < 0 || fcproc_net_open(netns, &net, NULL) < 0 ||
        ensure("br0", "10.1.0.1") < 0)
        return 2;
    folder = argv[1];
    sock = argv[2];
    second_sock = argv[3];
    armed_thread = pthread_self();
    for (int mode = 0; mode < 4; mode++) {
        all_later = mode & 1;
        all_threads = mode & 2;
        for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
            if (!all_threads || calls[i].threaded)
                failed |= walk(&calls[i]);
    }
    fcproc_net_close(net);
    fcproc_netns_close(netns);
    (void)puts(failed ? "FAILED" : "ok");
    return failed;
}
#endif
