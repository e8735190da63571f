/*
 * Flow-Attention as the released PyTorch module computes it, on OpenBLAS: phi(Q) and phi(K) as
 * whole matrices, each sum and product a call over all tokens; the causal form materialises the
 * L x D x M tensor of outer products and its running sum. What people pay who run that code, and
 * what the fused variant is compared with. Equations in flow.h.
 *
 * Threads take heads (a group that shares keys, or all heads when they compete); a head's buffers
 * live once per thread. Running sums are gathered in double, since the naive float running sum of
 * 65536 terms misses the error budget.
 *
 * Reference: Wu et al., Flowformer, ICML 2022; released core module (normal and causal).
 */
#include "flow_plain.h"

#include "blas.h"
#include "flow.h"
#include "kernel_support.h"
#include "parallel.h"

#include <assert.h>
#include <cblas.h>

struct plain_run {
    const struct fb_problem *problem;
    const struct fb_call *call;
    int64_t heads_per_task;
    size_t head_bytes, gradient_bytes, worker_bytes;
};

static size_t carve(const struct fb_problem *p, void *base, struct flow_plain_head *s)
{
    struct fb_scratch_cursor cursor = {.base = base};
    const int64_t state = p->qk_dim * p->v_dim;
    *s = (struct flow_plain_head){
        .q = fb_scratch_take_f32(&cursor, p->q_len * p->qk_dim),
        .k = fb_scratch_take_f32(&cursor, p->kv_len * p->qk_dim),
        .weighted = fb_scratch_take_f32(&cursor, p->kv_len * p->v_dim),
        .incoming = fb_scratch_take_f32(&cursor, p->q_len),
        .conserved = fb_scratch_take_f32(&cursor, p->q_len),
        .outgoing = fb_scratch_take_f32(&cursor, p->kv_len),
        .flow = fb_scratch_take_f32(&cursor, p->kv_len),
        .competition = fb_scratch_take_f32(&cursor, p->kv_len),
        .sum_q = fb_scratch_take_f32(&cursor, p->qk_dim),
        .sum_k = fb_scratch_take_f32(&cursor, p->qk_dim),
        .u = fb_scratch_take_f32(&cursor, p->qk_dim),
        .w = fb_scratch_take_f32(&cursor, p->qk_dim),
        .product = fb_scratch_take_f32(&cursor, p->causal ? p->q_len * state : state),
        .running = fb_scratch_take_f64(&cursor, state),
    };
    return cursor.used_bytes;
}

static float sigmoid(float x)
{
    return 1.0F / (1.0F + expf(-x));
}

static float phi(enum fb_flow_phi map, float x)
{
    switch (map) {
    case FB_FLOW_RELU:
        return fmaxf(x, 0.0F) + FB_FLOW_EPSILON;
    case FB_FLOW_ELU:
        return x > 0.0F ? x + 1.0F : expf(x);
    default:
        return sigmoid(x);
    }
}

static void apply_phi(enum fb_flow_phi map, const struct fb_tensor *t, int64_t batch, int64_t head,
                      int64_t rows, float *out)
{
    for (int64_t i = 0; i < rows; i++) {
        const float *row = fb_tensor_row_f32(t, batch, head, i);
        for (int64_t j = 0; j < t->shape[3]; j++) {
            out[i * t->shape[3] + j] = phi(map, row[j]);
        }
    }
}

void fb_flow_plain_walk(const struct flow_plain_walk *walk)
{
    const int64_t dim = walk->dim;
    memset(walk->sum, 0, (size_t)dim * sizeof *walk->sum);
    for (int64_t step = 0; step < walk->rows; step++) {
        const int64_t t = walk->reverse ? walk->rows - 1 - step : step;
        const double weight = walk->weight == NULL ? 1.0 : (double)walk->weight[t];
        double dot = 0.0;
        for (int64_t j = 0; j < dim; j++) {
            walk->sum[j] += weight * ((double)walk->x[t * dim + j] + (double)walk->x_eps);
            const double sum = walk->sum[j] + (double)walk->sum_eps;
            if (walk->dot != NULL) {
                dot += ((double)walk->dot[t * dim + j] + (double)walk->dot_eps) * sum;
            }
            if (walk->out != NULL) {
                walk->out[t * dim + j] += (float)((double)walk->coefficient[t] * sum);
            }
        }
        if (walk->dot != NULL) {
            walk->scalars[t] = (float)dot;
        }
    }
}

/* ---- normal -------------------------------------------------------------------------------- */

/* sum[j] = eps + sum_i weight_i x_ij, gathered in double; weight NULL meaning ones. */
static void column_sums(const float *x, int64_t rows, int64_t dim, const float *weight,
                        double *wide, float *sum)
{
    memset(wide, 0, (size_t)dim * sizeof *wide);
    for (int64_t i = 0; i < rows; i++) {
        const double w = weight == NULL ? 1.0 : (double)weight[i];
        for (int64_t j = 0; j < dim; j++) {
            wide[j] += w * (double)x[i * dim + j];
        }
    }
    for (int64_t j = 0; j < dim; j++) {
        sum[j] = (float)(wide[j] + (double)FB_FLOW_EPSILON);
    }
}

/* out[i] = (x_i + eps) . v + extra, v holding eps already. */
static void inner_products(const float *x, int64_t rows, int64_t dim, const float *v, float extra,
                           float *out)
{
    double sum = 0.0;
    for (int64_t j = 0; j < dim; j++) {
        sum += (double)v[j];
    }
    const float constant = (float)((double)FB_FLOW_EPSILON * sum + (double)extra);
    for (int64_t i = 0; i < rows; i++) {
        out[i] = constant;
    }
    cblas_sgemv(CblasRowMajor, CblasNoTrans, (int)rows, (int)dim, 1.0F, x, (int)dim, v, 1, 1.0F,
                out, 1);
}

static void invert(float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        x[i] = 1.0F / x[i];
    }
}

static void normal_flows(const struct flow_plain_place *at, const struct flow_plain_head *s)
{
    const int64_t L = at->sinks, S = at->sources, D = at->problem->qk_dim;
    const float extra = at->options.extra_eps;
    column_sums(s->k, S, D, NULL, s->running, s->sum_k);
    column_sums(s->q, L, D, NULL, s->running, s->sum_q);
    inner_products(s->q, L, D, s->sum_k, extra, s->incoming);
    inner_products(s->k, S, D, s->sum_q, extra, s->outgoing);
    invert(s->incoming, L);
    invert(s->outgoing, S);
    column_sums(s->k, S, D, s->outgoing, s->running, s->u);
    column_sums(s->q, L, D, s->incoming, s->running, s->w);
    inner_products(s->q, L, D, s->u, extra, s->conserved);
    inner_products(s->k, S, D, s->w, extra, s->flow);
}

static void normal_output(const struct flow_plain_place *at, const struct flow_plain_head *s,
                          const float *r)
{
    const struct fb_tensor *out = &at->call->out;
    const int64_t D = at->problem->qk_dim, M = at->problem->v_dim;
    float *rows = fb_tensor_row_f32(out, at->batch, at->head, 0);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)D, (int)M, (int)at->sources, 1.0F,
                s->k, (int)D, s->weighted, (int)M, 0.0F, s->product, (int)M);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)at->sinks, (int)M, (int)D, 1.0F,
                s->q, (int)D, s->product, (int)M, 0.0F, rows, (int)out->stride[2]);
    for (int64_t i = 0; i < at->sinks; i++) {
        float *row = fb_tensor_row_f32(out, at->batch, at->head, i);
        for (int64_t m = 0; m < M; m++) {
            row[m] *= r[i];
        }
    }
}

/* ---- causal -------------------------------------------------------------------------------- */

/* out[t] = (x_t + eps) . (sum_{u<=t} weight_u y_u + eps) */
static void running_inner_products(const struct flow_plain_place *at, const float *x,
                                   const float *y, const float *weight, double *sum, float *out)
{
    struct flow_plain_walk walk = {.rows = at->sinks,
                                   .dim = at->problem->qk_dim,
                                   .x = y,
                                   .weight = weight,
                                   .sum_eps = FB_FLOW_EPSILON,
                                   .dot_eps = FB_FLOW_EPSILON,
                                   .dot = x};
    walk.scalars = out;
    walk.sum = sum;
    fb_flow_plain_walk(&walk);
}

static void causal_flows(const struct flow_plain_place *at, const struct flow_plain_head *s)
{
    const float extra = at->options.extra_eps;
    running_inner_products(at, s->q, s->k, NULL, s->running, s->incoming);
    running_inner_products(at, s->k, s->q, NULL, s->running, s->outgoing);
    for (int64_t t = 0; t < at->sinks; t++) {
        s->incoming[t] = (float)(t + 1) / (s->incoming[t] + extra);
        s->outgoing[t] = (float)(t + 1) / (s->outgoing[t] + extra);
    }
    running_inner_products(at, s->q, s->k, s->outgoing, s->running, s->conserved);
    running_inner_products(at, s->k, s->q, s->incoming, s->running, s->flow);
    for (int64_t t = 0; t < at->sinks; t++) {
        s->conserved[t] = (s->conserved[t] + extra) / (float)(t + 1);
        s->flow[t] = (s->flow[t] + extra) / (float)(t + 1);
    }
}

/* product[t] = sum_{u<=t} k_u (weighted_u)^T, the whole [L][D][M] tensor. */
static void running_products(const struct flow_plain_place *at, const struct flow_plain_head *s)
{
    const int64_t D = at->problem->qk_dim, M = at->problem->v_dim;
    memset(s->running, 0, (size_t)(D * M) * sizeof *s->running);
    for (int64_t t = 0; t < at->sinks; t++) {
        float *to = s->product + t * D * M;
        for (int64_t j = 0; j < D; j++) {
            const double k = (double)s->k[t * D + j];
            for (int64_t m = 0; m < M; m++) {
                s->running[j * M + m] += k * (double)s->weighted[t * M + m];
                to[j * M + m] = (float)s->running[j * M + m];
            }
        }
    }
}

static void causal_output(const struct flow_plain_place *at, const struct flow_plain_head *s,
                          const float *r)
{
    const int64_t D = at->problem->qk_dim, M = at->problem->v_dim;
    running_products(at, s);
    for (int64_t t = 0; t < at->sinks; t++) {
        cblas_sgemv(CblasRowMajor, CblasTrans, (int)D, (int)M, r[t] / (float)(t + 1),
                    s->product + t * D * M, (int)M, s->q + t * D, 1, 0.0F,
                    fb_tensor_row_f32(&at->call->out, at->batch, at->head, t), 1);
    }
}

/* ---- competition --------------------------------------------------------------------------- */

static float clamp(float x, float limit)
{
    return fminf(fmaxf(x, -limit), limit);
}

/* p over the tokens, or over the tokens so far, or ones. */
static void compete_in_head(const struct flow_plain_place *at, const struct flow_plain_head *s)
{
    double sum = 0.0, peak = -(double)INFINITY;
    for (int64_t j = 0; j < at->sources; j++) {
        const double o = (double)clamp(s->flow[j], at->options.clamp);
        if (o > peak) {
            sum *= exp(peak - o);
            peak = o;
        }
        sum += exp(o - peak);
        s->competition[j] = at->options.competition == FB_FLOW_NO_COMPETITION
                                ? 1.0F
                                : (float)((double)(j + 1) * exp(o - peak) / sum);
    }
    for (int64_t j = 0;
         j < at->sources && !at->problem->causal && at->options.competition == FB_FLOW_OVER_TOKENS;
         j++) {
        const double o = (double)clamp(s->flow[j], at->options.clamp);
        s->competition[j] = (float)((double)at->sources * exp(o - peak) / sum);
    }
}

/* p over the heads, for every token. */
static void compete_between_heads(const struct flow_plain_place *at,
                                  const struct flow_plain_head *heads, int64_t count)
{
    for (int64_t j = 0; j < at->sources; j++) {
        float peak = -INFINITY, sum = 0.0F;
        for (int64_t h = 0; h < count; h++) {
            peak = fmaxf(peak, clamp(heads[h].flow[j], at->options.clamp));
        }
        for (int64_t h = 0; h < count; h++) {
            heads[h].competition[j] = expf(clamp(heads[h].flow[j], at->options.clamp) - peak);
            sum += heads[h].competition[j];
        }
        for (int64_t h = 0; h < count; h++) {
            heads[h].competition[j] *= (float)at->sources / sum;
        }
    }
}

/* ---- tasks --------------------------------------------------------------------------------- */

static struct flow_plain_place place_of(const struct plain_run *run, int64_t task, int64_t index)
{
    const struct fb_problem *p = run->problem;
    const int64_t tasks_per_batch = p->heads / run->heads_per_task;
    const int64_t batch = task / tasks_per_batch;
    const int64_t head = task % tasks_per_batch * run->heads_per_task + index;
    return (struct flow_plain_place){
        .problem = p,
        .call = run->call,
        .options = fb_flow_options_of(p),
        .batch = batch,
        .head = head,
        .kv_head = head / (p->heads / p->kv_heads),
        .sinks = fb_problem_queries(p, batch),
        .sources = fb_problem_keys(p, batch),
    };
}

static unsigned char *worker_memory(const struct plain_run *run, int thread)
{
    unsigned char *scratch = run->call->scratch;
    assert(scratch != NULL);
    return scratch + (size_t)thread * run->worker_bytes;
}

/* A head's matrices: in what is saved, or in the worker's scratch. */
static struct flow_plain_head head_of(const struct plain_run *run,
                                      const struct flow_plain_place *at, int64_t index, int thread)
{
    struct flow_plain_head head;
    unsigned char *base =
        run->call->saved == NULL
            ? worker_memory(run, thread) + (size_t)index * run->head_bytes
            : (unsigned char *)run->call->saved +
                  (size_t)(at->batch * run->problem->heads + at->head) * run->head_bytes;
    carve(run->problem, base, &head);
    return head;
}

static void flows(const struct flow_plain_place *at, const struct flow_plain_head *s)
{
    apply_phi(at->options.phi, &at->call->q, at->batch, at->head, at->sinks, s->q);
    apply_phi(at->options.phi, &at->call->k, at->batch, at->kv_head, at->sources, s->k);
    if (at->problem->causal) {
        causal_flows(at, s);
    } else {
        normal_flows(at, s);
    }
    compete_in_head(at, s);
}

static void output(const struct flow_plain_place *at, const struct flow_plain_head *s)
{
    const struct fb_tensor *v = &at->call->v;
    const float ratio =
        at->problem->causal ? 1.0F : (float)((double)at->sinks / (double)at->sources);
    for (int64_t j = 0; j < at->sources; j++) {
        const float *row = fb_tensor_row_f32(v, at->batch, at->kv_head, j);
        for (int64_t m = 0; m < v->shape[3]; m++) {
            s->weighted[j * v->shape[3] + m] = s->competition[j] * row[m];
        }
    }
    /* The running sum of the flows is spent: its room takes the factors of the rows. */
    float *r = s->conserved;
    for (int64_t i = 0; i < at->sinks; i++) {
        r[i] = (at->options.allocation ? sigmoid(ratio * s->conserved[i]) : 1.0F) * s->incoming[i];
    }
    if (at->problem->causal) {
        causal_output(at, s, r);
    } else {
        normal_output(at, s, r);
    }
}

static void forward_task(void *context, int64_t task, int thread)
{
    const struct plain_run *run = context;
    struct flow_plain_head *heads =
        (struct flow_plain_head *)(void *)(worker_memory(run, thread) +
                                           (size_t)run->heads_per_task * run->head_bytes);
    for (int64_t i = 0; i < run->heads_per_task; i++) {
        const struct flow_plain_place at = place_of(run, task, i);
        if (at.sinks == 0 || at.sources == 0) {
            return;
        }
        heads[i] = head_of(run, &at, i, thread);
        flows(&at, &heads[i]);
    }
    const struct flow_plain_place first = place_of(run, task, 0);
    if (first.options.competition == FB_FLOW_OVER_HEADS) {
        compete_between_heads(&first, heads, run->heads_per_task);
    }
    for (int64_t i = 0; i < run->heads_per_task; i++) {
        const struct flow_plain_place at = place_of(run, task, i);
        output(&at, &heads[i]);
    }
}

static void backward_task(void *context, int64_t task, int thread)
{
    const struct plain_run *run = context;
    const struct fb_problem *p = run->problem;
    const int64_t count = run->heads_per_task;
    unsigned char *base = worker_memory(run, thread);
    assert(base != NULL);
    const bool between = fb_flow_options_of(p).competition == FB_FLOW_OVER_HEADS;
    float *mean = (float *)(void *)(base + (size_t)count * run->gradient_bytes);
    for (int64_t i = 0; i < count; i++) {
        const struct flow_plain_place at = place_of(run, task, i);
        if (at.sinks == 0 || at.sources == 0) {
            return;
        }
        const struct flow_plain_head f = head_of(run, &at, i, thread);
        struct flow_plain_gradient g;
        fb_flow_plain_gradient_carve(p, base + (size_t)i * run->gradient_bytes, &g);
        fb_flow_plain_pull(&at, &f, &g);
        for (int64_t j = 0; between && j < at.sources; j++) {
            const float share = f.competition[j] / (float)at.sources * g.dp[j];
            mean[j] = (i == 0 ? 0.0F : mean[j]) + share;
        }
    }
    for (int64_t i = 0; i < count; i++) {
        const struct flow_plain_place at = place_of(run, task, i);
        const struct flow_plain_head f = head_of(run, &at, i, thread);
        struct flow_plain_gradient g;
        fb_flow_plain_gradient_carve(p, base + (size_t)i * run->gradient_bytes, &g);
        const bool add = at.head % (p->heads / p->kv_heads) != 0;
        fb_flow_plain_push(&at, &f, &g, between ? mean : NULL, add);
    }
}

/* ---- the variant --------------------------------------------------------------------------- */

static int64_t task_count(const struct plain_run *run)
{
    return run->problem->batch * (run->problem->heads / run->heads_per_task);
}

static int worker_count(const struct plain_run *run, int threads)
{
    return (int)(task_count(run) < threads ? task_count(run) : threads);
}

static size_t aligned(size_t bytes)
{
    return (bytes + FB_ALIGNMENT - 1) / FB_ALIGNMENT * FB_ALIGNMENT;
}

static void make_run(const struct fb_problem *p, const struct fb_call *call, bool backward,
                     struct plain_run *run)
{
    struct flow_plain_head head;
    struct flow_plain_gradient gradient;
    const bool between = fb_flow_options_of(p).competition == FB_FLOW_OVER_HEADS;
    run->problem = p;
    run->call = call;
    run->heads_per_task = between ? p->heads : p->heads / p->kv_heads;
    run->head_bytes = carve(p, NULL, &head);
    run->gradient_bytes = fb_flow_plain_gradient_carve(p, NULL, &gradient);
    const size_t count = (size_t)run->heads_per_task;
    if (backward) {
        run->worker_bytes =
            count * run->gradient_bytes + aligned((size_t)p->kv_len * sizeof(float));
    } else {
        run->worker_bytes = count * run->head_bytes + aligned(count * sizeof head);
    }
}

static enum fb_status run_pass(const struct fb_problem *problem, const struct fb_call *call,
                               bool backward)
{
    struct plain_run run;
    make_run(problem, call, backward, &run);
    const int previous = fb_blas_threads_begin();
    fb_parallel_for(call->threads, task_count(&run), backward ? backward_task : forward_task, &run);
    fb_blas_threads_end(previous);
    return FB_OK;
}

static enum fb_status plain_forward(const struct fb_problem *problem, const struct fb_call *call,
                                    struct fb_error *error)
{
    (void)error;
    fb_clear_padding(problem, &call->out, true);
    return run_pass(problem, call, false);
}

static enum fb_status plain_backward(const struct fb_problem *problem, const struct fb_call *call,
                                     struct fb_error *error)
{
    (void)error;
    fb_clear_padding(problem, &call->dq, true);
    fb_clear_padding(problem, &call->dk, false);
    fb_clear_padding(problem, &call->dv, false);
    return run_pass(problem, call, true);
}

static enum fb_status plain_supports(const struct fb_problem *problem, enum fb_pass pass,
                                     struct fb_error *why)
{
    const int64_t longest = problem->q_len > problem->kv_len ? problem->q_len : problem->kv_len;
    if (problem->dtype != FB_F32) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "flow/plain computes in f32 only, the problem is in %s: use dtype f32",
                            fb_dtype_name(problem->dtype));
    }
    if (longest > INT32_MAX) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "flow/plain hands lengths to OpenBLAS as 32-bit integers: %lld tokens "
                            "are more than 2147483647",
                            (long long)longest);
    }
    if (pass != FB_FORWARD && problem->kv_heads != problem->heads &&
        fb_flow_options_of(problem).competition == FB_FLOW_OVER_HEADS) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "flow/plain has no gradient of competition over heads with grouped "
                            "queries: make kv_heads equal heads");
    }
    return FB_OK;
}

static void plain_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    struct plain_run forward, backward;
    make_run(problem, NULL, false, &forward);
    make_run(problem, NULL, true, &backward);
    const size_t workers = (size_t)worker_count(&forward, threads);
    sizes->saved_bytes = forward.head_bytes * (size_t)(problem->batch * problem->heads);
    sizes->forward_scratch_bytes = forward.worker_bytes * workers;
    sizes->backward_scratch_bytes = backward.worker_bytes * workers;
}

const struct fb_attention fb_flow_plain = {
    .mechanism = &fb_flow,
    .variant = "plain",
    .backend = FB_CPU,
    .isa = FB_ISA_ANY,
    .deterministic = true,
    .supports = plain_supports,
    .sizes = plain_sizes,
    .forward = plain_forward,
    .backward = plain_backward,
};
