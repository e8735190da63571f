/*
 * Products of wide heads: tiles of 64 or 128 rows by 64, 128 or 256 columns, the depth coming in
 * steps through three stages of shared memory. The block's warps (eight, sixteen for 256 columns)
 * stand in a grid over the tile, each with 32 rows and 32 or 64 columns in registers as
 * c[2][Blocks][4] (lane 4 g
 * + t has of rows 16 m and columns 8 n what cuda_panels.cuh says).
 *
 * A tile in shared memory is deep when its rows are rows (columns) of the result and its columns
 * the depth, flat when its rows are the depth. Arithmetic is that of panels, chosen by P.
 */
#ifndef FB_LINEAR_CUDA_WIDE_CUH
#define FB_LINEAR_CUDA_WIDE_CUH

#include "linear_cuda.cuh"

constexpr int kWideRows = 128;

constexpr int kWideThreads = 256;

/* Whether tiles of 256 columns serve a problem: what is done to an operand on its way is then done
 * once. */
static inline bool linear_is_widest(const linear_arguments &a)
{
    return a.feature_panels > 2 && a.value_panels > 2;
}

template <typename P> constexpr int wide_depth()
{
    return P::element_bytes == 2 ? 64 : 32;
}

/* A tile of Rows x Columns as it lies in shared memory: bf16 in swizzled panels of 64 columns, f32
 * in rows whose distance keeps the fragments of a product in different banks. */
template <typename P, int Rows, int Columns, int Threads> struct wide_tile {
    static constexpr int rows = Rows, columns = Columns;
    static constexpr int chunks = Columns / 8; /* of a row */
    static constexpr int own =
        (Rows * Columns / 8 + Threads - 1) / Threads;                  /* chunks of a thread */
    static constexpr bool all_own = Rows * Columns / 8 % Threads == 0; /* else some have none */
    static constexpr bool is_bf16 = P::element_bytes == 2;
    static constexpr int ld = Columns == 32 ? 36 : Columns + 8; /* f32 */
    static constexpr int bytes = is_bf16 ? Rows * Columns * 2 : Rows * ld * 4;

    __device__ static char *at(char *tile, int row, int chunk)
    {
        if constexpr (is_bf16)
            return tile + chunk / 8 * (Rows * kRowBytes) + chunk_offset(row, chunk % 8);
        else
            return tile + (row * ld + 8 * chunk) * 4;
    }
    __device__ static int own_row(int i)
    {
        return ((int)threadIdx.x + i * Threads) / chunks;
    }
    __device__ static int own_chunk() /* the same in every row */
    {
        static_assert(Threads % chunks == 0, "a thread keeps its columns");
        return (int)threadIdx.x % chunks;
    }
    __device__ static void put(char *tile, int row, int chunk, const float (&x)[8])
    {
        char *to = at(tile, row, chunk);
        if constexpr (is_bf16) {
            *reinterpret_cast<uint4 *>(to) =
                make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]),
                           pack_bf16(x[6], x[7]));
        } else {
            reinterpret_cast<float4 *>(to)[0] = make_float4(x[0], x[1], x[2], x[3]);
            reinterpret_cast<float4 *>(to)[1] = make_float4(x[4], x[5], x[6], x[7]);
        }
    }
    __device__ static void get(char *tile, int row, int chunk, float (&x)[8])
    {
        const char *from = at(tile, row, chunk);
        if constexpr (is_bf16) {
            const uint4 bits = *reinterpret_cast<const uint4 *>(from);
            const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                x[2 * i] = bf16_low(pairs[i]);
                x[2 * i + 1] = bf16_high(pairs[i]);
            }
        } else {
            const float4 low = reinterpret_cast<const float4 *>(from)[0];
            const float4 high = reinterpret_cast<const float4 *>(from)[1];
            x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
            x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
        }
    }
    /* The thread's chunks of the rows from first_row, columns from first_col, on their way; zero
     * where nothing exists. */
    template <typename T>
    __device__ static void start(char *tile, const panel_rows<T> &from, int first_row,
                                 int first_col)
    {
        const int chunk = own_chunk(), col = first_col + 8 * chunk;
#pragma unroll
        for (int i = 0; i < own; i++) {
            const int row = own_row(i), global = first_row + row;
            if (!all_own && row >= Rows)
                continue;
            if (sizeof(T) == P::element_bytes && from.whole) {
                const bool exists = global < from.valid && col < from.dim;
                const char *source =
                    reinterpret_cast<const char *>(exists ? from.at(global, col) : from.data);
                const uint32_t to = shared_address(at(tile, row, chunk));
#pragma unroll
                for (int k = 0; k < P::element_bytes / 2; k++)
                    copy_chunk_async(to + 16 * k, source + 16 * k, exists);
            } else {
                float x[8];
                fetch_chunk(from, global, col, x);
                put(tile, row, chunk, x);
            }
        }
    }
    /* Changes what the thread has brought: map(i, x) where it exists; see(i, x) as products see it.
     */
    template <typename T, typename Map, typename See>
    __device__ static void finish(char *tile, const panel_rows<T> &from, int first_row,
                                  int first_col, Map map, See see)
    {
        const int chunk = own_chunk(), left = from.dim - first_col - 8 * chunk;
#pragma unroll
        for (int i = 0; i < own; i++) {
            const int row = own_row(i);
            if (!all_own && row >= Rows)
                continue;
            float x[8];
            get(tile, row, chunk, x);
            if (first_row + row < from.valid && left > 0) {
                map(i, x);
                if (left < 8)
#pragma unroll
                    for (int e = 0; e < 8; e++)
                        x[e] = e < left ? x[e] : 0.0F;
                put(tile, row, chunk, x);
            }
            P::round8(x);
            see(i, x);
        }
    }
};

/* ---- products -------------------------------------------------------------------------------- */

enum class wide_sides { rows, rows_turned, sums }; /* which tiles are deep: a; a and b; none */

template <int Blocks> __device__ void clear(float (&c)[2][Blocks][4])
{
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < Blocks; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                c[m][n][i] = 0.0F;
}

/* c += a b over one stage, f32: a from row `row` of the result, b from column `col`. */
template <wide_sides Sides, tile_products Products, int Blocks, typename A, typename B>
__device__ void multiply_f32(float (&c)[2][Blocks][4], const float *a, int row, const float *b,
                             int col)
{
    constexpr bool a_deep = Sides != wide_sides::sums, b_deep = Sides == wide_sides::rows_turned;
    constexpr int a_row = a_deep ? A::ld : 1, a_step = a_deep ? 1 : A::ld;
    constexpr int b_col = b_deep ? B::ld : 1, b_step = b_deep ? 1 : B::ld;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const float *left = a + (row + g) * a_row + t * a_step;
    const float *right = b + (col + g) * b_col + t * b_step;
#pragma unroll
    for (int k = 0; k < 32; k += 8) {
        uint32_t x[2][4], x_low[2][4];
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const tf32_parts<Products> h(
                    left[(16 * m + i % 2 * 8) * a_row + (k + i / 2 * 4) * a_step]);
                x[m][i] = h.high;
                x_low[m][i] = h.low;
            }
            /* four blocks at a time: a product waits for the one before it on the same sums */
#pragma unroll
        for (int first = 0; first < Blocks; first += 4) {
            uint32_t y[4][2], y_low[4][2];
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const tf32_parts<Products> h(
                        right[8 * (first + n) * b_col + (k + 4 * i) * b_step]);
                    y[n][i] = h.high;
                    y_low[n][i] = h.low;
                }
            if constexpr (Products == tile_products::tf32x3) {
#pragma unroll
                for (int n = 0; n < 8; n++)
                    mma_tf32(c[n % 2][first + n / 2], x_low[n % 2], y[n / 2]);
#pragma unroll
                for (int n = 0; n < 8; n++)
                    mma_tf32(c[n % 2][first + n / 2], x[n % 2], y_low[n / 2]);
            }
#pragma unroll
            for (int n = 0; n < 8; n++)
                mma_tf32(c[n % 2][first + n / 2], x[n % 2], y[n / 2]);
        }
    }
}

/* likewise, bf16 */
template <wide_sides Sides, int Blocks, typename A, typename B>
__device__ void multiply_bf16(float (&c)[2][Blocks][4], const char *a, int row, const char *b,
                              int col)
{
    const lane_places at;
    const uint32_t left = shared_address(a), right = shared_address(b);
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint32_t x[2][4];
#pragma unroll
        for (int m = 0; m < 2; m++) {
            const int r = row + 16 * m;
            if constexpr (Sides == wide_sides::sums)
                load_a_turned(x[m], left + (uint32_t)((r / 64 * A::rows + step * 16) * kRowBytes),
                              at, r % 64 / 16);
            else
                load_a(x[m], left + (uint32_t)(r * kRowBytes), at, step);
        }
#pragma unroll
        for (int n = 0; n < Blocks / 2; n++) {
            const int k = col + 16 * n;
            uint32_t y[4];
            if constexpr (Sides == wide_sides::rows_turned)
                load_b_turned(y, right + (uint32_t)(k * kRowBytes), at, step);
            else
                load_b(y, right + (uint32_t)((k / 64 * B::rows + step * 16) * kRowBytes), at,
                       k % 64 / 16);
#pragma unroll
            for (int m = 0; m < 2; m++) {
                multiply(c[m][2 * n], x[m], y[0], y[1]);
                multiply(c[m][2 * n + 1], x[m], y[2], y[3]);
            }
        }
    }
}

template <typename P> struct wide_products;
template <> struct wide_products<panel_bf16> {
    static constexpr tile_products how = tile_products::bf16;
};
template <tile_products Products> struct wide_products<panel_f32<Products>> {
    static constexpr tile_products how = Products;
};

template <wide_sides Sides, typename P, typename A, typename B, int Blocks>
__device__ void wide_multiply(float (&c)[2][Blocks][4], const char *a, int row, const char *b,
                              int col)
{
    if constexpr (P::element_bytes == 2)
        multiply_bf16<Sides, Blocks, A, B>(c, a, row, b, col);
    else
        multiply_f32<Sides, wide_products<P>::how, Blocks, A, B>(
            c, reinterpret_cast<const float *>(a), row, reinterpret_cast<const float *>(b), col);
}

/* Visits the warp's elements in pairs of columns: see(row of the tile, column, first, second). */
template <int Blocks, typename See>
__device__ void wide_each_pair(float (&c)[2][Blocks][4], int row, int col, See see)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < Blocks; n++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                see(row + 16 * m + 8 * half + g, col + 8 * n + 2 * t, c[m][n][2 * half],
                    c[m][n][2 * half + 1]);
}

/* ---- states ---------------------------------------------------------------------------------- */

/* The totals of wide heads: features as rows, values as columns, as products take them (bf16 for
 * bf16), in the place of as many floats; the sums of features behind them. */
template <typename P> struct wide_state;
template <> struct wide_state<panel_bf16> {
    typedef __nv_bfloat16 type;
};
template <tile_products Products> struct wide_state<panel_f32<Products>> {
    typedef float type;
};

template <typename S>
__device__ panel_rows<S> wide_state_rows(const linear_arguments &a, const float *total)
{
    panel_tensor t = {};
    t.view.data = const_cast<float *>(total);
    t.view.stride_n = a.value_panels * kPanel;
    t.dim = a.value_panels * kPanel;
    t.whole = true;
    return panel_rows<S>(t, 0, 0, a.feature_panels * kPanel);
}

#endif
