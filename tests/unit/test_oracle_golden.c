/*
 * The oracles, forward and gradients, against the golden files, which automatic differentiation of
 * the official modules made in float64. Argument: the folder of the golden files.
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

/* Mechanisms as the oracles see them: a name and the parameter. Kernels are not linked here. */
static const struct fb_param features_param = {.name = "features", .type = FB_PARAM_INT};
static const struct fb_param window_param = {.name = "window", .type = FB_PARAM_INT};
static const struct fb_mechanism mechanisms[] = {
    {.name = "flow"},
    {.name = "softmax"},
    {.name = "linear"},
    {.name = "performer", .params = &features_param, .param_count = 1},
    {.name = "local", .params = &window_param, .param_count = 1},
};

struct golden {
    struct fb_safetensors file;
    struct fb_arena arena;
    const struct fb_mechanism *mechanism;
    struct fb_problem problem;
    struct fb_call call;
    double *out, *dq, *dk, *dv;
};

static const struct fb_mechanism *find_mechanism(const char *name)
{
    for (size_t i = 0; name && i < sizeof mechanisms / sizeof mechanisms[0]; i++)
        if (strcmp(mechanisms[i].name, name) == 0)
            return &mechanisms[i];
    fail_msg("unknown mechanism %s", name ? name : "(none)");
    return NULL;
}

static struct fb_tensor read_input(struct golden *g, const char *name)
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

static double *read_result(struct golden *g, const char *name)
{
    struct fb_error error = {0};
    double *values = NULL;
    if (fb_safetensors_read_f64(&g->file, name, &g->arena, &values, NULL, &error) != FB_OK)
        fail_msg("%s", error.text);
    return values;
}

static int read_parameter(const struct golden *g, const char *name)
{
    const char *text = fb_safetensors_metadata_find(&g->file, name);
    return text ? atoi(text) : 0;
}

static void open_golden(struct golden *g, const char *path)
{
    struct fb_error error = {0};
    *g = (struct golden){0};
    fb_arena_init(&g->arena, 0);
    if (fb_safetensors_open(&g->file, path, &error) != FB_OK)
        fail_msg("%s", error.text);
    g->mechanism = find_mechanism(fb_safetensors_metadata_find(&g->file, "mechanism"));
    g->call.q = read_input(g, "q");
    g->call.k = read_input(g, "k");
    g->call.v = read_input(g, "v");
    g->call.dout = read_input(g, "dout");
    if (fb_safetensors_find(&g->file, "projection")) {
        float *projection = NULL;
        assert_int_equal(
            fb_safetensors_read_f32(&g->file, "projection", &g->arena, &projection, NULL, &error),
            FB_OK);
        g->call.constants = projection;
    }
    g->out = read_result(g, "out");
    g->dq = read_result(g, "dq");
    g->dk = read_result(g, "dk");
    g->dv = read_result(g, "dv");
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
    g->problem.params[0] = read_parameter(g, "features") + read_parameter(g, "window");
}

static void close_golden(struct golden *g)
{
    fb_safetensors_close(&g->file);
    fb_arena_free(&g->arena);
}

/* Every step-th row of len rows, or none. */
static size_t choose_rows(int64_t *rows, int64_t len, int64_t step)
{
    size_t count = 0;
    for (int64_t row = step - 1; row < len; row += step)
        rows[count++] = row;
    return count;
}

/* Joins |value - wanted| of the rows of head (b, h) to *worst and *size. */
static void compare(const double *values, const double *wanted, const int64_t *rows, size_t count,
                    int64_t first_row, int64_t dim, double *worst, double *size)
{
    for (size_t r = 0; r < count; r++)
        for (int64_t c = 0; c < dim; c++) {
            const double reference = wanted[(first_row + rows[r]) * dim + c];
            const double difference = fabs(values[(int64_t)r * dim + c] - reference);
            if (!isfinite(difference))
                fail_msg("row %d is not finite", (int)rows[r]);
            *worst = fmax(*worst, difference);
            *size = fmax(*size, fabs(reference));
        }
}

struct errors {
    double out, dq, dk, dv;
};

struct buffers {
    int64_t *q_rows, *kv_rows;
    double *out, *dq, *dk, *dv;
};

static void *take(struct golden *g, int64_t count)
{
    struct fb_error error = {0};
    void *memory = fb_arena_alloc(&g->arena, (size_t)count, sizeof(double), &error);
    if (!memory)
        fail_msg("%s", error.text);
    return memory;
}

/* Largest errors over every head, by the rule of golden/README.md ("Judging"), asking for every
 * step-th row. */
static struct errors errors_of(struct golden *g, int64_t step)
{
    const struct fb_problem *p = &g->problem;
    struct buffers w = {take(g, p->q_len),
                        take(g, p->kv_len),
                        take(g, p->q_len * p->v_dim),
                        take(g, p->q_len * p->qk_dim),
                        take(g, p->kv_len * p->qk_dim),
                        take(g, p->kv_len * p->v_dim)};
    const double v_max = fb_judge_max_abs(&g->call.v), dout_max = fb_judge_max_abs(&g->call.dout);
    struct errors worst = {0.0, 0.0, 0.0, 0.0};
    struct errors size = {v_max, v_max * dout_max, v_max * dout_max, dout_max};
    const struct fb_oracle_gradients wanted = {.q_rows = w.q_rows,
                                               .q_count = choose_rows(w.q_rows, p->q_len, step),
                                               .dq = w.dq,
                                               .kv_rows = w.kv_rows,
                                               .kv_count = choose_rows(w.kv_rows, p->kv_len, step),
                                               .dk = w.dk,
                                               .dv = w.dv};
    for (int64_t bh = 0; bh < p->batch * p->heads && wanted.q_count + wanted.kv_count > 0; bh++) {
        const int64_t b = bh / p->heads, h = bh % p->heads;
        struct fb_error error = {0};
        if (wanted.q_count > 0 && fb_oracle_forward_rows(g->mechanism, p, &g->call, b, h, w.q_rows,
                                                         wanted.q_count, w.out, &error) != FB_OK)
            fail_msg("%s", error.text);
        if (fb_oracle_backward_rows(g->mechanism, p, &g->call, b, h, &wanted, &error) != FB_OK)
            fail_msg("%s", error.text);
        const int64_t q0 = bh * p->q_len, kv0 = bh * p->kv_len;
        compare(w.out, g->out, w.q_rows, wanted.q_count, q0, p->v_dim, &worst.out, &size.out);
        compare(w.dq, g->dq, w.q_rows, wanted.q_count, q0, p->qk_dim, &worst.dq, &size.dq);
        compare(w.dk, g->dk, w.kv_rows, wanted.kv_count, kv0, p->qk_dim, &worst.dk, &size.dk);
        compare(w.dv, g->dv, w.kv_rows, wanted.kv_count, kv0, p->v_dim, &worst.dv, &size.dv);
    }
    return (struct errors){worst.out / size.out, worst.dq / size.dq, worst.dk / size.dk,
                           worst.dv / size.dv};
}

static bool are_small(const struct errors *e)
{
    return e->out < 1e-12 && e->dq < 1e-12 && e->dk < 1e-12 && e->dv < 1e-12;
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
        open_golden(&g, path);
        static const int64_t steps[] = {1, 7, 1000000};
        for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
            const struct errors e = errors_of(&g, steps[i]);
            if (!are_small(&e))
                fail_msg("%s: every row %d: out %.2e dq %.2e dk %.2e dv %.2e", path, (int)steps[i],
                         e.out, e.dq, e.dk, e.dv);
        }
        close_golden(&g);
        files++;
    }
    closedir(folder);
    assert_int_equal(files, 40);
}

int main(int argc, char **argv)
{
    golden_folder = argc > 1 ? argv[1] : "tests/golden";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oracle_golden_files_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
