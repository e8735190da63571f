/* The text at the end of a run: what it must say, quiet and not. */
#include "report.h"

#include "made_results.h"
#include "quantity.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The report of a run as text; the caller frees it. */
static char *report_text(const struct fb_results *results, const struct fb_suite *suite, bool quiet,
                         struct fb_report_verdict *verdict)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    struct fb_report_options options = {.out = out, .quiet = quiet, .seed = 1};
    struct fb_error error = {FB_OK, ""};
    assert_non_null(out);
    enum fb_status status = fb_report_run(results, suite, &options, verdict, &error);
    (void)fclose(out);
    if (status != FB_OK) {
        fail_msg("%s", error.text);
    }
    return text;
}

static void assert_says(const char *text, const char *part)
{
    if (!strstr(text, part)) {
        fail_msg("\"%s\" is missing in:\n%s", part, text);
    }
}

static void test_report_scaling_run_says_what_the_issue_asks_for(void **state)
{
    (void)state;
    struct fb_results results;
    struct fb_report_verdict verdict;
    fb_made_init(&results, 200, 20000);
    fb_made_scaling(&results, 1);
    char *text = report_text(&results, NULL, false, &verdict);
    assert_says(text, "flow/fused");
    assert_says(text, "1.00 [");
    assert_says(text, "2.00 [");
    assert_says(text, "descriptive");
    assert_says(text, "1.38 (1.38)");
    assert_says(text, "> 16K");
    assert_says(text, "softmax/tiled of the same shape");
    assert_says(text, "3.0e-07");
    assert_says(text, "oom: softmax/plain, N 32K to 64K (4 cases): needs 68.7 GiB");
    assert_null(strchr(text, '\x1b'));
    assert_int_equal(verdict.cases_failed, 0);
    free(text);
    fb_made_free(&results);
}

static void test_report_quiet_says_only_what_failed(void **state)
{
    (void)state;
    struct fb_results results;
    struct fb_report_verdict verdict;
    fb_made_init(&results, 200, 20000);
    fb_made_scaling(&results, 1);
    char *nothing = report_text(&results, NULL, true, &verdict);
    assert_string_equal(nothing, "");
    free(nothing);
    fb_made_missing(&results, "local", "tiled", true, 512, "wrong", "err_rel 3e-2 over 1e-5");
    fb_made_missing(&results, "local", "tiled", true, 1024, "crash", "signal 11");
    char *text = report_text(&results, NULL, true, &verdict);
    assert_says(text, "wrong: local/tiled causal, N 512: err_rel 3e-2 over 1e-5");
    assert_int_equal(verdict.cases_failed, 2);
    free(text);
    fb_made_free(&results);
}

static void test_report_counts_claims_by_verdict(void **state)
{
    (void)state;
    struct fb_results results;
    struct fb_report_verdict verdict;
    struct fb_claim claims[] = {{.mechanism = "flow",
                                 .variant = "fused",
                                 .causal = 0,
                                 .pass = -1,
                                 .metric = FB_METRIC_TIME_EXPONENT,
                                 .value = 1,
                                 .tolerance = 0.1,
                                 .text = "time_exponent is 1.0 +- 0.1"},
                                {.mechanism = "softmax",
                                 .variant = "tiled",
                                 .causal = 0,
                                 .pass = -1,
                                 .metric = FB_METRIC_TIME_EXPONENT,
                                 .value = 1,
                                 .tolerance = 0.1,
                                 .text = "time_exponent is 1.0 +- 0.1"}};
    struct fb_suite suite = {.name = "made", .title = "Made", .claims = claims, .claims_count = 2};
    fb_made_init(&results, 200, 20000);
    fb_made_scaling(&results, 6);
    char *text = report_text(&results, &suite, false, &verdict);
    assert_int_equal(verdict.claims_held, 1);
    assert_int_equal(verdict.claims_failed, 1);
    assert_says(text,
                "failed: softmax/tiled avx512 x2 f32 d 64 forward: time_exponent is 1.0 +- 0.1; "
                "measured 2 [");
    free(text);
    fb_made_free(&results);
}

static void test_report_tells_passes_apart(void **state)
{
    (void)state;
    struct fb_results results;
    struct fb_report_verdict verdict;
    fb_made_init(&results, 20, 0);
    for (int64_t n = 1024; n <= 16384; n *= 2) {
        fb_made_row(&results, "flow", "fused", false, n, 1e-7 * (double)n);
        struct fb_row *both = fb_made_row(&results, "flow", "fused", false, n, 4e-7 * (double)n);
        (void)snprintf(both->pass, sizeof both->pass, "both");
        both->mem_workspace_bytes = 1024;
        both->mem_saved_bytes = 3072;
    }
    char *text = report_text(&results, NULL, false, &verdict);
    assert_says(text, "causal  pass");
    assert_says(text, "no      forward  1.00");
    assert_says(text, "no      both     1.00");
    assert_says(text, "4 KiB"); /* workspace and what is saved */
    free(text);
    fb_made_free(&results);
}

static void test_report_decode_says_constant_and_what_is_expected(void **state)
{
    (void)state;
    struct fb_results results;
    struct fb_report_verdict verdict;
    fb_made_init(&results, 20, 0);
    for (int64_t n = 256; n <= 65536; n *= 4) {
        struct fb_row *flow = fb_made_row(&results, "flow", "fused", true, n, 6e-6);
        struct fb_row *cache = fb_made_row(&results, "softmax", "tiled", true, n, 2e-9 * (double)n);
        (void)snprintf(flow->pass, sizeof flow->pass, "decode");
        (void)snprintf(cache->pass, sizeof cache->pass, "decode");
        flow->mem_state_bytes = 2048;
        cache->mem_state_bytes = 512 * n;
    }
    char *text = report_text(&results, NULL, false, &verdict);
    assert_says(text, "constant: x1.00 in all");
    assert_says(text, "2 KiB");
    assert_says(text, "32 MiB");
    assert_says(text, "expected: constant for a recurrent state, N^1 for softmax's cache");
    free(text);
    fb_made_free(&results);
}

static void test_report_heads_sweep_has_a_column_per_value(void **state)
{
    (void)state;
    struct fb_results results;
    struct fb_report_verdict verdict;
    fb_made_init(&results, 20, 0);
    for (int64_t heads = 1; heads <= 8; heads *= 2) {
        fb_made_row(&results, "flow", "fused", false, 4096, 1e-3 * (double)heads)->heads = heads;
    }
    char *text = report_text(&results, NULL, false, &verdict);
    assert_says(text, "H 8");
    assert_says(text, "8.00 ms");
    assert_says(text, "N 4K");
    free(text);
    fb_made_free(&results);
}

/* suites/heads.yaml: one width cut into different numbers of heads, and a device that is absent. */
static void test_report_tied_heads_and_absent_device_read_well(void **state)
{
    (void)state;
    struct fb_results results;
    struct fb_report_verdict verdict;
    fb_made_init(&results, 20, 0);
    for (int64_t heads = 2; heads <= 64; heads *= 2) {
        struct fb_row *row =
            fb_made_row(&results, "flow", "fused", false, 2048, 1e-3 * (double)heads);
        row->heads = heads;
        row->head_dim = row->value_dim = 512 / heads;
        row = fb_made_missing(&results, "flow", "fused", false, 2048, "skipped", "no cuda device");
        row->heads = heads;
        row->head_dim = row->value_dim = 512 / heads;
        (void)snprintf(row->device, sizeof row->device, "cuda");
        (void)snprintf(row->dtype, sizeof row->dtype, "bf16");
    }
    char *text = report_text(&results, NULL, false, &verdict);
    assert_says(text, "H 8, d 64");
    assert_says(text, "H 2, d 256");
    assert_says(text, "skipped: flow/fused, N 2K (6 cases): no cuda device");
    assert_null(strstr(text, "dtype"));
    free(text);
    fb_made_free(&results);
}

/* Instruction sets and threads are a processor's. */
static void test_report_of_a_gpu_names_no_threads(void **state)
{
    (void)state;
    const char *const devices[] = {"cpu", "cuda"};
    for (size_t d = 0; d < sizeof devices / sizeof devices[0]; d++) {
        struct fb_results results;
        struct fb_report_verdict verdict;
        fb_made_init(&results, 10, 0);
        for (int64_t n = 512; n <= 4096; n *= 2) {
            struct fb_row *row = fb_made_row(&results, "flow", "fused", false, n, 1e-6 * (double)n);
            (void)snprintf(row->device, sizeof row->device, "%s", devices[d]);
            (void)snprintf(row->isa, sizeof row->isa, "any");
        }
        char *text = report_text(&results, NULL, false, &verdict);
        assert_int_equal(d == 0, strstr(text, " thread") != NULL);
        assert_int_equal(d == 0, strstr(text, "any,") != NULL);
        free(text);
        fb_made_free(&results);
    }
}

static void test_report_empty_run_says_so(void **state)
{
    (void)state;
    struct fb_results results = {0};
    struct fb_report_verdict verdict;
    char *text = report_text(&results, NULL, false, &verdict);
    assert_says(text, "no case was finished");
    free(text);
}

static void test_quantity_reads_well(void **state)
{
    (void)state;
    char text[FB_QUANTITY_SIZE];
    assert_string_equal(fb_quantity_time(1.234e-3, text), "1.23 ms");
    assert_string_equal(fb_quantity_time(0.9999, text), "1.00 s");
    assert_string_equal(fb_quantity_time(123.4e-6, text), "123 us");
    assert_string_equal(fb_quantity_time((double)NAN, text), "-");
    assert_string_equal(fb_quantity_bytes(1536, text), "1.5 KiB");
    assert_string_equal(fb_quantity_bytes(0, text), "0 B");
    assert_string_equal(fb_quantity_count(256, text), "256");
    assert_string_equal(fb_quantity_count(65536, text), "64K");
    assert_string_equal(fb_quantity_count(4200, text), "4.1K");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_report_scaling_run_says_what_the_issue_asks_for),
        cmocka_unit_test(test_report_quiet_says_only_what_failed),
        cmocka_unit_test(test_report_counts_claims_by_verdict),
        cmocka_unit_test(test_report_tells_passes_apart),
        cmocka_unit_test(test_report_decode_says_constant_and_what_is_expected),
        cmocka_unit_test(test_report_heads_sweep_has_a_column_per_value),
        cmocka_unit_test(test_report_tied_heads_and_absent_device_read_well),
        cmocka_unit_test(test_report_of_a_gpu_names_no_threads),
        cmocka_unit_test(test_report_empty_run_says_so),
        cmocka_unit_test(test_quantity_reads_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
