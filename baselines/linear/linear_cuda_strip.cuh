/*
 * Linear attention in bf16 or f16 (T) with heads of up to 64 columns, without a mask: a warp goes
 * through strips of 16 tokens by itself. Lane 4 g + t has of a strip's rows g and g + 8 the columns
 * 8 t .. 8 t + 7 and 32 + 8 t .. 32 + 8 t + 7, eight pairs a row, which it loads and stores in
 * chunks of 16 bytes and which are fragments of products whose depth and columns stand in another
 * order: pair j of lane t is at column strip_column(j, t), in results as in operands.
 *
 * f16 has neither the range of sums over a million tokens nor of what is divided by them: states,
 * and features over y, are multiplied by powers of two before they become operands, which is undone
 * in f32 (cuda_pairs.cuh).
 */
#ifndef FB_LINEAR_CUDA_STRIP_CUH
#define FB_LINEAR_CUDA_STRIP_CUH

#include "cuda_pair_products.cuh"
#include "linear_cuda.cuh"

constexpr int kStripThreads = 256;
constexpr int kStripWarps = kStripThreads / 32;
constexpr int kStripRows = 16;

__host__ __device__ inline int strip_column(int j, int t)
{
    return j / 4 * 32 + 8 * t + j % 4 * 2;
}

/* The lane's part of a strip: pairs of rows g (0) and g + 8 (1). */
struct strip_pairs {
    uint32_t x[2][8];
};

template <typename T> __device__ uint4 load_eight(const panel_rows<T> &from, int row, int col)
{
    uint4 bits = {};
    if (row >= from.valid || col >= from.dim)
        return bits;
    if (from.whole)
        return *reinterpret_cast<const uint4 *>(from.at(row, col));
    packet<T> values = {};
#pragma unroll
    for (int e = 0; e < 8; e++)
        if (col + e < from.dim)
            values.x[e] = *from.at(row, col + e);
    return *reinterpret_cast<const uint4 *>(&values);
}

template <typename T>
__device__ void load_strip(strip_pairs &to, const panel_rows<T> &from, int first)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int part = 0; part < 2; part++) {
            const uint4 bits = load_eight(from, first + g + 8 * half, 32 * part + 8 * t);
            to.x[half][4 * part] = bits.x;
            to.x[half][4 * part + 1] = bits.y;
            to.x[half][4 * part + 2] = bits.z;
            to.x[half][4 * part + 3] = bits.w;
        }
}

template <typename T>
__device__ void store_strip(const strip_pairs &x, const panel_rows<T> &to, int first)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int part = 0; part < 2; part++) {
            const int row = first + g + 8 * half, col = 32 * part + 8 * t;
            if (row >= to.valid || col >= to.dim)
                continue;
            const uint4 bits = make_uint4(x.x[half][4 * part], x.x[half][4 * part + 1],
                                          x.x[half][4 * part + 2], x.x[half][4 * part + 3]);
            if (to.whole) {
                *reinterpret_cast<uint4 *>(to.at(row, col)) = bits;
                continue;
            }
            const packet<T> values = *reinterpret_cast<const packet<T> *>(&bits);
#pragma unroll
            for (int e = 0; e < 8; e++)
                if (col + e < to.dim)
                    *to.at(row, col + e) = values.x[e];
        }
}

__device__ inline float strip_phi(enum fb_linear_cuda_map map, float x)
{
    if (map == FB_LINEAR_CUDA_ELU)
        return fmaxf(x, 0.0F) + __expf(smaller_of(x, 0.0F));
    return map == FB_LINEAR_CUDA_RELU ? larger_of(x, 0.0F) + 1e-3F : x;
}

template <typename T> __device__ uint32_t pair_phi(enum fb_linear_cuda_map map, uint32_t pair)
{
    return pack_pair<T>(strip_phi(map, low_of<T>(pair)), strip_phi(map, high_of<T>(pair)));
}

/* Likewise of a whole strip: one branch for all. */
template <typename T>
__device__ void strip_features(enum fb_linear_cuda_map map, const strip_pairs &x, strip_pairs &to)
{
    if (map == FB_LINEAR_CUDA_ELU) {
#pragma unroll
        for (int i = 0; i < 16; i++)
            to.x[i / 8][i % 8] = pair_phi<T>(FB_LINEAR_CUDA_ELU, x.x[i / 8][i % 8]);
    } else if (map == FB_LINEAR_CUDA_RELU) {
#pragma unroll
        for (int i = 0; i < 16; i++)
            to.x[i / 8][i % 8] = pair_phi<T>(FB_LINEAR_CUDA_RELU, x.x[i / 8][i % 8]);
    } else {
        to = x;
    }
}

/* ---- states as operands ---------------------------------------------------------------------- */

/* In shared memory: the state, in f32, its key sums behind it. */
constexpr int kStripStateLd = kPanel + 1;

struct strip_state {
    float state[kPanel][kStripStateLd];
    alignas(8) float key_sums[kPanel];
};

/* What a state and its key sums are multiplied by as operands. */
template <typename T> struct strip_factors {
    range_factors<T, 14> state, key_sums;
};

/* The largest number of every warp; the largest of them once the block is in step. */
__device__ inline void put_largest(float x, float (&parts)[kStripWarps])
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, step));
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = x;
}

__device__ inline float largest_of(const float (&parts)[kStripWarps])
{
    float x = parts[0];
#pragma unroll
    for (int i = 1; i < kStripWarps; i++)
        x = fmaxf(x, parts[i]);
    return x;
}

/* Adds `slots` states of `count` numbers in order. The block is in step after. */
template <typename T>
__device__ strip_factors<T> load_state(strip_state &to, const float *from, int slots, int64_t count)
{
    constexpr int each = kPanelCount / 4 / kStripThreads;
    float4 sum[each] = {};
    float key_sum = 0.0F;
    for (int s = 0; s < slots; s++) {
#pragma unroll
        for (int k = 0; k < each; k++) {
            const float4 x =
                reinterpret_cast<const float4 *>(from + s * count)[threadIdx.x + k * kStripThreads];
            sum[k].x += x.x, sum[k].y += x.y, sum[k].z += x.z, sum[k].w += x.w;
        }
        if (threadIdx.x < kPanel)
            key_sum += from[s * count + kPanelCount + threadIdx.x];
    }
#pragma unroll
    for (int k = 0; k < each; k++) {
        const int i = 4 * ((int)threadIdx.x + k * kStripThreads);
        float *row = &to.state[i / kPanel][i % kPanel];
        row[0] = sum[k].x, row[1] = sum[k].y, row[2] = sum[k].z, row[3] = sum[k].w;
    }
    if (threadIdx.x < kPanel)
        to.key_sums[threadIdx.x] = key_sum;
    if constexpr (kNarrow<T>) {
        __shared__ float tops[2][kStripWarps];
        float top = 1e-18F; /* of what is zero no factor is infinite */
#pragma unroll
        for (int k = 0; k < each; k++)
            top = fmaxf(fmaxf(top, fmaxf(fabsf(sum[k].x), fabsf(sum[k].y))),
                        fmaxf(fabsf(sum[k].z), fabsf(sum[k].w)));
        put_largest(top, tops[0]);
        put_largest(fabsf(key_sum), tops[1]);
        __syncthreads();
        return {range_factors<T, 14>(largest_of(tops[0])),
                range_factors<T, 14>(largest_of(tops[1]))};
    } else {
        __syncthreads();
        return {range_factors<T, 14>(0.0F), range_factors<T, 14>(0.0F)};
    }
}

/* b of a product of strips, as its lanes read it: [step][pair of blocks][lane]. */
struct strip_operand {
    uint4 b[4][4][32];
};

/* Columns of the product are the state's values, or its features (turned). */
template <typename T>
__device__ void make_operand(strip_operand &to, const strip_state &from,
                             const strip_factors<T> &factors, bool turned)
{
    const float into = factors.state.into;
    for (int i = threadIdx.x; i < 4 * 4 * 32; i += kStripThreads) {
        const int lane = i % 32, blocks = i / 32 % 4, step = i / 128;
        const int g = lane / 4, t = lane % 4;
        uint32_t pairs[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int depth = strip_column(2 * step + k % 2, t);
            const int col = strip_column(2 * blocks + k / 2, g / 2) + g % 2;
            pairs[k] = turned ? pack_pair<T>(into * from.state[col][depth],
                                             into * from.state[col][depth + 1])
                              : pack_pair<T>(into * from.state[depth][col],
                                             into * from.state[depth + 1][col]);
        }
        to.b[step][blocks][lane] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
}

/* c = x b; c[n] has the pairs n of the two rows: c[n][0..1] and c[n][2..3]. */
template <typename T>
__device__ void multiply_strip(strip_result &c, const strip_pairs &x, const strip_operand &b)
{
    const int lane = threadIdx.x % 32;
    clear(c);
#pragma unroll
    for (int step = 0; step < 4; step++) {
        const uint32_t a[4] = {x.x[0][2 * step], x.x[1][2 * step], x.x[0][2 * step + 1],
                               x.x[1][2 * step + 1]};
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const uint4 y = b.b[step][k][lane];
            multiply<T>(c[2 * k], a, y.x, y.y);
            multiply<T>(c[2 * k + 1], a, y.z, y.w);
        }
    }
}

/* The key sums as b: their high halves in column 0, the low ones in column 1. */
template <typename T> struct strip_vector {
    uint32_t b[4][2];
    range_factors<T, 14> factors;
    __device__ strip_vector(const float *vector, const range_factors<T, 14> &f) : factors(f)
    {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float x = factors.into * vector[strip_column(j, t)],
                        y = factors.into * vector[strip_column(j, t) + 1];
            const uint32_t high = pack_pair<T>(x, y);
            const uint32_t low = pack_pair<T>(x - low_of<T>(high), y - high_of<T>(high));
            b[j / 2][j % 2] = g == 0 ? high : g == 1 ? low : 0U;
        }
    }
    /* The products of the lane's two rows with the vector. */
    __device__ void dot(const strip_pairs &x, float (&products)[2]) const
    {
        float c[4] = {};
#pragma unroll
        for (int step = 0; step < 4; step++) {
            const uint32_t a[4] = {x.x[0][2 * step], x.x[1][2 * step], x.x[0][2 * step + 1],
                                   x.x[1][2 * step + 1]};
            multiply<T>(c, a, b[step][0], b[step][1]);
        }
        const int source = (int)threadIdx.x % 32 / 4 * 4;
        products[0] = factors.back * __shfl_sync(0xffffffffU, c[0] + c[1], source);
        products[1] = factors.back * __shfl_sync(0xffffffffU, c[2] + c[3], source);
    }
};

#endif
