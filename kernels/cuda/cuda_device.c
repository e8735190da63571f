/* The device and its memory: see cuda_device.h. */
#include "cuda_device.h"
#include "cuda_check.h"
#include "cuda_nvml.h"
#include "cuda_traffic.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

bool fb_cuda_is_built(void)
{
    return true;
}

/* The driver starts threads of its own. They inherit this mask, so that no signal is ever delivered
 * to one of them: a program that waits for SIGCHLD by descriptor would miss it. */
static void block_signals(sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, before); /* of these arguments it cannot fail */
}

static void restore_signals(const sigset_t *before)
{
    (void)pthread_sigmask(SIG_SETMASK, before, NULL);
}

int fb_cuda_count(void)
{
    int count = 0;
    sigset_t before;
    block_signals(&before);
    const bool known = cudaGetDeviceCount(&count) == cudaSuccess;
    restore_signals(&before);
    return known ? count : 0;
}

bool fb_cuda_is_present(void)
{
    return fb_cuda_count() > 0;
}

static bool read_pci(char pci[32])
{
    return cudaDeviceGetPCIBusId(pci, 32, 0) == cudaSuccess;
}

static enum fb_status read_facts(struct fb_cuda_facts *facts, struct fb_error *error)
{
    struct cudaDeviceProp properties;
    *facts = (struct fb_cuda_facts){.clock_max_hz = (double)NAN, .clock_memory_hz = (double)NAN};
    enum fb_status status = fb_cuda_status(cudaGetDeviceProperties(&properties, 0),
                                           "reading the properties of device 0", error);
    if (status != FB_OK)
        return status;
    snprintf(facts->name, sizeof facts->name, "%.127s", properties.name);
    facts->major = properties.major;
    facts->minor = properties.minor;
    facts->multiprocessors = properties.multiProcessorCount;
    facts->memory_bytes = properties.totalGlobalMem;
    facts->l2_bytes = (size_t)properties.l2CacheSize;
    facts->shared_bytes = properties.sharedMemPerBlockOptin;
    status = fb_cuda_status(cudaDriverGetVersion(&facts->driver_version),
                            "reading the driver's version", error);
    if (status == FB_OK)
        status = fb_cuda_status(cudaRuntimeGetVersion(&facts->toolkit_version),
                                "reading the runtime's version", error);
    char pci[32];
    if (status == FB_OK && read_pci(pci)) {
        struct fb_nvml_facts nvml;
        struct fb_nvml *handle = fb_nvml_open(pci);
        fb_nvml_read_facts(handle, &nvml);
        fb_nvml_close(handle);
        snprintf(facts->driver, sizeof facts->driver, "%.31s", nvml.driver);
        facts->clock_max_hz = nvml.clock_max_hz;
        facts->clock_memory_hz = nvml.clock_memory_hz;
    }
    return status;
}

enum fb_status fb_cuda_read_facts(struct fb_cuda_facts *facts, struct fb_error *error)
{
    sigset_t before;
    block_signals(&before);
    const enum fb_status status = read_facts(facts, error);
    restore_signals(&before);
    return status;
}

enum fb_status fb_cuda_allocate(size_t bytes, const char *what, void **data, struct fb_error *error)
{
    *data = NULL;
    if (bytes == 0)
        return FB_OK;
    const cudaError_t code = cudaMalloc(data, bytes);
    if (code == cudaErrorMemoryAllocation) {
        size_t free_bytes = 0, total_bytes = 0;
        (void)cudaGetLastError(); /* of a failed allocation nothing remains */
        if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess)
            free_bytes = 0;
        return fb_error_set(error, FB_ERROR_MEMORY,
                            "%s: %zu bytes do not fit on the GPU, which has %zu free; use shorter "
                            "sequences or fewer heads",
                            what, bytes, free_bytes);
    }
    return fb_cuda_status(code, what, error);
}

void fb_cuda_release(void *data)
{
    /* A device that has failed refuses this, too, and says so at the next call that is checked. */
    if (data != NULL)
        (void)cudaFree(data);
}

enum fb_status fb_cuda_upload(void *device, const void *host, size_t bytes, struct fb_error *error)
{
    if (bytes == 0)
        return FB_OK;
    return fb_cuda_status(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice),
                          "copying to the GPU", error);
}

enum fb_status fb_cuda_download(void *host, const void *device, size_t bytes,
                                struct fb_error *error)
{
    if (bytes == 0)
        return FB_OK;
    return fb_cuda_status(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost),
                          "copying from the GPU", error);
}

enum fb_status fb_cuda_copy(void *to, const void *from, size_t bytes, struct fb_error *error)
{
    if (bytes == 0)
        return FB_OK;
    const enum fb_status status =
        fb_cuda_status(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, NULL),
                       "copying on the GPU", error);
    return status == FB_OK ? fb_cuda_wait(NULL, error) : status;
}

enum fb_status fb_cuda_fill(void *data, uint32_t pattern, size_t bytes, struct fb_error *error)
{
    if (bytes == 0)
        return FB_OK;
    const enum fb_status status = fb_cuda_launch_fill(data, pattern, bytes, NULL, error);
    return status == FB_OK ? fb_cuda_wait(NULL, error) : status;
}

enum fb_status fb_cuda_free_bytes(size_t *bytes, struct fb_error *error)
{
    size_t total = 0;
    return fb_cuda_status(cudaMemGetInfo(bytes, &total), "asking for the free memory", error);
}

enum fb_status fb_cuda_wait(void *stream, struct fb_error *error)
{
    return fb_cuda_status(cudaStreamSynchronize((cudaStream_t)stream), "running on the GPU", error);
}
