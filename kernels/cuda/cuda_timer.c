/* Timing on the device, and its copy rate: see cuda_device.h. */
#include "cuda_check.h"
#include "cuda_device.h"
#include "cuda_nvml.h"
#include "cuda_traffic.h"

#include <math.h>
#include <stdlib.h>

struct fb_cuda_timer {
    cudaStream_t stream;
    cudaEvent_t start, stop;
    volatile uint32_t *word; /* pinned: [0] lets the blocking kernel go, [1] says it gave up */
    void *evict;
    size_t evict_bytes;
    struct fb_nvml *nvml; /* NULL: not there */
};

static enum fb_status open_timer(struct fb_cuda_timer *timer, struct fb_error *error)
{
    void *word = NULL;
    char pci[32];
    int l2_bytes = 0;
    enum fb_status status =
        fb_cuda_status(cudaDeviceGetAttribute(&l2_bytes, cudaDevAttrL2CacheSize, 0),
                       "reading the size of the L2 cache", error);
    if (status == FB_OK && cudaDeviceGetPCIBusId(pci, sizeof pci, 0) == cudaSuccess)
        timer->nvml = fb_nvml_open(pci);
    if (status == FB_OK)
        status = fb_cuda_status(cudaStreamCreateWithFlags(&timer->stream, cudaStreamNonBlocking),
                                "creating a stream", error);
    if (status == FB_OK)
        status = fb_cuda_status(cudaEventCreate(&timer->start), "creating an event", error);
    if (status == FB_OK)
        status = fb_cuda_status(cudaEventCreate(&timer->stop), "creating an event", error);
    if (status == FB_OK)
        status = fb_cuda_status(cudaHostAlloc(&word, 2 * sizeof(uint32_t), cudaHostAllocMapped),
                                "allocating pinned memory", error);
    timer->word = word;
    timer->evict_bytes = 4 * (size_t)l2_bytes;
    if (status == FB_OK)
        status = fb_cuda_allocate(timer->evict_bytes, "the buffer that evicts the L2 cache",
                                  &timer->evict, error);
    return status;
}

enum fb_status fb_cuda_timer_new(struct fb_cuda_timer **timer, struct fb_error *error)
{
    *timer = calloc(1, sizeof **timer);
    if (*timer == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a timer of the GPU");
    const enum fb_status status = open_timer(*timer, error);
    if (status != FB_OK) {
        fb_cuda_timer_destroy(*timer);
        *timer = NULL;
    }
    return status;
}

void fb_cuda_timer_destroy(struct fb_cuda_timer *timer)
{
    if (timer == NULL)
        return;
    /* Nothing to be done about an error here: the process is about to end. */
    fb_cuda_release(timer->evict);
    if (timer->word != NULL)
        (void)cudaFreeHost((void *)(uintptr_t)timer->word);
    if (timer->stop != NULL)
        (void)cudaEventDestroy(timer->stop);
    if (timer->start != NULL)
        (void)cudaEventDestroy(timer->start);
    if (timer->stream != NULL)
        (void)cudaStreamDestroy(timer->stream);
    fb_nvml_close(timer->nvml);
    free(timer);
}

double fb_cuda_timer_clock_hz(const struct fb_cuda_timer *timer)
{
    return fb_nvml_clock_hz(timer->nvml);
}

double fb_cuda_timer_clock_max_hz(const struct fb_cuda_timer *timer)
{
    struct fb_nvml_facts facts;
    fb_nvml_read_facts(timer->nvml, &facts);
    return facts.clock_max_hz;
}

void *fb_cuda_timer_stream(const struct fb_cuda_timer *timer)
{
    return timer->stream;
}

enum fb_status fb_cuda_timer_evict(struct fb_cuda_timer *timer, struct fb_error *error)
{
    const uint32_t pattern = 0x5a5a5a5aU;
    enum fb_status status =
        fb_cuda_launch_fill(timer->evict, pattern, timer->evict_bytes, timer->stream, error);
    if (status == FB_OK)
        status = fb_cuda_launch_read(timer->evict, timer->evict_bytes, timer->stream, error);
    return status;
}

enum fb_status fb_cuda_timer_begin(struct fb_cuda_timer *timer, struct fb_error *error)
{
    timer->word[0] = 0;
    timer->word[1] = 0;
    const enum fb_status status = fb_cuda_launch_block(timer->word, timer->stream, error);
    if (status != FB_OK)
        return status;
    return fb_cuda_status(cudaEventRecord(timer->start, timer->stream), "recording an event",
                          error);
}

enum fb_status fb_cuda_timer_end(struct fb_cuda_timer *timer, double *time_s,
                                 struct fb_error *error)
{
    float ms = 0.0F;
    *time_s = (double)NAN;
    enum fb_status status =
        fb_cuda_status(cudaEventRecord(timer->stop, timer->stream), "recording an event", error);
    timer->word[0] = 1; /* also after an error: the kernel must not wait on */
    if (status == FB_OK)
        status = fb_cuda_wait(timer->stream, error);
    if (status == FB_OK && timer->word[1] != 0)
        status = fb_error_set(error, FB_ERROR_DEVICE,
                              "a call made the host wait for its own stream: it cannot be timed "
                              "behind a blocking kernel");
    if (status == FB_OK)
        status = fb_cuda_status(cudaEventElapsedTime(&ms, timer->start, timer->stop),
                                "reading the time between two events", error);
    if (status == FB_OK)
        *time_s = 1e-3 * (double)ms;
    return status;
}

static enum fb_status time_copies(struct fb_cuda_timer *timer, void *from, void *to, size_t bytes,
                                  double *best_s, struct fb_error *error)
{
    enum { REPEATS = 8 };
    enum fb_status status = FB_OK;
    for (int i = 0; i < REPEATS && status == FB_OK; i++) {
        double time_s;
        status = fb_cuda_timer_begin(timer, error);
        if (status == FB_OK)
            status = fb_cuda_status(
                cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, timer->stream),
                "copying on the GPU", error);
        const enum fb_status end = fb_cuda_timer_end(timer, &time_s, error);
        status = status == FB_OK ? end : status;
        if (status == FB_OK && i > 0) /* the first also wakes the clocks up */
            *best_s = fmin(*best_s, time_s);
    }
    return status;
}

enum fb_status fb_cuda_copy_rate(struct fb_cuda_timer *timer, double *bytes_per_s,
                                 struct fb_error *error)
{
    const size_t bytes = (size_t)1 << 30;
    void *from = NULL, *to = NULL;
    double best_s = HUGE_VAL;
    *bytes_per_s = (double)NAN;
    enum fb_status status = fb_cuda_allocate(bytes, "the copy's source", &from, error);
    if (status == FB_OK)
        status = fb_cuda_allocate(bytes, "the copy's target", &to, error);
    if (status == FB_OK)
        status = fb_cuda_fill(from, 0x3f8ccccdU, bytes, error);
    if (status == FB_OK)
        status = time_copies(timer, from, to, bytes, &best_s, error);
    if (status == FB_OK)
        *bytes_per_s = 2.0 * (double)bytes / best_s;
    fb_cuda_release(from);
    fb_cuda_release(to);
    return status;
}
