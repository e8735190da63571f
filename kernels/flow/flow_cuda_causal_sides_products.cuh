/* Products of the strips of a chunk, and of its parts of the states, for causal Flow-Attention's
 * gradient in clusters. */
#ifndef FB_FLOW_CUDA_CAUSAL_SIDES_PRODUCTS_CUH
#define FB_FLOW_CUDA_CAUSAL_SIDES_PRODUCTS_CUH

#include "flow_cuda_causal_sides.cuh"

namespace
{

#if FB_HAVE_WGMMA

__device__ inline strip_dots product(strip_dots x, strip_dots y)
{
    return {x.low * y.low, x.high * y.high};
}

/* ---- triangles ------------------------------------------------------------------------------- */

/* Zero on the other side of the diagonal, in the strip's own block: a quarter of it is beyond, two
 * quarters are cut. */
__device__ inline void cut_block(float (&low)[4], float (&high)[4], bool before,
                                 const strip_place &s)
{
    const int col = 2 * s.t - s.g; /* less the row */
    const bool even = before ? col <= 0 : col >= 0, odd = before ? col < 0 : col >= -1;
    low[0] = even ? low[0] : 0.0F;
    low[1] = odd ? low[1] : 0.0F;
    low[2] = before ? low[2] : 0.0F;
    low[3] = before ? low[3] : 0.0F;
    high[0] = before ? 0.0F : high[0];
    high[1] = before ? 0.0F : high[1];
    high[2] = even ? high[2] : 0.0F;
    high[3] = odd ? high[3] : 0.0F;
}

__device__ inline void cut_triangle(strip_values &c, bool before, const strip_place &s)
{
#pragma unroll
    for (int block = 0; block < 4; block++) {
        int warp = s.warp;
        asm volatile("" : "+r"(warp)); /* no array indexed by it, which would not be in registers */
        if (block == warp) {
            cut_block(c[2 * block], c[2 * block + 1], before, s);
        } else if (before ? block > warp : block < warp) {
#pragma unroll
            for (int i = 0; i < 8; i++)
                c[2 * block + i / 4][i % 4] = 0.0F;
        }
    }
}

/* ---- products of tiles ------------------------------------------------------------------------
 */

/* By the four warps of a side together, a warp has its strip of the result. What they read has been
 * published; they end with end_products. */

__device__ inline uint64_t described(const char *tile)
{
    return wgmma_tile(shared_address(tile));
}

__device__ inline void begin_products(strip_values &c)
{
    wgmma_hold(c);
    wgmma_begin();
}

__device__ inline void end_products(strip_values &c)
{
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(c);
}

/* c += x y^T. */
template <typename T> __device__ void add_turned(strip_values &c, const char *x, const char *y)
{
    const uint64_t a = described(x), b = described(y);
#pragma unroll
    for (int step = 0; step < 4; step++)
        wgmma_turned<T>(c, a + step * kStepColumns, b + step * kStepColumns, false);
}

/* c += a y, the strip's rows in registers. */
template <typename T>
__device__ void add_product(strip_values &c, const uint32_t (&a)[4][4], const char *y)
{
    const uint64_t b = described(y);
#pragma unroll
    for (int step = 0; step < 4; step++)
        wgmma_add<T>(c, a[step], b + step * kStepRows);
}

/* The lane's part of phi's rows times the side's packed vectors: the lane with t = 0 has the first,
 * that with t = 1 the second, others none. To be summed over the quad. */
template <typename T, int Vectors> __device__ strip_dots dot_packed(const sides_block &x)
{
    const strip_place &s = x.s;
    uint4 even = {}, odd = {};
    if (s.g < 2 * Vectors) {
        const uint4 *from = reinterpret_cast<const uint4 *>(x.own->packed[x.side][s.g]) + 2 * s.t;
        even = from[0];
        odd = from[1];
    }
    const uint32_t b[8] = {even.x, even.y, even.z, even.w, odd.x, odd.y, odd.z, odd.w};
    float sum[4] = {}, low[4] = {};
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint32_t a[4], a_low[4];
        load_a(a, shared_address(s.own(x.tile(OWN_TILE, x.side))), s.at, step);
        load_a(a_low, shared_address(s.own(x.tile(LOW_TILE, x.side))), s.at, step);
        multiply<T>(low, a_low, b[2 * step], b[2 * step + 1]);
        multiply<T>(sum, a, b[2 * step], b[2 * step + 1]);
    }
    return {sum[0] + sum[1] + (low[0] + low[1]), sum[2] + sum[3] + (low[2] + low[3])};
}

/* phi y^T of the tokens before, or after, y the other side's phi. */
template <typename T>
__device__ void score_tokens(strip_values &c, bool before, const sides_block &x)
{
    const char *own = x.tile(OWN_TILE, x.side), *other = x.tile(OWN_TILE, 1 - x.side);
    clear_strip(c);
    begin_products(c);
    add_turned<T>(c, x.tile(LOW_TILE, x.side), other);
    add_turned<T>(c, own, x.tile(LOW_TILE, 1 - x.side));
    add_turned<T>(c, own, other);
    end_products(c);
    cut_triangle(c, before, x.s);
}

/* Sums of the strip's rows of c, its columns weighted (NULL: 1), in all lanes, on top of the lane's
 * part of a sum. */
__device__ inline strip_dots sum_weighted(strip_dots sum, const strip_values &c,
                                          const float *weight, const strip_place &s)
{
#pragma unroll
    for (int n = 0; n < 8; n++) {
        float2 w = {1.0F, 1.0F};
        if (weight != nullptr)
            w = *reinterpret_cast<const float2 *>(weight + 8 * n + 2 * s.t);
        sum.low = fmaf(w.x, c[n][0], fmaf(w.y, c[n][1], sum.low));
        sum.high = fmaf(w.x, c[n][2], fmaf(w.y, c[n][3], sum.high));
    }
    return over_quad(sum);
}

/* c, its columns weighted, as operand a; scale: of all of it (1: bf16). */
template <typename T>
__device__ void pack_weighted(uint32_t (&a)[4][4], const strip_values &c, const float *weight,
                              float scale, const strip_place &s)
{
#pragma unroll
    for (int n = 0; n < 8; n++) {
        float2 w = *reinterpret_cast<const float2 *>(weight + 8 * n + 2 * s.t);
        if constexpr (kNarrow<T>)
            w = make_float2(w.x * scale, w.y * scale);
        a[n / 2][n % 2 * 2] = pack_pair<T>(w.x * c[n][0], w.y * c[n][1]);
        a[n / 2][n % 2 * 2 + 1] = pack_pair<T>(w.x * c[n][2], w.y * c[n][3]);
    }
}

/* A strip into its rows of a tile. */
template <typename T>
__device__ void store_strip(char *tile, const strip_values &y, const strip_place &s)
{
    uint32_t a[4][4];
    pack_strip<T>(a, y);
    const uint32_t rows = shared_address(s.own(tile));
#pragma unroll
    for (int step = 0; step < 4; step++)
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(
                         rows + (s.at.straight ^ (uint32_t)(step << 5))),
                     "r"(a[step][0]), "r"(a[step][1]), "r"(a[step][2]), "r"(a[step][3])
                     : "memory");
}

/* The lane's phi in halves, as a product's result would lie: visit(block of 8 columns, first of two
 * places in it, phi, phi). */
template <typename T, typename Visit> __device__ void each_phi(const sides_block &x, Visit visit)
{
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint32_t a[4], a_low[4];
        load_a(a, shared_address(x.s.own(x.tile(OWN_TILE, x.side))), x.s.at, step);
        load_a(a_low, shared_address(x.s.own(x.tile(LOW_TILE, x.side))), x.s.at, step);
#pragma unroll
        for (int i = 0; i < 4; i++)
            visit(2 * step + i / 2, i % 2 * 2, low_of<T>(a[i]) + low_of<T>(a_low[i]),
                  high_of<T>(a[i]) + high_of<T>(a_low[i]));
    }
}

/* ---- states ---------------------------------------------------------------------------------- */

/* 16 columns of a tile as rows of an operand, its rows weighted. */
template <typename T>
__device__ void load_weighted(uint32_t (&a)[4][4], const char *tile, const float *weight,
                              const strip_place &s)
{
#pragma unroll
    for (int step = 0; step < 4; step++) {
        load_a_turned(a[step], shared_address(tile) + step * 16 * kRowBytes, s.at, s.warp);
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[step][i] = scale_two<T>(a[step][i], *reinterpret_cast<const float2 *>(
                                                      weight + 16 * step + i / 2 * 8 + 2 * s.t));
    }
}

/* The chunk's own part of the side's state: phi^T (weight value), to the blocks that join its rows,
 * 64 / ranks each. The side is in step before. */
template <typename T> __device__ void send_parts(const sides_block &x, exchange_name name)
{
    const strip_place &s = x.s;
    char *staging = x.tile(STATE_OF, x.side);
    const int share = 1 << x.share_bits;
    strip_values state;
    uint32_t weighted[4][4];
    load_weighted<T>(weighted, x.tile(OWN_TILE, x.side), x.own->array[WEIGHT + x.side], s);
    clear_strip(state);
    begin_products(state);
    add_product<T>(state, weighted, x.tile(VALUE_TILE, x.side));
    end_products(state);
    store_strip<T>(staging, state, s);
    __syncwarp();
    const uint32_t barrier = shared_address(&x.own->barriers[name]);
    const uint32_t parts = shared_address(x.tile(PARTS_OF, x.side)) + x.rank * share * kRowBytes;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = s.row + 4 * i + s.lane / 8, chunk = s.lane % 8, owner = row >> x.share_bits;
        send_chunk(x.of_team(parts + (row & (share - 1)) * kRowBytes + 16 * chunk, owner),
                   x.of_team(barrier, owner),
                   *reinterpret_cast<const uint4 *>(staging + chunk_offset(row, chunk)));
    }
}

template <typename T> struct eight_sums {
    float x[8];
    __device__ void add(uint4 four)
    {
        const uint32_t p[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[2 * i] += low_of<T>(p[i]);
            x[2 * i + 1] += high_of<T>(p[i]);
        }
    }
    __device__ uint4 rounded(float scale) const
    {
        return make_uint4(
            pack_pair<T>(x[0] * scale, x[1] * scale), pack_pair<T>(x[2] * scale, x[3] * scale),
            pack_pair<T>(x[4] * scale, x[5] * scale), pack_pair<T>(x[6] * scale, x[7] * scale));
    }
};

/* Eight columns of one of this block's rows of a state, as the blocks' parts of them lie: as many
 * of them as threads for four blocks each. */
struct joined_chunk {
    int side, first, row, chunk; /* first: of the four blocks, in the order of the sum */
    const char *parts;
    int step;
    __device__ explicit joined_chunk(const sides_block &x)
    {
        const int share = 1 << x.share_bits, index = x.index & (16 * share - 1);
        side = index >= 8 * share ? KEYS : QUERIES;
        first = x.index >> (x.share_bits + 4) << 2;
        chunk = index % 8;
        row = index / 8 & (share - 1);
        parts = x.tile(PARTS_OF, side) + row * kRowBytes + 16 * chunk;
        row += x.rank * share;
        step = share * kRowBytes;
    }
    __device__ uint4 part(int rank) const
    {
        return *reinterpret_cast<const uint4 *>(parts + rank * step);
    }
    /* Of what is carried from segment to segment. */
    __device__ double2 *of(double *carried) const
    {
        return reinterpret_cast<double2 *>(carried + row * kDim + 8 * chunk);
    }
};

/* The thread's columns of what comes before a segment (M, as saved) or after it (R, as carried), on
 * their way. */
union outside_chunk {
    double2 carried[4];
    saved_eight saved;
};

__device__ inline outside_chunk read_outside(const sides_block &x, const causal_saved &saved,
                                             double *carried, int64_t segment, bool last)
{
    const joined_chunk c(x);
    outside_chunk y;
#pragma unroll
    for (int i = 0; i < 4; i++)
        y.carried[i] = make_double2(0.0, 0.0);
    if (c.side == KEYS) {
        if (segment > 0)
            y.saved = saved.eight(segment, c.row, c.chunk);
    } else if (!last) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            y.carried[i] = c.of(carried)[i];
    }
    return y;
}

/* What comes before (M) or after (R) each of the cluster's chunks, to their blocks. */
template <typename T>
__device__ void join_states(sides_block &x, double *carried, const outside_chunk &outside)
{
    const joined_chunk c(x);
    const bool keys = c.side == KEYS;
    const auto order = [&](int k) { return keys ? k : x.ranks - 1 - k; };
    x.step_team(); /* nobody joins before all have read what is carried */
    x.await_exchange(PARTS);
    if (x.index == 0)
        x.ready(PARTS);
    eight_sums<T> sum;
    float scale = 1.0F; /* of what is told */
    if (keys) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum.x[i] = outside.saved.at(i) * taken<T>(kShareExponent);
        scale = taken<T>(-kShareExponent - x.state_exponent());
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const double2 pair = outside.carried[i / 2];
            sum.x[i] = (float)(i % 2 == 0 ? pair.x : pair.y) * taken<T>(x.state_exponent());
        }
    }
#pragma unroll 1
    for (int k = 0; k < c.first; k++)
        sum.add(c.part(order(k)));
    const uint32_t to = shared_address(x.tile(STATE_OF, c.side) + chunk_offset(c.row, c.chunk));
    const uint32_t barrier = shared_address(&x.own->barriers[STATES]);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const int other = order(c.first + k);
        send_chunk(x.of_team(to, other), x.of_team(barrier, other), sum.rounded(scale));
        sum.add(c.part(other));
    }
    if (!x.alone && !keys && c.first + 4 == x.ranks) {
        eight_sums<T> all = {};
#pragma unroll 1
        for (int k = 0; k < x.ranks; k++)
            all.add(c.part(k));
        const float undo = taken<T>(-x.state_exponent());
#pragma unroll
        for (int i = 0; i < 4; i++) {
            double2 pair = outside.carried[i];
            pair.x += (double)(all.x[2 * i] * undo);
            pair.y += (double)(all.x[2 * i + 1] * undo);
            c.of(carried)[i] = pair;
        }
    }
    x.await_exchange(STATES);
    if (x.index == 0)
        x.ready(STATES);
    publish_shared();
}

#endif

} // namespace

#endif
