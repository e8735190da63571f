/*
 * What device kernels are made of: tiles of tokens in shared memory as f32, sums over their rows
 * and columns, and products of tiles on the tensor cores. Blocks have FB_TILE_THREADS threads.
 *
 * Products take f32 tiles and round their operands as the dtype of the problem asks:
 *   f32   3 x TF32: each operand is split into two TF32 numbers, three of the four products count
 *   f16   TF32, whose fraction is f16's and whose range is f32's
 *   bf16  bf16
 * and accumulate in f32.
 *
 * A tile has `cols` columns, the head dimension rounded up to 32, zero beyond it, and rows `ld` =
 * cols + 4 apart: the fragments of a product and the quads of a dot product then meet no bank
 * twice.
 */
#ifndef FB_CUDA_TILE_CUH
#define FB_CUDA_TILE_CUH

#include "attention.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

constexpr int kTileThreads = 256;
constexpr int kTileWarps = kTileThreads / 32;

/* ---- numbers --------------------------------------------------------------------------------- */

__device__ inline float to_f32(float x)
{
    return x;
}
__device__ inline float to_f32(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
__device__ inline float to_f32(__half x)
{
    return __half2float(x);
}

template <typename T> __device__ T from_f32(float x);
template <> __device__ inline float from_f32<float>(float x)
{
    return x;
}
template <> __device__ inline __nv_bfloat16 from_f32<__nv_bfloat16>(float x)
{
    return __float2bfloat16_rn(x);
}
template <> __device__ inline __half from_f32<__half>(float x)
{
    return __float2half_rn(x);
}

/* The smaller and the larger of two; not a number if one of them is none. Feature maps are made of
 * these: a model that has diverged must not look as if it had not. */
__device__ inline float smaller_of(float x, float y)
{
    float z;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}
__device__ inline float larger_of(float x, float y)
{
    float z;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}

enum class tile_products { bf16, tf32, tf32x3 };

template <typename T> constexpr tile_products products_of();
template <> constexpr tile_products products_of<float>()
{
    return tile_products::tf32x3;
}
template <> constexpr tile_products products_of<__nv_bfloat16>()
{
    return tile_products::bf16;
}
template <> constexpr tile_products products_of<__half>()
{
    return tile_products::tf32;
}

/* ---- a head of a tensor ---------------------------------------------------------------------- */

/* Rows of one head; stride in elements. */
template <typename T> struct head_rows {
    T *data;
    int64_t stride;
};

struct tensor_view {
    void *data;
    int64_t stride_b, stride_h, stride_n;
};

static inline tensor_view view_of(const struct fb_tensor &t)
{
    return {t.data, t.stride[0], t.stride[1], t.stride[2]};
}

template <typename T>
__device__ head_rows<T> rows_of(const tensor_view &view, int64_t b, int64_t h, int64_t first)
{
    return {static_cast<T *>(view.data) + b * view.stride_b + h * view.stride_h +
                first * view.stride_n,
            view.stride_n};
}

/* ---- loading --------------------------------------------------------------------------------- */

/* 16 bytes of a row, as f32. */
template <typename T> struct row_chunk {
    static constexpr int count = 16 / (int)sizeof(T);
    __device__ static void load(const T *from, float (&to)[count])
    {
        union {
            uint4 bits;
            T values[count];
        } chunk;
        chunk.bits = *reinterpret_cast<const uint4 *>(from);
#pragma unroll
        for (int i = 0; i < count; i++)
            to[i] = to_f32(chunk.values[i]);
    }
};

/* tile[row][col] = map(x[row][col]) for the first `rows` rows and `dim` columns, 0 elsewhere in
 * tile_rows x cols. */
template <typename T, typename Map>
__device__ void load_tile(float *tile, int ld, int tile_rows, int cols, head_rows<const T> x,
                          int rows, int dim, Map map)
{
    constexpr int wide = row_chunk<T>::count;
    const bool aligned =
        dim % wide == 0 && x.stride % wide == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
    const int per_row = cols / wide;
    for (int i = threadIdx.x; i < tile_rows * per_row; i += kTileThreads) {
        const int row = i / per_row, col = i % per_row * wide;
        float values[wide] = {};
        const T *from = x.data + row * x.stride + col;
        if (row < rows && aligned && col < dim) {
            row_chunk<T>::load(from, values);
#pragma unroll
            for (int k = 0; k < wide; k++)
                values[k] = map(values[k]);
        } else if (row < rows) {
#pragma unroll
            for (int k = 0; k < wide; k++)
                values[k] = col + k < dim ? map(to_f32(from[k])) : 0.0F;
        }
#pragma unroll
        for (int k = 0; k < wide; k++)
            tile[row * ld + col + k] = values[k];
    }
}

/* ---- sums over rows and columns -------------------------------------------------------------- */

/* out[row] = sum over the dim columns of (tile + eps)(vector + eps); four threads per row. */
__device__ inline void dot_rows(const float *tile, int ld, int tile_rows, int dim,
                                const float *vector, float eps, float *out)
{
    for (int i = threadIdx.x; i < 4 * tile_rows; i += kTileThreads) {
        const int row = i / 4, part = i % 4;
        float sum = 0.0F;
        for (int c = part; c < dim; c += 4)
            sum = fmaf(tile[row * ld + c] + eps, vector[c] + eps, sum);
        sum += __shfl_xor_sync(0xffffffffU, sum, 1);
        sum += __shfl_xor_sync(0xffffffffU, sum, 2);
        if (part == 0)
            out[row] = sum;
    }
}

/* out[row] = sum of the row's columns (those beyond dim are 0). */
__device__ inline void sum_rows(const float *tile, int ld, int tile_rows, int dim, float *out)
{
    for (int i = threadIdx.x; i < 4 * tile_rows; i += kTileThreads) {
        const int row = i / 4, part = i % 4;
        float sum = 0.0F;
        for (int c = part; c < dim; c += 4)
            sum += tile[row * ld + c];
        sum += __shfl_xor_sync(0xffffffffU, sum, 1);
        sum += __shfl_xor_sync(0xffffffffU, sum, 2);
        if (part == 0)
            out[row] = sum;
    }
}

/* A sum that keeps what rounding takes away (Kahan). */
struct careful_sum {
    float value, error;
    __device__ void add(float x)
    {
        const float y = x - error;
        const float t = value + y;
        error = (t - value) - y;
        value = t;
    }
    __device__ void scale(float factor)
    {
        value *= factor;
        error *= factor;
    }
};

/* Each thread's part of the column `threadIdx.x % cols` of a tile: every groups-th row, times a
 * weight per row (NULL: 1) times the tile plus eps. cols divides kTileThreads. */
__device__ inline float column_part(const float *tile, int ld, int tile_rows, int cols,
                                    const float *weight, float eps)
{
    const int col = threadIdx.x % cols, group = threadIdx.x / cols, groups = kTileThreads / cols;
    float sum = 0.0F;
    for (int row = group; row < tile_rows; row += groups)
        sum = fmaf(weight == nullptr ? 1.0F : weight[row], tile[row * ld + col] + eps, sum);
    return sum;
}

/* The threads' parts of every column, added in order: out[col]. buffer: kTileThreads floats. The
 * block must be in step before, and is after. */
__device__ inline void join_columns(float part, int cols, float *buffer, float *out)
{
    const int groups = kTileThreads / cols;
    buffer[threadIdx.x] = part;
    __syncthreads();
    if ((int)threadIdx.x < cols) {
        float sum = 0.0F;
        for (int g = 0; g < groups; g++)
            sum += buffer[g * cols + threadIdx.x];
        out[threadIdx.x] = sum;
    }
    __syncthreads();
}

/* ---- products -------------------------------------------------------------------------------- */

__device__ inline uint32_t round_tf32(float x)
{
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

__device__ inline uint32_t pack_bf16(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}

__device__ inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void mma_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* A matrix in shared memory by the distances between its rows and between its columns: a transposed
 * tile is the same tile with the two exchanged. */
struct operand {
    const float *data;
    int row, col;
    __device__ float at(int r, int c) const
    {
        return data[r * row + c * col];
    }
};

/* A number as operands of TF32 products, which leave out the 13 lowest bits: rounded by half of
 * what is left out, or cut in two. Cheaper than conversions, which are several instructions. (What
 * is not a number has all bits set, to which nothing may be added.) */
template <tile_products P> struct tf32_parts {
    uint32_t high, low;
    __device__ explicit tf32_parts(float x)
    {
        constexpr uint32_t kept = 0xffffe000U, half = 0x1000U;
        high = __float_as_uint(x);
        low = 0;
        if (P == tile_products::tf32) {
            high += isnan(x) ? 0U : half;
        } else {
            high &= kept;
            low = __float_as_uint(x - __uint_as_float(high)) + half;
        }
    }
};

constexpr int kColumnsPerWarp = 32; /* of a product's result */

/* c[16][8 N] += a[16][depth] b[depth][8 N] by one warp, a and b from their rows and columns given.
 */
template <tile_products P, int N>
__device__ void warp_product(float (&c)[N][4], const operand &a, int a_row, const operand &b,
                             int b_col, int depth)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    if constexpr (P == tile_products::bf16) {
        for (int k = 0; k < depth; k += 16) {
            uint32_t x[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int r = a_row + g + i % 2 * 8, s = k + 2 * t + i / 2 * 8;
                x[i] = pack_bf16(a.at(r, s), a.at(r, s + 1));
            }
#pragma unroll
            for (int n = 0; n < N; n++) {
                uint32_t y[2];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int s = k + 2 * t + i * 8, col = b_col + n * 8 + g;
                    y[i] = pack_bf16(b.at(s, col), b.at(s + 1, col));
                }
                mma_bf16(c[n], x, y);
            }
        }
    } else {
        for (int k = 0; k < depth; k += 8) {
            uint32_t x[4], x_low[4], y[N][2], y_low[N][2];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const tf32_parts<P> parts(a.at(a_row + g + i % 2 * 8, k + t + i / 2 * 4));
                x[i] = parts.high;
                x_low[i] = parts.low;
            }
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const tf32_parts<P> parts(b.at(k + t + i * 4, b_col + n * 8 + g));
                    y[n][i] = parts.high;
                    y_low[n][i] = parts.low;
                }
            /* one term of every column after the other: none waits for the one before it */
            if constexpr (P == tile_products::tf32x3) {
#pragma unroll
                for (int n = 0; n < N; n++)
                    mma_tf32(c[n], x_low, y[n]);
#pragma unroll
                for (int n = 0; n < N; n++)
                    mma_tf32(c[n], x, y_low[n]);
            }
#pragma unroll
            for (int n = 0; n < N; n++)
                mma_tf32(c[n], x, y[n]);
        }
    }
}

/* result[rows][cols] = a[rows][depth] b[depth][cols] by the whole block: rows a multiple of 16,
 * cols of 32, depth of 16. emit(row, col, value) gets each element once. Neither waits for the
 * block. */
template <tile_products P, typename Emit>
__device__ void block_product(int rows, int cols, int depth, const operand &a, const operand &b,
                              Emit emit)
{
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int strips = rows / 16, parts = strips * (cols / kColumnsPerWarp);
    for (int part = warp; part < parts; part += kTileWarps) {
        const int row = part % strips * 16, col = part / strips * kColumnsPerWarp;
        float c[4][4] = {};
        warp_product<P>(c, a, row, b, col, depth);
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                emit(row + g + i / 2 * 8, col + n * 8 + 2 * t + i % 2, c[n][i]);
    }
}

__host__ __device__ inline int round_up(int64_t x, int64_t to)
{
    return (int)((x + to - 1) / to * to);
}

#endif
