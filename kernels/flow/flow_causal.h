/*
 * Inside fused Flow-Attention, causal form, on the CPU: what its sources share. One set of
 * symbols per instruction set. The algorithm is told in flow_cpu_causal.c.
 */
#ifndef FB_FLOW_CAUSAL_H
#define FB_FLOW_CAUSAL_H

#include "flow_options.h"
#include "kernel_support.h"
#include "row_block.h"
#include "row_fetch.h"
#include "rows.h"

#define fb_flow_causal_shape_of       FB_ISA_SYMBOL(fb_flow_causal_shape_of)
#define fb_flow_causal_state_size     FB_ISA_SYMBOL(fb_flow_causal_state_size)
#define fb_flow_causal_carve_state    FB_ISA_SYMBOL(fb_flow_causal_carve_state)
#define fb_flow_causal_carve          FB_ISA_SYMBOL(fb_flow_causal_carve)
#define fb_flow_causal_take_chunk     FB_ISA_SYMBOL(fb_flow_causal_take_chunk)
#define fb_flow_causal_take_thread    FB_ISA_SYMBOL(fb_flow_causal_take_thread)
#define fb_flow_causal_take_state     FB_ISA_SYMBOL(fb_flow_causal_take_state)
#define fb_flow_causal_take_vectors   FB_ISA_SYMBOL(fb_flow_causal_take_vectors)
#define fb_flow_causal_fill_ones      FB_ISA_SYMBOL(fb_flow_causal_fill_ones)
#define fb_flow_causal_clear_vectors  FB_ISA_SYMBOL(fb_flow_causal_clear_vectors)
#define fb_flow_causal_reset          FB_ISA_SYMBOL(fb_flow_causal_reset)
#define fb_flow_causal_store          FB_ISA_SYMBOL(fb_flow_causal_store)
#define fb_flow_causal_load           FB_ISA_SYMBOL(fb_flow_causal_load)
#define fb_flow_causal_visit          FB_ISA_SYMBOL(fb_flow_causal_visit)
#define fb_flow_causal_begin          FB_ISA_SYMBOL(fb_flow_causal_begin)
#define fb_flow_causal_flows          FB_ISA_SYMBOL(fb_flow_causal_flows)
#define fb_flow_causal_conserve       FB_ISA_SYMBOL(fb_flow_causal_conserve)
#define fb_flow_causal_share          FB_ISA_SYMBOL(fb_flow_causal_share)
#define fb_flow_causal_compete_online FB_ISA_SYMBOL(fb_flow_causal_compete_online)
#define fb_flow_causal_carry          FB_ISA_SYMBOL(fb_flow_causal_carry)
#define fb_flow_causal_weigh          FB_ISA_SYMBOL(fb_flow_causal_weigh)
#define fb_flow_causal_emit_before    FB_ISA_SYMBOL(fb_flow_causal_emit_before)
#define fb_flow_causal_emit_within    FB_ISA_SYMBOL(fb_flow_causal_emit_within)
#define fb_flow_sum_rows              FB_ISA_SYMBOL(fb_flow_sum_rows)
#define fb_flow_gradient_bytes        FB_ISA_SYMBOL(fb_flow_gradient_bytes)

enum {
    FLOW_CHUNK = 64,
    FLOW_SEGMENT = 16, /* chunks between two states saved for the backward pass */
};

struct flow_causal_shape {
    const struct fb_problem *problem;
    const struct fb_call *call;
    struct fb_flow_options options;
    int64_t dim, value_dim, cols, value_cols;
    size_t worker_bytes;
};

/* A vector carried over the chunks: its value, its rounding error, and value + eps as operand. */
struct flow_carried {
    float *value, *error, *operand; /* [cols] */
};

/* The buffers of a chunk at work. */
struct flow_causal_scratch {
    /* What belongs to the chunk. */
    float *q, *k;    /* [FLOW_CHUNK][cols] phi */
    float *scores;   /* [FLOW_CHUNK][FLOW_CHUNK] A */
    float *weighted; /* [FLOW_CHUNK][value_cols] p v */
    float *part;     /* [dim][value_cols] or [cols]: what a chunk adds */
    /* What belongs to the thread: free again after each step. */
    float *turned; /* [dim][FLOW_CHUNK] phi(k)^T for A, or r phi(q) */
    float *lower;  /* [FLOW_CHUNK][FLOW_CHUNK] r tril(A), or another masked matrix */
    float *ones;   /* [cols] ones up to dim */
    /* Rooms for tensors of 16 bits: q or k, v, and a result. */
    float *raw, *values, *result; /* [FLOW_CHUNK][cols], [value_cols] and the wider of the two */
    /* The state before the chunk. */
    float *product;       /* [dim][value_cols] M */
    float *product_error; /* its rounding error */
    struct flow_carried keys, queries, u, w;
    struct fb_tile_extra *fetch; /* what the chunk's products fetch; NULL: nothing */
};

/* Scalars per token of a chunk. */
struct flow_chunk {
    int64_t rows;
    float n[FLOW_CHUNK];                       /* 1-based position */
    float a[FLOW_CHUNK], b[FLOW_CHUNK];        /* incoming, outgoing */
    float alpha[FLOW_CHUNK], beta[FLOW_CHUNK]; /* n / a, n / b */
    float c[FLOW_CHUNK], o[FLOW_CHUNK];        /* conserved, divided by n, before the clamp */
    float p[FLOW_CHUNK];                       /* competition */
    float s[FLOW_CHUNK];                       /* allocation */
    float r[FLOW_CHUNK];                       /* s / a */
    float key_sum[FLOW_CHUNK], query_sum[FLOW_CHUNK]; /* sum of the components of phi */
    float dots[FLOW_CHUNK];
};

/* The running normaliser of the competition: sum of exp(o - peak). */
struct flow_normaliser {
    double sum;
    float peak;
};

void fb_flow_causal_shape_of(const struct fb_problem *problem, const struct fb_call *call,
                             struct flow_causal_shape *shape);
/* Bytes of all buffers, for a thread that walks a head; with base, they are laid out there. */
size_t fb_flow_causal_carve(const struct flow_causal_shape *shape, void *base,
                            struct flow_causal_scratch *scratch);
/* Parts of that: the chunk's, the thread's, the state's, and of the state the vectors alone. */
void fb_flow_causal_take_chunk(const struct flow_causal_shape *shape,
                               struct fb_scratch_cursor *cursor, struct flow_causal_scratch *s);
void fb_flow_causal_take_thread(const struct flow_causal_shape *shape,
                                struct fb_scratch_cursor *cursor, struct flow_causal_scratch *s);
void fb_flow_causal_take_state(const struct flow_causal_shape *shape,
                               struct fb_scratch_cursor *cursor, struct flow_causal_scratch *s);
void fb_flow_causal_take_vectors(const struct flow_causal_shape *shape,
                                 struct fb_scratch_cursor *cursor, struct flow_causal_scratch *s);
void fb_flow_causal_fill_ones(const struct flow_causal_shape *shape, float *ones);
/* Vectors of zeros, also where no step writes: beyond dim. */
void fb_flow_causal_clear_vectors(const struct flow_causal_shape *shape,
                                  struct flow_causal_scratch *s);
/* The empty state, before the first token. */
void fb_flow_causal_reset(const struct flow_causal_shape *shape, struct flow_causal_scratch *s,
                          struct flow_normaliser *normaliser);

/* The state between two chunks as stored, in this order. */
struct flow_stored_state {
    struct flow_normaliser *normaliser;
    float *vectors[4]; /* keys, queries, u, w */
    float *product;
};

/* Where its parts are, and its bytes; writing it, and taking it up again. */
size_t fb_flow_causal_carve_state(const struct flow_causal_shape *shape, void *base,
                                  struct flow_stored_state *state);
size_t fb_flow_causal_state_size(const struct flow_causal_shape *shape);
void fb_flow_causal_store(const struct flow_causal_shape *shape,
                          const struct flow_causal_scratch *s,
                          const struct flow_normaliser *normaliser, void *state);
void fb_flow_causal_load(const struct flow_causal_shape *shape, const void *state,
                         struct flow_causal_scratch *s, struct flow_normaliser *normaliser);

/* phi, A and every scalar of the chunk that starts at token first, from the state before it. The
 * normaliser is advanced over the chunk. */
void fb_flow_causal_visit(const struct flow_causal_shape *shape, int64_t batch, int64_t head,
                          int64_t first, int64_t rows, const struct flow_causal_scratch *s,
                          struct flow_normaliser *normaliser, struct flow_chunk *x);
/* Its steps: phi and A, from no state; a, b, alpha and beta, from keys and queries; c, o, r, s from
 * u and w, and p = 1, or exp(o) where the competition is bounded; then p from the normaliser. */
void fb_flow_causal_begin(const struct flow_causal_shape *shape, int64_t batch, int64_t head,
                          int64_t first, int64_t rows, const struct flow_causal_scratch *s,
                          struct flow_chunk *x);
void fb_flow_causal_flows(const struct flow_causal_shape *shape,
                          const struct flow_causal_scratch *s, struct flow_chunk *x);
void fb_flow_causal_conserve(const struct flow_causal_shape *shape,
                             const struct flow_causal_scratch *s, struct flow_chunk *x);
/* Bounded: p from exp(o), before being the normaliser's sum before the chunk; returns the chunk's
 * sum. */
float fb_flow_causal_share(double before, struct flow_chunk *x);
/* Not bounded: p by a running maximum; the normaliser is advanced. */
void fb_flow_causal_compete_online(float clamp, struct flow_normaliser *normaliser,
                                   struct flow_chunk *x);

/* Advances the rest of the state over the visited chunk; fills weighted = p v. */
void fb_flow_causal_carry(const struct flow_causal_shape *shape, int64_t batch, int64_t head,
                          int64_t first, const struct flow_causal_scratch *s,
                          const struct flow_chunk *x);
/* Its steps: weighted, and the chunk's part of M; part = sum_i weight[i] x_i, [cols], for the
 * vectors, weight NULL meaning ones. */
void fb_flow_causal_weigh(const struct flow_causal_shape *shape, int64_t batch, int64_t head,
                          int64_t first, const struct flow_causal_scratch *s,
                          const struct flow_chunk *x);
void fb_flow_sum_rows(const struct flow_causal_shape *shape, const float *x, int64_t rows,
                      const float *weight, float *part);

/* to = r (phi(q) M + tril(A) (p v)), M being the state before the chunk: the first half before the
 * state moves on, the second when p v is there. */
void fb_flow_causal_emit_before(const struct flow_causal_shape *shape,
                                const struct flow_causal_scratch *s, const struct flow_chunk *x,
                                struct fb_row_block to);
void fb_flow_causal_emit_within(const struct flow_causal_shape *shape,
                                const struct flow_causal_scratch *s, const struct flow_chunk *x,
                                struct fb_row_block to);

/* Bytes of one thread in the backward pass. */
size_t fb_flow_gradient_bytes(const struct flow_causal_shape *shape);

static inline int64_t flow_smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Exponentials of the competition need no maximum. */
static inline bool fb_flow_is_bounded(const struct flow_causal_shape *shape)
{
    return shape->options.competition != FB_FLOW_NO_COMPETITION && !shape->options.online;
}

static inline int64_t fb_flow_causal_segments(const struct fb_problem *p)
{
    const int64_t tokens = FLOW_SEGMENT * FLOW_CHUNK;
    return (p->q_len + tokens - 1) / tokens;
}

static inline int64_t fb_flow_kv_head(const struct fb_problem *p, int64_t head)
{
    return head / (p->heads / p->kv_heads);
}

#endif
