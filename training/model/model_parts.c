/* Parts of models: see model_parts.h. */
#include "model_parts.h"

#include "graph_attention.h"

#include <math.h>
#include <stdio.h>

static struct fb_graph_init weight_start(const struct fb_dense_options *o, int64_t in, int64_t out)
{
    const double fan_in = (double)in, fan_out = (double)out;
    switch (o->start) {
    case FB_DENSE_GPT:
        return (struct fb_graph_init){FB_INIT_NORMAL, o->scale > 0.0 ? o->scale : 0.02};
    case FB_DENSE_XAVIER:
        return (struct fb_graph_init){FB_INIT_UNIFORM, sqrt(6.0 / (fan_in + fan_out))};
    case FB_DENSE_LECUN: /* cutting at two deviations leaves 0.8796 of them */
        return (struct fb_graph_init){FB_INIT_TRUNCATED, sqrt(1.0 / fan_in) / 0.87962566103423978};
    default:
        return (struct fb_graph_init){FB_INIT_UNIFORM, 1.0 / sqrt(fan_in)};
    }
}

static struct fb_graph_init bias_start(const struct fb_dense_options *o, int64_t in)
{
    if (o->start == FB_DENSE_TORCH)
        return (struct fb_graph_init){FB_INIT_UNIFORM, 1.0 / sqrt((double)in)};
    if (o->start == FB_DENSE_XAVIER)
        return (struct fb_graph_init){FB_INIT_NORMAL, 1e-6};
    return (struct fb_graph_init){FB_INIT_ZERO, 0.0};
}

/* Weight and bias, -1 where the layer has none. */
static void add_params(struct fb_graph *g, int64_t in_width, int64_t width,
                       const struct fb_dense_options *o, const char *name, int *w, int *b)
{
    const int64_t shape[3] = {width, in_width, 1};
    *w = fb_graph_param(g, weight_start(o, in_width, width), true, o->rank == 3 ? 3 : 2, shape,
                        "%s.weight", name);
    *b = o->bias
             ? fb_graph_param(g, bias_start(o, in_width), o->decay_all, 1, shape, "%s.bias", name)
             : -1;
}

int fb_model_dense(struct fb_graph *g, int in, int64_t width, const struct fb_dense_options *o,
                   const char *name)
{
    int w, b;
    if (in < 0)
        return -1;
    add_params(g, g->tensors[in].width, width, o, name, &w, &b);
    return fb_graph_dense(g, in, w, b);
}

int fb_model_norm(struct fb_graph *g, int in, double eps, bool decay, const char *name)
{
    if (in < 0)
        return -1;
    const int64_t width = g->tensors[in].width;
    const int gain = fb_graph_param(g, (struct fb_graph_init){FB_INIT_ONE, 0.0}, decay, 1, &width,
                                    "%s.weight", name);
    const int bias = fb_graph_param(g, (struct fb_graph_init){FB_INIT_ZERO, 0.0}, decay, 1, &width,
                                    "%s.bias", name);
    return fb_graph_layernorm(g, in, gain, bias, eps);
}

/* Queries, keys and values: those of one input as one product. */
static void project(struct fb_graph *g, int queries, int in, const struct fb_attention_block *block,
                    const char *name, int qkv[3])
{
    static const char *const projections[] = {"query", "key", "value"};
    char full[FB_GRAPH_NAME_MAX];
    int w[3], b[3];
    for (int i = 0; i < 3; i++) {
        snprintf(full, sizeof full, "%s.%s_projection", name, projections[i]);
        add_params(g, g->tensors[in].width, block->qkv_dim, &block->dense, full, &w[i], &b[i]);
    }
    const int first = queries == in ? 0 : 1;
    if (first == 1)
        qkv[0] = fb_graph_dense(g, queries, w[0], b[0]);
    fb_graph_dense_joined(g, in, 3 - first, w + first, b + first, qkv + first);
}

int fb_model_attention(struct fb_graph *g, int in, const struct fb_attention_block *block,
                       const char *name)
{
    char full[FB_GRAPH_NAME_MAX];
    int qkv[3];
    if (in < 0)
        return -1;
    const int64_t width = g->tensors[in].width;
    const bool alone =
        block->first_only && fb_graph_attention_first_alone(g, block->attention, in, block->qkv_dim,
                                                            block->heads, block->tokens);
    project(g, alone ? fb_graph_pool_first(g, in, block->tokens) : in, in, block, name, qkv);
    int out = fb_graph_attention(g, block->attention, qkv[0], qkv[1], qkv[2], block->heads,
                                 block->tokens);
    if (block->first_only && !alone)
        out = fb_graph_pool_first(g, out, block->tokens);
    snprintf(full, sizeof full, "%s.out_projection", name);
    return fb_model_dense(g, out, width, &block->dense, full);
}
