/*
 * Flow-Attention, causal form, forward, bf16, head dimension 64, on Hopper: a cluster of blocks
 * walks over a head in segments of up to 2048 tokens, which it holds in its shared memory, so that
 * queries, keys and values are read once (4 N d numbers moved) at any length.
 *
 * The scan over tokens becomes one over chunks of 64, a chunk per warp. All warps work at once;
 * what comes before a chunk they get in four exchanges between the blocks, where the normal form
 * has totals:
 *
 *   sums      phi in place; column sums of q and k                            before each chunk:
 * ck, cq flows     a, b from the triangle of q k^T; sums of alpha q and beta k     before each
 * chunk: w, u conserve  c, o likewise; E and its sum                                    before each
 * chunk: z product   k^T (p v) of each chunk                                         before each
 * chunk: M out       r (tril(q k^T) (p v) + q M)
 *
 * What comes before the segment is carried with its rounding errors. Of eps, what meets the chunk's
 * own rows is left out (2e-6 of a sum whose terms are rounded by 4e-3). Dot products with vectors
 * are products of the tensor cores, as in the normal form. grid (ranks, heads), cluster (ranks),
 * block 128, two blocks per multiprocessor: one loads while the other computes. Parts are added in
 * the order of warps, ranks and segments: same bits every time.
 */
#include "flow_cuda_causal_cluster.cuh"

#include "flow_cuda.h"

namespace
{

/* Machine code for Hopper; other devices never launch it. */
__global__ void __launch_bounds__(kThreads, 2)
    causal_cluster_kernel(const __grid_constant__ causal_cluster_arguments arguments)
{
#if __CUDA_ARCH__ >= 900
    extern __shared__ __align__(1024) char shared[];
    const int rank = (int)blockIdx.x, ranks = (int)gridDim.x;
    const causal_tiles x = {shared, shared + kTileBytes, shared + 2 * kTileBytes,
                            reinterpret_cast<causal_shared *>(shared + 3 * kTileBytes)};
    const int64_t b = blockIdx.y / arguments.heads, h = blockIdx.y % arguments.heads;
    const int64_t kv_h = h / arguments.group;
    const int first = (int)threadIdx.x / 32 * kChunk;
    float *carried = arguments.carried + blockIdx.y * (int64_t)(2 * kDim * kDim);
    if (threadIdx.x == 0) {
        expect(&x.own->barriers[SUMS], ranks * (int)sizeof x.own->sums[0]);
        expect(&x.own->barriers[FLOWS], ranks * (int)sizeof x.own->flows[0]);
        expect(&x.own->barriers[NORMALISER], ranks * (int)sizeof(float));
        expect(&x.own->barriers[PRODUCT], kHalf * (int)sizeof(float));
        expect(&x.own->barriers[STATE], kHalf * (int)sizeof(__nv_bfloat16));
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    carried_sum carried_sums = {}, carried_flows = {};
    double z = 0.0;
#pragma unroll 1
    for (int64_t segment = 0; segment < arguments.segments; segment++) {
        const uint32_t round = (uint32_t)(segment % 2);
        const int64_t start = (segment * ranks + rank) * kTokens;
        const int64_t left = arguments.length - start;
        const int valid = left < 0 ? 0 : left < kTokens ? (int)left : kTokens;
        const float n = (float)(start + first + 1);
        fetch_tile(x.k, arguments.k, b, kv_h, start, valid);
        commit_copies();
        fetch_tile(x.q, arguments.q, b, h, start, valid);
        commit_copies();
        fetch_tile(x.v, arguments.v, b, kv_h, start, valid);
        commit_copies();
        wait_copies<2>();
        __syncthreads();
#pragma unroll 1
        for (int side = 0; side < 2; side++) { /* one code for both */
            map_chunk(side == 0 ? x.k : x.q, first, valid, x.own, side);
            wait_copies<1>();
            __syncthreads();
        }
        if (segment == 0) /* every block's barriers stand before anything is sent */
            asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
        join_parts(x.own, rank, ranks, SUMS, x.own->sum_parts, x.own->sums, carried_sums, round);
#pragma unroll 1
        for (int side = 0; side < 2; side++)
            flow_chunk(x, first, valid, n, side);
        join_parts(x.own, rank, ranks, FLOWS, x.own->flow_parts, x.own->flows, carried_flows,
                   round);
        packed_triangle kept;
#pragma unroll 1
        for (int side = 0; side < 2; side++) {
            conserve_chunk(x, first, valid, n, arguments.clamp, side, kept);
            __syncwarp();
        }
        compete_chunk(x.own, rank, ranks, first, n, z, round);
        wait_copies<0>();
        __syncthreads();
        scale_values(x.v, first, x.own->share);
        float sum[8][4] = {};
        multiply_chunks(x, sum);
#pragma unroll 1
        for (int half = 0; half < 2; half++)
            exchange_half(x, rank, ranks, half, sum, carried, segment == 0, (uint32_t)half);
        const head_rows<__nv_bfloat16> out = rows_of<__nv_bfloat16>(arguments.out, b, h, start);
        write_strips<0>(x, kept, out, first, valid);
        write_strips<1>(x, kept, out, first, valid);
        __syncthreads(); /* the tiles are free */
    }
#else
    (void)arguments;
#endif
}

} // namespace

extern "C" enum fb_status fb_flow_cuda_causal_cluster(const struct fb_problem *p,
                                                      const struct fb_call *call,
                                                      const struct fb_flow_cuda_plan *plan,
                                                      struct fb_error *error)
{
    causal_cluster_arguments arguments = {};
    arguments.q = view_of(call->q);
    arguments.k = view_of(call->k);
    arguments.v = view_of(call->v);
    arguments.out = view_of(call->out);
    arguments.heads = (int)p->heads;
    arguments.group = (int)(p->heads / p->kv_heads);
    arguments.length = p->q_len;
    arguments.segments = plan->causal_segments;
    arguments.clamp = fb_flow_options_of(p).clamp;
    arguments.carried = (float *)call->scratch;
    const void *kernel = (const void *)causal_cluster_kernel;
    const size_t bytes = (size_t)3 * kTileBytes + sizeof(causal_shared);
    const enum fb_status status =
        fb_cuda_allow_shared(kernel, bytes, "causal flow's cluster", error);
    if (status != FB_OK)
        return status;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = (unsigned)plan->causal_ranks;
    attribute.val.clusterDim.y = 1;
    attribute.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)plan->causal_ranks, (unsigned)plan->heads);
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = bytes;
    config.stream = (cudaStream_t)call->stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    return fb_cuda_status(cudaLaunchKernelEx(&config, causal_cluster_kernel, arguments),
                          "causal flow's cluster", error);
}
