/* Live comparisons with scripted times: the stages, their order, and what becomes of failures. */
#include "ab_compare.h"

#include "random.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* ---- a machine made of numbers ----------------------------------------------------------------
 */

enum { LOG_MAX = 4096 };

struct script {
    struct fb_random random;
    double sigma;        /* of ln t of a process */
    double slower;       /* factor of the new build ... */
    int64_t slower_from; /* ... for sequences this long or longer */
    double layout;       /* factor of the relinked build */
    double drift;        /* added to ln t by every process: a machine that gets slower and slower */
    int64_t fails_at;    /* the new build fails at this sequence length, in process fail_process */
    int fail_process;
    const char *fail_status;
    int64_t new_peak_bytes;
    double new_error;
    int interrupt_after; /* a signal comes with this process; 0: none */
    struct fb_interrupts *interrupts;
    double wall_s;
    /* what was asked for */
    int count, samples[LOG_MAX], processes[LOG_MAX];
    enum fb_ab_side sides[LOG_MAX];
    int64_t lengths[LOG_MAX];
    bool checked[LOG_MAX];
};

static void note(struct script *script, const struct fb_ab_request *request)
{
    assert_true(script->count < LOG_MAX);
    script->samples[script->count] = request->samples;
    script->processes[script->count] = request->process;
    script->sides[script->count] = request->side;
    script->lengths[script->count] = request->item->seq_len;
    script->checked[script->count] = request->check;
    script->count++;
}

static enum fb_status measure(void *context, const struct fb_ab_request *request,
                              struct fb_ab_answer *answer, struct fb_error *error)
{
    struct script *script = context;
    const int64_t length = request->item->seq_len;
    const bool is_new = request->side == FB_AB_NEW;

    (void)error;
    note(script, request);
    if (script->interrupt_after > 0 && script->count >= script->interrupt_after)
        assert_int_equal(raise(SIGINT), 0);
    answer->wall_s = script->wall_s;
    if (is_new && length == script->fails_at && request->process >= script->fail_process) {
        answer->status = script->fail_status;
        if (strcmp(script->fail_status, "wrong") == 0)
            answer->result.status = FB_MEASURE_WRONG;
        (void)snprintf(answer->reason, sizeof answer->reason, "as scripted");
        return FB_OK;
    }
    double factor =
        exp(script->sigma * fb_random_normal(&script->random) + script->drift * script->count);
    if (is_new && length >= script->slower_from)
        factor *= script->slower;
    if (request->side == FB_AB_LAYOUT)
        factor *= script->layout;
    answer->status = "ok";
    answer->result.status = FB_MEASURE_OK;
    answer->result.samples_count = (size_t)request->samples;
    answer->result.samples_s = calloc((size_t)request->samples, sizeof(double));
    for (int i = 0; i < request->samples; i++)
        answer->result.samples_s[i] = 1e-6 * (double)length * factor;
    answer->result.mem_workspace_bytes = 1000;
    answer->result.mem_peak_bytes = is_new ? script->new_peak_bytes : 1000000;
    if (request->check) {
        answer->result.err_rel = answer->result.err_max = is_new ? script->new_error : 1e-7;
        answer->result.err_budget = 1e-5;
    }
    return FB_OK;
}

/* ---- a comparison -----------------------------------------------------------------------------
 */

struct bench {
    struct fb_arena arena;
    struct fb_suite suite;
    struct fb_plan plan;
    struct fb_gate_rule rule;
    struct fb_progress progress;
    struct fb_comparison comparison;
    struct fb_ab_outcome outcome;
    struct fb_ab_options options;
    struct script script;
};

static const char suite_text[] = "suite: scripted\n"
                                 "kind: kernel\n"
                                 "defaults: {mechanism: flow, batch: 1, heads: 1, head_dim: 16}\n"
                                 "sweep: {seq_len: [64, 128, 256, 512, 1024]}\n"
                                 "hardware: [{device: cpu, threads: 1, isa: scalar}]\n"
                                 "measure: {min_samples: 8, max_time: 1 s, cache: warm}\n"
                                 "accuracy: {oracle: true}\n";

static void set_up(struct bench *bench)
{
    struct fb_plan_machine here;
    struct fb_error error;

    memset(bench, 0, sizeof *bench);
    fb_arena_init(&bench->arena, 0);
    if (fb_suite_parse(suite_text, sizeof suite_text - 1, "scripted.yaml", NULL, &bench->arena,
                       &bench->suite, &error) != FB_OK)
        fail_msg("%s", error.text);
    fb_plan_machine_here(&here);
    if (fb_plan_build(&bench->suite, NULL, &here, &bench->arena, &bench->plan, &error) != FB_OK)
        fail_msg("%s", error.text);
    fb_gate_rule_init(&bench->rule);
    fb_progress_init(&bench->progress, NULL, FB_COLOR_NEVER, true);
    fb_random_init(&bench->script.random, 1, 0);
    bench->script = (struct script){.random = bench->script.random,
                                    .sigma = 0.01,
                                    .slower = 1.0,
                                    .layout = 1.0,
                                    .fails_at = -1,
                                    .new_peak_bytes = 1000000,
                                    .new_error = 1e-7,
                                    .wall_s = 0.05};
    bench->options = (struct fb_ab_options){.measure = measure,
                                            .context = &bench->script,
                                            .rule = &bench->rule,
                                            .progress = &bench->progress,
                                            .device_name = "scripted",
                                            .gpu_name = ""};
}

static void compare(struct bench *bench)
{
    struct fb_error error = {FB_OK, ""};
    if (fb_ab_compare(&bench->suite, &bench->plan, &bench->options, &bench->arena,
                      &bench->comparison, &bench->outcome, &error) != FB_OK)
        fail_msg("%s", error.text);
}

static const struct fb_compared *case_of(const struct bench *bench, int64_t seq_len)
{
    for (size_t i = 0; i < bench->comparison.cases_count; i++) {
        if (bench->comparison.cases[i].base->seq_len == seq_len)
            return &bench->comparison.cases[i];
    }
    fail_msg("no case of length %lld", (long long)seq_len);
    return NULL;
}

/* ---- tests ------------------------------------------------------------------------------------
 */

static void test_same_build_passes_without_confirming(void **state)
{
    struct bench *bench = *state;
    compare(bench);
    assert_int_equal(bench->comparison.counts[FB_VERDICT_PASS], 5);
    assert_int_equal(fb_comparison_outcome(&bench->comparison), FB_COMPARISON_FINE);
    /* Two to calibrate, ten slots of three. */
    assert_int_equal(bench->script.count, 5 * (2 + 30));
    assert_int_equal(bench->comparison.same.cases, 5);
    assert_int_equal(bench->comparison.same.pairs, 10);
    assert_int_equal(bench->comparison.same.candidates, 0);
    assert_true(bench->comparison.same.largest < 0.03);
    const struct fb_compared *one = case_of(bench, 256);
    assert_int_equal(one->unit, FB_UNIT_PAIRS);
    assert_true(one->change_low < 0.0 && one->change_high > 0.0);
    assert_true(one->detectable > 0.03 && one->detectable < 0.1);
    assert_string_equal(one->name, "flow/fused N256");
}

static void test_planted_ten_percent_fails_and_only_there(void **state)
{
    struct bench *bench = *state;
    bench->script.slower = 1.10;
    bench->script.slower_from = 512;
    bench->script.sigma = 0.03;
    compare(bench);
    assert_int_equal(bench->comparison.counts[FB_VERDICT_FAIL], 2);
    assert_int_equal(case_of(bench, 512)->verdict, FB_VERDICT_FAIL);
    assert_int_equal(case_of(bench, 1024)->verdict, FB_VERDICT_FAIL);
    assert_int_equal(case_of(bench, 64)->verdict, FB_VERDICT_PASS);
    assert_int_equal(fb_comparison_outcome(&bench->comparison), FB_COMPARISON_FAILED);
    const struct fb_compared *one = case_of(bench, 1024);
    assert_true(one->slower && !one->hungrier && !one->wrong);
    assert_true(one->change > 0.06 && one->change < 0.14);
    assert_true(one->p_adjusted <= 0.01);
    assert_int_equal(one->screen_ratios_count, 10);
    assert_in_range(one->fresh_ratios_count, 30, 60);
    assert_int_equal(bench->comparison.cases[0].verdict, FB_VERDICT_FAIL);
}

/* A machine that slows down by 1 % with every process: interleaving in balanced order cancels it.
 */
static void test_drifting_machine_passes(void **state)
{
    struct bench *bench = *state;
    bench->script.drift = 0.01;
    compare(bench);
    assert_int_equal(bench->comparison.counts[FB_VERDICT_PASS], 5);
}

/* Old/new as ABBA BAAB ..., and likewise old/old again; neighbours share their inputs. */
static void test_order_is_balanced_and_pairs_are_neighbours(void **state)
{
    struct bench *bench = *state;
    char order[64] = "";
    size_t length = 0;
    compare(bench);
    const struct script *script = &bench->script;
    for (int i = 0; i < script->count; i++) {
        if (script->lengths[i] != 256 || script->processes[i] == 0)
            continue;
        order[length++] = script->sides[i] == FB_AB_NEW ? 'B' : 'A';
    }
    assert_string_equal(order, "AABBAABAAAABAABBAABAAAABAABBAA");
    for (int i = 10; i < script->count; i += 3) {
        for (int j = 1; j < 3; j++) {
            assert_int_equal(script->lengths[i + j], script->lengths[i]);
            assert_int_equal(script->processes[i + j], script->processes[i]);
        }
        assert_int_equal(script->sides[i + 1], FB_AB_OLD);
    }
}

/* Only the first process of a side is checked; the number of samples never depends on the build. */
static void test_samples_are_fixed_and_the_oracle_is_asked_once(void **state)
{
    struct bench *bench = *state;
    bench->script.slower = 3.0;
    compare(bench);
    for (int i = 0; i < bench->script.count; i++) {
        const bool first = bench->script.processes[i] == 0;
        assert_int_equal(bench->script.checked[i], first);
        if (!first)
            assert_int_equal(bench->script.samples[i], 8);
    }
    assert_int_equal(bench->comparison.counts[FB_VERDICT_FAIL], 5);
}

static void test_speed_up_is_confirmed_as_faster(void **state)
{
    struct bench *bench = *state;
    bench->script.slower = 0.8;
    compare(bench);
    assert_int_equal(bench->comparison.counts[FB_VERDICT_FASTER], 5);
    assert_int_equal(fb_comparison_outcome(&bench->comparison), FB_COMPARISON_FINE);
}

static void test_memory_and_error_fail_whatever_the_speed(void **state)
{
    struct bench *bench = *state;
    bench->script.slower = 0.8;
    bench->script.new_peak_bytes = 1200000;
    bench->script.new_error = 1e-4;
    compare(bench);
    assert_int_equal(bench->comparison.counts[FB_VERDICT_FAIL], 5);
    const struct fb_compared *one = case_of(bench, 64);
    assert_true(one->wrong && one->hungrier && !one->slower);
    assert_non_null(strstr(one->reason, "err_rel 0.0001 is outside its budget"));
    assert_non_null(strstr(one->reason, "mem_peak_bytes grew by 20 %"));
}

static void test_crash_of_the_new_build_breaks_its_case_only(void **state)
{
    struct bench *bench = *state;
    bench->script.fails_at = 256;
    bench->script.fail_process = 4;
    bench->script.fail_status = "crash";
    compare(bench);
    const struct fb_compared *one = case_of(bench, 256);
    assert_int_equal(one->verdict, FB_VERDICT_INCOMPARABLE);
    assert_true(one->broken);
    assert_string_equal(one->reason, "new is crash: as scripted");
    assert_int_equal(bench->comparison.counts[FB_VERDICT_PASS], 4);
    assert_int_equal(fb_comparison_outcome(&bench->comparison), FB_COMPARISON_FAILED);
}

static void test_wrong_answer_of_the_new_build_fails(void **state)
{
    struct bench *bench = *state;
    bench->script.fails_at = 64;
    bench->script.fail_status = "wrong";
    compare(bench);
    assert_int_equal(case_of(bench, 64)->verdict, FB_VERDICT_FAIL);
    assert_true(case_of(bench, 64)->wrong);
}

/* A relink moves everything by 8 %: a slow-down of 6 % is then nobody's fault. */
static void test_layout_raises_what_is_tolerated(void **state)
{
    struct bench *bench = *state;
    bench->options.layout = true;
    bench->script.layout = 1.08;
    bench->script.slower = 1.06;
    compare(bench);
    assert_int_equal(bench->comparison.counts[FB_VERDICT_PASS], 5);
    assert_int_equal(bench->comparison.layout.cases, 5);
    assert_true(bench->comparison.rule.threshold > 0.07);
    assert_true(bench->comparison.cases[0].threshold > 0.07);
}

static void test_budget_leaves_cases_ambiguous(void **state)
{
    struct bench *bench = *state;
    bench->options.budget_s = 3.0; /* two thirds hold one case: 30 processes of 50 ms */
    compare(bench);
    assert_int_equal(bench->outcome.left_over, 4);
    assert_int_equal(bench->comparison.counts[FB_VERDICT_PASS], 1);
    assert_int_equal(bench->comparison.counts[FB_VERDICT_AMBIGUOUS], 4);
    assert_int_equal(fb_comparison_outcome(&bench->comparison), FB_COMPARISON_AMBIGUOUS);
}

static void test_interrupt_decides_nothing(void **state)
{
    struct bench *bench = *state;
    struct fb_interrupts interrupts;
    struct fb_error error;
    assert_int_equal(fb_interrupts_begin(&interrupts, &error), FB_OK);
    bench->options.interrupts = &interrupts;
    bench->script.interrupt_after = 25;
    compare(bench);
    fb_interrupts_end(&interrupts);
    assert_int_equal(bench->outcome.signal, SIGINT);
    assert_int_equal(bench->script.count, 25);
    assert_int_equal(bench->comparison.cases_count, 0);
}

static int make(void **state)
{
    struct bench *bench = malloc(sizeof *bench);
    if (bench == NULL)
        return -1;
    set_up(bench);
    *state = bench;
    return 0;
}

static int drop(void **state)
{
    struct bench *bench = *state;
    fb_arena_free(&bench->arena);
    free(bench);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_same_build_passes_without_confirming),
        TEST(test_planted_ten_percent_fails_and_only_there),
        TEST(test_drifting_machine_passes),
        TEST(test_order_is_balanced_and_pairs_are_neighbours),
        TEST(test_samples_are_fixed_and_the_oracle_is_asked_once),
        TEST(test_speed_up_is_confirmed_as_faster),
        TEST(test_memory_and_error_fail_whatever_the_speed),
        TEST(test_crash_of_the_new_build_breaks_its_case_only),
        TEST(test_wrong_answer_of_the_new_build_fails),
        TEST(test_layout_raises_what_is_tolerated),
        TEST(test_budget_leaves_cases_ambiguous),
        TEST(test_interrupt_decides_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
