/* Layers over rows on the device: sums of columns, positions, pooling. See nn_cuda.h. */
#include "nn_cuda_cube.cuh"
#include "nn_cuda_dropout.cuh"

namespace
{

constexpr int kWarp = 32;
constexpr int kSlices = 1024;     /* of the rows of a sum, at most */
constexpr int kSliceRows = 64;    /* of a slice, at least */
constexpr int kSliceThreads = 64; /* each takes some neighbouring columns */
constexpr int kFewRows = 2048;    /* that are summed without slices, at most */
constexpr int kSummers = 32;      /* warps that add up slices */
constexpr int kMeanWarps = 8;

cudaStream_t stream_of(const struct fb_nn_cuda *c)
{
    return (cudaStream_t)fb_nn_cuda_stream(c);
}

int64_t slices_of(int64_t rows)
{
    const int64_t most = (rows + kSliceRows - 1) / kSliceRows;
    return most < kSlices ? most : kSlices;
}

/* partials [slices, width]: a thread sums N columns of one slice. */
template <typename T, int N>
__global__ void slice_kernel(float *partials, const T *x, int64_t rows, int64_t width,
                             int64_t slices)
{
    constexpr int kAtOnce = 4;
    const int64_t column = N * ((int64_t)blockIdx.x * kSliceThreads + threadIdx.x);
    const int64_t slice = blockIdx.y;
    if (column >= width)
        return;
    const int64_t first = rows * slice / slices, end = rows * (slice + 1) / slices;
    float sums[N] = {};
    int64_t row = first;
    for (; row + kAtOnce <= end; row += kAtOnce) {
        float v[kAtOnce][N];
#pragma unroll
        for (int r = 0; r < kAtOnce; r++)
            fb_nn_cuda_load<T, N>(v[r], x + (row + r) * width + column);
#pragma unroll
        for (int i = 0; i < N; i++)
            sums[i] += (v[0][i] + v[1][i]) + (v[2][i] + v[3][i]);
    }
    for (; row < end; row++) {
        float v[N];
        fb_nn_cuda_load<T, N>(v, x + row * width + column);
#pragma unroll
        for (int i = 0; i < N; i++)
            sums[i] += v[i];
    }
    for (int i = 0; i < N; i++)
        partials[slice * width + column + i] = sums[i];
}

/* A block adds up 32 columns: each of its warps every 32nd slice, then the warps' sums in order. */
__global__ void slices_add_kernel(float *first, float *second, int64_t split, const float *partials,
                                  int64_t width, int64_t slices)
{
    const int lane = (int)(threadIdx.x % kWarp), warp = (int)(threadIdx.x / kWarp);
    const int64_t column = (int64_t)blockIdx.x * kWarp + lane;
    double sum = 0.0;
    if (column < width) {
#pragma unroll 4
        for (int64_t i = warp; i < slices; i += kSummers)
            sum += (double)partials[i * width + column];
    }
    sum = fb_nn_cuda_over_warps<kSummers>(sum);
    if (warp > 0 || column >= width)
        return;
    float *to = column < split ? first + column : second + (column - split);
    *to += (float)sum;
}

/* Few rows: a block sums 32 columns, each of its warps every 32nd row. */
template <typename T>
__global__ void few_rows_kernel(float *sums, const T *x, int64_t rows, int64_t width)
{
    const int lane = (int)(threadIdx.x % kWarp), warp = (int)(threadIdx.x / kWarp);
    const int64_t column = (int64_t)blockIdx.x * kWarp + lane;
    float sum = 0.0f;
    if (column < width) {
#pragma unroll 4
        for (int64_t i = warp; i < rows; i += kSummers)
            sum += fb_nn_cuda_widen(x[i * width + column]);
    }
    const double total = fb_nn_cuda_over_warps<kSummers>((double)sum);
    if (warp == 0 && column < width)
        sums[column] += (float)total;
}

template <typename T, int N>
void sum_slices(struct fb_nn_cuda *c, float *partials, const T *x, int64_t rows, int64_t width,
                int64_t slices)
{
    const dim3 grid(fb_nn_cuda_blocks(width, N * kSliceThreads), (unsigned int)slices);
    slice_kernel<T, N><<<grid, kSliceThreads, 0, stream_of(c)>>>(partials, x, rows, width, slices);
}

template <typename T>
void columns_add(struct fb_nn_cuda *c, float *sums, const T *x, int64_t rows, int64_t width)
{
    constexpr int pack = fb_nn_cuda_pack<T>;
    const int64_t slices = slices_of(rows);
    float *partials = fb_nn_cuda_partials(c, fb_nn_cuda_sums_floats(rows, width));
    if (partials == nullptr || rows == 0)
        return;
    if (rows <= kFewRows) {
        few_rows_kernel<T><<<fb_nn_cuda_blocks(width, kWarp), kSummers * kWarp, 0, stream_of(c)>>>(
            sums, x, rows, width);
        return;
    }
    if (width % pack == 0)
        sum_slices<T, pack>(c, partials, x, rows, width, slices);
    else
        sum_slices<T, 1>(c, partials, x, rows, width, slices);
    fb_nn_cuda_slices_add(c, sums, nullptr, width, partials, width, slices);
}

template <typename T> struct positioned {
    struct fb_nn_cuda_keep keep;
    const T *x;
    const float *table;
    int64_t tokens, width;
    template <int N>
    __device__ __forceinline__ void operator()(float (&v)[N], int64_t b, int64_t t, int64_t i) const
    {
        const int64_t at = (b * tokens + t) * width + i;
        float row[N];
        fb_nn_cuda_load<T, N>(v, x + at);
        fb_nn_cuda_load<float, N>(row, table + t * width + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] += row[j];
        keep(v, at);
    }
};

template <typename T> struct first_of {
    const T *x;
    int64_t tokens, width;
    template <int N>
    __device__ __forceinline__ void operator()(float (&v)[N], int64_t b, int64_t, int64_t i) const
    {
        fb_nn_cuda_load<T, N>(v, x + b * tokens * width + i);
    }
};

/* scale dy, for every token or for the first alone. */
template <typename T> struct spread {
    const T *dy;
    int64_t width;
    float scale;
    bool first_only;
    template <int N>
    __device__ __forceinline__ void operator()(float (&v)[N], int64_t b, int64_t t, int64_t i) const
    {
        fb_nn_cuda_load<T, N>(v, dy + b * width + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] = first_only && t > 0 ? 0.0f : scale * v[j];
    }
};

/* dy is added to the first rows of the sequences of dx, N columns a thread. */
template <typename T, int N>
__global__ void first_add_kernel(T *dx, const T *dy, int64_t batch, int64_t tokens, int64_t width)
{
    const int64_t i = N * ((int64_t)blockIdx.x * FB_NN_CUDA_CUBE_THREADS + threadIdx.x);
    float v[N];
    if (i >= batch * width)
        return;
    fb_nn_cuda_load<T, N>(v, dy + i);
    fb_nn_cuda_put<T, N>(dx + i / width * tokens * width + i % width, true, v);
}

/* The mean of a sequence: a block takes 32 columns, its warps every eighth token. */
template <typename T> __global__ void mean_kernel(T *y, const T *x, int64_t tokens, int64_t width)
{
    const int lane = (int)(threadIdx.x % kWarp), warp = (int)(threadIdx.x / kWarp);
    const int64_t column = (int64_t)blockIdx.x * kWarp + lane, sequence = blockIdx.y;
    double sum = 0.0;
    if (column < width) {
#pragma unroll 8
        for (int64_t t = warp; t < tokens; t += kMeanWarps)
            sum += (double)fb_nn_cuda_widen(x[(sequence * tokens + t) * width + column]);
    }
    sum = fb_nn_cuda_over_warps<kMeanWarps>(sum);
    if (warp == 0 && column < width)
        fb_nn_cuda_narrow(y + sequence * width + column, (float)(sum / (double)tokens));
}

} // namespace

extern "C" int64_t fb_nn_cuda_sums_floats(int64_t rows, int64_t width)
{
    return slices_of(rows) * width;
}

extern "C" void fb_nn_cuda_columns_add(struct fb_nn_cuda *c, float *sums, const void *x, bool wide,
                                       int64_t rows, int64_t width)
{
    if (wide)
        columns_add(c, sums, (const float *)x, rows, width);
    else
        fb_nn_cuda_by_type(
            c, [&](auto zero) { columns_add(c, sums, (const decltype(zero) *)x, rows, width); });
    fb_nn_cuda_note(c, cudaGetLastError(), "summing columns");
}

extern "C" void fb_nn_cuda_slices_add(struct fb_nn_cuda *c, float *first, float *second,
                                      int64_t split, const float *partials, int64_t width,
                                      int64_t slices)
{
    slices_add_kernel<<<fb_nn_cuda_blocks(width, kWarp), kSummers * kWarp, 0, stream_of(c)>>>(
        first, second, split, partials, width, slices);
}

extern "C" void fb_nn_cuda_position_forward(struct fb_nn_cuda *c,
                                            const struct fb_nn_dropout *dropout, void *y,
                                            const void *x, const float *positions, int64_t batch,
                                            int64_t tokens, int64_t width)
{
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        const positioned<T> f = {fb_nn_cuda_keep_of(c, dropout), (const T *)x, positions, tokens,
                                 width};
        fb_nn_cuda_cube<fb_nn_cuda_pack<T>>(c, (T *)y, false, batch, tokens, width, f, "positions");
    });
}

extern "C" void fb_nn_cuda_pool_first_forward(struct fb_nn_cuda *c, void *y, const void *x,
                                              int64_t batch, int64_t tokens, int64_t width)
{
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        fb_nn_cuda_cube<fb_nn_cuda_pack<T>>(c, (T *)y, false, batch, 1, width,
                                            first_of<T>{(const T *)x, tokens, width}, "pooling");
    });
}

/* Where it adds, the rows that are not pooled stay as they are. */
extern "C" void fb_nn_cuda_pool_first_backward(struct fb_nn_cuda *c, void *dx, bool add_dx,
                                               const void *dy, int64_t batch, int64_t tokens,
                                               int64_t width)
{
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        constexpr int pack = fb_nn_cuda_pack<T>;
        const int64_t columns = width % pack == 0 ? pack : 1;
        const unsigned int blocks =
            fb_nn_cuda_blocks(batch * width / columns, FB_NN_CUDA_CUBE_THREADS);
        if (!add_dx)
            fb_nn_cuda_cube<pack>(c, (T *)dx, false, batch, tokens, width,
                                  spread<T>{(const T *)dy, width, 1.0f, true},
                                  "the gradient of pooling");
        else if (columns == pack)
            first_add_kernel<T, pack><<<blocks, FB_NN_CUDA_CUBE_THREADS, 0, stream_of(c)>>>(
                (T *)dx, (const T *)dy, batch, tokens, width);
        else
            first_add_kernel<T, 1><<<blocks, FB_NN_CUDA_CUBE_THREADS, 0, stream_of(c)>>>(
                (T *)dx, (const T *)dy, batch, tokens, width);
    });
    fb_nn_cuda_note(c, cudaGetLastError(), "the gradient of pooling");
}

extern "C" void fb_nn_cuda_pool_mean_forward(struct fb_nn_cuda *c, void *y, const void *x,
                                             int64_t batch, int64_t tokens, int64_t width)
{
    const dim3 grid(fb_nn_cuda_blocks(width, kWarp), (unsigned int)batch);
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        mean_kernel<T>
            <<<grid, kMeanWarps * kWarp, 0, stream_of(c)>>>((T *)y, (const T *)x, tokens, width);
    });
    fb_nn_cuda_note(c, cudaGetLastError(), "pooling");
}

extern "C" void fb_nn_cuda_pool_mean_backward(struct fb_nn_cuda *c, void *dx, bool add_dx,
                                              const void *dy, int64_t batch, int64_t tokens,
                                              int64_t width)
{
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        fb_nn_cuda_cube<fb_nn_cuda_pack<T>>(
            c, (T *)dx, add_dx, batch, tokens, width,
            spread<T>{(const T *)dy, width, 1.0f / (float)tokens, false},
            "the gradient of pooling");
    });
}
