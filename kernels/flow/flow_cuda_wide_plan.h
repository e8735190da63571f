/*
 * How the spread form of Flow-Attention (flow_cuda_wide.cuh) cuts a problem and where its buffers
 * lie: known, and tested, without a device.
 */
#ifndef FB_FLOW_CUDA_WIDE_PLAN_H
#define FB_FLOW_CUDA_WIDE_PLAN_H

#include "flow_cuda_plan.h"

#ifdef __cplusplus
extern "C" {
#endif

struct fb_flow_wide_plan {
    int cols, value_cols; /* as in fb_flow_cuda_plan */
    int64_t totals_count, gradients_count;
    int slices, slice_len;            /* of passes over rows, in tokens */
    int panel_slices, slice_panels;   /* of products, in panels of 64 tokens */
    int result_slices, result_panels; /* of rows times a state */
};

/* Everything in scratch memory; what a pass has no use for is NULL. */
struct fb_flow_wide_buffers {
    int32_t *lengths;
    float *totals; /* for a forward call that saves nothing */
    float *gradients, *parts, *peaks, *matrices;
    float *r, *alpha, *y, *dc, *da;
    float *p, *beta, *o, *db, *z;
    size_t bytes;
};

void fb_flow_wide_plan_of(const struct fb_problem *problem, const struct fb_flow_cuda_plan *base,
                          struct fb_flow_wide_plan *plan);

/* With scratch NULL it only counts. */
void fb_flow_wide_buffers_of(const struct fb_problem *problem, const struct fb_flow_wide_plan *plan,
                             bool backward, void *scratch, struct fb_flow_wide_buffers *buffers);

#ifdef __cplusplus
}
#endif
#endif
