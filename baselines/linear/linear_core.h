/*
 * Attention that is linear in the features of its queries and keys, the kernel of linear attention
 * and Performer:
 *
 *   out_i = phi(q_i) G / (phi(q_i) . z + eps),   G = sum_j phi(k_j) v_j^T,   z = sum_j phi(k_j)
 *
 * over all j, or over j <= i when causal. Included by the CPU source of each mechanism, once per
 * instruction set; a linear_map says what phi is.
 *
 * Sums: f32 over at most 512 tokens or so, f64 beyond. The sources are cut into slices whose
 * length depends on the problem only; a slice is summed from zero and slices are added in order.
 * So the same bits come out whether one thread walks a head (many heads) or several share it:
 *   whole heads   one task per head, no barrier
 *   slices        sums of every slice; then their totals (causal: exclusive prefixes); then the
 *                 outputs of every slice. Causal forms the sums twice, for the sake of the threads.
 *
 * Causal goes by chunks of 32 tokens: out = tril(phi(q) phi(k)^T) V + phi(q) G, then G grows.
 */
#ifndef FB_LINEAR_CORE_H
#define FB_LINEAR_CORE_H

#include "linear/linear_causal.h"
#include "linear/linear_outputs.h"
#include "linear/linear_sums.h"
#include "parallel.h"

static struct linear_scratch linear_thread_scratch(const struct linear_kernel *w, int thread)
{
    size_t bytes;
    return linear_scratch_at(w, w->thread_base + (size_t)thread * w->thread_bytes, &bytes);
}

static int64_t linear_slice_end(const struct linear_kernel *w, int64_t head, int64_t slice)
{
    return linear_smaller((slice + 1) * w->slice_tokens, linear_place_of(w, head).sources);
}

/* The sums of one slice, not causal; returns their peak. */
static float linear_total_slice(const struct linear_kernel *w, const struct linear_scratch *s,
                                int64_t head, int64_t slice, double *sums)
{
    const int64_t first = slice * w->slice_tokens;
    const int64_t end = linear_slice_end(w, head, slice);
    if (w->running_peak) {
        return linear_sum_slice_running(w, s, head, first, end, sums);
    }
    linear_sum_slice(w, s, head, first, end, 0.0F, sums);
    return 0.0F;
}

static void linear_run_head(void *context, int64_t head, int thread)
{
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    const struct linear_scratch s = linear_thread_scratch(w, thread);
    const struct linear_place at = linear_place_of(w, head);
    float peak = linear_total_slice(w, &s, head, 0, s.before);
    for (int64_t slice = 1; slice < w->slices; slice++) {
        const float own = linear_total_slice(w, &s, head, slice, s.slice);
        linear_merge(w, s.before, &peak, s.slice, own);
    }
    linear_finish(w, s.before, at.sources, s.state);
    linear_write(w, &s, head, 0, at.sinks, s.state);
    linear_save_peak(w, head, peak);
}

static void linear_run_causal_head(void *context, int64_t head, int thread)
{
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    const struct linear_scratch s = linear_thread_scratch(w, thread);
    const struct linear_place at = linear_place_of(w, head);
    const float peak = linear_peak(w, &s, head, 0, at.sources);
    linear_save_peak(w, head, peak);
    linear_clear(s.before, w->state_count);
    for (int64_t slice = 0; slice < w->slices; slice++) {
        const int64_t first = slice * w->slice_tokens;
        if (first >= at.sinks) {
            break;
        }
        linear_walk_slice(w, &s, head, first, linear_walk_end(w, slice), peak, s.before);
        if (w->slices > 1) {
            linear_add_f64(s.before, s.slice, w->state_count);
        }
    }
}

static void linear_run_peak(void *context, int64_t task, int thread)
{
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    const struct linear_scratch s = linear_thread_scratch(w, thread);
    const int64_t head = task / w->slices;
    const int64_t slice = task % w->slices;
    w->peaks[task] =
        linear_peak(w, &s, head, slice * w->slice_tokens, linear_slice_end(w, head, slice));
}

static float linear_head_peak(const struct linear_kernel *w, int64_t head)
{
    float peak = -FLT_MAX;
    for (int64_t slice = 0; slice < w->slices; slice++) {
        const float found = w->peaks[head * w->slices + slice];
        peak = found > peak ? found : peak;
    }
    return peak;
}

static void linear_run_sums(void *context, int64_t task, int thread)
{
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    const struct linear_scratch s = linear_thread_scratch(w, thread);
    w->peaks[task] = linear_total_slice(w, &s, task / w->slices, task % w->slices,
                                        w->slots + task * w->state_count);
}

static void linear_run_causal_sums(void *context, int64_t task, int thread)
{
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    const struct linear_scratch s = linear_thread_scratch(w, thread);
    const int64_t head = task / w->slices;
    const int64_t slice = task % w->slices;
    linear_sum_slice(w, &s, head, slice * w->slice_tokens, linear_slice_end(w, head, slice),
                     linear_head_peak(w, head), w->slots + task * w->state_count);
}

/* Gathers the slots of a head in its first one. */
static void linear_run_totals(void *context, int64_t head, int thread)
{
    (void)thread;
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    double *slots = w->slots + head * w->slices * w->state_count;
    const float *peaks = w->peaks + head * w->slices;
    float peak = peaks[0];
    for (int64_t slice = 1; slice < w->slices; slice++) {
        linear_merge(w, slots, &peak, slots + slice * w->state_count, peaks[slice]);
    }
    linear_finish(w, slots, linear_place_of(w, head).sources, w->states + head * w->state_count);
    linear_save_peak(w, head, peak);
}

/* Every slot of a head becomes the sum of those before it. */
static void linear_run_prefixes(void *context, int64_t head, int thread)
{
    (void)thread;
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    double *slots = w->slots + head * w->slices * w->state_count;
    for (int64_t i = 0; i < w->state_count; i++) {
        double before = 0.0;
        for (int64_t slice = 0; slice < w->slices; slice++) {
            const double own = slots[slice * w->state_count + i];
            slots[slice * w->state_count + i] = before;
            before += own;
        }
    }
}

static int64_t linear_write_tasks(const struct linear_kernel *w)
{
    const int64_t tokens = w->block_tokens * LINEAR_OUT_BLOCKS;
    return (w->problem->q_len + tokens - 1) / tokens;
}

static void linear_run_write(void *context, int64_t task, int thread)
{
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    const struct linear_scratch s = linear_thread_scratch(w, thread);
    const int64_t tokens = w->block_tokens * LINEAR_OUT_BLOCKS;
    const int64_t head = task / linear_write_tasks(w);
    const int64_t first = task % linear_write_tasks(w) * tokens;
    linear_write(w, &s, head, first, linear_smaller(first + tokens, linear_place_of(w, head).sinks),
                 w->states + head * w->state_count);
}

static void linear_run_walk(void *context, int64_t task, int thread)
{
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    const struct linear_scratch s = linear_thread_scratch(w, thread);
    const int64_t head = task / w->slices;
    const int64_t slice = task % w->slices;
    const int64_t first = slice * w->slice_tokens;
    const float peak = linear_head_peak(w, head);
    if (slice == 0) {
        linear_save_peak(w, head, peak);
    }
    if (first < w->problem->q_len) {
        linear_walk_slice(w, &s, head, first, linear_walk_end(w, slice), peak,
                          w->slots + task * w->state_count);
    }
}

/* Runs a planned call. */
static void linear_forward(struct linear_kernel *w, const struct fb_call *call)
{
    const int threads = call->threads;
    const int64_t shares = w->heads * w->slices;
    const bool causal = w->problem->causal;
    w->call = call;
    if (w->whole_heads) {
        fb_parallel_for(threads, w->heads, causal ? linear_run_causal_head : linear_run_head, w);
    } else if (causal) {
        fb_parallel_for(threads, shares, linear_run_peak, w);
        fb_parallel_for(threads, shares, linear_run_causal_sums, w);
        fb_parallel_for(threads, w->heads, linear_run_prefixes, w);
        fb_parallel_for(threads, shares, linear_run_walk, w);
    } else {
        fb_parallel_for(threads, shares, linear_run_sums, w);
        fb_parallel_for(threads, w->heads, linear_run_totals, w);
        fb_parallel_for(threads, w->heads * linear_write_tasks(w), linear_run_write, w);
    }
    fb_clear_padding(w->problem, &call->out, true);
}

#endif
