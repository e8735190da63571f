/*
 * Tiles of bf16 or f16 in shared memory and their fragments, for the kernels that are tuned for
 * them; what names no type takes bf16. A tile
 * has 64 columns: a row is 128 bytes, eight chunks of 16, and chunk c of row r lies at place
 * c ^ (r % 8), so that eight rows of one chunk, which is what ldmatrix reads, meet no bank twice.
 *
 * Names of fragments follow the PTX manual for m16n8k16: lane = 4 g + t; a thread holds of the
 * result the rows g and g + 8, columns 2 t and 2 t + 1.
 */
#ifndef FB_CUDA_FRAGMENTS_CUH
#define FB_CUDA_FRAGMENTS_CUH

#include "cuda_pairs.cuh"

constexpr int kRowBytes = 128;

__device__ inline uint32_t shared_address(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

/* Offset of a chunk in a tile, in bytes. */
__device__ inline uint32_t chunk_offset(int row, int chunk)
{
    return (uint32_t)(row * kRowBytes + ((chunk ^ (row & 7)) << 4));
}

__device__ inline void copy_chunk_async(uint32_t to, const void *from, bool valid)
{
    const int bytes = valid ? 16 : 0; /* the rest becomes zero */
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

__device__ inline void commit_copies()
{
    asm volatile("cp.async.commit_group;");
}

template <int Pending> __device__ void wait_copies()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending));
}

__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
}

__device__ inline void load_matrices_turned(uint32_t (&r)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
}

/*
 * Where a lane reads. Rows of a strip start at multiples of 16, so a chunk's place is an exclusive
 * or with the lane's own offset: address = tile + row * kRowBytes + (offset ^ chunks).
 */
struct lane_places {
    uint32_t straight, turned, result;
    __device__ explicit lane_places(int lane = (int)(threadIdx.x % 32))
    {
        const int matrix = lane / 8;
        straight = chunk_offset(lane % 16, lane / 16);
        turned = chunk_offset(lane % 8 + matrix / 2 * 8, matrix % 2);
        result = chunk_offset(lane / 4, 0) + (uint32_t)(4 * (lane % 4));
    }
};

/* a: 16 rows of the strip at the address, 16 columns from 16 `step`. */
__device__ inline void load_a(uint32_t (&a)[4], uint32_t strip, const lane_places &at, int step)
{
    load_matrices(a, strip + (at.straight ^ (uint32_t)(step << 5)));
}

/* a turned: 16 columns of the strip from 16 `block` as rows, its 16 rows as columns. */
__device__ inline void load_a_turned(uint32_t (&a)[4], uint32_t strip, const lane_places &at,
                                     int block)
{
    load_matrices_turned(a, strip + (at.turned ^ (uint32_t)(block << 5)));
}

/* b: the strip's 16 rows as depth, 16 columns from 16 `block`: two fragments, {b[0], b[1]} and
 * {b[2], b[3]}. */
__device__ inline void load_b(uint32_t (&b)[4], uint32_t strip, const lane_places &at, int block)
{
    load_matrices_turned(b, strip + (at.straight ^ (uint32_t)(block << 5)));
}

/* b turned: the strip's 16 rows as columns, 16 columns from 16 `step` as depth: {b[0], b[1]} for
 * the first eight rows, {b[2], b[3]} for the others. */
__device__ inline void load_b_turned(uint32_t (&b)[4], uint32_t strip, const lane_places &at,
                                     int step)
{
    load_matrices(b, strip + (at.turned ^ (uint32_t)(step << 5)));
}

template <typename T = __nv_bfloat16>
__device__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    const uint32_t b[2] = {b0, b1};
    mma_bf16(c, a, b);
}
template <>
__device__ inline void multiply<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                        uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline float bf16_low(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}

__device__ inline float bf16_high(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000U);
}

/* A vector of 64 plus eps, times a factor, as b of a product with one column. */
template <typename T = __nv_bfloat16> struct vector_operand {
    uint32_t b[4][2];
    __device__ vector_operand(const float *vector, float eps, float factor = 1.0F)
    {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int step = 0; step < 4; step++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float2 x =
                    *reinterpret_cast<const float2 *>(vector + 16 * step + 8 * half + 2 * t);
                b[step][half] =
                    g == 0 ? pack_pair<T>((x.x + eps) * factor, (x.y + eps) * factor) : 0;
            }
    }
};

#endif
