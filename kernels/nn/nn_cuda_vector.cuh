/* Values of a matrix in f32 or bf16, several at a time in 16-byte accesses; arithmetic is f32. */
#ifndef FB_NN_CUDA_VECTOR_CUH
#define FB_NN_CUDA_VECTOR_CUH

#include "nn_cuda_private.h"

#include <cuda_bf16.h>

/* Values of one access. */
template <typename T> constexpr int fb_nn_cuda_pack = (int)(16 / sizeof(T));

static __device__ __forceinline__ float fb_nn_cuda_widen(float x)
{
    return x;
}

static __device__ __forceinline__ float fb_nn_cuda_widen(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

static __device__ __forceinline__ void fb_nn_cuda_narrow(float *to, float x)
{
    *to = x;
}

static __device__ __forceinline__ void fb_nn_cuda_narrow(__nv_bfloat16 *to, float x)
{
    *to = __float2bfloat16(x);
}

/* N: 1, or whole accesses, aligned. */
template <typename T, int N>
static __device__ __forceinline__ void fb_nn_cuda_load(float (&v)[N], const T *from)
{
    constexpr int pack = fb_nn_cuda_pack<T>;
    static_assert(N == 1 || N % pack == 0, "one value or whole accesses");
    if constexpr (N == 1) {
        v[0] = fb_nn_cuda_widen(*from);
    } else {
#pragma unroll
        for (int a = 0; a < N; a += pack) {
            alignas(16) T some[pack];
            *(uint4 *)some = *(const uint4 *)(from + a);
#pragma unroll
            for (int i = 0; i < pack; i++)
                v[a + i] = fb_nn_cuda_widen(some[i]);
        }
    }
}

template <typename T, int N>
static __device__ __forceinline__ void fb_nn_cuda_store(T *to, const float (&v)[N])
{
    constexpr int pack = fb_nn_cuda_pack<T>;
    static_assert(N == 1 || N % pack == 0, "one value or whole accesses");
    if constexpr (N == 1) {
        fb_nn_cuda_narrow(to, v[0]);
    } else {
#pragma unroll
        for (int a = 0; a < N; a += pack) {
            alignas(16) T some[pack];
#pragma unroll
            for (int i = 0; i < pack; i++)
                fb_nn_cuda_narrow(&some[i], v[a + i]);
            *(uint4 *)(to + a) = *(const uint4 *)some;
        }
    }
}

/* What stands at `to` is replaced, or added to. */
template <typename T, int N>
static __device__ __forceinline__ void fb_nn_cuda_put(T *to, bool add, float (&v)[N])
{
    if (add) {
        float old[N];
        fb_nn_cuda_load<T, N>(old, to);
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] += old[i];
    }
    fb_nn_cuda_store<T, N>(to, v);
}

/* The sum of what the warps of a block have for their lane's column, in the order of the warps;
 * warp 0 has it. Every thread of the block calls, once per kernel. */
template <int warps> static __device__ __forceinline__ double fb_nn_cuda_over_warps(double part)
{
    __shared__ double parts[warps][32];
    const int lane = (int)(threadIdx.x % 32), warp = (int)(threadIdx.x / 32);
    parts[warp][lane] = part;
    __syncthreads();
    double sum = parts[0][lane];
#pragma unroll
    for (int i = 1; i < warps; i++)
        sum += parts[i][lane];
    return sum;
}

/* Calls f with a value of the context's element type. */
template <typename F> static inline void fb_nn_cuda_by_type(const struct fb_nn_cuda *c, F f)
{
    if (fb_nn_cuda_is_narrow(c))
        f(__nv_bfloat16());
    else
        f(float());
}

#endif
