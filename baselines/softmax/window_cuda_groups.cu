/*
 * Softmax over all keys or those up to the sink, bf16 or f16, heads of 64, on Hopper: a block takes
 * 192 queries, each of three warpgroups 64 of them; a fourth brings tiles of 128 keys and values
 * in. Products are wgmma's, whose weights come from registers, and the groups take turns at issuing
 * them, so that one weighs its scores while others multiply (as in FlashAttention-3, Shah et al.,
 * 2024).
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

/* A warpgroup's 64 queries, and what it has of their output. */
template <typename T> struct group_rows {
    const window_arguments &a;
    const block_place &place;
    uint32_t tiles, full, empty;
    int group, strip, count; /* strip: the warp's 16 rows; count: tiles of keys that any row sees */
    uint64_t q;
    float out[8][4], s[16][4];
    uint32_t p[8][4]; /* weights as left operands */
    row_state rows;
    int stage;
    uint32_t parity;

    __device__ group_rows(const window_arguments &arguments, const block_place &block,
                          uint32_t queries, uint32_t first_tile, uint32_t barriers, int number)
        : a(arguments), place(block), tiles(first_tile), full(barriers),
          empty(barriers + 8 * kStages), group(number), rows{{-INFINITY, -INFINITY}, {0.0F, 0.0F}},
          stage(0), parity(0)
    {
        strip = (int)threadIdx.x / 32 * 16 - 64;
        q = wgmma_tile(queries + (uint32_t)(64 * group * kRowBytes));
        const int64_t last = place.first + 64 * group + 63 + a.ahead - place.range.from;
        count = last < 0 ? 0 : (int)min((int64_t)place.count, last / kKeys + 1);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                out[n][i] = 0.0F;
        wgmma_hold(out);
    }

    __device__ void await_tile() const
    {
        barrier_wait(full + 8 * stage, parity);
    }

    __device__ void release_tile(int which) const
    {
        if (threadIdx.x % 32 == 0)
            barrier_arrive(empty + 8 * which);
    }

    __device__ int stage_before() const
    {
        return (stage + kStages - 1) % kStages;
    }

    __device__ void next_tile()
    {
        stage = (stage + 1) % kStages;
        parity ^= stage == 0 ? 1U : 0U;
    }

    /* Turns at the tensor cores: a barrier for each group, which it and the one before it meet at.
     */
    __device__ void take_turn() const
    {
        asm volatile("bar.sync %0, 256;" ::"r"(5 + group) : "memory");
    }

    __device__ void give_turn() const
    {
        asm volatile("bar.arrive %0, 256;" ::"r"(5 + (group + 1) % kGroups) : "memory");
    }

    /* Scores of the stage's keys, on their way. */
    __device__ void multiply()
    {
        const uint64_t k = wgmma_tile(tiles + (uint32_t)(stage * 2 * kTileBytes));
        wgmma_begin();
        wgmma_turned_first<T>(s, q, k);
#pragma unroll
        for (int step = 1; step < 4; step++)
            wgmma_turned<T>(s, q + 2 * step, k + 2 * step, false);
        wgmma_commit();
    }

    /* What the weights make of the values of the stage before, on its way. */
    __device__ void add_values()
    {
        const uint64_t v = wgmma_tile(tiles + (uint32_t)((stage_before() * 2 + 1) * kTileBytes));
        wgmma_hold(out);
        wgmma_begin();
#pragma unroll
        for (int step = 0; step < 8; step++)
            wgmma_add<T>(out, p[step], v + 128 * step);
        wgmma_commit();
    }

    /* Scores of tile n become weights, and the output so far what the new maximum makes of it. */
    __device__ void weigh_tile(int n)
    {
        const int here = place.range.from + n * kKeys, to = place.range.to;
        const int row = place.first + strip;
        if (here + kKeys > to || here + kKeys - 1 > row + a.ahead || here < row + 15 - a.back)
            mask_scores(s, a, row, here, to);
        float factor[2];
        weigh_scores(s, factor, rows, a.scale);
        scale_rows(out, factor);
#pragma unroll
        for (int step = 0; step < 8; step++) {
            weights_operand<T>(p[step], s, step);
#pragma unroll
            for (int i = 0; i < 4; i++)
                asm volatile("" : "+r"(p[step][i])::"memory");
        }
    }

    /* The turn's products are the values of tile n - 1, unless n is the first, and scores of tile
     * n.
     */
    template <bool kFirst> __device__ void add_turn(int n)
    {
        await_tile();
        take_turn();
        if (!kFirst)
            add_values();
        multiply();
        wgmma_wait<1>();
        give_turn();
        if (!kFirst) {
            wgmma_hold(out);
            release_tile(stage_before());
        }
        wgmma_wait<0>();
        wgmma_hold(s);
        next_tile();
        weigh_tile(n);
    }

    __device__ void add_tiles()
    {
        if (group == kGroups - 1)
            give_turn();
        if (count > 0)
            add_turn<true>(0);
        for (int n = 1; n < count; n++)
            add_turn<false>(n);
        take_turn();
        if (count > 0)
            add_values();
        wgmma_wait<0>();
        wgmma_hold(out);
        give_turn();
        if (count > 0)
            release_tile(stage_before());
        for (int n = count; n < place.count; n++) { /* what no row of the group sees */
            await_tile();
            release_tile(stage);
            next_tile();
            take_turn();
            give_turn();
        }
        if (group == 0)
            take_turn(); /* what the last gave last */
    }
};

/* The 64 queries of a warpgroup, which then are there. */
template <typename T>
__device__ void fetch_own(const window_arguments &a, const block_place &place, uint32_t queries,
                          int group)
{
    fetch_rows<T, 64, kGroupThreads>(queries + (uint32_t)(64 * group * kRowBytes), a.q,
                                     place.head.b, place.head.h, place.first + 64 * group,
                                     place.valid - 64 * group, threadIdx.x % kGroupThreads);
    commit_copies();
    wait_copies<0>();
    publish_shared();
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
}

template <typename T>
__device__ void use(const window_arguments &a, const block_place &place, char *shared,
                    uint32_t queries, uint32_t tiles, uint32_t barriers)
{
    /* from lane 0, so that the compiler knows that warps stay together */
    const int group = __shfl_sync(0xffffffffU, (int)threadIdx.x / kGroupThreads, 0) - 1;
    fetch_own<T>(a, place, queries, group);
    group_rows<T> rows(a, place, queries, tiles, barriers, group);
    rows.add_tiles();
    write_block<T>(a, place, shared, rows.out, rows.rows, rows.strip, kQueries, lane_places());
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
    __syncthreads();
    if (threadIdx.x < kGroupThreads) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
        bring<T>(a, place, tiles, full, empty);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
        use<T>(a, place, shared, queries, tiles, full);
    }
#endif
}

/* Rows of few tiles: a warpgroup is a block of 64 queries and brings tiles of 64 keys itself,
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

/* Whether rows are of so few tiles that the beginnings and ends of blocks count. */
bool is_short(const window_arguments &a)
{
    return window_cuda_mean_keys(a) <= 1024;
}

template <typename T>
enum fb_status launch(const window_arguments &a, unsigned heads, cudaStream_t stream,
                      struct fb_error *error)
{
    const bool band = is_short(a);
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
    const int queries = is_short(a) ? 64 : kQueries;
    return a.q_len >= queries && fb_cuda_is_hopper();
}

enum fb_status window_cuda_groups(enum fb_dtype dtype, const window_arguments &arguments,
                                  unsigned heads, cudaStream_t stream, struct fb_error *error)
{
    return dtype == FB_BF16 ? launch<__nv_bfloat16>(arguments, heads, stream, error)
                            : launch<__half>(arguments, heads, stream, error);
}
