/*
 * Heads of causal Flow-Attention that threads share, on the CPU. One set of symbols per instruction
 * set. How it works is told in flow_cpu_causal_rounds.c.
 */
#ifndef FB_FLOW_CAUSAL_ROUNDS_H
#define FB_FLOW_CAUSAL_ROUNDS_H

#include "flow_causal.h"

#define fb_flow_shared_heads   FB_ISA_SYMBOL(fb_flow_shared_heads)
#define fb_flow_rounds_bytes   FB_ISA_SYMBOL(fb_flow_rounds_bytes)
#define fb_flow_rounds_forward FB_ISA_SYMBOL(fb_flow_rounds_forward)

/* How many of the heads, the last ones, threads share; the others have a thread each. */
int64_t fb_flow_shared_heads(const struct fb_problem *problem, int threads);

/* Forward of the heads from first_head on, counted over the batch; its bytes of scratch. */
size_t fb_flow_rounds_bytes(const struct flow_causal_shape *shape, int64_t first_head, int threads);
void fb_flow_rounds_forward(const struct flow_causal_shape *shape, int64_t first_head);

#endif
