/*
 * Strips of 16 rows of 64 columns, bf16 or f16, that a warp has in tiles of shared memory or in
 * registers: as operand a of products, as f32 results lie, and their products with matrices by
 * warpgroups. cuda_fragments.cuh tells how tiles lie.
 */
#ifndef FB_CUDA_STRIPS_CUH
#define FB_CUDA_STRIPS_CUH

#include "cuda_wgmma.cuh"

constexpr int kDim = 64;

/* Numbers of a strip's rows g and g + 8, as its products with a vector (in the lanes with t = 0) or
 * weights. */
struct strip_dots {
    float low, high;
};

/* A strip as the results of a product lie: block of 8 columns, then {row g, row g + 8} x two. */
typedef float strip_values[8][4];

/* What load_strip read, as f32. */
template <typename T = __nv_bfloat16>
__device__ void unpack_strip(strip_values &x, const uint32_t (&raw)[4][4])
{
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const uint32_t low = raw[n / 2][n % 2 * 2], high = raw[n / 2][n % 2 * 2 + 1];
        x[n][0] = low_of<T>(low);
        x[n][1] = high_of<T>(low);
        x[n][2] = low_of<T>(high);
        x[n][3] = high_of<T>(high);
    }
}

/* A strip as operand a. */
template <typename T = __nv_bfloat16>
__device__ void pack_strip(uint32_t (&a)[4][4], const strip_values &x)
{
#pragma unroll
    for (int n = 0; n < 8; n++) {
        a[n / 2][n % 2 * 2] = pack_pair<T>(x[n][0], x[n][1]);
        a[n / 2][n % 2 * 2 + 1] = pack_pair<T>(x[n][2], x[n][3]);
    }
}

__device__ inline strip_dots over_quad(strip_dots x)
{
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
        x.low += __shfl_xor_sync(0xffffffffU, x.low, step);
        x.high += __shfl_xor_sync(0xffffffffU, x.high, step);
    }
    return x;
}

__device__ inline void load_strip(uint32_t (&a)[4][4], uint32_t strip, const lane_places &at)
{
#pragma unroll
    for (int step = 0; step < 4; step++)
        load_a(a[step], strip, at, step);
}

/* Sums of columns over the strip's rows, given each lane's of its own two rows: a lane gets those
 * of the columns 8 g + 2 t and the next. Each step halves what is left to add. */
__device__ inline float2 fold_columns(float (&x)[8][2])
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 4; half > 0; half /= 2) {
        const bool upper = (lane & (4 * half)) != 0;
#pragma unroll
        for (int n = 0; n < half; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float send = upper ? x[n][i] : x[n + half][i];
                const float keep = upper ? x[n + half][i] : x[n][i];
                x[n][i] = keep + __shfl_xor_sync(0xffffffffU, send, 4 * half);
            }
    }
    return make_float2(x[0][0], x[0][1]);
}

__device__ inline void leave_columns(float *part, float (&x)[8][2])
{
    const int lane = threadIdx.x % 32;
    const float2 sum = fold_columns(x);
    *reinterpret_cast<float2 *>(part + lane / 4 * 8 + lane % 4 * 2) = sum;
}

#if FB_HAVE_WGMMA

/* A strip into its place as operand a. */
__device__ inline void store_strip(uint32_t strip, const uint32_t (&a)[4][4], const lane_places &at)
{
#pragma unroll
    for (int step = 0; step < 4; step++)
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                         strip + (at.straight ^ (uint32_t)(step << 5))),
                     "r"(a[step][0]), "r"(a[step][1]), "r"(a[step][2]), "r"(a[step][3])
                     : "memory");
}

/* A barrier of the warps of a warpgroup. */
__device__ inline void sync_warpgroup()
{
    asm volatile("bar.sync %0, 128;" ::"r"(1 + (int)threadIdx.x / 128) : "memory");
}

/* sum += x^T y of a warpgroup's rows of some tiles of both, four strips each, which its warps have
 * left. They may go when this is done. */
template <typename T, int Tiles>
__device__ void add_group_product(float (&sum)[8][4], const uint32_t (&x)[Tiles],
                                  const uint32_t (&y)[Tiles])
{
    publish_shared();
    sync_warpgroup();
    wgmma_hold(sum);
    wgmma_begin();
#pragma unroll
    for (int tile = 0; tile < Tiles; tile++)
#pragma unroll
        for (int strip = 0; strip < 4; strip++)
            wgmma_add_turned<T>(sum, wgmma_tile(x[tile]) + 128 * strip,
                                wgmma_tile(y[tile]) + 128 * strip);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(sum);
    sync_warpgroup();
}

/* y = a times the matrix, or its transpose, which has been published, from here until
 * end_group_product. By a warpgroup. */
template <bool Turned, typename T>
__device__ void begin_group_product(strip_values &y, const uint32_t (&a)[4][4], uint64_t matrix)
{
    wgmma_begin();
    if constexpr (Turned) {
        wgmma_turned_first<T>(y, a[0], matrix);
#pragma unroll
        for (int step = 1; step < 4; step++)
            wgmma_turned_add<T>(y, a[step], matrix + 2 * step);
    } else {
        wgmma_first<T>(y, a[0], matrix);
#pragma unroll
        for (int step = 1; step < 4; step++)
            wgmma_add<T>(y, a[step], matrix + 128 * step);
    }
    wgmma_commit();
}

__device__ inline void end_group_product(strip_values &y)
{
    wgmma_wait<0>();
    wgmma_hold(y);
}

template <bool Turned, typename T>
__device__ void multiply_group(strip_values &y, const uint32_t (&a)[4][4], uint64_t matrix)
{
    begin_group_product<Turned, T>(y, a, matrix);
    end_group_product(y);
}

/* Each row times its weight, as operand a. */
template <typename T>
__device__ void pack_weighted(uint32_t (&strip)[4][4], strip_values &y, const strip_dots &weight)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            y[n][i] *= i < 2 ? weight.low : weight.high;
    pack_strip<T>(strip, y);
}

/* A strip times the transpose of a matrix, by a warpgroup. */
template <typename T> struct group_product {
    const char *matrix;
    __device__ void operator()(strip_values &y, const uint32_t (&a)[4][4]) const
    {
        multiply_group<true, T>(y, a, wgmma_tile(shared_address(matrix)));
    }
};

/* The strip times the matrix, each row times its weight. By a warpgroup. */
template <typename T = __nv_bfloat16>
__device__ void multiply_rows(uint32_t (&strip)[4][4], uint64_t matrix, const strip_dots &weight)
{
    strip_values y;
    multiply_group<false, T>(y, strip, matrix);
    pack_weighted<T>(strip, y, weight);
}

/* The sum of the strip's rows, each times its weight, of which a lane has its columns over its
 * rows.
 */
__device__ inline void add_rows(float (&sum)[8][2], const strip_values &phi,
                                const strip_dots &weight)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            sum[n][i] = fmaf(weight.low, phi[n][i], fmaf(weight.high, phi[n][i + 2], sum[n][i]));
}

#endif
#endif
