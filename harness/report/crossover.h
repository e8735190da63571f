/*
 * Where a mechanism overtakes softmax: the sign changes of the log ratio of their times,
 * interpolated between neighbouring sizes that both were measured at. Never extrapolated: a
 * mechanism that is faster everywhere crosses "< smallest size", one that never is "> largest".
 */
#ifndef FB_CROSSOVER_H
#define FB_CROSSOVER_H

#include "series.h"

struct fb_crossing {
    double size;         /* log-log interpolated */
    bool becomes_faster; /* than the reference, towards larger sizes */
};

enum fb_crossover_kind {
    FB_CROSSOVER_NONE,  /* no reference, or no size that both were measured at */
    FB_CROSSOVER_BELOW, /* faster at every size: "< smallest" */
    FB_CROSSOVER_ABOVE, /* slower at the largest size: "> largest", whatever crossings there are */
    FB_CROSSOVER_INSIDE /* faster from the last crossing on */
};

struct fb_crossover {
    enum fb_crossover_kind kind;
    const struct fb_series *reference;
    double size_min, size_max;           /* of the common sizes */
    const struct fb_crossing *crossings; /* every sign change, ascending */
    size_t crossings_count;
    double size;               /* INSIDE: the last crossing; BELOW: 0; ABOVE: infinity */
    struct fb_spread interval; /* 95 % of size; may be 0 or infinite at the edges */
};

/* The sign changes of log_ratio = ln(t / t_reference) over ascending sizes; out has room for
 * count - 1. A ratio of exactly 1 takes the sign that follows it. Returns how many. */
size_t fb_crossover_find(const double *sizes, const double *log_ratio, size_t count,
                         struct fb_crossing *out);

enum fb_status fb_crossover_of(const struct fb_series *series, const struct fb_series *reference,
                               uint64_t seed, struct fb_arena *arena,
                               struct fb_crossover *crossover,
                               struct fb_error *error) FB_MUST_CHECK;

#endif
