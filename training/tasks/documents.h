/*
 * Documents as bytes, for tasks that read text byte by byte: id = byte + 1, padding 0. Of every
 * document only its first bytes are kept, as many as a model reads.
 */
#ifndef FB_DOCUMENTS_H
#define FB_DOCUMENTS_H

#include "arena.h"

#include <stdint.h>

enum { FB_BYTE_VOCABULARY = 257 };

struct fb_document {
    const uint8_t *bytes;
    int64_t length;
};

/* Examples of one or two documents each. */
struct fb_documents {
    int64_t count, each; /* examples, documents of one */
    struct fb_document *documents;
    int32_t *labels;
    int64_t capacity;
};

/* Room for one more example, which the caller then counts. */
enum fb_status fb_documents_grow(struct fb_documents *set, struct fb_arena *arena,
                                 struct fb_error *error) FB_MUST_CHECK;

/* One example as ids [each, tokens] with lengths [each]. */
void fb_documents_fill(const struct fb_documents *set, int64_t index, int64_t tokens, int32_t *ids,
                       int64_t *lengths);

/* The IMDb reviews as Maas et al. (2011) publish them: folder/{neg,pos}/NAME.txt, one review a
 * file, labels 0 and 1. In the order of labels and of names as strings. An empty review, an empty
 * folder and anything unreadable are errors that name it. */
enum fb_status fb_reviews_read(struct fb_documents *set, const char *folder, int64_t bytes_max,
                               struct fb_arena *arena, struct fb_error *error) FB_MUST_CHECK;

/* Pairs of papers in the form of the Long Range Arena: lines of label, id, id, text, text between
 * tabs, without quoting; the label is a number, 0 or 1 ("1.0"). Errors name the line. */
enum fb_status fb_pairs_read(struct fb_documents *set, const char *path, int64_t bytes_max,
                             struct fb_arena *arena, struct fb_error *error) FB_MUST_CHECK;

#endif
