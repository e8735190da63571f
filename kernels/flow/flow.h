/*
 * Flow-Attention: Wu et al., "Flowformer: Linearizing Transformers with Conservation Flows",
 * ICML 2022, eqs. 4-8, as in the released core module by default: phi = sigmoid, the conserved
 * outgoing flow clamped to +-1, eps = 1e-6 on both factors of each inner product. Per head:
 *
 *   incoming    a_i = (phi(q_i)+eps) . (sum_j phi(k_j)+eps)           alpha_i = 1 / a_i
 *   outgoing    b_j = (phi(k_j)+eps) . (sum_i phi(q_i)+eps)           beta_j  = 1 / b_j
 *   conserved   c_i = (phi(q_i)+eps) . (sum_j beta_j phi(k_j)+eps)
 *               o_j = (phi(k_j)+eps) . (sum_i alpha_i phi(q_i)+eps)
 *   competition p_j = S softmax_j(clamp(o))      over heads: S softmax_h(clamp(o_jh)); off: 1
 *   allocation  s_i = sigmoid(c_i L / S)         off: 1
 *   out_i       = s_i alpha_i phi(q_i) (sum_j phi(k_j) (p_j v_j)^T)
 *
 * The causal form takes every sum over j <= i (queries: i <= j) and weighs token t with n_t = t
 * (counted from 1): alpha = n/a, beta = n/b, c and o divided by n, p_t = n_t e_t / sum_{u<=t} e_u,
 * and out_t = s_t (alpha_t / n_t) phi(q_t) M_t. It needs L = S, and competes over tokens or not at
 * all. The clamp has gradient 1 at its ends and inside, 0 outside.
 *
 * Padding: tokens beyond q_lengths[b] or kv_lengths[b] take no part in any sum, nor in L and S;
 * their outputs and gradients are 0. A head without any key gives 0.
 */
#ifndef FB_FLOW_H
#define FB_FLOW_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct fb_mechanism fb_flow;

/* Linear memory, phi evaluated per block, products in register tiles; causal in one pass over
 * chunks of tokens. */
extern const struct fb_attention fb_flow_fused_scalar;
extern const struct fb_attention fb_flow_fused_neon;
extern const struct fb_attention fb_flow_fused_avx2;
extern const struct fb_attention fb_flow_fused_avx512;

/* As the released code computes it: whole matrices through OpenBLAS, and for the causal form the
 * L x D x M tensor of running outer products. */
extern const struct fb_attention fb_flow_plain;

/* On a GPU, from sm_80; on Hopper bf16 with heads of 64 in clusters of blocks. Only in builds with
 * CUDA. */
extern const struct fb_attention fb_flow_fused_cuda;

#ifdef __cplusplus
}
#endif
#endif
