/* What causal Flow-Attention's gradient in clusters needs of the forward pass, of a chunk, given
 * what comes before it. */
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

__device__ inline void announce_line(const void *from)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
}

/* The rows of the next chunk on their way into the L2 cache, one a thread. */
__device__ inline void announce_chunk(const sides_block &x, const sides_gradient &a,
                                      const chunk_place &p)
{
    const int row = x.thread % kChunk;
    const tensor_view &view = x.thread < kChunk ? own_view(a, x.side) : value_view(a, x.side);
    if (row < p.rows)
        announce_line(rows_of<uint16_t>(view, x.b, x.h, p.at + row).data);
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

/* The lane's part of phi's rows times vectors of before the chunk, as dot_packed has them. */
template <typename T, int Vectors> __device__ strip_dots dot_before(const sides_block &x)
{
    return scaled(dot_packed<T, Vectors>(x), taken<T>(-x.before_exponent()));
}

/* a and b, given the lane's part of what comes before the chunk; leaves n / a and n / b. Marks
 * faint strips. */
template <typename T>
__device__ void take_flow(const sides_block &x, const strip_values &c, strip_dots before,
                          side_scalars &v)
{
    v.flow = sum_weighted(before, c, nullptr, x.s);
    v.flow = lifted(v.flow, x.own->vectors[x.side == QUERIES ? CK : CQ]);
    if (mark_faint(x, v.n, v.flow))
        v.flow = plus(v.flow, lift_before<T>(x.tile(OWN_TILE, 1 - x.side), nullptr, x.s));
    x.s.put(x.own->array[INVERSE + x.side], positive(v.n, quotient(v.n, v.flow)));
}

/* c / n and o / n, likewise. */
template <typename T>
__device__ void conserve_flow(const sides_block &x, const strip_values &c, strip_dots before,
                              side_scalars &v)
{
    const float *inverse = x.own->array[INVERSE + 1 - x.side];
    v.x = sum_weighted(before, c, inverse, x.s);
    v.x = lifted(v.x, x.own->vectors[x.side == QUERIES ? U : W]);
    if (x.faint())
        v.x = plus(v.x, lift_before<T>(x.tile(OWN_TILE, 1 - x.side), inverse, x.s));
    v.x = positive(v.n, quotient(v.x, v.n));
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

/* Sums of an array of the chunk from its first token to each of the lane's. */
__device__ inline strip_dots sum_up_to(const float *array, const strip_place &s)
{
    const float2 two = *reinterpret_cast<const float2 *>(array + 2 * s.lane);
    const float both = two.x + two.y;
    float sum = both;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const float before = __shfl_up_sync(0xffffffffU, sum, step);
        sum += s.lane >= step ? before : 0.0F;
    }
    const float first = (sum - both) + two.x;
    const int lane = (s.row + s.g) / 2;
    const bool odd = s.g % 2 != 0;
    const strip_dots of_first = {__shfl_sync(0xffffffffU, first, lane),
                                 __shfl_sync(0xffffffffU, first, lane + 4)},
                     of_second = {__shfl_sync(0xffffffffU, sum, lane),
                                  __shfl_sync(0xffffffffU, sum, lane + 4)};
    return {odd ? of_second.low : of_first.low, odd ? of_second.high : of_first.high};
}

/* E of the keys, into its array; o gives way to E, negative where the clamp acts. */
__device__ inline strip_dots take_exponentials(const sides_block &x, float clamp, side_scalars &v)
{
    const auto mark = [&](float o, float n, float &e) {
        e = n > 0.0F ? __expf(fminf(fmaxf(o, -clamp), clamp)) : 0.0F;
        return fabsf(o) <= clamp ? e : -e;
    };
    strip_dots e;
    v.x.low = mark(v.x.low, v.n.low, e.low);
    v.x.high = mark(v.x.high, v.n.high, e.high);
    x.s.put(x.own->array[EXPONENTIAL], e);
    return e;
}

/* ---- of a chunk, given what has been saved -----------------------------------------------------
 */

/* What a forward call has saved of the sums before the chunk: the thread's entry of the vectors,
 * and the sum of E. */
struct before_chunk {
    float entry, exponentials;
    __device__ before_chunk(const sides_gradient &a, const sides_block &x, const chunk_place &p)
        : entry(0.0F), exponentials(0.0F)
    {
        if (p.rows > 0) {
            entry = a.saved.vectors(p.chunk)[x.index];
            exponentials = *a.saved.exponentials(p.chunk);
        }
    }
};

/* Likewise what has been saved of the next chunk. */
__device__ inline void announce_before(const sides_block &x, const sides_gradient &a, int64_t chunk)
{
    constexpr int line = 128 / (int)sizeof(float);
    if (x.index < kSavedVectors / line)
        announce_line(a.saved.vectors(chunk) + line * x.index);
}

/* The vectors as they are, as operands, and as terms of the outputs. The team steps before they are
 * read. */
template <typename T> __device__ void use_vectors(const sides_block &x, float entry)
{
    const int vector = x.index / kDim, col = x.index % kDim;
    static_assert(CK == 0 && CQ == 1 && U == 2 && W == 3, "as saved; the queries need CK and U");
    const half_pair<T> halves((entry + kEps) * taken<T>(x.before_exponent()));
    x.own->vectors[vector][col] = entry;
    put_packed<T>(x, vector % 2, vector / 2, col, halves);
    put_term<T>(x, vector, col, halves);
}

/* Everything of the forward pass that a chunk's tokens need. The team is in step before. */
template <typename T>
__device__ void visit_chunk(sides_block &x, float clamp, float exponentials, side_scalars &v)
{
    strip_values c;
    score_tokens<T>(c, true, x);
    const strip_dots dots = dot_before<T, 2>(x);
    take_flow<T>(x, c, x.s.t == 0 ? dots : strip_dots{}, v);
    x.step_team();
    x.note_faint();
    conserve_flow<T>(x, c, x.s.t == 1 ? dots : strip_dots{}, v);
    if (x.side == QUERIES) {
        x.keep_step(1);
    } else {
        take_exponentials(x, clamp, v);
        x.step_side();
        v.z = plus({exponentials, exponentials}, sum_up_to(x.own->array[EXPONENTIAL], x.s));
    }
    leave_weight<T>(x, v);
}

/* ---- kernels -----------------------------------------------------------------------------------
 */

/* A thread of a block that has started: its barriers stand, those of the cluster's others when the
 * cluster's barrier, at which it has arrived, has been waited for. What the stream did before is
 * done. */
__device__ inline sides_block start_block(const sides_gradient &a)
{
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
    }
    announce_barriers();
    asm volatile("griddepcontrol.wait;" ::: "memory");
    return x;
}

#endif

/* Host: what both kernels are told, without gradients. */
inline sides_gradient sides_gradient_of(const struct fb_problem &p, const struct fb_call &call,
                                        const struct fb_flow_cuda_plan &plan, bool whole)
{
    sides_gradient a = {};
    a.round.s = flow_cuda_shape_of(&p, &call, plan);
    a.round.kv_heads = (int)p.kv_heads;
    a.whole = whole;
    a.segments = plan.sides_segments;
    a.saved = causal_saved_of(p, call, plan);
    a.carried = (double *)call.scratch;
    return a;
}

inline cluster_launch sides_launch_of(const char *name, const fb_flow_cuda_plan &plan, void *stream)
{
    return {
        .name = name,
        .blocks = plan.sides_ranks / kTeams,
        .threads = kSidesThreads,
        .heads = plan.heads,
        .shared_bytes = kSidesBytes,
        .most_shared = false,
        .early = true,
        .stream = stream,
    };
}

} // namespace

#endif
