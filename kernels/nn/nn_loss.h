/*
 * Cross-entropy of softmax(logits) against class targets, averaged over those that count.
 * logits [rows, classes] dense f32; targets [rows], FB_NN_IGNORED where a row does not count.
 */
#ifndef FB_NN_LOSS_H
#define FB_NN_LOSS_H

#include <stdint.h>

enum { FB_NN_IGNORED = -1 };

/* The mean loss (0 when no row counts). dlogits (NULL: not wanted) gets its gradient. */
double fb_nn_cross_entropy(float *dlogits, const float *logits, const int32_t *targets,
                           int64_t rows, int64_t classes);

/* Index of the largest logit of a row, the first of equals. */
int32_t fb_nn_argmax(const float *logits, int64_t classes);

#endif
