/*
 * When to stop sampling: a plug-in that is fed with numbers only, and so can be tested without a
 * clock. docs/measuring.md, "When to stop".
 *
 * Adaptive: stop when the half-width of the median's exact 95 % interval is at most `precision` of
 * the median. It is looked at only at geometrically spaced counts, at least min_samples: looking
 * after every sample would stop at lucky moments. max_time_s wins after one sample.
 * A single sample is never precise: its interval is a point that says nothing.
 * Fixed (settings.samples > 0): exactly that many samples, however long they take (a gate must not
 * peek); the case's time-out is what bounds them.
 */
#ifndef FB_STOPPING_H
#define FB_STOPPING_H

#include "suite.h"

enum fb_stop { FB_STOP_CONTINUE, FB_STOP_PRECISION, FB_STOP_MAX_TIME, FB_STOP_SAMPLES };

struct fb_stopping {
    struct fb_measure_settings settings;
    double *samples_s; /* as they came */
    double *sorted_s;  /* scratch of the same capacity */
    size_t count, capacity;
    size_t next_look; /* the count at which the interval is examined next */
    double spent_s;   /* since sampling began, evictions included */
    enum fb_stop reason;
};

void fb_stopping_init(struct fb_stopping *stopping, const struct fb_measure_settings *settings);
void fb_stopping_free(struct fb_stopping *stopping);

/* Records one sample. elapsed_s is the time since sampling began, whatever it was spent on.
 * *decision says whether to take another; once it is not CONTINUE it stays. */
enum fb_status fb_stopping_add(struct fb_stopping *stopping, double sample_s, double elapsed_s,
                               enum fb_stop *decision, struct fb_error *error) FB_MUST_CHECK;

/* "precision", "max_time", "samples"; "" while it goes on. */
const char *fb_stop_name(enum fb_stop stop);

#endif
