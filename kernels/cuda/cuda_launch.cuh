/* What launchers share: shared memory beyond the default, clusters, lengths of a padded batch. */
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

/* How kernels that run in clusters are launched: clusters of `blocks` blocks, one for each head. */
struct cluster_launch {
    const char *name; /* what errors call it */
    int blocks, threads;
    int64_t heads;
    size_t shared_bytes;
    bool most_shared;   /* all memory of a multiprocessor that can be shared is: kernels that follow
                           one another with other shares wait until it is idle */
    bool early = false; /* blocks may start while the kernel before ends, and wait for it */
    void *stream;
};

/* The launch as CUDA wants it, which keeps pointers into this. */
struct cluster_config {
    cudaLaunchAttribute attributes[2];
    cudaLaunchConfig_t config;

    explicit cluster_config(const cluster_launch &launch) : attributes{}, config{}
    {
        attributes[0].id = cudaLaunchAttributeClusterDimension;
        attributes[0].val.clusterDim.x = (unsigned)launch.blocks;
        attributes[0].val.clusterDim.y = 1;
        attributes[0].val.clusterDim.z = 1;
        attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[1].val.programmaticStreamSerializationAllowed = 1;
        config.gridDim = dim3((unsigned)launch.blocks, (unsigned)launch.heads);
        config.blockDim = dim3((unsigned)launch.threads);
        config.dynamicSmemBytes = launch.shared_bytes;
        config.stream = (cudaStream_t)launch.stream;
        config.attrs = attributes;
        config.numAttrs = launch.early ? 2 : 1;
    }
    cluster_config(const cluster_config &) = delete;
    cluster_config &operator=(const cluster_config &) = delete;
};

/* What the kernel has to be allowed before. */
enum fb_status fb_cuda_allow_clusters(const cluster_launch &launch, const void *kernel,
                                      struct fb_error *error);

/* How many of these clusters the device runs at once, which also depends on how many
 * multiprocessors lie together; 0: they do not fit. Without clusters (no `blocks`) how many blocks.
 * Asked once for each kernel and shape; makes a context. */
int fb_cuda_at_once(const cluster_launch &launch, const void *kernel);

template <typename Arguments>
enum fb_status fb_cuda_launch_clusters(const cluster_launch &launch, void (*kernel)(Arguments),
                                       const Arguments &arguments, struct fb_error *error)
{
    const enum fb_status status = fb_cuda_allow_clusters(launch, (const void *)kernel, error);
    if (status != FB_OK)
        return status;
    const cluster_config of(launch);
    return fb_cuda_status(cudaLaunchKernelEx(&of.config, kernel, arguments), launch.name, error);
}

/* Writes the lengths of the batch, which the host holds, to the device: [2][batch], of queries and
 * of keys. See cuda_lengths.cu. */
enum fb_status fb_cuda_put_lengths(const struct fb_problem *problem, int32_t *lengths,
                                   cudaStream_t stream, struct fb_error *error);

#endif
