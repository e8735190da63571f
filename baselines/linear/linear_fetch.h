/*
 * What the products of the linear kernel fetch meanwhile, so that the rows of the next block are in
 * the cache when it comes. See linear_core.h for the method.
 */
#ifndef FB_LINEAR_FETCH_H
#define FB_LINEAR_FETCH_H

#include "linear/linear_plan.h"
#include "row_fetch.h"

/* What a product fetches before the outputs of a block of sinks: them and the outputs' place. */
static struct fb_tile_extra linear_fetch_sinks(const struct linear_kernel *w,
                                               const struct linear_place *at, int64_t first)
{
    const int64_t rows = linear_smaller(w->block_tokens, at->sinks - first);
    const struct fb_row_range block = linear_sink_rows(at, first, rows);
    return (struct fb_tile_extra){
        .fetch = {fb_rows_range(&w->call->q, block), fb_rows_range(&w->call->out, block)}};
}

/* What the product over the sources before `next` fetches: the block of sources that follows, and
 * after the last one the first block of sinks with the place of its outputs. */
static struct fb_tile_extra linear_fetch_sources(const struct linear_kernel *w,
                                                 const struct linear_place *at, int64_t next,
                                                 int64_t end)
{
    const struct fb_call *call = w->call;
    const int64_t rows =
        linear_smaller(w->block_tokens, (w->whole_heads ? at->sources : end) - next);
    if (rows > 0) {
        const struct fb_row_range block = linear_source_rows(at, next, rows);
        return (struct fb_tile_extra){
            .fetch = {fb_rows_range(&call->k, block), fb_rows_range(&call->v, block)}};
    }
    if (w->whole_heads && next >= at->sources) {
        return linear_fetch_sinks(w, at, 0);
    }
    return (struct fb_tile_extra){0};
}

/* What the product of the block of sinks before `next` fetches: the block after it, or, when a
 * thread walks whole heads, the first sources of the next head. */
static struct fb_tile_extra linear_fetch_after(const struct linear_kernel *w, int64_t head,
                                               const struct linear_place *at, int64_t next,
                                               int64_t end)
{
    if (next < end) {
        return linear_fetch_sinks(w, at, next);
    }
    const int64_t after = head + w->call->threads;
    if (!w->whole_heads || after >= w->heads) {
        return (struct fb_tile_extra){0};
    }
    const struct linear_place place = linear_place_of(w, after);
    return linear_fetch_sources(w, &place, 0, place.sources);
}

/* Causal: the keys and values of the chunk from `next` on. */
static struct fb_tile_extra linear_fetch_chunk(const struct linear_kernel *w,
                                               const struct linear_place *at, int64_t next,
                                               int64_t end)
{
    const int64_t last = linear_smaller(end, at->sources);
    const struct fb_row_range block =
        linear_source_rows(at, next, linear_smaller(LINEAR_CHUNK, last - next));
    return (struct fb_tile_extra){
        .fetch = {fb_rows_range(&w->call->k, block), fb_rows_range(&w->call->v, block)}};
}

#endif
