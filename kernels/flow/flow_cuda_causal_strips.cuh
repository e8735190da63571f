/*
 * What the kernels of causal Flow-Attention's gradient for heads of 64 share, in bf16 and f16: a
 * block of four warps has a chunk of 64 tokens, each warp 16 of them, phi in f32 in registers. q
 * and k stand in shared memory as two 16-bit numbers each, high and low, so that products of q and
 * k keep 16 bits: masks and the gradients of keys are sensitive to them.
 */
#ifndef FB_FLOW_CUDA_CAUSAL_STRIPS_CUH
#define FB_FLOW_CUDA_CAUSAL_STRIPS_CUH

#include "cuda_pair_products.cuh"
#include "flow_cuda_causal_gradient.cuh"
#include "flow_cuda_strip_values.cuh"

namespace
{

constexpr int kChunk = 64, kChunkThreads = 128, kChunkWarps = 4;
constexpr int kChunkTile = kChunk * kRowBytes;

/* Numbers of the chunk's tokens beyond those of enum token_scalar. */
enum { P_TOKEN = TOKEN_SCALARS, R_TOKEN, ALPHA, BETA, Q_SUM, K_SUM, CHUNK_ARRAYS };

/* The block's shared memory behind its tiles. */
struct chunk_own {
    float vectors[2 + 2 * kChunkWarps][kDim]; /* of the chunk; sums of warps from the third on */
    float array[CHUNK_ARRAYS][kChunk];
};

__host__ __device__ constexpr size_t chunk_bytes(int tiles)
{
    return (size_t)tiles * kChunkTile + sizeof(chunk_own);
}

/* Where a thread stands: its warp's strip of the chunk, and what of it is valid. */
struct strip_place {
    lane_places at;
    int warp, lane, g, t, row;
    __device__ explicit strip_place(unsigned thread = threadIdx.x)
        : at((int)(thread % 32)), warp((int)(thread / 32 % kChunkWarps)), lane((int)(thread % 32)),
          g(lane / 4), t(lane % 4), row(16 * warp)
    {
    }
    __device__ char *own(char *tile) const
    {
        return tile + row * kRowBytes;
    }
    /* A number per row of the lane, from an array of the chunk. */
    __device__ strip_dots of(const float *array) const
    {
        return {array[row + g], array[row + g + 8]};
    }
    /* f(row) of the lane's rows, into an array, by one lane of four. */
    __device__ void put(float *array, strip_dots x) const
    {
        if (t == 0) {
            array[row + g] = x.low;
            array[row + g + 8] = x.high;
        }
    }
};

/* 64 rows of a head on their way into a tile, zero beyond the valid ones. */
__device__ inline void fetch_tile(char *tile, const tensor_view &view, int64_t b, int64_t h,
                                  const chunk_place &p)
{
    const head_rows<__nv_bfloat16> x = rows_of<__nv_bfloat16>(view, b, h, p.at);
    const int thread = (int)threadIdx.x % kChunkThreads, chunk = thread % 8;
#pragma unroll
    for (int row = thread / 8; row < kChunk; row += kChunkThreads / 8) {
        const bool valid = row < p.rows;
        copy_chunk_async(shared_address(tile) + chunk_offset(row, chunk),
                         valid ? x.data + row * x.stride + 8 * chunk
                               : static_cast<__nv_bfloat16 *>(view.data),
                         valid);
    }
}

__device__ inline void fetch_query(char *tile, const tensor_view &view, const chunk_place &p)
{
    fetch_tile(tile, view, p.head.b, p.head.h, p);
}

__device__ inline void fetch_key(char *tile, const tensor_view &view, const chunk_place &p)
{
    fetch_tile(tile, view, p.head.b, p.head.kv_h, p);
}

/* The warp's strip of a tile as phi, zero where no token is. */
template <typename T>
__device__ void chunk_phi(strip_values &phi, const char *tile, const strip_place &s,
                          const chunk_place &p)
{
    map_strip<T>(phi, shared_address(tile) + s.row * kRowBytes, s.at);
    if (p.rows == kChunk)
        return;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            phi[n][i] = s.row + s.g + i / 2 * 8 < p.rows ? phi[n][i] : 0.0F;
}

/* The strip's high halves into one tile, what they leave into another. */
template <typename T>
__device__ void put_halves(char *high, char *low, const strip_values &x, const strip_place &s)
{
    strip_values rest;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            const uint32_t pair = pack_pair<T>(x[n][i], x[n][i + 1]);
            rest[n][i] = x[n][i] - low_of<T>(pair);
            rest[n][i + 1] = x[n][i + 1] - high_of<T>(pair);
        }
    __syncwarp();
    put_strip<T>(s.own(high), x, s.at);
    put_strip<T>(s.own(low), rest, s.at);
}

/* 2^exponent in f16; bf16 needs none. */
template <typename T> __device__ float taken(int exponent)
{
    return kNarrow<T> ? two_to(exponent) : 1.0F;
}

__device__ inline strip_dots scaled(strip_dots x, float scale)
{
    return {x.low * scale, x.high * scale};
}

__device__ inline void scale_strip(strip_values &x, float scale)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[n][i] *= scale;
}

__device__ inline void clear_strip(strip_values &x)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[n][i] = 0.0F;
}

/* The strip's rows of x y^T, x and y from their halves: three products for one. */
template <typename T>
__device__ void form_strip_scores(strip_values &c, const char *x, const char *x_low, const char *y,
                                  const char *y_low, const strip_place &s)
{
    clear_strip(c);
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint32_t a[4], a_low[4];
        load_a(a, shared_address(x) + s.row * kRowBytes, s.at, step);
        load_a(a_low, shared_address(x_low) + s.row * kRowBytes, s.at, step);
#pragma unroll
        for (int block = 0; block < 4; block++) {
            uint32_t b[4], b_low[4];
            load_b_turned(b, shared_address(y) + block * 16 * kRowBytes, s.at, step);
            load_b_turned(b_low, shared_address(y_low) + block * 16 * kRowBytes, s.at, step);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float(&to)[4] = c[2 * block + half];
                multiply<T>(to, a_low, b[2 * half], b[2 * half + 1]);
                multiply<T>(to, a, b_low[2 * half], b_low[2 * half + 1]);
                multiply<T>(to, a, b[2 * half], b[2 * half + 1]);
            }
        }
    }
}

/* A strip as operand a, in halves. */
template <typename T> struct strip_halves {
    uint32_t high[4][4], low[4][4];
    __device__ explicit strip_halves(const strip_values &x)
    {
        pack_strip<T>(high, x);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const uint32_t pair = high[n / 2][n % 2 * 2 + half];
                low[n / 2][n % 2 * 2 + half] = pack_pair<T>(x[n][2 * half] - low_of<T>(pair),
                                                            x[n][2 * half + 1] - high_of<T>(pair));
            }
    }
};

/* y = x times a tile in halves, or its transpose: three products for one. */
template <bool Turned, typename T>
__device__ void multiply_halves(strip_values &y, const strip_halves<T> &x, const char *high,
                                const char *low, const strip_place &s)
{
    clear_strip(y);
    multiply_matrix<Turned, T>(y, x.low, high, s.at);
    multiply_matrix<Turned, T>(y, x.high, low, s.at);
    multiply_matrix<Turned, T>(y, x.high, high, s.at);
}

/* Sum over the columns up to the row (or from it on), of weight (score + eps lift); weight NULL: 1;
 * lift of the column, or of the row when NULL. In all lanes. */
template <bool Before>
__device__ strip_dots sum_triangle(const strip_values &c, const strip_place &s, const float *weight,
                                   const float *lift, strip_dots own_lift)
{
    strip_dots sum = {};
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int col = 8 * n + 2 * s.t + i, low = s.row + s.g, high = low + 8;
            const float w = weight == nullptr ? 1.0F : weight[col];
            const float of_low = kEps * (lift == nullptr ? own_lift.low : lift[col]);
            const float of_high = kEps * (lift == nullptr ? own_lift.high : lift[col]);
            if (Before ? col <= low : col >= low)
                sum.low = fmaf(w, c[n][i] + of_low, sum.low);
            if (Before ? col <= high : col >= high)
                sum.high = fmaf(w, c[n][i + 2] + of_high, sum.high);
        }
    return over_quad(sum);
}

__device__ inline strip_dots plus(strip_dots x, strip_dots y)
{
    return {x.low + y.low, x.high + y.high};
}

__device__ inline strip_dots sum_strip_rows(const strip_values &x)
{
    strip_dots sum = {};
#pragma unroll
    for (int n = 0; n < 8; n++) {
        sum.low += x[n][0] + x[n][1];
        sum.high += x[n][2] + x[n][3];
    }
    return over_quad(sum);
}

/* Sums over the strip's rows of weight (x + eps), into the warp's place: each step hands half of
 * the columns that are left to a lane of other rows. */
__device__ inline void sum_strip_columns(chunk_own &own, int which, const strip_values &x,
                                         strip_dots weight, float eps, const strip_place &s)
{
    float sum[16];
#pragma unroll
    for (int i = 0; i < 16; i++)
        sum[i] = fmaf(weight.low, x[i / 2][i % 2] + eps, weight.high * (x[i / 2][i % 2 + 2] + eps));
#pragma unroll
    for (int step = 0; step < 3; step++) {
        const int left = 8 >> step;
        const bool upper = (s.g & left / 2) != 0;
#pragma unroll
        for (int i = 0; i < left; i++) {
            const float keep = upper ? sum[i + left] : sum[i],
                        give = upper ? sum[i] : sum[i + left];
            sum[i] = keep + __shfl_xor_sync(0xffffffffU, give, 2 * left);
        }
    }
    float *to = own.vectors[2 + 2 * s.warp + which] + 8 * s.g + 2 * s.t;
    to[0] = sum[0];
    to[1] = sum[1];
}

/* The warps' sums, in order, as the chunk's part of a vector. The block is in step before. */
__device__ inline void leave_columns(const causal_gradient &a, const chunk_own &own,
                                     const chunk_place &p, int which, chunk_vector name)
{
    if (threadIdx.x >= kDim)
        return;
    float sum = 0.0F;
#pragma unroll
    for (int warp = 0; warp < kChunkWarps; warp++)
        sum += own.vectors[2 + 2 * warp + which][threadIdx.x];
    vector_of(a, p, name)[threadIdx.x] = sum;
}

__device__ inline void load_chunk_vector(const causal_gradient &a, chunk_own &own,
                                         const chunk_place &p, int to, chunk_vector name)
{
    if (threadIdx.x < kDim)
        own.vectors[to][threadIdx.x] = vector_of(a, p, name)[threadIdx.x];
}

__device__ inline void load_chunk_scalar(const causal_gradient &a, chunk_own &own,
                                         const chunk_place &p, token_scalar name)
{
    const int i = (int)threadIdx.x;
    if (i < kChunk)
        own.array[name][i] = i < p.rows ? scalar_of(a, p, name)[i] : 0.0F;
}

/* The lane's rows of a scalar to memory, those that exist. */
__device__ inline void leave_scalar(const causal_gradient &a, const chunk_place &p,
                                    const strip_place &s, token_scalar name, strip_dots x)
{
    float *to = scalar_of(a, p, name);
    if (s.t == 0 && s.row + s.g < p.rows)
        to[s.row + s.g] = x.low;
    if (s.t == 0 && s.row + s.g + 8 < p.rows)
        to[s.row + s.g + 8] = x.high;
}

/* n of the lane's rows, 0 beyond the valid ones. */
__device__ inline strip_dots numbers_of(const chunk_place &p, const strip_place &s)
{
    const int low = s.row + s.g;
    return {low < p.rows ? (float)(p.at + low + 1) : 0.0F,
            low + 8 < p.rows ? (float)(p.at + low + 9) : 0.0F};
}

/* n / flow where a token is, else 0. */
__device__ inline strip_dots inverse_flow(strip_dots n, strip_dots flow)
{
    return {n.low > 0.0F ? n.low / flow.low : 0.0F, n.high > 0.0F ? n.high / flow.high : 0.0F};
}

/* alpha and beta of every token of the chunk, from A and B, which stand in their arrays by the same
 * thread. */
__device__ inline void invert_flows(chunk_own &own, const chunk_place &p)
{
    const int i = (int)threadIdx.x;
    if (i >= kChunk)
        return;
    const float n = (float)(p.at + i + 1);
    own.array[ALPHA][i] = i < p.rows ? n / own.array[A][i] : 0.0F;
    own.array[BETA][i] = i < p.rows ? n / own.array[B][i] : 0.0F;
}

/* The sum of an array of the chunk, by one warp, in all its lanes. */
__device__ inline double sum_tokens(const float *array, int lane)
{
    double sum = (double)array[lane] + (double)array[lane + 32];
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        sum += __shfl_xor_sync(0xffffffffU, sum, step);
    return sum;
}

/* Running sums of an array, from `start` on, forwards or backwards, by one warp: two tokens a lane.
 */
template <bool Backwards>
__device__ void scan_tokens(const float *from, double start, float *to, int lane)
{
    const int first = Backwards ? kChunk - 1 - 2 * lane : 2 * lane,
              second = first + (Backwards ? -1 : 1);
    const double x = (double)from[first], both = x + (double)from[second];
    double sum = both;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const double before = __shfl_up_sync(0xffffffffU, sum, step);
        sum += lane >= step ? before : 0.0;
    }
    const double before = start + (sum - both);
    to[first] = (float)(before + x);
    to[second] = (float)(before + both);
}

/* p, and r times `scale`, of every token; needs A, S, E, Z there, by the same thread. */
__device__ inline void weigh_chunk(chunk_own &own, const chunk_place &p, float scale)
{
    const int i = (int)threadIdx.x;
    if (i >= kChunk)
        return;
    const bool valid = i < p.rows;
    const float n = (float)(p.at + i + 1);
    own.array[P_TOKEN][i] = valid ? n * (fabsf(own.array[E][i]) / own.array[Z][i]) : 0.0F;
    own.array[R_TOKEN][i] = valid ? own.array[S][i] / own.array[A][i] * scale : 0.0F;
}

/* ---- states ---------------------------------------------------------------------------------- */

/* The warp's 16 rows of a state += x^T (weight y) over the chunk. */
template <typename T>
__device__ void add_chunk(strip_values &state, const char *x, const float *weight, const char *y,
                          const strip_place &s)
{
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint32_t a[4];
        load_a_turned(a, shared_address(x) + step * 16 * kRowBytes, s.at, s.warp);
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[i] = scale_two<T>(
                a[i], *reinterpret_cast<const float2 *>(weight + 16 * step + i / 2 * 8 + 2 * s.t));
#pragma unroll
        for (int block = 0; block < 4; block++) {
            uint32_t b[4];
            load_b(b, shared_address(y) + step * 16 * kRowBytes, s.at, block);
            multiply<T>(state[2 * block], a, b[0], b[1]);
            multiply<T>(state[2 * block + 1], a, b[2], b[3]);
        }
    }
}

template <typename Visit> __device__ void each_of_state(const strip_place &s, Visit visit)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            visit(n, 2 * half, (s.row + s.g + 8 * half) * kDim + 8 * n + 2 * s.t);
}

__device__ inline void read_state(strip_values &state, const float *from, const strip_place &s)
{
    each_of_state(s, [&](int n, int i, int place) {
        const float2 x = *reinterpret_cast<const float2 *>(from + place);
        state[n][i] = x.x;
        state[n][i + 1] = x.y;
    });
}

__device__ inline void write_state(const strip_values &state, float *to, const strip_place &s)
{
    each_of_state(s, [&](int n, int i, int place) {
        *reinterpret_cast<float2 *>(to + place) = make_float2(state[n][i], state[n][i + 1]);
    });
}

/* The part of a chunk's product up to the row (or from it on), its columns weighted, times `scale`
 * (f16), as operand a. */
template <bool Before, typename T>
__device__ void pack_triangle(uint32_t (&a)[4][4], strip_values &c, const float *weight,
                              float scale, const strip_place &s)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int col = 8 * n + 2 * s.t + i % 2, row = s.row + s.g + i / 2 * 8;
            const float w = kNarrow<T> ? weight[col] * scale : weight[col];
            c[n][i] = (Before ? col <= row : col >= row) ? w * c[n][i] : 0.0F;
        }
    pack_strip<T>(a, c);
}

/* A strip, its rows weighted, through its rows of a tile to memory, the first `end` rows; as bits,
 * for which bf16 stands. */
template <typename T>
__device__ void leave_strip(const head_rows<__nv_bfloat16> &out, char *tile, strip_values &x,
                            strip_dots weight, const strip_place &s, int end)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[n][i] *= i < 2 ? weight.low : weight.high;
    __syncwarp();
    put_strip<T>(s.own(tile), x, s.at);
    __syncwarp();
    write_strip(out, tile, s.row, end);
    __syncwarp();
}

} // namespace

#endif
