/* ListOps: drawing, evaluating, writing and reading trees, against lines of the benchmark's own
 * file (tests/data) and the statistics of its procedure. */
#include "listops_file.h"

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

static int value_of(const char *text)
{
    uint8_t tokens[64];
    size_t at;
    int value = -1;
    const int length = fb_listops_tokenise(text, strlen(text), tokens, 64, &at);
    return length > 0 && fb_listops_evaluate(tokens, length, &value) ? value : -1;
}

static void test_operators_have_their_values(void **state)
{
    (void)state;
    assert_int_equal(value_of("( ( ( ( [MIN 4 ) 2 ) 7 ) ] )"), 2);
    assert_int_equal(value_of("[MAX 4 2 7 ]"), 7);
    assert_int_equal(value_of("[SM 4 2 7 ]"), 3);
    assert_int_equal(value_of("[MED 4 9 7 ]"), 7);
    assert_int_equal(value_of("[MED 4 9 7 8 ]"), 7); /* 7.5 rounded down */
    assert_int_equal(value_of("[MAX 1 [SM 5 9 [MIN 1 1 ] ] 0 ]"), 5);
    assert_int_equal(value_of("8"), 8);
}

static void test_what_is_no_tree_has_no_value(void **state)
{
    (void)state;
    const char *const bad[] = {"",          "]",        "[MIN ]",
                               "[MIN 1",    "1 2",      "[MIN 1 ] ]",
                               "[MIN 10 ]", "[AVG 1 ]", "[SM 1 1 1 1 1 1 1 1 1 1 1 ]"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(value_of(bad[i]), -1);
    char deep[256] = "";
    for (int i = 0; i < FB_LISTOPS_DEPTH_MAX + 1; i++)
        strcat(deep, "[MAX ");
    strcat(deep, "1");
    for (int i = 0; i < FB_LISTOPS_DEPTH_MAX + 1; i++)
        strcat(deep, " ]");
    assert_int_equal(value_of(deep), -1);
}

static void test_the_benchmarks_lines_are_read_and_written_alike(void **state)
{
    (void)state;
    struct fb_listops_examples examples;
    char line[FB_LISTOPS_TEXT_SIZE + 8], text[FB_LISTOPS_TEXT_SIZE];
    if (fb_listops_read(&examples, "tests/data/listops_excerpt.tsv", &arena, &error) != FB_OK)
        fail_msg("%s", error.text);
    assert_int_equal(examples.count, 3);
    FILE *file = fopen("tests/data/listops_excerpt.tsv", "r");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof line, file));
    for (int64_t i = 0; i < examples.count; i++) {
        const int64_t start = examples.starts[i];
        const int length = (int)(examples.starts[i + 1] - start);
        const size_t size = fb_listops_write(examples.tokens + start, length, text);
        assert_non_null(fgets(line, sizeof line, file));
        assert_int_equal(size, strcspn(line, "\t"));
        assert_memory_equal(text, line, size);
        assert_int_equal(examples.targets[i], line[size + 1] - '0');
    }
    fclose(file);
}

/* The reference statistics of 20,000 accepted trees, with five standard errors of our 2,000. */
static void test_drawn_trees_have_the_procedures_distribution(void **state)
{
    (void)state;
    static const double classes[10] = {.174, .089, .080, .082, .087, .083, .078, .073, .089, .166};
    enum { TREES = 2000 };
    uint8_t tokens[FB_LISTOPS_LENGTH_MAX];
    int64_t operators[4] = {0}, values[10] = {0};
    double length_sum = 0.0;
    int draws = 0, short_ones = 0, long_ones = 0;
    for (int trees = 0; trees < TREES; draws++) {
        const int length = fb_listops_redraw(5, (uint64_t)draws, tokens);
        int value = -1;
        if (length == 0)
            continue;
        trees++;
        assert_in_range(length, FB_LISTOPS_LENGTH_MIN, FB_LISTOPS_LENGTH_MAX);
        assert_true(fb_listops_evaluate(tokens, length, &value));
        values[value]++;
        length_sum += length;
        short_ones += length <= 579;
        long_ones += length >= 1652;
        for (int i = 0; i < length; i++)
            if (tokens[i] >= FB_LISTOPS_MIN && tokens[i] < FB_LISTOPS_CLOSE)
                operators[tokens[i] - FB_LISTOPS_MIN]++;
    }
    assert_true(fabs((double)TREES / draws - 0.083) < 0.01);
    assert_true(fabs(length_sum / TREES - 1039.0) < 5.0 * 400.0 / sqrt(TREES));
    assert_true(abs(short_ones - TREES / 10) < 70 && abs(long_ones - TREES / 10) < 70);
    for (int i = 0; i < 10; i++) {
        const double p = classes[i], share = (double)values[i] / TREES;
        if (fabs(share - p) > 5.0 * sqrt(p * (1.0 - p) / TREES))
            fail_msg("class %d has the share %g, not %g", i, share, p);
    }
    const double all = (double)(operators[0] + operators[1] + operators[2] + operators[3]);
    for (int i = 0; i < 4; i++)
        assert_true(fabs((double)operators[i] / all - 0.25) < 0.01);
}

static void test_chosen_trees_are_distinct_and_follow_from_the_seed(void **state)
{
    (void)state;
    const uint64_t *first = fb_listops_choose(200, 1, &arena, &error);
    const uint64_t *again = fb_listops_choose(200, 1, &arena, &error);
    const uint64_t *other = fb_listops_choose(200, 2, &arena, &error);
    assert_true(first && again && other);
    assert_memory_equal(first, again, 200 * sizeof *first);
    assert_memory_not_equal(first, other, 200 * sizeof *first);
    bool sorted = true;
    for (int i = 0; i < 200; i++) {
        sorted = sorted && (i == 0 || first[i] > first[i - 1]);
        for (int j = 0; j < i; j++)
            assert_true(first[i] != first[j]);
    }
    assert_false(sorted);
}

static void check_refusal(const char *text, const char *words)
{
    char path[] = "/tmp/fb_listops_XXXXXX";
    struct fb_listops_examples examples;
    const int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    const enum fb_status status = fb_listops_read(&examples, path, &arena, &error);
    unlink(path);
    assert_int_equal(status, FB_ERROR_INPUT);
    if (!strstr(error.text, words))
        fail_msg("'%s' says '%s', not '%s'", text, error.text, words);
}

static void test_what_is_no_listops_file_is_refused_with_its_line(void **state)
{
    (void)state;
    check_refusal("", ":1: expected the header");
    check_refusal("a\tb\n", ":1: expected the header");
    check_refusal("Source\tTarget\n", "no tree follows");
    check_refusal("Source\tTarget\n[MAX 1 2 ]\t2\n[MAX 1 2 ]", ":3: expected a tree, a tab");
    check_refusal("Source\tTarget\n[MAX 1 2 ]\t3\n",
                  ":2: the target is 3, the value of the tree 2");
    check_refusal("Source\tTarget\n[MAX 1 x ]\t2\n", ":2: column 8 is no digit");
    check_refusal("Source\tTarget\n[MAX 1 2\t2\n", ":2: the brackets do not fit");
    struct fb_listops_examples examples;
    assert_int_equal(fb_listops_read(&examples, "/nonexistent", &arena, &error), FB_ERROR_IO);
    assert_int_equal(fb_listops_read(&examples, "/tmp", &arena, &error), FB_ERROR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operators_have_their_values),
        cmocka_unit_test(test_what_is_no_tree_has_no_value),
        cmocka_unit_test(test_the_benchmarks_lines_are_read_and_written_alike),
        cmocka_unit_test(test_drawn_trees_have_the_procedures_distribution),
        cmocka_unit_test(test_chosen_trees_are_distinct_and_follow_from_the_seed),
        cmocka_unit_test(test_what_is_no_listops_file_is_refused_with_its_line),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
