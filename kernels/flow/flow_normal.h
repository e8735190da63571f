/*
 * Inside fused Flow-Attention, normal form, on the CPU: the data that its sources share. One set of
 * symbols per instruction set. The algorithm is told in flow_cpu.c.
 *
 * A pass (forward or backward) is a table of phases. A phase does something to every slice of a
 * head, on the side of its sources or its sinks or both, adds the slices' partial results in order
 * and finishes the head's totals. A unit is what runs together: forward, one query head; backward,
 * one key-value head, whose group of query heads is taken in rounds, since they share dk and dv.
 */
#ifndef FB_FLOW_NORMAL_H
#define FB_FLOW_NORMAL_H

#include "flow_options.h"
#include "row_block.h"
#include "rows.h"
#include "tile_gemm.h"

#include <stdatomic.h>

#define fb_flow_forward_phases  FB_ISA_SYMBOL(fb_flow_forward_phases)
#define fb_flow_backward_phases FB_ISA_SYMBOL(fb_flow_backward_phases)
#define fb_flow_normal_carve    FB_ISA_SYMBOL(fb_flow_normal_carve)
#define fb_flow_saved_bytes     FB_ISA_SYMBOL(fb_flow_saved_bytes)
#define fb_flow_source_rows     FB_ISA_SYMBOL(fb_flow_source_rows)
#define fb_flow_sink_rows       FB_ISA_SYMBOL(fb_flow_sink_rows)
#define fb_flow_score_sources   FB_ISA_SYMBOL(fb_flow_score_sources)
#define fb_flow_share_sources   FB_ISA_SYMBOL(fb_flow_share_sources)
#define fb_flow_incoming        FB_ISA_SYMBOL(fb_flow_incoming)
#define fb_flow_source_flows    FB_ISA_SYMBOL(fb_flow_source_flows)
#define fb_flow_compete         FB_ISA_SYMBOL(fb_flow_compete)
#define fb_flow_outgoing        FB_ISA_SYMBOL(fb_flow_outgoing)
#define fb_flow_step_ahead      FB_ISA_SYMBOL(fb_flow_step_ahead)
#define fb_flow_epsilon_term    FB_ISA_SYMBOL(fb_flow_epsilon_term)

enum {
    FLOW_BLOCK = 64,      /* tokens per block: phi(k) and v of one share the first-level cache */
    FLOW_SLICE_MIN = 512, /* tokens: a slice's partial product is added in 1/64 of its time */
    FLOW_SLICES_MAX = 32,
    FLOW_VECTORS = 3, /* vectors summed at once by a phase */
    /* Tokens after which the product of a longer slice of sources begins anew: beside a source that
     * outweighs them all, blocks of equal ones lose the same last places each. */
    FLOW_STRETCH = 1024
};

enum flow_side_name { FLOW_SINKS, FLOW_SOURCES, FLOW_SIDES };

struct flow_slicing {
    int64_t length, slice, count;
};

struct flow_shape {
    int64_t units, rounds;
    int64_t dim, value_dim;
    int64_t cols;               /* dim rounded up to whole vectors */
    int64_t value_cols;         /* value_dim likewise */
    int64_t widest;             /* the larger of the two */
    int64_t slices[FLOW_SIDES]; /* of the longest sequence */
    bool backward;
    bool stretched; /* forward: slices of sources are longer than a stretch */
    bool split;     /* threads share units */
    bool narrow;    /* tensors of 16 bits, widened block by block: nothing is parked in them */
    bool parked;    /* forward: phi(q) lives in out between the phases */
    bool turned;    /* backward: v dM^T lives in dk between the phases (no grouped queries) */
    bool held;      /* backward: g M^T lives in dq between the phases */
    int64_t kept;   /* forward: sources whose phi(k) each thread keeps */
    int64_t alpha;  /* forward: floats per head that keep its sinks' incoming flow, or 0 */
    int workers;
};

/* What a training forward saves of a head, and the first half of its totals. */
struct flow_totals {
    float *source_sum;  /* [cols] sum phi(k) + eps */
    float *sink_sum;    /* [cols] sum phi(q) + eps */
    float *source_flow; /* [cols] u + eps */
    float *sink_flow;   /* [cols] w + eps */
    float *product;     /* [dim][value_cols] G */
    float *scale;       /* M = scale G: S / Z over tokens, S over heads, 1 without competition */
    float *peak;        /* subtracted from exponents */
};

/* Totals of one unit. */
struct flow_head {
    struct flow_totals totals;
    double *wide;       /* [FLOW_VECTORS][cols] accumulators of the vectors being summed */
    double *normaliser; /* Z */
    /* backward only */
    float *product_turned;  /* [value_dim][cols] M^T */
    float *dproduct;        /* [dim][value_cols] dM */
    float *dproduct_turned; /* [value_dim][cols] dM^T */
    float *moment;          /* [dim][cols] sum alpha^2 phi(q) phi(q)^T */
    float *dsource_flow;    /* [cols] du */
    float *dsink_flow;      /* [cols] dw */
    float *dsource_sum;     /* [cols] d(sum phi(k)) */
    float *dsink_sum;       /* [cols] d(sum phi(q)) */
    float *moments[2];      /* [cols] sum alpha^2 s dr (phi(q)+eps), sum alpha^2 phi(q) */
    float *mean;            /* sum_j p_j dp_j / S */
};

/* Partial results of one slice. */
struct flow_slot {
    float *vectors; /* [FLOW_VECTORS][cols] */
    float *product; /* [dim][value_cols] */
    float *moment;  /* [dim][cols], backward */
    float *peak;
    double *normaliser;
};

/* One thread's blocks. */
struct flow_worker {
    float *source_block;    /* [FLOW_BLOCK][cols] phi(k) */
    float *sink_block;      /* [FLOW_BLOCK][cols] phi(q) */
    float *scaled;          /* [FLOW_BLOCK][widest] a block times a scalar per row */
    float *turned;          /* [FLOW_BLOCK][cols] v dM^T or g M^T that is not parked; backward */
    float *raw, *values;    /* [FLOW_BLOCK][widest] q or k, and v, g or a result; narrow */
    float *scalar[8];       /* [FLOW_BLOCK] */
    float *stretch;         /* [dim][value_cols] the product of a stretch; stretched */
    float *kept;            /* [shape.kept][cols] phi(k), forward, whole heads */
    struct flow_slot ahead; /* vectors only: sums of the thread's next head; likewise */
};

struct flow_phase;
struct flow_ahead;

struct flow_run {
    const struct fb_problem *problem;
    const struct fb_call *call;
    struct fb_flow_options options;
    struct flow_shape shape;
    const struct flow_phase *phases;
    int phase_count;
    struct flow_head *heads;             /* two per worker, or one per unit in split mode */
    struct flow_slot *slots[FLOW_SIDES]; /* per worker, or per (unit, slice) in split mode */
    struct flow_worker *workers;
    float *scores, *dscores; /* [B H][S], competition over heads only */
    float *alpha;            /* [heads][shape.alpha], as many as heads above */
    int phase;
    int64_t round;
    _Atomic int64_t next_unit; /* forward, whole heads: the first that no thread has taken */
};

/* What a phase does to one slice. */
struct flow_task {
    const struct flow_run *run;
    const struct flow_head *state;
    const struct flow_slot *slot;
    struct flow_worker *worker;
    int64_t batch, head, kv_head;
    int64_t sinks, sources;   /* valid lengths of this batch element, both at least 1 */
    int64_t first, last;      /* tokens first .. last-1 */
    float *alpha;             /* incoming of every sink, or NULL when it is not kept; forward */
    struct flow_ahead *ahead; /* the thread's next head, or NULL; forward */
};

/* The first two phases of the head that a thread takes next. They wait for memory, while the
 * products of the head at hand do not: so a block of it follows each block of those, which has
 * fetched it. */
struct flow_ahead {
    struct flow_task task;
    int64_t next[FLOW_SIDES]; /* the first token that is not summed yet */
};

struct flow_side {
    void (*run)(const struct flow_task *task);
    /* Adds a slice's part to the totals; NULL: nothing to add. */
    void (*add)(const struct flow_shape *shape, const struct flow_slot *slot, bool first,
                const struct flow_head *state);
    void (*finish)(const struct flow_task *task);
};

struct flow_phase {
    struct flow_side sides[FLOW_SIDES];
    bool heads_only; /* of competition over heads */
};

enum {
    FLOW_FORWARD_PHASES = 6,
    FLOW_AHEAD_PHASES = 2, /* of them, those that a thread does to its next head */
    FLOW_BACKWARD_PHASES = 7
};
extern const struct flow_phase fb_flow_forward_phases[FLOW_FORWARD_PHASES];
extern const struct flow_phase fb_flow_backward_phases[FLOW_BACKWARD_PHASES];

/* Cuts the problem into slices and lays the run's buffers out over scratch, filling run's shape and
 * tables; with run and scratch NULL only counts. Returns the bytes needed. */
size_t fb_flow_normal_carve(const struct fb_problem *problem, bool backward, int threads,
                            void *scratch, struct flow_run *run);

/* Bytes that a training forward saves for one head; with base, totals points into it. */
size_t fb_flow_saved_bytes(const struct fb_problem *problem, void *base,
                           struct flow_totals *totals);

/* phi of the tokens first .. first+rows-1. Forward keeps or parks them: fresh says that this is the
 * first visit. Rows of sources are cols apart, those of sinks *stride. */
float *fb_flow_source_rows(const struct flow_task *task, int64_t first, int64_t rows, bool fresh);
const float *fb_flow_sink_rows(const struct flow_task *task, int64_t first, int64_t rows,
                               bool fresh, int64_t *stride);

/* eps * sum(v) + extra: the part of (x+eps) . v + extra that x does not see; v holds eps. */
float fb_flow_epsilon_term(const struct flow_task *task, const float *v);

/* incoming[i] = 1 / ((x_i + eps) . v + extra) over a block. */
void fb_flow_incoming(const struct flow_task *task, const float *x, int64_t stride, int64_t rows,
                      const float *v, float *incoming);

/* o of a block, before the clamp: (phi(k_j) + eps) . w + extra. */
void fb_flow_outgoing(const struct flow_task *task, const float *k, int64_t rows, float *o);

/* Both of a block's sources: beta, their incoming, and o. */
void fb_flow_source_flows(const struct flow_task *task, const float *k, int64_t rows, float *beta,
                          float *o);

/* e[j] = exp(clamp(o_j) - peak), or the head's share of the token when heads compete, or 1. When
 * running is not NULL the peak is raised to the block's maximum first, and what the old sums must
 * be multiplied by is returned (1 otherwise). e may be o, which only tokens that compete need. */
float fb_flow_compete(const struct flow_task *task, const float *o, int64_t first, int64_t rows,
                      float *running, float *e);

/* Sums the next block of one side; true while there is more. */
bool fb_flow_step_ahead(struct flow_ahead *ahead, int side);

/* Phases of both passes when heads compete: o of every head into scores; then each token's scores
 * into shares that sum to 1 over the heads. */
void fb_flow_score_sources(const struct flow_task *task);
void fb_flow_share_sources(const struct flow_task *task);

/* The task's rows first .. first+rows-1 on either side. */
static inline struct fb_row_range flow_sink_range(const struct flow_task *t, int64_t first,
                                                  int64_t rows)
{
    return (struct fb_row_range){t->batch, t->head, first, 1, rows};
}

static inline struct fb_row_range flow_source_range(const struct flow_task *t, int64_t first,
                                                    int64_t rows)
{
    return (struct fb_row_range){t->batch, t->kv_head, first, 1, rows};
}

/* Rows of queries that lie in the rows of out: a product in more than one panel would overwrite
 * them, so it works on a copy. */
static inline bool fb_flow_copies_sinks(const struct flow_shape *s)
{
    return s->parked && s->value_dim > FB_TILE_PANEL;
}

static inline int64_t flow_minimum(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline struct flow_slicing fb_flow_slicing_of(int64_t length)
{
    const int64_t count =
        flow_minimum((length + FLOW_SLICE_MIN - 1) / FLOW_SLICE_MIN, FLOW_SLICES_MAX);
    if (count == 0) {
        return (struct flow_slicing){0, FLOW_BLOCK, 0};
    }
    const int64_t blocks = (length + FLOW_BLOCK - 1) / FLOW_BLOCK;
    const int64_t slice = (blocks + count - 1) / count * FLOW_BLOCK;
    return (struct flow_slicing){length, slice, (length + slice - 1) / slice};
}

#endif
