/* Every allocation fails in turn: whoever reads, plans or reports says so and leaves nothing
 * behind. The allocators of our own objects are replaced by the linker (--wrap in
 * tests/CMakeLists.txt); jansson is told to use them, too. Suites have the same test in
 * test_suite.c. */
#define _XOPEN_SOURCE 700
#include "made_results.h"
#include "measure.h"
#include "plan.h"
#include "report.h"
#include "results.h"
#include "run_json.h"
#include "safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- allocators that fail -------------------------------------------------------------------- */

/* The linker's --wrap prescribes these names. NOLINTBEGIN(bugprone-reserved-identifier) */
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void __real_fb_arena_init(struct fb_arena *arena, size_t limit_bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void __wrap_fb_arena_init(struct fb_arena *arena, size_t limit_bytes);

/* Allocations that still succeed, of the heap and of every arena made meanwhile; < 0: all. */
static long heap_left = -1, arena_left = -1;

static int heap_fails(void)
{
    if (heap_left > 0)
        heap_left--;
    else if (heap_left == 0)
        return 1;
    return 0;
}

void *__wrap_malloc(size_t bytes)
{
    return heap_fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return heap_fails() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    return heap_fails() ? NULL : __real_realloc(old, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return heap_fails() ? NULL : __real_aligned_alloc(alignment, bytes);
}

void __wrap_fb_arena_init(struct fb_arena *arena, size_t limit_bytes)
{
    __real_fb_arena_init(arena, limit_bytes);
    if (arena_left >= 0)
        fb_arena_fail_after(arena, arena_left);
}
/* NOLINTEND(bugprone-reserved-identifier) */

/* ---- what is tried --------------------------------------------------------------------------- */

static char folder[] = "/tmp/fb_allocation_XXXXXX";

static struct {
    struct fb_arena arena; /* of the suite */
    struct fb_suite suite;
    struct fb_results results;
    FILE *nowhere;
    json_t *case_json, *result_json;
} made;

static enum fb_status try_plan(struct fb_error *error)
{
    struct fb_plan_machine machine;
    struct fb_arena arena;
    struct fb_plan plan;
    fb_plan_machine_here(&machine);
    fb_arena_init(&arena, 0);
    const enum fb_status status =
        fb_plan_build(&made.suite, "seq_len<=64", &machine, &arena, &plan, error);
    fb_arena_free(&arena);
    return status;
}

static enum fb_status try_results(struct fb_error *error)
{
    struct fb_arena arena;
    struct fb_results results;
    fb_arena_init(&arena, 0);
    const enum fb_status status = fb_results_read(folder, &arena, &results, error);
    fb_arena_free(&arena);
    return status;
}

static enum fb_status try_safetensors(struct fb_error *error)
{
    struct fb_safetensors file;
    struct fb_arena arena;
    float *f32 = NULL;
    double *f64 = NULL;
    enum fb_status status =
        fb_safetensors_open(&file, "tests/golden/golden-flow-2.safetensors", error);
    if (status != FB_OK)
        return status;
    fb_arena_init(&arena, 0);
    status = fb_safetensors_read_f32(&file, "q", &arena, &f32, NULL, error);
    if (status == FB_OK)
        status = fb_safetensors_read_f64(&file, "q", &arena, &f64, NULL, error);
    fb_arena_free(&arena);
    fb_safetensors_close(&file);
    return status;
}

static enum fb_status try_report(struct fb_error *error)
{
    struct fb_report_verdict verdict;
    const struct fb_report_options options = {.out = made.nowhere, .messages = made.nowhere};
    return fb_report_run(&made.results, &made.suite, &options, &verdict, error);
}

/* With the pictures' data; gnuplot itself is not found, which only costs the pictures. */
static enum fb_status try_plots(struct fb_error *error)
{
    struct fb_report_verdict verdict;
    char dir[64];
    (void)snprintf(dir, sizeof dir, "%s/plots", folder);
    const struct fb_report_options options = {.make_plots = true, .plots_dir = dir};
    const enum fb_status status = fb_report_run(&made.results, NULL, &options, &verdict, error);
    assert_true(status != FB_OK || verdict.plots_skipped);
    return status;
}

static enum fb_status try_case_json(struct fb_error *error)
{
    struct fb_arena arena;
    struct fb_case item;
    fb_arena_init(&arena, 0);
    enum fb_status status = fb_case_from_json(made.case_json, &arena, &item, error);
    if (status == FB_OK) {
        json_t *json = fb_case_to_json(&item);
        if (json == NULL)
            status = fb_error_set(error, FB_ERROR_MEMORY, "no memory for a case in JSON");
        json_decref(json);
    }
    fb_arena_free(&arena);
    return status;
}

static enum fb_status try_result_json(struct fb_error *error)
{
    struct fb_measure_result result;
    enum fb_status status = fb_measure_result_from_json(made.result_json, &result, error);
    if (status == FB_OK) {
        json_t *json = fb_measure_result_to_json(&result);
        if (json == NULL)
            status = fb_error_set(error, FB_ERROR_MEMORY, "no memory for a result in JSON");
        json_decref(json);
    }
    fb_measure_result_free(&result);
    return status;
}

static enum fb_status try_run_json(struct fb_error *error)
{
    struct fb_arena arena;
    struct fb_run_resume resume;
    json_t *document = NULL;
    fb_arena_init(&arena, 0);
    enum fb_status status = fb_run_json_read(folder, &arena, &document, &resume, error);
    if (status == FB_OK)
        status = fb_run_json_set_state(document, "running", error);
    if (status == FB_OK)
        status = fb_run_json_warn(document, "a warning", error);
    json_decref(document);
    fb_arena_free(&arena);
    return status;
}

/* ---- tests ----------------------------------------------------------------------------------- */

/* How many allocations fail before the attempt succeeds: each failure is one in words. jansson does
 * not tell a document that it has no memory for from one that is malformed. */
static long count_failures(enum fb_status (*attempt)(struct fb_error *error), long *left,
                           enum fb_status also_allowed)
{
    for (long successes = 0; successes < 100000; successes++) {
        struct fb_error error = {FB_OK, ""};
        *left = successes;
        const enum fb_status status = attempt(&error);
        *left = -1;
        if (status == FB_OK)
            return successes;
        if (status != FB_ERROR_MEMORY && status != also_allowed)
            fail_msg("after %ld allocations: %s '%s'", successes, fb_status_name(status),
                     error.text);
        assert_int_equal(error.code, status);
        assert_true(error.text[0] != '\0');
    }
    fail_msg("it never succeeds");
    return 0;
}

static void check(enum fb_status (*attempt)(struct fb_error *error), long arena_min, long heap_min,
                  enum fb_status also_allowed)
{
    const long of_arena = count_failures(attempt, &arena_left, also_allowed);
    const long of_heap = count_failures(attempt, &heap_left, also_allowed);
    print_message("%ld allocations of arenas, %ld of the heap\n", of_arena, of_heap);
    assert_true(of_arena >= arena_min);
    assert_true(of_heap >= heap_min);
}

static void test_allocation_plan_failures_are_reported(void **state)
{
    (void)state;
    check(try_plan, 3, 2, FB_ERROR_MEMORY);
}

static void test_allocation_results_failures_are_reported(void **state)
{
    (void)state;
    check(try_results, 20, 4, FB_ERROR_MEMORY);
}

static void test_allocation_safetensors_failures_are_reported(void **state)
{
    (void)state;
    check(try_safetensors, 5, 10, FB_ERROR_INPUT);
}

static void test_allocation_report_failures_are_reported(void **state)
{
    (void)state;
    check(try_report, 50, 2, FB_ERROR_MEMORY);
}

static void test_allocation_plots_failures_are_reported(void **state)
{
    (void)state;
    check(try_plots, 80, 2, FB_ERROR_MEMORY);
}

static void test_allocation_case_json_failures_are_reported(void **state)
{
    (void)state;
    check(try_case_json, 1, 10, FB_ERROR_MEMORY);
}

static void test_allocation_result_json_failures_are_reported(void **state)
{
    (void)state;
    check(try_result_json, 0, 10, FB_ERROR_MEMORY);
}

static void test_allocation_run_json_failures_are_reported(void **state)
{
    (void)state;
    check(try_run_json, 10, 20, FB_ERROR_INPUT);
}

/* ---- made once ------------------------------------------------------------------------------- */

static void write_file(const char *name, const char *text)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void make_suite(void)
{
    static const char text[] =
        "suite: allocation\n"
        "sweep: {mechanism: [flow, softmax], seq_len: {from: 16, to: 128, times: 2}}\n"
        "hardware: [{threads: 1}]\n"
        "expect: [{mechanism: flow, metric: time_exponent, is: 1.0 +- 0.5},\n"
        "         {mechanism: flow, metric: crossover, at_most: 900}]\n";
    struct fb_error error;
    fb_arena_init(&made.arena, 0);
    if (fb_suite_parse(text, strlen(text), "t.yaml", NULL, &made.arena, &made.suite, &error) !=
        FB_OK)
        fail_msg("%s", error.text);
}

/* Linear flow overtakes quadratic softmax: all that the closing table can say. */
static void make_results(void)
{
    enum { PROCESSES = 5, SAMPLES = 2, SIZES = 4 };
    fb_made_init(&made.results, 2 * SIZES + 1, (size_t)2 * SIZES * PROCESSES * SAMPLES);
    for (int i = 0; i < SIZES; i++) {
        const int64_t n = 256 << i;
        const double x = (double)n;
        fb_made_samples(&made.results,
                        fb_made_row(&made.results, "flow", "fused", false, n, 1e-6 * x), PROCESSES,
                        SAMPLES, 0.01);
        fb_made_samples(&made.results,
                        fb_made_row(&made.results, "softmax", "tiled", false, n, 1e-9 * x * x),
                        PROCESSES, SAMPLES, 0.01);
    }
    (void)fb_made_missing(&made.results, "flow", "fused", false, 4096, "crash", "killed");
}

static void make_json(void)
{
    struct fb_plan_machine machine;
    struct fb_plan plan;
    struct fb_measure_result result;
    struct fb_error error;
    double samples_s[] = {1e-3, 2e-3};
    fb_plan_machine_here(&machine);
    if (fb_plan_build(&made.suite, NULL, &machine, &made.arena, &plan, &error) != FB_OK)
        fail_msg("%s", error.text);
    made.case_json = fb_case_to_json(&plan.cases[0]);
    fb_measure_result_init(&result);
    result.samples_s = samples_s;
    result.samples_count = 2;
    made.result_json = fb_measure_result_to_json(&result);
    assert_non_null(made.case_json);
    assert_non_null(made.result_json);
}

static int setup(void **state)
{
    (void)state;
    json_set_alloc_funcs(__wrap_malloc, free);
    assert_non_null(mkdtemp(folder));
    assert_int_equal(setenv("PATH", "/nonexistent", 1), 0);
    write_file("results.csv", "case_id,mechanism,status,reason\n"
                              "1,flow,ok,\n2,softmax,crash,\"killed, \"\"why\"\"\"\n");
    write_file("samples.csv", "case_id,process,sample,time_s\n1,0,0,1e-3\n1,0,1,2e-3\n");
    write_file(
        "run.json",
        "{\"schema\": 1, \"run\": \"r\", \"state\": \"running\", \"suite\": {\"name\": "
        "\"s\", \"resolved\": \"suite: s\", \"path\": \"s.yaml\", \"filter\": null, "
        "\"cases\": 1}, \"machine\": {\"identity\": \"0\", \"name\": \"m\", \"cpu\": "
        "{\"isa_best\": \"scalar\", \"threads_usable\": 1}}, \"build\": {\"flowbench\": "
        "\"0\", \"git_sha\": \"0\"}, \"warnings\": [], \"ceilings\": [], \"resumed\": []}\n");
    make_suite();
    make_results();
    make_json();
    made.nowhere = fopen("/dev/null", "w");
    return made.nowhere == NULL;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    json_decref(made.case_json);
    json_decref(made.result_json);
    fb_made_free(&made.results);
    fb_arena_free(&made.arena);
    (void)fclose(made.nowhere);
    return nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocation_plan_failures_are_reported),
        cmocka_unit_test(test_allocation_results_failures_are_reported),
        cmocka_unit_test(test_allocation_safetensors_failures_are_reported),
        cmocka_unit_test(test_allocation_report_failures_are_reported),
        cmocka_unit_test(test_allocation_plots_failures_are_reported),
        cmocka_unit_test(test_allocation_case_json_failures_are_reported),
        cmocka_unit_test(test_allocation_result_json_failures_are_reported),
        cmocka_unit_test(test_allocation_run_json_failures_are_reported),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
