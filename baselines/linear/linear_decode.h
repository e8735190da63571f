/*
 * Decoding with the linear kernel, for linear attention and Performer: the state of a head of keys
 * is the sums G and z of linear_core.h over the tokens so far, each with its rounding error
 * (compensated), so that long sequences cost no digits. One token costs the same time and memory
 * whatever came before. Included by the CPU source of each mechanism, once per instruction set.
 *
 * The peak that keys subtract is the caller's key_stabiliser. Exponents above it are computed as
 * they are, up to LINEAR_EXPONENT_MAX; a token beyond is refused before any state changes.
 */
#ifndef FB_LINEAR_DECODE_H
#define FB_LINEAR_DECODE_H

#include "linear/linear_sums.h"
#include "parallel.h"
#include "rows.h"

/* e^60 times 2^24 tokens is far below the largest float. */
#define LINEAR_EXPONENT_MAX 60.0F

struct linear_decode {
    const struct fb_problem *problem;
    const struct fb_call *call;
    const struct linear_map *map;
    int64_t units, group;
    int64_t ld_features, ld_value;
    size_t state_bytes, thread_bytes;
    float *keys;      /* [units][ld_features] phi(k) */
    float *exponents; /* [units] the largest exponent of the token, above the stabiliser */
    unsigned char *thread_base;
};

/* A unit's state; errors follow the values they belong to. */
struct linear_state {
    float *sums;    /* [count][ld_value] G, then the same of errors */
    float *key_sum; /* [ld_features] z, then errors */
};

struct linear_decode_scratch {
    float *queries; /* [group][ld_features] */
    float *outs;    /* [group][ld_value] */
    float *value;   /* [ld_value] v, zero beyond its components */
    float *room;    /* a row of q or k that is not f32 */
};

static size_t linear_state_at(const struct linear_decode *d, void *base, struct linear_state *state)
{
    struct fb_scratch_cursor cursor = {(unsigned char *)base, 0};
    state->sums = fb_scratch_take_f32(&cursor, 2 * d->map->count * d->ld_value);
    state->key_sum = fb_scratch_take_f32(&cursor, 2 * d->ld_features);
    return cursor.used_bytes;
}

static size_t linear_decode_scratch_at(const struct linear_decode *d, void *base,
                                       struct linear_decode_scratch *scratch)
{
    struct fb_scratch_cursor cursor = {(unsigned char *)base, 0};
    scratch->queries = fb_scratch_take_f32(&cursor, d->group * d->ld_features);
    scratch->outs = fb_scratch_take_f32(&cursor, d->group * d->ld_value);
    scratch->value = fb_scratch_take_f32(&cursor, d->ld_value);
    scratch->room =
        fb_scratch_take_f32(&cursor, fb_row_room(d->problem->dtype, 1, FB_HEAD_DIM_MAX));
    return cursor.used_bytes;
}

/* Lays out scratch; returns the bytes needed. With scratch NULL it only counts. */
static size_t linear_plan_decode(struct linear_decode *d, const struct fb_problem *p,
                                 const struct linear_map *map, int threads, void *scratch)
{
    struct linear_state state;
    struct linear_decode_scratch thread_scratch;
    *d = (struct linear_decode){
        .problem = p,
        .map = map,
        .units = p->batch * p->kv_heads,
        .group = fb_baseline_group(p),
        .ld_features = fb_vf_round_up(map->count),
        .ld_value = fb_vf_round_up(p->v_dim),
    };
    d->state_bytes = linear_state_at(d, NULL, &state);
    d->thread_bytes = linear_decode_scratch_at(d, NULL, &thread_scratch);
    struct fb_scratch_cursor cursor = {(unsigned char *)scratch, 0};
    d->keys = fb_scratch_take_f32(&cursor, d->units * d->ld_features);
    d->exponents = fb_scratch_take_f32(&cursor, d->units);
    d->thread_base = (unsigned char *)fb_scratch_take(&cursor, linear_smaller(threads, d->units),
                                                      d->thread_bytes);
    return cursor.used_bytes;
}

static size_t linear_decode_state_bytes(const struct linear_decode *d)
{
    return d->state_bytes * (size_t)d->units;
}

static void linear_run_key(void *context, int64_t unit, int thread)
{
    const struct linear_decode *d = (const struct linear_decode *)context;
    const struct linear_map *map = d->map;
    const struct fb_problem *p = d->problem;
    const float stabiliser = (float)d->call->key_stabiliser;
    const struct fb_row_range row = {unit / p->kv_heads, unit % p->kv_heads, 0, 1, 1};
    struct linear_decode_scratch s;
    linear_decode_scratch_at(d, d->thread_base + (size_t)thread * d->thread_bytes, &s);
    const float *k = fb_rows_load(&d->call->k, row, s.room).rows;
    float *phi = d->keys + unit * d->ld_features;
    d->exponents[unit] = 0.0F;
    if (map->score_keys != NULL) {
        (void)map->score_keys(map->own, k, 0, 1, phi, d->ld_features);
        d->exponents[unit] = map->exponent(map->own, k, phi, d->ld_features) - stabiliser;
    }
    if (!(d->exponents[unit] > LINEAR_EXPONENT_MAX)) {
        map->keys(map->own, k, 0, 1, stabiliser, map->key_epsilon, phi, d->ld_features);
    }
}

/* chunk vectors of columns: G += phi(k) v^T row by row, and phi(q) G of one head with the new rows
 * in out. The rounding error of a sum is the part of what was added that did not arrive (Kahan). */
FB_ALWAYS_INLINE void linear_advance_columns(int64_t count, int64_t ld, const int chunk,
                                             float *FB_RESTRICT sums, float *FB_RESTRICT errors,
                                             const float *FB_RESTRICT phi,
                                             const float *FB_RESTRICT value,
                                             const float *FB_RESTRICT query, float *FB_RESTRICT out)
{
    fb_vf added[FB_ROWS_CHUNK], result[FB_ROWS_CHUNK];
    FB_UNROLL
    for (int c = 0; c < chunk; c++) {
        added[c] = fb_vf_load(value + c * FB_VW);
        result[c] = fb_vf_zero();
    }
    for (int64_t f = 0; f < count; f++) {
        const fb_vf key = fb_vf_set1(phi[f]);
        const fb_vf weight = fb_vf_set1(query[f]);
        FB_UNROLL
        for (int c = 0; c < chunk; c++) {
            const int64_t at = f * ld + c * FB_VW;
            const fb_vf old = fb_vf_load(sums + at);
            const fb_vf y = fb_vf_fma(key, added[c], fb_vf_load(errors + at));
            const fb_vf next = fb_vf_add(old, y);
            fb_vf_store(errors + at, fb_vf_sub(y, fb_vf_sub(next, old)));
            fb_vf_store(sums + at, next);
            result[c] = fb_vf_fma(weight, next, result[c]);
        }
    }
    FB_UNROLL
    for (int c = 0; c < chunk; c++) {
        fb_vf_store(out + c * FB_VW, result[c]);
    }
}

/* G += phi(k) v^T and each head's phi(q) G; v is padded with zeros. */
static void linear_advance_sums(const struct linear_decode *d, const struct linear_state *state,
                                const struct linear_decode_scratch *s, const float *phi)
{
    const int64_t count = d->map->count;
    const int64_t ld = d->ld_value;
    float *errors = state->sums + count * ld;
    int64_t m = 0;
    for (; m + (int64_t)(FB_ROWS_CHUNK * FB_VW) <= ld; m += (int64_t)(FB_ROWS_CHUNK * FB_VW)) {
        linear_advance_columns(count, ld, FB_ROWS_CHUNK, state->sums + m, errors + m, phi,
                               s->value + m, s->queries, s->outs + m);
    }
    for (; m < ld; m += FB_VW) {
        linear_advance_columns(count, ld, 1, state->sums + m, errors + m, phi, s->value + m,
                               s->queries, s->outs + m);
    }
    if (d->group > 1) {
        FB_ISA_SYMBOL(fb_tile_gemm)
        (d->group - 1, ld, count, s->queries + d->ld_features, d->ld_features, 1, state->sums, ld,
         s->outs + ld, ld, false);
    }
}

static void linear_run_token(void *context, int64_t unit, int thread)
{
    const struct linear_decode *d = (const struct linear_decode *)context;
    const struct fb_problem *p = d->problem;
    const struct fb_call *call = d->call;
    const int64_t b = unit / p->kv_heads;
    const int64_t kv_head = unit % p->kv_heads;
    const float *phi = d->keys + unit * d->ld_features;
    struct linear_state state;
    struct linear_decode_scratch s;
    linear_state_at(d, (unsigned char *)call->decode_state + (size_t)unit * d->state_bytes, &state);
    linear_decode_scratch_at(d, d->thread_base + (size_t)thread * d->thread_bytes, &s);
    for (int64_t round = 0; round < d->group; round++) {
        const struct fb_row_range row = {b, kv_head * d->group + round, 0, 1, 1};
        d->map->queries(d->map->own, fb_rows_load(&call->q, row, s.room).rows, 0, 1,
                        s.queries + round * d->ld_features, d->ld_features);
    }
    fb_rows_carry_add(state.key_sum, state.key_sum + d->ld_features, phi, d->ld_features);
    fb_rows_zero(s.value, d->ld_value);
    fb_row_widen(p->dtype, fb_tensor_row(&call->v, b, kv_head, 0), p->v_dim, s.value);
    linear_advance_sums(d, &state, &s, phi);
    for (int64_t round = 0; round < d->group; round++) {
        float *out = s.outs + round * d->ld_value;
        const int64_t h = kv_head * d->group + round;
        float share;
        fb_rows_dot(s.queries + round * d->ld_features, 0, 1, d->ld_features, state.key_sum,
                    &share);
        share = 1.0F / (share + d->map->epsilon);
        fb_rows_scale_in_place(out, 0, 1, d->ld_value, &share);
        fb_row_narrow(p->dtype, out, p->v_dim, fb_tensor_row(&call->out, b, h, 0));
    }
}

/* Runs a planned step. */
static enum fb_status linear_decode_token(struct linear_decode *d, const struct fb_call *call,
                                          struct fb_error *error)
{
    d->call = call;
    fb_parallel_for(call->threads, d->units, linear_run_key, d);
    for (int64_t unit = 0; unit < d->units; unit++) {
        if (d->exponents[unit] > LINEAR_EXPONENT_MAX) {
            return fb_error_set(error, FB_ERROR_INPUT,
                                "a key's exponent is %g above key_stabiliser %g; the sums could "
                                "overflow beyond %g: pass a stabiliser near the largest exponent "
                                "that will occur",
                                (double)d->exponents[unit], call->key_stabiliser,
                                (double)LINEAR_EXPONENT_MAX);
        }
    }
    fb_parallel_for(call->threads, d->units, linear_run_token, d);
    return FB_OK;
}

#endif
