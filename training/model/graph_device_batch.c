/* What goes up to a model on a device and comes down, and its passes: see graph_device.h. */
#include "graph_device_private.h"

#include "cuda_check.h"
#include "cuda_device.h"
#include "graph_device_steps.h"

#include <assert.h>
#include <string.h>

/* ---- stages ---------------------------------------------------------------------------------- */

enum fb_status fb_graph_device_make_stages(struct fb_graph_device *d, size_t extra,
                                           struct fb_error *error)
{
    const struct fb_graph *g = &d->graph;
    d->stage_bytes =
        fb_graph_device_aligned(sizeof d->step) + fb_graph_device_aligned(extra) +
        fb_graph_device_aligned((size_t)d->tokens.count * sizeof *d->ids) +
        fb_graph_device_aligned((size_t)fb_graph_device_index_ints(d) * sizeof *d->index) +
        fb_graph_device_aligned((size_t)d->mask_rows * sizeof(float));
    for (int i = 0; i < g->tensor_count; i++)
        if (g->tensors[i].input)
            d->stage_bytes += fb_graph_device_aligned(
                (size_t)(g->tensors[i].rows * g->tensors[i].width) * sizeof(float));
    enum fb_status status = FB_OK;
    for (int i = 0; status == FB_OK && i < FB_GRAPH_DEVICE_STAGES; i++) {
        void *memory = NULL;
        status = fb_cuda_status(cudaHostAlloc(&memory, d->stage_bytes, cudaHostAllocDefault),
                                "allocating pinned memory", error);
        d->stages[i].memory = memory;
        if (status == FB_OK)
            status =
                fb_cuda_status(cudaEventCreateWithFlags(&d->stages[i].done, cudaEventDisableTiming),
                               "making an event", error);
    }
    return status;
}

void fb_graph_device_free_stages(struct fb_graph_device *d)
{
    for (int i = 0; i < FB_GRAPH_DEVICE_STAGES; i++) {
        if (d->stages[i].done)
            (void)cudaEventDestroy(d->stages[i].done);
        (void)cudaFreeHost(d->stages[i].memory);
    }
}

/* The copy may still be on its way when the call returns, and kernels would not wait. */
enum fb_status fb_graph_device_put_params(struct fb_graph_run *run, struct fb_error *error)
{
    struct fb_graph_device *d = run->device;
    const int64_t count = run->graph->param_floats;
    enum fb_status status =
        fb_cuda_upload(d->there.params, run->params, (size_t)count * sizeof(float), error);
    if (status == FB_OK)
        status = fb_cuda_wait(NULL, error);
    if (status != FB_OK || !d->rounded)
        return status;
    fb_nn_cuda_round(d->context, d->rounded, d->there.params, count);
    return fb_nn_cuda_check(d->context, error);
}

/* The other stage, which is free again: what was queued with it, two batches ago, is over. */
static enum fb_status begin_batch(struct fb_graph_device *d, struct fb_error *error)
{
    const struct fb_graph_device_stage *old = &d->stages[d->batches % FB_GRAPH_DEVICE_STAGES];
    const struct fb_graph_device_stage *next = &d->stages[++d->batches % FB_GRAPH_DEVICE_STAGES];
    d->stage_used = 0;
    const enum fb_status status = fb_cuda_status(
        cudaEventRecord(old->done, (cudaStream_t)d->there.stream), "recording an event", error);
    return status == FB_OK
               ? fb_cuda_status(cudaEventSynchronize(next->done), "waiting for a batch", error)
               : status;
}

static void *stage_place(struct fb_graph_device *d, size_t bytes)
{
    void *place = d->stages[d->batches % FB_GRAPH_DEVICE_STAGES].memory + d->stage_used;
    d->stage_used += fb_graph_device_aligned(bytes);
    assert(d->stage_used <= d->stage_bytes);
    return place;
}

static enum fb_status send_staged(const struct fb_graph_device *d, void *to, const void *place,
                                  size_t bytes, struct fb_error *error)
{
    return fb_cuda_status(
        cudaMemcpyAsync(to, place, bytes, cudaMemcpyHostToDevice, (cudaStream_t)d->there.stream),
        "copying to the device", error);
}

enum fb_status fb_graph_device_send(struct fb_graph_run *run, void *to, const void *from,
                                    size_t bytes, struct fb_error *error)
{
    void *place = stage_place(run->device, bytes);
    memcpy(place, from, bytes);
    return send_staged(run->device, to, place, bytes, error);
}

static enum fb_status put_tokens(struct fb_graph_run *run, struct fb_error *error)
{
    struct fb_graph_device *d = run->device;
    const int64_t count = d->tokens.count, vocabulary = d->tokens.vocabulary;
    const enum fb_status sent =
        fb_graph_device_send(run, d->ids, run->ids, (size_t)count * sizeof *run->ids, error);
    if (sent != FB_OK || !run->training)
        return sent; /* the index is for the gradient */
    int32_t *index = stage_place(d, (size_t)fb_graph_device_index_ints(d) * sizeof *index);
    const struct fb_nn_cuda_sorted sorted =
        fb_nn_cuda_tokens_sort(index, d->counts, run->ids, count, vocabulary);
    const size_t ints = (size_t)fb_nn_cuda_tokens_used(count, vocabulary, sorted.segments);
    d->step.segments = sorted.segments;
    d->step.groups = sorted.groups;
    return send_staged(d, d->index, index, ints * sizeof *index, error);
}

static enum fb_status put_inputs(struct fb_graph_run *run, struct fb_error *error)
{
    enum fb_status status = FB_OK;
    for (int i = 0; status == FB_OK && i < run->graph->tensor_count; i++) {
        const struct fb_graph_tensor *t = &run->graph->tensors[i];
        if (t->input)
            status = fb_graph_device_send(run, fb_graph_run_values(&run->device->there, i),
                                          fb_graph_run_values(run, i),
                                          (size_t)(t->rows * t->width) * sizeof(float), error);
    }
    return status;
}

enum fb_status fb_graph_device_put_batch(struct fb_graph_run *run, struct fb_error *error)
{
    struct fb_graph_device *d = run->device;
    enum fb_status status = begin_batch(d, error);
    if (status == FB_OK && d->tokens.count > 0)
        status = put_tokens(run, error);
    if (status == FB_OK && d->mask_rows > 0)
        status = fb_graph_device_send(run, d->row_mask, run->row_mask,
                                      (size_t)d->mask_rows * sizeof(float), error);
    if (status == FB_OK)
        status = put_inputs(run, error);
    if (status != FB_OK)
        return status;
    d->step.dropout_seed = run->dropout_seed;
    struct fb_nn_cuda_step *step = stage_place(d, sizeof *step);
    *step = d->step;
    fb_nn_cuda_put_step(d->context, step);
    return fb_nn_cuda_check(d->context, error);
}

static struct fb_graph_run *current(struct fb_graph_run *run)
{
    struct fb_graph_run *there = &run->device->there;
    there->training = run->training;
    there->lengths = run->lengths;
    return there;
}

enum fb_status fb_graph_device_forward(struct fb_graph_run *run, struct fb_error *error)
{
    const enum fb_status status =
        fb_graph_run_steps(current(run), fb_graph_device_functions, false, error);
    return status == FB_OK ? fb_nn_cuda_check(run->device->context, error) : status;
}

enum fb_status fb_graph_device_backward(struct fb_graph_run *run, struct fb_error *error)
{
    struct fb_graph_run *there = current(run);
    enum fb_status status =
        fb_cuda_status(cudaMemsetAsync(there->param_gradients, 0,
                                       (size_t)run->graph->trained_floats * sizeof(float),
                                       (cudaStream_t)there->stream),
                       "zeroing the gradients", error);
    if (status == FB_OK)
        status = fb_graph_run_steps(there, fb_graph_device_functions, true, error);
    return status == FB_OK ? fb_nn_cuda_check(run->device->context, error) : status;
}

enum fb_status fb_graph_device_get_logits(struct fb_graph_run *run, struct fb_error *error)
{
    const struct fb_graph_tensor *logits = &run->graph->tensors[run->graph->logits];
    const enum fb_status status = fb_cuda_wait(run->device->there.stream, error);
    if (status != FB_OK)
        return status;
    return fb_cuda_download(run->activations + logits->offset,
                            run->device->there.activations + logits->offset,
                            (size_t)(logits->rows * logits->width) * sizeof(float), error);
}

enum fb_status fb_graph_device_forward_through(struct fb_graph_run *run, struct fb_error *error)
{
    enum fb_status status = fb_graph_device_put_batch(run, error);
    if (status == FB_OK)
        status = fb_graph_device_forward(run, error);
    return status == FB_OK ? fb_graph_device_get_logits(run, error) : status;
}

enum fb_status fb_graph_device_backward_through(struct fb_graph_run *run, struct fb_error *error)
{
    struct fb_graph_run *there = &run->device->there;
    const struct fb_graph_tensor *logits = &run->graph->tensors[run->graph->logits];
    enum fb_status status = fb_cuda_upload(
        there->gradients + logits->gradient_offset, run->gradients + logits->gradient_offset,
        (size_t)(logits->rows * logits->width) * sizeof(float), error);
    if (status == FB_OK)
        status = fb_cuda_wait(NULL, error); /* the stream does not wait for others */
    if (status == FB_OK)
        status = fb_graph_device_backward(run, error);
    if (status == FB_OK)
        status = fb_cuda_wait(there->stream, error);
    if (status == FB_OK)
        status = fb_cuda_download(run->param_gradients, there->param_gradients,
                                  (size_t)run->graph->trained_floats * sizeof(float), error);
    return status;
}
