/* Performer's sums over tokens, features formed on the way. See performer_cuda_fused.cuh. */
#include "performer_cuda_fused.cuh"

namespace
{

/* A block's tiles of tokens: how many of them are under way, the one in use included. Kept: the
 * sums of every tile are, as marks; otherwise those of the slice. */
template <bool OfQueries, bool Kept> struct sums_plan {
    static constexpr int tokens = Kept ? kChunk : kFusedTokens;
    static constexpr int stages = OfQueries && Kept ? 2 : 3;
    static constexpr int tile_bytes = tokens * kRowBytes;
    static constexpr int stage_bytes = (OfQueries ? 3 : 2) * tile_bytes; /* k, v; q, dout, out */
};

constexpr int kSliceTilesMost = 32; /* after which sums in f32 are put away */
constexpr int64_t kOverheadTiles = 2;
constexpr int kThreadsMost = kFusedFeaturesMost / kPanel * kGroupThreads;

/* Numbers of a tile's tokens. Keys: base. Queries: base, eps / y, w. */
struct token_numbers {
    alignas(16) float base[kChunk], share[kChunk], weight[kChunk];
};

template <bool OfQueries, bool Kept> size_t shared_bytes(const fused_arguments &a)
{
    typedef sums_plan<OfQueries, Kept> plan;
    return (size_t)2 * (a.features / kPanel) * kTileBytes +
           (size_t)plan::stages * (plan::stage_bytes + sizeof(token_numbers)) + 1024;
}

#if FB_HAVE_WGMMA

__device__ inline void copy_number_async(float *to, const float *from, bool exists)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)),
                 "l"(from), "r"(exists ? 4 : 0));
}

/* The numbers of a tile's queries on their way; the first threads of the block have one each. */
template <int Tokens>
__device__ inline void fetch_numbers(const fused_arguments &a, int64_t unit, token_numbers &to,
                                     int first, int valid)
{
    for (int i = threadIdx.x; i < Tokens; i += (int)blockDim.x) {
        const bool exists = first + i < valid;
        const int64_t at = unit * a.q_len + (exists ? first + i : 0);
        copy_number_async(&to.base[i], a.query_base + at, exists);
        copy_number_async(&to.share[i], a.query_share + at, exists);
    }
}

/* The same threads: no power of what does not exist. And w, by those who have brought dout and out;
 * also into global memory. */
template <typename T, int Tokens, int Threads>
__device__ void finish_queries(const fused_arguments &a, int64_t unit, const char *tile,
                               token_numbers &to, int first, int valid)
{
    const int step = (Threads > 0 ? Threads : (int)blockDim.x) / 8, chunk = (int)threadIdx.x % 8;
    for (int i = threadIdx.x; i < Tokens; i += (int)blockDim.x)
        if (first + i >= valid)
            to.base[i] = INFINITY;
#pragma unroll
    for (int k = 0; k < Tokens; k += step) {
        const int row = (int)threadIdx.x / 8 + k;
        if (Threads == 0 && row >= Tokens)
            break;
        float x[8], y[8], w = 0.0F;
        tile_rows<T>::get8(tile + Tokens * kRowBytes, row, chunk, x);
        tile_rows<T>::get8(tile + 2 * Tokens * kRowBytes, row, chunk, y);
#pragma unroll
        for (int i = 0; i < 8; i++)
            w = fmaf(x[i], y[i], w);
        w = sum_of_eight(w);
        if (chunk != 0)
            continue;
        to.weight[row] = w;
        if (first + row < valid)
            a.weights[unit * a.q_len + first + row] = w;
    }
}

/* Bases of a tile's keys, by those who have brought them; also into global memory. The thread's
 * part of the sum of v. */
template <typename T, int Tokens, int Threads>
__device__ void finish_keys(const fused_arguments &a, int64_t unit, const char *tile,
                            token_numbers &to, int first, int valid, float (&values)[8])
{
    const int step = (Threads > 0 ? Threads : (int)blockDim.x) / 8, chunk = (int)threadIdx.x % 8;
#pragma unroll
    for (int k = 0; k < Tokens; k += step) {
        const int row = (int)threadIdx.x / 8 + k;
        if (Threads == 0 && row >= Tokens)
            break;
        float e[8];
        tile_rows<T>::get8(tile + Tokens * kRowBytes, row, chunk, e);
#pragma unroll
        for (int i = 0; i < 8; i++)
            values[i] += e[i];
        const bool exists = first + row < valid;
        const float base = base_of_squares(a, squares_of_row<T>(tile, row, chunk));
        if (chunk != 0)
            continue;
        to.base[row] = exists ? base - kPowerBits<T> : INFINITY;
        if (exists && a.key_base != nullptr)
            a.key_base[unit * a.kv_len + first + row] = base;
    }
}

/* What a warpgroup has of its 64 features; a thread of rows g and g + 8 of its warp's. And of a
 * product that adds e^T v to the state and may be under way. */
struct feature_sums {
    float state[8][4], z[2], top[2];
    uint32_t e[4][4];
};

/* A new maximum of each row, and what it makes of the sums so far. */
__device__ inline void raise_tops(const float (&u)[8][4], feature_sums &sums)
{
    float factors[2];
    bool rises = false;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float now = fmaxf(sums.top[half], largest_of_half(u, half));
        rises |= now > sums.top[half];
        factors[half] = power_of_two((sums.top[half] - now) * kLog2e);
        sums.top[half] = now;
    }
    if (!__any_sync(0xffffffffU, rises))
        return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        scale_half(sums.state, half, factors[half]);
        sums.z[half] *= factors[half];
    }
}

/* f16: the sums of features, as rounded as those of the state, so that their errors leave a
 * quotient of the two. A quarter each, since four lanes are added. */
template <typename T> __device__ void add_ones(feature_sums &sums)
{
    float c[4] = {4.0F * sums.z[0], 0.0F, 4.0F * sums.z[1], 0.0F};
#pragma unroll
    for (int step = 0; step < 4; step++)
        multiply<T>(c, sums.e[step], pairs<T>::ones, pairs<T>::ones);
    sums.z[0] = 0.25F * c[0];
    sums.z[1] = 0.25F * c[2];
}

/* 64 tokens, of which `left` exist, in the second half of a tile perhaps none: x and z their tiles.
 */
template <typename T, bool OfQueries>
__device__ void add_tokens(uint64_t high, uint64_t low, uint64_t x, uint64_t z,
                           const token_numbers &numbers, const query_range<T> &range, int at,
                           int left, feature_sums &sums)
{
    const int t = threadIdx.x % 4;
    float u[8][4];
    wgmma_hold(u);
    wgmma_begin();
    product_turned<T>(u, high, x, true);
    product_turned<T>(u, low, x, false);
    finish_product(u);
    finish_sum(sums.state, sums.e);
    if constexpr (!OfQueries) {
        if (left < kPanel)
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    u[n][i] = 8 * n + 2 * t + i % 2 < left ? u[n][i] : -INFINITY;
        raise_tops(u, sums);
    }
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float2 base = *reinterpret_cast<const float2 *>(&numbers.base[at + 8 * n + 2 * t]);
        float2 share = {}, weight = {1.0F, 1.0F};
        if constexpr (OfQueries) {
            share = *reinterpret_cast<const float2 *>(&numbers.share[at + 8 * n + 2 * t]);
            weight = *reinterpret_cast<const float2 *>(&numbers.weight[at + 8 * n + 2 * t]);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float top = OfQueries ? 0.0F - range.bits : sums.top[half] * kLog2e;
            const float p =
                power_of_two(fmaf(u[n][2 * half], kLog2e, -(base.x + top))) + range.into * share.x;
            const float q = power_of_two(fmaf(u[n][2 * half + 1], kLog2e, -(base.y + top))) +
                            range.into * share.y;
            if constexpr (OfQueries || !kNarrow<T>) {
                sums.z[half] = fmaf(p, weight.x, sums.z[half]);
                sums.z[half] = fmaf(q, weight.y, sums.z[half]);
            }
            put_operand<T>(sums.e, n, half, p, q);
        }
    }
    if constexpr (!OfQueries && kNarrow<T>)
        add_ones<T>(sums);
    wgmma_hold(sums.state);
    wgmma_begin();
    product_added<T>(sums.state, sums.e, z);
    wgmma_commit();
}

/* A warpgroup's sums, whose factor is undone, to their places. */
__device__ inline void put_sums(const fused_arguments &a, float *to, const feature_sums &sums,
                                float back)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int feature = (int)threadIdx.x / 32 * 16 + g + 8 * half;
#pragma unroll
        for (int n = 0; n < 8; n++)
            *reinterpret_cast<float2 *>(to + feature * kFusedDim + 8 * n + 2 * t) =
                make_float2(sums.state[n][2 * half] * back, sums.state[n][2 * half + 1] * back);
        const float z = sum_of_four(sums.z[half]) * back;
        if (t == 0) {
            to[a.features * kFusedDim + feature] = z;
            to[a.features * (kFusedDim + 1) + feature] = sums.top[half];
        }
    }
}

/* A warp's part of the sum of v, of which every thread has eight columns over its rows. */
__device__ inline void put_values(float *parts, const float (&values)[8])
{
#pragma unroll
    for (int k = 0; k < 8; k++) {
        float x = values[k];
        x += __shfl_xor_sync(0xffffffffU, x, 8);
        x += __shfl_xor_sync(0xffffffffU, x, 16);
        if (threadIdx.x % 32 < 8)
            parts[threadIdx.x / 32 * kFusedDim + threadIdx.x % 8 * 8 + k] = x;
    }
}

/* The block is in step since. */
__device__ inline void add_values(const float *parts, float *to)
{
    if (threadIdx.x >= kFusedDim)
        return;
    float sum = 0.0F;
    for (int i = 0; i < (int)blockDim.x / 32; i++)
        sum += parts[i * kFusedDim + threadIdx.x];
    to[threadIdx.x] = sum;
}

/* A warpgroup's sums over a chunk to its mark, at the chunk's own maxima: the state times a factor,
 * the sums of features times what undoes theirs. */
template <typename T, bool OfQueries>
__device__ void put_mark(const fused_arguments &a, int64_t mark, const feature_sums &sums,
                         const query_range<T> &range)
{
    constexpr float alone = 1.0F / kPowerFactor<T>;
    const float factor = OfQueries ? kMarkFactor<T> : alone, back = OfQueries ? range.back : alone;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const fused_mark<T> to(OfQueries ? a.query_marks : a.key_marks, mark);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int feature = (int)threadIdx.x / 32 * 16 + g + 8 * half;
#pragma unroll
        for (int n = 0; n < 8; n++)
            *reinterpret_cast<uint32_t *>(to.state + chunk_offset(feature, n) + 4 * t) =
                pack_pair<T>(sums.state[n][2 * half] * factor,
                             sums.state[n][2 * half + 1] * factor);
        const float z = sum_of_four(sums.z[half]) * back;
        if (t != 0)
            continue;
        to.z[feature] = z;
        if constexpr (!OfQueries)
            a.mark_tops[mark * kFusedFeaturesMost + feature] = sums.top[half];
        if constexpr (!OfQueries && kNarrow<T>)
            *mark_sum(a, mark, feature) = z;
    }
}

__device__ inline void clear_sums(feature_sums &sums)
{
    sums = {};
    sums.top[0] = sums.top[1] = -INFINITY;
}

#endif

/* grid (slices, heads), a warpgroup to 64 features: reads k and v (queries: q, dout and
 * out) once.
 * Threads: of a block, 0 when it is not one of the largest. */
template <typename T, bool OfQueries, bool Kept, int Threads>
__global__ void __launch_bounds__(kThreadsMost, 1)
    sum_kernel(const __grid_constant__ fused_arguments a)
{
#if FB_HAVE_WGMMA
    typedef sums_plan<OfQueries, Kept> plan;
    constexpr int tokens = plan::tokens, stages = plan::stages;
    extern __shared__ char dynamic[];
    __shared__ float parts[2][kThreadsMost / 32 * kFusedDim]; /* the other is still being added */
    char *shared = dynamic + (1024 - shared_address(dynamic) % 1024) % 1024;
    const int64_t unit = blockIdx.y;
    const fused_unit u(a, unit, OfQueries);
    const int valid = OfQueries ? u.q_valid : u.kv_valid;
    const panel_rows<T> x(OfQueries ? a.q : a.k, u.b, u.h, valid);
    const panel_rows<T> z(OfQueries ? a.dout : a.v, u.b, u.h, valid);
    const int tiles = OfQueries ? a.query_tiles : a.key_tiles;
    const int from = (int)blockIdx.x * tiles * tokens, to = min(from + tiles * tokens, valid);
    const int count = from < to ? (to - from + tokens - 1) / tokens : 0;
    const int64_t mark = unit * a.chunks + blockIdx.x * tiles;
    const int panels = a.features / kPanel, group = (int)threadIdx.x / kGroupThreads;
    char *ring = shared + 2 * panels * kTileBytes;
    token_numbers *numbers = reinterpret_cast<token_numbers *>(ring + stages * plan::stage_bytes);
    const uint64_t high = wgmma_tile(shared_address(shared + group * kTileBytes)),
                   low = high + (uint64_t)(panels * kTileUnits);
    feature_sums sums;
    clear_sums(sums);
    float values[8] = {};
    const auto start = [&](int n) {
        char *stage = ring + n % stages * plan::stage_bytes;
        if (n < count) {
            const int first = from + n * tokens;
            fetch_tile<tokens, Threads>(stage, x, first, (int)threadIdx.x, (int)blockDim.x);
            fetch_tile<tokens, Threads>(stage + plan::tile_bytes, z, first, (int)threadIdx.x,
                                        (int)blockDim.x);
            if constexpr (OfQueries) {
                const panel_rows<T> out(a.out, u.b, u.h, valid);
                fetch_tile<tokens, Threads>(stage + 2 * plan::tile_bytes, out, first,
                                            (int)threadIdx.x, (int)blockDim.x);
                fetch_numbers<tokens>(a, unit, numbers[n % stages], first, valid);
            }
        }
        commit_copies();
    };
    for (int n = 0; n < stages - 1; n++)
        start(n);
    load_projection<T>(a, shared);
    for (int n = 0; n < count; n++) {
        char *stage = ring + n % stages * plan::stage_bytes;
        const int first = from + n * tokens;
        wait_copies<stages - 2>();
        if constexpr (OfQueries)
            finish_queries<T, tokens, Threads>(a, unit, stage, numbers[n % stages], first, valid);
        else
            finish_keys<T, tokens, Threads>(a, unit, stage, numbers[n % stages], first, valid,
                                            values);
        publish_shared();
        __syncthreads();
        if (Kept && !OfQueries && n > 0)
            add_values(parts[(n - 1) % 2], fused_mark<T>(a.key_marks, mark + n - 1).values);
        start(n + stages - 1);
        const uint64_t tile = wgmma_tile(shared_address(stage));
        const query_range<T> range = range_of<T>(u, Kept ? first + 1 : a.kv_len);
#pragma unroll
        for (int part = 0; part < tokens / kPanel; part++)
            add_tokens<T, OfQueries>(high, low, tile + (uint64_t)(part * kTileUnits),
                                     tile + (uint64_t)((tokens / kPanel + part) * kTileUnits),
                                     numbers[n % stages], range, part * kPanel,
                                     to - first - part * kPanel, sums);
        finish_sum(sums.state, sums.e);
        if constexpr (Kept) {
            put_mark<T, OfQueries>(a, mark + n, sums, range);
            clear_sums(sums);
            if constexpr (!OfQueries) {
                put_values(parts[n % 2], values);
#pragma unroll
                for (int k = 0; k < 8; k++)
                    values[k] = 0.0F;
            }
        }
    }
    wait_copies<0>();
    if constexpr (Kept) {
        __syncthreads();
        if (!OfQueries && count > 0)
            add_values(parts[(count - 1) % 2], fused_mark<T>(a.key_marks, mark + count - 1).values);
    } else {
        float *out = a.sums + (unit * gridDim.x + blockIdx.x) * fused_count(a.features);
        const query_range<T> range = range_of<T>(u, a.kv_len);
        put_sums(a, out, sums, OfQueries ? range.back : 1.0F / kPowerFactor<T>);
        if constexpr (!OfQueries) {
            put_values(parts[0], values);
            __syncthreads();
            add_values(parts[0], out + a.features * (kFusedDim + 2));
        }
    }
#endif
}

template <typename T, bool OfQueries, bool Kept>
enum fb_status sum_up(const fused_arguments &a, cudaStream_t stream, struct fb_error *error)
{
    const size_t bytes = shared_bytes<OfQueries, Kept>(a);
    const int threads = a.features / kPanel * kGroupThreads;
    auto kernel = sum_kernel<T, OfQueries, Kept, kThreadsMost>;
    if constexpr (!Kept)
        kernel = threads == kThreadsMost ? kernel : sum_kernel<T, OfQueries, false, 0>;
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, bytes, "Performer's sums", error);
    if (status != FB_OK)
        return status;
    const dim3 grid((unsigned)(OfQueries ? a.query_slices : a.key_slices),
                    (unsigned)(a.batch * (OfQueries ? a.heads : a.kv_heads)));
    kernel<<<grid, (unsigned)threads, bytes, stream>>>(a);
    return fb_cuda_launched("Performer's sums", error);
}

} // namespace

void fused_cut_slices(fused_arguments &a, int tokens)
{
    const auto cut = [&](int64_t heads, int len, int &slices, int &tiles) {
        const int all = (len + tokens - 1) / tokens;
        slices = fused_slices_of(heads, all, kOverheadTiles);
        tiles = (all + slices - 1) / slices;
        tiles = tiles > kSliceTilesMost ? kSliceTilesMost : tiles;
        slices = (all + tiles - 1) / tiles;
    };
    cut((int64_t)a.batch * a.kv_heads, a.kv_len, a.key_slices, a.key_tiles);
    cut((int64_t)a.batch * a.heads, a.q_len, a.query_slices, a.query_tiles);
}

enum fb_status fused_cuda_sums(enum fb_dtype dtype, const fused_arguments &a, bool of_queries,
                               cudaStream_t stream, struct fb_error *error)
{
    enum fb_status status = FB_OK;
    if (dtype == FB_F16)
        status = of_queries ? sum_up<__half, true, false>(a, stream, error)
                            : sum_up<__half, false, false>(a, stream, error);
    else
        status = of_queries ? sum_up<__nv_bfloat16, true, false>(a, stream, error)
                            : sum_up<__nv_bfloat16, false, false>(a, stream, error);
    return status == FB_OK ? fused_cuda_totals(dtype, a, of_queries, stream, error) : status;
}

enum fb_status fused_cuda_sum_chunks(enum fb_dtype dtype, const fused_arguments &a, bool of_queries,
                                     cudaStream_t stream, struct fb_error *error)
{
    if (dtype == FB_F16)
        return of_queries ? sum_up<__half, true, true>(a, stream, error)
                          : sum_up<__half, false, true>(a, stream, error);
    return of_queries ? sum_up<__nv_bfloat16, true, true>(a, stream, error)
                      : sum_up<__nv_bfloat16, false, true>(a, stream, error);
}
