/*
 * The gradient oracles against central differences of the forward oracles, over every option of
 * every mechanism, grouped queries and padding; and their contract. The golden files:
 * test_oracle_golden.c.
 */
#include "oracle.h"
#include "random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { B = 2, H = 4, LEN_MAX = 11, D = 3, M = 2, FEATURES = 5 };
enum { Q_MAX = B * H * LEN_MAX * D, OUT_MAX = B * H * LEN_MAX * M };

static const char *const phis[] = {"sigmoid", "relu", "elu+1", NULL};
static const char *const competitions[] = {"tokens", "heads", "off", NULL};
static const char *const kernels[] = {"softmax", "relu", NULL};
static const char *const patterns[] = {"window", "strided", NULL};
static const struct fb_param flow_params[] = {
    {.name = "phi", .type = FB_PARAM_CHOICE, .choices = phis},
    {.name = "clamp", .type = FB_PARAM_REAL, .default_value = 1},
    {.name = "extra_eps", .type = FB_PARAM_REAL},
    {.name = "competition", .type = FB_PARAM_CHOICE, .choices = competitions},
    {.name = "allocation", .type = FB_PARAM_BOOL, .default_value = 1},
};
static const struct fb_param performer_params[] = {
    {.name = "features", .type = FB_PARAM_INT},
    {.name = "kernel", .type = FB_PARAM_CHOICE, .choices = kernels},
};
static const struct fb_param local_params[] = {
    {.name = "window", .type = FB_PARAM_INT},
    {.name = "pattern", .type = FB_PARAM_CHOICE, .choices = patterns},
    {.name = "block", .type = FB_PARAM_INT},
};
static const struct fb_mechanism flow = {.name = "flow", .params = flow_params, .param_count = 5};
static const struct fb_mechanism softmax = {.name = "softmax"};
static const struct fb_mechanism linear = {.name = "linear"};
static const struct fb_mechanism performer = {
    .name = "performer", .params = performer_params, .param_count = 2};
static const struct fb_mechanism local = {
    .name = "local", .params = local_params, .param_count = 3};

struct fixture {
    const struct fb_mechanism *mechanism;
    struct fb_problem problem;
    float q[Q_MAX], k[Q_MAX], v[OUT_MAX], dout[OUT_MAX];
    float projection[FEATURES * D];
    struct fb_call call;
};

/* Values on a grid of 2^-14, so that steps of 2^-11 are exact in f32. */
static void fill(float *x, size_t count, uint64_t stream)
{
    struct fb_random random;
    fb_random_init(&random, 4, stream);
    for (size_t i = 0; i < count; i++)
        x[i] = (float)(round(fb_random_normal(&random) * 16384.0) / 16384.0);
}

static void init_fixture(struct fixture *f, const struct fb_mechanism *mechanism,
                         const double *params, bool causal, int64_t kv_heads, int64_t q_len,
                         int64_t kv_len)
{
    *f = (struct fixture){.mechanism = mechanism};
    fill(f->q, Q_MAX, 1);
    fill(f->k, Q_MAX, 2);
    fill(f->v, OUT_MAX, 3);
    fill(f->dout, OUT_MAX, 4);
    fill(f->projection, FEATURES * D, 5);
    f->problem = (struct fb_problem){.batch = B,
                                     .heads = H,
                                     .kv_heads = kv_heads,
                                     .q_len = q_len,
                                     .kv_len = kv_len,
                                     .qk_dim = D,
                                     .v_dim = M,
                                     .causal = causal};
    for (int i = 0; i < mechanism->param_count; i++)
        f->problem.params[i] = params[i];
    f->call.q = fb_tensor_dense(f->q, FB_F32, FB_BNHD, B, H, q_len, D);
    f->call.k = fb_tensor_dense(f->k, FB_F32, FB_BHND, B, kv_heads, kv_len, D);
    f->call.v = fb_tensor_dense(f->v, FB_F32, FB_BNHD, B, kv_heads, kv_len, M);
    f->call.dout = fb_tensor_dense(f->dout, FB_F32, FB_BHND, B, H, q_len, M);
    f->call.constants = f->projection;
}

static const int64_t all_rows[LEN_MAX] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};

/* sum(out * dout) over batch element b */
static double loss(const struct fixture *f, int64_t b)
{
    const int64_t len = f->problem.q_len;
    double out[LEN_MAX * M], sum = 0.0;
    for (int64_t h = 0; h < H; h++) {
        struct fb_error error = {0};
        if (fb_oracle_forward_rows(f->mechanism, &f->problem, &f->call, b, h, all_rows, (size_t)len,
                                   out, &error) != FB_OK)
            fail_msg("%s", error.text);
        for (int64_t t = 0; t < len; t++)
            for (int64_t m = 0; m < M; m++)
                sum += out[t * M + m] * (double)fb_tensor_row_f32(&f->call.dout, b, h, t)[m];
    }
    return sum;
}

static double slope(const struct fixture *f, int64_t b, float *x, double step)
{
    const float old = *x;
    *x = old + (float)step;
    const double above = loss(f, b);
    *x = old - (float)step;
    const double below = loss(f, b);
    *x = old;
    return (above - below) / (2.0 * step);
}

struct tally {
    size_t compared, kinks;
    double worst;
};

/* Fourth-order differences of every component of head h. Where steps of different lengths disagree
 * lies a kink (a clamp, relu, a maximum): such components are counted and left out. */
static void compare_head(const struct fixture *f, int64_t b, int64_t h, const struct fb_tensor *x,
                         const double *gradient, struct tally *tally)
{
    const double step = 1.0 / 2048.0;
    for (int64_t t = 0; t < x->shape[2]; t++)
        for (int64_t c = 0; c < x->shape[3]; c++) {
            float *value = fb_tensor_row_f32(x, b, h, t) + c;
            const double fine = slope(f, b, value, step), coarse = slope(f, b, value, 2.0 * step);
            const double limit = (4.0 * fine - coarse) / 3.0;
            const double wanted = gradient[t * x->shape[3] + c];
            if (fabs(fine - coarse) > 1e-4 * fmax(1.0, fabs(fine))) {
                tally->kinks++;
                continue;
            }
            tally->compared++;
            tally->worst = fmax(tally->worst, fabs(limit - wanted) / fmax(1.0, fabs(wanted)));
        }
}

static struct tally compare_differences(const struct fixture *f)
{
    const struct fb_problem *p = &f->problem;
    const int64_t group = p->heads / p->kv_heads;
    struct tally tally = {0};
    double dq[LEN_MAX * D], dk[LEN_MAX * D], dv[LEN_MAX * M];
    for (int64_t b = 0; b < B; b++)
        for (int64_t h = 0; h < H; h++) {
            const struct fb_oracle_gradients wanted = {.q_rows = all_rows,
                                                       .q_count = (size_t)p->q_len,
                                                       .dq = dq,
                                                       .kv_rows = all_rows,
                                                       .kv_count = (size_t)p->kv_len,
                                                       .dk = dk,
                                                       .dv = dv};
            struct fb_error error = {0};
            if (fb_oracle_backward_rows(f->mechanism, p, &f->call, b, h, &wanted, &error) != FB_OK)
                fail_msg("%s", error.text);
            compare_head(f, b, h, &f->call.q, dq, &tally);
            compare_head(f, b, h / group, &f->call.k, dk, &tally);
            compare_head(f, b, h / group, &f->call.v, dv, &tally);
        }
    return tally;
}

/* Lengths of the batch elements; {0} means none are given. */
static const struct {
    int64_t q_len, kv_len, kv_heads;
    int64_t q_lengths[B], kv_lengths[B];
} shapes[] = {
    {7, 7, H, {0}, {0}},       {6, 9, 2, {0}, {0}},       {9, 5, 1, {0}, {0}},
    {8, 8, 2, {5, 8}, {5, 8}}, {8, 6, H, {8, 3}, {2, 6}},
};

static const struct {
    const struct fb_mechanism *mechanism;
    double params[5];
    bool no_causal, self_only; /* what the mechanism cannot mean */
    double tolerance;
} variations[] = {
    {&flow, {0, 1, 0, 0, 1}, false, true, 1e-7},
    {&flow, {0, 0, 0, 0, 1}, false, true, 1e-7},
    {&flow, {0, 5, 1e-2, 0, 1}, false, true, 1e-7},
    {&flow, {0, 1, 0, 0, 0}, false, true, 1e-7},
    {&flow, {0, 1, 0, 2, 1}, false, true, 1e-7},
    {&flow, {0, 1, 0, 2, 0}, false, true, 1e-7},
    {&flow, {2, 1, 0, 0, 1}, false, true, 1e-7},
    {&flow, {1, 0, 1e-3, 0, 1}, false, true, 1e-7},
    {&flow, {0, 0, 0, 1, 1}, true, false, 1e-7},
    {&flow, {1, 0, 1e-3, 1, 1}, true, false, 1e-7},
    {&flow, {2, 1, 0, 1, 0}, true, false, 1e-7},
    {&softmax, {0}, false, false, 1e-7},
    {&linear, {0}, false, false, 1e-7},
    /* the maxima carry no gradient, but through the 1e-4 beside them they do matter */
    {&performer, {FEATURES, 0}, false, false, 0.1},
    {&performer, {0, 1}, false, false, 1e-7},
    {&local, {2, 0, 1}, false, false, 1e-7},
    {&local, {0, 0, 1}, false, false, 1e-7},
    {&local, {0, 1, 3}, false, false, 1e-7},
};

static void test_gradients_differences_of_forward_agree(void **state)
{
    (void)state;
    static struct fixture f;
    for (size_t v = 0; v < sizeof variations / sizeof variations[0]; v++)
        for (size_t s = 0; s < 2 * sizeof shapes / sizeof shapes[0]; s++) {
            const size_t i = s / 2;
            const bool causal = s % 2 != 0, padded = shapes[i].q_lengths[0] > 0;
            const bool is_self = shapes[i].q_len == shapes[i].kv_len;
            if (causal && (variations[v].no_causal || (variations[v].self_only && !is_self)))
                continue;
            init_fixture(&f, variations[v].mechanism, variations[v].params, causal,
                         shapes[i].kv_heads, shapes[i].q_len, shapes[i].kv_len);
            f.problem.q_lengths = padded ? shapes[i].q_lengths : NULL;
            f.problem.kv_lengths = padded ? shapes[i].kv_lengths : NULL;
            const struct tally tally = compare_differences(&f);
            if (!(tally.worst < variations[v].tolerance) || tally.compared < 4 * tally.kinks)
                fail_msg("%s, variation %zu, shape %zu, causal %d: worst %.2e of %zu, %zu kinks",
                         f.mechanism->name, v, i, causal, tally.worst, tally.compared, tally.kinks);
        }
}

/* Rows asked for one by one are those of all together; nothing else is written. */
static void test_gradients_single_rows_are_those_of_all(void **state)
{
    (void)state;
    static const struct fb_mechanism *const mechanisms[] = {&flow, &softmax, &linear, &performer,
                                                            &local};
    static const double params[][5] = {{0, 1, 0, 0, 1}, {0}, {0}, {FEATURES, 0}, {2, 0, 1}};
    static struct fixture f;
    for (size_t i = 0; i < 10; i++) {
        double all[3][LEN_MAX * D], one[3][LEN_MAX * D];
        struct fb_error error = {0};
        init_fixture(&f, mechanisms[i / 2], params[i / 2], i % 2 != 0, 2, 9, 9);
        struct fb_oracle_gradients wanted = {all_rows, 9,      all[0], all_rows, 9,
                                             all[1],   all[2], NULL,   0.0};
        assert_int_equal(
            fb_oracle_backward_rows(f.mechanism, &f.problem, &f.call, 1, 3, &wanted, &error),
            FB_OK);
        for (int64_t row = 0; row < 9; row++) {
            for (int part = 0; part < 2; part++) {
                memset(one, 0xff, sizeof one);
                wanted = (struct fb_oracle_gradients){&all_rows[row], part == 0, one[0],
                                                      &all_rows[row], part == 1, one[1],
                                                      one[2],         NULL,      0.0};
                assert_int_equal(fb_oracle_backward_rows(f.mechanism, &f.problem, &f.call, 1, 3,
                                                         &wanted, &error),
                                 FB_OK);
                for (int tensor = part; tensor < (part == 0 ? 1 : 3); tensor++) {
                    const int dim = tensor == 2 ? M : D;
                    for (int c = 0; c < dim; c++)
                        assert_true(fabs(one[tensor][c] - all[tensor][row * dim + c]) < 1e-13);
                    assert_true(isnan(one[tensor][dim]) != 0);
                }
                assert_true(isnan(one[part == 0 ? 1 : 0][0]) != 0);
            }
        }
    }
}

static void test_gradients_bad_requests_are_refused(void **state)
{
    (void)state;
    static struct fixture f;
    static const double params[5] = {0, 1, 0, 1, 1};
    double dq[2 * D], dk[2 * D], dv[2 * M];
    const int64_t good[2] = {0, 1}, descending[2] = {1, 0}, outside[2] = {0, 7};
    struct fb_error error = {0};
    init_fixture(&f, &softmax, params, false, H, 7, 7);
    struct fb_oracle_gradients wanted = {descending, 2, dq, good, 2, dk, dv, NULL, 0.0};
    const struct fb_oracle_gradients keys_outside = {good, 2, dq, outside, 2, dk, dv, NULL, 0.0};
    const struct fb_oracle_gradients nothing = {good, 0, dq, good, 0, dk, dv, NULL, 0.0};
#define BACKWARD(request)                                                                          \
    fb_oracle_backward_rows(f.mechanism, &f.problem, &f.call, 0, 0, request, &error)
    assert_int_equal(BACKWARD(&wanted), FB_ERROR_USAGE);
    assert_non_null(strstr(error.text, "query row"));
    assert_int_equal(BACKWARD(&keys_outside), FB_ERROR_USAGE);
    assert_non_null(strstr(error.text, "key row 7"));
    assert_int_equal(BACKWARD(&nothing), FB_ERROR_USAGE);
    wanted.q_rows = good;
    assert_int_equal(BACKWARD(&wanted), FB_OK);
    f.call.dout.shape[2] = 6;
    assert_int_equal(BACKWARD(&wanted), FB_ERROR_USAGE);
    init_fixture(&f, &flow, params, true, H, 7, 7);
    assert_int_equal(BACKWARD(&wanted), FB_ERROR_UNSUPPORTED); /* causal over heads */
    assert_non_null(strstr(error.text, "heads"));
#undef BACKWARD
}

/* The sums hold for exact gradients, and no longer when one row is missing. */
static void test_softmax_sums_missing_row_is_found(void **state)
{
    (void)state;
    static struct fixture f;
    static float dk[B * 2 * LEN_MAX * D], dv[B * 2 * LEN_MAX * M];
    static const int64_t q_lengths[B] = {9, 4}, kv_lengths[B] = {5, 9};
    init_fixture(&f, &softmax, NULL, true, 2, 9, 9);
    f.problem.q_lengths = q_lengths;
    f.problem.kv_lengths = kv_lengths;
    f.call.dk = fb_tensor_dense(dk, FB_F32, FB_BHND, B, 2, 9, D);
    f.call.dv = fb_tensor_dense(dv, FB_F32, FB_BHND, B, 2, 9, M);
    for (int64_t b = 0; b < B; b++)
        for (int64_t h = 0; h < 2; h++) {
            double dk_rows[LEN_MAX * D], dv_rows[LEN_MAX * M], dk_error, dv_error;
            struct fb_error error = {0};
            const struct fb_oracle_gradients wanted = {NULL,    0,       NULL, all_rows, 9,
                                                       dk_rows, dv_rows, NULL, 0.0};
            assert_int_equal(
                fb_oracle_backward_rows(&softmax, &f.problem, &f.call, b, 2 * h, &wanted, &error),
                FB_OK);
            for (int i = 0; i < 9 * D; i++)
                fb_tensor_row_f32(&f.call.dk, b, h, 0)[i] = (float)dk_rows[i];
            for (int i = 0; i < 9 * M; i++)
                fb_tensor_row_f32(&f.call.dv, b, h, 0)[i] = (float)dv_rows[i];
            fb_oracle_softmax_sums(&f.problem, &f.call, b, h, &dk_error, &dv_error);
            assert_true(dk_error < 1e-6 && dv_error < 1e-6);
            memset(fb_tensor_row_f32(&f.call.dk, b, h, 2), 0, D * sizeof(float));
            memset(fb_tensor_row_f32(&f.call.dv, b, h, 2), 0, M * sizeof(float));
            fb_oracle_softmax_sums(&f.problem, &f.call, b, h, &dk_error, &dv_error);
            assert_true(dk_error > 1e-3 && dv_error > 1e-3);
        }
}

static void test_gradient_cost_grows_with_rows_and_group(void **state)
{
    (void)state;
    static const struct fb_mechanism *const mechanisms[] = {&flow, &softmax, &linear, &performer,
                                                            &local};
    for (size_t i = 0; i < 5; i++) {
        struct fb_problem p = {.batch = 1,
                               .heads = 8,
                               .kv_heads = 8,
                               .q_len = 4096,
                               .kv_len = 4096,
                               .qk_dim = 64,
                               .v_dim = 64,
                               .params = {64, 1}};
        if (mechanisms[i] != &performer)
            p.params[0] = p.params[1] = 0;
        const double queries = fb_oracle_backward_cost(mechanisms[i], &p, 4, 0);
        const double both = fb_oracle_backward_cost(mechanisms[i], &p, 4, 4);
        assert_true(queries > 0.0 && isfinite(both));
        assert_true(both > queries);
        p.kv_heads = 2;
        assert_true(fb_oracle_backward_cost(mechanisms[i], &p, 4, 4) > both);
    }
    const struct fb_mechanism unknown = {.name = "unknown"};
    const struct fb_problem p = {.heads = 1, .kv_heads = 1};
    assert_true(isinf(fb_oracle_backward_cost(&unknown, &p, 1, 1)) != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_differences_of_forward_agree),
        cmocka_unit_test(test_gradients_single_rows_are_those_of_all),
        cmocka_unit_test(test_gradients_bad_requests_are_refused),
        cmocka_unit_test(test_softmax_sums_missing_row_is_found),
        cmocka_unit_test(test_gradient_cost_grows_with_rows_and_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
