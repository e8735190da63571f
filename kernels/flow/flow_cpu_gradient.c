/*
 * Fused Flow-Attention on the CPU, normal form: the backward pass. With g = dout, r = s alpha,
 * M = scale G, ratio = L/S, x' = x + eps, all sums over the head's tokens:
 *
 *   gather (q, g)   h = g M^T (parked in dq)      dr_i = h_i . q_i
 *                   dM += q^T (r g)               dc_i = ratio alpha_i dr_i s_i (1 - s_i)
 *                   du += dc q'                   A1 += alpha^2 s dr q',  A2 += q' (alpha^2 q)^T
 *   spread (k, v)   t = v dM^T (parked in dk)     dp_j = t_j . k_j
 *                   do_j = p_j (dp_j - sum M.dM / S) inside the clamp, 0 outside
 *                   dv_j = p_j k_j dM             dw += do k'
 *                   db_j = -beta_j^2 k_j . du     dsq += db k'
 *   then            dsk = -(A1 + A2 dw)
 *   sinks (q, g)    da_i = -alpha_i^2 (s_i dr_i + q_i . dw)
 *                   dq_i = (r h + dc u' + alpha dw + da sk' + dsq) phi'(q_i)
 *   sources (k, v)  dk_j = (p t + do w' + beta du + db sq' + dsk) phi'(k_j)
 *
 * The moments A1 and A2 stand for a fourth barrier; the second factor's eps of A2 is carried as a
 * vector. 10NDM flop. With grouped queries t is formed again instead of parked, and dk, dv add up
 * over the rounds. Competition over heads needs dp of every head before do of any. Tensors of 16
 * bits cannot hold h and t: both are formed again, 14NDM flop, and with grouped queries dk, dv are
 * rounded once a round.
 *
 * Reference: the chain rule on flow.h's equations; verified by finite differences.
 */
#include "flow_combine.h"
#include "flow_normal.h"

#include "row_fetch.h"

/* ---- shared pieces ------------------------------------------------------------------------- */

/* What a block of sinks needs in gather and in sinks. */
struct sink_block {
    struct fb_row_block h;      /* g M^T */
    const float *q;             /* [rows][cols] */
    float *alpha, *s, *dr, *dc; /* scalars */
};

/* s = sigmoid(ratio c), dc = ratio alpha dr s (1 - s); without allocation 1 and 0. */
static void allocation_gradient(const struct flow_task *t, int64_t rows, const struct sink_block *b)
{
    const struct flow_totals *totals = &t->state->totals;
    const fb_vf term = fb_vf_set1(fb_flow_epsilon_term(t, totals->source_flow));
    const fb_vf ratio = fb_vf_set1((float)((double)t->sinks / (double)t->sources));
    const fb_vf one = fb_vf_set1(1.0F);
    for (int64_t i = 0; i < rows; i += FB_VW) {
        fb_vf s = one, dc = fb_vf_zero();
        if (t->run->options.allocation) {
            const fb_vf c = fb_vf_mul(fb_vf_add(fb_vf_load(b->s + i), term), ratio);
            s = fb_vf_sigmoid(c);
            const fb_vf slope = fb_vf_mul(s, fb_vf_sigmoid(fb_vf_sub(fb_vf_zero(), c)));
            const fb_vf flow = fb_vf_mul(fb_vf_load(b->alpha + i), fb_vf_load(b->dr + i));
            dc = fb_vf_mul(fb_vf_mul(ratio, flow), slope);
        }
        fb_vf_store(b->s + i, s);
        fb_vf_store(b->dc + i, dc);
    }
}

/* The rows of g. */
static struct fb_row_block output_gradients(const struct flow_task *t, int64_t first, int64_t rows)
{
    return fb_rows_load(&t->run->call->dout, flow_sink_range(t, first, rows), t->worker->values);
}

/* h = g M^T of a block: held in dq from the first visit on, or formed in the worker's block. */
static struct fb_row_block pulled_rows(const struct flow_task *t, int64_t first, int64_t rows,
                                       bool fresh, struct fb_tile_extra *extra)
{
    const struct flow_shape *shape = &t->run->shape;
    const struct fb_tensor *dq = &t->run->call->dq;
    struct fb_row_block h = {t->worker->turned, shape->cols};
    if (shape->held) {
        h = (struct fb_row_block){fb_tensor_row_f32(dq, t->batch, t->head, first), dq->stride[2]};
    }
    if (fresh || !shape->held) {
        const struct fb_row_block g = output_gradients(t, first, rows);
        FB_ISA_SYMBOL(fb_tile_gemm_extra)
        (rows, shape->dim, shape->value_dim, g.rows, g.stride, 1, t->state->product_turned,
         shape->cols, h.rows, h.stride, false, extra);
    }
    return h;
}

/* h, phi(q), alpha, s, dr and dc of a block. */
static struct sink_block visit_sinks(const struct flow_task *t, int64_t first, int64_t rows,
                                     bool fresh, struct fb_tile_extra *extra)
{
    const struct flow_shape *shape = &t->run->shape;
    const struct flow_totals *totals = &t->state->totals;
    int64_t stride;
    const struct sink_block b = {
        .h = pulled_rows(t, first, rows, fresh, extra),
        .q = fb_flow_sink_rows(t, first, rows, true, &stride),
        .alpha = t->worker->scalar[0],
        .s = t->worker->scalar[1],
        .dr = t->worker->scalar[2],
        .dc = t->worker->scalar[3],
    };
    fb_flow_incoming(t, b.q, shape->cols, rows, totals->source_sum, b.alpha);
    fb_rows_dot(b.q, shape->cols, rows, shape->cols, totals->source_flow, b.s);
    fb_rows_pair_dot(b.q, shape->cols, b.h.rows, b.h.stride, rows, shape->dim, b.dr);
    allocation_gradient(t, rows, &b);
    return b;
}

static float sum_of(const float *x, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += (double)x[i];
    }
    return (float)sum;
}

/* v[0..dim) += eps * x: the eps of x' = x + eps in a weighted sum of rows. */
static void add_epsilon(const struct flow_task *t, float *v, float weight_sum)
{
    for (int64_t j = 0; j < t->run->shape.dim; j++) {
        v[j] += FB_FLOW_EPSILON * weight_sum;
    }
}

/* ---- gather -------------------------------------------------------------------------------- */

/* M^T, before the first slice needs it: every slice would form the same, so the pass's first phase
 * does. */
static void turn_product(const struct flow_task *t)
{
    const struct flow_shape *s = &t->run->shape;
    const float scale = *t->state->totals.scale;
    float *turned = t->state->product_turned;
    fb_rows_zero(turned, s->value_dim * s->cols);
    for (int64_t j = 0; j < s->dim; j++) {
        for (int64_t m = 0; m < s->value_dim; m++) {
            turned[m * s->cols + j] = scale * t->state->totals.product[j * s->value_cols + m];
        }
    }
}

static void gather_sinks(const struct flow_task *t)
{
    const struct flow_shape *shape = &t->run->shape;
    float *du = t->slot->vectors, *a1 = du + shape->cols, *a3 = a1 + shape->cols;
    float *r = t->worker->scalar[4], *square = t->worker->scalar[5];
    fb_rows_zero(du, FLOW_VECTORS * shape->cols);
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        const int64_t rows = flow_minimum(FLOW_BLOCK, t->last - i);
        const struct fb_row_range next =
            flow_sink_range(t, i + rows, flow_minimum(FLOW_BLOCK, t->sinks - i - rows));
        struct fb_tile_extra extra = {.fetch = {fb_rows_range(&t->run->call->q, next),
                                                fb_rows_range(&t->run->call->dout, next),
                                                fb_rows_range(&t->run->call->dq, next)}};
        const struct sink_block b = visit_sinks(t, i, rows, true, &extra);
        const struct fb_row_block g = output_gradients(t, i, rows);
        for (int64_t j = 0; j < rows; j++) {
            r[j] = b.s[j] * b.alpha[j];
            square[j] = b.alpha[j] * b.alpha[j];
        }
        fb_rows_scale(g.rows, g.stride, rows, shape->value_dim, r, t->worker->scaled,
                      shape->value_cols);
        FB_ISA_SYMBOL(fb_tile_gemm_extra)
        (shape->dim, shape->value_cols, rows, b.q, 1, shape->cols, t->worker->scaled,
         shape->value_cols, t->slot->product, shape->value_cols, i != t->first, &extra);
        fb_rows_scale(b.q, shape->cols, rows, shape->cols, square, t->worker->scaled, shape->cols);
        FB_ISA_SYMBOL(fb_tile_gemm)
        (shape->dim, shape->cols, rows, b.q, 1, shape->cols, t->worker->scaled, shape->cols,
         t->slot->moment, shape->cols, i != t->first);
        fb_rows_accumulate(b.q, shape->cols, rows, shape->cols, square, a3);
        fb_rows_accumulate(b.q, shape->cols, rows, shape->cols, b.dc, du);
        add_epsilon(t, du, sum_of(b.dc, rows));
        for (int64_t j = 0; j < rows; j++) {
            square[j] *= b.s[j] * b.dr[j];
        }
        fb_rows_accumulate(b.q, shape->cols, rows, shape->cols, square, a1);
        add_epsilon(t, a1, sum_of(square, rows));
    }
}

static void add_vectors(const struct flow_shape *s, const struct flow_slot *slot, bool first,
                        const struct flow_head *state)
{
    for (int64_t j = 0; j < FLOW_VECTORS * s->cols; j++) {
        state->wide[j] = (first ? 0.0 : state->wide[j]) + (double)slot->vectors[j];
    }
}

static void add_matrix(float *total, const float *part, int64_t count, bool first)
{
    for (int64_t j = 0; j < count; j += FB_VW) {
        const fb_vf old = first ? fb_vf_zero() : fb_vf_load(total + j);
        fb_vf_store(total + j, fb_vf_add(old, fb_vf_load(part + j)));
    }
}

static void add_gathered(const struct flow_shape *s, const struct flow_slot *slot, bool first,
                         const struct flow_head *state)
{
    add_vectors(s, slot, first, state);
    add_matrix(state->dproduct, slot->product, s->dim * s->value_cols, first);
    add_matrix(state->moment, slot->moment, s->dim * s->cols, first);
}

static void take_vector(const struct flow_task *t, int index, float *vector)
{
    const int64_t cols = t->run->shape.cols;
    for (int64_t j = 0; j < cols; j++) {
        vector[j] = (float)t->state->wide[index * cols + j];
    }
}

static void finish_gathered(const struct flow_task *t)
{
    const struct flow_shape *s = &t->run->shape;
    const struct flow_head *state = t->state;
    double mean = 0.0;
    take_vector(t, 0, state->dsource_flow);
    take_vector(t, 1, state->moments[0]);
    take_vector(t, 2, state->moments[1]);
    fb_rows_zero(state->dproduct_turned, s->value_dim * s->cols);
    for (int64_t j = 0; j < s->dim; j++) {
        for (int64_t m = 0; m < s->value_dim; m++) {
            const float d = state->dproduct[j * s->value_cols + m];
            state->dproduct_turned[m * s->cols + j] = d;
            mean += (double)d * (double)state->product_turned[m * s->cols + j];
        }
    }
    *state->mean = (float)(mean / (double)t->sources);
}

/* ---- spread -------------------------------------------------------------------------------- */

/* t = v dM^T of a block: parked in dk or formed in the worker's block; *stride is its row's. */
static const float *turned_rows(const struct flow_task *t, int64_t first, int64_t rows, bool fresh,
                                struct fb_tile_extra *extra, int64_t *stride)
{
    const struct flow_shape *s = &t->run->shape;
    const struct fb_tensor *dk = &t->run->call->dk;
    float *block =
        s->turned ? fb_tensor_row_f32(dk, t->batch, t->kv_head, first) : t->worker->turned;
    *stride = s->turned ? dk->stride[2] : s->cols;
    if (fresh || !s->turned) {
        const struct fb_row_block v =
            fb_rows_load(&t->run->call->v, flow_source_range(t, first, rows), t->worker->values);
        FB_ISA_SYMBOL(fb_tile_gemm_extra)
        (rows, s->dim, s->value_dim, v.rows, v.stride, 1, t->state->dproduct_turned, s->cols, block,
         *stride, false, extra);
    }
    return block;
}

static int64_t score_row(const struct flow_task *t, int64_t head)
{
    const struct fb_problem *p = t->run->problem;
    return (t->batch * p->heads + head) * p->kv_len;
}

/* Heads that compete: dp of every head, before do of any. */
static void dscore_sources(const struct flow_task *t)
{
    const struct flow_shape *s = &t->run->shape;
    float *dp = t->worker->scalar[0];
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        const int64_t rows = flow_minimum(FLOW_BLOCK, t->last - i);
        int64_t stride;
        const float *k = fb_flow_source_rows(t, i, rows, true);
        const float *turned = turned_rows(t, i, rows, true, NULL, &stride);
        fb_rows_pair_dot(k, s->cols, turned, stride, rows, s->dim, dp);
        for (int64_t j = 0; j < rows; j++) {
            t->run->dscores[score_row(t, t->head) + i + j] = dp[j];
        }
    }
}

/* What do_j subtracts from dp_j: sum p dp / S over what competes with token j. */
static float mean_gradient(const struct flow_task *t, int64_t token)
{
    if (t->run->options.competition != FB_FLOW_OVER_HEADS) {
        return *t->state->mean;
    }
    float sum = 0.0F;
    for (int64_t h = 0; h < t->run->problem->heads; h++) {
        const int64_t index = score_row(t, h) + token;
        sum += t->run->scores[index] * t->run->dscores[index];
    }
    return sum;
}

/* Scalars of a block of sources. */
struct source_block {
    const float *k, *turned;
    int64_t turned_stride;
    float *p, *dflow, *beta, *dbeta; /* competition, do, beta, db */
};

static struct source_block visit_sources(const struct flow_task *t, int64_t first, int64_t rows,
                                         bool fresh, struct fb_tile_extra *extra)
{
    const struct flow_shape *s = &t->run->shape;
    const struct flow_totals *totals = &t->state->totals;
    const struct fb_flow_options *options = &t->run->options;
    struct source_block b = {
        .k = fb_flow_source_rows(t, first, rows, true),
        .p = t->worker->scalar[0],
        .dflow = t->worker->scalar[1],
        .beta = t->worker->scalar[2],
        .dbeta = t->worker->scalar[3],
    };
    float *dp = t->worker->scalar[4];
    b.turned = turned_rows(t, first, rows, fresh, extra, &b.turned_stride);
    fb_flow_source_flows(t, b.k, rows, b.beta, b.dflow);
    fb_flow_compete(t, b.dflow, first, rows, NULL, b.p);
    fb_rows_pair_dot(b.k, s->cols, b.turned, b.turned_stride, rows, s->dim, dp);
    fb_rows_dot(b.k, s->cols, rows, s->cols, t->state->dsource_flow, b.dbeta);
    for (int64_t j = 0; j < rows; j++) {
        const bool inside =
            fabsf(b.dflow[j]) <= options->clamp && options->competition != FB_FLOW_NO_COMPETITION;
        b.p[j] *= *totals->scale;
        b.dflow[j] = inside ? b.p[j] * (dp[j] - mean_gradient(t, first + j)) : 0.0F;
        b.dbeta[j] *= -b.beta[j] * b.beta[j];
    }
    return b;
}

/* Rows of dk or dv, with what the rounds before added up. */
static struct fb_row_block gradient_rows(const struct flow_task *t, const struct fb_tensor *x,
                                         struct fb_row_range range, float *room)
{
    return t->run->round > 0 ? fb_rows_load(x, range, room) : fb_rows_open(x, range, room);
}

static void spread_sources(const struct flow_task *t)
{
    const struct flow_shape *s = &t->run->shape;
    const struct fb_tensor *dv = &t->run->call->dv;
    float *dw = t->slot->vectors, *dsq = dw + s->cols;
    fb_rows_zero(dw, FLOW_VECTORS * s->cols);
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        const int64_t rows = flow_minimum(FLOW_BLOCK, t->last - i);
        const struct fb_row_range next =
            flow_source_range(t, i + rows, flow_minimum(FLOW_BLOCK, t->sources - i - rows));
        struct fb_tile_extra extra = {
            .fetch = {fb_rows_range(&t->run->call->k, next), fb_rows_range(&t->run->call->v, next),
                      fb_rows_range(&t->run->call->dk, next), fb_rows_range(dv, next)}};
        const struct source_block b =
            visit_sources(t, i, rows, t->run->options.competition != FB_FLOW_OVER_HEADS, &extra);
        fb_rows_accumulate(b.k, s->cols, rows, s->cols, b.dflow, dw);
        add_epsilon(t, dw, sum_of(b.dflow, rows));
        fb_rows_accumulate(b.k, s->cols, rows, s->cols, b.dbeta, dsq);
        add_epsilon(t, dsq, sum_of(b.dbeta, rows));
        fb_rows_scale(b.k, s->cols, rows, s->cols, b.p, t->worker->scaled, s->cols);
        const struct fb_row_range range = flow_source_range(t, i, rows);
        const struct fb_row_block to = gradient_rows(t, dv, range, t->worker->values);
        FB_ISA_SYMBOL(fb_tile_gemm_extra)
        (rows, s->value_dim, s->dim, t->worker->scaled, s->cols, 1, t->state->dproduct,
         s->value_cols, to.rows, to.stride, t->run->round > 0, &extra);
        fb_rows_close(dv, range, to);
    }
}

/* dw, dsq, and dsk = -(A1 + (A2 + eps 1 a3^T) dw). */
static void finish_spread(const struct flow_task *t)
{
    const struct flow_shape *s = &t->run->shape;
    const struct flow_head *state = t->state;
    take_vector(t, 0, state->dsink_flow);
    take_vector(t, 1, state->dsink_sum);
    double shared = 0.0;
    for (int64_t j = 0; j < s->dim; j++) {
        shared += (double)state->moments[1][j] * (double)state->dsink_flow[j];
    }
    fb_rows_zero(state->dsource_sum, s->cols);
    for (int64_t i = 0; i < s->dim; i++) {
        double sum = (double)state->moments[0][i] + (double)FB_FLOW_EPSILON * shared;
        for (int64_t j = 0; j < s->dim; j++) {
            sum += (double)state->moment[i * s->cols + j] * (double)state->dsink_flow[j];
        }
        state->dsource_sum[i] = (float)-sum;
    }
}

/* ---- gradients of queries and keys --------------------------------------------------------- */

static void finish_sinks(const struct flow_task *t)
{
    const struct flow_shape *shape = &t->run->shape;
    const struct fb_tensor *dq = &t->run->call->dq;
    float *r = t->worker->scalar[4], *da = t->worker->scalar[5];
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        const int64_t rows = flow_minimum(FLOW_BLOCK, t->last - i);
        const struct fb_row_range range = flow_sink_range(t, i, rows);
        const struct sink_block b = visit_sinks(t, i, rows, false, NULL);
        fb_rows_dot(b.q, shape->cols, rows, shape->cols, t->state->dsink_flow, da);
        for (int64_t j = 0; j < rows; j++) {
            r[j] = b.s[j] * b.alpha[j];
            da[j] = -b.alpha[j] * b.alpha[j] * (b.s[j] * b.dr[j] + da[j]);
        }
        const struct fb_row_block q = fb_rows_load(&t->run->call->q, range, t->worker->raw);
        const struct flow_combination c = {
            .map = (enum fb_row_map)t->run->options.phi,
            .dim = t->run->shape.dim,
            .base = b.h.rows,
            .base_stride = b.h.stride,
            .weights = {r, b.dc, b.alpha, da},
            .vectors = {t->state->totals.source_flow, t->state->dsink_flow,
                        t->state->totals.source_sum},
            .constant = t->state->dsink_sum,
            .x = q.rows,
            .x_stride = q.stride,
            .out = b.h.rows,
            .out_stride = b.h.stride,
        };
        fb_flow_combine(&c, rows);
        fb_rows_close(dq, range, b.h);
    }
}

static void finish_sources(const struct flow_task *t)
{
    const struct fb_tensor *dk = &t->run->call->dk;
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        const int64_t rows = flow_minimum(FLOW_BLOCK, t->last - i);
        const struct fb_row_range range = flow_source_range(t, i, rows);
        const struct source_block b = visit_sources(t, i, rows, false, NULL);
        const struct fb_row_block k = fb_rows_load(&t->run->call->k, range, t->worker->raw);
        const struct fb_row_block to = gradient_rows(t, dk, range, t->worker->scaled);
        const struct flow_combination c = {
            .map = (enum fb_row_map)t->run->options.phi,
            .dim = t->run->shape.dim,
            .base = b.turned,
            .base_stride = b.turned_stride,
            .weights = {b.p, b.dflow, b.beta, b.dbeta},
            .vectors = {t->state->totals.sink_flow, t->state->dsource_flow,
                        t->state->totals.sink_sum},
            .constant = t->state->dsource_sum,
            .x = k.rows,
            .x_stride = k.stride,
            .out = to.rows,
            .out_stride = to.stride,
            .add = t->run->round > 0,
        };
        fb_flow_combine(&c, rows);
        fb_rows_close(dk, range, to);
    }
}

const struct flow_phase fb_flow_backward_phases[FLOW_BACKWARD_PHASES] = {
    {.sides = {[FLOW_SINKS] = {.finish = turn_product}}},
    {.sides = {[FLOW_SINKS] = {gather_sinks, add_gathered, finish_gathered}}},
    {.sides = {[FLOW_SOURCES] = {fb_flow_score_sources, NULL, NULL}}, .heads_only = true},
    {.sides = {[FLOW_SOURCES] = {fb_flow_share_sources, NULL, NULL}}, .heads_only = true},
    {.sides = {[FLOW_SOURCES] = {dscore_sources, NULL, NULL}}, .heads_only = true},
    {.sides = {[FLOW_SOURCES] = {spread_sources, add_vectors, finish_spread}}},
    {.sides = {[FLOW_SOURCES] = {finish_sources, NULL, NULL},
               [FLOW_SINKS] = {finish_sinks, NULL, NULL}}},
};
