/* The operations of a model on a CUDA device, forward and backward, from one table. */
#include "graph_device_steps.h"

#include "graph_attention.h"

static struct fb_nn_cuda *context_of(const struct fb_graph_step *s)
{
    return fb_graph_device_steps_context(s->run);
}

static struct fb_nn_cuda_embedding embedding_of(const struct fb_graph_step *s)
{
    return (struct fb_nn_cuda_embedding){.ids = fb_graph_device_steps_tokens(s->run),
                                         .dropout = fb_graph_step_dropout(s),
                                         .batch = s->out->rows / s->op->tokens,
                                         .tokens = s->op->tokens,
                                         .width = s->out->width,
                                         .has_first = s->op->first >= 0};
}

static enum fb_status embedding_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_cuda_embedding e = embedding_of(s);
    const float *first =
        e.has_first ? s->run->params + s->run->graph->params[s->op->first].offset : NULL;
    fb_nn_cuda_embedding_forward(context_of(s), &e, s->y, s->w, first, s->b);
    return FB_OK;
}

static enum fb_status embedding_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_cuda_embedding e = embedding_of(s);
    fb_nn_cuda_embedding_backward(context_of(s), &e, s->dw,
                                  fb_graph_param_gradient(s->run, s->op->first), s->db, s->dy);
    return FB_OK;
}

static enum fb_status position_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dropout d = fb_graph_step_dropout(s);
    fb_nn_cuda_position_forward(context_of(s), &d, s->y, s->x, s->w, s->out->rows / s->op->tokens,
                                s->op->tokens, s->out->width);
    return FB_OK;
}

/* As on the processor, the gradient behind dropout takes the place of the output's. */
static enum fb_status position_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dropout d = fb_graph_step_dropout(s);
    const int64_t count = fb_graph_tensor_count(s->out);
    if (d.p > 0.0F)
        fb_nn_cuda_dropout_apply(context_of(s), &d, s->dy, false, s->dy, count);
    if (s->dw)
        fb_nn_cuda_position_backward(context_of(s), s->dw, s->dy, s->out->rows / s->op->tokens,
                                     s->op->tokens, s->out->width);
    if (s->dx != s->dy)
        fb_nn_cuda_scale_apply(context_of(s), s->dx, s->op->add[0], s->dy, 1.0F, count);
    return FB_OK;
}

static struct fb_nn_cuda_dense dense_of(const struct fb_graph_step *s)
{
    return (struct fb_nn_cuda_dense){.size = {s->in->rows, s->in->width, s->out->width},
                                     .wide_x = s->in->dtype == FB_F32,
                                     .wide_y = s->out->dtype == FB_F32};
}

/* Beside an f32 output the bias is f32, too. */
static enum fb_status dense_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_cuda_dense d = dense_of(s);
    const void *b = s->b;
    if (b && !d.wide_y)
        b = fb_graph_device_steps_weight(s->run, s->op->b);
    fb_nn_cuda_dense_forward(context_of(s), &d, s->y, s->x,
                             fb_graph_device_steps_weight(s->run, s->op->w), b);
    return FB_OK;
}

static enum fb_status dense_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_cuda_dense d = dense_of(s);
    fb_nn_cuda_dense_backward(context_of(s), &d, s->in->input ? NULL : s->dx, s->op->add[0], s->dw,
                              s->db, s->dy, s->x, fb_graph_device_steps_weight(s->run, s->op->w));
    return FB_OK;
}

/* The sum right before a layer normalisation that reads it is left to that, forward and backward.
 * NULL: the operation before `norm` is none, or (backward) adds to a gradient that is there. */
static const struct fb_graph_op *sum_before(const struct fb_graph *g,
                                            const struct fb_graph_op *norm)
{
    const struct fb_graph_op *sum = norm > g->ops ? norm - 1 : NULL;
    return sum && sum->kind == FB_OP_ADD && sum->out == norm->in[0] && !sum->add[1] ? sum : NULL;
}

static bool is_left_to_norm(const struct fb_graph *g, const struct fb_graph_op *sum)
{
    const struct fb_graph_op *next = sum + 1;
    return next < g->ops + g->op_count && next->kind == FB_OP_LAYERNORM &&
           sum_before(g, next) == sum;
}

static bool residual_of(const struct fb_graph_step *s, struct fb_nn_cuda_residual *residual)
{
    const struct fb_graph_op *sum = sum_before(s->run->graph, s->op);
    if (!sum)
        return false;
    const struct fb_graph_step of = fb_graph_step_of(s->run, sum);
    *residual = (struct fb_nn_cuda_residual){.dropout = fb_graph_step_dropout(&of),
                                             .a = of.x,
                                             .b = fb_graph_run_values(s->run, sum->in[1]),
                                             .db = fb_graph_run_gradient(s->run, sum->in[1])};
    return true;
}

static enum fb_status layernorm_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    struct fb_nn_cuda_residual residual;
    const bool sums = residual_of(s, &residual);
    const struct fb_nn_layernorm n = {s->in->rows, s->in->width, s->op->value};
    fb_nn_cuda_layernorm_forward(context_of(s), &n, sums ? &residual : NULL, s->y,
                                 s->run->aux + s->op->aux, s->x, s->w, s->b);
    return FB_OK;
}

static enum fb_status layernorm_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    struct fb_nn_cuda_residual residual;
    const bool sums = residual_of(s, &residual);
    const struct fb_nn_layernorm n = {s->in->rows, s->in->width, s->op->value};
    fb_nn_cuda_layernorm_backward(context_of(s), &n, sums ? &residual : NULL, s->dx, s->op->add[0],
                                  s->dw, s->db, s->dy, s->x, s->run->aux + s->op->aux, s->w);
    return FB_OK;
}

static enum fb_status activation_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dropout d = fb_graph_step_dropout(s);
    fb_nn_cuda_activation_forward(context_of(s), s->op->activation, &d, s->y, s->x,
                                  fb_graph_tensor_count(s->out));
    return FB_OK;
}

static enum fb_status activation_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dropout d = fb_graph_step_dropout(s);
    fb_nn_cuda_activation_backward(context_of(s), s->op->activation, &d, s->dx, s->op->add[0],
                                   s->dy, s->x, fb_graph_tensor_count(s->out));
    return FB_OK;
}

static enum fb_status add_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dropout d = fb_graph_step_dropout(s);
    if (is_left_to_norm(s->run->graph, s->op))
        return FB_OK;
    fb_nn_cuda_sum_apply(context_of(s), &d, s->y, s->x, fb_graph_run_values(s->run, s->op->in[1]),
                         fb_graph_tensor_count(s->out));
    return FB_OK;
}

/* The second input first: the first may have the output's gradient as its own. */
static enum fb_status add_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    const struct fb_nn_dropout d = fb_graph_step_dropout(s);
    const int64_t count = fb_graph_tensor_count(s->out);
    if (!is_left_to_norm(s->run->graph, s->op))
        fb_nn_cuda_dropout_apply(context_of(s), &d, fb_graph_run_gradient(s->run, s->op->in[1]),
                                 s->op->add[1], s->dy, count);
    if (s->dx != s->dy)
        fb_nn_cuda_scale_apply(context_of(s), s->dx, s->op->add[0], s->dy, 1.0F, count);
    return FB_OK;
}

static enum fb_status scale_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    fb_nn_cuda_scale_apply(context_of(s), s->y, false, s->x, s->op->value,
                           fb_graph_tensor_count(s->out));
    return FB_OK;
}

static enum fb_status scale_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    fb_nn_cuda_scale_apply(context_of(s), s->dx, s->op->add[0], s->dy, s->op->value,
                           fb_graph_tensor_count(s->out));
    return FB_OK;
}

static enum fb_status mask_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    fb_nn_cuda_mask_rows(context_of(s), s->y, false, s->x, s->run->row_mask, s->out->rows,
                         s->out->width);
    return FB_OK;
}

static enum fb_status mask_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    fb_nn_cuda_mask_rows(context_of(s), s->dx, s->op->add[0], s->dy, s->run->row_mask, s->out->rows,
                         s->out->width);
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
    fb_nn_cuda_pool_first_forward(context_of(s), s->y, s->x, s->out->rows, s->op->tokens,
                                  s->out->width);
    return FB_OK;
}

static enum fb_status pool_first_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    fb_nn_cuda_pool_first_backward(context_of(s), s->dx, s->op->add[0], s->dy, s->out->rows,
                                   s->op->tokens, s->out->width);
    return FB_OK;
}

static enum fb_status pool_mean_forward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    fb_nn_cuda_pool_mean_forward(context_of(s), s->y, s->x, s->out->rows, s->op->tokens,
                                 s->out->width);
    return FB_OK;
}

static enum fb_status pool_mean_backward(const struct fb_graph_step *s, struct fb_error *error)
{
    (void)error;
    fb_nn_cuda_pool_mean_backward(context_of(s), s->dx, s->op->add[0], s->dy, s->out->rows,
                                  s->op->tokens, s->out->width);
    return FB_OK;
}

const struct fb_graph_functions fb_graph_device_functions[FB_OP_COUNT] = {
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
