/* Appending rows and samples durably, and repairing what a killed run left: see
 * results_writer.h. */
#include "results_writer.h"

#include "cell.h"
#include "csv.h"
#include "run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char samples_header[] = "case_id,process,sample,time_s\n";

static enum fb_status fail_io(const char *verb, const char *path, struct fb_error *error)
{
    const int reason = errno;
    const char *advice = "";

    if (reason == ENOSPC || reason == EDQUOT)
        advice = "; free some space, then continue with `./bench run --resume`: the rows written "
                 "so far are intact";
    return fb_error_set(error, FB_ERROR_IO, "cannot %s '%s': %s%s", verb, path, strerror(reason),
                        advice);
}

static void add_header(struct fb_csv_line *line)
{
    for (size_t i = 0; i < fb_column_count(); i++)
        fb_csv_add_text(line, fb_column_at(i)->name);
    fb_csv_end_line(line);
}

static void add_row(struct fb_csv_line *line, const struct fb_row *row)
{
    for (size_t i = 0; i < fb_column_count(); i++)
        fb_cell_add(line, fb_column_at(i), row);
    fb_csv_end_line(line);
}

/* Appends a piece in one write and syncs it; on failure the file gets its old length back, so that
 * no half line stays behind. */
static enum fb_status append_synced(int fd, const char *path, const char *data, size_t length,
                                    struct fb_error *error)
{
    const off_t before = lseek(fd, 0, SEEK_END);
    enum fb_status status = FB_OK;

    if (before < 0)
        return fail_io("write", path, error);
    ssize_t written;
    do {
        written = write(fd, data, length);
    } while (written < 0 && errno == EINTR);
    if (written >= 0 && (size_t)written < length) {
        /* A short write to a file means that there is no room for the rest. */
        errno = ENOSPC;
        status = fail_io("write", path, error);
    } else if (written < 0) {
        status = fail_io("write", path, error);
    } else if (fsync(fd) != 0 && errno != EINVAL && errno != EROFS) {
        status = fail_io("sync", path, error);
    }
    if (status != FB_OK && ftruncate(fd, before) != 0)
        (void)fb_error_prefix(error, "'%s' may end in a cut line, which resuming repairs", path);
    return status;
}

static enum fb_status append_line(int fd, const char *path, struct fb_csv_line *line,
                                  struct fb_error *error)
{
    if (line->failed)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a line of '%s'", path);
    return line->length == 0 ? FB_OK : append_synced(fd, path, line->data, line->length, error);
}

/* ---- repair ---------------------------------------------------------------------------------- */

/* Rows are written as single lines, so what a kill leaves is a piece of one. A record that is open
 * over several lines is damage of another kind, and cutting it would take finished rows along. */
static enum fb_status check_cut(const struct fb_csv_record *record, const char *text,
                                const char *path, struct fb_error *error)
{
    if (!record->cut || memchr(text + record->begin, '\n', record->end - record->begin) == NULL)
        return FB_OK;
    return fb_error_set(error, FB_ERROR_INPUT,
                        "%s:%zu: damaged: a quote opens here and never closes; restore the file, "
                        "or delete the lines from here on, and resume again",
                        path, record->line_number);
}

/* Where the whole lines of a CSV file end, and its header's cells. */
static enum fb_status find_whole_lines(const char *path, struct fb_arena *arena, size_t *length,
                                       struct fb_csv_record *header, struct fb_error *error)
{
    struct fb_csv_reader reader;
    struct fb_csv_record record;
    char *text;
    size_t bytes;

    *length = 0;
    memset(header, 0, sizeof *header);
    enum fb_status status = fb_csv_load(path, arena, &text, &bytes, error);
    if (status != FB_OK)
        return status;
    fb_csv_reader_init(&reader, text, bytes, path);
    for (;;) {
        status = fb_csv_next(&reader, arena, &record, error);
        if (status == FB_OK)
            status = check_cut(&record, text, path, error);
        if (status != FB_OK || record.cells_count == 0 || record.cut)
            return status;
        if (header->cells_count == 0)
            *header = record;
        *length = record.end;
    }
}

static enum fb_status check_columns(const struct fb_csv_record *header, const char *path,
                                    struct fb_error *error)
{
    bool same = header->cells_count == fb_column_count();

    for (size_t i = 0; same && i < fb_column_count(); i++)
        same = strcmp(header->cells[i], fb_column_at(i)->name) == 0;
    if (!same)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s:1: other columns than this flowbench writes (it was made by "
                            "another version): resume with that version, or start a new run",
                            path);
    return FB_OK;
}

/* Opens for appending; a file with nothing whole in it starts with `header`. */
static enum fb_status open_repaired(const char *path, const char *header, size_t header_length,
                                    size_t whole_length, int *fd, struct fb_error *error)
{
    struct stat info;

    *fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (*fd < 0)
        return fail_io("write", path, error);
    if (fstat(*fd, &info) != 0)
        return fail_io("read", path, error);
    if (info.st_size > (off_t)whole_length &&
        (ftruncate(*fd, (off_t)whole_length) != 0 || fsync(*fd) != 0))
        return fail_io("repair", path, error);
    if (whole_length == 0)
        return append_synced(*fd, path, header, header_length, error);
    return FB_OK;
}

static enum fb_status open_rows(struct fb_results_writer *writer, struct fb_arena *arena,
                                struct fb_error *error)
{
    struct fb_csv_record found;
    struct fb_csv_line header;
    size_t whole_length = 0;
    enum fb_status status = FB_OK;

    if (access(writer->rows_path, F_OK) == 0)
        status = find_whole_lines(writer->rows_path, arena, &whole_length, &found, error);
    if (status == FB_OK && whole_length > 0)
        status = check_columns(&found, writer->rows_path, error);
    if (status != FB_OK)
        return status;
    fb_csv_line_init(&header);
    add_header(&header);
    if (header.failed)
        status = fb_error_set(error, FB_ERROR_MEMORY, "no memory for the header");
    else
        status = open_repaired(writer->rows_path, header.data, header.length, whole_length,
                               &writer->rows_fd, error);
    fb_csv_line_free(&header);
    return status;
}

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
    return open_repaired(writer->samples_path, samples_header, sizeof samples_header - 1,
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
    enum fb_status status = open_rows(writer, arena, error);
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
    enum fb_status status = append_line(writer->samples_fd, writer->samples_path, &line, error);
    fb_csv_line_free(&line);
    if (status != FB_OK)
        return status;
    add_row(&line, row);
    status = append_line(writer->rows_fd, writer->rows_path, &line, error);
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
