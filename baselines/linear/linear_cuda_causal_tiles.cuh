/*
 * Tiles of 64 tokens and 64 columns of bf16 or f16 (T) as a squad of four warps fetches, maps and
 * multiplies them, for linear_cuda_causal.cuh.
 */
#ifndef FB_LINEAR_CUDA_CAUSAL_TILES_CUH
#define FB_LINEAR_CUDA_CAUSAL_TILES_CUH

#include "cuda_powers.cuh"
#include "cuda_wgmma.cuh"
#include "linear_cuda.cuh"

namespace
{

template <typename T> using causal_tensor = panel_rows<T>;

#if FB_HAVE_WGMMA

/* The thread's number, anew: what follows from it is computed again instead of being kept in
 * registers, of which there are too few, or in local memory. */
__device__ inline int thread_anew()
{
    int thread = (int)threadIdx.x;
    asm volatile("" : "+r"(thread));
    return thread;
}

__device__ inline void store_matrices(uint32_t address, const uint32_t (&x)[2],
                                      const uint32_t (&y)[2])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address),
                 "r"(x[0]), "r"(x[1]), "r"(y[0]), "r"(y[1])
                 : "memory");
}

/* ---- products -------------------------------------------------------------------------------- */

constexpr int kTileUnits = panel_bf16::bytes / 16; /* of descriptions of operands */

#define FB_CAUSAL_ROWS(type)                                                                       \
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, %34, 0;\n"                                      \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {"                  \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "     \
                 "%31}, %32, %33, p, 1, 1, 0, 1;\n}"                                               \
                 : FB_WGMMA_C4(0), FB_WGMMA_C4(4)                                                  \
                 : "l"(a), "l"(b), "r"((int)fresh))

/* c[64][64] = a[64][16] b[16][64], added to c unless `fresh`. */
template <typename T>
__device__ void multiply_rows(strip_result &c, uint64_t a, uint64_t b, bool fresh)
{
    if constexpr (kNarrow<T>)
        FB_CAUSAL_ROWS("f16");
    else
        FB_CAUSAL_ROWS("bf16");
}

/* Of whole tiles: c += a^T b, c = a b, c = a b^T. */
template <typename T> __device__ void add_outer(strip_result &c, uint64_t a, uint64_t b)
{
#pragma unroll
    for (int step = 0; step < 4; step++)
        wgmma_add_turned<T>(c, a + 128 * step, b + 128 * step);
}

template <typename T> __device__ void form_straight(strip_result &c, uint64_t a, uint64_t b)
{
#pragma unroll
    for (int step = 0; step < 4; step++)
        multiply_rows<T>(c, a + 2 * step, b + 128 * step, step == 0);
}

template <typename T> __device__ void form_turned(strip_result &c, uint64_t a, uint64_t b)
{
#pragma unroll
    for (int step = 0; step < 4; step++)
        wgmma_turned<T>(c, a + 2 * step, b + 2 * step, step == 0);
}

/* A result, times a factor, as operand a of products by 64 rows. */
template <typename T> struct causal_operand {
    uint32_t x[4][4];
    __device__ void pack(const strip_result &c, float factor)
    {
#pragma unroll
        for (int step = 0; step < 4; step++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                x[step][i] = pack_pair<T>(factor * c[2 * step + i / 2][i % 2 * 2],
                                          factor * c[2 * step + i / 2][i % 2 * 2 + 1]);
    }
    /* Ones up to the diagonal. */
    __device__ void pack_triangle(int strip)
    {
        constexpr uint32_t one = kNarrow<T> ? 0x3c00U : 0x3f80U;
        const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
        for (int step = 0; step < 4; step++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = strip + g + i % 2 * 8, col = 16 * step + i / 2 * 8 + 2 * t;
                x[step][i] = (col <= row ? one : 0U) | (col < row ? one << 16 : 0U);
            }
    }
    /* c += this times a tile. */
    __device__ void multiply_into(strip_result &c, uint64_t b) const
    {
#pragma unroll
        for (int step = 0; step < 4; step++)
            wgmma_add<T>(c, x[step], b + 128 * step);
    }
};

/* Zero where the mask lets nothing through: columns behind the row, or before it. */
template <bool Before> __device__ void cut_triangle(strip_result &c, int strip)
{
    const int lane = (int)threadIdx.x % 32, row = strip + lane / 4 - lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int col = 8 * n + i % 2 - i / 2 * 8; /* both less the lane's own */
            c[n][i] = (Before ? col <= row : col >= row) ? c[n][i] : 0.0F;
        }
}

/* A strip of a result, times a factor, in 16 bits. */
template <typename T> struct causal_result {
    uint32_t x[8][2];
    __device__ causal_result(const strip_result &c, float factor)
    {
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                x[n][half] = pack_pair<T>(factor * c[n][2 * half], factor * c[n][2 * half + 1]);
    }
    /* As the warp's rows of a tile. */
    __device__ void put(char *tile, int strip) const
    {
        const lane_places at(thread_anew() % 32);
        const uint32_t rows = shared_address(tile) + (uint32_t)(strip * kRowBytes);
#pragma unroll
        for (int block = 0; block < 4; block++)
            store_matrices(rows + (at.straight ^ (uint32_t)(block << 5)), x[2 * block],
                           x[2 * block + 1]);
    }
    /* To rows of memory, through the warp's rows of a tile that nobody needs any more. */
    __device__ void leave(const causal_tensor<T> &to, char *tile, int strip, int first,
                          int count) const
    {
        put(tile, strip);
        const int lane = (int)threadIdx.x % 32, chunk = lane % 8, row = strip + lane / 8;
        const char *from = tile + chunk_offset(row, chunk);
        const char *other = tile + chunk_offset(row + 4, chunk);
        T *at = to.at(first + row, 8 * chunk);
        const int64_t step = 4 * to.stride;
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 4; i++, at += step)
            if (first + row + 4 * i < count)
                *reinterpret_cast<uint4 *>(at) = *reinterpret_cast<const uint4 *>(
                    (i % 2 == 0 ? from : other) + i / 2 * 8 * kRowBytes);
    }
};

/* ---- a panel's numbers ----------------------------------------------------------------------- */

__device__ inline float causal_power(float x) /* e to the x */
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504F));
    return y;
}

/* phi of two numbers: max(x, 0) + e^min(x, 0), of which one is 0 or 1, so that the sum of their
 * roundings is rounded once. */
template <typename T> __device__ uint32_t elu_pair(uint32_t x);
template <> __device__ inline uint32_t elu_pair<__nv_bfloat16>(uint32_t x)
{
    const uint32_t one = 0x3f803f80U;
    uint32_t below, above;
    asm("min.bf16x2 %0, %1, %2;" : "=r"(below) : "r"(x), "r"(0U));
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(above) : "r"(x), "r"(0U));
    const uint32_t power = pack_bf16(causal_power(bf16_low(below)), causal_power(bf16_high(below)));
    asm("fma.rn.bf16x2 %0, %0, %1, %2;" : "+r"(above) : "r"(one), "r"(power));
    return above;
}

template <> __device__ inline uint32_t elu_pair<__half>(uint32_t x)
{
    const uint32_t one = 0x3c003c00U;
    uint32_t below, above;
    asm("min.f16x2 %0, %1, %2;" : "=r"(below) : "r"(x), "r"(0U));
    asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(above) : "r"(x), "r"(0U));
    const uint32_t power = pack_pair<__half>(causal_power(low_of<__half>(below)),
                                             causal_power(high_of<__half>(below)));
    asm("fma.rn.f16x2 %0, %0, %1, %2;" : "+r"(above) : "r"(one), "r"(power));
    return above;
}

/* Of a tile a thread of a squad brings chunk thread % 8 of four rows, kCausalStep bytes apart. */
constexpr int kCausalStep = kPanelThreads / 8 * kRowBytes;

__device__ inline int squad_row(int i)
{
    return (int)threadIdx.x % kPanelThreads / 8 + kPanelThreads / 8 * i;
}

__device__ inline uint32_t own_chunk()
{
    const int thread = (int)threadIdx.x % kPanelThreads;
    return chunk_offset(thread / 8, thread % 8);
}

/* 64 rows from `first`, whose rows are whole, on their way; zero where nothing exists. */
template <typename T>
__device__ void fetch_panel(char *tile, const causal_tensor<T> &from, int first)
{
    const int thread = (int)threadIdx.x % kPanelThreads, row = first + thread / 8;
    const T *at = from.at(row, thread % 8 * 8);
    const int64_t step = kPanelThreads / 8 * from.stride;
    const uint32_t to = shared_address(tile) + chunk_offset(thread / 8, thread % 8);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const bool exists = row + kPanelThreads / 8 * i < from.valid;
        copy_chunk_async(to + (uint32_t)(i * kCausalStep), exists ? at + i * step : from.data,
                         exists);
    }
}

/* The features of what the thread has brought of a tile, in place; the first `left` rows exist. */
template <typename T>
__device__ void map_features(enum fb_linear_cuda_map map, char *tile, int left)
{
    if (map == FB_LINEAR_CUDA_IDENTITY)
        return;
    const int row = squad_row(0);
    char *at = tile + own_chunk();
#pragma unroll
    for (int i = 0; i < 4; i++, at += kCausalStep) {
        const uint4 x = *reinterpret_cast<const uint4 *>(at);
        if (row + kPanelThreads / 8 * i < left)
            *reinterpret_cast<uint4 *>(at) =
                make_uint4(elu_pair<T>(x.x), elu_pair<T>(x.y), elu_pair<T>(x.z), elu_pair<T>(x.w));
    }
}

__device__ inline float causal_inverse(float y)
{
    float x;
    asm("rcp.approx.f32 %0, %1;" : "=f"(x) : "f"(y));
    return y <= 0.0F ? 0.0F : x;
}

/* The slope of the map where a feature is x. */
__device__ inline float slope_at(enum fb_linear_cuda_map map, float x)
{
    return map == FB_LINEAR_CUDA_IDENTITY ? 1.0F : fminf(x, 1.0F);
}

__device__ inline void copy_number_async(float *to, const float *from, bool exists)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)),
                 "l"(from), "r"(exists ? 4 : 0));
}

/* Times the rows' inverse y and a factor. */
template <typename T> __device__ void scale_rows(char *tile, const float *y, float factor)
{
    const int row = squad_row(0);
    char *at = tile + own_chunk();
#pragma unroll
    for (int i = 0; i < 4; i++, at += kCausalStep) {
        const float inverse = factor * causal_inverse(y[row + kPanelThreads / 8 * i]);
        const uint4 x = *reinterpret_cast<const uint4 *>(at);
        const auto scaled = [&](uint32_t pair) {
            return pack_pair<T>(inverse * low_of<T>(pair), inverse * high_of<T>(pair));
        };
        *reinterpret_cast<uint4 *>(at) =
            make_uint4(scaled(x.x), scaled(x.y), scaled(x.z), scaled(x.w));
    }
}

#endif

} // namespace

#endif
