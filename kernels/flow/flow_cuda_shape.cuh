/* What every kernel of fused Flow-Attention on a GPU is told, and the maps of its options. */
#ifndef FB_FLOW_CUDA_SHAPE_CUH
#define FB_FLOW_CUDA_SHAPE_CUH

#include "cuda_launch.cuh"
#include "cuda_tile.cuh"
#include "flow_cuda_plan.h"
#include "flow_options.h"

struct flow_cuda_shape {
    tensor_view q, k, v, out;
    int heads, group; /* query heads per batch element; per head of keys */
    int64_t q_len, kv_len;
    const int32_t *lengths; /* [2][batch]: queries, keys; NULL: all are full */
    int batch;
    int dim, value_dim, cols, value_cols;
    int slices;
    int64_t slice_len;
    enum fb_flow_phi phi;
    float clamp, extra_eps;
    bool compete, allocation;
    float *totals; /* [heads][totals_count] */
    int64_t totals_count;
};

struct flow_cuda_head {
    int64_t b, h, kv_h, q_len, kv_len;
};

__device__ inline flow_cuda_head head_of(const flow_cuda_shape &s, int64_t index)
{
    flow_cuda_head head;
    head.b = index / s.heads;
    head.h = index % s.heads;
    head.kv_h = head.h / s.group;
    head.q_len = s.lengths == nullptr ? s.q_len : s.lengths[head.b];
    head.kv_len = s.lengths == nullptr ? s.kv_len : s.lengths[s.batch + head.b];
    return head;
}

/* phi, by the form that does not overflow. */
struct flow_map {
    enum fb_flow_phi phi;
    __device__ float operator()(float x) const
    {
        if (phi == FB_FLOW_SIGMOID)
            return 1.0F / (1.0F + expf(-x));
        if (phi == FB_FLOW_RELU)
            return larger_of(x, 0.0F) + FB_FLOW_EPSILON;
        return x > 0.0F ? x + 1.0F : expf(x);
    }
};

__device__ inline float sigmoid(float x)
{
    return 1.0F / (1.0F + expf(-x));
}

/* Host: fills everything that does not depend on where the buffers are. */
static inline flow_cuda_shape flow_cuda_shape_of(const struct fb_problem *p,
                                                 const struct fb_call *call,
                                                 const struct fb_flow_cuda_plan &plan)
{
    const struct fb_flow_options options = fb_flow_options_of(p);
    flow_cuda_shape s = {};
    s.q = view_of(call->q);
    s.k = view_of(call->k);
    s.v = view_of(call->v);
    s.out = view_of(call->out);
    s.heads = (int)p->heads;
    s.group = (int)(p->heads / p->kv_heads);
    s.q_len = call->q.shape[2];
    s.kv_len = call->k.shape[2];
    s.batch = (int)p->batch;
    s.dim = (int)p->qk_dim;
    s.value_dim = (int)p->v_dim;
    s.cols = plan.cols;
    s.value_cols = plan.value_cols;
    s.slices = plan.slices;
    s.slice_len = plan.slice_len;
    s.phi = options.phi;
    s.clamp = options.clamp;
    s.extra_eps = options.extra_eps;
    s.compete = options.competition == FB_FLOW_OVER_TOKENS;
    s.allocation = options.allocation;
    s.totals_count = plan.totals_count;
    return s;
}

/* Host: the lengths of a padded batch, at the start of the call's scratch memory. */
static inline enum fb_status flow_cuda_take_lengths(const struct fb_problem *p,
                                                    const struct fb_call *call,
                                                    const struct fb_flow_cuda_plan &plan,
                                                    flow_cuda_shape &s, struct fb_error *error)
{
    if (plan.lengths_bytes == 0)
        return FB_OK;
    int32_t *lengths = (int32_t *)call->scratch;
    s.lengths = lengths;
    return fb_cuda_put_lengths(p, lengths, (cudaStream_t)call->stream, error);
}

#endif
