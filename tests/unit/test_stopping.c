/* The stopping rule, driven by scripted times on a fake clock. */
#include "stopping.h"
#include "timing_clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct fb_measure_settings adaptive(void)
{
    return (struct fb_measure_settings){
        .precision = 0.01, .min_samples = 6, .max_time_s = 1.0, .processes = 1};
}

/* Feeds samples of the script, cyclically, on a clock that also loses overhead_s per sample;
 * returns how many were taken. */
static size_t feed(struct fb_stopping *stopping, const double *script, size_t length,
                   double overhead_s, size_t most)
{
    struct fb_clock_fake fake = {0};
    struct fb_clock clock;
    fb_clock_init_fake(&clock, &fake);
    const double start_s = clock.now_s(clock.context);
    enum fb_stop decision = FB_STOP_CONTINUE;
    while (decision == FB_STOP_CONTINUE && stopping->count < most) {
        const double sample_s = script[stopping->count % length];
        fb_clock_fake_advance(&fake, sample_s + overhead_s);
        const double elapsed_s = clock.now_s(clock.context) - start_s;
        assert_int_equal(fb_stopping_add(stopping, sample_s, elapsed_s, &decision, NULL), FB_OK);
    }
    return stopping->count;
}

static void test_stopping_steady_times_stop_at_min_samples(void **state)
{
    (void)state;
    const double script[] = {1e-3};
    const struct fb_measure_settings settings = adaptive();
    struct fb_stopping stopping;
    fb_stopping_init(&stopping, &settings);
    assert_int_equal(feed(&stopping, script, 1, 0.0, 10000), 6);
    assert_string_equal(fb_stop_name(stopping.reason), "precision");
    fb_stopping_free(&stopping);
}

static void test_stopping_noisy_times_stop_at_max_time(void **state)
{
    (void)state;
    const double script[] = {1e-3, 2e-3};
    const struct fb_measure_settings settings = adaptive();
    struct fb_stopping stopping;
    fb_stopping_init(&stopping, &settings);
    feed(&stopping, script, 2, 0.0, 10000);
    assert_string_equal(fb_stop_name(stopping.reason), "max_time");
    assert_true(stopping.spent_s >= 1.0 && stopping.spent_s < 1.0 + 3e-3);
    fb_stopping_free(&stopping);
}

/* What eviction costs counts too: else a short case would flush caches for minutes. */
static void test_stopping_overhead_counts_towards_max_time(void **state)
{
    (void)state;
    const double script[] = {1e-6, 2e-6};
    const struct fb_measure_settings settings = adaptive();
    struct fb_stopping stopping;
    fb_stopping_init(&stopping, &settings);
    const size_t taken = feed(&stopping, script, 2, 0.01, 10000);
    assert_in_range(taken, 99, 101);
    assert_string_equal(fb_stop_name(stopping.reason), "max_time");
    fb_stopping_free(&stopping);
}

static void test_stopping_one_long_sample_wins_over_min_samples(void **state)
{
    (void)state;
    const double script[] = {5.0};
    const struct fb_measure_settings settings = adaptive();
    struct fb_stopping stopping;
    fb_stopping_init(&stopping, &settings);
    assert_int_equal(feed(&stopping, script, 1, 0.0, 100), 1);
    assert_string_equal(fb_stop_name(stopping.reason), "max_time");
    fb_stopping_free(&stopping);
}

/* Six noisy samples, then steady ones. The interval is narrow from n = 14 on (k = 3 of 14 leaves
 * out two of the early ones on each side), but is looked at only at 6, 7, 8, 10, 12, 15. */
static void test_stopping_looks_are_spaced_geometrically(void **state)
{
    (void)state;
    static const double script[] = {0.5, 1.5, 0.6, 1.4, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
                                    1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0};
    struct fb_measure_settings settings = adaptive();
    settings.max_time_s = 1000.0;
    size_t looks[8];
    size_t found = 0;
    struct fb_stopping stopping;
    fb_stopping_init(&stopping, &settings);
    enum fb_stop decision = FB_STOP_CONTINUE;
    size_t next = stopping.next_look;
    looks[found++] = next;
    while (decision == FB_STOP_CONTINUE && stopping.count < 22) {
        assert_int_equal(fb_stopping_add(&stopping, script[stopping.count], 0.0, &decision, NULL),
                         FB_OK);
        if (stopping.next_look != next && decision == FB_STOP_CONTINUE && found < 8)
            looks[found++] = next = stopping.next_look;
    }
    const size_t want[] = {6, 7, 8, 10, 12};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(looks[i], want[i]);
    /* rank 3 from n = 12 on: two values dropped at each end, the steady ones remain */
    assert_int_equal(stopping.count, 12);
    assert_string_equal(fb_stop_name(stopping.reason), "precision");
    fb_stopping_free(&stopping);
}

static void test_stopping_fixed_count_takes_exactly_that_many(void **state)
{
    (void)state;
    const double script[] = {1.0};
    struct fb_measure_settings settings = adaptive();
    settings.samples = 30;
    struct fb_stopping stopping;
    fb_stopping_init(&stopping, &settings);
    assert_int_equal(feed(&stopping, script, 1, 0.0, 100), 30);
    assert_string_equal(fb_stop_name(stopping.reason), "samples");
    fb_stopping_free(&stopping);
}

static void test_stopping_single_sample_is_never_precise(void **state)
{
    (void)state;
    const double script[] = {1e-3};
    struct fb_measure_settings settings = adaptive();
    settings.min_samples = 1;
    struct fb_stopping stopping;
    fb_stopping_init(&stopping, &settings);
    assert_int_equal(feed(&stopping, script, 1, 0.0, 100), 2);
    fb_stopping_free(&stopping);
}

static void test_stopping_samples_are_kept_in_order(void **state)
{
    (void)state;
    double script[200];
    for (int i = 0; i < 200; i++)
        script[i] = 1.0 + ((i * 7919) % 200) / 100.0;
    struct fb_measure_settings settings = adaptive();
    settings.samples = 200;
    struct fb_stopping stopping;
    fb_stopping_init(&stopping, &settings);
    assert_int_equal(feed(&stopping, script, 200, 0.0, 1000), 200);
    for (size_t i = 0; i < 200; i++)
        assert_true(stopping.samples_s[i] == script[i]);
    fb_stopping_free(&stopping);
}

static void test_clock_monotonic_has_a_resolution(void **state)
{
    (void)state;
    struct fb_clock clock;
    fb_clock_init_monotonic(&clock);
    assert_true(clock.resolution_s > 0.0 && clock.resolution_s < 1.0);
    const double first_s = clock.now_s(clock.context);
    assert_true(clock.now_s(clock.context) >= first_s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stopping_steady_times_stop_at_min_samples),
        cmocka_unit_test(test_stopping_noisy_times_stop_at_max_time),
        cmocka_unit_test(test_stopping_overhead_counts_towards_max_time),
        cmocka_unit_test(test_stopping_one_long_sample_wins_over_min_samples),
        cmocka_unit_test(test_stopping_looks_are_spaced_geometrically),
        cmocka_unit_test(test_stopping_fixed_count_takes_exactly_that_many),
        cmocka_unit_test(test_stopping_single_sample_is_never_precise),
        cmocka_unit_test(test_stopping_samples_are_kept_in_order),
        cmocka_unit_test(test_clock_monotonic_has_a_resolution),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
