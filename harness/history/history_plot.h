/* A picture of trends: per case its medians with intervals over the runs, its levels, and the
 * changes with their commits. Drawn by plots/history.gp. */
#ifndef FB_HISTORY_PLOT_H
#define FB_HISTORY_PLOT_H

#include "history_show.h"

enum { FB_HISTORY_PANELS_MAX = 24 };

/* To path, which ends in .svg or .png. FB_ERROR_USAGE beyond FB_HISTORY_PANELS_MAX cases,
 * FB_ERROR_UNSUPPORTED without gnuplot, FB_ERROR_IO. */
enum fb_status fb_history_plot(const struct fb_history_view *view, const char *path,
                               struct fb_error *error) FB_MUST_CHECK;

#endif
