/* What Performer's rows without a mask have beside tiles: numbers of a block, and in f16 of forward
 * what keeps roundings from adding up. See performer_cuda_fused.cuh. */
#ifndef FB_PERFORMER_CUDA_FUSED_VALUES_CUH
#define FB_PERFORMER_CUDA_FUSED_VALUES_CUH

#include "cuda_pair_products.cuh"
#include "performer_cuda_fused.cuh"

constexpr int kOutGroups = 4; /* warpgroups of a block, forward */

/* Of the features: their sums; forward, the sums over all of them of the state and of these. */
struct feature_numbers {
    alignas(16) float z[kFusedFeaturesMost], state[kFusedDim];
    float all;
    alignas(16) float bases[kOutGroups][kPanel]; /* forward: of a tile's rows */
};

/* f16, forward: the sum of v, which makes epsilon's part of every feature's state, that the state
 * then lacks: rounded with it most features would have the same numbers, whose errors would not
 * average out. And z as operand b by lanes for 16 features each, high halves in column 0, low ones
 * in column 1, ones in column 2: denominators take features as rounded as outputs do. */
struct value_numbers {
    float values[kFusedDim];
    uint2 z[kFusedFeaturesMost / 16][32];
};
template <typename T> constexpr int kValueBytes = kNarrow<T> ? (int)sizeof(value_numbers) : 0;

#if FB_HAVE_WGMMA

/* What a thread has of its rows g and g + 8; of a product c += e N that may be under way. */
template <typename T> struct out_rows {
    float c[8][4], y[2], top[2], base[2];
    float products[4]; /* f16: of features with z and ones */
    uint32_t e[4][4];
};

/* f16: what is behind a block's numbers. */
__device__ inline value_numbers &value_numbers_of(feature_numbers &numbers)
{
    return *reinterpret_cast<value_numbers *>(&numbers + 1);
}
__device__ inline const value_numbers &value_numbers_of(const feature_numbers &numbers)
{
    return *reinterpret_cast<const value_numbers *>(&numbers + 1);
}

/* The block has z since, and is not in step after. */
__device__ inline void make_products(feature_numbers &numbers, float into, int features)
{
    value_numbers &to = value_numbers_of(numbers);
    for (int i = threadIdx.x; i < features * 2; i += (int)blockDim.x) {
        const int g = i % 32 / 4, from = i / 32 * 16 + i % 4 * 2;
        uint32_t b[2];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const float x = into * numbers.z[from + 8 * k], y = into * numbers.z[from + 8 * k + 1];
            const uint32_t high = pack_pair<__half>(x, y);
            const uint32_t low =
                pack_pair<__half>(x - low_of<__half>(high), y - high_of<__half>(high));
            b[k] = g == 0 ? high : g == 1 ? low : g == 2 ? pairs<__half>::ones : 0U;
        }
        to.z[i / 32][i % 32] = make_uint2(b[0], b[1]);
    }
}

__device__ inline void add_products(const feature_numbers &numbers, int panel, out_rows<__half> &r)
{
    const value_numbers &from = value_numbers_of(numbers);
#pragma unroll
    for (int step = 0; step < 4; step++) {
        const uint2 b = from.z[4 * panel + step][threadIdx.x % 32];
        multiply<__half>(r.products, r.e[step], b.x, b.y);
    }
}

/* Of a row of the thread's: y and the sum of features, in all of its lanes. */
__device__ inline float2 products_of(const out_rows<__half> &r, int half)
{
    const int lane = (int)threadIdx.x % 32 / 4 * 4;
    const float first = r.products[2 * half], both = first + r.products[2 * half + 1];
    return make_float2(__shfl_sync(0xffffffffU, both, lane),
                       __shfl_sync(0xffffffffU, first, lane + 1));
}

/* f16: a row of c without the state's factor, and with the part of the sum of v in the state. */
__device__ inline void add_value_sums(const feature_numbers &numbers, float features, float back,
                                      int half, float (&c)[8][4])
{
    const float *values = value_numbers_of(numbers).values + threadIdx.x % 4 * 2;
    const float share = kFeatureEpsilon * features;
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float2 v = *reinterpret_cast<const float2 *>(values + 8 * n);
        c[n][2 * half] = fmaf(share, v.x, back * c[n][2 * half]);
        c[n][2 * half + 1] = fmaf(share, v.y, back * c[n][2 * half + 1]);
    }
}

#endif
#endif
