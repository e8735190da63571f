/*
 * Local attention: softmax over a part of the keys.
 *
 * pattern window: the keys within a window, |i - j| <= window, or 0 <= i - j <= window when causal.
 * A row without a key in its window gives 0. Sliding windows as in Beltagy et al., "Longformer",
 * 2020, section 3.1 (without dilation). Decoding remembers window + 1 tokens.
 *
 * pattern strided: what the released Long Range Arena code computes (Tay et al., 2021). With blocks
 * of B tokens a sequence of n is padded to n' = n + B - (n mod B) (a whole block when B divides n)
 * and reshaped to [B, n' / B]; attention runs along the first axis, so that token p sees exactly
 * the tokens p' with p' = p (mod n' / B). The appended positions count as keys of score 0 and value
 * 0. Self-attention only, not causal, without padding.
 */
#ifndef FB_LOCAL_H
#define FB_LOCAL_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Position of the parameters in problem->params. */
enum fb_local_param {
    FB_LOCAL_WINDOW,
    FB_LOCAL_PATTERN, /* enum fb_local_pattern */
    FB_LOCAL_BLOCK,
    FB_LOCAL_PARAM_COUNT
};

enum fb_local_pattern { FB_LOCAL_PATTERN_WINDOW, FB_LOCAL_PATTERN_STRIDED };

extern const struct fb_mechanism fb_local;

/* The tiled softmax, restricted to the pattern: time is linear in N. */
extern const struct fb_attention fb_local_tiled_scalar;
extern const struct fb_attention fb_local_tiled_avx2;
extern const struct fb_attention fb_local_tiled_avx512;
extern const struct fb_attention fb_local_tiled_neon;

/* The same on a GPU, in builds with CUDA; pattern window only. */
extern const struct fb_attention fb_local_tiled_cuda;

static inline bool fb_local_is_strided(const struct fb_problem *problem)
{
    return (int)problem->params[FB_LOCAL_PATTERN] == FB_LOCAL_PATTERN_STRIDED;
}

/* n' / B: the distance of the tokens that see each other in the strided pattern. */
static inline int64_t fb_local_stride(const struct fb_problem *problem)
{
    return problem->q_len / (int64_t)problem->params[FB_LOCAL_BLOCK] + 1;
}

#ifdef __cplusplus
}
#endif
#endif
