/* What launchers share: shared memory beyond the default, lengths of a padded batch. */
#ifndef FB_CUDA_LAUNCH_CUH
#define FB_CUDA_LAUNCH_CUH

#include "attention.h"
#include "cuda_check.h"

/* Allows the kernel its dynamic shared memory; says what is lacking. */
static inline enum fb_status fb_cuda_allow_shared(const void *kernel, size_t bytes,
                                                  const char *name, struct fb_error *error)
{
    int most = 0;
    enum fb_status status = fb_cuda_status(
        cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), name, error);
    if (status == FB_OK && bytes > (size_t)most)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "%s needs %zu bytes of shared memory per block for these head "
                            "dimensions, this GPU has %d",
                            name, bytes, most);
    if (status == FB_OK)
        status = fb_cuda_status(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
            name, error);
    return status;
}

/* wgmma is Hopper's alone. */
static inline bool fb_cuda_is_hopper()
{
    int major = 0;
    return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess &&
           major == 9;
}

/* Writes the lengths of the batch, which the host holds, to the device: [2][batch], of queries and
 * of keys. See cuda_lengths.cu. */
enum fb_status fb_cuda_put_lengths(const struct fb_problem *problem, int32_t *lengths,
                                   cudaStream_t stream, struct fb_error *error);

#endif
