/* The layout of a finished model: offsets, who writes a gradient first, what attention needs. */
#include "graph.h"
#include "graph_attention.h"

#include <stdio.h>
#include <string.h>

enum { ALIGN_FLOATS = 16 };

static int64_t aligned(int64_t floats)
{
    return (floats + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
}

/* The parameter and those that lie behind it. */
static void place(struct fb_graph *g, int param)
{
    while (param >= 0) {
        struct fb_graph_param *p = &g->params[param];
        int next = -1;
        p->offset = g->param_floats;
        g->param_floats += aligned(p->count);
        for (int i = 0; i < g->param_count && next < 0; i++)
            next = g->params[i].follows == param ? i : -1;
        param = next;
    }
}

/* Trained parameters first, so that optimisers and checkpoints see one range. */
static void lay_out_params(struct fb_graph *g)
{
    for (int fixed = 0; fixed < 2; fixed++) {
        for (int i = 0; i < g->param_count; i++) {
            const struct fb_graph_param *p = &g->params[i];
            if ((p->init.kind == FB_INIT_SINUSOID) == (fixed == 1) && p->follows < 0)
                place(g, i);
        }
        if (fixed == 0)
            g->trained_floats = g->param_floats;
    }
}

/* Of a tensor's gradient: columns of a matrix are written one by one. */
static int written_as(const struct fb_graph *g, int tensor)
{
    const struct fb_graph_tensor *t = &g->tensors[tensor];
    return t->stride != t->width ? tensor : t->storage;
}

/* Backward visits the operations from the last to the first: the first to reach a tensor's
 * gradient writes it, the others add. */
static enum fb_status order_gradients(struct fb_graph *g)
{
    bool *written = fb_arena_alloc(g->arena, (size_t)g->tensor_count, sizeof *written, g->error);
    if (!written)
        return FB_ERROR_MEMORY;
    written[g->tensors[g->logits].storage] = true;
    for (int i = g->op_count - 1; i >= 0; i--) {
        struct fb_graph_op *op = &g->ops[i];
        if (!written[g->tensors[op->out].storage])
            return fb_error_set(g->error, FB_ERROR_USAGE,
                                "model: operation %d computes what nothing uses", i);
        for (int j = 0; j < 3; j++) {
            if (op->in[j] < 0)
                continue;
            const int key = written_as(g, op->in[j]);
            op->add[j] = written[key];
            written[key] = true;
            written[g->tensors[op->in[j]].storage] = true;
            if (op->kind == FB_OP_ATTENTION && op->add[j])
                return fb_error_set(g->error, FB_ERROR_USAGE,
                                    "model: attention must be the only reader of its inputs");
        }
    }
    return FB_OK;
}

/* Whether the operation hands its output's gradient on to its first input as it is, and that input
 * has none yet: then both share one place. A view's gradient is read in another shape: not there.
 */
static bool hands_gradient_on(const struct fb_graph *g, const struct fb_graph_op *op)
{
    const int in = op->in[0], out = op->out;
    return (op->kind == FB_OP_ADD || op->kind == FB_OP_POSITION) && in >= 0 && !op->add[0] &&
           g->tensors[in].storage == in && g->tensors[out].storage == out;
}

/* home[i]: the tensor whose gradient has the place that tensor i's has. */
static void find_homes(const struct fb_graph *g, int *home)
{
    for (int i = 0; i < g->tensor_count; i++)
        home[i] = g->tensors[i].storage;
    for (int i = g->op_count - 1; i >= 0; i--)
        if (hands_gradient_on(g, &g->ops[i]))
            home[g->ops[i].in[0]] = home[g->ops[i].out];
    for (int i = 0; i < g->tensor_count; i++)
        home[i] = home[g->tensors[i].storage];
}

/* In units of f32, where two values of bf16 take one. */
static int64_t floats_of(const struct fb_graph_tensor *t)
{
    const int64_t bytes = t->rows * t->width * (int64_t)fb_dtype_bytes(t->dtype);
    return aligned((bytes + (int64_t)sizeof(float) - 1) / (int64_t)sizeof(float));
}

/* In the same units, of which the columns before a tensor's are a whole number. */
static int64_t column_floats(const struct fb_graph_tensor *t)
{
    return t->column * (int64_t)fb_dtype_bytes(t->dtype) / (int64_t)sizeof(float);
}

/* Places for the tensors that stand for themselves in `stands`: inputs and logits first, since of a
 * model on a device the host holds these alone. Returns the floats. */
static int64_t lay_out_block(struct fb_graph *g, const int *stands, const bool *inner,
                             int64_t *offsets)
{
    int64_t floats = 0;
    for (int is_inner = 0; is_inner < 2; is_inner++) {
        for (int i = 0; i < g->tensor_count; i++) {
            if (stands[i] != i || inner[i] != (is_inner == 1))
                continue;
            offsets[i] = floats;
            floats += floats_of(&g->tensors[i]);
        }
        if (is_inner == 0)
            g->border_floats = floats > g->border_floats ? floats : g->border_floats;
    }
    return floats;
}

static enum fb_status lay_out_tensors(struct fb_graph *g)
{
    const size_t count = (size_t)g->tensor_count;
    bool *inner = fb_arena_alloc(g->arena, count, sizeof *inner, g->error);
    int *stands = inner ? fb_arena_alloc(g->arena, count, sizeof *stands, g->error) : NULL;
    int64_t *offsets = stands ? fb_arena_alloc(g->arena, count, sizeof *offsets, g->error) : NULL;
    if (!offsets)
        return FB_ERROR_MEMORY;
    for (int i = 0; i < g->op_count; i++)
        inner[g->tensors[g->ops[i].out].storage] = true;
    inner[g->tensors[g->logits].storage] = false;
    for (int i = 0; i < g->tensor_count; i++) {
        stands[i] = g->tensors[i].storage;
        g->tensors[i].dtype = inner[stands[i]] ? g->dtype : FB_F32;
    }
    g->activation_floats = lay_out_block(g, stands, inner, offsets);
    for (int i = 0; i < g->tensor_count; i++)
        g->tensors[i].offset = offsets[stands[i]] + column_floats(&g->tensors[i]);
    find_homes(g, stands);
    g->gradient_floats = lay_out_block(g, stands, inner, offsets);
    for (int i = 0; i < g->tensor_count; i++)
        g->tensors[i].gradient_offset = offsets[stands[i]] + column_floats(&g->tensors[i]);
    return FB_OK;
}

/* Columns of a matrix are read by attention alone. */
static enum fb_status check_columns(const struct fb_graph *g)
{
    for (int i = 0; i < g->op_count; i++)
        for (int j = 0; j < 3; j++) {
            const int in = g->ops[i].in[j];
            if (in >= 0 && g->tensors[in].stride != g->tensors[in].width &&
                g->ops[i].kind != FB_OP_ATTENTION)
                return fb_error_set(g->error, FB_ERROR_USAGE,
                                    "model: joined dense layers feed attention alone; operation %d "
                                    "reads one of them",
                                    i);
        }
    return FB_OK;
}

/* What the caller fills and reads is f32; beside bf16 only dense layers take both. */
static enum fb_status check_border(const struct fb_graph *g)
{
    for (int i = 0; i < g->op_count; i++) {
        const struct fb_graph_op *op = &g->ops[i];
        const bool mixed = g->tensors[op->out].dtype != g->dtype ||
                           (op->in[0] >= 0 && g->tensors[op->in[0]].dtype != g->dtype);
        if (mixed && op->kind != FB_OP_DENSE)
            return fb_error_set(g->error, FB_ERROR_USAGE,
                                "model: in %s inputs are read, and logits written, by dense layers "
                                "alone; operation %d is none",
                                fb_dtype_name(g->dtype), i);
    }
    return FB_OK;
}

static enum fb_status lay_out_aux(struct fb_graph *g)
{
    for (int i = 0; i < g->op_count; i++) {
        struct fb_graph_op *op = &g->ops[i];
        op->aux = g->aux_floats;
        if (op->kind == FB_OP_LAYERNORM) {
            g->aux_floats += aligned(2 * g->tensors[op->out].rows);
        } else if (op->kind == FB_OP_ATTENTION) {
            struct fb_sizes sizes;
            const enum fb_status status = fb_graph_attention_prepare(g, op, &sizes);
            if (status != FB_OK)
                return status;
            g->aux_floats += aligned((int64_t)(sizes.saved_bytes / sizeof(float)) + 1);
            const size_t scratch = sizes.forward_scratch_bytes > sizes.backward_scratch_bytes
                                       ? sizes.forward_scratch_bytes
                                       : sizes.backward_scratch_bytes;
            g->scratch_bytes = scratch > g->scratch_bytes ? scratch : g->scratch_bytes;
        }
    }
    return FB_OK;
}

enum fb_status fb_graph_finish(struct fb_graph *g, int logits)
{
    if (g->status != FB_OK)
        return g->status;
    if (g->dtype != FB_F32 && (g->dtype != FB_BF16 || g->backend != FB_CUDA))
        return g->status = fb_error_set(
                   g->error, FB_ERROR_UNSUPPORTED, "model: %s computes in f32%s, not in %s",
                   fb_backend_name(g->backend), g->backend == FB_CUDA ? " or bf16" : "",
                   fb_dtype_name(g->dtype));
    g->logits = logits;
    lay_out_params(g);
    enum fb_status status = order_gradients(g);
    if (status == FB_OK)
        status = lay_out_tensors(g);
    if (status == FB_OK)
        status = check_border(g);
    if (status == FB_OK)
        status = check_columns(g);
    if (status == FB_OK)
        status = lay_out_aux(g);
    g->status = status;
    return status;
}
