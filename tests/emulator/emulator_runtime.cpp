/*
 * The functions of the CUDA runtime that the project calls, for one device of Hopper's kind whose
 * memory is the host's. Streams do at once what they are asked for.
 */
#include "emulator.h"

#include <cuda.h>

#include <mutex>
#include <stdlib.h>
#include <string.h>
#include <time.h>

namespace emulator
{

constexpr int kMultiprocessors = 132;

static std::mutex lock;
static thread_local cudaError_t last_error = cudaSuccess;

cudaError_t set_last_error(cudaError_t code)
{
    if (code != cudaSuccess)
        last_error = code;
    return code;
}

/* ---- launches: what the driver would refuse ---- */

struct Allowed {
    size_t dynamic_bytes = 48 * 1024;
    bool large_clusters = false;
};

static std::map<const void *, Allowed> allowed;

static Allowed allowed_for(const void *kernel)
{
    const std::lock_guard<std::mutex> guard(lock);
    const auto found = allowed.find(kernel);
    return found != allowed.end() ? found->second : Allowed{};
}

cudaError_t check_launch(const Launch &x)
{
    const Allowed may = allowed_for(x.kernel);
    const size_t blocks = (size_t)x.grid.x * x.grid.y * x.grid.z;
    if (blocks == 0 || x.grid.y > 65535 || x.grid.z > 65535 || x.block.x == 0 || x.block.x > 1024 ||
        x.cluster == 0 || x.cluster > 16 || x.grid.x % x.cluster != 0)
        return cudaErrorInvalidConfiguration;
    if (x.dynamic_bytes > may.dynamic_bytes || (x.cluster > 8 && !may.large_clusters))
        return cudaErrorInvalidValue;
    if (x.block.y != 1 || x.block.z != 1) {
        fprintf(stderr, "emulator: blocks of more than one dimension are not emulated\n");
        return cudaErrorNotSupported;
    }
    if (x.cooperative &&
        blocks > (size_t)(kMultiprocessors * blocks_at_once((int)x.block.x, x.dynamic_bytes)))
        return cudaErrorCooperativeLaunchTooLarge;
    return cudaSuccess;
}

/* An H100's 132 multiprocessors lie in groups, and a cluster in one of them. */
static int clusters_at_once(int blocks, int on_each)
{
    static const int groups[] = {16, 16, 16, 16, 16, 16, 18, 18};
    int count = 0;
    for (const int multiprocessors : groups)
        count += multiprocessors * on_each / blocks;
    return count;
}

static double now_ms()
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static CUresult encode_tensor_map(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
                                  void *data, const cuuint64_t *sizes, const cuuint64_t *strides,
                                  const cuuint32_t *box, const cuuint32_t *steps,
                                  CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                  CUtensorMapL2promotion, CUtensorMapFloatOOBfill)
{
    TensorMap m = {kTensorMapMark, static_cast<char *>(data), {}, {}, {}};
    if ((uintptr_t)data % 16 != 0 || rank != 4)
        return CUDA_ERROR_INVALID_VALUE;
    for (cuuint32_t i = 0; i < rank; i++) {
        m.sizes[i] = sizes[i];
        m.box[i] = box[i];
        if (sizes[i] == 0 || box[i] == 0 || box[i] > 256 || steps[i] != 1)
            return CUDA_ERROR_INVALID_VALUE;
    }
    for (cuuint32_t i = 0; i + 1 < rank; i++) {
        m.strides[i] = strides[i];
        if (strides[i] % 16 != 0)
            return CUDA_ERROR_INVALID_VALUE;
    }
    if (type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
        swizzle != CU_TENSOR_MAP_SWIZZLE_128B || box[0] != 64 || sizes[0] != 64 || box[2] != 1 ||
        box[3] != 1) {
        fprintf(stderr, "emulator: tensor maps are of rows of 64 numbers of 16 bits\n");
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    memcpy(map, &m, sizeof m);
    return CUDA_SUCCESS;
}

static cudaError_t find_driver_function(const char *name, void **function,
                                        cudaDriverEntryPointQueryResult *result)
{
    const bool known = strcmp(name, "cuTensorMapEncodeTiled") == 0;
    *function = known ? (void *)encode_tensor_map : nullptr;
    *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

} // namespace emulator

using namespace emulator;

extern "C" {

/* ---- the device ---- */

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int)
{
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated Hopper");
    p->major = 9;
    p->minor = 0;
    p->multiProcessorCount = kMultiprocessors;
    p->totalGlobalMem = kMemoryBytes;
    p->l2CacheSize = 50 << 20;
    p->sharedMemPerBlock = 48 * 1024;
    p->sharedMemPerBlockOptin = kSharedMost;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int)
{
    switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)kSharedMost;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = 9;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = 0;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = kMultiprocessors;
        break;
    case cudaDevAttrL2CacheSize:
        *value = 50 << 20;
        break;
    default:
        fprintf(stderr, "emulator: attribute %d of the device is not known\n", (int)attribute);
        return set_last_error(cudaErrorNotSupported);
    }
    return cudaSuccess;
}

/* There is no place on a bus, and so no NVML that is asked about it. */
cudaError_t cudaDeviceGetPCIBusId(char *, int, int)
{
    return set_last_error(cudaErrorNotSupported);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

/* ---- errors ---- */

cudaError_t cudaGetLastError(void)
{
    const cudaError_t code = last_error;
    last_error = cudaSuccess;
    return code;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

const char *cudaGetErrorName(cudaError_t code)
{
    switch (code) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorInvalidValue:
        return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
        return "cudaErrorInvalidConfiguration";
    case cudaErrorCooperativeLaunchTooLarge:
        return "cudaErrorCooperativeLaunchTooLarge";
    case cudaErrorNotSupported:
        return "cudaErrorNotSupported";
    default:
        return "an error that the emulator has no name for";
    }
}

const char *cudaGetErrorString(cudaError_t code)
{
    return code == cudaSuccess ? "no error" : "refused by the emulator";
}

/* ---- memory ---- */

cudaError_t cudaMalloc(void **data, size_t bytes)
{
    return set_last_error(allocate_buffer(data, bytes));
}

cudaError_t cudaFree(void *data)
{
    return set_last_error(release_buffer(data));
}

cudaError_t cudaHostAlloc(void **data, size_t bytes, unsigned)
{
    return set_last_error(allocate_buffer(data, bytes));
}

cudaError_t cudaFreeHost(void *data)
{
    return set_last_error(release_buffer(data));
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    *total_bytes = kMemoryBytes;
    *free_bytes = kMemoryBytes - used_buffer_bytes();
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    copy_memory(to, from, bytes, kind);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t)
{
    copy_memory(to, from, bytes, kind);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int byte, size_t bytes, cudaStream_t)
{
    memset(to, byte, bytes);
    return cudaSuccess;
}

/* ---- streams and events ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    *stream = (cudaStream_t)malloc(1);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    free(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    *event = (cudaEvent_t)calloc(1, sizeof(double));
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    return cudaEventCreate(event);
}

cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    free(event);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t)
{
    *(double *)event = now_ms();
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    *ms = (float)(*(double *)to - *(double *)from);
    return cudaSuccess;
}

/* ---- graphs: nothing is recorded, and whoever asks for it is told so ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode)
{
    return set_last_error(cudaErrorNotSupported);
}

cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *graph)
{
    *graph = nullptr;
    return set_last_error(cudaErrorNotSupported);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *, cudaGraph_t, unsigned long long)
{
    return set_last_error(cudaErrorNotSupported);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t)
{
    return set_last_error(cudaErrorNotSupported);
}

cudaError_t cudaGraphDestroy(cudaGraph_t)
{
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t)
{
    return cudaSuccess;
}

/* ---- kernels ---- */

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value)
{
    const std::lock_guard<std::mutex> guard(lock);
    switch (attribute) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize:
        if (value < 0 || value > (int)kSharedMost)
            return set_last_error(cudaErrorInvalidValue);
        allowed[kernel].dynamic_bytes = (size_t)value;
        break;
    case cudaFuncAttributeNonPortableClusterSizeAllowed:
        allowed[kernel].large_clusters = value != 0;
        break;
    case cudaFuncAttributePreferredSharedMemoryCarveout:
        break;
    default:
        return set_last_error(cudaErrorNotSupported);
    }
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *, int threads,
                                                          size_t dynamic_bytes)
{
    *blocks = blocks_at_once(threads, dynamic_bytes);
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveClusters(int *clusters, const void *kernel,
                                           const cudaLaunchConfig_t *config)
{
    int blocks = 1;
    for (unsigned i = 0; i < config->numAttrs; i++)
        if (config->attrs[i].id == cudaLaunchAttributeClusterDimension)
            blocks = (int)config->attrs[i].val.clusterDim.x;
    if (blocks > 16 || (blocks > 8 && !allowed_for(kernel).large_clusters))
        return set_last_error(cudaErrorInvalidValue);
    *clusters =
        clusters_at_once(blocks, blocks_at_once((int)config->blockDim.x, config->dynamicSmemBytes));
    return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult *result)
{
    return find_driver_function(name, function, result);
}

#if CUDART_VERSION < 13000
cudaError_t cudaGetDriverEntryPoint(const char *name, void **function, unsigned long long,
                                    cudaDriverEntryPointQueryResult *result)
{
    return find_driver_function(name, function, result);
}
#endif
}
