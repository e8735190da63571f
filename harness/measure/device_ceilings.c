/* The GPU's ceilings: the best matrix product of a dtype, and a large copy. See measure.h. */
#include "cuda_device.h"
#include "measure.h"

#include <math.h>
#include <stdio.h>

enum fb_status fb_measure_device_ceilings(enum fb_dtype dtype, struct fb_measure_ceilings *ceilings,
                                          struct fb_error *error)
{
    const double time_s = 0.15;
    struct fb_cuda_timer *timer = NULL;
    *ceilings = (struct fb_measure_ceilings){
        .threads = 1, .gemm_flop_per_s = (double)NAN, .copy_bytes_per_s = (double)NAN};
    snprintf(ceilings->gemm_core, sizeof ceilings->gemm_core, "cuBLAS %s", fb_dtype_name(dtype));
    enum fb_status status = fb_cuda_timer_new(&timer, error);
    if (status == FB_OK)
        status = fb_cuda_copy_rate(timer, &ceilings->copy_bytes_per_s, error);
    if (status == FB_OK)
        status = fb_cuda_gemm_rate(timer, dtype, time_s, &ceilings->gemm_flop_per_s,
                                   ceilings->gemm_shape, sizeof ceilings->gemm_shape, error);
    fb_cuda_timer_destroy(timer);
    return status;
}
