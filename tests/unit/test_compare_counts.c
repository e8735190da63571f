/* compare_counts.c: exact verdicts on instruction counts, and what may not be compared. */
#include "comparison.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct pair {
    struct fb_row base, fresh;
    struct fb_compared compared;
};

static void init(struct pair *pair, int64_t base, int64_t fresh)
{
    struct fb_row *const rows[] = {&pair->base, &pair->fresh};

    memset(pair, 0, sizeof *pair);
    for (int i = 0; i < 2; i++) {
        fb_row_init(rows[i]);
        (void)snprintf(rows[i]->case_id, sizeof rows[i]->case_id, "0123456789abcdef");
        (void)snprintf(rows[i]->mechanism, sizeof rows[i]->mechanism, "flow");
        (void)snprintf(rows[i]->status, sizeof rows[i]->status, "ok");
        (void)snprintf(rows[i]->counter, sizeof rows[i]->counter, "callgrind-3.19.0");
        (void)snprintf(rows[i]->toolchain, sizeof rows[i]->toolchain, "GNU 12.2.0 Release");
        rows[i]->mem_workspace_bytes = 100000;
        rows[i]->err_rel = rows[i]->err_max = 1e-7;
        rows[i]->err_budget = 1e-5;
    }
    pair->base.instructions = base;
    pair->fresh.instructions = fresh;
    pair->compared.base = &pair->base;
    pair->compared.fresh = &pair->fresh;
}

/* As compare_stored.c does it. */
static enum fb_verdict judge(struct pair *pair)
{
    struct fb_arena arena;
    struct fb_comparison comparison;
    struct fb_error error;

    fb_arena_init(&arena, 0);
    assert_int_equal(fb_comparison_init(&comparison, 1, &arena, &error), FB_OK);
    pair->compared.verdict = FB_VERDICT_INCOMPARABLE;
    if (fb_compare_rows_match(&pair->compared)) {
        assert_true(fb_compare_rows_counted(&pair->compared));
        assert_true(fb_compare_rows_count(&comparison, &pair->compared));
        fb_compare_rows_gate(&pair->compared);
    }
    fb_arena_free(&arena);
    return pair->compared.verdict;
}

static enum fb_verdict verdict_of(int64_t base, int64_t fresh)
{
    struct pair pair;
    init(&pair, base, fresh);
    return judge(&pair);
}

static void test_one_percent_is_the_border(void **state)
{
    (void)state;
    assert_int_equal(verdict_of(1000000, 1000000), FB_VERDICT_PASS);
    assert_int_equal(verdict_of(1000000, 1009900), FB_VERDICT_PASS);
    assert_int_equal(verdict_of(1000000, 1010100), FB_VERDICT_FAIL);
    assert_int_equal(verdict_of(1000000, 1030000), FB_VERDICT_FAIL);
    assert_int_equal(verdict_of(1000000, 990200), FB_VERDICT_PASS);
    assert_int_equal(verdict_of(1000000, 989000), FB_VERDICT_FASTER);
    assert_int_equal(verdict_of(INT64_C(90000000000), INT64_C(92700000000)), FB_VERDICT_FAIL);
}

static void test_three_percent_says_how_much_and_why(void **state)
{
    (void)state;
    struct pair pair;
    init(&pair, 2000000, 2060000);
    assert_int_equal(judge(&pair), FB_VERDICT_FAIL);
    assert_true(pair.compared.slower);
    assert_true(fabs(pair.compared.change - 0.03) < 1e-12);
    assert_string_equal(pair.compared.reason, "more instructions");
    assert_int_equal(pair.compared.unit, FB_UNIT_COUNTS);
}

static void test_counts_not_made_alike_are_incomparable(void **state)
{
    (void)state;
    struct pair pair;
    init(&pair, 1000, 2000);
    (void)snprintf(pair.fresh.toolchain, sizeof pair.fresh.toolchain, "GNU 13.2.0 Release");
    assert_int_equal(judge(&pair), FB_VERDICT_INCOMPARABLE);
    assert_non_null(strstr(pair.compared.reason, "GNU 12.2.0 Release and GNU 13.2.0 Release"));
    init(&pair, 1000, 2000);
    (void)snprintf(pair.fresh.counter, sizeof pair.fresh.counter, "perf");
    assert_int_equal(judge(&pair), FB_VERDICT_INCOMPARABLE);
    assert_non_null(strstr(pair.compared.reason, "other counter"));
    init(&pair, 1000, FB_ROW_NONE);
    pair.fresh.time_median_s = 0.5;
    assert_int_equal(judge(&pair), FB_VERDICT_INCOMPARABLE);
    assert_non_null(strstr(pair.compared.reason, "counted in base only"));
    assert_int_equal(verdict_of(0, 1000), FB_VERDICT_INCOMPARABLE);
    assert_int_equal(verdict_of(1000, -5), FB_VERDICT_INCOMPARABLE);
}

static void test_memory_and_error_fail_whatever_the_count(void **state)
{
    (void)state;
    struct pair pair;
    init(&pair, 1000000, 500000);
    pair.fresh.mem_workspace_bytes = 102000;
    assert_int_equal(judge(&pair), FB_VERDICT_FAIL);
    assert_true(pair.compared.hungrier);
    init(&pair, 1000000, 500000);
    pair.fresh.err_max = 2e-5;
    assert_int_equal(judge(&pair), FB_VERDICT_FAIL);
    assert_true(pair.compared.wrong);
    init(&pair, 1000000, 500000);
    (void)snprintf(pair.fresh.status, sizeof pair.fresh.status, "wrong");
    pair.fresh.instructions = FB_ROW_NONE;
    assert_int_equal(judge(&pair), FB_VERDICT_FAIL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_percent_is_the_border),
        cmocka_unit_test(test_three_percent_says_how_much_and_why),
        cmocka_unit_test(test_counts_not_made_alike_are_incomparable),
        cmocka_unit_test(test_memory_and_error_fail_whatever_the_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
