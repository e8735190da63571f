/* What the blocks of a team tell one another, through memory, in places of their own, and how they
 * add it up: flow_cuda_team.cu tells the whole. */
#ifndef FB_FLOW_CUDA_TEAM_EXCHANGE_CUH
#define FB_FLOW_CUDA_TEAM_EXCHANGE_CUH

#include "flow_cuda_team_ring.cuh"

namespace
{

#if FB_HAVE_WGMMA

enum team_meeting { SUMS_MET, FLOWS_MET, PRODUCTS_MET, STATE_MET };

struct team_exchange {
    float *sums, *flows, *products; /* [2][ranks][...], [ranks][...] */
    uint2 *state;
    unsigned *counters; /* by meeting, 8 words apart */
    int ranks;

    __device__ team_exchange(const team_arguments &a)
    {
        const int team = (int)blockIdx.x / a.ranks;
        ranks = a.ranks;
        sums = a.exchange + team * exchange_count(ranks);
        flows = sums + 2 * ranks * kPartCount;
        products = flows + ranks * kPartCount;
        state = reinterpret_cast<uint2 *>(products + ranks * kProductCount);
        counters = a.counters + team * FB_FLOW_CUDA_TEAM_COUNTERS;
    }

    /* The sums of the team's head of this number: those of the next one are written while others
     * may still read these. */
    __device__ float *sums_of(int round) const
    {
        return sums + (round & 1) * ranks * kPartCount;
    }

    /* What the block has written is there for the others; read it past the first cache. */
    __device__ void arrive(team_meeting meeting) const
    {
        __syncthreads();
        if (threadIdx.x == 0)
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counters + 8 * meeting)
                         : "memory");
    }

    /* Until every block of the team has arrived for its head of this number. */
    __device__ void wait(team_meeting meeting, int round) const
    {
        const unsigned met = (unsigned)ranks * (unsigned)(round + 1);
        if (threadIdx.x == 0) {
            unsigned here = 0;
            while (here < met)
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                             : "=r"(here)
                             : "l"(counters + 8 * meeting)
                             : "memory");
        }
        __syncthreads();
    }
};

/* Column sums of the warps' strips, of which a lane has its columns over its rows, joined in order:
 * column threadIdx.x in the first kDim threads. */
__device__ float join_columns(team_shared &own, float (&sum)[8][2])
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int step = 4; step < 32; step *= 2)
                sum[n][i] += __shfl_xor_sync(0xffffffffU, sum[n][i], step);
            if (lane < 4)
                own.parts[warp][8 * n + 2 * t + i] = sum[n][i];
        }
    __syncthreads();
    float all = 0.0F;
    if (threadIdx.x < kDim)
#pragma unroll
        for (int i = 0; i < kWarps; i++)
            all += own.parts[i][threadIdx.x];
    __syncthreads();
    return all;
}

/* The sums over all blocks of what each has left, in the order of the ranks. */
__device__ void join_team(team_shared &own, int ranks, const float *parts, team_vectors &total)
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float4 sum = {0.0F, 0.0F, 0.0F, 0.0F};
#pragma unroll 4
    for (int other = warp; other < ranks; other += kWarps) {
        const float4 y =
            __ldcg(reinterpret_cast<const float4 *>(parts + other * kPartCount) + lane);
        sum.x += y.x;
        sum.y += y.y;
        sum.z += y.z;
        sum.w += y.w;
    }
    reinterpret_cast<float4 *>(own.parts[warp])[lane] = sum;
    __syncthreads();
    if (threadIdx.x < kPartCount) {
        float all = 0.0F;
#pragma unroll
        for (int i = 0; i < kWarps; i++)
            all += own.parts[i][threadIdx.x];
        (&total.plain[0][0])[threadIdx.x] = all;
        (&total.plus[0][0])[threadIdx.x] = all + kEps;
    }
    __syncthreads();
}

/* scale = S / Z, in every thread. */
__device__ float scale_of(const team_arguments &a, const team_exchange &x)
{
    const int lane = threadIdx.x % 32;
    float z = 0.0F;
    for (int other = lane; other < a.ranks; other += 32)
        z += __ldcg(x.products + (int64_t)other * kProductCount + kDim * kDim);
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        z += __shfl_xor_sync(0xffffffffU, z, step);
    return (float)a.kv_len / z;
}

/* The block's share of G over the ranks, scaled, into the team's state; saves what the backward
 * pass wants. A share is `wide` groups of four numbers, which 256 / width groups of threads sum up.
 */
template <typename T>
__device__ void join_products(const team_arguments &a, const team_exchange &x, team_shared &own,
                              int rank, float *saved)
{
    constexpr int fours = kDim * kDim / 4;
    const float scale = scale_of(a, x);
    if (saved != nullptr && rank == 0 && threadIdx.x < kPartCount) {
        saved[threadIdx.x] = own.total.plain[threadIdx.x / kDim][threadIdx.x % kDim];
        saved[kPartCount + threadIdx.x] = own.flow.plain[threadIdx.x / kDim][threadIdx.x % kDim];
        if (threadIdx.x < 2)
            saved[FB_FLOW_CUDA_VECTORS * kDim + threadIdx.x] = threadIdx.x == 0 ? scale : 0.0F;
    }
    const int wide = (fours + a.ranks - 1) / a.ranks;
    int width = 1;
    while (width < wide)
        width *= 2;
    const int column = (int)threadIdx.x % width, group = (int)threadIdx.x / width;
    const int groups = kThreads / width, index = rank * wide + column;
    const bool used = column < wide && index < fours;
    float4 *sums = reinterpret_cast<float4 *>(&own.parts[0][0]); /* [groups][width] */
    float4 sum = {0.0F, 0.0F, 0.0F, 0.0F};
    for (int other = group; used && other < a.ranks; other += groups) {
        const float4 y = __ldcg(
            reinterpret_cast<const float4 *>(x.products + (int64_t)other * kProductCount) + index);
        sum.x += y.x;
        sum.y += y.y;
        sum.z += y.z;
        sum.w += y.w;
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (group > 0 || !used)
        return;
    for (int other = 1; other < groups; other++) {
        const float4 y = sums[other * width + column];
        sum.x += y.x;
        sum.y += y.y;
        sum.z += y.z;
        sum.w += y.w;
    }
    if (saved != nullptr)
        reinterpret_cast<float4 *>(saved + FB_FLOW_CUDA_VECTORS * kDim +
                                   FB_FLOW_CUDA_SCALARS)[index] = sum;
    const float weight = scale * range_factors<T, kStateBits>((float)a.kv_len).into;
    x.state[index] = make_uint2(pack_pair<T>(sum.x * weight, sum.y * weight),
                                pack_pair<T>(sum.z * weight, sum.w * weight));
}

/* scale G as a tile. */
__device__ void take_state(const team_exchange &x, team_shared &own)
{
    for (int i = threadIdx.x; i < kDim * kDim / 8; i += kThreads)
        *reinterpret_cast<uint4 *>(own.matrix + chunk_offset(i / 8, i % 8)) =
            __ldcg(reinterpret_cast<const uint4 *>(x.state) + i);
    publish_shared(); /* to the tensor cores */
    __syncthreads();
}

#endif

} // namespace

#endif
