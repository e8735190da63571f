/*
 * States of slices of tokens, Y^T Z and the sums of Y, their totals and running sums. Sums over
 * slices keep their rounding errors and run in the order of the slices, so that results are the
 * same every time.
 */
#include "linear_cuda.cuh"

namespace
{

constexpr int kStages = 3; /* panels under way, the one in use included */

/* grid (slices, heads of Y, panels of the state): one panel of the state of one slice, in
 * registers; reads k and v (queries: q and dout) of the slice once per panel of the other. */
template <typename P, typename F, typename T, bool OfQueries>
__global__ void __launch_bounds__(kPanelThreads, P::wide_sums ? 2 : 4)
    sum_kernel(const __grid_constant__ linear_arguments a)
{
    extern __shared__ __align__(1024) char shared[];
    __shared__ float columns[kPanelThreads / 8][kPanel];
    const int heads = OfQueries ? a.heads : a.kv_heads;
    const int64_t unit = blockIdx.y, b = unit / heads, h = unit % heads;
    const linear_unit u = linear_unit_of(a, b, h, h);
    const int valid = OfQueries ? u.q_valid : u.kv_valid;
    const int y_panel = (int)blockIdx.z / a.value_panels,
              z_panel = (int)blockIdx.z % a.value_panels;
    const panel_rows<F> y(OfQueries ? a.q : a.k, b, h, valid);
    const panel_rows<T> z(OfQueries ? a.dout : a.v, b, h, valid);
    const float *denominators = a.denominators + (OfQueries ? unit * a.q_len : 0);
    const float *weights = a.weights + (OfQueries ? unit * a.q_len : 0);
    const int strip = (int)threadIdx.x / 32 * 16, row0 = panel_row(0);
    const int from = (int)blockIdx.x * a.slice_panels * kPanel;
    const int to = min(from + a.slice_panels * kPanel, valid);
    const int count = from < to ? (to - from + kPanel - 1) / kPanel : 0;
    float key_sum[8] = {};
    strip_result state;
    clear(state);
    const auto start = [&](int n) {
        char *stage = shared + n % kStages * 2 * P::bytes;
        if (n < count) {
            start_panel<P>(stage, y, from + n * kPanel, y_panel);
            start_panel<P>(stage + P::bytes, z, from + n * kPanel, z_panel);
        }
        commit_copies();
    };
    for (int n = 0; n < kStages - 1; n++)
        start(n);
    for (int n = 0; n < count; n++) {
        char *ys = shared + n % kStages * 2 * P::bytes, *zs = ys + P::bytes;
        const int first = from + n * kPanel;
        float inverse[4], weight[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = first + panel_row(i);
            const bool exists = OfQueries && row < valid;
            inverse[i] = exists ? linear_inverse(denominators[row]) : 1.0F;
            weight[i] = exists ? -weights[row] * inverse[i] : 1.0F;
        }
        wait_copies<kStages - 2>();
        linear_finish<P>(a, ys, y, first, y_panel, [&](int i, const float(&x)[8]) {
#pragma unroll
            for (int e = 0; e < 8; e++)
                key_sum[e] = fmaf(weight[i], x[e], key_sum[e]);
        });
        if constexpr (OfQueries)
            finish_panel<P>(
                zs, z, first, z_panel,
                [&](int i, float(&x)[8]) {
#pragma unroll
                    for (int e = 0; e < 8; e++)
                        x[e] *= inverse[i];
                },
                [](int, const float(&)[8]) {});
        __syncthreads();
        start(n + kStages - 1);
        if constexpr (P::wide_sums) {
            strip_result part;
            clear(part);
            P::multiply_outer(part, ys, strip, zs);
#pragma unroll
            for (int k = 0; k < 8; k++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    state[k][i] += part[k][i];
        } else {
            P::multiply_outer(state, ys, strip, zs);
        }
    }
    float *out = (OfQueries ? a.back : a.sums) + (unit * a.slices + blockIdx.x) * a.count;
    float *panel = out + (int64_t)blockIdx.z * kPanelCount;
    each_pair(state, strip, [&](int row, int col, float x0, float x1) {
        *reinterpret_cast<float2 *>(panel + row * kPanel + col) = make_float2(x0, x1);
    });
    if (z_panel != 0)
        return;
#pragma unroll
    for (int e = 0; e < 8; e++)
        columns[row0][threadIdx.x % 8 * 8 + e] = key_sum[e];
    __syncthreads();
    if (threadIdx.x < kPanel) {
        float sum = 0.0F;
        for (int k = 0; k < kPanelThreads / 8; k++)
            sum += columns[k][threadIdx.x];
        out[linear_key_sum(a, y_panel) + threadIdx.x] = sum;
    }
}

template <typename P, typename F, typename T>
enum fb_status launch_sum(const linear_arguments &a, bool of_queries, cudaStream_t stream,
                          struct fb_error *error)
{
    const size_t bytes = 2 * kStages * (size_t)P::bytes;
    const auto kernel = of_queries ? sum_kernel<P, F, T, true> : sum_kernel<P, F, T, false>;
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, bytes, "sums of linear attention", error);
    if (status != FB_OK)
        return status;
    const dim3 grid((unsigned)a.slices, (unsigned)(a.batch * (of_queries ? a.heads : a.kv_heads)),
                    (unsigned)(a.feature_panels * a.value_panels));
    kernel<<<grid, kPanelThreads, bytes, stream>>>(a);
    return fb_cuda_launched("sums of linear attention", error);
}

constexpr int kScanThreads = 256;

/* grid (elements of a state, heads of keys): the sum over slices and the heads of the group, the
 * first of them as bf16 */
__global__ void __launch_bounds__(kScanThreads)
    total_kernel(const float *states, float *total, int slots, int64_t count, int64_t as_bf16)
{
    const int64_t i = (int64_t)blockIdx.x * kScanThreads + threadIdx.x;
    if (i >= count)
        return;
    const float *from = states + (int64_t)blockIdx.y * slots * count + i;
    careful_sum sum = {0.0F, 0.0F};
#pragma unroll 8
    for (int s = 0; s < slots; s++)
        sum.add(from[s * count]);
    float *to = total + blockIdx.y * count;
    if (i < as_bf16)
        reinterpret_cast<__nv_bfloat16 *>(to)[i] = __float2bfloat16_rn(sum.value);
    else
        to[i] = sum.value;
}

/* likewise, in place in the first head of the group: what comes before a slice, or after it */
__global__ void __launch_bounds__(kScanThreads)
    scan_kernel(float *states, int slices, int group, int64_t count, bool backwards)
{
    const int64_t i = (int64_t)blockIdx.x * kScanThreads + threadIdx.x;
    if (i >= count)
        return;
    float *from = states + (int64_t)blockIdx.y * group * slices * count + i;
    careful_sum sum = {0.0F, 0.0F};
#pragma unroll 4
    for (int k = 0; k < slices; k++) {
        const int s = backwards ? slices - 1 - k : k;
        const float before = sum.value;
        for (int g = 0; g < group; g++)
            sum.add(from[(int64_t)(g * slices + s) * count]);
        from[s * count] = before;
    }
}

unsigned scan_blocks(int64_t count)
{
    return (unsigned)((count + kScanThreads - 1) / kScanThreads);
}

} // namespace

enum fb_status linear_cuda_sum(enum fb_dtype features, enum fb_dtype dtype,
                               const linear_arguments &a, bool of_queries, cudaStream_t stream,
                               struct fb_error *error)
{
    if (dtype == FB_BF16 && linear_is_narrow(a))
        return launch_sum<panel_of<__half>::type, __nv_bfloat16, __nv_bfloat16>(a, of_queries,
                                                                                stream, error);
    if (dtype == FB_BF16)
        return launch_sum<panel_of<__nv_bfloat16>::type, __nv_bfloat16, __nv_bfloat16>(
            a, of_queries, stream, error);
    if (dtype == FB_F32)
        return launch_sum<panel_of<float>::type, float, float>(a, of_queries, stream, error);
    if (features == FB_F16)
        return launch_sum<panel_of<__half>::type, __half, __half>(a, of_queries, stream, error);
    return launch_sum<panel_of<__half>::type, float, __half>(a, of_queries, stream, error);
}

enum fb_status linear_cuda_total(const linear_arguments &a, bool of_queries, bool as_bf16,
                                 float *total, cudaStream_t stream, struct fb_error *error)
{
    const dim3 grid(scan_blocks(a.count), (unsigned)(a.batch * a.kv_heads));
    total_kernel<<<grid, kScanThreads, 0, stream>>>(of_queries ? a.back : a.sums, total,
                                                    a.slices * (of_queries ? a.group : 1), a.count,
                                                    as_bf16 ? linear_key_sum(a, 0) : 0);
    return fb_cuda_launched("totals of linear attention", error);
}

enum fb_status linear_cuda_scan(const linear_arguments &a, bool of_queries, cudaStream_t stream,
                                struct fb_error *error)
{
    const dim3 grid(scan_blocks(a.count), (unsigned)(a.batch * a.kv_heads));
    scan_kernel<<<grid, kScanThreads, 0, stream>>>(of_queries ? a.back : a.sums, a.slices,
                                                   of_queries ? a.group : 1, a.count, of_queries);
    return fb_cuda_launched("running sums of linear attention", error);
}
