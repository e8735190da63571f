/*
 * Element-wise layers, forward and backward: activations, dropout, sums. Dense f32 arrays of
 * `count` values, owned by the caller; outputs may be the inputs. Results do not depend on threads.
 */
#ifndef FB_NN_POINTWISE_H
#define FB_NN_POINTWISE_H

#include <stdbool.h>
#include <stdint.h>

enum fb_nn_activation {
    FB_NN_RELU,
    FB_NN_GELU_ERF,  /* x Phi(x), Hendrycks and Gimpel 2016 */
    FB_NN_GELU_TANH, /* their approximation by tanh, as JAX and GPT-2 compute it */
    FB_NN_ACTIVATION_COUNT
};

/* Dropout: each value is kept with probability 1 - p and scaled by 1 / (1 - p). Which are kept is
 * a function of (seed, stream, index) alone, so backward draws the same again. p in [0, 1). */
struct fb_nn_dropout {
    float p;
    uint64_t seed, stream;
};
void fb_nn_dropout_apply(const struct fb_nn_dropout *dropout, float *y, bool add, const float *x,
                         int64_t count, int threads);

/* y = drop(f(x)). */
void fb_nn_activation_forward(enum fb_nn_activation kind, const struct fb_nn_dropout *dropout,
                              float *y, const float *x, int64_t count, int threads);
/* dx = f'(x) drop(dy), or dx += . */
void fb_nn_activation_backward(enum fb_nn_activation kind, const struct fb_nn_dropout *dropout,
                               float *dx, bool add_dx, const float *dy, const float *x,
                               int64_t count, int threads);

/* y = a + drop(b). */
void fb_nn_sum_apply(const struct fb_nn_dropout *dropout, float *y, const float *a, const float *b,
                     int64_t count, int threads);

/* y = scale x, or y += scale x. */
void fb_nn_scale_apply(float *y, bool add, const float *x, float scale, int64_t count, int threads);

#endif
