/* Vector functions against double precision, and tiles against plain loops, for every instruction
 * set that this machine has. */
#include "cpu_features.h"
#include "random.h"
#include "tile_gemm.h"
#include "vector_math_probe.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct probe {
    enum fb_isa isa;
    void (*exp)(const float *, float *, int64_t);
    void (*sigmoid)(const float *, float *, int64_t);
    void (*sigmoid_rows)(const float *, float *, int64_t);
    void (*elu_plus_1)(const float *, float *, int64_t);
    void (*dot)(const float *, int64_t, int64_t, int64_t, const float *, float *);
    void (*accumulate)(const float *, int64_t, int64_t, int64_t, const float *, float *);
    void (*transpose)(const float *, int64_t, int64_t, int64_t, float *, int64_t);
    void (*carry_add)(float *, float *, const float *, int64_t);
    void (*gemm)(FB_TILE_GEMM_ARGS);
    void (*gemm_lower)(FB_TILE_GEMM_ARGS);
    void (*gemm_extra)(FB_TILE_GEMM_ARGS, struct fb_tile_extra *);
    int64_t width;
};

#define PROBE(value, isa, width)                                                                   \
    {                                                                                              \
        value, probe_exp_##isa, probe_sigmoid_##isa, probe_sigmoid_rows_##isa,                     \
            probe_elu_plus_1_##isa, probe_rows_dot_##isa, probe_rows_accumulate_##isa,             \
            probe_transpose_##isa, probe_carry_add_##isa, fb_tile_gemm_##isa,                      \
            fb_tile_gemm_lower_##isa, fb_tile_gemm_extra_##isa, width                              \
    }
static const struct probe probes[] = {
    PROBE(FB_ISA_SCALAR, scalar, 1),
#if defined(FB_BUILT_NEON)
    PROBE(FB_ISA_NEON, neon, 4),
#endif
#if defined(FB_BUILT_AVX2)
    PROBE(FB_ISA_AVX2, avx2, 8),
#endif
#if defined(FB_BUILT_AVX512)
    PROBE(FB_ISA_AVX512, avx512, 16),
#endif
};

enum { POINTS = 64 * 3125 };

/* The largest error in units of the last place of the exact result. */
static double worst_ulp(void (*f)(const float *, float *, int64_t), double (*exact)(double),
                        float low, float high)
{
    float *x = malloc(POINTS * sizeof *x), *y = malloc(POINTS * sizeof *y);
    assert_true(x != NULL && y != NULL);
    for (int i = 0; i < POINTS; i++) {
        x[i] = low + (high - low) * (float)i / (float)(POINTS - 1);
    }
    f(x, y, POINTS);
    double worst = 0.0;
    for (int i = 0; i < POINTS; i++) {
        const double want = exact((double)x[i]);
        int exponent;
        frexp(want, &exponent);
        const double error = fabs((double)y[i] - want) / ldexp(1.0, exponent - 24);
        worst = error > worst || isnan(error) ? error : worst;
    }
    free(x);
    free(y);
    return worst;
}

static double exact_sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static double exact_elu_plus_1(double x)
{
    return x > 0.0 ? x + 1.0 : exp(x);
}

#define FOR_EACH_PROBE(p)                                                                          \
    for (const struct probe *p = probes; p < probes + sizeof probes / sizeof probes[0]; p++)       \
        if (fb_cpu_has(p->isa))

static void test_exp_full_range_within_two_ulp(void **state)
{
    (void)state;
    FOR_EACH_PROBE(p)
    {
        assert_true(worst_ulp(p->exp, exp, -87.3F, 88.3F) < 2.0);
        assert_true(worst_ulp(p->exp, exp, -1.0F, 1.0F) < 2.0);
    }
}

static void test_sigmoid_full_range_within_five_ulp(void **state)
{
    (void)state;
    FOR_EACH_PROBE(p)
    {
        assert_true(worst_ulp(p->sigmoid, exact_sigmoid, -86.9F, 100.0F) < 5.0);
        assert_true(worst_ulp(p->sigmoid, exact_sigmoid, -4.0F, 4.0F) < 5.0);
    }
}

/* Within the fast way's reach, across its edge, and far beyond it. */
static void test_sigmoid_rows_full_range_within_twelve_ulp(void **state)
{
    (void)state;
    FOR_EACH_PROBE(p)
    {
        assert_true(worst_ulp(p->sigmoid_rows, exact_sigmoid, -21.0F, 21.0F) < 12.0);
        assert_true(worst_ulp(p->sigmoid_rows, exact_sigmoid, -4.0F, 4.0F) < 7.0);
        assert_true(worst_ulp(p->sigmoid_rows, exact_sigmoid, -86.9F, 300.0F) < 12.0);
    }
}

static void test_sigmoid_rows_special_values_stay_special(void **state)
{
    (void)state;
    const float special[5] = {-INFINITY, INFINITY, NAN, -1e30F, 1e30F};
    float x[PROBE_DIM], y[PROBE_DIM];
    FOR_EACH_PROBE(p)
    {
        for (int s = 0; s < 5; s++) {
            memset(x, 0, sizeof x);
            x[7] = special[s];
            p->sigmoid_rows(x, y, PROBE_DIM);
            if (isnan(special[s])) {
                assert_true(isnan(y[7]));
            } else {
                assert_true(special[s] > 0.0F ? y[7] == 1.0F : y[7] >= 0.0F && y[7] < 1e-37F);
            }
            assert_true(y[6] == 0.5F && y[8] == 0.5F);
        }
    }
}

static void test_rows_dot_and_accumulate_match_definition(void **state)
{
    (void)state;
    enum { ROWS = 37, COLS = 80, STRIDE = 83 };
    float x[ROWS * STRIDE], v[COLS], weight[ROWS], dots[ROWS], sums[COLS];
    fb_random_fill_normal_f32(x, ROWS * STRIDE, 1.0F, 1, 1, 1);
    fb_random_fill_normal_f32(v, COLS, 1.0F, 1, 2, 1);
    fb_random_fill_normal_f32(weight, ROWS, 1.0F, 1, 3, 1);
    FOR_EACH_PROBE(p)
    {
        memset(sums, 0, sizeof sums);
        p->dot(x, STRIDE, ROWS, COLS, v, dots);
        p->accumulate(x, STRIDE, ROWS, COLS, weight, sums);
        p->accumulate(x, STRIDE, ROWS, COLS, NULL, sums);
        for (int i = 0; i < ROWS; i++) {
            double want = 0.0;
            for (int j = 0; j < COLS; j++) {
                want += (double)x[i * STRIDE + j] * (double)v[j];
            }
            assert_true(fabs((double)dots[i] - want) < 1e-5 * COLS);
        }
        for (int j = 0; j < COLS; j++) {
            double want = 0.0;
            for (int i = 0; i < ROWS; i++) {
                want += (double)x[i * STRIDE + j] * (1.0 + (double)weight[i]);
            }
            assert_true(fabs((double)sums[j] - want) < 1e-5 * ROWS);
        }
    }
}

static void test_elu_plus_1_within_two_ulp(void **state)
{
    (void)state;
    FOR_EACH_PROBE(p)
    {
        assert_true(worst_ulp(p->elu_plus_1, exact_elu_plus_1, -80.0F, 1000.0F) < 2.0);
        assert_true(worst_ulp(p->elu_plus_1, exact_elu_plus_1, -1.0F, 1.0F) < 2.0);
    }
}

static void test_special_values_stay_special(void **state)
{
    (void)state;
    const float x[4] = {-INFINITY, INFINITY, NAN, -1000.0F};
    float y[4];
    FOR_EACH_PROBE(p)
    {
        p->exp(x, y, 4);
        assert_true(y[0] == 0.0F && y[1] > 2e38F && isnan(y[2]) && y[3] == 0.0F);
        p->sigmoid(x, y, 4);
        assert_true(y[0] >= 0.0F && y[0] < 1e-37F && y[1] == 1.0F && isnan(y[2]));
        p->elu_plus_1(x, y, 4);
        assert_true(y[0] == 0.0F && isinf(y[1]) && isnan(y[2]) && y[3] == 0.0F);
    }
}

static void test_transpose_any_shape_moves_every_element(void **state)
{
    (void)state;
    enum { STRIDE = 37, OUT = 41 };
    float x[40 * STRIDE], y[STRIDE * OUT];
    for (int i = 0; i < 40 * STRIDE; i++) {
        x[i] = (float)i;
    }
    const int shapes[][2] = {{1, 1}, {4, 4}, {5, 3}, {7, 37}, {40, 16}, {13, 33}};
    FOR_EACH_PROBE(p)
    {
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            memset(y, 0xff, sizeof y);
            p->transpose(x, STRIDE, shapes[s][0], shapes[s][1], y, OUT);
            for (int i = 0; i < shapes[s][0]; i++) {
                for (int j = 0; j < shapes[s][1]; j++) {
                    assert_true(y[j * OUT + i] == x[i * STRIDE + j]);
                }
            }
        }
    }
}

static void test_carry_add_long_sum_keeps_digits(void **state)
{
    (void)state;
    FOR_EACH_PROBE(p)
    {
        float hi[16] = {0}, lo[16] = {0}, x[16];
        double exact = 0.0;
        for (int i = 0; i < 100000; i++) {
            const float value = 0.1F + 1e-3F * (float)(i % 7);
            for (int j = 0; j < 16; j++) {
                x[j] = value;
            }
            exact += (double)value;
            p->carry_add(hi, lo, x, 16);
        }
        for (int j = 0; j < 16; j++) {
            assert_true(fabs((double)hi[j] - exact) < 1e-7 * exact);
        }
    }
}

/* C by the definition, in double, against the tile product. */
static void check_gemm(const struct probe *p, int64_t m, int64_t n, int64_t k, bool turned,
                       bool accumulate, bool lower)
{
    const int64_t lda = turned ? m + 3 : k + 3, ldb = n + 5, ldc = n + 2;
    const int64_t a_row = turned ? 1 : lda, a_col = turned ? lda : 1;
    const int64_t a_count = turned ? k * lda : m * lda;
    float *a = calloc((size_t)a_count, sizeof *a), *b = malloc((size_t)(k * ldb) * sizeof *b);
    float *c = malloc((size_t)(m * ldc) * sizeof *c), *old = malloc((size_t)(m * ldc) * sizeof *c);
    assert_true(a != NULL && b != NULL && c != NULL && old != NULL);
    fb_random_fill_normal_f32(b, k * ldb, 1.0F, 1, 1, 1);
    fb_random_fill_normal_f32(c, m * ldc, 1.0F, 1, 2, 1);
    memcpy(old, c, (size_t)(m * ldc) * sizeof *c);
    struct fb_random random;
    fb_random_init(&random, 5, 5);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t q = 0; q < k; q++) {
            a[i * a_row + q * a_col] = lower && q > i ? 0.0F : (float)fb_random_normal(&random);
        }
    }
    (lower ? p->gemm_lower : p->gemm)(m, n, k, a, a_row, a_col, b, ldb, c, ldc, accumulate);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < ldc; j++) {
            double want = j >= n || accumulate ? (double)old[i * ldc + j] : 0.0;
            double size = fabs(want);
            for (int64_t q = 0; j < n && q < k; q++) {
                const double term = (double)a[i * a_row + q * a_col] * (double)b[q * ldb + j];
                want += term;
                size += fabs(term);
            }
            assert_true(fabs((double)c[i * ldc + j] - want) <=
                        size * (double)FLT_EPSILON * 0.5 * (double)(k + 2));
        }
    }
    free(a);
    free(b);
    free(c);
    free(old);
}

static void test_tile_gemm_any_shape_matches_definition(void **state)
{
    (void)state;
    const int64_t sizes[][3] = {{1, 1, 1},    {6, 64, 64},  {7, 65, 3}, {64, 64, 64}, {13, 5, 17},
                                {5, 31, 100}, {12, 128, 8}, {3, 16, 1}, {65, 40, 65}};
    FOR_EACH_PROBE(p)
    {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            for (int flags = 0; flags < 4; flags++) {
                check_gemm(p, sizes[i][0], sizes[i][1], sizes[i][2], (flags & 1) != 0,
                           (flags & 2) != 0, false);
            }
            check_gemm(p, sizes[i][0], sizes[i][1], sizes[i][0], false, true, true);
        }
    }
}

/* Scaled in place, while lines are fetched that end in the middle of the product. */
static void test_tile_gemm_extra_scales_rows_and_fetches(void **state)
{
    (void)state;
    enum { M = 23, N = 3, K = 3 };
    const float b[K * N] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    static const float far[64] = {0};
    FOR_EACH_PROBE(p)
    {
        float c[M * N], scale[M], want[M * N];
        for (int i = 0; i < M; i++) {
            scale[i] = (float)(i + 1);
            for (int j = 0; j < N; j++) {
                c[i * N + j] = (float)(i - j);
                want[i * N + j] = 0.0F;
            }
            for (int q = 0; q < K * N; q++) {
                want[i * N + q % N] += scale[i] * c[i * N + q / N] * b[q];
            }
        }
        struct fb_tile_extra extra = {
            .scale = scale,
            .fetch = {{(const char *)far, 64}, {NULL, 0}, {(const char *)far, 128}},
        };
        p->gemm_extra(M, N, K, c, N, 1, b, N, c, N, false, &extra);
        for (int i = 0; i < M * N; i++) {
            assert_true(c[i] == want[i]);
        }
    }
}

/* C = L M + A B and twin += the same, small integers, so that nothing is rounded; lines are fetched
 * or not. Columns beyond n stay. */
static void check_gemm_joined(const struct probe *p, int m, int n, int k, bool fetching)
{
    enum { ROOM = 160 };
    static float a[ROOM * ROOM], b[ROOM * ROOM], l[ROOM * ROOM], c[ROOM * ROOM], twin[ROOM * ROOM];
    for (int i = 0; i < ROOM; i++) {
        for (int j = 0; j < ROOM; j++) {
            const int at = i * ROOM + j;
            a[at] = (float)((3 * i + j) % 5 - 2);
            b[at] = (float)((i + 2 * j) % 7 - 3);
            l[at] = j > i ? 0.0F : (float)((i + j) % 3 - 1);
            c[at] = 1000.0F;
            twin[at] = (float)(i - j);
        }
    }
    struct fb_tile_extra extra = {.lower = {l, b + 1, ROOM, ROOM, m}, .twin = twin};
    extra.fetch[0] = (struct fb_tile_range){(const char *)a, fetching ? 640 : 0};
    p->gemm_extra(m, n, k, a, ROOM, 1, b, ROOM, c, ROOM, false, &extra);
    for (int i = 0; i < m; i++) {
        for (int j = 0; j + 1 < ROOM; j++) {
            float want = 0.0F;
            for (int q = 0; q < k; q++) {
                want += a[i * ROOM + q] * b[q * ROOM + j];
            }
            for (int q = 0; q <= i; q++) {
                want += l[i * ROOM + q] * b[q * ROOM + j + 1];
            }
            assert_true(c[i * ROOM + j] == (j < n ? want : 1000.0F));
            assert_true(twin[i * ROOM + j] == (float)(i - j) + (j < n ? want : 0.0F));
        }
    }
}

static void test_tile_gemm_extra_joins_a_triangle_and_feeds_a_twin(void **state)
{
    (void)state;
    const int sizes[][3] = {{1, 1, 1},   {16, 64, 9},  {32, 64, 64}, {13, 5, 3},
                            {7, 100, 2}, {33, 128, 1}, {30, 37, 70}};
    FOR_EACH_PROBE(p)
    {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            check_gemm_joined(p, sizes[i][0], sizes[i][1], sizes[i][2], false);
            check_gemm_joined(p, sizes[i][0], sizes[i][1], sizes[i][2], true);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp_full_range_within_two_ulp),
        cmocka_unit_test(test_sigmoid_full_range_within_five_ulp),
        cmocka_unit_test(test_sigmoid_rows_full_range_within_twelve_ulp),
        cmocka_unit_test(test_sigmoid_rows_special_values_stay_special),
        cmocka_unit_test(test_rows_dot_and_accumulate_match_definition),
        cmocka_unit_test(test_elu_plus_1_within_two_ulp),
        cmocka_unit_test(test_special_values_stay_special),
        cmocka_unit_test(test_transpose_any_shape_moves_every_element),
        cmocka_unit_test(test_carry_add_long_sum_keeps_digits),
        cmocka_unit_test(test_tile_gemm_any_shape_matches_definition),
        cmocka_unit_test(test_tile_gemm_extra_scales_rows_and_fetches),
        cmocka_unit_test(test_tile_gemm_extra_joins_a_triangle_and_feeds_a_twin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
