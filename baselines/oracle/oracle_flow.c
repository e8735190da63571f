/*
 * Flow-Attention in float64, word for word from spec/attention.md sections 1 (normal) and 2
 * (causal), with the options of sections 3 and 4: phi, the clamp of the conserved outgoing flow,
 * an extra eps on the value of the four inner products, competition over tokens, over heads or
 * none, allocation or none. eps = 1e-6 is added to both factors of the four inner products and to
 * nothing else.
 */
#include "oracle_flow.h"

#include <math.h>

static const double eps = FB_ORACLE_FLOW_EPS;

double fb_oracle_flow_sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

void fb_oracle_flow_phi(const struct fb_oracle_head *head, const float *x, double *y)
{
    for (int64_t i = 0; i < head->qk_dim; i++) {
        const double value = (double)x[i];
        if (head->options.phi == FB_ORACLE_SIGMOID)
            y[i] = fb_oracle_flow_sigmoid(value);
        else if (head->options.phi == FB_ORACLE_RELU)
            y[i] = fmax(value, 0.0) + eps;
        else
            y[i] = value > 0.0 ? value + 1.0 : exp(value);
    }
}

void fb_oracle_flow_slope(const struct fb_oracle_head *head, const float *x, double *y)
{
    for (int64_t i = 0; i < head->qk_dim; i++) {
        const double value = (double)x[i];
        if (head->options.phi == FB_ORACLE_SIGMOID)
            y[i] = fb_oracle_flow_sigmoid(value) * fb_oracle_flow_sigmoid(-value);
        else if (head->options.phi == FB_ORACLE_RELU)
            y[i] = value > 0.0 ? 1.0 : 0.0;
        else
            y[i] = value > 0.0 ? 1.0 : exp(value);
    }
}

double fb_oracle_flow_product(const struct fb_oracle_head *head, const double *x, const double *y)
{
    double sum = 0.0;
    for (int64_t i = 0; i < head->qk_dim; i++)
        sum += (x[i] + eps) * (y[i] + eps);
    return sum + head->options.extra_eps;
}

double fb_oracle_flow_clamp(const struct fb_oracle_head *head, double x)
{
    const double limit = head->options.clamp;
    return x < -limit ? -limit : x > limit ? limit : x;
}

double fb_oracle_flow_log_share(struct fb_oracle_flow_prefix *prefix, double clamped)
{
    if (prefix->tokens++ == 0) {
        prefix->log_sum = clamped;
        return 0.0;
    }
    const double high = fmax(prefix->log_sum, clamped), low = fmin(prefix->log_sum, clamped);
    prefix->log_sum = high + log1p(exp(low - high));
    return clamped - prefix->log_sum;
}

enum fb_status fb_oracle_flow_check(const struct fb_oracle_task *task, struct fb_error *error)
{
    const bool causal = task->problem->causal;
    if (causal && fb_oracle_q_len(task) != fb_oracle_kv_len(task))
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "oracle: causal flow needs equal lengths of queries and keys");
    if (causal && task->options.competition == FB_ORACLE_OVER_HEADS)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "oracle: causal flow has no competition over heads");
    return FB_OK;
}

/* ---- normal form ----------------------------------------------------------------------------- */

static enum fb_status init_normal(struct fb_oracle_flow *f, struct fb_arena *arena,
                                  struct fb_error *error)
{
    const int64_t d = f->head.qk_dim, m = f->head.v_dim;
    double **vectors[] = {&f->ksum, &f->qsum, &f->kb, &f->qa, &f->x};
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
        if (!(*vectors[i] = fb_oracle_doubles(arena, d, error)))
            return FB_ERROR_MEMORY;
    f->v = fb_oracle_doubles(arena, m, error);
    f->kv = f->v ? fb_oracle_doubles(arena, d * m, error) : NULL;
    f->outgoing = f->kv ? fb_oracle_doubles(arena, f->head.kv_len, error) : NULL;
    f->c = f->outgoing ? fb_oracle_doubles(arena, f->head.kv_len, error) : NULL;
    return f->c ? FB_OK : FB_ERROR_MEMORY;
}

static const double *query(const struct fb_oracle_flow *f, int64_t i)
{
    fb_oracle_flow_phi(&f->head, f->head.q + i * f->head.q_stride, f->x);
    return f->x;
}

static const double *key(const struct fb_oracle_flow *f, int64_t j)
{
    fb_oracle_flow_phi(&f->head, f->head.k + j * f->head.k_stride, f->x);
    return f->x;
}

static void add_flows(const struct fb_oracle_flow *f)
{
    const struct fb_oracle_head *head = &f->head;
    const int64_t d = head->qk_dim;
    for (int64_t i = 0; i < head->q_len; i++)
        fb_oracle_add_scaled(f->qsum, 1.0, query(f, i), d);
    for (int64_t j = 0; j < head->kv_len; j++)
        fb_oracle_add_scaled(f->ksum, 1.0, key(f, j), d);
    for (int64_t i = 0; i < head->q_len; i++) {
        const double *q = query(f, i);
        fb_oracle_add_scaled(f->qa, 1.0 / fb_oracle_flow_product(head, q, f->ksum), q, d);
    }
    for (int64_t j = 0; j < head->kv_len; j++) {
        const double *k = key(f, j);
        fb_oracle_add_scaled(f->kb, 1.0 / fb_oracle_flow_product(head, k, f->qsum), k, d);
    }
    for (int64_t j = 0; j < head->kv_len; j++)
        f->outgoing[j] = fb_oracle_flow_product(head, key(f, j), f->qa);
}

/* C = S softmax over the sources of one head. */
static void compete_over_tokens(const struct fb_oracle_flow *f)
{
    const int64_t count = f->head.kv_len;
    double max = -HUGE_VAL, sum = 0.0;
    for (int64_t j = 0; j < count; j++) {
        f->c[j] = fb_oracle_flow_clamp(&f->head, f->outgoing[j]);
        max = fmax(max, f->c[j]);
    }
    for (int64_t j = 0; j < count; j++)
        sum += f->c[j] = exp(f->c[j] - max);
    for (int64_t j = 0; j < count; j++)
        f->c[j] *= (double)count / sum;
}

/* C = S softmax over the heads of each source. */
static void compete_over_heads(const struct fb_oracle_flow *heads, int64_t head_count)
{
    const int64_t count = heads[0].head.kv_len;
    for (int64_t j = 0; j < count; j++) {
        double max = -HUGE_VAL, sum = 0.0;
        for (int64_t h = 0; h < head_count; h++) {
            heads[h].c[j] = fb_oracle_flow_clamp(&heads[h].head, heads[h].outgoing[j]);
            max = fmax(max, heads[h].c[j]);
        }
        for (int64_t h = 0; h < head_count; h++)
            sum += heads[h].c[j] = exp(heads[h].c[j] - max);
        for (int64_t h = 0; h < head_count; h++)
            heads[h].c[j] *= (double)count / sum;
    }
}

static void add_products(const struct fb_oracle_flow *f)
{
    const struct fb_oracle_head *head = &f->head;
    for (int64_t j = 0; j < head->kv_len; j++) {
        fb_oracle_widen(f->v, head->v + j * head->v_stride, head->v_dim);
        fb_oracle_add_outer(f->kv, f->c[j], key(f, j), head->qk_dim, f->v, head->v_dim);
    }
}

enum fb_status fb_oracle_flow_normal(const struct fb_oracle_task *task, struct fb_arena *arena,
                                     struct fb_oracle_flow **heads, int64_t *head_count,
                                     int64_t *mine, struct fb_error *error)
{
    const enum fb_oracle_competition competition = task->options.competition;
    const bool all = competition == FB_ORACLE_OVER_HEADS;
    const int64_t count = all ? task->problem->heads : 1;
    struct fb_oracle_flow *f = fb_arena_alloc(arena, (size_t)count, sizeof *f, error);
    if (!f)
        return FB_ERROR_MEMORY;
    for (int64_t h = 0; h < count; h++) {
        enum fb_status status =
            fb_oracle_head_of(task, all ? h : task->h, arena, &f[h].head, error);
        if (status == FB_OK)
            status = init_normal(&f[h], arena, error);
        if (status != FB_OK)
            return status;
        add_flows(&f[h]);
        if (competition == FB_ORACLE_OVER_TOKENS)
            compete_over_tokens(&f[h]);
        for (int64_t j = 0; competition == FB_ORACLE_NO_COMPETITION && j < f[h].head.kv_len; j++)
            f[h].c[j] = 1.0;
    }
    if (all)
        compete_over_heads(f, count);
    for (int64_t h = 0; h < count; h++)
        add_products(&f[h]);
    *heads = f;
    *head_count = count;
    *mine = all ? task->h : 0;
    return FB_OK;
}

static enum fb_status flow_normal(const struct fb_oracle_task *task,
                                  const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                  struct fb_error *error)
{
    struct fb_oracle_flow *heads;
    int64_t count, mine;
    const enum fb_status status = fb_oracle_flow_normal(task, arena, &heads, &count, &mine, error);
    if (status != FB_OK)
        return status;
    const struct fb_oracle_flow *f = &heads[mine];
    const struct fb_oracle_head *head = &f->head;
    const double ratio = (double)head->q_len / (double)head->kv_len;
    for (size_t r = 0; r < rows->count; r++) {
        const double *q = query(f, rows->index[r]);
        const double a = 1.0 / fb_oracle_flow_product(head, q, f->ksum);
        const double incoming = fb_oracle_flow_product(head, q, f->kb);
        const double allocation =
            head->options.allocation ? fb_oracle_flow_sigmoid(incoming * ratio) : 1.0;
        fb_oracle_apply(rows->out + (int64_t)r * head->v_dim, allocation * a, q, f->kv,
                        head->qk_dim, head->v_dim);
    }
    return FB_OK;
}

/* ---- causal form ----------------------------------------------------------------------------- */

/* The recurrence of section 2: the sums after token t are over u <= t. */
static enum fb_status flow_causal(const struct fb_oracle_task *task,
                                  const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                  struct fb_error *error)
{
    struct fb_oracle_flow f = {.x = NULL};
    const struct fb_oracle_head *head = &f.head;
    enum fb_status status = fb_oracle_head_of(task, task->h, arena, &f.head, error);
    if (status != FB_OK)
        return status;
    const int64_t d = head->qk_dim, m = head->v_dim;
    double *k = fb_oracle_doubles(arena, d, error);
    if (!k || init_normal(&f, arena, error) != FB_OK)
        return FB_ERROR_MEMORY;
    struct fb_oracle_flow_prefix prefix = {0};
    size_t r = 0;
    for (int64_t t = 0; r < rows->count; t++) {
        const double n = (double)(t + 1);
        const double *q = query(&f, t);
        fb_oracle_flow_phi(head, head->k + t * head->k_stride, k);
        fb_oracle_widen(f.v, head->v + t * head->v_stride, m);
        fb_oracle_add_scaled(f.ksum, 1.0, k, d);
        fb_oracle_add_scaled(f.qsum, 1.0, q, d);
        const double a = n / fb_oracle_flow_product(head, q, f.ksum);
        const double b = n / fb_oracle_flow_product(head, k, f.qsum);
        fb_oracle_add_scaled(f.kb, b, k, d);
        fb_oracle_add_scaled(f.qa, a, q, d);
        const double incoming = fb_oracle_flow_product(head, q, f.kb) / n;
        const double outgoing = fb_oracle_flow_product(head, k, f.qa) / n;
        const double share =
            fb_oracle_flow_log_share(&prefix, fb_oracle_flow_clamp(head, outgoing));
        const double c =
            head->options.competition == FB_ORACLE_NO_COMPETITION ? 1.0 : n * exp(share);
        fb_oracle_add_outer(f.kv, c, k, d, f.v, m);
        if (t == rows->index[r]) {
            const double allocation =
                head->options.allocation ? fb_oracle_flow_sigmoid(incoming) : 1.0;
            fb_oracle_apply(rows->out + (int64_t)r * m, allocation * a / n, q, f.kv, d, m);
            r++;
        }
    }
    return FB_OK;
}

enum fb_status fb_oracle_flow(const struct fb_oracle_task *task, const struct fb_oracle_rows *rows,
                              struct fb_arena *arena, struct fb_error *error)
{
    const enum fb_status status = fb_oracle_flow_check(task, error);
    if (status != FB_OK)
        return status;
    return task->problem->causal ? flow_causal(task, rows, arena, error)
                                 : flow_normal(task, rows, arena, error);
}
