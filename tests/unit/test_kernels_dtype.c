/*
 * bf16 and f16: every variant that takes them, on every instruction set of this machine, against
 * the float64 oracles on the same rounded inputs. Arithmetic is in f32, so that an output carries
 * hardly more than its own rounding: it must stay within about half of the budget.
 */
#include "judge.h"
#include "kernel_case.h"
#include "registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Set by the argument `short`, for builds that sanitizers slow down. */
static bool short_run;

enum { VARIANTS_MAX = 256 };
static const enum fb_dtype dtypes[] = {FB_BF16, FB_F16};
static const double usual_share = 0.6;

/* Inference and training (unless its factor of the budgets is zero) on one thread and on three:
 * right, and the same bits where the variant promises them (cuDNN's gradients of 1024 keys differ
 * from call to call). */
static void judge_variant(const struct kernel_case *c, const struct fb_attention *attention,
                          double share, double training)
{
    struct kernel_output one, three;
    struct kernel_training alone, shared;
    if (kernel_case_run(c, attention, 1, 0xff, &one)) {
        kernel_case_judge(c, attention, &one,
                          share * fb_judge_budget(c->problem.dtype, FB_FORWARD));
        if (attention->deterministic && kernel_case_run(c, attention, 3, 0x3f, &three)) {
            kernel_case_compare(c, attention, &one, &three, "more threads");
            kernel_output_free(&three);
        }
        kernel_output_free(&one);
    }
    if (training == 0.0 || !kernel_case_is_served(c, attention, FB_BOTH) ||
        !kernel_case_train(c, attention, 1, 0xff, &alone))
        return;
    kernel_case_judge_training(c, attention, &alone, training);
    if (attention->deterministic && kernel_case_train(c, attention, 3, 0x3f, &shared)) {
        kernel_case_compare_training(c, attention, &alone, &shared, "training on more threads");
        kernel_training_free(&shared);
    }
    kernel_training_free(&alone);
}

/* The inputs are there; frees the case. */
static void judge_drawn(struct kernel_case *c, double share, double training, size_t *executed)
{
    kernel_case_reference(c, 0);
    kernel_case_gradient_reference(c);
    for (size_t i = 0; i < fb_attention_count(); i++)
        if (kernel_case_is_served(c, fb_attention_at(i), FB_FORWARD)) {
            judge_variant(c, fb_attention_at(i), share, training);
            executed[i]++;
        }
    kernel_case_free(c);
}

static void judge_all_variants(struct kernel_case *c, size_t *executed)
{
    struct fb_error error = {0};
    if (fb_problem_check(&c->problem, c->mechanism, &error) != FB_OK)
        return;
    kernel_case_init(c);
    judge_drawn(c, usual_share, 1.0, executed);
}

static void test_dtypes_odd_shapes_agree_with_oracle(void **state)
{
    (void)state;
    static const int64_t shapes[][4] = {
        {1, 1, 33, 24},    {63, 63, 33, 24},    {130, 130, 64, 64}, {257, 257, 40, 80},
        {65, 65, 1, 1},    {70, 70, 200, 3},    {63, 257, 24, 33},  {300, 65, 33, 3},
        {1, 300, 256, 72}, {140, 90, 136, 256},
    };
    size_t executed[VARIANTS_MAX] = {0};
    assert_true(fb_attention_count() <= VARIANTS_MAX);
    for (size_t m = 0; m < fb_mechanism_count(); m++)
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            for (int variation = 0; variation < 4; variation++) {
                struct kernel_case c = {.layout = (enum kernel_layout)((i + m) % LAYOUT_COUNT),
                                        .scale = 1.0f,
                                        .seed = 500 + i};
                kernel_case_set_problem(&c, fb_mechanism_at(m), 1, 2, shapes[i][0], shapes[i][1],
                                        shapes[i][2], shapes[i][3]);
                kernel_case_shrink_parameters(&c, i);
                c.problem.dtype = dtypes[variation / 2];
                c.problem.causal = variation % 2 != 0;
                judge_all_variants(&c, executed);
            }
    /* one that takes no dtype at all would pass everything */
    for (size_t m = 0; m < fb_mechanism_count(); m++) {
        size_t most = 0;
        for (size_t i = 0; i < fb_attention_count(); i++)
            if (fb_attention_at(i)->mechanism == fb_mechanism_at(m))
                most = executed[i] > most ? executed[i] : most;
        if (most < 20)
            fail_msg("%s: no variant takes bf16 and f16", fb_mechanism_at(m)->name);
    }
    kernel_expect_no_failures();
}

/* Heads of 64 of Flow-Attention have kernels of their own on a GPU: lengths at both sides of what a
 * block holds, and blocks without a token of one side. */
static void test_dtypes_flow_heads_of_64_agree_with_oracle(void **state)
{
    (void)state;
    static const int64_t lengths[][2] = {
        {1, 1},     {16, 17},   {128, 128}, {129, 1},    {1, 300},
        {255, 511}, {700, 390}, {513, 513}, {200, 1030}, {2049, 1100},
    };
    size_t executed[VARIANTS_MAX] = {0};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        for (int variation = 0; variation < 4; variation++) {
            const bool causal = variation % 2 != 0;
            struct kernel_case c = {
                .layout = (enum kernel_layout)(i % LAYOUT_COUNT), .scale = 1.0f, .seed = 700 + i};
            kernel_case_set_problem(&c, fb_mechanism_find("flow"), 1, 3, lengths[i][0],
                                    lengths[i][causal ? 0 : 1], 64, 64);
            c.problem.dtype = dtypes[variation / 2];
            c.problem.causal = causal;
            judge_all_variants(&c, executed);
        }
    kernel_expect_no_failures();
}

/* Rows that start anywhere go other ways on a GPU than those on 16 bytes: causally the forward call
 * has what the gradient needs computed by a kernel of its own. Of one head, of a few, and of many,
 * in two segments and three. */
static void test_dtypes_flow_rows_that_start_anywhere(void **state)
{
    (void)state;
    static const struct {
        int64_t heads, length;
    } cases[] = {{1, 1100}, {3, 2049}, {31, 530}};
    size_t executed[VARIANTS_MAX] = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++) {
            struct kernel_case c = {.layout = LAYOUT_PADDED, .scale = 1.0f, .seed = 740 + i};
            kernel_case_set_problem(&c, fb_mechanism_find("flow"), 1, cases[i].heads,
                                    cases[i].length, cases[i].length, 64, 64);
            c.problem.dtype = dtypes[d];
            c.problem.causal = true;
            judge_all_variants(&c, executed);
        }
    kernel_expect_no_failures();
}

/* f16 ends at 65504: causal sums, states and their gradients grow or fall with the position. One
 * segment of a cluster and many, small inputs and large ones, whose rows of phi hardly overlap. */
static void test_dtypes_flow_f16_keeps_its_range(void **state)
{
    (void)state;
    static const struct {
        int64_t length;
        float scale;
    } cases[] = {{1, 8.0f}, {600, 0.02f}, {600, 4.0f}, {20000, 1.0f}};
    size_t executed[VARIANTS_MAX] = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kernel_case c = {.layout = LAYOUT_BHND, .scale = cases[i].scale, .seed = 760 + i};
        kernel_case_set_problem(&c, fb_mechanism_find("flow"), 1, 1, cases[i].length,
                                cases[i].length, 64, 64);
        c.problem.dtype = FB_F16;
        c.problem.causal = true;
        judge_all_variants(&c, executed);
    }
    kernel_expect_no_failures();
}

/* Tokens whose features vanish: 64 numbers near -12 or -20. Beside others their flows are what
 * epsilon leaves; a sequence that begins with them has little else, and the first of the others
 * weighs eight times as much as what it stands beside. (f16 has not the digits.) */
static void test_dtypes_flow_tokens_whose_features_vanish(void **state)
{
    (void)state;
    enum { DIM = 64, LONG = 1500, SHORT = 200, BEGINNING = 40 };
    size_t executed[VARIANTS_MAX] = {0};
    for (int variation = 0; variation < 8; variation++) {
        const bool beginning = variation / 2 % 2 != 0;
        const int64_t length = variation / 4 != 0 ? LONG : SHORT;
        const float depth = variation % 2 != 0 ? -20.0f : -12.0f;
        struct kernel_case c = {.layout = LAYOUT_BHND, .scale = 0.5f, .seed = 790};
        kernel_case_set_problem(&c, fb_mechanism_find("flow"), 1, 2, length, length, DIM, DIM);
        c.problem.dtype = FB_BF16;
        c.problem.causal = true;
        kernel_case_init(&c);
        for (int64_t d = 0; d < DIM; d++)
            for (int64_t token = 0; token < (beginning ? BEGINNING : length); token++) {
                if (beginning || token % 5 == 1)
                    kernel_case_raise(&c.q, token, token + 1, d, depth);
                if (beginning || token % 7 == 2)
                    kernel_case_raise(&c.k, token, token + 1, d, depth);
            }
        judge_drawn(&c, 1.0, 1.0, executed);
    }
    kernel_expect_no_failures();
}

/* Without allocation a query's gradient is what two terms leave of one another, the less the more
 * the values have in common. */
static void test_dtypes_flow_without_allocation(void **state)
{
    (void)state;
    enum { LENGTH = 1000, DIM = 64 };
    size_t executed[VARIANTS_MAX] = {0};
    for (int variation = 0; variation < 4; variation++) {
        struct kernel_case c = {.layout = LAYOUT_BNHD, .scale = 1.0f, .seed = 795};
        kernel_case_set_problem(&c, fb_mechanism_find("flow"), 1, 2, LENGTH, LENGTH, DIM, DIM);
        assert_true(kernel_case_set_parameter(&c, "allocation", 0, NULL));
        c.problem.kv_heads = variation / 2 != 0 ? 1 : 2;
        c.problem.dtype = dtypes[variation % 2];
        c.problem.causal = true;
        kernel_case_init(&c);
        for (int64_t d = 0; d < DIM; d++)
            kernel_case_raise(&c.v, 0, LENGTH, d, 1.0f);
        judge_drawn(&c, usual_share, 1.0, executed);
    }
    kernel_expect_no_failures();
}

/* Values and their gradients far from zero, on one side: a layer that has drifted, a loss that is
 * scaled. Many queries for few keys, whose gradients are sums over all of those. (Gradients of
 * queries are differences then: half as much again is allowed, and where large values have much in
 * common, they are what the rounding of outputs leaves: not asked.) */
static void test_dtypes_f16_keeps_its_range_with_large_values(void **state)
{
    (void)state;
    static const struct {
        const char *mechanism;
        int64_t q_len, kv_len;
        bool causal;
        double training;
        float v, dout; /* added to every number of theirs */
    } cases[] = {
        {"flow", 16384, 16, false, 1.0, 0.0f, 0.0f},
        {"flow", 4500, 4500, false, 1.5, 1.0f, 96.0f},
        {"performer", 1, 1, false, 0.0, 1100.0f, 0.0f},
        {"performer", 400, 400, true, 0.0, 500.0f, 0.0f},
        {"performer", 600, 600, true, 1.0, 0.0f, 64.0f},
    };
    size_t executed[VARIANTS_MAX] = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kernel_case c = {.layout = LAYOUT_BHND, .scale = 1.0f, .seed = 780 + i};
        kernel_case_set_problem(&c, fb_mechanism_find(cases[i].mechanism), 1, 1, cases[i].q_len,
                                cases[i].kv_len, 64, 64);
        (void)kernel_case_set_parameter(&c, "features", 256, NULL);
        c.problem.dtype = FB_F16;
        c.problem.causal = cases[i].causal;
        kernel_case_init(&c);
        for (int64_t d = 0; d < 64; d++) {
            kernel_case_raise(&c.v, 0, cases[i].kv_len, d, cases[i].v);
            kernel_case_raise(&c.dout, 0, cases[i].q_len, d, cases[i].dout);
        }
        judge_drawn(&c, usual_share, cases[i].training, executed);
    }
    kernel_expect_no_failures();
}

/* The same of linear attention's and Performer's sums, whose features are many sizes. */
static void test_dtypes_linear_f16_keeps_its_range(void **state)
{
    (void)state;
    static const struct {
        int64_t length;
        float scale;
    } cases[] = {{1, 4.0f}, {600, 3.0f}, {5000, 1.0f}};
    static const char *const mechanisms[] = {"linear", "performer"};
    size_t executed[VARIANTS_MAX] = {0};
    for (size_t m = 0; m < 4; m++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            if (m / 2 == 1 &&
                cases[i].length > 1000) /* dq is less than what out's rounding leaves */
                continue;
            struct kernel_case c = {
                .layout = LAYOUT_BHND, .scale = cases[i].scale, .seed = 770 + i};
            kernel_case_set_problem(&c, fb_mechanism_find(mechanisms[m / 2]), 1, 1, cases[i].length,
                                    cases[i].length, 64, 64);
            c.problem.dtype = FB_F16;
            c.problem.causal = m % 2 != 0;
            judge_all_variants(&c, executed);
        }
    kernel_expect_no_failures();
}

/* Causal heads of 64 of linear attention have kernels of their own on a GPU: one slice, clusters of
 * slices of one and of several panels, more slices than a cluster has; with padding, and with
 * groups of queries, whose gradients of keys are the general ones. Features of Performer that lie
 * in memory are served alike. */
static void test_dtypes_linear_causal_heads_of_64_agree_with_oracle(void **state)
{
    (void)state;
    static const int64_t lengths[2] = {150, 330}, others[2] = {330, 65}, no_keys[2] = {0, 330};
    static const struct {
        int64_t batch, heads, kv_heads, q_len, kv_len;
        const int64_t *q_lengths, *kv_lengths;
    } cases[] = {
        {1, 3, 3, 1, 1, NULL, NULL},           {1, 3, 3, 16, 17, NULL, NULL},
        {1, 3, 3, 64, 65, NULL, NULL},         {1, 3, 3, 130, 1, NULL, NULL},
        {1, 2, 2, 512, 512, NULL, NULL},       {1, 2, 2, 200, 700, NULL, NULL},
        {1, 2, 2, 700, 300, NULL, NULL},       {1, 3, 3, 1100, 1100, NULL, NULL},
        {1, 4, 2, 400, 400, NULL, NULL},       {1, 4, 1, 700, 700, NULL, NULL},
        {2, 2, 2, 330, 330, lengths, lengths}, {2, 2, 1, 330, 330, others, lengths},
        {2, 2, 2, 330, 330, lengths, no_keys}, {2, 9, 9, 600, 600, NULL, NULL},
        {1, 67, 67, 820, 820, NULL, NULL},
    };
    size_t executed[VARIANTS_MAX] = {0};
    static const char *const mechanisms[] = {"linear", "performer"};
    for (size_t m = 0; m < 4; m++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct kernel_case c = {
                .layout = (enum kernel_layout)(i % LAYOUT_COUNT), .scale = 1.0f, .seed = 800 + i};
            kernel_case_set_problem(&c, fb_mechanism_find(mechanisms[m / 2]), cases[i].batch,
                                    cases[i].heads, cases[i].q_len, cases[i].kv_len, 64, 64);
            if (m % 2 == 1 && i % 2 != 0) /* f16 goes the same ways */
                continue;
            if (m / 2 == 1 && (i % 4 != 0 || !kernel_case_set_parameter(&c, "features", 64, NULL)))
                continue;
            c.problem.kv_heads = cases[i].kv_heads;
            c.problem.dtype = dtypes[m % 2];
            c.problem.causal = true;
            c.problem.q_lengths = cases[i].q_lengths;
            c.problem.kv_lengths = cases[i].kv_lengths;
            judge_all_variants(&c, executed);
        }
    kernel_expect_no_failures();
}

/* Rows of 1024 keys and more of heads of 64 have kernels of their own on a GPU: shares of a head
 * that are rounds of three, two and one blocks of queries, tiles that are full and begun, blocks of
 * keys that a mask hides; grouped queries and padding. f32, too, whose blocks are others. (Padded
 * rows, which take the general kernels, are in the tests above.) */
static void test_dtypes_softmax_long_heads_of_64_agree_with_oracle(void **state)
{
    (void)state;
    static const int64_t lengths[2] = {310, 70}, others[2] = {700, 1031};
    static const struct {
        int64_t batch, heads, kv_heads, q_len, kv_len;
        const int64_t *q_lengths, *kv_lengths;
    } cases[] = {
        {1, 1, 1, 1024, 1024, NULL, NULL},
        {1, 1, 1, 65, 1300, NULL, NULL},
        {1, 2, 1, 200, 1100, NULL, NULL},
        {2, 1, 1, 310, 1031, lengths, others},
    };
    size_t executed[VARIANTS_MAX] = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int variation = 0; variation < 4; variation++) {
            struct kernel_case c = {
                .layout = i % 2 != 0 ? LAYOUT_BNHD : LAYOUT_BHND, .scale = 1.0f, .seed = 850 + i};
            kernel_case_set_problem(&c, fb_mechanism_find("softmax"), cases[i].batch,
                                    cases[i].heads, cases[i].q_len, cases[i].kv_len, 64, 64);
            c.problem.kv_heads = cases[i].kv_heads;
            c.problem.dtype = variation < 2 ? dtypes[(i + (size_t)variation) % 2] : FB_F32;
            c.problem.causal = variation % 2 != 0;
            c.problem.q_lengths = cases[i].q_lengths;
            c.problem.kv_lengths = cases[i].kv_lengths;
            judge_all_variants(&c, executed);
        }
    kernel_expect_no_failures();
}

/* An attention sink: a key whose score is far above all others, and whose value is nothing. What
 * the others weigh lies below the least that f16 has, and is all that the output consists of. */
static void test_dtypes_softmax_keeps_what_stands_beside_a_sink(void **state)
{
    (void)state;
    enum { QUERIES = 64, KEYS = 4096, SINK = 1500, DIM = 64 };
    static const char *const mechanisms[] = {"softmax", "local"};
    for (int variation = 0; variation < 4; variation++) {
        struct kernel_case c = {.layout = LAYOUT_BHND, .scale = 0.7f, .seed = 870};
        kernel_case_set_problem(&c, fb_mechanism_find(mechanisms[variation / 2]), 1, 1,
                                variation / 2 != 0 ? KEYS : QUERIES, KEYS, DIM, DIM);
        c.problem.dtype = dtypes[variation % 2];
        kernel_case_init(&c);
        kernel_case_raise(&c.q, 0, c.problem.q_len, 0, 8.0f);
        kernel_case_raise(&c.k, SINK, SINK + 1, 0, 17.0f); /* 17 = 8 * 17 / sqrt(64) */
        for (int64_t d = 0; d < DIM; d++) {
            kernel_case_raise(&c.v, 0, KEYS, d, 1.0f);
            kernel_case_raise(&c.v, SINK, SINK + 1, d,
                              -(float)fb_tensor_value(&c.v.view, 0, 0, SINK, d));
        }
        kernel_case_reference(&c, 0);
        for (size_t i = 0; i < fb_attention_count(); i++) {
            const struct fb_attention *attention = fb_attention_at(i);
            struct kernel_output output;
            if (!kernel_case_is_served(&c, attention, FB_FORWARD) ||
                strcmp(attention->variant, "cudnn") == 0 || /* weighs by f16, as it likes */
                !kernel_case_run(&c, attention, 1, 0xff, &output))
                continue;
            kernel_case_judge(&c, attention, &output, fb_judge_budget(c.problem.dtype, FB_FORWARD));
            kernel_output_free(&output);
        }
        kernel_case_free(&c);
    }
    kernel_expect_no_failures();
}

/* So many keys that what a GPU's tensor cores cut of a sum leaves f16's budget (3e-3 here), unless
 * sums are put away; queries enough for its warpgroups, and fewer. */
static void test_dtypes_softmax_half_a_million_keys_agree_with_oracle(void **state)
{
    (void)state;
    enum { DIM = 64 };
    const int64_t keys = INT64_C(1) << (short_run ? 13 : 19);
    static const int64_t queries[] = {64, 5};
    for (size_t n = 0; n < sizeof queries / sizeof queries[0]; n++) {
        struct kernel_case c = {.layout = LAYOUT_BHND, .scale = 1.0f, .seed = 890};
        kernel_case_set_problem(&c, fb_mechanism_find("softmax"), 1, 1, queries[n], keys, DIM, DIM);
        c.problem.dtype = FB_F16;
        kernel_case_init(&c);
        for (int64_t d = 0; d < DIM; d++)
            kernel_case_raise(&c.v, 0, keys, d, 4.0f);
        kernel_case_reference(&c, 3);
        for (size_t i = 0; i < fb_attention_count(); i++) {
            const struct fb_attention *attention = fb_attention_at(i);
            struct kernel_output output;
            if (!kernel_case_is_served(&c, attention, FB_FORWARD) ||
                !kernel_case_is_affordable(&c, attention) ||
                strcmp(attention->variant, "cudnn") == 0 || /* sums as it likes */
                !kernel_case_run(&c, attention, 2, 0xff, &output))
                continue;
            kernel_case_judge(&c, attention, &output, fb_judge_budget(FB_F16, FB_FORWARD));
            kernel_output_free(&output);
        }
        kernel_case_free(&c);
    }
    kernel_expect_no_failures();
}

/* Every number of the first head becomes this one. */
static void set_all(struct kernel_tensor *x, float to)
{
    const struct fb_tensor *t = &x->view;
    for (int64_t n = 0; n < t->shape[2]; n++)
        for (int64_t d = 0; d < t->shape[3]; d++) {
            kernel_case_raise(x, n, n + 1, d, -(float)fb_tensor_value(t, 0, 0, n, d));
            kernel_case_raise(x, n, n + 1, d, to);
        }
}

static void judge_softmax_gradients(struct kernel_case *c)
{
    kernel_case_gradient_reference(c);
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        struct kernel_training training;
        if (!kernel_case_is_served(c, attention, FB_BOTH) ||
            strcmp(attention->variant, "cudnn") == 0 || /* has its own range */
            !kernel_case_train(c, attention, 1, 0xff, &training))
            continue;
        kernel_case_judge_training(c, attention, &training, 1.0);
        kernel_training_free(&training);
    }
    kernel_case_free(c);
}

/* Gradients of scores that are below what f16 has, one after the other, but whose sums are not:
 * every key weighs the same, values are 1 and -1 in turns and so is what keys have in common with
 * them, and dout is so small that a gradient is 31.5 times f16's least number. And some that are
 * large: causal rows begin with weights of a half. */
static void test_dtypes_softmax_gradients_of_small_and_large_dout_agree_with_oracle(void **state)
{
    (void)state;
    enum { DIM = 64, TURN = 1 };
    static const struct {
        const char *mechanism;
        int64_t tokens;
        int keys; /* that a query sees */
        float large;
    } cases[] = {
        {"softmax", 1024, 1024, 0.0f}, {"softmax", 512, 512, 0.0f}, {"local", 640, 513, 0.0f},
        {"softmax", 1024, 0, 32.0f},   {"softmax", 300, 0, 32.0f},
    };
    for (size_t n = 0; n < 2 * sizeof cases / sizeof cases[0]; n++) {
        const size_t i = n / 2;
        const bool small = cases[i].keys > 0;
        const int64_t tokens = cases[i].tokens;
        const float dout = 31.5f / 16777216.0f * (float)cases[i].keys / DIM;
        struct kernel_case c = {
            .layout = LAYOUT_BHND, .scale = small ? 0.001f : 1.0f, .seed = 880 + i};
        kernel_case_set_problem(&c, fb_mechanism_find(cases[i].mechanism), 1, 1, tokens, tokens,
                                DIM, DIM);
        (void)kernel_case_set_parameter(&c, "window", 256, NULL);
        c.problem.dtype = dtypes[n % 2];
        c.problem.causal = !small;
        kernel_case_init(&c);
        if (small) {
            set_all(&c.dout, dout);
            c.dout.max = (double)dout;
            set_all(&c.v, 0.0f);
            c.v.max = 1.0;
            for (int64_t d = 0; d < DIM; d++)
                if (d != TURN)
                    kernel_case_raise(&c.q, 0, tokens, d, 4.0f);
            for (int64_t t = 0; t < tokens; t++) {
                const float sign = t % 2 == 0 ? 1.0f : -1.0f;
                kernel_case_raise(&c.k, t, t + 1, TURN, 2.0f * sign);
                for (int64_t d = 0; d < DIM; d++)
                    kernel_case_raise(&c.v, t, t + 1, d, sign);
            }
        } else {
            for (int64_t t = 0; t < tokens; t++)
                for (int64_t d = 0; d < DIM; d++)
                    kernel_case_raise(&c.dout, t, t + 1, d,
                                      (cases[i].large - 1.0f) *
                                          (float)fb_tensor_value(&c.dout.view, 0, 0, t, d));
        }
        judge_softmax_gradients(&c);
    }
    kernel_expect_no_failures();
}

/* More tokens than a GPU's clusters hold for the gradient, in rows that start anywhere. */
static void test_dtypes_flow_long_heads_of_64_agree_with_oracle(void **state)
{
    (void)state;
    size_t executed[VARIANTS_MAX] = {0};
    for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++)
        for (int layout = LAYOUT_BNHD; layout < LAYOUT_COUNT; layout++) {
            struct kernel_case c = {
                .layout = (enum kernel_layout)layout, .scale = 1.0f, .seed = 730};
            kernel_case_set_problem(&c, fb_mechanism_find("flow"), 1, 1, 4097, 4110, 64, 64);
            c.problem.dtype = dtypes[d];
            judge_all_variants(&c, executed);
        }
    kernel_expect_no_failures();
}

/* So many heads that a GPU does with them what it does with many; on a processor one is enough. */
static int64_t heads_of(int64_t many)
{
    const char *device = getenv("KERNEL_CASE_DEVICE");
    return device != NULL && strcmp(device, "cuda") == 0 ? many : 1;
}

/* So many heads that a GPU gives two blocks to each: tokens that all stay at hand, and so many that
 * some are read anew in every pass, of more heads than are at work at a time. */
static void test_dtypes_flow_many_heads_of_64_agree_with_oracle(void **state)
{
    (void)state;
    const int64_t shapes[][3] = {{31, 530, 517}, {heads_of(67), 2600, 2100}};
    size_t executed[VARIANTS_MAX] = {0};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++) {
            struct kernel_case c = {.layout = LAYOUT_BNHD, .scale = 1.0f, .seed = 720 + i};
            kernel_case_set_problem(&c, fb_mechanism_find("flow"), 1, shapes[i][0], shapes[i][1],
                                    shapes[i][2], 64, 64);
            c.problem.dtype = dtypes[d];
            judge_all_variants(&c, executed);
        }
    kernel_expect_no_failures();
}

/* Likewise linear attention: heads in one round, the last tiles without a token of one side;
 * rounds. */
static void test_dtypes_linear_many_heads_of_64_agree_with_oracle(void **state)
{
    (void)state;
    const int64_t shapes[][3] = {
        {heads_of(34), 530, 300}, {heads_of(60), 700, 1300}, {heads_of(132), 800, 800}};
    size_t executed[VARIANTS_MAX] = {0};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++) {
            struct kernel_case c = {
                .layout = i == 1 ? LAYOUT_BNHD : LAYOUT_BHND, .scale = 1.0f, .seed = 740 + i};
            kernel_case_set_problem(&c, fb_mechanism_find("linear"), 1, shapes[i][0], shapes[i][1],
                                    shapes[i][2], 64, 64);
            c.problem.dtype = dtypes[d];
            judge_all_variants(&c, executed);
        }
    kernel_expect_no_failures();
}

/* Small features in bf16, which a GPU forms in one way beside large ones of their token and in
 * another where there may be none: half of every token's numbers near -8, every third token near
 * -4, all near -3. */
static void test_dtypes_flow_small_features_agree_with_oracle(void **state)
{
    (void)state;
    enum { DIM = 64, LENGTH = 530 };
    static const struct {
        int64_t components, every;
        float by;
    } cases[] = {{DIM / 2, 1, -8.0f}, {DIM, 3, -4.0f}, {DIM, 1, -3.0f}};
    size_t executed[VARIANTS_MAX] = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int causal = 0; causal < 2; causal++) {
            struct kernel_case c = {.layout = LAYOUT_BHND, .scale = 1.0f, .seed = 725 + i};
            kernel_case_set_problem(&c, fb_mechanism_find("flow"), 1, heads_of(31), LENGTH, LENGTH,
                                    DIM, DIM);
            c.problem.dtype = FB_BF16;
            c.problem.causal = causal != 0;
            kernel_case_init(&c);
            for (int64_t d = 0; d < cases[i].components; d++)
                for (int64_t token = 0; token < LENGTH; token += cases[i].every) {
                    kernel_case_raise(&c.q, token, token + 1, d, cases[i].by);
                    kernel_case_raise(&c.k, token, token + 1, d, cases[i].by);
                }
            judge_drawn(&c, 1.0, 1.0, executed);
        }
    kernel_expect_no_failures();
}

/* Sequences of several slices and blocks, shared by threads, with padding and grouped queries. */
static void test_dtypes_lengths_and_grouped_queries_agree_with_oracle(void **state)
{
    (void)state;
    enum { LEN = 420 };
    static const int64_t lengths[3] = {LEN, 0, 300}, others[3] = {LEN, 7, 129};
    size_t executed[VARIANTS_MAX] = {0};
    for (size_t m = 0; m < fb_mechanism_count(); m++)
        for (int variation = 0; variation < 4; variation++) {
            struct kernel_case c = {.layout = LAYOUT_PADDED, .scale = 1.0f, .seed = 600};
            kernel_case_set_problem(&c, fb_mechanism_at(m), 3, 4, LEN, LEN, 24, 20);
            kernel_case_shrink_parameters(&c, 0);
            c.problem.kv_heads = 2;
            c.problem.dtype = dtypes[variation / 2];
            c.problem.causal = variation % 2 != 0;
            c.problem.q_lengths = lengths;
            c.problem.kv_lengths = c.problem.causal ? lengths : others;
            judge_all_variants(&c, executed);
        }
    kernel_expect_no_failures();
}

/* Performer's own kernels for heads of 64: whole panels of features, of which a case has one to
 * four; tiles that are full, begun, and missing; grouped queries, padding, exponents of size. With
 * a mask four panels, and chunks of 192 tokens. */
static void test_dtypes_performer_heads_of_64_agree_with_oracle(void **state)
{
    (void)state;
    static const int64_t lengths[2] = {217, 70}, others[2] = {0, 140};
    static const struct {
        int64_t batch, kv_heads, q_len, kv_len;
        double features;
        const int64_t *q_lengths, *kv_lengths;
        float scale;
        bool causal;
    } cases[] = {
        {1, 2, 1, 1, 64, NULL, NULL, 1.0f, false},
        {1, 2, 64, 64, 256, NULL, NULL, 1.0f, false},
        {1, 1, 130, 517, 128, NULL, NULL, 1.0f, false},
        {1, 2, 300, 65, 192, NULL, NULL, 1.0f, false},
        {2, 1, 217, 140, 64, lengths, NULL, 1.0f, false},
        {2, 2, 217, 140, 256, NULL, others, 1.0f, false},
        {2, 1, 217, 140, 64, lengths, others, 1.0f, false},
        {1, 2, 150, 150, 256, NULL, NULL, 2.0f, false},
        {1, 2, 1, 1, 256, NULL, NULL, 1.0f, true},
        {1, 2, 192, 192, 256, NULL, NULL, 1.0f, true},
        {1, 1, 130, 517, 256, NULL, NULL, 1.0f, true},
        {1, 2, 517, 130, 256, NULL, NULL, 1.0f, true},
        {2, 1, 217, 140, 256, lengths, others, 1.0f, true},
        {1, 1, 800, 800, 256, NULL, NULL, 2.0f, true},
    };
    size_t executed[VARIANTS_MAX] = {0};
    for (size_t n = 0; n < 2 * sizeof cases / sizeof cases[0]; n++) {
        const size_t i = n / 2;
        struct kernel_case c = {.layout = (enum kernel_layout)(i % LAYOUT_COUNT),
                                .scale = cases[i].scale,
                                .seed = 700 + i};
        kernel_case_set_problem(&c, fb_mechanism_find("performer"), cases[i].batch, 2,
                                cases[i].q_len, cases[i].kv_len, 64, 64);
        assert_true(kernel_case_set_parameter(&c, "features", cases[i].features, NULL));
        c.problem.kv_heads = cases[i].kv_heads;
        c.problem.dtype = dtypes[n % 2];
        c.problem.q_lengths = cases[i].q_lengths;
        c.problem.kv_lengths = cases[i].kv_lengths;
        c.problem.causal = cases[i].causal;
        judge_all_variants(&c, executed);
    }
    kernel_expect_no_failures();
}

/* Performer's features that lie in memory: wide heads, whose exponentials are a hundredth of the
 * epsilon beside them, and whose gradients of queries are a thousandth of what epsilon adds to
 * their terms. Sums of one panel and of several, with a mask and without, a few queries, grouped
 * queries, padding. */
static void test_dtypes_performer_stored_features_agree_with_oracle(void **state)
{
    (void)state;
    static const int64_t lengths[2] = {217, 70}, others[2] = {140, 200};
    static const struct {
        int64_t batch, kv_heads, q_len, kv_len, qk_dim, v_dim;
        double features;
        const int64_t *q_lengths, *kv_lengths;
        bool causal;
    } cases[] = {
        {1, 2, 300, 300, 64, 64, 100, NULL, NULL, true},
        {1, 2, 300, 300, 128, 128, 256, NULL, NULL, false},
        {1, 2, 300, 300, 128, 128, 256, NULL, NULL, true},
        {1, 1, 400, 300, 256, 256, 256, NULL, NULL, false},
        {1, 2, 300, 400, 256, 256, 256, NULL, NULL, true},
        {1, 2, 700, 700, 256, 64, 64, NULL, NULL, true},
        {1, 1, 400, 400, 256, 64, 64, NULL, NULL, true},
        {1, 2, 700, 700, 256, 64, 64, NULL, NULL, false},
        {1, 1, 130, 200, 200, 40, 33, NULL, NULL, true},
        {1, 2, 3, 700, 256, 128, 256, NULL, NULL, false},
        {2, 1, 217, 200, 256, 128, 64, lengths, others, false},
        {2, 1, 217, 200, 256, 128, 64, lengths, others, true},
    };
    size_t executed[VARIANTS_MAX] = {0};
    for (size_t n = 0; n < 2 * sizeof cases / sizeof cases[0]; n++) {
        const size_t i = n / 2;
        struct kernel_case c = {
            .layout = (enum kernel_layout)(i % LAYOUT_COUNT), .scale = 1.0f, .seed = 900 + i};
        kernel_case_set_problem(&c, fb_mechanism_find("performer"), cases[i].batch, 2,
                                cases[i].q_len, cases[i].kv_len, cases[i].qk_dim, cases[i].v_dim);
        assert_true(kernel_case_set_parameter(&c, "features", cases[i].features, NULL));
        c.problem.kv_heads = cases[i].kv_heads;
        c.problem.dtype = dtypes[n % 2];
        c.problem.q_lengths = cases[i].q_lengths;
        c.problem.kv_lengths = cases[i].kv_lengths;
        c.problem.causal = cases[i].causal;
        judge_all_variants(&c, executed);
    }
    kernel_expect_no_failures();
}

int main(int argc, char **argv)
{
    short_run = argc > 1 && strcmp(argv[1], "short") == 0;
    cmocka_set_test_filter(getenv("KERNEL_CASE_TESTS")); /* a pattern; none: all */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtypes_odd_shapes_agree_with_oracle),
        cmocka_unit_test(test_dtypes_flow_heads_of_64_agree_with_oracle),
        cmocka_unit_test(test_dtypes_flow_rows_that_start_anywhere),
        cmocka_unit_test(test_dtypes_flow_f16_keeps_its_range),
        cmocka_unit_test(test_dtypes_flow_tokens_whose_features_vanish),
        cmocka_unit_test(test_dtypes_flow_without_allocation),
        cmocka_unit_test(test_dtypes_softmax_long_heads_of_64_agree_with_oracle),
        cmocka_unit_test(test_dtypes_softmax_keeps_what_stands_beside_a_sink),
        cmocka_unit_test(test_dtypes_softmax_half_a_million_keys_agree_with_oracle),
        cmocka_unit_test(test_dtypes_softmax_gradients_of_small_and_large_dout_agree_with_oracle),
        cmocka_unit_test(test_dtypes_flow_long_heads_of_64_agree_with_oracle),
        cmocka_unit_test(test_dtypes_flow_many_heads_of_64_agree_with_oracle),
        cmocka_unit_test(test_dtypes_linear_many_heads_of_64_agree_with_oracle),
        cmocka_unit_test(test_dtypes_flow_small_features_agree_with_oracle),
        cmocka_unit_test(test_dtypes_f16_keeps_its_range_with_large_values),
        cmocka_unit_test(test_dtypes_linear_f16_keeps_its_range),
        cmocka_unit_test(test_dtypes_linear_causal_heads_of_64_agree_with_oracle),
        cmocka_unit_test(test_dtypes_lengths_and_grouped_queries_agree_with_oracle),
        cmocka_unit_test(test_dtypes_performer_heads_of_64_agree_with_oracle),
        cmocka_unit_test(test_dtypes_performer_stored_features_agree_with_oracle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
