/* Local attention on a GPU as a variant: the tiled softmax on a window; see window_cuda.h. */
#include "local/local.h"

#include "baseline_support.h"
#include "softmax/window_cuda.h"

static enum fb_status local_cuda_supports(const struct fb_problem *problem, enum fb_pass pass,
                                          struct fb_error *why)
{
    if (fb_local_is_strided(problem))
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "local tiled on cuda has no strided pattern: use pattern window, or "
                            "device cpu");
    return fb_window_cuda_supports(problem, pass, "local tiled on cuda", why);
}

static struct fb_cuda_band local_band(const struct fb_problem *problem)
{
    const int64_t window = fb_problem_int_param(problem, FB_LOCAL_WINDOW);
    return (struct fb_cuda_band){.back = window, .ahead = problem->causal ? 0 : window};
}

/* Tokens that a decoding step sees, itself included, and the state holds. */
static int64_t local_capacity(const struct fb_problem *problem)
{
    const int64_t window = fb_problem_int_param(problem, FB_LOCAL_WINDOW) + 1;
    return window < problem->kv_len ? window : problem->kv_len;
}

static void local_cuda_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    (void)threads;
    *sizes = (struct fb_sizes){0};
    const struct fb_cuda_band band = local_band(problem);
    fb_window_cuda_sizes(problem, &band, sizes);
    fb_window_cuda_decode_sizes(problem, local_capacity(problem), sizes);
}

static enum fb_status local_cuda_forward(const struct fb_problem *problem,
                                         const struct fb_call *call, struct fb_error *error)
{
    const struct fb_cuda_band band = local_band(problem);
    return fb_window_cuda_forward(problem, call, &band, error);
}

static enum fb_status local_cuda_backward(const struct fb_problem *problem,
                                          const struct fb_call *call, struct fb_error *error)
{
    const struct fb_cuda_band band = local_band(problem);
    return fb_window_cuda_backward(problem, call, &band, error);
}

static enum fb_status local_cuda_decode(const struct fb_problem *problem,
                                        const struct fb_call *call, struct fb_error *error)
{
    const int64_t capacity = local_capacity(problem);
    const bool holds_window = capacity > fb_problem_int_param(problem, FB_LOCAL_WINDOW);
    return fb_window_cuda_decode(problem, call, capacity, holds_window, error);
}

const struct fb_attention fb_local_tiled_cuda = {
    .mechanism = &fb_local,
    .variant = "tiled",
    .backend = FB_CUDA,
    .isa = FB_ISA_ANY,
    .deterministic = true,
    .supports = local_cuda_supports,
    .sizes = local_cuda_sizes,
    .forward = local_cuda_forward,
    .backward = local_cuda_backward,
    .decode = local_cuda_decode,
};
