/*
 * Stored results: reading results.csv and samples.csv of any run back into rows.
 * Writing lives in results_writer.h; both use the CSV dialect of RFC 4180 (csv.h).
 */
#ifndef FB_RESULTS_H
#define FB_RESULTS_H

#include "arena.h"
#include "row.h"

struct fb_sample {
    char case_id[24];
    int process;
    int sample;
    double time_s;
};

struct fb_results {
    char *dir; /* the run's folder, or NULL when a bare CSV was read */
    struct fb_row *rows;
    size_t rows_count;
    struct fb_sample *samples; /* empty when there is no samples.csv; grouped by case as stored */
    size_t samples_count;
};

/* Reads a run's folder or a results.csv. Unknown extra columns are ignored, missing ones are
 * absent values; a file that is not a results.csv, a cut last line or a newer schema is an error
 * that names file and line. */
enum fb_status fb_results_read(const char *path, struct fb_arena *arena, struct fb_results *results,
                               struct fb_error *error) FB_MUST_CHECK;

#endif
