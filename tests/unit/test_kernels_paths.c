/*
 * On a GPU a variant is many kernels, and the problem decides which of them run. Small problems for
 * all of them, inference and training once, against the float64 oracle: little enough for
 * compute-sanitizer, under which scripts/gpu_check.sh runs this. Skipped without a GPU, unless
 * KERNEL_CASE_DEVICE=cpu asks for the variants of the processor. Arguments: the mechanisms, all
 * without one; racecheck takes minutes for each, side by side.
 */
#include "cuda_device.h"
#include "judge.h"
#include "kernel_case.h"
#include "registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const enum fb_dtype dtypes[] = {FB_F32, FB_BF16, FB_F16};

/* The mechanisms that were asked for; none: all. */
static char **wanted;
static int wanted_count;

static const int64_t lengths[2] = {200, 70}, others[2] = {130, 0};

struct path {
    int64_t batch, heads, kv_heads, q_len, kv_len, qk_dim, v_dim;
    enum kernel_layout layout;
    const int64_t *q_lengths, *kv_lengths;
};

/* Heads of 64 in rows that start at multiples of 16 bytes have kernels of their own, on tensor
 * cores by warpgroups; other sizes, and rows that start anywhere, have general ones. */
static const struct path any_mechanism[] = {
    {1, 1, 1, 1, 1, 64, 64, LAYOUT_BHND, NULL, NULL},
    {1, 2, 2, 1, 300, 64, 64, LAYOUT_BHND, NULL, NULL},
    {1, 2, 2, 130, 71, 64, 64, LAYOUT_BNHD, NULL, NULL},
    {1, 2, 2, 320, 320, 64, 64, LAYOUT_BHND, NULL, NULL},
    {1, 1, 1, 1100, 1100, 64, 64, LAYOUT_BNHD, NULL, NULL},
    {2, 4, 2, 200, 200, 64, 64, LAYOUT_BNHD, lengths, lengths},
    {2, 2, 2, 200, 130, 64, 64, LAYOUT_BHND, lengths, others},
    {1, 2, 2, 150, 130, 64, 64, LAYOUT_PADDED, NULL, NULL},
    {1, 2, 2, 97, 65, 32, 32, LAYOUT_BHND, NULL, NULL},
    {1, 1, 1, 140, 140, 128, 128, LAYOUT_BNHD, NULL, NULL},
    {1, 2, 1, 70, 90, 40, 24, LAYOUT_PADDED, NULL, NULL},
    {1, 1, 1, 70, 130, 200, 136, LAYOUT_BHND, NULL, NULL},
};

/* Linear time: one cluster is too small for a head, and one head for the device; a pair of blocks
 * for each of many heads; a team of blocks. */
static const struct path linear_time[] = {
    {1, 31, 31, 530, 517, 64, 64, LAYOUT_BNHD, NULL, NULL},
    {1, 1, 1, 4200, 4150, 64, 64, LAYOUT_BHND, NULL, NULL},
    {1, 1, 1, 8300, 8300, 64, 64, LAYOUT_BHND, NULL, NULL},
};

static void judge_variant(const struct kernel_case *c, const struct fb_attention *attention)
{
    struct kernel_output output;
    struct kernel_training training;
    if (kernel_case_run(c, attention, 1, 0xff, &output)) {
        kernel_case_judge(c, attention, &output, fb_judge_budget(c->problem.dtype, FB_FORWARD));
        kernel_output_free(&output);
    }
    if (kernel_case_is_served(c, attention, FB_BOTH) && kernel_case_is_affordable(c, attention) &&
        kernel_case_train(c, attention, 1, 0xff, &training)) {
        kernel_case_judge_training(c, attention, &training, 1.0);
        kernel_training_free(&training);
    }
}

/* How many variants take the problem. Not the plain ones, which are there to be compared with. */
static size_t judge_path(const struct fb_mechanism *mechanism, const struct path *path,
                         enum fb_dtype dtype, bool causal)
{
    struct kernel_case c = {.layout = path->layout, .scale = 1.0f, .seed = 900};
    struct fb_error error = {0};
    const bool of_64 = path->qk_dim == 64 && path->v_dim == 64;
    const bool square = causal && strcmp(mechanism->name, "flow") == 0;
    size_t executed = 0;
    kernel_case_set_problem(&c, mechanism, path->batch, path->heads, path->q_len,
                            square ? path->q_len : path->kv_len, path->qk_dim, path->v_dim);
    kernel_case_shrink_parameters(&c, 0);
    if (of_64)
        (void)kernel_case_set_parameter(&c, "features", 256, NULL);
    c.problem.kv_heads = path->kv_heads;
    c.problem.dtype = dtype;
    c.problem.causal = causal;
    c.problem.q_lengths = path->q_lengths;
    c.problem.kv_lengths = square ? path->q_lengths : path->kv_lengths;
    if (fb_problem_check(&c.problem, mechanism, &error) != FB_OK)
        return 0;
    kernel_case_init(&c);
    kernel_case_reference(&c, 0);
    kernel_case_gradient_reference(&c);
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        if (strcmp(attention->variant, "plain") != 0 &&
            kernel_case_is_served(&c, attention, FB_FORWARD)) {
            judge_variant(&c, attention);
            executed++;
        }
    }
    kernel_case_free(&c);
    return executed;
}

static void judge_paths(const struct fb_mechanism *mechanism, const struct path *paths,
                        size_t count)
{
    for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++)
        for (int causal = 0; causal < 2; causal++) {
            size_t executed = 0;
            for (size_t i = 0; i < count; i++)
                executed += judge_path(mechanism, &paths[i], dtypes[d], causal != 0);
            if (executed < count)
                fail_msg("%s: %zu of %zu problems in %s are served", mechanism->name, executed,
                         count, fb_dtype_name(dtypes[d]));
        }
}

static bool is_wanted(const char *mechanism)
{
    for (int i = 0; i < wanted_count; i++)
        if (strcmp(wanted[i], mechanism) == 0)
            return true;
    return wanted_count == 0;
}

static void test_every_kernel_agrees_with_oracle(void **state)
{
    (void)state;
    if (strcmp(getenv("KERNEL_CASE_DEVICE"), "cuda") == 0 && !fb_cuda_is_present())
        skip();
    for (size_t m = 0; m < fb_mechanism_count(); m++) {
        const struct fb_mechanism *mechanism = fb_mechanism_at(m);
        if (!is_wanted(mechanism->name))
            continue;
        judge_paths(mechanism, any_mechanism, sizeof any_mechanism / sizeof any_mechanism[0]);
        if (strcmp(mechanism->name, "flow") == 0 || strcmp(mechanism->name, "linear") == 0)
            judge_paths(mechanism, linear_time, sizeof linear_time / sizeof linear_time[0]);
    }
    kernel_expect_no_failures();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_kernel_agrees_with_oracle)};
    wanted = argv + 1;
    wanted_count = argc - 1;
    for (int i = 0; i < wanted_count; i++)
        if (fb_mechanism_find(wanted[i]) == NULL) {
            (void)fprintf(stderr, "%s: no mechanism %s\n", argv[0], wanted[i]);
            return 2;
        }
    (void)setenv("KERNEL_CASE_DEVICE", "cuda", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
