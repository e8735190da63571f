/* Single processes of a live comparison, and its calibration: see ab_state.h. */
#include "ab_state.h"

#include "stats.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CALIBRATION_SAMPLES = 2 };

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

bool fb_ab_interrupted(const struct fb_ab_state *state)
{
    if (state->options->interrupts == NULL)
        return false;
    fb_interrupts_poll(state->options->interrupts);
    return state->options->interrupts->count > 0;
}

bool fb_ab_budget_is_spent(const struct fb_ab_state *state)
{
    return state->options->budget_s > 0 && now_s() - state->start_s >= state->options->budget_s;
}

void fb_ab_say(const struct fb_ab_state *state, const char *format, ...)
{
    char text[512];
    va_list arguments;

    if (state->options->progress->quiet)
        return;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fb_progress_say(state->options->progress, text);
}

/* ---- one process ------------------------------------------------------------------------------
 */

static void show(struct fb_ab_state *state, const struct fb_ab_case *one, const char *stage)
{
    struct fb_progress *progress = state->options->progress;
    char what[256];
    char line[320];
    /* How much slower than calibrated it has gone so far. */
    const double pace = state->expected_s > 0 ? state->done_s / state->expected_s : 1.0;

    fb_case_describe(one->item, what, sizeof what);
    (void)snprintf(line, sizeof line, "%s  %s", stage, what);
    progress->rows_total = progress->rows_done + state->processes_left;
    fb_progress_case(progress, line, pace * state->seconds_left);
}

static double median_of(struct fb_measure_result *result)
{
    if (result->samples_count == 0)
        return (double)NAN;
    fb_stats_sort(result->samples_s, result->samples_count);
    return fb_stats_median(result->samples_s, result->samples_count);
}

/* Only the first process of a side is checked against the oracle: its errors are the row's. */
static void keep_errors(const struct fb_case_record *record, struct fb_measure_result *result)
{
    if (record->processes == 0)
        return;
    result->err_rel = record->worst.err_rel;
    result->err_max = record->worst.err_max;
    result->err_budget = record->worst.err_budget;
    result->softmax_distance = record->worst.softmax_distance;
}

/* Keeps what a process of the old or the new build has found. */
static enum fb_status keep(struct fb_ab_state *state, struct fb_ab_case *one, enum fb_ab_side side,
                           int process, struct fb_ab_answer *answer, struct fb_error *error)
{
    struct fb_case_record *record = &one->records[side];
    const bool wrong = strcmp(answer->status, "wrong") == 0;

    if (!wrong && strcmp(answer->status, "ok") != 0) {
        fb_row_from_failure(&state->context, one->item, answer->status, answer->reason,
                            &one->rows[side]);
        one->running = false;
        return FB_OK;
    }
    if (!wrong)
        keep_errors(record, &answer->result);
    enum fb_status status = fb_case_record_add(record, one->item, process, &answer->result, error);
    if (status == FB_OK)
        status =
            fb_row_from_record(&state->context, one->item, record, NULL, &one->rows[side], error);
    one->running = one->running && !wrong;
    return status;
}

enum fb_status fb_ab_run_process(struct fb_ab_state *state, struct fb_ab_case *one,
                                 enum fb_ab_side side, int process, const char *stage,
                                 double *time_s, struct fb_error *error)
{
    struct fb_ab_answer answer = {.status = "error"};
    const struct fb_ab_request request = {
        .item = one->item,
        .side = side,
        .process = process,
        .samples = one->samples,
        .check = process == 0 && state->suite->oracle,
    };

    *time_s = (double)NAN;
    fb_measure_result_init(&answer.result);
    show(state, one, stage);
    enum fb_status status =
        state->options->measure(state->options->context, &request, &answer, error);
    if (status == FB_OK && !answer.aborted) {
        const bool ok = strcmp(answer.status, "ok") == 0;
        state->done_s += answer.wall_s;
        state->expected_s += one->process_s;
        state->options->progress->rows_done++;
        if (side == FB_AB_LAYOUT && !ok)
            status =
                fb_error_set(error, FB_ERROR_INPUT,
                             "the relinked build (A') fails where the old one does not: %s: %s",
                             answer.status, answer.reason);
        else if (side != FB_AB_LAYOUT)
            status = keep(state, one, side, process, &answer, error);
        if (ok)
            *time_s = median_of(&answer.result);
        if (process == 0)
            one->process_s = fmax(one->process_s, answer.wall_s);
    }
    fb_measure_result_free(&answer.result);
    if (status == FB_OK && !isnan(*time_s) && !(*time_s > 0.0 && isfinite(*time_s))) {
        fb_row_from_failure(&state->context, one->item, "error", "a sample is no time",
                            &one->rows[side == FB_AB_NEW]);
        one->running = false;
        *time_s = (double)NAN;
    }
    return status;
}

/* ---- calibration ------------------------------------------------------------------------------
 */

/* Gives both sides the same row: the case is not started. */
static void refuse(struct fb_ab_state *state, struct fb_ab_case *one, const char *status,
                   const char *reason)
{
    for (int side = 0; side < 2; side++)
        fb_row_from_failure(&state->context, one->item, status, reason, &one->rows[side]);
}

static bool is_hopeless(struct fb_ab_state *state, size_t index)
{
    struct fb_ab_case *one = &state->cases[index];
    const double timeout_s = state->suite->limits.case_timeout_s;
    const size_t limit_bytes = fb_limits_memory_bytes(&state->suite->limits);
    struct fb_prediction prediction;
    struct fb_case_bytes bytes;
    char reason[256];
    char needed[32];

    if (one->item->skip_reason != NULL) {
        refuse(state, one, "skipped", one->item->skip_reason);
        return true;
    }
    fb_case_bytes(one->item, &bytes);
    if (one->item->device == FB_CPU && limit_bytes > 0 && bytes.total_bytes > limit_bytes) {
        (void)snprintf(reason, sizeof reason, "not started: needs %s, more than the memory limit",
                       fb_human_bytes((double)bytes.total_bytes, needed, sizeof needed));
        refuse(state, one, "oom", reason);
        return true;
    }
    fb_predict_case(state->plan, state->facts, index, NULL, &prediction);
    if (prediction.hopeless || fb_prediction_is_too_long(&prediction, timeout_s)) {
        (void)snprintf(reason, sizeof reason, "predicted more than case_timeout (%.4g s)",
                       timeout_s);
        refuse(state, one, "skipped", reason);
        return true;
    }
    return false;
}

/* As many as the suite says, or what fits into its max_time: fixed from here on. */
static int samples_for(const struct fb_measure_settings *settings, double call_s)
{
    const double eviction_s = settings->cache == FB_CACHE_COLD ? 0.01 : 0.0;

    if (settings->samples > 0)
        return settings->samples;
    const double fit = settings->max_time_s / (call_s + eviction_s);
    if (!(fit > 1.0))
        return 1;
    return fit < settings->min_samples ? (int)fit : settings->min_samples;
}

static enum fb_status calibrate_case(struct fb_ab_state *state, size_t index,
                                     struct fb_error *error)
{
    struct fb_ab_case *one = &state->cases[index];
    double old_s = (double)NAN;
    double new_s = (double)NAN;

    one->running = true;
    one->samples =
        state->suite->measure.samples > 0 ? state->suite->measure.samples : CALIBRATION_SAMPLES;
    enum fb_status status = fb_ab_run_process(state, one, FB_AB_OLD, 0, "calibrate", &old_s, error);
    /* A new build is run also where the old one fails: a wrong answer is a wrong answer. */
    if (status == FB_OK && !fb_ab_interrupted(state))
        status = fb_ab_run_process(state, one, FB_AB_NEW, 0, "calibrate", &new_s, error);
    state->facts[index].finished = !isnan(old_s);
    state->facts[index].timed_out = strcmp(one->rows[FB_AB_OLD].status, "timeout") == 0;
    state->facts[index].call_s = old_s;
    one->running = one->running && !isnan(old_s) && !isnan(new_s);
    one->samples = samples_for(&state->suite->measure, fmax(old_s, new_s));
    return status;
}

enum fb_status fb_ab_calibrate(struct fb_ab_state *state, struct fb_error *error)
{
    enum fb_status status = FB_OK;

    state->processes_left = 2 * state->plan->cases_count;
    state->seconds_left = (double)NAN; /* nothing is known yet */
    for (size_t i = 0; i < state->plan->cases_count && status == FB_OK; i++) {
        if (fb_ab_interrupted(state))
            return FB_OK;
        if (fb_ab_budget_is_spent(state)) {
            state->cases[i].left_over = true;
            refuse(state, &state->cases[i], "skipped", "left over by --budget");
        } else if (!is_hopeless(state, i)) {
            status = calibrate_case(state, i, error);
        }
        state->processes_left -= 2;
    }
    return status;
}
