/* Sets of documents and the pairs' file: see documents.h. */
#include "documents.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAIR_FIELDS = 5 };

enum fb_status fb_documents_grow(struct fb_documents *set, struct fb_arena *arena,
                                 struct fb_error *error)
{
    assert(set->each > 0);
    if (set->count < set->capacity)
        return FB_OK;
    const int64_t capacity = set->capacity > 0 ? 2 * set->capacity : 1024;
    struct fb_document *documents =
        fb_arena_alloc(arena, (size_t)(capacity * set->each), sizeof *documents, error);
    int32_t *labels =
        documents ? fb_arena_alloc(arena, (size_t)capacity, sizeof *labels, error) : NULL;
    if (!labels)
        return FB_ERROR_MEMORY;
    if (set->count > 0) {
        memcpy(documents, set->documents, (size_t)(set->count * set->each) * sizeof *documents);
        memcpy(labels, set->labels, (size_t)set->count * sizeof *labels);
    }
    set->documents = documents;
    set->labels = labels;
    set->capacity = capacity;
    return FB_OK;
}

void fb_documents_fill(const struct fb_documents *set, int64_t index, int64_t tokens, int32_t *ids,
                       int64_t *lengths)
{
    for (int64_t d = 0; d < set->each; d++) {
        const struct fb_document *document = &set->documents[index * set->each + d];
        const int64_t length = document->length < tokens ? document->length : tokens;
        for (int64_t t = 0; t < tokens; t++)
            ids[d * tokens + t] = t < length ? document->bytes[t] + 1 : 0;
        lengths[d] = length;
    }
}

/* ---- pairs --------------------------------------------------------------------------------- */

struct pairs_reader {
    struct fb_documents *set;
    const char *path;
    int64_t line, bytes_max;
    struct fb_arena *arena;
    struct fb_error *error;
};

static enum fb_status bad(const struct pairs_reader *r, const char *text)
{
    return fb_error_set(r->error, FB_ERROR_INPUT, "%s:%" PRId64 ": %s", r->path, r->line, text);
}

/* Cuts a line at its tabs; returns the number of fields. */
static int split(char *line, size_t length, char **fields, size_t *lengths)
{
    int count = 0;
    char *at = line, *const end = line + length;
    while (at != NULL && count <= PAIR_FIELDS) {
        char *tab = memchr(at, '\t', (size_t)(end - at));
        if (count < PAIR_FIELDS) {
            fields[count] = at;
            lengths[count] = (size_t)((tab ? tab : end) - at);
        }
        count++;
        at = tab ? tab + 1 : NULL;
    }
    return count;
}

static enum fb_status keep(const struct pairs_reader *r, struct fb_document *document,
                           const char *text, size_t length)
{
    const size_t kept = length < (size_t)r->bytes_max ? length : (size_t)r->bytes_max;
    uint8_t *bytes = fb_arena_alloc(r->arena, kept, 1, r->error);
    if (!bytes)
        return FB_ERROR_MEMORY;
    memcpy(bytes, text, kept);
    *document = (struct fb_document){bytes, (int64_t)kept};
    return FB_OK;
}

static enum fb_status read_pair(struct pairs_reader *r, char *line, size_t length)
{
    char *fields[PAIR_FIELDS], *end;
    size_t lengths[PAIR_FIELDS];
    while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r'))
        line[--length] = '\0';
    if (split(line, length, fields, lengths) != PAIR_FIELDS)
        return bad(r, "expected five fields between tabs: label, id, id, text, text; the file is "
                      "truncated, or no file of AAN pairs");
    const double label = strtod(fields[0], &end);
    if (lengths[0] == 0 || end != fields[1] - 1 || (label != 0.0 && label != 1.0))
        return bad(r, "the label is neither 0 nor 1");
    if (lengths[3] == 0 || lengths[4] == 0)
        return bad(r, "a text is empty: the file is damaged");
    enum fb_status status = fb_documents_grow(r->set, r->arena, r->error);
    for (int d = 0; d < 2 && status == FB_OK; d++)
        status = keep(r, &r->set->documents[2 * r->set->count + d], fields[3 + d], lengths[3 + d]);
    if (status == FB_OK)
        r->set->labels[r->set->count++] = label > 0.5 ? 1 : 0;
    return status;
}

enum fb_status fb_pairs_read(struct fb_documents *set, const char *path, int64_t bytes_max,
                             struct fb_arena *arena, struct fb_error *error)
{
    struct pairs_reader r = {set, path, 0, bytes_max, arena, error};
    enum fb_status status = FB_OK;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    *set = (struct fb_documents){.each = 2};
    FILE *file = fopen(path, "re");
    if (!file)
        return fb_error_set(error, FB_ERROR_IO, "cannot read '%s': %s", path, strerror(errno));
    errno = 0;
    while (status == FB_OK && (length = getline(&line, &capacity, file)) >= 0) {
        r.line++;
        status = read_pair(&r, line, (size_t)length);
    }
    if (status == FB_OK && !feof(file))
        status = fb_error_set(error, FB_ERROR_IO, "cannot read '%s': %s", path, strerror(errno));
    if (status == FB_OK && set->count == 0)
        status = fb_error_set(error, FB_ERROR_INPUT, "'%s' is empty: there is no pair in it", path);
    free(line);
    (void)fclose(file);
    return status;
}
