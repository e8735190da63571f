/* Training runs: learning, resuming bit for bit, stopping at what is not finite, checkpoints. */
#include "cpu_features.h"
#include "models.h"
#include "random.h"
#include "registry.h"
#include "safetensors.h"
#include "trainer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { BATCH = 4, TOKENS = 6, WORDS = 7, ROWS = BATCH * TOKENS };

struct subject {
    struct fb_arena arena;
    struct fb_graph graph;
    struct fb_graph_attention attention;
    struct fb_trainer trainer;
    int32_t ids[ROWS], targets[ROWS];
};

static struct fb_error error;

static void check(enum fb_status status)
{
    if (status != FB_OK)
        fail_msg("%s", error.text);
}

static struct subject *made(int64_t width)
{
    struct subject *s = calloc(1, sizeof *s);
    const struct fb_mechanism *flow = fb_mechanism_find("flow");
    assert_non_null(s);
    fb_arena_init(&s->arena, 0);
    s->attention.attention = fb_attention_find(flow, NULL, FB_CPU, fb_cpu_best_isa());
    s->attention.causal = true;
    for (int i = 0; i < flow->param_count; i++)
        s->attention.params[i] = flow->params[i].default_value;
    fb_graph_init(&s->graph, &s->arena, BATCH, 1, &error);
    const struct fb_model_language m = {BATCH, TOKENS, WORDS, width, 2, 1, 0.1, &s->attention};
    check(fb_graph_finish(&s->graph, fb_model_language_build(&s->graph, &m)));
    check(fb_trainer_init(&s->trainer, &s->graph, 31, &error));
    s->trainer.optimiser = (struct fb_nn_optimiser){FB_NN_ADAM, 0.9, 0.95, 1e-8, 0.1};
    s->trainer.schedule = (struct fb_nn_schedule){FB_NN_LINEAR_WARMUP, 3e-3, 0.0, 5, 0};
    s->trainer.clip_norm = 1.0;
    s->trainer.run.ids = s->ids;
    s->trainer.targets = s->targets;
    return s;
}

static void destroy(struct subject *s)
{
    fb_arena_free(&s->arena);
    free(s);
}

/* The batch of a step is drawn from the step alone: the next token is the same plus one. */
static double train(struct subject *s, int64_t steps)
{
    double loss = 0.0;
    for (int64_t i = 0; i < steps; i++) {
        struct fb_random random;
        fb_random_init(&random, 99, (uint64_t)s->trainer.step);
        for (int r = 0; r < ROWS; r++) {
            s->ids[r] = (int32_t)fb_random_below(&random, WORDS);
            s->targets[r] = (s->ids[r] + 1) % WORDS;
        }
        check(fb_trainer_step(&s->trainer, &loss, &error));
    }
    return loss;
}

static void path_of(char path[64])
{
    snprintf(path, 64, "/tmp/flowbench-trainer-%d.safetensors", (int)getpid());
}

static void test_a_simple_rule_is_learnt(void **state)
{
    (void)state;
    struct subject *s = made(16);
    double loss;
    const double first = train(s, 1), last = train(s, 300);
    assert_true(first > 1.5 && last < 0.2);
    check(fb_trainer_evaluate(&s->trainer, &loss, &error));
    assert_true(loss < 0.1);
    destroy(s);
}

static void test_a_resumed_run_is_the_run_bit_for_bit(void **state)
{
    (void)state;
    char path[64];
    path_of(path);
    struct subject *whole = made(8), *first = made(8), *second = made(8);
    train(whole, 12);
    train(first, 7);
    check(fb_trainer_save(&first->trainer, path, &error));
    second->trainer.seed = 1;
    check(fb_trainer_load(&second->trainer, path, &error));
    unlink(path);
    assert_int_equal(second->trainer.step, 7);
    train(second, 5);
    const size_t bytes = (size_t)whole->graph.trained_floats * sizeof(float);
    assert_memory_equal(whole->trainer.run.params, second->trainer.run.params, bytes);
    assert_memory_equal(whole->trainer.m, second->trainer.m, bytes);
    assert_memory_equal(whole->trainer.v, second->trainer.v, bytes);
    destroy(whole);
    destroy(first);
    destroy(second);
}

static void test_what_was_put_aside_travels_and_comes_back(void **state)
{
    (void)state;
    char path[64];
    double loss;
    path_of(path);
    struct subject *s = made(8), *other = made(8);
    check(fb_trainer_make_best(&s->trainer, &error));
    check(fb_trainer_make_best(&other->trainer, &error));
    train(s, 3);
    const size_t bytes = (size_t)s->graph.trained_floats * sizeof(float);
    float *kept = malloc(bytes);
    assert_non_null(kept);
    memcpy(kept, s->trainer.run.params, bytes);
    check(fb_trainer_keep_best(&s->trainer, &error));
    train(s, 2);
    assert_memory_not_equal(kept, s->trainer.run.params, bytes);
    check(fb_trainer_save(&s->trainer, path, &error));
    check(fb_trainer_load(&other->trainer, path, &error));
    assert_memory_equal(s->trainer.run.params, other->trainer.run.params, bytes);
    check(fb_trainer_take_best(&other->trainer, &error));
    assert_memory_equal(kept, other->trainer.run.params, bytes);
    assert_int_equal(other->trainer.step, 5);
    check(fb_trainer_evaluate(&other->trainer, &loss, &error));
    /* one that puts nothing aside writes nothing aside */
    struct subject *plain = made(8);
    check(fb_trainer_save(&plain->trainer, path, &error));
    assert_int_equal(fb_trainer_load(&other->trainer, path, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "lacks the tensor best."));
    unlink(path);
    free(kept);
    destroy(s);
    destroy(other);
    destroy(plain);
}

static void test_what_is_not_finite_stops_the_run_and_changes_nothing(void **state)
{
    (void)state;
    struct subject *s = made(8);
    double loss;
    train(s, 3);
    const int bias = fb_graph_param_find(&s->graph, "transformer.ln_f.bias");
    assert_true(bias >= 0);
    s->trainer.run.params[s->graph.params[bias].offset] = INFINITY;
    const size_t bytes = (size_t)s->graph.trained_floats * sizeof(float);
    float *kept = malloc(bytes);
    assert_non_null(kept);
    memcpy(kept, s->trainer.run.params, bytes);
    assert_int_equal(fb_trainer_step(&s->trainer, &loss, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "step 4: "));
    assert_non_null(strstr(error.text, "transformer."));
    assert_memory_equal(kept, s->trainer.run.params, bytes);
    assert_int_equal(s->trainer.step, 3);
    free(kept);
    destroy(s);
}

static void test_a_foreign_checkpoint_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    char path[64];
    path_of(path);
    struct subject *s = made(8), *wide = made(12);
    train(wide, 2);
    check(fb_trainer_save(&wide->trainer, path, &error));
    const size_t bytes = (size_t)s->graph.trained_floats * sizeof(float);
    float *kept = malloc(bytes);
    assert_non_null(kept);
    memcpy(kept, s->trainer.run.params, bytes);
    assert_int_equal(fb_trainer_load(&s->trainer, path, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "another type or shape"));
    assert_int_equal(truncate(path, 4000), 0);
    assert_int_equal(fb_trainer_load(&s->trainer, path, &error), FB_ERROR_INPUT);
    assert_int_equal(fb_trainer_load(&s->trainer, "tests/golden/golden-flow-2.safetensors", &error),
                     FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "no checkpoint of this model"));
    assert_memory_equal(kept, s->trainer.run.params, bytes);
    assert_int_equal(s->trainer.step, 0);
    unlink(path);
    free(kept);
    destroy(s);
    destroy(wide);
}

static void test_checkpoints_carry_the_official_names(void **state)
{
    (void)state;
    char path[64];
    struct fb_safetensors file;
    path_of(path);
    struct subject *s = made(8);
    check(fb_trainer_save(&s->trainer, path, &error));
    check(fb_safetensors_open(&file, path, &error));
    assert_non_null(fb_safetensors_find(&file, "transformer.h.0.attn.query_projection.weight"));
    assert_non_null(fb_safetensors_find(&file, "optimiser.v.lm_head.weight"));
    assert_string_equal(fb_safetensors_metadata_find(&file, "step"), "0");
    fb_safetensors_close(&file);
    unlink(path);
    destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_simple_rule_is_learnt),
        cmocka_unit_test(test_a_resumed_run_is_the_run_bit_for_bit),
        cmocka_unit_test(test_what_was_put_aside_travels_and_comes_back),
        cmocka_unit_test(test_what_is_not_finite_stops_the_run_and_changes_nothing),
        cmocka_unit_test(test_a_foreign_checkpoint_is_refused_and_changes_nothing),
        cmocka_unit_test(test_checkpoints_carry_the_official_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
