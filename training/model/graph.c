/* Building a model: see graph.h. */
#include "graph.h"

#include "nn_embedding.h"
#include "random.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TENSORS_MAX = 2048, PARAMS_MAX = 1024, OPS_MAX = 2048, ALIGN_FLOATS = 16 };

static int fail(struct fb_graph *g, enum fb_status code, const char *text)
{
    if (g->status == FB_OK)
        g->status = fb_error_set(g->error, code, "model: %s", text);
    return -1;
}

void fb_graph_init(struct fb_graph *graph, struct fb_arena *arena, int64_t batch, int threads,
                   struct fb_error *error)
{
    *graph = (struct fb_graph){.arena = arena, .threads = threads, .batch = batch, .error = error};
    graph->tensors = fb_arena_alloc(arena, TENSORS_MAX, sizeof *graph->tensors, error);
    graph->params = fb_arena_alloc(arena, PARAMS_MAX, sizeof *graph->params, error);
    graph->ops = fb_arena_alloc(arena, OPS_MAX, sizeof *graph->ops, error);
    if (!graph->tensors || !graph->params || !graph->ops)
        graph->status = FB_ERROR_MEMORY;
}

int fb_graph_param(struct fb_graph *g, struct fb_graph_init init, bool decay, int rank,
                   const int64_t *shape, const char *format, ...)
{
    if (g->status != FB_OK)
        return -1;
    if (g->param_count == PARAMS_MAX || rank < 1 || rank > FB_GRAPH_RANK_MAX)
        return fail(g, FB_ERROR_USAGE, "too many parameters (1024), or of too many dimensions (3)");
    struct fb_graph_param *p = &g->params[g->param_count];
    *p = (struct fb_graph_param){
        .rank = rank, .count = 1, .follows = -1, .init = init, .decay = decay};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(p->name, sizeof p->name, format, arguments);
    va_end(arguments);
    for (int i = 0; i < rank; i++) {
        p->shape[i] = shape[i];
        p->count *= shape[i];
    }
    return g->param_count++;
}

static int new_tensor(struct fb_graph *g, int64_t rows, int64_t width)
{
    if (g->status != FB_OK)
        return -1;
    if (g->tensor_count == TENSORS_MAX || rows < 1 || width < 1)
        return fail(g, FB_ERROR_USAGE, "more than 2048 tensors, or an empty one");
    g->tensors[g->tensor_count] = (struct fb_graph_tensor){
        .rows = rows, .width = width, .stride = width, .offset = -1, .storage = g->tensor_count};
    return g->tensor_count++;
}

int fb_graph_values(struct fb_graph *g, int64_t rows, int64_t width)
{
    const int out = new_tensor(g, rows, width);
    if (out >= 0)
        g->tensors[out].input = true;
    return out;
}

int fb_graph_view(struct fb_graph *g, int in, int64_t rows, int64_t width)
{
    const int out = in < 0 ? -1 : new_tensor(g, rows, width);
    if (out < 0)
        return -1;
    if (rows * width != g->tensors[in].rows * g->tensors[in].width)
        return fail(g, FB_ERROR_USAGE, "a view must have as many values as what it views");
    g->tensors[out].storage = g->tensors[in].storage;
    return out;
}

/* Appends an operation on `in` whose output has rows x width. */
static struct fb_graph_op *new_op(struct fb_graph *g, enum fb_graph_op_kind kind, int in,
                                  int64_t rows, int64_t width)
{
    const int out = new_tensor(g, rows, width);
    if (out < 0)
        return NULL;
    if (g->op_count == OPS_MAX) {
        fail(g, FB_ERROR_USAGE, "more than 2048 operations");
        return NULL;
    }
    struct fb_graph_op *op = &g->ops[g->op_count++];
    *op = (struct fb_graph_op){.kind = kind,
                               .out = out,
                               .in = {in, -1, -1},
                               .w = -1,
                               .b = -1,
                               .first = -1,
                               .stream = ++g->streams};
    return op;
}

static int output(const struct fb_graph_op *op)
{
    return op ? op->out : -1;
}

static int same_shape(struct fb_graph *g, enum fb_graph_op_kind kind, int in, int w, int b,
                      double value, int64_t tokens)
{
    if (g->status != FB_OK)
        return -1;
    struct fb_graph_op *op = new_op(g, kind, in, g->tensors[in].rows, g->tensors[in].width);
    if (!op)
        return -1;
    op->w = w;
    op->b = b;
    op->value = (float)value;
    op->tokens = tokens;
    return op->out;
}

int fb_graph_embedding(struct fb_graph *g, int table, int first, int positions, int64_t sequences,
                       int64_t tokens, double p)
{
    if (g->status != FB_OK)
        return -1;
    g->streams +=
        first >= 0 ? 2 : 1; /* as when each of its parts had one: results stay as they are */
    struct fb_graph_op *op =
        new_op(g, FB_OP_EMBEDDING, -1, sequences * tokens, g->params[table].shape[1]);
    if (!op)
        return -1;
    op->w = table;
    op->b = positions;
    op->first = first;
    op->tokens = tokens;
    op->value = (float)p;
    return op->out;
}

int fb_graph_position(struct fb_graph *g, int in, int table, int64_t tokens, double p)
{
    return same_shape(g, FB_OP_POSITION, in, table, -1, p, tokens);
}

int fb_graph_dense(struct fb_graph *g, int in, int w, int b)
{
    if (g->status != FB_OK)
        return -1;
    const struct fb_graph_param *weight = &g->params[w];
    if (weight->count != weight->shape[0] * g->tensors[in].width)
        return fail(g, FB_ERROR_USAGE, "a dense layer's weight does not fit its input");
    struct fb_graph_op *op = new_op(g, FB_OP_DENSE, in, g->tensors[in].rows, weight->shape[0]);
    if (op) {
        op->w = w;
        op->b = b;
    }
    return output(op);
}

/* Rows of any dtype start on the boundary of the blocks, and nothing lies between the parameters.
 */
static bool is_joined(const struct fb_graph *g, int count, const int *params)
{
    const struct fb_graph_param *first = &g->params[params[0]];
    bool alike = first->shape[0] % ALIGN_FLOATS == 0;
    for (int i = 1; i < count; i++)
        alike = alike && params[i] >= 0 && g->params[params[i]].shape[0] == first->shape[0] &&
                g->params[params[i]].count == first->count;
    return alike;
}

static void join(struct fb_graph *g, int count, const int *params)
{
    for (int i = 1; i < count; i++)
        g->params[params[i]].follows = params[i - 1];
}

void fb_graph_dense_joined(struct fb_graph *g, int in, int count, const int *w, const int *b,
                           int *out)
{
    const bool bias = g->status == FB_OK && b[0] >= 0;
    for (int i = 0; i < count; i++)
        out[i] = -1;
    if (g->status != FB_OK)
        return;
    const struct fb_graph_param *weight = &g->params[w[0]];
    const int64_t rows = g->tensors[in].rows, width = weight->shape[0];
    if (!is_joined(g, count, w) || (bias && !is_joined(g, count, b)) ||
        weight->count != width * g->tensors[in].width) {
        for (int i = 0; i < count; i++)
            out[i] = fb_graph_dense(g, in, w[i], b[i]);
        return;
    }
    struct fb_graph_op *op = new_op(g, FB_OP_DENSE, in, rows, count * width);
    if (!op)
        return;
    op->w = w[0];
    op->b = b[0];
    join(g, count, w);
    if (bias)
        join(g, count, b);
    for (int i = 0; i < count; i++) {
        out[i] = new_tensor(g, rows, width);
        if (out[i] < 0)
            return;
        struct fb_graph_tensor *t = &g->tensors[out[i]];
        t->storage = op->out;
        t->stride = count * width;
        t->column = i * width;
    }
}

int fb_graph_layernorm(struct fb_graph *g, int in, int gain, int bias, double eps)
{
    return same_shape(g, FB_OP_LAYERNORM, in, gain, bias, eps, 0);
}

int fb_graph_activation(struct fb_graph *g, int in, enum fb_nn_activation kind, double p)
{
    const int out = same_shape(g, FB_OP_ACTIVATION, in, -1, -1, p, 0);
    if (out >= 0)
        g->ops[g->op_count - 1].activation = kind;
    return out;
}

int fb_graph_add(struct fb_graph *g, int a, int b, double p)
{
    if (g->status == FB_OK && g->tensors[a].storage == g->tensors[b].storage)
        return fail(g, FB_ERROR_USAGE, "a sum needs two tensors; a multiple of one is a scale");
    const int out = same_shape(g, FB_OP_ADD, a, -1, -1, p, 0);
    if (out >= 0)
        g->ops[g->op_count - 1].in[1] = b;
    return out;
}

int fb_graph_scale(struct fb_graph *g, int in, double factor)
{
    return same_shape(g, FB_OP_SCALE, in, -1, -1, factor, 0);
}

int fb_graph_mask(struct fb_graph *g, int in)
{
    return same_shape(g, FB_OP_MASK, in, -1, -1, 0.0, 0);
}

int fb_graph_attention(struct fb_graph *g, const struct fb_graph_attention *attention, int q, int k,
                       int v, int64_t heads, int64_t tokens)
{
    if (g->status != FB_OK)
        return -1;
    struct fb_graph_op *op = new_op(g, FB_OP_ATTENTION, q, g->tensors[q].rows, g->tensors[v].width);
    if (!op)
        return -1;
    if (g->tensors[q].width % heads != 0 || g->tensors[v].width % heads != 0)
        return fail(g, FB_ERROR_USAGE, "the width is no multiple of the number of heads");
    op->in[1] = k;
    op->in[2] = v;
    op->heads = heads;
    op->tokens = tokens;
    op->attention = attention;
    return op->out;
}

static int pool(struct fb_graph *g, enum fb_graph_op_kind kind, int in, int64_t tokens)
{
    if (g->status != FB_OK)
        return -1;
    struct fb_graph_op *op =
        new_op(g, kind, in, g->tensors[in].rows / tokens, g->tensors[in].width);
    if (op)
        op->tokens = tokens;
    return output(op);
}

int fb_graph_pool_first(struct fb_graph *g, int in, int64_t tokens)
{
    return pool(g, FB_OP_POOL_FIRST, in, tokens);
}

int fb_graph_pool_mean(struct fb_graph *g, int in, int64_t tokens)
{
    return pool(g, FB_OP_POOL_MEAN, in, tokens);
}

int fb_graph_param_find(const struct fb_graph *g, const char *name)
{
    for (int i = 0; i < g->param_count; i++)
        if (strcmp(g->params[i].name, name) == 0)
            return i;
    return -1;
}

/* ---- initial values -------------------------------------------------------------------------- */

static double drawn(struct fb_random *random, const struct fb_graph_init *init)
{
    double value;
    switch (init->kind) {
    case FB_INIT_ONE:
        return 1.0;
    case FB_INIT_NORMAL:
        return init->scale * fb_random_normal(random);
    case FB_INIT_UNIFORM:
        return init->scale * (2.0 * fb_random_uniform(random) - 1.0);
    case FB_INIT_TRUNCATED:
        do {
            value = fb_random_normal(random);
        } while (fabs(value) > 2.0);
        return init->scale * value;
    default:
        return 0.0;
    }
}

void fb_graph_draw_params(const struct fb_graph *g, float *params, uint64_t seed)
{
    for (int i = 0; i < g->param_count; i++) {
        const struct fb_graph_param *p = &g->params[i];
        float *values = params + p->offset;
        struct fb_random random;
        fb_random_init(&random, seed, (uint64_t)i);
        if (p->init.kind == FB_INIT_SINUSOID)
            fb_nn_position_sinusoid(values, p->shape[0], p->count / p->shape[0]);
        for (int64_t c = 0; p->init.kind != FB_INIT_SINUSOID && c < p->count; c++)
            values[c] = (float)drawn(&random, &p->init);
    }
}
