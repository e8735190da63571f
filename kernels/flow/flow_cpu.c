/*
 * Fused Flow-Attention on the CPU, normal form; equations and symbols in flow.h.
 *
 * Four phases over blocks of tokens, each needing the totals of the one before:
 *   1  sum phi(k), sum phi(q)
 *   2  u = sum beta k, w = sum alpha q
 *   3  e = exp(clamp o), Z = sum e, G = sum phi(k) (e v)^T        2SDM flop
 *   4  out = s alpha phi(q) G S/Z                                 2LDM flop
 * The clamp bounds the exponential, so that no pass for a maximum is needed.
 *
 * Threads. With heads enough for all threads a thread takes a head through its four phases; with
 * few heads, tasks are slices of a head and the phases are barriers. In both cases partial sums are
 * formed per slice and added in the order of the slices, and the slices depend on the length alone,
 * so that the bits do not depend on the number of threads. Sums run in float within a slice (in
 * blocks), the vectors' totals in double.
 *
 * phi(q) is parked in the rows of `out`, which phase 4 overwrites, when they are wide enough;
 * phi(k) is kept for as many tokens as the scratch budget allows (one hundredth of the tensors and
 * 24 D M bytes per head) and evaluated again for the others.
 *
 * Reference: Wu et al., Flowformer, ICML 2022, eqs. 4-8.
 */
#include "flow_cpu.h"

#include "flow.h"
#include "flow_normal.h"
#include "kernel_support.h"
#include "parallel.h"

/* total + eps, in float, where totals have been gathered in `wide`; the padding stays zero. */
static void finish_vector(const struct flow_shape *s, const double *wide, float *total)
{
    for (int64_t j = 0; j < s->cols; j++) {
        total[j] = j < s->dim ? (float)(wide[j] + (double)FB_FLOW_EPSILON) : 0.0F;
    }
}

static void add_vector(const struct flow_shape *s, const float *part, bool first, double *wide)
{
    for (int64_t j = 0; j < s->cols; j++) {
        wide[j] = (first ? 0.0 : wide[j]) + (double)part[j];
    }
}

static void add_product(const struct flow_shape *s, const struct flow_slot *slot, bool first,
                        const struct flow_head *state)
{
    const int64_t count = s->dim * s->value_cols;
    for (int64_t j = 0; j < count; j += FB_VW) {
        const fb_vf old = first ? fb_vf_zero() : fb_vf_load(state->product + j);
        fb_vf_store(state->product + j, fb_vf_add(old, fb_vf_load(slot->product + j)));
    }
    *state->normaliser = (first ? 0.0 : *state->normaliser) + *slot->normaliser;
}

/* One slice of one phase. */
static void run_slice(const struct flow_run *run, int phase, bool sources, int64_t head,
                      int64_t slice, const struct flow_head *state, const struct flow_slot *slot,
                      struct flow_worker *worker)
{
    const struct flow_slicing *cut = sources ? &run->shape.source_slices : &run->shape.sink_slices;
    const int64_t first = slice * cut->slice;
    const struct flow_task task = {
        .run = run,
        .state = state,
        .slot = slot,
        .worker = worker,
        .batch = head / run->problem->heads,
        .head = head % run->problem->heads,
        .first = first,
        .last = flow_minimum(first + cut->slice, cut->length),
    };
    (sources ? fb_flow_normal_phases[phase].sources : fb_flow_normal_phases[phase].sinks)(&task);
}

/* Where the totals of the sum and weigh phases go: the sinks' vector is what sources are weighed
 * with, and the other way round. */
static float *vector_total(const struct flow_head *state, int phase, bool sources)
{
    if (phase == FLOW_SUM) {
        return sources ? state->source_sum : state->sink_sum;
    }
    return sources ? state->source_flow : state->sink_flow;
}

/* Adds one slice's part to the head's totals; slices arrive in order. */
static void reduce_slice(const struct flow_shape *s, int phase, const struct flow_slot *slot,
                         bool first, const struct flow_head *state)
{
    if (phase == FLOW_COLLECT) {
        add_product(s, slot, first, state);
    } else {
        add_vector(s, slot->vector, first, state->wide);
    }
}

static void run_head(void *context, int64_t head, int thread)
{
    const struct flow_run *run = context;
    const struct flow_shape *s = &run->shape;
    const struct flow_head *state = &run->heads[thread];
    for (int phase = 0; phase < FLOW_PHASE_COUNT; phase++) {
        for (int sources = 1; sources >= 0; sources--) {
            if ((sources ? fb_flow_normal_phases[phase].sources
                         : fb_flow_normal_phases[phase].sinks) == NULL) {
                continue;
            }
            const struct flow_slicing *cut = sources ? &s->source_slices : &s->sink_slices;
            const struct flow_slot *slot = &run->source_slots[thread];
            for (int64_t slice = 0; slice < cut->count; slice++) {
                run_slice(run, phase, sources, head, slice, state, slot, &run->workers[thread]);
                if (phase != FLOW_EMIT) {
                    reduce_slice(s, phase, slot, slice == 0, state);
                }
            }
            if (phase < FLOW_COLLECT) {
                finish_vector(s, state->wide, vector_total(state, phase, sources));
            }
        }
    }
}

/* Split mode: task = (head, slice), sources first. */
static void run_split_slice(void *context, int64_t task, int thread)
{
    const struct flow_run *run = context;
    const struct flow_shape *s = &run->shape;
    const int64_t sources =
        fb_flow_normal_phases[run->phase].sources != NULL ? s->source_slices.count : 0;
    const int64_t sinks =
        fb_flow_normal_phases[run->phase].sinks != NULL ? s->sink_slices.count : 0;
    const int64_t head = task / (sources + sinks), slice = task % (sources + sinks);
    const bool is_source = slice < sources;
    const int64_t index = is_source ? slice : slice - sources;
    const struct flow_slot *slot = is_source
                                       ? &run->source_slots[head * s->source_slices.count + index]
                                       : &run->sink_slots[head * s->sink_slices.count + index];
    run_slice(run, run->phase, is_source, head, index, &run->heads[head], slot,
              &run->workers[thread]);
}

static void reduce_split_head(void *context, int64_t head, int thread)
{
    (void)thread;
    const struct flow_run *run = context;
    const struct flow_shape *s = &run->shape;
    const struct flow_head *state = &run->heads[head];
    for (int sources = 1; sources >= 0; sources--) {
        if ((sources ? fb_flow_normal_phases[run->phase].sources
                     : fb_flow_normal_phases[run->phase].sinks) == NULL) {
            continue;
        }
        const int64_t count = sources ? s->source_slices.count : s->sink_slices.count;
        const struct flow_slot *slots =
            (sources ? run->source_slots : run->sink_slots) + head * count;
        for (int64_t slice = 0; slice < count; slice++) {
            reduce_slice(s, run->phase, &slots[slice], slice == 0, state);
        }
        if (run->phase < FLOW_COLLECT) {
            finish_vector(s, state->wide, vector_total(state, run->phase, sources));
        }
    }
}

static void run_split(struct flow_run *run)
{
    const struct flow_shape *s = &run->shape;
    for (run->phase = 0; run->phase < FLOW_PHASE_COUNT; run->phase++) {
        const int64_t slices =
            (fb_flow_normal_phases[run->phase].sources != NULL ? s->source_slices.count : 0) +
            (fb_flow_normal_phases[run->phase].sinks != NULL ? s->sink_slices.count : 0);
        fb_parallel_for(s->workers, s->heads * slices, run_split_slice, run);
        if (run->phase != FLOW_EMIT) {
            fb_parallel_for(s->workers, s->heads, reduce_split_head, run);
        }
    }
}

/* ---- the variant --------------------------------------------------------------------------- */

static enum fb_status flow_forward(const struct fb_problem *problem, const struct fb_call *call,
                                   struct fb_error *error)
{
    if (problem->causal) {
        return fb_flow_causal_forward(problem, call, error);
    }
    struct flow_run run = {.problem = problem, .call = call};
    fb_flow_normal_carve(problem, call->threads, call->scratch, &run);
    if (run.shape.split) {
        run_split(&run);
    } else {
        fb_parallel_for(run.shape.workers, run.shape.heads, run_head, &run);
    }
    return FB_OK;
}

static enum fb_status flow_supports(const struct fb_problem *problem, enum fb_pass pass,
                                    struct fb_error *why)
{
    (void)pass;
    return fb_cpu_supports_common(problem, "flow/fused", why);
}

static void flow_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    sizes->forward_scratch_bytes = problem->causal
                                       ? fb_flow_causal_scratch_bytes(problem, threads)
                                       : fb_flow_normal_carve(problem, threads, NULL, NULL);
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
};
