/* Between the sources of fused Flow-Attention's two forms; one set of symbols per instruction set.
 */
#ifndef FB_FLOW_CPU_H
#define FB_FLOW_CPU_H

#include "simd.h"

#define fb_flow_causal_forward  FB_ISA_SYMBOL(fb_flow_causal_forward)
#define fb_flow_causal_backward FB_ISA_SYMBOL(fb_flow_causal_backward)
#define fb_flow_causal_sizes    FB_ISA_SYMBOL(fb_flow_causal_sizes)
#define fb_flow_decode          FB_ISA_SYMBOL(fb_flow_decode)
#define fb_flow_decode_sizes    FB_ISA_SYMBOL(fb_flow_decode_sizes)

/* The causal form; rows of padding are not written. */
void fb_flow_causal_forward(const struct fb_problem *problem, const struct fb_call *call);
void fb_flow_causal_backward(const struct fb_problem *problem, const struct fb_call *call);
void fb_flow_causal_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes);

/* One token against the recurrent state. */
void fb_flow_decode(const struct fb_problem *problem, const struct fb_call *call);
void fb_flow_decode_sizes(const struct fb_problem *problem, int threads, struct fb_sizes *sizes);

#endif
