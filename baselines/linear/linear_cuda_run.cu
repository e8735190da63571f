/*
 * The passes of linear attention on a GPU: which kernels run, and where their buffers lie.
 *
 * forward   states of slices; their totals (causal: running sums); the rows
 * backward  w; dN of slices of queries, and its totals (causal: running sums, N's too); dq, dk, dv
 *
 * Where a part of the keys' features is kept apart (linear_cuda.h), dq has states of its own, w
 * comes from out, and dq from the general kernels.
 *
 * A few queries without a mask take two kernels in each pass: see linear_cuda_few.cu.
 */
#include "linear_cuda_split.cuh"

#include "cuda_limits.h"
#include "cuda_rows.cuh"
#include "kernel_support.h"

namespace
{

/* Blocks that an H100 runs at once, without and with a mask; and the panels after which a slice's
 * sums in f32 are put away. */
constexpr int kBlocksWanted = 528, kMaskedBlocksWanted = 396, kMaskedSplitBlocksWanted = 264,
              kFewBlocksWanted = 528, kStripBlocksWanted = 132, kStripRowBlocksWanted = 264;
constexpr int kStatesDirect = 8; /* states that a block of rows adds by itself */
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

/* Blocks that the sums of a slice of all heads make up for. */
int64_t blocks_wanted(const struct fb_problem *p, const linear_arguments &a)
{
    if (p->causal)
        return p->dtype == FB_F32 ? kMaskedSplitBlocksWanted : kMaskedBlocksWanted;
    if (a.few_lanes > 0)
        return kFewBlocksWanted;
    if (linear_is_strip(a, p->dtype))
        return kStripBlocksWanted;
    const bool own_sums = p->dtype != FB_BF16;
    return linear_is_wide(a, p->dtype)
               ? linear_cuda_wide_blocks(a, own_sums) / linear_cuda_wide_tiles(a, own_sums)
               : kBlocksWanted;
}

/* Whether linear_cuda_causal.cu serves a problem; the tensors' rows have to be whole, too. */
bool is_causal_slices(const struct fb_problem *p, const struct fb_linear_cuda_form *form)
{
    const bool narrow = p->dtype == FB_BF16 || p->dtype == FB_F16;
    return p->causal && narrow && form->features == p->dtype && form->feature_count == kPanel &&
           p->v_dim == kPanel && form->map != FB_LINEAR_CUDA_RELU && fb_cuda_is_hopper();
}

/* As many as keep an H100 busy in one round: blocks have three; 30 clusters of four blocks run at
 * once, 66 of two. With fewer heads slices do not sum themselves up. */
int64_t causal_slices(int64_t heads)
{
    return heads < 16 ? kMaskedBlocksWanted / heads : heads <= 30 ? 12 : heads <= 66 ? 6 : 3;
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
    a.few_lanes = linear_cuda_few_lanes(p, form->feature_count);
    if (a.few_lanes > 0)
        a.count = kFewRowsMost * (at_least(a.features, p->v_dim) + 1);
    const int64_t panels = (at_least(p->q_len, p->kv_len) + kPanel - 1) / kPanel;
    const int64_t heads = p->batch * (a.few_lanes > 0 ? p->kv_heads : p->heads);
    int64_t slices = at_least(1, blocks_wanted(p, a) / heads);
    if (is_causal_slices(p, form))
        slices = causal_slices(heads);
    slices = slices > panels ? panels : slices;
    const int64_t each = (panels + slices - 1) / slices;
    a.slice_panels = (int)(each > kSlicePanelsMost ? kSlicePanelsMost : each);
    a.slices = (int)((panels + a.slice_panels - 1) / a.slice_panels);
    const int64_t row_slices = at_least(1, kStripRowBlocksWanted / heads);
    a.row_panels = (int)at_least(2, (panels + row_slices - 1) / row_slices);
    return a;
}

/* Where everything lies in scratch and saved; with both NULL it only counts. */
linear_buffers buffers_of(const struct fb_problem *p, const struct fb_linear_cuda_form *form,
                          const linear_arguments &a, bool backward, void *scratch, void *saved)
{
    const int64_t heads = p->batch * p->heads, units = p->batch * p->kv_heads;
    struct fb_scratch_cursor here = fb_scratch_at(scratch), kept = fb_scratch_at(saved);
    linear_buffers x = {};
    if (p->q_lengths != nullptr || p->kv_lengths != nullptr)
        x.lengths = (int32_t *)fb_scratch_take(&here, 2 * p->batch, sizeof(int32_t));
    const bool few = a.few_lanes > 0, totals = !p->causal && !few;
    const bool saves = totals && form->apart == 0.0F, saved_nothing = !backward && saved == nullptr;
    x.denominators = fb_scratch_take_f32(&kept, heads * p->q_len);
    if (saves)
        x.sum_total = fb_scratch_take_f32(&kept, units * a.count);
    if (totals && (!saves || saved_nothing))
        x.sum_total = fb_scratch_take_f32(&here, units * a.count);
    if (totals && saved_nothing)
        x.denominators = nullptr;
    if (!backward || !saves)
        x.sums = fb_scratch_take_f32(&here, units * a.slices * a.count);
    if (backward)
        x.weights = fb_scratch_take_f32(&here, heads * p->q_len);
    if (backward && !few) {
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

/* The states of slices; running: as running sums need them. */
enum fb_status sum_each(const struct fb_problem *p, enum fb_dtype features,
                        const linear_arguments &a, bool of_queries, bool running,
                        cudaStream_t stream, struct fb_error *error)
{
    return p->dtype == FB_F32 && linear_cuda_split_sums(a, of_queries)
               ? linear_cuda_split_sum(a, of_queries, running, stream, error)
               : linear_cuda_sum(features, p->dtype, a, of_queries, stream, error);
}

enum fb_status multiply_masked(const struct fb_problem *p, enum fb_dtype features,
                               enum linear_pass pass, const linear_arguments &a,
                               cudaStream_t stream, struct fb_error *error)
{
    return p->dtype == FB_F32 && linear_cuda_split_serves(pass, a)
               ? linear_cuda_split(pass, a, stream, error)
               : linear_cuda_masked(features, p->dtype, pass, a, stream, error);
}

/* The running sums of slices, where they do not sum themselves up. */
enum fb_status sum_slices(const struct fb_problem *p, enum fb_dtype features,
                          const linear_arguments &a, bool of_queries, cudaStream_t stream,
                          struct fb_error *error)
{
    const enum fb_status status = sum_each(p, features, a, of_queries, true, stream, error);
    return status != FB_OK ? status : linear_cuda_scan(a, of_queries, stream, error);
}

enum fb_status forward_causal(const struct fb_problem *p, const linear_arguments &a,
                              cudaStream_t stream, struct fb_error *error)
{
    const bool joined = linear_cuda_causal_out_joins(p->dtype, a);
    const enum fb_status status = joined ? FB_OK : sum_slices(p, p->dtype, a, false, stream, error);
    return status != FB_OK ? status : linear_cuda_causal_out(p->dtype, a, joined, stream, error);
}

enum fb_status forward_masked(const struct fb_problem *p, enum fb_dtype features,
                              const linear_arguments &a, cudaStream_t stream,
                              struct fb_error *error)
{
    const enum fb_status status = sum_slices(p, features, a, false, stream, error);
    return status != FB_OK ? status : multiply_masked(p, features, LINEAR_OUT, a, stream, error);
}

/* The state of all keys, or what the gradients of keys take from queries. */
enum fb_status sum_whole(const struct fb_problem *p, enum fb_dtype features,
                         const linear_arguments &a, bool of_queries, float *total,
                         cudaStream_t stream, struct fb_error *error)
{
    if (!linear_is_wide(a, p->dtype)) {
        const enum fb_status status = sum_each(p, features, a, of_queries, false, stream, error);
        return status != FB_OK ? status
                               : linear_cuda_total(a, of_queries, false, total, stream, error);
    }
    const bool one = a.slices == 1 && (!of_queries || a.group == 1);
    const enum fb_status status = linear_cuda_wide_sum(features, p->dtype, a, of_queries,
                                                       one ? total : nullptr, stream, error);
    return status != FB_OK || one
               ? status
               : linear_cuda_total(a, of_queries, p->dtype == FB_BF16, total, stream, error);
}

/* The states of strips, few as they are or as one. */
struct strip_states {
    const float *states;
    int slots;
};

enum fb_status sum_strips(enum fb_dtype dtype, const linear_arguments &a, bool of_queries,
                          float *total, strip_states *x, cudaStream_t stream,
                          struct fb_error *error)
{
    enum fb_status status = linear_cuda_strip_sum(dtype, a, of_queries, stream, error);
    x->states = of_queries ? a.back : a.sums;
    x->slots = a.slices * (of_queries ? a.group : 1);
    if (status != FB_OK || x->slots <= kStatesDirect)
        return status;
    x->states = total;
    x->slots = 1;
    return linear_cuda_total(a, of_queries, false, total, stream, error);
}

enum fb_status forward_strips(enum fb_dtype dtype, const linear_arguments &a, float *total,
                              bool keep, cudaStream_t stream, struct fb_error *error)
{
    strip_states x;
    const enum fb_status status = sum_strips(dtype, a, false, total, &x, stream, error);
    return status != FB_OK
               ? status
               : linear_cuda_strip_out(dtype, a, x.states, x.slots,
                                       keep && x.states != total ? total : nullptr, stream, error);
}

/* dk and dv. */
enum fb_status backward_strips(enum fb_dtype dtype, const linear_arguments &a, float *total,
                               cudaStream_t stream, struct fb_error *error)
{
    strip_states x;
    const enum fb_status status = sum_strips(dtype, a, true, total, &x, stream, error);
    return status != FB_OK ? status
                           : linear_cuda_strip_dk_dv(dtype, a, x.states, x.slots, stream, error);
}

enum fb_status forward_whole(const struct fb_problem *p, enum fb_dtype features,
                             const linear_arguments &a, float *total, cudaStream_t stream,
                             struct fb_error *error)
{
    const enum fb_status status = sum_whole(p, features, a, false, total, stream, error);
    if (status != FB_OK)
        return status;
    return linear_is_wide(a, p->dtype)
               ? linear_cuda_wide(features, p->dtype, LINEAR_WIDE_OUT, a, stream, error)
               : linear_cuda_whole(features, p->dtype, LINEAR_OUT, a, stream, error);
}

/* dq of the keys that a has, by the general kernels. */
enum fb_status dq_masked(const struct fb_problem *p, enum fb_dtype features,
                         const linear_arguments &a, cudaStream_t stream, struct fb_error *error)
{
    const enum fb_status status = sum_slices(p, features, a, false, stream, error);
    return status != FB_OK ? status : multiply_masked(p, features, LINEAR_DQ, a, stream, error);
}

/* dk and dv. */
enum fb_status backward_masked(const struct fb_problem *p, enum fb_dtype features,
                               const linear_arguments &a, cudaStream_t stream,
                               struct fb_error *error)
{
    enum fb_status status = sum_slices(p, features, a, true, stream, error);
    if (status == FB_OK)
        status = multiply_masked(p, features, LINEAR_DK, a, stream, error);
    return status != FB_OK ? status : multiply_masked(p, features, LINEAR_DV, a, stream, error);
}

/* w comes with dq. */
enum fb_status dq_causal(const struct fb_problem *p, const linear_arguments &a, cudaStream_t stream,
                         struct fb_error *error)
{
    const bool joined = linear_cuda_causal_gradients_join(p->dtype, a);
    const enum fb_status status = joined ? FB_OK : sum_slices(p, p->dtype, a, false, stream, error);
    return status != FB_OK ? status : linear_cuda_causal_dq(p->dtype, a, joined, stream, error);
}

/* dk and dv. Groups of queries share a head of keys in the general passes only. */
enum fb_status backward_causal(const struct fb_problem *p, const linear_arguments &a,
                               cudaStream_t stream, struct fb_error *error)
{
    const bool joined = linear_cuda_causal_gradients_join(p->dtype, a);
    enum fb_status status =
        joined && a.group == 1 ? FB_OK : sum_slices(p, p->dtype, a, true, stream, error);
    if (status == FB_OK && a.group == 1)
        return linear_cuda_causal_dk_dv(p->dtype, a, joined, stream, error);
    if (status == FB_OK)
        status = linear_cuda_masked(p->dtype, p->dtype, LINEAR_DK, a, stream, error);
    return status != FB_OK ? status
                           : linear_cuda_masked(p->dtype, p->dtype, LINEAR_DV, a, stream, error);
}

bool all_whole(const linear_arguments &a, bool backward)
{
    const bool forward = a.q.whole && a.k.whole && a.v.whole;
    return backward ? forward && a.dout.whole && a.dq.whole && a.dk.whole && a.dv.whole
                    : forward && a.out.whole;
}

/* dq of the keys that a has; total: where their state goes, NULL: forward has saved it. */
enum fb_status dq_whole(const struct fb_problem *p, enum fb_dtype features,
                        const linear_arguments &a, float *total, cudaStream_t stream,
                        struct fb_error *error)
{
    const enum fb_status status =
        total == nullptr ? FB_OK : sum_whole(p, features, a, false, total, stream, error);
    if (status != FB_OK)
        return status;
    return linear_is_wide(a, p->dtype)
               ? linear_cuda_wide(features, p->dtype, LINEAR_WIDE_DQ, a, stream, error)
               : linear_cuda_whole(features, p->dtype, LINEAR_DQ, a, stream, error);
}

/* dk and dv. */
enum fb_status backward_whole(const struct fb_problem *p, enum fb_dtype features,
                              const linear_arguments &a, float *total, cudaStream_t stream,
                              struct fb_error *error)
{
    enum fb_status status = sum_whole(p, features, a, true, total, stream, error);
    if (status == FB_OK && linear_is_wide(a, p->dtype))
        return linear_cuda_wide(features, p->dtype, LINEAR_WIDE_DK_DV, a, stream, error);
    if (status == FB_OK)
        status = linear_cuda_whole(features, p->dtype, LINEAR_DK, a, stream, error);
    return status != FB_OK ? status
                           : linear_cuda_whole(features, p->dtype, LINEAR_DV, a, stream, error);
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
    const linear_buffers forward = buffers_of(p, form, a, false, nullptr, nullptr);
    sizes->saved_bytes = forward.saved_bytes;
    sizes->forward_scratch_bytes = forward.scratch_bytes;
    sizes->backward_scratch_bytes = buffers_of(p, form, a, true, nullptr, nullptr).scratch_bytes;
}

extern "C" enum fb_status fb_linear_cuda_forward(const struct fb_problem *p,
                                                 const struct fb_linear_cuda_form *form,
                                                 const struct fb_call *call, struct fb_error *error)
{
    cudaStream_t stream = (cudaStream_t)call->stream;
    linear_arguments a = arguments_of(p, form);
    linear_buffers x = buffers_of(p, form, a, false, call->scratch, call->saved);
    if (call->saved == nullptr)
        x.denominators = nullptr;
    put_buffers(a, x);
    a.q = panel_tensor_of(call->q);
    a.k = panel_tensor_of(call->k);
    a.v = panel_tensor_of(call->v);
    a.out = panel_tensor_of(call->out);
    enum fb_status status = put_lengths(p, a, x.lengths, stream, error);
    if (status != FB_OK)
        return status;
    if (a.few_lanes > 0)
        return linear_cuda_few(form->features, p->dtype, a, false, stream, error);
    const bool keeps = call->saved != nullptr && form->apart == 0.0F;
    if (!p->causal && linear_is_strip(a, p->dtype))
        return linear_cuda_pair_serves(p, call, a)
                   ? linear_cuda_pair(p, call, a, keeps ? x.sum_total : nullptr, stream, error)
                   : forward_strips(p->dtype, a, x.sum_total, keeps, stream, error);
    if (is_causal_slices(p, form) && all_whole(a, false))
        return forward_causal(p, a, stream, error);
    return p->causal ? forward_masked(p, form->features, a, stream, error)
                     : forward_whole(p, form->features, a, x.sum_total, stream, error);
}

extern "C" enum fb_status fb_linear_cuda_backward(const struct fb_problem *p,
                                                  const struct fb_linear_cuda_form *form,
                                                  const struct fb_call *call,
                                                  struct fb_error *error)
{
    cudaStream_t stream = (cudaStream_t)call->stream;
    linear_arguments a = arguments_of(p, form);
    const linear_buffers x = buffers_of(p, form, a, true, call->scratch, call->saved);
    put_buffers(a, x);
    a.q = panel_tensor_of(call->q);
    a.k = panel_tensor_of(call->k);
    a.v = panel_tensor_of(call->v);
    a.out = panel_tensor_of(call->out);
    a.dout = panel_tensor_of(call->dout);
    a.dq = panel_tensor_of(call->dq);
    a.dk = panel_tensor_of(call->dk);
    a.dv = panel_tensor_of(call->dv);
    const bool apart = form->apart != 0.0F, few = a.few_lanes > 0;
    const bool strips = !p->causal && !few && linear_is_strip(a, p->dtype);
    const bool slices = is_causal_slices(p, form) && all_whole(a, true);
    enum fb_status status = put_lengths(p, a, x.lengths, stream, error);
    if (status == FB_OK && (apart || !(strips || slices)))
        status = fb_cuda_row_products(&call->out, &call->dout, a.weights, stream, error);
    if (status != FB_OK)
        return status;
    linear_arguments of_dq = a;
    if (apart) {
        struct fb_tensor keys = call->k;
        keys.data = form->keys_apart;
        of_dq.k = panel_tensor_of(keys);
        of_dq.few_apart = form->apart;
    }
    if (few)
        return linear_cuda_few(form->features, p->dtype, of_dq, true, stream, error);
    if (p->causal)
        status = slices && !apart ? dq_causal(p, a, stream, error)
                                  : dq_masked(p, form->features, of_dq, stream, error);
    else
        status = strips && !apart ? linear_cuda_strip_dq(p->dtype, a, stream, error)
                                  : dq_whole(p, form->features, of_dq,
                                             apart ? x.sum_total : nullptr, stream, error);
    if (status != FB_OK)
        return status;
    if (slices)
        return backward_causal(p, a, stream, error);
    if (strips)
        return backward_strips(p->dtype, a, x.back_total, stream, error);
    return p->causal ? backward_masked(p, form->features, a, stream, error)
                     : backward_whole(p, form->features, a, x.back_total, stream, error);
}
