/* The loop of one case: see fit.h. */
#include "fit.h"

#include "fit_batch.h"
#include "fit_note.h"
#include "graph_cost.h"
#include "trainer.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct fit {
    const struct fb_fit_options *options;
    const struct fb_recipe *recipe;
    struct fb_arena *arena;
    struct fb_graph graph;
    struct fb_trainer trainer;
    struct fb_fit_batch batch;
    struct fb_fit_state state;
    enum fb_split split;    /* that is evaluated on */
    int64_t steps;          /* of a trial */
    unsigned char *correct; /* of the evaluation at hand */
    double started_s, saved_s;
    int64_t resumed_step;
    bool warm; /* a step has been done in this process */
    const char *warning;
    bool stopped;
};

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool is_better(const struct fit *f, double value, double than)
{
    return f->options->task->metric == FB_METRIC_PERPLEXITY ? value < than : value > than;
}

/* ---- how long -------------------------------------------------------------------------------- */

static int64_t steps_of(const struct fb_recipe *r, int64_t steps_per_epoch)
{
    const int64_t by_epochs = r->epochs * steps_per_epoch;
    return r->steps == 0 || (by_epochs > 0 && by_epochs < r->steps) ? by_epochs : r->steps;
}

/* Before the first step, after the last one, and as often as the recipe says; by epochs also after
 * the first. */
static bool is_evaluated(const struct fb_recipe *r, int64_t step, int64_t steps,
                         int64_t steps_per_epoch)
{
    const int64_t epoch = step / steps_per_epoch;
    if (step == 0 || step == steps)
        return true;
    if (r->evaluate_steps > 0)
        return step % r->evaluate_steps == 0;
    return step % steps_per_epoch == 0 && (epoch == 1 || epoch % r->evaluate_epochs == 0);
}

static size_t evaluations_of(const struct fb_recipe *r, int64_t steps, int64_t steps_per_epoch)
{
    size_t count = 0;
    for (int64_t step = 0; step <= steps; step++)
        count += is_evaluated(r, step, steps, steps_per_epoch);
    return count;
}

/* ---- setting up ------------------------------------------------------------------------------ */

static enum fb_status build(struct fb_graph *graph, const struct fb_fit_options *o, int *input,
                            struct fb_arena *arena, struct fb_error *error)
{
    struct fb_task_shape shape;
    o->task->shape(o->data, &shape);
    fb_graph_init(graph, arena, o->recipe->batch, o->threads, error);
    graph->backend = o->backend;
    graph->dtype = fb_nn_precision_dtype(o->precision);
    return fb_graph_finish(
        graph, fb_recipe_build(o->recipe, o->task, &shape, &o->attention, graph, input));
}

static enum fb_status make_trainer(struct fit *f, struct fb_error *error)
{
    const struct fb_fit_options *o = f->options;
    int input = -1;
    enum fb_status status = build(&f->graph, o, &input, f->arena, error);
    if (status == FB_OK)
        status = fb_trainer_init(&f->trainer, &f->graph, o->seed, error);
    if (status == FB_OK && o->backend == FB_CUDA)
        status = fb_trainer_use_device(&f->trainer, o->precision, error);
    f->trainer.optimiser = o->recipe->optimiser;
    f->trainer.schedule = o->recipe->schedule;
    f->trainer.clip_norm = o->recipe->clip_norm;
    return status == FB_OK ? fb_fit_batch_init(&f->batch, o, &f->trainer, input, f->arena, error)
                           : status;
}

/* The split that evaluations are made on. */
static enum fb_split split_of(const struct fb_fit_options *o)
{
    return o->recipe->best_on_test || o->task->count(o->data, FB_SPLIT_VALIDATION) == 0
               ? FB_SPLIT_TEST
               : FB_SPLIT_VALIDATION;
}

static enum fb_status make_state(struct fit *f, struct fb_error *error)
{
    const struct fb_task *task = f->options->task;
    const void *data = f->options->data;
    struct fb_fit_state *s = &f->state;
    f->split = split_of(f->options);
    f->steps = steps_of(f->recipe, f->batch.steps_per_epoch);
    *s = (struct fb_fit_state){.selected_step = -1};
    s->points_room =
        (size_t)f->recipe->trials * evaluations_of(f->recipe, f->steps, f->batch.steps_per_epoch);
    s->points = fb_arena_alloc(f->arena, s->points_room, sizeof *s->points, error);
    if (!s->points)
        return FB_ERROR_MEMORY;
    if (task->metric == FB_METRIC_PERPLEXITY)
        return FB_OK;
    s->correct_count = task->count(data, FB_SPLIT_TEST);
    s->correct = fb_arena_alloc(f->arena, (size_t)s->correct_count, 1, error);
    f->correct = fb_arena_alloc(f->arena, (size_t)s->correct_count, 1, error);
    if (!s->correct || !f->correct)
        return FB_ERROR_MEMORY;
    memset(s->correct, 0, (size_t)s->correct_count);
    return FB_OK;
}

/* ---- checkpoints ----------------------------------------------------------------------------- */

static enum fb_status save(struct fit *f, struct fb_error *error)
{
    struct fb_arena arena;
    if (!f->options->checkpoint)
        return FB_OK;
    fb_arena_init(&arena, 0);
    f->state.elapsed_s += now_s() - f->started_s;
    f->started_s = now_s();
    f->trainer.note = fb_fit_note_write(&f->state, &arena, error);
    const enum fb_status status = f->trainer.note
                                      ? fb_trainer_save(&f->trainer, f->options->checkpoint, error)
                                      : FB_ERROR_MEMORY;
    f->trainer.note = NULL;
    f->saved_s = now_s();
    fb_arena_free(&arena);
    return status;
}

/* A checkpoint that cannot be read costs the time that it would have saved, and is told of. */
static enum fb_status resume(struct fit *f, struct fb_error *error)
{
    const char *path = f->options->checkpoint;
    struct fb_error why = {FB_OK, ""};
    if (!path || access(path, F_OK) != 0)
        return FB_OK;
    enum fb_status status = fb_trainer_load(&f->trainer, path, &why);
    if (status == FB_OK)
        status = fb_fit_note_read(f->trainer.note, path, &f->state, &why);
    if (status == FB_OK && f->state.trial >= f->recipe->trials)
        status = fb_error_set(&why, FB_ERROR_INPUT, "%s: it is of another recipe", path);
    f->trainer.note = NULL;
    if (status == FB_OK) {
        f->resumed_step = f->trainer.step;
        return FB_OK;
    }
    f->warning = fb_arena_printf(f->arena, error, "%s; the case began anew", why.text);
    f->trainer.seed = f->options->seed;
    status = f->warning ? make_state(f, error) : FB_ERROR_MEMORY;
    return status == FB_OK ? fb_trainer_restart(&f->trainer, error) : status;
}

/* ---- evaluating ------------------------------------------------------------------------------ */

static void take_test_score(struct fit *f, double metric)
{
    struct fb_fit_state *s = &f->state;
    s->selected_test = metric;
    if (s->correct)
        memcpy(s->correct, f->correct, (size_t)s->correct_count);
}

/* Takes the evaluation at hand as the best so far. Unless it was of the test split, the parameters
 * are put aside: that split is scored at the end. */
static enum fb_status take_as_best(struct fit *f, const struct fb_fit_point *point,
                                   struct fb_error *error)
{
    struct fb_fit_state *s = &f->state;
    s->selected_trial = point->trial;
    s->selected_step = point->step;
    s->selected_value = point->metric;
    if (f->split != FB_SPLIT_TEST)
        return fb_trainer_keep_best(&f->trainer, error);
    take_test_score(f, point->metric);
    return FB_OK;
}

/* The test score after the last step of a trial; not of one that cannot be selected any more. */
static enum fb_status score_last(struct fit *f, struct fb_error *error)
{
    struct fb_fit_state *s = &f->state;
    struct fb_fit_score score = {.metric = s->points[s->points_count - 1].metric};
    if (s->selected_trial != s->trial)
        return FB_OK;
    if (f->split != FB_SPLIT_TEST) {
        const enum fb_status status =
            fb_fit_batch_score(&f->batch, FB_SPLIT_TEST, f->correct, &score, error);
        if (status != FB_OK)
            return status;
        if (s->selected_step == f->trainer.step)
            take_test_score(f, score.metric);
    }
    s->last_test = score.metric;
    return FB_OK;
}

/* The test score of the selected evaluation, where it has none yet. */
static enum fb_status score_selected(struct fit *f, struct fb_error *error)
{
    struct fb_fit_score score;
    if (f->split == FB_SPLIT_TEST || f->state.selected_step == f->steps)
        return FB_OK;
    enum fb_status status = fb_trainer_take_best(&f->trainer, error);
    if (status == FB_OK)
        status = fb_fit_batch_score(&f->batch, FB_SPLIT_TEST, f->correct, &score, error);
    if (status == FB_OK)
        take_test_score(f, score.metric);
    return status;
}

static enum fb_status evaluate(struct fit *f, struct fb_error *error)
{
    struct fb_fit_state *s = &f->state;
    struct fb_fit_score score;
    enum fb_status status = fb_fit_batch_score(
        &f->batch, f->split, f->split == FB_SPLIT_TEST ? f->correct : NULL, &score, error);
    if (status != FB_OK)
        return status;
    struct fb_fit_point *point = &s->points[s->points_count++];
    *point = (struct fb_fit_point){
        .trial = s->trial,
        .step = f->trainer.step,
        .epoch = f->recipe->replacement
                     ? (double)(f->trainer.step * f->recipe->batch) / (double)f->batch.train_count
                     : (double)f->trainer.step / (double)f->batch.steps_per_epoch,
        .train_loss = s->loss_steps > 0 ? s->loss_sum / (double)s->loss_steps : (double)NAN,
        .loss = score.loss,
        .metric = score.metric,
        .elapsed_s = s->elapsed_s + now_s() - f->started_s,
    };
    s->loss_sum = 0.0;
    s->loss_steps = 0;
    if (point->step > 0 && (s->selected_step < 0 || is_better(f, point->metric, s->selected_value)))
        status = take_as_best(f, point, error);
    if (f->options->on_point)
        f->options->on_point(f->options->context, point);
    return status;
}

/* ---- training -------------------------------------------------------------------------------- */

/* Whether the evaluation of the step at hand has been made, before a checkpoint perhaps. */
static bool has_point(const struct fit *f)
{
    const struct fb_fit_state *s = &f->state;
    const struct fb_fit_point *last = s->points_count > 0 ? &s->points[s->points_count - 1] : NULL;
    return last && last->trial == s->trial && last->step == f->trainer.step;
}

static enum fb_status name_last_good(struct fit *f, struct fb_error *error)
{
    struct fb_error why;
    if (!f->options->checkpoint)
        return error->code;
    if (save(f, &why) != FB_OK)
        return fb_error_set(error, why.code, "%s", why.text);
    struct fb_error first = *error;
    return fb_error_set(error, first.code, "%s; the last good checkpoint is %s (step %" PRId64 ")",
                        first.text, f->options->checkpoint, f->trainer.step);
}

/* The next step's batch is loaded while a device computes, unless an evaluation comes between,
 * which uses the same buffers. */
static enum fb_status load_next(struct fit *f, struct fb_error *error)
{
    const int64_t next = f->trainer.step + 1;
    if (is_evaluated(f->recipe, next, f->steps, f->batch.steps_per_epoch))
        return FB_OK;
    fb_fit_batch_load(&f->batch, next);
    return fb_trainer_stage_step(&f->trainer, error);
}

static enum fb_status train_step(struct fit *f, struct fb_error *error)
{
    double loss = 0.0;
    const double start_s = now_s();
    fb_fit_batch_load(&f->batch, f->trainer.step);
    enum fb_status status = fb_trainer_start_step(&f->trainer, error);
    if (status == FB_OK)
        status = load_next(f, error);
    if (status == FB_OK)
        status = fb_trainer_finish_step(&f->trainer, &loss, error);
    if (status == FB_ERROR_INPUT)
        return name_last_good(f, error);
    const double step_s = now_s() - start_s;
    f->state.train_s += step_s;
    if (f->warm) { /* the first step of a process touches memory, chooses kernels, starts threads */
        f->state.rate_s += step_s;
        f->state.rate_steps++;
    }
    f->warm = true;
    f->state.loss_sum += loss;
    f->state.loss_steps++;
    return status;
}

/* After a step: time for a checkpoint, time to stop. */
static enum fb_status rest(struct fit *f, struct fb_error *error)
{
    const struct fb_fit_options *o = f->options;
    f->stopped = o->should_stop && o->should_stop(o->context);
    return f->stopped || now_s() - f->saved_s >= o->checkpoint_every_s ? save(f, error) : FB_OK;
}

static enum fb_status run_trial(struct fit *f, struct fb_error *error)
{
    enum fb_status status = FB_OK;
    f->trainer.schedule.base = f->recipe->schedule.base * f->recipe->lr_factors[f->state.trial];
    while (status == FB_OK && !f->stopped) {
        const bool evaluated =
            is_evaluated(f->recipe, f->trainer.step, f->steps, f->batch.steps_per_epoch);
        if (evaluated && !has_point(f))
            status = evaluate(f, error);
        if (status != FB_OK || f->trainer.step >= f->steps)
            break;
        status = train_step(f, error);
        if (status == FB_OK)
            status = rest(f, error);
    }
    return status == FB_OK && !f->stopped ? score_last(f, error) : status;
}

static enum fb_status run_trials(struct fit *f, struct fb_error *error)
{
    enum fb_status status = FB_OK;
    while (status == FB_OK && !f->stopped) {
        status = run_trial(f, error);
        if (status != FB_OK || f->stopped || f->state.trial + 1 == f->recipe->trials)
            break;
        f->state.trial++;
        f->state.loss_sum = 0.0;
        f->state.loss_steps = 0;
        status = fb_trainer_restart(&f->trainer, error);
    }
    return status == FB_OK && !f->stopped ? score_selected(f, error) : status;
}

static double speed_of(const struct fit *f)
{
    const struct fb_fit_state *s = &f->state;
    const double steps = (double)(f->steps * s->trial + f->trainer.step); /* of all trials so far */
    if (s->rate_steps > 0)
        return (double)s->rate_steps / s->rate_s;
    return s->train_s > 0.0 ? steps / s->train_s : (double)NAN; /* no process did a second one */
}

/* ---- the result ------------------------------------------------------------------------------ */

static int64_t plateau_step(const struct fit *f)
{
    const struct fb_fit_state *s = &f->state;
    const struct fb_fit_point *before = NULL;
    for (size_t i = 0; f->recipe->plateau > 0.0 && i < s->points_count; i++) {
        const struct fb_fit_point *p = &s->points[i];
        if (p->trial != s->selected_trial)
            continue;
        if (before && is_better(f, before->metric, f->recipe->plateau) &&
            is_better(f, p->metric, f->recipe->plateau))
            return before->step;
        before = p;
    }
    return -1;
}

static void fill_result(struct fit *f, struct fb_fit_result *result)
{
    const struct fb_fit_state *s = &f->state;
    *result = (struct fb_fit_result){
        .stopped = f->stopped,
        .warning = f->warning,
        .split = f->split == FB_SPLIT_TEST ? "test" : "validation",
        .points = s->points,
        .points_count = s->points_count,
        .metric = s->selected_test,
        .metric_last = s->last_test,
        .metric_best = s->selected_value,
        .selected_step = s->selected_step,
        .selected_trial = s->selected_trial,
        .lr = f->recipe->schedule.base * f->recipe->lr_factors[s->selected_trial],
        .plateau_step = plateau_step(f),
        .steps = f->steps,
        .parameters = fb_graph_count_parameters(&f->graph),
        .train_s = s->train_s,
        .elapsed_s = s->elapsed_s + now_s() - f->started_s,
        .steps_per_s = speed_of(f),
        .resumed_step = f->resumed_step,
        .correct = s->correct,
        .correct_count = s->correct_count,
    };
}

static enum fb_status check_data(const struct fit *f, struct fb_error *error)
{
    const struct fb_task *task = f->options->task;
    if (f->batch.train_count < 1 || task->count(f->options->data, FB_SPLIT_TEST) < 1)
        return fb_error_set(
            error, FB_ERROR_INPUT,
            "task %s has %" PRId64 " training and %" PRId64 " test examples: it needs one of each",
            task->name, f->batch.train_count, task->count(f->options->data, FB_SPLIT_TEST));
    return FB_OK;
}

enum fb_status fb_fit(const struct fb_fit_options *options, struct fb_arena *arena,
                      struct fb_fit_result *result, struct fb_error *error)
{
    struct fb_error own;
    struct fit f = {.options = options, .recipe = options->recipe, .arena = arena};
    error = error ? error : &own;
    f.started_s = f.saved_s = now_s();
    enum fb_status status = make_trainer(&f, error);
    if (status == FB_OK)
        status = check_data(&f, error);
    if (status == FB_OK)
        status = make_state(&f, error);
    if (status == FB_OK && f.split != FB_SPLIT_TEST)
        status = fb_trainer_make_best(&f.trainer, error);
    if (status == FB_OK)
        status = resume(&f, error);
    if (status == FB_OK)
        status = run_trials(&f, error);
    if (status == FB_OK)
        fill_result(&f, result);
    fb_trainer_release(&f.trainer);
    return status;
}

/* ---- prediction ------------------------------------------------------------------------------ */

static double passes_over(const struct fb_fit_options *o, enum fb_split split)
{
    return ceil((double)o->task->count(o->data, split) / (double)o->recipe->batch);
}

enum fb_status fb_fit_predict(const struct fb_fit_options *o, struct fb_fit_cost *cost,
                              struct fb_error *error)
{
    const struct fb_recipe *r = o->recipe;
    struct fb_arena arena;
    struct fb_graph graph;
    struct fb_graph_cost one;
    int input = -1;
    fb_arena_init(&arena, 0);
    const enum fb_status status = build(&graph, o, &input, &arena, error);
    if (status == FB_OK) {
        const int64_t per_epoch =
            fb_fit_steps_per_epoch(r, o->task->count(o->data, FB_SPLIT_TRAIN));
        const int64_t steps = steps_of(r, per_epoch);
        const enum fb_split split = split_of(o);
        const bool kept = split != FB_SPLIT_TEST;
        cost->evaluations = (int64_t)evaluations_of(r, steps, per_epoch) * r->trials;
        double passes = (double)cost->evaluations * passes_over(o, split);
        if (kept) /* once as selected, and after the last step of each trial at most */
            passes += (1.0 + r->trials) * passes_over(o, FB_SPLIT_TEST);
        fb_graph_cost(&graph, &one);
        cost->steps = steps * r->trials;
        cost->parameters = fb_graph_count_parameters(&graph);
        cost->flop = (double)cost->steps * one.step_flop + passes * one.forward_flop;
        cost->bytes = (double)cost->steps * one.step_bytes + passes * one.forward_bytes;
        cost->memory_bytes =
            one.memory_bytes + (kept ? (size_t)graph.trained_floats * sizeof(float) : 0);
    }
    fb_arena_free(&arena);
    return status;
}
