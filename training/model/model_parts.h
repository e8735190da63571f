/* What several models are made of: weights with their usual starts, projections around attention.
 */
#ifndef FB_MODEL_PARTS_H
#define FB_MODEL_PARTS_H

#include "graph.h"

/* How the dense layers of a model start. */
enum fb_dense_start {
    FB_DENSE_TORCH,  /* nn.Linear: weight and bias uniform within 1 / sqrt(fan_in) */
    FB_DENSE_GPT,    /* normal of 0.02, bias 0 */
    FB_DENSE_XAVIER, /* uniform within sqrt(6 / (fan_in + fan_out)), bias normal of 1e-6 */
    FB_DENSE_LECUN   /* truncated normal of variance 1 / fan_in, bias 0 */
};

struct fb_dense_options {
    enum fb_dense_start start;
    bool bias, decay_all; /* decay_all: biases decay, too */
    double scale;         /* FB_DENSE_GPT only: instead of 0.02 unless 0 */
    int rank;             /* 3: the weight of a 1 x 1 convolution, [out, in, 1] */
};

/* A dense layer with parameters NAME.weight and NAME.bias. */
int fb_model_dense(struct fb_graph *g, int in, int64_t width, const struct fb_dense_options *o,
                   const char *name);
/* A norm with parameters NAME.weight and NAME.bias. */
int fb_model_norm(struct fb_graph *g, int in, double eps, bool decay, const char *name);

/* Projections, attention and output projection: NAME.query_projection, key_, value_, out_.
 * first_only: only the first row of every sequence is wanted; the output has one row for each. */
struct fb_attention_block {
    const struct fb_graph_attention *attention;
    int64_t heads, tokens, qkv_dim;
    struct fb_dense_options dense;
    bool first_only;
};
int fb_model_attention(struct fb_graph *g, int in, const struct fb_attention_block *block,
                       const char *name);

#endif
