/*
 * Products with the rows of a cache of keys and values (cache_decode.h), which are read once and
 * widened in registers. ld is the length of a row in numbers, a multiple of the vector width. In
 * 16-bit dtypes each product fetches, from `ahead` on, as much memory as it reads: that is what
 * comes after it. Rows in f32 keep the memory busy by themselves, and fetching costs them time.
 */
#ifndef FB_CACHE_ROWS_H
#define FB_CACHE_ROWS_H

#include "row_block.h"
#include "rows.h"

enum {
    CACHE_CHUNK = 4, /* vectors of a row that are added up at once */
    CACHE_FETCH_BYTES = 128
};

/* Lines come in pairs. */
FB_ALWAYS_INLINE const char *cache_fetch(const enum fb_dtype dtype, const char *ahead,
                                         int64_t bytes)
{
    for (int64_t i = 0; dtype != FB_F32 && i < bytes; i += CACHE_FETCH_BYTES) {
        __builtin_prefetch(ahead + i, 0, 2);
    }
    return ahead + bytes;
}

FB_ALWAYS_INLINE void cache_dot_as(const enum fb_dtype dtype, const void *x, int64_t ld,
                                   int64_t rows, const float *query, float *out, const char *ahead)
{
    const int64_t bytes = FB_VW * ld * (int64_t)fb_dtype_bytes(dtype);
    int64_t i = 0;
    for (; i + FB_VW <= rows; i += FB_VW) {
        ahead = cache_fetch(dtype, ahead, bytes);
        fb_vf sum[FB_VW];
        FB_UNROLL
        for (int r = 0; r < FB_VW; r++) {
            sum[r] = fb_vf_zero();
        }
        for (int64_t j = 0; j < ld; j += FB_VW) {
            const fb_vf q = fb_vf_load(query + j);
            FB_UNROLL
            for (int r = 0; r < FB_VW; r++) {
                sum[r] = fb_vf_fma(fb_vf_load_as(dtype, x, (i + r) * ld + j), q, sum[r]);
            }
        }
        fb_vf_store(out + i, fb_vf_sums(sum));
    }
    for (; i < rows; i++) {
        fb_vf sum = fb_vf_zero();
        for (int64_t j = 0; j < ld; j += FB_VW) {
            sum = fb_vf_fma(fb_vf_load_as(dtype, x, i * ld + j), fb_vf_load(query + j), sum);
        }
        out[i] = fb_vf_sum(sum);
    }
}

/* out[i] = x_i . query for each row. */
static void cache_dot(enum fb_dtype dtype, const void *x, int64_t ld, int64_t rows,
                      const float *query, float *out, const char *ahead)
{
    switch (dtype) {
    case FB_BF16:
        cache_dot_as(FB_BF16, x, ld, rows, query, out, ahead);
        break;
    case FB_F16:
        cache_dot_as(FB_F16, x, ld, rows, query, out, ahead);
        break;
    default:
        cache_dot_as(FB_F32, x, ld, rows, query, out, ahead);
        break;
    }
}

/* chunk vectors of the sum, from column j on; two rows at a time. ahead may be NULL. */
FB_ALWAYS_INLINE void cache_add_columns(const enum fb_dtype dtype, const void *x, int64_t ld,
                                        int64_t rows, const float *weight, const int chunk,
                                        int64_t j, float *sum, const char *ahead)
{
    const int64_t pair_bytes = 2 * ld * (int64_t)fb_dtype_bytes(dtype);
    fb_vf even[CACHE_CHUNK], odd[CACHE_CHUNK];
    FB_UNROLL
    for (int c = 0; c < chunk; c++) {
        even[c] = odd[c] = fb_vf_zero();
    }
    int64_t i = 0;
    for (; i + 2 <= rows; i += 2) {
        ahead = ahead == NULL ? NULL : cache_fetch(dtype, ahead, pair_bytes);
        const fb_vf w0 = fb_vf_set1(weight[i]);
        const fb_vf w1 = fb_vf_set1(weight[i + 1]);
        FB_UNROLL
        for (int c = 0; c < chunk; c++) {
            const int64_t at = i * ld + j + c * FB_VW;
            even[c] = fb_vf_fma(w0, fb_vf_load_as(dtype, x, at), even[c]);
            odd[c] = fb_vf_fma(w1, fb_vf_load_as(dtype, x, at + ld), odd[c]);
        }
    }
    if (i < rows) {
        const fb_vf w0 = fb_vf_set1(weight[i]);
        FB_UNROLL
        for (int c = 0; c < chunk; c++) {
            even[c] = fb_vf_fma(w0, fb_vf_load_as(dtype, x, i * ld + j + c * FB_VW), even[c]);
        }
    }
    FB_UNROLL
    for (int c = 0; c < chunk; c++) {
        fb_vf_store(sum + j + c * FB_VW, fb_vf_add(even[c], odd[c]));
    }
}

FB_ALWAYS_INLINE void cache_add_as(const enum fb_dtype dtype, const void *x, int64_t ld,
                                   int64_t rows, const float *weight, float *sum, const char *ahead)
{
    int64_t j = 0;
    for (; j + (int64_t)(CACHE_CHUNK * FB_VW) <= ld; j += (int64_t)(CACHE_CHUNK * FB_VW)) {
        cache_add_columns(dtype, x, ld, rows, weight, CACHE_CHUNK, j, sum, ahead);
        ahead = NULL;
    }
    for (; j < ld; j += FB_VW) {
        cache_add_columns(dtype, x, ld, rows, weight, 1, j, sum, ahead);
        ahead = NULL;
    }
}

/* sum[ld] = the sum over i of weight[i] x_i. */
static void cache_add(enum fb_dtype dtype, const void *x, int64_t ld, int64_t rows,
                      const float *weight, float *sum, const char *ahead)
{
    switch (dtype) {
    case FB_BF16:
        cache_add_as(FB_BF16, x, ld, rows, weight, sum, ahead);
        break;
    case FB_F16:
        cache_add_as(FB_F16, x, ld, rows, weight, sum, ahead);
        break;
    default:
        cache_add_as(FB_F32, x, ld, rows, weight, sum, ahead);
        break;
    }
}

#endif
