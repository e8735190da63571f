/* What kernels on a GPU refuse alike: dtypes, head dimensions and sizes of their grids. */
#ifndef FB_CUDA_LIMITS_H
#define FB_CUDA_LIMITS_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    FB_CUDA_GRID_MAX = 65535, /* of a grid's second and third dimensions */
    FB_CUDA_HEADS_MAX = FB_CUDA_GRID_MAX,
    FB_CUDA_TOKENS_MAX = 1 << 24
};

/* f32, bf16 and f16; head dimensions up to FB_HEAD_DIM_MAX; as many heads and tokens as above. */
enum fb_status fb_cuda_supports(const struct fb_problem *problem, const char *kernel,
                                struct fb_error *why) FB_MUST_CHECK;
/* Decoding: one token, no padding. */
enum fb_status fb_cuda_supports_decode(const struct fb_problem *problem, const char *kernel,
                                       struct fb_error *why) FB_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
