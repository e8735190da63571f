/* The GEMM ceiling beside measure.h: what a worker asks for after its samples. */
#ifndef FB_CEILINGS_H
#define FB_CEILINGS_H

#include "measure.h"

/* gemm_flop_per_s, gemm_shape and gemm_core of *ceilings: the single-precision rate that `threads`
 * threads reach together. All of them work for about time_s on products of their own (no hand-over
 * between threads counts), by our tiles for `isa` (FB_ISA_ANY: the machine's best) and by OpenBLAS
 * where it is built in; the best product of each thread is summed, the first thread's is named. */
enum fb_status fb_ceilings_gemm(int threads, enum fb_isa isa, double time_s,
                                struct fb_measure_ceilings *ceilings,
                                struct fb_error *error) FB_MUST_CHECK;

#endif
