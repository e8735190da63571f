/*
 * What the kernels of causal Flow-Attention in f32 with heads of 64 share on Hopper: the steps of
 * flow_cuda_causal_gradient.cu, a chunk of 64 tokens by a warpgroup, each warp 16 of them as the
 * results of products lie, products as three TF32 products (cuda_split.cuh). Panels of tokens have
 * their columns in the order of turned panels, so that results are left operands as they are.
 *
 * A forward call keeps less than a gradient in memory: two vectors of a chunk, of which u and w
 * take the places of ck and cq, and two scalars of a token, a and then r, b and then E.
 */
#ifndef FB_FLOW_CUDA_CAUSAL_SPLIT_CUH
#define FB_FLOW_CUDA_CAUSAL_SPLIT_CUH

#include "cuda_split.cuh"
#include "flow_cuda_causal_gradient.cuh"
#include "flow_cuda_causal_strips.cuh"

namespace
{

constexpr int kForwardVectors = 2, kForwardScalars = 2;
static_assert(kForwardVectors + 0 == FB_FLOW_CUDA_SPLIT_VECTORS, "the plan counts the vectors");
static_assert(kForwardScalars + 0 == FB_FLOW_CUDA_SPLIT_SCALARS, "the plan counts the scalars");

template <bool Forward>
__device__ float *kept_vector(const causal_gradient &a, const chunk_place &p, chunk_vector name)
{
    if (!Forward)
        return vector_of(a, p, name);
    return a.vectors + ((p.unit * kForwardVectors + name % 2) * a.chunks + p.chunk) * kDim;
}

template <bool Forward>
__device__ float *kept_scalar(const causal_gradient &a, const chunk_place &p, token_scalar name)
{
    if (!Forward)
        return scalar_of(a, p, name);
    const int place = name == B || name == E;
    return a.scalars + (p.unit * kForwardScalars + place) * a.chunks * kChunk + p.at;
}

template <bool Forward>
__device__ float *kept_matrix(const causal_gradient &a, int64_t unit, int which, int64_t segment)
{
    return Forward ? a.matrices + (unit * a.segments + segment) * kDim * kDim
                   : matrix_of(a, unit, which, segment);
}

template <bool Forward>
__device__ float &kept_running(const causal_gradient &a, const chunk_place &p, int which)
{
    return Forward ? a.running[p.unit * a.chunks + p.chunk] : running_of(a, p, which);
}

template <bool Forward>
__device__ void load_kept_vector(const causal_gradient &a, chunk_own &own, const chunk_place &p,
                                 int to, chunk_vector name)
{
    if (threadIdx.x < kDim)
        own.vectors[to][threadIdx.x] = kept_vector<Forward>(a, p, name)[threadIdx.x];
}

template <bool Forward>
__device__ void load_kept_scalar(const causal_gradient &a, chunk_own &own, const chunk_place &p,
                                 token_scalar name)
{
    const int i = (int)threadIdx.x;
    if (i < kChunk)
        own.array[name][i] = i < p.rows ? kept_scalar<Forward>(a, p, name)[i] : 0.0F;
}

template <bool Forward>
__device__ void leave_kept_scalar(const causal_gradient &a, const chunk_place &p,
                                  const strip_place &s, token_scalar name, strip_dots x)
{
    float *to = kept_scalar<Forward>(a, p, name);
    if (s.t == 0 && s.row + s.g < p.rows)
        to[s.row + s.g] = x.low;
    if (s.t == 0 && s.row + s.g + 8 < p.rows)
        to[s.row + s.g + 8] = x.high;
}

/* The warps' sums, in order, as the chunk's part of a vector. The block is in step before. */
template <bool Forward>
__device__ void leave_kept_columns(const causal_gradient &a, const chunk_own &own,
                                   const chunk_place &p, int which, chunk_vector name)
{
    if (threadIdx.x >= kDim)
        return;
    float sum = 0.0F;
#pragma unroll
    for (int warp = 0; warp < kChunkWarps; warp++)
        sum += own.vectors[2 + 2 * warp + which][threadIdx.x];
    kept_vector<Forward>(a, p, name)[threadIdx.x] = sum;
}

extern __shared__ __align__(1024) char split_shared[];

__device__ inline char *panel_of_block(int index)
{
    return split_shared + index * kSplitBytes;
}

__device__ inline chunk_own &own_of(int panels)
{
    return *reinterpret_cast<chunk_own *>(split_shared + panels * kSplitBytes);
}

constexpr size_t bytes_of(int panels)
{
    return (size_t)panels * kSplitBytes + sizeof(chunk_own);
}

__device__ inline head_rows<float> queries_of(const causal_gradient &a, const chunk_place &p)
{
    return rows_of<float>(a.round.s.q, p.head.b, p.head.h, p.at);
}

__device__ inline head_rows<float> keys_of(const causal_gradient &a, const chunk_place &p)
{
    return rows_of<float>(a.round.s.k, p.head.b, p.head.kv_h, p.at);
}

__device__ inline head_rows<float> values_of(const causal_gradient &a, const chunk_place &p)
{
    return rows_of<float>(a.round.s.v, p.head.b, p.head.kv_h, p.at);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

/* sigmoid within an ulp or two: the reciprocal's last digits by one step of Newton's. */
__device__ inline float split_sigmoid(float x)
{
    const float y = 1.0F + expf(smaller_of(-x, 80.0F)), r = reciprocal(y);
    return fmaf(r, fmaf(-y, r, 1.0F), r);
}

/* The slope of phi at x, by the form that keeps its digits. */
__device__ inline float split_slope(float x)
{
    const float e = expf(-fabsf(x)), y = 1.0F + e;
    return __fdividef(e, y * y);
}

/* The strip's rows of a chunk, zero beyond the valid ones. */
__device__ inline void load_split_strip(strip_values &x, const head_rows<float> &rows,
                                        const strip_place &s, int valid)
{
    const float *at = rows.data + (s.row + s.g) * rows.stride + 2 * s.t;
    const bool low = s.row + s.g < valid, high = s.row + s.g + 8 < valid;
    const float2 zero = make_float2(0.0F, 0.0F);
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float2 y = low ? *reinterpret_cast<const float2 *>(at + 8 * n) : zero;
        const float2 z =
            high ? *reinterpret_cast<const float2 *>(at + 8 * rows.stride + 8 * n) : zero;
        x[n][0] = y.x, x[n][1] = y.y, x[n][2] = z.x, x[n][3] = z.y;
    }
}

__device__ inline void store_split_strip(const head_rows<float> &rows, const strip_values &x,
                                         strip_dots weight, const strip_place &s, int end)
{
    float *at = rows.data + (s.row + s.g) * rows.stride + 2 * s.t;
#pragma unroll
    for (int n = 0; n < 8; n++) {
        if (s.row + s.g < end)
            *reinterpret_cast<float2 *>(at + 8 * n) =
                make_float2(weight.low * x[n][0], weight.low * x[n][1]);
        if (s.row + s.g + 8 < end)
            *reinterpret_cast<float2 *>(at + 8 * rows.stride + 8 * n) =
                make_float2(weight.high * x[n][2], weight.high * x[n][3]);
    }
}

/* phi; zero where no token is by a factor: a condition would make a branch of each. */
__device__ inline void map_split_strip(strip_values &x, const strip_place &s, int valid)
{
    const float low = s.row + s.g < valid ? 1.0F : 0.0F;
    const float high = s.row + s.g + 8 < valid ? 1.0F : 0.0F;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[n][i] = (i < 2 ? low : high) * split_sigmoid(x[n][i]);
}

__device__ inline void load_turned(turned_column &x, const head_rows<float> &rows, int valid)
{
    x.load(rows.data, rows.stride, valid);
}

__device__ inline void map_turned(turned_column &x, int valid)
{
#pragma unroll
    for (int i = 0; i < kTurnedEach; i++)
        x.x[i] = (turned_column::row(i) < valid ? 1.0F : 0.0F) * split_sigmoid(x.x[i]);
}

/* The strip's rows into a panel and what products leave out into another, columns in the order of
 * turned panels. */
__device__ inline void put_split_strip(char *high, char *low, const strip_values &x,
                                       const strip_place &s)
{
    const uint32_t row = (uint32_t)((s.row + s.g) * kRowBytes + 4 * s.t);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int quad = 2 * n + i % 2;
            const uint32_t at = row + (uint32_t)(quad / 8 * kSplitHalf + i / 2 * 8 * kRowBytes) +
                                (uint32_t)((quad % 8 << 4) ^ (s.g << 4));
            *reinterpret_cast<float *>(high + at) = x[n][i];
            *reinterpret_cast<float *>(low + at) = low_part(x[n][i]);
        }
}

/* The same turned: rows of the panel are the result's columns. */
__device__ inline void put_split_turned(char *high, char *low, const strip_values &x,
                                        const turned_places_of<true> &places)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            places.in(high, n, i % 2, i / 2) = x[n][i];
            places.in(low, n, i % 2, i / 2) = low_part(x[n][i]);
        }
}

/* Sums over the strip's rows of weight (x + eps), into the warp's place. */
__device__ inline void sum_split_columns(chunk_own &own, int which, const strip_values &x,
                                         strip_dots weight, float eps, const strip_place &s)
{
    float sum[8][2];
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            sum[n][i] = fmaf(weight.low, x[n][i] + eps, weight.high * (x[n][i + 2] + eps));
    ::leave_columns(own.vectors[2 + 2 * s.warp + which], sum);
}

/* Sums over the strip's rows up to each column of weight (score + eps lift), into the warp's place.
 */
__device__ inline void sum_columns_before(chunk_own &own, const strip_values &c,
                                          const strip_place &s, strip_dots weight, strip_dots lift)
{
    float sum[8][2];
    const int low = s.row + s.g, high = low + 8;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int col = 8 * n + 2 * s.t + i;
            const float of_low = weight.low * fmaf(kEps, lift.low, c[n][i]);
            const float of_high = weight.high * fmaf(kEps, lift.high, c[n][i + 2]);
            sum[n][i] = (low <= col ? of_low : 0.0F) + (high <= col ? of_high : 0.0F);
        }
    ::leave_columns(own.vectors[2 + 2 * s.warp], sum);
}

/* Those sums of a token, by its thread; the block is in step before. */
__device__ inline float columns_before(const chunk_own &own)
{
    float sum = 0.0F;
#pragma unroll
    for (int warp = 0; warp < kChunkWarps; warp++)
        sum += own.vectors[2 + 2 * warp][threadIdx.x];
    return sum;
}

/* The part of a chunk's product up to the row (or from it on), its columns weighted (NULL: as they
 * are). */
template <bool Before>
__device__ void cut_triangle(strip_values &c, const float *weight, const strip_place &s)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int col = 8 * n + 2 * s.t + i % 2, row = s.row + s.g + i / 2 * 8;
            const float x = weight == nullptr ? c[n][i] : weight[col] * c[n][i];
            c[n][i] = (Before ? col <= row : col >= row) ? x : 0.0F;
        }
}

/* Lines of a chunk's rows are asked for: those that a later step reads. */
__device__ inline void expect_rows(const head_rows<float> &rows, int valid)
{
    const int row = (int)threadIdx.x % kChunkThreads / 2;
    if (row < valid)
        asm volatile(
            "prefetch.global.L2 [%0];" ::"l"(rows.data + row * rows.stride + threadIdx.x % 2 * 32));
}

#if FB_HAVE_WGMMA

/* c = or += the strip's rows of x times a panel in two parts. */
template <bool Fresh>
__device__ void multiply_strip(strip_values &c, const strip_values &x, const char *high,
                               const char *low)
{
    split_operand a;
    a.take(x);
    if (Fresh)
        clear(c);
    multiply_split(c, a, high, low);
}

/* c = x times one panel in two parts that follow one another, y = x times another. */
__device__ inline void multiply_strip_twice(strip_values &c, strip_values &y, const strip_values &x,
                                            int for_c, int for_y)
{
    split_operand a;
    a.take(x);
    a.hold();
    clear(c);
    clear(y);
    wgmma_hold(c);
    wgmma_hold(y);
    wgmma_begin();
    begin_split_steps(c, a, split_tile(panel_of_block(for_c)),
                      split_tile(panel_of_block(for_c + 1)));
    begin_split_steps(y, a, split_tile(panel_of_block(for_y)),
                      split_tile(panel_of_block(for_y + 1)));
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(c);
    wgmma_hold(y);
}

/* Adds a left operand times a turned panel to the state. */
__device__ inline void add_to_state(strip_values &state, split_operand &x, const char *high,
                                    const char *low)
{
    strip_values part;
    clear(part);
    multiply_split(part, x, high, low);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            state[n][i] += part[n][i];
}

/* A left operand's depth are tokens, in the order of turned panels: times a weight each. */
__device__ inline void weigh_tokens(split_operand &x, const float *weight)
{
    const float *at = weight + (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int step = 0; step < 8; step++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            x.put(step, i, x.at(step, i) * at[8 * step + i / 2]);
}

/* The same, of the warp's rows of a turned panel, its tokens weighted. */
__device__ inline void add_weighted(strip_values &state, const char *panel, const float *weight,
                                    const char *high, const char *low)
{
    split_operand x;
    x.load(panel);
    weigh_tokens(x, weight);
    add_to_state(state, x, high, low);
}

#endif

enum { K_HIGH, K_LOW_PART, SCORE_PANELS };

#if FB_HAVE_WGMMA

/* phi of the strips, the keys' into panels, the sums of their rows; the block is in step after. */
__device__ inline void visit_sides(const causal_gradient &a, chunk_own &own, const chunk_place &p,
                                   const strip_place &s, strip_values &q, strip_values &k)
{
    load_split_strip(k, keys_of(a, p), s, p.rows);
    load_split_strip(q, queries_of(a, p), s, p.rows);
    map_split_strip(k, s, p.rows);
    put_split_strip(panel_of_block(K_HIGH), panel_of_block(K_LOW_PART), k, s);
    s.put(own.array[K_SUM], sum_strip_rows(k));
    map_split_strip(q, s, p.rows);
    publish_shared();
    __syncthreads();
}

#endif

__device__ inline float where(float n, float x)
{
    return n > 0.0F ? x : 0.0F;
}

/* ---- launching ------------------------------------------------------------------------------- */

struct split_launch {
    const causal_gradient &a;
    unsigned units;
    cudaStream_t stream;
    struct fb_error *error;
    enum fb_status status;

    void run(void (*kernel)(causal_gradient), int panels, bool by_segment)
    {
        if (status == FB_OK)
            status =
                fb_cuda_allow_shared((const void *)kernel, bytes_of(panels), "causal flow", error);
        if (status != FB_OK)
            return;
        const dim3 grid((unsigned)(by_segment ? a.segments : a.chunks), units);
        kernel<<<grid, kChunkThreads, bytes_of(panels), stream>>>(a);
        status = fb_cuda_launched("causal flow", error);
    }
};

} // namespace

/* flow_cuda_causal_split_walks.cu: what a gradient's blocks do that walk over segments. */
enum fb_status flow_cuda_split_states(const causal_gradient &a, unsigned units, cudaStream_t stream,
                                      struct fb_error *error);
enum fb_status flow_cuda_split_pull(const causal_gradient &a, unsigned units, cudaStream_t stream,
                                    struct fb_error *error);
enum fb_status flow_cuda_split_push(const causal_gradient &a, unsigned units, cudaStream_t stream,
                                    struct fb_error *error);

/* flow_cuda_causal_split.cu: scalars of every token, as a forward call or a gradient keeps them. */
enum fb_status flow_cuda_split_scalars(const causal_gradient &a, bool forward, unsigned units,
                                       cudaStream_t stream, struct fb_error *error);

#endif
