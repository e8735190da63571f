/*
 * Layers over rows on the device: layer normalisation, sums over rows, positions, pooling. See
 * nn_cuda.h.
 */
#include "nn_cuda_private.h"

namespace
{

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kRowsPerBlock = kThreads / kWarp; /* a warp takes a row */
constexpr int kSlices = 256;                    /* of the rows of a sum, at most */
constexpr int kSliceRows = 64;                  /* of a slice, at least */

cudaStream_t stream_of(const struct fb_nn_cuda *c)
{
    return (cudaStream_t)fb_nn_cuda_stream(c);
}

unsigned int blocks_for(int64_t count, int64_t per_block)
{
    return (unsigned int)((count + per_block - 1) / per_block);
}

int64_t slices_of(int64_t rows)
{
    const int64_t most = (rows + kSliceRows - 1) / kSliceRows;
    return most < kSlices ? most : kSlices;
}

__device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int i = kWarp / 2; i > 0; i /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}

__global__ void norm_forward_kernel(float *y, float *stats, const float *x, const float *gain,
                                    const float *bias, int64_t rows, int64_t width, float eps)
{
    const int64_t row = (int64_t)blockIdx.x * kRowsPerBlock + threadIdx.x / kWarp;
    const int lane = (int)(threadIdx.x % kWarp);
    if (row >= rows)
        return;
    const float *in = x + row * width;
    float sum = 0.0f, squares = 0.0f;
    for (int64_t i = lane; i < width; i += kWarp)
        sum += in[i];
    const float mean = warp_sum(sum) / (float)width;
    for (int64_t i = lane; i < width; i += kWarp)
        squares += (in[i] - mean) * (in[i] - mean);
    const float scale = 1.0f / sqrtf(warp_sum(squares) / (float)width + eps);
    for (int64_t i = lane; i < width; i += kWarp)
        y[row * width + i] = (in[i] - mean) * scale * gain[i] + bias[i];
    if (lane == 0) {
        stats[2 * row] = mean;
        stats[2 * row + 1] = scale;
    }
}

/* With g = dy * gain and z the normalised row: dx = s (g - mean(g) - z mean(g z)). */
__global__ void norm_backward_kernel(float *dx, bool add, const float *dy, const float *x,
                                     const float *stats, const float *gain, int64_t rows,
                                     int64_t width)
{
    const int64_t row = (int64_t)blockIdx.x * kRowsPerBlock + threadIdx.x / kWarp;
    const int lane = (int)(threadIdx.x % kWarp);
    if (row >= rows)
        return;
    const float mean = stats[2 * row], scale = stats[2 * row + 1];
    const float *in = x + row * width, *grad = dy + row * width;
    float sum = 0.0f, product = 0.0f;
    for (int64_t i = lane; i < width; i += kWarp) {
        const float g = grad[i] * gain[i];
        sum += g;
        product += g * ((in[i] - mean) * scale);
    }
    const float g_mean = warp_sum(sum) / (float)width;
    const float gz_mean = warp_sum(product) / (float)width;
    for (int64_t i = lane; i < width; i += kWarp) {
        const float z = (in[i] - mean) * scale;
        const float value = scale * (grad[i] * gain[i] - g_mean - z * gz_mean);
        float *to = dx + row * width + i;
        *to = add ? *to + value : value;
    }
}

/* What a row adds to the sum of its column. */
struct plain {
    __device__ float operator()(int64_t, int64_t, float x) const
    {
        return x;
    }
};

struct normalised {
    const float *x, *stats;
    int64_t width;
    __device__ float operator()(int64_t row, int64_t column, float dy) const
    {
        return dy * ((x[row * width + column] - stats[2 * row]) * stats[2 * row + 1]);
    }
};

/* partials [slices, width]: a thread sums one column of one slice. */
template <typename F>
__global__ void slice_kernel(float *partials, const float *x, int64_t rows, int64_t width,
                             int64_t slices, F f)
{
    const int64_t column = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int64_t slice = blockIdx.y;
    if (column >= width)
        return;
    const int64_t first = rows * slice / slices, end = rows * (slice + 1) / slices;
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    int64_t row = first;
    for (; row + 4 <= end; row += 4) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            sums[i] += f(row + i, column, x[(row + i) * width + column]);
    }
    for (; row < end; row++)
        sums[0] += f(row, column, x[row * width + column]);
    partials[slice * width + column] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

__global__ void slices_add_kernel(float *sums, const float *partials, int64_t width, int64_t slices)
{
    const int64_t column = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width)
        return;
    double sum = 0.0;
    for (int64_t i = 0; i < slices; i++)
        sum += (double)partials[i * width + column];
    sums[column] += (float)sum;
}

template <typename F>
void columns_add(struct fb_nn_cuda *c, float *sums, const float *x, int64_t rows, int64_t width,
                 F f)
{
    constexpr int columns = 64;
    const int64_t slices = slices_of(rows);
    float *partials = fb_nn_cuda_partials(c, fb_nn_cuda_sums_floats(rows, width));
    if (partials == nullptr || rows == 0)
        return;
    const dim3 grid(blocks_for(width, columns), (unsigned int)slices);
    slice_kernel<<<grid, columns, 0, stream_of(c)>>>(partials, x, rows, width, slices, f);
    slices_add_kernel<<<blocks_for(width, columns), columns, 0, stream_of(c)>>>(sums, partials,
                                                                                width, slices);
    fb_nn_cuda_note(c, cudaGetLastError(), "summing columns");
}

/* y[b, t, c] = f(b, t, c) over [batch, tokens, width]; a thread takes a value. */
template <typename F>
__global__ void cube_kernel(float *y, bool add, int64_t tokens, int64_t width, int64_t count, F f)
{
    const int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    if (i >= count)
        return;
    const int64_t column = i % width, row = i / width;
    const float value = f(row / tokens, row % tokens, column);
    y[i] = add ? y[i] + value : value;
}

template <typename F>
void cube(struct fb_nn_cuda *c, float *y, bool add, int64_t batch, int64_t tokens, int64_t width,
          F f, const char *what)
{
    const int64_t count = batch * tokens * width;
    cube_kernel<<<blocks_for(count, kThreads), kThreads, 0, stream_of(c)>>>(y, add, tokens, width,
                                                                            count, f);
    fb_nn_cuda_note(c, cudaGetLastError(), what);
}

struct positioned {
    const float *x, *table;
    int64_t tokens, width;
    __device__ float operator()(int64_t b, int64_t t, int64_t i) const
    {
        return x[(b * tokens + t) * width + i] + table[t * width + i];
    }
};

/* The sum over the batch, for one sequence of positions. */
struct over_batch {
    const float *dy;
    int64_t batch, tokens, width;
    __device__ float operator()(int64_t, int64_t t, int64_t i) const
    {
        double sum = 0.0;
        for (int64_t b = 0; b < batch; b++)
            sum += (double)dy[(b * tokens + t) * width + i];
        return (float)sum;
    }
};

struct prepended {
    const float *x, *row;
    int64_t tokens, width; /* of x */
    __device__ float operator()(int64_t b, int64_t t, int64_t i) const
    {
        return t == 0 ? row[i] : x[(b * tokens + t - 1) * width + i];
    }
};

struct behind_first {
    const float *dy;
    int64_t tokens, width; /* without the first */
    __device__ float operator()(int64_t b, int64_t t, int64_t i) const
    {
        return dy[(b * (tokens + 1) + t + 1) * width + i];
    }
};

struct first_of {
    const float *x;
    int64_t tokens, width;
    __device__ float operator()(int64_t b, int64_t, int64_t i) const
    {
        return x[b * tokens * width + i];
    }
};

struct to_first {
    const float *dy;
    int64_t width;
    __device__ float operator()(int64_t b, int64_t t, int64_t i) const
    {
        return t == 0 ? dy[b * width + i] : 0.0f;
    }
};

struct to_all {
    const float *dy;
    int64_t width;
    float scale;
    __device__ float operator()(int64_t b, int64_t, int64_t i) const
    {
        return scale * dy[b * width + i];
    }
};

/* The mean of a sequence: a block takes 32 columns, its warps every eighth token. */
__global__ void mean_kernel(float *y, const float *x, int64_t tokens, int64_t width)
{
    __shared__ double sums[kRowsPerBlock][kWarp];
    const int lane = (int)(threadIdx.x % kWarp), warp = (int)(threadIdx.x / kWarp);
    const int64_t column = (int64_t)blockIdx.x * kWarp + lane, sequence = blockIdx.y;
    double sum = 0.0;
    if (column < width)
        for (int64_t t = warp; t < tokens; t += kRowsPerBlock)
            sum += (double)x[(sequence * tokens + t) * width + column];
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= width)
        return;
    for (int i = 1; i < kRowsPerBlock; i++)
        sum += sums[i][lane];
    y[sequence * width + column] = (float)(sum / (double)tokens);
}

} // namespace

extern "C" int64_t fb_nn_cuda_sums_floats(int64_t rows, int64_t width)
{
    return slices_of(rows) * width;
}

extern "C" void fb_nn_cuda_columns_add(struct fb_nn_cuda *c, float *sums, const float *x,
                                       int64_t rows, int64_t width)
{
    columns_add(c, sums, x, rows, width, plain());
}

extern "C" void fb_nn_cuda_layernorm_forward(struct fb_nn_cuda *c, const struct fb_nn_layernorm *n,
                                             float *y, float *stats, const float *x,
                                             const float *gain, const float *bias)
{
    norm_forward_kernel<<<blocks_for(n->rows, kRowsPerBlock), kThreads, 0, stream_of(c)>>>(
        y, stats, x, gain, bias, n->rows, n->width, n->eps);
    fb_nn_cuda_note(c, cudaGetLastError(), "layer normalisation");
}

extern "C" void fb_nn_cuda_layernorm_backward(struct fb_nn_cuda *c, const struct fb_nn_layernorm *n,
                                              float *dx, bool add_dx, float *dgain, float *dbias,
                                              const float *dy, const float *x, const float *stats,
                                              const float *gain)
{
    columns_add(c, dgain, dy, n->rows, n->width, normalised{x, stats, n->width});
    columns_add(c, dbias, dy, n->rows, n->width, plain());
    norm_backward_kernel<<<blocks_for(n->rows, kRowsPerBlock), kThreads, 0, stream_of(c)>>>(
        dx, add_dx, dy, x, stats, gain, n->rows, n->width);
    fb_nn_cuda_note(c, cudaGetLastError(), "the gradient of layer normalisation");
}

extern "C" void fb_nn_cuda_position_forward(struct fb_nn_cuda *c, float *y, const float *x,
                                            const float *positions, int64_t batch, int64_t tokens,
                                            int64_t width)
{
    cube(c, y, false, batch, tokens, width, positioned{x, positions, tokens, width}, "positions");
}

extern "C" void fb_nn_cuda_position_backward(struct fb_nn_cuda *c, float *dpositions,
                                             const float *dy, int64_t batch, int64_t tokens,
                                             int64_t width)
{
    cube(c, dpositions, true, 1, tokens, width, over_batch{dy, batch, tokens, width},
         "the gradient of positions");
}

extern "C" void fb_nn_cuda_prepend_forward(struct fb_nn_cuda *c, float *y, const float *x,
                                           const float *row, int64_t batch, int64_t tokens,
                                           int64_t width)
{
    cube(c, y, false, batch, tokens + 1, width, prepended{x, row, tokens, width},
         "the first token");
}

extern "C" void fb_nn_cuda_prepend_backward(struct fb_nn_cuda *c, float *dx, bool add_dx,
                                            float *drow, const float *dy, int64_t batch,
                                            int64_t tokens, int64_t width)
{
    cube(c, drow, true, 1, 1, width, over_batch{dy, batch, tokens + 1, width},
         "the gradient of the first token");
    cube(c, dx, add_dx, batch, tokens, width, behind_first{dy, tokens, width},
         "the gradient behind the first token");
}

extern "C" void fb_nn_cuda_pool_first_forward(struct fb_nn_cuda *c, float *y, const float *x,
                                              int64_t batch, int64_t tokens, int64_t width)
{
    cube(c, y, false, batch, 1, width, first_of{x, tokens, width}, "pooling");
}

extern "C" void fb_nn_cuda_pool_first_backward(struct fb_nn_cuda *c, float *dx, bool add_dx,
                                               const float *dy, int64_t batch, int64_t tokens,
                                               int64_t width)
{
    cube(c, dx, add_dx, batch, tokens, width, to_first{dy, width}, "the gradient of pooling");
}

extern "C" void fb_nn_cuda_pool_mean_forward(struct fb_nn_cuda *c, float *y, const float *x,
                                             int64_t batch, int64_t tokens, int64_t width)
{
    const dim3 grid(blocks_for(width, kWarp), (unsigned int)batch);
    mean_kernel<<<grid, kThreads, 0, stream_of(c)>>>(y, x, tokens, width);
    fb_nn_cuda_note(c, cudaGetLastError(), "pooling");
}

extern "C" void fb_nn_cuda_pool_mean_backward(struct fb_nn_cuda *c, float *dx, bool add_dx,
                                              const float *dy, int64_t batch, int64_t tokens,
                                              int64_t width)
{
    cube(c, dx, add_dx, batch, tokens, width, to_all{dy, width, 1.0f / (float)tokens},
         "the gradient of pooling");
}
