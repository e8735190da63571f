/*
 * Fused Flow-Attention on the CPU, causal form: scratch memory, and the state between two chunks.
 */
#include "flow_causal.h"

#include <string.h>

/* ---- shape, scratch and state -------------------------------------------------------------- */

static struct flow_carried take_carried(struct fb_scratch_cursor *cursor, int64_t cols)
{
    return (struct flow_carried){fb_scratch_take_f32(cursor, cols),
                                 fb_scratch_take_f32(cursor, cols),
                                 fb_scratch_take_f32(cursor, cols)};
}

void fb_flow_causal_take_thread(const struct flow_causal_shape *shape,
                                struct fb_scratch_cursor *cursor, struct flow_causal_scratch *s)
{
    const enum fb_dtype dtype = shape->problem->dtype;
    const int64_t widest = shape->cols > shape->value_cols ? shape->cols : shape->value_cols;
    s->turned = fb_scratch_take_f32(cursor, FLOW_CHUNK * shape->cols);
    s->lower = fb_scratch_take_f32(cursor, FLOW_CHUNK * FLOW_CHUNK);
    s->ones = fb_scratch_take_f32(cursor, shape->cols);
    s->raw = fb_scratch_take_f32(cursor, fb_row_room(dtype, FLOW_CHUNK, shape->dim));
    s->values = fb_scratch_take_f32(cursor, fb_row_room(dtype, FLOW_CHUNK, shape->value_dim));
    s->result = fb_scratch_take_f32(cursor, fb_row_room(dtype, FLOW_CHUNK, widest));
}

void fb_flow_causal_take_chunk(const struct flow_causal_shape *shape,
                               struct fb_scratch_cursor *cursor, struct flow_causal_scratch *s)
{
    const int64_t matrix = shape->dim * shape->value_cols;
    s->q = fb_scratch_take_f32(cursor, FLOW_CHUNK * shape->cols);
    s->k = fb_scratch_take_f32(cursor, FLOW_CHUNK * shape->cols);
    s->scores = fb_scratch_take_f32(cursor, FLOW_CHUNK * FLOW_CHUNK);
    s->weighted = fb_scratch_take_f32(cursor, FLOW_CHUNK * shape->value_cols);
    s->part = fb_scratch_take_f32(cursor, matrix > shape->cols ? matrix : shape->cols);
}

void fb_flow_causal_take_vectors(const struct flow_causal_shape *shape,
                                 struct fb_scratch_cursor *cursor, struct flow_causal_scratch *s)
{
    s->keys = take_carried(cursor, shape->cols);
    s->queries = take_carried(cursor, shape->cols);
    s->u = take_carried(cursor, shape->cols);
    s->w = take_carried(cursor, shape->cols);
}

void fb_flow_causal_take_state(const struct flow_causal_shape *shape,
                               struct fb_scratch_cursor *cursor, struct flow_causal_scratch *s)
{
    s->product = fb_scratch_take_f32(cursor, shape->dim * shape->value_cols);
    s->product_error = fb_scratch_take_f32(cursor, shape->dim * shape->value_cols);
    fb_flow_causal_take_vectors(shape, cursor, s);
}

size_t fb_flow_causal_carve(const struct flow_causal_shape *shape, void *base,
                            struct flow_causal_scratch *s)
{
    struct fb_scratch_cursor cursor = fb_scratch_at(base);
    memset(s, 0, sizeof *s);
    fb_flow_causal_take_chunk(shape, &cursor, s);
    fb_flow_causal_take_thread(shape, &cursor, s);
    fb_flow_causal_take_state(shape, &cursor, s);
    return cursor.used_bytes;
}

void fb_flow_causal_shape_of(const struct fb_problem *problem, const struct fb_call *call,
                             struct flow_causal_shape *shape)
{
    *shape = (struct flow_causal_shape){
        .problem = problem,
        .call = call,
        .options = fb_flow_options_of(problem),
        .dim = problem->qk_dim,
        .value_dim = problem->v_dim,
        .cols = fb_vf_round_up(problem->qk_dim),
        .value_cols = fb_vf_round_up(problem->v_dim),
    };
    struct flow_causal_scratch counted;
    shape->worker_bytes = fb_flow_causal_carve(shape, NULL, &counted);
}

void fb_flow_causal_fill_ones(const struct flow_causal_shape *shape, float *ones)
{
    for (int64_t j = 0; j < shape->cols; j++) {
        ones[j] = j < shape->dim ? 1.0F : 0.0F;
    }
}

static void clear_carried(const struct flow_carried *v, int64_t cols)
{
    fb_rows_zero(v->value, cols);
    fb_rows_zero(v->error, cols);
    fb_rows_zero(v->operand, cols);
}

void fb_flow_causal_clear_vectors(const struct flow_causal_shape *shape,
                                  struct flow_causal_scratch *s)
{
    clear_carried(&s->keys, shape->cols);
    clear_carried(&s->queries, shape->cols);
    clear_carried(&s->u, shape->cols);
    clear_carried(&s->w, shape->cols);
}

void fb_flow_causal_reset(const struct flow_causal_shape *shape, struct flow_causal_scratch *s,
                          struct flow_normaliser *normaliser)
{
    fb_rows_zero(s->product, shape->dim * shape->value_cols);
    fb_rows_zero(s->product_error, shape->dim * shape->value_cols);
    fb_flow_causal_clear_vectors(shape, s);
    *normaliser = (struct flow_normaliser){0.0, shape->options.online ? -INFINITY : 0.0F};
}

size_t fb_flow_causal_carve_state(const struct flow_causal_shape *shape, void *base,
                                  struct flow_stored_state *state)
{
    struct fb_scratch_cursor cursor = {.base = base};
    state->normaliser = fb_scratch_take(&cursor, 1, sizeof *state->normaliser);
    for (int i = 0; i < 4; i++) {
        state->vectors[i] = fb_scratch_take_f32(&cursor, shape->cols);
    }
    state->product = fb_scratch_take_f32(&cursor, shape->dim * shape->value_cols);
    return cursor.used_bytes;
}

size_t fb_flow_causal_state_size(const struct flow_causal_shape *shape)
{
    struct flow_stored_state counted;
    return fb_flow_causal_carve_state(shape, NULL, &counted);
}

void fb_flow_causal_store(const struct flow_causal_shape *shape,
                          const struct flow_causal_scratch *s,
                          const struct flow_normaliser *normaliser, void *memory)
{
    struct flow_stored_state state;
    fb_flow_causal_carve_state(shape, memory, &state);
    const float *const values[4] = {s->keys.value, s->queries.value, s->u.value, s->w.value};
    *state.normaliser = *normaliser;
    for (int i = 0; i < 4; i++) {
        memcpy(state.vectors[i], values[i], (size_t)shape->cols * sizeof(float));
    }
    memcpy(state.product, s->product, (size_t)(shape->dim * shape->value_cols) * sizeof(float));
}

void fb_flow_causal_load(const struct flow_causal_shape *shape, const void *memory,
                         struct flow_causal_scratch *s, struct flow_normaliser *normaliser)
{
    struct flow_stored_state state;
    fb_flow_causal_carve_state(shape, (void *)(uintptr_t)memory, &state);
    fb_flow_causal_reset(shape, s, normaliser);
    float *const values[4] = {s->keys.value, s->queries.value, s->u.value, s->w.value};
    *normaliser = *state.normaliser;
    for (int i = 0; i < 4; i++) {
        memcpy(values[i], state.vectors[i], (size_t)shape->cols * sizeof(float));
    }
    memcpy(s->product, state.product, (size_t)(shape->dim * shape->value_cols) * sizeof(float));
}
