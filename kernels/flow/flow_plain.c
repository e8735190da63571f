/*
 * Flow-Attention as the released PyTorch module computes it, on OpenBLAS: phi(Q) and phi(K) as
 * whole matrices, each sum and product a call over all tokens; the causal form materialises the
 * L x D x M tensor of outer products and its running sum. What people pay who run that code, and
 * what the fused variant is compared with. Equations in flow.h.
 *
 * Threads take heads; a head's buffers live once per thread. Running sums are gathered in double,
 * since the naive float running sum of 65536 terms misses the error budget.
 *
 * Reference: Wu et al., Flowformer, ICML 2022; released core module (normal and causal).
 */
#include "flow.h"

#include "blas.h"
#include "kernel_support.h"
#include "parallel.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

struct plain_run {
    const struct fb_problem *problem;
    const struct fb_call *call;
    size_t worker_bytes;
};

struct plain_scratch {
    float *q, *k;                  /* [L][D], [S][D] phi */
    float *weighted;               /* [S][M] competition times v */
    float *incoming, *conserved;   /* [L] */
    float *outgoing, *competition; /* [S] */
    float *sum_q, *sum_k;          /* [D] */
    float *product;                /* normal: [D][M]; causal: [L][D][M] */
    double *running;               /* causal: [D * M] */
};

static size_t carve(const struct fb_problem *p, void *base, struct plain_scratch *s)
{
    struct fb_scratch_cursor cursor = {.base = base};
    const int64_t state = p->qk_dim * p->v_dim;
    const int64_t running = state > p->qk_dim ? state : p->qk_dim;
    *s = (struct plain_scratch){
        .q = fb_scratch_take_f32(&cursor, p->q_len * p->qk_dim),
        .k = fb_scratch_take_f32(&cursor, p->kv_len * p->qk_dim),
        .weighted = fb_scratch_take_f32(&cursor, p->kv_len * p->v_dim),
        .incoming = fb_scratch_take_f32(&cursor, p->q_len),
        .conserved = fb_scratch_take_f32(&cursor, p->q_len),
        .outgoing = fb_scratch_take_f32(&cursor, p->kv_len),
        .competition = fb_scratch_take_f32(&cursor, p->kv_len),
        .sum_q = fb_scratch_take_f32(&cursor, p->qk_dim),
        .sum_k = fb_scratch_take_f32(&cursor, p->qk_dim),
        .product = fb_scratch_take_f32(&cursor, p->causal ? p->q_len * state : state),
        .running = fb_scratch_take_f64(&cursor, running),
    };
    return cursor.used_bytes;
}

static float sigmoid(float x)
{
    return 1.0F / (1.0F + expf(-x));
}

static void apply_phi(const struct fb_tensor *t, int64_t batch, int64_t head, float *out)
{
    for (int64_t i = 0; i < t->shape[2]; i++) {
        const float *row = fb_tensor_row_f32(t, batch, head, i);
        for (int64_t j = 0; j < t->shape[3]; j++) {
            out[i * t->shape[3] + j] = sigmoid(row[j]);
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

/* out[i] = (x_i + eps) . v, v holding eps already. */
static void inner_products(const float *x, int64_t rows, int64_t dim, const float *v, float *out)
{
    double sum = 0.0;
    for (int64_t j = 0; j < dim; j++) {
        sum += (double)v[j];
    }
    const float constant = (float)((double)FB_FLOW_EPSILON * sum);
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

static float clamp(float x)
{
    return fminf(fmaxf(x, -FB_FLOW_CLAMP), FB_FLOW_CLAMP);
}

/* competition = S softmax(clamp(o)) in place. */
static void softmax_times_count(float *o, int64_t count)
{
    double sum = 0.0;
    for (int64_t j = 0; j < count; j++) {
        o[j] = expf(clamp(o[j]));
        sum += (double)o[j];
    }
    const float scale = (float)((double)count / sum);
    for (int64_t j = 0; j < count; j++) {
        o[j] *= scale;
    }
}

static void weigh_values(const struct fb_tensor *v, int64_t batch, int64_t head,
                         const float *weight, float *out)
{
    for (int64_t j = 0; j < v->shape[2]; j++) {
        const float *row = fb_tensor_row_f32(v, batch, head, j);
        for (int64_t m = 0; m < v->shape[3]; m++) {
            out[j * v->shape[3] + m] = weight[j] * row[m];
        }
    }
}

static void normal_head(const struct plain_run *run, int64_t batch, int64_t head,
                        const struct plain_scratch *s)
{
    const struct fb_problem *p = run->problem;
    const struct fb_tensor *out = &run->call->out;
    const int64_t L = p->q_len, S = p->kv_len, D = p->qk_dim, M = p->v_dim;
    column_sums(s->k, S, D, NULL, s->running, s->sum_k);
    column_sums(s->q, L, D, NULL, s->running, s->sum_q);
    inner_products(s->q, L, D, s->sum_k, s->incoming);
    inner_products(s->k, S, D, s->sum_q, s->outgoing);
    invert(s->incoming, L);
    invert(s->outgoing, S);
    column_sums(s->k, S, D, s->outgoing, s->running, s->sum_k);
    column_sums(s->q, L, D, s->incoming, s->running, s->sum_q);
    inner_products(s->q, L, D, s->sum_k, s->conserved);
    inner_products(s->k, S, D, s->sum_q, s->competition);
    softmax_times_count(s->competition, S);
    weigh_values(&run->call->v, batch, head, s->competition, s->weighted);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)D, (int)M, (int)S, 1.0F, s->k, (int)D,
                s->weighted, (int)M, 0.0F, s->product, (int)M);
    const float ratio = (float)((double)L / (double)S);
    for (int64_t i = 0; i < L; i++) {
        const float scale = sigmoid(ratio * s->conserved[i]) * s->incoming[i];
        for (int64_t j = 0; j < D; j++) {
            s->q[i * D + j] *= scale;
        }
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)L, (int)M, (int)D, 1.0F, s->q,
                (int)D, s->product, (int)M, 0.0F, fb_tensor_row_f32(out, batch, head, 0),
                (int)out->stride[2]);
}

/* ---- causal -------------------------------------------------------------------------------- */

/* out[t] = (x_t + eps) . (sum_{u<=t} weight_u y_u + eps) */
static void running_inner_products(const float *x, const float *y, const float *weight,
                                   int64_t rows, int64_t dim, double *sum, float *out)
{
    memset(sum, 0, (size_t)dim * sizeof *sum);
    for (int64_t t = 0; t < rows; t++) {
        const double w = weight == NULL ? 1.0 : (double)weight[t];
        double dot = 0.0;
        for (int64_t j = 0; j < dim; j++) {
            sum[j] += w * (double)y[t * dim + j];
            dot += ((double)x[t * dim + j] + (double)FB_FLOW_EPSILON) *
                   (sum[j] + (double)FB_FLOW_EPSILON);
        }
        out[t] = (float)dot;
    }
}

/* product[t] = sum_{u<=t} k_u (weighted_u)^T, the whole [L][D][M] tensor. */
static void running_products(const struct fb_problem *p, const struct plain_scratch *s)
{
    const int64_t D = p->qk_dim, M = p->v_dim;
    memset(s->running, 0, (size_t)(D * M) * sizeof *s->running);
    for (int64_t t = 0; t < p->q_len; t++) {
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

static void causal_head(const struct plain_run *run, int64_t batch, int64_t head,
                        const struct plain_scratch *s)
{
    const struct fb_problem *p = run->problem;
    const int64_t L = p->q_len, D = p->qk_dim, M = p->v_dim;
    running_inner_products(s->q, s->k, NULL, L, D, s->running, s->incoming);
    running_inner_products(s->k, s->q, NULL, L, D, s->running, s->outgoing);
    for (int64_t t = 0; t < L; t++) {
        s->incoming[t] = (float)(t + 1) / s->incoming[t];
        s->outgoing[t] = (float)(t + 1) / s->outgoing[t];
    }
    running_inner_products(s->q, s->k, s->outgoing, L, D, s->running, s->conserved);
    running_inner_products(s->k, s->q, s->incoming, L, D, s->running, s->competition);
    double normaliser = 0.0;
    for (int64_t t = 0; t < L; t++) {
        const float n = (float)(t + 1);
        const float e = expf(clamp(s->competition[t] / n));
        normaliser += (double)e;
        s->competition[t] = (float)((double)n * (double)e / normaliser);
    }
    weigh_values(&run->call->v, batch, head, s->competition, s->weighted);
    running_products(p, s);
    for (int64_t t = 0; t < L; t++) {
        const float n = (float)(t + 1);
        const float scale = sigmoid(s->conserved[t] / n) * s->incoming[t] / n;
        cblas_sgemv(CblasRowMajor, CblasTrans, (int)D, (int)M, scale, s->product + t * D * M,
                    (int)M, s->q + t * D, 1, 0.0F,
                    fb_tensor_row_f32(&run->call->out, batch, head, t), 1);
    }
}

/* ---- the variant --------------------------------------------------------------------------- */

static void run_head(void *context, int64_t task, int thread)
{
    const struct plain_run *run = context;
    const int64_t batch = task / run->problem->heads, head = task % run->problem->heads;
    struct plain_scratch s;
    carve(run->problem, (unsigned char *)run->call->scratch + (size_t)thread * run->worker_bytes,
          &s);
    apply_phi(&run->call->q, batch, head, s.q);
    apply_phi(&run->call->k, batch, head, s.k);
    if (run->problem->causal) {
        causal_head(run, batch, head, &s);
    } else {
        normal_head(run, batch, head, &s);
    }
}

static int worker_count(const struct fb_problem *problem, int threads)
{
    const int64_t heads = problem->batch * problem->heads;
    return (int)(heads < threads ? heads : threads);
}

static enum fb_status plain_forward(const struct fb_problem *problem, const struct fb_call *call,
                                    struct fb_error *error)
{
    (void)error;
    struct plain_scratch counted;
    struct plain_run run = {.problem = problem, .call = call};
    run.worker_bytes = carve(problem, NULL, &counted);
    const int previous = fb_blas_threads_begin();
    fb_parallel_for(worker_count(problem, call->threads), problem->batch * problem->heads, run_head,
                    &run);
    fb_blas_threads_end(previous);
    return FB_OK;
}

static enum fb_status plain_supports(const struct fb_problem *problem, enum fb_pass pass,
                                     struct fb_error *why)
{
    (void)pass;
    const enum fb_status status = fb_cpu_supports_common(problem, "flow/plain", why);
    const int64_t longest = problem->q_len > problem->kv_len ? problem->q_len : problem->kv_len;
    if (status == FB_OK && longest > INT32_MAX) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "flow/plain hands lengths to OpenBLAS as 32-bit integers: %lld tokens "
                            "are more than 2147483647",
                            (long long)longest);
    }
    return status;
}

static void plain_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    struct plain_scratch counted;
    sizes->forward_scratch_bytes =
        carve(problem, NULL, &counted) * (size_t)worker_count(problem, threads);
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
};
