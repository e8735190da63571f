/* What softmax over a band of keys serves on a GPU, and its buffers: see window_cuda.h. */
#include "baseline_support.h"
#include "cuda_limits.h"
#include "softmax/window_cuda.h"

/* One query per head: blocks that fill a large GPU twice, each with at least so many keys. A
 * constant, so that results are the same bits on every device. */
enum { SINGLE_BLOCKS = 1056, SLICE_LEN_MIN = 64 };

enum fb_status fb_window_cuda_supports(const struct fb_problem *p, enum fb_pass pass,
                                       const char *kernel, struct fb_error *why)
{
    const enum fb_status status = fb_cuda_supports(p, kernel, why);
    if (status != FB_OK)
        return status;
    return pass == FB_DECODE ? fb_cuda_supports_decode(p, kernel, why) : FB_OK;
}

bool fb_window_cuda_is_single(const struct fb_problem *p)
{
    return p->q_len == 1 && p->heads == p->kv_heads;
}

int fb_window_cuda_slices(const struct fb_problem *p)
{
    const int64_t most = (p->kv_len + SLICE_LEN_MIN - 1) / SLICE_LEN_MIN;
    const int64_t wanted = 1 + (SINGLE_BLOCKS - 1) / (p->batch * p->heads);
    return (int)(wanted < most ? wanted : most);
}

static int32_t *take_lengths(struct fb_scratch_cursor *at, const struct fb_problem *p)
{
    const bool padded = p->q_lengths != NULL || p->kv_lengths != NULL;
    return padded ? fb_scratch_take(at, 2 * p->batch, sizeof(int32_t)) : NULL;
}

static float *take_parts(struct fb_scratch_cursor *at, const struct fb_problem *p, int64_t each)
{
    return fb_window_cuda_is_single(p)
               ? fb_scratch_take_f32(at, p->batch * p->heads * fb_window_cuda_slices(p) * each)
               : NULL;
}

void fb_window_cuda_buffers_of(const struct fb_problem *p, void *scratch,
                               struct fb_window_cuda_buffers *x)
{
    struct fb_scratch_cursor at = fb_scratch_at(scratch);
    x->lengths = take_lengths(&at, p);
    x->parts = take_parts(&at, p, 2 + p->v_dim);
    x->bytes = at.used_bytes;
}

void fb_window_cuda_gradient_buffers_of(const struct fb_problem *p, void *scratch,
                                        struct fb_window_cuda_gradient_buffers *x)
{
    struct fb_scratch_cursor at = fb_scratch_at(scratch);
    x->shares = fb_scratch_take_f32(&at, p->batch * p->heads * p->q_len);
    x->lengths = take_lengths(&at, p);
    x->parts = take_parts(&at, p, p->qk_dim);
    x->bytes = at.used_bytes;
}

void fb_window_cuda_sizes(const struct fb_problem *p, struct fb_sizes *sizes)
{
    struct fb_window_cuda_buffers forward;
    struct fb_window_cuda_gradient_buffers backward;
    fb_window_cuda_buffers_of(p, NULL, &forward);
    fb_window_cuda_gradient_buffers_of(p, NULL, &backward);
    sizes->saved_bytes = sizeof(float) * (size_t)(p->batch * p->heads * p->q_len);
    sizes->forward_scratch_bytes = forward.bytes;
    sizes->backward_scratch_bytes = backward.bytes;
}
