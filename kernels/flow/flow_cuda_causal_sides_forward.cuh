/* What causal Flow-Attention's gradient in clusters needs of the forward pass, and the records that
 * it keeps of a chunk. */
#ifndef FB_FLOW_CUDA_CAUSAL_SIDES_FORWARD_CUH
#define FB_FLOW_CUDA_CAUSAL_SIDES_FORWARD_CUH

#include "flow_cuda_causal_sides_faint.cuh"

namespace
{

#if FB_HAVE_WGMMA

/* The lane's rows: n, a or b, c / n or E (negative where the clamp acts), and of keys Z. */
struct side_scalars {
    strip_dots n, flow, x, z;
};

__device__ inline chunk_place chunk_of(const sides_gradient &a, const sides_block &x, int64_t chunk)
{
    chunk_place place = {};
    place.head.b = x.b;
    place.head.h = place.head.kv_h = x.h;
    place.chunk = chunk;
    place.at = chunk * kChunk;
    place.rows = (int)max((int64_t)0, min((int64_t)kChunk, a.round.s.q_len - place.at));
    return place;
}

/* ---- loading --------------------------------------------------------------------------------- */

__device__ inline const tensor_view &own_view(const sides_gradient &a, int side)
{
    return side == QUERIES ? a.round.s.q : a.round.s.k;
}

__device__ inline const tensor_view &value_view(const sides_gradient &a, int side)
{
    return side == QUERIES ? a.round.dout : a.round.s.v;
}

/* The strip's rows of the chunk on their way into a tile, zero beyond the valid ones. Bits are
 * moved: bf16 stands for f16, too. */
__device__ inline void fetch_strip(const sides_block &x, char *tile, const tensor_view &view,
                                   const chunk_place &p, bool whole)
{
    const int row = x.s.row + x.s.lane / 8, chunk = x.s.lane % 8;
    const head_rows<__nv_bfloat16> rows = rows_of<__nv_bfloat16>(view, x.b, x.h, p.at + row);
    const __nv_bfloat16 *from = rows.data + 8 * chunk;
    const uint32_t even = shared_address(tile) + chunk_offset(row, chunk),
                   odd = shared_address(tile) + chunk_offset(row + 4, chunk);
    if (!whole) {
#pragma unroll 1
        for (int i = 0; i < 4; i++, from += 4 * rows.stride)
            *reinterpret_cast<uint4 *>(tile + chunk_offset(row + 4 * i, chunk)) =
                row + 4 * i < p.rows ? read_entries(from) : make_uint4(0, 0, 0, 0);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++, from += 4 * rows.stride) {
        const bool valid = row + 4 * i < p.rows;
        copy_chunk_async((i % 2 == 0 ? even : odd) + (uint32_t)(i / 2 * 8 * kRowBytes),
                         valid ? from : static_cast<__nv_bfloat16 *>(view.data), valid);
    }
}

__device__ inline void fetch_chunk(const sides_block &x, const sides_gradient &a,
                                   const chunk_place &p, bool values)
{
    fetch_strip(x, x.tile(OWN_TILE, x.side), own_view(a, x.side), p, a.whole);
    commit_copies();
    if (values)
        fetch_strip(x, x.tile(VALUE_TILE, x.side), value_view(a, x.side), p, a.whole);
    commit_copies();
}

/* The rows of the next chunk on their way into the L2 cache, one a thread. */
__device__ inline void announce_chunk(const sides_block &x, const sides_gradient &a,
                                      const chunk_place &p)
{
    const int row = x.thread % kChunk;
    const tensor_view &view = x.thread < kChunk ? own_view(a, x.side) : value_view(a, x.side);
    if (row < p.rows)
        asm volatile(
            "prefetch.global.L2 [%0];" ::"l"(rows_of<uint16_t>(view, x.b, x.h, p.at + row).data));
}

/* phi of the side's strips, and their halves in its tiles, published; zero where no token is. */
template <typename T> __device__ void take_chunk(const sides_block &x, const chunk_place &p)
{
    const strip_place &s = x.s;
    strip_values phi;
    uint32_t raw[4][4];
    wait_copies<1>();
    __syncwarp();
    load_strip(raw, shared_address(s.own(x.tile(OWN_TILE, x.side))), s.at);
    map_loaded<T>(phi, raw);
    if (p.rows < kChunk) {
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                phi[n][i] = s.row + s.g + i / 2 * 8 < p.rows ? phi[n][i] : 0.0F;
    }
    __syncwarp();
    store_strip<T>(x.tile(OWN_TILE, x.side), phi, s);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            const uint32_t pair = pack_pair<T>(phi[n][i], phi[n][i + 1]);
            phi[n][i] -= low_of<T>(pair);
            phi[n][i + 1] -= high_of<T>(pair);
        }
    store_strip<T>(x.tile(LOW_TILE, x.side), phi, s);
    publish_shared();
}

/* The chunk's values have come. The team is in step after. */
__device__ inline void take_values(const sides_block &x)
{
    wait_copies<0>();
    publish_shared();
    x.step_team();
}

/* ---- forward again --------------------------------------------------------------------------- */

/* x / y; the reciprocal's last bit may be wrong. */
__device__ inline strip_dots quotient(strip_dots x, strip_dots y)
{
    return {x.low * reciprocal(y.low), x.high * reciprocal(y.high)};
}

/* 1 / (1 + exp(-x)) by the form that keeps its digits. */
__device__ inline float share_of(float x)
{
    return reciprocal(1.0F + __expf(-x));
}

__device__ inline strip_dots share_of(strip_dots x)
{
    return {share_of(x.low), share_of(x.high)};
}

__device__ inline strip_dots positive(strip_dots n, strip_dots x)
{
    return {n.low > 0.0F ? x.low : 0.0F, n.high > 0.0F ? x.high : 0.0F};
}

/* The strip's sum of a number per row, as its part of a sum of numbers. */
__device__ inline void leave_total(const sides_block &x, int which, strip_dots numbers)
{
    float sum = numbers.low + numbers.high;
#pragma unroll
    for (int step = 4; step < 32; step *= 2)
        sum += __shfl_xor_sync(0xffffffffU, sum, step);
    if (x.s.lane == 0)
        x.own->part[0][which][x.s.warp] = sum;
}

/* r or p. */
__device__ inline strip_dots weight_of(const sides_block &x, const side_scalars &v)
{
    if (x.side == QUERIES)
        return positive(v.n, quotient(share_of(v.x), v.flow));
    return positive(v.n, product(v.n, quotient({fabsf(v.x.low), fabsf(v.x.high)}, v.z)));
}

template <typename T> __device__ void leave_weight(const sides_block &x, const side_scalars &v)
{
    const int exponent = x.side == QUERIES ? x.state_exponent() : kShareExponent;
    x.s.put(x.own->array[WEIGHT + x.side], scaled(weight_of(x, v), taken<T>(exponent)));
}

/* With what eps adds to a product with the vector. */
__device__ inline strip_dots lifted(strip_dots x, const float *vector)
{
    const float lift = eps_term(vector);
    return {x.low + lift, x.high + lift};
}

/* n / a or n / b as weights of sums: in f16 up to a million, which is far from any flow. */
template <typename T> __device__ strip_dots bounded_weights(strip_dots inverse)
{
    const strip_dots w = scaled(inverse, taken<T>(kInverseExponent));
    return {bounded<T>(w.low), bounded<T>(w.high)};
}

/* The lane's part of phi's rows times a vector of before the chunk. */
template <typename T> __device__ strip_dots dot_before(const sides_block &x)
{
    return scaled(dot_packed<T>(x), taken<T>(-x.before_exponent()));
}

/* a and b; leaves the parts of W and U. */
template <typename T>
__device__ void flow_strip(const sides_block &x, const strip_values &c, side_scalars &v)
{
    v.flow = sum_weighted(dot_before<T>(x), c, nullptr, x.s);
    v.flow = lifted(v.flow, x.own->vectors[x.side == QUERIES ? CK : CQ]);
    if (mark_faint(x, v.n, v.flow))
        v.flow = plus(v.flow, lift_before<T>(x.tile(OWN_TILE, 1 - x.side), nullptr, x.s));
    const strip_dots inverse = positive(v.n, quotient(v.n, v.flow));
    x.s.put(x.own->array[INVERSE + x.side], inverse);
    put_weights<T>(x, FIRST_WEIGHTS, bounded_weights<T>(inverse));
    sum_columns<T>(x, 1, x.side, FIRST_WEIGHTS, 1, taken<T>(-kInverseExponent), false);
}

/* Sums of a number per token, from the chunk's first to each, or from its last; by one warp. */
template <bool Backwards> __device__ void scan_chunk(const float *from, float *to, int lane)
{
    const int first = Backwards ? kChunk - 1 - 2 * lane : 2 * lane,
              second = first + (Backwards ? -1 : 1);
    const float x = from[first], both = x + from[second];
    float sum = both;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const float before = __shfl_up_sync(0xffffffffU, sum, step);
        sum += lane >= step ? before : 0.0F;
    }
    to[first] = (sum - both) + x;
    to[second] = sum;
}

/* E and, from what other blocks have, Z; by the keys. */
template <typename T> __device__ void weigh_keys(sides_block &x, float clamp, side_scalars &v)
{
    const auto mark = [&](float o, float n, float &e) {
        e = n > 0.0F ? __expf(fminf(fmaxf(o, -clamp), clamp)) : 0.0F;
        return fabsf(o) <= clamp ? e : -e;
    };
    strip_dots e;
    v.x.low = mark(v.x.low, v.n.low, e.low);
    v.x.high = mark(v.x.high, v.n.high, e.high);
    x.s.put(x.own->array[EXPONENTIAL], e);
    leave_total(x, 0, e);
    x.step_side();
    if (x.thread < x.ranks)
        send_four(x, WEIGHTS, 0, 0, x.thread);
    if (x.s.warp == kChunkWarps - 1)
        scan_chunk<false>(x.own->array[EXPONENTIAL], x.own->array[RUNNING], x.s.lane);
    take_vectors<T, false>(x, WEIGHTS, 0, 0, 1, DU);
    const float before = x.own->vectors[DU][0];
    v.z = plus({before, before}, x.s.of(x.own->array[RUNNING]));
}

/* Everything of the forward pass that a chunk's tokens need. The side is in step before. */
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
    flow_strip<T>(x, c, v);
    x.step_team();
    x.note_faint();
    send_vectors(x, FLOWS, 1);
    take_vectors<T, false>(x, FLOWS, 1, other, kDim, queries ? U : W);
    v.x = sum_weighted(dot_before<T>(x), c, x.own->array[INVERSE + 1 - x.side], x.s);
    v.x = lifted(v.x, x.own->vectors[queries ? U : W]);
    if (x.faint())
        v.x = plus(v.x, lift_before<T>(x.tile(OWN_TILE, 1 - x.side),
                                       x.own->array[INVERSE + 1 - x.side], x.s));
    v.x = positive(v.n, quotient(v.x, v.n));
    if (queries)
        x.keep_step(2);
    else
        weigh_keys<T>(x, clamp, v);
    leave_weight<T>(x, v);
}

/* ---- records --------------------------------------------------------------------------------- */

__device__ inline float *record_of(const sides_gradient &a, const sides_block &x,
                                   const chunk_place &p)
{
    return a.records + (blockIdx.y * (a.segments - 1) * x.ranks + p.chunk) * kRecord;
}

__device__ inline void keep_record(const sides_block &x, float *record, const side_scalars &v)
{
    float *own = record + (x.side == QUERIES ? 0 : 2 * kChunk);
    x.s.put(own, v.flow);
    x.s.put(own + kChunk, v.x);
    if (x.side == KEYS)
        x.s.put(own + 2 * kChunk, v.z);
    record[kRecordScalars + x.index] = (&x.own->vectors[0][0])[x.index];
}

/* Its numbers of the lane's rows, and the thread's entry of its vectors. */
__device__ inline float read_record(const sides_block &x, const float *record, side_scalars &v)
{
    const float *own = record + (x.side == QUERIES ? 0 : 2 * kChunk);
    v.flow = x.s.of(own);
    v.x = x.s.of(own + kChunk);
    if (x.side == KEYS)
        v.z = x.s.of(own + 2 * kChunk);
    return record[kRecordScalars + x.index];
}

template <typename T>
__device__ void use_record(const sides_block &x, const side_scalars &v, float entry)
{
    put_term<T>(x, x.index / kDim, x.index % kDim,
                half_pair<T>((entry + kEps) * taken<T>(x.before_exponent())));
    x.s.put(x.own->array[INVERSE + x.side], positive(v.n, quotient(v.n, v.flow)));
    mark_faint(x, v.n, v.flow);
    leave_weight<T>(x, v);
}

#endif

} // namespace

#endif
