/* See word_file.h. The words of a text are found by a hash table whose keys point into the text. */
#include "word_file.h"

#include "data_file.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { SLOTS_FIRST = 1 << 16, FILL = 8 };
#define WORDS_MAX INT64_C(16777216)

struct word {
    const char *text;
    int64_t length, uses;
    int32_t id;
};

struct fb_words {
    struct word *words;
    int64_t count, capacity;
    int32_t *slots; /* index + 1 into words; 0: empty */
    uint64_t mask;
    struct fb_arena *arena;
};

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

static bool next_word(const char **at, const char *end, const char **word, int64_t *length)
{
    while (*at < end && blank(**at))
        (*at)++;
    *word = *at;
    while (*at < end && !blank(**at))
        (*at)++;
    *length = *at - *word;
    return *length > 0;
}

static int32_t *find_slot(const struct fb_words *words, const char *text, int64_t length)
{
    uint64_t at = XXH3_64bits(text, (size_t)length) & words->mask;
    while (words->slots[at] != 0) {
        const struct word *word = &words->words[words->slots[at] - 1];
        if (word->length == length && memcmp(word->text, text, (size_t)length) == 0)
            break;
        at = (at + 1) & words->mask;
    }
    return &words->slots[at];
}

/* Doubles the tables; they are at most half full. */
static enum fb_status grow(struct fb_words *words, struct fb_error *error)
{
    if (words->count < words->capacity)
        return FB_OK;
    if (words->count >= WORDS_MAX)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "the text has more than %" PRId64 " different words", WORDS_MAX);
    const int64_t capacity = words->capacity > 0 ? 2 * words->capacity : SLOTS_FIRST / 2;
    struct word *list = fb_arena_alloc(words->arena, (size_t)capacity, sizeof *list, error);
    int32_t *slots =
        list ? fb_arena_alloc(words->arena, 2 * (size_t)capacity, sizeof *slots, error) : NULL;
    if (!slots)
        return FB_ERROR_MEMORY;
    if (words->count > 0)
        memcpy(list, words->words, (size_t)words->count * sizeof *list);
    words->words = list;
    words->slots = slots;
    words->capacity = capacity;
    words->mask = 2 * (uint64_t)capacity - 1;
    for (int64_t i = 0; i < words->count; i++)
        *find_slot(words, list[i].text, list[i].length) = (int32_t)i + 1;
    return FB_OK;
}

static bool is_unknown(const char *text, int64_t length)
{
    return length == 5 && memcmp(text, "<unk>", 5) == 0;
}

static enum fb_status count_words(struct fb_words *words, const struct fb_data_file *file,
                                  struct fb_error *error)
{
    struct fb_data_lines lines = {.file = file};
    const char *line, *word;
    int64_t length, word_length;
    while (fb_data_line_next(&lines, &line, &length)) {
        const char *const end = line + length;
        while (next_word(&line, end, &word, &word_length)) {
            const enum fb_status status = grow(words, error);
            if (status != FB_OK)
                return status;
            int32_t *slot = find_slot(words, word, word_length);
            if (*slot == 0) {
                words->words[words->count] = (struct word){word, word_length, 0, FB_WORD_UNKNOWN};
                *slot = (int32_t)++words->count;
            }
            words->words[*slot - 1].uses++;
        }
    }
    return words->count > 0 ? FB_OK
                            : fb_error_set(error, FB_ERROR_INPUT,
                                           "'%s' has no word: it is truncated", file->path);
}

struct ranked {
    struct word *word;
};

static int by_use(const void *a, const void *b)
{
    const struct word *x = ((const struct ranked *)a)->word, *y = ((const struct ranked *)b)->word;
    if (x->uses != y->uses)
        return x->uses < y->uses ? 1 : -1;
    const int order =
        memcmp(x->text, y->text, (size_t)(x->length < y->length ? x->length : y->length));
    return order != 0 ? order : (x->length > y->length) - (x->length < y->length);
}

static enum fb_status number_words(struct fb_words *words, struct fb_error *error)
{
    struct ranked *order = fb_arena_alloc(words->arena, (size_t)words->count, sizeof *order, error);
    int32_t id = FB_WORD_SPECIALS;
    if (!order)
        return FB_ERROR_MEMORY;
    for (int64_t i = 0; i < words->count; i++)
        order[i].word = &words->words[i];
    qsort(order, (size_t)words->count, sizeof *order, by_use);
    for (int64_t i = 0; i < words->count; i++)
        if (!is_unknown(order[i].word->text, order[i].word->length))
            order[i].word->id = id++;
    return FB_OK;
}

struct fb_words *fb_words_read(const char *path, struct fb_arena *arena, struct fb_error *error)
{
    struct fb_words *words = fb_arena_alloc(arena, 1, sizeof *words, error);
    struct fb_data_file file;
    if (!words)
        return NULL;
    words->arena = arena;
    if (fb_data_file_read(&file, path, arena, error) != FB_OK ||
        count_words(words, &file, error) != FB_OK || number_words(words, error) != FB_OK)
        return NULL;
    return words;
}

int64_t fb_words_count(const struct fb_words *words)
{
    int64_t known = words->count;
    if (*find_slot(words, "<unk>", 5) != 0)
        known--;
    return (known + FB_WORD_SPECIALS + FILL - 1) / FILL * FILL;
}

/* Counts the ids of a text, and writes them unless ids is NULL. */
static int64_t write_ids(const struct fb_words *words, const struct fb_data_file *file,
                         int32_t *ids)
{
    struct fb_data_lines lines = {.file = file};
    const char *line, *word;
    int64_t length, word_length, count = 0;
    while (fb_data_line_next(&lines, &line, &length)) {
        const char *const end = line + length;
        while (next_word(&line, end, &word, &word_length)) {
            if (ids) {
                const int32_t slot = *find_slot(words, word, word_length);
                ids[count] = slot == 0 ? FB_WORD_UNKNOWN : words->words[slot - 1].id;
            }
            count++;
        }
        if (ids)
            ids[count] = FB_WORD_END;
        count++;
    }
    return count;
}

enum fb_status fb_word_stream_read(struct fb_word_stream *stream, const struct fb_words *words,
                                   const char *path, struct fb_arena *arena, struct fb_error *error)
{
    struct fb_data_file file;
    struct fb_arena text;
    fb_arena_init(&text, 0);
    enum fb_status status = fb_data_file_read(&file, path, &text, error);
    stream->count = status == FB_OK ? write_ids(words, &file, NULL) : 0;
    if (status == FB_OK && stream->count == 0)
        status = fb_error_set(error, FB_ERROR_INPUT, "'%s' is empty: it is truncated", path);
    if (status == FB_OK) {
        stream->ids = fb_arena_alloc(arena, (size_t)stream->count, sizeof *stream->ids, error);
        status = stream->ids ? FB_OK : FB_ERROR_MEMORY;
    }
    if (status == FB_OK)
        (void)write_ids(words, &file, stream->ids);
    fb_arena_free(&text);
    return status;
}
