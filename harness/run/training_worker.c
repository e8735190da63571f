/* Training in a worker: see training_worker.h. */
#include "training_worker.h"

#include "pinning.h"
#include "worker_process.h"
#include "worker_task.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

json_t *fb_training_task(const struct fb_case *item, const struct fb_training_place *place)
{
    return json_pack("{s:s, s:b, s:o, s:s?, s:s, s:f}", "task", "training", "pin",
                     place->alone && fb_pinning_users_choice() == NULL, "case",
                     fb_case_to_json(item), "data_dir", place->data_dir, "checkpoint",
                     place->checkpoint, "checkpoint_s", place->checkpoint_s);
}

void fb_training_options(const struct fb_case *item, const struct fb_recipe *recipe,
                         const void *data, struct fb_fit_options *options)
{
    *options = (struct fb_fit_options){
        .task = item->task,
        .data = data,
        .recipe = recipe,
        .attention = {.attention = item->attention,
                      .causal = item->causal,
                      .mask_padding = recipe->mask_padding,
                      .constants_seed = item->seed},
        .seed = item->seed,
        .threads = item->threads,
        .backend = item->device,
        .precision = fb_case_precision(item),
    };
    memcpy(options->attention.params, item->params, sizeof options->attention.params);
}

enum fb_status fb_training_open(const struct fb_case *item, const char *data_dir,
                                struct fb_arena *arena, void **data, struct fb_error *error)
{
    const struct fb_task_options options = {
        .data_dir = data_dir,
        .data_seed = FB_TASK_DATA_SEED,
        .params = item->task_params,
        .cut_validation = item->recipe != FB_RECIPE_PAPER,
    };
    assert(item->task); /* the caller's: a training case */
    return item->task->open(item->task, &options, arena, data, error);
}

/* ---- serving --------------------------------------------------------------------------------- */

struct service {
    int out_fd;
    struct fb_fit_options options;
};

/* SIGTERM is blocked in a training worker: it waits until the step is done. */
static bool is_told_to_stop(void *context)
{
    sigset_t pending;
    (void)context;
    return sigpending(&pending) == 0 && sigismember(&pending, SIGTERM) == 1;
}

static void tell_point(void *context, const struct fb_fit_point *point)
{
    const struct service *service = context;
    char phase[FB_WORKER_PHASE_SIZE];
    snprintf(phase, sizeof phase, "training, step %" PRId64, point->step);
    /* Only there to explain a death: a runner that no longer listens changes nothing. */
    if (fb_worker_answer(service->out_fd, json_pack("{s:s}", "phase", phase), NULL) != FB_OK)
        return;
}

static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *points_json(const struct fb_fit_result *result)
{
    json_t *array = json_array();
    for (size_t i = 0; i < result->points_count; i++) {
        const struct fb_fit_point *p = &result->points[i];
        json_array_append_new(array,
                              json_pack("[i, I, o, o, o, o, o]", p->trial, (json_int_t)p->step,
                                        real(p->epoch), real(p->train_loss), real(p->loss),
                                        real(p->metric), real(p->elapsed_s)));
    }
    return array;
}

static json_t *bits_json(const struct fb_fit_result *result)
{
    char *bits = result->correct ? malloc((size_t)result->correct_count + 1) : NULL;
    for (int64_t i = 0; bits && i < result->correct_count; i++)
        bits[i] = result->correct[i] ? '1' : '0';
    json_t *text = bits ? json_stringn(bits, (size_t)result->correct_count) : json_null();
    free(bits);
    return text;
}

static json_t *result_json(const struct service *service, const struct fb_fit_result *r)
{
    const struct fb_task *task = service->options.task;
    const void *data = service->options.data;
    struct rusage usage = {0};
    struct fb_task_shape shape;
    task->shape(data, &shape);
    (void)getrusage(RUSAGE_SELF, &usage);
    return json_pack(
        "{s:s, s:s?, s:o, s:o, s:o, s:s, s:I, s:o, s:I, s:o, s:I, s:o, s:o, s:o, s:I, s:I, s:I, "
        "s:I, s:I, s:I, s:o, s:o}",
        "status", r->stopped ? "stopped" : "ok", "warning", r->warning, "metric", real(r->metric),
        "metric_last", real(r->metric_last), "metric_best", real(r->metric_best), "selected_on",
        r->split, "selected_step", (json_int_t)r->selected_step, "learning_rate", real(r->lr),
        "steps", (json_int_t)r->steps, "plateau",
        real(service->options.recipe->plateau > 0.0 ? service->options.recipe->plateau
                                                    : (double)NAN),
        "plateau_step", (json_int_t)r->plateau_step, "train_s", real(r->train_s), "elapsed_s",
        real(r->elapsed_s), "steps_per_s", real(r->steps_per_s), "mem_peak_bytes",
        (json_int_t)usage.ru_maxrss * 1024, "parameters", (json_int_t)r->parameters,
        "train_examples", (json_int_t)task->count(data, FB_SPLIT_TRAIN), "validation_examples",
        (json_int_t)task->count(data, FB_SPLIT_VALIDATION), "test_examples",
        (json_int_t)task->count(data, FB_SPLIT_TEST), "tokens", (json_int_t)shape.tokens, "points",
        points_json(r), "bits", bits_json(r));
}

static enum fb_status answer_skip(int fd, const struct fb_error *why, struct fb_error *error)
{
    return fb_worker_answer(
        fd, json_pack("{s:{s:s, s:s}}", "result", "status", "skipped", "reason", why->text), error);
}

/* Data that are not there and what nothing serves are reasons to skip, told in the row. */
static enum fb_status fit_case(const json_t *task, const struct fb_case *item, int out_fd,
                               struct fb_arena *arena, struct fb_error *error)
{
    struct fb_recipe recipe;
    struct fb_fit_result result;
    struct service service = {.out_fd = out_fd};
    void *data = NULL;
    enum fb_status status = fb_case_recipe(item, &recipe, error);
    if (status == FB_OK)
        status = fb_training_open(item, json_string_value(json_object_get(task, "data_dir")), arena,
                                  &data, error);
    if (status == FB_ERROR_IO)
        return answer_skip(out_fd, error, error);
    if (status != FB_OK)
        return status;
    fb_training_options(item, &recipe, data, &service.options);
    service.options.checkpoint = json_string_value(json_object_get(task, "checkpoint"));
    service.options.checkpoint_every_s = json_number_value(json_object_get(task, "checkpoint_s"));
    service.options.should_stop = is_told_to_stop;
    service.options.on_point = tell_point;
    service.options.context = &service;
    status = fb_fit(&service.options, arena, &result, error);
    if (status == FB_ERROR_UNSUPPORTED)
        return answer_skip(out_fd, error, error);
    return status == FB_OK
               ? fb_worker_answer(
                     out_fd, json_pack("{s:o}", "result", result_json(&service, &result)), error)
               : status;
}

enum fb_status fb_training_serve(const json_t *task, int out_fd, struct fb_error *error)
{
    struct fb_arena arena;
    struct fb_case item;
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &blocked, NULL);
    fb_arena_init(&arena, 0);
    enum fb_status status = fb_case_from_json(json_object_get(task, "case"), &arena, &item, error);
    if (status == FB_OK && !item.task)
        status = fb_error_set(error, FB_ERROR_INPUT, "a training task names no task");
    if (status == FB_OK && item.device == FB_CPU && json_is_true(json_object_get(task, "pin")))
        status = fb_pinning_apply(item.threads, error);
    if (status == FB_OK)
        status = fit_case(task, &item, out_fd, &arena, error);
    fb_arena_free(&arena);
    return status;
}

/* ---- reading the answer ---------------------------------------------------------------------- */

static double real_at(const json_t *json)
{
    return json_is_number(json) ? json_number_value(json) : (double)NAN;
}

static void set_reals(const json_t *result, struct fb_accuracy_row *row)
{
    const struct {
        const char *name;
        double *value;
    } reals[] = {{"metric", &row->metric},           {"metric_last", &row->metric_last},
                 {"metric_best", &row->metric_best}, {"learning_rate", &row->learning_rate},
                 {"plateau", &row->plateau},         {"train_s", &row->train_s},
                 {"elapsed_s", &row->elapsed_s},     {"steps_per_s", &row->steps_per_s}};
    const struct {
        const char *name;
        int64_t *value;
    } integers[] = {{"selected_step", &row->selected_step},
                    {"steps", &row->steps},
                    {"plateau_step", &row->plateau_step},
                    {"mem_peak_bytes", &row->mem_peak_bytes},
                    {"parameters", &row->parameters},
                    {"train_examples", &row->train_examples},
                    {"validation_examples", &row->validation_examples},
                    {"test_examples", &row->test_examples},
                    {"tokens", &row->tokens}};
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++)
        *reals[i].value = real_at(json_object_get(result, reals[i].name));
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        const json_t *json = json_object_get(result, integers[i].name);
        *integers[i].value = json_is_integer(json) ? json_integer_value(json) : FB_ROW_NONE;
    }
    if (row->plateau_step < 0)
        row->plateau_step = FB_ROW_NONE;
}

static enum fb_status read_points(const json_t *array, const char *case_id,
                                  struct fb_training_answer *answer, struct fb_error *error)
{
    const size_t count = json_array_size(array);
    answer->points = calloc(count + 1, sizeof *answer->points);
    if (!answer->points)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a learning curve");
    for (size_t i = 0; i < count; i++) {
        const json_t *json = json_array_get(array, i);
        struct fb_curve_point *p = &answer->points[answer->points_count++];
        *p = (struct fb_curve_point){.trial = json_integer_value(json_array_get(json, 0)),
                                     .step = json_integer_value(json_array_get(json, 1)),
                                     .epoch = real_at(json_array_get(json, 2)),
                                     .train_loss = real_at(json_array_get(json, 3)),
                                     .loss = real_at(json_array_get(json, 4)),
                                     .metric = real_at(json_array_get(json, 5)),
                                     .elapsed_s = real_at(json_array_get(json, 6))};
        snprintf(p->case_id, sizeof p->case_id, "%s", case_id);
    }
    return FB_OK;
}

enum fb_status fb_training_answer_read(const json_t *result, struct fb_accuracy_row *row,
                                       struct fb_training_answer *answer, struct fb_error *error)
{
    *answer = (struct fb_training_answer){
        .status = json_string_value(json_object_get(result, "status")),
        .reason = json_string_value(json_object_get(result, "reason")),
        .warning = json_string_value(json_object_get(result, "warning")),
        .bits = json_string_value(json_object_get(result, "bits")),
    };
    if (!answer->status)
        return fb_error_set(error, FB_ERROR_INPUT, "the worker's result has no status");
    if (strcmp(answer->status, "ok") != 0)
        return FB_OK;
    const char *split = json_string_value(json_object_get(result, "selected_on"));
    snprintf(row->selected_on, sizeof row->selected_on, "%s", split ? split : "");
    set_reals(result, row);
    return read_points(json_object_get(result, "points"), row->case_id, answer, error);
}

void fb_training_answer_free(struct fb_training_answer *answer)
{
    free(answer->points);
    answer->points = NULL;
}
