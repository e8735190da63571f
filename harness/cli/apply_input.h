/*
 * The input of `flowbench apply`: a safetensors file with q [B,H,L,D], k [B,Hkv,S,D], v [B,Hkv,S,M]
 * and, when they are there, q_lengths [B], kv_lengths [B], projection [features,D] (Performer) and
 * dout [B,H,L,M]. What is not in the dtype of the request is widened or rounded to it with a
 * notice; projection is always f32.
 */
#ifndef FB_APPLY_INPUT_H
#define FB_APPLY_INPUT_H

#include "arena.h"
#include "attention.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct fb_apply_request {
    const char *path;
    const struct fb_mechanism *mechanism;
    double params[FB_PARAMS_MAX];
    bool params_given[FB_PARAMS_MAX];
    enum fb_dtype dtype; /* f32, bf16 or f16: what the tensors become */
    bool causal;
    bool gradients;       /* read dout when it is there */
    bool allow_nonfinite; /* let NaN and infinities through */
    uint64_t seed;        /* of constants that the file does not hold */
    FILE *notices;
};

/* Owned by the arena. All tensors are dense BHND, in the dtype of the request. */
struct fb_apply_input {
    struct fb_problem problem; /* checked: the mechanism serves it */
    struct fb_tensor q, k, v;
    struct fb_tensor dout;  /* data NULL: not there, or not wanted */
    const float *constants; /* NULL: the mechanism has none */
    bool constants_drawn;   /* from the seed */
};

/* Every refusal names the file, the tensor, what it is and what is needed. FB_ERROR_INPUT for
 * whatever is wrong with the file, also when it cannot be opened. */
enum fb_status fb_apply_input_read(const struct fb_apply_request *request, struct fb_arena *arena,
                                   struct fb_apply_input *input,
                                   struct fb_error *error) FB_MUST_CHECK;

/* How many values of a tensor are NaN or infinite, and where the first one stands. */
int64_t fb_apply_count_nonfinite(const struct fb_tensor *tensor, int64_t first[4]);

#endif
