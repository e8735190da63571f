/*
 * What a block of a pair holds, and how tokens come to it: flow_cuda_pair.cu tells the whole.
 *
 * A warp takes strips of 16 tokens, one of every tile. Some tiles of keys and queries have places
 * of their own, where they stay through all passes; the strips of the others, and values, come
 * into the slots of a ring, in the order in which the warp will visit them.
 */
#ifndef FB_FLOW_CUDA_PAIR_RING_CUH
#define FB_FLOW_CUDA_PAIR_RING_CUH

#include "cuda_exchange.cuh"
#include "cuda_tensor_map.cuh"
#include "flow_cuda_plan.h"
#include "flow_cuda_strip_values.cuh"

namespace
{

constexpr int kWarps = 16;
constexpr int kThreads = 32 * kWarps;
constexpr int kSlots = FB_FLOW_CUDA_PAIR_SLOTS, kRing = FB_FLOW_CUDA_PAIR_RING;
constexpr int kKept = kSlots - kRing;                 /* tiles that stay, whatever the length */
constexpr int kSlotTokens = FB_FLOW_CUDA_PAIR_TOKENS; /* a tile: a strip of every warp */
constexpr int kSlotBytes = kSlotTokens * kRowBytes;

static_assert(kSlotTokens == 16 * kWarps, "every warp has a strip of a tile");

enum pair_tensor { PAIR_K, PAIR_Q, PAIR_V };
enum pair_exchange { SUMS, FLOWS, PRODUCT, EXCHANGES };

struct pair_arguments {
    CUtensorMap in[3]; /* by pair_tensor */
    CUtensorMap out;
    int heads, group; /* query heads per batch element; per head of keys */
    int problems;     /* heads of all batch elements */
    int q_len, kv_len;
    int tiles;   /* of a block, in every head */
    int kept[2]; /* of them: whose keys and queries stay, in the first slots */
    int visit_count;
    uint32_t visits[7 * FB_FLOW_CUDA_PAIR_TILES_MOST]; /* through the ring: 4 row + tensor */
    float clamp;
    float *saved; /* [problems][saved_count], see flow_cuda_plan.h; NULL: nothing is saved */
    int64_t saved_count;
};

/* A vector over the features, and as b of products: plus eps, as two numbers of 16 bits, of which
 * every t has 16 in a row: those of the columns 8 n + 2 t and the next, by n. */
struct pair_vector {
    alignas(16) float values[kDim];
    uint4 operand[2][2 * 4];
};

/* The block's small arrays, after the slots. */
struct pair_shared {
    char matrix[kDim * kRowBytes]; /* scale G as operand */
    union {
        float parts[kWarps][2][kDim]; /* sums of columns, by warp */
        float4 product[8][128];       /* the other block's G, once sums and flows have been sent */
    };
    float sums[2 * kDim], flows[2 * kDim]; /* the other block's */
    pair_vector total[2];                  /* sums of phi(k) (0) and phi(q) (1) */
    pair_vector flow[2];                   /* u (0), w (1) */
    float z[kWarps];
    float remote_z;
    unsigned long long exchanges[EXCHANGES];
    unsigned long long barriers[kWarps][kSlots]; /* a slot's strip has come */
};

constexpr size_t kPairBytes = (size_t)kSlots * kSlotBytes + sizeof(pair_shared);

#if FB_HAVE_WGMMA

/* A head: of queries, and of keys. */
struct pair_head {
    int problem, b, h, kv_h;
};

/* A strip of the ring, and the barrier of its slot. */
struct ring_strip {
    uint32_t address, barrier;
};

struct pair_block {
    const pair_arguments &a;
    char *ring;
    pair_shared &own;
    int warp, rank;
    int first;      /* the warp's first token */
    uint32_t taken; /* strips of the ring so far */
    lane_places at;
    ring_strip ring_start;
    bool ring_waits; /* nothing has been fetched into the ring yet */
    pair_head feed;  /* of what is fetched next */
    int visit;       /* of the head: likewise */

    __device__ pair_block(const pair_arguments &arguments, char *shared)
        : a(arguments), ring(shared),
          own(*reinterpret_cast<pair_shared *>(shared + kSlots * kSlotBytes)), taken(0)
    {
        /* from one lane, so that the compiler knows it to be the same in all */
        warp = __shfl_sync(0xffffffffU, (int)threadIdx.x / 32, 0);
        rank = (int)blockIdx.x;
        first = rank * a.tiles * kSlotTokens + 16 * warp;
        ring_start = {strip_of(kKept), barrier_of(kKept)};
        visit = 0;
        feed = head_of((int)blockIdx.y);
        if (threadIdx.x % 32 == 0) {
            for (int i = 0; i < kSlots; i++)
                barrier_init(barrier_of(i), 1);
            publish_shared();
        }
        __syncwarp();
        keep(feed);
        ring_waits = true;
        if (a.visits[0] % 4 != PAIR_V)
            begin_ring();
        if (threadIdx.x == 0) {
            expect(&own.exchanges[SUMS], (int)sizeof own.sums);
            expect(&own.exchanges[FLOWS], (int)sizeof own.flows);
            expect(&own.exchanges[PRODUCT], (int)(sizeof own.product + sizeof own.remote_z));
        }
        announce_barriers();
        await_cluster();
    }

    __device__ uint32_t barrier_of(int index) const
    {
        return shared_address(&own.barriers[0][0]) + (uint32_t)(8 * (warp * kSlots + index));
    }

    __device__ uint32_t strip_of(int index) const
    {
        return shared_address(ring) + (uint32_t)(index * kSlotBytes + warp * 16 * kRowBytes);
    }

    __device__ pair_head head_of(int problem) const
    {
        const int b = problem / a.heads, h = problem - b * a.heads;
        return {problem, b, h, h / a.group};
    }

    /* The tiles of a head that stay. By the warp. */
    __device__ void keep(const pair_head &head) const
    {
        const int keys = a.kept[PAIR_K], all = keys + a.kept[PAIR_Q];
#pragma unroll 1
        for (int i = 0; i < all; i++) {
            const bool key = i < keys;
            if (is_elected())
                copy_rows(strip_of(i), &a.in[key ? PAIR_K : PAIR_Q],
                          first + (key ? i : i - keys) * kSlotTokens, key ? head.kv_h : head.h,
                          head.b, barrier_of(i), pass_cache());
            __syncwarp();
        }
    }

    __device__ ring_strip ring_at(uint32_t strip) const
    {
        const uint32_t slot = strip % kRing;
        return {ring_start.address + slot * kSlotBytes, ring_start.barrier + 8 * slot};
    }

    /* The next strip into the slot of one that has been visited. By the warp. */
    __device__ void fetch(const ring_strip &free)
    {
        if (feed.problem >= a.problems)
            return;
        const uint32_t what = a.visits[visit];
        const int tensor = (int)(what % 4);
        if (is_elected())
            copy_rows(free.address, &a.in[tensor], first + (int)(what / 4),
                      tensor == PAIR_Q ? feed.h : feed.kv_h, feed.b, free.barrier,
                      tensor == PAIR_V ? pass_cache() : keep_cached());
        __syncwarp();
        if (++visit == a.visit_count) {
            visit = 0;
            feed = head_of(feed.problem + (int)gridDim.y);
        }
    }

    /* Values that come first wait until the warp has its keys and queries: fetched with these they
     * would hold up those of the block's other warps. */
    __device__ void begin_ring()
    {
        if (!ring_waits)
            return;
        ring_waits = false;
#pragma unroll 1
        for (uint32_t i = 0; i < kRing; i++)
            fetch(ring_at(i));
    }

    /* The next strip of the ring, once it is there. */
    __device__ ring_strip take()
    {
        const ring_strip next = ring_at(taken);
        barrier_wait(next.barrier, taken / kRing % 2);
        taken++;
        __syncwarp();
        return next;
    }

    /* phi of the next strip, whose slot is free at once. */
    template <typename T> __device__ void take_phi(strip_values &phi)
    {
        uint32_t raw[4][4];
        const ring_strip next = take();
        load_strip(raw, next.address, at);
        __syncwarp();
        fetch(next);
        map_loaded<T>(phi, raw);
    }

    /* phi of a strip that has come to stay. */
    template <typename T> __device__ void take_new(strip_values &phi, int index, uint32_t round)
    {
        uint32_t raw[4][4];
        barrier_wait(barrier_of(index), round);
        __syncwarp();
        load_strip(raw, strip_of(index), at);
        map_loaded<T>(phi, raw);
        pack_strip<T>(raw, phi);
        __syncwarp();
        store_strip(strip_of(index), raw, at);
    }

    /* The thread's part of a warpgroup's G, of eight columns: in the places of the first two tiles
     * of keys. */
    __device__ float4 &product_of(int group, int n) const
    {
        return reinterpret_cast<float4 *>(ring)[group * 1024 + n * 128 + (int)threadIdx.x % 128];
    }

    /* 1 for the lane's rows of the warp's strip of the tile that exist: g and g + 8. */
    __device__ strip_dots exist(int tile, int length) const
    {
        const int row = first + tile * kSlotTokens + (int)threadIdx.x % 32 / 4;
        return {row < length ? 1.0F : 0.0F, row + 8 < length ? 1.0F : 0.0F};
    }
};

#endif

} // namespace

#endif
