/*
 * Gradients of Flow-Attention, causal form, bf16, heads of 64, on Hopper, in one launch: a cluster
 * of blocks takes a head, a block a chunk of 64 tokens at a time, whose q, k, v and dout stand in
 * its shared memory. What comes before and after a chunk the blocks send to one another, as vectors
 * and 64 x 64 states; flow_cuda_causal_gradient.cu tells what the steps compute:
 *
 *   sums      phi; sums of q, of k                                   before the chunk
 *   flows     a, b; sums of alpha q, of beta k                       before
 *   conserve  c, o, E; sum of E                                      before
 *   states    M = sum k^T (p v) before, R = sum q^T (r dout) after
 *   pull      h = M dout, dr, dc; t = R v, dp; sums of dc q', p dp / Z   after
 *   sources   db, do; dv; sums of db k', do k'                       after
 *   sinks     da; sum of da q'                                       after
 *   outputs   dq, dk
 *
 * A head that its cluster holds at once is read once. A longer one is walked over twice, in
 * segments: forwards for the first three steps, of which a record per chunk is kept, and for M;
 * backwards for the rest. M before a segment is what was carried less what the segment adds, in
 * f64: nothing that grows with the length but the records.
 *
 * grid (ranks, units), cluster (ranks), block 256: two blocks per multiprocessor, so that one
 * computes while the other waits. Sums are taken in the order of warps, ranks and segments: same
 * bits every time. What the eps of second factors would add within a chunk is left out: 1e-6 of
 * terms rounded by 4e-3.
 */
#include "flow_cuda_causal_sides_forward.cuh"

#include "flow_cuda.h"

namespace
{

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/* ---- backward -------------------------------------------------------------------------------- */

/* h or t, and its product with phi. */
__device__ inline strip_dots pull_strip(const sides_block &x, strip_values &h)
{
    const bool before = x.side == QUERIES;
    const char *value = x.tile(VALUE_TILE, x.side);
    uint32_t operand[4][4];
    strip_values c;
    clear_strip(c);
    multiply_rows<true>(c, value, x.tile(VALUE_TILE, 1 - x.side), before, false, x.s);
    cut_triangle(c, before, x.s);
    pack_weighted(operand, c, x.own->array[WEIGHT + 1 - x.side], x.s);
    clear_strip(h);
    multiply_rows<true>(h, value, x.tile(STATE_OF, 1 - x.side), before, true, x.s);
    multiply_seen(h, operand, x.tile(OWN_TILE, 1 - x.side), before, x.s);
    strip_dots sum = {};
    each_phi(x, [&](int n, int i, float first, float second) {
        float &to = i == 0 ? sum.low : sum.high;
        to = fmaf(first, h[n][i], fmaf(second, h[n][i + 1], to));
    });
    return over_quad(sum);
}

/* Where r h or p t waits: a tile that nobody needs any more. */
__device__ inline char *parked_tile(const sides_block &x)
{
    return x.side == QUERIES ? x.tile(STATE_OF, KEYS) : x.tile(VALUE_TILE, KEYS);
}

__device__ inline void park_strip(const sides_block &x, strip_values &h)
{
    const strip_dots w = x.s.of(x.own->array[WEIGHT + x.side]);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            h[n][i] *= i < 2 ? w.low : w.high;
    put_strip(x.s.own(parked_tile(x)), h, x.s.at);
}

/* dv = p (k R + (r tril A)^T dout); c: the strip of A^T. */
__device__ inline void write_values(const sides_block &x, const sides_gradient &a,
                                    const chunk_place &p, const strip_values &c)
{
    strip_values y;
    uint32_t operand[4][4];
    pack_weighted(operand, c, x.own->array[WEIGHT + QUERIES], x.s);
    clear_strip(y);
    multiply_seen(y, operand, x.tile(VALUE_TILE, QUERIES), false, x.s);
    multiply_rows<false>(y, x.tile(OWN_TILE, KEYS), x.tile(STATE_OF, QUERIES), false, true, x.s);
    x.step_side(); /* R is spent */
    leave_strip(rows_of<__nv_bfloat16>(a.round.dv, x.b, x.h, p.at), x.tile(STATE_OF, QUERIES), y,
                x.s.of(x.own->array[WEIGHT + KEYS]), x.s, p.rows);
}

/* What a row's gradient is made of: weights of the other side's tokens, X = x y + z of those up to
 * it, x_after y_after + z_after of those from it on, and of vectors. */
struct output_terms {
    strip_dots x, z, x_after;
    const float *y, *y_after, *z_after;               /* of tokens */
    const float *of_x, *of_z, *of_after, *unweighted; /* vectors */
};

/* 16 columns of X as operand a, in halves. */
__device__ inline void mix_block(uint32_t (&a)[4], uint32_t (&a_low)[4], const output_terms &o,
                                 int step, const strip_place &s)
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
        split_pair(a[i], a_low[i], sum[i / 2][i % 2 * 2], sum[i / 2][i % 2 * 2 + 1]);
}

/* Adds what is parked and the weighted vectors, and multiplies by the slope of phi. */
__device__ inline void finish_strip(const sides_block &x, strip_values &y, const char *parked,
                                    const output_terms &o)
{
    const strip_place &s = x.s;
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const char *from = parked + s.row * kRowBytes + (s.at.result ^ (uint32_t)(n << 4));
        const uint32_t low = *reinterpret_cast<const uint32_t *>(from);
        const uint32_t high = *reinterpret_cast<const uint32_t *>(from + 8 * kRowBytes);
        const float waiting[4] = {bf16_low(low), bf16_high(low), bf16_low(high), bf16_high(high)};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int col = 8 * n + 2 * s.t + i % 2;
            float sum = y[n][i] + waiting[i] + o.unweighted[col];
            sum = fmaf(i < 2 ? o.x.low : o.x.high, o.of_x[col] + kEps, sum);
            sum = fmaf(i < 2 ? o.z.low : o.z.high, o.of_z[col] + kEps, sum);
            sum = fmaf(i < 2 ? o.x_after.low : o.x_after.high, o.of_after[col], sum);
            y[n][i] = sum;
        }
    }
    each_phi(x, [&](int n, int i, float first, float second) {
        y[n][i] *= slope_from(first);
        y[n][i + 1] *= slope_from(second);
    });
}

__device__ inline output_terms terms_of(const sides_block &x)
{
    const sides_shared &own = *x.own;
    const strip_dots inverse = x.s.of(own.array[INVERSE + x.side]);
    if (x.side == QUERIES)
        return {x.s.of(own.array[OF_C]),
                x.s.of(own.array[OF_A]),
                inverse,
                own.array[INVERSE + KEYS],
                own.array[OF_O],
                own.array[OF_B],
                own.vectors[U],
                own.vectors[CK],
                own.vectors[DW],
                own.vectors[BS]};
    return {x.s.of(own.array[OF_O]),
            x.s.of(own.array[OF_B]),
            inverse,
            own.array[INVERSE + QUERIES],
            own.array[OF_C],
            own.array[OF_A],
            own.vectors[W],
            own.vectors[CQ],
            own.vectors[DU],
            own.vectors[AS]};
}

/* dq or dk. */
__device__ inline void write_output(const sides_block &x, const sides_gradient &a,
                                    const chunk_place &p)
{
    const output_terms o = terms_of(x);
    const uint32_t other = shared_address(x.tile(OWN_TILE, 1 - x.side)),
                   other_low = shared_address(x.tile(LOW_TILE, 1 - x.side));
    strip_values y;
    clear_strip(y);
#pragma unroll 1
    for (int step = 0; step < 4; step++) {
        uint32_t w[4], w_low[4];
        mix_block(w, w_low, o, step, x.s);
#pragma unroll
        for (int first = 0; first < 4; first += 2) {
            split_block b[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                load_b(b[i].high, other + step * 16 * kRowBytes, x.s.at, first + i);
                load_b(b[i].low, other_low + step * 16 * kRowBytes, x.s.at, first + i);
            }
            multiply_split<2>(y, w, w_low, b, first);
        }
    }
    char *parked = parked_tile(x);
    finish_strip(x, y, parked, o);
    const tensor_view &view = x.side == QUERIES ? a.round.dq : a.round.dk;
    leave_strip(rows_of<__nv_bfloat16>(view, x.b, x.h, p.at), parked, y, {1.0F, 1.0F}, x.s, p.rows);
}

/* dc's part of the vectors, dq. */
__device__ inline void visit_sinks(sides_block &x, const sides_gradient &a, const chunk_place &p,
                                   const side_scalars &v, strip_dots dr)
{
    strip_values c;
    score_tokens(c, false, x);
    x.keep_step(2);
    x.step_team(); /* do, db */
    send_vectors(x, AFTER_O, 1);
    take_vectors<true>(x, AFTER_O, 1, 0, 2 * kDim, x.own->vectors[BS]);
    const strip_dots flow = sum_weighted(dot_packed(x), c, x.own->array[OF_O], x.s);
    const strip_dots sum = plus(product(share_of(v.x), dr), product(v.n, flow));
    const strip_dots da = positive(v.n, quotient({-sum.low, -sum.high}, product(v.flow, v.flow)));
    x.s.put(x.own->array[OF_A], da);
    sum_rows_of(x, 0, 0, x.own->array[OF_A]);
    x.step_team(); /* for the keys */
    send_vectors(x, AFTER_A, 0);
    x.keep_step(2);
    write_output(x, a, p);
}

/* db, do, dv, dk. */
__device__ inline void visit_sources(sides_block &x, const sides_gradient &a, const chunk_place &p,
                                     const side_scalars &v, strip_dots dp)
{
    sides_shared &own = *x.own;
    strip_values c;
    take_vectors<true>(x, AFTER_C, 0, 0, kDim + 1, own.vectors[DU]);
    if (x.s.warp == 0)
        scan_tokens<true>(own.array[EXPONENTIAL], (double)own.vectors[BS][0], own.array[RUNNING],
                          x.s.lane);
    score_tokens(c, false, x);
    const strip_dots flow = sum_weighted(dot_packed(x), c, own.array[OF_C], x.s);
    const strip_dots sum = product(v.n, flow);
    const strip_dots db = positive(v.n, quotient({-sum.low, -sum.high}, product(v.flow, v.flow)));
    x.s.put(own.array[OF_B], db);
    sum_rows_of(x, 1, 0, own.array[OF_B]);
    x.step_side();
    const strip_dots after = x.s.of(own.array[RUNNING]);
    const auto of = [](float e, float z, float dp, float after, float n) {
        return e > 0.0F ? e * (reciprocal(z) * dp - reciprocal(n) * after) : 0.0F;
    };
    const strip_dots dflow = positive(v.n, {of(v.x.low, v.z.low, dp.low, after.low, v.n.low),
                                            of(v.x.high, v.z.high, dp.high, after.high, v.n.high)});
    x.s.put(own.array[OF_O], dflow);
    sum_rows_of(x, 1, 1, own.array[OF_O]);
    x.step_team(); /* for the queries */
    send_vectors(x, AFTER_O, 1);
    x.keep_step(1);
    x.step_team(); /* da */
    send_vectors(x, AFTER_A, 0);
    write_values(x, a, p, c);
    take_vectors<true>(x, AFTER_A, 0, 0, kDim, own.vectors[AS]);
    write_output(x, a, p);
}

/* The block is in step before. */
__device__ inline void visit_backward(sides_block &x, const sides_gradient &a, const chunk_place &p,
                                      bool last, const side_scalars &v, double *states,
                                      double (&carried)[8])
{
    strip_values h;
    send_parts(x, PARTS);
    join_states(x, states, carried, last);
    const strip_dots d = pull_strip(x, h);
    if (x.side == QUERIES) {
        const strip_dots slope = product(share_of(v.x), share_of(strip_dots{-v.x.low, -v.x.high}));
        const strip_dots dc = positive(v.n, quotient(product(slope, d), product(v.n, v.flow)));
        x.s.put(x.own->array[OF_C], dc);
        sum_rows_of(x, 0, 0, x.own->array[OF_C]);
    } else {
        const strip_dots w = x.s.of(x.own->array[WEIGHT + KEYS]);
        const strip_dots term = positive(v.n, quotient(product(w, d), v.z));
        x.s.put(x.own->array[EXPONENTIAL], term);
        leave_total(part_of(x, 0, 1), term, x.s);
    }
    x.step_team();
    send_vectors(x, AFTER_C, 0);
    park_strip(x, h);
    x.place();
    if (x.side == QUERIES)
        visit_sinks(x, a, p, v, d);
    else
        visit_sources(x, a, p, v, d);
}

#endif

/* Machine code for Hopper; other devices never launch it. */
__global__ void __launch_bounds__(kSidesThreads, 1)
    causal_sides_kernel(const __grid_constant__ sides_gradient a)
{
#if __CUDA_ARCH__ >= 900
    sides_block x;
    x.place();
    x.rank = (int)blockIdx.x * kTeams + x.team;
    x.ranks = (int)gridDim.x * kTeams;
    x.share_bits = __ffs(kDim / x.ranks) - 1;
    x.b = (int)(blockIdx.y / (unsigned)a.round.s.heads);
    x.h = (int)(blockIdx.y % (unsigned)a.round.s.heads);
    x.alone = a.segments == 1;
    x.rounds = 0;
    for (int i = x.index; i < kCarried; i += kTeamThreads)
        x.own->carried[i] = {0.0F, 0.0F};
    if (x.index == 0) {
#pragma unroll 1
        for (int name = 0; name < kExchanges; name++)
            expect(&x.own->barriers[name], exchange_bytes(name, x.ranks));
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    side_scalars v = {};
    double *const states = a.carried + blockIdx.y * (int64_t)(2 * kDim * kDim);
    double carried[8];
#pragma unroll 1
    for (int64_t segment = 0; segment < a.segments; segment++) {
        const bool last = segment + 1 == a.segments;
        x.place();
        const chunk_place p = chunk_of(a, x, segment * x.ranks + x.rank);
        x.step_team();
        fetch_chunk(x, a, p, last || x.side == KEYS);
        if (!last)
            announce_chunk(x, a, chunk_of(a, x, p.chunk + x.ranks));
        v.n = numbers_of(p, x.s);
        take_chunk(x, p);
        if (segment == 0) /* every block's barriers stand before anything is sent */
            asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
        visit_forward(x, a.round.s.clamp, v);
        wait_copies<0>();
        x.step_team();
        if (last)
            break;
        keep_record(x, record_of(a, x, p), v);
        read_carried(x, states, carried, segment > 0, false);
        if (x.side == KEYS)
            send_parts(x, PRODUCT);
        join_product(x, states, carried);
    }
#pragma unroll 1
    for (int64_t segment = a.segments - 1; segment >= 0; segment--) {
        const bool last = segment + 1 == a.segments;
        x.place();
        const chunk_place p = chunk_of(a, x, segment * x.ranks + x.rank);
        if (!last) {
            x.step_team();
            fetch_chunk(x, a, p, true);
            v.n = numbers_of(p, x.s);
            take_record(x, record_of(a, x, p), v);
            take_chunk(x, p);
            wait_copies<0>();
            x.step_team();
        }
        read_carried(x, states, carried, !x.alone, !last);
        if (segment > 0)
            announce_chunk(x, a, chunk_of(a, x, p.chunk - x.ranks));
        visit_backward(x, a, p, last, v, states, carried);
    }
#else
    (void)a;
#endif
}

} // namespace

extern "C" enum fb_status fb_flow_cuda_causal_sides(const struct fb_problem *p,
                                                    const struct fb_call *call,
                                                    const struct fb_flow_cuda_plan *plan,
                                                    struct fb_error *error)
{
    sides_gradient a = {};
    a.round.s = flow_cuda_shape_of(p, call, *plan);
    a.round.dout = view_of(call->dout);
    a.round.dq = view_of(call->dq);
    a.round.dk = view_of(call->dk);
    a.round.dv = view_of(call->dv);
    a.round.kv_heads = (int)p->kv_heads;
    a.segments = plan->sides_segments;
    a.carried = (double *)call->scratch;
    a.records = (float *)(a.carried + plan->heads * 2 * kDim * kDim);
    const cluster_launch launch = {
        .name = "causal flow's gradient",
        .blocks = plan->sides_ranks / kTeams,
        .threads = kSidesThreads,
        .heads = plan->heads,
        .shared_bytes = kSidesBytes,
        .most_shared = false,
        .stream = call->stream,
    };
    return fb_cuda_launch_clusters(launch, causal_sides_kernel, a, error);
}
