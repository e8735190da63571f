/* The monotonic clock and the scripted one. */
#include "timing_clock.h"

#include <time.h>

static double monotonic_now_s(void *context)
{
    (void)context;
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail: the clock id is mandatory */
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void fb_clock_init_monotonic(struct fb_clock *clock)
{
    enum { STEPS = 200 };
    double smallest_s = 1.0;
    double last_s = monotonic_now_s(NULL);
    for (int steps = 0; steps < STEPS;) {
        const double now_s = monotonic_now_s(NULL);
        if (now_s <= last_s)
            continue;
        const double step_s = now_s - last_s;
        smallest_s = step_s < smallest_s ? step_s : smallest_s;
        last_s = now_s;
        steps++;
    }
    *clock = (struct fb_clock){.now_s = monotonic_now_s, .resolution_s = smallest_s};
}

static double fake_now_s(void *context)
{
    struct fb_clock_fake *fake = context;
    fake->time_s += fake->tick_s;
    return fake->time_s;
}

void fb_clock_init_fake(struct fb_clock *clock, struct fb_clock_fake *fake)
{
    *clock = (struct fb_clock){.now_s = fake_now_s, .context = fake, .resolution_s = 1e-9};
}

void fb_clock_fake_advance(struct fb_clock_fake *fake, double seconds)
{
    fake->time_s += seconds;
}
