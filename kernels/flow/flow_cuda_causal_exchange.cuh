/*
 * What the blocks of a cluster tell one another in causal Flow-Attention: sums over tokens before
 * each warp, in place of totals. bf16 and f16, head dimension 64, Hopper.
 *
 * f16 takes powers of two with it, which f32 leaves behind: sums over the tokens before, states and
 * scores one that falls with the position, so that they fit at any length; flows, p and a squad's
 * product a constant one. bf16 has the exponents of f32 and takes none.
 */
#ifndef FB_FLOW_CUDA_CAUSAL_EXCHANGE_CUH
#define FB_FLOW_CUDA_CAUSAL_EXCHANGE_CUH

#include "cuda_exchange.cuh"
#include "cuda_pair_products.cuh"
#include "cuda_wgmma.cuh"
#include "flow_cuda_causal_saved.cuh"
#include "flow_cuda_shape.cuh"
#include "flow_cuda_strip.cuh"

namespace
{

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps; /* of a squad */
constexpr int kOwn = 32;              /* tokens of a warp */
constexpr int kChunkBytes = 2 * kOwn * kRowBytes;
constexpr int kTokens = kOwn * kWarps; /* of a squad and segment */
constexpr int kTileBytes = kTokens * kRowBytes;
constexpr int kSquads = FB_FLOW_CUDA_CAUSAL_SQUADS_MAX; /* of a block */
constexpr int kRanks = FB_FLOW_CUDA_CAUSAL_RANKS_MAX;   /* squads of a cluster */
constexpr int kQuads = kDim * kDim / 4;                 /* of entries of M, as exchanged */
static_assert(kTokens == FB_FLOW_CUDA_CAUSAL_TOKENS, "the plan counts in blocks");
static_assert(4 * kThreads == kQuads && kThreads >= 2 * kDim, "a thread has four quads of M");

struct causal_cluster_arguments {
    tensor_view q, k, v, out;
    int heads, group;
    int64_t length, segments; /* tokens; stretches of ranks * kTokens */
    float clamp;
    float *carried; /* [heads][2][kDim * kDim] M before the segment and its rounding errors */
    causal_saved saved;
};
static_assert(kSavedDim == kDim && kSavedChunk == 2 * kOwn, "two warps have a saved chunk");

/* Exponents of these powers, of f16. v is at most 16000 or so: what is not exact then is p v, its
 * sums over a squad and over a head, which are four times the largest v times n / 2^magnitude. */
constexpr int kFlowExponent = -6;    /* of alpha and beta, which are 1 / 64 at least */
constexpr int kShareExponent = -2;   /* of p, which is 8 at most with a clamp of 1 */
constexpr int kProductExponent = -4; /* of k^T (p v) over a squad's tokens */
constexpr int kSumExponent = 8;      /* less the magnitude: of ck, cq, u, w */
constexpr int kStateExponent = 4;    /* likewise: of M, and of scores, which are added to q M */

/* A number as two of 16 bits, each twice. */
struct __align__(8) split_pair
{
    uint32_t high, low;
};

enum exchange_name { SUMS, FLOWS, NORMALISER, PRODUCT, STATE, EXCHANGES };

/* A squad's shared memory behind its tiles. What other squads write comes first. A squad's product
 * arrives when it has spent its sums and flows: who sends it has this squad's z, which was sent
 * after. The next segment's sums arrive when it has spent the product: see share_state. */
struct causal_shared {
    union {
        struct {
            float sums[kRanks][2][kDim];  /* of phi(k), phi(q), by rank */
            float flows[kRanks][2][kDim]; /* u, w, by rank */
        };
        uint2 product[kQuads]; /* by rank: its part of this squad's share of M, 16 bits */
    };
    float z[kRanks * kWarps]; /* by rank and warp */
    union {
        float parts[kWarps][2][kDim]; /* sums over a warp's tokens */
        struct {                      /* when they are spent */
            uint4 rest[2][2 * 4];     /* what 16 bits leave of the sums before, where that counts */
            split_pair share[kOwn];   /* p */
        } spent[kWarps];
    };
    uint4 before[kWarps][2][2 * 4]; /* the sums over all tokens before a warp's, see place_before */
    float alpha[kTokens];           /* n / a, then r = sigmoid(c) / a */
    float beta[kTokens];            /* n / b */
    unsigned long long barriers[EXCHANGES];
};

/* A warp's part of k^T (p v) of each chunk: 16 rows, 32 columns. */
typedef float chunk_products[4][4][4];

/* The thread's number. What follows from it is computed anew, not kept in registers. */
__device__ inline int thread_anew()
{
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

/* Tiles that tensor cores read as they are start at multiples of 1024. */
constexpr int kSquadBytes = (3 * kTileBytes + (int)sizeof(causal_shared) + 1023) / 1024 * 1024;

/* The squads of a cluster: ranks count the blocks first, so that few tokens spread over them. */
struct squad_place {
    int blocks, ranks, squad, rank;
    __device__ squad_place()
        : blocks((int)gridDim.x), ranks(blocks * ((int)blockDim.x / kThreads)),
          squad(thread_anew() / kThreads), rank((int)blockIdx.x + squad * blocks)
    {
    }
    /* The squad's threads are in step. */
    __device__ void sync() const
    {
        asm volatile("bar.sync %0, %1;" ::"r"(1 + squad), "n"(kThreads) : "memory");
    }
};

/* Where a thread stands. The warps of a chunk share a scheduler, so that the second's longer rows
 * are spread over all of them. */
struct warp_place {
    lane_places at;
    int thread, lane, g, t, chunk, half, order, first; /* thread: of the squad */
    __device__ warp_place()
        : thread(thread_anew() % kThreads), lane(thread % 32), g(lane / 4), t(lane % 4),
          chunk(thread / 32 % 4), half(thread / 128), order(2 * chunk + half), first(kOwn * order)
    {
    }
};

/* The squad's tokens of a segment: the first, and how many there are. */
struct segment_place {
    int64_t start;
    int valid;
    __device__ segment_place(const causal_cluster_arguments &a, const squad_place &o,
                             int64_t segment)
        : start((segment * o.ranks + o.rank) * kTokens), valid(0)
    {
        const int64_t left = a.length - start;
        valid = left < 0 ? 0 : left < kTokens ? (int)left : kTokens;
    }
};

/* A segment as a thread of a squad sees it. Every pass makes its own: what it needs is computed
 * anew instead of occupying registers between the passes. */
struct squad_segment {
    squad_place o;
    warp_place w;
    segment_place at;
    char *tiles; /* of k, q, v */
    causal_shared *own;
    int64_t index;
    bool last;
    __device__ squad_segment(const causal_cluster_arguments &a, char *shared, int64_t segment)
        : at(a, o, segment), tiles(shared + o.squad * kSquadBytes),
          own(reinterpret_cast<causal_shared *>(tiles + 3 * kTileBytes)), index(segment),
          last(segment + 1 == a.segments)
    {
    }
    __device__ uint32_t round() const
    {
        return (uint32_t)(index % 2);
    }
    /* The warp's rows of keys (0), queries (1), values (2). */
    __device__ uint32_t rows(int tile) const
    {
        return shared_address(tiles + tile * kTileBytes) + (uint32_t)(w.first * kRowBytes);
    }
    /* The row of which the lane computes numbers: of the squad, and how many tokens the head has up
     * to it. */
    __device__ int row() const
    {
        return w.first + 8 * w.t + w.g;
    }
    __device__ float count() const
    {
        return (float)(at.start + row() + 1);
    }
    __device__ bool valid() const
    {
        return row() < at.valid;
    }
    /* Of the squad's chunks of 64 tokens the first, of the head's, and how many have a token. */
    __device__ int64_t chunk() const
    {
        return at.start / kSavedChunk;
    }
    __device__ int chunks() const
    {
        return (at.valid + kSavedChunk - 1) / kSavedChunk;
    }
    /* The head has 2^magnitude tokens at most up to the squad's last. */
    __device__ int magnitude() const
    {
        static_assert(kTokens == 256, "2^8 tokens in the first squad");
        return 40 - __clz((int)(index * o.ranks + o.rank));
    }
};

/* The two warps of a chunk are in step. */
__device__ inline void sync_chunk(const squad_place &o, const warp_place &w)
{
    asm volatile("bar.sync %0, 64;" ::"r"(3 + 4 * o.squad + w.chunk) : "memory");
}

#if FB_HAVE_WGMMA

/* A sum that is carried from segment to segment. */
struct carried_sum {
    float value, error;
    __device__ void add(float x)
    {
        careful_sum sum = {value, error};
        sum.add(x);
        value = sum.value;
        error = sum.error;
    }
};

__device__ void store_matrices(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address),
                 "r"(a), "r"(b), "r"(c), "r"(d)
                 : "memory");
}

/* The same place in the shared memory of another squad. */
__device__ uint32_t place_at(uint32_t address, int rank, const squad_place &o)
{
    const int squad = rank >= o.blocks ? 1 : 0;
    return remote_address(address + (uint32_t)((squad - o.squad) * kSquadBytes),
                          rank - squad * o.blocks);
}

/* Every squad does so at its start, and waits for the others before it sends. */
__device__ void ready_exchanges(causal_shared *own, int ranks)
{
    if (threadIdx.x % kThreads == 0) {
        expect(&own->barriers[SUMS], ranks * (int)sizeof own->sums[0]);
        expect(&own->barriers[FLOWS], ranks * (int)sizeof own->flows[0]);
        expect(&own->barriers[NORMALISER], ranks * kWarps * (int)sizeof(float));
        expect(&own->barriers[PRODUCT], (int)sizeof own->product);
        expect(&own->barriers[STATE], kDim * kDim * (int)sizeof(float), ranks * kWarps);
    }
    announce_barriers();
}

/* ---- vectors --------------------------------------------------------------------------------- */

/* The squad's sum to every squad. The squad is in step before. */
__device__ void send_parts(causal_shared *own, const squad_place &o, exchange_name name,
                           float (*sums)[2][kDim], const warp_place &w)
{
    const int side = w.thread / kDim, col = w.thread % kDim;
    if (side > 1)
        return;
    float total = 0.0F;
#pragma unroll
    for (int i = 0; i < kWarps; i++)
        total += own->parts[i][side][col];
    const uint32_t to = shared_address(&sums[o.rank][side][col]);
    const uint32_t barrier = shared_address(&own->barriers[name]);
#pragma unroll
    for (int other = 0; other < kRanks; other++)
        if (other < o.ranks)
            send(place_at(to, other, o), place_at(barrier, other, o), total);
}

/* Where a column of a sum stands among 16-bit numbers: as operand b of a product, a lane's eight
 * registers side by side. */
__device__ int place_before(int col)
{
    return col / 2 % 4 * 16 + col / 8 * 2 + col % 2;
}

/* A sum over tokens before, plus eps, as it becomes an operand. */
template <typename T> __device__ float sum_operand(float before, float scale)
{
    return bounded<T>(kNarrow<T> ? (before + kEps) * scale : before + kEps);
}

/* From the parts of the warps, the sums over all tokens before each of them, plus eps, and what 16
 * bits leave of them, if anything is saved: those before `chunks` chunks, as they are, the thread's
 * of the first at `saved`. The squad is in step after. */
template <typename T, bool Saves>
__device__ void join_parts(causal_shared *own, const squad_place &o, exchange_name name,
                           float (*sums)[2][kDim], carried_sum &carried, uint32_t round,
                           float scale, float *saved, int chunks, const warp_place &w)
{
    const int side = w.thread / kDim, col = w.thread % kDim;
    const bool has = side < 2;
    uint32_t rest[kWarps / 2]; /* of two warps each */
    if (has) {
        await_round(&own->barriers[name], round);
        if (w.thread == 0)
            expect_again(&own->barriers[name], o.ranks * (int)sizeof sums[0]);
        float before = 0.0F, all = 0.0F, left[2];
#pragma unroll
        for (int other = 0; other < kRanks; other++)
            if (other < o.ranks) {
                before = other == o.rank ? all : before;
                all += sums[other][side][col];
            }
        before += carried.value;
        carried.add(all);
#pragma unroll
        for (int i = 0; i < kWarps; i++) {
            const float operand = sum_operand<T>(before, scale);
            const T high = from_f32<T>(operand);
            reinterpret_cast<T *>(own->before[i][side])[place_before(col)] = high;
            left[i % 2] = operand - to_f32(high);
            if (i % 2 == 1)
                rest[i / 2] = pack_pair<T>(left[0], left[1]);
            if (Saves && i % 2 == 0 && i / 2 < chunks)
                saved[i / 2 * kSavedVectors] = before;
            before += own->parts[i][side][col];
        }
    }
    if constexpr (Saves) {
        o.sync(); /* what 16 bits leave takes the parts' place */
        if (has)
#pragma unroll
            for (int i = 0; i < kWarps; i++)
                reinterpret_cast<uint16_t *>(own->spent[i].rest[side])[place_before(col)] =
                    (uint16_t)(rest[i / 2] >> i % 2 * 16);
    }
    o.sync();
}

/* ---- normaliser ------------------------------------------------------------------------------ */

/* A number of row 8 t + g of each lane, in the order of the rows. */
__device__ float in_order(float x, const warp_place &w)
{
    return __shfl_sync(0xffffffffU, x, w.lane % 8 * 4 + w.lane / 8);
}

template <typename T> __device__ split_pair split_of(float x)
{
    const uint32_t high = pack_pair<T>(x, x);
    const float rest = x - low_of<T>(high);
    return {high, pack_pair<T>(rest, rest)};
}

/* Sums of E from the warp's first token to each; the last lane's to every squad. */
__device__ float send_normaliser(causal_shared *own, const squad_place &o, float e,
                                 const warp_place &w)
{
    float sum = e;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const float left = __shfl_up_sync(0xffffffffU, sum, step);
        sum += w.lane >= step ? left : 0.0F;
    }
    const float total = __shfl_sync(0xffffffffU, sum, 31);
    if (w.lane < o.ranks)
        send(place_at(shared_address(&own->z[o.rank * kWarps + w.order]), w.lane, o),
             place_at(shared_address(&own->barriers[NORMALISER]), w.lane, o), total);
    return sum;
}

/* The sum of E over the tokens before the warp's; z: before the segment, and then before the next.
 */
__device__ double join_normaliser(causal_shared *own, const squad_place &o, double &z,
                                  uint32_t round, const warp_place &w)
{
    static_assert(kRanks * kWarps == 64, "a lane has two of them");
    await_round(&own->barriers[NORMALISER], round);
    if (w.thread == 0)
        expect_again(&own->barriers[NORMALISER], o.ranks * kWarps * (int)sizeof(float));
    const int mine = o.rank * kWarps + w.order, end = o.ranks * kWarps;
    const float low = w.lane < end ? own->z[w.lane] : 0.0F;
    const float high = w.lane + 32 < end ? own->z[w.lane + 32] : 0.0F;
    float before = (w.lane < mine ? low : 0.0F) + (w.lane + 32 < mine ? high : 0.0F);
    float all = low + high;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        before += __shfl_xor_sync(0xffffffffU, before, step);
        all += __shfl_xor_sync(0xffffffffU, all, step);
    }
    const double start = z + (double)before;
    z += (double)all;
    return start;
}

/* ---- state ----------------------------------------------------------------------------------- */

/* Where a thread finds one of its four quads of M before the squad: within what its warp will write
 * of the first two chunks' states, and no two of eight lanes in one bank. */
__device__ uint32_t quad_offset(int thread, int quad)
{
    const int warp = thread / 32, i = quad % 2 * 32 + thread % 32;
    const int row = warp % 4 * 16 + i / 32 * 8 + i / 4 % 2 * 4 + i / 8 % 4;
    return (uint32_t)(quad / 2 * kChunkBytes) + chunk_offset(row, warp / 4 * 4 + i % 4);
}

/* Threads whose quads a squad owns are a power of two, since ranks are. */
__device__ int share_bits(int ranks)
{
    return 31 - __clz(kThreads / kRanks) + (__clz(ranks) - __clz(kRanks));
}

/* The thread's sum over the squad's chunks to the squad that owns it: an equal share of the threads
 * each. */
template <typename T>
__device__ void send_product(causal_shared *own, const squad_place &o, const chunk_products &sum,
                             const warp_place &w)
{
    const int bits = share_bits(o.ranks), share = 1 << bits, owner = w.thread >> bits;
    const int place = o.rank * 4 * share + (w.thread & (share - 1));
    const uint32_t to = place_at(shared_address(own->product + place), owner, o);
    const uint32_t barrier = place_at(shared_address(&own->barriers[PRODUCT]), owner, o);
#pragma unroll
    for (int n = 0; n < 4; n++) {
        float all[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            all[j] = (sum[0][n][j] + sum[1][n][j]) + (sum[2][n][j] + sum[3][n][j]);
        if constexpr (kNarrow<T>)
#pragma unroll
            for (int j = 0; j < 4; j++)
                all[j] *= power<kProductExponent>();
        send_pair(to + (uint32_t)(n * share * (int)sizeof(uint2)), barrier,
                  pack_pair<T>(all[0], all[1]), pack_pair<T>(all[2], all[3]));
    }
}

struct quad {
    float x[4];
    template <typename T> __device__ void add(uint2 y)
    {
        const float z[4] = {low_of<T>(y.x), high_of<T>(y.x), low_of<T>(y.y), high_of<T>(y.y)};
#pragma unroll
        for (int i = 0; i < 4; i++)
            if constexpr (kNarrow<T>)
                x[i] = fmaf(z[i], power<-kProductExponent>(), x[i]);
            else
                x[i] += z[i];
    }
};

/* What the squads before each, and the segments before, add up to, of this squad's share, to each;
 * into the tile at the address, which no squad needs any more when it has sent its part. Warps tell
 * each squad when they have read the parts, whose place its next sums take. */
template <typename T>
__device__ void share_state(causal_shared *own, const squad_place &o, uint32_t tile, float *carried,
                            bool first, bool last, uint32_t round, const warp_place &w)
{
    const int bits = share_bits(o.ranks), share = 1 << bits;
    const uint32_t state = shared_address(&own->barriers[STATE]);
    quad *kept = reinterpret_cast<quad *>(carried) + o.rank * 4 * share;
    quad *kept_error = kept + kQuads;
    quad value = {}, error = {};
    if (!first && w.thread < 4 * share) { /* on their way while this waits */
        value = kept[w.thread];
        error = kept_error[w.thread];
    }
    await_round(&own->barriers[PRODUCT], round);
    if (w.thread == 0)
        expect_again(&own->barriers[PRODUCT], (int)sizeof own->product);
    for (int i = w.thread; i < 4 * share; i += kThreads) {
        const uint32_t to = tile + quad_offset(o.rank * share + (i & (share - 1)), i >> bits);
        quad all = {};
        if (i != w.thread) {
            value = first ? quad{} : kept[i];
            error = first ? quad{} : kept_error[i];
        }
#pragma unroll
        for (int other = 0; other < kRanks; other++)
            if (other < o.ranks) {
                send_quad(place_at(to, other, o), place_at(state, other, o), value.x[0] + all.x[0],
                          value.x[1] + all.x[1], value.x[2] + all.x[2], value.x[3] + all.x[3]);
                all.add<T>(own->product[other * 4 * share + i]);
            }
        if (last)
            continue;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            carried_sum sum = {value.x[j], error.x[j]};
            sum.add(all.x[j]);
            value.x[j] = sum.value;
            error.x[j] = sum.error;
        }
        kept[i] = value;
        kept_error[i] = error;
    }
    __syncwarp();
    if (w.lane < o.ranks)
        send_arrival(place_at(state, w.lane, o));
}

/* The warp's part of M for the gradient: a thread has eight columns of two rows, which stand in it
 * as scale_values has left those of v. */
template <typename T>
__device__ void save_state(const causal_saved &saved, int64_t segment, const float (&state)[4][4],
                           const warp_place &w)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float row[8];
#pragma unroll
        for (int i = 0; i < 8; i++)
            row[i] = state[i / 2][2 * half + i % 2];
        saved_eight eight = saved_eight::of(row);
        if constexpr (kNarrow<T>)
            eight.factor *= power<-kShareExponent>();
        saved.put_eight(segment, 16 * w.chunk + 8 * half + w.g, 4 * w.half + w.t, eight);
    }
}

/* The states before the squad's chunks, in place of its keys: the warp's part of each. The first is
 * that before the gradient's segment, if one starts here (0: none). */
template <typename T, bool Saves>
__device__ void leave_states(causal_shared *own, char *tile, const chunk_products &sum,
                             uint32_t round, float scale, const causal_saved &saved,
                             int64_t segment, const warp_place &w)
{
    float state[4][4];
    await_round(&own->barriers[STATE], round);
    if (w.thread == 0)
        expect_again(&own->barriers[STATE], kDim * kDim * (int)sizeof(float));
#pragma unroll
    for (int n = 0; n < 4; n++) {
        const float4 x = *reinterpret_cast<const float4 *>(tile + quad_offset(w.thread, n));
        state[n][0] = x.x;
        state[n][1] = x.y;
        state[n][2] = x.z;
        state[n][3] = x.w;
    }
    if (Saves && segment > 0)
        save_state<T>(saved, segment, state, w);
    if constexpr (kNarrow<T>)
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                state[n][j] *= scale;
    __syncwarp();
    const uint32_t to = shared_address(tile) + w.chunk * 16 * kRowBytes;
#pragma unroll
    for (int chunk = 0; chunk < 4; chunk++) {
#pragma unroll
        for (int n = 0; n < 4; n += 2)
            store_matrices(
                to + chunk * kChunkBytes + (w.at.straight ^ (uint32_t)((2 * w.half + n / 2) << 5)),
                pack_pair<T>(state[n][0], state[n][1]), pack_pair<T>(state[n][2], state[n][3]),
                pack_pair<T>(state[n + 1][0], state[n + 1][1]),
                pack_pair<T>(state[n + 1][2], state[n + 1][3]));
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                if constexpr (kNarrow<T>)
                    state[n][j] = fmaf(sum[chunk][n][j], scale, state[n][j]);
                else
                    state[n][j] += sum[chunk][n][j];
    }
}

#endif

} // namespace

#endif
