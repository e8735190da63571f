/*
 * What attention.h promises of every variant, besides the right numbers: the same bits in every run
 * and for any number of threads, nothing read from scratch that was not written, refusals in words,
 * and a registry in which every mechanism has its oracle and every entry its own name.
 */
#include "kernel_case.h"
#include "oracle.h"
#include "registry.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* ---- same bits ------------------------------------------------------------------------------ */

static void compare_runs(const struct kernel_case *c, const struct fb_attention *attention)
{
    struct kernel_output first, other;
    if (!kernel_case_run(c, attention, 1, 0xff, &first))
        return;
    static const struct {
        int threads, scratch_byte;
        const char *what;
        bool needs_determinism;
    } runs[] = {
        {1, 0xff, "a second run", false},
        {1, 0x00, "scratch of zeros instead of NaN", false},
        {1, 0x7f, "scratch of 3e38 instead of NaN", false},
        {2, 0xff, "2 threads instead of 1", true},
        {5, 0xff, "5 threads instead of 1", true},
        {64, 0xff, "64 threads instead of 1", true},
    };
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        if (runs[i].needs_determinism && !attention->deterministic)
            continue;
        if (!kernel_case_run(c, attention, runs[i].threads, runs[i].scratch_byte, &other))
            continue;
        kernel_case_compare(c, attention, &first, &other, runs[i].what);
        kernel_output_free(&other);
    }
    kernel_output_free(&first);
}

static void compare_on_shape(int64_t batch, int64_t heads, int64_t len, int64_t dim)
{
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        struct fb_error error = {0};
        for (int causal = 0; causal < 2; causal++) {
            struct kernel_case c = {.mechanism = attention->mechanism,
                                    .layout = LAYOUT_PADDED,
                                    .scale = 1.0f,
                                    .seed = 11};
            fb_problem_init(&c.problem, c.mechanism, batch, heads, len, dim);
            c.problem.causal = causal != 0;
            if (!kernel_is_runnable(attention) ||
                fb_attention_supports(attention, &c.problem, FB_FORWARD, &error) != FB_OK)
                continue;
            kernel_case_init(&c);
            compare_runs(&c, attention);
            kernel_case_free(&c);
        }
    }
}

static void test_kernels_runs_and_threads_give_the_same_bits(void **state)
{
    (void)state;
    compare_on_shape(2, 3, 130, 33);
    compare_on_shape(1, 1, 700, 64); /* threads share one head */
    compare_on_shape(1, 1, 1, 8);
    kernel_expect_no_failures();
}

/* ---- inputs that are not numbers ------------------------------------------------------------- */

/* Whether rows from..to-1 of the output hold a number that is none, each of them. */
static bool shows_nan(const struct fb_tensor *out, int64_t from, int64_t to)
{
    for (int64_t row = from; row < to; row++) {
        bool shows = false;
        for (int64_t d = 0; d < out->shape[3]; d++)
            shows = shows || isnan(fb_tensor_value(out, 0, 0, row, d));
        if (!shows)
            return false;
    }
    return true;
}

/* One number of q, k or v is none: the query's own row shows it, or all rows that see the key. */
static void expect_nan_shows(struct kernel_case *c, const struct fb_attention *attention,
                             struct kernel_tensor *input, const char *name)
{
    enum { ROW = 70 };
    struct kernel_output output;
    const int64_t last = c->problem.q_len;
    const bool local = strcmp(c->mechanism->name, "local") == 0;
    const int64_t from = input == &c->q || local || c->problem.causal ? ROW : 0;
    const int64_t to = input == &c->q || local ? ROW + 1 : last;
    kernel_case_init(c);
    kernel_case_raise(input, ROW, ROW + 1, 3, NAN);
    if (kernel_case_run(c, attention, 2, 0xff, &output)) {
        if (!shows_nan(&output.view, from, to))
            kernel_report(c, attention, "a number of %s that is none does not show", name);
        kernel_output_free(&output);
    }
    kernel_case_free(c);
}

/* A model that has diverged must not look as if it had not. */
static void test_kernels_show_what_is_not_a_number(void **state)
{
    (void)state;
    static const enum fb_dtype dtypes[] = {FB_F32, FB_BF16, FB_F16};
    for (size_t i = 0; i < fb_attention_count(); i++)
        for (int variation = 0; variation < 24; variation++) {
            const struct fb_attention *attention = fb_attention_at(i);
            const int64_t len = variation / 12 != 0 ? 1100 : 130;
            const int64_t dim = variation / 6 % 2 != 0 ? 40 : 64;
            struct kernel_case c = {.layout = LAYOUT_BHND, .scale = 1.0f, .seed = 14};
            kernel_case_set_problem(&c, attention->mechanism, 1, 1, len, len, dim, dim);
            c.problem.dtype = dtypes[variation / 2 % 3];
            c.problem.causal = variation % 2 != 0;
            if (!kernel_case_is_served(&c, attention, FB_FORWARD))
                continue;
            expect_nan_shows(&c, attention, &c.q, "q");
            expect_nan_shows(&c, attention, &c.k, "k");
            expect_nan_shows(&c, attention, &c.v, "v");
        }
    kernel_expect_no_failures();
}

/* ---- refusals ------------------------------------------------------------------------------- */

static void expect_refused(const struct fb_attention *attention, const struct fb_problem *problem,
                           enum fb_pass pass, const char *part)
{
    struct fb_error why = {0};
    const enum fb_status status = fb_attention_supports(attention, problem, pass, &why);
    if (status == FB_OK)
        fail_msg("%s/%s %s does not refuse: %s", attention->mechanism->name, attention->variant,
                 fb_isa_name(attention->isa), part);
    assert_int_equal(why.code, status);
    if (!strstr(why.text, part))
        fail_msg("%s/%s: '%s' does not say '%s'", attention->mechanism->name, attention->variant,
                 why.text, part);
}

static void test_kernels_what_they_lack_is_refused_in_words(void **state)
{
    (void)state;
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        struct fb_problem good, p;
        struct fb_error error = {0};
        fb_problem_init(&good, attention->mechanism, 2, 4, 16, 8);
        if (kernel_is_foreign(attention)) {
            expect_refused(attention, &good, FB_FORWARD, "this processor lacks");
            continue;
        }
        if (strcmp(attention->variant, "cudnn") ==
            0) /* 16 bits, and a library that may be absent */
            good.dtype = FB_BF16;
        if (fb_attention_supports(attention, &good, FB_FORWARD, &error) != FB_OK) {
            assert_string_equal(attention->variant, "cudnn");
            assert_non_null(strstr(error.text, "FLOWBENCH_CUDNN"));
            continue;
        }
        const int64_t negative[2] = {3, -1}, too_long[2] = {17, 3};
        p = good;
        p.dtype = FB_F64;
        if (attention->backend == FB_CPU)
            expect_refused(attention, &p, FB_FORWARD, "f64");
        p = good;
        p.qk_dim = 257;
        expect_refused(attention, &p, FB_FORWARD, "257");
        p = good;
        p.v_dim = 0;
        expect_refused(attention, &p, FB_FORWARD, "value_dim");
        p = good;
        p.kv_heads = 3;
        expect_refused(attention, &p, FB_FORWARD, "kv_heads");
        p = good;
        p.q_lengths = negative;
        expect_refused(attention, &p, FB_FORWARD, "q_lengths[1] is -1");
        p = good;
        p.kv_lengths = too_long;
        expect_refused(attention, &p, FB_FORWARD, "kv_lengths[0] is 17");
        if (!attention->backward)
            expect_refused(attention, &good, FB_BACKWARD, "backward");
        if (!attention->decode)
            expect_refused(attention, &good, FB_DECODE, "decode");
    }
}

/* Refused in words that name the field, or right. */
static size_t expect_refused_or_right(const struct fb_attention *attention,
                                      const struct fb_problem *problem, const char *part)
{
    struct kernel_case c = {.mechanism = attention->mechanism,
                            .problem = *problem,
                            .layout = LAYOUT_PADDED,
                            .scale = 1.0f,
                            .seed = 12};
    struct kernel_output output;
    struct fb_error why = {0};
    if (kernel_is_foreign(attention))
        return 0;
    if (fb_attention_supports(attention, problem, FB_FORWARD, &why) != FB_OK) {
        expect_refused(attention, problem, FB_FORWARD, part);
        return 0;
    }
    if (!kernel_is_runnable(attention))
        return 0;
    kernel_case_init(&c);
    kernel_case_reference(&c, 0);
    if (kernel_case_run(&c, attention, 2, 0xff, &output)) {
        kernel_case_judge(&c, attention, &output, 1e-5);
        kernel_output_free(&output);
    }
    kernel_case_free(&c);
    return 1;
}

static void test_kernels_grouped_queries_and_lengths_are_refused_or_right(void **state)
{
    (void)state;
    static const int64_t lengths[4] = {3, 150, 0, 64}, full[4] = {150, 150, 150, 150};
    size_t executed = 0;
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        for (int causal = 0; causal < 2; causal++) {
            struct fb_problem good, p;
            fb_problem_init(&good, attention->mechanism, 4, 4, 150, 24);
            good.causal = causal != 0;
            for (int64_t kv_heads = 1; kv_heads <= 2; kv_heads++) {
                p = good;
                p.kv_heads = kv_heads;
                executed += expect_refused_or_right(attention, &p, "kv_heads");
            }
            p = good;
            p.q_lengths = lengths;
            executed += expect_refused_or_right(attention, &p, "lengths");
            p = good;
            p.kv_lengths = lengths;
            executed += expect_refused_or_right(attention, &p, "lengths");
            p.q_lengths = lengths;
            executed += expect_refused_or_right(attention, &p, "lengths");
            p.q_lengths = p.kv_lengths = full;
            executed += expect_refused_or_right(attention, &p, "lengths");
            p.q_lengths = p.kv_lengths = lengths;
            p.kv_heads = 2;
            executed += expect_refused_or_right(attention, &p, "");
        }
    }
    assert_true(executed > 0);
    kernel_expect_no_failures();
}

static void test_flow_causal_with_unequal_lengths_is_refused(void **state)
{
    (void)state;
    const struct fb_mechanism *flow = fb_mechanism_find("flow");
    assert_non_null(flow);
    struct fb_problem problem;
    struct fb_error why = {0};
    fb_problem_init(&problem, flow, 1, 1, 16, 8);
    problem.kv_len = 17;
    assert_int_equal(fb_problem_check(&problem, flow, &why), FB_OK);
    problem.causal = true;
    assert_int_equal(fb_problem_check(&problem, flow, &why), FB_ERROR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "causal"));
    assert_non_null(strstr(why.text, "16"));
    assert_non_null(strstr(why.text, "17"));
}

/* A call that contradicts its problem is refused before anything is written. */
static void test_kernels_bad_calls_are_refused_untouched(void **state)
{
    (void)state;
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        if (!kernel_is_runnable(attention))
            continue;
        struct kernel_case c = {.mechanism = attention->mechanism, .scale = 1.0f, .seed = 5};
        fb_problem_init(&c.problem, c.mechanism, 1, 2, 9, 8);
        kernel_case_init(&c);
        float out[2 * 9 * 8];
        memset(out, 0xff, sizeof out);
        const struct fb_call good = {.q = c.q.view,
                                     .k = c.k.view,
                                     .v = c.v.view,
                                     .out = fb_tensor_dense(out, FB_F32, FB_BHND, 1, 2, 9, 8),
                                     .constants = c.constants,
                                     .threads = 1};
        struct fb_call bad[6] = {good, good, good, good, good, good};
        bad[0].k.shape[2] = 8;
        bad[1].out.dtype = FB_F64;
        bad[2].q.stride[3] = 2;
        bad[3].v.data = NULL;
        bad[4].threads = 0;
        struct fb_sizes sizes;
        fb_attention_sizes(attention, &c.problem, 1, &sizes);
        if (sizes.forward_scratch_bytes == 0)
            bad[5].out.data = NULL; /* else: the missing scratch is the fault */
        for (int j = 0; j < 6; j++) {
            struct fb_error error = {0};
            assert_int_not_equal(fb_attention_forward(attention, &c.problem, &bad[j], &error),
                                 FB_OK);
            assert_true(strlen(error.text) > 10);
        }
        for (size_t j = 0; j < sizeof out; j++)
            assert_int_equal(((const unsigned char *)out)[j], 0xff);
        kernel_case_free(&c);
    }
}

/* ---- registry ------------------------------------------------------------------------------- */

static void test_registry_every_mechanism_has_oracle_cost_and_a_name_of_its_own(void **state)
{
    (void)state;
    assert_true(fb_mechanism_count() >= 5);
    for (size_t i = 0; i < fb_mechanism_count(); i++) {
        const struct fb_mechanism *mechanism = fb_mechanism_at(i);
        if (!fb_oracle_exists(mechanism->name))
            fail_msg("%s has no oracle: add it to baselines/oracle/oracle.c", mechanism->name);
        assert_ptr_equal(fb_mechanism_find(mechanism->name), mechanism);
        assert_true(strlen(mechanism->title) > 0 && strlen(mechanism->reference) > 0);
        struct fb_problem problem;
        fb_problem_init(&problem, mechanism, 2, 3, 128, 64);
        for (int pass = 0; pass < FB_PASS_COUNT; pass++)
            for (int causal = 0; causal < 2; causal++) {
                struct fb_cost cost = {0};
                problem.causal = causal != 0;
                mechanism->cost(&problem, (enum fb_pass)pass, &cost);
                assert_true(cost.flop > 0.0 && cost.bytes_min > 0.0);
                assert_true(cost.flop < 1e15 && cost.bytes_min < 1e15);
            }
        assert_true(fb_oracle_cost(mechanism, &problem, 1) > 0.0);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(fb_mechanism_at(j)->name, mechanism->name);
    }
    assert_null(fb_mechanism_at(fb_mechanism_count()));
    assert_null(fb_mechanism_find("no such mechanism"));
}

static void test_registry_every_variant_is_found_by_its_own_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *a = fb_attention_at(i);
        assert_ptr_equal(fb_mechanism_find(a->mechanism->name), a->mechanism);
        assert_non_null(a->forward);
        assert_ptr_equal(fb_attention_find(a->mechanism, a->variant, a->backend, a->isa), a);
        struct fb_problem problem;
        struct fb_sizes few, many;
        if (kernel_is_foreign(a))
            continue;
        fb_problem_init(&problem, a->mechanism, 2, 3, 128, 64);
        fb_attention_sizes(a, &problem, 1, &few);
        fb_attention_sizes(a, &problem, 8, &many);
        assert_true(few.forward_scratch_bytes <= many.forward_scratch_bytes);
        assert_true(many.forward_scratch_bytes < (size_t)1 << 30);
    }
    assert_null(fb_attention_at(fb_attention_count()));
}

static void test_registry_every_mechanism_has_a_scalar_cpu_variant(void **state)
{
    (void)state;
    for (size_t i = 0; i < fb_mechanism_count(); i++)
        assert_non_null(fb_attention_find(fb_mechanism_at(i), NULL, FB_CPU, FB_ISA_SCALAR));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registry_every_mechanism_has_oracle_cost_and_a_name_of_its_own),
        cmocka_unit_test(test_registry_every_variant_is_found_by_its_own_name),
        cmocka_unit_test(test_registry_every_mechanism_has_a_scalar_cpu_variant),
        cmocka_unit_test(test_kernels_show_what_is_not_a_number),
        cmocka_unit_test(test_kernels_what_they_lack_is_refused_in_words),
        cmocka_unit_test(test_kernels_grouped_queries_and_lengths_are_refused_or_right),
        cmocka_unit_test(test_flow_causal_with_unequal_lengths_is_refused),
        cmocka_unit_test(test_kernels_bad_calls_are_refused_untouched),
        cmocka_unit_test(test_kernels_runs_and_threads_give_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
