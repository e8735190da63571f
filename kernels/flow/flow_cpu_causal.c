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
 * cost no digits. A training forward stores the state every 16 chunks. Threads take whole heads.
 *
 * Reference: Wu et al., Flowformer, ICML 2022, eqs. 4-8, causal form of the released core module.
 */
#include "flow_causal.h"
#include "flow_cpu.h"

#include "parallel.h"
#include "tile_gemm.h"

#include <assert.h>
#include <string.h>

/* ---- shape, scratch and state -------------------------------------------------------------- */

static struct flow_carried take_carried(struct fb_scratch_cursor *cursor, int64_t cols)
{
    return (struct flow_carried){fb_scratch_take_f32(cursor, cols),
                                 fb_scratch_take_f32(cursor, cols),
                                 fb_scratch_take_f32(cursor, cols)};
}

size_t fb_flow_causal_carve(const struct flow_causal_shape *shape, void *base,
                            struct flow_causal_scratch *s)
{
    struct fb_scratch_cursor cursor = {.base = base};
    const int64_t matrix = shape->dim * shape->value_cols;
    const enum fb_dtype dtype = shape->problem->dtype;
    const int64_t widest = shape->cols > shape->value_cols ? shape->cols : shape->value_cols;
    *s = (struct flow_causal_scratch){
        .q = fb_scratch_take_f32(&cursor, FLOW_CHUNK * shape->cols),
        .k = fb_scratch_take_f32(&cursor, FLOW_CHUNK * shape->cols),
        .turned = fb_scratch_take_f32(&cursor, FLOW_CHUNK * shape->cols),
        .scores = fb_scratch_take_f32(&cursor, FLOW_CHUNK * FLOW_CHUNK),
        .lower = fb_scratch_take_f32(&cursor, FLOW_CHUNK * FLOW_CHUNK),
        .weighted = fb_scratch_take_f32(&cursor, FLOW_CHUNK * shape->value_cols),
        .part = fb_scratch_take_f32(&cursor, matrix > shape->cols ? matrix : shape->cols),
        .product = fb_scratch_take_f32(&cursor, matrix),
        .product_error = fb_scratch_take_f32(&cursor, matrix),
        .ones = fb_scratch_take_f32(&cursor, shape->cols),
        .raw = fb_scratch_take_f32(&cursor, fb_row_room(dtype, FLOW_CHUNK, shape->dim)),
        .values = fb_scratch_take_f32(&cursor, fb_row_room(dtype, FLOW_CHUNK, shape->value_dim)),
        .result = fb_scratch_take_f32(&cursor, fb_row_room(dtype, FLOW_CHUNK, widest)),
        .keys = take_carried(&cursor, shape->cols),
        .queries = take_carried(&cursor, shape->cols),
        .u = take_carried(&cursor, shape->cols),
        .w = take_carried(&cursor, shape->cols),
    };
    return cursor.used_bytes;
}

void fb_flow_causal_shape_of(const struct fb_problem *problem, const struct fb_call *call,
                             struct flow_causal_shape *shape)
{
    *shape = (struct flow_causal_shape){
        .problem = problem,
        .call = call,
        .options = fb_flow_options_of(problem),
        .dim = problem->qk_dim,
        .value_dim = problem->v_dim,
        .cols = fb_vf_round_up(problem->qk_dim),
        .value_cols = fb_vf_round_up(problem->v_dim),
    };
    struct flow_causal_scratch counted;
    shape->worker_bytes = fb_flow_causal_carve(shape, NULL, &counted);
}

static void clear_carried(const struct flow_carried *v, int64_t cols)
{
    fb_rows_zero(v->value, cols);
    fb_rows_zero(v->error, cols);
    fb_rows_zero(v->operand, cols);
}

void fb_flow_causal_reset(const struct flow_causal_shape *shape, struct flow_causal_scratch *s,
                          struct flow_normaliser *normaliser)
{
    fb_rows_zero(s->product, shape->dim * shape->value_cols);
    fb_rows_zero(s->product_error, shape->dim * shape->value_cols);
    clear_carried(&s->keys, shape->cols);
    clear_carried(&s->queries, shape->cols);
    clear_carried(&s->u, shape->cols);
    clear_carried(&s->w, shape->cols);
    for (int64_t j = 0; j < shape->cols; j++) {
        s->ones[j] = j < shape->dim ? 1.0F : 0.0F;
    }
    *normaliser = (struct flow_normaliser){0.0, shape->options.online ? -INFINITY : 0.0F};
}

/* A stored state, in this order: normaliser, keys, queries, u, w, M. */
struct stored_state {
    struct flow_normaliser *normaliser;
    float *vectors[4];
    float *product;
};

static size_t carve_state(const struct flow_causal_shape *shape, void *base,
                          struct stored_state *state)
{
    struct fb_scratch_cursor cursor = {.base = base};
    state->normaliser = fb_scratch_take(&cursor, 1, sizeof *state->normaliser);
    for (int i = 0; i < 4; i++) {
        state->vectors[i] = fb_scratch_take_f32(&cursor, shape->cols);
    }
    state->product = fb_scratch_take_f32(&cursor, shape->dim * shape->value_cols);
    return cursor.used_bytes;
}

size_t fb_flow_causal_state_size(const struct flow_causal_shape *shape)
{
    struct stored_state counted;
    return carve_state(shape, NULL, &counted);
}

void fb_flow_causal_store(const struct flow_causal_shape *shape,
                          const struct flow_causal_scratch *s,
                          const struct flow_normaliser *normaliser, void *memory)
{
    struct stored_state state;
    carve_state(shape, memory, &state);
    const float *const values[4] = {s->keys.value, s->queries.value, s->u.value, s->w.value};
    *state.normaliser = *normaliser;
    for (int i = 0; i < 4; i++) {
        memcpy(state.vectors[i], values[i], (size_t)shape->cols * sizeof(float));
    }
    memcpy(state.product, s->product, (size_t)(shape->dim * shape->value_cols) * sizeof(float));
}

void fb_flow_causal_load(const struct flow_causal_shape *shape, const void *memory,
                         struct flow_causal_scratch *s, struct flow_normaliser *normaliser)
{
    struct stored_state state;
    carve_state(shape, (void *)(uintptr_t)memory, &state);
    fb_flow_causal_reset(shape, s, normaliser);
    float *const values[4] = {s->keys.value, s->queries.value, s->u.value, s->w.value};
    *normaliser = *state.normaliser;
    for (int i = 0; i < 4; i++) {
        memcpy(values[i], state.vectors[i], (size_t)shape->cols * sizeof(float));
    }
    memcpy(s->product, state.product, (size_t)(shape->dim * shape->value_cols) * sizeof(float));
}

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

void fb_flow_carry_rows(const struct flow_causal_shape *shape, const float *x, int64_t rows,
                        const float *weight, float *part, const struct flow_carried *v)
{
    fb_rows_zero(part, shape->cols);
    fb_rows_accumulate(x, shape->cols, rows, shape->cols, weight, part);
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

/* alpha, beta, c, o of a chunk. */
static void conserve(const struct flow_causal_shape *shape, const struct flow_causal_scratch *s,
                     struct flow_chunk *x)
{
    const int64_t rows = x->rows, cols = shape->cols;
    const float key_term = refresh_operand(shape, &s->keys);
    const float query_term = refresh_operand(shape, &s->queries);
    const float u_term = refresh_operand(shape, &s->u);
    const float w_term = refresh_operand(shape, &s->w);
    fb_rows_dot(s->k, cols, rows, cols, s->ones, x->key_sum);
    fb_rows_dot(s->q, cols, rows, cols, s->ones, x->query_sum);

    triangle_sums(s->scores, rows, NULL, NULL, x->a, x->b);
    fb_rows_dot(s->q, cols, rows, cols, s->keys.operand, x->dots);
    add_prefix(x->a, x->dots, key_term, x->key_sum, NULL, rows);
    fb_rows_dot(s->k, cols, rows, cols, s->queries.operand, x->dots);
    add_prefix(x->b, x->dots, query_term, x->query_sum, NULL, rows);
    divide(x->n, x->a, rows, x->alpha);
    divide(x->n, x->b, rows, x->beta);

    triangle_sums(s->scores, rows, x->beta, x->alpha, x->c, x->o);
    fb_rows_dot(s->q, cols, rows, cols, s->u.operand, x->dots);
    add_prefix(x->c, x->dots, u_term, x->key_sum, x->beta, rows);
    fb_rows_dot(s->k, cols, rows, cols, s->w.operand, x->dots);
    add_prefix(x->o, x->dots, w_term, x->query_sum, x->alpha, rows);
    divide(x->c, x->n, rows, x->c);
    divide(x->o, x->n, rows, x->o);
}

/* p of a chunk when exponents are bounded. */
static void compete_bounded(float clamp, struct flow_normaliser *normaliser, struct flow_chunk *x)
{
    const fb_vf high = fb_vf_set1(clamp), low = fb_vf_set1(-clamp);
    for (int64_t i = 0; i < FLOW_CHUNK; i += FB_VW) {
        const fb_vf clamped = fb_vf_max(low, fb_vf_min(high, fb_vf_load(x->o + i)));
        fb_vf_store(x->p + i, fb_vf_exp_in_range(clamped));
    }
    float within = 0.0F;
    for (int64_t i = 0; i < x->rows; i++) {
        within += x->p[i];
        x->p[i] = x->n[i] * x->p[i] / (float)(normaliser->sum + (double)within);
    }
    normaliser->sum += (double)within;
}

/* p of a chunk with a running maximum. */
static void compete_online(float clamp, struct flow_normaliser *normaliser, struct flow_chunk *x)
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

static void compete_and_allocate(const struct flow_causal_shape *shape,
                                 struct flow_normaliser *normaliser, struct flow_chunk *x)
{
    const struct fb_flow_options *options = &shape->options;
    for (int64_t i = 0; i < FLOW_CHUNK; i += FB_VW) {
        const fb_vf one = fb_vf_set1(1.0F);
        fb_vf_store(x->p + i, one);
        const fb_vf s = options->allocation ? fb_vf_sigmoid(fb_vf_load(x->c + i)) : one;
        fb_vf_store(x->s + i, s);
        fb_vf_store(x->r + i, fb_vf_div(s, fb_vf_load(x->a + i)));
    }
    if (options->competition == FB_FLOW_NO_COMPETITION) {
        return;
    }
    if (options->online) {
        compete_online(options->clamp, normaliser, x);
    } else {
        compete_bounded(options->clamp, normaliser, x);
    }
}

void fb_flow_causal_visit(const struct flow_causal_shape *shape, int64_t batch, int64_t head,
                          int64_t first, int64_t rows, const struct flow_causal_scratch *s,
                          struct flow_normaliser *normaliser, struct flow_chunk *x)
{
    x->rows = rows;
    for (int64_t i = 0; i < FLOW_CHUNK; i++) {
        x->n[i] = (float)(first + i + 1);
    }
    load_chunk(shape, batch, head, first, rows, s);
    conserve(shape, s, x);
    compete_and_allocate(shape, normaliser, x);
}

void fb_flow_causal_carry(const struct flow_causal_shape *shape, int64_t batch, int64_t head,
                          int64_t first, const struct flow_causal_scratch *s,
                          const struct flow_chunk *x)
{
    const int64_t kv_head = fb_flow_kv_head(shape->problem, head);
    const struct fb_row_range sources = {batch, kv_head, first, 1, x->rows};
    const struct fb_row_block v = fb_rows_load(&shape->call->v, sources, s->values);
    fb_rows_scale(v.rows, v.stride, x->rows, shape->value_dim, x->p, s->weighted,
                  shape->value_cols);
    fb_flow_carry_rows(shape, s->q, x->rows, NULL, s->part, &s->queries);
    fb_flow_carry_rows(shape, s->q, x->rows, x->alpha, s->part, &s->w);
    fb_flow_carry_rows(shape, s->k, x->rows, NULL, s->part, &s->keys);
    fb_flow_carry_rows(shape, s->k, x->rows, x->beta, s->part, &s->u);
    FB_ISA_SYMBOL(fb_tile_gemm_extra)
    (shape->dim, shape->value_cols, x->rows, s->k, 1, shape->cols, s->weighted, shape->value_cols,
     s->part, shape->value_cols, false, s->fetch);
    fb_rows_carry_add(s->product, s->product_error, s->part, shape->dim * shape->value_cols);
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

/* r (phi(q) M + tril(A) (p v)), M being the state before the chunk: the first half before the state
 * moves on, the second when p v is there. */
static void emit_before(const struct flow_causal_shape *shape, const struct flow_causal_scratch *s,
                        const struct flow_chunk *x, float *to, int64_t stride)
{
    fb_rows_scale(s->q, shape->cols, x->rows, shape->cols, x->r, s->turned, shape->cols);
    FB_ISA_SYMBOL(fb_tile_gemm)
    (x->rows, shape->value_dim, shape->dim, s->turned, shape->cols, 1, s->product,
     shape->value_cols, to, stride, false);
}

static void emit_within(const struct flow_causal_shape *shape, const struct flow_causal_scratch *s,
                        const struct flow_chunk *x, float *to, int64_t stride)
{
    weigh_lower(s->scores, x->r, x->rows, s->lower);
    FB_ISA_SYMBOL(fb_tile_gemm_lower)
    (x->rows, shape->value_dim, x->rows, s->lower, FLOW_CHUNK, 1, s->weighted, shape->value_cols,
     to, stride, true);
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
        emit_before(shape, &s, &x, to.rows, to.stride);
        fb_flow_causal_carry(shape, batch, head, first, &s, &x);
        emit_within(shape, &s, &x, to.rows, to.stride);
        fb_rows_close(out, range, to);
    }
}

void fb_flow_causal_forward(const struct fb_problem *problem, const struct fb_call *call)
{
    struct flow_causal_shape shape;
    fb_flow_causal_shape_of(problem, call, &shape);
    const int64_t heads = problem->batch * problem->heads;
    fb_parallel_for(call->threads, heads, forward_head, &shape);
}

void fb_flow_causal_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    struct flow_causal_shape shape;
    fb_flow_causal_shape_of(problem, NULL, &shape);
    const int64_t heads = problem->batch * problem->heads;
    const int64_t units = problem->batch * problem->kv_heads;
    sizes->saved_bytes =
        fb_flow_causal_state_size(&shape) * (size_t)(heads * fb_flow_causal_segments(problem));
    sizes->forward_scratch_bytes = shape.worker_bytes * (size_t)flow_smaller(threads, heads);
    sizes->backward_scratch_bytes =
        fb_flow_gradient_bytes(&shape) * (size_t)flow_smaller(threads, units);
}
