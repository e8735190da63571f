/*
 * One vector of floats, any width. A kernel is written once against this header and compiled once
 * per instruction set; FB_SIMD_<ISA> chooses the type, FB_ISA_SYMBOL(name) the suffix of what the
 * file exports, FB_ISA_VALUE the enum fb_isa.
 *
 * Minimum and maximum return their second operand when either is NaN (as x86 does), so that
 * fb_vf_max(limit, x) lets a NaN in x through.
 */
#ifndef FB_SIMD_H
#define FB_SIMD_H

#include "attention.h"

#include <assert.h>
#include <math.h>

#define FB_ALWAYS_INLINE static inline __attribute__((always_inline))
#define FB_RESTRICT      __restrict

/* clang ignores GCC's pragma and would keep the accumulators of a tile in memory. */
#if defined(__clang__)
#define FB_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FB_UNROLL _Pragma("GCC unroll 16")
#endif

#define FB_PASTE_(name, suffix) name##_##suffix
#define FB_PASTE(name, suffix)  FB_PASTE_(name, suffix)
#define FB_ISA_SYMBOL(name)     FB_PASTE(name, FB_ISA_SUFFIX)

/* Added to a float below 2^22 it leaves its nearest integer in the last bits: 1.5 * 2^23. */
#define FB_VF_INTEGER 12582912.0F

#if defined(FB_SIMD_AVX512)
#include <immintrin.h>
#define FB_ISA_SUFFIX avx512
#define FB_ISA_VALUE  FB_ISA_AVX512
#define FB_VW         16
typedef __m512 fb_vf;

/* The lanes below count, 0 <= count <= FB_VW. */
FB_ALWAYS_INLINE __mmask16 fb_vf_lanes(int64_t count)
{
    assert(count >= 0 && count <= FB_VW);
    return (__mmask16)((1U << count) - 1U);
}
FB_ALWAYS_INLINE fb_vf fb_vf_zero(void)
{
    return _mm512_setzero_ps();
}
FB_ALWAYS_INLINE fb_vf fb_vf_set1(float x)
{
    return _mm512_set1_ps(x);
}
FB_ALWAYS_INLINE fb_vf fb_vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
FB_ALWAYS_INLINE fb_vf fb_vf_load_part(const float *p, int64_t count)
{
    return _mm512_maskz_loadu_ps(fb_vf_lanes(count), p);
}
FB_ALWAYS_INLINE void fb_vf_store(float *p, fb_vf x)
{
    _mm512_storeu_ps(p, x);
}
FB_ALWAYS_INLINE void fb_vf_store_part(float *p, fb_vf x, int64_t count)
{
    _mm512_mask_storeu_ps(p, fb_vf_lanes(count), x);
}
FB_ALWAYS_INLINE fb_vf fb_vf_add(fb_vf a, fb_vf b)
{
    return _mm512_add_ps(a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_sub(fb_vf a, fb_vf b)
{
    return _mm512_sub_ps(a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_mul(fb_vf a, fb_vf b)
{
    return _mm512_mul_ps(a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_div(fb_vf a, fb_vf b)
{
    return _mm512_div_ps(a, b);
}
/* a * b + c, rounded once. */
FB_ALWAYS_INLINE fb_vf fb_vf_fma(fb_vf a, fb_vf b, fb_vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
/* c - a * b, rounded once. */
FB_ALWAYS_INLINE fb_vf fb_vf_fnma(fb_vf a, fb_vf b, fb_vf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}
FB_ALWAYS_INLINE fb_vf fb_vf_max(fb_vf a, fb_vf b)
{
    return _mm512_max_ps(a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_min(fb_vf a, fb_vf b)
{
    return _mm512_min_ps(a, b);
}
FB_ALWAYS_INLINE float fb_vf_sum(fb_vf x)
{
    return _mm512_reduce_add_ps(x);
}
FB_ALWAYS_INLINE float fb_vf_hmax(fb_vf x)
{
    return _mm512_reduce_max_ps(x);
}
/* Without optimisation gcc's header makes this intrinsic a macro, whose mask of ones converts its
 * sign. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
FB_ALWAYS_INLINE fb_vf fb_vf_round(fb_vf x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#pragma GCC diagnostic pop
/* x * 2^n for integral n with |n| <= 126. */
FB_ALWAYS_INLINE fb_vf fb_vf_ldexp(fb_vf x, fb_vf n)
{
    return _mm512_scalef_ps(x, n);
}
/* 2^n, where k = n + FB_VF_INTEGER as a float and |n| <= 126; of a NaN, anything. */
FB_ALWAYS_INLINE fb_vf fb_vf_power_of_two(fb_vf k)
{
    const __m512i one = _mm512_set1_epi32(0x3f800000);
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(k), 23), one));
}
/* Per lane: a < b ? yes : no. */
FB_ALWAYS_INLINE fb_vf fb_vf_select_lt(fb_vf a, fb_vf b, fb_vf yes, fb_vf no)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
/* The lanes below count keep x, the others are zero. */
FB_ALWAYS_INLINE fb_vf fb_vf_keep(fb_vf x, int64_t count)
{
    return _mm512_maskz_mov_ps(fb_vf_lanes(count), x);
}

#elif defined(FB_SIMD_AVX2)
#include <immintrin.h>
#define FB_ISA_SUFFIX avx2
#define FB_ISA_VALUE  FB_ISA_AVX2
#define FB_VW         8
typedef __m256 fb_vf;

FB_ALWAYS_INLINE __m256i fb_vf_lanes(int64_t count)
{
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), index);
}
FB_ALWAYS_INLINE fb_vf fb_vf_zero(void)
{
    return _mm256_setzero_ps();
}
FB_ALWAYS_INLINE fb_vf fb_vf_set1(float x)
{
    return _mm256_set1_ps(x);
}
FB_ALWAYS_INLINE fb_vf fb_vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
FB_ALWAYS_INLINE fb_vf fb_vf_load_part(const float *p, int64_t count)
{
    return _mm256_maskload_ps(p, fb_vf_lanes(count));
}
FB_ALWAYS_INLINE void fb_vf_store(float *p, fb_vf x)
{
    _mm256_storeu_ps(p, x);
}
FB_ALWAYS_INLINE void fb_vf_store_part(float *p, fb_vf x, int64_t count)
{
    _mm256_maskstore_ps(p, fb_vf_lanes(count), x);
}
FB_ALWAYS_INLINE fb_vf fb_vf_add(fb_vf a, fb_vf b)
{
    return _mm256_add_ps(a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_sub(fb_vf a, fb_vf b)
{
    return _mm256_sub_ps(a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_mul(fb_vf a, fb_vf b)
{
    return _mm256_mul_ps(a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_div(fb_vf a, fb_vf b)
{
    return _mm256_div_ps(a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_fma(fb_vf a, fb_vf b, fb_vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
FB_ALWAYS_INLINE fb_vf fb_vf_fnma(fb_vf a, fb_vf b, fb_vf c)
{
    return _mm256_fnmadd_ps(a, b, c);
}
FB_ALWAYS_INLINE fb_vf fb_vf_max(fb_vf a, fb_vf b)
{
    return _mm256_max_ps(a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_min(fb_vf a, fb_vf b)
{
    return _mm256_min_ps(a, b);
}
FB_ALWAYS_INLINE float fb_vf_sum(fb_vf x)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
FB_ALWAYS_INLINE float fb_vf_hmax(fb_vf x)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
FB_ALWAYS_INLINE fb_vf fb_vf_round(fb_vf x)
{
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
FB_ALWAYS_INLINE fb_vf fb_vf_ldexp(fb_vf x, fb_vf n)
{
    const __m256i exponent =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(x, _mm256_castsi256_ps(exponent));
}
FB_ALWAYS_INLINE fb_vf fb_vf_power_of_two(fb_vf k)
{
    const __m256i one = _mm256_set1_epi32(0x3f800000);
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(k), 23), one));
}
FB_ALWAYS_INLINE fb_vf fb_vf_select_lt(fb_vf a, fb_vf b, fb_vf yes, fb_vf no)
{
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
FB_ALWAYS_INLINE fb_vf fb_vf_keep(fb_vf x, int64_t count)
{
    return _mm256_and_ps(x, _mm256_castsi256_ps(fb_vf_lanes(count)));
}

#elif defined(FB_SIMD_NEON)
#include <arm_neon.h>
#define FB_ISA_SUFFIX neon
#define FB_ISA_VALUE  FB_ISA_NEON
#define FB_VW         4
typedef float32x4_t fb_vf;

FB_ALWAYS_INLINE uint32x4_t fb_vf_lanes(int64_t count)
{
    static const uint32_t index[4] = {0, 1, 2, 3};
    return vcgtq_u32(vdupq_n_u32((uint32_t)count), vld1q_u32(index));
}
FB_ALWAYS_INLINE fb_vf fb_vf_zero(void)
{
    return vdupq_n_f32(0.0F);
}
FB_ALWAYS_INLINE fb_vf fb_vf_set1(float x)
{
    return vdupq_n_f32(x);
}
FB_ALWAYS_INLINE fb_vf fb_vf_load(const float *p)
{
    return vld1q_f32(p);
}
FB_ALWAYS_INLINE fb_vf fb_vf_load_part(const float *p, int64_t count)
{
    float lanes[4] = {0.0F, 0.0F, 0.0F, 0.0F};
    for (int64_t i = 0; i < count; i++) {
        lanes[i] = p[i];
    }
    return vld1q_f32(lanes);
}
FB_ALWAYS_INLINE void fb_vf_store(float *p, fb_vf x)
{
    vst1q_f32(p, x);
}
FB_ALWAYS_INLINE void fb_vf_store_part(float *p, fb_vf x, int64_t count)
{
    float lanes[4];
    vst1q_f32(lanes, x);
    for (int64_t i = 0; i < count; i++) {
        p[i] = lanes[i];
    }
}
FB_ALWAYS_INLINE fb_vf fb_vf_add(fb_vf a, fb_vf b)
{
    return vaddq_f32(a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_sub(fb_vf a, fb_vf b)
{
    return vsubq_f32(a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_mul(fb_vf a, fb_vf b)
{
    return vmulq_f32(a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_div(fb_vf a, fb_vf b)
{
    return vdivq_f32(a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_fma(fb_vf a, fb_vf b, fb_vf c)
{
    return vfmaq_f32(c, a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_fnma(fb_vf a, fb_vf b, fb_vf c)
{
    return vfmsq_f32(c, a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_max(fb_vf a, fb_vf b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
FB_ALWAYS_INLINE fb_vf fb_vf_min(fb_vf a, fb_vf b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
FB_ALWAYS_INLINE float fb_vf_sum(fb_vf x)
{
    return vaddvq_f32(x);
}
FB_ALWAYS_INLINE float fb_vf_hmax(fb_vf x)
{
    return vmaxvq_f32(x);
}
FB_ALWAYS_INLINE fb_vf fb_vf_round(fb_vf x)
{
    return vrndnq_f32(x);
}
FB_ALWAYS_INLINE fb_vf fb_vf_ldexp(fb_vf x, fb_vf n)
{
    const int32x4_t exponent = vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23);
    return vmulq_f32(x, vreinterpretq_f32_s32(exponent));
}
FB_ALWAYS_INLINE fb_vf fb_vf_power_of_two(fb_vf k)
{
    const int32x4_t exponent = vshlq_n_s32(vreinterpretq_s32_f32(k), 23);
    return vreinterpretq_f32_s32(vaddq_s32(exponent, vdupq_n_s32(0x3f800000)));
}
FB_ALWAYS_INLINE fb_vf fb_vf_select_lt(fb_vf a, fb_vf b, fb_vf yes, fb_vf no)
{
    return vbslq_f32(vcltq_f32(a, b), yes, no);
}
FB_ALWAYS_INLINE fb_vf fb_vf_keep(fb_vf x, int64_t count)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), fb_vf_lanes(count)));
}

#elif defined(FB_SIMD_SCALAR)
#include <string.h>
#define FB_ISA_SUFFIX scalar
#define FB_ISA_VALUE  FB_ISA_SCALAR
#define FB_VW         1
typedef float fb_vf;

FB_ALWAYS_INLINE fb_vf fb_vf_zero(void)
{
    return 0.0F;
}
FB_ALWAYS_INLINE fb_vf fb_vf_set1(float x)
{
    return x;
}
FB_ALWAYS_INLINE fb_vf fb_vf_load(const float *p)
{
    return *p;
}
FB_ALWAYS_INLINE fb_vf fb_vf_load_part(const float *p, int64_t count)
{
    return count > 0 ? *p : 0.0F;
}
FB_ALWAYS_INLINE void fb_vf_store(float *p, fb_vf x)
{
    *p = x;
}
FB_ALWAYS_INLINE void fb_vf_store_part(float *p, fb_vf x, int64_t count)
{
    if (count > 0) {
        *p = x;
    }
}
FB_ALWAYS_INLINE fb_vf fb_vf_add(fb_vf a, fb_vf b)
{
    return a + b;
}
FB_ALWAYS_INLINE fb_vf fb_vf_sub(fb_vf a, fb_vf b)
{
    return a - b;
}
FB_ALWAYS_INLINE fb_vf fb_vf_mul(fb_vf a, fb_vf b)
{
    return a * b;
}
FB_ALWAYS_INLINE fb_vf fb_vf_div(fb_vf a, fb_vf b)
{
    return a / b;
}
/* Rounded twice: processors without a fused unit would call a library function for fmaf. */
FB_ALWAYS_INLINE fb_vf fb_vf_fma(fb_vf a, fb_vf b, fb_vf c)
{
    return a * b + c;
}
FB_ALWAYS_INLINE fb_vf fb_vf_fnma(fb_vf a, fb_vf b, fb_vf c)
{
    return c - a * b;
}
FB_ALWAYS_INLINE fb_vf fb_vf_max(fb_vf a, fb_vf b)
{
    return a > b ? a : b;
}
FB_ALWAYS_INLINE fb_vf fb_vf_min(fb_vf a, fb_vf b)
{
    return a < b ? a : b;
}
FB_ALWAYS_INLINE float fb_vf_sum(fb_vf x)
{
    return x;
}
FB_ALWAYS_INLINE float fb_vf_hmax(fb_vf x)
{
    return x;
}
/* To the nearest integer for |x| < 2^22, by pushing the fraction out of the significand. */
FB_ALWAYS_INLINE fb_vf fb_vf_round(fb_vf x)
{
    const float magic = 12582912.0F; /* 1.5 * 2^23 */
    return (x + magic) - magic;
}
FB_ALWAYS_INLINE fb_vf fb_vf_ldexp(fb_vf x, fb_vf n)
{
    const int exponent = (n == n) ? (int)n : 0;
    const uint32_t bits = (uint32_t)(exponent + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return x * power;
}
FB_ALWAYS_INLINE fb_vf fb_vf_power_of_two(fb_vf k)
{
    uint32_t bits;
    memcpy(&bits, &k, sizeof bits);
    bits = (bits << 23) + 0x3f800000U;
    float power;
    memcpy(&power, &bits, sizeof power);
    return power;
}
FB_ALWAYS_INLINE fb_vf fb_vf_select_lt(fb_vf a, fb_vf b, fb_vf yes, fb_vf no)
{
    return a < b ? yes : no;
}
FB_ALWAYS_INLINE fb_vf fb_vf_keep(fb_vf x, int64_t count)
{
    return count > 0 ? x : 0.0F;
}

#else
#error "simd.h: compile with one of FB_SIMD_SCALAR, FB_SIMD_AVX2, FB_SIMD_AVX512, FB_SIMD_NEON"
#endif

/* The smallest multiple of the vector width that is at least n. */
FB_ALWAYS_INLINE int64_t fb_vf_round_up(int64_t n)
{
    return (n + FB_VW - 1) / FB_VW * FB_VW;
}

#endif
