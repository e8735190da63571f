/*
 * Softmax over a band of keys, bf16 or f16, heads of 64: a block takes 128 queries, a warp 16 of
 * them, with scores, weights and output in registers (as in FlashAttention-2, Dao, 2023). Tiles of
 * 64 keys and values come in by asynchronous copies, one tile ahead.
 */
#include "cuda_fragments.cuh"
#include "window_cuda.cuh"

namespace
{

constexpr int kQueries = 128;
constexpr int kKeys = 64;
constexpr int kThreads = 256;
constexpr int kTileBytes = kKeys * kRowBytes;
constexpr size_t kSharedBytes = (size_t)kQueries * kRowBytes + 4 * (size_t)kTileBytes;

template <typename T> __device__ uint32_t pack_pair(float low, float high);
template <> __device__ uint32_t pack_pair<__nv_bfloat16>(float low, float high)
{
    return pack_bf16(low, high);
}
template <> __device__ uint32_t pack_pair<__half>(float low, float high)
{
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}

template <typename T>
__device__ void multiply_pair(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ void multiply_pair<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1)
{
    multiply(c, a, b0, b1);
}
template <>
__device__ void multiply_pair<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                      uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <typename T>
__device__ void fetch(uint32_t tile, const tensor_view &view, int64_t b, int64_t h, int first,
                      int rows, int valid)
{
    const head_rows<T> x = rows_of<T>(view, b, h, first);
    for (int i = threadIdx.x; i < rows * 8; i += kThreads) {
        const int row = i / 8, chunk = i % 8;
        const T *from =
            row < valid ? x.data + row * x.stride + 8 * chunk : static_cast<const T *>(view.data);
        copy_chunk_async(tile + chunk_offset(row, chunk), from, row < valid);
    }
}

/* The rows g and g + 8 of a warp's strip. */
struct row_state {
    float peak[2], sum[2];
};

/* Scores of the strip with a tile of keys. */
template <typename T>
__device__ void score(float (&s)[8][4], const uint32_t (&q)[4][4], uint32_t keys,
                      const lane_places &at)
{
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[n][i] = s[n + 1][i] = 0.0F;
#pragma unroll
        for (int step = 0; step < 4; step++) {
            uint32_t b[4];
            load_b_turned(b, keys + n / 2 * 16 * kRowBytes, at, step);
            multiply_pair<T>(s[n], q[step], b[0], b[1]);
            multiply_pair<T>(s[n + 1], q[step], b[2], b[3]);
        }
    }
}

__device__ void mask(float (&s)[8][4], const window_arguments &a, int row, int at, int to)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int sink = row + g + i / 2 * 8, source = at + 8 * n + 2 * t + i % 2;
            if (source >= to || !window_sees(a, sink, source))
                s[n][i] = -INFINITY;
        }
}

/* Scores become weights; the output so far is scaled to the new maximum. */
__device__ void weigh(float (&s)[8][4], float (&out)[8][4], row_state &rows, float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float peak = s[0][2 * half];
#pragma unroll
        for (int n = 0; n < 8; n++)
            peak = fmaxf(peak, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        peak = fmaxf(peak, __shfl_xor_sync(0xffffffffU, peak, 1));
        peak = fmaxf(peak, __shfl_xor_sync(0xffffffffU, peak, 2));
        const float now = fmaxf(rows.peak[half], peak);
        const float base = now == -INFINITY ? 0.0F : now * scale;
        const float factor = window_power(rows.peak[half] * scale - base);
        float sum = 0.0F;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float &x = s[n][2 * half + i];
                x = window_power(fmaf(x, scale, -base));
                sum += x;
            }
        rows.sum[half] = rows.sum[half] * factor + sum;
        rows.peak[half] = now;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            out[n][2 * half] *= factor;
            out[n][2 * half + 1] *= factor;
        }
    }
}

template <typename T>
__device__ void add_values(float (&out)[8][4], const float (&s)[8][4], uint32_t values,
                           const lane_places &at)
{
#pragma unroll
    for (int step = 0; step < 4; step++) {
        const uint32_t p[4] = {pack_pair<T>(s[2 * step][0], s[2 * step][1]),
                               pack_pair<T>(s[2 * step][2], s[2 * step][3]),
                               pack_pair<T>(s[2 * step + 1][0], s[2 * step + 1][1]),
                               pack_pair<T>(s[2 * step + 1][2], s[2 * step + 1][3])};
#pragma unroll
        for (int block = 0; block < 4; block++) {
            uint32_t b[4];
            load_b(b, values + step * 16 * kRowBytes, at, block);
            multiply_pair<T>(out[2 * block], p, b[0], b[1]);
            multiply_pair<T>(out[2 * block + 1], p, b[2], b[3]);
        }
    }
}

/* Through the strip's own rows of the query tile, so that whole rows are written. */
template <typename T>
__device__ void write(char *tile, const float (&out)[8][4], const row_state &rows,
                      const head_rows<T> &to, int strip, int valid, int written,
                      const lane_places &at, float scale, float *lse)
{
    const int lane = threadIdx.x % 32;
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = rows.sum[half];
        sum += __shfl_xor_sync(0xffffffffU, sum, 1);
        sum += __shfl_xor_sync(0xffffffffU, sum, 2);
        const int row = strip + lane / 4 + 8 * half;
        if (lse != nullptr && lane % 4 == 0 && row < written)
            lse[row] = sum > 0.0F ? rows.peak[half] * scale + log2f(sum) : INFINITY;
        inverse[half] = sum > 0.0F && strip + lane / 4 + 8 * half < valid ? 1.0F / sum : 0.0F;
    }
#pragma unroll
    for (int n = 0; n < 8; n++) {
        char *place = tile + strip * kRowBytes + (at.result ^ (uint32_t)(n << 4));
        *reinterpret_cast<uint32_t *>(place) =
            pack_pair<T>(out[n][0] * inverse[0], out[n][1] * inverse[0]);
        *reinterpret_cast<uint32_t *>(place + 8 * kRowBytes) =
            pack_pair<T>(out[n][2] * inverse[1], out[n][3] * inverse[1]);
    }
    __syncwarp();
    for (int i = lane / 8; i < 16; i += 4)
        if (strip + i < written)
            *reinterpret_cast<uint4 *>(to.data + (strip + i) * to.stride + 8 * (lane % 8)) =
                *reinterpret_cast<const uint4 *>(tile + chunk_offset(strip + i, lane % 8));
}

/* grid (blocks of queries, heads) */
template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    wide_kernel(const __grid_constant__ window_arguments a)
{
    extern __shared__ __align__(1024) char shared[];
    /* the longest rows of a causal problem first */
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * kQueries;
    const window_head head = window_head_of(a, blockIdx.y);
    const int valid = max(0, min(kQueries, head.q_len - first));
    const int strip = (int)threadIdx.x / 32 * 16;
    const uint32_t queries = shared_address(shared), tiles = queries + kQueries * kRowBytes;
    const window_range range = window_range_of(a, head.kv_len, first, valid);
    const int count = valid > 0 ? (range.to - range.from + kKeys - 1) / kKeys : 0;
    const lane_places at;
    fetch<T>(queries, a.q, head.b, head.h, first, kQueries, valid);
    if (count > 0) {
        fetch<T>(tiles, a.k, head.b, head.kv_h, range.from, kKeys, range.to - range.from);
        fetch<T>(tiles + kTileBytes, a.v, head.b, head.kv_h, range.from, kKeys,
                 range.to - range.from);
    }
    commit_copies();
    uint32_t q[4][4];
    float out[8][4] = {};
    row_state rows = {{-INFINITY, -INFINITY}, {0.0F, 0.0F}};
    for (int i = 0; i < count; i++) {
        const int here = range.from + i * kKeys;
        const uint32_t keys = tiles + (uint32_t)(i % 2 * 2 * kTileBytes);
        if (i + 1 < count) {
            const uint32_t next = tiles + (uint32_t)((i + 1) % 2 * 2 * kTileBytes);
            const int left = range.to - here - kKeys;
            fetch<T>(next, a.k, head.b, head.kv_h, here + kKeys, kKeys, left);
            fetch<T>(next + kTileBytes, a.v, head.b, head.kv_h, here + kKeys, kKeys, left);
        }
        commit_copies();
        wait_copies<1>();
        __syncthreads();
        if (i == 0)
#pragma unroll
            for (int step = 0; step < 4; step++)
                load_a(q[step], queries + strip * kRowBytes, at, step);
        float s[8][4];
        score<T>(s, q, keys, at);
        if (here + kKeys > range.to || here + kKeys - 1 > first + strip + a.ahead ||
            here < first + strip + 15 - a.back)
            mask(s, a, first + strip, here, range.to);
        weigh(s, out, rows, a.scale);
        add_values<T>(out, s, keys + kTileBytes, at);
        __syncthreads(); /* the tile is free */
    }
    wait_copies<0>();
    __syncthreads();
    const int written = min(kQueries, a.q_len - first);
    write<T>(shared, out, rows, rows_of<T>(a.out, head.b, head.h, first), strip, valid, written, at,
             a.scale, a.lse == nullptr ? nullptr : a.lse + (int64_t)blockIdx.y * a.q_len + first);
}

template <typename T>
enum fb_status launch(const window_arguments &arguments, unsigned heads, cudaStream_t stream,
                      struct fb_error *error)
{
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)wide_kernel<T>, kSharedBytes, "wide softmax", error);
    if (status != FB_OK)
        return status;
    wide_kernel<T><<<dim3((unsigned)((arguments.q_len + kQueries - 1) / kQueries), heads), kThreads,
                     kSharedBytes, stream>>>(arguments);
    return fb_cuda_launched("wide softmax", error);
}

} // namespace

enum fb_status window_cuda_wide(enum fb_dtype dtype, const window_arguments &arguments,
                                unsigned heads, cudaStream_t stream, struct fb_error *error)
{
    return dtype == FB_BF16 ? launch<__nv_bfloat16>(arguments, heads, stream, error)
                            : launch<__half>(arguments, heads, stream, error);
}
