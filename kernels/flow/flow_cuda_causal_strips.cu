/*
 * Gradients of Flow-Attention, causal form, for heads of 64 in bf16 and f16: the steps of
 * flow_cuda_causal_gradient.cu on the tensor cores, a chunk of 64 tokens by four warps. In f16 r,
 * R, M and what they are multiplied with take a power of two of the position with them.
 */
#include "flow_cuda_causal_scans.cuh"
#include "flow_cuda_causal_strips.cuh"

#include "flow_cuda.h"

namespace
{

extern __shared__ __align__(1024) char chunk_shared[];

__device__ inline char *tile_of(int index)
{
    return chunk_shared + index * kChunkTile;
}

__device__ inline chunk_own &own_of(int tiles)
{
    return *reinterpret_cast<chunk_own *>(chunk_shared + tiles * kChunkTile);
}

/* ---- forward again: scalars of every token --------------------------------------------------- */

enum { Q_TILE, K_TILE, Q_LOW, K_LOW, SCORE_TILES };

/* grid (chunks, units), as all kernels of a chunk */
template <typename T>
__global__ void __launch_bounds__(kChunkThreads, 4)
    sums_strips(const __grid_constant__ causal_gradient a)
{
    chunk_own &own = own_of(2);
    const strip_place s;
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    strip_values phi;
    fetch_query(tile_of(Q_TILE), a.round.s.q, p);
    fetch_key(tile_of(K_TILE), a.round.s.k, p);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    chunk_phi<T>(phi, tile_of(K_TILE), s, p);
    sum_strip_columns(own, 0, phi, {1.0F, 1.0F}, 0.0F, s);
    chunk_phi<T>(phi, tile_of(Q_TILE), s, p);
    sum_strip_columns(own, 1, phi, {1.0F, 1.0F}, 0.0F, s);
    __syncthreads();
    leave_columns(a, own, p, 0, CK);
    leave_columns(a, own, p, 1, CQ);
}

/* phi of the strips, their halves in the tiles, their rows' sums in the arrays. The block is in
 * step after. */
template <typename T>
__device__ void visit_sides(const causal_gradient &a, chunk_own &own, const chunk_place &p,
                            const strip_place &s, strip_values &q, strip_values &k)
{
    fetch_query(tile_of(Q_TILE), a.round.s.q, p);
    fetch_key(tile_of(K_TILE), a.round.s.k, p);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    chunk_phi<T>(q, tile_of(Q_TILE), s, p);
    chunk_phi<T>(k, tile_of(K_TILE), s, p);
    s.put(own.array[Q_SUM], sum_strip_rows(q));
    s.put(own.array[K_SUM], sum_strip_rows(k));
    put_halves<T>(tile_of(Q_TILE), tile_of(Q_LOW), q, s);
    put_halves<T>(tile_of(K_TILE), tile_of(K_LOW), k, s);
    __syncthreads();
}

/* Sums over the tokens up to each: of q k^T for the queries, of k q^T for the keys. */
template <typename T>
__device__ void add_triangles(chunk_own &own, const strip_place &s, const float *beta,
                              const float *alpha, strip_dots &of_query, strip_dots &of_key)
{
    strip_values c;
    form_strip_scores<T>(c, tile_of(Q_TILE), tile_of(Q_LOW), tile_of(K_TILE), tile_of(K_LOW), s);
    of_query = plus(of_query, sum_triangle<true>(c, s, beta, own.array[K_SUM], {}));
    form_strip_scores<T>(c, tile_of(K_TILE), tile_of(K_LOW), tile_of(Q_TILE), tile_of(Q_LOW), s);
    of_key = plus(of_key, sum_triangle<true>(c, s, alpha, own.array[Q_SUM], {}));
}

template <typename T>
__global__ void __launch_bounds__(kChunkThreads, 3)
    flows_strips(const __grid_constant__ causal_gradient a)
{
    chunk_own &own = own_of(SCORE_TILES);
    const strip_place s;
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    strip_values q, k;
    load_chunk_vector(a, own, p, 0, CK);
    load_chunk_vector(a, own, p, 1, CQ);
    visit_sides<T>(a, own, p, s, q, k);
    strip_dots in = dot_vector(q, own.vectors[0], kEps), out = dot_vector(k, own.vectors[1], kEps);
    add_triangles<T>(own, s, nullptr, nullptr, in, out);
    leave_scalar(a, p, s, A, in);
    leave_scalar(a, p, s, B, out);
    const strip_dots n = numbers_of(p, s);
    sum_strip_columns(own, 0, k, inverse_flow(n, out), 0.0F, s);
    sum_strip_columns(own, 1, q, inverse_flow(n, in), 0.0F, s);
    __syncthreads();
    leave_columns(a, own, p, 0, U);
    leave_columns(a, own, p, 1, W);
}

template <typename T>
__global__ void __launch_bounds__(kChunkThreads, 3)
    conserve_strips(const __grid_constant__ causal_gradient a)
{
    chunk_own &own = own_of(SCORE_TILES);
    const strip_place s;
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    const float clamp = a.round.s.clamp;
    strip_values q, k;
    load_chunk_vector(a, own, p, 0, U);
    load_chunk_vector(a, own, p, 1, W);
    load_chunk_scalar(a, own, p, A);
    load_chunk_scalar(a, own, p, B);
    invert_flows(own, p);
    visit_sides<T>(a, own, p, s, q, k);
    strip_dots c = dot_vector(q, own.vectors[0], kEps), o = dot_vector(k, own.vectors[1], kEps);
    add_triangles<T>(own, s, own.array[BETA], own.array[ALPHA], c, o);
    const strip_dots n = numbers_of(p, s);
    const auto share_of = [](float x, float count, float &slope) {
        const float share = count > 0.0F ? sigmoid(x / count) : 0.0F;
        slope = count > 0.0F ? share * sigmoid(-x / count) / count : 0.0F;
        return share;
    };
    const auto weight_of = [&](float x, float count, float &marked) {
        const float flow = count > 0.0F ? x / count : 0.0F;
        const float e = count > 0.0F ? expf(fminf(fmaxf(flow, -clamp), clamp)) : 0.0F;
        marked = fabsf(flow) <= clamp ? e : -e;
        return e;
    };
    strip_dots slope, marked, share, e;
    share.low = share_of(c.low, n.low, slope.low);
    share.high = share_of(c.high, n.high, slope.high);
    e.low = weight_of(o.low, n.low, marked.low);
    e.high = weight_of(o.high, n.high, marked.high);
    leave_scalar(a, p, s, S, share);
    leave_scalar(a, p, s, DC, slope);
    leave_scalar(a, p, s, E, marked);
    s.put(own.array[Z], e);
    __syncthreads();
    if (s.warp != 0)
        return;
    const double sum = sum_tokens(own.array[Z], s.lane);
    if (s.lane == 0)
        running_of(a, p, 0) = (float)sum;
}

/* ---- states ---------------------------------------------------------------------------------- */

enum { V_TILE = Q_LOW, G_TILE, STATE_TILE, STATE_TILES };

/* q, k, v and dout of a chunk, and scalars; the block is in step before and after. */
__device__ inline void visit_all(const causal_gradient &a, const chunk_place &p)
{
    fetch_query(tile_of(Q_TILE), a.round.s.q, p);
    fetch_key(tile_of(K_TILE), a.round.s.k, p);
    fetch_key(tile_of(V_TILE), a.round.s.v, p);
    fetch_query(tile_of(G_TILE), a.round.dout, p);
    commit_copies();
}

/* The exponent that r and R take with them in a segment, and M leaves behind: of the position of
 * its end, since it adds them up. */
__device__ inline int state_exponent(const causal_gradient &a)
{
    static_assert(kChunk == 64, "2^6 tokens in the first chunk");
    const int64_t last = (blockIdx.x + 1) * (int64_t)a.segment - 1;
    return 38 - __clz((int)last) - 3;
}

/* Z of every token; the segment's parts of M and R. grid (segments, units) */
template <typename T>
__global__ void __launch_bounds__(kChunkThreads, 3)
    states_strips(const __grid_constant__ causal_gradient a)
{
    chunk_own &own = own_of(STATE_TILE);
    const strip_place s;
    strip_values m = {}, r = {}, phi;
    const int64_t first = blockIdx.x * (int64_t)a.segment;
    for (int64_t chunk = first; chunk < min(first + a.segment, a.chunks); chunk++) {
        const chunk_place p = place_of(a, blockIdx.y, chunk);
        visit_all(a, p);
        for (const token_scalar name : {A, S, E})
            load_chunk_scalar(a, own, p, name);
        if (threadIdx.x < kChunk)
            own.array[DR][threadIdx.x] = fabsf(own.array[E][threadIdx.x]);
        wait_copies<0>();
        __syncthreads();
        if (s.warp == 0)
            scan_tokens<false>(own.array[DR], (double)running_of(a, p, 0), own.array[Z], s.lane);
        chunk_phi<T>(phi, tile_of(Q_TILE), s, p);
        __syncwarp();
        put_strip<T>(s.own(tile_of(Q_TILE)), phi, s.at);
        chunk_phi<T>(phi, tile_of(K_TILE), s, p);
        __syncwarp();
        put_strip<T>(s.own(tile_of(K_TILE)), phi, s.at);
        __syncthreads();
        weigh_chunk(own, p, taken<T>(state_exponent(a)));
        if ((int)threadIdx.x < p.rows && threadIdx.x < kChunk)
            scalar_of(a, p, Z)[threadIdx.x] = own.array[Z][threadIdx.x];
        __syncthreads();
        add_chunk<T>(m, tile_of(K_TILE), own.array[P_TOKEN], tile_of(V_TILE), s);
        add_chunk<T>(r, tile_of(Q_TILE), own.array[R_TOKEN], tile_of(G_TILE), s);
        __syncthreads();
    }
    write_state(m, matrix_of(a, blockIdx.y, 0, blockIdx.x), s);
    scale_strip(r, taken<T>(-state_exponent(a)));
    write_state(r, matrix_of(a, blockIdx.y, 1, blockIdx.x), s);
}

/* ---- pull and push --------------------------------------------------------------------------- */

/* The rows of a strip of x, as operand a. */
__device__ inline void load_rows_of(uint32_t (&operand)[4][4], const char *tile,
                                    const strip_place &s)
{
    load_strip(operand, shared_address(tile) + s.row * kRowBytes, s.at);
}

/* A state, scaled, into the warp's rows of its tile. */
template <typename T>
__device__ void put_state(const strip_values &state, float scale, const strip_place &s)
{
    strip_values x;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[n][i] = state[n][i] * scale;
    put_strip<T>(s.own(tile_of(STATE_TILE)), x, s.at);
}

/* dr, dc, r h; grid (segments, units) */
template <typename T>
__global__ void __launch_bounds__(kChunkThreads, 3)
    pull_strips(const __grid_constant__ causal_gradient a)
{
    chunk_own &own = own_of(STATE_TILES);
    const strip_place s;
    strip_values m;
    read_state(m, matrix_of(a, blockIdx.y, 0, blockIdx.x), s);
    const int64_t first = blockIdx.x * (int64_t)a.segment;
    for (int64_t chunk = first; chunk < min(first + a.segment, a.chunks); chunk++) {
        const chunk_place p = place_of(a, blockIdx.y, chunk);
        visit_all(a, p);
        put_state<T>(m, taken<T>(-state_exponent(a)), s);
        for (const token_scalar name : {A, S, E, Z, DC})
            load_chunk_scalar(a, own, p, name);
        weigh_chunk(own, p, taken<T>(state_exponent(a)));
        wait_copies<0>();
        __syncthreads();
        strip_values phi, h = {}, c = {};
        uint32_t operand[4][4];
        chunk_phi<T>(phi, tile_of(K_TILE), s, p);
        __syncwarp();
        put_strip<T>(s.own(tile_of(K_TILE)), phi, s.at);
        load_rows_of(operand, tile_of(G_TILE), s);
        multiply_matrix<true, T>(c, operand, tile_of(V_TILE), s.at);
        multiply_matrix<true, T>(h, operand, tile_of(STATE_TILE), s.at);
        pack_triangle<true, T>(operand, c, own.array[P_TOKEN], taken<T>(-state_exponent(a)), s);
        __syncthreads(); /* k */
        multiply_matrix<false, T>(h, operand, tile_of(K_TILE), s.at);
        chunk_phi<T>(phi, tile_of(Q_TILE), s, p);
        const strip_dots dr = scaled(dot_pair(phi, h), taken<T>(state_exponent(a)));
        const strip_dots r = s.of(own.array[R_TOKEN]); /* with what h lacks */
        const strip_dots slope = s.of(own.array[DC]), in = s.of(own.array[A]), n = numbers_of(p, s);
        const strip_dots dc = {n.low > 0.0F ? slope.low * dr.low / in.low : 0.0F,
                               n.high > 0.0F ? slope.high * dr.high / in.high : 0.0F};
        leave_scalar(a, p, s, DR, dr);
        leave_scalar(a, p, s, DC, dc);
        sum_strip_columns(own, 0, phi, dc, kEps, s);
        leave_strip<T>(rows_of<__nv_bfloat16>(a.round.dq, p.head.b, p.head.h, p.at),
                       tile_of(Q_TILE), h, r, s, p.rows);
        add_chunk<T>(m, tile_of(K_TILE), own.array[P_TOKEN], tile_of(V_TILE), s);
        __syncthreads();
        leave_columns(a, own, p, 0, DU);
    }
}

enum { PUSH_LOW = STATE_TILES, PUSH_TILES }; /* of q */

/* dv = p (k R + (r tril A)^T g); c is the strip of k q^T. */
template <typename T>
__device__ void push_values(const causal_gradient &a, chunk_own &own, const chunk_place &p,
                            const strip_place &s, const strip_values &k, strip_values &c)
{
    strip_values y = {};
    uint32_t operand[4][4];
    pack_triangle<false, T>(operand, c, own.array[R_TOKEN], 1.0F, s);
    multiply_matrix<false, T>(y, operand, tile_of(G_TILE), s.at);
    pack_strip<T>(operand, k);
    multiply_matrix<false, T>(y, operand, tile_of(STATE_TILE), s.at);
    const int end = (int)min((int64_t)kChunk, a.round.s.q_len - p.at);
    leave_strip<T>(rows_of<__nv_bfloat16>(a.round.dv, p.head.b, p.head.kv_h, p.at), tile_of(V_TILE),
                   y, scaled(s.of(own.array[P_TOKEN]), taken<T>(-state_exponent(a))), s, end);
}

/* dp, db, p t, dv; grid (segments, units) */
template <typename T>
__global__ void __launch_bounds__(kChunkThreads, 3)
    push_strips(const __grid_constant__ causal_gradient a)
{
    chunk_own &own = own_of(PUSH_TILES);
    const strip_place s;
    strip_values state;
    read_state(state, matrix_of(a, blockIdx.y, 1, blockIdx.x), s);
    scale_strip(state, taken<T>(state_exponent(a)));
    const int64_t first = blockIdx.x * (int64_t)a.segment;
    for (int64_t chunk = min(first + a.segment, a.chunks) - 1; chunk >= first; chunk--) {
        const chunk_place p = place_of(a, blockIdx.y, chunk);
        visit_all(a, p);
        put_strip<T>(s.own(tile_of(STATE_TILE)), state, s.at);
        load_chunk_vector(a, own, p, 0, DU);
        for (const token_scalar name : {A, B, S, E, Z, DC})
            load_chunk_scalar(a, own, p, name);
        weigh_chunk(own, p, taken<T>(state_exponent(a)));
        wait_copies<0>();
        __syncthreads();
        strip_values phi, t = {}, c = {};
        uint32_t operand[4][4];
        chunk_phi<T>(phi, tile_of(Q_TILE), s, p);
        put_halves<T>(tile_of(Q_TILE), tile_of(PUSH_LOW), phi, s);
        load_rows_of(operand, tile_of(V_TILE), s);
        multiply_matrix<true, T>(c, operand, tile_of(G_TILE), s.at);
        multiply_matrix<true, T>(t, operand, tile_of(STATE_TILE), s.at);
        pack_triangle<false, T>(operand, c, own.array[R_TOKEN], 1.0F, s);
        __syncthreads(); /* q */
        multiply_matrix<false, T>(t, operand, tile_of(Q_TILE), s.at);
        chunk_phi<T>(phi, tile_of(K_TILE), s, p);
        const float undo = taken<T>(-state_exponent(a));
        const strip_dots dp = scaled(dot_pair(phi, t), undo), of_p = s.of(own.array[P_TOKEN]);
        const strip_dots z = s.of(own.array[Z]), out = s.of(own.array[B]), n = numbers_of(p, s);
        leave_scalar(a, p, s, DP, dp);
        s.put(own.array[DO], {n.low > 0.0F ? of_p.low * dp.low / z.low : 0.0F,
                              n.high > 0.0F ? of_p.high * dp.high / z.high : 0.0F});
        /* p t, through the rows of k, which stand in registers now */
        leave_strip<T>(rows_of<__nv_bfloat16>(a.turned, p.head.b, p.head.kv_h, p.at),
                       tile_of(K_TILE), t, scaled(of_p, undo), s, p.rows);
        multiply_halves<true>(c, strip_halves<T>(phi), tile_of(Q_TILE), tile_of(PUSH_LOW), s);
        const strip_dots flow =
            plus(dot_vector(phi, own.vectors[0], 0.0F),
                 sum_triangle<false>(c, s, own.array[DC], nullptr, sum_strip_rows(phi)));
        const strip_dots db = {n.low > 0.0F ? -n.low / (out.low * out.low) * flow.low : 0.0F,
                               n.high > 0.0F ? -n.high / (out.high * out.high) * flow.high : 0.0F};
        leave_scalar(a, p, s, DB, db);
        sum_strip_columns(own, 0, phi, db, kEps, s);
        push_values<T>(a, own, p, s, phi, c);
        add_chunk<T>(state, tile_of(Q_TILE), own.array[R_TOKEN], tile_of(G_TILE), s);
        __syncthreads();
        leave_columns(a, own, p, 0, BS);
        if (s.warp == 3) {
            const double sum = sum_tokens(own.array[DO], s.lane);
            if (s.lane == 0)
                running_of(a, p, 1) = (float)sum;
        }
        __syncthreads();
    }
}

/* ---- competition and incoming ---------------------------------------------------------------- */

template <typename T>
__global__ void __launch_bounds__(kChunkThreads, 4)
    competition_strips(const __grid_constant__ causal_gradient a)
{
    chunk_own &own = own_of(1);
    const strip_place s;
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    const int i = (int)threadIdx.x;
    fetch_key(tile_of(0), a.round.s.k, p);
    commit_copies();
    for (const token_scalar name : {E, Z, DP})
        load_chunk_scalar(a, own, p, name);
    if (i < kChunk) {
        const float n = (float)(p.at + i + 1), z = own.array[Z][i];
        own.array[DR][i] =
            i < p.rows ? n * (fabsf(own.array[E][i]) / z) * own.array[DP][i] / z : 0.0F;
    }
    wait_copies<0>();
    __syncthreads();
    if (s.warp == 0)
        scan_tokens<true>(own.array[DR], (double)running_of(a, p, 1), own.array[DA], s.lane);
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
    strip_values phi;
    chunk_phi<T>(phi, tile_of(0), s, p);
    sum_strip_columns(own, 0, phi, s.of(own.array[DO]), kEps, s);
    __syncthreads();
    leave_columns(a, own, p, 0, DW);
}

template <typename T>
__global__ void __launch_bounds__(kChunkThreads, 3)
    incoming_strips(const __grid_constant__ causal_gradient a)
{
    chunk_own &own = own_of(SCORE_TILES);
    const strip_place s;
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    strip_values q, k, c;
    load_chunk_vector(a, own, p, 0, DW);
    for (const token_scalar name : {A, S, DR, DO})
        load_chunk_scalar(a, own, p, name);
    visit_sides<T>(a, own, p, s, q, k);
    form_strip_scores<T>(c, tile_of(Q_TILE), tile_of(Q_LOW), tile_of(K_TILE), tile_of(K_LOW), s);
    const strip_dots flow =
        plus(dot_vector(q, own.vectors[0], 0.0F),
             sum_triangle<false>(c, s, own.array[DO], nullptr, s.of(own.array[Q_SUM])));
    const strip_dots in = s.of(own.array[A]), share = s.of(own.array[S]), dr = s.of(own.array[DR]);
    const strip_dots n = numbers_of(p, s);
    const strip_dots da = {
        n.low > 0.0F ? -fmaf(share.low, dr.low, n.low * flow.low) / (in.low * in.low) : 0.0F,
        n.high > 0.0F ? -fmaf(share.high, dr.high, n.high * flow.high) / (in.high * in.high)
                      : 0.0F};
    leave_scalar(a, p, s, DA, da);
    sum_strip_columns(own, 0, q, da, kEps, s);
    __syncthreads();
    leave_columns(a, own, p, 0, AS);
}

/* ---- outputs --------------------------------------------------------------------------------- */

enum { DQ_TILE = SCORE_TILES, DK_TILE, OUTPUT_TILES };

/* What the chunk's tokens give the strip's: for queries weights of keys, X_ij = dc_i beta_j + da_i
 * below the diagonal, alpha_i do_j + db_j above it, both on it; for keys the transpose. Returns the
 * sums of the row's weights of tokens from its own on, which multiply a key (a query) plus eps. */
__device__ inline strip_dots mix_strip(strip_values &x, const chunk_own &own, const strip_place &s,
                                       bool queries)
{
    strip_dots from_own = {};
    const strip_dots row0 = s.of(own.array[queries ? DC : BETA]),
                     row1 = s.of(own.array[queries ? DA : DO]),
                     row2 = s.of(own.array[queries ? ALPHA : DB]);
    const float *col0 = own.array[queries ? BETA : DC], *col1 = own.array[queries ? DO : DA],
                *col2 = own.array[queries ? DB : ALPHA];
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int col = 8 * n + 2 * s.t + i % 2, row = s.row + s.g + i / 2 * 8;
            const float a = i < 2 ? row0.low : row0.high, b = i < 2 ? row1.low : row1.high,
                        c = i < 2 ? row2.low : row2.high;
            /* queries: below is dc beta + da, above alpha do + db; keys: below (the other way
             * round) is beta dc + da, above do alpha + db */
            const float below = queries ? fmaf(a, col0[col], b) : fmaf(a, col0[col], col1[col]);
            const float above = queries ? fmaf(c, col1[col], col2[col]) : fmaf(b, col2[col], c);
            const bool is_below = queries ? col <= row : col >= row;
            const bool is_above = queries ? col >= row : col <= row;
            x[n][i] = (is_below ? below : 0.0F) + (is_above ? above : 0.0F);
            float &sum = i < 2 ? from_own.low : from_own.high;
            sum += (queries ? is_above : is_below) ? (queries ? above : below) : 0.0F;
        }
    return over_quad(from_own);
}

/* y = X times a tile in halves. X falls as the position grows. */
template <typename T>
__device__ void multiply_mixed(strip_values &y, strip_values &x, int high, int low,
                               const chunk_place &p, const strip_place &s)
{
    const int exponent = 34 - __clz((int)p.chunk);
    scale_strip(x, taken<T>(exponent));
    multiply_halves<false>(y, strip_halves<T>(x), tile_of(high), tile_of(low), s);
    scale_strip(y, taken<T>(-exponent));
}

/* Adds what is parked in the tile, scaled vectors of the chunk, and multiplies by the slope of phi.
 */
struct output_term {
    chunk_vector name;
    float eps;
    strip_dots weight;
};

template <typename T>
__device__ void finish_output(strip_values &y, const strip_values &phi, const char *tile,
                              const chunk_own &own, const strip_place &s,
                              const output_term (&terms)[3], chunk_vector plain,
                              strip_dots from_own)
{
    const strip_dots lift = scaled(from_own, kEps);
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const char *from = tile + s.row * kRowBytes + (s.at.result ^ (uint32_t)(n << 4));
        const uint32_t low = *reinterpret_cast<const uint32_t *>(from);
        const uint32_t high = *reinterpret_cast<const uint32_t *>(from + 8 * kRowBytes);
        const float parked[4] = {low_of<T>(low), high_of<T>(low), low_of<T>(high),
                                 high_of<T>(high)};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int col = 8 * n + 2 * s.t + i % 2;
            float sum =
                y[n][i] + parked[i] + own.vectors[plain][col] + (i < 2 ? lift.low : lift.high);
#pragma unroll
            for (int k = 0; k < 3; k++)
                sum = fmaf(i < 2 ? terms[k].weight.low : terms[k].weight.high,
                           own.vectors[terms[k].name][col] + terms[k].eps, sum);
            y[n][i] = sum * slope_from(phi[n][i]);
        }
    }
}

template <typename T>
__global__ void __launch_bounds__(kChunkThreads, 3)
    outputs_strips(const __grid_constant__ causal_gradient a)
{
    chunk_own &own = own_of(OUTPUT_TILES);
    const strip_place s;
    const chunk_place p = place_of(a, blockIdx.y, blockIdx.x);
    const int end = (int)min((int64_t)kChunk, a.round.s.q_len - p.at);
    strip_values q, k, x, y;
    fetch_query(tile_of(DQ_TILE), a.round.dq, p);
    fetch_key(tile_of(DK_TILE), a.turned, p);
    for (int name = 0; name < CHUNK_VECTORS; name++)
        load_chunk_vector(a, own, p, name, (chunk_vector)name);
    for (const token_scalar name : {A, B, DC, DO, DA, DB})
        load_chunk_scalar(a, own, p, name);
    invert_flows(own, p);
    visit_sides<T>(a, own, p, s, q, k);
    strip_dots from_own = mix_strip(x, own, s, true);
    multiply_mixed<T>(y, x, K_TILE, K_LOW, p, s);
    finish_output<T>(y, q, tile_of(DQ_TILE), own, s,
                     {{U, kEps, s.of(own.array[DC])},
                      {DW, 0.0F, s.of(own.array[ALPHA])},
                      {CK, kEps, s.of(own.array[DA])}},
                     BS, from_own);
    leave_strip<T>(rows_of<__nv_bfloat16>(a.round.dq, p.head.b, p.head.h, p.at), tile_of(DQ_TILE),
                   y, {1.0F, 1.0F}, s, end);
    from_own = mix_strip(x, own, s, false);
    multiply_mixed<T>(y, x, Q_TILE, Q_LOW, p, s);
    finish_output<T>(y, k, tile_of(DK_TILE), own, s,
                     {{W, kEps, s.of(own.array[DO])},
                      {DU, 0.0F, s.of(own.array[BETA])},
                      {CQ, kEps, s.of(own.array[DB])}},
                     AS, from_own);
    leave_strip<T>(rows_of<__nv_bfloat16>(a.round.dk, p.head.b, p.head.kv_h, p.at),
                   tile_of(DK_TILE), y, {1.0F, 1.0F}, s, end);
}

/* ---- launching ------------------------------------------------------------------------------- */

struct strip_kernel {
    void (*kernel)(causal_gradient);
    int tiles;
    bool by_segment;
};

enum fb_status launch_one(const strip_kernel &k, const causal_gradient &a, unsigned units,
                          cudaStream_t stream, struct fb_error *error)
{
    const enum fb_status status = fb_cuda_allow_shared((const void *)k.kernel, chunk_bytes(k.tiles),
                                                       "causal flow's gradient", error);
    if (status != FB_OK)
        return status;
    const dim3 grid((unsigned)(k.by_segment ? a.segments : a.chunks), units);
    k.kernel<<<grid, kChunkThreads, chunk_bytes(k.tiles), stream>>>(a);
    return fb_cuda_launched("causal flow's gradient", error);
}

template <typename T>
enum fb_status launch_all(const causal_gradient &a, int64_t count, cudaStream_t stream,
                          struct fb_error *error)
{
    const unsigned units = (unsigned)count;
    enum fb_status status = FB_OK;
    const auto run = [&](void (*kernel)(causal_gradient), int tiles, bool by_segment) {
        if (status == FB_OK)
            status = launch_one({kernel, tiles, by_segment}, a, units, stream, error);
    };
    const auto scan = [&](chunk_vector first, unsigned vectors) {
        scan_vectors<<<dim3(units, vectors), kDim, 0, stream>>>(a, first);
    };
    run(sums_strips<T>, 2, false);
    scan(CK, 2);
    run(flows_strips<T>, SCORE_TILES, false);
    scan(U, 2);
    run(conserve_strips<T>, SCORE_TILES, false);
    scan_running<<<units, 1, 0, stream>>>(a, 0);
    run(states_strips<T>, STATE_TILE, true);
    scan_matrices<<<dim3(units, kDim * kDim / 256, 2), 256, 0, stream>>>(a);
    run(pull_strips<T>, STATE_TILES, true);
    scan(DU, 1);
    run(push_strips<T>, PUSH_TILES, true);
    scan(BS, 1);
    scan_running<<<units, 1, 0, stream>>>(a, 1);
    run(competition_strips<T>, 1, false);
    scan(DW, 1);
    run(incoming_strips<T>, SCORE_TILES, false);
    scan(AS, 1);
    run(outputs_strips<T>, OUTPUT_TILES, false);
    return status;
}

} // namespace

enum fb_status flow_cuda_causal_strips(const causal_gradient &a, enum fb_dtype dtype, int64_t units,
                                       cudaStream_t stream, struct fb_error *error)
{
    return dtype == FB_F16 ? launch_all<__half>(a, units, stream, error)
                           : launch_all<__nv_bfloat16>(a, units, stream, error);
}
