/* What the processor at hand can execute. */
#ifndef FB_CPU_FEATURES_H
#define FB_CPU_FEATURES_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether this machine executes the instruction set (the operating system included: AVX state). */
bool fb_cpu_has(enum fb_isa isa);

/* The strongest instruction set that this machine has. */
enum fb_isa fb_cpu_best_isa(void);

#ifdef __cplusplus
}
#endif
#endif
