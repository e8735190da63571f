/* In which arithmetic a model is trained. */
#ifndef FB_NN_PRECISION_H
#define FB_NN_PRECISION_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

enum fb_nn_precision {
    FB_NN_F32,
    FB_NN_TF32, /* operands of products rounded to 10 bits of fraction; everything else is f32 */
    /* Activations and their gradients are bf16, and so are the operands of products. Sums,
     * parameters, their gradients, moments, statistics, logits and loss are f32. */
    FB_NN_BF16,
    FB_NN_PRECISION_COUNT
};

const char *fb_nn_precision_name(enum fb_nn_precision precision); /* "f32", "tf32", "bf16" */
/* Of activations. */
enum fb_dtype fb_nn_precision_dtype(enum fb_nn_precision precision);

#ifdef __cplusplus
}
#endif
#endif
