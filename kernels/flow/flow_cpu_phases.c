/*
 * Fused Flow-Attention on the CPU, normal form: what each phase does to one slice of a head. The
 * order of the phases and the equations stand in flow_cpu.c and flow.h.
 */
#include "flow_normal.h"

#include "flow.h"
#include "rows.h"
#include "tile_gemm.h"

/* ---- blocks -------------------------------------------------------------------------------- */

/* phi(k) of the tokens first .. first+rows-1. Kept rows are filled by phase 1. */
static const float *source_rows(const struct flow_task *t, int64_t first, int64_t rows, bool fresh)
{
    const struct flow_shape *s = &t->run->shape;
    const bool keep = first + rows <= s->kept;
    float *block = keep ? t->worker->kept + first * s->cols : t->worker->source_block;
    if (fresh || !keep) {
        const struct fb_tensor *k = &t->run->call->k;
        fb_rows_sigmoid(fb_tensor_row_f32(k, t->batch, t->head, first), k->stride[2], rows, s->dim,
                        block, s->cols);
    }
    return block;
}

/* phi(q) likewise; *stride is set to the distance of its rows. */
static const float *sink_rows(const struct flow_task *t, int64_t first, int64_t rows, bool fresh,
                              int64_t *stride)
{
    const struct flow_shape *s = &t->run->shape;
    const struct fb_tensor *out = &t->run->call->out;
    float *block =
        s->parked ? fb_tensor_row_f32(out, t->batch, t->head, first) : t->worker->sink_block;
    *stride = s->parked ? out->stride[2] : s->cols;
    if (fresh || !s->parked) {
        const struct fb_tensor *q = &t->run->call->q;
        fb_rows_sigmoid(fb_tensor_row_f32(q, t->batch, t->head, first), q->stride[2], rows, s->dim,
                        block, *stride);
    }
    return block;
}

/* eps * sum(v), v having eps on each component: the part of (x+eps) . v that x does not see. */
static float epsilon_term(const float *v, int64_t dim)
{
    double sum = 0.0;
    for (int64_t j = 0; j < dim; j++) {
        sum += (double)v[j];
    }
    return (float)((double)FB_FLOW_EPSILON * sum);
}

/* x[i] = 1 / (x[i] + epsilon) over a block. */
static void reciprocals(float *x, int64_t rows, float epsilon)
{
    for (int64_t i = 0; i < rows; i += FB_VW) {
        const fb_vf sum = fb_vf_add(fb_vf_load(x + i), fb_vf_set1(epsilon));
        fb_vf_store(x + i, fb_vf_div(fb_vf_set1(1.0F), sum));
    }
}

/* ---- phases -------------------------------------------------------------------------------- */

static void sum_sources(const struct flow_task *t)
{
    const struct flow_shape *s = &t->run->shape;
    fb_rows_zero(t->slot->vector, s->cols);
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        const int64_t rows = flow_minimum(FLOW_BLOCK, t->last - i);
        const float *k = source_rows(t, i, rows, true);
        fb_rows_accumulate(k, s->cols, rows, s->cols, NULL, t->slot->vector);
    }
}

static void sum_sinks(const struct flow_task *t)
{
    const struct flow_shape *s = &t->run->shape;
    fb_rows_zero(t->slot->vector, s->cols);
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        const int64_t rows = flow_minimum(FLOW_BLOCK, t->last - i);
        int64_t stride;
        const float *q = sink_rows(t, i, rows, true, &stride);
        fb_rows_accumulate(q, stride, rows, s->cols, NULL, t->slot->vector);
    }
}

static void weigh_sources(const struct flow_task *t)
{
    const struct flow_shape *s = &t->run->shape;
    const float epsilon = epsilon_term(t->state->sink_sum, s->dim);
    float *beta = t->worker->scalar[0];
    fb_rows_zero(t->slot->vector, s->cols);
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        const int64_t rows = flow_minimum(FLOW_BLOCK, t->last - i);
        const float *k = source_rows(t, i, rows, false);
        fb_rows_dot(k, s->cols, rows, s->cols, t->state->sink_sum, beta);
        reciprocals(beta, rows, epsilon);
        fb_rows_accumulate(k, s->cols, rows, s->cols, beta, t->slot->vector);
    }
}

static void weigh_sinks(const struct flow_task *t)
{
    const struct flow_shape *s = &t->run->shape;
    const float epsilon = epsilon_term(t->state->source_sum, s->dim);
    float *alpha = t->worker->scalar[0];
    fb_rows_zero(t->slot->vector, s->cols);
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        const int64_t rows = flow_minimum(FLOW_BLOCK, t->last - i);
        int64_t stride;
        const float *q = sink_rows(t, i, rows, false, &stride);
        fb_rows_dot(q, stride, rows, s->cols, t->state->source_sum, alpha);
        reciprocals(alpha, rows, epsilon);
        fb_rows_accumulate(q, stride, rows, s->cols, alpha, t->slot->vector);
    }
}

/* flow[i] = exp(clamp(flow[i] + epsilon)); returns their sum. */
static float compete(float *flow, int64_t rows, float epsilon)
{
    const fb_vf high = fb_vf_set1(FB_FLOW_CLAMP), low = fb_vf_set1(-FB_FLOW_CLAMP);
    fb_vf sum = fb_vf_zero();
    for (int64_t i = 0; i < rows; i += FB_VW) {
        const fb_vf o = fb_vf_add(fb_vf_load(flow + i), fb_vf_set1(epsilon));
        const fb_vf e = fb_vf_exp_in_range(fb_vf_max(low, fb_vf_min(high, o)));
        fb_vf_store(flow + i, e);
        sum = fb_vf_add(sum, rows - i < FB_VW ? fb_vf_keep(e, rows - i) : e);
    }
    return fb_vf_sum(sum);
}

static void collect_sources(const struct flow_task *t)
{
    const struct flow_shape *s = &t->run->shape;
    const struct fb_tensor *v = &t->run->call->v;
    const float epsilon = epsilon_term(t->state->sink_flow, s->dim);
    float *e = t->worker->scalar[0];
    double normaliser = 0.0;
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        const int64_t rows = flow_minimum(FLOW_BLOCK, t->last - i);
        const float *k = source_rows(t, i, rows, false);
        fb_rows_dot(k, s->cols, rows, s->cols, t->state->sink_flow, e);
        normaliser += (double)compete(e, rows, epsilon);
        fb_rows_scale(fb_tensor_row_f32(v, t->batch, t->head, i), v->stride[2], rows, s->value_dim,
                      e, t->worker->scaled, s->value_cols);
        FB_ISA_SYMBOL(fb_tile_gemm)
        (s->dim, s->value_cols, rows, k, 1, s->cols, t->worker->scaled, s->value_cols,
         t->slot->product, s->value_cols, i != t->first);
    }
    *t->slot->normaliser = normaliser;
}

/* alpha[i] <- sigmoid(ratio * conserved[i]) / alpha's reciprocal, times scale. */
static void allocate(float *incoming, const float *conserved, int64_t rows, float epsilon_in,
                     float epsilon_conserved, float ratio, float scale)
{
    for (int64_t i = 0; i < rows; i += FB_VW) {
        const fb_vf c = fb_vf_add(fb_vf_load(conserved + i), fb_vf_set1(epsilon_conserved));
        const fb_vf a = fb_vf_add(fb_vf_load(incoming + i), fb_vf_set1(epsilon_in));
        const fb_vf s = fb_vf_sigmoid(fb_vf_mul(c, fb_vf_set1(ratio)));
        fb_vf_store(incoming + i, fb_vf_div(fb_vf_mul(s, fb_vf_set1(scale)), a));
    }
}

static void emit_sinks(const struct flow_task *t)
{
    const struct flow_shape *s = &t->run->shape;
    const struct fb_tensor *out = &t->run->call->out;
    const float epsilon_in = epsilon_term(t->state->source_sum, s->dim);
    const float epsilon_conserved = epsilon_term(t->state->source_flow, s->dim);
    const float scale = (float)((double)s->sources / *t->state->normaliser);
    float *incoming = t->worker->scalar[0], *conserved = t->worker->scalar[1];
    for (int64_t i = t->first; i < t->last; i += FLOW_BLOCK) {
        const int64_t rows = flow_minimum(FLOW_BLOCK, t->last - i);
        int64_t stride;
        const float *q = sink_rows(t, i, rows, false, &stride);
        fb_rows_dot(q, stride, rows, s->cols, t->state->source_sum, incoming);
        fb_rows_dot(q, stride, rows, s->cols, t->state->source_flow, conserved);
        allocate(incoming, conserved, rows, epsilon_in, epsilon_conserved, s->ratio, scale);
        fb_rows_scale(q, stride, rows, s->cols, incoming, t->worker->scaled, s->cols);
        FB_ISA_SYMBOL(fb_tile_gemm)
        (rows, s->value_dim, s->dim, t->worker->scaled, s->cols, 1, t->state->product,
         s->value_cols, fb_tensor_row_f32(out, t->batch, t->head, i), out->stride[2], false);
    }
}

const struct flow_phase fb_flow_normal_phases[FLOW_PHASE_COUNT] = {
    [FLOW_SUM] = {sum_sources, sum_sinks},
    [FLOW_WEIGH] = {weigh_sources, weigh_sinks},
    [FLOW_COLLECT] = {collect_sources, NULL},
    [FLOW_EMIT] = {NULL, emit_sinks},
};
