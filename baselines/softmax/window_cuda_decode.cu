/*
 * Decoding with a cache of keys and values on a GPU. The state is two counts, of tokens before and
 * after the call, then per head of keys the rows of K and of V, dense, in the dtype of the problem:
 * token t in slot t mod capacity. A kernel stores the token; blocks over slices of the slots make
 * partial sums with maxima of their own; the last kernel joins them in the order of the slices.
 *
 * What few tokens weigh that come first would swallow those that come after, one at a time: after
 * some the sums are put away, in shared memory with their rounding errors, and begin anew. Maxima
 * are whole exponents: factors are powers of two, and each halves what came before at least.
 */
#include "cuda_launch.cuh"
#include "cuda_panels.cuh"
#include "window_cuda.h"

#include <math.h>

namespace
{

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kColumns = FB_HEAD_DIM_MAX / 32; /* of a row, per lane */
constexpr int64_t kBlocksWanted = 528;
constexpr int64_t kSlotsLeast = 64; /* per slice */
constexpr int kStretch = 32;        /* slots of a warp between two times that sums are put away */
constexpr size_t kHeaderBytes = FB_ALIGNMENT;

struct cache_arguments {
    panel_tensor q, k, v, out;
    int heads, kv_heads, group, dim, value_dim, slices;
    int64_t capacity;
    bool ring;
    float scale;     /* D^(-1/2) log2(e) */
    int64_t *counts; /* before, and after: -1 when the token was not taken */
    void *rows;
    float *parts; /* [batch heads][slices][2 + value_dim]: maximum, sum, output */
};

int64_t slices_of(const struct fb_problem *p, int64_t capacity)
{
    const int64_t most = (capacity + kSlotsLeast - 1) / kSlotsLeast;
    const int64_t wanted = (kBlocksWanted + p->batch * p->heads - 1) / (p->batch * p->heads);
    return wanted < most ? wanted : most;
}

template <typename T> __device__ T *key_row(const cache_arguments &a, int64_t unit, int64_t slot)
{
    return static_cast<T *>(a.rows) + unit * a.capacity * (a.dim + a.value_dim) + slot * a.dim;
}

template <typename T> __device__ T *value_row(const cache_arguments &a, int64_t unit, int64_t slot)
{
    return key_row<T>(a, unit, a.capacity) + slot * a.value_dim;
}

/* grid (heads of keys) */
template <typename T>
__global__ void __launch_bounds__(kThreads) store_kernel(const __grid_constant__ cache_arguments a)
{
    const int64_t unit = blockIdx.x, before = a.counts[0];
    const bool taken = a.ring || before < a.capacity;
    const int64_t slot = before % a.capacity;
    const panel_rows<T> k(a.k, unit / a.kv_heads, unit % a.kv_heads, 1);
    const panel_rows<T> v(a.v, unit / a.kv_heads, unit % a.kv_heads, 1);
    for (int c = threadIdx.x; taken && c < a.dim; c += kThreads)
        key_row<T>(a, unit, slot)[c] = *k.at(0, c);
    for (int c = threadIdx.x; taken && c < a.value_dim; c += kThreads)
        value_row<T>(a, unit, slot)[c] = *v.at(0, c);
    if (unit == 0 && threadIdx.x == 0)
        a.counts[1] = taken ? before + 1 : -1;
}

/* grid (slices, heads): a warp takes every fourth slot of the slice; reads its keys and values once
 * per query of the group */
template <typename T>
__global__ void __launch_bounds__(kThreads) attend_kernel(const __grid_constant__ cache_arguments a)
{
    __shared__ float tops[kWarps], sums[kWarps];
    __shared__ careful_sum outs[kWarps][FB_HEAD_DIM_MAX];
    const int64_t b = blockIdx.y / a.heads, h = blockIdx.y % a.heads;
    const int64_t unit = b * a.kv_heads + h / a.group, tokens = a.counts[1];
    const int64_t held = tokens < a.capacity ? tokens : a.capacity;
    const int64_t each = (a.capacity + a.slices - 1) / a.slices, from = blockIdx.x * each;
    const int64_t to = from + each < held ? from + each : held;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const panel_rows<T> q(a.q, b, h, 1);
    float query[kColumns], out[kColumns] = {};
#pragma unroll
    for (int i = 0; i < kColumns; i++)
        query[i] = lane + 32 * i < a.dim ? a.scale * to_f32(*q.at(0, lane + 32 * i)) : 0.0F;
    float top = -INFINITY, sum = 0.0F, before = -INFINITY; /* before: when they were put away */
    careful_sum total = {0.0F, 0.0F};
    const auto put_away = [&]() {
        const float factor = exp2f(before - (top == -INFINITY ? 0.0F : top));
        total.scale(factor);
        total.add(sum);
        sum = 0.0F;
        before = top;
#pragma unroll
        for (int i = 0; i < kColumns; i++) {
            careful_sum far = outs[warp][lane + 32 * i];
            far.scale(factor);
            far.add(out[i]);
            outs[warp][lane + 32 * i] = far;
            out[i] = 0.0F;
        }
    };
    const bool is_long = to - from > kStretch * kWarps;
#pragma unroll
    for (int i = 0; i < kColumns && is_long; i++)
        outs[warp][lane + 32 * i] = {0.0F, 0.0F};
    int left = kStretch;
    for (int64_t slot = from + warp; slot < to; slot += kWarps) {
        const T *key = key_row<T>(a, unit, slot), *value = value_row<T>(a, unit, slot);
        float score = 0.0F, row[kColumns];
#pragma unroll
        for (int i = 0; i < kColumns; i++) {
            const int c = lane + 32 * i;
            score = c < a.dim ? fmaf(query[i], to_f32(key[c]), score) : score;
            row[i] = c < a.value_dim ? to_f32(value[c]) : 0.0F;
        }
        for (int step = 16; step > 0; step /= 2)
            score += __shfl_xor_sync(0xffffffffU, score, step);
        const float now = fmaxf(top, ceilf(score)), old = exp2f(top - now),
                    weight = exp2f(score - now);
        top = now;
        sum = fmaf(sum, old, weight);
#pragma unroll
        for (int i = 0; i < kColumns; i++)
            out[i] = fmaf(out[i], old, weight * row[i]);
        if (is_long && --left == 0) {
            put_away();
            left = kStretch;
        }
    }
    if (is_long) {
        put_away();
    } else {
        total.value = sum;
#pragma unroll
        for (int i = 0; i < kColumns; i++)
            outs[warp][lane + 32 * i].value = out[i];
    }
    if (lane == 0) {
        tops[warp] = top;
        sums[warp] = total.value;
    }
    __syncthreads();
    top = tops[0];
    for (int w = 1; w < kWarps; w++)
        top = fmaxf(top, tops[w]);
    float *part = a.parts + ((int64_t)blockIdx.y * a.slices + blockIdx.x) * (2 + a.value_dim);
    float factor[kWarps];
    sum = 0.0F;
    for (int w = 0; w < kWarps; w++) {
        factor[w] = top == -INFINITY ? 0.0F : exp2f(tops[w] - top);
        sum = fmaf(sums[w], factor[w], sum);
    }
    if (threadIdx.x == 0) {
        part[0] = top;
        part[1] = sum;
    }
    for (int c = threadIdx.x; c < a.value_dim; c += kThreads) {
        float x = 0.0F;
        for (int w = 0; w < kWarps; w++)
            x = fmaf(outs[w][c].value, factor[w], x);
        part[2 + c] = x;
    }
}

/* grid (heads): joins the slices in their order; the first block counts the token */
template <typename T>
__global__ void __launch_bounds__(kThreads) join_kernel(const __grid_constant__ cache_arguments a)
{
    const int64_t b = blockIdx.x / a.heads, h = blockIdx.x % a.heads, width = 2 + a.value_dim;
    const float *parts = a.parts + (int64_t)blockIdx.x * a.slices * width;
    const panel_rows<T> out(a.out, b, h, 1);
    const int64_t after = a.counts[1];
    float top = -INFINITY;
    careful_sum sum = {0.0F, 0.0F};
    for (int s = 0; s < a.slices; s++)
        top = fmaxf(top, parts[s * width]);
    for (int s = 0; s < a.slices; s++)
        sum.add(parts[s * width + 1] * exp2f(parts[s * width] - top));
    for (int c = threadIdx.x; c < a.value_dim; c += kThreads) {
        careful_sum x = {0.0F, 0.0F};
        for (int s = 0; s < a.slices; s++)
            x.add(parts[s * width + 2 + c] * exp2f(parts[s * width] - top));
        *out.at(0, c) = from_f32<T>(after < 0 ? __int_as_float(0x7fffffff) : x.value / sum.value);
    }
    if (blockIdx.x == 0 && threadIdx.x == 0 && after >= 0)
        a.counts[0] = after;
}

template <typename T>
enum fb_status run(const struct fb_problem *p, const cache_arguments &a, cudaStream_t stream,
                   struct fb_error *error)
{
    const unsigned units = (unsigned)(p->batch * p->kv_heads);
    const unsigned heads = (unsigned)(p->batch * p->heads);
    store_kernel<T><<<units, kThreads, 0, stream>>>(a);
    attend_kernel<T><<<dim3((unsigned)a.slices, heads), kThreads, 0, stream>>>(a);
    join_kernel<T><<<heads, kThreads, 0, stream>>>(a);
    return fb_cuda_launched("decoding by tiled softmax", error);
}

} // namespace

extern "C" void fb_window_cuda_decode_sizes(const struct fb_problem *p, int64_t capacity,
                                            struct fb_sizes *sizes)
{
    const int64_t rows = p->batch * p->kv_heads * capacity;
    const int64_t parts = p->batch * p->heads * slices_of(p, capacity);
    sizes->decode_state_bytes =
        kHeaderBytes + (size_t)(rows * (p->qk_dim + p->v_dim)) * fb_dtype_bytes(p->dtype);
    sizes->decode_scratch_bytes = sizeof(float) * (size_t)(parts * (2 + p->v_dim));
}

extern "C" enum fb_status fb_window_cuda_decode(const struct fb_problem *p,
                                                const struct fb_call *call, int64_t capacity,
                                                bool ring, struct fb_error *error)
{
    cudaStream_t stream = (cudaStream_t)call->stream;
    cache_arguments a = {};
    a.q = panel_tensor_of(call->q);
    a.k = panel_tensor_of(call->k);
    a.v = panel_tensor_of(call->v);
    a.out = panel_tensor_of(call->out);
    a.heads = (int)p->heads;
    a.kv_heads = (int)p->kv_heads;
    a.group = (int)(p->heads / p->kv_heads);
    a.dim = (int)p->qk_dim;
    a.value_dim = (int)p->v_dim;
    a.slices = (int)slices_of(p, capacity);
    a.capacity = capacity;
    a.ring = ring;
    a.scale = (float)(1.4426950408889634 / sqrt((double)p->qk_dim));
    a.counts = (int64_t *)call->decode_state;
    a.rows = (char *)call->decode_state + kHeaderBytes;
    a.parts = (float *)call->scratch;
    switch (p->dtype) {
    case FB_BF16:
        return run<__nv_bfloat16>(p, a, stream, error);
    case FB_F16:
        return run<__half>(p, a, stream, error);
    default:
        return run<float>(p, a, stream, error);
    }
}
