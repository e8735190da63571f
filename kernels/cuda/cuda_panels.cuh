/*
 * Panels: 64 x 64 numbers in shared memory and their products on the tensor cores, one code for
 * every dtype. A block has 128 threads; each of its four warps owns a strip of 16 rows of a result,
 * whose elements lie in registers as c[8][4]: lane 4 g + t has of the columns 8 n + 2 t and 8 n + 2
 * t + 1 row g in c[n][0..1] and row g + 8 in c[n][2..3]. Wider matrices are cut into panels.
 *
 * Arithmetic, by the dtype of the problem (cuda_tile.cuh has the reasons):
 *   bf16  panels of bf16, swizzled for ldmatrix; products m16n8k16
 *   f16   panels of f32, TF32 products
 *   f32   panels of f32, three TF32 products for one
 */
#ifndef FB_CUDA_PANELS_CUH
#define FB_CUDA_PANELS_CUH

#include "cuda_fragments.cuh"

constexpr int kPanel = 64;
constexpr int kPanelThreads = 128;
constexpr int kPanelCount = kPanel * kPanel;

typedef float strip_result[8][4];

__device__ inline void clear(strip_result &c)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            c[n][i] = 0.0F;
}

/* Visits the thread's elements of a result in pairs of columns: see(row, col, first, second). */
template <typename See> __device__ void each_pair(strip_result &c, int strip, See see)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            see(strip + g + 8 * half, 8 * n + 2 * t, c[n][2 * half], c[n][2 * half + 1]);
}

/* ---- bf16 ------------------------------------------------------------------------------------ */

struct panel_bf16 {
    static constexpr int element_bytes = 2;
    static constexpr int bytes = kPanel * kRowBytes;
    static constexpr bool wide_sums =
        false; /* sums over many panels may stay in the tensor cores */

    __device__ static float power(float x) /* e to the x */
    {
        return __expf(x);
    }
    __device__ static void put8(char *panel, int row, int chunk, const float (&x)[8])
    {
        uint4 bits;
        bits.x = pack_bf16(x[0], x[1]);
        bits.y = pack_bf16(x[2], x[3]);
        bits.z = pack_bf16(x[4], x[5]);
        bits.w = pack_bf16(x[6], x[7]);
        *reinterpret_cast<uint4 *>(panel + chunk_offset(row, chunk)) = bits;
    }
    __device__ static void get8(const char *panel, int row, int chunk, float (&x)[8])
    {
        const uint4 bits = *reinterpret_cast<const uint4 *>(panel + chunk_offset(row, chunk));
        const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[2 * i] = bf16_low(pairs[i]);
            x[2 * i + 1] = bf16_high(pairs[i]);
        }
    }
    /* as a product takes them */
    __device__ static void round8(float (&x)[8])
    {
#pragma unroll
        for (int i = 0; i < 8; i += 2) {
            const uint32_t pair = pack_bf16(x[i], x[i + 1]);
            x[i] = bf16_low(pair);
            x[i + 1] = bf16_high(pair);
        }
    }
    __device__ static uint32_t address(char *panel, int row, int chunk)
    {
        return shared_address(panel) + chunk_offset(row, chunk);
    }
    __device__ static void put1(char *panel, int row, int col, float x)
    {
        char *chunk = panel + chunk_offset(row, col / 8);
        reinterpret_cast<__nv_bfloat16 *>(chunk)[col % 8] = __float2bfloat16_rn(x);
    }
    __device__ static void put2(char *panel, int row, int col, float x, float y)
    {
        char *chunk = panel + chunk_offset(row, col / 8);
        *reinterpret_cast<uint32_t *>(chunk + col % 8 * 2) = pack_bf16(x, y);
    }
    /* c += a b, the strip's rows of a */
    __device__ static void multiply_straight(strip_result &c, const char *a, int strip,
                                             const char *b)
    {
        const lane_places at;
        const uint32_t left = shared_address(a) + (uint32_t)(strip * kRowBytes);
        const uint32_t right = shared_address(b);
#pragma unroll
        for (int step = 0; step < 4; step++) {
            uint32_t x[4];
            load_a(x, left, at, step);
            add_rows(c, x, right + (uint32_t)(step * 16 * kRowBytes), at);
        }
    }
    /* c += a b^T */
    __device__ static void multiply_turned(strip_result &c, const char *a, int strip, const char *b)
    {
        const lane_places at;
        const uint32_t left = shared_address(a) + (uint32_t)(strip * kRowBytes);
        const uint32_t right = shared_address(b);
#pragma unroll
        for (int step = 0; step < 4; step++) {
            uint32_t x[4];
            load_a(x, left, at, step);
#pragma unroll
            for (int block = 0; block < 4; block++) {
                uint32_t y[4];
                load_b_turned(y, right + (uint32_t)(block * 16 * kRowBytes), at, step);
                multiply(c[2 * block], x, y[0], y[1]);
                multiply(c[2 * block + 1], x, y[2], y[3]);
            }
        }
    }
    /* c += a^T b, the strip's columns of a */
    __device__ static void multiply_outer(strip_result &c, const char *a, int strip, const char *b)
    {
        const lane_places at;
        const uint32_t left = shared_address(a), right = shared_address(b);
#pragma unroll
        for (int step = 0; step < 4; step++) {
            uint32_t x[4];
            load_a_turned(x, left + (uint32_t)(step * 16 * kRowBytes), at, strip / 16);
            add_rows(c, x, right + (uint32_t)(step * 16 * kRowBytes), at);
        }
    }

  private:
    __device__ static void add_rows(strip_result &c, const uint32_t (&x)[4], uint32_t rows,
                                    const lane_places &at)
    {
#pragma unroll
        for (int block = 0; block < 4; block++) {
            uint32_t y[4];
            load_b(y, rows, at, block);
            multiply(c[2 * block], x, y[0], y[1]);
            multiply(c[2 * block + 1], x, y[2], y[3]);
        }
    }
};

/* ---- f32 and f16 ----------------------------------------------------------------------------- */

/* Rows 4 beyond a multiple of 32 apart suit products along rows, 8 beyond those along columns. */
template <tile_products P, int Ld = kPanel + 4> struct panel_f32 {
    static constexpr int element_bytes = 4;
    static constexpr int ld = Ld;
    static constexpr int bytes = kPanel * ld * (int)sizeof(float);
    static constexpr bool wide_sums = true;

    __device__ static float power(float x)
    {
        return expf(x);
    }
    __device__ static void round8(float (&x)[8])
    {
        if constexpr (P == tile_products::tf32)
#pragma unroll
            for (int i = 0; i < 8; i++)
                x[i] = __uint_as_float(round_tf32(x[i]));
    }
    __device__ static uint32_t address(char *panel, int row, int chunk)
    {
        return shared_address(place(panel, row, 8 * chunk));
    }
    __device__ static float *place(char *panel, int row, int col)
    {
        return reinterpret_cast<float *>(panel) + row * ld + col;
    }
    __device__ static const float *place(const char *panel, int row, int col)
    {
        return reinterpret_cast<const float *>(panel) + row * ld + col;
    }
    __device__ static void put8(char *panel, int row, int chunk, const float (&x)[8])
    {
        float4 *to = reinterpret_cast<float4 *>(place(panel, row, 8 * chunk));
        to[0] = make_float4(x[0], x[1], x[2], x[3]);
        to[1] = make_float4(x[4], x[5], x[6], x[7]);
    }
    __device__ static void get8(const char *panel, int row, int chunk, float (&x)[8])
    {
        const float4 *from = reinterpret_cast<const float4 *>(place(panel, row, 8 * chunk));
        const float4 low = from[0], high = from[1];
        x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
        x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
    }
    __device__ static void put1(char *panel, int row, int col, float x)
    {
        *place(panel, row, col) = x;
    }
    __device__ static void put2(char *panel, int row, int col, float x, float y)
    {
        *reinterpret_cast<float2 *>(place(panel, row, col)) = make_float2(x, y);
    }
    __device__ static void multiply_straight(strip_result &c, const char *a, int strip,
                                             const char *b)
    {
        product(c, operand{place(a, 0, 0), ld, 1}, strip, operand{place(b, 0, 0), ld, 1});
    }
    __device__ static void multiply_turned(strip_result &c, const char *a, int strip, const char *b)
    {
        product(c, operand{place(a, 0, 0), ld, 1}, strip, operand{place(b, 0, 0), 1, ld});
    }
    __device__ static void multiply_outer(strip_result &c, const char *a, int strip, const char *b)
    {
        product(c, operand{place(a, 0, 0), 1, ld}, strip, operand{place(b, 0, 0), ld, 1});
    }

  private:
    __device__ static void product(strip_result &c, const operand &a, int strip, const operand &b)
    {
        warp_product<P>(c, a, strip, b, 0, kPanel);
    }
};

template <typename T> struct panel_of;
template <> struct panel_of<__nv_bfloat16> {
    typedef panel_bf16 type;
};
template <> struct panel_of<__half> {
    typedef panel_f32<tile_products::tf32> type;
};
template <> struct panel_of<float> {
    typedef panel_f32<tile_products::tf32x3> type;
};

/* Panels whose rows are the depth of products on both sides. */
template <typename T> struct outer_panel_of {
    typedef panel_bf16 type;
};
template <> struct outer_panel_of<__half> {
    typedef panel_f32<tile_products::tf32, kPanel + 8> type;
};
template <> struct outer_panel_of<float> {
    typedef panel_f32<tile_products::tf32x3, kPanel + 8> type;
};

/* ---- between global memory and panels -------------------------------------------------------- */

/* A tensor as kernels see it; whole: its rows consist of whole chunks of eight numbers. */
struct panel_tensor {
    tensor_view view;
    int dim;
    bool whole;
};

static inline panel_tensor panel_tensor_of(const struct fb_tensor &t)
{
    panel_tensor x;
    x.view = view_of(t);
    x.dim = (int)t.shape[3];
    x.whole = x.dim % 8 == 0 && reinterpret_cast<uintptr_t>(t.data) % 16 == 0 &&
              t.stride[0] % 8 == 0 && t.stride[1] % 8 == 0 && t.stride[2] % 8 == 0;
    return x;
}

template <typename T> struct alignas(16) packet {
    T x[8];
};

/* Rows of one head: the first `valid` exist, the others read as zero. */
template <typename T> struct panel_rows {
    T *data;
    int64_t stride;
    int dim, valid;
    bool whole;
    __device__ panel_rows(const panel_tensor &t, int64_t b, int64_t h, int count)
        : data(static_cast<T *>(t.view.data) + b * t.view.stride_b + h * t.view.stride_h),
          stride(t.view.stride_n), dim(t.dim), valid(count), whole(t.whole)
    {
    }
    __device__ T *at(int row, int col) const
    {
        return data + row * stride + col;
    }
};

/* Of a panel a thread has so many rows; the i-th of them. Blocks may have more threads than a panel
 * needs. */
template <int Threads> constexpr int kRowsEach = kPanel * 8 / Threads;

template <int Threads = kPanelThreads> __device__ int panel_row(int i)
{
    return (int)threadIdx.x / 8 + Threads / 8 * i;
}

/* Eight numbers of a row, zero where nothing exists. */
template <typename T> __device__ packet<T> fetch_packet(const panel_rows<T> &from, int row, int col)
{
    packet<T> bits = {};
    if (from.whole && row < from.valid && col < from.dim)
        bits = *reinterpret_cast<const packet<T> *>(from.at(row, col));
    if (!from.whole && row < from.valid)
#pragma unroll
        for (int e = 0; e < 8; e++)
            if (col + e < from.dim)
                bits.x[e] = *from.at(row, col + e);
    return bits;
}

template <typename T>
__device__ void fetch_chunk(const panel_rows<T> &from, int row, int col, float (&x)[8])
{
    const packet<T> bits = fetch_packet(from, row, col);
#pragma unroll
    for (int e = 0; e < 8; e++)
        x[e] = to_f32(bits.x[e]);
}

/* Eight numbers to a row, as far as it goes. */
template <typename T>
__device__ void store_chunk(const panel_rows<T> &to, int row, int col, const float (&x)[8])
{
    if (to.whole) {
        packet<T> bits;
#pragma unroll
        for (int e = 0; e < 8; e++)
            bits.x[e] = from_f32<T>(x[e]);
        if (col < to.dim)
            *reinterpret_cast<packet<T> *>(to.at(row, col)) = bits;
    } else {
#pragma unroll
        for (int e = 0; e < 8; e++)
            if (col + e < to.dim)
                *to.at(row, col + e) = from_f32<T>(x[e]);
    }
}

/*
 * A panel on its way: 64 rows from `first`, columns from 64 `part`, zero where nothing exists. A
 * thread brings chunk thread % 8 of the rows panel_row(i), asynchronously where rows consist of
 * whole chunks of the panel's own type; after wait_copies it may change what it has brought by
 * finish_panel, and after a barrier everybody sees it.
 */
template <typename P, int Threads = kPanelThreads, typename T>
__device__ void start_panel(char *to, const panel_rows<T> &from, int first, int part)
{
    const int chunk = (int)threadIdx.x % 8, col = part * kPanel + 8 * chunk;
#pragma unroll
    for (int i = 0; i < kRowsEach<Threads>; i++) {
        const int row = first + panel_row<Threads>(i);
        if (sizeof(T) == P::element_bytes && from.whole) {
            const bool exists = row < from.valid && col < from.dim;
            const char *at = reinterpret_cast<const char *>(exists ? from.at(row, col) : from.data);
#pragma unroll
            for (int k = 0; k < P::element_bytes / 2; k++)
                copy_chunk_async(P::address(to, panel_row<Threads>(i), chunk) + 16 * k, at + 16 * k,
                                 exists);
        } else {
            float x[8];
            fetch_chunk(from, row, col, x);
            P::put8(to, panel_row<Threads>(i), chunk, x);
        }
    }
}

/* map(i, x) changes eight numbers of the thread's i-th row if that exists; see(i, x) sees them as
 * products will, with all lanes of the warp together. */
template <typename P, int Threads = kPanelThreads, typename T, typename Map, typename See>
__device__ void finish_panel(char *panel, const panel_rows<T> &from, int first, int part, Map map,
                             See see)
{
    const int chunk = (int)threadIdx.x % 8;
    const int left = from.dim - part * kPanel - 8 * chunk;
#pragma unroll
    for (int i = 0; i < kRowsEach<Threads>; i++) {
        float x[8];
        P::get8(panel, panel_row<Threads>(i), chunk, x);
        if (first + panel_row<Threads>(i) < from.valid && left > 0) {
            map(i, x);
            if (left < 8)
#pragma unroll
                for (int e = 0; e < 8; e++)
                    x[e] = e < left ? x[e] : 0.0F;
            P::put8(panel, panel_row<Threads>(i), chunk, x);
        }
        P::round8(x);
        see(i, x);
    }
}

/* Sees the thread's part of a panel that stays as it is. */
template <typename P, typename See> __device__ void see_panel(const char *panel, See see)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float x[8];
        P::get8(panel, panel_row(i), (int)threadIdx.x % 8, x);
        P::round8(x);
        see(i, x);
    }
}

/* The strip of a panel to `count` rows of global memory from `first`, by its warp, which must be in
 * step. map(row of the head, column, x) changes eight numbers on their way. */
template <typename P, typename T, typename Map>
__device__ void write_strip(const char *panel, int strip, const panel_rows<T> &to, int first,
                            int count, int part, Map map)
{
    const int lane = threadIdx.x % 32, chunk = lane % 8, col = part * kPanel + 8 * chunk;
#pragma unroll
    for (int i = lane / 8; i < 16; i += 4) {
        const int row = first + strip + i;
        if (row >= count || col >= to.dim)
            continue;
        float x[8];
        P::get8(panel, strip + i, chunk, x);
        map(row, col, x);
        store_chunk(to, row, col, x);
    }
}

/* The strip's own rows of a panel, which its warp alone may have read; the warp is in step after.
 */
template <typename P> __device__ void put_strip(char *panel, int strip, strip_result &c)
{
    __syncwarp();
    each_pair(c, strip,
              [&](int row, int col, float x, float y) { P::put2(panel, row, col, x, y); });
    __syncwarp();
}

/* 64 x 64 floats of global memory into a panel, turned or not. */
template <typename P> __device__ void load_panel(char *to, const float *from, bool turned)
{
    const int chunk = (int)threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = (int)threadIdx.x / 8 + 16 * i;
        float x[8];
#pragma unroll
        for (int e = 0; e < 8; e++)
            x[e] = from[row * kPanel + 8 * chunk + e];
        if (!turned) {
            P::put8(to, row, chunk, x);
            continue;
        }
#pragma unroll
        for (int e = 0; e < 8; e++)
            P::put1(to, 8 * chunk + e, row, x[e]);
    }
}

/* The sum over a row's eight lanes, in all of them. */
__device__ inline float sum_of_eight(float x)
{
    x += __shfl_xor_sync(0xffffffffU, x, 1);
    x += __shfl_xor_sync(0xffffffffU, x, 2);
    return x + __shfl_xor_sync(0xffffffffU, x, 4);
}

/* The sum over the lanes that share a row, a power of two of them. */
template <int Lanes> __device__ float sum_of_lanes(float x)
{
#pragma unroll
    for (int step = 1; step < Lanes; step *= 2)
        x += __shfl_xor_sync(0xffffffffU, x, step);
    return x;
}

/* The sum over the four lanes that share a row of a result. */
__device__ inline float sum_of_four(float x)
{
    x += __shfl_xor_sync(0xffffffffU, x, 1);
    return x + __shfl_xor_sync(0xffffffffU, x, 2);
}

#endif
