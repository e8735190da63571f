/*
 * Predicting a case before it starts: how long one call takes, how long its worker lives, whether
 * it fits. What is known best is used: the nearest finished case of the same kind, scaled by the
 * mechanism's own work; before there is one, a multiple of the floor.
 */
#ifndef FB_PREDICTION_H
#define FB_PREDICTION_H

#include "ceiling_book.h"
#include "plan.h"
#include "suite.h"

#include <stdbool.h>

/* What happened to a case. */
struct fb_prediction_fact {
    bool finished;  /* call_s holds the median of one call */
    bool timed_out; /* its worker ran into the time-out */
    double call_s;
};

struct fb_prediction {
    double call_s;               /* seconds of one call; NaN: nothing to go by */
    bool measured;               /* from a finished case of the same kind, not from the floor */
    bool hopeless;               /* a case of the same kind with no more work has timed out */
    const struct fb_case *after; /* that case */
};

/* facts[i] belongs to plan->cases[i]. */
void fb_predict_case(const struct fb_plan *plan, const struct fb_prediction_fact *facts,
                     size_t index, const struct fb_ceiling *ceiling,
                     struct fb_prediction *prediction);

/* Whether the time-out (0: none) makes starting useless. From the floor, only when one call takes
 * longer; from measured neighbours, also when the two calls do that a worker cannot do without. */
bool fb_prediction_is_too_long(const struct fb_prediction *prediction, double timeout_s);

/* Seconds that a worker process needs for a case whose call takes call_s. */
double fb_predict_worker_s(const struct fb_measure_settings *settings, double call_s);

enum { FB_PREDICT_FLOOR_MULTIPLE = 3, FB_PREDICT_CALLS_MIN = 2 };

#endif
