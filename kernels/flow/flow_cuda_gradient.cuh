/* What the gradients of Flow-Attention on a GPU share, normal and causal form: tiles of f32, sums
 * over rows, the slope of phi. Blocks have kTileThreads threads. */
#ifndef FB_FLOW_CUDA_GRADIENT_CUH
#define FB_FLOW_CUDA_GRADIENT_CUH

#include "flow_cuda_shape.cuh"

/* A round of a gradient: one query head of every head of keys. Rounds after the first add to dk and
 * dv. */
struct gradient_round {
    flow_cuda_shape s;
    tensor_view dout, dq, dk, dv;
    int kv_heads, index;
};

__device__ inline flow_cuda_head round_head(const gradient_round &a, int64_t unit)
{
    const int64_t b = unit / a.kv_heads, kv_h = unit % a.kv_heads;
    return head_of(a.s, b * a.s.heads + kv_h * a.s.group + a.index);
}

/* phi'(x), by the form that keeps its digits. */
__device__ inline float slope_of(enum fb_flow_phi phi, float x)
{
    if (phi == FB_FLOW_SIGMOID) {
        const float e = expf(-fabsf(x));
        return e / ((1.0F + e) * (1.0F + e));
    }
    if (x > 0.0F)
        return 1.0F;
    return phi == FB_FLOW_ELU ? expf(x) : 0.0F;
}

struct keep_value {
    __device__ float operator()(float x) const
    {
        return x;
    }
};

template <typename T, typename Map>
__device__ void load_rows(float *tile, int ld, int tile_rows, int cols, const head_rows<T> &x,
                          int rows, int dim, Map map)
{
    load_tile(tile, ld, tile_rows, cols, head_rows<const T>{x.data, x.stride}, rows, dim, map);
}

/* out[row] = sum over the columns of x y; four threads per row. */
__device__ inline void pair_dots(const float *x, const float *y, int ld, int rows, int cols,
                                 float *out)
{
    for (int i = threadIdx.x; i < 4 * rows; i += kTileThreads) {
        const int row = i / 4, part = i % 4;
        float sum = 0.0F;
        for (int c = part; c < cols; c += 4)
            sum = fmaf(x[row * ld + c], y[row * ld + c], sum);
        sum += __shfl_xor_sync(0xffffffffU, sum, 1);
        sum += __shfl_xor_sync(0xffffffffU, sum, 2);
        if (part == 0)
            out[row] = sum;
    }
}

/* The rows of the tile times a weight each. */
__device__ inline void scale_rows(float *tile, int ld, int rows, int cols, const float *weight)
{
    for (int i = threadIdx.x; i < rows * cols; i += kTileThreads)
        tile[i / cols * ld + i % cols] *= weight[i / cols];
}

/* For `end` rows of out: map(row, col) below `rows`, 0 beyond. */
template <typename T, typename Map>
__device__ void write_rows(const head_rows<T> &out, int rows, int end, int dim, bool add, Map map)
{
    for (int i = threadIdx.x; i < end * dim; i += kTileThreads) {
        const int row = i / dim, col = i % dim;
        T &to = out.data[row * out.stride + col];
        const float x = row < rows ? map(row, col) : 0.0F;
        to = from_f32<T>(add ? to_f32(to) + x : x);
    }
}

#endif
