/*
 * Training on a GPU in bf16 against f32, and what must not change a bit: steps replayed as one
 * graph, batches sent ahead, a second run. Without a device only layouts and refusals are tested.
 */
#include "training_subject.h"

/*
 * bf16 keeps 8 bits of fraction: a rounding is 2^-9 of the value at most, 2^-10 in the mean. Some
 * twenty of them follow one another on the way to a gradient of these models, and errors of
 * neighbouring values do not add up alike: sqrt(20) 2^-10 is 0.4 %. What is made of small
 * differences of large values (weights of attention, normalised rows) costs an order of magnitude
 * more: seen are up to 4 %. Encoders end in ReLU over a handful of rows, where a unit near zero may
 * take the other side, with a large part of the gradient: seen are up to 36 %. A wrong factor or a
 * term left out would be 50 % or more.
 */
#define BF16_LOGITS            0.03
#define BF16_GRADIENT          0.08
#define BF16_GRADIENT_AND_RELU 0.45

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
    const char *whose = "";
    const double most = gradient_distance(wide, narrow, 1e-2, &whose);
    if (!(most < (family >= ENCODER_CLS ? BF16_GRADIENT_AND_RELU : BF16_GRADIENT)))
        fail_msg("%s: the gradient of %s differs by %.3g", what, whose, most);
    destroy(wide);
    destroy(narrow);
    return true;
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

/* Nine steps, each with its batch sent while the step before it computes, and an evaluation among
 * them, which takes the place of what was sent. */
static double train_ahead(struct subject *s)
{
    double loss = 0.0, other = 0.0;
    draw_batch(s, 100);
    for (uint64_t step = 0; step < 9; step++) {
        check(fb_trainer_start_step(&s->trainer, &error));
        draw_batch(s, 101 + step);
        check(fb_trainer_stage_step(&s->trainer, &error));
        check(fb_trainer_finish_step(&s->trainer, &loss, &error));
        if (step == 4)
            check(fb_trainer_evaluate(&s->trainer, &other, &error));
    }
    return loss;
}

static void test_batches_sent_ahead_change_nothing(void **state)
{
    (void)state;
    static const char *const mechanisms[] = {"flow", "softmax"};
    need_device();
    for (int masked = 0; masked < 2; masked++) {
        masks_padding = masked == 1; /* lengths travel with the launches */
        struct subject *one = made_in(FB_NN_BF16, ENCODER_CLS, mechanisms[masked], 1, FB_CUDA, 0.1);
        struct subject *ahead =
            made_in(FB_NN_BF16, ENCODER_CLS, mechanisms[masked], 1, FB_CUDA, 0.1);
        masks_padding = false;
        assert_non_null(one);
        assert_non_null(ahead);
        const double last = train(one, 9);
        assert_true(train_ahead(ahead) == last);
        same_state(one, ahead, "sent ahead");
        destroy(one);
        destroy(ahead);
    }
}

/* The second of two batches is started before the first is finished. */
static void test_evaluations_side_by_side_give_the_same_loss(void **state)
{
    (void)state;
    need_device();
    struct subject *s = made_in(FB_NN_BF16, LANGUAGE, "flow", 1, FB_CUDA, 0.1);
    assert_non_null(s);
    int32_t targets[2][ROWS];
    double alone[2], together[2];
    const float *logits = NULL;
    for (uint64_t i = 0; i < 2; i++) {
        draw_batch(s, 7 + i);
        check(fb_trainer_evaluate(&s->trainer, &alone[i], &error));
    }
    for (uint64_t i = 0; i < 2; i++) {
        draw_batch(s, 7 + i);
        memcpy(targets[i], s->targets, sizeof targets[i]);
        check(fb_trainer_start_evaluation(&s->trainer, &error));
    }
    for (int i = 0; i < 2; i++)
        check(fb_trainer_finish_evaluation(&s->trainer, targets[i], &together[i], &logits, &error));
    assert_true(alone[0] == together[0] && alone[1] == together[1] && alone[0] != alone[1]);
    destroy(s);
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
        cmocka_unit_test(test_a_processor_does_not_compute_in_bf16),
        cmocka_unit_test(test_bf16_halves_what_is_inside),
        cmocka_unit_test(test_bf16_is_near_f32_without_attention),
        cmocka_unit_test(test_bf16_is_near_f32_with_every_mechanism),
        cmocka_unit_test(test_bf16_learns_one_batch),
        cmocka_unit_test(test_replayed_steps_give_the_bits_of_direct_launches),
        cmocka_unit_test(test_batches_sent_ahead_change_nothing),
        cmocka_unit_test(test_evaluations_side_by_side_give_the_same_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
