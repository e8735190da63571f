/* Training steps: see trainer.h. */
#include "trainer.h"

#include "nn_loss.h"
#include "trainer_device.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum fb_status fb_trainer_init(struct fb_trainer *trainer, const struct fb_graph *graph,
                               uint64_t seed, struct fb_error *error)
{
    const size_t floats = (size_t)graph->trained_floats;
    *trainer = (struct fb_trainer){.seed = seed};
    const enum fb_status status = fb_graph_run_init(&trainer->run, graph, error);
    if (status != FB_OK)
        return status;
    trainer->m = fb_arena_alloc(graph->arena, floats, sizeof(float), error);
    trainer->v = trainer->m ? fb_arena_alloc(graph->arena, floats, sizeof(float), error) : NULL;
    trainer->decay = trainer->v ? fb_arena_alloc(graph->arena, floats, 1, error) : NULL;
    if (!trainer->decay)
        return FB_ERROR_MEMORY;
    for (int i = 0; i < graph->param_count; i++) {
        const struct fb_graph_param *p = &graph->params[i];
        if (p->offset < graph->trained_floats)
            memset(trainer->decay + p->offset, p->decay, (size_t)p->count);
    }
    fb_graph_draw_params(graph, trainer->run.params, seed);
    return FB_OK;
}

enum fb_status fb_trainer_restart(struct fb_trainer *t, struct fb_error *error)
{
    const struct fb_graph *g = t->run.graph;
    fb_graph_draw_params(g, t->run.params, t->seed);
    memset(t->m, 0, (size_t)g->trained_floats * sizeof *t->m);
    memset(t->v, 0, (size_t)g->trained_floats * sizeof *t->v);
    t->step = 0;
    return t->device ? fb_trainer_device_put(t, error) : FB_OK;
}

static size_t trained_bytes(const struct fb_trainer *t)
{
    return (size_t)t->run.graph->trained_floats * sizeof(float);
}

enum fb_status fb_trainer_make_best(struct fb_trainer *t, struct fb_error *error)
{
    const struct fb_graph *g = t->run.graph;
    t->best = fb_arena_alloc(g->arena, (size_t)g->trained_floats, sizeof *t->best, error);
    if (!t->best)
        return FB_ERROR_MEMORY;
    memset(t->best, 0, trained_bytes(t));
    return FB_OK;
}

enum fb_status fb_trainer_keep_best(struct fb_trainer *t, struct fb_error *error)
{
    const enum fb_status status = t->device ? fb_trainer_device_fetch_params(t, error) : FB_OK;
    if (status == FB_OK)
        memcpy(t->best, t->run.params, trained_bytes(t));
    return status;
}

enum fb_status fb_trainer_take_best(struct fb_trainer *t, struct fb_error *error)
{
    /* the moments go back with the parameters, so the host's must be the device's */
    const enum fb_status status = t->device ? fb_trainer_device_fetch(t, error) : FB_OK;
    if (status != FB_OK)
        return status;
    memcpy(t->run.params, t->best, trained_bytes(t));
    return t->device ? fb_trainer_device_put(t, error) : FB_OK;
}

static const struct fb_graph_tensor *logits_of(const struct fb_trainer *t)
{
    return &t->run.graph->tensors[t->run.graph->logits];
}

static double loss_of(struct fb_trainer *t, float *gradient)
{
    const struct fb_graph_tensor *logits = logits_of(t);
    return fb_nn_cross_entropy(gradient, fb_graph_run_values(&t->run, t->run.graph->logits),
                               t->targets, logits->rows, logits->width);
}

/* The first parameter whose gradient is not finite. */
static const char *culprit(const struct fb_trainer *t)
{
    const struct fb_graph *g = t->run.graph;
    for (int i = 0; i < g->param_count; i++) {
        const struct fb_graph_param *p = &g->params[i];
        for (int64_t c = 0; p->offset < g->trained_floats && c < p->count; c++)
            if (!isfinite(t->run.param_gradients[p->offset + c]))
                return p->name;
    }
    return NULL;
}

enum fb_status fb_trainer_use_device(struct fb_trainer *trainer, enum fb_nn_precision precision,
                                     struct fb_error *error)
{
    return fb_trainer_device_open(trainer, precision, error);
}

void fb_trainer_release(struct fb_trainer *trainer)
{
    fb_trainer_device_close(trainer);
}

uint64_t fb_trainer_dropout_seed(const struct fb_trainer *t, int64_t step)
{
    return t->seed + 0x9e3779b97f4a7c15U * ((uint64_t)step + 1);
}

static enum fb_status refuse_step(struct fb_trainer *t, double loss, struct fb_error *error)
{
    const enum fb_status status = t->device ? fb_trainer_device_fetch_gradient(t, error) : FB_OK;
    if (status != FB_OK)
        return status;
    const char *name = culprit(t);
    return fb_error_set(error, FB_ERROR_INPUT,
                        "step %" PRId64 ": the loss is %g and the gradient of %s is not "
                        "finite; the weights are those before this step",
                        t->step + 1, loss, name ? name : "no single parameter");
}

/* On this processor; the update is left out when loss or norm are not finite. */
static enum fb_status step_here(struct fb_trainer *t, double *loss, double *norm,
                                struct fb_error *error)
{
    const struct fb_graph *g = t->run.graph;
    enum fb_status status = fb_graph_run_forward(&t->run, error);
    if (status != FB_OK)
        return status;
    *loss = loss_of(t, fb_graph_run_gradient(&t->run, g->logits));
    status = fb_graph_run_backward(&t->run, error);
    if (status != FB_OK)
        return status;
    *norm = fb_nn_clip_norm(t->run.param_gradients, g->trained_floats, 0.0);
    if (!isfinite(*loss) || !isfinite(*norm))
        return FB_OK;
    (void)fb_nn_clip_norm(t->run.param_gradients, g->trained_floats, t->clip_norm);
    fb_nn_optimiser_step(&t->optimiser, t->run.params, t->m, t->v, t->run.param_gradients, t->decay,
                         g->trained_floats, t->step + 1, fb_nn_schedule_at(&t->schedule, t->step),
                         g->threads);
    return FB_OK;
}

enum fb_status fb_trainer_start_step(struct fb_trainer *t, struct fb_error *error)
{
    t->run.training = true;
    if (t->device)
        return fb_trainer_device_start(t, error);
    t->run.dropout_seed = fb_trainer_dropout_seed(t, t->step);
    return step_here(t, &t->pending_loss, &t->pending_norm, error);
}

enum fb_status fb_trainer_stage_step(struct fb_trainer *t, struct fb_error *error)
{
    return t->device ? fb_trainer_device_stage(t, t->step + 1, error) : FB_OK;
}

enum fb_status fb_trainer_finish_step(struct fb_trainer *t, double *loss, struct fb_error *error)
{
    double norm = t->pending_norm;
    *loss = t->pending_loss;
    const enum fb_status status =
        t->device ? fb_trainer_device_finish(t, loss, &norm, error) : FB_OK;
    if (status != FB_OK)
        return status;
    if (!isfinite(*loss) || !isfinite(norm))
        return refuse_step(t, *loss, error);
    t->step++;
    return FB_OK;
}

enum fb_status fb_trainer_step(struct fb_trainer *t, double *loss, struct fb_error *error)
{
    const enum fb_status status = fb_trainer_start_step(t, error);
    return status == FB_OK ? fb_trainer_finish_step(t, loss, error) : status;
}

enum fb_status fb_trainer_evaluate(struct fb_trainer *t, double *loss, struct fb_error *error)
{
    t->run.training = false;
    const enum fb_status status = fb_graph_run_forward(&t->run, error);
    if (status == FB_OK)
        *loss = loss_of(t, NULL);
    return status;
}

/* On this processor the logits of a batch are put aside, since the next one's take their place. */
static enum fb_status evaluate_here(struct fb_trainer *t, float *logits, struct fb_error *error)
{
    const struct fb_graph_tensor *tensor = logits_of(t);
    const enum fb_status status = fb_graph_run_forward(&t->run, error);
    if (status == FB_OK)
        memcpy(logits, fb_graph_run_values(&t->run, t->run.graph->logits),
               (size_t)(tensor->rows * tensor->width) * sizeof *logits);
    return status;
}

enum fb_status fb_trainer_start_evaluation(struct fb_trainer *t, struct fb_error *error)
{
    const struct fb_graph_tensor *tensor = logits_of(t);
    float **logits = &t->evaluated[t->started % 2];
    t->run.training = false;
    if (!*logits && !t->device) {
        *logits = fb_arena_alloc(t->run.graph->arena, (size_t)(tensor->rows * tensor->width),
                                 sizeof **logits, error);
        if (!*logits)
            return FB_ERROR_MEMORY;
    }
    const enum fb_status status = t->device ? fb_trainer_device_start_evaluation(t, logits, error)
                                            : evaluate_here(t, *logits, error);
    if (status == FB_OK)
        t->started++;
    return status;
}

enum fb_status fb_trainer_finish_evaluation(struct fb_trainer *t, const int32_t *targets,
                                            double *loss, const float **logits,
                                            struct fb_error *error)
{
    const struct fb_graph_tensor *tensor = logits_of(t);
    const enum fb_status status = t->device ? fb_trainer_device_finish_evaluation(t, error) : FB_OK;
    if (status != FB_OK)
        return status;
    *logits = t->evaluated[t->finished++ % 2];
    *loss = fb_nn_cross_entropy(NULL, *logits, targets, tensor->rows, tensor->width);
    return FB_OK;
}
