/*
 * Whole models with every mechanism of the registry: gradients against central differences, one
 * batch learnt by heart, the official number of parameters, refusals in words.
 */
#include "cpu_features.h"
#include "graph_run.h"
#include "models.h"
#include "nn_loss.h"
#include "nn_optimiser.h"
#include "random.h"
#include "registry.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 4, TOKENS = 12, FEATURES = 3, CLASSES = 3, WORDS = 9, ROWS = 2 * BATCH * TOKENS };

enum family { SERIES, LANGUAGE, ENCODER_CLS, ENCODER_MEAN, ENCODER_PAIRS, FAMILIES };

struct subject {
    struct fb_arena arena;
    struct fb_graph graph;
    struct fb_graph_run run;
    struct fb_graph_attention attention;
    int32_t ids[ROWS], targets[ROWS];
    float mask[ROWS];
    int64_t rows, classes;
};

static struct fb_error error;

static void check(enum fb_status status)
{
    if (status != FB_OK)
        fail_msg("%s", error.text);
}

static struct fb_graph_attention attention_of(const char *name, bool causal)
{
    struct fb_graph_attention a = {.causal = causal, .constants_seed = 3};
    const struct fb_mechanism *mechanism = fb_mechanism_find(name);
    assert_non_null(mechanism);
    a.attention = fb_attention_find(mechanism, NULL, FB_CPU, fb_cpu_best_isa());
    for (int i = 0; i < mechanism->param_count; i++)
        a.params[i] = mechanism->params[i].default_value;
    const int features = fb_param_index(mechanism, "features");
    if (features >= 0)
        a.params[features] = 16;
    const int window = fb_param_index(mechanism, "window");
    if (window >= 0)
        a.params[window] = 3;
    return a;
}

static int build(struct subject *s, enum family family, double dropout, int *input)
{
    const struct fb_model_series series = {BATCH, TOKENS, FEATURES, CLASSES, 8,
                                           2,     12,     2,        dropout, &s->attention};
    const struct fb_model_language language = {BATCH, TOKENS, WORDS,   8,
                                               2,     2,      dropout, &s->attention};
    struct fb_model_encoder encoder = {.batch = BATCH,
                                       .tokens = TOKENS,
                                       .vocabulary = WORDS,
                                       .classes = CLASSES,
                                       .d_model = 8,
                                       .qkv_dim = 4,
                                       .d_ff = 10,
                                       .heads = 2,
                                       .layers = 2,
                                       .dropout = dropout,
                                       .attention = &s->attention};
    encoder.pooling = family == ENCODER_CLS    ? FB_POOL_CLS
                      : family == ENCODER_MEAN ? FB_POOL_MEAN
                                               : FB_POOL_FIRST;
    encoder.pairs = family == ENCODER_PAIRS;
    encoder.learned_positions = family == ENCODER_MEAN;
    *input = -1;
    s->rows = family == LANGUAGE ? BATCH * TOKENS : BATCH;
    s->classes = family == LANGUAGE ? WORDS : CLASSES;
    if (family == SERIES)
        return fb_model_series_build(&s->graph, &series, input);
    return family == LANGUAGE ? fb_model_language_build(&s->graph, &language)
                              : fb_model_encoder_build(&s->graph, &encoder);
}

static struct subject *made(enum family family, const char *mechanism, double dropout)
{
    struct subject *s = calloc(1, sizeof *s);
    struct fb_random random;
    int input;
    assert_non_null(s);
    fb_arena_init(&s->arena, 0);
    s->attention = attention_of(mechanism, family == LANGUAGE);
    fb_graph_init(&s->graph, &s->arena, BATCH, 1, &error);
    check(fb_graph_finish(&s->graph, build(s, family, dropout, &input)));
    check(fb_graph_run_init(&s->run, &s->graph, &error));
    fb_graph_draw_params(&s->graph, s->run.params, 7);
    fb_random_init(&random, 11, 0);
    for (int i = 0; i < ROWS; i++) {
        s->ids[i] = (int32_t)fb_random_below(&random, WORDS);
        s->targets[i] = (int32_t)fb_random_below(&random, (uint64_t)s->classes);
        s->mask[i] = i % TOKENS < 5 + i / TOKENS ? 1.0F : 0.0F;
    }
    if (input >= 0)
        fb_random_fill_normal_f32(fb_graph_run_values(&s->run, input), BATCH * TOKENS * FEATURES,
                                  1.0F, 5, 0, 1);
    s->run.ids = s->ids;
    s->run.row_mask = s->mask;
    s->run.training = true;
    s->run.dropout_seed = 21;
    return s;
}

static void destroy(struct subject *s)
{
    fb_arena_free(&s->arena);
    free(s);
}

static double loss_of(struct subject *s, bool gradient)
{
    check(fb_graph_run_forward(&s->run, &error));
    return fb_nn_cross_entropy(gradient ? fb_graph_run_gradient(&s->run, s->graph.logits) : NULL,
                               fb_graph_run_values(&s->run, s->graph.logits), s->targets, s->rows,
                               s->classes);
}

/* The slope of the loss along a parameter's own gradient is that gradient's norm. Moving a whole
 * parameter averages over the kinks (relu, the clamp) that single weights meet. f32 losses leave
 * 1e-7 / step; parameters whose gradient is below a thousandth of the largest are too quiet. */
static void check_param(struct subject *s, const struct fb_graph_param *p, double norm,
                        double largest, const char *what)
{
    const double step = 4e-3;
    float *values = s->run.params + p->offset;
    const float *gradient = s->run.param_gradients + p->offset;
    float *kept = malloc((size_t)p->count * sizeof *kept);
    double loss[2];
    assert_non_null(kept);
    memcpy(kept, values, (size_t)p->count * sizeof *kept);
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < p->count; i++)
            values[i] = kept[i] + (float)((side == 0 ? step : -step) * (double)gradient[i] / norm);
        loss[side] = loss_of(s, false);
    }
    memcpy(values, kept, (size_t)p->count * sizeof *kept);
    free(kept);
    const double slope = (loss[0] - loss[1]) / (2 * step);
    if (fabs(slope - norm) > 0.03 * norm + 1e-3 * largest)
        fail_msg("%s %s: gradient's norm %.5g, difference %.5g", what, p->name, norm, slope);
}

static double norm_of(const struct subject *s, const struct fb_graph_param *p)
{
    double squares = 0.0;
    for (int64_t i = 0; i < p->count; i++) {
        const double g = (double)s->run.param_gradients[p->offset + i];
        squares += g * g;
    }
    return sqrt(squares);
}

static void check_family(enum family family, const char *mechanism, double dropout)
{
    struct subject *s = made(family, mechanism, dropout);
    double largest = 0.0;
    int checked = 0;
    (void)loss_of(s, true);
    check(fb_graph_run_backward(&s->run, &error));
    for (int i = 0; i < s->graph.param_count; i++)
        if (s->graph.params[i].offset < s->graph.trained_floats)
            largest = fmax(largest, norm_of(s, &s->graph.params[i]));
    for (int i = 0; i < s->graph.param_count; i++) {
        const struct fb_graph_param *p = &s->graph.params[i];
        const double norm = p->offset < s->graph.trained_floats ? norm_of(s, p) : 0.0;
        if (norm < 1e-3 * largest)
            continue;
        check_param(s, p, norm, largest, mechanism);
        checked++;
    }
    assert_true(checked > s->graph.param_count / 2);
    destroy(s);
}

static void test_gradients_match_differences_for_every_mechanism(void **state)
{
    (void)state;
    for (size_t i = 0; i < fb_mechanism_count(); i++)
        for (int family = 0; family < FAMILIES; family++)
            check_family((enum family)family, fb_mechanism_at(i)->name, 0.0);
}

static void test_gradients_match_differences_with_dropout(void **state)
{
    (void)state;
    for (int family = 0; family < FAMILIES; family++)
        check_family((enum family)family, "flow", 0.3);
}

static void test_a_batch_is_learnt_by_heart(void **state)
{
    (void)state;
    const struct fb_nn_optimiser adam = {FB_NN_ADAM, 0.9, 0.999, 1e-8, 0.0};
    for (size_t i = 0; i < fb_mechanism_count(); i++) {
        struct subject *s = made(SERIES, fb_mechanism_at(i)->name, 0.0);
        const size_t floats = (size_t)s->graph.trained_floats;
        float *m = fb_arena_alloc(&s->arena, floats, sizeof *m, &error);
        float *v = fb_arena_alloc(&s->arena, floats, sizeof *v, &error);
        const double first = loss_of(s, false);
        for (int64_t t = 1; t <= 150; t++) {
            (void)loss_of(s, true);
            check(fb_graph_run_backward(&s->run, &error));
            fb_nn_optimiser_step(&adam, s->run.params, m, v, s->run.param_gradients, NULL,
                                 s->graph.trained_floats, t, 1e-2, 2);
        }
        const double last = loss_of(s, false);
        if (!(first > 0.5 && last < 0.02))
            fail_msg("%s: loss from %.3g to %.3g", fb_mechanism_at(i)->name, first, last);
        destroy(s);
    }
}

/* What the released code has: ListOps 2,646,538; Retrieval 1,087,618; Image 248,458; the adder's
 * 85,680 + 480. */
static int64_t parameters(const struct fb_graph *g)
{
    int64_t count = 0;
    for (int i = 0; i < g->param_count; i++)
        count += g->params[i].init.kind == FB_INIT_SINUSOID ? 0 : g->params[i].count;
    return count;
}

static void assert_parameters(const struct fb_model_encoder *encoder,
                              const struct fb_model_language *language, int64_t expected)
{
    struct fb_arena arena;
    struct fb_graph graph;
    fb_arena_init(&arena, 0);
    fb_graph_init(&graph, &arena, 1, 1, &error);
    check(fb_graph_finish(&graph, encoder ? fb_model_encoder_build(&graph, encoder)
                                          : fb_model_language_build(&graph, language)));
    assert_int_equal(parameters(&graph), expected);
    fb_arena_free(&arena);
}

static void test_models_have_the_official_number_of_parameters(void **state)
{
    (void)state;
    const struct fb_graph_attention normal = attention_of("flow", false);
    const struct fb_graph_attention causal = attention_of("flow", true);
    struct fb_model_encoder m = {1, 2000, 17,          10,    512,   512, 1024,
                                 2, 1,    FB_POOL_CLS, false, false, 0.1, &normal};
    assert_parameters(&m, NULL, 2646538);
    m = (struct fb_model_encoder){1, 4000, 257,           2,     128,  128, 512,
                                  4, 4,    FB_POOL_FIRST, false, true, 0.1, &normal};
    assert_parameters(&m, NULL, 1087618);
    m = (struct fb_model_encoder){1, 1024, 256,         10,   128,   64,  128,
                                  4, 1,    FB_POOL_CLS, true, false, 0.3, &normal};
    assert_parameters(&m, NULL, 248458);
    const struct fb_model_language adder = {1, 6, 10, 48, 3, 3, 0.1, &causal};
    assert_parameters(NULL, &adder, 85680 + 480);
}

static void test_evaluation_drops_nothing(void **state)
{
    (void)state;
    struct subject *with = made(ENCODER_CLS, "softmax", 0.5),
                   *without = made(ENCODER_CLS, "softmax", 0.0);
    with->run.training = without->run.training = false;
    assert_true(loss_of(with, false) == loss_of(without, false));
    with->run.training = true;
    assert_true(loss_of(with, false) != loss_of(without, false));
    destroy(with);
    destroy(without);
}

static void test_what_an_attention_cannot_do_is_refused(void **state)
{
    (void)state;
    struct subject s = {.attention = attention_of("flow", true)};
    struct fb_model_language m = {BATCH, TOKENS, WORDS, 9, 2, 1, 0.0, &s.attention};
    fb_arena_init(&s.arena, 0);
    fb_graph_init(&s.graph, &s.arena, BATCH, 1, &error);
    assert_int_equal(fb_graph_finish(&s.graph, fb_model_language_build(&s.graph, &m)),
                     FB_ERROR_USAGE);
    assert_non_null(strstr(error.text, "no multiple of the number of heads"));
    m.d_model = 8;
    s.attention.params[fb_param_index(fb_mechanism_find("flow"), "competition")] = 1; /* heads */
    fb_graph_init(&s.graph, &s.arena, BATCH, 1, &error);
    assert_int_equal(fb_graph_finish(&s.graph, fb_model_language_build(&s.graph, &m)),
                     FB_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "competition over heads"));
    fb_arena_free(&s.arena);
}

/* Weights of joined layers lie side by side, whatever lies between them in the order of their
 * names; widths that leave gaps are computed one by one. */
static void test_joined_layers_are_columns_for_attention_alone(void **state)
{
    (void)state;
    enum { ROWS_IN = 6, IN = 5 };
    struct fb_arena arena;
    struct fb_graph g;
    const struct fb_graph_init start = {FB_INIT_ONE, 0.0};
    for (int64_t width = 15; width <= 16; width++) {
        const int64_t shape[2] = {width, IN};
        int w[2], b[2], out[2];
        fb_arena_init(&arena, 0);
        fb_graph_init(&g, &arena, 1, 1, &error);
        const int in = fb_graph_values(&g, ROWS_IN, IN);
        for (int i = 0; i < 2; i++) {
            w[i] = fb_graph_param(&g, start, true, 2, shape, "w%d", i);
            b[i] = fb_graph_param(&g, start, true, 1, shape, "b%d", i);
        }
        fb_graph_dense_joined(&g, in, 2, w, b, out);
        assert_int_equal(g.op_count, width == 16 ? 1 : 2);
        assert_int_equal(g.tensors[out[1]].stride, width == 16 ? 32 : width);
        const int logits =
            width == 16 ? fb_graph_scale(&g, out[0], 2.0) : fb_graph_add(&g, out[0], out[1], 0.0);
        const enum fb_status status = fb_graph_finish(&g, logits);
        if (width == 16) {
            assert_int_equal(status, FB_ERROR_USAGE);
            assert_non_null(strstr(error.text, "feed attention alone"));
            assert_int_equal(g.params[w[1]].offset, g.params[w[0]].offset + width * IN);
            assert_int_equal(g.params[b[1]].offset, g.params[b[0]].offset + width);
        } else {
            check(status);
        }
        fb_arena_free(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_joined_layers_are_columns_for_attention_alone),
        cmocka_unit_test(test_gradients_match_differences_for_every_mechanism),
        cmocka_unit_test(test_gradients_match_differences_with_dropout),
        cmocka_unit_test(test_a_batch_is_learnt_by_heart),
        cmocka_unit_test(test_models_have_the_official_number_of_parameters),
        cmocka_unit_test(test_evaluation_drops_nothing),
        cmocka_unit_test(test_what_an_attention_cannot_do_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
