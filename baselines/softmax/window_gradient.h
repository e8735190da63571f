/*
 * Gradients of the tiled softmax over a band of keys (window_softmax.h), from the saved logarithm
 * lse_i of the sum of exponentials: blocks of scores are formed again, never the whole matrix.
 *
 *   p_ij = exp(s_ij - lse_i)   dp_ij = dout_i . v_j   delta_i = dout_i . out_i
 *   ds_ij = p_ij (dp_ij - delta_i) / sqrt(D)
 *   dq_i = sum_j ds_ij k_j     dk_j = sum_i ds_ij q_i     dv_j = sum_i p_ij dout_i
 *
 * Dao et al., "FlashAttention", NeurIPS 2022, appendix B.2. Blocks lie on a fixed grid of 64 sinks
 * by 192 sources, and both p and ds are held transposed as in the forward pass.
 *
 * Tasks. With sequences enough for all threads a task is a sequence of keys with every head that
 * shares it, and each block serves all three gradients (five products). Else the blocks are formed
 * twice (seven products): once by tasks of sinks for dq, once by tasks of sources for dk and dv.
 * Both add the blocks to a gradient in the same order, from the first to the last, so the bits are
 * the same for any number of threads. In 16-bit dtypes they are added up in f32 beside the tensor,
 * dk and dv for all the sources of a task, and rounded once. Where there are far more sinks than
 * sources, dk and dv are put away in f64 after some blocks of sinks and begin anew.
 */
#ifndef FB_WINDOW_GRADIENT_H
#define FB_WINDOW_GRADIENT_H

#include "softmax/window_plan.h"

/* Sinks between two times that dk and dv are put away; from how many sinks on, and how many of them
 * there are for a source at least: sums in f64 are then less than 1 % of the tensors. */
enum {
    WINDOW_SINK_STRETCH = 64 * WINDOW_SINKS,
    WINDOW_MANY_SINKS = 16 * WINDOW_SINK_STRETCH,
    WINDOW_SINKS_PER_SOURCE = 64
};

/* Scratch of one thread. */
struct window_gradient {
    float *queries; /* [D][64], scaled by 1 / sqrt(D); zero beyond the last sink */
    float *douts;   /* [M][64], likewise, not scaled */
    float *weights; /* [WINDOW_SOURCES][64] scores, then p */
    float *slopes;  /* [WINDOW_SOURCES][64] dp, then ds */
    float *lse;     /* [64] */
    float *delta;   /* [64] */
    /* rooms for rows that are not f32: of the sinks, of the sources at hand (of out, before), and
     * of the gradients of all the sources of the task */
    float *q_room, *dout_room, *dq_room;
    float *k_room, *v_room;
    float *dk_room, *dv_room;
    double *dk_sums, *dv_sums; /* of all the sources of the task, put away; or NULL */
};

/* The block of sinks at hand. */
struct window_sinks {
    const struct window_unit *unit;
    int64_t first, count;
    struct fb_row_block q, dout;
};

/* The sources of a task, start <= j, and their gradients. */
struct window_sources {
    int64_t start;
    struct fb_row_block dk, dv;
};

static struct window_gradient window_gradient_at(const struct window_kernel *w, unsigned char *base,
                                                 size_t *bytes)
{
    const struct fb_problem *p = w->problem;
    const enum fb_dtype dtype = p->dtype;
    struct fb_scratch_cursor cursor = fb_scratch_at(base);
    struct window_gradient s;
    s.queries = fb_scratch_take_f32(&cursor, p->qk_dim * WINDOW_SINKS);
    s.douts = fb_scratch_take_f32(&cursor, p->v_dim * WINDOW_SINKS);
    s.weights = fb_scratch_take_f32(&cursor, (int64_t)WINDOW_SOURCES * WINDOW_SINKS);
    s.slopes = fb_scratch_take_f32(&cursor, (int64_t)WINDOW_SOURCES * WINDOW_SINKS);
    s.lse = fb_scratch_take_f32(&cursor, WINDOW_SINKS);
    s.delta = fb_scratch_take_f32(&cursor, WINDOW_SINKS);
    s.q_room = fb_scratch_take_f32(&cursor, fb_row_room(dtype, WINDOW_SINKS, p->qk_dim));
    s.dout_room = fb_scratch_take_f32(&cursor, fb_row_room(dtype, WINDOW_SINKS, p->v_dim));
    s.dq_room = fb_scratch_take_f32(&cursor, fb_row_room(dtype, WINDOW_SINKS, p->qk_dim));
    s.k_room = fb_scratch_take_f32(&cursor, fb_row_room(dtype, WINDOW_SOURCES, p->qk_dim));
    s.v_room = fb_scratch_take_f32(&cursor, fb_row_room(dtype, WINDOW_SOURCES, p->v_dim));
    s.dk_room = fb_scratch_take_f32(&cursor, fb_row_room(dtype, w->gradient_rows, p->qk_dim));
    s.dv_room = fb_scratch_take_f32(&cursor, fb_row_room(dtype, w->gradient_rows, p->v_dim));
    s.dk_sums = s.dv_sums = NULL;
    if (w->puts_away) {
        s.dk_sums = fb_scratch_take_f64(&cursor, w->gradient_rows * p->qk_dim);
        s.dv_sums = fb_scratch_take_f64(&cursor, w->gradient_rows * p->v_dim);
    }
    *bytes = cursor.used_bytes;
    return s;
}

static struct window_gradient window_gradient_of_thread(const struct window_kernel *w, int thread)
{
    size_t bytes;
    unsigned char *scratch = (unsigned char *)w->call->scratch;
    return window_gradient_at(w, scratch + (size_t)thread * w->thread_bytes, &bytes);
}

static float window_dot(const float *a, const float *b, int64_t count)
{
    fb_vf sum = fb_vf_zero();
    for (int64_t c = 0; c < count; c += FB_VW) {
        const int64_t lanes = window_smaller(FB_VW, count - c);
        sum = fb_vf_fma(fb_vf_load_part(a + c, lanes), fb_vf_load_part(b + c, lanes), sum);
    }
    return fb_vf_sum(sum);
}

/* Packs the block of sinks that starts at first and takes up what the forward pass saved of them.
 */
static struct window_sinks window_take_sinks(const struct window_kernel *w,
                                             const struct window_gradient *s,
                                             const struct window_unit *u, int64_t first)
{
    const struct fb_problem *p = w->problem;
    const struct fb_call *call = w->call;
    const int64_t count = window_smaller(WINDOW_SINKS, u->sinks - first);
    const struct fb_row_range rows = window_sink_rows(u, first, count);
    const struct window_sinks x = {u, first, count, fb_rows_load(&call->q, rows, s->q_room),
                                   fb_rows_load(&call->dout, rows, s->dout_room)};
    const struct fb_row_block out = fb_rows_load(&call->out, rows, s->v_room);
    window_pack(x.q, count, p->qk_dim, window_scale(p), s->queries);
    window_pack(x.dout, count, p->v_dim, 1.0F, s->douts);
    for (int64_t i = 0; i < WINDOW_SINKS; i++) {
        const bool valid = i < count;
        s->lse[i] = valid ? *window_saved(w, u, first + i) : FLT_MAX;
        s->delta[i] =
            valid ? window_dot(x.dout.rows + i * x.dout.stride, out.rows + i * out.stride, p->v_dim)
                  : 0.0F;
    }
    return x;
}

/* Scores and dp of one vector of sinks become p and ds. */
FB_ALWAYS_INLINE void window_differentiate(float *weights, float *slopes, int64_t rows,
                                           const float *lse_at, const float *delta_at, float scale)
{
    const fb_vf lse = fb_vf_load(lse_at);
    const fb_vf delta = fb_vf_load(delta_at);
    const fb_vf factor = fb_vf_set1(scale);
    for (int64_t r = 0; r < rows; r++) {
        float *weight = weights + r * WINDOW_SINKS;
        float *slope = slopes + r * WINDOW_SINKS;
        const fb_vf p = fb_vf_exp_fast(fb_vf_sub(fb_vf_load(weight), lse));
        const fb_vf d = fb_vf_mul(factor, fb_vf_sub(fb_vf_load(slope), delta));
        fb_vf_store(weight, p);
        fb_vf_store(slope, fb_vf_mul(p, d));
    }
}

/* p and ds of the sinks taken against the sources start <= j < end, whose keys are k; returns the
 * groups. */
static int window_take_sources(const struct window_kernel *w, const struct window_gradient *s,
                               const struct window_sinks *x, struct fb_row_block k, int64_t start,
                               int64_t end, struct window_range *range, struct fb_tile_extra *extra)
{
    const struct fb_row_range rows = window_source_rows(x->unit, start, end - start);
    const int groups = window_ranges(w, x->first, x->count, start, end, range);
    window_multiply(range, groups, k, w->problem->qk_dim, s->queries, start, end, s->weights,
                    extra);
    window_multiply(range, groups, fb_rows_load(&w->call->v, rows, s->v_room), w->problem->v_dim,
                    s->douts, start, end, s->slopes, extra);
    for (int g = 0; g < groups; g++) {
        const int64_t lane = (int64_t)g * WINDOW_GROUP;
        const int64_t offset = (range[g].first - start) * WINDOW_SINKS + lane;
        window_mask(w, s->weights + offset, range[g], x->first + lane);
        for (int64_t c = 0; c < WINDOW_GROUP; c += FB_VW) {
            window_differentiate(s->weights + offset + c, s->slopes + offset + c,
                                 range[g].end - range[g].first, s->lse + lane + c,
                                 s->delta + lane + c, window_scale(w->problem));
        }
    }
    return groups;
}

/* gradient_j += sum over the sinks of matrix [source][64] x row of the sinks; both gradient and
 * matrix begin at start. */
static void window_scatter(const struct window_kernel *w, const struct window_range *range,
                           int groups, const float *matrix, const struct window_sinks *x,
                           struct fb_row_block rows, int64_t dim, struct fb_row_block gradient,
                           int64_t start, int64_t end, struct fb_tile_extra *extra)
{
    struct window_run run = {.end = start};
    while (window_next_run(range, groups, end, &run)) {
        const struct window_range seen = {
            x->first + (int64_t)run.first_group * WINDOW_GROUP,
            x->first + window_smaller((int64_t)run.end_group * WINDOW_GROUP, x->count)};
        const bool whole =
            seen.end - 1 - w->band.back <= run.first && run.end - 1 <= seen.first + w->band.ahead;
        for (int64_t j = run.first, count = run.end - j; j < run.end; j += count) {
            count = whole ? count : window_strip(run.end - j);
            /* A source is seen from as far ahead as a sink looks back. */
            const struct window_range r = window_cut(seen, j, count, w->band.ahead, w->band.back);
            if (r.first < r.end) {
                const int64_t lane = r.first - x->first;
                FB_ISA_SYMBOL(fb_tile_gemm_extra)
                (count, dim, r.end - r.first, matrix + (j - start) * WINDOW_SINKS + lane,
                 WINDOW_SINKS, 1, rows.rows + lane * rows.stride, rows.stride,
                 gradient.rows + (j - start) * gradient.stride, gradient.stride, true, extra);
            }
        }
    }
}

static struct fb_row_block window_rows_from(struct fb_row_block block, int64_t row)
{
    return (struct fb_row_block){block.rows + row * block.stride, block.stride};
}

static void window_add_sources(const struct window_kernel *w, const struct window_gradient *s,
                               const struct window_sinks *x, const struct window_sources *y,
                               const struct window_range *range, int groups, int64_t start,
                               int64_t end, struct fb_tile_extra *extra)
{
    window_scatter(w, range, groups, s->slopes, x, x->q, w->problem->qk_dim,
                   window_rows_from(y->dk, start - y->start), start, end, extra);
    window_scatter(w, range, groups, s->weights, x, x->dout, w->problem->v_dim,
                   window_rows_from(y->dv, start - y->start), start, end, extra);
}

static void window_clear_rows(struct fb_row_block block, int64_t count, int64_t dim)
{
    for (int64_t i = 0; i < count; i++) {
        memset(block.rows + i * block.stride, 0, (size_t)dim * sizeof *block.rows);
    }
}

static void window_add_rows(struct fb_row_block block, int64_t count, int64_t dim, double *sums)
{
    for (int64_t i = 0; i < count; i++) {
        for (int64_t c = 0; c < dim; c++) {
            sums[i * dim + c] += (double)block.rows[i * block.stride + c];
        }
    }
    window_clear_rows(block, count, dim);
}

/* After the block of sinks from `first` on, of those before `end`: puts away what the task's
 * sources have got, where a stretch of sinks is over. */
static void window_put_gradients_away(const struct window_kernel *w,
                                      const struct window_gradient *s,
                                      const struct window_sources *y, int64_t count, int64_t first,
                                      int64_t end)
{
    const int64_t next = first + WINDOW_SINKS;
    if (w->puts_away && (next % WINDOW_SINK_STRETCH == 0 || next >= end)) {
        window_add_rows(y->dk, count, w->problem->qk_dim, s->dk_sums);
        window_add_rows(y->dv, count, w->problem->v_dim, s->dv_sums);
    }
}

static void window_bring_rows(struct fb_row_block block, int64_t count, int64_t dim,
                              const double *sums)
{
    for (int64_t i = 0; i < count; i++) {
        for (int64_t c = 0; c < dim; c++) {
            block.rows[i * block.stride + c] = (float)sums[i * dim + c];
        }
    }
}

/* ---- what products fetch meanwhile --------------------------------------------------------- */

/* Keys, values and their gradients of the sources first <= j < end, at most a block of them. */
static struct fb_tile_extra window_fetch_sources(const struct window_kernel *w,
                                                 const struct window_unit *u, int64_t first,
                                                 int64_t end, bool gradients)
{
    const struct fb_call *call = w->call;
    const struct fb_row_range rows =
        window_source_rows(u, first, window_smaller(WINDOW_SOURCES, end - first));
    struct fb_tile_extra extra = {
        .fetch = {fb_rows_range(&call->k, rows), fb_rows_range(&call->v, rows)}};
    if (gradients) {
        extra.fetch[2] = fb_rows_range(&call->dk, rows);
        extra.fetch[3] = fb_rows_range(&call->dv, rows);
    }
    return extra;
}

/* The block of sinks that starts at first, which may lie beyond the sequence: then none. */
static struct fb_tile_extra window_fetch_sinks(const struct window_kernel *w,
                                               const struct window_unit *u, int64_t first,
                                               bool gradients)
{
    const struct fb_call *call = w->call;
    const int64_t count = first < 0 ? 0 : window_smaller(WINDOW_SINKS, u->sinks - first);
    const struct fb_row_range rows = window_sink_rows(u, first, count);
    struct fb_tile_extra extra = {.fetch = {fb_rows_range(&call->q, rows),
                                            fb_rows_range(&call->dout, rows),
                                            fb_rows_range(&call->out, rows)}};
    if (gradients) {
        extra.fetch[3] = fb_rows_range(&call->dq, rows);
    }
    return extra;
}

/* The sources that the block of sinks from next_sink on sees beyond those low <= j < high. */
static struct fb_tile_extra window_fetch_beyond(const struct window_kernel *w,
                                                const struct window_unit *u, int64_t next_sink,
                                                int64_t low, int64_t high, bool gradients)
{
    if (next_sink < 0 || next_sink >= u->sinks) {
        return (struct fb_tile_extra){0};
    }
    const int64_t start = window_larger(0, next_sink - w->band.back);
    const int64_t end = window_smaller(u->sources, next_sink + WINDOW_SINKS + w->band.ahead);
    return end > high ? window_fetch_sources(w, u, window_larger(start, high), end, gradients)
                      : window_fetch_sources(w, u, start, window_smaller(end, low), gradients);
}

/* One block of sinks against all it sees: dq, and unless y is NULL its share of dk and dv. The
 * thread's next block of sinks, if there is one, starts at next_sink. */
static void window_walk_sources(const struct window_kernel *w, const struct window_gradient *s,
                                const struct window_unit *u, int64_t first_sink, int64_t next_sink,
                                const struct window_sources *y)
{
    const int64_t dim = w->problem->qk_dim;
    const struct window_sinks x = window_take_sinks(w, s, u, first_sink);
    const int64_t low = window_larger(0, first_sink - w->band.back) / WINDOW_SOURCES;
    const int64_t high = window_smaller(u->sources, first_sink + x.count + w->band.ahead);
    const struct fb_row_range sinks = window_sink_rows(u, first_sink, x.count);
    const struct fb_row_block dq = fb_rows_open(&w->call->dq, sinks, s->dq_room);
    struct fb_tile_extra after = window_fetch_sinks(w, u, next_sink, true);
    struct fb_tile_extra beyond =
        window_fetch_beyond(w, u, next_sink, low * WINDOW_SOURCES, high, y != NULL);
    const bool wide = high - low * WINDOW_SOURCES > 3 * (int64_t)WINDOW_SOURCES;
    window_clear_rows(dq, x.count, dim);
    for (int64_t start = low * WINDOW_SOURCES; start < high; start += WINDOW_SOURCES) {
        struct window_range range[WINDOW_GROUPS];
        const int64_t end = window_smaller(u->sources, start + WINDOW_SOURCES);
        const struct fb_row_block k =
            fb_rows_load(&w->call->k, window_source_rows(u, start, end - start), s->k_room);
        struct fb_tile_extra block = window_fetch_sources(w, u, end, high, y != NULL);
        const bool ahead = wide && end < high;
        const int groups =
            window_take_sources(w, s, &x, k, start, end, range, ahead ? &block : &after);
        struct fb_tile_extra *rest = ahead ? &block : &beyond;
        window_gather(w, range, groups, s->slopes, k, dim, start, x.first, x.count, dq.rows,
                      dq.stride, rest);
        if (y != NULL) {
            window_add_sources(w, s, &x, y, range, groups, start, end, rest);
        }
    }
    fb_rows_close(&w->call->dq, sinks, dq);
}

/* One block of sources against all that see it, of one head: its share of dk and dv. */
static void window_walk_sinks(const struct window_kernel *w, const struct window_gradient *s,
                              const struct window_unit *u, const struct window_sources *y)
{
    const int64_t start = y->start;
    const int64_t end = window_smaller(u->sources, start + WINDOW_SOURCES);
    const int64_t low = window_larger(0, start - w->band.ahead) / WINDOW_SINKS;
    const int64_t high = window_smaller(u->sinks, end + w->band.back);
    const struct fb_row_block k =
        fb_rows_load(&w->call->k, window_source_rows(u, start, end - start), s->k_room);
    for (int64_t first = low * WINDOW_SINKS; first < high; first += WINDOW_SINKS) {
        struct window_range range[WINDOW_GROUPS];
        const struct window_sinks x = window_take_sinks(w, s, u, first);
        struct fb_tile_extra extra = window_fetch_sinks(w, u, first + WINDOW_SINKS, false);
        const int groups = window_take_sources(w, s, &x, k, start, end, range, &extra);
        window_add_sources(w, s, &x, y, range, groups, start, end, &extra);
        window_put_gradients_away(w, s, y, end - start, first, high);
    }
}

/* The gradients of count sources from start on, zero. */
static struct window_sources window_open_sources(const struct window_kernel *w,
                                                 const struct window_gradient *s,
                                                 const struct window_unit *u, int64_t start,
                                                 int64_t count)
{
    const struct fb_row_range rows = window_source_rows(u, start, count);
    const struct window_sources y = {start, fb_rows_open(&w->call->dk, rows, s->dk_room),
                                     fb_rows_open(&w->call->dv, rows, s->dv_room)};
    window_clear_rows(y.dk, count, w->problem->qk_dim);
    window_clear_rows(y.dv, count, w->problem->v_dim);
    for (int64_t i = 0; w->puts_away && i < count * w->problem->qk_dim; i++) {
        s->dk_sums[i] = 0.0;
    }
    for (int64_t i = 0; w->puts_away && i < count * w->problem->v_dim; i++) {
        s->dv_sums[i] = 0.0;
    }
    return y;
}

static void window_close_sources(const struct window_kernel *w, const struct window_gradient *s,
                                 const struct window_unit *u, const struct window_sources *y,
                                 int64_t count)
{
    const struct fb_row_range rows = window_source_rows(u, y->start, count);
    if (w->puts_away) {
        window_bring_rows(y->dk, count, w->problem->qk_dim, s->dk_sums);
        window_bring_rows(y->dv, count, w->problem->v_dim, s->dv_sums);
    }
    fb_rows_close(&w->call->dk, rows, y->dk);
    fb_rows_close(&w->call->dv, rows, y->dv);
}

/* The sequence of a head of keys, seen from the round-th head that shares it. */
static struct window_unit window_shared_unit(const struct window_kernel *w, int64_t sequence,
                                             int64_t round)
{
    const struct fb_problem *p = w->problem;
    const int64_t head = sequence / w->band.step;
    const int64_t h = head % p->kv_heads * fb_baseline_group(p) + round;
    return window_unit_at(w, head / p->kv_heads, h, sequence % w->band.step);
}

static void window_run_sequence(void *context, int64_t task, int thread)
{
    const struct window_kernel *w = (const struct window_kernel *)context;
    const struct window_gradient s = window_gradient_of_thread(w, thread);
    const struct window_unit own = window_shared_unit(w, task, 0);
    const struct window_sources y = window_open_sources(w, &s, &own, 0, own.sources);
    for (int64_t round = 0; round < fb_baseline_group(w->problem); round++) {
        const struct window_unit u = window_shared_unit(w, task, round);
        for (int64_t first = 0; first < u.sinks; first += WINDOW_SINKS) {
            window_walk_sources(w, &s, &u, first, first + WINDOW_SINKS, &y);
            window_put_gradients_away(w, &s, &y, own.sources, first, u.sinks);
        }
    }
    window_close_sources(w, &s, &own, &y, own.sources);
}

static void window_run_dq(void *context, int64_t task, int thread)
{
    const struct window_kernel *w = (const struct window_kernel *)context;
    const struct window_gradient s = window_gradient_of_thread(w, thread);
    const int64_t sequence = task / w->sink_blocks;
    const int64_t head = sequence / w->band.step;
    const int64_t heads = w->problem->heads;
    const struct window_unit u =
        window_unit_at(w, head / heads, head % heads, sequence % w->band.step);
    const int64_t first = (w->sink_blocks - 1 - task % w->sink_blocks) * WINDOW_SINKS;
    if (first < u.sinks) {
        const int64_t next = first - (int64_t)w->call->threads * WINDOW_SINKS;
        window_walk_sources(w, &s, &u, first, next, NULL);
    }
}

static void window_run_dk_dv(void *context, int64_t task, int thread)
{
    const struct window_kernel *w = (const struct window_kernel *)context;
    const struct window_gradient s = window_gradient_of_thread(w, thread);
    const int64_t start = task % w->source_blocks * WINDOW_SOURCES;
    const struct window_unit own = window_shared_unit(w, task / w->source_blocks, 0);
    const int64_t count = window_smaller(WINDOW_SOURCES, own.sources - start);
    if (count <= 0) {
        return;
    }
    const struct window_sources y = window_open_sources(w, &s, &own, start, count);
    for (int64_t round = 0; round < fb_baseline_group(w->problem); round++) {
        const struct window_unit u = window_shared_unit(w, task / w->source_blocks, round);
        window_walk_sinks(w, &s, &u, &y);
    }
    window_close_sources(w, &s, &own, &y, count);
}

static int64_t window_sequences(const struct window_kernel *w)
{
    return w->problem->batch * w->problem->kv_heads * w->band.step;
}

/* Whether tasks are whole sequences; lays out scratch accordingly. */
static bool window_plan_backward(struct window_kernel *w, int threads)
{
    const bool whole = fb_baseline_whole_units(window_sequences(w), threads);
    const struct fb_problem *p = w->problem;
    w->gradient_rows = whole ? w->source_blocks * WINDOW_SOURCES : WINDOW_SOURCES;
    w->puts_away = p->q_len > WINDOW_MANY_SINKS && p->kv_len * WINDOW_SINKS_PER_SOURCE <= p->q_len;
    (void)window_gradient_at(w, NULL, &w->thread_bytes);
    return whole;
}

static size_t window_backward_bytes(struct window_kernel *w, int threads)
{
    const int64_t sequences = window_sequences(w);
    const int64_t sink_tasks = sequences * fb_baseline_group(w->problem) * w->sink_blocks;
    const int64_t tasks = window_plan_backward(w, threads)
                              ? sequences
                              : window_larger(sink_tasks, sequences * w->source_blocks);
    return w->thread_bytes * (size_t)window_smaller(threads, tasks);
}

static void window_backward(const struct fb_problem *problem, const struct fb_call *call,
                            struct window_band band)
{
    struct window_kernel w = window_plan(problem, call, band);
    const int64_t sequences = window_sequences(&w);
    if (window_plan_backward(&w, call->threads)) {
        fb_parallel_for(call->threads, sequences, window_run_sequence, &w);
    } else {
        const int64_t heads = sequences * fb_baseline_group(problem);
        fb_parallel_for(call->threads, heads * w.sink_blocks, window_run_dq, &w);
        fb_parallel_for(call->threads, sequences * w.source_blocks, window_run_dk_dv, &w);
    }
    fb_baseline_clear_gradient_padding(problem, call);
}

#endif
