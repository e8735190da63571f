/* See nn_precision.h. */
#include "nn_precision.h"

#include <assert.h>

static const struct {
    const char *name;
    enum fb_dtype dtype;
} precisions[FB_NN_PRECISION_COUNT] = {
    [FB_NN_F32] = {"f32", FB_F32},
    [FB_NN_TF32] = {"tf32", FB_F32},
    [FB_NN_BF16] = {"bf16", FB_BF16},
};

const char *fb_nn_precision_name(enum fb_nn_precision precision)
{
    assert(precision < FB_NN_PRECISION_COUNT);
    return precisions[precision].name;
}

enum fb_dtype fb_nn_precision_dtype(enum fb_nn_precision precision)
{
    assert(precision < FB_NN_PRECISION_COUNT);
    return precisions[precision].dtype;
}
