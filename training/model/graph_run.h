/*
 * Running a finished model: forward to the logits, backward to the gradient of every parameter.
 * All memory is allocated by fb_graph_run_init; running allocates nothing.
 */
#ifndef FB_GRAPH_RUN_H
#define FB_GRAPH_RUN_H

#include "graph.h"

struct fb_graph_device;

struct fb_graph_run {
    const struct fb_graph *graph;
    struct fb_graph_device *device;  /* NULL: this processor; see graph_device.h */
    void *stream;                    /* of a run on a device */
    float *params, *param_gradients; /* [param_floats], [trained_floats] */
    float *activations, *gradients;  /* [activation_floats], [gradient_floats], of any dtype */
    float *aux;
    void *scratch;
    /* the batch, set by the caller: token ids of the embedding, and the rows that count */
    const int32_t *ids;
    const float *row_mask;
    const int64_t *lengths; /* tokens of each sequence, where attention masks padding */
    bool training;          /* dropout acts, attention saves for backward */
    uint64_t dropout_seed;  /* one per step: which values are dropped depends on it alone */
};

/* Allocates from the graph's arena. */
enum fb_status fb_graph_run_init(struct fb_graph_run *run, const struct fb_graph *graph,
                                 struct fb_error *error) FB_MUST_CHECK;

/* Fills the activations up to the logits. */
enum fb_status fb_graph_run_forward(struct fb_graph_run *run, struct fb_error *error) FB_MUST_CHECK;

/* From the gradient of the logits (set by the caller, fb_graph_run_gradient) to param_gradients,
 * which are zeroed first. The forward pass of the same batch must have run with training set. */
enum fb_status fb_graph_run_backward(struct fb_graph_run *run,
                                     struct fb_error *error) FB_MUST_CHECK;

static inline float *fb_graph_run_values(const struct fb_graph_run *run, int tensor)
{
    return run->activations + run->graph->tensors[tensor].offset;
}

static inline float *fb_graph_run_gradient(const struct fb_graph_run *run, int tensor)
{
    return run->gradients + run->graph->tensors[tensor].gradient_offset;
}

#endif
