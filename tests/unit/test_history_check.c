/* From stored runs to series and verdicts; filters; sparklines. */
#include "history_check.h"
#include "made_history.h"
#include "row_filter.h"
#include "series_label.h"
#include "sparkline.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[64];
static struct fb_store store;
static struct fb_arena arena;

static int open_store(void **state)
{
    struct fb_error error;
    (void)state;
    (void)snprintf(path, sizeof path, "/tmp/fb_history_check_%d.sqlite", (int)getpid());
    (void)unlink(path);
    fb_arena_init(&arena, 0);
    return fb_store_open(path, FB_STORE_WRITE, &store, &error) != FB_OK;
}

static int close_store(void **state)
{
    (void)state;
    fb_store_close(&store);
    fb_arena_free(&arena);
    return unlink(path);
}

static void add(const struct fb_history_run *run)
{
    struct fb_error error = {FB_OK, ""};
    bool added;
    if (fb_store_add(&store, run, &added, &error) != FB_OK || !added)
        fail_msg("%s", error.text);
}

/* Runs first .. last - 1, all alike but for a whisper. */
static void add_runs(int first, int last, const char *machine, double time_s)
{
    for (int i = first; i < last; i++) {
        const struct fb_history_run run =
            fb_made_run(i, machine, time_s * (1.0 + 0.002 * (double)(i * 7 % 5 - 2)));
        add(&run);
    }
}

static void read_book(const struct fb_book_request *request, struct fb_series_book *book)
{
    struct fb_error error = {FB_OK, ""};
    if (fb_series_book_read(&store, request, &arena, book, &error) != FB_OK)
        fail_msg("%s", error.text);
}

static void check(struct fb_history_check *result)
{
    const struct fb_book_request request = {.window = 200};
    struct fb_series_book *book = fb_arena_alloc(&arena, 1, sizeof *book, NULL);
    assert_non_null(book);
    read_book(&request, book);
    assert_int_equal(fb_history_check(book, &arena, result, NULL), FB_OK);
}

static const struct fb_history_verdict *verdict_of(const struct fb_history_check *result,
                                                   const char *case_id)
{
    for (size_t i = 0; i < result->count; i++) {
        if (strcmp(result->verdicts[i].series->row.case_id, case_id) == 0)
            return &result->verdicts[i];
    }
    fail_msg("no verdict on %s", case_id);
    return NULL;
}

static void test_book_is_ordered_by_commit_and_split_by_machine(void **state)
{
    struct fb_series_book book;
    struct fb_book_request request = {.window = 0};
    (void)state;
    /* Backfilled: the older commits are measured last. */
    add_runs(5, 10, "m", 1e-3);
    add_runs(0, 5, "m", 1e-3);
    add_runs(0, 3, "other", 1e-3);
    read_book(&request, &book);
    assert_int_equal(book.machines_count, 2);
    assert_int_equal(book.runs_count, 13);
    assert_int_equal(book.series_count, 2 * FB_MADE_CASES);
    for (size_t i = 0; i < book.series_count; i++) {
        const struct fb_book_series *series = book.series[i];
        const bool is_m = strcmp(book.machines[series->machine].identity, "m") == 0;
        assert_int_equal(series->count, is_m ? 10 : 3);
        for (size_t p = 1; p < series->count; p++)
            assert_true(series->points[p].run > series->points[p - 1].run);
    }
    request = (struct fb_book_request){.window = 4, .machine = "m", .case_prefix = "c3"};
    read_book(&request, &book);
    assert_int_equal(book.series_count, 1);
    assert_int_equal(book.series[0]->count, 4);
}

/* Two runs of one commit are one commit; two of changed trees are not. */
static void test_book_tells_commits_apart(void **state)
{
    struct fb_series_book book;
    const struct fb_book_request request = {.window = 0};
    (void)state;
    struct fb_history_run run = fb_made_run(1, "m", 1e-3);
    add(&run);
    for (int i = 0; i < 3; i++) {
        run = fb_made_run(1, "m", 1e-3);
        (void)snprintf(run.from.run, sizeof run.from.run, "again-%d", i);
        for (int c = 0; c < FB_MADE_CASES; c++)
            (void)snprintf(run.rows[c].run, sizeof run.rows[c].run, "%s", run.from.run);
        run.from.git_dirty = i > 0;
        add(&run);
    }
    read_book(&request, &book);
    assert_int_equal(book.runs_count, 4);
    size_t same = 0;
    for (size_t a = 0; a < 4; a++) {
        for (size_t b = a + 1; b < 4; b++)
            same += book.runs[a].commit == book.runs[b].commit;
    }
    assert_int_equal(same, 1);
}

static void test_check_judges_the_newest_commit_not_the_last_added(void **state)
{
    struct fb_history_check result;
    (void)state;
    add_runs(10, 30, "m", 1e-3);
    add_runs(0, 10, "m", 3e-3);
    check(&result);
    assert_int_equal(result.counts[FB_VERDICT_FAIL], 0);
    assert_int_equal(result.counts[FB_VERDICT_FASTER], FB_MADE_CASES);
}

static void test_check_regression_wrong_and_hungry_fail(void **state)
{
    struct fb_history_check result;
    (void)state;
    add_runs(0, 30, "m", 1e-3);
    struct fb_history_run run = fb_made_run(30, "m", 1e-3);
    run.rows[0].time_median_s *= 1.3;
    (void)snprintf(run.rows[1].status, sizeof run.rows[1].status, "wrong");
    run.rows[2].mem_peak_bytes *= 2;
    run.rows[2].time_median_s *= 1.3;
    run.rows[3].err_rel = 1.0;
    run.rows[3].time_median_s *= 0.5;
    add(&run);
    check(&result);
    assert_int_equal(result.counts[FB_VERDICT_FAIL], 4);
    assert_int_equal(result.counts[FB_VERDICT_PASS], 1);
    assert_non_null(strstr(verdict_of(&result, "c0")->reason, "+30.0 %"));
    assert_non_null(strstr(verdict_of(&result, "c1")->reason, "wrong"));
    assert_non_null(strstr(verdict_of(&result, "c2")->reason, "memory: +100.0 %"));
    assert_non_null(strstr(verdict_of(&result, "c2")->reason, "; +30.0 %"));
    assert_non_null(strstr(verdict_of(&result, "c3")->reason, "outside its budget"));
    /* Worst first. */
    assert_int_equal(result.verdicts[4].verdict, FB_VERDICT_PASS);
}

static void test_check_other_machines_count_for_nothing(void **state)
{
    struct fb_history_check result;
    (void)state;
    add_runs(0, 30, "fast", 1e-3);
    add_runs(30, 31, "slow", 9e-3);
    check(&result);
    assert_true(result.first_of_machine);
    assert_int_equal(result.measured, FB_MADE_CASES);
    assert_int_equal(result.counts[FB_VERDICT_INCOMPARABLE], FB_MADE_CASES);
}

static void test_filter_holds_and_refuses(void **state)
{
    (void)state;
    const struct fb_row row = fb_made_run(1, "m", 1e-3).rows[1];
    const struct {
        const char *text;
        bool holds;
    } good[] = {{"seq_len=512", true},       {"seq_len=256|512 , mechanism = flow", true},
                {"seq_len!=256|512", false}, {"seq_len<512", false},
                {"seq_len<=512", true},      {"time_median_s>1e-3,time_median_s<1", true},
                {"heads=8", false},          {"heads!=8", true},
                {"heads>0", false},          {"status!=ok", false}};
    const char *const bad[] = {
        "",          "seq_len",      "=5",       "seq_len=",  "seq=5", "seq_len<=1|2",
        "status<ok", "seq_len=many", "a=1,,b=2", "seq_len=1,"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct fb_row_filter filter;
        assert_int_equal(fb_row_filter_parse(good[i].text, &arena, &filter, NULL), FB_OK);
        if (fb_row_filter_holds(&filter, &row) != good[i].holds)
            fail_msg("%s", good[i].text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fb_row_filter filter;
        struct fb_error error = {FB_OK, ""};
        if (fb_row_filter_parse(bad[i], &arena, &filter, &error) != FB_ERROR_USAGE)
            fail_msg("'%s' was accepted", bad[i]);
        assert_non_null(strstr(error.text, "--filter: "));
    }
}

static void test_sparkline_shapes(void **state)
{
    (void)state;
    char text[FB_SPARKLINE_SIZE];
    const double none = (double)NAN;
    const double rising[8] = {0, 1, 2, 3, 4, 5, 6, 7.1};
    const double gap[3] = {0, none, 1};
    const double flat[4] = {-5, -5, -5, -5};
    double many[200];
    assert_string_equal(fb_sparkline(rising, 8, 40, false, text), "_.-=+*#@");
    assert_string_equal(fb_sparkline(gap, 3, 40, false, text), "_x@");
    /* No change is the middle, a tenth of a percent too. */
    assert_string_equal(fb_sparkline(flat, 4, 40, false, text), "++++");
    assert_string_equal(fb_sparkline(flat, 0, 40, false, text), "");
    assert_string_equal(fb_sparkline(gap, 3, 40, true, text), "\u2581\u00d7\u2588");
    for (int i = 0; i < 200; i++)
        many[i] = i < 100 ? 0.0 : 1.0;
    assert_string_equal(fb_sparkline(many, 200, 10, false, text), "_____@@@@@");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_book_is_ordered_by_commit_and_split_by_machine,
                                        open_store, close_store),
        cmocka_unit_test_setup_teardown(test_book_tells_commits_apart, open_store, close_store),
        cmocka_unit_test_setup_teardown(test_check_judges_the_newest_commit_not_the_last_added,
                                        open_store, close_store),
        cmocka_unit_test_setup_teardown(test_check_regression_wrong_and_hungry_fail, open_store,
                                        close_store),
        cmocka_unit_test_setup_teardown(test_check_other_machines_count_for_nothing, open_store,
                                        close_store),
        cmocka_unit_test_setup_teardown(test_filter_holds_and_refuses, open_store, close_store),
        cmocka_unit_test(test_sparkline_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
