/*
 * accuracy.csv, curves.csv and correct.csv of a training run, read and written. As with
 * results_writer.h a kill at any moment costs nothing that was finished: curve and bits of a case
 * are appended first, then its row.
 */
#ifndef FB_ACCURACY_FILE_H
#define FB_ACCURACY_FILE_H

#include "accuracy_row.h"
#include "arena.h"

#include <stdbool.h>

struct fb_accuracy_writer {
    int rows_fd, curves_fd, correct_fd;
    const char *rows_path, *curves_path, *correct_path; /* in the arena */
};

/* Whether the folder is that of a training run. */
bool fb_accuracy_is_run(const char *dir);

/* Reads a run's folder. */
enum fb_status fb_accuracy_read(const char *dir, struct fb_arena *arena,
                                struct fb_accuracy *accuracy, struct fb_error *error) FB_MUST_CHECK;

/* accuracy.csv alone. */
enum fb_status fb_accuracy_read_rows(const char *path, struct fb_arena *arena,
                                     struct fb_accuracy *accuracy,
                                     struct fb_error *error) FB_MUST_CHECK;

/* Opens the three files, creating what is missing and cutting off what belongs to no row; `done`
 * receives what is finished. */
enum fb_status fb_accuracy_writer_open(const char *dir, struct fb_arena *arena,
                                       struct fb_accuracy_writer *writer, struct fb_accuracy *done,
                                       struct fb_error *error) FB_MUST_CHECK;

/* Appends one finished case. bits may be NULL. */
enum fb_status fb_accuracy_writer_append(struct fb_accuracy_writer *writer,
                                         const struct fb_accuracy_row *row,
                                         const struct fb_curve_point *points, size_t points_count,
                                         const char *bits, struct fb_error *error) FB_MUST_CHECK;

void fb_accuracy_writer_close(struct fb_accuracy_writer *writer);

#endif
