/* Costs of a model: see graph_cost.h. */
#include "graph_cost.h"

#include "graph_attention.h"

/* Floats per trained parameter: value, gradient and two moments; an update reads four, writes
 * three.
 */
enum { TRAINER_BLOCKS = 4, UPDATE_PASSES = 7 };

int64_t fb_graph_count_parameters(const struct fb_graph *g)
{
    int64_t count = 0;
    for (int i = 0; i < g->param_count; i++)
        count += g->params[i].offset < g->trained_floats ? g->params[i].count : 0;
    return count;
}

void fb_graph_cost(const struct fb_graph *g, struct fb_graph_cost *cost)
{
    const double activations = (double)g->activation_floats * sizeof(float);
    const double params = (double)g->trained_floats * sizeof(float);
    *cost = (struct fb_graph_cost){0};
    for (int i = 0; i < g->op_count; i++) {
        const struct fb_graph_op *op = &g->ops[i];
        const struct fb_graph_tensor *out = &g->tensors[op->out];
        if (op->kind == FB_OP_DENSE) {
            const double flop =
                2.0 * (double)out->rows * (double)out->width * (double)g->tensors[op->in[0]].width;
            cost->forward_flop += flop;
            cost->step_flop += 3.0 * flop;
        } else if (op->kind == FB_OP_ATTENTION) {
            struct fb_cost forward, both;
            fb_graph_attention_cost(g, op, FB_FORWARD, &forward);
            fb_graph_attention_cost(g, op, FB_BOTH, &both);
            cost->forward_flop += forward.flop;
            cost->step_flop += both.flop;
        }
    }
    cost->forward_bytes = 2.0 * activations + params;
    cost->step_bytes = 6.0 * activations + (2.0 + UPDATE_PASSES) * params;
    const size_t rounded =
        g->dtype == FB_F32 ? 0 : fb_dtype_bytes(g->dtype); /* beside the f32 ones */
    cost->memory_bytes =
        (size_t)g->param_floats * rounded +
        ((size_t)g->param_floats + (TRAINER_BLOCKS - 1) * (size_t)g->trained_floats +
         2 * (size_t)g->activation_floats + (size_t)g->aux_floats) *
            sizeof(float) +
        (size_t)g->trained_floats + g->scratch_bytes;
}
