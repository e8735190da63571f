/*
 * Dense layers: y = x wᵀ + b, with the weight as PyTorch's nn.Linear stores it.
 *
 * Symbols: n rows (tokens of all sequences), in, out. All matrices are row-major and dense f32; the
 * caller owns them. Work is cut by the problem, never by the number of threads, so results do not
 * depend on it. Products are OpenBLAS's, one thread each.
 */
#ifndef FB_NN_DENSE_H
#define FB_NN_DENSE_H

#include <stdbool.h>
#include <stdint.h>

struct fb_nn_dense {
    int64_t rows, in, out;
};

/* y [rows, out] = x [rows, in] wᵀ + b; w [out, in]; b [out] or NULL. */
void fb_nn_dense_forward(const struct fb_nn_dense *d, float *y, const float *x, const float *w,
                         const float *b, int threads);

/* dx [rows, in] = dy w, or dx += dy w where add_dx; NULL where nobody asks.
 * dw [out, in] += dyᵀ x, and db [out] += the sum of dy's rows; db may be NULL. */
void fb_nn_dense_backward(const struct fb_nn_dense *d, float *dx, bool add_dx, float *dw, float *db,
                          const float *dy, const float *x, const float *w, int threads);

#endif
