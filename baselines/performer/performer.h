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
 * over the keys remains that of all tokens: through it a sink depends on later sources. It carries
 * no gradient. Padding takes no part in it; heads that share keys share it.
 *
 * Kernel relu is the "generalized" attention of the released Long Range Arena code: phi(x) =
 * relu(x) + 0.001 on q and k as they are, without projection, scale or maximum; the parameters
 * features and redraw then mean nothing, and there are no constants.
 *
 * Decoding cannot know the maximum over all keys. The caller passes a number in its place, the
 * call's key_stabiliser c, one for all heads and the same for every token:
 *   phi(k) = exp(u - g - c) + eps
 * With one head and c = that head's maximum of u, decoding equals the causal forward pass to
 * rounding. Any other c scales the sums by one factor, which cancels, but for the weight of eps
 * against the rest; so heads whose own maximum lies far below c are blurred by eps more than in the
 * forward pass, and a c below the maximum blurs less. Exponents above c are computed as they are,
 * up to 60; a token beyond that is refused (FB_ERROR_INPUT) and leaves the state as it was, since
 * clamping would change the weights of tokens against each other silently.
 *
 * redraw: whether W is drawn anew for each worker process. W is a constant of the kernel, drawn by
 * prepare from the seed it is given, untimed, and the same for every call on it; the released code
 * draws inside each call. false: every process gets the suite's seed and thus the same W. true: the
 * harness hands each process of a case its own seed, the one its inputs are drawn from, so that the
 * spread over processes includes that of the draw. The kernel itself does not read this parameter.
 */
#ifndef FB_PERFORMER_H
#define FB_PERFORMER_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Position of the parameters in problem->params. */
enum fb_performer_param {
    FB_PERFORMER_FEATURES,
    FB_PERFORMER_KERNEL, /* enum fb_performer_kernel */
    FB_PERFORMER_REDRAW,
    FB_PERFORMER_PARAM_COUNT
};

enum fb_performer_kernel { FB_PERFORMER_SOFTMAX, FB_PERFORMER_RELU };

/* The constants are the projection W [features][D], f32, dense; one for all heads; kernel relu has
 * none. */
extern const struct fb_mechanism fb_performer;

extern const struct fb_attention fb_performer_fused_scalar;
extern const struct fb_attention fb_performer_fused_avx2;
extern const struct fb_attention fb_performer_fused_avx512;
extern const struct fb_attention fb_performer_fused_neon;

/* The same on a GPU, in builds with CUDA; decoding gives NaN for a head whose token it would
 * refuse. */
extern const struct fb_attention fb_performer_fused_cuda;

static inline bool fb_performer_is_relu(const struct fb_problem *problem)
{
    return (int)problem->params[FB_PERFORMER_KERNEL] == FB_PERFORMER_RELU;
}

#ifdef __cplusplus
}
#endif
#endif
