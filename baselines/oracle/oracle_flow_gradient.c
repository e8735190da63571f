/*
 * Gradients of Flow-Attention in float64: the chain rule, intermediate by intermediate, against the
 * equations of spec/attention.md sections 1 and 2 with the options of sections 3 and 4. Nothing is
 * treated as constant; the clamp lets the gradient through inside and at its ends.
 *
 * d(x) is the derivative of sum(out * dout) with respect to x. From the output back:
 *
 *   out_i = s_i a_i Q_i KV      d(s_i a_i) = r_i = Q_i.(KV dout_i)    d(KV) = sum s_i a_i Q_i (x)
 * dout_i s_i = sigmoid(I_i L/S)      d(I_i) = a_i r_i s_i (1 - s_i) L/S    d(kb) = sum d(I_i) (Q_i
 * + eps) KV = sum K_j (x) C_j V_j    d(C_j) = K_j.(d(KV) V_j)              d(V_j) = C_j K_j d(KV)
 *   C = S softmax(clamp(O))     d(O_j) = C_j (d(C_j) - sum_l C_l d(C_l) / S) where not clamped
 *   O_j = (K_j+eps).(qa+eps)    d(qa) = sum d(O_j) (K_j + eps)
 *   kb = sum K_j b_j            d(b_j) = K_j.d(kb)
 *   1/b_j = (K_j+eps).(qsum+eps)                    d(qsum) = sum -b_j^2 d(b_j) (K_j + eps)
 *   qa = sum Q_i a_i            d(a_i) = s_i r_i + Q_i.d(qa)
 *   1/a_i = (Q_i+eps).(ksum+eps)                    d(ksum) = sum -a_i^2 d(a_i) (Q_i + eps)
 *
 * and d(Q_i), d(K_j) collect every place where they stand. In the causal form each sum over tokens
 * becomes a prefix, and so its derivative a suffix.
 */
#include "oracle_flow.h"

#include <math.h>

static const double eps = FB_ORACLE_FLOW_EPS;

/* y += a (x + eps) */
static void add_raised(double *y, double a, const double *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        y[i] += a * (x[i] + eps);
}

static enum fb_status take_vectors(double **const *vectors, size_t vector_count, int64_t count,
                                   struct fb_arena *arena, struct fb_error *error)
{
    for (size_t i = 0; i < vector_count; i++)
        if (!(*vectors[i] = fb_oracle_doubles(arena, count, error)))
            return FB_ERROR_MEMORY;
    return FB_OK;
}

/* out[c] += dphi[c] phi'(x[c]) */
static void pull_phi(const struct fb_oracle_head *head, const float *x, const double *dphi,
                     double *slope, double *out)
{
    fb_oracle_flow_slope(head, x, slope);
    for (int64_t c = 0; c < head->qk_dim; c++)
        out[c] += dphi[c] * slope[c];
}

/* ---- normal form ----------------------------------------------------------------------------- */

struct normal {
    const struct fb_oracle_flow *f;
    double *r;                         /* [L] */
    double *dc, *doutgoing;            /* [S] */
    double *dkb, *dqa, *dqsum, *dksum; /* [D] */
    double *dkv;                       /* [D][M] */
    double *x, *h, *slope;             /* [D] one token */
    double *g;                         /* [M] one token's dout or v */
};

static enum fb_status init_normal(struct normal *n, const struct fb_oracle_flow *f,
                                  struct fb_arena *arena, struct fb_error *error)
{
    const struct fb_oracle_head *head = &f->head;
    double **const vectors[] = {&n->dkb, &n->dqa, &n->dqsum, &n->dksum, &n->x, &n->h, &n->slope};
    *n = (struct normal){.f = f};
    if (take_vectors(vectors, sizeof vectors / sizeof vectors[0], head->qk_dim, arena, error) !=
        FB_OK)
        return FB_ERROR_MEMORY;
    n->g = fb_oracle_doubles(arena, head->v_dim, error);
    n->dkv = n->g ? fb_oracle_doubles(arena, head->qk_dim * head->v_dim, error) : NULL;
    n->r = n->dkv ? fb_oracle_doubles(arena, head->q_len, error) : NULL;
    n->dc = n->r ? fb_oracle_doubles(arena, head->kv_len, error) : NULL;
    n->doutgoing = n->dc ? fb_oracle_doubles(arena, head->kv_len, error) : NULL;
    return n->doutgoing ? FB_OK : FB_ERROR_MEMORY;
}

/* One sink: phi(q_i) goes to n->x; a_i, s_i and d(I_i) / r_i come back. */
struct sink {
    double a, s, incoming_slope;
};

static struct sink load_sink(const struct normal *n, int64_t i)
{
    const struct fb_oracle_head *head = &n->f->head;
    const double ratio = (double)head->q_len / (double)head->kv_len;
    struct sink sink = {.s = 1.0};
    fb_oracle_flow_phi(head, head->q + i * head->q_stride, n->x);
    sink.a = 1.0 / fb_oracle_flow_product(head, n->x, n->f->ksum);
    if (head->options.allocation) {
        sink.s = fb_oracle_flow_sigmoid(fb_oracle_flow_product(head, n->x, n->f->kb) * ratio);
        sink.incoming_slope = sink.a * sink.s * (1.0 - sink.s) * ratio;
    }
    return sink;
}

/* n->g = dout_i, n->h = KV dout_i */
static void load_pull(const struct normal *n, int64_t i)
{
    const struct fb_oracle_head *head = &n->f->head;
    fb_oracle_widen(n->g, head->dout + i * head->dout_stride, head->v_dim);
    for (int64_t c = 0; c < head->qk_dim; c++)
        n->h[c] = 0.0;
    fb_oracle_add_product(n->h, 1.0, n->f->kv, head->qk_dim, n->g, head->v_dim);
}

static void pull_output(const struct normal *n)
{
    const struct fb_oracle_head *head = &n->f->head;
    const int64_t d = head->qk_dim, m = head->v_dim;
    for (int64_t i = 0; i < head->q_len; i++) {
        const struct sink sink = load_sink(n, i);
        load_pull(n, i);
        n->r[i] = fb_oracle_dot(n->x, n->h, d);
        fb_oracle_add_outer(n->dkv, sink.s * sink.a, n->x, d, n->g, m);
        add_raised(n->dkb, sink.incoming_slope * n->r[i], n->x, d);
    }
    for (int64_t j = 0; j < head->kv_len; j++) {
        fb_oracle_flow_phi(head, head->k + j * head->k_stride, n->x);
        fb_oracle_widen(n->g, head->v + j * head->v_stride, m);
        for (int64_t c = 0; c < d; c++)
            n->dc[j] += n->x[c] * fb_oracle_dot(n->dkv + c * m, n->g, m);
    }
}

static bool is_clamped(const struct fb_oracle_head *head, double outgoing)
{
    return outgoing < -head->options.clamp || outgoing > head->options.clamp;
}

/* Marks row r when its source lies at a kink of the clamp. */
static void note_kink(const struct fb_oracle_gradients *wanted, size_t r,
                      const struct fb_oracle_head *head, double outgoing)
{
    const double distance = fabs(fabs(outgoing) - head->options.clamp);
    if (wanted->kv_kinks && distance <= wanted->kink_width)
        wanted->kv_kinks[r] = true;
}

/* d(O) of one source of one head; mean = sum C d(C) / S over those it competes with. */
static void pull_share(const struct normal *n, int64_t j, double mean)
{
    if (!is_clamped(&n->f->head, n->f->outgoing[j]))
        n->doutgoing[j] = n->f->c[j] * (n->dc[j] - mean);
}

static void pull_competition(const struct normal *heads, int64_t head_count)
{
    const struct fb_oracle_head *head = &heads[0].f->head;
    const int64_t count = head->kv_len;
    if (head->options.competition == FB_ORACLE_OVER_TOKENS) {
        double mean = 0.0;
        for (int64_t j = 0; j < count; j++)
            mean += heads[0].f->c[j] * heads[0].dc[j] / (double)count;
        for (int64_t j = 0; j < count; j++)
            pull_share(&heads[0], j, mean);
    } else if (head->options.competition == FB_ORACLE_OVER_HEADS) {
        for (int64_t j = 0; j < count; j++) {
            double mean = 0.0;
            for (int64_t h = 0; h < head_count; h++)
                mean += heads[h].f->c[j] * heads[h].dc[j] / (double)count;
            for (int64_t h = 0; h < head_count; h++)
                pull_share(&heads[h], j, mean);
        }
    }
}

/* d(1/b_j), with phi(k_j) in n->x */
static double pull_outgoing(const struct normal *n, double *b)
{
    const struct fb_oracle_head *head = &n->f->head;
    *b = 1.0 / fb_oracle_flow_product(head, n->x, n->f->qsum);
    return -*b * *b * fb_oracle_dot(n->x, n->dkb, head->qk_dim);
}

/* d(1/a_i), with phi(q_i) in n->x */
static double pull_incoming(const struct normal *n, const struct sink *sink, int64_t i)
{
    const double da = sink->s * n->r[i] + fb_oracle_dot(n->x, n->dqa, n->f->head.qk_dim);
    return -sink->a * sink->a * da;
}

static void pull_flows(const struct normal *n)
{
    const struct fb_oracle_head *head = &n->f->head;
    const int64_t d = head->qk_dim;
    for (int64_t j = 0; j < head->kv_len; j++) {
        double b;
        fb_oracle_flow_phi(head, head->k + j * head->k_stride, n->x);
        add_raised(n->dqa, n->doutgoing[j], n->x, d);
        add_raised(n->dqsum, pull_outgoing(n, &b), n->x, d);
    }
    for (int64_t i = 0; i < head->q_len; i++) {
        const struct sink sink = load_sink(n, i);
        add_raised(n->dksum, pull_incoming(n, &sink, i), n->x, d);
    }
}

static void emit_queries(const struct normal *n, const struct fb_oracle_gradients *wanted)
{
    const struct fb_oracle_head *head = &n->f->head;
    const int64_t d = head->qk_dim;
    for (size_t r = 0; r < wanted->q_count; r++) {
        const int64_t i = wanted->q_rows[r];
        const struct sink sink = load_sink(n, i);
        const double da = pull_incoming(n, &sink, i);
        load_pull(n, i);
        for (int64_t c = 0; c < d; c++)
            n->h[c] = sink.s * sink.a * n->h[c] + n->dqsum[c] + sink.a * n->dqa[c];
        add_raised(n->h, sink.incoming_slope * n->r[i], n->f->kb, d);
        add_raised(n->h, da, n->f->ksum, d);
        pull_phi(head, head->q + i * head->q_stride, n->h, n->slope, wanted->dq + (int64_t)r * d);
    }
}

static void emit_keys(const struct normal *n, const struct fb_oracle_gradients *wanted)
{
    const struct fb_oracle_head *head = &n->f->head;
    const int64_t d = head->qk_dim, m = head->v_dim;
    for (size_t r = 0; r < wanted->kv_count; r++) {
        const int64_t j = wanted->kv_rows[r];
        double b;
        note_kink(wanted, r, head, n->f->outgoing[j]);
        fb_oracle_flow_phi(head, head->k + j * head->k_stride, n->x);
        fb_oracle_widen(n->g, head->v + j * head->v_stride, m);
        const double db = pull_outgoing(n, &b);
        for (int64_t c = 0; c < d; c++)
            n->h[c] = n->dksum[c] + b * n->dkb[c];
        fb_oracle_add_product(n->h, n->f->c[j], n->dkv, d, n->g, m);
        add_raised(n->h, n->doutgoing[j], n->f->qa, d);
        add_raised(n->h, db, n->f->qsum, d);
        fb_oracle_add_apply(wanted->dv + (int64_t)r * m, n->f->c[j], n->x, n->dkv, d, m);
        pull_phi(head, head->k + j * head->k_stride, n->h, n->slope, wanted->dk + (int64_t)r * d);
    }
}

/* Gradients through the heads that `at` has to be looked at together with; task says whose rows are
 * wanted. */
static enum fb_status gradient_normal(const struct fb_oracle_task *task,
                                      const struct fb_oracle_task *at,
                                      const struct fb_oracle_gradients *wanted,
                                      struct fb_arena *arena, struct fb_error *error)
{
    struct fb_oracle_flow *flows;
    int64_t count, mine, first;
    const enum fb_status status = fb_oracle_flow_normal(at, arena, &flows, &count, &mine, error);
    if (status != FB_OK)
        return status;
    struct normal *heads = fb_arena_alloc(arena, (size_t)count, sizeof *heads, error);
    if (!heads)
        return FB_ERROR_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        if (init_normal(&heads[i], &flows[i], arena, error) != FB_OK)
            return FB_ERROR_MEMORY;
        pull_output(&heads[i]);
    }
    pull_competition(heads, count);
    const int64_t group = fb_oracle_group(task, &first);
    for (int64_t i = 0; i < count; i++) {
        const int64_t h = at->h - mine + i;
        if (h < first || h >= first + group)
            continue;
        pull_flows(&heads[i]);
        emit_keys(&heads[i], wanted);
        if (h == task->h)
            emit_queries(&heads[i], wanted);
    }
    return FB_OK;
}

/* ---- causal form ----------------------------------------------------------------------------- */

/* What the forward scan leaves of a token. */
struct token {
    double a, b, s, c;         /* a_t, b_t with their factor t; s_t; C_t */
    double r;                  /* Q_t.(KV_t dout_t) */
    double log_share, log_sum; /* log(E_t / sum), and the sum's logarithm */
    double outgoing;
    bool clamped;
};

struct causal {
    struct fb_oracle_head head;
    struct token *tokens;
    double *ksum, *qsum, *kb, *qa;     /* [D] prefixes, in the forward scan */
    double *kv;                        /* [D][M] prefix, then suffix */
    double *dkb, *dqa, *dqsum, *dksum; /* [D] suffixes, in the reverse scan */
    double dlog;                       /* suffix of C d(C) / sum E, times the current sum E */
    double *q, *k, *h, *slope;         /* [D] one token */
    double *v, *g;                     /* [M] one token */
    /* prefixes at the rows wanted: [count][D] */
    double *q_pull, *q_kb, *q_ksum, *k_qa, *k_qsum;
};

static enum fb_status init_causal(struct causal *s, const struct fb_oracle_gradients *wanted,
                                  struct fb_arena *arena, struct fb_error *error)
{
    const int64_t d = s->head.qk_dim, m = s->head.v_dim;
    double **const vectors[] = {&s->ksum,  &s->qsum,  &s->kb, &s->qa, &s->dkb, &s->dqa,
                                &s->dqsum, &s->dksum, &s->q,  &s->k,  &s->h,   &s->slope};
    double **const at_queries[] = {&s->q_pull, &s->q_kb, &s->q_ksum};
    double **const at_keys[] = {&s->k_qa, &s->k_qsum};
    const int64_t q_count = (int64_t)wanted->q_count + 1, kv_count = (int64_t)wanted->kv_count + 1;
    if (take_vectors(vectors, sizeof vectors / sizeof vectors[0], d, arena, error) != FB_OK ||
        take_vectors(at_queries, 3, q_count * d, arena, error) != FB_OK ||
        take_vectors(at_keys, 2, kv_count * d, arena, error) != FB_OK)
        return FB_ERROR_MEMORY;
    s->v = fb_oracle_doubles(arena, m, error);
    s->g = s->v ? fb_oracle_doubles(arena, m, error) : NULL;
    s->kv = s->g ? fb_oracle_doubles(arena, d * m, error) : NULL;
    s->tokens =
        s->kv ? fb_arena_alloc(arena, (size_t)s->head.q_len, sizeof *s->tokens, error) : NULL;
    return s->tokens ? FB_OK : FB_ERROR_MEMORY;
}

static void load_token(const struct causal *s, int64_t t)
{
    const struct fb_oracle_head *head = &s->head;
    fb_oracle_flow_phi(head, head->q + t * head->q_stride, s->q);
    fb_oracle_flow_phi(head, head->k + t * head->k_stride, s->k);
    fb_oracle_widen(s->v, head->v + t * head->v_stride, head->v_dim);
    fb_oracle_widen(s->g, head->dout + t * head->dout_stride, head->v_dim);
}

/* The forward recurrence up to token t, whose values are loaded. */
static struct token advance(struct causal *s, int64_t t, struct fb_oracle_flow_prefix *prefix)
{
    const struct fb_oracle_head *head = &s->head;
    const int64_t d = head->qk_dim;
    const double n = (double)(t + 1);
    struct token token = {.s = 1.0};
    fb_oracle_add_scaled(s->ksum, 1.0, s->k, d);
    fb_oracle_add_scaled(s->qsum, 1.0, s->q, d);
    token.a = n / fb_oracle_flow_product(head, s->q, s->ksum);
    token.b = n / fb_oracle_flow_product(head, s->k, s->qsum);
    fb_oracle_add_scaled(s->kb, token.b, s->k, d);
    fb_oracle_add_scaled(s->qa, token.a, s->q, d);
    if (head->options.allocation)
        token.s = fb_oracle_flow_sigmoid(fb_oracle_flow_product(head, s->q, s->kb) / n);
    const double outgoing = fb_oracle_flow_product(head, s->k, s->qa) / n;
    token.outgoing = outgoing;
    token.clamped = is_clamped(head, outgoing);
    token.log_share = fb_oracle_flow_log_share(prefix, fb_oracle_flow_clamp(head, outgoing));
    token.log_sum = prefix->log_sum;
    token.c =
        head->options.competition == FB_ORACLE_NO_COMPETITION ? 1.0 : n * exp(token.log_share);
    fb_oracle_add_outer(s->kv, token.c, s->k, d, s->v, head->v_dim);
    for (int64_t c = 0; c < d; c++)
        s->h[c] = 0.0;
    fb_oracle_add_product(s->h, 1.0, s->kv, d, s->g, head->v_dim);
    token.r = fb_oracle_dot(s->q, s->h, d);
    return token;
}

static void keep(double *rows, size_t row, const double *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        rows[(int64_t)row * count + i] = x[i];
}

static void scan_forward(struct causal *s, const struct fb_oracle_gradients *wanted,
                         bool with_queries)
{
    const int64_t d = s->head.qk_dim;
    struct fb_oracle_flow_prefix prefix = {0};
    size_t q = 0, k = 0;
    for (int64_t t = 0; t < s->head.q_len; t++) {
        load_token(s, t);
        s->tokens[t] = advance(s, t, &prefix);
        if (with_queries && q < wanted->q_count && wanted->q_rows[q] == t) {
            keep(s->q_pull, q, s->h, d);
            keep(s->q_kb, q, s->kb, d);
            keep(s->q_ksum, q, s->ksum, d);
            q++;
        }
        if (k < wanted->kv_count && wanted->kv_rows[k] == t) {
            keep(s->k_qa, k, s->qa, d);
            keep(s->k_qsum, k, s->qsum, d);
            k++;
        }
    }
}

/* Derivatives of one token's scalars, divided by t where the equation divides by it. */
struct token_gradient {
    double incoming, outgoing, inverse_a, inverse_b;
};

/* One step of the reverse scan: the suffixes come to include token t, whose values are loaded. s->h
 * = d(KV) v_t. */
static struct token_gradient retreat(struct causal *s, int64_t t)
{
    const struct fb_oracle_head *head = &s->head;
    const struct token *token = &s->tokens[t];
    const int64_t d = head->qk_dim, m = head->v_dim;
    const double n = (double)(t + 1);
    struct token_gradient dt = {0};
    fb_oracle_add_outer(s->kv, token->s * token->a / n, s->q, d, s->g, m);
    for (int64_t c = 0; c < d; c++)
        s->h[c] = 0.0;
    fb_oracle_add_product(s->h, 1.0, s->kv, d, s->v, m);

    if (head->options.allocation)
        dt.incoming = token->a / n * token->r * token->s * (1.0 - token->s) / n;
    add_raised(s->dkb, dt.incoming, s->q, d);
    dt.inverse_b = -token->b * token->b / n * fb_oracle_dot(s->k, s->dkb, d);
    add_raised(s->dqsum, dt.inverse_b, s->k, d);

    if (head->options.competition != FB_ORACLE_NO_COMPETITION) {
        const double weighted = token->c * fb_oracle_dot(s->k, s->h, d);
        if (t + 1 < head->q_len)
            s->dlog *= exp(token->log_sum - s->tokens[t + 1].log_sum);
        s->dlog += weighted;
        dt.outgoing = token->clamped ? 0.0 : (weighted - exp(token->log_share) * s->dlog) / n;
    }
    add_raised(s->dqa, dt.outgoing, s->k, d);
    const double da = token->s * token->r / n + fb_oracle_dot(s->q, s->dqa, d);
    dt.inverse_a = -token->a * token->a / n * da;
    add_raised(s->dksum, dt.inverse_a, s->q, d);
    return dt;
}

static void emit_causal_query(const struct causal *s, const struct token_gradient *dt, int64_t t,
                              size_t row, double *dq)
{
    const struct fb_oracle_head *head = &s->head;
    const struct token *token = &s->tokens[t];
    const int64_t d = head->qk_dim, at = (int64_t)row * d;
    const double weight = token->s * token->a / (double)(t + 1);
    for (int64_t c = 0; c < d; c++)
        s->h[c] = weight * s->q_pull[at + c] + s->dqsum[c] + token->a * s->dqa[c];
    add_raised(s->h, dt->incoming, s->q_kb + at, d);
    add_raised(s->h, dt->inverse_a, s->q_ksum + at, d);
    pull_phi(head, head->q + t * head->q_stride, s->h, s->slope, dq + at);
}

static void emit_causal_key(const struct causal *s, const struct token_gradient *dt, int64_t t,
                            size_t row, const struct fb_oracle_gradients *wanted)
{
    const struct fb_oracle_head *head = &s->head;
    const struct token *token = &s->tokens[t];
    const int64_t d = head->qk_dim, m = head->v_dim, at = (int64_t)row * d;
    note_kink(wanted, row, head, token->outgoing);
    fb_oracle_add_apply(wanted->dv + (int64_t)row * m, token->c, s->k, s->kv, d, m);
    for (int64_t c = 0; c < d; c++)
        s->h[c] = token->c * s->h[c] + s->dksum[c] + token->b * s->dkb[c];
    add_raised(s->h, dt->outgoing, s->k_qa + at, d);
    add_raised(s->h, dt->inverse_b, s->k_qsum + at, d);
    pull_phi(head, head->k + t * head->k_stride, s->h, s->slope, wanted->dk + at);
}

static enum fb_status gradient_causal(const struct fb_oracle_task *task,
                                      const struct fb_oracle_task *at,
                                      const struct fb_oracle_gradients *wanted,
                                      struct fb_arena *arena, struct fb_error *error)
{
    struct causal s = {.dlog = 0.0};
    const bool with_queries = at->h == task->h;
    const enum fb_status status = fb_oracle_head_of(at, at->h, arena, &s.head, error);
    if (status != FB_OK)
        return status;
    const int64_t size = s.head.qk_dim * s.head.v_dim;
    if (init_causal(&s, wanted, arena, error) != FB_OK)
        return FB_ERROR_MEMORY;
    scan_forward(&s, wanted, with_queries);
    for (int64_t i = 0; i < size; i++)
        s.kv[i] = 0.0;
    size_t q = with_queries ? wanted->q_count : 0, k = wanted->kv_count;
    for (int64_t t = s.head.q_len - 1; t >= 0; t--) {
        load_token(&s, t);
        const struct token_gradient dt = retreat(&s, t);
        if (k > 0 && wanted->kv_rows[k - 1] == t)
            emit_causal_key(&s, &dt, t, --k, wanted);
        if (q > 0 && wanted->q_rows[q - 1] == t)
            emit_causal_query(&s, &dt, t, --q, wanted->dq);
    }
    return FB_OK;
}

/* ---------------------------------------------------------------------------------------------- */

enum fb_status fb_oracle_flow_gradient(const struct fb_oracle_task *task,
                                       const struct fb_oracle_gradients *wanted,
                                       struct fb_arena *arena, struct fb_error *error)
{
    enum fb_status status = fb_oracle_flow_check(task, error);
    int64_t first;
    const int64_t group = fb_oracle_group(task, &first);
    const bool together = task->options.competition == FB_ORACLE_OVER_HEADS;
    for (int64_t h = first; status == FB_OK && h < first + group; h++) {
        /* another head of the group matters to the keys' gradients only; heads that compete are
         * all taken at once */
        if (h != task->h && (together || wanted->kv_count == 0))
            continue;
        struct fb_oracle_task at = *task;
        at.h = h;
        status = task->problem->causal ? gradient_causal(task, &at, wanted, arena, error)
                                       : gradient_normal(task, &at, wanted, arena, error);
    }
    return status;
}
