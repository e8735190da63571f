/* Tasks of workers, written and served: see worker_task.h. */
#include "worker_task.h"

#include "arena.h"
#include "machine.h"
#include "pinning.h"
#include "run_json.h"
#include "training_worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

json_t *fb_worker_task_case(const struct fb_case *item, const struct fb_suite *suite, int process)
{
    return json_pack("{s:s, s:b, s:o, s:o, s:o, s:b, s:i}", "task", "case", "pin",
                     fb_pinning_users_choice() == NULL, "case", fb_case_to_json(item), "measure",
                     fb_measure_settings_to_json(&suite->measure), "limits",
                     fb_limits_to_json(&suite->limits), "oracle", suite->oracle, "process",
                     process);
}

json_t *fb_worker_task_ceilings(enum fb_backend device, enum fb_dtype dtype, int threads,
                                enum fb_isa isa)
{
    return json_pack("{s:s, s:b, s:s, s:s, s:i, s:s}", "task", "ceilings", "pin",
                     fb_pinning_users_choice() == NULL, "device", fb_backend_name(device), "dtype",
                     fb_dtype_name(dtype), "threads", threads, "isa", fb_isa_name(isa));
}

json_t *fb_worker_task_hello(void)
{
    return json_pack("{s:s}", "task", "hello");
}

/* ---- serving --------------------------------------------------------------------------------- */

enum fb_status fb_worker_answer(int fd, json_t *document, struct fb_error *error)
{
    char *text =
        document == NULL ? NULL : json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(17));
    size_t length = text == NULL ? 0 : strlen(text);
    enum fb_status status = FB_OK;

    json_decref(document);
    if (text == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a worker's answer");
    text[length++] = '\n';
    for (size_t done = 0; done < length && status == FB_OK;) {
        ssize_t count = write(fd, text + done, length - done);
        if (count > 0)
            done += (size_t)count;
        else if (count < 0 && errno != EINTR)
            status =
                fb_error_set(error, FB_ERROR_IO, "cannot answer the runner: %s", strerror(errno));
    }
    free(text);
    return status;
}

static void tell_phase(void *context, const char *phase)
{
    const int *fd = context;

    /* Only there to explain a death: a runner that no longer listens changes nothing. */
    if (fb_worker_answer(*fd, json_pack("{s:s}", "phase", phase), NULL) != FB_OK)
        return;
}

/* The threads that wait for a device run where the kernel likes them. */
static enum fb_status pin(const json_t *task, enum fb_backend device, int threads,
                          struct fb_error *error)
{
    if (device != FB_CPU || !json_is_true(json_object_get(task, "pin")))
        return FB_OK;
    return fb_pinning_apply(threads, error);
}

static enum fb_status serve_case(const json_t *task, int out_fd, struct fb_error *error)
{
    struct fb_arena arena;
    struct fb_case item;
    struct fb_measure_settings settings;
    struct fb_limits limits;
    struct fb_measure_options options;
    struct fb_measure_result result;

    fb_arena_init(&arena, 0);
    fb_measure_result_init(&result);
    fb_measure_options_init(&options);
    options.oracle = json_is_true(json_object_get(task, "oracle"));
    options.floor = !json_is_false(json_object_get(task, "floor"));
    options.process = (int)json_integer_value(json_object_get(task, "process"));
    options.on_phase = tell_phase;
    options.on_phase_context = &out_fd;
    enum fb_status status = fb_case_from_json(json_object_get(task, "case"), &arena, &item, error);
    if (status == FB_OK)
        status = fb_measure_settings_from_json(json_object_get(task, "measure"), &settings, error);
    if (status == FB_OK)
        status = fb_limits_from_json(json_object_get(task, "limits"), &limits, error);
    if (status == FB_OK)
        status = pin(task, item.device, item.threads, error);
    if (status == FB_OK)
        status = fb_measure_case(&item, &settings, &limits, &options, &result, error);
    if (status == FB_OK)
        status = fb_worker_answer(
            out_fd, json_pack("{s:o}", "result", fb_measure_result_to_json(&result)), error);
    fb_measure_result_free(&result);
    fb_arena_free(&arena);
    return status;
}

static int parsed(const json_t *task, const char *key, int (*parse)(const char *name))
{
    const char *name = json_string_value(json_object_get(task, key));

    return name == NULL ? -1 : parse(name);
}

static enum fb_status serve_ceilings(const json_t *task, int out_fd, struct fb_error *error)
{
    struct fb_measure_ceilings ceilings;
    const int threads = (int)json_integer_value(json_object_get(task, "threads"));
    const int isa = parsed(task, "isa", fb_isa_parse);
    const int device = parsed(task, "device", fb_backend_parse);
    const int dtype = parsed(task, "dtype", fb_dtype_parse);
    enum fb_status status;

    if (isa < 0 || device < 0 || dtype < 0)
        status = fb_error_set(error, FB_ERROR_INPUT,
                              "a ceilings task names no known isa, device or dtype");
    else if (device == FB_CUDA)
        status = fb_measure_device_ceilings((enum fb_dtype)dtype, &ceilings, error);
    else if ((status = pin(task, FB_CPU, threads, error)) == FB_OK)
        status = fb_measure_ceilings(threads, (enum fb_isa)isa, &ceilings, error);
    if (status != FB_OK)
        return status;
    return fb_worker_answer(
        out_fd, json_pack("{s:o}", "result", fb_measure_ceilings_to_json(&ceilings)), error);
}

static enum fb_status serve_hello(int out_fd, struct fb_error *error)
{
    struct fb_machine machine;
    enum fb_status status = fb_machine_read(&machine, error);

    if (status != FB_OK)
        return status;
    return fb_worker_answer(out_fd,
                            json_pack("{s:{s:i, s:s, s:s, s:s, s:s, s:s}}", "result", "protocol",
                                      FB_WORKER_PROTOCOL, "flowbench", machine.version, "git_sha",
                                      fb_build_git_sha(), "compiler", machine.compiler,
                                      "compiler_flags", machine.compiler_flags, "build_type",
                                      machine.build_type),
                            error);
}

enum fb_status fb_worker_serve(int in_fd, int out_fd, struct fb_error *error)
{
    json_error_t where;
    json_t *task = json_loadfd(in_fd, JSON_REJECT_DUPLICATES, &where);
    const char *kind = json_string_value(json_object_get(task, "task"));
    struct fb_error failure = {FB_OK, ""};
    enum fb_status status;

    if (task == NULL)
        status =
            fb_error_set(&failure, FB_ERROR_INPUT, "the worker's task is not JSON: %s", where.text);
    else if (kind != NULL && strcmp(kind, "case") == 0)
        status = serve_case(task, out_fd, &failure);
    else if (kind != NULL && strcmp(kind, "ceilings") == 0)
        status = serve_ceilings(task, out_fd, &failure);
    else if (kind != NULL && strcmp(kind, "training") == 0)
        status = fb_training_serve(task, out_fd, &failure);
    else if (kind != NULL && strcmp(kind, "hello") == 0)
        status = serve_hello(out_fd, &failure);
    else
        status = fb_error_set(&failure, FB_ERROR_INPUT, "a worker knows no task '%s'",
                              kind == NULL ? "" : kind);
    json_decref(task);
    if (status != FB_OK)
        status = fb_worker_answer(
            out_fd,
            json_pack("{s:s, s:s}", "error", failure.text, "code", fb_status_name(failure.code)),
            error);
    return status;
}
