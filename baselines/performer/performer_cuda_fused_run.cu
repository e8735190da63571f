/* Which of Performer's fused kernels run, and where their buffers lie. See
 * performer_cuda_fused.cuh.
 */
#include "performer_cuda_causal.cuh"

#include "kernel_support.h"
#include "performer_cuda.h"

namespace
{

struct fused_buffers {
    int32_t *lengths;
    size_t scratch_bytes, saved_bytes;
};

fused_arguments arguments_of(const struct fb_problem *p, int64_t features)
{
    fused_arguments a = {};
    a.batch = (int)p->batch;
    a.heads = (int)p->heads;
    a.kv_heads = (int)p->kv_heads;
    a.group = (int)(p->heads / p->kv_heads);
    a.q_len = (int)p->q_len;
    a.kv_len = (int)p->kv_len;
    a.features = (int)features;
    a.scale = (float)pow((double)kFusedDim, -0.25);
    fused_cut_slices(a, p->causal ? kChunk : kFusedTokens);
    a.chunks = causal_chunks(a.q_len > a.kv_len ? a.q_len : a.kv_len);
    return a;
}

/* Numbers of queries that forward leaves to the way back. */
void take_queries(const struct fb_problem *p, struct fb_scratch_cursor *kept, fused_arguments &a)
{
    const int64_t rows = p->batch * p->heads * p->q_len;
    a.query_base = fb_scratch_take_f32(kept, rows);
    a.query_share = fb_scratch_take_f32(kept, rows);
}

void take_lengths(const struct fb_problem *p, struct fb_scratch_cursor *here, fused_buffers &x,
                  fused_arguments &a)
{
    if (p->q_lengths != nullptr || p->kv_lengths != nullptr)
        x.lengths = (int32_t *)fb_scratch_take(here, 2 * p->batch, sizeof(int32_t));
    a.lengths = x.lengths;
}

/* Lay out scratch and saved; with both NULL they only count. */
fused_buffers lay_out_causal(const struct fb_problem *p, bool backward, void *scratch, void *saved,
                             fused_arguments &a)
{
    const int64_t heads = p->batch * p->heads, units = p->batch * p->kv_heads;
    struct fb_scratch_cursor here = fb_scratch_at(scratch), kept = fb_scratch_at(saved);
    fused_buffers x = {};
    take_queries(p, &kept, a);
    const size_t mark_bytes = p->dtype == FB_F16 ? kMarkBytes<__half> : kMarkBytes<__nv_bfloat16>;
    const auto take_marks = [&](struct fb_scratch_cursor *from) {
        a.key_marks = (char *)fb_scratch_take(from, units * a.chunks, mark_bytes);
        a.tops = fb_scratch_take_f32(from, units);
    };
    take_marks(&kept);
    if (!backward && saved == nullptr)
        take_marks(&here);
    take_lengths(p, &here, x, a);
    if (backward) {
        a.query_marks = (char *)fb_scratch_take(&here, heads * a.chunks, mark_bytes);
        a.weights = fb_scratch_take_f32(&here, heads * p->q_len);
    } else {
        const int64_t numbers = p->dtype == FB_F16 ? 2 : 1;
        a.mark_tops = fb_scratch_take_f32(&here, numbers * units * a.chunks * kFusedFeaturesMost);
    }
    x.scratch_bytes = here.used_bytes;
    x.saved_bytes = kept.used_bytes;
    return x;
}

fused_buffers lay_out(const struct fb_problem *p, bool backward, void *scratch, void *saved,
                      fused_arguments &a)
{
    if (p->causal)
        return lay_out_causal(p, backward, scratch, saved, a);
    const int64_t heads = p->batch * p->heads, units = p->batch * p->kv_heads;
    const int64_t totals = units * fused_total_count(a.features, p->dtype == FB_F16);
    struct fb_scratch_cursor here = fb_scratch_at(scratch), kept = fb_scratch_at(saved);
    fused_buffers x = {};
    take_queries(p, &kept, a);
    a.key_base = fb_scratch_take_f32(&kept, units * p->kv_len);
    a.totals = fb_scratch_take_f32(&kept, totals);
    if (!backward && saved == nullptr)
        a.totals = fb_scratch_take_f32(&here, totals);
    take_lengths(p, &here, x, a);
    const int64_t slots = backward ? heads * a.query_slices : units * a.key_slices;
    a.sums = fb_scratch_take_f32(&here, slots * fused_count(a.features));
    if (backward) {
        a.weights = fb_scratch_take_f32(&here, heads * p->q_len);
        a.back = fb_scratch_take_f32(&here, totals);
    }
    x.scratch_bytes = here.used_bytes;
    x.saved_bytes = kept.used_bytes;
    return x;
}

enum fb_status begin(const struct fb_problem *p, const struct fb_call *call, bool backward,
                     fused_arguments &a, struct fb_error *error)
{
    const fused_buffers x = lay_out(p, backward, call->scratch, call->saved, a);
    a.projection = (const float *)call->constants;
    a.q = panel_tensor_of(call->q);
    a.k = panel_tensor_of(call->k);
    a.v = panel_tensor_of(call->v);
    a.out = panel_tensor_of(call->out);
    return x.lengths == nullptr
               ? FB_OK
               : fb_cuda_put_lengths(p, x.lengths, (cudaStream_t)call->stream, error);
}

enum fb_status forward_causal(enum fb_dtype dtype, const fused_arguments &a, cudaStream_t stream,
                              struct fb_error *error)
{
    enum fb_status status = fused_cuda_sum_chunks(dtype, a, false, stream, error);
    if (status == FB_OK)
        status = causal_cuda_marks(dtype, a, false, stream, error);
    return status == FB_OK ? causal_cuda_rows(dtype, a, false, stream, error) : status;
}

enum fb_status backward_causal(enum fb_dtype dtype, const fused_arguments &a, cudaStream_t stream,
                               struct fb_error *error)
{
    enum fb_status status = fused_cuda_sum_chunks(dtype, a, true, stream, error);
    if (status == FB_OK)
        status = causal_cuda_marks(dtype, a, true, stream, error);
    if (status == FB_OK)
        status = causal_cuda_rows(dtype, a, true, stream, error);
    if (status == FB_OK)
        status = causal_cuda_slopes(dtype, a, false, stream, error);
    return status == FB_OK ? causal_cuda_slopes(dtype, a, true, stream, error) : status;
}

} // namespace

extern "C" bool fb_performer_cuda_is_fused(const struct fb_problem *p, int64_t features)
{
    const bool counts = p->causal ? features == kFusedFeaturesMost
                                  : features % kPanel == 0 && features <= kFusedFeaturesMost;
    const bool narrow = p->dtype == FB_BF16 || p->dtype == FB_F16;
    return narrow && p->qk_dim == kFusedDim && p->v_dim == kFusedDim && counts &&
           fb_cuda_is_hopper();
}

extern "C" void fb_performer_cuda_fused_sizes(const struct fb_problem *p, int64_t features,
                                              struct fb_sizes *sizes)
{
    fused_arguments a = arguments_of(p, features);
    const fused_buffers forward = lay_out(p, false, nullptr, nullptr, a);
    sizes->saved_bytes = forward.saved_bytes;
    sizes->forward_scratch_bytes = forward.scratch_bytes;
    sizes->backward_scratch_bytes = lay_out(p, true, nullptr, nullptr, a).scratch_bytes;
}

extern "C" enum fb_status fb_performer_cuda_fused_forward(const struct fb_problem *p,
                                                          int64_t features,
                                                          const struct fb_call *call,
                                                          struct fb_error *error)
{
    cudaStream_t stream = (cudaStream_t)call->stream;
    fused_arguments a = arguments_of(p, features);
    enum fb_status status = begin(p, call, false, a, error);
    if (status == FB_OK && p->causal)
        return forward_causal(p->dtype, a, stream, error);
    if (status == FB_OK)
        status = fused_cuda_sums(p->dtype, a, false, stream, error);
    return status == FB_OK ? fused_cuda_rows(p->dtype, a, FUSED_OUT, stream, error) : status;
}

extern "C" enum fb_status fb_performer_cuda_fused_backward(const struct fb_problem *p,
                                                           int64_t features,
                                                           const struct fb_call *call,
                                                           struct fb_error *error)
{
    cudaStream_t stream = (cudaStream_t)call->stream;
    fused_arguments a = arguments_of(p, features);
    enum fb_status status = begin(p, call, true, a, error);
    a.dout = panel_tensor_of(call->dout);
    a.dq = panel_tensor_of(call->dq);
    a.dk = panel_tensor_of(call->dk);
    a.dv = panel_tensor_of(call->dv);
    if (status == FB_OK && p->causal)
        return backward_causal(p->dtype, a, stream, error);
    if (status == FB_OK)
        status = fused_cuda_sums(p->dtype, a, true, stream, error);
    if (status == FB_OK)
        status = fused_cuda_rows(p->dtype, a, FUSED_DQ, stream, error);
    return status == FB_OK ? fused_cuda_rows(p->dtype, a, FUSED_DK_DV, stream, error) : status;
}
