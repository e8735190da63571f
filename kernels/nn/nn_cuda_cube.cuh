/* Kernels over [batch, tokens, width]: N neighbouring columns a thread. */
#ifndef FB_NN_CUDA_CUBE_CUH
#define FB_NN_CUDA_CUBE_CUH

#include "nn_cuda_vector.cuh"

static inline unsigned int fb_nn_cuda_blocks(int64_t count, int64_t per_block)
{
    return (unsigned int)((count + per_block - 1) / per_block);
}

enum { FB_NN_CUDA_CUBE_THREADS = 256 };

/* f(v, b, t, i) sets v to the values at columns i to i + N - 1, which are put to y, or added. */
template <typename Y, int N, typename F>
__global__ void fb_nn_cuda_cube_kernel(Y *y, bool add, uint32_t tokens, uint32_t width,
                                       uint32_t count, F f)
{
    const uint32_t at = blockIdx.x * FB_NN_CUDA_CUBE_THREADS + threadIdx.x;
    if (at >= count)
        return;
    const uint32_t columns = width / N, row = at / columns, i = N * (at % columns);
    float v[N];
    f(v, (int64_t)(row / tokens), (int64_t)(row % tokens), (int64_t)i);
    fb_nn_cuda_put<Y, N>(y + (int64_t)row * width + i, add, v);
}

/* N: columns of a thread where they divide the width. */
template <int N, typename Y, typename F>
static void fb_nn_cuda_cube(struct fb_nn_cuda *c, Y *y, bool add, int64_t batch, int64_t tokens,
                            int64_t width, F f, const char *what)
{
    const bool whole = width % N == 0;
    const int64_t count = batch * tokens * (whole ? width / N : width);
    const unsigned int blocks = fb_nn_cuda_blocks(count, FB_NN_CUDA_CUBE_THREADS);
    cudaStream_t stream = (cudaStream_t)fb_nn_cuda_stream(c);
    if (count > UINT32_MAX - FB_NN_CUDA_CUBE_THREADS) {
        fb_nn_cuda_note(c, cudaErrorInvalidConfiguration, "a batch of more than 2^32 values");
        return;
    }
    if (whole)
        fb_nn_cuda_cube_kernel<Y, N><<<blocks, FB_NN_CUDA_CUBE_THREADS, 0, stream>>>(
            y, add, (uint32_t)tokens, (uint32_t)width, (uint32_t)count, f);
    else
        fb_nn_cuda_cube_kernel<Y, 1><<<blocks, FB_NN_CUDA_CUBE_THREADS, 0, stream>>>(
            y, add, (uint32_t)tokens, (uint32_t)width, (uint32_t)count, f);
    fb_nn_cuda_note(c, cudaGetLastError(), what);
}

#endif
