/* Signed ranks against a textbook's example, scipy 1.x and sums over all signs counted by hand. */
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

/* Hollander & Wolfe, table 3.1: a depression scale of nine patients before and after treatment. */
static const double depression[] = {0.952, -0.147, 1.022, 0.430, 0.620, 0.590, 0.490, -0.08, 0.010};

/* Drawn once from a normal distribution around 0.05; tested against ln(1.03). */
static const double thirty[] = {0.05,    0.0619, 0.039,   0.0144,  0.0318,  0.0103, 0.0524,  0.1036,
                                0.0303,  0.0252, 0.0696,  0.0643,  0.0542,  0.0128, 0.0488,  0.0778,
                                -0.0038, 0.0317, -0.026,  -0.0016, -0.0237, 0.0406, -0.0007, 0.0609,
                                0.0563,  0.0425, -0.0507, 0.0285,  0.0481,  0.0545};

static struct fb_signed_rank test_of(const double *values, size_t count, double shift,
                                     enum fb_signed_rank_method method)
{
    struct fb_signed_rank result;
    struct fb_error error;
    assert_int_equal(fb_stats_signed_rank(values, count, shift, method, &result, &error), FB_OK);
    return result;
}

/* scipy.stats.wilcoxon(x, alternative=...); the book gives W+ = 40 and P = 0.020. */
static void test_signed_rank_published_example_agrees(void **state)
{
    (void)state;
    struct fb_signed_rank r = test_of(depression, COUNT(depression), 0.0, FB_SIGNED_RANK_EXACT);
    assert_int_equal(r.count, 9);
    assert_near(r.statistic, 40.0, 0.0);
    assert_near(r.p_greater, 0.01953125, 1e-15);
    assert_near(r.p_less, 0.986328125, 1e-15);
    r = test_of(depression, COUNT(depression), 0.0, FB_SIGNED_RANK_NORMAL);
    assert_near(r.p_greater, 0.022005492006475714, 1e-14);
}

static void test_signed_rank_against_a_shift_agrees_with_scipy(void **state)
{
    (void)state;
    const double shift = log(1.03);
    struct fb_signed_rank r = test_of(thirty, COUNT(thirty), shift, FB_SIGNED_RANK_AUTO);
    assert_near(r.statistic, 279.0, 0.0);
    assert_near(r.p_greater, 0.17460568994283676, 1e-13);
    assert_near(r.p_less, 0.830629107542336, 1e-13);
    r = test_of(thirty, COUNT(thirty), shift, FB_SIGNED_RANK_NORMAL);
    assert_near(r.p_greater, 0.172037671481987, 1e-13);
    assert_near(r.p_less, 0.8331559741463659, 1e-13);
}

/* The exact values were counted over all 2^11 signs; the normal ones are scipy's. */
static void test_signed_rank_ties_and_zeros_counted_exactly(void **state)
{
    (void)state;
    const double values[] = {1, -1, 2, 2, -2, 3, 3, 4, -5, 6, 0, 7};
    struct fb_signed_rank r = test_of(values, COUNT(values), 0.0, FB_SIGNED_RANK_EXACT);
    assert_int_equal(r.count, 11);
    assert_near(r.statistic, 51.5, 0.0);
    assert_near(r.p_greater, 0.05419921875, 1e-15);
    assert_near(r.p_less, 0.95361328125, 1e-15);
    r = test_of(values, COUNT(values), 0.0, FB_SIGNED_RANK_NORMAL);
    assert_near(r.p_greater, 0.0542292259114842, 1e-14);
}

static void test_signed_rank_all_on_one_side_is_two_to_the_minus_n(void **state)
{
    (void)state;
    double values[60];
    for (size_t i = 0; i < COUNT(values); i++)
        values[i] = 0.05 + 0.0001 * (double)i;
    const struct fb_signed_rank r = test_of(values, 60, 0.03, FB_SIGNED_RANK_AUTO);
    assert_near(r.p_greater, ldexp(1.0, -60), ldexp(1.0, -70));
    assert_near(r.p_less, 1.0, 1e-12);
}

static void test_signed_rank_nothing_differs_rejects_nothing(void **state)
{
    (void)state;
    const double same[] = {0.5, 0.5, 0.5};
    struct fb_signed_rank r = test_of(same, 3, 0.5, FB_SIGNED_RANK_AUTO);
    assert_int_equal(r.count, 0);
    assert_near(r.p_greater, 1.0, 0.0);
    r = test_of(NULL, 0, 0.0, FB_SIGNED_RANK_AUTO);
    assert_near(r.p_less, 1.0, 0.0);
}

/* Beyond the exact limit the normal approximation takes over; both agree there. */
static void test_signed_rank_many_differences_agree_with_the_approximation(void **state)
{
    (void)state;
    double values[FB_SIGNED_RANK_EXACT_MAX + 1];
    for (size_t i = 0; i < COUNT(values); i++)
        values[i] = (i % 5 < 3 ? 1.0 : -1.0) * (1.0 + (double)((i * 37) % COUNT(values)));
    const struct fb_signed_rank large = test_of(values, COUNT(values), 0.0, FB_SIGNED_RANK_AUTO);
    const struct fb_signed_rank exact = test_of(values, COUNT(values), 0.0, FB_SIGNED_RANK_EXACT);
    assert_near(large.p_greater, exact.p_greater, 2e-4);
    assert_true(large.p_greater < 0.05);
}

/* The book: estimate 0.46, 96 % interval (0.010, 0.786) from the 6th mean on either side. */
static void test_hodges_lehmann_published_example_agrees(void **state)
{
    (void)state;
    double estimate;
    struct fb_interval interval;
    struct fb_error error;
    assert_int_equal(
        fb_stats_hodges_lehmann(depression, COUNT(depression), 0.05, &estimate, &interval, &error),
        FB_OK);
    assert_near(estimate, 0.46, 1e-12);
    assert_near(interval.low, 0.010, 1e-12);
    assert_near(interval.high, 0.786, 1e-12);
}

static void test_hodges_lehmann_thirty_values_agree(void **state)
{
    (void)state;
    double estimate;
    struct fb_interval interval;
    struct fb_error error;
    assert_int_equal(
        fb_stats_hodges_lehmann(thirty, COUNT(thirty), 0.05, &estimate, &interval, &error), FB_OK);
    assert_near(estimate, 0.0355, 1e-12);
    assert_near(interval.low, 0.02225, 1e-12);
    assert_near(interval.high, 0.04745, 1e-12);
}

static void test_hodges_lehmann_too_few_values_have_no_interval(void **state)
{
    (void)state;
    double estimate;
    struct fb_interval interval;
    struct fb_error error;
    assert_int_equal(fb_stats_hodges_lehmann(thirty, 5, 0.05, &estimate, &interval, &error), FB_OK);
    assert_true(isinf(interval.low) && isinf(interval.high));
    assert_int_equal(fb_stats_hodges_lehmann(thirty, 6, 0.05, &estimate, &interval, &error), FB_OK);
    assert_near(interval.low, 0.0103, 1e-12);
    assert_near(interval.high, 0.0619, 1e-12);
    assert_int_equal(fb_stats_hodges_lehmann(thirty, 7, 0.01, &estimate, &interval, &error), FB_OK);
    assert_true(isinf(interval.low));
    assert_int_equal(fb_stats_hodges_lehmann(NULL, 0, 0.05, &estimate, &interval, &error), FB_OK);
    assert_true(isnan(estimate) && isinf(interval.high));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signed_rank_published_example_agrees),
        cmocka_unit_test(test_signed_rank_against_a_shift_agrees_with_scipy),
        cmocka_unit_test(test_signed_rank_ties_and_zeros_counted_exactly),
        cmocka_unit_test(test_signed_rank_all_on_one_side_is_two_to_the_minus_n),
        cmocka_unit_test(test_signed_rank_nothing_differs_rejects_nothing),
        cmocka_unit_test(test_signed_rank_many_differences_agree_with_the_approximation),
        cmocka_unit_test(test_hodges_lehmann_published_example_agrees),
        cmocka_unit_test(test_hodges_lehmann_thirty_values_agree),
        cmocka_unit_test(test_hodges_lehmann_too_few_values_have_no_interval),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
