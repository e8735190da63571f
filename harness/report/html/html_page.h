/* What the sections of a report share; private to this room. Each section writes itself, or
 * nothing where it has nothing to say. Owned by the arena given. */
#ifndef FB_HTML_PAGE_H
#define FB_HTML_PAGE_H

#include "claims.h"
#include "crossover.h"
#include "html_out.h"
#include "html_source.h"
#include "row_factor.h"
#include "scaling.h"

enum { FB_HTML_LABEL_SIZE = 1024 };

/* A series along seq_len with all that is derived from it. */
struct fb_html_series {
    const struct fb_series *series, *softmax; /* softmax: what it is compared with, or NULL */
    struct fb_scaling scaling;                /* count 0: nothing measured */
    struct fb_crossover crossover;
};

struct fb_html_page {
    FILE *out;
    struct fb_arena *arena;
    const struct fb_html_sources *sources;
    uint64_t seed;
    struct fb_series_set set;        /* along seq_len, of all runs */
    struct fb_html_series *series;   /* set.count */
    bool varies[FB_FACTOR_COUNT];    /* tells two series of one mechanism and variant apart */
    struct fb_claim_results *claims; /* one for each run */
};

/* ---- what sections write with ------------------------------------------------------------------
 */

/* "Flow-Attention (fused), causal, H 16, run 2": what tells the series apart in this page. */
void fb_html_name_series(const struct fb_html_page *page, const struct fb_series *series,
                         char *label);
/* "Flow-Attention (fused)" */
void fb_html_name_mechanism(const struct fb_row *row, char *label);
/* "run 2", or "" when there is only one. */
void fb_html_name_run(const struct fb_html_page *page, size_t run_index, char *label);

/* Opens a section with its heading; id is also what links point to. Closed by "</section>". */
void fb_html_section(FILE *out, const char *id, const char *title);

/* Opens a box that scrolls on its own, with a table in it, up to the first header cell. The caption
 * is trusted markup. kinds names behaviour: "sort", "sort filter". Closed by fb_html_table_end. */
void fb_html_table_begin(FILE *out, const char *id, const char *kinds, const char *caption);
enum fb_html_order { FB_HTML_TEXT, FB_HTML_NUMBER };
/* A heading; key names the column in links, "" where it is not sorted by. */
void fb_html_table_head(FILE *out, const char *key, enum fb_html_order order, const char *title);
void fb_html_table_body(FILE *out);
void fb_html_table_end(FILE *out);

/* Cells. A NaN is an empty cell, sorted last. */
void fb_html_cell_text(FILE *out, const char *text);
void fb_html_cell_number(FILE *out, double value, const char *text); /* text is how it is said */
void fb_html_cell_time(FILE *out, double seconds);
void fb_html_cell_bytes(FILE *out, double bytes);
void fb_html_cell_count(FILE *out, double count);
void fb_html_cell_ratio(FILE *out, double ratio);
void fb_html_cell_status(FILE *out, const struct fb_row *row);

/* A word in a frame whose colour repeats what it says: good, bad, warn, plain. */
void fb_html_tag(FILE *out, const char *tone, const char *text);

/* How many times as fast as softmax the point is; NaN without one measured at the same place. */
double fb_html_speedup(const struct fb_html_series *series, const struct fb_point *point);

/* ---- sections
 * ------------------------------------------------------------------------------------ */

enum fb_status fb_html_findings(const struct fb_html_page *page,
                                struct fb_error *error) FB_MUST_CHECK;
/* What the reader has to know before believing the numbers; part of the findings. */
void fb_html_trust(const struct fb_html_page *page);
void fb_html_runs(const struct fb_html_page *page);
void fb_html_claims(const struct fb_html_page *page);
enum fb_status fb_html_missing(const struct fb_html_page *page,
                               struct fb_error *error) FB_MUST_CHECK;
void fb_html_scaling(const struct fb_html_page *page);
enum fb_status fb_html_axes(const struct fb_html_page *page, struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_html_across(const struct fb_html_page *page,
                              struct fb_error *error) FB_MUST_CHECK;
/* Everything of training runs but where they come from. */
enum fb_status fb_html_accuracy(const struct fb_html_page *page, const char **why_missing,
                                struct fb_error *error) FB_MUST_CHECK;
void fb_html_cases(const struct fb_html_page *page);
void fb_html_provenance(const struct fb_html_page *page);

#endif
