/*
 * What attention.h promises of every backward pass besides the right numbers: gradients that are
 * the slope of the same kernel's forward, the same bits in every run and for any number of threads,
 * nothing read that was not written, refusals. Against the oracles: test_kernels_gradient.c.
 */
#include "judge.h"
#include "kernel_case.h"
#include "registry.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Set by the argument `short`, for builds that sanitizers slow down. */
static bool short_run;

/* ---- differences of the kernel itself -------------------------------------------------------- */

static double sum_of_products(const struct fb_tensor *x, const struct fb_tensor *y)
{
    double sum = 0.0;
    for (int64_t b = 0; b < x->shape[0]; b++)
        for (int64_t h = 0; h < x->shape[1]; h++)
            for (int64_t t = 0; t < x->shape[2]; t++)
                for (int64_t c = 0; c < x->shape[3]; c++)
                    sum += (double)fb_tensor_row_f32(x, b, h, t)[c] *
                           (double)fb_tensor_row_f32(y, b, h, t)[c];
    return sum;
}

/* sum(out dout) with step times the direction added to one input. */
static double moved_loss(struct kernel_case *c, const struct fb_attention *attention,
                         struct kernel_tensor *input, const struct kernel_output *direction,
                         float step)
{
    struct kernel_output output;
    const size_t bytes = input->count * sizeof(float);
    float *before = kernel_allocate(bytes);
    memcpy(before, input->buffer, bytes);
    for (int64_t b = 0; b < input->view.shape[0]; b++)
        for (int64_t h = 0; h < input->view.shape[1]; h++)
            for (int64_t t = 0; t < input->view.shape[2]; t++)
                for (int64_t i = 0; i < input->view.shape[3]; i++)
                    fb_tensor_row_f32(&input->view, b, h, t)[i] +=
                        step * fb_tensor_row_f32(&direction->view, b, h, t)[i];
    double loss = (double)NAN;
    if (kernel_case_run(c, attention, 1, 0xff, &output)) {
        loss = sum_of_products(&output.view, &c->dout.view);
        kernel_output_free(&output);
    }
    memcpy(input->buffer, before, bytes);
    free(before);
    return loss;
}

/* Along the gradient itself the loss must rise by the gradient's square: no oracle needed. The
 * step changes the loss by about 0.1 of its size, where second-order terms cancel and the third
 * leave a percent at most; performer's maxima carry no gradient, but matter a little. */
static void check_differences(struct kernel_case *c, const struct fb_attention *attention)
{
    struct kernel_training t;
    if (!kernel_case_train(c, attention, 1, 0xff, &t))
        return;
    struct kernel_tensor *inputs[] = {&c->q, &c->k, &c->v};
    const struct kernel_output *gradients[] = {&t.dq, &t.dk, &t.dv};
    for (int i = 0; i < 3; i++) {
        const double square = sum_of_products(&gradients[i]->view, &gradients[i]->view);
        const float step = (float)(0.05 / fmax(fb_judge_max_abs(&gradients[i]->view), 1e-3));
        const double rise = (moved_loss(c, attention, inputs[i], gradients[i], step) -
                             moved_loss(c, attention, inputs[i], gradients[i], -step)) /
                            (2.0 * (double)step);
        if (!(fabs(rise - square) <= 0.02 * square + 1e-4))
            kernel_report(c, attention, "along d%c the loss rises by %g instead of %g", "qkv"[i],
                          rise, square);
    }
    kernel_training_free(&t);
}

static void test_gradients_differences_of_the_kernel_agree(void **state)
{
    (void)state;
    for (size_t i = 0; i < fb_attention_count(); i++)
        for (int causal = 0; causal < 2; causal++) {
            const struct fb_attention *attention = fb_attention_at(i);
            struct kernel_case c = {.layout = LAYOUT_BNHD, .scale = 1.0f, .seed = 17};
            kernel_case_set_problem(&c, attention->mechanism, 2, 2, 20, 20, 8, 6);
            kernel_case_shrink_parameters(&c, 0);
            /* clamped sources switch on and off along the way */
            (void)kernel_case_set_parameter(&c, "clamp", 0, NULL);
            c.problem.causal = causal != 0;
            if (!kernel_case_is_served(&c, attention, FB_BOTH))
                continue;
            kernel_case_init(&c);
            check_differences(&c, attention);
            kernel_case_free(&c);
        }
    kernel_expect_no_failures();
}

/* ---- same bits ------------------------------------------------------------------------------- */

static void compare_runs(const struct kernel_case *c, const struct fb_attention *attention)
{
    static const struct {
        int threads, scratch_byte;
        const char *what;
    } runs[] = {
        {1, 0x00, "scratch of zeros instead of NaN"},
        {1, 0x7f, "scratch of 3e38 instead of NaN"},
        {2, 0xff, "2 threads instead of 1"},
        {5, 0xff, "5 threads instead of 1"},
    };
    struct kernel_training first, other;
    if (!kernel_case_train(c, attention, 1, 0xff, &first))
        return;
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        if ((runs[i].threads > 1 && !attention->deterministic) ||
            !kernel_case_train(c, attention, runs[i].threads, runs[i].scratch_byte, &other))
            continue;
        kernel_case_compare_training(c, attention, &first, &other, runs[i].what);
        kernel_training_free(&other);
    }
    kernel_training_free(&first);
}

static void test_gradients_runs_and_threads_give_the_same_bits(void **state)
{
    (void)state;
    static const int64_t lengths[2] = {130, 41};
    static const struct {
        int64_t batch, heads, kv_heads, len, dim;
        const int64_t *lengths;
    } shapes[] = {
        {2, 3, 3, 130, 33, NULL}, {1, 1, 1, 700, 64, NULL}, {1, 1, 1, 1, 8, NULL},
        {1, 1, 1, 4500, 8, NULL}, {2, 4, 2, 130, 16, NULL}, {2, 2, 2, 130, 16, lengths},
    };
    for (size_t i = 0; i < fb_attention_count(); i++)
        for (size_t s = 0; s < 2 * sizeof shapes / sizeof shapes[0]; s++) {
            const struct fb_attention *attention = fb_attention_at(i);
            const int64_t len = shapes[s / 2].len;
            struct kernel_case c = {.layout = LAYOUT_PADDED, .scale = 1.0f, .seed = 11};
            struct fb_cost cost;
            kernel_case_set_problem(&c, attention->mechanism, shapes[s / 2].batch,
                                    shapes[s / 2].heads, len, len, shapes[s / 2].dim,
                                    shapes[s / 2].dim);
            kernel_case_shrink_parameters(&c, 0);
            c.problem.kv_heads = shapes[s / 2].kv_heads;
            c.problem.causal = s % 2 != 0;
            c.problem.q_lengths = c.problem.kv_lengths = shapes[s / 2].lengths;
            c.mechanism->cost(&c.problem, FB_BOTH, &cost);
            if (cost.flop > (short_run ? 1e7 : 5e7) ||
                !kernel_case_is_served(&c, attention, FB_BOTH) ||
                !kernel_case_is_affordable(&c, attention))
                continue;
            kernel_case_init(&c);
            compare_runs(&c, attention);
            kernel_case_free(&c);
        }
    kernel_expect_no_failures();
}

/* ---- refusals -------------------------------------------------------------------------------- */

/* A call that contradicts its problem is refused before anything is written. */
static void test_gradients_bad_calls_are_refused_untouched(void **state)
{
    (void)state;
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        struct kernel_case c = {.layout = LAYOUT_BHND, .scale = 1.0f, .seed = 5};
        kernel_case_set_problem(&c, attention->mechanism, 1, 2, 9, 9, 8, 8);
        if (!kernel_case_is_served(&c, attention, FB_BOTH))
            continue;
        struct kernel_output outputs[4];
        struct fb_sizes sizes;
        kernel_case_init(&c);
        fb_attention_sizes(attention, &c.problem, 1, &sizes);
        for (int j = 0; j < 4; j++)
            kernel_output_init(&c, &outputs[j], 2, 9, 8);
        void *saved = kernel_allocate(sizes.saved_bytes);
        void *scratch = kernel_allocate(sizes.backward_scratch_bytes);
        const struct fb_call good = {.q = c.q.view,
                                     .k = c.k.view,
                                     .v = c.v.view,
                                     .out = outputs[0].view,
                                     .dout = c.dout.view,
                                     .dq = outputs[1].view,
                                     .dk = outputs[2].view,
                                     .dv = outputs[3].view,
                                     .constants = c.constants,
                                     .saved = saved,
                                     .scratch = scratch,
                                     .threads = 1};
        struct fb_call bad[8] = {good, good, good, good, good, good, good, good};
        bad[0].dout.shape[2] = 8;
        bad[1].dq.dtype = FB_F64;
        bad[2].dk.stride[3] = 2;
        bad[3].dv.data = NULL;
        bad[4].threads = 0;
        bad[5].dout.data = NULL;
        if (sizes.saved_bytes > 0)
            bad[6].saved = NULL;
        else
            bad[6].dk.data = NULL;
        if (sizes.backward_scratch_bytes > 0)
            bad[7].scratch = (unsigned char *)scratch + 4;
        else
            bad[7].dq.data = NULL;
        for (int j = 0; j < 8; j++) {
            struct fb_error error = {0};
            if (fb_attention_backward(attention, &c.problem, &bad[j], &error) == FB_OK)
                kernel_report(&c, attention, "bad call %d is not refused", j);
            else if (strlen(error.text) <= 10)
                kernel_report(&c, attention, "bad call %d is refused without words", j);
        }
        for (int j = 0; j < 4; j++) {
            for (size_t byte = 0; byte < outputs[j].count * sizeof(float); byte++)
                assert_int_equal(((const unsigned char *)outputs[j].buffer)[byte], 0xff);
            kernel_output_free(&outputs[j]);
        }
        free(saved);
        free(scratch);
        kernel_case_free(&c);
    }
    kernel_expect_no_failures();
}

int main(int argc, char **argv)
{
    short_run = argc > 1 && strcmp(argv[1], "short") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_differences_of_the_kernel_agree),
        cmocka_unit_test(test_gradients_runs_and_threads_give_the_same_bits),
        cmocka_unit_test(test_gradients_bad_calls_are_refused_untouched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
