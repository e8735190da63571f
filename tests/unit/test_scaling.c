/* Fits with known answers, and the rule for claiming an exponent. */
#include "scaling.h"

#include "made_results.h"
#include "random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { COUNT = 9 };

static void make(double *sizes, double *values, double a, double b, double p)
{
    for (int i = 0; i < COUNT; i++) {
        sizes[i] = 256 * exp2(i);
        values[i] = a + b * pow(sizes[i], p);
    }
}

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance)) {
        fail_msg("%g is not within %g of %g", value, tolerance, expected);
    }
}

static void test_fit_exact_powers_returns_them(void **state)
{
    (void)state;
    static const double powers[] = {0.0, 0.5, 1.0, 1.5, 2.0, 3.0};
    double sizes[COUNT], values[COUNT];
    for (size_t i = 0; i < sizeof powers / sizeof powers[0]; i++) {
        struct fb_power_fit fit;
        make(sizes, values, 0, 3e-9, powers[i]);
        fb_scaling_fit_power(sizes, values, COUNT, true, &fit);
        assert_near(fit.p, powers[i], 1e-6);
        assert_near(fit.b / 3e-9, 1, 1e-4);
        assert_true(fit.a >= 0);
    }
}

static double naive_slope(const double *sizes, const double *values)
{
    double mx = 0, my = 0, xx = 0, xy = 0;
    for (int i = 0; i < COUNT; i++) {
        mx += log(sizes[i]) / COUNT;
        my += log(values[i]) / COUNT;
    }
    for (int i = 0; i < COUNT; i++) {
        xx += (log(sizes[i]) - mx) * (log(sizes[i]) - mx);
        xy += (log(sizes[i]) - mx) * (log(values[i]) - my);
    }
    return xy / xx;
}

/* docs/measuring.md: the naive slope reads 0.63 on such data. */
static void test_fit_linear_with_fixed_cost_is_not_the_naive_slope(void **state)
{
    (void)state;
    double sizes[COUNT], values[COUNT], slopes[COUNT];
    struct fb_scaling scaling;
    make(sizes, values, 1.9e-6, 1e-9, 1.0);
    assert_near(naive_slope(sizes, values), 0.63, 0.02);
    fb_scaling_judge(sizes, values, NULL, COUNT, slopes, &scaling);
    assert_int_equal(scaling.verdict, FB_SCALING_SINGLE);
    assert_near(scaling.fit.p, 1.0, 0.01);
    assert_near(scaling.fit.a, 1.9e-6, 1e-7);
    assert_int_equal(scaling.first, 0);
}

static void test_fit_quadratic_with_fixed_cost_returns_two(void **state)
{
    (void)state;
    double sizes[COUNT], values[COUNT], slopes[COUNT];
    struct fb_scaling scaling;
    make(sizes, values, 1e-3, 1e-9, 2.0);
    fb_scaling_judge(sizes, values, NULL, COUNT, slopes, &scaling);
    assert_int_equal(scaling.verdict, FB_SCALING_SINGLE);
    assert_near(scaling.fit.p, 2.0, 0.01);
}

/* Linear code whose data leave the cache at 4096: the naive slope is off, the top octaves are not.
 */
static void test_judge_cache_step_below_claims_top_octaves_only(void **state)
{
    (void)state;
    double sizes[COUNT], values[COUNT], slopes[COUNT];
    struct fb_scaling scaling;
    make(sizes, values, 0, 1e-9, 1.0);
    for (int i = 4; i < COUNT; i++) {
        values[i] *= 1.8;
    }
    assert_true(naive_slope(sizes, values) > 1.07);
    fb_scaling_judge(sizes, values, NULL, COUNT, slopes, &scaling);
    assert_int_equal(scaling.verdict, FB_SCALING_SINGLE);
    assert_near(scaling.fit.p, 1.0, 0.01);
    assert_int_equal(scaling.first, 4);
}

static void test_judge_cache_step_at_top_claims_nothing_and_names_it(void **state)
{
    (void)state;
    double sizes[COUNT], values[COUNT], slopes[COUNT];
    struct fb_scaling scaling;
    make(sizes, values, 0, 1e-9, 1.0);
    for (int i = 7; i < COUNT; i++) {
        values[i] *= 1.8;
    }
    fb_scaling_judge(sizes, values, NULL, COUNT, slopes, &scaling);
    assert_int_equal(scaling.verdict, FB_SCALING_NONE);
    assert_int_equal(scaling.break_index, 6);
    assert_near(scaling.typical_slope, 1.0, 0.01);
    assert_near(slopes[6], 1 + log2(1.8), 1e-9);
}

static void test_judge_step_in_last_octave_is_no_larger_exponent(void **state)
{
    (void)state;
    double sizes[COUNT], values[COUNT], slopes[COUNT];
    struct fb_scaling scaling;
    make(sizes, values, 0, 1e-9, 1.0);
    values[COUNT - 1] *= 1.5;
    fb_scaling_judge(sizes, values, NULL, COUNT, slopes, &scaling);
    assert_int_equal(scaling.verdict, FB_SCALING_NONE);
    assert_int_equal(scaling.break_index, COUNT - 2);
}

static void test_judge_fixed_cost_everywhere_claims_nothing(void **state)
{
    (void)state;
    double sizes[COUNT], values[COUNT], slopes[COUNT];
    struct fb_scaling scaling;
    make(sizes, values, 1e-3, 2e-9, 1.0);
    fb_scaling_judge(sizes, values, NULL, COUNT, slopes, &scaling);
    assert_int_equal(scaling.verdict, FB_SCALING_NONE);
    assert_true(scaling.fixed_cost_dominates);
}

static void test_judge_noise_keeps_the_exponent(void **state)
{
    (void)state;
    struct fb_random random;
    fb_random_init(&random, 5, 0);
    int claimed = 0;
    for (int round = 0; round < 50; round++) {
        double sizes[COUNT], values[COUNT], noise[COUNT], slopes[COUNT];
        struct fb_scaling scaling;
        make(sizes, values, 5e-6, 1e-9, 1.0);
        for (int i = 0; i < COUNT; i++) {
            values[i] *= exp(0.01 * fb_random_normal(&random));
            noise[i] = 0.01;
        }
        fb_scaling_judge(sizes, values, noise, COUNT, slopes, &scaling);
        if (scaling.verdict == FB_SCALING_SINGLE) {
            claimed++;
            assert_near(scaling.fit.p, 1.0, 0.12);
        }
    }
    assert_true(claimed >= 45);
}

static void test_judge_few_or_narrow_sizes_says_so(void **state)
{
    (void)state;
    double sizes[] = {256, 512, 1024}, values[] = {1, 2, 4}, slopes[2];
    struct fb_scaling scaling;
    fb_scaling_judge(sizes, values, NULL, 0, slopes, &scaling);
    assert_int_equal(scaling.verdict, FB_SCALING_TOO_FEW);
    fb_scaling_judge(sizes, values, NULL, 3, slopes, &scaling);
    assert_int_equal(scaling.verdict, FB_SCALING_TOO_FEW);
    double wide[] = {256, 1024, 4096}, linear[] = {1, 4, 16};
    fb_scaling_judge(wide, linear, NULL, 3, slopes, &scaling);
    assert_int_equal(scaling.verdict, FB_SCALING_SINGLE);
    assert_near(scaling.fit.p, 1.0, 1e-9);
}

static void scale_series(int processes, struct fb_arena *arena, struct fb_scaling *scaling)
{
    struct fb_results results;
    struct fb_series_set set;
    fb_made_init(&results, COUNT, 4000);
    for (int64_t n = 256; n <= 65536; n *= 2) {
        struct fb_row *row = fb_made_row(&results, "flow", "fused", false, n, 1e-9 * (double)n);
        fb_made_samples(&results, row, processes, 20, 0.02);
    }
    assert_int_equal(fb_series_collect(&results, 1, FB_AXIS_SEQ_LEN, arena, &set, NULL), FB_OK);
    assert_int_equal(set.count, 1);
    assert_int_equal(fb_scaling_of_time(&set.items[0], 3, arena, scaling, NULL), FB_OK);
    fb_made_free(&results);
}

static void test_time_interval_covers_and_is_labelled_by_its_unit(void **state)
{
    (void)state;
    struct fb_arena arena;
    struct fb_scaling one, seven, again;
    fb_arena_init(&arena, 0);
    scale_series(1, &arena, &one);
    scale_series(7, &arena, &seven);
    scale_series(7, &arena, &again);
    assert_int_equal(one.p.kind, FB_SPREAD_SAMPLES);
    assert_int_equal(seven.p.kind, FB_SPREAD_PROCESSES);
    assert_true(seven.p.low < 1.0 && seven.p.high > 1.0);
    assert_true(seven.p.high - seven.p.low < 0.05);
    assert_true(seven.p.low == again.p.low && seven.p.high == again.p.high);
    fb_arena_free(&arena);
}

static void test_memory_of_plain_softmax_tends_to_two(void **state)
{
    (void)state;
    struct fb_arena arena;
    struct fb_results results;
    struct fb_series_set set;
    struct fb_scaling scaling;
    fb_arena_init(&arena, 0);
    fb_made_init(&results, 16, 0);
    for (int64_t n = 2048; n <= 65536; n *= 2) {
        struct fb_row *row = fb_made_row(&results, "softmax", "plain", false, n, 1.0);
        row->mem_workspace_bytes = n * n * 32;
    }
    assert_int_equal(fb_series_collect(&results, 1, FB_AXIS_SEQ_LEN, &arena, &set, NULL), FB_OK);
    assert_int_equal(fb_scaling_of_memory(&set.items[0], &arena, &scaling, NULL), FB_OK);
    assert_int_equal(scaling.verdict, FB_SCALING_SINGLE);
    assert_near(scaling.fit.p, 2.0, 0.05);
    assert_int_equal(scaling.p.kind, FB_SPREAD_EXACT);
    fb_made_free(&results);
    fb_arena_free(&arena);
}

static void test_time_out_of_memory_is_reported(void **state)
{
    (void)state;
    struct fb_results results;
    fb_made_init(&results, 16, 400);
    for (int64_t n = 256; n <= 4096; n *= 2) {
        fb_made_samples(&results,
                        fb_made_row(&results, "flow", "fused", false, n, 1e-9 * (double)n), 1, 9,
                        0.01);
    }
    bool done = false;
    for (long successes = 0; !done && successes < 200; successes++) {
        struct fb_arena arena;
        struct fb_series_set set;
        struct fb_scaling scaling;
        struct fb_error error = {FB_OK, ""};
        fb_arena_init(&arena, 0);
        fb_arena_fail_after(&arena, successes);
        enum fb_status status =
            fb_series_collect(&results, 1, FB_AXIS_SEQ_LEN, &arena, &set, &error);
        if (status == FB_OK) {
            status = fb_scaling_of_time(&set.items[0], 1, &arena, &scaling, &error);
        }
        done = status == FB_OK;
        assert_true(done || (status == FB_ERROR_MEMORY && error.text[0] != '\0'));
        fb_arena_free(&arena);
    }
    assert_true(done);
    fb_made_free(&results);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fit_exact_powers_returns_them),
        cmocka_unit_test(test_fit_linear_with_fixed_cost_is_not_the_naive_slope),
        cmocka_unit_test(test_fit_quadratic_with_fixed_cost_returns_two),
        cmocka_unit_test(test_judge_cache_step_below_claims_top_octaves_only),
        cmocka_unit_test(test_judge_cache_step_at_top_claims_nothing_and_names_it),
        cmocka_unit_test(test_judge_step_in_last_octave_is_no_larger_exponent),
        cmocka_unit_test(test_judge_fixed_cost_everywhere_claims_nothing),
        cmocka_unit_test(test_judge_noise_keeps_the_exponent),
        cmocka_unit_test(test_judge_few_or_narrow_sizes_says_so),
        cmocka_unit_test(test_time_interval_covers_and_is_labelled_by_its_unit),
        cmocka_unit_test(test_memory_of_plain_softmax_tends_to_two),
        cmocka_unit_test(test_time_out_of_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
