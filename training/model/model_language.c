/* The decoder language model: see models.h. */
#include "model_parts.h"
#include "models.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define NORM_EPS 1e-5

/* Weight decay on the dense layers' weights alone. */
static const struct fb_dense_options linear = {.start = FB_DENSE_GPT, .bias = true, .rank = 2};

/* x += attention(norm(x)); x += W2 gelu(W1 norm(x)), each behind dropout. */
static int block(struct fb_graph *g, const struct fb_model_language *m, int x, int64_t index)
{
    char name[FB_GRAPH_NAME_MAX];
    const struct fb_attention_block attention = {m->attention, m->heads, m->tokens,
                                                 m->d_model,   linear,   false};
    struct fb_dense_options last = linear;
    last.scale = 0.02 / sqrt(2.0 * (double)m->layers);
    snprintf(name, sizeof name, "transformer.h.%" PRId64 ".ln_1", index);
    int y = fb_model_norm(g, x, NORM_EPS, false, name);
    snprintf(name, sizeof name, "transformer.h.%" PRId64 ".attn", index);
    y = fb_model_attention(g, y, &attention, name);
    x = fb_graph_add(g, x, y, m->dropout);
    snprintf(name, sizeof name, "transformer.h.%" PRId64 ".ln_2", index);
    y = fb_model_norm(g, x, NORM_EPS, false, name);
    snprintf(name, sizeof name, "transformer.h.%" PRId64 ".mlp.c_fc", index);
    y = fb_graph_activation(g, fb_model_dense(g, y, 4 * m->d_model, &linear, name), FB_NN_GELU_TANH,
                            0.0);
    snprintf(name, sizeof name, "transformer.h.%" PRId64 ".mlp.c_proj", index);
    y = fb_model_dense(g, y, m->d_model, &last, name);
    return fb_graph_add(g, x, y, m->dropout);
}

int fb_model_language_build(struct fb_graph *g, const struct fb_model_language *m)
{
    const struct fb_graph_init normal = {FB_INIT_NORMAL, 0.02};
    const int64_t words[2] = {m->vocabulary, m->d_model}, places[2] = {m->tokens, m->d_model};
    struct fb_dense_options head = linear;
    head.bias = false;
    const int wte = fb_graph_param(g, normal, false, 2, words, "transformer.wte.weight");
    const int wpe = fb_graph_param(g, normal, false, 2, places, "transformer.wpe.weight");
    int x = fb_graph_embedding(g, wte, -1, wpe, m->batch, m->tokens, m->dropout);
    for (int64_t i = 0; i < m->layers; i++)
        x = block(g, m, x, i);
    x = fb_model_norm(g, x, NORM_EPS, false, "transformer.ln_f");
    return fb_model_dense(g, x, m->vocabulary, &head, "lm_head");
}
