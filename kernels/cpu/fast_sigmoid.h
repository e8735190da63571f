/*
 * The sigmoid of many values, faster than fb_vf_sigmoid and of limited reach: 11 instead of 20
 * operations on a vector with AVX-512, 13 instead of 15 with AVX2, of which 4 need no port of the
 * multiplications. Errors are measured by tests/unit/test_vector_math.c.
 *
 *   fb_fast_sigmoid   12 ulp where it holds; NaN does not
 *
 * exp(-x) = 2^(n/B) 2^r, n = round(-B x / ln 2), |r| <= 1 / (2 B), as in fast_exp.h: B roots of 2
 * stand in registers.
 */
#ifndef FB_FAST_SIGMOID_H
#define FB_FAST_SIGMOID_H

#include "vector_math.h"

#if defined(FB_SIMD_AVX512)

/* B = 32. The roots hold the factor C of 2^r = C ((r + A)^2 + B2), relative error 1.3e-7. A is a
 * multiple of 1/32, so that the power's exponent is the floor of n/32 - A, and r + A costs nothing;
 * the roots hold what that floor takes away. One reciprocal serves four vectors; their product,
 * which is inf or NaN when a power is, must be a number whose reciprocal is normal. */
#define FB_FAST_SIGMOID_A    1.4375F
#define FB_FAST_SIGMOID_B2   2.08126001F
#define FB_FAST_SIGMOID_MOST 8.5e37F /* 2^126 */

enum { FB_FAST_SIGMOID_VECTORS = 4 };

struct fb_fast_sigmoid {
    __m512 low, high; /* C 2^(i/32), times 2^2 and, from 32 A - 32 on, 2^1 */
    __m512 products;  /* sum of those seen */
};

FB_ALWAYS_INLINE struct fb_fast_sigmoid fb_fast_sigmoid_begin(void)
{
    static const uint32_t bits[32] __attribute__((aligned(64))) = {
        0x3f76e2c4U, 0x3f7c4abaU, 0x3f80e87fU, 0x3f83bb1dU, 0x3f869d8dU, 0x3f899029U, 0x3f8c934cU,
        0x3f8fa751U, 0x3f92cc97U, 0x3f96037fU, 0x3f994c6dU, 0x3f9ca7c4U, 0x3fa015ecU, 0x3fa3974fU,
        0x3f272c59U, 0x3f2ad577U, 0x3f2e931bU, 0x3f3265b6U, 0x3f364dc0U, 0x3f3a4bafU, 0x3f3e5fffU,
        0x3f428b2cU, 0x3f46cdb9U, 0x3f4b2826U, 0x3f4f9afbU, 0x3f5426bfU, 0x3f58cbffU, 0x3f5d8b4aU,
        0x3f626531U, 0x3f675a4aU, 0x3f6c6b2dU, 0x3f719876U,
    };
    return (struct fb_fast_sigmoid){_mm512_castsi512_ps(_mm512_load_si512(bits)),
                                    _mm512_castsi512_ps(_mm512_load_si512(bits + 16)),
                                    _mm512_setzero_ps()};
}

/* Whether all values since the beginning were within reach: |x| <= 21 is. */
FB_ALWAYS_INLINE bool fb_fast_sigmoid_held(const struct fb_fast_sigmoid *s)
{
    const __m512 most = _mm512_set1_ps(FB_FAST_SIGMOID_MOST);
    return _mm512_cmp_ps_mask(s->products, most, _CMP_LE_OQ) == 0xffff;
}

/* 1 + exp(-x). */
FB_ALWAYS_INLINE __m512 fb_fast_sigmoid_denominator(const struct fb_fast_sigmoid *s, __m512 x)
{
    /* In [2^18, 2^19) a float's last bit is 1/32. */
    const float last_bit = 393216.0F;
    const __m512 minus_log2_e = _mm512_set1_ps(-1.44269504F);
    const __m512 k = _mm512_fmadd_ps(x, minus_log2_e, _mm512_set1_ps(last_bit));
    const __m512 exponent = _mm512_sub_ps(k, _mm512_set1_ps(last_bit + FB_FAST_SIGMOID_A));
    const __m512 r = _mm512_fmsub_ps(x, minus_log2_e, exponent);
    const __m512 root = _mm512_permutex2var_ps(s->low, _mm512_castps_si512(k), s->high);
    const __m512 square = _mm512_fmadd_ps(r, r, _mm512_set1_ps(FB_FAST_SIGMOID_B2));
    return _mm512_fmadd_ps(_mm512_scalef_ps(root, exponent), square, _mm512_set1_ps(1.0F));
}

/* y = sigmoid(x), FB_FAST_SIGMOID_VECTORS vectors. */
FB_ALWAYS_INLINE void fb_fast_sigmoid(struct fb_fast_sigmoid *s, const float *x, float *y)
{
    const __m512 d0 = fb_fast_sigmoid_denominator(s, _mm512_loadu_ps(x));
    const __m512 d1 = fb_fast_sigmoid_denominator(s, _mm512_loadu_ps(x + 16));
    const __m512 d2 = fb_fast_sigmoid_denominator(s, _mm512_loadu_ps(x + 32));
    const __m512 d3 = fb_fast_sigmoid_denominator(s, _mm512_loadu_ps(x + 48));
    const __m512 d01 = _mm512_mul_ps(d0, d1), d23 = _mm512_mul_ps(d2, d3);
    const __m512 product = _mm512_mul_ps(d01, d23), inverse = fb_vf_reciprocal(product);
    s->products = _mm512_add_ps(s->products, product);
    const __m512 inverse01 = _mm512_mul_ps(inverse, d23), inverse23 = _mm512_mul_ps(inverse, d01);
    _mm512_storeu_ps(y, _mm512_mul_ps(inverse01, d1));
    _mm512_storeu_ps(y + 16, _mm512_mul_ps(inverse01, d0));
    _mm512_storeu_ps(y + 32, _mm512_mul_ps(inverse23, d3));
    _mm512_storeu_ps(y + 48, _mm512_mul_ps(inverse23, d2));
}

#elif defined(FB_SIMD_AVX2)

/* B = 8, 2^r by a polynomial of degree 3, relative error 2e-8. The division works beside the
 * multiplications. k = n + 512 of 1/8 each above 1.5 * 2^20: while |n| < 512, all its bits but the
 * last ten are the same. */
#define FB_FAST_SIGMOID_CENTRE (1572864.0F + 64.0F)

enum { FB_FAST_SIGMOID_VECTORS = 1, FB_FAST_SIGMOID_BITS = 10 };

struct fb_fast_sigmoid {
    __m256 roots;  /* 2^(i/8), less what the bits of k add to the exponent and the significand */
    __m256i moved; /* bits of k that were ever different */
};

FB_ALWAYS_INLINE struct fb_fast_sigmoid fb_fast_sigmoid_begin(void)
{
    static const uint32_t bits[8] __attribute__((aligned(32))) = {
        0x1f800000U, 0x1f7b95c2U, 0x1f7837f0U, 0x1f75fed7U,
        0x1f7504f3U, 0x1f75672aU, 0x1f7744fdU, 0x1f7ac0c7U,
    };
    return (struct fb_fast_sigmoid){_mm256_load_ps((const float *)(const void *)bits),
                                    _mm256_setzero_si256()};
}

/* Whether all values since the beginning were within reach: |x| <= 44 is. */
FB_ALWAYS_INLINE bool fb_fast_sigmoid_held(const struct fb_fast_sigmoid *s)
{
    return _mm256_testz_si256(s->moved, _mm256_set1_epi32(-(1 << FB_FAST_SIGMOID_BITS))) != 0;
}

/* y = sigmoid(x), FB_FAST_SIGMOID_VECTORS vectors. */
FB_ALWAYS_INLINE void fb_fast_sigmoid(struct fb_fast_sigmoid *s, const float *from, float *y)
{
    const __m256 x = _mm256_loadu_ps(from), one = _mm256_set1_ps(1.0F);
    const __m256 minus_log2_e = _mm256_set1_ps(-1.44269504F);
    const __m256 centre = _mm256_set1_ps(FB_FAST_SIGMOID_CENTRE);
    const __m256 k = _mm256_fmadd_ps(x, minus_log2_e, centre);
    const __m256 r = _mm256_fmadd_ps(x, minus_log2_e, _mm256_sub_ps(centre, k));
    const __m256i n = _mm256_castps_si256(k);
    s->moved = _mm256_or_si256(s->moved, _mm256_xor_si256(n, _mm256_castps_si256(centre)));
    const __m256i root = _mm256_castps_si256(_mm256_permutevar8x32_ps(s->roots, n));
    const __m256 power = _mm256_castsi256_ps(_mm256_add_epi32(root, _mm256_slli_epi32(n, 20)));
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(0.055498902F), r, _mm256_set1_ps(0.24026407F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.69314718F));
    p = _mm256_fmadd_ps(p, r, one);
    _mm256_storeu_ps(y, _mm256_div_ps(one, _mm256_fmadd_ps(power, p, one)));
}

#endif

#endif
