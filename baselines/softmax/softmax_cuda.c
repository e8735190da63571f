/* Softmax and its band on a GPU as a variant: see window_cuda.h. */
#include "softmax/softmax.h"
#include "softmax/window_cuda.h"

enum { MAX_HEADS = 65535, MAX_TOKENS = 1 << 24 };

enum fb_status fb_window_cuda_supports(const struct fb_problem *p, enum fb_pass pass,
                                       const char *kernel, struct fb_error *why)
{
    (void)pass;
    if (p->dtype == FB_F64)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s computes in f32: use dtype f32, bf16 or f16", kernel);
    if (p->qk_dim > FB_HEAD_DIM_MAX || p->v_dim > FB_HEAD_DIM_MAX)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s has head dimensions up to %d: qk_dim is %lld, v_dim is %lld",
                            kernel, FB_HEAD_DIM_MAX, (long long)p->qk_dim, (long long)p->v_dim);
    const int64_t heads = p->batch * p->heads;
    if (heads > MAX_HEADS || p->q_len > MAX_TOKENS || p->kv_len > MAX_TOKENS)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s serves up to %d heads of up to %d tokens: batch times heads is "
                            "%lld, seq_len %lld, kv_len %lld",
                            kernel, MAX_HEADS, MAX_TOKENS, (long long)heads, (long long)p->q_len,
                            (long long)p->kv_len);
    return FB_OK;
}

void fb_window_cuda_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    const bool padded = problem->q_lengths != NULL || problem->kv_lengths != NULL;
    (void)threads;
    *sizes = (struct fb_sizes){.forward_scratch_bytes =
                                   padded ? 2 * (size_t)problem->batch * sizeof(int32_t) : 0};
}

static enum fb_status softmax_cuda_supports(const struct fb_problem *problem, enum fb_pass pass,
                                            struct fb_error *why)
{
    return fb_window_cuda_supports(problem, pass, "softmax tiled on cuda", why);
}

static enum fb_status softmax_cuda_forward(const struct fb_problem *problem,
                                           const struct fb_call *call, struct fb_error *error)
{
    const struct fb_cuda_band band = {.back = FB_CUDA_UNBOUNDED,
                                      .ahead = problem->causal ? 0 : FB_CUDA_UNBOUNDED};
    return fb_window_cuda_forward(problem, call, &band, error);
}

const struct fb_attention fb_softmax_tiled_cuda = {
    .mechanism = &fb_softmax,
    .variant = "tiled",
    .backend = FB_CUDA,
    .isa = FB_ISA_ANY,
    .deterministic = true,
    .supports = softmax_cuda_supports,
    .sizes = fb_window_cuda_sizes,
    .forward = softmax_cuda_forward,
};
