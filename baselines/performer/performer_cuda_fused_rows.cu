/*
 * Performer's results by rows, features formed on the way: every warpgroup of a block brings tiles
 * of 64 tokens of its own, while the one before is worked on. See performer_cuda_fused.cuh.
 */
#include "performer_cuda_fused_gradient.cuh"
#include "performer_cuda_fused_values.cuh"

namespace
{

constexpr int kStages = 2;
constexpr int64_t kOverheadRounds = 1;

/* Warpgroups of a block, as many as registers serve; tiles that a warpgroup's token needs. */
template <fused_rows What> struct rows_plan {
    static constexpr int groups = What == FUSED_OUT ? kOutGroups : 3;
    static constexpr int tiles = What == FUSED_OUT ? 1 : 2;
    static constexpr int threads = groups * kGroupThreads;
    static constexpr int ring = groups * kStages * tiles * kTileBytes;
};

template <typename T, fused_rows What> size_t shared_bytes(const fused_arguments &a)
{
    return (size_t)3 * (a.features / kPanel) * kTileBytes + rows_plan<What>::ring +
           sizeof(feature_numbers) + kValueBytes<T> + 1024;
}

#if FB_HAVE_WGMMA

__device__ inline void sync_group()
{
    asm volatile("bar.sync %0, %1;" ::"r"(1 + group_of_thread()), "n"(kGroupThreads) : "memory");
}

/* What a block keeps: s, the state behind it, and what undoes its factor. */
struct block_operands {
    uint64_t high, low, state; /* of the first 64 features */
    int panels;
    float back;
};

/* The state of a head and its sums of features times a factor; the block is not in step after. */
template <typename T>
__device__ void load_total(char *to, feature_numbers &numbers, const T *state, const float *z,
                           float factor, int features)
{
    for (int i = threadIdx.x; i < features * 8; i += (int)blockDim.x)
        copy_chunk_async(shared_address(to) + chunk_offset(i / 8, i % 8), state + 8 * i, true);
    for (int i = threadIdx.x; i < features; i += (int)blockDim.x)
        numbers.z[i] = factor * z[i];
}

/* Sums over the features of the state and of their sums; the block is in step before and after. */
template <typename T>
__device__ void add_features(const char *state, feature_numbers &numbers, int features)
{
    const int col = (int)threadIdx.x;
    if (col < kFusedDim) {
        float sum = 0.0F;
        for (int f = 0; f < features; f++)
            sum += to_f32(reinterpret_cast<const T *>(state + chunk_offset(f, col / 8))[col % 8]);
        numbers.state[col] = sum;
    } else if (col < kFusedDim + 32) {
        float sum = 0.0F;
        for (int f = col - kFusedDim; f < features; f += 32)
            sum += numbers.z[f];
        for (int step = 1; step < 32; step *= 2)
            sum += __shfl_xor_sync(0xffffffffU, sum, step);
        if (col == kFusedDim)
            numbers.all = sum;
    }
    __syncthreads();
}

/* The warp's strip of a result through the tile to the rows that exist of `count`, of which those
 * before `valid` count; the warpgroup is in step. */
template <typename T>
__device__ void write_strip_of(char *tile, const float (&c)[8][4], const float (&factors)[2],
                               const panel_rows<T> &to, int first, int count, int valid)
{
    const int strip = strip_of_thread(), lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = strip + g + 8 * half;
        const float factor = first + row < valid ? factors[half] : 0.0F;
#pragma unroll
        for (int n = 0; n < 8; n++)
            tile_rows<T>::put2(tile, row, 8 * n + 2 * t, c[n][2 * half] * factor,
                               c[n][2 * half + 1] * factor);
    }
    __syncwarp();
    if (!to.whole) {
        write_strip<tile_rows<T>>(tile, strip, to, first, count, 0, [](int, int, float(&)[8]) {});
        return;
    }
    T *place = to.at(first + strip + lane / 8, lane % 8 * 8);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = strip + lane / 8 + 4 * i;
        if (first + row < count)
            *reinterpret_cast<uint4 *>(place + 4 * i * to.stride) =
                *reinterpret_cast<const uint4 *>(tile + chunk_offset(row, lane % 8));
    }
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Half the squared norms of a tile's rows, by those who have brought them. */
template <typename T>
__device__ void find_bases(const fused_arguments &a, const char *tile, float *bases)
{
    const int row = (int)threadIdx.x % kGroupThreads / 8, chunk = (int)threadIdx.x % 8;
#pragma unroll
    for (int k = 0; k < kPanel * 8 / kGroupThreads; k++) {
        const int i = row + k * (kGroupThreads / 8);
        const float base = base_of_squares(a, squares_of_row<T>(tile, i, chunk));
        if (chunk == 0)
            bases[i] = base - kPowerBits<T>;
    }
}

template <typename T>
__device__ void add_features_out(uint64_t q, const block_operands &s, int panel,
                                 const feature_numbers &numbers, out_rows<T> &r)
{
    const int t = threadIdx.x % 4;
    const uint64_t at = (uint64_t)(panel * kTileUnits);
    float u[8][4], base[2];
    wgmma_hold(u);
    wgmma_begin();
    product_turned<T>(u, q, s.high + at, true);
    product_turned<T>(u, q, s.low + at, false);
    finish_product(u);
    finish_sum(r.c, r.e);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float now = fmaxf(r.top[half], largest_of_half(u, half));
        const float factor = power_of_two((r.top[half] - now) * kLog2e);
        scale_half(r.c, half, factor);
        r.y[half] *= factor;
        if constexpr (kNarrow<T>) {
            r.products[2 * half] *= factor;
            r.products[2 * half + 1] *= factor;
        }
        r.top[half] = now;
        base[half] = fmaf(now, kLog2e, r.base[half]);
    }
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float2 weight =
            *reinterpret_cast<const float2 *>(numbers.z + panel * kPanel + 8 * n + 2 * t);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float p = power_of_two(fmaf(u[n][2 * half], kLog2e, -base[half]));
            const float o = power_of_two(fmaf(u[n][2 * half + 1], kLog2e, -base[half]));
            if constexpr (!kNarrow<T>)
                r.y[half] = fmaf(p, weight.x, fmaf(o, weight.y, r.y[half]));
            put_operand<T>(r.e, n, half, p, o);
        }
    }
    if constexpr (kNarrow<T>)
        add_products(numbers, panel, r);
    wgmma_hold(r.c);
    wgmma_begin();
    product_added<T>(r.c, r.e, s.state + at);
    wgmma_commit();
}

/* A tile of queries; epsilon's part of every feature is added at the end. */
template <typename T>
__device__ void out_tile(const fused_arguments &a, const fused_unit &unit, char *tile,
                         const block_operands &s, const feature_numbers &numbers,
                         const panel_rows<T> &out, int first)
{
    constexpr float epsilon = kFeatureEpsilon * kPowerFactor<T>;
    const int row = strip_of_thread() + (int)threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const float *bases = numbers.bases[group_of_thread()];
    out_rows<T> r = {};
    float factors[2];
    r.top[0] = r.top[1] = -INFINITY;
    r.base[0] = bases[row];
    r.base[1] = bases[row + 8];
    for (int panel = 0; panel < s.panels; panel++)
        add_features_out<T>(wgmma_tile(shared_address(tile)), s, panel, numbers, r);
    finish_sum(r.c, r.e);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float2 products = {};
        if constexpr (kNarrow<T>)
            products = products_of(r, half);
        const float y =
            fmaf(epsilon, numbers.all, kNarrow<T> ? s.back * products.x : sum_of_four(r.y[half]));
        const int token = first + row + 8 * half;
        factors[half] = y <= 0.0F ? 0.0F : 1.0F / y;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float2 state = *reinterpret_cast<const float2 *>(&numbers.state[8 * n + 2 * t]);
            r.c[n][2 * half] = fmaf(epsilon, state.x, r.c[n][2 * half]);
            r.c[n][2 * half + 1] = fmaf(epsilon, state.y, r.c[n][2 * half + 1]);
        }
        if constexpr (kNarrow<T>)
            add_value_sums(numbers, fmaf((float)a.features, epsilon, products.y), s.back, half,
                           r.c);
        if (t == 0 && token < unit.q_valid && a.query_base != nullptr) {
            const int64_t at = (unit.b * a.heads + unit.h) * a.q_len + token;
            a.query_share[at] = epsilon * factors[half];
            a.query_base[at] =
                y <= 0.0F ? INFINITY : fmaf(r.top[half], kLog2e, r.base[half]) + log2f(y);
        }
    }
    sync_group(); /* nobody needs the tile any more */
    write_strip_of(tile, r.c, factors, out, first, a.q_len, unit.q_valid);
}

/* ---- gradients ------------------------------------------------------------------------------- */

template <typename T, fused_rows What>
__device__ row_numbers row_numbers_of(const fused_arguments &a, const fused_unit &unit, int first,
                                      float top)
{
    const query_range<T> range = range_of<T>(unit, a.kv_len);
    row_numbers r = {{INFINITY, INFINITY}, {}, {}};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int token = first + strip_of_thread() + (int)threadIdx.x % 32 / 4 + 8 * half;
        if (What == FUSED_DQ && token < unit.q_valid) {
            const int64_t at = (unit.b * a.heads + unit.h) * a.q_len + token;
            r.base[half] = a.query_base[at] - range.bits;
            r.weight[half] = a.weights[at] * (kQuerySlope<T> * range.back);
            r.share[half] = a.query_share[at] * range.into;
        } else if (What == FUSED_DK_DV && token < unit.kv_valid) {
            r.base[half] =
                a.key_base[(unit.b * a.kv_heads + unit.h) * a.kv_len + token] + top - kKeyBits<T>;
        }
    }
    return r;
}

/* x: q or k, y: dout or v */
template <typename T, fused_rows What>
__device__ void add_features_gradient(uint64_t x, uint64_t y, const block_operands &s, int panel,
                                      const float *z, const row_numbers &rows, float state_factor,
                                      gradient_rows &r)
{
    const int t = threadIdx.x % 4;
    const uint64_t at = (uint64_t)(panel * kTileUnits);
    float u[8][4], d[8][4];
    uint32_t du[4][4], phi[4][4];
    wgmma_hold(u);
    wgmma_hold(d);
    wgmma_begin();
    product_turned<T>(u, x, s.high + at, true);
    product_turned<T>(u, x, s.low + at, false);
    wgmma_commit();
    product_turned<T>(d, y, s.state + at, true);
    wgmma_commit();
    wgmma_wait<1>();
    wgmma_hold(u);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            u[n][i] = power_of_two(fmaf(u[n][i], kLog2e, -rows.base[i / 2]));
    wgmma_wait<0>();
    wgmma_hold(u);
    wgmma_hold(d);
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float2 pair = *reinterpret_cast<const float2 *>(z + panel * kPanel + 8 * n + 2 * t);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float weight = What == FUSED_DQ ? -rows.weight[half] : 1.0F;
            const float p = u[n][2 * half], o = u[n][2 * half + 1];
            const float2 slope = {fmaf(weight, pair.x, state_factor * d[n][2 * half]),
                                  fmaf(weight, pair.y, state_factor * d[n][2 * half + 1])};
            const float dp = p * slope.x, dq = o * slope.y;
            r.along[half] += dp + dq;
            put_operand<T>(du, n, half, dp, dq);
            if constexpr (What == FUSED_DK_DV) {
                put_operand<T>(phi, n, half, p + kFeatureEpsilon * kKeyFactor<T>,
                               o + kFeatureEpsilon * kKeyFactor<T>);
            } else {
                r.e[half] += p + o;
                r.d[half] += slope.x + slope.y;
                put_operand<T>(phi, n, half, p, o);
            }
        }
    }
    wgmma_hold(r.c);
    wgmma_hold(r.other);
    wgmma_begin();
    product_added<T>(r.c, du, s.high + at);
    product_added<T>(r.other, phi, What == FUSED_DQ ? s.high + at : s.state + at);
    finish_product(r.c);
    wgmma_hold(r.other);
}

template <typename T, fused_rows What>
__device__ void gradient_tile(const fused_arguments &a, const fused_unit &unit, char *tiles,
                              const block_operands &s, const feature_numbers &numbers,
                              const row_numbers &rows_of_thread, int first)
{
    constexpr bool queries = What == FUSED_DQ;
    const int count = queries ? a.q_len : a.kv_len, valid = queries ? unit.q_valid : unit.kv_valid;
    const panel_rows<T> dx(queries ? a.dq : a.dk, unit.b, unit.h, count);
    const query_range<T> range = range_of<T>(unit, a.kv_len);
    /* slopes, which du takes its factor from, times those of powers */
    const float slope = queries ? kQuerySlope<T> * range.back : kKeySlope<T> / kKeyFactor<T>;
    constexpr float back = 1.0F / (queries ? kQuerySlope<T> : kKeySlope<T>);
    const float factors[2] = {back, back};
    gradient_rows r = {};
    for (int panel = 0; panel < s.panels; panel++)
        add_features_gradient<T, What>(wgmma_tile(shared_address(tiles)),
                                       wgmma_tile(shared_address(tiles + kTileBytes)), s, panel,
                                       numbers.z, rows_of_thread, slope * s.back, r);
    if constexpr (What == FUSED_DQ)
        join_sums(rows_of_thread, (float)a.features, r);
    const float along[2] = {a.scale * a.scale * sum_of_four(r.along[0]),
                            a.scale * a.scale * sum_of_four(r.along[1])};
    sync_group(); /* nobody needs the tiles any more */
    take_away<T>(r.c, tiles, along);
    write_strip_of(tiles, r.c, factors, dx, first, count, valid);
    if constexpr (What == FUSED_DK_DV) {
        const panel_rows<T> dv(a.dv, unit.b, unit.h, count);
        const float back_of_values = s.back / kKeyFactor<T>;
        const float value_factors[2] = {back_of_values, back_of_values};
        write_strip_of(tiles + kTileBytes, r.other, value_factors, dv, first, count, valid);
    }
}

/* ---- the kernel ------------------------------------------------------------------------------ */

template <typename T, fused_rows What>
__device__ void go_through_rows(const fused_arguments &a, const fused_unit &unit, char *ring,
                                const block_operands &s, feature_numbers &numbers, float top,
                                int slice_tiles)
{
    typedef rows_plan<What> plan;
    const bool queries = What != FUSED_DK_DV;
    const int count = queries ? a.q_len : a.kv_len, group = group_of_thread(),
              thread = (int)threadIdx.x % kGroupThreads;
    const panel_rows<T> x(queries ? a.q : a.k, unit.b, unit.h,
                          queries ? unit.q_valid : unit.kv_valid);
    const panel_rows<T> y(What == FUSED_DQ ? a.dout : a.v, unit.b, unit.h, x.valid);
    const panel_rows<T> out(a.out, unit.b, unit.h, count);
    const int from = ((int)blockIdx.x * slice_tiles + group) * kPanel,
              to = min(((int)blockIdx.x + 1) * slice_tiles * kPanel, count);
    constexpr int stride = plan::groups * kPanel, stage = plan::tiles * kTileBytes;
    char *own = ring + group * kStages * stage;
    const auto start = [&](int n) {
        const int first = from + n * stride;
        if (first < to) {
            fetch_tile<kPanel, kGroupThreads>(own + n % kStages * stage, x, first, thread,
                                              kGroupThreads);
            if constexpr (What != FUSED_OUT)
                fetch_tile<kPanel, kGroupThreads>(own + n % kStages * stage + kTileBytes, y, first,
                                                  thread, kGroupThreads);
        }
        commit_copies();
    };
    start(0);
    for (int n = 0; from + n * stride < to; n++) {
        const int first = from + n * stride;
        char *tiles = own + n % kStages * stage;
        start(n + 1);
        const row_numbers rows_of_thread = row_numbers_of<T, What>(a, unit, first, top);
        wait_copies<1>();
        if constexpr (What == FUSED_OUT)
            find_bases<T>(a, tiles, numbers.bases[group]);
        publish_shared();
        sync_group();
        if constexpr (What == FUSED_OUT)
            out_tile(a, unit, tiles, s, numbers, out, first);
        else
            gradient_tile<T, What>(a, unit, tiles, s, numbers, rows_of_thread, first);
        sync_group(); /* the tile is free */
    }
}

#endif

/* grid (slices of rows, heads of queries or keys): reads and writes every row once, the state once
 * to a block */
template <typename T, fused_rows What>
__global__ void __launch_bounds__(rows_plan<What>::threads, 1)
    rows_kernel(const __grid_constant__ fused_arguments a, int slice_tiles)
{
#if FB_HAVE_WGMMA
    extern __shared__ char dynamic[];
    char *shared = dynamic + (1024 - shared_address(dynamic) % 1024) % 1024;
    const fused_unit unit(a, blockIdx.y, What != FUSED_DK_DV);
    const fused_total<T> total(What == FUSED_DK_DV ? a.back : a.totals,
                               unit.b * a.kv_heads + unit.kv_h, a.features);
    const fused_total<T> keys(a.totals, unit.b * a.kv_heads + unit.kv_h, a.features);
    const int bytes = a.features / kPanel * kTileBytes;
    char *ring = shared + 3 * bytes;
    feature_numbers &numbers = *reinterpret_cast<feature_numbers *>(ring + rows_plan<What>::ring);
    constexpr bool own_state = What == FUSED_DQ || (What == FUSED_OUT && kNarrow<T>);
    load_total(shared + 2 * bytes, numbers, own_state ? total.own_state : total.state,
               What == FUSED_DQ ? total.own_z : total.z,
               What == FUSED_DK_DV ? kKeySlope<T> / kKeyFactor<T> : 1.0F, a.features);
    if constexpr (What == FUSED_OUT && kNarrow<T>)
        if (threadIdx.x < kFusedDim)
            value_numbers_of(numbers).values[threadIdx.x] = total.values(a.features)[threadIdx.x];
    commit_copies();
    load_projection<T>(a, shared);
    wait_copies<0>();
    publish_shared();
    __syncthreads();
    if constexpr (What == FUSED_OUT && kNarrow<T>)
        make_products(numbers, 1.0F / *total.back(), a.features);
    if constexpr (What == FUSED_OUT)
        add_features<T>(shared + 2 * bytes, numbers, a.features);
    const uint64_t high = wgmma_tile(shared_address(shared));
    const block_operands s = {high, high + (uint64_t)(bytes / 16), high + (uint64_t)(bytes / 8),
                              a.features / kPanel, kNarrow<T> ? *total.back() : 1.0F};
    go_through_rows<T, What>(a, unit, ring, s, numbers, *keys.top, slice_tiles);
#endif
}

template <typename T, fused_rows What>
enum fb_status launch(const fused_arguments &a, cudaStream_t stream, struct fb_error *error)
{
    const bool queries = What != FUSED_DK_DV;
    const int64_t heads = (int64_t)a.batch * (queries ? a.heads : a.kv_heads);
    const int tiles = ((queries ? a.q_len : a.kv_len) + kPanel - 1) / kPanel;
    const int rounds = (tiles + rows_plan<What>::groups - 1) / rows_plan<What>::groups;
    const int slices = fused_slices_of(heads, rounds, kOverheadRounds);
    const int slice_tiles = (rounds + slices - 1) / slices * rows_plan<What>::groups;
    const size_t bytes = shared_bytes<T, What>(a);
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)rows_kernel<T, What>, bytes, "Performer's rows", error);
    if (status != FB_OK)
        return status;
    const dim3 grid((unsigned)((tiles + slice_tiles - 1) / slice_tiles), (unsigned)heads);
    rows_kernel<T, What><<<grid, rows_plan<What>::threads, bytes, stream>>>(a, slice_tiles);
    return fb_cuda_launched("Performer's rows", error);
}

template <typename T>
enum fb_status choose(const fused_arguments &a, enum fused_rows what, cudaStream_t stream,
                      struct fb_error *error)
{
    switch (what) {
    case FUSED_OUT:
        return launch<T, FUSED_OUT>(a, stream, error);
    case FUSED_DQ:
        return launch<T, FUSED_DQ>(a, stream, error);
    default:
        return launch<T, FUSED_DK_DV>(a, stream, error);
    }
}

} // namespace

enum fb_status fused_cuda_rows(enum fb_dtype dtype, const fused_arguments &a, enum fused_rows what,
                               cudaStream_t stream, struct fb_error *error)
{
    return dtype == FB_F16 ? choose<__half>(a, what, stream, error)
                           : choose<__nv_bfloat16>(a, what, stream, error);
}
