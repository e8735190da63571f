/* Statistics over seeds against published and independently computed values. */
#include "stats_seeds.h"
#include "stats_survival.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Freireich et al. 1963, weeks in remission; the classic example (Cox and Oakes 1984, table 1.1).
 */
static const struct fb_survival treated[21] = {
    {6, true},   {6, true},   {6, true},   {6, false},  {7, true},   {9, false},  {10, true},
    {10, false}, {11, false}, {13, true},  {16, true},  {17, false}, {19, false}, {20, false},
    {22, true},  {23, true},  {25, false}, {32, false}, {32, false}, {34, false}, {35, false}};
static const double control_weeks[21] = {1, 1, 2,  2,  3,  4,  4,  5,  5,  8, 8,
                                         8, 8, 11, 11, 12, 12, 15, 17, 22, 23};

static bool near(double value, double wanted, double tolerance)
{
    return fabs(value - wanted) <= tolerance;
}

static void test_kaplan_meier_gives_the_published_curve(void **state)
{
    (void)state;
    struct fb_survival mixed[21];
    for (int i = 0; i < 21; i++)
        mixed[i] = treated[(i * 8) % 21];
    fb_survival_sort(mixed, 21);
    static const struct {
        double time, survival;
    } published[] = {{5, 1.0},    {6, 0.857},  {7, 0.807},  {10, 0.753},
                     {13, 0.690}, {16, 0.627}, {22, 0.538}, {23, 0.448}};
    for (size_t i = 0; i < sizeof published / sizeof published[0]; i++)
        assert_true(
            near(fb_survival_at(mixed, 21, published[i].time), published[i].survival, 5e-4));
    assert_true(near(fb_survival_median(mixed, 21), 23.0, 0.0));
    const struct fb_survival never[2] = {{5, false}, {9, false}};
    assert_true(isinf(fb_survival_median(never, 2)));
}

static void test_log_rank_gives_the_published_statistic(void **state)
{
    (void)state;
    struct fb_survival control[21], drug[21];
    struct fb_log_rank result;
    for (int i = 0; i < 21; i++) {
        control[i] = (struct fb_survival){control_weeks[i], true};
        drug[i] = treated[i];
    }
    fb_survival_sort(control, 21);
    fb_survival_sort(drug, 21);
    fb_survival_log_rank(control, 21, drug, 21, &result);
    assert_true(near(result.chi_square, 16.79, 5e-3));
    assert_true(near(result.p, 4.17e-5, 1e-6));
    fb_survival_log_rank(control, 21, control, 21, &result);
    assert_true(near(result.chi_square, 0.0, 1e-12) && near(result.p, 1.0, 1e-9));
}

/* t(0.975, 4) = 2.776445 of any table. */
static void test_intervals_of_few_seeds(void **state)
{
    (void)state;
    const double values[5] = {98.0, 99.0, 97.0, 98.5, 97.5};
    const struct fb_interval mean = fb_stats_mean_interval(values, 5, 0.05);
    const struct fb_interval next = fb_stats_prediction_interval(values, 5, 0.05);
    assert_true(near(fb_stats_deviation(values, 5), 0.790569, 1e-6));
    assert_true(near(mean.low, 98.0 - 2.776445 * 0.790569 / sqrt(5.0), 1e-5));
    assert_true(near(next.high, 98.0 + 2.776445 * 0.790569 * sqrt(1.2), 1e-5));
    assert_true(isnan(fb_stats_prediction_interval(values, 1, 0.05).low));
}

enum { SEEDS = 5, EXAMPLES = 200 };

/* `share` per mille of the examples are right. */
static void draw_bits(char bits[SEEDS][EXAMPLES + 1], unsigned per_mille, unsigned salt)
{
    unsigned x = 12345 + salt;
    for (int s = 0; s < SEEDS; s++)
        for (int e = 0; e < EXAMPLES; e++) {
            x = x * 1664525U + 1013904223U;
            bits[s][e] = (x >> 10) % 1000 < per_mille ? '1' : '0';
        }
}

static void test_the_paired_bootstrap_tells_a_difference_from_none(void **state)
{
    (void)state;
    static char good[SEEDS][EXAMPLES + 1], bad[SEEDS][EXAMPLES + 1], alike[SEEDS][EXAMPLES + 1];
    const char *a[SEEDS], *b[SEEDS], *c[SEEDS];
    struct fb_stats_paired result;
    struct fb_error error;
    draw_bits(good, 900, 1);
    draw_bits(bad, 700, 2);
    draw_bits(alike, 900, 3);
    for (int s = 0; s < SEEDS; s++) {
        a[s] = good[s];
        b[s] = bad[s];
        c[s] = alike[s];
    }
    assert_int_equal(
        fb_stats_bootstrap_paired(a, b, SEEDS, EXAMPLES, 0.05, 2000, 7, &result, &error), FB_OK);
    assert_true(near(result.difference, 0.2, 0.05) && result.interval.low > 0.1 && result.p < 0.01);
    assert_int_equal(
        fb_stats_bootstrap_paired(a, c, SEEDS, EXAMPLES, 0.05, 2000, 7, &result, &error), FB_OK);
    assert_true(result.interval.low < 0.0 && result.interval.high > 0.0 && result.p > 0.05);
    assert_int_equal(fb_stats_bootstrap_paired(a, c, 0, EXAMPLES, 0.05, 2000, 7, &result, &error),
                     FB_ERROR_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kaplan_meier_gives_the_published_curve),
        cmocka_unit_test(test_log_rank_gives_the_published_statistic),
        cmocka_unit_test(test_intervals_of_few_seeds),
        cmocka_unit_test(test_the_paired_bootstrap_tells_a_difference_from_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
