/*
 * Performer's gradients of queries and keys with a mask. A block goes through chunks; every
 * warpgroup has a tile of 64 tokens of the chunk, queries or keys. It makes A for the tiles of the
 * other side that it has to do with, then goes through panels of features, of which it makes those
 * of its 64 tokens of the other side. See performer_cuda_causal.cuh.
 */
#include "performer_cuda_causal.cuh"
#include "performer_cuda_fused_gradient.cuh"

namespace
{

/* s, high and low; of the own side q or k, and dout or v [group]; A [group][of a tile's number,
 * kept tight]; a panel of the other side's features, before that its values [group]; the mark. */
constexpr int kOwnAt = 2 * kCausalPanels * kTileBytes;
constexpr int kOwnValuesAt = kOwnAt + kChunkGroups * kTileBytes;
constexpr int kWeightsAt = kOwnValuesAt + kChunkGroups * kTileBytes;
constexpr int kPairs = kChunkGroups * (kChunkGroups + 1) / 2;
constexpr int kOthersAt = kWeightsAt + kPairs * kTileBytes;
constexpr int kMarkAt = kOthersAt + kChunkGroups * kTileBytes;
template <typename T> constexpr int kBarriersAt = kMarkAt + kMarkBytes<T>;
template <typename T> constexpr size_t kSharedBytes = kBarriersAt<T> + kBarrierBytes + 1024;

#if FB_HAVE_WGMMA

/* Powers of keys as a tile. */
template <typename T> constexpr float kTileBits = kNarrow<T> ? 6.0F : 0.0F;
template <typename T> constexpr float kTileFactor = kNarrow<T> ? 64.0F : 1.0F;

template <typename T> using block_place = chunk_block<T, kBarriersAt<T>>;

/* The tiles of the other side that a warpgroup has to do with. */
template <bool Back> struct tile_range {
    int first, last;
    __device__ tile_range()
        : first(Back ? group_of_thread() : 0), last(Back ? kChunkGroups - 1 : group_of_thread())
    {
    }
};

template <typename T, bool Back>
__device__ char *weights_tile(const block_place<T> &place, int other)
{
    const int own = group_of_thread(), low = Back ? own : other, high = Back ? other : own;
    return place.shared + kWeightsAt + (high * (high + 1) / 2 + low) * kTileBytes;
}

__device__ inline void sync_group()
{
    asm volatile("bar.sync %0, %1;" ::"r"(1 + group_of_thread()), "n"(kGroupThreads) : "memory");
}

/* The warpgroup's own rows, or of the other side's values, on their way. */
template <typename T>
__device__ void start_tile(const block_place<T> &place, int at, const panel_rows<T> &from,
                           int first)
{
    fetch_tile<kPanel, kGroupThreads>(place.shared + at + group_of_thread() * kTileBytes, from,
                                      first, (int)threadIdx.x % kGroupThreads, kGroupThreads);
}

/* The values of the other side's tile, in a panel's place; rounds are of tiles made. */
template <typename T, bool Back>
__device__ void start_values(const fused_arguments &a, const chunk_work<T, Back> &work, int member,
                             const block_place<T> &place, int round)
{
    if (round > 0)
        barrier_wait(place.barrier(TILE_FREE + group_of_thread()), (uint32_t)(round - 1) & 1);
    start_tile(place, kOthersAt, work.values(a, member), work.first);
}

/* Keys: w of a column, a query's. */
template <bool Back>
__device__ float2 column_weights(const fused_arguments &a, int64_t head, int first, int valid)
{
    float2 w = {};
    if (Back && first < valid)
        w.x = a.weights[head * a.q_len + first];
    if (Back && first + 1 < valid)
        w.y = a.weights[head * a.q_len + first + 1];
    return w;
}

/* A of a tile of the other side, whose first token is given, of rows with these w. */
template <typename T, bool Back>
__device__ void make_weights(const fused_arguments &a, const chunk_work<T, Back> &work,
                             int64_t head, const block_place<T> &place, int other,
                             const float (&weights)[2])
{
    const int row = strip_of_thread() + (int)threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const bool diagonal = other == group_of_thread();
    const int first = work.chunk * kChunk + other * kPanel;
    float c[8][4];
    uint32_t x[4][4];
    wgmma_hold(c);
    wgmma_begin();
    product_turned<T>(c, place.tile(kOwnValuesAt + group_of_thread() * kTileBytes),
                      place.tile(kOthersAt + other * kTileBytes), true);
    finish_product(c);
    barrier_arrive(place.barrier(TILE_FREE + other));
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const int col = 8 * n + 2 * t;
        const float2 w = column_weights<Back>(a, head, first + col, work.unit.q_valid);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int own = row + 8 * half;
            float p = c[n][2 * half] - (Back ? w.x : weights[half]);
            float q = c[n][2 * half + 1] - (Back ? w.y : weights[half]);
            if (diagonal) {
                p = (Back ? col >= own : col <= own) ? p : 0.0F;
                q = (Back ? col + 1 >= own : col + 1 <= own) ? q : 0.0F;
            }
            put_operand<T>(x, n, half, p, q);
        }
    }
    put_strip_of(weights_tile<T, Back>(place, other), x);
    __syncwarp();
}

/* A for every tile, the values of the other side, which have been started, being the first tiles
 * made. */
template <typename T, bool Back>
__device__ void make_all_weights(const fused_arguments &a, const chunk_work<T, Back> &work,
                                 int member, const block_place<T> &place, int round,
                                 const float (&weights)[2])
{
    const tile_range<Back> tiles;
    commit_copies();
    wait_copies<0>();
    publish_shared();
    barrier_arrive(place.barrier(TILE_FULL + group_of_thread()));
    for (int other = tiles.first; other <= tiles.last; other++) {
        barrier_wait(place.barrier(TILE_FULL + other), (uint32_t)round & 1);
        make_weights<T, Back>(a, work, work.unit.b * a.heads + work.other_head(a, member), place,
                              other, weights);
    }
}

/* A panel of features of the warpgroup's tile of the other side: without epsilon's part of keys. */
template <typename T, bool Back>
__device__ void make_features(const fused_arguments &a, const chunk_work<T, Back> &work, int member,
                              const block_place<T> &place, int panel)
{
    uint32_t x[4][4], phi[4][4];
    float base[2], share[2], u[8][4];
    load_operand(x, work.other(a, member), work.first);
    if constexpr (Back)
        query_numbers(a, work.unit.b * a.heads + work.other_head(a, member), work.range(),
                      work.first, work.unit.q_valid, base, share);
    else
        key_numbers<T>(x, a, a.tops[work.key_unit(a)], kTileBits<T>, work.first, work.unit.kv_valid,
                       base, share);
    project_rows<T>(u, x, place.tile(panel * kTileBytes));
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float add = Back ? share[half] : 0.0F;
            put_operand<T>(phi, n, half,
                           power_of_two(fmaf(u[n][2 * half], kLog2e, -base[half])) + add,
                           power_of_two(fmaf(u[n][2 * half + 1], kLog2e, -base[half])) + add);
        }
    put_strip_of(place.shared + kOthersAt + group_of_thread() * kTileBytes, phi);
    publish_shared();
    barrier_arrive(place.barrier(TILE_FULL + group_of_thread()));
}

/* e of the own rows for a panel, as a left operand; of queries its sums. */
template <typename T, bool Back>
__device__ void own_powers(const block_place<T> &place, int panel, const float (&base)[2],
                           uint32_t (&e)[4][4], gradient_rows &r)
{
    const uint64_t own = place.tile(kOwnAt + group_of_thread() * kTileBytes),
                   high = place.tile(panel * kTileBytes);
    float u[8][4];
    wgmma_hold(u);
    wgmma_begin();
    product_turned<T>(u, own, high, true);
    product_turned<T>(u, own, high + kCausalPanels * kTileUnits, false);
    finish_product(u);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float p = power_of_two(fmaf(u[n][2 * half], kLog2e, -base[half]));
            const float q = power_of_two(fmaf(u[n][2 * half + 1], kLog2e, -base[half]));
            if constexpr (!Back)
                r.e[half] += p + q;
            put_operand<T>(e, n, half, p, q);
        }
}

/* What a panel's features weigh: the mark's part, once, times a factor, and the chunk's. */
template <typename T, bool Back>
__device__ void find_slopes(const block_place<T> &place, int panel, int round, bool with_mark,
                            float factor, float (&d)[8][4])
{
    const tile_range<Back> tiles;
#pragma unroll
    for (int i = 0; i < 32; i++)
        d[i / 4][i % 4] = 0.0F;
    if (with_mark) {
        wgmma_hold(d);
        wgmma_begin();
        product_turned<T>(d, place.tile(kOwnValuesAt + group_of_thread() * kTileBytes),
                          place.tile(kMarkAt + panel * kTileBytes), true);
        finish_product(d);
        if constexpr (kNarrow<T>)
#pragma unroll
            for (int i = 0; i < 32; i++)
                d[i / 4][i % 4] *= factor;
    }
    for (int other = tiles.first; other <= tiles.last; other++) {
        uint32_t x[4][4];
        load_strip_of(x, weights_tile<T, Back>(place, other));
        barrier_wait(place.barrier(TILE_FULL + other), (uint32_t)round & 1);
        wgmma_hold(d);
        hold_operand(x);
        wgmma_begin();
        product_added<T>(d, x, place.tile(kOthersAt + other * kTileBytes));
        finish_product(d);
        hold_operand(x);
        barrier_arrive(place.barrier(TILE_FREE + other));
    }
}

/* du = e times the slopes, which have a factor; dx += du s, of queries also e s. */
template <typename T, bool Back>
__device__ void add_slopes(const block_place<T> &place, int panel, bool with_mark,
                           const float (&weights)[2], float factor, uint32_t (&e)[4][4],
                           const float (&d)[8][4], gradient_rows &r)
{
    const float *z = reinterpret_cast<const float *>(place.mark() + kMarkStateBytes) +
                     panel * kPanel + 2 * (threadIdx.x % 4);
    const uint64_t s = place.tile(panel * kTileBytes);
    uint32_t du[4][4];
#pragma unroll
    for (int n = 0; n < 8; n++) {
        float2 pair = {};
        if (with_mark)
            pair = *reinterpret_cast<const float2 *>(z + 8 * n);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float weight = Back ? 1.0F : -weights[half];
            const uint32_t powers = e[n / 2][n % 2 * 2 + half];
            const float first = fmaf(weight, pair.x, factor * d[n][2 * half]),
                        second = fmaf(weight, pair.y, factor * d[n][2 * half + 1]);
            const float p = low_of<T>(powers) * first, q = high_of<T>(powers) * second;
            r.along[half] += p + q;
            if constexpr (!Back)
                r.d[half] += first + second;
            put_operand<T>(du, n, half, p, q);
        }
    }
    wgmma_hold(r.c);
    hold_operand(du);
    hold_operand(e);
    if constexpr (!Back)
        wgmma_hold(r.other);
    wgmma_begin();
    product_added<T>(r.c, du, s);
    if constexpr (!Back)
        product_added<T>(r.other, e, s);
    finish_product(r.c);
    if constexpr (!Back)
        wgmma_hold(r.other);
    hold_operand(du);
    hold_operand(e);
}

/* The numbers of the own rows. */
template <typename T, bool Back>
__device__ row_numbers own_numbers(const fused_arguments &a, const chunk_work<T, Back> &work,
                                   const block_place<T> &place)
{
    row_numbers r = {};
    if constexpr (Back) {
        uint32_t x[4][4];
        load_strip_of(x, place.shared + kOwnAt + group_of_thread() * kTileBytes);
        key_numbers<T>(x, a, a.tops[work.key_unit(a)], kKeyBits<T>, work.first, work.unit.kv_valid,
                       r.base, r.share);
    } else {
        const int64_t head = work.unit.b * a.heads + work.unit.h;
        query_numbers(a, head, work.range(), work.first, work.unit.q_valid, r.base, r.share);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = work.first + strip_of_thread() + (int)threadIdx.x % 32 / 4 + 8 * half;
            r.weight[half] = row < work.unit.q_valid ? a.weights[head * a.q_len + row] : 0.0F;
        }
    }
    return r;
}

/* All features, of one head of queries; the mark belongs to the first. */
template <typename T, bool Back>
__device__ void go_through_panels(const fused_arguments &a, const chunk_work<T, Back> &work,
                                  int member, const block_place<T> &place, int number, int &round,
                                  const row_numbers &rows, gradient_rows &r)
{
    make_all_weights<T, Back>(a, work, member, place, round++, rows.weight);
    /* slopes: of queries from those times the factor of powers of keys, of keys from those times
     * the range of queries, to where du has its factor */
    const query_range<T> range = work.range();
    const float of_mark = place.mark_back() * (Back ? range.into : kTileFactor<T>);
    const float of_queries = kQuerySlope<T> * range.back;
    const float of_slopes =
        Back ? kKeySlope<T> / kKeyFactor<T> * range.back : of_queries / kTileFactor<T>;
    const float weights[2] = {of_queries * rows.weight[0], of_queries * rows.weight[1]};
#pragma unroll 1
    for (int panel = 0; panel < kCausalPanels; panel++, round++) {
        float d[8][4];
        uint32_t e[4][4];
        barrier_wait(place.barrier(TILE_FREE + group_of_thread()), (uint32_t)(round - 1) & 1);
        make_features<T, Back>(a, work, member, place, panel);
        own_powers<T, Back>(place, panel, rows.base, e, r);
        if (member == 0 && panel == 0)
            barrier_wait(place.barrier(MARK_FULL), (uint32_t)number & 1);
        find_slopes<T, Back>(place, panel, round, member == 0, of_mark, d);
        add_slopes<T, Back>(place, panel, member == 0, weights, of_slopes, e, d, r);
    }
    if (member == 0)
        barrier_arrive(place.barrier(MARK_FREE));
}

template <typename T, bool Back>
__device__ void write_gradient(const fused_arguments &a, const chunk_work<T, Back> &work,
                               const block_place<T> &place, const row_numbers &rows,
                               gradient_rows &r)
{
    const int count = Back ? a.kv_len : a.q_len;
    const panel_rows<T> dx(Back ? a.dk : a.dq, work.unit.b, work.unit.h, count);
    constexpr float back = 1.0F / (Back ? kKeySlope<T> : kQuerySlope<T>);
    const float factors[2] = {back, back};
    if constexpr (!Back)
        join_sums(rows, kFusedFeaturesMost, r);
    const float along[2] = {a.scale * a.scale * sum_of_four(r.along[0]),
                            a.scale * a.scale * sum_of_four(r.along[1])};
    take_away<T>(r.c, place.shared + kOwnAt + group_of_thread() * kTileBytes, along);
    write_result(dx, work.first, count, work.own(a).valid, r.c, factors);
}

template <typename T, bool Back>
__device__ void go_through_chunks(const fused_arguments &a, const block_place<T> &place,
                                  int64_t count, int chunks)
{
    const bool starts = threadIdx.x == (Back ? kChunkThreads - kGroupThreads : 0);
    const int members = Back ? a.group : 1;
    int64_t number = blockIdx.x;
    if (starts)
        start_mark<T, Back>(a, place, number, chunks);
    __syncwarp();
    for (int n = 0, round = 0; number < count; n++) {
        const chunk_work<T, Back> work(a, number, chunks);
        const int64_t next = number + gridDim.x;
        if (next < count)
            prefetch_chunk<T, Back, true>(a, next, chunks);
        gradient_rows r = {};
        start_tile(place, kOwnAt, work.own(a), work.first);
        start_tile(place, kOwnValuesAt, work.own_values(a), work.first);
        start_values<T, Back>(a, work, 0, place, round);
        commit_copies();
        wait_copies<0>();
        publish_shared();
        sync_group();
        const row_numbers rows = own_numbers<T, Back>(a, work, place);
        for (int member = 0; member < members; member++) {
            if (member > 0)
                start_values<T, Back>(a, work, member, place, round);
            go_through_panels<T, Back>(a, work, member, place, n, round, rows, r);
        }
        if (starts && next < count) {
            barrier_wait(place.barrier(MARK_FREE), (uint32_t)n & 1);
            start_mark<T, Back>(a, place, next, chunks);
        }
        __syncwarp();
        write_gradient<T, Back>(a, work, place, rows, r);
        sync_group(); /* the own tiles are free */
        number = next;
    }
}

#endif

/* grid (blocks, at most one to a chunk): reads and writes every row once, the other side's q or k
 * once per panel of features, and every mark */
template <typename T, bool Back>
__global__ void __launch_bounds__(kChunkThreads, 1)
    slope_kernel(const __grid_constant__ fused_arguments a, int64_t count, int chunks)
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
    const char *const name = "Performer's slopes";
    return back
               ? launch_chunks<true>(name, slope_kernel<T, true>, kSharedBytes<T>, a, stream, error)
               : launch_chunks<false>(name, slope_kernel<T, false>, kSharedBytes<T>, a, stream,
                                      error);
}

} // namespace

enum fb_status causal_cuda_slopes(enum fb_dtype dtype, const fused_arguments &a, bool back,
                                  cudaStream_t stream, struct fb_error *error)
{
    return dtype == FB_F16 ? launch<__half>(a, back, stream, error)
                           : launch<__nv_bfloat16>(a, back, stream, error);
}
