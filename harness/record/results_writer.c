/* Appending rows and samples durably, and repairing what a killed run left: see
 * results_writer.h. */
#include "results_writer.h"

#include "cell.h"
#include "csv_file.h"
#include "run_folder.h"

#include <string.h>
#include <unistd.h>

static const char samples_header[] = "case_id,process,sample,time_s\n";

static void add_row(struct fb_csv_line *line, const struct fb_row *row)
{
    for (size_t i = 0; i < fb_column_count(); i++)
        fb_cell_add(line, fb_column_at(i), row);
    fb_csv_end_line(line);
}

/* ---- repair ---------------------------------------------------------------------------------- */

static bool has_row(const struct fb_results *done, const char *case_id)
{
    for (size_t i = 0; i < done->rows_count; i++) {
        if (strcmp(done->rows[i].case_id, case_id) == 0)
            return true;
    }
    return false;
}

/* Cases finish one at a time and their samples are appended together, so the samples without a row
 * are those of the last case only: cutting the end of the file drops them all. */
static enum fb_status open_samples(struct fb_results_writer *writer, const struct fb_results *done,
                                   struct fb_arena *arena, struct fb_error *error)
{
    struct fb_csv_reader reader;
    struct fb_csv_record record;
    char *text;
    size_t bytes;
    size_t whole_length = 0;
    enum fb_status status = FB_OK;

    if (access(writer->samples_path, F_OK) == 0) {
        status = fb_csv_load(writer->samples_path, arena, &text, &bytes, error);
        if (status != FB_OK)
            return status;
        fb_csv_reader_init(&reader, text, bytes, writer->samples_path);
        for (bool first = true;; first = false) {
            status = fb_csv_next(&reader, arena, &record, error);
            if (status != FB_OK)
                return status;
            if (record.cells_count == 0 || record.cut ||
                (!first && !has_row(done, record.cells[0])))
                break;
            whole_length = record.end;
        }
    }
    return fb_csv_file_open(writer->samples_path, samples_header, sizeof samples_header - 1,
                            whole_length, &writer->samples_fd, error);
}

/* ---- public ---------------------------------------------------------------------------------- */

enum fb_status fb_results_writer_open(const char *dir, struct fb_arena *arena,
                                      struct fb_results_writer *writer, struct fb_results *done,
                                      struct fb_error *error)
{
    struct fb_results rows;

    *writer = (struct fb_results_writer){.rows_fd = -1, .samples_fd = -1};
    memset(done, 0, sizeof *done);
    writer->rows_path = fb_arena_printf(arena, error, "%s/results.csv", dir);
    writer->samples_path = fb_arena_printf(arena, error, "%s/samples.csv", dir);
    if (writer->rows_path == NULL || writer->samples_path == NULL)
        return FB_ERROR_MEMORY;
    enum fb_status status = fb_csv_file_resume(writer->rows_path, fb_column_count(), fb_column_at,
                                               arena, &writer->rows_fd, error);
    if (status == FB_OK)
        status = fb_results_read(writer->rows_path, arena, &rows, error);
    if (status == FB_OK)
        status = open_samples(writer, &rows, arena, error);
    if (status == FB_OK)
        status = fb_folder_sync(dir, error);
    if (status == FB_OK)
        status = fb_results_read(dir, arena, done, error);
    if (status != FB_OK)
        fb_results_writer_close(writer);
    return status;
}

enum fb_status fb_results_writer_append(struct fb_results_writer *writer, const struct fb_row *row,
                                        const struct fb_sample *samples, size_t samples_count,
                                        struct fb_error *error)
{
    struct fb_csv_line line;

    fb_csv_line_init(&line);
    for (size_t i = 0; i < samples_count; i++) {
        fb_csv_add_text(&line, samples[i].case_id);
        fb_csv_add_int(&line, samples[i].process);
        fb_csv_add_int(&line, samples[i].sample);
        fb_csv_add_real(&line, samples[i].time_s);
        fb_csv_end_line(&line);
    }
    enum fb_status status =
        fb_csv_file_append(writer->samples_fd, writer->samples_path, &line, error);
    fb_csv_line_free(&line);
    if (status != FB_OK)
        return status;
    add_row(&line, row);
    status = fb_csv_file_append(writer->rows_fd, writer->rows_path, &line, error);
    fb_csv_line_free(&line);
    return status;
}

void fb_results_writer_close(struct fb_results_writer *writer)
{
    if (writer->rows_fd >= 0)
        close(writer->rows_fd);
    if (writer->samples_fd >= 0)
        close(writer->samples_fd);
    writer->rows_fd = -1;
    writer->samples_fd = -1;
}
