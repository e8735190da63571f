/*
 * A report: one HTML file that needs nothing else, made of stored runs. docs/reporting.md says what
 * stands in it. The same runs give the same bytes: the page does not say when it was made.
 */
#ifndef FB_HTML_REPORT_H
#define FB_HTML_REPORT_H

#include "arena.h"

#include <stdbool.h>
#include <stdint.h>

struct fb_html_request {
    const char *const *runs; /* folders or results.csv files */
    size_t runs_count;
    const char *out_path; /* NULL: report.html in the folder of the first run */
    bool force;           /* replace a file that is no report */
    uint64_t seed;        /* of the bootstrap */
};

struct fb_html_made {
    const char *path;        /* of the report */
    const char *why_missing; /* why figures are missing, or "" */
};

/* Writes the report in one step: a reader finds the old file or the whole new one. FB_ERROR_INPUT
 * for runs that cannot be read, FB_ERROR_USAGE when out_path holds anything but a report,
 * FB_ERROR_IO when it cannot be written. made lives in the arena. */
enum fb_status fb_html_report_write(const struct fb_html_request *request, struct fb_arena *arena,
                                    struct fb_html_made *made,
                                    struct fb_error *error) FB_MUST_CHECK;

#endif
