/* RFC 4180: see csv.h. */
#include "csv.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing --------------------------------------------------------------------------------- */

void fb_csv_line_init(struct fb_csv_line *line)
{
    memset(line, 0, sizeof *line);
}

void fb_csv_line_free(struct fb_csv_line *line)
{
    free(line->data);
    fb_csv_line_init(line);
}

static void append(struct fb_csv_line *line, const char *bytes, size_t count)
{
    if (line->failed || count == 0)
        return;
    if (line->capacity - line->length < count) {
        size_t capacity = line->capacity == 0 ? 1024 : line->capacity;
        while (capacity - line->length < count)
            capacity *= 2;
        char *data = realloc(line->data, capacity);
        if (data == NULL) {
            line->failed = true;
            return;
        }
        line->data = data;
        line->capacity = capacity;
    }
    memcpy(line->data + line->length, bytes, count);
    line->length += count;
}

static void begin_cell(struct fb_csv_line *line)
{
    if (line->line_has_cells)
        append(line, ",", 1);
    line->line_has_cells = true;
}

void fb_csv_add_text(struct fb_csv_line *line, const char *text)
{
    begin_cell(line);
    if (strpbrk(text, ",\"\r\n") == NULL) {
        append(line, text, strlen(text));
        return;
    }
    append(line, "\"", 1);
    for (const char *rest = text; *rest != '\0';) {
        size_t plain = strcspn(rest, "\"");
        append(line, rest, plain);
        rest += plain;
        if (*rest == '"') {
            append(line, "\"\"", 2);
            rest++;
        }
    }
    append(line, "\"", 1);
}

void fb_csv_add_int(struct fb_csv_line *line, int64_t value)
{
    char text[32];

    snprintf(text, sizeof text, "%" PRId64, value);
    fb_csv_add_text(line, text);
}

void fb_csv_add_real(struct fb_csv_line *line, double value)
{
    char text[40] = "";

    /* 15 digits always survive text -> double -> text, and %g drops trailing zeros: so the first
     * of 15, 16, 17 that reads back equal is the shortest. */
    for (int digits = 15; digits <= 17 && !isnan(value); digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    fb_csv_add_text(line, text);
}

void fb_csv_end_line(struct fb_csv_line *line)
{
    append(line, "\n", 1);
    line->line_has_cells = false;
}

/* ---- reading --------------------------------------------------------------------------------- */

void fb_csv_reader_init(struct fb_csv_reader *reader, const char *text, size_t length,
                        const char *path)
{
    const bool marked = length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0;

    *reader = (struct fb_csv_reader){
        .text = text, .length = length, .path = path, .position = marked ? 3 : 0, .line_number = 1};
}

static bool at_line_end(const struct fb_csv_reader *reader, size_t *width)
{
    const char *here = reader->text + reader->position;
    const size_t left = reader->length - reader->position;

    *width = 0;
    if (left >= 1 && here[0] == '\n')
        *width = 1;
    else if (left >= 2 && here[0] == '\r' && here[1] == '\n')
        *width = 2;
    return *width > 0;
}

/* Reads one cell into out (which has room for it) and stops before the comma or line end. */
static enum fb_status read_cell(struct fb_csv_reader *reader, char *out, bool *cut,
                                size_t *lines_inside, struct fb_error *error)
{
    const char *text = reader->text;
    const bool quoted = reader->position < reader->length && text[reader->position] == '"';
    bool open = quoted;
    size_t width;

    *cut = false;
    if (quoted)
        reader->position++;
    for (;;) {
        if (reader->position >= reader->length) {
            *cut = true;
            break;
        }
        const char c = text[reader->position];
        if (c == '\0')
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s:%zu: a NUL byte: this is not a CSV text, or the disk lost a "
                                "write; remove the line",
                                reader->path, reader->line_number + *lines_inside);
        if (open && c == '"' && reader->position + 1 < reader->length &&
            text[reader->position + 1] == '"') {
            *out++ = '"';
            reader->position += 2;
            continue;
        }
        if (open && c == '"') {
            open = false;
            reader->position++;
            continue;
        }
        if (!open && (c == ',' || at_line_end(reader, &width)))
            break;
        if (!open && (quoted || c == '"'))
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s:%zu: a quote in the wrong place: a cell with quotes starts and "
                                "ends with one and doubles those inside",
                                reader->path, reader->line_number + *lines_inside);
        if (c == '\n')
            (*lines_inside)++;
        *out++ = c;
        reader->position++;
    }
    *out = '\0';
    return FB_OK;
}

/* Bytes up to the end of the record, and cells in it, both at most: quotes are honoured. */
static void measure_record(const struct fb_csv_reader *reader, size_t *bytes, size_t *cells)
{
    bool open = false;
    size_t i = reader->position;

    *cells = 1;
    for (; i < reader->length && (open || reader->text[i] != '\n'); i++) {
        if (reader->text[i] == '"')
            open = !open;
        else if (reader->text[i] == ',' && !open)
            (*cells)++;
    }
    *bytes = i - reader->position;
}

enum fb_status fb_csv_next(struct fb_csv_reader *reader, struct fb_arena *arena,
                           struct fb_csv_record *record, struct fb_error *error)
{
    size_t bytes, cells, width, lines_inside = 0;

    memset(record, 0, sizeof *record);
    while (reader->position < reader->length && at_line_end(reader, &width)) {
        reader->position += width;
        reader->line_number++;
    }
    record->line_number = reader->line_number;
    record->begin = reader->position;
    record->end = reader->position;
    if (reader->position >= reader->length)
        return FB_OK;

    measure_record(reader, &bytes, &cells);
    record->cells = fb_arena_alloc(arena, cells, sizeof *record->cells, error);
    char *out = fb_arena_alloc(arena, bytes + cells + 1, 1, error);
    if (record->cells == NULL || out == NULL)
        return FB_ERROR_MEMORY;
    for (;;) {
        bool cut;
        record->cells[record->cells_count++] = out;
        enum fb_status status = read_cell(reader, out, &cut, &lines_inside, error);
        if (status != FB_OK)
            return status;
        out += strlen(out) + 1;
        record->cut = cut;
        if (cut || at_line_end(reader, &width))
            break;
        reader->position++;
    }
    if (!record->cut)
        reader->position += width;
    record->end = reader->position;
    reader->line_number += lines_inside + 1;
    return FB_OK;
}

enum fb_status fb_csv_load(const char *path, struct fb_arena *arena, char **text, size_t *length,
                           struct fb_error *error)
{
    enum { CHUNK_BYTES = 1 << 16 };
    struct fb_csv_line content;
    char *chunk = fb_arena_alloc(arena, CHUNK_BYTES, 1, error);
    FILE *file = chunk == NULL ? NULL : fopen(path, "rb");
    size_t count;

    if (chunk == NULL)
        return FB_ERROR_MEMORY;
    if (file == NULL)
        return fb_error_set(error, FB_ERROR_IO, "cannot read '%s': %s", path, strerror(errno));
    fb_csv_line_init(&content);
    bool holds_nul = false;
    /* What follows a NUL is not worth its memory: fb_csv_next refuses the byte, at its line. */
    while (!holds_nul && (count = fread(chunk, 1, CHUNK_BYTES, file)) > 0) {
        append(&content, chunk, count);
        holds_nul = memchr(chunk, '\0', count) != NULL;
    }
    const bool read_failed = ferror(file) != 0;
    const int reason = errno;
    fclose(file);
    enum fb_status status = FB_OK;
    if (read_failed)
        status = fb_error_set(error, FB_ERROR_IO, "cannot read '%s': %s", path, strerror(reason));
    else if (content.failed)
        status = fb_error_set(error, FB_ERROR_MEMORY, "no memory to read '%s'", path);
    if (status == FB_OK) {
        *length = content.length;
        *text = fb_arena_alloc(arena, content.length + 1, 1, error);
        if (*text == NULL)
            status = FB_ERROR_MEMORY;
        else if (content.length > 0)
            memcpy(*text, content.data, content.length);
    }
    fb_csv_line_free(&content);
    return status;
}
