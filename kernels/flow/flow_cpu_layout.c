/*
 * Fused Flow-Attention on the CPU, normal form: slices, scratch memory and how much of phi(k) is
 * kept. See flow_cpu.c.
 */
#include "flow_normal.h"

#include "kernel_support.h"

static struct flow_slicing make_slicing(int64_t length)
{
    const int64_t count =
        flow_minimum((length + FLOW_SLICE_MIN - 1) / FLOW_SLICE_MIN, FLOW_SLICES_MAX);
    const int64_t blocks = (length + FLOW_BLOCK - 1) / FLOW_BLOCK;
    const int64_t slice = (blocks + count - 1) / count * FLOW_BLOCK;
    return (struct flow_slicing){
        .length = length, .slice = slice, .count = (length + slice - 1) / slice};
}

static void make_shape(const struct fb_problem *p, int threads, struct flow_shape *s)
{
    *s = (struct flow_shape){
        .heads = p->batch * p->heads,
        .sinks = p->q_len,
        .sources = p->kv_len,
        .dim = p->qk_dim,
        .value_dim = p->v_dim,
        .cols = fb_vf_round_up(p->qk_dim),
        .value_cols = fb_vf_round_up(p->v_dim),
        .sink_slices = make_slicing(p->q_len),
        .source_slices = make_slicing(p->kv_len),
        .ratio = (float)((double)p->q_len / (double)p->kv_len),
    };
    const int64_t slices = s->sink_slices.count + s->source_slices.count;
    s->split = threads > 1 && s->heads < 2 * (int64_t)threads && slices > 2;
    s->workers = (int)flow_minimum(threads, s->split ? s->heads * slices : s->heads);
    s->parked = s->dim % FB_VW == 0 && s->value_dim >= s->dim;
}

static void carve_state(const struct flow_shape *s, struct fb_scratch_cursor *cursor,
                        struct flow_head *state)
{
    const struct flow_head carved = {
        .wide = fb_scratch_take_f64(cursor, s->cols),
        .source_sum = fb_scratch_take_f32(cursor, s->cols),
        .sink_sum = fb_scratch_take_f32(cursor, s->cols),
        .source_flow = fb_scratch_take_f32(cursor, s->cols),
        .sink_flow = fb_scratch_take_f32(cursor, s->cols),
        .product = fb_scratch_take_f32(cursor, s->dim * s->value_cols),
        .normaliser = fb_scratch_take_f64(cursor, 1),
    };
    if (state != NULL) {
        *state = carved;
    }
}

static void carve_slot(const struct flow_shape *s, bool product, struct fb_scratch_cursor *cursor,
                       struct flow_slot *slot)
{
    const struct flow_slot carved = {
        .vector = fb_scratch_take_f32(cursor, s->cols),
        .product = product ? fb_scratch_take_f32(cursor, s->dim * s->value_cols) : NULL,
        .normaliser = product ? fb_scratch_take_f64(cursor, 1) : NULL,
    };
    if (slot != NULL) {
        *slot = carved;
    }
}

static void carve_worker(const struct flow_shape *s, struct fb_scratch_cursor *cursor,
                         struct flow_worker *worker)
{
    const int64_t widest = s->cols > s->value_cols ? s->cols : s->value_cols;
    const struct flow_worker carved = {
        .source_block = fb_scratch_take_f32(cursor, FLOW_BLOCK * s->cols),
        .sink_block = fb_scratch_take_f32(cursor, FLOW_BLOCK * s->cols),
        .scaled = fb_scratch_take_f32(cursor, FLOW_BLOCK * widest),
        .scalar = {fb_scratch_take_f32(cursor, FLOW_BLOCK),
                   fb_scratch_take_f32(cursor, FLOW_BLOCK)},
        .kept = fb_scratch_take_f32(cursor, s->kept * s->cols),
    };
    if (worker != NULL) {
        *worker = carved;
    }
}

/* Lays the run's buffers out over scratch; with scratch NULL only counts. The tables of pointers
 * stand first. Returns the bytes used. */
static size_t lay_out(const struct flow_shape *s, void *scratch, struct flow_run *run)
{
    struct fb_scratch_cursor cursor = {.base = scratch};
    const bool real = scratch != NULL;
    const int64_t states = s->split ? s->heads : s->workers;
    const int64_t sources = s->split ? s->heads * s->source_slices.count : s->workers;
    const int64_t sinks = s->split ? s->heads * s->sink_slices.count : 0;
    struct flow_head *heads = fb_scratch_take(&cursor, states, sizeof *heads);
    struct flow_slot *source_slots = fb_scratch_take(&cursor, sources, sizeof *source_slots);
    struct flow_slot *sink_slots = fb_scratch_take(&cursor, sinks, sizeof *sink_slots);
    struct flow_worker *workers = fb_scratch_take(&cursor, s->workers, sizeof *workers);
    for (int64_t i = 0; i < states; i++) {
        carve_state(s, &cursor, real ? &heads[i] : NULL);
    }
    for (int64_t i = 0; i < sources; i++) {
        carve_slot(s, true, &cursor, real ? &source_slots[i] : NULL);
    }
    for (int64_t i = 0; i < sinks; i++) {
        carve_slot(s, false, &cursor, real ? &sink_slots[i] : NULL);
    }
    for (int i = 0; i < s->workers; i++) {
        carve_worker(s, &cursor, real ? &workers[i] : NULL);
    }
    if (run != NULL) {
        run->heads = heads;
        run->source_slots = source_slots;
        run->sink_slots = sink_slots;
        run->workers = workers;
    }
    return cursor.used_bytes;
}

size_t fb_flow_normal_carve(const struct fb_problem *problem, int threads, void *scratch,
                            struct flow_run *run)
{
    struct flow_shape shape;
    make_shape(problem, threads, &shape);
    if (!shape.split) {
        /* What the budget leaves after the fixed buffers goes into kept phi(k). */
        const double budget = 0.01 * fb_problem_bytes(problem, FB_FORWARD) +
                              24.0 * (double)(shape.heads * shape.dim * shape.value_dim);
        const double spare = (budget - (double)lay_out(&shape, NULL, NULL)) / shape.workers;
        const int64_t tokens = (int64_t)(spare / (double)(shape.cols * (int64_t)sizeof(float)));
        shape.kept =
            tokens < FLOW_BLOCK ? 0 : flow_minimum(tokens / FLOW_BLOCK * FLOW_BLOCK, shape.sources);
    }
    if (run != NULL) {
        run->shape = shape;
    }
    return lay_out(&shape, scratch, run);
}
