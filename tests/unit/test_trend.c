/* The verdict on the newest run of one case. */
#include "random.h"
#include "trend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { POINTS_MAX = 256 };

struct series {
    double values[POINTS_MAX], widths[POINTS_MAX];
    size_t commits[POINTS_MAX];
    size_t count;
    struct fb_random random;
};

static void start(struct series *series, uint64_t seed)
{
    series->count = 0;
    fb_random_init(&series->random, seed, 3);
}

static void hold(struct series *series, double level, double noise, size_t points)
{
    for (size_t i = 0; i < points; i++) {
        const size_t at = series->count++;
        series->values[at] = level + noise * fb_random_normal(&series->random);
        series->widths[at] = noise;
        series->commits[at] = at;
    }
}

static enum fb_verdict judge(const struct series *series, struct fb_trend *trend)
{
    static struct fb_arena arena;
    struct fb_error error = {FB_OK, ""};
    const struct fb_trend_points points = {series->values, series->widths, series->commits,
                                           series->count, FB_CHANGE_LEAST_STEP};
    fb_arena_free(&arena);
    fb_arena_init(&arena, 0);
    assert_int_equal(fb_trend_judge(&points, 20, &arena, trend, &error), FB_OK);
    return trend->verdict;
}

static void expect_reason(const struct fb_trend *trend, const char *words)
{
    if (strstr(trend->reason, words) == NULL)
        fail_msg("'%s' lacks '%s'", trend->reason, words);
}

static void test_trend_too_few_runs_decide_nothing(void **state)
{
    (void)state;
    struct series series;
    struct fb_trend trend;
    start(&series, 1);
    assert_int_equal(judge(&series, &trend), FB_VERDICT_INCOMPARABLE);
    hold(&series, -5.0, 0.001, 1);
    assert_int_equal(judge(&series, &trend), FB_VERDICT_INCOMPARABLE);
    hold(&series, -3.0, 0.001, 2);
    assert_int_equal(judge(&series, &trend), FB_VERDICT_AMBIGUOUS);
    expect_reason(&trend, "3 runs, 4 are needed");
}

static void test_trend_flat_passes(void **state)
{
    (void)state;
    struct series series;
    struct fb_trend trend;
    start(&series, 2);
    hold(&series, -5.0, 0.01, 40);
    assert_int_equal(judge(&series, &trend), FB_VERDICT_PASS);
    assert_string_equal(trend.reason, "");
}

static void test_trend_identical_values_pass(void **state)
{
    (void)state;
    struct series series;
    struct fb_trend trend;
    start(&series, 2);
    hold(&series, -5.0, 0.0, 12);
    assert_int_equal(judge(&series, &trend), FB_VERDICT_PASS);
    assert_true(trend.scatter == 0.0);
    /* Without noise, a jump of one run is certain. */
    hold(&series, -4.9, 0.0, 1);
    assert_int_equal(judge(&series, &trend), FB_VERDICT_FAIL);
}

static void test_trend_new_level_fails(void **state)
{
    (void)state;
    struct series series;
    struct fb_trend trend;
    start(&series, 3);
    hold(&series, -5.0, 0.01, 30);
    hold(&series, -4.9, 0.01, 10);
    assert_int_equal(judge(&series, &trend), FB_VERDICT_FAIL);
    assert_true(trend.now_is_segment && fabs(trend.step - 0.1) < 0.02);
    expect_reason(&trend, "the last 10 runs hold it");
    assert_int_equal(trend.changes.count, 1);
    assert_int_equal(trend.changes.changes[0].at, 30);
}

static void test_trend_newest_run_alone_fails_when_it_stands_out(void **state)
{
    (void)state;
    struct series series;
    struct fb_trend trend;
    start(&series, 4);
    hold(&series, -5.0, 0.01, 30);
    hold(&series, -4.85, 0.01, 1);
    assert_int_equal(judge(&series, &trend), FB_VERDICT_FAIL);
    expect_reason(&trend, "in the newest run");
}

static void test_trend_one_run_within_the_scatter_is_ambiguous(void **state)
{
    (void)state;
    struct series series;
    struct fb_trend trend;
    start(&series, 5);
    hold(&series, -5.0, 0.05, 30);
    series.values[series.count] = -4.9;
    series.widths[series.count] = 0.05;
    series.commits[series.count] = series.count;
    series.count++;
    assert_int_equal(judge(&series, &trend), FB_VERDICT_AMBIGUOUS);
    expect_reason(&trend, "runs scatter by");
}

static void test_trend_one_run_like_an_earlier_blip_is_ambiguous(void **state)
{
    (void)state;
    struct series series;
    struct fb_trend trend;
    start(&series, 6);
    hold(&series, -5.0, 0.01, 15);
    hold(&series, -4.7, 0.01, 1);
    hold(&series, -5.0, 0.01, 15);
    hold(&series, -4.75, 0.01, 1);
    assert_int_equal(judge(&series, &trend), FB_VERDICT_AMBIGUOUS);
    expect_reason(&trend, "came and went before");
}

static void test_trend_drift_adds_up(void **state)
{
    (void)state;
    struct series series;
    struct fb_trend trend;
    start(&series, 7);
    for (int i = 0; i < 8; i++)
        hold(&series, -5.0 + 0.02 * i, 0.005, 20);
    assert_int_equal(judge(&series, &trend), FB_VERDICT_FAIL);
    assert_true(trend.step > 0.1);
    /* No single step was worth reporting. */
    assert_int_equal(trend.changes.count, 0);
}

static void test_trend_one_lucky_run_is_not_the_best(void **state)
{
    (void)state;
    struct series series;
    struct fb_trend trend;
    start(&series, 8);
    hold(&series, -5.0, 0.01, 20);
    hold(&series, -5.3, 0.01, 1);
    hold(&series, -5.0, 0.01, 20);
    assert_int_equal(judge(&series, &trend), FB_VERDICT_PASS);
    assert_true(fabs(trend.best + 5.0) < 0.02);
}

static void test_trend_faster_level_is_named(void **state)
{
    (void)state;
    struct series series;
    struct fb_trend trend;
    start(&series, 9);
    hold(&series, -5.0, 0.01, 20);
    hold(&series, -5.2, 0.01, 20);
    assert_int_equal(judge(&series, &trend), FB_VERDICT_FASTER);
    expect_reason(&trend, "from the best level before");
}

static void test_trend_recovered_regression_passes(void **state)
{
    (void)state;
    struct series series;
    struct fb_trend trend;
    start(&series, 10);
    hold(&series, -5.0, 0.01, 20);
    hold(&series, -4.8, 0.01, 20);
    hold(&series, -5.0, 0.01, 20);
    assert_int_equal(judge(&series, &trend), FB_VERDICT_PASS);
    assert_int_equal(trend.changes.count, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trend_too_few_runs_decide_nothing),
        cmocka_unit_test(test_trend_flat_passes),
        cmocka_unit_test(test_trend_identical_values_pass),
        cmocka_unit_test(test_trend_new_level_fails),
        cmocka_unit_test(test_trend_newest_run_alone_fails_when_it_stands_out),
        cmocka_unit_test(test_trend_one_run_within_the_scatter_is_ambiguous),
        cmocka_unit_test(test_trend_one_run_like_an_earlier_blip_is_ambiguous),
        cmocka_unit_test(test_trend_drift_adds_up),
        cmocka_unit_test(test_trend_one_lucky_run_is_not_the_best),
        cmocka_unit_test(test_trend_faster_level_is_named),
        cmocka_unit_test(test_trend_recovered_regression_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
