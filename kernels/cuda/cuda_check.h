/* Turning CUDA's return codes into statuses. Sources of this build only. */
#ifndef FB_CUDA_CHECK_H
#define FB_CUDA_CHECK_H

#include "status.h"

#include <cuda_runtime_api.h>

/* FB_OK, or the error with what was attempted; out of memory is FB_ERROR_MEMORY, anything else
 * FB_ERROR_DEVICE. */
static inline enum fb_status fb_cuda_status(cudaError_t code, const char *what,
                                            struct fb_error *error)
{
    if (code == cudaSuccess)
        return FB_OK;
    return fb_error_set(
        error, code == cudaErrorMemoryAllocation ? FB_ERROR_MEMORY : FB_ERROR_DEVICE,
        "CUDA: %s: %s (%s)", what, cudaGetErrorString(code), cudaGetErrorName(code));
}

/* After a launch: what the launch itself has done wrong. */
static inline enum fb_status fb_cuda_launched(const char *kernel, struct fb_error *error)
{
    return fb_cuda_status(cudaGetLastError(), kernel, error);
}

#endif
