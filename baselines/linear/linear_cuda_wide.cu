/* Linear attention of wide heads without a mask: rows times the state of all tokens, in tiles of
 * 128 rows. See linear_cuda_wide.cuh. */
#include "linear_cuda_wide.cuh"

#include "cuda_limits.h"

namespace
{

template <typename P, linear_pass Pass, int Columns> struct row_tiles {
    static constexpr int depth = wide_depth<P>();
    static constexpr bool turned = linear_gives_features<Pass>();
    static constexpr int rows = Columns == 256 ? 64 : kWideRows;
    static constexpr int column_warps = kWideThreads / 32 / (rows / 32);
    static constexpr int warp_columns = Columns / column_warps;
    typedef wide_tile<P, rows, depth, kWideThreads> x;
    typedef wide_tile<P, turned ? Columns : depth, turned ? depth : Columns, kWideThreads> z;
    typedef wide_tile<panel_of<float>::type, rows, Columns, kWideThreads> result;
    static constexpr int stage = x::bytes + z::bytes;
    static constexpr int stages = Columns == 256 ? 2 : 3; /* the one in use included */
    static constexpr int bytes = stages * stage > result::bytes ? stages *stage : result::bytes;
};

/* What belongs to the rows and columns of a tile. */
struct row_numbers {
    float scale[kWideRows], added[kWideRows]; /* of rows: the result is scale (c + added extra) */
    float extra[256];                         /* of columns */
};

/* The tile's numbers that are known before its products. */
template <linear_pass Pass>
__device__ void load_numbers(const linear_arguments &a, row_numbers &numbers, float *kept,
                             const float *total, int64_t head, int first, int valid, int z_first,
                             int columns)
{
    const float *key_sums = total + linear_key_sum(a, 0);
    if constexpr (Pass == LINEAR_OUT)
        for (int i = threadIdx.x; i < a.feature_panels * kPanel; i += kWideThreads)
            kept[i] = key_sums[i];
    const int i = (int)threadIdx.x;
    if (linear_gives_features<Pass>() && i < columns)
        numbers.extra[i] = z_first + i < a.feature_panels * kPanel ? key_sums[z_first + i] : 0.0F;
    if (Pass == LINEAR_OUT || i >= kWideRows)
        return;
    const bool exists = first + i < valid;
    const int64_t place = head * a.q_len + first + i;
    numbers.scale[i] = !exists             ? 0.0F
                       : Pass == LINEAR_DQ ? linear_inverse(a.denominators[place])
                                           : 1.0F;
    numbers.added[i] = !exists ? 0.0F : Pass == LINEAR_DQ ? -a.weights[place] : 1.0F;
}

/* The result, in shared memory, to where it belongs. */
template <typename P, typename Tile, linear_pass Pass, typename T>
__device__ void write_rows(const linear_arguments &a, const row_numbers &numbers, char *tile,
                           int64_t b, int64_t h, int first, int z_first)
{
    constexpr bool queries = linear_rows_are_queries<Pass>(),
                   features = linear_gives_features<Pass>();
    const int count = queries ? a.q_len : a.kv_len;
    const panel_rows<T> to(linear_result<Pass>(a), b, h, count);
    const panel_rows<T> input(Pass == LINEAR_DK ? a.k : a.q, b, h, count);
    const int chunk = Tile::own_chunk(), col = z_first + 8 * chunk;
#pragma unroll 2
    for (int i = 0; i < Tile::own; i++) {
        const int row = Tile::own_row(i);
        if (first + row >= count || col >= to.dim)
            continue;
        float x[8], raw[8];
        Tile::get(tile, row, chunk, x);
        const float scale = numbers.scale[row], added = numbers.added[row];
        if (features && a.map != FB_LINEAR_CUDA_IDENTITY)
            fetch_chunk(input, first + row, col, raw);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            if constexpr (features) {
                x[e] = scale * fmaf(added, numbers.extra[8 * chunk + e], x[e]);
                if (a.map != FB_LINEAR_CUDA_IDENTITY)
                    x[e] *= linear_slope<P>(a.map, raw[e]);
            } else {
                x[e] *= scale;
            }
            x[e] = scale != 0.0F ? x[e] : 0.0F;
        }
        if (to.whole) {
            packet<T> bits;
#pragma unroll
            for (int e = 0; e < 8; e++)
                bits.x[e] = from_f32<T>(x[e]);
            *reinterpret_cast<packet<T> *>(to.at(first + row, col)) = bits;
        } else {
#pragma unroll
            for (int e = 0; e < 8; e++)
                if (col + e < to.dim)
                    *to.at(first + row, col + e) = from_f32<T>(x[e]);
        }
    }
}

/* One tile of the result: reads its rows of X once, and the state's columns. Far: the grid begins
 * at first_row; without it no register is lost to what only millions of tokens need. */
template <typename P, typename F, typename T, linear_pass Pass, int Columns, bool Far>
__device__ void tile_of_rows(const linear_arguments &a, char *shared, row_numbers &numbers,
                             int z_tile, int first_row)
{
    typedef typename linear_types<Pass, F, T>::x TX;
    typedef typename linear_types<Pass, F, T>::z TZ;
    typedef typename wide_state<P>::type S;
    typedef row_tiles<P, Pass, Columns> tiles;
    typedef typename tiles::x X;
    typedef typename tiles::z Z;
    constexpr bool queries = linear_rows_are_queries<Pass>(), turned = tiles::turned;
    constexpr int depth = tiles::depth, blocks = tiles::warp_columns / 8;
    constexpr wide_sides sides = turned ? wide_sides::rows_turned : wide_sides::rows;
    const int heads = queries ? a.heads : a.kv_heads;
    const int64_t b = blockIdx.z / heads, h = blockIdx.z % heads;
    const int64_t unit = b * a.kv_heads + (queries ? h / a.group : h);
    const linear_unit u = linear_unit_of(a, b, h, h);
    const int valid = queries ? u.q_valid : u.kv_valid, count = queries ? a.q_len : a.kv_len;
    const panel_rows<TX> x(linear_x<Pass>(a), b, h, valid);
    const float *total = (queries ? a.sum_total : a.back_total) + unit * a.count;
    const panel_rows<S> state = wide_state_rows<S>(a, total);
    const int first = (int)blockIdx.y * tiles::rows + (Far ? first_row : 0),
              z_first = z_tile * Columns;
    const int warp = (int)threadIdx.x / 32, row = warp / tiles::column_warps * 32,
              col = warp % tiles::column_warps * tiles::warp_columns;
    const int steps = linear_x_panels<Pass>(a) * kPanel / depth;
    const auto start = [&](int n) {
        char *stage = shared + n % tiles::stages * tiles::stage;
        if (n < steps) {
            X::start(stage, x, first, n * depth);
            Z::start(stage + X::bytes, state, turned ? z_first : n * depth,
                     turned ? n * depth : z_first);
        }
        commit_copies();
    };
    for (int n = 0; n < tiles::stages - 1; n++)
        start(n);
    float *key_sums = reinterpret_cast<float *>(shared + tiles::bytes); /* forward */
    load_numbers<Pass>(a, numbers, key_sums, total, blockIdx.z, first, valid, z_first, Columns);
    if (Pass == LINEAR_OUT)
        __syncthreads();
    float c[2][blocks][4], dots[X::own] = {};
    clear(c);
    for (int n = 0; n < steps; n++) {
        char *xs = shared + n % tiles::stages * tiles::stage;
        wait_copies<tiles::stages - 2>();
        if constexpr (Pass == LINEAR_OUT || Pass == LINEAR_DV)
            X::finish(
                xs, x, first, n * depth, [&](int, float(&e)[8]) { linear_phi<P>(a.map, e); },
                [&](int i, const float(&e)[8]) {
                    if constexpr (Pass == LINEAR_OUT) {
                        const float *key_sum = key_sums + n * depth + 8 * X::own_chunk();
#pragma unroll
                        for (int m = 0; m < 8; m++)
                            dots[i] = fmaf(e[m], key_sum[m], dots[i]);
                    }
                });
        __syncthreads();
        start(n + tiles::stages - 1);
        wide_multiply<sides, P, X, Z>(c, xs, row, xs + X::bytes, col);
    }
    if constexpr (Pass == LINEAR_OUT)
#pragma unroll
        for (int i = 0; i < X::own; i++) {
            float y = dots[i];
#pragma unroll
            for (int step = 1; step < X::chunks; step *= 2)
                y += __shfl_xor_sync(0xffffffffU, y, step);
            const int token = first + X::own_row(i);
            y = token < valid ? y + a.epsilon : 0.0F;
            if (X::own_chunk() != 0)
                continue;
            numbers.scale[X::own_row(i)] = linear_inverse(y);
            if (a.denominators != nullptr && z_tile == 0 && token < count)
                a.denominators[(int64_t)blockIdx.z * a.q_len + token] = y;
        }
    wait_copies<0>();
    __syncthreads();
    typedef typename tiles::result result;
    wide_each_pair(c, row, col, [&](int r, int k, float x0, float x1) {
        float *to = reinterpret_cast<float *>(shared) + r * result::ld + k;
        *reinterpret_cast<float2 *>(to) = make_float2(x0, x1);
    });
    __syncthreads();
    write_rows<P, result, Pass, TZ>(a, numbers, shared, b, h, first, z_first);
}

/* grid (tiles of columns, tiles of rows, heads of queries) */
template <typename P, typename F, typename T, linear_pass Pass, int Columns, bool Far>
__global__ void __launch_bounds__(kWideThreads, 2)
    queries_kernel(const __grid_constant__ linear_arguments a, int first_row)
{
    extern __shared__ __align__(1024) char shared[];
    __shared__ row_numbers numbers;
    tile_of_rows<P, F, T, Pass, Columns, Far>(a, shared, numbers, (int)blockIdx.x, first_row);
}

/* grid (tiles of columns of dk, then of dv, tiles of rows, heads of keys): side by side, since both
 * read k and v */
template <typename P, typename F, typename T, int DkColumns, int DvColumns, bool Far>
__global__ void __launch_bounds__(kWideThreads, 2)
    keys_kernel(const __grid_constant__ linear_arguments a, int first_row, int dk_tiles)
{
    extern __shared__ __align__(1024) char shared[];
    __shared__ row_numbers numbers;
    if ((int)blockIdx.x < dk_tiles)
        tile_of_rows<P, F, T, LINEAR_DK, DkColumns, Far>(a, shared, numbers, (int)blockIdx.x,
                                                         first_row);
    else
        tile_of_rows<P, F, T, LINEAR_DV, DvColumns, Far>(a, shared, numbers,
                                                         (int)blockIdx.x - dk_tiles, first_row);
}

int tiles_of(int panels, int columns)
{
    return (panels * kPanel + columns - 1) / columns;
}

/* Of the rows that a grid has room for, and of those beyond them, a launch for as many each. */
struct row_kernels {
    const void *near, *far;
};

/* arguments[1]: where the first row is written. */
enum fb_status launch(const row_kernels &kernels, int rows, size_t bytes, int tiles, int tokens,
                      int heads, void **arguments, cudaStream_t stream, struct fb_error *error)
{
    const int most = FB_CUDA_GRID_MAX * rows;
    enum fb_status status = FB_OK;
    for (int first = 0; first < tokens && status == FB_OK; first += most) {
        const void *const kernel = first == 0 ? kernels.near : kernels.far;
        const int count = tokens - first < most ? tokens - first : most;
        const dim3 grid((unsigned)tiles, (unsigned)((count + rows - 1) / rows), (unsigned)heads);
        arguments[1] = &first;
        status = fb_cuda_allow_shared(kernel, bytes, "linear attention", error);
        if (status == FB_OK)
            status = fb_cuda_status(
                cudaLaunchKernel(kernel, grid, dim3(kWideThreads), arguments, bytes, stream),
                "linear attention", error);
    }
    return status;
}

template <typename F, typename T, linear_pass Pass, int Columns>
enum fb_status launch_queries(const linear_arguments &a, cudaStream_t stream,
                              struct fb_error *error)
{
    typedef typename panel_of<T>::type P;
    const size_t key_sums =
        Pass == LINEAR_OUT ? (size_t)a.feature_panels * kPanel * sizeof(float) : 0;
    void *arguments[] = {const_cast<linear_arguments *>(&a), nullptr};
    return launch({(const void *)queries_kernel<P, F, T, Pass, Columns, false>,
                   (const void *)queries_kernel<P, F, T, Pass, Columns, true>},
                  row_tiles<P, Pass, Columns>::rows, row_tiles<P, Pass, Columns>::bytes + key_sums,
                  tiles_of(linear_z_panels<Pass>(a), Columns), a.q_len, a.batch * a.heads,
                  arguments, stream, error);
}

template <typename F, typename T, int DkColumns, int DvColumns>
enum fb_status launch_keys(const linear_arguments &a, cudaStream_t stream, struct fb_error *error)
{
    typedef typename panel_of<T>::type P;
    constexpr int dk_bytes = row_tiles<P, LINEAR_DK, DkColumns>::bytes,
                  dv_bytes = row_tiles<P, LINEAR_DV, DvColumns>::bytes;
    int dk_tiles = tiles_of(a.feature_panels, DkColumns);
    static_assert((DkColumns == 256) == (DvColumns == 256), "as many rows for both");
    void *arguments[] = {const_cast<linear_arguments *>(&a), nullptr, &dk_tiles};
    return launch({(const void *)keys_kernel<P, F, T, DkColumns, DvColumns, false>,
                   (const void *)keys_kernel<P, F, T, DkColumns, DvColumns, true>},
                  row_tiles<P, LINEAR_DK, DkColumns>::rows,
                  dk_bytes > dv_bytes ? dk_bytes : dv_bytes,
                  dk_tiles + tiles_of(a.value_panels, DvColumns), a.kv_len, a.batch * a.kv_heads,
                  arguments, stream, error);
}

template <typename F, typename T>
enum fb_status choose(enum linear_wide_rows what, const linear_arguments &a, cudaStream_t stream,
                      struct fb_error *error)
{
    const bool features = a.feature_panels > 1, values = a.value_panels > 1;
    if (linear_is_widest(a)) {
        if (what == LINEAR_WIDE_OUT)
            return launch_queries<F, T, LINEAR_OUT, 256>(a, stream, error);
        return what == LINEAR_WIDE_DQ ? launch_queries<F, T, LINEAR_DQ, 256>(a, stream, error)
                                      : launch_keys<F, T, 256, 256>(a, stream, error);
    }
    if (what == LINEAR_WIDE_OUT)
        return values ? launch_queries<F, T, LINEAR_OUT, 128>(a, stream, error)
                      : launch_queries<F, T, LINEAR_OUT, 64>(a, stream, error);
    if (what == LINEAR_WIDE_DQ)
        return features ? launch_queries<F, T, LINEAR_DQ, 128>(a, stream, error)
                        : launch_queries<F, T, LINEAR_DQ, 64>(a, stream, error);
    if (features && values)
        return launch_keys<F, T, 128, 128>(a, stream, error);
    return features ? launch_keys<F, T, 128, 64>(a, stream, error)
                    : launch_keys<F, T, 64, 128>(a, stream, error);
}

} // namespace

enum fb_status linear_cuda_wide(enum fb_dtype features, enum fb_dtype dtype,
                                enum linear_wide_rows what, const linear_arguments &a,
                                cudaStream_t stream, struct fb_error *error)
{
    if (dtype == FB_BF16)
        return choose<__nv_bfloat16, __nv_bfloat16>(what, a, stream, error);
    if (dtype == FB_F32)
        return choose<float, float>(what, a, stream, error);
    if (features == FB_F16)
        return choose<__half, __half>(what, a, stream, error);
    return choose<float, __half>(what, a, stream, error);
}
