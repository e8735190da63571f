/*
 * Cells: one column of a plain struct as CSV text and back, driven by its struct fb_column. Rows of
 * results.csv and runs of the history are written and read by it alone.
 */
#ifndef FB_CELL_H
#define FB_CELL_H

#include "csv.h"
#include "row.h"

/* Appends the object's field: an empty cell when it is absent. */
void fb_cell_add(struct fb_csv_line *line, const struct fb_column *column, const void *object);

/* Sets the object's field from a cell; an empty one is an absent value. FB_ERROR_INPUT
 * ("path:line: column '...'") when it is too long or no number. */
enum fb_status fb_cell_set(void *object, const struct fb_column *column, const char *cell,
                           const char *path, size_t line_number,
                           struct fb_error *error) FB_MUST_CHECK;

/* Every field of the columns absent. */
void fb_cells_clear(void *object, const struct fb_column *columns, size_t count);

/* The whole text as an integer or a number. */
enum fb_status fb_cell_parse_int(const char *text, int64_t *value) FB_MUST_CHECK;
enum fb_status fb_cell_parse_real(const char *text, double *value) FB_MUST_CHECK;

/* A row that is read: its schema is not newer than this flowbench, its status is one of them. */
enum fb_status fb_row_check(const struct fb_row *row, const char *path, size_t line_number,
                            struct fb_error *error) FB_MUST_CHECK;

#endif
