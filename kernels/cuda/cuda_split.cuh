/*
 * Panels of f32 whose products are three TF32 products by warpgroups (wgmma, Hopper's sm_90a). A
 * panel has 64 rows and 64 columns: two halves of 32 columns, whose rows of 128 bytes are swizzled
 * as the instruction knows it. The tensor cores leave out the 13 lowest bits of an operand, so a
 * panel of f32 is the high part of its numbers as it is; what they leave out stands in a second
 * panel, rounded to TF32.
 *
 * Right operands have their depth along their rows: wgmma turns no TF32. A turned panel keeps each
 * eight tokens in the order 0 2 4 6 1 3 5 7, so that results in registers are left operands of the
 * next product as they are, and columns of a panel are read without meeting a bank twice.
 *
 * Left operands lie in registers: lane 4 g + t of a warp has of eight columns t and t + 4 of the
 * rows g and g + 8 of the warp's 16. A warpgroup of 128 threads works on a panel.
 */
#ifndef FB_CUDA_SPLIT_CUH
#define FB_CUDA_SPLIT_CUH

#include "cuda_panels.cuh"
#include "cuda_wgmma.cuh"

constexpr int kSplitBytes = kPanel * kPanel * (int)sizeof(float);
constexpr int kSplitHalf = kSplitBytes / 2;
constexpr int kQuads = kPanel / 4;                          /* of four columns, of a row */
constexpr int kQuadsEach = kPanel * kQuads / kPanelThreads; /* that a thread brings in */

/* The thread's number in its warpgroup, and its warp's. */
__device__ inline int split_thread()
{
    return (int)threadIdx.x % kPanelThreads;
}

__device__ inline int split_warp()
{
    return split_thread() / 32;
}

/* Offset of four columns of a row, in bytes. */
__device__ inline uint32_t quad_offset(int row, int quad)
{
    return (uint32_t)(quad / 8 * kSplitHalf + row * kRowBytes + ((quad % 8 ^ row % 8) << 4));
}

__device__ inline float4 &quad_of(char *panel, int row, int quad)
{
    return *reinterpret_cast<float4 *>(panel + quad_offset(row, quad));
}

/* What the tensor cores leave out of a number. */
__device__ inline float low_part(float x)
{
    constexpr uint32_t kept = 0xffffe000U, half = 0x1000U;
    return __uint_as_float(__float_as_uint(x - __uint_as_float(__float_as_uint(x) & kept)) + half);
}

__device__ inline float4 low_part(const float4 &x)
{
    return make_float4(low_part(x.x), low_part(x.y), low_part(x.z), low_part(x.w));
}

/* The thread's quads of a panel: quad threadIdx.x % 16 of the rows split_row(i), i < kQuadsEach. */
__device__ inline int split_row(int i)
{
    return split_thread() / kQuads + kPanelThreads / kQuads * i;
}

/* Brings in the thread's quads, asynchronously; `rows` are whole, zero where nothing exists. */
__device__ inline void start_split(char *to, const panel_rows<float> &from, int first, int part)
{
    const int quad = (int)threadIdx.x % kQuads, col = part * kPanel + 4 * quad;
    const uint32_t panel = shared_address(to);
#pragma unroll
    for (int i = 0; i < kQuadsEach; i++) {
        const int row = first + split_row(i);
        const bool exists = row < from.valid && col < from.dim;
        copy_chunk_async(panel + quad_offset(split_row(i), quad),
                         exists ? from.at(row, col) : from.data, exists);
    }
}

/* Asks for the panel's lines, which a later step reads. */
__device__ inline void expect_panel(const panel_rows<float> &from, int first, int part)
{
    const int row = first + split_thread() / 2, col = part * kPanel + split_thread() % 2 * 32;
    if (row < from.valid && col < from.dim)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(from.at(row, col)));
}

/* map(i, x) changes the thread's i-th quad of a panel; what products leave out goes to `low`. */
template <typename Map> __device__ void finish_split(char *panel, char *low, Map map)
{
    const int quad = (int)threadIdx.x % kQuads;
#pragma unroll
    for (int i = 0; i < kQuadsEach; i++) {
        float4 &place = quad_of(panel, split_row(i), quad);
        float4 x = place;
        if (map(i, x))
            place = x;
        if (low != nullptr)
            quad_of(low, split_row(i), quad) = low_part(x);
    }
}

/* Of a panel that is brought in turned a thread has one column and 32 rows. */
constexpr int kTurnedEach = kPanelCount / kPanelThreads;
struct turned_column {
    float x[kTurnedEach];
    __device__ static int col()
    {
        return (int)threadIdx.x % kPanel;
    }
    __device__ static int row(int i)
    {
        return split_thread() / kPanel * kTurnedEach + i;
    }
    /* of the panel whose first number is given, the first `valid` rows */
    __device__ void load(const float *from, int64_t stride, int valid)
    {
        const float *at = from + row(0) * stride + col();
#pragma unroll
        for (int i = 0; i < kTurnedEach; i++)
            x[i] = row(i) < valid ? at[i * stride] : 0.0F;
    }
    __device__ void load(const panel_rows<float> &from, int first, int part)
    {
        const bool exists = part * kPanel + col() < from.dim;
        load(from.data + first * from.stride + part * kPanel, from.stride,
             exists ? from.valid - first : 0);
    }
    /* of a panel in shared memory */
    __device__ void take(char *panel)
    {
#pragma unroll
        for (int i = 0; i < kTurnedEach; i++)
            x[i] = reinterpret_cast<const float *>(&quad_of(panel, row(i), col() / 4))[col() % 4];
    }
    /* low NULL: the panel alone, for left operands */
    __device__ void store(char *panel, char *low) const
    {
#pragma unroll
        for (int i = 0; i < kTurnedEach; i += 8) {
            const float4 even = make_float4(x[i], x[i + 2], x[i + 4], x[i + 6]);
            const float4 odd = make_float4(x[i + 1], x[i + 3], x[i + 5], x[i + 7]);
            const int quad = row(i) / 4;
            quad_of(panel, col(), quad) = even;
            quad_of(panel, col(), quad + 1) = odd;
            if (low == nullptr)
                continue;
            quad_of(low, col(), quad) = low_part(even);
            quad_of(low, col(), quad + 1) = low_part(odd);
        }
    }
};

/* Where a lane finds the columns of its strip in a panel whose rows are the depth, and where it
 * puts results turned: row 8 n + 2 t + odd, column strip + g + 8 block. Mixed: of panels whose
 * columns are in the order of turned panels, too. */
template <bool Mixed> struct turned_places_of {
    uint32_t at[2][2]; /* [odd][block] */
    __device__ turned_places_of()
    {
        const int lane = (int)threadIdx.x % 32, warp = split_warp();
        const int g = lane / 4, t = lane % 4;
#pragma unroll
        for (int odd = 0; odd < 2; odd++)
#pragma unroll
            for (int block = 0; block < 2; block++) {
                const int col = 16 * warp + g + 8 * block;
                const int place = Mixed ? col / 8 * 8 + col % 8 / 2 + col % 2 * 4 : col;
                at[odd][block] = quad_offset(2 * t + odd, place / 4) + (uint32_t)(place % 4 * 4);
            }
    }
    __device__ float &in(char *panel, int n, int odd, int block) const
    {
        return *reinterpret_cast<float *>(panel + at[odd][block] + n * 8 * kRowBytes);
    }
};
typedef turned_places_of<false> turned_places;

/* A left operand, 8 `Steps` deep from the step `first` on. */
template <int Steps> struct split_operand_of {
    uint32_t high[Steps][4], low[Steps][4];
    __device__ void put(int step, int i, float x)
    {
        high[step][i] = __float_as_uint(x);
        low[step][i] = __float_as_uint(low_part(x));
    }
    __device__ float at(int step, int i) const
    {
        return __uint_as_float(high[step][i]);
    }
    /* the warp's rows of a panel */
    __device__ void load(const char *panel, int first = 0)
    {
        const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const char *row = panel + (split_warp() * 16 + g) * kRowBytes + 4 * t;
#pragma unroll
        for (int k = 0; k < 2 * Steps; k++) {
            const int quad = 2 * first + k;
            const char *from = row + quad / 8 * kSplitHalf + ((quad % 8 << 4) ^ (g << 4));
#pragma unroll
            for (int i = 0; i < 2; i++)
                put(k / 2, k % 2 * 2 + i,
                    *reinterpret_cast<const float *>(from + i * 8 * kRowBytes));
        }
    }
    /* the warp's columns as rows, in the order of turned panels */
    template <bool Mixed>
    __device__ void load_turned(char *panel, const turned_places_of<Mixed> &places, int first = 0)
    {
#pragma unroll
        for (int step = 0; step < Steps; step++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                put(step, i, places.in(panel, first + step, i / 2, i % 2));
    }
    /* a result, in the order of turned panels */
    __device__ void take(const strip_result &c, int first = 0)
    {
#pragma unroll
        for (int n = 0; n < Steps; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                put(n, i, c[first + n][i % 2 * 2 + i / 2]);
    }
    /* All of it is there before the products begin: else the compiler computes the next part
     * between two of them, and lets each wait for the one before. */
    __device__ void hold()
    {
#pragma unroll
        for (int step = 0; step < Steps; step++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                asm volatile("" : "+r"(high[step][i]), "+r"(low[step][i])::"memory");
    }
};
typedef split_operand_of<8> split_operand;

#if FB_HAVE_WGMMA

/* c[64][64] += a[64][8] b[64][8]^T, a in registers. */
__device__ inline void wgmma_tf32(strip_result &c, const uint32_t (&a)[4], uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k8.f32.tf32.tf32 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "
                 "%31}, {%32, %33, %34, %35}, %36, 1, 1, 1;"
                 : FB_WGMMA_C4(0), FB_WGMMA_C4(4)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

/* A panel as right operand, from the columns of a step on: eight are 32 bytes. */
__device__ inline uint64_t split_step(uint64_t panel, int step)
{
    return panel + (uint64_t)(step / 4 * (kSplitHalf / 16) + step % 4 * 2);
}

/* c += a b^T, b from the step `first` on, small terms first; under way after. */
template <int Steps>
__device__ void begin_split_steps(strip_result &c, const split_operand_of<Steps> &a, uint64_t b,
                                  uint64_t b_low, int first = 0)
{
#pragma unroll
    for (int s = 0; s < Steps; s++)
        wgmma_tf32(c, a.low[s], split_step(b, first + s));
#pragma unroll
    for (int s = 0; s < Steps; s++)
        wgmma_tf32(c, a.high[s], split_step(b_low, first + s));
#pragma unroll
    for (int s = 0; s < Steps; s++)
        wgmma_tf32(c, a.high[s], split_step(b, first + s));
}

__device__ inline uint64_t split_tile(const char *panel)
{
    return wgmma_tile(shared_address(panel));
}

/* c += a b^T, likewise, and there after */
template <int Steps>
__device__ void multiply_split(strip_result &c, split_operand_of<Steps> &a, const char *b,
                               const char *b_low, int first = 0)
{
    a.hold();
    wgmma_hold(c);
    wgmma_begin();
    begin_split_steps(c, a, split_tile(b), split_tile(b_low), first);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(c);
}

/* c += a b^T by halves, for want of registers; fill(half, first) loads the left operand. */
template <typename Fill>
__device__ void multiply_split_halves(strip_result &c, const char *b, const char *b_low, Fill fill)
{
#pragma unroll
    for (int first = 0; first < 8; first += 4) {
        split_operand_of<4> half;
        fill(half, first);
        multiply_split(c, half, b, b_low, first);
    }
}

#endif
#endif
