/* Repeating golden training runs: see golden_training.h. */
#include "golden_training.h"

#include "graph_run.h"
#include "models.h"
#include "nn_loss.h"
#include "nn_optimiser.h"
#include "safetensors.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 10, SIZE_MOST = 4096, VALUES_MOST = 1 << 24 };

struct golden {
    struct fb_safetensors file;
    struct fb_arena arena;
    struct fb_graph graph;
    struct fb_graph_run run;
    struct fb_graph_attention attention;
    struct fb_nn_optimiser optimiser;
    bool series; /* else a language model */
    double lr, clip;
    int64_t batch, tokens, features, classes;
    int64_t d_model, heads, d_ff, layers;
    int input;
    float *m, *v, *start;
    unsigned char *decay;
    const double *x, *losses;
    const int64_t *y, *lengths, *ids; /* ids: [STEPS, batch, tokens + 1] */
    float *row_mask;
    int32_t *batch_ids, *targets;
};

/* ---- metadata -------------------------------------------------------------------------------- */

static enum fb_status text_of(const struct golden *g, const char *key, const char **text,
                              struct fb_error *error)
{
    *text = fb_safetensors_metadata_find(&g->file, key);
    return *text ? FB_OK
                 : fb_error_set(error, FB_ERROR_INPUT, "%s: the metadata lack '%s'", g->file.path,
                                key);
}

static enum fb_status real_of(const struct golden *g, const char *key, double *value,
                              struct fb_error *error)
{
    const char *text;
    char *end = NULL;
    const enum fb_status status = text_of(g, key, &text, error);
    if (status != FB_OK)
        return status;
    *value = strtod(text, &end);
    if (end == text || *end != '\0' || !(*value >= 0.0) || isinf(*value))
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: metadata '%s' is '%.40s', not a number from 0 on", g->file.path,
                            key, text);
    return FB_OK;
}

static enum fb_status size_of(const struct golden *g, const char *key, int64_t *size,
                              struct fb_error *error)
{
    double value = 0.0;
    const enum fb_status status = real_of(g, key, &value, error);
    if (status != FB_OK)
        return status;
    if (value < 1.0 || value > (double)SIZE_MOST || value != floor(value))
        return fb_error_set(error, FB_ERROR_INPUT, "%s: metadata '%s' is %g, not a size of 1 to %d",
                            g->file.path, key, value, SIZE_MOST);
    *size = (int64_t)value;
    return FB_OK;
}

static enum fb_status unknown(const struct golden *g, const char *key, const char *text,
                              const char *known, struct fb_error *error)
{
    return fb_error_set(error, FB_ERROR_INPUT, "%s: metadata '%s' is '%.40s'; known are %s",
                        g->file.path, key, text, known);
}

static enum fb_status read_model(struct golden *g, struct fb_error *error)
{
    const char *model;
    enum fb_status status = text_of(g, "model", &model, error);
    if (status != FB_OK)
        return status;
    g->series = strcmp(model, "uea") == 0;
    if (!g->series && strcmp(model, "gpt") != 0)
        return unknown(g, "model", model, "uea and gpt", error);
    const struct {
        const char *key;
        int64_t *size;
    } sizes[] = {{"batch", &g->batch},     {"length", &g->tokens}, {"d_model", &g->d_model},
                 {"heads", &g->heads},     {"layers", &g->layers}, {"features", &g->features},
                 {"classes", &g->classes}, {"d_ff", &g->d_ff}};
    enum { SHARED = 5, ALL = sizeof sizes / sizeof sizes[0] };
    for (int i = 0; status == FB_OK && i < (g->series ? ALL : SHARED); i++)
        status = size_of(g, sizes[i].key, sizes[i].size, error);
    if (status == FB_OK && !g->series)
        status = size_of(g, "vocab", &g->classes, error);
    if (status != FB_OK)
        return status;
    /* of the widest activations; each factor is small, so the products are */
    const double values = (double)(g->batch * g->tokens) *
                          (double)(g->d_model + g->d_ff + g->classes) * (double)g->layers;
    return values <= VALUES_MOST
               ? FB_OK
               : fb_error_set(
                     error, FB_ERROR_INPUT,
                     "%s: a model of %.3g values is too large for a golden run, %d at most",
                     g->file.path, values, VALUES_MOST);
}

/* The optimisers of the two recipes; a decay, where there is one, is of linear weights alone, as
 * our models have it. */
static enum fb_status read_optimiser(struct golden *g, struct fb_error *error)
{
    const char *name;
    enum fb_status status = text_of(g, "optimizer", &name, error);
    if (status == FB_OK)
        status = real_of(g, "lr", &g->lr, error);
    if (status == FB_OK)
        status = real_of(g, "clip", &g->clip, error);
    if (status != FB_OK)
        return status;
    if (strcmp(name, "radam") == 0)
        g->optimiser = (struct fb_nn_optimiser){FB_NN_RADAM, 0.9, 0.999, 1e-8, 0.0};
    else if (strcmp(name, "adamw") == 0)
        g->optimiser = (struct fb_nn_optimiser){FB_NN_ADAM, 0.9, 0.95, 1e-8, 0.1};
    else
        return unknown(g, "optimizer", name, "radam and adamw", error);
    return FB_OK;
}

static enum fb_status read_attention(struct golden *g, const struct fb_attention *attention,
                                     struct fb_error *error)
{
    const struct fb_mechanism *flow = attention->mechanism;
    const int clamp = fb_param_index(flow, "clamp");
    const char *text;
    enum fb_status status = text_of(g, "flow_clamp", &text, error);
    if (status != FB_OK)
        return status;
    if (clamp < 0)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED, "%s: its model has Flow-Attention, not %s",
                            g->file.path, flow->name);
    g->attention = (struct fb_graph_attention){.attention = attention, .causal = !g->series};
    for (int i = 0; i < flow->param_count; i++)
        g->attention.params[i] = flow->params[i].default_value;
    g->attention.params[clamp] = 0.0;
    return strcmp(text, "none") == 0 ? FB_OK
                                     : real_of(g, "flow_clamp", &g->attention.params[clamp], error);
}

/* ---- tensors --------------------------------------------------------------------------------- */

static enum fb_status reals(struct golden *g, const char *prefix, const char *name, int64_t count,
                            const double **values, struct fb_error *error)
{
    char full[FB_GRAPH_NAME_MAX + 16];
    double *found = NULL;
    const struct fb_safetensors_tensor *tensor = NULL;
    snprintf(full, sizeof full, "%s%s", prefix, name);
    const enum fb_status status =
        fb_safetensors_read_f64(&g->file, full, &g->arena, &found, &tensor, error);
    if (status == FB_OK && tensor->count != count)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor '%s' has %" PRId64 " values; its model has %" PRId64,
                            g->file.path, full, tensor->count, count);
    *values = found;
    return status;
}

static enum fb_status integers(struct golden *g, const char *name, int64_t count, int64_t least,
                               int64_t most, const int64_t **values, struct fb_error *error)
{
    const struct fb_safetensors_tensor *t = fb_safetensors_find(&g->file, name);
    if (!t || t->type != FB_ST_I64 || t->count != count)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: tensor '%s' is absent, or not %" PRId64 " numbers of 64 bits",
                            g->file.path, name, count);
    int64_t *copy = fb_arena_alloc(&g->arena, (size_t)count, sizeof *copy, error);
    if (!copy)
        return FB_ERROR_MEMORY;
    memcpy(copy, t->data, t->bytes);
    for (int64_t i = 0; i < count; i++)
        if (copy[i] < least || copy[i] > most)
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s: tensor '%s' holds %" PRId64 ", not within %" PRId64
                                " to %" PRId64,
                                g->file.path, name, copy[i], least, most);
    *values = copy;
    return FB_OK;
}

static enum fb_status read_batches(struct golden *g, struct fb_error *error)
{
    const int64_t rows = g->batch * g->tokens, batches = STEPS * g->batch;
    enum fb_status status = reals(g, "losses", "", STEPS, &g->losses, error);
    if (status == FB_OK && !g->series)
        status =
            integers(g, "tokens", batches * (g->tokens + 1), 0, g->classes - 1, &g->ids, error);
    if (status == FB_OK && g->series)
        status = reals(g, "x", "", STEPS * rows * g->features, &g->x, error);
    if (status == FB_OK && g->series)
        status = integers(g, "y", batches, 0, g->classes - 1, &g->y, error);
    if (status == FB_OK && g->series)
        status = integers(g, "lengths", batches, 1, g->tokens, &g->lengths, error);
    if (status != FB_OK)
        return status;
    g->row_mask = fb_arena_alloc(&g->arena, (size_t)rows, sizeof *g->row_mask, error);
    g->batch_ids = fb_arena_alloc(&g->arena, (size_t)rows, sizeof *g->batch_ids, error);
    g->targets = fb_arena_alloc(&g->arena, (size_t)rows, sizeof *g->targets, error);
    return g->row_mask && g->batch_ids && g->targets ? FB_OK : FB_ERROR_MEMORY;
}

static enum fb_status build(struct golden *g, int threads, struct fb_error *error)
{
    int logits;
    fb_graph_init(&g->graph, &g->arena, g->batch, threads, error);
    if (g->series) {
        const struct fb_model_series m = {.batch = g->batch,
                                          .tokens = g->tokens,
                                          .features = g->features,
                                          .classes = g->classes,
                                          .d_model = g->d_model,
                                          .heads = g->heads,
                                          .d_ff = g->d_ff,
                                          .layers = g->layers,
                                          .attention = &g->attention};
        logits = fb_model_series_build(&g->graph, &m, &g->input);
    } else {
        const struct fb_model_language m = {.batch = g->batch,
                                            .tokens = g->tokens,
                                            .vocabulary = g->classes,
                                            .d_model = g->d_model,
                                            .heads = g->heads,
                                            .layers = g->layers,
                                            .attention = &g->attention};
        logits = fb_model_language_build(&g->graph, &m);
    }
    enum fb_status status = fb_graph_finish(&g->graph, logits);
    if (status == FB_OK)
        status = fb_graph_run_init(&g->run, &g->graph, error);
    g->run.row_mask = g->row_mask;
    g->run.ids = g->batch_ids;
    return status;
}

static enum fb_status read_params(struct golden *g, struct fb_error *error)
{
    const size_t floats = (size_t)g->graph.trained_floats;
    g->m = fb_arena_alloc(&g->arena, floats, sizeof(float), error);
    g->v = fb_arena_alloc(&g->arena, floats, sizeof(float), error);
    g->start = fb_arena_alloc(&g->arena, floats, sizeof(float), error);
    g->decay = fb_arena_alloc(&g->arena, floats, 1, error);
    if (!g->m || !g->v || !g->start || !g->decay)
        return FB_ERROR_MEMORY;
    for (int i = 0; i < g->graph.param_count; i++) {
        const struct fb_graph_param *p = &g->graph.params[i];
        const double *values = NULL;
        const enum fb_status status = reals(g, "init.", p->name, p->count, &values, error);
        if (status != FB_OK)
            return status;
        assert(values); /* reals gives them with FB_OK */
        for (int64_t c = 0; c < p->count; c++)
            g->run.params[p->offset + c] = (float)values[c];
        memset(g->decay + p->offset, p->decay, (size_t)p->count);
    }
    memcpy(g->start, g->run.params, floats * sizeof(float));
    g->run.training = true;
    return FB_OK;
}

/* ---- judging --------------------------------------------------------------------------------- */

/* The largest deviation relative to the largest reference, at least `floor`. NaN counts as one. */
static double deviation(const float *values, const double *reference, int64_t count, double floor)
{
    double most = floor, worst = 0.0;
    for (int64_t i = 0; i < count; i++) {
        const double apart = fabs((double)values[i] - reference[i]);
        most = fmax(most, fabs(reference[i]));
        worst = apart <= worst ? worst : isnan(apart) ? (double)INFINITY : apart;
    }
    return worst / most;
}

static void take_worst(double value, const char *name, double *worst, char *worst_name)
{
    if (value <= *worst)
        return;
    *worst = isnan(value) ? (double)INFINITY : value;
    snprintf(worst_name, FB_GOLDEN_NAME_SIZE, "%s", name);
}

static enum fb_status judge_gradients(struct golden *g, struct fb_golden_training *result,
                                      struct fb_error *error)
{
    double largest = 0.0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < g->graph.param_count; i++) {
            const struct fb_graph_param *p = &g->graph.params[i];
            const double *reference = NULL;
            const enum fb_status status = reals(g, "grad.", p->name, p->count, &reference, error);
            if (status != FB_OK)
                return status;
            assert(reference);
            for (int64_t c = 0; pass == 0 && c < p->count; c++)
                largest = fmax(largest, fabs(reference[c]));
            if (pass == 1)
                take_worst(deviation(g->run.param_gradients + p->offset, reference, p->count,
                                     1e-2 * largest),
                           p->name, &result->gradient, result->gradient_name);
        }
    return FB_OK;
}

static enum fb_status judge_weights(struct golden *g, struct fb_golden_training *result,
                                    struct fb_error *error)
{
    for (int i = 0; i < g->graph.param_count; i++) {
        const struct fb_graph_param *p = &g->graph.params[i];
        const double *reference = NULL;
        double apart = 0.0, gone = 1e-30;
        const enum fb_status status = reals(g, "final.", p->name, p->count, &reference, error);
        if (status != FB_OK)
            return status;
        /* its gradient is little but rounding, which Adam makes steps of full size of */
        if (strstr(p->name, "key_projection.bias"))
            continue;
        assert(reference);
        for (int64_t c = 0; c < p->count; c++) {
            const double d = (double)g->run.params[p->offset + c] - reference[c];
            const double way = reference[c] - (double)g->start[p->offset + c];
            apart += d * d;
            gone += way * way;
        }
        take_worst(sqrt(apart / gone), p->name, &result->weights, result->weights_name);
    }
    return FB_OK;
}

/* ---- the ten steps --------------------------------------------------------------------------- */

static void load_batch(struct golden *g, int64_t step)
{
    const int64_t rows = g->batch * g->tokens;
    for (int64_t r = 0; r < rows; r++) {
        const int64_t b = step * g->batch + r / g->tokens, t = r % g->tokens;
        if (g->series) {
            g->row_mask[r] = t < g->lengths[b] ? 1.0F : 0.0F;
            continue;
        }
        g->batch_ids[r] = (int32_t)g->ids[b * (g->tokens + 1) + t];
        g->targets[r] = (int32_t)g->ids[b * (g->tokens + 1) + t + 1];
    }
    for (int64_t b = 0; g->series && b < g->batch; b++)
        g->targets[b] = (int32_t)g->y[step * g->batch + b];
    float *values = g->series ? fb_graph_run_values(&g->run, g->input) : NULL;
    for (int64_t i = 0; g->series && i < rows * g->features; i++)
        values[i] = (float)g->x[step * rows * g->features + i];
}

static enum fb_status train_step(struct golden *g, int64_t step, int threads,
                                 struct fb_golden_training *result, struct fb_error *error)
{
    const int64_t rows = g->graph.tensors[g->graph.logits].rows;
    const float *logits = fb_graph_run_values(&g->run, g->graph.logits);
    const double *reference = NULL;
    char nobody[FB_GOLDEN_NAME_SIZE];
    enum fb_status status = fb_graph_run_forward(&g->run, error);
    if (status == FB_OK && step == 0)
        status = reals(g, "logits0", "", rows * g->classes, &reference, error);
    if (status != FB_OK)
        return status;
    if (reference)
        result->logits = deviation(logits, reference, rows * g->classes, 1e-3);
    const double loss = fb_nn_cross_entropy(fb_graph_run_gradient(&g->run, g->graph.logits), logits,
                                            g->targets, rows, g->classes);
    take_worst(fabs(loss - g->losses[step]) / fabs(g->losses[step]), "", &result->loss, nobody);
    status = fb_graph_run_backward(&g->run, error);
    if (status == FB_OK && step == 0)
        status = judge_gradients(g, result, error);
    if (status != FB_OK)
        return status;
    (void)fb_nn_clip_norm(g->run.param_gradients, g->graph.trained_floats, g->clip);
    fb_nn_optimiser_step(&g->optimiser, g->run.params, g->m, g->v, g->run.param_gradients, g->decay,
                         g->graph.trained_floats, step + 1, g->lr, threads);
    return FB_OK;
}

static enum fb_status check(struct golden *g, const struct fb_attention *attention, int threads,
                            struct fb_golden_training *result, struct fb_error *error)
{
    enum fb_status status = read_model(g, error);
    if (status == FB_OK)
        status = read_optimiser(g, error);
    if (status == FB_OK)
        status = read_attention(g, attention, error);
    if (status == FB_OK)
        status = read_batches(g, error);
    if (status == FB_OK)
        status = build(g, threads, error);
    if (status == FB_OK)
        status = read_params(g, error);
    for (int64_t step = 0; status == FB_OK && step < STEPS; step++) {
        load_batch(g, step);
        status = train_step(g, step, threads, result, error);
    }
    if (status == FB_OK)
        status = judge_weights(g, result, error);
    result->passed = status == FB_OK && result->loss <= FB_GOLDEN_LOSS_BUDGET &&
                     result->logits <= FB_GOLDEN_LOGITS_BUDGET &&
                     result->gradient <= FB_GOLDEN_GRADIENT_BUDGET &&
                     result->weights <= FB_GOLDEN_WEIGHTS_BUDGET;
    return status;
}

enum fb_status fb_golden_training_check(const char *path, const struct fb_attention *attention,
                                        int threads, struct fb_golden_training *result,
                                        struct fb_error *error)
{
    struct golden g;
    memset(&g, 0, sizeof g);
    *result = (struct fb_golden_training){0};
    enum fb_status status = fb_safetensors_open(&g.file, path, error);
    if (status != FB_OK)
        return status;
    fb_arena_init(&g.arena, 0);
    status = check(&g, attention, threads, result, error);
    fb_arena_free(&g.arena);
    fb_safetensors_close(&g.file);
    return status;
}
