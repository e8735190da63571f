/*
 * Performer: linear attention over positive random features of the softmax kernel (FAVOR+).
 * Choromanski et al., "Rethinking Attention with Performers", ICLR 2021, eqs. 4-6, lemma 1 and
 * theorem 2 (orthogonal features):
 *
 *   y = x D^(-1/4);  u = W y;  g = |y|^2 / 2
 *   phi(q) = exp(u - g - max over features of u) + eps
 *   phi(k) = exp(u - g - max over all tokens and features of the head of u) + eps,   eps = 1e-4
 *   out_i = phi(q_i) . sum_j phi(k_j) v_j^T / (phi(q_i) . sum_j phi(k_j))
 *
 * The factor 1/sqrt(features) of either map cancels. Causal: j <= i in both sums, but the maximum
 * over the keys remains that of all tokens: through it a sink depends on later sources.
 */
#ifndef FB_PERFORMER_H
#define FB_PERFORMER_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Position of the parameters in problem->params. */
enum { FB_PERFORMER_FEATURES = 0 };

/* The constants are the projection W [features][D], f32, dense; one for all heads. */
extern const struct fb_mechanism fb_performer;

extern const struct fb_attention fb_performer_fused_scalar;
extern const struct fb_attention fb_performer_fused_avx2;
extern const struct fb_attention fb_performer_fused_avx512;
extern const struct fb_attention fb_performer_fused_neon;

#ifdef __cplusplus
}
#endif
#endif
