/*
 * Tiled softmax attention over a band of keys, the kernel of softmax and local attention: sink i
 * sees the sources i - back <= j <= i + ahead. Included by the CPU source of each, once per
 * instruction set.
 *
 * A task is one block of 64 sinks of one head. It walks the sources in blocks, with a running
 * maximum and sum per sink (Milakov & Gimelshein, "Online normalizer calculation for softmax",
 * 2018; Dao et al., "FlashAttention", NeurIPS 2022), so that memory does not grow with N.
 *
 * Scores are formed transposed, [source][sink]: one lane is one sink. Maxima, exponentials and sums
 * then run down the lanes without a horizontal step, and neither K nor V is ever packed:
 *   scores^T [keys][64]  = K [keys][D] . queries^T [D][64]   K row by row, queries^T packed once
 *   out      [64][M]    += scores^T read by columns . V [keys][M]
 * Sinks are grouped by 16; a group reads only the sources that some sink of it sees.
 */
#ifndef FB_WINDOW_SOFTMAX_H
#define FB_WINDOW_SOFTMAX_H

#include "baseline_support.h"
#include "parallel.h"
#include "tile_gemm.h"
#include "transpose.h"
#include "vector_math.h"

#include <float.h>

enum {
    WINDOW_SINKS = 64,
    WINDOW_SOURCES = 192,
    WINDOW_GROUP = 16,
    WINDOW_GROUPS = WINDOW_SINKS / WINDOW_GROUP
};

/* Wider than any sequence, and far from overflow when added to a position. */
#define WINDOW_UNBOUNDED (INT64_MAX / 4)

/* The score of a source that a sink does not see, and the maximum before any source. */
#define WINDOW_UNSEEN (-FLT_MAX)

/* Scratch of one thread. */
struct window_scratch {
    float *queries; /* [D][64], scaled by 1 / sqrt(D); zero beyond the last sink */
    float *scores;  /* [WINDOW_SOURCES][64], then the weights exp(score - maximum) */
    float *sum;     /* [64][ld_sum], weighted sums of the rows of V */
    float *maximum; /* [64] */
    float *total;   /* [64], sums of the weights */
    float *factor;  /* [64] */
};

struct window_kernel {
    const struct fb_problem *problem;
    const struct fb_call *call;
    int64_t back, ahead;
    int64_t sink_blocks;
    int64_t ld_sum;
    size_t thread_bytes;
};

/* The sources that a group of sinks sees within the current block, first <= j < end. */
struct window_range {
    int64_t first, end;
};

static struct window_scratch window_scratch_at(const struct fb_problem *p, unsigned char *base,
                                               size_t *bytes)
{
    struct fb_scratch_cursor cursor = {base, 0};
    struct window_scratch s;
    s.queries = fb_scratch_take_f32(&cursor, p->qk_dim * WINDOW_SINKS);
    s.scores = fb_scratch_take_f32(&cursor, (int64_t)WINDOW_SOURCES * WINDOW_SINKS);
    s.sum = fb_scratch_take_f32(&cursor, fb_vf_round_up(p->v_dim) * WINDOW_SINKS);
    s.maximum = fb_scratch_take_f32(&cursor, WINDOW_SINKS);
    s.total = fb_scratch_take_f32(&cursor, WINDOW_SINKS);
    s.factor = fb_scratch_take_f32(&cursor, WINDOW_SINKS);
    *bytes = cursor.used_bytes;
    return s;
}

static int64_t window_smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t window_larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t window_tasks(const struct fb_problem *p)
{
    return p->batch * p->heads * ((p->q_len + WINDOW_SINKS - 1) / WINDOW_SINKS);
}

static void window_sizes(const struct fb_problem *p, int threads, struct fb_sizes *sizes)
{
    size_t bytes;
    (void)window_scratch_at(p, NULL, &bytes);
    *sizes = (struct fb_sizes){0};
    sizes->forward_scratch_bytes = bytes * (size_t)window_smaller(threads, window_tasks(p));
}

static void window_pack_queries(const struct window_scratch *s, const float *q, int64_t stride,
                                int64_t sinks, int64_t dim)
{
    const fb_vf scale = fb_vf_set1((float)(1.0 / sqrt((double)dim)));
    fb_transpose(q, stride, sinks, dim, s->queries, WINDOW_SINKS);
    for (int64_t d = 0; d < dim; d++) {
        float *row = s->queries + d * WINDOW_SINKS;
        for (int64_t i = sinks; i < WINDOW_SINKS; i++) {
            row[i] = 0.0F;
        }
        for (int64_t i = 0; i < WINDOW_SINKS; i += FB_VW) {
            fb_vf_store(row + i, fb_vf_mul(scale, fb_vf_load(row + i)));
        }
    }
}

/* scores^T of the block that starts at `start`: for each run of sources that the same groups see,
 * one product over just those groups. */
static void window_score(const struct window_scratch *s, const struct window_range *range,
                         int groups, const float *k, int64_t k_stride, int64_t start, int64_t end,
                         int64_t dim)
{
    int first_group = 0;
    int end_group = 0;
    int64_t j = start;
    while (j < end) {
        while (first_group < groups && range[first_group].end <= j) {
            first_group++;
        }
        while (end_group < groups && range[end_group].first <= j) {
            end_group++;
        }
        int64_t stop = end;
        if (end_group < groups) {
            stop = window_smaller(stop, range[end_group].first);
        }
        if (first_group < end_group) {
            stop = window_smaller(stop, range[first_group].end);
            FB_ISA_SYMBOL(fb_tile_gemm)
            (stop - j, (int64_t)(end_group - first_group) * WINDOW_GROUP, dim, k + j * k_stride,
             k_stride, 1, s->queries + first_group * WINDOW_GROUP, WINDOW_SINKS,
             s->scores + (j - start) * WINDOW_SINKS + first_group * WINDOW_GROUP, WINDOW_SINKS,
             false);
        }
        j = stop;
    }
}

/* Marks the pairs of a group that the band leaves out: only rows near its two edges have any. */
static void window_mask(const struct window_kernel *w, float *scores, struct window_range range,
                        int64_t first_sink)
{
    const int64_t last_sink = first_sink + WINDOW_GROUP - 1;
    for (int64_t j = window_larger(range.first, first_sink + w->ahead + 1); j < range.end; j++) {
        float *row = scores + (j - range.first) * WINDOW_SINKS;
        const int64_t unseen = window_smaller(j - w->ahead - first_sink, WINDOW_GROUP);
        for (int64_t lane = 0; lane < unseen; lane++) {
            row[lane] = WINDOW_UNSEEN;
        }
    }
    const int64_t far_end = window_smaller(range.end, last_sink - w->back);
    for (int64_t j = range.first; j < far_end; j++) {
        float *row = scores + (j - range.first) * WINDOW_SINKS;
        for (int64_t lane = window_larger(j + w->back + 1 - first_sink, 0); lane < WINDOW_GROUP;
             lane++) {
            row[lane] = WINDOW_UNSEEN;
        }
    }
}

/* exp for x <= 0. */
FB_ALWAYS_INLINE fb_vf window_exp(fb_vf x)
{
    const fb_vf lowest = fb_vf_set1(FB_EXP_LOWEST);
    return fb_vf_select_lt(x, lowest, fb_vf_zero(), fb_vf_exp_in_range(fb_vf_max(lowest, x)));
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
        const fb_vf x0 = window_exp(fb_vf_sub(fb_vf_load(row), top));
        const fb_vf x1 = window_exp(fb_vf_sub(fb_vf_load(row + WINDOW_SINKS), top));
        fb_vf_store(row, x0);
        fb_vf_store(row + WINDOW_SINKS, x1);
        sum0 = fb_vf_add(sum0, x0);
        sum1 = fb_vf_add(sum1, x1);
    }
    if (r < rows) {
        float *row = scores + r * WINDOW_SINKS;
        const fb_vf x0 = window_exp(fb_vf_sub(fb_vf_load(row), top));
        fb_vf_store(row, x0);
        sum0 = fb_vf_add(sum0, x0);
    }
    const fb_vf shrink = window_exp(fb_vf_sub(before, top));
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

/* sum += weights . V, one product for each run of groups that see the same sources. */
static void window_accumulate(const struct window_kernel *w, const struct window_scratch *s,
                              const struct window_range *range, int groups, const float *v,
                              int64_t v_stride, int64_t start, int64_t sinks)
{
    int g = 0;
    while (g < groups) {
        const struct window_range r = range[g];
        int next = g + 1;
        while (next < groups && range[next].first == r.first && range[next].end == r.end) {
            next++;
        }
        if (r.first < r.end) {
            const int64_t row = (int64_t)g * WINDOW_GROUP;
            const int64_t rows = window_smaller((int64_t)next * WINDOW_GROUP, sinks) - row;
            FB_ISA_SYMBOL(fb_tile_gemm)
            (rows, w->problem->v_dim, r.end - r.first,
             s->scores + (r.first - start) * WINDOW_SINKS + row, 1, WINDOW_SINKS,
             v + r.first * v_stride, v_stride, s->sum + row * w->ld_sum, w->ld_sum, true);
        }
        g = next;
    }
}

/* One block of sources, start <= j < end, for the block of sinks that starts at first_sink. */
static void window_source_block(const struct window_kernel *w, const struct window_scratch *s,
                                int64_t b, int64_t h, int64_t first_sink, int64_t sinks,
                                int64_t start, int64_t end)
{
    const struct fb_call *call = w->call;
    const int groups = (int)((sinks + WINDOW_GROUP - 1) / WINDOW_GROUP);
    struct window_range range[WINDOW_GROUPS];
    for (int g = 0; g < groups; g++) {
        const int64_t sink = first_sink + (int64_t)g * WINDOW_GROUP;
        range[g].first = window_smaller(end, window_larger(start, sink - w->back));
        range[g].end =
            window_larger(range[g].first, window_smaller(end, sink + WINDOW_GROUP + w->ahead));
    }
    window_score(s, range, groups, fb_tensor_row_f32(&call->k, b, h, 0), call->k.stride[2], start,
                 end, w->problem->qk_dim);
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
    window_accumulate(w, s, range, groups, fb_tensor_row_f32(&call->v, b, h, 0), call->v.stride[2],
                      start, sinks);
}

/* out = sum / total; a sink without a source gives 0. */
static void window_write(const struct window_kernel *w, const struct window_scratch *s, int64_t b,
                         int64_t h, int64_t first_sink, int64_t sinks)
{
    const int64_t dim = w->problem->v_dim;
    for (int64_t i = 0; i < sinks; i++) {
        const int64_t sink = first_sink + i;
        const bool sees = sink - w->back < w->problem->kv_len;
        const fb_vf share = fb_vf_set1(sees ? 1.0F / s->total[i] : 0.0F);
        const float *sum = s->sum + i * w->ld_sum;
        float *out = fb_tensor_row_f32(&w->call->out, b, h, sink);
        int64_t c = 0;
        for (; c + FB_VW <= dim; c += FB_VW) {
            fb_vf_store(out + c, fb_vf_mul(share, fb_vf_load(sum + c)));
        }
        if (c < dim) {
            fb_vf_store_part(out + c, fb_vf_mul(share, fb_vf_load(sum + c)), dim - c);
        }
    }
}

static void window_run(void *context, int64_t task, int thread)
{
    const struct window_kernel *w = (const struct window_kernel *)context;
    const struct fb_problem *p = w->problem;
    size_t bytes;
    const struct window_scratch s = window_scratch_at(
        p, (unsigned char *)w->call->scratch + (size_t)thread * w->thread_bytes, &bytes);
    const int64_t head = task / w->sink_blocks;
    const int64_t b = head / p->heads;
    const int64_t h = head % p->heads;
    /* The last sinks see the most when causal: they go first, so that no long task comes last. */
    const int64_t first_sink = (w->sink_blocks - 1 - task % w->sink_blocks) * WINDOW_SINKS;
    const int64_t sinks = window_smaller(WINDOW_SINKS, p->q_len - first_sink);

    window_pack_queries(&s, fb_tensor_row_f32(&w->call->q, b, h, first_sink), w->call->q.stride[2],
                        sinks, p->qk_dim);
    for (int64_t i = 0; i < WINDOW_SINKS; i++) {
        s.maximum[i] = WINDOW_UNSEEN;
        s.total[i] = 0.0F;
    }
    for (int64_t i = 0; i < WINDOW_SINKS * w->ld_sum; i++) {
        s.sum[i] = 0.0F;
    }
    const int64_t start = window_larger(0, first_sink - w->back);
    const int64_t end = window_smaller(p->kv_len, first_sink + sinks + w->ahead);
    for (int64_t j = start; j < end; j += WINDOW_SOURCES) {
        window_source_block(w, &s, b, h, first_sink, sinks, j,
                            window_smaller(end, j + WINDOW_SOURCES));
    }
    window_write(w, &s, b, h, first_sink, sinks);
}

static void window_forward(const struct fb_problem *problem, const struct fb_call *call,
                           int64_t back, int64_t ahead)
{
    struct window_kernel w = {
        .problem = problem,
        .call = call,
        .back = back,
        .ahead = ahead,
        .sink_blocks = (problem->q_len + WINDOW_SINKS - 1) / WINDOW_SINKS,
        .ld_sum = fb_vf_round_up(problem->v_dim),
    };
    (void)window_scratch_at(problem, NULL, &w.thread_bytes);
    fb_parallel_for(call->threads, window_tasks(problem), window_run, &w);
}

#endif
