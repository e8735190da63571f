/* Linear attention without a mask: every row times the state of all tokens. See linear_cuda.cuh. */
#include "linear_cuda.cuh"

namespace
{

constexpr int kStages = 4; /* panels of X under way, the one in use included */
constexpr size_t kSharedMost = 200 * 1024;

template <typename P> size_t shared_bytes(int x_panels, bool resident)
{
    return (kStages + (resident ? (size_t)x_panels : 1)) * P::bytes + (size_t)x_panels * kPanel * 4;
}

/* grid (slices, heads of the rows, panels of the result): reads X once per panel of the result and
 * writes the result; the state stays in shared memory where it fits */
template <typename P, typename F, typename T, linear_pass Pass>
__global__ void __launch_bounds__(kPanelThreads, P::wide_sums ? 2 : 4)
    whole_kernel(const __grid_constant__ linear_arguments a, bool resident)
{
    typedef typename linear_types<Pass, F, T>::x TX;
    typedef typename linear_types<Pass, F, T>::z TZ;
    constexpr bool queries = linear_rows_are_queries<Pass>();
    extern __shared__ __align__(1024) char shared[];
    __shared__ float dots[2][kPanel], extra[kPanel];
    const int x_panels = linear_x_panels<Pass>(a), z = (int)blockIdx.z;
    char *states = shared + kStages * P::bytes;
    float *key_sums = reinterpret_cast<float *>(states + (resident ? x_panels : 1) *
                                                             P::bytes); /* of every panel */
    const int heads = queries ? a.heads : a.kv_heads;
    const int64_t b = blockIdx.y / heads, h = blockIdx.y % heads;
    const int64_t unit = b * a.kv_heads + (queries ? h / a.group : h);
    const linear_unit u = linear_unit_of(a, b, h, h);
    const int count = queries ? a.q_len : a.kv_len, valid = queries ? u.q_valid : u.kv_valid;
    const panel_rows<TX> x(linear_x<Pass>(a), b, h, valid);
    const float *total =
        (Pass == LINEAR_OUT || Pass == LINEAR_DQ ? a.sum_total : a.back_total) + unit * a.count;
    const int strip = (int)threadIdx.x / 32 * 16;
    const int from = (int)blockIdx.x * a.slice_panels * kPanel;
    const int to = min(from + a.slice_panels * kPanel, count);
    if (from >= to)
        return;
    const int panels = (to - from + kPanel - 1) / kPanel;
    const auto start = [&](int n) {
        if (n < panels * x_panels)
            start_panel<P>(shared + n % kStages * P::bytes, x, from + n / x_panels * kPanel,
                           n % x_panels);
        commit_copies();
    };
    for (int n = 0; n < kStages - 1; n++)
        start(n);
    if (resident)
        for (int i = 0; i < x_panels; i++)
            load_panel<P>(states + i * P::bytes, total + linear_state_panel<Pass>(a, i, z),
                          linear_gives_features<Pass>());
    if (Pass == LINEAR_OUT)
        for (int i = threadIdx.x; i < x_panels * kPanel; i += kPanelThreads)
            key_sums[i] = total[linear_key_sum(a, 0) + i];
    if (linear_gives_features<Pass>() && threadIdx.x < kPanel)
        extra[threadIdx.x] = total[linear_key_sum(a, z) + threadIdx.x];
    __syncthreads();
    for (int n = 0; n < panels; n++) {
        const int first = from + n * kPanel, parity = n % 2;
        strip_result c;
        clear(c);
        char *xs = shared;
        for (int i = 0; i < x_panels; i++) {
            const int step = n * x_panels + i;
            xs = shared + step % kStages * P::bytes;
            wait_copies<kStages - 2>();
            const auto join = [&](int k, const float(&e)[8]) {
                const float *key_sum = key_sums + i * kPanel + threadIdx.x % 8 * 8;
                float dot = 0.0F;
#pragma unroll
                for (int m = 0; m < 8; m++)
                    dot = fmaf(e[m], key_sum[m], dot);
                dot = sum_of_eight(dot);
                if (threadIdx.x % 8 == 0)
                    dots[parity][panel_row(k)] = i == 0 ? dot : dots[parity][panel_row(k)] + dot;
            };
            if constexpr (Pass == LINEAR_OUT)
                linear_finish<P>(a, xs, x, first, i, join);
            if constexpr (Pass == LINEAR_DV)
                linear_finish<P>(a, xs, x, first, i, [](int, const float(&)[8]) {});
            if (!resident)
                load_panel<P>(states, total + linear_state_panel<Pass>(a, i, z),
                              linear_gives_features<Pass>());
            __syncthreads();
            start(step + kStages - 1);
            P::multiply_straight(c, xs, strip, states + (resident ? i * P::bytes : 0));
            if (!resident)
                __syncthreads();
        }
        const int64_t place = (int64_t)blockIdx.y * a.q_len;
        each_pair(c, strip, [&](int row, int col, float &x0, float &x1) {
            const bool exists = first + row < valid;
            float scale = 1.0F, added = 0.0F;
            if constexpr (Pass == LINEAR_OUT)
                scale = linear_inverse(dots[parity][row] + a.epsilon);
            if constexpr (Pass == LINEAR_DQ) {
                scale = exists ? linear_inverse(a.denominators[place + first + row]) : 0.0F;
                added = exists ? -a.weights[place + first + row] : 0.0F;
            }
            if constexpr (Pass == LINEAR_DK)
                added = 1.0F;
            if constexpr (linear_gives_features<Pass>()) {
                x0 = fmaf(added, extra[col], x0);
                x1 = fmaf(added, extra[col + 1], x1);
            }
            x0 = exists ? scale * x0 : 0.0F;
            x1 = exists ? scale * x1 : 0.0F;
        });
        if constexpr (Pass == LINEAR_OUT)
            if (a.denominators != nullptr && z == 0 && threadIdx.x < kPanel &&
                first + (int)threadIdx.x < count)
                a.denominators[place + first + threadIdx.x] =
                    first + (int)threadIdx.x < valid ? dots[parity][threadIdx.x] + a.epsilon : 0.0F;
        linear_write<P, Pass, TZ>(a, xs, strip, c, b, h, first, z);
    }
}

template <typename P, typename F, typename T, linear_pass Pass>
enum fb_status launch(const linear_arguments &a, cudaStream_t stream, struct fb_error *error)
{
    const int x_panels = linear_x_panels<Pass>(a);
    const bool resident = shared_bytes<P>(x_panels, true) <= kSharedMost;
    const size_t bytes = shared_bytes<P>(x_panels, resident);
    const auto kernel = whole_kernel<P, F, T, Pass>;
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, bytes, "linear attention", error);
    if (status != FB_OK)
        return status;
    const int heads = linear_rows_are_queries<Pass>() ? a.heads : a.kv_heads;
    const dim3 grid((unsigned)a.slices, (unsigned)(a.batch * heads),
                    (unsigned)linear_z_panels<Pass>(a));
    kernel<<<grid, kPanelThreads, bytes, stream>>>(a, resident);
    return fb_cuda_launched("linear attention", error);
}

template <typename F, typename T, typename P = typename panel_of<T>::type>
enum fb_status choose(enum linear_pass pass, const linear_arguments &a, cudaStream_t stream,
                      struct fb_error *error)
{
    switch (pass) {
    case LINEAR_OUT:
        return launch<P, F, T, LINEAR_OUT>(a, stream, error);
    case LINEAR_DV:
        return launch<P, F, T, LINEAR_DV>(a, stream, error);
    case LINEAR_DQ:
        return launch<P, F, T, LINEAR_DQ>(a, stream, error);
    default:
        return launch<P, F, T, LINEAR_DK>(a, stream, error);
    }
}

} // namespace

enum fb_status linear_cuda_whole(enum fb_dtype features, enum fb_dtype dtype, enum linear_pass pass,
                                 const linear_arguments &a, cudaStream_t stream,
                                 struct fb_error *error)
{
    if (dtype == FB_BF16 && linear_is_narrow(a))
        return choose<__nv_bfloat16, __nv_bfloat16, panel_of<__half>::type>(pass, a, stream, error);
    if (dtype == FB_BF16)
        return choose<__nv_bfloat16, __nv_bfloat16>(pass, a, stream, error);
    if (dtype == FB_F32)
        return choose<float, float>(pass, a, stream, error);
    if (features == FB_F16)
        return choose<__half, __half>(pass, a, stream, error);
    return choose<float, __half>(pass, a, stream, error);
}
