/*
 * What a warpgroup does of the gradients of softmax over a band of keys: bf16 or f16, heads of 64,
 * on Hopper (window_cuda_groups_gradient.cu). It owns 64 queries (dq) or 64 keys (dk and dv); tiles
 * of 64 of the other side pass. Scores and their gradients stay in registers, turned for the keys'
 * side, so that they are left operands as they are; nothing is added from two sides.
 *
 *   p = exp(s - lse), dv = p^T dout, dp = dout v^T, ds = p (dp - dout out), dq = ds k, dk = ds^T q
 */
#ifndef FB_WINDOW_CUDA_GROUP_GRADIENT_CUH
#define FB_WINDOW_CUDA_GROUP_GRADIENT_CUH

#include "cuda_wgmma.cuh"
#include "window_cuda_groups.cuh"
#include "window_cuda_rows.cuh"

constexpr int kGroupThreads = 128;
constexpr int kPassing = 64;
constexpr int kTileBytes = kPassing * kRowBytes;

/* f16 has no room for the weights of many keys and the gradients of scores of a small dout. As
 * operands both have powers of two with them, weights by way of lse, and leave them behind in f32.
 * A weight is at most one, or a few, where the difference of two large numbers is off. Gradients of
 * scores are right to a hundredth from 2^-24 on, and may reach 2^10. */
template <typename T> struct gradient_powers {
    static constexpr float weight = 0.0F, slope = 0.0F; /* exponents */
    static constexpr float slope_of_weight = 1.0F;      /* two to their difference */
    static constexpr float back_weight = 1.0F, back_slope = 1.0F;
};
template <> struct gradient_powers<__half> {
    static constexpr float weight = 10.0F, slope = 6.0F;
    static constexpr float slope_of_weight = 0x1p-4F;
    static constexpr float back_weight = 0x1p-10F, back_slope = 0x1p-6F;
};

#if FB_HAVE_WGMMA

/* A block's work: its own rows, and the turns over tiles of the other side; on the keys' side the
 * tiles of one head of queries, then of the next. */
struct block_place {
    int64_t b, kv_h, h;
    int first, rows; /* own: the first, how many are no padding */
    window_range range;
    int each, heads; /* tiles of a head; heads */
    int back, ahead; /* how far before and behind an own row what it meets may lie */
};

struct shared_place {
    char *own;                                        /* q and dout, or k and v */
    uint32_t own_address, second, tiles, full, empty; /* second: of own */
    float *lse, *shares; /* of the passing queries: [stages][kPassing] */
};

/* block: of `own` rows; index: of the head */
template <bool kKeySide>
__device__ block_place place_at(const window_gradient_view &a, int own, int block, int index)
{
    constexpr int64_t far = 1 << 30;
    block_place x;
    x.first = block * own;
    const int heads = kKeySide ? a.w.heads / a.w.group : a.w.heads;
    x.b = index / heads;
    x.h = index % heads * (kKeySide ? a.w.group : 1);
    const window_head head = window_head_of(a.w, x.b * a.w.heads + x.h);
    x.kv_h = head.kv_h;
    x.rows = max(0, min(own, (kKeySide ? head.kv_len : head.q_len) - x.first));
    x.range = kKeySide ? queries_of(a.w, head.q_len, x.first, x.rows)
                       : window_range_of(a.w, head.kv_len, x.first, x.rows);
    x.each = x.rows > 0 && x.range.to > x.range.from
                 ? (x.range.to - x.range.from + kPassing - 1) / kPassing
                 : 0;
    x.heads = kKeySide ? a.w.group : 1;
    x.back = (int)min(far, kKeySide ? a.w.ahead : a.w.back);
    x.ahead = (int)min(far, kKeySide ? a.w.back : a.w.ahead);
    return x;
}

template <bool kKeySide> __device__ block_place place_of(const window_gradient_view &a, int own)
{
    return place_at<kKeySide>(a, own, (int)(kKeySide ? blockIdx.x : gridDim.x - 1 - blockIdx.x),
                              (int)blockIdx.y);
}

__device__ inline void copy_word_async(uint32_t to, const float *from, bool valid)
{
    const int bytes = valid ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

/* Tile n of head h (counted from the block's first) into a stage; not waited for. */
template <typename T, bool kKeySide>
__device__ void fetch_tile(const window_gradient_view &a, const block_place &x,
                           const shared_place &s, int head, int n, int stage, int thread)
{
    const int at = x.range.from + n * kPassing, left = x.range.to - at;
    const int64_t h = kKeySide ? x.h + head : x.kv_h;
    const uint32_t tile = s.tiles + (uint32_t)(stage * 2 * kTileBytes);
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

/* Which turn over tiles it is. */
template <int Stages> struct tile_turn {
    int stage = 0;
    uint32_t parity = 0;
    __device__ void next()
    {
        stage = (stage + 1) % Stages;
        parity ^= stage == 0 ? 1U : 0U;
    }
};

__device__ inline void await_group()
{
    asm volatile("bar.sync %0, 128;" ::"r"(1 + (int)threadIdx.x / kGroupThreads) : "memory");
}

__device__ inline shared_place shared_of(char *dynamic, int own)
{
    shared_place s = {};
    s.own = dynamic + (1024 - shared_address(dynamic) % 1024) % 1024;
    s.own_address = shared_address(s.own);
    s.second = s.own_address + (uint32_t)(own * kRowBytes);
    s.tiles = s.second + (uint32_t)(own * kRowBytes);
    return s;
}

/* The 64 own rows of a warpgroup, from `first` of the block's; not waited for. */
template <typename T, bool kKeySide>
__device__ void fetch_own(const window_gradient_view &a, const block_place &x,
                          const shared_place &s, int first)
{
    const int64_t h = kKeySide ? x.kv_h : x.h;
    const uint32_t at = (uint32_t)(first * kRowBytes);
    const int thread = threadIdx.x % kGroupThreads;
    fetch_rows<T, 64, kGroupThreads>(s.own_address + at, kKeySide ? a.w.k : a.w.q, x.b, h,
                                     x.first + first, x.rows - first, thread);
    fetch_rows<T, 64, kGroupThreads>(s.second + at, kKeySide ? a.w.v : a.dout, x.b, h,
                                     x.first + first, x.rows - first, thread);
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

/* 64 own rows as left operands: in shared memory, or held in registers, which halves what the
 * products read from there. */
template <typename T, bool kHeld> struct own_rows;
template <typename T> struct own_rows<T, false> {
    uint64_t rows;
    __device__ void load(uint32_t tile)
    {
        rows = wgmma_tile(tile);
    }
    __device__ void multiply(float (&c)[8][4], uint64_t tile) const
    {
        wgmma_turned_first<T>(c, rows, tile);
#pragma unroll
        for (int step = 1; step < 4; step++)
            wgmma_turned<T>(c, rows + 2 * step, tile + 2 * step, false);
    }
};
template <typename T> struct own_rows<T, true> {
    uint32_t rows[4][4];
    __device__ void load(uint32_t tile)
    {
        const lane_places at;
        const uint32_t strip = tile + threadIdx.x % kGroupThreads / 32 * 16 * kRowBytes;
#pragma unroll
        for (int step = 0; step < 4; step++)
            load_a(rows[step], strip, at, step);
    }
    __device__ void multiply(float (&c)[8][4], uint64_t tile) const
    {
        wgmma_turned_first<T>(c, rows[0], tile);
#pragma unroll
        for (int step = 1; step < 4; step++)
            wgmma_turned_add<T>(c, rows[step], tile + 2 * step);
    }
};

/* A warpgroup's rows: 64 from `group_first` of the block's. */
template <typename T, bool kKeySide, bool kHeld, bool kSecondHeld = kHeld> struct group_gradient {
    typedef gradient_powers<T> powers;
    const window_gradient_view &a;
    const block_place &x;
    const shared_place &shared;
    int group_first, strip; /* the warp's 16 rows */
    int from, to;           /* tiles of a head that any row meets */
    own_rows<T, kHeld> own_1;
    own_rows<T, kSecondHeld> own_2;
    float lse[2], share[2];
    float s[8][4], dp[8][4];
    float sum_1[8][4], sum_2[8][4]; /* dq; or dk and dv */

    /* Once the own rows are there. */
    __device__ group_gradient(const window_gradient_view &view, const block_place &place,
                              const shared_place &memory, int first)
        : a(view), x(place), shared(memory), group_first(first)
    {
        strip = first + (int)threadIdx.x % kGroupThreads / 32 * 16;
        const int row = x.first + first - x.range.from;
        const int before = row - x.back - kPassing + 1, last = row + 63 + x.ahead;
        from = min(x.each, before > 0 ? (before + kPassing - 1) / kPassing : 0);
        to = max(from, min(x.each, last / kPassing + 1));
        own_1.load(shared.own_address + (uint32_t)(first * kRowBytes));
        own_2.load(shared.second + (uint32_t)(first * kRowBytes));
        for (int half = 0; half < 2 && !kKeySide; half++) {
            const int r = strip + (int)threadIdx.x % 32 / 4 + 8 * half;
            const int64_t at = (int64_t)blockIdx.y * a.w.q_len + x.first + r;
            const float exact = r < x.rows ? a.lse[at] : INFINITY;
            lse[half] = exact - powers::slope;
            share[half] = share_of<T>(a, x, r);
            if (threadIdx.x % 4 == 0 && x.first + r < a.w.q_len) { /* for the keys' side */
                a.shares[at] = share[half] * powers::slope_of_weight;
                if (powers::weight != 0.0F)
                    a.lowered[at] = exact - powers::weight;
            }
        }
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum_1[n][i] = sum_2[n][i] = 0.0F;
    }

    /* Scores and gradients of weights with the tiles of a stage, each a group of products. */
    __device__ void multiply(int stage)
    {
        const uint32_t tile = shared.tiles + (uint32_t)(stage * 2 * kTileBytes);
        wgmma_begin();
        own_1.multiply(s, wgmma_tile(tile));
        wgmma_commit();
        own_2.multiply(dp, wgmma_tile(tile + kTileBytes));
        wgmma_commit();
    }

    /* Whether every row meets all of tile n. */
    __device__ bool meets_all(int n) const
    {
        const int at = x.range.from + n * kPassing, row = x.first + group_first;
        return at + kPassing <= row + x.ahead + 1 && at >= row + 63 - x.back &&
               (kKeySide || at + kPassing <= x.range.to);
    }

    __device__ void mask(int n)
    {
        const int t = threadIdx.x % 4, at = x.range.from + n * kPassing;
        const int end = kKeySide ? kPassing : x.range.to - at;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int own = x.first + strip + (int)threadIdx.x % 32 / 4 + 8 * half - at;
            const int low = own - x.back - 2 * t, high = min(own + x.ahead, end - 1) - 2 * t;
#pragma unroll
            for (int m = 0; m < 8; m++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float &score = s[m][2 * half + i];
                    score = 8 * m + i >= low && 8 * m + i <= high ? score : -INFINITY;
                }
        }
    }

    /* Scores become weights. */
    __device__ void weigh(int stage)
    {
        const int t = threadIdx.x % 4;
#pragma unroll
        for (int m = 0; m < 8; m++) {
            float2 of = {lse[0], lse[1]};
            if (kKeySide)
                of = *reinterpret_cast<const float2 *>(shared.lse + stage * kPassing + 8 * m +
                                                       2 * t);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const bool second = (kKeySide ? i % 2 : i / 2) != 0;
                s[m][i] = window_power(fmaf(s[m][i], a.w.scale, second ? -of.y : -of.x));
            }
        }
    }

    /* Gradients of weights become those of scores. */
    __device__ void differentiate(int stage)
    {
        const int t = threadIdx.x % 4;
#pragma unroll
        for (int m = 0; m < 8; m++) {
            float2 of = {share[0], share[1]};
            if (kKeySide)
                of = *reinterpret_cast<const float2 *>(shared.shares + stage * kPassing + 8 * m +
                                                       2 * t);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const bool second = (kKeySide ? i % 2 : i / 2) != 0;
                const float y = second ? of.y : of.x;
                /* the queries' side has the power in s, and y as it is */
                dp[m][i] = s[m][i] * (kKeySide && powers::slope_of_weight != 1.0F
                                          ? fmaf(dp[m][i], powers::slope_of_weight, -y)
                                          : dp[m][i] - y);
            }
        }
    }

    /* c += y z, z a tile's rows along the depth */
    __device__ static void add(float (&c)[8][4], const float (&y)[8][4], uint64_t z)
    {
        uint32_t p[4][4];
#pragma unroll
        for (int step = 0; step < 4; step++)
            weights_operand<T>(p[step], y, step);
        wgmma_hold(c);
        wgmma_begin();
#pragma unroll
        for (int step = 0; step < 4; step++)
            wgmma_add<T>(c, p[step], z + 128 * step);
        wgmma_commit();
    }

    /* masked: of a tile that not every row meets all of */
    template <typename Earlier>
    __device__ void add_tile(int n, int stage, bool masked, Earlier earlier)
    {
        const uint32_t tile = shared.tiles + (uint32_t)(stage * 2 * kTileBytes);
        multiply(stage);
        wgmma_wait<1>();
        wgmma_hold(s);
        earlier();
        if (masked)
            mask(n);
        weigh(stage);
        if (kKeySide)
            add(sum_2, s, wgmma_tile(tile + kTileBytes));
        wgmma_wait<kKeySide ? 1 : 0>();
        wgmma_hold(dp);
        differentiate(stage);
        add(sum_1, dp, wgmma_tile(tile));
    }

    /* Adds tile n to the sums; its last products are not waited for. earlier(): when those of the
     * tile before are over. Held rows: a branch while products are under way makes the assembler of
     * CUDA 13.0 write over the registers that they are held in, hence the two copies. */
    template <typename Earlier> __device__ void add_tile(int n, int stage, Earlier earlier)
    {
        const bool masked = !meets_all(n);
        if (!kHeld)
            add_tile(n, stage, masked, earlier);
        else if (masked)
            add_tile(n, stage, true, earlier);
        else
            add_tile(n, stage, false, earlier);
    }

    __device__ void finish()
    {
        wgmma_wait<0>();
        wgmma_hold(sum_1);
        if (kKeySide)
            wgmma_hold(sum_2);
    }

    /* A strip of results times a factor; rows that are padding become zero. */
    __device__ void write(char *tile, float (&c)[8][4], const tensor_view &view, int64_t h, int own,
                          float factor)
    {
        const int row = strip + (int)threadIdx.x % 32 / 4;
        const int written = min(own, (kKeySide ? a.w.kv_len : a.w.q_len) - x.first);
        const float factors[2] = {factor, factor};
        if (strip + 16 > x.rows) {
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    c[n][i] = row + i / 2 * 8 < x.rows ? c[n][i] : 0.0F;
        }
        store_strip<T>(tile, c, factors, rows_of<T>(view, x.b, h, x.first), strip, written,
                       lane_places());
    }

    /* Through the group's own rows, which nobody else reads; `own` rows in the block. */
    __device__ void store(int own)
    {
        write(shared.own, sum_1, kKeySide ? a.dk : a.dq, kKeySide ? x.kv_h : x.h, own,
              a.slope * powers::back_slope);
        if (kKeySide)
            write(shared.own + own * kRowBytes, sum_2, a.dv, x.kv_h, own, powers::back_weight);
    }
};

#endif
#endif
