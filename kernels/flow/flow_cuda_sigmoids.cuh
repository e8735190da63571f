/*
 * Sigmoids of bf16 and f16 numbers for Flow-Attention with heads of 64.
 *
 * The special-function unit and what is around it limit passes that form phi, so where that is
 * measured bf16 takes sigma(x) = (1 + tanh(x / 2)) / 2: one operation of the unit and four
 * instructions a number. The unit's tanh is off by 2^-11, so sigmoids by 2^-12: an eighth of what
 * rounding to bf16 takes from those above 1/2, but more than that of small ones. These count for
 * little beside large ones of their token; where a token may have no large ones, and in f16, four
 * numbers take four exponentials and a reciprocal instead, which keeps all digits of each.
 */
#ifndef FB_FLOW_CUDA_SIGMOIDS_CUH
#define FB_FLOW_CUDA_SIGMOIDS_CUH

#include "cuda_pair_products.cuh"

__device__ inline float reciprocal(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ inline float power_of_two(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ inline float tangent(float x) /* hyperbolic */
{
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* For results of type T. */
template <typename T = __nv_bfloat16> __device__ float sigmoid_of(float x)
{
    return fmaf(0.5F, tangent(0.5F * x), 0.5F);
}
template <> __device__ inline float sigmoid_of<__half>(float x)
{
    return reciprocal(1.0F + power_of_two(-1.44269504F * x));
}

/* Of numbers that are not below -20, so that the product of four fits. */
__device__ inline void sigmoids(float (&x)[4])
{
    constexpr float log2e = 1.44269504F;
    float a[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        a[i] = 1.0F + power_of_two(-log2e * x[i]);
    const float low = a[0] * a[1], high = a[2] * a[3];
    const float all = reciprocal(low * high);
    const float for_low = all * high, for_high = all * low;
    x[0] = for_low * a[1];
    x[1] = for_low * a[0];
    x[2] = for_high * a[3];
    x[3] = for_high * a[2];
}

/* Two pairs as four numbers, and their sigmoids. */
template <typename T> __device__ void map_pairs(float (&y)[4], uint32_t first, uint32_t second)
{
    pairs<T>::raise(first, pairs<T>::minus_20);
    pairs<T>::raise(second, pairs<T>::minus_20);
    y[0] = low_of<T>(first);
    y[1] = high_of<T>(first);
    y[2] = low_of<T>(second);
    y[3] = high_of<T>(second);
    sigmoids(y);
}

/* The same by tangents, bf16. */
__device__ inline void map_pairs_fast(float (&y)[4], uint32_t first, uint32_t second)
{
    constexpr uint32_t half = 0x3f003f00U; /* 1/2, twice */
    const uint32_t low = pairs<__nv_bfloat16>::product(first, half);
    const uint32_t high = pairs<__nv_bfloat16>::product(second, half);
    y[0] = fmaf(0.5F, tangent(low_of<__nv_bfloat16>(low)), 0.5F);
    y[1] = fmaf(0.5F, tangent(high_of<__nv_bfloat16>(low)), 0.5F);
    y[2] = fmaf(0.5F, tangent(low_of<__nv_bfloat16>(high)), 0.5F);
    y[3] = fmaf(0.5F, tangent(high_of<__nv_bfloat16>(high)), 0.5F);
}

/* What the largest of some bf16 numbers of a token is found with: as unsigned numbers, negative
 * ones are above all others, the smallest on top. What is not a number and negative is above all.
 */
struct largest_pair {
    uint32_t bits = 0xffffffffU;

    __device__ void see(uint32_t first, uint32_t second)
    {
        bits = __vimin3_u16x2(bits, first, second);
    }

    /* All are below -3. */
    __device__ bool is_faint() const
    {
        constexpr uint32_t low = 0xc040; /* -3 */
        return (bits & 0xffffU) > low && bits > (low << 16 | 0xffffU);
    }
};

#endif
