/*
 * Softmax over all keys or those up to the sink, bf16 or f16, heads of 64, on Hopper: a block takes
 * 192 queries, each of three warpgroups 64 of them; a fourth brings tiles of 128 keys and values
 * in. Products are wgmma's, whose weights come from registers (as in FlashAttention-3, Shah et al.,
 * 2024, but the groups are left to drift apart instead of taking turns: one weighs its scores while
 * another multiplies).
 */
#include "cuda_wgmma.cuh"
#include "window_cuda_rows.cuh"

namespace
{

constexpr int kGroupThreads = 128;
constexpr int kGroups = 3;
constexpr int kThreads = (kGroups + 1) * kGroupThreads;
constexpr int kQueries = 64 * kGroups;
constexpr int kKeys = 128;
constexpr int kStages = 4;
constexpr int kTileBytes = kKeys * kRowBytes;
constexpr int kQueryBytes = kQueries * kRowBytes;
constexpr size_t kBandBytes = (size_t)(64 + 2 * 128) * kRowBytes + 1024;
constexpr size_t kSharedBytes = (size_t)kQueryBytes + 2 * kStages * (size_t)kTileBytes + 1024;

#if FB_HAVE_WGMMA

constexpr int kAhead = 2; /* tiles that are on their way when the one before them is waited for */

struct block_place {
    window_head head;
    window_range range;
    int first, valid, count;
};

__device__ inline block_place place_of(const window_arguments &a, int queries, int keys)
{
    block_place place;
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

template <typename T>
__device__ void write_block(const window_arguments &a, const block_place &place, char *shared,
                            const float (&out)[8][4], const row_state &rows, int strip, int queries,
                            const lane_places &at)
{
    const int written = min(queries, a.q_len - place.first);
    float *lse = a.lse == nullptr ? nullptr : a.lse + (int64_t)blockIdx.y * a.q_len + place.first;
    write_rows<T>(shared, out, rows, rows_of<T>(a.out, place.head.b, place.head.h, place.first),
                  strip, place.valid, written, at, a.scale, lse);
}

/* Tile i has its keys, then its values, in place i % kStages. */
template <typename T>
__device__ void bring(const window_arguments &a, const block_place &place, uint32_t tiles,
                      uint32_t full, uint32_t empty)
{
    const int thread = threadIdx.x;
    for (int i = 0; i < place.count + kAhead; i++) {
        if (i < place.count) {
            const int stage = i % kStages, at = place.range.from + i * kKeys;
            const uint32_t tile = tiles + (uint32_t)(stage * 2 * kTileBytes);
            const int left = place.range.to - at;
            barrier_wait(empty + 8 * stage, (uint32_t)(i / kStages + 1) & 1U);
            fetch_rows<T, kKeys, kGroupThreads>(tile, a.k, place.head.b, place.head.kv_h, at, left,
                                                thread);
            fetch_rows<T, kKeys, kGroupThreads>(tile + kTileBytes, a.v, place.head.b,
                                                place.head.kv_h, at, left, thread);
        }
        commit_copies();
        if (i >= kAhead) {
            wait_copies<kAhead>();
            publish_shared();
            barrier_arrive(full + 8 * ((i - kAhead) % kStages));
        }
    }
}

/* A tile of 8 N keys: scores, weights, what they make of the values. The rows start at `row`, the
 * keys at `at`; beyond `to` there are none. */
template <typename T, int N>
__device__ void add_tile(const window_arguments &a, uint64_t q, uint32_t keys, uint32_t values,
                         int row, int at, int to, float (&out)[8][4], row_state &rows)
{
    const uint64_t k = wgmma_tile(keys), v = wgmma_tile(values);
    float s[N][4], factor[2];
    wgmma_hold(s);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < 4; step++)
        wgmma_turned<T>(s, q + 2 * step, k + 2 * step, step == 0);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(s);
    if (at + 8 * N > to || at + 8 * N - 1 > row + a.ahead || at < row + 15 - a.back)
        mask_scores(s, a, row, at, to);
    weigh_scores(s, factor, rows, a.scale);
    scale_rows(out, factor);
    uint32_t p[N / 2][4];
#pragma unroll
    for (int step = 0; step < N / 2; step++)
        weights_operand<T>(p[step], s, step);
    wgmma_hold(out);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < N / 2; step++)
        wgmma_add<T>(out, p[step], v + 128 * step);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(out);
}

template <typename T>
__device__ void use(const window_arguments &a, const block_place &place, char *shared,
                    uint32_t queries, uint32_t tiles, uint32_t full, uint32_t empty)
{
    const int group = (int)threadIdx.x / kGroupThreads - 1;
    const int strip = (int)threadIdx.x / 32 * 16 - 64, row = place.first + strip;
    const int last = place.first + 64 * group + 63;
    const uint64_t q = wgmma_tile(queries + (uint32_t)(64 * group * kRowBytes));
    float out[8][4] = {};
    row_state rows = {{-INFINITY, -INFINITY}, {0.0F, 0.0F}};
    for (int i = 0; i < place.count; i++) {
        const int stage = i % kStages, here = place.range.from + i * kKeys;
        const uint32_t keys = tiles + (uint32_t)(stage * 2 * kTileBytes);
        barrier_wait(full + 8 * stage, (uint32_t)(i / kStages) & 1U);
        if (here <= last + a.ahead)
            add_tile<T, 16>(a, q, keys, keys + kTileBytes, row, here, place.range.to, out, rows);
        if (threadIdx.x % 32 == 0)
            barrier_arrive(empty + 8 * stage);
    }
    write_block<T>(a, place, shared, out, rows, strip, kQueries, lane_places());
}

/* The tile of 64 keys that starts at `at`, and its values: [2][64] rows. */
template <typename T>
__device__ void fetch_band(const window_arguments &a, const block_place &place, uint32_t tile,
                           int at)
{
    const int left = place.range.to - at;
    fetch_rows<T, 64, kGroupThreads>(tile, a.k, place.head.b, place.head.kv_h, at, left,
                                     threadIdx.x);
    fetch_rows<T, 64, kGroupThreads>(tile + 64 * kRowBytes, a.v, place.head.b, place.head.kv_h, at,
                                     left, threadIdx.x);
}

#endif

/* grid (blocks of queries, heads) */
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    groups_kernel(const __grid_constant__ window_arguments a)
{
#if FB_HAVE_WGMMA
    extern __shared__ char dynamic[];
    __shared__ __align__(8) unsigned long long barriers[2 * kStages];
    char *shared = dynamic + (1024 - shared_address(dynamic) % 1024) % 1024;
    const uint32_t queries = shared_address(shared), tiles = queries + kQueryBytes;
    const uint32_t full = shared_address(barriers), empty = full + 8 * kStages;
    const block_place place = place_of(a, kQueries, kKeys);
    if (threadIdx.x < kStages) {
        barrier_init(full + 8 * threadIdx.x, kGroupThreads);
        barrier_init(empty + 8 * threadIdx.x, 4 * kGroups);
    }
    fetch_rows<T, kQueries, kThreads>(queries, a.q, place.head.b, place.head.h, place.first,
                                      place.valid, threadIdx.x);
    commit_copies();
    wait_copies<0>();
    publish_shared();
    __syncthreads();
    if (threadIdx.x < kGroupThreads) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
        bring<T>(a, place, tiles, full, empty);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
        use<T>(a, place, shared, queries, tiles, full, empty);
    }
#endif
}

/* Windows of a few tiles: a warpgroup is a block of 64 queries and brings tiles of 64 keys itself,
 * so that four blocks on a multiprocessor hide each other's beginnings and ends. */
template <typename T>
__global__ void __launch_bounds__(kGroupThreads, 4)
    band_kernel(const __grid_constant__ window_arguments a)
{
#if FB_HAVE_WGMMA
    extern __shared__ char dynamic[];
    char *shared = dynamic + (1024 - shared_address(dynamic) % 1024) % 1024;
    const uint32_t queries = shared_address(shared), tiles = queries + 64 * kRowBytes;
    const block_place place = place_of(a, 64, 64);
    const int strip = (int)threadIdx.x / 32 * 16;
    fetch_rows<T, 64, kGroupThreads>(queries, a.q, place.head.b, place.head.h, place.first,
                                     place.valid, threadIdx.x);
    if (place.count > 0)
        fetch_band<T>(a, place, tiles, place.range.from);
    commit_copies();
    float out[8][4] = {};
    row_state rows = {{-INFINITY, -INFINITY}, {0.0F, 0.0F}};
    for (int n = 0; n < place.count; n++) {
        const int here = place.range.from + 64 * n;
        if (n + 1 < place.count)
            fetch_band<T>(a, place, tiles + (uint32_t)((n + 1) % 2 * 128 * kRowBytes), here + 64);
        commit_copies();
        wait_copies<1>();
        publish_shared();
        __syncthreads();
        const uint32_t tile = tiles + (uint32_t)(n % 2 * 128 * kRowBytes);
        add_tile<T, 8>(a, wgmma_tile(queries), tile, tile + 64 * kRowBytes, place.first + strip,
                       here, place.range.to, out, rows);
        __syncthreads(); /* the tile is free */
    }
    wait_copies<0>();
    __syncthreads();
    write_block<T>(a, place, shared, out, rows, strip, 64, lane_places());
#endif
}

template <typename T>
enum fb_status launch(const window_arguments &a, unsigned heads, cudaStream_t stream,
                      struct fb_error *error)
{
    const bool band = window_cuda_is_band(a);
    const auto kernel = band ? band_kernel<T> : groups_kernel<T>;
    const size_t bytes = band ? kBandBytes : kSharedBytes;
    const int queries = band ? 64 : kQueries;
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, bytes, "softmax by warpgroups", error);
    if (status != FB_OK)
        return status;
    const dim3 grid((unsigned)((a.q_len + queries - 1) / queries), heads);
    kernel<<<grid, band ? kGroupThreads : kThreads, bytes, stream>>>(a);
    return fb_cuda_launched("softmax by warpgroups", error);
}

} // namespace

bool window_cuda_has_groups(const window_arguments &a)
{
    const int queries = window_cuda_is_band(a) ? 64 : kQueries;
    return a.q_len >= queries && fb_cuda_is_hopper();
}

enum fb_status window_cuda_groups(enum fb_dtype dtype, const window_arguments &arguments,
                                  unsigned heads, cudaStream_t stream, struct fb_error *error)
{
    return dtype == FB_BF16 ? launch<__nv_bfloat16>(arguments, heads, stream, error)
                            : launch<__half>(arguments, heads, stream, error);
}
