/* Aligned tables for the terminal. See text_table.h. */
#include "text_table.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *style_start(enum fb_text_style style)
{
    static const char *const codes[] = {[FB_TEXT_PLAIN] = "",
                                        [FB_TEXT_GOOD] = "\x1b[32m",
                                        [FB_TEXT_BAD] = "\x1b[31m",
                                        [FB_TEXT_WARNING] = "\x1b[33m",
                                        [FB_TEXT_FAINT] = "\x1b[2m"};
    return codes[style];
}

void fb_text_print(FILE *out, struct fb_text_mode mode, enum fb_text_style style, const char *text)
{
    bool colored = mode.color && style != FB_TEXT_PLAIN;
    (void)fprintf(out, "%s%s%s", colored ? style_start(style) : "", text, colored ? "\x1b[0m" : "");
}

static size_t displayed_width(const char *text)
{
    size_t width = 0;
    for (; *text; text++) {
        width += ((unsigned char)*text & 0xC0u) != 0x80u;
    }
    return width;
}

void fb_text_table_init(struct fb_text_table *table, struct fb_arena *arena)
{
    *table = (struct fb_text_table){.arena = arena};
}

size_t fb_text_table_column(struct fb_text_table *table, const char *header, bool right)
{
    assert(table->columns_count < FB_TABLE_COLUMNS_MAX && table->rows_count == 0);
    table->headers[table->columns_count] = header;
    table->right[table->columns_count] = right;
    return table->columns_count++;
}

enum fb_status fb_text_table_row(struct fb_text_table *table, struct fb_error *error)
{
    if (table->rows_count == table->rows_capacity) {
        size_t capacity = table->rows_capacity ? 2 * table->rows_capacity : 16;
        struct fb_text_cell *cells =
            fb_arena_alloc(table->arena, capacity * table->columns_count, sizeof *cells, error);
        if (!cells) {
            return FB_ERROR_MEMORY;
        }
        if (table->rows_count > 0) {
            memcpy(cells, table->cells, table->rows_count * table->columns_count * sizeof *cells);
        }
        table->cells = cells;
        table->rows_capacity = capacity;
    }
    for (size_t c = 0; c < table->columns_count; c++) {
        table->cells[table->rows_count * table->columns_count + c] =
            (struct fb_text_cell){"", FB_TEXT_PLAIN};
    }
    table->rows_count++;
    return FB_OK;
}

void fb_text_table_set(struct fb_text_table *table, size_t column, const char *text,
                       enum fb_text_style style)
{
    assert(table->rows_count > 0 && column < table->columns_count);
    table->cells[(table->rows_count - 1) * table->columns_count + column] =
        (struct fb_text_cell){text, style};
}

static void print_padded(FILE *out, struct fb_text_mode mode, struct fb_text_cell cell,
                         size_t width, bool right, bool last)
{
    size_t used = displayed_width(cell.text), padding = width > used ? width - used : 0;
    if (right) {
        (void)fprintf(out, "%*s", (int)padding, "");
    }
    fb_text_print(out, mode, cell.style, cell.text);
    if (!right && !last) {
        (void)fprintf(out, "%*s", (int)padding, "");
    }
    (void)fputs(last ? "\n" : "  ", out);
}

void fb_text_table_print(const struct fb_text_table *table, struct fb_text_mode mode, FILE *out)
{
    size_t widths[FB_TABLE_COLUMNS_MAX], columns = table->columns_count;
    for (size_t c = 0; c < columns; c++) {
        widths[c] = displayed_width(table->headers[c]);
        for (size_t r = 0; r < table->rows_count; r++) {
            size_t width = displayed_width(table->cells[r * columns + c].text);
            widths[c] = width > widths[c] ? width : widths[c];
        }
    }
    for (size_t c = 0; c < columns; c++) {
        struct fb_text_cell header = {table->headers[c], FB_TEXT_PLAIN};
        print_padded(out, mode, header, widths[c], table->right[c], c + 1 == columns);
    }
    for (size_t c = 0; c < columns; c++) {
        for (size_t i = 0; i < widths[c]; i++) {
            (void)fputs(mode.unicode ? "\xe2\x94\x80" : "-", out);
        }
        (void)fputs(c + 1 == columns ? "\n" : "  ", out);
    }
    for (size_t r = 0; r < table->rows_count; r++) {
        for (size_t c = 0; c < columns; c++) {
            print_padded(out, mode, table->cells[r * columns + c], widths[c], table->right[c],
                         c + 1 == columns);
        }
    }
}

bool fb_text_locale_is_utf8(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        if (value && value[0] != '\0') {
            const char *codeset = strchr(value, '.');
            return codeset && (strncasecmp(codeset, ".utf-8", 6) == 0 ||
                               strncasecmp(codeset, ".utf8", 5) == 0);
        }
    }
    return false;
}
