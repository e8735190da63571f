/* Arithmetic on pairs of 16-bit numbers, and powers of two that numbers take with them into f16,
 * whose range is narrow, and leave behind in f32. */
#ifndef FB_CUDA_PAIR_PRODUCTS_CUH
#define FB_CUDA_PAIR_PRODUCTS_CUH

#include "cuda_pairs.cuh"

template <typename T> struct pairs;

template <> struct pairs<__nv_bfloat16> {
    static constexpr uint32_t ones = 0x3f803f80U;
    static constexpr uint32_t minus_20 = 0xc1a0c1a0U;

    /* What is not a number stays that. */
    __device__ static void raise(uint32_t &x, uint32_t least)
    {
        asm("max.NaN.bf16x2 %0, %0, %1;" : "+r"(x) : "r"(least));
    }
    __device__ static uint32_t product(uint32_t x, uint32_t y)
    {
        uint32_t z;
        asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(z) : "r"(x), "r"(y));
        return z;
    }
    /* x y + z, rounded once */
    __device__ static uint32_t product_plus(uint32_t x, uint32_t y, uint32_t z)
    {
        asm("fma.rn.bf16x2 %0, %1, %2, %0;" : "+r"(z) : "r"(x), "r"(y));
        return z;
    }
};

template <> struct pairs<__half> {
    static constexpr uint32_t ones = 0x3c003c00U;
    static constexpr uint32_t minus_20 = 0xcd00cd00U;

    __device__ static void raise(uint32_t &x, uint32_t least)
    {
        asm("max.NaN.f16x2 %0, %0, %1;" : "+r"(x) : "r"(least));
    }
    __device__ static uint32_t product(uint32_t x, uint32_t y)
    {
        uint32_t z;
        asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(z) : "r"(x), "r"(y));
        return z;
    }
    __device__ static uint32_t product_plus(uint32_t x, uint32_t y, uint32_t z)
    {
        asm("fma.rn.f16x2 %0, %1, %2, %0;" : "+r"(z) : "r"(x), "r"(y));
        return z;
    }
};

/* What lies beyond f16 becomes its largest number, not an infinity that 0 times is not a number. */
template <typename T> __device__ float bounded(float x)
{
    return kNarrow<T> ? fminf(x, 65504.0F) : x;
}

/* 2^exponent, of -126 to 127. */
__device__ inline float two_to(int exponent)
{
    return __int_as_float((127 + exponent) << 23);
}

/* The same where it is known: of -30 to 30. */
template <int Exponent> constexpr float power()
{
    if constexpr (Exponent < 0)
        return 1.0F / (float)(1 << -Exponent);
    else
        return (float)(1 << Exponent);
}

#endif
