/* The states of wide heads, sum over a slice's tokens of Y^T Z, in tiles. See linear_cuda_wide.cuh.
 */
#include "linear_cuda_wide.cuh"

namespace
{

constexpr int kStages = 3; /* the one in use included */

constexpr int sum_threads(int columns)
{
    return columns == 256 ? 512 : 256;
}

/* A tile of the state. f32 has a second set of sums in registers, so fewer rows go with 128
 * columns. */
template <typename P, int Columns> struct sum_tiles {
    static constexpr int threads = sum_threads(Columns);
    static constexpr int rows = P::wide_sums && Columns == 128 ? 64 : kWideRows;
    static constexpr int row_warps = rows / 32, column_warps = threads / 32 / row_warps;
    static constexpr int warp_columns = Columns / column_warps;
    typedef wide_tile<P, wide_depth<P>(), rows, threads> y;
    typedef wide_tile<P, wide_depth<P>(), Columns, threads> z;
    static constexpr int stage = y::bytes + z::bytes;
    static constexpr size_t bytes = (size_t)kStages * stage;
};

/* Sums of the columns of Y, each of a thread's eight over the rows that it has brought, joined in
 * order: the block is in step before. */
template <typename Tile, int Threads>
__device__ void join_columns(char *shared, const float (&sum)[8], int columns, float *to)
{
    float *parts = reinterpret_cast<float *>(shared);
    constexpr int groups = Threads / Tile::chunks;
#pragma unroll
    for (int e = 0; e < 8; e++)
        parts[Tile::own_row(0) * Tile::columns + 8 * Tile::own_chunk() + e] = sum[e];
    __syncthreads();
    if ((int)threadIdx.x >= columns)
        return;
    float total = 0.0F;
    for (int k = 0; k < groups; k++)
        total += parts[k * Tile::columns + threadIdx.x];
    to[threadIdx.x] = total;
}

/* grid (tiles, slices, heads of Y): reads k and v (queries: q and dout) of the slice once per tile
 * of the other, all tiles of a slice side by side */
template <typename P, typename F, typename T, bool OfQueries, int Columns>
__global__ void __launch_bounds__(sum_threads(Columns), Columns == 256 ? 1 : 2)
    sum_kernel(const __grid_constant__ linear_arguments a, float *direct)
{
    typedef sum_tiles<P, Columns> tiles;
    typedef typename tiles::y Y;
    typedef typename tiles::z Z;
    constexpr int depth = wide_depth<P>(), blocks = tiles::warp_columns / 8;
    constexpr int own_sums = P::wide_sums ? kPanel / depth : 0; /* steps until sums are put away */
    extern __shared__ __align__(1024) char shared[];
    const int heads = OfQueries ? a.heads : a.kv_heads;
    const int64_t unit = blockIdx.z, b = unit / heads, h = unit % heads;
    const linear_unit u = linear_unit_of(a, b, h, h);
    const int valid = OfQueries ? u.q_valid : u.kv_valid;
    const int z_tiles = (a.value_panels * kPanel + Columns - 1) / Columns;
    const int y_first = (int)blockIdx.x / z_tiles * tiles::rows,
              z_first = (int)blockIdx.x % z_tiles * Columns;
    const panel_rows<F> y(OfQueries ? a.q : a.k, b, h, valid);
    const panel_rows<T> z(OfQueries ? a.dout : a.v, b, h, valid);
    const float *denominators = a.denominators + (OfQueries ? unit * a.q_len : 0);
    const float *weights = a.weights + (OfQueries ? unit * a.q_len : 0);
    const int warp = (int)threadIdx.x / 32, row = warp / tiles::column_warps * 32,
              col = warp % tiles::column_warps * tiles::warp_columns;
    const int from = (int)blockIdx.y * a.slice_panels * kPanel;
    const int to = min(from + a.slice_panels * kPanel, valid);
    const int count = from < to ? (to - from + depth - 1) / depth : 0;
    float key_sum[8] = {};
    float state[2][blocks][4], part[own_sums > 0 ? 2 : 1][blocks][4];
    clear(state);
    if constexpr (own_sums > 0)
        clear(part);
    const auto start = [&](int n) {
        char *stage = shared + n % kStages * tiles::stage;
        if (n < count) {
            Y::start(stage, y, from + n * depth, y_first);
            Z::start(stage + Y::bytes, z, from + n * depth, z_first);
        }
        commit_copies();
    };
    for (int n = 0; n < kStages - 1; n++)
        start(n);
    for (int n = 0; n < count; n++) {
        char *ys = shared + n % kStages * tiles::stage, *zs = ys + Y::bytes;
        const int first = from + n * depth;
        wait_copies<kStages - 2>();
        Y::finish(
            ys, y, first, y_first, [&](int, float(&x)[8]) { linear_phi<P>(a.map, x); },
            [&](int i, const float(&x)[8]) {
                float weight = 1.0F;
                if constexpr (OfQueries) {
                    const int token = first + Y::own_row(i);
                    weight = token < valid ? -weights[token] * linear_inverse(denominators[token])
                                           : 0.0F;
                }
#pragma unroll
                for (int e = 0; e < 8; e++)
                    key_sum[e] = fmaf(weight, x[e], key_sum[e]);
            });
        if constexpr (OfQueries)
            Z::finish(
                zs, z, first, z_first,
                [&](int i, float(&x)[8]) {
                    const float inverse = linear_inverse(denominators[first + Z::own_row(i)]);
#pragma unroll
                    for (int e = 0; e < 8; e++)
                        x[e] *= inverse;
                },
                [](int, const float(&)[8]) {});
        __syncthreads();
        start(n + kStages - 1);
        if constexpr (own_sums > 0) {
            wide_multiply<wide_sides::sums, P, Y, Z>(part, ys, row, zs, col);
            if (n % own_sums == own_sums - 1 || n == count - 1) {
#pragma unroll
                for (int m = 0; m < 2; m++)
#pragma unroll
                    for (int k = 0; k < blocks; k++)
#pragma unroll
                        for (int i = 0; i < 4; i++)
                            state[m][k][i] += part[m][k][i];
                clear(part);
            }
        } else {
            wide_multiply<wide_sides::sums, P, Y, Z>(state, ys, row, zs, col);
        }
    }
    float *out = direct != nullptr
                     ? direct + unit * a.count
                     : (OfQueries ? a.back : a.sums) + (unit * a.slices + blockIdx.y) * a.count;
    const int features = a.feature_panels * kPanel, values = a.value_panels * kPanel;
    wide_each_pair(state, row, col, [&](int r, int c, float x0, float x1) {
        if (y_first + r >= features || z_first + c >= values)
            return;
        const int64_t place = (int64_t)(y_first + r) * values + z_first + c;
        if (P::element_bytes == 2 && direct != nullptr)
            *reinterpret_cast<uint32_t *>(reinterpret_cast<__nv_bfloat16 *>(out) + place) =
                pack_bf16(x0, x1);
        else
            *reinterpret_cast<float2 *>(out + place) = make_float2(x0, x1);
    });
    if (z_first != 0)
        return;
    wait_copies<0>();
    __syncthreads();
    join_columns<Y, tiles::threads>(shared, key_sum, min(features - y_first, tiles::rows),
                                    out + linear_key_sum(a, 0) + y_first);
}

template <typename P, typename F, typename T, int Columns>
enum fb_status launch(const linear_arguments &a, bool of_queries, float *direct,
                      cudaStream_t stream, struct fb_error *error)
{
    const auto kernel =
        of_queries ? sum_kernel<P, F, T, true, Columns> : sum_kernel<P, F, T, false, Columns>;
    const size_t bytes = sum_tiles<P, Columns>::bytes;
    const enum fb_status status =
        fb_cuda_allow_shared((const void *)kernel, bytes, "sums of linear attention", error);
    if (status != FB_OK)
        return status;
    const dim3 grid((unsigned)linear_cuda_wide_tiles(a, P::wide_sums), (unsigned)a.slices,
                    (unsigned)(a.batch * (of_queries ? a.heads : a.kv_heads)));
    kernel<<<grid, sum_threads(Columns), bytes, stream>>>(a, direct);
    return fb_cuda_launched("sums of linear attention", error);
}

template <typename F, typename T>
enum fb_status choose(const linear_arguments &a, bool of_queries, float *direct,
                      cudaStream_t stream, struct fb_error *error)
{
    typedef typename panel_of<T>::type P;
    if constexpr (!P::wide_sums)
        if (linear_is_widest(a))
            return launch<P, F, T, 256>(a, of_queries, direct, stream, error);
    if (a.value_panels > 1)
        return launch<P, F, T, 128>(a, of_queries, direct, stream, error);
    return launch<P, F, T, 64>(a, of_queries, direct, stream, error);
}

} // namespace

int linear_cuda_wide_tiles(const linear_arguments &a, bool own_sums)
{
    const int features = a.feature_panels * kPanel, values = a.value_panels * kPanel;
    const int columns = a.value_panels == 1 ? 64 : !own_sums && linear_is_widest(a) ? 256 : 128;
    const int rows = own_sums && columns == 128 ? 64 : kWideRows;
    return (features + rows - 1) / rows * ((values + columns - 1) / columns);
}

int linear_cuda_wide_blocks(const linear_arguments &a, bool own_sums)
{
    return !own_sums && linear_is_widest(a) ? 132 : 264;
}

enum fb_status linear_cuda_wide_sum(enum fb_dtype features, enum fb_dtype dtype,
                                    const linear_arguments &a, bool of_queries, float *direct,
                                    cudaStream_t stream, struct fb_error *error)
{
    if (dtype == FB_BF16)
        return choose<__nv_bfloat16, __nv_bfloat16>(a, of_queries, direct, stream, error);
    if (dtype == FB_F32)
        return choose<float, float>(a, of_queries, direct, stream, error);
    if (features == FB_F16)
        return choose<__half, __half>(a, of_queries, direct, stream, error);
    return choose<float, __half>(a, of_queries, direct, stream, error);
}
