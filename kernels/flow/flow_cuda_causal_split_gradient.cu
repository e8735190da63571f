/*
 * Gradients of causal Flow-Attention in f32 with heads of 64 on Hopper: the steps of
 * flow_cuda_causal_gradient.cu, products by warpgroups (flow_cuda_causal_split.cuh).
 */
#include "flow_cuda_causal_scans.cuh"
#include "flow_cuda_causal_split.cuh"

#include "flow_cuda.h"

namespace
{

/* ---- competition and incoming ---------------------------------------------------------------- */

__global__ void __launch_bounds__(kChunkThreads, 4)
    split_competition(const __grid_constant__ causal_gradient a)
{
    chunk_own &own = own_of(0);
    const strip_place s;
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    const int i = (int)threadIdx.x;
    strip_values k;
    load_split_strip(k, keys_of(a, p), s, p.rows);
    for (const token_scalar name : {E, Z, DP})
        load_chunk_scalar(a, own, p, name);
    if (i < kChunk) {
        const float n = (float)(p.at + i + 1), z = own.array[Z][i];
        own.array[DR][i] =
            i < p.rows ? n * (fabsf(own.array[E][i]) / z) * own.array[DP][i] / z : 0.0F;
    }
    __syncthreads();
    if (s.warp == 0)
        scan_tokens<true>(own.array[DR], (double)running_of(a, p, 1), own.array[DA], s.lane);
    map_split_strip(k, s, p.rows);
    __syncthreads();
    if (i < kChunk) {
        const float e = own.array[E][i], n = (float)(p.at + i + 1);
        const float flow = i < p.rows && e > 0.0F
                               ? e / own.array[Z][i] * own.array[DP][i] - e / n * own.array[DA][i]
                               : 0.0F;
        own.array[DO][i] = flow;
        if (i < p.rows)
            scalar_of(a, p, DO)[i] = flow;
    }
    __syncthreads();
    sum_split_columns(own, 0, k, s.of(own.array[DO]), kEps, s);
    __syncthreads();
    leave_columns(a, own, p, 0, DW);
}

__global__ void __launch_bounds__(kChunkThreads, 3)
    split_incoming(const __grid_constant__ causal_gradient a)
{
#if FB_HAVE_WGMMA
    chunk_own &own = own_of(SCORE_PANELS);
    const strip_place s;
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    strip_values q, k, c;
    load_chunk_vector(a, own, p, 0, DW);
    for (const token_scalar name : {A, S, DR, DO})
        load_chunk_scalar(a, own, p, name);
    visit_sides(a, own, p, s, q, k);
    multiply_strip<true>(c, q, panel_of_block(K_HIGH), panel_of_block(K_LOW_PART));
    const strip_dots flow =
        plus(dot_vector(q, own.vectors[0], 0.0F),
             sum_triangle<false>(c, s, own.array[DO], nullptr, sum_strip_rows(q)));
    const strip_dots in = s.of(own.array[A]), share = s.of(own.array[S]), dr = s.of(own.array[DR]);
    const strip_dots n = numbers_of(p, s);
    const strip_dots da = {
        where(n.low, -fmaf(share.low, dr.low, n.low * flow.low) / (in.low * in.low)),
        where(n.high, -fmaf(share.high, dr.high, n.high * flow.high) / (in.high * in.high))};
    leave_scalar(a, p, s, DA, da);
    sum_split_columns(own, 0, q, da, kEps, s);
    __syncthreads();
    leave_columns(a, own, p, 0, AS);
#else
    (void)a;
#endif
}

/* ---- outputs --------------------------------------------------------------------------------- */

#if FB_HAVE_WGMMA

/* Sums from each token of the chunk on, in these arrays: of do, db, dc, da. */
constexpr int SUM_DO = S, SUM_DB = E, SUM_DC = Z, SUM_DA = DR;

/* A vector of the chunk, plus eps, times a weight of the rows. */
struct split_term {
    chunk_vector name;
    float eps;
    strip_dots weight;
};

/* What the chunk's tokens give the strip's: X_ij = dc_i beta_j + da_i below the diagonal, alpha_i
 * do_j + db_j above it, both on it, with queries as rows; for keys the transpose. */
__device__ inline void mix_split_strip(strip_values &x, const chunk_own &own, const strip_place &s,
                                       bool queries)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = s.row + s.g + i / 2 * 8, col = 8 * n + 2 * s.t + i % 2;
            const int query = queries ? row : col, key = queries ? col : row;
            const float below =
                fmaf(own.array[DC][query], own.array[BETA][key], own.array[DA][query]);
            const float above =
                fmaf(own.array[ALPHA][query], own.array[DO][key], own.array[DB][key]);
            x[n][i] = (key <= query ? below : 0.0F) + (key >= query ? above : 0.0F);
        }
}

/* To memory: what is parked there, x times the chunk's tokens, scaled vectors of the chunk and what
 * the eps of second factors adds, times the slope of phi at the rows of input. */
__device__ inline void finish_rows(const head_rows<float> &rows, const head_rows<float> &input,
                                   strip_values &y, const chunk_own &own, const strip_place &s,
                                   int valid, const split_term (&terms)[3], chunk_vector plain,
                                   strip_dots lift)
{
    strip_values parked, at;
    load_split_strip(parked, rows, s, valid);
    load_split_strip(at, input, s, valid);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int col = 8 * n + 2 * s.t + i % 2;
            float sum =
                y[n][i] + parked[n][i] + own.vectors[plain][col] + (i < 2 ? lift.low : lift.high);
#pragma unroll
            for (int k = 0; k < 3; k++)
                sum = fmaf(i < 2 ? terms[k].weight.low : terms[k].weight.high,
                           own.vectors[terms[k].name][col] + terms[k].eps, sum);
            y[n][i] = sum * split_slope(at[n][i]);
        }
    store_split_strip(rows, y, {1.0F, 1.0F}, s, valid);
}

/* eps (weight first + second) of the lane's rows */
__device__ inline strip_dots lift_of(const strip_dots &weight, const strip_dots &first,
                                     const strip_dots &second)
{
    return {kEps * fmaf(weight.low, first.low, second.low),
            kEps * fmaf(weight.high, first.high, second.high)};
}

#endif

enum { KEYS, KEYS_LOW, QUERIES, QUERIES_LOW, OUTPUT_PANELS };

__global__ void __launch_bounds__(kChunkThreads, 3)
    split_outputs(const __grid_constant__ causal_gradient a)
{
#if FB_HAVE_WGMMA
    chunk_own &own = own_of(OUTPUT_PANELS);
    const strip_place s;
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    strip_values x, y;
    {
        turned_column q, k;
        load_turned(k, keys_of(a, p), p.rows);
        load_turned(q, queries_of(a, p), p.rows);
        for (int name = 0; name < CHUNK_VECTORS; name++)
            load_chunk_vector(a, own, p, name, (chunk_vector)name);
        for (const token_scalar name : {A, B, DC, DO, DA, DB})
            load_chunk_scalar(a, own, p, name);
        invert_flows(own, p);
        map_turned(k, p.rows);
        k.store(panel_of_block(KEYS), panel_of_block(KEYS_LOW));
        map_turned(q, p.rows);
        q.store(panel_of_block(QUERIES), panel_of_block(QUERIES_LOW));
    }
    publish_shared();
    __syncthreads();
    const int from = s.warp == 0 ? DO : s.warp == 1 ? DB : s.warp == 2 ? DC : DA;
    const int to = s.warp == 0 ? SUM_DO : s.warp == 1 ? SUM_DB : s.warp == 2 ? SUM_DC : SUM_DA;
    scan_tokens<true>(own.array[from], 0.0, own.array[to], s.lane);
    mix_split_strip(x, own, s, true);
    multiply_strip<true>(y, x, panel_of_block(KEYS), panel_of_block(KEYS_LOW));
    __syncthreads();
    const strip_dots alpha = s.of(own.array[ALPHA]), beta = s.of(own.array[BETA]);
    finish_rows(
        rows_of<float>(a.round.dq, p.head.b, p.head.h, p.at), queries_of(a, p), y, own, s, p.rows,
        {{U, kEps, s.of(own.array[DC])}, {DW, 0.0F, alpha}, {CK, kEps, s.of(own.array[DA])}}, BS,
        lift_of(alpha, s.of(own.array[SUM_DO]), s.of(own.array[SUM_DB])));
    mix_split_strip(x, own, s, false);
    multiply_strip<true>(y, x, panel_of_block(QUERIES), panel_of_block(QUERIES_LOW));
    finish_rows(rows_of<float>(a.round.dk, p.head.b, p.head.kv_h, p.at), keys_of(a, p), y, own, s,
                p.rows,
                {{W, kEps, s.of(own.array[DO])}, {DU, 0.0F, beta}, {CQ, kEps, s.of(own.array[DB])}},
                AS, lift_of(beta, s.of(own.array[SUM_DC]), s.of(own.array[SUM_DA])));
#else
    (void)a;
#endif
}

} // namespace

extern "C" enum fb_status fb_flow_cuda_causal_split_gradient(const struct fb_problem *p,
                                                             const struct fb_call *call,
                                                             const struct fb_flow_cuda_plan *plan,
                                                             struct fb_error *error)
{
    const int64_t count = p->batch * p->heads;
    const unsigned units = (unsigned)count;
    cudaStream_t stream = (cudaStream_t)call->stream;
    causal_gradient a = {};
    a.round.s = flow_cuda_shape_of(p, call, *plan);
    a.round.dout = view_of(call->dout);
    a.round.dq = view_of(call->dq);
    a.round.dk = view_of(call->dk);
    a.round.dv = view_of(call->dv);
    a.round.kv_heads = (int)p->kv_heads;
    a.rows = kChunk;
    a.chunks = plan->gradient_chunks;
    a.segment = plan->gradient_segment;
    a.segments = plan->gradient_segments;
    a.vectors = (float *)call->scratch;
    a.running = a.vectors + count * CHUNK_VECTORS * a.chunks * kDim;
    a.scalars = a.running + count * 2 * a.chunks;
    a.matrices = a.scalars + count * kKeptScalars * a.chunks * kChunk;
    a.turned = a.round.dk;
    const auto scan = [&](chunk_vector first) {
        scan_vectors<<<dim3(units, 1), kDim, 0, stream>>>(a, first);
    };
    split_launch l = {a, units, stream, error,
                      flow_cuda_split_scalars(a, false, units, stream, error)};
    if (l.status == FB_OK)
        l.status = flow_cuda_split_states(a, units, stream, error);
    if (l.status == FB_OK) {
        scan_matrices<<<dim3(units, kDim * kDim / 256, 2), 256, 0, stream>>>(a);
        l.status = flow_cuda_split_pull(a, units, stream, error);
    }
    if (l.status == FB_OK) {
        scan(DU);
        l.status = flow_cuda_split_push(a, units, stream, error);
    }
    if (l.status != FB_OK)
        return l.status;
    scan(BS);
    scan_running<<<units, 1, 0, stream>>>(a, 1);
    l.run(split_competition, 0, false);
    scan(DW);
    l.run(split_incoming, SCORE_PANELS, false);
    scan(AS);
    l.run(split_outputs, OUTPUT_PANELS, false);
    return l.status;
}
