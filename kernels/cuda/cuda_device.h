/*
 * The CUDA device of this process: whether there is one, what it is, its memory, timing on it and
 * what it can do at most. Everything here exists in every build; without CUDA there is no device,
 * and whatever needs one returns FB_ERROR_DEVICE.
 *
 * One device is used: the first that CUDA_VISIBLE_DEVICES shows.
 */
#ifndef FB_CUDA_DEVICE_H
#define FB_CUDA_DEVICE_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

struct fb_cuda_facts {
    char name[128];
    int major, minor; /* compute capability */
    int multiprocessors;
    size_t memory_bytes, l2_bytes;
    size_t shared_bytes;                 /* that one block may ask for */
    int driver_version, toolkit_version; /* CUDA's, 1000 major + 10 minor */
    char driver[32];                     /* the kernel driver's, by NVML; "" when unknown */
    double clock_max_hz;                 /* of the multiprocessors, by NVML; NaN when unknown */
    double clock_memory_hz;              /* likewise */
};

/* Whether this build has the backend. */
bool fb_cuda_is_built(void);
/* Devices that can be used. Asks the driver; creates no context. */
int fb_cuda_count(void);
/* Whether there is one. */
bool fb_cuda_is_present(void);
enum fb_status fb_cuda_read_facts(struct fb_cuda_facts *facts,
                                  struct fb_error *error) FB_MUST_CHECK;

/* ---- memory: synchronous, outside of any timing ---------------------------------------------- */

/* FB_ERROR_MEMORY names what, the bytes and what is free. 0 bytes give NULL. */
enum fb_status fb_cuda_allocate(size_t bytes, const char *what, void **data,
                                struct fb_error *error) FB_MUST_CHECK;
void fb_cuda_release(void *data); /* NULL: nothing */
enum fb_status fb_cuda_upload(void *device, const void *host, size_t bytes,
                              struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_cuda_download(void *host, const void *device, size_t bytes,
                                struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_cuda_copy(void *to, const void *from, size_t bytes,
                            struct fb_error *error) FB_MUST_CHECK;
/* Every 32-bit word becomes the pattern; bytes beyond the last whole word get its first bytes. */
enum fb_status fb_cuda_fill(void *data, uint32_t pattern, size_t bytes,
                            struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_cuda_free_bytes(size_t *bytes, struct fb_error *error) FB_MUST_CHECK;

/* ---- streams and timing ---------------------------------------------------------------------- */

/* Waits for the stream and reports what failed on it. */
enum fb_status fb_cuda_wait(void *stream, struct fb_error *error) FB_MUST_CHECK;

/* A stream with two events, a buffer to evict the L2 cache with, and the word that a blocking
 * kernel waits for. */
struct fb_cuda_timer;
enum fb_status fb_cuda_timer_new(struct fb_cuda_timer **timer,
                                 struct fb_error *error) FB_MUST_CHECK;
void fb_cuda_timer_destroy(struct fb_cuda_timer *timer);
void *fb_cuda_timer_stream(const struct fb_cuda_timer *timer);
/* Hz of the multiprocessors now, and the highest they have, by NVML; NaN when it is not there. */
double fb_cuda_timer_clock_hz(const struct fb_cuda_timer *timer);
double fb_cuda_timer_clock_max_hz(const struct fb_cuda_timer *timer);
/* Writes and then reads 4 x the L2 cache, so that no dirty line is left for the next kernel. */
enum fb_status fb_cuda_timer_evict(struct fb_cuda_timer *timer,
                                   struct fb_error *error) FB_MUST_CHECK;
/* What is launched on the stream between the two waits behind a blocking kernel until end lets it
 * go: all of it is queued by then, and the time between the events holds no host latency. */
enum fb_status fb_cuda_timer_begin(struct fb_cuda_timer *timer,
                                   struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_cuda_timer_end(struct fb_cuda_timer *timer, double *time_s,
                                 struct fb_error *error) FB_MUST_CHECK;

/* ---- what the device can do ------------------------------------------------------------------ */

enum { FB_CUDA_READS = 4, FB_CUDA_WRITES = 3 };

struct fb_cuda_range {
    void *data;
    size_t bytes;
};

/* Launches the touch kernel: every range read once and every range written once, side by side. */
struct fb_cuda_traffic {
    struct fb_cuda_range read[FB_CUDA_READS], write[FB_CUDA_WRITES];
};
enum fb_status fb_cuda_touch(const struct fb_cuda_traffic *traffic, void *stream,
                             struct fb_error *error) FB_MUST_CHECK;
double fb_cuda_traffic_bytes(const struct fb_cuda_traffic *traffic);

/* The best rate of a matrix product by cuBLAS (loaded at run time) over several shapes, for about
 * time_s: bf16 and f16 with f32 sums; f32 the better of plain f32 and a third of TF32. */
enum fb_status fb_cuda_gemm_rate(struct fb_cuda_timer *timer, enum fb_dtype dtype, double time_s,
                                 double *flop_per_s, char *shape, size_t shape_size,
                                 struct fb_error *error) FB_MUST_CHECK;
/* Bytes read plus bytes written per second of a large copy. */
enum fb_status fb_cuda_copy_rate(struct fb_cuda_timer *timer, double *bytes_per_s,
                                 struct fb_error *error) FB_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
