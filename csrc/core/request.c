/* SPDX-License-Identifier: MIT
 *
 * One request, waited for: fcproc_request.
 */
#include <stdio.h>
#include <time.h>

#include "unixhttp.h"

enum {
    RETRY_FIRST_MS = 1,
    RETRY_MOST_MS = 50,
    YOUNG_SOCKET_S = 2, /* bind comes before listen: 45 of 60 connects in between were refused */
};

struct request_op {
    fcproc_op op;
    struct request request;
    int64_t delay_ms; /* of the retry under way; 0: none */
    bool retrying;
};

/* Refused because the server is just between bind and listen, or busy: worth another try. One that
 * has answered before listens, or is gone, as is the expected one that has ended. */
static bool worth_retrying(const struct request *w)
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

static int request_step(fcproc_op *op, fcproc_error *err)
{
    struct request_op *one = (struct request_op *)op;
    struct request *w = &one->request;
    CURLMcode code;
    int r;

    if (one->retrying) {
        if (op->timer_ns != NEVER)
            return 0;
        one->retrying = false;
        r = request_add(w, err);
        if (r < 0)
            return r;
    }
    code = request_pump(op, w->client->multi);
    if (!w->finished && code != CURLM_OK) {
        request_remove(w);
        return request_pump_error(w->title, w->client->path, code, err);
    }
    if (!w->finished)
        return 0;
    if (request_judge(w))
        return 1;
    if (w->connect_errno && worth_retrying(w)) {
        one->retrying = true;
        op_backoff(op, &one->delay_ms, RETRY_FIRST_MS, RETRY_MOST_MS);
        return 0;
    }
    return request_failure(w, err);
}

static void request_describe(const fcproc_op *op, char *buf, size_t size)
{
    const struct request *w = &((const struct request_op *)op)->request;

    (void)snprintf(buf, size, "%s: no answer from %s (whether it was carried out is unknown)",
                   w->title, w->client->path);
}

static void request_destroy(fcproc_op *op)
{
    struct request *w = &((struct request_op *)op)->request;

    request_free(w);
    w->client->current = NULL;
    fcproc_client_close(w->client);
}

FCPROC_API int fcproc_request(fcproc_client *client, const char *method, const char *target,
                              const char *body, size_t body_len, int64_t timeout_ms,
                              fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err)
{
    static const struct op_class class = { .name = request_op_name,
                                           .step = request_step,
                                           .destroy = request_destroy,
                                           .describe = request_describe };
    struct request *w;
    fcproc_op *op = NULL;
    int r = check_maker(client->pid, request_op_name, err);

    if (r == 0)
        r = request_check(method, target, err);
    if (r == 0)
        r = fcproc_ctx_status(ctx, err);
    if (r < 0)
        return r;
    if (client->current)
        return error_set(err, FCPROC_ERR_BUSY, request_op_name, 0,
                         "%s %s: this client of %s waits for another answer", method, target,
                         client->path);
    r = op_new(sizeof(struct request_op), &class, ctx, timeout_ms, &op, err);
    if (r < 0)
        return r;
    w = &((struct request_op *)op)->request;
    w->client = client;
    client->references++;
    client->current = w;
    r = request_init(w, op, method, target, body, body_len, err);
    if (r == 0)
        r = request_aim(w, client, NULL, err);
    if (r == 0)
        r = request_add(w, err);
    if (r < 0) {
        fcproc_op_close(op);
        return r;
    }
    *ret = op;
    return 0;
}

FCPROC_API struct fcproc_response fcproc_request_result(const fcproc_op *op)
{
    const struct request *w = &((const struct request_op *)op)->request;

    return (struct fcproc_response){ .status = w->status,
                                     .body = w->body ? w->body : "",
                                     .body_len = w->body_len };
}
