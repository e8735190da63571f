/* A whole CSV file: see csv_table.h. */
#include "csv_table.h"

#include <string.h>

enum fb_status fb_csv_table_read(const char *path, struct fb_arena *arena,
                                 struct fb_csv_table *table, struct fb_error *error)
{
    struct fb_csv_reader reader;
    struct fb_csv_record record;
    char *text;
    size_t length;
    size_t lines = 0;
    enum fb_status status = fb_csv_load(path, arena, &text, &length, error);

    memset(table, 0, sizeof *table);
    table->path = path;
    if (status != FB_OK)
        return status;
    for (size_t i = 0; i < length; i++)
        lines += text[i] == '\n';
    table->records = fb_arena_alloc(arena, lines + 1, sizeof *table->records, error);
    if (table->records == NULL)
        return FB_ERROR_MEMORY;
    fb_csv_reader_init(&reader, text, length, path);
    for (;;) {
        status = fb_csv_next(&reader, arena, &record, error);
        if (status != FB_OK || record.cells_count == 0)
            return status;
        if (record.cut)
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s:%zu: the last line is cut: the run was killed while writing "
                                "it; `flowbench run --resume` of its folder repairs that",
                                path, record.line_number);
        if (table->header.cells_count == 0) {
            table->header = record;
            continue;
        }
        if (record.cells_count != table->header.cells_count)
            return fb_error_set(error, FB_ERROR_INPUT, "%s:%zu: %zu cells, but the header has %zu",
                                path, record.line_number, record.cells_count,
                                table->header.cells_count);
        table->records[table->count++] = record;
    }
}
