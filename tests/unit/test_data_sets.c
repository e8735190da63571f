/* Data sets: the table, making small ones, resuming, checking, sums on record. */
#include "data_sets.h"
#include "image_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct fb_error error;
static char folder[] = "/tmp/fb_data_XXXXXX";

static const struct fb_data_set small_listops = {
    .name = "listops",
    .folder = "listops",
    .files = {"basic_train.tsv", "basic_val.tsv", "basic_test.tsv"},
    .counts = {12, 4, 5}};
static const struct fb_data_set small_pathfinder = {.name = "pathfinder",
                                                    .folder = "pathfinder",
                                                    .files = {"pathfinder32_hard.bin"},
                                                    .counts = {16, 2, 2}};

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) && freopen("/dev/null", "w", stderr) ? 0 : -1;
}

static int tear_down(void **state)
{
    char command[64];
    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static const char *at(const char *name)
{
    static char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static size_t read_bytes(const char *name, char *bytes, size_t size)
{
    FILE *file = fopen(at(name), "rb");
    assert_non_null(file);
    const size_t count = fread(bytes, 1, size, file);
    fclose(file);
    return count;
}

static void write_bytes(const char *name, const char *bytes, size_t size)
{
    FILE *file = fopen(at(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static void check(enum fb_status status)
{
    if (status != FB_OK)
        fail_msg("%s", error.text);
}

static void says(enum fb_status status, enum fb_status wanted, const char *words)
{
    assert_int_equal(status, wanted);
    if (!strstr(error.text, words))
        fail_msg("'%s' lacks '%s'", error.text, words);
}

static void test_every_set_belongs_to_a_task_that_needs_files_or_can_read_them(void **state)
{
    (void)state;
    for (size_t i = 0; i < fb_data_set_count(); i++) {
        const struct fb_data_set *set = fb_data_set_at(i);
        const struct fb_task *task = fb_task_find(set->name);
        assert_non_null(task);
        assert_ptr_equal(fb_data_set_find(set->name), set);
        assert_int_equal(task->made, set->unpack == FB_UNPACK_MADE);
        assert_true((set->url != NULL) == (set->unpack != FB_UNPACK_MADE));
        assert_non_null(set->files[0]);
    }
    for (size_t i = 0; i < fb_task_count(); i++)
        if (fb_task_at(i)->needs_data)
            assert_non_null(fb_data_set_find(fb_task_at(i)->name));
    assert_null(fb_data_set_find("nothing"));
}

static void test_the_folder_is_the_named_one_then_the_variable_then_data(void **state)
{
    (void)state;
    setenv("FLOWBENCH_DATA", "/somewhere", 1);
    assert_string_equal(fb_data_dir("named"), "named");
    assert_string_equal(fb_data_dir(NULL), "/somewhere");
    setenv("FLOWBENCH_DATA", "", 1);
    assert_string_equal(fb_data_dir(NULL), "data");
    unsetenv("FLOWBENCH_DATA");
    assert_string_equal(fb_data_dir(NULL), "data");
}

static void test_listops_is_made_whole_and_checked(void **state)
{
    (void)state;
    static char first[200000], again[200000];
    int64_t bytes;
    says(fb_data_check(&small_listops, folder, &error), FB_ERROR_INPUT, "data make listops");
    check(fb_data_make(&small_listops, folder, &error));
    check(fb_data_check(&small_listops, folder, &error));
    assert_int_equal(fb_data_set_state(&small_listops, folder, &bytes), FB_DATA_COMPLETE);
    assert_true(bytes > 21 * 2000);
    const size_t size = read_bytes("listops/basic_train.tsv", first, sizeof first);
    unlink(at("listops/basic_train.tsv"));
    assert_int_equal(fb_data_set_state(&small_listops, folder, &bytes), FB_DATA_PARTIAL);
    check(fb_data_make(&small_listops, folder, &error));
    assert_int_equal(read_bytes("listops/basic_train.tsv", again, sizeof again), size);
    assert_memory_equal(first, again, size);
    first[size - 2] = first[size - 2] == '1' ? '2' : '1';
    write_bytes("listops/basic_train.tsv", first, size);
    says(fb_data_check(&small_listops, folder, &error), FB_ERROR_INPUT, "damaged");
    struct fb_data_set other = small_listops;
    write_bytes("listops/basic_train.tsv", again, size);
    other.counts[2] = 6;
    says(fb_data_check(&other, folder, &error), FB_ERROR_INPUT, "5 test examples, not 6");
}

static void test_pathfinder_goes_on_where_it_was_interrupted(void **state)
{
    (void)state;
    enum { RECORDS = 20, SIZE = RECORDS * FB_IMAGE_GREY_BYTES, CUT = 7 * FB_IMAGE_GREY_BYTES + 99 };
    static char first[SIZE + 1], again[SIZE + 1];
    check(fb_data_make(&small_pathfinder, folder, &error));
    check(fb_data_check(&small_pathfinder, folder, &error));
    assert_int_equal(read_bytes("pathfinder/pathfinder32_hard.bin", first, sizeof first), SIZE);
    unlink(at("pathfinder/pathfinder32_hard.bin"));
    memset(again, 0, sizeof again);
    memcpy(again, first, CUT);
    write_bytes("pathfinder/.pathfinder32_hard.bin.part", again, CUT);
    check(fb_data_make(&small_pathfinder, folder, &error));
    assert_int_equal(read_bytes("pathfinder/pathfinder32_hard.bin", again, sizeof again), SIZE);
    assert_memory_equal(first, again, SIZE);
    assert_int_not_equal(access(at("pathfinder/.pathfinder32_hard.bin.part"), F_OK), 0);
    first[0] = 7;
    write_bytes("pathfinder/pathfinder32_hard.bin", first, SIZE);
    says(fb_data_check(&small_pathfinder, folder, &error), FB_ERROR_INPUT, "damaged");
}

static void test_what_cannot_be_written_is_said_and_leaves_nothing(void **state)
{
    (void)state;
    write_bytes("in the way", "x", 1);
    says(fb_data_make(&small_pathfinder, at("in the way"), &error), FB_ERROR_IO,
         "cannot create the folder");
    says(fb_data_make(fb_data_set_find("text"), folder, &error), FB_ERROR_USAGE, "data fetch text");
    says(fb_data_fetch(&small_pathfinder, folder, NULL, &error), FB_ERROR_USAGE,
         "data make pathfinder");
}

static void test_sums_are_kept_one_for_each_name(void **state)
{
    (void)state;
    char sum[FB_DATA_SUM_SIZE], found[FB_DATA_SUM_SIZE];
    write_bytes("abc", "abc", 3);
    check(fb_data_sum(at("abc"), sum, &error));
    assert_string_equal(sum, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_false(fb_data_sum_recorded(folder, "a/b", found));
    check(fb_data_sum_record(folder, "a/b", sum, &error));
    sum[0] = '0';
    check(fb_data_sum_record(folder, "a/b c", sum, &error));
    check(fb_data_sum_record(folder, "a/b", sum, &error));
    assert_true(fb_data_sum_recorded(folder, "a/b", found));
    assert_string_equal(found, sum);
    assert_true(fb_data_sum_recorded(folder, "a/b c", found));
    assert_false(fb_data_sum_recorded(folder, "a", found));
    says(fb_data_sum(at("nothing"), sum, &error), FB_ERROR_IO, "cannot read");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_set_belongs_to_a_task_that_needs_files_or_can_read_them),
        cmocka_unit_test(test_the_folder_is_the_named_one_then_the_variable_then_data),
        cmocka_unit_test(test_listops_is_made_whole_and_checked),
        cmocka_unit_test(test_pathfinder_goes_on_where_it_was_interrupted),
        cmocka_unit_test(test_what_cannot_be_written_is_said_and_leaves_nothing),
        cmocka_unit_test(test_sums_are_kept_one_for_each_name),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
