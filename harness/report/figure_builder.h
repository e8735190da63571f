/* What the parts of the picture builder share; private to figure*.c. */
#ifndef FB_FIGURE_BUILDER_H
#define FB_FIGURE_BUILDER_H

#include "figure.h"
#include "row_factor.h"

enum { FB_FIGURE_LABEL_SIZE = 900 };

/* Whether the series of a set differ in a factor, once somebody has looked. */
enum fb_figure_differs { FB_FIGURE_UNKNOWN, FB_FIGURE_SAME, FB_FIGURE_DIFFERS };

/* The series of one picture while it is built. */
struct fb_figure_builder {
    const struct fb_figure_job *job;
    const struct fb_series_set *set;
    const struct fb_series **members;
    size_t members_count;
    bool one_mechanism;
    enum fb_figure_differs *differs; /* for each factor */
    struct fb_figure *figure;
    struct fb_error *error;
};

/* Whether two rows belong into one picture. */
bool fb_figure_same_facet(const struct fb_row *a, const struct fb_row *b, enum fb_axis axis);

/* 0 or 1: causal series stand to the right of the others. */
int fb_figure_panel_of(const struct fb_figure_builder *builder, const struct fb_series *series);

/* "Softmax (plain), 2 threads": what tells the line apart from others; not escaped. label has
 * FB_FIGURE_LABEL_SIZE bytes. */
void fb_figure_name_series(const struct fb_figure_builder *builder, const struct fb_series *series,
                           char *label);

/* The line under the title: machine, instruction set, threads, dtype, pass, sizes. Escaped. */
char *fb_figure_describe(const struct fb_figure_builder *builder);

/* The file stem: the kind, and the factors in which the picture differs from its siblings. */
char *fb_figure_name(const struct fb_figure_builder *builder);

/* Colour and symbol by mechanism; where there is only one, by the line's order. */
void fb_figure_style(const struct fb_figure_builder *builder, const struct fb_series *series,
                     size_t order, struct fb_figure_line *line);

/* The legend of a line: its name, and for times along seq_len the exponent with its interval. */
char *fb_figure_legend(const struct fb_figure_builder *builder, const struct fb_series *series);

/* A line of text, not escaped, under a panel. */
enum fb_status fb_figure_add_note(struct fb_figure_builder *builder, int panel,
                                  const char *text) FB_MUST_CHECK;

/* The colour of a mechanism, "#rrggbb": the same on every picture. */
const char *fb_figure_color(const char *mechanism);

/* Bars instead of lines, for FB_PLOT_ISA_BARS; in figure_bars.c. */
enum fb_status fb_figure_fill_bars(struct fb_figure_builder *builder) FB_MUST_CHECK;

#endif
