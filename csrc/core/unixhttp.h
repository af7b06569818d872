/* SPDX-License-Identifier: MIT
 *
 * A request over a unix socket (unixhttp.c) and its connection (connection.c), whoever waits for it:
 * one alone (request.c), many at once (requests.c).
 */
#ifndef FCPROC_UNIXHTTP_H
#define FCPROC_UNIXHTTP_H

#include <sys/stat.h>

#include "curl.h"

struct request;

struct connection {
    int fd;      /* -EBADF: none is open */
    bool asking; /* a request is under way on it */
    bool let_go; /* libcurl has done with it since */
};

struct fcproc_client {
    pid_t pid;           /* a fork of it must not ask on the same connection */
    unsigned references; /* the caller's and a running request's */
    struct split_path at;
    char *path;
    int socket_fd; /* O_PATH: what libcurl connects to */
    struct stat socket;
    CURLM *multi;                 /* NULL: with the next request */
    struct connection connection; /* of its own multi handle's */
    fcproc_process *expected;     /* the only one that may be asked; NULL: whoever listens */
    struct request *current;
    bool answered; /* some request: the server listens, or is gone */
};

struct request {
    fcproc_op *op; /* whose descriptor watches the connection */
    fcproc_client *client;
    CURLM *multi;
    CURL *easy; /* a new one each time: curl_easy_reset would hide that memory ran out in it */
    struct curl_slist *headers;
    struct connection *connection; /* the client's, or its own on a multi handle of many */
    struct connection own;
    struct lingering *linger; /* had before anything is sent, so that it needs no memory later */
    char *title;              /* "PUT /actions" */
    char *body;
    size_t body_len, body_size, header_bytes;
    bool too_large, no_memory, added;
    bool interim, headers_ended; /* "100 Continue" and its like are no answer yet */
    bool refused;                /* the connection leads to another process than the expected one */
    pid_t peer;                  /* to this one */
    int open_errno;              /* socket(2)'s, of which libcurl tells nothing */
    int connect_errno;
    int status;
    bool finished;
    CURLcode result;
    char curl_text[CURL_ERROR_SIZE];
};

extern const char request_op_name[];

/* Is it one that can be sent? */
int request_check(const char *method, const char *target, fcproc_error *err);
/* Gives what is all zeros its title and its libcurl handle; the client is to be set with request_aim. */
int request_init(struct request *w, fcproc_op *op, const char *method, const char *target,
                 const char *body, size_t body_len, fcproc_error *err);
/* To whom. */
int request_aim(struct request *w, fcproc_client *client, CURLM *multi, fcproc_error *err);
int request_add(struct request *w, fcproc_error *err);
/* One that is given up keeps its connection until the answer has come. */
void request_remove(struct request *w);
/* Works on all of the multi handle. A failure here is libcurl's want of memory, or of an epoll watch:
 * without a watched socket the answer would never be seen. */
CURLMcode request_pump(const fcproc_op *op, CURLM *multi);
int request_pump_error(const char *title, const char *whom, CURLMcode code, fcproc_error *err);
/* Of one that has finished, and takes it out: true: it was answered, with w->status. */
bool request_judge(struct request *w);
int request_failure(const struct request *w, fcproc_error *err);
void request_free(struct request *w);

/* What the request is to go over. */
CURLcode connection_use(struct connection *c, struct request *w);
/* Before anything is sent. False: no memory. */
bool connection_begin(struct request *w);
/* The request is no longer under way, however it ended. */
void connection_end(struct request *w);

/* A multi handle whose sockets are their requests' own; NULL: no memory. */
CURLM *request_multi(int (*on_timer)(CURLM *, long, void *), void *user);
/* Its connection and its socket, while no request is under way. */
void client_forget(fcproc_client *c);

#endif
