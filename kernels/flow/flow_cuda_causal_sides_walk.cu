/*
 * What comes before each chunk of a head, where the forward call went another way than clusters and
 * has not left it (flow_cuda_causal_saved.cuh): the blocks that the gradient has walk over the head
 * forwards, and send one another the sums of a chunk's tokens:
 *
 *   sums      phi; sums of q, of k
 *   flows     a, b; sums of alpha q, of beta k
 *   conserve  c, o, E; sum of E
 *   product   M = sum k^T (p v) of the segment
 *
 * grid, cluster and block as in flow_cuda_causal_sides.cu.
 */
#include "flow_cuda_causal_sides_forward.cuh"

#include "flow_cuda.h"

namespace
{

#if FB_HAVE_WGMMA

/* n / a or n / b as weights of sums: in f16 up to a million, which is far from any flow. */
template <typename T> __device__ strip_dots bounded_weights(strip_dots inverse)
{
    const strip_dots w = scaled(inverse, taken<T>(kInverseExponent));
    return {bounded<T>(w.low), bounded<T>(w.high)};
}

/* M of the segment before `segment`, the second or a later one, to what is carried: M before this
 * one, for the walk back. By one thread for all blocks. M is carried with p's power of two. */
template <typename T>
__device__ void join_product(sides_block &x, const causal_saved &saved, double *carried,
                             int64_t segment)
{
    const joined_chunk c(x);
    x.await_exchange(PRODUCT);
    if (x.index == 0)
        x.ready(PRODUCT);
    if (c.side == QUERIES || c.first > 0)
        return;
    eight_sums<T> sum = {};
#pragma unroll 1
    for (int rank = 0; rank < x.ranks; rank++)
        sum.add(c.part(rank));
    float all[8];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        double2 &to = c.of(carried)[i];
        double2 pair = segment > 1 ? to : make_double2(0.0, 0.0);
        pair.x += (double)sum.x[2 * i];
        pair.y += (double)sum.x[2 * i + 1];
        to = pair;
        all[2 * i] = (float)pair.x;
        all[2 * i + 1] = (float)pair.y;
    }
    saved_eight eight = saved_eight::of(all);
    eight.factor *= taken<T>(-kShareExponent);
    saved.put_eight(segment, c.row, c.chunk, eight);
}

/* E and, from what other blocks have, Z; by the keys. */
template <typename T> __device__ void weigh_keys(sides_block &x, float clamp, side_scalars &v)
{
    leave_total(x, 0, take_exponentials(x, clamp, v));
    x.step_side();
    if (x.thread < x.ranks)
        send_four(x, WEIGHTS, 0, 0, x.thread);
    const strip_dots sum = sum_up_to(x.own->array[EXPONENTIAL], x.s);
    take_vectors<T, false>(x, WEIGHTS, 0, 0, 1, DU);
    const float before = x.own->vectors[DU][0];
    v.z = plus({before, before}, sum);
}

/* The same as visit_chunk, with what comes before from the other blocks. The side is in step
 * before. */
template <typename T> __device__ void visit_forward(sides_block &x, float clamp, side_scalars &v)
{
    const bool queries = x.side == QUERIES;
    const int other = kDim * (1 - x.side);
    sum_columns<T>(x, 0, x.side, ONES, 1, 1.0F, false);
    x.step_team();
    send_vectors(x, SUMS, 0);
    strip_values c;
    score_tokens<T>(c, true, x);
    take_vectors<T, false>(x, SUMS, 0, other, kDim, queries ? CK : CQ);
    take_flow<T>(x, c, dot_before<T, 1>(x), v);
    put_weights<T>(x, FIRST_WEIGHTS, bounded_weights<T>(positive(v.n, quotient(v.n, v.flow))));
    sum_columns<T>(x, 1, x.side, FIRST_WEIGHTS, 1, taken<T>(-kInverseExponent), false);
    x.step_team();
    x.note_faint();
    send_vectors(x, FLOWS, 1);
    take_vectors<T, false>(x, FLOWS, 1, other, kDim, queries ? U : W);
    conserve_flow<T>(x, c, dot_before<T, 1>(x), v);
    if (queries)
        x.keep_step(2);
    else
        weigh_keys<T>(x, clamp, v);
    leave_weight<T>(x, v);
}

/* What visit_forward has found to come before the chunk, where a forward call would have saved it.
 * The team is in step before. */
__device__ inline void save_chunk(const sides_gradient &a, const sides_block &x,
                                  const chunk_place &p)
{
    if (p.rows == 0)
        return;
    a.saved.vectors(p.chunk)[x.index] = (&x.own->vectors[0][0])[x.index];
    if (x.index == 0)
        *a.saved.exponentials(p.chunk) = x.own->vectors[DU][0];
}

#endif

/* Machine code for Hopper; other devices never launch it. */
template <typename T>
__global__ void __launch_bounds__(kSidesThreads, 1)
    causal_walk_kernel(const __grid_constant__ sides_gradient a)
{
#if FB_HAVE_WGMMA
    sides_block x = start_block(a);
    double *const carried = a.carried + blockIdx.y * (int64_t)(kDim * kDim);
    side_scalars v = {};
    if (x.thread < kChunk)
        put_weight<T>(x, ONES, x.thread, 1.0F);
#pragma unroll 1
    for (int64_t segment = 0; segment < a.segments; segment++) {
        const bool last = segment + 1 == a.segments;
        x.place();
        const chunk_place p = chunk_of(a, x, segment * x.ranks + x.rank);
        x.chunk = (int)p.chunk;
        x.step_team();
        fetch_chunk(x, a, p, x.side == KEYS);
        if (!last)
            announce_chunk(x, a, chunk_of(a, x, p.chunk + x.ranks));
        v.n = numbers_of(p, x.s);
        take_chunk<T>(x, p);
        if (segment > 0)
            join_product<T>(x, a.saved, carried, segment);
        else
            await_cluster();
        visit_forward<T>(x, a.round.s.clamp, v);
        take_values(x);
        save_chunk(a, x, p);
        if (!last && x.side == KEYS)
            send_parts<T>(x, PRODUCT);
    }
#else
    (void)a;
#endif
}

} // namespace

extern "C" enum fb_status fb_flow_cuda_causal_save(const struct fb_problem *p,
                                                   const struct fb_call *call,
                                                   const struct fb_flow_cuda_plan *plan, bool whole,
                                                   struct fb_error *error)
{
    sides_gradient a = sides_gradient_of(*p, *call, *plan, whole);
    a.round.dout =
        view_of(call->v); /* rows are announced to the cache, of which there are others */
    const cluster_launch launch =
        sides_launch_of("what causal flow's gradient needs", *plan, call->stream);
    return p->dtype == FB_F16
               ? fb_cuda_launch_clusters(launch, causal_walk_kernel<__half>, a, error)
               : fb_cuda_launch_clusters(launch, causal_walk_kernel<__nv_bfloat16>, a, error);
}
