/*
 * Gradients of softmax over a band of keys on a GPU, by panels of 64 queries and 64 keys, with
 * weights computed again from the logarithms of the row sums that forward saved. Dao et al.,
 * FlashAttention, 2022, algorithm 4; but one kernel goes over the keys of a block of queries for
 * dq, another over the queries of a block of keys for dk and dv, so that nothing is added from two
 * sides.
 *
 *   p = exp(s - lse), dv = p^T dout, dp = dout v^T, ds = p (dp - dout out), dq = ds k, dk = ds^T q
 */
#include "cuda_rows.cuh"
#include "window_cuda_gradient.cuh"
#include "window_cuda_groups.cuh"

#include <math.h>

namespace
{

constexpr int kResidentPanels = 4; /* of keys and values, in bf16: more are faster passing by */

/* Panels that stay: of the block's rows; that pass: of the other side, twice when brought ahead;
 * and one of weights. */
size_t shared_panels(const gradient_arguments &a)
{
    return (size_t)(a.dim_panels + a.value_panels) * (a.ahead ? 3 : 2) + 1;
}

/* first and second of both sides: q and dout, or k and v */
template <typename P, typename T>
__device__ void start_pair(const gradient_arguments &a, char *to, const panel_rows<T> &x,
                           const panel_rows<T> &y, int first)
{
    for (int i = 0; i < a.dim_panels; i++)
        start_panel<P>(to + i * P::bytes, x, first, i);
    for (int i = 0; i < a.value_panels; i++)
        start_panel<P>(to + (a.dim_panels + i) * P::bytes, y, first, i);
}

template <typename P>
__device__ void products(const gradient_arguments &a, strip_result &s, strip_result &dp, int strip,
                         const char *rows, const char *others)
{
    clear(s);
    clear(dp);
    for (int i = 0; i < a.dim_panels; i++)
        P::multiply_turned(s, rows + i * P::bytes, strip, others + i * P::bytes);
    for (int i = a.dim_panels; i < a.dim_panels + a.value_panels; i++)
        P::multiply_turned(dp, rows + i * P::bytes, strip, others + i * P::bytes);
}

/* grid (panels of queries, heads, panels of dq): reads k and v of the band once per block */
template <typename P, typename T>
__global__ void __launch_bounds__(kPanelThreads)
    query_kernel(const __grid_constant__ gradient_arguments a)
{
    extern __shared__ __align__(1024) char shared[];
    const int side = (a.dim_panels + a.value_panels) * P::bytes;
    char *own = shared, *passing = shared + side;
    char *weights = passing + (a.ahead ? 2 : 1) * side;
    const int first = ((int)gridDim.x - 1 - (int)blockIdx.x) * kPanel, z = (int)blockIdx.z;
    const int strip = (int)threadIdx.x / 32 * 16;
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
    float lse[2], share[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = strip + (int)threadIdx.x % 32 / 4 + 8 * half;
        lse[half] = row < rows ? a.lse[place + row] : INFINITY;
        share[half] = row < rows ? a.shares[place + row] : 0.0F;
    }
    strip_result sum;
    clear(sum);
    if (count > 0) {
        start_pair<P>(a, own, q, dout, first);
        if (a.ahead)
            start_pair<P>(a, passing, k, v, range.from);
    }
    commit_copies();
    for (int n = 0; n < count; n++) {
        const int at = range.from + n * kPanel;
        char *here = passing + (a.ahead ? n % 2 * side : 0);
        if (!a.ahead)
            start_pair<P>(a, here, k, v, at);
        else if (n + 1 < count)
            start_pair<P>(a, passing + (n + 1) % 2 * side, k, v, at + kPanel);
        commit_copies();
        if (a.ahead)
            wait_copies<1>();
        else
            wait_copies<0>();
        __syncthreads();
        strip_result s, dp;
        products<P>(a, s, dp, strip, own, here);
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
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
        add_product<P>(sum, weights, strip, here + z * P::bytes);
        __syncthreads();
    }
    wait_copies<0>();
    __syncthreads();
    write_gradient<P, T>(weights, strip, sum, panel_rows<T>(a.dq, head.b, head.h, a.w.q_len), first,
                         rows, a.w.q_len, z, a.slope);
}

/* grid (panels of keys, heads of keys, panels of dk and dv): reads q and dout of the band once per
 * block */
template <typename P, typename T>
__global__ void __launch_bounds__(kPanelThreads)
    key_kernel(const __grid_constant__ gradient_arguments a)
{
    extern __shared__ __align__(1024) char shared[];
    __shared__ float lse[kPanel], share[kPanel];
    const int side = (a.dim_panels + a.value_panels) * P::bytes;
    char *own = shared, *passing = shared + side;
    char *weights = passing + (a.ahead ? 2 : 1) * side;
    const int first = (int)blockIdx.x * kPanel, z = (int)blockIdx.z;
    const int strip = (int)threadIdx.x / 32 * 16;
    const int64_t b = blockIdx.y / a.kv_heads, kv_h = blockIdx.y % a.kv_heads;
    const window_head head = window_head_of(a.w, b * a.w.heads + kv_h * a.w.group);
    const int rows = max(0, min(kPanel, head.kv_len - first));
    const panel_rows<T> k(a.k, b, kv_h, head.kv_len), v(a.v, b, kv_h, head.kv_len);
    const window_range range = queries_of(a.w, head.q_len, first, rows);
    const int each =
        rows > 0 && range.to > range.from ? (range.to - range.from + kPanel - 1) / kPanel : 0;
    const int count = each * a.w.group; /* turns: the panels of one head, then of the next */
    const auto start = [&](int n, char *to) {
        const int64_t h = kv_h * a.w.group + n / each;
        const panel_rows<T> q(a.q, b, h, head.q_len), dout(a.dout, b, h, head.q_len);
        start_pair<P>(a, to, q, dout, range.from + n % each * kPanel);
    };
    strip_result dk, dv;
    clear(dk);
    clear(dv);
    if (count > 0) {
        start_pair<P>(a, own, k, v, first);
        if (a.ahead)
            start(0, passing);
    }
    commit_copies();
    for (int n = 0; n < count; n++) {
        const int at = range.from + n % each * kPanel;
        const int64_t h = kv_h * a.w.group + n / each;
        char *here = passing + (a.ahead ? n % 2 * side : 0);
        if (!a.ahead)
            start(n, here);
        else if (n + 1 < count)
            start(n + 1, passing + (n + 1) % 2 * side);
        commit_copies();
        if (threadIdx.x < kPanel) {
            const int row = at + (int)threadIdx.x;
            const int64_t place = (b * a.w.heads + h) * a.w.q_len + row;
            lse[threadIdx.x] = row < range.to ? a.lse[place] : INFINITY;
            share[threadIdx.x] = row < range.to ? a.shares[place] : 0.0F;
        }
        if (a.ahead)
            wait_copies<1>();
        else
            wait_copies<0>();
        __syncthreads();
        strip_result s, dp;
        products<P>(a, s, dp, strip, own, here);
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int m = 0; m < 8; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = first + strip + g + i / 2 * 8, col = 8 * m + 2 * t + i % 2;
                const bool seen = at + col < range.to && window_sees(a.w, at + col, row);
                const float p = seen ? weight_of<P>(s[m][i] * a.w.scale, lse[col]) : 0.0F;
                s[m][i] = p;
                dp[m][i] = p * (dp[m][i] - share[col]);
            }
        if (z < a.value_panels) {
            put_strip<P>(weights, strip, s);
            add_product<P>(dv, weights, strip, here + (a.dim_panels + z) * P::bytes);
        }
        if (z < a.dim_panels) {
            put_strip<P>(weights, strip, dp);
            add_product<P>(dk, weights, strip, here + z * P::bytes);
        }
        __syncthreads();
    }
    wait_copies<0>();
    __syncthreads();
    if (z < a.value_panels)
        write_gradient<P, T>(weights, strip, dv, panel_rows<T>(a.dv, b, kv_h, a.w.kv_len), first,
                             rows, a.w.kv_len, z, 1.0F);
    if (z < a.dim_panels)
        write_gradient<P, T>(weights, strip, dk, panel_rows<T>(a.dk, b, kv_h, a.w.kv_len), first,
                             rows, a.w.kv_len, z, a.slope);
}

template <typename T>
enum fb_status run(const struct fb_problem *p, const gradient_arguments &a, cudaStream_t stream,
                   struct fb_error *error)
{
    typedef typename panel_of<T>::type P;
    const char *name = "gradients of tiled softmax";
    const size_t bytes = shared_panels(a) * P::bytes;
    const int most = a.dim_panels > a.value_panels ? a.dim_panels : a.value_panels;
    const dim3 queries((unsigned)((a.w.q_len + kPanel - 1) / kPanel),
                       (unsigned)(p->batch * p->heads), (unsigned)a.dim_panels);
    const dim3 keys((unsigned)((a.w.kv_len + kPanel - 1) / kPanel),
                    (unsigned)(p->batch * p->kv_heads), (unsigned)most);
    enum fb_status status =
        fb_cuda_allow_shared((const void *)query_kernel<P, T>, bytes, name, error);
    if (status == FB_OK)
        status = fb_cuda_allow_shared((const void *)key_kernel<P, T>, bytes, name, error);
    if (status != FB_OK)
        return status;
    query_kernel<P, T><<<queries, kPanelThreads, bytes, stream>>>(a);
    key_kernel<P, T><<<keys, kPanelThreads, bytes, stream>>>(a);
    return fb_cuda_launched(name, error);
}

bool has_groups(const struct fb_problem *p, const window_gradient_view &a)
{
    return window_cuda_is_wide(p,
                               {&a.w.q, &a.w.k, &a.w.v, &a.w.out, &a.dout, &a.dq, &a.dk, &a.dv}) &&
           p->q_len >= kPanel && fb_cuda_is_hopper();
}

} // namespace

extern "C" enum fb_status fb_window_cuda_backward(const struct fb_problem *p,
                                                  const struct fb_call *call,
                                                  const struct fb_cuda_band *band,
                                                  struct fb_error *error)
{
    cudaStream_t stream = (cudaStream_t)call->stream;
    gradient_arguments a = {};
    a.w = window_arguments_of(p, call, band);
    a.q = panel_tensor_of(call->q);
    a.k = panel_tensor_of(call->k);
    a.v = panel_tensor_of(call->v);
    a.dout = panel_tensor_of(call->dout);
    a.dq = panel_tensor_of(call->dq);
    a.dk = panel_tensor_of(call->dk);
    a.dv = panel_tensor_of(call->dv);
    a.kv_heads = (int)p->kv_heads;
    a.dim_panels = (a.q.dim + kPanel - 1) / kPanel;
    a.value_panels = (a.v.dim + kPanel - 1) / kPanel;
    a.ahead = p->dtype == FB_BF16 && a.dim_panels + a.value_panels == 2;
    a.slope = (float)(1.0 / sqrt((double)p->qk_dim));
    a.lse = (const float *)call->saved;
    struct fb_window_cuda_gradient_buffers buffers;
    fb_window_cuda_gradient_buffers_of(p, band, call->scratch, &buffers);
    a.shares = buffers.shares;
    a.w.lengths = buffers.lengths;
    const int panels = a.dim_panels + a.value_panels;
    enum fb_status status = FB_OK;
    if (buffers.lengths != nullptr)
        status = fb_cuda_put_lengths(p, buffers.lengths, stream, error);
    const window_gradient_view view = {a.w,
                                       view_of(call->dout),
                                       view_of(call->dq),
                                       view_of(call->dk),
                                       view_of(call->dv),
                                       a.slope,
                                       a.lse,
                                       buffers.shares,
                                       buffers.lowered};
    if (status == FB_OK && has_groups(p, view))
        return fb_window_cuda_is_joint(p, band)
                   ? window_cuda_joint_gradient(call, view, buffers, stream, error)
                   : window_cuda_groups_gradient(p->dtype, view, stream, error);
    if (status == FB_OK)
        status = fb_cuda_row_products(&call->out, &call->dout, buffers.shares, stream, error);
    if (status != FB_OK)
        return status;
    if (fb_window_cuda_is_single(p))
        return window_cuda_single_gradient(p, call, a.w, buffers.shares, buffers.parts, stream,
                                           error);
    if (window_cuda_is_split(p, {&a.w.q, &a.w.k, &a.w.v, &view.dout, &view.dq, &view.dk, &view.dv}))
        return window_cuda_split_gradient(p, a, stream, error);
    if (p->dtype == FB_BF16 ? panels > kResidentPanels : panels > 2)
        return window_cuda_gradient_wide(p, a, stream, error);
    switch (p->dtype) {
    case FB_BF16:
        return run<__nv_bfloat16>(p, a, stream, error);
    case FB_F16:
        return run<__half>(p, a, stream, error);
    default:
        return run<float>(p, a, stream, error);
    }
}
