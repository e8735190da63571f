/* Worker processes of several builds: see ab_worker.h. */
#include "ab_worker.h"

#include "worker_process.h"
#include "worker_task.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- who is there? ----------------------------------------------------------------------------
 */

static enum fb_status resolve(const char *path, struct fb_arena *arena, const char **program,
                              struct fb_error *error)
{
    struct stat info;
    char *absolute = realpath(path, NULL);

    if (absolute == NULL)
        return fb_error_set(error, FB_ERROR_USAGE, "cannot find the program '%s': %s", path,
                            strerror(errno));
    *program = fb_arena_strdup(arena, absolute, error);
    free(absolute);
    if (*program == NULL)
        return FB_ERROR_MEMORY;
    if (stat(*program, &info) != 0 || !S_ISREG(info.st_mode) || access(*program, X_OK) != 0)
        return fb_error_set(error, FB_ERROR_USAGE, "'%s' is not a program that can be started",
                            path);
    return FB_OK;
}

static void take_text(const json_t *json, const char *key, char *text, size_t text_size)
{
    const char *found = json_string_value(json_object_get(json, key));

    (void)snprintf(text, text_size, "%s", found == NULL ? "" : found);
}

static enum fb_status take_answer(const struct fb_worker_outcome *outcome, const char *path,
                                  struct fb_ab_build *build, struct fb_error *error)
{
    const json_t *said = outcome->result;

    if (outcome->end == FB_WORKER_ABORTED)
        return fb_error_set(error, FB_ERROR_INTERRUPTED, "interrupted");
    /* Workers of the first versions know no greeting; their cases are those of protocol 1. */
    if (outcome->end == FB_WORKER_ERROR &&
        strcmp(outcome->reason, "a worker knows no task 'hello'") == 0) {
        build->protocol = FB_WORKER_PROTOCOL_UNNUMBERED;
        return FB_OK;
    }
    const json_t *protocol = json_object_get(said, "protocol");
    if (outcome->end != FB_WORKER_RESULT || !json_is_integer(protocol))
        return fb_error_set(
            error, FB_ERROR_USAGE,
            "'%s' does not answer as a flowbench worker: %s; name a flowbench "
            "program (build/flowbench)",
            path, outcome->end == FB_WORKER_RESULT ? "it names no protocol" : outcome->reason);
    build->protocol = (int)json_integer_value(protocol);
    take_text(said, "flowbench", build->version, sizeof build->version);
    take_text(said, "git_sha", build->git_sha, sizeof build->git_sha);
    take_text(said, "compiler", build->compiler, sizeof build->compiler);
    take_text(said, "compiler_flags", build->compiler_flags, sizeof build->compiler_flags);
    take_text(said, "build_type", build->build_type, sizeof build->build_type);
    if (build->protocol != FB_WORKER_PROTOCOL)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "the workers of '%s' (flowbench %s) speak protocol %d, this flowbench "
                            "speaks %d: compare with the flowbench of that version",
                            path, build->version, build->protocol, FB_WORKER_PROTOCOL);
    return FB_OK;
}

enum fb_status fb_ab_build_open(const char *path, struct fb_interrupts *interrupts,
                                struct fb_arena *arena, struct fb_ab_build *build,
                                struct fb_error *error)
{
    struct fb_worker_outcome outcome;
    json_t *input = fb_worker_task_hello();

    memset(build, 0, sizeof *build);
    enum fb_status status = resolve(path, arena, &build->program, error);
    if (status == FB_OK && input == NULL)
        status = fb_error_set(error, FB_ERROR_MEMORY, "no memory for a worker's task");
    if (status == FB_OK) {
        const struct fb_worker_task task = {
            .program = build->program, .input = input, .threads = 1, .timeout_s = 30};
        status = fb_worker_run(&task, interrupts, &outcome, error);
        if (status == FB_OK) {
            status = take_answer(&outcome, path, build, error);
            fb_worker_outcome_free(&outcome);
        }
    }
    json_decref(input);
    return status;
}

/* ---- one process ------------------------------------------------------------------------------
 */

static json_t *make_task(const struct fb_ab_workers *workers, const struct fb_ab_request *request)
{
    struct fb_suite suite = *workers->suite;

    suite.measure.samples = request->samples;
    suite.oracle = request->check;
    json_t *task = fb_worker_task_case(request->item, &suite, request->process);
    /* Ratios need no floor. */
    if (task != NULL && json_object_set_new(task, "floor", json_false()) != 0) {
        json_decref(task);
        task = NULL;
    }
    return task;
}

static void take_result(const json_t *json, struct fb_ab_answer *answer)
{
    struct fb_error malformed;

    if (fb_measure_result_from_json(json, &answer->result, &malformed) != FB_OK) {
        answer->status = "error";
        (void)snprintf(answer->reason, sizeof answer->reason,
                       "the worker's result is malformed: %.400s", malformed.text);
    } else if (answer->result.status == FB_MEASURE_OK && answer->result.samples_count == 0 &&
               answer->result.instructions < 0) {
        answer->status = "error";
        (void)snprintf(answer->reason, sizeof answer->reason, "the worker's result has no samples");
    } else {
        answer->status = fb_measure_status_name(answer->result.status);
        (void)snprintf(answer->reason, sizeof answer->reason, "%s", answer->result.reason);
    }
}

enum fb_status fb_ab_worker_measure(void *context, const struct fb_ab_request *request,
                                    struct fb_ab_answer *answer, struct fb_error *error)
{
    static const char *const names[] = {
        [FB_WORKER_TIMEOUT] = "timeout",
        [FB_WORKER_OOM] = "oom",
        [FB_WORKER_CRASH] = "crash",
        [FB_WORKER_ERROR] = "error",
    };
    struct fb_ab_workers *workers = context;
    struct fb_worker_outcome outcome;
    json_t *input = make_task(workers, request);
    const struct fb_worker_task task = {
        .program = workers->builds[request->side].program,
        .input = input,
        .threads = request->item->threads,
        .counter = workers->suite->measure.counter,
        .openblas_core = fb_ceiling_openblas_core_for(&workers->book, request->item,
                                                      workers->suite->measure.counter),
        .idle_threads = request->item->program != NULL,
        .timeout_s = workers->suite->limits.case_timeout_s,
        /* a GPU's driver reserves more than it uses */
        .memory_bytes = request->item->device == FB_CPU ? workers->memory_limit_bytes : 0,
    };

    if (input == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a worker's task");
    enum fb_status status = fb_worker_run(&task, workers->interrupts, &outcome, error);
    json_decref(input);
    if (status != FB_OK)
        return status;
    answer->wall_s = outcome.wall_s;
    answer->aborted = outcome.end == FB_WORKER_ABORTED;
    if (outcome.end == FB_WORKER_RESULT) {
        take_result(outcome.result, answer);
    } else if (!answer->aborted) {
        answer->status = names[outcome.end];
        (void)snprintf(answer->reason, sizeof answer->reason, "%s", outcome.reason);
    }
    fb_worker_outcome_free(&outcome);
    return FB_OK;
}
