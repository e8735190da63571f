/*
 * What decisions are made of beside stats.h and stats_rank.h: the normal distribution, corrections
 * for many comparisons, intervals of a proportion, the bootstrap of a ratio, and the effect that a
 * signed-rank test can detect.
 */
#ifndef FB_STATS_INFER_H
#define FB_STATS_INFER_H

#include "stats.h"
#include "status.h"

#include <stdint.h>

/* ---- the normal distribution ------------------------------------------------------------------
 */

double fb_stats_normal_cdf(double z);
/* Its inverse; probability in (0, 1), to 1e-12. */
double fb_stats_normal_quantile(double probability);

/* ---- many comparisons -------------------------------------------------------------------------
 */

/* Holm's adjusted p-values, in the order of p; comparing each with alpha keeps the chance of any
 * false rejection at alpha. adjusted may be p. FB_ERROR_MEMORY. */
enum fb_status fb_stats_holm(const double *p, size_t count, double *adjusted,
                             struct fb_error *error) FB_MUST_CHECK;

/* ---- a proportion -----------------------------------------------------------------------------
 */

/* P(Bin(trials, probability) <= hits). */
double fb_stats_binomial_cdf(long hits, long trials, double probability);

/* Clopper and Pearson's exact interval of a proportion at level 1 - alpha; [0, 1] without trials.
 * 0 <= hits <= trials. */
struct fb_interval fb_stats_clopper_pearson(long hits, long trials, double alpha);

/* ---- two samples ------------------------------------------------------------------------------
 */

/* One side of a comparison: values of groups (processes), or values that are groups of their own.
 */
struct fb_stats_group {
    const double *values;
    size_t count;
};

struct fb_stats_ratio {
    double log_ratio;            /* ln(median of new / median of base) */
    struct fb_interval interval; /* of it: bootstrap percentiles at level 1 - alpha */
    double deviation;            /* standard error of it, by the bootstrap */
};

/* Resamples each side on its own, `resamples` times. Values are positive. Equal arguments give
 * equal results. FB_ERROR_INPUT without values, FB_ERROR_MEMORY. */
enum fb_status fb_stats_bootstrap_ratio(struct fb_stats_group base, struct fb_stats_group fresh,
                                        double alpha, size_t resamples, uint64_t seed,
                                        struct fb_stats_ratio *ratio,
                                        struct fb_error *error) FB_MUST_CHECK;

/* ---- power ------------------------------------------------------------------------------------
 */

/* The probability that a one-sided signed-rank test of `pairs` differences rejects at alpha when
 * their true median lies `shift` above the tested one and they are normal with this deviation. By
 * the asymptotic efficiency of the test (3/pi of the t test's). */
double fb_stats_signed_rank_power(double shift, double deviation, size_t pairs, double alpha);

/* The shift that it finds with the given power: the minimum detectable effect. */
double fb_stats_signed_rank_detectable(double deviation, size_t pairs, double alpha, double power);

#endif
