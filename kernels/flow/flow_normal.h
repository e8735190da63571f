/*
 * Inside fused Flow-Attention, normal form, on the CPU: the data that its three sources share. One
 * set of symbols per instruction set. The algorithm is told in flow_cpu.c.
 */
#ifndef FB_FLOW_NORMAL_H
#define FB_FLOW_NORMAL_H

#include "simd.h"

#define fb_flow_normal_phases FB_ISA_SYMBOL(fb_flow_normal_phases)
#define fb_flow_normal_carve  FB_ISA_SYMBOL(fb_flow_normal_carve)

enum {
    FLOW_BLOCK = 128,      /* tokens per block: phi and e v of a block share a cache level */
    FLOW_SLICE_MIN = 2048, /* tokens: below it the partial products would weigh more than 1 % */
    FLOW_SLICES_MAX = 32,
};

struct flow_slicing {
    int64_t length, slice, count;
};

struct flow_shape {
    int64_t heads, sinks, sources, dim, value_dim;
    int64_t cols;       /* dim rounded up to whole vectors */
    int64_t value_cols; /* value_dim likewise */
    struct flow_slicing sink_slices, source_slices;
    bool split;   /* threads share heads */
    bool parked;  /* phi(q) lives in out between the phases */
    int64_t kept; /* sources whose phi(k) each thread keeps */
    int workers;
    float ratio; /* L / S */
};

/* Totals of one head. Vectors have `cols` floats. */
struct flow_head {
    double *wide;       /* [cols] accumulator of the vector being summed */
    float *source_sum;  /* sum phi(k) + eps */
    float *sink_sum;    /* sum phi(q) + eps */
    float *source_flow; /* u + eps */
    float *sink_flow;   /* w + eps */
    float *product;     /* G: [dim][value_cols] */
    double *normaliser; /* Z: one value */
};

/* Partial results of one slice. */
struct flow_slot {
    float *vector;      /* [cols] */
    float *product;     /* [dim][value_cols] */
    double *normaliser; /* one value */
};

/* One thread's blocks. */
struct flow_worker {
    float *source_block; /* [FLOW_BLOCK][cols] phi(k) */
    float *sink_block;   /* [FLOW_BLOCK][cols] phi(q) */
    float *scaled;       /* [FLOW_BLOCK][max(cols, value_cols)]: e v, or s alpha phi(q) */
    float *scalar[2];    /* [FLOW_BLOCK] */
    float *kept;         /* [shape.kept][cols] phi(k), head mode only */
};

struct flow_run {
    const struct fb_problem *problem;
    const struct fb_call *call;
    struct flow_shape shape;
    struct flow_head *heads; /* per worker in head mode, per head in split mode */
    struct flow_slot *source_slots, *sink_slots; /* per worker, or per (head, slice) */
    struct flow_worker *workers;
    int phase;
};

/* What a phase does to one slice; head is b * H + h. */
struct flow_task {
    const struct flow_run *run;
    const struct flow_head *state;
    const struct flow_slot *slot;
    struct flow_worker *worker;
    int64_t batch, head;
    int64_t first, last; /* tokens first .. last-1 */
};

/* What is done to one slice of a head, for its sources and its sinks; NULL: nothing. */
enum { FLOW_SUM, FLOW_WEIGH, FLOW_COLLECT, FLOW_EMIT, FLOW_PHASE_COUNT };
struct flow_phase {
    void (*sources)(const struct flow_task *);
    void (*sinks)(const struct flow_task *);
};

extern const struct flow_phase fb_flow_normal_phases[FLOW_PHASE_COUNT];

/* Cuts the problem into slices and lays the run's buffers out over scratch, filling run's shape and
 * tables; with run and scratch NULL only counts. Returns the bytes needed. */
size_t fb_flow_normal_carve(const struct fb_problem *problem, int threads, void *scratch,
                            struct flow_run *run);

static inline int64_t flow_minimum(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

#endif
