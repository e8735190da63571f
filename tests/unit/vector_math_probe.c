/* Vector functions and tiles behind plain functions, once per instruction set, for the tests. */
#include "vector_math_probe.h"

#include "rows.h"

void FB_ISA_SYMBOL(probe_exp)(const float *x, float *y, int64_t count)
{
    for (int64_t i = 0; i < count; i += FB_VW) {
        const int64_t rest = count - i < FB_VW ? count - i : FB_VW;
        fb_vf_store_part(y + i, fb_vf_exp(fb_vf_load_part(x + i, rest)), rest);
    }
}

void FB_ISA_SYMBOL(probe_sigmoid)(const float *x, float *y, int64_t count)
{
    for (int64_t i = 0; i < count; i += FB_VW) {
        const int64_t rest = count - i < FB_VW ? count - i : FB_VW;
        fb_vf_store_part(y + i, fb_vf_sigmoid(fb_vf_load_part(x + i, rest)), rest);
    }
}

/* The map of rows, which takes whole rows faster than single values. */
void FB_ISA_SYMBOL(probe_sigmoid_rows)(const float *x, float *y, int64_t count)
{
    fb_rows_map(FB_ROW_SIGMOID, x, PROBE_DIM, count / PROBE_DIM, PROBE_DIM, y, PROBE_DIM);
}

void FB_ISA_SYMBOL(probe_rows_dot)(const float *x, int64_t stride, int64_t rows, int64_t cols,
                                   const float *v, float *out)
{
    fb_rows_dot(x, stride, rows, cols, v, out);
}

void FB_ISA_SYMBOL(probe_rows_accumulate)(const float *x, int64_t stride, int64_t rows,
                                          int64_t cols, const float *weight, float *sum)
{
    fb_rows_accumulate(x, stride, rows, cols, weight, sum);
}

void FB_ISA_SYMBOL(probe_elu_plus_1)(const float *x, float *y, int64_t count)
{
    for (int64_t i = 0; i < count; i += FB_VW) {
        const int64_t rest = count - i < FB_VW ? count - i : FB_VW;
        fb_vf_store_part(y + i, fb_vf_elu_plus_1(fb_vf_load_part(x + i, rest)), rest);
    }
}

void FB_ISA_SYMBOL(probe_transpose)(const float *x, int64_t stride, int64_t rows, int64_t cols,
                                    float *out, int64_t out_stride)
{
    fb_rows_transpose(x, stride, rows, cols, out, out_stride);
}

void FB_ISA_SYMBOL(probe_carry_add)(float *hi, float *lo, const float *x, int64_t count)
{
    fb_rows_carry_add(hi, lo, x, count);
}
