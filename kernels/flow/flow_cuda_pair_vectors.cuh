/* Vectors over the features that the two blocks of a head have in common, and products of a warp's
 * tokens with them: heads of 64, bf16 or f16. flow_cuda_pair.cu tells the whole. */
#ifndef FB_FLOW_CUDA_PAIR_VECTORS_CUH
#define FB_FLOW_CUDA_PAIR_VECTORS_CUH

#include "flow_cuda_pair_ring.cuh"

namespace
{

#if FB_HAVE_WGMMA

/* ---- dot products by the tensor cores -------------------------------------------------------- */

/* Where a vector's number is in an operand, in numbers. */
__device__ inline int vector_place(int col)
{
    return col / 2 % 4 * 16 + col / 8 * 2 + col % 2;
}

/* One number of a vector, by one of the threads of the first warpgroup, which have one each of the
 * same two. */
template <typename T> __device__ inline void put_number(pair_vector &vector, int col, float x)
{
    vector.values[col] = x;
    if constexpr (kNarrow<T>)
        sync_warpgroup();
    const float operand = (x + kEps) * vector_range<T>(vector.values).into;
    const T high = from_f32<T>(operand);
    reinterpret_cast<T *>(vector.operand[0])[vector_place(col)] = high;
    reinterpret_cast<T *>(vector.operand[1])[vector_place(col)] =
        from_f32<T>(operand - to_f32(high));
}

/* Two vectors, eps added, as b of a product: columns 0 and 1 hold the first as two numbers of 16
 * bits, 2 and 3 the second; the others hold them again. */
template <typename T> struct vector_pair {
    uint32_t b[4][2];
    float constant[2]; /* eps times a vector's sum */
    vector_factors<T> first, second;

    __device__ vector_pair(const pair_vector &x, const pair_vector &y)
        : first(vector_range<T>(x.values)), second(vector_range<T>(y.values))
    {
        const int g = threadIdx.x % 32 / 4;
        read((g / 2 % 2 == 0 ? x : y).operand[g % 2]);
        constant[0] = eps_term(x.values);
        constant[1] = eps_term(y.values);
    }

    __device__ explicit vector_pair(const pair_vector &x)
        : first(vector_range<T>(x.values)), second(first)
    {
        read(x.operand[threadIdx.x / 4 % 2]);
        constant[0] = constant[1] = eps_term(x.values);
    }

    __device__ void read(const uint4 *operand)
    {
        const int t = threadIdx.x % 4;
        const uint4 x = operand[2 * t], y = operand[2 * t + 1];
        const uint32_t numbers[4][2] = {{x.x, x.y}, {x.z, x.w}, {y.x, y.y}, {y.z, y.w}};
#pragma unroll
        for (int step = 0; step < 4; step++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                b[step][half] = numbers[step][half];
    }
};

/* (x + eps) . (vector + eps) of the rows g and g + 8 with both vectors, in all lanes. */
template <typename T>
__device__ inline void dot_pairs(strip_dots (&dots)[2], const uint32_t (&x)[4][4],
                                 const vector_pair<T> &v)
{
    float c[4] = {}, d[4] = {}; /* two sums: half the latency */
#pragma unroll
    for (int step = 0; step < 4; step += 2) {
        multiply<T>(c, x[step], v.b[step][0], v.b[step][1]);
        multiply<T>(d, x[step + 1], v.b[step + 1][0], v.b[step + 1][1]);
    }
    const float low = c[0] + d[0] + c[1] + d[1], high = c[2] + d[2] + c[3] + d[3];
    const int quad = (int)threadIdx.x % 32 & ~3;
#pragma unroll
    for (int i = 0; i < 2; i++)
        dots[i] = {
            __shfl_sync(0xffffffffU, low, quad + i) * (i == 0 ? v.first.back : v.second.back) +
                v.constant[i],
            __shfl_sync(0xffffffffU, high, quad + i) * (i == 0 ? v.first.back : v.second.back) +
                v.constant[i]};
}

/* Likewise with the first one only. */
template <typename T>
__device__ inline strip_dots dot_first(const uint32_t (&x)[4][4], const vector_pair<T> &v)
{
    float c[4] = {}, d[4] = {};
#pragma unroll
    for (int step = 0; step < 4; step += 2) {
        multiply<T>(c, x[step], v.b[step][0], v.b[step][1]);
        multiply<T>(d, x[step + 1], v.b[step + 1][0], v.b[step + 1][1]);
    }
    const int quad = (int)threadIdx.x % 32 & ~3;
    return {
        __shfl_sync(0xffffffffU, c[0] + d[0] + c[1] + d[1], quad) * v.first.back + v.constant[0],
        __shfl_sync(0xffffffffU, c[2] + d[2] + c[3] + d[3], quad) * v.first.back + v.constant[0]};
}

/* ---- sums of columns ------------------------------------------------------------------------- */

/* The block's parts to the other one, and both together; kDim of either kind. */
template <typename T>
__device__ inline void exchange_columns(pair_block &block, pair_exchange name, float *remote,
                                        pair_vector *total, uint32_t round)
{
    pair_shared &own = block.own;
    __syncthreads();
    if (threadIdx.x < 2 * kDim) {
        float sum = 0.0F;
#pragma unroll
        for (int i = 0; i < kWarps; i++)
            sum += own.parts[i][threadIdx.x / kDim][threadIdx.x % kDim];
        send(remote_address(shared_address(remote + threadIdx.x), 1 - block.rank),
             remote_address(shared_address(&own.exchanges[name]), 1 - block.rank), sum);
        await_round(&own.exchanges[name], round);
        put_number<T>(total[threadIdx.x / kDim], threadIdx.x % kDim, sum + remote[threadIdx.x]);
        if (threadIdx.x == 0)
            expect_again(&own.exchanges[name], 2 * kDim * (int)sizeof(float));
    }
    __syncthreads();
}

#endif

} // namespace

#endif
