/*
 * Text as a stream of word ids, as fairseq prepares WikiText (Merity et al. 2017): every line is
 * split at blanks and ends with </s>, empty lines too. Ids are <s> 0, <pad> 1, </s> 2, <unk> 3,
 * then the training text's words, frequent ones first, equal counts in byte order; the vocabulary
 * is filled up to a multiple of 8.
 */
#ifndef FB_WORD_FILE_H
#define FB_WORD_FILE_H

#include "arena.h"

#include <stdint.h>

enum { FB_WORD_END = 2, FB_WORD_UNKNOWN = 3, FB_WORD_SPECIALS = 4 };

struct fb_words;

struct fb_word_stream {
    int64_t count;
    int32_t *ids;
};

/* The words of a training text; NULL with the error filled. */
struct fb_words *fb_words_read(const char *path, struct fb_arena *arena, struct fb_error *error);
int64_t fb_words_count(const struct fb_words *words); /* of the vocabulary, filled up */

/* A text in those ids. A text without a single line is an error. */
enum fb_status fb_word_stream_read(struct fb_word_stream *stream, const struct fb_words *words,
                                   const char *path, struct fb_arena *arena,
                                   struct fb_error *error) FB_MUST_CHECK;

#endif
