/*
 * Performer in bf16 with heads of 64, without a mask, on Hopper: features are formed from q and k
 * by warpgroups (wgmma) wherever they are needed, and never stored. With s = D^(-1/4) W, u = x s^T,
 * N = sum_j fk_j v_j^T, z = sum_j fk_j, y_i = fq_i z, w_i = dout_i out_i, dN = sum_i fq_i dout_i^T
 * / y_i and dz = - sum_i fq_i w_i / y_i:
 *
 *   sums    a warpgroup has 64 features and goes through tokens: u^T = s x^T, e^T, then N += e^T v.
 *           Of keys by a running maximum of each feature, since that of the head is not known yet;
 *           epsilon's part is that times the sum of v. Of queries by what forward has saved.
 *   totals  over the slices, in order, at the maximum of all; in bf16
 *   rows    a warpgroup has 64 tokens and goes through panels of 64 features: u = x s^T, e, then
 *             forward   out += e N, and e z; by a running maximum over the features
 *             dq        du = e (dout E^T - w zE + c) / y, dq += du s
 *             dk, dv    dphi = v dN^T, du = e (dphi + dz), dk += du s, dv += (e + eps) dN
 *           and of dq and dk D^(-1/2) (sum of du) x is taken away
 *
 * s is split into two bf16 numbers, of which the way back takes the first. Exponents are kept times
 * log2(e). Base: what is subtracted from u before its power: of queries half the squared norm, the
 * maximum and log2(y), of keys the first.
 *
 * E and zE are N and z without epsilon's part, which grows with the length and is the same for
 * every feature: what w and N lose by their rounding to bf16 would be lost of it, too. Together
 * with w's it is the c of a row, of which is known that sum_f fq_f dphi_f = 0. Hence two sums, with
 * and without the factor, which are joined at the end of the row.
 */
#ifndef FB_PERFORMER_CUDA_FUSED_CUH
#define FB_PERFORMER_CUDA_FUSED_CUH

#include "cuda_launch.cuh"
#include "cuda_panels.cuh"
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
    float *mark_tops;              /* [batch kv_heads][chunks][features]: maxima of the chunk's u */
    float *tops;                   /* [batch kv_heads]: of the head's, times log2(e) */
};

/* Of a slice: the state [features][64], sums of features, their maxima; of keys the sum of v. */
__host__ __device__ inline int64_t fused_count(int features)
{
    return (int64_t)features * (kFusedDim + 2) + kFusedDim;
}

/* Of a head: sums of features, of keys those without epsilon's part, the maximum and three numbers
 * that fill its place up; the state in bf16, likewise. */
__host__ __device__ inline int64_t fused_total_count(int features)
{
    return (int64_t)features * (2 + kFusedDim) + 4;
}

struct fused_total {
    float *z, *own_z, *top;
    __nv_bfloat16 *state, *own_state;
    __device__ fused_total(float *totals, int64_t unit, int features)
        : z(totals + unit * fused_total_count(features)), own_z(z + features),
          top(own_z + features), state(reinterpret_cast<__nv_bfloat16 *>(top + 4)),
          own_state(state + features * kFusedDim)
    {
    }
};

constexpr int kFusedTokens = 128; /* of a tile of sums without a mask */

/* With a mask: tokens of a chunk. */
constexpr int kChunk = 3 * kPanel;
constexpr int kMarkStateBytes = kFusedFeaturesMost * kRowBytes;
constexpr int kMarkBytes = kMarkStateBytes + (kFusedFeaturesMost + kFusedDim) * (int)sizeof(float);

/* A state as tiles of bf16 [features][64], sums of features, of keys the sum of v: of a chunk, and
 * later of what lies before it, of queries behind it. */
struct fused_mark {
    char *state;
    float *z, *values;
    __device__ fused_mark(char *marks, int64_t mark)
        : state(marks + mark * kMarkBytes), z(reinterpret_cast<float *>(state + kMarkStateBytes)),
          values(z + kFusedFeaturesMost)
    {
    }
};

enum fused_rows { FUSED_OUT, FUSED_DQ, FUSED_DK_DV };

/* performer_cuda_fused_sums.cu: how sums are cut into slices of tiles of so many tokens; the sums
 * of slices and their totals; those of chunks, as marks. */
void fused_cut_slices(fused_arguments &a, int tokens);
enum fb_status fused_cuda_sum_chunks(const fused_arguments &a, bool of_queries, cudaStream_t stream,
                                     struct fb_error *error);
enum fb_status fused_cuda_sums(const fused_arguments &a, bool of_queries, cudaStream_t stream,
                               struct fb_error *error);
/* performer_cuda_fused_rows.cu */
enum fb_status fused_cuda_rows(const fused_arguments &a, enum fused_rows what, cudaStream_t stream,
                               struct fb_error *error);

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

/* Rows from `first` on into a tile, zero where none exists; by `threads` threads, this one being
 * number `thread`: the chunks thread, thread + threads ... A multiple of 64, Threads unless that
 * is 0. */
template <int Rows, int Threads>
__device__ void fetch_tile(char *tile, const panel_rows<__nv_bfloat16> &x, int first, int thread,
                           int threads)
{
    const int step = (Threads > 0 ? Threads : threads) / 8, row = thread / 8, chunk = thread % 8;
    if (x.whole) {
        const __nv_bfloat16 *from = x.at(first + row, 8 * chunk);
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
        panel_bf16::put8(tile, i, chunk, e);
    }
}

/* The sum of the squares of a row, of which this thread has a chunk; in its eight lanes. */
__device__ inline float squares_of_row(const char *tile, int row, int chunk)
{
    float e[8], sum = 0.0F;
    panel_bf16::get8(tile, row, chunk, e);
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
__device__ inline void load_projection(const fused_arguments &a, char *to)
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
        panel_bf16::round8(high);
#pragma unroll
        for (int k = 0; k < 8; k++)
            low[k] -= high[k];
        panel_bf16::put8(to, row, chunk, high);
        panel_bf16::put8(to + tiles, row, chunk, low);
    }
}

/* c = a b^T for 64 columns of depth, not begun, not committed. */
__device__ inline void product_turned(float (&c)[8][4], uint64_t a, uint64_t b, bool fresh)
{
#pragma unroll
    for (int step = 0; step < 4; step++)
        wgmma_turned<__nv_bfloat16>(c, a + 2 * step, b + 2 * step, fresh && step == 0);
}

/* c += x b, x packed from registers, b's 64 rows along the depth; likewise. */
__device__ inline void product_added(float (&c)[8][4], const uint32_t (&x)[4][4], uint64_t b)
{
#pragma unroll
    for (int step = 0; step < 4; step++)
        wgmma_add<__nv_bfloat16>(c, x[step], b + 128 * step);
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
__device__ inline void put_operand(uint32_t (&x)[4][4], int n, int half, float first, float second)
{
    x[n / 2][n % 2 * 2 + half] = pack_bf16(first, second);
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
