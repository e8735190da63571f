/* The encoder classifier of the long-range tasks: see models.h. */
#include "model_parts.h"
#include "models.h"

#include <inttypes.h>
#include <stdio.h>

#define NORM_EPS 1e-6

/* The official optimiser decays every parameter. */
static const struct fb_dense_options projection = {
    .start = FB_DENSE_XAVIER, .bias = false, .decay_all = true, .rank = 2};
static const struct fb_dense_options mlp = {
    .start = FB_DENSE_XAVIER, .bias = true, .decay_all = true, .rank = 2};
static const struct fb_dense_options head = {
    .start = FB_DENSE_LECUN, .bias = true, .decay_all = true, .rank = 2};

/* Where only the first row of every sequence is pooled, the last block computes no other after its
 * attention: the pooled row goes on alone. */
static int block(struct fb_graph *g, const struct fb_model_encoder *m, int x, int64_t tokens,
                 int64_t index)
{
    char name[FB_GRAPH_NAME_MAX];
    const bool first_only = m->pooling != FB_POOL_MEAN && index + 1 == m->layers;
    const struct fb_attention_block attention = {m->attention, m->heads,   tokens,
                                                 m->qkv_dim,   projection, first_only};
    const int rest = first_only ? fb_graph_pool_first(g, x, tokens) : x;
    snprintf(name, sizeof name, "encoderblock_%" PRId64 ".norm1", index);
    int y = fb_model_norm(g, x, NORM_EPS, true, name);
    snprintf(name, sizeof name, "encoderblock_%" PRId64 ".attention", index);
    y = fb_model_attention(g, y, &attention, name);
    x = fb_graph_add(g, rest, y, m->dropout);
    snprintf(name, sizeof name, "encoderblock_%" PRId64 ".norm2", index);
    y = fb_model_norm(g, x, NORM_EPS, true, name);
    snprintf(name, sizeof name, "encoderblock_%" PRId64 ".mlp.fc1", index);
    y = fb_graph_activation(g, fb_model_dense(g, y, m->d_ff, &mlp, name), FB_NN_GELU_TANH,
                            m->dropout);
    snprintf(name, sizeof name, "encoderblock_%" PRId64 ".mlp.fc2", index);
    y = fb_model_dense(g, y, m->d_model, &mlp, name);
    return fb_graph_add(g, x, y, m->dropout);
}

static int embedding(struct fb_graph *g, const struct fb_model_encoder *m, int64_t sequences,
                     int64_t tokens)
{
    const int64_t words[2] = {m->vocabulary, m->d_model}, places[2] = {tokens, m->d_model};
    const struct fb_graph_init start = {m->learned_positions ? FB_INIT_NORMAL : FB_INIT_SINUSOID,
                                        0.02};
    const int table = fb_graph_param(g, (struct fb_graph_init){FB_INIT_NORMAL, 1.0}, true, 2, words,
                                     "embed.weight");
    const int cls = m->pooling == FB_POOL_CLS
                        ? fb_graph_param(g, (struct fb_graph_init){FB_INIT_ZERO, 0.0}, true, 1,
                                         &m->d_model, "cls")
                        : -1;
    const int positions =
        fb_graph_param(g, start, m->learned_positions, 2, places, "posembed.weight");
    return fb_graph_embedding(g, table, cls, positions, sequences, tokens, m->dropout);
}

int fb_model_encoder_build(struct fb_graph *g, const struct fb_model_encoder *m)
{
    const int64_t sequences = m->pairs ? 2 * m->batch : m->batch;
    const int64_t tokens = m->tokens + (m->pooling == FB_POOL_CLS);
    int x = embedding(g, m, sequences, tokens);
    for (int64_t i = 0; i < m->layers; i++)
        x = block(g, m, x, tokens, i);
    x = fb_model_norm(g, x, NORM_EPS, true, "encoder_norm");
    if (m->pooling == FB_POOL_MEAN)
        x = fb_graph_pool_mean(g, x, tokens);
    else if (m->layers == 0)
        x = fb_graph_pool_first(g, x, tokens);
    if (m->pairs)
        x = fb_graph_view(g, x, m->batch, 2 * m->d_model);
    x = fb_graph_activation(g, fb_model_dense(g, x, m->d_ff, &head, "head.0"), FB_NN_RELU, 0.0);
    if (m->pairs)
        x = fb_graph_activation(g, fb_model_dense(g, x, m->d_ff / 2, &head, "head.1"), FB_NN_RELU,
                                0.0);
    return fb_model_dense(g, x, m->classes, &head, "head.out");
}
