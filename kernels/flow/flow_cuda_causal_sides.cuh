/*
 * The steps of causal Flow-Attention's gradient in clusters: bf16, heads of 64, Hopper. A block has
 * a chunk of 64 tokens, four warps its queries and four its keys, a strip of 16 tokens each with
 * phi in f32 in registers. What comes before and after the chunk the blocks of a cluster send to
 * one another. flow_cuda_causal_sides.cu makes a kernel of them and tells the algorithm.
 *
 * The two sides take the same steps with the tensors changed over. Of a block's tiles side s has
 * those of index s: its own phi, high and low halves, `value` (dout for queries, v for keys), the
 * state that it sums up (R for queries, M for keys) and the parts of it that other blocks send.
 */
#ifndef FB_FLOW_CUDA_CAUSAL_SIDES_CUH
#define FB_FLOW_CUDA_CAUSAL_SIDES_CUH

#include "cuda_exchange.cuh"
#include "flow_cuda_causal_strips.cuh"

namespace
{

constexpr int kTeamThreads = 2 * kChunkThreads, kTeams = 2, kTeamWarps = kTeamThreads / 32;
constexpr int kSidesThreads = kTeams * kTeamThreads;
constexpr int kSidesRanks = FB_FLOW_CUDA_RANKS_MAX;
static_assert(kChunk == FB_FLOW_CUDA_SIDES_TOKENS, "the plan counts in chunks");

enum { QUERIES, KEYS };
enum { OWN_TILE = 0, LOW_TILE = 2, VALUE_TILE = 4, STATE_OF = 6, PARTS_OF = 8, SIDES_TILES = 10 };

/* What blocks send to one another; the first three before a chunk, the last three after it. */
enum exchange_name { SUMS, FLOWS, WEIGHTS, PRODUCT, PARTS, STATES, AFTER_C, AFTER_O, AFTER_A };
constexpr int kExchanges = AFTER_A + 1;

/* Numbers of the chunk's tokens, where INVERSE + side is n / a or n / b, WEIGHT + side r or p. */
enum { INVERSE, WEIGHT = 2, OF_C = 4, OF_O, OF_A, OF_B, EXPONENTIAL, RUNNING, SIDES_ARRAYS };

/* What is kept of a chunk between the two walks: a, c of the queries, b, E, Z of the keys, and four
 * vectors. */
constexpr int kRecordScalars = 5 * kChunk, kRecord = kRecordScalars + 4 * kDim;
static_assert(kRecord == FB_FLOW_CUDA_SIDES_RECORD, "the plan makes room for records");

struct sides_gradient {
    gradient_round round;
    int64_t segments; /* stretches of ranks * kChunk tokens */
    float *records;   /* [units][(segments - 1) * ranks][kRecord] */
    double *carried;  /* [units][2][kDim * kDim]: R after, M before the segment */
};

/* Where the sums of an exchange lie that a side carries from segment to segment. */
__device__ inline int carried_of(exchange_name name, int side)
{
    switch (name) {
    case SUMS:
        return side * kDim;
    case FLOWS:
        return (2 + side) * kDim;
    case AFTER_O:
        return 4 * kDim;
    case AFTER_A:
        return 6 * kDim;
    case AFTER_C:
        return 7 * kDim;
    default: /* WEIGHTS */
        return 8 * kDim + 1;
    }
}
constexpr int kCarried = 8 * kDim + 2;

/* Behind the tiles. Buffers are used in turns: before a block sends into one again, all blocks have
 * sent something that they send after reading it. */
struct sides_shared {
    alignas(16) float arrived[2][kSidesRanks][2][kDim];
    alignas(16) float part[2][2][kChunkWarps][kDim]; /* of the strips, for two vectors */
    alignas(16) uint32_t packed[2][2][kDim / 2]; /* a vector of each side, in halves, by lanes */
    float vectors[CHUNK_VECTORS][kDim];
    float array[SIDES_ARRAYS][kChunk];
    careful_sum carried[kCarried]; /* from segment to segment, by carried_of */
    unsigned long long barriers[kExchanges];
};

/* Of a team, so that tiles start at multiples of 1024. */
constexpr size_t kTeamBytes =
    ((size_t)SIDES_TILES * kChunkTile + sizeof(sides_shared) + 1023) / 1024 * 1024;
constexpr size_t kSidesBytes = kTeams * kTeamBytes;

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

__device__ inline void step_threads(int barrier, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

/* Until a round's bytes have come. What comes lies in the block's own shared memory: an acquire for
 * the block alone leaves the first-level cache as it is. */
__device__ inline void await_sent(unsigned long long *barrier, uint32_t round)
{
    const uint32_t address = shared_address(barrier);
    uint32_t done = 0;
    while (done == 0)
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(address), "r"(round)
                     : "memory");
}

/* Of the sums that a block sends to each of them: four entries of two vectors of 64. */
__device__ inline int fours_of(int name)
{
    switch (name) {
    case WEIGHTS:
        return 1;
    case AFTER_A:
        return kDim / 4;
    case AFTER_C:
        return kDim / 4 + 1;
    default:
        return 2 * kDim / 4;
    }
}

/* Bytes that a round of an exchange brings a block. */
__device__ inline int exchange_bytes(int name, int ranks)
{
    switch (name) {
    case PRODUCT:
        return kChunkTile;
    case PARTS:
    case STATES:
        return 2 * kChunkTile;
    default:
        return ranks * fours_of(name) * 16;
    }
}

/* What a thread knows throughout. */
struct sides_block {
    strip_place s;
    char *tiles;
    sides_shared *own;
    int team, index;             /* of the team's threads */
    int side, thread;            /* of the side's */
    int rank, ranks, share_bits; /* of the cluster's teams; one joins 64 / ranks = 1 << share_bits
                                    rows of the states */
    int b, h;
    bool alone;      /* there is one segment */
    uint32_t rounds; /* a bit per exchange */

    /* Where the thread stands, anew: what follows from it is then not kept in registers, of which
     * there are too few, from step to step. */
    __device__ void place()
    {
        extern __shared__ __align__(1024) char sides_tiles[];
        unsigned own_thread = threadIdx.x;
        asm volatile("" : "+r"(own_thread));
        /* the same in all lanes, as the compiler can see */
        const int warp = __shfl_sync(0xffffffffU, (int)(own_thread / 32), 0);
        team = warp / kTeamWarps;
        index = (int)(own_thread % kTeamThreads);
        side = warp / kChunkWarps % 2;
        thread = (int)(own_thread % kChunkThreads);
        s = strip_place(own_thread);
        s.warp = warp % kChunkWarps;
        s.row = 16 * s.warp;
        tiles = sides_tiles + team * kTeamBytes;
        own = reinterpret_cast<sides_shared *>(tiles + SIDES_TILES * kChunkTile);
    }
    /* The team, or one of its sides, in step. */
    __device__ void step_team() const
    {
        step_threads(1 + 3 * team, kTeamThreads);
    }
    __device__ void step_side() const
    {
        step_threads(2 + 3 * team + side, kChunkThreads);
    }
    /* Steps with the other side, which has something to wait for: racecheck of compute-sanitizer
     * loses count of a team whose sides step unevenly. */
    __device__ void keep_step(int times) const
    {
        for (int i = 0; i < times; i++)
            step_side();
    }
    /* The same place of another team. */
    __device__ uint32_t of_team(uint32_t address, int other) const
    {
        uint32_t remote; /* volatile: not to be kept for the next time */
        asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                     : "=r"(remote)
                     : "r"(address + (uint32_t)((other % kTeams - team) * (int)kTeamBytes)),
                       "r"(other / kTeams));
        return remote;
    }
    __device__ char *tile(int kind, int of) const
    {
        return tiles + (kind + of) * kChunkTile;
    }
    __device__ void await_exchange(exchange_name name)
    {
        await_sent(&own->barriers[name], rounds >> name & 1U);
        rounds ^= 1U << name;
    }
    /* For an exchange's next round; by one thread that has awaited the last. */
    __device__ void ready(exchange_name name) const
    {
        expect_again(&own->barriers[name], exchange_bytes(name, ranks));
    }
};

__device__ inline float *part_of(const sides_block &x, int buffer, int which)
{
    return x.own->part[buffer][which][x.s.warp];
}

/* A pair of numbers as bf16, and what they leave. */
__device__ inline void split_pair(uint32_t &high, uint32_t &low, float x, float y)
{
    high = pack_bf16(x, y);
    low = pack_bf16(x - bf16_low(high), y - bf16_high(high));
}

/* Sums over the strip's rows of weight (NULL: 1) phi, from their halves, as the strip's part of a
 * vector. Row 0 of an operand holds the weights. */
__device__ inline void sum_rows_of(const sides_block &x, int buffer, int which, const float *weight)
{
    const strip_place &s = x.s;
    const uint32_t high = shared_address(s.own(x.tile(OWN_TILE, x.side))),
                   low = shared_address(s.own(x.tile(LOW_TILE, x.side)));
    uint32_t w[4] = {}, w_low[4] = {};
    __syncwarp(); /* phi and weights of other lanes */
    if (s.g == 0) {
        float2 even = {1.0F, 1.0F}, odd = even;
        if (weight != nullptr) {
            even = *reinterpret_cast<const float2 *>(weight + s.row + 2 * s.t);
            odd = *reinterpret_cast<const float2 *>(weight + s.row + 2 * s.t + 8);
        }
        split_pair(w[0], w_low[0], even.x, even.y);
        split_pair(w[2], w_low[2], odd.x, odd.y);
    }
    __syncwarp();
    float *to = part_of(x, buffer, which) + 2 * s.t;
#pragma unroll
    for (int block = 0; block < 4; block++) {
        uint32_t b[4], b_low[4];
        load_b(b, high, s.at, block);
        load_b(b_low, low, s.at, block);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum[4] = {};
            multiply(sum, w_low, b[2 * half], b[2 * half + 1]);
            multiply(sum, w, b_low[2 * half], b_low[2 * half + 1]);
            multiply(sum, w, b[2 * half], b[2 * half + 1]);
            if (s.g == 0)
                *reinterpret_cast<float2 *>(to + 16 * block + 8 * half) =
                    make_float2(sum[0], sum[1]);
        }
    }
}

__device__ inline void send_chunk(uint32_t to, uint32_t barrier, uint4 x)
{
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], "
                 "{%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w), "r"(barrier)
                 : "memory");
}

/* Sends four entries of the chunk's sums to another block; the strips have left theirs. */
__device__ inline void send_four(const sides_block &x, exchange_name name, int buffer, int four,
                                 int other)
{
    const int which = four / (kDim / 4), col = four % (kDim / 4) * 4;
    float4 total = {};
#pragma unroll
    for (int warp = 0; warp < kChunkWarps; warp++) {
        const float4 part =
            *reinterpret_cast<const float4 *>(&x.own->part[buffer][which][warp][col]);
        total.x += part.x;
        total.y += part.y;
        total.z += part.z;
        total.w += part.w;
    }
    const uint4 bits = {__float_as_uint(total.x), __float_as_uint(total.y),
                        __float_as_uint(total.z), __float_as_uint(total.w)};
    send_chunk(x.of_team(shared_address(&x.own->arrived[buffer][x.rank][which][col]), other),
               x.of_team(shared_address(&x.own->barriers[name]), other), bits);
}

/* The same for all entries and blocks, by the whole block, which is in step. */
__device__ inline void send_vectors(const sides_block &x, exchange_name name, int buffer)
{
    const int four = x.index % 32;
    if (four >= fours_of(name))
        return;
#pragma unroll 1
    for (int other = x.index / 32; other < x.ranks; other += kTeamWarps)
        send_four(x, name, buffer, four, other);
}

/* Takes `count` entries from `first` on, by this side, as what comes before the chunk (or after
 * it). The side is in step after. */
/* An entry of the side's vector, as b of a product with two columns, its halves: a lane's numbers,
 * two of each 8 columns, stand together. */
__device__ inline void put_packed(const sides_block &x, int col, float value)
{
    const int at = 2 * (col % 8 / 2 * 8 + col / 8) + col % 2;
    const __nv_bfloat16 high = __float2bfloat16_rn(value);
    reinterpret_cast<__nv_bfloat16 *>(x.own->packed[x.side][0])[at] = high;
    reinterpret_cast<__nv_bfloat16 *>(x.own->packed[x.side][1])[at] =
        __float2bfloat16_rn(value - __bfloat162float(high));
}

template <bool After>
__device__ void take_vectors(sides_block &x, exchange_name name, int buffer, int first, int count,
                             float *vectors)
{
    const bool by_keys = name == WEIGHTS || name == AFTER_C || name == AFTER_A;
    x.await_exchange(name);
    if (x.thread == 0 && x.side == (by_keys ? KEYS : QUERIES))
        x.ready(name);
    if (x.thread < count) {
        const float *from = &x.own->arrived[buffer][0][0][0] + first + x.thread;
        float before = 0.0F, all = 0.0F;
#pragma unroll 1
        for (int i = 0; i < x.ranks; i += 4) { /* four reads at a time */
            float sum[4];
#pragma unroll
            for (int k = 0; k < 4; k++)
                sum[k] = from[(After ? x.ranks - 1 - i - k : i + k) * 2 * kDim];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                before = (After ? x.ranks - 1 - i - k : i + k) == x.rank ? all : before;
                all += sum[k];
            }
        }
        careful_sum &carried = x.own->carried[carried_of(name, x.side) + x.thread];
        before += x.alone ? 0.0F : carried.value;
        vectors[x.thread] = before;
        if (name == AFTER_O && x.thread >= kDim)
            put_packed(x, x.thread - kDim, before);
        else if (name != AFTER_O && name != WEIGHTS && x.thread < kDim)
            put_packed(x, x.thread, After ? before : before + kEps);
        if (!x.alone)
            carried.add(all);
    }
    x.step_side();
}

#endif

} // namespace

#endif
