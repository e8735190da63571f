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
    bool transpose_a, transpose_b, add, bias;
    bool tf32, bf16; /* operands rounded by the product, or bf16 matrices */
    bool wide_c;     /* of bf16 operands: c and bias are f32, not bf16 */
    int64_t m, n, k, lda, ldb, ldc;
};

struct fb_nn_cuda_blas;

enum fb_status fb_nn_cuda_blas_open(struct fb_nn_cuda_blas **blas, void *stream,
                                    struct fb_error *error) FB_MUST_CHECK;
void fb_nn_cuda_blas_close(struct fb_nn_cuda_blas *blas); /* NULL: nothing */
/* Launches the product; the way to compute it is chosen on the first call of its kind and kept. */
enum fb_status fb_nn_cuda_blas_multiply(struct fb_nn_cuda_blas *blas,
                                        const struct fb_nn_cuda_product *product, const void *a,
                                        const void *b, void *c, const void *bias,
                                        struct fb_error *error) FB_MUST_CHECK;

#endif
