/*
 * Flow-Attention, normal form, forward, on any GPU from sm_80: four passes over slices of tokens
 * and between them the sums of the slices' parts in a fixed order, so that results are the same
 * bits every time.
 *
 *   sums     phi(k), phi(q) summed                          reads q, k
 *   flows    u = sum beta k, w = sum alpha q                reads q, k
 *   product  o, E = exp(clamp o), Z, G = k^T (E v)          reads k, v
 *   out      c, s, out = s alpha scale q G                  reads q, writes out
 *
 * 8 N d numbers moved. Without a clamp exponents are unbounded: every slice then subtracts its own
 * largest o, and the sum of the slices brings them to a common one.
 */
#include "flow_cuda.h"
#include "flow_cuda_shape.cuh"

namespace
{

constexpr int kTile = FB_FLOW_CUDA_TILE;
constexpr int kSplit = FB_FLOW_CUDA_SPLIT;
constexpr int kProductLd = kSplit + 8; /* rows of B: quads of rows and octets of columns */

__device__ float *totals_of(const flow_cuda_shape &s, int64_t head)
{
    return s.totals + head * s.totals_count;
}

/* The vectors of totals_of: sk, sq, u, w; then scale and peak; then G. */
__device__ float *scalars_of(const flow_cuda_shape &s, float *totals)
{
    return totals + FB_FLOW_CUDA_VECTORS * s.cols;
}

__device__ float *product_of(const flow_cuda_shape &s, float *totals)
{
    return scalars_of(s, totals) + FB_FLOW_CUDA_SCALARS;
}

/* A side of a head: keys (0) or queries (1). */
template <typename T> struct side_rows {
    head_rows<const T> x;
    int64_t first, end; /* of the slice, cut at the valid length */
};

template <typename T>
__device__ side_rows<T> side_of(const flow_cuda_shape &s, const flow_cuda_head &head, int side)
{
    const int64_t first = blockIdx.x * s.slice_len;
    const int64_t length = side == 0 ? head.kv_len : head.q_len;
    const int64_t end = min(first + s.slice_len, length);
    const head_rows<T> x =
        side == 0 ? rows_of<T>(s.k, head.b, head.kv_h, 0) : rows_of<T>(s.q, head.b, head.h, 0);
    return {{x.data, x.stride}, first, end};
}

template <typename T>
__device__ int load_side(float *tile, int ld, const flow_cuda_shape &s, const side_rows<T> &side,
                         int64_t at)
{
    const int rows = (int)min((int64_t)kTile, side.end - at);
    const head_rows<const T> x = {side.x.data + at * side.x.stride, side.x.stride};
    load_tile(tile, ld, kTile, s.cols, x, rows, s.dim, flow_map{s.phi});
    return rows;
}

/* grid (slices, heads, 2 sides); shared: a tile, kTileThreads floats, cols */
template <typename T> __global__ void __launch_bounds__(kTileThreads) sums_kernel(flow_cuda_shape s)
{
    extern __shared__ float shared[];
    const int ld = s.cols + 4;
    float *tile = shared, *buffer = tile + kTile * ld;
    const int64_t head_index = blockIdx.y;
    const int side_index = blockIdx.z;
    const side_rows<T> side = side_of<T>(s, head_of(s, head_index), side_index);
    careful_sum sum = {};
    for (int64_t at = side.first; at < side.end; at += kTile) {
        load_side(tile, ld, s, side, at);
        __syncthreads();
        sum.add(column_part(tile, ld, kTile, s.cols, nullptr, 0.0F));
        __syncthreads();
    }
    join_columns(sum.value, s.cols, buffer,
                 s.sums + ((head_index * s.slices + blockIdx.x) * 2 + side_index) * s.cols);
}

/* Adds the slices of two vectors each into a head's totals; grid (heads, 2), block cols. */
__global__ void add_vectors(flow_cuda_shape s, const float *parts, int first_vector)
{
    const int64_t head = blockIdx.x;
    const int col = threadIdx.x;
    double sum = 0.0;
    for (int slice = 0; slice < s.slices; slice++)
        sum += (double)parts[((head * s.slices + slice) * 2 + blockIdx.y) * s.cols + col];
    totals_of(s, head)[(first_vector + blockIdx.y) * s.cols + col] = (float)sum;
}

/* grid (slices, heads, 2 sides); of the keys comes u, of the queries w; shared as sums_kernel and
 * kTile */
template <typename T>
__global__ void __launch_bounds__(kTileThreads) flows_kernel(flow_cuda_shape s)
{
    extern __shared__ float shared[];
    const int ld = s.cols + 4;
    float *tile = shared, *buffer = tile + kTile * ld, *vector = buffer + kTileThreads;
    float *weight = vector + s.cols;
    const int64_t head_index = blockIdx.y;
    const int side_index = blockIdx.z;
    const side_rows<T> side = side_of<T>(s, head_of(s, head_index), side_index);
    /* keys meet the sum of the queries and the other way round */
    const float *other = totals_of(s, head_index) + (1 - side_index) * s.cols;
    if ((int)threadIdx.x < s.cols)
        vector[threadIdx.x] = other[threadIdx.x];
    careful_sum sum = {};
    for (int64_t at = side.first; at < side.end; at += kTile) {
        const int rows = load_side(tile, ld, s, side, at);
        __syncthreads();
        dot_rows(tile, ld, kTile, s.dim, vector, FB_FLOW_EPSILON, weight);
        __syncthreads();
        if (threadIdx.x < kTile)
            weight[threadIdx.x] =
                (int)threadIdx.x < rows ? 1.0F / (weight[threadIdx.x] + s.extra_eps) : 0.0F;
        __syncthreads();
        sum.add(column_part(tile, ld, kTile, s.cols, weight, 0.0F));
        __syncthreads();
    }
    join_columns(sum.value, s.cols, buffer,
                 s.flows + ((head_index * s.slices + blockIdx.x) * 2 + side_index) * s.cols);
}

/* The largest o of the slice (clamped); only where exponents are unbounded. All threads get it. */
template <typename T>
__device__ float slice_peak(const flow_cuda_shape &s, const side_rows<T> &side, float *tile, int ld,
                            const float *w, float *o)
{
    float peak = -INFINITY;
    for (int64_t at = side.first; at < side.end; at += kTile) {
        const int rows = load_side(tile, ld, s, side, at);
        __syncthreads();
        dot_rows(tile, ld, kTile, s.dim, w, FB_FLOW_EPSILON, o);
        __syncthreads();
        for (int row = 0; row < rows; row++)
            peak = fmaxf(peak, fminf(o[row] + s.extra_eps, s.clamp));
        __syncthreads();
    }
    return peak;
}

/* grid (slices, heads, splits); shared: tile, v tile [kTile][kProductLd], G [cols][kProductLd], w,
 * o */
template <typename T>
__global__ void __launch_bounds__(kTileThreads) product_kernel(flow_cuda_shape s)
{
    extern __shared__ float shared[];
    const int ld = s.cols + 4;
    float *tile = shared, *values = tile + kTile * ld, *product = values + kTile * kProductLd;
    float *w = product + s.cols * kProductLd, *weight = w + s.cols;
    const int64_t head_index = blockIdx.y;
    const int split = blockIdx.z, split_first = split * kSplit;
    const int width = min(kSplit, s.value_cols - split_first);
    const flow_cuda_head head = head_of(s, head_index);
    const side_rows<T> side = side_of<T>(s, head, 0);
    if ((int)threadIdx.x < s.cols)
        w[threadIdx.x] = totals_of(s, head_index)[3 * s.cols + threadIdx.x];
    for (int i = threadIdx.x; i < s.cols * kProductLd; i += kTileThreads)
        product[i] = 0.0F;
    __syncthreads();
    const float peak = s.online ? slice_peak(s, side, tile, ld, w, weight) : 0.0F;
    careful_sum normaliser = {};
    for (int64_t at = side.first; at < side.end; at += kTile) {
        const int rows = load_side(tile, ld, s, side, at);
        const head_rows<T> v = rows_of<T>(s.v, head.b, head.kv_h, at);
        load_tile(values, kProductLd, kTile, width,
                  head_rows<const T>{v.data + split_first, v.stride}, rows,
                  s.value_dim - split_first, [](float x) { return x; });
        __syncthreads();
        dot_rows(tile, ld, kTile, s.dim, w, FB_FLOW_EPSILON, weight);
        __syncthreads();
        if (threadIdx.x < kTile) {
            const float o = weight[threadIdx.x] + s.extra_eps;
            const float clamped = fminf(fmaxf(o, -s.clamp), s.clamp);
            const float e = s.compete ? expf(clamped - peak) : 1.0F;
            weight[threadIdx.x] = (int)threadIdx.x < rows ? e : 0.0F;
        }
        __syncthreads();
        float sum = 0.0F;
        for (int row = 0; row < kTile; row++)
            sum += weight[row];
        normaliser.add(sum);
        for (int i = threadIdx.x; i < kTile * width; i += kTileThreads)
            values[i / width * kProductLd + i % width] *= weight[i / width];
        __syncthreads();
        block_product<products_of<T>()>(
            s.cols, width, kTile, operand{tile, 1, ld}, operand{values, kProductLd, 1},
            [&](int row, int col, float x) { product[row * kProductLd + col] += x; });
        __syncthreads();
    }
    const int64_t slice = head_index * s.slices + blockIdx.x;
    float *to = s.product + slice * s.cols * s.value_cols + split_first;
    for (int i = threadIdx.x; i < s.cols * width; i += kTileThreads)
        to[i / width * s.value_cols + i % width] = product[i / width * kProductLd + i % width];
    if (split == 0 && threadIdx.x == 0) {
        s.weights[2 * slice] = normaliser.value;
        s.weights[2 * slice + 1] = peak;
    }
}

/* Adds the slices' products and normalisers; grid (heads, parts of cols * value_cols), block 256 */
__global__ void add_products(flow_cuda_shape s)
{
    const int64_t head = blockIdx.x;
    const int count = s.cols * s.value_cols;
    const float *weights = s.weights + 2 * head * s.slices;
    float *totals = totals_of(s, head);
    float peak = -INFINITY;
    for (int slice = 0; slice < s.slices; slice++)
        peak = fmaxf(peak, weights[2 * slice + 1]);
    const int i = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    double sum = 0.0, normaliser = 0.0;
    for (int slice = 0; slice < s.slices; slice++) {
        const float factor = weights[2 * slice] > 0.0F ? expf(weights[2 * slice + 1] - peak) : 0.0F;
        normaliser += (double)weights[2 * slice] * factor;
        if (i < count)
            sum += (double)s.product[(head * s.slices + slice) * count + i] * factor;
    }
    if (i < count)
        product_of(s, totals)[i] = (float)sum;
    if (i == 0) {
        const flow_cuda_head one = head_of(s, head);
        scalars_of(s, totals)[0] = s.compete ? (float)((double)one.kv_len / normaliser) : 1.0F;
        scalars_of(s, totals)[1] = peak;
    }
}

/* grid (slices, heads, splits); shared: tile, G [cols][kProductLd], sk, u, two of kTile */
template <typename T> __global__ void __launch_bounds__(kTileThreads) out_kernel(flow_cuda_shape s)
{
    extern __shared__ float shared[];
    const int ld = s.cols + 4;
    float *tile = shared, *product = tile + kTile * ld, *sk = product + s.cols * kProductLd;
    float *u = sk + s.cols, *a = u + s.cols, *c = a + kTile;
    const int64_t head_index = blockIdx.y;
    const int split_first = blockIdx.z * kSplit;
    const int width = min(kSplit, s.value_cols - split_first);
    const flow_cuda_head head = head_of(s, head_index);
    const bool empty = head.kv_len == 0;
    float *totals = totals_of(s, head_index);
    const float scale = scalars_of(s, totals)[0];
    const float ratio = (float)((double)head.q_len / (double)max(head.kv_len, (int64_t)1));
    if ((int)threadIdx.x < s.cols) {
        sk[threadIdx.x] = totals[threadIdx.x];
        u[threadIdx.x] = totals[2 * s.cols + threadIdx.x];
    }
    const float *from = product_of(s, totals) + split_first;
    for (int i = threadIdx.x; i < s.cols * width; i += kTileThreads)
        product[i / width * kProductLd + i % width] = from[i / width * s.value_cols + i % width];
    const side_rows<T> side = side_of<T>(s, head, 1);
    const int64_t end = min((int64_t)(blockIdx.x + 1) * s.slice_len, s.q_len);
    for (int64_t at = side.first; at < end; at += kTile) {
        const int rows = (int)max((int64_t)0, min((int64_t)kTile, side.end - at));
        const int written = (int)min((int64_t)kTile, end - at);
        const head_rows<const T> x = {side.x.data + at * side.x.stride, side.x.stride};
        load_tile(tile, ld, kTile, s.cols, x, rows, s.dim, flow_map{s.phi});
        __syncthreads();
        dot_rows(tile, ld, kTile, s.dim, sk, FB_FLOW_EPSILON, a);
        dot_rows(tile, ld, kTile, s.dim, u, FB_FLOW_EPSILON, c);
        __syncthreads();
        if (threadIdx.x < kTile) {
            const float share =
                s.allocation ? sigmoid((c[threadIdx.x] + s.extra_eps) * ratio) : 1.0F;
            const float weight = share / (a[threadIdx.x] + s.extra_eps) * scale;
            a[threadIdx.x] = (int)threadIdx.x < rows && !empty ? weight : 0.0F;
        }
        __syncthreads();
        const head_rows<T> out = rows_of<T>(s.out, head.b, head.h, at);
        block_product<products_of<T>()>(kTile, width, s.cols, operand{tile, ld, 1},
                                        operand{product, kProductLd, 1},
                                        [&](int row, int col, float y) {
                                            if (row < written && split_first + col < s.value_dim)
                                                out.data[row * out.stride + split_first + col] =
                                                    from_f32<T>(a[row] == 0.0F ? 0.0F : a[row] * y);
                                        });
        __syncthreads();
    }
}

/* ---- launching ------------------------------------------------------------------------------- */

struct launch_sizes {
    dim3 sides, splits;
    size_t sums, flows, product, out;
};

launch_sizes sizes_of(const flow_cuda_shape &s, const struct fb_flow_cuda_plan &plan)
{
    const size_t tile = (size_t)kTile * (size_t)(s.cols + 4), cols = (size_t)s.cols;
    const size_t product = cols * kProductLd;
    const unsigned heads = (unsigned)plan.heads, slices = (unsigned)s.slices;
    launch_sizes sizes;
    sizes.sides = dim3(slices, heads, 2);
    sizes.splits = dim3(slices, heads, (unsigned)plan.splits);
    sizes.sums = sizeof(float) * (tile + kTileThreads);
    sizes.flows = sizeof(float) * (tile + kTileThreads + cols + kTile);
    sizes.product = sizeof(float) * (tile + (size_t)kTile * kProductLd + product + cols + kTile);
    sizes.out = sizeof(float) * (tile + product + 2 * cols + 2 * kTile);
    return sizes;
}

template <typename T> enum fb_status allow_all(const launch_sizes &sizes, struct fb_error *error)
{
    enum fb_status status =
        fb_cuda_allow_shared((const void *)sums_kernel<T>, sizes.sums, "flow's sums", error);
    if (status == FB_OK)
        status =
            fb_cuda_allow_shared((const void *)flows_kernel<T>, sizes.flows, "flow's flows", error);
    if (status == FB_OK)
        status = fb_cuda_allow_shared((const void *)product_kernel<T>, sizes.product,
                                      "flow's product", error);
    if (status == FB_OK)
        status =
            fb_cuda_allow_shared((const void *)out_kernel<T>, sizes.out, "flow's output", error);
    return status;
}

template <typename T>
enum fb_status launch_all(const flow_cuda_shape &s, const struct fb_flow_cuda_plan &plan,
                          cudaStream_t stream, struct fb_error *error)
{
    const launch_sizes sizes = sizes_of(s, plan);
    const unsigned heads = (unsigned)plan.heads;
    const unsigned parts = (unsigned)((s.cols * s.value_cols + 255) / 256);
    enum fb_status status = allow_all<T>(sizes, error);
    if (status != FB_OK)
        return status;
    sums_kernel<T><<<sizes.sides, kTileThreads, sizes.sums, stream>>>(s);
    status = fb_cuda_launched("flow's sums", error);
    if (status != FB_OK)
        return status;
    add_vectors<<<dim3(heads, 2), (unsigned)s.cols, 0, stream>>>(s, s.sums, 0);
    flows_kernel<T><<<sizes.sides, kTileThreads, sizes.flows, stream>>>(s);
    status = fb_cuda_launched("flow's flows", error);
    if (status != FB_OK)
        return status;
    add_vectors<<<dim3(heads, 2), (unsigned)s.cols, 0, stream>>>(s, s.flows, 2);
    product_kernel<T><<<sizes.splits, kTileThreads, sizes.product, stream>>>(s);
    status = fb_cuda_launched("flow's product", error);
    if (status != FB_OK)
        return status;
    add_products<<<dim3(heads, parts), 256, 0, stream>>>(s);
    out_kernel<T><<<sizes.splits, kTileThreads, sizes.out, stream>>>(s);
    return fb_cuda_launched("flow's output", error);
}

} // namespace

extern "C" enum fb_status fb_flow_cuda_normal(const struct fb_problem *p,
                                              const struct fb_call *call, struct fb_error *error)
{
    struct fb_flow_cuda_plan plan;
    fb_flow_cuda_plan_of(p, &plan);
    flow_cuda_shape s = flow_cuda_shape_of(p, call, plan);
    cudaStream_t stream = (cudaStream_t)call->stream;
    const enum fb_status status = flow_cuda_take_lengths(p, call, plan, s, error);
    if (status != FB_OK)
        return status;
    const int64_t slices = plan.heads * plan.slices;
    s.sums = (float *)((char *)call->scratch + plan.lengths_bytes);
    s.flows = s.sums + slices * 2 * s.cols;
    s.weights = s.flows + slices * 2 * s.cols;
    s.product = s.weights + slices * 2;
    s.totals =
        call->saved != nullptr ? (float *)call->saved : s.product + slices * s.cols * s.value_cols;
    switch (p->dtype) {
    case FB_BF16:
        return launch_all<__nv_bfloat16>(s, plan, stream, error);
    case FB_F16:
        return launch_all<__half>(s, plan, stream, error);
    default:
        return launch_all<float>(s, plan, stream, error);
    }
}
