/* Between the sources of nn's device layers. */
#ifndef FB_NN_CUDA_PRIVATE_H
#define FB_NN_CUDA_PRIVATE_H

#include "nn_cuda.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The first failure of the context stands until fb_nn_cuda_check. */
void fb_nn_cuda_note(struct fb_nn_cuda *c, cudaError_t code, const char *what);
/* The workspace for partial sums; NULL, and an error noted, when it has fewer floats. */
float *fb_nn_cuda_partials(struct fb_nn_cuda *c, int64_t floats);
/* Whether activations are bf16. */
bool fb_nn_cuda_is_narrow(const struct fb_nn_cuda *c);
/* The facts of the step, on the device. */
const struct fb_nn_cuda_step *fb_nn_cuda_step_there(const struct fb_nn_cuda *c);

/* sums [width] += the rows of x [rows, width]. */
void fb_nn_cuda_columns_add(struct fb_nn_cuda *c, float *sums, const void *x, bool wide,
                            int64_t rows, int64_t width);
/* The `slices` rows of partial sums [width] are added up in order, and to the sums: those of the
 * columns before `split` to first, the others to second. */
void fb_nn_cuda_slices_add(struct fb_nn_cuda *c, float *first, float *second, int64_t split,
                           const float *partials, int64_t width, int64_t slices);

#ifdef __cplusplus
}
#endif
#endif
