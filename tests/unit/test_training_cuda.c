/*
 * Training on a GPU against training on the processor: logits, loss and gradients of every family
 * with every mechanism that has gradients there, steps, checkpoints, the same bits twice, what is
 * not finite. Without a device the tests are skipped.
 */
#include "training_subject.h"

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
    const char *whose = "";
    const double most = gradient_distance(here, there, 1e-4, &whose);
    if (!(most < 2e-3))
        fail_msg("%s: the gradient of %s differs by %.3g", what, whose, most);
    destroy(here);
    destroy(there);
    return true;
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
    assert_int_equal(segments, 6); /* 30 of id 0, 270 of id 2 in pieces of 64 */
    assert_int_equal(sorted.groups, 2);
    assert_int_equal(groups[0], 0);
    assert_int_equal(groups[1], 1);
    assert_int_equal(groups[2], 6);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_are_sorted_into_segments),
        cmocka_unit_test(test_a_model_for_a_device_needs_one),
        cmocka_unit_test(test_both_agree_without_attention),
        cmocka_unit_test(test_both_agree_with_every_mechanism),
        cmocka_unit_test(test_steps_agree_and_checkpoints_travel),
        cmocka_unit_test(test_resuming_gives_the_same_bits),
        cmocka_unit_test(test_what_is_not_finite_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
