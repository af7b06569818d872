/* SPDX-License-Identifier: MIT
 *
 * What a C program may leave out: NULL in the places that the header names, and nothing else; and that
 * the struct_size of every struct is read. struct-test FOLDER, as root. Prints what is wrong, or "ok".
 */
#include <fcproc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int failures;

#define CHECK(condition)                                                     \
    do {                                                                     \
        if (!(condition)) {                                                  \
            printf("%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            failures++;                                                      \
        }                                                                    \
    } while (0)

static fcproc_error err = FCPROC_ERROR_INIT;

static int says(int code, int r, const char *text)
{
    if (r == code && strstr(err.message, text))
        return 1;
    printf("%s: %s\n", fcproc_code_name(r), err.message);
    return 0;
}

static void closes_nothing(void)
{
    fcproc_op_close(NULL);
    fcproc_ctx_unref(NULL);
    fcproc_ctx_cancel(NULL);
    CHECK(fcproc_ctx_ref(NULL) == NULL);
    CHECK(fcproc_ctx_status(NULL, NULL) == 0);
    CHECK(fcproc_ctx_remaining_ms(NULL) == -1);
    fcproc_process_close(NULL);
    fcproc_netns_close(NULL);
    fcproc_net_close(NULL);
    fcproc_client_close(NULL);
    fcproc_lock_close(NULL);
    fcproc_capper_close(NULL);
}

/* A failure of each kind: with an errno, with text of ours, and in an operation. */
static void tells_nobody(const char *folder)
{
    fcproc_op *op = NULL;
    fcproc_process *p = NULL;
    struct fcproc_file_info info;

    CHECK(fcproc_process_open(0, &p, NULL) == FCPROC_ERR_INVALID);
    CHECK(fcproc_file_stat("/no/such/file", false, &info, NULL) == FCPROC_ERR_NOT_FOUND);
    CHECK(fcproc_path_wait(folder, true, 0, NULL, 0, NULL, &op, NULL) == 0);
    CHECK(op && fcproc_op_wait(op, NULL) < 0);
    fcproc_op_close(op);
}

static void leaves_out_what_is_more(const char *folder)
{
    char path[4096];
    fcproc_lock *lock = NULL;

    (void)snprintf(path, sizeof(path), "%s/more", folder);
    CHECK(fcproc_dir_make(path, 0700, NULL, &err) == 0);
    CHECK(fcproc_dir_make(path, 0700, NULL, &err) == 0);
    CHECK(fcproc_socket_dir(path, NULL, &err) == 0);
    CHECK(fcproc_tree_remove(path, NULL, &err) == 0);
    CHECK(fcproc_tree_remove(path, NULL, &err) == 0);
    CHECK(fcproc_file_create(path, "x", 1, 0600, -1, -1, NULL, NULL, &err) == 0);
    CHECK(fcproc_file_create(path, "x", 1, 0600, -1, -1, NULL, NULL, &err) == 0);
    CHECK(fcproc_file_write(path, "x", 1, 0600, -1, -1, NULL, &err) == 0);
    CHECK(fcproc_file_punch(path, NULL, 0, NULL, &err) == 0);
    CHECK(fcproc_file_seal(path, NULL, -1, -1, 0600, NULL, &err) == 0);
    CHECK(fcproc_lock_open(path, 0600, &lock, NULL, &err) == 0);
    fcproc_lock_close(lock);
    CHECK(fcproc_file_remove(path, NULL, &err) == 0);
    CHECK(fcproc_file_remove(path, NULL, &err) == 0);
}

/* Each call with its struct missing, of size 0, one byte short, and of a later header. */
#define STRUCT_TEST(type, init, call)                                              \
    do {                                                                           \
        struct {                                                                   \
            struct type known;                                                     \
            char later[16];                                                        \
        } room = { .known = init };                                                \
        const struct type *spec = NULL;                                            \
        CHECK(says(FCPROC_ERR_INVALID, call, "no struct " #type));                 \
        spec = &room.known;                                                        \
        room.known.struct_size = 0;                                                \
        CHECK(says(FCPROC_ERR_INVALID, call, "struct_size of the struct " #type)); \
        room.known.struct_size = sizeof(struct type) - 1;                          \
        CHECK(says(FCPROC_ERR_INVALID, call, "by its _INIT"));                     \
        room.known.struct_size = sizeof(room);                                     \
        room.later[15] = 1;                                                        \
        CHECK(says(FCPROC_ERR_UNSUPPORTED, call, "does not know"));                \
        room.later[15] = 0; /* nothing of it is used; what is needed is missing */ \
        CHECK(says(FCPROC_ERR_INVALID, call, needed));                             \
        room.known.struct_size = sizeof(struct type);                              \
        CHECK(says(FCPROC_ERR_INVALID, call, needed));                             \
    } while (0)

static void reads_each_size(void)
{
    fcproc_netns *ns = NULL;
    fcproc_net *net = NULL;
    fcproc_process *p = NULL;
    fcproc_op *op = NULL;
    struct fcproc_command command = FCPROC_COMMAND_INIT;
    const char *const argv[] = { "true", NULL };
    const char *needed = "argument list";

    CHECK(fcproc_netns_new(&ns, &err) == 0 && fcproc_net_open(ns, &net, &err) == 0);
    STRUCT_TEST(fcproc_spawn, FCPROC_SPAWN_INIT, fcproc_spawn(spec, &p, &err));
    STRUCT_TEST(fcproc_command, FCPROC_COMMAND_INIT, fcproc_command_run(spec, NULL, &op, &err));
    needed = "no file to copy";
    STRUCT_TEST(fcproc_copy, FCPROC_COPY_INIT, fcproc_file_copy(spec, NULL, &op, &err));
    needed = "no file to hash";
    STRUCT_TEST(fcproc_hash, FCPROC_HASH_INIT, fcproc_file_hash(spec, NULL, &op, &err));
    needed = "no name of a bridge";
    STRUCT_TEST(fcproc_bridge, FCPROC_BRIDGE_INIT,
                fcproc_bridge_ensure(net, spec, NULL, NULL, &err));
    needed = "no name of a TAP";
    STRUCT_TEST(fcproc_tap, FCPROC_TAP_INIT, fcproc_tap_create(net, spec, NULL, NULL, &err));
    command.spawn.argv = argv;
    command.spawn.struct_size = 0;
    CHECK(says(FCPROC_ERR_INVALID, fcproc_command_run(&command, NULL, &op, &err),
               "of the struct fcproc_spawn"));
    command.spawn.struct_size = sizeof(command.spawn);
    CHECK(fcproc_command_run(&command, NULL, &op, &err) == 0 && fcproc_op_wait(op, &err) == 0);
    CHECK(op && fcproc_command_result(op, NULL, NULL).value == 0);
    fcproc_op_close(op);
    fcproc_net_close(net);
    fcproc_netns_close(ns);
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    CHECK(bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 8) == 0);
    return fd;
}

/* A request that is meant for another process than the one that listens, which is this one. */
static int ask_another(fcproc_client *client, fcproc_error *small)
{
    fcproc_op *op = NULL;
    int r = fcproc_request(client, "GET", "/", NULL, 0, 5000, NULL, &op, small);

    if (r == 0)
        r = fcproc_op_wait(op, small);
    fcproc_op_close(op);
    return r;
}

/* An error of a size: no byte after it is touched, and none of one without a size. */
static void fills_as_much_as_there_is(const char *folder)
{
    const size_t before = offsetof(fcproc_error, message),
                 sizes[] = { 0, 8, before, before + 8, before + 40 };
    fcproc_process *p = NULL, *parent = NULL;
    fcproc_client *client = NULL;
    char path[64];
    int listener;

    (void)snprintf(path, sizeof(path), "%.50s/socket", folder);
    listener = listen_at(path);
    CHECK(fcproc_process_open(getppid(), &parent, &err) == 0 &&
          fcproc_client_new(path, &client, &err) == 0);
    fcproc_client_expect(client, parent);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        fcproc_error small;
        size_t from = sizes[i] > before ? sizes[i] : sizeof(small.struct_size);

        memset(&small, 0x5a, sizeof(small));
        small.struct_size = sizes[i];
        CHECK(ask_another(client, &small) == FCPROC_ERR_NOT_SAME_PROCESS);
        CHECK(sizes[i] <= before || small.pid == getpid());
        CHECK(fcproc_process_open(-7, &p, &small) == FCPROC_ERR_INVALID);
        CHECK(fcproc_process_open(1 << 29, &p, &small) == FCPROC_ERR_NOT_FOUND);
        for (size_t at = from; at < sizeof(small); at++)
            CHECK(((const char *)&small)[at] == 0x5a);
        if (sizes[i] > before)
            CHECK(small.code == FCPROC_ERR_NOT_FOUND && small.pid == 1 << 29 &&
                  strncmp(small.message, "can't o", 7) == 0);
    }
    fcproc_client_close(client);
    fcproc_process_close(parent);
    (void)close(listener);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    closes_nothing();
    tells_nobody(argv[1]);
    leaves_out_what_is_more(argv[1]);
    reads_each_size();
    fills_as_much_as_there_is(argv[1]);
    if (failures == 0)
        puts("ok");
    return failures != 0;
}
