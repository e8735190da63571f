/* Which steps are reported, and which excursions are not. */
#include "changes.h"
#include "student.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

enum { POINTS_MAX = 64 };

/* A series of levels, each held for as many points; commits differ unless said otherwise. */
struct series {
    double values[POINTS_MAX], widths[POINTS_MAX];
    size_t commits[POINTS_MAX];
    size_t count;
};

static void hold(struct series *series, double level, size_t points)
{
    for (size_t i = 0; i < points; i++) {
        const size_t at = series->count++;
        series->values[at] = level + (at % 2 == 0 ? 0.002 : -0.002);
        series->widths[at] = 0.004;
        series->commits[at] = at;
    }
}

static void find(const struct series *series, struct fb_arena *arena,
                 struct fb_segmentation *segmentation, struct fb_changes *changes)
{
    struct fb_error error = {FB_OK, ""};
    assert_int_equal(fb_segments_find(series->values, series->widths, series->count, arena,
                                      segmentation, &error),
                     FB_OK);
    assert_int_equal(fb_changes_find(segmentation, series->commits, FB_CHANGE_LEAST_STEP, arena,
                                     changes, &error),
                     FB_OK);
}

static void test_changes_step_is_reported_at_its_first_point(void **state)
{
    (void)state;
    struct fb_arena arena;
    struct fb_segmentation segmentation;
    struct fb_changes changes;
    struct series series = {.count = 0};
    fb_arena_init(&arena, 0);
    hold(&series, -5.0, 20);
    hold(&series, -4.9, 20);
    find(&series, &arena, &segmentation, &changes);
    assert_int_equal(changes.count, 1);
    assert_int_equal(changes.changes[0].at, 20);
    assert_true(fabs(changes.changes[0].step - 0.1) < 0.005);
    fb_arena_free(&arena);
}

static void test_changes_below_five_percent_are_not_reported(void **state)
{
    (void)state;
    struct fb_arena arena;
    struct fb_segmentation segmentation;
    struct fb_changes changes;
    struct series series = {.count = 0};
    fb_arena_init(&arena, 0);
    hold(&series, -5.0, 20);
    hold(&series, -4.96, 20);
    hold(&series, -4.92, 20);
    find(&series, &arena, &segmentation, &changes);
    assert_int_equal(segmentation.count, 3);
    assert_int_equal(changes.count, 0);
    fb_arena_free(&arena);
}

static void test_changes_blip_of_one_commit_is_ignored(void **state)
{
    (void)state;
    struct fb_arena arena;
    struct fb_segmentation segmentation;
    struct fb_changes changes;
    struct series series = {.count = 0};
    fb_arena_init(&arena, 0);
    hold(&series, -5.0, 20);
    hold(&series, -4.0, 1);
    hold(&series, -5.0, 20);
    find(&series, &arena, &segmentation, &changes);
    assert_int_equal(segmentation.count, 3);
    assert_true(changes.blips[1]);
    assert_int_equal(changes.count, 0);
    /* Measured twice it is still one commit; two commits are a change, there and back. */
    series.count = 20;
    hold(&series, -4.0, 2);
    hold(&series, -5.0, 20);
    series.commits[21] = series.commits[20];
    find(&series, &arena, &segmentation, &changes);
    assert_int_equal(changes.count, 0);
    series.commits[21] = 21;
    find(&series, &arena, &segmentation, &changes);
    assert_int_equal(changes.count, 2);
    assert_int_equal(changes.changes[0].at, 20);
    assert_int_equal(changes.changes[1].at, 22);
    fb_arena_free(&arena);
}

static void test_changes_excursion_that_does_not_revert_is_reported(void **state)
{
    (void)state;
    struct fb_arena arena;
    struct fb_segmentation segmentation;
    struct fb_changes changes;
    struct series series = {.count = 0};
    fb_arena_init(&arena, 0);
    hold(&series, -5.0, 20);
    hold(&series, -4.0, 1);
    hold(&series, -4.7, 20);
    find(&series, &arena, &segmentation, &changes);
    assert_int_equal(changes.count, 2);
    fb_arena_free(&arena);
}

/* Tables of Student's t, four digits. */
static void test_student_quantiles_match_tables(void **state)
{
    (void)state;
    const struct {
        double tail;
        long freedom;
        double t;
    } known[] = {{0.05, 1, 6.3138},    {0.025, 2, 4.3027},   {0.01, 3, 4.5407},
                 {0.0005, 3, 12.9240}, {0.005, 10, 3.1693},  {0.001, 29, 3.3962},
                 {0.025, 120, 1.9799}, {0.025, 2000, 1.9600}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        assert_true(fabs(fb_student_quantile(known[i].tail, known[i].freedom) - known[i].t) <
                    2e-4 * known[i].t);
        assert_true(fabs(fb_student_tail(known[i].t, known[i].freedom) - known[i].tail) <
                    2e-3 * known[i].tail);
    }
    assert_true(fabs(fb_student_tail(-1.0, 1) - 0.75) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_changes_step_is_reported_at_its_first_point),
        cmocka_unit_test(test_changes_below_five_percent_are_not_reported),
        cmocka_unit_test(test_changes_blip_of_one_commit_is_ignored),
        cmocka_unit_test(test_changes_excursion_that_does_not_revert_is_reported),
        cmocka_unit_test(test_student_quantiles_match_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
