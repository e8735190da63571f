/*
 * Fewer heads than threads, so that threads share them: the same bits as one thread on every head,
 * forward and training, over rounds that are full and not, heads of unequal length, groups, dtypes
 * and what a running maximum needs. Whether the bits are right is judged by test_kernels_oracle.c
 * and test_kernels_gradient.c.
 */
#include "kernel_case.h"
#include "registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct shared_shape {
    int64_t batch, heads, kv_heads, len, qk_dim, v_dim;
    int threads;
    const int64_t *lengths;
    enum fb_dtype dtype;
    double clamp;
    const char *competition;
    bool shared; /* in its causal form */
};

static void compare_shape(const struct kernel_case *c, const struct fb_attention *attention,
                          int threads)
{
    struct kernel_output alone, shared;
    if (kernel_case_run(c, attention, 1, 0xff, &alone)) {
        if (kernel_case_run(c, attention, threads, 0xff, &shared)) {
            kernel_case_compare(c, attention, &alone, &shared, "threads that share heads");
            kernel_output_free(&shared);
        }
        kernel_output_free(&alone);
    }
    struct kernel_training alone_training, shared_training;
    if (!kernel_case_is_served(c, attention, FB_BOTH) ||
        !kernel_case_train(c, attention, 1, 0xff, &alone_training))
        return;
    if (kernel_case_train(c, attention, threads, 0x7f, &shared_training)) {
        kernel_case_compare_training(c, attention, &alone_training, &shared_training,
                                     "training by threads that share heads");
        kernel_training_free(&shared_training);
    }
    kernel_training_free(&alone_training);
}

/* Whether the threads need more scratch memory than to walk over heads of their own. */
static bool is_shared(const struct kernel_case *c, const struct fb_attention *attention,
                      int threads)
{
    const int64_t heads = c->problem.batch * c->problem.heads;
    const size_t walks = (size_t)(heads < threads ? heads : threads);
    struct fb_sizes one, all;
    fb_attention_sizes(attention, &c->problem, 1, &one);
    fb_attention_sizes(attention, &c->problem, threads, &all);
    return all.forward_scratch_bytes > walks * one.forward_scratch_bytes;
}

static size_t compare_variants(const struct shared_shape *shape, bool causal, size_t index)
{
    size_t executed = 0;
    struct kernel_case c = {
        .layout = (enum kernel_layout)(index % LAYOUT_COUNT), .scale = 1.0f, .seed = 31};
    kernel_case_set_problem(&c, fb_mechanism_find("flow"), shape->batch, shape->heads, shape->len,
                            shape->len, shape->qk_dim, shape->v_dim);
    c.problem.kv_heads = shape->kv_heads;
    c.problem.dtype = shape->dtype;
    c.problem.q_lengths = c.problem.kv_lengths = shape->lengths;
    c.problem.causal = causal;
    assert_true(kernel_case_set_parameter(&c, "clamp", shape->clamp, NULL));
    assert_true(kernel_case_set_parameter(&c, "competition", 0, shape->competition));
    kernel_case_init(&c);
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        if (attention->backend != FB_CPU || !kernel_case_is_served(&c, attention, FB_FORWARD) ||
            !kernel_case_is_affordable(&c, attention))
            continue;
        if (causal && strcmp(attention->variant, "fused") == 0 &&
            is_shared(&c, attention, shape->threads) != shape->shared)
            kernel_report(&c, attention, "%s by %d threads",
                          shape->shared ? "not shared" : "shared", shape->threads);
        compare_shape(&c, attention, shape->threads);
        executed++;
    }
    kernel_case_free(&c);
    return executed;
}

static void test_kernels_threads_that_share_heads_give_the_same_bits(void **state)
{
    (void)state;
    static const int64_t uneven[2] = {1300, 70}, three[3] = {0, 1, 1300};
    static const struct shared_shape shapes[] = {
        {1, 1, 1, 6500, 16, 24, 3, NULL, FB_F32, 1, "tokens",
         true}, /* three rounds, the last short */
        {1, 2, 2, 3000, 33, 16, 5, NULL, FB_F32, 1, "tokens",
         true},                                                    /* chunks do not divide evenly */
        {1, 1, 1, 2200, 8, 8, 2, NULL, FB_F32, 1, "tokens", true}, /* three states are saved */
        {1, 3, 3, 700, 16, 16, 2, NULL, FB_F32, 1, "tokens", true}, /* two are walked, one shared */
        {2, 1, 1, 1300, 16, 16, 3, uneven, FB_F32, 1, "tokens", true},
        {3, 2, 2, 1300, 8, 16, 16, three, FB_F32, 1, "tokens", true},
        {1, 1, 1, 1500, 8, 16, 30, NULL, FB_F32, 1, "tokens", true}, /* more threads than chunks */
        {1, 4, 2, 1000, 16, 16, 7, NULL, FB_F32, 1, "tokens", true}, /* grouped queries */
        {1, 2, 1, 1100, 24, 8, 3, NULL, FB_F32, 1, "tokens", true},
        {1, 1, 1, 1000, 40, 72, 2, NULL, FB_BF16, 1, "tokens", true},
        {1, 1, 1, 1000, 72, 40, 3, NULL, FB_F16, 1, "tokens", true},
        {1, 1, 1, 900, 16, 16, 3, NULL, FB_F32, 0, "tokens", true}, /* a running maximum */
        {1, 1, 1, 900, 16, 16, 3, NULL, FB_F32, 1, "off", true},
        {1, 1, 1, 193, 256, 256, 2, NULL, FB_F32, 1, "tokens",
         true}, /* the widest, the shortest shared */
        {1, 1, 1, 192, 16, 16, 2, NULL, FB_F32, 1, "tokens", false},
        {1, 1, 1, 1, 16, 16, 3, NULL, FB_F32, 1, "tokens", false},
        {1, 8, 8, 1000, 8, 8, 16, NULL, FB_F32, 1, "tokens", false} /* regions take longer */,
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int causal = 0; causal < 2; causal++)
            assert_true(compare_variants(&shapes[i], causal != 0, i) > 0);
    kernel_expect_no_failures();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels_threads_that_share_heads_give_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
