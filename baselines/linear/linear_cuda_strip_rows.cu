/* Rows times the state of all tokens in strips: forward, dq with w, dk and dv together. See
 * linear_cuda_strip.cuh. */
#include "linear_cuda_strip.cuh"

namespace
{

/* The strips of a warp: every eighth of its block's slice of rows. */
struct strip_walk {
    int first, end;
    __device__ strip_walk(const linear_arguments &a, int count)
        : first((int)blockIdx.x * a.row_panels * kPanel + (int)threadIdx.x / 32 * kStripRows),
          end(min((int)(blockIdx.x + 1) * a.row_panels * kPanel, count))
    {
    }
    static constexpr int step = kStripWarps * kStripRows;
};

template <typename T>
__device__ void pack_result(const strip_result &c, const float (&scale)[2], strip_pairs &to)
{
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            to.x[half][j] =
                pack_pair<T>(scale[half] * c[j][2 * half], scale[half] * c[j][2 * half + 1]);
}

/* grid (slices of rows, heads): reads q and writes out once; the first slice keeps the state */
template <typename T>
__global__ void __launch_bounds__(kStripThreads, 2)
    out_kernel(const __grid_constant__ linear_arguments a, const float *states, int slots,
               float *kept)
{
    __shared__ strip_state state;
    __shared__ strip_operand operand;
    const int64_t b = blockIdx.y / a.heads, h = blockIdx.y % a.heads;
    const int64_t unit = b * a.kv_heads + h / a.group;
    const linear_unit u = linear_unit_of(a, b, h, h);
    const panel_rows<T> x(a.q, b, h, u.q_valid), out(a.out, b, h, a.q_len);
    const strip_walk walk(a, a.q_len);
    strip_pairs next;
    load_strip(next, x, walk.first);
    const strip_factors<T> factors =
        load_state<T>(state, states + unit * slots * a.count, slots, a.count);
    make_operand(operand, state, factors, false);
    if (kept != nullptr && blockIdx.x == 0 && h % a.group == 0)
        for (int i = threadIdx.x; i < kPanelCount + kPanel; i += kStripThreads)
            kept[unit * a.count + i] = i < kPanelCount ? state.state[i / kPanel][i % kPanel]
                                                       : state.key_sums[i - kPanelCount];
    const strip_vector<T> key_sums(state.key_sums, factors.key_sums);
    __syncthreads();
    const int lane = threadIdx.x % 32;
    for (int first = walk.first; first < walk.end; first += walk.step) {
        strip_pairs features, result;
        strip_features<T>(a.map, next, features);
        if (first + walk.step < walk.end)
            load_strip(next, x, first + walk.step);
        strip_result c;
        float y[2], scale[2];
        key_sums.dot(features, y);
        multiply_strip<T>(c, features, operand);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = first + lane / 4 + 8 * half;
            y[half] = row < u.q_valid ? y[half] + a.epsilon : 0.0F;
            scale[half] = linear_inverse(y[half]) * factors.state.back;
            if (a.denominators != nullptr && lane % 4 == 0 && row < a.q_len)
                a.denominators[(int64_t)blockIdx.y * a.q_len + row] = y[half];
        }
        pack_result<T>(c, scale, result);
        store_strip(result, out, first);
    }
}

/* Slopes of phi at a strip's pairs times its result, which has something added to its columns:
 * scale (c + added vector). */
template <typename T>
__device__ void pack_gradient(enum fb_linear_cuda_map map, const strip_result &c,
                              const strip_pairs &x, const float (&scale)[2],
                              const float (&added)[2], const float *vector, strip_pairs &to)
{
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const float2 along = *reinterpret_cast<const float2 *>(vector + strip_column(j, t));
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t pair = x.x[half][j];
            const float low = scale[half] * fmaf(added[half], along.x, c[j][2 * half]);
            const float high = scale[half] * fmaf(added[half], along.y, c[j][2 * half + 1]);
            to.x[half][j] = pack_pair<T>(low * linear_slope<panel_bf16>(map, low_of<T>(pair)),
                                         high * linear_slope<panel_bf16>(map, high_of<T>(pair)));
        }
    }
}

/* grid (slices of rows, heads of queries): reads q and dout, writes dq and w, which is fq N dout /
 * y */
template <typename T>
__global__ void __launch_bounds__(kStripThreads, 2)
    dq_kernel(const __grid_constant__ linear_arguments a)
{
    __shared__ strip_state state;
    __shared__ strip_operand operand;
    const int64_t b = blockIdx.y / a.heads, h = blockIdx.y % a.heads;
    const int64_t unit = b * a.kv_heads + h / a.group, place = (int64_t)blockIdx.y * a.q_len;
    const linear_unit u = linear_unit_of(a, b, h, h);
    const panel_rows<T> q(a.q, b, h, u.q_valid), dout(a.dout, b, h, u.q_valid),
        dq(a.dq, b, h, a.q_len);
    const strip_walk walk(a, a.q_len);
    strip_pairs next_q, next_dout;
    load_strip(next_q, q, walk.first);
    load_strip(next_dout, dout, walk.first);
    const strip_factors<T> factors = load_state<T>(state, a.sum_total + unit * a.count, 1, a.count);
    make_operand(operand, state, factors, true);
    __syncthreads();
    const int lane = threadIdx.x % 32;
    for (int first = walk.first; first < walk.end; first += walk.step) {
        const strip_pairs x = next_q;
        strip_pairs features, result;
        strip_result c;
        multiply_strip<T>(c, next_dout, operand);
        if (first + walk.step < walk.end) {
            load_strip(next_q, q, first + walk.step);
            load_strip(next_dout, dout, first + walk.step);
        }
        strip_features<T>(a.map, x, features);
        float scale[2], added[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = first + lane / 4 + 8 * half;
            float w = 0.0F;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                w = fmaf(low_of<T>(features.x[half][j]), c[j][2 * half], w);
                w = fmaf(high_of<T>(features.x[half][j]), c[j][2 * half + 1], w);
            }
            const bool exists = row < u.q_valid;
            scale[half] =
                exists ? linear_inverse(a.denominators[place + row]) * factors.state.back : 0.0F;
            w = sum_of_four(w) * scale[half];
            added[half] = -w * factors.state.into;
            if (lane % 4 == 0 && row < a.q_len)
                a.weights[place + row] = w;
        }
        pack_gradient<T>(a.map, c, x, scale, added, state.key_sums, result);
        store_strip(result, dq, first);
    }
}

/* grid (slices of rows, heads of keys): reads k and v, writes dk and dv */
template <typename T>
__global__ void __launch_bounds__(kStripThreads, 2)
    dk_dv_kernel(const __grid_constant__ linear_arguments a, const float *states, int slots)
{
    __shared__ strip_state state;
    __shared__ strip_operand to_features, to_values;
    const int64_t b = blockIdx.y / a.kv_heads, h = blockIdx.y % a.kv_heads;
    const linear_unit u = linear_unit_of(a, b, h, h);
    const panel_rows<T> k(a.k, b, h, u.kv_valid), v(a.v, b, h, u.kv_valid);
    const panel_rows<T> dk(a.dk, b, h, a.kv_len), dv(a.dv, b, h, a.kv_len);
    const strip_walk walk(a, a.kv_len);
    strip_pairs next_k, next_v;
    load_strip(next_k, k, walk.first);
    load_strip(next_v, v, walk.first);
    const strip_factors<T> factors =
        load_state<T>(state, states + (int64_t)blockIdx.y * slots * a.count, slots, a.count);
    make_operand(to_features, state, factors, true);
    make_operand(to_values, state, factors, false);
    __syncthreads();
    const int lane = threadIdx.x % 32;
    for (int first = walk.first; first < walk.end; first += walk.step) {
        const strip_pairs x = next_k;
        strip_pairs features, result;
        strip_result c;
        float scale[2], added[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const bool exists = first + lane / 4 + 8 * half < u.kv_valid;
            scale[half] = exists ? factors.state.back : 0.0F;
            added[half] = exists ? factors.state.into : 0.0F;
        }
        multiply_strip<T>(c, next_v, to_features);
        if (first + walk.step < walk.end) {
            load_strip(next_k, k, first + walk.step);
            load_strip(next_v, v, first + walk.step);
        }
        pack_gradient<T>(a.map, c, x, scale, added, state.key_sums, result);
        store_strip(result, dk, first);
        strip_features<T>(a.map, x, features);
        multiply_strip<T>(c, features, to_values);
        pack_result<T>(c, scale, result);
        store_strip(result, dv, first);
    }
}

dim3 grid_of(const linear_arguments &a, int count, int heads)
{
    const int panels = (count + kPanel - 1) / kPanel;
    return dim3((unsigned)((panels + a.row_panels - 1) / a.row_panels),
                (unsigned)(a.batch * heads));
}

} // namespace

enum fb_status linear_cuda_strip_out(enum fb_dtype dtype, const linear_arguments &a,
                                     const float *states, int slots, float *kept,
                                     cudaStream_t stream, struct fb_error *error)
{
    const auto kernel = dtype == FB_BF16 ? out_kernel<__nv_bfloat16> : out_kernel<__half>;
    kernel<<<grid_of(a, a.q_len, a.heads), kStripThreads, 0, stream>>>(a, states, slots, kept);
    return fb_cuda_launched("linear attention", error);
}

enum fb_status linear_cuda_strip_dq(enum fb_dtype dtype, const linear_arguments &a,
                                    cudaStream_t stream, struct fb_error *error)
{
    const auto kernel = dtype == FB_BF16 ? dq_kernel<__nv_bfloat16> : dq_kernel<__half>;
    kernel<<<grid_of(a, a.q_len, a.heads), kStripThreads, 0, stream>>>(a);
    return fb_cuda_launched("linear attention", error);
}

enum fb_status linear_cuda_strip_dk_dv(enum fb_dtype dtype, const linear_arguments &a,
                                       const float *states, int slots, cudaStream_t stream,
                                       struct fb_error *error)
{
    const auto kernel = dtype == FB_BF16 ? dk_dv_kernel<__nv_bfloat16> : dk_dv_kernel<__half>;
    kernel<<<grid_of(a, a.kv_len, a.kv_heads), kStripThreads, 0, stream>>>(a, states, slots);
    return fb_cuda_launched("linear attention", error);
}
