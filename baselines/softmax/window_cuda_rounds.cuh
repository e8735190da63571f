/*
 * Rounds of softmax's forward pass by warpgroups (window_cuda_groups.cu): which queries a block
 * takes, and what its warpgroups do with them.
 */
#ifndef FB_WINDOW_CUDA_ROUNDS_CUH
#define FB_WINDOW_CUDA_ROUNDS_CUH

#include "cuda_wgmma.cuh"
#include "window_cuda_rows.cuh"

constexpr int kGroupThreads = 128;
constexpr int kGroups = 3;
constexpr int kThreads = (kGroups + 1) * kGroupThreads;
constexpr int kUnit = 64; /* queries of a warpgroup in a round */
constexpr int kKeys = 128;
constexpr int kStages = 4;
constexpr int kTileBytes = kKeys * kRowBytes;
constexpr int kUnitBytes = kUnit * kRowBytes;
constexpr int kQueryBytes = 2 * kGroups * kUnitBytes; /* of this round and the next */
constexpr int kTilesBytes = 2 * kStages * kTileBytes;
typedef far_rows<kGroups * kGroupThreads> round_far;

#if FB_HAVE_WGMMA

constexpr int kAhead = 2; /* tiles that are on their way when the one before them is waited for */

/* What a block has of a head's units, the last first: a run of them, or, where rows differ in
 * length, one from either end, so that all blocks have as much to do. */
struct block_share {
    window_head head;
    int top, tops, bottom, count; /* one beyond the run from the top; of it; of the other; all */

    __device__ int unit(int i) const
    {
        return i < tops ? top - 1 - i : bottom - 1 - (i - tops);
    }
};

__device__ inline block_share share_of(const window_arguments &a)
{
    const int units = (a.q_len + kUnit - 1) / kUnit, part = blockIdx.x;
    const bool causal = a.ahead == 0 && a.back >= a.kv_len;
    const int parts = (int)gridDim.x * (causal ? 2 : 1);
    const auto bound = [&](int i) { return (int)((int64_t)i * units / parts); };
    block_share share;
    share.head = window_head_of(a, blockIdx.y);
    share.top = bound(parts - part);
    share.tops = share.top - bound(parts - part - 1);
    share.bottom = bound(part + 1);
    share.count = share.tops + (causal ? share.bottom - bound(part) : 0);
    return share;
}

/* Three units, and the tiles of keys that any of them sees. */
struct round_place {
    window_range range;
    int count;
};

__device__ inline round_place round_of(const window_arguments &a, const block_share &share,
                                       int round)
{
    const int low = share.unit(min(kGroups * (round + 1), share.count) - 1) * kUnit;
    const int high = (share.unit(kGroups * round) + 1) * kUnit;
    const int rows = min(high, share.head.q_len) - low;
    round_place place;
    place.range = window_range_of(a, share.head.kv_len, low, rows);
    place.count = rows > 0 && place.range.to > place.range.from
                      ? (place.range.to - place.range.from + kKeys - 1) / kKeys
                      : 0;
    return place;
}

__device__ inline int rounds_of(const block_share &share)
{
    return (share.count + kGroups - 1) / kGroups;
}

/* Tile i of all rounds has its keys, then its values, in place i % kStages. */
template <typename T>
__device__ void bring(const window_arguments &a, const block_share &share, uint32_t tiles,
                      uint32_t full, uint32_t empty)
{
    const int thread = threadIdx.x, rounds = rounds_of(share);
    int count = 0, round = -1, n = 0;
    for (int r = 0; r < rounds; r++)
        count += round_of(a, share, r).count;
    round_place place = {{0, 0}, 0};
    for (int i = 0; i < count + kAhead; i++) {
        if (i < count) {
            for (; n == place.count; n = 0)
                place = round_of(a, share, ++round);
            const int stage = i % kStages, at = place.range.from + n * kKeys;
            const uint32_t tile = tiles + (uint32_t)(stage * 2 * kTileBytes);
            const int left = place.range.to - at;
            barrier_wait(empty + 8 * stage, (uint32_t)(i / kStages + 1) & 1U);
            fetch_rows<T, kKeys, kGroupThreads>(tile, a.k, share.head.b, share.head.kv_h, at, left,
                                                thread);
            fetch_rows<T, kKeys, kGroupThreads>(tile + kTileBytes, a.v, share.head.b,
                                                share.head.kv_h, at, left, thread);
            n++;
        }
        commit_copies();
        if (i >= kAhead) {
            wait_copies<kAhead>();
            publish_shared();
            barrier_arrive(full + 8 * ((i - kAhead) % kStages));
        }
    }
}

/* A warpgroup's 64 queries, and what it has of their output. Far: sums are put away. */
template <typename T, bool Far> struct group_rows {
    const window_arguments &a;
    const block_share &share;
    round_place place;
    uint32_t queries, tiles, full, empty;
    int group, row, valid,
        count; /* row: the warp's first; count: tiles of keys that any row sees */
    uint64_t q;
    float out[8][4], s[16][4];
    uint32_t p[8][4]; /* weights as left operands */
    row_state rows;
    int stage;
    uint32_t parity;
    char *far_place;

    __device__ group_rows(const window_arguments &arguments, const block_share &block,
                          uint32_t first_queries, uint32_t first_tile, uint32_t barriers,
                          int number, char *far_sums)
        : a(arguments), share(block), queries(first_queries), tiles(first_tile), full(barriers),
          empty(barriers + 8 * kStages), group(number), stage(0), parity(0), far_place(far_sums)
    {
    }

    __device__ round_far far() const
    {
        return round_far(far_place, (int)threadIdx.x - kGroupThreads);
    }

    __device__ bool has_unit(int round) const
    {
        return kGroups * round + group < share.count;
    }

    __device__ int first_of(int round) const
    {
        return share.unit(kGroups * round + group) * kUnit;
    }

    __device__ uint32_t place_of_queries(int round) const
    {
        return (uint32_t)((round % 2 * kGroups + group) * kUnitBytes);
    }

    /* The round's queries are on their way; not waited for. */
    __device__ void fetch_queries(int round) const
    {
        if (has_unit(round))
            fetch_rows<T, kUnit, kGroupThreads>(
                queries + place_of_queries(round), a.q, share.head.b, share.head.h, first_of(round),
                share.head.q_len - first_of(round), threadIdx.x % kGroupThreads);
        commit_copies();
    }

    __device__ void begin_round(int round)
    {
        wait_copies<0>();
        publish_shared();
        asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
        if (kGroups * (round + 1) < share.count)
            fetch_queries(round + 1);
        place = round_of(a, share, round);
        const int first = has_unit(round) ? first_of(round) : 0;
        row = first + (int)threadIdx.x % kGroupThreads / 32 * 16;
        valid = has_unit(round) ? max(0, min(kUnit, share.head.q_len - first)) : 0;
        q = wgmma_tile(queries + place_of_queries(round));
        const int64_t last = first + valid - 1 + a.ahead - place.range.from;
        count = valid == 0 || last < 0 ? 0 : (int)min((int64_t)place.count, last / kKeys + 1);
        rows = {{-INFINITY, -INFINITY}, {0.0F, 0.0F}};
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                out[n][i] = 0.0F;
        wgmma_hold(out);
        if (Far)
            far().clear();
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
        if (here + kKeys > to || here + kKeys - 1 > row + a.ahead || here < row + 15 - a.back)
            mask_scores(s, a, row, here, to);
        float factor[2];
        weigh_scores<T>(s, factor, rows, a.scale);
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
        if (count > 0)
            add_turn<true>(0);
        for (int n = 1; n < count; n++) {
            add_turn<false>(n);
            if (Far && n % (kStretchKeys / kKeys) == 0)
                far().put_away(out, rows);
        }
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
        if (Far) {
            far().put_away(out, rows);
            far().bring_back(out, rows);
        }
    }

    __device__ void write(char *shared, int round)
    {
        if (!has_unit(round))
            return;
        const int first = first_of(round), strip = row - first;
        float *lse = a.lse == nullptr ? nullptr : a.lse + (int64_t)blockIdx.y * a.q_len + first;
        write_rows<T>(shared + place_of_queries(round), out, rows,
                      rows_of<T>(a.out, share.head.b, share.head.h, first), strip, valid,
                      min(kUnit, a.q_len - first), lane_places(), lse);
    }
};

template <typename T, bool Far>
__device__ void use(const window_arguments &a, const block_share &share, char *shared,
                    uint32_t tiles, uint32_t barriers)
{
    /* from lane 0, so that the compiler knows that warps stay together */
    const int group = __shfl_sync(0xffffffffU, (int)threadIdx.x / kGroupThreads, 0) - 1;
    group_rows<T, Far> rows(a, share, shared_address(shared), tiles, barriers, group,
                            shared + kQueryBytes + kTilesBytes);
    const int rounds = rounds_of(share);
    rows.fetch_queries(0);
    if (group == kGroups - 1)
        rows.give_turn();
    for (int round = 0; round < rounds; round++) {
        rows.begin_round(round);
        rows.add_tiles();
        rows.write(shared, round);
    }
    if (group == 0)
        rows.take_turn(); /* what the last gave last */
}

#endif
#endif
