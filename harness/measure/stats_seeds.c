/* Runs that differ in their seed: see stats_seeds.h. */
#include "stats_seeds.h"

#include "random.h"
#include "student.h"

#include <math.h>
#include <stdlib.h>

double fb_stats_deviation(const double *values, size_t count)
{
    const double mean = fb_stats_mean(values, count);
    double squares = 0.0;
    for (size_t i = 0; i < count; i++)
        squares += (values[i] - mean) * (values[i] - mean);
    return count > 1 ? sqrt(squares / (double)(count - 1)) : (double)NAN;
}

/* mean +- t s times `spread`. */
static struct fb_interval around_mean(const double *values, size_t count, double alpha,
                                      double spread)
{
    if (count < 2)
        return (struct fb_interval){(double)NAN, (double)NAN};
    const double mean = fb_stats_mean(values, count);
    const double half = fb_student_quantile(0.5 * alpha, (long)count - 1) *
                        fb_stats_deviation(values, count) * spread;
    return (struct fb_interval){mean - half, mean + half};
}

struct fb_interval fb_stats_mean_interval(const double *values, size_t count, double alpha)
{
    return around_mean(values, count, alpha, sqrt(1.0 / (double)count));
}

struct fb_interval fb_stats_prediction_interval(const double *values, size_t count, double alpha)
{
    return around_mean(values, count, alpha, sqrt(1.0 + 1.0 / (double)count));
}

/* ---- the paired bootstrap -------------------------------------------------------------------- */

struct pairs {
    signed char *differences; /* [seeds, examples]: -1, 0 or 1 */
    size_t seeds, examples;
    unsigned *times; /* how often each example was drawn */
};

static double mean_difference(const struct pairs *p)
{
    double sum = 0.0;
    for (size_t i = 0; i < p->seeds * p->examples; i++)
        sum += p->differences[i];
    return sum / (double)(p->seeds * p->examples);
}

static double resampled(const struct pairs *p, struct fb_random *random)
{
    double sum = 0.0;
    for (size_t e = 0; e < p->examples; e++)
        p->times[e] = 0;
    for (size_t e = 0; e < p->examples; e++)
        p->times[fb_random_below(random, p->examples)]++;
    for (size_t s = 0; s < p->seeds; s++) {
        const signed char *row = p->differences + fb_random_below(random, p->seeds) * p->examples;
        long total = 0;
        for (size_t e = 0; e < p->examples; e++)
            total += (long)p->times[e] * row[e];
        sum += (double)total;
    }
    return sum / (double)(p->seeds * p->examples);
}

static void judge(const struct pairs *p, double *drawn, size_t resamples, double alpha,
                  uint64_t random_seed, struct fb_stats_paired *result)
{
    struct fb_random random;
    size_t below = 0, above = 0;
    fb_random_init(&random, random_seed, 0);
    for (size_t i = 0; i < resamples; i++) {
        drawn[i] = resampled(p, &random);
        below += drawn[i] <= 0.0;
        above += drawn[i] >= 0.0;
    }
    fb_stats_sort(drawn, resamples);
    result->difference = mean_difference(p);
    result->interval.low = fb_stats_quantile(drawn, resamples, 0.5 * alpha);
    result->interval.high = fb_stats_quantile(drawn, resamples, 1.0 - 0.5 * alpha);
    const double tail = (double)((below < above ? below : above) + 1) / (double)(resamples + 1);
    result->p = fmin(1.0, 2.0 * tail);
}

enum fb_status fb_stats_bootstrap_paired(const char *const *a, const char *const *b, size_t seeds,
                                         size_t examples, double alpha, size_t resamples,
                                         uint64_t random_seed, struct fb_stats_paired *result,
                                         struct fb_error *error)
{
    if (seeds == 0 || examples == 0)
        return fb_error_set(error, FB_ERROR_INPUT, "a paired bootstrap needs seeds and examples");
    struct pairs p = {.differences = malloc(seeds * examples),
                      .seeds = seeds,
                      .examples = examples,
                      .times = calloc(examples, sizeof *p.times)};
    double *drawn = calloc(resamples, sizeof *drawn);
    enum fb_status status = FB_OK;
    if (p.differences && p.times && drawn) {
        for (size_t s = 0; s < seeds; s++)
            for (size_t e = 0; e < examples; e++)
                p.differences[s * examples + e] = (signed char)(a[s][e] - b[s][e]);
        judge(&p, drawn, resamples, alpha, random_seed, result);
    } else {
        status = fb_error_set(error, FB_ERROR_MEMORY, "no memory for a paired bootstrap");
    }
    free(p.differences);
    free(p.times);
    free(drawn);
    return status;
}
