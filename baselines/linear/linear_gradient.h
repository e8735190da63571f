/*
 * Gradients of the linear kernel (linear_core.h), of linear attention and Performer, in linear time
 * and memory. With r_i = 1 / denominator, which the forward pass saved, and rows extended by one
 * component,
 *
 *   v'_j = (v_j, 1)                    G' = sum_j v'_j phi(k_j)^T     over j <= i when causal
 *   d'_i = r_i (dout_i, -dout_i.out_i) E' = sum_i d'_i phi(q_i)^T     over i >= j when causal
 *
 *   dphi(q_i) = d'_i G'    dphi(k_j) = v'_j E'    dv_j = phi(k_j) E^T, E without the last row
 *
 * so that queries and keys are two sides of one procedure: sum up the other side, then apply. The
 * peak of a Performer's keys carries no gradient. A unit is a head of keys with every head of
 * queries that shares it: E' sums over all of them.
 *
 * Both sides are cut into slices of tokens that depend on the lengths only; sums run in f32 for 512
 * tokens or so, then in f64, from zero in each slice, and slices are added in order. So the bits
 * are the same whether a thread walks whole units or several share one, where the sums of all
 * slices come first and causal forms them twice.
 */
#ifndef FB_LINEAR_GRADIENT_H
#define FB_LINEAR_GRADIENT_H

#include "linear/linear_gradient_walk.h"
#include "parallel.h"

/* Not causal: the totals are one sum over all slices, for every token. The sinks are visited once,
 * for dq and for their sums. */
static void linear_apply_unit(const struct linear_gradient *g,
                              const struct linear_gradient_scratch *s, int64_t unit)
{
    linear_clear(s->before, g->state_count);
    for (int64_t slice = 0; slice < g->slices; slice++) {
        linear_sum_side(g, s, unit, slice, LINEAR_SOURCES, s->slice);
        linear_add_f64(s->before, s->slice, g->state_count);
    }
    linear_round(s->state, s->before, g->state_count);
    linear_clear(s->before, g->state_count);
    for (int64_t slice = 0; slice < g->slices; slice++) {
        linear_cross_sinks(g, s, unit, slice, s->state, s->slice);
        linear_add_f64(s->before, s->slice, g->state_count);
    }
    for (int64_t slice = 0; slice < g->slices; slice++) {
        linear_apply_slice(g, s, unit, slice, LINEAR_SINKS, s->before);
    }
}

/* Causal: the slices in the order in which the sums grow. */
static void linear_walk_unit(const struct linear_gradient *g,
                             const struct linear_gradient_scratch *s, int64_t unit,
                             enum linear_side side)
{
    linear_clear(s->before, g->state_count);
    for (int64_t i = 0; i < g->slices; i++) {
        const int64_t slice = side == LINEAR_SINKS ? g->slices - 1 - i : i;
        linear_walk_side(g, s, unit, slice, side, s->before);
        linear_add_f64(s->before, s->slice, g->state_count);
    }
}

static void linear_run_unit(void *context, int64_t unit, int thread)
{
    const struct linear_gradient *g = (const struct linear_gradient *)context;
    const struct linear_gradient_scratch s = linear_gradient_of_thread(g, thread);
    if (g->problem->causal) {
        linear_walk_unit(g, &s, unit, LINEAR_SOURCES);
        linear_walk_unit(g, &s, unit, LINEAR_SINKS);
    } else {
        linear_apply_unit(g, &s, unit);
    }
}

/* ---- units shared by threads --------------------------------------------------------------- */

/* The sums of all slices of one side of a unit, [slices][state_count]. */
static double *linear_slots(const struct linear_gradient *g, int64_t unit, enum linear_side side)
{
    return g->slots + (unit * LINEAR_SIDES + (int64_t)side) * g->slices * g->state_count;
}

static void linear_run_side_sums(void *context, int64_t task, int thread)
{
    const struct linear_gradient *g = (const struct linear_gradient *)context;
    const struct linear_gradient_scratch s = linear_gradient_of_thread(g, thread);
    const enum linear_side side = (enum linear_side)(task % LINEAR_SIDES);
    const int64_t slice = task / LINEAR_SIDES % g->slices;
    const int64_t unit = task / LINEAR_SIDES / g->slices;
    linear_sum_side(g, &s, unit, slice, side, linear_slots(g, unit, side) + slice * g->state_count);
}

/* Causal: every slot becomes the sum of those before it, in the order in which sums grow. Else
 * every slot becomes the total. */
static void linear_run_side_totals(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct linear_gradient *g = (const struct linear_gradient *)context;
    const enum linear_side side = (enum linear_side)(task % LINEAR_SIDES);
    double *slots = linear_slots(g, task / LINEAR_SIDES, side);
    const bool causal = g->problem->causal;
    const bool reverse = causal && side == LINEAR_SINKS;
    for (int64_t i = 0; i < g->state_count; i++) {
        double before = 0.0;
        for (int64_t n = 0; n < g->slices; n++) {
            double *slot = slots + (reverse ? g->slices - 1 - n : n) * g->state_count + i;
            const double own = *slot;
            *slot = before;
            before += own;
        }
        for (int64_t n = 0; !causal && n < g->slices; n++) {
            slots[n * g->state_count + i] = before;
        }
    }
}

static void linear_run_side_gradients(void *context, int64_t task, int thread)
{
    const struct linear_gradient *g = (const struct linear_gradient *)context;
    const struct linear_gradient_scratch s = linear_gradient_of_thread(g, thread);
    const enum linear_side side = (enum linear_side)(task % LINEAR_SIDES);
    const int64_t slice = task / LINEAR_SIDES % g->slices;
    const int64_t unit = task / LINEAR_SIDES / g->slices;
    const double *before = linear_slots(g, unit, side) + slice * g->state_count;
    if (g->problem->causal) {
        linear_walk_side(g, &s, unit, slice, side, before);
    } else {
        linear_apply_slice(g, &s, unit, slice, side, before);
    }
}

/* ---- the pass ------------------------------------------------------------------------------ */

/* Splits the pass into tasks and lays out scratch; returns the bytes needed. With scratch NULL it
 * only counts. */
static size_t linear_plan_gradient(struct linear_gradient *g, const struct fb_problem *p,
                                   const struct linear_map *map, int threads, void *scratch)
{
    const int64_t tokens = linear_larger(p->q_len, p->kv_len);
    *g = (struct linear_gradient){
        .problem = p,
        .map = map,
        .units = p->batch * p->kv_heads,
        .group = fb_baseline_group(p),
        .ld_features = fb_vf_round_up(map->count),
        .ld_extended = fb_vf_round_up(p->v_dim + 1),
        .block_tokens = p->causal ? LINEAR_CHUNK : 64,
        .slice_tokens = linear_slice_tokens(p),
    };
    g->state_count = (p->v_dim + 1) * g->ld_features;
    g->slices = (tokens + g->slice_tokens - 1) / g->slice_tokens;
    g->whole_units =
        g->slices == 1 ? g->units >= threads : fb_baseline_whole_units(g->units, threads);

    struct fb_scratch_cursor cursor = {(unsigned char *)scratch, 0};
    int64_t tasks = g->units;
    if (!g->whole_units) {
        tasks *= LINEAR_SIDES * g->slices;
        g->slots = fb_scratch_take_f64(&cursor, tasks * g->state_count);
    }
    (void)linear_gradient_scratch_at(g, NULL, &g->thread_bytes);
    g->thread_base =
        (unsigned char *)fb_scratch_take(&cursor, linear_smaller(threads, tasks), g->thread_bytes);
    return cursor.used_bytes;
}

/* Runs a planned pass. */
static void linear_backward(struct linear_gradient *g, const struct fb_call *call)
{
    const int threads = call->threads;
    g->call = call;
    if (g->whole_units) {
        fb_parallel_for(threads, g->units, linear_run_unit, g);
    } else {
        const int64_t tasks = g->units * LINEAR_SIDES * g->slices;
        fb_parallel_for(threads, tasks, linear_run_side_sums, g);
        fb_parallel_for(threads, g->units * LINEAR_SIDES, linear_run_side_totals, g);
        fb_parallel_for(threads, tasks, linear_run_side_gradients, g);
    }
    fb_baseline_clear_gradient_padding(g->problem, call);
}

#endif
