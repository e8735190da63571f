/*
 * Fused Flow-Attention on the CPU, causal form: the backward pass of a head on one thread. The
 * steps of a chunk, and what they compute, are in flow_cpu_causal_gradient.c.
 */
#include "flow_causal_gradient.h"
#include "flow_causal_rounds.h"
#include "flow_cpu.h"

#include "parallel.h"

#include <string.h>

/* Buffers of a thread that walks a head; states: of the segment at hand, [FLOW_SEGMENT]. */
static size_t carve_gradient(const struct flow_causal_shape *shape, void *base,
                             struct flow_gradient_scratch *s, unsigned char **states)
{
    struct fb_scratch_cursor cursor = fb_scratch_at(base);
    memset(s, 0, sizeof *s);
    fb_flow_gradient_take_chunk(shape, &cursor, s);
    fb_flow_gradient_take_thread(shape, &cursor, s);
    fb_flow_gradient_take_state(shape, &cursor, s);
    *states = fb_scratch_take(&cursor, FLOW_SEGMENT, fb_flow_causal_state_size(shape));
    return cursor.used_bytes;
}

size_t fb_flow_gradient_bytes(const struct flow_causal_shape *shape)
{
    struct flow_gradient_scratch counted;
    unsigned char *states;
    return shape->worker_bytes + carve_gradient(shape, NULL, &counted, &states);
}

/* A head that a thread walks. */
struct walk {
    struct flow_gradient_task task;
    struct flow_chunk x;
    struct flow_gradient_chunk y;
    unsigned char *states; /* [FLOW_SEGMENT] states of the segment at hand */
    double carried_t;      /* T of the chunk after, seen from the end of this one */
};

/* v += sum_i weight_i (x_i + eps), compensated. */
static void carry_lifted(const struct flow_gradient_task *t, const float *x, const float *weight,
                         const struct flow_carried *v)
{
    fb_flow_gradient_lift(t, x, weight, t->forward.part);
    fb_rows_carry_add(v->value, v->error, t->forward.part, t->shape->cols);
}

/* Moves the carried sums past the chunk. */
static void carry_back(const struct flow_gradient_task *t)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    carry_lifted(t, f->q, t->y->dc, &t->own.du);
    carry_lifted(t, f->k, t->y->dflow, &t->own.dw);
    carry_lifted(t, f->q, t->y->da, &t->own.as);
    carry_lifted(t, f->k, t->y->db, &t->own.bs);
    fb_flow_gradient_weigh(t);
    fb_rows_carry_add(t->own.suffix, t->own.suffix_error, f->part, shape->dim * shape->value_cols);
}

/* What the chunk before first will read and write beside what rebuilding it has read. */
static struct fb_tile_extra chunk_before(const struct flow_gradient_task *t, int64_t first)
{
    const struct fb_call *call = t->shape->call;
    const int64_t rows = flow_smaller(FLOW_CHUNK, first);
    const struct fb_row_range sinks = {t->batch, t->head, first - rows, 1, rows};
    const struct fb_row_range sources = {t->batch, t->kv_head, first - rows, 1, rows};
    return (struct fb_tile_extra){
        .fetch = {fb_rows_range(&call->dout, sinks), fb_rows_range(&call->dq, sinks),
                  fb_rows_range(&call->dk, sources), fb_rows_range(&call->dv, sources)}};
}

static void reverse_chunk(struct walk *w, int64_t first, int64_t rows, const void *state)
{
    struct flow_gradient_task *t = &w->task;
    struct flow_normaliser normaliser;
    struct fb_tile_extra fetch = chunk_before(t, first);
    t->forward.fetch = &fetch;
    t->first = first;
    fb_flow_causal_load(t->shape, state, &t->forward, &normaliser);
    fb_flow_causal_visit(t->shape, t->batch, t->head, first, rows, &t->forward, &normaliser, t->x);
    fb_flow_gradient_load(t);
    fb_flow_gradient_pull_before(t);
    fb_flow_gradient_pull_after(t);
    fb_flow_gradient_conserved(t);
    fb_flow_gradient_outgoing(t);
    fb_flow_gradient_chain(t->shape, t->x, t->y, &w->carried_t);
    fb_flow_gradient_incoming(t);
    fb_flow_gradient_emit(t);
    carry_back(t);
    t->forward.fetch = NULL;
}

/* What rebuilding reads of the chunk that begins at first, which need not be whole. */
static struct fb_tile_extra chunk_after(const struct flow_gradient_task *t, int64_t first)
{
    const struct fb_call *call = t->shape->call;
    const int64_t rows =
        flow_smaller(FLOW_CHUNK, fb_problem_queries(t->shape->problem, t->batch) - first);
    const struct fb_row_range sinks = {t->batch, t->head, first, 1, rows};
    const struct fb_row_range sources = {t->batch, t->kv_head, first, 1, rows};
    return (struct fb_tile_extra){.fetch = {fb_rows_range(&call->q, sinks),
                                            fb_rows_range(&call->k, sources),
                                            fb_rows_range(&call->v, sources)}};
}

/* States of the chunks first_chunk .. first_chunk+count-1, from the saved state of the first. */
static void rebuild_segment(struct walk *w, const void *saved, int64_t first_chunk, int64_t count)
{
    struct flow_gradient_task *t = &w->task;
    const size_t state_bytes = fb_flow_causal_state_size(t->shape);
    struct flow_normaliser normaliser;
    fb_flow_causal_load(t->shape, saved, &t->forward, &normaliser);
    for (int64_t i = 0; i < count; i++) {
        fb_flow_causal_store(t->shape, &t->forward, &normaliser,
                             w->states + (size_t)i * state_bytes);
        if (i + 1 < count) {
            const int64_t first = (first_chunk + i) * FLOW_CHUNK;
            struct fb_tile_extra fetch = chunk_after(t, first + FLOW_CHUNK);
            t->forward.fetch = &fetch;
            fb_flow_causal_visit(t->shape, t->batch, t->head, first, FLOW_CHUNK, &t->forward,
                                 &normaliser, t->x);
            fb_flow_causal_carry(t->shape, t->batch, t->head, first, &t->forward, t->x);
            t->forward.fetch = NULL;
        }
    }
}

static void backward_head(struct walk *w)
{
    const struct flow_gradient_task *t = &w->task;
    const struct flow_causal_shape *shape = t->shape;
    const struct fb_problem *p = shape->problem;
    const size_t state_bytes = fb_flow_causal_state_size(shape);
    const int64_t length = fb_problem_queries(p, t->batch);
    const int64_t chunks = (length + FLOW_CHUNK - 1) / FLOW_CHUNK;
    const int64_t segments = (chunks + FLOW_SEGMENT - 1) / FLOW_SEGMENT;
    const int64_t index = (t->batch * p->heads + t->head) * fb_flow_causal_segments(p);
    const unsigned char *saved = shape->call->saved;
    const struct flow_carried *const carried[4] = {&t->own.du, &t->own.dw, &t->own.as, &t->own.bs};
    for (int i = 0; i < 4; i++) {
        fb_rows_zero(carried[i]->value, shape->cols);
        fb_rows_zero(carried[i]->error, shape->cols);
    }
    fb_rows_zero(t->own.suffix, shape->dim * shape->value_cols);
    fb_rows_zero(t->own.suffix_error, shape->dim * shape->value_cols);
    w->carried_t = 0.0;
    for (int64_t segment = segments - 1; segment >= 0; segment--) {
        const int64_t first_chunk = segment * FLOW_SEGMENT;
        const int64_t count = flow_smaller(FLOW_SEGMENT, chunks - first_chunk);
        rebuild_segment(w, saved + (size_t)(index + segment) * state_bytes, first_chunk, count);
        for (int64_t i = count - 1; i >= 0; i--) {
            const int64_t first = (first_chunk + i) * FLOW_CHUNK;
            reverse_chunk(w, first, flow_smaller(FLOW_CHUNK, length - first),
                          w->states + (size_t)i * state_bytes);
        }
    }
}

/* A unit is a key-value head: its group of query heads adds up in dk and dv. */
static void backward_unit(void *context, int64_t unit, int thread)
{
    const struct flow_causal_shape *shape = context;
    const struct fb_problem *p = shape->problem;
    const int64_t group = p->heads / p->kv_heads;
    struct walk walk;
    memset(&walk, 0, sizeof walk);
    struct flow_gradient_task *t = &walk.task;
    t->shape = shape;
    t->x = &walk.x;
    t->y = &walk.y;
    t->batch = unit / p->kv_heads;
    t->kv_head = unit % p->kv_heads;
    unsigned char *base =
        (unsigned char *)shape->call->scratch + (size_t)thread * fb_flow_gradient_bytes(shape);
    fb_flow_causal_carve(shape, base, &t->forward);
    fb_flow_causal_fill_ones(shape, t->forward.ones);
    carve_gradient(shape, base + shape->worker_bytes, &t->own, &walk.states);
    for (int64_t i = 0; i < group; i++) {
        t->head = t->kv_head * group + i;
        t->add = i > 0;
        backward_head(&walk);
    }
}

void fb_flow_causal_backward(const struct fb_problem *problem, const struct fb_call *call)
{
    struct flow_causal_shape shape;
    fb_flow_causal_shape_of(problem, call, &shape);
    const int64_t units = problem->batch * problem->kv_heads;
    const int64_t alone = units - fb_flow_shared_count(problem, units, call->threads);
    fb_parallel_for(call->threads, alone, backward_unit, &shape);
    if (alone < units) {
        fb_flow_rounds_backward(&shape, alone);
    }
}
