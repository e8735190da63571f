/* A build without CUDA: there is no device. See cuda_device.h. */
#include "cuda_device.h"

#include <math.h>
#include <string.h>

static enum fb_status absent(struct fb_error *error)
{
    return fb_error_set(error, FB_ERROR_DEVICE,
                        "this build has no CUDA backend: install the CUDA toolkit and configure "
                        "with FLOWBENCH_CUDA=ON");
}

bool fb_cuda_is_built(void)
{
    return false;
}

int fb_cuda_count(void)
{
    return 0;
}

bool fb_cuda_is_present(void)
{
    return false;
}

enum fb_status fb_cuda_read_facts(struct fb_cuda_facts *facts, struct fb_error *error)
{
    memset(facts, 0, sizeof *facts);
    return absent(error);
}

enum fb_status fb_cuda_allocate(size_t bytes, const char *what, void **data, struct fb_error *error)
{
    (void)bytes;
    (void)what;
    *data = NULL;
    return absent(error);
}

void fb_cuda_release(void *data)
{
    (void)data;
}

enum fb_status fb_cuda_upload(void *device, const void *host, size_t bytes, struct fb_error *error)
{
    (void)device;
    (void)host;
    (void)bytes;
    return absent(error);
}

enum fb_status fb_cuda_download(void *host, const void *device, size_t bytes,
                                struct fb_error *error)
{
    (void)host;
    (void)device;
    (void)bytes;
    return absent(error);
}

enum fb_status fb_cuda_copy(void *to, const void *from, size_t bytes, struct fb_error *error)
{
    (void)to;
    (void)from;
    (void)bytes;
    return absent(error);
}

enum fb_status fb_cuda_fill(void *data, uint32_t pattern, size_t bytes, struct fb_error *error)
{
    (void)data;
    (void)pattern;
    (void)bytes;
    return absent(error);
}

enum fb_status fb_cuda_free_bytes(size_t *bytes, struct fb_error *error)
{
    *bytes = 0;
    return absent(error);
}

enum fb_status fb_cuda_wait(void *stream, struct fb_error *error)
{
    (void)stream;
    return absent(error);
}

enum fb_status fb_cuda_timer_new(struct fb_cuda_timer **timer, struct fb_error *error)
{
    *timer = NULL;
    return absent(error);
}

void fb_cuda_timer_destroy(struct fb_cuda_timer *timer)
{
    (void)timer;
}

void *fb_cuda_timer_stream(const struct fb_cuda_timer *timer)
{
    (void)timer;
    return NULL;
}

enum fb_status fb_cuda_timer_evict(struct fb_cuda_timer *timer, struct fb_error *error)
{
    (void)timer;
    return absent(error);
}

enum fb_status fb_cuda_timer_begin(struct fb_cuda_timer *timer, struct fb_error *error)
{
    (void)timer;
    return absent(error);
}

enum fb_status fb_cuda_timer_end(struct fb_cuda_timer *timer, double *time_s,
                                 struct fb_error *error)
{
    (void)timer;
    *time_s = (double)NAN;
    return absent(error);
}

enum fb_status fb_cuda_touch(const struct fb_cuda_traffic *traffic, void *stream,
                             struct fb_error *error)
{
    (void)traffic;
    (void)stream;
    return absent(error);
}

double fb_cuda_traffic_bytes(const struct fb_cuda_traffic *traffic)
{
    (void)traffic;
    return (double)NAN;
}

enum fb_status fb_cuda_gemm_rate(struct fb_cuda_timer *timer, enum fb_dtype dtype, double time_s,
                                 double *flop_per_s, char *shape, size_t shape_size,
                                 struct fb_error *error)
{
    (void)timer;
    (void)dtype;
    (void)time_s;
    (void)shape;
    (void)shape_size;
    *flop_per_s = (double)NAN;
    return absent(error);
}

enum fb_status fb_cuda_copy_rate(struct fb_cuda_timer *timer, double *bytes_per_s,
                                 struct fb_error *error)
{
    (void)timer;
    *bytes_per_s = (double)NAN;
    return absent(error);
}

double fb_cuda_timer_clock_hz(const struct fb_cuda_timer *timer)
{
    (void)timer;
    return (double)NAN;
}

double fb_cuda_timer_clock_max_hz(const struct fb_cuda_timer *timer)
{
    (void)timer;
    return (double)NAN;
}
