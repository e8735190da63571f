/* Writing a training run: see accuracy_file.h. */
#include "accuracy_file.h"

#include "cell.h"
#include "csv_file.h"
#include "run_folder.h"

#include <string.h>
#include <unistd.h>

static const char curves_header[] = "case_id,trial,step,epoch,train_loss,loss,metric,elapsed_s\n";
static const char correct_header[] = "case_id,correct\n";

static bool has_row(const struct fb_accuracy *done, const char *case_id)
{
    for (size_t i = 0; i < done->rows_count; i++)
        if (strcmp(done->rows[i].case_id, case_id) == 0)
            return true;
    return false;
}

/* A file of lines that belong to rows: those of the last, unfinished case are cut off. */
static enum fb_status open_beside(const char *path, const char *header,
                                  const struct fb_accuracy *done, struct fb_arena *arena, int *fd,
                                  struct fb_error *error)
{
    struct fb_csv_reader reader;
    struct fb_csv_record record;
    char *text;
    size_t bytes, whole = 0;
    if (access(path, F_OK) == 0) {
        enum fb_status status = fb_csv_load(path, arena, &text, &bytes, error);
        if (status != FB_OK)
            return status;
        fb_csv_reader_init(&reader, text, bytes, path);
        for (bool first = true;; first = false) {
            status = fb_csv_next(&reader, arena, &record, error);
            if (status != FB_OK)
                return status;
            if (record.cells_count == 0 || record.cut ||
                (!first && !has_row(done, record.cells[0])))
                break;
            whole = record.end;
        }
    }
    return fb_csv_file_open(path, header, strlen(header), whole, fd, error);
}

enum fb_status fb_accuracy_writer_open(const char *dir, struct fb_arena *arena,
                                       struct fb_accuracy_writer *writer, struct fb_accuracy *done,
                                       struct fb_error *error)
{
    struct fb_accuracy rows;
    *writer = (struct fb_accuracy_writer){.rows_fd = -1, .curves_fd = -1, .correct_fd = -1};
    writer->rows_path = fb_arena_printf(arena, error, "%s/accuracy.csv", dir);
    writer->curves_path = fb_arena_printf(arena, error, "%s/curves.csv", dir);
    writer->correct_path = fb_arena_printf(arena, error, "%s/correct.csv", dir);
    if (!writer->rows_path || !writer->curves_path || !writer->correct_path)
        return FB_ERROR_MEMORY;
    enum fb_status status =
        fb_csv_file_resume(writer->rows_path, fb_accuracy_column_count(), fb_accuracy_column_at,
                           arena, &writer->rows_fd, error);
    if (status == FB_OK) /* these alone: what stands beside them may still be cut */
        status = fb_accuracy_read_rows(writer->rows_path, arena, &rows, error);
    if (status == FB_OK)
        status = open_beside(writer->curves_path, curves_header, &rows, arena, &writer->curves_fd,
                             error);
    if (status == FB_OK)
        status = open_beside(writer->correct_path, correct_header, &rows, arena,
                             &writer->correct_fd, error);
    if (status == FB_OK)
        status = fb_folder_sync(dir, error);
    if (status == FB_OK)
        status = fb_accuracy_read(dir, arena, done, error);
    if (status != FB_OK)
        fb_accuracy_writer_close(writer);
    return status;
}

static void add_points(struct fb_csv_line *line, const struct fb_curve_point *points, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct fb_curve_point *p = &points[i];
        fb_csv_add_text(line, p->case_id);
        fb_csv_add_int(line, p->trial);
        fb_csv_add_int(line, p->step);
        fb_csv_add_real(line, p->epoch);
        fb_csv_add_real(line, p->train_loss);
        fb_csv_add_real(line, p->loss);
        fb_csv_add_real(line, p->metric);
        fb_csv_add_real(line, p->elapsed_s);
        fb_csv_end_line(line);
    }
}

/* Appends the line, if anything is in it, and frees it. */
static enum fb_status append(int fd, const char *path, struct fb_csv_line *line,
                             struct fb_error *error)
{
    const enum fb_status status = fb_csv_file_append(fd, path, line, error);
    fb_csv_line_free(line);
    return status;
}

enum fb_status fb_accuracy_writer_append(struct fb_accuracy_writer *writer,
                                         const struct fb_accuracy_row *row,
                                         const struct fb_curve_point *points, size_t points_count,
                                         const char *bits, struct fb_error *error)
{
    struct fb_csv_line line;
    fb_csv_line_init(&line);
    add_points(&line, points, points_count);
    enum fb_status status = append(writer->curves_fd, writer->curves_path, &line, error);
    if (status == FB_OK && bits) {
        fb_csv_line_init(&line);
        fb_csv_add_text(&line, row->case_id);
        fb_csv_add_text(&line, bits);
        fb_csv_end_line(&line);
        status = append(writer->correct_fd, writer->correct_path, &line, error);
    }
    if (status != FB_OK)
        return status;
    fb_csv_line_init(&line);
    for (size_t i = 0; i < fb_accuracy_column_count(); i++)
        fb_cell_add(&line, fb_accuracy_column_at(i), row);
    fb_csv_end_line(&line);
    return append(writer->rows_fd, writer->rows_path, &line, error);
}

void fb_accuracy_writer_close(struct fb_accuracy_writer *writer)
{
    int *const fds[] = {&writer->rows_fd, &writer->curves_fd, &writer->correct_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}
