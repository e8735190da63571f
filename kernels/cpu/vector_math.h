/*
 * Elementary functions on vectors of floats. Errors are bounds over the whole range, measured by
 * tests/unit/test_vector_math.c against double precision.
 *
 *   fb_vf_exp      2 ulp on [-87.33, 88.72]; below it 0, above it the largest power reached
 *   fb_vf_sigmoid  5 ulp for x >= -87, below it sigmoid(-87) = 1.6e-38; NaN gives NaN
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

/* elu(x) + 1: x + 1 for x > 0, exp(x) otherwise. */
FB_ALWAYS_INLINE fb_vf fb_vf_elu_plus_1(fb_vf x)
{
    const fb_vf zero = fb_vf_zero();
    const fb_vf negative = fb_vf_exp(fb_vf_min(zero, x));
    return fb_vf_select_lt(zero, x, fb_vf_add(x, fb_vf_set1(1.0F)), negative);
}

#endif
