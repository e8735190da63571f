/* Pictures of training runs: learning curves with the band of the seeds, and accuracy against the
 * time of a step. One of each per task and recipe, as SVG and PNG. */
#ifndef FB_ACCURACY_PLOTS_H
#define FB_ACCURACY_PLOTS_H

#include "accuracy_group.h"

#include <stdio.h>

struct fb_accuracy_plots_request {
    const struct fb_accuracy *accuracy;
    const struct fb_accuracy_groups *groups;
    unsigned plots;  /* of enum fb_training_plot */
    const char *dir; /* NULL: the folder "plots" of the run */
    FILE *out;       /* the paths are told here; NULL: nowhere */
};

/* As fb_plots_make. */
enum fb_status fb_accuracy_plots_make(const struct fb_accuracy_plots_request *request,
                                      struct fb_arena *arena, int *pictures,
                                      struct fb_error *error) FB_MUST_CHECK;

#endif
