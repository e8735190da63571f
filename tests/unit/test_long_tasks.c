/* The long-range and language tasks: their splits and their examples, on small files. */
#include "image_file.h"
#include "listops_tree.h"
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

enum { IDS = 2 * 2000 };

static struct fb_arena arena;
static struct fb_error error;
static char folder[] = "/tmp/fb_tasks_XXXXXX";
static int32_t ids[IDS], targets[IDS];
static int64_t lengths[4];
static const struct fb_task_batch batch = {.ids = ids, .lengths = lengths, .targets = targets};

static int set_up(void **state)
{
    (void)state;
    fb_arena_init(&arena, 0);
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    char command[64];
    (void)state;
    fb_arena_free(&arena);
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static FILE *create(const char *directory, const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", folder, directory);
    (void)mkdir(path, 0755);
    (void)snprintf(path, sizeof path, "%s/%s/%s", folder, directory, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    return file;
}

static enum fb_status open_task(const char *name, const double *params, bool cut, void **data)
{
    const struct fb_task *task = fb_task_find(name);
    assert_non_null(task);
    const struct fb_task_options options = {
        .data_dir = folder, .data_seed = 1, .params = params, .cut_validation = cut};
    return task->open(task, &options, &arena, data, &error);
}

static void *opened(const char *name, const double *params, bool cut)
{
    void *data = NULL;
    if (open_task(name, params, cut, &data) != FB_OK)
        fail_msg("%s", error.text);
    return data;
}

static void check_counts(const char *name, const void *data, int64_t train, int64_t validation,
                         int64_t test)
{
    const struct fb_task *task = fb_task_find(name);
    assert_int_equal(task->count(data, FB_SPLIT_TRAIN), train);
    assert_int_equal(task->count(data, FB_SPLIT_VALIDATION), validation);
    assert_int_equal(task->count(data, FB_SPLIT_TEST), test);
}

static void fill(const char *name, const void *data, enum fb_split split, int64_t index)
{
    fb_task_find(name)->fill(data, split, &index, 1, &batch);
}

static void test_listops_is_drawn_and_its_trees_have_their_values(void **state)
{
    (void)state;
    const double params[] = {2000.0, 20.0, 10.0, 30.0, 0.0}, cut[] = {16.0, 20.0, 10.0, 30.0, 0.0};
    const void *data = opened("listops", params, true), *again = opened("listops", params, false);
    struct fb_task_shape shape;
    uint8_t tokens[2000];
    check_counts("listops", data, 20, 10, 30);
    fb_task_find("listops")->shape(data, &shape);
    assert_true(shape.tokens == 2000 && shape.vocabulary == 17 && shape.classes == 10);
    for (int64_t i = 0; i < 30; i++) {
        int value = -1;
        fill("listops", data, FB_SPLIT_TEST, i);
        for (int64_t t = 0; t < lengths[0]; t++)
            tokens[t] = (uint8_t)ids[t];
        assert_true(fb_listops_evaluate(tokens, (int)lengths[0], &value));
        assert_int_equal(targets[0], value);
        assert_int_equal(ids[lengths[0]], 0);
    }
    const int32_t first = targets[0], token = ids[1];
    fill("listops", again, FB_SPLIT_TEST, 29);
    assert_true(targets[0] == first && ids[1] == token);
    fill("listops", opened("listops", cut, true), FB_SPLIT_TEST, 29);
    assert_true(lengths[0] == 16 && targets[0] == first && ids[1] == token);
}

static void test_listops_is_read_from_the_benchmarks_files(void **state)
{
    (void)state;
    const double params[] = {2000.0, 20.0, 10.0, 30.0, 1.0};
    static const char *const names[] = {"basic_train.tsv", "basic_val.tsv", "basic_test.tsv"};
    void *data;
    assert_int_equal(open_task("listops", params, true, &data), FB_ERROR_IO);
    assert_non_null(strstr(error.text, "data make listops"));
    for (int i = 0; i < 3; i++) {
        FILE *file = create("listops", names[i]);
        fputs("Source\tTarget\n( ( ( [SM 7 ) 8 ) ] )\t5\n", file);
        fclose(file);
    }
    data = opened("listops", params, true);
    check_counts("listops", data, 1, 1, 1);
    fill("listops", data, FB_SPLIT_TRAIN, 0);
    const int32_t wanted[] = {FB_LISTOPS_SM, 8, 9, FB_LISTOPS_CLOSE, 0};
    assert_memory_equal(ids, wanted, sizeof wanted);
    assert_true(lengths[0] == 4 && targets[0] == 5);
}

static void test_pathfinder_is_split_in_stored_order(void **state)
{
    (void)state;
    const double params[] = {20.0}, more[] = {21.0};
    uint8_t record[FB_IMAGE_GREY_BYTES];
    FILE *file = create("pathfinder", "pathfinder32_hard.bin");
    for (int i = 0; i < 20; i++) {
        memset(record, i, sizeof record);
        record[0] = (uint8_t)(i % 2);
        fwrite(record, 1, sizeof record, file);
    }
    fclose(file);
    void *data = opened("pathfinder", params, true);
    check_counts("pathfinder", data, 16, 2, 2);
    fill("pathfinder", data, FB_SPLIT_TEST, 1);
    assert_true(ids[0] == 19 && ids[1023] == 19 && targets[0] == 1 && lengths[0] == 1024);
    assert_int_equal(open_task("pathfinder", more, true, &data), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "truncated after record 20"));
}

static void test_reviews_lend_a_tenth_of_the_training_split(void **state)
{
    (void)state;
    const double params[] = {16.0};
    static const char *const folders[] = {"aclImdb/train/neg", "aclImdb/train/pos",
                                          "aclImdb/test/neg", "aclImdb/test/pos"};
    fclose(create("aclImdb", "README"));
    fclose(create("aclImdb/train", "README"));
    fclose(create("aclImdb/test", "README"));
    for (int f = 0; f < 4; f++)
        for (int i = 0; i < 10; i++) {
            char name[32];
            (void)snprintf(name, sizeof name, "%d_1.txt", i);
            FILE *file = create(folders[f], name);
            fprintf(file, "%c%d", 'a' + f, i);
            fclose(file);
        }
    check_counts("text", opened("text", params, false), 20, 0, 20);
    const void *data = opened("text", params, true);
    check_counts("text", data, 18, 2, 20);
    for (int64_t i = 0; i < 18; i++) {
        fill("text", data, FB_SPLIT_TRAIN, i);
        assert_true(lengths[0] == 2 && ids[0] == 'a' + targets[0] + 1 && ids[2] == 0);
    }
    fill("text", data, FB_SPLIT_TEST, 19);
    assert_true(targets[0] == 1 && ids[0] == 'd' + 1);
}

static void test_characters_are_predicted_once_each(void **state)
{
    (void)state;
    const double params[] = {8.0, 4.0}, wrong[] = {8.0, 9.0};
    FILE *file = create("tiny-shakespeare", "input.txt");
    for (int i = 0; i < 200; i++)
        fputc('a' + i % 7, file);
    fclose(file);
    void *data = opened("tiny-shakespeare", params, true);
    check_counts("tiny-shakespeare", data, 160 - 8, 5, 5); /* 19 of 20 follow another: 4 a window */
    check_counts("tiny-shakespeare", opened("tiny-shakespeare", params, false), 180 - 8, 0, 5);
    fill("tiny-shakespeare", data, FB_SPLIT_TRAIN, 3);
    for (int t = 0; t < 8; t++)
        assert_true(ids[t] == (3 + t) % 7 && targets[t] == (4 + t) % 7);
    int scored[20] = {0};
    for (int64_t w = 0; w < 5; w++) {
        fill("tiny-shakespeare", data, FB_SPLIT_TEST, w);
        const int64_t from = w == 0 ? 0 : 4 * w - 4;
        for (int64_t t = 0; t < 8; t++) {
            if (targets[t] == FB_NN_IGNORED)
                continue;
            assert_true(ids[t] == (180 + from + t) % 7 && targets[t] == (181 + from + t) % 7);
            scored[from + t + 1]++;
        }
    }
    for (int i = 1; i < 20; i++)
        assert_int_equal(scored[i], 1);
    assert_int_equal(open_task("tiny-shakespeare", wrong, true, &data), FB_ERROR_USAGE);
}

static void test_words_come_in_blocks_and_every_one_is_scored_once(void **state)
{
    (void)state;
    const double params[] = {8.0, 3.0}, large[] = {64.0, 3.0};
    static const char *const names[] = {"wiki.train.tokens", "wiki.valid.tokens",
                                        "wiki.test.tokens"};
    for (int i = 0; i < 3; i++) {
        FILE *file = create("wikitext-2", names[i]);
        fputs(" a b a\n\n a b c a d\n a a b", file); /* 3 + 1 + 1 + 5 + 1 + 3 + 1 = 15 tokens */
        fclose(file);
    }
    void *data = opened("wikitext-2", params, true);
    check_counts("wikitext-2", data, 2, 5, 5);
    fill("wikitext-2", data, FB_SPLIT_TRAIN, 1);
    assert_true(lengths[0] == 7 && targets[7] == FB_NN_IGNORED && targets[6] == 2);
    fill("wikitext-2", data, FB_SPLIT_TRAIN, 0);
    assert_true(ids[0] == 2 && ids[1] == 4 && targets[0] == 4 && targets[1] == 5);
    int count = 0;
    for (int64_t w = 0; w < 5; w++) {
        fill("wikitext-2", data, FB_SPLIT_TEST, w);
        for (int64_t t = 0; t < 8; t++)
            count += targets[t] != FB_NN_IGNORED;
    }
    assert_int_equal(count, 15);
    assert_int_equal(open_task("wikitext-2", large, true, &data), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "truncated"));
    assert_int_equal(open_task("wikitext-103", params, true, &data), FB_ERROR_IO);
    assert_non_null(strstr(error.text, "data fetch wikitext-103"));
}

static void test_pairs_fill_two_sequences(void **state)
{
    (void)state;
    const double params[] = {16.0};
    static const char *const names[] = {"new_aan_pairs.train.tsv", "new_aan_pairs.eval.tsv",
                                        "new_aan_pairs.test.tsv"};
    struct fb_task_shape shape;
    for (int i = 0; i < 3; i++) {
        FILE *file = create("aan", names[i]);
        fputs("1.0\t1\t2\tone\ttwo\n", file);
        fclose(file);
    }
    void *data = opened("retrieval", params, true);
    check_counts("retrieval", data, 1, 1, 1);
    fb_task_find("retrieval")->shape(data, &shape);
    assert_true(shape.pairs && shape.tokens == 16);
    fill("retrieval", data, FB_SPLIT_VALIDATION, 0);
    assert_true(ids[0] == 'o' + 1 && ids[16] == 't' + 1 && lengths[1] == 3 && targets[0] == 1);
}

static void test_images_come_in_five_batches_and_a_test(void **state)
{
    (void)state;
    void *data;
    assert_int_equal(open_task("image", NULL, true, &data), FB_ERROR_IO);
    assert_non_null(strstr(error.text, "data fetch image"));
    fclose(create("cifar-10-batches-bin", "data_batch_1.bin"));
    assert_int_equal(open_task("image", NULL, true, &data), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "not 10000 records of 3073"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_listops_is_drawn_and_its_trees_have_their_values),
        cmocka_unit_test(test_listops_is_read_from_the_benchmarks_files),
        cmocka_unit_test(test_pathfinder_is_split_in_stored_order),
        cmocka_unit_test(test_reviews_lend_a_tenth_of_the_training_split),
        cmocka_unit_test(test_characters_are_predicted_once_each),
        cmocka_unit_test(test_words_come_in_blocks_and_every_one_is_scored_once),
        cmocka_unit_test(test_pairs_fill_two_sequences),
        cmocka_unit_test(test_images_come_in_five_batches_and_a_test),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
