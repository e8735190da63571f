/* Products of the rows of two tensors. */
#ifndef FB_CUDA_ROWS_CUH
#define FB_CUDA_ROWS_CUH

#include "attention.h"

#include <cuda_runtime_api.h>

/* products[b][h][i] = the product of row i of x and row i of y, which have one shape. */
enum fb_status fb_cuda_row_products(const struct fb_tensor *x, const struct fb_tensor *y,
                                    float *products, cudaStream_t stream, struct fb_error *error);

#endif
