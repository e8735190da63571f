/*
 * Local attention, tiled, for one instruction set: the tiled softmax on a band of keys. Work and
 * time are linear in N. See softmax/window_softmax.h for the method.
 */
#include "local/local.h"

#include "softmax/window_softmax.h"

static enum fb_status local_cpu_supports(const struct fb_problem *problem, enum fb_pass pass,
                                         struct fb_error *why)
{
    (void)pass;
    return fb_baseline_cpu_supports(problem, "local tiled", why);
}

static enum fb_status local_cpu_forward(const struct fb_problem *problem,
                                        const struct fb_call *call, struct fb_error *error)
{
    (void)error;
    const int64_t window = fb_baseline_int_param(problem, FB_LOCAL_WINDOW);
    window_forward(problem, call, window, problem->causal ? 0 : window);
    return FB_OK;
}

const struct fb_attention FB_ISA_SYMBOL(fb_local_tiled) = {
    .mechanism = &fb_local,
    .variant = "tiled",
    .backend = FB_CPU,
    .isa = FB_ISA_VALUE,
    .deterministic = true,
    .supports = local_cpu_supports,
    .sizes = window_sizes,
    .forward = local_cpu_forward,
    .backward = NULL,
    .decode = NULL,
};
