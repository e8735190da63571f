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

int fb_model_dense(struct fb_graph *g, int in, int64_t width, const struct fb_dense_options *o,
                   const char *name)
{
    if (in < 0)
        return -1;
    const int64_t in_width = g->tensors[in].width, shape[3] = {width, in_width, 1};
    const int w = fb_graph_param(g, weight_start(o, in_width, width), true, o->rank == 3 ? 3 : 2,
                                 shape, "%s.weight", name);
    const int b = o->bias ? fb_graph_param(g, bias_start(o, in_width), o->decay_all, 1, shape,
                                           "%s.bias", name)
                          : -1;
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

int fb_model_attention(struct fb_graph *g, int in, const struct fb_attention_block *block,
                       const char *name)
{
    static const char *const projections[] = {"query", "key", "value"};
    char full[FB_GRAPH_NAME_MAX];
    int qkv[3];
    if (in < 0)
        return -1;
    const int64_t width = g->tensors[in].width;
    const bool alone =
        block->first_only && fb_graph_attention_first_alone(g, block->attention, in, block->qkv_dim,
                                                            block->heads, block->tokens);
    const int queries = alone ? fb_graph_pool_first(g, in, block->tokens) : in;
    for (int i = 0; i < 3; i++) {
        snprintf(full, sizeof full, "%s.%s_projection", name, projections[i]);
        qkv[i] = fb_model_dense(g, i == 0 ? queries : in, block->qkv_dim, &block->dense, full);
    }
    int out = fb_graph_attention(g, block->attention, qkv[0], qkv[1], qkv[2], block->heads,
                                 block->tokens);
    if (block->first_only && !alone)
        out = fb_graph_pool_first(g, out, block->tokens);
    snprintf(full, sizeof full, "%s.out_projection", name);
    return fb_model_dense(g, out, width, &block->dense, full);
}
