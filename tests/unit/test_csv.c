/* csv.c: RFC 4180 both ways, shortest numbers, cut records. */
#include "csv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int setup(void **state)
{
    struct fb_arena *arena = malloc(sizeof *arena);

    fb_arena_init(arena, 0);
    *state = arena;
    return 0;
}

static int teardown(void **state)
{
    fb_arena_free(*state);
    free(*state);
    return 0;
}

static void check_line(struct fb_csv_line *line, const char *expected)
{
    assert_false(line->failed);
    assert_int_equal(line->length, strlen(expected));
    assert_memory_equal(line->data, expected, line->length);
    fb_csv_line_free(line);
}

static void test_write_plain_cells_are_not_quoted(void **state)
{
    struct fb_csv_line line;

    (void)state;
    fb_csv_line_init(&line);
    fb_csv_add_text(&line, "flow");
    fb_csv_add_text(&line, "");
    fb_csv_add_int(&line, INT64_C(-9007199254740993));
    fb_csv_add_real(&line, 0.1);
    fb_csv_end_line(&line);
    check_line(&line, "flow,,-9007199254740993,0.1\n");
}

static void test_write_special_cells_are_quoted(void **state)
{
    struct fb_csv_line line;

    (void)state;
    fb_csv_line_init(&line);
    fb_csv_add_text(&line, "{\"a\":1}");
    fb_csv_add_text(&line, "a,b");
    fb_csv_add_text(&line, "two\nlines");
    fb_csv_add_text(&line, "\"");
    fb_csv_end_line(&line);
    check_line(&line, "\"{\"\"a\"\":1}\",\"a,b\",\"two\nlines\",\"\"\"\"\n");
}

static void test_write_nan_is_an_absent_value(void **state)
{
    struct fb_csv_line line;

    (void)state;
    fb_csv_line_init(&line);
    fb_csv_add_real(&line, (double)NAN);
    fb_csv_add_real(&line, 1.5);
    fb_csv_end_line(&line);
    check_line(&line, ",1.5\n");
}

static void test_write_real_reads_back_equal(void **state)
{
    const double values[] = {0.1,     1.0 / 3, DBL_MAX,   DBL_MIN,   5e-324, 0.0,
                             -2.5e-7, 1e22,    123456789, 0.1 + 0.2, 1e-9,   M_PI};

    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct fb_csv_line line;
        fb_csv_line_init(&line);
        fb_csv_add_real(&line, values[i]);
        fb_csv_end_line(&line);
        double back = strtod(line.data, NULL);
        assert_memory_equal(&back, &values[i], sizeof back);
        fb_csv_line_free(&line);
    }
}

static struct fb_csv_record read_one(struct fb_csv_reader *reader, struct fb_arena *arena)
{
    struct fb_csv_record record;
    struct fb_error error;

    assert_int_equal(fb_csv_next(reader, arena, &record, &error), FB_OK);
    return record;
}

static void test_read_quoted_cells_are_unquoted(void **state)
{
    static const char text[] = "a,\"b,\"\"c\"\"\nd\",\r\n,\"\"\n";
    struct fb_csv_reader reader;

    fb_csv_reader_init(&reader, text, sizeof text - 1, "x.csv");
    struct fb_csv_record record = read_one(&reader, *state);
    assert_int_equal(record.cells_count, 3);
    assert_string_equal(record.cells[0], "a");
    assert_string_equal(record.cells[1], "b,\"c\"\nd");
    assert_string_equal(record.cells[2], "");
    assert_int_equal(record.line_number, 1);
    record = read_one(&reader, *state);
    assert_int_equal(record.cells_count, 2);
    assert_int_equal(record.line_number, 3);
    assert_false(record.cut);
    record = read_one(&reader, *state);
    assert_int_equal(record.cells_count, 0);
}

static void test_read_skips_byte_order_mark_and_empty_lines(void **state)
{
    static const char text[] = "\xEF\xBB\xBF\n\nx\n\r\ny\n";
    struct fb_csv_reader reader;

    fb_csv_reader_init(&reader, text, sizeof text - 1, "x.csv");
    assert_string_equal(read_one(&reader, *state).cells[0], "x");
    struct fb_csv_record record = read_one(&reader, *state);
    assert_string_equal(record.cells[0], "y");
    assert_int_equal(record.line_number, 5);
}

static void test_read_every_cut_is_seen_and_whole_lines_end_before_it(void **state)
{
    static const char text[] = "a,b\n\"q\"\"\n,\",2\n3,4\n";
    const size_t line_ends[] = {0, 4, 14, 18};

    for (size_t length = 0; length <= sizeof text - 1; length++) {
        struct fb_csv_reader reader;
        struct fb_csv_record record;
        size_t whole = 0;
        size_t expected = 0;
        for (size_t i = 0; i < sizeof line_ends / sizeof line_ends[0]; i++)
            expected = line_ends[i] <= length ? line_ends[i] : expected;
        fb_csv_reader_init(&reader, text, length, "x.csv");
        for (;;) {
            record = read_one(&reader, *state);
            if (record.cells_count == 0 || record.cut)
                break;
            whole = record.end;
        }
        assert_int_equal(whole, expected);
        assert_int_equal(record.cut, length != expected);
    }
}

static void test_read_stray_quote_is_refused_with_its_line(void **state)
{
    static const char *const texts[] = {"a\nb\"c\n", "a\n\"b\"c\n", "a\nx,y\"\n"};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct fb_csv_reader reader;
        struct fb_csv_record record;
        struct fb_error error;
        fb_csv_reader_init(&reader, texts[i], strlen(texts[i]), "x.csv");
        (void)read_one(&reader, *state);
        assert_int_equal(fb_csv_next(&reader, *state, &record, &error), FB_ERROR_INPUT);
        assert_non_null(strstr(error.text, "x.csv:2:"));
    }
}

static void test_read_nul_byte_is_refused(void **state)
{
    static const char text[] = "a\n\0\0\n";
    struct fb_csv_reader reader;
    struct fb_csv_record record;
    struct fb_error error;

    fb_csv_reader_init(&reader, text, sizeof text - 1, "x.csv");
    (void)read_one(&reader, *state);
    assert_int_equal(fb_csv_next(&reader, *state, &record, &error), FB_ERROR_INPUT);
}

static void test_read_allocation_failure_is_reported(void **state)
{
    static const char text[] = "a,b\n";
    struct fb_csv_reader reader;
    struct fb_csv_record record;
    struct fb_error error;

    for (long successes = 0; successes < 2; successes++) {
        struct fb_arena arena;
        fb_arena_init(&arena, 0);
        fb_arena_fail_after(&arena, successes);
        fb_csv_reader_init(&reader, text, sizeof text - 1, "x.csv");
        assert_int_equal(fb_csv_next(&reader, &arena, &record, &error), FB_ERROR_MEMORY);
        fb_arena_free(&arena);
    }
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_plain_cells_are_not_quoted),
        cmocka_unit_test(test_write_special_cells_are_quoted),
        cmocka_unit_test(test_write_nan_is_an_absent_value),
        cmocka_unit_test(test_write_real_reads_back_equal),
        cmocka_unit_test_setup_teardown(test_read_quoted_cells_are_unquoted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_skips_byte_order_mark_and_empty_lines, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_read_every_cut_is_seen_and_whole_lines_end_before_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_stray_quote_is_refused_with_its_line, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_read_nul_byte_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_allocation_failure_is_reported, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
