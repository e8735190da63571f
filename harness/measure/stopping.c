/* The stopping rule: see stopping.h. */
#include "stopping.h"

#include "stats.h"

#include <stdlib.h>
#include <string.h>

/* Ratio of successive counts at which the interval is looked at. Fewer looks mean less optional
 * stopping, more looks less time spent beyond what was needed: at most a quarter here. */
static const double look_ratio = 1.25;
static const double alpha = 0.05;

void fb_stopping_init(struct fb_stopping *stopping, const struct fb_measure_settings *settings)
{
    *stopping = (struct fb_stopping){
        .settings = *settings,
        .next_look = settings->min_samples > 2 ? (size_t)settings->min_samples : 2,
        .reason = FB_STOP_CONTINUE,
    };
}

void fb_stopping_free(struct fb_stopping *stopping)
{
    free(stopping->samples_s);
    free(stopping->sorted_s);
    stopping->samples_s = NULL;
    stopping->sorted_s = NULL;
    stopping->count = 0;
    stopping->capacity = 0;
}

static enum fb_status grow(struct fb_stopping *stopping, struct fb_error *error)
{
    const size_t capacity = stopping->capacity > 0 ? 2 * stopping->capacity : 64;
    double *samples = realloc(stopping->samples_s, capacity * sizeof *samples);
    if (samples)
        stopping->samples_s = samples;
    double *sorted = realloc(stopping->sorted_s, capacity * sizeof *sorted);
    if (sorted)
        stopping->sorted_s = sorted;
    if (!samples || !sorted)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu timing samples", capacity);
    stopping->capacity = capacity;
    return FB_OK;
}

static bool is_precise(struct fb_stopping *stopping)
{
    const size_t count = stopping->count;
    memcpy(stopping->sorted_s, stopping->samples_s, count * sizeof *stopping->sorted_s);
    fb_stats_sort(stopping->sorted_s, count);
    const struct fb_interval interval = fb_stats_median_interval(stopping->sorted_s, count, alpha);
    const double median = fb_stats_median(stopping->sorted_s, count);
    return (interval.high - interval.low) / 2.0 <= stopping->settings.precision * median;
}

static enum fb_stop decide(struct fb_stopping *stopping)
{
    const struct fb_measure_settings *settings = &stopping->settings;
    if (settings->samples > 0)
        return stopping->count >= (size_t)settings->samples ? FB_STOP_SAMPLES : FB_STOP_CONTINUE;
    if (stopping->count >= stopping->next_look) {
        const size_t next = (size_t)(look_ratio * (double)stopping->count);
        stopping->next_look = next > stopping->count ? next : stopping->count + 1;
        if (is_precise(stopping))
            return FB_STOP_PRECISION;
    }
    return stopping->spent_s >= settings->max_time_s ? FB_STOP_MAX_TIME : FB_STOP_CONTINUE;
}

enum fb_status fb_stopping_add(struct fb_stopping *stopping, double sample_s, double elapsed_s,
                               enum fb_stop *decision, struct fb_error *error)
{
    if (stopping->count == stopping->capacity) {
        const enum fb_status status = grow(stopping, error);
        if (status != FB_OK)
            return status;
    }
    stopping->samples_s[stopping->count++] = sample_s;
    stopping->spent_s = elapsed_s;
    if (stopping->reason == FB_STOP_CONTINUE)
        stopping->reason = decide(stopping);
    *decision = stopping->reason;
    return FB_OK;
}

const char *fb_stop_name(enum fb_stop stop)
{
    static const char *const names[] = {
        [FB_STOP_CONTINUE] = "",
        [FB_STOP_PRECISION] = "precision",
        [FB_STOP_MAX_TIME] = "max_time",
        [FB_STOP_SAMPLES] = "samples",
    };
    return names[stop];
}
