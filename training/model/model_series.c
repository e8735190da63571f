/* The time-series classifier: see models.h. */
#include "model_parts.h"
#include "models.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define NORM_EPS 1e-5

static const struct fb_dense_options linear = {
    .start = FB_DENSE_TORCH, .bias = true, .decay_all = true, .rank = 2};
static const struct fb_dense_options convolution = {
    .start = FB_DENSE_TORCH, .bias = true, .decay_all = true, .rank = 3};

/* x = norm1(x + drop(attention(x))); x = norm2(x + drop(W2 drop(gelu(W1 x)))). */
static int layer(struct fb_graph *g, const struct fb_model_series *m, int x, int64_t index)
{
    char name[FB_GRAPH_NAME_MAX];
    const struct fb_attention_block block = {m->attention, m->heads, m->tokens,
                                             m->d_model,   linear,   false};
    snprintf(name, sizeof name, "encoder.attn_layers.%" PRId64 ".attention", index);
    int y = fb_model_attention(g, x, &block, name);
    snprintf(name, sizeof name, "encoder.attn_layers.%" PRId64 ".norm1", index);
    x = fb_model_norm(g, fb_graph_add(g, x, y, m->dropout), NORM_EPS, true, name);
    snprintf(name, sizeof name, "encoder.attn_layers.%" PRId64 ".conv1", index);
    y = fb_graph_activation(g, fb_model_dense(g, x, m->d_ff, &convolution, name), FB_NN_GELU_ERF,
                            m->dropout);
    snprintf(name, sizeof name, "encoder.attn_layers.%" PRId64 ".conv2", index);
    y = fb_model_dense(g, y, m->d_model, &convolution, name);
    snprintf(name, sizeof name, "encoder.attn_layers.%" PRId64 ".norm2", index);
    return fb_model_norm(g, fb_graph_add(g, x, y, m->dropout), NORM_EPS, true, name);
}

int fb_model_series_build(struct fb_graph *g, const struct fb_model_series *m, int *input)
{
    const int64_t positions[3] = {m->tokens, 1, m->d_model};
    *input = fb_graph_values(g, m->batch * m->tokens, m->features);
    int x = fb_model_dense(g, *input, m->d_model, &linear, "project_inp");
    x = fb_graph_scale(g, x, sqrt((double)m->d_model));
    const int table = fb_graph_param(g, (struct fb_graph_init){FB_INIT_UNIFORM, 0.02}, true, 3,
                                     positions, "pos_enc.pe");
    x = fb_graph_position(g, x, table, m->tokens, m->dropout);
    for (int64_t i = 0; i < m->layers; i++)
        x = layer(g, m, x, i);
    x = fb_model_norm(g, x, NORM_EPS, true, "encoder.norm");
    x = fb_graph_activation(g, x, FB_NN_GELU_ERF, m->dropout);
    x = fb_graph_view(g, fb_graph_mask(g, x), m->batch, m->tokens * m->d_model);
    return fb_model_dense(g, x, m->classes, &linear, "output_layer");
}
