/* The operations of a model, forward and backward, from one table: see graph_run.h. */
#include "graph_run.h"

#include "graph_attention.h"
#include "graph_device.h"
#include "graph_step.h"
#include "nn_dense.h"
#include "nn_embedding.h"
#include "nn_layernorm.h"

#include <string.h>

/* ---- the operations -------------------------------------------------------------------------- */

/* Rows of ids in one sequence, and those before them. */
static int64_t before_ids(const struct fb_graph_step *s)
{
    return s->op->first >= 0 ? 1 : 0;
}

static enum fb_status embedding_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dropout d = fb_graph_step_dropout(s);
    const int64_t width = s->out->width, tokens = s->op->tokens, before = before_ids(s);
    const int64_t ids = tokens - before, sequences = s->out->rows / tokens;
    for (int64_t i = 0; i < sequences; i++) {
        float *y = s->y + i * tokens * width;
        if (before)
            memcpy(y, s->run->params + s->run->graph->params[s->op->first].offset,
                   (size_t)width * sizeof *y);
        fb_nn_embedding_forward(y + before * width, s->w, s->run->ids + i * ids, ids, width,
                                s->threads);
    }
    fb_nn_position_forward(s->y, s->y, s->b, sequences, tokens, width);
    if (d.p > 0.0F)
        fb_nn_dropout_apply(&d, s->y, false, s->y, fb_graph_tensor_count(s->out), s->threads);
    return FB_OK;
}

/* The gradient behind dropout takes the place of the output's, which nothing reads after this. */
static enum fb_status embedding_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dropout d = fb_graph_step_dropout(s);
    const int64_t width = s->out->width, tokens = s->op->tokens, before = before_ids(s);
    const int64_t ids = tokens - before, sequences = s->out->rows / tokens;
    float *dfirst = fb_graph_param_gradient(s->run, s->op->first);
    if (d.p > 0.0F)
        fb_nn_dropout_apply(&d, s->dy, false, s->dy, fb_graph_tensor_count(s->out), s->threads);
    if (s->db)
        fb_nn_position_backward(s->db, s->dy, sequences, tokens, width);
    for (int64_t i = 0; i < sequences; i++) {
        const float *dy = s->dy + i * tokens * width;
        for (int64_t c = 0; c < width && dfirst; c++)
            dfirst[c] += dy[c];
        fb_nn_embedding_backward(s->dw, dy + before * width, s->run->ids + i * ids, ids, width,
                                 s->threads);
    }
    return FB_OK;
}

static enum fb_status position_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dropout d = fb_graph_step_dropout(s);
    fb_nn_position_forward(s->y, s->x, s->w, s->out->rows / s->op->tokens, s->op->tokens,
                           s->out->width);
    if (d.p > 0.0F)
        fb_nn_dropout_apply(&d, s->y, false, s->y, fb_graph_tensor_count(s->out), s->threads);
    return FB_OK;
}

/* Dropout and the gradient's place as above. */
static enum fb_status position_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dropout d = fb_graph_step_dropout(s);
    if (d.p > 0.0F)
        fb_nn_dropout_apply(&d, s->dy, false, s->dy, fb_graph_tensor_count(s->out), s->threads);
    if (s->dw)
        fb_nn_position_backward(s->dw, s->dy, s->out->rows / s->op->tokens, s->op->tokens,
                                s->out->width);
    if (s->dx != s->dy)
        fb_nn_scale_apply(s->dx, s->op->add[0], s->dy, 1.0F, fb_graph_tensor_count(s->out),
                          s->threads);
    return FB_OK;
}

static struct fb_nn_dense dense_of(const struct fb_graph_step *s)
{
    return (struct fb_nn_dense){.rows = s->in->rows, .in = s->in->width, .out = s->out->width};
}

static enum fb_status dense_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dense d = dense_of(s);
    fb_nn_dense_forward(&d, s->y, s->x, s->w, s->b, s->threads);
    return FB_OK;
}

static enum fb_status dense_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dense d = dense_of(s);
    fb_nn_dense_backward(&d, s->dx, s->op->add[0], s->dw, s->db, s->dy, s->x, s->w, s->threads);
    return FB_OK;
}

static struct fb_nn_layernorm norm_of(const struct fb_graph_step *s)
{
    return (struct fb_nn_layernorm){s->in->rows, s->in->width, s->op->value};
}

static enum fb_status layernorm_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_layernorm n = norm_of(s);
    fb_nn_layernorm_forward(&n, s->y, s->run->aux + s->op->aux, s->x, s->w, s->b, s->threads);
    return FB_OK;
}

static enum fb_status layernorm_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_layernorm n = norm_of(s);
    fb_nn_layernorm_backward(&n, s->dx, s->op->add[0], s->dw, s->db, s->dy, s->x,
                             s->run->aux + s->op->aux, s->w, s->threads);
    return FB_OK;
}

static enum fb_status activation_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dropout d = fb_graph_step_dropout(s);
    fb_nn_activation_forward(s->op->activation, &d, s->y, s->x, fb_graph_tensor_count(s->out),
                             s->threads);
    return FB_OK;
}

static enum fb_status activation_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dropout d = fb_graph_step_dropout(s);
    fb_nn_activation_backward(s->op->activation, &d, s->dx, s->op->add[0], s->dy, s->x,
                              fb_graph_tensor_count(s->out), s->threads);
    return FB_OK;
}

static enum fb_status add_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dropout d = fb_graph_step_dropout(s);
    fb_nn_sum_apply(&d, s->y, s->x, fb_graph_run_values(s->run, s->op->in[1]),
                    fb_graph_tensor_count(s->out), s->threads);
    return FB_OK;
}

/* The second input first: the first may have the output's gradient as its own. */
static enum fb_status add_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dropout d = fb_graph_step_dropout(s);
    fb_nn_dropout_apply(&d, fb_graph_run_gradient(s->run, s->op->in[1]), s->op->add[1], s->dy,
                        fb_graph_tensor_count(s->out), s->threads);
    if (s->dx != s->dy)
        fb_nn_scale_apply(s->dx, s->op->add[0], s->dy, 1.0F, fb_graph_tensor_count(s->out),
                          s->threads);
    return FB_OK;
}

static enum fb_status scale_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    fb_nn_scale_apply(s->y, false, s->x, s->op->value, fb_graph_tensor_count(s->out), s->threads);
    return FB_OK;
}

static enum fb_status scale_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    fb_nn_scale_apply(s->dx, s->op->add[0], s->dy, s->op->value, fb_graph_tensor_count(s->out),
                      s->threads);
    return FB_OK;
}

static void mask_rows(const struct fb_graph_step *s, float *to, bool add, const float *from)
{
    const int64_t width = s->out->width;
    for (int64_t r = 0; r < s->out->rows; r++)
        fb_nn_scale_apply(to + r * width, add, from + r * width, s->run->row_mask[r], width, 1);
}

static enum fb_status mask_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    mask_rows(s, s->y, false, s->x);
    return FB_OK;
}

static enum fb_status mask_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    mask_rows(s, s->dx, s->op->add[0], s->dy);
    return FB_OK;
}

static enum fb_status attention_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    return fb_graph_attention_forward(s->run, s->op, error);
}

static enum fb_status attention_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    return fb_graph_attention_backward(s->run, s->op, error);
}

static enum fb_status pool_first_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    for (int64_t b = 0; b < s->out->rows; b++)
        memcpy(s->y + b * s->out->width, s->x + b * s->op->tokens * s->out->width,
               (size_t)s->out->width * sizeof *s->y);
    return FB_OK;
}

/* Writes the whole gradient of the input unless it adds: rows that are not pooled have none. */
static enum fb_status pool_first_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const int64_t width = s->out->width;
    if (!s->op->add[0])
        memset(s->dx, 0, (size_t)fb_graph_tensor_count(s->in) * sizeof *s->dx);
    for (int64_t b = 0; b < s->out->rows; b++)
        fb_nn_scale_apply(s->dx + b * s->op->tokens * width, true, s->dy + b * width, 1.0F, width,
                          1);
    return FB_OK;
}

static enum fb_status pool_mean_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const int64_t width = s->out->width, tokens = s->op->tokens;
    for (int64_t b = 0; b < s->out->rows; b++)
        for (int64_t t = 0; t < tokens; t++)
            fb_nn_scale_apply(s->y + b * width, t > 0, s->x + (b * tokens + t) * width,
                              1.0F / (float)tokens, width, 1);
    return FB_OK;
}

static enum fb_status pool_mean_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const int64_t width = s->out->width, tokens = s->op->tokens;
    for (int64_t r = 0; r < s->in->rows; r++)
        fb_nn_scale_apply(s->dx + r * width, s->op->add[0], s->dy + r / tokens * width,
                          1.0F / (float)tokens, width, 1);
    return FB_OK;
}

static const struct fb_graph_functions operations[FB_OP_COUNT] = {
    [FB_OP_EMBEDDING] = {embedding_forward, embedding_backward},
    [FB_OP_POSITION] = {position_forward, position_backward},
    [FB_OP_DENSE] = {dense_forward, dense_backward},
    [FB_OP_LAYERNORM] = {layernorm_forward, layernorm_backward},
    [FB_OP_ACTIVATION] = {activation_forward, activation_backward},
    [FB_OP_ADD] = {add_forward, add_backward},
    [FB_OP_SCALE] = {scale_forward, scale_backward},
    [FB_OP_MASK] = {mask_forward, mask_backward},
    [FB_OP_ATTENTION] = {attention_forward, attention_backward},
    [FB_OP_POOL_FIRST] = {pool_first_forward, pool_first_backward},
    [FB_OP_POOL_MEAN] = {pool_mean_forward, pool_mean_backward},
};

/* ---- the passes ------------------------------------------------------------------------------ */

static float *floats(const struct fb_graph *g, int64_t count, struct fb_error *error)
{
    return fb_arena_alloc(g->arena, (size_t)(count > 0 ? count : 1), sizeof(float), error);
}

/* On a device the host keeps parameters, inputs and logits alone. */
enum fb_status fb_graph_run_init(struct fb_graph_run *run, const struct fb_graph *graph,
                                 struct fb_error *error)
{
    const bool here = graph->backend == FB_CPU;
    const int64_t values = here ? graph->activation_floats : graph->border_floats;
    const int64_t gradients = here ? graph->gradient_floats : graph->border_floats;
    *run = (struct fb_graph_run){.graph = graph};
    run->params = floats(graph, graph->param_floats, error);
    run->param_gradients = run->params ? floats(graph, graph->trained_floats, error) : NULL;
    run->activations = run->param_gradients ? floats(graph, values, error) : NULL;
    run->gradients = run->activations ? floats(graph, gradients, error) : NULL;
    run->aux = run->gradients ? floats(graph, here ? graph->aux_floats : 0, error) : NULL;
    run->scratch = run->aux
                       ? fb_arena_alloc(graph->arena, here ? graph->scratch_bytes + 1 : 1, 1, error)
                       : NULL;
    return run->scratch ? FB_OK : FB_ERROR_MEMORY;
}

enum fb_status fb_graph_run_steps(struct fb_graph_run *run,
                                  const struct fb_graph_functions *functions, bool backward,
                                  struct fb_error *error)
{
    const int count = run->graph->op_count;
    enum fb_status status = FB_OK;
    for (int i = 0; status == FB_OK && i < count; i++) {
        const struct fb_graph_step s =
            fb_graph_step_of(run, &run->graph->ops[backward ? count - 1 - i : i]);
        const struct fb_graph_functions *f = &functions[s.op->kind];
        status = backward ? f->backward(&s, error) : f->forward(&s, error);
    }
    return status;
}

enum fb_status fb_graph_run_forward(struct fb_graph_run *run, struct fb_error *error)
{
    if (run->device)
        return fb_graph_device_forward_through(run, error);
    return fb_graph_run_steps(run, operations, false, error);
}

enum fb_status fb_graph_run_backward(struct fb_graph_run *run, struct fb_error *error)
{
    if (run->device)
        return fb_graph_device_backward_through(run, error);
    memset(run->param_gradients, 0, (size_t)run->graph->trained_floats * sizeof(float));
    return fb_graph_run_steps(run, operations, true, error);
}
