/* SPDX-License-Identifier: MIT
 *
 * HTTP over a unix socket with libcurl's multi interface. The socket file is opened here, never
 * through a link, and reached by its own descriptor (/proc/self/fd/N): any depth of path works, and
 * what was looked at is what is connected to. Each client has a multi handle of its own, and a new one
 * with each socket file, so that no kept connection is ever taken for one to another socket for which
 * a reused N makes the same path.
 */
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "curl.h"

enum {
    MOST_HEADER_BYTES = 64 * 1024,
    MOST_BODY_BYTES = 8 * 1024 * 1024,
    RETRY_FIRST_MS = 1,
    RETRY_MOST_MS = 50,
    YOUNG_SOCKET_S = 2, /* bind comes before listen: 45 of 60 connects in between were refused */
};

struct fcproc_client {
    pid_t pid;           /* a fork of it must not ask on the same connection */
    unsigned references; /* the caller's and a running request's */
    struct split_path at;
    char *path;
    int socket_fd; /* O_PATH: what libcurl connects to */
    struct stat socket;
    CURLM *multi;             /* NULL: with the next request */
    int connection_fd;        /* libcurl's; -EBADF: none is open */
    fcproc_process *expected; /* the only one that may be asked; NULL: whoever listens */
    CURL *easy; /* the running request's: curl_easy_reset would hide that memory ran out in it */
    struct request_op *current;
    bool answered; /* some request: the server listens, or is gone */
};

struct request_op {
    fcproc_op op;
    fcproc_client *client;
    struct curl_slist *headers;
    int fd;      /* the connection's while the answer is awaited; libcurl's */
    char *title; /* "PUT /actions" */
    char *body;
    size_t body_len, body_size, header_bytes;
    bool too_large, no_memory, added;
    bool interim, headers_ended; /* "100 Continue" and its like are no answer yet */
    bool refused;                /* the connection leads to another process than the expected one */
    pid_t peer;                  /* to this one */
    int open_errno;              /* socket(2)'s, of which libcurl tells nothing */
    int connect_errno;
    int64_t delay_ms; /* of the retry under way; 0: none */
    bool retrying;
    int status;
    bool finished;
    CURLcode result;
    char curl_text[CURL_ERROR_SIZE];
};

static const char op_name[] = "api.request";

/* ---- libcurl's callbacks ---- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *fd_user)
{
    struct request_op *w = ((fcproc_client *)user)->current;

    (void)easy;
    (void)fd_user;
    if (!w)
        return 0;
    w->fd = what == CURL_POLL_REMOVE ? -EBADF : fd;
    if (what == CURL_POLL_REMOVE) {
        op_unwatch(&w->op, fd);
        return 0;
    }
    return op_watch(&w->op, fd,
                    (what & CURL_POLL_IN ? EPOLLIN : 0U) | (what & CURL_POLL_OUT ? EPOLLOUT : 0U),
                    (uint64_t)fd, NULL) < 0
               ? -1
               : 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *user)
{
    struct request_op *w = ((fcproc_client *)user)->current;

    (void)multi;
    if (w)
        w->op.timer_ns = deadline_after_ms(timeout_ms);
    return 0;
}

/* libcurl's own would not be close-on-exec. (Handing it a connected socket, with
 * CURL_SOCKOPT_ALREADY_CONNECTED, fails in 7.88, which is Debian 12's.) */
static curl_socket_t on_open(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    fcproc_client *c = user;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    address->protocol);

    (void)purpose;
    if (fd < 0)
        c->current->open_errno = errno;
    c->connection_fd = fd;
    return fd;
}

static int on_close(void *user, curl_socket_t fd)
{
    fcproc_client *c = user;

    if (c->connection_fd == fd)
        c->connection_fd = -EBADF;
    return close(fd);
}

/* The connection stands, new or kept, and nothing has been sent on it. The peer's number was taken
 * when it listened: as the expected process has that number and is alive, it is the one. */
static int on_connected(void *user, char *peer_ip, char *own_ip, int peer_port, int own_port)
{
    struct request_op *w = user;
    const fcproc_process *expected = w->client->expected;

    (void)peer_ip;
    (void)own_ip;
    (void)peer_port;
    (void)own_port;
    w->refused = unix_peer_pid(w->client->connection_fd, &w->peer) < 0 ||
                 w->peer != fcproc_process_pid(expected) || !fcproc_process_alive(expected);
    return w->refused ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static size_t on_header(char *data, size_t size, size_t n, void *user)
{
    struct request_op *w = user;
    size_t len = size * n;

    if (len > 5 && memcmp(data, "HTTP/", 5) == 0) {
        const char *space = memchr(data, ' ', len - 1);

        w->interim = space && space[1] == '1';
    }
    if (data[0] == '\r' || data[0] == '\n')
        w->headers_ended = !w->interim;
    w->header_bytes += len;
    w->too_large = w->header_bytes > MOST_HEADER_BYTES;
    return w->too_large ? 0 : len;
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    struct request_op *w = user;
    size_t len = size * n;

    if (w->body_len + len > MOST_BODY_BYTES) {
        w->too_large = true;
        return 0;
    }
    if (w->body_len + len > w->body_size) {
        size_t bigger_size = w->body_size ? w->body_size : 1024;
        char *bigger;

        while (bigger_size < w->body_len + len)
            bigger_size *= 2;
        bigger = realloc(w->body, bigger_size);
        if (!bigger) {
            w->no_memory = true;
            return 0;
        }
        w->body = bigger;
        w->body_size = bigger_size;
    }
    memcpy(w->body + w->body_len, data, len);
    w->body_len += len;
    return len;
}

/* ---- the client ---- */

static int client_multi(fcproc_client *c, fcproc_error *err)
{
    CURLM *multi;

    if (c->multi)
        return 0;
    multi = curl()->multi_init();
    if (!multi || curl()->multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket) != CURLM_OK ||
        curl()->multi_setopt(multi, CURLMOPT_SOCKETDATA, c) != CURLM_OK ||
        curl()->multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer) != CURLM_OK ||
        curl()->multi_setopt(multi, CURLMOPT_TIMERDATA, c) != CURLM_OK ||
        curl()->multi_setopt(multi, CURLMOPT_MAXCONNECTS, 1L) != CURLM_OK) {
        (void)curl()->multi_cleanup(multi);
        return error_nomem(err, op_name);
    }
    c->multi = multi;
    return 0;
}

/* Its connection and its socket, while no request is under way. */
static void client_forget(fcproc_client *c)
{
    if (c->multi)
        (void)curl()->multi_cleanup(c->multi);
    c->multi = NULL;
    close_fd(&c->socket_fd);
}

static int reach_error(const fcproc_client *c, const char *title, int sys_errno, fcproc_error *err)
{
    switch (sys_errno) {
    case ECONNREFUSED:
    case ENOENT:
        return error_errno(err, op_name, sys_errno, "%s: nothing listens on %s (is the VM gone?)",
                           title, c->path);
    case ENOTSOCK:
        return error_set(err, FCPROC_ERR_NOT_FOUND, op_name, ENOTSOCK,
                         "%s: nothing listens on %s: it is no socket", title, c->path);
    case ELOOP:
        return error_set(err, FCPROC_ERR_CONFLICT, op_name, ELOOP, "%s: " UNIX_IS_LINK, title,
                         c->path);
    default:
        return error_errno(err, op_name, sys_errno, "%s: can't connect to %s", title, c->path);
    }
}

/* Opens the socket that is at the path now, unless it is the one that is open. One that was removed
 * still leads to its server: its name is only how it was found. 0 or -errno. */
static int client_reach(fcproc_client *c)
{
    struct stat st;
    int fd;

    if (fstatat(c->at.dir_fd, c->at.base, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT && c->socket_fd >= 0 ? 0 : -errno;
    if (c->socket_fd >= 0 && st.st_dev == c->socket.st_dev && st.st_ino == c->socket.st_ino)
        return 0;
    fd = unix_open_at(c->at.dir_fd, c->at.base, &st);
    if (fd < 0)
        return fd;
    client_forget(c);
    c->socket_fd = fd;
    c->socket = st;
    return 0;
}

FCPROC_API int fcproc_client_new(const char *path, fcproc_client **ret, fcproc_error *err)
{
    fcproc_client *c;
    int r = curl_load(err);

    if (r < 0)
        return r;
    c = calloc(1, sizeof(*c));
    if (!c)
        return error_nomem(err, op_name);
    c->pid = getpid();
    c->references = 1;
    c->at.dir_fd = c->socket_fd = c->connection_fd = -EBADF;
    c->path = strdup(path);
    r = c->path ? path_split(c->path, &c->at) : -ENOMEM;
    if (r < 0) {
        fcproc_client_close(c);
        return error_errno(err, op_name, -r, "can't open the folder of the socket %s", path);
    }
    *ret = c;
    return 0;
}

FCPROC_API void fcproc_client_expect(fcproc_client *c, fcproc_process *process)
{
    fcproc_process *before = c->expected;

    c->expected = process ? process_ref(process) : NULL;
    fcproc_process_close(before);
}

FCPROC_API void fcproc_client_close(fcproc_client *c)
{
    if (!c || --c->references > 0)
        return;
    client_forget(c);
    fcproc_process_close(c->expected);
    close_fd(&c->at.dir_fd);
    free(c->path);
    free(c);
}

/* ---- the request ---- */

/* Refused because the server is just between bind and listen, or busy: worth another try. One that
 * has answered before listens, or is gone, as is the expected one that has ended. */
static bool worth_retrying(const struct request_op *w)
{
    struct stat st;
    struct timespec now;

    if (w->connect_errno == EAGAIN)
        return true;
    if (w->connect_errno != ECONNREFUSED || w->client->answered ||
        (w->client->expected && !fcproc_process_alive(w->client->expected)) ||
        fstat(w->client->socket_fd, &st) < 0)
        return false;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec - st.st_mtim.tv_sec < YOUNG_SOCKET_S;
}

static int refusal(const struct request_op *w, fcproc_error *err)
{
    const fcproc_process *expected = w->client->expected;
    int pid = fcproc_process_pid(expected);
    bool dead = !fcproc_process_alive(expected);
    int r;

    if (dead)
        r = error_set(err, FCPROC_ERR_NOT_FOUND, op_name, ESRCH,
                      "%s: pid %d, which was to answer on %s, has ended; nothing was sent",
                      w->title, pid, w->client->path);
    else if (w->peer > 0)
        r = error_set(
            err, FCPROC_ERR_NOT_SAME_PROCESS, op_name, 0,
            "%s: pid %d listens on %s, not pid %d, whom it is meant for; nothing was sent "
            "(was the socket replaced?)",
            w->title, w->peer, w->client->path, pid);
    else
        r = error_set(err, FCPROC_ERR_NOT_SAME_PROCESS, op_name, 0,
                      "%s: a process that can't be seen from here (of another PID namespace) "
                      "listens on %s, not pid %d, whom it is meant for; nothing was sent",
                      w->title, w->client->path, pid);
    return error_about(err, dead ? pid : w->peer, r);
}

static int request_failure(const struct request_op *w, fcproc_error *err)
{
    const char *path = w->client->path;

    if (w->connect_errno)
        return reach_error(w->client, w->title, w->connect_errno, err);
    if (w->refused)
        return refusal(w, err);
    if (w->too_large)
        return error_set(err, FCPROC_ERR_PROTOCOL, op_name, 0,
                         "%s: the answer from %s is too large (over %d KiB of headers or %d MiB "
                         "of body)",
                         w->title, path, MOST_HEADER_BYTES / 1024, MOST_BODY_BYTES / 1024 / 1024);
    if (w->result == CURLE_OUT_OF_MEMORY || w->no_memory)
        return error_nomem(err, op_name);
    return error_set(err, FCPROC_ERR_PROTOCOL, op_name, 0, "%s: no usable answer from %s: %s",
                     w->title, path,
                     w->curl_text[0] ? w->curl_text : curl()->easy_strerror(w->result));
}

/* What libcurl takes for a success or for want of memory and is neither. */
static void judge_result(struct request_op *w)
{
    if (w->result == CURLE_OK && !w->headers_ended) {
        w->result = CURLE_PARTIAL_FILE;
        (void)snprintf(w->curl_text, sizeof(w->curl_text),
                       "the connection ended in the middle of the headers");
    }
    if (w->result == CURLE_OUT_OF_MEMORY && !w->headers_ended) {
        /* It also says so of a header line over its 100 KiB. */
        void *probe = malloc(2 * MOST_HEADER_BYTES);

        w->too_large = probe != NULL && !w->no_memory;
        free(probe);
    }
}

static int request_add(struct request_op *w, fcproc_error *err)
{
    char address[SOCKET_LINK_SIZE];
    int r = client_reach(w->client);

    if (r < 0)
        return reach_error(w->client, w->title, -r, err);
    r = client_multi(w->client, err);
    if (r < 0)
        return r;
    w->connect_errno = w->open_errno = 0;
    w->no_memory = w->refused = false;
    w->curl_text[0] = '\0';
    unix_link(w->client->socket_fd, address);
    if (curl()->easy_setopt(w->client->easy, CURLOPT_UNIX_SOCKET_PATH, address) != CURLE_OK ||
        curl()->multi_add_handle(w->client->multi, w->client->easy) != CURLM_OK)
        return error_nomem(err, op_name);
    w->added = true;
    return 0;
}

static void request_remove(struct request_op *w)
{
    if (w->added)
        (void)curl()->multi_remove_handle(w->client->multi, w->client->easy);
    w->added = false;
}

/* A failure here is libcurl's want of memory, or of an epoll watch: without a watched socket the
 * answer would never be seen. */
static CURLMcode request_pump(struct request_op *w)
{
    CURLM *multi = w->client->multi;
    struct epoll_event events[8];
    int n = epoll_wait(w->op.epoll_fd, events, ELEMENTS(events), 0);
    int running, left;
    CURLMcode worst = CURLM_OK, code;
    CURLMsg *message;

    errno = 0;
    for (int i = 0; i < n; i++) {
        int mask = 0;

        if (events[i].data.u64 == OP_WAKE)
            continue;
        if (events[i].events & (EPOLLIN | EPOLLHUP))
            mask |= CURL_CSELECT_IN;
        if (events[i].events & EPOLLOUT)
            mask |= CURL_CSELECT_OUT;
        if (events[i].events & EPOLLERR)
            mask |= CURL_CSELECT_ERR;
        code = curl()->multi_socket_action(multi, (curl_socket_t)events[i].data.u64, mask,
                                           &running);
        worst = code == CURLM_OK ? worst : code;
    }
    code = curl()->multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
    worst = code == CURLM_OK ? worst : code;
    while ((message = curl()->multi_info_read(multi, &left)))
        if (message->msg == CURLMSG_DONE) {
            w->finished = true;
            w->result = message->data.result;
        }
    w->no_memory = w->no_memory || (w->result != CURLE_OK && errno == ENOMEM);
    return worst;
}

static int request_step(fcproc_op *op, fcproc_error *err)
{
    struct request_op *w = (struct request_op *)op;
    CURLMcode code;
    long status = 0;
    int r;

    if (w->retrying) {
        if (op->timer_ns != NEVER)
            return 0;
        w->retrying = false;
        r = request_add(w, err);
        if (r < 0)
            return r;
    }
    code = request_pump(w);
    if (!w->finished && code != CURLM_OK) {
        request_remove(w);
        return code == CURLM_OUT_OF_MEMORY
                   ? error_nomem(err, op_name)
                   : error_set(err, FCPROC_ERR_SYSTEM, op_name, 0, "%s: libcurl gave up on %s: %s",
                               w->title, w->client->path, curl()->multi_strerror(code));
    }
    if (!w->finished)
        return 0;
    judge_result(w);
    if (w->result == CURLE_OK)
        (void)curl()->easy_getinfo(w->client->easy, CURLINFO_RESPONSE_CODE, &status);
    if (w->result == CURLE_COULDNT_CONNECT) {
        long e = 0;

        (void)curl()->easy_getinfo(w->client->easy, CURLINFO_OS_ERRNO, &e);
        /* libcurl waits after EAGAIN, which a full accept queue gives, and then knows no errno. */
        w->connect_errno = w->open_errno ? w->open_errno : e ? (int)e : EAGAIN;
    }
    request_remove(w);
    if (w->refused)
        client_forget(w->client); /* a stranger's server owes us no connection */
    if (w->result == CURLE_OK) {
        w->status = (int)status;
        w->client->answered = true;
        return 1;
    }
    if (w->connect_errno && worth_retrying(w)) {
        w->finished = false;
        w->retrying = true;
        op_backoff(op, &w->delay_ms, RETRY_FIRST_MS, RETRY_MOST_MS);
        return 0;
    }
    return request_failure(w, err);
}

static void request_describe(const fcproc_op *op, char *buf, size_t size)
{
    const struct request_op *w = (const struct request_op *)op;

    (void)snprintf(buf, size, "%s: no answer from %s (whether it was carried out is unknown)",
                   w->title, w->client->path);
}

/* A request that is given up keeps its connection until the answer has come. Firecracker 1.12 that
 * writes to a closed one gets SIGPIPE, and its own seccomp filter then kills it: 1 abandoned request
 * in some 8,000 took its VM along. */
static void linger(struct request_op *w)
{
    bool awaited = w->added && !w->finished && w->fd >= 0 && op_is_ours(&w->op);
    int fd = awaited ? fcntl(w->fd, F_DUPFD_CLOEXEC, 3) : -EBADF;

    if (fd >= 0)
        linger_answer(fd);
}

static void request_destroy(fcproc_op *op)
{
    struct request_op *w = (struct request_op *)op;

    linger(w);
    request_remove(w);
    w->client->current = NULL;
    curl()->easy_cleanup(w->client->easy);
    w->client->easy = NULL;
    curl()->slist_free_all(w->headers);
    fcproc_client_close(w->client);
    free(w->title);
    free(w->body);
}

static int set_headers(struct request_op *w)
{
    /* Without "Expect:" libcurl would ask first before it sends a large body. */
    static const char *const lines[] = { "Accept: application/json",
                                         "Content-Type: application/json", "Expect:" };

    for (size_t i = 0; i < ELEMENTS(lines); i++) {
        struct curl_slist *longer = curl()->slist_append(w->headers, lines[i]);

        if (!longer)
            return -ENOMEM;
        w->headers = longer;
    }
    return 0;
}

/* 0; -ENOSYS: this libcurl can't prove who is asked; or -ENOMEM: nothing else can go wrong. */
static int set_options(struct request_op *w, const char *method, const char *target,
                       const char *body, size_t body_len)
{
    CURL *easy = w->client->easy;
    cleanup_free char *url = NULL;
    bool bad = false;

    if (w->client->expected &&
        (curl()->easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_connected) != CURLE_OK ||
         curl()->easy_setopt(easy, CURLOPT_PREREQDATA, w) != CURLE_OK))
        return -ENOSYS;
    if (asprintf(&url, "http://localhost%s", target) < 0) {
        url = NULL;
        return -ENOMEM;
    }
#define SET(option, value) (bad = curl()->easy_setopt(easy, option, value) != CURLE_OK || bad)
    SET(CURLOPT_URL, url);
    SET(CURLOPT_OPENSOCKETFUNCTION, on_open);
    SET(CURLOPT_OPENSOCKETDATA, w->client);
    SET(CURLOPT_CLOSESOCKETFUNCTION, on_close);
    SET(CURLOPT_CLOSESOCKETDATA, w->client);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, w);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, w);
    SET(CURLOPT_ERRORBUFFER, w->curl_text);
    SET(CURLOPT_HTTPHEADER, w->headers);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_NOPROXY, "*"); /* whatever the environment says */
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_PATH_AS_IS, 1L);
    if (body) {
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body_len);
        SET(CURLOPT_COPYPOSTFIELDS, body);
    }
    if (strcmp(method, "HEAD") == 0)
        SET(CURLOPT_NOBODY, 1L);
    SET(CURLOPT_CUSTOMREQUEST, method);
#undef SET
    return bad ? -ENOMEM : 0;
}

static int check_request(const char *method, const char *target, fcproc_error *err)
{
    for (const char *p = method; *p || p == method; p++)
        if (!isupper((unsigned char)*p))
            return error_set(err, FCPROC_ERR_INVALID, op_name, 0,
                             "'%s' is no HTTP method: GET, PUT, PATCH, ...", method);
    if (target[0] != '/')
        return error_set(err, FCPROC_ERR_INVALID, op_name, 0,
                         "the API path '%s' must begin with a slash", target);
    for (const char *p = target; *p; p++)
        if (!isgraph((unsigned char)*p))
            return error_set(err, FCPROC_ERR_INVALID, op_name, 0,
                             "the API path '%s' holds white space or bytes outside ASCII", target);
    return 0;
}

FCPROC_API int fcproc_request(fcproc_client *client, const char *method, const char *target,
                              const char *body, size_t body_len, int64_t timeout_ms,
                              fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err)
{
    static const struct op_class class = { .name = op_name,
                                           .step = request_step,
                                           .destroy = request_destroy,
                                           .describe = request_describe };
    struct request_op *w;
    fcproc_op *op = NULL;
    int r = check_maker(client->pid, op_name, err);

    if (r == 0)
        r = check_request(method, target, err);
    if (r == 0)
        r = fcproc_ctx_status(ctx, err);
    if (r < 0)
        return r;
    if (client->current)
        return error_set(err, FCPROC_ERR_BUSY, op_name, 0,
                         "%s %s: this client of %s waits for another answer", method, target,
                         client->path);
    r = op_new(sizeof(*w), &class, ctx, timeout_ms, &op, err);
    if (r < 0)
        return r;
    w = (struct request_op *)op;
    w->fd = -EBADF;
    w->client = client;
    client->references++;
    client->current = w;
    client->easy = curl()->easy_init();
    if (asprintf(&w->title, "%s %s", method, target) < 0)
        w->title = NULL;
    r = !client->easy || !w->title ? -ENOMEM : set_headers(w);
    if (r == 0)
        r = set_options(w, method, target, body, body_len);
    if (r == -ENOSYS)
        r = error_set(err, FCPROC_ERR_UNSUPPORTED, op_name, ENOSYS,
                      "%s: the libcurl that is installed can't prove who answers: it takes 7.80",
                      w->title);
    else
        r = r < 0 ? error_nomem(err, op_name) : request_add(w, err);
    if (r < 0) {
        fcproc_op_close(&w->op);
        return r;
    }
    *ret = &w->op;
    return 0;
}

FCPROC_API struct fcproc_response fcproc_request_result(const fcproc_op *op)
{
    const struct request_op *w = (const struct request_op *)op;

    return (struct fcproc_response){ .status = w->status,
                                     .body = w->body ? w->body : "",
                                     .body_len = w->body_len };
}
