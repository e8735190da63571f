/*
 * Softmax attention, tiled, for one instruction set: every key, or the keys up to the sink's own
 * position when causal. See window_softmax.h for the method.
 */
#include "softmax/softmax.h"

#include "softmax/window_softmax.h"

static enum fb_status softmax_cpu_supports(const struct fb_problem *problem, enum fb_pass pass,
                                           struct fb_error *why)
{
    (void)pass;
    return fb_baseline_cpu_supports(problem, "softmax tiled", why);
}

static enum fb_status softmax_cpu_forward(const struct fb_problem *problem,
                                          const struct fb_call *call, struct fb_error *error)
{
    (void)error;
    window_forward(problem, call, WINDOW_UNBOUNDED, problem->causal ? 0 : WINDOW_UNBOUNDED);
    return FB_OK;
}

const struct fb_attention FB_ISA_SYMBOL(fb_softmax_tiled) = {
    .mechanism = &fb_softmax,
    .variant = "tiled",
    .backend = FB_CPU,
    .isa = FB_ISA_VALUE,
    .deterministic = true,
    .supports = softmax_cpu_supports,
    .sizes = window_sizes,
    .forward = softmax_cpu_forward,
    .backward = NULL,
    .decode = NULL,
};
