/*
 * Gradients of Flow-Attention, normal form, bf16 or f16, head dimension 64, on Hopper in one
 * launch: a cluster of blocks holds one head's q, k, v and dout in its shared memory, so that they
 * are read once (7 N d numbers moved), and exchanges what it sums through distributed shared memory
 * (flow_cuda_gradient.cu tells the names).
 *
 *   gather   phi(q), h, alpha, s, dr, dc; dM = sum q (r g)^T, du         exchange d^2 + d, d^2
 *   spread   phi(k), beta, o, p, t, do, db; dw, dsq; dv                  exchange 2 d
 *   sinks    da; dsk; dq                                                 exchange d
 *   sources  dk
 *
 * With the tokens at hand dsk = sum da q' is one more sum, which takes the place of the moments. A
 * warp owns 16 tokens of either side in every pass but the product. What dq and dk consist of
 * before the last sums wait in the tiles as 16 bits. grid (ranks, heads), cluster (ranks), block 32
 * Warps; shared: five tiles of 16 Warps rows, dM, small arrays. Blocks add the ranks' parts in the
 * order of the ranks: same bits every time.
 */
#include "flow_cuda_cluster_gradient.cuh"

#include "cuda_launch.cuh"
#include "flow_cuda.h"

namespace
{

#if FB_HAVE_WGMMA

__device__ inline head_place place_of(const cluster_gradient_arguments &a, int first)
{
    const float *totals = a.saved + blockIdx.y * a.saved_count;
    head_place at;
    at.b = blockIdx.y / a.heads;
    at.h = blockIdx.y % a.heads;
    at.first = first;
    at.valid_q = a.q_len - first;
    at.valid_k = a.kv_len - first;
    at.state = totals + FB_FLOW_CUDA_VECTORS * kDim + FB_FLOW_CUDA_SCALARS;
    at.scale = totals[FB_FLOW_CUDA_VECTORS * kDim];
    return at;
}

/* Vectors, M, q and dout are there; k and v, too, or on their way. */
template <typename T, int Warps, bool Whole>
__device__ void fetch_head(const gradient_block<Warps> &x, const cluster_gradient_arguments &a,
                           const head_place &head, float factor)
{
    constexpr int vectors = FB_FLOW_CUDA_VECTORS * kDim;
    const float vector = a.saved[blockIdx.y * a.saved_count + threadIdx.x % vectors];
    const matrix_rows<32 * Warps> matrix(head.state);
    ready_gradient(x);
    if constexpr (!Whole) {
        read_tile<Warps>(x.q, a.q, head, head.valid_q);
        read_tile<Warps>(x.g, a.dout, head, head.valid_q);
    } else if (threadIdx.x == 0) {
        copy_tiles(x, a, head, TILE_Q, TILE_G, 0);
    }
    if (threadIdx.x < vectors)
        x.own->vectors[threadIdx.x / kDim][threadIdx.x % kDim] = vector + kEps;
    matrix.template put<T>(x.slope, head.scale * factor);
    publish_shared();
    __syncthreads();
    if constexpr (Whole) {
        barrier_wait(shared_address(&x.own->arrivals[0]), 0);
        /* not before: what is waited for would come later */
        if (threadIdx.x == 0)
            copy_tiles(x, a, head, TILE_K, TILE_V, 1);
        __syncwarp();
    } else {
        read_tile<Warps>(x.k, a.k, head, head.valid_k);
        read_tile<Warps>(x.v, a.v, head, head.valid_k);
    }
}

#endif

/* Machine code for Hopper; other devices never launch it. */
template <typename T, int Warps, bool Whole>
__global__ void __launch_bounds__(32 * Warps, 16 / Warps)
    cluster_gradient(const __grid_constant__ cluster_gradient_arguments a)
{
#if FB_HAVE_WGMMA
    extern __shared__ __align__(1024) char gradient_tiles[];
    const gradient_block<Warps> x = carve_gradient<Warps>(gradient_tiles);
    asm volatile("griddepcontrol.wait;" ::: "memory"); /* what the stream did before is done */
    const head_place head = place_of(a, x.rank * 16 * Warps);
    const int row = (int)threadIdx.x / 32 * 16, g = threadIdx.x % 32 / 4;
    const lane_places at;
    const gradient_factors<T> factors(a.ranges);
    fetch_head<T, Warps, Whole>(x, a, head, factors.state.into);

    uint32_t packed[4][4]; /* dq as far as it is known, then phi'(k) */
    sink_gradients sinks =
        gather_sinks<T>(x, (float)a.q_len / (float)a.kv_len, factors, head.valid_q, packed, at);
    const strip_dots da = sinks.da;
    /* every block's barriers stand before anything is sent */
    await_cluster();
    if (threadIdx.x < 32 * kProductWarps<Warps>) {
        product_part<Warps> product = {};
        multiply_tiles<Warps, T>(product, x.q, x.g);
        send_product<Warps>(x, product, PRODUCT);
    }
    send_columns<kDim, Warps>(x, x.own->du[0], PRODUCT);
    if constexpr (Whole)
        barrier_wait(shared_address(&x.own->arrivals[1]), 0);
    __syncthreads(); /* k and v are there; r g has been read */
    put_packed(x.g + row * kRowBytes, packed, at);

    strip_values phi;
    uint32_t keys[4][4];
    source_strip sources = open_source_strip<T>(
        phi, shared_address(x.k) + row * kRowBytes, x.own->vectors[W], head.scale, a.clamp,
        row + g < head.valid_k, row + g + 8 < head.valid_k, at);
    share_gradients<T>(x, head.state, head.scale / (float)a.kv_len * factors.share.back,
                       factors.share.back * factors.matrix.into);
    add_columns<kDim>(x, x.own->du[0], PRODUCT, x.own->vectors[DU]);
    __syncthreads();
    const float back = factors.matrix.back;
    spread_sources<T>(x, sources, phi, keys, back, a.clamp, head.valid_k, at);
    pack_strip<T>(packed, phi);
    __syncthreads();
    send_columns<2 * kDim, Warps>(x, x.own->later.flows[0][0], FLOWS);
    multiply_keys<T>(x, keys, {sources.p.low * back, sources.p.high * back}, at);
    write_side<Whole>(a, RESULT_DV, a.dv, head, x.v, head.valid_k);
    add_columns<2 * kDim>(x, x.own->later.flows[0][0], FLOWS, x.own->vectors[DW]);
    __syncthreads();
    end_sinks<T>(x, sinks, at);
    __syncthreads();
    send_columns<kDim, Warps>(x, x.own->later.sinks[0], SINKS);
    complete_sinks<T>(x, sinks, da, at);
    write_side<Whole>(a, RESULT_DQ, a.dq, head, x.g, head.valid_q);
    add_columns<kDim>(x, x.own->later.sinks[0], SINKS, x.own->vectors[DSK]);
    __syncthreads();
    complete_sources<T>(x, packed, at);
    write_side<Whole>(a, RESULT_DK, a.dk, head, x.k, head.valid_k);
    if constexpr (Whole)
        await_put_rows<0>(); /* they are read from shared memory */
#else
    (void)a;
#endif
}

bool is_wide(const fb_flow_cuda_plan &plan)
{
    return plan.gradient_strips.tokens > FB_FLOW_CUDA_STRIP_TOKENS;
}

template <typename T> auto kernel_of(bool wide, bool whole)
{
    if (whole)
        return wide ? cluster_gradient<T, 16, true> : cluster_gradient<T, 8, true>;
    return wide ? cluster_gradient<T, 16, false> : cluster_gradient<T, 8, false>;
}

constexpr char kName[] = "flow's gradient";

enum fb_status map_tensors(const fb_call &call, const fb_flow_cuda_plan &plan,
                           cluster_gradient_arguments &a, fb_error *error)
{
    const struct {
        const fb_tensor *tensor;
        CUtensorMap *map;
        int rows;
    } maps[] = {
        {&call.q, &a.in[TILE_Q], plan.gradient_strips.tokens},
        {&call.k, &a.in[TILE_K], plan.gradient_strips.tokens},
        {&call.v, &a.in[TILE_V], plan.gradient_strips.tokens},
        {&call.dout, &a.in[TILE_G], plan.gradient_strips.tokens},
        {&call.dq, &a.out[RESULT_DQ], kMapRows},
        {&call.dk, &a.out[RESULT_DK], kMapRows},
        {&call.dv, &a.out[RESULT_DV], kMapRows},
    };
    for (const auto &x : maps) {
        const enum fb_status status = fb_cuda_map_rows(*x.tensor, x.map, kName, error, x.rows);
        if (status != FB_OK)
            return status;
    }
    return FB_OK;
}

auto kernel_of(const fb_problem &p, const fb_flow_cuda_plan &plan, bool whole)
{
    return p.dtype == FB_F16 ? kernel_of<__half>(is_wide(plan), whole)
                             : kernel_of<__nv_bfloat16>(is_wide(plan), whole);
}

cluster_launch launch_of(const fb_flow_cuda_plan &plan, void *stream)
{
    return {
        .name = kName,
        .blocks = plan.gradient_strips.ranks,
        .threads = 2 * plan.gradient_strips.tokens,
        .heads = plan.heads,
        .shared_bytes = is_wide(plan) ? kGradientBytes<16> : kGradientBytes<8>,
        .most_shared = true,
        .early = true,
        .stream = stream,
    };
}

} // namespace

extern "C" bool fb_flow_cuda_cluster_gradient_fits(const struct fb_problem *p,
                                                   const struct fb_flow_cuda_plan *plan)
{
    const cluster_launch launch = launch_of(*plan, nullptr);
    return fb_cuda_at_once(launch, (const void *)kernel_of(*p, *plan, true)) > 0 &&
           fb_cuda_at_once(launch, (const void *)kernel_of(*p, *plan, false)) > 0;
}

extern "C" enum fb_status fb_flow_cuda_cluster_gradient(const struct fb_problem *p,
                                                        const struct fb_call *call,
                                                        const struct fb_flow_cuda_plan *plan,
                                                        bool whole, struct fb_error *error)
{
    cluster_gradient_arguments arguments = {};
    const enum fb_status status = whole ? map_tensors(*call, *plan, arguments, error) : FB_OK;
    if (status != FB_OK)
        return status;
    arguments.q = view_of(call->q);
    arguments.k = view_of(call->k);
    arguments.v = view_of(call->v);
    arguments.dout = view_of(call->dout);
    arguments.dq = view_of(call->dq);
    arguments.dk = view_of(call->dk);
    arguments.dv = view_of(call->dv);
    arguments.heads = (int)p->heads;
    arguments.q_len = (int)p->q_len;
    arguments.kv_len = (int)p->kv_len;
    arguments.clamp = fb_flow_options_of(p).clamp;
    arguments.saved = (const float *)call->saved;
    arguments.saved_count = plan->totals_count;
    arguments.ranges = gradient_ranges_of((double)p->q_len, (double)p->kv_len);
    return fb_cuda_launch_clusters(launch_of(*plan, call->stream), kernel_of(*p, *plan, whole),
                                   arguments, error);
}
