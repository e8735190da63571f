/* A model on a CUDA device: see graph_device.h. */
#include "graph_device.h"

#include "cuda_check.h"
#include "cuda_device.h"
#include "graph_attention.h"
#include "graph_device_steps.h"

#include <cuda_runtime_api.h>

#include <stdlib.h>
#include <string.h>

enum { ALIGN_BYTES = 256 };

struct fb_graph_device {
    struct fb_graph graph;     /* with operations whose constants lie on the device */
    struct fb_graph_run there; /* its blocks lie on the device */
    struct fb_nn_cuda *context;
    struct fb_nn_cuda_tokens tokens;
    int32_t *ids, *index; /* on the device */
    float *row_mask;      /* likewise */
    int32_t *index_here, *counts;
    int64_t vocabulary, mask_rows;
    void *memory; /* one allocation for all of it */
};

struct fb_nn_cuda *fb_graph_device_context(const struct fb_graph_run *run)
{
    return run->device->context;
}

struct fb_graph_run *fb_graph_device_run(const struct fb_graph_run *run)
{
    return &run->device->there;
}

struct fb_nn_cuda *fb_graph_device_steps_context(const struct fb_graph_run *there)
{
    return there->device->context;
}

const struct fb_nn_cuda_tokens *fb_graph_device_steps_tokens(const struct fb_graph_run *there)
{
    return &there->device->tokens;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Places of the one allocation: first counted, then handed out, by the same walk. */
struct plot {
    unsigned char *base; /* NULL: counting */
    size_t used;
};

static void *take(struct plot *plot, size_t bytes)
{
    void *place = plot->base ? plot->base + plot->used : NULL;
    plot->used += (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    return place;
}

static float *take_floats(struct plot *plot, int64_t count)
{
    return take(plot, (size_t)count * sizeof(float));
}

/* Floats of workspace that the operations' sums take, the ids' number and what they are of. */
static int64_t survey(struct fb_graph_device *d)
{
    const struct fb_graph *g = &d->graph;
    int64_t most = 0;
    for (int i = 0; i < g->op_count; i++) {
        const struct fb_graph_op *op = &g->ops[i];
        const struct fb_graph_tensor *out = &g->tensors[op->out];
        int64_t floats = 0;
        if (op->kind == FB_OP_DENSE)
            floats = fb_nn_cuda_sums_floats(out->rows, out->width);
        if (op->kind == FB_OP_LAYERNORM)
            floats = fb_nn_cuda_norm_floats(out->rows, out->width);
        if (op->kind == FB_OP_EMBEDDING) {
            d->tokens.count = out->rows;
            d->vocabulary = g->params[op->w].shape[0];
            floats = fb_nn_cuda_embedding_floats(out->rows, d->vocabulary, out->width);
        }
        if (op->kind == FB_OP_MASK && out->rows > d->mask_rows)
            d->mask_rows = out->rows;
        most = floats > most ? floats : most;
    }
    return most;
}

static void lay_out(struct fb_graph_device *d, struct plot *plot)
{
    const struct fb_graph *g = &d->graph;
    d->there.params = take_floats(plot, g->param_floats);
    d->there.param_gradients = take_floats(plot, g->trained_floats);
    d->there.activations = take_floats(plot, g->activation_floats);
    d->there.gradients = take_floats(plot, g->gradient_floats);
    d->there.aux = take_floats(plot, g->aux_floats);
    d->there.scratch = take(plot, g->scratch_bytes);
    d->ids = take(plot, (size_t)d->tokens.count * sizeof *d->ids);
    d->index = take(plot, (size_t)fb_nn_cuda_tokens_ints(d->tokens.count) * sizeof *d->index);
    d->row_mask = take_floats(plot, d->mask_rows);
    for (int i = 0; i < g->op_count; i++)
        if (g->ops[i].kind == FB_OP_ATTENTION && g->ops[i].constants)
            g->ops[i].constants = take(plot, fb_graph_attention_constants_bytes(g, &g->ops[i]));
}

/* The operations' constants, from the host's to their places. */
static enum fb_status put_constants(const struct fb_graph_device *d, const struct fb_graph *here,
                                    struct fb_error *error)
{
    enum fb_status status = FB_OK;
    for (int i = 0; status == FB_OK && i < here->op_count; i++)
        if (here->ops[i].kind == FB_OP_ATTENTION && here->ops[i].constants)
            status = fb_cuda_upload(d->graph.ops[i].constants, here->ops[i].constants,
                                    fb_graph_attention_constants_bytes(here, &here->ops[i]), error);
    return status;
}

static enum fb_status host_tables(struct fb_graph_device *d, const struct fb_graph *g,
                                  struct fb_error *error)
{
    const int64_t ints = fb_nn_cuda_tokens_ints(d->tokens.count);
    d->graph.ops = fb_arena_alloc(g->arena, (size_t)g->op_count, sizeof *g->ops, error);
    if (!d->graph.ops)
        return FB_ERROR_MEMORY;
    memcpy(d->graph.ops, g->ops, (size_t)g->op_count * sizeof *g->ops);
    d->index_here = fb_arena_alloc(g->arena, (size_t)ints + 1, sizeof *d->index_here, error);
    d->counts = d->index_here
                    ? fb_arena_alloc(g->arena, (size_t)d->vocabulary + 1, sizeof *d->counts, error)
                    : NULL;
    return d->counts ? FB_OK : FB_ERROR_MEMORY;
}

static enum fb_status build(struct fb_graph_device *d, const struct fb_graph *g,
                            enum fb_nn_precision precision, struct fb_error *error)
{
    d->graph = *g;
    const int64_t sums = survey(d);
    struct plot plot = {NULL, 0};
    enum fb_status status = host_tables(d, g, error);
    if (status != FB_OK)
        return status;
    lay_out(d, &plot);
    status = fb_cuda_allocate(plot.used, "the model on the device", &d->memory, error);
    if (status == FB_OK)
        status = fb_nn_cuda_open(&d->context, precision, sums, error);
    if (status != FB_OK)
        return status;
    memcpy(d->graph.ops, g->ops, (size_t)g->op_count * sizeof *g->ops);
    plot = (struct plot){d->memory, 0};
    lay_out(d, &plot);
    d->there.stream = fb_nn_cuda_stream(d->context);
    d->there.graph = &d->graph;
    d->there.device = d;
    d->there.row_mask = d->row_mask;
    d->tokens.ids = d->ids;
    d->tokens.index = d->index;
    return put_constants(d, g, error);
}

enum fb_status fb_graph_device_open(struct fb_graph_run *run, enum fb_nn_precision precision,
                                    struct fb_error *error)
{
    if (run->graph->backend != FB_CUDA)
        return fb_error_set(error, FB_ERROR_USAGE, "the model was not built for a device");
    struct fb_graph_device *d = calloc(1, sizeof *d);
    if (!d)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the model's tables");
    run->device = d;
    enum fb_status status = build(d, run->graph, precision, error);
    if (status == FB_OK)
        status = fb_graph_device_put_params(run, error);
    if (status != FB_OK)
        fb_graph_device_close(run);
    return status;
}

void fb_graph_device_close(struct fb_graph_run *run)
{
    struct fb_graph_device *d = run->device;
    run->device = NULL;
    if (!d)
        return;
    fb_nn_cuda_close(d->context);
    fb_cuda_release(d->memory);
    free(d);
}

/* ---- what goes up and down ------------------------------------------------------------------- */

enum fb_status fb_graph_device_put_params(struct fb_graph_run *run, struct fb_error *error)
{
    return fb_cuda_upload(run->device->there.params, run->params,
                          (size_t)run->graph->param_floats * sizeof(float), error);
}

/* In the order of the stream, which does not wait for copies of other streams. The host's memory is
 * free again when it returns: it is not pinned, so the driver has its own copy by then. */
static enum fb_status send(const struct fb_graph_device *d, void *to, const void *from,
                           size_t bytes, struct fb_error *error)
{
    return fb_cuda_status(
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, (cudaStream_t)d->there.stream),
        "copying to the device", error);
}

static enum fb_status put_tokens(struct fb_graph_device *d, const int32_t *ids,
                                 struct fb_error *error)
{
    const size_t count = (size_t)d->tokens.count;
    d->tokens.segments =
        fb_nn_cuda_tokens_sort(d->index_here, d->counts, ids, d->tokens.count, d->vocabulary);
    enum fb_status status = send(d, d->ids, ids, count * sizeof *ids, error);
    const size_t ints = (size_t)fb_nn_cuda_tokens_used(d->tokens.count, d->tokens.segments);
    if (status == FB_OK)
        status = send(d, d->index, d->index_here, ints * sizeof *ids, error);
    return status;
}

enum fb_status fb_graph_device_put_batch(struct fb_graph_run *run, struct fb_error *error)
{
    struct fb_graph_device *d = run->device;
    const size_t border = (size_t)run->graph->border_floats * sizeof(float);
    enum fb_status status = FB_OK;
    if (d->tokens.count > 0)
        status = put_tokens(d, run->ids, error);
    if (status == FB_OK && d->mask_rows > 0)
        status = send(d, d->row_mask, run->row_mask, (size_t)d->mask_rows * sizeof(float), error);
    if (status == FB_OK)
        status = send(d, d->there.activations, run->activations, border, error);
    return status;
}

static struct fb_graph_run *current(struct fb_graph_run *run)
{
    struct fb_graph_run *there = &run->device->there;
    there->training = run->training;
    there->dropout_seed = run->dropout_seed;
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
    enum fb_status status = send(run->device, there->gradients + logits->gradient_offset,
                                 run->gradients + logits->gradient_offset,
                                 (size_t)(logits->rows * logits->width) * sizeof(float), error);
    if (status == FB_OK)
        status = fb_graph_device_backward(run, error);
    if (status == FB_OK)
        status = fb_cuda_wait(there->stream, error);
    if (status == FB_OK)
        status = fb_cuda_download(run->param_gradients, there->param_gradients,
                                  (size_t)run->graph->trained_floats * sizeof(float), error);
    return status;
}
