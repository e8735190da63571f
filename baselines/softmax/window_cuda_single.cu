/*
 * One query per head against a band of keys, forward and gradients: what a model asks for that
 * pools one token. Bound by memory: keys and values are read once, by slices over the whole device;
 * the slices' maxima, sums and vectors have fixed places and are joined in order.
 *
 *   p = exp(s - lse), dv = p dout, ds = p (dout v - dout out), dk = ds q, dq = sum ds k
 *
 * A row lies on `Lanes` lanes, eight numbers each.
 */
#include "cuda_panels.cuh"
#include "cuda_rows.cuh"
#include "window_cuda.cuh"

#include <math.h>

namespace
{

constexpr int kThreads = 256;
constexpr int kDepth = 2;    /* rows that a lane has under way */
constexpr int kStretch = 16; /* steps of so many rows between two times that sums are put away */

struct single_arguments {
    window_arguments w;
    panel_tensor q, k, v, out, dout, dq, dk, dv;
    int slices, slice_len;
    float slope;  /* of scores before log2(e) */
    float *parts; /* [heads][slices][part_count]: peak, sum, vector; or the vector only */
    int part_count;
    const float *shares; /* [heads] dout out */
};

/* The keys of a block's slice that the query sees, and the slice's end. */
struct key_range {
    window_head head;
    int first, from, to, end;
};

__device__ key_range keys_of(const single_arguments &a)
{
    key_range r;
    r.head = window_head_of(a.w, blockIdx.y);
    r.first = (int)blockIdx.x * a.slice_len;
    r.end = min(r.first + a.slice_len, a.w.kv_len);
    const window_range seen = window_range_of(a.w, r.head.kv_len, 0, 1);
    r.from = min(max(r.first, seen.from), r.end);
    r.to = r.head.q_len > 0 ? max(r.from, min(r.end, seen.to)) : r.from;
    return r;
}

__device__ float *part_of(const single_arguments &a)
{
    return a.parts + ((int64_t)blockIdx.y * a.slices + blockIdx.x) * a.part_count;
}

__device__ float dot_of(const float (&x)[8], const float (&y)[8])
{
    float sum = 0.0F;
#pragma unroll
    for (int e = 0; e < 8; e++)
        sum = fmaf(x[e], y[e], sum);
    return sum;
}

/* The lane groups' vectors times a weight each, added in order; shared: kThreads times 8 floats. */
template <int Lanes>
__device__ void join_groups(const float (&x)[8], float weight, int count, float *shared, float *to)
{
    constexpr int groups = kThreads / Lanes, width = 8 * Lanes;
    const int lane = (int)threadIdx.x % Lanes, group = (int)threadIdx.x / Lanes;
#pragma unroll
    for (int e = 0; e < 8; e++)
        shared[group * width + 8 * lane + e] = weight * x[e];
    __syncthreads();
    for (int col = (int)threadIdx.x; col < count; col += kThreads) {
        float sum = 0.0F;
        for (int g = 0; g < groups; g++)
            sum += shared[g * width + col];
        to[col] = sum;
    }
}

/* What few keys weigh that come first would swallow those that come after, one at a time: sums that
 * have been put away, of a thread, and the peak that they are relative to. Peaks are whole
 * exponents: factors are powers of two, and each halves what came before at least. */
struct far_sums {
    careful_sum out[8][kThreads], sum[kThreads];
    float peak[kThreads];

    __device__ void clear()
    {
#pragma unroll
        for (int e = 0; e < 8; e++)
            out[e][threadIdx.x] = {0.0F, 0.0F};
        sum[threadIdx.x] = {0.0F, 0.0F};
        peak[threadIdx.x] = -INFINITY;
    }
    /* x, which begins anew */
    __device__ static void put(careful_sum &far, float factor, float &x)
    {
        careful_sum y = far;
        y.scale(factor);
        y.add(x);
        far = y;
        x = 0.0F;
    }
    __device__ void put_away(float (&x)[8], float &total, float now)
    {
        const float base = now == -INFINITY ? 0.0F : now;
        const float factor = exp2f(peak[threadIdx.x] - base);
        peak[threadIdx.x] = now;
        put(sum[threadIdx.x], factor, total);
#pragma unroll
        for (int e = 0; e < 8; e++)
            put(out[e][threadIdx.x], factor, x[e]);
    }
};

/* grid (slices, heads): reads k and v once */
template <typename T, int Lanes>
__global__ void __launch_bounds__(kThreads, 3)
    forward_kernel(const __grid_constant__ single_arguments a)
{
    constexpr int groups = kThreads / Lanes;
    __shared__ float shared[kThreads * 8], peaks[groups], sums[groups];
    __shared__ far_sums far;
    const int lane = (int)threadIdx.x % Lanes, group = (int)threadIdx.x / Lanes, col = 8 * lane;
    const key_range keys = keys_of(a);
    const panel_rows<T> k(a.k, keys.head.b, keys.head.kv_h, keys.to);
    const panel_rows<T> v(a.v, keys.head.b, keys.head.kv_h, keys.to);
    float q[8], out[8] = {}, peak = -INFINITY, sum = 0.0F;
    fetch_chunk(panel_rows<T>(a.q, keys.head.b, keys.head.h, keys.head.q_len), 0, col, q);
    const bool is_long = keys.to - keys.from > kStretch * kDepth * groups;
    if (is_long)
        far.clear();
    for (int at = keys.from; at < keys.to; at += kDepth * groups) {
        float x[kDepth][8], y[kDepth][8], score[kDepth];
#pragma unroll
        for (int d = 0; d < kDepth; d++) {
            fetch_chunk(k, at + d * groups + group, col, x[d]);
            fetch_chunk(v, at + d * groups + group, col, y[d]);
        }
        float now = peak;
#pragma unroll
        for (int d = 0; d < kDepth; d++) {
            const float dot = sum_of_lanes<Lanes>(dot_of(x[d], q));
            score[d] = at + d * groups + group < keys.to ? dot * a.w.scale : -INFINITY;
            now = fmaxf(now, ceilf(score[d]));
        }
        const float base = now == -INFINITY ? 0.0F : now, factor = exp2f(peak - base);
        sum *= factor;
#pragma unroll
        for (int e = 0; e < 8; e++)
            out[e] *= factor;
#pragma unroll
        for (int d = 0; d < kDepth; d++) {
            const float p = exp2f(score[d] - base);
            sum += p;
#pragma unroll
            for (int e = 0; e < 8; e++)
                out[e] = fmaf(p, y[d][e], out[e]);
        }
        peak = now;
        if (is_long && (at - keys.from) / (kDepth * groups) % kStretch == kStretch - 1)
            far.put_away(out, sum, peak);
    }
    if (is_long) {
        far.put_away(out, sum, peak);
        sum = far.sum[threadIdx.x].value;
#pragma unroll
        for (int e = 0; e < 8; e++)
            out[e] = far.out[e][threadIdx.x].value;
    }
    if (lane == 0) {
        peaks[group] = peak;
        sums[group] = sum;
    }
    __syncthreads();
    float most = -INFINITY, total = 0.0F;
    for (int g = 0; g < groups; g++)
        most = fmaxf(most, peaks[g]);
    const float base = most == -INFINITY ? 0.0F : most;
    for (int g = 0; g < groups; g++)
        total += sums[g] * exp2f(peaks[g] - base);
    float *part = part_of(a);
    join_groups<Lanes>(out, exp2f(peak - base), a.w.value_dim, shared, part + 2);
    if (threadIdx.x == 0) {
        part[0] = most;
        part[1] = total;
    }
}

/* grid (heads): out and the logarithm of the sum from the slices */
template <typename T>
__global__ void __launch_bounds__(kThreads) join_kernel(const __grid_constant__ single_arguments a)
{
    const window_head head = window_head_of(a.w, blockIdx.x);
    const float *parts = a.parts + (int64_t)blockIdx.x * a.slices * a.part_count;
    float peak = -INFINITY;
    careful_sum sum = {0.0F, 0.0F}, out = {0.0F, 0.0F};
    for (int s = 0; s < a.slices; s++)
        peak = fmaxf(peak, parts[s * a.part_count]);
    const float base = peak == -INFINITY ? 0.0F : peak;
    const int col = (int)threadIdx.x;
    for (int s = 0; s < a.slices; s++) {
        const float *part = parts + s * a.part_count, factor = exp2f(part[0] - base);
        sum.add(part[1] * factor);
        if (col < a.w.value_dim)
            out.add(part[2 + col] * factor);
    }
    if (col < a.w.value_dim)
        *panel_rows<T>(a.out, head.b, head.h, 1).at(0, col) =
            from_f32<T>(sum.value <= 0.0F ? 0.0F : out.value / sum.value);
    if (a.w.lse != nullptr && col == 0)
        a.w.lse[blockIdx.x] = sum.value <= 0.0F ? INFINITY : peak + log2f(sum.value);
}

/* grid (slices, heads): reads k and v once, writes dk and dv once */
template <typename T, int Lanes>
__global__ void __launch_bounds__(kThreads, 3)
    gradient_kernel(const __grid_constant__ single_arguments a)
{
    constexpr int groups = kThreads / Lanes;
    __shared__ float shared[kThreads * 8];
    const int lane = (int)threadIdx.x % Lanes, group = (int)threadIdx.x / Lanes, col = 8 * lane;
    const key_range keys = keys_of(a);
    const window_head &head = keys.head;
    const panel_rows<T> k(a.k, head.b, head.kv_h, keys.to), v(a.v, head.b, head.kv_h, keys.to);
    const panel_rows<T> dk(a.dk, head.b, head.kv_h, keys.end);
    const panel_rows<T> dv(a.dv, head.b, head.kv_h, keys.end);
    const float lse = a.w.lse[blockIdx.y];
    const float share = head.q_len > 0 ? a.shares[blockIdx.y] : 0.0F;
    float q[8], dout[8], dq[8] = {};
    fetch_chunk(panel_rows<T>(a.q, head.b, head.h, head.q_len), 0, col, q);
    fetch_chunk(panel_rows<T>(a.dout, head.b, head.h, head.q_len), 0, col, dout);
    for (int at = keys.first; at < keys.end; at += kDepth * groups) {
        float x[kDepth][8], y[kDepth][8];
#pragma unroll
        for (int d = 0; d < kDepth; d++) {
            const int row = at + d * groups + group, there = row < keys.from ? keys.to : row;
            fetch_chunk(k, there, col, x[d]);
            fetch_chunk(v, there, col, y[d]);
        }
#pragma unroll
        for (int d = 0; d < kDepth; d++) {
            const int row = at + d * groups + group;
            const float score = sum_of_lanes<Lanes>(dot_of(x[d], q)) * a.w.scale;
            const float dp = sum_of_lanes<Lanes>(dot_of(y[d], dout));
            const bool seen = row >= keys.from && row < keys.to;
            const float p = seen ? exp2f(score - lse) : 0.0F;
            const float ds = p * (dp - share) * a.slope;
#pragma unroll
            for (int e = 0; e < 8; e++) {
                dq[e] = fmaf(ds, x[d][e], dq[e]);
                x[d][e] = ds * q[e];
                y[d][e] = p * dout[e];
            }
            if (row < keys.end) {
                store_chunk(dk, row, col, x[d]);
                store_chunk(dv, row, col, y[d]);
            }
        }
    }
    join_groups<Lanes>(dq, 1.0F, a.w.dim, shared, part_of(a));
}

/* grid (heads): dq from the slices */
template <typename T>
__global__ void __launch_bounds__(kThreads)
    join_gradient(const __grid_constant__ single_arguments a)
{
    const window_head head = window_head_of(a.w, blockIdx.x);
    const float *parts = a.parts + (int64_t)blockIdx.x * a.slices * a.part_count;
    const int col = (int)threadIdx.x;
    float sum = 0.0F;
    if (col >= a.w.dim)
        return;
    for (int s = 0; s < a.slices; s++)
        sum += parts[s * a.part_count + col];
    *panel_rows<T>(a.dq, head.b, head.h, 1).at(0, col) = from_f32<T>(sum);
}

template <typename T, int Lanes>
enum fb_status launch(const single_arguments &a, bool backward, unsigned heads, cudaStream_t stream,
                      struct fb_error *error)
{
    const dim3 grid((unsigned)a.slices, heads);
    if (backward) {
        gradient_kernel<T, Lanes><<<grid, kThreads, 0, stream>>>(a);
        join_gradient<T><<<heads, kThreads, 0, stream>>>(a);
    } else {
        forward_kernel<T, Lanes><<<grid, kThreads, 0, stream>>>(a);
        join_kernel<T><<<heads, kThreads, 0, stream>>>(a);
    }
    return fb_cuda_launched("softmax of one query", error);
}

template <typename T>
enum fb_status choose(const single_arguments &a, bool backward, unsigned heads, cudaStream_t stream,
                      struct fb_error *error)
{
    const int widest = a.w.dim > a.w.value_dim ? a.w.dim : a.w.value_dim;
    return widest <= 64    ? launch<T, 8>(a, backward, heads, stream, error)
           : widest <= 128 ? launch<T, 16>(a, backward, heads, stream, error)
                           : launch<T, 32>(a, backward, heads, stream, error);
}

enum fb_status run(const struct fb_problem *p, const single_arguments &a, bool backward,
                   cudaStream_t stream, struct fb_error *error)
{
    const unsigned heads = (unsigned)(p->batch * p->heads);
    switch (p->dtype) {
    case FB_BF16:
        return choose<__nv_bfloat16>(a, backward, heads, stream, error);
    case FB_F16:
        return choose<__half>(a, backward, heads, stream, error);
    default:
        return choose<float>(a, backward, heads, stream, error);
    }
}

single_arguments arguments_of(const struct fb_problem *p, const struct fb_call *call,
                              const window_arguments &w, float *parts)
{
    single_arguments a = {};
    a.w = w;
    a.w.lse = (float *)call->saved;
    a.q = panel_tensor_of(call->q);
    a.k = panel_tensor_of(call->k);
    a.v = panel_tensor_of(call->v);
    a.slices = fb_window_cuda_slices(p);
    a.slice_len = (int)((p->kv_len + a.slices - 1) / a.slices);
    a.slope = (float)(1.0 / sqrt((double)p->qk_dim));
    a.parts = parts;
    return a;
}

} // namespace

enum fb_status window_cuda_single(const struct fb_problem *p, const struct fb_call *call,
                                  const window_arguments &w, float *parts, cudaStream_t stream,
                                  struct fb_error *error)
{
    single_arguments a = arguments_of(p, call, w, parts);
    a.out = panel_tensor_of(call->out);
    a.part_count = 2 + a.w.value_dim;
    return run(p, a, false, stream, error);
}

enum fb_status window_cuda_single_gradient(const struct fb_problem *p, const struct fb_call *call,
                                           const window_arguments &w, const float *shares,
                                           float *parts, cudaStream_t stream,
                                           struct fb_error *error)
{
    single_arguments a = arguments_of(p, call, w, parts);
    a.dout = panel_tensor_of(call->dout);
    a.dq = panel_tensor_of(call->dq);
    a.dk = panel_tensor_of(call->dk);
    a.dv = panel_tensor_of(call->dv);
    a.shares = shares;
    a.part_count = a.w.dim;
    return run(p, a, true, stream, error);
}
