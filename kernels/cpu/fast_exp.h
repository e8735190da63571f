/*
 * exp for the weights of a softmax and for features: ten operations on a vector instead of
 * eighteen. Errors are measured by tests/unit/test_fast_exp.c.
 *
 *   fb_vf_exp_fast   |error| <= (2.5e-7 + 1.4e-8 |x|) exp(x) on [FB_EXP_LOWEST, FB_EXP_HIGHEST];
 *                    below it exp(FB_EXP_LOWEST), a number that no sum notices; NaN gives NaN
 *
 * exp(x) = 2^(n/B) 2^r, n = round(B x / ln 2), |r| <= 1 / (2 B), 2^r by a polynomial (Remez
 * exchange). B roots of 2 stand in registers, less what the last bits of n put into the significand
 * when n is shifted into the exponent. In a float of [2^e, 2^(e+1)), e = 23 - log2 B, the last bit
 * is 1/B, so that adding 1.5 * 2^e rounds to n and leaves it in the bits.
 */
#ifndef FB_FAST_EXP_H
#define FB_FAST_EXP_H

#include "vector_math.h"

#define FB_FAST_EXP_LOG2_E 1.44269504F

#if defined(FB_SIMD_AVX512)
static const uint32_t fb_fast_exp_roots[32] __attribute__((aligned(64))) = {
    0x3f800000U, 0x3f7ecd87U, 0x3f7daac3U, 0x3f7c980fU, 0x3f7b95c2U, 0x3f7aa43aU, 0x3f79c3d3U,
    0x3f78f4f0U, 0x3f7837f0U, 0x3f778d3aU, 0x3f76f532U, 0x3f767043U, 0x3f75fed7U, 0x3f75a15bU,
    0x3f75583fU, 0x3f7523f6U, 0x3f7504f3U, 0x3f74fbafU, 0x3f7508a4U, 0x3f752c4dU, 0x3f75672aU,
    0x3f75b9beU, 0x3f76248cU, 0x3f76a81eU, 0x3f7744fdU, 0x3f77fbb8U, 0x3f78ccdfU, 0x3f79b907U,
    0x3f7ac0c7U, 0x3f7be4baU, 0x3f7d257dU, 0x3f7e83b3U,
};

FB_ALWAYS_INLINE fb_vf fb_vf_exp_fast(fb_vf x)
{
    const __m512 low = _mm512_castsi512_ps(_mm512_load_si512(fb_fast_exp_roots));
    const __m512 high = _mm512_castsi512_ps(_mm512_load_si512(fb_fast_exp_roots + 16));
    const __m512 log2_e = _mm512_set1_ps(FB_FAST_EXP_LOG2_E);
    const __m512 last_bit = _mm512_set1_ps(393216.0F); /* 1.5 * 2^18 */
    x = _mm512_max_ps(_mm512_set1_ps(FB_EXP_LOWEST), x);
    const __m512 k = _mm512_fmadd_ps(x, log2_e, last_bit);
    const __m512 r = _mm512_fmadd_ps(x, log2_e, _mm512_sub_ps(last_bit, k));
    const __m512i n = _mm512_castps_si512(k);
    const __m512i root = _mm512_castps_si512(_mm512_permutex2var_ps(low, n, high));
    const __m512 power = _mm512_castsi512_ps(_mm512_add_epi32(root, _mm512_slli_epi32(n, 18)));
    const __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0.24022475F), r, _mm512_set1_ps(0.69315732F));
    return _mm512_mul_ps(power, _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F)));
}

#elif defined(FB_SIMD_AVX2)
static const uint32_t fb_fast_exp_roots[8] __attribute__((aligned(32))) = {
    0x3f800000U, 0x3f7b95c2U, 0x3f7837f0U, 0x3f75fed7U,
    0x3f7504f3U, 0x3f75672aU, 0x3f7744fdU, 0x3f7ac0c7U,
};

FB_ALWAYS_INLINE fb_vf fb_vf_exp_fast(fb_vf x)
{
    const __m256 roots = _mm256_load_ps((const float *)(const void *)fb_fast_exp_roots);
    const __m256 log2_e = _mm256_set1_ps(FB_FAST_EXP_LOG2_E);
    const __m256 last_bit = _mm256_set1_ps(1572864.0F); /* 1.5 * 2^20 */
    x = _mm256_max_ps(_mm256_set1_ps(FB_EXP_LOWEST), x);
    const __m256 k = _mm256_fmadd_ps(x, log2_e, last_bit);
    const __m256 r = _mm256_fmadd_ps(x, log2_e, _mm256_sub_ps(last_bit, k));
    const __m256i n = _mm256_castps_si256(k);
    const __m256i root = _mm256_castps_si256(_mm256_permutevar8x32_ps(roots, n));
    const __m256 power = _mm256_castsi256_ps(_mm256_add_epi32(root, _mm256_slli_epi32(n, 20)));
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(0.055498902F), r, _mm256_set1_ps(0.24026407F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.69314718F));
    return _mm256_mul_ps(power, _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F)));
}

#else
FB_ALWAYS_INLINE fb_vf fb_vf_exp_fast(fb_vf x)
{
    return fb_vf_exp_in_range(fb_vf_max(fb_vf_set1(FB_EXP_LOWEST), x));
}
#endif

#endif
