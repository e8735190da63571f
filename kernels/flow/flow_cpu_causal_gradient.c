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
 * Reference: the chain rule on flow.h's equations; verified by finite differences.
 */
#include "flow_causal.h"
#include "flow_combine.h"
#include "flow_cpu.h"
#include "flow_triangle.h"

#include "parallel.h"
#include "tile_gemm.h"

#include <assert.h>
#include <string.h>

/* One thread's buffers beside those of the forward form. */
struct gradient_scratch {
    float *values;         /* [FLOW_CHUNK][FLOW_CHUNK] V */
    float *mixed;          /* [FLOW_CHUNK][FLOW_CHUNK] A * V, then P */
    float *turned;         /* [widest][widest or FLOW_CHUNK] a transposed operand */
    float *before, *after; /* [FLOW_CHUNK][cols] M g; R v */
    float *exchanged;      /* [FLOW_CHUNK][cols] P k or P^T q */
    float *scaled;         /* [FLOW_CHUNK][widest] */
    float *room;           /* [FLOW_CHUNK][value_cols] g, of 16 bits */
    float *suffix;         /* [dim][value_cols] R */
    float *suffix_error;
    struct flow_carried du, dw, as, bs;
    unsigned char *states; /* [FLOW_SEGMENT] states of the segment at hand */
};

struct gradient_chunk {
    float dr[FLOW_CHUNK], dp[FLOW_CHUNK], dc[FLOW_CHUNK], db[FLOW_CHUNK];
    float dflow[FLOW_CHUNK], da[FLOW_CHUNK]; /* do, da */
    float lift_q[FLOW_CHUNK], lift_k[FLOW_CHUNK];
};

struct gradient_task {
    const struct flow_causal_shape *shape;
    struct flow_causal_scratch forward;
    struct gradient_scratch own;
    struct flow_chunk x;
    struct gradient_chunk y;
    struct fb_row_block g; /* the chunk's rows of dout */
    int64_t batch, head, kv_head;
    float carried_t; /* T of the chunk after, seen from the end of this one */
    bool add;        /* dk and dv hold the gradients of other heads of the group */
};

static size_t carve_gradient(const struct flow_causal_shape *shape, void *base,
                             struct gradient_scratch *s)
{
    struct fb_scratch_cursor cursor = {.base = base};
    const int64_t widest = shape->cols > shape->value_cols ? shape->cols : shape->value_cols;
    const int64_t side = widest > FLOW_CHUNK ? widest : FLOW_CHUNK;
    memset(s, 0, sizeof *s);
    s->values = fb_scratch_take_f32(&cursor, FLOW_CHUNK * FLOW_CHUNK);
    s->mixed = fb_scratch_take_f32(&cursor, FLOW_CHUNK * FLOW_CHUNK);
    s->turned = fb_scratch_take_f32(&cursor, widest * side);
    s->before = fb_scratch_take_f32(&cursor, FLOW_CHUNK * shape->cols);
    s->after = fb_scratch_take_f32(&cursor, FLOW_CHUNK * shape->cols);
    s->exchanged = fb_scratch_take_f32(&cursor, FLOW_CHUNK * shape->cols);
    s->scaled = fb_scratch_take_f32(&cursor, FLOW_CHUNK * widest);
    s->room = fb_scratch_take_f32(&cursor,
                                  fb_row_room(shape->problem->dtype, FLOW_CHUNK, shape->value_dim));
    s->suffix = fb_scratch_take_f32(&cursor, shape->dim * shape->value_cols);
    s->suffix_error = fb_scratch_take_f32(&cursor, shape->dim * shape->value_cols);
    struct flow_carried *const carried[4] = {&s->du, &s->dw, &s->as, &s->bs};
    for (int i = 0; i < 4; i++) {
        carried[i]->value = fb_scratch_take_f32(&cursor, shape->cols);
        carried[i]->error = fb_scratch_take_f32(&cursor, shape->cols);
    }
    s->states = fb_scratch_take(&cursor, FLOW_SEGMENT, fb_flow_causal_state_size(shape));
    return cursor.used_bytes;
}

size_t fb_flow_gradient_bytes(const struct flow_causal_shape *shape)
{
    struct gradient_scratch counted;
    return shape->worker_bytes + carve_gradient(shape, NULL, &counted);
}

static struct fb_row_range sink_range(const struct gradient_task *t, int64_t first)
{
    return (struct fb_row_range){t->batch, t->head, first, 1, t->x.rows};
}

static struct fb_row_range source_range(const struct gradient_task *t, int64_t first)
{
    return (struct fb_row_range){t->batch, t->kv_head, first, 1, t->x.rows};
}

/* Rows of dk or dv, with what other heads of the group added up. */
static struct fb_row_block gradient_rows(const struct gradient_task *t, const struct fb_tensor *x,
                                         struct fb_row_range range)
{
    return t->add ? fb_rows_load(x, range, t->forward.result)
                  : fb_rows_open(x, range, t->forward.result);
}

/* ---- scalars of a chunk -------------------------------------------------------------------- */

/* V, M g, R v, and from them dr and dp. */
static void pull_gradients(struct gradient_task *t, int64_t first)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    const struct gradient_scratch *s = &t->own;
    const int64_t rows = t->x.rows;
    const struct fb_row_block v =
        fb_rows_load(&shape->call->v, source_range(t, first), t->forward.values);
    t->g = fb_rows_load(&shape->call->dout, sink_range(t, first), t->own.room);
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
    fb_rows_transpose(s->suffix, shape->value_cols, shape->dim, shape->value_dim, s->turned,
                      shape->cols);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (rows, shape->dim, shape->value_dim, v.rows, v.stride, 1, s->turned, shape->cols, s->after,
     shape->cols, false);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < rows; j += FB_VW) {
            const int64_t at = i * FLOW_CHUNK + j;
            fb_vf_store(s->mixed + at,
                        fb_vf_mul(fb_vf_load(f->scores + at), fb_vf_load(s->values + at)));
        }
    }
    fb_rows_pair_dot(f->q, shape->cols, s->before, shape->cols, rows, shape->dim, t->y.dr);
    fb_rows_pair_dot(f->k, shape->cols, s->after, shape->cols, rows, shape->dim, t->y.dp);
    fb_flow_add_row_sums(s->mixed, rows, t->x.p, true, t->y.dr);
    fb_flow_add_lower_column_sums(s->mixed, rows, t->x.r, t->y.dp);
}

/* dc and db. */
static void allocation_gradients(struct gradient_task *t)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    const struct flow_chunk *x = &t->x;
    struct gradient_chunk *y = &t->y;
    float after[FLOW_CHUNK];
    for (int64_t i = 0; i < x->rows; i++) {
        const float slope = shape->options.allocation ? x->s[i] * (1.0F - x->s[i]) : 0.0F;
        y->dc[i] = y->dr[i] / x->a[i] * slope / x->n[i];
    }
    fb_rows_dot(f->k, shape->cols, x->rows, shape->cols, t->own.du.value, y->db);
    fb_flow_add_lower_column_sums(f->scores, x->rows, y->dc, y->db);
    fb_flow_suffix_sums(y->dc, x->rows, after);
    for (int64_t j = 0; j < x->rows; j++) {
        const float flow = y->db[j] + FB_FLOW_EPSILON * x->key_sum[j] * after[j];
        y->db[j] = -(x->beta[j] * x->beta[j] / x->n[j]) * flow;
    }
}

/* do and da. */
static void competition_gradients(struct gradient_task *t)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    const struct flow_chunk *x = &t->x;
    struct gradient_chunk *y = &t->y;
    float after[FLOW_CHUNK];
    memset(y->dflow, 0, sizeof y->dflow);
    for (int64_t j = x->rows - 1; j >= 0 && shape->options.competition != FB_FLOW_NO_COMPETITION;
         j--) {
        const float share = x->p[j] / x->n[j];
        const float total = t->carried_t + x->p[j] * y->dp[j];
        const bool inside = fabsf(x->o[j]) <= shape->options.clamp;
        y->dflow[j] = inside ? (x->p[j] * y->dp[j] - share * total) / x->n[j] : 0.0F;
        t->carried_t = total * (1.0F - share);
    }
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
static void mix(struct gradient_task *t)
{
    const struct flow_causal_scratch *f = &t->forward;
    const struct gradient_scratch *s = &t->own;
    const struct flow_chunk *x = &t->x;
    const struct gradient_chunk *y = &t->y;
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
static void lift_rows(struct gradient_task *t)
{
    const struct flow_chunk *x = &t->x;
    struct gradient_chunk *y = &t->y;
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

static void emit_dq(struct gradient_task *t, int64_t first)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    const struct fb_tensor *dq = &shape->call->dq;
    const struct fb_row_range range = sink_range(t, first);
    const struct fb_row_block q = fb_rows_load(&shape->call->q, range, f->raw);
    const struct fb_row_block to = fb_rows_open(dq, range, f->result);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (t->x.rows, shape->cols, t->x.rows, t->own.mixed, FLOW_CHUNK, 1, f->k, shape->cols,
     t->own.exchanged, shape->cols, false);
    const struct flow_combination c = {
        .map = (enum fb_row_map)shape->options.phi,
        .dim = shape->dim,
        .base = t->own.before,
        .base_stride = shape->cols,
        .second = t->own.exchanged,
        .second_stride = shape->cols,
        .lift = t->y.lift_q,
        .weights = {t->x.r, t->y.dc, t->x.alpha, t->y.da},
        .vectors = {f->u.operand, t->own.dw.value, f->keys.operand},
        .constant = t->own.bs.value,
        .x = q.rows,
        .x_stride = q.stride,
        .out = to.rows,
        .out_stride = to.stride,
    };
    fb_flow_combine(&c, t->x.rows);
    fb_rows_close(dq, range, to);
}

static void emit_dk(struct gradient_task *t, int64_t first)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    const struct fb_tensor *dk = &shape->call->dk;
    const struct fb_row_range range = source_range(t, first);
    const struct fb_row_block k = fb_rows_load(&shape->call->k, range, f->raw);
    const struct fb_row_block to = gradient_rows(t, dk, range);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (t->x.rows, shape->cols, t->x.rows, t->own.mixed, 1, FLOW_CHUNK, f->q, shape->cols,
     t->own.exchanged, shape->cols, false);
    const struct flow_combination c = {
        .map = (enum fb_row_map)shape->options.phi,
        .dim = shape->dim,
        .base = t->own.after,
        .base_stride = shape->cols,
        .second = t->own.exchanged,
        .second_stride = shape->cols,
        .lift = t->y.lift_k,
        .weights = {t->x.p, t->y.dflow, t->x.beta, t->y.db},
        .vectors = {f->w.operand, t->own.du.value, f->queries.operand},
        .constant = t->own.as.value,
        .x = k.rows,
        .x_stride = k.stride,
        .out = to.rows,
        .out_stride = to.stride,
        .add = t->add,
    };
    fb_flow_combine(&c, t->x.rows);
    fb_rows_close(dk, range, to);
}

static void emit_dv(struct gradient_task *t, int64_t first)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    const struct fb_tensor *dv = &shape->call->dv;
    const struct fb_row_range range = source_range(t, first);
    const struct fb_row_block to = gradient_rows(t, dv, range);
    fb_rows_scale(f->k, shape->cols, t->x.rows, shape->cols, t->x.p, t->own.scaled, shape->cols);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (t->x.rows, shape->value_dim, shape->dim, t->own.scaled, shape->cols, 1, t->own.suffix,
     shape->value_cols, to.rows, to.stride, t->add);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (t->x.rows, shape->value_dim, t->x.rows, f->lower, 1, FLOW_CHUNK, t->g.rows, t->g.stride,
     to.rows, to.stride, true);
    fb_rows_close(dv, range, to);
}

/* v += sum_i weight_i (x_i + eps), compensated. */
static void carry_lifted(const struct gradient_task *t, const float *x, const float *weight,
                         const struct flow_carried *v)
{
    const struct flow_causal_shape *shape = t->shape;
    double sum = 0.0;
    for (int64_t i = 0; i < t->x.rows; i++) {
        sum += (double)weight[i];
    }
    float *part = t->forward.part;
    for (int64_t j = 0; j < shape->cols; j++) {
        part[j] = j < shape->dim ? (float)((double)FB_FLOW_EPSILON * sum) : 0.0F;
    }
    fb_rows_accumulate(x, shape->cols, t->x.rows, shape->cols, weight, part);
    fb_rows_carry_add(v->value, v->error, part, shape->cols);
}

/* Moves the carried sums past the chunk. */
static void carry_back(const struct gradient_task *t)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct flow_causal_scratch *f = &t->forward;
    carry_lifted(t, f->q, t->y.dc, &t->own.du);
    carry_lifted(t, f->k, t->y.dflow, &t->own.dw);
    carry_lifted(t, f->q, t->y.da, &t->own.as);
    carry_lifted(t, f->k, t->y.db, &t->own.bs);
    fb_rows_scale(t->g.rows, t->g.stride, t->x.rows, shape->value_dim, t->x.r, t->own.scaled,
                  shape->value_cols);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (shape->dim, shape->value_cols, t->x.rows, f->q, 1, shape->cols, t->own.scaled,
     shape->value_cols, f->part, shape->value_cols, false);
    fb_rows_carry_add(t->own.suffix, t->own.suffix_error, f->part, shape->dim * shape->value_cols);
}

/* ---- the scan ------------------------------------------------------------------------------ */

/* What the chunk before first will read and write beside what rebuilding it has read. */
static struct fb_tile_extra chunk_before(const struct gradient_task *t, int64_t first)
{
    const struct fb_call *call = t->shape->call;
    const int64_t rows = flow_smaller(FLOW_CHUNK, first);
    const struct fb_row_range sinks = {t->batch, t->head, first - rows, 1, rows};
    const struct fb_row_range sources = {t->batch, t->kv_head, first - rows, 1, rows};
    return (struct fb_tile_extra){
        .fetch = {fb_rows_range(&call->dout, sinks), fb_rows_range(&call->dq, sinks),
                  fb_rows_range(&call->dk, sources), fb_rows_range(&call->dv, sources)}};
}

static void reverse_chunk(struct gradient_task *t, int64_t first, int64_t rows, const void *state)
{
    struct flow_normaliser normaliser;
    struct fb_tile_extra fetch = chunk_before(t, first);
    t->forward.fetch = &fetch;
    fb_flow_causal_load(t->shape, state, &t->forward, &normaliser);
    fb_flow_causal_visit(t->shape, t->batch, t->head, first, rows, &t->forward, &normaliser, &t->x);
    pull_gradients(t, first);
    allocation_gradients(t);
    competition_gradients(t);
    mix(t);
    lift_rows(t);
    emit_dq(t, first);
    emit_dk(t, first);
    emit_dv(t, first);
    carry_back(t);
    t->forward.fetch = NULL;
}

/* What rebuilding reads of the chunk that begins at first, which need not be whole. */
static struct fb_tile_extra chunk_after(const struct gradient_task *t, int64_t first)
{
    const struct fb_call *call = t->shape->call;
    const int64_t rows =
        flow_smaller(FLOW_CHUNK, fb_problem_queries(t->shape->problem, t->batch) - first);
    const struct fb_row_range sinks = {t->batch, t->head, first, 1, rows};
    const struct fb_row_range sources = {t->batch, t->kv_head, first, 1, rows};
    return (struct fb_tile_extra){.fetch = {fb_rows_range(&call->q, sinks),
                                            fb_rows_range(&call->k, sources),
                                            fb_rows_range(&call->v, sources)}};
}

/* States of the chunks first_chunk .. first_chunk+count-1, from the saved state of the first. */
static void rebuild_segment(struct gradient_task *t, const void *saved, int64_t first_chunk,
                            int64_t count)
{
    const size_t state_bytes = fb_flow_causal_state_size(t->shape);
    struct flow_normaliser normaliser;
    fb_flow_causal_load(t->shape, saved, &t->forward, &normaliser);
    for (int64_t i = 0; i < count; i++) {
        fb_flow_causal_store(t->shape, &t->forward, &normaliser,
                             t->own.states + (size_t)i * state_bytes);
        if (i + 1 < count) {
            const int64_t first = (first_chunk + i) * FLOW_CHUNK;
            struct fb_tile_extra fetch = chunk_after(t, first + FLOW_CHUNK);
            t->forward.fetch = &fetch;
            fb_flow_causal_visit(t->shape, t->batch, t->head, first, FLOW_CHUNK, &t->forward,
                                 &normaliser, &t->x);
            fb_flow_causal_carry(t->shape, t->batch, t->head, first, &t->forward, &t->x);
            t->forward.fetch = NULL;
        }
    }
}

static void backward_head(struct gradient_task *t)
{
    const struct flow_causal_shape *shape = t->shape;
    const struct fb_problem *p = shape->problem;
    const size_t state_bytes = fb_flow_causal_state_size(shape);
    const int64_t length = fb_problem_queries(p, t->batch);
    const int64_t chunks = (length + FLOW_CHUNK - 1) / FLOW_CHUNK;
    const int64_t segments = (chunks + FLOW_SEGMENT - 1) / FLOW_SEGMENT;
    const int64_t index = (t->batch * p->heads + t->head) * fb_flow_causal_segments(p);
    const unsigned char *saved = shape->call->saved;
    const struct flow_carried *const carried[4] = {&t->own.du, &t->own.dw, &t->own.as, &t->own.bs};
    for (int i = 0; i < 4; i++) {
        fb_rows_zero(carried[i]->value, shape->cols);
        fb_rows_zero(carried[i]->error, shape->cols);
    }
    fb_rows_zero(t->own.suffix, shape->dim * shape->value_cols);
    fb_rows_zero(t->own.suffix_error, shape->dim * shape->value_cols);
    t->carried_t = 0.0F;
    for (int64_t segment = segments - 1; segment >= 0; segment--) {
        const int64_t first_chunk = segment * FLOW_SEGMENT;
        const int64_t count = flow_smaller(FLOW_SEGMENT, chunks - first_chunk);
        rebuild_segment(t, saved + (size_t)(index + segment) * state_bytes, first_chunk, count);
        for (int64_t i = count - 1; i >= 0; i--) {
            const int64_t first = (first_chunk + i) * FLOW_CHUNK;
            reverse_chunk(t, first, flow_smaller(FLOW_CHUNK, length - first),
                          t->own.states + (size_t)i * state_bytes);
        }
    }
}

/* A unit is a key-value head: its group of query heads adds up in dk and dv. */
static void backward_unit(void *context, int64_t unit, int thread)
{
    const struct flow_causal_shape *shape = context;
    const struct fb_problem *p = shape->problem;
    const int64_t group = p->heads / p->kv_heads;
    struct gradient_task task;
    memset(&task, 0, sizeof task);
    task.shape = shape;
    task.batch = unit / p->kv_heads;
    task.kv_head = unit % p->kv_heads;
    unsigned char *base =
        (unsigned char *)shape->call->scratch + (size_t)thread * fb_flow_gradient_bytes(shape);
    fb_flow_causal_carve(shape, base, &task.forward);
    fb_flow_causal_fill_ones(shape, task.forward.ones);
    carve_gradient(shape, base + shape->worker_bytes, &task.own);
    for (int64_t i = 0; i < group; i++) {
        task.head = task.kv_head * group + i;
        task.add = i > 0;
        backward_head(&task);
    }
}

void fb_flow_causal_backward(const struct fb_problem *problem, const struct fb_call *call)
{
    struct flow_causal_shape shape;
    fb_flow_causal_shape_of(problem, call, &shape);
    const int64_t units = problem->batch * problem->kv_heads;
    fb_parallel_for(call->threads, units, backward_unit, &shape);
}
