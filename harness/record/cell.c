/* Fields of plain structs as cells: see cell.h. */
#include "cell.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void fb_cell_add(struct fb_csv_line *line, const struct fb_column *column, const void *object)
{
    const char *field = (const char *)object + column->offset;
    int64_t integer;
    double real;

    switch (column->type) {
    case FB_COLUMN_TEXT:
        fb_csv_add_text(line, field);
        break;
    case FB_COLUMN_INT:
        memcpy(&integer, field, sizeof integer);
        if (integer == FB_ROW_NONE)
            fb_csv_add_text(line, "");
        else
            fb_csv_add_int(line, integer);
        break;
    case FB_COLUMN_REAL:
        memcpy(&real, field, sizeof real);
        fb_csv_add_real(line, real);
        break;
    }
}

enum fb_status fb_cell_parse_int(const char *text, int64_t *value)
{
    char *end;

    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0)
        return FB_ERROR_INPUT;
    *value = parsed;
    return FB_OK;
}

enum fb_status fb_cell_parse_real(const char *text, double *value)
{
    char *end;

    *value = strtod(text, &end);
    return end == text || *end != '\0' ? FB_ERROR_INPUT : FB_OK;
}

enum fb_status fb_cell_set(void *object, const struct fb_column *column, const char *cell,
                           const char *path, size_t line_number, struct fb_error *error)
{
    char *field = (char *)object + column->offset;
    enum fb_status status = FB_OK;
    int64_t integer = FB_ROW_NONE;
    double real = (double)NAN;

    switch (column->type) {
    case FB_COLUMN_TEXT:
        if (strlen(cell) >= column->size)
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s:%zu: column '%s' has %zu characters, the limit is %zu", path,
                                line_number, column->name, strlen(cell), column->size - 1);
        memcpy(field, cell, strlen(cell) + 1);
        return FB_OK;
    case FB_COLUMN_INT:
        if (*cell != '\0')
            status = fb_cell_parse_int(cell, &integer);
        memcpy(field, &integer, sizeof integer);
        break;
    case FB_COLUMN_REAL:
        if (*cell != '\0')
            status = fb_cell_parse_real(cell, &real);
        memcpy(field, &real, sizeof real);
        break;
    }
    if (status != FB_OK)
        return fb_error_set(error, status, "%s:%zu: column '%s': '%.60s' is not %s", path,
                            line_number, column->name, cell,
                            column->type == FB_COLUMN_INT ? "an integer" : "a number");
    return FB_OK;
}

void fb_cells_clear(void *object, const struct fb_column *columns, size_t count)
{
    const int64_t none = FB_ROW_NONE;
    const double absent = (double)NAN;

    for (size_t i = 0; i < count; i++) {
        char *field = (char *)object + columns[i].offset;
        if (columns[i].type == FB_COLUMN_TEXT)
            memset(field, 0, columns[i].size);
        else if (columns[i].type == FB_COLUMN_INT)
            memcpy(field, &none, sizeof none);
        else
            memcpy(field, &absent, sizeof absent);
    }
}

enum fb_status fb_row_check(const struct fb_row *row, const char *path, size_t line_number,
                            struct fb_error *error)
{
    if (row->schema != FB_ROW_NONE && row->schema > FB_RESULTS_SCHEMA)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s:%zu: schema %" PRId64 " is newer than %d, the newest that this "
                            "flowbench reads; use the flowbench that wrote the file",
                            path, line_number, row->schema, FB_RESULTS_SCHEMA);
    for (int i = 0; fb_row_statuses[i] != NULL; i++) {
        if (strcmp(row->status, fb_row_statuses[i]) == 0)
            return FB_OK;
    }
    return fb_error_set(error, FB_ERROR_INPUT,
                        "%s:%zu: status '%s' is none of ok, skipped, oom, timeout, crash, wrong, "
                        "error",
                        path, line_number, row->status);
}
