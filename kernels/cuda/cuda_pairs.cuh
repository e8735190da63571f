/*
 * Pairs of 16-bit numbers in a register, bf16 or f16, the lower one first; and powers of two that
 * bring numbers into the range of f16.
 */
#ifndef FB_CUDA_PAIRS_CUH
#define FB_CUDA_PAIRS_CUH

#include "cuda_tile.cuh"

template <typename T> __device__ uint32_t pack_pair(float low, float high);
template <> __device__ inline uint32_t pack_pair<__nv_bfloat16>(float low, float high)
{
    return pack_bf16(low, high);
}
template <> __device__ inline uint32_t pack_pair<__half>(float low, float high)
{
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}

/* The same for what may exceed f16's largest number, which then stands for it. */
template <typename T> __device__ uint32_t pack_bounded(float low, float high);
template <> __device__ inline uint32_t pack_bounded<__nv_bfloat16>(float low, float high)
{
    return pack_bf16(low, high);
}
template <> __device__ inline uint32_t pack_bounded<__half>(float low, float high)
{
    uint32_t pair;
    asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

template <typename T> __device__ float low_of(uint32_t pair);
template <> __device__ inline float low_of<__nv_bfloat16>(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}
template <> __device__ inline float low_of<__half>(uint32_t pair)
{
    return __half2float(__ushort_as_half((unsigned short)(pair & 0xffffU)));
}

template <typename T> __device__ float high_of(uint32_t pair);
template <> __device__ inline float high_of<__nv_bfloat16>(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000U);
}
template <> __device__ inline float high_of<__half>(uint32_t pair)
{
    return __half2float(__ushort_as_half((unsigned short)(pair >> 16)));
}

/* Whether numbers must be brought into the type's range: f16 ends at 65504 and loses digits below
 * 6e-5, bf16 has the exponents of f32. */
template <typename T> constexpr bool kNarrow = false;
template <> inline constexpr bool kNarrow<__half> = true;

/* Two powers of two: what numbers are multiplied by before they become operands, and what undoes it
 * afterwards. The largest of them, or a bound, comes to lie between 2^Bits and 2^(Bits + 1). */
template <typename T, int Bits> struct range_factors {
    static constexpr float into = 1.0F, back = 1.0F;
    __device__ explicit range_factors(float)
    {
    }
};
template <int Bits> struct range_factors<__half, Bits> {
    float into, back;
    __device__ explicit range_factors(float largest)
    {
        constexpr uint32_t one = 1U << 23, least = 16 * one, most = 238 * one;
        const uint32_t exponent = min(max(__float_as_uint(largest) & 0x7f800000U, least), most);
        into = __uint_as_float((254U + Bits) * one - exponent);
        back = __uint_as_float(exponent - (uint32_t)Bits * one);
    }
};

#endif
