/*
 * Softmax over a band of keys on a GPU: what softmax (every key, or those up to the sink) and local
 * attention (a window) share. Blocks of queries walk over tiles of keys with a running maximum and
 * sum, so memory does not grow with N; gradients and decoding have files of their own.
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
/* Whether every head has one query and keys of its own: keys are then split over the device, and
 * scratch memory has a vector per slice of them. */
bool fb_window_cuda_is_single(const struct fb_problem *problem);
int fb_window_cuda_slices(const struct fb_problem *problem);

/* Whether all gradients are formed in one pass, which adds up dq in scratch memory: heads of 64 of
 * 16 bits, no padding, 1024 keys and more, all seen or those up to the sink. Else scratch memory
 * has no part of N times D. */
bool fb_window_cuda_is_joint(const struct fb_problem *problem, const struct fb_cuda_band *band);

/* What lies in scratch memory; what nobody needs is NULL. With scratch NULL they only count. */
struct fb_window_cuda_buffers {
    int32_t *lengths;
    float *parts;
    size_t bytes;
};
struct fb_window_cuda_gradient_buffers {
    float *shares;  /* [batch heads][q_len] dout out */
    float *lowered; /* [batch heads][q_len] logarithms of sums less a power: f16, heads of 64 */
    int32_t *lengths;
    float *parts;
    float *marks;   /* [batch heads][tiles of 64 queries][2][64] */
    float *sums;    /* [batch heads][tiles][64 D] */
    int32_t *turns; /* one, and [batch heads][tiles] */
    size_t bytes;
};
void fb_window_cuda_buffers_of(const struct fb_problem *problem, void *scratch,
                               struct fb_window_cuda_buffers *buffers);
void fb_window_cuda_gradient_buffers_of(const struct fb_problem *problem,
                                        const struct fb_cuda_band *band, void *scratch,
                                        struct fb_window_cuda_gradient_buffers *buffers);

/* Of forward, backward and saved. */
void fb_window_cuda_sizes(const struct fb_problem *problem, const struct fb_cuda_band *band,
                          struct fb_sizes *sizes);
enum fb_status fb_window_cuda_forward(const struct fb_problem *problem, const struct fb_call *call,
                                      const struct fb_cuda_band *band,
                                      struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_window_cuda_backward(const struct fb_problem *problem, const struct fb_call *call,
                                       const struct fb_cuda_band *band,
                                       struct fb_error *error) FB_MUST_CHECK;

/* Decoding with a cache of the last `capacity` keys and values. ring: a full cache forgets its
 * oldest token; else a token beyond it is not taken, and its output is NaN: the device, which
 * counts the tokens, cannot refuse a call. */
void fb_window_cuda_decode_sizes(const struct fb_problem *problem, int64_t capacity,
                                 struct fb_sizes *sizes);
enum fb_status fb_window_cuda_decode(const struct fb_problem *problem, const struct fb_call *call,
                                     int64_t capacity, bool ring,
                                     struct fb_error *error) FB_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
