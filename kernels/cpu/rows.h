/*
 * Operations on blocks of rows: row i starts at x + i * stride and holds `cols` floats, cols being
 * a multiple of FB_VW and the components beyond the head dimension being zero. Blocks are small
 * enough for the first-level cache, so that each operation may walk them again.
 */
#ifndef FB_ROWS_H
#define FB_ROWS_H

#include "fast_sigmoid.h"

/* Columns handled together: as many independent chains as hide the latency of an addition. */
enum { FB_ROWS_CHUNK = 4 };

/* Lane i of the result is the sum of the lanes of x[i]. Halves, quarters, ... of two vectors change
 * places and are added, so that every addition works on whole vectors. x is overwritten. */
FB_ALWAYS_INLINE fb_vf fb_vf_sums(fb_vf x[FB_VW])
{
#if defined(FB_SIMD_AVX512)
    FB_UNROLL
    for (int i = 0; i < 8; i++) {
        x[i] = _mm512_add_ps(_mm512_mask_blend_ps(0xff00, x[i], x[i + 8]),
                             _mm512_shuffle_f32x4(x[i], x[i + 8], 0x4e));
    }
    FB_UNROLL
    for (int i = 0; i < 4; i++) {
        const fb_vf other = _mm512_mask_blend_ps(0x0f0f, x[i], x[i + 4]);
        x[i] = _mm512_add_ps(_mm512_mask_blend_ps(0xf0f0, x[i], x[i + 4]),
                             _mm512_shuffle_f32x4(other, other, 0xb1));
    }
    FB_UNROLL
    for (int i = 0; i < 2; i++) {
        x[i] = _mm512_add_ps(_mm512_mask_blend_ps(0xcccc, x[i], x[i + 2]),
                             _mm512_shuffle_ps(x[i], x[i + 2], 0x4e));
    }
    const fb_vf other = _mm512_mask_blend_ps(0x5555, x[0], x[1]);
    return _mm512_add_ps(_mm512_mask_blend_ps(0xaaaa, x[0], x[1]), _mm512_permute_ps(other, 0xb1));
#elif defined(FB_SIMD_AVX2)
    FB_UNROLL
    for (int i = 0; i < 4; i++) {
        x[i] = _mm256_add_ps(_mm256_blend_ps(x[i], x[i + 4], 0xf0),
                             _mm256_permute2f128_ps(x[i], x[i + 4], 0x21));
    }
    FB_UNROLL
    for (int i = 0; i < 2; i++) {
        x[i] = _mm256_add_ps(_mm256_blend_ps(x[i], x[i + 2], 0xcc),
                             _mm256_shuffle_ps(x[i], x[i + 2], 0x4e));
    }
    const fb_vf other = _mm256_blend_ps(x[0], x[1], 0x55);
    return _mm256_add_ps(_mm256_blend_ps(x[0], x[1], 0xaa), _mm256_permute_ps(other, 0xb1));
#elif defined(FB_SIMD_NEON)
    return vpaddq_f32(vpaddq_f32(x[0], x[1]), vpaddq_f32(x[2], x[3]));
#else
    return x[0];
#endif
}

/* The dot products of FB_VW rows with v, lane i for row i. */
FB_ALWAYS_INLINE fb_vf fb_rows_dots(const float *FB_RESTRICT x, int64_t stride, int64_t cols,
                                    const float *FB_RESTRICT v)
{
    fb_vf sum[FB_VW];
    FB_UNROLL
    for (int i = 0; i < FB_VW; i++) {
        sum[i] = fb_vf_zero();
    }
    for (int64_t j = 0; j < cols; j += FB_VW) {
        const fb_vf w = fb_vf_load(v + j);
        FB_UNROLL
        for (int i = 0; i < FB_VW; i++) {
            sum[i] = fb_vf_fma(fb_vf_load(x + i * stride + j), w, sum[i]);
        }
    }
    return fb_vf_sums(sum);
}

/* out[i] = x_i . v for each row; v has cols components. */
FB_ALWAYS_INLINE void fb_rows_dot(const float *FB_RESTRICT x, int64_t stride, int64_t rows,
                                  int64_t cols, const float *FB_RESTRICT v, float *FB_RESTRICT out)
{
    int64_t i = 0;
    for (; i + FB_VW <= rows; i += FB_VW) {
        fb_vf_store(out + i, fb_rows_dots(x + i * stride, stride, cols, v));
    }
    for (; i < rows; i++) {
        fb_vf s = fb_vf_zero();
        for (int64_t j = 0; j < cols; j += FB_VW) {
            s = fb_vf_fma(fb_vf_load(x + i * stride + j), fb_vf_load(v + j), s);
        }
        out[i] = fb_vf_sum(s);
    }
}

/* The same with two vectors in one visit: half as many rows at once, so that each is read once. */
FB_ALWAYS_INLINE void fb_rows_dot_two(const float *FB_RESTRICT x, int64_t stride, int64_t rows,
                                      int64_t cols, const float *FB_RESTRICT v,
                                      float *FB_RESTRICT out_v, const float *FB_RESTRICT w,
                                      float *FB_RESTRICT out_w)
{
    enum { GROUP = FB_VW / 2 };
    int64_t i = 0;
    for (; GROUP > 0 && i + GROUP <= rows; i += GROUP) {
        fb_vf sum[FB_VW];
        FB_UNROLL
        for (int r = 0; r < FB_VW; r++) {
            sum[r] = fb_vf_zero();
        }
        for (int64_t j = 0; j < cols; j += FB_VW) {
            const fb_vf vj = fb_vf_load(v + j), wj = fb_vf_load(w + j);
            FB_UNROLL
            for (int r = 0; r < GROUP; r++) {
                const fb_vf xj = fb_vf_load(x + (i + r) * stride + j);
                sum[r] = fb_vf_fma(xj, vj, sum[r]);
                sum[GROUP + r] = fb_vf_fma(xj, wj, sum[GROUP + r]);
            }
        }
        float dots[FB_VW];
        fb_vf_store(dots, fb_vf_sums(sum));
        for (int r = 0; r < GROUP; r++) {
            out_v[i + r] = dots[r];
            out_w[i + r] = dots[GROUP + r];
        }
    }
    fb_rows_dot(x + i * stride, stride, rows - i, cols, v, out_v + i);
    fb_rows_dot(x + i * stride, stride, rows - i, cols, w, out_w + i);
}

/* Two rows at a time: chunk independent chains each. */
FB_ALWAYS_INLINE void fb_rows_add_columns(const float *FB_RESTRICT x, int64_t stride, int64_t rows,
                                          const float *FB_RESTRICT weight, const int chunk,
                                          float *FB_RESTRICT sum)
{
    fb_vf even[FB_ROWS_CHUNK], odd[FB_ROWS_CHUNK];
    FB_UNROLL
    for (int c = 0; c < chunk; c++) {
        even[c] = odd[c] = fb_vf_zero();
    }
    int64_t i = 0;
    for (; i + 2 <= rows; i += 2) {
        const float *r = x + i * stride;
        const fb_vf w0 = fb_vf_set1(weight != NULL ? weight[i] : 1.0F);
        const fb_vf w1 = fb_vf_set1(weight != NULL ? weight[i + 1] : 1.0F);
        FB_UNROLL
        for (int c = 0; c < chunk; c++) {
            even[c] = fb_vf_fma(w0, fb_vf_load(r + c * FB_VW), even[c]);
            odd[c] = fb_vf_fma(w1, fb_vf_load(r + stride + c * FB_VW), odd[c]);
        }
    }
    if (i < rows) {
        const fb_vf w0 = fb_vf_set1(weight != NULL ? weight[i] : 1.0F);
        FB_UNROLL
        for (int c = 0; c < chunk; c++) {
            even[c] = fb_vf_fma(w0, fb_vf_load(x + i * stride + c * FB_VW), even[c]);
        }
    }
    FB_UNROLL
    for (int c = 0; c < chunk; c++) {
        const fb_vf part = fb_vf_add(even[c], odd[c]);
        fb_vf_store(sum + c * FB_VW, fb_vf_add(fb_vf_load(sum + c * FB_VW), part));
    }
}

/* sum[cols] += sum_i weight[i] x_i, weight NULL meaning ones. */
FB_ALWAYS_INLINE void fb_rows_accumulate(const float *FB_RESTRICT x, int64_t stride, int64_t rows,
                                         int64_t cols, const float *FB_RESTRICT weight,
                                         float *FB_RESTRICT sum)
{
    int64_t j = 0;
    for (; j + FB_ROWS_CHUNK * FB_VW <= cols; j += FB_ROWS_CHUNK * FB_VW) {
        fb_rows_add_columns(x + j, stride, rows, weight, FB_ROWS_CHUNK, sum + j);
    }
    for (; j < cols; j += FB_VW) {
        fb_rows_add_columns(x + j, stride, rows, weight, 1, sum + j);
    }
}

/* chunk columns of fb_rows_accumulate_and_scale. */
FB_ALWAYS_INLINE void fb_rows_add_and_scale(float *FB_RESTRICT x, int64_t stride, int64_t rows,
                                            const float *FB_RESTRICT weight,
                                            const float *FB_RESTRICT scale, const int chunk,
                                            float *FB_RESTRICT sum)
{
    fb_vf total[FB_ROWS_CHUNK];
    FB_UNROLL
    for (int c = 0; c < chunk; c++) {
        total[c] = fb_vf_zero();
    }
    for (int64_t i = 0; i < rows; i++) {
        const fb_vf w = fb_vf_set1(weight[i]), factor = fb_vf_set1(scale[i]);
        FB_UNROLL
        for (int c = 0; c < chunk; c++) {
            float *at = x + i * stride + c * FB_VW;
            const fb_vf xc = fb_vf_load(at);
            total[c] = fb_vf_fma(w, xc, total[c]);
            fb_vf_store(at, fb_vf_mul(factor, xc));
        }
    }
    FB_UNROLL
    for (int c = 0; c < chunk; c++) {
        fb_vf_store(sum + c * FB_VW, fb_vf_add(fb_vf_load(sum + c * FB_VW), total[c]));
    }
}

/* sum[cols] += sum_i weight[i] x_i, and then x_i *= scale[i], in one visit. */
FB_ALWAYS_INLINE void fb_rows_accumulate_and_scale(float *FB_RESTRICT x, int64_t stride,
                                                   int64_t rows, int64_t cols,
                                                   const float *FB_RESTRICT weight,
                                                   const float *FB_RESTRICT scale,
                                                   float *FB_RESTRICT sum)
{
    int64_t j = 0;
    for (; j + FB_ROWS_CHUNK * FB_VW <= cols; j += FB_ROWS_CHUNK * FB_VW) {
        fb_rows_add_and_scale(x + j, stride, rows, weight, scale, FB_ROWS_CHUNK, sum + j);
    }
    for (; j < cols; j += FB_VW) {
        fb_rows_add_and_scale(x + j, stride, rows, weight, scale, 1, sum + j);
    }
}

/* The maps of queries and keys that rows are passed through. */
enum fb_row_map { FB_ROW_SIGMOID, FB_ROW_RELU, FB_ROW_ELU };

/* What relu adds: the released long-range code's numerical floor. */
#define FB_ROW_RELU_FLOOR 1e-6F

FB_ALWAYS_INLINE fb_vf fb_rows_map_one(const enum fb_row_map map, fb_vf x)
{
    switch (map) {
    case FB_ROW_RELU:
        return fb_vf_add(fb_vf_max(fb_vf_zero(), x), fb_vf_set1(FB_ROW_RELU_FLOOR));
    case FB_ROW_ELU:
        return fb_vf_elu_plus_1(x);
    default:
        return fb_vf_sigmoid(x);
    }
}

FB_ALWAYS_INLINE void fb_rows_map_all(const enum fb_row_map map, const float *FB_RESTRICT x,
                                      int64_t stride, int64_t rows, int64_t dim,
                                      float *FB_RESTRICT out, int64_t out_stride)
{
    for (int64_t i = 0; i < rows; i++) {
        const float *r = x + i * stride;
        float *o = out + i * out_stride;
        int64_t j = 0;
        for (; j + FB_VW <= dim; j += FB_VW) {
            fb_vf_store(o + j, fb_rows_map_one(map, fb_vf_load(r + j)));
        }
        if (j < dim) {
            const fb_vf y = fb_rows_map_one(map, fb_vf_load_part(r + j, dim - j));
            fb_vf_store(o + j, fb_vf_keep(y, dim - j));
        }
    }
}

#if defined(FB_SIMD_AVX512) || defined(FB_SIMD_AVX2)
/* Sigmoids of rows without gaps; false when a value is beyond the fast way's reach. */
static inline bool fb_rows_sigmoid_flat(const float *FB_RESTRICT x, int64_t count,
                                        float *FB_RESTRICT out)
{
    struct fb_fast_sigmoid sigmoid = fb_fast_sigmoid_begin();
    for (int64_t i = 0; i < count; i += FB_FAST_SIGMOID_VECTORS * FB_VW) {
        fb_fast_sigmoid(&sigmoid, x + i, out + i);
    }
    return fb_fast_sigmoid_held(&sigmoid);
}

/* The same for rows that are multiples of as many vectors as are taken at a time. */
static inline bool fb_rows_sigmoid(const float *FB_RESTRICT x, int64_t stride, int64_t rows,
                                   int64_t dim, float *FB_RESTRICT out, int64_t out_stride)
{
    const int64_t step = FB_FAST_SIGMOID_VECTORS * FB_VW;
    if (stride == dim && out_stride == dim && rows * dim % step == 0) {
        return fb_rows_sigmoid_flat(x, rows * dim, out);
    }
    bool held = dim % step == 0;
    for (int64_t i = 0; i < rows && held; i++) {
        held = fb_rows_sigmoid_flat(x + i * stride, dim, out + i * out_stride);
    }
    return held;
}
#endif

/* out_i = map(x_i), dim components, the rest up to whole vectors zero. */
static inline void fb_rows_map(enum fb_row_map map, const float *x, int64_t stride, int64_t rows,
                               int64_t dim, float *out, int64_t out_stride)
{
    switch (map) {
    case FB_ROW_RELU:
        fb_rows_map_all(FB_ROW_RELU, x, stride, rows, dim, out, out_stride);
        break;
    case FB_ROW_ELU:
        fb_rows_map_all(FB_ROW_ELU, x, stride, rows, dim, out, out_stride);
        break;
    default:
#if defined(FB_SIMD_AVX512) || defined(FB_SIMD_AVX2)
        if (fb_rows_sigmoid(x, stride, rows, dim, out, out_stride)) {
            break;
        }
#endif
        fb_rows_map_all(FB_ROW_SIGMOID, x, stride, rows, dim, out, out_stride);
        break;
    }
}

/* The derivative of the map at x, without the cancellation of sigmoid (1 - sigmoid). */
FB_ALWAYS_INLINE fb_vf fb_rows_map_slope(enum fb_row_map map, fb_vf x)
{
    const fb_vf zero = fb_vf_zero(), one = fb_vf_set1(1.0F);
    switch (map) {
    case FB_ROW_RELU:
        return fb_vf_select_lt(zero, x, one, zero);
    case FB_ROW_ELU:
        return fb_vf_select_lt(zero, x, one, fb_vf_exp(fb_vf_min(zero, x)));
    default: {
        fb_vf negated = fb_vf_sub(zero, x);
        negated = fb_vf_max(fb_vf_set1(FB_EXP_LOWEST), fb_vf_min(fb_vf_set1(87.0F), negated));
        const fb_vf e = fb_vf_exp_in_range(negated);
        const fb_vf s = fb_vf_reciprocal(fb_vf_add(one, e));
        return fb_vf_mul(fb_vf_mul(e, s), s);
    }
    }
}

/* out[i] = x_i . y_i over dim components; x is padded with zeros to whole vectors, y need not be.
 */
FB_ALWAYS_INLINE void fb_rows_pair_dot(const float *FB_RESTRICT x, int64_t x_stride,
                                       const float *FB_RESTRICT y, int64_t y_stride, int64_t rows,
                                       int64_t dim, float *FB_RESTRICT out)
{
    for (int64_t i = 0; i < rows; i++) {
        const float *a = x + i * x_stride, *b = y + i * y_stride;
        fb_vf s = fb_vf_zero();
        int64_t j = 0;
        for (; j + FB_VW <= dim; j += FB_VW) {
            s = fb_vf_fma(fb_vf_load(a + j), fb_vf_load(b + j), s);
        }
        if (j < dim) {
            s = fb_vf_fma(fb_vf_load(a + j), fb_vf_load_part(b + j, dim - j), s);
        }
        out[i] = fb_vf_sum(s);
    }
}

/* out_i = weight[i] * x_i, dim components, the rest up to whole vectors zero. */
FB_ALWAYS_INLINE void fb_rows_scale(const float *FB_RESTRICT x, int64_t stride, int64_t rows,
                                    int64_t dim, const float *FB_RESTRICT weight,
                                    float *FB_RESTRICT out, int64_t out_stride)
{
    for (int64_t i = 0; i < rows; i++) {
        const float *r = x + i * stride;
        float *o = out + i * out_stride;
        const fb_vf w = fb_vf_set1(weight[i]);
        int64_t j = 0;
        for (; j + FB_VW <= dim; j += FB_VW) {
            fb_vf_store(o + j, fb_vf_mul(w, fb_vf_load(r + j)));
        }
        if (j < dim) {
            fb_vf_store(o + j, fb_vf_mul(w, fb_vf_load_part(r + j, dim - j)));
        }
    }
}

/* x_i *= weight[i] on all cols components. */
FB_ALWAYS_INLINE void fb_rows_scale_in_place(float *FB_RESTRICT x, int64_t stride, int64_t rows,
                                             int64_t cols, const float *FB_RESTRICT weight)
{
    for (int64_t i = 0; i < rows; i++) {
        const fb_vf w = fb_vf_set1(weight[i]);
        for (int64_t j = 0; j < cols; j += FB_VW) {
            float *at = x + i * stride + j;
            fb_vf_store(at, fb_vf_mul(w, fb_vf_load(at)));
        }
    }
}

/* hi += x + lo, and lo becomes the rounding error of that addition (compensated summation with
 * Knuth's two-sum, exact whatever the magnitudes). */
FB_ALWAYS_INLINE void fb_rows_carry_add(float *FB_RESTRICT hi, float *FB_RESTRICT lo,
                                        const float *FB_RESTRICT x, int64_t count)
{
    for (int64_t j = 0; j < count; j += FB_VW) {
        const fb_vf old = fb_vf_load(hi + j);
        const fb_vf y = fb_vf_add(fb_vf_load(x + j), fb_vf_load(lo + j));
        const fb_vf sum = fb_vf_add(old, y);
        const fb_vf part = fb_vf_sub(sum, old);
        const fb_vf error = fb_vf_add(fb_vf_sub(old, fb_vf_sub(sum, part)), fb_vf_sub(y, part));
        fb_vf_store(hi + j, sum);
        fb_vf_store(lo + j, error);
    }
}

FB_ALWAYS_INLINE void fb_rows_zero(float *x, int64_t count)
{
    for (int64_t j = 0; j < count; j += FB_VW) {
        fb_vf_store(x + j, fb_vf_zero());
    }
}

#if defined(FB_SIMD_AVX512) || defined(FB_SIMD_AVX2)
FB_ALWAYS_INLINE void fb_rows_transpose_4x4(const float *x, int64_t stride, float *out,
                                            int64_t out_stride)
{
    __m128 a = _mm_loadu_ps(x), b = _mm_loadu_ps(x + stride);
    __m128 c = _mm_loadu_ps(x + 2 * stride), d = _mm_loadu_ps(x + 3 * stride);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(out, a);
    _mm_storeu_ps(out + out_stride, b);
    _mm_storeu_ps(out + 2 * out_stride, c);
    _mm_storeu_ps(out + 3 * out_stride, d);
}
#else
FB_ALWAYS_INLINE void fb_rows_transpose_4x4(const float *x, int64_t stride, float *out,
                                            int64_t out_stride)
{
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            out[j * out_stride + i] = x[i * stride + j];
        }
    }
}
#endif

/* out[j * out_stride + i] = x[i * stride + j], for i < rows, j < cols. */
FB_ALWAYS_INLINE void fb_rows_transpose(const float *FB_RESTRICT x, int64_t stride, int64_t rows,
                                        int64_t cols, float *FB_RESTRICT out, int64_t out_stride)
{
    const int64_t whole_rows = rows / 4 * 4, whole_cols = cols / 4 * 4;
    for (int64_t i = 0; i < whole_rows; i += 4) {
        for (int64_t j = 0; j < whole_cols; j += 4) {
            fb_rows_transpose_4x4(x + i * stride + j, stride, out + j * out_stride + i, out_stride);
        }
    }
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = i < whole_rows ? whole_cols : 0; j < cols; j++) {
            out[j * out_stride + i] = x[i * stride + j];
        }
    }
}

#endif
