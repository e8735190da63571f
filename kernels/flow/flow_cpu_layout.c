/*
 * Fused Flow-Attention on the CPU, normal form: scratch memory, what is saved for the backward
 * pass, and how much of phi(k) is kept. See flow_cpu.c.
 */
#include "flow_normal.h"

#include "kernel_support.h"

#include <string.h>

static void make_shape(const struct fb_problem *p, bool backward, int threads, struct flow_shape *s)
{
    const struct fb_flow_options options = fb_flow_options_of(p);
    memset(s, 0, sizeof *s);
    s->backward = backward;
    s->units = p->batch * (backward ? p->kv_heads : p->heads);
    s->rounds = backward ? p->heads / p->kv_heads : 1;
    s->dim = p->qk_dim;
    s->value_dim = p->v_dim;
    s->cols = fb_vf_round_up(p->qk_dim);
    s->value_cols = fb_vf_round_up(p->v_dim);
    s->widest = s->cols > s->value_cols ? s->cols : s->value_cols;
    s->slices[FLOW_SINKS] = fb_flow_slicing_of(p->q_len).count;
    s->slices[FLOW_SOURCES] = fb_flow_slicing_of(p->kv_len).count;
    s->stretched = !backward && fb_flow_slicing_of(p->kv_len).slice > FLOW_STRETCH;
    const int64_t slices = s->slices[FLOW_SINKS] + s->slices[FLOW_SOURCES];
    const bool few = threads > 1 && s->units < 2 * (int64_t)threads && slices > 2;
    /* Heads that compete wait for each other between the phases. */
    s->split = few || options.competition == FB_FLOW_OVER_HEADS;
    s->workers = (int)flow_minimum(threads, s->split ? s->units * slices : s->units);
    s->narrow = p->dtype != FB_F32;
    s->parked = !backward && !s->narrow && s->dim % FB_VW == 0 && s->value_dim >= s->dim;
    s->turned = backward && !s->narrow && s->rounds == 1;
    s->held = backward && !s->narrow;
}

static void carve_totals(const struct flow_shape *s, struct fb_scratch_cursor *cursor,
                         struct flow_totals *totals)
{
    const struct flow_totals carved = {
        .source_sum = fb_scratch_take_f32(cursor, s->cols),
        .sink_sum = fb_scratch_take_f32(cursor, s->cols),
        .source_flow = fb_scratch_take_f32(cursor, s->cols),
        .sink_flow = fb_scratch_take_f32(cursor, s->cols),
        .product = fb_scratch_take_f32(cursor, s->dim * s->value_cols),
        .scale = fb_scratch_take_f32(cursor, 1),
        .peak = fb_scratch_take_f32(cursor, 1),
    };
    if (totals != NULL) {
        *totals = carved;
    }
}

static void carve_head(const struct flow_shape *s, struct fb_scratch_cursor *cursor,
                       struct flow_head *head)
{
    struct flow_head carved = {0};
    carved.wide = fb_scratch_take_f64(cursor, FLOW_VECTORS * s->cols);
    carved.normaliser = fb_scratch_take_f64(cursor, 1);
    if (s->backward) {
        carved.product_turned = fb_scratch_take_f32(cursor, s->value_dim * s->cols);
        carved.dproduct = fb_scratch_take_f32(cursor, s->dim * s->value_cols);
        carved.dproduct_turned = fb_scratch_take_f32(cursor, s->value_dim * s->cols);
        carved.moment = fb_scratch_take_f32(cursor, s->dim * s->cols);
        carved.dsource_flow = fb_scratch_take_f32(cursor, s->cols);
        carved.dsink_flow = fb_scratch_take_f32(cursor, s->cols);
        carved.dsource_sum = fb_scratch_take_f32(cursor, s->cols);
        carved.dsink_sum = fb_scratch_take_f32(cursor, s->cols);
        carved.moments[0] = fb_scratch_take_f32(cursor, s->cols);
        carved.moments[1] = fb_scratch_take_f32(cursor, s->cols);
        carved.mean = fb_scratch_take_f32(cursor, 1);
    } else {
        carve_totals(s, cursor, &carved.totals);
    }
    if (head != NULL) {
        *head = carved;
    }
}

static void carve_slot(const struct flow_shape *s, bool matrices, struct fb_scratch_cursor *cursor,
                       struct flow_slot *slot)
{
    struct flow_slot carved = {0};
    carved.vectors = fb_scratch_take_f32(cursor, FLOW_VECTORS * s->cols);
    if (matrices) {
        carved.product = fb_scratch_take_f32(cursor, s->dim * s->value_cols);
        carved.moment = s->backward ? fb_scratch_take_f32(cursor, s->dim * s->cols) : NULL;
        carved.peak = fb_scratch_take_f32(cursor, 1);
        carved.normaliser = fb_scratch_take_f64(cursor, 1);
    }
    if (slot != NULL) {
        *slot = carved;
    }
}

static void carve_worker(const struct flow_shape *s, struct fb_scratch_cursor *cursor,
                         struct flow_worker *worker)
{
    struct flow_worker carved = {0};
    carved.source_block = fb_scratch_take_f32(cursor, FLOW_BLOCK * s->cols);
    /* Forward needs copies of values that do not fill their vectors, and of parked queries that a
     * product in several panels would overwrite. */
    const bool copies = s->value_dim != s->value_cols || fb_flow_copies_sinks(s);
    carved.sink_block = fb_scratch_take_f32(cursor, s->parked ? 0 : FLOW_BLOCK * s->cols);
    carved.scaled = fb_scratch_take_f32(cursor, s->backward || copies ? FLOW_BLOCK * s->widest : 0);
    if (s->backward) {
        carved.turned = fb_scratch_take_f32(cursor, FLOW_BLOCK * s->cols);
    }
    if (s->narrow) {
        carved.raw = fb_scratch_take_f32(cursor, FLOW_BLOCK * s->widest);
        carved.values = fb_scratch_take_f32(cursor, FLOW_BLOCK * s->widest);
    }
    for (size_t i = 0; i < sizeof carved.scalar / sizeof carved.scalar[0]; i++) {
        carved.scalar[i] = fb_scratch_take_f32(cursor, FLOW_BLOCK);
    }
    carved.stretch = s->stretched ? fb_scratch_take_f32(cursor, s->dim * s->value_cols) : NULL;
    if (!s->backward && !s->split) {
        carve_slot(s, false, cursor, &carved.ahead);
    }
    carved.kept = fb_scratch_take_f32(cursor, s->kept * s->cols);
    if (worker != NULL) {
        *worker = carved;
    }
}

/* Lays the run's buffers out over scratch; with scratch NULL only counts. The tables of pointers
 * stand first. Forward, products are summed over sources; backward, over sinks. */
static size_t lay_out(const struct fb_problem *p, const struct flow_shape *s, void *scratch,
                      struct flow_run *run)
{
    struct fb_scratch_cursor cursor = {.base = scratch};
    const bool real = scratch != NULL;
    const int64_t heads = s->split ? s->units : s->workers * (s->backward ? 1 : 2);
    struct flow_head *head_table = fb_scratch_take(&cursor, heads, sizeof *head_table);
    struct flow_worker *workers = fb_scratch_take(&cursor, s->workers, sizeof *workers);
    struct flow_slot *slots[FLOW_SIDES];
    for (int side = 0; side < FLOW_SIDES; side++) {
        /* Forward, a thread's sums of the head at hand and of its next one run at the same time. */
        const int64_t count = s->split ? s->units * s->slices[side] : s->workers;
        const bool matrices = (side == FLOW_SINKS) == s->backward;
        slots[side] = fb_scratch_take(&cursor, count, sizeof *slots[side]);
        for (int64_t i = 0; i < count; i++) {
            carve_slot(s, matrices, &cursor, real ? &slots[side][i] : NULL);
        }
    }
    for (int64_t i = 0; i < heads; i++) {
        carve_head(s, &cursor, real ? &head_table[i] : NULL);
    }
    for (int i = 0; i < s->workers; i++) {
        carve_worker(s, &cursor, real ? &workers[i] : NULL);
    }
    const bool compete = fb_flow_options_of(p).competition == FB_FLOW_OVER_HEADS;
    const int64_t scores = compete ? p->batch * p->heads * p->kv_len : 0;
    float *alpha = fb_scratch_take_f32(&cursor, (s->split ? s->units : s->workers) * s->alpha);
    float *score_table = fb_scratch_take_f32(&cursor, scores);
    float *dscore_table = fb_scratch_take_f32(&cursor, s->backward ? scores : 0);
    if (run != NULL) {
        run->heads = head_table;
        run->workers = workers;
        memcpy(run->slots, slots, sizeof slots);
        run->scores = score_table;
        run->dscores = dscore_table;
        run->alpha = s->alpha > 0 ? alpha : NULL;
    }
    return cursor.used_bytes;
}

size_t fb_flow_normal_carve(const struct fb_problem *problem, bool backward, int threads,
                            void *scratch, struct flow_run *run)
{
    struct flow_shape shape;
    make_shape(problem, backward, threads, &shape);
    if (!backward) {
        /* Half of the linear part of the budget, at most. */
        const int64_t row = fb_vf_round_up(problem->q_len);
        const double bytes =
            (double)((shape.split ? shape.units : shape.workers) * row) * sizeof(float);
        shape.alpha = bytes <= 0.005 * fb_problem_bytes(problem, FB_FORWARD) ? row : 0;
    }
    if (!shape.split && !backward) {
        /* What the budget leaves after the fixed buffers goes into kept phi(k). */
        const double budget =
            0.01 * fb_problem_bytes(problem, FB_FORWARD) +
            24.0 * (double)(problem->batch * problem->heads * shape.dim * shape.value_dim);
        const double fixed = (double)lay_out(problem, &shape, NULL, NULL);
        const double tokens =
            (budget - fixed) / shape.workers / (double)(shape.cols * (int64_t)sizeof(float));
        shape.kept = tokens < FLOW_BLOCK ? 0
                                         : flow_minimum((int64_t)(tokens / FLOW_BLOCK) * FLOW_BLOCK,
                                                        problem->kv_len);
    }
    if (run != NULL) {
        run->shape = shape;
    }
    return lay_out(problem, &shape, scratch, run);
}

size_t fb_flow_saved_bytes(const struct fb_problem *problem, void *base, struct flow_totals *totals)
{
    struct flow_shape shape;
    make_shape(problem, false, 1, &shape);
    struct fb_scratch_cursor cursor = {.base = base};
    carve_totals(&shape, &cursor, totals);
    return cursor.used_bytes;
}
