/*
 * The model families of the Flowformer paper's tasks, built from kernels/nn and any attention.
 * Parameters have the names, shapes and initial distributions of the official PyTorch modules (the
 * long-range encoder: of the official JAX model), so checkpoints map one to one.
 *
 * Every builder adds a whole model to an initialised graph and returns the tensor of its logits, or
 * -1 with the graph's error set. See graph.h.
 */
#ifndef FB_MODELS_H
#define FB_MODELS_H

#include "graph.h"

/* Time-series classifier (the paper's UEA experiments): dense * sqrt(d) + learned positions,
 * post-norm encoder layers with GELU (erf), final norm, GELU, dropout, padding masked, flattened,
 * dense to the classes. Input: fb_graph_values [batch * tokens, features]; row_mask marks the real
 * steps. Logits [batch, classes]. */
struct fb_model_series {
    int64_t batch, tokens, features, classes;
    int64_t d_model, heads, d_ff, layers;
    double dropout;
    const struct fb_graph_attention *attention;
};
int fb_model_series_build(struct fb_graph *g, const struct fb_model_series *m, int *input);

/* Decoder language model (the released torch module, after minGPT): token and learned position
 * embeddings, pre-norm blocks with GELU (tanh), untied head without bias. The attention must be
 * causal. Ids: batch * tokens. Logits [batch * tokens, vocabulary]. */
struct fb_model_language {
    int64_t batch, tokens, vocabulary;
    int64_t d_model, heads, layers;
    double dropout;
    const struct fb_graph_attention *attention;
};
int fb_model_language_build(struct fb_graph *g, const struct fb_model_language *m);

enum fb_model_pooling { FB_POOL_CLS, FB_POOL_FIRST, FB_POOL_MEAN };

/* Encoder classifier of the long-range tasks: embedding, optional CLS token, sinusoid or learned
 * positions, pre-norm blocks (attention without biases, qkv_dim of its own, MLP with GELU by tanh),
 * final norm, pooling, a hidden layer with ReLU, dense to the classes. With `pairs` the batch holds
 * the two documents of an example next to each other (2 batch sequences) and one shared encoder
 * reads both; the head sees their features side by side and has a second hidden layer of mlp / 2.
 * Ids: sequences * tokens. Logits [batch, classes]. */
struct fb_model_encoder {
    int64_t batch, tokens, vocabulary, classes;
    int64_t d_model, qkv_dim, d_ff, heads, layers;
    enum fb_model_pooling pooling;
    bool learned_positions, pairs;
    double dropout;
    const struct fb_graph_attention *attention;
};
int fb_model_encoder_build(struct fb_graph *g, const struct fb_model_encoder *m);

#endif
