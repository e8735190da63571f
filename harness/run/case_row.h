/*
 * From the worker processes of a case to its row: the median and its exact interval over all
 * samples of all processes, the evidence summed, the worst error, the floor.
 */
#ifndef FB_CASE_ROW_H
#define FB_CASE_ROW_H

#include "ceiling_book.h"
#include "measure.h"
#include "plan.h"
#include "results.h"
#include "row.h"

/* What is known of a case so far. Zeroed is a case that nothing is known of. */
struct fb_case_record {
    struct fb_sample *samples; /* owned */
    size_t samples_count, samples_capacity;
    int processes; /* whose results are in */
    bool wrong;    /* a process found a wrong answer; its reason stands in `reason` */
    char reason[FB_MEASURE_REASON_SIZE];
    struct fb_measure_result worst; /* evidence of all processes merged; owns no samples */
    int64_t iterations;
};

void fb_case_record_free(struct fb_case_record *record);

/* Merges the result of one process (status ok or wrong). */
enum fb_status fb_case_record_add(struct fb_case_record *record, const struct fb_case *item,
                                  int process, const struct fb_measure_result *result,
                                  struct fb_error *error) FB_MUST_CHECK;

/* What is the same for every row of a run. */
struct fb_row_context {
    const char *run_id, *suite_name, *device_name, *gpu_name;
};

/* The factors of a case, without any result. */
void fb_row_from_case(const struct fb_row_context *context, const struct fb_case *item,
                      struct fb_row *row);

/* A row without a measurement: skipped, oom, timeout, crash, error. */
void fb_row_from_failure(const struct fb_row_context *context, const struct fb_case *item,
                         const char *status, const char *reason, struct fb_row *row);

/* The row of a case with at least one process in. The ceiling may be NULL: then there is no floor.
 * Sorts a copy of the samples: FB_ERROR_MEMORY. */
enum fb_status fb_row_from_record(const struct fb_row_context *context, const struct fb_case *item,
                                  const struct fb_case_record *record,
                                  const struct fb_ceiling *ceiling, struct fb_row *row,
                                  struct fb_error *error) FB_MUST_CHECK;

#endif
