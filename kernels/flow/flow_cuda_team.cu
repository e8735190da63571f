/*
 * Flow-Attention, normal form, forward, bf16 or f16, heads of 64, for longer heads: a team of
 * blocks takes one head after the other, each block the same stretch of tokens in all passes.
 *
 *   sums     phi of k and q, their column sums                     reads k, q    exchange 2 d
 *   flows    alpha, beta; w = sum alpha q, u = sum beta k          reads k, q    exchange 2 d
 *   product  o, E, Z, G = k^T (E v)                                reads k, v    exchange d^2 twice
 *   out      alpha, c, s, out = s alpha scale q G                  reads q, writes out
 *
 * There are as many teams as the device has room for, all at work at the same time. Small teams
 * wait less, large ones have fewer heads at work: then the keys of a block's tokens stay in its
 * shared memory and queries come again from the L2 cache. The plan weighs the one against the
 * other.
 *
 * A block computes the next head's sums while the team's parts of this head's are on their way
 * through the L2 cache; two blocks share a multiprocessor. Blocks of a team wait for one another,
 * so the launch is cooperative: all are there at the same time.
 *
 * Dot products with vectors are f32, operands of products have 16 bits. Blocks add the ranks' parts
 * in the order of the ranks, and the number of ranks follows from the problem alone: same bits
 * every time, on every device.
 */
#include "flow_cuda_team.cuh"

#include "flow_cuda.h"

namespace
{

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) team_kernel(const __grid_constant__ team_arguments a)
{
#if FB_HAVE_WGMMA
    extern __shared__ __align__(1024) char shared[];
    team_block block(a, shared);
    const team_exchange x(a);
    team_shared &own = block.own;
    /* The first time there is no head yet, only a next one. */
    int problem = (int)blockIdx.x / a.ranks - block.teams;
#pragma unroll 1
    for (int round = -1;; round++, problem += block.teams) {
        const bool more = problem + block.teams < a.problems;
#pragma unroll 1
        for (int half = 0; half < 2; half++) {
            if (round >= 0 && half == 0) {
                x.wait(SUMS_MET, round);
                join_team(own, a.ranks, x.sums_of(round), own.total);
                sum_flows<T>(block, x.flows);
                x.arrive(FLOWS_MET);
            } else if (round >= 0) {
                x.wait(FLOWS_MET, round);
                join_team(own, a.ranks, x.flows, own.flow);
                sum_product<T>(block, x.products + (int64_t)block.rank * kProductCount);
                block.keep_keys(problem + block.teams);
                x.arrive(PRODUCTS_MET);
            }
            if (more)
                sum_queries<T>(block, half == 0 ? 0 : block.early,
                               half == 0 ? block.early : a.tiles, x.sums_of(round + 1));
        }
        if (round >= 0) {
            x.wait(PRODUCTS_MET, round);
            join_products<T>(a, x, own, block.rank,
                             a.saved == nullptr ? nullptr : a.saved + problem * a.saved_count);
            x.arrive(STATE_MET);
        }
        if (more) {
            sum_keys<T>(block, x.sums_of(round + 1));
            x.arrive(SUMS_MET);
        }
        if (round >= 0) {
            x.wait(STATE_MET, round);
            take_state(x, own);
            write_sinks<T>(block, problem);
        }
        if (!more)
            break;
    }
#else
    (void)a;
#endif
}

auto kernel_of(const fb_problem &p)
{
    return p.dtype == FB_F16 ? team_kernel<__half> : team_kernel<__nv_bfloat16>;
}

/* Blocks of the kernel that the device has room for at a time. */
int count_places(const fb_problem &p)
{
    return fb_cuda_at_once({.name = "flow's team",
                            .blocks = 0,
                            .threads = kThreads,
                            .heads = 0,
                            .shared_bytes = kTeamBytes,
                            .most_shared = false,
                            .stream = nullptr},
                           (const void *)kernel_of(p));
}

} // namespace

extern "C" bool fb_flow_cuda_team_fits(const struct fb_problem *p,
                                       const struct fb_flow_cuda_plan *plan)
{
    return count_places(*p) >= plan->team_ranks;
}

extern "C" enum fb_status fb_flow_cuda_team(const struct fb_problem *p, const struct fb_call *call,
                                            const struct fb_flow_cuda_plan *plan,
                                            struct fb_error *error)
{
    const int64_t room = count_places(*p) / plan->team_ranks;
    const int64_t most = room < plan->teams ? room : plan->teams;
    team_arguments a = {};
    a.in[TEAM_K] = view_of(call->k);
    a.in[TEAM_Q] = view_of(call->q);
    a.in[TEAM_V] = view_of(call->v);
    a.out = view_of(call->out);
    a.heads = (int)p->heads;
    a.group = (int)(p->heads / p->kv_heads);
    a.problems = (int)plan->heads;
    a.q_len = (int)p->q_len;
    a.kv_len = (int)p->kv_len;
    a.ranks = plan->team_ranks;
    a.tiles = plan->team_tiles;
    a.kept = plan->team_kept;
    a.clamp = fb_flow_options_of(p).clamp;
    a.saved = (float *)call->saved;
    a.saved_count = plan->totals_count;
    a.counters = (unsigned *)call->scratch;
    a.exchange = (float *)(a.counters + most * FB_FLOW_CUDA_TEAM_COUNTERS);
    const cudaStream_t stream = (cudaStream_t)call->stream;
    const enum fb_status status = fb_cuda_status(
        cudaMemsetAsync(a.counters, 0, (size_t)most * FB_FLOW_CUDA_TEAM_COUNTERS * sizeof(unsigned),
                        stream),
        "flow's team", error);
    if (status != FB_OK)
        return status;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(most * plan->team_ranks));
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = kTeamBytes;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    return fb_cuda_status(cudaLaunchKernelEx(&config, kernel_of(*p), a), "flow's team", error);
}
