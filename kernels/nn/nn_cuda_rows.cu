/*
 * Layers over rows on the device: layer normalisation, sums over rows, positions, pooling. See
 * nn_cuda.h.
 */
#include "nn_cuda_dropout.cuh"
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

/*
 * Gradients of layer normalisation: with g = dy * gain and z the normalised row,
 *   dx = s (g - mean(g) - z mean(g z)), dgain = sum dy z, dbias = sum dy.
 * A warp takes a row after the other and keeps the row, and its columns' sums, in registers; a
 * block writes the sums of its rows to partials [blocks][2][width], which are then added up in
 * order. kColumns: of a row, per lane.
 */
template <int kColumns>
__global__ void norm_backward_kernel(float *dx, bool add, float *partials, const float *dy,
                                     const float *x, const float *stats, const float *gain,
                                     int64_t rows, int width)
{
    extern __shared__ float sums[]; /* [warps][2][width] */
    const int lane = (int)(threadIdx.x % kWarp), warp = (int)(threadIdx.x / kWarp);
    float scale_of[kColumns], gain_sums[kColumns], bias_sums[kColumns];
#pragma unroll
    for (int j = 0; j < kColumns; j++) {
        const int column = lane + j * kWarp;
        scale_of[j] = column < width ? gain[column] : 0.0f;
        gain_sums[j] = bias_sums[j] = 0.0f;
    }
    const int64_t first = rows * blockIdx.x / gridDim.x, end = rows * (blockIdx.x + 1) / gridDim.x;
    for (int64_t row = first + warp; row < end; row += kRowsPerBlock) {
        const float mean = stats[2 * row], scale = stats[2 * row + 1];
        float z[kColumns], grad[kColumns], sum = 0.0f, product = 0.0f;
#pragma unroll
        for (int j = 0; j < kColumns; j++) {
            const int column = lane + j * kWarp;
            const bool inside = column < width;
            z[j] = inside ? (x[row * width + column] - mean) * scale : 0.0f;
            grad[j] = inside ? dy[row * width + column] : 0.0f;
            gain_sums[j] += grad[j] * z[j];
            bias_sums[j] += grad[j];
            grad[j] *= scale_of[j];
            sum += grad[j];
            product += grad[j] * z[j];
        }
        const float g_mean = warp_sum(sum) / (float)width;
        const float gz_mean = warp_sum(product) / (float)width;
#pragma unroll
        for (int j = 0; j < kColumns; j++) {
            const int column = lane + j * kWarp;
            const float value = scale * (grad[j] - g_mean - z[j] * gz_mean);
            float *to = dx + row * width + column;
            if (column < width)
                *to = add ? *to + value : value;
        }
    }
#pragma unroll
    for (int j = 0; j < kColumns; j++) {
        const int column = lane + j * kWarp;
        if (column < width) {
            sums[(2 * warp + 0) * width + column] = gain_sums[j];
            sums[(2 * warp + 1) * width + column] = bias_sums[j];
        }
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < 2 * width; i += kThreads) {
        float sum = 0.0f;
        for (int w = 0; w < kRowsPerBlock; w++)
            sum += sums[2 * w * width + i];
        partials[(int64_t)blockIdx.x * 2 * width + i] = sum;
    }
}

/* Rows of any width, from memory twice; the columns' sums are taken by slices. */
__global__ void wide_norm_backward_kernel(float *dx, bool add, const float *dy, const float *x,
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

/* A block adds up 32 columns: each of its warps every eighth slice, then the warps' sums in order.
 */
__global__ void slices_add_kernel(float *sums, const float *partials, int64_t width, int64_t slices)
{
    __shared__ double parts[kRowsPerBlock][kWarp];
    const int lane = (int)(threadIdx.x % kWarp), warp = (int)(threadIdx.x / kWarp);
    const int64_t column = (int64_t)blockIdx.x * kWarp + lane;
    double sum = 0.0;
    if (column < width)
        for (int64_t i = warp; i < slices; i += kRowsPerBlock)
            sum += (double)partials[i * width + column];
    parts[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= width)
        return;
    for (int i = 1; i < kRowsPerBlock; i++)
        sum += parts[i][lane];
    sums[column] += (float)sum;
}

void add_slices(struct fb_nn_cuda *c, float *sums, const float *partials, int64_t width,
                int64_t slices)
{
    slices_add_kernel<<<blocks_for(width, kWarp), kThreads, 0, stream_of(c)>>>(sums, partials,
                                                                               width, slices);
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
    add_slices(c, sums, partials, width, slices);
    fb_nn_cuda_note(c, cudaGetLastError(), "summing columns");
}

/* dgain and dbias lie apart; partials hold both side by side. */
__global__ void pair_add_kernel(float *dgain, float *dbias, const float *sums, int64_t width)
{
    const int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    if (i < width)
        dgain[i] += sums[i];
    else if (i < 2 * width)
        dbias[i - width] += sums[i];
}

constexpr int kNormBlocks = 264; /* of layer normalisation's gradients: two for each processor */

template <int kColumns>
void norm_backward(struct fb_nn_cuda *c, const struct fb_nn_layernorm *n, float *dx, bool add_dx,
                   float *dgain, float *dbias, const float *dy, const float *x, const float *stats,
                   const float *gain)
{
    const int64_t needed = (n->rows + kRowsPerBlock - 1) / kRowsPerBlock;
    const int64_t blocks = needed < kNormBlocks ? needed : kNormBlocks;
    const size_t shared = (size_t)(2 * kRowsPerBlock * n->width) * sizeof(float);
    float *partials = fb_nn_cuda_partials(c, fb_nn_cuda_norm_floats(n->rows, n->width));
    if (partials == nullptr)
        return;
    float *sums = partials + blocks * 2 * n->width;
    if (shared > 48 * 1024)
        fb_nn_cuda_note(c,
                        cudaFuncSetAttribute(norm_backward_kernel<kColumns>,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             (int)shared),
                        "layer normalisation's shared memory");
    norm_backward_kernel<kColumns><<<(unsigned int)blocks, kThreads, shared, stream_of(c)>>>(
        dx, add_dx, partials, dy, x, stats, gain, n->rows, (int)n->width);
    fb_nn_cuda_note(c,
                    cudaMemsetAsync(sums, 0, (size_t)(2 * n->width) * sizeof(float), stream_of(c)),
                    "zeroing sums");
    add_slices(c, sums, partials, 2 * n->width, blocks);
    pair_add_kernel<<<blocks_for(2 * n->width, kThreads), kThreads, 0, stream_of(c)>>>(
        dgain, dbias, sums, n->width);
    fb_nn_cuda_note(c, cudaGetLastError(), "the gradient of layer normalisation");
}

/* y[b, t, c] = f(b, t, c) over [batch, tokens, width]: a block takes a few rows, a thread every
 * kThreads-th value of them. Rows are few enough for 32 bits, as the grid is. */
constexpr int kCubeRows = 4;

template <typename F>
__global__ void cube_kernel(float *y, bool add, uint32_t tokens, uint32_t width, uint32_t rows, F f)
{
    const uint32_t first = blockIdx.x * kCubeRows;
    const uint32_t count = min((uint32_t)kCubeRows, rows - first);
    for (uint32_t r = 0; r < count; r++) {
        const uint32_t row = first + r, b = row / tokens, t = row % tokens;
        float *to = y + (int64_t)row * width;
        for (uint32_t i = threadIdx.x; i < width; i += kThreads) {
            const float value = f(b, t, i);
            to[i] = add ? to[i] + value : value;
        }
    }
}

template <typename F>
void cube(struct fb_nn_cuda *c, float *y, bool add, int64_t batch, int64_t tokens, int64_t width,
          F f, const char *what)
{
    const int64_t rows = batch * tokens;
    cube_kernel<<<blocks_for(rows, kCubeRows), kThreads, 0, stream_of(c)>>>(
        y, add, (uint32_t)tokens, (uint32_t)width, (uint32_t)rows, f);
    fb_nn_cuda_note(c, cudaGetLastError(), what);
}

struct positioned {
    struct fb_nn_cuda_keep keep;
    const float *x, *table;
    int64_t tokens, width;
    __device__ float operator()(int64_t b, int64_t t, int64_t i) const
    {
        const int64_t at = (b * tokens + t) * width + i;
        return keep(at, x[at] + table[t * width + i]);
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

extern "C" int64_t fb_nn_cuda_norm_floats(int64_t rows, int64_t width)
{
    const int64_t needed = (rows + kRowsPerBlock - 1) / kRowsPerBlock;
    const int64_t blocks = needed < kNormBlocks ? needed : kNormBlocks;
    const int64_t fused = (blocks + 1) * 2 * width, sliced = fb_nn_cuda_sums_floats(rows, width);
    return fused > sliced ? fused : sliced;
}

extern "C" void fb_nn_cuda_layernorm_backward(struct fb_nn_cuda *c, const struct fb_nn_layernorm *n,
                                              float *dx, bool add_dx, float *dgain, float *dbias,
                                              const float *dy, const float *x, const float *stats,
                                              const float *gain)
{
    if (n->width <= 4 * kWarp) {
        norm_backward<4>(c, n, dx, add_dx, dgain, dbias, dy, x, stats, gain);
    } else if (n->width <= 8 * kWarp) {
        norm_backward<8>(c, n, dx, add_dx, dgain, dbias, dy, x, stats, gain);
    } else if (n->width <= 16 * kWarp) {
        norm_backward<16>(c, n, dx, add_dx, dgain, dbias, dy, x, stats, gain);
    } else if (n->width <= 32 * kWarp) {
        norm_backward<32>(c, n, dx, add_dx, dgain, dbias, dy, x, stats, gain);
    } else {
        columns_add(c, dgain, dy, n->rows, n->width, normalised{x, stats, n->width});
        columns_add(c, dbias, dy, n->rows, n->width, plain());
        wide_norm_backward_kernel<<<blocks_for(n->rows, kRowsPerBlock), kThreads, 0,
                                    stream_of(c)>>>(dx, add_dx, dy, x, stats, gain, n->rows,
                                                    n->width);
        fb_nn_cuda_note(c, cudaGetLastError(), "the gradient of layer normalisation");
    }
}

extern "C" void fb_nn_cuda_position_forward(struct fb_nn_cuda *c,
                                            const struct fb_nn_dropout *dropout, float *y,
                                            const float *x, const float *positions, int64_t batch,
                                            int64_t tokens, int64_t width)
{
    const positioned f = {fb_nn_cuda_keep_of(dropout), x, positions, tokens, width};
    cube(c, y, false, batch, tokens, width, f, "positions");
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
