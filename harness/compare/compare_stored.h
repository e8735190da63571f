/*
 * Two stored runs against each other: rows joined by case_id, nothing measured again.
 */
#ifndef FB_COMPARE_STORED_H
#define FB_COMPARE_STORED_H

#include "comparison.h"
#include "results.h"

struct fb_stored_run {
    struct fb_results results;
    struct fb_compare_side side;
    const char *suite;          /* NULL: unknown */
    const struct fb_row **rows; /* by case_id, ascending */
};

/* Reads a run's folder or a results.csv. FB_ERROR_INPUT for what cannot be read, names a case_id
 * that stands twice and a run.json that is damaged or newer than this version. */
enum fb_status fb_stored_run_read(const char *path, struct fb_arena *arena,
                                  struct fb_stored_run *run, struct fb_error *error) FB_MUST_CHECK;

/* Fills the comparison, finished. The runs must live as long as it. */
enum fb_status fb_compare_stored(const struct fb_stored_run *base,
                                 const struct fb_stored_run *fresh, struct fb_arena *arena,
                                 struct fb_comparison *comparison,
                                 struct fb_error *error) FB_MUST_CHECK;

#endif
