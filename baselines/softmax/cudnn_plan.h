/*
 * Softmax attention as a plan of cuDNN's: forward, forward that leaves what backward needs,
 * backward. Building one takes from milliseconds to a second, so they are kept, a few dozen for the
 * process.
 */
#ifndef FB_CUDNN_PLAN_H
#define FB_CUDNN_PLAN_H

#include "attention.h"
#include "softmax/cudnn_api.h"

enum fb_cudnn_pass { FB_CUDNN_INFERENCE, FB_CUDNN_TRAINING, FB_CUDNN_BACKWARD };

/* Beside the call's own tensors. In f32: stats [B,H,L], the logarithm of the softmax's sum; rows
 * [B,H,L] and dq [B,H,L,D], scratch of backward. */
struct fb_cudnn_extra {
    void *stats, *rows, *dq, *workspace;
    size_t workspace_bytes;
};

/* Builds the plan unless it is there. The strides are those of the call; its data do not count. */
enum fb_status fb_cudnn_plan_workspace(const struct fb_cudnn *api, const struct fb_problem *problem,
                                       const struct fb_call *call, enum fb_cudnn_pass pass,
                                       size_t *bytes, struct fb_error *error) FB_MUST_CHECK;
/* Launches it on the call's stream. FB_ERROR_INPUT when the workspace is too small. */
enum fb_status fb_cudnn_plan_run(const struct fb_cudnn *api, const struct fb_problem *problem,
                                 const struct fb_call *call, enum fb_cudnn_pass pass,
                                 const struct fb_cudnn_extra *extra,
                                 struct fb_error *error) FB_MUST_CHECK;

#endif
