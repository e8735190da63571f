/*
 * What a block of a team holds, and how tokens come to it: flow_cuda_team.cu tells the whole.
 *
 * A warp takes strips of 16 tokens. What strips it will visit, in all passes and heads, is known
 * from the start: they come into the slots of a ring, so that the next ones are on their way at any
 * time, also while the team waits for its sums.
 */
#ifndef FB_FLOW_CUDA_TEAM_RING_CUH
#define FB_FLOW_CUDA_TEAM_RING_CUH

#include "flow_cuda_shape.cuh"
#include "flow_cuda_strip_values.cuh"

namespace
{

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kSlots = 6;
constexpr int kSlotTokens = FB_FLOW_CUDA_TEAM_TOKENS; /* a tile: a strip of every warp */
constexpr int kSlotBytes = kSlotTokens * kRowBytes;
constexpr int kPartCount = 2 * kDim;           /* sums of keys and queries, u and w */
constexpr int kProductCount = kDim * kDim + 4; /* G, then Z and three unused */

static_assert(kSlotTokens == 16 * kWarps, "every warp has a strip of a tile");
static_assert(3 * kPartCount + kProductCount == FB_FLOW_CUDA_TEAM_PART, "the plan makes room");

enum team_tensor { TEAM_K, TEAM_Q, TEAM_V };

struct team_arguments {
    tensor_view in[3]; /* by team_tensor */
    tensor_view out;
    int heads, group; /* query heads per batch element; per head of keys */
    int problems;     /* heads of all batch elements */
    int q_len, kv_len;
    int ranks; /* blocks of a team */
    int tiles; /* of a block, in every head */
    int kept;  /* of them: whose keys stay in shared memory through all passes */
    float clamp;
    float *saved; /* [problems][saved_count], see flow_cuda_plan.h; NULL: nothing is saved */
    int64_t saved_count;
    unsigned *counters; /* [teams][FB_FLOW_CUDA_TEAM_COUNTERS], zero */
    float *exchange;    /* [teams][exchange_count] */
};

/* Floats that a team exchanges through memory: sums and flows, G by rank, scale G. */
__host__ __device__ inline int64_t exchange_count(int ranks)
{
    return (int64_t)ranks * FB_FLOW_CUDA_TEAM_PART + FB_FLOW_CUDA_TEAM_STATE;
}

struct team_vectors {
    float plain[2][kDim];
    float plus[2][kDim]; /* eps added, for dot products */
};

/* The block's small arrays, after the ring. */
struct team_shared {
    char matrix[kDim * kRowBytes]; /* scale G as operand */
    float parts[kWarps][kPartCount];
    team_vectors total; /* sums of phi(k) (0) and phi(q) (1) */
    team_vectors flow;  /* u (0), w (1) */
    float weight[kSlotTokens];
    float early[kDim]; /* sums of the next head's first queries */
    float z[kWarps];
    unsigned long long barriers[kWarps][kSlots]; /* a slot's strip has come */
};

constexpr size_t kTeamBytes = (size_t)kSlots * kSlotBytes + sizeof(team_shared);

#if FB_HAVE_WGMMA

/* What the warp fetches next through the ring. */
struct strip_feed {
    int problem, step, place, slot;
    const char *from, *values; /* the lane's part of the first tile of the step's tensor */
};

/* What the warps visit while the team works at a head, in this order: the head's keys and queries,
 * half of the next head's queries, keys and values in turn, the other half, the next head's keys,
 * queries. Keys that are kept do not come through the ring. */
enum feed_step {
    FLOW_KEYS,
    FLOW_QUERIES,
    NEXT_QUERIES,
    PRODUCT_TILES,
    LAST_QUERIES,
    NEXT_KEYS,
    SINK_QUERIES,
    FEED_STEPS
};

struct team_block {
    const team_arguments &a;
    char *ring;
    team_shared &own;
    int teams, rank, first; /* the block's first token */
    int early;              /* tiles of the next head's queries that come before the product */
    int lane_row;           /* of a tile, that the lane copies first */
    uint32_t lane_place;    /* its offset in the tile */
    strip_feed feed;
    int slot;        /* of the ring that is visited next */
    uint32_t rounds; /* a bit per slot: the parity of what it waits for */
    lane_places at;

    __device__ team_block(const team_arguments &arguments, char *shared)
        : a(arguments), ring(shared),
          own(*reinterpret_cast<team_shared *>(shared + kSlots * kSlotBytes)), rounds(0)
    {
        teams = (int)gridDim.x / a.ranks;
        rank = (int)blockIdx.x % a.ranks;
        first = rank * a.tiles * kSlotTokens;
        early = (a.tiles + 1) / 2;
        lane_row = (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 8;
        lane_place = chunk_offset(lane_row, (int)threadIdx.x % 8);
        slot = feed.slot = a.kept;
        if (threadIdx.x % 32 == 0) {
            for (int i = 0; i < kSlots; i++)
                barrier_init(barrier_of(i), 32);
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        }
        __syncwarp();
        feed.problem = (int)blockIdx.x / a.ranks - teams; /* none yet: only the next one's tiles */
        feed.step = NEXT_QUERIES - 1;
        feed.place = a.tiles;
        settle();
        keep_keys(feed.problem + teams);
#pragma unroll 1
        for (int i = a.kept; i < kSlots; i++)
            fetch();
    }

    __device__ uint32_t barrier_of(int index) const
    {
        return shared_address(&own.barriers[threadIdx.x / 32][index]);
    }

    __device__ char *strip_of(int index) const
    {
        return ring + index * kSlotBytes + (int)threadIdx.x / 32 * 16 * kRowBytes;
    }

    /* The lane's 16 bytes of the row that it copies first of its head's first tile. */
    __device__ const char *start_of(team_tensor which, int b, int h) const
    {
        const head_rows<__nv_bfloat16> x =
            rows_of<__nv_bfloat16>(a.in[which], b, h, first + lane_row);
        return reinterpret_cast<const char *>(x.data + 8 * (threadIdx.x % 8));
    }

    /* Four rows of the lane, four rows apart; in its place, four rows on is the other half. */
    __device__ void copy(team_tensor which, const char *start, int tile, int to_slot)
    {
        const int row = first + tile * kSlotTokens + lane_row;
        const int rows = (which == TEAM_Q ? a.q_len : a.kv_len) - row;
        const int64_t step = 8 * a.in[which].stride_n; /* bytes of four rows */
        const char *from = start + tile * (kSlotTokens / 4) * step;
        const uint32_t to = shared_address(ring) + to_slot * kSlotBytes + lane_place;
        if (__all_sync(0xffffffffU, rows > 12)) {
#pragma unroll
            for (int i = 0; i < 4; i++, from += step)
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                                 (to ^ (uint32_t)(i % 2 * 64)) + (uint32_t)(i * 4 * kRowBytes)),
                             "l"(from));
        } else {
#pragma unroll 1
            for (int i = 0; i < 4; i++, from += step)
                copy_chunk_async((to ^ (uint32_t)(i % 2 * 64)) + (uint32_t)(i * 4 * kRowBytes),
                                 4 * i < rows ? from : static_cast<const char *>(a.in[which].data),
                                 4 * i < rows);
        }
        asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier_of(to_slot))
                     : "memory");
    }

    __device__ const char *start_of(team_tensor which, int problem) const
    {
        const int h = problem % a.heads;
        return start_of(which, problem / a.heads, which == TEAM_Q ? h : h / a.group);
    }

    /* The keys of a head that stay in their slots. */
    __device__ void keep_keys(int problem)
    {
        if (problem >= a.problems || a.kept == 0)
            return;
        const char *start = start_of(TEAM_K, problem);
#pragma unroll 1
        for (int i = 0; i < a.kept; i++)
            copy(TEAM_K, start, i, i);
    }

    /* On to the next step with tiles, after the last of this one. */
    __device__ void settle()
    {
        int end = feed.step == PRODUCT_TILES  ? 2 * a.tiles
                  : feed.step == NEXT_QUERIES ? early
                                              : a.tiles;
        while (feed.place >= end) {
            if (++feed.step == FEED_STEPS) {
                feed.step = 0;
                feed.problem += teams;
                if (feed.problem >= a.problems)
                    return;
            }
            const bool next =
                feed.step == NEXT_QUERIES || feed.step == LAST_QUERIES || feed.step == NEXT_KEYS;
            const bool keys = feed.step == FLOW_KEYS || feed.step == NEXT_KEYS;
            const int problem = feed.problem + (next ? teams : 0);
            feed.place = keys                                       ? a.kept
                         : feed.step == LAST_QUERIES                ? early
                         : feed.step == PRODUCT_TILES && a.kept > 0 ? 1
                                                                    : 0;
            end = feed.step == PRODUCT_TILES  ? 2 * a.tiles
                  : feed.step == NEXT_QUERIES ? early
                                              : a.tiles;
            if (problem < 0 || problem >= a.problems) {
                feed.place = end;
            } else if (feed.place < end) {
                feed.from = start_of(keys || feed.step == PRODUCT_TILES ? TEAM_K : TEAM_Q, problem);
                if (feed.step == PRODUCT_TILES)
                    feed.values = start_of(TEAM_V, problem);
            }
        }
    }

    /* The next strip into the slot of the ring that was visited longest ago. */
    __device__ void fetch()
    {
        if (feed.problem >= a.problems)
            return;
        team_tensor which = feed.step == FLOW_KEYS || feed.step == NEXT_KEYS ? TEAM_K : TEAM_Q;
        const char *from = feed.from;
        int tile = feed.place, step = 1;
        if (feed.step == PRODUCT_TILES) {
            which = tile % 2 == 0 ? TEAM_K : TEAM_V;
            from = tile % 2 == 0 ? feed.from : feed.values;
            tile /= 2;
            step = which == TEAM_V && tile + 1 < a.kept ? 2 : 1;
        }
        copy(which, from, tile, feed.slot);
        feed.slot = feed.slot + 1 == kSlots ? a.kept : feed.slot + 1;
        feed.place += step;
        settle();
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
        slot = slot + 1 == kSlots ? a.kept : slot + 1;
        return taken;
    }

    /* phi of the next strip, whose slot is free at once. */
    template <typename T> __device__ void take_phi(strip_values &phi)
    {
        uint32_t raw[4][4];
        load_strip(raw, shared_address(strip_of(take())), at);
        __syncwarp();
        fetch();
        map_loaded<T>(phi, raw);
    }

    /* phi of the warp's keys of a tile, the first time they are visited. */
    template <typename T> __device__ void take_new_keys(strip_values &phi, int tile)
    {
        if (tile >= a.kept) {
            take_phi<T>(phi);
            return;
        }
        uint32_t raw[4][4];
        const uint32_t strip = shared_address(strip_of(tile));
        await_slot(tile);
        load_strip(raw, strip, at);
        map_loaded<T>(phi, raw);
        pack_strip<T>(raw, phi);
        __syncwarp();
        store_strip(strip, raw, at);
    }

    /* Of a tile that is kept, later on. */
    template <typename T> __device__ void take_kept(strip_values &phi, int tile)
    {
        uint32_t raw[4][4];
        load_strip(raw, shared_address(strip_of(tile)), at);
        unpack_strip<T>(phi, raw);
    }

    /* 1 for the lane's rows of the warp's strip of the tile that exist: g and g + 8. */
    __device__ strip_dots exist(int tile, int length) const
    {
        const int row =
            first + tile * kSlotTokens + (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4;
        return {row < length ? 1.0F : 0.0F, row + 8 < length ? 1.0F : 0.0F};
    }
};

#endif

} // namespace

#endif
