/* Dropout on the device: the same values are dropped as nn_pointwise.c drops. */
#ifndef FB_NN_CUDA_DROPOUT_CUH
#define FB_NN_CUDA_DROPOUT_CUH

#include "nn_pointwise.h"

/* splitmix64's finaliser. */
static __host__ __device__ __forceinline__ uint64_t fb_nn_cuda_mixed(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

struct fb_nn_cuda_keep {
    uint64_t key;
    uint32_t bound; /* 0: all are kept */
    float scale;

    __device__ __forceinline__ float operator()(int64_t i, float x) const
    {
        if (bound == 0)
            return x;
        const uint64_t bits = fb_nn_cuda_mixed(key + 0x9e3779b97f4a7c15ULL * ((uint64_t)i / 2 + 1));
        const uint32_t draw = (uint32_t)(i % 2 == 0 ? bits : bits >> 32);
        return draw < bound ? 0.0f : scale * x;
    }
};

static inline struct fb_nn_cuda_keep fb_nn_cuda_keep_of(const struct fb_nn_dropout *d)
{
    return {fb_nn_cuda_mixed(d->seed + fb_nn_cuda_mixed(d->stream)),
            (uint32_t)((double)d->p * 4294967296.0), 1.0f / (1.0f - d->p)};
}

#endif
