/*
 * One case over the runs of one machine: its segments, its changes, and whether the newest run is
 * slower than the best that the case has held. Pure: numbers in, verdict out. docs/history.md has
 * the rule in words.
 */
#ifndef FB_TREND_H
#define FB_TREND_H

#include "changes.h"
#include "gate.h"

/* Points in the order of their commits; the last one is the newest run. */
struct fb_trend_points {
    const double *values;  /* ln of the median */
    const double *widths;  /* of its interval, in logarithms: ln high - ln low */
    const size_t *commits; /* tells the commits apart */
    size_t count;
    double least_step; /* a change of less is none: FB_CHANGE_LEAST_STEP for times */
};

enum { FB_TREND_REASON_SIZE = 160 };

struct fb_trend {
    struct fb_segmentation segmentation;
    struct fb_changes changes;
    enum fb_verdict verdict;
    char reason[FB_TREND_REASON_SIZE]; /* for any verdict but PASS */
    size_t best_segment;               /* SIZE_MAX: none with two runs */
    double best;                       /* its level */
    double now;                        /* what is compared with it: a level, or the newest run */
    bool now_is_segment;
    double step;      /* now - best */
    double threshold; /* that step would have to exceed to FAIL */
    double scatter;   /* standard deviation of single runs around their levels; NaN if unknown */
};

/* False alarms of one check, over all of its cases. */
#define FB_TREND_ALPHA 0.01

/* cases_count: how many cases the check judges: each gets its share of FB_TREND_ALPHA. */
enum fb_status fb_trend_judge(const struct fb_trend_points *points, size_t cases_count,
                              struct fb_arena *arena, struct fb_trend *trend,
                              struct fb_error *error) FB_MUST_CHECK;

#endif
