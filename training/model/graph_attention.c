/* Attention inside a model: see graph_attention.h. */
#include "graph_attention.h"

#include <string.h>

/* With as many queries as keys, and values as wide as keys. */
static struct fb_problem square_problem(const struct fb_graph *g,
                                        const struct fb_graph_attention *a, int64_t sequences,
                                        int64_t heads, int64_t tokens, int64_t dim)
{
    struct fb_problem problem;
    fb_problem_init(&problem, a->attention->mechanism, sequences, heads, tokens, dim);
    problem.dtype = g->dtype;
    problem.causal = a->causal;
    memcpy(problem.params, a->params, sizeof problem.params);
    return problem;
}

static struct fb_problem problem_of(const struct fb_graph *g, const struct fb_graph_op *op)
{
    const int64_t sequences = g->tensors[op->in[1]].rows / op->tokens;
    struct fb_problem problem = square_problem(g, op->attention, sequences, op->heads, op->tokens,
                                               g->tensors[op->in[0]].width / op->heads);
    problem.q_len = g->tensors[op->in[0]].rows / sequences;
    problem.v_dim = g->tensors[op->in[2]].width / op->heads;
    return problem;
}

/* The problem of the batch at hand. */
static struct fb_problem problem_of_batch(const struct fb_graph_run *run,
                                          const struct fb_graph_op *op)
{
    struct fb_problem problem = problem_of(run->graph, op);
    problem.kv_lengths = op->attention->mask_padding ? run->lengths : NULL;
    return problem;
}

/* With padding masked the variant must take lengths; on a device, too, the host holds them. */
static enum fb_status check_support(struct fb_graph *g, const struct fb_graph_op *op,
                                    struct fb_problem problem)
{
    const struct fb_attention *attention = op->attention->attention;
    if (op->attention->mask_padding) {
        int64_t *lengths =
            fb_arena_alloc(g->arena, (size_t)problem.batch, sizeof *lengths, g->error);
        if (!lengths)
            return FB_ERROR_MEMORY;
        for (int64_t b = 0; b < problem.batch; b++)
            lengths[b] = op->tokens;
        problem.kv_lengths = lengths;
    }
    return fb_attention_supports(attention, &problem, FB_BOTH, g->error);
}

bool fb_graph_attention_first_alone(const struct fb_graph *g, const struct fb_graph_attention *a,
                                    int in, int64_t qkv_dim, int64_t heads, int64_t tokens)
{
    struct fb_error why;
    if (!a->attention->mechanism->sinks_alone || a->causal)
        return false;
    struct fb_problem problem =
        square_problem(g, a, g->tensors[in].rows / tokens, heads, tokens, qkv_dim / heads);
    problem.q_len = 1;
    return fb_attention_supports(a->attention, &problem, FB_BOTH, &why) == FB_OK;
}

enum fb_status fb_graph_attention_prepare(struct fb_graph *g, struct fb_graph_op *op,
                                          struct fb_sizes *sizes)
{
    const struct fb_attention *attention = op->attention->attention;
    const struct fb_mechanism *mechanism = attention->mechanism;
    const struct fb_problem problem = problem_of(g, op);
    if (attention->backend != g->backend)
        return fb_error_set(g->error, FB_ERROR_USAGE,
                            "model: %s/%s computes on %s, the model on %s", mechanism->name,
                            attention->variant, fb_backend_name(attention->backend),
                            fb_backend_name(g->backend));
    enum fb_status status = check_support(g, op, problem);
    if (status != FB_OK)
        return fb_error_prefix(g->error, "model: %s", mechanism->name);
    fb_attention_sizes(attention, &problem, g->threads, sizes);
    if (!mechanism->constants_bytes)
        return FB_OK;
    op->constants = fb_arena_alloc(g->arena, mechanism->constants_bytes(&problem) + 1, 1, g->error);
    return op->constants ? mechanism->prepare(&problem, op->attention->constants_seed,
                                              op->constants, g->error)
                         : FB_ERROR_MEMORY;
}

size_t fb_graph_attention_constants_bytes(const struct fb_graph *g, const struct fb_graph_op *op)
{
    const struct fb_mechanism *mechanism = op->attention->attention->mechanism;
    const struct fb_problem problem = problem_of(g, op);
    return mechanism->constants_bytes ? mechanism->constants_bytes(&problem) : 0;
}

static struct fb_tensor view_of(const struct fb_graph_run *run, const struct fb_graph_op *op,
                                int tensor, float *data)
{
    const struct fb_graph_tensor *t = &run->graph->tensors[tensor];
    const int64_t sequences = run->graph->tensors[op->in[1]].rows / op->tokens;
    struct fb_tensor view = fb_tensor_dense(data, t->dtype, FB_BNHD, sequences, op->heads,
                                            t->rows / sequences, t->width / op->heads);
    view.stride[2] = t->stride;
    view.stride[0] = t->rows / sequences * t->stride;
    return view;
}

static struct fb_tensor value_of(const struct fb_graph_run *run, const struct fb_graph_op *op,
                                 int tensor)
{
    return view_of(run, op, tensor, fb_graph_run_values(run, tensor));
}

static struct fb_tensor gradient_of(const struct fb_graph_run *run, const struct fb_graph_op *op,
                                    int tensor)
{
    return view_of(run, op, tensor, fb_graph_run_gradient(run, tensor));
}

static struct fb_call call_of(const struct fb_graph_run *run, const struct fb_graph_op *op)
{
    return (struct fb_call){
        .q = value_of(run, op, op->in[0]),
        .k = value_of(run, op, op->in[1]),
        .v = value_of(run, op, op->in[2]),
        .out = value_of(run, op, op->out),
        .constants = op->constants,
        .saved = run->training ? run->aux + op->aux : NULL,
        .scratch = run->scratch,
        .threads = run->graph->threads,
        .stream = run->stream,
    };
}

enum fb_status fb_graph_attention_forward(const struct fb_graph_run *run,
                                          const struct fb_graph_op *op, struct fb_error *error)
{
    const struct fb_problem problem = problem_of_batch(run, op);
    const struct fb_call call = call_of(run, op);
    return fb_attention_forward(op->attention->attention, &problem, &call, error);
}

enum fb_status fb_graph_attention_backward(const struct fb_graph_run *run,
                                           const struct fb_graph_op *op, struct fb_error *error)
{
    const struct fb_problem problem = problem_of_batch(run, op);
    struct fb_call call = call_of(run, op);
    call.dout = gradient_of(run, op, op->out);
    call.dq = gradient_of(run, op, op->in[0]);
    call.dk = gradient_of(run, op, op->in[1]);
    call.dv = gradient_of(run, op, op->in[2]);
    return fb_attention_backward(op->attention->attention, &problem, &call, error);
}

void fb_graph_attention_cost(const struct fb_graph *g, const struct fb_graph_op *op,
                             enum fb_pass pass, struct fb_cost *cost)
{
    const struct fb_problem problem = problem_of(g, op);
    op->attention->attention->mechanism->cost(&problem, pass, cost);
}
