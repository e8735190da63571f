/*
 * Local attention: softmax over the keys within a window, |i - j| <= window, or
 * 0 <= i - j <= window when causal. A row without a key in its window gives 0.
 * Sliding windows as in Beltagy et al., "Longformer", 2020, section 3.1 (without dilation).
 */
#ifndef FB_LOCAL_H
#define FB_LOCAL_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Position of the parameters in problem->params. */
enum { FB_LOCAL_WINDOW = 0 };

extern const struct fb_mechanism fb_local;

/* The tiled softmax, restricted to the band: time is linear in N. */
extern const struct fb_attention fb_local_tiled_scalar;
extern const struct fb_attention fb_local_tiled_avx2;
extern const struct fb_attention fb_local_tiled_avx512;
extern const struct fb_attention fb_local_tiled_neon;

#ifdef __cplusplus
}
#endif
#endif
