/*
 * The layers of kernels/nn on a CUDA device. Same functions, same order of arguments, device
 * pointers; everything is launched on the context's stream and returns at once. What went wrong is
 * kept in the context until fb_nn_cuda_check asks.
 *
 * Matrices are row-major and dense. Those given as void are activations or their gradients: f32, or
 * bf16 where that is the context's precision. Everything else is f32. Sums have fixed orders and no
 * atomics: two runs give the same bits. Products are cuBLASLt's, loaded at run time.
 *
 * What changes from step to step lies on the device (struct fb_nn_cuda_step), so that the launches
 * of a step can be captured once and replayed.
 */
#ifndef FB_NN_CUDA_H
#define FB_NN_CUDA_H

#include "nn_dense.h"
#include "nn_layernorm.h"
#include "nn_optimiser.h"
#include "nn_pointwise.h"
#include "nn_precision.h"
#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct fb_nn_cuda;

/* What kernels read of the step at hand. */
struct fb_nn_cuda_step {
    uint64_t dropout_seed;    /* the seeds in struct fb_nn_dropout are not read */
    int64_t segments, groups; /* of the batch's ids */
    int64_t counted;          /* rows whose target is not FB_NN_IGNORED */
    struct fb_nn_update update;
};

/* Memory that the functions below work in: floats for partial sums, the most that one of them
 * takes, and values of f32 matrices that a dense layer rounds (of its input, of its output's
 * gradient). */
struct fb_nn_cuda_room {
    int64_t sums_floats, rounded_x, rounded_dy;
};

/* Opens cuBLASLt on a stream of its own. Without CUDA or a device: FB_ERROR_DEVICE. */
enum fb_status fb_nn_cuda_open(struct fb_nn_cuda **context, enum fb_nn_precision precision,
                               const struct fb_nn_cuda_room *room,
                               struct fb_error *error) FB_MUST_CHECK;
void fb_nn_cuda_close(struct fb_nn_cuda *context); /* NULL: nothing */
void *fb_nn_cuda_stream(const struct fb_nn_cuda *context);
/* The first error since the last call; does not wait for the device. */
enum fb_status fb_nn_cuda_check(struct fb_nn_cuda *context, struct fb_error *error) FB_MUST_CHECK;
/* In the order of the stream; the caller's copy is free again when it returns. */
void fb_nn_cuda_put_step(struct fb_nn_cuda *context, const struct fb_nn_cuda_step *step);

/* Floats of workspace that column sums over [rows, width] take (dense layers), the gradients of
 * layer normalisation, and embeddings of that many ids. */
int64_t fb_nn_cuda_sums_floats(int64_t rows, int64_t width);
int64_t fb_nn_cuda_norm_floats(int64_t rows, int64_t width);
int64_t fb_nn_cuda_embedding_floats(int64_t count, int64_t vocabulary, int64_t width);

/* A dense layer's matrices that are f32 whatever the precision: the model's inputs and logits. */
struct fb_nn_cuda_dense {
    struct fb_nn_dense size;
    bool wide_x, wide_y;
};
/* w and b are rounded to bf16 where that is the precision; b is f32 beside a wide y. */
void fb_nn_cuda_dense_forward(struct fb_nn_cuda *c, const struct fb_nn_cuda_dense *d, void *y,
                              const void *x, const void *w, const void *b);
/* dx: NULL where x is an input, whose gradient nobody reads. */
void fb_nn_cuda_dense_backward(struct fb_nn_cuda *c, const struct fb_nn_cuda_dense *d, void *dx,
                               bool add_dx, float *dw, float *db, const void *dy, const void *x,
                               const void *w);
/* y = x in bf16. */
void fb_nn_cuda_round(struct fb_nn_cuda *c, void *y, const float *x, int64_t count);

/* A sum that is normalised next, in the same pass: x = a + drop(b), and backward db = drop(dx). */
struct fb_nn_cuda_residual {
    struct fb_nn_dropout dropout;
    const void *a, *b;
    void *db;
};
/* residual: NULL where x is there already, and where nothing is handed on. */
void fb_nn_cuda_layernorm_forward(struct fb_nn_cuda *c, const struct fb_nn_layernorm *n,
                                  const struct fb_nn_cuda_residual *residual, void *y, float *stats,
                                  void *x, const float *gain, const float *bias);
void fb_nn_cuda_layernorm_backward(struct fb_nn_cuda *c, const struct fb_nn_layernorm *n,
                                   const struct fb_nn_cuda_residual *residual, void *dx,
                                   bool add_dx, float *dgain, float *dbias, const void *dy,
                                   const void *x, const float *stats, const float *gain);

void fb_nn_cuda_activation_forward(struct fb_nn_cuda *c, enum fb_nn_activation kind,
                                   const struct fb_nn_dropout *dropout, void *y, const void *x,
                                   int64_t count);
void fb_nn_cuda_activation_backward(struct fb_nn_cuda *c, enum fb_nn_activation kind,
                                    const struct fb_nn_dropout *dropout, void *dx, bool add_dx,
                                    const void *dy, const void *x, int64_t count);
void fb_nn_cuda_dropout_apply(struct fb_nn_cuda *c, const struct fb_nn_dropout *dropout, void *y,
                              bool add, const void *x, int64_t count);
void fb_nn_cuda_sum_apply(struct fb_nn_cuda *c, const struct fb_nn_dropout *dropout, void *y,
                          const void *a, const void *b, int64_t count);
void fb_nn_cuda_scale_apply(struct fb_nn_cuda *c, void *y, bool add, const void *x, float scale,
                            int64_t count);
/* Rows of y [rows, width] = (or +=) rows of x, each times its factor. */
void fb_nn_cuda_mask_rows(struct fb_nn_cuda *c, void *y, bool add, const void *x,
                          const float *factors, int64_t rows, int64_t width);

/* A batch's ids, and where each of them stands: what embedding's backward sums in order. Built on
 * the host by fb_nn_cuda_tokens_sort into `index` of fb_nn_cuda_tokens_ints integers. */
struct fb_nn_cuda_tokens {
    const int32_t *ids, *index; /* on the device */
    int64_t count, vocabulary;
};
struct fb_nn_cuda_sorted {
    int64_t segments, groups;
};
int64_t fb_nn_cuda_tokens_ints(int64_t count, int64_t vocabulary);
/* Of these, the ones that are used with so many segments. */
int64_t fb_nn_cuda_tokens_used(int64_t count, int64_t vocabulary, int64_t segments);
int64_t fb_nn_cuda_segments_max(int64_t count, int64_t vocabulary);
int64_t fb_nn_cuda_groups_max(int64_t count, int64_t vocabulary);
/* counts: vocabulary integers of the caller's. */
struct fb_nn_cuda_sorted fb_nn_cuda_tokens_sort(int32_t *index, int32_t *counts, const int32_t *ids,
                                                int64_t count, int64_t vocabulary);

/* y [batch, tokens, width] = drop(rows + positions [tokens, width]): the rows of the table that the
 * ids name, and before those of each sequence, where has_first is set, the row `first`. */
struct fb_nn_cuda_embedding {
    const struct fb_nn_cuda_tokens *ids;
    struct fb_nn_dropout dropout;
    int64_t batch, tokens, width;
    bool has_first;
};
void fb_nn_cuda_embedding_forward(struct fb_nn_cuda *c, const struct fb_nn_cuda_embedding *e,
                                  void *y, const float *table, const float *first,
                                  const float *positions);
/* dfirst and dpositions: NULL where there is none, or it is not trained. */
void fb_nn_cuda_embedding_backward(struct fb_nn_cuda *c, const struct fb_nn_cuda_embedding *e,
                                   float *dtable, float *dfirst, float *dpositions, const void *dy);

/* y = drop(x + positions). */
void fb_nn_cuda_position_forward(struct fb_nn_cuda *c, const struct fb_nn_dropout *dropout, void *y,
                                 const void *x, const float *positions, int64_t batch,
                                 int64_t tokens, int64_t width);
void fb_nn_cuda_position_backward(struct fb_nn_cuda *c, float *dpositions, const void *dy,
                                  int64_t batch, int64_t tokens, int64_t width);

/* y [batch, width]: the first token of each sequence, or the mean of its tokens. */
void fb_nn_cuda_pool_first_forward(struct fb_nn_cuda *c, void *y, const void *x, int64_t batch,
                                   int64_t tokens, int64_t width);
void fb_nn_cuda_pool_first_backward(struct fb_nn_cuda *c, void *dx, bool add_dx, const void *dy,
                                    int64_t batch, int64_t tokens, int64_t width);
void fb_nn_cuda_pool_mean_forward(struct fb_nn_cuda *c, void *y, const void *x, int64_t batch,
                                  int64_t tokens, int64_t width);
void fb_nn_cuda_pool_mean_backward(struct fb_nn_cuda *c, void *dx, bool add_dx, const void *dy,
                                   int64_t batch, int64_t tokens, int64_t width);

/* What a step leaves on the device: the loss before it, the norm of the gradient before clipping.
 * Unless both are finite, the update below changes nothing. */
struct fb_nn_cuda_verdict {
    double loss, norm;
};

/* verdict->loss and dlogits, both f32. row_loss: `rows` doubles of scratch on the device. */
void fb_nn_cuda_cross_entropy(struct fb_nn_cuda *c, struct fb_nn_cuda_verdict *verdict,
                              float *dlogits, double *row_loss, const float *logits,
                              const int32_t *targets, int64_t rows, int64_t classes);
/* verdict->norm = the 2-norm of g, of whole fours that start on 16 bytes. partials:
 * fb_nn_cuda_norm_doubles of scratch on the device. */
int64_t fb_nn_cuda_norm_doubles(void);
void fb_nn_cuda_norm(struct fb_nn_cuda *c, struct fb_nn_cuda_verdict *verdict, double *partials,
                     const float *g, int64_t count);

/* Trained parameters on the device, their moments and gradients, in blocks that start on 16 bytes
 * and whose count is a multiple of 4; rounded: their bf16 copy, NULL: there is none. */
struct fb_nn_cuda_trained {
    float *theta, *m, *v;
    const float *gradient;
    const unsigned char *decay;
    void *rounded;
    int64_t count;
};
/* fb_nn_clip_norm (clip_norm > 0) and fb_nn_optimiser_step in one pass; how far is the step's. */
void fb_nn_cuda_optimiser_step(struct fb_nn_cuda *c, const struct fb_nn_optimiser *o,
                               const struct fb_nn_cuda_verdict *verdict,
                               const struct fb_nn_cuda_trained *trained, double clip_norm);

#ifdef __cplusplus
}
#endif
#endif
