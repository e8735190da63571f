/* Powers of two of a known exponent, for operands that f16 has no room for: see
 * cuda_pair_products.cuh. */
#ifndef FB_CUDA_POWERS_CUH
#define FB_CUDA_POWERS_CUH

#include "cuda_pair_products.cuh"

/* The exponent of the power of two that is not above x, at least 1. */
__device__ inline int exponent_of(int x)
{
    return 31 - __clz(x);
}

/* What operands are multiplied by, and what undoes it. */
template <typename T> struct power_factors {
    static constexpr float into = 1.0F, back = 1.0F;
    __device__ explicit power_factors(int)
    {
    }
};
template <> struct power_factors<__half> {
    float into, back;
    __device__ explicit power_factors(int exponent)
        : into(two_to(exponent)), back(two_to(-exponent))
    {
    }
};

#endif
