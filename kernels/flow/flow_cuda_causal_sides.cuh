/*
 * The steps of causal Flow-Attention's gradient in clusters: bf16 and f16, heads of 64, Hopper. A
 * block has a chunk of 64 tokens, four warps its queries and four its keys, a strip of 16 tokens
 * each with phi in f32 in registers. What comes before and after the chunk the blocks of a cluster
 * send to one another. flow_cuda_causal_sides.cu makes a kernel of them and tells the algorithm.
 *
 * In f16 operands take powers of two with them, which f32 leaves behind: those of the exponents
 * below, which keep what grows or falls with the position within its range at any length.
 *
 * The two sides take the same steps with the tensors changed over. Of a block's tiles side s has
 * those of index s: its own phi, high and low halves, `value` (dout for queries, v for keys), the
 * state that it sums up (R for queries, M for keys) and the parts of it that other blocks send.
 */
#ifndef FB_FLOW_CUDA_CAUSAL_SIDES_CUH
#define FB_FLOW_CUDA_CAUSAL_SIDES_CUH

#include "cuda_exchange.cuh"
#include "cuda_wgmma.cuh"
#include "flow_cuda_causal_saved.cuh"
#include "flow_cuda_causal_strips.cuh"

namespace
{

constexpr int kTeamThreads = 2 * kChunkThreads, kTeamWarps = kTeamThreads / 32;
constexpr int kTeams = FB_FLOW_CUDA_SIDES_TEAMS;
constexpr int kSidesThreads = kTeams * kTeamThreads;
constexpr int kSidesRanks = FB_FLOW_CUDA_RANKS_MAX;
static_assert(kChunk == FB_FLOW_CUDA_SIDES_TOKENS, "the plan counts in chunks");
static_assert(kSavedChunk == kChunk && kSavedDim == kDim, "a forward call saves what is needed");
static_assert(kSavedVectors == kTeamThreads, "a thread takes an entry");

enum { QUERIES, KEYS };
enum { OWN_TILE = 0, LOW_TILE = 2, VALUE_TILE = 4, STATE_OF = 6, PARTS_OF = 8, SIDES_TILES = 10 };

/* In f16: of n / a and n / b as weights of sums; of p; of vectors after the chunk, of gradients of
 * scalars, and of dq and dk before the slopes of phi. */
constexpr int kInverseExponent = -4, kShareExponent = -4, kSlopeExponent = 2;

/* What blocks send to one another; the first three before a chunk, the last three after it. */
enum exchange_name { SUMS, FLOWS, WEIGHTS, PRODUCT, PARTS, STATES, AFTER_C, AFTER_O, AFTER_A };
constexpr int kExchanges = AFTER_A + 1;

/* Numbers of the chunk's tokens, where INVERSE + side is n / a or n / b, WEIGHT + side r or p. */
enum { INVERSE, WEIGHT = 2, OF_C = 4, OF_O, OF_A, OF_B, EXPONENTIAL, RUNNING, SIDES_ARRAYS };

struct sides_gradient {
    gradient_round round;
    bool whole;       /* every row starts on 16 bytes */
    int64_t segments; /* stretches of ranks * kChunk tokens */
    causal_saved saved;
    double *carried; /* [units][kDim * kDim]: R after the segment; M before it, walking forwards */
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
    /* Operands of products, hence first. Of a side: columns of weights of its tokens, in halves,
     * and four vectors, in halves, twice. */
    char weights[2][8 * kRowBytes], terms[2][16 * kRowBytes];
    alignas(16) float arrived[2][kSidesRanks][2][kDim];
    alignas(16) float part[2][2][kDim]; /* the chunk's sums, two vectors */
    /* Two vectors of each side, each in halves, by lanes. */
    alignas(16) uint32_t packed[2][4][kDim / 2];
    float vectors[CHUNK_VECTORS][kDim];
    float array[SIDES_ARRAYS][kChunk];
    careful_sum carried[kCarried]; /* from segment to segment, by carried_of */
    unsigned long long barriers[kExchanges];
    alignas(16) int faint[kTeamWarps]; /* whether a flow of the warp's strip is */
};

/* Of a team, so that tiles start at multiples of 1024. */
constexpr size_t kTeamBytes =
    ((size_t)SIDES_TILES * kChunkTile + sizeof(sides_shared) + 1023) / 1024 * 1024;
constexpr size_t kSidesBytes = kTeams * kTeamBytes;
static_assert(kSidesBytes <= 227 * 1024, "both teams fit");

#if FB_HAVE_WGMMA

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
    int chunk;       /* of the head */
    bool alone;      /* there is one segment */
    uint32_t rounds; /* a bit per exchange; and kFaintChunk */

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
    /* The head has 2^magnitude tokens at most up to the chunk's last. */
    __device__ int magnitude() const
    {
        static_assert(kChunk == 64, "2^6 tokens in the first chunk");
        return 38 - __clz(chunk);
    }
    /* In f16: of r and R; that of M and h is its negative. Of the tokens up to the segment's last,
     * since the blocks add theirs up. */
    __device__ int state_exponent() const
    {
        return 38 - __clz(chunk | (ranks - 1)) - 3;
    }
    /* Of gradients of scalars as operands: these fall faster than the position grows. */
    __device__ int scalar_exponent() const
    {
        return magnitude() * 5 / 4 - 5;
    }
    /* Of vectors before the chunk, which these scalars are multiplied with. */
    __device__ int before_exponent() const
    {
        return kSlopeExponent - scalar_exponent();
    }
    /* Whether one of the chunk's flows is faint, as flow_cuda_causal_sides_faint.cuh tells: from
     * what its strips have marked. The team is in step before. */
    static constexpr uint32_t kFaintChunk = 1U << 31;
    __device__ void note_faint()
    {
        static_assert(kTeamWarps == 8 && kExchanges < 31, "two reads, and a bit is left");
        const int4 *marks = reinterpret_cast<const int4 *>(own->faint);
        const int4 first = marks[0], second = marks[1];
        const int any =
            (first.x | first.y | first.z | first.w) | (second.x | second.y | second.z | second.w);
        rounds = any != 0 ? rounds | kFaintChunk : rounds & ~kFaintChunk;
    }
    __device__ bool faint() const
    {
        return (rounds & kFaintChunk) != 0;
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
    /* The keys wait for what the queries have left before; these go on. */
    __device__ void tell_keys() const
    {
        asm volatile("bar.arrive %0, %1;" ::"r"(7 + team), "n"(kTeamThreads) : "memory");
    }
    __device__ void await_queries() const
    {
        step_threads(7 + team, kTeamThreads);
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

constexpr uint64_t kStepColumns = 2, kStepRows = 16 * kRowBytes / 16; /* of a described tile */

/* A pair of numbers as 16-bit numbers, and what they leave. */
template <typename T> __device__ void split_pair(uint32_t &high, uint32_t &low, float x, float y)
{
    high = pack_pair<T>(x, y);
    low = pack_pair<T>(x - low_of<T>(high), y - high_of<T>(high));
}

/* ---- sums over tokens ------------------------------------------------------------------------ */

template <typename T> struct half_pair {
    T high, low;
    __device__ explicit half_pair(float x)
        : high(from_f32<T>(x)), low(from_f32<T>(x - to_f32(high)))
    {
    }
};

template <typename T> __device__ T &entry_of(char *tile, int row, int col)
{
    return *reinterpret_cast<T *>(tile + chunk_offset(row, col / 8) + col % 8 * 2);
}

/* Columns of the side's weights: what is to be summed, and ones. */
enum { FIRST_WEIGHTS, SECOND_WEIGHTS, ONES = 3 };

template <typename T>
__device__ void put_weight(const sides_block &x, int column, int token, float weight)
{
    const half_pair<T> w(weight);
    entry_of<T>(x.own->weights[x.side], 2 * column, token) = w.high;
    entry_of<T>(x.own->weights[x.side], 2 * column + 1, token) = w.low;
}

/* Numbers of the lane's rows as weights, for sum_columns. */
template <typename T> __device__ void put_weights(const sides_block &x, int column, strip_dots w)
{
    if (x.s.t == 0) {
        put_weight<T>(x, column, x.s.row + x.s.g, w.low);
        put_weight<T>(x, column, x.s.row + x.s.g + 8, w.high);
    }
}

#define FB_ADD_COLUMNS(type)                                                                       \
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32." type "." type                        \
                 " {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 1, 0;"                                       \
                 : FB_WGMMA_C1(0)                                                                  \
                 : "l"(a), "l"(b))

/* c[64][8] += a[16][64]^T b[8][16]^T: rows of a along the depth. */
template <typename T> __device__ void add_columns(float (&c)[1][4], uint64_t a, uint64_t b)
{
    if constexpr (kNarrow<T>)
        FB_ADD_COLUMNS("f16");
    else
        FB_ADD_COLUMNS("bf16");
}

/* eps times the sum of a column of a side's weights; a call, for it is rarely taken. */
template <typename T> __device__ __noinline__ float lift_of_column(char *weights, int column)
{
    float sum = 0.0F;
#pragma unroll 1
    for (int token = 0; token < kChunk; token++)
        sum += to_f32(entry_of<T>(weights, 2 * column, token)) +
               to_f32(entry_of<T>(weights, 2 * column + 1, token));
    return kEps * sum;
}

/* The side's sums over tokens of weight phi, in halves, of `count` columns of weights from `first`
 * on, as the chunk's part of vectors; undo: takes back what the weights have with them; lifted: of
 * weight (phi + eps). The weights are published here. */
template <typename T>
__device__ void sum_columns(const sides_block &x, int buffer, int vector, int first, int count,
                            float undo, bool lifted)
{
    float sum[1][4] = {};
    publish_shared();
    x.step_side();
    const uint64_t high = wgmma_tile(shared_address(x.tile(OWN_TILE, x.side))),
                   low = wgmma_tile(shared_address(x.tile(LOW_TILE, x.side))),
                   weights = wgmma_tile(shared_address(x.own->weights[x.side]));
    wgmma_hold(sum);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < 4; step++)
        add_columns<T>(sum, low + step * kStepRows, weights + step * kStepColumns);
#pragma unroll
    for (int step = 0; step < 4; step++)
        add_columns<T>(sum, high + step * kStepRows, weights + step * kStepColumns);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(sum);
    const int column = x.s.t - first;
    if (column < 0 || column >= count)
        return;
    float *to = x.own->part[buffer][vector + column] + x.s.row + x.s.g;
    const float lift = lifted ? lift_of_column<T>(x.own->weights[x.side], x.s.t) : 0.0F;
    to[0] = (sum[0][0] + sum[0][1] + lift) * undo;
    to[8] = (sum[0][2] + sum[0][3] + lift) * undo;
}

/* ---- exchanges ------------------------------------------------------------------------------- */

__device__ inline void send_chunk(uint32_t to, uint32_t barrier, uint4 x)
{
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], "
                 "{%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w), "r"(barrier)
                 : "memory");
}

/* Sends four entries of the chunk's sums to another block, which the side has left; of a sum of
 * numbers the strips have left a part each. */
__device__ inline void send_four(const sides_block &x, exchange_name name, int buffer, int four,
                                 int other)
{
    const int which = four / (kDim / 4), col = four % (kDim / 4) * 4;
    float4 total = *reinterpret_cast<const float4 *>(&x.own->part[buffer][which][col]);
    if (name == WEIGHTS || (name == AFTER_C && which == 1))
        total.x = (total.x + total.y) + (total.z + total.w);
    const uint4 bits = {__float_as_uint(total.x), __float_as_uint(total.y),
                        __float_as_uint(total.z), __float_as_uint(total.w)};
    send_chunk(x.of_team(shared_address(&x.own->arrived[buffer][x.rank][which][col]), other),
               x.of_team(shared_address(&x.own->barriers[name]), other), bits);
}

/* The same for all entries and blocks, by the whole team, which is in step, or by a side. */
__device__ inline void send_vectors(const sides_block &x, exchange_name name, int buffer,
                                    bool by_team = true)
{
    const int four = x.index % 32;
    if (four >= fours_of(name))
        return;
#pragma unroll 1
    for (int other = (by_team ? x.index : x.thread) / 32; other < x.ranks;
         other += by_team ? kTeamWarps : kChunkWarps)
        send_four(x, name, buffer, four, other);
}

/* An entry of a side's first or second vector, as b of a product with two columns for each, its
 * halves: a lane's numbers, two of each 8 columns, stand together. */
template <typename T>
__device__ void put_packed(const sides_block &x, int side, int which, int col, half_pair<T> value)
{
    const int at = 2 * (col % 8 / 2 * 8 + col / 8) + col % 2;
    reinterpret_cast<T *>(x.own->packed[side][2 * which])[at] = value.high;
    reinterpret_cast<T *>(x.own->packed[side][2 * which + 1])[at] = value.low;
}

/* An entry of a vector that the rows of an output are weighted sums of, see weigh_terms. */
template <typename T>
__device__ void put_term(const sides_block &x, int vector, int col, half_pair<T> value)
{
    constexpr uint32_t of_keys = 1U << CQ | 1U << W | 1U << DU | 1U << AS;
    const int term = vector == U || vector == W     ? 0
                     : vector == CK || vector == CQ ? 1
                     : vector == DW || vector == DU ? 2
                                                    : 3;
    char *tile = x.own->terms[of_keys >> vector & 1U];
#pragma unroll
    for (int twice = 0; twice < 2; twice++) {
        entry_of<T>(tile + twice * 8 * kRowBytes, 2 * term, col) = value.high;
        entry_of<T>(tile + twice * 8 * kRowBytes, 2 * term + 1, col) = value.low;
    }
}

/* Takes `count` entries from `first` on, by this side, as what comes before the chunk (or after
 * it): vectors from `to` on. The side is in step after. */
template <typename T, bool After>
__device__ void take_vectors(sides_block &x, exchange_name name, int buffer, int first, int count,
                             chunk_vector to)
{
    const bool by_keys = name == WEIGHTS || name == AFTER_C || name == AFTER_A;
    x.await_exchange(name);
    if (x.thread == 0 && x.side == (by_keys ? KEYS : QUERIES))
        x.ready(name);
    careful_sum &carried = x.own->carried[carried_of(name, x.side) + x.thread % (2 * kDim)];
    float all = 0.0F;
    if (x.thread < count) {
        const float *from = &x.own->arrived[buffer][0][0][0] + first + x.thread;
        float before = 0.0F;
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
        before += x.alone ? 0.0F : carried.value;
        x.own->vectors[to][x.thread] = before;
        if (name != WEIGHTS && (name == AFTER_O || x.thread < kDim)) {
            const half_pair<T> halves(After ? before * taken<T>(kSlopeExponent)
                                            : (before + kEps) * taken<T>(x.before_exponent()));
            put_term<T>(x, to + x.thread / kDim, x.thread % kDim, halves);
            if (name != AFTER_O || x.thread >= kDim)
                put_packed<T>(x, x.side, 0, x.thread % kDim, halves);
        }
    }
    publish_shared();
    x.step_side();
    if (x.thread < count && !x.alone)
        carried.add(all);
}

#endif

} // namespace

#endif
