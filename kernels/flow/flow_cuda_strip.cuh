/* What the kernels of Flow-Attention for heads of 64 share: dot products of strips of 16 rows on
 * the tensor cores. bf16; what is a template takes f16, too. */
#ifndef FB_FLOW_CUDA_STRIP_CUH
#define FB_FLOW_CUDA_STRIP_CUH

#include "cuda_strips.cuh"
#include "flow_cuda_sigmoids.cuh"
#include "flow_options.h"

constexpr float kEps = FB_FLOW_EPSILON;

/* Causally: a flow below this is faint. What eps adds to one among n tokens at hand, whose features
 * are at most one, is n 64 eps: of others 2.6e-4 at most for 32, 5e-4 for 64. That of the first
 * token is about 16. */
constexpr float kFaint = 8.0F;

/* For range_factors: scale G is at most the length times the largest value, and in f16 comes to be
 * at most 32 times that value. */
constexpr int kStateBits = 4;

template <typename T>
__device__ strip_dots dot_strip(const uint32_t (&a)[4][4], const vector_operand<T> &v)
{
    float c[4] = {}, d[4] = {}; /* two sums: half the latency */
#pragma unroll
    for (int step = 0; step < 4; step += 2) {
        multiply<T>(c, a[step], v.b[step][0], v.b[step][1]);
        multiply<T>(d, a[step + 1], v.b[step + 1][0], v.b[step + 1][1]);
    }
    return {c[0] + d[0], c[2] + d[2]};
}

/* eps times the sum over the vector of (x + eps), by the whole warp. */
__device__ inline float eps_term(const float *vector)
{
    const int lane = threadIdx.x % 32;
    float sum = vector[lane] + vector[lane + 32] + 2.0F * kEps;
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        sum += __shfl_xor_sync(0xffffffffU, sum, step);
    return kEps * sum;
}

/* What brings a vector of positive numbers, plus eps, into the range of operands: their sum comes
 * to lie between 512 and 1024, so that 1e-5 of their mean still has all digits. */
template <typename T> using vector_factors = range_factors<T, 9>;
template <typename T> __device__ vector_factors<T> vector_range(const float *vector)
{
    if constexpr (kNarrow<T>)
        return vector_factors<T>(eps_term(vector) * (1.0F / kEps));
    return vector_factors<T>(0.0F);
}

/* a whose row 0 is a weight per row of the strip. low and high: of the rows g and g + 8, in the
 * lanes with t = 0. */
template <typename T = __nv_bfloat16>
__device__ void weight_operand(uint32_t (&a)[4], float low, float high)
{
    const int lane = threadIdx.x % 32, t = lane % 4;
    const uint32_t both = pack_bounded<T>(low, high);
    const uint32_t even = __shfl_sync(0xffffffffU, both, 8 * t);
    const uint32_t odd = __shfl_sync(0xffffffffU, both, 8 * t + 4);
    a[0] = lane < 4 ? __byte_perm(even, odd, 0x5410) : 0;
    a[2] = lane < 4 ? __byte_perm(even, odd, 0x7632) : 0;
    a[1] = a[3] = 0;
}

#endif
