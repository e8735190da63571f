/*
 * Softmax attention, tiled, for one instruction set: every key, or the keys up to the sink's own
 * position when causal. See window_softmax.h for the method, window_gradient.h for the gradients
 * and cache_decode.h for decoding.
 */
#include "softmax/softmax.h"

#include "softmax/cache_decode.h"
#include "softmax/window_gradient.h"
#include "softmax/window_softmax.h"

static enum fb_status softmax_cpu_supports(const struct fb_problem *problem, enum fb_pass pass,
                                           struct fb_error *why)
{
    return fb_baseline_cpu_supports(problem, pass, "softmax tiled", why);
}

static struct window_band softmax_band(const struct fb_problem *p)
{
    return (struct window_band){
        .back = WINDOW_UNBOUNDED,
        .ahead = p->causal ? 0 : WINDOW_UNBOUNDED,
        .step = 1,
    };
}

static void softmax_cpu_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    struct window_kernel w = window_plan(problem, NULL, softmax_band(problem));
    sizes->saved_bytes = window_saved_bytes(problem);
    sizes->forward_scratch_bytes = window_forward_bytes(&w, threads);
    sizes->backward_scratch_bytes = window_backward_bytes(&w, threads);
    cache_sizes(problem, problem->kv_len, threads, sizes);
}

static enum fb_status softmax_cpu_forward(const struct fb_problem *problem,
                                          const struct fb_call *call, struct fb_error *error)
{
    (void)error;
    window_forward(problem, call, softmax_band(problem));
    return FB_OK;
}

static enum fb_status softmax_cpu_backward(const struct fb_problem *problem,
                                           const struct fb_call *call, struct fb_error *error)
{
    (void)error;
    window_backward(problem, call, softmax_band(problem));
    return FB_OK;
}

static enum fb_status softmax_cpu_decode(const struct fb_problem *problem,
                                         const struct fb_call *call, struct fb_error *error)
{
    return cache_decode(problem, call, problem->kv_len, true, error);
}

static enum fb_status softmax_cpu_prefill(const struct fb_problem *problem,
                                          const struct fb_call *call, struct fb_error *error)
{
    (void)error;
    cache_prefill(problem, call, problem->kv_len);
    return FB_OK;
}

const struct fb_attention FB_ISA_SYMBOL(fb_softmax_tiled) = {
    .mechanism = &fb_softmax,
    .variant = "tiled",
    .backend = FB_CPU,
    .isa = FB_ISA_VALUE,
    .deterministic = true,
    .supports = softmax_cpu_supports,
    .sizes = softmax_cpu_sizes,
    .forward = softmax_cpu_forward,
    .backward = softmax_cpu_backward,
    .decode = softmax_cpu_decode,
    .prefill = softmax_cpu_prefill,
};
