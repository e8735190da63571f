/*
 * Softmax attention the direct way, products by OpenBLAS: per head the whole L x S matrix of scores
 * is formed, normalised row by row and multiplied with V. A training forward keeps the matrices of
 * all heads, as automatic differentiation would, and backward multiplies with them:
 *
 *   dV = P^T dO    dP = dO V^T    dS = P (dP - delta) / sqrt(D), delta_i = dO_i . O_i
 *   dQ = dS K      dK = dS^T Q
 *
 * This is what quadratic memory means; the reference point of many published comparisons, and an
 * independent check of the tiled kernel. A task is a head, or backward the heads that share keys.
 */
#include "softmax/softmax.h"

#include "baseline_support.h"
#include "blas.h"
#include "parallel.h"

#include <cblas.h>
#include <limits.h>
#include <math.h>

struct plain_kernel {
    const struct fb_problem *problem;
    const struct fb_call *call;
    size_t matrix_bytes;
};

/* One head; sinks and sources without padding. */
struct plain_head {
    const struct fb_problem *problem;
    const struct fb_call *call;
    int64_t b, h, kv_head;
    int sinks, sources, qk_dim, v_dim;
    float scale;
    float *weights; /* [sinks][sources] P */
};

static size_t plain_matrix_bytes(const struct fb_problem *p)
{
    struct fb_scratch_cursor cursor = {NULL, 0};
    (void)fb_scratch_take_f32(&cursor, p->q_len * p->kv_len);
    return cursor.used_bytes;
}

static enum fb_status plain_supports(const struct fb_problem *p, enum fb_pass pass,
                                     struct fb_error *why)
{
    /* OpenBLAS counts in int, and the matrix must be addressable. */
    if (p->q_len > INT_MAX / 2 || p->kv_len > INT_MAX / 2 ||
        p->q_len > (INT64_MAX / 64) / p->kv_len) {
        return fb_error_set(
            why, FB_ERROR_UNSUPPORTED,
            "softmax plain forms the whole score matrix: %lld x %lld is beyond its "
            "limit of 2^30 rows or columns and 2^57 elements; use the variant tiled",
            (long long)p->q_len, (long long)p->kv_len);
    }
    const int64_t heads = p->batch * p->heads;
    if (pass != FB_FORWARD && plain_matrix_bytes(p) > (size_t)(INT64_MAX / 2 / heads)) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "softmax plain keeps the score matrices of all heads for its gradient: "
                            "%lld of %lld x %lld cannot be addressed; use the variant tiled",
                            (long long)heads, (long long)p->q_len, (long long)p->kv_len);
    }
    if (p->dtype != FB_F32) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "softmax plain computes in f32 only, the problem is in %s: use dtype "
                            "f32, or variant tiled",
                            fb_dtype_name(p->dtype));
    }
    return fb_baseline_cpu_supports(p, pass, "softmax plain", why);
}

static void plain_sizes(const struct fb_problem *p, int threads, struct fb_sizes *sizes)
{
    const int64_t heads = p->batch * p->heads;
    const int64_t units = p->batch * p->kv_heads;
    const size_t bytes = plain_matrix_bytes(p);
    sizes->forward_scratch_bytes = bytes * (size_t)(threads < heads ? threads : heads);
    /* Where this does not fit in a size, plain_supports refuses the gradient. */
    if (bytes <= (size_t)(INT64_MAX / 2 / heads)) {
        sizes->saved_bytes = bytes * (size_t)heads;
        sizes->backward_scratch_bytes = bytes * (size_t)(threads < units ? threads : units);
    }
}

/* Replaces the first `seen` scores of a row by their softmax and the others by 0. */
static void plain_softmax_row(float *row, int64_t seen, int64_t count)
{
    float maximum = row[0];
    for (int64_t j = 1; j < seen; j++) {
        maximum = row[j] > maximum ? row[j] : maximum;
    }
    double total = 0.0;
    for (int64_t j = 0; j < seen; j++) {
        row[j] = expf(row[j] - maximum);
        total += (double)row[j];
    }
    const float share = (float)(1.0 / total);
    for (int64_t j = 0; j < seen; j++) {
        row[j] *= share;
    }
    for (int64_t j = seen; j < count; j++) {
        row[j] = 0.0F;
    }
}

static struct plain_head plain_head_at(const struct plain_kernel *kernel, int64_t head, int thread)
{
    const struct fb_problem *p = kernel->problem;
    const struct fb_call *call = kernel->call;
    struct plain_head x = {.problem = p, .call = call, .b = head / p->heads, .h = head % p->heads};
    unsigned char *base = (unsigned char *)(call->saved != NULL ? call->saved : call->scratch);
    const int64_t index = call->saved != NULL ? head : thread;
    x.kv_head = x.h / fb_baseline_group(p);
    x.sources = (int)fb_problem_keys(p, x.b);
    x.sinks = x.sources == 0 ? 0 : (int)fb_problem_queries(p, x.b);
    x.qk_dim = (int)p->qk_dim;
    x.v_dim = (int)p->v_dim;
    x.scale = (float)(1.0 / sqrt((double)p->qk_dim));
    x.weights = (float *)(void *)(base + (size_t)index * kernel->matrix_bytes);
    return x;
}

static void plain_run_head(void *context, int64_t head, int thread)
{
    const struct plain_head x = plain_head_at((const struct plain_kernel *)context, head, thread);
    const struct fb_tensor *q = &x.call->q, *k = &x.call->k, *v = &x.call->v, *out = &x.call->out;
    if (x.sinks == 0) {
        return;
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, x.sinks, x.sources, x.qk_dim, x.scale,
                fb_tensor_row_f32(q, x.b, x.h, 0), (int)q->stride[2],
                fb_tensor_row_f32(k, x.b, x.kv_head, 0), (int)k->stride[2], 0.0F, x.weights,
                x.sources);
    for (int64_t i = 0; i < x.sinks; i++) {
        const int64_t seen = x.problem->causal && i + 1 < x.sources ? i + 1 : x.sources;
        plain_softmax_row(x.weights + i * x.sources, seen, x.sources);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, x.sinks, x.v_dim, x.sources, 1.0F,
                x.weights, x.sources, fb_tensor_row_f32(v, x.b, x.kv_head, 0), (int)v->stride[2],
                0.0F, fb_tensor_row_f32(out, x.b, x.h, 0), (int)out->stride[2]);
}

/* slopes [sinks][sources]: dP becomes dS. */
static void plain_differentiate(const struct plain_head *x, float *slopes)
{
    for (int64_t i = 0; i < x->sinks; i++) {
        const float *dout = fb_tensor_row_f32(&x->call->dout, x->b, x->h, i);
        const float *out = fb_tensor_row_f32(&x->call->out, x->b, x->h, i);
        double delta = 0.0;
        for (int64_t m = 0; m < x->v_dim; m++) {
            delta += (double)dout[m] * (double)out[m];
        }
        for (int64_t j = 0; j < x->sources; j++) {
            const int64_t at = i * x->sources + j;
            slopes[at] = x->scale * x->weights[at] * (slopes[at] - (float)delta);
        }
    }
}

/* beta 1 adds to the dk and dv of earlier heads of the group, 0 overwrites. */
static void plain_head_gradients(const struct plain_head *x, float *slopes, float beta)
{
    const struct fb_call *call = x->call;
    const struct fb_tensor *dq = &call->dq, *dk = &call->dk, *dv = &call->dv;
    const float *q = fb_tensor_row_f32(&call->q, x->b, x->h, 0);
    const float *k = fb_tensor_row_f32(&call->k, x->b, x->kv_head, 0);
    const float *v = fb_tensor_row_f32(&call->v, x->b, x->kv_head, 0);
    const float *dout = fb_tensor_row_f32(&call->dout, x->b, x->h, 0);
    const int dout_stride = (int)call->dout.stride[2];
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, x->sinks, x->sources, x->v_dim, 1.0F, dout,
                dout_stride, v, (int)call->v.stride[2], 0.0F, slopes, x->sources);
    plain_differentiate(x, slopes);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, x->sources, x->v_dim, x->sinks, 1.0F,
                x->weights, x->sources, dout, dout_stride, beta,
                fb_tensor_row_f32(dv, x->b, x->kv_head, 0), (int)dv->stride[2]);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, x->sinks, x->qk_dim, x->sources, 1.0F,
                slopes, x->sources, k, (int)call->k.stride[2], 0.0F,
                fb_tensor_row_f32(dq, x->b, x->h, 0), (int)dq->stride[2]);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, x->sources, x->qk_dim, x->sinks, 1.0F,
                slopes, x->sources, q, (int)call->q.stride[2], beta,
                fb_tensor_row_f32(dk, x->b, x->kv_head, 0), (int)dk->stride[2]);
}

static void plain_run_group(void *context, int64_t unit, int thread)
{
    const struct plain_kernel *kernel = (const struct plain_kernel *)context;
    const int64_t group = fb_baseline_group(kernel->problem);
    unsigned char *scratch = (unsigned char *)kernel->call->scratch;
    float *slopes = (float *)(void *)(scratch + (size_t)thread * kernel->matrix_bytes);
    for (int64_t round = 0; round < group; round++) {
        const struct plain_head x = plain_head_at(kernel, unit * group + round, thread);
        if (x.sinks > 0) {
            plain_head_gradients(&x, slopes, round == 0 ? 0.0F : 1.0F);
        }
    }
}

static enum fb_status plain_check_strides(const struct fb_tensor *const *tensors, int count,
                                          struct fb_error *error)
{
    for (int i = 0; i < count; i++) {
        if (tensors[i]->stride[2] > INT_MAX) {
            return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                                "softmax plain hands strides to OpenBLAS as int: a token stride of "
                                "%lld is beyond %d; use the variant tiled",
                                (long long)tensors[i]->stride[2], INT_MAX);
        }
    }
    return FB_OK;
}

static void plain_run(const struct fb_problem *problem, const struct fb_call *call, int64_t tasks,
                      fb_task_fn run)
{
    struct plain_kernel kernel = {problem, call, plain_matrix_bytes(problem)};
    const int blas_threads = fb_blas_threads_begin();
    fb_parallel_for(call->threads, tasks, run, &kernel);
    fb_blas_threads_end(blas_threads);
}

static enum fb_status plain_forward(const struct fb_problem *problem, const struct fb_call *call,
                                    struct fb_error *error)
{
    const struct fb_tensor *const tensors[] = {&call->q, &call->k, &call->v, &call->out};
    const enum fb_status status = plain_check_strides(tensors, 4, error);
    if (status == FB_OK) {
        plain_run(problem, call, problem->batch * problem->heads, plain_run_head);
        fb_clear_padding(problem, &call->out, true);
    }
    return status;
}

static enum fb_status plain_backward(const struct fb_problem *problem, const struct fb_call *call,
                                     struct fb_error *error)
{
    const struct fb_tensor *const tensors[] = {&call->q,    &call->k,  &call->v,  &call->out,
                                               &call->dout, &call->dq, &call->dk, &call->dv};
    const enum fb_status status = plain_check_strides(tensors, 8, error);
    if (status == FB_OK) {
        plain_run(problem, call, problem->batch * problem->kv_heads, plain_run_group);
        fb_baseline_clear_gradient_padding(problem, call);
    }
    return status;
}

const struct fb_attention fb_softmax_plain = {
    .mechanism = &fb_softmax,
    .variant = "plain",
    .backend = FB_CPU,
    .isa = FB_ISA_ANY,
    .deterministic = true,
    .supports = plain_supports,
    .sizes = plain_sizes,
    .forward = plain_forward,
    .backward = plain_backward,
};
