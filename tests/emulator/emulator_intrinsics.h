/* The functions of CUDA C++ that kernels call: variables of a thread, warps, numbers, memory. The
 * end of emulator_device.h. */
#ifndef FB_EMULATOR_INTRINSICS_H
#define FB_EMULATOR_INTRINSICS_H

#include "emulator_device.h"

extern dim3 gridDim, blockDim; /* of the launch that runs */
#define threadIdx (::emulator::place->thread)
#define blockIdx  (::emulator::place->block)

/* Masks are all lanes' in these kernels; the translator refuses others. */
template <typename T> inline T __shfl_sync(unsigned, T x, int lane, int width = 32, EMULATOR_SITE)
{
    return emulator::shuffle_any(emulator::Shuffle::index, x, lane, width, site);
}

template <typename T> inline T __shfl_up_sync(unsigned, T x, int by, int width = 32, EMULATOR_SITE)
{
    return emulator::shuffle_any(emulator::Shuffle::up, x, by, width, site);
}

template <typename T>
inline T __shfl_down_sync(unsigned, T x, int by, int width = 32, EMULATOR_SITE)
{
    return emulator::shuffle_any(emulator::Shuffle::down, x, by, width, site);
}

template <typename T>
inline T __shfl_xor_sync(unsigned, T x, int mask, int width = 32, EMULATOR_SITE)
{
    return emulator::shuffle_any(emulator::Shuffle::exclusive_or, x, mask, width, site);
}

inline int __any_sync(unsigned, int predicate, EMULATOR_SITE)
{
    return (int)emulator::vote(emulator::Vote::any, predicate != 0, site);
}

inline int __all_sync(unsigned, int predicate, EMULATOR_SITE)
{
    return (int)emulator::vote(emulator::Vote::all, predicate != 0, site);
}

inline unsigned __ballot_sync(unsigned, int predicate, EMULATOR_SITE)
{
    return emulator::vote(emulator::Vote::ballot, predicate != 0, site);
}

inline void __syncwarp(unsigned = 0xffffffffU, EMULATOR_SITE)
{
    emulator::sync_warp(site);
}

inline void __syncthreads(EMULATOR_SITE)
{
    emulator::sync_threads(site);
}

/* Fibers take turns only where they wait: memory is always in order. */
inline void __threadfence()
{
}

inline void __threadfence_block()
{
}

inline void __threadfence_system()
{
}

inline uint32_t __cvta_generic_to_shared(const void *p, EMULATOR_SITE)
{
    return emulator::shared_address_of(p, site);
}

inline int __clz(int x)
{
    return x == 0 ? 32 : __builtin_clz((unsigned)x);
}

inline int __clzll(long long x)
{
    return x == 0 ? 64 : __builtin_clzll((unsigned long long)x);
}

inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

inline uint32_t __float_as_uint(float x)
{
    return __builtin_bit_cast(uint32_t, x);
}

inline int __float_as_int(float x)
{
    return __builtin_bit_cast(int, x);
}

inline float __uint_as_float(uint32_t x)
{
    return __builtin_bit_cast(float, x);
}

inline float __int_as_float(int x)
{
    return __builtin_bit_cast(float, x);
}

inline int __float2int_rn(float x)
{
    if (isnan(x))
        return 0;
    if (x >= 2147483648.0F)
        return 2147483647;
    return x <= -2147483648.0F ? -2147483647 - 1 : (int)rintf(x);
}

inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t selector)
{
    const uint64_t bytes = (uint64_t)y << 32 | x;
    uint32_t result = 0;
    for (int i = 0; i < 4; i++) {
        const uint32_t chosen = selector >> (4 * i) & 15;
        uint32_t byte = (uint32_t)(bytes >> (8 * (chosen & 7))) & 0xff;
        if (chosen & 8) /* its sign, eight times */
            byte = byte & 0x80 ? 0xff : 0;
        result |= byte << (8 * i);
    }
    return result;
}

inline uint32_t __vimin3_u16x2(uint32_t a, uint32_t b, uint32_t c)
{
    return std::min({a >> 16, b >> 16, c >> 16}) << 16 |
           std::min({a & 0xffff, b & 0xffff, c & 0xffff});
}

/* Macros: the C library has functions of some of these names. */
#define __expf(x)        expf(x)
#define __fdividef(x, y) ((x) / (y))
#define __fmul_rn(x, y)  (::emulator_rounded_product((x), (y)))

/* Not to be fused with a sum. */
__attribute__((noinline)) inline float emulator_rounded_product(float x, float y)
{
    return x * y;
}

inline float rsqrtf(float x)
{
    return 1.0F / sqrtf(x);
}

template <typename T> inline T __ldg(const T *p)
{
    return *p;
}

template <typename T> inline T __ldcg(const T *p)
{
    return *p;
}

template <typename T> inline T __ldcs(const T *p)
{
    return *p;
}

template <typename T> inline void __stcs(T *p, T x)
{
    *p = x;
}

template <typename T> inline void __stcg(T *p, T x)
{
    *p = x;
}

template <typename T> inline T atomicAdd(T *p, T x)
{
    const T before = *p;
    *p += x;
    return before;
}

#define EMULATOR_MIN_MAX(T)                                                                        \
    inline T min(T x, T y)                                                                         \
    {                                                                                              \
        return x < y ? x : y;                                                                      \
    }                                                                                              \
    inline T max(T x, T y)                                                                         \
    {                                                                                              \
        return x > y ? x : y;                                                                      \
    }
EMULATOR_MIN_MAX(int)
EMULATOR_MIN_MAX(unsigned)
EMULATOR_MIN_MAX(long)
EMULATOR_MIN_MAX(unsigned long)
EMULATOR_MIN_MAX(long long)
EMULATOR_MIN_MAX(unsigned long long)

inline float min(float x, float y)
{
    return fminf(x, y);
}

inline float max(float x, float y)
{
    return fmaxf(x, y);
}

inline double min(double x, double y)
{
    return fmin(x, y);
}

inline double max(double x, double y)
{
    return fmax(x, y);
}

#endif
