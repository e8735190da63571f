/*
 * Training on a GPU against training on the processor: logits, loss and gradients of every family
 * with every mechanism that has gradients there, steps, checkpoints, the same bits twice, what is
 * not finite. Without a device the tests are skipped.
 */
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
    int64_t rows, classes;
    int input;
};

static struct fb_error error;

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
    *a = (struct fb_graph_attention){.causal = causal, .constants_seed = 3};
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

/* Parameters whose gradient is a rounding error of the others' (a key's bias) are not compared. */
static void compare_gradients(const struct subject *here, const struct subject *there,
                              const char *what, double tolerance)
{
    const float *a = there->trainer.run.param_gradients, *b = here->trainer.run.param_gradients;
    double largest = 0.0;
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
        if (size > fmin(0.05 * tolerance, 1e-2) * largest && !(d < tolerance))
            fail_msg("%s: the gradient of %s differs by %.3g", what, p->name, d);
    }
}

static bool agree(enum family family, const char *mechanism, int64_t layers)
{
    char what[96];
    struct subject *there = made(family, mechanism, layers, FB_CUDA, 0.1);
    if (!there)
        return false;
    struct subject *here = made(family, mechanism, layers, FB_CPU, 0.1);
    assert_non_null(here);
    snprintf(what, sizeof what, "%s, %s, %d layers", family_names[family], mechanism, (int)layers);
    const double loss_there = loss_and_gradient(there), loss_here = loss_and_gradient(here);
    const int64_t logits = here->graph.tensors[here->graph.logits].offset;
    const double d = distance(there->trainer.run.activations + logits,
                              here->trainer.run.activations + logits, here->rows * here->classes);
    if (!(d < 1e-4) || !(fabs(loss_there - loss_here) < 1e-5))
        fail_msg("%s: logits differ by %.3g, losses are %.8g and %.8g", what, d, loss_there,
                 loss_here);
    compare_gradients(here, there, what, 2e-3);
    destroy(here);
    destroy(there);
    return true;
}

/* bf16 keeps 8 bits of fraction: a rounding is 2^-9 of the value at most, 2^-10 in the mean. Some
 * twenty of them follow one another on the way to a gradient of these models, and errors of
 * neighbouring values do not add up alike: sqrt(20) 2^-10 is 0.4 %. What small differences of large
 * values are made of (softmax, normalisation) costs an order of magnitude more. */
#define BF16_LOGITS   0.03
#define BF16_GRADIENT 0.1

static bool agree_in_bf16(enum family family, const char *mechanism, int64_t layers)
{
    char what[96];
    struct subject *narrow = made_in(FB_NN_BF16, family, mechanism, layers, FB_CUDA, 0.1);
    if (!narrow)
        return false;
    struct subject *wide = made(family, mechanism, layers, FB_CUDA, 0.1);
    assert_non_null(wide);
    snprintf(what, sizeof what, "bf16: %s, %s, %d layers", family_names[family], mechanism,
             (int)layers);
    const double loss_narrow = loss_and_gradient(narrow), loss_wide = loss_and_gradient(wide);
    const int64_t logits = wide->graph.tensors[wide->graph.logits].offset;
    const double d = distance(narrow->trainer.run.activations +
                                  narrow->graph.tensors[narrow->graph.logits].offset,
                              wide->trainer.run.activations + logits, wide->rows * wide->classes);
    if (!(d < BF16_LOGITS) || !(fabs(loss_narrow - loss_wide) < 0.02 * loss_wide))
        fail_msg("%s: logits differ by %.3g, losses are %.8g and %.8g", what, d, loss_narrow,
                 loss_wide);
    compare_gradients(wide, narrow, what, BF16_GRADIENT);
    destroy(wide);
    destroy(narrow);
    return true;
}

static void need_device(void)
{
    if (!fb_cuda_is_present())
        skip();
}

static void test_both_agree_without_attention(void **state)
{
    (void)state;
    need_device();
    for (int family = 0; family < FAMILIES; family++)
        assert_true(agree((enum family)family, "flow", 0));
}

static void test_both_agree_with_every_mechanism(void **state)
{
    (void)state;
    need_device();
    for (size_t i = 0; i < fb_mechanism_count(); i++)
        for (int family = 0; family < FAMILIES; family++)
            if (!agree((enum family)family, fb_mechanism_at(i)->name, 2))
                print_message("not on this backend: %s: %s\n", fb_mechanism_at(i)->name,
                              error.text);
}

static void test_bf16_is_near_f32_without_attention(void **state)
{
    (void)state;
    need_device();
    for (int family = 0; family < FAMILIES; family++)
        assert_true(agree_in_bf16((enum family)family, "flow", 0));
}

static void test_bf16_is_near_f32_with_every_mechanism(void **state)
{
    (void)state;
    need_device();
    for (size_t i = 0; i < fb_mechanism_count(); i++)
        for (int family = 0; family < FAMILIES; family++)
            if (!agree_in_bf16((enum family)family, fb_mechanism_at(i)->name, 2))
                print_message("not in bf16: %s: %s\n", fb_mechanism_at(i)->name, error.text);
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

static void test_steps_agree_and_checkpoints_travel(void **state)
{
    (void)state;
    char path[64];
    need_device();
    path_of(path, sizeof path);
    struct subject *here = made(ENCODER_CLS, "flow", 0, FB_CPU, 0.1);
    struct subject *there = made(ENCODER_CLS, "flow", 0, FB_CUDA, 0.1);
    assert_true(fabs(train(there, 10) - train(here, 10)) < 1e-4);
    check(fb_trainer_save(&there->trainer, path, &error));
    assert_true(distance(there->trainer.run.params, here->trainer.run.params,
                         here->graph.trained_floats) < 1e-3);
    check(fb_trainer_load(&here->trainer, path, &error));
    assert_memory_equal(here->trainer.m, there->trainer.m,
                        (size_t)here->graph.trained_floats * sizeof(float));
    assert_true(fabs(train(there, 5) - train(here, 5)) < 1e-4);
    destroy(here);
    destroy(there);
    (void)unlink(path);
}

static void test_resuming_gives_the_same_bits(void **state)
{
    (void)state;
    char path[64];
    need_device();
    path_of(path, sizeof path);
    struct subject *whole = made(SERIES, "flow", 0, FB_CUDA, 0.1);
    struct subject *halves = made(SERIES, "flow", 0, FB_CUDA, 0.1);
    (void)train(whole, 12);
    (void)train(halves, 7);
    check(fb_trainer_save(&halves->trainer, path, &error));
    destroy(halves);
    halves = made(SERIES, "flow", 0, FB_CUDA, 0.1);
    check(fb_trainer_load(&halves->trainer, path, &error));
    (void)train(halves, 5);
    check(fb_trainer_save(&whole->trainer, path, &error));
    check(fb_trainer_save(&halves->trainer, path, &error));
    assert_memory_equal(whole->trainer.run.params, halves->trainer.run.params,
                        (size_t)whole->graph.trained_floats * sizeof(float));
    assert_memory_equal(whole->trainer.v, halves->trainer.v,
                        (size_t)whole->graph.trained_floats * sizeof(float));
    destroy(whole);
    destroy(halves);
    (void)unlink(path);
}

static void same_state(struct subject *a, struct subject *b, const char *what)
{
    char path[64];
    path_of(path, sizeof path);
    check(fb_trainer_save(&a->trainer, path, &error)); /* fetches the state */
    check(fb_trainer_save(&b->trainer, path, &error));
    const size_t bytes = (size_t)a->graph.trained_floats * sizeof(float);
    if (memcmp(a->trainer.run.params, b->trainer.run.params, bytes) != 0 ||
        memcmp(a->trainer.m, b->trainer.m, bytes) != 0)
        fail_msg("%s: the parameters differ", what);
    (void)unlink(path);
}

/* Also two runs of one kind: a graph's order of kernels must not matter. */
static void test_replayed_steps_give_the_bits_of_direct_launches(void **state)
{
    (void)state;
    need_device();
    for (size_t i = 0; i < fb_mechanism_count(); i++)
        for (int precision = FB_NN_F32; precision <= FB_NN_BF16; precision++)
            for (int family = 0; family < FAMILIES; family++) {
                const char *name = fb_mechanism_at(i)->name;
                if (family != ENCODER_CLS && strcmp(name, "flow") != 0)
                    continue; /* the layers around attention are the same */
                struct subject *s[3];
                for (int k = 0; k < 3; k++)
                    s[k] = made_in((enum fb_nn_precision)precision, (enum family)family, name, 1,
                                   FB_CUDA, 0.1);
                if (!s[0])
                    continue;
                s[2]->trainer.launches_directly = true;
                double loss[3];
                for (int k = 0; k < 3; k++)
                    loss[k] = train(s[k], 6);
                assert_true(isfinite(loss[0]) && loss[0] == loss[2]);
                same_state(s[0], s[1], name);
                same_state(s[0], s[2], name);
                for (int k = 0; k < 3; k++)
                    destroy(s[k]);
            }
}

static void test_batches_sent_ahead_change_nothing(void **state)
{
    (void)state;
    double loss = 0.0;
    need_device();
    struct subject *one = made_in(FB_NN_BF16, ENCODER_CLS, "flow", 1, FB_CUDA, 0.1);
    struct subject *ahead = made_in(FB_NN_BF16, ENCODER_CLS, "flow", 1, FB_CUDA, 0.1);
    assert_non_null(one);
    assert_non_null(ahead);
    const double last = train(one, 9);
    draw_batch(ahead, 100);
    for (uint64_t step = 0; step < 9; step++) {
        check(fb_trainer_start_step(&ahead->trainer, &error));
        draw_batch(ahead, 101 + step);
        check(fb_trainer_stage_step(&ahead->trainer, &error));
        check(fb_trainer_finish_step(&ahead->trainer, &loss, &error));
        if (step == 4) { /* an evaluation takes the place of what was sent */
            double other = 0.0;
            check(fb_trainer_evaluate(&ahead->trainer, &other, &error));
        }
    }
    assert_true(loss == last);
    same_state(one, ahead, "sent ahead");
    destroy(one);
    destroy(ahead);
}

static void test_bf16_learns_one_batch(void **state)
{
    (void)state;
    need_device();
    for (int family = 0; family < FAMILIES; family++) {
        struct subject *s = made_in(FB_NN_BF16, (enum family)family, "flow", 1, FB_CUDA, 0.0);
        assert_non_null(s);
        double first = 0.0, loss = 0.0;
        s->trainer.clip_norm = 0.0;
        s->trainer.schedule.base = 3e-3;
        check(fb_trainer_step(&s->trainer, &first, &error));
        for (int i = 0; i < 250; i++)
            check(fb_trainer_step(&s->trainer, &loss, &error));
        if (!(loss < 0.1 * first))
            fail_msg("%s: the loss of one batch is %.4g, and was %.4g", family_names[family], loss,
                     first);
        destroy(s);
    }
}

static void test_what_is_not_finite_changes_nothing(void **state)
{
    (void)state;
    char path[64];
    double loss = 0.0;
    need_device();
    path_of(path, sizeof path);
    struct subject *s = made(SERIES, "flow", 0, FB_CUDA, 0.0);
    (void)train(s, 2);
    check(fb_trainer_save(&s->trainer, path, &error));
    const size_t bytes = (size_t)s->graph.trained_floats * sizeof(float);
    float *before = malloc(bytes);
    assert_non_null(before);
    memcpy(before, s->trainer.run.params, bytes);
    fb_graph_run_values(&s->trainer.run, s->input)[0] = NAN;
    assert_int_equal(fb_trainer_step(&s->trainer, &loss, &error), FB_ERROR_INPUT);
    assert_non_null(strstr(error.text, "step 3"));
    check(fb_trainer_save(&s->trainer, path, &error));
    assert_memory_equal(before, s->trainer.run.params, bytes);
    free(before);
    destroy(s);
    (void)unlink(path);
}

static void test_ids_are_sorted_into_segments(void **state)
{
    (void)state;
    enum { COUNT = 300, VOCABULARY = 4 };
    int32_t ids[COUNT], counts[VOCABULARY];
    int32_t *index = malloc((size_t)fb_nn_cuda_tokens_ints(COUNT, VOCABULARY) * sizeof *index);
    assert_non_null(index);
    const int32_t *groups = index + COUNT, *all = groups + VOCABULARY + 1;
    for (int i = 0; i < COUNT; i++)
        ids[i] = i % 10 == 3 ? 0 : 2;
    const struct fb_nn_cuda_sorted sorted =
        fb_nn_cuda_tokens_sort(index, counts, ids, COUNT, VOCABULARY);
    const int64_t segments = sorted.segments;
    assert_int_equal(segments, 4); /* 30 of id 0, 270 of id 2 in pieces of 128 */
    assert_int_equal(sorted.groups, 2);
    assert_int_equal(groups[0], 0);
    assert_int_equal(groups[1], 1);
    assert_int_equal(groups[2], 4);
    assert_true(segments <= fb_nn_cuda_segments_max(COUNT, VOCABULARY));
    int32_t covered = 0;
    for (int64_t s = 0; s < segments; s++) {
        const int32_t *segment = all + 3 * s;
        assert_int_equal(segment[1], covered);
        for (int32_t i = segment[1]; i < segment[2]; i++) {
            assert_int_equal(ids[index[i]], segment[0]);
            assert_true(i == segment[1] || index[i] > index[i - 1]);
        }
        covered = segment[2];
    }
    assert_int_equal(covered, COUNT);
    free(index);
}

static void test_a_model_for_a_device_needs_one(void **state)
{
    (void)state;
    if (fb_cuda_is_present())
        skip();
    struct subject *s = calloc(1, sizeof *s);
    assert_non_null(s);
    fb_arena_init(&s->arena, 0);
    fb_graph_init(&s->graph, &s->arena, BATCH, 1, &error);
    s->graph.backend = FB_CUDA;
    check(fb_graph_finish(&s->graph, build(s, SERIES, 0, 0.0)));
    check(fb_trainer_init(&s->trainer, &s->graph, 1, &error));
    assert_int_equal(fb_trainer_use_device(&s->trainer, FB_NN_F32, &error), FB_ERROR_DEVICE);
    destroy(s);
}

static void test_a_processor_does_not_compute_in_bf16(void **state)
{
    (void)state;
    struct subject *s = calloc(1, sizeof *s);
    assert_non_null(s);
    fb_arena_init(&s->arena, 0);
    fb_graph_init(&s->graph, &s->arena, BATCH, 1, &error);
    s->graph.dtype = FB_BF16;
    assert_int_equal(fb_graph_finish(&s->graph, build(s, SERIES, 0, 0.0)), FB_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "cpu computes in f32, not in bf16"));
    fb_arena_free(&s->arena);
    free(s);
}

/* Tensors inside the model take half the memory; what the caller sees stays f32. */
static void test_bf16_halves_what_is_inside(void **state)
{
    (void)state;
    int64_t floats[2];
    for (int narrow = 0; narrow < 2; narrow++) {
        struct subject *s = calloc(1, sizeof *s);
        assert_non_null(s);
        fb_arena_init(&s->arena, 0);
        fb_graph_init(&s->graph, &s->arena, BATCH, 1, &error);
        s->graph.backend = FB_CUDA;
        s->graph.dtype = narrow ? FB_BF16 : FB_F32;
        check(fb_graph_finish(&s->graph, build(s, SERIES, 0, 0.0)));
        assert_int_equal(s->graph.tensors[s->input].dtype, FB_F32);
        assert_int_equal(s->graph.tensors[s->graph.logits].dtype, FB_F32);
        floats[narrow] = s->graph.activation_floats - s->graph.border_floats;
        fb_arena_free(&s->arena);
        free(s);
    }
    assert_int_equal(2 * floats[1], floats[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_are_sorted_into_segments),
        cmocka_unit_test(test_a_model_for_a_device_needs_one),
        cmocka_unit_test(test_a_processor_does_not_compute_in_bf16),
        cmocka_unit_test(test_bf16_halves_what_is_inside),
        cmocka_unit_test(test_both_agree_without_attention),
        cmocka_unit_test(test_both_agree_with_every_mechanism),
        cmocka_unit_test(test_bf16_is_near_f32_without_attention),
        cmocka_unit_test(test_bf16_is_near_f32_with_every_mechanism),
        cmocka_unit_test(test_bf16_learns_one_batch),
        cmocka_unit_test(test_replayed_steps_give_the_bits_of_direct_launches),
        cmocka_unit_test(test_batches_sent_ahead_change_nothing),
        cmocka_unit_test(test_steps_agree_and_checkpoints_travel),
        cmocka_unit_test(test_resuming_gives_the_same_bits),
        cmocka_unit_test(test_what_is_not_finite_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
