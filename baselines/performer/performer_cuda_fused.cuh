/*
 * Performer in bf16 or f16 (T) with heads of 64, without a mask, on Hopper: features are formed
 * from q and k by warpgroups (wgmma) wherever they are needed, and never stored. With s = D^(-1/4)
 * W, u = x s^T, N = sum_j fk_j v_j^T, z = sum_j fk_j, y_i = fq_i z, w_i = dout_i out_i, dN = sum_i
 * fq_i dout_i^T / y_i and dz = - sum_i fq_i w_i / y_i:
 *
 *   sums    a warpgroup has 64 features and goes through tokens: u^T = s x^T, e^T, then N += e^T v.
 *           Of keys by a running maximum of each feature, since that of the head is not known yet;
 *           epsilon's part is that times the sum of v. Of queries by what forward has saved.
 *   totals  over the slices, in order, at the maximum of all; in 16 bits
 *   rows    a warpgroup has 64 tokens and goes through panels of 64 features: u = x s^T, e, then
 *             forward   out += e N, and e z; by a running maximum over the features
 *             dq        du = e (dout E^T - w zE + c) / y, dq += du s
 *             dk, dv    dphi = v dN^T, du = e (dphi + dz), dk += du s, dv += (e + eps) dN
 *           and of dq and dk D^(-1/2) (sum of du) x is taken away
 *
 * s is split into two numbers of 16 bits, of which the way back takes the first. Exponents are kept
 * times log2(e). Base: what is subtracted from u before its power: of queries half the squared
 * norm, the maximum and log2(y), of keys the first.
 *
 * E and zE are N and z without epsilon's part, which grows with the length and is the same for
 * every feature: what w and N lose by their rounding to bf16 would be lost of it, too. Together
 * with w's it is the c of a row, of which is known that sum_f fq_f dphi_f = 0. Hence two sums, with
 * and without the factor, which are joined at the end of the row.
 *
 * What becomes an operand in f16 is multiplied by a power of two before, and what comes out of the
 * products by its inverse: powers of keys and queries, at most 1, by one that uses the room there
 * is; features over y, at most 1 / z, which is 1e4 over the number of keys, by that number (see
 * query_range); states by what brings the sums of their features to a known size; du to where its
 * own numbers lie, between the two.
 */
#ifndef FB_PERFORMER_CUDA_FUSED_CUH
#define FB_PERFORMER_CUDA_FUSED_CUH

#include "cuda_launch.cuh"
#include "cuda_panels.cuh"
#include "cuda_powers.cuh"
#include "cuda_wgmma.cuh"

#include <math.h>

constexpr int kFusedDim = 64;
constexpr int kFusedFeaturesMost = 256;
constexpr int kGroupThreads = 128;
constexpr int kTileBytes = kPanel * kRowBytes; /* of 64 rows */
constexpr int kTileUnits = kTileBytes / 16;    /* the same in a descriptor */
constexpr float kLog2e = 1.44269504F;
constexpr float kFeatureEpsilon = 1e-4F;

struct fused_arguments {
    panel_tensor q, k, v, out, dout, dq, dk, dv;
    int batch, heads, kv_heads, group, q_len, kv_len;
    const int32_t *lengths;  /* [2][batch]: queries, keys; NULL: all are full */
    const float *projection; /* [features][64] */
    int features;            /* a multiple of 64 */
    float scale;             /* D^(-1/4) */
    int key_slices, query_slices, key_tiles, query_tiles; /* of sums, in tiles of 128 */
    float *sums; /* [heads of queries or keys][slices][fused_count(features)] */
    float *query_base,
        *query_share;     /* [batch heads][q_len], eps / y; NULL in forward: not wanted */
    float *key_base;      /* [batch kv_heads][kv_len]; likewise */
    float *weights;       /* [batch heads][q_len] w */
    float *totals, *back; /* [batch kv_heads][fused_total_count(features)]: of keys, queries */
    /* causal, see performer_cuda_causal.cuh */
    int chunks;
    char *key_marks, *query_marks; /* [heads of keys, of queries][chunks] */
    float *mark_tops;              /* [batch kv_heads][chunks][features]: maxima of the chunk's u;
                                    * f16: likewise the sums of its features behind them */
    float *tops;                   /* [batch kv_heads]: of the head's, times log2(e) */
};

/* Of a slice: the state [features][64], sums of features, their maxima; of keys the sum of v. */
__host__ __device__ inline int64_t fused_count(int features)
{
    return (int64_t)features * (kFusedDim + 2) + kFusedDim;
}

/* Of a head: sums of features, of keys those without epsilon's part, the maximum, what undoes the
 * states' factor and two numbers that fill the place up; the state in 16 bits, likewise; f16: of
 * keys the sum of v. */
__host__ __device__ inline int64_t fused_total_count(int features, bool with_values)
{
    return (int64_t)features * (2 + kFusedDim) + 4 + (with_values ? kFusedDim : 0);
}

template <typename T> struct fused_total {
    float *z, *own_z, *top;
    T *state, *own_state;
    __device__ fused_total(float *totals, int64_t unit, int features)
        : z(totals + unit * fused_total_count(features, kNarrow<T>)), own_z(z + features),
          top(own_z + features), state(reinterpret_cast<T *>(top + 4)),
          own_state(state + features * kFusedDim)
    {
    }
    __device__ float *back() const
    {
        return top + 1;
    }
    __device__ float *values(int features) const
    {
        return top + 4 + features * kFusedDim;
    }
};

constexpr int kFusedTokens = 128; /* of a tile of sums without a mask */

/* With a mask: tokens of a chunk. */
constexpr int kChunk = 3 * kPanel;
constexpr int kMarkStateBytes = kFusedFeaturesMost * kRowBytes;
constexpr int kMarkNumbers = kFusedFeaturesMost + kFusedDim; /* f16: four more, which end it */
template <typename T>
constexpr int kMarkBytes = kMarkStateBytes +
                           (kMarkNumbers + (kNarrow<T> ? 4 : 0)) * (int)sizeof(float);

/* A state as tiles [features][64], sums of features, of keys the sum of v: of a chunk, and later of
 * what lies before it, of queries behind it. f16: what undoes the state's factor. */
template <typename T> struct fused_mark {
    char *state;
    float *z, *values;
    __device__ fused_mark(char *marks, int64_t mark)
        : state(marks + mark * kMarkBytes<T>),
          z(reinterpret_cast<float *>(state + kMarkStateBytes)), values(z + kFusedFeaturesMost)
    {
    }
    __device__ float *back() const
    {
        return z + kMarkNumbers;
    }
};

/* The sum of a feature of a chunk's keys at its own maximum, which stays when the mark changes;
 * f16.
 */
__device__ inline float *mark_sum(const fused_arguments &a, int64_t mark, int feature)
{
    const int64_t marks = (int64_t)a.batch * a.kv_heads * a.chunks;
    return a.mark_tops + (marks + mark) * kFusedFeaturesMost + feature;
}

enum fused_rows { FUSED_OUT, FUSED_DQ, FUSED_DK_DV };

/* performer_cuda_fused_sums.cu: how sums are cut into slices of tiles of so many tokens; the sums
 * of slices and their totals; those of chunks, as marks. */
void fused_cut_slices(fused_arguments &a, int tokens);
enum fb_status fused_cuda_sum_chunks(enum fb_dtype dtype, const fused_arguments &a, bool of_queries,
                                     cudaStream_t stream, struct fb_error *error);
enum fb_status fused_cuda_sums(enum fb_dtype dtype, const fused_arguments &a, bool of_queries,
                               cudaStream_t stream, struct fb_error *error);
/* performer_cuda_fused_totals.cu: as sums end */
enum fb_status fused_cuda_totals(enum fb_dtype dtype, const fused_arguments &a, bool of_queries,
                                 cudaStream_t stream, struct fb_error *error);
/* performer_cuda_fused_rows.cu */
enum fb_status fused_cuda_rows(enum fb_dtype dtype, const fused_arguments &a, enum fused_rows what,
                               cudaStream_t stream, struct fb_error *error);

constexpr int kFusedBlocks = 132; /* that an H100 runs at once */

/* Slices of every head, so that blocks of a tile's time each and as much as `overhead` tiles to
 * begin with are done soonest. */
static inline int fused_slices_of(int64_t heads, int64_t tiles, int64_t overhead)
{
    int64_t best = 1, least = INT64_MAX;
    for (int64_t slices = 1; slices <= tiles && (slices - 1) * heads < 4 * kFusedBlocks; slices++) {
        const int64_t waves = (heads * slices + kFusedBlocks - 1) / kFusedBlocks;
        const int64_t cost = waves * ((tiles + slices - 1) / slices + overhead);
        if (cost < least) {
            least = cost;
            best = slices;
        }
    }
    return (int)best;
}

/* Powers that are at most 1 are operands times two to these: alone; where they are multiplied by
 * slopes; and du times two to that, of queries and of keys. */
template <typename T> constexpr float kPowerBits = kNarrow<T> ? 14.0F : 0.0F;
template <typename T> constexpr float kPowerFactor = kNarrow<T> ? 16384.0F : 1.0F;
template <typename T> constexpr float kKeyBits = kNarrow<T> ? 10.0F : 0.0F;
template <typename T> constexpr float kKeyFactor = kNarrow<T> ? 1024.0F : 1.0F;
template <typename T> constexpr float kQuerySlope = kNarrow<T> ? 32.0F : 1.0F;
template <typename T> constexpr float kKeySlope = kNarrow<T> ? 16.0F : 1.0F;

/* States of a chunk's queries as marks, of all behind it likewise. They are times dout, which a
 * loss that is scaled makes large: at dout of size 1 the largest marks come to be some 90 and 20.
 */
template <typename T> constexpr float kMarkFactor = kNarrow<T> ? power<-10>() : 1.0F;
template <typename T> constexpr float kBehindFactor = kNarrow<T> ? power<-2>() : 1.0F;

/* The largest sum of features that keys' states are times the values of: 2^3 at most, so that f16
 * has room for values of 8000. No sum is below 10^-4 of it. */
constexpr int kStateBits = 2;

/* Features of queries over y, which sums over so many keys, as operands. */
template <typename T> struct query_range {
    static constexpr float bits = 0.0F, into = 1.0F, back = 1.0F;
    __device__ explicit query_range(int)
    {
    }
};
template <> struct query_range<__half> {
    float bits, into, back;
    __device__ explicit query_range(int keys)
    {
        const int exponent = 2 + exponent_of(max(keys, 1));
        bits = (float)exponent;
        into = two_to(exponent);
        back = two_to(-exponent);
    }
};

#if FB_HAVE_WGMMA

struct fused_unit {
    int64_t b, h, kv_h;
    int q_valid, kv_valid;
    __device__ fused_unit(const fused_arguments &a, int64_t unit, bool queries)
    {
        const int heads = queries ? a.heads : a.kv_heads;
        b = unit / heads;
        h = unit % heads;
        kv_h = queries ? h / a.group : h;
        q_valid = a.lengths == nullptr ? a.q_len : a.lengths[b];
        kv_valid = a.lengths == nullptr ? a.kv_len : a.lengths[a.batch + b];
    }
};

/* Of queries of which the first sees so many keys, if there are as many. */
template <typename T> __device__ query_range<T> range_of(const fused_unit &unit, int seen)
{
    if constexpr (kNarrow<T>)
        return query_range<T>(min(seen, unit.kv_valid));
    else
        return query_range<T>(0);
}

__device__ inline int group_of_thread()
{
    return (int)threadIdx.x / kGroupThreads;
}

/* The first of a thread's two rows of its warpgroup's tile: g; the other is g + 8. */
__device__ inline int strip_of_thread()
{
    return (int)threadIdx.x % kGroupThreads / 32 * 16;
}

__device__ inline float power_of_two(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Eight numbers of a row of a tile, or two. */
template <typename T> struct tile_rows {
    __device__ static void put8(char *tile, int row, int chunk, const float (&x)[8])
    {
        *reinterpret_cast<uint4 *>(tile + chunk_offset(row, chunk)) =
            make_uint4(pack_pair<T>(x[0], x[1]), pack_pair<T>(x[2], x[3]), pack_pair<T>(x[4], x[5]),
                       pack_pair<T>(x[6], x[7]));
    }
    __device__ static void get8(const char *tile, int row, int chunk, float (&x)[8])
    {
        const uint4 bits = *reinterpret_cast<const uint4 *>(tile + chunk_offset(row, chunk));
        const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[2 * i] = low_of<T>(pairs[i]);
            x[2 * i + 1] = high_of<T>(pairs[i]);
        }
    }
    __device__ static void round8(float (&x)[8])
    {
#pragma unroll
        for (int i = 0; i < 8; i += 2) {
            const uint32_t pair = pack_pair<T>(x[i], x[i + 1]);
            x[i] = low_of<T>(pair);
            x[i + 1] = high_of<T>(pair);
        }
    }
    __device__ static void put2(char *tile, int row, int col, float x, float y)
    {
        char *chunk = tile + chunk_offset(row, col / 8);
        *reinterpret_cast<uint32_t *>(chunk + col % 8 * 2) = pack_pair<T>(x, y);
    }
};

/* Rows from `first` on into a tile, zero where none exists; by `threads` threads, this one being
 * number `thread`: the chunks thread, thread + threads ... A multiple of 64, Threads unless that
 * is 0. */
template <int Rows, int Threads, typename T>
__device__ void fetch_tile(char *tile, const panel_rows<T> &x, int first, int thread, int threads)
{
    const int step = (Threads > 0 ? Threads : threads) / 8, row = thread / 8, chunk = thread % 8;
    if (x.whole) {
        const T *from = x.at(first + row, 8 * chunk);
        const uint32_t to = shared_address(tile) + chunk_offset(row, chunk);
#pragma unroll
        for (int k = 0; k < Rows; k += step) {
            if (Threads == 0 && row + k >= Rows)
                break;
            const bool exists = first + row + k < x.valid;
            copy_chunk_async(to + (uint32_t)(k * kRowBytes), exists ? from + k * x.stride : x.data,
                             exists);
        }
        return;
    }
    for (int i = row; i < Rows; i += step) {
        float e[8];
        fetch_chunk(x, first + i, 8 * chunk, e);
        tile_rows<T>::put8(tile, i, chunk, e);
    }
}

/* The sum of the squares of a row, of which this thread has a chunk; in its eight lanes. */
template <typename T> __device__ float squares_of_row(const char *tile, int row, int chunk)
{
    float e[8], sum = 0.0F;
    tile_rows<T>::get8(tile, row, chunk, e);
#pragma unroll
    for (int k = 0; k < 8; k++)
        sum = fmaf(e[k], e[k], sum);
    return sum_of_eight(sum);
}

/* Half a squared norm of D^(-1/4) x, for exponents to the base of two. */
__device__ inline float base_of_squares(const fused_arguments &a, float squares)
{
    return 0.5F * kLog2e * a.scale * a.scale * squares;
}

/* s: its high halves, then the low ones. */
template <typename T> __device__ void load_projection(const fused_arguments &a, char *to)
{
    const int tiles = a.features / kPanel * kTileBytes;
    for (int i = threadIdx.x; i < a.features * 8; i += (int)blockDim.x) {
        const int row = i / 8, chunk = i % 8;
        const float4 *from =
            reinterpret_cast<const float4 *>(a.projection + row * kFusedDim + 8 * chunk);
        const float4 x = from[0], y = from[1];
        float low[8] = {x.x, x.y, x.z, x.w, y.x, y.y, y.z, y.w}, high[8];
#pragma unroll
        for (int k = 0; k < 8; k++)
            high[k] = low[k] *= a.scale;
        tile_rows<T>::round8(high);
#pragma unroll
        for (int k = 0; k < 8; k++)
            low[k] -= high[k];
        tile_rows<T>::put8(to, row, chunk, high);
        tile_rows<T>::put8(to + tiles, row, chunk, low);
    }
}

/* c = a b^T for 64 columns of depth, not begun, not committed. */
template <typename T>
__device__ void product_turned(float (&c)[8][4], uint64_t a, uint64_t b, bool fresh)
{
#pragma unroll
    for (int step = 0; step < 4; step++)
        wgmma_turned<T>(c, a + 2 * step, b + 2 * step, fresh && step == 0);
}

/* c += x b, x packed from registers, b's 64 rows along the depth; likewise. */
template <typename T>
__device__ void product_added(float (&c)[8][4], const uint32_t (&x)[4][4], uint64_t b)
{
#pragma unroll
    for (int step = 0; step < 4; step++)
        wgmma_add<T>(c, x[step], b + 128 * step);
}

__device__ inline void finish_product(float (&c)[8][4])
{
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(c);
}

/* Left operands are not to be changed before the wait either. */
__device__ inline void hold_operand(uint32_t (&x)[4][4])
{
#pragma unroll
    for (int i = 0; i < 16; i++)
        asm volatile("" : "+r"(x[i / 4][i % 4])::"memory");
}

/* Ends a product that was left under way. */
__device__ inline void finish_sum(float (&c)[8][4], uint32_t (&x)[4][4])
{
    wgmma_wait<0>();
    wgmma_hold(c);
    hold_operand(x);
}

/* Column pairs n of a result as the left operand of a product. */
template <typename T>
__device__ void put_operand(uint32_t (&x)[4][4], int n, int half, float first, float second)
{
    x[n / 2][n % 2 * 2 + half] = pack_pair<T>(first, second);
}

__device__ inline void scale_half(float (&c)[8][4], int half, float factor)
{
#pragma unroll
    for (int n = 0; n < 8; n++) {
        c[n][2 * half] *= factor;
        c[n][2 * half + 1] *= factor;
    }
}

__device__ inline float largest_of_half(const float (&c)[8][4], int half)
{
    float top = c[0][2 * half];
#pragma unroll
    for (int n = 0; n < 8; n++)
        top = fmaxf(top, fmaxf(c[n][2 * half], c[n][2 * half + 1]));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, 1));
    return fmaxf(top, __shfl_xor_sync(0xffffffffU, top, 2));
}

#endif
#endif
