/*
 * The runner: the loop over the jobs of a plan. One job is one worker process of one case; a case
 * whose processes are all done becomes a row, written and synced at once.
 */
#ifndef FB_RUNNER_H
#define FB_RUNNER_H

#include "ceiling_book.h"
#include "interrupts.h"
#include "plan.h"
#include "progress.h"
#include "results_writer.h"
#include "suite.h"

struct fb_runner_options {
    const char *worker_program; /* NULL: this very program; tests plug in another */
    bool ceilings;              /* measure them at the start and at the end */
    double budget_s;            /* 0: none; cases not started by then are left over */
    double budget_used_s;       /* by suites before this one */
    const char *run_id, *device_name, *gpu_name;
    struct fb_progress *progress;
    struct fb_interrupts *interrupts;
    struct fb_ceiling_book *book; /* rates known before (resuming) stay and are improved */
    /* Called with a warning that belongs in run.json, one line. */
    void (*warn)(void *context, const char *text);
    /* Called when the book has changed as a whole: before the first case and after the last. */
    enum fb_status (*checkpoint)(void *context, struct fb_error *error);
    void *context; /* of both */
};

struct fb_runner_outcome {
    size_t rows_written; /* by this call */
    size_t rows_left;    /* cases without a row: only after an interrupt */
    size_t left_over;    /* rows `skipped` because the budget was spent */
    int signal;          /* SIGINT or SIGTERM when one came, else 0: the run is not finished */
};

/* Measures every case of the plan that has no row in `done` and writes its row. FB_OK also when
 * cases failed or a signal came: the rows and the outcome say so. A failure is the tool's own (full
 * disk, no process could be started); what was written before is intact. */
enum fb_status fb_runner_run(const struct fb_suite *suite, const struct fb_plan *plan,
                             const struct fb_results *done, struct fb_results_writer *writer,
                             const struct fb_runner_options *options,
                             struct fb_runner_outcome *outcome,
                             struct fb_error *error) FB_MUST_CHECK;

/* Measures the ceilings of one entry in a worker of its own and notes them; at the start of a run
 * or at its end. A worker that fails leaves the entry as it was and says why in *why. */
enum fb_status fb_runner_measure_ceiling(struct fb_ceiling_book *book, struct fb_ceiling *entry,
                                         bool at_end, const char *worker_program,
                                         struct fb_interrupts *interrupts, struct fb_error *why,
                                         struct fb_error *error) FB_MUST_CHECK;

#endif
