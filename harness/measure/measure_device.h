/*
 * A worker whose variant runs on a GPU. The tensors of the worker stay on the host, where they are
 * drawn and judged; each has a copy on the device, and what only the kernels see (scratch, saved,
 * state) exists there alone. Of an external program, which has copies of its own, only the floor is
 * measured here. Private to this room.
 */
#ifndef FB_MEASURE_DEVICE_H
#define FB_MEASURE_DEVICE_H

#include "cuda_device.h"
#include "measure_worker.h"

struct fb_worker_device {
    struct fb_call call;        /* as the worker's, over the copies */
    struct fb_tensor tokens[3]; /* likewise */
    void *data[SLOT_COUNT];
    size_t bytes[SLOT_COUNT];
    size_t free_bytes; /* of the device, before the first call */
    struct fb_cuda_timer *timer;
    double clock_max_hz; /* NaN when unknown */
    int retries_left;    /* of throttled samples */
    double *host_s;      /* seconds per call from launch to completion, as the host sees it */
    size_t host_count, host_capacity;
};

/* Opens the device and allocates; the limit counts the device's free memory. */
enum fb_status fb_worker_device_open(struct fb_worker *worker, const size_t bytes[SLOT_COUNT],
                                     const struct fb_limits *limits,
                                     struct fb_error *error) FB_MUST_CHECK;
void fb_worker_device_close(struct fb_worker *worker);

/* Whether a slot has memory on the host, too. */
bool fb_worker_device_mirrors(enum buffer_slot slot);

/* Inputs and constants to the device. */
enum fb_status fb_worker_device_upload(struct fb_worker *worker,
                                       struct fb_error *error) FB_MUST_CHECK;
/* Outputs: poisoned on the device, and back to the host. */
enum fb_status fb_worker_device_poison(struct fb_worker *worker,
                                       struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_worker_device_fetch(struct fb_worker *worker,
                                      struct fb_error *error) FB_MUST_CHECK;

/* What the pass occupies beside inputs and outputs, and what the calls so far have made the
 * device's memory in use grow by (libraries allocate on their own). Of an external program what it
 * says of itself, or -1. */
enum fb_status fb_worker_device_peak(const struct fb_worker *worker, int64_t *bytes,
                                     struct fb_error *error) FB_MUST_CHECK;

/* One sample: calls timed on the device behind a blocking kernel, after evicting the L2 cache when
 * cold; beside it, once more without the blocking kernel, as the host sees it. An external program
 * does both on its own. A sample whose clock is below three quarters of the highest is taken again,
 * a bounded number of times, and marked. */
enum fb_status fb_worker_device_sample(struct fb_worker *worker, int64_t calls, double *sample_s,
                                       struct fb_error *error) FB_MUST_CHECK;
/* Evidence into the result: host time, clock, throttling. */
void fb_worker_device_conclude(struct fb_worker *worker);

/* Touch time into the result. */
enum fb_status fb_worker_device_floor(struct fb_worker *worker,
                                      struct fb_error *error) FB_MUST_CHECK;

#endif
