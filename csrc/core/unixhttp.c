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
#include <sys/stat.h>
#include <time.h>

#include "unixhttp.h"

enum {
    MOST_HEADER_BYTES = 64 * 1024,
    MOST_BODY_BYTES = 8 * 1024 * 1024,
};

const char request_op_name[] = "api.request";

/* ---- libcurl's callbacks ---- */

static struct request *request_of(CURL *easy)
{
    char *private = NULL;

    (void)curl()->easy_getinfo(easy, CURLINFO_PRIVATE, &private);
    return (struct request *)(void *)private;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *fd_user)
{
    struct request *w = request_of(easy);

    (void)user;
    (void)fd_user;
    if (!w || !w->added)
        return 0;
    if (what == CURL_POLL_REMOVE) {
        op_unwatch(w->op, fd);
        return 0;
    }
    return op_watch(w->op, fd,
                    (what & CURL_POLL_IN ? EPOLLIN : 0U) | (what & CURL_POLL_OUT ? EPOLLOUT : 0U),
                    (uint64_t)fd, NULL) < 0
               ? -1
               : 0;
}

static int on_client_timer(CURLM *multi, long timeout_ms, void *user)
{
    struct request *w = ((fcproc_client *)user)->current;

    (void)multi;
    if (w)
        w->op->timer_ns = deadline_after_ms(timeout_ms);
    return 0;
}

/* The connection stands, new or kept, and nothing has been sent on it. The peer's number was taken
 * when it listened: as the expected process has that number and is alive, it is the one. */
static int on_connected(void *user, char *peer_ip, char *own_ip, int peer_port, int own_port)
{
    struct request *w = user;
    const fcproc_process *expected = w->client->expected;

    (void)peer_ip;
    (void)own_ip;
    (void)peer_port;
    (void)own_port;
    w->refused = unix_peer_pid(w->connection->fd, &w->peer) < 0 ||
                 w->peer != fcproc_process_pid(expected) || !fcproc_process_alive(expected);
    return w->refused ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static size_t on_header(char *data, size_t size, size_t n, void *user)
{
    struct request *w = user;
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
    struct request *w = user;
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

CURLM *request_multi(int (*on_timer)(CURLM *, long, void *), void *user)
{
    CURLM *multi = curl()->multi_init();

    if (!multi || curl()->multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket) != CURLM_OK ||
        curl()->multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer) != CURLM_OK ||
        curl()->multi_setopt(multi, CURLMOPT_TIMERDATA, user) != CURLM_OK ||
        curl()->multi_setopt(multi, CURLMOPT_MAXCONNECTS, 1L) != CURLM_OK) {
        (void)curl()->multi_cleanup(multi);
        return NULL;
    }
    return multi;
}

void client_forget(fcproc_client *c)
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
        return error_errno(err, request_op_name, sys_errno,
                           "%s: nothing listens on %s (is the VM gone?)", title, c->path);
    case ENOTSOCK:
        return error_set(err, FCPROC_ERR_NOT_FOUND, request_op_name, ENOTSOCK,
                         "%s: nothing listens on %s: it is no socket", title, c->path);
    case ELOOP:
        return error_set(err, FCPROC_ERR_CONFLICT, request_op_name, ELOOP, "%s: " UNIX_IS_LINK,
                         title, c->path);
    default:
        return error_errno(err, request_op_name, sys_errno, "%s: can't connect to %s", title,
                           c->path);
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
        return error_nomem(err, request_op_name);
    c->pid = getpid();
    c->references = 1;
    c->at.dir_fd = c->socket_fd = c->connection.fd = -EBADF;
    c->path = strdup(path);
    r = c->path ? path_split(c->path, &c->at) : -ENOMEM;
    if (r < 0) {
        fcproc_client_close(c);
        return error_errno(err, request_op_name, -r, "can't open the folder of the socket %s",
                           path);
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

static int refusal(const struct request *w, fcproc_error *err)
{
    const fcproc_process *expected = w->client->expected;
    int pid = fcproc_process_pid(expected);
    bool dead = !fcproc_process_alive(expected);
    int r;

    if (dead)
        r = error_set(err, FCPROC_ERR_NOT_FOUND, request_op_name, ESRCH,
                      "%s: pid %d, which was to answer on %s, has ended; nothing was sent",
                      w->title, pid, w->client->path);
    else if (w->peer > 0)
        r = error_set(
            err, FCPROC_ERR_NOT_SAME_PROCESS, request_op_name, 0,
            "%s: pid %d listens on %s, not pid %d, whom it is meant for; nothing was sent "
            "(was the socket replaced?)",
            w->title, w->peer, w->client->path, pid);
    else
        r = error_set(err, FCPROC_ERR_NOT_SAME_PROCESS, request_op_name, 0,
                      "%s: a process that can't be seen from here (of another PID namespace) "
                      "listens on %s, not pid %d, whom it is meant for; nothing was sent",
                      w->title, w->client->path, pid);
    return error_about(err, dead ? pid : w->peer, r);
}

int request_failure(const struct request *w, fcproc_error *err)
{
    const char *path = w->client->path;

    if (w->connect_errno)
        return reach_error(w->client, w->title, w->connect_errno, err);
    if (w->refused)
        return refusal(w, err);
    if (w->too_large)
        return error_set(err, FCPROC_ERR_PROTOCOL, request_op_name, 0,
                         "%s: the answer from %s is too large (over %d KiB of headers or %d MiB "
                         "of body)",
                         w->title, path, MOST_HEADER_BYTES / 1024, MOST_BODY_BYTES / 1024 / 1024);
    if (w->result == CURLE_OUT_OF_MEMORY || w->no_memory)
        return error_nomem(err, request_op_name);
    return error_set(err, FCPROC_ERR_PROTOCOL, request_op_name, 0,
                     "%s: no usable answer from %s: %s", w->title, path,
                     w->curl_text[0] ? w->curl_text : curl()->easy_strerror(w->result));
}

/* What libcurl takes for a success or for want of memory and is neither. */
static void judge_result(struct request *w)
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

static CURLM *multi_of(const struct request *w)
{
    return w->multi ? w->multi : w->client->multi;
}

int request_add(struct request *w, fcproc_error *err)
{
    char address[SOCKET_LINK_SIZE];
    int r = client_reach(w->client);

    if (r < 0)
        return reach_error(w->client, w->title, -r, err);
    if (!w->multi && !w->client->multi)
        w->client->multi = request_multi(on_client_timer, w->client);
    if (!w->multi && !w->client->multi)
        return error_nomem(err, request_op_name);
    if (!connection_begin(w))
        return error_nomem(err, request_op_name);
    w->connect_errno = w->open_errno = 0;
    w->too_large = w->no_memory = w->refused = w->finished = false;
    w->interim = w->headers_ended = false;
    w->header_bytes = w->body_len = 0;
    w->curl_text[0] = '\0';
    unix_link(w->client->socket_fd, address);
    w->added = true;
    if (curl()->easy_setopt(w->easy, CURLOPT_UNIX_SOCKET_PATH, address) == CURLE_OK &&
        curl()->multi_add_handle(multi_of(w), w->easy) == CURLM_OK)
        return 0;
    w->added = false;
    connection_end(w);
    return error_nomem(err, request_op_name);
}

void request_remove(struct request *w)
{
    if (!w->added)
        return;
    (void)curl()->multi_remove_handle(multi_of(w), w->easy);
    w->added = false;
    connection_end(w);
}

CURLMcode request_pump(const fcproc_op *op, CURLM *multi)
{
    struct epoll_event events[16];
    int n = epoll_wait(op->epoll_fd, events, ELEMENTS(events), 0);
    int running, left, saved_errno;
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
    saved_errno = errno;
    while ((message = curl()->multi_info_read(multi, &left)))
        if (message->msg == CURLMSG_DONE) {
            struct request *w = request_of(message->easy_handle);

            w->finished = true;
            w->result = message->data.result;
            w->no_memory = w->no_memory || (w->result != CURLE_OK && saved_errno == ENOMEM);
        }
    return worst;
}

int request_pump_error(const char *title, const char *whom, CURLMcode code, fcproc_error *err)
{
    return code == CURLM_OUT_OF_MEMORY ? error_nomem(err, request_op_name)
                                       : error_set(err, FCPROC_ERR_SYSTEM, request_op_name, 0,
                                                   "%s: libcurl gave up on %s: %s", title, whom,
                                                   curl()->multi_strerror(code));
}

bool request_judge(struct request *w)
{
    long status = 0, e = 0;

    judge_result(w);
    if (w->result == CURLE_OK)
        (void)curl()->easy_getinfo(w->easy, CURLINFO_RESPONSE_CODE, &status);
    w->status = (int)status;
    if (w->result == CURLE_COULDNT_CONNECT) {
        (void)curl()->easy_getinfo(w->easy, CURLINFO_OS_ERRNO, &e);
        /* libcurl waits after EAGAIN, which a full accept queue gives, and then knows no errno. */
        w->connect_errno = w->open_errno ? w->open_errno : e ? (int)e : EAGAIN;
    }
    request_remove(w);
    if (w->refused)
        client_forget(w->client); /* a stranger's server owes us no connection */
    w->client->answered = w->client->answered || w->result == CURLE_OK;
    return w->result == CURLE_OK;
}

void request_free(struct request *w)
{
    request_remove(w);
    curl()->easy_cleanup(w->easy);
    curl()->slist_free_all(w->headers);
    free(w->linger);
    free(w->title);
    free(w->body);
}

static int set_headers(struct request *w)
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

/* -ENOMEM: nothing else can go wrong. */
static int set_options(struct request *w, const char *method, const char *target, const char *body,
                       size_t body_len)
{
    CURL *easy = w->easy;
    cleanup_free char *url = NULL;
    bool bad = false;

    if (asprintf(&url, "http://localhost%s", target) < 0) {
        url = NULL;
        return -ENOMEM;
    }
#define SET(option, value) (bad = curl()->easy_setopt(easy, option, value) != CURLE_OK || bad)
    SET(CURLOPT_PRIVATE, (char *)w);
    SET(CURLOPT_URL, url);
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

int request_check(const char *method, const char *target, fcproc_error *err)
{
    for (const char *p = method; *p || p == method; p++)
        if (!isupper((unsigned char)*p))
            return error_set(err, FCPROC_ERR_INVALID, request_op_name, 0,
                             "'%s' is no HTTP method: GET, PUT, PATCH, ...", method);
    if (target[0] != '/')
        return error_set(err, FCPROC_ERR_INVALID, request_op_name, 0,
                         "the API path '%s' must begin with a slash", target);
    for (const char *p = target; *p; p++)
        if (!isgraph((unsigned char)*p))
            return error_set(err, FCPROC_ERR_INVALID, request_op_name, 0,
                             "the API path '%s' holds white space or bytes outside ASCII", target);
    return 0;
}

int request_init(struct request *w, fcproc_op *op, const char *method, const char *target,
                 const char *body, size_t body_len, fcproc_error *err)
{
    w->op = op;
    w->own.fd = -EBADF;
    w->easy = curl()->easy_init();
    if (asprintf(&w->title, "%s %s", method, target) < 0)
        w->title = NULL;
    if (!w->easy || !w->title || set_headers(w) < 0 ||
        set_options(w, method, target, body, body_len) < 0)
        return error_nomem(err, request_op_name);
    return 0;
}

int request_aim(struct request *w, fcproc_client *client, CURLM *multi, fcproc_error *err)
{
    w->client = client;
    w->multi = multi;
    if (client->expected &&
        (curl()->easy_setopt(w->easy, CURLOPT_PREREQFUNCTION, on_connected) != CURLE_OK ||
         curl()->easy_setopt(w->easy, CURLOPT_PREREQDATA, w) != CURLE_OK))
        return error_set(err, FCPROC_ERR_UNSUPPORTED, request_op_name, ENOSYS,
                         "%s: the libcurl that is installed can't prove who answers: it takes 7.80",
                         w->title);
    /* The client's may be kept for its next request, another may be closed after the client. */
    return connection_use(multi ? &w->own : &client->connection, w) == CURLE_OK
               ? 0
               : error_nomem(err, request_op_name);
}
