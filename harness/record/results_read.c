/* Reading results.csv and samples.csv back into rows: see results.h. */
#include "cell.h"
#include "csv_table.h"
#include "results.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { SAMPLE_COLUMN_COUNT = 4 };

static const char *const sample_columns[SAMPLE_COLUMN_COUNT] = {"case_id", "process", "sample",
                                                                "time_s"};

static bool header_has(const struct fb_csv_record *header, const char *name)
{
    for (size_t i = 0; i < header->cells_count; i++) {
        if (strcmp(header->cells[i], name) == 0)
            return true;
    }
    return false;
}

static enum fb_status read_rows(const char *path, struct fb_arena *arena,
                                struct fb_results *results, struct fb_error *error)
{
    static const char *const required[] = {"case_id", "mechanism", "status"};
    struct fb_csv_table table;
    enum fb_status status = fb_csv_table_read(path, arena, &table, error);

    if (status != FB_OK)
        return status;
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
        if (!header_has(&table.header, required[i]))
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s:1: not a results.csv: the header has no column '%s'", path,
                                required[i]);
    }
    results->rows = fb_arena_alloc(arena, table.count + 1, sizeof *results->rows, error);
    if (results->rows == NULL)
        return FB_ERROR_MEMORY;
    for (size_t r = 0; r < table.count; r++) {
        const size_t line = table.records[r].line_number;
        struct fb_row *row = &results->rows[r];
        fb_row_init(row);
        for (size_t c = 0; c < table.header.cells_count && status == FB_OK; c++) {
            const struct fb_column *column = fb_column_find(table.header.cells[c]);
            if (column != NULL)
                status = fb_cell_set(row, column, table.records[r].cells[c], path, line, error);
        }
        if (status == FB_OK)
            status = fb_row_check(row, path, line, error);
        if (status != FB_OK)
            return status;
    }
    results->rows_count = table.count;
    return FB_OK;
}

static enum fb_status read_sample(const struct fb_csv_record *record, const char *path,
                                  struct fb_sample *sample, struct fb_error *error)
{
    int64_t process, index;

    if (strlen(record->cells[0]) >= sizeof sample->case_id ||
        fb_cell_parse_int(record->cells[1], &process) != FB_OK || process < 0 ||
        process > INT32_MAX || fb_cell_parse_int(record->cells[2], &index) != FB_OK || index < 0 ||
        index > INT32_MAX || fb_cell_parse_real(record->cells[3], &sample->time_s) != FB_OK)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s:%zu: not a sample: case_id, process, sample, time_s", path,
                            record->line_number);
    memcpy(sample->case_id, record->cells[0], strlen(record->cells[0]) + 1);
    sample->process = (int)process;
    sample->sample = (int)index;
    return FB_OK;
}

static enum fb_status read_samples(const char *path, struct fb_arena *arena,
                                   struct fb_results *results, struct fb_error *error)
{
    struct fb_csv_table table;
    enum fb_status status = fb_csv_table_read(path, arena, &table, error);

    if (status != FB_OK)
        return status;
    for (size_t i = 0; i < SAMPLE_COLUMN_COUNT; i++) {
        if (i >= table.header.cells_count || strcmp(table.header.cells[i], sample_columns[i]) != 0)
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s:1: not a samples.csv: column %zu is not '%s'", path, i + 1,
                                sample_columns[i]);
    }
    results->samples = fb_arena_alloc(arena, table.count + 1, sizeof *results->samples, error);
    if (results->samples == NULL)
        return FB_ERROR_MEMORY;
    for (size_t i = 0; i < table.count && status == FB_OK; i++)
        status = read_sample(&table.records[i], path, &results->samples[i], error);
    results->samples_count = table.count;
    return status;
}

enum fb_status fb_results_read(const char *path, struct fb_arena *arena, struct fb_results *results,
                               struct fb_error *error)
{
    struct stat info;

    memset(results, 0, sizeof *results);
    if (stat(path, &info) != 0)
        return fb_error_set(error, FB_ERROR_INPUT, "cannot read '%s': %s", path, strerror(errno));
    if (!S_ISDIR(info.st_mode))
        return read_rows(path, arena, results, error);

    char *rows_path = fb_arena_printf(arena, error, "%s/results.csv", path);
    char *samples_path = fb_arena_printf(arena, error, "%s/samples.csv", path);
    results->dir = fb_arena_strdup(arena, path, error);
    if (rows_path == NULL || samples_path == NULL || results->dir == NULL)
        return FB_ERROR_MEMORY;
    if (stat(rows_path, &info) != 0)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "'%s' is not the folder of a run: it has no results.csv", path);
    enum fb_status status = read_rows(rows_path, arena, results, error);
    if (status == FB_OK && stat(samples_path, &info) == 0)
        status = read_samples(samples_path, arena, results, error);
    return status;
}
