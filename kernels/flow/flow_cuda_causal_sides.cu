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
 * grid (blocks, units), cluster (blocks), block 512: two teams, each with a chunk, so that one
 * computes while the other waits. Sums are taken in the order of warps, ranks and segments: same
 * bits every time. What the eps of second factors would add within a chunk is left out: 1e-6 of
 * terms rounded by 4e-3.
 */
#include "flow_cuda_causal_sides_forward.cuh"

#include "flow_cuda.h"

namespace
{

#if FB_HAVE_WGMMA

/* ---- backward -------------------------------------------------------------------------------- */

/* dout v^T of the tokens before (v dout^T of those after), weighted: what h (t) needs of the chunk
 * itself. */
__device__ inline void weigh_values(const sides_block &x, uint32_t (&operand)[4][4])
{
    strip_values c;
    clear_strip(c);
    begin_products(c);
    add_turned(c, x.tile(VALUE_TILE, x.side), x.tile(VALUE_TILE, 1 - x.side));
    end_products(c);
    cut_triangle(c, x.side == QUERIES, x.s);
    pack_weighted(operand, c, x.own->array[WEIGHT + 1 - x.side], x.s);
}

/* h or t, and its product with phi. */
__device__ inline strip_dots pull_strip(const sides_block &x, const uint32_t (&operand)[4][4],
                                        strip_values &h)
{
    clear_strip(h);
    begin_products(h);
    add_product(h, operand, x.tile(OWN_TILE, 1 - x.side));
    add_turned(h, x.tile(VALUE_TILE, x.side), x.tile(STATE_OF, 1 - x.side));
    end_products(h);
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
    store_strip(parked_tile(x), h, x.s);
}

/* The strip's rows through the strip's rows of a tile. */
__device__ inline void write_rows(const tensor_view &to, const sides_block &x, const chunk_place &p,
                                  char *tile, const strip_values &y, bool whole)
{
    __syncwarp();
    store_strip(tile, y, x.s);
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
__device__ inline void write_values(const sides_block &x, const sides_gradient &a,
                                    const chunk_place &p, const strip_values &c)
{
    strip_values y;
    uint32_t operand[4][4], keys[4][4];
    pack_weighted(operand, c, x.own->array[WEIGHT + QUERIES], x.s);
    load_strip(keys, shared_address(x.s.own(x.tile(OWN_TILE, KEYS))), x.s.at);
    clear_strip(y);
    begin_products(y);
    add_product(y, operand, x.tile(VALUE_TILE, QUERIES));
    add_product(y, keys, x.tile(STATE_OF, QUERIES));
    end_products(y);
    x.step_side(); /* R is spent */
    const strip_dots w = x.s.of(x.own->array[WEIGHT + KEYS]);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            y[n][i] *= i < 2 ? w.low : w.high;
    write_rows(a.round.dv, x, p, x.tile(STATE_OF, QUERIES), y, a.whole);
}

/* What a row's gradient is made of: weights of the other side's tokens, X = x y + z of those up to
 * it, x_after y_after + z_after of those from it on, and of vectors. */
struct output_terms {
    strip_dots x, z, x_after;
    const float *y, *y_after, *z_after; /* of tokens */
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

/* The rows' weights of the side's vectors as operand a, the vectors being rows of its terms: the
 * lane with t = 0, 1 and 2 has x, z and x_after, the last has 1; halves twice, each for both halves
 * of the vector. */
__device__ inline void weigh_terms(uint32_t (&a)[4], const output_terms &o, const strip_place &s)
{
    const auto one_of = [&](float x, float z, float x_after) {
        return s.t == 0 ? x : s.t == 1 ? z : s.t == 2 ? x_after : 1.0F;
    };
    const float low = one_of(o.x.low, o.z.low, o.x_after.low),
                high = one_of(o.x.high, o.z.high, o.x_after.high);
    a[0] = pack_bf16(low, low);
    a[1] = pack_bf16(high, high);
    const float rest = low - bf16_low(a[0]), rest_high = high - bf16_low(a[1]);
    a[2] = pack_bf16(rest, rest);
    a[3] = pack_bf16(rest_high, rest_high);
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
__device__ inline void write_output(sides_block &x, const sides_gradient &a, const chunk_place &p)
{
    const output_terms o = terms_of(x);
    const char *other = x.tile(OWN_TILE, 1 - x.side);
    char *parked = parked_tile(x);
    strip_values y;
    uint32_t w[4][4], w_low[4][4];
#pragma unroll
    for (int step = 0; step < 4; step++)
        mix_block(w[step], w_low[step], o, step, x.s);
    {
        uint32_t waiting[4][4];
        load_strip(waiting, shared_address(x.s.own(parked)), x.s.at);
        unpack_strip(y, waiting);
    }
    begin_products(y);
    add_product(y, w_low, other);
    add_product(y, w, x.tile(LOW_TILE, 1 - x.side));
    add_product(y, w, other);
    end_products(y);
    if (x.side == KEYS)
        take_vectors<true>(x, AFTER_A, 0, 0, kDim, AS);
    uint32_t of_terms[4];
    weigh_terms(of_terms, o, x.s);
    begin_products(y);
    wgmma_add<__nv_bfloat16>(y, of_terms, described(x.own->terms[x.side]));
    end_products(y);
    each_phi(x, [&](int n, int i, float first, float second) {
        y[n][i] *= fmaf(-first, first, first);
        y[n][i + 1] *= fmaf(-second, second, second);
    });
    write_rows(x.side == QUERIES ? a.round.dq : a.round.dk, x, p, parked, y, a.whole);
}

/* dc's part of the vectors; da. */
__device__ inline void visit_sinks(sides_block &x, const side_scalars &v, strip_dots dr,
                                   const strip_values &c)
{
    x.keep_step(2);
    x.step_team(); /* do, db */
    send_vectors(x, AFTER_O, 1);
    take_vectors<true>(x, AFTER_O, 1, 0, 2 * kDim, BS);
    const strip_dots flow = sum_weighted(dot_packed(x), c, x.own->array[OF_O], x.s);
    const strip_dots sum = plus(product(share_of(v.x), dr), product(v.n, flow));
    const strip_dots da = positive(v.n, quotient({-sum.low, -sum.high}, product(v.flow, v.flow)));
    x.s.put(x.own->array[OF_A], da);
    put_weights(x, FIRST_WEIGHTS, da);
    sum_columns(x, 0, 0, FIRST_WEIGHTS, 1);
    x.step_side();
    x.tell_keys();
    send_vectors(x, AFTER_A, 0, false);
}

/* db, do, dv. */
__device__ inline void visit_sources(sides_block &x, const sides_gradient &a, const chunk_place &p,
                                     const side_scalars &v, strip_dots dp, const strip_values &c)
{
    sides_shared &own = *x.own;
    if (x.s.warp == kChunkWarps - 1)
        scan_chunk<true>(own.array[EXPONENTIAL], own.array[RUNNING], x.s.lane);
    take_vectors<true>(x, AFTER_C, 0, 0, kDim + 1, DU);
    const strip_dots flow = sum_weighted(dot_packed(x), c, own.array[OF_C], x.s);
    const strip_dots sum = product(v.n, flow);
    const strip_dots db = positive(v.n, quotient({-sum.low, -sum.high}, product(v.flow, v.flow)));
    x.s.put(own.array[OF_B], db);
    put_weights(x, FIRST_WEIGHTS, db);
    const float beyond = own.vectors[BS][0]; /* p dp / Z of the chunks after */
    const strip_dots after = plus({beyond, beyond}, x.s.of(own.array[RUNNING]));
    const auto of = [](float e, float z, float dp, float after, float n) {
        return e > 0.0F ? e * (reciprocal(z) * dp - reciprocal(n) * after) : 0.0F;
    };
    const strip_dots dflow = positive(v.n, {of(v.x.low, v.z.low, dp.low, after.low, v.n.low),
                                            of(v.x.high, v.z.high, dp.high, after.high, v.n.high)});
    x.s.put(own.array[OF_O], dflow);
    put_weights(x, SECOND_WEIGHTS, dflow);
    sum_columns(x, 1, 0, FIRST_WEIGHTS, 2);
    x.step_team(); /* for the queries */
    send_vectors(x, AFTER_O, 1);
    write_values(x, a, p, c);
    x.keep_step(1);
    x.await_queries(); /* da */
}

/* The team is in step before. */
__device__ inline void visit_backward(sides_block &x, const sides_gradient &a, const chunk_place &p,
                                      bool last, const side_scalars &v, double *states,
                                      double (&carried)[8])
{
    strip_values h;
    uint32_t operand[4][4];
    send_parts(x, PARTS);
    weigh_values(x, operand);
    join_states(x, states, carried, last);
    const strip_dots d = pull_strip(x, operand, h);
    if (x.side == QUERIES) {
        const strip_dots slope = product(share_of(v.x), share_of(strip_dots{-v.x.low, -v.x.high}));
        const strip_dots dc = positive(v.n, quotient(product(slope, d), product(v.n, v.flow)));
        x.s.put(x.own->array[OF_C], dc);
        put_weights(x, FIRST_WEIGHTS, dc);
        sum_columns(x, 0, 0, FIRST_WEIGHTS, 1);
    } else {
        const strip_dots w = x.s.of(x.own->array[WEIGHT + KEYS]);
        const strip_dots term = positive(v.n, quotient(product(w, d), v.z));
        x.s.put(x.own->array[EXPONENTIAL], term);
        leave_total(x, 1, term);
        x.keep_step(1);
    }
    x.step_team();
    send_vectors(x, AFTER_C, 0);
    park_strip(x, h);
    x.place();
    strip_values c;
    score_tokens(c, false, x);
    if (x.side == QUERIES)
        visit_sinks(x, v, d, c);
    else
        visit_sources(x, a, p, v, d, c);
    write_output(x, a, p);
}

#endif

/* Machine code for Hopper; other devices never launch it. */
__global__ void __launch_bounds__(kSidesThreads, 1)
    causal_sides_kernel(const __grid_constant__ sides_gradient a)
{
#if FB_HAVE_WGMMA
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
    if (x.thread < kChunk)
        put_weight(x, ONES, x.thread, 1.0F);
    if (x.index == 0) {
#pragma unroll 1
        for (int name = 0; name < kExchanges; name++)
            expect(&x.own->barriers[name], exchange_bytes(name, x.ranks));
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory"); /* what the stream did before is done */
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
        if (segment > 0)
            join_product(x, states, segment > 1);
        if (segment == 0) /* every block's barriers stand before anything is sent */
            asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
        visit_forward(x, a.round.s.clamp, v);
        take_values(x);
        if (last)
            break;
        keep_record(x, record_of(a, x, p), v);
        if (x.side == KEYS)
            send_parts(x, PRODUCT);
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
            const float entry = read_record(x, record_of(a, x, p), v);
            take_chunk(x, p);
            use_record(x, v, entry);
            take_values(x);
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
                                                    bool whole, struct fb_error *error)
{
    sides_gradient a = {};
    a.round.s = flow_cuda_shape_of(p, call, *plan);
    a.round.dout = view_of(call->dout);
    a.round.dq = view_of(call->dq);
    a.round.dk = view_of(call->dk);
    a.round.dv = view_of(call->dv);
    a.round.kv_heads = (int)p->kv_heads;
    a.whole = whole;
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
        .early = true,
        .stream = call->stream,
    };
    return fb_cuda_launch_clusters(launch, causal_sides_kernel, a, error);
}
