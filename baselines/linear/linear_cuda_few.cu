/*
 * Linear attention of few queries without a mask: with R rows of queries for a head of keys, the
 * products of rows come first, s_rj = fq_r fk_j and t_rj = v_j dout_r - w_r, so that keys and
 * values are read once and nothing of the size D x M is formed:
 *
 *   out_r = sum_j s_rj v_j / y_r            dv_j = sum_r s_rj dout_r / y_r
 *   dq_r  = slope sum_j t_rj fk_j / y_r     dk_j = slope sum_r t_rj fq_r / y_r
 *
 * Where a part of the keys' features is kept apart, fk lacks it, and s has it added.
 *
 * A token belongs to `lanes` lanes of a warp with eight columns each. Sums over a slice of tokens
 * go to their place in memory and are added in order by a second kernel.
 */
#include "linear_cuda.cuh"

namespace
{

constexpr int kThreads = 256;

/* The numbers of eight columns that a lane owns of each row, zero where a row or column is missing.
 */
template <int R> struct few_rows {
    float x[R][8];
};

__device__ inline float sum_of_lanes(float x, int lanes)
{
    for (int step = 1; step < lanes; step *= 2)
        x += __shfl_xor_sync(0xffffffffU, x, step);
    return x;
}

__device__ inline float dot8(const float (&x)[8], const float (&y)[8])
{
    float sum = 0.0F;
#pragma unroll
    for (int e = 0; e < 8; e++)
        sum = fmaf(x[e], y[e], sum);
    return sum;
}

__device__ inline void add8(float (&sum)[8], float factor, const float (&x)[8])
{
#pragma unroll
    for (int e = 0; e < 8; e++)
        sum[e] = fmaf(factor, x[e], sum[e]);
}

/* Where a thread stands: its slice of tokens, every `step`-th from `from`, and its columns. */
struct few_place {
    int64_t unit, b, kv_h;
    int from, to, step, lane, lanes, col;
    __device__ explicit few_place(const linear_arguments &a)
        : unit(blockIdx.y), b(unit / a.kv_heads), kv_h(unit % a.kv_heads), lanes(a.few_lanes)
    {
        const int first = (int)blockIdx.x * a.slice_panels * kPanel;
        step = kThreads / lanes;
        lane = (int)threadIdx.x % lanes;
        from = first + (int)threadIdx.x / lanes;
        to = min(first + a.slice_panels * kPanel, a.kv_len);
        col = 8 * lane;
    }
};

/* Row r of a head of keys: query r % q_len of head r / q_len of its group. */
struct few_query {
    int64_t h, row;
    __device__ few_query(const linear_arguments &a, int64_t kv_h, int r)
        : h(kv_h * a.group + r / a.q_len), row(r % a.q_len)
    {
    }
};

/* phi of the columns that exist. */
template <typename P>
__device__ void few_features(const linear_arguments &a, float (&x)[8], int col)
{
    linear_phi<P>(a.map, x);
#pragma unroll
    for (int e = 0; e < 8; e++)
        x[e] = col + e < a.features ? x[e] : 0.0F;
}

/* The unit's rows of q as features, or of dout. */
template <int R, typename P, typename T>
__device__ void load_rows(const linear_arguments &a, const few_place &at, bool of_q,
                          few_rows<R> &to)
{
#pragma unroll
    for (int r = 0; r < R; r++) {
        const few_query query(a, at.kv_h, r);
        const linear_unit u = linear_unit_of(a, at.b, query.h, at.kv_h);
        const bool exists = r < a.group * a.q_len && query.row < u.q_valid;
        const panel_rows<T> rows(of_q ? a.q : a.dout, at.b, exists ? query.h : 0, u.q_valid);
#pragma unroll
        for (int e = 0; e < 8; e++)
            to.x[r][e] = 0.0F;
        if (!exists)
            continue;
        fetch_chunk(rows, (int)query.row, at.col, to.x[r]);
        if (of_q)
            few_features<P>(a, to.x[r], at.col);
    }
}

/* The sums of the block's tokens, added in order: [R][columns] and, at its end, [R] of y. */
template <int R>
__device__ void join_tokens(const few_place &at, const few_rows<R> &sum, const float (&y)[R],
                            float *to, int columns)
{
    __shared__ float parts[kThreads][9];
#pragma unroll
    for (int r = 0; r < R; r++) {
        __syncthreads();
#pragma unroll
        for (int e = 0; e < 8; e++)
            parts[threadIdx.x][e] = sum.x[r][e];
        parts[threadIdx.x][8] = y[r];
        __syncthreads();
        for (int c = threadIdx.x; c <= columns; c += kThreads) {
            const int lane = c == columns ? 0 : c / 8, e = c == columns ? 8 : c % 8;
            float total = 0.0F;
            for (int k = 0; k < at.step; k++)
                total += parts[k * at.lanes + lane][e];
            to[r * (columns + 1) + c] = total;
        }
    }
}

/* grid (slices, heads of keys): reads k and v once */
template <typename F, typename T, int R>
__global__ void __launch_bounds__(kThreads, R == 1 ? 2 : 1)
    few_sum_kernel(const __grid_constant__ linear_arguments a)
{
    constexpr int ahead = R == 1 ? 4 : 1; /* tokens under way */
    typedef typename panel_of<T>::type P;
    const few_place at(a);
    const linear_unit u = linear_unit_of(a, at.b, 0, at.kv_h);
    const panel_rows<F> keys(a.k, at.b, at.kv_h, u.kv_valid);
    const panel_rows<T> values(a.v, at.b, at.kv_h, u.kv_valid);
    few_rows<R> q, sum = {};
    float y[R] = {};
    load_rows<R, P, F>(a, at, true, q);
    const int to = min(at.to, u.kv_valid);
    /* every lane of a warp goes as often as the first: sums over lanes need them all */
    const int first = at.from - (int)threadIdx.x / at.lanes;
    for (int base = first; base < to; base += ahead * at.step) {
        float k[ahead][8], v[ahead][8];
#pragma unroll
        for (int n = 0; n < ahead; n++) {
            const int row = base + n * at.step + at.from - first;
            fetch_chunk(keys, row < to ? row : u.kv_valid, at.col, k[n]);
            fetch_chunk(values, row < to ? row : u.kv_valid, at.col, v[n]);
        }
#pragma unroll
        for (int n = 0; n < ahead; n++) {
            const bool exists = base + n * at.step + at.from - first < to;
            few_features<P>(a, k[n], at.col);
#pragma unroll
            for (int r = 0; r < R; r++) {
                const float product = sum_of_lanes(dot8(q.x[r], k[n]), at.lanes);
                const float s = exists ? product : 0.0F;
                y[r] += s;
                add8(sum.x[r], s, v[n]);
            }
        }
    }
    join_tokens<R>(at, sum, y, a.sums + (at.unit * a.slices + blockIdx.x) * a.count, a.v.dim);
}

/* grid (slices, heads of keys): reads k and v and writes dk and dv once; sums for dq */
template <typename F, typename T, int R, bool Apart>
__global__ void __launch_bounds__(kThreads, R == 1 ? 2 : 1)
    few_gradient_kernel(const __grid_constant__ linear_arguments a)
{
    constexpr int ahead = R == 1 ? 4 : 1; /* tokens under way */
    typedef typename panel_of<T>::type P;
    const few_place at(a);
    const linear_unit u = linear_unit_of(a, at.b, 0, at.kv_h);
    const panel_rows<F> keys(a.k, at.b, at.kv_h, u.kv_valid), dk(a.dk, at.b, at.kv_h, a.kv_len);
    const panel_rows<T> values(a.v, at.b, at.kv_h, u.kv_valid), dv(a.dv, at.b, at.kv_h, a.kv_len);
    few_rows<R> q, dout, sum = {};
    float inverse[R], w[R], apart[R], unused[R] = {};
    load_rows<R, P, F>(a, at, true, q);
    load_rows<R, P, T>(a, at, false, dout);
#pragma unroll
    for (int r = 0; r < R; r++) {
        const few_query query(a, at.kv_h, r);
        const bool exists = r < a.group * a.q_len && query.row < u.q_valid;
        const int64_t place = (at.b * a.heads + query.h) * a.q_len + query.row;
        inverse[r] = exists ? linear_inverse(a.denominators[place]) : 0.0F;
        w[r] = exists ? a.weights[place] : 0.0F;
        if constexpr (Apart) {
            float all = 0.0F;
#pragma unroll
            for (int e = 0; e < 8; e++)
                all += q.x[r][e];
            apart[r] = a.few_apart * sum_of_lanes(all, at.lanes);
        }
    }
    const int first = at.from - (int)threadIdx.x / at.lanes;
    for (int base = first; base < at.to; base += ahead * at.step) {
        float k[ahead][8], v[ahead][8];
#pragma unroll
        for (int n = 0; n < ahead; n++) {
            const int row = base + n * at.step + at.from - first;
            fetch_chunk(keys, row < at.to ? row : u.kv_valid, at.col, k[n]);
            fetch_chunk(values, row < at.to ? row : u.kv_valid, at.col, v[n]);
        }
#pragma unroll
        for (int n = 0; n < ahead; n++) {
            const int row = base + n * at.step + at.from - first;
            const bool exists = row < min(at.to, u.kv_valid);
            float dk8[8] = {}, dv8[8] = {}, slope[8];
#pragma unroll
            for (int e = 0; e < 8; e++)
                slope[e] = exists ? linear_slope<P>(a.map, k[n][e]) : 0.0F;
            few_features<P>(a, k[n], at.col);
#pragma unroll
            for (int r = 0; r < R; r++) {
                float product = sum_of_lanes(dot8(q.x[r], k[n]), at.lanes);
                if constexpr (Apart)
                    product += apart[r];
                const float s = exists ? product : 0.0F;
                const float t = sum_of_lanes(dot8(dout.x[r], v[n]), at.lanes) - w[r];
                add8(dv8, s * inverse[r], dout.x[r]);
                add8(dk8, t * inverse[r], q.x[r]);
                add8(sum.x[r], exists ? t : 0.0F, k[n]);
            }
#pragma unroll
            for (int e = 0; e < 8; e++)
                dk8[e] *= slope[e];
            if (row < at.to) {
                store_chunk(dk, row, at.col, dk8);
                store_chunk(dv, row, at.col, dv8);
            }
        }
    }
    join_tokens<R>(at, sum, unused, a.sums + (at.unit * a.slices + blockIdx.x) * a.count,
                   a.features);
}

/* grid (rows, heads of keys): the slices' sums in order, then out with its denominator, or dq */
template <typename F, typename T, bool Gradient>
__global__ void __launch_bounds__(FB_HEAD_DIM_MAX)
    few_total_kernel(const __grid_constant__ linear_arguments a)
{
    __shared__ float shared_y;
    const int64_t unit = blockIdx.y, b = unit / a.kv_heads;
    const int r = (int)blockIdx.x, c = (int)threadIdx.x;
    const few_query query(a, unit % a.kv_heads, r);
    const linear_unit u = linear_unit_of(a, b, query.h, unit % a.kv_heads);
    const int64_t place = (b * a.heads + query.h) * a.q_len + query.row;
    const int columns = Gradient ? a.features : a.v.dim;
    const bool exists = query.row < u.q_valid;
    const auto total = [&](int col) {
        const float *from = a.sums + unit * a.slices * a.count + r * (columns + 1) + col;
        careful_sum sum = {0.0F, 0.0F};
        for (int s = 0; s < a.slices; s++)
            sum.add(from[s * a.count]);
        return sum.value;
    };
    if (c == 0) {
        shared_y = Gradient ? (exists ? a.denominators[place] : 0.0F) : total(columns) + a.epsilon;
        if (!Gradient && a.denominators != nullptr)
            a.denominators[place] = exists ? shared_y : 0.0F;
    }
    __syncthreads();
    if (c >= columns)
        return;
    const float x = exists ? total(c) * linear_inverse(shared_y) : 0.0F;
    if constexpr (Gradient) {
        const panel_rows<F> q(a.q, b, query.h, a.q_len), dq(a.dq, b, query.h, a.q_len);
        const float slope =
            exists
                ? linear_slope<typename panel_of<T>::type>(a.map, to_f32(*q.at((int)query.row, c)))
                : 0.0F;
        *dq.at((int)query.row, c) = from_f32<F>(x * slope);
    } else {
        const panel_rows<T> out(a.out, b, query.h, a.q_len);
        *out.at((int)query.row, c) = from_f32<T>(x);
    }
}

template <typename F, typename T>
enum fb_status run(const linear_arguments &a, bool gradient, cudaStream_t stream,
                   struct fb_error *error)
{
    const int rows = a.group * a.q_len;
    const dim3 grid((unsigned)a.slices, (unsigned)(a.batch * a.kv_heads));
    const dim3 rows_grid((unsigned)rows, grid.y);
    const auto apart = rows == 1 ? few_gradient_kernel<F, T, 1, true>
                                 : few_gradient_kernel<F, T, kFewRowsMost, true>;
    const auto gradients = rows == 1 ? few_gradient_kernel<F, T, 1, false>
                                     : few_gradient_kernel<F, T, kFewRowsMost, false>;
    const auto sums = rows == 1 ? few_sum_kernel<F, T, 1> : few_sum_kernel<F, T, kFewRowsMost>;
    const auto sum = !gradient ? sums : a.few_apart != 0.0F ? apart : gradients;
    const auto total = gradient ? few_total_kernel<F, T, true> : few_total_kernel<F, T, false>;
    sum<<<grid, kThreads, 0, stream>>>(a);
    total<<<rows_grid, FB_HEAD_DIM_MAX, 0, stream>>>(a);
    return fb_cuda_launched("linear attention of few queries", error);
}

} // namespace

int linear_cuda_few_lanes(const struct fb_problem *p, int64_t features)
{
    const int64_t rows = p->heads / p->kv_heads * p->q_len;
    const int64_t columns = features > p->v_dim ? features : p->v_dim;
    if (p->causal || rows > kFewRowsMost || columns > FB_HEAD_DIM_MAX)
        return 0;
    int lanes = 8;
    while (8 * lanes < columns)
        lanes *= 2;
    return lanes;
}

enum fb_status linear_cuda_few(enum fb_dtype features, enum fb_dtype dtype,
                               const linear_arguments &a, bool gradient, cudaStream_t stream,
                               struct fb_error *error)
{
    if (dtype == FB_BF16)
        return run<__nv_bfloat16, __nv_bfloat16>(a, gradient, stream, error);
    if (dtype == FB_F32)
        return run<float, float>(a, gradient, stream, error);
    if (features == FB_F16)
        return run<__half, __half>(a, gradient, stream, error);
    return run<float, __half>(a, gradient, stream, error);
}
