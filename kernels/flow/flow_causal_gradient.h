/*
 * Inside the gradient of fused Flow-Attention, causal form, on the CPU: what its two sources share.
 * One set of symbols per instruction set. The algorithm is told in flow_cpu_causal_gradient.c.
 */
#ifndef FB_FLOW_CAUSAL_GRADIENT_H
#define FB_FLOW_CAUSAL_GRADIENT_H

#include "flow_causal.h"

#define fb_flow_gradient_take_chunk  FB_ISA_SYMBOL(fb_flow_gradient_take_chunk)
#define fb_flow_gradient_take_thread FB_ISA_SYMBOL(fb_flow_gradient_take_thread)
#define fb_flow_gradient_take_state  FB_ISA_SYMBOL(fb_flow_gradient_take_state)
#define fb_flow_gradient_load        FB_ISA_SYMBOL(fb_flow_gradient_load)
#define fb_flow_gradient_pull_before FB_ISA_SYMBOL(fb_flow_gradient_pull_before)
#define fb_flow_gradient_weigh       FB_ISA_SYMBOL(fb_flow_gradient_weigh)
#define fb_flow_gradient_pull_after  FB_ISA_SYMBOL(fb_flow_gradient_pull_after)
#define fb_flow_gradient_conserved   FB_ISA_SYMBOL(fb_flow_gradient_conserved)
#define fb_flow_gradient_outgoing    FB_ISA_SYMBOL(fb_flow_gradient_outgoing)
#define fb_flow_gradient_chain       FB_ISA_SYMBOL(fb_flow_gradient_chain)
#define fb_flow_gradient_incoming    FB_ISA_SYMBOL(fb_flow_gradient_incoming)
#define fb_flow_gradient_lift        FB_ISA_SYMBOL(fb_flow_gradient_lift)
#define fb_flow_gradient_emit        FB_ISA_SYMBOL(fb_flow_gradient_emit)

/* Buffers of a chunk at work beside those of the forward form. */
struct flow_gradient_scratch {
    /* What belongs to the chunk. */
    float *values;         /* [FLOW_CHUNK][FLOW_CHUNK] V */
    float *before, *after; /* [FLOW_CHUNK][cols] M g; R v */
    /* What belongs to the thread: free again after each step. */
    float *mixed;     /* [FLOW_CHUNK][FLOW_CHUNK] A * V, or P */
    float *turned;    /* [widest][widest or FLOW_CHUNK] a transposed operand */
    float *exchanged; /* [FLOW_CHUNK][cols] P k or P^T q */
    float *scaled;    /* [FLOW_CHUNK][widest] */
    float *room;      /* [FLOW_CHUNK][value_cols] g, of 16 bits */
    /* The state after the chunk. */
    float *suffix; /* [dim][value_cols] R */
    float *suffix_error;
    struct flow_carried du, dw, as, bs; /* no operands */
};

struct flow_gradient_chunk {
    float dr[FLOW_CHUNK], dp[FLOW_CHUNK], dc[FLOW_CHUNK], db[FLOW_CHUNK];
    float dflow[FLOW_CHUNK], da[FLOW_CHUNK]; /* do, da */
    float lift_q[FLOW_CHUNK], lift_k[FLOW_CHUNK];
};

/* A chunk at work. */
struct flow_gradient_task {
    const struct flow_causal_shape *shape;
    struct flow_causal_scratch forward;
    struct flow_gradient_scratch own;
    struct flow_chunk *x;
    struct flow_gradient_chunk *y;
    struct fb_row_block v, g; /* the chunk's rows of v and dout */
    int64_t batch, head, kv_head;
    int64_t first; /* token */
    bool add;      /* dk and dv hold the gradients of other heads of the group */
};

/* Parts of the buffers: the chunk's, the thread's, the state's. */
void fb_flow_gradient_take_chunk(const struct flow_causal_shape *shape,
                                 struct fb_scratch_cursor *cursor, struct flow_gradient_scratch *s);
void fb_flow_gradient_take_thread(const struct flow_causal_shape *shape,
                                  struct fb_scratch_cursor *cursor,
                                  struct flow_gradient_scratch *s);
void fb_flow_gradient_take_state(const struct flow_causal_shape *shape,
                                 struct fb_scratch_cursor *cursor, struct flow_gradient_scratch *s);

/* The steps of a chunk whose forward scalars are there, in this order. Rows of v and dout, which
 * pull_before, weigh, pull_after and emit need. */
void fb_flow_gradient_load(struct flow_gradient_task *t);
/* V and M g, from M. */
void fb_flow_gradient_pull_before(struct flow_gradient_task *t);
/* The chunk's part of R into forward.part. */
void fb_flow_gradient_weigh(const struct flow_gradient_task *t);
/* R v, dr and dp, from R; then dc. */
void fb_flow_gradient_pull_after(struct flow_gradient_task *t);
void fb_flow_gradient_conserved(struct flow_gradient_task *t);
/* db, from dU. */
void fb_flow_gradient_outgoing(struct flow_gradient_task *t);
/* do, from T of the chunk after, seen from the end of this one; T is moved past the chunk. */
void fb_flow_gradient_chain(const struct flow_causal_shape *shape, const struct flow_chunk *x,
                            struct flow_gradient_chunk *y, double *carried_t);
/* da, from dW. */
void fb_flow_gradient_incoming(struct flow_gradient_task *t);
/* dq, dk and dv, from R and the four vectors. */
void fb_flow_gradient_emit(struct flow_gradient_task *t);
/* part = sum_i weight_i (x_i + eps), [cols]: what the chunk adds to a vector. */
void fb_flow_gradient_lift(const struct flow_gradient_task *t, const float *x, const float *weight,
                           float *part);

#endif
