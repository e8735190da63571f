/* Statistics against published and independently computed values. */
#include "stats.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_near(double value, double wanted, double tolerance)
{
    if (!(fabs(value - wanted) <= tolerance))
        fail_msg("%.17g is not within %.3g of %.17g", value, tolerance, wanted);
}

static void test_median_even_and_odd_counts_expected(void **state)
{
    (void)state;
    double odd[] = {3.0, 1.0, 2.0};
    double even[] = {4.0, 1.0, 3.0, 2.0};
    fb_stats_sort(odd, 3);
    fb_stats_sort(even, 4);
    assert_near(fb_stats_median(odd, 3), 2.0, 0.0);
    assert_near(fb_stats_median(even, 4), 2.5, 0.0);
    assert_true(isnan(fb_stats_median(odd, 0)));
}

/* R: quantile(c(1, 2, 4, 8, 16), c(0, .1, .25, .5, .9, 1), type = 7). */
static void test_quantile_type_seven_matches_r(void **state)
{
    (void)state;
    const double x[] = {1.0, 2.0, 4.0, 8.0, 16.0};
    const double at[] = {0.0, 0.1, 0.25, 0.5, 0.9, 1.0};
    const double want[] = {1.0, 1.4, 2.0, 4.0, 12.8, 16.0};
    for (int i = 0; i < 6; i++)
        assert_near(fb_stats_quantile(x, 5, at[i]), want[i], 1e-12);
}

/* Counted by hand: P(Bin(n, 1/2) <= k) is a sum of binomial coefficients over 2^n. */
static void test_binomial_small_counts_exact(void **state)
{
    (void)state;
    assert_near(fb_stats_binomial_half_cdf(0, 6), 1.0 / 64.0, 1e-15);
    assert_near(fb_stats_binomial_half_cdf(2, 10), 56.0 / 1024.0, 1e-15);
    assert_near(fb_stats_binomial_half_cdf(5, 20), 21700.0 / 1048576.0, 1e-15);
    assert_near(fb_stats_binomial_half_cdf(-1, 6), 0.0, 0.0);
    assert_near(fb_stats_binomial_half_cdf(6, 6), 1.0, 0.0);
}

/* By symmetry P(X <= n/2 - 1/2) = 1/2 for odd n, also where 2^-n underflows. */
static void test_binomial_huge_count_does_not_underflow(void **state)
{
    (void)state;
    assert_near(fb_stats_binomial_half_cdf(5000, 10001), 0.5, 1e-9);
}

/* The table of sign-test ranks for the 95 % interval of a median, as printed in textbooks (Conover;
 * Hollander & Wolfe): the interval is [x(k), x(n+1-k)]. */
static void test_median_rank_matches_published_table(void **state)
{
    (void)state;
    static const struct {
        size_t n, rank;
    } table[] = {{5, 0},  {6, 1},   {7, 1},   {8, 1},   {9, 2},   {10, 2},
                 {11, 2}, {12, 3},  {15, 4},  {16, 4},  {17, 5},  {20, 6},
                 {25, 8}, {30, 10}, {40, 14}, {50, 18}, {100, 40}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        assert_int_equal(fb_stats_median_rank(table[i].n, 0.05), table[i].rank);
}

/* The definition itself, at every count up to a few hundred. */
static void test_median_rank_is_the_largest_admissible(void **state)
{
    (void)state;
    for (long n = 1; n <= 300; n++) {
        const long k = (long)fb_stats_median_rank((size_t)n, 0.05);
        if (k > 0)
            assert_true(fb_stats_binomial_half_cdf(k - 1, n) <= 0.025);
        assert_true(fb_stats_binomial_half_cdf(k, n) > 0.025);
    }
}

static void test_median_interval_below_six_is_the_range(void **state)
{
    (void)state;
    const double x[] = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0};
    struct fb_interval interval = fb_stats_median_interval(x, 5, 0.05);
    assert_near(interval.low, 1.0, 0.0);
    assert_near(interval.high, 5.0, 0.0);
    interval = fb_stats_median_interval(x, 10, 0.05);
    assert_near(interval.low, 2.0, 0.0);
    assert_near(interval.high, 9.0, 0.0);
    interval = fb_stats_median_interval(x, 0, 0.05);
    assert_true(isnan(interval.low) && isnan(interval.high));
}

/* Quartiles of 1..9 are 3 and 7: fences at -3 and 13, and at -9 and 19. */
static void test_outlier_fences_expected(void **state)
{
    (void)state;
    const double x[] = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0};
    assert_int_equal(fb_stats_outlier(x, 9, 13.0), FB_OUTLIER_NONE);
    assert_int_equal(fb_stats_outlier(x, 9, 13.1), FB_OUTLIER_MILD);
    assert_int_equal(fb_stats_outlier(x, 9, 19.1), FB_OUTLIER_SEVERE);
    assert_int_equal(fb_stats_outlier(x, 9, -3.1), FB_OUTLIER_MILD);
    assert_int_equal(fb_stats_outlier(x, 9, -9.1), FB_OUTLIER_SEVERE);
}

static void test_summary_keeps_outliers_and_counts_them(void **state)
{
    (void)state;
    double x[] = {5.0, 3.0, 4.0, 6.0, 100.0, 5.0, 4.0};
    struct fb_summary summary;
    fb_stats_summarise(x, 7, &summary);
    assert_int_equal(summary.count, 7);
    assert_near(summary.median, 5.0, 0.0);
    assert_near(summary.low, 3.0, 0.0);
    assert_near(summary.high, 100.0, 0.0);
    assert_near(summary.max, 100.0, 0.0);
    assert_near(summary.mean, 127.0 / 7.0, 1e-12);
    assert_int_equal(summary.outliers_severe, 1);
    assert_int_equal(summary.outliers_mild, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_median_even_and_odd_counts_expected),
        cmocka_unit_test(test_quantile_type_seven_matches_r),
        cmocka_unit_test(test_binomial_small_counts_exact),
        cmocka_unit_test(test_binomial_huge_count_does_not_underflow),
        cmocka_unit_test(test_median_rank_matches_published_table),
        cmocka_unit_test(test_median_rank_is_the_largest_admissible),
        cmocka_unit_test(test_median_interval_below_six_is_the_range),
        cmocka_unit_test(test_outlier_fences_expected),
        cmocka_unit_test(test_summary_keeps_outliers_and_counts_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
