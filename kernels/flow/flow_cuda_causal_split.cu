/*
 * Causal Flow-Attention in f32 with heads of 64 on Hopper, forward: sums, flows and competition of
 * all chunks at once, each followed by a scan over the chunks; then states of segments, and the
 * rows, whose blocks walk over a segment. The first half is the gradient's, too.
 */
#include "flow_cuda_causal_scans.cuh"
#include "flow_cuda_causal_split.cuh"

#include "flow_cuda.h"

namespace
{

/* ---- scalars of every token ------------------------------------------------------------------ */

/* grid (chunks, units), as all kernels of a chunk */
template <bool Forward>
__global__ void __launch_bounds__(kChunkThreads, 4)
    split_sums(const __grid_constant__ causal_gradient a)
{
    chunk_own &own = own_of(0);
    const strip_place s;
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    strip_values q, k;
    load_split_strip(k, keys_of(a, p), s, p.rows);
    load_split_strip(q, queries_of(a, p), s, p.rows);
    map_split_strip(k, s, p.rows);
    sum_split_columns(own, 0, k, {1.0F, 1.0F}, 0.0F, s);
    map_split_strip(q, s, p.rows);
    sum_split_columns(own, 1, q, {1.0F, 1.0F}, 0.0F, s);
    __syncthreads();
    leave_kept_columns<Forward>(a, own, p, 0, CK);
    leave_kept_columns<Forward>(a, own, p, 1, CQ);
}

template <bool Forward>
__global__ void __launch_bounds__(kChunkThreads, 3)
    split_flows(const __grid_constant__ causal_gradient a)
{
#if FB_HAVE_WGMMA
    chunk_own &own = own_of(SCORE_PANELS);
    const strip_place s;
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    const int i = (int)threadIdx.x;
    strip_values q, k, c;
    load_kept_vector<Forward>(a, own, p, 0, CK);
    load_kept_vector<Forward>(a, own, p, 1, CQ);
    visit_sides(a, own, p, s, q, k);
    multiply_strip<true>(c, q, panel_of_block(K_HIGH), panel_of_block(K_LOW_PART));
    s.put(own.array[B], dot_vector(k, own.vectors[1], kEps));
    const strip_dots in = plus(dot_vector(q, own.vectors[0], kEps),
                               sum_triangle<true>(c, s, nullptr, own.array[K_SUM], {}));
    sum_columns_before(own, c, s, {1.0F, 1.0F}, sum_strip_rows(q));
    leave_kept_scalar<Forward>(a, p, s, A, in);
    const strip_dots n = numbers_of(p, s);
    __syncthreads();
    if (i < kChunk) {
        const float out = own.array[B][i] + columns_before(own);
        own.array[BETA][i] = i < p.rows ? (float)(p.at + i + 1) / out : 0.0F;
        if (i < p.rows)
            kept_scalar<Forward>(a, p, B)[i] = out;
    }
    __syncthreads();
    sum_split_columns(own, 0, k, s.of(own.array[BETA]), 0.0F, s);
    sum_split_columns(own, 1, q, inverse_flow(n, in), 0.0F, s);
    __syncthreads();
    leave_kept_columns<Forward>(a, own, p, 0, U);
    leave_kept_columns<Forward>(a, own, p, 1, W);
#else
    (void)a;
#endif
}

/* E of a token and the sum of them all; negative in memory where the clamp acts. */
template <bool Forward>
__device__ void leave_weight(const causal_gradient &a, chunk_own &own, const chunk_place &p)
{
    const int i = (int)threadIdx.x;
    if (i >= kChunk)
        return;
    const float n = (float)(p.at + i + 1), clamp = a.round.s.clamp;
    const float flow = (own.array[E][i] + columns_before(own)) / n;
    const float e = expf(fminf(fmaxf(flow, -clamp), clamp));
    own.array[Z][i] = i < p.rows ? e : 0.0F;
    if (i < p.rows)
        kept_scalar<Forward>(a, p, E)[i] = fabsf(flow) <= clamp ? e : -e;
}

template <bool Forward>
__global__ void __launch_bounds__(kChunkThreads, 3)
    split_conserve(const __grid_constant__ causal_gradient a)
{
#if FB_HAVE_WGMMA
    chunk_own &own = own_of(SCORE_PANELS);
    const strip_place s;
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    strip_values q, k, c;
    load_kept_vector<Forward>(a, own, p, 0, U);
    load_kept_vector<Forward>(a, own, p, 1, W);
    load_kept_scalar<Forward>(a, own, p, A);
    load_kept_scalar<Forward>(a, own, p, B);
    invert_flows(own, p);
    visit_sides(a, own, p, s, q, k);
    multiply_strip<true>(c, q, panel_of_block(K_HIGH), panel_of_block(K_LOW_PART));
    s.put(own.array[E], dot_vector(k, own.vectors[1], kEps));
    const strip_dots flow = plus(dot_vector(q, own.vectors[0], kEps),
                                 sum_triangle<true>(c, s, own.array[BETA], own.array[K_SUM], {}));
    sum_columns_before(own, c, s, s.of(own.array[ALPHA]), sum_strip_rows(q));
    const strip_dots n = numbers_of(p, s), in = s.of(own.array[A]);
    const float low = n.low > 0.0F ? flow.low / n.low : 0.0F,
                high = n.high > 0.0F ? flow.high / n.high : 0.0F;
    const strip_dots share = {sigmoid(low), sigmoid(high)};
    if (Forward) {
        leave_kept_scalar<Forward>(a, p, s, A, {share.low / in.low, share.high / in.high});
    } else {
        leave_kept_scalar<Forward>(a, p, s, S, share);
        leave_kept_scalar<Forward>(
            a, p, s, DC, {share.low * sigmoid(-low) / n.low, share.high * sigmoid(-high) / n.high});
    }
    __syncthreads();
    leave_weight<Forward>(a, own, p);
    __syncthreads();
    if (s.warp != 0)
        return;
    const double sum = sum_tokens(own.array[Z], s.lane);
    if (s.lane == 0)
        kept_running<Forward>(a, p, 0) = (float)sum;
#else
    (void)a;
#endif
}

/* grid (units, vectors), block kDim */
template <bool Forward>
__global__ void split_scan_vectors(const __grid_constant__ causal_gradient a, chunk_vector first)
{
    const chunk_vector name = (chunk_vector)((int)first + (int)blockIdx.y);
    const chunk_place start = {{}, blockIdx.x, 0, 0, 0};
    scan_parts(kept_vector<Forward>(a, start, name) + threadIdx.x, a.chunks, kDim, name >= DU);
}

/* grid (units), block 1 */
template <bool Forward>
__global__ void split_scan_running(const __grid_constant__ causal_gradient a)
{
    const chunk_place start = {{}, blockIdx.x, 0, 0, 0};
    scan_parts(&kept_running<Forward>(a, start, 0), a.chunks, 1, false);
}

/* ---- forward: states and rows ---------------------------------------------------------------- */

enum { V_HIGH = SCORE_PANELS, V_LOW_PART, STATE_PANELS, M_HIGH = STATE_PANELS, M_LOW, ROW_PANELS };

#if FB_HAVE_WGMMA

/* p of every token of the chunk, n E / Z, into its array: E has been loaded by the same threads. */
__device__ inline void weigh_values(const causal_gradient &a, chunk_own &own, const chunk_place &p,
                                    const strip_place &s)
{
    const int i = (int)threadIdx.x;
    if (i < kChunk)
        own.array[DR][i] = fabsf(own.array[E][i]);
    __syncthreads();
    if (s.warp == 0)
        scan_tokens<false>(own.array[DR], (double)kept_running<true>(a, p, 0), own.array[Z],
                           s.lane);
    __syncthreads();
    if (i < kChunk)
        own.array[P_TOKEN][i] =
            i < p.rows ? (float)(p.at + i + 1) * (own.array[DR][i] / own.array[Z][i]) : 0.0F;
    __syncthreads();
}

#endif

/* The segment's part of M; nobody asks for the last one's. grid (segments, units) */
__global__ void __launch_bounds__(kChunkThreads, 2)
    split_states(const __grid_constant__ causal_gradient a)
{
#if FB_HAVE_WGMMA
    chunk_own &own = own_of(STATE_PANELS);
    const strip_place s;
    strip_values m = {};
    const int64_t first = blockIdx.x * (int64_t)a.segment;
    const int64_t end = min(first + a.segment, a.chunks);
    for (int64_t chunk = first; chunk < end && (int64_t)blockIdx.x + 1 < a.segments; chunk++) {
        const chunk_place p = place_of(a, blockIdx.y, chunk);
        turned_column k, v;
        load_turned(k, keys_of(a, p), p.rows);
        load_turned(v, values_of(a, p), p.rows);
        load_kept_scalar<true>(a, own, p, E);
        weigh_values(a, own, p, s);
        map_turned(k, p.rows);
        k.store(panel_of_block(K_HIGH), nullptr);
        v.store(panel_of_block(V_HIGH), panel_of_block(V_LOW_PART));
        publish_shared();
        __syncthreads();
        if (chunk + 1 < end) {
            const chunk_place next = place_of(a, blockIdx.y, chunk + 1);
            expect_rows(keys_of(a, next), next.rows);
            expect_rows(values_of(a, next), next.rows);
        }
        add_weighted(m, panel_of_block(K_HIGH), own.array[P_TOKEN], panel_of_block(V_HIGH),
                     panel_of_block(V_LOW_PART));
        __syncthreads();
    }
    write_state(m, kept_matrix<true>(a, blockIdx.y, 0, blockIdx.x), s);
#else
    (void)a;
#endif
}

/* grid (units, parts of a state), block 256 */
__global__ void split_scan_states(const __grid_constant__ causal_gradient a)
{
    const int i = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    scan_parts(kept_matrix<true>(a, blockIdx.x, 0, 0) + i, a.segments, kDim * kDim, false);
}

/* out = r (tril(q k^T) p v + q M); grid (segments, units) */
__global__ void __launch_bounds__(kChunkThreads, 2)
    split_rows(const __grid_constant__ causal_gradient a)
{
#if FB_HAVE_WGMMA
    chunk_own &own = own_of(ROW_PANELS);
    const strip_place s;
    const turned_places_of<true> places;
    strip_values m;
    read_state(m, kept_matrix<true>(a, blockIdx.y, 0, blockIdx.x), s);
    const int64_t first = blockIdx.x * (int64_t)a.segment;
    const int64_t end = min(first + a.segment, a.chunks);
    for (int64_t chunk = first; chunk < end; chunk++) {
        const chunk_place p = place_of(a, blockIdx.y, chunk);
        strip_values q, k, c, y;
        turned_column v;
        load_turned(v, values_of(a, p), p.rows);
        load_split_strip(k, keys_of(a, p), s, p.rows);
        load_split_strip(q, queries_of(a, p), s, p.rows);
        load_kept_scalar<true>(a, own, p, E);
        load_kept_scalar<true>(a, own, p, A);
        put_split_turned(panel_of_block(M_HIGH), panel_of_block(M_LOW), m, places);
        weigh_values(a, own, p, s);
        map_split_strip(k, s, p.rows);
        put_split_strip(panel_of_block(K_HIGH), panel_of_block(K_LOW_PART), k, s);
        v.store(panel_of_block(V_HIGH), panel_of_block(V_LOW_PART));
        map_split_strip(q, s, p.rows);
        publish_shared();
        __syncthreads();
        if (chunk + 1 < end) {
            const chunk_place next = place_of(a, blockIdx.y, chunk + 1);
            expect_rows(queries_of(a, next), next.rows);
            expect_rows(keys_of(a, next), next.rows);
            expect_rows(values_of(a, next), next.rows);
        }
        multiply_strip_twice(c, y, q, K_HIGH, M_HIGH);
        cut_triangle<true>(c, own.array[P_TOKEN], s);
        multiply_strip<false>(y, c, panel_of_block(V_HIGH), panel_of_block(V_LOW_PART));
        store_split_strip(rows_of<float>(a.round.s.out, p.head.b, p.head.h, p.at), y,
                          s.of(own.array[A]), s, p.rows);
        split_operand x;
        x.load_turned(panel_of_block(K_HIGH), places);
        weigh_tokens(x, own.array[P_TOKEN]);
        add_to_state(m, x, panel_of_block(V_HIGH), panel_of_block(V_LOW_PART));
        __syncthreads();
    }
#else
    (void)a;
#endif
}

/* ---- launching ------------------------------------------------------------------------------- */

template <bool Forward> void launch_scalars(split_launch &l)
{
    l.run(split_sums<Forward>, 0, false);
    split_scan_vectors<Forward><<<dim3(l.units, 2), kDim, 0, l.stream>>>(l.a, CK);
    l.run(split_flows<Forward>, SCORE_PANELS, false);
    split_scan_vectors<Forward><<<dim3(l.units, 2), kDim, 0, l.stream>>>(l.a, U);
    l.run(split_conserve<Forward>, SCORE_PANELS, false);
    split_scan_running<Forward><<<l.units, 1, 0, l.stream>>>(l.a);
}

} // namespace

enum fb_status flow_cuda_split_scalars(const causal_gradient &a, bool forward, unsigned units,
                                       cudaStream_t stream, struct fb_error *error)
{
    split_launch l = {a, units, stream, error, FB_OK};
    if (forward)
        launch_scalars<true>(l);
    else
        launch_scalars<false>(l);
    return l.status;
}

extern "C" enum fb_status fb_flow_cuda_causal_split(const struct fb_problem *p,
                                                    const struct fb_call *call,
                                                    const struct fb_flow_cuda_plan *plan,
                                                    struct fb_error *error)
{
    const int64_t units = p->batch * p->heads;
    causal_gradient a = {};
    a.round.s = flow_cuda_shape_of(p, call, *plan);
    a.round.kv_heads = (int)p->kv_heads;
    a.rows = kChunk;
    a.chunks = plan->gradient_chunks;
    a.segment = plan->gradient_segment;
    a.segments = plan->gradient_segments;
    a.matrices = (float *)call->scratch; /* first: they are read in pairs of numbers */
    a.vectors = a.matrices + units * a.segments * kDim * kDim;
    a.scalars = a.vectors + units * kForwardVectors * a.chunks * kDim;
    a.running = a.scalars + units * kForwardScalars * a.chunks * kChunk;
    cudaStream_t stream = (cudaStream_t)call->stream;
    split_launch l = {a, (unsigned)units, stream, error,
                      flow_cuda_split_scalars(a, true, (unsigned)units, stream, error)};
    l.run(split_states, STATE_PANELS, true);
    if (l.status == FB_OK)
        split_scan_states<<<dim3(l.units, kDim * kDim / 256), 256, 0, stream>>>(a);
    l.run(split_rows, ROW_PANELS, true);
    return l.status;
}
