/* results_writer.c, results_read.c, run_folder.c: rows survive, cuts are repaired, folders lock. */
/* nftw is X/Open. */
#define _XOPEN_SOURCE 700
#include "results_writer.h"

#include "run_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct fixture {
    struct fb_arena arena;
    char dir[64];
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
    snprintf(f->dir, sizeof f->dir, "/tmp/fb_results_XXXXXX");
    *state = f;
    return mkdtemp(f->dir) == NULL;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    nftw(f->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    fb_arena_free(&f->arena);
    free(f);
    return 0;
}

static void make_row(struct fb_row *row, int number)
{
    fb_row_init(row);
    row->schema = FB_RESULTS_SCHEMA;
    snprintf(row->case_id, sizeof row->case_id, "%016d", number);
    snprintf(row->mechanism, sizeof row->mechanism, "flow");
    snprintf(row->status, sizeof row->status, "ok");
    snprintf(row->params, sizeof row->params, "{\"features\":%d}", number);
    snprintf(row->reason, sizeof row->reason, "a \"reason\", with comma");
    row->seq_len = 1 << number;
    row->time_median_s = 1.0 / (number + 3);
}

static void append_case(struct fb_results_writer *writer, int number, size_t samples_count)
{
    struct fb_row row;
    struct fb_sample samples[8] = {0};
    struct fb_error error;

    make_row(&row, number);
    for (size_t i = 0; i < samples_count; i++) {
        memcpy(samples[i].case_id, row.case_id, sizeof row.case_id);
        samples[i].sample = (int)i;
        samples[i].time_s = 0.001 * (double)(i + 1);
    }
    assert_int_equal(fb_results_writer_append(writer, &row, samples, samples_count, &error), FB_OK);
}

static void open_writer(struct fixture *f, struct fb_results_writer *writer,
                        struct fb_results *done)
{
    struct fb_error error = {FB_OK, ""};

    if (fb_results_writer_open(f->dir, &f->arena, writer, done, &error) != FB_OK)
        fail_msg("%s", error.text);
}

static char *slurp(struct fixture *f, const char *name, size_t *length)
{
    char path[128];
    char *text = NULL;

    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    text = fb_arena_alloc(&f->arena, 1 << 20, 1, NULL);
    *length = fread(text, 1, 1 << 20, file);
    fclose(file);
    return text;
}

static void spill(struct fixture *f, const char *name, const char *text, size_t length)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, length, file), length);
    fclose(file);
}

static void test_rows_written_read_back_equal(void **state)
{
    struct fixture *f = *state;
    struct fb_results_writer writer;
    struct fb_results results;
    struct fb_error error;
    struct fb_row expected;

    open_writer(f, &writer, &results);
    assert_int_equal(results.rows_count, 0);
    append_case(&writer, 1, 3);
    append_case(&writer, 2, 0);
    fb_results_writer_close(&writer);
    assert_int_equal(fb_results_read(f->dir, &f->arena, &results, &error), FB_OK);
    assert_int_equal(results.rows_count, 2);
    assert_int_equal(results.samples_count, 3);
    assert_string_equal(results.dir, f->dir);
    make_row(&expected, 1);
    const struct fb_row *row = &results.rows[0];
    assert_string_equal(row->case_id, expected.case_id);
    assert_string_equal(row->params, expected.params);
    assert_string_equal(row->reason, expected.reason);
    assert_int_equal(row->seq_len, 2);
    assert_true(row->time_median_s == 0.25);
    assert_true(isnan(row->energy_j));
    assert_true(row->kv_len == FB_ROW_NONE);
    assert_int_equal(results.samples[2].sample, 2);
    assert_true(results.samples[2].time_s == 0.003);
}

static void test_reopen_keeps_earlier_bytes(void **state)
{
    struct fixture *f = *state;
    struct fb_results_writer writer;
    struct fb_results done;
    size_t before_length;
    size_t after_length;

    open_writer(f, &writer, &done);
    append_case(&writer, 1, 2);
    fb_results_writer_close(&writer);
    const char *before = slurp(f, "results.csv", &before_length);
    open_writer(f, &writer, &done);
    assert_int_equal(done.rows_count, 1);
    append_case(&writer, 2, 2);
    fb_results_writer_close(&writer);
    const char *after = slurp(f, "results.csv", &after_length);
    assert_true(after_length > before_length);
    assert_memory_equal(after, before, before_length);
}

/* Killed after any number of bytes: what was whole stays, the rest goes, appending goes on. */
static void test_cut_anywhere_is_repaired(void **state)
{
    struct fixture *f = *state;
    struct fb_results_writer writer;
    struct fb_results done;
    size_t length;
    size_t whole[3]; /* the file's length with so many rows */

    open_writer(f, &writer, &done);
    (void)slurp(f, "results.csv", &whole[0]);
    append_case(&writer, 1, 2);
    (void)slurp(f, "results.csv", &whole[1]);
    append_case(&writer, 2, 2);
    (void)slurp(f, "results.csv", &whole[2]);
    fb_results_writer_close(&writer);
    const char *text = slurp(f, "results.csv", &length);
    for (size_t cut = 0; cut <= length; cut += cut % 7 + 1) {
        size_t rest;
        spill(f, "results.csv", text, cut);
        open_writer(f, &writer, &done);
        assert_int_equal(done.rows_count, cut >= whole[2] ? 2 : cut >= whole[1] ? 1 : 0);
        assert_int_equal(done.samples_count, 2 * done.rows_count);
        const size_t rows = done.rows_count;
        append_case(&writer, 9, 1);
        fb_results_writer_close(&writer);
        const char *repaired = slurp(f, "results.csv", &rest);
        assert_true(rest > whole[rows]);
        assert_memory_equal(repaired, text, whole[rows]);
        open_writer(f, &writer, &done);
        assert_int_equal(done.rows_count, rows + 1);
        assert_int_equal(done.samples_count, 2 * rows + 1);
        fb_results_writer_close(&writer);
        /* The samples of the next round. */
        spill(f, "samples.csv",
              "case_id,process,sample,time_s\n0000000000000001,0,0,1\n0000000000000001,0,1,1\n"
              "0000000000000002,0,0,1\n0000000000000002,0,1,1\n",
              strlen("case_id,process,sample,time_s\n") + 4 * strlen("0000000000000001,0,0,1\n"));
    }
}

static void test_samples_without_a_row_are_dropped(void **state)
{
    struct fixture *f = *state;
    struct fb_results_writer writer;
    struct fb_results done;
    size_t before_length;
    size_t after_length;

    open_writer(f, &writer, &done);
    append_case(&writer, 1, 2);
    fb_results_writer_close(&writer);
    char *text = slurp(f, "samples.csv", &before_length);
    memcpy(text + before_length, "0000000000000002,0,0,1.5\n0000000000000002,0,1", 45);
    spill(f, "samples.csv", text, before_length + 45);
    open_writer(f, &writer, &done);
    fb_results_writer_close(&writer);
    (void)slurp(f, "samples.csv", &after_length);
    assert_int_equal(after_length, before_length);
    assert_int_equal(done.samples_count, 2);
}

static void test_other_columns_are_refused(void **state)
{
    struct fixture *f = *state;
    struct fb_results_writer writer;
    struct fb_results done;
    struct fb_error error;

    spill(f, "results.csv", "case_id,mechanism,status\n", 25);
    assert_int_equal(fb_results_writer_open(f->dir, &f->arena, &writer, &done, &error),
                     FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "results.csv:1:"));
}

static void test_quote_that_never_closes_is_damage_not_a_cut(void **state)
{
    struct fixture *f = *state;
    struct fb_results_writer writer;
    struct fb_results done;
    struct fb_error error;
    size_t length;
    size_t length_after;

    open_writer(f, &writer, &done);
    for (int i = 1; i <= 3; i++)
        append_case(&writer, i, 1);
    fb_results_writer_close(&writer);
    char *text = slurp(f, "results.csv", &length);
    *strchr(strchr(text, '\n') + 1, ',') = '"';
    strchr(text, '\n')[1] = '"';
    spill(f, "results.csv", text, length);
    assert_int_equal(fb_results_writer_open(f->dir, &f->arena, &writer, &done, &error),
                     FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "results.csv:2:"));
    (void)slurp(f, "results.csv", &length_after);
    assert_int_equal(length_after, length);
}

/* A file-size limit stands in for a full disk: the write is refused half way through a line. */
static void test_append_disk_full_leaves_whole_lines(void **state)
{
    struct fixture *f = *state;
    struct fb_results_writer writer;
    struct fb_results done;
    struct fb_row row;
    struct fb_error error;
    struct rlimit before;
    size_t length_before;
    size_t length_after;

    open_writer(f, &writer, &done);
    append_case(&writer, 1, 2);
    const char *text_before = slurp(f, "results.csv", &length_before);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    const struct rlimit tight = {length_before + 20, before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    make_row(&row, 2);
    enum fb_status status = fb_results_writer_append(&writer, &row, NULL, 0, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(status, FB_ERROR_IO);
    assert_non_null(strstr(error.text, "--resume"));
    const char *text_after = slurp(f, "results.csv", &length_after);
    assert_int_equal(length_after, length_before);
    assert_memory_equal(text_after, text_before, length_before);
    append_case(&writer, 2, 2);
    fb_results_writer_close(&writer);
    open_writer(f, &writer, &done);
    assert_int_equal(done.rows_count, 2);
    fb_results_writer_close(&writer);
}

static void check_refused(struct fixture *f, const char *text, const char *complaint)
{
    struct fb_results results;
    struct fb_error error;

    spill(f, "results.csv", text, strlen(text));
    assert_int_equal(fb_results_read(f->dir, &f->arena, &results, &error), FB_ERROR_INPUT);
    if (strstr(error.text, complaint) == NULL)
        fail_msg("'%s' lacks '%s'", error.text, complaint);
}

static void test_read_damaged_file_names_file_and_line(void **state)
{
    struct fixture *f = *state;

    check_refused(f, "", "results.csv:1: not a results.csv");
    check_refused(f, "a,b\n1,2\n", "no column 'case_id'");
    check_refused(f, "case_id,mechanism,status\nx,flow,ok\ny,flow\n", "results.csv:3: 2 cells");
    check_refused(f, "case_id,mechanism,status\nx,flow,fine\n", "results.csv:2: status 'fine'");
    check_refused(f, "case_id,mechanism,status\nx,flow,o", "results.csv:2: the last line is cut");
    check_refused(f, "case_id,mechanism,status,heads\nx,flow,ok,1.5\n",
                  "results.csv:2: column 'heads': '1.5' is not an integer");
    check_refused(f, "case_id,mechanism,status,flop\nx,flow,ok,many\n", "is not a number");
    check_refused(f, "schema,case_id,mechanism,status\n2,x,flow,ok\n", "schema 2 is newer");
}

static void test_read_other_column_order_and_extra_columns_are_accepted(void **state)
{
    struct fixture *f = *state;
    static const char text[] = "status,extra,case_id,mechanism,time_median_s\nok,?,x,flow,2e-3\n";
    struct fb_results results;
    struct fb_error error;
    char path[128];

    spill(f, "results.csv", text, sizeof text - 1);
    snprintf(path, sizeof path, "%s/results.csv", f->dir);
    assert_int_equal(fb_results_read(path, &f->arena, &results, &error), FB_OK);
    assert_null(results.dir);
    assert_int_equal(results.rows_count, 1);
    assert_true(results.rows[0].time_median_s == 2e-3);
    assert_true(results.rows[0].heads == FB_ROW_NONE);
}

static void test_folder_same_second_gets_its_own(void **state)
{
    struct fixture *f = *state;
    struct fb_run_folder folders[3];
    struct fb_error error;

    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(
            fb_run_folder_create(f->dir, "quick", "My Machine!", &f->arena, &folders[i], &error),
            FB_OK);
        assert_non_null(strstr(folders[i].run_id, "Z-my-machine"));
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(folders[i].path, folders[k].path);
    }
    for (size_t i = 0; i < 3; i++)
        fb_run_folder_close(&folders[i]);
}

static void test_folder_locked_is_refused_with_the_process(void **state)
{
    struct fixture *f = *state;
    struct fb_run_folder first;
    struct fb_run_folder second;
    struct fb_error error;
    char process[32];

    spill(f, "run.json", "{}\n", 3);
    assert_int_equal(fb_run_folder_open(f->dir, &f->arena, &first, &error), FB_OK);
    assert_int_equal(fb_run_folder_open(f->dir, &f->arena, &second, &error), FB_ERROR_USAGE);
    snprintf(process, sizeof process, "process %ld", (long)getpid());
    assert_non_null(strstr(error.text, process));
    fb_run_folder_close(&first);
    assert_int_equal(fb_run_folder_open(f->dir, &f->arena, &second, &error), FB_OK);
    fb_run_folder_close(&second);
}

static void test_folder_take_refuses_what_is_not_empty(void **state)
{
    struct fixture *f = *state;
    struct fb_run_folder folder;
    struct fb_error error;
    char path[128];

    snprintf(path, sizeof path, "%s/new/deep/", f->dir);
    assert_int_equal(fb_run_folder_take(path, "m", &f->arena, &folder, &error), FB_OK);
    fb_run_folder_close(&folder);
    assert_int_equal(fb_run_folder_take(path, "m", &f->arena, &folder, &error), FB_OK);
    fb_run_folder_close(&folder);
    spill(f, "new/deep/notes.txt", "x", 1);
    assert_int_equal(fb_run_folder_take(path, "m", &f->arena, &folder, &error), FB_ERROR_USAGE);
    assert_non_null(strstr(error.text, "not empty"));
    spill(f, "new/deep/run.json", "{}", 2);
    assert_int_equal(fb_run_folder_take(path, "m", &f->arena, &folder, &error), FB_ERROR_USAGE);
    assert_non_null(strstr(error.text, "--resume"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rows_written_read_back_equal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reopen_keeps_earlier_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_anywhere_is_repaired, setup, teardown),
        cmocka_unit_test_setup_teardown(test_samples_without_a_row_are_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_columns_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quote_that_never_closes_is_damage_not_a_cut, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_append_disk_full_leaves_whole_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_damaged_file_names_file_and_line, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_read_other_column_order_and_extra_columns_are_accepted,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_folder_same_second_gets_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(test_folder_locked_is_refused_with_the_process, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_folder_take_refuses_what_is_not_empty, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
