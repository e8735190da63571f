/* Listing and predicting: see run_preview.h. */
#include "run_preview.h"

#include "ceiling_book.h"
#include "cpu_features.h"
#include "interrupts.h"
#include "prediction.h"
#include "runner.h"
#include "training_worker.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { DESCRIPTION_SIZE = 256 };

void fb_run_preview_list(const struct fb_planned *planned)
{
    char description[DESCRIPTION_SIZE];

    for (size_t i = 0; i < planned->plan.cases_count; i++) {
        const struct fb_case *item = &planned->plan.cases[i];
        fb_case_describe(item, description, sizeof description);
        printf("%s  %s%s%s\n", item->id, description,
               item->skip_reason == NULL ? "" : "  skipped: ",
               item->skip_reason == NULL ? "" : item->skip_reason);
    }
}

static enum fb_status measure_book(const struct fb_plan *plan, struct fb_ceiling_book *book,
                                   struct fb_error *error)
{
    struct fb_interrupts interrupts;
    enum fb_status status = fb_interrupts_begin(&interrupts, error);

    if (status != FB_OK)
        return status;
    for (size_t i = 0; i < plan->cases_count && status == FB_OK; i++) {
        const struct fb_case *item = &plan->cases[i];
        const size_t known = book->count;
        struct fb_error why;
        struct fb_ceiling *entry = item->skip_reason == NULL && item->device == FB_CPU
                                       ? fb_ceiling_book_entry(book, item)
                                       : NULL;
        if (entry == NULL || book->count == known)
            continue;
        status = fb_runner_measure_ceiling(book, entry, false, NULL, &interrupts, &why, error);
        if (status == FB_OK && why.code != FB_OK)
            fprintf(stderr, "flowbench run: warning: no ceilings for %d threads, %s: %s\n",
                    entry->threads, fb_isa_name(entry->isa), why.text);
        if (status == FB_OK && interrupts.count > 0)
            status = fb_error_set(error, FB_ERROR_INTERRUPTED, "interrupted");
    }
    fb_interrupts_end(&interrupts);
    return status;
}

static bool counts(const struct fb_planned *planned)
{
    return planned->suite.measure.counter != FB_COUNTER_NONE;
}

struct totals {
    size_t run_count, skipped_count;
    double time_s, bytes_max;
};

static void print_totals(const struct fb_planned *planned, const struct totals *totals)
{
    char memory[32];
    char time[32];

    fb_human_bytes(totals->bytes_max, memory, sizeof memory);
    if (counts(planned)) {
        printf("suite %s: %zu cases counted by %s, %zu are skipped; at most %s at a time\n",
               planned->suite.name, totals->run_count,
               fb_counter_name(planned->suite.measure.counter), totals->skipped_count, memory);
        return;
    }
    printf("suite %s: %zu cases run, %zu are skipped; about %s, at most %s at a time\n",
           planned->suite.name, totals->run_count, totals->skipped_count,
           fb_human_duration(totals->time_s, time, sizeof time), memory);
    printf("times assume %d x the floor at the ceilings measured just now; bytes are %s\n",
           FB_PREDICT_FLOOR_MULTIPLE,
           planned->suite.kind == FB_SUITE_TRAINING ? "the model, its moments and its activations"
                                                    : "inputs, outputs and workspace");
}

static void print_case(const struct fb_planned *planned, size_t index,
                       const struct fb_prediction_fact *facts, struct fb_ceiling_book *book,
                       struct totals *totals)
{
    const struct fb_case *item = &planned->plan.cases[index];
    const double timeout_s = planned->suite.limits.case_timeout_s;
    const size_t limit_bytes = fb_limits_memory_bytes(&planned->suite.limits);
    struct fb_prediction prediction;
    struct fb_case_bytes bytes;
    char description[DESCRIPTION_SIZE];
    char memory[32];
    char call[32];
    char whole[32];
    const char *fate = "";

    fb_case_describe(item, description, sizeof description);
    if (item->skip_reason != NULL) {
        printf("%s  %s  skipped: %s\n", item->id, description, item->skip_reason);
        totals->skipped_count++;
        return;
    }
    fb_case_bytes(item, &bytes);
    if (counts(planned)) {
        printf("%s  %s  %s\n", item->id, description,
               fb_human_bytes((double)bytes.total_bytes, memory, sizeof memory));
        totals->run_count++;
        totals->bytes_max = fmax(totals->bytes_max, (double)bytes.total_bytes);
        return;
    }
    fb_predict_case(&planned->plan, facts, index, fb_ceiling_book_entry(book, item), &prediction);
    double whole_s = fb_predict_worker_s(&planned->suite.measure, prediction.call_s);
    if (timeout_s > 0)
        whole_s = fmin(whole_s, timeout_s);
    whole_s *= planned->suite.measure.processes;
    if (limit_bytes > 0 && bytes.total_bytes > limit_bytes)
        fate = "  would not start: more than the memory limit";
    else if (fb_prediction_is_too_long(&prediction, timeout_s))
        fate = "  would not start: longer than case_timeout";
    printf("%s  %s  %s  %s per call  %s%s\n", item->id, description,
           fb_human_bytes((double)bytes.total_bytes, memory, sizeof memory),
           fb_human_time(prediction.call_s, call, sizeof call),
           fb_human_duration(*fate == '\0' ? whole_s : 0, whole, sizeof whole), fate);
    if (*fate == '\0') {
        totals->run_count++;
        totals->time_s += whole_s;
        totals->bytes_max = fmax(totals->bytes_max, (double)bytes.total_bytes);
    } else {
        totals->skipped_count++;
    }
}

/* Arithmetic at the ceiling of products, and traffic at that of copies. */
static double training_floor_s(const struct fb_fit_cost *cost, const struct fb_ceiling *ceiling)
{
    if (ceiling == NULL)
        return (double)NAN;
    return cost->flop / ceiling->gemm_flop_per_s + cost->bytes / ceiling->copy_bytes_per_s;
}

/* The task of the case before, kept open: neighbours mostly train on the same data, and some tasks
 * draw theirs for seconds. */
struct opened {
    struct fb_arena arena;
    const struct fb_case *of; /* NULL: nothing is open */
    void *data;
};

static bool is_same_data(const struct fb_case *a, const struct fb_case *b)
{
    for (int i = 0; i < FB_PARAMS_MAX; i++)
        if (a->task_params[i] < b->task_params[i] || a->task_params[i] > b->task_params[i])
            return false;
    return a->task == b->task && a->recipe == b->recipe;
}

static void close_task(struct opened *opened)
{
    if (opened->of != NULL)
        fb_arena_free(&opened->arena);
    opened->of = NULL;
}

static enum fb_status open_task(struct opened *opened, const struct fb_case *item,
                                const char *data_dir, struct fb_error *error)
{
    if (opened->of != NULL && is_same_data(opened->of, item))
        return FB_OK;
    close_task(opened);
    fb_arena_init(&opened->arena, 0);
    opened->of = item;
    const enum fb_status status =
        fb_training_open(item, data_dir, &opened->arena, &opened->data, error);
    if (status != FB_OK)
        close_task(opened);
    return status;
}

static enum fb_status predict_training(const struct fb_case *item, const char *data_dir,
                                       struct opened *opened, struct fb_fit_cost *cost,
                                       struct fb_error *error)
{
    struct fb_recipe recipe;
    struct fb_fit_options options;

    enum fb_status status = fb_case_recipe(item, &recipe, error);
    if (status == FB_OK)
        status = open_task(opened, item, data_dir, error);
    if (status == FB_OK) {
        fb_training_options(item, &recipe, opened->data, &options);
        status = fb_fit_predict(&options, cost, error);
    }
    return status;
}

static void print_training(const struct fb_planned *planned, size_t index, const char *data_dir,
                           struct opened *opened, struct fb_ceiling_book *book,
                           struct totals *totals)
{
    const struct fb_case *item = &planned->plan.cases[index];
    struct fb_fit_cost cost;
    struct fb_error why;
    char description[DESCRIPTION_SIZE];
    char memory[32];
    char whole[32];

    fb_case_describe(item, description, sizeof description);
    if (item->skip_reason != NULL ||
        predict_training(item, data_dir, opened, &cost, &why) != FB_OK) {
        printf("%s  %s  %s: %s\n", item->id, description,
               item->skip_reason != NULL ? "skipped" : "would not run",
               item->skip_reason != NULL ? item->skip_reason : why.text);
        totals->skipped_count++;
        return;
    }
    const double time_s =
        FB_PREDICT_FLOOR_MULTIPLE * training_floor_s(&cost, fb_ceiling_book_entry(book, item));
    printf("%s  %s  %s  %" PRId64 " steps  %" PRId64 " parameters  %s\n", item->id, description,
           fb_human_bytes((double)cost.memory_bytes, memory, sizeof memory), cost.steps,
           cost.parameters, fb_human_duration(time_s, whole, sizeof whole));
    totals->run_count++;
    totals->time_s += isnan(time_s) ? 0 : time_s;
    totals->bytes_max = fmax(totals->bytes_max, (double)cost.memory_bytes);
}

enum fb_status fb_run_preview_dry_run(const struct fb_planned *planned, const char *data_dir,
                                      struct fb_error *error)
{
    struct fb_ceiling_book book;
    struct totals totals = {0};
    struct opened opened = {.of = NULL};
    struct fb_prediction_fact *facts = calloc(planned->plan.cases_count + 1, sizeof *facts);

    if (facts == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu cases",
                            planned->plan.cases_count);
    fb_ceiling_book_init(&book, fb_cpu_best_isa());
    enum fb_status status = counts(planned) ? FB_OK : measure_book(&planned->plan, &book, error);
    if (status == FB_OK) {
        for (size_t i = 0; i < planned->plan.cases_count; i++)
            if (planned->suite.kind == FB_SUITE_TRAINING)
                print_training(planned, i, data_dir, &opened, &book, &totals);
            else
                print_case(planned, i, facts, &book, &totals);
        close_task(&opened);
        print_totals(planned, &totals);
    }
    free(facts);
    return status;
}
