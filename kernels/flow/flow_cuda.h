/*
 * Between the sources of fused Flow-Attention on a GPU. The launchers queue everything on the
 * call's stream and return; the problem and the call have been checked.
 */
#ifndef FB_FLOW_CUDA_H
#define FB_FLOW_CUDA_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

enum fb_status fb_flow_cuda_normal(const struct fb_problem *problem, const struct fb_call *call,
                                   struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_flow_cuda_causal(const struct fb_problem *problem, const struct fb_call *call,
                                   struct fb_error *error) FB_MUST_CHECK;
/* Any number of tokens against the state: decoding and prefilling. */
enum fb_status fb_flow_cuda_continue(const struct fb_problem *problem, const struct fb_call *call,
                                     struct fb_error *error) FB_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
