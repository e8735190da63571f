/* One run: folder, provenance, the runner, the report. See run_session.h. */
#include "run_session.h"

#include "accuracy_report.h"
#include "ceiling_book.h"
#include "commands.h"
#include "counter.h"
#include "cpu_features.h"
#include "host_lock.h"
#include "interrupts.h"
#include "report.h"
#include "results_writer.h"
#include "run_folder.h"
#include "run_json.h"
#include "runner.h"
#include "training_runner.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Everything of one run; what is NULL or -1 is not there yet. */
struct session {
    const struct fb_run_options *options;
    const struct fb_machine *machine;
    const struct fb_suite *suite;
    const struct fb_plan *plan;
    struct fb_arena *arena;
    struct fb_run_folder folder;
    struct fb_results_writer writer;
    struct fb_results done;
    struct fb_accuracy_writer accuracy_writer; /* these two: of a training run */
    struct fb_accuracy accuracy_done;
    const char *data_dir; /* NULL: none was named */
    struct fb_ceiling_book book;
    struct fb_progress progress;
    json_t *document;
    double budget_s, budget_used_s;
    bool strict;
};

int fb_run_worse_exit(int a, int b)
{
    static const int order[] = {FB_EXIT_OK,     FB_EXIT_AMBIGUOUS, FB_EXIT_CLAIM,  FB_EXIT_USAGE,
                                FB_EXIT_FAILED, FB_EXIT_SIGINT,    FB_EXIT_SIGTERM};
    const size_t count = sizeof order / sizeof order[0];
    size_t rank_a = 0;
    size_t rank_b = 0;

    for (size_t i = 0; i < count; i++) {
        rank_a = order[i] == a ? i : rank_a;
        rank_b = order[i] == b ? i : rank_b;
    }
    return rank_a >= rank_b ? a : b;
}

/* ---- warnings and checkpoints ---------------------------------------------------------------- */

static void warn(void *context, const char *text)
{
    struct session *session = context;
    char line[FB_ERROR_TEXT_SIZE + 256];
    struct fb_error error;

    snprintf(line, sizeof line, "flowbench run: warning: %s", text);
    fb_progress_say(&session->progress, line);
    if (fb_run_json_warn(session->document, text, &error) != FB_OK)
        fb_progress_say(&session->progress, error.text);
}

static enum fb_status checkpoint(void *context, struct fb_error *error)
{
    struct session *session = context;

    if (json_object_set_new(session->document, "ceilings",
                            fb_ceiling_book_to_json(&session->book)) != 0)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the ceilings");
    return fb_run_json_write(session->folder.path, session->document, error);
}

/* What makes times worthless while nothing in the rows shows it. */
static void warn_if_busy(struct session *session, bool other_run)
{
    struct fb_machine_warning warnings[FB_WARNING_COUNT];
    char text[1024];
    const size_t count = fb_machine_warnings(session->machine, warnings);

    if (other_run)
        warn(session, "another flowbench is measuring on this machine: both runs disturb each "
                      "other; wait for it to end");
    for (size_t i = 0; i < count; i++) {
        if (warnings[i].kind != FB_WARNING_BUSY && warnings[i].kind != FB_WARNING_PRESSURE)
            continue;
        snprintf(text, sizeof text, "%s; %s", warnings[i].text, warnings[i].remedy);
        warn(session, text);
    }
}

/* ---- the end of a run ------------------------------------------------------------------------ */

static void print_quoted(FILE *out, const char *path)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-./+,:@%=";

    if (path[0] != '\0' && path[strspn(path, plain)] == '\0') {
        fputs(path, out);
        return;
    }
    fputc('\'', out);
    for (; *path != '\0'; path++) {
        if (*path == '\'')
            fputs("'\\''", out);
        else
            fputc(*path, out);
    }
    fputc('\'', out);
}

static void print_resume_command(const struct session *session)
{
    fputs("continue with: ./bench run --resume ", stderr);
    print_quoted(stderr, session->folder.path);
    fputc('\n', stderr);
}

static bool is_training(const struct session *session)
{
    return session->suite->kind == FB_SUITE_TRAINING;
}

/* Reads what was written and tells it. */
static enum fb_status report_files(struct session *session, const struct fb_report_options *options,
                                   struct fb_report_verdict *verdict, struct fb_error *error)
{
    struct fb_results results;
    struct fb_accuracy accuracy;
    enum fb_status status;

    if (is_training(session)) {
        status = fb_accuracy_read(session->folder.path, session->arena, &accuracy, error);
        return status == FB_OK
                   ? fb_accuracy_report(&accuracy, session->suite, options, verdict, error)
                   : status;
    }
    status = fb_results_read(session->folder.path, session->arena, &results, error);
    return status == FB_OK ? fb_report_run(&results, session->suite, options, verdict, error)
                           : status;
}

static enum fb_status report(struct session *session, int *code, struct fb_error *error)
{
    struct fb_report_verdict verdict;
    const bool quiet = session->options->shared.quiet;
    const struct fb_report_options report_options = {
        .out = stdout,
        .messages = stderr,
        .color = fb_color_wanted(session->options->shared.color, stdout),
        .quiet = quiet,
        .make_plots = true,
        .seed = session->suite->seed,
    };
    const enum fb_status status = report_files(session, &report_options, &verdict, error);

    if (status != FB_OK)
        return status;
    if (!quiet)
        printf("results: %s/%s\n", session->folder.path,
               is_training(session) ? "accuracy.csv" : "results.csv");
    if (verdict.claims_failed > 0 || verdict.cases_failed > 0)
        *code = FB_EXIT_CLAIM;
    else if (session->strict && verdict.claims_ambiguous > 0)
        *code = FB_EXIT_AMBIGUOUS;
    else
        *code = FB_EXIT_OK;
    return FB_OK;
}

static enum fb_status finish(struct session *session, const struct fb_runner_outcome *outcome,
                             int *code, struct fb_error *error)
{
    const bool interrupted = outcome->signal != 0;
    enum fb_status status =
        fb_run_json_set_state(session->document, interrupted ? "interrupted" : "finished", error);

    if (status == FB_OK)
        status = checkpoint(session, error);
    if (interrupted) {
        fprintf(stderr, "flowbench run: interrupted by %s; %zu of %zu rows are written\n",
                outcome->signal == SIGTERM ? "SIGTERM" : "SIGINT",
                session->plan->cases_count - outcome->rows_left, session->plan->cases_count);
        *code = outcome->signal == SIGTERM ? FB_EXIT_SIGTERM : FB_EXIT_SIGINT;
        return status;
    }
    return status == FB_OK ? report(session, code, error) : status;
}

/* ---- running --------------------------------------------------------------------------------- */

static enum fb_status run_cases(struct session *session, const struct fb_runner_options *options,
                                struct fb_runner_outcome *outcome, struct fb_error *error)
{
    const struct fb_training_run run = {
        .suite = session->suite,
        .plan = session->plan,
        .done = &session->accuracy_done,
        .writer = &session->accuracy_writer,
        .dir = session->folder.path,
        .data_dir = session->data_dir,
        .options = options,
    };

    return is_training(session) ? fb_training_runner_run(&run, outcome, error)
                                : fb_runner_run(session->suite, session->plan, &session->done,
                                                &session->writer, options, outcome, error);
}

static enum fb_status measure(struct session *session, struct fb_runner_outcome *outcome,
                              struct fb_error *error)
{
    struct fb_interrupts interrupts;
    bool other_run;
    const int lock_fd = fb_host_lock_take(&other_run);
    const struct fb_runner_options runner_options = {
        .ceilings = true,
        .budget_s = session->budget_s,
        .budget_used_s = session->budget_used_s,
        .run_id = session->folder.run_id,
        .device_name = session->machine->cpu_model,
        .gpu_name = session->machine->gpu.name,
        .progress = &session->progress,
        .interrupts = &interrupts,
        .book = &session->book,
        .warn = warn,
        .checkpoint = checkpoint,
        .context = session,
    };

    if (session->suite->measure.counter == FB_COUNTER_NONE)
        warn_if_busy(session, other_run);
    enum fb_status status = fb_interrupts_begin(&interrupts, error);
    if (status == FB_OK) {
        status = run_cases(session, &runner_options, outcome, error);
        fb_interrupts_end(&interrupts);
    }
    if (lock_fd >= 0)
        close(lock_fd);
    return status;
}

static enum fb_status open_files(struct session *session, struct fb_error *error)
{
    return is_training(session)
               ? fb_accuracy_writer_open(session->folder.path, session->arena,
                                         &session->accuracy_writer, &session->accuracy_done, error)
               : fb_results_writer_open(session->folder.path, session->arena, &session->writer,
                                        &session->done, error);
}

static void close_files(struct session *session)
{
    if (is_training(session))
        fb_accuracy_writer_close(&session->accuracy_writer);
    else
        fb_results_writer_close(&session->writer);
}

/* From here on the folder is locked and run.json is written: what fails can be resumed. */
static int run_in_folder(struct session *session)
{
    struct fb_runner_outcome outcome = {0};
    struct fb_error error;
    int code = FB_EXIT_FAILED;
    enum fb_status status = open_files(session, &error);

    if (status == FB_OK) {
        status = measure(session, &outcome, &error);
        close_files(session);
        if (status == FB_OK)
            status = finish(session, &outcome, &code, &error);
    }
    if (status != FB_OK)
        code = fb_exit_report("run", &error);
    if (status != FB_OK || outcome.signal != 0)
        print_resume_command(session);
    return code;
}

static void start_session(struct session *session, const struct fb_run_options *options,
                          const struct fb_machine *machine, struct fb_arena *arena)
{
    memset(session, 0, sizeof *session);
    session->options = options;
    session->machine = machine;
    session->arena = arena;
    session->folder.lock_fd = -1;
    session->strict = options->shared.strict;
    session->data_dir = options->data_dir;
    fb_ceiling_book_init(&session->book, fb_cpu_best_isa());
    fb_progress_init(&session->progress, stderr, options->shared.color, options->shared.quiet);
}

static void end_session(struct session *session)
{
    json_decref(session->document);
    fb_run_folder_close(&session->folder);
}

/* ---- a new run ------------------------------------------------------------------------------- */

static enum fb_status prepare_new(struct session *session, struct fb_error *error)
{
    const struct fb_run_options *options = session->options;
    enum fb_status status =
        options->out_dir != NULL
            ? fb_run_folder_take(options->out_dir, session->machine->name, session->arena,
                                 &session->folder, error)
            : fb_run_folder_create("results", session->suite->name, session->machine->name,
                                   session->arena, &session->folder, error);
    const struct fb_run_facts facts = {
        .run_id = session->folder.run_id,
        .suite = session->suite,
        .plan = session->plan,
        .machine = session->machine,
        .filter = options->shared.filter,
        .sets = options->shared.sets,
        .sets_count = options->shared.sets_count,
        .argc = options->argc,
        .argv = options->argv,
        .budget_s = options->shared.budget_s,
        .strict = options->shared.strict,
    };

    if (status != FB_OK)
        return status;
    session->document = fb_run_json_new(&facts, error);
    if (session->document == NULL)
        return FB_ERROR_MEMORY;
    if (is_training(session) &&
        json_object_set_new(session->document, "data_dir",
                            session->data_dir == NULL ? json_null()
                                                      : json_string(session->data_dir)) != 0)
        return fb_error_set(error, FB_ERROR_INPUT, "the path of the data folder is no UTF-8 text");
    return fb_run_json_write(session->folder.path, session->document, error);
}

int fb_run_session_new(const struct fb_planned *planned, const struct fb_run_options *options,
                       const struct fb_machine *machine, double budget_used_s,
                       struct fb_arena *arena)
{
    struct session session;
    struct fb_error error;

    start_session(&session, options, machine, arena);
    session.suite = &planned->suite;
    session.plan = &planned->plan;
    session.budget_s = options->shared.budget_s;
    session.budget_used_s = budget_used_s;
    const int code = prepare_new(&session, &error) == FB_OK ? run_in_folder(&session)
                                                            : fb_exit_report("run", &error);
    end_session(&session);
    return code;
}

/* ---- a resumed run --------------------------------------------------------------------------- */

static enum fb_status check_machine(const struct session *session,
                                    const struct fb_run_resume *resume, struct fb_error *error)
{
    const struct fb_machine *machine = session->machine;

    if (strcmp(machine->identity, resume->identity) != 0)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "'%s' was started on another machine (%s, this is %s): rows of two "
                            "machines do not mix; resume it there, or start a new run here and let "
                            "plot and report read both",
                            session->folder.path, resume->machine_name, machine->name);
    if (machine->threads_usable != resume->threads_usable ||
        strcmp(machine->isa_best, resume->isa_best) != 0)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "'%s' was started with %d processors and %s, this process may use %d "
                            "and %s: resume it under the same taskset or cgroup",
                            session->folder.path, resume->threads_usable, resume->isa_best,
                            machine->threads_usable, machine->isa_best);
    return FB_OK;
}

static void warn_if_other_binary(struct session *session, const struct fb_run_resume *resume)
{
    char text[512];
    const char *then = resume->git_sha == NULL ? "" : resume->git_sha;

    if (strcmp(resume->version, session->machine->version) == 0 &&
        strcmp(then, fb_build_git_sha()) == 0)
        return;
    snprintf(text, sizeof text,
             "resumed by another flowbench (%s %.12s) than it was started with (%s %.12s): rows of "
             "the two may differ",
             session->machine->version, fb_build_git_sha(), resume->version, then);
    warn(session, text);
}

/* The suite as it was resolved, planned again: the same cases in the same order. */
static enum fb_status plan_again(struct session *session, const struct fb_run_resume *resume,
                                 struct fb_planned *planned, struct fb_error *error)
{
    struct fb_plan_machine here;
    enum fb_status status =
        fb_suite_parse(resume->suite_yaml, strlen(resume->suite_yaml), resume->suite_path, NULL,
                       session->arena, &planned->suite, error);

    if (status != FB_OK)
        return status;
    status = fb_counter_check(planned->suite.measure.counter, error);
    if (status != FB_OK)
        return status;
    fb_plan_machine_here(&here);
    status = fb_plan_build(&planned->suite, resume->filter, &here, session->arena, &planned->plan,
                           error);
    if (status == FB_OK && planned->plan.cases_count != resume->cases_count)
        status = fb_error_set(error, FB_ERROR_INPUT,
                              "'%s' was planned with %zu cases, this flowbench makes %zu of the "
                              "same suite: resume it with the version that started it (%s)",
                              session->folder.path, resume->cases_count, planned->plan.cases_count,
                              resume->version);
    return status;
}

/* Finished means: said so, and every case has its row. */
static enum fb_status is_finished(const struct session *session, const struct fb_run_resume *resume,
                                  bool *finished, struct fb_error *error)
{
    struct fb_results results = {.rows_count = 0};
    struct fb_accuracy accuracy = {.rows_count = 0};
    const bool training = is_training(session);
    char *path = fb_arena_printf(session->arena, error, "%s/%s", session->folder.path,
                                 training ? "accuracy.csv" : "results.csv");

    *finished = false;
    if (path == NULL)
        return FB_ERROR_MEMORY;
    if (strcmp(resume->state, "finished") != 0 || access(path, F_OK) != 0 ||
        (training ? fb_accuracy_read(session->folder.path, session->arena, &accuracy, NULL)
                  : fb_results_read(session->folder.path, session->arena, &results, NULL)) != FB_OK)
        return FB_OK;
    *finished = (training ? accuracy.rows_count : results.rows_count) >= session->plan->cases_count;
    return FB_OK;
}

static enum fb_status prepare_resumed(struct session *session, struct fb_planned *planned,
                                      bool *finished, struct fb_error *error)
{
    struct fb_run_resume resume;
    enum fb_status status =
        fb_run_folder_open(session->options->resume_dir, session->arena, &session->folder, error);

    if (status == FB_OK)
        status = fb_run_json_read(session->folder.path, session->arena, &session->document, &resume,
                                  error);
    if (status == FB_OK)
        status = check_machine(session, &resume, error);
    if (status == FB_OK)
        status = plan_again(session, &resume, planned, error);
    session->suite = &planned->suite;
    session->plan = &planned->plan;
    if (status == FB_OK)
        status = is_finished(session, &resume, finished, error);
    if (status != FB_OK || *finished)
        return status;
    snprintf(session->folder.run_id, sizeof session->folder.run_id, "%s", resume.run_id);
    session->budget_s = resume.budget_s;
    session->strict = resume.strict;
    if (session->data_dir == NULL)
        session->data_dir = json_string_value(json_object_get(session->document, "data_dir"));
    fb_ceiling_book_from_json(json_object_get(session->document, "ceilings"), &session->book);
    warn_if_other_binary(session, &resume);
    status = fb_run_json_note_resume(session->document, session->machine, session->options->argc,
                                     session->options->argv, error);
    if (status == FB_OK)
        status = fb_run_json_set_state(session->document, "running", error);
    if (status == FB_OK)
        status = fb_run_json_write(session->folder.path, session->document, error);
    return status;
}

int fb_run_session_resume(const struct fb_run_options *options, const struct fb_machine *machine,
                          struct fb_arena *arena)
{
    struct session session;
    struct fb_planned planned;
    struct fb_error error;
    bool finished = false;
    int code;

    start_session(&session, options, machine, arena);
    if (prepare_resumed(&session, &planned, &finished, &error) != FB_OK) {
        code = fb_exit_report("run", &error);
    } else if (finished) {
        fprintf(stderr, "flowbench run: '%s' is finished: nothing is left to do\n",
                session.folder.path);
        code = FB_EXIT_OK;
    } else {
        code = run_in_folder(&session);
    }
    end_session(&session);
    return code;
}
