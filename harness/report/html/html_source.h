/* The runs of a report, read from where they were stored. */
#ifndef FB_HTML_SOURCE_H
#define FB_HTML_SOURCE_H

#include "accuracy_file.h"
#include "results.h"
#include "suite.h"

#include <jansson.h>
#include <stdbool.h>

struct fb_html_source {
    const char *folder; /* the run's, or of the bare CSV */
    const char *csv;    /* of the rows: what `repro` is given */
    struct fb_results results;
    bool training; /* then the rows are these: */
    struct fb_accuracy accuracy;
    json_t *document; /* run.json, or NULL when there is none; owned */
    struct fb_suite suite;
    bool has_suite;                                     /* document names one */
    const char *run, *machine, *device_name, *identity; /* "" when unknown */
};

struct fb_html_sources {
    struct fb_html_source *items;
    size_t count;
    struct fb_results *results; /* of each item, side by side as fb_series_collect wants them */
    bool training;              /* all of them; a page is of one kind */
    bool several_machines;      /* or not known to be one */
};

/* Reads folders of runs and results.csv files. A missing run.json is no error: the report says what
 * is unknown for want of it. FB_ERROR_INPUT ("file:line: ...") for anything malformed, for files
 * that are no run, and for a run without rows. What was read has to be freed in any case. */
enum fb_status fb_html_sources_read(const char *const *paths, size_t count, struct fb_arena *arena,
                                    struct fb_html_sources *sources,
                                    struct fb_error *error) FB_MUST_CHECK;
void fb_html_sources_free(struct fb_html_sources *sources);

/* The text at a path of run.json, or "". */
const char *fb_html_source_text(const struct fb_html_source *source, const char *path);

#endif
