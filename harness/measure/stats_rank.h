/*
 * Wilcoxon's signed-rank test of paired differences, one-sided, against a shift, and the estimate
 * and interval that belong to it (Hodges & Lehmann). Assumes that the differences are symmetric
 * about their median, nothing else about their distribution.
 * Reference: Hollander, Wolfe & Chicken, Nonparametric Statistical Methods, 3.1 to 3.3.
 */
#ifndef FB_STATS_RANK_H
#define FB_STATS_RANK_H

#include "stats.h"
#include "status.h"

enum { FB_SIGNED_RANK_EXACT_MAX = 200 };

enum fb_signed_rank_method {
    FB_SIGNED_RANK_AUTO,   /* exact up to FB_SIGNED_RANK_EXACT_MAX differences, normal above */
    FB_SIGNED_RANK_EXACT,  /* conditional on the ties, which it counts exactly, too */
    FB_SIGNED_RANK_NORMAL, /* with the corrections for ties and for continuity */
};

struct fb_signed_rank {
    size_t count;     /* differences other than the shift: those equal to it say nothing */
    double statistic; /* sum of the ranks of the differences above the shift; ties share theirs */
    double p_greater; /* P(statistic or more), were the median the shift */
    double p_less;    /* P(statistic or less) */
};

/* Without any difference other than the shift both p are 1. NaN is not allowed. FB_ERROR_MEMORY. */
enum fb_status fb_stats_signed_rank(const double *differences, size_t count, double shift,
                                    enum fb_signed_rank_method method,
                                    struct fb_signed_rank *result,
                                    struct fb_error *error) FB_MUST_CHECK;

/* The median of all means of two differences (each with itself, too), and its interval at level
 * 1 - alpha: it excludes a shift when the two-sided test rejects it at alpha. The interval is
 * infinite when the count is too small for one (n < 6 at 5 %, n < 8 at 1 %). Needs count^2/2
 * numbers of memory. FB_ERROR_MEMORY. */
enum fb_status fb_stats_hodges_lehmann(const double *differences, size_t count, double alpha,
                                       double *estimate, struct fb_interval *interval,
                                       struct fb_error *error) FB_MUST_CHECK;

#endif
