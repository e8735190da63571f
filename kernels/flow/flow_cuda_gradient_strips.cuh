/*
 * The passes of Flow-Attention's gradient, normal form, for 16 bits and heads of 64: a warp takes
 * strips of 16 tokens, of which it holds phi in f32 in registers, as the results of products lie.
 * Dot products with vectors are f32 throughout; M and dM are rounded as operands.
 * flow_cuda_gradient.cu tells what the passes compute.
 */
#ifndef FB_FLOW_CUDA_GRADIENT_STRIPS_CUH
#define FB_FLOW_CUDA_GRADIENT_STRIPS_CUH

#include "flow_cuda_gradient_visits.cuh"
#include "flow_cuda_normal_gradient.cuh"

namespace
{

constexpr int kStripTokens = 16 * kTileWarps; /* of a tile */
constexpr int kStripTile = kStripTokens * kRowBytes;
constexpr int kStages = 2;
constexpr int kStripVectors = 5;

/* The block's shared memory, behind the tiles [kStages][2]. */
struct strip_shared {
    char matrix[kDim * kRowBytes]; /* scale G or dM as operand */
    float vectors[kStripVectors][kDim];
    float weights[3][kStripTokens]; /* alpha^2, dc, alpha^2 s dr */
    float r[kStripTokens];
    float sums[kTileWarps][2][kDim];
};

constexpr size_t kStripBytes = (size_t)kStages * 2 * kStripTile + sizeof(strip_shared);

/* Whole: every row starts on 16 bytes. Others are there when this is over. */
template <bool Whole>
__device__ void fetch_strips(char *tile, const tensor_view &view, int64_t b, int64_t h,
                             int64_t first, int valid)
{
    constexpr int step = kTileThreads / 8;
    const head_rows<__nv_bfloat16> x = rows_of<__nv_bfloat16>(view, b, h, first);
    const int own = threadIdx.x / 8, chunk = threadIdx.x % 8;
#pragma unroll
    for (int row = own; row < kStripTokens; row += step) {
        const __nv_bfloat16 *from = x.data + row * x.stride + 8 * chunk;
        if constexpr (Whole)
            copy_chunk_async(shared_address(tile) + chunk_offset(row, chunk),
                             row < valid ? from : static_cast<__nv_bfloat16 *>(view.data),
                             row < valid);
        else
            *reinterpret_cast<uint4 *>(tile + chunk_offset(row, chunk)) =
                row < valid ? read_entries(from) : make_uint4(0, 0, 0, 0);
    }
}

/* ---- the walk over a slice ------------------------------------------------------------------- */

/* visit(tiles x and y, first token, valid rows) of every tile of the slice, the next one under way.
 */
template <bool Whole, typename Visit>
__device__ void walk_slice(char *shared, const tensor_view &x, const tensor_view &y,
                           const flow_cuda_head &head, int64_t x_head, int64_t y_head,
                           const slice_range &range, Visit visit)
{
    const auto fetch = [&](int64_t at, int stage) {
        const int valid = (int)min((int64_t)kStripTokens, range.valid_end - at);
        char *tile = shared + stage * 2 * kStripTile;
        if (valid > 0) {
            fetch_strips<Whole>(tile, x, head.b, x_head, at, valid);
            fetch_strips<Whole>(tile + kStripTile, y, head.b, y_head, at, valid);
        }
        commit_copies();
    };
    int stage = 0;
    fetch(range.first, 0);
    for (int64_t at = range.first; at < range.valid_end; at += kStripTokens, stage ^= 1) {
        const int valid = (int)min((int64_t)kStripTokens, range.valid_end - at);
        char *tile = shared + stage * 2 * kStripTile;
        fetch(at + kStripTokens, stage ^ 1);
        wait_copies<1>();
        __syncthreads();
        visit(tile, tile + kStripTile, at, valid);
        __syncthreads();
    }
    wait_copies<0>();
}

__device__ inline strip_shared &strip_shared_of(char *shared)
{
    return *reinterpret_cast<strip_shared *>(shared + kStages * 2 * kStripTile);
}

__device__ inline void load_strip_vector(strip_shared &own, int index, const float *from, float eps)
{
    for (int i = threadIdx.x; i < kDim; i += kTileThreads)
        own.vectors[index][i] = from[i] + eps;
}

/* Gradients of the flows are values times dout, more or less, times queries for a key. */
template <typename T> using flow_factors = range_factors<T, 0>;

/* ---- gather ---------------------------------------------------------------------------------- */

/* What a warp sums up over the tokens: 16 rows and 32 columns of dM and of A2; du, A1 and A3 of the
 * rows as the first three columns of a product (of eps, what the sums of weights would add is left
 * out: 2e-6 of terms rounded by 4e-3). */
struct gather_sums {
    float product[4][4], moment[4][4], vectors[4];
};

template <typename T>
__device__ void add_tokens(gather_sums &sums, const strip_shared &own, uint32_t queries,
                           uint32_t gradients, const lane_places &at)
{
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll 2
    for (int row = 0; row < kStripTokens; row += 16) {
        uint32_t a[4], scaled[4], b[2][4];
        load_a_turned(a, queries + row * kRowBytes, at, warp % 4);
        const auto pair = [&](const float *x, int i) {
            return *reinterpret_cast<const float2 *>(x + row + 8 * i + 2 * t);
        };
#pragma unroll
        for (int i = 0; i < 4; i++)
            scaled[i] = scale_two<T>(a[i], pair(own.r, i / 2));
#pragma unroll
        for (int i = 0; i < 2; i++) {
            load_b(b[i], gradients + row * kRowBytes, at, warp / 4 * 2 + i);
            multiply<T>(sums.product[2 * i], scaled, b[i][0], b[i][1]);
            multiply<T>(sums.product[2 * i + 1], scaled, b[i][2], b[i][3]);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
            scaled[i] = scale_two<T>(a[i], pair(own.weights[0], i / 2));
#pragma unroll
        for (int i = 0; i < 2; i++) {
            load_b(b[i], queries + row * kRowBytes, at, warp / 4 * 2 + i);
            multiply<T>(sums.moment[2 * i], scaled, b[i][0], b[i][1]);
            multiply<T>(sums.moment[2 * i + 1], scaled, b[i][2], b[i][3]);
        }
        if (warp < 4) {
            /* flows have a bound; a gradient that is beyond the range must show */
            const float2 low = pair(own.weights[g % 3], 0), high = pair(own.weights[g % 3], 1);
            const auto packed = [&](float2 x) {
                return g == 0 ? pack_bounded<T>(x.x, x.y) : pack_pair<T>(x.x, x.y);
            };
            multiply<T>(sums.vectors, a, g < 3 ? packed(low) : 0, g < 3 ? packed(high) : 0);
        }
    }
}

/* share, flow: what undoes the ranges of r and of the flows' gradients. */
__device__ inline void leave_sums(const normal_gradient &a, float *part, const gather_sums &sums,
                                  float share, float flow)
{
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const slot_vector names[4] = {A3, DU, A1, SLOT_VECTORS}; /* in the order of the weights */
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = warp % 4 * 16 + g + 8 * half;
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const int place = row * kDim + warp / 4 * 32 + 8 * n + 2 * t;
            product_of(a, part)[place] = sums.product[n][2 * half] * share;
            product_of(a, part)[place + 1] = sums.product[n][2 * half + 1] * share;
            moment_of(a, part)[place] = sums.moment[n][2 * half] * share * share;
            moment_of(a, part)[place + 1] = sums.moment[n][2 * half + 1] * share * share;
        }
        if (warp < 4 && t < 2) {
            part[names[2 * t] * kDim + row] =
                sums.vectors[2 * half] * (share * (t == 0 ? share : flow));
            if (t == 0)
                part[names[1] * kDim + row] = sums.vectors[2 * half + 1] * flow;
        }
    }
}

/* grid (slices, units), as all of these */
template <typename T, bool Whole>
__global__ void __launch_bounds__(kTileThreads, 2)
    gather_strips(const __grid_constant__ normal_gradient a)
{
    extern __shared__ __align__(1024) char strips[];
    strip_shared &own = strip_shared_of(strips);
    const flow_cuda_shape &s = a.round.s;
    const flow_cuda_head head = round_head(a.round, blockIdx.y);
    const float *totals = totals_of(a, head);
    const float *scalars = totals + FB_FLOW_CUDA_VECTORS * kDim;
    const float ratio = (float)((double)head.q_len / (double)head.kv_len);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const lane_places at;
    load_strip_vector(own, 0, totals, kEps);
    load_strip_vector(own, 1, totals + 2 * kDim, kEps);
    const gradient_factors<T> factors(a.ranges);
    matrix_rows<kTileThreads>(scalars + FB_FLOW_CUDA_SCALARS)
        .template put<T>(own.matrix, scalars[0] * factors.state.into);
    const flow_factors<T> flow(ratio);
    gather_sums sums = {};
    walk_slice<Whole>(
        strips, s.q, a.round.dout, head, head.h, head.h, range_of(s, head.q_len, s.q_len),
        [&](char *q, char *gradient, int64_t, int valid) {
            const int row = 16 * warp;
            strip_values phi, h = {};
            uint32_t packed[4][4];
            const sink_strip x =
                visit_sink_strip<T>(phi, packed, h, shared_address(q) + row * kRowBytes,
                                    shared_address(gradient) + row * kRowBytes, own.vectors[0],
                                    own.vectors[1], turned_product<T>{own.matrix, at}, ratio,
                                    factors.state.back, row + g < valid, row + g + 8 < valid, at);
            const float into = factors.share.into;
            __syncwarp();
            put_packed(q + row * kRowBytes, packed, at);
            if (t == 0)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int to = row + g + 8 * half;
                    const float alpha = half == 0 ? x.alpha.low : x.alpha.high;
                    const float share = half == 0 ? x.share.low : x.share.high;
                    const float dr = half == 0 ? x.dr.low : x.dr.high;
                    own.r[to] = share * alpha * into;
                    own.weights[0][to] = alpha * alpha * (into * into);
                    own.weights[1][to] = (half == 0 ? x.dc.low : x.dc.high) * flow.into;
                    own.weights[2][to] = alpha * alpha * share * dr * (into * flow.into);
                }
            __syncthreads();
            add_tokens<T>(sums, own, shared_address(q), shared_address(gradient), at);
        });
    leave_sums(a, a.parts + (blockIdx.y * (int64_t)s.slices + blockIdx.x) * a.part_count, sums,
               factors.share.back, flow.back);
}

/* ---- sinks ----------------------------------------------------------------------------------- */

template <typename T, bool Whole>
__global__ void __launch_bounds__(kTileThreads, 2)
    sinks_strips(const __grid_constant__ normal_gradient a)
{
    extern __shared__ __align__(1024) char strips[];
    strip_shared &own = strip_shared_of(strips);
    const flow_cuda_shape &s = a.round.s;
    const flow_cuda_head head = round_head(a.round, blockIdx.y);
    const float *totals = totals_of(a, head), *sums = sums_of(a, blockIdx.y);
    const float *scalars = totals + FB_FLOW_CUDA_VECTORS * kDim;
    const float ratio = (float)((double)head.q_len / (double)head.kv_len);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const lane_places at;
    load_strip_vector(own, 0, totals, kEps);
    load_strip_vector(own, 1, totals + 2 * kDim, kEps);
    load_strip_vector(own, 2, sums + DW * kDim, 0.0F);
    load_strip_vector(own, 3, sums + DSQ * kDim, 0.0F);
    const gradient_factors<T> factors(a.ranges);
    matrix_rows<kTileThreads>(scalars + FB_FLOW_CUDA_SCALARS)
        .template put<T>(own.matrix, scalars[0] * factors.state.into);
    walk_slice<Whole>(
        strips, s.q, a.round.dout, head, head.h, head.h, range_of(s, head.q_len, s.q_len),
        [&](char *q, char *gradient, int64_t first, int valid) {
            const int row = 16 * warp;
            strip_values phi, h = {};
            uint32_t packed[4][4];
            const sink_strip x =
                visit_sink_strip<T>(phi, packed, h, shared_address(q) + row * kRowBytes,
                                    shared_address(gradient) + row * kRowBytes, own.vectors[0],
                                    own.vectors[1], turned_product<T>{own.matrix, at}, ratio,
                                    factors.state.back, row + g < valid, row + g + 8 < valid, at);
            strip_dots da = dot_vector(phi, own.vectors[2]);
            da.low = -x.alpha.low * x.alpha.low * fmaf(x.share.low, x.dr.low, da.low);
            da.high = -x.alpha.high * x.alpha.high * fmaf(x.share.high, x.dr.high, da.high);
            const float back = factors.state.back;
            const float r[2] = {x.share.low * x.alpha.low * back,
                                x.share.high * x.alpha.high * back};
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int col = 8 * n + 2 * t + i % 2;
                    float sum = fmaf(r[i / 2], h[n][i], own.vectors[3][col]);
                    sum = fmaf(i < 2 ? x.dc.low : x.dc.high, own.vectors[1][col], sum);
                    sum = fmaf(i < 2 ? x.alpha.low : x.alpha.high, own.vectors[2][col], sum);
                    sum = fmaf(i < 2 ? da.low : da.high, own.vectors[0][col], sum);
                    h[n][i] = sum * slope_from(phi[n][i]);
                }
            __syncwarp();
            put_strip<T>(q + row * kRowBytes, h, at);
            __syncwarp();
            leave_strip<Whole>(rows_of<__nv_bfloat16>(a.round.dq, head.b, head.h, first), q, row,
                               valid);
        });
}

/* ---- sources --------------------------------------------------------------------------------- */

/* phi(k), also as operand a, t = v dM^T (but for `back`) and the scalars. vectors: sq, w, du. */
template <typename T>
__device__ source_strip visit_source_strip(strip_values &phi, uint32_t (&packed)[4][4],
                                           strip_values &turned, uint32_t k, uint32_t v,
                                           const strip_shared &own, float back, float scale,
                                           float mean, float clamp, bool low_valid, bool high_valid,
                                           const lane_places &at)
{
    source_strip x =
        open_source_strip<T>(phi, k, own.vectors[1], scale, clamp, low_valid, high_valid, at);
    close_source_strip<T>(x, phi, packed, turned, v, own.vectors[0], own.vectors[2],
                          turned_product<T>{own.matrix, at}, back, mean, clamp, low_valid,
                          high_valid, at);
    return x;
}

/* The matrix dM and the vectors of visit_source_strip. */
template <typename T>
__device__ void ready_sources(const normal_gradient &a, strip_shared &own, const float *totals,
                              float *sums)
{
    load_strip_vector(own, 0, totals + kDim, kEps);
    load_strip_vector(own, 1, totals + 3 * kDim, kEps);
    load_strip_vector(own, 2, sums + DU * kDim, 0.0F);
    const gradient_factors<T> factors(a.ranges);
    matrix_rows<kTileThreads>(product_of(a, sums)).template put<T>(own.matrix, factors.matrix.into);
}

template <typename T, bool Whole>
__global__ void __launch_bounds__(kTileThreads, 2)
    spread_strips(const __grid_constant__ normal_gradient a)
{
    extern __shared__ __align__(1024) char strips[];
    strip_shared &own = strip_shared_of(strips);
    const flow_cuda_shape &s = a.round.s;
    const flow_cuda_head head = round_head(a.round, blockIdx.y);
    const float *totals = totals_of(a, head);
    float *all = sums_of(a, blockIdx.y);
    const float scale = totals[FB_FLOW_CUDA_VECTORS * kDim], mean = all[a.part_count];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const lane_places at;
    const gradient_factors<T> factors(a.ranges);
    const float back = factors.matrix.back;
    ready_sources<T>(a, own, totals, all);
    float sums[2][8][2] = {}; /* dw, dsq: the lane's columns over its rows */
    walk_slice<Whole>(
        strips, s.k, s.v, head, head.kv_h, head.kv_h, range_of(s, head.kv_len, s.kv_len),
        [&](char *k, char *v, int64_t, int valid) {
            const int row = 16 * warp;
            strip_values phi, turned = {};
            uint32_t packed[4][4];
            const source_strip x =
                visit_source_strip<T>(phi, packed, turned, shared_address(k) + row * kRowBytes,
                                      shared_address(v) + row * kRowBytes, own, back, scale, mean,
                                      s.clamp, row + g < valid, row + g + 8 < valid, at);
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const float low = phi[n][i] + kEps, high = phi[n][i + 2] + kEps;
                    sums[0][n][i] += fmaf(x.dflow.low, low, x.dflow.high * high);
                    sums[1][n][i] += fmaf(x.db.low, low, x.db.high * high);
                }
        });
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float sum = sums[j][n][i];
#pragma unroll
                for (int step = 4; step < 32; step *= 2)
                    sum += __shfl_xor_sync(0xffffffffU, sum, step);
                if (g == 0)
                    own.sums[warp][j][8 * n + 2 * t + i] = sum;
            }
    __syncthreads();
    float *part = a.parts + (blockIdx.y * (int64_t)s.slices + blockIdx.x) * a.part_count;
    for (int i = threadIdx.x; i < 2 * kDim; i += kTileThreads) {
        float sum = 0.0F;
#pragma unroll
        for (int other = 0; other < kTileWarps; other++)
            sum += own.sums[other][i / kDim][i % kDim];
        part[DW * kDim + i] = sum; /* DSQ follows DW */
    }
}

template <typename T, bool Whole>
__global__ void __launch_bounds__(kTileThreads, 2)
    sources_strips(const __grid_constant__ normal_gradient a)
{
    extern __shared__ __align__(1024) char strips[];
    strip_shared &own = strip_shared_of(strips);
    const flow_cuda_shape &s = a.round.s;
    const flow_cuda_head head = round_head(a.round, blockIdx.y);
    const float *totals = totals_of(a, head);
    float *sums = sums_of(a, blockIdx.y);
    const float scale = totals[FB_FLOW_CUDA_VECTORS * kDim], mean = sums[a.part_count];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const lane_places at;
    const gradient_factors<T> factors(a.ranges);
    const float back = factors.matrix.back;
    ready_sources<T>(a, own, totals, sums);
    load_strip_vector(own, 3, sums + DSK * kDim, 0.0F);
    walk_slice<Whole>(
        strips, s.k, s.v, head, head.kv_h, head.kv_h, range_of(s, head.kv_len, s.kv_len),
        [&](char *k, char *v, int64_t first, int valid) {
            const int row = 16 * warp;
            strip_values phi, y = {};
            uint32_t keys[4][4];
            const source_strip x =
                visit_source_strip<T>(phi, keys, y, shared_address(k) + row * kRowBytes,
                                      shared_address(v) + row * kRowBytes, own, back, scale, mean,
                                      s.clamp, row + g < valid, row + g + 8 < valid, at);
            const strip_dots p = {x.p.low * back, x.p.high * back};
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int col = 8 * n + 2 * t + i % 2;
                    float sum = fmaf(i < 2 ? p.low : p.high, y[n][i], own.vectors[3][col]);
                    sum = fmaf(i < 2 ? x.dflow.low : x.dflow.high, own.vectors[1][col], sum);
                    sum = fmaf(i < 2 ? x.beta.low : x.beta.high, own.vectors[2][col], sum);
                    sum = fmaf(i < 2 ? x.db.low : x.db.high, own.vectors[0][col], sum);
                    y[n][i] = sum * slope_from(phi[n][i]);
                }
            __syncwarp(); /* every lane has read the strips of k and v */
            put_strip<T>(k + row * kRowBytes, y, at);
#pragma unroll
            for (int n = 0; n < 8; n++)
                y[n][0] = y[n][1] = y[n][2] = y[n][3] = 0.0F;
            multiply_matrix<false, T>(y, keys, own.matrix, at);
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    y[n][i] *= i < 2 ? p.low : p.high;
            put_strip<T>(v + row * kRowBytes, y, at);
            __syncwarp();
            leave_strip<Whole>(rows_of<__nv_bfloat16>(a.round.dk, head.b, head.kv_h, first), k, row,
                               valid);
            leave_strip<Whole>(rows_of<__nv_bfloat16>(a.round.dv, head.b, head.kv_h, first), v, row,
                               valid);
        });
}

} // namespace

#endif
