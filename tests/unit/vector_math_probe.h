/* Declarations of vector_math_probe.c for every instruction set, and a table of those built in. */
#ifndef FB_VECTOR_MATH_PROBE_H
#define FB_VECTOR_MATH_PROBE_H

#include <stdint.h>

enum { PROBE_DIM = 64 };

#define PROBE_DECLARE(isa)                                                                         \
    void probe_exp_##isa(const float *x, float *y, int64_t count);                                 \
    void probe_sigmoid_##isa(const float *x, float *y, int64_t count);                             \
    void probe_sigmoid_rows_##isa(const float *x, float *y, int64_t count);                        \
    void probe_rows_dot_##isa(const float *x, int64_t stride, int64_t rows, int64_t cols,          \
                              const float *v, float *out);                                         \
    void probe_rows_accumulate_##isa(const float *x, int64_t stride, int64_t rows, int64_t cols,   \
                                     const float *weight, float *sum);                             \
    void probe_elu_plus_1_##isa(const float *x, float *y, int64_t count);                          \
    void probe_transpose_##isa(const float *x, int64_t stride, int64_t rows, int64_t cols,         \
                               float *out, int64_t out_stride);                                    \
    void probe_carry_add_##isa(float *hi, float *lo, const float *x, int64_t count);
PROBE_DECLARE(scalar)
PROBE_DECLARE(neon)
PROBE_DECLARE(avx2)
PROBE_DECLARE(avx512)

#endif
