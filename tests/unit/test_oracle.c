/*
 * The oracles against what they did not come from: the reference values of spec/attention.md
 * section 7 (printed to 1e-7) and the golden files (float64), and their own contract.
 * Argument: the folder of the golden files.
 */
#include "judge.h"
#include "oracle.h"
#include "safetensors.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *golden_folder;

/* Mechanisms as the oracles see them: a name and the parameters. Kernels are not linked here. */
static const struct fb_param features_param = {.name = "features", .type = FB_PARAM_INT};
static const struct fb_param window_param = {.name = "window", .type = FB_PARAM_INT};
/* In another order than the kernels': an oracle goes by the names. */
enum { RELU, SIGMOID, ELU };
enum { OFF, HEADS, TOKENS };
static const char *const phi_names[] = {"relu", "sigmoid", "elu+1", NULL};
static const char *const competition_names[] = {"off", "heads", "tokens", NULL};
static const struct fb_param flow_params[] = {
    {.name = "phi", .type = FB_PARAM_CHOICE, .choices = phi_names},
    {.name = "clamp", .type = FB_PARAM_REAL},
    {.name = "extra_eps", .type = FB_PARAM_REAL},
    {.name = "competition", .type = FB_PARAM_CHOICE, .choices = competition_names},
    {.name = "allocation", .type = FB_PARAM_BOOL},
};
#define DEFAULTS                                                                                   \
    {                                                                                              \
        SIGMOID, 1, 0, TOKENS, 1                                                                   \
    }

static const struct fb_mechanism mechanisms[] = {
    {.name = "flow", .params = flow_params, .param_count = 5},
    {.name = "softmax"},
    {.name = "linear"},
    {.name = "performer", .params = &features_param, .param_count = 1},
    {.name = "local", .params = &window_param, .param_count = 1},
};

static const struct fb_mechanism *find_mechanism(const char *name)
{
    for (size_t i = 0; i < sizeof mechanisms / sizeof mechanisms[0]; i++)
        if (strcmp(mechanisms[i].name, name) == 0)
            return &mechanisms[i];
    return NULL;
}

/* ---- spec/attention.md section 7 ------------------------------------------------------------ */

enum { SPEC_HEADS = 2, SPEC_D = 3, SPEC_M = 2, SPEC_MAX = 6 };

struct spec_case {
    const char *mechanism;
    bool causal;
    char set;         /* A or B */
    double params[5]; /* of flow, in the order of flow_params */
    double values[SPEC_HEADS * SPEC_MAX * SPEC_M];
};

#include "oracle_spec_values.h"

static void fill_spec_set(char set, int len, float *q, float *k, float *v)
{
    for (int h = 0; h < SPEC_HEADS; h++)
        for (int t = 0; t < len; t++) {
            const int at = h * len + t;
            for (int d = 0; d < SPEC_D; d++) {
                const double wave = sin(0.9 * t + 1.7 * h + 0.5 * d + 0.3);
                q[at * SPEC_D + d] = (float)(set == 'A' ? 1.5 * wave : 3.0 * wave - 1.0);
                k[at * SPEC_D + d] =
                    (float)(set == 'A'
                                ? 1.5 * cos(0.7 * t - 0.6 * h + 1.1 * d + 0.2)
                                : 3.0 * cos(1.3 * t - 0.6 * h + 1.1 * d + 0.2) + 0.5 * t - 1.5);
            }
            for (int m = 0; m < SPEC_M; m++)
                v[at * SPEC_M + m] = (float)sin(0.4 * t + 0.8 * h - 1.3 * m + 0.1);
        }
}

static void test_oracle_spec_values_agree(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof spec_cases / sizeof spec_cases[0]; i++) {
        const struct spec_case *c = &spec_cases[i];
        const int len = c->set == 'A' ? 5 : 6;
        float q[SPEC_HEADS * SPEC_MAX * SPEC_D], k[SPEC_HEADS * SPEC_MAX * SPEC_D];
        float v[SPEC_HEADS * SPEC_MAX * SPEC_M];
        fill_spec_set(c->set, len, q, k, v);
        struct fb_problem problem = {.batch = 1,
                                     .heads = SPEC_HEADS,
                                     .kv_heads = SPEC_HEADS,
                                     .q_len = len,
                                     .kv_len = len,
                                     .qk_dim = SPEC_D,
                                     .v_dim = SPEC_M,
                                     .causal = c->causal};
        memcpy(problem.params, c->params, sizeof c->params);
        const struct fb_call call = {
            .q = fb_tensor_dense(q, FB_F32, FB_BHND, 1, SPEC_HEADS, len, SPEC_D),
            .k = fb_tensor_dense(k, FB_F32, FB_BHND, 1, SPEC_HEADS, len, SPEC_D),
            .v = fb_tensor_dense(v, FB_F32, FB_BHND, 1, SPEC_HEADS, len, SPEC_M),
        };
        const int64_t rows[SPEC_MAX] = {0, 1, 2, 3, 4, 5};
        for (int h = 0; h < SPEC_HEADS; h++) {
            double out[SPEC_MAX * SPEC_M];
            struct fb_error error = {0};
            assert_int_equal(fb_oracle_forward_rows(find_mechanism(c->mechanism), &problem, &call,
                                                    0, h, rows, (size_t)len, out, &error),
                             FB_OK);
            for (int at = 0; at < len * SPEC_M; at++) {
                const double wanted = c->values[h * len * SPEC_M + at];
                /* printed to seven digits, inputs rounded to f32 */
                if (!(fabs(out[at] - wanted) < 1.6e-7 * fmax(1.0, fabs(wanted))))
                    fail_msg("%s%s set %c head %d element %d: %.9f instead of %.7f", c->mechanism,
                             c->causal ? " causal" : "", c->set, h, at, out[at], wanted);
            }
        }
    }
}

/* ---- golden files --------------------------------------------------------------------------- */

struct golden {
    struct fb_safetensors file;
    struct fb_arena arena;
    const struct fb_mechanism *mechanism;
    struct fb_problem problem;
    struct fb_call call;
    double *out;
};

static struct fb_tensor golden_tensor(struct golden *g, const char *name)
{
    struct fb_error error = {0};
    float *values = NULL;
    const struct fb_safetensors_tensor *t = NULL;
    if (fb_safetensors_read_f32(&g->file, name, &g->arena, &values, &t, &error) != FB_OK)
        fail_msg("%s", error.text);
    assert_int_equal(t->rank, 4);
    return fb_tensor_dense(values, FB_F32, FB_BHND, t->shape[0], t->shape[1], t->shape[2],
                           t->shape[3]);
}

static int golden_parameter(const struct golden *g, const char *name)
{
    const char *text = fb_safetensors_metadata_find(&g->file, name);
    return text ? atoi(text) : 0;
}

static void golden_open(struct golden *g, const char *path)
{
    struct fb_error error = {0};
    *g = (struct golden){0};
    fb_arena_init(&g->arena, 0);
    if (fb_safetensors_open(&g->file, path, &error) != FB_OK)
        fail_msg("%s", error.text);
    const char *name = fb_safetensors_metadata_find(&g->file, "mechanism");
    assert_non_null(name);
    g->mechanism = find_mechanism(name);
    assert_non_null(g->mechanism);
    g->call.q = golden_tensor(g, "q");
    g->call.k = golden_tensor(g, "k");
    g->call.v = golden_tensor(g, "v");
    if (fb_safetensors_find(&g->file, "projection")) {
        float *projection = NULL;
        assert_int_equal(
            fb_safetensors_read_f32(&g->file, "projection", &g->arena, &projection, NULL, &error),
            FB_OK);
        g->call.constants = projection;
    }
    assert_int_equal(fb_safetensors_read_f64(&g->file, "out", &g->arena, &g->out, NULL, &error),
                     FB_OK);
    g->problem = (struct fb_problem){
        .batch = g->call.q.shape[0],
        .heads = g->call.q.shape[1],
        .kv_heads = g->call.k.shape[1],
        .q_len = g->call.q.shape[2],
        .kv_len = g->call.k.shape[2],
        .qk_dim = g->call.q.shape[3],
        .v_dim = g->call.v.shape[3],
        .causal = strcmp(fb_safetensors_metadata_find(&g->file, "causal"), "true") == 0,
    };
    static const double flow_defaults[] = DEFAULTS;
    if (strcmp(name, "flow") == 0)
        memcpy(g->problem.params, flow_defaults, sizeof flow_defaults);
    else
        g->problem.params[0] = golden_parameter(g, "features") + golden_parameter(g, "window");
}

static void golden_close(struct golden *g)
{
    fb_safetensors_close(&g->file);
    fb_arena_free(&g->arena);
}

/* Largest |oracle - golden| / max(max|golden|, max|v|) over every head, asking for every
 * step-th row. */
static double golden_error(const struct golden *g, int64_t step)
{
    const struct fb_problem *p = &g->problem;
    const int64_t m = p->v_dim;
    int64_t *rows = malloc((size_t)p->q_len * sizeof *rows);
    double *out = malloc((size_t)(p->q_len * m) * sizeof *out);
    assert_true(rows && out);
    size_t count = 0;
    for (int64_t row = step - 1; row < p->q_len; row += step)
        rows[count++] = row;
    double worst = 0.0, size = fb_judge_max_abs(&g->call.v);
    for (int64_t b = 0; count > 0 && b < p->batch; b++)
        for (int64_t h = 0; h < p->heads; h++) {
            struct fb_error error = {0};
            if (fb_oracle_forward_rows(g->mechanism, p, &g->call, b, h, rows, count, out, &error) !=
                FB_OK)
                fail_msg("%s", error.text);
            for (size_t r = 0; r < count; r++)
                for (int64_t c = 0; c < m; c++) {
                    const double wanted = g->out[((b * p->heads + h) * p->q_len + rows[r]) * m + c];
                    const double diff = fabs(out[(int64_t)r * m + c] - wanted);
                    assert_true(isfinite(diff) != 0);
                    worst = fmax(worst, diff);
                    size = fmax(size, fabs(wanted));
                }
        }
    free(rows);
    free(out);
    return worst / size;
}

static void test_oracle_golden_files_agree(void **state)
{
    (void)state;
    DIR *folder = opendir(golden_folder);
    assert_non_null(folder);
    size_t files = 0;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (!strstr(entry->d_name, ".safetensors") || strstr(entry->d_name, "training"))
            continue;
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", golden_folder, entry->d_name);
        struct golden g;
        golden_open(&g, path);
        const double all = golden_error(&g, 1), some = golden_error(&g, 7);
        if (!(all < 1e-12) || !(some < 1e-12))
            fail_msg("%s: error %.2e over all rows, %.2e over some", path, all, some);
        golden_close(&g);
        files++;
    }
    closedir(folder);
    assert_int_equal(files, 40);
}

/* ---- contract ------------------------------------------------------------------------------- */

struct tiny {
    float q[24], k[24], v[24];
    struct fb_problem problem;
    struct fb_call call;
    double out[24];
};

/* heads query heads of q_len tokens, kv_heads key heads of kv_len tokens, dimension 2. */
static void tiny_init(struct tiny *t, int64_t heads, int64_t kv_heads, int64_t q_len,
                      int64_t kv_len)
{
    *t = (struct tiny){0};
    for (int i = 0; i < 24; i++) {
        t->q[i] = (float)sin(i);
        t->k[i] = (float)cos(2 * i);
        t->v[i] = (float)sin(3 * i + 1);
    }
    t->problem = (struct fb_problem){.batch = 1,
                                     .heads = heads,
                                     .kv_heads = kv_heads,
                                     .q_len = q_len,
                                     .kv_len = kv_len,
                                     .qk_dim = 2,
                                     .v_dim = 2};
    t->call.q = fb_tensor_dense(t->q, FB_F32, FB_BHND, 1, heads, q_len, 2);
    t->call.k = fb_tensor_dense(t->k, FB_F32, FB_BHND, 1, kv_heads, kv_len, 2);
    t->call.v = fb_tensor_dense(t->v, FB_F32, FB_BHND, 1, kv_heads, kv_len, 2);
}

static enum fb_status tiny_run(struct tiny *t, const char *mechanism, int64_t h, int64_t first,
                               int64_t second, struct fb_error *error)
{
    const int64_t rows[2] = {first, second};
    static const double flow_defaults[] = DEFAULTS;
    if (strcmp(mechanism, "flow") == 0)
        memcpy(t->problem.params, flow_defaults, sizeof flow_defaults);
    return fb_oracle_forward_rows(find_mechanism(mechanism), &t->problem, &t->call, 0, h, rows,
                                  second < 0 ? 1 : 2, t->out, error);
}

static void test_oracle_local_row_without_key_is_zero(void **state)
{
    (void)state;
    struct tiny t;
    struct fb_error error = {0};
    tiny_init(&t, 1, 1, 6, 2);
    t.problem.params[0] = 1;
    t.out[2] = t.out[3] = 9.0;
    assert_int_equal(tiny_run(&t, "local", 0, 2, 5, &error), FB_OK);
    assert_true(fabs(t.out[0] - (double)t.v[2]) < 1e-15); /* row 2 sees key 1 alone */
    assert_true(t.out[2] == 0.0 && t.out[3] == 0.0);
}

static void test_oracle_causal_more_sinks_than_sources_sees_all(void **state)
{
    (void)state;
    static const char *const names[] = {"softmax", "linear"};
    for (size_t i = 0; i < 2; i++) {
        struct tiny t;
        struct fb_error error = {0};
        double bidirectional[2];
        tiny_init(&t, 1, 1, 6, 3);
        assert_int_equal(tiny_run(&t, names[i], 0, 5, -1, &error), FB_OK);
        memcpy(bidirectional, t.out, sizeof bidirectional);
        t.problem.causal = true;
        assert_int_equal(tiny_run(&t, names[i], 0, 5, -1, &error), FB_OK);
        assert_memory_equal(t.out, bidirectional, sizeof bidirectional);
    }
}

static void test_oracle_grouped_queries_share_a_key_head(void **state)
{
    (void)state;
    struct tiny grouped, plain;
    struct fb_error error = {0};
    tiny_init(&grouped, 4, 2, 3, 3);
    tiny_init(&plain, 4, 4, 3, 3);
    memcpy(plain.k + 6, grouped.k, 6 * sizeof(float));
    memcpy(plain.v + 6, grouped.v, 6 * sizeof(float));
    assert_int_equal(tiny_run(&grouped, "flow", 1, 0, 2, &error), FB_OK);
    assert_int_equal(tiny_run(&plain, "flow", 1, 0, 2, &error), FB_OK);
    assert_memory_equal(grouped.out, plain.out, 4 * sizeof(double));
}

/* Lengths mean the same as tensors that are that long, and zeros beyond. */
static void test_oracle_lengths_cut_the_tensors(void **state)
{
    (void)state;
    static const char *const names[] = {"flow", "softmax", "linear", "local"};
    const int64_t q_length = 3, kv_length = 4, none = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct tiny cut, padded;
        struct fb_error error = {0};
        tiny_init(&cut, 1, 1, q_length, kv_length);
        tiny_init(&padded, 1, 1, 5, 6);
        padded.problem.q_lengths = &q_length;
        padded.problem.kv_lengths = &kv_length;
        cut.problem.params[0] = padded.problem.params[0] = 1; /* window */
        padded.out[2] = padded.out[3] = 9.0;
        assert_int_equal(tiny_run(&cut, names[i], 0, 2, -1, &error), FB_OK);
        assert_int_equal(tiny_run(&padded, names[i], 0, 2, 3, &error), FB_OK);
        assert_memory_equal(padded.out, cut.out, 2 * sizeof(double));
        assert_true(padded.out[2] == 0.0 && padded.out[3] == 0.0);
        padded.problem.kv_lengths = &none;
        assert_int_equal(tiny_run(&padded, names[i], 0, 0, 2, &error), FB_OK);
        for (int c = 0; c < 4; c++)
            assert_true(padded.out[c] == 0.0);
    }
}

static void test_oracle_unknown_parameter_is_refused(void **state)
{
    (void)state;
    struct tiny t;
    struct fb_error error = {0};
    const struct fb_param params[] = {{.name = "temperature", .type = FB_PARAM_REAL}};
    const struct fb_mechanism hot = {.name = "softmax", .params = params, .param_count = 1};
    const int64_t row = 0;
    tiny_init(&t, 1, 1, 4, 4);
    assert_int_equal(
        fb_oracle_forward_rows(&hot, &t.problem, &t.call, 0, 0, &row, 1, t.out, &error),
        FB_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "temperature"));
}

static void test_oracle_bad_requests_are_refused(void **state)
{
    (void)state;
    struct tiny t;
    struct fb_error error = {0};
    tiny_init(&t, 1, 1, 4, 4);
    assert_int_equal(tiny_run(&t, "softmax", 0, 2, 1, &error), FB_ERROR_USAGE);
    assert_int_equal(tiny_run(&t, "softmax", 0, 1, 1, &error), FB_ERROR_USAGE);
    assert_int_equal(tiny_run(&t, "softmax", 0, 4, -1, &error), FB_ERROR_USAGE);
    assert_int_equal(tiny_run(&t, "softmax", 1, 0, -1, &error), FB_ERROR_USAGE);
    assert_int_equal(tiny_run(&t, "performer", 0, 0, -1, &error), FB_ERROR_USAGE);
    t.call.k.dtype = FB_BF16;
    assert_int_equal(tiny_run(&t, "softmax", 0, 0, -1, &error), FB_ERROR_UNSUPPORTED);
    t.call.k.dtype = FB_F32;
    t.call.k.shape[2] = 3;
    assert_int_equal(tiny_run(&t, "softmax", 0, 0, -1, &error), FB_ERROR_USAGE);
    tiny_init(&t, 1, 1, 4, 3);
    t.problem.causal = true;
    assert_int_equal(tiny_run(&t, "flow", 0, 0, -1, &error), FB_ERROR_UNSUPPORTED);
    const struct fb_mechanism unknown = {.name = "unknown"};
    const int64_t row = 0;
    assert_int_equal(
        fb_oracle_forward_rows(&unknown, &t.problem, &t.call, 0, 0, &row, 1, t.out, &error),
        FB_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "unknown"));
    assert_false(fb_oracle_exists("unknown"));
    assert_true(isinf(fb_oracle_cost(&unknown, &t.problem, 1)) != 0);
}

static void test_oracle_cost_grows_with_rows_and_stays_linear(void **state)
{
    (void)state;
    struct fb_problem p = {.batch = 1,
                           .heads = 1,
                           .kv_heads = 1,
                           .q_len = 1024,
                           .kv_len = 1024,
                           .qk_dim = 64,
                           .v_dim = 64};
    for (size_t i = 0; i < sizeof mechanisms / sizeof mechanisms[0]; i++) {
        static const double flow_defaults[] = DEFAULTS;
        memcpy(p.params, flow_defaults, sizeof flow_defaults);
        if (mechanisms[i].param_count == 1)
            p.params[0] = 256;
        p.q_len = p.kv_len = 1024;
        const double one = fb_oracle_cost(&mechanisms[i], &p, 1);
        assert_true(one > 0.0 && isfinite(one));
        assert_true(fb_oracle_cost(&mechanisms[i], &p, 64) > one);
        p.q_len = p.kv_len = 65536;
        assert_true(fb_oracle_cost(&mechanisms[i], &p, 1) <= 64.0 * one * (1.0 + 1e-9));
    }
}

int main(int argc, char **argv)
{
    golden_folder = argc > 1 ? argv[1] : "tests/golden";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oracle_spec_values_agree),
        cmocka_unit_test(test_oracle_golden_files_agree),
        cmocka_unit_test(test_oracle_local_row_without_key_is_zero),
        cmocka_unit_test(test_oracle_causal_more_sinks_than_sources_sees_all),
        cmocka_unit_test(test_oracle_grouped_queries_share_a_key_head),
        cmocka_unit_test(test_oracle_lengths_cut_the_tensors),
        cmocka_unit_test(test_oracle_unknown_parameter_is_refused),
        cmocka_unit_test(test_oracle_bad_requests_are_refused),
        cmocka_unit_test(test_oracle_cost_grows_with_rows_and_stays_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
