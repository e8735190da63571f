/* Optimisers against steps worked out by hand in plain arithmetic, schedules against their
 * formulae, clipping. */
#include "nn_optimiser.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.10g, not %.10g", value, expected);
}

/* Constant gradient g: m/(1-b1^t) = g and v/(1-b2^t) = g^2, so Adam moves by lr sign(g). */
static void test_adam_constant_gradient_moves_by_the_rate(void **state)
{
    (void)state;
    const struct fb_nn_optimiser o = {FB_NN_ADAM, 0.9, 0.999, 1e-8, 0.0};
    float theta[2] = {1.0F, -2.0F}, m[2] = {0}, v[2] = {0};
    const float g[2] = {0.5F, -3.0F};
    for (int64_t t = 1; t <= 10; t++)
        fb_nn_optimiser_step(&o, theta, m, v, g, NULL, 2, t, 0.01, 1);
    assert_near((double)theta[0], 1.0 - 0.1, 1e-6);
    assert_near((double)theta[1], -2.0 + 0.1, 1e-6);
}

static void test_adam_decay_touches_only_what_is_marked(void **state)
{
    (void)state;
    const struct fb_nn_optimiser o = {FB_NN_ADAM, 0.9, 0.95, 1e-8, 0.1};
    float theta[2] = {2.0F, 2.0F}, m[2] = {0}, v[2] = {0};
    const float g[2] = {0.0F, 0.0F};
    const unsigned char decay[2] = {1, 0};
    fb_nn_optimiser_step(&o, theta, m, v, g, decay, 2, 1, 0.5, 1);
    assert_near((double)theta[0], 2.0 * (1.0 - 0.05), 1e-6);
    assert_near((double)theta[1], 2.0, 0.0);
}

/* Where the gradient is far below epsilon, the two places of epsilon differ by sqrt(1 - b2^t). */
static void test_adam_epsilon_stands_where_the_kind_says(void **state)
{
    (void)state;
    const float g[1] = {1e-3F};
    const double eps = 10.0, corrected = 1e-3 / (1e-3 + eps);
    const double raw = sqrt(1.0 - 0.98) * 1e-3 / (sqrt(0.02) * 1e-3 + eps);
    float theta[1] = {0.0F}, m[1] = {0}, v[1] = {0};
    fb_nn_optimiser_step(&(struct fb_nn_optimiser){FB_NN_ADAM, 0.9, 0.98, eps, 0.0}, theta, m, v, g,
                         NULL, 1, 1, 1.0, 1);
    assert_near((double)theta[0], -corrected, 1e-9);
    theta[0] = m[0] = v[0] = 0.0F;
    fb_nn_optimiser_step(&(struct fb_nn_optimiser){FB_NN_ADAM_RAW_EPS, 0.9, 0.98, eps, 0.0}, theta,
                         m, v, g, NULL, 1, 1, 1.0, 1);
    assert_near((double)theta[0], -raw, 1e-9);
}

/* Up to t = 5 (b2 = 0.999) RAdam is momentum: with a constant gradient each step is lr g. From 6 on
 * it is rectified: rho_6 = 1999 - 12 b2^6 / (1 - b2^6) = 5.994..., and the step is r m^ / sqrt(v^).
 */
static void test_radam_switches_at_six(void **state)
{
    (void)state;
    const struct fb_nn_optimiser o = {FB_NN_RADAM, 0.9, 0.999, 1e-8, 0.0};
    float theta[1] = {0.0F}, m[1] = {0}, v[1] = {0};
    const float g[1] = {0.25F};
    for (int64_t t = 1; t <= 5; t++)
        fb_nn_optimiser_step(&o, theta, m, v, g, NULL, 1, t, 0.1, 1);
    assert_near((double)theta[0], -5 * 0.1 * 0.25, 1e-6);
    const double before = (double)theta[0];
    fb_nn_optimiser_step(&o, theta, m, v, g, NULL, 1, 6, 0.1, 1);
    const double b2 = pow(0.999, 6.0), rho = 1999.0 - 12.0 * b2 / (1.0 - b2);
    assert_true(rho > 5.0 && rho < 7.0);
    const double r = sqrt((rho - 4.0) / 1995.0 * (rho - 2.0) / rho * 1999.0 / 1997.0);
    assert_near((double)theta[0] - before, -0.1 * r, 1e-6);
}

static void test_steps_do_not_depend_on_threads(void **state)
{
    (void)state;
    enum { COUNT = 50000 };
    static float theta[2][COUNT], m[2][COUNT], v[2][COUNT], g[COUNT];
    const struct fb_nn_optimiser o = {FB_NN_RADAM, 0.9, 0.999, 1e-8, 0.01};
    for (int i = 0; i < COUNT; i++) {
        g[i] = sinf((float)i);
        theta[0][i] = theta[1][i] = cosf((float)i);
    }
    for (int64_t t = 1; t <= 7; t++)
        for (int side = 0; side < 2; side++)
            fb_nn_optimiser_step(&o, theta[side], m[side], v[side], g, NULL, COUNT, t, 0.1,
                                 side + 1);
    assert_memory_equal(theta[0], theta[1], sizeof theta[0]);
}

static void test_clipping_scales_to_the_limit(void **state)
{
    (void)state;
    float g[2] = {3.0F, 4.0F};
    assert_near(fb_nn_clip_norm(g, 2, 10.0), 5.0, 1e-12);
    assert_near((double)g[0], 3.0, 0.0);
    assert_near(fb_nn_clip_norm(g, 2, 1.0), 5.0, 1e-12);
    assert_near((double)g[1], 0.8, 1e-6);
}

static void test_schedules_follow_their_formulae(void **state)
{
    (void)state;
    const struct fb_nn_schedule rsqrt = {FB_NN_RSQRT, 0.005, 0.0, 1000, 0};
    assert_near(fb_nn_schedule_at(&rsqrt, 0), 0.0, 0.0);
    assert_near(fb_nn_schedule_at(&rsqrt, 1000), 1.58e-4, 1e-6); /* ListOps' peak */
    assert_near(fb_nn_schedule_at(&rsqrt, 4999), 7.1e-5, 1e-6);
    const struct fb_nn_schedule cosine = {FB_NN_COSINE, 5e-4, 0.0, 175, 35000};
    assert_near(fb_nn_schedule_at(&cosine, 175), 5e-4, 1e-12);
    assert_near(fb_nn_schedule_at(&cosine, 175 + 17500), 2.5e-4, 1e-12);
    const struct fb_nn_schedule warm = {FB_NN_LINEAR_WARMUP, 1e-3, 0.0, 10000, 0};
    assert_near(fb_nn_schedule_at(&warm, 0), 1e-7, 1e-15);
    assert_near(fb_nn_schedule_at(&warm, 20000), 1e-3, 1e-15);
    const struct fb_nn_schedule fairseq = {FB_NN_INVERSE_SQRT, 1e-3, 1e-7, 6000, 0};
    assert_near(fb_nn_schedule_at(&fairseq, 5999), 1e-3, 1e-12);
    assert_near(fb_nn_schedule_at(&fairseq, 23999), 5e-4, 1e-12);
    const struct fb_nn_schedule constant = {FB_NN_CONSTANT, 0.25, 0.0, 0, 0};
    assert_near(fb_nn_schedule_at(&constant, 123), 0.25, 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adam_constant_gradient_moves_by_the_rate),
        cmocka_unit_test(test_adam_decay_touches_only_what_is_marked),
        cmocka_unit_test(test_adam_epsilon_stands_where_the_kind_says),
        cmocka_unit_test(test_radam_switches_at_six),
        cmocka_unit_test(test_steps_do_not_depend_on_threads),
        cmocka_unit_test(test_clipping_scales_to_the_limit),
        cmocka_unit_test(test_schedules_follow_their_formulae),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
