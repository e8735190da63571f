/*
 * Elementary functions on vectors of floats. Errors are bounds over the whole range, measured by
 * tests/unit/test_vector_math.c against double precision.
 *
 *   fb_vf_exp      2 ulp on [-87.33, 88.72]; below it 0, above it the largest power reached
 *   fb_vf_sigmoid  5 ulp for x >= -87, below it sigmoid(-87) = 1.6e-38; NaN gives NaN
 *   fb_sigmoid4    12 ulp for |x| <= 21 (AVX-512)
 *
 * exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2; exp(r) by a polynomial of degree 6
 * fitted for the least largest relative error (Remez exchange in extended precision).
 */
#ifndef FB_VECTOR_MATH_H
#define FB_VECTOR_MATH_H

#include "simd.h"

/* exp(r) = 1 + r + r^2 (C2 + C3 r + C4 r^2 + C5 r^3 + C6 r^4), relative error 3.7e-9. */
#define FB_EXP_C2      0.49999994F
#define FB_EXP_C3      0.16666521F
#define FB_EXP_C4      0.041668389F
#define FB_EXP_C5      0.0083687454F
#define FB_EXP_C6      0.0013814541F

#define FB_EXP_LOWEST  (-87.33F) /* exp of it is the smallest normal float */
#define FB_EXP_HIGHEST 88.37F    /* n = 127 is still representable */

/* exp without the check for underflow: x must be in [FB_EXP_LOWEST, FB_EXP_HIGHEST] or NaN. */
FB_ALWAYS_INLINE fb_vf fb_vf_exp_in_range(fb_vf x)
{
    const fb_vf n = fb_vf_round(fb_vf_mul(x, fb_vf_set1(1.44269504088896341F)));
    /* ln 2 in two parts, so that n * high is exact for |n| < 2^8. */
    fb_vf r = fb_vf_fnma(n, fb_vf_set1(0.693145751953125F), x);
    r = fb_vf_fnma(n, fb_vf_set1(1.42860677e-6F), r);
    fb_vf p = fb_vf_set1(FB_EXP_C6);
    p = fb_vf_fma(p, r, fb_vf_set1(FB_EXP_C5));
    p = fb_vf_fma(p, r, fb_vf_set1(FB_EXP_C4));
    p = fb_vf_fma(p, r, fb_vf_set1(FB_EXP_C3));
    p = fb_vf_fma(p, r, fb_vf_set1(FB_EXP_C2));
    p = fb_vf_fma(p, r, fb_vf_set1(1.0F));
    p = fb_vf_fma(p, r, fb_vf_set1(1.0F));
    return fb_vf_ldexp(p, n);
}

FB_ALWAYS_INLINE fb_vf fb_vf_exp(fb_vf x)
{
    const fb_vf lowest = fb_vf_set1(FB_EXP_LOWEST);
    const fb_vf inside = fb_vf_max(lowest, fb_vf_min(fb_vf_set1(FB_EXP_HIGHEST), x));
    return fb_vf_select_lt(x, lowest, fb_vf_zero(), fb_vf_exp_in_range(inside));
}

/* 1 / x to 2 ulp for normal x whose reciprocal is normal. */
FB_ALWAYS_INLINE fb_vf fb_vf_reciprocal(fb_vf x)
{
#if defined(FB_SIMD_AVX512)
    const fb_vf r = _mm512_rcp14_ps(x);
    return fb_vf_fma(fb_vf_fnma(x, r, fb_vf_set1(1.0F)), r, r);
#else
    return fb_vf_div(fb_vf_set1(1.0F), x);
#endif
}

/* 2^r = P0 + r (P1 + P2 r + P3 r^2 + P4 r^3 + P5 r^4) on |r| <= 1/2, relative error 7.5e-8. */
#define FB_POWER_P0 1.0000001F
#define FB_POWER_P1 0.69314697F
#define FB_POWER_P2 0.24022119F
#define FB_POWER_P3 0.055507135F
#define FB_POWER_P4 0.0096755642F
#define FB_POWER_P5 0.0013276449F

FB_ALWAYS_INLINE fb_vf fb_vf_sigmoid(fb_vf x)
{
    const fb_vf one = fb_vf_set1(1.0F);
    /* exp(-x) <= 2^126 keeps the reciprocal normal. */
    x = fb_vf_min(fb_vf_set1(87.0F), fb_vf_max(fb_vf_set1(-87.0F), x));
#if defined(FB_SIMD_SCALAR)
    /* Without a fused multiply-add the reduction below would lose digits. */
    return fb_vf_reciprocal(fb_vf_add(one, fb_vf_exp_in_range(fb_vf_sub(fb_vf_zero(), x))));
#else
    const fb_vf integer = fb_vf_set1(FB_VF_INTEGER);
    const fb_vf minus_log2_e = fb_vf_set1(-1.44269504F), rest = fb_vf_set1(-1.92596300e-8F);
    const fb_vf k = fb_vf_fma(x, minus_log2_e, integer);
    fb_vf r = fb_vf_fma(x, minus_log2_e, fb_vf_sub(integer, k));
    r = fb_vf_fma(x, rest, r);
    fb_vf p = fb_vf_set1(FB_POWER_P5);
    p = fb_vf_fma(p, r, fb_vf_set1(FB_POWER_P4));
    p = fb_vf_fma(p, r, fb_vf_set1(FB_POWER_P3));
    p = fb_vf_fma(p, r, fb_vf_set1(FB_POWER_P2));
    p = fb_vf_fma(p, r, fb_vf_set1(FB_POWER_P1));
    p = fb_vf_fma(p, r, fb_vf_set1(FB_POWER_P0));
    return fb_vf_reciprocal(fb_vf_fma(fb_vf_power_of_two(k), p, one));
#endif
}

#if defined(FB_SIMD_AVX512)
/* The sigmoid of four vectors at a time: 12 instead of 20 operations each.
 *
 * exp(-x) = 2^(n/32) 2^r, |r| <= 1/64. The powers of the 32nd root of 2 stand in two registers,
 * less what the last five bits of n put into the significand when n is shifted into the exponent;
 * they hold the factor C of 2^r = C ((r + A)^2 + B), relative error 1.3e-7. A is a multiple of
 * 1/32, so that r + A costs nothing. One reciprocal serves four denominators, whose product must be
 * a normal number: the caller sees to |x| <= FB_SIGMOID4_REACH. Then the error is below 6 ulp, and
 * NaN gives NaN. */
#define FB_SIGMOID4_REACH 21.0F
#define FB_SIGMOID4_A     1.4375F
#define FB_SIGMOID4_B     2.08126001F

struct fb_sigmoid4 {
    __m512 low, high; /* C 2^(i/32) */
};

FB_ALWAYS_INLINE struct fb_sigmoid4 fb_sigmoid4_table(void)
{
    static const uint32_t bits[32] __attribute__((aligned(64))) = {
        0x3e76e2c4U, 0x3e784abaU, 0x3e78e87fU, 0x3e77bb1dU, 0x3e769d8dU, 0x3e759029U, 0x3e74934cU,
        0x3e73a751U, 0x3e72cc97U, 0x3e72037fU, 0x3e714c6dU, 0x3e70a7c4U, 0x3e7015ecU, 0x3e6f974fU,
        0x3e6f2c59U, 0x3e6ed577U, 0x3e6e931bU, 0x3e6e65b6U, 0x3e6e4dc0U, 0x3e6e4bafU, 0x3e6e5fffU,
        0x3e6e8b2cU, 0x3e6ecdb9U, 0x3e6f2826U, 0x3e6f9afbU, 0x3e7026bfU, 0x3e70cbffU, 0x3e718b4aU,
        0x3e726531U, 0x3e735a4aU, 0x3e746b2dU, 0x3e759876U,
    };
    return (struct fb_sigmoid4){_mm512_castsi512_ps(_mm512_load_si512(bits)),
                                _mm512_castsi512_ps(_mm512_load_si512(bits + 16))};
}

/* 1 + exp(-x). */
FB_ALWAYS_INLINE __m512 fb_sigmoid4_denominator(struct fb_sigmoid4 table, __m512 x)
{
    /* In [2^18, 2^19) a float's last bit is 1/32. */
    const float last_bit = 393216.0F;
    const __m512 minus_log2_e = _mm512_set1_ps(-1.44269504F);
    const __m512 k = _mm512_fmadd_ps(x, minus_log2_e, _mm512_set1_ps(last_bit));
    const __m512 back = _mm512_sub_ps(_mm512_set1_ps(last_bit + FB_SIGMOID4_A), k);
    const __m512 r = _mm512_fmadd_ps(x, minus_log2_e, back);
    const __m512i n = _mm512_castps_si512(k);
    const __m512 root = _mm512_permutex2var_ps(table.low, n, table.high);
    const __m512 power =
        _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(root), _mm512_slli_epi32(n, 18)));
    const __m512 square = _mm512_fmadd_ps(r, r, _mm512_set1_ps(FB_SIGMOID4_B));
    return _mm512_fmadd_ps(power, square, _mm512_set1_ps(1.0F));
}

/* y = sigmoid(x) for 64 values; the magnitudes of x join *peak's maximum (NaN does not). */
FB_ALWAYS_INLINE void fb_sigmoid4(struct fb_sigmoid4 table, const float *x, float *y, __m512 *peak)
{
    const __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
    const __m512 x2 = _mm512_loadu_ps(x + 32), x3 = _mm512_loadu_ps(x + 48);
    enum { LARGER_MAGNITUDE = 0xb };
    *peak = _mm512_range_ps(*peak, x0, LARGER_MAGNITUDE);
    *peak = _mm512_range_ps(*peak, x1, LARGER_MAGNITUDE);
    *peak = _mm512_range_ps(*peak, x2, LARGER_MAGNITUDE);
    *peak = _mm512_range_ps(*peak, x3, LARGER_MAGNITUDE);
    const __m512 d0 = fb_sigmoid4_denominator(table, x0);
    const __m512 d1 = fb_sigmoid4_denominator(table, x1);
    const __m512 d2 = fb_sigmoid4_denominator(table, x2);
    const __m512 d3 = fb_sigmoid4_denominator(table, x3);
    const __m512 d01 = _mm512_mul_ps(d0, d1), d23 = _mm512_mul_ps(d2, d3);
    const __m512 inverse = fb_vf_reciprocal(_mm512_mul_ps(d01, d23));
    const __m512 inverse01 = _mm512_mul_ps(inverse, d23), inverse23 = _mm512_mul_ps(inverse, d01);
    _mm512_storeu_ps(y, _mm512_mul_ps(inverse01, d1));
    _mm512_storeu_ps(y + 16, _mm512_mul_ps(inverse01, d0));
    _mm512_storeu_ps(y + 32, _mm512_mul_ps(inverse23, d3));
    _mm512_storeu_ps(y + 48, _mm512_mul_ps(inverse23, d2));
}
#endif

/* elu(x) + 1: x + 1 for x > 0, exp(x) otherwise. */
FB_ALWAYS_INLINE fb_vf fb_vf_elu_plus_1(fb_vf x)
{
    const fb_vf zero = fb_vf_zero();
    const fb_vf negative = fb_vf_exp(fb_vf_min(zero, x));
    return fb_vf_select_lt(zero, x, fb_vf_add(x, fb_vf_set1(1.0F)), negative);
}

#endif
