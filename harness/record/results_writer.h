/*
 * Writing results.csv and samples.csv of a run, so that a kill at any moment costs nothing that was
 * finished: the samples of a case are appended and synced first, then its row, in one write() and
 * synced. A row, once written, is never touched again.
 */
#ifndef FB_RESULTS_WRITER_H
#define FB_RESULTS_WRITER_H

#include "arena.h"
#include "results.h"
#include "row.h"

#include <sys/types.h>

struct fb_results_writer {
    int rows_fd, samples_fd;
    const char *rows_path, *samples_path; /* in the arena */
};

/* Opens the two files of a run's folder, creating what is missing. What an interrupted run left
 * unfinished goes first: a cut last line of results.csv, samples whose case has no row. Earlier
 * rows stay bit for bit. `done` receives the finished rows (its samples too).
 * A row's texts hold no line ends. FB_ERROR_INPUT when results.csv is damaged elsewhere or has
 * other columns than this version writes; FB_ERROR_IO when the folder cannot be written. */
enum fb_status fb_results_writer_open(const char *dir, struct fb_arena *arena,
                                      struct fb_results_writer *writer, struct fb_results *done,
                                      struct fb_error *error) FB_MUST_CHECK;

/* Appends one finished case. When the disk refuses, the files are cut back to whole lines and
 * FB_ERROR_IO says what to do; everything written before is intact. */
enum fb_status fb_results_writer_append(struct fb_results_writer *writer, const struct fb_row *row,
                                        const struct fb_sample *samples, size_t samples_count,
                                        struct fb_error *error) FB_MUST_CHECK;

void fb_results_writer_close(struct fb_results_writer *writer);

#endif
