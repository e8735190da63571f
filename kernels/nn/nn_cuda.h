/*
 * The layers of kernels/nn on a CUDA device. Same functions, same order of arguments, device
 * pointers; everything is launched on the context's stream and returns at once. What went wrong is
 * kept in the context until fb_nn_cuda_check asks.
 *
 * Matrices are row-major dense f32. Sums have fixed orders and no atomics: two runs give the same
 * bits. Products are cuBLASLt's, loaded at run time.
 */
#ifndef FB_NN_CUDA_H
#define FB_NN_CUDA_H

#include "nn_dense.h"
#include "nn_layernorm.h"
#include "nn_optimiser.h"
#include "nn_pointwise.h"
#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How products of f32 matrices are computed on the device; everything else is f32. */
enum fb_nn_precision {
    FB_NN_PRODUCT_F32,
    FB_NN_PRODUCT_TF32, /* operands rounded to 10 bits of fraction, sums in f32 */
    FB_NN_PRECISION_COUNT
};

struct fb_nn_cuda;

/* Opens cuBLASLt on a stream of its own. workspace_floats: for the partial sums of the functions
 * below, the largest that one of them takes. Without CUDA or a device: FB_ERROR_DEVICE. */
enum fb_status fb_nn_cuda_open(struct fb_nn_cuda **context, enum fb_nn_precision precision,
                               int64_t workspace_floats, struct fb_error *error) FB_MUST_CHECK;
void fb_nn_cuda_close(struct fb_nn_cuda *context); /* NULL: nothing */
void *fb_nn_cuda_stream(const struct fb_nn_cuda *context);
/* The first error since the last call; does not wait for the device. */
enum fb_status fb_nn_cuda_check(struct fb_nn_cuda *context, struct fb_error *error) FB_MUST_CHECK;

/* Floats of workspace that column sums over [rows, width] take (dense layers), the gradients of
 * layer normalisation, and embeddings of that many ids. */
int64_t fb_nn_cuda_sums_floats(int64_t rows, int64_t width);
int64_t fb_nn_cuda_norm_floats(int64_t rows, int64_t width);
int64_t fb_nn_cuda_embedding_floats(int64_t count, int64_t vocabulary, int64_t width);

void fb_nn_cuda_dense_forward(struct fb_nn_cuda *c, const struct fb_nn_dense *d, float *y,
                              const float *x, const float *w, const float *b);
void fb_nn_cuda_dense_backward(struct fb_nn_cuda *c, const struct fb_nn_dense *d, float *dx,
                               bool add_dx, float *dw, float *db, const float *dy, const float *x,
                               const float *w);

void fb_nn_cuda_layernorm_forward(struct fb_nn_cuda *c, const struct fb_nn_layernorm *n, float *y,
                                  float *stats, const float *x, const float *gain,
                                  const float *bias);
void fb_nn_cuda_layernorm_backward(struct fb_nn_cuda *c, const struct fb_nn_layernorm *n, float *dx,
                                   bool add_dx, float *dgain, float *dbias, const float *dy,
                                   const float *x, const float *stats, const float *gain);

void fb_nn_cuda_activation_forward(struct fb_nn_cuda *c, enum fb_nn_activation kind,
                                   const struct fb_nn_dropout *dropout, float *y, const float *x,
                                   int64_t count);
void fb_nn_cuda_activation_backward(struct fb_nn_cuda *c, enum fb_nn_activation kind,
                                    const struct fb_nn_dropout *dropout, float *dx, bool add_dx,
                                    const float *dy, const float *x, int64_t count);
void fb_nn_cuda_dropout_apply(struct fb_nn_cuda *c, const struct fb_nn_dropout *dropout, float *y,
                              bool add, const float *x, int64_t count);
void fb_nn_cuda_sum_apply(struct fb_nn_cuda *c, const struct fb_nn_dropout *dropout, float *y,
                          const float *a, const float *b, int64_t count);
void fb_nn_cuda_scale_apply(struct fb_nn_cuda *c, float *y, bool add, const float *x, float scale,
                            int64_t count);
/* Rows of y [rows, width] = (or +=) rows of x, each times its factor. */
void fb_nn_cuda_mask_rows(struct fb_nn_cuda *c, float *y, bool add, const float *x,
                          const float *factors, int64_t rows, int64_t width);

/* A batch's ids, and where each of them stands: what embedding's backward sums in order. Built on
 * the host by fb_nn_cuda_tokens_sort into `index` of fb_nn_cuda_tokens_ints(count) integers. */
struct fb_nn_cuda_tokens {
    const int32_t *ids, *index; /* on the device */
    int64_t count, segments;
};
int64_t fb_nn_cuda_tokens_ints(int64_t count);
/* Of these, the ones that are used with so many segments. */
int64_t fb_nn_cuda_tokens_used(int64_t count, int64_t segments);
/* Returns the number of segments. counts: vocabulary integers of the caller's. */
int64_t fb_nn_cuda_tokens_sort(int32_t *index, int32_t *counts, const int32_t *ids, int64_t count,
                               int64_t vocabulary);
void fb_nn_cuda_embedding_forward(struct fb_nn_cuda *c, float *y, const float *table,
                                  const struct fb_nn_cuda_tokens *tokens, int64_t width);
void fb_nn_cuda_embedding_backward(struct fb_nn_cuda *c, float *dtable, const float *dy,
                                   const struct fb_nn_cuda_tokens *tokens, int64_t width);

/* y = drop(x + positions). */
void fb_nn_cuda_position_forward(struct fb_nn_cuda *c, const struct fb_nn_dropout *dropout,
                                 float *y, const float *x, const float *positions, int64_t batch,
                                 int64_t tokens, int64_t width);
void fb_nn_cuda_position_backward(struct fb_nn_cuda *c, float *dpositions, const float *dy,
                                  int64_t batch, int64_t tokens, int64_t width);

/* y [batch, tokens + 1, width] = row [width] before the tokens of x [batch, tokens, width]. */
void fb_nn_cuda_prepend_forward(struct fb_nn_cuda *c, float *y, const float *x, const float *row,
                                int64_t batch, int64_t tokens, int64_t width);
void fb_nn_cuda_prepend_backward(struct fb_nn_cuda *c, float *dx, bool add_dx, float *drow,
                                 const float *dy, int64_t batch, int64_t tokens, int64_t width);
/* y [batch, width]: the first token of each sequence, or the mean of its tokens. */
void fb_nn_cuda_pool_first_forward(struct fb_nn_cuda *c, float *y, const float *x, int64_t batch,
                                   int64_t tokens, int64_t width);
void fb_nn_cuda_pool_first_backward(struct fb_nn_cuda *c, float *dx, bool add_dx, const float *dy,
                                    int64_t batch, int64_t tokens, int64_t width);
void fb_nn_cuda_pool_mean_forward(struct fb_nn_cuda *c, float *y, const float *x, int64_t batch,
                                  int64_t tokens, int64_t width);
void fb_nn_cuda_pool_mean_backward(struct fb_nn_cuda *c, float *dx, bool add_dx, const float *dy,
                                   int64_t batch, int64_t tokens, int64_t width);

/* What a step leaves on the device: the loss before it, the norm of the gradient before clipping.
 * Unless both are finite, the update below changes nothing. */
struct fb_nn_cuda_verdict {
    double loss, norm;
};

/* verdict->loss and dlogits; counted: rows whose target is not FB_NN_IGNORED (known to the host).
 * row_loss: `rows` doubles of scratch on the device. */
void fb_nn_cuda_cross_entropy(struct fb_nn_cuda *c, struct fb_nn_cuda_verdict *verdict,
                              float *dlogits, double *row_loss, const float *logits,
                              const int32_t *targets, int64_t rows, int64_t classes,
                              int64_t counted);
/* verdict->norm = the 2-norm of g. partials: fb_nn_cuda_norm_doubles of scratch on the device. */
int64_t fb_nn_cuda_norm_doubles(void);
void fb_nn_cuda_norm(struct fb_nn_cuda *c, struct fb_nn_cuda_verdict *verdict, double *partials,
                     const float *g, int64_t count);
/* fb_nn_clip_norm (most > 0) and fb_nn_optimiser_step in one pass over parameters on the device. */
void fb_nn_cuda_optimiser_step(struct fb_nn_cuda *c, const struct fb_nn_optimiser *o,
                               const struct fb_nn_cuda_verdict *verdict, float *theta, float *m,
                               float *v, const float *g, const unsigned char *decay, int64_t count,
                               int64_t t, double lr, double clip_norm);

#ifdef __cplusplus
}
#endif
#endif
