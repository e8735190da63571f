/*
 * Flow-Attention, normal form, forward, bf16 or f16, heads of 64, on Hopper, for many heads of some
 * thousand tokens: two blocks to a head, a cluster, each with half of its tokens in all passes.
 *
 *   sums     phi of k and q, their column sums                     reads k, q    exchange 2 d
 *   flows    alpha, beta; w = sum alpha q, u = sum beta k          reads k, q    exchange 2 d
 *   product  o, E, Z, G = (E k)^T v                                reads k, v    exchange d^2
 *   out      alpha, c, s, out = s alpha scale q G                  reads q, writes out
 *
 * Clusters of two are those that leave no multiprocessor idle, so that as many heads as it has
 * pairs of them are at work at a time. What tiles of keys and queries have room in shared memory
 * stay there as phi; the others come again from the L2 cache.
 *
 * Sums are f32; operands of products have 16 bits, vectors in dot products are two such numbers.
 * Each block adds the other's part to its own: same bits every time, on every device.
 */
#include "flow_cuda_pair.cuh"

#include "cuda_launch.cuh"
#include "flow_cuda.h"
#include "flow_options.h"

namespace
{

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) pair_kernel(const __grid_constant__ pair_arguments a)
{
#if FB_HAVE_WGMMA
    extern __shared__ __align__(1024) char shared[];
    pair_block block(a, shared);
    pair_shared &own = block.own;
    pair_head head = block.feed;
#pragma unroll 1
    for (uint32_t round = 0;; round ^= 1) {
        sum_sides<T>(block, round);
        exchange_columns<T>(block, SUMS, own.sums, own.total, round);
        sum_flows<T>(block);
        exchange_columns<T>(block, FLOWS, own.flows, own.flow, round);
        sum_product<T>(block);
        exchange_product<T>(
            block, a.saved == nullptr ? nullptr : a.saved + head.problem * a.saved_count, round);
        __syncthreads();
        write_sinks<T>(block, head);
        const int next = head.problem + (int)gridDim.y;
        if (next >= a.problems)
            return;
        head = block.head_of(next);
        block.keep(head);
    }
#else
    (void)a;
#endif
}

constexpr char kName[] = "flow's pairs";

/* What comes through the ring: keys and queries for the sums; for the flows the same from the last
 * to the first; keys and values in turn; queries. */
void list_visits(pair_arguments &a)
{
    int count = 0;
    const auto visit = [&](pair_tensor tensor, int tile) {
        a.visits[count++] = 4U * (uint32_t)(tile * kSlotTokens) + tensor;
    };
    for (int tile = a.kept[PAIR_K]; tile < a.tiles; tile++)
        visit(PAIR_K, tile);
    for (int tile = a.kept[PAIR_Q]; tile < a.tiles; tile++)
        visit(PAIR_Q, tile);
    for (int tile = a.tiles - 1; tile >= a.kept[PAIR_Q]; tile--)
        visit(PAIR_Q, tile);
    for (int tile = a.tiles - 1; tile >= a.kept[PAIR_K]; tile--)
        visit(PAIR_K, tile);
    for (int tile = 0; tile < a.tiles; tile++) {
        if (tile >= a.kept[PAIR_K])
            visit(PAIR_K, tile);
        visit(PAIR_V, tile);
    }
    for (int tile = a.kept[PAIR_Q]; tile < a.tiles; tile++)
        visit(PAIR_Q, tile);
    a.visit_count = count;
}

cluster_launch launch_of(const fb_flow_cuda_plan &plan, void *stream)
{
    return {
        .name = kName,
        .blocks = 2,
        .threads = kThreads,
        .heads = plan.pairs,
        .shared_bytes = kPairBytes,
        .most_shared = true,
        .stream = stream,
    };
}

auto kernel_of(const fb_problem &p)
{
    return p.dtype == FB_F16 ? pair_kernel<__half> : pair_kernel<__nv_bfloat16>;
}

} // namespace

extern "C" bool fb_flow_cuda_pair_fits(const struct fb_problem *p,
                                       const struct fb_flow_cuda_plan *plan)
{
    return fb_cuda_at_once(launch_of(*plan, nullptr), (const void *)kernel_of(*p)) > 0;
}

extern "C" enum fb_status fb_flow_cuda_pair(const struct fb_problem *p, const struct fb_call *call,
                                            const struct fb_flow_cuda_plan *plan,
                                            struct fb_error *error)
{
    pair_arguments a = {};
    enum fb_status status = fb_cuda_map_rows(call->k, &a.in[PAIR_K], kName, error);
    if (status == FB_OK)
        status = fb_cuda_map_rows(call->q, &a.in[PAIR_Q], kName, error);
    if (status == FB_OK)
        status = fb_cuda_map_rows(call->v, &a.in[PAIR_V], kName, error);
    if (status == FB_OK)
        status = fb_cuda_map_rows(call->out, &a.out, kName, error);
    if (status != FB_OK)
        return status;
    a.heads = (int)p->heads;
    a.group = (int)(p->heads / p->kv_heads);
    a.problems = (int)plan->heads;
    a.q_len = (int)p->q_len;
    a.kv_len = (int)p->kv_len;
    a.tiles = plan->pair_tiles;
    a.kept[PAIR_K] = plan->pair_keys;
    a.kept[PAIR_Q] = plan->pair_queries;
    list_visits(a);
    a.clamp = fb_flow_options_of(p).clamp;
    a.saved = (float *)call->saved;
    a.saved_count = plan->totals_count;
    return fb_cuda_launch_clusters(launch_of(*plan, call->stream), kernel_of(*p), a, error);
}
