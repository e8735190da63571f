/*
 * Fused Flow-Attention on the CPU, causal form: heads that threads share.
 *
 * Fewer heads than threads: a round takes 16 chunks for each thread, of all shared heads,
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
 *
 * Scratch: 90 KB a chunk at d = 64, hence 1.4 MB a thread and 50 KB of its own, where a walk has
 * 150 KB; never more chunks than the heads have. Gradients: 150 KB a chunk, of whole segments.
 */
#include "flow_causal_rounds.h"

#include "parallel.h"

#include <assert.h>
#include <string.h>

enum {
    FLOW_ROUND_REGIONS = 5, /* parallel regions of a round */
    /* So many threads begin and end one together in the time of a chunk: 28 to 47 us of 16 virtual
     * processors, where a chunk of the walk takes 18. */
    FLOW_CHUNK_THREADS = 8,
};

/* ---- shape and scratch ---------------------------------------------------------------------- */

int64_t fb_flow_shared_count(const struct fb_problem *problem, int64_t heads, int threads)
{
    const int64_t rest = heads % threads, round = (int64_t)threads * FLOW_THREAD_CHUNKS;
    const int64_t chunks = (problem->q_len + FLOW_CHUNK - 1) / FLOW_CHUNK;
    const int64_t rounds = (rest * chunks + round - 1) / round;
    const double region = (double)threads / FLOW_CHUNK_THREADS;
    const double shared =
        (double)(rest * chunks) / threads + (double)(rounds * FLOW_ROUND_REGIONS) * region;
    return shared < 0.9 * (double)chunks ? rest : 0;
}

static void lay_out_place(const struct flow_causal_shape *shape, struct fb_scratch_cursor *cursor,
                          struct flow_place *place)
{
    memset(place, 0, sizeof *place);
    fb_flow_causal_take_chunk(shape, cursor, &place->s);
    fb_flow_causal_take_vectors(shape, cursor, &place->s);
    place->s.product = place->s.part;
}

void fb_flow_rounds_plan(const struct flow_causal_shape *shape, int64_t heads, int64_t chunks,
                         int threads, struct fb_scratch_cursor *cursor, struct flow_rounds *run)
{
    const int64_t places = heads * chunks;
    const bool counting = cursor->base == NULL;
    struct flow_place counted_place;
    struct flow_causal_scratch counted;
    *run = (struct flow_rounds){.shape = shape,
                                .threads = (int)flow_smaller(threads, places),
                                .heads = heads,
                                .chunks = chunks};
    run->places = fb_scratch_take(cursor, places, sizeof *run->places);
    run->states = fb_scratch_take(cursor, heads, sizeof *run->states);
    run->rooms = fb_scratch_take(cursor, run->threads, sizeof *run->rooms);
    run->turns = fb_scratch_take(cursor, run->threads, sizeof *run->turns);
    for (int64_t i = 0; i < places; i++) {
        lay_out_place(shape, cursor, counting ? &counted_place : &run->places[i]);
    }
    for (int64_t i = 0; i < heads; i++) {
        fb_flow_causal_take_state(shape, cursor, counting ? &counted : &run->states[i].s);
    }
    for (int i = 0; i < run->threads; i++) {
        fb_flow_causal_take_thread(shape, cursor, counting ? &counted : &run->rooms[i]);
    }
}

void fb_flow_rounds_reset(struct flow_rounds *run)
{
    for (int i = 0; i < run->threads; i++) {
        fb_flow_causal_fill_ones(run->shape, run->rooms[i].ones);
    }
    for (int64_t i = 0; i < run->heads * run->chunks; i++) {
        fb_flow_causal_clear_vectors(run->shape, &run->places[i].s);
    }
}

/* ---- who takes which chunk ------------------------------------------------------------------ */

static int64_t first_place_of(const struct flow_rounds *run, int thread)
{
    return run->heads * run->chunks * thread / run->threads;
}

struct flow_causal_scratch fb_flow_rounds_join(const struct flow_rounds *run, int64_t place,
                                               int thread)
{
    const struct flow_causal_scratch *room = &run->rooms[thread];
    struct flow_causal_scratch s = run->places[place].s;
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
    const int64_t head = at / run->chunks;
    run->step->visit(run, at, thread);
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

void fb_flow_rounds_step(struct flow_rounds *run, const struct flow_step *step)
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

void fb_flow_pass_through(float *value, float *error, float *part, int64_t count)
{
    float old[FLOW_CHUNK];
    for (int64_t j = 0; j < count; j += FLOW_CHUNK) {
        const int64_t here = flow_smaller(FLOW_CHUNK, count - j);
        memcpy(old, value + j, (size_t)here * sizeof *old);
        fb_rows_carry_add(value + j, error + j, part + j, here);
        memcpy(part + j, old, (size_t)here * sizeof *old);
    }
}

/* The state that a training forward saves before the place's chunk; false when it saves none. */
static bool find_saved(const struct flow_rounds *run, const struct flow_place *place,
                       unsigned char **saved)
{
    const struct fb_problem *p = run->shape->problem;
    const int64_t chunk = place->first / FLOW_CHUNK;
    if (run->shape->call->saved == NULL || chunk % FLOW_SEGMENT != 0) {
        return false;
    }
    const int64_t index =
        (place->batch * p->heads + place->head) * fb_flow_causal_segments(p) + chunk / FLOW_SEGMENT;
    *saved = (unsigned char *)run->shape->call->saved +
             (size_t)index * fb_flow_causal_state_size(run->shape);
    return true;
}

/* Whether the state is to be taken up again at this place. */
static bool restarts_at(const struct flow_rounds *run, const struct flow_place *place,
                        struct flow_stored_state *stored)
{
    unsigned char *saved;
    if (!run->restarts || !find_saved(run, place, &saved)) {
        return false;
    }
    fb_flow_causal_carve_state(run->shape, saved, stored);
    return true;
}

static void restore(const float *stored, float *value, float *error, int64_t count)
{
    memcpy(value, stored, (size_t)count * sizeof *value);
    memset(error, 0, (size_t)count * sizeof *error);
}

/* The places of a head that have a chunk. */
static int64_t filled_places(const struct flow_rounds *run, const struct flow_place *place)
{
    int64_t count = 0;
    while (count < run->chunks && place[count].x.rows > 0) {
        count++;
    }
    return count;
}

static void pass_vector(const struct flow_causal_shape *shape, const float *stored,
                        const struct flow_carried *state, const struct flow_carried *part)
{
    if (stored != NULL) {
        restore(stored, state->value, state->error, shape->cols);
    }
    fb_flow_pass_through(state->value, state->error, part->value, shape->cols);
}

/* Two of the four vectors of a head, from the first on, in the order of flow_stored_state. */
static void pass_two_vectors(const struct flow_rounds *run, int64_t head, int first)
{
    const struct flow_causal_scratch *state = &run->states[head].s;
    const struct flow_carried *const values[4] = {&state->keys, &state->queries, &state->u,
                                                  &state->w};
    struct flow_place *place = run->places + head * run->chunks;
    const int64_t count = filled_places(run, place);
    for (int64_t i = 0; i < count; i++) {
        const struct flow_causal_scratch *s = &place[i].s;
        const struct flow_carried *const parts[4] = {&s->keys, &s->queries, &s->u, &s->w};
        struct flow_stored_state stored = {.product = NULL};
        (void)restarts_at(run, &place[i], &stored);
        for (int v = first; v < first + 2; v++) {
            pass_vector(run->shape, stored.vectors[v], values[v], parts[v]);
        }
    }
}

void fb_flow_pass_sides(const struct flow_rounds *run, int64_t head)
{
    pass_two_vectors(run, head, 0);
}

static void pass_conserved(const struct flow_rounds *run, int64_t head)
{
    pass_two_vectors(run, head, 2);
}

static void pass_normaliser(const struct flow_rounds *run, int64_t head)
{
    const struct fb_flow_options *options = &run->shape->options;
    struct flow_normaliser *normaliser = &run->states[head].normaliser;
    struct flow_place *place = run->places + head * run->chunks;
    const int64_t count = filled_places(run, place);
    for (int64_t i = 0; i < count; i++) {
        struct flow_stored_state stored;
        if (restarts_at(run, &place[i], &stored)) {
            *normaliser = *stored.normaliser;
        }
        place[i].before = *normaliser;
        if (fb_flow_is_bounded(run->shape)) {
            normaliser->sum += (double)place[i].within;
        } else if (options->competition != FB_FLOW_NO_COMPETITION) {
            fb_flow_causal_compete_online(options->clamp, normaliser, &place[i].x);
        }
    }
}

/* How many tasks share the matrix of a head. */
static int64_t slices_of_head(const struct flow_rounds *run)
{
    return flow_smaller((run->threads + run->heads - 1) / run->heads, run->shape->dim);
}

int64_t fb_flow_matrix_slices(const struct flow_rounds *run)
{
    return run->heads * slices_of_head(run);
}

struct flow_matrix_slice fb_flow_matrix_slice_of(const struct flow_rounds *run, int64_t task)
{
    const int64_t slices = slices_of_head(run), slice = task % slices;
    const int64_t first = run->shape->dim * slice / slices;
    const int64_t last = run->shape->dim * (slice + 1) / slices;
    return (struct flow_matrix_slice){.head = task / slices,
                                      .at = first * run->shape->value_cols,
                                      .count = (last - first) * run->shape->value_cols};
}

static void pass_matrix(void *context, int64_t task, int thread)
{
    const struct flow_rounds *run = context;
    const struct flow_matrix_slice slice = fb_flow_matrix_slice_of(run, task);
    const int64_t at = slice.at;
    const struct flow_causal_scratch *state = &run->states[slice.head].s;
    struct flow_place *place = run->places + slice.head * run->chunks;
    const int64_t count = filled_places(run, place);
    (void)thread;
    for (int64_t i = 0; i < count; i++) {
        struct flow_stored_state stored;
        if (restarts_at(run, &place[i], &stored)) {
            restore(stored.product + at, state->product + at, state->product_error + at,
                    slice.count);
        }
        fb_flow_pass_through(state->product + at, state->product_error + at, place[i].s.part + at,
                             slice.count);
    }
}

/* ---- steps of a chunk ----------------------------------------------------------------------- */

void fb_flow_rounds_begin(const struct flow_rounds *run, struct flow_place *place,
                          const struct flow_causal_scratch *s)
{
    const struct flow_causal_shape *shape = run->shape;
    const int64_t chunk = run->first_chunk + (place - run->places) % run->chunks;
    const int64_t rows = fb_problem_queries(shape->problem, place->batch) - chunk * FLOW_CHUNK;
    place->first = chunk * FLOW_CHUNK;
    place->x.rows = rows > 0 ? flow_smaller(FLOW_CHUNK, rows) : 0;
    if (rows > 0) {
        fb_flow_causal_begin(shape, place->batch, place->head, place->first, place->x.rows, s,
                             &place->x);
        fb_flow_sum_rows(shape, s->q, place->x.rows, NULL, s->queries.value);
        fb_flow_sum_rows(shape, s->k, place->x.rows, NULL, s->keys.value);
    }
}

static void visit_flows(const struct flow_rounds *run, int64_t at, int thread)
{
    struct flow_chunk *x = &run->places[at].x;
    const struct flow_causal_scratch s = fb_flow_rounds_join(run, at, thread);
    if (x->rows > 0) {
        fb_flow_causal_flows(run->shape, &s, x);
        fb_flow_sum_rows(run->shape, s.q, x->rows, x->alpha, s.w.value);
        fb_flow_sum_rows(run->shape, s.k, x->rows, x->beta, s.u.value);
    }
}

static void visit_conserve(const struct flow_rounds *run, int64_t at, int thread)
{
    struct flow_place *place = &run->places[at];
    const struct flow_causal_scratch s = fb_flow_rounds_join(run, at, thread);
    if (place->x.rows == 0) {
        return;
    }
    fb_flow_causal_conserve(run->shape, &s, &place->x);
    place->within = 0.0F;
    for (int64_t i = 0; i < place->x.rows; i++) {
        place->within += place->x.p[i];
    }
}

static void visit_weigh(const struct flow_rounds *run, int64_t at, int thread)
{
    struct flow_place *place = &run->places[at];
    const struct flow_causal_scratch s = fb_flow_rounds_join(run, at, thread);
    if (place->x.rows == 0) {
        return;
    }
    if (fb_flow_is_bounded(run->shape)) {
        (void)fb_flow_causal_share(place->before.sum, &place->x);
    }
    fb_flow_causal_weigh(run->shape, place->batch, place->head, place->first, &s, &place->x);
}

void fb_flow_rounds_states(struct flow_rounds *run)
{
    static const struct flow_step flows = {visit_flows, pass_conserved};
    static const struct flow_step conserve = {visit_conserve, pass_normaliser};
    static const struct flow_step weigh = {visit_weigh, NULL};
    fb_flow_rounds_step(run, &flows);
    fb_flow_rounds_step(run, &conserve);
    fb_flow_rounds_step(run, &weigh);
    fb_parallel_for(run->threads, fb_flow_matrix_slices(run), pass_matrix, run);
}

/* ---- forward -------------------------------------------------------------------------------- */

static void emit(const struct flow_rounds *run, const struct flow_place *place,
                 const struct flow_causal_scratch *s)
{
    const struct flow_causal_shape *shape = run->shape;
    const struct fb_tensor *out = &shape->call->out;
    unsigned char *saved;
    if (find_saved(run, place, &saved)) {
        fb_flow_causal_store(shape, s, &place->before, saved);
    }
    const struct fb_row_range range = {place->batch, place->head, place->first, 1, place->x.rows};
    const struct fb_row_block to = fb_rows_open(out, range, s->result);
    fb_flow_causal_emit_before(shape, s, &place->x, to);
    fb_flow_causal_emit_within(shape, s, &place->x, to);
    fb_rows_close(out, range, to);
}

/* The last step of the round before, and the first of this one. */
static void visit_emit_and_begin(const struct flow_rounds *run, int64_t at, int thread)
{
    struct flow_place *place = &run->places[at];
    const struct flow_causal_scratch s = fb_flow_rounds_join(run, at, thread);
    if (place->x.rows > 0) {
        emit(run, place, &s);
    }
    fb_flow_rounds_begin(run, place, &s);
}

static void plan_forward(const struct flow_causal_shape *shape, int64_t first_head, int threads,
                         struct fb_scratch_cursor *cursor, struct flow_rounds *run)
{
    const struct fb_problem *p = shape->problem;
    const int64_t heads = p->batch * p->heads - first_head;
    const int64_t wanted = ((int64_t)threads * FLOW_THREAD_CHUNKS + heads - 1) / heads;
    const int64_t chunks = flow_smaller(wanted, (p->q_len + FLOW_CHUNK - 1) / FLOW_CHUNK);
    fb_flow_rounds_plan(shape, heads, chunks, threads, cursor, run);
}

size_t fb_flow_rounds_bytes(const struct flow_causal_shape *shape, int64_t first_head, int threads)
{
    struct fb_scratch_cursor cursor = fb_scratch_at(NULL);
    struct flow_rounds counted;
    plan_forward(shape, first_head, threads, &cursor, &counted);
    return cursor.used_bytes;
}

void fb_flow_rounds_forward(const struct flow_causal_shape *shape, int64_t first_head)
{
    static const struct flow_step begin = {visit_emit_and_begin, fb_flow_pass_sides};
    static const struct flow_step last = {visit_emit_and_begin, NULL};
    const struct fb_problem *p = shape->problem;
    struct fb_scratch_cursor cursor = fb_scratch_at(shape->call->scratch);
    struct flow_rounds run;
    int64_t longest = 0;
    assert(shape->call->scratch != NULL);
    plan_forward(shape, first_head, shape->call->threads, &cursor, &run);
    fb_flow_rounds_reset(&run);
    for (int64_t i = 0; i < run.heads * run.chunks; i++) {
        const int64_t head = first_head + i / run.chunks;
        run.places[i].batch = head / p->heads;
        run.places[i].head = head % p->heads;
        const int64_t length = fb_problem_queries(p, run.places[i].batch);
        longest = length > longest ? length : longest;
    }
    for (int64_t i = 0; i < run.heads; i++) {
        fb_flow_causal_reset(shape, &run.states[i].s, &run.states[i].normaliser);
    }
    for (; run.first_chunk * FLOW_CHUNK < longest; run.first_chunk += run.chunks) {
        fb_flow_rounds_step(&run, &begin);
        fb_flow_rounds_states(&run);
    }
    fb_flow_rounds_step(&run, &last);
}
