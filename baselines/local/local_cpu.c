/*
 * Local attention, tiled, for one instruction set: the tiled softmax on a band of keys, or on the
 * interleaved sequences of the strided pattern. Work and time are linear in N. See
 * softmax/window_softmax.h for the method.
 */
#include "local/local.h"

#include "softmax/cache_decode.h"
#include "softmax/window_gradient.h"
#include "softmax/window_softmax.h"

static enum fb_status local_cpu_supports(const struct fb_problem *problem, enum fb_pass pass,
                                         struct fb_error *why)
{
    if (pass == FB_DECODE && fb_local_is_strided(problem)) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "local attention of the strided pattern cannot be decoded: which "
                            "tokens see each other depends on the length; use pattern window");
    }
    return fb_baseline_cpu_supports(problem, pass, "local tiled", why);
}

static struct window_band local_band(const struct fb_problem *p)
{
    const int64_t window = fb_problem_int_param(p, FB_LOCAL_WINDOW);
    if (fb_local_is_strided(p)) {
        return (struct window_band){
            .back = WINDOW_UNBOUNDED,
            .ahead = WINDOW_UNBOUNDED,
            .step = fb_local_stride(p),
            .block = fb_problem_int_param(p, FB_LOCAL_BLOCK),
        };
    }
    return (struct window_band){.back = window, .ahead = p->causal ? 0 : window, .step = 1};
}

/* Tokens that a decoding step sees, itself included, and the state holds. */
static int64_t local_capacity(const struct fb_problem *p)
{
    return window_smaller(fb_problem_int_param(p, FB_LOCAL_WINDOW) + 1, p->kv_len);
}

static void local_cpu_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    struct window_kernel w = window_plan(problem, NULL, local_band(problem));
    sizes->saved_bytes = window_saved_bytes(problem);
    sizes->forward_scratch_bytes = window_forward_bytes(&w, threads);
    sizes->backward_scratch_bytes = window_backward_bytes(&w, threads);
    cache_sizes(problem, local_capacity(problem), threads, sizes);
}

static enum fb_status local_cpu_forward(const struct fb_problem *problem,
                                        const struct fb_call *call, struct fb_error *error)
{
    (void)error;
    window_forward(problem, call, local_band(problem));
    return FB_OK;
}

static enum fb_status local_cpu_backward(const struct fb_problem *problem,
                                         const struct fb_call *call, struct fb_error *error)
{
    (void)error;
    window_backward(problem, call, local_band(problem));
    return FB_OK;
}

static enum fb_status local_cpu_decode(const struct fb_problem *problem, const struct fb_call *call,
                                       struct fb_error *error)
{
    const int64_t capacity = local_capacity(problem);
    const bool holds_window = capacity > fb_problem_int_param(problem, FB_LOCAL_WINDOW);
    return cache_decode(problem, call, capacity, !holds_window, error);
}

static enum fb_status local_cpu_prefill(const struct fb_problem *problem,
                                        const struct fb_call *call, struct fb_error *error)
{
    (void)error;
    cache_prefill(problem, call, local_capacity(problem));
    return FB_OK;
}

const struct fb_attention FB_ISA_SYMBOL(fb_local_tiled) = {
    .mechanism = &fb_local,
    .variant = "tiled",
    .backend = FB_CPU,
    .isa = FB_ISA_VALUE,
    .deterministic = true,
    .supports = local_cpu_supports,
    .sizes = local_cpu_sizes,
    .forward = local_cpu_forward,
    .backward = local_cpu_backward,
    .decode = local_cpu_decode,
    .prefill = local_cpu_prefill,
};
