/*
 * The touch kernel: reads three tensors and writes a fourth, once, as fast as the machine can. Its
 * time is the byte part of the floor: same buffers, same threads, same cold or warm caches as the
 * case, the strongest instruction set of the machine whatever the case's own.
 */
#ifndef FB_TOUCH_H
#define FB_TOUCH_H

#include "attention.h"
#include "timing_clock.h"

#include <stdbool.h>

struct fb_touch {
    const float *read[3];
    int64_t read_count[3]; /* elements */
    float *write;
    int64_t write_count;
    int threads;
};

/* q, k, v and out of a call; every tensor dense. */
void fb_touch_init(struct fb_touch *touch, const struct fb_call *call, int threads);

/* Every thread passes `calls` times over its part, all at the same time, and best_s[thread] becomes
 * its seconds per pass if that is less. streaming: the write goes past the caches (which spares
 * reading the lines to be overwritten) where the processor can. What is written has no meaning. */
void fb_touch_run(const struct fb_touch *touch, bool streaming, int64_t calls,
                  const struct fb_clock *clock, double *best_s);

double fb_touch_bytes(const struct fb_touch *touch);

/* One thread's part; private to touch.c and touch_kernel.c. Returns a sum that depends on every
 * element read. Slices start on multiples of FB_ALIGNMENT bytes. */
struct fb_touch_slice {
    const float *read[3];
    int64_t read_count[3];
    float *write;
    int64_t write_count;
    bool streaming;
};
typedef float (*fb_touch_slice_fn)(const struct fb_touch_slice *slice);
float fb_touch_slice_scalar(const struct fb_touch_slice *slice);
float fb_touch_slice_avx2(const struct fb_touch_slice *slice);
float fb_touch_slice_avx512(const struct fb_touch_slice *slice);
float fb_touch_slice_neon(const struct fb_touch_slice *slice);

#endif
