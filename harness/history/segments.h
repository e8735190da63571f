/*
 * Change points of a series: the piecewise-constant fit in the L1 norm that minimises
 *
 *     gamma k + sum w |y - level|         k segments, w = 2 / interval width
 *
 * by dynamic programming, with gamma chosen by the least of beta k + ln(spread), beta = 4 ln n / n,
 * spread = sum w |y - level| / sum w. Reference: docs/history.md; the method is that of airspeed
 * velocity (asv), whose approximate search for gamma is replaced by an exact one: the fits that
 * some gamma prefers are the corners of the lower convex hull of (k, cost), so each is looked at.
 *
 * Pure functions: arrays in, segments out.
 */
#ifndef FB_SEGMENTS_H
#define FB_SEGMENTS_H

#include "arena.h"

#include <stddef.h>

enum {
    FB_SEGMENTS_POINTS_MIN = 4,    /* fewer are one segment */
    FB_SEGMENTS_POINTS_MAX = 2000, /* the table of costs has half of its square */
    FB_SEGMENTS_MAX = 64
};

struct fb_segment {
    size_t first, count; /* points */
    double level;        /* the weighted median */
    double error;        /* of the level: the mean weighted |residual|; see fb_segments_find */
};

struct fb_segmentation {
    struct fb_segment *segments; /* in the arena */
    size_t count;                /* 0 only for no points */
    double gamma;                /* of the fit chosen; NaN when there was no choice */
    double spread;               /* of all residuals */
};

/* Values are finite (logarithms of medians), widths those of their intervals. A width below a tenth
 * of the median positive one counts as that tenth, so that one interval of width zero (a coarse
 * clock) cannot outweigh the rest; when none is positive, all points weigh the same. The error of a
 * segment of fewer than FB_SEGMENTS_POINTS_MIN points is at least the spread of the whole series.
 * FB_ERROR_USAGE beyond FB_SEGMENTS_POINTS_MAX points. */
enum fb_status fb_segments_find(const double *values, const double *widths, size_t count,
                                struct fb_arena *arena, struct fb_segmentation *segmentation,
                                struct fb_error *error) FB_MUST_CHECK;

/* The weights that fb_segments_find uses. */
enum fb_status fb_segments_weights(const double *widths, size_t count, struct fb_arena *arena,
                                   double **weights, struct fb_error *error) FB_MUST_CHECK;

/* The least cost of exactly k segments for k = 1 .. segments_max, and their first points:
 * starts[k - 1] has k of them. What fb_segments_find chooses from. */
struct fb_segment_fits {
    size_t segments_max;
    double *costs;
    size_t **starts;
};
enum fb_status fb_segment_fits_find(const double *values, const double *weights, size_t count,
                                    struct fb_arena *arena, struct fb_segment_fits *fits,
                                    struct fb_error *error) FB_MUST_CHECK;

#endif
