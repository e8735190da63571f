/*
 * Gradients of softmax over a band of keys for wide heads: as window_cuda_gradient.cu, but panels
 * of both sides pass through shared memory in pairs, one step ahead of the products, instead of
 * staying there. A block gives two panels of a result; the blocks of one result form the weights
 * again each.
 */
#include "window_cuda_gradient.cuh"

namespace
{

constexpr int kResults = 2; /* panels of the result per block */
constexpr int kStages = 2;

template <typename P> __host__ __device__ constexpr int stage_bytes()
{
    return 2 * P::bytes;
}

template <typename P> __device__ char *stage_at(char *shared, int step)
{
    return shared + step % kStages * stage_bytes<P>();
}

struct walk_steps {
    int scores, each, all; /* steps with scores, per panel of the other side, altogether */
};

/* grid (panels of queries, heads, blocks of dq's panels) */
template <typename P, typename T>
__global__ void __launch_bounds__(kPanelThreads, 2)
    query_kernel(const __grid_constant__ gradient_arguments a)
{
    extern __shared__ __align__(1024) char shared[];
    char *weights = shared + kStages * stage_bytes<P>();
    const int first = ((int)gridDim.x - 1 - (int)blockIdx.x) * kPanel;
    const int result = (int)blockIdx.z * kResults, strip = (int)threadIdx.x / 32 * 16;
    const window_head head = window_head_of(a.w, blockIdx.y);
    const int rows = max(0, min(kPanel, head.q_len - first));
    const panel_rows<T> q(a.q, head.b, head.h, head.q_len),
        dout(a.dout, head.b, head.h, head.q_len);
    const panel_rows<T> k(a.k, head.b, head.kv_h, head.kv_len),
        v(a.v, head.b, head.kv_h, head.kv_len);
    const window_range range = window_range_of(a.w, head.kv_len, first, rows);
    const int count =
        rows > 0 && range.to > range.from ? (range.to - range.from + kPanel - 1) / kPanel : 0;
    const int64_t place = (int64_t)blockIdx.y * a.w.q_len + first;
    const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    float lse[2], share[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = strip + g + 8 * half;
        lse[half] = row < rows ? a.lse[place + row] : INFINITY;
        share[half] = row < rows ? a.shares[place + row] : 0.0F;
    }
    walk_steps steps;
    steps.scores = a.dim_panels + a.value_panels;
    steps.each = steps.scores + kResults;
    steps.all = count * steps.each;
    const auto start = [&](int step) {
        const int i = step % steps.each, at = range.from + step / steps.each * kPanel;
        char *to = stage_at<P>(shared, step);
        if (step < steps.all && i < a.dim_panels) {
            start_panel<P>(to, q, first, i);
            start_panel<P>(to + P::bytes, k, at, i);
        } else if (step < steps.all && i < steps.scores) {
            start_panel<P>(to, dout, first, i - a.dim_panels);
            start_panel<P>(to + P::bytes, v, at, i - a.dim_panels);
        } else if (step < steps.all) {
            start_panel<P>(to, k, at, result + i - steps.scores);
        }
        commit_copies();
    };
    strip_result sum[kResults];
#pragma unroll
    for (int i = 0; i < kResults; i++)
        clear(sum[i]);
    start(0);
    int step = 0;
    const auto next = [&]() {
        wait_copies<0>();
        __syncthreads();
        start(step + 1);
        return stage_at<P>(shared, step++);
    };
    for (int n = 0; n < count; n++) {
        const int at = range.from + n * kPanel;
        strip_result s, dp;
        clear(s);
        clear(dp);
        for (int i = 0; i < a.dim_panels; i++) {
            const char *here = next();
            P::multiply_turned(s, here, strip, here + P::bytes);
        }
        for (int i = 0; i < a.value_panels; i++) {
            const char *here = next();
            P::multiply_turned(dp, here, strip, here + P::bytes);
        }
#pragma unroll
        for (int m = 0; m < 8; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = first + strip + g + i / 2 * 8, col = at + 8 * m + 2 * t + i % 2;
                const float p = weight_of<P>(s[m][i] * a.w.scale, lse[i / 2]);
                const bool seen = col < range.to && window_sees(a.w, row, col);
                s[m][i] = seen ? p * (dp[m][i] - share[i / 2]) : 0.0F;
            }
        put_strip<P>(weights, strip, s);
#pragma unroll
        for (int i = 0; i < kResults; i++)
            add_product<P>(sum[i], weights, strip, next());
    }
    const panel_rows<T> dq(a.dq, head.b, head.h, a.w.q_len);
#pragma unroll
    for (int i = 0; i < kResults; i++)
        write_gradient<P, T>(weights, strip, sum[i], dq, first, rows, a.w.q_len, result + i,
                             a.slope);
}

/* grid (panels of keys, heads of keys, blocks of the result's panels): dv, or dk */
template <typename P, typename T, bool Values>
__global__ void __launch_bounds__(kPanelThreads, 2)
    key_kernel(const __grid_constant__ gradient_arguments a)
{
    extern __shared__ __align__(1024) char shared[];
    __shared__ float lse[kPanel], share[kPanel];
    char *weights = shared + kStages * stage_bytes<P>();
    const int first = (int)blockIdx.x * kPanel;
    const int result = (int)blockIdx.z * kResults, strip = (int)threadIdx.x / 32 * 16;
    const int64_t b = blockIdx.y / a.kv_heads, kv_h = blockIdx.y % a.kv_heads;
    const window_head head = window_head_of(a.w, b * a.w.heads + kv_h * a.w.group);
    const int rows = max(0, min(kPanel, head.kv_len - first));
    const panel_rows<T> k(a.k, b, kv_h, head.kv_len), v(a.v, b, kv_h, head.kv_len);
    const window_range range = queries_of(a.w, head.q_len, first, rows);
    const int each =
        rows > 0 && range.to > range.from ? (range.to - range.from + kPanel - 1) / kPanel : 0;
    const int count = each * a.w.group; /* the panels of one head, then of the next */
    const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    walk_steps steps;
    steps.scores = a.dim_panels + (Values ? 0 : a.value_panels);
    steps.each = steps.scores + kResults;
    steps.all = count * steps.each;
    const auto start = [&](int step) {
        const int i = step % steps.each, n = step / steps.each;
        char *to = stage_at<P>(shared, step);
        if (step < steps.all) {
            const int64_t h = kv_h * a.w.group + n / each;
            const int at = range.from + n % each * kPanel;
            const panel_rows<T> q(a.q, b, h, head.q_len), dout(a.dout, b, h, head.q_len);
            if (i < a.dim_panels) {
                start_panel<P>(to, k, first, i);
                start_panel<P>(to + P::bytes, q, at, i);
            } else if (i < steps.scores) {
                start_panel<P>(to, v, first, i - a.dim_panels);
                start_panel<P>(to + P::bytes, dout, at, i - a.dim_panels);
            } else {
                start_panel<P>(to, Values ? dout : q, at, result + i - steps.scores);
            }
        }
        commit_copies();
    };
    strip_result sum[kResults];
#pragma unroll
    for (int i = 0; i < kResults; i++)
        clear(sum[i]);
    start(0);
    int step = 0;
    const auto next = [&]() {
        wait_copies<0>();
        __syncthreads();
        start(step + 1);
        return stage_at<P>(shared, step++);
    };
    for (int n = 0; n < count; n++) {
        const int at = range.from + n % each * kPanel;
        const int64_t h = kv_h * a.w.group + n / each;
        __syncthreads(); /* nobody reads the scalars of the panel before any more */
        if (threadIdx.x < kPanel) {
            const int row = at + (int)threadIdx.x;
            const int64_t place = (b * a.w.heads + h) * a.w.q_len + row;
            lse[threadIdx.x] = row < range.to ? a.lse[place] : INFINITY;
            share[threadIdx.x] = row < range.to ? a.shares[place] : 0.0F;
        }
        strip_result s, dp;
        clear(s);
        clear(dp);
        for (int i = 0; i < a.dim_panels; i++) {
            const char *here = next();
            P::multiply_turned(s, here, strip, here + P::bytes);
        }
        for (int i = a.dim_panels; i < steps.scores; i++) {
            const char *here = next();
            P::multiply_turned(dp, here, strip, here + P::bytes);
        }
#pragma unroll
        for (int m = 0; m < 8; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = first + strip + g + i / 2 * 8, col = 8 * m + 2 * t + i % 2;
                const bool seen = at + col < range.to && window_sees(a.w, at + col, row);
                const float p = seen ? weight_of<P>(s[m][i] * a.w.scale, lse[col]) : 0.0F;
                s[m][i] = Values ? p : p * (dp[m][i] - share[col]);
            }
        put_strip<P>(weights, strip, s);
#pragma unroll
        for (int i = 0; i < kResults; i++)
            add_product<P>(sum[i], weights, strip, next());
    }
    const panel_rows<T> to(Values ? a.dv : a.dk, b, kv_h, a.w.kv_len);
#pragma unroll
    for (int i = 0; i < kResults; i++)
        write_gradient<P, T>(weights, strip, sum[i], to, first, rows, a.w.kv_len, result + i,
                             Values ? 1.0F : a.slope);
}

unsigned blocks_of(int panels)
{
    return (unsigned)((panels + kResults - 1) / kResults);
}

template <typename T>
enum fb_status run(const struct fb_problem *p, const gradient_arguments &a, cudaStream_t stream,
                   struct fb_error *error)
{
    typedef typename panel_of<T>::type P;
    const char *name = "gradients of softmax, wide heads";
    const size_t bytes = kStages * (size_t)stage_bytes<P>() + P::bytes;
    const unsigned queries = (unsigned)((a.w.q_len + kPanel - 1) / kPanel);
    const unsigned keys = (unsigned)((a.w.kv_len + kPanel - 1) / kPanel);
    const unsigned heads = (unsigned)(p->batch * p->heads);
    const unsigned kv_heads = (unsigned)(p->batch * p->kv_heads);
    const void *const kernels[] = {(const void *)query_kernel<P, T>,
                                   (const void *)key_kernel<P, T, false>,
                                   (const void *)key_kernel<P, T, true>};
    for (const void *kernel : kernels) {
        const enum fb_status status = fb_cuda_allow_shared(kernel, bytes, name, error);
        if (status != FB_OK)
            return status;
    }
    query_kernel<P, T>
        <<<dim3(queries, heads, blocks_of(a.dim_panels)), kPanelThreads, bytes, stream>>>(a);
    key_kernel<P, T, false>
        <<<dim3(keys, kv_heads, blocks_of(a.dim_panels)), kPanelThreads, bytes, stream>>>(a);
    key_kernel<P, T, true>
        <<<dim3(keys, kv_heads, blocks_of(a.value_panels)), kPanelThreads, bytes, stream>>>(a);
    return fb_cuda_launched(name, error);
}

} // namespace

enum fb_status window_cuda_gradient_wide(const struct fb_problem *p, const gradient_arguments &a,
                                         cudaStream_t stream, struct fb_error *error)
{
    switch (p->dtype) {
    case FB_BF16:
        return run<__nv_bfloat16>(p, a, stream, error);
    case FB_F16:
        return run<__half>(p, a, stream, error);
    default:
        return run<float>(p, a, stream, error);
    }
}
