/* OpenBLAS thread control; see blas.h. */
#include "blas.h"

#include <cblas.h>

int fb_blas_threads_begin(void)
{
    const int previous = openblas_get_num_threads();
    if (previous != 1) {
        openblas_set_num_threads(1);
    }
    return previous;
}

void fb_blas_threads_end(int previous)
{
    if (previous != 1) {
        openblas_set_num_threads(previous);
    }
}
