/*
 * Gradients of softmax over a band of keys by warpgroups, bf16 or f16, heads of 64, on Hopper. A
 * warpgroup owns 64 queries (dq) or 64 keys (dk and dv); tiles of 64 of the other side pass. Scores
 * and their gradients stay in registers, turned for the keys' side, so that they are left operands
 * as they are; nothing is added from two sides.
 *
 *   p = exp(s - lse), dv = p^T dout, dp = dout v^T, ds = p (dp - dout out), dq = ds k, dk = ds^T q
 *
 * Long ranges: three warpgroups share the tiles that a fourth brings in. Windows of a few tiles: a
 * warpgroup is a block and brings its own, so that three blocks on a multiprocessor hide each
 * other's beginnings and ends.
 */
#include "cuda_wgmma.cuh"
#include "window_cuda_groups.cuh"
#include "window_cuda_rows.cuh"

namespace
{

constexpr int kGroupThreads = 128;
constexpr int kGroups = 3;
constexpr int kThreads = (kGroups + 1) * kGroupThreads;
constexpr int kPassing = 64;
constexpr int kStages = 4;
constexpr int kTileBytes = kPassing * kRowBytes;
constexpr int kBandStages = 2;

/* own: rows of the block */
constexpr size_t shared_bytes(int own, int stages)
{
    return 2 * (size_t)(own * kRowBytes) + 2 * (size_t)(stages * kTileBytes) + 1024;
}

#if FB_HAVE_WGMMA

constexpr int kAhead = 2; /* tiles on their way when the one before them is waited for */

/* A block's work: its own rows, and the turns over tiles of the other side; on the keys' side the
 * tiles of one head of queries, then of the next. */
struct block_place {
    int64_t b, kv_h, h;
    int first, rows; /* own: the first, how many are no padding */
    window_range range;
    int each, count; /* tiles of a head, of all */
};

struct shared_place {
    char *own;                                        /* q and dout, or k and v */
    uint32_t own_address, second, tiles, full, empty; /* second: of own */
    float *lse, *shares; /* of the passing queries: [stages][kPassing] */
};

template <bool kKeySide> __device__ block_place place_of(const window_gradient_view &a, int own)
{
    block_place x;
    x.first = (int)(kKeySide ? blockIdx.x : gridDim.x - 1 - blockIdx.x) * own;
    const int64_t heads = kKeySide ? a.w.heads / a.w.group : a.w.heads;
    x.b = blockIdx.y / heads;
    x.h = blockIdx.y % heads * (kKeySide ? a.w.group : 1);
    const window_head head = window_head_of(a.w, x.b * a.w.heads + x.h);
    x.kv_h = head.kv_h;
    x.rows = max(0, min(own, (kKeySide ? head.kv_len : head.q_len) - x.first));
    x.range = kKeySide ? queries_of(a.w, head.q_len, x.first, x.rows)
                       : window_range_of(a.w, head.kv_len, x.first, x.rows);
    x.each = x.rows > 0 && x.range.to > x.range.from
                 ? (x.range.to - x.range.from + kPassing - 1) / kPassing
                 : 0;
    x.count = x.each * (kKeySide ? a.w.group : 1);
    return x;
}

__device__ inline void copy_word_async(uint32_t to, const float *from, bool valid)
{
    const int bytes = valid ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

/* The turn's tiles into their place, by `threads` threads; not waited for. */
template <typename T, bool kKeySide>
__device__ void fetch_turn(const window_gradient_view &a, const block_place &x,
                           const shared_place &s, int turn, int stage, int thread)
{
    const int at = x.range.from + turn % x.each * kPassing;
    const int64_t h = kKeySide ? x.h + turn / x.each : x.kv_h;
    const uint32_t tile = s.tiles + (uint32_t)(stage * 2 * kTileBytes);
    const int left = x.range.to - at;
    fetch_rows<T, kPassing, kGroupThreads>(tile, kKeySide ? a.w.q : a.w.k, x.b, h, at, left,
                                           thread);
    fetch_rows<T, kPassing, kGroupThreads>(tile + kTileBytes, kKeySide ? a.dout : a.w.v, x.b, h, at,
                                           left, thread);
    if (kKeySide) {
        const int row = thread % kPassing;
        const float *from = thread < kPassing ? a.lse : (const float *)a.shares;
        const int64_t place = (x.b * a.w.heads + h) * a.w.q_len + at + row;
        copy_word_async(shared_address(thread < kPassing ? s.lse : s.shares) +
                            (uint32_t)(4 * (stage * kPassing + row)),
                        row < left ? from + place : from, row < left);
    }
}

template <typename T, bool kKeySide>
__device__ void bring(const window_gradient_view &a, const block_place &x, const shared_place &s)
{
    for (int n = 0; n < x.count + kAhead; n++) {
        if (n < x.count) {
            barrier_wait(s.empty + 8 * (n % kStages), (uint32_t)(n / kStages + 1) & 1U);
            fetch_turn<T, kKeySide>(a, x, s, n, n % kStages, threadIdx.x);
        }
        commit_copies();
        if (n >= kAhead) {
            wait_copies<kAhead>();
            publish_shared();
            barrier_arrive(s.full + 8 * ((n - kAhead) % kStages));
        }
    }
}

/* Whether any of the own rows from `row` on, so many, and of the passing ones from `at` on see each
 * other, and whether all of them do. */
struct sight {
    bool any, all;
};

template <bool kKeySide>
__device__ sight sight_of(const window_arguments &w, int row, int rows, int at)
{
    const int64_t back = kKeySide ? w.ahead : w.back, ahead = kKeySide ? w.back : w.ahead;
    return {at <= row + rows - 1 + ahead && at + kPassing - 1 >= row - back,
            at + kPassing - 1 <= row + ahead && at >= row + rows - 1 - back};
}

/* Scores to weights and their gradients to the scores' gradients, in place. rows: logarithms and
 * shares of the two own rows (queries' side). */
template <bool kKeySide>
__device__ void differentiate(float (&s)[8][4], float (&dp)[8][4], const window_arguments &w,
                              const float (&lse)[2], const float (&share)[2], const float *lses,
                              const float *shares, bool masked, int row, int at, int to)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < 8; m++) {
        float2 lse_of = {}, share_of = {};
        if (kKeySide) {
            lse_of = *reinterpret_cast<const float2 *>(lses + 8 * m + 2 * t);
            share_of = *reinterpret_cast<const float2 *>(shares + 8 * m + 2 * t);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float log_sum = kKeySide ? (i % 2 == 0 ? lse_of.x : lse_of.y) : lse[i / 2];
            const float part = kKeySide ? (i % 2 == 0 ? share_of.x : share_of.y) : share[i / 2];
            float p = window_power(fmaf(s[m][i], w.scale, -log_sum));
            if (masked) {
                const int own = row + g + i / 2 * 8, passing = at + 8 * m + 2 * t + i % 2;
                const bool seen =
                    kKeySide ? window_sees(w, passing, own) : window_sees(w, own, passing);
                p = seen && passing < to ? p : 0.0F;
            }
            s[m][i] = p;
            dp[m][i] = p * (dp[m][i] - part);
        }
    }
}

/* c += x y, x in registers, y a tile's rows along the depth */
template <typename T> __device__ void add_tile(float (&c)[8][4], const float (&x)[8][4], uint64_t y)
{
    uint32_t p[4][4];
#pragma unroll
    for (int step = 0; step < 4; step++)
        weights_operand<T>(p[step], x, step);
    wgmma_hold(c);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < 4; step++)
        wgmma_add<T>(c, p[step], y + 128 * step);
    wgmma_commit();
}

/* A strip of results times a factor; rows that are padding become zero. */
template <typename T>
__device__ void write_strip(char *tile, const float (&c)[8][4], const head_rows<T> &to, int strip,
                            int valid, int written, float factor, const lane_places &at)
{
    const int lane = threadIdx.x % 32, row = strip + lane / 4;
    const float factors[2] = {row < valid ? factor : 0.0F, row + 8 < valid ? factor : 0.0F};
    store_strip<T>(tile, c, factors, to, strip, written, at);
}

/* dout out of a row of queries, by four lanes; 0 for padding. */
template <typename T>
__device__ float share_of(const window_gradient_view &a, const block_place &x, int row)
{
    float sum = 0.0F;
    if (row < x.rows) {
        const int64_t token = x.first + row;
        const T *dout = rows_of<T>(a.dout, x.b, x.h, token).data + 16 * (threadIdx.x % 4);
        const T *out = rows_of<T>(a.w.out, x.b, x.h, token).data + 16 * (threadIdx.x % 4);
#pragma unroll
        for (int part = 0; part < 2; part++) {
            float y[8], z[8];
            row_chunk<T>::load(dout + 8 * part, y);
            row_chunk<T>::load(out + 8 * part, z);
#pragma unroll
            for (int i = 0; i < 8; i++)
                sum = fmaf(y[i], z[i], sum);
        }
    }
    sum += __shfl_xor_sync(0xffffffffU, sum, 1);
    return sum + __shfl_xor_sync(0xffffffffU, sum, 2);
}

/* A warpgroup's rows: 64 from `group_first` of the block's. */
template <typename T, bool kKeySide> struct group_gradient {
    const window_gradient_view &a;
    const block_place &x;
    const shared_place &shared;
    int group_first, strip; /* the warp's 16 rows */
    uint64_t own_1, own_2;
    float lse[2], share[2];
    float sum_1[8][4], sum_2[8][4]; /* dq; or dk and dv */

    __device__ group_gradient(const window_gradient_view &view, const block_place &place,
                              const shared_place &memory, int first)
        : a(view), x(place), shared(memory), group_first(first)
    {
        strip = first + (int)threadIdx.x % kGroupThreads / 32 * 16;
        own_1 = wgmma_tile(shared.own_address + (uint32_t)(first * kRowBytes));
        own_2 = wgmma_tile(shared.second + (uint32_t)(first * kRowBytes));
        for (int half = 0; half < 2 && !kKeySide; half++) {
            const int row = strip + (int)threadIdx.x % 32 / 4 + 8 * half;
            const int64_t at = (int64_t)blockIdx.y * a.w.q_len + x.first + row;
            lse[half] = row < x.rows ? a.lse[at] : INFINITY;
            share[half] = share_of<T>(a, x, row);
            if (threadIdx.x % 4 == 0 && x.first + row < a.w.q_len)
                a.shares[at] = share[half]; /* for the keys' side */
        }
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum_1[n][i] = sum_2[n][i] = 0.0F;
    }

    __device__ void add_turn(int turn, int stage)
    {
        const int here = x.range.from + turn % x.each * kPassing;
        const uint32_t tile = shared.tiles + (uint32_t)(stage * 2 * kTileBytes);
        if (!sight_of<kKeySide>(a.w, x.first + group_first, 64, here).any)
            return;
        const uint64_t tile_1 = wgmma_tile(tile), tile_2 = wgmma_tile(tile + kTileBytes);
        float s[8][4], dp[8][4];
        wgmma_hold(s);
        wgmma_hold(dp);
        wgmma_begin();
#pragma unroll
        for (int step = 0; step < 4; step++)
            wgmma_turned<T>(s, own_1 + 2 * step, tile_1 + 2 * step, step == 0);
#pragma unroll
        for (int step = 0; step < 4; step++)
            wgmma_turned<T>(dp, own_2 + 2 * step, tile_2 + 2 * step, step == 0);
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_hold(s);
        wgmma_hold(dp);
        const bool masked =
            here + kPassing > x.range.to || !sight_of<kKeySide>(a.w, x.first + strip, 16, here).all;
        differentiate<kKeySide>(s, dp, a.w, lse, share, shared.lse + stage * kPassing,
                                shared.shares + stage * kPassing, masked, x.first + strip, here,
                                x.range.to);
        if (kKeySide)
            add_tile<T>(sum_2, s, tile_2);
        add_tile<T>(sum_1, dp, tile_1);
        wgmma_wait<0>();
        wgmma_hold(sum_1);
        if (kKeySide)
            wgmma_hold(sum_2);
    }

    /* Through the group's own rows, which nobody else reads. */
    __device__ void store(int own)
    {
        const lane_places at;
        const int written = min(own, (kKeySide ? a.w.kv_len : a.w.q_len) - x.first);
        const tensor_view &to = kKeySide ? a.dk : a.dq;
        write_strip<T>(shared.own, sum_1, rows_of<T>(to, x.b, kKeySide ? x.kv_h : x.h, x.first),
                       strip, x.rows, written, a.slope, at);
        if (kKeySide)
            write_strip<T>(shared.own + own * kRowBytes, sum_2,
                           rows_of<T>(a.dv, x.b, x.kv_h, x.first), strip, x.rows, written, 1.0F,
                           at);
    }
};

template <typename T, bool kKeySide>
__device__ void use(const window_gradient_view &a, const block_place &x, const shared_place &shared,
                    int own)
{
    group_gradient<T, kKeySide> group(a, x, shared, ((int)threadIdx.x / kGroupThreads - 1) * 64);
    for (int n = 0; n < x.count; n++) {
        const int stage = n % kStages;
        barrier_wait(shared.full + 8 * stage, (uint32_t)(n / kStages) & 1U);
        group.add_turn(n, stage);
        if (threadIdx.x % 32 == 0)
            barrier_arrive(shared.empty + 8 * stage);
    }
    group.store(own);
}

/* The block's own rows, and where what passes goes. */
template <typename T, bool kKeySide, int Own, int Threads>
__device__ shared_place start_block(const window_gradient_view &a, const block_place &x,
                                    char *dynamic)
{
    shared_place s = {};
    s.own = dynamic + (1024 - shared_address(dynamic) % 1024) % 1024;
    s.own_address = shared_address(s.own);
    s.second = s.own_address + (uint32_t)(Own * kRowBytes);
    s.tiles = s.second + (uint32_t)(Own * kRowBytes);
    const int64_t h = kKeySide ? x.kv_h : x.h;
    fetch_rows<T, Own, Threads>(s.own_address, kKeySide ? a.w.k : a.w.q, x.b, h, x.first, x.rows,
                                threadIdx.x);
    fetch_rows<T, Own, Threads>(s.second, kKeySide ? a.w.v : a.dout, x.b, h, x.first, x.rows,
                                threadIdx.x);
    return s;
}

#endif

/* grid (blocks of own rows, heads of queries or of keys) */
template <typename T, bool kKeySide>
__global__ void __launch_bounds__(kThreads, 1)
    groups_gradient_kernel(const __grid_constant__ window_gradient_view a)
{
#if FB_HAVE_WGMMA
    constexpr int own = 64 * kGroups;
    extern __shared__ char dynamic[];
    __shared__ __align__(8) unsigned long long barriers[2 * kStages];
    __shared__ __align__(16) float lse[kStages * kPassing], shares[kStages * kPassing];
    const block_place x = place_of<kKeySide>(a, own);
    shared_place s = start_block<T, kKeySide, own, kThreads>(a, x, dynamic);
    s.full = shared_address(barriers);
    s.empty = s.full + 8 * kStages;
    s.lse = lse;
    s.shares = shares;
    if (threadIdx.x < kStages) {
        barrier_init(s.full + 8 * threadIdx.x, kGroupThreads);
        barrier_init(s.empty + 8 * threadIdx.x, 4 * kGroups);
    }
    commit_copies();
    wait_copies<0>();
    publish_shared();
    __syncthreads();
    if (threadIdx.x < kGroupThreads) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
        bring<T, kKeySide>(a, x, s);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
        use<T, kKeySide>(a, x, s, own);
    }
#endif
}

/* likewise, a warpgroup a block */
template <typename T, bool kKeySide>
__global__ void __launch_bounds__(kGroupThreads, 3)
    band_gradient_kernel(const __grid_constant__ window_gradient_view a)
{
#if FB_HAVE_WGMMA
    constexpr int own = 64;
    extern __shared__ char dynamic[];
    __shared__ __align__(16) float lse[kBandStages * kPassing], shares[kBandStages * kPassing];
    const block_place x = place_of<kKeySide>(a, own);
    shared_place s = start_block<T, kKeySide, own, kGroupThreads>(a, x, dynamic);
    s.lse = lse;
    s.shares = shares;
    if (x.count > 0)
        fetch_turn<T, kKeySide>(a, x, s, 0, 0, threadIdx.x);
    commit_copies();
    group_gradient<T, kKeySide> group(a, x, s, 0);
    for (int n = 0; n < x.count; n++) {
        if (n + 1 < x.count)
            fetch_turn<T, kKeySide>(a, x, s, n + 1, (n + 1) % kBandStages, threadIdx.x);
        commit_copies();
        wait_copies<1>();
        publish_shared();
        __syncthreads();
        group.add_turn(n, n % kBandStages);
        __syncthreads(); /* the tile is free */
    }
    wait_copies<0>();
    __syncthreads();
    group.store(own);
#endif
}

template <typename T, bool kKeySide>
enum fb_status launch(const window_gradient_view &a, bool band, unsigned heads, int tokens,
                      cudaStream_t stream, struct fb_error *error)
{
    const auto kernel =
        band ? band_gradient_kernel<T, kKeySide> : groups_gradient_kernel<T, kKeySide>;
    const int own = band ? 64 : 64 * kGroups;
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
    return status == FB_OK
               ? launch<T, true>(a, band, heads / (unsigned)a.w.group, a.w.kv_len, stream, error)
               : status;
}

} // namespace

enum fb_status window_cuda_groups_gradient(enum fb_dtype dtype, const window_gradient_view &a,
                                           cudaStream_t stream, struct fb_error *error)
{
    return dtype == FB_BF16 ? run<__nv_bfloat16>(a, stream, error) : run<__half>(a, stream, error);
}
