/*
 * Fused Flow-Attention on the CPU, causal form: the backward pass, one reverse scan over chunks of
 * 64 tokens. Segments of 16 chunks are taken from the last to the first; the states inside a
 * segment are rebuilt from the one that forward saved. Carried backward: R = sum q (r g)^T (D x M),
 * the vectors dU, dW, As, Bs, and one scalar.
 *
 * With A = q k^T, V = g v^T (both 64 x 64), x' = x + eps, and sums over the chunk:
 *
 *   dr_i  = q_i . (M g_i) + sum_{j<=i} V_ij p_j A_ij       M before the chunk
 *   dp_j  = k_j . (R v_j) + sum_{i>=j} r_i V_ij A_ij       R after the chunk
 *   dc_i  = (dr_i / a_i) s_i (1 - s_i) / n_i
 *   db_j  = -(beta_j^2 / n_j) (k_j . dU_j),   dU_j = sum_{i>=j} dc_i q_i'
 *   T_j   = sum_{i>=j} p_i dp_i Z_j / Z_i,    Z_{j-1} / Z_j = 1 - p_j / n_j: no exponential again
 *   do_j  = p_j (dp_j - T_j / n_j) / n_j inside the clamp, 0 outside
 *   da_i  = -(s_i dr_i + n_i q_i . dW_i) / a_i^2,  dW_i = sum_{j>=i} do_j k_j'
 *
 * What tokens of the chunk exchange is one matrix, used plainly for dq and transposed for dk:
 *
 *   P_ij  = [j<=i] (r_i V_ij p_j + dc_i beta_j + da_i) + [j>=i] (alpha_i do_j + db_j)
 *   dq    = P k + r (M g) + dc u' + alpha dW + da ck' + Bs + eps terms       (times phi')
 *   dk    = P^T q + p (R v) + do w' + beta dU + db cq' + As + eps terms      (times phi')
 *   dv_j  = p_j (R^T k_j + sum_{i>=j} r_i A_ij g_i)
 *
 * A thread walks a head, or the heads of a group (flow_cpu_causal_gradient_walk.c); those that do
 * not fill the threads are shared (flow_cpu_causal_gradient_rounds.c).
 *
 * Reference: the chain rule on flow.h's equations; verified by finite differences.
 */
#include "flow_causal_gradient.h"
#include "flow_combine.h"
#include "flow_triangle.h"

#include "tile_gemm.h"

#include <string.h>

void fb_flow_gradient_take_chunk(const struct flow_causal_shape *shape,
                                 struct fb_scratch_cursor *cursor, struct flow_gradient_scratch *s)
{
    s->values = fb_scratch_take_f32(cursor, FLOW_CHUNK * FLOW_CHUNK);
    s->before = fb_scratch_take_f32(cursor, FLOW_CHUNK * shape->cols);
    s->after = fb_scratch_take_f32(cursor, FLOW_CHUNK * shape->cols);
}

void fb_flow_gradient_take_thread(const struct flow_causal_shape *shape,
                                  struct fb_scratch_cursor *cursor, struct flow_gradient_scratch *s)
{
    const int64_t widest = shape->cols > shape->value_cols ? shape->cols : shape->value_cols;
    const int64_t side = widest > FLOW_CHUNK ? widest : FLOW_CHUNK;
    const int64_t room = fb_row_room(shape->problem->dtype, FLOW_CHUNK, shape->value_dim);
    s->mixed = fb_scratch_take_f32(cursor, FLOW_CHUNK * FLOW_CHUNK);
    s->turned = fb_scratch_take_f32(cursor, widest * side);
    s->exchanged = fb_scratch_take_f32(cursor, FLOW_CHUNK * shape->cols);
    s->scaled = fb_scratch_take_f32(cursor, FLOW_CHUNK * widest);
    s->room = fb_scratch_take_f32(cursor, room);
}

void fb_flow_gradient_take_state(const struct flow_causal_shape *shape,
                                 struct fb_scratch_cursor *cursor, struct flow_gradient_scratch *s)
{
    s->suffix = fb_scratch_take_f32(cursor, shape->dim * shape->value_cols);
    s->suffix_error = fb_scratch_take_f32(cursor, shape->dim * shape->value_cols);
    struct flow_carried *const carried[4] = {&s->du, &s->dw, &s->as, &s->bs};
    for (int i = 0; i < 4; i++) {
        carried[i]->value = fb_scratch_take_f32(cursor, shape->cols);
        carried[i]->error = fb_scratch_take_f32(cursor, shape->cols);
    }
}

static struct fb_row_range sink_range(const struct flow_gradient_task *t)
{
    return (struct fb_row_range){t->batch, t->head, t->first, 1, t->x->rows};
}

static struct fb_row_range source_range(const struct flow_gradient_task *t)
{
    return (struct fb_row_range){t->batch, t->kv_head, t->first, 1, t->x->rows};
}

/* Rows of dk or dv, with what other heads of the group added up. */
static struct fb_row_block gradient_rows(const struct flow_gradient_task *t,
                                         const struct fb_tensor *x, struct fb_row_range range)
{
    return t->add ? fb_rows_load(x, range, t->forward.result)
                  : fb_rows_open(x, range, t->forward.result);
}

/* ---- scalars of a chunk -------------------------------------------------------------------- */

void fb_flow_gradient_load(struct flow_gradient_task *t)
{
    t->v = fb_rows_load(&t->shape->call->v, source_range(t), t->forward.values);
    t->g = fb_rows_load(&t->shape->call->dout, sink_range(t), t->own.room);
}

void fb_flow_gradient_pull_before(struct flow_gradient_task *t)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    const struct flow_gradient_scratch *s = &t->own;
    const int64_t rows = t->x->rows;
    const struct fb_row_block v = t->v;
    if (rows < FLOW_CHUNK) {
        fb_rows_zero(s->values, FLOW_CHUNK * FLOW_CHUNK);
    }
    fb_rows_transpose(v.rows, v.stride, rows, shape->value_dim, s->turned, FLOW_CHUNK);
    FB_ISA_SYMBOL(fb_tile_gemm_extra)
    (rows, rows, shape->value_dim, t->g.rows, t->g.stride, 1, s->turned, FLOW_CHUNK, s->values,
     FLOW_CHUNK, false, f->fetch);
    fb_rows_transpose(f->product, shape->value_cols, shape->dim, shape->value_dim, s->turned,
                      shape->cols);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (rows, shape->dim, shape->value_dim, t->g.rows, t->g.stride, 1, s->turned, shape->cols,
     s->before, shape->cols, false);
}

void fb_flow_gradient_pull_after(struct flow_gradient_task *t)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    const struct flow_gradient_scratch *s = &t->own;
    const int64_t rows = t->x->rows;
    fb_rows_transpose(s->suffix, shape->value_cols, shape->dim, shape->value_dim, s->turned,
                      shape->cols);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (rows, shape->dim, shape->value_dim, t->v.rows, t->v.stride, 1, s->turned, shape->cols,
     s->after, shape->cols, false);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < rows; j += FB_VW) {
            const int64_t at = i * FLOW_CHUNK + j;
            fb_vf_store(s->mixed + at,
                        fb_vf_mul(fb_vf_load(f->scores + at), fb_vf_load(s->values + at)));
        }
    }
    fb_rows_pair_dot(f->q, shape->cols, s->before, shape->cols, rows, shape->dim, t->y->dr);
    fb_rows_pair_dot(f->k, shape->cols, s->after, shape->cols, rows, shape->dim, t->y->dp);
    fb_flow_add_row_sums(s->mixed, rows, t->x->p, true, t->y->dr);
    fb_flow_add_lower_column_sums(s->mixed, rows, t->x->r, t->y->dp);
}

void fb_flow_gradient_conserved(struct flow_gradient_task *t)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_chunk *x = t->x;
    struct flow_gradient_chunk *y = t->y;
    for (int64_t i = 0; i < x->rows; i++) {
        const float slope = shape->options.allocation ? x->s[i] * (1.0F - x->s[i]) : 0.0F;
        y->dc[i] = y->dr[i] / x->a[i] * slope / x->n[i];
    }
}

void fb_flow_gradient_outgoing(struct flow_gradient_task *t)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    const struct flow_chunk *x = t->x;
    struct flow_gradient_chunk *y = t->y;
    float after[FLOW_CHUNK];
    fb_rows_dot(f->k, shape->cols, x->rows, shape->cols, t->own.du.value, y->db);
    fb_flow_add_lower_column_sums(f->scores, x->rows, y->dc, y->db);
    fb_flow_suffix_sums(y->dc, x->rows, after);
    for (int64_t j = 0; j < x->rows; j++) {
        const float flow = y->db[j] + FB_FLOW_EPSILON * x->key_sum[j] * after[j];
        y->db[j] = -(x->beta[j] * x->beta[j] / x->n[j]) * flow;
    }
}

void fb_flow_gradient_chain(const struct flow_causal_shape *shape, const struct flow_chunk *x,
                            struct flow_gradient_chunk *y, double *carried_t)
{
    memset(y->dflow, 0, sizeof y->dflow);
    for (int64_t j = x->rows - 1; j >= 0 && shape->options.competition != FB_FLOW_NO_COMPETITION;
         j--) {
        /* in f64: 1 - share is a few last places of f32 below 1 late in a long head */
        const double n = (double)x->n[j], p = (double)x->p[j], dp = (double)y->dp[j];
        const double share = p / n, total = *carried_t + p * dp;
        const bool inside = fabsf(x->o[j]) <= shape->options.clamp;
        y->dflow[j] = inside ? (float)((p * dp - share * total) / n) : 0.0F;
        *carried_t = total * (1.0 - share);
    }
}

void fb_flow_gradient_incoming(struct flow_gradient_task *t)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    const struct flow_chunk *x = t->x;
    struct flow_gradient_chunk *y = t->y;
    float after[FLOW_CHUNK];
    fb_rows_dot(f->q, shape->cols, x->rows, shape->cols, t->own.dw.value, y->da);
    fb_flow_add_row_sums(f->scores, x->rows, y->dflow, false, y->da);
    fb_flow_suffix_sums(y->dflow, x->rows, after);
    for (int64_t i = 0; i < x->rows; i++) {
        const float flow = y->da[i] + FB_FLOW_EPSILON * x->query_sum[i] * after[i];
        y->da[i] = -(x->s[i] * y->dr[i] + x->n[i] * flow) / (x->a[i] * x->a[i]);
    }
}

/* ---- outputs of a chunk -------------------------------------------------------------------- */

/* P into mixed, and r_i A_ij p_j into the forward scratch's lower. */
static void mix(struct flow_gradient_task *t)
{
    const struct flow_causal_scratch *f = &t->forward;
    const struct flow_gradient_scratch *s = &t->own;
    const struct flow_chunk *x = t->x;
    const struct flow_gradient_chunk *y = t->y;
    for (int64_t i = 0; i < x->rows; i++) {
        const fb_vf r = fb_vf_set1(x->r[i]), dc = fb_vf_set1(y->dc[i]), da = fb_vf_set1(y->da[i]);
        const fb_vf alpha = fb_vf_set1(x->alpha[i]);
        for (int64_t j = 0; j < x->rows; j += FB_VW) {
            const int64_t at = i * FLOW_CHUNK + j;
            const fb_vf rp = fb_vf_mul(r, fb_vf_load(x->p + j));
            fb_vf low = fb_vf_fma(rp, fb_vf_load(s->values + at), da);
            low = fb_vf_fma(dc, fb_vf_load(x->beta + j), low);
            const fb_vf high = fb_vf_fma(alpha, fb_vf_load(y->dflow + j), fb_vf_load(y->db + j));
            fb_vf_store(s->mixed + at, fb_vf_add(fb_flow_triangle_lanes(low, i, j, true),
                                                 fb_flow_triangle_lanes(high, i, j, false)));
            const fb_vf lower = fb_vf_mul(rp, fb_vf_load(f->scores + at));
            fb_vf_store(f->lower + at, fb_flow_triangle_lanes(lower, i, j, true));
        }
    }
}

/* eps times what the second factors x' = x + eps add to every component of a row. */
static void lift_rows(struct flow_gradient_task *t)
{
    const struct flow_chunk *x = t->x;
    struct flow_gradient_chunk *y = t->y;
    float flow = 0.0F, db = 0.0F, dc = 0.0F, da = 0.0F;
    for (int64_t i = x->rows - 1; i >= 0; i--) {
        flow += y->dflow[i];
        db += y->db[i];
        dc += y->dc[i];
        da += y->da[i];
        y->lift_q[i] = FB_FLOW_EPSILON * (x->alpha[i] * flow + db);
        y->lift_k[i] = FB_FLOW_EPSILON * (x->beta[i] * dc + da);
    }
}

static void emit_dq(struct flow_gradient_task *t)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    const struct fb_tensor *dq = &shape->call->dq;
    const struct fb_row_range range = sink_range(t);
    const struct fb_row_block q = fb_rows_load(&shape->call->q, range, f->raw);
    const struct fb_row_block to = fb_rows_open(dq, range, f->result);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (t->x->rows, shape->cols, t->x->rows, t->own.mixed, FLOW_CHUNK, 1, f->k, shape->cols,
     t->own.exchanged, shape->cols, false);
    const struct flow_combination c = {
        .map = (enum fb_row_map)shape->options.phi,
        .dim = shape->dim,
        .base = t->own.before,
        .base_stride = shape->cols,
        .second = t->own.exchanged,
        .second_stride = shape->cols,
        .lift = t->y->lift_q,
        .weights = {t->x->r, t->y->dc, t->x->alpha, t->y->da},
        .vectors = {f->u.operand, t->own.dw.value, f->keys.operand},
        .constant = t->own.bs.value,
        .x = q.rows,
        .x_stride = q.stride,
        .out = to.rows,
        .out_stride = to.stride,
    };
    fb_flow_combine(&c, t->x->rows);
    fb_rows_close(dq, range, to);
}

static void emit_dk(struct flow_gradient_task *t)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    const struct fb_tensor *dk = &shape->call->dk;
    const struct fb_row_range range = source_range(t);
    const struct fb_row_block k = fb_rows_load(&shape->call->k, range, f->raw);
    const struct fb_row_block to = gradient_rows(t, dk, range);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (t->x->rows, shape->cols, t->x->rows, t->own.mixed, 1, FLOW_CHUNK, f->q, shape->cols,
     t->own.exchanged, shape->cols, false);
    const struct flow_combination c = {
        .map = (enum fb_row_map)shape->options.phi,
        .dim = shape->dim,
        .base = t->own.after,
        .base_stride = shape->cols,
        .second = t->own.exchanged,
        .second_stride = shape->cols,
        .lift = t->y->lift_k,
        .weights = {t->x->p, t->y->dflow, t->x->beta, t->y->db},
        .vectors = {f->w.operand, t->own.du.value, f->queries.operand},
        .constant = t->own.as.value,
        .x = k.rows,
        .x_stride = k.stride,
        .out = to.rows,
        .out_stride = to.stride,
        .add = t->add,
    };
    fb_flow_combine(&c, t->x->rows);
    fb_rows_close(dk, range, to);
}

static void emit_dv(struct flow_gradient_task *t)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    const struct fb_tensor *dv = &shape->call->dv;
    const struct fb_row_range range = source_range(t);
    const struct fb_row_block to = gradient_rows(t, dv, range);
    fb_rows_scale(f->k, shape->cols, t->x->rows, shape->cols, t->x->p, t->own.scaled, shape->cols);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (t->x->rows, shape->value_dim, shape->dim, t->own.scaled, shape->cols, 1, t->own.suffix,
     shape->value_cols, to.rows, to.stride, t->add);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (t->x->rows, shape->value_dim, t->x->rows, f->lower, 1, FLOW_CHUNK, t->g.rows, t->g.stride,
     to.rows, to.stride, true);
    fb_rows_close(dv, range, to);
}

void fb_flow_gradient_emit(struct flow_gradient_task *t)
{
    mix(t);
    lift_rows(t);
    emit_dq(t);
    emit_dk(t);
    emit_dv(t);
}

/* ---- what a chunk adds --------------------------------------------------------------------- */

void fb_flow_gradient_lift(const struct flow_gradient_task *t, const float *x, const float *weight,
                           float *part)
{
    const struct flow_causal_shape *shape = t->shape;
    double sum = 0.0;
    for (int64_t i = 0; i < t->x->rows; i++) {
        sum += (double)weight[i];
    }
    for (int64_t j = 0; j < shape->cols; j++) {
        part[j] = j < shape->dim ? (float)((double)FB_FLOW_EPSILON * sum) : 0.0F;
    }
    fb_rows_accumulate(x, shape->cols, t->x->rows, shape->cols, weight, part);
}

void fb_flow_gradient_weigh(const struct flow_gradient_task *t)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    fb_rows_scale(t->g.rows, t->g.stride, t->x->rows, shape->value_dim, t->x->r, t->own.scaled,
                  shape->value_cols);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (shape->dim, shape->value_cols, t->x->rows, f->q, 1, shape->cols, t->own.scaled,
     shape->value_cols, f->part, shape->value_cols, false);
}
