/*
 * Times to an event that some never reached while they were watched: the Kaplan-Meier estimate and
 * the log-rank test. Kaplan and Meier 1958; Mantel 1966.
 */
#ifndef FB_STATS_SURVIVAL_H
#define FB_STATS_SURVIVAL_H

#include "status.h"

#include <stdbool.h>
#include <stddef.h>

/* The time of an event, or the last time at which there had been none (censored). */
struct fb_survival {
    double time;
    bool event;
};

/* Sorts the observations in place: by time, events before what is censored at the same time. */
void fb_survival_sort(struct fb_survival *observations, size_t count);

/* The estimated probability that the event comes after `time`; of sorted observations. */
double fb_survival_at(const struct fb_survival *sorted, size_t count, double time);

/* The first time by which half have had the event; infinite when that is never seen. */
double fb_survival_median(const struct fb_survival *sorted, size_t count);

struct fb_log_rank {
    double chi_square; /* one degree of freedom; NaN when neither side had an event */
    double p;          /* two-sided */
};

/* Whether two groups reach the event alike; both sorted. */
void fb_survival_log_rank(const struct fb_survival *a, size_t a_count, const struct fb_survival *b,
                          size_t b_count, struct fb_log_rank *result);

#endif
