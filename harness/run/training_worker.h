/*
 * Training in a worker process: the task's document, its service, its result.
 *
 * {"task": "training", "case": {...}, "data_dir": "...", "checkpoint": "...", ...} is answered with
 * {"result": {"status": "ok" | "skipped" | "stopped", ...}}; what fails is {"error": ...}.
 */
#ifndef FB_TRAINING_WORKER_H
#define FB_TRAINING_WORKER_H

#include "accuracy_row.h"
#include "fit.h"
#include "plan.h"

#include <jansson.h>

struct fb_training_place {
    const char *data_dir;   /* NULL: none was named */
    const char *checkpoint; /* path */
    double checkpoint_s;
    bool alone; /* no other case is trained beside it: its threads are bound to processors */
};

json_t *fb_training_task(const struct fb_case *item, const struct fb_training_place *place);

enum fb_status fb_training_serve(const json_t *task, int out_fd,
                                 struct fb_error *error) FB_MUST_CHECK;

/* What a fit of the case is called with; the recipe and the opened data are the caller's. */
void fb_training_options(const struct fb_case *item, const struct fb_recipe *recipe,
                         const void *data, struct fb_fit_options *options);
/* Opens the data of a case. */
enum fb_status fb_training_open(const struct fb_case *item, const char *data_dir,
                                struct fb_arena *arena, void **data,
                                struct fb_error *error) FB_MUST_CHECK;

/* What a worker answered. Texts and arrays belong to the JSON document or are owned. */
struct fb_training_answer {
    const char *status, *reason, *warning; /* reason, warning: NULL when there is none */
    struct fb_curve_point *points;         /* owned */
    size_t points_count;
    const char *bits; /* NULL: none */
};

/* Fills the row's results and the answer from the document; FB_ERROR_INPUT when it is malformed. */
enum fb_status fb_training_answer_read(const json_t *result, struct fb_accuracy_row *row,
                                       struct fb_training_answer *answer,
                                       struct fb_error *error) FB_MUST_CHECK;
void fb_training_answer_free(struct fb_training_answer *answer);

#endif
