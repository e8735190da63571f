/*
 * The graphs of softmax attention, and their plans: see cudnn_plan.h. cuDNN recognises the steps
 * below and runs them as one kernel that never holds N x N scores; their order and the types
 * between them are what it recognises them by.
 *
 *   forward    s = scale q k^T, masked;  p = exp(s - max s) / sum;  out = p v
 *              stats = max s + log sum
 *   backward   rows = sum over d of dout * out
 *              p = exp(scale q k^T - stats), masked;  dv = p^T dout
 *              ds = scale p (dout v^T - rows);  dk = ds^T q;  dq = ds k
 */
#include "softmax/cudnn_plan.h"

#include "softmax/cudnn_graph.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Of tensors in memory, and of numbers that the host passes. */
enum tensor_id {
    ID_Q = 1,
    ID_K,
    ID_V,
    ID_OUT,
    ID_STATS,
    ID_DOUT,
    ID_DQ,
    ID_DK,
    ID_DV,
    ID_ROWS,
    ID_DQ_SUM,
    ID_SCALE,
    ID_MASKED,
    ID_ONE,
    ID_COUNT
};

/* A score that no exponential survives. */
static const float masked_score = -1e30F;

/* What a plan depends on; zero where it does not, so that bytes compare. */
struct plan_key {
    int64_t sizes[6], strides[8][3];
    int64_t dtype, causal, pass;
};

struct plan {
    struct plan_key key;
    void *plan;
    size_t workspace_bytes;
    uint64_t used; /* when */
};

enum { PLANS_MOST = 48 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct plan plans[PLANS_MOST];
static uint64_t uses;
static void *handle; /* NULL until the first plan */

/* ---- graphs ---------------------------------------------------------------------------------- */

/* The tensors of an attention, while its graph is put together. */
struct draft {
    struct fb_cudnn_graph graph;
    const struct fb_problem *problem;
    const struct fb_call *call;
    enum fb_cudnn_dtype dtype;
    struct fb_cudnn_shape scores, per_row;
};

static struct fb_cudnn_shape shape_of(const struct fb_tensor *tensor)
{
    struct fb_cudnn_shape shape;
    memcpy(shape.size, tensor->shape, sizeof shape.size);
    memcpy(shape.stride, tensor->stride, sizeof shape.stride);
    return shape;
}

static void *in_memory(struct draft *d, enum tensor_id id, const struct fb_tensor *tensor)
{
    const struct fb_cudnn_shape shape = shape_of(tensor);
    return fb_cudnn_add_tensor(&d->graph, id, d->dtype, &shape);
}

static void *transposed(struct draft *d, enum tensor_id id, const struct fb_tensor *tensor)
{
    const struct fb_cudnn_shape shape = shape_of(tensor);
    const struct fb_cudnn_shape turned = fb_cudnn_transposed(&shape);
    return fb_cudnn_add_tensor(&d->graph, id, d->dtype, &turned);
}

static void *new_scores(struct draft *d)
{
    return fb_cudnn_add_virtual(&d->graph, FB_CUDNN_FLOAT, &d->scores);
}

static void *new_rows(struct draft *d)
{
    return fb_cudnn_add_virtual(&d->graph, FB_CUDNN_FLOAT, &d->per_row);
}

static void *product(struct draft *d, void *a, void *b)
{
    void *c = new_scores(d);
    fb_cudnn_add_matmul(&d->graph, a, b, c);
    return c;
}

static void *pointwise(struct draft *d, enum fb_cudnn_pointwise mode, void *x, void *b)
{
    void *y = new_scores(d);
    fb_cudnn_add_pointwise(&d->graph, mode, x, b, y);
    return y;
}

/* Scores of the keys up to the query; the others are masked. */
static void *mask(struct draft *d, void *scores)
{
    struct fb_cudnn_graph *graph = &d->graph;
    if (!d->problem->causal)
        return scores;
    void *row = fb_cudnn_add_virtual(graph, FB_CUDNN_INT32, &d->scores);
    fb_cudnn_add_index(graph, 2, scores, row);
    void *column = fb_cudnn_add_virtual(graph, FB_CUDNN_INT32, &d->scores);
    fb_cudnn_add_index(graph, 3, scores, column);
    void *seen = fb_cudnn_add_virtual(graph, FB_CUDNN_BOOLEAN, &d->scores);
    fb_cudnn_add_greater_equal(graph, row, column, seen);
    void *kept = new_scores(d);
    fb_cudnn_add_select(graph, scores, fb_cudnn_add_scalar(graph, ID_MASKED), seen, kept);
    return kept;
}

static void add_forward(struct draft *d, bool training)
{
    struct fb_cudnn_graph *graph = &d->graph;
    const struct fb_call *call = d->call;
    void *scores = product(d, in_memory(d, ID_Q, &call->q), transposed(d, ID_K, &call->k));
    scores = pointwise(d, FB_CUDNN_MUL, scores, fb_cudnn_add_scalar(graph, ID_SCALE));
    scores = mask(d, scores);
    void *highest = new_rows(d);
    fb_cudnn_add_reduction(graph, FB_CUDNN_REDUCE_MAX, scores, highest);
    void *power = pointwise(d, FB_CUDNN_EXP, pointwise(d, FB_CUDNN_SUB, scores, highest), NULL);
    void *sum = new_rows(d);
    fb_cudnn_add_reduction(graph, FB_CUDNN_REDUCE_ADD, power, sum);
    void *logarithm = new_rows(d);
    fb_cudnn_add_pointwise(graph, FB_CUDNN_LOG, sum, NULL, logarithm);
    void *stats = training ? fb_cudnn_add_tensor(graph, ID_STATS, FB_CUDNN_FLOAT, &d->per_row)
                           : new_rows(d); /* named all the same: cuDNN looks for it */
    fb_cudnn_add_pointwise(graph, FB_CUDNN_ADD, highest, logarithm, stats);
    void *weights = fb_cudnn_add_virtual(graph, d->dtype, &d->scores);
    fb_cudnn_add_pointwise(graph, FB_CUDNN_DIV, power, sum, weights);
    fb_cudnn_add_matmul(graph, weights, in_memory(d, ID_V, &call->v),
                        in_memory(d, ID_OUT, &call->out));
}

/* Per row the sum of dout * out, which is that of the weights' gradients times the weights. */
static void *add_row_sums(struct draft *d, void *dout)
{
    struct fb_cudnn_graph *graph = &d->graph;
    const struct fb_problem *p = d->problem;
    const struct fb_cudnn_shape outputs = fb_cudnn_dense(p->batch, p->heads, p->q_len, p->v_dim);
    void *both = fb_cudnn_add_virtual(graph, FB_CUDNN_FLOAT, &outputs);
    fb_cudnn_add_pointwise(graph, FB_CUDNN_MUL, dout, in_memory(d, ID_OUT, &d->call->out), both);
    void *sum = new_rows(d);
    fb_cudnn_add_reduction(graph, FB_CUDNN_REDUCE_ADD, both, sum);
    void *rows = fb_cudnn_add_tensor(graph, ID_ROWS, FB_CUDNN_FLOAT, &d->per_row);
    fb_cudnn_add_pointwise(graph, FB_CUDNN_MUL, sum, fb_cudnn_add_scalar(graph, ID_ONE), rows);
    return rows;
}

/* Its transpose, rounded to the inputs' type, as the first factor of a product. */
static void *turned_scores(struct draft *d, void *scores)
{
    const struct fb_cudnn_shape shape = fb_cudnn_transposed(&d->scores);
    void *turned = fb_cudnn_add_virtual(&d->graph, d->dtype, &shape);
    fb_cudnn_add_reshape(&d->graph, scores, turned);
    return turned;
}

static void add_dq(struct draft *d, void *dscores, void *k)
{
    struct fb_cudnn_graph *graph = &d->graph;
    const struct fb_problem *p = d->problem;
    const struct fb_cudnn_shape shape = shape_of(&d->call->k);
    const struct fb_cudnn_shape sums = fb_cudnn_dense(p->batch, p->heads, p->q_len, p->qk_dim);
    void *back = fb_cudnn_add_virtual(graph, d->dtype, &shape);
    fb_cudnn_add_reshape(graph, k, back);
    void *sum = fb_cudnn_add_tensor(graph, ID_DQ_SUM, FB_CUDNN_FLOAT, &sums);
    fb_cudnn_add_matmul(graph, dscores, back, sum);
    fb_cudnn_add_pointwise(graph, FB_CUDNN_IDENTITY, sum, NULL, in_memory(d, ID_DQ, &d->call->dq));
}

static void add_backward(struct draft *d)
{
    struct fb_cudnn_graph *graph = &d->graph;
    const struct fb_call *call = d->call;
    void *dout = in_memory(d, ID_DOUT, &call->dout);
    void *rows = add_row_sums(d, dout);
    void *q = in_memory(d, ID_Q, &call->q);
    void *k = transposed(d, ID_K, &call->k);
    void *scale = fb_cudnn_add_scalar(graph, ID_SCALE);
    void *stats = fb_cudnn_add_tensor(graph, ID_STATS, FB_CUDNN_FLOAT, &d->per_row);
    void *scores = pointwise(d, FB_CUDNN_MUL, product(d, q, k), scale);
    scores = mask(d, pointwise(d, FB_CUDNN_SUB, scores, stats));
    void *weights = pointwise(d, FB_CUDNN_EXP, scores, NULL);
    fb_cudnn_add_matmul(graph, turned_scores(d, weights), dout, in_memory(d, ID_DV, &call->dv));
    void *dweights = product(d, dout, transposed(d, ID_V, &call->v));
    void *dscores = pointwise(d, FB_CUDNN_SUB, dweights, rows);
    dscores = pointwise(d, FB_CUDNN_MUL, dscores, weights);
    dscores = pointwise(d, FB_CUDNN_MUL, dscores, scale);
    fb_cudnn_add_matmul(graph, turned_scores(d, dscores), q, in_memory(d, ID_DK, &call->dk));
    add_dq(d, dscores, k);
}

static enum fb_status build(const struct fb_cudnn *api, const struct fb_problem *p,
                            const struct fb_call *call, enum fb_cudnn_pass pass, struct plan *plan,
                            struct fb_error *error)
{
    struct draft draft = {
        .problem = p,
        .call = call,
        .dtype = p->dtype == FB_BF16 ? FB_CUDNN_BFLOAT16 : FB_CUDNN_HALF,
        .scores = fb_cudnn_dense(p->batch, p->heads, p->q_len, p->kv_len),
        .per_row = fb_cudnn_dense(p->batch, p->heads, p->q_len, 1),
    };
    fb_cudnn_graph_init(&draft.graph, api, handle);
    if (pass == FB_CUDNN_BACKWARD)
        add_backward(&draft);
    else
        add_forward(&draft, pass == FB_CUDNN_TRAINING);
    const enum fb_status status =
        fb_cudnn_graph_plan(&draft.graph, &plan->plan, &plan->workspace_bytes, error);
    fb_cudnn_graph_free(&draft.graph);
    return status;
}

/* ---- plans ----------------------------------------------------------------------------------- */

static struct plan_key key_of(const struct fb_problem *p, const struct fb_call *call,
                              enum fb_cudnn_pass pass)
{
    struct plan_key key = {
        .sizes = {p->batch, p->heads, p->q_len, p->kv_len, p->qk_dim, p->v_dim},
        .dtype = p->dtype,
        .causal = p->causal,
        .pass = pass,
    };
    const struct fb_tensor *const tensors[8] = {&call->q,    &call->k,  &call->v,  &call->out,
                                                &call->dout, &call->dq, &call->dk, &call->dv};
    for (int i = 0; i < (pass == FB_CUDNN_BACKWARD ? 8 : 4); i++)
        memcpy(key.strides[i], tensors[i]->stride, sizeof key.strides[i]);
    return key;
}

/* The plan, new or kept; the lock is held. The one that was longest not used makes room. */
static enum fb_status find_plan(const struct fb_cudnn *api, const struct fb_problem *problem,
                                const struct fb_call *call, enum fb_cudnn_pass pass,
                                struct plan **found, struct fb_error *error)
{
    const struct plan_key key = key_of(problem, call, pass);
    struct plan *oldest = &plans[0];
    for (int i = 0; i < PLANS_MOST; i++) {
        if (plans[i].plan != NULL && memcmp(&plans[i].key, &key, sizeof key) == 0) {
            plans[i].used = ++uses;
            *found = &plans[i];
            return FB_OK;
        }
        if (plans[i].used < oldest->used)
            oldest = &plans[i];
    }
    if (handle == NULL && api->create_handle(&handle) != FB_CUDNN_OK) {
        handle = NULL;
        return fb_cudnn_complain(api, "opening the device", error);
    }
    struct plan plan = {.key = key, .used = ++uses};
    const enum fb_status status = build(api, problem, call, pass, &plan, error);
    if (status != FB_OK)
        return status;
    if (oldest->plan != NULL)
        (void)api->destroy(oldest->plan);
    *oldest = plan;
    *found = oldest;
    return FB_OK;
}

enum fb_status fb_cudnn_plan_workspace(const struct fb_cudnn *api, const struct fb_problem *problem,
                                       const struct fb_call *call, enum fb_cudnn_pass pass,
                                       size_t *bytes, struct fb_error *error)
{
    struct plan *plan;
    (void)pthread_mutex_lock(&lock);
    const enum fb_status status = find_plan(api, problem, call, pass, &plan, error);
    *bytes = status == FB_OK ? plan->workspace_bytes : 0;
    (void)pthread_mutex_unlock(&lock);
    return status;
}

struct arguments {
    int64_t ids[ID_COUNT];
    void *pointers[ID_COUNT];
    int64_t count;
};

static void add_argument(struct arguments *arguments, enum tensor_id id, const void *pointer)
{
    arguments->ids[arguments->count] = id;
    arguments->pointers[arguments->count++] = (void *)(uintptr_t)pointer;
}

static void collect(const struct fb_problem *problem, const struct fb_call *call,
                    enum fb_cudnn_pass pass, const struct fb_cudnn_extra *extra, const float *scale,
                    struct arguments *arguments)
{
    static const float one = 1.0F;
    arguments->count = 0;
    add_argument(arguments, ID_Q, call->q.data);
    add_argument(arguments, ID_K, call->k.data);
    add_argument(arguments, ID_V, call->v.data);
    add_argument(arguments, ID_OUT, call->out.data);
    add_argument(arguments, ID_SCALE, scale);
    if (problem->causal)
        add_argument(arguments, ID_MASKED, &masked_score);
    if (pass != FB_CUDNN_INFERENCE)
        add_argument(arguments, ID_STATS, extra->stats);
    if (pass != FB_CUDNN_BACKWARD)
        return;
    add_argument(arguments, ID_DOUT, call->dout.data);
    add_argument(arguments, ID_DQ, call->dq.data);
    add_argument(arguments, ID_DK, call->dk.data);
    add_argument(arguments, ID_DV, call->dv.data);
    add_argument(arguments, ID_ROWS, extra->rows);
    add_argument(arguments, ID_DQ_SUM, extra->dq);
    add_argument(arguments, ID_ONE, &one);
}

static enum fb_status execute(const struct fb_cudnn *api, void *plan,
                              const struct arguments *arguments, void *workspace, void *stream,
                              struct fb_error *error)
{
    void *pack = NULL;
    const bool done =
        api->set_stream(handle, stream) == FB_CUDNN_OK &&
        api->create(FB_CUDNN_PACK, &pack) == FB_CUDNN_OK &&
        api->set(pack, FB_CUDNN_PACK_IDS, FB_CUDNN_T_INT64, arguments->count, arguments->ids) ==
            FB_CUDNN_OK &&
        api->set(pack, FB_CUDNN_PACK_POINTERS, FB_CUDNN_T_POINTER, arguments->count,
                 arguments->pointers) == FB_CUDNN_OK &&
        api->set(pack, FB_CUDNN_PACK_WORKSPACE, FB_CUDNN_T_POINTER, 1, &workspace) == FB_CUDNN_OK &&
        api->finalize(pack) == FB_CUDNN_OK && api->execute(handle, plan, pack) == FB_CUDNN_OK;
    const enum fb_status status = done ? FB_OK : fb_cudnn_complain(api, "running softmax", error);
    if (pack != NULL)
        (void)api->destroy(pack);
    return status;
}

enum fb_status fb_cudnn_plan_run(const struct fb_cudnn *api, const struct fb_problem *problem,
                                 const struct fb_call *call, enum fb_cudnn_pass pass,
                                 const struct fb_cudnn_extra *extra, struct fb_error *error)
{
    const float scale = 1.0F / sqrtf((float)problem->qk_dim);
    struct plan *plan;
    struct arguments arguments;
    (void)pthread_mutex_lock(&lock);
    enum fb_status status = find_plan(api, problem, call, pass, &plan, error);
    if (status == FB_OK && plan->workspace_bytes > extra->workspace_bytes)
        status = fb_error_set(error, FB_ERROR_INPUT,
                              "softmax cudnn needs %zu bytes of workspace for these strides, the "
                              "scratch has %zu: use the layout BHND",
                              plan->workspace_bytes, extra->workspace_bytes);
    if (status == FB_OK) {
        collect(problem, call, pass, extra, &scale, &arguments);
        status = execute(api, plan->plan, &arguments, extra->workspace, call->stream, error);
    }
    (void)pthread_mutex_unlock(&lock);
    return status;
}
