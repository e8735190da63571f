/*
 * Linear attention: out_i = phi(q_i) . sum_j phi(k_j) v_j^T / (phi(q_i) . sum_j phi(k_j) + eps),
 * phi(x) = elu(x) + 1, eps = 1e-6; causal: j <= i in both sums.
 * Katharopoulos et al., "Transformers are RNNs", ICML 2020, eqs. 5-7 and 9-12.
 */
#ifndef FB_LINEAR_H
#define FB_LINEAR_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct fb_mechanism fb_linear;

/* Features, state and output in one pass over blocks of tokens; causal in chunks. */
extern const struct fb_attention fb_linear_fused_scalar;
extern const struct fb_attention fb_linear_fused_avx2;
extern const struct fb_attention fb_linear_fused_avx512;
extern const struct fb_attention fb_linear_fused_neon;

/* The same on a GPU, in builds with CUDA. */
extern const struct fb_attention fb_linear_fused_cuda;

#ifdef __cplusplus
}
#endif
#endif
