/*
 * What the CPU kernels of this room share beyond kernel_support.h: what none of them serves, the
 * heads of keys that grouped queries share, and how a backward pass is cut into tasks.
 */
#ifndef FB_BASELINE_SUPPORT_H
#define FB_BASELINE_SUPPORT_H

#include "kernel_support.h"

/* Refuses what none of the CPU kernels of this room serves. */
static inline enum fb_status fb_baseline_cpu_supports(const struct fb_problem *p, enum fb_pass pass,
                                                      const char *kernel, struct fb_error *why)
{
    if (p->dtype == FB_F64) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s takes f32, bf16 and f16, the problem is in f64: use dtype f32",
                            kernel);
    }
    if (p->qk_dim > FB_HEAD_DIM_MAX || p->v_dim > FB_HEAD_DIM_MAX) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s has head dimensions up to %d: qk_dim is %lld, v_dim is %lld",
                            kernel, FB_HEAD_DIM_MAX, (long long)p->qk_dim, (long long)p->v_dim);
    }
    if (pass == FB_DECODE && p->q_len != 1) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s decodes one token at a time: seq_len is %lld, it must be 1", kernel,
                            (long long)p->q_len);
    }
    if (pass == FB_DECODE && (p->q_lengths != NULL || p->kv_lengths != NULL)) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s has no padding while decoding: leave q_lengths and kv_lengths "
                            "unset",
                            kernel);
    }
    return FB_OK;
}

/* Query heads that share one head of keys and values. */
static inline int64_t fb_baseline_group(const struct fb_problem *p)
{
    return p->heads / p->kv_heads;
}

/* Whether tasks of whole units keep all threads busy; else units are split and work is done twice.
 * Either way gives the same bits. */
static inline bool fb_baseline_whole_units(int64_t units, int threads)
{
    return units % threads == 0 || units >= 4 * (int64_t)threads;
}

static inline void fb_baseline_clear_gradient_padding(const struct fb_problem *p,
                                                      const struct fb_call *call)
{
    fb_clear_padding(p, &call->dq, true);
    fb_clear_padding(p, &call->dk, false);
    fb_clear_padding(p, &call->dv, false);
}

#endif
