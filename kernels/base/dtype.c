/* Arrays of 16-bit numbers: see dtype.h. */
#include "dtype.h"

void fb_dtype_widen(enum fb_dtype dtype, const void *from, int64_t count, float *to)
{
    const uint16_t *narrow = from;
    const double *wide = from;
    switch (dtype) {
    case FB_BF16:
        for (int64_t i = 0; i < count; i++) {
            to[i] = fb_bf16_widen(narrow[i]);
        }
        break;
    case FB_F16:
        for (int64_t i = 0; i < count; i++) {
            to[i] = fb_f16_widen(narrow[i]);
        }
        break;
    case FB_F64:
        for (int64_t i = 0; i < count; i++) {
            to[i] = (float)wide[i];
        }
        break;
    default:
        memmove(to, from, (size_t)count * sizeof *to);
        break;
    }
}

void fb_dtype_narrow(enum fb_dtype dtype, const float *from, int64_t count, void *to)
{
    uint16_t *narrow = to;
    double *wide = to;
    switch (dtype) {
    case FB_BF16:
        for (int64_t i = 0; i < count; i++) {
            narrow[i] = fb_bf16_narrow(from[i]);
        }
        break;
    case FB_F16:
        for (int64_t i = 0; i < count; i++) {
            narrow[i] = fb_f16_narrow(from[i]);
        }
        break;
    case FB_F64:
        for (int64_t i = 0; i < count; i++) {
            wide[i] = (double)from[i];
        }
        break;
    default:
        memmove(to, from, (size_t)count * sizeof *from);
        break;
    }
}

double fb_dtype_roundoff(enum fb_dtype dtype)
{
    static const double roundoffs[FB_DTYPE_COUNT] = {
        [FB_F32] = 0x1p-24, [FB_F64] = 0x1p-53, [FB_BF16] = 0x1p-8, [FB_F16] = 0x1p-11};
    return roundoffs[dtype];
}

double fb_tensor_value(const struct fb_tensor *t, int64_t b, int64_t h, int64_t token, int64_t c)
{
    const int64_t at = b * t->stride[0] + h * t->stride[1] + token * t->stride[2] + c;
    switch (t->dtype) {
    case FB_BF16:
        return (double)fb_bf16_widen(((const uint16_t *)t->data)[at]);
    case FB_F16:
        return (double)fb_f16_widen(((const uint16_t *)t->data)[at]);
    case FB_F64:
        return ((const double *)t->data)[at];
    default:
        return (double)((const float *)t->data)[at];
    }
}
