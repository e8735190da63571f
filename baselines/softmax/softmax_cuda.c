/* Softmax on a GPU as a variant: the band of all keys, or of those up to the sink; window_cuda.h.
 */
#include "softmax/softmax.h"
#include "softmax/window_cuda.h"

static enum fb_status softmax_cuda_supports(const struct fb_problem *problem, enum fb_pass pass,
                                            struct fb_error *why)
{
    return fb_window_cuda_supports(problem, pass, "softmax tiled on cuda", why);
}

static struct fb_cuda_band softmax_band(const struct fb_problem *problem)
{
    return (struct fb_cuda_band){.back = FB_CUDA_UNBOUNDED,
                                 .ahead = problem->causal ? 0 : FB_CUDA_UNBOUNDED};
}

static void softmax_cuda_sizes(const struct fb_problem *problem, int threads,
                               struct fb_sizes *sizes)
{
    (void)threads;
    *sizes = (struct fb_sizes){0};
    const struct fb_cuda_band band = softmax_band(problem);
    fb_window_cuda_sizes(problem, &band, sizes);
    fb_window_cuda_decode_sizes(problem, problem->kv_len, sizes);
}

static enum fb_status softmax_cuda_forward(const struct fb_problem *problem,
                                           const struct fb_call *call, struct fb_error *error)
{
    const struct fb_cuda_band band = softmax_band(problem);
    return fb_window_cuda_forward(problem, call, &band, error);
}

static enum fb_status softmax_cuda_backward(const struct fb_problem *problem,
                                            const struct fb_call *call, struct fb_error *error)
{
    const struct fb_cuda_band band = softmax_band(problem);
    return fb_window_cuda_backward(problem, call, &band, error);
}

static enum fb_status softmax_cuda_decode(const struct fb_problem *problem,
                                          const struct fb_call *call, struct fb_error *error)
{
    return fb_window_cuda_decode(problem, call, problem->kv_len, false, error);
}

const struct fb_attention fb_softmax_tiled_cuda = {
    .mechanism = &fb_softmax,
    .variant = "tiled",
    .backend = FB_CUDA,
    .isa = FB_ISA_ANY,
    .deterministic = true,
    .supports = softmax_cuda_supports,
    .sizes = softmax_cuda_sizes,
    .forward = softmax_cuda_forward,
    .backward = softmax_cuda_backward,
    .decode = softmax_cuda_decode,
};
