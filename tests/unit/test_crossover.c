/* Sign changes against softmax: where, how many, and what happens at the edges. */
#include "crossover.h"

#include "made_results.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance)) {
        fail_msg("%g is not within %g of %g", value, tolerance, expected);
    }
}

static void test_find_one_change_is_interpolated_on_logarithms(void **state)
{
    (void)state;
    double sizes[] = {256, 512, 1024, 2048}, ratio[] = {1, 0.5, -0.5, -1};
    struct fb_crossing found[3];
    assert_int_equal(fb_crossover_find(sizes, ratio, 4, found), 1);
    assert_near(found[0].size, sqrt(512.0 * 1024.0), 1e-9);
    assert_true(found[0].becomes_faster);
}

static void test_find_every_change_is_listed(void **state)
{
    (void)state;
    double sizes[] = {1, 2, 4, 8, 16}, ratio[] = {-1, 1, 1, -3, 1};
    struct fb_crossing found[4];
    assert_int_equal(fb_crossover_find(sizes, ratio, 5, found), 3);
    assert_false(found[0].becomes_faster);
    assert_true(found[1].becomes_faster);
    assert_near(found[1].size, exp2(2 + 0.25), 1e-9);
    assert_false(found[2].becomes_faster);
}

static void test_find_touching_zero_is_no_change_passing_is_one(void **state)
{
    (void)state;
    double sizes[] = {1, 2, 4, 8}, touch[] = {1, 0, 1, 1}, pass[] = {1, 0, -1, -1};
    double end[] = {1, 1, 1, 0};
    struct fb_crossing found[3];
    assert_int_equal(fb_crossover_find(sizes, touch, 4, found), 0);
    assert_int_equal(fb_crossover_find(sizes, pass, 4, found), 1);
    assert_near(found[0].size, 2, 1e-12);
    assert_int_equal(fb_crossover_find(sizes, end, 4, found), 0);
}

/* flow: unit_s * N, softmax: 1e-9 * N^2; they meet at N = unit_s / 1e-9. */
static void cross(double unit_s, struct fb_arena *arena, struct fb_crossover *crossover)
{
    struct fb_results results;
    struct fb_series_set set;
    fb_made_init(&results, 64, 4000);
    for (int64_t n = 256; n <= 65536; n *= 2) {
        double size = (double)n;
        fb_made_samples(&results,
                        fb_made_row(&results, "softmax", "tiled", false, n, 1e-9 * size * size), 6,
                        10, 0.005);
        fb_made_samples(&results,
                        fb_made_row(&results, "softmax", "plain", false, n, 9e-9 * size * size), 6,
                        10, 0.005);
        fb_made_samples(&results, fb_made_row(&results, "flow", "fused", false, n, unit_s * size),
                        6, 10, 0.005);
        fb_made_row(&results, "softmax", "tiled", true, n, 1e-12);
    }
    assert_int_equal(fb_series_collect(&results, 1, FB_AXIS_SEQ_LEN, arena, &set, NULL), FB_OK);
    const struct fb_series *flow = NULL;
    for (size_t i = 0; i < set.count; i++) {
        flow = strcmp(set.items[i].key->mechanism, "flow") == 0 ? &set.items[i] : flow;
    }
    assert_non_null(flow);
    const struct fb_series *softmax = fb_series_softmax(&set, flow);
    assert_non_null(softmax);
    assert_string_equal(softmax->key->variant, "tiled");
    assert_string_equal(softmax->key->causal, "false");
    assert_int_equal(fb_crossover_of(flow, softmax, 1, arena, crossover, NULL), FB_OK);
    fb_made_free(&results);
}

static void test_crossover_inside_the_range_has_an_interval(void **state)
{
    (void)state;
    struct fb_arena arena;
    struct fb_crossover crossover;
    fb_arena_init(&arena, 0);
    cross(3e-6, &arena, &crossover);
    assert_int_equal(crossover.kind, FB_CROSSOVER_INSIDE);
    assert_near(crossover.size, 3000, 1);
    assert_int_equal(crossover.crossings_count, 1);
    assert_int_equal(crossover.interval.kind, FB_SPREAD_PROCESSES);
    assert_true(crossover.interval.low < 3030 && crossover.interval.high > 2970);
    assert_true(crossover.interval.high - crossover.interval.low < 150);
    fb_arena_free(&arena);
}

static void test_crossover_outside_the_range_is_never_extrapolated(void **state)
{
    (void)state;
    struct fb_arena arena;
    struct fb_crossover crossover;
    fb_arena_init(&arena, 0);
    cross(1e-7, &arena, &crossover);
    assert_int_equal(crossover.kind, FB_CROSSOVER_BELOW);
    assert_near(crossover.size_min, 256, 0);
    assert_near(crossover.size, 0, 0);
    cross(1e-3, &arena, &crossover);
    assert_int_equal(crossover.kind, FB_CROSSOVER_ABOVE);
    assert_near(crossover.size_max, 65536, 0);
    assert_true(isinf(crossover.size));
    assert_int_equal(crossover.crossings_count, 0);
    fb_arena_free(&arena);
}

/* Two that are no default: the one that was measured at more sizes, though the other is faster. */
static void test_crossover_reference_was_measured_at_most_sizes(void **state)
{
    (void)state;
    struct fb_arena arena;
    struct fb_results results;
    struct fb_series_set set;
    fb_arena_init(&arena, 0);
    fb_made_init(&results, 16, 0);
    for (int64_t n = 256; n <= 1024; n *= 2) {
        fb_made_row(&results, "flow", "fused", false, n, 1e-3);
        fb_made_row(&results, "softmax", "plain", false, n, 2e-3);
    }
    fb_made_row(&results, "softmax", "other", false, 1024, 1e-3);
    assert_int_equal(fb_series_collect(&results, 1, FB_AXIS_SEQ_LEN, &arena, &set, NULL), FB_OK);
    const struct fb_series *softmax = fb_series_softmax(&set, &set.items[0]);
    assert_string_equal(set.items[0].key->mechanism, "flow");
    assert_non_null(softmax);
    assert_string_equal(softmax->key->variant, "plain");
    fb_made_free(&results);
    fb_arena_free(&arena);
}

static void test_crossover_without_softmax_says_none(void **state)
{
    (void)state;
    struct fb_arena arena;
    struct fb_results results;
    struct fb_series_set set;
    struct fb_crossover crossover;
    fb_arena_init(&arena, 0);
    fb_made_init(&results, 8, 0);
    fb_made_row(&results, "flow", "fused", false, 256, 1e-3);
    struct fb_row *other = fb_made_row(&results, "softmax", "tiled", false, 256, 1e-3);
    other->heads = 4;
    assert_int_equal(fb_series_collect(&results, 1, FB_AXIS_SEQ_LEN, &arena, &set, NULL), FB_OK);
    assert_null(fb_series_softmax(&set, &set.items[0]));
    assert_int_equal(fb_crossover_of(&set.items[0], NULL, 1, &arena, &crossover, NULL), FB_OK);
    assert_int_equal(crossover.kind, FB_CROSSOVER_NONE);
    fb_made_free(&results);
    fb_arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find_one_change_is_interpolated_on_logarithms),
        cmocka_unit_test(test_find_every_change_is_listed),
        cmocka_unit_test(test_find_touching_zero_is_no_change_passing_is_one),
        cmocka_unit_test(test_crossover_inside_the_range_has_an_interval),
        cmocka_unit_test(test_crossover_outside_the_range_is_never_extrapolated),
        cmocka_unit_test(test_crossover_reference_was_measured_at_most_sizes),
        cmocka_unit_test(test_crossover_without_softmax_says_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
