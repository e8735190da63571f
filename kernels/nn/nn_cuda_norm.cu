/* Layer normalisation on the device: see nn_cuda.h. */
#include "nn_cuda_dropout.cuh"
#include "nn_cuda_vector.cuh"

namespace
{

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kRowsPerBlock = kThreads / kWarp; /* a warp takes a row */
constexpr int kNormBlocks = 264; /* of the gradients: two for each processor of an H100 */
constexpr int kWidthMax = 1024;  /* of a row that a warp keeps in registers */

cudaStream_t stream_of(const struct fb_nn_cuda *c)
{
    return (cudaStream_t)fb_nn_cuda_stream(c);
}

unsigned int blocks_for(int64_t count, int64_t per_block)
{
    return (unsigned int)((count + per_block - 1) / per_block);
}

__device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int i = kWarp / 2; i > 0; i /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}

template <int N> __device__ __forceinline__ void clear(float (&v)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        v[i] = 0.0f;
}

/* N values at a column, or zeroes beyond the row. */
template <typename T, int N>
__device__ __forceinline__ void load_inside(float (&v)[N], const T *row, int column, int width)
{
    clear(v);
    if (column < width)
        fb_nn_cuda_load<T, N>(v, row + column);
}

/* As they read from memory once they are stored. */
template <typename T, int N> __device__ __forceinline__ void round_to(float (&v)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        T stored;
        fb_nn_cuda_narrow(&stored, v[i]);
        v[i] = fb_nn_cuda_widen(stored);
    }
}

/* The sum that is normalised: x = a + drop(b) and, backward, db = drop(dx). b NULL: x is there. */
template <typename T> struct residual {
    struct fb_nn_cuda_keep keep;
    const T *a, *b;
    T *x, *db;

    template <int N> __device__ __forceinline__ void add(float (&v)[N], int64_t at) const
    {
        float other[N];
        fb_nn_cuda_load<T, N>(v, a + at);
        fb_nn_cuda_load<T, N>(other, b + at);
        keep(other, at);
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] += other[i];
        fb_nn_cuda_store<T, N>(x + at, v);
        round_to<T, N>(v);
    }

    template <int N> __device__ __forceinline__ void hand_on(float (&v)[N], int64_t at) const
    {
        round_to<T, N>(v);
        keep(v, at);
        fb_nn_cuda_store<T, N>(db + at, v);
    }
};

/* Lane l takes the N columns from N (l + 32 j) on, j below kChunks; N divides the width. */
template <typename T, int kChunks, int N>
__global__ void norm_forward_kernel(T *y, float *stats, const T *x, const float *gain,
                                    const float *bias, int64_t rows, int width, float eps,
                                    residual<T> sum_of)
{
    const int64_t row = (int64_t)blockIdx.x * kRowsPerBlock + threadIdx.x / kWarp;
    const int lane = (int)(threadIdx.x % kWarp);
    if (row >= rows)
        return;
    float v[kChunks][N], sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
        const int column = N * (lane + kWarp * j);
        if (sum_of.b == nullptr)
            load_inside<T, N>(v[j], x + row * width, column, width);
        else if (column < width)
            sum_of.template add<N>(v[j], row * width + column);
        else
            clear(v[j]);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum += v[j][i];
    }
    const float mean = warp_sum(sum) / (float)width;
#pragma unroll
    for (int j = 0; j < kChunks; j++)
#pragma unroll
        for (int i = 0; i < N; i++) {
            v[j][i] -= mean;
            squares += N * (lane + kWarp * j) < width ? v[j][i] * v[j][i] : 0.0f;
        }
    const float scale = 1.0f / sqrtf(warp_sum(squares) / (float)width + eps);
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
        const int column = N * (lane + kWarp * j);
        if (column >= width)
            continue;
        float g[N], b[N];
        fb_nn_cuda_load<float, N>(g, gain + column);
        fb_nn_cuda_load<float, N>(b, bias + column);
#pragma unroll
        for (int i = 0; i < N; i++)
            v[j][i] = v[j][i] * scale * g[i] + b[i];
        fb_nn_cuda_store<T, N>(y + row * width + column, v[j]);
    }
    if (lane == 0) {
        stats[2 * row] = mean;
        stats[2 * row + 1] = scale;
    }
}

template <typename T>
__global__ void wide_norm_forward_kernel(T *y, float *stats, const T *x, const float *gain,
                                         const float *bias, int64_t rows, int64_t width, float eps)
{
    const int64_t row = (int64_t)blockIdx.x * kRowsPerBlock + threadIdx.x / kWarp;
    const int lane = (int)(threadIdx.x % kWarp);
    if (row >= rows)
        return;
    const T *in = x + row * width;
    float sum = 0.0f, squares = 0.0f;
    for (int64_t i = lane; i < width; i += kWarp)
        sum += fb_nn_cuda_widen(in[i]);
    const float mean = warp_sum(sum) / (float)width;
    for (int64_t i = lane; i < width; i += kWarp) {
        const float off = fb_nn_cuda_widen(in[i]) - mean;
        squares += off * off;
    }
    const float scale = 1.0f / sqrtf(warp_sum(squares) / (float)width + eps);
    for (int64_t i = lane; i < width; i += kWarp)
        fb_nn_cuda_narrow(y + row * width + i,
                          (fb_nn_cuda_widen(in[i]) - mean) * scale * gain[i] + bias[i]);
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
 * order. Columns of a lane as above.
 */
template <typename T, int kChunks, int N>
__global__ void norm_backward_kernel(T *dx, bool add, float *partials, const T *dy, const T *x,
                                     const float *stats, const float *gain, int64_t rows, int width,
                                     residual<T> sum_of)
{
    extern __shared__ float sums[]; /* [warps][2][width] */
    const int lane = (int)(threadIdx.x % kWarp), warp = (int)(threadIdx.x / kWarp);
    float scale_of[kChunks][N], gain_sums[kChunks][N], bias_sums[kChunks][N];
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
        load_inside<float, N>(scale_of[j], gain, N * (lane + kWarp * j), width);
        clear(gain_sums[j]);
        clear(bias_sums[j]);
    }
    const int64_t first = rows * blockIdx.x / gridDim.x, end = rows * (blockIdx.x + 1) / gridDim.x;
    for (int64_t row = first + warp; row < end; row += kRowsPerBlock) {
        const float mean = stats[2 * row], scale = stats[2 * row + 1];
        float z[kChunks][N], grad[kChunks][N], sum = 0.0f, product = 0.0f;
#pragma unroll
        for (int j = 0; j < kChunks; j++) {
            const int column = N * (lane + kWarp * j);
            load_inside<T, N>(z[j], x + row * width, column, width);
            load_inside<T, N>(grad[j], dy + row * width, column, width);
#pragma unroll
            for (int i = 0; i < N; i++) {
                z[j][i] = column < width ? (z[j][i] - mean) * scale : 0.0f;
                gain_sums[j][i] += grad[j][i] * z[j][i];
                bias_sums[j][i] += grad[j][i];
                grad[j][i] *= scale_of[j][i];
                sum += grad[j][i];
                product += grad[j][i] * z[j][i];
            }
        }
        const float g_mean = warp_sum(sum) / (float)width;
        const float gz_mean = warp_sum(product) / (float)width;
#pragma unroll
        for (int j = 0; j < kChunks; j++) {
            const int column = N * (lane + kWarp * j);
            if (column >= width)
                continue;
#pragma unroll
            for (int i = 0; i < N; i++)
                grad[j][i] = scale * (grad[j][i] - g_mean - z[j][i] * gz_mean);
            fb_nn_cuda_put<T, N>(dx + row * width + column, add, grad[j]);
            if (sum_of.db != nullptr)
                sum_of.template hand_on<N>(grad[j], row * width + column);
        }
    }
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
        const int column = N * (lane + kWarp * j);
        for (int i = 0; i < N && column < width; i++) {
            sums[(2 * warp + 0) * width + column + i] = gain_sums[j][i];
            sums[(2 * warp + 1) * width + column + i] = bias_sums[j][i];
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

/* Rows of any width, from memory twice. */
template <typename T>
__global__ void wide_norm_backward_kernel(T *dx, bool add, const T *dy, const T *x,
                                          const float *stats, const float *gain, int64_t rows,
                                          int64_t width)
{
    const int64_t row = (int64_t)blockIdx.x * kRowsPerBlock + threadIdx.x / kWarp;
    const int lane = (int)(threadIdx.x % kWarp);
    if (row >= rows)
        return;
    const float mean = stats[2 * row], scale = stats[2 * row + 1];
    const T *in = x + row * width, *grad = dy + row * width;
    float sum = 0.0f, product = 0.0f;
    for (int64_t i = lane; i < width; i += kWarp) {
        const float g = fb_nn_cuda_widen(grad[i]) * gain[i];
        sum += g;
        product += g * ((fb_nn_cuda_widen(in[i]) - mean) * scale);
    }
    const float g_mean = warp_sum(sum) / (float)width;
    const float gz_mean = warp_sum(product) / (float)width;
    for (int64_t i = lane; i < width; i += kWarp) {
        const float z = (fb_nn_cuda_widen(in[i]) - mean) * scale;
        float value[1] = {scale * (fb_nn_cuda_widen(grad[i]) * gain[i] - g_mean - z * gz_mean)};
        fb_nn_cuda_put<T, 1>(dx + row * width + i, add, value);
    }
}

/* Of rows of any width: a thread sums one column of dy z and of dy over a block's rows. */
template <typename T>
__global__ void wide_sums_kernel(float *partials, const T *dy, const T *x, const float *stats,
                                 int64_t rows, int64_t width)
{
    const int64_t column = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    const int64_t first = rows * blockIdx.y / gridDim.y, end = rows * (blockIdx.y + 1) / gridDim.y;
    float gain_sum = 0.0f, bias_sum = 0.0f;
    if (column >= width)
        return;
    for (int64_t row = first; row < end; row++) {
        const float g = fb_nn_cuda_widen(dy[row * width + column]);
        gain_sum +=
            g * ((fb_nn_cuda_widen(x[row * width + column]) - stats[2 * row]) * stats[2 * row + 1]);
        bias_sum += g;
    }
    float *to = partials + (int64_t)blockIdx.y * 2 * width + column;
    to[0] = gain_sum;
    to[width] = bias_sum;
}

int64_t blocks_of(int64_t rows)
{
    const int64_t needed = (rows + kRowsPerBlock - 1) / kRowsPerBlock;
    return needed < kNormBlocks ? needed : kNormBlocks;
}

template <typename T> struct norm_call {
    struct fb_nn_cuda *c;
    const struct fb_nn_layernorm *n;
    T *y, *dx;
    bool add_dx;
    float *stats_out, *partials;
    const T *x, *dy;
    const float *stats, *gain, *bias;
    residual<T> sum_of;

    template <int kChunks, int N> void forward() const
    {
        norm_forward_kernel<T, kChunks, N>
            <<<blocks_for(n->rows, kRowsPerBlock), kThreads, 0, stream_of(c)>>>(
                y, stats_out, x, gain, bias, n->rows, (int)n->width, n->eps, sum_of);
    }

    template <int kChunks, int N> void backward() const
    {
        const size_t shared = (size_t)(2 * kRowsPerBlock * n->width) * sizeof(float);
        if (shared > 48 * 1024)
            fb_nn_cuda_note(c,
                            cudaFuncSetAttribute(norm_backward_kernel<T, kChunks, N>,
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 (int)shared),
                            "layer normalisation's shared memory");
        norm_backward_kernel<T, kChunks, N>
            <<<(unsigned int)blocks_of(n->rows), kThreads, shared, stream_of(c)>>>(
                dx, add_dx, partials, dy, x, stats, gain, n->rows, (int)n->width, sum_of);
    }

    template <bool is_forward, int kChunks, int N> void pass() const
    {
        if constexpr (is_forward)
            forward<kChunks, N>();
        else
            backward<kChunks, N>();
    }

    /* Of a row that registers hold. */
    template <bool is_forward> void run() const
    {
        constexpr int pack = fb_nn_cuda_pack<T>;
        const int64_t width = n->width;
        if (width % pack != 0)
            pass<is_forward, kWidthMax / kWarp, 1>();
        else if (width <= pack * kWarp)
            pass<is_forward, 1, pack>();
        else if (width <= 2 * pack * kWarp)
            pass<is_forward, 2, pack>();
        else if (width <= 4 * pack * kWarp)
            pass<is_forward, 4, pack>();
        else
            pass<is_forward, kWidthMax / (pack * kWarp), pack>();
    }

    void wide_forward() const
    {
        wide_norm_forward_kernel<T>
            <<<blocks_for(n->rows, kRowsPerBlock), kThreads, 0, stream_of(c)>>>(
                y, stats_out, x, gain, bias, n->rows, n->width, n->eps);
    }

    void wide_backward() const
    {
        const dim3 grid(blocks_for(n->width, kThreads), (unsigned int)blocks_of(n->rows));
        wide_sums_kernel<T>
            <<<grid, kThreads, 0, stream_of(c)>>>(partials, dy, x, stats, n->rows, n->width);
        wide_norm_backward_kernel<T>
            <<<blocks_for(n->rows, kRowsPerBlock), kThreads, 0, stream_of(c)>>>(
                dx, add_dx, dy, x, stats, gain, n->rows, n->width);
    }
};

} // namespace

extern "C" int64_t fb_nn_cuda_norm_floats(int64_t rows, int64_t width)
{
    return blocks_of(rows) * 2 * width;
}

/* Rows beyond kWidthMax are summed, and their gradients handed on, by passes of their own. */
static bool is_wide(const struct fb_nn_layernorm *n)
{
    return n->width > kWidthMax;
}

extern "C" void fb_nn_cuda_layernorm_forward(struct fb_nn_cuda *c, const struct fb_nn_layernorm *n,
                                             const struct fb_nn_cuda_residual *residual_of, void *y,
                                             float *stats, void *x, const float *gain,
                                             const float *bias)
{
    if (residual_of != nullptr && is_wide(n))
        fb_nn_cuda_sum_apply(c, &residual_of->dropout, x, residual_of->a, residual_of->b,
                             n->rows * n->width);
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        norm_call<T> call = {};
        call.c = c;
        call.n = n;
        call.y = (T *)y;
        call.stats_out = stats;
        call.x = (const T *)x;
        call.gain = gain;
        call.bias = bias;
        if (residual_of != nullptr)
            call.sum_of = {fb_nn_cuda_keep_of(c, &residual_of->dropout), (const T *)residual_of->a,
                           (const T *)residual_of->b, (T *)x, nullptr};
        if (is_wide(n))
            call.wide_forward();
        else
            call.template run<true>();
    });
    fb_nn_cuda_note(c, cudaGetLastError(), "layer normalisation");
}

extern "C" void fb_nn_cuda_layernorm_backward(struct fb_nn_cuda *c, const struct fb_nn_layernorm *n,
                                              const struct fb_nn_cuda_residual *residual_of,
                                              void *dx, bool add_dx, float *dgain, float *dbias,
                                              const void *dy, const void *x, const float *stats,
                                              const float *gain)
{
    float *partials = fb_nn_cuda_partials(c, fb_nn_cuda_norm_floats(n->rows, n->width));
    if (partials == nullptr)
        return;
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        norm_call<T> call = {};
        call.c = c;
        call.n = n;
        call.dx = (T *)dx;
        call.add_dx = add_dx;
        call.partials = partials;
        call.x = (const T *)x;
        call.dy = (const T *)dy;
        call.stats = stats;
        call.gain = gain;
        if (residual_of != nullptr)
            call.sum_of = {fb_nn_cuda_keep_of(c, &residual_of->dropout), nullptr, nullptr, nullptr,
                           (T *)residual_of->db};
        if (is_wide(n))
            call.wide_backward();
        else
            call.template run<false>();
    });
    fb_nn_cuda_slices_add(c, dgain, dbias, n->width, partials, 2 * n->width, blocks_of(n->rows));
    if (residual_of != nullptr && is_wide(n))
        fb_nn_cuda_dropout_apply(c, &residual_of->dropout, residual_of->db, false, dx,
                                 n->rows * n->width);
    fb_nn_cuda_note(c, cudaGetLastError(), "the gradient of layer normalisation");
}
