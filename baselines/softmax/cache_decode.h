/*
 * Decoding with a cache of keys and values, for softmax (every token so far) and local attention
 * (the last window + 1 tokens): one token costs time and memory in proportion to the tokens held.
 * Included by the CPU source of each, once per instruction set.
 *
 * The state is the number of tokens, then per head of keys the rows of K and of V in the dtype of
 * the problem, each padded with zeros to a multiple of 16 numbers. It is a ring: token t lies in
 * slot t mod capacity, so that a full ring forgets its oldest token. Sums run over slots, in blocks
 * with a running maximum.
 */
#ifndef FB_CACHE_DECODE_H
#define FB_CACHE_DECODE_H

#include "softmax/cache_rows.h"
#include "softmax/window_plan.h"

#include <assert.h>
enum { CACHE_BLOCK = 256, CACHE_ROW = 16 };

struct cache_kernel {
    const struct fb_problem *problem;
    const struct fb_call *call;
    int64_t capacity;
    int64_t ld_key, ld_value;
    int64_t *tokens; /* the count that the state opens with */
    size_t element_bytes, unit_bytes, thread_bytes;
};

struct cache_scratch {
    float *query;   /* [ld_key], scaled */
    float *weights; /* [CACHE_BLOCK] */
    float *sum;     /* [ld_value], of a block */
    double *sums;   /* [ld_value], of all */
    float *room;    /* one row of the call that is not f32 */
};

static int64_t cache_padded(int64_t dim)
{
    return (dim + CACHE_ROW - 1) / CACHE_ROW * CACHE_ROW;
}

static struct cache_scratch cache_scratch_at(const struct cache_kernel *c, void *base,
                                             size_t *bytes)
{
    struct fb_scratch_cursor cursor = {(unsigned char *)base, 0};
    struct cache_scratch s;
    s.query = fb_scratch_take_f32(&cursor, c->ld_key);
    s.weights = fb_scratch_take_f32(&cursor, CACHE_BLOCK);
    s.sum = fb_scratch_take_f32(&cursor, c->ld_value);
    s.sums = fb_scratch_take_f64(&cursor, c->ld_value);
    s.room = fb_scratch_take_f32(
        &cursor, fb_row_room(c->problem->dtype, 1, window_larger(c->ld_key, c->ld_value)));
    *bytes = cursor.used_bytes;
    return s;
}

static struct cache_kernel cache_plan(const struct fb_problem *p, const struct fb_call *call,
                                      int64_t capacity)
{
    struct cache_kernel c = {.problem = p, .call = call, .capacity = capacity};
    c.ld_key = cache_padded(p->qk_dim);
    c.ld_value = cache_padded(p->v_dim);
    c.element_bytes = fb_dtype_bytes(p->dtype);
    c.unit_bytes = (size_t)(capacity * (c.ld_key + c.ld_value)) * c.element_bytes;
    c.tokens = call == NULL ? NULL : (int64_t *)call->decode_state;
    (void)cache_scratch_at(&c, NULL, &c.thread_bytes);
    return c;
}

static void cache_sizes(const struct fb_problem *p, int64_t capacity, int threads,
                        struct fb_sizes *sizes)
{
    const struct cache_kernel c = cache_plan(p, NULL, capacity);
    const int64_t units = p->batch * p->kv_heads;
    sizes->decode_state_bytes = FB_ALIGNMENT + (size_t)units * c.unit_bytes;
    sizes->decode_scratch_bytes = c.thread_bytes * (size_t)window_smaller(threads, units);
}

/* The row of a slot. */
static unsigned char *cache_key(const struct cache_kernel *c, int64_t unit, int64_t slot)
{
    unsigned char *units = (unsigned char *)c->call->decode_state + FB_ALIGNMENT;
    return units + (size_t)unit * c->unit_bytes + (size_t)(slot * c->ld_key) * c->element_bytes;
}

static unsigned char *cache_value(const struct cache_kernel *c, int64_t unit, int64_t slot)
{
    return cache_key(c, unit, c->capacity) + (size_t)(slot * c->ld_value) * c->element_bytes;
}

static void cache_copy_row(const struct cache_kernel *c, unsigned char *to, int64_t ld,
                           const void *from, int64_t dim)
{
    memcpy(to, from, (size_t)dim * c->element_bytes);
    memset(to + (size_t)dim * c->element_bytes, 0, (size_t)(ld - dim) * c->element_bytes);
}

/* Stores row `row` of the call's k and v as token t. */
static void cache_store(const struct cache_kernel *c, int64_t unit, int64_t row, int64_t t)
{
    const struct fb_problem *p = c->problem;
    const int64_t b = unit / p->kv_heads;
    const int64_t h = unit % p->kv_heads;
    const int64_t slot = t % c->capacity;
    cache_copy_row(c, cache_key(c, unit, slot), c->ld_key, fb_tensor_row(&c->call->k, b, h, row),
                   p->qk_dim);
    cache_copy_row(c, cache_value(c, unit, slot), c->ld_value,
                   fb_tensor_row(&c->call->v, b, h, row), p->v_dim);
}

/* The largest of count scores and of what is given. */
static float cache_top(const float *scores, int64_t count, float top)
{
    fb_vf tops = fb_vf_set1(top);
    int64_t j = 0;
    for (; j + FB_VW <= count; j += FB_VW) {
        tops = fb_vf_max(tops, fb_vf_load(scores + j));
    }
    top = fb_vf_hmax(tops);
    for (; j < count; j++) {
        top = scores[j] > top ? scores[j] : top;
    }
    return top;
}

/* Adds the slots first .. first + rows - 1 to the sums: scores, the new maximum, weights against
 * it. */
static void cache_add_block(const struct cache_kernel *c, const struct cache_scratch *s,
                            int64_t unit, int64_t first, int64_t rows, float *maximum,
                            double *total)
{
    const enum fb_dtype dtype = c->problem->dtype;
    const void *values = cache_value(c, unit, first);
    const void *after = cache_key(c, unit, first + rows);
    cache_dot(dtype, cache_key(c, unit, first), c->ld_key, rows, s->query, s->weights, values);
    const float top = cache_top(s->weights, rows, *maximum);
    fb_vf sum = fb_vf_zero();
    for (int64_t j = 0; j < rows; j += FB_VW) {
        const int64_t lanes = window_smaller(FB_VW, rows - j);
        const fb_vf score = fb_vf_load_part(s->weights + j, lanes);
        const fb_vf weight = fb_vf_keep(fb_vf_exp_fast(fb_vf_sub(score, fb_vf_set1(top))), lanes);
        fb_vf_store_part(s->weights + j, weight, lanes);
        sum = fb_vf_add(sum, weight);
    }
    const float shrink = expf(*maximum - top);
    cache_add(dtype, values, c->ld_value, rows, s->weights, s->sum, after);
    for (int64_t m = 0; m < c->ld_value; m++) {
        s->sums[m] = s->sums[m] * (double)shrink + (double)s->sum[m];
    }
    *total = *total * (double)shrink + (double)fb_vf_sum(sum);
    *maximum = top;
}

static void cache_attend(const struct cache_kernel *c, const struct cache_scratch *s, int64_t unit,
                         int64_t h, int64_t tokens)
{
    const struct fb_problem *p = c->problem;
    const int64_t b = unit / p->kv_heads;
    const float scale = window_scale(p);
    float maximum = WINDOW_UNSEEN;
    double total = 0.0;
    fb_rows_zero(s->query, c->ld_key);
    const struct fb_row_range row = {b, h, 0, 1, 1};
    fb_rows_scale(fb_rows_load(&c->call->q, row, s->room).rows, 0, 1, p->qk_dim, &scale, s->query,
                  0);
    for (int64_t m = 0; m < c->ld_value; m++) {
        s->sums[m] = 0.0;
    }
    for (int64_t j = 0; j < tokens; j += CACHE_BLOCK) {
        cache_add_block(c, s, unit, j, window_smaller(CACHE_BLOCK, tokens - j), &maximum, &total);
    }
    const struct fb_row_block out = fb_rows_open(&c->call->out, row, s->room);
    for (int64_t m = 0; m < c->ld_value; m++) {
        s->sum[m] = (float)s->sums[m];
    }
    const fb_vf share = fb_vf_set1((float)(1.0 / total));
    for (int64_t m = 0; m < p->v_dim; m += FB_VW) {
        const fb_vf value = fb_vf_mul(share, fb_vf_load(s->sum + m));
        fb_vf_store_part(out.rows + m, value, window_smaller(FB_VW, p->v_dim - m));
    }
    fb_rows_close(&c->call->out, row, out);
}

static void cache_run_unit(void *context, int64_t unit, int thread)
{
    const struct cache_kernel *c = (const struct cache_kernel *)context;
    const int64_t group = fb_baseline_group(c->problem);
    const int64_t first = unit % c->problem->kv_heads * group;
    size_t bytes;
    const struct cache_scratch s = cache_scratch_at(
        c, (unsigned char *)c->call->scratch + (size_t)thread * c->thread_bytes, &bytes);
    cache_store(c, unit, 0, *c->tokens);
    for (int64_t h = first; h < first + group; h++) {
        cache_attend(c, &s, unit, h, window_smaller(*c->tokens + 1, c->capacity));
    }
}

/* One token. keep_all: refuses the token that would overwrite one which is still seen. */
static enum fb_status cache_decode(const struct fb_problem *problem, const struct fb_call *call,
                                   int64_t capacity, bool keep_all, struct fb_error *error)
{
    struct cache_kernel c = cache_plan(problem, call, capacity);
    assert(c.tokens != NULL);
    if (keep_all && *c.tokens >= capacity) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "the decoding state is full: it holds %lld tokens, and kv_len is %lld; "
                            "make kv_len the most tokens that shall be decoded",
                            (long long)*c.tokens, (long long)problem->kv_len);
    }
    fb_parallel_for(call->threads, problem->batch * problem->kv_heads, cache_run_unit, &c);
    *c.tokens += 1;
    return FB_OK;
}

static void cache_fill_unit(void *context, int64_t unit, int thread)
{
    (void)thread;
    const struct cache_kernel *c = (const struct cache_kernel *)context;
    const int64_t tokens = c->call->k.shape[2];
    for (int64_t t = window_larger(0, tokens - c->capacity); t < tokens; t++) {
        cache_store(c, unit, t, t);
    }
}

/* The state after all the tokens of k and v; no outputs are formed. */
static void cache_prefill(const struct fb_problem *problem, const struct fb_call *call,
                          int64_t capacity)
{
    struct cache_kernel c = cache_plan(problem, call, capacity);
    fb_parallel_for(call->threads, problem->batch * problem->kv_heads, cache_fill_unit, &c);
    *c.tokens = call->k.shape[2];
}

#endif
