/*
 * The last step of a gradient with respect to queries or keys: rows that are sums of a few row
 * vectors and rank-one terms, times the slope of phi at the raw input.
 */
#ifndef FB_FLOW_COMBINE_H
#define FB_FLOW_COMBINE_H

#include "rows.h"

/* out_i = (w0_i base_i + w1_i v1 + w2_i v2 + w3_i v3 + constant [+ second_i + lift_i]) phi'(x_i),
 * or that added to out_i. Rows have dim components; base may be out. */
struct flow_combination {
    enum fb_row_map map;
    int64_t dim;
    const float *base;
    int64_t base_stride;
    const float *second; /* NULL: none */
    int64_t second_stride;
    const float *lift;       /* a scalar per row, added to every component; NULL: none */
    const float *weights[4]; /* scalars per row */
    const float *vectors[3]; /* whole vectors, for weights 1..3 */
    const float *constant;
    const float *x; /* the raw queries or keys */
    int64_t x_stride;
    float *out;
    int64_t out_stride;
    bool add;
};

static inline void fb_flow_combine(const struct flow_combination *c, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++) {
        const fb_vf w0 = fb_vf_set1(c->weights[0][i]), w1 = fb_vf_set1(c->weights[1][i]);
        const fb_vf w2 = fb_vf_set1(c->weights[2][i]), w3 = fb_vf_set1(c->weights[3][i]);
        const fb_vf lift = fb_vf_set1(c->lift == NULL ? 0.0F : c->lift[i]);
        for (int64_t j = 0; j < c->dim; j += FB_VW) {
            const int64_t rest = c->dim - j, lanes = rest < FB_VW ? rest : FB_VW;
            const fb_vf base = fb_vf_load_part(c->base + i * c->base_stride + j, lanes);
            fb_vf sum = fb_vf_fma(w0, base, fb_vf_add(lift, fb_vf_load(c->constant + j)));
            sum = fb_vf_fma(w1, fb_vf_load(c->vectors[0] + j), sum);
            sum = fb_vf_fma(w2, fb_vf_load(c->vectors[1] + j), sum);
            sum = fb_vf_fma(w3, fb_vf_load(c->vectors[2] + j), sum);
            if (c->second != NULL) {
                const float *second = c->second + i * c->second_stride + j;
                sum = fb_vf_add(sum, fb_vf_load_part(second, lanes));
            }
            const fb_vf x = fb_vf_load_part(c->x + i * c->x_stride + j, lanes);
            sum = fb_vf_mul(sum, fb_rows_map_slope(c->map, x));
            float *out = c->out + i * c->out_stride + j;
            if (c->add) {
                sum = fb_vf_add(sum, fb_vf_load_part(out, lanes));
            }
            fb_vf_store_part(out, sum, lanes);
        }
    }
}

#endif
