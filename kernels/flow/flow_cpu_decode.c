/*
 * Fused Flow-Attention on the CPU: one token at a time. The causal form of flow.h is a recurrence
 * whose state does not grow: the sums of phi(k), phi(q), beta phi(k), alpha phi(q), the normaliser
 * of the competition and the D x M product, each carried with its rounding error (compensated), so
 * that long sequences cost no digits. Per token and head 4DM flop over 8DM bytes of state.
 *
 * A state of zero bytes is the one before the first token. Grouped queries have a state per query
 * head, since queries are part of it.
 *
 * Reference: Wu et al., Flowformer, ICML 2022, causal form of the released core module.
 */
#include "flow_cpu.h"
#include "flow_options.h"
#include "kernel_support.h"
#include "parallel.h"
#include "row_block.h"
#include "rows.h"

/* One head's state; vectors have cols floats, each followed by its rounding error. */
struct decode_state {
    int64_t *tokens;
    double *sum; /* of exp(o - peak) */
    float *peak; /* meaningful once tokens > 0 */
    float *keys, *queries, *u, *w;
    float *product; /* [dim][value_cols], then the same of errors */
};

struct decode_run {
    const struct fb_problem *problem;
    const struct fb_call *call;
    struct fb_flow_options options;
    int64_t dim, value_dim, cols, value_cols;
    size_t state_bytes, worker_bytes;
};

struct decode_scratch {
    float *q, *k, *value; /* [cols], [cols], [value_cols] */
    float *part;          /* [max(cols, value_cols)] */
    float *raw, *result;  /* likewise: a row of q, k or v, and out, of 16 bits */
};

static size_t carve_state(const struct decode_run *run, void *base, struct decode_state *s)
{
    struct fb_scratch_cursor cursor = {.base = base};
    s->tokens = fb_scratch_take(&cursor, 1, sizeof *s->tokens);
    s->sum = fb_scratch_take_f64(&cursor, 1);
    s->peak = fb_scratch_take_f32(&cursor, 1);
    float **const vectors[4] = {&s->keys, &s->queries, &s->u, &s->w};
    for (int i = 0; i < 4; i++) {
        *vectors[i] = fb_scratch_take_f32(&cursor, 2 * run->cols);
    }
    s->product = fb_scratch_take_f32(&cursor, 2 * run->dim * run->value_cols);
    return cursor.used_bytes;
}

static size_t carve_scratch(const struct decode_run *run, void *base, struct decode_scratch *s)
{
    struct fb_scratch_cursor cursor = {.base = base};
    s->q = fb_scratch_take_f32(&cursor, run->cols);
    s->k = fb_scratch_take_f32(&cursor, run->cols);
    s->value = fb_scratch_take_f32(&cursor, run->value_cols);
    const int64_t widest = run->cols > run->value_cols ? run->cols : run->value_cols;
    s->part = fb_scratch_take_f32(&cursor, widest);
    s->raw = fb_scratch_take_f32(&cursor, fb_row_room(run->problem->dtype, 1, widest));
    s->result = fb_scratch_take_f32(&cursor, fb_row_room(run->problem->dtype, 1, widest));
    return cursor.used_bytes;
}

static void make_run(const struct fb_problem *p, const struct fb_call *call, struct decode_run *run)
{
    *run = (struct decode_run){
        .problem = p,
        .call = call,
        .options = fb_flow_options_of(p),
        .dim = p->qk_dim,
        .value_dim = p->v_dim,
        .cols = fb_vf_round_up(p->qk_dim),
        .value_cols = fb_vf_round_up(p->v_dim),
    };
    struct decode_state state;
    struct decode_scratch scratch;
    run->state_bytes = carve_state(run, NULL, &state);
    run->worker_bytes = carve_scratch(run, NULL, &scratch);
}

/* v += weight x, compensated; v is followed by its error. */
static void carry(const struct decode_run *run, float *v, const float *x, float weight, float *part)
{
    fb_rows_scale(x, run->cols, 1, run->cols, &weight, part, run->cols);
    fb_rows_carry_add(v, v + run->cols, part, run->cols);
}

/* (x + eps) . (v + eps) + extra. */
static float lifted_dot(const struct decode_run *run, const float *x, const float *v)
{
    fb_vf dot = fb_vf_zero(), sums = fb_vf_zero();
    for (int64_t j = 0; j < run->cols; j += FB_VW) {
        dot = fb_vf_fma(fb_vf_load(x + j), fb_vf_load(v + j), dot);
        sums = fb_vf_add(fb_vf_add(fb_vf_load(x + j), fb_vf_load(v + j)), sums);
    }
    const float epsilon = FB_FLOW_EPSILON;
    const float square = epsilon * epsilon * (float)run->dim;
    return fb_vf_sum(dot) + epsilon * fb_vf_sum(sums) + square + run->options.extra_eps;
}

/* p of this token: n e^o / sum of e^o so far, with a running maximum. */
static float compete(const struct decode_run *run, float flow, float n,
                     const struct decode_state *s)
{
    if (run->options.competition == FB_FLOW_NO_COMPETITION) {
        return 1.0F;
    }
    const float o = fminf(fmaxf(flow, -run->options.clamp), run->options.clamp);
    if (*s->tokens == 0) {
        *s->peak = o;
    } else if (o > *s->peak) {
        *s->sum *= exp((double)*s->peak - (double)o);
        *s->peak = o;
    }
    const double e = exp((double)o - (double)*s->peak);
    *s->sum += e;
    return (float)((double)n * e / *s->sum);
}

/* M += k (p v)^T row by row, and out = r q M with the new rows. */
static void advance_product(const struct decode_run *run, const struct decode_state *s,
                            const struct decode_scratch *b, float r, float *out)
{
    const int64_t errors = run->dim * run->value_cols;
    for (int64_t m = 0; m < run->value_cols; m += FB_VW) {
        const fb_vf value = fb_vf_load(b->value + m);
        fb_vf sum = fb_vf_zero();
        for (int64_t d = 0; d < run->dim; d++) {
            float *row = s->product + d * run->value_cols + m;
            const fb_vf old = fb_vf_load(row);
            const fb_vf y = fb_vf_fma(fb_vf_set1(b->k[d]), value, fb_vf_load(row + errors));
            const fb_vf next = fb_vf_add(old, y);
            const fb_vf taken = fb_vf_sub(next, old);
            const fb_vf error =
                fb_vf_add(fb_vf_sub(old, fb_vf_sub(next, taken)), fb_vf_sub(y, taken));
            fb_vf_store(row, next);
            fb_vf_store(row + errors, error);
            sum = fb_vf_fma(fb_vf_set1(b->q[d]), next, sum);
        }
        const int64_t rest = run->value_dim - m;
        fb_vf_store_part(out + m, fb_vf_mul(fb_vf_set1(r), sum), rest < FB_VW ? rest : FB_VW);
    }
}

static void decode_head(void *context, int64_t task, int thread)
{
    const struct decode_run *run = context;
    const struct fb_problem *p = run->problem;
    const struct fb_call *call = run->call;
    const int64_t batch = task / p->heads, head = task % p->heads;
    const int64_t kv_head = head / (p->heads / p->kv_heads);
    const enum fb_row_map map = (enum fb_row_map)run->options.phi;
    struct decode_state s;
    struct decode_scratch b;
    carve_state(run, (unsigned char *)call->decode_state + (size_t)task * run->state_bytes, &s);
    carve_scratch(run, (unsigned char *)call->scratch + (size_t)thread * run->worker_bytes, &b);
    const struct fb_row_range sink = {batch, head, 0, 1, 1}, source = {batch, kv_head, 0, 1, 1};
    fb_rows_map(map, fb_rows_load(&call->q, sink, b.raw).rows, 0, 1, run->dim, b.q, run->cols);
    fb_rows_map(map, fb_rows_load(&call->k, source, b.raw).rows, 0, 1, run->dim, b.k, run->cols);

    const float n = (float)(*s.tokens + 1);
    carry(run, s.keys, b.k, 1.0F, b.part);
    carry(run, s.queries, b.q, 1.0F, b.part);
    const float incoming = lifted_dot(run, b.q, s.keys);
    const float outgoing = lifted_dot(run, b.k, s.queries);
    carry(run, s.u, b.k, n / outgoing, b.part);
    carry(run, s.w, b.q, n / incoming, b.part);
    const float conserved = lifted_dot(run, b.q, s.u) / n;
    const float competition = compete(run, lifted_dot(run, b.k, s.w) / n, n, &s);
    const float allocation = run->options.allocation ? 1.0F / (1.0F + expf(-conserved)) : 1.0F;
    fb_rows_scale(fb_rows_load(&call->v, source, b.raw).rows, 0, 1, run->value_dim, &competition,
                  b.value, run->value_cols);
    const struct fb_row_block out = fb_rows_open(&call->out, sink, b.result);
    advance_product(run, &s, &b, allocation / incoming, out.rows);
    fb_rows_close(&call->out, sink, out);
    *s.tokens += 1;
}

static int worker_count(const struct fb_problem *problem, int threads)
{
    const int64_t heads = problem->batch * problem->heads;
    return (int)(heads < threads ? heads : threads);
}

void fb_flow_decode(const struct fb_problem *problem, const struct fb_call *call)
{
    struct decode_run run;
    make_run(problem, call, &run);
    fb_parallel_for(call->threads, problem->batch * problem->heads, decode_head, &run);
}

void fb_flow_decode_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes)
{
    struct decode_run run;
    make_run(problem, NULL, &run);
    sizes->decode_state_bytes = run.state_bytes * (size_t)(problem->batch * problem->heads);
    sizes->decode_scratch_bytes = run.worker_bytes * (size_t)worker_count(problem, threads);
}
