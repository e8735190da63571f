/*
 * The passes of causal Flow-Attention over tiles in shared memory, and what the blocks of a cluster
 * exchange between them: bf16, head dimension 64, Hopper. flow_cuda_causal_cluster.cu makes a
 * kernel of them and tells the algorithm.
 *
 * A warp owns a chunk of 64 tokens; chunks follow one another in the order of the ranks and warps.
 * Side 0 is the keys, side 1 the queries.
 */
#ifndef FB_FLOW_CUDA_CAUSAL_CLUSTER_CUH
#define FB_FLOW_CUDA_CAUSAL_CLUSTER_CUH

#include "cuda_exchange.cuh"
#include "flow_cuda_shape.cuh"
#include "flow_cuda_strip.cuh"

namespace
{

constexpr int kChunk = 64;
constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kTokens = kChunk * kWarps; /* of a block and segment */
constexpr int kTileBytes = kTokens * kRowBytes;
constexpr int kChunkBytes = kChunk * kRowBytes;
constexpr int kRanks = FB_FLOW_CUDA_CAUSAL_RANKS_MAX;
constexpr int kHalf = kDim * kDim / 2; /* entries of half of M, as exchanged */
static_assert(kTokens == FB_FLOW_CUDA_CAUSAL_TOKENS, "the plan counts in blocks");
static_assert(kThreads == 2 * kDim, "a thread per side and column");

struct causal_cluster_arguments {
    tensor_view q, k, v, out;
    int heads, group;
    int64_t length, segments; /* tokens; stretches of ranks * kTokens */
    float clamp;
    float *carried; /* [heads][2][kDim * kDim] M before the segment and its rounding errors */
};

enum exchange_name { SUMS, FLOWS, NORMALISER, PRODUCT, STATE, EXCHANGES };

/* What the other blocks write comes first. A block's product arrives when it has spent its sums and
 * flows: who sends it has this block's z, which was sent after. */
struct causal_shared {
    union {
        struct {
            float sums[kRanks][2][kDim];  /* of phi(k), phi(q), by rank */
            float flows[kRanks][2][kDim]; /* u, w, by rank */
        };
        float product[kHalf]; /* by rank: its part of this block's share of half of M */
    };
    float z[kRanks];
    unsigned long long barriers[EXCHANGES];
    float sum_parts[kWarps][2]
                   [kDim]; /* of a warp's chunk; then the sum over all tokens before it */
    float flow_parts[kWarps][2][kDim];
    float warp_z[kWarps];
    float alpha[kTokens]; /* n / a, then r = sigmoid(c) / a */
    float beta[kTokens];  /* n / b */
    float share[kTokens]; /* E, then p */
};

struct causal_tiles {
    char *q, *k, *v; /* [kTokens][64] bf16 */
    causal_shared *own;
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

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

__device__ void fetch_tile(char *tile, const tensor_view &view, int64_t b, int64_t h, int64_t first,
                           int valid)
{
    constexpr int step = kThreads / 8; /* rows; a multiple of 8, so that a chunk keeps its place */
    const head_rows<__nv_bfloat16> x = rows_of<__nv_bfloat16>(view, b, h, first);
    const int own = threadIdx.x / 8, chunk = threadIdx.x % 8;
    const __nv_bfloat16 *from = x.data + own * x.stride + 8 * chunk;
    uint32_t to = shared_address(tile) + chunk_offset(own, chunk);
#pragma unroll 4
    for (int row = own; row < kTokens; row += step) {
        /* rows beyond the end are not read: the address is that of the tensor */
        copy_chunk_async(to, row < valid ? from : static_cast<__nv_bfloat16 *>(view.data),
                         row < valid);
        to += step * kRowBytes;
        from += step * x.stride;
    }
}

/* The next row of a lane that visits every fourth: its chunk's place is the other one of its two.
 */
__device__ char *four_rows_on(char *at)
{
    return reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(at) ^ 64) + 4 * kRowBytes);
}

/* phi of the warp's chunk in place, rows from `valid` on zero; its column sums into sum_parts. */
__device__ void map_chunk(char *tile, int first, int valid, causal_shared *own, int side)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, chunk = lane % 8;
    float sum[8] = {};
    char *at = tile + chunk_offset(first + lane / 8, chunk);
#pragma unroll 4
    for (int row = first + lane / 8; row < first + kChunk; row += 4, at = four_rows_on(at)) {
        uint4 x = *reinterpret_cast<uint4 *>(at);
        uint32_t *pairs = reinterpret_cast<uint32_t *>(&x);
        if (row < valid) {
#pragma unroll
            for (int i = 0; i < 4; i += 2) {
                float y[4] = {bf16_low(pairs[i]), bf16_high(pairs[i]), bf16_low(pairs[i + 1]),
                              bf16_high(pairs[i + 1])};
                sigmoids(y);
                pairs[i] = pack_bf16(y[0], y[1]);
                pairs[i + 1] = pack_bf16(y[2], y[3]);
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum[2 * i + j] += y[j];
            }
        }
        *reinterpret_cast<uint4 *>(at) = row < valid ? x : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        sum[i] += __shfl_xor_sync(0xffffffffU, sum[i], 8);
        sum[i] += __shfl_xor_sync(0xffffffffU, sum[i], 16);
        if (lane < 8)
            own->sum_parts[warp][side][8 * chunk + i] = sum[i];
    }
}

/* p v of the warp's chunk, in place. */
__device__ void scale_values(char *tile, int first, const float *share)
{
    const int lane = threadIdx.x % 32;
    char *at = tile + chunk_offset(first + lane / 8, lane % 8);
#pragma unroll 4
    for (int row = first + lane / 8; row < first + kChunk; row += 4, at = four_rows_on(at)) {
        uint4 x = *reinterpret_cast<uint4 *>(at);
        uint32_t *pairs = reinterpret_cast<uint32_t *>(&x);
        const float p = share[row];
#pragma unroll
        for (int i = 0; i < 4; i++)
            pairs[i] = pack_bf16(p * bf16_low(pairs[i]), p * bf16_high(pairs[i]));
        *reinterpret_cast<uint4 *>(at) = x;
    }
}

/* The parts of the warps' chunks become the sums over all tokens before each of them. */
__device__ void join_parts(causal_shared *own, int rank, int ranks, exchange_name name,
                           float (*own_parts)[2][kDim], float (*parts)[2][kDim],
                           carried_sum &carried, uint32_t round)
{
    __syncthreads();
    const int side = threadIdx.x / kDim, col = threadIdx.x % kDim;
    float total = 0.0F;
#pragma unroll
    for (int warp = 0; warp < kWarps; warp++)
        total += own_parts[warp][side][col];
    const uint32_t to = shared_address(&parts[rank][side][col]);
    const uint32_t barrier = shared_address(&own->barriers[name]);
    for (int other = 0; other < ranks; other++)
        send(remote_address(to, other), remote_address(barrier, other), total);
    await_round(&own->barriers[name], round);
    if (threadIdx.x == 0)
        expect_again(&own->barriers[name], ranks * (int)sizeof own->sums[0]);
    float before = 0.0F, all = 0.0F;
    for (int other = 0; other < ranks; other++) {
        before = other == rank ? all : before;
        all += parts[other][side][col];
    }
    before += carried.value;
    carried.add(all);
#pragma unroll
    for (int warp = 0; warp < kWarps; warp++) {
        const float part = own_parts[warp][side][col];
        own_parts[warp][side][col] = before;
        before += part;
    }
    __syncthreads();
}

/* ---- sums over the triangle ------------------------------------------------------------------ */

/* The lower triangle of x y^T of a chunk as bf16: strip, block of 8 columns, rows g and g + 8. */
typedef uint32_t packed_triangle[4][8][2];

/* The products of a strip of x with the strips of y that its rows see; zero beyond the diagonal. */
template <int Strip>
__device__ void strip_scores(float (&c)[2 * Strip + 2][4], const uint32_t (&a)[4][4], uint32_t y,
                             const lane_places &at)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int block = 0; block <= Strip; block++)
#pragma unroll
        for (int step = 0; step < 4; step++) {
            uint32_t b[4];
            load_b_turned(b, y + block * 16 * kRowBytes, at, step);
            multiply(c[2 * block], a[step], b[0], b[1]);
            multiply(c[2 * block + 1], a[step], b[2], b[3]);
        }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (8 * i + 2 * t + j % 2 > g + j / 2 * 8)
                c[2 * Strip + i][j] = 0.0F;
}

/* Of a strip's rows g (low) and g + 8 (high), in every lane: the sum over the triangle of weight
 * (NULL: 1) times x y^T, and x times the vector. */
template <int Strip>
__device__ strip_dots strip_sums(uint32_t x, uint32_t y, const lane_places &at,
                                 const vector_operand &v, const float *weight,
                                 packed_triangle *kept)
{
    const int t = threadIdx.x % 4;
    uint32_t a[4][4];
    float c[2 * Strip + 2][4] = {};
    load_strip(a, x + Strip * 16 * kRowBytes, at);
    strip_dots sum = dot_strip(a, v); /* zero but in the lanes with t = 0 */
    strip_scores<Strip>(c, a, y, at);
#pragma unroll
    for (int n = 0; n < 2 * Strip + 2; n++) {
        float2 w = {1.0F, 1.0F};
        if (weight != nullptr)
            w = *reinterpret_cast<const float2 *>(weight + 8 * n + 2 * t);
        sum.low = fmaf(c[n][0], w.x, fmaf(c[n][1], w.y, sum.low));
        sum.high = fmaf(c[n][2], w.x, fmaf(c[n][3], w.y, sum.high));
        if (kept != nullptr) {
            (*kept)[Strip][n][0] = pack_bf16(c[n][0], c[n][1]);
            (*kept)[Strip][n][1] = pack_bf16(c[n][2], c[n][3]);
        }
    }
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
        sum.low += __shfl_xor_sync(0xffffffffU, sum.low, step);
        sum.high += __shfl_xor_sync(0xffffffffU, sum.high, step);
    }
    return sum;
}

__device__ void chunk_sums(strip_dots (&sums)[4], uint32_t x, uint32_t y, const float *before,
                           const float *weight, packed_triangle *kept)
{
    const lane_places at;
    const vector_operand v(before, kEps);
    const float constant = eps_term(before);
    sums[0] = strip_sums<0>(x, y, at, v, weight, kept);
    sums[1] = strip_sums<1>(x, y, at, v, weight, kept);
    sums[2] = strip_sums<2>(x, y, at, v, weight, kept);
    sums[3] = strip_sums<3>(x, y, at, v, weight, kept);
#pragma unroll
    for (int strip = 0; strip < 4; strip++) {
        sums[strip].low += constant;
        sums[strip].high += constant;
    }
}

/* n / a of the queries or n / b of the keys of the warp's chunk, and the sum of its rows so
 * weighted into flow_parts. n: of the chunk's first token. */
__device__ void flow_chunk(const causal_tiles &x, int first, int valid, float n, int side)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const lane_places at;
    const uint32_t keys = shared_address(x.k) + first * kRowBytes;
    const uint32_t queries = shared_address(x.q) + first * kRowBytes;
    const uint32_t own = side == 0 ? keys : queries;
    float *flow = (side == 0 ? x.own->beta : x.own->alpha) + first;
    strip_dots sums[4];
    chunk_sums(sums, own, side == 0 ? queries : keys, x.own->sum_parts[warp][1 - side], nullptr,
               nullptr);
    float sum[8][4] = {};
#pragma unroll
    for (int strip = 0; strip < 4; strip++) {
        const int row = 16 * strip + g;
        uint32_t weights[4];
        const float low = first + row < valid ? (n + row) * reciprocal(sums[strip].low) : 0.0F;
        const float high =
            first + row + 8 < valid ? (n + row + 8) * reciprocal(sums[strip].high) : 0.0F;
        if (t == 0) {
            flow[row] = low;
            flow[row + 8] = high;
        }
        weight_operand(weights, low, high);
#pragma unroll
        for (int block = 0; block < 4; block++) {
            uint32_t b[4];
            load_b(b, own + strip * 16 * kRowBytes, at, block);
            multiply(sum[2 * block], weights, b[0], b[1]);
            multiply(sum[2 * block + 1], weights, b[2], b[3]);
        }
    }
    if (g == 0)
#pragma unroll
        for (int n8 = 0; n8 < 8; n8++)
            *reinterpret_cast<float2 *>(&x.own->flow_parts[warp][side][8 * n8 + 2 * t]) =
                make_float2(sum[n8][0], sum[n8][1]);
}

/* E of the chunk's keys, or r of its queries with the lower triangle of q k^T. */
__device__ void conserve_chunk(const causal_tiles &x, int first, int valid, float n, float clamp,
                               int side, packed_triangle &kept)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const uint32_t keys = shared_address(x.k) + first * kRowBytes;
    const uint32_t queries = shared_address(x.q) + first * kRowBytes;
    strip_dots sums[4];
    chunk_sums(sums, side == 0 ? keys : queries, side == 0 ? queries : keys,
               x.own->flow_parts[warp][1 - side], (side == 0 ? x.own->alpha : x.own->beta) + first,
               &kept);
    if (t != 0)
        return;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int row = first + i / 2 * 16 + i % 2 * 8 + g;
        const float inverse = reciprocal(n + (float)(row - first));
        const float conserved = (i % 2 == 0 ? sums[i / 2].low : sums[i / 2].high) * inverse;
        if (side == 0)
            x.own->share[row] = row < valid ? __expf(fminf(fmaxf(conserved, -clamp), clamp)) : 0.0F;
        else
            x.own->alpha[row] *= sigmoid_of(conserved) * inverse;
    }
}

/* p of the chunk from its E; z: what all tokens before this segment have, and then those in it. */
__device__ void compete_chunk(causal_shared *own, int rank, int ranks, int first, float n,
                              double &z, uint32_t round)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float2 *share = reinterpret_cast<float2 *>(own->share + first) + lane;
    const float2 e = *share;
    float sum = e.x + e.y;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const float left = __shfl_up_sync(0xffffffffU, sum, step);
        sum += lane >= step ? left : 0.0F;
    }
    if (lane == 31)
        own->warp_z[warp] = sum;
    __syncthreads();
    float before = 0.0F, total = 0.0F;
#pragma unroll
    for (int other = 0; other < kWarps; other++) {
        before = other == warp ? total : before;
        total += own->warp_z[other];
    }
    if ((int)threadIdx.x < ranks)
        send(remote_address(shared_address(&own->z[rank]), (int)threadIdx.x),
             remote_address(shared_address(&own->barriers[NORMALISER]), (int)threadIdx.x), total);
    await_round(&own->barriers[NORMALISER], round);
    if (threadIdx.x == 0)
        expect_again(&own->barriers[NORMALISER], ranks * (int)sizeof(float));
    double all = 0.0;
    for (int other = 0; other < ranks; other++) {
        before += other < rank ? own->z[other] : 0.0F;
        all += (double)own->z[other];
    }
    const float up_to = (float)(z + (double)(before + sum));
    n += (float)(2 * lane);
    *share = make_float2(n * e.x * reciprocal(up_to - e.y), (n + 1.0F) * e.y * reciprocal(up_to));
    z += all;
    __syncwarp();
}

/* ---- product --------------------------------------------------------------------------------- */

/* k^T (p v) over the block's chunks: a warp computes 16 rows. What the chunks before the second,
 * third ... add up to is left in place of the keys of the first, second ... */
__device__ void multiply_chunks(const causal_tiles &x, float (&sum)[8][4])
{
    const int warp = threadIdx.x / 32;
    const lane_places at;
    uint32_t keys = shared_address(x.k), values = shared_address(x.v);
#pragma unroll 1
    for (int chunk = 0; chunk < kWarps; chunk++) {
        __syncthreads(); /* every warp has spent the keys of the chunk before */
        if (chunk > 0) {
            char *to = x.k + (chunk - 1) * kChunkBytes + warp * 16 * kRowBytes;
#pragma unroll
            for (int n = 0; n < 8; n++) {
                char *place = to + (at.result ^ (uint32_t)(n << 4));
                *reinterpret_cast<uint32_t *>(place) = pack_bf16(sum[n][0], sum[n][1]);
                *reinterpret_cast<uint32_t *>(place + 8 * kRowBytes) =
                    pack_bf16(sum[n][2], sum[n][3]);
            }
        }
#pragma unroll
        for (int step = 0; step < 4; step++) {
            uint32_t a[4];
            load_a_turned(a, keys, at, warp);
#pragma unroll
            for (int block = 0; block < 4; block++) {
                uint32_t b[4];
                load_b(b, values, at, block);
                multiply(sum[2 * block], a, b[0], b[1]);
                multiply(sum[2 * block + 1], a, b[2], b[3]);
            }
            keys += 16 * kRowBytes;
            values += 16 * kRowBytes;
        }
    }
    __syncthreads();
}

/* Half of the columns of M: every block sends its part to the blocks that own a share of it; they
 * return to each what the blocks before it, and the segments before, add up to: bf16, in place of
 * the keys of the last chunk, which no block needs any more when it has sent its part. */
__device__ void exchange_half(const causal_tiles &x, int rank, int ranks, int half,
                              const float (&sum)[8][4], float *carried, bool first_segment,
                              uint32_t round)
{
    causal_shared *own = x.own;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int share = kHalf / ranks;
    const uint32_t product = shared_address(&own->barriers[PRODUCT]);
    const uint32_t state = shared_address(&own->barriers[STATE]);
    const uint32_t slot = shared_address(own->product + rank * share);
    const uint32_t tile = shared_address(x.k + (kWarps - 1) * kChunkBytes);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = warp * 16 + g + 8 * i, owner = row * (kDim / 2) / share;
        const uint32_t to = remote_address(slot, owner), barrier = remote_address(product, owner);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const int entry = row * (kDim / 2) + 8 * n + 2 * t - owner * share;
            const float(&y)[4] = half == 0 ? sum[n] : sum[4 + n];
            send_pair(to + 4 * (uint32_t)entry, barrier, __float_as_uint(y[2 * i]),
                      __float_as_uint(y[2 * i + 1]));
        }
    }
    await_round(&own->barriers[PRODUCT], round);
    if (threadIdx.x == 0)
        expect_again(&own->barriers[PRODUCT], kHalf * (int)sizeof(float));
    for (int i = 2 * (int)threadIdx.x; i < share; i += 2 * kThreads) {
        const int row = (rank * share + i) / (kDim / 2), col = half * (kDim / 2) + i % (kDim / 2);
        const uint32_t to = tile + chunk_offset(row, col / 8) + (uint32_t)(col % 8 * 2);
        float2 *kept = reinterpret_cast<float2 *>(carried + row * kDim + col);
        float2 *kept_error = kept + kDim * kDim / 2;
        float2 part[kRanks];
#pragma unroll
        for (int other = 0; other < kRanks; other++)
            if (other < ranks)
                part[other] = *reinterpret_cast<const float2 *>(own->product + other * share + i);
        const float2 none = {0.0F, 0.0F};
        const float2 value = first_segment ? none : *kept;
        const float2 error = first_segment ? none : *kept_error;
        float2 all = none;
#pragma unroll
        for (int other = 0; other < kRanks; other++)
            if (other < ranks) {
                send(remote_address(to, other), remote_address(state, other),
                     __uint_as_float(pack_bf16(value.x + all.x, value.y + all.y)));
                all = make_float2(all.x + part[other].x, all.y + part[other].y);
            }
        carried_sum low = {value.x, error.x}, high = {value.y, error.y};
        low.add(all.x);
        high.add(all.y);
        *kept = make_float2(low.value, high.value);
        *kept_error = make_float2(low.error, high.error);
    }
    await_round(&own->barriers[STATE], round);
    if (threadIdx.x == 0)
        expect_again(&own->barriers[STATE], kHalf * (int)sizeof(__nv_bfloat16));
}

/* ---- out ------------------------------------------------------------------------------------- */

/* y += two strips of a times a tile of 64 rows. */
__device__ void multiply_strips(float (&y)[2][8][4], const uint32_t (&a)[2][4][4], uint32_t tile,
                                const lane_places &at)
{
#pragma unroll
    for (int step = 0; step < 4; step++)
#pragma unroll
        for (int block = 0; block < 4; block++) {
            uint32_t b[4];
            load_b(b, tile + step * 16 * kRowBytes, at, block);
#pragma unroll
            for (int strip = 0; strip < 2; strip++) {
                multiply(y[strip][2 * block], a[strip][step], b[0], b[1]);
                multiply(y[strip][2 * block + 1], a[strip][step], b[2], b[3]);
            }
        }
}

/* y += the triangle's strips 2 Pair and 2 Pair + 1 times the chunk's p v. */
template <int Pair>
__device__ void multiply_triangle(float (&y)[2][8][4], const packed_triangle &kept, uint32_t values,
                                  const lane_places &at)
{
#pragma unroll
    for (int step = 0; step < 2 * Pair + 2; step++)
#pragma unroll
        for (int block = 0; block < 4; block++) {
            uint32_t b[4];
            load_b(b, values + step * 16 * kRowBytes, at, block);
#pragma unroll
            for (int strip = 0; strip < 2; strip++) {
                if (step > 2 * Pair + strip)
                    continue;
                const uint32_t(&row)[8][2] = kept[2 * Pair + strip];
                const uint32_t a[4] = {row[2 * step][0], row[2 * step][1], row[2 * step + 1][0],
                                       row[2 * step + 1][1]};
                multiply(y[strip][2 * block], a, b[0], b[1]);
                multiply(y[strip][2 * block + 1], a, b[2], b[3]);
            }
        }
}

/* Two strips of the warp's chunk, through the rows of q, which nobody else reads, so that whole
 * rows are written. */
template <int Pair>
__device__ void write_strips(const causal_tiles &x, const packed_triangle &kept,
                             const head_rows<__nv_bfloat16> &out, int first, int valid)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4;
    const lane_places at;
    const int row = first + 32 * Pair;
    const uint32_t strip = shared_address(x.q) + row * kRowBytes;
    const uint32_t state = shared_address(x.k);
    uint32_t a[2][4][4];
    float y[2][8][4] = {};
    load_strip(a[0], strip, at);
    load_strip(a[1], strip + 16 * kRowBytes, at);
    multiply_strips(y, a, state + (kWarps - 1) * kChunkBytes, at);
    if (warp > 0)
        multiply_strips(y, a, state + (warp - 1) * kChunkBytes, at);
    multiply_triangle<Pair>(y, kept, shared_address(x.v) + first * kRowBytes, at);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float low = x.own->alpha[row + 16 * i + g], high = x.own->alpha[row + 16 * i + g + 8];
#pragma unroll
        for (int n = 0; n < 8; n++) {
            char *to = x.q + (row + 16 * i) * kRowBytes + (at.result ^ (uint32_t)(n << 4));
            *reinterpret_cast<uint32_t *>(to) = pack_bf16(y[i][n][0] * low, y[i][n][1] * low);
            *reinterpret_cast<uint32_t *>(to + 8 * kRowBytes) =
                pack_bf16(y[i][n][2] * high, y[i][n][3] * high);
        }
    }
    __syncwarp();
#pragma unroll 4
    for (int i = lane / 8; i < 32; i += 4)
        if (row + i < valid)
            *reinterpret_cast<uint4 *>(out.data + (row + i) * out.stride + 8 * (lane % 8)) =
                *reinterpret_cast<const uint4 *>(x.q + chunk_offset(row + i, lane % 8));
}

#endif

} // namespace

#endif
