/*
 * Fused Flow-Attention on the CPU, causal form: the backward pass of heads that threads share. The
 * steps of a chunk are those of flow_cpu_causal_gradient.c, rounds and their rules those of
 * flow_cpu_causal_rounds.c.
 *
 * A round has whole segments, from the last to the first. Its states are rebuilt as forward makes
 * them, each segment from the state saved before it; what a chunk needs of those after it is added
 * up from the last chunk to the first:
 *
 *   pull      V, M g                          parts of R, added up by rows of the matrix
 *   after     R v, dr, dp, dc                 parts of dU, added up per head; there do, from T
 *   outgoing  db                              parts of dW and Bs
 *   incoming  da                              parts of As
 *   emit      dq, dk, dv, then the first step of the round before
 *
 * Query heads of a group, whose gradients of keys and values add up, come one after another.
 */
#include "flow_causal_gradient.h"
#include "flow_causal_rounds.h"

#include "parallel.h"

#include <assert.h>
#include <string.h>

struct gradient_place {
    struct flow_gradient_scratch own; /* vectors: what the chunk adds, then what is after it */
    struct flow_gradient_chunk y;
};

struct gradient_state {
    struct flow_gradient_scratch own; /* only the state */
    double carried_t;
};

struct gradient_rounds {
    struct flow_rounds forward;
    int64_t first_unit, member;          /* of the group */
    struct gradient_place *places;       /* [heads][chunks] */
    struct gradient_state *states;       /* [heads] */
    struct flow_gradient_scratch *rooms; /* [threads], only the thread's own */
};

/* ---- scratch -------------------------------------------------------------------------------- */

/* The chunk's own matrix holds M, then the chunk's part of R, then R. */
static void lay_out_place(const struct flow_causal_shape *shape, struct fb_scratch_cursor *cursor,
                          const struct flow_causal_scratch *forward, struct gradient_place *place)
{
    struct flow_carried *const vectors[4] = {&place->own.du, &place->own.dw, &place->own.as,
                                             &place->own.bs};
    memset(place, 0, sizeof *place);
    fb_flow_gradient_take_chunk(shape, cursor, &place->own);
    for (int i = 0; i < 4; i++) {
        vectors[i]->value = fb_scratch_take_f32(cursor, shape->cols);
    }
    place->own.suffix = forward->part;
}

static size_t plan_backward(const struct flow_causal_shape *shape, int64_t first_unit, int threads,
                            void *scratch, struct gradient_rounds *run)
{
    const struct fb_problem *p = shape->problem;
    const int64_t units = p->batch * p->kv_heads - first_unit;
    const int64_t segment = FLOW_SEGMENT * units; /* chunks */
    const int64_t segments = ((int64_t)threads * FLOW_THREAD_CHUNKS + segment - 1) / segment;
    const int64_t length = (p->q_len + FLOW_CHUNK - 1) / FLOW_CHUNK;
    struct fb_scratch_cursor cursor = fb_scratch_at(scratch);
    struct gradient_place counted_place;
    struct gradient_state counted_state;
    struct flow_gradient_scratch counted;
    *run = (struct gradient_rounds){.first_unit = first_unit};
    fb_flow_rounds_plan(shape, units, flow_smaller(segments * FLOW_SEGMENT, length), threads,
                        &cursor, &run->forward);
    const int64_t places = units * run->forward.chunks;
    run->places = fb_scratch_take(&cursor, places, sizeof *run->places);
    run->states = fb_scratch_take(&cursor, units, sizeof *run->states);
    run->rooms = fb_scratch_take(&cursor, run->forward.threads, sizeof *run->rooms);
    const struct flow_causal_scratch none = {.part = NULL};
    for (int64_t i = 0; i < places; i++) {
        lay_out_place(shape, &cursor, scratch == NULL ? &none : &run->forward.places[i].s,
                      scratch == NULL ? &counted_place : &run->places[i]);
    }
    for (int64_t i = 0; i < units; i++) {
        struct gradient_state *state = scratch == NULL ? &counted_state : &run->states[i];
        fb_flow_gradient_take_state(shape, &cursor, &state->own);
    }
    for (int i = 0; i < run->forward.threads; i++) {
        fb_flow_gradient_take_thread(shape, &cursor, scratch == NULL ? &counted : &run->rooms[i]);
    }
    return cursor.used_bytes;
}

size_t fb_flow_rounds_gradient_bytes(const struct flow_causal_shape *shape, int64_t first_unit,
                                     int threads)
{
    struct gradient_rounds counted;
    return plan_backward(shape, first_unit, threads, NULL, &counted);
}

/* ---- adding up, from the last chunk to the first -------------------------------------------- */

static void pass_vector(const struct flow_causal_shape *shape, const struct flow_carried *state,
                        const struct flow_carried *part)
{
    fb_flow_pass_through(state->value, state->error, part->value, shape->cols);
}

static void pass_after(const struct flow_rounds *run, int64_t head)
{
    const struct gradient_rounds *back = run->gradient;
    struct gradient_state *state = &back->states[head];
    for (int64_t at = (head + 1) * run->chunks - 1; at >= head * run->chunks; at--) {
        if (run->places[at].x.rows > 0) {
            pass_vector(run->shape, &state->own.du, &back->places[at].own.du);
            fb_flow_gradient_chain(run->shape, &run->places[at].x, &back->places[at].y,
                                   &state->carried_t);
        }
    }
}

static void pass_outgoing(const struct flow_rounds *run, int64_t head)
{
    const struct gradient_rounds *back = run->gradient;
    const struct gradient_state *state = &back->states[head];
    for (int64_t at = (head + 1) * run->chunks - 1; at >= head * run->chunks; at--) {
        if (run->places[at].x.rows > 0) {
            pass_vector(run->shape, &state->own.dw, &back->places[at].own.dw);
            pass_vector(run->shape, &state->own.bs, &back->places[at].own.bs);
        }
    }
}

static void pass_incoming(const struct flow_rounds *run, int64_t head)
{
    const struct gradient_rounds *back = run->gradient;
    const struct gradient_state *state = &back->states[head];
    for (int64_t at = (head + 1) * run->chunks - 1; at >= head * run->chunks; at--) {
        if (run->places[at].x.rows > 0) {
            pass_vector(run->shape, &state->own.as, &back->places[at].own.as);
        }
    }
}

static void pass_suffix(void *context, int64_t task, int thread)
{
    const struct flow_rounds *run = context;
    const struct gradient_rounds *back = run->gradient;
    const struct flow_matrix_slice slice = fb_flow_matrix_slice_of(run, task);
    const struct flow_gradient_scratch *state = &back->states[slice.head].own;
    const int64_t begin = slice.head * run->chunks;
    (void)thread;
    for (int64_t at = begin + run->chunks - 1; at >= begin; at--) {
        if (run->places[at].x.rows > 0) {
            fb_flow_pass_through(state->suffix + slice.at, state->suffix_error + slice.at,
                                 back->places[at].own.suffix + slice.at, slice.count);
        }
    }
}

/* ---- steps of a chunk ----------------------------------------------------------------------- */

/* The place's chunk with its buffers and those of the thread. False: the place has none. */
static bool open_task(const struct flow_rounds *run, int64_t at, int thread,
                      struct flow_gradient_task *t)
{
    const struct gradient_rounds *back = run->gradient;
    struct flow_place *place = &run->places[at];
    const struct flow_gradient_scratch *room = &back->rooms[thread];
    *t = (struct flow_gradient_task){
        .shape = run->shape,
        .forward = fb_flow_rounds_join(run, at, thread),
        .own = back->places[at].own,
        .x = &place->x,
        .y = &back->places[at].y,
        .batch = place->batch,
        .head = place->head,
        .kv_head = fb_flow_kv_head(run->shape->problem, place->head),
        .first = place->first,
        .add = back->member > 0,
    };
    t->own.mixed = room->mixed;
    t->own.turned = room->turned;
    t->own.exchanged = room->exchanged;
    t->own.scaled = room->scaled;
    t->own.room = room->room;
    return place->x.rows > 0;
}

static void visit_pull(const struct flow_rounds *run, int64_t at, int thread)
{
    struct flow_gradient_task t;
    if (open_task(run, at, thread, &t)) {
        fb_flow_gradient_load(&t);
        fb_flow_gradient_pull_before(&t);
        fb_flow_gradient_weigh(&t);
    }
}

static void visit_after(const struct flow_rounds *run, int64_t at, int thread)
{
    struct flow_gradient_task t;
    if (open_task(run, at, thread, &t)) {
        fb_flow_gradient_load(&t);
        fb_flow_gradient_pull_after(&t);
        fb_flow_gradient_conserved(&t);
        fb_flow_gradient_lift(&t, t.forward.q, t.y->dc, t.own.du.value);
    }
}

static void visit_outgoing(const struct flow_rounds *run, int64_t at, int thread)
{
    struct flow_gradient_task t;
    if (open_task(run, at, thread, &t)) {
        fb_flow_gradient_outgoing(&t);
        fb_flow_gradient_lift(&t, t.forward.k, t.y->dflow, t.own.dw.value);
        fb_flow_gradient_lift(&t, t.forward.k, t.y->db, t.own.bs.value);
    }
}

static void visit_incoming(const struct flow_rounds *run, int64_t at, int thread)
{
    struct flow_gradient_task t;
    if (open_task(run, at, thread, &t)) {
        fb_flow_gradient_incoming(&t);
        fb_flow_gradient_lift(&t, t.forward.q, t.y->da, t.own.as.value);
    }
}

static void visit_emit(const struct flow_rounds *run, int64_t at, int thread)
{
    struct flow_gradient_task t;
    if (open_task(run, at, thread, &t)) {
        fb_flow_gradient_load(&t);
        fb_flow_gradient_emit(&t);
        run->places[at].x.rows = 0;
    }
}

/* The last step of the round after, and the first of this one. */
static void visit_emit_and_begin(const struct flow_rounds *run, int64_t at, int thread)
{
    const struct flow_causal_scratch s = fb_flow_rounds_join(run, at, thread);
    visit_emit(run, at, thread);
    fb_flow_rounds_begin(run, &run->places[at], &s);
}

/* ---- rounds --------------------------------------------------------------------------------- */

/* The next query head of every group, and nothing after its last chunk. Returns the tokens of the
 * longest. */
static int64_t begin_heads(struct gradient_rounds *back)
{
    const struct flow_rounds *run = &back->forward;
    const struct fb_problem *p = run->shape->problem;
    int64_t longest = 0;
    for (int64_t i = 0; i < run->heads; i++) {
        const int64_t unit = back->first_unit + i;
        struct flow_gradient_scratch *s = &back->states[i].own;
        const struct flow_carried *const carried[4] = {&s->du, &s->dw, &s->as, &s->bs};
        for (int j = 0; j < 4; j++) {
            fb_rows_zero(carried[j]->value, run->shape->cols);
            fb_rows_zero(carried[j]->error, run->shape->cols);
        }
        fb_rows_zero(s->suffix, run->shape->dim * run->shape->value_cols);
        fb_rows_zero(s->suffix_error, run->shape->dim * run->shape->value_cols);
        back->states[i].carried_t = 0.0;
        for (int64_t j = 0; j < run->chunks; j++) {
            struct flow_place *place = &run->places[i * run->chunks + j];
            place->batch = unit / p->kv_heads;
            place->head = unit % p->kv_heads * (p->heads / p->kv_heads) + back->member;
        }
        const int64_t length = fb_problem_queries(p, unit / p->kv_heads);
        longest = length > longest ? length : longest;
    }
    return longest;
}

static void run_round(struct flow_rounds *run)
{
    static const struct flow_step begin = {visit_emit_and_begin, fb_flow_pass_sides};
    static const struct flow_step pull = {visit_pull, NULL};
    static const struct flow_step after = {visit_after, pass_after};
    static const struct flow_step outgoing = {visit_outgoing, pass_outgoing};
    static const struct flow_step incoming = {visit_incoming, pass_incoming};
    fb_flow_rounds_step(run, &begin);
    fb_flow_rounds_states(run);
    fb_flow_rounds_step(run, &pull);
    fb_parallel_for(run->threads, fb_flow_matrix_slices(run), pass_suffix, run);
    fb_flow_rounds_step(run, &after);
    fb_flow_rounds_step(run, &outgoing);
    fb_flow_rounds_step(run, &incoming);
}

void fb_flow_rounds_backward(const struct flow_causal_shape *shape, int64_t first_unit)
{
    static const struct flow_step last = {visit_emit, NULL};
    struct gradient_rounds back;
    assert(shape->call->scratch != NULL);
    plan_backward(shape, first_unit, shape->call->threads, shape->call->scratch, &back);
    struct flow_rounds *run = &back.forward;
    run->restarts = true;
    run->gradient = &back;
    fb_flow_rounds_reset(run);
    const int64_t group = shape->problem->heads / shape->problem->kv_heads;
    for (back.member = 0; back.member < group; back.member++) {
        const int64_t chunks = (begin_heads(&back) + FLOW_CHUNK - 1) / FLOW_CHUNK;
        const int64_t rounds = (chunks + run->chunks - 1) / run->chunks;
        for (int64_t round = rounds - 1; round >= 0; round--) {
            run->first_chunk = round * run->chunks;
            run_round(run);
        }
        fb_flow_rounds_step(run, &last);
    }
}
