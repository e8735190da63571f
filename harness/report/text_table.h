/* A table of text cells for the terminal: columns aligned by displayed width (UTF-8 counted by
 * character), a rule under the header, optional colour per cell. Owned by the arena given. */
#ifndef FB_TEXT_TABLE_H
#define FB_TEXT_TABLE_H

#include "arena.h"

#include <stdbool.h>
#include <stdio.h>

enum { FB_TABLE_COLUMNS_MAX = 24 };
enum fb_text_style { FB_TEXT_PLAIN, FB_TEXT_GOOD, FB_TEXT_BAD, FB_TEXT_WARNING, FB_TEXT_FAINT };

struct fb_text_cell {
    const char *text;
    enum fb_text_style style;
};

struct fb_text_table {
    struct fb_arena *arena;
    const char *headers[FB_TABLE_COLUMNS_MAX];
    bool right[FB_TABLE_COLUMNS_MAX]; /* aligned to the right */
    size_t columns_count;
    struct fb_text_cell *cells; /* rows_count x columns_count */
    size_t rows_count, rows_capacity;
};

struct fb_text_mode {
    bool color;
    bool unicode;
};

/* Columns are added first, then rows filled cell by cell. */
void fb_text_table_init(struct fb_text_table *table, struct fb_arena *arena);
size_t fb_text_table_column(struct fb_text_table *table, const char *header, bool right);
enum fb_status fb_text_table_row(struct fb_text_table *table, struct fb_error *error) FB_MUST_CHECK;

/* Sets a cell of the last row; text must live as long as the table. */
void fb_text_table_set(struct fb_text_table *table, size_t column, const char *text,
                       enum fb_text_style style);
void fb_text_table_print(const struct fb_text_table *table, struct fb_text_mode mode, FILE *out);

/* Writes text in a style when colours are on. */
void fb_text_print(FILE *out, struct fb_text_mode mode, enum fb_text_style style, const char *text);

/* Whether the environment's locale (LC_ALL, LC_CTYPE, LANG) names UTF-8. */
bool fb_text_locale_is_utf8(void);

#endif
