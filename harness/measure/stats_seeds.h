/*
 * What a handful of training runs that differ in their seed say: the mean's interval, where a
 * further run would fall, and whether one mechanism beats another over seeds and examples.
 */
#ifndef FB_STATS_SEEDS_H
#define FB_STATS_SEEDS_H

#include "stats.h"
#include "status.h"

#include <stdint.h>

/* Standard deviation with n - 1; NaN below two values. */
double fb_stats_deviation(const double *values, size_t count);

/* Student's interval of the mean at level 1 - alpha; NaN below two values. */
struct fb_interval fb_stats_mean_interval(const double *values, size_t count, double alpha);

/* Where one further value of the same kind falls with probability 1 - alpha: mean +- t s
 * sqrt(1 + 1/n); NaN below two values. */
struct fb_interval fb_stats_prediction_interval(const double *values, size_t count, double alpha);

struct fb_stats_paired {
    double difference; /* mean of a less mean of b */
    struct fb_interval interval;
    double p; /* two-sided, of no difference */
};

/* Resamples seeds and examples together, `resamples` times. a[s] and b[s] are the bits ('0' or '1',
 * `examples` of them) of one seed under two mechanisms: the same seed, the same examples.
 * Percentile interval at level 1 - alpha. FB_ERROR_INPUT without seeds or examples. */
enum fb_status fb_stats_bootstrap_paired(const char *const *a, const char *const *b, size_t seeds,
                                         size_t examples, double alpha, size_t resamples,
                                         uint64_t random_seed, struct fb_stats_paired *result,
                                         struct fb_error *error) FB_MUST_CHECK;

#endif
