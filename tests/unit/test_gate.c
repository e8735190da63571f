/* The two-stage gate on scripted log ratios: what is planted is found, what is not there is not. */
#include "gate.h"

#include "random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { PAIRS_MAX = 60, CASES_MAX = 60 };

struct simulated {
    struct fb_gate_case cases[CASES_MAX];
    double screens[CASES_MAX][PAIRS_MAX], fresh[CASES_MAX][PAIRS_MAX];
};

static struct fb_gate_case gate_case(const double *screen, size_t screen_count, const double *fresh,
                                     size_t fresh_count)
{
    return (struct fb_gate_case){.screen_ratios = screen,
                                 .screen_count = screen_count,
                                 .fresh_ratios = fresh,
                                 .fresh_count = fresh_count};
}

static void draw(struct fb_random *random, double effect, double sigma, double *ratios,
                 size_t count)
{
    for (size_t i = 0; i < count; i++)
        ratios[i] = effect + sigma * (fb_random_normal(random) - fb_random_normal(random));
}

/* One comparison of `count` cases, of which the first `slow` got slower by the fraction. */
static void compare(struct simulated *all, struct fb_random *random, size_t count, size_t slow,
                    double change, double sigma)
{
    struct fb_gate_rule rule;
    struct fb_error error;
    fb_gate_rule_init(&rule);
    for (size_t i = 0; i < count; i++) {
        struct fb_gate_case *one = &all->cases[i];
        const double effect = i < slow ? log1p(change) : 0.0;
        *one = (struct fb_gate_case){.screen_ratios = all->screens[i],
                                     .screen_count = rule.screen_pairs,
                                     .fresh_ratios = all->fresh[i]};
        draw(random, effect, sigma, all->screens[i], rule.screen_pairs);
        assert_int_equal(
            fb_gate_screen(&rule, one->screen_ratios, one->screen_count, &one->screen, &error),
            FB_OK);
        one->fresh_count = one->screen.confirm_pairs;
        draw(random, effect, sigma, all->fresh[i], one->fresh_count);
    }
    assert_int_equal(fb_gate_decide(&rule, all->cases, count, &error), FB_OK);
}

static size_t count_of(const struct simulated *all, size_t first, size_t end,
                       enum fb_verdict verdict)
{
    size_t found = 0;
    for (size_t i = first; i < end; i++)
        found += all->cases[i].verdict == verdict;
    return found;
}

/* 100 comparisons of 60 cases: 10 % on six of them at 3 % noise is found every time but a few, and
 * of the 5400 others hardly any fails. */
static void test_gate_planted_ten_percent_is_found(void **state)
{
    (void)state;
    static struct simulated all;
    struct fb_random random;
    size_t found = 0, false_fails = 0;
    fb_random_init(&random, 1, 0);
    for (int i = 0; i < 100; i++) {
        compare(&all, &random, 60, 6, 0.10, 0.03);
        found += count_of(&all, 0, 6, FB_VERDICT_FAIL);
        false_fails += count_of(&all, 6, 60, FB_VERDICT_FAIL);
    }
    assert_in_range(found, 594, 600);
    assert_in_range(false_fails, 0, 1);
}

static void test_gate_nothing_planted_passes(void **state)
{
    (void)state;
    static struct simulated all;
    struct fb_random random;
    size_t passes = 0;
    fb_random_init(&random, 2, 0);
    for (int i = 0; i < 100; i++) {
        compare(&all, &random, 60, 0, 0.0, 0.02);
        assert_int_equal(count_of(&all, 0, 60, FB_VERDICT_FAIL), 0);
        assert_int_equal(count_of(&all, 0, 60, FB_VERDICT_FASTER), 0);
        passes += count_of(&all, 0, 60, FB_VERDICT_PASS);
    }
    assert_in_range(passes, 5990, 6000);
}

/* A change of exactly what is tolerated fails at most as often as alpha says. */
static void test_gate_tolerated_change_does_not_fail(void **state)
{
    (void)state;
    static struct simulated all;
    struct fb_random random;
    size_t comparisons_with_fail = 0;
    fb_random_init(&random, 3, 0);
    for (int i = 0; i < 200; i++) {
        compare(&all, &random, 20, 20, 0.03, 0.03);
        comparisons_with_fail += count_of(&all, 0, 20, FB_VERDICT_FAIL) > 0;
    }
    assert_in_range(comparisons_with_fail, 0, 7); /* 2 expected; P(> 7) < 0.002 */
}

static void test_gate_speed_up_is_faster_not_pass(void **state)
{
    (void)state;
    static struct simulated all;
    struct fb_random random;
    fb_random_init(&random, 4, 0);
    compare(&all, &random, 10, 3, -0.15, 0.02);
    assert_int_equal(count_of(&all, 0, 3, FB_VERDICT_FASTER), 3);
    assert_int_equal(count_of(&all, 3, 10, FB_VERDICT_PASS), 7);
    assert_true(all.cases[0].interval.high < 0.0);
    assert_true(all.cases[0].p_adjusted <= 0.01);
    assert_true(isnan(all.cases[9].p_adjusted));
}

/* What screening saw and fresh pairs do not show is refuted, not ambiguous. */
static void test_gate_unlucky_screen_is_refuted_by_fresh_pairs(void **state)
{
    (void)state;
    struct fb_gate_rule rule;
    struct fb_error error;
    struct fb_random random;
    double screen[10], fresh[30];
    struct fb_gate_case one = gate_case(screen, 10, fresh, 30);
    fb_gate_rule_init(&rule);
    fb_random_init(&random, 5, 0);
    draw(&random, 0.05, 0.01, screen, 10);
    draw(&random, 0.0, 0.01, fresh, 30);
    assert_int_equal(fb_gate_decide(&rule, &one, 1, &error), FB_OK);
    assert_int_equal(one.screen.suspicion, FB_SUSPECT_SLOWER);
    assert_int_equal(one.verdict, FB_VERDICT_PASS);
    assert_string_equal(one.reason, "looked slower at first, refuted by fresh pairs");
    draw(&random, log1p(0.03), 0.01, fresh, 30);
    assert_int_equal(fb_gate_decide(&rule, &one, 1, &error), FB_OK);
    assert_int_equal(one.verdict, FB_VERDICT_AMBIGUOUS);
}

static void test_gate_too_few_pairs_are_ambiguous(void **state)
{
    (void)state;
    struct fb_gate_rule rule;
    struct fb_error error;
    const double slow[30] = {0.2, 0.21, 0.19, 0.2, 0.22, 0.2, 0.2, 0.21, 0.2, 0.2};
    struct fb_gate_case cases[] = {gate_case(slow, 9, slow, 30), gate_case(slow, 10, slow, 10),
                                   gate_case(NULL, 0, NULL, 0)};
    fb_gate_rule_init(&rule);
    assert_int_equal(fb_gate_decide(&rule, cases, 3, &error), FB_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(cases[i].verdict, FB_VERDICT_AMBIGUOUS);
}

static void test_gate_noise_beyond_use_is_ambiguous_not_pass(void **state)
{
    (void)state;
    struct fb_gate_rule rule;
    struct fb_error error;
    const double wild[10] = {0.5, -0.5, 0.4, -0.4, 0.01, -0.01, 0.6, -0.6, 0.3, -0.3};
    struct fb_gate_case one = gate_case(wild, 10, NULL, 0);
    fb_gate_rule_init(&rule);
    assert_int_equal(fb_gate_decide(&rule, &one, 1, &error), FB_OK);
    assert_int_equal(one.verdict, FB_VERDICT_AMBIGUOUS);
    assert_true(one.detectable > 0.25);
}

/* Noisy candidates get 60 fresh pairs, quiet ones 30. */
static void test_gate_noise_decides_how_many_fresh_pairs(void **state)
{
    (void)state;
    struct fb_gate_rule rule;
    struct fb_error error;
    struct fb_gate_screen screen;
    double ratios[10];
    fb_gate_rule_init(&rule);
    for (int i = 0; i < 10; i++)
        ratios[i] = 0.10 + 0.001 * i;
    assert_int_equal(fb_gate_screen(&rule, ratios, 10, &screen, &error), FB_OK);
    assert_int_equal(screen.confirm_pairs, 30);
    for (int i = 0; i < 10; i++)
        ratios[i] = 0.10 + 0.03 * (i - 4.5);
    assert_int_equal(fb_gate_screen(&rule, ratios, 10, &screen, &error), FB_OK);
    assert_int_equal(screen.confirm_pairs, 60);
    for (int i = 0; i < 10; i++)
        ratios[i] = log(1.029);
    assert_int_equal(fb_gate_screen(&rule, ratios, 10, &screen, &error), FB_OK);
    assert_int_equal(screen.confirm_pairs, 0);
}

/* An effect of the detectable size is found about as often as the rule's power says. */
static void test_gate_detectable_effect_is_found_with_its_power(void **state)
{
    (void)state;
    static struct simulated all;
    struct fb_gate_rule rule;
    struct fb_random random;
    size_t found = 0;
    fb_gate_rule_init(&rule);
    const double effect = fb_gate_detectable(&rule, 0.03, 1);
    assert_true(effect > 0.03 && effect < 0.10);
    assert_true(fb_gate_detectable(&rule, 0.10, 1) > effect);
    assert_true(fabs(fb_gate_detectable(&rule, 0.0, 1) - 0.03) < 1e-6);
    fb_random_init(&random, 6, 0);
    for (int i = 0; i < 400; i++) {
        compare(&all, &random, 1, 1, effect, 0.03);
        found += count_of(&all, 0, 1, FB_VERDICT_FAIL);
    }
    assert_in_range(found, 280, 360); /* 0.7 to 0.9 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gate_planted_ten_percent_is_found),
        cmocka_unit_test(test_gate_nothing_planted_passes),
        cmocka_unit_test(test_gate_tolerated_change_does_not_fail),
        cmocka_unit_test(test_gate_speed_up_is_faster_not_pass),
        cmocka_unit_test(test_gate_unlucky_screen_is_refuted_by_fresh_pairs),
        cmocka_unit_test(test_gate_too_few_pairs_are_ambiguous),
        cmocka_unit_test(test_gate_noise_beyond_use_is_ambiguous_not_pass),
        cmocka_unit_test(test_gate_noise_decides_how_many_fresh_pairs),
        cmocka_unit_test(test_gate_detectable_effect_is_found_with_its_power),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
