/* What softmax over a band of keys serves on a GPU, and its buffers: see window_cuda.h. */
#include "baseline_support.h"
#include "cuda_limits.h"
#include "softmax/window_cuda.h"

/* One query per head: blocks that fill a large GPU twice, each with at least so many keys. A
 * constant, so that results are the same bits on every device. */
enum { SINGLE_BLOCKS = 1056, SLICE_LEN_MIN = 64 };

/* Queries whose dq is added up together; so few keys that two passes are faster. */
enum { JOINT_TILE = 64, JOINT_KEYS_MIN = 1024 };

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

bool fb_window_cuda_is_joint(const struct fb_problem *p, const struct fb_cuda_band *band)
{
    const bool half = p->dtype == FB_BF16 || p->dtype == FB_F16;
    return half && p->q_lengths == NULL && p->kv_lengths == NULL && p->qk_dim == 64 &&
           p->v_dim == 64 && p->q_len >= JOINT_TILE && p->kv_len >= JOINT_KEYS_MIN &&
           band->back >= FB_CUDA_UNBOUNDED &&
           (band->ahead == 0 || band->ahead >= FB_CUDA_UNBOUNDED);
}

void fb_window_cuda_gradient_buffers_of(const struct fb_problem *p, const struct fb_cuda_band *band,
                                        void *scratch, struct fb_window_cuda_gradient_buffers *x)
{
    struct fb_scratch_cursor at = fb_scratch_at(scratch);
    const bool joint = fb_window_cuda_is_joint(p, band);
    const int64_t tiles = p->batch * p->heads * ((p->q_len + JOINT_TILE - 1) / JOINT_TILE);
    const bool lowered = p->dtype == FB_F16 && p->qk_dim == 64 && p->v_dim == 64 && !joint;
    x->shares = fb_scratch_take_f32(&at, p->batch * p->heads * p->q_len);
    x->lowered = lowered ? fb_scratch_take_f32(&at, p->batch * p->heads * p->q_len) : NULL;
    x->lengths = take_lengths(&at, p);
    x->parts = take_parts(&at, p, p->qk_dim);
    x->marks = joint ? fb_scratch_take_f32(&at, tiles * 2 * JOINT_TILE) : NULL;
    x->sums = joint ? fb_scratch_take_f32(&at, tiles * JOINT_TILE * p->qk_dim) : NULL;
    x->turns = joint ? fb_scratch_take(&at, 1 + tiles, sizeof(int32_t)) : NULL;
    x->bytes = at.used_bytes;
}

void fb_window_cuda_sizes(const struct fb_problem *p, const struct fb_cuda_band *band,
                          struct fb_sizes *sizes)
{
    struct fb_window_cuda_buffers forward;
    struct fb_window_cuda_gradient_buffers backward;
    fb_window_cuda_buffers_of(p, NULL, &forward);
    fb_window_cuda_gradient_buffers_of(p, band, NULL, &backward);
    sizes->saved_bytes = sizeof(float) * (size_t)(p->batch * p->heads * p->q_len);
    sizes->forward_scratch_bytes = forward.bytes;
    sizes->backward_scratch_bytes = backward.bytes;
}
