/*
 * The states of slices in f32 on Hopper: as linear_cuda_sums.cu, its products by warpgroups
 * (cuda_split.cuh). Z comes turned through registers, a panel ahead; Y by asynchronous copies.
 */
#include "linear_cuda_split.cuh"

namespace
{

constexpr int kStages = 2; /* of Y, the one in use included */
constexpr int kStageBytes = (2 + kStages) * kSplitBytes;
constexpr size_t kSharedBytes = kStageBytes + 2 * kPanel * sizeof(float);

#if FB_HAVE_WGMMA

/* What stands beside a panel's rows of queries: 1 / y, and what weighs the sum of Y. */
__device__ inline void load_numbers(float *inverse, float *weight, const float *denominators,
                                    const float *weights, int first, int valid)
{
    if (threadIdx.x >= kPanel)
        return;
    const int row = first + (int)threadIdx.x;
    const float by = row < valid ? linear_inverse(denominators[row]) : 0.0F;
    inverse[threadIdx.x] = by;
    weight[threadIdx.x] = row < valid ? -weights[row] * by : 0.0F;
}

/* Adds the weighed columns of Y, the warp's columns g and g + 8 over the lane's tokens. */
template <bool OfQueries>
__device__ void add_columns(const split_operand &y, const float *weight, float (&sums)[2])
{
#pragma unroll
    for (int step = 0; step < 8; step++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float x = y.at(step, i);
            if constexpr (OfQueries)
                sums[i % 2] = fmaf(weight[8 * step + threadIdx.x % 4 * 2 + i / 2], x, sums[i % 2]);
            else
                sums[i % 2] += x;
        }
}

#endif

/* grid (slices, heads of Y, panels of the state): one panel of the state of one slice, in
 * registers; reads k and v (queries: q and dout) of the slice once per panel of the other.
 * running: nobody asks for the last slice's state (of queries: the first's), which is left zero. */
template <bool OfQueries>
__global__ void __launch_bounds__(kPanelThreads, 2)
    split_sum_kernel(const __grid_constant__ linear_arguments a, bool running)
{
#if FB_HAVE_WGMMA
    extern __shared__ __align__(1024) char shared[];
    char *z_high = shared, *z_low = z_high + kSplitBytes, *stages = z_low + kSplitBytes;
    float *inverse = reinterpret_cast<float *>(shared + kStageBytes), *weight = inverse + kPanel;
    const turned_places places;
    const int heads = OfQueries ? a.heads : a.kv_heads;
    const int64_t unit = blockIdx.y, b = unit / heads, h = unit % heads;
    const linear_unit u = linear_unit_of(a, b, h, h);
    const int valid = OfQueries ? u.q_valid : u.kv_valid;
    const int y_panel = (int)blockIdx.z / a.value_panels,
              z_panel = (int)blockIdx.z % a.value_panels;
    const panel_rows<float> y(OfQueries ? a.q : a.k, b, h, valid);
    const panel_rows<float> z(OfQueries ? a.dout : a.v, b, h, valid);
    const float *denominators = a.denominators + (OfQueries ? unit * a.q_len : 0);
    const float *weights = a.weights + (OfQueries ? unit * a.q_len : 0);
    const int strip = (int)threadIdx.x / 32 * 16;
    const int from = (int)blockIdx.x * a.slice_panels * kPanel;
    const int to = min(from + a.slice_panels * kPanel, valid);
    const bool wanted = !running || (int)blockIdx.x != (OfQueries ? 0 : a.slices - 1);
    const int count = from < to && wanted ? (to - from + kPanel - 1) / kPanel : 0;
    const auto start = [&](int n) {
        if (n < count)
            start_split(stages + n % kStages * kSplitBytes, y, from + n * kPanel, y_panel);
        commit_copies();
    };
    float sums[2] = {};
    strip_result state;
    clear(state);
    turned_column column;
    start(0);
    column.load(z, from, z_panel);
    if (OfQueries) {
        load_numbers(inverse, weight, denominators, weights, from, valid);
        __syncthreads();
    }
    for (int n = 0; n < count; n++) {
        char *ys = stages + n % kStages * kSplitBytes;
        const int first = from + n * kPanel;
        wait_copies<0>();
        map_split(a.map, ys, nullptr, y, first, y_panel);
        if (OfQueries)
#pragma unroll
            for (int i = 0; i < kTurnedEach; i++)
                column.x[i] *= inverse[turned_column::row(i)];
        column.store(z_high, z_low);
        publish_shared();
        __syncthreads();
        start(n + 1);
        if (n + 1 < count)
            column.load(z, first + kPanel, z_panel);
        split_operand left;
        left.load_turned(ys, places);
        if (z_panel == 0)
            add_columns<OfQueries>(left, weight, sums);
        strip_result part;
        clear(part);
        multiply_split(part, left, z_high, z_low);
#pragma unroll
        for (int k = 0; k < 8; k++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                state[k][i] += part[k][i];
        __syncthreads();
        if (OfQueries && n + 1 < count) {
            load_numbers(inverse, weight, denominators, weights, first + kPanel, valid);
            __syncthreads();
        }
    }
    float *out = (OfQueries ? a.back : a.sums) + (unit * a.slices + blockIdx.x) * a.count;
    float *panel = out + (int64_t)blockIdx.z * kPanelCount;
    each_pair(state, strip, [&](int row, int at, float x0, float x1) {
        *reinterpret_cast<float2 *>(panel + row * kPanel + at) = make_float2(x0, x1);
    });
    if (z_panel != 0)
        return;
    sums[0] = sum_of_four(sums[0]);
    sums[1] = sum_of_four(sums[1]);
    if (threadIdx.x % 4 == 0) {
        float *key_sum = out + linear_key_sum(a, y_panel) + strip + threadIdx.x % 32 / 4;
        key_sum[0] = sums[0];
        key_sum[8] = sums[1];
    }
#else
    (void)a;
    (void)running;
#endif
}

} // namespace

bool linear_cuda_split_sums(const linear_arguments &a, bool of_queries)
{
    return (of_queries ? a.q.whole && a.dout.whole : a.k.whole && a.v.whole) && fb_cuda_is_hopper();
}

enum fb_status linear_cuda_split_sum(const linear_arguments &a, bool of_queries, bool running,
                                     cudaStream_t stream, struct fb_error *error)
{
    const auto kernel = of_queries ? split_sum_kernel<true> : split_sum_kernel<false>;
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, kSharedBytes, "sums of linear attention", error);
    if (status != FB_OK)
        return status;
    const dim3 grid((unsigned)a.slices, (unsigned)(a.batch * (of_queries ? a.heads : a.kv_heads)),
                    (unsigned)(a.feature_panels * a.value_panels));
    kernel<<<grid, kPanelThreads, kSharedBytes, stream>>>(a, running);
    return fb_cuda_launched("sums of linear attention", error);
}
