/*
 * Flow-Attention in float64, word for word from spec/attention.md sections 1 (normal) and 2
 * (causal): phi = sigmoid, eps = 1e-6 added to both factors of the four inner products and to
 * nothing else, conserved outgoing flow clamped to [-1, 1].
 */
#include "oracle_head.h"

#include <math.h>

static const double eps = 1e-6;

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static void load_phi(double *y, const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = sigmoid((double)x[i]);
}

/* (x + eps) . (y + eps) */
static double dot_eps(const double *x, const double *y, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++)
        sum += (x[i] + eps) * (y[i] + eps);
    return sum;
}

static double clamp_one(double x)
{
    return x < -1.0 ? -1.0 : x > 1.0 ? 1.0 : x;
}

/* Buffers of both forms. The four sums [D] mean totals in the normal form, prefixes in the causal.
 */
struct flow_state {
    double *qi, *kj, *vj;          /* one token: phi(q), phi(k), v */
    double *ksum, *qsum, *kb, *qa; /* sum K, sum Q, sum K b, sum Q a */
    double *kv;                    /* sum K (x) C V, [D][M] */
    double *outgoing;              /* S conserved outgoing flows; normal form only */
};

static enum fb_status init_state(struct flow_state *s, const struct fb_oracle_head *head,
                                 struct fb_arena *arena, struct fb_error *error)
{
    const int64_t d = head->qk_dim, m = head->v_dim;
    double **vectors[] = {&s->qi, &s->kj, &s->ksum, &s->qsum, &s->kb, &s->qa};
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
        if (!(*vectors[i] = fb_oracle_doubles(arena, d, error)))
            return FB_ERROR_MEMORY;
    s->vj = fb_oracle_doubles(arena, m, error);
    s->kv = s->vj ? fb_oracle_doubles(arena, d * m, error) : NULL;
    s->outgoing = s->kv ? fb_oracle_doubles(arena, head->kv_len, error) : NULL;
    return s->outgoing ? FB_OK : FB_ERROR_MEMORY;
}

static void add_flows(struct flow_state *s, const struct fb_oracle_head *head)
{
    const int64_t d = head->qk_dim;
    for (int64_t i = 0; i < head->q_len; i++) {
        load_phi(s->qi, head->q + i * head->q_stride, d);
        fb_oracle_add_scaled(s->qsum, 1.0, s->qi, d);
    }
    for (int64_t j = 0; j < head->kv_len; j++) {
        load_phi(s->kj, head->k + j * head->k_stride, d);
        fb_oracle_add_scaled(s->ksum, 1.0, s->kj, d);
    }
    for (int64_t i = 0; i < head->q_len; i++) {
        load_phi(s->qi, head->q + i * head->q_stride, d);
        fb_oracle_add_scaled(s->qa, 1.0 / dot_eps(s->qi, s->ksum, d), s->qi, d);
    }
    for (int64_t j = 0; j < head->kv_len; j++) {
        load_phi(s->kj, head->k + j * head->k_stride, d);
        fb_oracle_add_scaled(s->kb, 1.0 / dot_eps(s->kj, s->qsum, d), s->kj, d);
    }
}

/* kv = sum_j K_j (x) C_j V_j with C = S softmax(clamp(conserved outgoing)). */
static void add_competition(struct flow_state *s, const struct fb_oracle_head *head)
{
    const int64_t d = head->qk_dim, m = head->v_dim;
    double max = -HUGE_VAL, sum = 0.0;
    for (int64_t j = 0; j < head->kv_len; j++) {
        load_phi(s->kj, head->k + j * head->k_stride, d);
        s->outgoing[j] = clamp_one(dot_eps(s->kj, s->qa, d));
        max = fmax(max, s->outgoing[j]);
    }
    for (int64_t j = 0; j < head->kv_len; j++)
        sum += exp(s->outgoing[j] - max);
    for (int64_t j = 0; j < head->kv_len; j++) {
        const double c = (double)head->kv_len * exp(s->outgoing[j] - max) / sum;
        load_phi(s->kj, head->k + j * head->k_stride, d);
        fb_oracle_widen(s->vj, head->v + j * head->v_stride, m);
        fb_oracle_add_outer(s->kv, c, s->kj, d, s->vj, m);
    }
}

static void flow_normal(struct flow_state *s, const struct fb_oracle_head *head,
                        const struct fb_oracle_rows *rows)
{
    const int64_t d = head->qk_dim, m = head->v_dim;
    const double ratio = (double)head->q_len / (double)head->kv_len;
    add_flows(s, head);
    add_competition(s, head);
    for (size_t r = 0; r < rows->count; r++) {
        load_phi(s->qi, head->q + rows->index[r] * head->q_stride, d);
        const double a = 1.0 / dot_eps(s->qi, s->ksum, d);
        const double allocation = sigmoid(dot_eps(s->qi, s->kb, d) * ratio);
        fb_oracle_apply(rows->out + (int64_t)r * m, allocation * a, s->qi, s->kv, d, m);
    }
}

/* The recurrence of section 2: the state after token t holds sums over u <= t. */
static void flow_causal(struct flow_state *s, const struct fb_oracle_head *head,
                        const struct fb_oracle_rows *rows)
{
    const int64_t d = head->qk_dim, m = head->v_dim;
    double exp_sum = 0.0;
    size_t r = 0;
    for (int64_t t = 0; r < rows->count; t++) {
        const double n = (double)(t + 1);
        load_phi(s->qi, head->q + t * head->q_stride, d);
        load_phi(s->kj, head->k + t * head->k_stride, d);
        fb_oracle_widen(s->vj, head->v + t * head->v_stride, m);
        fb_oracle_add_scaled(s->ksum, 1.0, s->kj, d);
        fb_oracle_add_scaled(s->qsum, 1.0, s->qi, d);
        const double a = n / dot_eps(s->qi, s->ksum, d);
        const double b = n / dot_eps(s->kj, s->qsum, d);
        fb_oracle_add_scaled(s->kb, b, s->kj, d);
        fb_oracle_add_scaled(s->qa, a, s->qi, d);
        const double incoming = dot_eps(s->qi, s->kb, d) / n;
        const double e = exp(clamp_one(dot_eps(s->kj, s->qa, d) / n));
        exp_sum += e;
        fb_oracle_add_outer(s->kv, n * e / exp_sum, s->kj, d, s->vj, m);
        if (t == rows->index[r]) {
            fb_oracle_apply(rows->out + (int64_t)r * m, sigmoid(incoming) * a / n, s->qi, s->kv, d,
                            m);
            r++;
        }
    }
}

enum fb_status fb_oracle_flow(const struct fb_oracle_head *head, const struct fb_oracle_rows *rows,
                              struct fb_arena *arena, struct fb_error *error)
{
    if (head->causal && head->q_len != head->kv_len)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "oracle: causal flow needs equal lengths of queries and keys");
    struct flow_state state;
    const enum fb_status status = init_state(&state, head, arena, error);
    if (status != FB_OK)
        return status;
    if (head->causal)
        flow_causal(&state, head, rows);
    else
        flow_normal(&state, head, rows);
    return FB_OK;
}
