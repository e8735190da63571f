/* counter.c: what callgrind writes, how it is started, and what is said where nothing counts. */
#include "counter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DUMP_START                                                                                 \
    "# callgrind format\nversion: 1\ncreator: callgrind-3.19.0\npid: 7\n\npositions: line\n"       \
    "events: Ir\nsummary: 0\n\n\nfn=(0) work\n0 8003\n\n"

static void test_dump_total_and_creator_are_read(void **state)
{
    (void)state;
    struct fb_counted counted;
    assert_true(fb_counter_read_callgrind(DUMP_START "totals: 8018\n\n", &counted));
    assert_int_equal(counted.instructions, 8018);
    assert_string_equal(counted.counter, "callgrind-3.19.0");
    /* The dump at the end of the process follows in the same file, and counts nothing. */
    assert_true(fb_counter_read_callgrind(
        DUMP_START "totals: 9000000000\n\npart: 2\nsummary: 0\n\ntotals: 0\n", &counted));
    assert_true(counted.instructions == INT64_C(9000000000));
}

static void test_dump_that_is_none_is_refused(void **state)
{
    (void)state;
    static const char *const dumps[] = {
        "",
        "totals: 5\n",
        DUMP_START,
        DUMP_START "totals: \n",
        DUMP_START "totals: 0\n",
        DUMP_START "totals: -5\n",
        DUMP_START "totals: 12",
        DUMP_START "totals: 12x\n",
        DUMP_START "totals: 99999999999999999999\n",
    };
    for (size_t i = 0; i < sizeof dumps / sizeof dumps[0]; i++) {
        struct fb_counted counted;
        assert_false(fb_counter_read_callgrind(dumps[i], &counted));
    }
}

static void test_arguments_name_the_file_and_end_with_the_program(void **state)
{
    (void)state;
    const char *arguments[FB_COUNTER_ARGUMENTS_MAX];
    const size_t count = fb_counter_arguments("/bin/program", arguments);
    bool file = false;
    assert_true(count < FB_COUNTER_ARGUMENTS_MAX);
    assert_string_equal(arguments[count - 1], "/bin/program");
    for (size_t i = 0; i < count; i++)
        file = file || strcmp(arguments[i], "--callgrind-out-file=/proc/self/fd/4") == 0;
    assert_true(file);
    assert_int_equal(FB_COUNTER_FD, 4);
}

static void test_valgrind_is_looked_for_in_path(void **state)
{
    (void)state;
    char path[FB_COUNTER_PATH_SIZE];
    char *before = strdup(getenv("PATH"));
    assert_non_null(before);
    assert_int_equal(setenv("PATH", "/nonexistent::/nor/this", 1), 0);
    const bool found = fb_counter_find_valgrind(path);
    struct fb_error error = {.text = ""};
    const enum fb_status status = fb_counter_check(FB_COUNTER_VALGRIND, &error);
    assert_int_equal(setenv("PATH", before, 1), 0);
    free(before);
    assert_false(found);
    assert_int_equal(status, FB_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "install"));
}

static int calls;

static enum fb_status call(void *context, struct fb_error *error)
{
    volatile int *work = context;
    (void)error;
    calls++;
    for (int i = 0; i < 100000; i++)
        *work = *work + 1;
    return FB_OK;
}

/* A worker that valgrind did not start counts nothing, and says so instead of giving a zero. */
static void test_counting_outside_valgrind_is_an_error(void **state)
{
    (void)state;
    int work = 0;
    struct fb_counted counted;
    struct fb_error error = {.text = ""};
    calls = 0;
    assert_int_equal(fb_counter_count(FB_COUNTER_VALGRIND, call, &work, &counted, &error),
                     FB_ERROR_INTERNAL);
    assert_int_equal(calls, 0);
    assert_true(error.text[0] != '\0');
}

/* Where the processor counts, it counts the loop; where it does not, the remedy is named. */
static void test_hardware_counts_or_says_why_not(void **state)
{
    (void)state;
    int work = 0;
    struct fb_counted counted;
    struct fb_error error = {.text = ""};
    const enum fb_status here = fb_counter_check(FB_COUNTER_HARDWARE, &error);
    if (here != FB_OK) {
        assert_int_equal(here, FB_ERROR_UNSUPPORTED);
        assert_non_null(strstr(error.text, "valgrind"));
        return;
    }
    const enum fb_status status =
        fb_counter_count(FB_COUNTER_HARDWARE, call, &work, &counted, &error);
    assert_int_equal(status, FB_OK);
    assert_in_range(counted.instructions, 200000, 5000000);
    assert_string_equal(counted.counter, "perf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dump_total_and_creator_are_read),
        cmocka_unit_test(test_dump_that_is_none_is_refused),
        cmocka_unit_test(test_arguments_name_the_file_and_end_with_the_program),
        cmocka_unit_test(test_valgrind_is_looked_for_in_path),
        cmocka_unit_test(test_counting_outside_valgrind_is_an_error),
        cmocka_unit_test(test_hardware_counts_or_says_why_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
