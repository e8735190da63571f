/*
 * Flow-Attention, normal form, forward, bf16 or f16, head dimension 64, on Hopper: a cluster of
 * blocks holds one head's queries, keys and values in its shared memory, so that they are read once
 * (4 N d numbers moved), and exchanges what it sums through distributed shared memory.
 *
 *   sums     phi of the block's q and k, in place; their column sums                exchange 2 d
 *   flows    alpha, beta; w = sum alpha q, u = sum beta k                           exchange 2 d
 *   product  o, E, Z, G = k^T (E v)                                                 exchange d^2
 *   out      c, s, out = s alpha scale q G
 *
 * A warp owns the same rows in every pass but the product. Dot products with vectors are products
 * of the tensor cores, too: a vector rounded to bf16 moves alpha, beta, c and o by 3e-4, an eighth
 * of what rounding phi moves a term by. grid (ranks, heads), cluster (ranks), block 256; shared:
 * three tiles of `tokens` rows, small arrays. Blocks add the ranks' parts in the order of the
 * ranks: same bits every time.
 */
#include "flow_cuda_cluster.cuh"

#include "flow_cuda.h"

namespace
{

/* Machine code for Hopper; other devices never launch it. */
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    cluster_kernel(const __grid_constant__ cluster_arguments arguments)
{
#if __CUDA_ARCH__ >= 900
    extern __shared__ __align__(1024) char shared[];
    const int rank = (int)blockIdx.x, ranks = (int)gridDim.x;
    const int tokens = arguments.tokens;
    const block_tiles x = carve(shared, tokens);
    const int64_t b = blockIdx.y / arguments.heads, h = blockIdx.y % arguments.heads;
    const int64_t kv_h = h / arguments.group;
    const int first_token = (int)blockIdx.x * tokens;
    const int valid_q = min(max(arguments.q_len - first_token, 0), tokens);
    const int valid_k = min(max(arguments.kv_len - first_token, 0), tokens);
    const int warp = threadIdx.x / 32, rows = tokens / kWarps, first = warp * rows;

    const cluster_factors<T> factors(arguments);
    ready_exchanges(x.own, ranks);
    fetch_tile(x.k, arguments.k, b, kv_h, first_token, arguments.kv_len, tokens);
    commit_copies();
    fetch_tile(x.q, arguments.q, b, h, first_token, arguments.q_len, tokens);
    commit_copies();
    fetch_tile(x.v, arguments.v, b, kv_h, first_token, arguments.kv_len, tokens);
    commit_copies();
    wait_copies<2>();
    __syncthreads();
#pragma unroll 1
    for (int side = 0; side < 2; side++) { /* keys, then queries: one code for both */
        map_rows<T>(side == 0 ? x.k : x.q, first, rows, side == 0 ? valid_k : valid_q, x.own, side);
        wait_copies<1>();
        __syncthreads();
    }
    /* every block's barriers stand before anything is sent */
    await_cluster();
    join_parts(x.own, rank, ranks, SUMS, x.own->sums, x.own->total);
#pragma unroll 1
    for (int side = 0; side < 2; side++)
        flow_rows<T>(side == 0 ? x.k : x.q, first, rows, side == 0 ? valid_k : valid_q, x.own, side,
                     side == 0 ? factors.beta : factors.alpha, x.alpha);
    join_parts(x.own, rank, ranks, FLOWS, x.own->flows, x.own->flow);

    compete_rows<T>(x, first, rows, valid_k, arguments.clamp);
    wait_copies<0>();
    __syncthreads();
    send_normaliser(x.own, rank, ranks);
    float sum[32 / kWarps][4] = {};
    multiply_block<T>(x, tokens, sum);
    /* who has some warps' parts writes G in place of the keys, which no warp reads any more */
    __syncthreads();
    send_product(x.own, rank, ranks, sum);
    share_product<T>(x, rank, ranks, (float)arguments.kv_len, factors.state.into,
                     saved_of(arguments));
    write_rows<T>(x, arguments, b, h, first_token, first, rows, valid_q,
                  (float)arguments.q_len / (float)arguments.kv_len, factors.state.back);
#else
    (void)arguments;
#endif
}

size_t shared_bytes(int tokens)
{
    return (size_t)3 * tokens * kRowBytes + sizeof(cluster_shared) + (size_t)tokens * sizeof(float);
}

cluster_launch launch_of(const fb_flow_cuda_plan &plan, void *stream)
{
    return {
        .name = "flow's cluster",
        .blocks = plan.cluster_ranks,
        .threads = kThreads,
        .heads = plan.heads,
        .shared_bytes = shared_bytes(plan.cluster_tokens),
        .most_shared = false,
        .stream = stream,
    };
}

auto kernel_of(const fb_problem &p)
{
    return p.dtype == FB_F16 ? cluster_kernel<__half> : cluster_kernel<__nv_bfloat16>;
}

} // namespace

extern "C" void fb_flow_cuda_read_room(struct fb_flow_cuda_room *room)
{
    *room = {};
    room->hopper = fb_cuda_is_hopper();
    if (cudaDeviceGetAttribute(&room->multiprocessors, cudaDevAttrMultiProcessorCount, 0) !=
        cudaSuccess)
        room->multiprocessors = 0;
}

extern "C" bool fb_flow_cuda_cluster_fits(const struct fb_problem *p,
                                          const struct fb_flow_cuda_plan *plan)
{
    return fb_cuda_at_once(launch_of(*plan, nullptr), (const void *)kernel_of(*p)) > 0;
}

extern "C" enum fb_status fb_flow_cuda_cluster(const struct fb_problem *p,
                                               const struct fb_call *call,
                                               const struct fb_flow_cuda_plan *plan,
                                               struct fb_error *error)
{
    cluster_arguments arguments = {};
    arguments.q = view_of(call->q);
    arguments.k = view_of(call->k);
    arguments.v = view_of(call->v);
    arguments.out = view_of(call->out);
    arguments.heads = (int)p->heads;
    arguments.group = (int)(p->heads / p->kv_heads);
    arguments.q_len = (int)p->q_len;
    arguments.kv_len = (int)p->kv_len;
    arguments.tokens = plan->cluster_tokens;
    arguments.clamp = fb_flow_options_of(p).clamp;
    arguments.saved = (float *)call->saved;
    arguments.saved_count = plan->totals_count;
    return fb_cuda_launch_clusters(launch_of(*plan, call->stream), kernel_of(*p), arguments, error);
}
