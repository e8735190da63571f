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
 * cost no digits. Threads take whole heads.
 *
 * Reference: Wu et al., Flowformer, ICML 2022, eqs. 4-8, causal form of the released core module.
 */
#include "flow_cpu.h"

#include "flow.h"
#include "kernel_support.h"
#include "parallel.h"
#include "rows.h"
#include "tile_gemm.h"

#include <string.h>

enum { CHUNK = 64 };

/* A vector carried over the chunks: its value, its rounding error, and value + eps as operand. */
struct carried {
    float *value, *error, *operand; /* [cols] */
};

struct causal_scratch {
    float *q, *k;         /* [CHUNK][cols] phi */
    float *turned;        /* [dim][CHUNK] phi(k)^T for A; then [CHUNK][cols] r phi(q) */
    float *scores;        /* [CHUNK][CHUNK] A */
    float *lower;         /* [CHUNK][CHUNK] r tril(A) */
    float *weighted;      /* [CHUNK][value_cols] p v */
    float *part;          /* [dim][value_cols], or [cols]: what a chunk adds */
    float *product;       /* [dim][value_cols] M */
    float *product_error; /* its rounding error */
    float *ones;          /* [cols] ones up to dim */
    struct carried keys, queries, u, w;
};

struct chunk_scalars {
    float n[CHUNK];           /* 1-based position */
    float a[CHUNK], b[CHUNK]; /* incoming, outgoing */
    float alpha[CHUNK], beta[CHUNK];
    float c[CHUNK], o[CHUNK];               /* conserved */
    float p[CHUNK];                         /* competition */
    float r[CHUNK];                         /* allocation / incoming */
    float key_sum[CHUNK], query_sum[CHUNK]; /* sum of the components of phi */
    float dots[CHUNK];
};

struct causal_run {
    const struct fb_problem *problem;
    const struct fb_call *call;
    int64_t dim, value_dim, cols, value_cols;
    size_t worker_bytes;
};

static int64_t minimum(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static struct carried take_carried(struct fb_scratch_cursor *cursor, int64_t cols)
{
    return (struct carried){fb_scratch_take_f32(cursor, cols), fb_scratch_take_f32(cursor, cols),
                            fb_scratch_take_f32(cursor, cols)};
}

static size_t carve_scratch(const struct causal_run *run, void *base, struct causal_scratch *s)
{
    struct fb_scratch_cursor cursor = {.base = base};
    const int64_t widest =
        run->dim * run->value_cols > run->cols ? run->dim * run->value_cols : run->cols;
    *s = (struct causal_scratch){
        .q = fb_scratch_take_f32(&cursor, CHUNK * run->cols),
        .k = fb_scratch_take_f32(&cursor, CHUNK * run->cols),
        .turned = fb_scratch_take_f32(&cursor, CHUNK * run->cols),
        .scores = fb_scratch_take_f32(&cursor, CHUNK * CHUNK),
        .lower = fb_scratch_take_f32(&cursor, CHUNK * CHUNK),
        .weighted = fb_scratch_take_f32(&cursor, CHUNK * run->value_cols),
        .part = fb_scratch_take_f32(&cursor, widest),
        .product = fb_scratch_take_f32(&cursor, run->dim * run->value_cols),
        .product_error = fb_scratch_take_f32(&cursor, run->dim * run->value_cols),
        .ones = fb_scratch_take_f32(&cursor, run->cols),
        .keys = take_carried(&cursor, run->cols),
        .queries = take_carried(&cursor, run->cols),
        .u = take_carried(&cursor, run->cols),
        .w = take_carried(&cursor, run->cols),
    };
    return cursor.used_bytes;
}

static void make_run(const struct fb_problem *problem, struct causal_run *run)
{
    *run = (struct causal_run){
        .problem = problem,
        .dim = problem->qk_dim,
        .value_dim = problem->v_dim,
        .cols = fb_vf_round_up(problem->qk_dim),
        .value_cols = fb_vf_round_up(problem->v_dim),
    };
    struct causal_scratch counted;
    run->worker_bytes = carve_scratch(run, NULL, &counted);
}

/* operand = value + eps on the first dim components; returns eps * (their sum): the part of
 * (x+eps) . (value+eps) that x does not see. */
static float refresh_operand(const struct carried *v, int64_t dim)
{
    double sum = 0.0;
    for (int64_t j = 0; j < dim; j++) {
        v->operand[j] = v->value[j] + FB_FLOW_EPSILON;
        sum += (double)v->operand[j];
    }
    return (float)((double)FB_FLOW_EPSILON * sum);
}

static void clear_carried(const struct carried *v, int64_t cols)
{
    fb_rows_zero(v->value, cols);
    fb_rows_zero(v->error, cols);
    fb_rows_zero(v->operand, cols);
}

/* v += sum_i weight[i] x_i over the chunk. */
static void carry_rows(const struct causal_run *run, const float *x, int64_t rows,
                       const float *weight, float *part, const struct carried *v)
{
    fb_rows_zero(part, run->cols);
    fb_rows_accumulate(x, run->cols, rows, run->cols, weight, part);
    fb_rows_carry_add(v->value, v->error, part, run->cols);
}

/* lower[i] = sum_{j<=i} A_ij x_j, upper[j] = sum_{i<=j} A_ij y_i; x, y NULL meaning ones. */
static void triangle_sums(const float *scores, int64_t rows, const float *x, const float *y,
                          float *lower, float *upper)
{
    memset(upper, 0, CHUNK * sizeof *upper);
    for (int64_t i = 0; i < rows; i++) {
        const float *row = scores + i * CHUNK;
        const fb_vf yi = fb_vf_set1(y == NULL ? 1.0F : y[i]);
        fb_vf sum = fb_vf_zero();
        for (int64_t j = 0; j < rows; j += FB_VW) {
            const fb_vf entry = fb_vf_load(row + j);
            if (j <= i) {
                const int64_t seen = minimum(i + 1 - j, FB_VW);
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
static void load_chunk(const struct causal_run *run, int64_t batch, int64_t head, int64_t first,
                       int64_t rows, const struct causal_scratch *s)
{
    const struct fb_tensor *q = &run->call->q, *k = &run->call->k;
    fb_rows_sigmoid(fb_tensor_row_f32(q, batch, head, first), q->stride[2], rows, run->dim, s->q,
                    run->cols);
    fb_rows_sigmoid(fb_tensor_row_f32(k, batch, head, first), k->stride[2], rows, run->dim, s->k,
                    run->cols);
    fb_rows_transpose(s->k, run->cols, rows, run->dim, s->turned, CHUNK);
    if (rows < CHUNK) {
        fb_rows_zero(s->scores, CHUNK * CHUNK);
    }
    FB_ISA_SYMBOL(fb_tile_gemm)
    (rows, rows, run->dim, s->q, run->cols, 1, s->turned, CHUNK, s->scores, CHUNK, false);
}

/* alpha, beta, c, o of a chunk. */
static void conserve(const struct causal_run *run, const struct causal_scratch *s, int64_t rows,
                     struct chunk_scalars *x)
{
    const float key_term = refresh_operand(&s->keys, run->dim);
    const float query_term = refresh_operand(&s->queries, run->dim);
    const float u_term = refresh_operand(&s->u, run->dim);
    const float w_term = refresh_operand(&s->w, run->dim);
    fb_rows_dot(s->k, run->cols, rows, run->cols, s->ones, x->key_sum);
    fb_rows_dot(s->q, run->cols, rows, run->cols, s->ones, x->query_sum);

    triangle_sums(s->scores, rows, NULL, NULL, x->a, x->b);
    fb_rows_dot(s->q, run->cols, rows, run->cols, s->keys.operand, x->dots);
    add_prefix(x->a, x->dots, key_term, x->key_sum, NULL, rows);
    fb_rows_dot(s->k, run->cols, rows, run->cols, s->queries.operand, x->dots);
    add_prefix(x->b, x->dots, query_term, x->query_sum, NULL, rows);
    divide(x->n, x->a, rows, x->alpha);
    divide(x->n, x->b, rows, x->beta);

    triangle_sums(s->scores, rows, x->beta, x->alpha, x->c, x->o);
    fb_rows_dot(s->q, run->cols, rows, run->cols, s->u.operand, x->dots);
    add_prefix(x->c, x->dots, u_term, x->key_sum, x->beta, rows);
    fb_rows_dot(s->k, run->cols, rows, run->cols, s->w.operand, x->dots);
    add_prefix(x->o, x->dots, w_term, x->query_sum, x->alpha, rows);
    divide(x->c, x->n, rows, x->c);
    divide(x->o, x->n, rows, x->o);
}

/* p from o and the running normaliser, r from c and a. */
static void compete_and_allocate(int64_t rows, double *normaliser, struct chunk_scalars *x)
{
    const fb_vf high = fb_vf_set1(FB_FLOW_CLAMP), low = fb_vf_set1(-FB_FLOW_CLAMP);
    float running[CHUNK];
    for (int64_t i = 0; i < CHUNK; i += FB_VW) {
        const fb_vf clamped = fb_vf_max(low, fb_vf_min(high, fb_vf_load(x->o + i)));
        fb_vf_store(x->p + i, fb_vf_exp_in_range(clamped));
        const fb_vf s = fb_vf_sigmoid(fb_vf_load(x->c + i));
        fb_vf_store(x->r + i, fb_vf_div(s, fb_vf_load(x->a + i)));
    }
    float within = 0.0F;
    for (int64_t i = 0; i < rows; i++) {
        within += x->p[i];
        running[i] = (float)(*normaliser + (double)within);
    }
    *normaliser += (double)within;
    for (int64_t i = 0; i < rows; i++) {
        x->p[i] = x->n[i] * x->p[i] / running[i];
    }
}

/* lower = r tril(A): zeros above the diagonal, as far as a tile of the product reaches. */
static void weigh_lower(const float *scores, const float *r, int64_t rows, float *lower)
{
    for (int64_t i = 0; i < rows; i++) {
        const fb_vf ri = fb_vf_set1(r[i]);
        for (int64_t j = 0; j < rows; j += FB_VW) {
            const int64_t seen = i + 1 > j ? minimum(i + 1 - j, FB_VW) : 0;
            const fb_vf entry = fb_vf_keep(fb_vf_load(scores + i * CHUNK + j), seen);
            fb_vf_store(lower + i * CHUNK + j, fb_vf_mul(ri, entry));
        }
    }
}

/* The chunk's outputs, then its part of the carried state. */
static void emit_and_carry(const struct causal_run *run, const struct causal_scratch *s,
                           int64_t batch, int64_t head, int64_t first, int64_t rows,
                           const struct chunk_scalars *x)
{
    const struct fb_tensor *v = &run->call->v, *out = &run->call->out;
    float *to = fb_tensor_row_f32(out, batch, head, first);
    fb_rows_scale(fb_tensor_row_f32(v, batch, head, first), v->stride[2], rows, run->value_dim,
                  x->p, s->weighted, run->value_cols);
    weigh_lower(s->scores, x->r, rows, s->lower);
    carry_rows(run, s->q, rows, NULL, s->part, &s->queries);
    carry_rows(run, s->q, rows, x->alpha, s->part, &s->w);
    fb_rows_scale(s->q, run->cols, rows, run->cols, x->r, s->turned, run->cols);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (rows, run->value_dim, run->dim, s->turned, run->cols, 1, s->product, run->value_cols, to,
     out->stride[2], false);
    FB_ISA_SYMBOL(fb_tile_gemm_lower)
    (rows, run->value_dim, rows, s->lower, CHUNK, 1, s->weighted, run->value_cols, to,
     out->stride[2], true);

    carry_rows(run, s->k, rows, NULL, s->part, &s->keys);
    carry_rows(run, s->k, rows, x->beta, s->part, &s->u);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (run->dim, run->value_cols, rows, s->k, 1, run->cols, s->weighted, run->value_cols, s->part,
     run->value_cols, false);
    fb_rows_carry_add(s->product, s->product_error, s->part, run->dim * run->value_cols);
}

static void run_head(void *context, int64_t task, int thread)
{
    const struct causal_run *run = context;
    const int64_t batch = task / run->problem->heads, head = task % run->problem->heads;
    struct causal_scratch s;
    carve_scratch(run, (unsigned char *)run->call->scratch + (size_t)thread * run->worker_bytes,
                  &s);
    fb_rows_zero(s.product, run->dim * run->value_cols);
    fb_rows_zero(s.product_error, run->dim * run->value_cols);
    clear_carried(&s.keys, run->cols);
    clear_carried(&s.queries, run->cols);
    clear_carried(&s.u, run->cols);
    clear_carried(&s.w, run->cols);
    for (int64_t j = 0; j < run->cols; j++) {
        s.ones[j] = j < run->dim ? 1.0F : 0.0F;
    }
    double normaliser = 0.0;
    struct chunk_scalars x;
    memset(&x, 0, sizeof x);
    for (int64_t first = 0; first < run->problem->q_len; first += CHUNK) {
        const int64_t rows = minimum(CHUNK, run->problem->q_len - first);
        for (int64_t i = 0; i < CHUNK; i++) {
            x.n[i] = (float)(first + i + 1);
        }
        load_chunk(run, batch, head, first, rows, &s);
        conserve(run, &s, rows, &x);
        compete_and_allocate(rows, &normaliser, &x);
        emit_and_carry(run, &s, batch, head, first, rows, &x);
    }
}

static int worker_count(const struct fb_problem *problem, int threads)
{
    return (int)minimum(threads, problem->batch * problem->heads);
}

size_t fb_flow_causal_scratch_bytes(const struct fb_problem *problem, int threads)
{
    struct causal_run run;
    make_run(problem, &run);
    return run.worker_bytes * (size_t)worker_count(problem, threads);
}

enum fb_status fb_flow_causal_forward(const struct fb_problem *problem, const struct fb_call *call,
                                      struct fb_error *error)
{
    (void)error;
    struct causal_run run;
    make_run(problem, &run);
    run.call = call;
    fb_parallel_for(worker_count(problem, call->threads), problem->batch * problem->heads, run_head,
                    &run);
    return FB_OK;
}
