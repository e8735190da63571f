/*
 * Ten optimiser steps of the official models, in f64 with dropout off (tests/golden/README.md),
 * against ours in f32: the first logits and gradients, every loss, the weights at the end.
 */
#include "cpu_features.h"
#include "graph_run.h"
#include "models.h"
#include "nn_loss.h"
#include "nn_optimiser.h"
#include "registry.h"
#include "safetensors.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { STEPS = 10, THREADS = 2 };

struct golden {
    struct fb_safetensors file;
    struct fb_arena arena;
    struct fb_graph graph;
    struct fb_graph_run run;
    struct fb_graph_attention attention;
    struct fb_nn_optimiser optimiser;
    double lr, clip;
    int input;
    float *m, *v, *start;
    unsigned char *decay;
    int32_t *targets, *ids;
    float *mask;
};

static struct fb_error error;

static void check(enum fb_status status)
{
    if (status != FB_OK)
        fail_msg("%s", error.text);
}

static const double *numbers(struct golden *g, const char *prefix, const char *name, int64_t count)
{
    char full[160];
    double *values;
    const struct fb_safetensors_tensor *tensor;
    snprintf(full, sizeof full, "%s%s", prefix, name);
    check(fb_safetensors_read_f64(&g->file, full, &g->arena, &values, &tensor, &error));
    if (tensor->count != count)
        fail_msg("%s has %" PRId64 " values, not %" PRId64, full, tensor->count, count);
    return values;
}

static int64_t integer_at(const struct golden *g, const char *name, int64_t index)
{
    const struct fb_safetensors_tensor *t = fb_safetensors_find(&g->file, name);
    int64_t value;
    assert_non_null(t);
    assert_int_equal(t->type, FB_ST_I64);
    memcpy(&value, (const char *)t->data + index * (int64_t)sizeof value, sizeof value);
    return value;
}

static int64_t size_of(const struct golden *g, const char *key)
{
    const char *text = fb_safetensors_metadata_find(&g->file, key);
    assert_non_null(text);
    return strtoll(text, NULL, 10);
}

static void open_golden(struct golden *g, const char *name, double clamp, bool causal)
{
    char path[160];
    memset(g, 0, sizeof *g);
    snprintf(path, sizeof path, "tests/golden/%s", name);
    check(fb_safetensors_open(&g->file, path, &error));
    fb_arena_init(&g->arena, 0);
    const struct fb_mechanism *flow = fb_mechanism_find("flow");
    g->attention.attention = fb_attention_find(flow, NULL, FB_CPU, fb_cpu_best_isa());
    for (int i = 0; i < flow->param_count; i++)
        g->attention.params[i] = flow->params[i].default_value;
    g->attention.params[fb_param_index(flow, "clamp")] = clamp;
    g->attention.causal = causal;
    fb_graph_init(&g->graph, &g->arena, size_of(g, "batch"), THREADS, &error);
}

static void load_params(struct golden *g)
{
    const size_t floats = (size_t)g->graph.trained_floats;
    check(fb_graph_run_init(&g->run, &g->graph, &error));
    g->m = fb_arena_alloc(&g->arena, floats, sizeof(float), &error);
    g->v = fb_arena_alloc(&g->arena, floats, sizeof(float), &error);
    g->start = fb_arena_alloc(&g->arena, floats, sizeof(float), &error);
    g->decay = fb_arena_alloc(&g->arena, floats, 1, &error);
    assert_true(g->m && g->v && g->start && g->decay);
    for (int i = 0; i < g->graph.param_count; i++) {
        const struct fb_graph_param *p = &g->graph.params[i];
        const double *values = numbers(g, "init.", p->name, p->count);
        for (int64_t c = 0; c < p->count; c++)
            g->run.params[p->offset + c] = (float)values[c];
        memset(g->decay + p->offset, p->decay, (size_t)p->count);
    }
    memcpy(g->start, g->run.params, floats * sizeof(float));
    g->run.training = true;
}

/* The largest deviation relative to the largest reference, at least `floor`. */
static double deviation(const float *values, const double *reference, int64_t count, double floor)
{
    double most = floor, worst = 0.0;
    for (int64_t i = 0; i < count; i++) {
        most = fmax(most, fabs(reference[i]));
        worst = fmax(worst, fabs((double)values[i] - reference[i]));
    }
    return worst / most;
}

static void check_gradients(struct golden *g)
{
    double largest = 0.0;
    for (int i = 0; i < g->graph.param_count; i++) {
        const struct fb_graph_param *p = &g->graph.params[i];
        const double *reference = numbers(g, "grad.", p->name, p->count);
        for (int64_t c = 0; c < p->count; c++)
            largest = fmax(largest, fabs(reference[c]));
    }
    for (int i = 0; i < g->graph.param_count; i++) {
        const struct fb_graph_param *p = &g->graph.params[i];
        const double e =
            deviation(g->run.param_gradients + p->offset, numbers(g, "grad.", p->name, p->count),
                      p->count, 1e-2 * largest);
        if (!(e < 5e-5))
            fail_msg("gradient of %s is off by %.2g", p->name, e);
    }
}

/* How far the weights ended from the reference, relative to how far they went. Adam's first steps
 * are of the size of the learning rate whatever the gradient's size, so a component whose gradient
 * is rounding goes its own way: the distance is taken over each whole parameter. */
static void check_weights(struct golden *g)
{
    for (int i = 0; i < g->graph.param_count; i++) {
        const struct fb_graph_param *p = &g->graph.params[i];
        const double *reference = numbers(g, "final.", p->name, p->count);
        double apart = 0.0, gone = 1e-30;
        for (int64_t c = 0; c < p->count; c++) {
            const double d = (double)g->run.params[p->offset + c] - reference[c];
            const double way = reference[c] - (double)g->start[p->offset + c];
            apart += d * d;
            gone += way * way;
        }
        const double e = sqrt(apart / gone);
        const bool rounding_alone = strstr(p->name, "key_projection.bias") != NULL;
        if (!(e < 2e-3) && !rounding_alone)
            fail_msg("%s ended %.2g of its way off", p->name, e);
    }
}

static void train_step(struct golden *g, int64_t step, int64_t rows, int64_t classes)
{
    check(fb_graph_run_forward(&g->run, &error));
    const float *logits = fb_graph_run_values(&g->run, g->graph.logits);
    const double loss = fb_nn_cross_entropy(fb_graph_run_gradient(&g->run, g->graph.logits), logits,
                                            g->targets, rows, classes);
    const double reference = numbers(g, "losses", "", STEPS)[step];
    if (!(fabs(loss - reference) < 2e-5 * fabs(reference)))
        fail_msg("loss %.9g of step %d, not %.9g", loss, (int)step, reference);
    if (step == 0)
        assert_true(deviation(logits, numbers(g, "logits0", "", rows * classes), rows * classes,
                              1e-3) < 1e-5);
    check(fb_graph_run_backward(&g->run, &error));
    if (step == 0)
        check_gradients(g);
    (void)fb_nn_clip_norm(g->run.param_gradients, g->graph.trained_floats, g->clip);
    fb_nn_optimiser_step(&g->optimiser, g->run.params, g->m, g->v, g->run.param_gradients, g->decay,
                         g->graph.trained_floats, step + 1, g->lr, THREADS);
}

static void close_golden(struct golden *g)
{
    fb_safetensors_close(&g->file);
    fb_arena_free(&g->arena);
}

static void test_series_model_trains_as_the_official_one(void **state)
{
    (void)state;
    struct golden g;
    open_golden(&g, "golden-training-uea.safetensors", 0.0, false);
    g.optimiser = (struct fb_nn_optimiser){FB_NN_RADAM, 0.9, 0.999, 1e-8, 0.0};
    g.lr = 1e-3;
    g.clip = 4.0;
    const struct fb_model_series m = {.batch = size_of(&g, "batch"),
                                      .tokens = size_of(&g, "length"),
                                      .features = size_of(&g, "features"),
                                      .classes = size_of(&g, "classes"),
                                      .d_model = size_of(&g, "d_model"),
                                      .heads = size_of(&g, "heads"),
                                      .d_ff = size_of(&g, "d_ff"),
                                      .layers = size_of(&g, "layers"),
                                      .attention = &g.attention};
    check(fb_graph_finish(&g.graph, fb_model_series_build(&g.graph, &m, &g.input)));
    load_params(&g);
    const int64_t rows = m.batch * m.tokens, values = rows * m.features;
    const double *x = numbers(&g, "x", "", STEPS * values);
    float mask[512];
    int32_t targets[16];
    assert_true(rows <= 512 && m.batch <= 16);
    g.run.row_mask = mask;
    g.targets = targets;
    for (int64_t step = 0; step < STEPS; step++) {
        for (int64_t i = 0; i < values; i++)
            fb_graph_run_values(&g.run, g.input)[i] = (float)x[step * values + i];
        for (int64_t r = 0; r < rows; r++)
            mask[r] = r % m.tokens < integer_at(&g, "lengths", step * m.batch + r / m.tokens);
        for (int64_t b = 0; b < m.batch; b++)
            targets[b] = (int32_t)integer_at(&g, "y", step * m.batch + b);
        train_step(&g, step, m.batch, m.classes);
    }
    check_weights(&g);
    close_golden(&g);
}

static void test_language_model_trains_as_the_official_one(void **state)
{
    (void)state;
    struct golden g;
    open_golden(&g, "golden-training-gpt.safetensors", 1.0, true);
    g.optimiser = (struct fb_nn_optimiser){FB_NN_ADAM, 0.9, 0.95, 1e-8, 0.1};
    g.lr = 5e-4;
    g.clip = 1.0;
    const struct fb_model_language m = {.batch = size_of(&g, "batch"),
                                        .tokens = size_of(&g, "length"),
                                        .vocabulary = size_of(&g, "vocab"),
                                        .d_model = size_of(&g, "d_model"),
                                        .heads = size_of(&g, "heads"),
                                        .layers = size_of(&g, "layers"),
                                        .attention = &g.attention};
    check(fb_graph_finish(&g.graph, fb_model_language_build(&g.graph, &m)));
    load_params(&g);
    const int64_t rows = m.batch * m.tokens;
    int32_t ids[512], targets[512];
    assert_true(rows <= 512);
    g.run.ids = ids;
    g.targets = targets;
    for (int64_t step = 0; step < STEPS; step++) {
        for (int64_t r = 0; r < rows; r++) {
            const int64_t at = (step * m.batch + r / m.tokens) * (m.tokens + 1) + r % m.tokens;
            ids[r] = (int32_t)integer_at(&g, "tokens", at);
            targets[r] = (int32_t)integer_at(&g, "tokens", at + 1);
        }
        train_step(&g, step, rows, m.vocabulary);
    }
    check_weights(&g);
    close_golden(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_series_model_trains_as_the_official_one),
        cmocka_unit_test(test_language_model_trains_as_the_official_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
