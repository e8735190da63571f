/* Pictures of stored or fresh rows, each as SVG and PNG, drawn by gnuplot from plain data files. */
#ifndef FB_PLOTS_H
#define FB_PLOTS_H

#include "results.h"
#include "suite.h"

struct fb_plots_request {
    const struct fb_results *runs;
    size_t runs_count;
    const enum fb_plot_kind *kinds; /* NULL: every kind that the rows can fill */
    size_t kinds_count;
    const char *dir; /* created with its parents; the data files go to dir/data */
    uint64_t seed;
};

struct fb_plots_made {
    const char **paths; /* SVG and PNG of each picture, in the arena */
    size_t paths_count;
    size_t pictures_count;
    const char *empty_kinds; /* asked for by name, but the rows hold no such sweep: "a, b"; or "" */
};

/* Where pictures are written; absolute, since gnuplot's paths must not move. In the arena. */
struct fb_plots_place {
    const char *dir, *data_dir, *scripts_dir;
};

/* Creates the folder of pictures and of their data. */
enum fb_status fb_plots_prepare(const char *dir, struct fb_arena *arena,
                                struct fb_plots_place *place, struct fb_error *error) FB_MUST_CHECK;

/* FB_ERROR_UNSUPPORTED: gnuplot is missing, the data files are written all the same.
 * FB_ERROR_IO: a folder or file could not be written, or gnuplot failed. */
enum fb_status fb_plots_make(const struct fb_plots_request *request, struct fb_arena *arena,
                             struct fb_plots_made *made, struct fb_error *error) FB_MUST_CHECK;

#endif
