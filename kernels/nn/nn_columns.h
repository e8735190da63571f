/* Sums over rows, column by column, in the order of the rows whatever the number of threads. */
#ifndef FB_NN_COLUMNS_H
#define FB_NN_COLUMNS_H

#include <stdint.h>

enum { FB_NN_COLUMNS_TASK = 32 }; /* columns that one task sums */

/* sums [width] += the rows of x [rows, width], added up in f64. */
void fb_nn_columns_add(float *sums, const float *x, int64_t rows, int64_t width, int threads);

#endif
