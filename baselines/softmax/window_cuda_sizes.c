/* What softmax over a band of keys serves on a GPU, and its buffers: see window_cuda.h. */
#include "baseline_support.h"
#include "cuda_limits.h"
#include "softmax/window_cuda.h"

/* Gradients in f32 panels have shared memory for so many columns of keys and values. */
enum { PANEL = 64, PANELS_MAX = 6 };

static int64_t panels(int64_t columns)
{
    return (columns + PANEL - 1) / PANEL;
}

enum fb_status fb_window_cuda_supports(const struct fb_problem *p, enum fb_pass pass,
                                       const char *kernel, struct fb_error *why)
{
    const enum fb_status status = fb_cuda_supports(p, kernel, why);
    if (status != FB_OK)
        return status;
    if (pass == FB_DECODE)
        return fb_cuda_supports_decode(p, kernel, why);
    if ((pass == FB_BACKWARD || pass == FB_BOTH) && p->dtype != FB_BF16 &&
        panels(p->qk_dim) + panels(p->v_dim) > PANELS_MAX)
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "gradients of %s in %s have shared memory for head dimensions of %d "
                            "together: qk_dim is %lld, v_dim is %lld; use bf16, or device cpu",
                            kernel, fb_dtype_name(p->dtype), PANELS_MAX * PANEL,
                            (long long)p->qk_dim, (long long)p->v_dim);
    return FB_OK;
}

void fb_window_cuda_sizes(const struct fb_problem *p, struct fb_sizes *sizes)
{
    const bool padded = p->q_lengths != NULL || p->kv_lengths != NULL;
    struct fb_scratch_cursor backward = fb_scratch_at(NULL);
    (void)fb_scratch_take_f32(&backward, p->batch * p->heads * p->q_len);
    if (padded)
        (void)fb_scratch_take(&backward, 2 * p->batch, sizeof(int32_t));
    sizes->saved_bytes = sizeof(float) * (size_t)(p->batch * p->heads * p->q_len);
    sizes->forward_scratch_bytes = padded ? 2 * (size_t)p->batch * sizeof(int32_t) : 0;
    sizes->backward_scratch_bytes = backward.used_bytes;
}
