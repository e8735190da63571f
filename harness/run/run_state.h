/*
 * What the runner knows in the middle of a run: per case its record, its prediction and what is
 * left of it. Used inside this room only.
 */
#ifndef FB_RUN_STATE_H
#define FB_RUN_STATE_H

#include "case_row.h"
#include "prediction.h"
#include "runner.h"

struct fb_run_case {
    struct fb_case_record record;
    bool has_row;
    int processes_planned, processes_left; /* jobs of the plan; those not yet done */
    double estimate_s;                     /* of one worker */
};

struct fb_run_state {
    const struct fb_suite *suite;
    const struct fb_plan *plan;
    const struct fb_runner_options *options;
    struct fb_results_writer *writer;
    struct fb_runner_outcome *outcome;
    struct fb_row_context context;
    struct fb_run_case *cases;        /* owned, one per case of the plan */
    struct fb_prediction_fact *facts; /* owned, one per case of the plan */
    size_t memory_limit_bytes;        /* 0: none */
    double start_s;
    double predicted_s, observed_s; /* of the workers that have ended: calibrates the ETA */
};

double fb_run_now_s(void);

/* Sets up the state, rows in `done` taken as finished. */
enum fb_status fb_run_state_init(struct fb_run_state *state, const struct fb_suite *suite,
                                 const struct fb_plan *plan, const struct fb_results *done,
                                 struct fb_results_writer *writer,
                                 const struct fb_runner_options *options,
                                 struct fb_runner_outcome *outcome,
                                 struct fb_error *error) FB_MUST_CHECK;
void fb_run_state_free(struct fb_run_state *state);

size_t fb_run_state_rows_done(const struct fb_run_state *state);

/* Estimates the workers of one kind again after a case of it has ended; all of them at the start
 * (like is NULL). */
void fb_run_state_estimate(struct fb_run_state *state, const struct fb_case *like);

/* Seconds of the budget that are left; meaningless without one. */
double fb_run_state_budget_left_s(const struct fb_run_state *state);

/* Seconds until the end as far as can be told. */
double fb_run_state_eta_s(const struct fb_run_state *state);

/* Writes the row of a case and forgets its samples. */
enum fb_status fb_run_state_write(struct fb_run_state *state, size_t case_index,
                                  const struct fb_row *row, struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_run_state_write_failure(struct fb_run_state *state, size_t case_index,
                                          const char *status_name, const char *reason,
                                          struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_run_state_write_record(struct fb_run_state *state, size_t case_index,
                                         struct fb_error *error) FB_MUST_CHECK;

#endif
