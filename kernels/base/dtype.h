/*
 * Numbers of 16 bits: bf16 (8 bits of exponent, 7 of fraction) and f16 (5 and 10). They are dtypes
 * of storage: whatever is computed is computed in f32 or better. Widening is exact; narrowing
 * rounds to nearest, ties to even, overflows to infinity, keeps subnormals, and turns a NaN into a
 * quiet NaN of the same sign.
 */
#ifndef FB_DTYPE_H
#define FB_DTYPE_H

#include "attention.h"

#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

static inline float fb_f32_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t fb_f32_to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float fb_bf16_widen(uint16_t x)
{
    return fb_f32_from_bits((uint32_t)x << 16);
}

/* The quiet bit of a NaN is set by hand, since the carry of rounding would make some infinite. */
static inline uint16_t fb_bf16_narrow(float x)
{
    const uint32_t bits = fb_f32_to_bits(x);
    if ((bits & UINT32_C(0x7fffffff)) > UINT32_C(0x7f800000)) {
        return (uint16_t)(bits >> 16 | UINT32_C(0x40));
    }
    return (uint16_t)((bits + UINT32_C(0x7fff) + (bits >> 16 & 1U)) >> 16);
}

static inline float fb_f16_widen(uint16_t x)
{
    const uint32_t sign = (uint32_t)(x & 0x8000U) << 16;
    const uint32_t exponent = x >> 10 & 0x1fU;
    const uint32_t fraction = x & 0x3ffU;
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24 */
        const float magnitude = (float)fraction * 0x1p-24F;
        return sign != 0 ? -magnitude : magnitude;
    }
    if (exponent == 31) {
        return fb_f32_from_bits(sign | UINT32_C(0x7f800000) | fraction << 13);
    }
    return fb_f32_from_bits(sign | (exponent + 112U) << 23 | fraction << 13);
}

static inline uint16_t fb_f16_narrow(float x)
{
    const uint32_t bits = fb_f32_to_bits(x);
    const uint32_t sign = bits >> 16 & UINT32_C(0x8000);
    const uint32_t size = bits & UINT32_C(0x7fffffff);
    if (size > UINT32_C(0x7f800000)) {
        return (uint16_t)(sign | UINT32_C(0x7e00) | (size >> 13 & UINT32_C(0x3ff)));
    }
    if (size >= UINT32_C(0x477ff000)) { /* 65520, halfway from the largest number to the next */
        return (uint16_t)(sign | UINT32_C(0x7c00));
    }
    if (size < UINT32_C(0x38800000)) { /* below 2^-14: adding 1/2 leaves multiples of 2^-24 */
        const float shifted = fb_f32_from_bits(size) + 0.5F;
        return (uint16_t)(sign | (fb_f32_to_bits(shifted) - UINT32_C(0x3f000000)));
    }
    const uint32_t rounded = size + UINT32_C(0xfff) + (size >> 13 & 1U);
    return (uint16_t)(sign | ((rounded - UINT32_C(0x38000000)) >> 13));
}

/* `count` numbers of a dtype of storage to f32 and back; f32 is copied, f64 rounded. */
void fb_dtype_widen(enum fb_dtype dtype, const void *from, int64_t count, float *to);
void fb_dtype_narrow(enum fb_dtype dtype, const float *from, int64_t count, void *to);

/* Half the distance from 1 to the next number. */
double fb_dtype_roundoff(enum fb_dtype dtype);

/* Address of the row (b, h, token, 0) of a tensor of any dtype. */
static inline void *fb_tensor_row(const struct fb_tensor *t, int64_t b, int64_t h, int64_t token)
{
    const int64_t offset = b * t->stride[0] + h * t->stride[1] + token * t->stride[2];
    return (unsigned char *)t->data + offset * (int64_t)fb_dtype_bytes(t->dtype);
}

/* One element of a tensor of any dtype; exact. */
double fb_tensor_value(const struct fb_tensor *t, int64_t b, int64_t h, int64_t token, int64_t c);

#ifdef __cplusplus
}
#endif
#endif
