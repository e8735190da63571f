/*
 * The last block of an encoder computes only the row that is pooled: the same logits and gradients
 * as a model that computes every row, for every mechanism.
 */
#include "cpu_features.h"
#include "graph_run.h"
#include "model_parts.h"
#include "models.h"
#include "nn_loss.h"
#include "random.h"
#include "registry.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 3, TOKENS = 21, WORDS = 9, CLASSES = 4, WIDTH = 16, HEADS = 2, FF = 20 };

static const struct fb_dense_options projection = {FB_DENSE_XAVIER, false, true, 0.0, 2};
static const struct fb_dense_options mlp = {FB_DENSE_XAVIER, true, true, 0.0, 2};
static const struct fb_dense_options head = {FB_DENSE_LECUN, true, true, 0.0, 2};

static struct fb_error error;

static void check(enum fb_status status)
{
    if (status != FB_OK)
        fail_msg("%s", error.text);
}

/* One block, every row to the end: parameters in the order of the model's. */
static int build_whole(struct fb_graph *g, const struct fb_graph_attention *a)
{
    const int64_t words[2] = {WORDS, WIDTH}, width = WIDTH, places[2] = {TOKENS + 1, WIDTH};
    const struct fb_graph_init normal = {FB_INIT_NORMAL, 1.0}, zero = {FB_INIT_ZERO, 0.0};
    const struct fb_graph_init sinusoid = {FB_INIT_SINUSOID, 0.02};
    const struct fb_attention_block attention = {a, HEADS, TOKENS + 1, WIDTH, projection, false};
    const int embed = fb_graph_param(g, normal, true, 2, words, "embed");
    const int cls = fb_graph_param(g, zero, true, 1, &width, "cls");
    const int positions = fb_graph_param(g, sinusoid, false, 2, places, "positions");
    int x = fb_graph_embedding(g, embed, cls, positions, BATCH, TOKENS + 1, 0.0);
    int y = fb_model_attention(g, fb_model_norm(g, x, 1e-6, true, "1"), &attention, "attention");
    x = fb_graph_add(g, x, y, 0.0);
    y = fb_model_dense(g, fb_model_norm(g, x, 1e-6, true, "2"), FF, &mlp, "fc1");
    y = fb_model_dense(g, fb_graph_activation(g, y, FB_NN_GELU_TANH, 0.0), WIDTH, &mlp, "fc2");
    x = fb_model_norm(g, fb_graph_add(g, x, y, 0.0), 1e-6, true, "3");
    x = fb_graph_pool_first(g, x, TOKENS + 1);
    x = fb_graph_activation(g, fb_model_dense(g, x, FF, &head, "h0"), FB_NN_RELU, 0.0);
    return fb_model_dense(g, x, CLASSES, &head, "h1");
}

static int build_model(struct fb_graph *g, const struct fb_graph_attention *a)
{
    const struct fb_model_encoder m = {.batch = BATCH,
                                       .tokens = TOKENS,
                                       .vocabulary = WORDS,
                                       .classes = CLASSES,
                                       .d_model = WIDTH,
                                       .qkv_dim = WIDTH,
                                       .d_ff = FF,
                                       .heads = HEADS,
                                       .layers = 1,
                                       .pooling = FB_POOL_CLS,
                                       .attention = a};
    return fb_model_encoder_build(g, &m);
}

struct side {
    struct fb_arena arena;
    struct fb_graph graph;
    struct fb_graph_run run;
    int32_t ids[BATCH * TOKENS];
};

static void run_side(struct side *s, const struct fb_graph_attention *a, bool whole)
{
    static const int32_t targets[BATCH] = {2, 0, 3};
    struct fb_random random;
    fb_arena_init(&s->arena, 0);
    fb_graph_init(&s->graph, &s->arena, BATCH, 2, &error);
    check(
        fb_graph_finish(&s->graph, whole ? build_whole(&s->graph, a) : build_model(&s->graph, a)));
    check(fb_graph_run_init(&s->run, &s->graph, &error));
    fb_graph_draw_params(&s->graph, s->run.params, 7);
    fb_random_init(&random, 11, 0);
    for (int i = 0; i < BATCH * TOKENS; i++)
        s->ids[i] = (int32_t)fb_random_below(&random, WORDS);
    s->run.ids = s->ids;
    s->run.training = true;
    check(fb_graph_run_forward(&s->run, &error));
    (void)fb_nn_cross_entropy(fb_graph_run_gradient(&s->run, s->graph.logits),
                              fb_graph_run_values(&s->run, s->graph.logits), targets, BATCH,
                              CLASSES);
    check(fb_graph_run_backward(&s->run, &error));
}

static void assert_near(const float *a, const float *b, int64_t count, const char *what)
{
    double largest = 1e-6;
    for (int64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs((double)b[i]));
    for (int64_t i = 0; i < count; i++)
        if (fabs((double)a[i] - (double)b[i]) > 2e-5 * largest)
            fail_msg("%s: %.9g instead of %.9g", what, (double)a[i], (double)b[i]);
}

static void check_mechanism(const struct fb_mechanism *mechanism)
{
    struct fb_graph_attention a = {.constants_seed = 3};
    struct side *model = calloc(1, sizeof *model), *whole = calloc(1, sizeof *whole);
    assert_non_null(model);
    assert_non_null(whole);
    a.attention = fb_attention_find(mechanism, NULL, FB_CPU, fb_cpu_best_isa());
    for (int i = 0; i < mechanism->param_count; i++)
        a.params[i] = mechanism->params[i].default_value;
    if (fb_param_index(mechanism, "window") >= 0)
        a.params[fb_param_index(mechanism, "window")] = 5;
    run_side(model, &a, false);
    run_side(whole, &a, true);
    assert_near(fb_graph_run_values(&model->run, model->graph.logits),
                fb_graph_run_values(&whole->run, whole->graph.logits), (int64_t)BATCH * CLASSES,
                mechanism->name);
    assert_int_equal(model->graph.param_count, whole->graph.param_count);
    for (int i = 0; i < whole->graph.param_count; i++) {
        const struct fb_graph_param *p = &model->graph.params[i], *w = &whole->graph.params[i];
        assert_int_equal(p->count, w->count);
        if (w->offset < whole->graph.trained_floats)
            assert_near(model->run.param_gradients + p->offset,
                        whole->run.param_gradients + w->offset, w->count, p->name);
    }
    assert_true(model->graph.activation_floats < whole->graph.activation_floats);
    fb_arena_free(&model->arena);
    fb_arena_free(&whole->arena);
    free(model);
    free(whole);
}

static void test_rows_that_nothing_reads_are_left_out(void **state)
{
    (void)state;
    for (size_t i = 0; i < fb_mechanism_count(); i++)
        check_mechanism(fb_mechanism_at(i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_that_nothing_reads_are_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
