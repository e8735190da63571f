/*
 * Flow-Attention, causal form, forward, bf16 and f16, head dimension 64, on Hopper: a cluster of
 * blocks walks over a head in segments of up to 2048 tokens, which it holds in its shared memory,
 * so that queries, keys and values are read once (4 N d numbers moved) at any length.
 *
 * The scan over tokens becomes one over squads of eight warps, one or two of them in a block, and
 * within a squad over warps, which have 32 tokens each. All work at once; what comes before a squad
 * it gets in four exchanges, where the normal form has totals:
 *
 *   sums      phi in place; column sums of q and k               before each warp: ck, cq
 *   flows     a, b from the triangle of q k^T; sums of           before each warp: w, u
 *             alpha q and beta k
 *   weights   c, o likewise; E and its sum; p v in place         before each warp: z
 *   states    k^T (p v) of each chunk of 64                      before each chunk: M
 *   out       r (tril(q k^T) (p v) + q M)
 *
 * What comes before the segment is carried with its rounding errors. What eps adds to flows among
 * the warp's own tokens is added where one of these flows is faint, as those of tokens whose
 * features vanish; it is less than 3e-4 of the others. Dot products with vectors and sums over rows
 * are products of the tensor cores, as in the normal form. Parts are added in the order of warps,
 * ranks and segments: same bits every time. grid (blocks, heads), cluster (blocks), block 256 per
 * squad.
 *
 * A squad knows barriers of its own only, so that one that waits does not hold up the other of its
 * block. Two squads in a block and not two blocks on a multiprocessor, because clusters of two
 * blocks find room on all multiprocessors and larger ones do not (flow_cuda_plan.c).
 */
#include "flow_cuda_causal_cluster.cuh"

#include "flow_cuda.h"

namespace
{

#if FB_HAVE_WGMMA

/* What a thread keeps from pass to pass. Side 0 is the keys, side 1 the queries. */
template <typename T> struct kept_numbers {
    own_triangle scores[2];
    strip_dots sums[2][2]; /* by side and strip: the lane's part of sums over the triangle */
    float alpha;           /* n / a */
    kept_scores<T> kept;
    bool faint; /* one of the warp's flows is */
    carried_sum before_sums, before_flows;
    double before_z;
};

/* What vectors and scores take with them, in f16. */
__device__ float sum_scale(const squad_segment &x)
{
    return two_to(kSumExponent - x.magnitude());
}

__device__ float sum_undo(const squad_segment &x)
{
    return two_to(x.magnitude() - kSumExponent);
}

template <typename T> __device__ uint32_t score_scale(const squad_segment &x)
{
    if constexpr (!kNarrow<T>)
        return 0;
    const float scale = two_to(kStateExponent - x.magnitude());
    return pack_pair<T>(scale, scale);
}

/* Keys and queries; values follow when these are there, they are not needed as soon. */
__device__ void fetch_segment(const causal_cluster_arguments &a, const squad_segment &x)
{
    const int64_t b = blockIdx.y / a.heads, h = blockIdx.y % a.heads;
    fetch_rows(x.rows(0), a.k, b, h / a.group, x.at, x.w);
    fetch_rows(x.rows(1), a.q, b, h, x.at, x.w);
}

__device__ void fetch_values(const causal_cluster_arguments &a, const squad_segment &x)
{
    const int64_t b = blockIdx.y / a.heads, h = blockIdx.y % a.heads;
    fetch_rows(x.rows(2), a.v, b, h / a.group, x.at, x.w);
}

/* Where the thread's numbers are saved of the sums before the squad's first chunk. */
__device__ float *saved_sums(const causal_cluster_arguments &a, const squad_segment &x,
                             exchange_name name)
{
    static_assert(SUMS == 0 && FLOWS == 1, "in the order of what is saved");
    return a.saved.vectors(x.chunk()) + 2 * kDim * name + x.w.thread;
}

/* The gradient's segment that starts with the squad; 0: none, or the first, which has no state. */
__device__ int64_t saved_segment(const causal_cluster_arguments &a, const squad_segment &x)
{
    const int64_t segment = x.at.start >> a.saved.segment_bits;
    const bool starts = segment << a.saved.segment_bits == x.at.start;
    return x.at.valid > 0 && starts ? segment : 0;
}

template <typename T, bool Saves>
__device__ void take_sums(const causal_cluster_arguments &a, const squad_segment &x,
                          kept_numbers<T> &kept)
{
#pragma unroll 1
    for (int side = 0; side < 2; side++) {
        if (side == 0)
            wait_copies<1>();
        else
            wait_copies<0>();
        __syncwarp();
        map_rows<T>(x.rows(side), x.at.valid - x.w.first, x.w);
        sum_plain<T>(x.own->parts[x.w.order][side], x.rows(side), x.w);
    }
    fetch_values(a, x);
    x.o.sync();
    send_parts(x.own, x.o, SUMS, x.own->sums, x.w);
    const uint32_t rows[2] = {x.rows(0), x.rows(1)};
    form_triangles<T>(kept.scores, rows, x.w);
    weigh_triangle(kept.sums[0], kept.scores[0], nullptr, x.w);
    weigh_triangle(kept.sums[1], kept.scores[1], nullptr, x.w);
    join_parts<T, Saves>(x.own, x.o, SUMS, x.own->sums, kept.before_sums, x.round(), sum_scale(x),
                         saved_sums(a, x, SUMS), x.chunks(), x.w);
}

template <typename T, bool Saves>
__device__ void take_flows(const causal_cluster_arguments &a, const squad_segment &x,
                           kept_numbers<T> &kept)
{
    causal_shared *own = x.own;
    float out = add_dots<T, Saves>(kept.sums[0], x.rows(0), own, 1, sum_undo(x), x.w);
    float in = add_dots<T, Saves>(kept.sums[1], x.rows(1), own, 0, sum_undo(x), x.w);
    kept.faint = __any_sync(0xffffffffU, x.valid() && !(in >= kFaint && out >= kFaint)) != 0;
    if (kept.faint) {
        out += lift_up_to<T>(x.rows(1), 1.0F);
        in += lift_up_to<T>(x.rows(0), 1.0F);
    }
    kept.alpha = x.valid() ? x.count() * reciprocal(in) : 0.0F;
    own->beta[x.row()] = x.valid() ? x.count() * reciprocal(out) : 0.0F;
    own->alpha[x.row()] = kept.alpha;
    __syncwarp();
    const float *beta = own->beta + x.w.first, *alpha = own->alpha + x.w.first;
    sum_flows<T, Saves>(own->parts[x.w.order][0], x.rows(0), beta, x.w);
    sum_flows<T, Saves>(own->parts[x.w.order][1], x.rows(1), alpha, x.w);
    x.o.sync();
    send_parts(own, x.o, FLOWS, own->flows, x.w);
    weigh_triangle(kept.sums[0], kept.scores[0], alpha, x.w);
    weigh_triangle(kept.sums[1], kept.scores[1], beta, x.w);
    kept.kept.first.pack(kept.scores[1].first, score_scale<T>(x));
    kept.kept.second.pack(kept.scores[1].second, score_scale<T>(x));
    join_parts<T, Saves>(own, x.o, FLOWS, own->flows, kept.before_flows, x.round(), sum_scale(x),
                         saved_sums(a, x, FLOWS), x.chunks(), x.w);
}

/* sigmoid(c) / a, and what p, scores and states have taken with them. */
template <typename T>
__device__ float row_weight(const squad_segment &x, float inverse_flow, float sink)
{
    const float weight = inverse_flow * sigmoid_of<T>(sink);
    return kNarrow<T> ? weight * two_to(x.magnitude() - kStateExponent - kShareExponent) : weight;
}

template <typename T, bool Saves>
__device__ void weigh_rows(const causal_cluster_arguments &a, const squad_segment &x,
                           kept_numbers<T> &kept)
{
    causal_shared *own = x.own;
    const float n = x.count(), inverse = reciprocal(n);
    float source = add_dots<T, Saves>(kept.sums[0], x.rows(0), own, 1, sum_undo(x), x.w);
    if (kept.faint)
        source += lift_up_to<T>(x.rows(1), kept.alpha);
    const float e = in_order(x.valid() ? weight_of(source * inverse, a.clamp) : 0.0F, x.w);
    const float up_to = send_normaliser(own, x.o, e, x.w);
    float sink = add_dots<T, Saves>(kept.sums[1], x.rows(1), own, 0, sum_undo(x), x.w);
    if (kept.faint)
        sink += lift_up_to<T>(x.rows(0), own->beta[x.row()]);
    own->alpha[x.row()] = row_weight<T>(x, kept.alpha * inverse, sink * inverse);
    if (x.w.half == 1)
        form_before(kept.kept, x.rows(1), x.rows(0) - kOwn * kRowBytes, score_scale<T>(x), x.w);
    const double before = join_normaliser(own, x.o, kept.before_z, x.round(), x.w);
    if (Saves && x.w.half == 0 && x.w.lane == 0 && x.w.chunk < x.chunks())
        *a.saved.exponentials(x.chunk() + x.w.chunk) = (float)before;
    float share = in_order(n, x.w) * e * reciprocal((float)(before + (double)up_to));
    if constexpr (kNarrow<T>)
        share *= power<kShareExponent>();
    split_pair *const shares = own->spent[x.w.order].share;
    shares[x.w.lane] = split_of<T>(share);
    wait_copies<0>();
    __syncwarp();
    scale_values<T>(x.rows(2), shares, x.w);
    publish_shared(); /* keys, too */
    x.o.sync();
}

/* The states before the squad's chunks, in place of its keys. */
template <typename T, bool Saves>
__device__ void form_states(const causal_cluster_arguments &a, const squad_segment &x)
{
    const uint32_t keys = shared_address(x.tiles);
    chunk_products products = {};
    multiply_chunks<T>(products, keys, keys + 2 * kTileBytes, x.w);
    x.o.sync(); /* every warp has spent the keys */
    send_product<T>(x.own, x.o, products, x.w);
    share_state<T>(x.own, x.o, keys, a.carried + blockIdx.y * (int64_t)(2 * kDim * kDim),
                   x.index == 0, x.last, x.round(), x.w);
    leave_states<T, Saves>(x.own, x.tiles, products, x.round(),
                           two_to(kStateExponent - x.magnitude()), a.saved, saved_segment(a, x),
                           x.w);
    x.o.sync();
}

template <typename T>
__device__ void write_segment(const causal_cluster_arguments &a, const squad_segment &x,
                              const kept_scores<T> &kept)
{
    const int64_t b = blockIdx.y / a.heads, h = blockIdx.y % a.heads;
    float y[2][8][4] = {};
    form_rows(y, kept, x.rows(1), shared_address(x.tiles + x.w.chunk * kChunkBytes), x.rows(2),
              x.w);
    write_rows(y, x.own->alpha + x.w.first, rows_of<T>(a.out, b, h, x.at.start + x.w.first),
               x.at.valid - x.w.first, x.w);
}

#endif

/* Machine code for Hopper; other devices never launch it. */
template <typename T, bool Saves>
__global__ void __launch_bounds__(kSquads *kThreads, 1)
    causal_cluster_kernel(const __grid_constant__ causal_cluster_arguments arguments)
{
#if FB_HAVE_WGMMA
    extern __shared__ __align__(1024) char shared[];
    const causal_cluster_arguments &a = arguments;
    kept_numbers<T> kept;
    kept.before_sums = kept.before_flows = carried_sum{};
    kept.before_z = 0.0;
    const squad_segment start(a, shared, 0);
    ready_exchanges(start.own, start.o.ranks);
    fetch_segment(a, start);
    /* every squad's barriers stand before anything is sent */
    await_cluster();
#pragma unroll 1
    for (int64_t segment = 0; segment < a.segments; segment++) {
        if (segment + 1 == a.segments) /* the gradient's blocks may take the places that get free */
            asm volatile("griddepcontrol.launch_dependents;");
        take_sums<T, Saves>(a, squad_segment(a, shared, segment), kept);
        take_flows<T, Saves>(a, squad_segment(a, shared, segment), kept);
        weigh_rows<T, Saves>(a, squad_segment(a, shared, segment), kept);
        form_states<T, Saves>(a, squad_segment(a, shared, segment));
        write_segment(a, squad_segment(a, shared, segment), kept.kept);
        const squad_segment next(a, shared, segment + 1);
        sync_chunk(next.o, next.w); /* its tiles are free */
        if (segment + 1 < a.segments)
            fetch_segment(a, next);
    }
#else
    (void)arguments;
#endif
}

cluster_launch launch_of(const fb_flow_cuda_plan &plan, void *stream)
{
    return {
        .name = "causal flow's cluster",
        .blocks = plan.causal_blocks,
        .threads = plan.causal_squads * kThreads,
        .heads = plan.heads,
        .shared_bytes = (size_t)plan.causal_squads * kSquadBytes,
        .most_shared = false,
        .stream = stream,
    };
}

template <bool Saves> auto kernel_of(const fb_problem &p)
{
    return p.dtype == FB_F16 ? causal_cluster_kernel<__half, Saves>
                             : causal_cluster_kernel<__nv_bfloat16, Saves>;
}

} // namespace

extern "C" bool fb_flow_cuda_causal_cluster_fits(const struct fb_problem *p,
                                                 const struct fb_flow_cuda_plan *plan)
{
    return fb_cuda_at_once(launch_of(*plan, nullptr), (const void *)kernel_of<false>(*p)) > 0;
}

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
    arguments.saved = causal_saved_of(*p, *call, *plan);
    const bool saves = arguments.saved.heads != nullptr;
    return fb_cuda_launch_clusters(launch_of(*plan, call->stream),
                                   saves ? kernel_of<true>(*p) : kernel_of<false>(*p), arguments,
                                   error);
}
