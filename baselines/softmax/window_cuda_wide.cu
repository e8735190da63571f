/*
 * Softmax over a band of keys, bf16 or f16, heads of 64: a block takes 128 queries, a warp 16 of
 * them, with scores, weights and output in registers (as in FlashAttention-2, Dao, 2023). Tiles of
 * 64 keys and values come in by asynchronous copies, one tile ahead.
 */
#include "window_cuda_rows.cuh"

namespace
{

constexpr int kQueries = 128;
constexpr int kKeys = 64;
constexpr int kThreads = 256;
constexpr int kTileBytes = kKeys * kRowBytes;
constexpr size_t kSharedBytes = (size_t)kQueries * kRowBytes + 4 * (size_t)kTileBytes;
typedef far_rows<kThreads> block_far;

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

template <typename T>
__device__ void add_values(float (&out)[8][4], const float (&s)[8][4], uint32_t values,
                           const lane_places &at)
{
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint32_t p[4];
        weights_operand<T>(p, s, step);
#pragma unroll
        for (int block = 0; block < 4; block++) {
            uint32_t b[4];
            load_b(b, values + step * 16 * kRowBytes, at, block);
            multiply_pair<T>(out[2 * block], p, b[0], b[1]);
            multiply_pair<T>(out[2 * block + 1], p, b[2], b[3]);
        }
    }
}

/* grid (blocks of queries, heads); Far: sums are put away */
template <typename T, bool Far>
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
    fetch_rows<T, kQueries, kThreads>(queries, a.q, head.b, head.h, first, valid, threadIdx.x);
    if (count > 0) {
        fetch_rows<T, kKeys, kThreads>(tiles, a.k, head.b, head.kv_h, range.from,
                                       range.to - range.from, threadIdx.x);
        fetch_rows<T, kKeys, kThreads>(tiles + kTileBytes, a.v, head.b, head.kv_h, range.from,
                                       range.to - range.from, threadIdx.x);
    }
    commit_copies();
    uint32_t q[4][4];
    float out[8][4] = {};
    row_state rows = {{-INFINITY, -INFINITY}, {0.0F, 0.0F}};
    if (Far)
        block_far(shared + kSharedBytes, threadIdx.x).clear();
    for (int i = 0; i < count; i++) {
        const int here = range.from + i * kKeys;
        const uint32_t keys = tiles + (uint32_t)(i % 2 * 2 * kTileBytes);
        if (i + 1 < count) {
            const uint32_t next = tiles + (uint32_t)((i + 1) % 2 * 2 * kTileBytes);
            const int left = range.to - here - kKeys;
            fetch_rows<T, kKeys, kThreads>(next, a.k, head.b, head.kv_h, here + kKeys, left,
                                           threadIdx.x);
            fetch_rows<T, kKeys, kThreads>(next + kTileBytes, a.v, head.b, head.kv_h, here + kKeys,
                                           left, threadIdx.x);
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
            mask_scores(s, a, first + strip, here, range.to);
        float factor[2];
        weigh_scores<T>(s, factor, rows, a.scale);
        scale_rows(out, factor);
        add_values<T>(out, s, keys + kTileBytes, at);
        if (Far && (i + 1) % (kStretchKeys / kKeys) == 0)
            block_far(shared + kSharedBytes, threadIdx.x).put_away(out, rows);
        __syncthreads(); /* the tile is free */
    }
    if (Far) {
        block_far far(shared + kSharedBytes, threadIdx.x);
        far.put_away(out, rows);
        far.bring_back(out, rows);
    }
    wait_copies<0>();
    __syncthreads();
    const int written = min(kQueries, a.q_len - first);
    write_rows<T>(shared, out, rows, rows_of<T>(a.out, head.b, head.h, first), strip, valid,
                  written, at,
                  a.lse == nullptr ? nullptr : a.lse + (int64_t)blockIdx.y * a.q_len + first);
}

template <typename T>
enum fb_status launch(const window_arguments &arguments, unsigned heads, cudaStream_t stream,
                      struct fb_error *error)
{
    const bool far = window_cuda_most_keys(arguments, kQueries) > kOneSumKeys<T>;
    const auto kernel = far ? wide_kernel<T, true> : wide_kernel<T, false>;
    const size_t bytes = kSharedBytes + (far ? block_far::bytes : 0);
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, bytes, "wide softmax", error);
    if (status != FB_OK)
        return status;
    kernel<<<dim3((unsigned)((arguments.q_len + kQueries - 1) / kQueries), heads), kThreads, bytes,
             stream>>>(arguments);
    return fb_cuda_launched("wide softmax", error);
}

} // namespace

enum fb_status window_cuda_wide(enum fb_dtype dtype, const window_arguments &arguments,
                                unsigned heads, cudaStream_t stream, struct fb_error *error)
{
    return dtype == FB_BF16 ? launch<__nv_bfloat16>(arguments, heads, stream, error)
                            : launch<__half>(arguments, heads, stream, error);
}
