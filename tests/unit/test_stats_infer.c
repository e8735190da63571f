/* Distributions, corrections and intervals against scipy 1.x and statsmodels; the bootstrap and the
 * power against what they claim. */
#include "stats_infer.h"

#include "random.h"
#include "stats_rank.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void assert_near(double value, double wanted, double tolerance)
{
    if (!(fabs(value - wanted) <= tolerance))
        fail_msg("%.17g is not within %.3g of %.17g", value, tolerance, wanted);
}

static void test_normal_agrees_with_scipy(void **state)
{
    (void)state;
    assert_near(fb_stats_normal_cdf(-3.0), 0.0013498980316300933, 1e-17);
    assert_near(fb_stats_normal_quantile(1e-300), -37.0470962993612, 1e-9);
    assert_near(fb_stats_normal_quantile(1e-10), -6.361340902404056, 1e-11);
    assert_near(fb_stats_normal_quantile(0.01), -2.3263478740408408, 1e-12);
    assert_near(fb_stats_normal_quantile(0.5), 0.0, 1e-12);
    assert_near(fb_stats_normal_quantile(0.975), 1.959963984540054, 1e-12);
}

static void test_binomial_agrees_with_scipy(void **state)
{
    (void)state;
    assert_near(fb_stats_binomial_cdf(3, 20, 0.3), 0.10708680450373087, 1e-14);
    assert_near(fb_stats_binomial_cdf(5000, 10001, 0.5), 0.5, 1e-9);
    assert_near(fb_stats_binomial_cdf(-1, 5, 0.5), 0.0, 0.0);
    assert_near(fb_stats_binomial_cdf(5, 5, 0.5), 1.0, 0.0);
    assert_near(fb_stats_binomial_cdf(0, 5, 0.0), 1.0, 0.0);
    assert_near(fb_stats_binomial_cdf(4, 5, 1.0), 0.0, 0.0);
}

/* scipy.stats.binomtest(hits, trials).proportion_ci(1 - alpha, "exact"). */
static void test_clopper_pearson_agrees_with_scipy(void **state)
{
    (void)state;
    static const struct {
        long hits, trials;
        double alpha, low, high;
    } table[] = {
        {0, 400, 0.05, 0.0, 0.009179804583673406},
        {1, 400, 0.05, 6.32925169048988e-05, 0.013849769962076439},
        {10, 50, 0.05, 0.10030223747222769, 0.33718310838351306},
        {95, 100, 0.05, 0.887165088894537, 0.9835681208182717},
        {100, 100, 0.05, 0.9637833073548094, 1.0},
        {3, 20, 0.01, 0.0176426379541102, 0.449465406739486},
        {1, 24000, 0.05, 1.0549080136985136e-06, 0.00023212969849043273},
        {0, 0, 0.05, 0.0, 1.0},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        const struct fb_interval interval =
            fb_stats_clopper_pearson(table[i].hits, table[i].trials, table[i].alpha);
        assert_near(interval.low, table[i].low, 1e-10);
        assert_near(interval.high, table[i].high, 1e-10);
    }
}

/* statsmodels: multipletests(p, method="holm")[1]. */
static void test_holm_agrees_with_statsmodels(void **state)
{
    (void)state;
    double p[] = {0.01, 0.04, 0.03, 0.005, 0.9, 0.04};
    const double wanted[] = {0.05, 0.12, 0.12, 0.03, 0.9, 0.12};
    struct fb_error error;
    assert_int_equal(fb_stats_holm(p, COUNT(p), p, &error), FB_OK);
    for (size_t i = 0; i < COUNT(p); i++)
        assert_near(p[i], wanted[i], 1e-15);
    assert_int_equal(fb_stats_holm(p, 0, p, &error), FB_OK);
}

static void test_bootstrap_no_spread_gives_a_point(void **state)
{
    (void)state;
    const double base[] = {2.0, 2.0, 2.0};
    const double fresh[] = {3.0, 3.0};
    struct fb_stats_ratio ratio;
    struct fb_error error;
    assert_int_equal(fb_stats_bootstrap_ratio((struct fb_stats_group){base, 3},
                                              (struct fb_stats_group){fresh, 2}, 0.05, 200, 1,
                                              &ratio, &error),
                     FB_OK);
    assert_near(ratio.log_ratio, log(1.5), 1e-15);
    assert_near(ratio.interval.low, log(1.5), 1e-15);
    assert_near(ratio.interval.high, log(1.5), 1e-15);
    assert_near(ratio.deviation, 0.0, 1e-12);
    assert_int_equal(fb_stats_bootstrap_ratio((struct fb_stats_group){base, 0},
                                              (struct fb_stats_group){fresh, 2}, 0.05, 200, 1,
                                              &ratio, &error),
                     FB_ERROR_INPUT);
}

/* Its 95 % interval holds the truth about as often as it says: over 400 draws of ten values a side
 * a percentile interval of medians does so in 92 to 98 of 100. */
static void test_bootstrap_covers_the_truth(void **state)
{
    (void)state;
    struct fb_random random;
    struct fb_error error;
    int covered = 0;
    fb_random_init(&random, 11, 0);
    for (int i = 0; i < 400; i++) {
        double base[10], fresh[10];
        struct fb_stats_ratio ratio;
        for (int j = 0; j < 10; j++) {
            base[j] = exp(0.05 * fb_random_normal(&random));
            fresh[j] = 1.1 * exp(0.05 * fb_random_normal(&random));
        }
        assert_int_equal(fb_stats_bootstrap_ratio((struct fb_stats_group){base, 10},
                                                  (struct fb_stats_group){fresh, 10}, 0.05, 400,
                                                  (uint64_t)i, &ratio, &error),
                         FB_OK);
        covered += ratio.interval.low <= log(1.1) && log(1.1) <= ratio.interval.high;
    }
    assert_in_range(covered, 368, 396);
}

/* The formula against the test itself, 400 times. */
static void test_power_is_what_the_test_has(void **state)
{
    (void)state;
    const double deviation = 0.05;
    const double shift = fb_stats_signed_rank_detectable(deviation, 30, 0.01, 0.8);
    struct fb_random random;
    struct fb_error error;
    int found = 0;
    assert_near(fb_stats_signed_rank_power(shift, deviation, 30, 0.01), 0.8, 1e-9);
    assert_near(fb_stats_signed_rank_power(0.0, deviation, 30, 0.01), 0.01, 1e-9);
    fb_random_init(&random, 5, 0);
    for (int i = 0; i < 400; i++) {
        double d[30];
        struct fb_signed_rank result;
        for (int j = 0; j < 30; j++)
            d[j] = shift + deviation * fb_random_normal(&random);
        assert_int_equal(fb_stats_signed_rank(d, 30, 0.0, FB_SIGNED_RANK_AUTO, &result, &error),
                         FB_OK);
        found += result.p_greater <= 0.01;
    }
    assert_in_range(found, 292, 344); /* 0.73 to 0.86 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normal_agrees_with_scipy),
        cmocka_unit_test(test_binomial_agrees_with_scipy),
        cmocka_unit_test(test_clopper_pearson_agrees_with_scipy),
        cmocka_unit_test(test_holm_agrees_with_statsmodels),
        cmocka_unit_test(test_bootstrap_no_spread_gives_a_point),
        cmocka_unit_test(test_bootstrap_covers_the_truth),
        cmocka_unit_test(test_power_is_what_the_test_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
