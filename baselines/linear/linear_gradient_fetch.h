/*
 * The order of blocks in the linear kernel's gradients, and what the products of one block fetch
 * for the next. See linear_gradient.h for the method.
 */
#ifndef FB_LINEAR_GRADIENT_FETCH_H
#define FB_LINEAR_GRADIENT_FETCH_H

#include "linear/linear_gradient_plan.h"
#include "row_fetch.h"

/* A block of tokens: the sinks and the sources among them. */
struct linear_block {
    int64_t first, sinks, sources;
};

static int64_t linear_slice_blocks(const struct linear_gradient *g)
{
    return g->slice_tokens / g->block_tokens;
}

/* The index-th block of a slice in the order in which the sums of a side grow. */
static struct linear_block linear_block_at(const struct linear_gradient *g,
                                           const struct linear_unit *u, int64_t slice,
                                           enum linear_side side, int64_t index)
{
    const bool reverse = g->problem->causal && side == LINEAR_SINKS;
    const int64_t number = reverse ? linear_slice_blocks(g) - 1 - index : index;
    const int64_t first = slice * g->slice_tokens + number * g->block_tokens;
    return (struct linear_block){
        .first = first,
        .sinks = linear_larger(0, linear_smaller(g->block_tokens, u->sinks - first)),
        .sources = linear_larger(0, linear_smaller(g->block_tokens, u->sources - first)),
    };
}

/* The block that follows, in the next slice after the last of this one; empty at the end. */
static struct linear_block linear_block_after(const struct linear_gradient *g,
                                              const struct linear_unit *u, int64_t slice,
                                              enum linear_side side, int64_t index)
{
    if (index + 1 < linear_slice_blocks(g)) {
        return linear_block_at(g, u, slice, side, index + 1);
    }
    const int64_t next = g->problem->causal && side == LINEAR_SINKS ? slice - 1 : slice + 1;
    return next < 0 || next >= g->slices ? (struct linear_block){0}
                                         : linear_block_at(g, u, next, side, 0);
}

/* ---- what products fetch meanwhile --------------------------------------------------------- */

/* The keys and values of a block, and the places of their gradients if these are written. */
static struct fb_tile_extra linear_fetch_keys(const struct linear_gradient *g,
                                              const struct linear_unit *u,
                                              const struct linear_block *x, bool gradients)
{
    const struct fb_call *call = g->call;
    const struct fb_row_range rows = {u->b, u->kv_head, x->first, 1, x->sources};
    struct fb_tile_extra extra = {
        .fetch = {fb_rows_range(&call->k, rows), fb_rows_range(&call->v, rows)}};
    if (gradients) {
        extra.fetch[2] = fb_rows_range(&call->dk, rows);
        extra.fetch[3] = fb_rows_range(&call->dv, rows);
    }
    return extra;
}

/* The sinks that follow those of block x in head first_head + round: the same block of the next
 * head of the group, or that of the first one in the block `next`. */
static struct fb_tile_extra linear_fetch_queries(const struct linear_gradient *g,
                                                 const struct linear_unit *u, int64_t round,
                                                 const struct linear_block *x,
                                                 const struct linear_block *next, bool gradients)
{
    const struct fb_call *call = g->call;
    const bool same = round + 1 < g->group;
    const struct linear_block *from = same ? x : next;
    const struct fb_row_range rows = {u->b, u->first_head + (same ? round + 1 : 0), from->first, 1,
                                      from->sinks};
    struct fb_tile_extra extra = {.fetch = {fb_rows_range(&call->q, rows),
                                            fb_rows_range(&call->dout, rows),
                                            fb_rows_range(&call->out, rows)}};
    if (gradients) {
        extra.fetch[3] = fb_rows_range(&call->dq, rows);
    }
    return extra;
}

#endif
