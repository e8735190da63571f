/*
 * The judge of errors: its two measures, its place of the worst element, and that nothing that is
 * not finite or not checked ever passes.
 */
#include "judge.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const double nan_value = (double)NAN;

/* A tensor [1, 2, 2, 2] over eight floats. */
static struct fb_tensor small(float *values)
{
    return fb_tensor_dense(values, FB_F32, FB_BHND, 1, 2, 2, 2);
}

static struct fb_judgement judge(float *values, const double *reference, double budget,
                                 double scale)
{
    const struct fb_tensor x = small(values);
    struct fb_judgement judgement;
    fb_judge_init(&judgement, budget, scale);
    fb_judge_add_rows(&judgement, &x, 0, 0, NULL, 2, reference);
    fb_judge_add_rows(&judgement, &x, 0, 1, NULL, 2, reference + 4);
    fb_judge_scan_finite(&judgement, &x);
    fb_judge_finish(&judgement);
    return judgement;
}

static void test_judge_equal_values_passes_with_zero_error(void **state)
{
    (void)state;
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const double reference[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const struct fb_judgement j = judge(x, reference, 1e-5, 1.0);
    assert_true(j.passed && j.passed_golden && j.finite);
    assert_true(j.err_rel == 0.0 && j.err_max == 0.0);
    assert_int_equal(j.elements, 8);
}

static void test_judge_one_wrong_element_gives_both_errors_and_its_place(void **state)
{
    (void)state;
    float x[8] = {0, 0, 0, 0, 0, 0, 3.5f, 4};
    const double reference[8] = {0, 0, 0, 0, 0, 0, 3, 4};
    const struct fb_judgement j = judge(x, reference, 0.1, 1.0);
    assert_true(fabs(j.err_rel - 0.5 / 5.0) < 1e-15);
    assert_true(fabs(j.err_max - 0.5 / 4.0) < 1e-15);
    assert_false(j.passed);
    assert_int_equal(j.worst_h, 1);
    assert_int_equal(j.worst_row, 1);
    assert_int_equal(j.worst_component, 0);
    char text[256];
    fb_judge_describe(&j, text, sizeof text);
    assert_non_null(strstr(text, "h 1 row 1 component 0: 3.5 instead of 3"));
}

static void test_judge_scale_bounds_err_max_but_not_err_rel(void **state)
{
    (void)state;
    float x[8] = {1e-7f};
    const double reference[8] = {0};
    const struct fb_judgement j = judge(x, reference, 1e-5, 1.0);
    assert_true(j.passed_golden);
    assert_false(j.passed);
    assert_true(isinf(j.err_rel) != 0);
}

static void test_judge_not_finite_never_passes(void **state)
{
    (void)state;
    const double reference[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    const float bad[3] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        float x[8] = {1, 1, 1, 1, 1, 1, 1, 1};
        x[5] = bad[i];
        const struct fb_judgement j = judge(x, reference, 1e30, 1.0);
        assert_false(j.finite || j.passed || j.passed_golden);
        assert_int_equal(j.worst_h, 1);
        assert_int_equal(j.worst_row, 0);
        assert_int_equal(j.worst_component, 1);
    }
    float x[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    const double bad_reference[8] = {1, 1, nan_value, 1, 1, 1, 1, 1};
    const struct fb_judgement j = judge(x, bad_reference, 1e30, 1.0);
    assert_false(j.finite || j.passed || j.passed_golden);
}

static void test_judge_unsampled_row_not_finite_never_passes(void **state)
{
    (void)state;
    float x[8] = {1, 1, 1, 1, 1, 1, 1, NAN};
    const double reference[2] = {1, 1};
    const int64_t row = 1;
    const struct fb_tensor tensor = small(x);
    struct fb_judgement j;
    fb_judge_init(&j, 1.0, 1.0);
    fb_judge_add_rows(&j, &tensor, 0, 0, &row, 1, reference);
    fb_judge_finish(&j);
    assert_true(j.passed);
    fb_judge_scan_finite(&j, &tensor);
    fb_judge_finish(&j);
    assert_false(j.passed);
    assert_int_equal(j.worst_h, 1);
}

static void test_judge_nothing_compared_never_passes(void **state)
{
    (void)state;
    struct fb_judgement j;
    fb_judge_init(&j, 1.0, 1.0);
    fb_judge_finish(&j);
    assert_false(j.passed || j.passed_golden);
    assert_true(isnan(j.err_rel) && isnan(j.err_max));
}

static void test_judge_strided_rows_are_found(void **state)
{
    (void)state;
    /* BNHD: head 1 of token 1 stands at 6 */
    float x[8] = {0, 0, 0, 0, 0, 0, 7, 8};
    const struct fb_tensor tensor = fb_tensor_dense(x, FB_F32, FB_BNHD, 1, 2, 2, 2);
    const double reference[2] = {7, 8};
    const int64_t row = 1;
    struct fb_judgement j;
    fb_judge_init(&j, 1e-12, 0.0);
    fb_judge_add_rows(&j, &tensor, 0, 1, &row, 1, reference);
    fb_judge_finish(&j);
    assert_true(j.passed);
}

static void test_judge_rows_at_kinks_are_left_out_and_counted(void **state)
{
    (void)state;
    float x[8] = {9, 9, 3, 4, 0, 0, 0, 0};
    const struct fb_tensor tensor = small(x);
    const double reference[4] = {1, 2, 3, 4}, reversed[4] = {3, 4, 1, 2};
    const bool first[2] = {true, false}, second[2] = {false, true};
    const int64_t rows[2] = {1, 0};
    struct fb_judgement j;
    fb_judge_init(&j, 1e-12, 0.0);
    fb_judge_add_rows_off_kinks(&j, first, &tensor, 0, 0, NULL, 2, reference);
    fb_judge_add_rows_off_kinks(&j, second, &tensor, 0, 0, rows, 2, reversed);
    fb_judge_finish(&j);
    assert_true(j.passed);
    assert_int_equal(j.kinks, 2);
    assert_int_equal(j.elements, 4);
    fb_judge_add_rows_off_kinks(&j, NULL, &tensor, 0, 0, NULL, 2, reference);
    fb_judge_finish(&j);
    assert_false(j.passed);
    assert_int_equal(j.worst_row, 0);
}

static void test_max_abs_sees_sign_and_not_finite(void **state)
{
    (void)state;
    float x[8] = {1, -9, 3, 4, 5, 6, 7, 8};
    struct fb_tensor tensor = small(x);
    assert_true(fb_judge_max_abs(&tensor) == 9.0);
    x[7] = NAN;
    assert_false(isfinite(fb_judge_max_abs(&tensor)) != 0);
}

static void test_budget_matches_golden_readme(void **state)
{
    (void)state;
    assert_true(fb_judge_budget(FB_F32, FB_FORWARD) == 1e-5);
    assert_true(fb_judge_budget(FB_F32, FB_BACKWARD) == 5e-5);
    for (int dtype = 0; dtype < FB_DTYPE_COUNT; dtype++)
        for (int pass = 0; pass < FB_PASS_COUNT; pass++) {
            const double budget = fb_judge_budget((enum fb_dtype)dtype, (enum fb_pass)pass);
            assert_true(budget > 0.0 && budget < 0.05);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_judge_equal_values_passes_with_zero_error),
        cmocka_unit_test(test_judge_one_wrong_element_gives_both_errors_and_its_place),
        cmocka_unit_test(test_judge_scale_bounds_err_max_but_not_err_rel),
        cmocka_unit_test(test_judge_not_finite_never_passes),
        cmocka_unit_test(test_judge_unsampled_row_not_finite_never_passes),
        cmocka_unit_test(test_judge_nothing_compared_never_passes),
        cmocka_unit_test(test_judge_strided_rows_are_found),
        cmocka_unit_test(test_judge_rows_at_kinks_are_left_out_and_counted),
        cmocka_unit_test(test_max_abs_sees_sign_and_not_finite),
        cmocka_unit_test(test_budget_matches_golden_readme),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
