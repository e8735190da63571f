/* A model on a CUDA device: see graph_device.h. */
#include "graph_device.h"

#include "cuda_check.h"
#include "cuda_device.h"
#include "graph_attention.h"
#include "graph_device_steps.h"

#include <cuda_runtime_api.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN_BYTES = 256, STAGES = 2 };

/* Pinned memory of the host that a batch goes through. Two of them take turns, so that one is
 * filled while the other is on its way or its step computes. */
struct stage {
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
    struct stage stages[STAGES];
    size_t stage_bytes, stage_used;
    int64_t batches; /* put so far */
    void *memory;    /* one allocation for all of the device's */
};

struct fb_nn_cuda *fb_graph_device_context(const struct fb_graph_run *run)
{
    return run->device->context;
}

struct fb_graph_run *fb_graph_device_run(const struct fb_graph_run *run)
{
    return &run->device->there;
}

struct fb_nn_cuda_step *fb_graph_device_step(const struct fb_graph_run *run)
{
    return &run->device->step;
}

int64_t fb_graph_device_batches(const struct fb_graph_run *run)
{
    return run->device->batches;
}

void *fb_graph_device_rounded(const struct fb_graph_run *run)
{
    return run->device->rounded;
}

bool fb_graph_device_can_replay(const struct fb_graph_run *run)
{
    const struct fb_graph *g = run->graph;
    for (int i = 0; i < g->op_count; i++)
        if (g->ops[i].kind == FB_OP_ATTENTION && g->ops[i].attention->mask_padding)
            return false;
    return true;
}

const void *fb_graph_device_steps_weight(const struct fb_graph_run *there, int param)
{
    const int64_t offset = there->graph->params[param].offset;
    const unsigned char *rounded = there->device->rounded;
    return rounded ? (const void *)(rounded + offset * (int64_t)fb_dtype_bytes(FB_BF16))
                   : (const void *)(there->params + offset);
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

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

static float *take_floats(struct plot *plot, int64_t count)
{
    return take(plot, (size_t)count * sizeof(float));
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* The workspace that the operations take, the ids' number and what they are of. */
static struct fb_nn_cuda_room survey(struct fb_graph_device *d)
{
    const struct fb_graph *g = &d->graph;
    struct fb_nn_cuda_room room = {0, 0, 0};
    for (int i = 0; i < g->op_count; i++) {
        const struct fb_graph_op *op = &g->ops[i];
        const struct fb_graph_tensor *out = &g->tensors[op->out];
        int64_t floats = 0;
        if (op->kind == FB_OP_DENSE) {
            const struct fb_graph_tensor *in = &g->tensors[op->in[0]];
            floats = fb_nn_cuda_sums_floats(out->rows, out->width);
            if (in->dtype != g->dtype)
                room.rounded_x = most(room.rounded_x, in->rows * in->width);
            if (out->dtype != g->dtype)
                room.rounded_dy = most(room.rounded_dy, out->rows * out->width);
        }
        if (op->kind == FB_OP_LAYERNORM)
            floats = fb_nn_cuda_norm_floats(out->rows, out->width);
        if (op->kind == FB_OP_EMBEDDING) {
            d->tokens.count = out->rows / op->tokens * (op->tokens - (op->first >= 0));
            d->tokens.vocabulary = g->params[op->w].shape[0];
            floats = fb_nn_cuda_embedding_floats(d->tokens.count, d->tokens.vocabulary, out->width);
        }
        if (op->kind == FB_OP_MASK)
            d->mask_rows = most(d->mask_rows, out->rows);
        room.sums_floats = most(room.sums_floats, floats);
    }
    return room;
}

static int64_t index_ints(const struct fb_graph_device *d)
{
    return d->tokens.count > 0 ? fb_nn_cuda_tokens_ints(d->tokens.count, d->tokens.vocabulary) : 0;
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
    d->index = take(plot, (size_t)index_ints(d) * sizeof *d->index);
    d->row_mask = take_floats(plot, d->mask_rows);
    d->rounded =
        g->dtype == FB_F32 ? NULL : take(plot, (size_t)g->param_floats * fb_dtype_bytes(g->dtype));
    for (int i = 0; i < g->op_count; i++)
        if (g->ops[i].kind == FB_OP_ATTENTION && g->ops[i].constants)
            g->ops[i].constants = take(plot, fb_graph_attention_constants_bytes(g, &g->ops[i]));
}

/* Bytes of a stage: whatever a batch has, and `extra` of the caller's. */
static enum fb_status make_stages(struct fb_graph_device *d, size_t extra, struct fb_error *error)
{
    const struct fb_graph *g = &d->graph;
    d->stage_bytes = aligned(sizeof d->step) + aligned(extra) +
                     aligned((size_t)d->tokens.count * sizeof *d->ids) +
                     aligned((size_t)index_ints(d) * sizeof *d->index) +
                     aligned((size_t)d->mask_rows * sizeof(float));
    for (int i = 0; i < g->tensor_count; i++)
        if (g->tensors[i].input)
            d->stage_bytes +=
                aligned((size_t)(g->tensors[i].rows * g->tensors[i].width) * sizeof(float));
    enum fb_status status = FB_OK;
    for (int i = 0; status == FB_OK && i < STAGES; i++) {
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
    d->graph.ops = fb_arena_alloc(g->arena, (size_t)g->op_count, sizeof *g->ops, error);
    if (!d->graph.ops)
        return FB_ERROR_MEMORY;
    memcpy(d->graph.ops, g->ops, (size_t)g->op_count * sizeof *g->ops);
    d->counts =
        fb_arena_alloc(g->arena, (size_t)d->tokens.vocabulary + 1, sizeof *d->counts, error);
    return d->counts ? FB_OK : FB_ERROR_MEMORY;
}

static enum fb_status build(struct fb_graph_device *d, const struct fb_graph *g,
                            enum fb_nn_precision precision, size_t extra, struct fb_error *error)
{
    d->graph = *g;
    const struct fb_nn_cuda_room room = survey(d);
    struct plot plot = {NULL, 0};
    enum fb_status status = host_tables(d, g, error);
    if (status != FB_OK)
        return status;
    lay_out(d, &plot);
    status = fb_cuda_allocate(plot.used, "the model on the device", &d->memory, error);
    if (status == FB_OK)
        status = fb_nn_cuda_open(&d->context, precision, &room, error);
    if (status == FB_OK)
        status = make_stages(d, extra, error);
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
                                    size_t extra, struct fb_error *error)
{
    if (run->graph->backend != FB_CUDA)
        return fb_error_set(error, FB_ERROR_USAGE, "the model was not built for a device");
    if (run->graph->dtype != fb_nn_precision_dtype(precision))
        return fb_error_set(error, FB_ERROR_USAGE,
                            "the model was built in %s, which is not what %s needs",
                            fb_dtype_name(run->graph->dtype), fb_nn_precision_name(precision));
    struct fb_graph_device *d = calloc(1, sizeof *d);
    if (!d)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the model's tables");
    run->device = d;
    enum fb_status status = build(d, run->graph, precision, extra, error);
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
    if (d->there.stream)
        (void)cudaStreamSynchronize((cudaStream_t)d->there.stream);
    for (int i = 0; i < STAGES; i++) {
        if (d->stages[i].done)
            (void)cudaEventDestroy(d->stages[i].done);
        (void)cudaFreeHost(d->stages[i].memory);
    }
    fb_nn_cuda_close(d->context);
    fb_cuda_release(d->memory);
    free(d);
}

/* ---- what goes up and down ------------------------------------------------------------------- */

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
    const struct stage *old = &d->stages[d->batches % STAGES];
    const struct stage *next = &d->stages[++d->batches % STAGES];
    d->stage_used = 0;
    const enum fb_status status = fb_cuda_status(
        cudaEventRecord(old->done, (cudaStream_t)d->there.stream), "recording an event", error);
    return status == FB_OK
               ? fb_cuda_status(cudaEventSynchronize(next->done), "waiting for a batch", error)
               : status;
}

static void *stage_place(struct fb_graph_device *d, size_t bytes)
{
    void *place = d->stages[d->batches % STAGES].memory + d->stage_used;
    d->stage_used += aligned(bytes);
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
    int32_t *index = stage_place(d, (size_t)index_ints(d) * sizeof *index);
    const struct fb_nn_cuda_sorted sorted =
        fb_nn_cuda_tokens_sort(index, d->counts, run->ids, count, vocabulary);
    const size_t ints = (size_t)fb_nn_cuda_tokens_used(count, vocabulary, sorted.segments);
    d->step.segments = sorted.segments;
    d->step.groups = sorted.groups;
    const enum fb_status status = send_staged(d, d->index, index, ints * sizeof *index, error);
    return status == FB_OK ? fb_graph_device_send(run, d->ids, run->ids,
                                                  (size_t)count * sizeof *run->ids, error)
                           : status;
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
