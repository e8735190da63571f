/*
 * Heads of causal Flow-Attention that threads share, on the CPU. One set of symbols per instruction
 * set. How it works is told in flow_cpu_causal_rounds.c.
 */
#ifndef FB_FLOW_CAUSAL_ROUNDS_H
#define FB_FLOW_CAUSAL_ROUNDS_H

#include "flow_causal.h"

#include <stdatomic.h>

#define fb_flow_shared_count          FB_ISA_SYMBOL(fb_flow_shared_count)
#define fb_flow_rounds_plan           FB_ISA_SYMBOL(fb_flow_rounds_plan)
#define fb_flow_rounds_reset          FB_ISA_SYMBOL(fb_flow_rounds_reset)
#define fb_flow_rounds_step           FB_ISA_SYMBOL(fb_flow_rounds_step)
#define fb_flow_rounds_states         FB_ISA_SYMBOL(fb_flow_rounds_states)
#define fb_flow_rounds_begin          FB_ISA_SYMBOL(fb_flow_rounds_begin)
#define fb_flow_rounds_join           FB_ISA_SYMBOL(fb_flow_rounds_join)
#define fb_flow_pass_through          FB_ISA_SYMBOL(fb_flow_pass_through)
#define fb_flow_pass_sides            FB_ISA_SYMBOL(fb_flow_pass_sides)
#define fb_flow_matrix_slices         FB_ISA_SYMBOL(fb_flow_matrix_slices)
#define fb_flow_matrix_slice_of       FB_ISA_SYMBOL(fb_flow_matrix_slice_of)
#define fb_flow_rounds_bytes          FB_ISA_SYMBOL(fb_flow_rounds_bytes)
#define fb_flow_rounds_forward        FB_ISA_SYMBOL(fb_flow_rounds_forward)
#define fb_flow_rounds_gradient_bytes FB_ISA_SYMBOL(fb_flow_rounds_gradient_bytes)
#define fb_flow_rounds_backward       FB_ISA_SYMBOL(fb_flow_rounds_backward)

enum { FLOW_THREAD_CHUNKS = 16 /* of a round, for each thread */ };

/* A chunk of this round. */
struct flow_place {
    struct flow_causal_scratch s; /* the state in it: what the chunk adds, then what is before it */
    struct flow_chunk x;          /* x.rows 0: no chunk, the head has ended */
    struct flow_normaliser before;
    float within; /* bounded: sum of exp(o) */
    int64_t batch, head, first;
};

/* The state that a round begins with, and ends with. */
struct flow_shared_head {
    struct flow_causal_scratch s; /* only the state */
    struct flow_normaliser normaliser;
    _Atomic int64_t left; /* chunks that the step at hand has yet to visit */
};

/* Which of its own places a thread comes to next. */
struct flow_turn {
    _Atomic int64_t next;
    unsigned char apart[FB_ALIGNMENT - sizeof(int64_t)];
};

struct flow_rounds {
    const struct flow_causal_shape *shape;
    int threads;
    int64_t heads, chunks;             /* that are shared at a time; of each in a round */
    int64_t first_chunk;               /* of this round */
    bool restarts;                     /* at the states that a training forward has saved */
    struct flow_place *places;         /* [heads][chunks] */
    struct flow_shared_head *states;   /* [heads] */
    struct flow_causal_scratch *rooms; /* [threads], only the thread's own */
    struct flow_turn *turns;           /* [threads] */
    const struct flow_step *step;      /* the one at hand */
    void *gradient;                    /* what the backward pass has beside */
};

/* A step of all chunks of a round, and what adds up the parts of a head when they are there. */
struct flow_step {
    void (*visit)(const struct flow_rounds *run, int64_t place, int thread);
    void (*pass)(const struct flow_rounds *run, int64_t head); /* or NULL */
};

/* A thread's share of a matrix [dim][value_cols] of a head. */
struct flow_matrix_slice {
    int64_t head, at, count; /* numbers from at on */
};

/* How many of the heads, or groups of heads, the last ones, threads share; the others have a thread
 * each. */
int64_t fb_flow_shared_count(const struct fb_problem *problem, int64_t heads, int threads);

/* Lays out a run; with the cursor's base NULL it only counts. */
void fb_flow_rounds_plan(const struct flow_causal_shape *shape, int64_t heads, int64_t chunks,
                         int threads, struct fb_scratch_cursor *cursor, struct flow_rounds *run);
/* What steps read and none writes; call once. */
void fb_flow_rounds_reset(struct flow_rounds *run);
/* Takes every place through a step. */
void fb_flow_rounds_step(struct flow_rounds *run, const struct flow_step *step);

/* The chunk of this round that the place has, if any; phi, A, parts of keys and queries. */
void fb_flow_rounds_begin(const struct flow_rounds *run, struct flow_place *place,
                          const struct flow_causal_scratch *s);
void fb_flow_pass_sides(const struct flow_rounds *run, int64_t head);
/* After that step: all scalars of the round's chunks, and the states before them. */
void fb_flow_rounds_states(struct flow_rounds *run);

/* The place's buffers with those of the thread. */
struct flow_causal_scratch fb_flow_rounds_join(const struct flow_rounds *run, int64_t place,
                                               int thread);
/* part becomes value, and value += part, compensated. */
void fb_flow_pass_through(float *value, float *error, float *part, int64_t count);
/* Tasks that share the matrices of all heads. */
int64_t fb_flow_matrix_slices(const struct flow_rounds *run);
struct flow_matrix_slice fb_flow_matrix_slice_of(const struct flow_rounds *run, int64_t task);

/* Forward of the heads from first_head on, counted over the batch; its bytes of scratch. */
size_t fb_flow_rounds_bytes(const struct flow_causal_shape *shape, int64_t first_head, int threads);
void fb_flow_rounds_forward(const struct flow_causal_shape *shape, int64_t first_head);

/* Gradients of the groups of heads from first_unit on, likewise. */
size_t fb_flow_rounds_gradient_bytes(const struct flow_causal_shape *shape, int64_t first_unit,
                                     int threads);
void fb_flow_rounds_backward(const struct flow_causal_shape *shape, int64_t first_unit);

#endif
