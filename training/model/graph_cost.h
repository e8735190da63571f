/* What a finished model costs: arithmetic, traffic and memory, told from its operations. */
#ifndef FB_GRAPH_COST_H
#define FB_GRAPH_COST_H

#include "graph.h"

struct fb_graph_cost {
    double forward_flop, step_flop;   /* step: forward, backward, update */
    double forward_bytes, step_bytes; /* of activations and parameters, each pass over them once */
    size_t memory_bytes;              /* of a trainer on the processor */
};

/* Trained numbers, without the room that aligns them. */
int64_t fb_graph_count_parameters(const struct fb_graph *graph);

void fb_graph_cost(const struct fb_graph *graph, struct fb_graph_cost *cost);

#endif
