/*
 * Softmax over a band of keys on a GPU, forward: what softmax (every key, or those up to the sink)
 * and local attention (a window) share. Blocks of queries walk over tiles of keys with a running
 * maximum and sum, so memory does not grow with N.
 */
#ifndef FB_WINDOW_CUDA_H
#define FB_WINDOW_CUDA_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Sink i sees the sources j with i - back <= j <= i + ahead. */
struct fb_cuda_band {
    int64_t back, ahead; /* FB_CUDA_UNBOUNDED: no limit */
};

#define FB_CUDA_UNBOUNDED (INT64_C(1) << 40)

enum fb_status fb_window_cuda_supports(const struct fb_problem *problem, enum fb_pass pass,
                                       const char *kernel, struct fb_error *why);
void fb_window_cuda_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes);
enum fb_status fb_window_cuda_forward(const struct fb_problem *problem, const struct fb_call *call,
                                      const struct fb_cuda_band *band,
                                      struct fb_error *error) FB_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
