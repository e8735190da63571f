/*
 * Linear attention on a GPU over any features: what linear attention (phi of the components) and
 * Performer (features that lie in memory) share. See linear_cuda.cuh for the method.
 */
#ifndef FB_LINEAR_CUDA_H
#define FB_LINEAR_CUDA_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

enum fb_linear_cuda_map {
    FB_LINEAR_CUDA_ELU,     /* elu(x) + 1 */
    FB_LINEAR_CUDA_RELU,    /* relu(x) + 0.001 */
    FB_LINEAR_CUDA_IDENTITY /* q and k are features */
};

/* What is computed: q and k of a call may be features of another type than v. */
struct fb_linear_cuda_form {
    enum fb_linear_cuda_map map;
    float epsilon;          /* added to denominators */
    enum fb_dtype features; /* of q, k, dq and dk */
    int64_t feature_count;  /* their last dimension */
    /* Backward, unless 0: the part that all features of all keys have in common. dq is of what is
     * left of them, `keys_apart`, of k's shape, which leaves out one number, the same for all
     * features of a row: where features are nearly the same, dq is small beside it, and would be
     * what its rounding leaves. Forward is told, too: it saves less. */
    float apart;
    void *keys_apart;
};

enum fb_status fb_linear_cuda_supports(const struct fb_problem *problem, enum fb_pass pass,
                                       const char *kernel, struct fb_error *why);
/* Of forward, backward and saved. */
void fb_linear_cuda_sizes(const struct fb_problem *problem, const struct fb_linear_cuda_form *form,
                          struct fb_sizes *sizes);
enum fb_status fb_linear_cuda_forward(const struct fb_problem *problem,
                                      const struct fb_linear_cuda_form *form,
                                      const struct fb_call *call,
                                      struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_linear_cuda_backward(const struct fb_problem *problem,
                                       const struct fb_linear_cuda_form *form,
                                       const struct fb_call *call,
                                       struct fb_error *error) FB_MUST_CHECK;

/* Decoding one token; features may be f32 for any dtype. exponents: those of the keys above the
 * stabiliser, per batch element and head of keys, on the device, or NULL. Above 60 a head's token
 * is not taken into the state and its output is NaN: the device cannot refuse a call. */
size_t fb_linear_cuda_state_bytes(const struct fb_problem *problem,
                                  const struct fb_linear_cuda_form *form);
enum fb_status fb_linear_cuda_decode(const struct fb_problem *problem,
                                     const struct fb_linear_cuda_form *form,
                                     const struct fb_call *call, const float *exponents,
                                     struct fb_error *error) FB_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
