/*
 * Fused Flow-Attention on the CPU, causal form; equations and symbols in flow.h.
 *
 * Every quantity is a prefix: one pass over chunks of 64 tokens carries the sums of phi(k), phi(q),
 * beta phi(k), alpha phi(q), e, and the D x M state. Within a chunk, A = phi(q) phi(k)^T serves
 * twice: its lower triangle (j <= i) gives what sinks see of the chunk's sources, its upper
 * triangle (i <= j) what sources see of its sinks.
 *
 *   a_i = sum_{j<=i} A_ij        + (phi(q_i)+eps) . (sum phi(k) before the chunk + eps) + eps terms
 *   b_j = sum_{i<=j} A_ij        + (phi(k_j)+eps) . (sum phi(q) before + eps) + ...
 *   c_i = (sum_{j<=i} A_ij beta_j  + ... u before) / n_i
 *   o_j = (sum_{i<=j} A_ij alpha_i + ... w before) / n_j
 *   out = r (tril(A) (p v) + phi(q) M),  M += phi(k)^T (p v)
 *
 * About 3.5 x the flop of the recurrence per token in tiles; nothing of size N is stored. The state
 * is carried in float with its rounding error beside it (compensated), so that a million tokens
 * cost no digits. A training forward stores the state every 16 chunks.
 *
 * A thread walks a head; heads that do not fill the threads are shared (flow_cpu_causal_rounds.c).
 *
 * Reference: Wu et al., Flowformer, ICML 2022, eqs. 4-8, causal form of the released core module.
 */
#include "flow_causal.h"
#include "flow_causal_rounds.h"
#include "flow_cpu.h"

#include "parallel.h"
#include "tile_gemm.h"

#include <assert.h>
#include <string.h>

/* ---- one chunk ----------------------------------------------------------------------------- */

/* operand = value + eps on the first dim components; returns eps * (their sum) + extra: the part of
 * (x+eps) . (value+eps) + extra that x does not see. */
static float refresh_operand(const struct flow_causal_shape *shape, const struct flow_carried *v)
{
    double sum = 0.0;
    for (int64_t j = 0; j < shape->dim; j++) {
        v->operand[j] = v->value[j] + FB_FLOW_EPSILON;
        sum += (double)v->operand[j];
    }
    return (float)((double)FB_FLOW_EPSILON * sum + (double)shape->options.extra_eps);
}

void fb_flow_sum_rows(const struct flow_causal_shape *shape, const float *x, int64_t rows,
                      const float *weight, float *part)
{
    fb_rows_zero(part, shape->cols);
    fb_rows_accumulate(x, shape->cols, rows, shape->cols, weight, part);
}

/* v += sum_i weight[i] x_i over the chunk, compensated. */
static void carry_rows(const struct flow_causal_shape *shape, const float *x, int64_t rows,
                       const float *weight, float *part, const struct flow_carried *v)
{
    fb_flow_sum_rows(shape, x, rows, weight, part);
    fb_rows_carry_add(v->value, v->error, part, shape->cols);
}

/* lower[i] = sum_{j<=i} A_ij x_j, upper[j] = sum_{i<=j} A_ij y_i; x, y NULL meaning ones. */
static void triangle_sums(const float *scores, int64_t rows, const float *x, const float *y,
                          float *lower, float *upper)
{
    memset(upper, 0, FLOW_CHUNK * sizeof *upper);
    for (int64_t i = 0; i < rows; i++) {
        const float *row = scores + i * FLOW_CHUNK;
        const fb_vf yi = fb_vf_set1(y == NULL ? 1.0F : y[i]);
        fb_vf sum = fb_vf_zero();
        for (int64_t j = 0; j < rows; j += FB_VW) {
            const fb_vf entry = fb_vf_load(row + j);
            if (j <= i) {
                const int64_t seen = flow_smaller(i + 1 - j, FB_VW);
                const fb_vf low = fb_vf_keep(entry, seen);
                sum = x == NULL ? fb_vf_add(sum, low) : fb_vf_fma(low, fb_vf_load(x + j), sum);
            }
            if (j + FB_VW > i) {
                const int64_t hidden = i > j ? i - j : 0;
                const fb_vf high = fb_vf_sub(entry, fb_vf_keep(entry, hidden));
                fb_vf_store(upper + j, fb_vf_fma(yi, high, fb_vf_load(upper + j)));
            }
        }
        lower[i] = fb_vf_sum(sum);
    }
}

/* x[i] += dots[i] + constant + eps * (sum_{j<=i} weight_j sums_j). */
static void add_prefix(float *x, const float *dots, float constant, const float *sums,
                       const float *weight, int64_t rows)
{
    float running = 0.0F;
    for (int64_t i = 0; i < rows; i++) {
        running += weight == NULL ? sums[i] : weight[i] * sums[i];
        x[i] += dots[i] + constant + FB_FLOW_EPSILON * running;
    }
}

/* Zero beyond rows, where the quotient may be infinite and a product with it would be NaN. */
static void divide(const float *numerator, const float *denominator, int64_t rows, float *out)
{
    for (int64_t i = 0; i < rows; i += FB_VW) {
        const fb_vf ratio = fb_vf_div(fb_vf_load(numerator + i), fb_vf_load(denominator + i));
        fb_vf_store(out + i, rows - i < FB_VW ? fb_vf_keep(ratio, rows - i) : ratio);
    }
}

/* phi of a chunk, and A with what lies outside the chunk's rows zero. */
static void load_chunk(const struct flow_causal_shape *shape, int64_t batch, int64_t head,
                       int64_t first, int64_t rows, const struct flow_causal_scratch *s)
{
    const enum fb_row_map map = (enum fb_row_map)shape->options.phi;
    const int64_t kv_head = fb_flow_kv_head(shape->problem, head);
    const struct fb_row_range sinks = {batch, head, first, 1, rows};
    const struct fb_row_range sources = {batch, kv_head, first, 1, rows};
    const struct fb_row_block q = fb_rows_load(&shape->call->q, sinks, s->raw);
    fb_rows_map(map, q.rows, q.stride, rows, shape->dim, s->q, shape->cols);
    const struct fb_row_block k = fb_rows_load(&shape->call->k, sources, s->raw);
    fb_rows_map(map, k.rows, k.stride, rows, shape->dim, s->k, shape->cols);
    fb_rows_transpose(s->k, shape->cols, rows, shape->dim, s->turned, FLOW_CHUNK);
    if (rows < FLOW_CHUNK) {
        fb_rows_zero(s->scores, FLOW_CHUNK * FLOW_CHUNK);
    }
    FB_ISA_SYMBOL(fb_tile_gemm_extra)
    (rows, rows, shape->dim, s->q, shape->cols, 1, s->turned, FLOW_CHUNK, s->scores, FLOW_CHUNK,
     false, s->fetch);
}

void fb_flow_causal_begin(const struct flow_causal_shape *shape, int64_t batch, int64_t head,
                          int64_t first, int64_t rows, const struct flow_causal_scratch *s,
                          struct flow_chunk *x)
{
    x->rows = rows;
    for (int64_t i = 0; i < FLOW_CHUNK; i++) {
        x->n[i] = (float)(first + i + 1);
    }
    load_chunk(shape, batch, head, first, rows, s);
}

void fb_flow_causal_flows(const struct flow_causal_shape *shape,
                          const struct flow_causal_scratch *s, struct flow_chunk *x)
{
    const int64_t rows = x->rows, cols = shape->cols;
    const float key_term = refresh_operand(shape, &s->keys);
    const float query_term = refresh_operand(shape, &s->queries);
    fb_rows_dot(s->k, cols, rows, cols, s->ones, x->key_sum);
    fb_rows_dot(s->q, cols, rows, cols, s->ones, x->query_sum);

    triangle_sums(s->scores, rows, NULL, NULL, x->a, x->b);
    fb_rows_dot(s->q, cols, rows, cols, s->keys.operand, x->dots);
    add_prefix(x->a, x->dots, key_term, x->key_sum, NULL, rows);
    fb_rows_dot(s->k, cols, rows, cols, s->queries.operand, x->dots);
    add_prefix(x->b, x->dots, query_term, x->query_sum, NULL, rows);
    divide(x->n, x->a, rows, x->alpha);
    divide(x->n, x->b, rows, x->beta);
}

/* s and r of a chunk; p is 1. */
static void allocate(const struct flow_causal_shape *shape, struct flow_chunk *x)
{
    for (int64_t i = 0; i < FLOW_CHUNK; i += FB_VW) {
        const fb_vf one = fb_vf_set1(1.0F);
        fb_vf_store(x->p + i, one);
        const fb_vf s = shape->options.allocation ? fb_vf_sigmoid(fb_vf_load(x->c + i)) : one;
        fb_vf_store(x->s + i, s);
        fb_vf_store(x->r + i, fb_vf_div(s, fb_vf_load(x->a + i)));
    }
}

void fb_flow_causal_conserve(const struct flow_causal_shape *shape,
                             const struct flow_causal_scratch *s, struct flow_chunk *x)
{
    const int64_t rows = x->rows, cols = shape->cols;
    const float u_term = refresh_operand(shape, &s->u);
    const float w_term = refresh_operand(shape, &s->w);
    triangle_sums(s->scores, rows, x->beta, x->alpha, x->c, x->o);
    fb_rows_dot(s->q, cols, rows, cols, s->u.operand, x->dots);
    add_prefix(x->c, x->dots, u_term, x->key_sum, x->beta, rows);
    fb_rows_dot(s->k, cols, rows, cols, s->w.operand, x->dots);
    add_prefix(x->o, x->dots, w_term, x->query_sum, x->alpha, rows);
    divide(x->c, x->n, rows, x->c);
    divide(x->o, x->n, rows, x->o);
    allocate(shape, x);
    if (fb_flow_is_bounded(shape)) {
        const fb_vf high = fb_vf_set1(shape->options.clamp),
                    low = fb_vf_set1(-shape->options.clamp);
        for (int64_t i = 0; i < FLOW_CHUNK; i += FB_VW) {
            const fb_vf clamped = fb_vf_max(low, fb_vf_min(high, fb_vf_load(x->o + i)));
            fb_vf_store(x->p + i, fb_vf_exp_in_range(clamped));
        }
    }
}

float fb_flow_causal_share(double before, struct flow_chunk *x)
{
    float within = 0.0F;
    for (int64_t i = 0; i < x->rows; i++) {
        within += x->p[i];
        x->p[i] = x->n[i] * x->p[i] / (float)(before + (double)within);
    }
    return within;
}

void fb_flow_causal_compete_online(float clamp, struct flow_normaliser *normaliser,
                                   struct flow_chunk *x)
{
    for (int64_t i = 0; i < x->rows; i++) {
        const float o = fminf(fmaxf(x->o[i], -clamp), clamp);
        if (o > normaliser->peak) {
            normaliser->sum *= exp((double)normaliser->peak - (double)o);
            normaliser->peak = o;
        }
        const double e = exp((double)o - (double)normaliser->peak);
        normaliser->sum += e;
        x->p[i] = (float)((double)x->n[i] * e / normaliser->sum);
    }
}

void fb_flow_causal_visit(const struct flow_causal_shape *shape, int64_t batch, int64_t head,
                          int64_t first, int64_t rows, const struct flow_causal_scratch *s,
                          struct flow_normaliser *normaliser, struct flow_chunk *x)
{
    fb_flow_causal_begin(shape, batch, head, first, rows, s, x);
    fb_flow_causal_flows(shape, s, x);
    fb_flow_causal_conserve(shape, s, x);
    if (fb_flow_is_bounded(shape)) {
        normaliser->sum += (double)fb_flow_causal_share(normaliser->sum, x);
    } else if (shape->options.competition != FB_FLOW_NO_COMPETITION) {
        fb_flow_causal_compete_online(shape->options.clamp, normaliser, x);
    }
}

void fb_flow_causal_weigh(const struct flow_causal_shape *shape, int64_t batch, int64_t head,
                          int64_t first, const struct flow_causal_scratch *s,
                          const struct flow_chunk *x)
{
    const int64_t kv_head = fb_flow_kv_head(shape->problem, head);
    const struct fb_row_range sources = {batch, kv_head, first, 1, x->rows};
    const struct fb_row_block v = fb_rows_load(&shape->call->v, sources, s->values);
    fb_rows_scale(v.rows, v.stride, x->rows, shape->value_dim, x->p, s->weighted,
                  shape->value_cols);
    FB_ISA_SYMBOL(fb_tile_gemm_extra)
    (shape->dim, shape->value_cols, x->rows, s->k, 1, shape->cols, s->weighted, shape->value_cols,
     s->part, shape->value_cols, false, s->fetch);
}

void fb_flow_causal_carry(const struct flow_causal_shape *shape, int64_t batch, int64_t head,
                          int64_t first, const struct flow_causal_scratch *s,
                          const struct flow_chunk *x)
{
    fb_flow_causal_weigh(shape, batch, head, first, s, x);
    fb_rows_carry_add(s->product, s->product_error, s->part, shape->dim * shape->value_cols);
    carry_rows(shape, s->q, x->rows, NULL, s->part, &s->queries);
    carry_rows(shape, s->q, x->rows, x->alpha, s->part, &s->w);
    carry_rows(shape, s->k, x->rows, NULL, s->part, &s->keys);
    carry_rows(shape, s->k, x->rows, x->beta, s->part, &s->u);
}

/* ---- forward ------------------------------------------------------------------------------- */

/* lower = r tril(A): zeros above the diagonal, as far as a tile of the product reaches. */
static void weigh_lower(const float *scores, const float *r, int64_t rows, float *lower)
{
    for (int64_t i = 0; i < rows; i++) {
        const fb_vf ri = fb_vf_set1(r[i]);
        for (int64_t j = 0; j < rows; j += FB_VW) {
            const int64_t seen = i + 1 > j ? flow_smaller(i + 1 - j, FB_VW) : 0;
            const fb_vf entry = fb_vf_keep(fb_vf_load(scores + i * FLOW_CHUNK + j), seen);
            fb_vf_store(lower + i * FLOW_CHUNK + j, fb_vf_mul(ri, entry));
        }
    }
}

void fb_flow_causal_emit_before(const struct flow_causal_shape *shape,
                                const struct flow_causal_scratch *s, const struct flow_chunk *x,
                                struct fb_row_block to)
{
    fb_rows_scale(s->q, shape->cols, x->rows, shape->cols, x->r, s->turned, shape->cols);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (x->rows, shape->value_dim, shape->dim, s->turned, shape->cols, 1, s->product,
     shape->value_cols, to.rows, to.stride, false);
}

void fb_flow_causal_emit_within(const struct flow_causal_shape *shape,
                                const struct flow_causal_scratch *s, const struct flow_chunk *x,
                                struct fb_row_block to)
{
    weigh_lower(s->scores, x->r, x->rows, s->lower);
    FB_ISA_SYMBOL(fb_tile_gemm_lower)
    (x->rows, shape->value_dim, x->rows, s->lower, FLOW_CHUNK, 1, s->weighted, shape->value_cols,
     to.rows, to.stride, true);
}

/* What the chunk that begins at first will read and write. */
static struct fb_tile_extra next_chunk(const struct flow_causal_shape *shape, int64_t batch,
                                       int64_t head, int64_t first, int64_t length)
{
    const struct fb_call *call = shape->call;
    const int64_t rows = flow_smaller(FLOW_CHUNK, length - first);
    const struct fb_row_range sinks = {batch, head, first, 1, rows};
    const struct fb_row_range sources = {batch, fb_flow_kv_head(shape->problem, head), first, 1,
                                         rows};
    return (struct fb_tile_extra){
        .fetch = {fb_rows_range(&call->q, sinks), fb_rows_range(&call->k, sources),
                  fb_rows_range(&call->v, sources), fb_rows_range(&call->out, sinks)}};
}

static void forward_head(void *context, int64_t task, int thread)
{
    const struct flow_causal_shape *shape = context;
    const struct fb_problem *p = shape->problem;
    const int64_t batch = task / p->heads, head = task % p->heads;
    const struct fb_tensor *out = &shape->call->out;
    const size_t state_bytes = fb_flow_causal_state_size(shape);
    unsigned char *saved = shape->call->saved;
    struct flow_causal_scratch s;
    struct flow_normaliser normaliser;
    struct flow_chunk x;
    memset(&x, 0, sizeof x);
    unsigned char *scratch = shape->call->scratch;
    assert(scratch != NULL);
    fb_flow_causal_carve(shape, scratch + (size_t)thread * shape->worker_bytes, &s);
    fb_flow_causal_fill_ones(shape, s.ones);
    fb_flow_causal_reset(shape, &s, &normaliser);
    const int64_t length = fb_problem_queries(p, batch);
    for (int64_t first = 0; first < length; first += FLOW_CHUNK) {
        const int64_t chunk = first / FLOW_CHUNK;
        if (saved != NULL && chunk % FLOW_SEGMENT == 0) {
            const int64_t index = task * fb_flow_causal_segments(p) + chunk / FLOW_SEGMENT;
            fb_flow_causal_store(shape, &s, &normaliser, saved + (size_t)index * state_bytes);
        }
        const int64_t rows = flow_smaller(FLOW_CHUNK, length - first);
        const struct fb_row_range range = {batch, head, first, 1, rows};
        const struct fb_row_block to = fb_rows_open(out, range, s.result);
        struct fb_tile_extra fetch = next_chunk(shape, batch, head, first + rows, length);
        s.fetch = &fetch;
        fb_flow_causal_visit(shape, batch, head, first, rows, &s, &normaliser, &x);
        fb_flow_causal_emit_before(shape, &s, &x, to);
        fb_flow_causal_carry(shape, batch, head, first, &s, &x);
        fb_flow_causal_emit_within(shape, &s, &x, to);
        fb_rows_close(out, range, to);
    }
}

void fb_flow_causal_forward(const struct fb_problem *problem, const struct fb_call *call)
{
    struct flow_causal_shape shape;
    fb_flow_causal_shape_of(problem, call, &shape);
    const int64_t heads = problem->batch * problem->heads;
    const int64_t alone = heads - fb_flow_shared_count(problem, heads, call->threads);
    fb_parallel_for(call->threads, alone, forward_head, &shape);
    if (alone < heads) {
        fb_flow_rounds_forward(&shape, alone);
    }
}

void fb_flow_causal_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    struct flow_causal_shape shape;
    fb_flow_causal_shape_of(problem, NULL, &shape);
    const int64_t heads = problem->batch * problem->heads;
    const int64_t units = problem->batch * problem->kv_heads;
    const int64_t alone = heads - fb_flow_shared_count(problem, heads, threads);
    const int64_t units_alone = units - fb_flow_shared_count(problem, units, threads);
    const size_t forward[2] = {
        shape.worker_bytes * (size_t)flow_smaller(threads, alone),
        alone < heads ? fb_flow_rounds_bytes(&shape, alone, threads) : 0,
    };
    const size_t backward[2] = {
        fb_flow_gradient_bytes(&shape) * (size_t)flow_smaller(threads, units_alone),
        units_alone < units ? fb_flow_rounds_gradient_bytes(&shape, units_alone, threads) : 0,
    };
    sizes->saved_bytes =
        fb_flow_causal_state_size(&shape) * (size_t)(heads * fb_flow_causal_segments(problem));
    sizes->forward_scratch_bytes = forward[0] > forward[1] ? forward[0] : forward[1];
    sizes->backward_scratch_bytes = backward[0] > backward[1] ? backward[0] : backward[1];
}
