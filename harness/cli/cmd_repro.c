/* flowbench repro: one stored row measured again. repro_row.h finds it, the runner of harness/run
 * measures it in a folder of its own that is gone afterwards, repro_compare.h judges. */
#include "commands.h"

#include "ceiling_book.h"
#include "counter.h"
#include "cpu_features.h"
#include "host_lock.h"
#include "interrupts.h"
#include "progress.h"
#include "repro_compare.h"
#include "repro_row.h"
#include "results_writer.h"
#include "runner.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    const char **row = state->input;

    switch (key) {
    case ARGP_KEY_ARG:
        if (*row != NULL)
            argp_error(state, "one row at a time, not also '%s'", argument);
        *row = argument;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "which row? e.g. results.csv:3, or a run's folder and :3");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp fb_argp_repro = {
    .parser = parse_option,
    .args_doc = "RESULTS.csv:ROW",
    .doc =
        "Measures one row of stored results again, with the same seed, the same settings (from "
        "the run.json beside it) and worker processes as in a run, and says whether it agrees. ROW "
        "counts the rows of data from 1, or is case_id=...; a run's folder stands for its "
        "results.csv."
        "\v"
        "Examples:\n"
        "  flowbench repro results/scaling/20261124T031500Z-laptop:12\n"
        "  flowbench repro server/results.csv:case_id=8c1d5f0a7b3e2946\n"
        "\n"
        "The output has to be the same, bit for bit, when machine and build are; on another "
        "machine "
        "or build, other bits are explained and the error has to be within its budget. Time never "
        "decides: its ratio and intervals are shown.\n"
        "\n"
        "Exit codes: 0 the result agrees; 1 the tool failed; 2 no such row, or none that can be "
        "measured here; 3 the result differs; 130 and 143 interrupted.",
};

/* ---- measuring ------------------------------------------------------------------------------- */

static void warn(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "flowbench repro: warning: %s\n", text);
}

static enum fb_status make_plan(const struct fb_repro_row *repro, struct fb_arena *arena,
                                struct fb_plan *plan, struct fb_error *error)
{
    const bool counts = repro->suite.measure.counter != FB_COUNTER_NONE;
    const size_t processes = counts ? 1 : (size_t)repro->suite.measure.processes;

    memset(plan, 0, sizeof *plan);
    plan->cases = fb_arena_alloc(arena, 1, sizeof *plan->cases, error);
    plan->jobs = fb_arena_alloc(arena, processes, sizeof *plan->jobs, error);
    if (plan->cases == NULL || plan->jobs == NULL)
        return FB_ERROR_MEMORY;
    plan->cases[0] = repro->item;
    plan->cases_count = 1;
    for (size_t p = 0; p < processes; p++)
        plan->jobs[p] = (struct fb_job){.case_index = 0, .process = (int)p};
    plan->jobs_count = processes;
    return FB_OK;
}

/* Runs the plan into the writer's folder; *signal gets what interrupted it, or 0. */
static enum fb_status run_plan(const struct fb_repro_row *repro, const struct fb_machine *here,
                               const struct fb_plan *plan, const struct fb_results *done,
                               struct fb_results_writer *writer, int *signal,
                               struct fb_error *error)
{
    struct fb_ceiling_book book;
    struct fb_progress progress;
    struct fb_interrupts interrupts;
    struct fb_runner_outcome outcome;
    bool other_run;
    const int lock_fd = fb_host_lock_take(&other_run);
    const struct fb_runner_options options = {
        .run_id = "repro",
        .device_name = here->cpu_model,
        .gpu_name = here->gpu.name,
        .progress = &progress,
        .interrupts = &interrupts,
        .book = &book,
        .warn = warn,
    };

    if (other_run)
        warn(NULL, "another flowbench is measuring on this machine: times will be longer");
    fb_ceiling_book_init(&book, fb_cpu_best_isa());
    fb_progress_init(&progress, stderr, FB_COLOR_AUTO, false);
    enum fb_status status = fb_interrupts_begin(&interrupts, error);
    if (status == FB_OK) {
        status = fb_runner_run(&repro->suite, plan, done, writer, &options, &outcome, error);
        fb_interrupts_end(&interrupts);
        *signal = status == FB_OK && outcome.rows_left > 0 ? outcome.signal : 0;
    }
    if (lock_fd >= 0)
        close(lock_fd);
    return status;
}

static enum fb_status measure_in(const char *folder, const struct fb_repro_row *repro,
                                 const struct fb_machine *here, struct fb_arena *arena,
                                 struct fb_row *now, int *signal, struct fb_error *error)
{
    struct fb_results_writer writer;
    struct fb_results done;
    struct fb_results results;
    struct fb_plan plan;
    enum fb_status status = make_plan(repro, arena, &plan, error);

    if (status == FB_OK)
        status = fb_results_writer_open(folder, arena, &writer, &done, error);
    if (status != FB_OK)
        return status;
    status = run_plan(repro, here, &plan, &done, &writer, signal, error);
    fb_results_writer_close(&writer);
    if (status != FB_OK || *signal != 0)
        return status;
    status = fb_results_read(folder, arena, &results, error);
    if (status == FB_OK && results.rows_count != 1)
        status = fb_error_set(error, FB_ERROR_INTERNAL, "measuring one case left %zu rows",
                              results.rows_count);
    if (status == FB_OK)
        *now = results.rows[0];
    return status;
}

static void remove_folder(const char *folder, struct fb_arena *arena)
{
    static const char *const files[] = {"results.csv", "samples.csv"};

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *path = fb_arena_printf(arena, NULL, "%s/%s", folder, files[i]);
        if (path != NULL)
            (void)unlink(path);
    }
    if (rmdir(folder) != 0)
        fprintf(stderr, "flowbench repro: warning: cannot remove '%s': %s\n", folder,
                strerror(errno));
}

static enum fb_status measure(const struct fb_repro_row *repro, const struct fb_machine *here,
                              struct fb_arena *arena, struct fb_row *now, int *signal,
                              struct fb_error *error)
{
    const char *base = getenv("TMPDIR");
    char *folder = fb_arena_printf(arena, error, "%s/flowbench-repro-XXXXXX",
                                   base != NULL && *base != '\0' ? base : "/tmp");

    if (folder == NULL)
        return FB_ERROR_MEMORY;
    if (mkdtemp(folder) == NULL)
        return fb_error_set(error, FB_ERROR_IO, "cannot make the folder '%s': %s", folder,
                            strerror(errno));
    const enum fb_status status = measure_in(folder, repro, here, arena, now, signal, error);
    remove_folder(folder, arena);
    return status;
}

/* ---- the command ----------------------------------------------------------------------------- */

static enum fb_status repeat(const char *argument, struct fb_arena *arena, int *code,
                             struct fb_error *error)
{
    struct fb_machine here;
    struct fb_repro_row repro;
    struct fb_repro_verdict verdict;
    struct fb_row now;
    int signal = 0;
    enum fb_status status = fb_machine_read(&here, error);

    if (status == FB_OK)
        status = fb_repro_row_read(argument, &here, arena, &repro, error);
    if (status == FB_OK)
        status = fb_counter_check(repro.suite.measure.counter, error);
    if (status == FB_OK)
        status = measure(&repro, &here, arena, &now, &signal, error);
    if (status != FB_OK)
        return status;
    if (signal != 0) {
        fputs("flowbench repro: interrupted: nothing was compared\n", stderr);
        *code = signal == SIGTERM ? FB_EXIT_SIGTERM : FB_EXIT_SIGINT;
        return FB_OK;
    }
    fb_repro_judge(&repro, &now, &verdict);
    fb_repro_print(stdout, &repro, &now, &here, &verdict);
    *code = verdict.agrees ? FB_EXIT_OK : FB_EXIT_CLAIM;
    return FB_OK;
}

int fb_cmd_repro(int argc, char **argv)
{
    const char *row = NULL;
    struct fb_arena arena;
    struct fb_error error = {.code = FB_OK};
    int code = FB_EXIT_FAILED;

    if (argp_parse(&fb_argp_repro, argc, argv, 0, NULL, &row) != 0)
        return FB_EXIT_FAILED;
    fb_arena_init(&arena, 0);
    if (repeat(row, &arena, &code, &error) != FB_OK)
        code = fb_exit_report("repro", &error);
    fb_arena_free(&arena);
    return code;
}
