/*
 * The table of oracles, the checks that all of them share and their cost. See oracle.h.
 */
#include "oracle.h"

#include "dtype.h"
#include "oracle_head.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- parameters ------------------------------------------------------------------------------ */

static double number(const struct fb_mechanism *mechanism, const struct fb_problem *problem,
                     const char *name, double without)
{
    const int index = fb_param_index(mechanism, name);
    return index < 0 ? without : problem->params[index];
}

/* Whether a parameter has the named choice; a mechanism without it has not. */
static bool has_choice(const struct fb_mechanism *mechanism, const struct fb_problem *problem,
                       const char *name, const char *choice)
{
    const int index = fb_param_index(mechanism, name);
    return index >= 0 && mechanism->params[index].choices &&
           strcmp(mechanism->params[index].choices[(int)problem->params[index]], choice) == 0;
}

static struct fb_oracle_options options_of(const struct fb_mechanism *mechanism,
                                           const struct fb_problem *problem)
{
    const double clamp = number(mechanism, problem, "clamp", 1.0);
    return (struct fb_oracle_options){
        .phi = has_choice(mechanism, problem, "phi", "relu")    ? FB_ORACLE_RELU
               : has_choice(mechanism, problem, "phi", "elu+1") ? FB_ORACLE_ELU
                                                                : FB_ORACLE_SIGMOID,
        .clamp = clamp > 0.0 ? clamp : HUGE_VAL,
        .extra_eps = number(mechanism, problem, "extra_eps", 0.0),
        .competition = has_choice(mechanism, problem, "competition", "heads") ? FB_ORACLE_OVER_HEADS
                       : has_choice(mechanism, problem, "competition", "off")
                           ? FB_ORACLE_NO_COMPETITION
                           : FB_ORACLE_OVER_TOKENS,
        .allocation = number(mechanism, problem, "allocation", 1.0) != 0.0,
        .features = (int64_t)number(mechanism, problem, "features", 0.0),
        .relu_kernel = has_choice(mechanism, problem, "kernel", "relu"),
        .window = (int64_t)number(mechanism, problem, "window", 0.0),
        .block = (int64_t)number(mechanism, problem, "block", 1.0),
        .strided = has_choice(mechanism, problem, "pattern", "strided"),
    };
}

/* ---- cost ------------------------------------------------------------------------------------ */

/* What the costs are made of; gradients of nothing cost nothing. */
struct work {
    double group, heads;    /* query heads of a group, and of the batch element */
    double l, s, d, m, exp; /* exp: flop that an exponential is counted as */
    double q_rows, kv_rows;
    struct fb_oracle_options options;
};

static double forward_flow(const struct work *w)
{
    /* phi is evaluated again in every pass: twice per sink, five times per source */
    const double phi = (w->exp + 8.0) * w->d * (2.0 * w->l + 5.0 * w->s);
    const double heads = w->options.competition == FB_ORACLE_OVER_HEADS ? w->heads : 1.0;
    return heads * (phi + 2.0 * w->s * w->d * w->m) + 2.0 * w->q_rows * w->d * w->m;
}

static double backward_flow(const struct work *w)
{
    const double heads = w->options.competition == FB_ORACLE_OVER_HEADS ? w->heads
                         : w->kv_rows > 0.0                             ? w->group
                                                                        : 1.0;
    const double tokens = w->l + w->s;
    const double pass = tokens * w->d * (6.0 * w->m + 10.0 * (w->exp + 8.0));
    return heads * pass + 6.0 * (w->q_rows + w->group * w->kv_rows) * w->d * w->m;
}

/* Keys that a row sees, at most. */
static double reach(const struct work *w, bool local)
{
    if (!local)
        return w->s;
    const double width =
        w->options.strided ? (double)w->options.block : 2.0 * (double)w->options.window + 1.0;
    return fmin(w->s, width);
}

static double rows_of_softmax(const struct work *w, bool local, double rows, double products)
{
    return rows * reach(w, local) * (products * (w->d + w->m) + w->exp);
}

static double forward_softmax(const struct work *w)
{
    return rows_of_softmax(w, false, w->q_rows, 2.0);
}

static double forward_local(const struct work *w)
{
    return rows_of_softmax(w, true, w->q_rows, 2.0);
}

static double backward_rows(const struct work *w, bool local)
{
    const double normalised = local ? fmin(w->l, w->kv_rows * reach(w, true)) : w->l;
    const double columns = w->kv_rows > 0.0 ? rows_of_softmax(w, local, normalised, 3.0) +
                                                  normalised * w->kv_rows * (w->d + w->m)
                                            : 0.0;
    return rows_of_softmax(w, local, w->q_rows, 4.0) + w->group * columns;
}

static double backward_softmax(const struct work *w)
{
    return backward_rows(w, false);
}

static double backward_local(const struct work *w)
{
    return backward_rows(w, true);
}

/* Of one token: its features, and its share of an outer product or its product with one. */
static double mapped(const struct work *w, double features, double projected)
{
    return features * (projected + w->exp + 2.0 * w->m);
}

static double forward_kernelised(const struct work *w, double features, double projected)
{
    const double maximum = w->s * features * projected;
    return maximum + (w->s + 2.0 * w->q_rows) * mapped(w, features, projected);
}

static double backward_kernelised(const struct work *w, double features, double projected)
{
    const double each = mapped(w, features, projected);
    const double maximum = w->s * features * projected;
    const double queries = w->s * each + (w->kv_rows > 0.0 ? w->l : w->q_rows) * 2.0 * each;
    const double keys = w->kv_rows > 0.0 ? w->l * each + w->kv_rows * 3.0 * each : 0.0;
    const double heads = w->kv_rows > 0.0 ? w->group : 1.0;
    return maximum + heads * (queries + keys) + w->q_rows * 2.0 * each;
}

static double forward_linear(const struct work *w)
{
    return forward_kernelised(w, w->d, 0.0);
}

static double backward_linear(const struct work *w)
{
    return backward_kernelised(w, w->d, 0.0);
}

static double forward_performer(const struct work *w)
{
    return w->options.relu_kernel ? forward_kernelised(w, w->d, 0.0)
                                  : forward_kernelised(w, (double)w->options.features, 2.0 * w->d);
}

static double backward_performer(const struct work *w)
{
    return w->options.relu_kernel ? backward_kernelised(w, w->d, 0.0)
                                  : backward_kernelised(w, (double)w->options.features, 2.0 * w->d);
}

/* ---- table ----------------------------------------------------------------------------------- */

static const struct oracle {
    const char *mechanism;
    fb_oracle_fn forward;
    fb_oracle_gradient_fn gradient;
    double (*forward_cost)(const struct work *work);
    double (*backward_cost)(const struct work *work);
} oracles[] = {
    {"flow", fb_oracle_flow, fb_oracle_flow_gradient, forward_flow, backward_flow},
    {"softmax", fb_oracle_softmax, fb_oracle_softmax_gradient, forward_softmax, backward_softmax},
    {"linear", fb_oracle_linear, fb_oracle_linear_gradient, forward_linear, backward_linear},
    {"performer", fb_oracle_performer, fb_oracle_performer_gradient, forward_performer,
     backward_performer},
    {"local", fb_oracle_local, fb_oracle_local_gradient, forward_local, backward_local},
};

static const struct oracle *find_oracle(const char *mechanism)
{
    for (size_t i = 0; i < sizeof oracles / sizeof oracles[0]; i++)
        if (strcmp(oracles[i].mechanism, mechanism) == 0)
            return &oracles[i];
    return NULL;
}

static struct work work_of(const struct fb_mechanism *mechanism, const struct fb_problem *p,
                           int64_t q_rows, int64_t kv_rows)
{
    const int64_t group = p->heads / p->kv_heads;
    return (struct work){
        .group = (double)group,
        .heads = (double)p->heads,
        .l = (double)p->q_len,
        .s = (double)p->kv_len,
        .d = (double)p->qk_dim,
        .m = (double)p->v_dim,
        .exp = 20.0,
        .q_rows = (double)q_rows,
        .kv_rows = (double)kv_rows,
        .options = options_of(mechanism, p),
    };
}

bool fb_oracle_exists(const char *mechanism_name)
{
    return find_oracle(mechanism_name) != NULL;
}

double fb_oracle_cost(const struct fb_mechanism *mechanism, const struct fb_problem *problem,
                      int64_t rows_count)
{
    const struct oracle *oracle = find_oracle(mechanism->name);
    const struct work work = work_of(mechanism, problem, rows_count, 0);
    return oracle ? oracle->forward_cost(&work) : HUGE_VAL;
}

double fb_oracle_backward_cost(const struct fb_mechanism *mechanism,
                               const struct fb_problem *problem, int64_t q_count, int64_t kv_count)
{
    const struct oracle *oracle = find_oracle(mechanism->name);
    const struct work work = work_of(mechanism, problem, q_count, kv_count);
    return oracle ? oracle->backward_cost(&work) : HUGE_VAL;
}

/* ---- checks ---------------------------------------------------------------------------------- */

static enum fb_status check_tensor(const char *name, const struct fb_tensor *tensor, int64_t batch,
                                   int64_t heads, int64_t tokens, int64_t dim,
                                   struct fb_error *error)
{
    if (tensor->dtype == FB_F64)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "oracle: tensor %s is f64; oracles read f32, bf16 and f16 inputs",
                            name);
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

static enum fb_status check_rows(const char *name, const int64_t *rows, size_t count, int64_t limit,
                                 struct fb_error *error)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i] < 0 || rows[i] >= limit || (i > 0 && rows[i] <= rows[i - 1]))
            return fb_error_set(error, FB_ERROR_USAGE,
                                "oracle: %s %" PRId64
                                " at position %zu is out of order or outside 0 .. %" PRId64,
                                name, rows[i], i, limit - 1);
    return FB_OK;
}

static enum fb_status check_lengths(const char *name, const int64_t *lengths, int64_t b,
                                    int64_t limit, struct fb_error *error)
{
    if (lengths && (lengths[b] < 0 || lengths[b] > limit))
        return fb_error_set(error, FB_ERROR_USAGE,
                            "oracle: %s[%" PRId64 "] is %" PRId64 ", outside 0 .. %" PRId64, name,
                            b, lengths[b], limit);
    return FB_OK;
}

/* Everything but the rows. */
static enum fb_status check_call(const struct fb_problem *p, const struct fb_call *call, int64_t b,
                                 int64_t h, bool with_dout, struct fb_error *error)
{
    if (p->kv_heads < 1 || p->heads % p->kv_heads != 0)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "oracle: kv_heads %" PRId64 " does not divide heads %" PRId64,
                            p->kv_heads, p->heads);
    if (b < 0 || b >= p->batch || h < 0 || h >= p->heads)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "oracle: batch %" PRId64 ", head %" PRId64
                            " lies outside a problem of %" PRId64 " x %" PRId64,
                            b, h, p->batch, p->heads);
    enum fb_status status = check_lengths("q_lengths", p->q_lengths, b, p->q_len, error);
    if (status == FB_OK)
        status = check_lengths("kv_lengths", p->kv_lengths, b, p->kv_len, error);
    if (status == FB_OK)
        status = check_tensor("q", &call->q, p->batch, p->heads, p->q_len, p->qk_dim, error);
    if (status == FB_OK)
        status = check_tensor("k", &call->k, p->batch, p->kv_heads, p->kv_len, p->qk_dim, error);
    if (status == FB_OK)
        status = check_tensor("v", &call->v, p->batch, p->kv_heads, p->kv_len, p->v_dim, error);
    if (status == FB_OK && with_dout)
        status = check_tensor("dout", &call->dout, p->batch, p->heads, p->q_len, p->v_dim, error);
    return status;
}

static enum fb_status find_or_refuse(const struct fb_mechanism *mechanism,
                                     const struct oracle **oracle, struct fb_error *error)
{
    *oracle = find_oracle(mechanism->name);
    if (*oracle)
        return FB_OK;
    return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                        "mechanism '%s' has no oracle; add one to baselines/oracle/oracle.c",
                        mechanism->name);
}

/* ---- running --------------------------------------------------------------------------------- */

/* The first count rows of a head: where they are when they are f32, else a copy. */
static enum fb_status rows_of(const struct fb_tensor *x, int64_t b, int64_t h, int64_t count,
                              struct fb_arena *arena, const float **rows, int64_t *stride,
                              struct fb_error *error)
{
    *stride = x->stride[2];
    if (x->dtype == FB_F32) {
        *rows = fb_tensor_row_f32(x, b, h, 0);
        return FB_OK;
    }
    const int64_t dim = x->shape[3];
    float *copy = fb_arena_alloc(arena, (size_t)(count * dim) + 1, sizeof *copy, error);
    if (!copy)
        return FB_ERROR_MEMORY;
    for (int64_t i = 0; i < count; i++)
        fb_dtype_widen(x->dtype, fb_tensor_row(x, b, h, i), dim, copy + i * dim);
    *rows = copy;
    *stride = dim;
    return FB_OK;
}

enum fb_status fb_oracle_head_of(const struct fb_oracle_task *task, int64_t h,
                                 struct fb_arena *arena, struct fb_oracle_head *head,
                                 struct fb_error *error)
{
    const struct fb_problem *p = task->problem;
    const struct fb_call *call = task->call;
    /* grouped queries: heads / kv_heads consecutive query heads share one head of k and v */
    const int64_t b = task->b, kv_h = h / (p->heads / p->kv_heads);
    const int64_t sinks = fb_oracle_q_len(task), sources = fb_oracle_kv_len(task);
    *head = (struct fb_oracle_head){
        .q_len = sinks,
        .kv_len = sources,
        .qk_dim = p->qk_dim,
        .v_dim = p->v_dim,
        .causal = p->causal,
        .constants = call->constants,
        .options = task->options,
    };
    enum fb_status status = rows_of(&call->q, b, h, sinks, arena, &head->q, &head->q_stride, error);
    if (status == FB_OK)
        status = rows_of(&call->k, b, kv_h, sources, arena, &head->k, &head->k_stride, error);
    if (status == FB_OK)
        status = rows_of(&call->v, b, kv_h, sources, arena, &head->v, &head->v_stride, error);
    if (status == FB_OK && call->dout.data)
        status = rows_of(&call->dout, b, h, sinks, arena, &head->dout, &head->dout_stride, error);
    return status;
}

static size_t count_below(const int64_t *rows, size_t count, int64_t limit)
{
    while (count > 0 && rows[count - 1] >= limit)
        count--;
    return count;
}

static void clear(double *x, size_t rows, int64_t columns)
{
    for (size_t i = 0; i < rows * (size_t)columns; i++)
        x[i] = 0.0;
}

/* key_stabiliser: NULL, or what takes the place of Performer's maximum over the keys. */
static enum fb_status forward_rows(const struct fb_mechanism *mechanism,
                                   const struct fb_problem *problem, const struct fb_call *call,
                                   int64_t b, int64_t h, const int64_t *rows, size_t rows_count,
                                   const double *key_stabiliser, double *out,
                                   struct fb_error *error)
{
    const struct oracle *oracle;
    enum fb_status status = find_or_refuse(mechanism, &oracle, error);
    if (status == FB_OK)
        status = check_call(problem, call, b, h, false, error);
    if (status == FB_OK)
        status = check_rows("row", rows, rows_count, problem->q_len, error);
    if (status == FB_OK && rows_count == 0)
        status = fb_error_set(error, FB_ERROR_USAGE, "oracle: no rows asked for");
    if (status != FB_OK)
        return status;

    struct fb_oracle_task task = {problem, call, options_of(mechanism, problem), b, h};
    task.options.key_stabiliser = key_stabiliser;
    const size_t valid =
        fb_oracle_kv_len(&task) > 0 ? count_below(rows, rows_count, fb_oracle_q_len(&task)) : 0;
    const struct fb_oracle_rows wanted = {.index = rows, .count = valid, .out = out};
    clear(out, rows_count, problem->v_dim);
    if (valid == 0)
        return FB_OK;
    struct fb_arena arena;
    fb_arena_init(&arena, 0);
    status = oracle->forward(&task, &wanted, &arena, error);
    fb_arena_free(&arena);
    return status;
}

enum fb_status fb_oracle_forward_rows(const struct fb_mechanism *mechanism,
                                      const struct fb_problem *problem, const struct fb_call *call,
                                      int64_t b, int64_t h, const int64_t *rows, size_t rows_count,
                                      double *out, struct fb_error *error)
{
    return forward_rows(mechanism, problem, call, b, h, rows, rows_count, NULL, out, error);
}

enum fb_status fb_oracle_decode_row(const struct fb_mechanism *mechanism,
                                    const struct fb_problem *problem, const struct fb_call *call,
                                    int64_t b, int64_t h, int64_t token, double *out,
                                    struct fb_error *error)
{
    return forward_rows(mechanism, problem, call, b, h, &token, 1, &call->key_stabiliser, out,
                        error);
}

enum fb_status fb_oracle_backward_rows(const struct fb_mechanism *mechanism,
                                       const struct fb_problem *problem, const struct fb_call *call,
                                       int64_t b, int64_t h,
                                       const struct fb_oracle_gradients *wanted,
                                       struct fb_error *error)
{
    const struct oracle *oracle;
    enum fb_status status = find_or_refuse(mechanism, &oracle, error);
    if (status == FB_OK)
        status = check_call(problem, call, b, h, true, error);
    if (status == FB_OK)
        status = check_rows("query row", wanted->q_rows, wanted->q_count, problem->q_len, error);
    if (status == FB_OK)
        status = check_rows("key row", wanted->kv_rows, wanted->kv_count, problem->kv_len, error);
    if (status == FB_OK && wanted->q_count + wanted->kv_count == 0)
        status = fb_error_set(error, FB_ERROR_USAGE, "oracle: no rows asked for");
    if (status != FB_OK)
        return status;

    const struct fb_oracle_task task = {problem, call, options_of(mechanism, problem), b, h};
    const int64_t sinks = fb_oracle_q_len(&task), sources = fb_oracle_kv_len(&task);
    struct fb_oracle_gradients valid = *wanted;
    valid.q_count = count_below(wanted->q_rows, wanted->q_count, sinks);
    valid.kv_count = count_below(wanted->kv_rows, wanted->kv_count, sources);
    for (size_t i = 0; wanted->kv_kinks && i < wanted->kv_count; i++)
        wanted->kv_kinks[i] = false;
    clear(wanted->dq, wanted->q_count, problem->qk_dim);
    clear(wanted->dk, wanted->kv_count, problem->qk_dim);
    clear(wanted->dv, wanted->kv_count, problem->v_dim);
    if (sinks == 0 || sources == 0 || valid.q_count + valid.kv_count == 0)
        return FB_OK;
    struct fb_arena arena;
    fb_arena_init(&arena, 0);
    status = oracle->gradient(&task, &valid, &arena, error);
    fb_arena_free(&arena);
    return status;
}

/* ---- identities ------------------------------------------------------------------------------ */

/* max|x| of one head */
static double max_of_head(const struct fb_tensor *x, int64_t b, int64_t h)
{
    double max = 0.0;
    for (int64_t t = 0; t < x->shape[2]; t++)
        for (int64_t c = 0; c < x->shape[3]; c++)
            max = fmax(max, fabs(fb_tensor_value(x, b, h, t, c)));
    return max;
}

/* sum over the tokens below count of component c */
static double sum_of_head(const struct fb_tensor *x, int64_t b, int64_t h, int64_t count, int64_t c)
{
    double sum = 0.0;
    for (int64_t t = 0; t < count; t++)
        sum += fb_tensor_value(x, b, h, t, c);
    return sum;
}

void fb_oracle_softmax_sums(const struct fb_problem *problem, const struct fb_call *call, int64_t b,
                            int64_t kv_h, double *dk_error, double *dv_error)
{
    const int64_t group = problem->heads / problem->kv_heads;
    const int64_t sinks = problem->q_lengths ? problem->q_lengths[b] : problem->q_len;
    const int64_t sources = problem->kv_lengths ? problem->kv_lengths[b] : problem->kv_len;
    double dout_max = 0.0;
    *dk_error = *dv_error = 0.0;
    if (sinks == 0 || sources == 0)
        return;
    for (int64_t h = kv_h * group; h < (kv_h + 1) * group; h++)
        dout_max = fmax(dout_max, max_of_head(&call->dout, b, h));
    for (int64_t c = 0; c < problem->qk_dim; c++)
        *dk_error = fmax(*dk_error, fabs(sum_of_head(&call->dk, b, kv_h, sources, c)));
    for (int64_t c = 0; c < problem->v_dim; c++) {
        double wanted = 0.0;
        for (int64_t h = kv_h * group; h < (kv_h + 1) * group; h++)
            wanted += sum_of_head(&call->dout, b, h, sinks, c);
        const double sum = sum_of_head(&call->dv, b, kv_h, sources, c);
        *dv_error = fmax(*dv_error, fabs(sum - wanted));
    }
    const double root = sqrt((double)sources);
    const double dk_scale = dout_max * max_of_head(&call->v, b, kv_h);
    *dk_error /= root * fmax(fmax(dk_scale, max_of_head(&call->dk, b, kv_h)), 1e-300);
    *dv_error /= root * fmax(fmax(dout_max, max_of_head(&call->dv, b, kv_h)), 1e-300);
}
