/* Tasks: the table, the cut of a validation split, the adder's examples, the series' splits. */
#include "nn_loss.h"
#include "task.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

static void check(enum fb_status status)
{
    if (status != FB_OK)
        fail_msg("%s", error.text);
}

static void test_every_task_is_complete_and_found_by_its_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < fb_task_count(); i++) {
        const struct fb_task *task = fb_task_at(i);
        assert_non_null(task->name);
        assert_ptr_equal(fb_task_find(task->name), task);
        assert_true(task->title && task->source && task->open && task->shape && task->count &&
                    task->fill);
        assert_true(!task->paper_area == !task->paper_dataset);
        assert_true(task->param_count <= FB_PARAMS_MAX);
    }
    assert_null(fb_task_find("nothing"));
}

/* Examples follow from the data's seed, the split and their index alone. */
static void test_bytes_are_as_long_as_asked_for_and_the_same_again(void **state)
{
    (void)state;
    enum { LENGTH = 13, EXAMPLES = 70 };
    const struct fb_task *bytes = fb_task_find("bytes");
    const double params[] = {LENGTH, EXAMPLES};
    const struct fb_task_options options = {.data_seed = 1, .params = params};
    const int64_t chosen[3] = {5, 6, 5};
    int32_t ids[3 * LENGTH], again[LENGTH], other[LENGTH], targets[3];
    int64_t lengths[3];
    struct fb_task_shape shape;
    void *data;
    check(bytes->open(bytes, &options, &arena, &data, &error));
    bytes->shape(data, &shape);
    assert_int_equal(shape.tokens, LENGTH);
    assert_int_equal(bytes->count(data, FB_SPLIT_TRAIN), EXAMPLES);
    assert_int_equal(bytes->count(data, FB_SPLIT_TEST), 2);
    struct fb_task_batch batch = {.ids = ids, .lengths = lengths, .targets = targets};
    bytes->fill(data, FB_SPLIT_TRAIN, chosen, 3, &batch);
    for (int i = 0; i < 3 * LENGTH; i++)
        assert_in_range(ids[i], 1, shape.vocabulary - 1);
    assert_int_equal(lengths[1], LENGTH);
    assert_in_range(targets[0], 0, 1);
    assert_memory_equal(ids, ids + (ptrdiff_t)2 * LENGTH, sizeof again);
    assert_memory_not_equal(ids, ids + LENGTH, sizeof again);
    batch.ids = other;
    bytes->fill(data, FB_SPLIT_TEST, chosen, 1, &batch);
    assert_memory_not_equal(ids, other, sizeof other);
}

static void test_a_cut_takes_its_share_of_every_class_and_leaves_one(void **state)
{
    (void)state;
    const int32_t labels[12] = {0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 0};
    struct fb_task_cut cut, again, other;
    int64_t of[3] = {0, 0, 0};
    check(fb_task_cut(&cut, 12, labels, 3, 0.4, 1, &arena, &error));
    check(fb_task_cut(&again, 12, labels, 3, 0.4, 1, &arena, &error));
    check(fb_task_cut(&other, 12, labels, 3, 0.4, 2, &arena, &error));
    assert_int_equal(cut.train_count + cut.validation_count, 12);
    for (int64_t i = 0; i < cut.validation_count; i++)
        of[labels[cut.validation[i]]]++;
    assert_int_equal(of[0], 2);
    assert_int_equal(of[1], 2);
    assert_int_equal(of[2], 0);
    const size_t bytes = (size_t)cut.validation_count * sizeof *cut.validation;
    assert_memory_equal(cut.validation, again.validation, bytes);
    assert_memory_not_equal(cut.validation, other.validation, bytes);
    check(fb_task_cut(&cut, 12, labels, 3, 1.0, 1, &arena, &error));
    assert_int_equal(cut.train_count, 3);
    check(fb_task_cut(&cut, 12, NULL, 0, 0.0, 1, &arena, &error));
    assert_int_equal(cut.train_count, 12);
    assert_int_equal(cut.train[11], 11);
}

static void test_the_adder_adds(void **state)
{
    (void)state;
    const struct fb_task *adder = fb_task_find("adder");
    const double params[1] = {2.0};
    const struct fb_task_options options = {NULL, 1337, params, true};
    struct fb_task_shape shape;
    void *data = NULL;
    unsigned char seen[10000] = {0};
    int64_t lengths[1];
    int32_t ids[6], targets[6];
    const struct fb_task_batch batch = {NULL, ids, lengths, targets};
    check(adder->open(adder, &options, &arena, &data, &error));
    adder->shape(data, &shape);
    assert_true(shape.tokens == 6 && shape.vocabulary == 10 && shape.classes == 10);
    assert_int_equal(adder->count(data, FB_SPLIT_TEST), 500);
    assert_int_equal(adder->count(data, FB_SPLIT_VALIDATION), 500);
    assert_int_equal(adder->count(data, FB_SPLIT_TRAIN), 9000);
    for (int split = 0; split < FB_SPLIT_COUNT; split++)
        for (int64_t i = 0; i < adder->count(data, (enum fb_split)split); i++) {
            adder->fill(data, (enum fb_split)split, &i, 1, &batch);
            const int a = ids[0] * 10 + ids[1], b = ids[2] * 10 + ids[3];
            assert_false(seen[a * 100 + b]++);
            assert_int_equal(targets[3] + 10 * targets[4] + 100 * targets[5], a + b);
            assert_int_equal(ids[4], targets[3]);
            for (int t = 0; t < 3; t++)
                assert_int_equal(targets[t], FB_NN_IGNORED);
            assert_int_equal(lengths[0], 6);
        }
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* A data folder with the two files of JapaneseVowels. */
static void make_series(char *root, const char *train, const char *test)
{
    char dir[256];
    assert_non_null(mkdtemp(root));
    snprintf(dir, sizeof dir, "%s/uea", root);
    assert_int_equal(mkdir(dir, 0700), 0);
    snprintf(dir, sizeof dir, "%s/uea/JapaneseVowels", root);
    assert_int_equal(mkdir(dir, 0700), 0);
    write_file(dir, "JapaneseVowels_TRAIN.ts", train);
    write_file(dir, "JapaneseVowels_TEST.ts", test);
}

static void remove_series(const char *root)
{
    char path[256];
    static const char *const names[] = {"/uea/JapaneseVowels/JapaneseVowels_TRAIN.ts",
                                        "/uea/JapaneseVowels/JapaneseVowels_TEST.ts",
                                        "/uea/JapaneseVowels", "/uea", ""};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s%s", root, names[i]);
        assert_int_equal(remove(path), 0);
    }
}

static void test_series_come_in_three_splits(void **state)
{
    (void)state;
    char root[] = "/tmp/flowbench-task-XXXXXX";
    const struct fb_task *task = fb_task_find("JapaneseVowels");
    struct fb_task_options options = {root, 7, NULL, true};
    struct fb_task_shape shape;
    void *data = NULL;
    float values[2 * 3];
    int64_t lengths[2];
    int32_t targets[2];
    const struct fb_task_batch batch = {values, NULL, lengths, targets};
    make_series(root, "@data\n1,2,3:a\n1:a\n1:a\n2:a\n2:a\n3:b\n3:b\n4:b\n4:b\n5:b\n",
                "@data\n1,2,3,4:b\n9:a\n");
    check(task->open(task, &options, &arena, &data, &error));
    task->shape(data, &shape);
    assert_true(shape.tokens == 3 && shape.features == 1 && shape.classes == 2);
    assert_int_equal(task->count(data, FB_SPLIT_TRAIN), 8);
    assert_int_equal(task->count(data, FB_SPLIT_VALIDATION), 2);
    assert_int_equal(task->count(data, FB_SPLIT_TEST), 2);
    const int64_t both[2] = {0, 1};
    task->fill(data, FB_SPLIT_TEST, both, 2, &batch);
    assert_true(lengths[0] == 3 && lengths[1] == 1 && targets[0] == 1 && targets[1] == 0);
    assert_true(values[3] > values[2] && values[4] == 0.0F);
    options.cut_validation = false;
    check(task->open(task, &options, &arena, &data, &error));
    assert_int_equal(task->count(data, FB_SPLIT_TRAIN), 10);
    assert_int_equal(task->count(data, FB_SPLIT_VALIDATION), 0);
    remove_series(root);
}

static void test_bad_data_are_refused_with_the_remedy(void **state)
{
    (void)state;
    char root[] = "/tmp/flowbench-task-XXXXXX";
    const struct fb_task *task = fb_task_find("JapaneseVowels");
    struct fb_task_options options = {NULL, 7, NULL, true};
    void *data = NULL;
    assert_int_equal(task->open(task, &options, &arena, &data, &error), FB_ERROR_IO);
    assert_non_null(strstr(error.text, "FLOWBENCH_DATA"));
    options.data_dir = "/nonexistent";
    assert_int_equal(task->open(task, &options, &arena, &data, &error), FB_ERROR_IO);
    assert_non_null(strstr(error.text, "bench data fetch JapaneseVowels --data-dir /nonexistent"));
    options.data_dir = root;
    make_series(root, "@data\n1:a\n1:a\n", "@data\n1:a\n");
    assert_int_equal(task->open(task, &options, &arena, &data, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "a single class"));
    remove_series(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_task_is_complete_and_found_by_its_name),
        cmocka_unit_test(test_bytes_are_as_long_as_asked_for_and_the_same_again),
        cmocka_unit_test(test_a_cut_takes_its_share_of_every_class_and_leaves_one),
        cmocka_unit_test(test_the_adder_adds),
        cmocka_unit_test(test_series_come_in_three_splits),
        cmocka_unit_test(test_bad_data_are_refused_with_the_remedy),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
