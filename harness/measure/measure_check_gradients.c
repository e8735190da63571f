/* Comparing gradients with the oracle: see measure_check.h. */
#include "measure_check_parts.h"
#include "oracle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GRADIENTS = 3 };
enum gradient { DQ, DK, DV };
static const char *const names[GRADIENTS] = {"dq", "dk", "dv"};

/* Beyond this (two seconds of one core for two heads), rows of softmax's dk and dv, each of which
 * needs every row's normaliser, give way to the identities of their sums. */
static const double keys_flop_most = 3e9;

struct gradient_check {
    const struct fb_check_request *request;
    bool with_keys;
    struct fb_check_extent extent;
    int64_t q_count, kv_count;    /* rows of each head */
    int64_t *heads;               /* [extent.heads] */
    int64_t *q_rows, *kv_rows;    /* [extent.heads][q_count], [extent.heads][kv_count] */
    double *reference[GRADIENTS]; /* [extent.heads][rows][components] */
    bool *kinks;                  /* [extent.heads][kv_count] */
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static double cost_of_rows(const void *context, int64_t rows)
{
    const struct gradient_check *check = context;
    const struct fb_problem *problem = &check->request->problem;
    return fb_oracle_backward_cost(check->request->mechanism, problem, least(rows, problem->q_len),
                                   check->with_keys ? least(rows, problem->kv_len) : 0);
}

static bool is_softmax(const struct fb_check_request *request)
{
    return strcmp(request->mechanism->name, "softmax") == 0;
}

static void plan(struct gradient_check *check)
{
    const struct fb_problem *p = &check->request->problem;
    const int64_t rows_most = p->q_len > p->kv_len ? p->q_len : p->kv_len;
    check->with_keys = true;
    if (is_softmax(check->request) && 2.0 * cost_of_rows(check, 1) > keys_flop_most)
        check->with_keys = false;
    check->extent = fb_check_plan(cost_of_rows, check, p->batch * p->heads, rows_most);
    check->q_count = least(check->extent.rows, p->q_len);
    check->kv_count = check->with_keys ? least(check->extent.rows, p->kv_len) : 0;
}

static enum fb_status allocate(struct gradient_check *check, struct fb_error *error)
{
    const struct fb_problem *p = &check->request->problem;
    const size_t heads = (size_t)check->extent.heads;
    const size_t q = heads * (size_t)check->q_count, kv = heads * (size_t)check->kv_count;
    check->heads = calloc(heads, sizeof *check->heads);
    check->q_rows = calloc(q, sizeof *check->q_rows);
    check->kv_rows = calloc(kv + 1, sizeof *check->kv_rows);
    check->kinks = calloc(kv + 1, sizeof *check->kinks);
    check->reference[DQ] = calloc(q * (size_t)p->qk_dim, sizeof(double));
    check->reference[DK] = calloc(kv * (size_t)p->qk_dim + 1, sizeof(double));
    check->reference[DV] = calloc(kv * (size_t)p->v_dim + 1, sizeof(double));
    if (check->heads && check->q_rows && check->kv_rows && check->kinks && check->reference[DQ] &&
        check->reference[DK] && check->reference[DV])
        return FB_OK;
    return fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu rows of gradients", q + kv);
}

static void release(struct gradient_check *check)
{
    free(check->heads);
    free(check->q_rows);
    free(check->kv_rows);
    free(check->kinks);
    for (int g = 0; g < GRADIENTS; g++)
        free(check->reference[g]);
}

static void choose(struct gradient_check *check)
{
    const struct fb_problem *p = &check->request->problem;
    const uint64_t seed = check->request->seed;
    const int64_t heads = check->extent.heads;
    fb_check_choose(check->heads, heads, p->batch * p->heads, seed, 0);
    for (int64_t i = 0; i < heads; i++) {
        fb_check_choose(check->q_rows + i * check->q_count, check->q_count, p->q_len, seed,
                        (uint64_t)i + 1);
        fb_check_choose(check->kv_rows + i * check->kv_count, check->kv_count, p->kv_len, seed,
                        (uint64_t)(heads + i) + 1);
    }
}

static enum fb_status run_head(const struct gradient_check *check, int64_t i,
                               struct fb_error *error)
{
    const struct fb_problem *p = &check->request->problem;
    const struct fb_oracle_gradients wanted = {
        .q_rows = check->q_rows + i * check->q_count,
        .q_count = (size_t)check->q_count,
        .dq = check->reference[DQ] + i * check->q_count * p->qk_dim,
        .kv_rows = check->kv_rows + i * check->kv_count,
        .kv_count = (size_t)check->kv_count,
        .dk = check->reference[DK] + i * check->kv_count * p->qk_dim,
        .dv = check->reference[DV] + i * check->kv_count * p->v_dim,
        .kv_kinks = check->kinks + i * check->kv_count,
        .kink_width = fb_judge_kink_width(p->dtype),
    };
    return fb_oracle_backward_rows(check->request->mechanism, p, &check->request->call,
                                   check->heads[i] / p->heads, check->heads[i] % p->heads, &wanted,
                                   error);
}

static enum fb_status run(const struct gradient_check *check, struct fb_error *error)
{
    enum fb_status first = FB_OK;
#pragma omp parallel for num_threads(check->request->threads) schedule(dynamic, 1)
    for (int64_t i = 0; i < check->extent.heads; i++) {
        struct fb_error own = {.code = FB_OK};
        const enum fb_status status = run_head(check, i, &own);
        if (status != FB_OK) {
#pragma omp critical(fb_check_gradients_error)
            if (first == FB_OK)
                first = fb_error_set(error, status, "%s", own.text);
        }
    }
    return first;
}

/* The sizes that the gradients could have had, as golden/README.md has them. */
static void scales_of(const struct fb_call *call, double scale[GRADIENTS])
{
    const double dout = fb_judge_max_abs(&call->dout);
    scale[DQ] = scale[DK] = dout * fb_judge_max_abs(&call->v);
    scale[DV] = dout;
}

/* A gradient that is zero by cancellation (of a softmax over one key) is all rounding, and
 * infinitely wrong relative to itself. Where err_max, which is relative to the size it could have
 * had, is within the budget, err_rel is taken relative to that size, too: the rule of
 * golden/README.md. */
static void forgive_cancellation(struct fb_judgement *judgement)
{
    if (judgement->passed || !judgement->passed_golden)
        return;
    const double size = judgement->scale * sqrt((double)judgement->elements);
    judgement->err_rel = sqrt(judgement->diff_squares) / fmax(sqrt(judgement->ref_squares), size);
    judgement->passed = judgement->err_rel <= judgement->budget;
}

/* One head's rows of one gradient; of dk those that lie at a kink of flow's clamp are left out. */
static void add_rows(const struct gradient_check *check, enum gradient g, int64_t i,
                     const struct fb_tensor *tensor, struct fb_judgement *judgement)
{
    const struct fb_problem *p = &check->request->problem;
    const int64_t b = check->heads[i] / p->heads, h = check->heads[i] % p->heads;
    const int64_t kv_head = h / (p->heads / p->kv_heads), dim = tensor->shape[3];
    const int64_t rows = g == DQ ? check->q_count : check->kv_count;
    const int64_t *index = (g == DQ ? check->q_rows : check->kv_rows) + i * rows;
    fb_judge_add_rows_off_kinks(judgement, g == DK ? check->kinks + i * rows : NULL, tensor, b,
                                g == DQ ? h : kv_head, index, (size_t)rows,
                                check->reference[g] + i * rows * dim);
}

static void judge(const struct gradient_check *check, struct fb_measure_result *result)
{
    const struct fb_problem *p = &check->request->problem;
    const struct fb_call *call = &check->request->call;
    const struct fb_tensor *tensors[GRADIENTS] = {&call->dq, &call->dk, &call->dv};
    double scale[GRADIENTS];
    scales_of(call, scale);
    for (int g = 0; g < GRADIENTS; g++) {
        struct fb_judgement judgement;
        fb_judge_init(&judgement, fb_judge_budget(p->dtype, FB_BACKWARD), scale[g]);
        for (int64_t i = 0; i < check->extent.heads; i++)
            add_rows(check, (enum gradient)g, i, tensors[g], &judgement);
        fb_judge_finish(&judgement);
        forgive_cancellation(&judgement);
        if (judgement.elements > 0)
            fb_check_note(names[g], &judgement, NULL, result);
    }
}

static void note_sum(const char *name, double deviation, double budget,
                     struct fb_measure_result *result)
{
    const struct fb_judgement judgement = {
        .err_rel = deviation,
        .err_max = deviation,
        .budget = budget,
        .finite = isfinite(deviation),
        .passed = deviation <= budget,
    };
    char complaint[160];
    snprintf(complaint, sizeof complaint,
             "the sum over all keys is off by %.2e (budget %.1e), though each row of softmax "
             "weights sums to 1",
             deviation, budget);
    fb_check_note(name, &judgement, complaint, result);
}

static void judge_sums(const struct gradient_check *check, struct fb_measure_result *result)
{
    const struct fb_problem *p = &check->request->problem;
    const double budget = fb_judge_budget(p->dtype, FB_BACKWARD);
    double dk_most = 0.0, dv_most = 0.0;
    for (int64_t i = 0; i < p->batch * p->kv_heads; i++) {
        double dk, dv;
        fb_oracle_softmax_sums(p, &check->request->call, i / p->kv_heads, i % p->kv_heads, &dk,
                               &dv);
        dk_most = fmax(dk_most, dk); /* finite: fb_check_written has looked */
        dv_most = fmax(dv_most, dv);
    }
    note_sum(names[DK], dk_most, budget, result);
    note_sum(names[DV], dv_most, budget, result);
}

enum fb_status fb_check_gradients(const struct fb_check_request *request,
                                  struct fb_measure_result *result, struct fb_error *error)
{
    struct gradient_check check = {.request = request};
    plan(&check);
    enum fb_status status = allocate(&check, error);
    if (status == FB_OK) {
        choose(&check);
        status = run(&check, error);
    }
    if (status == FB_OK) {
        judge(&check, result);
        if (!check.with_keys)
            judge_sums(&check, result);
    }
    release(&check);
    return status;
}
