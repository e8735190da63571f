/* The runner's memory: see run_state.h. */
#include "run_state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double fb_run_now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- setting up ------------------------------------------------------------------------------ */

/* Rows of an earlier session: finished, and good for predictions. */
static void take_rows(struct fb_run_state *state, const struct fb_results *done)
{
    for (size_t i = 0; i < state->plan->cases_count; i++) {
        for (size_t r = 0; r < done->rows_count; r++) {
            const struct fb_row *row = &done->rows[r];
            if (strcmp(row->case_id, state->plan->cases[i].id) != 0)
                continue;
            state->cases[i].has_row = true;
            state->facts[i].finished = !isnan(row->time_median_s);
            state->facts[i].timed_out = strcmp(row->status, "timeout") == 0;
            state->facts[i].call_s = row->time_median_s;
        }
    }
}

enum fb_status fb_run_state_init(struct fb_run_state *state, const struct fb_suite *suite,
                                 const struct fb_plan *plan, const struct fb_results *done,
                                 struct fb_results_writer *writer,
                                 const struct fb_runner_options *options,
                                 struct fb_runner_outcome *outcome, struct fb_error *error)
{
    *state = (struct fb_run_state){
        .suite = suite,
        .plan = plan,
        .options = options,
        .writer = writer,
        .outcome = outcome,
        .context = {options->run_id, suite->name, options->device_name, options->gpu_name},
        .cases = calloc(plan->cases_count + 1, sizeof *state->cases),
        .facts = calloc(plan->cases_count + 1, sizeof *state->facts),
        .memory_limit_bytes = fb_limits_memory_bytes(&suite->limits),
        .start_s = fb_run_now_s(),
    };
    if (state->cases == NULL || state->facts == NULL) {
        fb_run_state_free(state);
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a run of %zu cases",
                            plan->cases_count);
    }
    for (size_t i = 0; i < plan->jobs_count; i++) {
        struct fb_run_case *one = &state->cases[plan->jobs[i].case_index];
        one->processes_planned++;
        one->processes_left++;
    }
    take_rows(state, done);
    return FB_OK;
}

void fb_run_state_free(struct fb_run_state *state)
{
    for (size_t i = 0; state->cases != NULL && i < state->plan->cases_count; i++)
        fb_case_record_free(&state->cases[i].record);
    free(state->cases);
    free(state->facts);
    state->cases = NULL;
    state->facts = NULL;
}

size_t fb_run_state_rows_done(const struct fb_run_state *state)
{
    size_t count = 0;

    for (size_t i = 0; i < state->plan->cases_count; i++)
        count += state->cases[i].has_row;
    return count;
}

/* ---- estimating ------------------------------------------------------------------------------ */

void fb_run_state_estimate(struct fb_run_state *state, const struct fb_case *like)
{
    const double timeout_s = state->suite->limits.case_timeout_s;

    for (size_t i = 0; i < state->plan->cases_count; i++) {
        const struct fb_case *item = &state->plan->cases[i];
        struct fb_prediction prediction;
        if (state->cases[i].has_row || item->skip_reason != NULL ||
            (like != NULL &&
             (item->mechanism != like->mechanism || strcmp(item->variant, like->variant) != 0)))
            continue;
        fb_predict_case(state->plan, state->facts, i,
                        fb_ceiling_book_entry(state->options->book, item), &prediction);
        double estimate_s = fb_predict_worker_s(&state->suite->measure, prediction.call_s);
        if (timeout_s > 0)
            estimate_s = fmin(estimate_s, timeout_s);
        if (prediction.hopeless || fb_prediction_is_too_long(&prediction, timeout_s))
            estimate_s = 0;
        state->cases[i].estimate_s = estimate_s;
    }
}

double fb_run_state_budget_left_s(const struct fb_run_state *state)
{
    return state->options->budget_s - state->options->budget_used_s -
           (fb_run_now_s() - state->start_s);
}

double fb_run_state_eta_s(const struct fb_run_state *state)
{
    double left_s = 0;

    for (size_t i = 0; i < state->plan->cases_count; i++) {
        const struct fb_run_case *one = &state->cases[i];
        if (!one->has_row)
            left_s += one->processes_left * one->estimate_s;
    }
    if (state->predicted_s > 0)
        left_s *= fmin(fmax(state->observed_s / state->predicted_s, 0.2), 5);
    if (state->options->budget_s > 0)
        left_s = fmin(left_s, fmax(0, fb_run_state_budget_left_s(state)));
    return left_s;
}

/* ---- rows ------------------------------------------------------------------------------------ */

enum fb_status fb_run_state_write(struct fb_run_state *state, size_t case_index,
                                  const struct fb_row *row, struct fb_error *error)
{
    struct fb_run_case *one = &state->cases[case_index];
    const bool timed = !isnan(row->time_median_s);
    enum fb_status status = fb_results_writer_append(state->writer, row, one->record.samples,
                                                     timed ? one->record.samples_count : 0, error);

    if (status != FB_OK)
        return status;
    one->has_row = true;
    one->processes_left = 0;
    fb_case_record_free(&one->record);
    state->facts[case_index].finished = timed;
    state->facts[case_index].timed_out = strcmp(row->status, "timeout") == 0;
    state->facts[case_index].call_s = row->time_median_s;
    state->outcome->rows_written++;
    return FB_OK;
}

static enum fb_status write_and_show(struct fb_run_state *state, size_t case_index,
                                     const struct fb_row *row, struct fb_error *error)
{
    char description[256];
    enum fb_status status = fb_run_state_write(state, case_index, row, error);

    if (status != FB_OK)
        return status;
    fb_run_state_estimate(state, &state->plan->cases[case_index]);
    fb_case_describe(&state->plan->cases[case_index], description, sizeof description);
    fb_progress_row(state->options->progress, row, description, fb_run_state_eta_s(state));
    return FB_OK;
}

enum fb_status fb_run_state_write_failure(struct fb_run_state *state, size_t case_index,
                                          const char *status_name, const char *reason,
                                          struct fb_error *error)
{
    struct fb_row row;

    fb_row_from_failure(&state->context, &state->plan->cases[case_index], status_name, reason,
                        &row);
    return write_and_show(state, case_index, &row, error);
}

enum fb_status fb_run_state_write_record(struct fb_run_state *state, size_t case_index,
                                         struct fb_error *error)
{
    const struct fb_case *item = &state->plan->cases[case_index];
    struct fb_row row;
    enum fb_status status =
        fb_row_from_record(&state->context, item, &state->cases[case_index].record,
                           fb_ceiling_book_entry(state->options->book, item), &row, error);

    return status == FB_OK ? write_and_show(state, case_index, &row, error) : status;
}
