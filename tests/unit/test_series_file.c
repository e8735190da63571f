/* The .ts reader: what it reads, how it fills gaps, what it refuses and in which words. */
#include "series_file.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct fb_arena arena;
static struct fb_error error;

static int set_up(void **state)
{
    (void)state;
    fb_arena_init(&arena, 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fb_arena_free(&arena);
    return 0;
}

static enum fb_status read_bytes(struct fb_series_set *set, const char *text, size_t length,
                                 const struct fb_series_set *classes_of)
{
    char path[] = "/tmp/flowbench-series-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, length), (ssize_t)length);
    close(fd);
    memset(&error, 0, sizeof error);
    const enum fb_status status = fb_series_read(set, path, classes_of, &arena, &error);
    unlink(path);
    return status;
}

static enum fb_status read_text(struct fb_series_set *set, const char *text,
                                const struct fb_series_set *classes_of)
{
    return read_bytes(set, text, strlen(text), classes_of);
}

#define HEADER "#a comment\xff\n@problemName x\n@timeStamps false\n@classLabel true a b\n@data\n"

static void test_series_are_read_with_their_labels(void **state)
{
    (void)state;
    struct fb_series_set set;
    assert_int_equal(read_text(&set, HEADER "1,2,3:4,5,6:b\r\n\n-1e1:2.5:a\n7,8:9,10:b", NULL),
                     FB_OK);
    assert_int_equal(set.count, 3);
    assert_int_equal(set.dimensions, 2);
    assert_int_equal(set.longest, 3);
    assert_int_equal(set.class_count, 2);
    assert_string_equal(set.classes[0], "a");
    assert_int_equal(set.series[0].label, 1);
    assert_int_equal(set.series[1].label, 0);
    assert_int_equal(set.series[1].length, 1);
    const float first[6] = {1, 4, 2, 5, 3, 6};
    assert_memory_equal(set.series[0].values, first, sizeof first);
    assert_true(set.series[1].values[0] == -10.0F && set.series[1].values[1] == 2.5F);
}

static void test_gaps_are_filled_by_straight_lines(void **state)
{
    (void)state;
    struct fb_series_set set;
    assert_int_equal(read_text(&set, HEADER "?,1,?,?,4,?:a\n", NULL), FB_OK);
    const float filled[6] = {1, 1, 2, 3, 4, 4};
    for (int i = 0; i < 6; i++)
        assert_true(fabsf(set.series[0].values[i] - filled[i]) < 1e-6F);
}

static void check_refusal(const char *text, const char *words)
{
    struct fb_series_set set;
    assert_int_equal(read_text(&set, text, NULL), FB_ERROR_INPUT);
    if (!strstr(error.text, words))
        fail_msg("'%s' says '%s', not '%s'", text, error.text, words);
}

static void test_what_is_no_series_file_is_refused_with_its_line(void **state)
{
    (void)state;
    check_refusal("", "ends before '@data'");
    check_refusal("hello\n", ":1: expected a comment");
    check_refusal("@problemName x\n@timeStamps true\n@data\n1:a\n", ":2: series with time stamps");
    check_refusal("@classLabel false\n@data\n1:2\n", "no class labels");
    check_refusal(HEADER, "no series behind");
    check_refusal(HEADER "1,2:x,3:a\n", ":6: a value is no finite number");
    check_refusal(HEADER "1,2:3:a\n", "differ in length");
    check_refusal(HEADER "1,2:3,4:a\n1:a\n", ":7: the series has 1 dimensions, not 2");
    check_refusal("@dimensions 3\n@data\n1:2:a\n", "has 2 dimensions, not 3");
    check_refusal(HEADER "1,2:3,4:a\n5,6:7,8:", "the label is missing");
    check_refusal(HEADER "1,2\n", "needs at least one dimension");
    check_refusal(HEADER "?,?:a\n", "no value at all");
    check_refusal(HEADER "1,:a\n", "no finite number");
    check_refusal(HEADER "1,inf:a\n", "no finite number");
    struct fb_series_set set;
    assert_int_equal(read_bytes(&set, "@data\n\0x", 8, NULL), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "NUL byte"));
    assert_int_equal(fb_series_read(&set, "/nonexistent.ts", NULL, &arena, &error), FB_ERROR_IO);
    assert_int_equal(fb_series_read(&set, "/tmp", NULL, &arena, &error), FB_ERROR_IO);
}

static void test_a_test_split_has_the_training_splits_classes(void **state)
{
    (void)state;
    struct fb_series_set train, test;
    assert_int_equal(read_text(&train, HEADER "1:a\n2:b\n3:c\n", NULL), FB_OK);
    assert_int_equal(read_text(&test, HEADER "1:c\n2:a\n", &train), FB_OK);
    assert_int_equal(test.series[0].label, 2);
    assert_int_equal(test.class_count, 3);
    assert_int_equal(read_text(&test, HEADER "1:c\n2:d\n", &train), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "class 'd', which the training split has not"));
    assert_int_equal(read_text(&test, HEADER "1:2:c\n", &train), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "do not belong together"));
}

static void test_standardising_uses_the_training_split(void **state)
{
    (void)state;
    struct fb_series_set train, test;
    assert_int_equal(read_text(&train, HEADER "1,2:5,5:a\n3:5:b\n", NULL), FB_OK);
    assert_int_equal(read_text(&test, HEADER "4:5:a\n", &train), FB_OK);
    assert_int_equal(fb_series_standardise(&train, &test, &error), FB_OK);
    const float *v = train.series[0].values; /* mean 2, deviation 1; a constant becomes 0 */
    assert_true(fabsf(v[0] + 1.0F) < 1e-6F && fabsf(v[2]) < 1e-6F && v[1] == 0.0F);
    assert_true(fabsf(test.series[0].values[0] - 2.0F) < 1e-6F);
}

static void test_series_are_cut_and_padded(void **state)
{
    (void)state;
    struct fb_series_set set;
    float values[2] = {9, 9};
    int64_t length = 0;
    assert_int_equal(read_text(&set, HEADER "1,2,3:a\n4:b\n", NULL), FB_OK);
    fb_series_fill(&set, 0, 2, values, &length);
    assert_true(values[0] == 1.0F && values[1] == 2.0F && length == 2);
    fb_series_fill(&set, 1, 2, values, &length);
    assert_true(values[0] == 4.0F && values[1] == 0.0F && length == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_series_are_read_with_their_labels),
        cmocka_unit_test(test_gaps_are_filled_by_straight_lines),
        cmocka_unit_test(test_what_is_no_series_file_is_refused_with_its_line),
        cmocka_unit_test(test_a_test_split_has_the_training_splits_classes),
        cmocka_unit_test(test_standardising_uses_the_training_split),
        cmocka_unit_test(test_series_are_cut_and_padded),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
