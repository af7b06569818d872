/* SPDX-License-Identifier: MIT
 *
 * The same request to many servers, some at a time: fcproc_request_all. They share one epoll set, one
 * multi handle and a few easy handles, which cost more than the request itself. No connection is
 * shared: each is new, proves who answers before anything is sent on it, and ends with its answer.
 */
#include <stdio.h>

#include "unixhttp.h"

enum { AT_ONCE = 16 }; /* each has its share of memory in libcurl */

struct answer {
    char *path;
    fcproc_process *process;
    bool answered;
    int status;
    char *body;
    size_t body_len;
    fcproc_error *error; /* NULL and not answered: there was no memory for it */
};

struct slot {
    struct request request;
    size_t i;            /* whose, while it has a client */
    int64_t deadline_ns; /* of that one */
};

struct requests_op {
    fcproc_op op;
    CURLM *multi;
    int64_t curl_ns; /* when libcurl wants to be called */
    int64_t each_ms;
    char *title;
    size_t n, next, ended;
    struct answer *answers;
    struct slot slots[AT_ONCE];
};

static int on_timer(CURLM *multi, long timeout_ms, void *user)
{
    (void)multi;
    ((struct requests_op *)user)->curl_ns = deadline_after_ms(timeout_ms);
    return 0;
}

static void keep_error(struct answer *a, const fcproc_error *err)
{
    a->error = malloc(sizeof(*a->error));
    if (a->error)
        *a->error = *err;
}

static void leave_slot(struct requests_op *w, struct slot *p)
{
    request_remove(&p->request);
    fcproc_client_close(p->request.client);
    p->request.client = NULL;
    w->ended++;
}

static int begin(struct requests_op *w, struct slot *p, fcproc_error *err)
{
    const struct answer *a = &w->answers[p->i];
    fcproc_client *client = NULL;
    int r = fcproc_client_new(a->path, &client, err);

    if (r < 0)
        return r;
    fcproc_client_expect(client, a->process);
    p->deadline_ns = deadline_after_ms(w->each_ms);
    r = request_aim(&p->request, client, w->multi, err);
    return r < 0 ? r : request_add(&p->request, err);
}

static void fill(struct requests_op *w)
{
    for (size_t k = 0; k < AT_ONCE && w->next < w->n; k++) {
        struct slot *p = &w->slots[k];

        while (!p->request.client && w->next < w->n) {
            fcproc_error err = FCPROC_ERROR_INIT;

            p->i = w->next++;
            if (begin(w, p, &err) == 0)
                break;
            keep_error(&w->answers[p->i], &err);
            leave_slot(w, p);
        }
    }
}

static void take_answer(struct requests_op *w, struct slot *p)
{
    struct request *request = &p->request;
    struct answer *a = &w->answers[p->i];
    fcproc_error err = FCPROC_ERROR_INIT;

    a->answered = request_judge(request);
    if (a->answered) {
        a->status = request->status;
        a->body = request->body;
        a->body_len = request->body_len;
        request->body = NULL;
        request->body_size = 0;
    } else {
        (void)request_failure(request, &err);
        keep_error(a, &err);
    }
    leave_slot(w, p);
}

static void give_up(struct requests_op *w, struct slot *p)
{
    fcproc_error err = FCPROC_ERROR_INIT;

    (void)error_set(&err, FCPROC_ERR_WAIT_TIMEOUT, request_op_name, 0,
                    "%s: no answer from %s (whether it was carried out is unknown) after %g s",
                    w->title, w->answers[p->i].path, (double)w->each_ms / 1e3);
    keep_error(&w->answers[p->i], &err);
    leave_slot(w, p);
}

/* True: a slot is free again. */
static bool gather(struct requests_op *w)
{
    int64_t now = now_ns(), wake_ns = NEVER;
    bool left = false;

    for (size_t k = 0; k < AT_ONCE; k++) {
        struct slot *p = &w->slots[k];

        if (!p->request.client)
            continue;
        if (p->request.finished)
            take_answer(w, p);
        else if (now >= p->deadline_ns)
            give_up(w, p);
        else if (p->deadline_ns < wake_ns)
            wake_ns = p->deadline_ns;
        left = left || !p->request.client;
    }
    w->op.timer_ns = w->curl_ns < wake_ns ? w->curl_ns : wake_ns;
    return left;
}

static int requests_step(fcproc_op *op, fcproc_error *err)
{
    struct requests_op *w = (struct requests_op *)op;

    do {
        CURLMcode code;

        fill(w);
        if (w->curl_ns != NEVER && now_ns() >= w->curl_ns)
            w->curl_ns = NEVER;
        code = request_pump(op, w->multi);
        if (code != CURLM_OK)
            return request_pump_error(w->title, "many sockets", code, err);
    } while (gather(w) && w->next < w->n);
    return w->ended == w->n;
}

static void requests_describe(const fcproc_op *op, char *buf, size_t size)
{
    const struct requests_op *w = (const struct requests_op *)op;

    (void)snprintf(buf, size,
                   "%s: %zu of %zu have not answered (whether they carried it out is unknown)",
                   w->title, w->n - w->ended, w->n);
}

static void requests_destroy(fcproc_op *op)
{
    struct requests_op *w = (struct requests_op *)op;

    for (size_t k = 0; k < AT_ONCE; k++) {
        struct request *request = &w->slots[k].request;

        if (request->op)
            request_free(request);
        fcproc_client_close(request->client);
    }
    if (w->multi)
        (void)curl()->multi_cleanup(w->multi);
    for (size_t i = 0; w->answers && i < w->n; i++) {
        free(w->answers[i].path);
        fcproc_process_close(w->answers[i].process);
        free(w->answers[i].body);
        free(w->answers[i].error);
    }
    free(w->answers);
    free(w->title);
}

static int take_servers(struct requests_op *w, const char *const *paths,
                        fcproc_process *const *processes, fcproc_error *err)
{
    for (size_t i = 0; i < w->n; i++) {
        w->answers[i].path = strdup(paths[i]);
        if (!w->answers[i].path)
            return error_nomem(err, request_op_name);
        if (processes && processes[i])
            w->answers[i].process = process_ref(processes[i]);
    }
    return 0;
}

/* FORBID_REUSE: the server sees the end of its connection; FRESH_CONNECT: nobody gets another's. */
static int set_up(struct requests_op *w, const char *method, const char *target, const char *body,
                  size_t body_len, fcproc_error *err)
{
    for (size_t k = 0; k < AT_ONCE && k < w->n; k++) {
        struct request *request = &w->slots[k].request;
        int r = request_init(request, &w->op, method, target, body, body_len, err);

        if (r < 0)
            return r;
        if (curl()->easy_setopt(request->easy, CURLOPT_FRESH_CONNECT, 1L) != CURLE_OK ||
            curl()->easy_setopt(request->easy, CURLOPT_FORBID_REUSE, 1L) != CURLE_OK)
            return error_nomem(err, request_op_name);
    }
    return 0;
}

FCPROC_API int fcproc_request_all(const char *const *paths, fcproc_process *const *processes,
                                  size_t n, const char *method, const char *target,
                                  const char *body, size_t body_len, int64_t each_ms,
                                  fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err)
{
    static const struct op_class class = { .name = request_op_name,
                                           .step = requests_step,
                                           .destroy = requests_destroy,
                                           .describe = requests_describe };
    struct requests_op *w;
    fcproc_op *op = NULL;
    int r = request_check(method, target, err);

    if (r == 0)
        r = fcproc_ctx_status(ctx, err);
    if (r == 0)
        r = curl_load(err);
    if (r == 0)
        r = op_new(sizeof(*w), &class, ctx, -1, &op, err);
    if (r < 0)
        return r;
    w = (struct requests_op *)op;
    w->n = n;
    w->each_ms = each_ms;
    w->curl_ns = NEVER;
    w->multi = request_multi(on_timer, w);
    w->answers = calloc(n ? n : 1, sizeof(*w->answers));
    if (asprintf(&w->title, "%s %s", method, target) < 0)
        w->title = NULL;
    r = !w->multi || !w->answers || !w->title ? error_nomem(err, request_op_name)
                                              : take_servers(w, paths, processes, err);
    if (r == 0)
        r = set_up(w, method, target, body, body_len, err);
    if (r < 0) {
        fcproc_op_close(op);
        return r;
    }
    *ret = op;
    return 0;
}

FCPROC_API size_t fcproc_request_all_count(const fcproc_op *op)
{
    return ((const struct requests_op *)op)->n;
}

FCPROC_API int fcproc_request_all_result(const fcproc_op *op, size_t i, struct fcproc_response *ret,
                                         fcproc_error *err)
{
    const struct answer *a = &((const struct requests_op *)op)->answers[i];

    if (!a->answered) {
        if (!a->error)
            return error_nomem(err, request_op_name);
        return error_about(err, (pid_t)a->error->pid,
                           error_set(err, a->error->code, a->error->op, a->error->sys_errno, "%s",
                                     a->error->message));
    }
    *ret = (struct fcproc_response){ .status = a->status,
                                     .body = a->body ? a->body : "",
                                     .body_len = a->body_len };
    return 0;
}
