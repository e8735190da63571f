/* Declarations of fast_exp_probe.c for every instruction set. */
#ifndef FB_FAST_EXP_PROBE_H
#define FB_FAST_EXP_PROBE_H

#include <stdint.h>

void probe_exp_fast_scalar(const float *x, float *y, int64_t count);
void probe_exp_fast_neon(const float *x, float *y, int64_t count);
void probe_exp_fast_avx2(const float *x, float *y, int64_t count);
void probe_exp_fast_avx512(const float *x, float *y, int64_t count);

#endif
