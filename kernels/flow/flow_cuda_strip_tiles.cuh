/* What the kernels share whose warps walk through strips of 16 tokens in tiles of shared memory and
 * multiply by warpgroups: bf16 or f16, heads of 64, Hopper. */
#ifndef FB_FLOW_CUDA_STRIP_TILES_CUH
#define FB_FLOW_CUDA_STRIP_TILES_CUH

#include "cuda_wgmma.cuh"
#include "flow_cuda_strip_values.cuh"

namespace
{

#if FB_HAVE_WGMMA

/* A strip into its place as operand a. */
__device__ inline void store_strip(uint32_t strip, const uint32_t (&a)[4][4], const lane_places &at)
{
#pragma unroll
    for (int step = 0; step < 4; step++)
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                         strip + (at.straight ^ (uint32_t)(step << 5))),
                     "r"(a[step][0]), "r"(a[step][1]), "r"(a[step][2]), "r"(a[step][3])
                     : "memory");
}

/* A barrier of the warps of a warpgroup. */
__device__ inline void sync_warpgroup()
{
    asm volatile("bar.sync %0, 128;" ::"r"(1 + (int)threadIdx.x / 128) : "memory");
}

/* The strip times the matrix, each row times its weight. By a warpgroup. */
template <typename T = __nv_bfloat16>
__device__ void multiply_rows(uint32_t (&strip)[4][4], uint64_t matrix, const strip_dots &weight)
{
    float y[8][4];
    wgmma_begin();
    wgmma_first<T>(y, strip[0], matrix);
#pragma unroll
    for (int step = 1; step < 4; step++)
        wgmma_add<T>(y, strip[step], matrix + 128 * step);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(y);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            y[n][i] *= i < 2 ? weight.low : weight.high;
    pack_strip<T>(strip, y);
}

/* The sum of the strip's rows, each times its weight, of which a lane has its columns over its
 * rows.
 */
__device__ inline void add_rows(float (&sum)[8][2], const strip_values &phi,
                                const strip_dots &weight)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            sum[n][i] = fmaf(weight.low, phi[n][i], fmaf(weight.high, phi[n][i + 2], sum[n][i]));
}

#endif

} // namespace

#endif
