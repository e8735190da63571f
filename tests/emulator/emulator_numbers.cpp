/* Numbers of 16 bits and TF32, rounded once and to nearest as the device does. */
#include "emulator.h"

#include <immintrin.h>

namespace emulator
{

float widen(Number type, uint16_t bits)
{
    return type == Number::bf16 ? __builtin_bit_cast(float, (uint32_t)bits << 16) : _cvtsh_ss(bits);
}

void widen_eight(Number type, const void *from, float *to)
{
    const __m128i bits = _mm_loadu_si128(static_cast<const __m128i *>(from));
    __m256 x;
    if (type == Number::bf16)
        x = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    else
        x = _mm256_cvtph_ps(bits);
    _mm256_storeu_ps(to, x);
}

uint16_t narrow(Number type, float x)
{
    if (isnan(x))
        return 0x7fff;
    if (type == Number::f16)
        return (uint16_t)_mm_extract_epi16(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT),
                                           0);
    const uint32_t bits = __builtin_bit_cast(uint32_t, x);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* By way of an f32 whose last bit says that something has been cut off, so that it is not rounded
 * twice. */
static uint16_t narrow_exact(Number type, double x)
{
    float f = (float)x;
    if (isfinite(f) && (double)f != x) {
        uint32_t bits = __builtin_bit_cast(uint32_t, f);
        if (fabs((double)f) > fabs(x))
            bits -= 1;
        f = __builtin_bit_cast(float, bits | 1);
    }
    return narrow(type, f);
}

template <typename Of> static uint32_t of_halves(Of &&of)
{
    return of(0) | (uint32_t)of(16) << 16;
}

static double half_of(Number type, uint32_t pair, int shift)
{
    return (double)widen(type, (uint16_t)(pair >> shift));
}

uint32_t multiply_pair(Number type, uint32_t x, uint32_t y)
{
    return of_halves([&](int shift) {
        return narrow_exact(type, half_of(type, x, shift) * half_of(type, y, shift));
    });
}

uint32_t fma_pair(Number type, uint32_t x, uint32_t y, uint32_t z)
{
    return of_halves([&](int shift) {
        return narrow_exact(
            type, fma(half_of(type, x, shift), half_of(type, y, shift), half_of(type, z, shift)));
    });
}

static uint16_t choose(Number type, uint16_t x, uint16_t y, bool keeps_nan, bool larger)
{
    const float a = widen(type, x), b = widen(type, y);
    if (isnan(a) || isnan(b))
        return keeps_nan || (isnan(a) && isnan(b)) ? 0x7fff : isnan(a) ? y : x;
    return (larger ? a >= b : a <= b) ? x : y;
}

uint32_t max_pair(Number type, uint32_t x, uint32_t y, bool keeps_nan)
{
    return of_halves([&](int shift) {
        return choose(type, (uint16_t)(x >> shift), (uint16_t)(y >> shift), keeps_nan, true);
    });
}

uint32_t min_pair(Number type, uint32_t x, uint32_t y, bool keeps_nan)
{
    return of_halves([&](int shift) {
        return choose(type, (uint16_t)(x >> shift), (uint16_t)(y >> shift), keeps_nan, false);
    });
}

uint32_t narrow_saturated(float high, float low)
{
    const auto one = [](float x) {
        return isnan(x) ? 0x7fff : narrow(Number::f16, fmaxf(fminf(x, 65504.0F), -65504.0F));
    };
    return (uint32_t)one(low) | (uint32_t)one(high) << 16;
}

uint32_t round_tf32(float x)
{
    if (isnan(x))
        return 0x7fffffff;
    return (__builtin_bit_cast(uint32_t, x) + 0x1000) & 0xffffe000U;
}

float tanh_approx(float x)
{
    const float y = tanhf(x);
    if (!settings.rough)
        return y;
    /* the unit is off by up to 2^-11; by how much is drawn from the argument */
    const uint32_t drawn = __builtin_bit_cast(uint32_t, x) * 2654435761U;
    return y * (1.0F + ((float)(drawn >> 8) / 8388608.0F - 1.0F) * 0.00048828125F);
}

} // namespace emulator
