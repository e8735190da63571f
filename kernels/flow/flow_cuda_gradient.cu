/*
 * Gradients of Flow-Attention, normal form, on any GPU from sm_80. With g = dout, r = s alpha,
 * M = scale G, ratio = L/S, x' = x + eps, all sums over the head's tokens (flow_cpu_gradient.c
 * tells the same):
 *
 *   totals   sk, sq, u, w, scale, G                           the forward's passes, but for the
 * last gather   h = g M^T, dr = h . q, dc = ratio alpha dr s (1 - s)                       reads q,
 * g dM = sum q^T (r g), du = sum dc q', A1 = sum alpha^2 s dr q', A2 = sum q' (alpha^2 q)^T spread
 * t = v dM^T, dp = t . k, do = p (dp - sum M.dM / S) inside the clamp        reads k, v dw = sum do
 * k', db = -beta^2 k . du, dsq = sum db k' then     dsk = -(A1 + A2 dw) sinks    da = -alpha^2 (s
 * dr + q . dw)                                 reads q, g, writes dq dq = (r h + dc u' + alpha dw +
 * da sk' + dsq) phi'(q) sources  dv = p k dM                                             reads k,
 * v, writes dk, dv dk = (p t + do w' + beta du + db sq' + dsk) phi'(k)
 *
 * The moments A1 and A2 stand for one more pass; the eps of A2's first factor is the vector A3 =
 * sum alpha^2 q. Dot products that decide about the clamp are taken from f32 phi. Slices leave
 * their parts in places of their own and are added in order: same bits every time.
 */
#include "flow_cuda.h"
#include "flow_cuda_gradient_strips.cuh"

namespace
{

/* The block's shared memory: two tiles of the side, its other operand, scalars per token. */
struct gradient_shared {
    float *x, *y, *values; /* [rows][ld], [rows][ld], [rows][value_ld] */
    float *vectors;        /* [5][cols] */
    float *buffer;         /* [kTileThreads] */
    float *scalar[8];      /* [rows] */
    int ld, value_ld;
};

__host__ __device__ inline size_t shared_floats(const flow_cuda_shape &s, int rows)
{
    return (size_t)rows * (2 * (size_t)(s.cols + 4) + (size_t)(s.value_cols + 4) + 8) +
           5 * (size_t)s.cols + kTileThreads;
}

__device__ gradient_shared carve(float *at, const flow_cuda_shape &s, int rows)
{
    gradient_shared x;
    x.ld = s.cols + 4;
    x.value_ld = s.value_cols + 4;
    x.x = at;
    x.y = x.x + rows * x.ld;
    x.values = x.y + rows * x.ld;
    x.vectors = x.values + rows * x.value_ld;
    x.buffer = x.vectors + 5 * s.cols;
    for (int i = 0; i < 8; i++)
        x.scalar[i] = x.buffer + kTileThreads + i * rows;
    return x;
}

/* ---- sinks ----------------------------------------------------------------------------------- */

enum sink_scalar { ALPHA, S, DR, DC, R, SQUARE, DA };

/* phi(q) into x, h into y, and the scalars of a tile; values holds g. vectors: sk, u. */
template <typename T>
__device__ void visit_sinks(const normal_gradient &a, const gradient_shared &x,
                            const flow_cuda_head &head, const float *totals, int64_t at, int rows)
{
    const flow_cuda_shape &s = a.round.s;
    const float *scalars = totals + FB_FLOW_CUDA_VECTORS * s.cols;
    const float *product = scalars + FB_FLOW_CUDA_SCALARS, scale = scalars[0];
    const float ratio = (float)((double)head.q_len / (double)head.kv_len);
    load_rows(x.x, x.ld, a.rows, s.cols, rows_of<T>(s.q, head.b, head.h, at), rows, s.dim,
              flow_map{s.phi});
    load_rows(x.values, x.value_ld, a.rows, s.value_cols,
              rows_of<T>(a.round.dout, head.b, head.h, at), rows, s.value_dim, keep_value{});
    __syncthreads();
    block_product<products_of<T>()>(
        a.rows, s.cols, s.value_cols, operand{x.values, x.value_ld, 1},
        operand{product, 1, s.value_cols},
        [&](int row, int col, float h) { x.y[row * x.ld + col] = scale * h; });
    dot_rows(x.x, x.ld, a.rows, s.dim, x.vectors, FB_FLOW_EPSILON, x.scalar[ALPHA]);
    dot_rows(x.x, x.ld, a.rows, s.dim, x.vectors + s.cols, FB_FLOW_EPSILON, x.scalar[S]);
    __syncthreads();
    pair_dots(x.x, x.y, x.ld, a.rows, s.cols, x.scalar[DR]);
    __syncthreads();
    for (int i = threadIdx.x; i < a.rows; i += kTileThreads) {
        const bool valid = i < rows;
        const float alpha = valid ? 1.0F / (x.scalar[ALPHA][i] + s.extra_eps) : 0.0F;
        const float c = (x.scalar[S][i] + s.extra_eps) * ratio;
        const float share = s.allocation ? sigmoid(c) : 1.0F;
        const float slope = s.allocation ? share * sigmoid(-c) : 0.0F;
        x.scalar[ALPHA][i] = alpha;
        x.scalar[S][i] = share;
        x.scalar[DC][i] = valid ? ratio * alpha * x.scalar[DR][i] * slope : 0.0F;
        x.scalar[R][i] = share * alpha;
        x.scalar[SQUARE][i] = alpha * alpha;
    }
    __syncthreads();
}

/* grid (slices, units) */
template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    gather_kernel(const __grid_constant__ normal_gradient a)
{
    extern __shared__ __align__(16) float shared[];
    const flow_cuda_shape &s = a.round.s;
    const gradient_shared x = carve(shared, s, a.rows);
    const flow_cuda_head head = round_head(a.round, blockIdx.y);
    const float *totals = totals_of(a, head);
    float *part = a.parts + (blockIdx.y * (int64_t)s.slices + blockIdx.x) * a.part_count;
    float *product = product_of(a, part), *moment = moment_of(a, part);
    const slice_range range = range_of(s, head.kv_len == 0 ? 0 : head.q_len, s.q_len);
    for (int i = threadIdx.x; i < s.cols; i += kTileThreads) {
        x.vectors[i] = totals[i];
        x.vectors[s.cols + i] = totals[2 * s.cols + i];
    }
    for (int i = threadIdx.x; i < s.cols * (s.value_cols + s.cols); i += kTileThreads)
        product[i] = 0.0F;
    careful_sum du = {}, a1 = {}, a3 = {};
    __syncthreads();
    for (int64_t at = range.first; at < range.valid_end; at += a.rows) {
        const int rows = (int)min((int64_t)a.rows, range.valid_end - at);
        visit_sinks<T>(a, x, head, totals, at, rows);
        du.add(column_part(x.x, x.ld, a.rows, s.cols, x.scalar[DC], FB_FLOW_EPSILON));
        a3.add(column_part(x.x, x.ld, a.rows, s.cols, x.scalar[SQUARE], 0.0F));
        for (int i = threadIdx.x; i < a.rows; i += kTileThreads)
            x.scalar[DA][i] = x.scalar[SQUARE][i] * x.scalar[S][i] * x.scalar[DR][i];
        for (int i = threadIdx.x; i < a.rows * s.cols; i += kTileThreads) {
            const int row = i / s.cols, place = row * x.ld + i % s.cols;
            x.y[place] = x.scalar[SQUARE][row] * x.x[place];
        }
        scale_rows(x.values, x.value_ld, a.rows, s.value_cols, x.scalar[R]);
        __syncthreads();
        a1.add(column_part(x.x, x.ld, a.rows, s.cols, x.scalar[DA], FB_FLOW_EPSILON));
        block_product<products_of<T>()>(
            s.cols, s.value_cols, a.rows, operand{x.x, 1, x.ld}, operand{x.values, x.value_ld, 1},
            [&](int row, int col, float y) { product[row * s.value_cols + col] += y; });
        block_product<products_of<T>()>(
            s.cols, s.cols, a.rows, operand{x.x, 1, x.ld}, operand{x.y, x.ld, 1},
            [&](int row, int col, float y) { moment[row * s.cols + col] += y; });
        __syncthreads();
    }
    join_columns(du.value, s.cols, x.buffer, part + DU * s.cols);
    join_columns(a1.value, s.cols, x.buffer, part + A1 * s.cols);
    join_columns(a3.value, s.cols, x.buffer, part + A3 * s.cols);
}

/* ---- sources --------------------------------------------------------------------------------- */

enum source_scalar { BETA, O, DP, DB, P, DO };

/* phi(k) into x, t into y, and the scalars of a tile; values holds v. vectors: sq, w, du. */
template <typename T>
__device__ void visit_sources(const normal_gradient &a, const gradient_shared &x,
                              const flow_cuda_head &head, const float *totals, float *sums,
                              int64_t at, int rows)
{
    const flow_cuda_shape &s = a.round.s;
    const float *scalars = totals + FB_FLOW_CUDA_VECTORS * s.cols;
    const float *product = product_of(a, sums), mean = sums[a.part_count];
    load_rows(x.x, x.ld, a.rows, s.cols, rows_of<T>(s.k, head.b, head.kv_h, at), rows, s.dim,
              flow_map{s.phi});
    load_rows(x.values, x.value_ld, a.rows, s.value_cols, rows_of<T>(s.v, head.b, head.kv_h, at),
              rows, s.value_dim, keep_value{});
    __syncthreads();
    block_product<products_of<T>()>(a.rows, s.cols, s.value_cols, operand{x.values, x.value_ld, 1},
                                    operand{product, 1, s.value_cols},
                                    [&](int row, int col, float t) { x.y[row * x.ld + col] = t; });
    dot_rows(x.x, x.ld, a.rows, s.dim, x.vectors, FB_FLOW_EPSILON, x.scalar[BETA]);
    dot_rows(x.x, x.ld, a.rows, s.dim, x.vectors + s.cols, FB_FLOW_EPSILON, x.scalar[O]);
    dot_rows(x.x, x.ld, a.rows, s.dim, x.vectors + 2 * s.cols, 0.0F, x.scalar[DB]);
    __syncthreads();
    pair_dots(x.x, x.y, x.ld, a.rows, s.cols, x.scalar[DP]);
    __syncthreads();
    for (int i = threadIdx.x; i < a.rows; i += kTileThreads) {
        const bool valid = i < rows;
        const float beta = valid ? 1.0F / (x.scalar[BETA][i] + s.extra_eps) : 0.0F;
        const float o = x.scalar[O][i] + s.extra_eps;
        const float e = s.compete ? expf(fminf(fmaxf(o, -s.clamp), s.clamp) - scalars[1]) : 1.0F;
        const float p = valid ? e * scalars[0] : 0.0F;
        const bool inside = s.compete && fabsf(o) <= s.clamp;
        x.scalar[BETA][i] = beta;
        x.scalar[P][i] = p;
        x.scalar[DO][i] = inside ? p * (x.scalar[DP][i] - mean) : 0.0F;
        x.scalar[DB][i] *= -beta * beta;
    }
    __syncthreads();
}

__device__ void load_source_vectors(const normal_gradient &a, const gradient_shared &x,
                                    const float *totals, const float *sums)
{
    const int cols = a.round.s.cols;
    for (int i = threadIdx.x; i < cols; i += kTileThreads) {
        x.vectors[i] = totals[cols + i];
        x.vectors[cols + i] = totals[3 * cols + i];
        x.vectors[2 * cols + i] = sums[DU * cols + i];
    }
    __syncthreads();
}

/* grid (slices, units) */
template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    spread_kernel(const __grid_constant__ normal_gradient a)
{
    extern __shared__ __align__(16) float shared[];
    const flow_cuda_shape &s = a.round.s;
    const gradient_shared x = carve(shared, s, a.rows);
    const flow_cuda_head head = round_head(a.round, blockIdx.y);
    const float *totals = totals_of(a, head);
    float *sums = sums_of(a, blockIdx.y);
    float *part = a.parts + (blockIdx.y * (int64_t)s.slices + blockIdx.x) * a.part_count;
    const slice_range range = range_of(s, head.kv_len, s.kv_len);
    load_source_vectors(a, x, totals, sums);
    careful_sum dw = {}, dsq = {};
    for (int64_t at = range.first; at < range.valid_end; at += a.rows) {
        const int rows = (int)min((int64_t)a.rows, range.valid_end - at);
        visit_sources<T>(a, x, head, totals, sums, at, rows);
        dw.add(column_part(x.x, x.ld, a.rows, s.cols, x.scalar[DO], FB_FLOW_EPSILON));
        dsq.add(column_part(x.x, x.ld, a.rows, s.cols, x.scalar[DB], FB_FLOW_EPSILON));
        __syncthreads();
    }
    join_columns(dw.value, s.cols, x.buffer, part + DW * s.cols);
    join_columns(dsq.value, s.cols, x.buffer, part + DSQ * s.cols);
}

/* ---- sums over the slices -------------------------------------------------------------------- */

/* Adds the slices' parts from `first`, `count` of them; grid (units, parts of count), block 256 */
__global__ void add_parts(const __grid_constant__ normal_gradient a, int64_t first, int64_t count)
{
    const int slices = a.round.s.slices;
    const int64_t unit = blockIdx.x, i = blockIdx.y * (int64_t)blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    const float *parts = a.parts + unit * slices * a.part_count + first + i;
    double sum = 0.0;
    for (int slice = 0; slice < slices; slice++)
        sum += (double)parts[slice * a.part_count];
    sums_of(a, unit)[first + i] = (float)sum;
}

/* The block's sum of a number per thread, by halves. */
__device__ double block_sum(double x, double *buffer)
{
    buffer[threadIdx.x] = x;
    for (int half = kTileThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half)
            buffer[threadIdx.x] += buffer[threadIdx.x + half];
    }
    __syncthreads();
    return buffer[0];
}

/* sum M.dM / S; grid (units), block kTileThreads */
__global__ void mean_kernel(const __grid_constant__ normal_gradient a)
{
    __shared__ double buffer[kTileThreads];
    const flow_cuda_shape &s = a.round.s;
    const flow_cuda_head head = round_head(a.round, blockIdx.x);
    const float *scalars = totals_of(a, head) + FB_FLOW_CUDA_VECTORS * s.cols;
    float *sums = sums_of(a, blockIdx.x);
    const float *product = scalars + FB_FLOW_CUDA_SCALARS, *dproduct = product_of(a, sums);
    double sum = 0.0;
    for (int i = threadIdx.x; i < s.cols * s.value_cols; i += kTileThreads)
        sum += (double)product[i] * (double)dproduct[i];
    sum = block_sum(sum, buffer);
    if (threadIdx.x == 0)
        sums[a.part_count] =
            head.kv_len == 0 ? 0.0F : (float)(sum * (double)scalars[0] / (double)head.kv_len);
}

/* dsk = -(A1 + (A2 + eps 1 A3^T) dw); grid (units), block kTileThreads */
__global__ void source_sum_kernel(const __grid_constant__ normal_gradient a)
{
    const int cols = a.round.s.cols;
    float *sums = sums_of(a, blockIdx.x);
    const float *moment = moment_of(a, sums), *dw = sums + DW * cols;
    for (int i = threadIdx.x; i < cols; i += kTileThreads) {
        double sum = (double)sums[A1 * cols + i];
        for (int j = 0; j < cols; j++)
            sum += ((double)moment[i * cols + j] +
                    (double)FB_FLOW_EPSILON * (double)sums[A3 * cols + j]) *
                   (double)dw[j];
        sums[DSK * cols + i] = (float)-sum;
    }
}

/* ---- outputs --------------------------------------------------------------------------------- */

/* grid (slices, units) */
template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    sinks_kernel(const __grid_constant__ normal_gradient a)
{
    extern __shared__ __align__(16) float shared[];
    const flow_cuda_shape &s = a.round.s;
    const gradient_shared x = carve(shared, s, a.rows);
    const flow_cuda_head head = round_head(a.round, blockIdx.y);
    const float *totals = totals_of(a, head), *sums = sums_of(a, blockIdx.y);
    const slice_range range = range_of(s, head.kv_len == 0 ? 0 : head.q_len, s.q_len);
    float *dw = x.vectors + 2 * s.cols, *dsq = dw + s.cols;
    for (int i = threadIdx.x; i < s.cols; i += kTileThreads) {
        x.vectors[i] = totals[i];
        x.vectors[s.cols + i] = totals[2 * s.cols + i];
        dw[i] = sums[DW * s.cols + i];
        dsq[i] = sums[DSQ * s.cols + i];
    }
    __syncthreads();
    for (int64_t at = range.first; at < range.end; at += a.rows) {
        const int rows = (int)max((int64_t)0, min((int64_t)a.rows, range.valid_end - at));
        const int end = (int)min((int64_t)a.rows, range.end - at);
        if (rows > 0) {
            visit_sinks<T>(a, x, head, totals, at, rows);
            dot_rows(x.x, x.ld, a.rows, s.dim, dw, 0.0F, x.scalar[DA]);
            __syncthreads();
            for (int i = threadIdx.x; i < a.rows; i += kTileThreads)
                x.scalar[DA][i] =
                    -x.scalar[SQUARE][i] * (x.scalar[S][i] * x.scalar[DR][i] + x.scalar[DA][i]);
            __syncthreads();
        }
        const head_rows<T> q = rows_of<T>(s.q, head.b, head.h, at);
        write_rows(rows_of<T>(a.round.dq, head.b, head.h, at), rows, end, s.dim, false,
                   [&](int row, int col) {
                       const float eps = FB_FLOW_EPSILON;
                       float sum = fmaf(x.scalar[R][row], x.y[row * x.ld + col], dsq[col]);
                       sum = fmaf(x.scalar[DC][row], x.vectors[s.cols + col] + eps, sum);
                       sum = fmaf(x.scalar[ALPHA][row], dw[col], sum);
                       sum = fmaf(x.scalar[DA][row], x.vectors[col] + eps, sum);
                       return sum * slope_of(s.phi, to_f32(q.data[row * q.stride + col]));
                   });
        __syncthreads();
    }
}

/* grid (slices, units) */
template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    sources_kernel(const __grid_constant__ normal_gradient a)
{
    extern __shared__ __align__(16) float shared[];
    const flow_cuda_shape &s = a.round.s;
    const gradient_shared x = carve(shared, s, a.rows);
    const flow_cuda_head head = round_head(a.round, blockIdx.y);
    const float *totals = totals_of(a, head);
    float *sums = sums_of(a, blockIdx.y);
    const float *product = product_of(a, sums), *dsk = sums + DSK * s.cols;
    const slice_range range = range_of(s, head.kv_len, s.kv_len);
    const bool add = a.round.index > 0;
    load_source_vectors(a, x, totals, sums);
    for (int64_t at = range.first; at < range.end; at += a.rows) {
        const int rows = (int)max((int64_t)0, min((int64_t)a.rows, range.valid_end - at));
        const int end = (int)min((int64_t)a.rows, range.end - at);
        const head_rows<T> dv = rows_of<T>(a.round.dv, head.b, head.kv_h, at);
        const head_rows<T> k = rows_of<T>(s.k, head.b, head.kv_h, at);
        if (rows > 0)
            visit_sources<T>(a, x, head, totals, sums, at, rows);
        write_rows(rows_of<T>(a.round.dk, head.b, head.kv_h, at), rows, end, s.dim, add,
                   [&](int row, int col) {
                       const float eps = FB_FLOW_EPSILON;
                       float sum = fmaf(x.scalar[P][row], x.y[row * x.ld + col], dsk[col]);
                       sum = fmaf(x.scalar[DO][row], x.vectors[s.cols + col] + eps, sum);
                       sum = fmaf(x.scalar[BETA][row], x.vectors[2 * s.cols + col], sum);
                       sum = fmaf(x.scalar[DB][row], x.vectors[col] + eps, sum);
                       return sum * slope_of(s.phi, to_f32(k.data[row * k.stride + col]));
                   });
        if (rows > 0)
            block_product<products_of<T>()>(
                a.rows, s.value_cols, s.cols, operand{x.x, x.ld, 1},
                operand{product, s.value_cols, 1}, [&](int row, int col, float y) {
                    if (row < rows && col < s.value_dim) {
                        T &to = dv.data[row * dv.stride + col];
                        const float value = x.scalar[P][row] * y;
                        to = from_f32<T>(add ? to_f32(to) + value : value);
                    }
                });
        write_rows(head_rows<T>{dv.data + rows * dv.stride, dv.stride}, 0, end - rows, s.value_dim,
                   add, [](int, int) { return 0.0F; });
        __syncthreads();
    }
}

/* ---- launching ------------------------------------------------------------------------------- */

/* The four passes, by tiles of f32 or by strips of bf16. */
typedef void (*gradient_pass)(normal_gradient);
struct gradient_passes {
    gradient_pass gather, spread, sinks, sources;
    size_t bytes;
};

template <typename T> gradient_passes tile_passes(const normal_gradient &a)
{
    return {gather_kernel<T>, spread_kernel<T>, sinks_kernel<T>, sources_kernel<T>,
            sizeof(float) * shared_floats(a.round.s, a.rows)};
}

enum fb_status launch_round(const normal_gradient &a, const gradient_passes &passes, int64_t units,
                            cudaStream_t stream, struct fb_error *error)
{
    const flow_cuda_shape &s = a.round.s;
    const dim3 grid((unsigned)s.slices, (unsigned)units);
    const int64_t vectors = (int64_t)SLOT_VECTORS * s.cols;
    const auto parts = [](int64_t count) { return (unsigned)((count + 255) / 256); };
    passes.gather<<<grid, kTileThreads, passes.bytes, stream>>>(a);
    enum fb_status status = fb_cuda_launched("flow's gradient, gather", error);
    if (status != FB_OK)
        return status;
    add_parts<<<dim3((unsigned)units, parts(3 * s.cols)), 256, 0, stream>>>(a, 0, 3 * s.cols);
    const int64_t matrices = a.part_count - vectors;
    add_parts<<<dim3((unsigned)units, parts(matrices)), 256, 0, stream>>>(a, vectors, matrices);
    mean_kernel<<<(unsigned)units, kTileThreads, 0, stream>>>(a);
    passes.spread<<<grid, kTileThreads, passes.bytes, stream>>>(a);
    status = fb_cuda_launched("flow's gradient, spread", error);
    if (status != FB_OK)
        return status;
    add_parts<<<dim3((unsigned)units, parts(2 * s.cols)), 256, 0, stream>>>(a, DW * s.cols,
                                                                            2 * s.cols);
    source_sum_kernel<<<(unsigned)units, kTileThreads, 0, stream>>>(a);
    passes.sinks<<<grid, kTileThreads, passes.bytes, stream>>>(a);
    status = fb_cuda_launched("flow's gradient, sinks", error);
    if (status != FB_OK)
        return status;
    passes.sources<<<grid, kTileThreads, passes.bytes, stream>>>(a);
    return fb_cuda_launched("flow's gradient, sources", error);
}

enum fb_status launch_rounds(normal_gradient &a, const gradient_passes &passes, int64_t units,
                             cudaStream_t stream, struct fb_error *error)
{
    const gradient_pass kernels[] = {passes.gather, passes.spread, passes.sinks, passes.sources};
    enum fb_status status = FB_OK;
    for (int i = 0; i < 4 && status == FB_OK; i++)
        status =
            fb_cuda_allow_shared((const void *)kernels[i], passes.bytes, "flow's gradient", error);
    for (a.round.index = 0; a.round.index < a.round.s.group && status == FB_OK; a.round.index++)
        status = launch_round(a, passes, units, stream, error);
    return status;
}

} // namespace

extern "C" enum fb_status fb_flow_cuda_gradient(const struct fb_problem *p,
                                                const struct fb_call *call,
                                                const struct fb_flow_cuda_plan *plan, bool strips,
                                                struct fb_error *error)
{
    cudaStream_t stream = (cudaStream_t)call->stream;
    normal_gradient a = {};
    a.round.s = flow_cuda_shape_of(p, call, *plan);
    flow_cuda_shape &s = a.round.s;
    const enum fb_status status = flow_cuda_take_lengths(p, call, *plan, s, error);
    if (status != FB_OK)
        return status;
    s.totals = (float *)call->saved;
    a.round.dout = view_of(call->dout);
    a.round.dq = view_of(call->dq);
    a.round.dk = view_of(call->dk);
    a.round.dv = view_of(call->dv);
    a.round.kv_heads = (int)p->kv_heads;
    const int64_t units = p->batch * p->kv_heads;
    a.rows = plan->gradient_rows;
    a.part_count = plan->gradient_part_count;
    a.parts = (float *)((char *)call->scratch + plan->lengths_bytes);
    a.sums = a.parts + units * s.slices * a.part_count;
    if (strips)
        return launch_rounds(
            a, {gather_strips, spread_strips, sinks_strips, sources_strips, kStripBytes}, units,
            stream, error);
    switch (p->dtype) {
    case FB_BF16:
        return launch_rounds(a, tile_passes<__nv_bfloat16>(a), units, stream, error);
    case FB_F16:
        return launch_rounds(a, tile_passes<__half>(a), units, stream, error);
    default:
        return launch_rounds(a, tile_passes<float>(a), units, stream, error);
    }
}
