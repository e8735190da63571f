/*
 * Attention that is linear in the features of its queries and keys, the kernel of linear attention
 * and Performer:
 *
 *   out_i = phi(q_i) G / (phi(q_i) . z + eps),   G = sum_j phi(k_j) v_j^T,   z = sum_j phi(k_j)
 *
 * over all j, or over j <= i when causal. Included by the CPU source of each mechanism, once per
 * instruction set; a linear_map says what phi is.
 *
 * Sums: f32 within a block of tokens, f64 across blocks. The sources are cut into slices whose
 * length depends on the problem only; a slice is summed from zero and slices are added in order.
 * So the same bits come out whether one thread walks a head (many heads) or several share it:
 *   whole heads   one task per head, no barrier
 *   slices        sums of every slice; then their totals (causal: exclusive prefixes); then the
 *                 outputs of every slice. Causal forms the sums twice, for the sake of the threads.
 *
 * Causal goes by chunks of 64 tokens: out = tril(phi(q) phi(k)^T) V + phi(q) G, then G grows.
 */
#ifndef FB_LINEAR_CORE_H
#define FB_LINEAR_CORE_H

#include "baseline_support.h"
#include "parallel.h"
#include "tile_gemm.h"
#include "transpose.h"
#include "vector_math.h"

#include <float.h>

enum {
    LINEAR_CHUNK = 32,       /* tokens of a causal chunk */
    LINEAR_GROUP = 16,       /* sinks whose scores are formed together within a chunk */
    LINEAR_F32_TOKENS = 512, /* tokens that are summed in f32 before the sum goes to f64 */
    LINEAR_OUT_BLOCKS = 4    /* blocks of sinks of one task */
};

/* What phi is. Feature rows are ld floats apart, ld = count rounded up to whole vectors; the
 * columns beyond count are written as 0. At most one block of rows a call.
 *
 * Keys may subtract a peak, the maximum of their scores over all sources: phi(k) = e(k, peak) +
 * epsilon, with e(k, b) = e(k, a) exp(a - b). Then score_keys fills phi with the scores and returns
 * their maximum, and keys turns these scores into features. Else score_keys is NULL. */
struct linear_map {
    int64_t count;     /* features */
    float epsilon;     /* added to the denominator */
    float key_epsilon; /* added to the features of keys */
    const void *own;   /* handed to the functions */
    void (*queries)(const void *own, const float *x, int64_t stride, int64_t rows, float *phi,
                    int64_t ld);
    float (*score_keys)(const void *own, const float *x, int64_t stride, int64_t rows, float *phi,
                        int64_t ld);
    void (*keys)(const void *own, const float *x, int64_t stride, int64_t rows, float peak,
                 float epsilon, float *phi, int64_t ld);
};

/* The sums G [count][ld_value], then z [ld_features], are one array of state_count numbers.
 * With a running peak they leave key_epsilon out, and the sum of v [ld_value] comes third. */
struct linear_kernel {
    const struct fb_problem *problem;
    const struct fb_call *call;
    const struct linear_map *map;
    int64_t heads;
    int64_t ld_features, ld_value;
    int64_t scaled_count; /* of G and z, which a change of peak rescales */
    int64_t state_count;
    bool running_peak;
    int64_t block_tokens;
    int64_t slice_tokens, slices;
    bool whole_heads;
    size_t thread_bytes;
    unsigned char *thread_base;
    double *slots; /* [heads][slices][state_count], when slices are shared out */
    float *states; /* [heads][state_count], likewise, not causal */
    float *peaks;  /* [heads][slices], likewise: the peaks of the slices */
};

/* Scratch of one thread. */
struct linear_scratch {
    float *keys;       /* features of keys, a block; then the scores [chunk][chunk] of a chunk */
    float *product;    /* the part of the sums that is still in f32 */
    float *state;      /* the sums so far, rounded for the products */
    double *slice;     /* the sums of the slice at hand */
    double *before;    /* the sums of the slices before it; same as slice when there is only one */
    float *queries;    /* causal: features of queries, a chunk */
    float *transposed; /* causal: features of keys, [count][chunk] */
    float *base;       /* causal: the sums so far without product, rounded */
};

static int64_t linear_smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t linear_larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static struct linear_scratch linear_scratch_at(const struct linear_kernel *w, unsigned char *base,
                                               size_t *bytes)
{
    const bool causal = w->problem->causal;
    struct fb_scratch_cursor cursor = {base, 0};
    struct linear_scratch s = {0};
    s.keys = fb_scratch_take_f32(
        &cursor, w->block_tokens * linear_larger(w->ld_features, causal ? LINEAR_CHUNK : 0));
    s.product = fb_scratch_take_f32(&cursor, w->state_count);
    if (causal) {
        s.queries = fb_scratch_take_f32(&cursor, LINEAR_CHUNK * w->ld_features);
        s.transposed = fb_scratch_take_f32(&cursor, w->map->count * LINEAR_CHUNK);
        s.base = fb_scratch_take_f32(&cursor, w->state_count);
    }
    if (w->whole_heads || causal) {
        s.state = fb_scratch_take_f32(&cursor, w->state_count);
        s.slice = fb_scratch_take_f64(&cursor, w->state_count);
        s.before = s.slice;
        if (w->whole_heads && w->slices > 1) {
            s.before = fb_scratch_take_f64(&cursor, w->state_count);
        }
    }
    *bytes = cursor.used_bytes;
    return s;
}

/* Tokens summed in a slice: few enough to share out, many enough that the f64 sums of all slices
 * stay below one percent of the inputs and outputs. */
static int64_t linear_slice_tokens(const struct fb_problem *p)
{
    return linear_larger(2048, fb_vf_round_up(p->v_dim) * 64);
}

/* Splits the call into tasks and lays out scratch; returns the bytes needed. With scratch NULL it
 * only counts. */
static size_t linear_plan(struct linear_kernel *w, const struct fb_problem *p,
                          const struct linear_map *map, int threads, void *scratch)
{
    w->problem = p;
    w->map = map;
    w->heads = p->batch * p->heads;
    w->ld_features = fb_vf_round_up(map->count);
    w->ld_value = fb_vf_round_up(p->v_dim);
    /* One pass over the keys can correct its sums when the peak rises; causal outputs cannot wait
     * for the last key, so there the peak takes a pass of its own. */
    w->running_peak = map->score_keys != NULL && !p->causal;
    w->scaled_count = map->count * w->ld_value + w->ld_features;
    w->state_count = w->scaled_count + (w->running_peak ? w->ld_value : 0);
    /* A block of features should stay in the first two cache levels. */
    const bool medium = map->count >= 64 && map->count <= 128;
    w->block_tokens = p->causal ? LINEAR_CHUNK : medium ? 128 : 64;
    w->slice_tokens = linear_slice_tokens(p);
    w->slices = (p->kv_len + w->slice_tokens - 1) / w->slice_tokens;
    w->whole_heads = w->slices == 1 || w->heads % threads == 0 || w->heads >= 4 * (int64_t)threads;

    struct fb_scratch_cursor cursor = {(unsigned char *)scratch, 0};
    if (!w->whole_heads) {
        w->slots = fb_scratch_take_f64(&cursor, w->heads * w->slices * w->state_count);
        w->peaks = fb_scratch_take_f32(&cursor, w->heads * w->slices);
        if (!p->causal) {
            w->states = fb_scratch_take_f32(&cursor, w->heads * w->state_count);
        }
    }
    (void)linear_scratch_at(w, NULL, &w->thread_bytes);
    const int64_t sink_blocks = (p->q_len + w->block_tokens - 1) / w->block_tokens;
    const int64_t tasks = w->heads * (w->whole_heads ? 1 : linear_larger(w->slices, sink_blocks));
    w->thread_base =
        (unsigned char *)fb_scratch_take(&cursor, linear_smaller(threads, tasks), w->thread_bytes);
    return cursor.used_bytes;
}

/* ---- sums of keys and values ----------------------------------------------------------------- */

static void linear_clear(double *sums, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        sums[i] = 0.0;
    }
}

static void linear_add_f32(double *FB_RESTRICT sums, const float *FB_RESTRICT part, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        sums[i] += (double)part[i];
    }
}

static void linear_add_f64(double *FB_RESTRICT sums, const double *FB_RESTRICT part, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        sums[i] += part[i];
    }
}

static void linear_sum_f32(float *FB_RESTRICT state, const float *FB_RESTRICT a,
                           const float *FB_RESTRICT b, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        state[i] = a[i] + b[i];
    }
}

/* Sums that were taken against the peak `from` become sums against `to`. */
static void linear_move_peak(const struct linear_kernel *w, double *sums, float from, float to)
{
    if (from != to) {
        const double factor = exp((double)from - (double)to);
        for (int64_t i = 0; i < w->scaled_count; i++) {
            sums[i] *= factor;
        }
    }
}

/* sums += part, each against its own peak; part is spoilt. */
static void linear_merge(const struct linear_kernel *w, double *sums, float *peak, double *part,
                         float part_peak)
{
    if (w->running_peak) {
        const float larger = part_peak > *peak ? part_peak : *peak;
        linear_move_peak(w, sums, *peak, larger);
        linear_move_peak(w, part, part_peak, larger);
        *peak = larger;
    }
    linear_add_f64(sums, part, w->state_count);
}

static void linear_round(float *FB_RESTRICT state, const double *FB_RESTRICT sums, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        state[i] = (float)sums[i];
    }
}

static void linear_round_sum(float *FB_RESTRICT state, const double *FB_RESTRICT a,
                             const double *FB_RESTRICT b, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        state[i] = (float)(a[i] + b[i]);
    }
}

/* product (+)= phi^T V and the column sums of phi, over the rows of one block. */
static void linear_absorb(const struct linear_kernel *w, const float *phi, const float *v,
                          int64_t v_stride, int64_t rows, float *product, bool accumulate)
{
    const int64_t ld = w->ld_features;
    if (!accumulate && w->ld_value != w->problem->v_dim) {
        for (int64_t i = 0; i < w->state_count; i++) {
            product[i] = 0.0F;
        }
    }
    FB_ISA_SYMBOL(fb_tile_gemm)
    (w->map->count, w->problem->v_dim, rows, phi, 1, ld, v, v_stride, product, w->ld_value,
     accumulate);
    float *columns = product + w->map->count * w->ld_value;
    for (int64_t c = 0; c < ld; c += FB_VW) {
        fb_vf sum = fb_vf_zero();
        for (int64_t i = 0; i < rows; i++) {
            sum = fb_vf_add(sum, fb_vf_load(phi + i * ld + c));
        }
        fb_vf_store(columns + c, accumulate ? fb_vf_add(fb_vf_load(columns + c), sum) : sum);
    }
    columns += ld;
    for (int64_t c = 0; w->running_peak && c < w->ld_value; c += FB_VW) {
        const int64_t lanes = linear_smaller(FB_VW, w->problem->v_dim - c);
        fb_vf sum = fb_vf_zero();
        for (int64_t i = 0; i < rows; i++) {
            sum = fb_vf_add(sum, fb_vf_load_part(v + i * v_stride + c, lanes));
        }
        fb_vf_store(columns + c, accumulate ? fb_vf_add(fb_vf_load(columns + c), sum) : sum);
    }
}

/* The totals, rounded: G + key_epsilon 1 (sum of v)^T and z + key_epsilon S. */
static void linear_finish(const struct linear_kernel *w, const double *sums, float *state)
{
    linear_round(state, sums, w->state_count);
    if (w->running_peak) {
        const double epsilon = (double)w->map->key_epsilon;
        const double *v = sums + w->scaled_count;
        const int64_t ld = w->ld_value;
        for (int64_t f = 0; f < w->map->count; f++) {
            for (int64_t c = 0; c < ld; c++) {
                state[f * ld + c] = (float)(sums[f * ld + c] + epsilon * v[c]);
            }
            state[w->map->count * ld + f] =
                (float)(sums[w->map->count * ld + f] + epsilon * (double)w->problem->kv_len);
        }
    }
}

/* Features of a block of keys; the scores come first where there are any. */
static void linear_keys(const struct linear_kernel *w, const float *k, int64_t stride, int64_t rows,
                        float peak, float *phi)
{
    const struct linear_map *map = w->map;
    if (map->score_keys != NULL) {
        (void)map->score_keys(map->own, k, stride, rows, phi, w->ld_features);
    }
    map->keys(map->own, k, stride, rows, peak, map->key_epsilon, phi, w->ld_features);
}

/* The sums of the sources first <= j < end, from zero, against the peak given. */
static void linear_sum_slice(const struct linear_kernel *w, const struct linear_scratch *s,
                             int64_t head, int64_t first, int64_t end, float peak, double *sums)
{
    const struct fb_call *call = w->call;
    const int64_t b = head / w->problem->heads;
    const int64_t h = head % w->problem->heads;
    int64_t pending = 0;
    linear_clear(sums, w->state_count);
    for (int64_t j = first; j < end; j += w->block_tokens) {
        const int64_t rows = linear_smaller(w->block_tokens, end - j);
        linear_keys(w, fb_tensor_row_f32(&call->k, b, h, j), call->k.stride[2], rows, peak,
                    s->keys);
        linear_absorb(w, s->keys, fb_tensor_row_f32(&call->v, b, h, j), call->v.stride[2], rows,
                      s->product, pending > 0);
        pending += rows;
        if (pending >= LINEAR_F32_TOKENS || j + rows == end) {
            linear_add_f32(sums, s->product, w->state_count);
            pending = 0;
        }
    }
}

/* The same against the largest score met so far, without key_epsilon; returns the last peak. */
static float linear_sum_slice_running(const struct linear_kernel *w, const struct linear_scratch *s,
                                      int64_t head, int64_t first, int64_t end, double *sums)
{
    const struct fb_call *call = w->call;
    const struct linear_map *map = w->map;
    const int64_t b = head / w->problem->heads;
    const int64_t h = head % w->problem->heads;
    const int64_t stride = call->k.stride[2];
    float peak = -FLT_MAX;
    int64_t pending = 0;
    linear_clear(sums, w->state_count);
    for (int64_t j = first; j < end; j += w->block_tokens) {
        const int64_t rows = linear_smaller(w->block_tokens, end - j);
        const float *k = fb_tensor_row_f32(&call->k, b, h, j);
        const float found = map->score_keys(map->own, k, stride, rows, s->keys, w->ld_features);
        if (found > peak) {
            if (pending > 0) {
                linear_add_f32(sums, s->product, w->state_count);
                pending = 0;
            }
            linear_move_peak(w, sums, peak, found);
            peak = found;
        }
        map->keys(map->own, k, stride, rows, peak, 0.0F, s->keys, w->ld_features);
        linear_absorb(w, s->keys, fb_tensor_row_f32(&call->v, b, h, j), call->v.stride[2], rows,
                      s->product, pending > 0);
        pending += rows;
        if (pending >= LINEAR_F32_TOKENS || j + rows == end) {
            linear_add_f32(sums, s->product, w->state_count);
            pending = 0;
        }
    }
    return peak;
}

/* The largest score of the sources first <= j < end; any number when keys subtract none. */
static float linear_peak(const struct linear_kernel *w, const struct linear_scratch *s,
                         int64_t head, int64_t first, int64_t end)
{
    const struct fb_tensor *k = &w->call->k;
    const int64_t b = head / w->problem->heads;
    const int64_t h = head % w->problem->heads;
    float peak = -FLT_MAX;
    for (int64_t j = first; w->map->score_keys != NULL && j < end; j += w->block_tokens) {
        const int64_t rows = linear_smaller(w->block_tokens, end - j);
        const float found = w->map->score_keys(w->map->own, fb_tensor_row_f32(k, b, h, j),
                                               k->stride[2], rows, s->keys, w->ld_features);
        peak = found > peak ? found : peak;
    }
    return peak;
}

/* ---- outputs --------------------------------------------------------------------------------- */

FB_ALWAYS_INLINE float linear_dot(const float *a, const float *b, int64_t padded)
{
    fb_vf sum = fb_vf_zero();
    for (int64_t c = 0; c < padded; c += FB_VW) {
        sum = fb_vf_fma(fb_vf_load(a + c), fb_vf_load(b + c), sum);
    }
    return fb_vf_sum(sum);
}

FB_ALWAYS_INLINE void linear_scale_row(float *row, float factor, int64_t count)
{
    const fb_vf f = fb_vf_set1(factor);
    int64_t c = 0;
    for (; c + FB_VW <= count; c += FB_VW) {
        fb_vf_store(row + c, fb_vf_mul(f, fb_vf_load(row + c)));
    }
    if (c < count) {
        const int64_t rest = count - c;
        fb_vf_store_part(row + c, fb_vf_mul(f, fb_vf_load_part(row + c, rest)), rest);
    }
}

/* Outputs of the sinks first <= i < end from finished sums. */
static void linear_write(const struct linear_kernel *w, const struct linear_scratch *s,
                         int64_t head, int64_t first, int64_t end, const float *state)
{
    const struct fb_call *call = w->call;
    const int64_t dim = w->problem->v_dim;
    const int64_t b = head / w->problem->heads;
    const int64_t h = head % w->problem->heads;
    const float *key_sum = state + w->map->count * w->ld_value;
    for (int64_t i = first; i < end; i += w->block_tokens) {
        const int64_t rows = linear_smaller(w->block_tokens, end - i);
        float *out = fb_tensor_row_f32(&call->out, b, h, i);
        w->map->queries(w->map->own, fb_tensor_row_f32(&call->q, b, h, i), call->q.stride[2], rows,
                        s->keys, w->ld_features);
        FB_ISA_SYMBOL(fb_tile_gemm)
        (rows, dim, w->map->count, s->keys, w->ld_features, 1, state, w->ld_value, out,
         call->out.stride[2], false);
        for (int64_t r = 0; r < rows; r++) {
            const float denominator =
                linear_dot(s->keys + r * w->ld_features, key_sum, w->ld_features) + w->map->epsilon;
            linear_scale_row(out + r * call->out.stride[2], 1.0F / denominator, dim);
        }
    }
}

/* ---- causal ---------------------------------------------------------------------------------- */

/* scores [chunk][chunk] = tril(phi(q) phi(k)^T), zero for the five sources after the sink as well,
 * which is as far as fb_tile_gemm_lower reads. */
static void linear_scores(const struct linear_kernel *w, const struct linear_scratch *s,
                          int64_t sinks, int64_t sources)
{
    float *scores = s->keys;
    for (int64_t i = 0; i < sinks; i += LINEAR_GROUP) {
        const int64_t rows = linear_smaller(LINEAR_GROUP, sinks - i);
        const int64_t columns = linear_smaller(i + rows, sources);
        FB_ISA_SYMBOL(fb_tile_gemm)
        (rows, columns, w->map->count, s->queries + i * w->ld_features, w->ld_features, 1,
         s->transposed, LINEAR_CHUNK, scores + i * LINEAR_CHUNK, LINEAR_CHUNK, false);
    }
    for (int64_t i = 0; i < sinks; i++) {
        const int64_t end = linear_smaller(i + 6, LINEAR_CHUNK);
        for (int64_t j = i + 1; j < end; j++) {
            scores[i * LINEAR_CHUNK + j] = 0.0F;
        }
    }
}

/* Outputs of one chunk, given the sums before it. The scores take the place of the keys. */
static void linear_write_chunk(const struct linear_kernel *w, const struct linear_scratch *s,
                               int64_t head, int64_t first, int64_t sinks, int64_t sources,
                               const float *state)
{
    const struct fb_call *call = w->call;
    const int64_t dim = w->problem->v_dim;
    const int64_t b = head / w->problem->heads;
    const int64_t h = head % w->problem->heads;
    const int64_t out_stride = call->out.stride[2];
    float *out = fb_tensor_row_f32(&call->out, b, h, first);
    w->map->queries(w->map->own, fb_tensor_row_f32(&call->q, b, h, first), call->q.stride[2], sinks,
                    s->queries, w->ld_features);
    if (sources > 0) {
        linear_scores(w, s, sinks, sources);
        FB_ISA_SYMBOL(fb_tile_gemm_lower)
        (sinks, dim, sources, s->keys, LINEAR_CHUNK, 1, fb_tensor_row_f32(&call->v, b, h, first),
         call->v.stride[2], out, out_stride, false);
    }
    FB_ISA_SYMBOL(fb_tile_gemm)
    (sinks, dim, w->map->count, s->queries, w->ld_features, 1, state, w->ld_value, out, out_stride,
     sources > 0);
    const float *key_sum = state + w->map->count * w->ld_value;
    for (int64_t i = 0; i < sinks; i++) {
        const float *row = s->keys + i * LINEAR_CHUNK;
        const int64_t seen = linear_smaller(i + 1, sources);
        fb_vf within = fb_vf_zero();
        for (int64_t j = 0; j < seen; j += FB_VW) {
            within = fb_vf_add(within, fb_vf_load_part(row + j, linear_smaller(FB_VW, seen - j)));
        }
        const float denominator =
            linear_dot(s->queries + i * w->ld_features, key_sum, w->ld_features) +
            fb_vf_sum(within) + w->map->epsilon;
        linear_scale_row(out + i * out_stride, 1.0F / denominator, dim);
    }
}

/* Adds the f32 part to the sums of the slice; base becomes their exact total, rounded. */
static void linear_settle(const struct linear_kernel *w, const struct linear_scratch *s,
                          const double *before)
{
    linear_add_f32(s->slice, s->product, w->state_count);
    if (before == s->slice) {
        linear_round(s->base, s->slice, w->state_count);
    } else {
        linear_round_sum(s->base, before, s->slice, w->state_count);
    }
}

/* Walks the tokens first <= t < end of a head. before holds the sums of all earlier slices, or is
 * s->slice when there are none; s->slice ends as the sums of this slice, bit for bit those of
 * linear_sum_slice. */
static void linear_walk_slice(const struct linear_kernel *w, const struct linear_scratch *s,
                              int64_t head, int64_t first, int64_t end, float peak,
                              const double *before)
{
    const struct fb_problem *p = w->problem;
    const struct fb_call *call = w->call;
    const int64_t b = head / p->heads;
    const int64_t h = head % p->heads;
    const int64_t source_end = linear_smaller(end, p->kv_len);
    const int64_t sink_end = linear_smaller(end, p->q_len);
    int64_t pending = 0;
    linear_clear(s->slice, w->state_count);
    linear_round(s->base, before, w->state_count);
    const float *state = s->base;
    for (int64_t t = first; t < sink_end; t += LINEAR_CHUNK) {
        const int64_t sinks = linear_smaller(LINEAR_CHUNK, sink_end - t);
        const int64_t sources = linear_larger(0, linear_smaller(LINEAR_CHUNK, source_end - t));
        if (sources > 0) {
            linear_keys(w, fb_tensor_row_f32(&call->k, b, h, t), call->k.stride[2], sources, peak,
                        s->keys);
            fb_transpose(s->keys, w->ld_features, sources, w->map->count, s->transposed,
                         LINEAR_CHUNK);
            linear_absorb(w, s->keys, fb_tensor_row_f32(&call->v, b, h, t), call->v.stride[2],
                          sources, s->product, pending > 0);
            pending += sources;
        }
        linear_write_chunk(w, s, head, t, sinks, sources, state);
        if (pending >= LINEAR_F32_TOKENS || (sources > 0 && t + sources == source_end)) {
            linear_settle(w, s, before);
            pending = 0;
            state = s->base;
        } else if (sources > 0) {
            linear_sum_f32(s->state, s->base, s->product, w->state_count);
            state = s->state;
        }
    }
}

/* The tokens of a slice: the last one also has the sinks beyond the last source. */
static int64_t linear_walk_end(const struct linear_kernel *w, int64_t slice)
{
    return slice == w->slices - 1 ? linear_larger(w->problem->q_len, w->problem->kv_len)
                                  : (slice + 1) * w->slice_tokens;
}

/* ---- tasks ----------------------------------------------------------------------------------- */

static struct linear_scratch linear_thread_scratch(const struct linear_kernel *w, int thread)
{
    size_t bytes;
    return linear_scratch_at(w, w->thread_base + (size_t)thread * w->thread_bytes, &bytes);
}

static int64_t linear_slice_end(const struct linear_kernel *w, int64_t slice)
{
    return linear_smaller((slice + 1) * w->slice_tokens, w->problem->kv_len);
}

/* The sums of one slice, not causal; returns their peak. */
static float linear_total_slice(const struct linear_kernel *w, const struct linear_scratch *s,
                                int64_t head, int64_t slice, double *sums)
{
    const int64_t first = slice * w->slice_tokens;
    const int64_t end = linear_slice_end(w, slice);
    if (w->running_peak) {
        return linear_sum_slice_running(w, s, head, first, end, sums);
    }
    linear_sum_slice(w, s, head, first, end, 0.0F, sums);
    return 0.0F;
}

static void linear_run_head(void *context, int64_t head, int thread)
{
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    const struct linear_scratch s = linear_thread_scratch(w, thread);
    float peak = linear_total_slice(w, &s, head, 0, s.before);
    for (int64_t slice = 1; slice < w->slices; slice++) {
        const float own = linear_total_slice(w, &s, head, slice, s.slice);
        linear_merge(w, s.before, &peak, s.slice, own);
    }
    linear_finish(w, s.before, s.state);
    linear_write(w, &s, head, 0, w->problem->q_len, s.state);
}

static void linear_run_causal_head(void *context, int64_t head, int thread)
{
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    const struct linear_scratch s = linear_thread_scratch(w, thread);
    const float peak = linear_peak(w, &s, head, 0, w->problem->kv_len);
    linear_clear(s.before, w->state_count);
    for (int64_t slice = 0; slice < w->slices; slice++) {
        const int64_t first = slice * w->slice_tokens;
        if (first >= w->problem->q_len) {
            break;
        }
        linear_walk_slice(w, &s, head, first, linear_walk_end(w, slice), peak, s.before);
        if (w->slices > 1) {
            linear_add_f64(s.before, s.slice, w->state_count);
        }
    }
}

static void linear_run_peak(void *context, int64_t task, int thread)
{
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    const struct linear_scratch s = linear_thread_scratch(w, thread);
    const int64_t slice = task % w->slices;
    w->peaks[task] =
        linear_peak(w, &s, task / w->slices, slice * w->slice_tokens, linear_slice_end(w, slice));
}

static float linear_head_peak(const struct linear_kernel *w, int64_t head)
{
    float peak = -FLT_MAX;
    for (int64_t slice = 0; slice < w->slices; slice++) {
        const float found = w->peaks[head * w->slices + slice];
        peak = found > peak ? found : peak;
    }
    return peak;
}

static void linear_run_sums(void *context, int64_t task, int thread)
{
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    const struct linear_scratch s = linear_thread_scratch(w, thread);
    w->peaks[task] = linear_total_slice(w, &s, task / w->slices, task % w->slices,
                                        w->slots + task * w->state_count);
}

static void linear_run_causal_sums(void *context, int64_t task, int thread)
{
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    const struct linear_scratch s = linear_thread_scratch(w, thread);
    const int64_t head = task / w->slices;
    const int64_t slice = task % w->slices;
    linear_sum_slice(w, &s, head, slice * w->slice_tokens, linear_slice_end(w, slice),
                     linear_head_peak(w, head), w->slots + task * w->state_count);
}

/* Gathers the slots of a head in its first one. */
static void linear_run_totals(void *context, int64_t head, int thread)
{
    (void)thread;
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    double *slots = w->slots + head * w->slices * w->state_count;
    const float *peaks = w->peaks + head * w->slices;
    float peak = peaks[0];
    for (int64_t slice = 1; slice < w->slices; slice++) {
        linear_merge(w, slots, &peak, slots + slice * w->state_count, peaks[slice]);
    }
    linear_finish(w, slots, w->states + head * w->state_count);
}

/* Every slot of a head becomes the sum of those before it. */
static void linear_run_prefixes(void *context, int64_t head, int thread)
{
    (void)thread;
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    double *slots = w->slots + head * w->slices * w->state_count;
    for (int64_t i = 0; i < w->state_count; i++) {
        double before = 0.0;
        for (int64_t slice = 0; slice < w->slices; slice++) {
            const double own = slots[slice * w->state_count + i];
            slots[slice * w->state_count + i] = before;
            before += own;
        }
    }
}

static int64_t linear_write_tasks(const struct linear_kernel *w)
{
    const int64_t tokens = w->block_tokens * LINEAR_OUT_BLOCKS;
    return (w->problem->q_len + tokens - 1) / tokens;
}

static void linear_run_write(void *context, int64_t task, int thread)
{
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    const struct linear_scratch s = linear_thread_scratch(w, thread);
    const int64_t tokens = w->block_tokens * LINEAR_OUT_BLOCKS;
    const int64_t head = task / linear_write_tasks(w);
    const int64_t first = task % linear_write_tasks(w) * tokens;
    linear_write(w, &s, head, first, linear_smaller(first + tokens, w->problem->q_len),
                 w->states + head * w->state_count);
}

static void linear_run_walk(void *context, int64_t task, int thread)
{
    const struct linear_kernel *w = (const struct linear_kernel *)context;
    const struct linear_scratch s = linear_thread_scratch(w, thread);
    const int64_t head = task / w->slices;
    const int64_t slice = task % w->slices;
    const int64_t first = slice * w->slice_tokens;
    if (first < w->problem->q_len) {
        linear_walk_slice(w, &s, head, first, linear_walk_end(w, slice), linear_head_peak(w, head),
                          w->slots + task * w->state_count);
    }
}

/* Runs a planned call. */
static void linear_forward(struct linear_kernel *w, const struct fb_call *call)
{
    const int threads = call->threads;
    const int64_t shares = w->heads * w->slices;
    const bool causal = w->problem->causal;
    w->call = call;
    if (w->whole_heads) {
        fb_parallel_for(threads, w->heads, causal ? linear_run_causal_head : linear_run_head, w);
    } else if (causal) {
        fb_parallel_for(threads, shares, linear_run_peak, w);
        fb_parallel_for(threads, shares, linear_run_causal_sums, w);
        fb_parallel_for(threads, w->heads, linear_run_prefixes, w);
        fb_parallel_for(threads, shares, linear_run_walk, w);
    } else {
        fb_parallel_for(threads, shares, linear_run_sums, w);
        fb_parallel_for(threads, w->heads, linear_run_totals, w);
        fb_parallel_for(threads, w->heads * linear_write_tasks(w), linear_run_write, w);
    }
}

#endif
