/* Scans over the chunks and segments of causal Flow-Attention's gradient, in f64, in order. */
#ifndef FB_FLOW_CUDA_CAUSAL_SCANS_CUH
#define FB_FLOW_CUDA_CAUSAL_SCANS_CUH

#include "flow_cuda_causal_gradient.cuh"

namespace
{

/* Parts become the sums before, or after, each of them; step apart. */
__device__ void scan_parts(float *at, int64_t count, int64_t step, bool reverse)
{
    constexpr int batch = 8; /* reads that wait together */
    double sum = 0.0;
    for (int64_t first = 0; first < count; first += batch) {
        float part[batch];
#pragma unroll
        for (int i = 0; i < batch; i++) {
            const int64_t index = reverse ? count - 1 - first - i : first + i;
            part[i] = first + i < count ? at[index * step] : 0.0F;
        }
#pragma unroll
        for (int i = 0; i < batch; i++) {
            const int64_t index = reverse ? count - 1 - first - i : first + i;
            if (first + i < count)
                at[index * step] = (float)sum;
            sum += (double)part[i];
        }
    }
}

/* grid (units, vectors), block cols */
__global__ void scan_vectors(const __grid_constant__ causal_gradient a, chunk_vector first)
{
    const int name = (int)first + (int)blockIdx.y;
    const chunk_place start = {{}, blockIdx.x, 0, 0, 0};
    scan_parts(vector_of(a, start, (chunk_vector)name) + threadIdx.x, a.chunks, a.round.s.cols,
               name >= DU);
}

/* grid (units), block 1 */
__global__ void scan_running(const __grid_constant__ causal_gradient a, int which)
{
    const chunk_place start = {{}, blockIdx.x, 0, 0, 0};
    scan_parts(&running_of(a, start, which), a.chunks, 1, which == 1);
}

/* grid (units, parts of cols * value_cols, 2), block 256 */
__global__ void scan_matrices(const __grid_constant__ causal_gradient a)
{
    const int count = a.round.s.cols * a.round.s.value_cols, which = (int)blockIdx.z;
    const int i = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    if (i < count)
        scan_parts(matrix_of(a, blockIdx.x, which, 0) + i, a.segments, count, which == 1);
}

} // namespace

#endif
