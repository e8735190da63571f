/*
 * The passes of linear attention on a GPU: which kernels run, and where their buffers lie.
 *
 * forward   states of slices; their totals (causal: running sums); the rows
 * backward  w; dN of slices of queries, and its totals (causal: running sums, N's too); dq, dk, dv
 */
#include "linear_cuda.cuh"

#include "cuda_limits.h"
#include "cuda_rows.cuh"
#include "kernel_support.h"

namespace
{

/* Blocks that an H100 runs at once, without and with a mask; and the panels after which a slice's
 * sums in f32 are put away. */
constexpr int kBlocksWanted = 528, kMaskedBlocksWanted = 396;
constexpr int kSlicePanelsMost = 64;

struct linear_buffers {
    int32_t *lengths;
    float *denominators, *weights, *sums, *back, *sum_total, *back_total;
    size_t scratch_bytes, saved_bytes;
};

int64_t at_least(int64_t x, int64_t y)
{
    return x > y ? x : y;
}

linear_arguments arguments_of(const struct fb_problem *p, const struct fb_linear_cuda_form *form)
{
    linear_arguments a = {};
    a.batch = (int)p->batch;
    a.heads = (int)p->heads;
    a.kv_heads = (int)p->kv_heads;
    a.group = (int)(p->heads / p->kv_heads);
    a.q_len = (int)p->q_len;
    a.kv_len = (int)p->kv_len;
    a.features = (int)form->feature_count;
    a.feature_panels = (int)((form->feature_count + kPanel - 1) / kPanel);
    a.value_panels = (int)((p->v_dim + kPanel - 1) / kPanel);
    a.count = (int64_t)a.feature_panels * a.value_panels * kPanelCount + a.feature_panels * kPanel;
    a.map = form->map;
    a.epsilon = form->epsilon;
    const int64_t panels = (at_least(p->q_len, p->kv_len) + kPanel - 1) / kPanel;
    const int64_t heads = p->batch * p->heads;
    int64_t slices = at_least(1, (p->causal ? kMaskedBlocksWanted : kBlocksWanted) / heads);
    slices = slices > panels ? panels : slices;
    const int64_t each = (panels + slices - 1) / slices;
    a.slice_panels = (int)(each > kSlicePanelsMost ? kSlicePanelsMost : each);
    a.slices = (int)((panels + a.slice_panels - 1) / a.slice_panels);
    return a;
}

/* Where everything lies in scratch and saved; with both NULL it only counts. */
linear_buffers buffers_of(const struct fb_problem *p, const linear_arguments &a, bool backward,
                          void *scratch, void *saved)
{
    const int64_t heads = p->batch * p->heads, units = p->batch * p->kv_heads;
    struct fb_scratch_cursor here = fb_scratch_at(scratch), kept = fb_scratch_at(saved);
    linear_buffers x = {};
    if (p->q_lengths != nullptr || p->kv_lengths != nullptr)
        x.lengths = (int32_t *)fb_scratch_take(&here, 2 * p->batch, sizeof(int32_t));
    x.denominators = fb_scratch_take_f32(&kept, heads * p->q_len);
    if (!p->causal)
        x.sum_total = fb_scratch_take_f32(&kept, units * a.count);
    if (!backward && !p->causal && saved == nullptr) {
        x.sum_total = fb_scratch_take_f32(&here, units * a.count);
        x.denominators = nullptr;
    }
    if (!backward || p->causal)
        x.sums = fb_scratch_take_f32(&here, units * a.slices * a.count);
    if (backward) {
        x.weights = fb_scratch_take_f32(&here, heads * p->q_len);
        x.back = fb_scratch_take_f32(&here, heads * a.slices * a.count);
        if (!p->causal)
            x.back_total = fb_scratch_take_f32(&here, units * a.count);
    }
    x.scratch_bytes = here.used_bytes;
    x.saved_bytes = kept.used_bytes;
    return x;
}

void put_buffers(linear_arguments &a, const linear_buffers &x)
{
    a.denominators = x.denominators;
    a.weights = x.weights;
    a.sums = x.sums;
    a.back = x.back;
    a.sum_total = x.sum_total;
    a.back_total = x.back_total;
}

enum fb_status put_lengths(const struct fb_problem *p, linear_arguments &a, int32_t *lengths,
                           cudaStream_t stream, struct fb_error *error)
{
    a.lengths = lengths;
    return lengths == nullptr ? FB_OK : fb_cuda_put_lengths(p, lengths, stream, error);
}

} // namespace

extern "C" enum fb_status fb_linear_cuda_supports(const struct fb_problem *p, enum fb_pass pass,
                                                  const char *kernel, struct fb_error *why)
{
    const enum fb_status status = fb_cuda_supports(p, kernel, why);
    if (status != FB_OK || pass != FB_DECODE)
        return status;
    return fb_cuda_supports_decode(p, kernel, why);
}

extern "C" void fb_linear_cuda_sizes(const struct fb_problem *p,
                                     const struct fb_linear_cuda_form *form, struct fb_sizes *sizes)
{
    const linear_arguments a = arguments_of(p, form);
    const linear_buffers forward = buffers_of(p, a, false, nullptr, nullptr);
    sizes->saved_bytes = forward.saved_bytes;
    sizes->forward_scratch_bytes = forward.scratch_bytes;
    sizes->backward_scratch_bytes = buffers_of(p, a, true, nullptr, nullptr).scratch_bytes;
}

extern "C" enum fb_status fb_linear_cuda_forward(const struct fb_problem *p,
                                                 const struct fb_linear_cuda_form *form,
                                                 const struct fb_call *call, struct fb_error *error)
{
    cudaStream_t stream = (cudaStream_t)call->stream;
    linear_arguments a = arguments_of(p, form);
    linear_buffers x = buffers_of(p, a, false, call->scratch, call->saved);
    if (call->saved == nullptr)
        x.denominators = nullptr;
    put_buffers(a, x);
    a.q = panel_tensor_of(call->q);
    a.k = panel_tensor_of(call->k);
    a.v = panel_tensor_of(call->v);
    a.out = panel_tensor_of(call->out);
    enum fb_status status = put_lengths(p, a, x.lengths, stream, error);
    if (status == FB_OK)
        status = linear_cuda_sum(form->features, p->dtype, a, false, stream, error);
    if (status != FB_OK)
        return status;
    if (p->causal) {
        status = linear_cuda_scan(a, false, stream, error);
        return status != FB_OK
                   ? status
                   : linear_cuda_masked(form->features, p->dtype, LINEAR_OUT, a, stream, error);
    }
    status = linear_cuda_total(a, false, x.sum_total, stream, error);
    return status != FB_OK
               ? status
               : linear_cuda_whole(form->features, p->dtype, LINEAR_OUT, a, stream, error);
}

extern "C" enum fb_status fb_linear_cuda_backward(const struct fb_problem *p,
                                                  const struct fb_linear_cuda_form *form,
                                                  const struct fb_call *call,
                                                  struct fb_error *error)
{
    cudaStream_t stream = (cudaStream_t)call->stream;
    linear_arguments a = arguments_of(p, form);
    const linear_buffers x = buffers_of(p, a, true, call->scratch, call->saved);
    put_buffers(a, x);
    a.q = panel_tensor_of(call->q);
    a.k = panel_tensor_of(call->k);
    a.v = panel_tensor_of(call->v);
    a.out = panel_tensor_of(call->out);
    a.dout = panel_tensor_of(call->dout);
    a.dq = panel_tensor_of(call->dq);
    a.dk = panel_tensor_of(call->dk);
    a.dv = panel_tensor_of(call->dv);
    enum fb_status status = put_lengths(p, a, x.lengths, stream, error);
    if (status == FB_OK)
        status = fb_cuda_row_products(&call->out, &call->dout, a.weights, stream, error);
    if (status == FB_OK)
        status = linear_cuda_sum(form->features, p->dtype, a, true, stream, error);
    if (status == FB_OK && p->causal)
        status = linear_cuda_sum(form->features, p->dtype, a, false, stream, error);
    if (status == FB_OK && p->causal)
        status = linear_cuda_scan(a, false, stream, error);
    if (status == FB_OK)
        status = p->causal ? linear_cuda_scan(a, true, stream, error)
                           : linear_cuda_total(a, true, x.back_total, stream, error);
    const enum linear_pass passes[] = {LINEAR_DQ, LINEAR_DK, LINEAR_DV};
    const auto run = p->causal ? linear_cuda_masked : linear_cuda_whole;
    for (int i = 0; i < 3 && status == FB_OK; i++)
        status = run(form->features, p->dtype, passes[i], a, stream, error);
    return status;
}
