/* The features of Performer on a GPU, and their gradients: performer_cuda_features.cu. */
#ifndef FB_PERFORMER_CUDA_H
#define FB_PERFORMER_CUDA_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Features lie dense, [batch][heads][tokens][columns], as bf16 for problems in bf16 and f32 else;
 * columns beyond `features` are zero. */
struct fb_performer_cuda_plan {
    enum fb_dtype dtype;
    int64_t features, columns, slices; /* columns: features rounded up to whole panels */
    float apart;                       /* epsilon where gradients keep it apart, else 0 */
};

/* What a pass computes features of: queries by their own maxima, or keys by the head's. */
struct fb_performer_cuda_side {
    struct fb_tensor x;     /* q or k */
    void *phi;              /* the features */
    void *exps;             /* backward, epsilon apart: features without it; else NULL */
    void *dphi;             /* backward: their gradients */
    struct fb_tensor dx;    /* backward */
    const int32_t *lengths; /* [batch] on the device; NULL: all rows are valid */
};

struct fb_performer_cuda_plan fb_performer_cuda_plan_of(const struct fb_problem *problem,
                                                        int64_t features);

/* lengths [2][batch], of queries and of keys, to the device. */
enum fb_status fb_performer_cuda_lengths(const struct fb_problem *problem, int32_t *lengths,
                                         void *stream, struct fb_error *error) FB_MUST_CHECK;

/* peaks [batch kv_heads][slices]: the maxima over slices of the keys. */
enum fb_status fb_performer_cuda_peaks(const struct fb_performer_cuda_plan *plan,
                                       const struct fb_performer_cuda_side *keys,
                                       const float *projection, float *peaks, void *stream,
                                       struct fb_error *error) FB_MUST_CHECK;
/* peaks NULL: queries. */
enum fb_status fb_performer_cuda_features(const struct fb_performer_cuda_plan *plan,
                                          const struct fb_performer_cuda_side *side,
                                          const float *projection, const float *peaks, void *stream,
                                          struct fb_error *error) FB_MUST_CHECK;
/* dx from dphi; of queries, epsilon apart, from a dphi that lacks a number that is the same for all
 * features of a row. */
enum fb_status fb_performer_cuda_pull(const struct fb_performer_cuda_plan *plan,
                                      const struct fb_performer_cuda_side *side, bool of_queries,
                                      const float *projection, void *stream,
                                      struct fb_error *error) FB_MUST_CHECK;

/* bf16 and f16, heads of 64, whole panels of up to 256 features, with a mask 256, on Hopper:
 * features are formed where they are needed and never stored (performer_cuda_fused.cuh, with a mask
 * performer_cuda_causal.cuh). Sizes: of forward, backward and saved. */
bool fb_performer_cuda_is_fused(const struct fb_problem *problem, int64_t features);
void fb_performer_cuda_fused_sizes(const struct fb_problem *problem, int64_t features,
                                   struct fb_sizes *sizes);
enum fb_status fb_performer_cuda_fused_forward(const struct fb_problem *problem, int64_t features,
                                               const struct fb_call *call,
                                               struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_performer_cuda_fused_backward(const struct fb_problem *problem, int64_t features,
                                                const struct fb_call *call,
                                                struct fb_error *error) FB_MUST_CHECK;

/* The features of one token of every head as f32, and how far keys' exponents lie above the
 * stabiliser: [batch kv_heads]. exponents NULL: queries. */
enum fb_status fb_performer_cuda_token(const struct fb_tensor *x, int64_t features,
                                       const float *projection, float stabiliser, float *phi,
                                       float *exponents, void *stream,
                                       struct fb_error *error) FB_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
