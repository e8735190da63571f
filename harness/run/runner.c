/* The loop over the jobs of a plan: see runner.h. */
#include "runner.h"

#include "run_state.h"
#include "worker_process.h"
#include "worker_task.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- ceilings -------------------------------------------------------------------------------- */

enum fb_status fb_runner_measure_ceiling(struct fb_ceiling_book *book, struct fb_ceiling *entry,
                                         bool at_end, const char *worker_program,
                                         struct fb_interrupts *interrupts, struct fb_error *why,
                                         struct fb_error *error)
{
    const double timeout_s = 60;
    struct fb_worker_outcome outcome;
    struct fb_measure_ceilings found;
    json_t *input =
        fb_worker_task_ceilings(entry->device, entry->dtype, entry->threads, entry->isa);
    const struct fb_worker_task task = {
        .program = worker_program,
        .input = input,
        .threads = entry->threads,
        .openblas_core = fb_ceiling_openblas_core(entry->isa, book->best_isa, book->openblas_core),
        .timeout_s = timeout_s,
    };

    if (why != NULL)
        why->code = FB_OK;
    if (input == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a worker's task");
    enum fb_status status = fb_worker_run(&task, interrupts, &outcome, error);
    json_decref(input);
    if (status != FB_OK)
        return status;
    if (outcome.end != FB_WORKER_RESULT) {
        (void)fb_error_set(why, FB_ERROR_DEVICE, "%s", outcome.reason);
    } else if (fb_measure_ceilings_from_json(outcome.result, &found, why) == FB_OK) {
        fb_ceiling_note_gemm(entry, found.gemm_flop_per_s);
        fb_ceiling_note_copy(entry, found.copy_bytes_per_s);
        *(at_end ? &entry->end : &entry->start) = found;
    }
    fb_worker_outcome_free(&outcome);
    return FB_OK;
}

static bool is_measurable(const struct fb_case *item)
{
    return item->skip_reason == NULL;
}

/* "2 threads, avx2" or "cuda bf16". */
static void describe_entry(const struct fb_ceiling *entry, char *text, size_t size)
{
    if (entry->device == FB_CPU)
        snprintf(text, size, "%d thread%s, %s", entry->threads, entry->threads == 1 ? "" : "s",
                 fb_isa_name(entry->isa));
    else
        snprintf(text, size, "%s %s", fb_backend_name(entry->device), fb_dtype_name(entry->dtype));
}

/* At the start: the entries of cases that still want a row. At the end: all that were used. */
static enum fb_status measure_ceilings(struct fb_run_state *state, bool at_end,
                                       struct fb_error *error)
{
    const struct fb_runner_options *options = state->options;
    bool visited[FB_CEILINGS_MAX] = {false};

    for (size_t i = 0; i < state->plan->cases_count; i++) {
        const struct fb_case *item = &state->plan->cases[i];
        struct fb_ceiling *entry = is_measurable(item) && (at_end || !state->cases[i].has_row)
                                       ? fb_ceiling_book_entry(options->book, item)
                                       : NULL;
        struct fb_error why;
        char name[64];
        char text[FB_ERROR_TEXT_SIZE + 192];
        fb_interrupts_poll(options->interrupts);
        if (options->interrupts->count > 0)
            return FB_OK;
        if (entry == NULL || visited[entry - options->book->entries])
            continue;
        visited[entry - options->book->entries] = true;
        describe_entry(entry, name, sizeof name);
        snprintf(text, sizeof text, "ceilings of %s", name);
        fb_progress_case(options->progress, text, fb_run_state_eta_s(state));
        enum fb_status status =
            fb_runner_measure_ceiling(options->book, entry, at_end, options->worker_program,
                                      options->interrupts, &why, error);
        if (status != FB_OK)
            return status;
        if (why.code != FB_OK) {
            snprintf(text, sizeof text,
                     "the ceilings of %s could not be measured: %s; rows may lack their floor",
                     name, why.text);
            options->warn(options->context, text);
        }
    }
    return FB_OK;
}

/* ---- cases that do not start ----------------------------------------------------------------- */

/* What the plan has refused beforehand: their rows come first, one line per reason. */
static enum fb_status write_planned_skips(struct fb_run_state *state, struct fb_error *error)
{
    const struct fb_plan *plan = state->plan;

    for (size_t i = 0; i < plan->cases_count; i++) {
        const char *reason = plan->cases[i].skip_reason;
        size_t count = 0;
        if (reason == NULL || state->cases[i].has_row)
            continue;
        for (size_t other = i; other < plan->cases_count; other++) {
            const char *same = plan->cases[other].skip_reason;
            struct fb_row row;
            if (same == NULL || state->cases[other].has_row || strcmp(same, reason) != 0)
                continue;
            fb_row_from_failure(&state->context, &plan->cases[other], "skipped", same, &row);
            enum fb_status status = fb_run_state_write(state, other, &row, error);
            if (status != FB_OK)
                return status;
            count++;
        }
        fb_progress_skipped(state->options->progress, count, reason);
    }
    return FB_OK;
}

/* Writes a row when the case would fail for certain; *refused tells. */
static enum fb_status refuse_hopeless(struct fb_run_state *state, size_t case_index, bool *refused,
                                      struct fb_error *error)
{
    const struct fb_case *item = &state->plan->cases[case_index];
    const double timeout_s = state->suite->limits.case_timeout_s;
    struct fb_prediction prediction;
    struct fb_case_bytes bytes;
    char reason[512];
    char needed[32];
    char limit[32];

    *refused = true;
    fb_case_bytes(item, &bytes);
    if (item->device == FB_CPU && state->memory_limit_bytes > 0 &&
        bytes.total_bytes > state->memory_limit_bytes) {
        snprintf(reason, sizeof reason, "not started: needs %s, the limit is %s (limits: memory)",
                 fb_human_bytes((double)bytes.total_bytes, needed, sizeof needed),
                 fb_human_bytes((double)state->memory_limit_bytes, limit, sizeof limit));
        return fb_run_state_write_failure(state, case_index, "oom", reason, error);
    }
    fb_predict_case(state->plan, state->facts, case_index,
                    fb_ceiling_book_entry(state->options->book, item), &prediction);
    if (fb_prediction_is_too_long(&prediction, timeout_s)) {
        snprintf(reason, sizeof reason, "predicted %.3g s per call%s, case_timeout is %.4g s",
                 prediction.call_s,
                 prediction.call_s > timeout_s ? "" : " and a case takes at least two", timeout_s);
        return fb_run_state_write_failure(state, case_index, "skipped", reason, error);
    }
    if (prediction.hopeless) {
        snprintf(
            reason, sizeof reason,
            "predicted more than case_timeout (%.4g s): the same at sequence length %lld timed "
            "out",
            timeout_s, (long long)prediction.after->seq_len);
        return fb_run_state_write_failure(state, case_index, "skipped", reason, error);
    }
    *refused = false;
    return FB_OK;
}

static enum fb_status write_left_over(struct fb_run_state *state, struct fb_error *error)
{
    char reason[96];
    char budget[32];
    const double budget_s = state->options->budget_s;

    snprintf(reason, sizeof reason, "left over by --budget %s",
             fb_human_duration(budget_s, budget, sizeof budget));
    for (size_t i = 0; i < state->plan->cases_count; i++) {
        enum fb_status status = FB_OK;
        if (state->cases[i].has_row)
            continue;
        if (state->cases[i].record.processes > 0) {
            status = fb_run_state_write_record(state, i, error);
        } else {
            status = fb_run_state_write_failure(state, i, "skipped", reason, error);
            state->outcome->left_over++;
        }
        if (status != FB_OK)
            return status;
    }
    return FB_OK;
}

/* ---- jobs ------------------------------------------------------------------------------------ */

/* What a worker measured: merged into the case; the row is written with its last process, or at
 * once when the answer is wrong. */
static enum fb_status take_result(struct fb_run_state *state, const struct fb_job *job,
                                  const json_t *json, struct fb_error *error)
{
    const struct fb_case *item = &state->plan->cases[job->case_index];
    struct fb_run_case *one = &state->cases[job->case_index];
    struct fb_ceiling *entry = fb_ceiling_book_entry(state->options->book, item);
    struct fb_measure_result result;
    struct fb_error malformed;
    char reason[FB_ERROR_TEXT_SIZE + 64];
    enum fb_status status = fb_measure_result_from_json(json, &result, &malformed);

    if (status != FB_OK) {
        snprintf(reason, sizeof reason, "the worker's result is malformed: %s", malformed.text);
        status = fb_run_state_write_failure(state, job->case_index, "error", reason, error);
    } else if (result.status != FB_MEASURE_OK && result.status != FB_MEASURE_WRONG) {
        status = fb_run_state_write_failure(
            state, job->case_index, fb_measure_status_name(result.status), result.reason, error);
    } else if (result.status == FB_MEASURE_OK && result.samples_count == 0 &&
               result.instructions < 0) {
        status = fb_run_state_write_failure(state, job->case_index, "error",
                                            "the worker's result has no samples", error);
    } else {
        if (entry != NULL)
            fb_ceiling_note_gemm(entry, result.gemm_flop_per_s);
        status = fb_case_record_add(&one->record, item, job->process, &result, error);
        one->processes_left--;
        if (status == FB_OK && (one->processes_left == 0 || one->record.wrong))
            status = fb_run_state_write_record(state, job->case_index, error);
    }
    fb_measure_result_free(&result);
    return status;
}

static enum fb_status take_outcome(struct fb_run_state *state, const struct fb_job *job,
                                   const struct fb_worker_outcome *outcome, struct fb_error *error)
{
    if (outcome->end == FB_WORKER_RESULT)
        return take_result(state, job, outcome->result, error);
    if (outcome->end == FB_WORKER_ABORTED)
        return FB_OK;
    return fb_run_state_write_failure(state, job->case_index, fb_worker_end_status(outcome->end),
                                      outcome->reason, error);
}

static enum fb_status run_job(struct fb_run_state *state, const struct fb_job *job,
                              struct fb_error *error)
{
    const struct fb_case *item = &state->plan->cases[job->case_index];
    const struct fb_runner_options *options = state->options;
    struct fb_worker_outcome outcome;
    char description[256];
    json_t *input = fb_worker_task_case(item, state->suite, job->process);
    const struct fb_worker_task task = {
        .program = options->worker_program,
        .input = input,
        .threads = item->threads,
        .counter = state->suite->measure.counter,
        .openblas_core =
            fb_ceiling_openblas_core_for(options->book, item, state->suite->measure.counter),
        .idle_threads = item->program != NULL,
        .timeout_s = state->suite->limits.case_timeout_s,
        /* a GPU's driver reserves more than it uses; the worker counts the GPU's memory itself */
        .memory_bytes = item->device == FB_CPU ? state->memory_limit_bytes : 0,
    };

    if (input == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a worker's task");
    fb_case_describe(item, description, sizeof description);
    fb_progress_case(options->progress, description, fb_run_state_eta_s(state));
    enum fb_status status = fb_worker_run(&task, options->interrupts, &outcome, error);
    json_decref(input);
    if (status != FB_OK)
        return status;
    state->predicted_s += state->cases[job->case_index].estimate_s;
    state->observed_s += outcome.wall_s;
    status = take_outcome(state, job, &outcome, error);
    fb_worker_outcome_free(&outcome);
    return status;
}

static bool budget_is_spent(const struct fb_run_state *state)
{
    return state->options->budget_s > 0 && fb_run_state_budget_left_s(state) <= 0;
}

static enum fb_status run_jobs(struct fb_run_state *state, struct fb_error *error)
{
    struct fb_interrupts *interrupts = state->options->interrupts;
    enum fb_status status = FB_OK;

    for (size_t i = 0; i < state->plan->jobs_count && status == FB_OK; i++) {
        const struct fb_job *job = &state->plan->jobs[i];
        bool refused = false;
        if (state->cases[job->case_index].has_row)
            continue;
        fb_interrupts_poll(interrupts);
        if (interrupts->count > 0)
            return FB_OK;
        if (budget_is_spent(state))
            return write_left_over(state, error);
        if (state->cases[job->case_index].record.processes == 0)
            status = refuse_hopeless(state, job->case_index, &refused, error);
        if (status == FB_OK && !refused)
            status = run_job(state, job, error);
    }
    return status;
}

/* ---- public ---------------------------------------------------------------------------------- */

static enum fb_status run_all(struct fb_run_state *state, struct fb_error *error)
{
    const struct fb_runner_options *options = state->options;
    enum fb_status status = write_planned_skips(state, error);

    fb_run_state_estimate(state, NULL);
    /* A floor belongs to a time. */
    const bool timed = options->ceilings && state->suite->measure.counter == FB_COUNTER_NONE &&
                       fb_run_state_rows_done(state) < state->plan->cases_count;
    if (status == FB_OK && timed)
        status = measure_ceilings(state, false, error);
    if (status == FB_OK && options->checkpoint != NULL)
        status = options->checkpoint(options->context, error);
    fb_run_state_estimate(state, NULL);
    if (status == FB_OK)
        status = run_jobs(state, error);
    if (status == FB_OK && timed)
        status = measure_ceilings(state, true, error);
    if (status == FB_OK && options->checkpoint != NULL)
        status = options->checkpoint(options->context, error);
    return status;
}

enum fb_status fb_runner_run(const struct fb_suite *suite, const struct fb_plan *plan,
                             const struct fb_results *done, struct fb_results_writer *writer,
                             const struct fb_runner_options *options,
                             struct fb_runner_outcome *outcome, struct fb_error *error)
{
    struct fb_run_state state;

    memset(outcome, 0, sizeof *outcome);
    enum fb_status status =
        fb_run_state_init(&state, suite, plan, done, writer, options, outcome, error);
    if (status != FB_OK)
        return status;
    fb_progress_start(options->progress, plan->cases_count, fb_run_state_rows_done(&state));
    status = run_all(&state, error);
    fb_progress_end(options->progress);
    outcome->rows_left = plan->cases_count - fb_run_state_rows_done(&state);
    outcome->signal = options->interrupts->first_signal;
    fb_run_state_free(&state);
    return status;
}
