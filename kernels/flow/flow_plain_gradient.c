/*
 * The plain form of Flow-Attention, backward: the chain rule through whole matrices, step by step
 * as automatic differentiation would take it. Symbols as in flow_cpu_gradient.c and
 * flow_cpu_causal_gradient.c.
 *
 * Reference: the chain rule on flow.h's equations; verified by finite differences.
 */
#include "flow_plain.h"

#include "kernel_support.h"

#include <cblas.h>

size_t fb_flow_plain_gradient_carve(const struct fb_problem *p, void *base,
                                    struct flow_plain_gradient *g)
{
    struct fb_scratch_cursor cursor = {.base = base};
    const int64_t L = p->q_len, S = p->kv_len, D = p->qk_dim, M = p->v_dim;
    memset(g, 0, sizeof *g);
    float **const rows[] = {&g->h, &g->dq};
    float **const columns[] = {&g->t, &g->dk};
    for (int i = 0; i < 2; i++) {
        *rows[i] = fb_scratch_take_f32(&cursor, L * D);
        *columns[i] = fb_scratch_take_f32(&cursor, S * D);
    }
    g->scaled = fb_scratch_take_f32(&cursor, L * M);
    g->dproduct = fb_scratch_take_f32(&cursor, D * M);
    float **const sinks[] = {&g->s, &g->dr, &g->dc, &g->da};
    float **const sources[] = {&g->dp, &g->dflow, &g->db};
    float **const vectors[] = {&g->du, &g->dw, &g->dsq, &g->dsk};
    for (int i = 0; i < 4; i++) {
        *sinks[i] = fb_scratch_take_f32(&cursor, L);
        *vectors[i] = fb_scratch_take_f32(&cursor, D);
    }
    for (int i = 0; i < 3; i++) {
        *sources[i] = fb_scratch_take_f32(&cursor, S);
    }
    g->scalars = fb_scratch_take_f32(&cursor, L > S ? L : S);
    g->running = fb_scratch_take_f64(&cursor, D * M);
    return cursor.used_bytes;
}

static float slope(enum fb_flow_phi map, float x)
{
    if (map == FB_FLOW_SIGMOID) {
        const float e = expf(-fabsf(x));
        return e / ((1.0F + e) * (1.0F + e));
    }
    if (x > 0.0F) {
        return 1.0F;
    }
    return map == FB_FLOW_ELU ? expf(x) : 0.0F;
}

static void row_dots(const float *x, const float *y, int64_t rows, int64_t dim, float *out)
{
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0.0;
        for (int64_t j = 0; j < dim; j++) {
            sum += (double)x[i * dim + j] * (double)y[i * dim + j];
        }
        out[i] = (float)sum;
    }
}

/* ---- pull: h, t, dr, dp, and dv ------------------------------------------------------------ */

static void pull_normal(const struct flow_plain_place *at, const struct flow_plain_head *f,
                        const struct flow_plain_gradient *g)
{
    const struct fb_tensor *dout = &at->call->dout, *v = &at->call->v;
    const int D = (int)at->problem->qk_dim, M = (int)at->problem->v_dim;
    const int L = (int)at->sinks, S = (int)at->sources;
    const float *go = fb_tensor_row_f32(dout, at->batch, at->head, 0);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, L, D, M, 1.0F, go, (int)dout->stride[2],
                f->product, M, 0.0F, g->h, D);
    for (int64_t i = 0; i < L; i++) {
        const float *row = fb_tensor_row_f32(dout, at->batch, at->head, i);
        for (int64_t m = 0; m < M; m++) {
            g->scaled[i * M + m] = f->conserved[i] * row[m];
        }
    }
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, D, M, L, 1.0F, f->q, D, g->scaled, M, 0.0F,
                g->dproduct, M);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, S, D, M, 1.0F,
                fb_tensor_row_f32(v, at->batch, at->kv_head, 0), (int)v->stride[2], g->dproduct, M,
                0.0F, g->t, D);
}

/* h_i = M_i g_i with the stored prefixes. */
static void pull_causal(const struct flow_plain_place *at, const struct flow_plain_head *f,
                        const struct flow_plain_gradient *g)
{
    const struct fb_tensor *dout = &at->call->dout, *v = &at->call->v;
    const int64_t D = at->problem->qk_dim, M = at->problem->v_dim;
    memset(g->running, 0, (size_t)(D * M) * sizeof *g->running);
    for (int64_t i = at->sinks - 1; i >= 0; i--) {
        const float *go = fb_tensor_row_f32(dout, at->batch, at->head, i);
        const float *vi = fb_tensor_row_f32(v, at->batch, at->kv_head, i);
        const float r = f->conserved[i] / (float)(i + 1);
        cblas_sgemv(CblasRowMajor, CblasNoTrans, (int)D, (int)M, 1.0F, f->product + i * D * M,
                    (int)M, go, 1, 0.0F, g->h + i * D, 1);
        for (int64_t j = 0; j < D; j++) {
            double t = 0.0;
            for (int64_t m = 0; m < M; m++) {
                g->running[j * M + m] += (double)(r * f->q[i * D + j]) * (double)go[m];
                t += g->running[j * M + m] * (double)vi[m];
            }
            g->t[i * D + j] = (float)t;
        }
    }
}

void fb_flow_plain_pull(const struct flow_plain_place *at, const struct flow_plain_head *f,
                        const struct flow_plain_gradient *g)
{
    if (at->problem->causal) {
        pull_causal(at, f, g);
    } else {
        pull_normal(at, f, g);
    }
    row_dots(g->h, f->q, at->sinks, at->problem->qk_dim, g->dr);
    row_dots(g->t, f->k, at->sources, at->problem->qk_dim, g->dp);
}

/* ---- push: scalars, dq, dk, dv ------------------------------------------------------------- */

/* sum[j] = sum_i weight_i (x_ij + eps). */
static void lifted_sum(const float *x, int64_t rows, int64_t dim, const float *weight, double *wide,
                       float *sum)
{
    memset(wide, 0, (size_t)dim * sizeof *wide);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < dim; j++) {
            wide[j] += (double)weight[i] * ((double)x[i * dim + j] + (double)FB_FLOW_EPSILON);
        }
    }
    for (int64_t j = 0; j < dim; j++) {
        sum[j] = (float)wide[j];
    }
}

static void dot_rows(const float *x, int64_t rows, int64_t dim, const float *v, float *out)
{
    cblas_sgemv(CblasRowMajor, CblasNoTrans, (int)rows, (int)dim, 1.0F, x, (int)dim, v, 1, 0.0F,
                out, 1);
}

/* out_i += sum over the pairs of weight_i vector. */
static void add_outer(float *out, int64_t rows, int64_t dim, const float *weight,
                      const float *vector)
{
    for (int64_t i = 0; i < rows; i++) {
        const float w = weight == NULL ? 1.0F : weight[i];
        for (int64_t j = 0; j < dim; j++) {
            out[i * dim + j] += w * vector[j];
        }
    }
}

static float outgoing_gradient(const struct flow_plain_place *at, const struct flow_plain_head *f,
                               const struct flow_plain_gradient *g, int64_t j, float mean)
{
    const bool inside =
        fabsf(f->flow[j]) <= at->options.clamp && at->options.competition != FB_FLOW_NO_COMPETITION;
    return inside ? f->competition[j] * (g->dp[j] - mean) : 0.0F;
}

static void push_normal(const struct flow_plain_place *at, const struct flow_plain_head *f,
                        const struct flow_plain_gradient *g, const float *mean)
{
    const int64_t L = at->sinks, S = at->sources, D = at->problem->qk_dim;
    const float ratio = (float)((double)L / (double)S);
    double total = 0.0;
    for (int64_t j = 0; j < S; j++) {
        total += (double)f->competition[j] * (double)g->dp[j] / (double)S;
    }
    for (int64_t i = 0; i < L; i++) {
        const float slope_s = at->options.allocation ? g->s[i] * (1.0F - g->s[i]) : 0.0F;
        g->dc[i] = ratio * f->incoming[i] * g->dr[i] * slope_s;
    }
    for (int64_t j = 0; j < S; j++) {
        g->dflow[j] = outgoing_gradient(at, f, g, j, mean == NULL ? (float)total : mean[j]);
    }
    lifted_sum(f->q, L, D, g->dc, g->running, g->du);
    lifted_sum(f->k, S, D, g->dflow, g->running, g->dw);
    dot_rows(f->k, S, D, g->du, g->db);
    dot_rows(f->q, L, D, g->dw, g->da);
    for (int64_t j = 0; j < S; j++) {
        g->db[j] *= -f->outgoing[j] * f->outgoing[j];
    }
    for (int64_t i = 0; i < L; i++) {
        g->da[i] = -f->incoming[i] * f->incoming[i] * (g->s[i] * g->dr[i] + g->da[i]);
    }
    lifted_sum(f->k, S, D, g->db, g->running, g->dsq);
    lifted_sum(f->q, L, D, g->da, g->running, g->dsk);
    add_outer(g->dq, L, D, g->dc, f->u);
    add_outer(g->dq, L, D, f->incoming, g->dw);
    add_outer(g->dq, L, D, g->da, f->sum_k);
    add_outer(g->dq, L, D, NULL, g->dsq);
    add_outer(g->dk, S, D, g->dflow, f->w);
    add_outer(g->dk, S, D, f->outgoing, g->du);
    add_outer(g->dk, S, D, g->db, f->sum_q);
    add_outer(g->dk, S, D, NULL, g->dsk);
}

/* A suffix sum of weight (x + eps), its dot products with the rows of dot, and coefficient times it
 * added to out. */
static void suffix_walk(const struct flow_plain_place *at, const struct flow_plain_gradient *g,
                        const float *x, const float *weight, const float *dot, float *scalars,
                        const float *coefficient, float *out)
{
    struct flow_plain_walk walk = {.rows = at->sinks,
                                   .dim = at->problem->qk_dim,
                                   .reverse = true,
                                   .x = x,
                                   .weight = weight,
                                   .x_eps = FB_FLOW_EPSILON,
                                   .dot = dot,
                                   .coefficient = coefficient,
                                   .sum = g->running};
    walk.scalars = scalars;
    walk.out = out;
    fb_flow_plain_walk(&walk);
}

/* coefficient times (a prefix sum of weight x, + eps) added to out. */
static void prefix_walk(const struct flow_plain_place *at, const struct flow_plain_gradient *g,
                        const float *x, const float *weight, const float *coefficient, float *out)
{
    struct flow_plain_walk walk = {.rows = at->sinks,
                                   .dim = at->problem->qk_dim,
                                   .x = x,
                                   .weight = weight,
                                   .sum_eps = FB_FLOW_EPSILON,
                                   .coefficient = coefficient,
                                   .sum = g->running};
    walk.out = out;
    fb_flow_plain_walk(&walk);
}

static void push_causal(const struct flow_plain_place *at, const struct flow_plain_head *f,
                        const struct flow_plain_gradient *g)
{
    const int64_t N = at->sinks;
    double after = 0.0;
    for (int64_t i = 0; i < N; i++) {
        const float n = (float)(i + 1), alpha = f->incoming[i];
        const float slope_s = at->options.allocation ? g->s[i] * (1.0F - g->s[i]) : 0.0F;
        g->dc[i] = alpha / n * g->dr[i] * slope_s / n;
        g->scalars[i] = 1.0F;
    }
    suffix_walk(at, g, f->q, g->dc, f->k, g->db, f->outgoing, g->dk);
    for (int64_t j = N - 1; j >= 0; j--) {
        const float n = (float)(j + 1), p = f->competition[j];
        after += (double)p * (double)g->dp[j];
        g->dflow[j] = outgoing_gradient(at, f, g, j, (float)(after / (double)n)) / n;
        after *= 1.0 - (double)p / (double)n;
        g->db[j] *= -f->outgoing[j] * f->outgoing[j] / n;
    }
    suffix_walk(at, g, f->k, g->dflow, f->q, g->da, f->incoming, g->dq);
    for (int64_t i = 0; i < N; i++) {
        const float n = (float)(i + 1), inverse = f->incoming[i] / n;
        g->da[i] = -inverse * inverse * (g->s[i] * g->dr[i] + n * g->da[i]);
    }
    suffix_walk(at, g, f->k, g->db, NULL, NULL, g->scalars, g->dq);
    suffix_walk(at, g, f->q, g->da, NULL, NULL, g->scalars, g->dk);
    prefix_walk(at, g, f->k, f->outgoing, g->dc, g->dq);
    prefix_walk(at, g, f->k, NULL, g->da, g->dq);
    prefix_walk(at, g, f->q, f->incoming, g->dflow, g->dk);
    prefix_walk(at, g, f->q, NULL, g->db, g->dk);
}

static void push_values(const struct flow_plain_place *at, const struct flow_plain_head *f,
                        const struct flow_plain_gradient *g, bool add)
{
    const struct fb_tensor *dv = &at->call->dv, *dout = &at->call->dout;
    const int64_t D = at->problem->qk_dim, M = at->problem->v_dim;
    if (at->problem->causal) {
        memset(g->running, 0, (size_t)(D * M) * sizeof *g->running);
    }
    for (int64_t j = at->sources - 1; j >= 0; j--) {
        float *row = fb_tensor_row_f32(dv, at->batch, at->kv_head, j);
        const float *go = fb_tensor_row_f32(dout, at->batch, at->head, j < at->sinks ? j : 0);
        const float r = at->problem->causal ? f->conserved[j] / (float)(j + 1) : 0.0F;
        for (int64_t m = 0; m < M; m++) {
            double sum = 0.0;
            for (int64_t i = 0; i < D; i++) {
                double state = (double)g->dproduct[i * M + m];
                if (at->problem->causal) {
                    g->running[i * M + m] += (double)(r * f->q[j * D + i]) * (double)go[m];
                    state = g->running[i * M + m];
                }
                sum += (double)f->k[j * D + i] * state;
            }
            row[m] = (add ? row[m] : 0.0F) + (float)((double)f->competition[j] * sum);
        }
    }
}

/* Rows of the gradient with respect to phi, times its slope, into the tensor. */
static void store(const struct flow_plain_place *at, const struct fb_tensor *x,
                  const struct fb_tensor *dx, int64_t head, int64_t rows, const float *gradient,
                  bool add)
{
    const int64_t D = at->problem->qk_dim;
    for (int64_t i = 0; i < rows; i++) {
        const float *raw = fb_tensor_row_f32(x, at->batch, head, i);
        float *out = fb_tensor_row_f32(dx, at->batch, head, i);
        for (int64_t j = 0; j < D; j++) {
            out[j] = (add ? out[j] : 0.0F) + gradient[i * D + j] * slope(at->options.phi, raw[j]);
        }
    }
}

void fb_flow_plain_push(const struct flow_plain_place *at, const struct flow_plain_head *f,
                        const struct flow_plain_gradient *g, const float *mean, bool add)
{
    const int64_t D = at->problem->qk_dim;
    for (int64_t i = 0; i < at->sinks; i++) {
        const float n = at->problem->causal ? (float)(i + 1) : 1.0F;
        g->s[i] = f->conserved[i] / f->incoming[i];
        for (int64_t j = 0; j < D; j++) {
            g->dq[i * D + j] = f->conserved[i] / n * g->h[i * D + j];
        }
    }
    for (int64_t i = 0; i < at->sources; i++) {
        for (int64_t j = 0; j < D; j++) {
            g->dk[i * D + j] = f->competition[i] * g->t[i * D + j];
        }
    }
    push_values(at, f, g, add);
    if (at->problem->causal) {
        push_causal(at, f, g);
    } else {
        push_normal(at, f, g, mean);
    }
    store(at, &at->call->q, &at->call->dq, at->head, at->sinks, g->dq, false);
    store(at, &at->call->k, &at->call->dk, at->kv_head, at->sources, g->dk, add);
}
