/*
 * Softmax attention: out_i = sum_j p_ij v_j, p_ij = softmax over j of q_i . k_j / sqrt(D).
 * Vaswani et al., "Attention Is All You Need", NeurIPS 2017, eq. 1. Causal: j <= i.
 */
#ifndef FB_SOFTMAX_H
#define FB_SOFTMAX_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct fb_mechanism fb_softmax;

/* Blocks of queries and keys with a running maximum and sum: memory does not grow with N. */
extern const struct fb_attention fb_softmax_tiled_scalar;
extern const struct fb_attention fb_softmax_tiled_avx2;
extern const struct fb_attention fb_softmax_tiled_avx512;
extern const struct fb_attention fb_softmax_tiled_neon;

/* The same on a GPU, in builds with CUDA. */
extern const struct fb_attention fb_softmax_tiled_cuda;
extern const struct fb_attention fb_softmax_cudnn; /* where cuDNN is found when it runs */
/* Of the cuDNN that would be used: 9.19.0 is 91900; 0 when there is none. */
size_t fb_softmax_cudnn_version(void);

/* The whole L x S matrix of one head in memory, products by OpenBLAS. */
extern const struct fb_attention fb_softmax_plain;

#ifdef __cplusplus
}
#endif
#endif
