/*
 * Softmax over a band of keys on any GPU from sm_80, for every dtype and head dimension: a block
 * takes 64 queries and 64 columns of values. The running maximum, sum and output of a row live in
 * shared memory; products as cuda_tile.cuh has them.
 */
#include "window_cuda.cuh"

#include <math.h>

namespace
{

constexpr int kTile = 64;
constexpr int kSplit = 64;
constexpr int kValueLd = kSplit + 8;

struct window_shared {
    float *q, *k;      /* [kTile][ld] */
    float *values;     /* [kTile][kValueLd] */
    float *out;        /* [kTile][kValueLd] */
    float *scores;     /* [kTile][kTile + 4] */
    float *peak, *sum; /* [kTile] */
    float *factor;     /* [kTile] what the new maximum makes of the old sum */
    float *before;     /* [kTile] the maximum when sums were put away */
    int ld;
};

constexpr int kScoresLd = kTile + 4;

size_t shared_floats(int cols)
{
    return 2 * (size_t)kTile * (size_t)(cols + 4) + 2 * (size_t)kTile * kValueLd +
           (size_t)kTile * kScoresLd + 4 * (size_t)kTile;
}

__device__ window_shared carve(float *at, int cols)
{
    window_shared x;
    x.ld = cols + 4;
    x.q = at;
    x.k = x.q + kTile * x.ld;
    x.values = x.k + kTile * x.ld;
    x.out = x.values + kTile * kValueLd;
    x.scores = x.out + kTile * kValueLd;
    x.peak = x.scores + kTile * kScoresLd;
    x.sum = x.peak + kTile;
    x.factor = x.sum + kTile;
    x.before = x.factor + kTile;
    return x;
}

/* What few keys weigh that come first would swallow those that come after, a tile at a time: after
 * so many tiles the sums are put away, and begin anew. */
constexpr int kStretch = 32;

struct far_sums {
    careful_sum out[kTile * kSplit / kTileThreads], sum; /* sum: of row threadIdx.x */

    __device__ static int row(int i)
    {
        return (i * kTileThreads + (int)threadIdx.x) / kSplit;
    }
    __device__ static float &out_of(const window_shared &x, int i)
    {
        return x.out[row(i) * kValueLd + (int)threadIdx.x % kSplit];
    }
    __device__ void clear(const window_shared &x)
    {
#pragma unroll
        for (careful_sum &y : out)
            y = {0.0F, 0.0F};
        sum = {0.0F, 0.0F};
        if (threadIdx.x < kTile)
            x.before[threadIdx.x] = -INFINITY;
    }
    /* All sums, which begin anew; by the whole block, in step before and after. */
    __device__ void put_away(const window_shared &x)
    {
        if (threadIdx.x < kTile) {
            const float now = x.peak[threadIdx.x], base = now == -INFINITY ? 0.0F : now;
            const float factor = exp2f(x.before[threadIdx.x] - base);
            sum.scale(factor);
            sum.add(x.sum[threadIdx.x]);
            x.sum[threadIdx.x] = 0.0F;
            x.factor[threadIdx.x] = factor;
            x.before[threadIdx.x] = now;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kTile * kSplit / kTileThreads; i++) {
            out[i].scale(x.factor[row(i)]);
            out[i].add(out_of(x, i));
            out_of(x, i) = 0.0F;
        }
        __syncthreads();
    }
    __device__ void bring_back(const window_shared &x) const
    {
#pragma unroll
        for (int i = 0; i < kTile * kSplit / kTileThreads; i++)
            out_of(x, i) = out[i].value;
        if (threadIdx.x < kTile)
            x.sum[threadIdx.x] = sum.value;
    }
};

/* Scores to weights, by four threads a row: the running maximum and sum advance. A maximum is a
 * whole exponent in f32: see kWholePeaks in window_cuda_rows.cuh. */
template <typename T>
__device__ void weigh_rows(const window_arguments &s, const window_shared &x, int first, int at,
                           int keys)
{
    const int row = threadIdx.x / 4, part = threadIdx.x % 4;
    float *scores = x.scores + row * kScoresLd;
    float peak = -INFINITY;
    for (int j = part; j < kTile; j += 4) {
        const bool seen = j < keys && window_sees(s, first + row, at + j);
        scores[j] = seen ? scores[j] * s.scale : -INFINITY;
        peak = fmaxf(peak, scores[j]);
    }
    peak = fmaxf(peak, __shfl_xor_sync(0xffffffffU, peak, 1));
    peak = fmaxf(peak, __shfl_xor_sync(0xffffffffU, peak, 2));
    const float old = x.peak[row], now = fmaxf(old, sizeof(T) == 4 ? ceilf(peak) : peak);
    const float base = now == -INFINITY ? 0.0F : now;
    float sum = 0.0F;
    for (int j = part; j < kTile; j += 4) {
        scores[j] = exp2f(scores[j] - base);
        sum += scores[j];
    }
    sum += __shfl_xor_sync(0xffffffffU, sum, 1);
    sum += __shfl_xor_sync(0xffffffffU, sum, 2);
    __syncwarp(); /* all of the row have read the old maximum */
    if (part == 0) {
        x.factor[row] = exp2f(old - base);
        x.sum[row] = x.sum[row] * x.factor[row] + sum;
        x.peak[row] = now;
    }
}

/* grid (tiles of queries, heads, splits); Long: sums are put away */
template <typename T, bool Long>
__global__ void __launch_bounds__(kTileThreads, Long ? 3 : 0)
    window_kernel(const __grid_constant__ window_arguments s)
{
    extern __shared__ __align__(16) float shared[];
    const window_shared x = carve(shared, s.cols);
    const int first = (int)blockIdx.x * kTile, split_first = (int)blockIdx.z * kSplit;
    const int width = min(kSplit, s.value_cols - split_first);
    const window_head head = window_head_of(s, blockIdx.y);
    const int rows = max(0, min(kTile, head.q_len - first));
    const auto same = [](float value) { return value; };
    const head_rows<T> q = rows_of<T>(s.q, head.b, head.h, first);
    load_tile(x.q, x.ld, kTile, s.cols, head_rows<const T>{q.data, q.stride}, rows, s.dim, same);
    for (int i = threadIdx.x; i < kTile * kValueLd; i += kTileThreads)
        x.out[i] = 0.0F;
    if (threadIdx.x < kTile) {
        x.peak[threadIdx.x] = -INFINITY;
        x.sum[threadIdx.x] = 0.0F;
    }
    far_sums far;
    if (Long)
        far.clear(x);
    const window_range range = window_range_of(s, head.kv_len, first, rows);
    for (int at = range.from; at < range.to && rows > 0; at += kTile) {
        const int keys = min(kTile, range.to - at);
        const head_rows<T> k = rows_of<T>(s.k, head.b, head.kv_h, at);
        const head_rows<T> v = rows_of<T>(s.v, head.b, head.kv_h, at);
        load_tile(x.k, x.ld, kTile, s.cols, head_rows<const T>{k.data, k.stride}, keys, s.dim,
                  same);
        load_tile(x.values, kValueLd, kTile, width,
                  head_rows<const T>{v.data + split_first, v.stride}, keys,
                  s.value_dim - split_first, same);
        __syncthreads();
        block_product<products_of<T>()>(
            kTile, kTile, s.cols, operand{x.q, x.ld, 1}, operand{x.k, 1, x.ld},
            [&](int row, int col, float y) { x.scores[row * kScoresLd + col] = y; });
        __syncthreads();
        weigh_rows<T>(s, x, first, at, keys);
        __syncthreads();
        block_product<products_of<T>()>(kTile, width, kTile, operand{x.scores, kScoresLd, 1},
                                        operand{x.values, kValueLd, 1},
                                        [&](int row, int col, float y) {
                                            float &out = x.out[row * kValueLd + col];
                                            out = fmaf(out, x.factor[row], y);
                                        });
        __syncthreads();
        if (Long && (at - range.from) / kTile % kStretch == kStretch - 1)
            far.put_away(x);
    }
    __syncthreads();
    if (Long) {
        far.put_away(x);
        far.bring_back(x);
        __syncthreads();
    }
    const head_rows<T> out = rows_of<T>(s.out, head.b, head.h, first);
    const int written = min(kTile, s.q_len - first);
    if (s.lse != nullptr && blockIdx.z == 0 && (int)threadIdx.x < written) {
        const float sum = x.sum[threadIdx.x];
        s.lse[(int64_t)blockIdx.y * s.q_len + first + threadIdx.x] =
            sum <= 0.0F ? INFINITY : x.peak[threadIdx.x] + log2f(sum);
    }
    for (int i = threadIdx.x; i < written * width; i += kTileThreads) {
        const int row = i / width, col = i % width;
        const float y =
            row >= rows || x.sum[row] <= 0.0F ? 0.0F : x.out[row * kValueLd + col] / x.sum[row];
        if (split_first + col < s.value_dim)
            out.data[row * out.stride + split_first + col] = from_f32<T>(y);
    }
}

template <typename T>
enum fb_status launch(const window_arguments &arguments, unsigned heads, cudaStream_t stream,
                      struct fb_error *error)
{
    const size_t bytes = sizeof(float) * shared_floats(arguments.cols);
    const bool is_long = window_cuda_most_keys(arguments, kTile) > kStretch * kTile;
    const auto kernel = is_long ? window_kernel<T, true> : window_kernel<T, false>;
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, bytes, "tiled softmax", error);
    if (status != FB_OK)
        return status;
    const dim3 grid((unsigned)((arguments.q_len + kTile - 1) / kTile), heads,
                    (unsigned)((arguments.value_cols + kSplit - 1) / kSplit));
    kernel<<<grid, kTileThreads, bytes, stream>>>(arguments);
    return fb_cuda_launched("tiled softmax", error);
}

} // namespace

bool window_cuda_has_chunks(const tensor_view &view, int numbers)
{
    return reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && view.stride_b % numbers == 0 &&
           view.stride_h % numbers == 0 && view.stride_n % numbers == 0;
}

bool window_cuda_is_wide(const struct fb_problem *p,
                         std::initializer_list<const tensor_view *> tensors)
{
    bool wide = p->dtype != FB_F32 && p->qk_dim == 64 && p->v_dim == 64;
    for (const tensor_view *tensor : tensors)
        wide = wide && window_cuda_has_chunks(*tensor, 8);
    return wide;
}

window_arguments window_arguments_of(const struct fb_problem *p, const struct fb_call *call,
                                     const struct fb_cuda_band *band)
{
    window_arguments a = {};
    a.q = view_of(call->q);
    a.k = view_of(call->k);
    a.v = view_of(call->v);
    a.out = view_of(call->out);
    a.heads = (int)p->heads;
    a.group = (int)(p->heads / p->kv_heads);
    a.batch = (int)p->batch;
    a.q_len = (int)p->q_len;
    a.kv_len = (int)p->kv_len;
    a.dim = (int)p->qk_dim;
    a.value_dim = (int)p->v_dim;
    a.cols = round_up(p->qk_dim, 32);
    a.value_cols = round_up(p->v_dim, 32);
    a.back = band->back;
    a.ahead = band->ahead;
    a.scale = (float)(1.4426950408889634 / sqrt((double)p->qk_dim));
    return a;
}

extern "C" enum fb_status fb_window_cuda_forward(const struct fb_problem *p,
                                                 const struct fb_call *call,
                                                 const struct fb_cuda_band *band,
                                                 struct fb_error *error)
{
    window_arguments a = window_arguments_of(p, call, band);
    a.lse = (float *)call->saved;
    const unsigned heads = (unsigned)(p->batch * p->heads);
    cudaStream_t stream = (cudaStream_t)call->stream;
    struct fb_window_cuda_buffers buffers;
    fb_window_cuda_buffers_of(p, call->scratch, &buffers);
    a.lengths = buffers.lengths;
    if (buffers.lengths != nullptr) {
        const enum fb_status status = fb_cuda_put_lengths(p, buffers.lengths, stream, error);
        if (status != FB_OK)
            return status;
    }
    if (fb_window_cuda_is_single(p))
        return window_cuda_single(p, call, a, buffers.parts, stream, error);
    const bool wide = window_cuda_is_wide(p, {&a.q, &a.k, &a.v, &a.out});
    if (wide && window_cuda_has_groups(a))
        return window_cuda_groups(p->dtype, a, heads, stream, error);
    if (window_cuda_is_split(p, {&a.q, &a.k, &a.v, &a.out}))
        return window_cuda_split(a, heads, stream, error);
    if (wide)
        return window_cuda_wide(p->dtype, a, heads, stream, error);
    switch (p->dtype) {
    case FB_BF16:
        return launch<__nv_bfloat16>(a, heads, stream, error);
    case FB_F16:
        return launch<__half>(a, heads, stream, error);
    default:
        return launch<float>(a, heads, stream, error);
    }
}
