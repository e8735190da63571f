/*
 * Rows of a tensor of any dtype of storage as rows of floats. Rows in f32 are used where they lie;
 * others are widened into a room that the kernel provides, and narrowed back from it, a block at a
 * time, so that a kernel is written once, for floats:
 *
 *     fb_rows_load    rows to read
 *     fb_rows_open    rows to write, or to add up in the room; then
 *     fb_rows_close   rounds them into the tensor, once
 *
 * The block's data stay valid as long as the room is not used for another block.
 */
#ifndef FB_ROW_BLOCK_H
#define FB_ROW_BLOCK_H

#include "dtype.h"
#include "simd.h"

/* count rows of head h of batch element b: first, first + step, ... */
struct fb_row_range {
    int64_t b, h, first, step, count;
};

struct fb_row_block {
    float *rows;
    int64_t stride; /* in floats */
};

/* Floats of the room for so many rows; none for f32. */
static inline int64_t fb_row_room(enum fb_dtype dtype, int64_t rows, int64_t dim)
{
    return dtype == FB_F32 ? 0 : rows * fb_vf_round_up(dim);
}

/* ---- conversions: those of dtype.h, bit for bit ---------------------------------------------- */

#if defined(FB_SIMD_AVX512)
FB_ALWAYS_INLINE fb_vf fb_vf_load_bf16(const uint16_t *from)
{
    const __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)from);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
FB_ALWAYS_INLINE fb_vf fb_vf_load_f16(const uint16_t *from)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)from));
}
FB_ALWAYS_INLINE void fb_vf_store_bf16(uint16_t *to, fb_vf x)
{
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, up), 16);
    const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    _mm256_storeu_si256((__m256i *)(void *)to,
                        _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, quiet)));
}
FB_ALWAYS_INLINE void fb_vf_store_f16(uint16_t *to, fb_vf x)
{
    _mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(FB_SIMD_AVX2)
FB_ALWAYS_INLINE fb_vf fb_vf_load_bf16(const uint16_t *from)
{
    const __m128i half = _mm_loadu_si128((const __m128i *)(const void *)from);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
FB_ALWAYS_INLINE fb_vf fb_vf_load_f16(const uint16_t *from)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)from));
}
FB_ALWAYS_INLINE void fb_vf_store_bf16(uint16_t *to, fb_vf x)
{
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, up), 16);
    const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i half = _mm256_blendv_epi8(rounded, quiet, nan);
    _mm_storeu_si128((__m128i *)(void *)to, _mm_packus_epi32(_mm256_castsi256_si128(half),
                                                             _mm256_extracti128_si256(half, 1)));
}
FB_ALWAYS_INLINE void fb_vf_store_f16(uint16_t *to, fb_vf x)
{
    _mm_storeu_si128((__m128i *)(void *)to, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(FB_SIMD_NEON)
FB_ALWAYS_INLINE fb_vf fb_vf_load_bf16(const uint16_t *from)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(from)), 16));
}
FB_ALWAYS_INLINE fb_vf fb_vf_load_f16(const uint16_t *from)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
}
#else
FB_ALWAYS_INLINE fb_vf fb_vf_load_bf16(const uint16_t *from)
{
    float x;
    fb_dtype_widen(FB_BF16, from, 1, &x);
    return x;
}
FB_ALWAYS_INLINE fb_vf fb_vf_load_f16(const uint16_t *from)
{
    float x;
    fb_dtype_widen(FB_F16, from, 1, &x);
    return x;
}
#endif

/* The vector of numbers of a dtype that starts at number i. */
FB_ALWAYS_INLINE fb_vf fb_vf_load_as(const enum fb_dtype dtype, const void *from, int64_t i)
{
    switch (dtype) {
    case FB_BF16:
        return fb_vf_load_bf16((const uint16_t *)from + i);
    case FB_F16:
        return fb_vf_load_f16((const uint16_t *)from + i);
    default:
        return fb_vf_load((const float *)from + i);
    }
}

static inline void fb_row_widen(enum fb_dtype dtype, const void *from, int64_t count, float *to)
{
    int64_t i = 0;
#if !defined(FB_SIMD_SCALAR)
    const uint16_t *half = (const uint16_t *)from;
    for (; dtype == FB_BF16 && i + FB_VW <= count; i += FB_VW) {
        fb_vf_store(to + i, fb_vf_load_bf16(half + i));
    }
    for (; dtype == FB_F16 && i + FB_VW <= count; i += FB_VW) {
        fb_vf_store(to + i, fb_vf_load_f16(half + i));
    }
#endif
    const unsigned char *rest = (const unsigned char *)from + i * (int64_t)fb_dtype_bytes(dtype);
    if (i < count) {
        fb_dtype_widen(dtype, rest, count - i, to + i);
    }
}

static inline void fb_row_narrow(enum fb_dtype dtype, const float *from, int64_t count, void *to)
{
    int64_t i = 0;
#if defined(FB_SIMD_AVX512) || defined(FB_SIMD_AVX2)
    uint16_t *half = (uint16_t *)to;
    for (; dtype == FB_BF16 && i + FB_VW <= count; i += FB_VW) {
        fb_vf_store_bf16(half + i, fb_vf_load(from + i));
    }
    for (; dtype == FB_F16 && i + FB_VW <= count; i += FB_VW) {
        fb_vf_store_f16(half + i, fb_vf_load(from + i));
    }
#endif
    unsigned char *rest = (unsigned char *)to + i * (int64_t)fb_dtype_bytes(dtype);
    if (i < count) {
        fb_dtype_narrow(dtype, from + i, count - i, rest);
    }
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static inline struct fb_row_block fb_rows_open(const struct fb_tensor *t, struct fb_row_range r,
                                               float *room)
{
    if (t->dtype == FB_F32) {
        return (struct fb_row_block){fb_tensor_row_f32(t, r.b, r.h, r.first),
                                     t->stride[2] * r.step};
    }
    return (struct fb_row_block){room, fb_vf_round_up(t->shape[3])};
}

static inline struct fb_row_block fb_rows_load(const struct fb_tensor *t, struct fb_row_range r,
                                               float *room)
{
    const struct fb_row_block block = fb_rows_open(t, r, room);
    for (int64_t i = 0; t->dtype != FB_F32 && i < r.count; i++) {
        fb_row_widen(t->dtype, fb_tensor_row(t, r.b, r.h, r.first + i * r.step), t->shape[3],
                     block.rows + i * block.stride);
    }
    return block;
}

static inline void fb_rows_close(const struct fb_tensor *t, struct fb_row_range r,
                                 struct fb_row_block block)
{
    for (int64_t i = 0; t->dtype != FB_F32 && i < r.count; i++) {
        fb_row_narrow(t->dtype, block.rows + i * block.stride, t->shape[3],
                      fb_tensor_row(t, r.b, r.h, r.first + i * r.step));
    }
}

#endif
