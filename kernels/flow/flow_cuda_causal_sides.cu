/*
 * Gradients of Flow-Attention, causal form, bf16 and f16, heads of 64, on Hopper, in one launch: a
 * cluster of blocks takes a head, a block a chunk of 64 tokens at a time, whose q, k, v and dout
 * stand in its shared memory. A longer head is walked over backwards, in segments of the cluster.
 * What comes before a chunk a forward call has saved, as vectors and 64 x 64 states
 * (flow_cuda_causal_saved.cuh), what comes after it the blocks send to one another;
 * flow_cuda_causal_gradient.cu tells what the steps compute:
 *
 *   chunk     phi; a, b; c, o, E, Z
 *   states    M = sum k^T (p v) before, R = sum q^T (r dout) after
 *   pull      h = M dout, dr, dc; t = R v, dp; sums of dc q', p dp / Z   after
 *   sources   db, do; dv; sums of db k', do k'                       after
 *   sinks     da; sum of da q'                                       after
 *   outputs   dq, dk
 *
 * grid (blocks, units), cluster (blocks), block 512: two teams, each with a chunk, so that one
 * computes while the other waits. Sums are taken in the order of warps, ranks and segments: same
 * bits every time. What the eps of second factors adds within a chunk, and to sums over the tokens
 * after it, is taken where it counts (flow_cuda_causal_sides_faint.cuh).
 */
#include "flow_cuda_causal_sides_forward.cuh"

#include "flow_cuda.h"

namespace
{

#if FB_HAVE_WGMMA

/* ---- backward -------------------------------------------------------------------------------- */

/* dout v^T of the tokens before (v dout^T of those after), weighted: what h (t) needs of the chunk
 * itself. */
template <typename T> __device__ void weigh_values(const sides_block &x, uint32_t (&operand)[4][4])
{
    strip_values c;
    clear_strip(c);
    begin_products(c);
    add_turned<T>(c, x.tile(VALUE_TILE, x.side), x.tile(VALUE_TILE, 1 - x.side));
    end_products(c);
    cut_triangle(c, x.side == QUERIES, x.s);
    /* p to h's power of two, which is M's; r has t's */
    const int exponent = x.side == QUERIES ? -kShareExponent - x.state_exponent() : 0;
    pack_weighted<T>(operand, c, x.own->array[WEIGHT + 1 - x.side], taken<T>(exponent), x.s);
}

/* h or t with its power of two, and its product with phi without. */
template <typename T>
__device__ strip_dots pull_strip(const sides_block &x, const uint32_t (&operand)[4][4],
                                 strip_values &h)
{
    clear_strip(h);
    begin_products(h);
    add_product<T>(h, operand, x.tile(OWN_TILE, 1 - x.side));
    add_turned<T>(h, x.tile(VALUE_TILE, x.side), x.tile(STATE_OF, 1 - x.side));
    end_products(h);
    strip_dots sum = {};
    each_phi<T>(x, [&](int n, int i, float first, float second) {
        float &to = i == 0 ? sum.low : sum.high;
        to = fmaf(first, h[n][i], fmaf(second, h[n][i + 1], to));
    });
    const int exponent = x.state_exponent();
    return scaled(over_quad(sum), taken<T>(x.side == QUERIES ? exponent : -exponent));
}

/* Where r h or p t waits: a tile that nobody needs any more. */
__device__ inline char *parked_tile(const sides_block &x)
{
    return x.side == QUERIES ? x.tile(STATE_OF, KEYS) : x.tile(VALUE_TILE, KEYS);
}

template <typename T> __device__ void park_strip(const sides_block &x, strip_values &h)
{
    /* r's power of two makes up for h's */
    const int exponent =
        kSlopeExponent - (x.side == QUERIES ? 0 : kShareExponent + x.state_exponent());
    const strip_dots w = scaled(x.s.of(x.own->array[WEIGHT + x.side]), taken<T>(exponent));
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            h[n][i] *= i < 2 ? w.low : w.high;
    store_strip<T>(parked_tile(x), h, x.s);
}

/* The strip's rows through the strip's rows of a tile. */
template <typename T>
__device__ void write_rows(const tensor_view &to, const sides_block &x, const chunk_place &p,
                           char *tile, const strip_values &y, bool whole)
{
    __syncwarp();
    store_strip<T>(tile, y, x.s);
    __syncwarp();
    const int row = x.s.row + x.s.lane / 8, chunk = x.s.lane % 8;
    const head_rows<__nv_bfloat16> rows = rows_of<__nv_bfloat16>(to, x.b, x.h, p.at + row);
    __nv_bfloat16 *out = rows.data + 8 * chunk;
    const char *from = tile + chunk_offset(row, chunk), *odd = tile + chunk_offset(row + 4, chunk);
#pragma unroll
    for (int i = 0; i < 4; i++, out += 4 * rows.stride) {
        const uint4 bits =
            *reinterpret_cast<const uint4 *>((i % 2 == 0 ? from : odd) + i / 2 * 8 * kRowBytes);
        if (row + 4 * i < p.rows && whole)
            *reinterpret_cast<uint4 *>(out) = bits;
        else if (row + 4 * i < p.rows)
            write_entries(out, bits);
    }
    __syncwarp();
}

/* dv = p (k R + (r tril A)^T dout); c: the strip of A^T. */
template <typename T>
__device__ void write_values(const sides_block &x, const sides_gradient &a, const chunk_place &p,
                             const strip_values &c)
{
    strip_values y;
    uint32_t operand[4][4], keys[4][4];
    pack_weighted<T>(operand, c, x.own->array[WEIGHT + QUERIES], 1.0F, x.s);
    load_strip(keys, shared_address(x.s.own(x.tile(OWN_TILE, KEYS))), x.s.at);
    clear_strip(y);
    begin_products(y);
    add_product<T>(y, operand, x.tile(VALUE_TILE, QUERIES));
    add_product<T>(y, keys, x.tile(STATE_OF, QUERIES));
    end_products(y);
    x.step_side(); /* R is spent */
    const strip_dots w =
        scaled(x.s.of(x.own->array[WEIGHT + KEYS]), taken<T>(-kShareExponent - x.state_exponent()));
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            y[n][i] *= i < 2 ? w.low : w.high;
    write_rows<T>(a.round.dv, x, p, x.tile(STATE_OF, QUERIES), y, a.whole);
}

/* What a row's gradient is made of, with kSlopeExponent in f16: weights of the other side's tokens,
 * X = x y + z of those up to it, x_after y_after + z_after of those from it on, and of vectors. */
struct output_terms {
    strip_dots x, z, x_after;
    const float *y, *y_after, *z_after; /* of tokens */
};

/* 16 columns of X as operand a, in halves. */
template <typename T>
__device__ void mix_block(uint32_t (&a)[4], uint32_t (&a_low)[4], const output_terms &o, int step,
                          const strip_place &s)
{
    const auto pair = [&](const float *from, int half) {
        return *reinterpret_cast<const float2 *>(from + 16 * step + 8 * half + 2 * s.t);
    };
    float sum[2][4] = {};
    if (step <= s.warp) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float2 y = pair(o.y, half);
            sum[half][0] = fmaf(o.x.low, y.x, o.z.low);
            sum[half][1] = fmaf(o.x.low, y.y, o.z.low);
            sum[half][2] = fmaf(o.x.high, y.x, o.z.high);
            sum[half][3] = fmaf(o.x.high, y.y, o.z.high);
        }
        if (step == s.warp)
            cut_block(sum[0], sum[1], true, s);
    }
    if (step >= s.warp) {
        float after[2][4];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float2 y = pair(o.y_after, half), z = pair(o.z_after, half);
            after[half][0] = fmaf(o.x_after.low, y.x, z.x);
            after[half][1] = fmaf(o.x_after.low, y.y, z.y);
            after[half][2] = fmaf(o.x_after.high, y.x, z.x);
            after[half][3] = fmaf(o.x_after.high, y.y, z.y);
        }
        if (step == s.warp)
            cut_block(after[0], after[1], false, s);
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum[i / 4][i % 4] += after[i / 4][i % 4];
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        split_pair<T>(a[i], a_low[i], sum[i / 2][i % 2 * 2], sum[i / 2][i % 2 * 2 + 1]);
}

/* The rows' weights of the side's vectors as operand a, the vectors being rows of its terms: the
 * lane with t = 0, 1 and 2 has x, z and x_after, the last has 1; halves twice, each for both halves
 * of the vector. before: what the vectors before the chunk lack of kSlopeExponent, less that. */
template <typename T>
__device__ void weigh_terms(uint32_t (&a)[4], const output_terms &o, float before,
                            const strip_place &s)
{
    const auto one_of = [&](float x, float z, float x_after) {
        return s.t == 0 ? x : s.t == 1 ? z : s.t == 2 ? x_after : 1.0F;
    };
    float low = one_of(o.x.low, o.z.low, o.x_after.low),
          high = one_of(o.x.high, o.z.high, o.x_after.high);
    if constexpr (kNarrow<T>) {
        const float scale = s.t < 2 ? before : 1.0F;
        low = s.t == 2 ? bounded<T>(low) : low * scale;
        high = s.t == 2 ? bounded<T>(high) : high * scale;
    }
    a[0] = pack_pair<T>(low, low);
    a[1] = pack_pair<T>(high, high);
    const float rest = low - low_of<T>(a[0]), rest_high = high - low_of<T>(a[1]);
    a[2] = pack_pair<T>(rest, rest);
    a[3] = pack_pair<T>(rest_high, rest_high);
}

__device__ inline output_terms terms_of(const sides_block &x)
{
    const sides_shared &own = *x.own;
    const strip_dots inverse = x.s.of(own.array[INVERSE + x.side]);
    if (x.side == QUERIES)
        return {x.s.of(own.array[OF_C]),   x.s.of(own.array[OF_A]), inverse,
                own.array[INVERSE + KEYS], own.array[OF_O],         own.array[OF_B]};
    return {x.s.of(own.array[OF_O]),      x.s.of(own.array[OF_B]), inverse,
            own.array[INVERSE + QUERIES], own.array[OF_C],         own.array[OF_A]};
}

/* dq or dk. What the keys still have to be told they await when only its part is left to add. */
template <typename T>
__device__ void write_output(sides_block &x, const sides_gradient &a, const chunk_place &p)
{
    const output_terms o = terms_of(x);
    const char *other = x.tile(OWN_TILE, 1 - x.side);
    char *parked = parked_tile(x);
    strip_values y;
    uint32_t w[4][4], w_low[4][4];
#pragma unroll
    for (int step = 0; step < 4; step++)
        mix_block<T>(w[step], w_low[step], o, step, x.s);
    {
        uint32_t waiting[4][4];
        load_strip(waiting, shared_address(x.s.own(parked)), x.s.at);
        unpack_strip<T>(y, waiting);
    }
    begin_products(y);
    add_product<T>(y, w_low, other);
    add_product<T>(y, w, x.tile(LOW_TILE, 1 - x.side));
    add_product<T>(y, w, other);
    end_products(y);
    if (x.faint()) {
        const strip_dots lift = lift_output(o.x_after, o.y_after, o.z_after, x.s);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                y[n][i] += i < 2 ? lift.low : lift.high;
    }
    if (x.side == KEYS)
        take_vectors<T, true>(x, AFTER_A, 0, 0, kDim, AS);
    uint32_t of_terms[4];
    weigh_terms<T>(of_terms, o, taken<T>(-x.before_exponent()), x.s);
    begin_products(y);
    wgmma_add<T>(y, of_terms, described(x.own->terms[x.side]));
    end_products(y);
    each_phi<T>(x, [&](int n, int i, float first, float second) {
        constexpr float undo = kNarrow<T> ? power<-kSlopeExponent>() : 1.0F;
        y[n][i] *= fmaf(-first * undo, first, first * undo);
        y[n][i + 1] *= fmaf(-second * undo, second, second * undo);
    });
    write_rows<T>(x.side == QUERIES ? a.round.dq : a.round.dk, x, p, parked, y, a.whole);
}

/* A gradient of a scalar of the lane's rows: into its array, and as weights of a sum. */
template <typename T>
__device__ void leave_gradient(const sides_block &x, int array, int column, strip_dots d)
{
    x.s.put(x.own->array[array], scaled(d, taken<T>(kSlopeExponent)));
    put_weights<T>(x, column, scaled(d, taken<T>(x.scalar_exponent())));
}

/* Sums over the tokens after, of gradients in the array too, times the other side's phi. */
template <typename T>
__device__ strip_dots sum_gradients(const sides_block &x, const strip_values &c, int array)
{
    strip_dots sum = sum_weighted(dot_packed<T, 1>(x), c, x.own->array[array], x.s);
    if (x.faint())
        sum = plus(sum, lift_after<T>(x.tile(OWN_TILE, x.side), x.own->array[array], x.s));
    return scaled(sum, taken<T>(-kSlopeExponent));
}

/* da, when do and db are there. */
template <typename T>
__device__ void visit_sinks(sides_block &x, const side_scalars &v, strip_dots dr,
                            const strip_values &c)
{
    take_vectors<T, true>(x, AFTER_O, 1, 0, 2 * kDim, BS);
    const strip_dots flow = sum_gradients<T>(x, c, OF_O);
    const strip_dots sum = plus(product(share_of(v.x), dr), product(v.n, flow));
    const strip_dots da = positive(v.n, quotient({-sum.low, -sum.high}, product(v.flow, v.flow)));
    leave_gradient<T>(x, OF_A, FIRST_WEIGHTS, da);
    sum_columns<T>(x, 0, 0, FIRST_WEIGHTS, 1, taken<T>(-x.scalar_exponent()), x.faint());
    x.step_side();
    x.tell_keys();
    send_vectors(x, AFTER_A, 0, false);
}

/* db, do. */
template <typename T>
__device__ void visit_sources(sides_block &x, const side_scalars &v, strip_dots dp,
                              const strip_values &c)
{
    sides_shared &own = *x.own;
    if (x.s.warp == kChunkWarps - 1)
        scan_chunk<true>(own.array[EXPONENTIAL], own.array[RUNNING], x.s.lane);
    take_vectors<T, true>(x, AFTER_C, 0, 0, kDim + 1, DU);
    const strip_dots flow = sum_gradients<T>(x, c, OF_C);
    const strip_dots sum = product(v.n, flow);
    const strip_dots db = positive(v.n, quotient({-sum.low, -sum.high}, product(v.flow, v.flow)));
    leave_gradient<T>(x, OF_B, FIRST_WEIGHTS, db);
    const float beyond = own.vectors[BS][0]; /* p dp / Z of the chunks after */
    const strip_dots after = plus({beyond, beyond}, x.s.of(own.array[RUNNING]));
    const auto of = [](float e, float z, float dp, float after, float n) {
        return e > 0.0F ? e * (reciprocal(z) * dp - reciprocal(n) * after) : 0.0F;
    };
    const strip_dots dflow = positive(v.n, {of(v.x.low, v.z.low, dp.low, after.low, v.n.low),
                                            of(v.x.high, v.z.high, dp.high, after.high, v.n.high)});
    leave_gradient<T>(x, OF_O, SECOND_WEIGHTS, dflow);
    sum_columns<T>(x, 1, 0, FIRST_WEIGHTS, 2, taken<T>(-x.scalar_exponent()), x.faint());
}

/* The team is in step before. */
template <typename T>
__device__ void visit_backward(sides_block &x, const sides_gradient &a, const chunk_place &p,
                               const side_scalars &v, double *carried, const outside_chunk &outside)
{
    strip_values h;
    uint32_t operand[4][4];
    send_parts<T>(x, PARTS);
    weigh_values<T>(x, operand);
    join_states<T>(x, carried, outside);
    const strip_dots d = pull_strip<T>(x, operand, h);
    if (x.side == QUERIES) {
        const strip_dots slope = product(share_of(v.x), share_of(strip_dots{-v.x.low, -v.x.high}));
        const strip_dots dc = positive(v.n, quotient(product(slope, d), product(v.n, v.flow)));
        leave_gradient<T>(x, OF_C, FIRST_WEIGHTS, dc);
        sum_columns<T>(x, 0, 0, FIRST_WEIGHTS, 1, taken<T>(-x.scalar_exponent()), x.faint());
    } else {
        const strip_dots w = scaled(x.s.of(x.own->array[WEIGHT + KEYS]), taken<T>(-kShareExponent));
        const strip_dots term = positive(v.n, quotient(product(w, d), v.z));
        x.s.put(x.own->array[EXPONENTIAL], term);
        leave_total(x, 1, term);
        x.keep_step(1);
    }
    x.step_team();
    send_vectors(x, AFTER_C, 0);
    park_strip<T>(x, h);
    x.place();
    strip_values c;
    score_tokens<T>(c, false, x);
    if (x.side == QUERIES)
        x.keep_step(2);
    else
        visit_sources<T>(x, v, d, c);
    x.step_team(); /* one barrier of both sides: racecheck knows no two that are the same */
    send_vectors(x, AFTER_O, 1);
    if (x.side == QUERIES) {
        visit_sinks<T>(x, v, d, c);
    } else {
        write_values<T>(x, a, p, c);
        x.keep_step(1);
        x.await_queries(); /* da */
    }
    write_output<T>(x, a, p);
}

#endif

/* Machine code for Hopper; other devices never launch it. */
template <typename T>
__global__ void __launch_bounds__(kSidesThreads, 1)
    causal_sides_kernel(const __grid_constant__ sides_gradient a)
{
#if FB_HAVE_WGMMA
    sides_block x = start_block(a);
    double *const carried = a.carried + blockIdx.y * (int64_t)(kDim * kDim);
    side_scalars v = {};
#pragma unroll 1
    for (int64_t segment = a.segments - 1; segment >= 0; segment--) {
        const bool last = segment + 1 == a.segments;
        x.place();
        const chunk_place p = chunk_of(a, x, segment * x.ranks + x.rank);
        x.chunk = (int)p.chunk;
        x.step_team();
        fetch_chunk(x, a, p, true);
        const before_chunk before(a, x, p);
        v.n = numbers_of(p, x.s);
        take_chunk<T>(x, p);
        use_vectors<T>(x, before.entry);
        if (last) /* every block's barriers stand before anything is sent */
            await_cluster();
        x.step_team();
        visit_chunk<T>(x, a.round.s.clamp, before.exponentials, v);
        take_values(x);
        const outside_chunk outside = read_outside(x, a.saved, carried, segment, last);
        if (segment > 0) {
            announce_chunk(x, a, chunk_of(a, x, p.chunk - x.ranks));
            announce_before(x, a, p.chunk - x.ranks);
        }
        visit_backward<T>(x, a, p, v, carried, outside);
    }
#else
    (void)a;
#endif
}

cluster_launch launch_of(const fb_flow_cuda_plan &plan, void *stream)
{
    return sides_launch_of("causal flow's gradient", plan, stream);
}

auto kernel_of(const fb_problem &p)
{
    return p.dtype == FB_F16 ? causal_sides_kernel<__half> : causal_sides_kernel<__nv_bfloat16>;
}

} // namespace

extern "C" bool fb_flow_cuda_causal_sides_fit(const struct fb_problem *p,
                                              const struct fb_flow_cuda_plan *plan)
{
    return fb_cuda_at_once(launch_of(*plan, nullptr), (const void *)kernel_of(*p)) > 0;
}

extern "C" enum fb_status fb_flow_cuda_causal_sides(const struct fb_problem *p,
                                                    const struct fb_call *call,
                                                    const struct fb_flow_cuda_plan *plan,
                                                    bool whole, struct fb_error *error)
{
    sides_gradient a = sides_gradient_of(*p, *call, *plan, whole);
    a.round.dout = view_of(call->dout);
    a.round.dq = view_of(call->dq);
    a.round.dk = view_of(call->dk);
    a.round.dv = view_of(call->dv);
    return fb_cuda_launch_clusters(launch_of(*plan, call->stream), kernel_of(*p), a, error);
}
