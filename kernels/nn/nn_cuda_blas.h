/* The few functions of cuBLASLt that dense layers need, loaded at run time. */
#ifndef FB_NN_CUDA_BLAS_H
#define FB_NN_CUDA_BLAS_H

#include "status.h"

#include <stdbool.h>
#include <stdint.h>

/* Of column-major matrices: c [m, n] (+)= op(a) op(b), k the inner extent; leading dimensions are
 * those of the stored matrices. bias [m] is added to every column. Pointers are aligned to 16
 * bytes. */
struct fb_nn_cuda_product {
    bool transpose_a, transpose_b, add, bias, tf32;
    int64_t m, n, k, lda, ldb, ldc;
};

struct fb_nn_cuda_blas;

enum fb_status fb_nn_cuda_blas_open(struct fb_nn_cuda_blas **blas, void *stream,
                                    struct fb_error *error) FB_MUST_CHECK;
void fb_nn_cuda_blas_close(struct fb_nn_cuda_blas *blas); /* NULL: nothing */
/* Launches the product; the way to compute it is chosen on the first call of its kind and kept. */
enum fb_status fb_nn_cuda_blas_multiply(struct fb_nn_cuda_blas *blas,
                                        const struct fb_nn_cuda_product *product, const float *a,
                                        const float *b, float *c, const float *bias,
                                        struct fb_error *error) FB_MUST_CHECK;

#endif
