/*
 * The touch kernel: reads what a pass reads and writes what it writes, once, as fast as the machine
 * can. Its time is the byte part of the floor: same buffers, same threads, same cold or warm caches
 * as the case, the strongest instruction set of the machine whatever the case's own.
 */
#ifndef FB_TOUCH_H
#define FB_TOUCH_H

#include "attention.h"
#include "timing_clock.h"

#include <stdbool.h>

enum { FB_TOUCH_READS = 4, FB_TOUCH_WRITES = 3, FB_TOUCH_STAGES = 2 };

struct fb_touch_range {
    float *data;
    int64_t count; /* words of four bytes, whatever the dtype; 0 where a stage has fewer ranges than
                      there is room for */
};

/* Tensors read and written side by side. */
struct fb_touch_stage {
    struct fb_touch_range read[FB_TOUCH_READS], write[FB_TOUCH_WRITES];
};

struct fb_touch {
    struct fb_touch_stage stage[FB_TOUCH_STAGES]; /* one after the other */
    int stages;
    int threads;
};

/* What a pass of the call reads and writes; every tensor dense:
 *   forward   q k v -> out
 *   backward  q k v dout -> dq dk dv
 *   both      forward, then backward
 *   decode    the state_bytes of the state (read only, the faster way) -> out */
void fb_touch_init(struct fb_touch *touch, const struct fb_call *call, enum fb_pass pass,
                   size_t state_bytes, int threads);

/* Every thread passes `calls` times over its part, all at the same time, and best_s[thread] becomes
 * its seconds per pass if that is less. streaming: the write goes past the caches (which spares
 * reading the lines to be overwritten) where the processor can. What is written has no meaning. */
void fb_touch_run(const struct fb_touch *touch, bool streaming, int64_t calls,
                  const struct fb_clock *clock, double *best_s);

double fb_touch_bytes(const struct fb_touch *touch);

/* One thread's part of a stage; private to touch.c and touch_kernel.c. Returns a sum that depends
 * on every element read. Slices start on multiples of FB_ALIGNMENT bytes. */
struct fb_touch_slice {
    struct fb_touch_range read[FB_TOUCH_READS], write[FB_TOUCH_WRITES];
    bool streaming;
};
typedef float (*fb_touch_slice_fn)(const struct fb_touch_slice *slice);
float fb_touch_slice_scalar(const struct fb_touch_slice *slice);
float fb_touch_slice_avx2(const struct fb_touch_slice *slice);
float fb_touch_slice_avx512(const struct fb_touch_slice *slice);
float fb_touch_slice_neon(const struct fb_touch_slice *slice);

#endif
