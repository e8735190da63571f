/* Between the two CPU sources of fused Flow-Attention; one set of symbols per instruction set. */
#ifndef FB_FLOW_CPU_H
#define FB_FLOW_CPU_H

#include "simd.h"

#define fb_flow_causal_forward       FB_ISA_SYMBOL(fb_flow_causal_forward)
#define fb_flow_causal_scratch_bytes FB_ISA_SYMBOL(fb_flow_causal_scratch_bytes)

enum fb_status fb_flow_causal_forward(const struct fb_problem *problem, const struct fb_call *call,
                                      struct fb_error *error);
size_t fb_flow_causal_scratch_bytes(const struct fb_problem *problem, int threads);

#endif
