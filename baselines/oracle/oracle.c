/*
 * The table of oracles, the checks that all of them share and their cost. See oracle.h.
 */
#include "oracle.h"

#include "oracle_head.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Flop that an exponential is counted as. */
static const double exp_flop = 20.0;

static double cost_flow(const struct fb_problem *p, int64_t rows)
{
    const double l = (double)p->q_len, s = (double)p->kv_len;
    const double d = (double)p->qk_dim, m = (double)p->v_dim;
    /* phi is evaluated again in every pass: twice per sink, four times per source */
    const double phi = (exp_flop + 6.0) * d * (2.0 * l + 4.0 * s);
    return phi + 2.0 * s * d * m + 2.0 * (double)rows * d * m;
}

static double cost_softmax(const struct fb_problem *p, int64_t rows)
{
    const double s = (double)p->kv_len, d = (double)p->qk_dim, m = (double)p->v_dim;
    return (double)rows * s * (2.0 * d + 2.0 * m + exp_flop);
}

static double cost_local(const struct fb_problem *p, int64_t rows)
{
    const double d = (double)p->qk_dim, m = (double)p->v_dim;
    /* window is the only parameter of the mechanism */
    const double keys = fmin((double)p->kv_len, 2.0 * p->params[0] + 1.0);
    return (double)rows * keys * (2.0 * d + 2.0 * m + exp_flop);
}

static double cost_linear(const struct fb_problem *p, int64_t rows)
{
    const double s = (double)p->kv_len, d = (double)p->qk_dim, m = (double)p->v_dim;
    return s * d * (2.0 * m + exp_flop) + 2.0 * (double)rows * d * m;
}

static double cost_performer(const struct fb_problem *p, int64_t rows)
{
    const double s = (double)p->kv_len, d = (double)p->qk_dim, m = (double)p->v_dim;
    /* features is the only parameter of the mechanism; the projection of the keys is computed
     * twice, for the maximum and for the features */
    const double r = p->params[0];
    return s * r * (4.0 * d + 2.0 * m + exp_flop) +
           (double)rows * r * (2.0 * d + 2.0 * m + exp_flop);
}

static const struct oracle {
    const char *mechanism;
    fb_oracle_fn forward;
    double (*cost)(const struct fb_problem *problem, int64_t rows);
} oracles[] = {
    {"flow", fb_oracle_flow, cost_flow},       {"softmax", fb_oracle_softmax, cost_softmax},
    {"linear", fb_oracle_linear, cost_linear}, {"performer", fb_oracle_performer, cost_performer},
    {"local", fb_oracle_local, cost_local},
};

static const struct oracle *find_oracle(const char *mechanism)
{
    for (size_t i = 0; i < sizeof oracles / sizeof oracles[0]; i++)
        if (strcmp(oracles[i].mechanism, mechanism) == 0)
            return &oracles[i];
    return NULL;
}

static enum fb_status check_tensor(const char *name, const struct fb_tensor *tensor, int64_t batch,
                                   int64_t heads, int64_t tokens, int64_t dim,
                                   struct fb_error *error)
{
    if (tensor->dtype != FB_F32)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "oracle: tensor %s is %s; oracles read f32 inputs", name,
                            fb_dtype_name(tensor->dtype));
    if (!tensor->data || tensor->stride[3] != 1)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "oracle: tensor %s has no data or its last stride is not 1", name);
    const int64_t shape[4] = {batch, heads, tokens, dim};
    for (int i = 0; i < 4; i++)
        if (tensor->shape[i] != shape[i])
            return fb_error_set(error, FB_ERROR_USAGE,
                                "oracle: tensor %s has size %" PRId64
                                " in dimension %d where the problem says %" PRId64,
                                name, tensor->shape[i], i, shape[i]);
    return FB_OK;
}

static enum fb_status check_rows(const struct fb_problem *p, int64_t b, int64_t h,
                                 const int64_t *rows, size_t count, struct fb_error *error)
{
    if (b < 0 || b >= p->batch || h < 0 || h >= p->heads)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "oracle: batch %" PRId64 ", head %" PRId64
                            " lies outside a problem of %" PRId64 " x %" PRId64,
                            b, h, p->batch, p->heads);
    if (count == 0)
        return fb_error_set(error, FB_ERROR_USAGE, "oracle: no rows asked for");
    for (size_t i = 0; i < count; i++)
        if (rows[i] < 0 || rows[i] >= p->q_len || (i > 0 && rows[i] <= rows[i - 1]))
            return fb_error_set(error, FB_ERROR_USAGE,
                                "oracle: row %" PRId64
                                " at position %zu is out of order or outside 0 .. %" PRId64,
                                rows[i], i, p->q_len - 1);
    return FB_OK;
}

static enum fb_status check_call(const struct fb_problem *p, const struct fb_call *call,
                                 struct fb_error *error)
{
    if (p->q_lengths || p->kv_lengths)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "oracle: q_lengths and kv_lengths are not served yet; "
                            "use problems without padding");
    if (p->kv_heads < 1 || p->heads % p->kv_heads != 0)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "oracle: kv_heads %" PRId64 " does not divide heads %" PRId64,
                            p->kv_heads, p->heads);
    enum fb_status status =
        check_tensor("q", &call->q, p->batch, p->heads, p->q_len, p->qk_dim, error);
    if (status == FB_OK)
        status = check_tensor("k", &call->k, p->batch, p->kv_heads, p->kv_len, p->qk_dim, error);
    if (status == FB_OK)
        status = check_tensor("v", &call->v, p->batch, p->kv_heads, p->kv_len, p->v_dim, error);
    return status;
}

static int64_t parameter(const struct fb_mechanism *mechanism, const struct fb_problem *problem,
                         const char *name)
{
    const int index = fb_param_index(mechanism, name);
    return index < 0 ? 0 : (int64_t)problem->params[index];
}

bool fb_oracle_exists(const char *mechanism_name)
{
    return find_oracle(mechanism_name) != NULL;
}

enum fb_status fb_oracle_forward_rows(const struct fb_mechanism *mechanism,
                                      const struct fb_problem *problem, const struct fb_call *call,
                                      int64_t b, int64_t h, const int64_t *rows, size_t rows_count,
                                      double *out, struct fb_error *error)
{
    const struct oracle *oracle = find_oracle(mechanism->name);
    if (!oracle)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "mechanism '%s' has no oracle; add one to baselines/oracle/oracle.c",
                            mechanism->name);
    enum fb_status status = check_call(problem, call, error);
    if (status == FB_OK)
        status = check_rows(problem, b, h, rows, rows_count, error);
    if (status != FB_OK)
        return status;

    /* grouped queries: heads / kv_heads consecutive query heads share one head of k and v */
    const int64_t kv_h = h / (problem->heads / problem->kv_heads);
    const struct fb_oracle_head head = {
        .q_len = problem->q_len,
        .kv_len = problem->kv_len,
        .qk_dim = problem->qk_dim,
        .v_dim = problem->v_dim,
        .causal = problem->causal,
        .q = fb_tensor_row_f32(&call->q, b, h, 0),
        .k = fb_tensor_row_f32(&call->k, b, kv_h, 0),
        .v = fb_tensor_row_f32(&call->v, b, kv_h, 0),
        .q_stride = call->q.stride[2],
        .k_stride = call->k.stride[2],
        .v_stride = call->v.stride[2],
        .constants = call->constants,
        .window = parameter(mechanism, problem, "window"),
        .features = parameter(mechanism, problem, "features"),
    };
    const struct fb_oracle_rows wanted = {.index = rows, .count = rows_count, .out = out};
    struct fb_arena arena;
    fb_arena_init(&arena, 0);
    status = oracle->forward(&head, &wanted, &arena, error);
    fb_arena_free(&arena);
    return status;
}

double fb_oracle_cost(const struct fb_mechanism *mechanism, const struct fb_problem *problem,
                      int64_t rows_count)
{
    const struct oracle *oracle = find_oracle(mechanism->name);
    return oracle ? oracle->cost(problem, rows_count) : HUGE_VAL;
}
