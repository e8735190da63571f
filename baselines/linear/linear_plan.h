/*
 * How one call of the linear kernel is cut into tasks and what memory these take; see linear_core.h
 * for the method.
 */
#ifndef FB_LINEAR_PLAN_H
#define FB_LINEAR_PLAN_H

#include "baseline_support.h"
#include "row_block.h"
#include "rows.h"
#include "tile_gemm.h"
#include "vector_math.h"

#include <float.h>

enum {
    LINEAR_CHUNK = 32,       /* tokens of a causal chunk */
    LINEAR_GROUP = 16,       /* sinks whose scores are formed together within a chunk */
    LINEAR_F32_TOKENS = 512, /* tokens that are summed in f32 before the sum goes to f64 */
    LINEAR_OUT_BLOCKS = 4,   /* blocks of sinks of one task */
    LINEAR_BLOCK_MAX = 128   /* tokens of a block */
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
    /* The largest exponent, peak 0, of one key whose scores are given; NULL like score_keys. */
    float (*exponent)(const void *own, const float *x, const float *scores, int64_t ld);
    /* dx = the gradient with respect to x, given phi(x) of queries or keys and the gradient with
     * respect to it, which is spoilt. */
    void (*pull)(const void *own, const float *x, int64_t stride, int64_t rows, const float *phi,
                 float *dphi, int64_t ld, float *dx, int64_t dx_stride);
    /* Changes the gradient with respect to queries' features before it is pulled; or NULL. */
    void (*settle)(const void *own, int64_t rows, const float *phi, float *dphi, int64_t ld);
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
    float *keys;       /* features of keys, a block */
    float *product;    /* the part of the sums that is still in f32 */
    float *state;      /* the sums so far, rounded for the products */
    double *slice;     /* the sums of the slice at hand */
    double *before;    /* the sums of the slices before it; same as slice when there is only one */
    float *queries;    /* causal: features of queries, a chunk */
    float *transposed; /* causal: features of keys, [count][chunk] */
    float *scores;     /* causal: [chunk][chunk] */
    /* rooms for a block of rows that are not f32; queries share theirs with keys */
    float *k_room, *v_room, *out_room;
};

/* A head of queries: its indices, and its sinks and sources without padding. */
struct linear_place {
    int64_t b, h, kv_head;
    int64_t sinks, sources;
};

static struct linear_place linear_place_of(const struct linear_kernel *w, int64_t head)
{
    const struct fb_problem *p = w->problem;
    struct linear_place at = {.b = head / p->heads, .h = head % p->heads};
    at.kv_head = at.h / fb_baseline_group(p);
    at.sources = fb_problem_keys(p, at.b);
    at.sinks = at.sources == 0 ? 0 : fb_problem_queries(p, at.b);
    return at;
}

/* What a training forward saves: 1 / denominator per sink [B,H,L], then the peak per head [B,H]. */
static size_t linear_saved_bytes(const struct fb_problem *p)
{
    return (size_t)(p->batch * p->heads * (p->q_len + 1)) * sizeof(float);
}

static float *linear_saved_reciprocals(const struct fb_problem *p, void *saved, int64_t head)
{
    return (float *)saved + head * p->q_len;
}

static float *linear_saved_peak(const struct fb_problem *p, void *saved, int64_t head)
{
    return (float *)saved + p->batch * p->heads * p->q_len + head;
}

/* The rows first .. first + count - 1 of queries and outputs, of keys and values. */
static struct fb_row_range linear_sink_rows(const struct linear_place *at, int64_t first,
                                            int64_t count)
{
    return (struct fb_row_range){at->b, at->h, first, 1, count};
}

static struct fb_row_range linear_source_rows(const struct linear_place *at, int64_t first,
                                              int64_t count)
{
    return (struct fb_row_range){at->b, at->kv_head, first, 1, count};
}

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
    struct fb_scratch_cursor cursor = fb_scratch_at(base);
    struct linear_scratch s = {0};
    s.keys = fb_scratch_take_f32(&cursor, w->block_tokens * w->ld_features);
    s.product = fb_scratch_take_f32(&cursor, w->state_count);
    const enum fb_dtype dtype = w->problem->dtype;
    s.k_room =
        fb_scratch_take_f32(&cursor, fb_row_room(dtype, w->block_tokens, w->problem->qk_dim));
    s.v_room = fb_scratch_take_f32(&cursor, fb_row_room(dtype, w->block_tokens, w->problem->v_dim));
    s.out_room =
        fb_scratch_take_f32(&cursor, fb_row_room(dtype, w->block_tokens, w->problem->v_dim));
    if (causal) {
        s.queries = fb_scratch_take_f32(&cursor, LINEAR_CHUNK * w->ld_features);
        s.transposed = fb_scratch_take_f32(&cursor, w->map->count * LINEAR_CHUNK);
        s.scores = fb_scratch_take_f32(&cursor, (int64_t)LINEAR_CHUNK * LINEAR_CHUNK);
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
    w->block_tokens = p->causal ? LINEAR_CHUNK : medium ? LINEAR_BLOCK_MAX : 64;
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

#endif
