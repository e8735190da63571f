/* runner.c, run_state.c, case_row.c, prediction.c, ceiling_book.c: the loop with scripted workers.
 * This program is its own fake worker: started as `PROGRAM worker`, it answers by the sequence
 * length of its case. */
#define _XOPEN_SOURCE 700
#include "runner.h"

#include "cpu_features.h"
#include "measure.h"
#include "prediction.h"
#include "under_asan.h"
#include "worker_process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- the fake worker ------------------------------------------------------------------------- */

enum {
    LEN_CRASH = 11,
    LEN_HANG = 12,
    LEN_GARBAGE = 13,
    LEN_HALF = 14,
    LEN_OOM = 15,
    LEN_WRONG = 16,
    LEN_ERROR = 17,
    LEN_SILENT = 18,
    LEN_INTERRUPT = 19,
    LEN_LEAK = 20
};

static void say(const char *text)
{
    const size_t length = strlen(text);

    if (write(FB_WORKER_RESULT_FD, text, length) != (ssize_t)length)
        _exit(9);
}

static void say_json(json_t *document)
{
    char *text = json_dumps(document, JSON_COMPACT);

    say(text);
    say("\n");
    free(text);
    json_decref(document);
}

/* One byte per start, so that tests can count them. */
static void log_start(void)
{
    const char *path = getenv("FAKE_LOG");
    int fd = path == NULL ? -1 : open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);

    if (fd >= 0 && write(fd, ".", 1) == 1)
        close(fd);
}

/* Process p takes samples p+1, p+2, p+3 milliseconds and has an error of (p+1)e-7. */
static void say_result(enum fb_measure_status status, int process)
{
    struct fb_measure_result result;
    double samples_s[3];

    fb_measure_result_init(&result);
    for (int i = 0; i < 3; i++)
        samples_s[i] = 1e-3 * (process + 1 + i);
    result.status = status;
    snprintf(result.reason, sizeof result.reason, "%s", status == FB_MEASURE_OK ? "" : "a\nreason");
    result.samples_s = status == FB_MEASURE_OK ? samples_s : NULL;
    result.samples_count = status == FB_MEASURE_OK ? 3 : 0;
    result.calls_per_sample = 2;
    snprintf(result.stop_reason, sizeof result.stop_reason, "precision");
    result.ctx_involuntary = 1;
    result.flop = 4e6;
    result.bytes_min = 1e6;
    result.touch_s = 1e-4 / (process + 1);
    result.touch_bytes = 1e6;
    result.gemm_flop_per_s = 2e9;
    result.mem_peak_bytes = 1000 + process;
    result.err_rel = 1e-7 * (process + 1);
    result.err_max = result.err_rel;
    result.err_budget = 1e-5;
    snprintf(result.output_hash, sizeof result.output_hash, "hash%d", process);
    say_json(json_pack("{s:o}", "result", fb_measure_result_to_json(&result)));
}

/* Grows until its limit refuses, and says so as flowbench's worker does. AddressSanitizer allows no
 * limit: there it gives up at once. */
static void leak(void)
{
    for (int i = 0; i < 65536 && !FB_UNDER_ASAN; i++) {
        volatile char *block = malloc((size_t)16 << 20);
        if (block == NULL)
            break;
        block[0] = 1;
    }
    say("{\"error\": \"out of memory: a leak\", \"code\": \"memory\"}\n");
    _exit(0); /* as flowbench's worker does: exit() may wait for OpenBLAS's threads */
}

static void serve_case(const json_t *task)
{
    const json_t *item = json_object_get(task, "case");
    const json_int_t length = json_integer_value(json_object_get(item, "seq_len"));
    const int process = (int)json_integer_value(json_object_get(task, "process"));
    const struct timespec second = {1, 0};

    log_start();
    switch (length) {
    case LEN_CRASH:
        raise(SIGABRT);
        break;
    case LEN_HANG:
        for (;;)
            nanosleep(&second, NULL);
    case LEN_GARBAGE:
        say("Segmentation fault? No, garbage.\n");
        break;
    case LEN_HALF:
        say("{\"result\": {\"status\": \"ok\", \"samples_s\": [0.0");
        break;
    case LEN_OOM:
        say_result(FB_MEASURE_OOM, process);
        break;
    case LEN_WRONG:
        say_result(FB_MEASURE_WRONG, process);
        break;
    case LEN_ERROR:
        say_result(FB_MEASURE_ERROR, process);
        break;
    case LEN_SILENT:
        break;
    case LEN_LEAK:
        leak();
        break;
    case LEN_INTERRUPT:
        kill(getppid(), SIGTERM);
        say_result(FB_MEASURE_OK, process);
        break;
    default:
        say_result(FB_MEASURE_OK, process);
    }
}

static int fake_worker(void)
{
    json_t *task = json_loadf(stdin, 0, NULL);

    if (strcmp(json_string_value(json_object_get(task, "task")), "ceilings") == 0) {
        struct fb_measure_ceilings found = {.threads = 1,
                                            .gemm_flop_per_s = 1e9,
                                            .gemm_shape = "fake",
                                            .gemm_core = "fake",
                                            .copy_bytes_per_s = 1e10};
        say_json(json_pack("{s:o}", "result", fb_measure_ceilings_to_json(&found)));
    } else {
        serve_case(task);
    }
    json_decref(task);
    return 0;
}

/* ---- a run ----------------------------------------------------------------------------------- */

struct fixture {
    struct fb_arena arena;
    char dir[64], log[80];
    struct fb_suite suite;
    struct fb_plan plan;
    struct fb_ceiling_book book;
    struct fb_interrupts interrupts;
    struct fb_progress progress;
    struct fb_runner_options options;
    struct fb_runner_outcome outcome;
    struct fb_results results; /* as stored after the run */
    int warnings, checkpoints;
};

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    fb_arena_init(&f->arena, 0);
    snprintf(f->dir, sizeof f->dir, "/tmp/fb_runner_XXXXXX");
    *state = f;
    if (mkdtemp(f->dir) == NULL)
        return 1;
    snprintf(f->log, sizeof f->log, "%s/log", f->dir);
    setenv("FAKE_LOG", f->log, 1);
    fb_ceiling_book_init(&f->book, fb_cpu_best_isa());
    fb_progress_init(&f->progress, NULL, FB_COLOR_NEVER, true);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    nftw(f->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    fb_arena_free(&f->arena);
    free(f);
    return 0;
}

static void count_warning(void *context, const char *text)
{
    (void)text;
    ((struct fixture *)context)->warnings++;
}

static enum fb_status count_checkpoint(void *context, struct fb_error *error)
{
    (void)error;
    ((struct fixture *)context)->checkpoints++;
    return FB_OK;
}

/* Plans flow at the given lengths, one thread. */
static void plan(struct fixture *f, const char *lengths, int processes, const char *limits)
{
    struct fb_plan_machine machine;
    struct fb_error error = {FB_OK, ""};
    char *text = fb_arena_printf(&f->arena, &error,
                                 "suite: fake\nkind: kernel\n"
                                 "defaults: {mechanism: flow, batch: 2, heads: 1, head_dim: 8}\n"
                                 "sweep: {seq_len: %s}\n"
                                 "hardware: [{device: cpu, threads: 1}]\n"
                                 "measure: {processes: %d}\nlimits: %s\n",
                                 lengths, processes, limits);

    if (fb_suite_parse(text, strlen(text), "fake.yaml", NULL, &f->arena, &f->suite, &error) !=
        FB_OK)
        fail_msg("%s", error.text);
    fb_plan_machine_here(&machine);
    if (fb_plan_build(&f->suite, NULL, &machine, &f->arena, &f->plan, &error) != FB_OK)
        fail_msg("%s", error.text);
    f->options = (struct fb_runner_options){.run_id = "run-1",
                                            .device_name = "Fake CPU",
                                            .progress = &f->progress,
                                            .interrupts = &f->interrupts,
                                            .book = &f->book,
                                            .warn = count_warning,
                                            .checkpoint = count_checkpoint,
                                            .context = f};
}

static void run(struct fixture *f)
{
    struct fb_results_writer writer;
    struct fb_results done;
    struct fb_error error = {FB_OK, ""};

    if (fb_results_writer_open(f->dir, &f->arena, &writer, &done, &error) != FB_OK)
        fail_msg("%s", error.text);
    assert_int_equal(fb_interrupts_begin(&f->interrupts, &error), FB_OK);
    if (fb_runner_run(&f->suite, &f->plan, &done, &writer, &f->options, &f->outcome, &error) !=
        FB_OK)
        fail_msg("%s", error.text);
    fb_interrupts_end(&f->interrupts);
    fb_results_writer_close(&writer);
    if (fb_results_read(f->dir, &f->arena, &f->results, &error) != FB_OK)
        fail_msg("%s", error.text);
}

static const struct fb_row *row_of(const struct fixture *f, int64_t seq_len)
{
    const struct fb_row *found = NULL;

    for (size_t i = 0; i < f->results.rows_count; i++) {
        if (f->results.rows[i].seq_len != seq_len)
            continue;
        assert_null(found);
        found = &f->results.rows[i];
    }
    assert_non_null(found);
    return found;
}

static long starts(const struct fixture *f)
{
    struct stat info;

    return stat(f->log, &info) == 0 ? (long)info.st_size : 0;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static const char easy_limits[] = "{case_timeout: 20 s, memory: 80 %}";

static void test_run_every_fault_costs_one_row(void **state)
{
    static const struct {
        int seq_len;
        const char *status, *words;
    } expected[] = {
        {8, "ok", ""},
        {LEN_CRASH, "crash", "killed by SIGABRT"},
        {LEN_HANG, "timeout", "not done after 0.5 s"},
        {LEN_GARBAGE, "error", "malformed"},
        {LEN_HALF, "error", "malformed"},
        {LEN_OOM, "oom", "a reason"},
        {LEN_WRONG, "wrong", "a reason"},
        {LEN_ERROR, "error", "a reason"},
        {LEN_SILENT, "error", "without a result"},
        {LEN_LEAK, "oom", "out of memory: a leak"},
        {10, "ok", ""},
    };
    struct fixture *f = *state;

    /* Ascending lengths would let the hang's successors be skipped as hopeless. */
    plan(f, "[8, 10, 11, 13, 14, 15, 16, 17, 18, 20]", 1, "{case_timeout: 20 s, memory: 64 MiB}");
    run(f);
    plan(f, "[12]", 1, "{case_timeout: 500 ms, memory: 80 %}");
    run(f);
    assert_int_equal(f->results.rows_count, sizeof expected / sizeof expected[0]);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const struct fb_row *row = row_of(f, expected[i].seq_len);
        if (strcmp(row->status, expected[i].status) != 0 ||
            strstr(row->reason, expected[i].words) == NULL)
            fail_msg("length %d: %s '%s'", expected[i].seq_len, row->status, row->reason);
        assert_int_equal(isnan(row->time_median_s), strcmp(row->status, "ok") != 0);
        assert_null(strchr(row->reason, '\n'));
    }
    /* Only what has a time has samples. */
    assert_int_equal(f->results.samples_count, 6);
    assert_true(row_of(f, LEN_WRONG)->err_rel == 1e-7);
}

static void test_run_processes_are_merged_into_one_row(void **state)
{
    struct fixture *f = *state;

    plan(f, "[8, 16384]", 4, easy_limits);
    run(f);
    const struct fb_row *row = row_of(f, 8);
    assert_string_equal(row->status, "ok");
    assert_int_equal(row->processes, 4);
    assert_int_equal(row->samples, 12);
    assert_int_equal(row->iterations, 24);
    /* 1 2 3, 2 3 4, 3 4 5, 4 5 6 milliseconds: the middle two are 3 and 4; rank 3 of 12 at 95 %. */
    assert_true(fabs(row->time_median_s - 3.5e-3) < 1e-9);
    assert_true(fabs(row->time_ci_low_s - 2e-3) < 1e-9);
    assert_true(fabs(row->time_ci_high_s - 5e-3) < 1e-9);
    assert_true(row->time_min_s == 1e-3);
    assert_true(fabs(row->err_rel - 4e-7) < 1e-12);
    assert_int_equal(row->mem_peak_bytes, 1003);
    assert_int_equal(row->ctx_involuntary, 4);
    assert_string_equal(row->output_hash, "hash0");
    assert_true(fabs(row->gflop_per_s - 4e6 / 3.5e-3 / 1e9) < 1e-9);
    assert_true(fabs(row->tokens_per_s - 2 * 8 / 3.5e-3) < 1e-6);
    /* The workers' own bursts ran at 2 GFLOP/s, the best touch moved a byte in 25 ps: the flop
     * floor, 4e6 / 2e9, is the larger. */
    assert_true(fabs(row->floor_s - 2e-3) < 1e-12);
    assert_true(fabs(row->floor_ratio - 3.5e-3 / 2e-3) < 1e-9);
    assert_string_equal(row->device_name, "Fake CPU");
    assert_string_equal(row->run, "run-1");
    assert_int_equal(f->results.samples_count, 24);
    assert_int_equal(starts(f), 8);
}

static void test_run_again_repeats_nothing(void **state)
{
    struct fixture *f = *state;

    plan(f, "[8, 9, 10]", 2, easy_limits);
    run(f);
    assert_int_equal(starts(f), 6);
    run(f);
    assert_int_equal(starts(f), 6);
    assert_int_equal(f->outcome.rows_written, 0);
    assert_int_equal(f->results.rows_count, 3);
}

static void test_run_interrupted_finishes_the_row_and_resumes(void **state)
{
    struct fixture *f = *state;

    plan(f, "[8, 9, 10, 19, 21, 22]", 1, easy_limits);
    run(f);
    const size_t before = f->results.rows_count;
    assert_int_equal(f->outcome.signal, SIGTERM);
    assert_int_equal(f->outcome.rows_left, 6 - before);
    assert_string_equal(row_of(f, LEN_INTERRUPT)->status, "ok");
    assert_int_equal(f->results.samples_count, 3 * before);
    const long started = starts(f);
    run(f);
    assert_int_equal(f->outcome.signal, 0);
    assert_int_equal(f->outcome.rows_left, 0);
    assert_int_equal(f->results.rows_count, 6);
    assert_int_equal(starts(f), started + 6 - (long)before);
}

static void test_run_budget_leaves_skipped_rows(void **state)
{
    struct fixture *f = *state;

    plan(f, "[8, 9, 10]", 1, easy_limits);
    f->options.budget_s = 300;
    f->options.budget_used_s = 300;
    run(f);
    assert_int_equal(f->outcome.left_over, 3);
    assert_int_equal(f->outcome.rows_left, 0);
    assert_int_equal(starts(f), 0);
    assert_string_equal(row_of(f, 9)->status, "skipped");
    assert_string_equal(row_of(f, 9)->reason, "left over by --budget 5m00s");
}

static void test_run_more_than_memory_is_oom_without_a_start(void **state)
{
    struct fixture *f = *state;

    plan(f, "[8, 100000]", 1, "{case_timeout: 20 s, memory: 1 MiB}");
    run(f);
    assert_string_equal(row_of(f, 100000)->status, "oom");
    assert_non_null(strstr(row_of(f, 100000)->reason, "the limit is 1.05 MB"));
    assert_string_equal(row_of(f, 8)->status, "ok");
    assert_int_equal(starts(f), 1);
}

static void test_run_longer_than_the_timeout_is_skipped_with_its_prediction(void **state)
{
    struct fixture *f = *state;

    plan(f, "[65536]", 1, "{case_timeout: 1 s, memory: 80 %}");
    struct fb_ceiling *entry = fb_ceiling_book_entry(&f->book, &f->plan.cases[0]);
    fb_ceiling_note_gemm(entry, 1e6);
    fb_ceiling_note_copy(entry, 1e9);
    run(f);
    const struct fb_row *row = row_of(f, 65536);
    assert_string_equal(row->status, "skipped");
    assert_non_null(strstr(row->reason, "s per call, case_timeout is 1 s"));
    assert_int_equal(starts(f), 0);
}

static void test_run_ceilings_are_measured_at_start_and_end(void **state)
{
    struct fixture *f = *state;

    plan(f, "[8, 9]", 1, easy_limits);
    f->options.ceilings = true;
    run(f);
    assert_int_equal(f->book.count, 1);
    assert_true(f->book.entries[0].start.gemm_flop_per_s == 1e9);
    assert_true(f->book.entries[0].end.gemm_flop_per_s == 1e9);
    assert_true(f->book.entries[0].copy_bytes_per_s == 1e10);
    /* The workers' bursts were faster. */
    assert_true(f->book.entries[0].gemm_flop_per_s == 2e9);
    assert_int_equal(f->checkpoints, 2);
    assert_int_equal(f->warnings, 0);
}

static void test_run_workers_that_cannot_start_become_errors(void **state)
{
    struct fixture *f = *state;

    plan(f, "[8]", 1, easy_limits);
    f->options.ceilings = true;
    f->options.worker_program = "/nonexistent/flowbench";
    run(f);
    assert_string_equal(row_of(f, 8)->status, "error");
    assert_non_null(strstr(row_of(f, 8)->reason, "cannot start the worker program"));
    assert_int_equal(f->warnings, 2);
}

static void test_prediction_scales_the_nearest_finished_case(void **state)
{
    struct fixture *f = *state;
    struct fb_prediction_fact facts[3] = {{0}};
    struct fb_prediction prediction;

    plan(f, "[1000, 2000, 8000]", 1, easy_limits);
    fb_predict_case(&f->plan, facts, 2, NULL, &prediction);
    assert_true(isnan(prediction.call_s));
    facts[0] = (struct fb_prediction_fact){.finished = true, .call_s = 1.0};
    fb_predict_case(&f->plan, facts, 2, NULL, &prediction);
    assert_true(fabs(prediction.call_s - 8) < 1e-9);
    facts[1] = (struct fb_prediction_fact){.finished = true, .call_s = 3.0};
    fb_predict_case(&f->plan, facts, 2, NULL, &prediction);
    assert_true(fabs(prediction.call_s - 12) < 1e-9);
    assert_true(prediction.measured);
    /* Two calls are the least that a worker needs. */
    assert_false(fb_prediction_is_too_long(&prediction, 25));
    assert_true(fb_prediction_is_too_long(&prediction, 23));
    assert_false(fb_prediction_is_too_long(&prediction, 0));
    assert_false(prediction.hopeless);
    facts[1] = (struct fb_prediction_fact){.timed_out = true};
    fb_predict_case(&f->plan, facts, 2, NULL, &prediction);
    assert_true(prediction.hopeless);
    fb_predict_case(&f->plan, facts, 0, NULL, &prediction);
    assert_false(prediction.hopeless);
}

static void test_ceiling_book_json_keeps_the_best(void **state)
{
    struct fixture *f = *state;
    struct fb_ceiling_book back;

    plan(f, "[8]", 1, easy_limits);
    fb_ceiling_note_gemm(fb_ceiling_book_entry(&f->book, &f->plan.cases[0]), 5e9);
    json_t *json = fb_ceiling_book_to_json(&f->book);
    fb_ceiling_book_init(&back, f->book.best_isa);
    fb_ceiling_book_from_json(json, &back);
    json_decref(json);
    assert_int_equal(back.count, 1);
    struct fb_ceiling *entry = fb_ceiling_book_entry(&back, &f->plan.cases[0]);
    assert_ptr_equal(entry, &back.entries[0]);
    assert_true(entry->gemm_flop_per_s == 5e9);
    assert_true(isnan(entry->copy_bytes_per_s));
    fb_ceiling_note_gemm(entry, 4e9);
    fb_ceiling_note_gemm(entry, (double)NAN);
    assert_true(entry->gemm_flop_per_s == 5e9);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(test_run_every_fault_costs_one_row),
        TEST(test_run_processes_are_merged_into_one_row),
        TEST(test_run_again_repeats_nothing),
        TEST(test_run_interrupted_finishes_the_row_and_resumes),
        TEST(test_run_budget_leaves_skipped_rows),
        TEST(test_run_more_than_memory_is_oom_without_a_start),
        TEST(test_run_longer_than_the_timeout_is_skipped_with_its_prediction),
        TEST(test_run_ceilings_are_measured_at_start_and_end),
        TEST(test_run_workers_that_cannot_start_become_errors),
        TEST(test_prediction_scales_the_nearest_finished_case),
        TEST(test_ceiling_book_json_keeps_the_best),
    };

    if (argc > 1 && strcmp(argv[1], "worker") == 0)
        return fake_worker();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
