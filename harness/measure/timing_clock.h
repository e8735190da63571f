/*
 * The clock behind every sample. It can be replaced, so that tests script the passing of time.
 */
#ifndef FB_TIMING_CLOCK_H
#define FB_TIMING_CLOCK_H

#include <stddef.h>
#include <stdint.h>

struct fb_clock {
    double (*now_s)(void *context); /* monotonic, from an arbitrary origin */
    void *context;
    double resolution_s; /* the smallest step that two readings can show */
};

/* CLOCK_MONOTONIC, its resolution measured: the smallest non-zero step of a few hundred readings.
 * The origin is the machine's, so readings of several processes of one machine compare. */
void fb_clock_init_monotonic(struct fb_clock *clock);

/* A clock that moves only when told: fb_clock_fake_advance, plus tick_s at every reading. */
struct fb_clock_fake {
    double time_s;
    double tick_s;
};
void fb_clock_init_fake(struct fb_clock *clock, struct fb_clock_fake *fake);
void fb_clock_fake_advance(struct fb_clock_fake *fake, double seconds);

#endif
