/*
 * Calls on buffers of the host, for any variant: one of the CPU is called as it is; one of a device
 * gets copies there, and what it wrote comes back. For checks and for tensors of files, where the
 * copies do not matter; never timed.
 */
#ifndef FB_CUDA_STAGED_H
#define FB_CUDA_STAGED_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

enum fb_status fb_staged_forward(const struct fb_attention *attention,
                                 const struct fb_problem *problem, const struct fb_call *call,
                                 struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_staged_backward(const struct fb_attention *attention,
                                  const struct fb_problem *problem, const struct fb_call *call,
                                  struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_staged_decode(const struct fb_attention *attention,
                                const struct fb_problem *problem, const struct fb_call *call,
                                struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_staged_prefill(const struct fb_attention *attention,
                                 const struct fb_problem *problem, const struct fb_call *call,
                                 struct fb_error *error) FB_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
