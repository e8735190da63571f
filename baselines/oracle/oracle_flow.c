/*
 * Flow-Attention in float64, word for word from spec/attention.md sections 1 (normal) and 2
 * (causal), with the deviations of section 3 and the ablations of section 4 as options: phi, the
 * clamp of the conserved outgoing flow, an extra eps on the value of each inner product,
 * competition over tokens or heads or none, allocation or none.
 * eps = 1e-6 is added to both factors of the four inner products and to nothing else.
 */
#include "oracle_head.h"

#include <math.h>

static const double eps = 1e-6;
static const double relu_floor = 1e-6;

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static double phi_of(enum fb_oracle_phi phi, double x)
{
    switch (phi) {
    case FB_ORACLE_RELU:
        return (x > 0.0 ? x : 0.0) + relu_floor;
    case FB_ORACLE_ELU:
        return x > 0.0 ? x + 1.0 : exp(x);
    default:
        return sigmoid(x);
    }
}

static void load_phi(double *y, const float *x, const struct fb_oracle_head *head)
{
    for (int64_t i = 0; i < head->qk_dim; i++)
        y[i] = phi_of(head->options.phi, (double)x[i]);
}

/* (x + eps) . (y + eps) + extra eps */
static double flow_between(const double *x, const double *y, const struct fb_oracle_head *head)
{
    double sum = 0.0;
    for (int64_t i = 0; i < head->qk_dim; i++)
        sum += (x[i] + eps) * (y[i] + eps);
    return sum + head->options.extra_eps;
}

static double clamped(double x, double limit)
{
    return x < -limit ? -limit : x > limit ? limit : x;
}

static double allocation(double incoming, const struct fb_oracle_head *head)
{
    return head->options.allocation ? sigmoid(incoming) : 1.0;
}

/* Buffers of both forms. The four sums [D] mean totals in the normal form, prefixes in the causal.
 */
struct flow_state {
    double *qi, *kj, *vj;          /* one token: phi(q), phi(k), v */
    double *ksum, *qsum, *kb, *qa; /* sum K, sum Q, sum K b, sum Q a */
    double *kv;                    /* sum K (x) C V, [D][M] */
    double *competition;           /* C of the S sources; normal form only */
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
    s->competition = s->kv ? fb_oracle_doubles(arena, head->kv_len, error) : NULL;
    return s->competition ? FB_OK : FB_ERROR_MEMORY;
}

/* The four sums of the normal form, for one head of this batch. */
static void add_flows(struct flow_state *s, const struct fb_oracle_head *head)
{
    const int64_t d = head->qk_dim;
    for (int64_t c = 0; c < d; c++)
        s->ksum[c] = s->qsum[c] = s->kb[c] = s->qa[c] = 0.0;
    for (int64_t i = 0; i < head->q_len; i++) {
        load_phi(s->qi, head->q + i * head->q_stride, head);
        fb_oracle_add_scaled(s->qsum, 1.0, s->qi, d);
    }
    for (int64_t j = 0; j < head->kv_len; j++) {
        load_phi(s->kj, head->k + j * head->k_stride, head);
        fb_oracle_add_scaled(s->ksum, 1.0, s->kj, d);
    }
    for (int64_t i = 0; i < head->q_len; i++) {
        load_phi(s->qi, head->q + i * head->q_stride, head);
        fb_oracle_add_scaled(s->qa, 1.0 / flow_between(s->qi, s->ksum, head), s->qi, d);
    }
    for (int64_t j = 0; j < head->kv_len; j++) {
        load_phi(s->kj, head->k + j * head->k_stride, head);
        fb_oracle_add_scaled(s->kb, 1.0 / flow_between(s->kj, s->qsum, head), s->kj, d);
    }
}

/* Conserved outgoing flow of source j, clamped; the sums of this head are in s. */
static double outgoing_flow(struct flow_state *s, const struct fb_oracle_head *head, int64_t j)
{
    load_phi(s->kj, head->k + j * head->k_stride, head);
    return clamped(flow_between(s->kj, s->qa, head), head->options.clamp);
}

/* C_j = S exp(o_j) / sum over sources of exp(o). */
static void compete_over_tokens(struct flow_state *s, const struct fb_oracle_head *head)
{
    double max = -HUGE_VAL, sum = 0.0;
    for (int64_t j = 0; j < head->kv_len; j++) {
        s->competition[j] = outgoing_flow(s, head, j);
        max = fmax(max, s->competition[j]);
    }
    for (int64_t j = 0; j < head->kv_len; j++)
        sum += exp(s->competition[j] - max);
    for (int64_t j = 0; j < head->kv_len; j++)
        s->competition[j] = (double)head->kv_len * exp(s->competition[j] - max) / sum;
}

/* C_jh = S exp(o_jh) / sum over heads h' of exp(o_jh'): section 3.1. Leaves in s the sums of the
 * last head. flows has room for [heads][S]. */
static void compete_over_heads(struct flow_state *s, const struct fb_oracle_head *head,
                               double *flows)
{
    const int64_t len = head->kv_len;
    for (int64_t h = 0; h < head->heads; h++) {
        struct fb_oracle_head other = *head;
        other.q = head->q_first + h * head->q_head_stride;
        other.k = head->k_first + h / head->kv_group * head->k_head_stride;
        add_flows(s, &other);
        for (int64_t j = 0; j < len; j++)
            flows[h * len + j] = outgoing_flow(s, &other, j);
    }
    for (int64_t j = 0; j < len; j++) {
        double max = -HUGE_VAL, sum = 0.0;
        for (int64_t h = 0; h < head->heads; h++)
            max = fmax(max, flows[h * len + j]);
        for (int64_t h = 0; h < head->heads; h++)
            sum += exp(flows[h * len + j] - max);
        s->competition[j] = (double)len * exp(flows[head->index * len + j] - max) / sum;
    }
}

static enum fb_status flow_normal(struct flow_state *s, const struct fb_oracle_head *head,
                                  const struct fb_oracle_rows *rows, struct fb_arena *arena,
                                  struct fb_error *error)
{
    const int64_t d = head->qk_dim, m = head->v_dim;
    const double ratio = (double)head->q_len / (double)head->kv_len;
    if (head->options.competition == FB_ORACLE_OVER_HEADS) {
        double *flows = fb_oracle_doubles(arena, head->heads * head->kv_len, error);
        if (!flows)
            return FB_ERROR_MEMORY;
        compete_over_heads(s, head, flows);
    }
    add_flows(s, head);
    if (head->options.competition == FB_ORACLE_OVER_TOKENS)
        compete_over_tokens(s, head);
    for (int64_t j = 0; j < head->kv_len; j++) {
        const bool off = head->options.competition == FB_ORACLE_NO_COMPETITION;
        load_phi(s->kj, head->k + j * head->k_stride, head);
        fb_oracle_widen(s->vj, head->v + j * head->v_stride, m);
        fb_oracle_add_outer(s->kv, off ? 1.0 : s->competition[j], s->kj, d, s->vj, m);
    }
    for (size_t r = 0; r < rows->count; r++) {
        load_phi(s->qi, head->q + rows->index[r] * head->q_stride, head);
        const double a = 1.0 / flow_between(s->qi, s->ksum, head);
        const double share = allocation(flow_between(s->qi, s->kb, head) * ratio, head);
        fb_oracle_apply(rows->out + (int64_t)r * m, share * a, s->qi, s->kv, d, m);
    }
    return FB_OK;
}

/* The recurrence of section 2: the state after token t holds sums over u <= t. Without a clamp the
 * exponents grow, so the sum of exponentials is kept relative to their largest. */
static void flow_causal(struct flow_state *s, const struct fb_oracle_head *head,
                        const struct fb_oracle_rows *rows)
{
    const int64_t d = head->qk_dim, m = head->v_dim;
    double exp_sum = 0.0, max = -HUGE_VAL;
    size_t r = 0;
    for (int64_t t = 0; r < rows->count; t++) {
        const double n = (double)(t + 1);
        load_phi(s->qi, head->q + t * head->q_stride, head);
        load_phi(s->kj, head->k + t * head->k_stride, head);
        fb_oracle_widen(s->vj, head->v + t * head->v_stride, m);
        fb_oracle_add_scaled(s->ksum, 1.0, s->kj, d);
        fb_oracle_add_scaled(s->qsum, 1.0, s->qi, d);
        const double a = n / flow_between(s->qi, s->ksum, head);
        const double b = n / flow_between(s->kj, s->qsum, head);
        fb_oracle_add_scaled(s->kb, b, s->kj, d);
        fb_oracle_add_scaled(s->qa, a, s->qi, d);
        const double incoming = flow_between(s->qi, s->kb, head) / n;
        const double outgoing = clamped(flow_between(s->kj, s->qa, head) / n, head->options.clamp);
        const double new_max = fmax(max, outgoing);
        exp_sum = exp_sum * exp(max - new_max) + exp(outgoing - new_max);
        max = new_max;
        const bool off = head->options.competition == FB_ORACLE_NO_COMPETITION;
        const double c = off ? 1.0 : n * exp(outgoing - max) / exp_sum;
        fb_oracle_add_outer(s->kv, c, s->kj, d, s->vj, m);
        if (t == rows->index[r]) {
            const double share = allocation(incoming, head);
            fb_oracle_apply(rows->out + (int64_t)r * m, share * a / n, s->qi, s->kv, d, m);
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
    if (head->causal && head->options.competition == FB_ORACLE_OVER_HEADS)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "oracle: causal flow has no competition over heads");
    struct flow_state state;
    const enum fb_status status = init_state(&state, head, arena, error);
    if (status != FB_OK)
        return status;
    if (!head->causal)
        return flow_normal(&state, head, rows, arena, error);
    flow_causal(&state, head, rows);
    return FB_OK;
}
