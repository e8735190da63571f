/*
 * Rows of a table, by token, and positions added to them. Dense f32; the caller owns all buffers.
 */
#ifndef FB_NN_EMBEDDING_H
#define FB_NN_EMBEDDING_H

#include <stdint.h>

/* y [count, width] = table [vocabulary, width] at ids [count]; ids are in range. */
void fb_nn_embedding_forward(float *y, const float *table, const int32_t *ids, int64_t count,
                             int64_t width, int threads);
/* dtable += , in the order of the tokens: sequential over them, parallel over columns. */
void fb_nn_embedding_backward(float *dtable, const float *dy, const int32_t *ids, int64_t count,
                              int64_t width, int threads);

/* y [batch, tokens, width] = x + positions [tokens, width]. */
void fb_nn_position_forward(float *y, const float *x, const float *positions, int64_t batch,
                            int64_t tokens, int64_t width);
/* dpositions += the sum of dy over the batch. */
void fb_nn_position_backward(float *dpositions, const float *dy, int64_t batch, int64_t tokens,
                             int64_t width);

/* Sinusoids [tokens, width] (Vaswani et al. 2017, section 3.5, with sine and cosine interleaved):
 * table[p, 2i] = sin(p w_i), table[p, 2i+1] = cos(p w_i), w_i = 10000^(-2i / width). */
void fb_nn_position_sinusoid(float *table, int64_t tokens, int64_t width);

#endif
