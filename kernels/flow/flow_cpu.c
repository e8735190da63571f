/*
 * Fused Flow-Attention on the CPU, normal form: the passes and the variant. Equations and symbols
 * in flow.h.
 *
 * Forward: four phases over blocks of tokens, each needing the totals of the one before:
 *   1  sum phi(k)
 *   2  sum phi(q), w = sum alpha q
 *   3  u = sum beta k, e = exp(clamp o), Z = sum e, G = sum phi(k) (e v)^T        2SDM flop
 *   4  out = s alpha phi(q) G S/Z                                                 2LDM flop
 * w needs the keys' sum only and u is not needed before phase 4, so that both sides are seen twice.
 * A small clamp bounds the exponential, so that no maximum is needed; without one the maximum runs
 * along with the sums. Competition over heads puts two phases between 2 and 3: the scores of all
 * heads, and their softmax per token.
 *
 * Backward: flow_cpu_gradient.c.
 *
 * Threads. With heads enough for all threads a thread takes a head through its phases; with few
 * heads, tasks are slices of a head and the phases are barriers. In both cases partial sums are
 * formed per slice and added in the order of the slices, and the slices depend on the length alone,
 * so that the bits do not depend on the number of threads. Sums run in float within a slice (in
 * blocks), the vectors' totals in double.
 *
 * phi(q) is parked in the rows of `out`, which phase 4 overwrites, when they are wide enough;
 * phi(k) is kept for as many tokens as the scratch budget allows (one hundredth of the tensors and
 * 24 D M bytes per head) and evaluated again for the others. Tensors of 16 bits are widened a block
 * at a time, all arithmetic being in f32, and hold nothing between the phases.
 *
 * Reference: Wu et al., Flowformer, ICML 2022, eqs. 4-8.
 */
#include "flow_cpu.h"

#include "flow.h"
#include "flow_normal.h"
#include "kernel_support.h"
#include "parallel.h"

/* ---- tasks --------------------------------------------------------------------------------- */

/* The unit's heads and lengths in this round; the slice is filled in by run_slice. */
static struct flow_task task_of(const struct flow_run *run, int64_t unit,
                                const struct flow_head *state, struct flow_worker *worker)
{
    /* Heads shared by threads have an alpha each, else threads have. */
    const int64_t alpha = run->shape.split ? unit : worker - run->workers;
    const struct fb_problem *p = run->problem;
    const int64_t group = p->heads / p->kv_heads;
    const int64_t per_batch = run->shape.units / p->batch;
    const int64_t batch = unit / per_batch, index = unit % per_batch;
    const int64_t head = run->shape.backward ? index * group + run->round : index;
    return (struct flow_task){
        .run = run,
        .state = state,
        .worker = worker,
        .batch = batch,
        .head = head,
        .kv_head = head / group,
        .sinks = fb_problem_queries(p, batch),
        .sources = fb_problem_keys(p, batch),
        .alpha = run->alpha == NULL ? NULL : run->alpha + alpha * run->shape.alpha,
    };
}

/* Where a head's totals live: what is saved, or the scratch of its state. */
static struct flow_head state_of(const struct flow_run *run, int64_t unit,
                                 const struct flow_head *table)
{
    struct flow_head state = *table;
    if (run->call->saved != NULL) {
        const struct flow_task t = task_of(run, unit, table, run->workers);
        const size_t bytes = fb_flow_saved_bytes(run->problem, NULL, NULL);
        const int64_t index = t.batch * run->problem->heads + t.head;
        fb_flow_saved_bytes(run->problem, (unsigned char *)run->call->saved + (size_t)index * bytes,
                            &state.totals);
    }
    return state;
}

static int64_t slice_count(const struct flow_task *t, int side)
{
    return fb_flow_slicing_of(side == FLOW_SINKS ? t->sinks : t->sources).count;
}

static bool is_empty(const struct flow_task *t)
{
    return t->sinks == 0 || t->sources == 0;
}

static bool is_needed(const struct flow_run *run, int phase)
{
    return !run->phases[phase].heads_only || run->options.competition == FB_FLOW_OVER_HEADS;
}

static void run_slice(struct flow_task *t, int side, int64_t slice, const struct flow_slot *slot,
                      const struct flow_phase *phase)
{
    const struct flow_slicing cut = fb_flow_slicing_of(side == FLOW_SINKS ? t->sinks : t->sources);
    t->slot = slot;
    t->first = slice * cut.slice;
    t->last = flow_minimum(t->first + cut.slice, cut.length);
    phase->sides[side].run(t);
}

/* ---- whole heads --------------------------------------------------------------------------- */

static void run_phase(struct flow_task *t, int thread, const struct flow_phase *phase)
{
    for (int side = FLOW_SIDES - 1; side >= 0; side--) {
        const struct flow_side *what = &phase->sides[side];
        const struct flow_slot *slot = &t->run->slots[side][thread];
        const int64_t count = what->run == NULL ? 0 : slice_count(t, side);
        for (int64_t slice = 0; slice < count; slice++) {
            run_slice(t, side, slice, slot, phase);
            if (what->add != NULL) {
                what->add(&t->run->shape, slot, slice == 0, t->state);
            }
        }
        if (what->finish != NULL) {
            what->finish(t);
        }
    }
}

static void run_unit(void *context, int64_t unit, int thread)
{
    struct flow_run run = *(const struct flow_run *)context;
    for (run.round = 0; run.round < run.shape.rounds; run.round++) {
        const struct flow_head state = state_of(&run, unit, &run.heads[thread]);
        struct flow_task task = task_of(&run, unit, &state, &run.workers[thread]);
        for (int phase = 0; phase < run.phase_count && !is_empty(&task); phase++) {
            if (is_needed(&run, phase)) {
                run_phase(&task, thread, &run.phases[phase]);
            }
        }
    }
}

/* ---- whole heads, forward ------------------------------------------------------------------ */

/* Takes the next unit with tokens on both sides; false when there is none left. */
static bool take_unit(struct flow_run *run, int thread, int turn, struct flow_ahead *ahead,
                      struct flow_head *state)
{
    for (;;) {
        const int64_t unit = atomic_fetch_add(&run->next_unit, 1);
        if (unit >= run->shape.units) {
            return false;
        }
        *state = state_of(run, unit, &run->heads[2 * thread + turn]);
        *ahead = (struct flow_ahead){
            .task = task_of(run, unit, state, &run->workers[thread]),
            .next = {0},
        };
        ahead->task.slot = &run->workers[thread].ahead;
        if (!is_empty(&ahead->task)) {
            return true;
        }
    }
}

static void finish_ahead(struct flow_ahead *ahead, int side)
{
    while (fb_flow_step_ahead(ahead, side)) {
    }
}

/* A thread's part of the heads: each head's first two phases run between the products of the one
 * before. What both heads keep block by block, phi(k) and the incoming flows, the new head writes
 * behind the old one's reading. */
static void run_heads(void *context, int64_t index, int thread)
{
    struct flow_run *run = context;
    (void)index;
    struct flow_head states[2];
    struct flow_ahead ahead;
    bool more = take_unit(run, thread, 0, &ahead, &states[0]);
    if (more) {
        finish_ahead(&ahead, FLOW_SOURCES);
        finish_ahead(&ahead, FLOW_SINKS);
    }
    for (int turn = 1; more; turn = 1 - turn) {
        struct flow_task task = ahead.task;
        more = take_unit(run, thread, turn, &ahead, &states[turn]);
        task.ahead = more ? &ahead : NULL;
        for (int phase = FLOW_AHEAD_PHASES; phase < run->phase_count; phase++) {
            if (!is_needed(run, phase)) {
                continue;
            }
            run_phase(&task, thread, &run->phases[phase]);
            /* Keys first: incoming flows need their sum. */
            if (more && run->phases[phase].sides[FLOW_SOURCES].run != NULL) {
                finish_ahead(&ahead, FLOW_SOURCES);
            }
        }
        if (more) {
            finish_ahead(&ahead, FLOW_SINKS);
        }
    }
}

/* ---- heads shared by threads --------------------------------------------------------------- */

/* Task = (unit, side, slice); slices beyond a shorter sequence's do nothing. */
static void run_split_slice(void *context, int64_t index, int thread)
{
    const struct flow_run *run = context;
    const struct flow_phase *phase = &run->phases[run->phase];
    const int64_t *slices = run->shape.slices;
    const int64_t unit = index / (slices[FLOW_SINKS] + slices[FLOW_SOURCES]);
    int64_t slice = index % (slices[FLOW_SINKS] + slices[FLOW_SOURCES]);
    const int side = slice < slices[FLOW_SOURCES] ? FLOW_SOURCES : FLOW_SINKS;
    slice -= side == FLOW_SINKS ? slices[FLOW_SOURCES] : 0;
    const struct flow_head state = state_of(run, unit, &run->heads[unit]);
    struct flow_task task = task_of(run, unit, &state, &run->workers[thread]);
    if (phase->sides[side].run != NULL && !is_empty(&task) && slice < slice_count(&task, side)) {
        run_slice(&task, side, slice, &run->slots[side][unit * slices[side] + slice], phase);
    }
}

static void finish_split_unit(void *context, int64_t unit, int thread)
{
    const struct flow_run *run = context;
    const struct flow_phase *phase = &run->phases[run->phase];
    const struct flow_head state = state_of(run, unit, &run->heads[unit]);
    const struct flow_task task = task_of(run, unit, &state, &run->workers[thread]);
    for (int side = FLOW_SIDES - 1; side >= 0 && !is_empty(&task); side--) {
        const struct flow_side *what = &phase->sides[side];
        const struct flow_slot *slots = run->slots[side] + unit * run->shape.slices[side];
        const int64_t count = what->add == NULL ? 0 : slice_count(&task, side);
        for (int64_t slice = 0; slice < count; slice++) {
            what->add(&run->shape, &slots[slice], slice == 0, task.state);
        }
        if (what->finish != NULL) {
            what->finish(&task);
        }
    }
}

static void run_split(struct flow_run *run)
{
    const struct flow_shape *s = &run->shape;
    const int64_t slices = s->slices[FLOW_SINKS] + s->slices[FLOW_SOURCES];
    for (run->round = 0; run->round < s->rounds; run->round++) {
        for (run->phase = 0; run->phase < run->phase_count; run->phase++) {
            if (is_needed(run, run->phase)) {
                fb_parallel_for(run->call->threads, s->units * slices, run_split_slice, run);
                fb_parallel_for(run->call->threads, s->units, finish_split_unit, run);
            }
        }
    }
}

/* ---- the variant --------------------------------------------------------------------------- */

static void run_pass(const struct fb_problem *problem, const struct fb_call *call, bool backward)
{
    struct flow_run run = {
        .problem = problem,
        .call = call,
        .options = fb_flow_options_of(problem),
        .phases = backward ? fb_flow_backward_phases : fb_flow_forward_phases,
        .phase_count = backward ? FLOW_BACKWARD_PHASES : FLOW_FORWARD_PHASES,
    };
    fb_flow_normal_carve(problem, backward, call->threads, call->scratch, &run);
    if (run.shape.split) {
        run_split(&run);
    } else if (!backward) {
        fb_parallel_for(call->threads, run.shape.workers, run_heads, &run);
    } else {
        fb_parallel_for(call->threads, run.shape.units, run_unit, &run);
    }
}

static enum fb_status flow_forward(const struct fb_problem *problem, const struct fb_call *call,
                                   struct fb_error *error)
{
    (void)error;
    if (problem->causal) {
        fb_flow_causal_forward(problem, call);
    } else {
        run_pass(problem, call, false);
    }
    fb_clear_padding(problem, &call->out, true);
    return FB_OK;
}

static enum fb_status flow_backward(const struct fb_problem *problem, const struct fb_call *call,
                                    struct fb_error *error)
{
    (void)error;
    if (problem->causal) {
        fb_flow_causal_backward(problem, call);
    } else {
        run_pass(problem, call, true);
    }
    fb_clear_padding(problem, &call->dq, true);
    fb_clear_padding(problem, &call->dk, false);
    fb_clear_padding(problem, &call->dv, false);
    return FB_OK;
}

static enum fb_status flow_supports(const struct fb_problem *problem, enum fb_pass pass,
                                    struct fb_error *why)
{
    if (problem->dtype == FB_F64) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "flow/fused takes f32, bf16 and f16, the problem is in f64: use dtype "
                            "f32");
    }
    const bool heads_compete = fb_flow_options_of(problem).competition == FB_FLOW_OVER_HEADS;
    if (pass == FB_DECODE && (problem->q_len != 1 || heads_compete)) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            heads_compete
                                ? "flow/fused decodes without competition over heads: use "
                                  "competition tokens or off"
                                : "decoding takes one token at a time: q_len must be 1");
    }
    if (pass != FB_FORWARD && problem->kv_heads != problem->heads && heads_compete) {
        return fb_error_set(why, FB_ERROR_UNSUPPORTED,
                            "flow/fused has no gradient of competition over heads with grouped "
                            "queries: make kv_heads equal heads");
    }
    return FB_OK;
}

static enum fb_status flow_decode(const struct fb_problem *problem, const struct fb_call *call,
                                  struct fb_error *error)
{
    (void)error;
    fb_flow_decode(problem, call);
    return FB_OK;
}

static void flow_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    fb_flow_decode_sizes(problem, threads, sizes);
    if (problem->causal) {
        fb_flow_causal_sizes(problem, threads, sizes);
        return;
    }
    sizes->saved_bytes =
        fb_flow_saved_bytes(problem, NULL, NULL) * (size_t)(problem->batch * problem->heads);
    sizes->forward_scratch_bytes = fb_flow_normal_carve(problem, false, threads, NULL, NULL);
    sizes->backward_scratch_bytes = fb_flow_normal_carve(problem, true, threads, NULL, NULL);
}

const struct fb_attention FB_ISA_SYMBOL(fb_flow_fused) = {
    .mechanism = &fb_flow,
    .variant = "fused",
    .backend = FB_CPU,
    .isa = FB_ISA_VALUE,
    .deterministic = true,
    .supports = flow_supports,
    .sizes = flow_sizes,
    .forward = flow_forward,
    .backward = flow_backward,
    .decode = flow_decode,
};
