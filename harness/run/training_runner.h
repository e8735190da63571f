/*
 * The runner of training suites: one worker process per case, which trains it to its end; its row,
 * curve and bits are written at once. A case that was interrupted goes on from its checkpoint.
 */
#ifndef FB_TRAINING_RUNNER_H
#define FB_TRAINING_RUNNER_H

#include "accuracy_file.h"
#include "case_row.h"
#include "runner.h"

struct fb_training_run {
    const struct fb_suite *suite;
    const struct fb_plan *plan;
    const struct fb_accuracy *done;
    struct fb_accuracy_writer *writer;
    const char *dir;      /* of the run: checkpoints lie in DIR/checkpoints */
    const char *data_dir; /* NULL: none was named */
    const struct fb_runner_options *options;
};

/* As fb_runner_run. */
enum fb_status fb_training_runner_run(const struct fb_training_run *run,
                                      struct fb_runner_outcome *outcome,
                                      struct fb_error *error) FB_MUST_CHECK;

/* The factors of a case, and the paper's number, without any result. */
void fb_accuracy_row_from_case(const struct fb_row_context *context, const struct fb_case *item,
                               struct fb_accuracy_row *row);

#endif
