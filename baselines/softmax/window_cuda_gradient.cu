/*
 * Gradients of softmax over a band of keys on a GPU, by panels of 64 queries and 64 keys, with
 * weights computed again from the logarithms of the row sums that forward saved. Dao et al.,
 * FlashAttention, 2022, algorithm 4; but one kernel goes over the keys of a block of queries for
 * dq, another over the queries of a block of keys for dk and dv, so that nothing is added from two
 * sides.
 *
 *   p = exp(s - lse), dv = p^T dout, dp = dout v^T, ds = p (dp - dout out), dq = ds k, dk = ds^T q
 */
#include "cuda_panels.cuh"
#include "cuda_rows.cuh"
#include "kernel_support.h"
#include "window_cuda.cuh"

#include <math.h>

namespace
{

struct gradient_arguments {
    window_arguments w; /* sizes, band, scale */
    panel_tensor q, k, v, dout, dq, dk, dv;
    int dim_panels, value_panels;
    float slope;         /* of scores before log2(e): D^(-1/2) */
    const float *lse;    /* [batch heads][q_len], base 2 */
    const float *shares; /* [batch heads][q_len] dout out */
    bool ahead;          /* the next panels are brought while these are used */
};

/* Panels that stay: of the block's rows; that pass: of the other side, twice when brought ahead;
 * and one of weights. */
size_t shared_panels(const gradient_arguments &a)
{
    return (size_t)(a.dim_panels + a.value_panels) * (a.ahead ? 3 : 2) + 1;
}

template <typename P> __device__ float weight_of(float score, float lse)
{
    return P::wide_sums ? exp2f(score - lse) : window_power(score - lse);
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

/* sum += a b; in f32 by way of fresh registers, since tensor cores cut what they add */
template <typename P>
__device__ void add_product(strip_result &sum, const char *a, int strip, const char *b)
{
    if constexpr (P::wide_sums) {
        strip_result part;
        clear(part);
        P::multiply_straight(part, a, strip, b);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum[n][i] += part[n][i];
    } else {
        P::multiply_straight(sum, a, strip, b);
    }
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
    each_pair(sum, strip, [&](int row, int, float &x0, float &x1) {
        x0 = row < rows ? x0 * a.slope : 0.0F;
        x1 = row < rows ? x1 * a.slope : 0.0F;
    });
    const panel_rows<T> dq(a.dq, head.b, head.h, a.w.q_len);
    put_strip<P>(weights, strip, sum);
    write_strip<P, T>(weights, strip, dq, first, a.w.q_len, z, [](int, int, float(&)[8]) {});
}

/* The queries that see any of the keys first .. first + rows - 1: from, and one beyond the last. */
__device__ window_range queries_of(const window_arguments &s, int q_len, int first, int rows)
{
    const int64_t from = (int64_t)first - s.ahead;
    const int64_t to = (int64_t)first + rows + s.back;
    return {(int)(from > 0 ? from : 0), (int)(to < q_len ? to : q_len)};
}

/* grid (panels of keys, heads of keys, panels of dk and dv): reads q and dout of the band once per
 * block */
template <typename P, typename T>
__global__ void __launch_bounds__(kPanelThreads)
    key_kernel(const __grid_constant__ gradient_arguments a, int kv_heads)
{
    extern __shared__ __align__(1024) char shared[];
    __shared__ float lse[kPanel], share[kPanel];
    const int side = (a.dim_panels + a.value_panels) * P::bytes;
    char *own = shared, *passing = shared + side;
    char *weights = passing + (a.ahead ? 2 : 1) * side;
    const int first = (int)blockIdx.x * kPanel, z = (int)blockIdx.z;
    const int strip = (int)threadIdx.x / 32 * 16;
    const int64_t b = blockIdx.y / kv_heads, kv_h = blockIdx.y % kv_heads;
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
    const auto finish = [&](strip_result &sum, const panel_tensor &to, float factor) {
        each_pair(sum, strip, [&](int row, int, float &x0, float &x1) {
            x0 = row < rows ? x0 * factor : 0.0F;
            x1 = row < rows ? x1 * factor : 0.0F;
        });
        const panel_rows<T> out(to, b, kv_h, a.w.kv_len);
        put_strip<P>(weights, strip, sum);
        write_strip<P, T>(weights, strip, out, first, a.w.kv_len, z, [](int, int, float(&)[8]) {});
    };
    if (z < a.value_panels)
        finish(dv, a.dv, 1.0F);
    if (z < a.dim_panels)
        finish(dk, a.dk, a.slope);
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
    key_kernel<P, T><<<keys, kPanelThreads, bytes, stream>>>(a, (int)p->kv_heads);
    return fb_cuda_launched(name, error);
}

} // namespace

extern "C" enum fb_status fb_window_cuda_backward(const struct fb_problem *p,
                                                  const struct fb_call *call,
                                                  const struct fb_cuda_band *band,
                                                  struct fb_error *error)
{
    cudaStream_t stream = (cudaStream_t)call->stream;
    gradient_arguments a = {};
    float *shares = (float *)call->scratch;
    a.w = window_arguments_of(p, call, band);
    a.q = panel_tensor_of(call->q);
    a.k = panel_tensor_of(call->k);
    a.v = panel_tensor_of(call->v);
    a.dout = panel_tensor_of(call->dout);
    a.dq = panel_tensor_of(call->dq);
    a.dk = panel_tensor_of(call->dk);
    a.dv = panel_tensor_of(call->dv);
    a.dim_panels = (a.q.dim + kPanel - 1) / kPanel;
    a.value_panels = (a.v.dim + kPanel - 1) / kPanel;
    a.ahead = p->dtype == FB_BF16 && a.dim_panels + a.value_panels == 2;
    a.slope = (float)(1.0 / sqrt((double)p->qk_dim));
    a.lse = (const float *)call->saved;
    a.shares = shares;
    enum fb_status status = FB_OK;
    if (p->q_lengths != nullptr || p->kv_lengths != nullptr) {
        struct fb_scratch_cursor cursor = fb_scratch_at(call->scratch);
        (void)fb_scratch_take_f32(&cursor, p->batch * p->heads * p->q_len);
        int32_t *lengths = (int32_t *)fb_scratch_take(&cursor, 2 * p->batch, sizeof(int32_t));
        status = fb_cuda_put_lengths(p, lengths, stream, error);
        a.w.lengths = lengths;
    }
    if (status == FB_OK)
        status = fb_cuda_row_products(&call->out, &call->dout, shares, stream, error);
    if (status != FB_OK)
        return status;
    switch (p->dtype) {
    case FB_BF16:
        return run<__nv_bfloat16>(p, a, stream, error);
    case FB_F16:
        return run<__half>(p, a, stream, error);
    default:
        return run<float>(p, a, stream, error);
    }
}
