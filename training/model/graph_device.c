/* A model on a CUDA device: see graph_device.h. */
#include "graph_device_private.h"

#include "cuda_device.h"
#include "graph_attention.h"
#include "graph_device_steps.h"

#include <stdlib.h>
#include <string.h>

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
    plot->used += fb_graph_device_aligned(bytes);
    return place;
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
    d->index = take(plot, (size_t)fb_graph_device_index_ints(d) * sizeof *d->index);
    d->row_mask = take_floats(plot, d->mask_rows);
    d->rounded =
        g->dtype == FB_F32 ? NULL : take(plot, (size_t)g->param_floats * fb_dtype_bytes(g->dtype));
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
        status = fb_graph_device_make_stages(d, extra, error);
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
    fb_graph_device_free_stages(d);
    fb_nn_cuda_close(d->context);
    fb_cuda_release(d->memory);
    free(d);
}
