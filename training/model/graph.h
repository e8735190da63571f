/*
 * A model as a list of operations over matrices, built once for one batch shape.
 *
 * A model file calls the builder functions in the order of the forward pass; fb_graph_finish lays
 * parameters, activations and their gradients out in three blocks and decides for every gradient
 * who writes it first. Running allocates nothing. The operations are those of kernels/nn and any
 * attention of the registry.
 *
 * Every tensor is a dense matrix [rows, width], f32 or, on a device, bf16 inside the model; inputs,
 * logits and parameters are f32. Sequences are rows batch * tokens, heads lie inside the width
 * (layout BNHD). A tensor or parameter is named by its index; builders return -1
 * after the first error, which fb_graph_finish reports, so a model file checks once.
 */
#ifndef FB_GRAPH_H
#define FB_GRAPH_H

#include "arena.h"
#include "attention.h"
#include "nn_pointwise.h"

enum { FB_GRAPH_RANK_MAX = 3, FB_GRAPH_NAME_MAX = 96 };

/* How a parameter starts. */
enum fb_graph_init_kind {
    FB_INIT_ZERO,
    FB_INIT_ONE,
    FB_INIT_NORMAL,    /* standard deviation scale */
    FB_INIT_UNIFORM,   /* within +- scale */
    FB_INIT_TRUNCATED, /* normal of standard deviation scale, cut at two of them */
    FB_INIT_SINUSOID   /* fixed position sinusoids; not trained */
};

struct fb_graph_init {
    enum fb_graph_init_kind kind;
    double scale;
};

struct fb_graph_param {
    char name[FB_GRAPH_NAME_MAX]; /* as in the official PyTorch module's state_dict */
    int rank;
    int64_t shape[FB_GRAPH_RANK_MAX];
    int64_t count, offset; /* floats, in the block of parameters */
    int follows;           /* the parameter that this one lies behind; -1: the one before it */
    struct fb_graph_init init;
    bool decay; /* weight decay applies */
};

struct fb_graph_tensor {
    int64_t rows, width;
    int64_t offset;          /* floats, in the block of activations */
    int64_t gradient_offset; /* and in that of their gradients; a sum's first input has the sum's */
    int storage;             /* the tensor whose memory this is: itself, or what it views */
    int64_t stride, column; /* values from row to row, and before this tensor's of a row: other than
                               its width and 0 where it is some columns of its storage */
    bool input;             /* filled by the caller; nobody reads its gradient */
    enum fb_dtype dtype;    /* known after fb_graph_finish */
};

/* Which attention a model uses: every mechanism and variant of the registry is one. */
struct fb_graph_attention {
    const struct fb_attention *attention;
    double params[FB_PARAMS_MAX];
    bool causal;
    bool mask_padding;       /* keys beyond the run's lengths are not seen */
    uint64_t constants_seed; /* Performer's features */
};

enum fb_graph_op_kind {
    FB_OP_EMBEDDING,
    FB_OP_POSITION,
    FB_OP_DENSE,
    FB_OP_LAYERNORM,
    FB_OP_ACTIVATION,
    FB_OP_ADD,
    FB_OP_SCALE,
    FB_OP_MASK,
    FB_OP_ATTENTION,
    FB_OP_POOL_FIRST,
    FB_OP_POOL_MEAN,
    FB_OP_COUNT
};

struct fb_graph_op {
    enum fb_graph_op_kind kind;
    int out, in[3];
    int w, b;       /* parameters, or -1; embedding: table and positions */
    int first;      /* embedding: the parameter before each sequence, or -1 */
    bool add[3];    /* whether the gradient of in[i] is added to what stands there */
    float value;    /* layernorm: epsilon; scale: factor; others that have it: dropout's p */
    int64_t tokens; /* rows of one sequence, where the operation knows sequences */
    int64_t heads;  /* attention */
    int64_t aux;    /* floats, in the auxiliary block: statistics, what attention saves */
    int64_t stream; /* of dropout: one per operation */
    enum fb_nn_activation activation;
    const struct fb_graph_attention *attention;
    void *constants; /* attention: what prepare wrote, in the arena */
};

struct fb_graph {
    struct fb_arena *arena; /* borrowed; owns the tables */
    int threads;
    enum fb_backend backend; /* FB_CPU, unless set between init and finish */
    enum fb_dtype dtype;     /* of what the model computes: FB_F32, unless set likewise */
    int64_t batch;
    struct fb_graph_tensor *tensors;
    int tensor_count;
    struct fb_graph_param *params;
    int param_count;
    struct fb_graph_op *ops;
    int op_count;
    int64_t streams; /* of dropout, handed out */
    int logits;      /* the tensor that the loss reads */
    /* known after fb_graph_finish: floats, and bytes of scratch */
    int64_t param_floats, trained_floats, activation_floats, gradient_floats, aux_floats;
    int64_t border_floats; /* of activations and gradients: inputs and logits, which come first */
    size_t scratch_bytes;
    enum fb_status status;
    struct fb_error *error; /* of the first mistake, borrowed from init to finish */
};

void fb_graph_init(struct fb_graph *graph, struct fb_arena *arena, int64_t batch, int threads,
                   struct fb_error *error);

/* Parameters and inputs. The name is printf's. */
int fb_graph_param(struct fb_graph *g, struct fb_graph_init init, bool decay, int rank,
                   const int64_t *shape, const char *format, ...) FB_PRINTF(6, 7);
int fb_graph_values(struct fb_graph *g, int64_t rows, int64_t width); /* filled by the caller */

/* Operations; each returns its output. Dropout with probability p comes with the operations that it
 * follows: a model pays no passes over memory for it. */
/* Sequences of the table's rows that the batch's ids name, before each of them the row `first`
 * unless that is -1; positions added, then dropout. tokens: of a sequence, with the first. */
int fb_graph_embedding(struct fb_graph *g, int table, int first, int positions, int64_t sequences,
                       int64_t tokens, double p);
int fb_graph_position(struct fb_graph *g, int in, int table, int64_t tokens, double p);
int fb_graph_dense(struct fb_graph *g, int in, int w, int b);
/* Several of them on one input, as one product: each has its weight and bias (or all have none), of
 * the same shape. out [count]: the results, columns of one matrix, which attention alone reads. */
void fb_graph_dense_joined(struct fb_graph *g, int in, int count, const int *w, const int *b,
                           int *out);
int fb_graph_layernorm(struct fb_graph *g, int in, int gain, int bias, double eps);
int fb_graph_activation(struct fb_graph *g, int in, enum fb_nn_activation kind, double p);
int fb_graph_add(struct fb_graph *g, int a, int b, double p); /* a + drop(b) */
int fb_graph_scale(struct fb_graph *g, int in, double factor);
int fb_graph_mask(struct fb_graph *g, int in); /* rows times the batch's row_mask */
/* tokens is the rows of k and v in one sequence; q may have fewer. */
int fb_graph_attention(struct fb_graph *g, const struct fb_graph_attention *attention, int q, int k,
                       int v, int64_t heads, int64_t tokens);
int fb_graph_pool_first(struct fb_graph *g, int in, int64_t tokens);
int fb_graph_pool_mean(struct fb_graph *g, int in, int64_t tokens);
int fb_graph_view(struct fb_graph *g, int in, int64_t rows, int64_t width); /* the same memory */

/* Lays everything out; refuses what an operation cannot do. */
enum fb_status fb_graph_finish(struct fb_graph *g, int logits) FB_MUST_CHECK;

/* Draws every parameter: the values depend on seed and name order alone. */
void fb_graph_draw_params(const struct fb_graph *g, float *params, uint64_t seed);
/* Index of the parameter of this name, or -1. */
int fb_graph_param_find(const struct fb_graph *g, const char *name);

#endif
