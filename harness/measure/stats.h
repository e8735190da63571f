/*
 * Statistics of samples that make no assumption about their distribution.
 * Reference: docs/measuring.md; the median interval is the order-statistic interval (Conover,
 * Practical Nonparametric Statistics, "confidence interval for a quantile").
 */
#ifndef FB_STATS_H
#define FB_STATS_H

#include <stddef.h>

/* Ascending, in place. NaN is not allowed. */
void fb_stats_sort(double *values, size_t count);

/* Of values sorted ascending; NaN when there are none. The median of an even number is the mean of
 * the middle two. Quantiles interpolate linearly between order statistics (type 7). */
double fb_stats_median(const double *sorted, size_t count);
double fb_stats_quantile(const double *sorted, size_t count, double probability);
double fb_stats_mean(const double *values, size_t count);

/* P(Bin(n, 1/2) <= k); 0 for k < 0. Exact to rounding for every n. */
double fb_stats_binomial_half_cdf(long k, long n);

/* The rank k (counted from 1) of the exact interval [x(k), x(n+1-k)] of the median: the largest k
 * with P(Bin(n, 1/2) < k) <= alpha/2. 0 when n is too small for one (n < 6 at alpha 0.05). */
size_t fb_stats_median_rank(size_t count, double alpha);

struct fb_interval {
    double low, high;
};

/* That interval at level 1 - alpha; minimum and maximum where there is none; NaN when empty. */
struct fb_interval fb_stats_median_interval(const double *sorted, size_t count, double alpha);

enum fb_outlier { FB_OUTLIER_NONE, FB_OUTLIER_MILD, FB_OUTLIER_SEVERE };

/* Tukey's fences: beyond 1.5 and 3 interquartile ranges from the quartiles. */
enum fb_outlier fb_stats_outlier(const double *sorted, size_t count, double value);

/* How many values are outliers, mild and severe apart; labelled, never dropped. */
void fb_stats_outliers(const double *sorted, size_t count, size_t *mild, size_t *severe);

/* Everything a row needs of its samples. */
struct fb_summary {
    size_t count;
    double median, low, high; /* the interval at 95 % */
    double min, max, mean;
    size_t outliers_mild, outliers_severe;
};

/* Sorts the values in place. */
void fb_stats_summarise(double *values, size_t count, struct fb_summary *summary);

#endif
