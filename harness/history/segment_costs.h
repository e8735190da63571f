/*
 * What each stretch of a series costs when one level stands for it: the least weighted sum of
 * absolute residuals, which the weighted median gives. Private to the room.
 */
#ifndef FB_SEGMENT_COSTS_H
#define FB_SEGMENT_COSTS_H

#include "status.h"

#include <stddef.h>

struct fb_segment_costs {
    double *table; /* owned; the upper triangle, row by row */
    size_t count;
};

/* O(n^2 log n) time and n^2/2 numbers. Weights are positive, values finite. */
enum fb_status fb_segment_costs_init(struct fb_segment_costs *costs, const double *values,
                                     const double *weights, size_t count,
                                     struct fb_error *error) FB_MUST_CHECK;
void fb_segment_costs_free(struct fb_segment_costs *costs);

/* Of the points first .. last, both included. */
double fb_segment_costs_at(const struct fb_segment_costs *costs, size_t first, size_t last);

/* The weighted median: of the values sorted, the first at which half of the weight is reached, or
 * the middle between it and the next where it is exactly half. */
double fb_segment_level(const double *values, const double *weights, size_t first, size_t count,
                        double *scratch);

#endif
