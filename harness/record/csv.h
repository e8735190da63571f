/*
 * Comma-separated values as RFC 4180 has them: cells with commas, quotes or line ends are quoted,
 * a quote inside is doubled. Written lines end in LF; LF and CRLF are read.
 */
#ifndef FB_CSV_H
#define FB_CSV_H

#include "arena.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- writing --------------------------------------------------------------------------------- */

/* One line, or several, growing in memory until they are written out in one piece. */
struct fb_csv_line {
    char *data; /* owned; NULL before the first cell */
    size_t length, capacity;
    bool line_has_cells;
    bool failed; /* an allocation failed: the line is incomplete and must not be written */
};

void fb_csv_line_init(struct fb_csv_line *line);
void fb_csv_line_free(struct fb_csv_line *line);

/* Append one cell to the current line. An empty text is an absent value. */
void fb_csv_add_text(struct fb_csv_line *line, const char *text);
void fb_csv_add_int(struct fb_csv_line *line, int64_t value);
/* The shortest decimal that reads back as the same double; NaN is an absent value. */
void fb_csv_add_real(struct fb_csv_line *line, double value);
void fb_csv_end_line(struct fb_csv_line *line);

/* ---- reading --------------------------------------------------------------------------------- */

struct fb_csv_reader {
    const char *text;
    size_t length;
    const char *path; /* for messages */
    size_t position;
    size_t line_number; /* of the next record, from 1 */
};

struct fb_csv_record {
    char **cells; /* in the arena, unquoted */
    size_t cells_count;
    size_t line_number; /* where the record starts */
    size_t begin, end;  /* its bytes in the text, line end included */
    bool cut;           /* the text stops inside the record: no line end */
};

/* A leading byte-order mark is skipped. */
void fb_csv_reader_init(struct fb_csv_reader *reader, const char *text, size_t length,
                        const char *path);

/* The next record; cells_count is 0 at the end of the text. Empty lines are passed over. A cut
 * record is delivered with `cut` set, not refused: whoever reads decides what it means. Fails with
 * FB_ERROR_INPUT ("path:line: ...") on a quote in the wrong place or a NUL byte. */
enum fb_status fb_csv_next(struct fb_csv_reader *reader, struct fb_arena *arena,
                           struct fb_csv_record *record, struct fb_error *error) FB_MUST_CHECK;

/* A whole file as text in the arena, ended by a NUL that length does not count. */
enum fb_status fb_csv_load(const char *path, struct fb_arena *arena, char **text, size_t *length,
                           struct fb_error *error) FB_MUST_CHECK;

#endif
