/* Reading a training run back: see accuracy_file.h. */
#include "accuracy_file.h"

#include "cell.h"
#include "csv_table.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- accuracy.csv ---------------------------------------------------------------------------- */

static const struct fb_column *find_column(const char *name)
{
    for (size_t i = 0; i < fb_accuracy_column_count(); i++)
        if (strcmp(fb_accuracy_column_at(i)->name, name) == 0)
            return fb_accuracy_column_at(i);
    return NULL;
}

static enum fb_status check_row(const struct fb_accuracy_row *row, const char *path, size_t line,
                                struct fb_error *error)
{
    struct fb_row same;
    fb_row_init(&same);
    same.schema = row->schema;
    memcpy(same.status, row->status, sizeof same.status);
    return fb_row_check(&same, path, line, error);
}

enum fb_status fb_accuracy_read_rows(const char *path, struct fb_arena *arena,
                                     struct fb_accuracy *accuracy, struct fb_error *error)
{
    *accuracy = (struct fb_accuracy){0};
    struct fb_csv_table table;
    enum fb_status status = fb_csv_table_read(path, arena, &table, error);
    if (status != FB_OK)
        return status;
    accuracy->rows = fb_arena_alloc(arena, table.count + 1, sizeof *accuracy->rows, error);
    if (!accuracy->rows)
        return FB_ERROR_MEMORY;
    for (size_t r = 0; r < table.count && status == FB_OK; r++) {
        const struct fb_csv_record *record = &table.records[r];
        struct fb_accuracy_row *row = &accuracy->rows[r];
        fb_accuracy_row_init(row);
        for (size_t c = 0; c < table.header.cells_count && status == FB_OK; c++) {
            const struct fb_column *column = find_column(table.header.cells[c]);
            if (column)
                status =
                    fb_cell_set(row, column, record->cells[c], path, record->line_number, error);
        }
        if (status == FB_OK)
            status = check_row(row, path, record->line_number, error);
    }
    accuracy->rows_count = table.count;
    return status;
}

/* ---- curves.csv, correct.csv ----------------------------------------------------------------- */

static enum fb_status bad_line(const char *path, size_t line, struct fb_error *error)
{
    return fb_error_set(error, FB_ERROR_INPUT, "%s:%zu: not a line that flowbench has written",
                        path, line);
}

static bool read_point(char **cells, struct fb_curve_point *point)
{
    const struct {
        const char *cell;
        double *value;
    } reals[] = {{cells[3], &point->epoch},
                 {cells[4], &point->train_loss},
                 {cells[5], &point->loss},
                 {cells[6], &point->metric},
                 {cells[7], &point->elapsed_s}};
    if (strlen(cells[0]) >= sizeof point->case_id ||
        fb_cell_parse_int(cells[1], &point->trial) != FB_OK ||
        fb_cell_parse_int(cells[2], &point->step) != FB_OK)
        return false;
    memcpy(point->case_id, cells[0], strlen(cells[0]) + 1);
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++)
        if (fb_cell_parse_real(reals[i].cell[0] ? reals[i].cell : "nan", reals[i].value) != FB_OK)
            return false;
    return true;
}

static enum fb_status read_curves(const char *path, struct fb_arena *arena,
                                  struct fb_accuracy *accuracy, struct fb_error *error)
{
    struct fb_csv_table table;
    enum { CELLS = 8 };
    const enum fb_status status = fb_csv_table_read(path, arena, &table, error);
    if (status != FB_OK)
        return status;
    accuracy->points = fb_arena_alloc(arena, table.count + 1, sizeof *accuracy->points, error);
    if (!accuracy->points)
        return FB_ERROR_MEMORY;
    for (size_t i = 0; i < table.count; i++)
        if (table.records[i].cells_count != CELLS ||
            !read_point(table.records[i].cells, &accuracy->points[i]))
            return bad_line(path, table.records[i].line_number, error);
    accuracy->points_count = table.count;
    return FB_OK;
}

static enum fb_status read_correct(const char *path, struct fb_arena *arena,
                                   struct fb_accuracy *accuracy, struct fb_error *error)
{
    struct fb_csv_table table;
    const enum fb_status status = fb_csv_table_read(path, arena, &table, error);
    if (status != FB_OK)
        return status;
    accuracy->correct = fb_arena_alloc(arena, table.count + 1, sizeof *accuracy->correct, error);
    if (!accuracy->correct)
        return FB_ERROR_MEMORY;
    for (size_t i = 0; i < table.count; i++) {
        char **cells = table.records[i].cells;
        struct fb_correct_bits *one = &accuracy->correct[i];
        if (table.records[i].cells_count != 2 || strlen(cells[0]) >= sizeof one->case_id ||
            cells[1][strspn(cells[1], "01")] != '\0')
            return bad_line(path, table.records[i].line_number, error);
        memcpy(one->case_id, cells[0], strlen(cells[0]) + 1);
        one->bits = cells[1];
    }
    accuracy->correct_count = table.count;
    return FB_OK;
}

/* ---- public ---------------------------------------------------------------------------------- */

bool fb_accuracy_is_run(const char *dir)
{
    char path[4096];
    const int length = snprintf(path, sizeof path, "%s/accuracy.csv", dir);
    return length > 0 && (size_t)length < sizeof path && access(path, F_OK) == 0;
}

enum fb_status fb_accuracy_read(const char *dir, struct fb_arena *arena,
                                struct fb_accuracy *accuracy, struct fb_error *error)
{
    const char *rows = fb_arena_printf(arena, error, "%s/accuracy.csv", dir);
    const char *curves = rows ? fb_arena_printf(arena, error, "%s/curves.csv", dir) : NULL;
    const char *correct = curves ? fb_arena_printf(arena, error, "%s/correct.csv", dir) : NULL;
    if (!correct)
        return FB_ERROR_MEMORY;
    enum fb_status status = fb_accuracy_read_rows(rows, arena, accuracy, error);
    accuracy->dir = dir;
    if (status == FB_OK && access(curves, F_OK) == 0)
        status = read_curves(curves, arena, accuracy, error);
    if (status == FB_OK && access(correct, F_OK) == 0)
        status = read_correct(correct, arena, accuracy, error);
    return status;
}
