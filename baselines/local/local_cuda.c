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

static enum fb_status local_cuda_forward(const struct fb_problem *problem,
                                         const struct fb_call *call, struct fb_error *error)
{
    const int64_t window = fb_problem_int_param(problem, FB_LOCAL_WINDOW);
    const struct fb_cuda_band band = {.back = window, .ahead = problem->causal ? 0 : window};
    return fb_window_cuda_forward(problem, call, &band, error);
}

const struct fb_attention fb_local_tiled_cuda = {
    .mechanism = &fb_local,
    .variant = "tiled",
    .backend = FB_CUDA,
    .isa = FB_ISA_ANY,
    .deterministic = true,
    .supports = local_cuda_supports,
    .sizes = fb_window_cuda_sizes,
    .forward = local_cuda_forward,
};
