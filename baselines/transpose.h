/*
 * Transposes a block of floats in registers: to[c][r] = from[r][c]. The kernels keep one operand of
 * their score products transposed.
 */
#ifndef FB_TRANSPOSE_H
#define FB_TRANSPOSE_H

#include "simd.h"

#if defined(FB_SIMD_AVX512)
enum { FB_TRANSPOSE_TILE = 16 };

FB_ALWAYS_INLINE void fb_transpose_tile(const float *from, int64_t from_row, float *to,
                                        int64_t to_row)
{
    __m512 r[16];
    __m512 t[16];
    FB_UNROLL
    for (int i = 0; i < 16; i++) {
        r[i] = _mm512_loadu_ps(from + i * from_row);
    }
    /* Within each 128-bit lane: pairs of rows, then quads of rows. */
    FB_UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    FB_UNROLL
    for (int i = 0; i < 16; i += 4) {
        for (int half = 0; half < 2; half++) {
            const __m512d a = _mm512_castps_pd(t[i + half]);
            const __m512d b = _mm512_castps_pd(t[i + 2 + half]);
            r[i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    /* Lane l of r[4 g + c] now holds column 4 l + c of rows 4 g .. 4 g + 3: transpose the lanes. */
    FB_UNROLL
    for (int c = 0; c < 4; c++) {
        const __m512 even_low = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
        const __m512 odd_low = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
        const __m512 even_high = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
        const __m512 odd_high = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
        _mm512_storeu_ps(to + c * to_row, _mm512_shuffle_f32x4(even_low, even_high, 0x88));
        _mm512_storeu_ps(to + (4 + c) * to_row, _mm512_shuffle_f32x4(odd_low, odd_high, 0x88));
        _mm512_storeu_ps(to + (8 + c) * to_row, _mm512_shuffle_f32x4(even_low, even_high, 0xdd));
        _mm512_storeu_ps(to + (12 + c) * to_row, _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd));
    }
}

#elif defined(FB_SIMD_AVX2)
enum { FB_TRANSPOSE_TILE = 8 };

FB_ALWAYS_INLINE void fb_transpose_tile(const float *from, int64_t from_row, float *to,
                                        int64_t to_row)
{
    __m256 r[8];
    __m256 t[8];
    FB_UNROLL
    for (int i = 0; i < 8; i++) {
        r[i] = _mm256_loadu_ps(from + i * from_row);
    }
    FB_UNROLL
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    FB_UNROLL
    for (int i = 0; i < 8; i += 4) {
        for (int half = 0; half < 2; half++) {
            const __m256d a = _mm256_castps_pd(t[i + half]);
            const __m256d b = _mm256_castps_pd(t[i + 2 + half]);
            r[i + 2 * half] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
            r[i + 2 * half + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
        }
    }
    FB_UNROLL
    for (int c = 0; c < 4; c++) {
        _mm256_storeu_ps(to + c * to_row, _mm256_permute2f128_ps(r[c], r[4 + c], 0x20));
        _mm256_storeu_ps(to + (4 + c) * to_row, _mm256_permute2f128_ps(r[c], r[4 + c], 0x31));
    }
}

#else
enum { FB_TRANSPOSE_TILE = 4 };

FB_ALWAYS_INLINE void fb_transpose_tile(const float *from, int64_t from_row, float *to,
                                        int64_t to_row)
{
    FB_UNROLL
    for (int c = 0; c < 4; c++) {
        FB_UNROLL
        for (int r = 0; r < 4; r++) {
            to[c * to_row + r] = from[r * from_row + c];
        }
    }
}
#endif

/* Rows and columns that do not fill a tile are moved one by one; nothing else is read or written.
 */
static inline void fb_transpose(const float *from, int64_t from_row, int64_t rows, int64_t columns,
                                float *to, int64_t to_row)
{
    const int64_t whole_rows = rows / FB_TRANSPOSE_TILE * FB_TRANSPOSE_TILE;
    const int64_t whole_columns = columns / FB_TRANSPOSE_TILE * FB_TRANSPOSE_TILE;
    for (int64_t r = 0; r < whole_rows; r += FB_TRANSPOSE_TILE) {
        for (int64_t c = 0; c < whole_columns; c += FB_TRANSPOSE_TILE) {
            fb_transpose_tile(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
        }
    }
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = r < whole_rows ? whole_columns : 0; c < columns; c++) {
            to[c * to_row + r] = from[r * from_row + c];
        }
    }
}

#endif
