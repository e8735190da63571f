/* Between the sources of a model on a device. */
#ifndef FB_GRAPH_DEVICE_PRIVATE_H
#define FB_GRAPH_DEVICE_PRIVATE_H

#include "graph_device.h"

#include <cuda_runtime_api.h>

enum { FB_GRAPH_DEVICE_ALIGN_BYTES = 256, FB_GRAPH_DEVICE_STAGES = 2 };

/* Pinned memory of the host that a batch goes through. Two of them take turns, so that one is
 * filled while the other is on its way or its step computes. */
struct fb_graph_device_stage {
    unsigned char *memory;
    cudaEvent_t done; /* behind whatever was queued while this was the stage */
};

struct fb_graph_device {
    struct fb_graph graph;     /* with operations whose constants lie on the device */
    struct fb_graph_run there; /* its blocks lie on the device */
    struct fb_nn_cuda *context;
    struct fb_nn_cuda_tokens tokens;
    struct fb_nn_cuda_step step;
    int32_t *ids, *index; /* on the device */
    float *row_mask;      /* likewise */
    void *rounded;        /* likewise: the parameters in bf16, where that is the precision */
    int32_t *counts;
    int64_t mask_rows;
    struct fb_graph_device_stage stages[FB_GRAPH_DEVICE_STAGES];
    size_t stage_bytes, stage_used;
    int64_t batches; /* put so far */
    void *memory;    /* one allocation for all of the device's */
};

static inline size_t fb_graph_device_aligned(size_t bytes)
{
    return (bytes + FB_GRAPH_DEVICE_ALIGN_BYTES - 1) / FB_GRAPH_DEVICE_ALIGN_BYTES *
           FB_GRAPH_DEVICE_ALIGN_BYTES;
}

/* Integers of the index of a batch's ids. */
static inline int64_t fb_graph_device_index_ints(const struct fb_graph_device *d)
{
    return d->tokens.count > 0 ? fb_nn_cuda_tokens_ints(d->tokens.count, d->tokens.vocabulary) : 0;
}

/* Pinned memory for a batch, and for `extra` bytes of the caller's beside it. */
enum fb_status fb_graph_device_make_stages(struct fb_graph_device *d, size_t extra,
                                           struct fb_error *error) FB_MUST_CHECK;
void fb_graph_device_free_stages(struct fb_graph_device *d);

#endif
