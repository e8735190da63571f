/*
 * Pictures as data: which lines, marks and labels a picture holds and where. The gnuplot scripts in
 * plots/ only draw what stands here, so that everything that decides is tested in C.
 *
 * A picture shows one kind (time against sequence length, ...) for one facet: pass, dtype, layout
 * and every size except its axis are equal. Causal and not are two panels side by side with one
 * y range. Lines are told apart by mechanism (colour) and by variant, parameters, device,
 * instruction set, threads and run (dash). Owned by the arena given.
 */
#ifndef FB_FIGURE_H
#define FB_FIGURE_H

#include "series.h"
#include "suite.h"

enum { FB_FIGURE_PANELS_MAX = 2 };

struct fb_figure_point {
    double x, y, low, high;
    const char *text; /* written above a bar; NULL: nothing */
};

struct fb_figure_line {
    int panel;
    const char *label; /* gnuplot's enhanced text, escaped */
    const char *color; /* "#rrggbb" */
    int dash, symbol;  /* gnuplot's dash and (filled) point types */
    struct fb_figure_point *points;
    size_t points_count;
};

/* Why a case has no value; each has its own hollow symbol. */
enum fb_censoring {
    FB_CENSORED_TIMEOUT,
    FB_CENSORED_MEMORY,
    FB_CENSORED_SKIPPED,
    FB_CENSORED_FAILED, /* wrong, crash, error */
    FB_CENSORED_COUNT
};

struct fb_figure_mark {
    int panel;
    enum fb_censoring why;
    double x, y;
    int stack; /* how many marks of the same place lie beyond it */
    const char *color;
};

struct fb_figure_crossing {
    int panel;
    double x, y;
    int level; /* row of its label at the bottom, so that labels do not touch */
    const char *label, *color;
};

struct fb_figure {
    enum fb_plot_kind kind;
    const char *name; /* file stem: "time_vs_seq_len" or "time_vs_seq_len-h16" */
    const char *title, *subtitle;
    size_t panels_count;
    const char *panel_titles[FB_FIGURE_PANELS_MAX];
    const char *panel_notes[FB_FIGURE_PANELS_MAX]; /* what is not drawn and why; "" */
    struct fb_figure_line *lines;                  /* ordered by panel */
    size_t lines_count;
    struct fb_figure_mark *marks;
    size_t marks_count;
    struct fb_figure_crossing *crossings;
    size_t crossings_count;
    const char *reference; /* what a ratio of 1 is, or NULL */
    double x_min, x_max, y_min, y_max;
    double mark_step, label_step; /* factors in y between stacked marks and label rows */
    const char *x_tics, *y_tics;  /* gnuplot: ('4K' 4096, ...) */
    const char *y_tics_blank;     /* the same places without text, for the panel to the right */
};

struct fb_figure_job {
    const struct fb_results *runs;
    size_t runs_count;
    const char *title; /* of the suite, or NULL */
    uint64_t seed;
    struct fb_arena *arena;
    size_t figures_max; /* 0: all; no picture beyond it is built */
};

/* Every picture of a kind that the rows can fill; none when the axis has fewer than two values. */
enum fb_status fb_figures_build(const struct fb_figure_job *job, enum fb_plot_kind kind,
                                struct fb_figure **figures, size_t *count,
                                struct fb_error *error) FB_MUST_CHECK;

/* Ranges, tics, stacking of marks and label rows, from the data; in figure_axes.c. */
enum fb_status fb_figure_set_axes(struct fb_figure *figure, struct fb_arena *arena,
                                  struct fb_error *error) FB_MUST_CHECK;

/* Writes <dir>/<name>.tsv (the numbers) and <dir>/<name>.gp (titles, styles, ranges), both in
 * figure_file.c. */
enum fb_status fb_figure_write(const struct fb_figure *figure, const char *dir,
                               const char *out_stem, struct fb_arena *arena,
                               struct fb_error *error) FB_MUST_CHECK;

/* Facts per kind. */
enum fb_axis fb_plot_axis(enum fb_plot_kind kind);
bool fb_plot_is_ratio(enum fb_plot_kind kind);

/* Text for gnuplot's enhanced mode: its special characters lose their meaning, control characters
 * become spaces. */
char *fb_figure_escape(struct fb_arena *arena, const char *text, struct fb_error *error);

#endif
