/* See cuda_limits.h. */
#include "cuda_limits.h"

enum fb_status fb_cuda_supports(const struct fb_problem *p, const char *kernel,
                                struct fb_error *why)
{
    if (p->dtype == FB_F64)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s computes in f32: use dtype f32, bf16 or f16", kernel);
    if (p->qk_dim > FB_HEAD_DIM_MAX || p->v_dim > FB_HEAD_DIM_MAX)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s has head dimensions up to %d: qk_dim is %lld, v_dim is %lld",
                            kernel, FB_HEAD_DIM_MAX, (long long)p->qk_dim, (long long)p->v_dim);
    const int64_t heads = p->batch * p->heads;
    if (heads > FB_CUDA_HEADS_MAX || p->q_len > FB_CUDA_TOKENS_MAX ||
        p->kv_len > FB_CUDA_TOKENS_MAX)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s serves up to %d heads of up to %d tokens: batch times heads is "
                            "%lld, seq_len %lld, kv_len %lld; split the batch",
                            kernel, FB_CUDA_HEADS_MAX, FB_CUDA_TOKENS_MAX, (long long)heads,
                            (long long)p->q_len, (long long)p->kv_len);
    return FB_OK;
}

enum fb_status fb_cuda_supports_decode(const struct fb_problem *p, const char *kernel,
                                       struct fb_error *why)
{
    if (p->q_len != 1)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s decodes one token at a time: seq_len is %lld, it must be 1", kernel,
                            (long long)p->q_len);
    if (p->q_lengths != NULL || p->kv_lengths != NULL)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "%s has no padding while decoding: leave q_lengths and kv_lengths "
                            "unset",
                            kernel);
    return FB_OK;
}
