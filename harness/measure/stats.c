/* Order statistics: see stats.h for what each function promises. */
#include "stats.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

void fb_stats_sort(double *values, size_t count)
{
    if (count > 1)
        qsort(values, count, sizeof *values, compare_doubles);
}

double fb_stats_quantile(const double *sorted, size_t count, double probability)
{
    assert(probability >= 0.0 && probability <= 1.0);
    if (count == 0)
        return (double)NAN;
    const double position = probability * (double)(count - 1);
    const size_t below = (size_t)position;
    if (below + 1 >= count)
        return sorted[count - 1];
    const double fraction = position - (double)below;
    return sorted[below] + fraction * (sorted[below + 1] - sorted[below]);
}

double fb_stats_median(const double *sorted, size_t count)
{
    if (count == 0)
        return (double)NAN;
    if (count % 2 == 1)
        return sorted[count / 2];
    const double low = sorted[count / 2 - 1];
    const double high = sorted[count / 2];
    return low + (high - low) / 2.0;
}

double fb_stats_mean(const double *values, size_t count)
{
    if (count == 0)
        return (double)NAN;
    double mean = 0.0;
    for (size_t i = 0; i < count; i++)
        mean += (values[i] - mean) / (double)(i + 1);
    return mean;
}

/* From log(C(n, i) 2^-n) to the same of i + 1. In logarithms, since 2^-n vanishes from n = 1075 on;
 * not by lgamma, which writes the global signgam. */
static double next_log_term(double log_term, long i, long n)
{
    return log_term + log((double)(n - i)) - log((double)(i + 1));
}

double fb_stats_binomial_half_cdf(long k, long n)
{
    assert(n >= 0);
    if (k < 0)
        return 0.0;
    if (k >= n)
        return 1.0;
    double log_term = -(double)n * log(2.0);
    double sum = 0.0;
    for (long i = 0; i <= k; i++) {
        sum += exp(log_term);
        log_term = next_log_term(log_term, i, n);
    }
    return sum < 1.0 ? sum : 1.0;
}

size_t fb_stats_median_rank(size_t count, double alpha)
{
    /* P(Bin < k) grows with k: add terms until the next one would pass the limit. */
    const long n = (long)count;
    double log_term = -(double)n * log(2.0);
    double below = 0.0;
    long k = 0;
    while (k < n) {
        below += exp(log_term);
        if (below > alpha / 2.0)
            break;
        log_term = next_log_term(log_term, k, n);
        k++;
    }
    return (size_t)k;
}

struct fb_interval fb_stats_median_interval(const double *sorted, size_t count, double alpha)
{
    if (count == 0)
        return (struct fb_interval){(double)NAN, (double)NAN};
    const size_t k = fb_stats_median_rank(count, alpha);
    if (k == 0)
        return (struct fb_interval){sorted[0], sorted[count - 1]};
    return (struct fb_interval){sorted[k - 1], sorted[count - k]};
}

enum fb_outlier fb_stats_outlier(const double *sorted, size_t count, double value)
{
    if (count == 0)
        return FB_OUTLIER_NONE;
    const double low = fb_stats_quantile(sorted, count, 0.25);
    const double high = fb_stats_quantile(sorted, count, 0.75);
    const double range = high - low;
    if (value < low - 3.0 * range || value > high + 3.0 * range)
        return FB_OUTLIER_SEVERE;
    if (value < low - 1.5 * range || value > high + 1.5 * range)
        return FB_OUTLIER_MILD;
    return FB_OUTLIER_NONE;
}

void fb_stats_outliers(const double *sorted, size_t count, size_t *mild, size_t *severe)
{
    *mild = 0;
    *severe = 0;
    for (size_t i = 0; i < count; i++) {
        const enum fb_outlier outlier = fb_stats_outlier(sorted, count, sorted[i]);
        *mild += outlier == FB_OUTLIER_MILD;
        *severe += outlier == FB_OUTLIER_SEVERE;
    }
}

void fb_stats_summarise(double *values, size_t count, struct fb_summary *summary)
{
    fb_stats_sort(values, count);
    const struct fb_interval interval = fb_stats_median_interval(values, count, 0.05);
    *summary = (struct fb_summary){
        .count = count,
        .median = fb_stats_median(values, count),
        .low = interval.low,
        .high = interval.high,
        .min = count > 0 ? values[0] : (double)NAN,
        .max = count > 0 ? values[count - 1] : (double)NAN,
        .mean = fb_stats_mean(values, count),
    };
    fb_stats_outliers(values, count, &summary->outliers_mild, &summary->outliers_severe);
}
