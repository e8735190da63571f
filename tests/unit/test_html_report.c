/* Whole reports of made runs: every row is there, hostile texts are inert, files are respected. */
#include "html_report.h"

#include "made_results.h"
#include "results_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char dir[64], first[80], second[80], page[80];
    size_t rows; /* of each run */
    struct fb_arena arena;
    struct fb_error error;
};

static void store(struct fixture *fixture, const char *dir, const struct fb_results *results)
{
    struct fb_results_writer writer;
    struct fb_results done;
    assert_int_equal(mkdir(dir, 0777), 0);
    assert_int_equal(fb_results_writer_open(dir, &fixture->arena, &writer, &done, &fixture->error),
                     FB_OK);
    for (size_t i = 0; i < results->rows_count; i++) {
        const struct fb_row *row = &results->rows[i];
        size_t first = 0, count = 0;
        while (first < results->samples_count &&
               strcmp(results->samples[first].case_id, row->case_id) != 0) {
            first++;
        }
        while (first + count < results->samples_count &&
               strcmp(results->samples[first + count].case_id, row->case_id) == 0) {
            count++;
        }
        assert_int_equal(fb_results_writer_append(&writer, row, &results->samples[first], count,
                                                  &fixture->error),
                         FB_OK);
    }
    fb_results_writer_close(&writer);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct fb_results results;
    if (!fixture) {
        return -1;
    }
    (void)snprintf(fixture->dir, sizeof fixture->dir, "/tmp/flowbench-html-XXXXXX");
    if (!mkdtemp(fixture->dir)) {
        free(fixture);
        return -1;
    }
    (void)snprintf(fixture->first, sizeof fixture->first, "%s/one", fixture->dir);
    (void)snprintf(fixture->second, sizeof fixture->second, "%s/two", fixture->dir);
    (void)snprintf(fixture->page, sizeof fixture->page, "%s/one/report.html", fixture->dir);
    fb_arena_init(&fixture->arena, 0);
    fb_made_init(&results, 200, 10000);
    fb_made_scaling(&results, 5);
    (void)fb_made_missing(&results, "flow", "fused", false, 131072, "wrong",
                          "<script>alert('x')</script> \x01 \xff");
    (void)fb_made_missing(&results, "<img src=x onerror=alert(1)>", "\"quoted\"", true, 256,
                          "crash", "killed by signal 11");
    fixture->rows = results.rows_count;
    store(fixture, fixture->first, &results);
    for (size_t i = 0; i < results.rows_count; i++) {
        (void)snprintf(results.rows[i].device_name, sizeof results.rows[i].device_name, "Other");
    }
    store(fixture, fixture->second, &results);
    fb_made_free(&results);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    char command[96];
    (void)snprintf(command, sizeof command, "rm -rf %s", fixture->dir);
    int code = system(command);
    fb_arena_free(&fixture->arena);
    free(fixture);
    return code;
}

static enum fb_status report(struct fixture *fixture, size_t runs, const char *out, bool force)
{
    const char *paths[] = {fixture->first, fixture->second};
    struct fb_html_made made;
    const struct fb_html_request request = {
        .runs = paths, .runs_count = runs, .out_path = out, .force = force, .seed = 1};
    return fb_html_report_write(&request, &fixture->arena, &made, &fixture->error);
}

static char *read_page(const struct fixture *fixture)
{
    FILE *file = fopen(fixture->page, "rb");
    assert_non_null(file);
    char *text = calloc(1, 8 << 20);
    assert_non_null(text);
    assert_true(fread(text, 1, (8 << 20) - 1, file) > 0);
    (void)fclose(file);
    return text;
}

static size_t count_of(const char *text, const char *part)
{
    size_t count = 0;
    for (; (text = strstr(text, part)) != NULL; text += strlen(part)) {
        count++;
    }
    return count;
}

static void put_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void test_report_holds_every_row(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(report(fixture, 1, NULL, false), FB_OK);
    char *page = read_page(fixture);
    const char *cases = strstr(page, "<table id=\"cases\"");
    assert_non_null(cases);
    assert_int_equal(count_of(cases, "<code class=copy>./bench repro "), fixture->rows);
    assert_int_equal(count_of(page, "<section id="), count_of(page, "</section>"));
    assert_int_equal(count_of(page, "<table "), count_of(page, "</table>"));
    assert_int_equal(count_of(page, "<tr>"), count_of(page, "</tr>"));
    /* Failures stand before anything else. */
    assert_non_null(strstr(page, "<b>2</b> wrong or crashed"));
    assert_true(strstr(page, ">wrong</span>") < strstr(page, "time grows as"));
    /* The made exponent and what is beyond the range. */
    assert_non_null(strstr(page, "time grows as <span class=\"power\">N<sup>1.00</sup>"));
    assert_non_null(strstr(page, "needs 68.7 GiB"));
    free(page);
}

static void test_report_hostile_texts_are_inert(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(report(fixture, 1, NULL, false), FB_OK);
    char *page = read_page(fixture);
    assert_int_equal(count_of(page, "<script"), 1);
    assert_null(strstr(page, "<img"));
    assert_null(strstr(page, "src=\""));
    assert_null(strstr(page, "href=\"http"));
    assert_non_null(strstr(page, "&lt;script&gt;alert(&#39;x&#39;)"));
    assert_null(strchr(page, '\x01'));
    assert_null(strchr(page, '\xff'));
    assert_non_null(strstr(page, "default-src 'none'"));
    free(page);
}

static void test_report_same_runs_same_bytes(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(report(fixture, 2, NULL, false), FB_OK);
    char *before = read_page(fixture);
    assert_int_equal(report(fixture, 2, NULL, false), FB_OK);
    char *after = read_page(fixture);
    assert_string_equal(before, after);
    free(before);
    free(after);
}

static void test_report_two_machines_only_ratios(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(report(fixture, 2, NULL, false), FB_OK);
    char *page = read_page(fixture);
    assert_non_null(strstr(page, "2 runs of different machines"));
    assert_non_null(strstr(page, "Seconds of different machines are never set against each"));
    assert_non_null(strstr(page, "\xc3\x97 floor, run 2"));
    assert_null(strstr(page, "time, run 2 / run 1"));
    const char *cases = strstr(page, "<table id=\"cases\"");
    assert_non_null(cases);
    assert_int_equal(count_of(cases, "<td>run 2</td>"), fixture->rows);
    free(page);
}

static void test_report_replaces_only_reports(void **state)
{
    struct fixture *fixture = *state;
    char other[96];
    (void)snprintf(other, sizeof other, "%s/notes.html", fixture->dir);
    put_file(other, "<!DOCTYPE html>\n<p>mine</p>\n");
    assert_int_equal(report(fixture, 1, other, false), FB_ERROR_USAGE);
    assert_non_null(strstr(fixture->error.text, "--force"));
    assert_int_equal(report(fixture, 1, other, true), FB_OK);
    assert_int_equal(report(fixture, 1, other, false), FB_OK);
    assert_int_equal(report(fixture, 1, fixture->dir, true), FB_ERROR_USAGE);
    assert_int_equal(report(fixture, 1, "/nonexistent/report.html", false), FB_ERROR_IO);
    assert_int_equal(access("/nonexistent", F_OK), -1);
}

static void test_report_unreadable_run_is_named(void **state)
{
    struct fixture *fixture = *state;
    char path[96];
    (void)snprintf(path, sizeof path, "%s/run.json", fixture->first);
    put_file(path, "{\"schema\": 1,\n \"run\": \n");
    assert_int_equal(report(fixture, 1, NULL, false), FB_ERROR_INPUT);
    assert_non_null(strstr(fixture->error.text, "one/run.json:3: "));
    put_file(path, "{\"schema\": 99}\n");
    assert_int_equal(report(fixture, 1, NULL, false), FB_ERROR_INPUT);
    put_file(path, "[1, 2]\n");
    assert_int_equal(report(fixture, 1, NULL, false), FB_ERROR_INPUT);
    (void)unlink(path);
    (void)snprintf(path, sizeof path, "%s/results.csv", fixture->first);
    put_file(path, "case_id,mechanism,status\na,flow,ok\nb,flow,nonsense\n");
    assert_int_equal(report(fixture, 1, NULL, false), FB_ERROR_INPUT);
    assert_non_null(strstr(fixture->error.text, "one/results.csv:3: "));
    put_file(path, "case_id,mechanism,status\n");
    assert_int_equal(report(fixture, 1, NULL, false), FB_ERROR_INPUT);
    assert_int_equal(access(fixture->page, F_OK), -1);
    /* The least that is a row. */
    put_file(path, "case_id,mechanism,status\na,flow,ok\n");
    assert_int_equal(report(fixture, 1, NULL, false), FB_OK);
}

static void test_report_odd_json_is_survived(void **state)
{
    struct fixture *fixture = *state;
    char path[96];
    (void)snprintf(path, sizeof path, "%s/run.json", fixture->first);
    put_file(path, "{\"schema\": 1, \"run\": 7, \"machine\": [], \"build\": {\"git_sha\": [1]}, "
                   "\"ceilings\": [3, {\"start\": 1}], \"warnings\": [{}], "
                   "\"machine_warnings\": [1, {\"text\": \"<b>\"}], \"argv\": [null], "
                   "\"started_utc\": \"2026-99-99T99:99:99Z\", \"ended_utc\": {}, "
                   "\"libraries\": {\"a\\u0001<\": \"<i>\"}, \"suite\": 1}\n");
    assert_int_equal(report(fixture, 1, NULL, false), FB_OK);
    char *page = read_page(fixture);
    assert_null(strstr(page, "<i>"));
    free(page);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_report_holds_every_row),       TEST(test_report_hostile_texts_are_inert),
        TEST(test_report_same_runs_same_bytes),  TEST(test_report_two_machines_only_ratios),
        TEST(test_report_replaces_only_reports), TEST(test_report_unreadable_run_is_named),
        TEST(test_report_odd_json_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
