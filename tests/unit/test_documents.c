/* Documents, words and images as files: what they hold, and what is refused where. */
#include "documents.h"
#include "image_file.h"
#include "word_file.h"

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
static char folder[] = "/tmp/fb_documents_XXXXXX";
static char path[256];

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

static const char *in_folder(const char *name)
{
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static const char *write_file(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
    return path;
}

static const char *write_text(const char *name, const char *text)
{
    return write_file(name, text, strlen(text));
}

static void says(enum fb_status status, enum fb_status wanted, const char *words)
{
    assert_int_equal(status, wanted);
    if (!strstr(error.text, words))
        fail_msg("'%s' lacks '%s'", error.text, words);
}

static void check(enum fb_status status)
{
    if (status != FB_OK)
        fail_msg("%s", error.text);
}

static void test_reviews_are_their_first_bytes_in_the_order_of_names(void **state)
{
    (void)state;
    struct fb_documents set;
    int32_t ids[6];
    int64_t length;
    assert_int_equal(mkdir(in_folder("neg"), 0755), 0);
    says(fb_reviews_read(&set, folder, 4, &arena, &error), FB_ERROR_INPUT, "holds no review");
    write_text("neg/2_1.txt", "bad");
    write_text("neg/10_1.txt", "worse");
    write_text("neg/notes", "not a review");
    says(fb_reviews_read(&set, folder, 4, &arena, &error), FB_ERROR_IO, "data fetch text");
    assert_int_equal(mkdir(in_folder("pos"), 0755), 0);
    write_text("pos/0_9.txt", "\xff");
    check(fb_reviews_read(&set, folder, 4, &arena, &error));
    assert_int_equal(set.count, 3);
    assert_true(set.labels[0] == 0 && set.labels[1] == 0 && set.labels[2] == 1);
    fb_documents_fill(&set, 0, 6, ids, &length);
    const int32_t wors[6] = {'w' + 1, 'o' + 1, 'r' + 1, 's' + 1, 0, 0};
    assert_int_equal(length, 4);
    assert_memory_equal(ids, wors, sizeof wors);
    fb_documents_fill(&set, 2, 6, ids, &length);
    assert_true(length == 1 && ids[0] == 256);
    fb_documents_fill(&set, 0, 2, ids, &length);
    assert_int_equal(length, 2);
    write_text("pos/1_9.txt", "");
    says(fb_reviews_read(&set, folder, 4, &arena, &error), FB_ERROR_INPUT, "pos/1_9.txt' is empty");
}

static void test_pairs_are_two_documents_a_line(void **state)
{
    (void)state;
    struct fb_documents set;
    int32_t ids[2 * 4];
    int64_t lengths[2];
    write_text("pairs.tsv", "1.0\tA\tB\tone \"quoted\"\ttwo\r\n0\tC\tD\tx\ty");
    check(fb_pairs_read(&set, path, 5, &arena, &error));
    assert_true(set.count == 2 && set.labels[0] == 1 && set.labels[1] == 0);
    fb_documents_fill(&set, 0, 4, ids, lengths);
    const int32_t wanted[8] = {'o' + 1, 'n' + 1, 'e' + 1, ' ' + 1, 't' + 1, 'w' + 1, 'o' + 1, 0};
    assert_memory_equal(ids, wanted, sizeof wanted);
    assert_true(lengths[0] == 4 && lengths[1] == 3);
}

static void check_pairs_refusal(const char *text, const char *words)
{
    struct fb_documents set;
    write_text("bad.tsv", text);
    says(fb_pairs_read(&set, path, 5, &arena, &error), FB_ERROR_INPUT, words);
}

static void test_what_is_no_pairs_file_is_refused_with_its_line(void **state)
{
    (void)state;
    struct fb_documents set;
    check_pairs_refusal("", "is empty");
    check_pairs_refusal("1\ta\tb\tc\td\n1\ta\tb\tc", ":2: expected five fields");
    check_pairs_refusal("1\ta\tb\tc\td\te\n", ":1: expected five fields");
    check_pairs_refusal("2\ta\tb\tc\td\n", ":1: the label is neither");
    check_pairs_refusal("\ta\tb\tc\td\n", ":1: the label is neither");
    check_pairs_refusal("nan\ta\tb\tc\td\n", ":1: the label is neither");
    check_pairs_refusal("1\ta\tb\t\td\n", ":1: a text is empty");
    check_pairs_refusal("1\ta\tb\tc\t\n", ":1: a text is empty");
    says(fb_pairs_read(&set, "/nonexistent", 5, &arena, &error), FB_ERROR_IO, "/nonexistent");
    says(fb_pairs_read(&set, "/tmp", 5, &arena, &error), FB_ERROR_IO, "cannot read '/tmp'");
}

static void test_words_are_numbered_by_use_and_lines_end(void **state)
{
    (void)state;
    struct fb_word_stream stream;
    write_text("train", " b a <unk> b \n \n c a b\n");
    struct fb_words *words = fb_words_read(path, &arena, &error);
    assert_non_null(words);
    assert_int_equal(fb_words_count(words), 8); /* 4 specials, a, b, c, filled up */
    check(fb_word_stream_read(&stream, words, path, &arena, &error));
    const int32_t wanted[] = {4, 5, 3, 4, 2, 2, 6, 5, 4, 2};
    assert_int_equal(stream.count, sizeof wanted / sizeof wanted[0]);
    assert_memory_equal(stream.ids, wanted, sizeof wanted);
    write_text("test", "zebra c");
    check(fb_word_stream_read(&stream, words, path, &arena, &error));
    assert_true(stream.count == 3 && stream.ids[0] == 3 && stream.ids[1] == 6 &&
                stream.ids[2] == 2);
    write_text("empty", "");
    says(fb_word_stream_read(&stream, words, path, &arena, &error), FB_ERROR_INPUT, "is empty");
    assert_null(fb_words_read(path, &arena, &error));
    says(error.code, FB_ERROR_INPUT, "has no word");
    assert_null(fb_words_read("/nonexistent", &arena, &error));
}

static void test_equal_counts_are_in_byte_order_among_many_words(void **state)
{
    (void)state;
    enum { WORDS = 100000 };
    struct fb_word_stream stream;
    char *text = malloc(WORDS * 8 + 1), *at = text;
    assert_non_null(text);
    for (int i = WORDS - 1; i >= 0; i--)
        at += sprintf(at, "w%05d ", i);
    write_text("many", text);
    free(text);
    struct fb_words *words = fb_words_read(path, &arena, &error);
    assert_non_null(words);
    check(fb_word_stream_read(&stream, words, path, &arena, &error));
    for (int i = 0; i < WORDS; i++)
        assert_int_equal(stream.ids[i], FB_WORD_SPECIALS + WORDS - 1 - i);
}

static void test_colour_becomes_grey_and_records_are_checked(void **state)
{
    (void)state;
    static uint8_t records[2 * FB_IMAGE_COLOUR_BYTES];
    struct fb_images images;
    records[0] = 7;
    records[1] = 200;                      /* red */
    records[1 + FB_IMAGE_PIXELS] = 100;    /* green */
    records[1 + 2 * FB_IMAGE_PIXELS] = 50; /* blue: 255.5 (59.78 + 58.7 + 5.7) / 255 = 124.42 */
    memset(records + 2, 255, 1);           /* red alone: 76.37 */
    records[FB_IMAGE_COLOUR_BYTES] = 3;
    check(fb_images_init(&images, 3, &arena, &error));
    write_file("two.bin", records, sizeof records);
    check(fb_images_read(&images, 1, 2, FB_IMAGE_COLOUR_BYTES, 10, path, &error));
    assert_true(images.labels[1] == 7 && images.labels[2] == 3);
    assert_true(images.pixels[FB_IMAGE_PIXELS] == 124 && images.pixels[FB_IMAGE_PIXELS + 1] == 76);
    says(fb_images_read(&images, 0, 2, FB_IMAGE_COLOUR_BYTES, 5, path, &error), FB_ERROR_INPUT,
         "record 1 is labelled 7; classes are 0 to 4");
    says(fb_images_read(&images, 0, 2, FB_IMAGE_GREY_BYTES, 10, path, &error), FB_ERROR_INPUT,
         "not 2 records of 1025");
    write_file("cut.bin", records, sizeof records - 1);
    says(fb_images_read(&images, 0, 2, FB_IMAGE_COLOUR_BYTES, 10, path, &error), FB_ERROR_INPUT,
         "truncated after record 1");
    says(fb_images_read(&images, 0, 2, FB_IMAGE_COLOUR_BYTES, 10, "/tmp", &error), FB_ERROR_IO,
         "not a regular file");
    says(fb_images_read(&images, 0, 2, FB_IMAGE_COLOUR_BYTES, 10, "/nonexistent", &error),
         FB_ERROR_IO, "/nonexistent");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reviews_are_their_first_bytes_in_the_order_of_names),
        cmocka_unit_test(test_pairs_are_two_documents_a_line),
        cmocka_unit_test(test_what_is_no_pairs_file_is_refused_with_its_line),
        cmocka_unit_test(test_words_are_numbered_by_use_and_lines_end),
        cmocka_unit_test(test_equal_counts_are_in_byte_order_among_many_words),
        cmocka_unit_test(test_colour_becomes_grey_and_records_are_checked),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
