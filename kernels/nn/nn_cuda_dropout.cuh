/* Dropout on the device: the same values are dropped as nn_pointwise.c drops. The seed is read from
 * the device, where that of the step at hand stands. */
#ifndef FB_NN_CUDA_DROPOUT_CUH
#define FB_NN_CUDA_DROPOUT_CUH

#include "nn_cuda_private.h"
#include "nn_pointwise.h"

/* splitmix64's finaliser. */
static __host__ __device__ __forceinline__ uint64_t fb_nn_cuda_mixed(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

struct fb_nn_cuda_keep {
    const struct fb_nn_cuda_step *step;
    uint64_t stream; /* mixed */
    uint32_t bound;  /* 0: all are kept */
    float scale;

    __device__ __forceinline__ float kept(uint32_t draw, float x) const
    {
        return draw < bound ? 0.0f : scale * x;
    }

    /* v: the values i to i + N - 1; i is even where N is. */
    template <int N> __device__ __forceinline__ void operator()(float (&v)[N], int64_t i) const
    {
        static_assert(N == 1 || N % 2 == 0, "two values share a draw");
        if (bound == 0)
            return;
        const uint64_t key = fb_nn_cuda_mixed(step->dropout_seed + stream);
        uint64_t counter = key + 0x9e3779b97f4a7c15ULL * ((uint64_t)i / 2 + 1);
        if constexpr (N == 1) {
            const uint64_t bits = fb_nn_cuda_mixed(counter);
            v[0] = kept((uint32_t)(i % 2 == 0 ? bits : bits >> 32), v[0]);
        } else {
#pragma unroll
            for (int j = 0; j < N; j += 2) {
                const uint64_t bits = fb_nn_cuda_mixed(counter);
                v[j] = kept((uint32_t)bits, v[j]);
                v[j + 1] = kept((uint32_t)(bits >> 32), v[j + 1]);
                counter += 0x9e3779b97f4a7c15ULL;
            }
        }
    }
};

static inline struct fb_nn_cuda_keep fb_nn_cuda_keep_of(const struct fb_nn_cuda *c,
                                                        const struct fb_nn_dropout *d)
{
    return {fb_nn_cuda_step_there(c), fb_nn_cuda_mixed(d->stream),
            (uint32_t)((double)d->p * 4294967296.0), 1.0f / (1.0f - d->p)};
}

#endif
