/*
 * One slice of the linear kernel's gradients: its sums, the gradients from finished sums, and the
 * causal walk, which does both at once. See linear_gradient.h for the method.
 */
#ifndef FB_LINEAR_GRADIENT_WALK_H
#define FB_LINEAR_GRADIENT_WALK_H

#include "linear/linear_gradient_fetch.h"

/* ---- sums ---------------------------------------------------------------------------------- */

/* The sums of one slice of a side, from zero. */
static void linear_sum_side(const struct linear_gradient *g,
                            const struct linear_gradient_scratch *s, int64_t unit, int64_t slice,
                            enum linear_side side, double *sums)
{
    const struct linear_unit u = linear_unit_at(g, unit);
    struct linear_running running = linear_start(g, s, NULL, sums);
    for (int64_t i = 0; i < linear_slice_blocks(g); i++) {
        const struct linear_block x = linear_block_at(g, &u, slice, side, i);
        const int64_t rows = side == LINEAR_SOURCES ? x.sources : x.sinks;
        if (rows == 0) {
            continue;
        }
        const struct linear_block next = linear_block_after(g, &u, slice, side, i);
        if (side == LINEAR_SOURCES) {
            struct fb_tile_extra extra = linear_fetch_keys(g, &u, &next, false);
            linear_take_sources(g, s, &u, x.first, rows);
            linear_absorb_rows(g, s, &running, s->extended_values, s->keys, rows,
                               running.pending > 0, &extra);
        }
        for (int64_t round = 0; side == LINEAR_SINKS && round < g->group; round++) {
            struct fb_tile_extra extra = linear_fetch_queries(g, &u, round, &x, &next, false);
            linear_take_sinks(g, s, &u, u.first_head + round, x.first, rows);
            linear_absorb_rows(g, s, &running, s->extended_douts, s->queries, rows,
                               running.pending > 0 || round > 0, &extra);
        }
        linear_advance(g, s, &running, rows, false);
    }
    linear_advance(g, s, &running, 0, true);
}

/* ---- gradients of one block ---------------------------------------------------------------- */

/* slopes = rows' . state: dphi from the sums of the other side. */
static void linear_slopes(const struct linear_gradient *g, const struct linear_gradient_scratch *s,
                          const float *extended, int64_t rows, const float *state,
                          struct fb_tile_extra *extra)
{
    FB_ISA_SYMBOL(fb_tile_gemm_extra)
    (rows, g->ld_features, g->problem->v_dim + 1, extended, g->ld_extended, 1, state,
     g->ld_features, s->slopes, g->ld_features, false, extra);
}

static struct fb_row_range linear_block_sources(const struct linear_unit *u,
                                                const struct linear_block *x)
{
    return (struct fb_row_range){u->b, u->kv_head, x->first, 1, x->sources};
}

static void linear_write_dq(const struct linear_gradient *g,
                            const struct linear_gradient_scratch *s, const struct linear_unit *u,
                            int64_t h, const struct linear_block *x)
{
    const struct fb_row_range rows = {u->b, h, x->first, 1, x->sinks};
    const struct fb_row_block q = fb_rows_load(&g->call->q, rows, s->x_room);
    const struct fb_row_block dq = fb_rows_open(&g->call->dq, rows, s->dx_room);
    if (g->map->settle != NULL)
        g->map->settle(g->map->own, x->sinks, s->queries, s->slopes, g->ld_features);
    g->map->pull(g->map->own, q.rows, q.stride, x->sinks, s->queries, s->slopes, g->ld_features,
                 dq.rows, dq.stride);
    fb_rows_close(&g->call->dq, rows, dq);
}

static void linear_write_dk(const struct linear_gradient *g,
                            const struct linear_gradient_scratch *s, const struct linear_unit *u,
                            const struct linear_block *x)
{
    const struct fb_row_range rows = linear_block_sources(u, x);
    const struct fb_row_block k = fb_rows_load(&g->call->k, rows, s->x_room);
    const struct fb_row_block dk = fb_rows_open(&g->call->dk, rows, s->dx_room);
    g->map->pull(g->map->own, k.rows, k.stride, x->sources, s->keys, s->slopes, g->ld_features,
                 dk.rows, dk.stride);
    fb_rows_close(&g->call->dk, rows, dk);
}

/* turned = E^T. */
static void linear_turn(const struct linear_gradient *g, const struct linear_gradient_scratch *s,
                        const float *state)
{
    fb_transpose(state, g->ld_features, g->problem->v_dim, g->map->count, s->turned,
                 g->ld_extended);
}

/* dv = phi(k) . turned; the caller closes it. */
static struct fb_row_block linear_open_dv(const struct linear_gradient *g,
                                          const struct linear_gradient_scratch *s,
                                          const struct linear_unit *u, const struct linear_block *x,
                                          struct fb_tile_extra *extra)
{
    const struct fb_row_block dv =
        fb_rows_open(&g->call->dv, linear_block_sources(u, x), s->dv_room);
    FB_ISA_SYMBOL(fb_tile_gemm_extra)
    (x->sources, g->problem->v_dim, g->map->count, s->keys, g->ld_features, 1, s->turned,
     g->ld_extended, dv.rows, dv.stride, false, extra);
    return dv;
}

/* dq of one slice from the finished sums over the sources, and the sums of its sinks, bit for bit
 * those of linear_sum_side. Not causal. */
static void linear_cross_sinks(const struct linear_gradient *g,
                               const struct linear_gradient_scratch *s, int64_t unit, int64_t slice,
                               const float *state, double *sums)
{
    const struct linear_unit u = linear_unit_at(g, unit);
    struct linear_running running = linear_start(g, s, NULL, sums);
    for (int64_t i = 0; i < linear_slice_blocks(g); i++) {
        const struct linear_block x = linear_block_at(g, &u, slice, LINEAR_SINKS, i);
        const struct linear_block next = linear_block_after(g, &u, slice, LINEAR_SINKS, i);
        for (int64_t round = 0; x.sinks > 0 && round < g->group; round++) {
            struct fb_tile_extra extra = linear_fetch_queries(g, &u, round, &x, &next, true);
            linear_take_sinks(g, s, &u, u.first_head + round, x.first, x.sinks);
            linear_absorb_rows(g, s, &running, s->extended_douts, s->queries, x.sinks,
                               running.pending > 0 || round > 0, &extra);
            linear_slopes(g, s, s->extended_douts, x.sinks, state, &extra);
            linear_write_dq(g, s, &u, u.first_head + round, &x);
        }
        linear_advance(g, s, &running, x.sinks, false);
    }
    linear_advance(g, s, &running, 0, true);
}

/* The gradients that finished sums of a side give, for the tokens of one slice. Not causal. */
static void linear_apply_slice(const struct linear_gradient *g,
                               const struct linear_gradient_scratch *s, int64_t unit, int64_t slice,
                               enum linear_side side, const double *totals)
{
    const struct linear_unit u = linear_unit_at(g, unit);
    linear_round(s->state, totals, g->state_count);
    if (side == LINEAR_SINKS) {
        linear_turn(g, s, s->state);
    }
    for (int64_t i = 0; i < linear_slice_blocks(g); i++) {
        const struct linear_block x = linear_block_at(g, &u, slice, side, i);
        const struct linear_block next = linear_block_after(g, &u, slice, side, i);
        if (side == LINEAR_SINKS && x.sources > 0) {
            struct fb_tile_extra extra = linear_fetch_keys(g, &u, &next, true);
            linear_take_sources(g, s, &u, x.first, x.sources);
            linear_slopes(g, s, s->extended_values, x.sources, s->state, &extra);
            linear_write_dk(g, s, &u, &x);
            const struct fb_row_block dv = linear_open_dv(g, s, &u, &x, &extra);
            fb_rows_close(&g->call->dv, linear_block_sources(&u, &x), dv);
        }
        for (int64_t round = 0; side == LINEAR_SOURCES && x.sinks > 0 && round < g->group;
             round++) {
            struct fb_tile_extra extra = linear_fetch_queries(g, &u, round, &x, &next, true);
            linear_take_sinks(g, s, &u, u.first_head + round, x.first, x.sinks);
            linear_slopes(g, s, s->extended_douts, x.sinks, s->state, &extra);
            linear_write_dq(g, s, &u, u.first_head + round, &x);
        }
    }
}

/* ---- the causal walk ----------------------------------------------------------------------- */

/* pairs [sinks][sources] = a . b^T over j <= i, 0 elsewhere; b is turned on the way. Half a block
 * of sinks at a time, so that a quarter of the pairs, beyond the diagonal, is not formed. */
static void linear_pair(const struct linear_gradient *g, const struct linear_gradient_scratch *s,
                        const struct linear_block *x, const float *a, const float *b, int64_t ld,
                        int64_t components, struct fb_tile_extra *extra)
{
    const int64_t block = g->block_tokens;
    fb_transpose(b, ld, x->sources, components, s->turned, block);
    for (int64_t i = 0; i < x->sinks; i += block / 2) {
        const int64_t sinks = linear_smaller(block / 2, x->sinks - i);
        FB_ISA_SYMBOL(fb_tile_gemm_extra)
        (sinks, linear_smaller(i + sinks, x->sources), components, a + i * ld, ld, 1, s->turned,
         block, s->pairs + i * block, block, false, extra);
    }
    for (int64_t i = 0; i < x->sinks; i++) {
        const int64_t seen = linear_smaller(i + 1, x->sources);
        for (int64_t j = 0; j < block; j += FB_VW) {
            float *lanes = s->pairs + i * block + j;
            const int64_t kept = linear_larger(0, linear_smaller(FB_VW, seen - j));
            fb_vf_store(lanes, fb_vf_keep(fb_vf_load(lanes), kept));
        }
    }
}

/* to [sources][columns] += pairs^T . rows [sinks][ld]: sources of the second half are seen by sinks
 * of the second half only. */
static void linear_gather_pairs(const struct linear_gradient *g,
                                const struct linear_gradient_scratch *s,
                                const struct linear_block *x, const float *rows, int64_t ld,
                                int64_t columns, struct fb_row_block to)
{
    const int64_t block = g->block_tokens;
    for (int64_t j = 0; j < x->sources && j < x->sinks; j += block / 2) {
        FB_ISA_SYMBOL(fb_tile_gemm)
        (linear_smaller(block / 2, x->sources - j), columns, x->sinks - j, s->pairs + j * block + j,
         1, block, rows + j * ld, ld, to.rows + j * to.stride, to.stride, true);
    }
}

/* dq of one block, then its sources join the sums. */
static void linear_walk_sinks(const struct linear_gradient *g,
                              const struct linear_gradient_scratch *s, const struct linear_unit *u,
                              const struct linear_block *x, const struct linear_block *next,
                              const struct linear_running *sums)
{
    linear_take_sources(g, s, u, x->first, x->sources);
    for (int64_t round = 0; x->sinks > 0 && round < g->group; round++) {
        struct fb_tile_extra extra = linear_fetch_queries(g, u, round, x, next, true);
        linear_take_sinks(g, s, u, u->first_head + round, x->first, x->sinks);
        linear_slopes(g, s, s->extended_douts, x->sinks, sums->state, &extra);
        if (x->sources > 0) {
            linear_pair(g, s, x, s->extended_douts, s->extended_values, g->ld_extended,
                        g->problem->v_dim + 1, &extra);
            FB_ISA_SYMBOL(fb_tile_gemm_lower)
            (x->sinks, g->ld_features, x->sources, s->pairs, g->block_tokens, 1, s->keys,
             g->ld_features, s->slopes, g->ld_features, true);
        }
        linear_write_dq(g, s, u, u->first_head + round, x);
    }
    if (x->sources > 0) {
        struct fb_tile_extra extra = linear_fetch_keys(g, u, next, false);
        linear_absorb_rows(g, s, sums, s->extended_values, s->keys, x->sources, sums->pending > 0,
                           &extra);
    }
}

/* The pairs of one block and one head of queries, in dphi(k) and dv. */
static void linear_add_pairs(const struct linear_gradient *g,
                             const struct linear_gradient_scratch *s, const struct linear_block *x,
                             struct fb_row_block dv, struct fb_tile_extra *extra)
{
    const struct fb_row_block slopes = {s->slopes, g->ld_features};
    linear_pair(g, s, x, s->extended_douts, s->extended_values, g->ld_extended,
                g->problem->v_dim + 1, extra);
    linear_gather_pairs(g, s, x, s->queries, g->ld_features, g->ld_features, slopes);
    linear_pair(g, s, x, s->queries, s->keys, g->ld_features, g->map->count, extra);
    linear_gather_pairs(g, s, x, s->extended_douts, g->ld_extended, g->problem->v_dim, dv);
}

/* dk and dv of one block, and its sinks join the sums. */
static void linear_walk_sources(const struct linear_gradient *g,
                                const struct linear_gradient_scratch *s,
                                const struct linear_unit *u, const struct linear_block *x,
                                const struct linear_block *next, const struct linear_running *sums)
{
    struct fb_row_block dv = {0};
    if (x->sources > 0) {
        struct fb_tile_extra extra = linear_fetch_keys(g, u, next, true);
        linear_take_sources(g, s, u, x->first, x->sources);
        linear_slopes(g, s, s->extended_values, x->sources, sums->state, &extra);
        linear_turn(g, s, sums->state);
        dv = linear_open_dv(g, s, u, x, &extra);
    }
    for (int64_t round = 0; x->sinks > 0 && round < g->group; round++) {
        struct fb_tile_extra extra = linear_fetch_queries(g, u, round, x, next, false);
        linear_take_sinks(g, s, u, u->first_head + round, x->first, x->sinks);
        if (x->sources > 0) {
            linear_add_pairs(g, s, x, dv, &extra);
        }
        linear_absorb_rows(g, s, sums, s->extended_douts, s->queries, x->sinks,
                           sums->pending > 0 || round > 0, &extra);
    }
    if (x->sources > 0) {
        linear_write_dk(g, s, u, x);
        fb_rows_close(&g->call->dv, linear_block_sources(u, x), dv);
    }
}

/* The gradients that the growing sums of a side give, for the tokens of one slice, given the sums
 * of the slices before. s->slice ends as the sums of this slice, bit for bit those of
 * linear_sum_side. */
static void linear_walk_side(const struct linear_gradient *g,
                             const struct linear_gradient_scratch *s, int64_t unit, int64_t slice,
                             enum linear_side side, const double *before)
{
    const struct linear_unit u = linear_unit_at(g, unit);
    struct linear_running sums = linear_start(g, s, before, s->slice);
    for (int64_t i = 0; i < linear_slice_blocks(g); i++) {
        const struct linear_block x = linear_block_at(g, &u, slice, side, i);
        if (x.sinks == 0 && x.sources == 0) {
            continue;
        }
        const struct linear_block next = linear_block_after(g, &u, slice, side, i);
        if (side == LINEAR_SOURCES) {
            linear_walk_sinks(g, s, &u, &x, &next, &sums);
        } else {
            linear_walk_sources(g, s, &u, &x, &next, &sums);
        }
        linear_advance(g, s, &sums, side == LINEAR_SOURCES ? x.sources : x.sinks, false);
    }
    linear_advance(g, s, &sums, 0, true);
}

#endif
