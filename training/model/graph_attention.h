/* The attention operation of a model: its problem, its constants, its two passes. */
#ifndef FB_GRAPH_ATTENTION_H
#define FB_GRAPH_ATTENTION_H

#include "graph_run.h"

/* Whether the first output row of every sequence can be had from the first query row alone. */
bool fb_graph_attention_first_alone(const struct fb_graph *g, const struct fb_graph_attention *a,
                                    int in, int64_t qkv_dim, int64_t heads, int64_t tokens);

/* Checks that the variant serves the operation's problem forward and backward, draws its constants
 * into the arena and tells its buffer sizes. */
enum fb_status fb_graph_attention_prepare(struct fb_graph *g, struct fb_graph_op *op,
                                          struct fb_sizes *sizes) FB_MUST_CHECK;

/* Bytes of the constants that prepare draws; 0 where the mechanism has none. */
size_t fb_graph_attention_constants_bytes(const struct fb_graph *g, const struct fb_graph_op *op);

enum fb_status fb_graph_attention_forward(const struct fb_graph_run *run,
                                          const struct fb_graph_op *op,
                                          struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_graph_attention_backward(const struct fb_graph_run *run,
                                           const struct fb_graph_op *op,
                                           struct fb_error *error) FB_MUST_CHECK;

/* The mechanism's own work. */
void fb_graph_attention_cost(const struct fb_graph *g, const struct fb_graph_op *op,
                             enum fb_pass pass, struct fb_cost *cost);

#endif
