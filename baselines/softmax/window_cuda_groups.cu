/*
 * Softmax over all keys or those up to the sink, bf16 or f16, heads of 64, on Hopper: a block takes
 * its share of a head's queries in rounds of 192, each of three warpgroups 64 of them; a fourth
 * brings tiles of 128 keys and values in, those of the next round while the last is being written.
 * Products are wgmma's, whose weights come from registers, and the groups take turns at issuing
 * them, so that one weighs its scores while others multiply (as in FlashAttention-3, Shah et al.,
 * 2024).
 */
#include "window_cuda_rounds.cuh"

namespace
{

constexpr size_t kBandBytes = (size_t)(64 + 2 * 128) * kRowBytes + 1024;
constexpr size_t kSharedBytes = (size_t)kQueryBytes + (size_t)kTilesBytes + 1024;

#if FB_HAVE_WGMMA

template <typename T>
__device__ void write_block(const window_arguments &a, const query_block &place, char *shared,
                            const float (&out)[8][4], const row_state &rows, int strip, int queries,
                            const lane_places &at)
{
    const int written = min(queries, a.q_len - place.first);
    float *lse = a.lse == nullptr ? nullptr : a.lse + (int64_t)blockIdx.y * a.q_len + place.first;
    write_rows<T>(shared, out, rows, rows_of<T>(a.out, place.head.b, place.head.h, place.first),
                  strip, place.valid, written, at, lse);
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
    weigh_scores<T>(s, factor, rows, a.scale);
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

/* The tile of 64 keys that starts at `at`, and its values: [2][64] rows. */
template <typename T>
__device__ void fetch_band(const window_arguments &a, const query_block &place, uint32_t tile,
                           int at)
{
    const int left = place.range.to - at;
    fetch_rows<T, 64, kGroupThreads>(tile, a.k, place.head.b, place.head.kv_h, at, left,
                                     threadIdx.x);
    fetch_rows<T, 64, kGroupThreads>(tile + 64 * kRowBytes, a.v, place.head.b, place.head.kv_h, at,
                                     left, threadIdx.x);
}

#endif

/* grid (shares of a head, heads) */
template <typename T, bool Far>
__global__ void __launch_bounds__(kThreads, 1)
    groups_kernel(const __grid_constant__ window_arguments a)
{
#if FB_HAVE_WGMMA
    extern __shared__ char dynamic[];
    __shared__ __align__(8) unsigned long long barriers[2 * kStages];
    char *shared = dynamic + (1024 - shared_address(dynamic) % 1024) % 1024;
    const uint32_t tiles = shared_address(shared) + kQueryBytes;
    const uint32_t full = shared_address(barriers), empty = full + 8 * kStages;
    const block_share share = share_of(a);
    if (threadIdx.x < kStages) {
        barrier_init(full + 8 * threadIdx.x, kGroupThreads);
        barrier_init(empty + 8 * threadIdx.x, 4 * kGroups);
    }
    __syncthreads();
    if (threadIdx.x < kGroupThreads) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
        bring<T>(a, share, tiles, full, empty);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
        use<T, Far>(a, share, shared, tiles, full);
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
    const query_block place = query_block_of(a, 64, 64);
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

/* Every key is seen, or those up to the sink. */
bool is_whole(const window_arguments &a)
{
    return a.back >= a.kv_len && (a.ahead == 0 || a.ahead >= a.kv_len);
}

/* Whether rows are of so few tiles that the beginnings and ends of blocks count. */
bool is_short(const window_arguments &a)
{
    return is_whole(a) ? a.kv_len < 1024 : window_cuda_mean_keys(a) <= 1024;
}

/* How long the rounds of `count` units take whose last sees `tiles` tiles, each before it `less`
 * fewer; in tiles of three groups. Two take about three quarters of three's time and one a half,
 * and what a round begins and ends with is as long as half a tile. */
double time_of_rounds(int count, double tiles, double less)
{
    double time = 0.0;
    for (int i = 0; i < count; i += kGroups)
        time += (tiles - i * less) * (count - i > 2 ? 1.0 : count - i > 1 ? 0.75 : 0.5) + 0.5;
    return time;
}

/* How long the longest of the blocks takes if so many share a head; times how often they fill the
 * processors. */
double time_of_shares(const window_arguments &a, unsigned heads, int processors, int shares)
{
    const int units = (a.q_len + kUnit - 1) / kUnit;
    const int64_t blocks = (int64_t)heads * shares, waves = (blocks - 1) / processors + 1;
    const double begin = 1.5, tile = (double)kUnit / kKeys;
    if (a.ahead != 0 || !is_whole(a))
        return (double)waves * (time_of_rounds((units + shares - 1) / shares,
                                               window_cuda_mean_keys(a) / kKeys, 0.0) +
                                begin);
    const int each = (units + 2 * shares - 1) / (2 * shares); /* from either end */
    const int rest = each - (kGroups - each % kGroups) % kGroups;
    return (double)waves * (time_of_rounds(each, units * tile, tile) +
                            time_of_rounds(rest, each * tile, tile) + begin);
}

/* How many blocks share a head, so that the last of them end soonest: one for each round, unless
 * fewer are clearly better. The keys and values of the heads at hand may fill the L2 cache half as
 * much again as it is large, since the blocks of a head ask for them at about the same time; beyond
 * that they would come from memory in every round. */
int shares_of(const window_arguments &a, unsigned heads, int processors, int cache_bytes)
{
    const int units = (a.q_len + kUnit - 1) / kUnit;
    const int rounds = a.ahead == 0 && is_whole(a) ? 2 * kGroups : kGroups;
    const double head_bytes = 2.0 * a.kv_len * kRowBytes;
    int best = (units + rounds - 1) / rounds;
    double least = 0.95 * time_of_shares(a, heads, processors, best);
    for (int shares = 1; shares <= units; shares++) {
        const double at_once = fmin(heads, (double)processors / shares);
        const double time = time_of_shares(a, heads, processors, shares);
        if (time < least && (at_once <= 1.0 || at_once * head_bytes <= 1.5 * cache_bytes)) {
            least = time;
            best = shares;
        }
    }
    return best;
}

template <typename T>
enum fb_status launch(const window_arguments &a, unsigned heads, cudaStream_t stream,
                      struct fb_error *error)
{
    const char *name = "softmax by warpgroups";
    const bool band = is_short(a);
    const bool far = window_cuda_most_keys(a, kGroups * kUnit) > kOneSumKeys<T>;
    const auto kernel = band  ? band_kernel<T>
                        : far ? groups_kernel<T, true>
                              : groups_kernel<T, false>;
    const size_t bytes = band ? kBandBytes : kSharedBytes + (far ? round_far::bytes : 0);
    int processors = 1, cache_bytes = 0;
    enum fb_status status = fb_cuda_status(
        cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0), name, error);
    if (status == FB_OK)
        status = fb_cuda_status(cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize, 0),
                                name, error);
    if (status == FB_OK)
        status = fb_cuda_allow_shared((const void *)kernel, bytes, name, error);
    if (status != FB_OK)
        return status;
    const int blocks =
        band ? (a.q_len + kUnit - 1) / kUnit : shares_of(a, heads, processors, cache_bytes);
    const dim3 grid((unsigned)blocks, heads);
    kernel<<<grid, band ? kGroupThreads : kThreads, bytes, stream>>>(a);
    return fb_cuda_launched(name, error);
}

} // namespace

bool window_cuda_has_groups(const window_arguments &a)
{
    return a.q_len >= kUnit && fb_cuda_is_hopper();
}

enum fb_status window_cuda_groups(enum fb_dtype dtype, const window_arguments &arguments,
                                  unsigned heads, cudaStream_t stream, struct fb_error *error)
{
    return dtype == FB_BF16 ? launch<__nv_bfloat16>(arguments, heads, stream, error)
                            : launch<__half>(arguments, heads, stream, error);
}
