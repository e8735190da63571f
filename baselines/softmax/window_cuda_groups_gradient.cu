/*
 * Gradients of softmax over a band of keys by warpgroups, bf16 or f16, heads of 64, on Hopper: one
 * kernel over the keys of blocks of queries, one over the queries of blocks of keys; what a
 * warpgroup does is in window_cuda_group_gradient.cuh.
 *
 * Long ranges: two warpgroups share the tiles that a third brings in. Windows of a few tiles: a
 * warpgroup is a block and brings its own, so that three blocks on a multiprocessor hide each
 * other's beginnings and ends.
 */
#include "window_cuda_group_gradient.cuh"

namespace
{

constexpr int kGroups = 2;
constexpr int kThreads = (kGroups + 1) * kGroupThreads;
constexpr int kOwn = 64 * kGroups;
constexpr int kStages = 4;
constexpr int kBandStages = 2;

/* own: rows of the block */
constexpr size_t shared_bytes(int own, int stages)
{
    return 2 * (size_t)(own * kRowBytes) + 2 * (size_t)(stages * kTileBytes) + 1024;
}

#if FB_HAVE_WGMMA

constexpr int kAhead = 2; /* tiles on their way when the one before them is waited for */

typedef tile_turn<kStages> turn_place;

template <typename T, bool kKeySide>
__device__ void bring(const window_gradient_view &a, const block_place &x, const shared_place &s)
{
    turn_place turn, ready;
    const int count = x.each * x.heads;
    int head = 0, n = 0;
    for (int i = 0; i < count + kAhead; i++) {
        if (i < count) {
            barrier_wait(s.empty + 8 * turn.stage, turn.parity ^ 1U);
            fetch_tile<T, kKeySide>(a, x, s, head, n, turn.stage, threadIdx.x);
            turn.next();
            n++;
            if (n == x.each) {
                n = 0;
                head++;
            }
        }
        commit_copies();
        if (i >= kAhead) {
            wait_copies<kAhead>();
            publish_shared();
            barrier_arrive(s.full + 8 * ready.stage);
            ready.next();
        }
    }
}

__device__ inline void await_tile(const shared_place &s, const turn_place &turn)
{
    barrier_wait(s.full + 8 * turn.stage, turn.parity);
}

/* One lane for the warp: what the others read has gone into a product since. */
__device__ inline void release_tile(const shared_place &s, int stage)
{
    if (threadIdx.x % 32 == 0)
        barrier_arrive(s.empty + 8 * stage);
}

/* Tiles that the group's rows do not meet. */
__device__ inline void pass_tiles(const shared_place &s, turn_place &turn, int count)
{
    for (; count > 0; count--) {
        await_tile(s, turn);
        release_tile(s, turn.stage);
        turn.next();
    }
}

template <typename T, bool kKeySide>
__device__ void use(const window_gradient_view &a, const block_place &x, const shared_place &shared)
{
    group_gradient<T, kKeySide, true> group(a, x, shared,
                                            64 * ((int)threadIdx.x / kGroupThreads - 1));
    turn_place turn;
    for (int head = 0; head < x.heads; head++) {
        pass_tiles(shared, turn, group.from);
        for (int n = group.from; n < group.to; n++) {
            await_tile(shared, turn);
            group.add_tile(n, turn.stage, [&] {
                if (n > group.from)
                    release_tile(shared, (turn.stage + kStages - 1) % kStages);
            });
            turn.next();
        }
        group.finish();
        if (group.from < group.to)
            release_tile(shared, (turn.stage + kStages - 1) % kStages);
        pass_tiles(shared, turn, x.each - group.to);
    }
    group.store(kOwn);
}

#endif

/* grid (blocks of own rows, heads of queries or of keys) */
template <typename T, bool kKeySide>
__global__ void __launch_bounds__(kThreads, 1)
    groups_gradient_kernel(const __grid_constant__ window_gradient_view a)
{
#if FB_HAVE_WGMMA
    extern __shared__ char dynamic[];
    __shared__ __align__(8) unsigned long long barriers[2 * kStages];
    __shared__ __align__(16) float lse[kStages * kPassing], shares[kStages * kPassing];
    const block_place x = place_of<kKeySide>(a, kOwn);
    shared_place s = shared_of(dynamic, kOwn);
    s.full = shared_address(barriers);
    s.empty = s.full + 8 * kStages;
    s.lse = lse;
    s.shares = shares;
    if (threadIdx.x < kStages) {
        barrier_init(s.full + 8 * threadIdx.x, kGroupThreads);
        barrier_init(s.empty + 8 * threadIdx.x, 4 * kGroups);
    }
    __syncthreads();
    if (threadIdx.x < kGroupThreads) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        bring<T, kKeySide>(a, x, s);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        fetch_own<T, kKeySide>(a, x, s, ((int)threadIdx.x / kGroupThreads - 1) * 64);
        commit_copies();
        wait_copies<0>();
        publish_shared();
        await_group();
        use<T, kKeySide>(a, x, s);
    }
#endif
}

/* likewise, a warpgroup a block */
template <typename T, bool kKeySide>
__global__ void __launch_bounds__(kGroupThreads, 3)
    band_gradient_kernel(const __grid_constant__ window_gradient_view a)
{
#if FB_HAVE_WGMMA
    extern __shared__ char dynamic[];
    __shared__ __align__(16) float lse[kBandStages * kPassing], shares[kBandStages * kPassing];
    const block_place x = place_of<kKeySide>(a, 64);
    shared_place s = shared_of(dynamic, 64);
    s.lse = lse;
    s.shares = shares;
    fetch_own<T, kKeySide>(a, x, s, 0);
    commit_copies();
    const int count = x.each * x.heads;
    if (count > 0)
        fetch_tile<T, kKeySide>(a, x, s, 0, 0, 0, threadIdx.x);
    commit_copies();
    wait_copies<1>();
    publish_shared();
    __syncthreads();
    group_gradient<T, kKeySide, false> group(a, x, s, 0);
    int turn = 0;
    for (int head = 0; head < x.heads; head++)
        for (int n = 0; n < x.each; n++) {
            const int stage = turn % kBandStages;
            const bool last = n + 1 == x.each;
            turn++;
            if (turn < count)
                fetch_tile<T, kKeySide>(a, x, s, last ? head + 1 : head, last ? 0 : n + 1,
                                        turn % kBandStages, threadIdx.x);
            commit_copies();
            wait_copies<1>();
            publish_shared();
            __syncthreads();
            group.add_tile(n, stage, [] {});
            group.finish();
            __syncthreads(); /* the tile is free */
        }
    wait_copies<0>();
    __syncthreads();
    group.store(64);
#endif
}

template <typename T, bool kKeySide>
enum fb_status launch(const window_gradient_view &a, bool band, unsigned heads, int tokens,
                      cudaStream_t stream, struct fb_error *error)
{
    const auto kernel =
        band ? band_gradient_kernel<T, kKeySide> : groups_gradient_kernel<T, kKeySide>;
    const int own = band ? 64 : kOwn;
    const size_t bytes = shared_bytes(own, band ? kBandStages : kStages);
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, bytes, "softmax gradients by warpgroups", error);
    if (status != FB_OK)
        return status;
    const dim3 grid((unsigned)((tokens + own - 1) / own), heads);
    kernel<<<grid, band ? kGroupThreads : kThreads, bytes, stream>>>(a);
    return fb_cuda_launched("softmax gradients by warpgroups", error);
}

template <typename T>
enum fb_status run(const window_gradient_view &a, cudaStream_t stream, struct fb_error *error)
{
    const unsigned heads = (unsigned)(a.w.batch * a.w.heads);
    const bool band = window_cuda_is_band(a.w);
    const enum fb_status status = launch<T, false>(a, band, heads, a.w.q_len, stream, error);
    if (status != FB_OK)
        return status;
    window_gradient_view keys = a;
    if (gradient_powers<T>::weight != 0.0F)
        keys.lse = a.lowered;
    return launch<T, true>(keys, band, heads / (unsigned)a.w.group, a.w.kv_len, stream, error);
}

} // namespace

enum fb_status window_cuda_groups_gradient(enum fb_dtype dtype, const window_gradient_view &a,
                                           cudaStream_t stream, struct fb_error *error)
{
    return dtype == FB_BF16 ? run<__nv_bfloat16>(a, stream, error) : run<__half>(a, stream, error);
}
