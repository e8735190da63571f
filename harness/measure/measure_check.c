/* Comparing outputs with the oracle: see measure_check.h. */
#include "measure_check.h"

#include "judge.h"
#include "measure_check_parts.h"
#include "oracle.h"
#include "random.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Work that a check may cost, in the flop of fb_oracle_cost: half a second at 1.5 Gflop/s. */
static const double check_flop = 0.75e9;
enum { ROWS_WANTED = 32, ROWS_MIN = 4, HEADS_MIN = 2 };

/* One from each of `count` equal stretches of the range: distinct, and spread over all of it. */
void fb_check_choose(int64_t *chosen, int64_t count, int64_t total, uint64_t seed, uint64_t stream)
{
    struct fb_random random;
    fb_random_init(&random, seed, stream);
    for (int64_t i = 0; i < count; i++) {
        const int64_t low = (int64_t)((double)total * (double)i / (double)count);
        const int64_t high = (int64_t)((double)total * (double)(i + 1) / (double)count);
        const uint64_t width = high > low ? (uint64_t)(high - low) : 1;
        chosen[i] = low + (int64_t)fb_random_below(&random, width);
    }
    if (count > 0)
        chosen[0] = 0;
    if (count > 1)
        chosen[count - 1] = total - 1;
}

/* What is compared: `heads` of the batch * head_count heads, `rows` rows of each. */
struct sampling {
    int64_t heads, rows;
    int64_t *head_index; /* [heads], batch * head_count + head */
    int64_t *row_index;  /* [heads][rows] */
    double *reference;   /* [heads][rows][M] */
    double *softmax;     /* likewise; NULL when the mechanism is softmax itself */
};

/* Only the name counts to the oracle. */
static const struct fb_mechanism softmax_mechanism = {.name = "softmax"};

struct forward_cost {
    const struct fb_check_request *request;
    bool with_softmax;
};

static double cost_of_head(const void *context, int64_t rows)
{
    const struct forward_cost *forward = context;
    const struct fb_check_request *request = forward->request;
    double cost = fb_oracle_cost(request->mechanism, &request->problem, rows);
    if (forward->with_softmax)
        cost += fb_oracle_cost(&softmax_mechanism, &request->problem, rows);
    return cost;
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

struct fb_check_extent fb_check_plan(double (*cost_of)(const void *context, int64_t rows),
                                     const void *context, int64_t heads, int64_t rows_most)
{
    if (cost_of(context, rows_most) * (double)heads <= check_flop)
        return (struct fb_check_extent){heads, rows_most};
    /* Costs are linear in the number of rows: a part per head and a part per row. */
    const double one = cost_of(context, 1);
    const double per_row = cost_of(context, 2) - one;
    const double wanted = 1.0 + (check_flop / (double)heads - one) / fmax(per_row, 1.0);
    const int64_t rows = clamp(wanted > 0.0 ? (int64_t)fmin(wanted, 1e9) : 0,
                               ROWS_MIN < rows_most ? ROWS_MIN : rows_most,
                               ROWS_WANTED < rows_most ? ROWS_WANTED : rows_most);
    const double affordable = check_flop / cost_of(context, rows);
    return (struct fb_check_extent){
        clamp((int64_t)fmin(affordable, 1e9), HEADS_MIN < heads ? HEADS_MIN : heads, heads), rows};
}

static enum fb_status allocate_sampling(struct sampling *sampling, int64_t dim, bool with_softmax,
                                        struct fb_error *error)
{
    const size_t rows = (size_t)sampling->heads * (size_t)sampling->rows;
    if (rows == 0 || dim == 0) {
        (void)fb_error_set(error, FB_ERROR_INTERNAL, "the oracle was asked for no rows at all");
        return FB_ERROR_INTERNAL;
    }
    sampling->head_index = calloc((size_t)sampling->heads, sizeof *sampling->head_index);
    sampling->row_index = calloc(rows, sizeof *sampling->row_index);
    sampling->reference = calloc(rows * (size_t)dim, sizeof *sampling->reference);
    sampling->softmax = with_softmax ? calloc(rows * (size_t)dim, sizeof(double)) : NULL;
    if (sampling->head_index && sampling->row_index && sampling->reference &&
        (sampling->softmax || !with_softmax))
        return FB_OK;
    (void)fb_error_set(error, FB_ERROR_MEMORY, "no memory for %zu rows of the oracle", rows);
    return FB_ERROR_MEMORY;
}

static void free_sampling(struct sampling *sampling)
{
    free(sampling->head_index);
    free(sampling->row_index);
    free(sampling->reference);
    free(sampling->softmax);
}

struct oracle_work {
    const struct fb_check_request *request;
    struct sampling *sampling;
};

static enum fb_status run_oracle(const struct oracle_work *work, int64_t i, struct fb_error *error)
{
    const struct sampling *sampling = work->sampling;
    const struct fb_check_request *request = work->request;
    const struct fb_problem *problem = &request->problem;
    const int64_t b = sampling->head_index[i] / problem->heads;
    const int64_t h = sampling->head_index[i] % problem->heads;
    const size_t count = (size_t)sampling->rows;
    const int64_t *rows = sampling->row_index + i * sampling->rows;
    const size_t offset = (size_t)i * count * (size_t)problem->v_dim;
    double *reference = sampling->reference + offset;
    enum fb_status status =
        request->decodes ? fb_oracle_decode_row(request->mechanism, problem, &request->call, b, h,
                                                rows[0], reference, error)
                         : fb_oracle_forward_rows(request->mechanism, problem, &request->call, b, h,
                                                  rows, count, reference, error);
    if (status == FB_OK && sampling->softmax)
        status = fb_oracle_forward_rows(&softmax_mechanism, problem, &request->call, b, h, rows,
                                        count, sampling->softmax + offset, error);
    return status;
}

static enum fb_status run_oracles(const struct oracle_work *work, struct fb_error *error)
{
    enum fb_status first = FB_OK;
#pragma omp parallel for num_threads(work->request->threads) schedule(dynamic, 1)
    for (int64_t i = 0; i < work->sampling->heads; i++) {
        struct fb_error own = {.code = FB_OK};
        const enum fb_status status = run_oracle(work, i, &own);
        if (status != FB_OK) {
#pragma omp critical(fb_check_error)
            if (first == FB_OK)
                first = fb_error_set(error, status, "%s", own.text);
        }
    }
    return first;
}

static double ratio_to_budget(double err_rel, double err_max, double budget)
{
    return fmax(err_rel, err_max) / budget;
}

void fb_check_note(const char *name, const struct fb_judgement *judgement, const char *complaint,
                   struct fb_measure_result *result)
{
    const double so_far = ratio_to_budget(result->err_rel, result->err_max, result->err_budget);
    const double here = ratio_to_budget(judgement->err_rel, judgement->err_max, judgement->budget);
    if (isnan(result->err_budget) || isnan(here) || here > so_far) {
        result->err_rel = judgement->err_rel;
        result->err_max = judgement->err_max;
        result->err_budget = judgement->budget;
    }
    if (judgement->passed || result->status == FB_MEASURE_WRONG)
        return;
    char text[FB_MEASURE_REASON_SIZE - 16];
    fb_judge_describe(judgement, text, sizeof text);
    result->status = FB_MEASURE_WRONG;
    snprintf(result->reason, sizeof result->reason, "%s: %s", name, complaint ? complaint : text);
}

static void judge(const struct oracle_work *work, struct fb_measure_result *result)
{
    const struct sampling *sampling = work->sampling;
    const struct fb_check_request *request = work->request;
    const struct fb_problem *problem = &request->problem;
    const struct fb_tensor *out = &request->call.out;
    struct fb_judgement judgement, distance;
    fb_judge_init(&judgement, fb_judge_budget(problem->dtype, FB_FORWARD),
                  fb_judge_max_abs(&request->call.v));
    fb_judge_init(&distance, HUGE_VAL, 0.0);
    const double *softmax = sampling->softmax ? sampling->softmax : sampling->reference;
    for (int64_t i = 0; i < sampling->heads; i++) {
        const int64_t b = sampling->head_index[i] / problem->heads;
        const int64_t h = sampling->head_index[i] % problem->heads;
        int64_t *rows = sampling->row_index + i * sampling->rows;
        const size_t count = (size_t)sampling->rows;
        const size_t offset = (size_t)i * count * (size_t)problem->v_dim;
        for (size_t r = 0; r < count; r++)
            rows[r] -= request->first_row; /* from the problem's rows to those of out */
        fb_judge_add_rows(&judgement, out, b, h, rows, count, sampling->reference + offset);
        fb_judge_add_rows(&distance, out, b, h, rows, count, softmax + offset);
    }
    fb_judge_finish(&judgement);
    fb_judge_finish(&distance);
    result->softmax_distance = distance.err_rel;
    fb_check_note("out", &judgement, NULL, result);
}

static void choose(const struct fb_check_request *request, struct sampling *sampling)
{
    const struct fb_problem *problem = &request->problem;
    fb_check_choose(sampling->head_index, sampling->heads, problem->batch * problem->heads,
                    request->seed, 0);
    for (int64_t i = 0; i < sampling->heads; i++) {
        int64_t *rows = sampling->row_index + i * sampling->rows;
        fb_check_choose(rows, sampling->rows, request->rows, request->seed, (uint64_t)i + 1);
        for (int64_t r = 0; r < sampling->rows; r++)
            rows[r] += request->first_row;
    }
}

enum fb_status fb_check_oracle(const struct fb_check_request *request,
                               struct fb_measure_result *result, struct fb_error *error)
{
    const struct fb_mechanism *mechanism = request->mechanism;
    if (!fb_oracle_exists(mechanism->name))
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "mechanism %s has no oracle to be checked against; add one to "
                            "baselines/oracle, or set accuracy.oracle: false",
                            mechanism->name);
    const bool with_softmax = strcmp(mechanism->name, "softmax") != 0;
    struct sampling sampling = {0};
    const struct forward_cost cost = {request, with_softmax};
    const struct fb_check_extent extent = fb_check_plan(
        cost_of_head, &cost, request->problem.batch * request->problem.heads, request->rows);
    sampling.heads = extent.heads;
    sampling.rows = extent.rows;
    enum fb_status status =
        allocate_sampling(&sampling, request->problem.v_dim, with_softmax, error);
    if (status == FB_OK) {
        choose(request, &sampling);
        const struct oracle_work work = {request, &sampling};
        status = run_oracles(&work, error);
        if (status == FB_OK)
            judge(&work, result);
    }
    free_sampling(&sampling);
    return status == FB_OK && request->gradients ? fb_check_gradients(request, result, error)
                                                 : status;
}
