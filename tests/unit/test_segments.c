/* The segmentation against brute force over every way to cut a series. */
#include "random.h"
#include "segment_costs.h"
#include "segments.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { SMALL_MAX = 11 };

/* The cost of first .. last with the best level, which is always one of the values. */
static double brute_cost(const double *values, const double *weights, size_t first, size_t last)
{
    double least = HUGE_VAL;
    for (size_t level = first; level <= last; level++) {
        double cost = 0.0;
        for (size_t i = first; i <= last; i++)
            cost += weights[i] * fabs(values[i] - values[level]);
        least = fmin(least, cost);
    }
    return least;
}

/* Bit i of cuts: a segment starts at point i + 1. */
static double brute_partition(const double *values, const double *weights, size_t count,
                              unsigned cuts, size_t *segments)
{
    double cost = 0.0;
    size_t first = 0;
    *segments = 0;
    for (size_t i = 0; i < count; i++) {
        if (i + 1 == count || (cuts >> i & 1u) != 0) {
            cost += brute_cost(values, weights, first, i);
            first = i + 1;
            (*segments)++;
        }
    }
    return cost;
}

static void draw_series(uint64_t seed, size_t count, double *values, double *weights)
{
    struct fb_random random;
    fb_random_init(&random, seed, 7);
    double level = -7.0;
    for (size_t i = 0; i < count; i++) {
        if (fb_random_uniform(&random) < 0.25)
            level += 0.2 * fb_random_normal(&random);
        /* Rounded: ties happen. */
        values[i] = round(200.0 * (level + 0.05 * fb_random_normal(&random))) / 200.0;
        weights[i] = 0.5 + 10.0 * fb_random_uniform(&random);
    }
}

static void test_costs_every_stretch_matches_brute_force(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        double values[SMALL_MAX], weights[SMALL_MAX];
        struct fb_segment_costs costs;
        const size_t count = 1 + (size_t)(seed % SMALL_MAX);
        draw_series(seed, count, values, weights);
        assert_int_equal(fb_segment_costs_init(&costs, values, weights, count, NULL), FB_OK);
        for (size_t first = 0; first < count; first++) {
            for (size_t last = first; last < count; last++)
                assert_true(fabs(fb_segment_costs_at(&costs, first, last) -
                                 brute_cost(values, weights, first, last)) < 1e-11);
        }
        fb_segment_costs_free(&costs);
    }
}

static void test_fits_every_number_of_segments_matches_brute_force(void **state)
{
    (void)state;
    struct fb_arena arena;
    fb_arena_init(&arena, 0);
    for (uint64_t seed = 1; seed <= 60; seed++) {
        double values[SMALL_MAX], weights[SMALL_MAX], least[SMALL_MAX + 1];
        struct fb_segment_fits fits;
        const size_t count = 4 + (size_t)(seed % (SMALL_MAX - 3));
        draw_series(seed, count, values, weights);
        for (size_t k = 0; k <= count; k++)
            least[k] = HUGE_VAL;
        for (unsigned cuts = 0; cuts < 1u << (count - 1); cuts++) {
            size_t segments;
            const double cost = brute_partition(values, weights, count, cuts, &segments);
            least[segments] = fmin(least[segments], cost);
        }
        assert_int_equal(fb_segment_fits_find(values, weights, count, &arena, &fits, NULL), FB_OK);
        assert_int_equal(fits.segments_max, count);
        for (size_t k = 1; k <= count; k++) {
            double cost = 0.0;
            assert_true(fabs(fits.costs[k - 1] - least[k]) < 1e-11);
            for (size_t s = 0; s < k; s++) {
                const size_t end = s + 1 < k ? fits.starts[k - 1][s + 1] : count;
                assert_true(fits.starts[k - 1][s] < end);
                cost += brute_cost(values, weights, fits.starts[k - 1][s], end - 1);
            }
            assert_true(fabs(cost - least[k]) < 1e-11);
        }
    }
    fb_arena_free(&arena);
}

/* The chosen fit minimises gamma k + cost for its gamma, and no fit that some gamma prefers has a
 * smaller beta k + ln(spread). */
static void test_segments_choice_matches_a_scan_over_gamma(void **state)
{
    (void)state;
    struct fb_arena arena;
    fb_arena_init(&arena, 0);
    for (uint64_t seed = 1; seed <= 200; seed++) {
        double values[40], weights[40], widths[40];
        struct fb_segment_fits fits;
        struct fb_segmentation found;
        const size_t count = 4 + (size_t)(seed % 37);
        draw_series(seed, count, values, weights);
        for (size_t i = 0; i < count; i++)
            widths[i] = 2.0 / weights[i];
        double *used = NULL, total = 0.0;
        assert_int_equal(fb_segments_weights(widths, count, &arena, &used, NULL), FB_OK);
        for (size_t i = 0; i < count; i++)
            total += used[i];
        assert_int_equal(fb_segment_fits_find(values, used, count, &arena, &fits, NULL), FB_OK);
        assert_int_equal(fb_segments_find(values, widths, count, &arena, &found, NULL), FB_OK);
        const double beta = 4.0 * log((double)count) / (double)count;
        double best = HUGE_VAL;
        size_t best_count = 0;
        for (double gamma = fits.costs[0] + 1.0; gamma > 1e-7; gamma *= 0.99) {
            size_t k = 0;
            for (size_t i = 1; i < fits.segments_max; i++) {
                if (gamma * (double)(i + 1) + fits.costs[i] <
                    gamma * (double)(k + 1) + fits.costs[k])
                    k = i;
            }
            const double score = beta * (double)(k + 1) + log(fits.costs[k] / total + 1e-3);
            if (score < best - 1e-12) {
                best = score;
                best_count = k + 1;
            }
        }
        assert_int_equal(found.count, best_count);
        if (!isnan(found.gamma)) {
            const double chosen = found.gamma * (double)found.count + fits.costs[found.count - 1];
            for (size_t i = 0; i < fits.segments_max; i++)
                assert_true(chosen <= found.gamma * (double)(i + 1) + fits.costs[i] + 1e-9);
        }
    }
    fb_arena_free(&arena);
}

static void find(const double *values, const double *widths, size_t count, struct fb_arena *arena,
                 struct fb_segmentation *found)
{
    struct fb_error error = {FB_OK, ""};
    assert_int_equal(fb_segments_find(values, widths, count, arena, found, &error), FB_OK);
}

static void test_segments_degenerate_series(void **state)
{
    (void)state;
    struct fb_arena arena;
    struct fb_segmentation found;
    fb_arena_init(&arena, 0);
    const double same[6] = {-3, -3, -3, -3, -3, -3};
    const double none[6] = {0, 0, 0, 0, 0, 0};
    const double step[8] = {0, 0, 0, 0, 1, 1, 1, 1};
    const double jump[3] = {0, 5, 5};

    find(same, none, 0, &arena, &found);
    assert_int_equal(found.count, 0);
    find(same, none, 6, &arena, &found);
    assert_int_equal(found.count, 1);
    assert_true(found.segments[0].level == -3.0 && found.segments[0].error == 0.0);
    /* Intervals without width weigh all the same. */
    find(step, (const double[8]){0}, 8, &arena, &found);
    assert_int_equal(found.count, 2);
    assert_int_equal(found.segments[1].first, 4);
    assert_true(found.segments[1].level == 1.0);
    /* Fewer than four points are one segment, however far apart. */
    find(jump, none, 3, &arena, &found);
    assert_int_equal(found.count, 1);
    assert_true(found.segments[0].level == 5.0);
    fb_arena_free(&arena);
}

/* A point whose interval is empty does not outweigh twenty others. */
static void test_segments_zero_width_does_not_rule(void **state)
{
    (void)state;
    struct fb_arena arena;
    struct fb_segmentation found;
    double values[21], widths[21];
    fb_arena_init(&arena, 0);
    for (size_t i = 0; i < 21; i++) {
        values[i] = i % 2 == 0 ? 0.010 : 0.012;
        widths[i] = 0.02;
    }
    values[20] = 0.03;
    widths[20] = 0.0;
    find(values, widths, 21, &arena, &found);
    assert_true(found.segments[0].count >= 20 && found.segments[0].level < 0.013);
    widths[20] = (double)NAN;
    find(values, widths, 21, &arena, &found);
    assert_int_equal(found.count, 1);
    fb_arena_free(&arena);
}

static void test_segments_too_many_points_is_refused(void **state)
{
    (void)state;
    static double values[FB_SEGMENTS_POINTS_MAX + 1];
    struct fb_arena arena;
    struct fb_segmentation found;
    struct fb_error error = {FB_OK, ""};
    fb_arena_init(&arena, 0);
    assert_int_equal(
        fb_segments_find(values, values, FB_SEGMENTS_POINTS_MAX + 1, &arena, &found, &error),
        FB_ERROR_USAGE);
    assert_non_null(strstr(error.text, "2001 points"));
    fb_arena_free(&arena);
}

static void test_level_is_the_weighted_median(void **state)
{
    (void)state;
    double scratch[10];
    const double values[5] = {5, 1, 3, 2, 4}, even[5] = {1, 1, 1, 1, 1};
    const double heavy[5] = {10, 1, 1, 1, 1};
    assert_true(fb_segment_level(values, even, 0, 5, scratch) == 3.0);
    assert_true(fb_segment_level(values, heavy, 0, 5, scratch) == 5.0);
    assert_true(fb_segment_level(values, even, 1, 4, scratch) == 2.5);
    assert_true(fb_segment_level(values, even, 2, 1, scratch) == 3.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_costs_every_stretch_matches_brute_force),
        cmocka_unit_test(test_fits_every_number_of_segments_matches_brute_force),
        cmocka_unit_test(test_segments_choice_matches_a_scan_over_gamma),
        cmocka_unit_test(test_segments_degenerate_series),
        cmocka_unit_test(test_segments_zero_width_does_not_rule),
        cmocka_unit_test(test_segments_too_many_points_is_refused),
        cmocka_unit_test(test_level_is_the_weighted_median),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
