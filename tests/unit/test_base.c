/* base: status, arena, problems, random numbers. */
#include "arena.h"
#include "attention.h"
#include "cpu_features.h"
#include "random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct fb_param params[] = {
    {"window", FB_PARAM_INT, 128, 0, 1e9, NULL, "width"},
};
static const struct fb_mechanism mechanism = {
    .name = "sample", .title = "Sample", .reference = "none", .params = params, .param_count = 1};

static void test_error_set_long_text_is_cut(void **state)
{
    (void)state;
    struct fb_error error;
    char text[2 * FB_ERROR_TEXT_SIZE];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(fb_error_set(&error, FB_ERROR_IO, "%s", text), FB_ERROR_IO);
    assert_int_equal(strlen(error.text), FB_ERROR_TEXT_SIZE - 1);
    assert_int_equal(fb_error_prefix(&error, "file %d", 7), FB_ERROR_IO);
    assert_memory_equal(error.text, "file 7: xxx", 11);
}

static void test_arena_alloc_is_zeroed_aligned_and_limited(void **state)
{
    (void)state;
    struct fb_arena arena;
    struct fb_error error;
    fb_arena_init(&arena, 1 << 20);
    unsigned char *bytes = fb_arena_alloc(&arena, 100000, 1, &error);
    assert_non_null(bytes);
    assert_int_equal((uintptr_t)bytes % FB_ALIGNMENT, 0);
    for (int i = 0; i < 100000; i++) {
        assert_int_equal(bytes[i], 0);
    }
    assert_null(fb_arena_alloc(&arena, 1 << 20, 1, &error));
    assert_int_equal(error.code, FB_ERROR_MEMORY);
    assert_null(fb_arena_alloc(&arena, SIZE_MAX / 2, 4, &error));
    assert_string_equal(fb_arena_printf(&arena, &error, "%s-%d", "a", 5), "a-5");
    fb_arena_fail_after(&arena, 1);
    assert_non_null(fb_arena_strdup(&arena, "one", &error));
    assert_null(fb_arena_strdup(&arena, "two", &error));
    fb_arena_free(&arena);
}

static void test_problem_check_names_the_field(void **state)
{
    (void)state;
    struct fb_problem problem;
    struct fb_error error;
    fb_problem_init(&problem, &mechanism, 2, 3, 4, 8);
    assert_int_equal(fb_problem_check(&problem, &mechanism, &error), FB_OK);
    problem.qk_dim = 257;
    assert_int_equal(fb_problem_check(&problem, &mechanism, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "head_dim is 257"));
    problem.qk_dim = 8;
    problem.batch = INT64_C(1) << 40;
    assert_int_equal(fb_problem_check(&problem, &mechanism, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "2^48"));
    problem.batch = 2;
    problem.kv_heads = 2;
    assert_int_equal(fb_problem_check(&problem, &mechanism, &error), FB_ERROR_INPUT);
    problem.kv_heads = 3;
    problem.params[0] = 1.5;
    assert_int_equal(fb_problem_check(&problem, &mechanism, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "whole number"));
    problem.params[0] = (double)NAN;
    assert_int_equal(fb_problem_check(&problem, &mechanism, &error), FB_ERROR_INPUT);
}

static void test_tensor_dense_layouts_address_the_same_element(void **state)
{
    (void)state;
    float data[2 * 3 * 5 * 4];
    const struct fb_tensor a = fb_tensor_dense(data, FB_F32, FB_BHND, 2, 3, 5, 4);
    const struct fb_tensor b = fb_tensor_dense(data, FB_F32, FB_BNHD, 2, 3, 5, 4);
    assert_int_equal(fb_tensor_count(&a), 120);
    assert_ptr_equal(fb_tensor_row_f32(&a, 1, 2, 3), data + ((1 * 3 + 2) * 5 + 3) * 4);
    assert_ptr_equal(fb_tensor_row_f32(&b, 1, 2, 3), data + ((1 * 5 + 3) * 3 + 2) * 4);
}

static void test_random_fill_does_not_depend_on_threads(void **state)
{
    (void)state;
    enum { COUNT = 20001 };
    float *one = malloc(COUNT * sizeof *one);
    float *four = malloc(COUNT * sizeof *four);
    assert_true(one != NULL && four != NULL);
    fb_random_fill_normal_f32(one, COUNT, 1.0F, 7, 3, 1);
    fb_random_fill_normal_f32(four, COUNT, 1.0F, 7, 3, 4);
    assert_memory_equal(one, four, COUNT * sizeof *one);
    double mean = 0.0, square = 0.0, fourth = 0.0;
    for (int i = 0; i < COUNT; i++) {
        const double x = (double)one[i];
        mean += x / COUNT;
        square += x * x / COUNT;
        fourth += x * x * x * x / COUNT;
    }
    /* Five standard errors of the moments of a standard normal. */
    assert_true(fabs(mean) < 5.0 / sqrt(COUNT));
    assert_true(fabs(square - 1.0) < 5.0 * sqrt(2.0 / COUNT));
    assert_true(fabs(fourth - 3.0) < 5.0 * sqrt(96.0 / COUNT));
    fb_random_fill_normal_f32(four, COUNT, 1.0F, 8, 3, 1);
    assert_memory_not_equal(one, four, COUNT * sizeof *one);
    free(one);
    free(four);
}

static void test_random_below_is_in_range_and_covers(void **state)
{
    (void)state;
    struct fb_random random;
    fb_random_init(&random, 1, 2);
    int seen[7] = {0};
    for (int i = 0; i < 1000; i++) {
        const uint64_t value = fb_random_below(&random, 7);
        assert_in_range(value, 0, 6);
        seen[value]++;
    }
    for (int i = 0; i < 7; i++) {
        assert_true(seen[i] > 80);
    }
}

static void test_names_parse_back(void **state)
{
    (void)state;
    for (int i = 0; i < FB_DTYPE_COUNT; i++) {
        assert_int_equal(fb_dtype_parse(fb_dtype_name((enum fb_dtype)i)), i);
    }
    for (int i = 0; i < FB_ISA_COUNT; i++) {
        assert_int_equal(fb_isa_parse(fb_isa_name((enum fb_isa)i)), i);
    }
    assert_int_equal(fb_pass_parse("sideways"), -1);
    assert_true(fb_cpu_has(fb_cpu_best_isa()));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_set_long_text_is_cut),
        cmocka_unit_test(test_arena_alloc_is_zeroed_aligned_and_limited),
        cmocka_unit_test(test_problem_check_names_the_field),
        cmocka_unit_test(test_tensor_dense_layouts_address_the_same_element),
        cmocka_unit_test(test_random_fill_does_not_depend_on_threads),
        cmocka_unit_test(test_random_below_is_in_range_and_covers),
        cmocka_unit_test(test_names_parse_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
