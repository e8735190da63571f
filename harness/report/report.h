/*
 * What a run says at its end: the summary table, the claims of the suite judged, the pictures.
 * Called by the runner with the rows that it has just written, and by `plot` with stored ones.
 */
#ifndef FB_REPORT_H
#define FB_REPORT_H

#include "results.h"
#include "status.h"
#include "suite.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct fb_report_options {
    FILE *out;      /* the table, the claims and the paths of the pictures; NULL: nothing */
    FILE *messages; /* why pictures were skipped; NULL: nothing. Usually stderr */
    bool color;     /* already decided by --color, NO_COLOR and isatty */
    bool quiet;     /* only failed claims and failed cases go to out */
    bool make_plots;
    const char *plots_dir; /* NULL: the folder "plots" inside the run's folder */
    uint64_t seed;         /* of the bootstrap; 0 is a seed like any other */
};

/* What was found. The caller turns it into an exit code: claims_failed or cases_failed > 0 is 3;
 * claims_ambiguous > 0 is 4 under --strict; everything else is 0. */
struct fb_report_verdict {
    int claims_held;
    int claims_failed;        /* the whole interval lies outside the claim */
    int claims_ambiguous;     /* the interval straddles the claim's edge, or there is no value */
    int claims_reported_only; /* fewer than 5 processes: printed, never judged */
    int cases_failed;         /* rows with status wrong, crash or error */
    int plots_made;           /* pictures, each as SVG and PNG */
    bool plots_skipped;       /* gnuplot is missing or failed; the reason went to messages */
};

/* Reports one run. suite may be NULL (stored rows without run.json): then nothing is claimed and
 * every picture that the rows can fill is made. A missing or failing gnuplot is not an error of
 * the run: the verdict says so and FB_OK is returned. Fails with FB_ERROR_MEMORY, or FB_ERROR_IO
 * when out or the folder of the pictures cannot be written. */
enum fb_status fb_report_run(const struct fb_results *results, const struct fb_suite *suite,
                             const struct fb_report_options *options,
                             struct fb_report_verdict *verdict,
                             struct fb_error *error) FB_MUST_CHECK;

#endif
