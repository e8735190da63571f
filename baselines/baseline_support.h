/*
 * What the mechanism objects and the kernels of this room share: the bytes of the floor
 * (PERFORMANCE.md, "The floor"), what no kernel here serves yet, and the layout of scratch memory.
 */
#ifndef FB_BASELINE_SUPPORT_H
#define FB_BASELINE_SUPPORT_H

#include "attention.h"

/* Every input read once, every output written once. Forward reads q, k, v and writes out; backward
 * reads q, k, v, dout and writes dq, dk, dv; decode is forward with q_len new tokens. */
static inline double fb_baseline_bytes(const struct fb_problem *p, enum fb_pass pass)
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

/* Value of a parameter of the problem, by its position in the mechanism's table. */
static inline int64_t fb_baseline_int_param(const struct fb_problem *problem, int index)
{
    return (int64_t)problem->params[index];
}

/* Refuses what none of the CPU kernels of this room serves. */
static inline enum fb_status fb_baseline_cpu_supports(const struct fb_problem *p,
                                                      const char *kernel, struct fb_error *why)
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

/* Hands out aligned pieces of a scratch buffer; with base NULL it only counts. */
struct fb_scratch_cursor {
    unsigned char *base;
    size_t used_bytes;
};

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
