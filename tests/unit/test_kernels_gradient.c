/*
 * Gradients of every mechanism, variant and instruction set of this machine: against the float64
 * oracles: odd shapes, layouts, options, grouped queries, padding, long sequences, large logits.
 * Whatever stands in the registry is covered. Other promises of a backward pass:
 * test_kernels_training.c.
 */
#include "judge.h"
#include "kernel_case.h"
#include "registry.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Set by the argument `short`, for builds that sanitizers slow down. */
static bool short_run;

enum { VARIANTS_MAX = 256 };
static size_t trained[VARIANTS_MAX]; /* cases judged, by registry index; reset by each test */

/* Inference and training of every variant that serves the case, against the oracle. */
static void judge_all_variants(struct kernel_case *c, double factor)
{
    struct fb_error error = {0};
    if (fb_problem_check(&c->problem, c->mechanism, &error) != FB_OK) {
        assert_int_equal(error.code, FB_ERROR_UNSUPPORTED);
        return;
    }
    const int threads = 1 + (int)(c->seed % 3);
    kernel_case_init(c);
    kernel_case_reference(c, 0);
    kernel_case_gradient_reference(c);
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        struct kernel_training training;
        struct kernel_output output;
        if (!kernel_case_is_served(c, attention, FB_FORWARD) ||
            !kernel_case_is_affordable(c, attention))
            continue;
        if (kernel_case_run(c, attention, threads, 0xff, &output)) {
            kernel_case_judge(c, attention, &output, factor * fb_judge_budget(FB_F32, FB_FORWARD));
            kernel_output_free(&output);
        }
        if (!kernel_case_is_served(c, attention, FB_BOTH) ||
            !kernel_case_train(c, attention, threads, 0xff, &training))
            continue;
        kernel_case_judge_training(c, attention, &training, factor);
        kernel_training_free(&training);
        trained[i]++;
    }
    kernel_case_free(c);
}

/* A variant that refuses everything would pass everything. */
static void expect_trained(size_t least)
{
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        if (kernel_is_runnable(attention) && kernel_has_dtype(attention, FB_F32) &&
            attention->backward && trained[i] < least)
            fail_msg("%s/%s %s: %zu cases were trained, %zu expected", attention->mechanism->name,
                     attention->variant, fb_isa_name(attention->isa), trained[i], least);
    }
    memset(trained, 0, sizeof trained);
}

static void test_gradients_odd_shapes_agree_with_oracle(void **state)
{
    (void)state;
    static const int64_t shapes[][4] = {
        {1, 1, 33, 24},      {2, 2, 5, 3},       {63, 63, 33, 24},     {64, 64, 64, 64},
        {65, 65, 64, 64},    {129, 129, 16, 16}, {257, 257, 33, 24},   {300, 300, 64, 64},
        {65, 65, 1, 1},      {65, 65, 3, 80},    {70, 70, 80, 3},      {70, 70, 1, 200},
        {70, 70, 200, 1},    {65, 65, 128, 128}, {65, 65, 256, 256},   {1, 300, 16, 16},
        {300, 1, 16, 16},    {63, 257, 24, 33},  {257, 64, 64, 80},    {300, 65, 33, 3},
        {1, 500, 256, 256},  {3, 300, 64, 64},   {131, 200, 136, 256}, {1, 700, 256, 200},
        {130, 67, 200, 130},
    };
    assert_true(fb_attention_count() <= VARIANTS_MAX);
    for (size_t m = 0; m < fb_mechanism_count(); m++)
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            for (int causal = 0; causal < 2; causal++) {
                struct kernel_case c = {.layout = (enum kernel_layout)((i + m) % LAYOUT_COUNT),
                                        .scale = 1.0f,
                                        .seed = 200 + i};
                kernel_case_set_problem(&c, fb_mechanism_at(m), short_run ? 1 : 2,
                                        short_run ? 1 : 2, shapes[i][0], shapes[i][1], shapes[i][2],
                                        shapes[i][3]);
                kernel_case_shrink_parameters(&c, i);
                c.problem.causal = causal != 0;
                judge_all_variants(&c, 1.0);
            }
    expect_trained(30);
    kernel_expect_no_failures();
}

/* Few features of wide heads are nearly the same for all tokens, so that the query gradients of a
 * causal head are what terms a thousand times as large leave, unless a kernel keeps apart what is
 * the same. The first query weighs one key, by 1 whatever it is: a GPU's kernels write the zero. */
static void test_gradients_of_a_causal_first_query_are_small(void **state)
{
    (void)state;
    struct kernel_case c = {.layout = LAYOUT_BHND, .scale = 1.0f, .seed = 222};
    kernel_case_set_problem(&c, fb_mechanism_find("performer"), 1, 2, 131, 200, 256, 136);
    assert_true(kernel_case_set_parameter(&c, "features", 64, NULL));
    c.problem.causal = true;
    kernel_case_init(&c);
    kernel_case_gradient_reference(&c);
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        struct kernel_training training;
        if (!kernel_case_is_served(&c, attention, FB_BOTH) ||
            !kernel_case_train(&c, attention, 1, 0xff, &training))
            continue;
        kernel_case_judge_training(&c, attention, &training, 1.0);
        for (int64_t h = 0; attention->backend == FB_CUDA && h < 2; h++)
            for (int64_t d = 0; d < 256; d++)
                if (fb_tensor_value(&training.dq.view, 0, h, 0, d) != 0.0)
                    kernel_report(&c, attention, "dq of the first query is not zero");
        kernel_training_free(&training);
    }
    kernel_case_free(&c);
    kernel_expect_no_failures();
}

static void test_gradients_every_layout_agrees_with_oracle(void **state)
{
    (void)state;
    for (size_t m = 0; m < fb_mechanism_count(); m++)
        for (int layout = 0; layout < LAYOUT_COUNT; layout++)
            for (int causal = 0; causal < 2; causal++) {
                struct kernel_case c = {
                    .layout = (enum kernel_layout)layout, .scale = 1.0f, .seed = 7};
                kernel_case_set_problem(&c, fb_mechanism_at(m), 2, 3, 130, 130, 40, 24);
                kernel_case_shrink_parameters(&c, 0);
                c.problem.causal = causal != 0;
                judge_all_variants(&c, 1.0);
            }
    expect_trained(6);
    kernel_expect_no_failures();
}

/* One query, or a few, for a long sequence of keys: a class token, a decoder's step. */
static void test_gradients_few_queries_agree_with_oracle(void **state)
{
    (void)state;
    enum { BATCH = 4, LEN = 203 };
    static const int64_t q_lengths[BATCH] = {1, 1, 0, 1}, kv_lengths[BATCH] = {LEN, 1, 64, 0};
    for (size_t m = 0; m < fb_mechanism_count(); m++)
        for (size_t i = 0; i < 12; i++) {
            struct kernel_case c = {
                .layout = (enum kernel_layout)(i % LAYOUT_COUNT), .scale = 1.0f, .seed = 350 + i};
            kernel_case_set_problem(&c, fb_mechanism_at(m), BATCH, 4, 1 + (int64_t)i % 3, LEN,
                                    i % 2 ? 24 : 72, i % 2 ? 20 : 136);
            kernel_case_shrink_parameters(&c, 0);
            c.problem.kv_heads = (int64_t)1 << i / 4;
            if (i % 4 != 0)
                c.problem.kv_lengths = kv_lengths;
            if (i % 4 == 3)
                c.problem.q_lengths = q_lengths;
            judge_all_variants(&c, 1.0);
        }
    expect_trained(0);
    kernel_expect_no_failures();
}

/* Padding is NaN in q, k, v and dout; its gradients are 0. */
static void test_gradients_lengths_and_grouped_queries_agree_with_oracle(void **state)
{
    (void)state;
    enum { BATCH = 5, LEN = 150 };
    static const int64_t lengths[BATCH] = {3, LEN, 0, 64, 129}, others[BATCH] = {LEN, 1, 7, 0, 65};
    static const struct {
        int64_t kv_heads;
        const int64_t *q_lengths, *kv_lengths;
    } variations[] = {
        {1, NULL, NULL},    {2, NULL, NULL},      {4, lengths, lengths}, {4, lengths, NULL},
        {4, NULL, lengths}, {4, lengths, others}, {2, lengths, lengths}, {1, others, lengths},
    };
    for (size_t m = 0; m < fb_mechanism_count(); m++)
        for (size_t i = 0; i < 2 * sizeof variations / sizeof variations[0]; i++) {
            struct kernel_case c = {
                .layout = (enum kernel_layout)(i % LAYOUT_COUNT), .scale = 1.0f, .seed = 300 + i};
            kernel_case_set_problem(&c, fb_mechanism_at(m), BATCH, 4, LEN, LEN, 24, 20);
            kernel_case_shrink_parameters(&c, 0);
            c.problem.causal = i % 2 != 0;
            c.problem.kv_heads = variations[i / 2].kv_heads;
            c.problem.q_lengths = variations[i / 2].q_lengths;
            c.problem.kv_lengths = variations[i / 2].kv_lengths;
            judge_all_variants(&c, 1.0);
        }
    expect_trained(0);
    kernel_expect_no_failures();
}

/* Published options and ablations: spec/attention.md sections 3 to 5. */
static const struct option {
    const char *mechanism;
    struct {
        const char *name;
        double value;
        const char *choice;
    } settings[4];
} options[] = {
    {"flow", {{"clamp", 0, NULL}}},
    {"flow", {{"clamp", 5, NULL}}},
    {"flow", {{"clamp", 1000, NULL}}},
    {"flow", {{"extra_eps", 1e-6, NULL}}},
    {"flow", {{"extra_eps", 0.5, NULL}, {"clamp", 0, NULL}}},
    {"flow", {{"phi", 0, "relu"}, {"clamp", 0, NULL}, {"competition", 0, "heads"}}},
    {"flow", {{"phi", 0, "relu"}, {"clamp", 0, NULL}}},
    {"flow", {{"phi", 0, "elu+1"}}},
    {"flow", {{"phi", 0, "elu+1"}, {"competition", 0, "heads"}}},
    {"flow", {{"competition", 0, "off"}}},
    {"flow", {{"competition", 0, "heads"}}},
    {"flow", {{"allocation", 0, NULL}}},
    {"flow", {{"competition", 0, "off"}, {"allocation", 0, NULL}, {"phi", 0, "relu"}}},
    {"performer", {{"kernel", 0, "relu"}}},
    {"local", {{"pattern", 0, "strided"}, {"block", 50, NULL}}},
    {"local", {{"pattern", 0, "strided"}, {"block", 7, NULL}}},
    {"local", {{"pattern", 0, "strided"}, {"block", 1000, NULL}}},
};

/* False when the mechanism lacks one of the parameters. */
static bool apply_option(struct kernel_case *c, const struct option *option)
{
    for (int i = 0; i < 4 && option->settings[i].name; i++)
        if (!kernel_case_set_parameter(c, option->settings[i].name, option->settings[i].value,
                                       option->settings[i].choice))
            return false;
    return true;
}

static void test_gradients_options_agree_with_oracle(void **state)
{
    (void)state;
    static const int64_t lengths[2] = {97, 150};
    static const int64_t sizes[][4] = {
        {150, 150, 24, 20}, {63, 150, 33, 8}, {1, 1, 3, 2}, {65, 130, 256, 130}};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        for (int variation = 0; variation < 12; variation++) {
            if (short_run && (i + (size_t)variation) % 3 != 0)
                continue;
            struct kernel_case c = {.layout = LAYOUT_PADDED, .scale = 1.0f, .seed = 400 + i};
            const struct fb_mechanism *mechanism = fb_mechanism_find(options[i].mechanism);
            const int64_t *size = sizes[variation / 2 % 4];
            assert_non_null(mechanism);
            kernel_case_set_problem(&c, mechanism, 2, 2, size[0], size[1], size[2], size[3]);
            if (!apply_option(&c, &options[i]))
                continue;
            c.problem.causal = variation % 2 != 0;
            if (variation / 2 >= 4) {
                c.problem.q_len = c.problem.kv_len = 150;
                c.problem.q_lengths = c.problem.kv_lengths = lengths;
                c.problem.kv_heads = variation / 2 == 4 ? 2 : 1;
            }
            judge_all_variants(&c, 1.0);
        }
    expect_trained(0);
    kernel_expect_no_failures();
}

/* Sums over many tokens must not lose digits; kernels cut long heads into slices. */
static void test_gradients_long_sequences_agree_with_oracle(void **state)
{
    (void)state;
    for (size_t m = 0; m < fb_mechanism_count(); m++)
        for (int causal = 0; causal < 2; causal++) {
            struct kernel_case c = {.layout = LAYOUT_BNHD, .scale = 1.0f, .seed = 9001};
            struct fb_cost cost;
            int64_t len = short_run ? 2200 : 9001;
            do {
                kernel_case_set_problem(&c, fb_mechanism_at(m), 1, 1, len, len, 16, 24);
                kernel_case_shrink_parameters(&c, 2);
                c.problem.causal = causal != 0;
                c.mechanism->cost(&c.problem, FB_BACKWARD, &cost);
                len = len * 3 / 4;
            } while (cost.flop > 1.5e8);
            judge_all_variants(&c, 1.0);
        }
    expect_trained(1);
    kernel_expect_no_failures();
}

/* The inputs are there: training alone, which is what long cases have time for; frees the case. */
static void judge_gradients(struct kernel_case *c, bool processors_only)
{
    kernel_case_gradient_reference(c);
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        struct kernel_training training;
        if ((processors_only && attention->backend != FB_CPU) ||
            !kernel_case_is_served(c, attention, FB_BOTH) ||
            !kernel_case_is_affordable(c, attention) ||
            !kernel_case_train(c, attention, 2, 0xff, &training))
            continue;
        kernel_case_judge_training(c, attention, &training, 1.0);
        kernel_training_free(&training);
    }
    kernel_case_free(c);
}

/* A million causal tokens whose values and gradients do not average out: what every later token
 * takes from a sum is a few last places of f32. */
static void test_gradients_of_a_million_causal_tokens_agree_with_oracle(void **state)
{
    (void)state;
    enum { LEN = 1 << 20, DIM = 8 };
    struct kernel_case c = {.layout = LAYOUT_BHND, .scale = 1.0f, .seed = 1 << 20};
    kernel_case_set_problem(&c, fb_mechanism_find("flow"), 1, 1, short_run ? 4096 : LEN,
                            short_run ? 4096 : LEN, DIM, DIM);
    c.problem.causal = true;
    kernel_case_init(&c);
    for (int64_t d = 0; d < DIM; d++) {
        kernel_case_raise(&c.v, 0, c.problem.kv_len, d, 1.0f);
        kernel_case_raise(&c.dout, 0, c.problem.q_len, d, 1.0f);
    }
    judge_gradients(&c, false);
    kernel_expect_no_failures();
}

/* A million queries for a few keys, whose gradients add up blocks of equal terms: one chain of them
 * in f32 was off by 1.6e-4. */
static void test_gradients_of_few_keys_for_a_million_queries_agree_with_oracle(void **state)
{
    (void)state;
    enum { KEYS = 5, DIM = 8 };
    const int64_t queries = short_run ? 4096 : 1 << 20;
    struct kernel_case c = {.layout = LAYOUT_BHND, .scale = 0.001f, .seed = 34};
    kernel_case_set_problem(&c, fb_mechanism_find("softmax"), 1, 1, queries, KEYS, DIM, DIM);
    kernel_case_init(&c);
    for (int64_t d = 0; d < DIM; d++) {
        kernel_case_raise(&c.dout, 0, queries, d, 40000.0f);
        kernel_case_raise(&c.q, 0, queries, d, 1.0f);
    }
    judge_gradients(&c, true);
    kernel_expect_no_failures();
}

/* q and k three times as large: see test_kernels_oracle.c. */
static void test_gradients_inputs_times_3_agree_with_oracle(void **state)
{
    (void)state;
    for (size_t m = 0; m < fb_mechanism_count(); m++)
        for (int causal = 0; causal < 2; causal++) {
            struct kernel_case c = {.layout = LAYOUT_BHND, .scale = 3.0f, .seed = 3};
            kernel_case_set_problem(&c, fb_mechanism_at(m), 1, 2, 150, 150, 64, 64);
            kernel_case_shrink_parameters(&c, 2);
            c.problem.causal = causal != 0;
            judge_all_variants(&c, 4.0);
        }
    expect_trained(2);
    kernel_expect_no_failures();
}

static void expect_finite(const struct kernel_case *c, const struct fb_attention *attention)
{
    static const char *const names[] = {"dq", "dk", "dv"};
    struct kernel_training t;
    if (!kernel_case_train(c, attention, 2, 0xff, &t))
        return;
    const struct fb_tensor *tensors[] = {&t.dq.view, &t.dk.view, &t.dv.view};
    for (int j = 0; j < 3; j++) {
        if (!isfinite(fb_judge_max_abs(tensors[j])))
            kernel_report(c, attention, "%s is not finite", names[j]);
        kernel_check_padding(c, attention, tensors[j], j == 0, names[j]);
    }
    kernel_training_free(&t);
}

/* Saturated feature maps and one-hot weights must not divide by zero or overflow. Padding next to
 * one key whose score lies far below zero is larger than any weight, and still zero. */
static void test_gradients_inputs_times_12_to_1000_stay_finite(void **state)
{
    (void)state;
    static const float scales[] = {12.0f, 30.0f, 1000.0f};
    static const enum fb_dtype dtypes[] = {FB_F32, FB_BF16};
    static const int64_t lengths[2] = {1, 100};
    for (size_t i = 0; i < fb_attention_count(); i++)
        for (int variation = 0; variation < 48; variation++) {
            const struct fb_attention *attention = fb_attention_at(i);
            const bool padded = variation / 4 % 2 != 0;
            struct kernel_case c = {
                .layout = LAYOUT_BHND, .scale = scales[variation / 16], .seed = 30};
            kernel_case_set_problem(&c, attention->mechanism, 2, 1, 150, 150, 64,
                                    variation / 2 % 2 != 0 ? 64 : 48);
            c.problem.causal = variation % 2 != 0;
            c.problem.dtype = dtypes[variation / 8 % 2];
            c.problem.kv_lengths = padded ? lengths : NULL;
            c.problem.q_lengths = c.problem.causal ? c.problem.kv_lengths : NULL;
            if (!kernel_case_is_served(&c, attention, FB_BOTH) ||
                strcmp(attention->variant, "cudnn") == 0)
                continue;
            kernel_case_init(&c);
            expect_finite(&c, attention);
            kernel_case_free(&c);
        }
    kernel_expect_no_failures();
}

int main(int argc, char **argv)
{
    short_run = argc > 1 && strcmp(argv[1], "short") == 0;
    cmocka_set_test_filter(getenv("KERNEL_CASE_TESTS")); /* a pattern; none: all */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_odd_shapes_agree_with_oracle),
        cmocka_unit_test(test_gradients_of_a_causal_first_query_are_small),
        cmocka_unit_test(test_gradients_every_layout_agrees_with_oracle),
        cmocka_unit_test(test_gradients_few_queries_agree_with_oracle),
        cmocka_unit_test(test_gradients_lengths_and_grouped_queries_agree_with_oracle),
        cmocka_unit_test(test_gradients_options_agree_with_oracle),
        cmocka_unit_test(test_gradients_long_sequences_agree_with_oracle),
        cmocka_unit_test(test_gradients_of_a_million_causal_tokens_agree_with_oracle),
        cmocka_unit_test(test_gradients_of_few_keys_for_a_million_queries_agree_with_oracle),
        cmocka_unit_test(test_gradients_inputs_times_3_agree_with_oracle),
        cmocka_unit_test(test_gradients_inputs_times_12_to_1000_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
