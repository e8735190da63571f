/* Distributions, corrections, intervals, bootstrap, power: see stats_infer.h. */
#include "stats_infer.h"

#include "random.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- the normal distribution ------------------------------------------------------------------
 */

double fb_stats_normal_cdf(double z)
{
    return 0.5 * erfc(-z / sqrt(2.0));
}

double fb_stats_normal_quantile(double probability)
{
    assert(probability > 0.0 && probability < 1.0);
    double low = -39.0; /* the cdf underflows here */
    double high = 39.0;
    for (int i = 0; i < 100 && high - low > 1e-14; i++) {
        const double middle = low + (high - low) / 2.0;
        if (fb_stats_normal_cdf(middle) < probability)
            low = middle;
        else
            high = middle;
    }
    return low + (high - low) / 2.0;
}

/* ---- many comparisons -------------------------------------------------------------------------
 */

struct indexed {
    double p;
    size_t index;
};

static int compare_p(const void *a, const void *b)
{
    const double x = ((const struct indexed *)a)->p;
    const double y = ((const struct indexed *)b)->p;
    return (x > y) - (x < y);
}

enum fb_status fb_stats_holm(const double *p, size_t count, double *adjusted,
                             struct fb_error *error)
{
    if (count == 0)
        return FB_OK;
    struct indexed *sorted = calloc(count, sizeof *sorted);
    if (sorted == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu p-values", count);
    for (size_t i = 0; i < count; i++)
        sorted[i] = (struct indexed){p[i], i};
    qsort(sorted, count, sizeof *sorted, compare_p);
    double largest = 0.0;
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, fmin(1.0, (double)(count - i) * sorted[i].p));
        adjusted[sorted[i].index] = largest;
    }
    free(sorted);
    return FB_OK;
}

/* ---- a proportion -----------------------------------------------------------------------------
 */

double fb_stats_binomial_cdf(long hits, long trials, double probability)
{
    assert(trials >= 0 && probability >= 0.0 && probability <= 1.0);
    if (hits < 0)
        return 0.0;
    if (hits >= trials || probability <= 0.0)
        return 1.0;
    if (probability >= 1.0)
        return 0.0;
    /* In logarithms, as (1 - p)^n underflows. */
    const double log_odds = log(probability) - log1p(-probability);
    double log_term = (double)trials * log1p(-probability);
    double sum = 0.0;
    for (long i = 0; i <= hits; i++) {
        sum += exp(log_term);
        log_term += log((double)(trials - i)) - log((double)(i + 1)) + log_odds;
    }
    return fmin(sum, 1.0);
}

/* The probability at which P(Bin <= hits), which falls with it, is `chance`. */
static double probability_at(long hits, long trials, double chance)
{
    double low = 0.0;
    double high = 1.0;
    for (int i = 0; i < 100 && high - low > 1e-15; i++) {
        const double middle = low + (high - low) / 2.0;
        if (fb_stats_binomial_cdf(hits, trials, middle) > chance)
            low = middle;
        else
            high = middle;
    }
    return low + (high - low) / 2.0;
}

struct fb_interval fb_stats_clopper_pearson(long hits, long trials, double alpha)
{
    assert(hits >= 0 && hits <= trials);
    struct fb_interval interval = {0.0, 1.0};
    if (hits > 0)
        interval.low = probability_at(hits - 1, trials, 1.0 - alpha / 2.0);
    if (hits < trials)
        interval.high = probability_at(hits, trials, alpha / 2.0);
    return interval;
}

/* ---- two samples ------------------------------------------------------------------------------
 */

/* A side sorted once: a resample is how often each of its values was drawn. */
struct resampler {
    double *sorted;
    uint32_t *drawn;
    size_t count;
};

static bool resampler_init(struct resampler *side, struct fb_stats_group group)
{
    side->count = group.count;
    side->sorted = calloc(group.count, sizeof *side->sorted);
    side->drawn = calloc(group.count, sizeof *side->drawn);
    if (side->sorted == NULL || side->drawn == NULL)
        return false;
    memcpy(side->sorted, group.values, group.count * sizeof *side->sorted);
    fb_stats_sort(side->sorted, group.count);
    return true;
}

static void resampler_free(struct resampler *side)
{
    free(side->sorted);
    free(side->drawn);
}

static double resampled_median(struct resampler *side, struct fb_random *random)
{
    const size_t low_rank = (side->count - 1) / 2;
    const size_t high_rank = side->count / 2;
    size_t passed = 0;
    size_t i = 0;

    memset(side->drawn, 0, side->count * sizeof *side->drawn);
    for (size_t draw = 0; draw < side->count; draw++)
        side->drawn[fb_random_below(random, side->count)]++;
    for (; passed + side->drawn[i] <= low_rank; i++)
        passed += side->drawn[i];
    const double low = side->sorted[i];
    for (; passed + side->drawn[i] <= high_rank; i++)
        passed += side->drawn[i];
    return low + (side->sorted[i] - low) / 2.0;
}

static double deviation_of(const double *values, size_t count)
{
    const double mean = fb_stats_mean(values, count);
    double sum = 0.0;
    for (size_t i = 0; i < count; i++)
        sum += (values[i] - mean) * (values[i] - mean);
    return sqrt(sum / (double)(count - 1));
}

enum fb_status fb_stats_bootstrap_ratio(struct fb_stats_group base, struct fb_stats_group fresh,
                                        double alpha, size_t resamples, uint64_t seed,
                                        struct fb_stats_ratio *ratio, struct fb_error *error)
{
    struct fb_random random;
    struct resampler old_side = {0};
    struct resampler new_side = {0};
    enum fb_status status = FB_OK;

    assert(resamples >= 2);
    if (base.count == 0 || fresh.count == 0)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "a ratio needs values on both sides: %zu and %zu", base.count,
                            fresh.count);
    double *ratios = calloc(resamples, sizeof *ratios);
    if (!resampler_init(&old_side, base) || !resampler_init(&new_side, fresh) || ratios == NULL) {
        status = fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu resamples", resamples);
    } else {
        fb_random_init(&random, seed, 0);
        for (size_t i = 0; i < resamples; i++) {
            const double denominator = resampled_median(&old_side, &random);
            ratios[i] = log(resampled_median(&new_side, &random) / denominator);
        }
        ratio->log_ratio = log(fb_stats_median(new_side.sorted, new_side.count) /
                               fb_stats_median(old_side.sorted, old_side.count));
        ratio->deviation = deviation_of(ratios, resamples);
        fb_stats_sort(ratios, resamples);
        ratio->interval.low = fb_stats_quantile(ratios, resamples, alpha / 2.0);
        ratio->interval.high = fb_stats_quantile(ratios, resamples, 1.0 - alpha / 2.0);
    }
    resampler_free(&old_side);
    resampler_free(&new_side);
    free(ratios);
    return status;
}

/* ---- power ------------------------------------------------------------------------------------
 */

/* Standard error of the median as the test sees it. */
static double rank_deviation(double deviation, size_t pairs)
{
    const double efficiency = 3.0 / 3.14159265358979323846;
    return deviation / sqrt(efficiency * (double)pairs);
}

double fb_stats_signed_rank_power(double shift, double deviation, size_t pairs, double alpha)
{
    assert(pairs > 0 && alpha > 0.0 && alpha < 1.0);
    if (deviation <= 0.0)
        return shift > 0.0 ? 1.0 : 0.0;
    return fb_stats_normal_cdf(shift / rank_deviation(deviation, pairs) +
                               fb_stats_normal_quantile(alpha));
}

double fb_stats_signed_rank_detectable(double deviation, size_t pairs, double alpha, double power)
{
    assert(pairs > 0 && alpha > 0.0 && alpha < 1.0 && power > 0.0 && power < 1.0);
    return rank_deviation(deviation, pairs) *
           (fb_stats_normal_quantile(power) - fb_stats_normal_quantile(alpha));
}
