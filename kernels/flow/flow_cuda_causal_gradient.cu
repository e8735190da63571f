/*
 * Gradients of Flow-Attention, causal form, on any GPU from sm_80, over chunks of tokens in
 * parallel. With g = dout, r = s / a, x' = x + eps (flow_cpu_causal_gradient.c tells the same as
 * one scan):
 *
 *   sums      ck, cq before each chunk                       each line: the chunks' parts by all
 *   flows     a, b; u, w before                              blocks, then the sums before or after
 *   conserve  c, s, o, E; z before                           each chunk
 *   states    M before and R = sum q^T (r g) after each segment of chunks
 *   pull      h = M g, dr = h . q, dc; sum dc q' after       a block walks over a segment forwards
 *   push      t = R v, dp = t . k, dv, db; sums of db k' and p dp / Z after          and backwards
 *   competition   do; sum do k' after
 *   incoming  da; sum da q' after
 *   outputs   dq = (r h + dc U' + alpha dW + da CK' + Bs) phi'(q)
 *             dk = (p t + do W' + beta dU + db CQ' + As) phi'(k)
 *
 * where a vector of a token is that of its chunk and a triangle of the chunk's own terms: X k for
 * the queries and X^T q for the keys, with X_ij = dc_i beta_j + da_i below the diagonal, alpha_i
 * do_j + db_j above it, both on it. r h and p t are parked in dq and dk. Sums over chunks are added
 * in f64, in order: same bits every time.
 *
 * Without allocation dq is what r h and its mean over the tokens before leave of one another, some
 * hundredths of either where values have a mean: M and h are formed as in f32 then, and r h is
 * parked in f32.
 */
#include "flow_cuda_causal_scans.cuh"

#include "flow_cuda.h"

#include <type_traits>

namespace
{

/* ---- forward again: scalars of every token --------------------------------------------------- */

/* grid (chunks, units), as all kernels of a chunk */
template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    sums_kernel(const __grid_constant__ causal_gradient a)
{
    extern __shared__ __align__(16) float shared[];
    const gradient_shared x = carve(shared, a.round.s, a.rows);
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    load_sides<T>(a, x, p);
    __syncthreads();
    leave_part(a, x, p, x.k, nullptr, 0.0F, CK);
    leave_part(a, x, p, x.q, nullptr, 0.0F, CQ);
}

/* q, k, their rows' sums (into the arrays DR and DP), A, and the two vectors from `first` on. */
template <typename T>
__device__ void visit_chunk(const causal_gradient &a, const gradient_shared &x,
                            const chunk_place &p, chunk_vector first)
{
    load_sides<T>(a, x, p);
    load_vector(a, x, p, first);
    load_vector(a, x, p, (chunk_vector)(first + 1));
    __syncthreads();
    form_scores(a, x);
    sum_rows(x.k, x.ld, a.rows, a.round.s.dim, x.array[DR]);
    sum_rows(x.q, x.ld, a.rows, a.round.s.dim, x.array[DP]);
}

/* array[i] = n / array[i] of valid rows, 0 beyond. */
__device__ void invert_flow(const causal_gradient &a, const chunk_place &p, const float *flow,
                            float *inverse)
{
    for (int i = threadIdx.x; i < a.rows; i += kTileThreads)
        inverse[i] = i < p.rows ? (float)(p.at + i + 1) / flow[i] : 0.0F;
}

template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    flows_kernel(const __grid_constant__ causal_gradient a)
{
    extern __shared__ __align__(16) float shared[];
    const flow_cuda_shape &s = a.round.s;
    const gradient_shared x = carve(shared, s, a.rows);
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    float *const alpha = x.array[DC], *const beta = x.array[DO];
    visit_chunk<T>(a, x, p, CK);
    dot_rows(x.q, x.ld, a.rows, s.dim, x.vectors + CK * s.cols, FB_FLOW_EPSILON, x.array[A]);
    dot_rows(x.k, x.ld, a.rows, s.dim, x.vectors + CQ * s.cols, FB_FLOW_EPSILON, x.array[B]);
    __syncthreads();
    add_triangle(a, x, BY_QUERY_BEFORE, nullptr, x.array[DR], true, x.array[A]);
    add_triangle(a, x, BY_KEY_BEFORE, nullptr, x.array[DP], true, x.array[B]);
    __syncthreads();
    for (int i = threadIdx.x; i < p.rows; i += kTileThreads) {
        x.array[A][i] += s.extra_eps;
        x.array[B][i] += s.extra_eps;
        scalar_of(a, p, A)[i] = x.array[A][i];
        scalar_of(a, p, B)[i] = x.array[B][i];
    }
    __syncthreads();
    invert_flow(a, p, x.array[A], alpha);
    invert_flow(a, p, x.array[B], beta);
    __syncthreads();
    leave_part(a, x, p, x.k, beta, 0.0F, U);
    leave_part(a, x, p, x.q, alpha, 0.0F, W);
}

template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    conserve_kernel(const __grid_constant__ causal_gradient a)
{
    extern __shared__ __align__(16) float shared[];
    const flow_cuda_shape &s = a.round.s;
    const gradient_shared x = carve(shared, s, a.rows);
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    float *const alpha = x.array[DC], *const beta = x.array[DO];
    load_scalar(a, x, p, A);
    load_scalar(a, x, p, B);
    visit_chunk<T>(a, x, p, U);
    dot_rows(x.q, x.ld, a.rows, s.dim, x.vectors + U * s.cols, FB_FLOW_EPSILON, x.array[S]);
    dot_rows(x.k, x.ld, a.rows, s.dim, x.vectors + W * s.cols, FB_FLOW_EPSILON, x.array[E]);
    invert_flow(a, p, x.array[A], alpha);
    invert_flow(a, p, x.array[B], beta);
    __syncthreads();
    add_triangle(a, x, BY_QUERY_BEFORE, beta, x.array[DR], true, x.array[S]);
    add_triangle(a, x, BY_KEY_BEFORE, alpha, x.array[DP], true, x.array[E]);
    __syncthreads();
    for (int i = threadIdx.x; i < a.rows; i += kTileThreads) {
        const float n = (float)(p.at + i + 1);
        const float c = (x.array[S][i] + s.extra_eps) / n, o = (x.array[E][i] + s.extra_eps) / n;
        const float e = s.compete ? expf(fminf(fmaxf(o, -s.clamp), s.clamp)) : 1.0F;
        const bool inside = s.compete && fabsf(o) <= s.clamp;
        x.array[Z][i] = i < p.rows ? e : 0.0F;
        if (i < p.rows) {
            scalar_of(a, p, S)[i] = s.allocation ? sigmoid(c) : 1.0F;
            scalar_of(a, p, E)[i] = inside ? e : -e;
            scalar_of(a, p, DC)[i] = s.allocation ? sigmoid(c) * sigmoid(-c) / n : 0.0F;
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double sum = 0.0;
        for (int i = 0; i < a.rows; i++)
            sum += (double)x.array[Z][i];
        running_of(a, p, 0) = (float)sum;
    }
}

/* ---- states ---------------------------------------------------------------------------------- */

/* array[P] = p, array[R] = r; needs A, S, E and Z there. */
constexpr int P = TOKEN_SCALARS, R = TOKEN_SCALARS + 1;

__device__ void weigh_tokens(const causal_gradient &a, const gradient_shared &x,
                             const chunk_place &p)
{
    for (int i = threadIdx.x; i < a.rows; i += kTileThreads) {
        const bool valid = i < p.rows;
        const float n = (float)(p.at + i + 1);
        x.array[P][i] = valid ? n * (fabsf(x.array[E][i]) / x.array[Z][i]) : 0.0F;
        x.array[R][i] = valid ? x.array[S][i] / x.array[A][i] : 0.0F;
    }
}

/* matrix += x^T (weight y) over the chunk; the rows of y are scaled in place. */
template <tile_products Products>
__device__ void add_state(const causal_gradient &a, const gradient_shared &x, const float *tile,
                          float *values, const float *weight, float *matrix)
{
    const flow_cuda_shape &s = a.round.s;
    scale_rows(values, x.value_ld, a.rows, s.value_cols, weight);
    __syncthreads();
    block_product<Products>(
        s.cols, s.value_cols, a.rows, operand{tile, 1, x.ld}, operand{values, x.value_ld, 1},
        [&](int row, int col, float y) { matrix[row * s.value_cols + col] += y; });
    __syncthreads();
}

/* Z of every token; the segment's parts of M and R. Parked is the type of what r h is parked in.
 * grid (segments, units) */
template <typename T, typename Parked>
__global__ void __launch_bounds__(kTileThreads)
    states_kernel(const __grid_constant__ causal_gradient a)
{
    extern __shared__ __align__(16) float shared[];
    const flow_cuda_shape &s = a.round.s;
    const gradient_shared x = carve(shared, s, a.rows);
    float *const m = matrix_of(a, blockIdx.y, 0, blockIdx.x);
    float *const r = matrix_of(a, blockIdx.y, 1, blockIdx.x);
    for (int i = threadIdx.x; i < s.cols * s.value_cols; i += kTileThreads)
        m[i] = r[i] = 0.0F;
    const int64_t first = blockIdx.x * (int64_t)a.segment;
    for (int64_t chunk = first; chunk < min(first + a.segment, a.chunks); chunk++) {
        const chunk_place p = place_of(a, blockIdx.y, chunk);
        load_sides<T>(a, x, p);
        load_values<T>(a, x, p);
        load_scalar(a, x, p, A);
        load_scalar(a, x, p, S);
        load_scalar(a, x, p, E);
        __syncthreads();
        if (threadIdx.x == 0) {
            double sum = (double)running_of(a, p, 0);
            for (int i = 0; i < p.rows; i++) {
                sum += (double)fabsf(x.array[E][i]);
                x.array[Z][i] = (float)sum;
            }
        }
        __syncthreads();
        for (int i = threadIdx.x; i < p.rows; i += kTileThreads)
            scalar_of(a, p, Z)[i] = x.array[Z][i];
        weigh_tokens(a, x, p);
        __syncthreads();
        add_state<products_of<Parked>()>(a, x, x.k, x.v, x.array[P], m);
        add_state<products_of<T>()>(a, x, x.q, x.g, x.array[R], r);
    }
}

/* ---- pull and push --------------------------------------------------------------------------- */

/* tile of the chunk, by a warp's parts: the two products added up. */
template <tile_products Products, typename Emit>
__device__ void two_products(int rows, int cols, const operand &a, const operand &b, int depth,
                             const operand &c, const operand &d, int second_depth, Emit emit)
{
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int strips = rows / 16, parts = strips * (cols / kColumnsPerWarp);
    for (int part = warp; part < parts; part += kTileWarps) {
        const int row = part % strips * 16, col = part / strips * kColumnsPerWarp;
        float y[4][4] = {};
        warp_product<Products>(y, a, row, b, col, depth);
        warp_product<Products>(y, c, row, d, col, second_depth);
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                emit(row + g + i / 2 * 8, col + n * 8 + 2 * t + i % 2, y[n][i]);
    }
}

/* The lower triangle of g v^T, its columns times p or its rows times r. */
template <tile_products Products>
__device__ void form_values(const causal_gradient &a, const gradient_shared &x, bool by_row)
{
    block_product<Products>(a.rows, a.rows, a.round.s.value_cols, operand{x.g, x.value_ld, 1},
                            operand{x.v, 1, x.value_ld}, [&](int row, int col, float y) {
                                const float weight = by_row ? x.array[R][row] : x.array[P][col];
                                x.scores[row * x.scores_ld + col] = col <= row ? weight * y : 0.0F;
                            });
    __syncthreads();
}

/* dr, dc, r h; grid (segments, units) */
template <typename T, typename Parked>
__global__ void __launch_bounds__(kTileThreads)
    pull_kernel(const __grid_constant__ causal_gradient a)
{
    extern __shared__ __align__(16) float shared[];
    const flow_cuda_shape &s = a.round.s;
    const gradient_shared x = carve(shared, s, a.rows);
    float *const m = matrix_of(a, blockIdx.y, 0, blockIdx.x);
    const int64_t first = blockIdx.x * (int64_t)a.segment;
    for (int64_t chunk = first; chunk < min(first + a.segment, a.chunks); chunk++) {
        const chunk_place p = place_of(a, blockIdx.y, chunk);
        load_sides<T>(a, x, p);
        load_values<T>(a, x, p);
        for (const token_scalar name : {A, S, E, Z, DC})
            load_scalar(a, x, p, name);
        __syncthreads();
        weigh_tokens(a, x, p);
        __syncthreads();
        form_values<products_of<Parked>()>(a, x, false);
        two_products<products_of<Parked>()>(
            a.rows, s.cols, operand{x.g, x.value_ld, 1}, operand{m, 1, s.value_cols}, s.value_cols,
            operand{x.scores, x.scores_ld, 1}, operand{x.k, x.ld, 1}, a.rows,
            [&](int row, int col, float h) { x.x[row * x.ld + col] = h; });
        __syncthreads();
        pair_dots(x.q, x.x, x.ld, a.rows, s.cols, x.array[DR]);
        __syncthreads();
        for (int i = threadIdx.x; i < p.rows; i += kTileThreads) {
            x.array[DC][i] *= x.array[DR][i] / x.array[A][i];
            scalar_of(a, p, DR)[i] = x.array[DR][i];
            scalar_of(a, p, DC)[i] = x.array[DC][i];
        }
        __syncthreads();
        leave_part(a, x, p, x.q, x.array[DC], FB_FLOW_EPSILON, DU);
        write_rows(rows_of<Parked>(a.parked, p.head.b, p.head.h / a.parked_group, p.at), p.rows,
                   p.rows, s.dim, false,
                   [&](int row, int col) { return x.array[R][row] * x.x[row * x.ld + col]; });
        add_state<products_of<Parked>()>(a, x, x.k, x.v, x.array[P], m);
    }
}

/* db, and the chunk's parts of what dp and db add up to. */
__device__ void push_scalars(const causal_gradient &a, const gradient_shared &x,
                             const chunk_place &p)
{
    const flow_cuda_shape &s = a.round.s;
    dot_rows(x.k, x.ld, a.rows, s.dim, x.vectors + DU * s.cols, 0.0F, x.array[DB]);
    sum_rows(x.k, x.ld, a.rows, s.dim, x.array[DA]);
    __syncthreads();
    add_triangle(a, x, BY_KEY_AFTER, x.array[DC], x.array[DA], false, x.array[DB]);
    __syncthreads();
    for (int i = threadIdx.x; i < a.rows; i += kTileThreads) {
        const bool valid = i < p.rows;
        const float n = (float)(p.at + i + 1), b = x.array[B][i];
        x.array[DB][i] = valid ? -n / (b * b) * x.array[DB][i] : 0.0F;
        x.array[DO][i] = valid ? x.array[P][i] * x.array[DP][i] / x.array[Z][i] : 0.0F;
        if (valid) {
            scalar_of(a, p, DP)[i] = x.array[DP][i];
            scalar_of(a, p, DB)[i] = x.array[DB][i];
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double sum = 0.0;
        for (int i = 0; i < a.rows; i++)
            sum += (double)x.array[DO][i];
        running_of(a, p, 1) = (float)sum;
    }
    leave_part(a, x, p, x.k, x.array[DB], FB_FLOW_EPSILON, BS);
}

/* dv = p (k R + (r tril A)^T g); A stands in scores. */
template <typename T>
__device__ void write_values(const causal_gradient &a, const gradient_shared &x,
                             const chunk_place &p, const float *r)
{
    const flow_cuda_shape &s = a.round.s;
    for (int i = threadIdx.x; i < a.rows * a.rows; i += kTileThreads) {
        const int row = i / a.rows, col = i % a.rows;
        float &score = x.scores[row * x.scores_ld + col];
        score = col <= row ? x.array[R][row] * score : 0.0F;
    }
    __syncthreads();
    const head_rows<T> dv = rows_of<T>(a.round.dv, p.head.b, p.head.kv_h, p.at);
    const bool add = a.round.index > 0;
    two_products<products_of<T>()>(a.rows, s.value_cols, operand{x.k, x.ld, 1},
                                   operand{r, s.value_cols, 1}, s.cols,
                                   operand{x.scores, 1, x.scores_ld}, operand{x.g, x.value_ld, 1},
                                   a.rows, [&](int row, int col, float y) {
                                       if (row < p.rows && col < s.value_dim) {
                                           T &to = dv.data[row * dv.stride + col];
                                           const float value = x.array[P][row] * y;
                                           to = from_f32<T>(add ? to_f32(to) + value : value);
                                       }
                                   });
    __syncthreads();
}

/* dp, db, p t, dv; Turned is the type of what p t is parked in. grid (segments, units) */
template <typename T, typename Turned>
__global__ void __launch_bounds__(kTileThreads)
    push_kernel(const __grid_constant__ causal_gradient a)
{
    extern __shared__ __align__(16) float shared[];
    const flow_cuda_shape &s = a.round.s;
    const gradient_shared x = carve(shared, s, a.rows);
    float *const r = matrix_of(a, blockIdx.y, 1, blockIdx.x);
    const int64_t first = blockIdx.x * (int64_t)a.segment;
    for (int64_t chunk = min(first + a.segment, a.chunks) - 1; chunk >= first; chunk--) {
        const chunk_place p = place_of(a, blockIdx.y, chunk);
        load_sides<T>(a, x, p);
        load_values<T>(a, x, p);
        load_vector(a, x, p, DU);
        for (const token_scalar name : {A, B, S, E, Z, DC})
            load_scalar(a, x, p, name);
        __syncthreads();
        weigh_tokens(a, x, p);
        __syncthreads();
        form_values<products_of<T>()>(a, x, true);
        two_products<products_of<T>()>(
            a.rows, s.cols, operand{x.v, x.value_ld, 1}, operand{r, 1, s.value_cols}, s.value_cols,
            operand{x.scores, 1, x.scores_ld}, operand{x.q, x.ld, 1}, a.rows,
            [&](int row, int col, float t) { x.x[row * x.ld + col] = t; });
        __syncthreads();
        pair_dots(x.k, x.x, x.ld, a.rows, s.cols, x.array[DP]);
        form_scores(a, x);
        __syncthreads();
        push_scalars(a, x, p);
        write_rows(rows_of<Turned>(a.turned, p.head.b, p.head.kv_h, p.at), p.rows, p.rows, s.dim,
                   false,
                   [&](int row, int col) { return x.array[P][row] * x.x[row * x.ld + col]; });
        write_values<T>(a, x, p, r);
        add_state<products_of<T>()>(a, x, x.q, x.g, x.array[R], r);
    }
}

/* ---- competition and incoming ---------------------------------------------------------------- */

template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    competition_kernel(const __grid_constant__ causal_gradient a)
{
    extern __shared__ __align__(16) float shared[];
    const flow_cuda_shape &s = a.round.s;
    const gradient_shared x = carve(shared, s, a.rows);
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    load_rows(x.k, x.ld, a.rows, s.cols, rows_of<T>(s.k, p.head.b, p.head.kv_h, p.at), p.rows,
              s.dim, flow_map{s.phi});
    for (const token_scalar name : {E, Z, DP})
        load_scalar(a, x, p, name);
    __syncthreads();
    if (threadIdx.x == 0) {
        double after = (double)running_of(a, p, 1);
        for (int i = p.rows - 1; i >= 0; i--) {
            const float share = fabsf(x.array[E][i]) / x.array[Z][i];
            const float n = (float)(p.at + i + 1);
            after += (double)(n * share * x.array[DP][i] / x.array[Z][i]);
            x.array[DA][i] = (float)after;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < a.rows; i += kTileThreads) {
        const float e = x.array[E][i], n = (float)(p.at + i + 1);
        x.array[DO][i] = 0.0F;
        if (i < p.rows && e > 0.0F)
            x.array[DO][i] = e / x.array[Z][i] * x.array[DP][i] - e / n * x.array[DA][i];
        if (i < p.rows)
            scalar_of(a, p, DO)[i] = x.array[DO][i];
    }
    __syncthreads();
    leave_part(a, x, p, x.k, x.array[DO], FB_FLOW_EPSILON, DW);
}

template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    incoming_kernel(const __grid_constant__ causal_gradient a)
{
    extern __shared__ __align__(16) float shared[];
    const flow_cuda_shape &s = a.round.s;
    const gradient_shared x = carve(shared, s, a.rows);
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    load_sides<T>(a, x, p);
    load_vector(a, x, p, DW);
    for (const token_scalar name : {A, S, DR, DO})
        load_scalar(a, x, p, name);
    __syncthreads();
    form_scores(a, x);
    dot_rows(x.q, x.ld, a.rows, s.dim, x.vectors + DW * s.cols, 0.0F, x.array[DA]);
    sum_rows(x.q, x.ld, a.rows, s.dim, x.array[DP]);
    __syncthreads();
    add_triangle(a, x, BY_QUERY_AFTER, x.array[DO], x.array[DP], false, x.array[DA]);
    __syncthreads();
    for (int i = threadIdx.x; i < a.rows; i += kTileThreads) {
        const float n = (float)(p.at + i + 1), in = x.array[A][i];
        const float flow = x.array[S][i] * x.array[DR][i] + n * x.array[DA][i];
        x.array[DA][i] = i < p.rows ? -flow / (in * in) : 0.0F;
        if (i < p.rows)
            scalar_of(a, p, DA)[i] = x.array[DA][i];
    }
    __syncthreads();
    leave_part(a, x, p, x.q, x.array[DA], FB_FLOW_EPSILON, AS);
}

/* ---- outputs --------------------------------------------------------------------------------- */

/* X into scores; eps times what the second factors' eps adds to every component, into P and R. */
__device__ void mix(const causal_gradient &a, const gradient_shared &x, const float *alpha,
                    const float *beta)
{
    for (int i = threadIdx.x; i < a.rows * a.rows; i += kTileThreads) {
        const int row = i / a.rows, col = i % a.rows;
        const float low = fmaf(x.array[DC][row], beta[col], x.array[DA][row]);
        const float high = fmaf(alpha[row], x.array[DO][col], x.array[DB][col]);
        x.scores[row * x.scores_ld + col] = (col <= row ? low : 0.0F) + (col >= row ? high : 0.0F);
    }
    for (int i = threadIdx.x; i < a.rows; i += kTileThreads) {
        float flow = 0.0F, db = 0.0F, dc = 0.0F, da = 0.0F;
        for (int u = a.rows - 1; u >= i; u--) {
            flow += x.array[DO][u];
            db += x.array[DB][u];
            dc += x.array[DC][u];
            da += x.array[DA][u];
        }
        x.array[P][i] = FB_FLOW_EPSILON * fmaf(alpha[i], flow, db);
        x.array[R][i] = FB_FLOW_EPSILON * fmaf(beta[i], dc, da);
    }
    __syncthreads();
}

template <typename T, typename Parked, typename Turned>
__global__ void __launch_bounds__(kTileThreads)
    outputs_kernel(const __grid_constant__ causal_gradient a)
{
    extern __shared__ __align__(16) float shared[];
    const flow_cuda_shape &s = a.round.s;
    const gradient_shared x = carve(shared, s, a.rows);
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    const int end = (int)min((int64_t)a.rows, s.q_len - p.at);
    const bool add = a.round.index > 0;
    float *const alpha = x.array[E], *const beta = x.array[Z];
    load_sides<T>(a, x, p);
    for (int i = threadIdx.x; i < CHUNK_VECTORS * s.cols; i += kTileThreads)
        x.vectors[i] = vector_of(a, p, (chunk_vector)(i / s.cols))[i % s.cols];
    for (const token_scalar name : {A, B, DC, DO, DA, DB})
        load_scalar(a, x, p, name);
    __syncthreads();
    invert_flow(a, p, x.array[A], alpha);
    invert_flow(a, p, x.array[B], beta);
    __syncthreads();
    mix(a, x, alpha, beta);
    const head_rows<T> q = rows_of<T>(s.q, p.head.b, p.head.h, p.at);
    const head_rows<T> k = rows_of<T>(s.k, p.head.b, p.head.kv_h, p.at);
    const head_rows<T> dq = rows_of<T>(a.round.dq, p.head.b, p.head.h, p.at);
    const head_rows<Parked> parked =
        rows_of<Parked>(a.parked, p.head.b, p.head.h / a.parked_group, p.at);
    const head_rows<Turned> turned = rows_of<Turned>(a.turned, p.head.b, p.head.kv_h, p.at);
    const auto column = [&](chunk_vector name, int col) { return x.vectors[name * s.cols + col]; };
    const float eps = FB_FLOW_EPSILON;
    block_product<tile_products::tf32x3>(
        a.rows, s.cols, a.rows, operand{x.scores, x.scores_ld, 1}, operand{x.k, x.ld, 1},
        [&](int row, int col, float y) { x.x[row * x.ld + col] = y + x.array[P][row]; });
    __syncthreads();
    write_rows(dq, p.rows, end, s.dim, false, [&](int row, int col) {
        float sum = to_f32(parked.data[row * parked.stride + col]) + x.x[row * x.ld + col];
        sum = fmaf(x.array[DC][row], column(U, col) + eps, sum + column(BS, col));
        sum = fmaf(alpha[row], column(DW, col), sum);
        sum = fmaf(x.array[DA][row], column(CK, col) + eps, sum);
        return sum * slope_of(s.phi, to_f32(q.data[row * q.stride + col]));
    });
    __syncthreads();
    block_product<tile_products::tf32x3>(
        a.rows, s.cols, a.rows, operand{x.scores, 1, x.scores_ld}, operand{x.q, x.ld, 1},
        [&](int row, int col, float y) { x.x[row * x.ld + col] = y + x.array[R][row]; });
    __syncthreads();
    write_rows(rows_of<T>(a.round.dk, p.head.b, p.head.kv_h, p.at), p.rows, end, s.dim, add,
               [&](int row, int col) {
                   float sum = to_f32(turned.data[row * turned.stride + col]);
                   sum += x.x[row * x.ld + col] + column(AS, col);
                   sum = fmaf(x.array[DO][row], column(W, col) + eps, sum);
                   sum = fmaf(beta[row], column(DU, col), sum);
                   sum = fmaf(x.array[DB][row], column(CQ, col) + eps, sum);
                   return sum * slope_of(s.phi, to_f32(k.data[row * k.stride + col]));
               });
    if (!add) {
        const head_rows<T> dv = rows_of<T>(a.round.dv, p.head.b, p.head.kv_h, p.at + p.rows);
        write_rows(dv, 0, end - p.rows, s.value_dim, false, [](int, int) { return 0.0F; });
    }
}

/* ---- launching ------------------------------------------------------------------------------- */

struct gradient_launch {
    dim3 chunks, segments;
    size_t bytes;
    unsigned units, cols, matrix_parts;
    cudaStream_t stream;
};

template <typename T, typename Parked, typename Turned>
enum fb_status allow_all(size_t bytes, struct fb_error *error)
{
    const void *const kernels[] = {(const void *)sums_kernel<T>,
                                   (const void *)flows_kernel<T>,
                                   (const void *)conserve_kernel<T>,
                                   (const void *)states_kernel<T, Parked>,
                                   (const void *)pull_kernel<T, Parked>,
                                   (const void *)push_kernel<T, Turned>,
                                   (const void *)competition_kernel<T>,
                                   (const void *)incoming_kernel<T>,
                                   (const void *)outputs_kernel<T, Parked, Turned>};
    enum fb_status status = FB_OK;
    for (const void *kernel : kernels)
        if (status == FB_OK)
            status = fb_cuda_allow_shared(kernel, bytes, "causal flow's gradient", error);
    return status;
}

template <typename T, typename Parked>
enum fb_status launch_forward(const causal_gradient &a, const gradient_launch &l,
                              struct fb_error *error)
{
    sums_kernel<T><<<l.chunks, kTileThreads, l.bytes, l.stream>>>(a);
    scan_vectors<<<dim3(l.units, 2), l.cols, 0, l.stream>>>(a, CK);
    flows_kernel<T><<<l.chunks, kTileThreads, l.bytes, l.stream>>>(a);
    scan_vectors<<<dim3(l.units, 2), l.cols, 0, l.stream>>>(a, U);
    conserve_kernel<T><<<l.chunks, kTileThreads, l.bytes, l.stream>>>(a);
    scan_running<<<l.units, 1, 0, l.stream>>>(a, 0);
    states_kernel<T, Parked><<<l.segments, kTileThreads, l.bytes, l.stream>>>(a);
    scan_matrices<<<dim3(l.units, l.matrix_parts, 2), 256, 0, l.stream>>>(a);
    return fb_cuda_launched("causal flow's gradient, forward again", error);
}

template <typename T, typename Parked, typename Turned>
enum fb_status launch_backward(const causal_gradient &a, const gradient_launch &l,
                               struct fb_error *error)
{
    pull_kernel<T, Parked><<<l.segments, kTileThreads, l.bytes, l.stream>>>(a);
    scan_vectors<<<dim3(l.units, 1), l.cols, 0, l.stream>>>(a, DU);
    push_kernel<T, Turned><<<l.segments, kTileThreads, l.bytes, l.stream>>>(a);
    scan_vectors<<<dim3(l.units, 1), l.cols, 0, l.stream>>>(a, BS);
    scan_running<<<l.units, 1, 0, l.stream>>>(a, 1);
    competition_kernel<T><<<l.chunks, kTileThreads, l.bytes, l.stream>>>(a);
    scan_vectors<<<dim3(l.units, 1), l.cols, 0, l.stream>>>(a, DW);
    incoming_kernel<T><<<l.chunks, kTileThreads, l.bytes, l.stream>>>(a);
    scan_vectors<<<dim3(l.units, 1), l.cols, 0, l.stream>>>(a, AS);
    outputs_kernel<T, Parked, Turned><<<l.chunks, kTileThreads, l.bytes, l.stream>>>(a);
    return fb_cuda_launched("causal flow's gradient", error);
}

template <typename T, typename Parked, typename Turned>
enum fb_status launch_rounds(causal_gradient &a, int64_t units, cudaStream_t stream,
                             struct fb_error *error)
{
    const flow_cuda_shape &s = a.round.s;
    gradient_launch l = {};
    l.chunks = dim3((unsigned)a.chunks, (unsigned)units);
    l.segments = dim3((unsigned)a.segments, (unsigned)units);
    l.bytes = sizeof(float) * shared_floats(s, a.rows);
    l.units = (unsigned)units;
    l.cols = (unsigned)s.cols;
    l.matrix_parts = (unsigned)((s.cols * s.value_cols + 255) / 256);
    l.stream = stream;
    enum fb_status status = allow_all<T, Parked, Turned>(l.bytes, error);
    for (a.round.index = 0; a.round.index < s.group && status == FB_OK; a.round.index++) {
        status = launch_forward<T, Parked>(a, l, error);
        if (status == FB_OK)
            status = launch_backward<T, Parked, Turned>(a, l, error);
    }
    return status;
}

/* Rows of every head of keys in f32, of as many columns as tiles have. */
tensor_view parking_of(const causal_gradient &a, float *buffer)
{
    const int64_t rows = a.chunks * a.rows, cols = a.round.s.cols;
    return {buffer, a.round.kv_heads * rows * cols, rows * cols, cols};
}

/* p t is parked in dk, or in f32 when dk has the gradients of other heads. */
template <typename T, typename Parked>
enum fb_status launch_turned(causal_gradient &a, int64_t units, float *buffer, cudaStream_t stream,
                             struct fb_error *error)
{
    a.turned = a.round.dk;
    if (a.round.s.group == 1)
        return launch_rounds<T, Parked, T>(a, units, stream, error);
    a.turned = parking_of(a, buffer);
    return launch_rounds<T, Parked, float>(a, units, stream, error);
}

/* r h is parked in dq, or in f32 when dq is a small difference. */
template <typename T>
enum fb_status launch_parked(causal_gradient &a, int64_t units, float *buffer, cudaStream_t stream,
                             struct fb_error *error)
{
    a.parked = a.round.dq;
    a.parked_group = 1;
    if (a.round.s.allocation || std::is_same<T, float>::value)
        return launch_turned<T, T>(a, units, buffer, stream, error);
    a.parked = parking_of(a, buffer);
    a.parked_group = a.round.s.group;
    buffer += units * a.chunks * a.rows * a.round.s.cols;
    return launch_turned<T, float>(a, units, buffer, stream, error);
}

} // namespace

extern "C" enum fb_status fb_flow_cuda_causal_gradient(const struct fb_problem *p,
                                                       const struct fb_call *call,
                                                       const struct fb_flow_cuda_plan *chosen,
                                                       bool strips, struct fb_error *error)
{
    const struct fb_flow_cuda_plan &plan = *chosen;
    cudaStream_t stream = (cudaStream_t)call->stream;
    causal_gradient a = {};
    a.round.s = flow_cuda_shape_of(p, call, plan);
    flow_cuda_shape &s = a.round.s;
    const enum fb_status status = flow_cuda_take_lengths(p, call, plan, s, error);
    if (status != FB_OK)
        return status;
    a.round.dout = view_of(call->dout);
    a.round.dq = view_of(call->dq);
    a.round.dk = view_of(call->dk);
    a.round.dv = view_of(call->dv);
    a.round.kv_heads = (int)p->kv_heads;
    a.rows = plan.gradient_rows;
    a.chunks = plan.gradient_chunks;
    a.segment = plan.gradient_segment;
    a.segments = plan.gradient_segments;
    const int64_t units = p->batch * p->kv_heads, cols = s.cols;
    a.vectors = (float *)((char *)call->scratch + plan.lengths_bytes);
    a.running = a.vectors + units * CHUNK_VECTORS * a.chunks * cols;
    a.scalars = a.running + units * 2 * a.chunks;
    a.matrices = a.scalars + units * kKeptScalars * a.chunks * a.rows;
    a.turned = a.round.dk;
    if (strips)
        return flow_cuda_causal_strips(a, p->dtype, units, stream, error);
    float *const buffer = a.matrices + units * 2 * a.segments * cols * s.value_cols;
    switch (p->dtype) {
    case FB_BF16:
        return launch_parked<__nv_bfloat16>(a, units, buffer, stream, error);
    case FB_F16:
        return launch_parked<__half>(a, units, buffer, stream, error);
    default:
        return launch_parked<float>(a, units, buffer, stream, error);
    }
}
