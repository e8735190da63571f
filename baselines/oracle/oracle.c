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

static double cost_flow(const struct fb_problem *p, const struct fb_oracle_options *options,
                        int64_t rows)
{
    const double l = (double)p->q_len, s = (double)p->kv_len;
    const double d = (double)p->qk_dim, m = (double)p->v_dim;
    /* competition over heads needs the flows of all of them */
    const double heads =
        options->competition == FB_ORACLE_OVER_HEADS ? 1.0 + (double)p->heads : 1.0;
    /* phi is evaluated again in every pass: twice per sink, four times per source */
    const double phi = heads * (exp_flop + 6.0) * d * (2.0 * l + 4.0 * s);
    return phi + 2.0 * s * d * m + 2.0 * (double)rows * d * m;
}

static double cost_softmax(const struct fb_problem *p, const struct fb_oracle_options *options,
                           int64_t rows)
{
    (void)options;
    const double s = (double)p->kv_len, d = (double)p->qk_dim, m = (double)p->v_dim;
    return (double)rows * s * (2.0 * d + 2.0 * m + exp_flop);
}

static double cost_local(const struct fb_problem *p, const struct fb_oracle_options *options,
                         int64_t rows)
{
    const double d = (double)p->qk_dim, m = (double)p->v_dim;
    const double keys = fmin((double)p->kv_len, 2.0 * (double)options->window + 1.0);
    return (double)rows * keys * (2.0 * d + 2.0 * m + exp_flop);
}

static double cost_linear(const struct fb_problem *p, const struct fb_oracle_options *options,
                          int64_t rows)
{
    (void)options;
    const double s = (double)p->kv_len, d = (double)p->qk_dim, m = (double)p->v_dim;
    return s * d * (2.0 * m + exp_flop) + 2.0 * (double)rows * d * m;
}

static double cost_performer(const struct fb_problem *p, const struct fb_oracle_options *options,
                             int64_t rows)
{
    const double s = (double)p->kv_len, d = (double)p->qk_dim, m = (double)p->v_dim;
    /* the keys are projected twice, for the maximum and for the features */
    const double r = (double)options->features;
    return s * r * (4.0 * d + 2.0 * m + exp_flop) +
           (double)rows * r * (2.0 * d + 2.0 * m + exp_flop);
}

static const struct oracle {
    const char *mechanism;
    fb_oracle_fn forward;
    double (*cost)(const struct fb_problem *problem, const struct fb_oracle_options *options,
                   int64_t rows);
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

/* The mechanism's parameter of this name, or absent when it has none. */
static double parameter(const struct fb_mechanism *mechanism, const struct fb_problem *problem,
                        const char *name, double absent)
{
    const int index = fb_param_index(mechanism, name);
    return index < 0 ? absent : problem->params[index];
}

/* The position, in names, of the choice that a parameter stands at; 0 when the mechanism has no
 * such parameter, -1 when the oracle does not know the choice. */
static int choice(const struct fb_mechanism *mechanism, const struct fb_problem *problem,
                  const char *name, const char *const names[3])
{
    const int index = fb_param_index(mechanism, name);
    if (index < 0)
        return 0;
    const char *chosen = mechanism->params[index].choices[(int)problem->params[index]];
    for (int i = 0; i < 3; i++)
        if (strcmp(names[i], chosen) == 0)
            return i;
    return -1;
}

static const char *const known_parameters[] = {"window",    "features",    "phi",       "clamp",
                                               "extra_eps", "competition", "allocation"};

/* A parameter that an oracle ignored would make it the judge of another function. */
static enum fb_status check_parameters(const struct fb_mechanism *mechanism, struct fb_error *error)
{
    for (int i = 0; i < mechanism->param_count; i++) {
        bool known = false;
        for (size_t j = 0; j < sizeof known_parameters / sizeof known_parameters[0]; j++)
            known = known || strcmp(mechanism->params[i].name, known_parameters[j]) == 0;
        if (!known)
            return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                                "the oracle of '%s' does not know its parameter '%s'; add it to "
                                "baselines/oracle/oracle.c",
                                mechanism->name, mechanism->params[i].name);
    }
    return FB_OK;
}

static enum fb_status read_options(const struct fb_mechanism *mechanism,
                                   const struct fb_problem *problem,
                                   struct fb_oracle_options *options, struct fb_error *error)
{
    static const char *const phis[3] = {"sigmoid", "relu", "elu+1"};
    static const char *const competitions[3] = {"tokens", "heads", "off"};
    const enum fb_status status = check_parameters(mechanism, error);
    if (status != FB_OK)
        return status;
    const int phi = choice(mechanism, problem, "phi", phis);
    const int competition = choice(mechanism, problem, "competition", competitions);
    if (phi < 0 || competition < 0)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "the oracle of '%s' does not know this choice of '%s'", mechanism->name,
                            phi < 0 ? "phi" : "competition");
    const double clamp = parameter(mechanism, problem, "clamp", 1.0);
    *options = (struct fb_oracle_options){
        .window = (int64_t)parameter(mechanism, problem, "window", 0.0),
        .features = (int64_t)parameter(mechanism, problem, "features", 0.0),
        .phi = (enum fb_oracle_phi)phi,
        .clamp = clamp > 0.0 ? clamp : HUGE_VAL,
        .extra_eps = parameter(mechanism, problem, "extra_eps", 0.0),
        .competition = (enum fb_oracle_competition)competition,
        .allocation = parameter(mechanism, problem, "allocation", 1.0) != 0.0,
    };
    return FB_OK;
}

bool fb_oracle_exists(const char *mechanism_name)
{
    return find_oracle(mechanism_name) != NULL;
}

static struct fb_oracle_head view_head(const struct fb_problem *problem, const struct fb_call *call,
                                       const struct fb_oracle_options *options, int64_t b,
                                       int64_t h)
{
    /* grouped queries: heads / kv_heads consecutive query heads share one head of k and v */
    const int64_t group = problem->heads / problem->kv_heads;
    return (struct fb_oracle_head){
        .q_len = problem->q_lengths ? problem->q_lengths[b] : problem->q_len,
        .kv_len = problem->kv_lengths ? problem->kv_lengths[b] : problem->kv_len,
        .qk_dim = problem->qk_dim,
        .v_dim = problem->v_dim,
        .causal = problem->causal,
        .q = fb_tensor_row_f32(&call->q, b, h, 0),
        .k = fb_tensor_row_f32(&call->k, b, h / group, 0),
        .v = fb_tensor_row_f32(&call->v, b, h / group, 0),
        .q_stride = call->q.stride[2],
        .k_stride = call->k.stride[2],
        .v_stride = call->v.stride[2],
        .constants = call->constants,
        .options = *options,
        .heads = problem->heads,
        .index = h,
        .kv_group = group,
        .q_first = fb_tensor_row_f32(&call->q, b, 0, 0),
        .k_first = fb_tensor_row_f32(&call->k, b, 0, 0),
        .q_head_stride = call->q.stride[1],
        .k_head_stride = call->k.stride[1],
    };
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

    struct fb_oracle_options options;
    status = read_options(mechanism, problem, &options, error);
    if (status != FB_OK)
        return status;
    const struct fb_oracle_head head = view_head(problem, call, &options, b, h);

    /* rows of padding, and all rows of a head without keys, are 0 */
    size_t valid = 0;
    while (valid < rows_count && rows[valid] < head.q_len && head.kv_len > 0)
        valid++;
    for (size_t i = valid * (size_t)head.v_dim; i < rows_count * (size_t)head.v_dim; i++)
        out[i] = 0.0;
    if (valid == 0)
        return FB_OK;
    const struct fb_oracle_rows wanted = {.index = rows, .count = valid, .out = out};
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
    struct fb_oracle_options options;
    if (!oracle || read_options(mechanism, problem, &options, NULL) != FB_OK)
        return HUGE_VAL;
    return oracle->cost(problem, &options, rows_count);
}
