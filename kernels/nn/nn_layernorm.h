/*
 * Layer normalisation over the last axis (Ba, Kiros and Hinton 2016):
 *   y = (x - mean) / sqrt(var + eps) * gain + bias, with the biased variance of each row.
 * Dense f32 matrices [rows, width], owned by the caller; results do not depend on threads.
 */
#ifndef FB_NN_LAYERNORM_H
#define FB_NN_LAYERNORM_H

#include <stdbool.h>
#include <stdint.h>

struct fb_nn_layernorm {
    int64_t rows, width;
    float eps;
};

/* stats [rows, 2] gets each row's mean and 1 / sqrt(var + eps), for backward. */
void fb_nn_layernorm_forward(const struct fb_nn_layernorm *n, float *y, float *stats,
                             const float *x, const float *gain, const float *bias, int threads);

/* dx = (or += where add_dx); dgain and dbias += . */
void fb_nn_layernorm_backward(const struct fb_nn_layernorm *n, float *dx, bool add_dx, float *dgain,
                              float *dbias, const float *dy, const float *x, const float *stats,
                              const float *gain, int threads);

#endif
