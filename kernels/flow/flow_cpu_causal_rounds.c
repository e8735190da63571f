/*
 * Fused Flow-Attention on the CPU, causal form: heads that threads share.
 *
 * Fewer heads than threads: a round takes a few chunks for each thread, of all shared heads,
 * through the steps of the walk (flow_cpu_causal.c), side by side. What a chunk needs of those
 * before it is vectors and one matrix. Each chunk forms its part of them alone; between two steps
 * the parts are added up in the order of the chunks, and each chunk gets in their place what was
 * before it:
 *
 *   begin     phi, A                       parts of keys and queries, added up per head
 *   flows     a, b, alpha, beta            parts of u and w, likewise
 *   conserve  c, o, r, s, exp(o)           sums of exp(o), likewise (or all of p, when not bounded)
 *   weigh     p, p v                       parts of M, added up by rows of the matrix
 *   emit      out, then begin of the chunk of the next round
 *
 * Every number comes from the same operations in the same order as in the walk, so that it does not
 * matter for any bit which heads are shared, how many chunks a round has, or who takes them.
 *
 * A chunk's buffers stay from step to step in the caches of the thread that took it: each thread
 * takes those that are its own first, and then those that others have not begun.
 */
#include "flow_causal_rounds.h"

#include "parallel.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

enum {
    FLOW_SHARED_CHUNKS = 4, /* shorter heads are not shared */
    FLOW_THREAD_CHUNKS = 4, /* of a round, for each thread */
};

/* A chunk of this round. */
struct flow_place {
    struct flow_causal_scratch s; /* the state in it: what the chunk adds, then what is before it */
    struct flow_chunk x;          /* x.rows 0: no chunk, the head has ended */
    struct flow_normaliser before;
    float within; /* bounded: sum of exp(o) */
    int64_t batch, head, first;
};

/* The state that a round begins with, and ends with. */
struct flow_shared_head {
    struct flow_causal_scratch s; /* only the state */
    struct flow_normaliser normaliser;
    _Atomic int64_t left; /* chunks that the step at hand has yet to visit */
};

/* Which of its own places a thread comes to next. */
struct flow_turn {
    _Atomic int64_t next;
    unsigned char apart[FB_ALIGNMENT - sizeof(int64_t)];
};

struct flow_rounds {
    const struct flow_causal_shape *shape;
    int threads;
    int64_t first_head, heads, chunks; /* chunks of a head in a round */
    int64_t round;
    struct flow_place *places;         /* [heads][chunks] */
    struct flow_shared_head *states;   /* [heads] */
    struct flow_causal_scratch *rooms; /* [threads], only the thread's own */
    struct flow_turn *turns;           /* [threads] */
    const struct flow_step *step;      /* the one at hand */
};

/* A step of all chunks of a round, and what adds up the parts of a head when they are there. */
struct flow_step {
    void (*visit)(const struct flow_rounds *run, struct flow_place *place,
                  const struct flow_causal_scratch *s);
    void (*pass)(const struct flow_rounds *run, int64_t head);
};

/* ---- shape and scratch ---------------------------------------------------------------------- */

int64_t fb_flow_shared_heads(const struct fb_problem *problem, int threads)
{
    const int64_t rest = problem->batch * problem->heads % threads;
    const bool few = rest * 5 <= (int64_t)threads * 4; /* sharing takes a little longer in all */
    return few && problem->q_len > (FLOW_SHARED_CHUNKS - 1) * FLOW_CHUNK ? rest : 0;
}

static void lay_out_place(const struct flow_causal_shape *shape, struct fb_scratch_cursor *cursor,
                          struct flow_place *place)
{
    memset(place, 0, sizeof *place);
    fb_flow_causal_take_chunk(shape, cursor, &place->s);
    fb_flow_causal_take_vectors(shape, cursor, &place->s);
    place->s.product = place->s.part;
}

/* Cuts the heads from first_head on into rounds; with scratch, lays it out. Returns its bytes. */
static size_t plan_rounds(const struct flow_causal_shape *shape, int64_t first_head, int threads,
                          void *scratch, struct flow_rounds *run)
{
    const struct fb_problem *p = shape->problem;
    const int64_t heads = p->batch * p->heads - first_head;
    const int64_t length = (p->q_len + FLOW_CHUNK - 1) / FLOW_CHUNK;
    const int64_t wanted = ((int64_t)threads * FLOW_THREAD_CHUNKS + heads - 1) / heads;
    *run = (struct flow_rounds){
        .shape = shape,
        .first_head = first_head,
        .heads = heads,
        .chunks = flow_smaller(wanted, length),
    };
    const int64_t places = heads * run->chunks;
    run->threads = (int)flow_smaller(threads, places);
    struct fb_scratch_cursor cursor = fb_scratch_at(scratch);
    run->places = fb_scratch_take(&cursor, places, sizeof *run->places);
    run->states = fb_scratch_take(&cursor, heads, sizeof *run->states);
    run->rooms = fb_scratch_take(&cursor, run->threads, sizeof *run->rooms);
    run->turns = fb_scratch_take(&cursor, run->threads, sizeof *run->turns);
    struct flow_place counted_place;
    for (int64_t i = 0; i < places; i++) {
        lay_out_place(shape, &cursor, scratch == NULL ? &counted_place : &run->places[i]);
    }
    struct flow_causal_scratch counted;
    for (int64_t i = 0; i < heads; i++) {
        fb_flow_causal_take_state(shape, &cursor, scratch == NULL ? &counted : &run->states[i].s);
    }
    for (int i = 0; i < run->threads; i++) {
        fb_flow_causal_take_thread(shape, &cursor, scratch == NULL ? &counted : &run->rooms[i]);
    }
    return cursor.used_bytes;
}

size_t fb_flow_rounds_bytes(const struct flow_causal_shape *shape, int64_t first_head, int threads)
{
    struct flow_rounds counted;
    return plan_rounds(shape, first_head, threads, NULL, &counted);
}

/* ---- who takes which chunk ------------------------------------------------------------------ */

static int64_t first_place_of(const struct flow_rounds *run, int thread)
{
    return run->heads * run->chunks * thread / run->threads;
}

/* The chunk's buffers with those of the thread. */
static struct flow_causal_scratch join_rooms(const struct flow_place *place,
                                             const struct flow_causal_scratch *room)
{
    struct flow_causal_scratch s = place->s;
    s.turned = room->turned;
    s.lower = room->lower;
    s.ones = room->ones;
    s.raw = room->raw;
    s.values = room->values;
    s.result = room->result;
    return s;
}

static void take_place(const struct flow_rounds *run, int64_t at, int thread)
{
    const struct flow_causal_scratch s = join_rooms(&run->places[at], &run->rooms[thread]);
    const int64_t head = at / run->chunks;
    run->step->visit(run, &run->places[at], &s);
    if (atomic_fetch_sub_explicit(&run->states[head].left, 1, memory_order_acq_rel) == 1 &&
        run->step->pass != NULL) {
        run->step->pass(run, head);
    }
}

static void take_places(void *context, int64_t task, int thread)
{
    const struct flow_rounds *run = context;
    (void)task;
    for (int i = 0; i < run->threads; i++) {
        const int owner = (thread + i) % run->threads;
        const int64_t end = first_place_of(run, owner + 1);
        int64_t at;
        while ((at = atomic_fetch_add_explicit(&run->turns[owner].next, 1, memory_order_relaxed)) <
               end) {
            take_place(run, at, thread);
        }
    }
}

static void run_step(struct flow_rounds *run, const struct flow_step *step)
{
    run->step = step;
    for (int i = 0; i < run->threads; i++) {
        atomic_init(&run->turns[i].next, first_place_of(run, i));
    }
    for (int64_t i = 0; i < run->heads; i++) {
        atomic_init(&run->states[i].left, run->chunks);
    }
    fb_parallel_for(run->threads, run->threads, take_places, run);
}

/* ---- adding up ------------------------------------------------------------------------------ */

/* part becomes value, and value += part, compensated. */
static void pass_through(float *value, float *error, float *part, int64_t count)
{
    float old[FLOW_CHUNK];
    for (int64_t j = 0; j < count; j += FLOW_CHUNK) {
        const int64_t here = flow_smaller(FLOW_CHUNK, count - j);
        memcpy(old, value + j, (size_t)here * sizeof *old);
        fb_rows_carry_add(value + j, error + j, part + j, here);
        memcpy(part + j, old, (size_t)here * sizeof *old);
    }
}

static void pass_vector(const struct flow_causal_shape *shape, const struct flow_carried *state,
                        const struct flow_carried *part)
{
    pass_through(state->value, state->error, part->value, shape->cols);
}

static void pass_sides(const struct flow_rounds *run, int64_t head)
{
    const struct flow_causal_scratch *state = &run->states[head].s;
    struct flow_place *place = run->places + head * run->chunks;
    for (int64_t i = 0; i < run->chunks && place[i].x.rows > 0; i++) {
        pass_vector(run->shape, &state->keys, &place[i].s.keys);
        pass_vector(run->shape, &state->queries, &place[i].s.queries);
    }
}

static void pass_conserved(const struct flow_rounds *run, int64_t head)
{
    const struct flow_causal_scratch *state = &run->states[head].s;
    struct flow_place *place = run->places + head * run->chunks;
    for (int64_t i = 0; i < run->chunks && place[i].x.rows > 0; i++) {
        pass_vector(run->shape, &state->u, &place[i].s.u);
        pass_vector(run->shape, &state->w, &place[i].s.w);
    }
}

static void pass_normaliser(const struct flow_rounds *run, int64_t head)
{
    const struct fb_flow_options *options = &run->shape->options;
    struct flow_normaliser *normaliser = &run->states[head].normaliser;
    struct flow_place *place = run->places + head * run->chunks;
    for (int64_t i = 0; i < run->chunks && place[i].x.rows > 0; i++) {
        place[i].before = *normaliser;
        if (fb_flow_is_bounded(run->shape)) {
            normaliser->sum += (double)place[i].within;
        } else if (options->competition != FB_FLOW_NO_COMPETITION) {
            fb_flow_causal_compete_online(options->clamp, normaliser, &place[i].x);
        }
    }
}

/* How many tasks share the matrix of a head. */
static int64_t matrix_slices(const struct flow_rounds *run)
{
    return flow_smaller((run->threads + run->heads - 1) / run->heads, run->shape->dim);
}

static void pass_matrix(void *context, int64_t task, int thread)
{
    const struct flow_rounds *run = context;
    const int64_t slices = matrix_slices(run), head = task / slices, slice = task % slices;
    const int64_t first = run->shape->dim * slice / slices;
    const int64_t rows = run->shape->dim * (slice + 1) / slices - first;
    const int64_t at = first * run->shape->value_cols, count = rows * run->shape->value_cols;
    const struct flow_causal_scratch *state = &run->states[head].s;
    struct flow_place *place = run->places + head * run->chunks;
    (void)thread;
    for (int64_t i = 0; i < run->chunks && place[i].x.rows > 0; i++) {
        pass_through(state->product + at, state->product_error + at, place[i].s.part + at, count);
    }
}

/* ---- steps of a chunk ----------------------------------------------------------------------- */

static void visit_flows(const struct flow_rounds *run, struct flow_place *place,
                        const struct flow_causal_scratch *s)
{
    const struct flow_chunk *x = &place->x;
    if (x->rows > 0) {
        fb_flow_causal_flows(run->shape, s, &place->x);
        fb_flow_sum_rows(run->shape, s->q, x->rows, x->alpha, s->w.value);
        fb_flow_sum_rows(run->shape, s->k, x->rows, x->beta, s->u.value);
    }
}

static void visit_conserve(const struct flow_rounds *run, struct flow_place *place,
                           const struct flow_causal_scratch *s)
{
    if (place->x.rows == 0) {
        return;
    }
    fb_flow_causal_conserve(run->shape, s, &place->x);
    place->within = 0.0F;
    for (int64_t i = 0; i < place->x.rows; i++) {
        place->within += place->x.p[i];
    }
}

static void visit_weigh(const struct flow_rounds *run, struct flow_place *place,
                        const struct flow_causal_scratch *s)
{
    if (place->x.rows == 0) {
        return;
    }
    if (fb_flow_is_bounded(run->shape)) {
        (void)fb_flow_causal_share(place->before.sum, &place->x);
    }
    fb_flow_causal_weigh(run->shape, place->batch, place->head, place->first, s, &place->x);
}

static void emit(const struct flow_rounds *run, const struct flow_place *place,
                 const struct flow_causal_scratch *s)
{
    const struct flow_causal_shape *shape = run->shape;
    const struct fb_problem *p = shape->problem;
    const struct fb_tensor *out = &shape->call->out;
    const int64_t chunk = place->first / FLOW_CHUNK;
    unsigned char *saved = shape->call->saved;
    if (saved != NULL && chunk % FLOW_SEGMENT == 0) {
        const int64_t index = (place->batch * p->heads + place->head) * fb_flow_causal_segments(p) +
                              chunk / FLOW_SEGMENT;
        fb_flow_causal_store(shape, s, &place->before,
                             saved + (size_t)index * fb_flow_causal_state_size(shape));
    }
    const struct fb_row_range range = {place->batch, place->head, place->first, 1, place->x.rows};
    const struct fb_row_block to = fb_rows_open(out, range, s->result);
    fb_flow_causal_emit_before(shape, s, &place->x, to);
    fb_flow_causal_emit_within(shape, s, &place->x, to);
    fb_rows_close(out, range, to);
}

/* The last step of the round before, and the first of this one. */
static void visit_emit_and_begin(const struct flow_rounds *run, struct flow_place *place,
                                 const struct flow_causal_scratch *s)
{
    if (place->x.rows > 0) {
        emit(run, place, s);
    }
    const int64_t index = place - run->places;
    const int64_t chunk = run->round * run->chunks + index % run->chunks;
    const int64_t rows = fb_problem_queries(run->shape->problem, place->batch) - chunk * FLOW_CHUNK;
    place->first = chunk * FLOW_CHUNK;
    place->x.rows = rows > 0 ? flow_smaller(FLOW_CHUNK, rows) : 0;
    if (rows > 0) {
        fb_flow_causal_begin(run->shape, place->batch, place->head, place->first, place->x.rows, s,
                             &place->x);
        fb_flow_sum_rows(run->shape, s->q, place->x.rows, NULL, s->queries.value);
        fb_flow_sum_rows(run->shape, s->k, place->x.rows, NULL, s->keys.value);
    }
}

/* ---- rounds --------------------------------------------------------------------------------- */

static void reset(struct flow_rounds *run)
{
    const struct fb_problem *p = run->shape->problem;
    for (int i = 0; i < run->threads; i++) {
        fb_flow_causal_fill_ones(run->shape, run->rooms[i].ones);
    }
    for (int64_t i = 0; i < run->heads; i++) {
        const int64_t head = run->first_head + i;
        fb_flow_causal_reset(run->shape, &run->states[i].s, &run->states[i].normaliser);
        for (int64_t j = 0; j < run->chunks; j++) {
            struct flow_place *place = &run->places[i * run->chunks + j];
            place->batch = head / p->heads;
            place->head = head % p->heads;
            fb_flow_causal_clear_vectors(run->shape, &place->s);
        }
    }
}

/* Chunks of the round that the run has come to; emits those of the round before. */
static void run_round(struct flow_rounds *run)
{
    static const struct flow_step begin = {visit_emit_and_begin, pass_sides};
    static const struct flow_step flows = {visit_flows, pass_conserved};
    static const struct flow_step conserve = {visit_conserve, pass_normaliser};
    static const struct flow_step weigh = {visit_weigh, NULL};
    run_step(run, &begin);
    run_step(run, &flows);
    run_step(run, &conserve);
    run_step(run, &weigh);
    fb_parallel_for(run->threads, run->heads * matrix_slices(run), pass_matrix, run);
}

void fb_flow_rounds_forward(const struct flow_causal_shape *shape, int64_t first_head)
{
    static const struct flow_step last = {visit_emit_and_begin, NULL};
    struct flow_rounds run;
    assert(shape->call->scratch != NULL);
    plan_rounds(shape, first_head, shape->call->threads, shape->call->scratch, &run);
    reset(&run);
    int64_t longest = 0;
    for (int64_t i = 0; i < run.heads; i++) {
        const int64_t length = fb_problem_queries(shape->problem, run.places[i * run.chunks].batch);
        longest = length > longest ? length : longest;
    }
    for (run.round = 0; run.round * run.chunks * FLOW_CHUNK < longest; run.round++) {
        run_round(&run);
    }
    run_step(&run, &last);
}
