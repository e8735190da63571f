/*
 * Every mechanism, variant and instruction set of this machine against the float64 oracles: odd
 * lengths and head dimensions, L != S, M != D, three layouts, large logits, random shapes, long
 * sequences. Whatever stands in the registry is covered.
 */
#include "judge.h"
#include "kernel_case.h"
#include "random.h"
#include "registry.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Set by the argument `short`, for builds that sanitizers slow down: the same shapes and kernels,
 * but fewer heads and shorter long sequences. */
static bool short_run;

static const double budget = 1e-5; /* asserted to be the f32 forward budget in test_judge.c */

struct shape {
    int64_t q_len, kv_len, qk_dim, v_dim;
};

static const struct shape shapes[] = {
    /* every length at two dimensions */
    {1, 1, 33, 24},
    {2, 2, 33, 24},
    {63, 63, 33, 24},
    {64, 64, 33, 24},
    {65, 65, 33, 24},
    {257, 257, 33, 24},
    {300, 300, 33, 24},
    {1, 1, 64, 64},
    {2, 2, 64, 64},
    {63, 63, 64, 64},
    {64, 64, 64, 64},
    {65, 65, 64, 64},
    {257, 257, 64, 64},
    {300, 300, 64, 64},
    /* every dimension, alone and against another */
    {65, 65, 1, 1},
    {65, 65, 3, 3},
    {65, 65, 5, 5},
    {65, 65, 8, 8},
    {65, 65, 16, 16},
    {65, 65, 24, 24},
    {65, 65, 80, 80},
    {65, 65, 128, 128},
    {65, 65, 200, 200},
    {65, 65, 256, 256},
    {70, 70, 1, 256},
    {70, 70, 256, 1},
    {70, 70, 3, 80},
    {70, 70, 128, 5},
    {70, 70, 8, 200},
    {70, 70, 16, 33},
    /* L != S: refused where causal and not defined */
    {1, 300, 16, 16},
    {300, 1, 16, 16},
    {63, 257, 24, 33},
    {257, 64, 64, 80},
    {2, 65, 5, 8},
    {65, 2, 80, 64},
    {300, 65, 33, 3},
};

/* Values of a mechanism's parameters that its sizes cross; 0 elsewhere. */
static double pick_parameter(const struct fb_param *param, size_t index)
{
    static const double windows[] = {16, 1, 128, 0, 7, 1000};
    static const double features[] = {32, 7, 64, 100, 1, 256};
    const double wanted = param->name[0] == 'w' ? windows[index % 6] : features[index % 6];
    return fmin(fmax(wanted, param->min), param->max);
}

static void set_problem(struct kernel_case *c, const struct fb_mechanism *mechanism, int64_t batch,
                        int64_t heads, const struct shape *shape, size_t index)
{
    c->mechanism = mechanism;
    fb_problem_init(&c->problem, mechanism, batch, heads, shape->q_len, shape->qk_dim);
    c->problem.kv_len = shape->kv_len;
    c->problem.v_dim = shape->v_dim;
    for (int i = 0; i < mechanism->param_count; i++)
        if (mechanism->params[i].type == FB_PARAM_INT)
            c->problem.params[i] = pick_parameter(&mechanism->params[i], index);
}

/* The plain causal variants of long problems ask for gigabytes; they are judged on shorter ones. */
static bool is_affordable(const struct fb_attention *attention, const struct fb_problem *problem)
{
    struct fb_sizes sizes;
    fb_attention_sizes(attention, problem, 3, &sizes);
    return sizes.forward_scratch_bytes <= (size_t)256 << 20;
}

/* Runs the case on every variant; counts in executed[attention]. */
static void judge_all_variants(struct kernel_case *c, size_t rows_max, double limit,
                               size_t *executed)
{
    struct fb_error error = {0};
    if (fb_problem_check(&c->problem, c->mechanism, &error) != FB_OK) {
        assert_int_equal(error.code, FB_ERROR_UNSUPPORTED);
        return;
    }
    kernel_case_init(c);
    kernel_case_reference(c, rows_max);
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        if (attention->mechanism != c->mechanism || !kernel_is_runnable(attention) ||
            fb_attention_supports(attention, &c->problem, FB_FORWARD, &error) != FB_OK ||
            !is_affordable(attention, &c->problem))
            continue;
        struct kernel_output output;
        if (!kernel_case_run(c, attention, 1 + (int)(c->seed % 3), 0xff, &output))
            continue;
        kernel_case_judge(c, attention, &output, limit);
        kernel_output_free(&output);
        if (executed)
            executed[i]++;
    }
    kernel_case_free(c);
}

static void test_kernels_odd_shapes_agree_with_oracle(void **state)
{
    (void)state;
    size_t executed[256] = {0};
    assert_true(fb_attention_count() <= sizeof executed / sizeof executed[0]);
    for (size_t m = 0; m < fb_mechanism_count(); m++)
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            for (int causal = 0; causal < 2; causal++) {
                struct kernel_case c = {.layout = (enum kernel_layout)((i + m) % LAYOUT_COUNT),
                                        .scale = 1.0f,
                                        .seed = 100 + i};
                set_problem(&c, fb_mechanism_at(m), short_run ? 1 : 2, short_run ? 2 : 3,
                            &shapes[i], i);
                c.problem.causal = causal != 0;
                judge_all_variants(&c, 0, budget, executed);
            }
    /* a variant that refuses everything would pass everything */
    for (size_t i = 0; i < fb_attention_count(); i++)
        if (kernel_is_runnable(fb_attention_at(i)) && kernel_has_dtype(fb_attention_at(i), FB_F32))
            assert_in_range(executed[i], 30, 1000);
    kernel_expect_no_failures();
}

static void test_kernels_every_layout_agrees_with_oracle(void **state)
{
    (void)state;
    const struct shape shape = {130, 130, 40, 24};
    for (size_t m = 0; m < fb_mechanism_count(); m++)
        for (int layout = 0; layout < LAYOUT_COUNT; layout++)
            for (int causal = 0; causal < 2; causal++) {
                struct kernel_case c = {
                    .layout = (enum kernel_layout)layout, .scale = 1.0f, .seed = 7};
                set_problem(&c, fb_mechanism_at(m), 2, 3, &shape, 0);
                c.problem.causal = causal != 0;
                judge_all_variants(&c, 0, budget, NULL);
            }
    kernel_expect_no_failures();
}

static void test_kernels_random_shapes_agree_with_oracle(void **state)
{
    (void)state;
    struct fb_random random;
    fb_random_init(&random, 20261124, 0);
    for (size_t i = 0; i < 36; i++) {
        const struct fb_mechanism *mechanism = fb_mechanism_at(i % fb_mechanism_count());
        struct kernel_case c = {.scale = 0.5f + 1.5f * (float)fb_random_uniform(&random),
                                .seed = 1000 + i};
        struct shape shape = {.q_len = 1 + (int64_t)fb_random_below(&random, 400),
                              .qk_dim = 1 + (int64_t)fb_random_below(&random, 96),
                              .v_dim = 1 + (int64_t)fb_random_below(&random, 96)};
        const int64_t other = 1 + (int64_t)fb_random_below(&random, 400);
        c.layout = (enum kernel_layout)fb_random_below(&random, LAYOUT_COUNT);
        const bool causal = fb_random_below(&random, 2) != 0;
        shape.kv_len = causal ? shape.q_len : other;
        set_problem(&c, mechanism, 1 + (int64_t)fb_random_below(&random, 3),
                    1 + (int64_t)fb_random_below(&random, 4), &shape, (size_t)other);
        c.problem.causal = causal;
        judge_all_variants(&c, 0, budget, NULL);
    }
    kernel_expect_no_failures();
}

/* q and k three times as large, as some golden files have them: logits of 72 at D = 64, whose
 * rounding alone, 72 * 2^-24 times a few, reaches half the budget. Hence four budgets. */
static void test_kernels_inputs_times_3_agree_with_oracle(void **state)
{
    (void)state;
    const struct shape shape = {150, 150, 64, 64};
    for (size_t m = 0; m < fb_mechanism_count(); m++)
        for (int causal = 0; causal < 2; causal++) {
            struct kernel_case c = {.layout = LAYOUT_BHND, .scale = 3.0f, .seed = 3};
            set_problem(&c, fb_mechanism_at(m), 1, 2, &shape, 2);
            c.problem.causal = causal != 0;
            judge_all_variants(&c, 0, 4.0 * budget, NULL);
        }
    kernel_expect_no_failures();
}

/* Logits of thousands leave f32 no digits to compare, but every answer is an average of v, times at
 * most e^2 in Flow-Attention, whose competition lies within e^-2 .. e^2. */
static void test_kernels_inputs_times_30_and_1000_stay_finite_and_bounded(void **state)
{
    (void)state;
    const struct shape shape = {150, 150, 64, 48};
    const float scales[] = {30.0f, 1000.0f};
    const double bound = 1.001 * exp(2.0);
    for (size_t m = 0; m < fb_mechanism_count(); m++)
        for (int variation = 0; variation < 4; variation++) {
            struct kernel_case c = {
                .layout = LAYOUT_BHND, .scale = scales[variation / 2], .seed = 30};
            set_problem(&c, fb_mechanism_at(m), 1, 2, &shape, 2);
            c.problem.causal = variation % 2 != 0;
            kernel_case_init(&c);
            for (size_t i = 0; i < fb_attention_count(); i++) {
                const struct fb_attention *attention = fb_attention_at(i);
                struct kernel_output output;
                if (attention->mechanism != c.mechanism || !kernel_is_runnable(attention) ||
                    !kernel_has_dtype(attention, c.problem.dtype) ||
                    !kernel_case_run(&c, attention, 2, 0xff, &output))
                    continue;
                kernel_case_bound(&c, attention, &output, bound);
                kernel_output_free(&output);
            }
            kernel_case_free(&c);
        }
    kernel_expect_no_failures();
}

/* Sums over many tokens must not lose digits. Cases are shortened until they are affordable. */
static void test_kernels_long_sequences_agree_with_oracle(void **state)
{
    (void)state;
    for (size_t m = 0; m < fb_mechanism_count(); m++)
        for (int causal = 0; causal < 2; causal++) {
            struct kernel_case c = {.layout = LAYOUT_BNHD, .scale = 1.0f, .seed = 65536};
            struct fb_cost cost;
            int64_t len = 2 * 65536;
            do {
                len /= 2;
                const struct shape shape = {len, len, 64, 64};
                set_problem(&c, fb_mechanism_at(m), 1, 1, &shape, 2);
                c.problem.causal = causal != 0;
                c.mechanism->cost(&c.problem, FB_FORWARD, &cost);
            } while (cost.flop > (short_run ? 0.5e8 : 1.2e9) && len > 512);
            judge_all_variants(&c, 24, budget, NULL);
        }
    kernel_expect_no_failures();
}

/* The case's inputs are there; frees it. */
static void judge_many_keys(struct kernel_case *c)
{
    kernel_case_reference(c, 0);
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        struct kernel_output output;
        if (!kernel_case_is_served(c, attention, FB_FORWARD) ||
            !kernel_case_is_affordable(c, attention) ||
            !kernel_case_run(c, attention, 2, 0xff, &output))
            continue;
        kernel_case_judge(c, attention, &output, budget);
        kernel_output_free(&output);
    }
    kernel_case_free(c);
}

/* Where a running maximum stays, what has been summed up so far stays, too: a factor that is next
 * to one, tile by tile, shows with many keys whose scores are far from zero. And what many keys
 * weigh beside an attention sink that comes first is not lost block by block: 2e-5 here. Queries
 * for tiles, in rows that a GPU's warpgroups take and in others, and one alone, whose keys are
 * split over a GPU. */
static void test_kernels_many_keys_agree_with_oracle(void **state)
{
    (void)state;
    enum { QUERIES = 64, DIM = 64 };
    const int64_t keys = short_run ? 8192 : 65536;
    const struct shape shape = {QUERIES, keys, DIM, DIM}, alone = {1, keys, DIM, DIM};
    struct kernel_case far = {.layout = LAYOUT_BHND, .scale = 1.0f, .seed = 31};
    set_problem(&far, fb_mechanism_find("softmax"), 1, 1, &shape, 0);
    kernel_case_init(&far);
    kernel_case_raise(&far.q, 0, QUERIES, 0, 10.0f);
    kernel_case_raise(&far.k, 0, keys, 0, 10.0f); /* scores of 12.5, give or take one */
    judge_many_keys(&far);
    for (int i = 0; i < 3; i++) {
        struct kernel_case sink = {
            .layout = i == 1 ? LAYOUT_PADDED : LAYOUT_BHND, .scale = 0.01f, .seed = 32};
        set_problem(&sink, fb_mechanism_find("softmax"), 1, 1, i == 2 ? &alone : &shape, 0);
        kernel_case_init(&sink);
        kernel_case_raise(&sink.q, 0, sink.problem.q_len, 0, 8.0f);
        kernel_case_raise(&sink.k, 0, 1, 0, 21.9f); /* 8 * 21.9 / sqrt(64) */
        for (int64_t d = 0; d < DIM; d++)
            kernel_case_raise(&sink.v, 0, keys, d, 4.0f);
        for (int64_t d = 0; d < DIM; d++)
            kernel_case_raise(&sink.v, 0, 1, d, -8.0f);
        judge_many_keys(&sink);
    }
    kernel_expect_no_failures();
}

/* Without a clamp one source can outweigh a million others, as that of an attention sink does: what
 * equal blocks of those lose beside it adds up, to 1.7e-5 here. (BLAS loses 8e-5: its variant is
 * not judged.) */
static void test_kernels_flow_beside_a_sink_agrees_with_oracle(void **state)
{
    (void)state;
    enum { DIM = 8 };
    const int64_t len = short_run ? 8192 : 1 << 20;
    const float phi = expf(-0.52f), times = short_run ? 8.0f : 12.0f; /* and 1: the sink's */
    const struct shape shape = {len, len, DIM, DIM};
    struct kernel_case c = {.layout = LAYOUT_BHND, .scale = 0.001f, .seed = 33};
    set_problem(&c, fb_mechanism_find("flow"), 1, 1, &shape, 0);
    assert_true(kernel_case_set_parameter(&c, "phi", 0.0, "elu+1"));
    assert_true(kernel_case_set_parameter(&c, "clamp", 0.0, NULL));
    kernel_case_init(&c);
    for (int64_t d = 0; d < DIM; d++) {
        kernel_case_raise(&c.q, 0, len, d, -0.52f);
        kernel_case_raise(&c.k, 0, len, d, -0.52f);
        kernel_case_raise(&c.k, 0, 1, d, times * phi + 0.52f);
        kernel_case_raise(&c.v, 0, len, d, -400.0f);
        kernel_case_raise(&c.v, 0, 1, d, 800.0f);
    }
    kernel_case_reference(&c, 0);
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        struct kernel_output output;
        if (strcmp(attention->variant, "fused") != 0 ||
            !kernel_case_is_served(&c, attention, FB_FORWARD) ||
            !kernel_case_run(&c, attention, 2, 0xff, &output))
            continue;
        kernel_case_judge(&c, attention, &output, budget);
        kernel_output_free(&output);
    }
    kernel_case_free(&c);
    kernel_expect_no_failures();
}

int main(int argc, char **argv)
{
    short_run = argc > 1 && strcmp(argv[1], "short") == 0;
    cmocka_set_test_filter(getenv("KERNEL_CASE_TESTS")); /* a pattern; none: all */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels_odd_shapes_agree_with_oracle),
        cmocka_unit_test(test_kernels_every_layout_agrees_with_oracle),
        cmocka_unit_test(test_kernels_random_shapes_agree_with_oracle),
        cmocka_unit_test(test_kernels_inputs_times_3_agree_with_oracle),
        cmocka_unit_test(test_kernels_inputs_times_30_and_1000_stay_finite_and_bounded),
        cmocka_unit_test(test_kernels_long_sequences_agree_with_oracle),
        cmocka_unit_test(test_kernels_many_keys_agree_with_oracle),
        cmocka_unit_test(test_kernels_flow_beside_a_sink_agrees_with_oracle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
