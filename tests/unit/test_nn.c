/*
 * Layers against central differences of a weighted sum of their outputs, against known values, and
 * against themselves on another number of threads.
 */
#include "nn_columns.h"
#include "nn_dense.h"
#include "nn_embedding.h"
#include "nn_layernorm.h"
#include "nn_loss.h"
#include "nn_pointwise.h"
#include "nn_precision.h"
#include "random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 4096 };

struct arrays {
    float x[MOST], w[MOST], b[MOST], y[MOST], dy[MOST], dx[MOST], dw[MOST], db[MOST], stats[MOST];
};

static struct arrays *made(uint64_t seed)
{
    struct arrays *a = calloc(1, sizeof *a);
    assert_non_null(a);
    fb_random_fill_normal_f32(a->x, MOST, 1.0F, seed, 1, 1);
    fb_random_fill_normal_f32(a->w, MOST, 0.5F, seed, 2, 1);
    fb_random_fill_normal_f32(a->b, MOST, 1.0F, seed, 3, 1);
    fb_random_fill_normal_f32(a->dy, MOST, 1.0F, seed, 4, 1);
    return a;
}

/* What a layer computes from a->x, a->w, a->b into a->y; the sum of y dy is differentiated. */
typedef void (*layer_fn)(struct arrays *a);

static double weighted(struct arrays *a, layer_fn layer, int64_t outputs)
{
    double sum = 0.0;
    layer(a);
    for (int64_t i = 0; i < outputs; i++)
        sum += (double)a->y[i] * (double)a->dy[i];
    return sum;
}

/* f32 outputs carry rounding near 1e-7; a step of 1e-2 makes 3e-5 of it and 1e-4 of curvature. */
static void check_gradient(struct arrays *a, layer_fn layer, int64_t outputs, float *values,
                           const float *gradient, int64_t count, const char *name)
{
    const float step = 1e-2F;
    double scale = 1.0;
    for (int64_t i = 0; i < count; i++)
        scale = fmax(scale, fabs((double)gradient[i]));
    for (int64_t i = 0; i < count; i += 1 + count / 40) {
        const float kept = values[i];
        values[i] = kept + step;
        const double above = weighted(a, layer, outputs), high = (double)values[i];
        values[i] = kept - step;
        const double below = weighted(a, layer, outputs), low = (double)values[i];
        values[i] = kept;
        const double slope = (above - below) / (high - low);
        if (fabs(slope - (double)gradient[i]) > 2e-3 * scale)
            fail_msg("%s[%d]: gradient %.6g, difference %.6g", name, (int)i, (double)gradient[i],
                     slope);
    }
}

static const struct fb_nn_dense dense = {.rows = 37, .in = 11, .out = 7};

static void run_dense(struct arrays *a)
{
    fb_nn_dense_forward(&dense, a->y, a->x, a->w, a->b, 2);
}

static void test_dense_gradients_match_differences(void **state)
{
    (void)state;
    struct arrays *a = made(1);
    run_dense(a);
    fb_nn_dense_backward(&dense, a->dx, false, a->dw, a->db, a->dy, a->x, a->w, 2);
    check_gradient(a, run_dense, 37 * 7, a->x, a->dx, 37 * 11, "x");
    check_gradient(a, run_dense, 37 * 7, a->w, a->dw, 7 * 11, "w");
    check_gradient(a, run_dense, 37 * 7, a->b, a->db, 7, "b");
    /* adding: once more is twice as much */
    const float before = a->dx[5], weight = a->dw[3];
    fb_nn_dense_backward(&dense, a->dx, true, a->dw, a->db, a->dy, a->x, a->w, 2);
    assert_true(fabsf(a->dx[5] - 2 * before) < 1e-5F && fabsf(a->dw[3] - 2 * weight) < 1e-4F);
    free(a);
}

static void test_dense_any_number_of_threads_gives_the_same_bits(void **state)
{
    (void)state;
    enum { ROWS = 300, IN = 33, OUT = 270 };
    const struct fb_nn_dense d = {ROWS, IN, OUT};
    float *memory = calloc(
        (size_t)(2 * (ROWS * OUT + OUT * IN + ROWS * IN) + OUT * IN + ROWS * IN + ROWS * OUT),
        sizeof *memory);
    assert_non_null(memory);
    float *x = memory, *w = x + ROWS * IN, *dy = w + OUT * IN, *at = dy + ROWS * OUT;
    float *y[2], *dx[2], *dw[2];
    fb_random_fill_normal_f32(memory, ROWS * IN + OUT * IN + ROWS * OUT, 1.0F, 5, 0, 1);
    for (int side = 0; side < 2; side++) {
        y[side] = at;
        dx[side] = y[side] + ROWS * OUT;
        dw[side] = dx[side] + ROWS * IN;
        at = dw[side] + OUT * IN;
        fb_nn_dense_forward(&d, y[side], x, w, NULL, 1 + 2 * side);
        fb_nn_dense_backward(&d, dx[side], false, dw[side], NULL, dy, x, w, 1 + 2 * side);
    }
    assert_memory_equal(y[0], y[1], ROWS * OUT * sizeof(float));
    assert_memory_equal(dx[0], dx[1], ROWS * IN * sizeof(float));
    assert_memory_equal(dw[0], dw[1], OUT * IN * sizeof(float));
    free(memory);
}

static const struct fb_nn_layernorm norm = {.rows = 35, .width = 13, .eps = 1e-5F};

static void run_norm(struct arrays *a)
{
    fb_nn_layernorm_forward(&norm, a->y, a->stats, a->x, a->w, a->b, 2);
}

static void test_layernorm_gradients_match_differences(void **state)
{
    (void)state;
    struct arrays *a = made(2);
    run_norm(a);
    fb_nn_layernorm_backward(&norm, a->dx, false, a->dw, a->db, a->dy, a->x, a->stats, a->w, 2);
    check_gradient(a, run_norm, 35 * 13, a->x, a->dx, 35 * 13, "x");
    check_gradient(a, run_norm, 35 * 13, a->w, a->dw, 13, "gain");
    check_gradient(a, run_norm, 35 * 13, a->b, a->db, 13, "bias");
    free(a);
}

static void test_layernorm_rows_have_mean_zero_and_variance_one(void **state)
{
    (void)state;
    struct arrays *a = made(3);
    for (int i = 0; i < 13; i++) {
        a->w[i] = 1.0F;
        a->b[i] = 0.0F;
    }
    run_norm(a);
    for (int r = 0; r < 35; r++) {
        double sum = 0.0, squares = 0.0;
        for (int i = 0; i < 13; i++) {
            sum += (double)a->y[r * 13 + i];
            squares += (double)a->y[r * 13 + i] * (double)a->y[r * 13 + i];
        }
        assert_true(fabs(sum) < 1e-5 && fabs(squares / 13 - 1.0) < 1e-3);
    }
    free(a);
}

static const struct fb_nn_dropout no_dropout = {.p = 0.0F, .seed = 0, .stream = 0};
static const struct fb_nn_dropout some_dropout = {.p = 0.25F, .seed = 3, .stream = 8};
static enum fb_nn_activation activation;

static void run_activation(struct arrays *a)
{
    fb_nn_activation_forward(activation, &some_dropout, a->y, a->x, 500, 2);
}

static void test_activation_slopes_match_differences(void **state)
{
    (void)state;
    for (int kind = 0; kind < FB_NN_ACTIVATION_COUNT; kind++) {
        struct arrays *a = made(4);
        activation = (enum fb_nn_activation)kind;
        for (int i = 0; i < 500; i++) /* a kink has no slope */
            a->x[i] += fabsf(a->x[i]) < 0.05F ? 0.1F : 0.0F;
        fb_nn_activation_backward(activation, &some_dropout, a->dx, false, a->dy, a->x, 500, 2);
        check_gradient(a, run_activation, 500, a->x, a->dx, 500, "x");
        free(a);
    }
}

/* gelu(1) = Phi(1) and its approximation, from tables of the normal distribution. */
static void test_activations_have_their_published_values(void **state)
{
    (void)state;
    const float x[3] = {1.0F, -1.0F, 0.0F};
    float y[3];
    fb_nn_activation_forward(FB_NN_GELU_ERF, &no_dropout, y, x, 3, 1);
    assert_true(fabsf(y[0] - 0.8413447F) < 1e-6F && fabsf(y[1] + 0.1586553F) < 1e-6F);
    fb_nn_activation_forward(FB_NN_GELU_TANH, &no_dropout, y, x, 3, 1);
    assert_true(fabsf(y[0] - 0.8411920F) < 1e-6F && y[2] == 0.0F);
    fb_nn_activation_forward(FB_NN_RELU, &no_dropout, y, x, 3, 1);
    assert_true(y[0] == 1.0F && y[1] == 0.0F);
}

static void test_dropout_comes_with_sums_and_activations(void **state)
{
    (void)state;
    float x[400], y[400], expected[400];
    fb_random_fill_normal_f32(x, 400, 1.0F, 5, 0, 1);
    fb_nn_activation_forward(FB_NN_GELU_TANH, &no_dropout, expected, x, 400, 1);
    fb_nn_dropout_apply(&some_dropout, expected, false, expected, 400, 1);
    fb_nn_activation_forward(FB_NN_GELU_TANH, &some_dropout, y, x, 400, 2);
    assert_memory_equal(y, expected, sizeof y);
    fb_nn_dropout_apply(&some_dropout, expected, false, x, 400, 1);
    for (int i = 0; i < 400; i++)
        expected[i] = x[i] + expected[i];
    fb_nn_sum_apply(&some_dropout, y, x, x, 400, 2);
    assert_memory_equal(y, expected, sizeof y);
}

static void test_dropout_keeps_its_share_and_repeats(void **state)
{
    (void)state;
    enum { COUNT = 200000 };
    float *memory = malloc(3 * COUNT * sizeof *memory);
    assert_non_null(memory);
    float *x = memory, *y = x + COUNT, *again = y + COUNT;
    for (int i = 0; i < COUNT; i++)
        x[i] = 1.0F;
    const struct fb_nn_dropout d = {.p = 0.3F, .seed = 9, .stream = 4};
    const struct fb_nn_dropout other = {.p = 0.3F, .seed = 9, .stream = 5};
    fb_nn_dropout_apply(&d, y, false, x, COUNT, 1);
    fb_nn_dropout_apply(&d, again, false, x, COUNT, 3);
    assert_memory_equal(y, again, COUNT * sizeof *y);
    int kept = 0, same = 0;
    for (int i = 0; i < COUNT; i++) {
        assert_true(y[i] == 0.0F || fabsf(y[i] - 1.0F / 0.7F) < 1e-6F);
        kept += y[i] != 0.0F;
    }
    assert_true(abs(kept - 140000) < 5 * 205); /* five standard deviations */
    fb_nn_dropout_apply(&other, again, false, x, COUNT, 1);
    for (int i = 0; i < COUNT; i++)
        same += (y[i] != 0.0F) == (again[i] != 0.0F);
    assert_true(abs(same - 116000) < 5 * 221); /* independent: 0.7^2 + 0.3^2 agree */
    free(memory);
}

static const int32_t ids[6] = {2, 0, 2, 3, 1, 2};

static void run_embedding(struct arrays *a)
{
    fb_nn_embedding_forward(a->y, a->w, ids, 6, 9, 2);
    fb_nn_position_forward(a->y, a->y, a->b, 2, 3, 9);
}

static void test_embedding_gradients_match_differences(void **state)
{
    (void)state;
    struct arrays *a = made(5);
    fb_nn_embedding_backward(a->dw, a->dy, ids, 6, 9, 2);
    fb_nn_position_backward(a->db, a->dy, 2, 3, 9);
    check_gradient(a, run_embedding, 54, a->w, a->dw, 36, "table");
    check_gradient(a, run_embedding, 54, a->b, a->db, 27, "positions");
    free(a);
}

static void test_sinusoid_has_its_first_values(void **state)
{
    (void)state;
    float table[3 * 4];
    fb_nn_position_sinusoid(table, 3, 4);
    assert_true(table[0] == 0.0F && table[1] == 1.0F);
    assert_true(fabsf(table[8] - sinf(2.0F)) < 1e-6F);
    assert_true(fabsf(table[10] - sinf(2.0F / 100.0F)) < 1e-6F);
    assert_true(fabsf(table[11] - cosf(2.0F / 100.0F)) < 1e-6F);
}

static void test_cross_entropy_has_its_value_and_gradient(void **state)
{
    (void)state;
    float logits[3 * 4] = {0, 0, 0, 0, 1, 2, 3, 4, 100, -100, 0, 0};
    const int32_t targets[3] = {2, FB_NN_IGNORED, 0};
    float gradient[3 * 4];
    assert_true(fabs(fb_nn_cross_entropy(gradient, logits, targets, 3, 4) - 0.5 * log(4.0)) < 1e-9);
    assert_true(fabsf(gradient[0] - 0.125F) < 1e-7F && fabsf(gradient[2] + 0.375F) < 1e-7F);
    for (int c = 4; c < 8; c++)
        assert_true(gradient[c] == 0.0F);
    for (int c = 8; c < 12; c++)
        assert_true(fabsf(gradient[c]) < 1e-30F);
    const int32_t none[3] = {FB_NN_IGNORED, FB_NN_IGNORED, FB_NN_IGNORED};
    assert_true(fb_nn_cross_entropy(NULL, logits, none, 3, 4) == 0.0);
    assert_int_equal(fb_nn_argmax(logits + 4, 4), 3);
}

static void test_precisions_have_names_and_types(void **state)
{
    (void)state;
    assert_string_equal(fb_nn_precision_name(FB_NN_F32), "f32");
    assert_string_equal(fb_nn_precision_name(FB_NN_TF32), "tf32");
    assert_string_equal(fb_nn_precision_name(FB_NN_BF16), "bf16");
    assert_int_equal(fb_nn_precision_dtype(FB_NN_TF32), FB_F32);
    assert_int_equal(fb_nn_precision_dtype(FB_NN_BF16), FB_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense_gradients_match_differences),
        cmocka_unit_test(test_dense_any_number_of_threads_gives_the_same_bits),
        cmocka_unit_test(test_layernorm_gradients_match_differences),
        cmocka_unit_test(test_layernorm_rows_have_mean_zero_and_variance_one),
        cmocka_unit_test(test_activation_slopes_match_differences),
        cmocka_unit_test(test_activations_have_their_published_values),
        cmocka_unit_test(test_dropout_comes_with_sums_and_activations),
        cmocka_unit_test(test_dropout_keeps_its_share_and_repeats),
        cmocka_unit_test(test_embedding_gradients_match_differences),
        cmocka_unit_test(test_sinusoid_has_its_first_values),
        cmocka_unit_test(test_cross_entropy_has_its_value_and_gradient),
        cmocka_unit_test(test_precisions_have_names_and_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
