/* Small models of every family on a processor or a GPU, for the tests of training. */
#ifndef TRAINING_SUBJECT_H
#define TRAINING_SUBJECT_H

#include "cpu_features.h"
#include "cuda_device.h"
#include "models.h"
#include "nn_cuda.h"
#include "nn_loss.h"
#include "random.h"
#include "registry.h"
#include "trainer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { BATCH = 4, TOKENS = 37, FEATURES = 5, CLASSES = 3, WORDS = 9, ROWS = 2 * BATCH * TOKENS };

enum family { SERIES, LANGUAGE, ENCODER_CLS, ENCODER_MEAN, ENCODER_PAIRS, FAMILIES };

static const char *const family_names[FAMILIES] = {"series", "language", "encoder, CLS",
                                                   "encoder, mean", "encoder, pairs"};

struct subject {
    struct fb_arena arena;
    struct fb_graph graph;
    struct fb_graph_attention attention;
    struct fb_trainer trainer;
    int32_t ids[ROWS], targets[ROWS];
    float mask[ROWS];
    int64_t lengths[2 * BATCH]; /* of sequences, where attention masks padding */
    int64_t rows, classes;
    int input;
};

static struct fb_error error;
static bool masks_padding; /* of the subjects made from now on */

static void check(enum fb_status status)
{
    if (status != FB_OK)
        fail_msg("%s", error.text);
}

static bool set_attention(struct fb_graph_attention *a, const char *name, enum fb_backend backend,
                          bool causal)
{
    const struct fb_mechanism *mechanism = fb_mechanism_find(name);
    assert_non_null(mechanism);
    *a = (struct fb_graph_attention){
        .causal = causal, .mask_padding = masks_padding, .constants_seed = 3};
    a->attention = fb_attention_find(mechanism, NULL, backend,
                                     backend == FB_CPU ? fb_cpu_best_isa() : FB_ISA_ANY);
    for (int i = 0; i < mechanism->param_count; i++)
        a->params[i] = mechanism->params[i].default_value;
    const int features = fb_param_index(mechanism, "features");
    if (features >= 0)
        a->params[features] = 16;
    return a->attention != NULL;
}

static int build(struct subject *s, enum family family, int64_t layers, double dropout)
{
    const struct fb_model_series series = {BATCH, TOKENS, FEATURES, CLASSES, 32,
                                           2,     48,     layers,   dropout, &s->attention};
    const struct fb_model_language language = {BATCH, TOKENS, WORDS,   32,
                                               2,     layers, dropout, &s->attention};
    struct fb_model_encoder encoder = {.batch = BATCH,
                                       .tokens = TOKENS,
                                       .vocabulary = WORDS,
                                       .classes = CLASSES,
                                       .d_model = 32,
                                       .qkv_dim = 16,
                                       .d_ff = 40,
                                       .heads = 2,
                                       .layers = layers,
                                       .dropout = dropout,
                                       .attention = &s->attention};
    encoder.pooling = family == ENCODER_CLS    ? FB_POOL_CLS
                      : family == ENCODER_MEAN ? FB_POOL_MEAN
                                               : FB_POOL_FIRST;
    encoder.pairs = family == ENCODER_PAIRS;
    encoder.learned_positions = family == ENCODER_MEAN;
    s->input = -1;
    s->rows = family == LANGUAGE ? BATCH * TOKENS : BATCH;
    s->classes = family == LANGUAGE ? WORDS : CLASSES;
    if (family == SERIES)
        return fb_model_series_build(&s->graph, &series, &s->input);
    return family == LANGUAGE ? fb_model_language_build(&s->graph, &language)
                              : fb_model_encoder_build(&s->graph, &encoder);
}

static void draw_batch(struct subject *s, uint64_t seed)
{
    struct fb_random random;
    fb_random_init(&random, seed, 0);
    for (int i = 0; i < ROWS; i++) {
        s->ids[i] = (int32_t)fb_random_below(&random, WORDS);
        s->targets[i] = (int32_t)fb_random_below(&random, (uint64_t)s->classes);
        s->mask[i] = i % TOKENS < 25 + i / TOKENS ? 1.0F : 0.0F;
    }
    s->targets[s->rows - 1] = FB_NN_IGNORED;
    for (int i = 0; i < 2 * BATCH; i++)
        s->lengths[i] = 1 + (int64_t)fb_random_below(&random, TOKENS);
    if (s->input >= 0)
        fb_random_fill_normal_f32(fb_graph_run_values(&s->trainer.run, s->input),
                                  BATCH * TOKENS * FEATURES, 1.0F, seed, 1, 1);
}

static void destroy(struct subject *s)
{
    fb_trainer_release(&s->trainer);
    fb_arena_free(&s->arena);
    free(s);
}

/* NULL: the mechanism has no gradients on this backend. layers 0: a model without attention. */
static struct subject *made_in(enum fb_nn_precision precision, enum family family,
                               const char *mechanism, int64_t layers, enum fb_backend backend,
                               double dropout)
{
    struct subject *s = calloc(1, sizeof *s);
    assert_non_null(s);
    fb_arena_init(&s->arena, 0);
    fb_graph_init(&s->graph, &s->arena, BATCH, 1, &error);
    s->graph.backend = backend;
    s->graph.dtype = fb_nn_precision_dtype(precision);
    enum fb_status status = FB_ERROR_UNSUPPORTED;
    if (set_attention(&s->attention, mechanism, backend, family == LANGUAGE) || layers == 0)
        status = fb_graph_finish(&s->graph, build(s, family, layers, dropout));
    if (status == FB_ERROR_UNSUPPORTED) {
        fb_arena_free(&s->arena);
        free(s);
        return NULL;
    }
    check(status);
    check(fb_trainer_init(&s->trainer, &s->graph, 31, &error));
    s->trainer.optimiser = (struct fb_nn_optimiser){FB_NN_ADAM, 0.9, 0.98, 1e-8, 0.01};
    s->trainer.schedule = (struct fb_nn_schedule){FB_NN_CONSTANT, 1e-3, 0.0, 0, 0};
    s->trainer.clip_norm = 0.5;
    s->trainer.run.ids = s->ids;
    s->trainer.run.row_mask = s->mask;
    s->trainer.run.lengths = s->lengths;
    s->trainer.targets = s->targets;
    if (backend == FB_CUDA)
        check(fb_trainer_use_device(&s->trainer, precision, &error));
    draw_batch(s, 11);
    return s;
}

static struct subject *made(enum family family, const char *mechanism, int64_t layers,
                            enum fb_backend backend, double dropout)
{
    return made_in(FB_NN_F32, family, mechanism, layers, backend, dropout);
}

static double distance(const float *a, const float *b, int64_t count)
{
    double difference = 0.0, size = 0.0;
    for (int64_t i = 0; i < count; i++) {
        const double d = (double)a[i] - (double)b[i];
        difference += d * d;
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(difference) / (sqrt(size) + 1e-30);
}

static double loss_and_gradient(struct subject *s)
{
    struct fb_graph_run *run = &s->trainer.run;
    run->training = true;
    run->dropout_seed = 21;
    check(fb_graph_run_forward(run, &error));
    const double loss = fb_nn_cross_entropy(fb_graph_run_gradient(run, s->graph.logits),
                                            fb_graph_run_values(run, s->graph.logits), s->targets,
                                            s->rows, s->classes);
    check(fb_graph_run_backward(run, &error));
    return loss;
}

/* The largest distance of a parameter's gradient, and whose it is. Parameters whose gradient is a
 * rounding error of the others' (a key's bias) are left out: those below `share` of the largest. */
static double gradient_distance(const struct subject *here, const struct subject *there,
                                double share, const char **whose)
{
    const float *a = there->trainer.run.param_gradients, *b = here->trainer.run.param_gradients;
    double largest = 0.0, most = 0.0;
    for (int64_t i = 0; i < here->graph.trained_floats; i++)
        largest = fmax(largest, fabs((double)b[i]));
    for (int i = 0; i < here->graph.param_count; i++) {
        const struct fb_graph_param *p = &here->graph.params[i];
        if (p->offset >= here->graph.trained_floats)
            continue;
        double size = 0.0;
        for (int64_t c = 0; c < p->count; c++)
            size = fmax(size, fabs((double)b[p->offset + c]));
        const double d = distance(a + p->offset, b + p->offset, p->count);
        if (size > share * largest && !(d <= most)) {
            most = d;
            *whose = p->name;
        }
    }
    return most;
}

static void need_device(void)
{
    if (!fb_cuda_is_present())
        skip();
}

static double train(struct subject *s, int64_t steps)
{
    double loss = 0.0;
    for (int64_t i = 0; i < steps; i++) {
        draw_batch(s, 100 + (uint64_t)s->trainer.step);
        check(fb_trainer_step(&s->trainer, &loss, &error));
    }
    return loss;
}

static void path_of(char *path, size_t size)
{
    snprintf(path, size, "/tmp/fb-training-cuda-%d.safetensors", (int)getpid());
}

#endif
