/*
 * The causal walk of the linear kernel: chunks of tokens, first their outputs, then their share of
 * the sums. See linear_core.h for the method.
 */
#ifndef FB_LINEAR_CAUSAL_H
#define FB_LINEAR_CAUSAL_H

#include "linear/linear_outputs.h"
#include "linear/linear_sums.h"
#include "transpose.h"

static const float linear_ones[64] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                      1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/* A chunk of a head: the tokens from `first` on that are sinks, sources, or both. */
struct linear_chunk {
    int64_t first, sinks, sources;
    struct fb_row_block v;
};

/* scores [chunk][chunk] = tril(phi(q) phi(k)^T), zero beyond the diagonal and the last source. */
static void linear_scores(const struct linear_kernel *w, const struct linear_scratch *s,
                          const struct linear_chunk *x)
{
    for (int64_t i = 0; i < x->sinks; i += LINEAR_GROUP) {
        const int64_t rows = linear_smaller(LINEAR_GROUP, x->sinks - i);
        const int64_t columns = linear_smaller(i + rows, x->sources);
        FB_ISA_SYMBOL(fb_tile_gemm)
        (rows, columns, w->map->count, s->queries + i * w->ld_features, w->ld_features, 1,
         s->transposed, LINEAR_CHUNK, s->scores + i * LINEAR_CHUNK, LINEAR_CHUNK, false);
    }
    for (int64_t i = 0; i < x->sinks; i++) {
        const int64_t seen = linear_smaller(i + 1, x->sources);
        for (int64_t j = 0; j < LINEAR_CHUNK; j += FB_VW) {
            float *lanes = s->scores + i * LINEAR_CHUNK + j;
            const int64_t kept = linear_larger(0, linear_smaller(FB_VW, seen - j));
            fb_vf_store(lanes, fb_vf_keep(fb_vf_load(lanes), kept));
        }
    }
}

/* Outputs of one chunk, given the sums before it. */
static void linear_write_chunk(const struct linear_kernel *w, const struct linear_scratch *s,
                               int64_t head, const struct linear_chunk *x)
{
    const struct fb_call *call = w->call;
    const int64_t dim = w->problem->v_dim;
    const struct linear_place at = linear_place_of(w, head);
    const struct fb_row_range block = linear_sink_rows(&at, x->first, x->sinks);
    const struct fb_row_block out = fb_rows_open(&call->out, block, s->out_room);
    const struct fb_row_block q = fb_rows_load(&call->q, block, s->k_room);
    w->map->queries(w->map->own, q.rows, q.stride, x->sinks, s->queries, w->ld_features);
    float within[LINEAR_CHUNK], reciprocals[LINEAR_CHUNK];
    if (x->sources > 0) {
        linear_scores(w, s, x);
        fb_rows_dot(s->scores, LINEAR_CHUNK, x->sinks, LINEAR_CHUNK, linear_ones, within);
    }
    linear_reciprocals(w, head, x->first, x->sinks, s->queries,
                       s->state + w->map->count * w->ld_value, x->sources > 0 ? within : NULL,
                       reciprocals);
    struct fb_tile_extra extra = linear_fetch_sinks(w, &at, x->first + LINEAR_CHUNK);
    extra.scale = reciprocals;
    extra.lower =
        (struct fb_tile_lower){s->scores, x->v.rows, LINEAR_CHUNK, x->v.stride, x->sources};
    FB_ISA_SYMBOL(fb_tile_gemm_extra)
    (x->sinks, dim, w->map->count, s->queries, w->ld_features, 1, s->state, w->ld_value, out.rows,
     out.stride, false, &extra);
    fb_rows_close(&call->out, block, out);
}

/* The f32 part joins the sums of the slice; state becomes all of it, rounded. */
static void linear_settle(const struct linear_kernel *w, const struct linear_scratch *s,
                          const double *before)
{
    linear_add_f32(s->slice, s->product, w->state_count);
    if (before == s->slice) {
        linear_round(s->state, s->slice, w->state_count);
    } else {
        linear_round_sum(s->state, before, s->slice, w->state_count);
    }
}

/* Walks the tokens first <= t < end of a head. before holds the sums of all earlier slices, or is
 * s->slice when there are none; s->slice ends as the sums of this slice, bit for bit those of
 * linear_sum_slice. Until the f32 part is settled, what joins it is added to state, too. */
static void linear_walk_slice(const struct linear_kernel *w, const struct linear_scratch *s,
                              int64_t head, int64_t first, int64_t end, float peak,
                              const double *before)
{
    const struct fb_call *call = w->call;
    const struct linear_place at = linear_place_of(w, head);
    const int64_t source_end = linear_smaller(end, at.sources);
    const int64_t sink_end = linear_smaller(end, at.sinks);
    int64_t pending = 0;
    linear_clear(s->slice, w->state_count);
    linear_round(s->state, before, w->state_count);
    for (int64_t t = first; t < sink_end; t += LINEAR_CHUNK) {
        struct linear_chunk x = {.first = t, .sinks = linear_smaller(LINEAR_CHUNK, sink_end - t)};
        x.sources = linear_larger(0, linear_smaller(LINEAR_CHUNK, source_end - t));
        if (x.sources > 0) {
            const struct fb_row_range block = linear_source_rows(&at, t, x.sources);
            x.v = fb_rows_load(&call->v, block, s->v_room);
            linear_keys(w, fb_rows_load(&call->k, block, s->k_room), x.sources, peak, s->keys);
            fb_transpose(s->keys, w->ld_features, x.sources, w->map->count, s->transposed,
                         LINEAR_CHUNK);
        }
        linear_write_chunk(w, s, head, &x);
        if (x.sources > 0) {
            struct fb_tile_extra extra = linear_fetch_chunk(w, &at, t + LINEAR_CHUNK, end);
            linear_absorb(w, s->keys, x.v, x.sources, s->product, pending > 0, s->state, &extra);
            pending += x.sources;
            if (pending >= LINEAR_F32_TOKENS || t + x.sources == source_end) {
                linear_settle(w, s, before);
                pending = 0;
            }
        }
    }
}

/* The tokens of a slice: the last one also has the sinks beyond the last source. */
static int64_t linear_walk_end(const struct linear_kernel *w, int64_t slice)
{
    return slice == w->slices - 1 ? linear_larger(w->problem->q_len, w->problem->kv_len)
                                  : (slice + 1) * w->slice_tokens;
}

#endif
