/*
 * What the mechanism objects and the kernels of this room share: the bytes of the floor
 * (PERFORMANCE.md, "The floor"), what no kernel here serves yet, and the layout of scratch memory.
 */
#ifndef FB_KERNEL_SUPPORT_H
#define FB_KERNEL_SUPPORT_H

#include "attention.h"
#include "dtype.h"

#include <string.h>

/* Every input read once, every output written once. Forward reads q, k, v and writes out; backward
 * reads q, k, v, dout and writes dq, dk, dv; decode is forward with q_len new tokens. */
static inline double fb_problem_bytes(const struct fb_problem *p, enum fb_pass pass)
{
    const double q = (double)p->batch * (double)p->heads * (double)p->q_len;
    const double kv = (double)p->batch * (double)p->kv_heads * (double)p->kv_len;
    const double inputs = q * (double)p->qk_dim + kv * ((double)p->qk_dim + (double)p->v_dim);
    const double out = q * (double)p->v_dim;
    const double forward = inputs + out;
    const double backward = inputs + out + inputs;
    const double element = (double)fb_dtype_bytes(p->dtype);
    switch (pass) {
    case FB_BACKWARD:
        return element * backward;
    case FB_BOTH:
        return element * (forward + backward);
    default:
        return element * forward;
    }
}

/* Decoding one token against a recurrent state of state_count numbers in each of state_heads heads
 * (of queries, or of keys): the state, in f32 whatever the dtype, read and written once; the
 * token's q, k, v read, its out written. */
static inline double fb_decode_bytes(const struct fb_problem *p, int64_t state_heads,
                                     double state_count)
{
    const double states = (double)p->batch * (double)state_heads * state_count;
    const double heads = (double)p->batch * (double)p->heads;
    const double kv_heads = (double)p->batch * (double)p->kv_heads;
    const double dims = (double)p->qk_dim + (double)p->v_dim;
    return 2.0 * (double)sizeof(float) * states +
           (double)fb_dtype_bytes(p->dtype) * (heads + kv_heads) * dims;
}

/* Value of a parameter of the problem, by its position in the mechanism's table. */
static inline int64_t fb_problem_int_param(const struct fb_problem *problem, int index)
{
    return (int64_t)problem->params[index];
}

/* Refuses what none of the CPU kernels of this room serves. */
static inline enum fb_status fb_cpu_supports_common(const struct fb_problem *p, const char *kernel,
                                                    struct fb_error *why)
{
    if (p->dtype != FB_F32) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s computes in f32 only, the problem is in %s: use dtype f32", kernel,
                            fb_dtype_name(p->dtype));
    }
    if (p->kv_heads != p->heads) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s has no grouped queries: kv_heads is %lld, heads is %lld; make them "
                            "equal",
                            kernel, (long long)p->kv_heads, (long long)p->heads);
    }
    if (p->q_lengths != NULL || p->kv_lengths != NULL) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s has no padding: leave q_lengths and kv_lengths unset", kernel);
    }
    if (p->qk_dim > FB_HEAD_DIM_MAX || p->v_dim > FB_HEAD_DIM_MAX) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s has head dimensions up to %d: qk_dim is %lld, v_dim is %lld",
                            kernel, FB_HEAD_DIM_MAX, (long long)p->qk_dim, (long long)p->v_dim);
    }
    return FB_OK;
}

/* Valid tokens of a batch element: its length, or the problem's when there are no lengths. */
static inline int64_t fb_problem_queries(const struct fb_problem *p, int64_t batch)
{
    return p->q_lengths != NULL ? p->q_lengths[batch] : p->q_len;
}

static inline int64_t fb_problem_keys(const struct fb_problem *p, int64_t batch)
{
    return p->kv_lengths != NULL ? p->kv_lengths[batch] : p->kv_len;
}

/* Zeroes the padding rows of an output or gradient; all rows of a batch element that has no
 * queries or no keys. queries: the rows are queries (out, dq), else keys (dk, dv). */
static inline void fb_clear_padding(const struct fb_problem *p, const struct fb_tensor *x,
                                    bool queries)
{
    for (int64_t b = 0; b < x->shape[0]; b++) {
        const int64_t q = fb_problem_queries(p, b), kv = fb_problem_keys(p, b);
        const int64_t valid = q == 0 || kv == 0 ? 0 : queries ? q : kv;
        for (int64_t h = 0; h < x->shape[1]; h++) {
            for (int64_t i = valid; i < x->shape[2]; i++) {
                memset(fb_tensor_row(x, b, h, i), 0,
                       (size_t)x->shape[3] * fb_dtype_bytes(x->dtype));
            }
        }
    }
}

/* Hands out aligned pieces of a scratch buffer; with base NULL it only counts. */
struct fb_scratch_cursor {
    unsigned char *base;
    size_t used_bytes;
};

/* A cursor at the start of base; with base NULL it only counts. */
static inline struct fb_scratch_cursor fb_scratch_at(void *base)
{
    struct fb_scratch_cursor cursor = {NULL, 0};
    cursor.base = (unsigned char *)base;
    return cursor;
}

static inline void *fb_scratch_take(struct fb_scratch_cursor *cursor, int64_t count,
                                    size_t element_bytes)
{
    const size_t bytes = (size_t)count * element_bytes;
    void *piece = cursor->base == NULL ? NULL : cursor->base + cursor->used_bytes;
    cursor->used_bytes += (bytes + FB_ALIGNMENT - 1) / FB_ALIGNMENT * FB_ALIGNMENT;
    return piece;
}

static inline float *fb_scratch_take_f32(struct fb_scratch_cursor *cursor, int64_t count)
{
    return (float *)fb_scratch_take(cursor, count, sizeof(float));
}

static inline double *fb_scratch_take_f64(struct fb_scratch_cursor *cursor, int64_t count)
{
    return (double *)fb_scratch_take(cursor, count, sizeof(double));
}

#endif
