/*
 * Flow-Attention, normal form, spread over the whole device: the order of its passes, and the small
 * kernels between them. See flow_cuda_wide.cuh.
 */
#include "flow_cuda.h"

#include "cuda_rows.cuh"
#include "flow_cuda_wide.cuh"
#include "flow_cuda_wide_plan.h"

namespace
{

constexpr int kThreads = 256;

unsigned blocks_of(int64_t count)
{
    return (unsigned)((count + kThreads - 1) / kThreads);
}

/* Adds the slices of one or two vectors each, in order; to: of head 0. grid (heads, vectors), block
 * cols */
__global__ void add_vectors(const __grid_constant__ wide_arguments a, float *to, int64_t head_count,
                            int first_part)
{
    const int64_t head = blockIdx.x;
    const int part = first_part + (int)blockIdx.y;
    const float *from = a.parts + (head * a.slices * 2 + part) * a.cols + threadIdx.x;
    double sum = 0.0;
#pragma unroll 8
    for (int slice = 0; slice < a.slices; slice++)
        sum += (double)from[(int64_t)slice * 2 * a.cols];
    to[head * head_count + blockIdx.y * a.cols + threadIdx.x] = (float)sum;
}

/* ---- competition ----------------------------------------------------------------------------- */

/* o of a head's keys to powers, which sum to Z; grid (slices, heads) */
__global__ void __launch_bounds__(kThreads) share_tokens(const __grid_constant__ wide_arguments a)
{
    const wide_unit u = wide_unit_of(a, blockIdx.y);
    const float *peaks = a.peaks + 2 * u.index * a.slices;
    /* exponents that are bounded need no maximum, nor do gradients by strips know of one */
    const bool bounded = a.clamp <= FB_FLOW_SAFE_CLAMP;
    float peak = bounded ? 0.0F : -INFINITY;
    double sum = 0.0;
    for (int slice = 0; !bounded && slice < a.slices; slice++)
        peak = fmaxf(peak, peaks[2 * slice]);
    for (int slice = 0; slice < a.slices; slice++)
        if (peaks[2 * slice] > -INFINITY)
            sum += (double)peaks[2 * slice + 1] * (double)expf(peaks[2 * slice] - peak);
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        float *scalars = wide_scalars_of(a, u.index);
        scalars[0] = sum > 0.0 ? (float)((double)u.kv_valid / sum) : 0.0F;
        scalars[1] = sum > 0.0 ? peak : 0.0F;
    }
    const int first = (int)blockIdx.x * a.slice_len;
    const int end = (int)min((int64_t)first + a.slice_len, (int64_t)u.kv_valid);
    float *p = a.p + u.index * a.kv_len;
    for (int row = first + (int)threadIdx.x; row < end; row += kThreads)
        p[row] = expf(p[row] - peak);
}

/* clamped o of a token's heads to their shares times `factor` or the batch element's S; grid
 * (tokens, batch) */
__global__ void __launch_bounds__(kThreads)
    share_heads(const __grid_constant__ wide_arguments a, bool times_length)
{
    const int64_t b = blockIdx.y, row = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    const wide_unit u = wide_unit_of(a, b * a.heads);
    float *p = a.p + u.index * a.kv_len + row;
    if (blockIdx.x == 0 && !times_length)
        for (int h = (int)threadIdx.x; h < a.heads; h += kThreads) {
            wide_scalars_of(a, u.index + h)[0] = (float)u.kv_valid;
            wide_scalars_of(a, u.index + h)[1] = 0.0F;
        }
    if (row >= u.kv_valid)
        return;
    float peak = -INFINITY, sum = 0.0F;
    for (int h = 0; h < a.heads; h++)
        peak = fmaxf(peak, p[(int64_t)h * a.kv_len]);
    for (int h = 0; h < a.heads; h++)
        sum += expf(p[(int64_t)h * a.kv_len] - peak);
    const float factor = (times_length ? (float)u.kv_valid : 1.0F) / sum;
    for (int h = 0; h < a.heads; h++)
        p[(int64_t)h * a.kv_len] = factor * expf(p[(int64_t)h * a.kv_len] - peak);
}

/* Without competition every source counts once; grid (slices, heads) */
__global__ void __launch_bounds__(kThreads) share_nothing(const __grid_constant__ wide_arguments a)
{
    const wide_unit u = wide_unit_of(a, blockIdx.y);
    const int first = (int)blockIdx.x * a.slice_len;
    const int end = (int)min((int64_t)first + a.slice_len, (int64_t)u.kv_valid);
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        wide_scalars_of(a, u.index)[0] = 1.0F;
        wide_scalars_of(a, u.index)[1] = 0.0F;
    }
    for (int row = first + (int)threadIdx.x; row < end; row += kThreads)
        a.p[u.index * a.kv_len + row] = 1.0F;
}

/* ---- its gradient ---------------------------------------------------------------------------- */

__device__ float z_of(const wide_arguments &a, int64_t head, int64_t row)
{
    const int64_t panel_count = (int64_t)a.batch * a.heads * a.kv_len;
    float sum = 0.0F;
    for (int panel = 0; panel * kPanel < a.value_dim; panel++)
        sum += a.z[panel * panel_count + head * a.kv_len + row];
    return sum;
}

/* The slice's sum of z; grid (slices, heads) */
__global__ void __launch_bounds__(kThreads) sum_z(const __grid_constant__ wide_arguments a)
{
    __shared__ double buffer[kThreads];
    const wide_unit u = wide_unit_of(a, blockIdx.y);
    const int first = (int)blockIdx.x * a.slice_len;
    const int end = (int)min((int64_t)first + a.slice_len, (int64_t)u.kv_valid);
    double sum = 0.0;
    for (int row = first + (int)threadIdx.x; row < end; row += kThreads)
        sum += (double)z_of(a, u.index, row);
    buffer[threadIdx.x] = sum;
    for (int half = kThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half)
            buffer[threadIdx.x] += buffer[threadIdx.x + half];
    }
    if (threadIdx.x == 0)
        a.peaks[2 * (u.index * a.slices + blockIdx.x)] = (float)buffer[0];
}

__device__ void put_score_gradient(const wide_arguments &a, int64_t head, int64_t row, float mean)
{
    const int64_t place = head * a.kv_len + row;
    const bool inside = fabsf(a.o[place]) <= a.clamp;
    a.o[place] = inside ? z_of(a, head, row) - a.p[place] * mean : 0.0F;
}

/* o to do; grid (slices, heads) */
__global__ void __launch_bounds__(kThreads)
    score_gradients_of_tokens(const __grid_constant__ wide_arguments a)
{
    const wide_unit u = wide_unit_of(a, blockIdx.y);
    const float *parts = a.peaks + 2 * u.index * a.slices;
    const int first = (int)blockIdx.x * a.slice_len;
    const int end = (int)min((int64_t)first + a.slice_len, (int64_t)u.kv_valid);
    double sum = 0.0;
    for (int slice = 0; slice < a.slices; slice++)
        sum += (double)parts[2 * slice];
    const float mean = (float)(sum / (double)max(u.kv_valid, 1));
    for (int row = first + (int)threadIdx.x; row < end; row += kThreads)
        put_score_gradient(a, u.index, row, mean);
}

/* likewise of every head of a token; grid (tokens, batch) */
__global__ void __launch_bounds__(kThreads)
    score_gradients_of_heads(const __grid_constant__ wide_arguments a)
{
    const int64_t b = blockIdx.y, row = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    const wide_unit u = wide_unit_of(a, b * a.heads);
    if (row >= u.kv_valid)
        return;
    float sum = 0.0F;
    for (int h = 0; h < a.heads; h++)
        sum += z_of(a, u.index + h, row);
    const float mean = sum / (float)u.kv_valid;
    for (int h = 0; h < a.heads; h++)
        put_score_gradient(a, u.index + h, row, mean);
}

/* grid (slices, heads) */
__global__ void __launch_bounds__(kThreads)
    no_score_gradients(const __grid_constant__ wide_arguments a)
{
    const wide_unit u = wide_unit_of(a, blockIdx.y);
    const int first = (int)blockIdx.x * a.slice_len;
    const int end = (int)min((int64_t)first + a.slice_len, (int64_t)u.kv_valid);
    for (int row = first + (int)threadIdx.x; row < end; row += kThreads)
        a.o[u.index * a.kv_len + row] = 0.0F;
}

/* ---- the order of the passes ----------------------------------------------------------------- */

wide_arguments arguments_of(const struct fb_problem *p, const struct fb_call *call,
                            const struct fb_flow_wide_plan &plan,
                            const struct fb_flow_wide_buffers &x)
{
    const struct fb_flow_options options = fb_flow_options_of(p);
    wide_arguments a = {};
    a.q = panel_tensor_of(call->q);
    a.k = panel_tensor_of(call->k);
    a.v = panel_tensor_of(call->v);
    a.out = panel_tensor_of(call->out);
    a.phi = options.phi;
    a.competition = options.competition;
    a.clamp = options.clamp;
    a.extra_eps = options.extra_eps;
    a.allocation = options.allocation;
    a.batch = (int)p->batch;
    a.heads = (int)p->heads;
    a.kv_heads = (int)p->kv_heads;
    a.group = (int)(p->heads / p->kv_heads);
    a.q_len = (int)p->q_len;
    a.kv_len = (int)p->kv_len;
    a.lengths = x.lengths;
    a.dim = (int)p->qk_dim;
    a.value_dim = (int)p->v_dim;
    a.cols = plan.cols;
    a.value_cols = plan.value_cols;
    a.slices = plan.slices;
    a.slice_len = plan.slice_len;
    a.panel_slices = plan.panel_slices;
    a.slice_panels = plan.slice_panels;
    a.result_slices = plan.result_slices;
    a.result_panels = plan.result_panels;
    a.totals = call->saved != nullptr ? (float *)call->saved : x.totals;
    a.totals_count = plan.totals_count;
    a.gradients = x.gradients;
    a.gradients_count = plan.gradients_count;
    a.parts = x.parts;
    a.peaks = x.peaks;
    a.matrices = x.matrices;
    a.r = x.r;
    a.alpha = x.alpha;
    a.y = x.y;
    a.dc = x.dc;
    a.da = x.da;
    a.p = x.p;
    a.beta = x.beta;
    a.o = x.o;
    a.db = x.db;
    a.z = x.z;
    return a;
}

/* A pass over rows, then its sums over slices: `count` vectors from the first part on. */
enum fb_status walk(enum fb_dtype dtype, enum wide_pass pass, const wide_arguments &a, float *to,
                    int64_t head_count, int first_part, int count, cudaStream_t stream,
                    struct fb_error *error)
{
    const enum fb_status status = flow_wide_walk(dtype, pass, a, stream, error);
    if (status != FB_OK || count == 0)
        return status;
    add_vectors<<<dim3((unsigned)(a.batch * a.heads), (unsigned)count), (unsigned)a.cols, 0,
                  stream>>>(a, to, head_count, first_part);
    return fb_cuda_launched("flow's sums over slices", error);
}

enum fb_status share(const wide_arguments &a, bool backward, cudaStream_t stream,
                     struct fb_error *error)
{
    const dim3 slices((unsigned)a.slices, (unsigned)(a.batch * a.heads));
    const dim3 tokens(blocks_of(a.kv_len), (unsigned)a.batch);
    if (a.competition == FB_FLOW_OVER_HEADS)
        share_heads<<<tokens, kThreads, 0, stream>>>(a, backward);
    else if (backward)
        return FB_OK;
    else if (a.competition == FB_FLOW_OVER_TOKENS)
        share_tokens<<<slices, kThreads, 0, stream>>>(a);
    else
        share_nothing<<<slices, kThreads, 0, stream>>>(a);
    return fb_cuda_launched("flow's competition", error);
}

enum fb_status score_gradients(const wide_arguments &a, cudaStream_t stream, struct fb_error *error)
{
    const dim3 slices((unsigned)a.slices, (unsigned)(a.batch * a.heads));
    const dim3 tokens(blocks_of(a.kv_len), (unsigned)a.batch);
    if (a.competition == FB_FLOW_OVER_HEADS)
        score_gradients_of_heads<<<tokens, kThreads, 0, stream>>>(a);
    else if (a.competition == FB_FLOW_NO_COMPETITION)
        no_score_gradients<<<slices, kThreads, 0, stream>>>(a);
    else {
        sum_z<<<slices, kThreads, 0, stream>>>(a);
        score_gradients_of_tokens<<<slices, kThreads, 0, stream>>>(a);
    }
    return fb_cuda_launched("flow's competition, gradient", error);
}

/* dv or dk, added up over the heads of a group. */
enum fb_status rounds(enum fb_dtype dtype, enum wide_result result, wide_arguments a,
                      cudaStream_t stream, struct fb_error *error)
{
    enum fb_status status = FB_OK;
    for (a.round = 0; status == FB_OK && a.group > a.round; a.round++)
        status = flow_wide_result(dtype, result, a, stream, error);
    return status;
}

enum fb_status forward(enum fb_dtype dtype, const wide_arguments &a, cudaStream_t stream,
                       struct fb_error *error)
{
    enum fb_status status =
        walk(dtype, WIDE_SUMS, a, a.totals + WIDE_SK * a.cols, a.totals_count, 0, 2, stream, error);
    if (status == FB_OK)
        status = walk(dtype, WIDE_FLOWS, a, a.totals + WIDE_U * a.cols, a.totals_count, 0, 2,
                      stream, error);
    if (status == FB_OK)
        status = flow_wide_walk(dtype, WIDE_SCORES, a, stream, error);
    if (status == FB_OK)
        status = share(a, false, stream, error);
    if (status == FB_OK)
        status = flow_wide_product(dtype, false, a, stream, error);
    return status != FB_OK ? status : flow_wide_result(dtype, WIDE_OUT, a, stream, error);
}

enum fb_status backward(enum fb_dtype dtype, const wide_arguments &a, cudaStream_t stream,
                        struct fb_error *error)
{
    float *const to = a.gradients;
    const int64_t count = a.gradients_count;
    enum fb_status status =
        walk(dtype, WIDE_PREPARE, a, to + WIDE_DU * a.cols, count, 1, 1, stream, error);
    if (status == FB_OK)
        status = share(a, true, stream, error);
    if (status == FB_OK)
        status = flow_wide_product(dtype, true, a, stream, error);
    if (status == FB_OK)
        status = rounds(dtype, WIDE_DV, a, stream, error);
    if (status == FB_OK)
        status = score_gradients(a, stream, error);
    if (status == FB_OK)
        status = walk(dtype, WIDE_SOURCES, a, to + WIDE_DW * a.cols, count, 0, 2, stream, error);
    if (status == FB_OK)
        status = walk(dtype, WIDE_SINKS, a, to + WIDE_DSK * a.cols, count, 1, 1, stream, error);
    if (status == FB_OK)
        status = flow_wide_result(dtype, WIDE_DQ, a, stream, error);
    return status != FB_OK ? status : rounds(dtype, WIDE_DK, a, stream, error);
}

wide_arguments prepare(const struct fb_problem *p, const struct fb_call *call,
                       const struct fb_flow_cuda_plan *base, bool gradients)
{
    struct fb_flow_wide_plan plan;
    struct fb_flow_wide_buffers buffers;
    fb_flow_wide_plan_of(p, base, &plan);
    fb_flow_wide_buffers_of(p, &plan, gradients, call->scratch, &buffers);
    return arguments_of(p, call, plan, buffers);
}

} // namespace

extern "C" enum fb_status fb_flow_cuda_wide(const struct fb_problem *p, const struct fb_call *call,
                                            const struct fb_flow_cuda_plan *plan,
                                            struct fb_error *error)
{
    cudaStream_t stream = (cudaStream_t)call->stream;
    const wide_arguments a = prepare(p, call, plan, false);
    enum fb_status status = FB_OK;
    if (a.lengths != nullptr)
        status = fb_cuda_put_lengths(p, const_cast<int32_t *>(a.lengths), stream, error);
    return status != FB_OK ? status : forward(p->dtype, a, stream, error);
}

extern "C" enum fb_status fb_flow_cuda_wide_gradient(const struct fb_problem *p,
                                                     const struct fb_call *call,
                                                     const struct fb_flow_cuda_plan *plan,
                                                     struct fb_error *error)
{
    cudaStream_t stream = (cudaStream_t)call->stream;
    wide_arguments a = prepare(p, call, plan, true);
    a.dout = panel_tensor_of(call->dout);
    a.dq = panel_tensor_of(call->dq);
    a.dk = panel_tensor_of(call->dk);
    a.dv = panel_tensor_of(call->dv);
    enum fb_status status = FB_OK;
    if (a.lengths != nullptr)
        status = fb_cuda_put_lengths(p, const_cast<int32_t *>(a.lengths), stream, error);
    if (status == FB_OK)
        status = fb_cuda_row_products(&call->out, &call->dout, a.y, stream, error);
    return status != FB_OK ? status : backward(p->dtype, a, stream, error);
}
