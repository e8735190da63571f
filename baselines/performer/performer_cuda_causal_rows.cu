/*
 * Performer's results by rows with a mask. A block goes through chunks; every warpgroup has a tile
 * of 64 tokens of the chunk on its own side (queries; dv: keys), whose features are operands in
 * registers, and makes the features of the chunk's 64 tokens of the other side, which it and the
 * warpgroups behind it (dv: before it) need. Barriers of tiles keep them in step no more than that
 * takes. Within a chunk the features' two halves are gone through one after the other, which is
 * what registers and shared memory have room for. See performer_cuda_causal.cuh.
 */
#include "performer_cuda_causal.cuh"

namespace
{

constexpr int kHalves = 2, kHalfPanels = kCausalPanels / kHalves;

/* s, high and low; features of the other side, a half [group][panel], and its values [group]; of
 * the own side the half that waits, likewise; the mark. */
constexpr int kFeaturesAt = 2 * kCausalPanels * kTileBytes;
constexpr int kWaitingAt = kFeaturesAt + kChunkGroups * kHalfPanels * kTileBytes;
constexpr int kValuesAt = kWaitingAt + kChunkGroups * kHalfPanels * kTileBytes;
constexpr int kMarkAt = kValuesAt + kChunkGroups * kTileBytes;
template <typename T> constexpr int kBarriersAt = kMarkAt + kMarkBytes<T>;
template <typename T> constexpr size_t kSharedBytes = kBarriersAt<T> + kBarrierBytes + 1024;

#if FB_HAVE_WGMMA

/* Powers of two to which features of queries may grow, and from which. */
template <typename T> constexpr float kPowersMost = kNarrow<T> ? 10.0F : 32.0F;
template <typename T> constexpr float kOwnBits = kNarrow<T> ? 4.0F : 0.0F;
template <typename T> constexpr float kOwnFactor = kNarrow<T> ? 16.0F : 1.0F;

template <typename T> using block_place = chunk_block<T, kBarriersAt<T>>;

/* The warpgroup's panel of a half, from a place on. */
template <typename T> __device__ char *half_panel(const block_place<T> &place, int at, int panel)
{
    return place.shared + at + (group_of_thread() * kHalfPanels + panel) * kTileBytes;
}

/* What a thread has of its rows g and g + 8: features as a left operand; of queries, relative to
 * two to the `whole`, their sum, and the denominator. */
struct own_rows {
    uint32_t phi[kCausalPanels][4][4];
    float base[2], share[2], top[2], whole[2], sum[2], y[2], z;
};

template <typename T> __device__ uint32_t scale_pair(uint32_t pair, float factor)
{
    return pack_pair<T>(low_of<T>(pair) * factor, high_of<T>(pair) * factor);
}

/* What a query's features of the panels before have given. */
template <typename T, int Panels> __device__ void scale_own(own_rows &o, const float (&factors)[2])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        o.y[half] *= factors[half];
        o.sum[half] *= factors[half];
    }
#pragma unroll
    for (int p = 0; p < Panels; p++)
#pragma unroll
        for (int i = 0; i < 16; i++)
            o.phi[p][i / 4][i % 4] = scale_pair<T>(o.phi[p][i / 4][i % 4], factors[i % 2]);
}

/* Queries: exponents are taken relative to a whole number not far below their maximum, so that
 * features that are rounded already can follow it up where that must be. */
template <typename T, int Panel> __device__ void raise_whole(const float (&u)[8][4], own_rows &o)
{
    float factors[2];
    bool rises = false;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        o.top[half] = fmaxf(o.top[half], largest_of_half(u, half) * kLog2e);
        const bool far = o.top[half] > o.whole[half] + kPowersMost<T>;
        const float now = far ? ceilf(o.top[half]) : o.whole[half];
        rises |= far;
        factors[half] = power_of_two(o.whole[half] - now);
        o.whole[half] = now;
    }
    if constexpr (Panel > 0)
        if (__any_sync(0xffffffffU, rises))
            scale_own<T, Panel>(o, factors);
}

/* An operand by way of shared memory: where nothing else stands between the panels' products,
 * ptxas (13.0) puts the powers off until after the last of them and takes its result for all. */
__device__ inline void pass_through(char *tile, uint32_t (&x)[4][4])
{
    put_strip_of(tile, x);
    __syncwarp();
    load_strip_of(x, tile);
    __syncwarp();
}

template <typename T, bool Back, int Panel>
__device__ void own_panel(const block_place<T> &place, uint32_t (&x)[4][4], const float *z,
                          own_rows &o)
{
    const int t = threadIdx.x % 4;
    float u[8][4];
    project_rows<T>(u, x, place.tile(Panel * kTileBytes));
    if constexpr (!Back)
        raise_whole<T, Panel>(u, o);
#pragma unroll
    for (int n = 0; n < 8; n++) {
        float2 weight = {};
        if constexpr (!Back) {
            weight = *reinterpret_cast<const float2 *>(z + Panel * kPanel + 8 * n + 2 * t);
            o.z += weight.x + weight.y;
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float base = Back ? o.base[half] : o.base[half] + o.whole[half];
            float p = power_of_two(fmaf(u[n][2 * half], kLog2e, -base));
            float q = power_of_two(fmaf(u[n][2 * half + 1], kLog2e, -base));
            if constexpr (Back) {
                p += o.share[half];
                q += o.share[half];
            } else {
                o.sum[half] += p + q;
                o.y[half] = fmaf(p, weight.x, fmaf(q, weight.y, o.y[half]));
            }
            put_operand<T>(o.phi[Panel], n, half, p, q);
        }
    }
    if constexpr (Back)
        pass_through(half_panel(place, kWaitingAt, Panel % kHalfPanels), o.phi[Panel]);
}

/* f16: all features of a query, to which `share` is added, times a power of two that brings their
 * sum to where scores, no less than epsilon of it, have room. */
template <typename T> __device__ void join_share(own_rows &o, float (&into)[2])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        into[half] = range_factors<T, 12>(o.sum[half]).into;
        o.sum[half] *= into[half];
        o.y[half] *= into[half];
        o.base[half] -= (float)((int)(__float_as_uint(into[half]) >> 23) - 127);
    }
#pragma unroll
    for (int p = 0; p < kCausalPanels; p++)
#pragma unroll
        for (int i = 0; i < 16; i++) {
            uint32_t &pair = o.phi[p][i / 4][i % 4];
            pair = pack_pair<T>(into[i % 2] * (low_of<T>(pair) + o.share[i % 2]),
                                into[i % 2] * (high_of<T>(pair) + o.share[i % 2]));
        }
#pragma unroll
    for (int half = 0; half < 2; half++)
        o.share[half] *= into[half];
}

/* Epsilon to every feature of a query. */
template <typename T> __device__ void add_epsilon(own_rows &o)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        o.share[half] = kFeatureEpsilon * kOwnFactor<T> * power_of_two(o.top[half] - o.whole[half]);
        o.sum[half] = fmaf(kFusedFeaturesMost, o.share[half], sum_of_four(o.sum[half]));
        o.y[half] = fmaf(o.share[half], o.z, o.y[half]);
    }
    if constexpr (kNarrow<T>) {
        float into[2];
        join_share<T>(o, into);
    } else {
#pragma unroll
        for (int p = 0; p < kCausalPanels; p++)
#pragma unroll
            for (int i = 0; i < 16; i++) {
                uint32_t &pair = o.phi[p][i / 4][i % 4];
                pair = pack_bf16(bf16_low(pair) + o.share[i % 2], bf16_high(pair) + o.share[i % 2]);
            }
    }
}

template <typename T, bool Back>
__device__ void own_features(const fused_arguments &a, const chunk_work<T, Back> &work,
                             const block_place<T> &place, uint32_t (&x)[4][4], own_rows &o)
{
    const float *z = reinterpret_cast<const float *>(place.shared + kMarkAt + kMarkStateBytes);
    if constexpr (Back)
        key_numbers<T>(x, a, a.tops[work.key_unit(a)], 0.0F, work.first, work.unit.kv_valid, o.base,
                       o.share);
    else
        bases_of_operand<T>(a, x, o.base);
    if constexpr (!Back && kNarrow<T>)
#pragma unroll
        for (int half = 0; half < 2; half++)
            o.base[half] -= kOwnBits<T>;
    own_panel<T, Back, 0>(place, x, z, o);
    own_panel<T, Back, 1>(place, x, z, o);
    own_panel<T, Back, 2>(place, x, z, o);
    own_panel<T, Back, 3>(place, x, z, o);
    if constexpr (!Back)
        add_epsilon<T>(o);
}

/* The values of the warpgroup's tile of the other side, on their way. */
template <typename T, bool Back>
__device__ void start_values(const fused_arguments &a, const chunk_work<T, Back> &work, int member,
                             const block_place<T> &place)
{
    fetch_tile<kPanel, kGroupThreads>(place.shared + kValuesAt + group_of_thread() * kTileBytes,
                                      work.values(a, member), work.first,
                                      (int)threadIdx.x % kGroupThreads, kGroupThreads);
    commit_copies();
}

/* Half of the features of the warpgroup's tile of the other side. */
template <typename T, bool Back>
__device__ void make_tile(const fused_arguments &a, const chunk_work<T, Back> &work, int member,
                          const block_place<T> &place, int part, uint32_t (&x)[4][4])
{
    float base[2], share[2];
    if constexpr (Back)
        query_numbers(a, work.unit.b * a.heads + work.other_head(a, member), work.range(),
                      work.first, work.unit.q_valid, base, share);
    else
        key_numbers<T>(x, a, a.tops[work.key_unit(a)], 0.0F, work.first, work.unit.kv_valid, base,
                       share);
#pragma unroll 1
    for (int panel = 0; panel < kHalfPanels; panel++) {
        float u[8][4];
        uint32_t phi[4][4];
        project_rows<T>(u, x, place.tile((part * kHalfPanels + panel) * kTileBytes));
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                put_operand<T>(
                    phi, n, half,
                    power_of_two(fmaf(u[n][2 * half], kLog2e, -base[half])) + share[half],
                    power_of_two(fmaf(u[n][2 * half + 1], kLog2e, -base[half])) + share[half]);
        put_strip_of(half_panel(place, kFeaturesAt, panel), phi);
    }
    wait_copies<0>();
    publish_shared();
    barrier_arrive(place.barrier(TILE_FULL + group_of_thread()));
}

typedef uint32_t half_operand[kHalfPanels][4][4];

/* The second half of the own features is put aside, and comes back; rows of the warp alone. */
template <typename T> __device__ void put_aside(const block_place<T> &place, const own_rows &o)
{
#pragma unroll
    for (int panel = 0; panel < kHalfPanels; panel++)
        put_strip_of(half_panel(place, kWaitingAt, panel), o.phi[kHalfPanels + panel]);
    __syncwarp();
}

template <typename T> __device__ void swap_aside(const block_place<T> &place, half_operand &phi)
{
#pragma unroll
    for (int panel = 0; panel < kHalfPanels; panel++) {
        char *tile = half_panel(place, kWaitingAt, panel);
        uint32_t x[4][4];
        load_strip_of(x, tile);
        __syncwarp();
        put_strip_of(tile, phi[panel]);
#pragma unroll
        for (int i = 0; i < 16; i++)
            phi[panel][i / 4][i % 4] = x[i / 4][i % 4];
    }
    __syncwarp();
}

/* A result of rows, of a product that adds to it and may be under way. Of queries the denominator,
 * to be summed over four lanes, and what the way back will need. */
struct row_sums {
    float c[8][4], y[2], base[2], share[2];
    uint32_t weights[4][4];
};

/* A tile of the other side, against which the warpgroup's own lies on the diagonal or not. */
template <typename T, bool Back>
__device__ void add_tile(const block_place<T> &place, int group, half_operand &phi, row_sums &r)
{
    const int row = (int)threadIdx.x % kGroupThreads / 32 * 16 + (int)threadIdx.x % 32 / 4,
              t = threadIdx.x % 4;
    const bool diagonal = group == group_of_thread();
    const uint64_t features = place.tile(kFeaturesAt + group * kHalfPanels * kTileBytes);
    float p[8][4];
    wgmma_hold(p);
    wgmma_begin();
#pragma unroll
    for (int panel = 0; panel < kHalfPanels; panel++)
        product_of_rows<T>(p, phi[panel], features + (uint64_t)(panel * kTileUnits), panel == 0);
    finish_product(p);
    finish_sum(r.c, r.weights);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int own = row + 8 * half, other = 8 * n + 2 * t;
            if (diagonal) {
                p[n][2 * half] = (Back ? other >= own : other <= own) ? p[n][2 * half] : 0.0F;
                p[n][2 * half + 1] =
                    (Back ? other + 1 >= own : other + 1 <= own) ? p[n][2 * half + 1] : 0.0F;
            }
            r.y[half] += p[n][2 * half] + p[n][2 * half + 1];
            put_operand<T>(r.weights, n, half, p[n][2 * half], p[n][2 * half + 1]);
        }
    wgmma_hold(r.c);
    hold_operand(r.weights);
    wgmma_begin();
    product_added<T>(r.c, r.weights, place.tile(kValuesAt + group * kTileBytes));
    wgmma_commit();
}

/* The chunk's own tiles; rounds of tiles are counted by those who use barriers. */
template <typename T, bool Back>
__device__ void add_chunk(const block_place<T> &place, int round, half_operand &phi, row_sums &r)
{
    const int own = group_of_thread(), from = Back ? own : 0, to = Back ? kChunkGroups - 1 : own;
    for (int group = from; group <= to; group++) {
        barrier_wait(place.barrier(TILE_FULL + group), (uint32_t)round & 1);
        add_tile<T, Back>(place, group, phi, r);
        if (group > from) /* of which the product is over */
            barrier_arrive(place.barrier(TILE_FREE + group - 1));
    }
    finish_sum(r.c, r.weights);
    barrier_arrive(place.barrier(TILE_FREE + to));
}

/* From the mark: the state's part, which is multiplied by a factor, of queries with epsilon's; so
 * many keys lie before them. */
template <typename T, bool Back>
__device__ void add_mark(const block_place<T> &place, int before, float factor, const own_rows &o,
                         row_sums &r)
{
    wgmma_hold(r.c);
    wgmma_begin();
#pragma unroll
    for (int panel = 0; panel < kCausalPanels; panel++)
        product_added<T>(r.c, o.phi[panel], place.tile(kMarkAt + panel * kTileBytes));
    finish_product(r.c);
    if constexpr (kNarrow<T>)
#pragma unroll
        for (int i = 0; i < 32; i++)
            r.c[i / 4][i % 4] *= factor;
    if constexpr (!Back) {
        const float *values =
            reinterpret_cast<const float *>(place.shared + kMarkAt + kMarkStateBytes) +
            kFusedFeaturesMost;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float2 v =
                *reinterpret_cast<const float2 *>(values + 8 * n + 2 * (threadIdx.x % 4));
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float share = kFeatureEpsilon * o.sum[half];
                r.c[n][2 * half] = fmaf(share, v.x, r.c[n][2 * half]);
                r.c[n][2 * half + 1] = fmaf(share, v.y, r.c[n][2 * half + 1]);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float share = threadIdx.x % 4 == 0 ? kFeatureEpsilon * (float)before : 0.0F;
            r.y[half] = fmaf(share, o.sum[half], o.y[half]);
            r.base[half] = o.base[half] + o.whole[half];
            r.share[half] = o.share[half];
        }
    }
    barrier_arrive(place.barrier(MARK_FREE));
}

/* The own tile's features, of which the first half stays, and the mark's part. */
template <typename T, bool Back>
__device__ void begin_rows(const fused_arguments &a, const chunk_work<T, Back> &work,
                           const block_place<T> &place, half_operand &phi, row_sums &r)
{
    own_rows o = {};
    uint32_t x[4][4];
    o.top[0] = o.top[1] = o.whole[0] = o.whole[1] = -INFINITY;
    load_operand(x, work.own(a), work.first);
    own_features<T, Back>(a, work, place, x, o);
    add_mark<T, Back>(place, min(work.chunk * kChunk, work.unit.kv_valid),
                      Back ? place.mark_back() * work.range().into : place.mark_back(), o, r);
    put_aside(place, o);
#pragma unroll
    for (int i = 0; i < kHalfPanels * 16; i++)
        phi[i / 16][i / 4 % 4][i % 4] = o.phi[i / 16][i / 4 % 4][i % 4];
}

/* out, and what the way back will need of queries. */
template <typename T>
__device__ void write_queries(const fused_arguments &a, const chunk_work<T, false> &work,
                              const row_sums &r)
{
    const int64_t head = work.unit.b * a.heads + work.unit.h;
    float factors[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = work.first + strip_of_thread() + (int)threadIdx.x % 32 / 4 + 8 * half;
        const float y = sum_of_four(r.y[half]);
        factors[half] = y <= 0.0F ? 0.0F : 1.0F / y;
        if (threadIdx.x % 4 != 0 || row >= work.unit.q_valid || a.query_base == nullptr)
            continue;
        a.query_share[head * a.q_len + row] = r.share[half] * factors[half];
        a.query_base[head * a.q_len + row] = y <= 0.0F ? INFINITY : r.base[half] + log2f(y);
    }
    write_result(panel_rows<T>(a.out, work.unit.b, work.unit.h, a.q_len), work.first, a.q_len,
                 work.unit.q_valid, r.c, factors);
}

template <typename T>
__device__ void write_values(const fused_arguments &a, const chunk_work<T, true> &work,
                             const row_sums &r)
{
    float factors[2] = {1.0F, 1.0F};
    if constexpr (kNarrow<T>)
        factors[0] = factors[1] = work.range().back;
    write_result(panel_rows<T>(a.dv, work.unit.b, work.unit.h, a.kv_len), work.first, a.kv_len,
                 work.unit.kv_valid, r.c, factors);
}

/* Tokens of the chunk itself, of every head that shares the keys; rounds are of tiles made. */
template <typename T, bool Back>
__device__ void add_tokens(const fused_arguments &a, const chunk_work<T, Back> &work,
                           const block_place<T> &place, int &round, half_operand &phi, row_sums &r)
{
    const int members = Back ? a.group : 1;
    for (int i = 0; i < kHalves * members; i++, round++) {
        const int part = i % kHalves, member = i / kHalves;
        uint32_t x[4][4];
        load_operand(x, work.other(a, member), work.first);
        if (round > 0)
            barrier_wait(place.barrier(TILE_FREE + group_of_thread()), (uint32_t)(round - 1) & 1);
        if (part == 0)
            start_values<T, Back>(a, work, member, place);
        make_tile<T, Back>(a, work, member, place, part, x);
        add_chunk<T, Back>(place, round, phi, r);
        if (i + 1 < kHalves * members)
            swap_aside(place, phi);
    }
}

template <typename T, bool Back>
__device__ void go_through_chunks(const fused_arguments &a, const block_place<T> &place,
                                  int64_t count, int chunks)
{
    const bool starts = threadIdx.x == (Back ? kChunkThreads - kGroupThreads : 0);
    int64_t number = blockIdx.x;
    if (starts)
        start_mark<T, Back>(a, place, number, chunks);
    __syncwarp();
    for (int n = 0, round = 0; number < count; n++) {
        const chunk_work<T, Back> work(a, number, chunks);
        const int64_t next = number + gridDim.x;
        if (next < count)
            prefetch_chunk<T, Back, false>(a, next, chunks);
        row_sums r = {};
        half_operand phi;
        barrier_wait(place.barrier(MARK_FULL), (uint32_t)n & 1);
        begin_rows<T, Back>(a, work, place, phi, r);
        add_tokens<T, Back>(a, work, place, round, phi, r);
        if (starts && next < count) {
            barrier_wait(place.barrier(MARK_FREE), (uint32_t)n & 1);
            start_mark<T, Back>(a, place, next, chunks);
        }
        __syncwarp();
        if constexpr (Back)
            write_values(a, work, r);
        else
            write_queries(a, work, r);
        number = next;
    }
}

#endif

/* grid (blocks, at most one to a chunk): reads and writes every row once, and every mark */
template <typename T, bool Back>
__global__ void __launch_bounds__(kChunkThreads, 1)
    chunk_kernel(const __grid_constant__ fused_arguments a, int64_t count, int chunks)
{
#if FB_HAVE_WGMMA
    extern __shared__ char dynamic[];
    const block_place<T> place(dynamic);
    start_barriers<Back>(place);
    load_projection<T>(a, place.shared);
    publish_shared();
    __syncthreads();
    go_through_chunks<T, Back>(a, place, count, chunks);
#endif
}

template <typename T>
enum fb_status launch(const fused_arguments &a, bool back, cudaStream_t stream,
                      struct fb_error *error)
{
    const char *const name = "Performer's chunks";
    return back
               ? launch_chunks<true>(name, chunk_kernel<T, true>, kSharedBytes<T>, a, stream, error)
               : launch_chunks<false>(name, chunk_kernel<T, false>, kSharedBytes<T>, a, stream,
                                      error);
}

} // namespace

enum fb_status causal_cuda_rows(enum fb_dtype dtype, const fused_arguments &a, bool back,
                                cudaStream_t stream, struct fb_error *error)
{
    return dtype == FB_F16 ? launch<__half>(a, back, stream, error)
                           : launch<__nv_bfloat16>(a, back, stream, error);
}
