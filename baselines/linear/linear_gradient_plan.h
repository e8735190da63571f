/*
 * Buffers, rows and running sums of the linear kernel's gradients; see linear_gradient.h.
 */
#ifndef FB_LINEAR_GRADIENT_PLAN_H
#define FB_LINEAR_GRADIENT_PLAN_H

#include "linear/linear_outputs.h"
#include "linear/linear_sums.h"
#include "transpose.h"

/* Which tokens a sum runs over: G' over the sources, which serves dq; E' over the sinks, which
 * serves dk and dv. */
enum linear_side { LINEAR_SOURCES, LINEAR_SINKS, LINEAR_SIDES };

struct linear_gradient {
    const struct fb_problem *problem;
    const struct fb_call *call;
    const struct linear_map *map;
    int64_t units, group;
    int64_t ld_features, ld_extended;
    int64_t state_count; /* of G' or E': [M + 1][ld_features] */
    int64_t block_tokens;
    int64_t slice_tokens, slices; /* over the longer of the two sides */
    bool whole_units;
    size_t thread_bytes;
    unsigned char *thread_base;
    double *slots; /* [units][sides][slices][state_count], when units are shared */
};

/* Scratch of one thread; a block is block_tokens rows. */
struct linear_gradient_scratch {
    float *queries, *keys;  /* [block][ld_features] phi */
    float *slopes;          /* [block][ld_features] dphi */
    float *extended_douts;  /* [block][ld_extended] d', then nothing */
    float *extended_values; /* [block][ld_extended] v', likewise */
    float *product;         /* [state_count] the part of the sums that is still in f32 */
    float *state;           /* [state_count] all of the sums, rounded */
    float *turned;          /* [count][ld_extended] E^T; also other transposed blocks */
    float *pairs;           /* causal: [block][block] */
    double *slice, *before; /* [state_count] */
    /* rooms for a block of rows that are not f32: q or k; out, then dq or dk; v or dout; dv */
    float *x_room, *dx_room, *v_room, *dv_room;
};

/* A unit: its first head of queries, and its sinks and sources without padding. */
struct linear_unit {
    int64_t b, kv_head, first_head;
    int64_t sinks, sources;
    float peak;
};

static struct linear_gradient_scratch linear_gradient_scratch_at(const struct linear_gradient *g,
                                                                 unsigned char *base, size_t *bytes)
{
    struct fb_scratch_cursor cursor = fb_scratch_at(base);
    struct linear_gradient_scratch s;
    const int64_t block = g->block_tokens;
    const int64_t turned =
        linear_larger(g->map->count * linear_larger(g->ld_extended, block), g->ld_extended * block);
    s.queries = fb_scratch_take_f32(&cursor, block * g->ld_features);
    s.keys = fb_scratch_take_f32(&cursor, block * g->ld_features);
    s.slopes = fb_scratch_take_f32(&cursor, block * g->ld_features);
    s.extended_douts = fb_scratch_take_f32(&cursor, block * g->ld_extended);
    s.extended_values = fb_scratch_take_f32(&cursor, block * g->ld_extended);
    s.product = fb_scratch_take_f32(&cursor, g->state_count);
    s.state = fb_scratch_take_f32(&cursor, g->state_count);
    s.turned = fb_scratch_take_f32(&cursor, turned);
    s.pairs = fb_scratch_take_f32(&cursor, block * block);
    s.slice = fb_scratch_take_f64(&cursor, g->state_count);
    s.before = fb_scratch_take_f64(&cursor, g->state_count);
    const struct fb_problem *p = g->problem;
    s.x_room = fb_scratch_take_f32(&cursor, fb_row_room(p->dtype, block, p->qk_dim));
    s.dx_room = fb_scratch_take_f32(
        &cursor, fb_row_room(p->dtype, block, linear_larger(p->qk_dim, p->v_dim)));
    s.v_room = fb_scratch_take_f32(&cursor, fb_row_room(p->dtype, block, p->v_dim));
    s.dv_room = fb_scratch_take_f32(&cursor, fb_row_room(p->dtype, block, p->v_dim));
    *bytes = cursor.used_bytes;
    return s;
}

static struct linear_gradient_scratch linear_gradient_of_thread(const struct linear_gradient *g,
                                                                int thread)
{
    size_t bytes;
    return linear_gradient_scratch_at(g, g->thread_base + (size_t)thread * g->thread_bytes, &bytes);
}

static struct linear_unit linear_unit_at(const struct linear_gradient *g, int64_t unit)
{
    const struct fb_problem *p = g->problem;
    struct linear_unit u = {.b = unit / p->kv_heads, .kv_head = unit % p->kv_heads};
    u.first_head = u.kv_head * g->group;
    u.sources = fb_problem_keys(p, u.b);
    u.sinks = fb_problem_queries(p, u.b);
    if (u.sinks == 0 || u.sources == 0) {
        u.sinks = u.sources = 0;
    }
    u.peak = *linear_saved_peak(p, g->call->saved, u.b * p->heads + u.first_head);
    return u;
}

/* ---- rows ---------------------------------------------------------------------------------- */

/* d' of the sinks first .. first + rows - 1 of head h, and phi(q). */
static void linear_take_sinks(const struct linear_gradient *g,
                              const struct linear_gradient_scratch *s, const struct linear_unit *u,
                              int64_t h, int64_t first, int64_t rows)
{
    const struct fb_problem *p = g->problem;
    const struct fb_call *call = g->call;
    const float *reciprocals =
        linear_saved_reciprocals(p, call->saved, u->b * p->heads + h) + first;
    const struct fb_row_range range = {u->b, h, first, 1, rows};
    const struct fb_row_block douts = fb_rows_load(&call->dout, range, s->v_room);
    const struct fb_row_block outs = fb_rows_load(&call->out, range, s->dx_room);
    const struct fb_row_block q = fb_rows_load(&call->q, range, s->x_room);
    for (int64_t i = 0; i < rows; i++) {
        const float *dout = douts.rows + i * douts.stride;
        const float *out = outs.rows + i * outs.stride;
        float *row = s->extended_douts + i * g->ld_extended;
        const fb_vf r = fb_vf_set1(reciprocals[i]);
        fb_vf dot = fb_vf_zero();
        int64_t c = 0;
        for (; c + FB_VW <= p->v_dim; c += FB_VW) {
            const fb_vf d = fb_vf_load(dout + c);
            dot = fb_vf_fma(d, fb_vf_load(out + c), dot);
            fb_vf_store(row + c, fb_vf_mul(r, d));
        }
        if (c < p->v_dim) {
            const int64_t lanes = p->v_dim - c;
            const fb_vf d = fb_vf_load_part(dout + c, lanes);
            dot = fb_vf_fma(d, fb_vf_load_part(out + c, lanes), dot);
            fb_vf_store(row + c, fb_vf_mul(r, d));
        }
        row[p->v_dim] = -reciprocals[i] * fb_vf_sum(dot);
    }
    g->map->queries(g->map->own, q.rows, q.stride, rows, s->queries, g->ld_features);
}

/* v' of the sources first .. first + rows - 1, and phi(k). */
static void linear_take_sources(const struct linear_gradient *g,
                                const struct linear_gradient_scratch *s,
                                const struct linear_unit *u, int64_t first, int64_t rows)
{
    const struct fb_problem *p = g->problem;
    const struct fb_call *call = g->call;
    const struct fb_row_range range = {u->b, u->kv_head, first, 1, rows};
    if (rows == 0) {
        return;
    }
    const struct fb_row_block values = fb_rows_load(&call->v, range, s->v_room);
    for (int64_t j = 0; j < rows; j++) {
        const float *v = values.rows + j * values.stride;
        float *row = s->extended_values + j * g->ld_extended;
        memcpy(row, v, (size_t)p->v_dim * sizeof *row);
        row[p->v_dim] = 1.0F;
    }
    linear_map_keys(g->map, fb_rows_load(&call->k, range, s->x_room), rows, u->peak, s->keys,
                    g->ld_features);
}

/* ---- running sums -------------------------------------------------------------------------- */

/* Sums that grow block by block: in f32 (product) until enough tokens are pending, then in f64. */
struct linear_running {
    const double *before; /* the sums of the slices before */
    double *slice;        /* those of this slice, without product */
    int64_t pending;      /* tokens in product */
    float *state;         /* all of it, rounded; NULL where only the slice's sums are wanted */
};

static struct linear_running linear_start(const struct linear_gradient *g,
                                          const struct linear_gradient_scratch *s,
                                          const double *before, double *slice)
{
    struct linear_running sums = {.before = before, .slice = slice};
    linear_clear(slice, g->state_count);
    if (before != NULL) {
        linear_round(s->state, before, g->state_count);
        sums.state = s->state;
    }
    return sums;
}

/* product (+)= rows'^T phi, and so does the state. */
static void linear_absorb_rows(const struct linear_gradient *g,
                               const struct linear_gradient_scratch *s,
                               const struct linear_running *sums, const float *extended,
                               const float *phi, int64_t rows, bool accumulate,
                               struct fb_tile_extra *extra)
{
    extra->twin = sums->state;
    FB_ISA_SYMBOL(fb_tile_gemm_extra)
    (g->problem->v_dim + 1, g->ld_features, rows, extended, 1, g->ld_extended, phi, g->ld_features,
     s->product, g->ld_features, accumulate, extra);
    extra->twin = NULL;
}

/* After tokens have been absorbed; last: nothing follows in this slice. */
static void linear_advance(const struct linear_gradient *g, const struct linear_gradient_scratch *s,
                           struct linear_running *sums, int64_t tokens, bool last)
{
    sums->pending += tokens;
    if (sums->pending > 0 && (last || sums->pending >= LINEAR_F32_TOKENS)) {
        linear_add_f32(sums->slice, s->product, g->state_count);
        sums->pending = 0;
        if (sums->state != NULL && !last) {
            linear_round_sum(sums->state, sums->before, sums->slice, g->state_count);
        }
    }
}

#endif
