/* progress.c: what is shown where it is not a terminal, and figures for people. */
#include "progress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void make_row(struct fb_row *row, const char *status, const char *reason)
{
    fb_row_init(row);
    snprintf(row->status, sizeof row->status, "%s", status);
    snprintf(row->reason, sizeof row->reason, "%s", reason);
    if (strcmp(status, "ok") == 0)
        row->time_median_s = 7.21e-3;
}

/* Three cases in a file instead of a terminal; returns what stands in it. */
static const char *show(enum fb_color color, bool quiet, char *text, size_t text_size)
{
    struct fb_progress progress;
    struct fb_row row;
    FILE *file = tmpfile();

    assert_non_null(file);
    fb_progress_init(&progress, file, color, quiet);
    fb_progress_start(&progress, 12, 0);
    fb_progress_case(&progress, "flow N8", 30);
    make_row(&row, "ok", "");
    fb_progress_row(&progress, &row, "flow N8", 75);
    make_row(&row, "timeout", "not done after 2 s");
    fb_progress_row(&progress, &row, "softmax N9", (double)NAN);
    make_row(&row, "crash", "killed by SIGSEGV");
    fb_progress_row(&progress, &row, "linear N9", 3);
    fb_progress_skipped(&progress, 9, "no backward pass");
    fb_progress_end(&progress);
    rewind(file);
    text[fread(text, 1, text_size - 1, file)] = '\0';
    fclose(file);
    return text;
}

static void test_progress_elsewhere_is_one_plain_line_per_case(void **state)
{
    char text[2048];

    (void)state;
    assert_string_equal(show(FB_COLOR_AUTO, false, text, sizeof text),
                        "[ 1/12] flow N8  7.21 ms  (1m15s left)\n"
                        "[ 2/12] softmax N9  timeout: not done after 2 s\n"
                        "[ 3/12] linear N9  crash: killed by SIGSEGV  (3s left)\n"
                        "[12/12] 9 cases skipped: no backward pass\n");
}

static void test_progress_quiet_shows_only_failures(void **state)
{
    char text[2048];

    (void)state;
    assert_string_equal(show(FB_COLOR_AUTO, true, text, sizeof text),
                        "[ 3/12] linear N9  crash: killed by SIGSEGV  (3s left)\n");
}

static void test_progress_color_always_marks_what_is_not_ok(void **state)
{
    char text[2048];

    (void)state;
    show(FB_COLOR_ALWAYS, false, text, sizeof text);
    assert_non_null(strstr(text, "\033[33mtimeout\033[0m"));
    assert_non_null(strstr(text, "\033[31mcrash\033[0m"));
    assert_null(strstr(text, "\033[0m ms"));
}

static void test_color_follows_choice_and_no_color(void **state)
{
    FILE *file = tmpfile();

    (void)state;
    assert_non_null(file);
    assert_true(fb_color_wanted(FB_COLOR_ALWAYS, file));
    assert_false(fb_color_wanted(FB_COLOR_AUTO, file));
    setenv("NO_COLOR", "1", 1);
    assert_true(fb_color_wanted(FB_COLOR_ALWAYS, file));
    assert_false(fb_color_wanted(FB_COLOR_NEVER, file));
    fclose(file);
}

static void test_human_figures_read_well(void **state)
{
    char text[32];

    (void)state;
    assert_string_equal(fb_human_time(1.5e-6, text, sizeof text), "1.5 us");
    assert_string_equal(fb_human_time(2.5, text, sizeof text), "2.5 s");
    assert_string_equal(fb_human_time((double)NAN, text, sizeof text), "-");
    assert_string_equal(fb_human_duration(59.2, text, sizeof text), "60s");
    assert_string_equal(fb_human_duration(300, text, sizeof text), "5m00s");
    assert_string_equal(fb_human_duration(3661, text, sizeof text), "1h01m");
    assert_string_equal(fb_human_bytes(999, text, sizeof text), "999 B");
    assert_string_equal(fb_human_bytes(1.5e9, text, sizeof text), "1.5 GB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_progress_elsewhere_is_one_plain_line_per_case),
        cmocka_unit_test(test_progress_quiet_shows_only_failures),
        cmocka_unit_test(test_progress_color_always_marks_what_is_not_ok),
        cmocka_unit_test(test_color_follows_choice_and_no_color),
        cmocka_unit_test(test_human_figures_read_well),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
