/* SPDX-License-Identifier: MIT
 *
 * The connection that a request goes over. libcurl works with it, but does not end it: while a request
 * is under way its close only lets go of the descriptor, and how the request ended decides what becomes
 * of that. Firecracker 1.12 that writes to a closed connection gets SIGPIPE, and its own seccomp filter
 * then kills it; so where an answer is owed, the connection stays open until it has come.
 */
#include <sys/socket.h>

#include "unixhttp.h"

/* libcurl's own would not be close-on-exec. (Handing it a connected socket, with
 * CURL_SOCKOPT_ALREADY_CONNECTED, fails in 7.88, which is Debian 12's.) */
static curl_socket_t on_open(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct request *w = user;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    address->protocol);

    (void)purpose;
    if (fd < 0)
        w->open_errno = errno;
    if (w->connection->let_go) /* a kept one, which the server had ended */
        close_fd(&w->connection->fd);
    w->connection->let_go = false;
    w->connection->fd = fd;
    return fd;
}

static int on_close(void *user, curl_socket_t fd)
{
    struct connection *c = user;

    if (c->fd != fd)
        return close(fd);
    if (c->asking) {
        c->let_go = true;
        return 0;
    }
    return close(take_fd(&c->fd));
}

CURLcode connection_use(struct connection *c, struct request *w)
{
    CURLcode code = curl()->easy_setopt(w->easy, CURLOPT_OPENSOCKETFUNCTION, on_open);

    w->connection = c;
    if (code == CURLE_OK)
        code = curl()->easy_setopt(w->easy, CURLOPT_OPENSOCKETDATA, w);
    if (code == CURLE_OK)
        code = curl()->easy_setopt(w->easy, CURLOPT_CLOSESOCKETFUNCTION, on_close);
    if (code == CURLE_OK)
        code = curl()->easy_setopt(w->easy, CURLOPT_CLOSESOCKETDATA, c);
    return code;
}

bool connection_begin(struct request *w)
{
    if (!w->linger)
        w->linger = linger_prepare(w->op->pid);
    w->connection->asking = w->linger != NULL;
    return w->linger != NULL;
}

static bool is_owed_an_answer(const struct request *w)
{
    long sent = 0;

    if ((w->finished && w->result == CURLE_OK) || !op_is_ours(w->op))
        return false;
    (void)curl()->easy_getinfo(w->easy, CURLINFO_REQUEST_SIZE, &sent);
    return sent > 0;
}

void connection_end(struct request *w)
{
    struct connection *c = w->connection;
    curl_off_t heard_us = 0; /* when the first of the answer came; libcurl may have lost it since */

    c->asking = false;
    if (!c->let_go)
        return;
    c->let_go = false;
    if (!is_owed_an_answer(w)) {
        close_fd(&c->fd);
        return;
    }
    (void)curl()->easy_getinfo(w->easy, CURLINFO_STARTTRANSFER_TIME_T, &heard_us);
    linger_answer(w->linger, take_fd(&c->fd), heard_us > 0);
    w->linger = NULL;
}
