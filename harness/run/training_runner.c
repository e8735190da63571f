/* The loop over the cases of a training suite: see training_runner.h. */
#include "training_runner.h"

#include "run_state.h"
#include "training_slots.h"
#include "training_worker.h"
#include "worker_process.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SIZE = 4096 };

struct training {
    const struct fb_training_run *run;
    struct fb_runner_outcome *outcome;
    struct fb_row_context context;
    bool *has_row; /* per case; owned */
    struct fb_training_slots slots;
    double start_s, spent_s; /* spent: by the cases that have ended */
    size_t trained;
};

/* ---- bookkeeping ----------------------------------------------------------------------------- */

static size_t rows_done(const struct training *t)
{
    size_t count = 0;
    for (size_t i = 0; i < t->run->plan->cases_count; i++)
        count += t->has_row[i];
    return count;
}

/* By the mean of the cases trained so far: cases differ, so this is no more than a guess. Those at
 * work count as not begun. */
static double eta_s(const struct training *t)
{
    size_t left = 0;
    for (size_t i = 0; i < t->run->plan->cases_count; i++)
        left += !t->has_row[i] && !t->run->plan->cases[i].skip_reason;
    return t->trained > 0
               ? t->spent_s / (double)t->trained * ceil((double)left / (double)t->slots.count)
               : (double)NAN;
}

static void find_rows(struct training *t)
{
    const struct fb_accuracy *done = t->run->done;
    for (size_t i = 0; i < t->run->plan->cases_count; i++)
        for (size_t r = 0; r < done->rows_count && !t->has_row[i]; r++)
            t->has_row[i] = strcmp(done->rows[r].case_id, t->run->plan->cases[i].id) == 0;
}

static bool checkpoint_path(const struct training *t, const struct fb_case *item, char *path)
{
    const int length =
        snprintf(path, PATH_SIZE, "%s/checkpoints/%s.safetensors", t->run->dir, item->id);
    return length > 0 && length < PATH_SIZE;
}

static enum fb_status make_checkpoints_dir(const struct training *t, struct fb_error *error)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/checkpoints", t->run->dir);
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        return fb_error_set(error, FB_ERROR_IO, "cannot create '%s': %s", path, strerror(errno));
    return FB_OK;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static enum fb_status write_row(struct training *t, size_t index, const struct fb_accuracy_row *row,
                                const struct fb_training_answer *answer, struct fb_error *error)
{
    const enum fb_status status = fb_accuracy_writer_append(
        t->run->writer, row, answer ? answer->points : NULL, answer ? answer->points_count : 0,
        answer ? answer->bits : NULL, error);
    if (status != FB_OK)
        return status;
    t->has_row[index] = true;
    t->outcome->rows_written++;
    return FB_OK;
}

static void show(struct training *t, const struct fb_case *item, const struct fb_accuracy_row *row)
{
    char description[256], finding[96];
    const bool perplexity = strcmp(row->metric_name, "perplexity") == 0;
    const struct fb_progress_outcome outcome = {row->status, row->reason, finding};
    fb_case_describe(item, description, sizeof description);
    snprintf(finding, sizeof finding, perplexity ? "%s %.3g" : "%s %.2f %%", row->metric_name,
             perplexity ? row->metric : 100.0 * row->metric);
    fb_progress_outcome(t->run->options->progress, &outcome, description, eta_s(t));
}

static enum fb_status write_failure(struct training *t, size_t index, const char *status_name,
                                    const char *reason, struct fb_error *error)
{
    const struct fb_case *item = &t->run->plan->cases[index];
    struct fb_accuracy_row row;
    fb_accuracy_row_from_case(&t->context, item, &row);
    snprintf(row.status, sizeof row.status, "%s", status_name);
    snprintf(row.reason, sizeof row.reason, "%s", reason);
    const enum fb_status status = write_row(t, index, &row, NULL, error);
    if (status == FB_OK)
        show(t, item, &row);
    return status;
}

static enum fb_status write_planned_skips(struct training *t, struct fb_error *error)
{
    const struct fb_plan *plan = t->run->plan;
    enum fb_status status = FB_OK;
    for (size_t i = 0; i < plan->cases_count && status == FB_OK; i++)
        if (plan->cases[i].skip_reason && !t->has_row[i])
            status = write_failure(t, i, "skipped", plan->cases[i].skip_reason, error);
    return status;
}

static enum fb_status write_left_over(struct training *t, struct fb_error *error)
{
    char reason[96], budget[32];
    enum fb_status status = FB_OK;
    snprintf(reason, sizeof reason, "left over by --budget %s",
             fb_human_duration(t->run->options->budget_s, budget, sizeof budget));
    for (size_t i = 0; i < t->run->plan->cases_count && status == FB_OK; i++) {
        if (t->has_row[i])
            continue;
        status = write_failure(t, i, "skipped", reason, error);
        t->outcome->left_over++;
    }
    return status;
}

/* ---- one case -------------------------------------------------------------------------------- */

static enum fb_status take_result(struct training *t, size_t index, const json_t *result,
                                  struct fb_error *error)
{
    const struct fb_case *item = &t->run->plan->cases[index];
    struct fb_accuracy_row row;
    struct fb_training_answer answer;
    struct fb_error malformed;
    char path[PATH_SIZE];
    fb_accuracy_row_from_case(&t->context, item, &row);
    enum fb_status status = fb_training_answer_read(result, &row, &answer, &malformed);
    if (status != FB_OK) {
        status = write_failure(t, index, "error", malformed.text, error);
    } else {
        if (answer.warning)
            t->run->options->warn(t->run->options->context, answer.warning);
        if (strcmp(answer.status, "stopped") == 0)
            return FB_OK; /* its checkpoint is there; --resume goes on */
        snprintf(row.status, sizeof row.status, "%s", answer.status);
        snprintf(row.reason, sizeof row.reason, "%s", answer.reason ? answer.reason : "");
        status = write_row(t, index, &row, &answer, error);
        if (status == FB_OK)
            show(t, item, &row);
        if (status == FB_OK && checkpoint_path(t, item, path))
            (void)unlink(path); /* there is none when the case was short */
    }
    fb_training_answer_free(&answer);
    return status;
}

static enum fb_status take_outcome(struct training *t, size_t index,
                                   const struct fb_worker_outcome *outcome, struct fb_error *error)
{
    if (outcome->end == FB_WORKER_RESULT)
        return take_result(t, index, outcome->result, error);
    if (outcome->end == FB_WORKER_ABORTED)
        return FB_OK;
    return write_failure(t, index, fb_worker_end_status(outcome->end), outcome->reason, error);
}

static enum fb_status start_case(struct training *t, size_t index, struct fb_training_slot *slot,
                                 struct fb_error *error)
{
    const struct fb_case *item = &t->run->plan->cases[index];
    const struct fb_runner_options *options = t->run->options;
    char path[PATH_SIZE], description[256];
    if (!checkpoint_path(t, item, path))
        return fb_error_set(error, FB_ERROR_USAGE, "the path of the run's folder is too long: %s",
                            t->run->dir);
    const struct fb_training_place place = {t->run->data_dir, path,
                                            t->run->suite->training.checkpoint_s,
                                            t->run->suite->training.parallel == 1};
    json_t *input = fb_training_task(item, &place);
    const struct fb_worker_task task = {
        .program = options->worker_program,
        .threads = item->threads,
        .openblas_core = fb_ceiling_openblas_core_for(options->book, item, FB_COUNTER_NONE),
        .stops_when_told = true,
        .timeout_s = t->run->suite->limits.case_timeout_s,
        .memory_bytes = item->device == FB_CPU ? fb_limits_memory_bytes(&t->run->suite->limits) : 0,
    };
    if (!input)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a worker's task");
    fb_case_describe(item, description, sizeof description);
    fb_progress_case(options->progress, description, eta_s(t));
    return fb_training_slots_start(&t->slots, slot, item, index, input, &task, error);
}

/* Waits for one of the cases that are being trained, and takes what it found. */
static enum fb_status end_case(struct training *t, struct fb_error *error)
{
    struct fb_worker_outcome outcome;
    const size_t index = fb_training_slots_wait(&t->slots, t->run->options->interrupts, &outcome);
    t->spent_s += outcome.wall_s;
    t->trained++;
    const enum fb_status status = take_outcome(t, index, &outcome, error);
    fb_worker_outcome_free(&outcome);
    return status;
}

/* Waits until the case can start, and starts it. */
static enum fb_status make_room(struct training *t, size_t index, struct fb_error *error)
{
    const struct fb_case *item = &t->run->plan->cases[index];
    struct fb_training_slot *slot = fb_training_slots_room(&t->slots, item);
    enum fb_status status = FB_OK;
    while (!slot && status == FB_OK) {
        status = end_case(t, error);
        slot = fb_training_slots_room(&t->slots, item);
    }
    fb_interrupts_poll(t->run->options->interrupts);
    if (status != FB_OK || t->run->options->interrupts->count > 0)
        return status;
    return start_case(t, index, slot, error);
}

static bool is_spent(const struct training *t)
{
    const struct fb_runner_options *options = t->run->options;
    return options->budget_s > 0 &&
           options->budget_used_s + fb_run_now_s() - t->start_s >= options->budget_s;
}

static enum fb_status run_cases(struct training *t, struct fb_error *error)
{
    const struct fb_runner_options *options = t->run->options;
    bool spent = false;
    enum fb_status status = make_checkpoints_dir(t, error);
    for (size_t i = 0; i < t->run->plan->jobs_count && status == FB_OK && !spent; i++) {
        const size_t index = t->run->plan->jobs[i].case_index;
        if (t->has_row[index])
            continue;
        fb_interrupts_poll(options->interrupts);
        if (options->interrupts->count > 0)
            break;
        spent = is_spent(t);
        if (!spent)
            status = make_room(t, index, error);
    }
    while (t->slots.busy > 0 && status == FB_OK)
        status = end_case(t, error);
    fb_training_slots_abandon(&t->slots);
    return spent && status == FB_OK ? write_left_over(t, error) : status;
}

/* The folder of checkpoints stays while one of them is kept. */
static void drop_empty_dir(const struct training *t)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/checkpoints", t->run->dir);
    (void)rmdir(path);
}

enum fb_status fb_training_runner_run(const struct fb_training_run *run,
                                      struct fb_runner_outcome *outcome, struct fb_error *error)
{
    const struct fb_runner_options *options = run->options;
    struct training t = {
        .run = run,
        .outcome = outcome,
        .context = {options->run_id, run->suite->name, options->device_name, options->gpu_name},
        .has_row = calloc(run->plan->cases_count + 1, sizeof *t.has_row),
        .start_s = fb_run_now_s(),
    };
    memset(outcome, 0, sizeof *outcome);
    if (!t.has_row)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a run of %zu cases",
                            run->plan->cases_count);
    fb_training_slots_init(&t.slots, (size_t)run->suite->training.parallel);
    find_rows(&t);
    fb_progress_start(options->progress, run->plan->cases_count, rows_done(&t));
    enum fb_status status = write_planned_skips(&t, error);
    if (status == FB_OK)
        status = run_cases(&t, error);
    fb_progress_end(options->progress);
    drop_empty_dir(&t);
    outcome->rows_left = run->plan->cases_count - rows_done(&t);
    outcome->signal = options->interrupts->first_signal;
    free(t.has_row);
    return status;
}
