/*
 * What the passes of the tiled softmax share: which sources a sink sees, the sequences a call
 * consists of, how they are cut into blocks, and products over the seen part of a block. See
 * window_softmax.h for the method.
 */
#ifndef FB_WINDOW_PLAN_H
#define FB_WINDOW_PLAN_H

#include "baseline_support.h"
#include "fast_exp.h"
#include "parallel.h"
#include "row_fetch.h"
#include "tile_gemm.h"
#include "transpose.h"
#include "vector_math.h"

#include <float.h>

enum {
    WINDOW_SINKS = 64,
    WINDOW_SOURCES = 192,
    WINDOW_GROUP = 16,
    WINDOW_STRIP = 6, /* rows of a product that has its own share of the band: a tile's height */
    WINDOW_GROUPS = WINDOW_SINKS / WINDOW_GROUP
};

/* Wider than any sequence, and far from overflow when added to a position. */
#define WINDOW_UNBOUNDED (INT64_MAX / 4)

/* The score of a source that a sink does not see, and the maximum before any source. */
#define WINDOW_UNSEEN (-FLT_MAX)

/* What sinks see. A head is `step` interleaved sequences, i, i + step, i + 2 step ..., which do not
 * see each other; step 1 is one sequence. Within a sequence, positions counted along it, sink i
 * sees the sources i - back <= j <= i + ahead. With block > 0 (and step at most the length) each
 * sequence counts as that long: the sources it lacks have score 0 and value 0. */
struct window_band {
    int64_t back, ahead;
    int64_t step, block;
};

/* One sequence of one head; sinks and sources without padding. */
struct window_unit {
    int64_t b, h, kv_head;
    int64_t first, step;
    int64_t sinks, sources;
    int64_t missing; /* sources that count with score 0 and value 0 */
};

struct window_kernel {
    const struct fb_problem *problem;
    const struct fb_call *call;
    struct window_band band;
    int64_t sink_blocks, source_blocks; /* of the longest sequence */
    int64_t ld_sum;
    int64_t gradient_rows; /* backward: sources whose gradients one task adds up */
    bool puts_away;        /* backward: so many sinks that these sums are put away, in f64 */
    size_t thread_bytes;
};

/* The sources that a group of sinks sees within the current block, first <= j < end. */
struct window_range {
    int64_t first, end;
};

/* A run of sources that the same groups of sinks see. */
struct window_run {
    int64_t first, end;
    int first_group, end_group;
};

static int64_t window_smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t window_larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t window_blocks(int64_t tokens, int64_t step, int64_t block)
{
    return ((tokens + step - 1) / step + block - 1) / block;
}

static struct window_kernel window_plan(const struct fb_problem *p, const struct fb_call *call,
                                        struct window_band band)
{
    return (struct window_kernel){
        .problem = p,
        .call = call,
        .band = band,
        .sink_blocks = window_blocks(p->q_len, band.step, WINDOW_SINKS),
        .source_blocks = window_blocks(p->kv_len, band.step, WINDOW_SOURCES),
        .ld_sum = fb_vf_round_up(p->v_dim),
    };
}

static struct window_unit window_unit_at(const struct window_kernel *w, int64_t b, int64_t h,
                                         int64_t first)
{
    const struct fb_problem *p = w->problem;
    const int64_t step = w->band.step;
    const int64_t keys = fb_problem_keys(p, b);
    const int64_t queries = keys == 0 ? 0 : fb_problem_queries(p, b);
    struct window_unit u = {.b = b, .h = h, .kv_head = h / fb_baseline_group(p), .first = first};
    u.step = step;
    u.sinks = (queries - first + step - 1) / step;
    u.sources = (keys - first + step - 1) / step;
    u.missing = w->band.block > 0 ? w->band.block - u.sources : 0;
    return u;
}

/* The rows first .. first + count - 1 of the sequence, of queries or of keys. */
static struct fb_row_range window_sink_rows(const struct window_unit *u, int64_t first,
                                            int64_t count)
{
    return (struct fb_row_range){u->b, u->h, u->first + first * u->step, u->step, count};
}

static struct fb_row_range window_source_rows(const struct window_unit *u, int64_t first,
                                              int64_t count)
{
    return (struct fb_row_range){u->b, u->kv_head, u->first + first * u->step, u->step, count};
}

static size_t window_saved_bytes(const struct fb_problem *p)
{
    return (size_t)(p->batch * p->heads * p->q_len) * sizeof(float);
}

/* Where a sink's logarithm of the sum of exponentials is saved. */
static float *window_saved(const struct window_kernel *w, const struct window_unit *u, int64_t i)
{
    const struct fb_problem *p = w->problem;
    return (float *)w->call->saved + (u->b * p->heads + u->h) * p->q_len + u->first + i * u->step;
}

/* to [dim][64] = factor x rows^T; zero beyond the last row. */
static void window_pack(struct fb_row_block from, int64_t count, int64_t dim, float factor,
                        float *to)
{
    const fb_vf scale = fb_vf_set1(factor);
    fb_transpose(from.rows, from.stride, count, dim, to, WINDOW_SINKS);
    for (int64_t d = 0; d < dim; d++) {
        float *row = to + d * WINDOW_SINKS;
        for (int64_t i = count; i < WINDOW_SINKS; i++) {
            row[i] = 0.0F;
        }
        for (int64_t i = 0; i < WINDOW_SINKS; i += FB_VW) {
            fb_vf_store(row + i, fb_vf_mul(scale, fb_vf_load(row + i)));
        }
    }
}

static float window_scale(const struct fb_problem *p)
{
    return (float)(1.0 / sqrt((double)p->qk_dim));
}

/* What each group of a block of sinks sees of the sources start <= j < end; returns the groups. */
static int window_ranges(const struct window_kernel *w, int64_t first_sink, int64_t sinks,
                         int64_t start, int64_t end, struct window_range *range)
{
    const int groups = (int)((sinks + WINDOW_GROUP - 1) / WINDOW_GROUP);
    for (int g = 0; g < groups; g++) {
        const int64_t sink = first_sink + (int64_t)g * WINDOW_GROUP;
        range[g].first = window_smaller(end, window_larger(start, sink - w->band.back));
        range[g].end =
            window_larger(range[g].first, window_smaller(end, sink + WINDOW_GROUP + w->band.ahead));
    }
    return groups;
}

/* Moves on to the next run, which starts where the last one ended; false when there is none. Start
 * with run->end at the block's start and both groups 0. */
static bool window_next_run(const struct window_range *range, int groups, int64_t end,
                            struct window_run *run)
{
    const int64_t j = run->end;
    while (run->first_group < groups && range[run->first_group].end <= j) {
        run->first_group++;
    }
    while (run->end_group < groups && range[run->end_group].first <= j) {
        run->end_group++;
    }
    int64_t stop = end;
    if (run->end_group < groups) {
        stop = window_smaller(stop, range[run->end_group].first);
    }
    if (run->first_group < run->end_group) {
        stop = window_smaller(stop, range[run->first_group].end);
    }
    run->first = j;
    run->end = stop;
    return j < end;
}

/* out [source][64] = rows [source][dim] . packed [dim][64] over the block that starts at `start`:
 * for each run, one product over just the groups that see it. */
static void window_multiply(const struct window_range *range, int groups, struct fb_row_block from,
                            int64_t dim, const float *packed, int64_t start, int64_t end,
                            float *out, struct fb_tile_extra *extra)
{
    struct window_run run = {.end = start};
    while (window_next_run(range, groups, end, &run)) {
        const int64_t lane = (int64_t)run.first_group * WINDOW_GROUP;
        const int64_t lanes = (int64_t)run.end_group * WINDOW_GROUP - lane;
        if (lanes > 0) {
            FB_ISA_SYMBOL(fb_tile_gemm_extra)
            (run.end - run.first, lanes, dim, from.rows + (run.first - start) * from.stride,
             from.stride, 1, packed + lane, WINDOW_SINKS,
             out + (run.first - start) * WINDOW_SINKS + lane, WINDOW_SINKS, false, extra);
        }
    }
}

/* The rows of the next strip of those left: as few strips as will do, evenly. */
static int64_t window_strip(int64_t left)
{
    const int64_t strips = (left + WINDOW_STRIP - 1) / WINDOW_STRIP;
    return (left + strips - 1) / strips;
}

/* The columns of a product, in tokens, that the band leaves to rows first .. first + count - 1. */
static struct window_range window_cut(struct window_range columns, int64_t first, int64_t count,
                                      int64_t back, int64_t ahead)
{
    const int64_t start = window_larger(columns.first, first - back);
    return (struct window_range){
        start, window_larger(start, window_smaller(columns.end, first + count + ahead))};
}

/* sum [sinks][ld] += weights^T . rows, weights [source][64] of the block that starts at `start`:
 * one product for a run of groups that see the same sources, else one for a strip of sinks. */
static void window_gather(const struct window_kernel *w, const struct window_range *range,
                          int groups, const float *weights, struct fb_row_block from, int64_t dim,
                          int64_t start, int64_t first_sink, int64_t sinks, float *sum, int64_t ld,
                          struct fb_tile_extra *extra)
{
    int g = 0;
    while (g < groups) {
        struct window_range r = range[g];
        int next = g + 1;
        while (next < groups && range[next].first == r.first && range[next].end == r.end) {
            next++;
        }
        const int64_t end = window_smaller((int64_t)next * WINDOW_GROUP, sinks);
        for (int64_t row = (int64_t)g * WINDOW_GROUP, count = end - row; row < end; row += count) {
            if (next == g + 1) {
                count = window_strip(end - row);
                r = window_cut(range[g], first_sink + row, count, w->band.back, w->band.ahead);
            }
            if (r.first < r.end) {
                FB_ISA_SYMBOL(fb_tile_gemm_extra)
                (count, dim, r.end - r.first, weights + (r.first - start) * WINDOW_SINKS + row, 1,
                 WINDOW_SINKS, from.rows + (r.first - start) * from.stride, from.stride,
                 sum + row * ld, ld, true, extra);
            }
        }
        g = next;
    }
}

/* Marks the pairs of a group that the band leaves out: only rows near its two edges have any. */
static void window_mask(const struct window_kernel *w, float *scores, struct window_range range,
                        int64_t first_sink)
{
    const int64_t ahead = w->band.ahead;
    const int64_t back = w->band.back;
    const int64_t last_sink = first_sink + WINDOW_GROUP - 1;
    for (int64_t j = window_larger(range.first, first_sink + ahead + 1); j < range.end; j++) {
        float *row = scores + (j - range.first) * WINDOW_SINKS;
        const int64_t unseen = window_smaller(j - ahead - first_sink, WINDOW_GROUP);
        for (int64_t lane = 0; lane < unseen; lane++) {
            row[lane] = WINDOW_UNSEEN;
        }
    }
    const int64_t far_end = window_smaller(range.end, last_sink - back);
    for (int64_t j = range.first; j < far_end; j++) {
        float *row = scores + (j - range.first) * WINDOW_SINKS;
        for (int64_t lane = window_larger(j + back + 1 - first_sink, 0); lane < WINDOW_GROUP;
             lane++) {
            row[lane] = WINDOW_UNSEEN;
        }
    }
}

#endif
