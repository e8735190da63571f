/*
 * Sums over the triangles of a chunk's matrix of [FLOW_CHUNK][FLOW_CHUNK], for the causal gradient.
 */
#ifndef FB_FLOW_TRIANGLE_H
#define FB_FLOW_TRIANGLE_H

#include "flow_causal.h"

/* The lanes of entry that lie in the lower (j <= i) or upper (j >= i) triangle. */
FB_ALWAYS_INLINE fb_vf fb_flow_triangle_lanes(fb_vf entry, int64_t i, int64_t j, const bool lower)
{
    if (lower) {
        const int64_t seen = i + 1 > j ? flow_smaller(i + 1 - j, FB_VW) : 0;
        return fb_vf_keep(entry, seen);
    }
    const int64_t hidden = i > j ? flow_smaller(i - j, FB_VW) : 0;
    return fb_vf_sub(entry, fb_vf_keep(entry, hidden));
}

/* out[i] += sum_j matrix_ij x_j over the triangle. */
FB_ALWAYS_INLINE void fb_flow_add_row_sums(const float *matrix, int64_t rows, const float *x,
                                           const bool lower, float *out)
{
    for (int64_t i = 0; i < rows; i++) {
        fb_vf sum = fb_vf_zero();
        for (int64_t j = 0; j < rows; j += FB_VW) {
            const fb_vf entry = fb_vf_load(matrix + i * FLOW_CHUNK + j);
            sum = fb_vf_fma(fb_flow_triangle_lanes(entry, i, j, lower), fb_vf_load(x + j), sum);
        }
        out[i] += fb_vf_sum(sum);
    }
}

/* out[j] += sum_i matrix_ij y_i over the lower triangle. */
static inline void fb_flow_add_lower_column_sums(const float *matrix, int64_t rows, const float *y,
                                                 float *out)
{
    for (int64_t i = 0; i < rows; i++) {
        const fb_vf yi = fb_vf_set1(y[i]);
        for (int64_t j = 0; j <= i; j += FB_VW) {
            const fb_vf entry = fb_vf_load(matrix + i * FLOW_CHUNK + j);
            const fb_vf sum =
                fb_vf_fma(yi, fb_flow_triangle_lanes(entry, i, j, true), fb_vf_load(out + j));
            fb_vf_store(out + j, sum);
        }
    }
}

/* out[i] = sum_{u>=i} x_u. */
static inline void fb_flow_suffix_sums(const float *x, int64_t rows, float *out)
{
    float running = 0.0F;
    for (int64_t i = rows - 1; i >= 0; i--) {
        running += x[i];
        out[i] = running;
    }
}

#endif
