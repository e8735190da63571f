/*
 * Gradients of causal Flow-Attention in f32 with heads of 64 on Hopper, what walks over segments:
 * states, pull and push of flow_cuda_causal_gradient.cu, products by warpgroups
 * (flow_cuda_causal_split.cuh). A block has room for six panels, two blocks share a multiprocessor:
 * panels that have been used make room for others in the middle of a chunk.
 */
#include "flow_cuda_causal_split.cuh"

namespace
{

#if FB_HAVE_WGMMA

__device__ inline head_rows<float> gradients_of(const causal_gradient &a, const chunk_place &p)
{
    return rows_of<float>(a.round.dout, p.head.b, p.head.h, p.at);
}

__device__ inline void expect_chunk(const causal_gradient &a, const chunk_place &next)
{
    expect_rows(queries_of(a, next), next.rows);
    expect_rows(keys_of(a, next), next.rows);
    expect_rows(values_of(a, next), next.rows);
    expect_rows(gradients_of(a, next), next.rows);
}

#endif

/* ---- states ---------------------------------------------------------------------------------- */

enum {
    KEYS_TURNED,
    VALUES_TURNED,
    VALUES_TURNED_LOW,
    QUERIES_TURNED,
    GRADIENTS_TURNED,
    GRADIENTS_TURNED_LOW,
    WALK_PANELS
};

/* Z of every token; the segment's parts of M and R. grid (segments, units) */
__global__ void __launch_bounds__(kChunkThreads, 2)
    split_both_states(const __grid_constant__ causal_gradient a)
{
#if FB_HAVE_WGMMA
    chunk_own &own = own_of(WALK_PANELS);
    const strip_place s;
    strip_values m = {}, r = {};
    const int64_t first = blockIdx.x * (int64_t)a.segment;
    const int64_t end = min(first + a.segment, a.chunks);
    for (int64_t chunk = first; chunk < end; chunk++) {
        const chunk_place p = place_of(a, blockIdx.y, chunk);
        turned_column x, y;
        load_turned(x, keys_of(a, p), p.rows);
        load_turned(y, values_of(a, p), p.rows);
        for (const token_scalar name : {A, S, E})
            load_chunk_scalar(a, own, p, name);
        if (threadIdx.x < kChunk)
            own.array[DR][threadIdx.x] = fabsf(own.array[E][threadIdx.x]);
        __syncthreads();
        if (s.warp == 0)
            scan_tokens<false>(own.array[DR], (double)running_of(a, p, 0), own.array[Z], s.lane);
        map_turned(x, p.rows);
        x.store(panel_of_block(KEYS_TURNED), nullptr);
        load_turned(x, queries_of(a, p), p.rows);
        y.store(panel_of_block(VALUES_TURNED), panel_of_block(VALUES_TURNED_LOW));
        load_turned(y, gradients_of(a, p), p.rows);
        map_turned(x, p.rows);
        x.store(panel_of_block(QUERIES_TURNED), nullptr);
        y.store(panel_of_block(GRADIENTS_TURNED), panel_of_block(GRADIENTS_TURNED_LOW));
        publish_shared();
        __syncthreads();
        weigh_chunk(own, p, 1.0F);
        if ((int)threadIdx.x < p.rows && threadIdx.x < kChunk)
            scalar_of(a, p, Z)[threadIdx.x] = own.array[Z][threadIdx.x];
        if (chunk + 1 < end)
            expect_chunk(a, place_of(a, blockIdx.y, chunk + 1));
        __syncthreads();
        add_weighted(m, panel_of_block(KEYS_TURNED), own.array[P_TOKEN],
                     panel_of_block(VALUES_TURNED), panel_of_block(VALUES_TURNED_LOW));
        add_weighted(r, panel_of_block(QUERIES_TURNED), own.array[R_TOKEN],
                     panel_of_block(GRADIENTS_TURNED), panel_of_block(GRADIENTS_TURNED_LOW));
        __syncthreads();
    }
    write_state(m, matrix_of(a, blockIdx.y, 0, blockIdx.x), s);
    write_state(r, matrix_of(a, blockIdx.y, 1, blockIdx.x), s);
#else
    (void)a;
#endif
}

/* ---- pull and push --------------------------------------------------------------------------- */

/* v, then v turned; k or q turned; the state, then others */
enum { FIRST, FIRST_LOW, SIDE, SIDE_LOW, STATE, STATE_LOW };

#if FB_HAVE_WGMMA

/* dr, dc from h, the chunk's part of what dc adds up to. */
__device__ inline void pull_scalars(const causal_gradient &a, chunk_own &own, const chunk_place &p,
                                    const strip_place &s, const strip_values &q,
                                    const strip_values &h)
{
    const strip_dots dr = dot_pair(q, h), n = numbers_of(p, s);
    const strip_dots slope = s.of(own.array[DC]), in = s.of(own.array[A]);
    const strip_dots dc = {where(n.low, slope.low * dr.low / in.low),
                           where(n.high, slope.high * dr.high / in.high)};
    leave_scalar(a, p, s, DR, dr);
    leave_scalar(a, p, s, DC, dc);
    sum_split_columns(own, 0, q, dc, kEps, s);
}

/* dp, and what p dp / Z adds up to. */
__device__ inline void push_products(const causal_gradient &a, chunk_own &own, const chunk_place &p,
                                     const strip_place &s, const strip_values &k,
                                     const strip_values &t)
{
    const strip_dots dp = dot_pair(k, t), weight = s.of(own.array[P_TOKEN]);
    const strip_dots z = s.of(own.array[Z]), n = numbers_of(p, s);
    leave_scalar(a, p, s, DP, dp);
    s.put(own.array[DO], {where(n.low, weight.low * dp.low / z.low),
                          where(n.high, weight.high * dp.high / z.high)});
}

/* db from c = k q^T, the chunk's part of what it adds up to. */
__device__ inline void push_flows(const causal_gradient &a, chunk_own &own, const chunk_place &p,
                                  const strip_place &s, const strip_values &k,
                                  const strip_values &c)
{
    const strip_dots flow =
        plus(dot_vector(k, own.vectors[0], 0.0F),
             sum_triangle<false>(c, s, own.array[DC], nullptr, sum_strip_rows(k)));
    const strip_dots out = s.of(own.array[B]), n = numbers_of(p, s);
    const strip_dots db = {where(n.low, -n.low / (out.low * out.low) * flow.low),
                           where(n.high, -n.high / (out.high * out.high) * flow.high)};
    leave_scalar(a, p, s, DB, db);
    sum_split_columns(own, 0, k, db, kEps, s);
}

#endif

/* dr, dc, r h; grid (segments, units) */
__global__ void __launch_bounds__(kChunkThreads, 2)
    split_pull(const __grid_constant__ causal_gradient a)
{
#if FB_HAVE_WGMMA
    chunk_own &own = own_of(WALK_PANELS);
    const strip_place s;
    strip_values m;
    read_state(m, matrix_of(a, blockIdx.y, 0, blockIdx.x), s);
    const int64_t first = blockIdx.x * (int64_t)a.segment;
    const int64_t end = min(first + a.segment, a.chunks);
    for (int64_t chunk = first; chunk < end; chunk++) {
        const chunk_place p = place_of(a, blockIdx.y, chunk);
        strip_values x, c, h;
        turned_column turned;
        load_turned(turned, keys_of(a, p), p.rows);
        load_split_strip(x, values_of(a, p), s, p.rows);
        put_split_strip(panel_of_block(STATE), panel_of_block(STATE_LOW), m, s);
        for (const token_scalar name : {A, S, E, Z, DC})
            load_chunk_scalar(a, own, p, name);
        weigh_chunk(own, p, 1.0F);
        put_split_strip(panel_of_block(FIRST), panel_of_block(FIRST_LOW), x, s);
        load_split_strip(x, gradients_of(a, p), s, p.rows);
        map_turned(turned, p.rows);
        turned.store(panel_of_block(SIDE), panel_of_block(SIDE_LOW));
        publish_shared();
        __syncthreads();
        if (chunk + 1 < end)
            expect_chunk(a, place_of(a, blockIdx.y, chunk + 1));
        multiply_strip_twice(c, h, x, FIRST, STATE);
        __syncthreads(); /* v has been used */
        load_turned(turned, values_of(a, p), p.rows);
        load_split_strip(x, queries_of(a, p), s, p.rows);
        cut_triangle<true>(c, own.array[P_TOKEN], s);
        multiply_strip<false>(h, c, panel_of_block(SIDE), panel_of_block(SIDE_LOW));
        turned.store(panel_of_block(FIRST), panel_of_block(FIRST_LOW));
        map_split_strip(x, s, p.rows);
        pull_scalars(a, own, p, s, x, h);
        store_split_strip(rows_of<float>(a.round.dq, p.head.b, p.head.h, p.at), h,
                          s.of(own.array[R_TOKEN]), s, p.rows);
        publish_shared();
        __syncthreads();
        leave_columns(a, own, p, 0, DU);
        add_weighted(m, panel_of_block(SIDE), own.array[P_TOKEN], panel_of_block(FIRST),
                     panel_of_block(FIRST_LOW));
        __syncthreads();
    }
#else
    (void)a;
#endif
}

/* dp, db, p t, dv; grid (segments, units) */
__global__ void __launch_bounds__(kChunkThreads, 2)
    split_push(const __grid_constant__ causal_gradient a)
{
#if FB_HAVE_WGMMA
    chunk_own &own = own_of(WALK_PANELS);
    const strip_place s;
    const turned_places_of<true> places;
    strip_values r;
    read_state(r, matrix_of(a, blockIdx.y, 1, blockIdx.x), s);
    const int64_t first = blockIdx.x * (int64_t)a.segment;
    for (int64_t chunk = min(first + a.segment, a.chunks) - 1; chunk >= first; chunk--) {
        const chunk_place p = place_of(a, blockIdx.y, chunk);
        strip_values x, k, c, y;
        turned_column turned;
        load_turned(turned, queries_of(a, p), p.rows);
        load_split_strip(x, gradients_of(a, p), s, p.rows);
        put_split_strip(panel_of_block(STATE), panel_of_block(STATE_LOW), r, s);
        load_chunk_vector(a, own, p, 0, DU);
        for (const token_scalar name : {A, B, S, E, Z, DC})
            load_chunk_scalar(a, own, p, name);
        weigh_chunk(own, p, 1.0F);
        put_split_strip(panel_of_block(FIRST), panel_of_block(FIRST_LOW), x, s);
        load_split_strip(x, values_of(a, p), s, p.rows);
        load_split_strip(k, keys_of(a, p), s, p.rows);
        map_turned(turned, p.rows);
        turned.store(panel_of_block(SIDE), panel_of_block(SIDE_LOW));
        publish_shared();
        __syncthreads();
        if (chunk > first)
            expect_chunk(a, place_of(a, blockIdx.y, chunk - 1));
        multiply_strip_twice(c, y, x, FIRST, STATE);
        __syncthreads(); /* dout and R have been used */
        load_turned(turned, gradients_of(a, p), p.rows);
        load_split_strip(x, queries_of(a, p), s, p.rows);
        cut_triangle<false>(c, own.array[R_TOKEN], s);
        multiply_strip<false>(y, c, panel_of_block(SIDE), panel_of_block(SIDE_LOW));
        map_split_strip(k, s, p.rows);
        push_products(a, own, p, s, k, y);
        store_split_strip(rows_of<float>(a.turned, p.head.b, p.head.kv_h, p.at), y,
                          s.of(own.array[P_TOKEN]), s, p.rows);
        turned.store(panel_of_block(FIRST), panel_of_block(FIRST_LOW));
        map_split_strip(x, s, p.rows);
        put_split_strip(panel_of_block(STATE), panel_of_block(STATE_LOW), x, s);
        publish_shared();
        __syncthreads();
        multiply_strip<true>(c, k, panel_of_block(STATE), panel_of_block(STATE_LOW));
        push_flows(a, own, p, s, k, c);
        cut_triangle<false>(c, own.array[R_TOKEN], s);
        multiply_strip<true>(y, c, panel_of_block(FIRST), panel_of_block(FIRST_LOW));
        __syncthreads(); /* q has been used */
        put_split_turned(panel_of_block(STATE), panel_of_block(STATE_LOW), r, places);
        leave_columns(a, own, p, 0, BS);
        publish_shared();
        __syncthreads();
        multiply_strip<false>(y, k, panel_of_block(STATE), panel_of_block(STATE_LOW));
        store_split_strip(rows_of<float>(a.round.dv, p.head.b, p.head.kv_h, p.at), y,
                          s.of(own.array[P_TOKEN]), s, p.rows);
        add_weighted(r, panel_of_block(SIDE), own.array[R_TOKEN], panel_of_block(FIRST),
                     panel_of_block(FIRST_LOW));
        if (s.warp == 3) {
            const double sum = sum_tokens(own.array[DO], s.lane);
            if (s.lane == 0)
                running_of(a, p, 1) = (float)sum;
        }
        __syncthreads();
    }
#else
    (void)a;
#endif
}

} // namespace

enum fb_status flow_cuda_split_states(const causal_gradient &a, unsigned units, cudaStream_t stream,
                                      struct fb_error *error)
{
    split_launch l = {a, units, stream, error, FB_OK};
    l.run(split_both_states, WALK_PANELS, true);
    return l.status;
}

enum fb_status flow_cuda_split_pull(const causal_gradient &a, unsigned units, cudaStream_t stream,
                                    struct fb_error *error)
{
    split_launch l = {a, units, stream, error, FB_OK};
    l.run(split_pull, WALK_PANELS, true);
    return l.status;
}

enum fb_status flow_cuda_split_push(const causal_gradient &a, unsigned units, cudaStream_t stream,
                                    struct fb_error *error)
{
    split_launch l = {a, units, stream, error, FB_OK};
    l.run(split_push, WALK_PANELS, true);
    return l.status;
}
