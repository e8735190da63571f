/*
 * Sums over keys and values of the linear kernel, f32 within a few blocks and f64 beyond, against a
 * given peak of the key scores or against a running one. See linear_core.h for the method.
 */
#ifndef FB_LINEAR_SUMS_H
#define FB_LINEAR_SUMS_H

#include "linear/linear_fetch.h"

static void linear_clear(double *sums, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        sums[i] = 0.0;
    }
}

static void linear_add_f32(double *FB_RESTRICT sums, const float *FB_RESTRICT part, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        sums[i] += (double)part[i];
    }
}

static void linear_add_f64(double *FB_RESTRICT sums, const double *FB_RESTRICT part, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        sums[i] += part[i];
    }
}

/* Sums that were taken against the peak `from` become sums against `to`. */
static void linear_move_peak(const struct linear_kernel *w, double *sums, float from, float to)
{
    if (from != to) {
        const double factor = exp((double)from - (double)to);
        for (int64_t i = 0; i < w->scaled_count; i++) {
            sums[i] *= factor;
        }
    }
}

/* sums += part, each against its own peak; part is spoilt. */
static void linear_merge(const struct linear_kernel *w, double *sums, float *peak, double *part,
                         float part_peak)
{
    if (w->running_peak) {
        const float larger = part_peak > *peak ? part_peak : *peak;
        linear_move_peak(w, sums, *peak, larger);
        linear_move_peak(w, part, part_peak, larger);
        *peak = larger;
    }
    linear_add_f64(sums, part, w->state_count);
}

static void linear_round(float *FB_RESTRICT state, const double *FB_RESTRICT sums, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        state[i] = (float)sums[i];
    }
}

static void linear_round_sum(float *FB_RESTRICT state, const double *FB_RESTRICT a,
                             const double *FB_RESTRICT b, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        state[i] = (float)(a[i] + b[i]);
    }
}

/* The column sums of phi join both, the same bits as fb_rows_accumulate. */
static void linear_add_columns(const float *phi, int64_t ld, int64_t rows, float *sums, float *twin)
{
    enum { WIDE = FB_ROWS_CHUNK * FB_VW };
    for (int64_t c = 0; c < ld; c += c + WIDE <= ld ? WIDE : FB_VW) {
        float part[WIDE];
        fb_rows_zero(part, WIDE);
        fb_rows_accumulate(phi + c, ld, rows, c + WIDE <= ld ? WIDE : FB_VW, NULL, part);
        for (int64_t i = 0; i < (c + WIDE <= ld ? WIDE : FB_VW); i += FB_VW) {
            const fb_vf x = fb_vf_load(part + i);
            fb_vf_store(sums + c + i, fb_vf_add(fb_vf_load(sums + c + i), x));
            fb_vf_store(twin + c + i, fb_vf_add(fb_vf_load(twin + c + i), x));
        }
    }
}

/* product (+)= phi^T V and the column sums of phi, over the rows of one block; they are added to
 * twin, too, unless it is NULL. */
static void linear_absorb(const struct linear_kernel *w, const float *phi, struct fb_row_block v,
                          int64_t rows, float *product, bool accumulate, float *twin,
                          struct fb_tile_extra *extra)
{
    const int64_t ld = w->ld_features;
    if (!accumulate && w->ld_value != w->problem->v_dim) {
        for (int64_t i = 0; i < w->state_count; i++) {
            product[i] = 0.0F;
        }
    }
    extra->twin = twin;
    FB_ISA_SYMBOL(fb_tile_gemm_extra)
    (w->map->count, w->problem->v_dim, rows, phi, 1, ld, v.rows, v.stride, product, w->ld_value,
     accumulate, extra);
    float *columns = product + w->map->count * w->ld_value;
    if (!accumulate) {
        fb_rows_zero(columns, ld);
    }
    if (twin == NULL) {
        fb_rows_accumulate(phi, ld, rows, ld, NULL, columns);
    } else {
        linear_add_columns(phi, ld, rows, columns, twin + w->map->count * w->ld_value);
    }
    columns += ld;
    for (int64_t c = 0; w->running_peak && c < w->ld_value; c += FB_VW) {
        const int64_t lanes = linear_smaller(FB_VW, w->problem->v_dim - c);
        fb_vf sum = fb_vf_zero();
        for (int64_t i = 0; i < rows; i++) {
            sum = fb_vf_add(sum, fb_vf_load_part(v.rows + i * v.stride + c, lanes));
        }
        fb_vf_store(columns + c, accumulate ? fb_vf_add(fb_vf_load(columns + c), sum) : sum);
    }
}

/* The totals, rounded: G + key_epsilon 1 (sum of v)^T and z + key_epsilon S. */
static void linear_finish(const struct linear_kernel *w, const double *sums, int64_t sources,
                          float *state)
{
    linear_round(state, sums, w->state_count);
    if (w->running_peak) {
        const double epsilon = (double)w->map->key_epsilon;
        const double *v = sums + w->scaled_count;
        const int64_t ld = w->ld_value;
        for (int64_t f = 0; f < w->map->count; f++) {
            for (int64_t c = 0; c < ld; c++) {
                state[f * ld + c] = (float)(sums[f * ld + c] + epsilon * v[c]);
            }
            state[w->map->count * ld + f] =
                (float)(sums[w->map->count * ld + f] + epsilon * (double)sources);
        }
    }
}

/* Features of a block of keys; the scores come first where there are any. */
static void linear_map_keys(const struct linear_map *map, struct fb_row_block k, int64_t rows,
                            float peak, float *phi, int64_t ld)
{
    if (map->score_keys != NULL) {
        (void)map->score_keys(map->own, k.rows, k.stride, rows, phi, ld);
    }
    map->keys(map->own, k.rows, k.stride, rows, peak, map->key_epsilon, phi, ld);
}

static void linear_keys(const struct linear_kernel *w, struct fb_row_block k, int64_t rows,
                        float peak, float *phi)
{
    linear_map_keys(w->map, k, rows, peak, phi, w->ld_features);
}

/* The sums of the sources first <= j < end, from zero, against the peak given. */
static void linear_sum_slice(const struct linear_kernel *w, const struct linear_scratch *s,
                             int64_t head, int64_t first, int64_t end, float peak, double *sums)
{
    const struct fb_call *call = w->call;
    const struct linear_place at = linear_place_of(w, head);
    int64_t pending = 0;
    linear_clear(sums, w->state_count);
    for (int64_t j = first; j < end; j += w->block_tokens) {
        const int64_t rows = linear_smaller(w->block_tokens, end - j);
        const struct fb_row_range block = linear_source_rows(&at, j, rows);
        linear_keys(w, fb_rows_load(&call->k, block, s->k_room), rows, peak, s->keys);
        struct fb_tile_extra extra = linear_fetch_sources(w, &at, j + rows, end);
        linear_absorb(w, s->keys, fb_rows_load(&call->v, block, s->v_room), rows, s->product,
                      pending > 0, NULL, &extra);
        pending += rows;
        if (pending >= LINEAR_F32_TOKENS || j + rows == end) {
            linear_add_f32(sums, s->product, w->state_count);
            pending = 0;
        }
    }
}

/* The same against the largest score met so far, without key_epsilon; returns the last peak. */
static float linear_sum_slice_running(const struct linear_kernel *w, const struct linear_scratch *s,
                                      int64_t head, int64_t first, int64_t end, double *sums)
{
    const struct fb_call *call = w->call;
    const struct linear_map *map = w->map;
    const struct linear_place at = linear_place_of(w, head);
    float peak = -FLT_MAX;
    int64_t pending = 0;
    linear_clear(sums, w->state_count);
    for (int64_t j = first; j < end; j += w->block_tokens) {
        const int64_t rows = linear_smaller(w->block_tokens, end - j);
        const struct fb_row_range block = linear_source_rows(&at, j, rows);
        const struct fb_row_block k = fb_rows_load(&call->k, block, s->k_room);
        const float found =
            map->score_keys(map->own, k.rows, k.stride, rows, s->keys, w->ld_features);
        if (found > peak) {
            if (pending > 0) {
                linear_add_f32(sums, s->product, w->state_count);
                pending = 0;
            }
            linear_move_peak(w, sums, peak, found);
            peak = found;
        }
        map->keys(map->own, k.rows, k.stride, rows, peak, 0.0F, s->keys, w->ld_features);
        struct fb_tile_extra extra = linear_fetch_sources(w, &at, j + rows, end);
        linear_absorb(w, s->keys, fb_rows_load(&call->v, block, s->v_room), rows, s->product,
                      pending > 0, NULL, &extra);
        pending += rows;
        if (pending >= LINEAR_F32_TOKENS || j + rows == end) {
            linear_add_f32(sums, s->product, w->state_count);
            pending = 0;
        }
    }
    return peak;
}

/* The largest score of the sources first <= j < end; any number when keys subtract none. */
static float linear_peak(const struct linear_kernel *w, const struct linear_scratch *s,
                         int64_t head, int64_t first, int64_t end)
{
    const struct linear_place at = linear_place_of(w, head);
    float peak = -FLT_MAX;
    for (int64_t j = first; w->map->score_keys != NULL && j < end; j += w->block_tokens) {
        const int64_t rows = linear_smaller(w->block_tokens, end - j);
        const struct fb_row_block k =
            fb_rows_load(&w->call->k, linear_source_rows(&at, j, rows), s->k_room);
        const float found =
            w->map->score_keys(w->map->own, k.rows, k.stride, rows, s->keys, w->ld_features);
        peak = found > peak ? found : peak;
    }
    return peak;
}

#endif
