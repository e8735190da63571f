/*
 * Golden training runs (tests/golden/README.md, format training-golden-1): ten optimiser steps of
 * an official model in f64 with dropout off, repeated by ours in f32 with a variant of
 * Flow-Attention.
 */
#ifndef FB_GOLDEN_TRAINING_H
#define FB_GOLDEN_TRAINING_H

#include "attention.h"

#include <stdbool.h>

/* Largest deviations that are right. Losses: relative. First logits and gradients: relative to the
 * largest of the tensor, a gradient's at least to a hundredth of the largest of all. Weights: how
 * far a parameter ended from the reference, relative to how far it went in the ten steps; Adam's
 * first steps are of the size of the learning rate whatever the gradient's size, so a component
 * whose gradient is rounding goes its own way, and the distance is taken over the whole parameter.
 */
#define FB_GOLDEN_LOSS_BUDGET     2e-5
#define FB_GOLDEN_LOGITS_BUDGET   1e-5
#define FB_GOLDEN_GRADIENT_BUDGET 5e-5
#define FB_GOLDEN_WEIGHTS_BUDGET  2e-3

enum { FB_GOLDEN_NAME_SIZE = 96 };

struct fb_golden_training {
    double loss, logits, gradient, weights;  /* the largest deviation of each */
    char gradient_name[FB_GOLDEN_NAME_SIZE]; /* the parameter that has it */
    char weights_name[FB_GOLDEN_NAME_SIZE];
    bool passed;
};

/* FB_ERROR_IO or FB_ERROR_INPUT when the file cannot be read or contradicts itself,
 * FB_ERROR_UNSUPPORTED when the variant does not serve its model, FB_OK whatever the verdict. */
enum fb_status fb_golden_training_check(const char *path, const struct fb_attention *attention,
                                        int threads, struct fb_golden_training *result,
                                        struct fb_error *error) FB_MUST_CHECK;

#endif
