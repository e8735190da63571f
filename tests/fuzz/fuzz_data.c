/*
 * Data files of the training tasks: any file is either refused in words, or what is read of it
 * keeps its promises. The first byte says which reader gets the rest: l ListOps, p pairs, w words,
 * s time series, i images.
 */
#include "fuzz_input.h"

#include "documents.h"
#include "image_file.h"
#include "listops_file.h"
#include "series_file.h"
#include "word_file.h"

#define ARENA_BYTES ((size_t)256 << 20)
enum { KEPT_BYTES = 16, RECORDS = 2, CLASSES = 10 };

static enum fb_status try_listops(const char *path, struct fb_arena *arena, struct fb_error *error)
{
    struct fb_listops_examples examples;
    char text[FB_LISTOPS_TEXT_SIZE];
    const enum fb_status status = fb_listops_read(&examples, path, arena, error);
    for (int64_t i = 0; i < examples.count && status == FB_OK; i++) {
        const uint8_t *tokens = examples.tokens + examples.starts[i];
        const int length = (int)(examples.starts[i + 1] - examples.starts[i]);
        uint8_t again[FB_LISTOPS_LENGTH_MAX];
        size_t at;
        int value = -1;
        fuzz_check(fb_listops_evaluate(tokens, length, &value) && value == examples.targets[i],
                   "a tree that was read has another value");
        const size_t size = fb_listops_write(tokens, length, text);
        fuzz_check(size < sizeof text &&
                       fb_listops_tokenise(text, size, again, length, &at) == length,
                   "a tree changed when it was written and read back");
    }
    return status;
}

static enum fb_status try_pairs(const char *path, struct fb_arena *arena, struct fb_error *error)
{
    struct fb_documents set;
    int32_t ids[2 * KEPT_BYTES];
    int64_t lengths[2];
    const enum fb_status status = fb_pairs_read(&set, path, KEPT_BYTES, arena, error);
    for (int64_t i = 0; i < set.count && status == FB_OK; i++) {
        fb_documents_fill(&set, i, KEPT_BYTES, ids, lengths);
        fuzz_check(lengths[0] >= 1 && lengths[1] >= 1 && (set.labels[i] == 0 || set.labels[i] == 1),
                   "a pair has an empty text or no label");
    }
    return status;
}

static enum fb_status try_words(const char *path, struct fb_arena *arena, struct fb_error *error)
{
    struct fb_word_stream stream;
    struct fb_words *words = fb_words_read(path, arena, error);
    if (words == NULL)
        return error->code;
    const enum fb_status status = fb_word_stream_read(&stream, words, path, arena, error);
    fuzz_check(status == FB_OK && fb_words_count(words) % 8 == 0, "a text lost its own words");
    for (int64_t i = 0; i < stream.count; i++)
        fuzz_check(stream.ids[i] >= FB_WORD_END && stream.ids[i] < fb_words_count(words),
                   "an id is outside of the vocabulary");
    return status;
}

static enum fb_status try_series(const char *path, struct fb_arena *arena, struct fb_error *error)
{
    struct fb_series_set set = {0};
    const enum fb_status status = fb_series_read(&set, path, NULL, arena, error);
    for (int64_t i = 0; i < set.count && status == FB_OK; i++)
        fuzz_check(set.series[i].label >= 0 && set.series[i].label < set.class_count,
                   "a series has no class");
    return status;
}

static enum fb_status try_images(const char *path, struct fb_arena *arena, struct fb_error *error)
{
    struct fb_images images;
    enum fb_status status = fb_images_init(&images, RECORDS, arena, error);
    if (status == FB_OK)
        status = fb_images_read(&images, 0, RECORDS, FB_IMAGE_GREY_BYTES, CLASSES, path, error);
    for (int64_t i = 0; i < RECORDS && status == FB_OK; i++)
        fuzz_check(images.labels[i] < CLASSES, "an image has no class");
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static struct fuzz_file input;
    struct fb_arena arena;
    struct fb_error error = {FB_OK, ""};
    enum fb_status status = FB_OK;
    if (count == 0)
        return 0;
    fuzz_file_set(&input, bytes + 1, count - 1);
    fb_arena_init(&arena, ARENA_BYTES);
    switch (bytes[0]) {
    case 'l':
        status = try_listops(input.path, &arena, &error);
        break;
    case 'p':
        status = try_pairs(input.path, &arena, &error);
        break;
    case 'w':
        status = try_words(input.path, &arena, &error);
        break;
    case 's':
        status = try_series(input.path, &arena, &error);
        break;
    case 'i':
        status = try_images(input.path, &arena, &error);
        break;
    default:
        break;
    }
    if (status != FB_OK)
        fuzz_check_refusal(status, &error);
    fb_arena_free(&arena);
    return 0;
}
