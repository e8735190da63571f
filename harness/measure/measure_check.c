/* Checking one output: see measure_check.h. */
#include "measure_check.h"

#include "judge.h"
#include "oracle.h"
#include "random.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const uint32_t poison_bits = UINT32_C(0x7fa5a5a5); /* quiet bit clear, payload ours */

/* Work that a check may cost, in the flop of fb_oracle_cost: half a second at 1.5 Gflop/s. */
static const double check_flop = 0.75e9;
enum { ROWS_WANTED = 32, ROWS_MIN = 4, HEADS_MIN = 2 };

void fb_check_poison(const struct fb_tensor *out, int threads)
{
    uint32_t *words = out->data;
    const int64_t count = fb_tensor_count(out);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++)
        words[i] = poison_bits;
}

/* Batch, head, row and component of the element at an offset of a dense tensor. */
static void describe_place(const struct fb_tensor *out, int64_t offset, char *text, size_t size)
{
    const int64_t dim = out->shape[3];
    const int64_t b = offset / out->stride[0];
    const int64_t within = offset % out->stride[0];
    const int64_t h = within / out->stride[1] % out->shape[1];
    const int64_t row = within / out->stride[2] % out->shape[2];
    snprintf(text, size, "b=%" PRId64 " h=%" PRId64 " row=%" PRId64 " component=%" PRId64, b, h,
             row, offset % dim);
}

static void set_wrong(struct fb_measure_result *result, int64_t bad, const char *what,
                      const struct fb_tensor *out, int64_t first)
{
    char place[128];
    describe_place(out, first, place, sizeof place);
    result->status = FB_MEASURE_WRONG;
    snprintf(result->reason, sizeof result->reason,
             "%" PRId64 " of %" PRId64 " output elements %s, the first at %s", bad,
             fb_tensor_count(out), what, place);
}

bool fb_check_written(const struct fb_tensor *out, struct fb_measure_result *result)
{
    /* by their bits: loading a signalling NaN as a float may quiet it */
    const unsigned char *bytes = out->data;
    const int64_t count = fb_tensor_count(out);
    int64_t unwritten = 0, first_unwritten = -1, infinite = 0, first_infinite = -1;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, bytes + (size_t)i * sizeof bits, sizeof bits);
        if ((bits & UINT32_C(0x7f800000)) != UINT32_C(0x7f800000))
            continue;
        if (bits == poison_bits) {
            unwritten++;
            first_unwritten = first_unwritten < 0 ? i : first_unwritten;
        } else {
            infinite++;
            first_infinite = first_infinite < 0 ? i : first_infinite;
        }
    }
    if (unwritten > 0)
        set_wrong(result, unwritten, "were never written", out, first_unwritten);
    else if (infinite > 0)
        set_wrong(result, infinite, "are NaN or infinite", out, first_infinite);
    return unwritten == 0 && infinite == 0;
}

void fb_check_hash(const struct fb_tensor *out, char hash[FB_MEASURE_HASH_SIZE])
{
    const size_t bytes = (size_t)fb_tensor_count(out) * fb_dtype_bytes(out->dtype);
    snprintf(hash, FB_MEASURE_HASH_SIZE, "%016" PRIx64, (uint64_t)XXH64(out->data, bytes, 0));
}

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

static double cost_of_head(const struct fb_mechanism *mechanism, const struct fb_problem *problem,
                           bool with_softmax, int64_t rows)
{
    double cost = fb_oracle_cost(mechanism, problem, rows);
    if (with_softmax)
        cost += fb_oracle_cost(&softmax_mechanism, problem, rows);
    return cost;
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

static void plan_sampling(const struct fb_mechanism *mechanism, const struct fb_problem *problem,
                          bool with_softmax, struct sampling *sampling)
{
    const int64_t heads = problem->batch * problem->heads;
    const int64_t rows_most = problem->q_len;
    sampling->heads = heads;
    sampling->rows = rows_most;
    if (cost_of_head(mechanism, problem, with_softmax, rows_most) * (double)heads <= check_flop)
        return;
    /* Costs are linear in the number of rows: a part per head and a part per row. */
    const double one = cost_of_head(mechanism, problem, with_softmax, 1);
    const double per_row = cost_of_head(mechanism, problem, with_softmax, 2) - one;
    const double rows = 1.0 + (check_flop / (double)heads - one) / fmax(per_row, 1.0);
    sampling->rows = clamp(rows > 0.0 ? (int64_t)fmin(rows, 1e9) : 0,
                           ROWS_MIN < rows_most ? ROWS_MIN : rows_most,
                           ROWS_WANTED < rows_most ? ROWS_WANTED : rows_most);
    const double each = cost_of_head(mechanism, problem, with_softmax, sampling->rows);
    sampling->heads =
        clamp((int64_t)(check_flop / each), HEADS_MIN < heads ? HEADS_MIN : heads, heads);
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
    const struct fb_mechanism *mechanism;
    const struct fb_problem *problem;
    const struct fb_call *call;
    struct sampling *sampling;
};

static enum fb_status run_oracle(const struct oracle_work *work, int64_t i, struct fb_error *error)
{
    const struct sampling *sampling = work->sampling;
    const struct fb_problem *problem = work->problem;
    const int64_t head = sampling->head_index[i];
    const int64_t *rows = sampling->row_index + i * sampling->rows;
    const size_t offset = (size_t)i * (size_t)sampling->rows * (size_t)problem->v_dim;
    enum fb_status status = fb_oracle_forward_rows(
        work->mechanism, problem, work->call, head / problem->heads, head % problem->heads, rows,
        (size_t)sampling->rows, sampling->reference + offset, error);
    if (status == FB_OK && sampling->softmax)
        status = fb_oracle_forward_rows(&softmax_mechanism, problem, work->call,
                                        head / problem->heads, head % problem->heads, rows,
                                        (size_t)sampling->rows, sampling->softmax + offset, error);
    return status;
}

static enum fb_status run_oracles(const struct oracle_work *work, int threads,
                                  struct fb_error *error)
{
    enum fb_status first = FB_OK;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
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

static void judge(const struct oracle_work *work, enum fb_pass pass,
                  struct fb_measure_result *result)
{
    const struct sampling *sampling = work->sampling;
    const struct fb_problem *problem = work->problem;
    const struct fb_tensor *out = &work->call->out;
    struct fb_judgement judgement, distance;
    fb_judge_init(&judgement, fb_judge_budget(problem->dtype, pass),
                  fb_judge_max_abs(&work->call->v));
    fb_judge_init(&distance, HUGE_VAL, 0.0);
    const double *softmax = sampling->softmax ? sampling->softmax : sampling->reference;
    for (int64_t i = 0; i < sampling->heads; i++) {
        const int64_t b = sampling->head_index[i] / problem->heads;
        const int64_t h = sampling->head_index[i] % problem->heads;
        const int64_t *rows = sampling->row_index + i * sampling->rows;
        const size_t count = (size_t)sampling->rows;
        const size_t offset = (size_t)i * count * (size_t)problem->v_dim;
        fb_judge_add_rows(&judgement, out, b, h, rows, count, sampling->reference + offset);
        fb_judge_add_rows(&distance, out, b, h, rows, count, softmax + offset);
    }
    fb_judge_finish(&judgement);
    fb_judge_finish(&distance);
    result->err_rel = judgement.err_rel;
    result->err_max = judgement.err_max;
    result->err_budget = judgement.budget;
    result->softmax_distance = distance.err_rel;
    if (!judgement.passed) {
        result->status = FB_MEASURE_WRONG;
        fb_judge_describe(&judgement, result->reason, sizeof result->reason);
    }
}

enum fb_status fb_check_oracle(const struct fb_mechanism *mechanism,
                               const struct fb_problem *problem, const struct fb_call *call,
                               enum fb_pass pass, uint64_t seed, int threads,
                               struct fb_measure_result *result, struct fb_error *error)
{
    if (!fb_oracle_exists(mechanism->name))
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "mechanism %s has no oracle to be checked against; add one to "
                            "baselines/oracle, or set accuracy.oracle: false",
                            mechanism->name);
    const bool with_softmax = strcmp(mechanism->name, "softmax") != 0;
    struct sampling sampling = {0};
    plan_sampling(mechanism, problem, with_softmax, &sampling);
    enum fb_status status = allocate_sampling(&sampling, problem->v_dim, with_softmax, error);
    if (status == FB_OK) {
        fb_check_choose(sampling.head_index, sampling.heads, problem->batch * problem->heads, seed,
                        0);
        for (int64_t i = 0; i < sampling.heads; i++)
            fb_check_choose(sampling.row_index + i * sampling.rows, sampling.rows, problem->q_len,
                            seed, (uint64_t)i + 1);
        const struct oracle_work work = {mechanism, problem, call, &sampling};
        status = run_oracles(&work, threads, error);
        if (status == FB_OK)
            judge(&work, pass, result);
    }
    free_sampling(&sampling);
    return status;
}
