/*
 * Softmax attention the direct way, products by OpenBLAS: per head the whole L x S matrix of scores
 * is formed, normalised row by row and multiplied with V. This is what quadratic memory means; the
 * reference point of many published comparisons, and an independent check of the tiled kernel.
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
    size_t thread_bytes;
};

static size_t plain_thread_bytes(const struct fb_problem *p)
{
    struct fb_scratch_cursor cursor = {NULL, 0};
    (void)fb_scratch_take_f32(&cursor, p->q_len * p->kv_len);
    return cursor.used_bytes;
}

static enum fb_status plain_supports(const struct fb_problem *p, enum fb_pass pass,
                                     struct fb_error *why)
{
    (void)pass;
    /* OpenBLAS counts in int, and the matrix must be addressable. */
    if (p->q_len > INT_MAX / 2 || p->kv_len > INT_MAX / 2 ||
        p->q_len > (INT64_MAX / 64) / p->kv_len) {
        return fb_error_set(
            why, FB_ERROR_UNSUPPORTED,
            "softmax plain forms the whole score matrix: %lld x %lld is beyond its "
            "limit of 2^30 rows or columns and 2^57 elements; use the variant tiled",
            (long long)p->q_len, (long long)p->kv_len);
    }
    return fb_baseline_cpu_supports(p, "softmax plain", why);
}

static void plain_sizes(const struct fb_problem *p, int threads, struct fb_sizes *sizes)
{
    const int64_t heads = p->batch * p->heads;
    *sizes = (struct fb_sizes){0};
    sizes->forward_scratch_bytes =
        plain_thread_bytes(p) * (size_t)(threads < heads ? threads : heads);
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

static void plain_run_head(void *context, int64_t head, int thread)
{
    const struct plain_kernel *kernel = (const struct plain_kernel *)context;
    const struct fb_problem *p = kernel->problem;
    const struct fb_call *call = kernel->call;
    float *scores =
        (float *)(void *)((unsigned char *)call->scratch + (size_t)thread * kernel->thread_bytes);
    const int64_t b = head / p->heads;
    const int64_t h = head % p->heads;
    const int sinks = (int)p->q_len;
    const int sources = (int)p->kv_len;
    const float scale = (float)(1.0 / sqrt((double)p->qk_dim));

    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, sinks, sources, (int)p->qk_dim, scale,
                fb_tensor_row_f32(&call->q, b, h, 0), (int)call->q.stride[2],
                fb_tensor_row_f32(&call->k, b, h, 0), (int)call->k.stride[2], 0.0F, scores,
                sources);
    for (int64_t i = 0; i < p->q_len; i++) {
        const int64_t seen = p->causal && i + 1 < p->kv_len ? i + 1 : p->kv_len;
        plain_softmax_row(scores + i * p->kv_len, seen, p->kv_len);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, sinks, (int)p->v_dim, sources, 1.0F,
                scores, sources, fb_tensor_row_f32(&call->v, b, h, 0), (int)call->v.stride[2], 0.0F,
                fb_tensor_row_f32(&call->out, b, h, 0), (int)call->out.stride[2]);
}

static enum fb_status plain_forward(const struct fb_problem *problem, const struct fb_call *call,
                                    struct fb_error *error)
{
    const int64_t strides[4] = {call->q.stride[2], call->k.stride[2], call->v.stride[2],
                                call->out.stride[2]};
    for (int i = 0; i < 4; i++) {
        if (strides[i] > INT_MAX) {
            return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                                "softmax plain hands strides to OpenBLAS as int: a token stride of "
                                "%lld is beyond %d; use the variant tiled",
                                (long long)strides[i], INT_MAX);
        }
    }
    struct plain_kernel kernel = {problem, call, plain_thread_bytes(problem)};
    const int blas_threads = fb_blas_threads_begin();
    fb_parallel_for(call->threads, problem->batch * problem->heads, plain_run_head, &kernel);
    fb_blas_threads_end(blas_threads);
    return FB_OK;
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
    .backward = NULL,
    .decode = NULL,
};
