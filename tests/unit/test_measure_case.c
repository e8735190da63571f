/*
 * One worker's life, with a scripted mechanism and a scripted clock: what is right gets a time,
 * what is wrong gets a reason.
 */
#include "dtype.h"
#include "evidence.h"
#include "measure.h"
#include "measure_check.h"
#include "oracle.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_near(double value, double wanted, double tolerance)
{
    if (!(fabs(value - wanted) <= tolerance))
        fail_msg("%.17g is not within %.3g of %.17g", value, tolerance, wanted);
}

enum behaviour {
    RIGHT,
    ONE_NAN,
    ONE_ROW_UNWRITTEN,
    ONE_ELEMENT_WRONG,
    FAILS,
    FAILS_LATER,
    DIFFERS_LATER,
    UNWRITTEN_LATER
};

/* The script of the fake mechanism: fb_attention carries no context of its own. */
static struct {
    enum behaviour behaviour;
    double call_s;
    size_t scratch_bytes, touch_bytes;
    int calls;
    struct fb_clock_fake clock;
} script;

static const struct fb_mechanism linear_like;

/* The fourth call comes after the first one, the one for the peak of memory, and a warm-up. */
static bool is_late(void)
{
    return script.calls >= 4;
}

static enum fb_status write_answer(const struct fb_problem *problem, const struct fb_call *call,
                                   struct fb_error *error)
{
    const size_t count = (size_t)problem->q_len;
    double *rows = calloc(count * (size_t)problem->v_dim, sizeof *rows);
    int64_t *index = calloc(count, sizeof *index);
    assert_non_null(rows);
    assert_non_null(index);
    for (size_t i = 0; i < count; i++)
        index[i] = (int64_t)i;
    enum fb_status status = FB_OK;
    for (int64_t b = 0; b < problem->batch; b++)
        for (int64_t h = 0; h < problem->heads && status == FB_OK; h++) {
            status = fb_oracle_forward_rows(&linear_like, problem, call, b, h, index, count, rows,
                                            error);
            for (size_t i = 0; i < count; i++)
                for (int64_t m = 0; m < problem->v_dim; m++)
                    fb_tensor_row_f32(&call->out, b, h, (int64_t)i)[m] =
                        (float)rows[(int64_t)i * problem->v_dim + m];
        }
    free(rows);
    free(index);
    return status;
}

/* Everything but the last row of the last head keeps what was there before the call. */
static enum fb_status leave_row(const struct fb_problem *problem, const struct fb_call *call,
                                struct fb_error *error)
{
    const size_t bytes = (size_t)problem->v_dim * sizeof(float);
    float *row =
        fb_tensor_row_f32(&call->out, problem->batch - 1, problem->heads - 1, problem->q_len - 1);
    float *before = malloc(bytes);
    assert_non_null(before);
    memcpy(before, row, bytes);
    const enum fb_status status = write_answer(problem, call, error);
    memcpy(row, before, bytes);
    free(before);
    return status;
}

static enum fb_status fake_forward(const struct fb_problem *problem, const struct fb_call *call,
                                   struct fb_error *error)
{
    script.calls++;
    fb_clock_fake_advance(&script.clock, script.call_s);
    if (script.touch_bytes > 0)
        memset(call->scratch, script.calls, script.touch_bytes);
    if (script.behaviour == FAILS || (script.behaviour == FAILS_LATER && is_late()))
        return fb_error_set(error, FB_ERROR_INTERNAL, "scripted failure");
    if (script.behaviour == ONE_ROW_UNWRITTEN || (script.behaviour == UNWRITTEN_LATER && is_late()))
        return leave_row(problem, call, error);
    const enum fb_status status = write_answer(problem, call, error);
    float *last =
        fb_tensor_row_f32(&call->out, problem->batch - 1, problem->heads - 1, problem->q_len - 1);
    if (script.behaviour == ONE_NAN)
        last[1] = NAN;
    if (script.behaviour == ONE_ELEMENT_WRONG)
        last[1] += 1e-2F;
    if (script.behaviour == DIFFERS_LATER && is_late())
        last[1] = nextafterf(last[1], 10.0F);
    return status;
}

static void fake_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    (void)problem;
    (void)threads;
    *sizes = (struct fb_sizes){.forward_scratch_bytes = script.scratch_bytes};
}

static enum fb_status fake_supports(const struct fb_problem *problem, struct fb_error *why)
{
    (void)problem;
    (void)why;
    return FB_OK;
}

static void fake_cost(const struct fb_problem *problem, enum fb_pass pass, struct fb_cost *cost)
{
    (void)pass;
    *cost = (struct fb_cost){.flop = 1000.0 * (double)problem->q_len, .bytes_min = 4096.0};
}

/* Only its oracle is that of linear attention. */
static const struct fb_mechanism linear_like = {
    .name = "linear", .title = "fake", .supports = fake_supports, .cost = fake_cost};

static const struct fb_attention fake = {
    .mechanism = &linear_like,
    .variant = "scripted",
    .backend = FB_CPU,
    .isa = FB_ISA_ANY,
    .deterministic = true,
    .sizes = fake_sizes,
    .forward = fake_forward,
};

static const struct fb_attention fake_nondeterministic = {
    .mechanism = &linear_like,
    .variant = "scripted",
    .backend = FB_CPU,
    .isa = FB_ISA_ANY,
    .deterministic = false,
    .sizes = fake_sizes,
    .forward = fake_forward,
};

static struct fb_case small_case(void)
{
    return (struct fb_case){
        .id = "0123456789abcdef",
        .mechanism = &linear_like,
        .variant = "scripted",
        .device = FB_CPU,
        .threads = 2,
        .dtype = FB_F32,
        .layout = FB_BHND,
        .pass = FB_FORWARD,
        .batch = 2,
        .heads = 3,
        .seq_len = 33,
        .kv_len = 33,
        .head_dim = 8,
        .value_dim = 8,
        .seed = 7,
    };
}

static struct fb_measure_settings small_settings(void)
{
    return (struct fb_measure_settings){
        .warmup_s = 0.02,
        .precision = 0.01,
        .min_samples = 6,
        .max_time_s = 1.0,
        .cache = FB_CACHE_WARM,
        .processes = 1,
    };
}

/* Starts a script; everything else of it is zero. */
static void play(enum behaviour behaviour, double call_s)
{
    memset(&script, 0, sizeof script);
    script.behaviour = behaviour;
    script.call_s = call_s;
}

static enum fb_status measure_with(const struct fb_case *item,
                                   const struct fb_measure_settings *settings,
                                   const struct fb_attention *attention,
                                   struct fb_measure_result *result)
{
    struct fb_clock clock;
    fb_clock_init_fake(&clock, &script.clock);
    const struct fb_limits limits = {.memory_bytes = (size_t)256 << 20};
    struct fb_measure_options options;
    fb_measure_options_init(&options);
    options.attention = attention;
    options.clock = &clock;
    options.floor = false;
    struct fb_error error;
    return fb_measure_case(item, settings, &limits, &options, result, &error);
}

static void measure_small(struct fb_measure_result *result)
{
    const struct fb_case item = small_case();
    const struct fb_measure_settings settings = small_settings();
    assert_int_equal(measure_with(&item, &settings, &fake, result), FB_OK);
}

static void test_case_right_answer_gets_scripted_time(void **state)
{
    (void)state;
    play(RIGHT, 0.01);
    struct fb_measure_result result;
    measure_small(&result);
    assert_string_equal(result.reason, "");
    assert_int_equal(result.status, FB_MEASURE_OK);
    assert_int_equal(result.samples_count, 6);
    for (size_t i = 0; i < result.samples_count; i++)
        assert_near(result.samples_s[i], 0.01, 1e-12);
    assert_string_equal(result.stop_reason, "precision");
    assert_int_equal(result.calls_per_sample, 1);
    assert_near(result.first_call_s, 0.01, 1e-12);
    assert_true(result.err_rel >= 0.0 && result.err_rel < 1e-6);
    assert_true(result.err_budget > 0.0);
    /* random inputs: linear attention is close to softmax's average, and not equal */
    assert_true(result.softmax_distance > 1e-3 && result.softmax_distance < 10.0);
    assert_int_equal(strlen(result.output_hash), 16);
    assert_near(result.flop, 33000.0, 0.0);
    assert_int_equal(result.mem_workspace_bytes, 0);
    assert_int_equal(result.mem_saved_bytes, 0);
    assert_true(result.ctx_involuntary >= 0 && result.page_faults >= 0);
    assert_string_equal(result.throttled, "");
    fb_measure_result_free(&result);
}

static void test_case_warm_up_counts_the_first_calls(void **state)
{
    (void)state;
    play(RIGHT, 0.01);
    struct fb_measure_result result;
    measure_small(&result);
    /* first call, and where the kernel tells the peak a second: together warmup_s; then samples */
    assert_int_equal(script.calls, 8);
    fb_measure_result_free(&result);
}

static void test_case_warm_samples_are_batched(void **state)
{
    (void)state;
    play(RIGHT, 1.5e-4);
    struct fb_measure_result result;
    measure_small(&result);
    assert_int_equal(result.status, FB_MEASURE_OK);
    assert_int_equal(result.calls_per_sample, 4); /* max_time / 2000 is 0.5 ms */
    assert_near(result.samples_s[0], 1.5e-4, 1e-10);
    fb_measure_result_free(&result);
}

static void test_case_cold_samples_are_single_calls(void **state)
{
    (void)state;
    play(RIGHT, 1e-4);
    const struct fb_case item = small_case();
    struct fb_measure_settings settings = small_settings();
    settings.cache = FB_CACHE_COLD;
    struct fb_measure_result result;
    assert_int_equal(measure_with(&item, &settings, &fake, &result), FB_OK);
    assert_int_equal(result.status, FB_MEASURE_OK);
    assert_int_equal(result.calls_per_sample, 1);
    fb_measure_result_free(&result);
}

static void test_case_both_layouts_are_right(void **state)
{
    (void)state;
    for (int layout = 0; layout < FB_LAYOUT_COUNT; layout++) {
        play(RIGHT, 0.01);
        struct fb_case item = small_case();
        item.layout = (enum fb_layout)layout;
        item.kv_len = 17;
        item.value_dim = 5;
        const struct fb_measure_settings settings = small_settings();
        struct fb_measure_result result;
        assert_int_equal(measure_with(&item, &settings, &fake, &result), FB_OK);
        assert_string_equal(result.reason, "");
        assert_int_equal(result.status, FB_MEASURE_OK);
        fb_measure_result_free(&result);
    }
}

static void assert_wrong(enum behaviour behaviour, const char *reason)
{
    play(behaviour, 0.01);
    struct fb_measure_result result;
    measure_small(&result);
    assert_int_equal(result.status, FB_MEASURE_WRONG);
    if (!strstr(result.reason, reason))
        fail_msg("\"%s\" does not contain \"%s\"", result.reason, reason);
    assert_null(result.samples_s);
    assert_int_equal(result.samples_count, 0);
    assert_string_equal(result.stop_reason, "");
    fb_measure_result_free(&result);
}

static void test_case_nan_is_wrong_and_names_the_place(void **state)
{
    (void)state;
    assert_wrong(ONE_NAN, "1 of 1584 elements of out are NaN or infinite, the first at b=1 h=2 "
                          "row=32 component=1");
}

static void test_case_unwritten_row_is_wrong(void **state)
{
    (void)state;
    assert_wrong(ONE_ROW_UNWRITTEN, "8 of 1584 elements of out were never written, the first at "
                                    "b=1 h=2 row=32 component=0");
}

static void test_case_outside_budget_is_wrong(void **state)
{
    (void)state;
    assert_wrong(ONE_ELEMENT_WRONG, "exceeds");
}

static void test_case_unwritten_in_a_sample_is_wrong(void **state)
{
    (void)state;
    assert_wrong(UNWRITTEN_LATER, "were never written");
}

static void test_case_output_that_changes_is_wrong(void **state)
{
    (void)state;
    assert_wrong(DIFFERS_LATER, "differs from the first's");
}

static void test_case_output_may_change_if_declared(void **state)
{
    (void)state;
    play(DIFFERS_LATER, 0.01);
    const struct fb_case item = small_case();
    const struct fb_measure_settings settings = small_settings();
    struct fb_measure_result result;
    assert_int_equal(measure_with(&item, &settings, &fake_nondeterministic, &result), FB_OK);
    assert_int_equal(result.status, FB_MEASURE_OK);
    fb_measure_result_free(&result);
}

static void test_case_failing_mechanism_is_error(void **state)
{
    (void)state;
    const enum behaviour behaviours[] = {FAILS, FAILS_LATER};
    for (int i = 0; i < 2; i++) {
        play(behaviours[i], 0.01);
        struct fb_measure_result result;
        measure_small(&result);
        assert_int_equal(result.status, FB_MEASURE_ERROR);
        assert_string_equal(result.reason, "scripted failure");
        assert_int_equal(result.samples_count, 0);
        fb_measure_result_free(&result);
    }
}

static void test_case_beyond_limit_is_oom(void **state)
{
    (void)state;
    play(RIGHT, 0.01);
    script.scratch_bytes = (size_t)300 << 20;
    struct fb_measure_result result;
    measure_small(&result);
    assert_int_equal(result.status, FB_MEASURE_OOM);
    assert_non_null(strstr(result.reason, "268435456"));
    assert_int_equal(script.calls, 0);
    fb_measure_result_free(&result);
}

/* No machine maps 2^60 bytes. */
static void test_case_refused_mapping_is_oom(void **state)
{
    (void)state;
    play(RIGHT, 0.01);
    script.scratch_bytes = (size_t)1 << 60;
    const struct fb_case item = small_case();
    const struct fb_measure_settings settings = small_settings();
    const struct fb_limits none = {.memory_fraction = 0.0};
    struct fb_measure_options options;
    fb_measure_options_init(&options);
    options.attention = &fake;
    struct fb_measure_result result;
    struct fb_error error;
    assert_int_equal(fb_measure_case(&item, &settings, &none, &options, &result, &error), FB_OK);
    assert_int_equal(result.status, FB_MEASURE_OOM);
    assert_non_null(strstr(result.reason, "scratch"));
    fb_measure_result_free(&result);
}

static void test_case_peak_counts_touched_scratch(void **state)
{
    (void)state;
    if (!fb_evidence_reset_peak(0))
        skip();
    const double mib = 1024.0 * 1024.0;
    play(RIGHT, 0.01);
    script.scratch_bytes = (size_t)32 << 20;
    script.touch_bytes = (size_t)24 << 20;
    struct fb_measure_result result;
    measure_small(&result);
    assert_int_equal(result.mem_workspace_bytes, 32 << 20);
    assert_near((double)result.mem_peak_bytes / mib, 24.0, 2.5);
    fb_measure_result_free(&result);

    play(RIGHT, 0.01);
    script.scratch_bytes = (size_t)32 << 20;
    measure_small(&result);
    assert_true((double)result.mem_peak_bytes < 2.5 * mib);
    fb_measure_result_free(&result);
}

static void test_case_processes_see_different_inputs(void **state)
{
    (void)state;
    char hashes[3][FB_MEASURE_HASH_SIZE];
    const int processes[3] = {0, 1, 0};
    for (int i = 0; i < 3; i++) {
        play(RIGHT, 0.01);
        const struct fb_case item = small_case();
        const struct fb_measure_settings settings = small_settings();
        const struct fb_limits limits = {.memory_bytes = (size_t)256 << 20};
        struct fb_clock clock;
        fb_clock_init_fake(&clock, &script.clock);
        const struct fb_measure_options options = {
            .process = processes[i], .attention = &fake, .clock = &clock};
        struct fb_measure_result result;
        struct fb_error error;
        assert_int_equal(fb_measure_case(&item, &settings, &limits, &options, &result, &error),
                         FB_OK);
        memcpy(hashes[i], result.output_hash, sizeof hashes[i]);
        assert_true(isnan(result.err_rel)); /* the oracle was not asked */
        fb_measure_result_free(&result);
    }
    assert_string_not_equal(hashes[0], hashes[1]);
    assert_string_equal(hashes[0], hashes[2]);
}

static void note_phase(void *context, const char *phase)
{
    char *phases = context;
    strcat(phases, phase);
    strcat(phases, ";");
}

static void test_case_floor_and_phases_on_the_real_clock(void **state)
{
    (void)state;
    play(RIGHT, 0.0);
    const struct fb_case item = small_case();
    struct fb_measure_settings settings = small_settings();
    settings.warmup_s = 0.0;
    settings.samples = 3;
    const struct fb_limits limits = {.memory_fraction = 0.5};
    char phases[256] = "";
    struct fb_measure_options options;
    fb_measure_options_init(&options);
    options.attention = &fake;
    options.on_phase = note_phase;
    options.on_phase_context = phases;
    struct fb_measure_result result;
    struct fb_error error;
    assert_int_equal(fb_measure_case(&item, &settings, &limits, &options, &result, &error), FB_OK);
    assert_int_equal(result.status, FB_MEASURE_OK);
    assert_int_equal(result.samples_count, 3);
    assert_string_equal(result.stop_reason, "samples");
    assert_true(result.touch_s > 0.0);
    assert_near(result.touch_bytes, 4.0 * 4.0 * 2 * 3 * 33 * 8, 0.0);
    assert_true(result.gemm_flop_per_s > 0.0);
    assert_non_null(strstr(phases, "allocate;first call;check;"));
    assert_non_null(strstr(phases, "warm-up;samples;floor;"));
    fb_measure_result_free(&result);
}

static void test_case_requests_it_cannot_serve_are_refused(void **state)
{
    (void)state;
    play(RIGHT, 0.01);
    struct fb_case item = small_case();
    const struct fb_measure_settings settings = small_settings();
    struct fb_measure_result result;
    assert_int_equal(measure_with(&item, &settings, NULL, &result), FB_ERROR_USAGE);
    fb_measure_result_free(&result);
}

/* An element left out, or not finite, is found in every dtype, and at its place. */
static void test_written_of_every_dtype_finds_the_element(void **state)
{
    (void)state;
    for (int dtype = 0; dtype < FB_DTYPE_COUNT; dtype++)
        for (int kind = 0; kind < 3; kind++) {
            double data[12];
            const float bad = kind == 1 ? HUGE_VALF : (float)NAN, good = -1.5F;
            const size_t bytes = fb_dtype_bytes((enum fb_dtype)dtype);
            const struct fb_tensor t =
                fb_tensor_dense(data, (enum fb_dtype)dtype, FB_BHND, 1, 2, 3, 2);
            struct fb_check_outputs outputs = {.count = 0};
            struct fb_measure_result result = {.status = FB_MEASURE_OK};
            fb_check_add_output(&outputs, "out", &t);
            fb_check_poison(&outputs, 2);
            for (int i = 0; i < 12; i++)
                if (i != 9)
                    fb_dtype_narrow((enum fb_dtype)dtype, &good, 1, (char *)data + i * (int)bytes);
                else if (kind > 0)
                    fb_dtype_narrow((enum fb_dtype)dtype, &bad, 1, (char *)data + i * (int)bytes);
            assert_false(fb_check_written(&outputs, &result));
            assert_non_null(strstr(result.reason, "1 of 12 elements of out"));
            assert_non_null(strstr(result.reason, "h=1 row=1 component=1"));
            assert_int_equal(strstr(result.reason, "never written") != NULL, kind == 0);
            fb_dtype_narrow((enum fb_dtype)dtype, &good, 1, (char *)data + 9 * (int)bytes);
            assert_true(fb_check_written(&outputs, &result));
        }
}

static void test_choose_distinct_ascending_with_both_ends(void **state)
{
    (void)state;
    static const int64_t cases[][2] = {{1, 1}, {2, 2}, {5, 5}, {7, 100}, {32, 33}, {1000, 1000}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        int64_t chosen[1000];
        const int64_t count = cases[c][0];
        fb_check_choose(chosen, count, cases[c][1], 42, 3);
        assert_int_equal(chosen[0], 0);
        if (count > 1)
            assert_int_equal(chosen[count - 1], cases[c][1] - 1);
        for (int64_t i = 1; i < count; i++)
            assert_true(chosen[i] > chosen[i - 1]);
    }
}

static void test_result_json_round_trip_keeps_everything(void **state)
{
    (void)state;
    play(RIGHT, 0.01);
    struct fb_measure_result result, back;
    measure_small(&result);
    json_t *json = fb_measure_result_to_json(&result);
    assert_non_null(json);
    char *text = json_dumps(json, JSON_REAL_PRECISION(17));
    assert_non_null(text);
    json_t *parsed = json_loads(text, 0, NULL);
    assert_non_null(parsed);
    struct fb_error error;
    assert_int_equal(fb_measure_result_from_json(parsed, &back, &error), FB_OK);
    assert_int_equal(back.status, result.status);
    assert_int_equal(back.samples_count, result.samples_count);
    assert_memory_equal(back.samples_s, result.samples_s,
                        result.samples_count * sizeof *result.samples_s);
    assert_true(back.err_rel == result.err_rel);
    assert_true(isnan(back.touch_s)); /* null */
    assert_string_equal(back.output_hash, result.output_hash);
    assert_string_equal(back.stop_reason, result.stop_reason);
    assert_int_equal(back.mem_peak_bytes, result.mem_peak_bytes);
    json_decref(json);
    json_decref(parsed);
    free(text);
    fb_measure_result_free(&result);
    fb_measure_result_free(&back);
}

static void test_result_json_malformed_is_an_input_error(void **state)
{
    (void)state;
    struct fb_measure_result result, back;
    fb_measure_result_init(&result);
    struct fb_error error;
    json_t *json = fb_measure_result_to_json(&result);
    json_object_set_new(json, "status", json_string("splendid"));
    assert_int_equal(fb_measure_result_from_json(json, &back, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "splendid"));
    fb_measure_result_free(&back);
    json_object_set_new(json, "reason", json_integer(3));
    assert_int_equal(fb_measure_result_from_json(json, &back, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "reason"));
    fb_measure_result_free(&back);
    /* What another version's worker does not know stays absent. */
    json_object_set_new(json, "status", json_string("ok"));
    json_object_del(json, "reason");
    json_object_del(json, "mem_peak_bytes");
    assert_int_equal(fb_measure_result_from_json(json, &back, &error), FB_OK);
    assert_string_equal(back.reason, "");
    assert_int_equal(back.mem_peak_bytes, -1);
    fb_measure_result_free(&back);
    json_object_del(json, "samples_s");
    assert_int_equal(fb_measure_result_from_json(json, &back, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "samples_s"));
    fb_measure_result_free(&back);
    json_decref(json);
}

static void test_settings_and_limits_json_round_trip(void **state)
{
    (void)state;
    struct fb_measure_settings settings = small_settings(), settings_back;
    settings.samples = 12;
    settings.counter = FB_COUNTER_HARDWARE;
    const struct fb_limits limits = {60.0, 0.8, (size_t)5 << 30};
    struct fb_limits limits_back;
    struct fb_error error;
    json_t *json = fb_measure_settings_to_json(&settings);
    assert_int_equal(fb_measure_settings_from_json(json, &settings_back, &error), FB_OK);
    assert_int_equal(settings_back.cache, FB_CACHE_WARM);
    assert_int_equal(settings_back.samples, 12);
    assert_int_equal(settings_back.counter, FB_COUNTER_HARDWARE);
    assert_true(settings_back.precision == settings.precision);
    json_decref(json);
    json = fb_limits_to_json(&limits);
    assert_int_equal(fb_limits_from_json(json, &limits_back, &error), FB_OK);
    assert_true(limits_back.memory_bytes == limits.memory_bytes);
    assert_true(limits_back.case_timeout_s == limits.case_timeout_s);
    json_decref(json);
}

static void test_ceilings_are_positive_and_round_trip(void **state)
{
    (void)state;
    struct fb_measure_ceilings ceilings, back;
    struct fb_error error;
    assert_int_equal(fb_measure_ceilings(1, FB_ISA_SCALAR, &ceilings, &error), FB_OK);
    assert_true(ceilings.copy_bytes_per_s > 0.0);
    assert_true(ceilings.gemm_flop_per_s > 0.0);
    json_t *json = fb_measure_ceilings_to_json(&ceilings);
    assert_int_equal(fb_measure_ceilings_from_json(json, &back, &error), FB_OK);
    assert_true(back.copy_bytes_per_s == ceilings.copy_bytes_per_s);
    assert_string_equal(back.gemm_core, ceilings.gemm_core);
    json_decref(json);
    assert_int_equal(fb_measure_ceilings(0, FB_ISA_ANY, &ceilings, &error), FB_ERROR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_case_right_answer_gets_scripted_time),
        cmocka_unit_test(test_case_warm_up_counts_the_first_calls),
        cmocka_unit_test(test_case_warm_samples_are_batched),
        cmocka_unit_test(test_case_cold_samples_are_single_calls),
        cmocka_unit_test(test_case_both_layouts_are_right),
        cmocka_unit_test(test_case_nan_is_wrong_and_names_the_place),
        cmocka_unit_test(test_case_unwritten_row_is_wrong),
        cmocka_unit_test(test_case_outside_budget_is_wrong),
        cmocka_unit_test(test_case_unwritten_in_a_sample_is_wrong),
        cmocka_unit_test(test_case_output_that_changes_is_wrong),
        cmocka_unit_test(test_case_output_may_change_if_declared),
        cmocka_unit_test(test_case_failing_mechanism_is_error),
        cmocka_unit_test(test_case_beyond_limit_is_oom),
        cmocka_unit_test(test_case_refused_mapping_is_oom),
        cmocka_unit_test(test_case_peak_counts_touched_scratch),
        cmocka_unit_test(test_case_processes_see_different_inputs),
        cmocka_unit_test(test_case_floor_and_phases_on_the_real_clock),
        cmocka_unit_test(test_case_requests_it_cannot_serve_are_refused),
        cmocka_unit_test(test_written_of_every_dtype_finds_the_element),
        cmocka_unit_test(test_choose_distinct_ascending_with_both_ends),
        cmocka_unit_test(test_result_json_round_trip_keeps_everything),
        cmocka_unit_test(test_result_json_malformed_is_an_input_error),
        cmocka_unit_test(test_settings_and_limits_json_round_trip),
        cmocka_unit_test(test_ceilings_are_positive_and_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
