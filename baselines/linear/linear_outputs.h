/*
 * Outputs of the linear kernel from finished sums. See linear_core.h for the method.
 */
#ifndef FB_LINEAR_OUTPUTS_H
#define FB_LINEAR_OUTPUTS_H

#include "linear/linear_fetch.h"

/* reciprocals[i] = 1 / (phi(q_i) . z plus within (or NULL)); a training forward saves them. */
static void linear_reciprocals(const struct linear_kernel *w, int64_t head, int64_t first,
                               int64_t rows, const float *phi, const float *key_sum,
                               const float *within, float *reciprocals)
{
    const fb_vf one = fb_vf_set1(1.0F);
    const fb_vf epsilon = fb_vf_set1(w->map->epsilon);
    fb_rows_dot(phi, w->ld_features, rows, w->ld_features, key_sum, reciprocals);
    for (int64_t i = 0; i < rows; i += FB_VW) {
        const int64_t lanes = linear_smaller(FB_VW, rows - i);
        fb_vf sum = fb_vf_add(fb_vf_load_part(reciprocals + i, lanes), epsilon);
        if (within != NULL) {
            sum = fb_vf_add(sum, fb_vf_load_part(within + i, lanes));
        }
        fb_vf_store_part(reciprocals + i, fb_vf_div(one, sum), lanes);
    }
    if (w->call->saved != NULL) {
        memcpy(linear_saved_reciprocals(w->problem, w->call->saved, head) + first, reciprocals,
               (size_t)rows * sizeof *reciprocals);
    }
}

static void linear_save_peak(const struct linear_kernel *w, int64_t head, float peak)
{
    if (w->call->saved != NULL) {
        *linear_saved_peak(w->problem, w->call->saved, head) = peak;
    }
}

/* Outputs of the sinks first <= i < end from finished sums. */
static void linear_write(const struct linear_kernel *w, const struct linear_scratch *s,
                         int64_t head, int64_t first, int64_t end, const float *state)
{
    const struct fb_call *call = w->call;
    const int64_t dim = w->problem->v_dim;
    const struct linear_place at = linear_place_of(w, head);
    const float *key_sum = state + w->map->count * w->ld_value;
    for (int64_t i = first; i < end; i += w->block_tokens) {
        const int64_t rows = linear_smaller(w->block_tokens, end - i);
        const struct fb_row_range block = linear_sink_rows(&at, i, rows);
        const struct fb_row_block out = fb_rows_open(&call->out, block, s->out_room);
        const struct fb_row_block q = fb_rows_load(&call->q, block, s->k_room);
        w->map->queries(w->map->own, q.rows, q.stride, rows, s->keys, w->ld_features);
        float reciprocals[LINEAR_BLOCK_MAX];
        linear_reciprocals(w, head, i, rows, s->keys, key_sum, NULL, reciprocals);
        struct fb_tile_extra extra = linear_fetch_after(w, head, &at, i + rows, end);
        extra.scale = reciprocals;
        FB_ISA_SYMBOL(fb_tile_gemm_extra)
        (rows, dim, w->map->count, s->keys, w->ld_features, 1, state, w->ld_value, out.rows,
         out.stride, false, &extra);
        fb_rows_close(&call->out, block, out);
    }
}

#endif
