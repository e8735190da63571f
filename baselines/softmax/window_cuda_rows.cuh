/*
 * Softmax over a band of keys in registers, heads of 64 in bf16 or f16: what the kernels by mma
 * (window_cuda_wide.cu) and by wgmma (window_cuda_groups.cu) share, and in part f32's. A warp has
 * 16 rows; s[n][i] are fragments of m16n8 results.
 */
#ifndef FB_WINDOW_CUDA_ROWS_CUH
#define FB_WINDOW_CUDA_ROWS_CUH

#include "cuda_fragments.cuh"
#include "window_cuda.cuh"

#include <math.h>

/* Rows of a head into a tile, asynchronously, by Threads threads, this one being number `thread`;
 * zeros beyond the valid ones. A thread's rows lie a multiple of eight apart, so that its addresses
 * differ by constants: whoever brings a whole tile in has hardly anything else to compute. */
template <typename T, int Rows, int Threads>
__device__ void fetch_rows(uint32_t tile, const tensor_view &view, int64_t b, int64_t h, int first,
                           int valid, int thread)
{
    constexpr int apart = Threads / 8, each = Rows / apart;
    static_assert(apart % 8 == 0 && Rows % apart == 0, "rows of a thread have the same swizzle");
    const head_rows<T> x = rows_of<T>(view, b, h, first);
    const int row = thread / 8, chunk = thread % 8;
    const uint32_t to = tile + chunk_offset(row, chunk);
    const T *from = x.data + row * x.stride + 8 * chunk;
    if (valid >= Rows) {
#pragma unroll
        for (int i = 0; i < each; i++)
            copy_chunk_async(to + i * apart * kRowBytes, from + i * apart * x.stride, true);
    } else {
        for (int i = 0; i < each; i++) {
            const bool exists = row + i * apart < valid;
            copy_chunk_async(
                to + i * apart * kRowBytes,
                exists ? from + i * apart * x.stride : static_cast<const T *>(view.data), exists);
        }
    }
}

/* A block of so many queries: its head, its keys, the first query, those that exist, and tiles of
 * so many keys. */
struct query_block {
    window_head head;
    window_range range;
    int first, valid, count;
};

__device__ inline query_block query_block_of(const window_arguments &a, int queries, int keys)
{
    query_block place;
    /* the longest rows of a causal problem first */
    place.first = (int)(gridDim.x - 1 - blockIdx.x) * queries;
    place.head = window_head_of(a, blockIdx.y);
    place.valid = max(0, min(queries, place.head.q_len - place.first));
    place.range = window_range_of(a, place.head.kv_len, place.first, place.valid);
    place.count = place.valid > 0 && place.range.to > place.range.from
                      ? (place.range.to - place.range.from + keys - 1) / keys
                      : 0;
    return place;
}

/* The rows g and g + 8 of a warp's strip. Peaks are exponents, of scores times the scale, so that a
 * peak that stays has a factor of one: the difference of a product and of the same one, rounded, is
 * the rounding, which would count anew with every tile. */
struct row_state {
    float peak[2], sum[2];
};

/* Scores of keys from `at` on that the rows from `row` on do not see, or from `to` on. */
template <int N>
__device__ void mask_scores(float (&s)[N][4], const window_arguments &a, int row, int at, int to)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int sink = row + g + i / 2 * 8, source = at + 8 * n + 2 * t + i % 2;
            if (source >= to || !window_sees(a, sink, source))
                s[n][i] = -INFINITY;
        }
}

/* The power of two that the largest weight is: f16 ends at 2^-25, and what lies below counts, too,
 * when there is much of it. It leaves with the sum of the weights. */
template <typename T> constexpr float kWeightPower = 0.0F;
template <> constexpr float kWeightPower<__half> = 14.0F;

/* Peaks of f32 are whole exponents: factors are powers of two, and each halves what came before at
 * least, so that roundings of factors do not gather. (16 bits would round the largest weight.) */
template <typename T> constexpr bool kWholePeaks = sizeof(T) == 4;

/* Scores become weights; factor: what the new maximum makes of the output so far. */
template <typename T, int N>
__device__ void weigh_scores(float (&s)[N][4], float (&factor)[2], row_state &rows, float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float peak = s[0][2 * half];
#pragma unroll
        for (int n = 0; n < N; n++)
            peak = fmaxf(peak, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        peak = fmaxf(peak, __shfl_xor_sync(0xffffffffU, peak, 1));
        peak = fmaxf(peak, __shfl_xor_sync(0xffffffffU, peak, 2));
        peak *= scale;
        const float now = fmaxf(rows.peak[half], kWholePeaks<T> ? ceilf(peak) : peak);
        const float base = now == -INFINITY ? 0.0F : now;
        const float one = base - kWeightPower<T>; /* whose weight is one */
        factor[half] = window_power(rows.peak[half] - base);
        float sum = 0.0F;
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float &x = s[n][2 * half + i];
                x = window_power(fmaf(x, scale, -one));
                sum += x;
            }
        rows.sum[half] = rows.sum[half] * factor[half] + sum;
        rows.peak[half] = now;
    }
}

__device__ inline void scale_rows(float (&out)[8][4], const float (&factor)[2])
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            out[n][i] *= factor[i / 2];
}

/* The tensor cores cut what they add to an output, and what few keys weigh that come first swallows
 * those that come after: beyond so many keys sums are put away, and begin anew. */
template <typename T> constexpr int kOneSumKeys = 1 << 18;
template <> constexpr int kOneSumKeys<__half> = 1 << 15;
constexpr int kStretchKeys = 1 << 14;

/* What has been put away, of threads with a strip to a warp: the thread's part of the output; the
 * rows' sums of weights and the peaks that all of it is relative to. */
template <int Threads> struct far_rows {
    static constexpr size_t bytes = (32 + 1) * Threads * sizeof(float);
    float *out;        /* [32][Threads] */
    float *sum, *peak; /* of the rows g and g + 8 */

    __device__ far_rows(char *at, int thread)
        : out(reinterpret_cast<float *>(at) + thread),
          sum(reinterpret_cast<float *>(at) + 32 * Threads + thread / 32 * 16 + thread % 32 / 4),
          peak(sum + Threads / 2)
    {
    }
    __device__ static bool is_first_lane() /* of a row's four */
    {
        return threadIdx.x % 4 == 0;
    }
    __device__ void clear()
    {
#pragma unroll
        for (int i = 0; i < 32; i++)
            out[i * Threads] = 0.0F;
        if (is_first_lane()) {
            sum[0] = sum[8] = 0.0F;
            peak[0] = peak[8] = -INFINITY;
        }
        __syncwarp();
    }
    __device__ void put_away(float (&x)[8][4], row_state &rows)
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float now = rows.peak[half], base = now == -INFINITY ? 0.0F : now;
            const float factor = window_power(peak[8 * half] - base);
            float total = rows.sum[half];
            total += __shfl_xor_sync(0xffffffffU, total, 1);
            total += __shfl_xor_sync(0xffffffffU, total, 2);
            __syncwarp(); /* all lanes have read the peak before */
            if (is_first_lane()) {
                sum[8 * half] = fmaf(sum[8 * half], factor, total);
                peak[8 * half] = now;
            }
            rows.sum[half] = 0.0F;
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float &far = out[(4 * n + 2 * half + i) * Threads];
                    far = fmaf(far, factor, x[n][2 * half + i]);
                    x[n][2 * half + i] = 0.0F;
                }
        }
        __syncwarp();
    }
    __device__ void bring_back(float (&x)[8][4], row_state &rows) const
    {
#pragma unroll
        for (int half = 0; half < 2; half++)
            rows.sum[half] = is_first_lane() ? sum[8 * half] : 0.0F;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                x[n][i] = out[(4 * n + i) * Threads];
    }
};

/* Weights of 16 keys, from 16 `step` on, as the left operand of a product. */
template <typename T, int N>
__device__ void weights_operand(uint32_t (&p)[4], const float (&s)[N][4], int step)
{
    p[0] = pack_pair<T>(s[2 * step][0], s[2 * step][1]);
    p[1] = pack_pair<T>(s[2 * step][2], s[2 * step][3]);
    p[2] = pack_pair<T>(s[2 * step + 1][0], s[2 * step + 1][1]);
    p[3] = pack_pair<T>(s[2 * step + 1][2], s[2 * step + 1][3]);
}

/* A strip of results, the rows g and g + 8 times a factor each, through the strip's own rows of a
 * tile, so that whole rows are written: those before `written`, counted from the tile's first. */
template <typename T>
__device__ void store_strip(char *tile, const float (&c)[8][4], const float (&factors)[2],
                            const head_rows<T> &to, int strip, int written, const lane_places &at)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < 8; n++) {
        char *place = tile + strip * kRowBytes + (at.result ^ (uint32_t)(n << 4));
        *reinterpret_cast<uint32_t *>(place) =
            pack_pair<T>(c[n][0] * factors[0], c[n][1] * factors[0]);
        *reinterpret_cast<uint32_t *>(place + 8 * kRowBytes) =
            pack_pair<T>(c[n][2] * factors[1], c[n][3] * factors[1]);
    }
    __syncwarp();
    for (int i = lane / 8; i < 16; i += 4)
        if (strip + i < written)
            *reinterpret_cast<uint4 *>(to.data + (strip + i) * to.stride + 8 * (lane % 8)) =
                *reinterpret_cast<const uint4 *>(tile + chunk_offset(strip + i, lane % 8));
}

/* What the strip's rows are to be multiplied by at the end, and their logarithms of sums. `valid`
 * rows have queries. */
template <typename T>
__device__ void end_rows(float (&inverse)[2], const row_state &rows, int strip, int valid,
                         int written, float *lse)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = rows.sum[half];
        sum += __shfl_xor_sync(0xffffffffU, sum, 1);
        sum += __shfl_xor_sync(0xffffffffU, sum, 2);
        const int row = strip + lane / 4 + 8 * half;
        if (lse != nullptr && lane % 4 == 0 && row < written)
            lse[row] = sum <= 0.0F ? INFINITY : rows.peak[half] + (log2f(sum) - kWeightPower<T>);
        inverse[half] = sum <= 0.0F || row >= valid ? 0.0F : 1.0F / sum;
    }
}

/* The strip's output, and its rows' logarithms of sums. */
template <typename T>
__device__ void write_rows(char *tile, const float (&out)[8][4], const row_state &rows,
                           const head_rows<T> &to, int strip, int valid, int written,
                           const lane_places &at, float *lse)
{
    float inverse[2];
    end_rows<T>(inverse, rows, strip, valid, written, lse);
    store_strip<T>(tile, out, inverse, to, strip, written, at);
}

#endif
