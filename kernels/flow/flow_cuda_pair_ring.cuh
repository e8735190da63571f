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
#include "flow_cuda_strip_tiles.cuh"

namespace
{

constexpr int kWarps = 16;
constexpr int kThreads = 32 * kWarps;
constexpr int kSlots = FB_FLOW_CUDA_PAIR_SLOTS;
constexpr int kSlotTokens = FB_FLOW_CUDA_PAIR_TOKENS; /* a tile: a strip of every warp */
constexpr int kSlotBytes = kSlotTokens * kRowBytes;

static_assert(kSlotTokens == 16 * kWarps, "every warp has a strip of a tile");

enum pair_tensor { PAIR_K, PAIR_Q, PAIR_V };
enum pair_exchange { SUMS, FLOWS, PRODUCT, EXCHANGES };

struct pair_arguments {
    CUtensorMap in[3]; /* by pair_tensor */
    tensor_view out;
    int heads, group; /* query heads per batch element; per head of keys */
    int problems;     /* heads of all batch elements */
    int q_len, kv_len;
    int tiles;   /* of a block, in every head */
    int kept[2]; /* of them: whose keys and queries stay, in the first slots */
    float clamp;
    float *saved; /* [problems][saved_count], see flow_cuda_plan.h; NULL: nothing is saved */
    int64_t saved_count;
};

/* The block's small arrays, after the slots. */
struct pair_shared {
    char matrix[kDim * kRowBytes]; /* scale G as operand */
    union {
        float parts[kWarps][2][kDim]; /* sums of columns, by warp */
        float4 product[8][128];       /* the other block's G, once sums and flows have been sent */
    };
    float sums[2 * kDim], flows[2 * kDim]; /* the other block's */
    alignas(16) float total[2][kDim];      /* sums of phi(k) (0) and phi(q) (1) */
    float flow[2][kDim];                   /* u (0), w (1) */
    float z[kWarps];
    float remote_z;
    unsigned long long exchanges[EXCHANGES];
    unsigned long long barriers[kWarps][kSlots];       /* a slot's strip has come */
    uint16_t visits[7 * FB_FLOW_CUDA_PAIR_TILES_MOST]; /* through the ring: 256 tensor + tile */
};

constexpr size_t kPairBytes = (size_t)kSlots * kSlotBytes + sizeof(pair_shared);

#if FB_HAVE_WGMMA

struct pair_block {
    const pair_arguments &a;
    char *ring;
    pair_shared &own;
    int warp, rank;
    int first;       /* the warp's first token */
    int ring_from;   /* the first slot of the ring */
    int slot;        /* of the ring that is visited next */
    uint32_t rounds; /* a bit per slot: the parity of what it waits for */
    lane_places at;
    struct { /* what is fetched next; the first lane's */
        int problem, visit, slot;
        int b, h, kv_h; /* of the problem */
    } feed;
    int visits; /* of a head */

    __device__ pair_block(const pair_arguments &arguments, char *shared)
        : a(arguments), ring(shared),
          own(*reinterpret_cast<pair_shared *>(shared + kSlots * kSlotBytes)), rounds(0)
    {
        warp = (int)threadIdx.x / 32;
        rank = (int)blockIdx.x;
        first = rank * a.tiles * kSlotTokens + 16 * warp;
        ring_from = a.kept[PAIR_K] + a.kept[PAIR_Q];
        slot = ring_from;
        visits = 7 * a.tiles - 3 * ring_from;
        feed.visit = 0;
        feed_from((int)blockIdx.y);
        feed.slot = ring_from;
        if (threadIdx.x % 32 == 0)
            for (int i = 0; i < kSlots; i++)
                barrier_init(barrier_of(i), 1);
        if (threadIdx.x == 0) {
            expect(&own.exchanges[SUMS], (int)sizeof own.sums);
            expect(&own.exchanges[FLOWS], (int)sizeof own.flows);
            expect(&own.exchanges[PRODUCT], (int)(sizeof own.product + sizeof own.remote_z));
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
        for (int i = (int)threadIdx.x; i < visits; i += kThreads)
            own.visits[i] = visit_of(i);
        keep(PAIR_K, feed.problem);
        keep(PAIR_Q, feed.problem);
        __syncthreads();
#pragma unroll 1
        for (int i = ring_from; i < kSlots; i++)
            fetch();
        /* the other block's barriers stand */
        asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    }

    /* What comes through the ring: keys and queries for the sums, again for the flows, keys and
     * values in turn, queries. */
    __device__ uint16_t visit_of(int i) const
    {
        const int keys = a.kept[PAIR_K], queries = a.kept[PAIR_Q];
        const int side = 2 * a.tiles - keys - queries;
        const int products = 2 * a.tiles - keys; /* kept keys have their values alone */
        int tensor = PAIR_Q, tile = queries + i - 2 * side - products;
        if (i < 2 * side) {
            const int j = i % side - (a.tiles - keys);
            tensor = j < 0 ? PAIR_K : PAIR_Q;
            tile = j < 0 ? a.tiles + j : queries + j;
        } else if (i < 2 * side + products) {
            const int j = i - 2 * side - keys;
            tensor = j < 0 || j % 2 == 1 ? PAIR_V : PAIR_K;
            tile = keys + (j < 0 ? j : j / 2);
        }
        return (uint16_t)(256 * tensor + tile);
    }

    __device__ uint32_t barrier_of(int index) const
    {
        return shared_address(&own.barriers[warp][index]);
    }

    __device__ uint32_t strip_of(int index) const
    {
        return shared_address(ring) + (uint32_t)(index * kSlotBytes + warp * 16 * kRowBytes);
    }

    __device__ void feed_from(int problem)
    {
        feed.problem = problem;
        feed.b = problem / a.heads;
        feed.h = problem % a.heads;
        feed.kv_h = feed.h / a.group;
    }

    /* By one lane. */
    __device__ void copy(int tensor, int b, int h, int tile, int to_slot) const
    {
        copy_rows(strip_of(to_slot), &a.in[tensor], first + tile * kSlotTokens, h, b,
                  barrier_of(to_slot), tensor == PAIR_V ? pass_cache() : keep_cached());
    }

    /* The tiles of a head that stay. */
    __device__ void keep(pair_tensor which, int problem) const
    {
        if (problem >= a.problems || threadIdx.x % 32 != 0)
            return;
        const int h = problem % a.heads, from = which == PAIR_K ? 0 : a.kept[PAIR_K];
#pragma unroll 1
        for (int i = 0; i < a.kept[which]; i++)
            copy(which, problem / a.heads, which == PAIR_K ? h / a.group : h, i, from + i);
    }

    /* The next strip into the slot of the ring that was visited longest ago. */
    __device__ void fetch()
    {
        if (threadIdx.x % 32 == 0 && feed.problem < a.problems) {
            const int visit = own.visits[feed.visit];
            const int tensor = visit / 256;
            copy(tensor, feed.b, tensor == PAIR_Q ? feed.h : feed.kv_h, visit % 256, feed.slot);
            feed.slot = feed.slot + 1 == kSlots ? ring_from : feed.slot + 1;
            if (++feed.visit == visits) {
                feed.visit = 0;
                feed_from(feed.problem + (int)gridDim.y);
            }
        }
    }

    __device__ void await_slot(int index)
    {
        barrier_wait(barrier_of(index), rounds >> index & 1);
        rounds ^= 1U << index;
        __syncwarp();
    }

    /* The slot of the ring with the next strip, once it is there. */
    __device__ int take()
    {
        const int taken = slot;
        await_slot(taken);
        slot = slot + 1 == kSlots ? ring_from : slot + 1;
        return taken;
    }

    /* phi of the next strip, whose slot is free at once. */
    template <typename T> __device__ void take_phi(strip_values &phi)
    {
        uint32_t raw[4][4];
        load_strip(raw, strip_of(take()), at);
        __syncwarp();
        fetch();
        map_loaded<T>(phi, raw);
    }

    /* phi of a strip that has come to stay. */
    template <typename T> __device__ void take_new(strip_values &phi, int index)
    {
        uint32_t raw[4][4];
        await_slot(index);
        load_strip(raw, strip_of(index), at);
        map_loaded<T>(phi, raw);
        pack_strip<T>(raw, phi);
        __syncwarp();
        store_strip(strip_of(index), raw, at);
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
