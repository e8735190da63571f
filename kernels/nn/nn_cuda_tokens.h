/* The layout of a batch's index of ids, between host and device: see nn_cuda_tokens.c. */
#ifndef FB_NN_CUDA_TOKENS_H
#define FB_NN_CUDA_TOKENS_H

#include "nn_cuda.h"

enum { FB_NN_CUDA_SEGMENT = 64, FB_NN_CUDA_SEGMENT_INTS = 3 };

#endif
