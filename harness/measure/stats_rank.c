/* Signed ranks: see stats_rank.h. */
#include "stats_rank.h"

#include "stats_infer.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

struct ranked {
    double magnitude;
    bool above;
    size_t rank_twice; /* ties share the mean of their ranks: twice it is a whole number */
};

static int compare_magnitudes(const void *a, const void *b)
{
    const double x = ((const struct ranked *)a)->magnitude;
    const double y = ((const struct ranked *)b)->magnitude;
    return (x > y) - (x < y);
}

/* Leaves out what equals the shift; returns how many are left. */
static size_t rank_differences(const double *differences, size_t count, double shift,
                               struct ranked *ranked)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        const double d = differences[i] - shift;
        if (d != 0.0)
            ranked[kept++] = (struct ranked){fabs(d), d > 0.0, 0};
    }
    if (kept > 1)
        qsort(ranked, kept, sizeof *ranked, compare_magnitudes);
    for (size_t first = 0, next; first < kept; first = next) {
        for (next = first + 1; next < kept && ranked[next].magnitude <= ranked[first].magnitude;)
            next++;
        for (size_t i = first; i < next; i++)
            ranked[i].rank_twice = first + 1 + next;
    }
    return kept;
}

/* The distribution of twice the statistic when every sign is a fair coin: chances[s] of sum s, one
 * rank after the other. Sums of at most a few hundred terms of one sign: rounding stays at 1e-14.
 */
static void count_sums(const struct ranked *ranked, size_t count, double *chances)
{
    size_t total = 0;
    chances[0] = 1.0;
    for (size_t i = 0; i < count; i++) {
        const size_t rank = ranked[i].rank_twice;
        for (size_t s = total + 1; s <= total + rank; s++)
            chances[s] = 0.0;
        total += rank;
        for (size_t s = total; s >= rank; s--)
            chances[s] = 0.5 * (chances[s] + chances[s - rank]);
        for (size_t s = 0; s < rank; s++)
            chances[s] *= 0.5;
    }
}

static enum fb_status test_exactly(const struct ranked *ranked, size_t count, size_t sum_twice,
                                   struct fb_signed_rank *result, struct fb_error *error)
{
    const size_t total = count * (count + 1);
    double *chances = calloc(total + 1, sizeof *chances);
    if (chances == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the ranks of %zu differences",
                            count);
    count_sums(ranked, count, chances);
    double less = 0.0;
    double greater = 0.0;
    for (size_t s = 0; s <= sum_twice; s++)
        less += chances[s];
    for (size_t s = total + 1; s-- > sum_twice;)
        greater += chances[s];
    free(chances);
    result->p_less = fmin(less, 1.0);
    result->p_greater = fmin(greater, 1.0);
    return FB_OK;
}

static void test_by_normal(const struct ranked *ranked, size_t count, struct fb_signed_rank *result)
{
    const double n = (double)count;
    const double mean = n * (n + 1.0) / 4.0;
    double ties = 0.0;
    for (size_t first = 0, next; first < count; first = next) {
        for (next = first + 1; next < count && ranked[next].rank_twice == ranked[first].rank_twice;)
            next++;
        const double t = (double)(next - first);
        ties += t * (t * t - 1.0);
    }
    const double deviation = sqrt(n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - ties / 48.0);
    result->p_greater = fb_stats_normal_cdf(-(result->statistic - 0.5 - mean) / deviation);
    result->p_less = fb_stats_normal_cdf((result->statistic + 0.5 - mean) / deviation);
}

enum fb_status fb_stats_signed_rank(const double *differences, size_t count, double shift,
                                    enum fb_signed_rank_method method,
                                    struct fb_signed_rank *result, struct fb_error *error)
{
    *result = (struct fb_signed_rank){0, 0.0, 1.0, 1.0};
    if (count == 0)
        return FB_OK;
    struct ranked *ranked = calloc(count, sizeof *ranked);
    if (ranked == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu differences", count);
    const size_t kept = rank_differences(differences, count, shift, ranked);
    size_t sum_twice = 0;
    for (size_t i = 0; i < kept; i++)
        sum_twice += ranked[i].above ? ranked[i].rank_twice : 0;
    result->count = kept;
    result->statistic = (double)sum_twice / 2.0;
    enum fb_status status = FB_OK;
    if (kept > 0 && (method == FB_SIGNED_RANK_EXACT ||
                     (method == FB_SIGNED_RANK_AUTO && kept <= FB_SIGNED_RANK_EXACT_MAX)))
        status = test_exactly(ranked, kept, sum_twice, result, error);
    else if (kept > 0)
        test_by_normal(ranked, kept, result);
    free(ranked);
    return status;
}

/* The largest k with P(W < k) <= alpha/2 for ranks without ties: the interval leaves out the k - 1
 * lowest and highest of the means. 0: none. */
static enum fb_status critical_rank(size_t count, double alpha, size_t *rank,
                                    struct fb_error *error)
{
    const double n = (double)count;
    if (count > FB_SIGNED_RANK_EXACT_MAX) {
        const double deviation = sqrt(n * (n + 1.0) * (2.0 * n + 1.0) / 24.0);
        const double at =
            n * (n + 1.0) / 4.0 + 0.5 + fb_stats_normal_quantile(alpha / 2.0) * deviation;
        *rank = at > 0.0 ? (size_t)at : 0;
        return FB_OK;
    }
    const size_t total = count * (count + 1);
    struct ranked *ranked = calloc(count, sizeof *ranked);
    double *chances = calloc(total + 1, sizeof *chances);
    enum fb_status status = FB_OK;
    if (ranked == NULL || chances == NULL) {
        status = fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu ranks", count);
    } else {
        for (size_t i = 0; i < count; i++)
            ranked[i].rank_twice = 2 * (i + 1);
        count_sums(ranked, count, chances);
        double below = 0.0;
        size_t k = 0;
        while (2 * k <= total && below + chances[2 * k] <= alpha / 2.0)
            below += chances[2 * k++];
        *rank = k;
    }
    free(ranked);
    free(chances);
    return status;
}

enum fb_status fb_stats_hodges_lehmann(const double *differences, size_t count, double alpha,
                                       double *estimate, struct fb_interval *interval,
                                       struct fb_error *error)
{
    *estimate = (double)NAN;
    *interval = (struct fb_interval){-(double)INFINITY, (double)INFINITY};
    if (count == 0)
        return FB_OK;
    const size_t means_count = count * (count + 1) / 2;
    size_t rank = 0;
    enum fb_status status = critical_rank(count, alpha, &rank, error);
    if (status != FB_OK)
        return status;
    double *means = calloc(means_count, sizeof *means);
    if (means == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the means of %zu differences",
                            count);
    size_t filled = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t j = i; j < count; j++)
            means[filled++] = differences[i] + (differences[j] - differences[i]) / 2.0;
    fb_stats_sort(means, means_count);
    *estimate = fb_stats_median(means, means_count);
    if (rank > 0)
        *interval = (struct fb_interval){means[rank - 1], means[means_count - rank]};
    free(means);
    return FB_OK;
}
