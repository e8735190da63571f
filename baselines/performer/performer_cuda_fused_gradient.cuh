/* What kernels for gradients of Performer's queries and keys share: a thread's two rows. See
 * performer_cuda_fused.cuh. */
#ifndef FB_PERFORMER_CUDA_FUSED_GRADIENT_CUH
#define FB_PERFORMER_CUDA_FUSED_GRADIENT_CUH

#include "performer_cuda_fused.cuh"

#if FB_HAVE_WGMMA

/* The numbers of a thread's two rows: what is subtracted from exponents, infinite where no token
 * is; of queries, w and eps / y. */
struct row_numbers {
    float base[2], weight[2], share[2];
};

/* What a thread has of its rows: du s and the sums of du; of keys dv; of queries e s, the sums of e
 * and of what du has besides e. */
struct gradient_rows {
    float c[8][4], along[2], other[8][4], e[2], d[2];
};

/* Of queries: c of each row, and what it adds. */
__device__ inline void join_sums(const row_numbers &rows, float features, gradient_rows &r)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float share = rows.share[half], e = sum_of_four(r.e[half]);
        const float weights = fmaf(share, features, e),
                    left = fmaf(share, sum_of_four(r.d[half]), sum_of_four(r.along[half]));
        const float c = weights <= 0.0F ? 0.0F : -left / weights;
        r.along[half] = fmaf(c, r.e[half], r.along[half]);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            r.c[n][2 * half] = fmaf(c, r.other[n][2 * half], r.c[n][2 * half]);
            r.c[n][2 * half + 1] = fmaf(c, r.other[n][2 * half + 1], r.c[n][2 * half + 1]);
        }
    }
}

/* c - factor x, of the tile x. */
template <typename T>
__device__ void take_away(float (&c)[8][4], const char *x, const float (&factors)[2])
{
    const int row = strip_of_thread() + (int)threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t pair =
                *reinterpret_cast<const uint32_t *>(x + chunk_offset(row + 8 * half, n) + 4 * t);
            c[n][2 * half] = fmaf(-factors[half], low_of<T>(pair), c[n][2 * half]);
            c[n][2 * half + 1] = fmaf(-factors[half], high_of<T>(pair), c[n][2 * half + 1]);
        }
}

#endif
#endif
