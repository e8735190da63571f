/* Strips of 16 tokens in f32 registers, as the results of products lie, for Flow-Attention with
 * heads of 64 in bf16; what is a template takes f16, too. */
#ifndef FB_FLOW_CUDA_STRIP_VALUES_CUH
#define FB_FLOW_CUDA_STRIP_VALUES_CUH

#include "flow_cuda_strip.cuh"

/* Whether a lane has nothing but numbers below -3 of a row that load_strip read, bf16. */
__device__ inline bool any_is_faint(const uint32_t (&raw)[4][4])
{
    largest_pair rows[2];
#pragma unroll
    for (int step = 0; step < 4; step++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            rows[i].see(raw[step][i], raw[step][i + 2]);
    return __any_sync(0xffffffffU, rows[0].is_faint() || rows[1].is_faint()) != 0;
}

/* phi of what load_strip read: all digits of each. */
template <typename T = __nv_bfloat16>
__device__ void map_exactly(strip_values &phi, const uint32_t (&raw)[4][4])
{
#pragma unroll
    for (int n = 0; n < 8; n++)
        map_pairs<T>(phi[n], raw[n / 2][n % 2 * 2], raw[n / 2][n % 2 * 2 + 1]);
}

/* The same in less time, see flow_cuda_sigmoids.cuh. */
template <typename T> __device__ void map_loaded(strip_values &phi, const uint32_t (&raw)[4][4])
{
    if constexpr (kNarrow<T>) {
        map_exactly<T>(phi, raw);
    } else if (!any_is_faint(raw)) {
#pragma unroll
        for (int n = 0; n < 8; n++)
            map_pairs_fast(phi[n], raw[n / 2][n % 2 * 2], raw[n / 2][n % 2 * 2 + 1]);
    } else {
        uint32_t limited[4][4];
#pragma unroll
        for (int i = 0; i < 16; i++) {
            limited[i / 4][i % 4] = raw[i / 4][i % 4];
            pairs<T>::raise(limited[i / 4][i % 4], pairs<T>::minus_20);
        }
        unpack_strip<T>(phi, limited);
        /* seldom: all pass by the same registers in a loop, so that little code lies in the way */
#pragma unroll 1
        for (int n = 0; n < 8; n++) {
            float y[4] = {phi[0][0], phi[0][1], phi[0][2], phi[0][3]};
            sigmoids(y);
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int j = 0; j < 7; j++)
                    phi[j][i] = phi[j + 1][i];
                phi[7][i] = y[i];
            }
        }
    }
}

/* phi of a strip, all digits. */
template <typename T = __nv_bfloat16>
__device__ void map_strip(strip_values &phi, uint32_t strip, const lane_places &at)
{
    uint32_t raw[4][4];
    load_strip(raw, strip, at);
    map_exactly<T>(phi, raw);
}

/* (x + eps) . (vector + eps) of every row, in all lanes. */
__device__ inline strip_dots dot_vector(const strip_values &x, const float *vector, float eps)
{
    const int t = threadIdx.x % 4;
    strip_dots sum = {};
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float2 v = *reinterpret_cast<const float2 *>(vector + 8 * n + 2 * t);
        sum.low = fmaf(x[n][0] + eps, v.x + eps, fmaf(x[n][1] + eps, v.y + eps, sum.low));
        sum.high = fmaf(x[n][2] + eps, v.x + eps, fmaf(x[n][3] + eps, v.y + eps, sum.high));
    }
    return over_quad(sum);
}

/* x . vector of every row, in all lanes. */
__device__ inline strip_dots dot_vector(const strip_values &x, const float *vector)
{
    const int t = threadIdx.x % 4;
    strip_dots sum = {};
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float2 v = *reinterpret_cast<const float2 *>(vector + 8 * n + 2 * t);
        sum.low = fmaf(x[n][0], v.x, fmaf(x[n][1], v.y, sum.low));
        sum.high = fmaf(x[n][2], v.x, fmaf(x[n][3], v.y, sum.high));
    }
    return over_quad(sum);
}

/* eps times the sum over a vector that holds eps, by the whole warp: with it and such a vector
 * x . vector becomes (x + eps) . vector. */
__device__ inline float eps_sum(const float *vector)
{
    const int lane = threadIdx.x % 32;
    float sum = vector[lane] + vector[lane + 32];
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        sum += __shfl_xor_sync(0xffffffffU, sum, step);
    return kEps * sum;
}

__device__ inline strip_dots dot_pair(const strip_values &x, const strip_values &y)
{
    strip_dots sum = {};
#pragma unroll
    for (int n = 0; n < 8; n++) {
        sum.low = fmaf(x[n][0], y[n][0], fmaf(x[n][1], y[n][1], sum.low));
        sum.high = fmaf(x[n][2], y[n][2], fmaf(x[n][3], y[n][3], sum.high));
    }
    return over_quad(sum);
}

/* The strip in the tile times the matrix, or its transpose. */
template <bool Turned, typename T = __nv_bfloat16>
__device__ void multiply_matrix(strip_values &y, const uint32_t (&a)[4][4], const char *matrix,
                                const lane_places &at)
{
    const uint32_t tile = shared_address(matrix);
#pragma unroll
    for (int step = 0; step < 4; step++)
#pragma unroll
        for (int block = 0; block < 4; block++) {
            uint32_t b[4];
            if (Turned)
                load_b_turned(b, tile + block * 16 * kRowBytes, at, step);
            else
                load_b(b, tile + step * 16 * kRowBytes, at, block);
            multiply<T>(y[2 * block], a[step], b[0], b[1]);
            multiply<T>(y[2 * block + 1], a[step], b[2], b[3]);
        }
}

/* A [64][64] matrix on its way into a tile, in the registers of so many threads. */
template <int Threads> struct matrix_rows {
    float2 pairs[kDim * kDim / 2 / Threads];

    __device__ explicit matrix_rows(const float *from)
    {
#pragma unroll
        for (int j = 0; j < kDim * kDim / 2 / Threads; j++)
            pairs[j] = reinterpret_cast<const float2 *>(from)[(int)threadIdx.x + j * Threads];
    }

    /* scale times it, as bf16 or f16. */
    template <typename T = __nv_bfloat16> __device__ void put(char *tile, float scale) const
    {
#pragma unroll
        for (int j = 0; j < kDim * kDim / 2 / Threads; j++) {
            const int i = (int)threadIdx.x + j * Threads;
            const int row = i / (kDim / 2), col = i % (kDim / 2) * 2;
            *reinterpret_cast<uint32_t *>(tile + chunk_offset(row, col / 8) + col % 8 * 2) =
                pack_pair<T>(scale * pairs[j].x, scale * pairs[j].y);
        }
    }
};

/* A strip into its rows of a tile. */
template <typename T = __nv_bfloat16>
__device__ void put_strip(char *rows, const strip_values &x, const lane_places &at)
{
#pragma unroll
    for (int n = 0; n < 8; n++) {
        char *to = rows + (at.result ^ (uint32_t)(n << 4));
        *reinterpret_cast<uint32_t *>(to) = pack_pair<T>(x[n][0], x[n][1]);
        *reinterpret_cast<uint32_t *>(to + 8 * kRowBytes) = pack_pair<T>(x[n][2], x[n][3]);
    }
}

/* Operand a into its rows of a tile. */
__device__ inline void put_packed(char *rows, const uint32_t (&a)[4][4], const lane_places &at)
{
#pragma unroll
    for (int n = 0; n < 8; n++) {
        char *to = rows + (at.result ^ (uint32_t)(n << 4));
        *reinterpret_cast<uint32_t *>(to) = a[n / 2][n % 2 * 2];
        *reinterpret_cast<uint32_t *>(to + 8 * kRowBytes) = a[n / 2][n % 2 * 2 + 1];
    }
}

/* A strip from its rows of a tile, as put_strip left it. */
template <typename T = __nv_bfloat16>
__device__ void take_strip(strip_values &x, const char *rows, const lane_places &at)
{
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const char *from = rows + (at.result ^ (uint32_t)(n << 4));
        const uint32_t low = *reinterpret_cast<const uint32_t *>(from);
        const uint32_t high = *reinterpret_cast<const uint32_t *>(from + 8 * kRowBytes);
        x[n][0] = low_of<T>(low);
        x[n][1] = high_of<T>(low);
        x[n][2] = low_of<T>(high);
        x[n][3] = high_of<T>(high);
    }
}

/* Eight numbers of a row that starts anywhere. */
__device__ inline uint4 read_entries(const __nv_bfloat16 *from)
{
    const uint16_t *bits = reinterpret_cast<const uint16_t *>(from);
    uint32_t pairs[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        pairs[i] = (uint32_t)bits[2 * i] | (uint32_t)bits[2 * i + 1] << 16;
    return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

__device__ inline void write_entries(__nv_bfloat16 *to, uint4 x)
{
    uint16_t *bits = reinterpret_cast<uint16_t *>(to);
    const uint32_t pairs[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int i = 0; i < 8; i++)
        bits[i] = (uint16_t)(pairs[i / 2] >> i % 2 * 16);
}

/* The warp's rows of a tile to memory, those that are valid. */
__device__ inline void write_strip(const head_rows<__nv_bfloat16> &out, const char *tile, int first,
                                   int valid)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int row = first + lane / 8; row < first + 16; row += 4)
        if (row < valid)
            *reinterpret_cast<uint4 *>(out.data + row * out.stride + 8 * (lane % 8)) =
                *reinterpret_cast<const uint4 *>(tile + chunk_offset(row, lane % 8));
}

__device__ inline float slope_from(float phi)
{
    return phi * (1.0F - phi);
}

template <typename T = __nv_bfloat16> __device__ uint32_t scale_two(uint32_t pair, float2 weight)
{
    return pack_bounded<T>(low_of<T>(pair) * weight.x, high_of<T>(pair) * weight.y);
}

#endif
