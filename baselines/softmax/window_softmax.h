/*
 * Tiled softmax attention over a band of keys, the kernel of softmax and local attention, forward.
 * Included by the CPU source of each, once per instruction set; the band is told by window_plan.h.
 *
 * A task is one block of 64 sinks of one sequence. It walks the sources in blocks, with a running
 * maximum and sum per sink (Milakov & Gimelshein, "Online normalizer calculation for softmax",
 * 2018; Dao et al., "FlashAttention", NeurIPS 2022), so that memory does not grow with N.
 *
 * Scores are formed transposed, [source][sink]: one lane is one sink. Maxima, exponentials and sums
 * then run down the lanes without a horizontal step, and neither K nor V is ever packed:
 *   scores^T [keys][64]  = K [keys][D] . queries^T [D][64]   K row by row, queries^T packed once
 *   out      [64][M]    += scores^T read by columns . V [keys][M]
 * Sinks are grouped by 16; a group reads only the sources that some sink of it sees.
 *
 * A sink whose first sources weigh almost everything would lose those that come after, a block at a
 * time: after a few blocks the sums are put away, in f64, and begin anew.
 *
 * A training forward saves the logarithm of the sum of exponentials per sink, [B,H,L].
 */
#ifndef FB_WINDOW_SOFTMAX_H
#define FB_WINDOW_SOFTMAX_H

#include "softmax/window_plan.h"

/* Sources between two times that sums are put away. */
enum { WINDOW_STRETCH = 4 * WINDOW_SOURCES };

/* Scratch of one thread. */
struct window_scratch {
    float *queries; /* [D][64], scaled by 1 / sqrt(D); zero beyond the last sink */
    float *scores;  /* [WINDOW_SOURCES][64], then the weights exp(score - maximum) */
    float *sum;     /* [64][ld_sum], weighted sums of the rows of V */
    float *maximum; /* [64] */
    float *total;   /* [64], sums of the weights */
    float *factor;  /* [64] */
    float *room;    /* rows of a block that are not f32 */
    /* sums and totals that have been put away, and the maxima that those are relative to; NULL
     * where no sink sees more than a stretch */
    double *sums;   /* [64][ld_sum] */
    double *totals; /* [64] */
    float *before;  /* [64] */
};

/* The most sources that a block of sinks sees. */
static int64_t window_most_sources(const struct window_kernel *w)
{
    const int64_t all = w->problem->kv_len;
    return window_smaller(all, window_smaller(w->band.back, all) +
                                   window_smaller(w->band.ahead, all) + WINDOW_SINKS);
}

static struct window_scratch window_scratch_at(const struct window_kernel *w, unsigned char *base,
                                               size_t *bytes)
{
    const struct fb_problem *p = w->problem;
    const int64_t away = window_most_sources(w) > WINDOW_STRETCH ? WINDOW_SINKS : 0;
    struct fb_scratch_cursor cursor = fb_scratch_at(base);
    struct window_scratch s;
    s.queries = fb_scratch_take_f32(&cursor, p->qk_dim * WINDOW_SINKS);
    s.scores = fb_scratch_take_f32(&cursor, (int64_t)WINDOW_SOURCES * WINDOW_SINKS);
    s.sum = fb_scratch_take_f32(&cursor, fb_vf_round_up(p->v_dim) * WINDOW_SINKS);
    s.maximum = fb_scratch_take_f32(&cursor, WINDOW_SINKS);
    s.total = fb_scratch_take_f32(&cursor, WINDOW_SINKS);
    s.factor = fb_scratch_take_f32(&cursor, WINDOW_SINKS);
    s.room = fb_scratch_take_f32(
        &cursor, fb_row_room(p->dtype, WINDOW_SOURCES, window_larger(p->qk_dim, p->v_dim)));
    s.sums = fb_scratch_take_f64(&cursor, away * w->ld_sum);
    s.totals = fb_scratch_take_f64(&cursor, away);
    s.before = fb_scratch_take_f32(&cursor, away);
    *bytes = cursor.used_bytes;
    return s;
}

static int64_t window_tasks(const struct window_kernel *w)
{
    return w->problem->batch * w->problem->heads * w->band.step * w->sink_blocks;
}

static size_t window_forward_bytes(const struct window_kernel *w, int threads)
{
    size_t bytes;
    (void)window_scratch_at(w, NULL, &bytes);
    return bytes * (size_t)window_smaller(threads, window_tasks(w));
}

/* Turns one vector of sinks' scores, rows apart by 64 floats, into weights against the new running
 * maximum; updates maximum and total, and returns in *factor what earlier sums are multiplied by.
 */
FB_ALWAYS_INLINE void window_weigh(float *scores, int64_t rows, float *maximum, float *total,
                                   float *factor)
{
    fb_vf top0 = fb_vf_load(maximum);
    const fb_vf before = top0;
    fb_vf top1 = before;
    int64_t r = 0;
    for (; r + 2 <= rows; r += 2) {
        top0 = fb_vf_max(top0, fb_vf_load(scores + r * WINDOW_SINKS));
        top1 = fb_vf_max(top1, fb_vf_load(scores + (r + 1) * WINDOW_SINKS));
    }
    if (r < rows) {
        top0 = fb_vf_max(top0, fb_vf_load(scores + r * WINDOW_SINKS));
    }
    const fb_vf top = fb_vf_max(top0, top1);
    fb_vf sum0 = fb_vf_zero();
    fb_vf sum1 = fb_vf_zero();
    for (r = 0; r + 2 <= rows; r += 2) {
        float *row = scores + r * WINDOW_SINKS;
        const fb_vf x0 = fb_vf_exp_fast(fb_vf_sub(fb_vf_load(row), top));
        const fb_vf x1 = fb_vf_exp_fast(fb_vf_sub(fb_vf_load(row + WINDOW_SINKS), top));
        fb_vf_store(row, x0);
        fb_vf_store(row + WINDOW_SINKS, x1);
        sum0 = fb_vf_add(sum0, x0);
        sum1 = fb_vf_add(sum1, x1);
    }
    if (r < rows) {
        float *row = scores + r * WINDOW_SINKS;
        const fb_vf x0 = fb_vf_exp_fast(fb_vf_sub(fb_vf_load(row), top));
        fb_vf_store(row, x0);
        sum0 = fb_vf_add(sum0, x0);
    }
    const fb_vf shrink = fb_vf_exp_fast(fb_vf_sub(before, top));
    fb_vf_store(maximum, top);
    fb_vf_store(factor, shrink);
    fb_vf_store(total, fb_vf_fma(fb_vf_load(total), shrink, fb_vf_add(sum0, sum1)));
}

/* Multiplies the sums by their factors, where the maximum rose. */
static void window_rescale(const struct window_scratch *s, int64_t sinks, int64_t ld_sum)
{
    for (int64_t i = 0; i < sinks; i++) {
        if (s->factor[i] != 1.0F) {
            const fb_vf factor = fb_vf_set1(s->factor[i]);
            float *row = s->sum + i * ld_sum;
            for (int64_t c = 0; c < ld_sum; c += FB_VW) {
                fb_vf_store(row + c, fb_vf_mul(factor, fb_vf_load(row + c)));
            }
        }
    }
}

/* One block of sources, start <= j < end, for the block of sinks that starts at first_sink. */
static void window_source_block(const struct window_kernel *w, const struct window_scratch *s,
                                const struct window_unit *u, int64_t first_sink, int64_t sinks,
                                int64_t start, int64_t end, struct fb_tile_extra *extra)
{
    const struct fb_row_range rows = window_source_rows(u, start, end - start);
    struct window_range range[WINDOW_GROUPS];
    const int groups = window_ranges(w, first_sink, sinks, start, end, range);
    window_multiply(range, groups, fb_rows_load(&w->call->k, rows, s->room), w->problem->qk_dim,
                    s->queries, start, end, s->scores, extra);
    for (int g = 0; g < groups; g++) {
        const int64_t lane = (int64_t)g * WINDOW_GROUP;
        float *scores = s->scores + (range[g].first - start) * WINDOW_SINKS + lane;
        window_mask(w, scores, range[g], first_sink + lane);
        for (int64_t c = 0; c < WINDOW_GROUP; c += FB_VW) {
            window_weigh(scores + c, range[g].end - range[g].first, s->maximum + lane + c,
                         s->total + lane + c, s->factor + lane + c);
        }
    }
    window_rescale(s, sinks, w->ld_sum);
    window_gather(w, range, groups, s->scores, fb_rows_load(&w->call->v, rows, s->room),
                  w->problem->v_dim, start, first_sink, sinks, s->sum, w->ld_sum, extra);
}

/* Adds the sums to those that have been put away. */
static void window_put_away(const struct window_scratch *s, int64_t sinks, int64_t ld_sum)
{
    for (int64_t i = 0; i < sinks; i++) {
        const double shrink = exp((double)s->before[i] - (double)s->maximum[i]);
        double *sums = s->sums + i * ld_sum;
        float *sum = s->sum + i * ld_sum;
        for (int64_t c = 0; c < ld_sum; c++) {
            sums[c] = sums[c] * shrink + (double)sum[c];
            sum[c] = 0.0F;
        }
        s->totals[i] = s->totals[i] * shrink + (double)s->total[i];
        s->total[i] = 0.0F;
        s->before[i] = s->maximum[i];
    }
}

/* Sums and totals are those that have been put away. */
static void window_bring_back(const struct window_scratch *s, int64_t sinks, int64_t ld_sum)
{
    for (int64_t i = 0; i < sinks * ld_sum; i++) {
        s->sum[i] = (float)s->sums[i];
    }
    for (int64_t i = 0; i < sinks; i++) {
        s->total[i] = (float)s->totals[i];
    }
}

/* out = sum / total; a sink without a source gives 0. */
static void window_write(const struct window_kernel *w, const struct window_scratch *s,
                         const struct window_unit *u, int64_t first_sink, int64_t sinks)
{
    const int64_t dim = w->problem->v_dim;
    const struct fb_row_range rows = window_sink_rows(u, first_sink, sinks);
    const struct fb_row_block to = fb_rows_open(&w->call->out, rows, s->room);
    for (int64_t i = 0; i < sinks; i++) {
        const int64_t sink = first_sink + i;
        const bool sees = sink - w->band.back < u->sources;
        const fb_vf share = fb_vf_set1(1.0F / s->total[i]);
        const float *sum = s->sum + i * w->ld_sum;
        float *out = to.rows + i * to.stride;
        int64_t c = 0;
        if (!sees) { /* what a strip has added for others is not to be multiplied: it may be
                        infinite */
            memset(out, 0, (size_t)dim * sizeof *out);
            if (w->call->saved != NULL) {
                *window_saved(w, u, sink) = 0.0F;
            }
            continue;
        }
        for (; c + FB_VW <= dim; c += FB_VW) {
            fb_vf_store(out + c, fb_vf_mul(share, fb_vf_load(sum + c)));
        }
        if (c < dim) {
            fb_vf_store_part(out + c, fb_vf_mul(share, fb_vf_load(sum + c)), dim - c);
        }
        if (w->call->saved != NULL) {
            *window_saved(w, u, sink) = s->maximum[i] + logf(s->total[i]);
        }
    }
    fb_rows_close(&w->call->out, rows, to);
}

/* A block of sinks of one sequence, and the sources start <= j < end that it sees; none when it
 * holds padding only. */
struct window_task {
    struct window_unit unit;
    int64_t first_sink, sinks;
    int64_t start, end;
};

static struct window_task window_task_at(const struct window_kernel *w, int64_t task)
{
    const int64_t sequence = task / w->sink_blocks;
    const int64_t head = sequence / w->band.step;
    const int64_t heads = w->problem->heads;
    struct window_task t = {
        .unit = window_unit_at(w, head / heads, head % heads, sequence % w->band.step),
        /* The last sinks see the most when causal: they go first, so that no long task comes last.
         */
        .first_sink = (w->sink_blocks - 1 - task % w->sink_blocks) * WINDOW_SINKS,
    };
    t.sinks = window_smaller(WINDOW_SINKS, t.unit.sinks - t.first_sink);
    t.start = window_larger(0, t.first_sink - w->band.back);
    t.end = window_smaller(t.unit.sources, t.first_sink + t.sinks + w->band.ahead);
    return t;
}

/* A task of more than two blocks of sources fetches the next block while it works on one. */
static bool window_is_wide(const struct window_task *t)
{
    return t->end - t->start > 2 * (int64_t)WINDOW_SOURCES;
}

static struct fb_tile_extra window_fetch_block(const struct window_kernel *w,
                                               const struct window_task *t, int64_t first)
{
    const struct fb_row_range rows =
        window_source_rows(&t->unit, first, window_smaller(WINDOW_SOURCES, t->end - first));
    return (struct fb_tile_extra){
        .fetch = {fb_rows_range(&w->call->k, rows), fb_rows_range(&w->call->v, rows)}};
}

/* What the next task of this thread, most likely task `next`, reads first beyond what task t reads,
 * and the place of its outputs. */
static struct fb_tile_extra window_fetch_task(const struct window_kernel *w, int64_t next,
                                              const struct window_task *t)
{
    if (next >= window_tasks(w)) {
        return (struct fb_tile_extra){0};
    }
    struct window_task n = window_task_at(w, next);
    const struct fb_row_range rows = window_sink_rows(&n.unit, n.first_sink, n.sinks);
    if (n.unit.b == t->unit.b && n.unit.h == t->unit.h && n.unit.first == t->unit.first &&
        !window_is_wide(&n)) {
        n.end = window_smaller(n.end, t->start);
    }
    struct fb_tile_extra extra = window_fetch_block(w, &n, n.start);
    extra.fetch[2] = fb_rows_range(&w->call->q, rows);
    extra.fetch[3] = fb_rows_range(&w->call->out, rows);
    return extra;
}

static void window_run_sinks(void *context, int64_t task, int thread)
{
    const struct window_kernel *w = (const struct window_kernel *)context;
    const struct fb_problem *p = w->problem;
    size_t bytes;
    const struct window_scratch s = window_scratch_at(
        w, (unsigned char *)w->call->scratch + (size_t)thread * w->thread_bytes, &bytes);
    const struct window_task t = window_task_at(w, task);
    const struct window_unit *u = &t.unit;
    if (t.sinks <= 0) {
        return;
    }
    window_pack(fb_rows_load(&w->call->q, window_sink_rows(u, t.first_sink, t.sinks), s.room),
                t.sinks, p->qk_dim, window_scale(p), s.queries);
    for (int64_t i = 0; i < WINDOW_SINKS; i++) {
        s.maximum[i] = u->missing > 0 ? 0.0F : WINDOW_UNSEEN;
        s.total[i] = (float)u->missing;
    }
    for (int64_t i = 0; i < WINDOW_SINKS * w->ld_sum; i++) {
        s.sum[i] = 0.0F;
    }
    const bool is_long = t.end - t.start > WINDOW_STRETCH;
    for (int64_t i = 0; is_long && i < WINDOW_SINKS; i++) {
        s.before[i] = s.maximum[i];
        s.totals[i] = 0.0;
    }
    for (int64_t i = 0; is_long && i < WINDOW_SINKS * w->ld_sum; i++) {
        s.sums[i] = 0.0;
    }
    struct fb_tile_extra after = window_fetch_task(w, task + w->call->threads, &t);
    for (int64_t j = t.start; j < t.end; j += WINDOW_SOURCES) {
        const int64_t next = j + WINDOW_SOURCES;
        struct fb_tile_extra block = window_fetch_block(w, &t, next);
        window_source_block(w, &s, u, t.first_sink, t.sinks, j, window_smaller(t.end, next),
                            window_is_wide(&t) && next < t.end ? &block : &after);
        if (is_long && ((next - t.start) % WINDOW_STRETCH == 0 || next >= t.end)) {
            window_put_away(&s, t.sinks, w->ld_sum);
        }
    }
    if (is_long) {
        window_bring_back(&s, t.sinks, w->ld_sum);
    }
    window_write(w, &s, u, t.first_sink, t.sinks);
}

static void window_forward(const struct fb_problem *problem, const struct fb_call *call,
                           struct window_band band)
{
    struct window_kernel w = window_plan(problem, call, band);
    (void)window_scratch_at(&w, NULL, &w.thread_bytes);
    fb_parallel_for(call->threads, window_tasks(&w), window_run_sinks, &w);
    fb_clear_padding(problem, &call->out, true);
}

#endif
