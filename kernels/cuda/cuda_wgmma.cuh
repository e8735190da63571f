/*
 * Products by warpgroups (wgmma, Hopper's sm_90a) of tiles as cuda_fragments.cuh lays them out: its
 * swizzle of rows of 128 bytes is the one that the instruction knows, so a tile that starts at a
 * multiple of 1024 bytes can be an operand as it is. Barriers between those who fill tiles and
 * those who use them.
 *
 * c[n][i] are the fragments of m16n8 results, as there: a warp holds 16 rows of the 64, column
 * blocks of 8 by n.
 */
#ifndef FB_CUDA_WGMMA_CUH
#define FB_CUDA_WGMMA_CUH

#include "cuda_fragments.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define FB_HAVE_WGMMA 1
#else
#define FB_HAVE_WGMMA 0
#endif

#if FB_HAVE_WGMMA

/* What an operand's tile is described by: its address in units of 16 bytes, groups of eight rows
 * 1024 bytes apart, rows of 128 bytes swizzled. 16 columns further on is 2 units, 16 rows 128. */
__device__ inline uint64_t wgmma_tile(uint32_t address)
{
    return (uint64_t)((address & 0x3ffffU) >> 4) | (uint64_t)1 << 16 | (uint64_t)64 << 32 |
           (uint64_t)1 << 62;
}

__device__ inline void wgmma_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ inline void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int Pending> __device__ inline void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

/* The compiler must not move what it does with results to before the wait for them. */
template <int N> __device__ inline void wgmma_hold(float (&c)[N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            asm volatile("" : "+f"(c[n][i])::"memory");
}

#define FB_WGMMA_C1(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define FB_WGMMA_C4(n) FB_WGMMA_C1(n), FB_WGMMA_C1(n + 1), FB_WGMMA_C1(n + 2), FB_WGMMA_C1(n + 3)

/* c[64][128] = a[64][16] b[128][16]^T, added to c unless `fresh`. */
#define FB_WGMMA_64X128(type)                                                                      \
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, %66, 0;\n"                                      \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {"                 \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "     \
                 "%31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "     \
                 "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, "     \
                 "%61, %62, %63}, %64, %65, p, 1, 1, 0, 0;\n}"                                     \
                 : FB_WGMMA_C4(0), FB_WGMMA_C4(4), FB_WGMMA_C4(8), FB_WGMMA_C4(12)                 \
                 : "l"(a), "l"(b), "r"((int)fresh))

/* c[64][64] = a[64][16] b[64][16]^T, likewise. */
#define FB_WGMMA_64X64_TURNED(type)                                                                \
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, %34, 0;\n"                                      \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {"                  \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "     \
                 "%31}, %32, %33, p, 1, 1, 0, 0;\n}"                                               \
                 : FB_WGMMA_C4(0), FB_WGMMA_C4(4)                                                  \
                 : "l"(a), "l"(b), "r"((int)fresh))

#define FB_WGMMA_F1(n) "=&f"(c[n][0]), "=&f"(c[n][1]), "=&f"(c[n][2]), "=&f"(c[n][3])
#define FB_WGMMA_F4(n) FB_WGMMA_F1(n), FB_WGMMA_F1(n + 1), FB_WGMMA_F1(n + 2), FB_WGMMA_F1(n + 3)

/* c[64][64] = a[64][16] b[64][16]^T whatever c was: the compiler lets such products begin while
 * others are under way, which it does not where c holds numbers that are not a product's. */
#define FB_WGMMA_64X64_FRESH(type)                                                                 \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 0, 0;\n"                                        \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {"                  \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "     \
                 "%31}, %32, %33, p, 1, 1, 0, 0;\n}"                                               \
                 : FB_WGMMA_F4(0), FB_WGMMA_F4(4)                                                  \
                 : "l"(a), "l"(b)                                                                  \
                 : "memory")

/* c[64][128] = a[64][16] b[128][16]^T likewise */
#define FB_WGMMA_64X128_FRESH(type)                                                                \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 0, 0;\n"                                        \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {"                 \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "     \
                 "%31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "     \
                 "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, "     \
                 "%61, %62, %63}, %64, %65, p, 1, 1, 0, 0;\n}"                                     \
                 : FB_WGMMA_F4(0), FB_WGMMA_F4(4), FB_WGMMA_F4(8), FB_WGMMA_F4(12)                 \
                 : "l"(a), "l"(b)                                                                  \
                 : "memory")

/* c[64][64] likewise, a in registers; b's rows along the columns (0) or the depth (1) */
#define FB_WGMMA_64X64_FRESH_HELD(type, along)                                                     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 0, 0;\n"                                        \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {"                  \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "     \
                 "%31}, {%32, %33, %34, %35}, %36, p, 1, 1, " along ";\n}"                         \
                 : FB_WGMMA_F4(0), FB_WGMMA_F4(4)                                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)                              \
                 : "memory")

/* c[64][64] += a[64][16] b[64][16]^T, a in registers */
#define FB_WGMMA_64X64_TURNED_HELD(type)                                                           \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {"                  \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "     \
                 "%31}, {%32, %33, %34, %35}, %36, 1, 1, 1, 0;"                                    \
                 : FB_WGMMA_C4(0), FB_WGMMA_C4(4)                                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

/* c[64][64] += a[64][16] b[16][64], a in registers, b's rows along the depth. */
#define FB_WGMMA_64X64(type)                                                                       \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {"                  \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "     \
                 "%31}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"                                    \
                 : FB_WGMMA_C4(0), FB_WGMMA_C4(4)                                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

#define FB_WGMMA_BOTH_TURNED_64(type)                                                              \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {"                  \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "     \
                 "%31}, %32, %33, 1, 1, 1, 1, 1;"                                                  \
                 : FB_WGMMA_C4(0), FB_WGMMA_C4(4)                                                  \
                 : "l"(a), "l"(b))

#define FB_WGMMA_BOTH_TURNED_32(type)                                                              \
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32." type "." type " {"                  \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "         \
                 "%16, %17, 1, 1, 1, 1, 1;"                                                        \
                 : FB_WGMMA_C4(0)                                                                  \
                 : "l"(a), "l"(b))

/* c[64][columns] += a[16][64]^T b[16][columns], both in tiles whose rows are the depth. */
template <typename T = __nv_bfloat16>
__device__ inline void wgmma_add_turned(float (&c)[8][4], uint64_t a, uint64_t b)
{
    FB_WGMMA_BOTH_TURNED_64("bf16");
}
template <>
__device__ inline void wgmma_add_turned<__half>(float (&c)[8][4], uint64_t a, uint64_t b)
{
    FB_WGMMA_BOTH_TURNED_64("f16");
}

template <typename T = __nv_bfloat16>
__device__ inline void wgmma_add_turned(float (&c)[4][4], uint64_t a, uint64_t b)
{
    FB_WGMMA_BOTH_TURNED_32("bf16");
}
template <>
__device__ inline void wgmma_add_turned<__half>(float (&c)[4][4], uint64_t a, uint64_t b)
{
    FB_WGMMA_BOTH_TURNED_32("f16");
}

template <typename T>
__device__ inline void wgmma_turned(float (&c)[16][4], uint64_t a, uint64_t b, bool fresh);
template <>
__device__ inline void wgmma_turned<__nv_bfloat16>(float (&c)[16][4], uint64_t a, uint64_t b,
                                                   bool fresh)
{
    FB_WGMMA_64X128("bf16");
}
template <>
__device__ inline void wgmma_turned<__half>(float (&c)[16][4], uint64_t a, uint64_t b, bool fresh)
{
    FB_WGMMA_64X128("f16");
}

template <typename T>
__device__ inline void wgmma_turned(float (&c)[8][4], uint64_t a, uint64_t b, bool fresh);
template <>
__device__ inline void wgmma_turned<__nv_bfloat16>(float (&c)[8][4], uint64_t a, uint64_t b,
                                                   bool fresh)
{
    FB_WGMMA_64X64_TURNED("bf16");
}
template <>
__device__ inline void wgmma_turned<__half>(float (&c)[8][4], uint64_t a, uint64_t b, bool fresh)
{
    FB_WGMMA_64X64_TURNED("f16");
}

/* The same in two: the first, and those that are added to it. */
template <typename T>
__device__ inline void wgmma_turned_first(float (&c)[8][4], uint64_t a, uint64_t b);
template <>
__device__ inline void wgmma_turned_first<__nv_bfloat16>(float (&c)[8][4], uint64_t a, uint64_t b)
{
    FB_WGMMA_64X64_FRESH("bf16");
}
template <>
__device__ inline void wgmma_turned_first<__half>(float (&c)[8][4], uint64_t a, uint64_t b)
{
    FB_WGMMA_64X64_FRESH("f16");
}

template <typename T>
__device__ inline void wgmma_turned_first(float (&c)[16][4], uint64_t a, uint64_t b);
template <>
__device__ inline void wgmma_turned_first<__nv_bfloat16>(float (&c)[16][4], uint64_t a, uint64_t b)
{
    FB_WGMMA_64X128_FRESH("bf16");
}
template <>
__device__ inline void wgmma_turned_first<__half>(float (&c)[16][4], uint64_t a, uint64_t b)
{
    FB_WGMMA_64X128_FRESH("f16");
}

template <typename T>
__device__ inline void wgmma_turned_first(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b);
template <>
__device__ inline void wgmma_turned_first<__nv_bfloat16>(float (&c)[8][4], const uint32_t (&a)[4],
                                                         uint64_t b)
{
    FB_WGMMA_64X64_FRESH_HELD("bf16", "0");
}
template <>
__device__ inline void wgmma_turned_first<__half>(float (&c)[8][4], const uint32_t (&a)[4],
                                                  uint64_t b)
{
    FB_WGMMA_64X64_FRESH_HELD("f16", "0");
}

template <typename T>
__device__ inline void wgmma_turned_add(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b);
template <>
__device__ inline void wgmma_turned_add<__nv_bfloat16>(float (&c)[8][4], const uint32_t (&a)[4],
                                                       uint64_t b)
{
    FB_WGMMA_64X64_TURNED_HELD("bf16");
}
template <>
__device__ inline void wgmma_turned_add<__half>(float (&c)[8][4], const uint32_t (&a)[4],
                                                uint64_t b)
{
    FB_WGMMA_64X64_TURNED_HELD("f16");
}

template <typename T>
__device__ inline void wgmma_add(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b);
template <>
__device__ inline void wgmma_add<__nv_bfloat16>(float (&c)[8][4], const uint32_t (&a)[4],
                                                uint64_t b)
{
    FB_WGMMA_64X64("bf16");
}
template <>
__device__ inline void wgmma_add<__half>(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b)
{
    FB_WGMMA_64X64("f16");
}

/* The first of such products, whatever c was. */
template <typename T>
__device__ inline void wgmma_first(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b);
template <>
__device__ inline void wgmma_first<__nv_bfloat16>(float (&c)[8][4], const uint32_t (&a)[4],
                                                  uint64_t b)
{
    FB_WGMMA_64X64_FRESH_HELD("bf16", "1");
}
template <>
__device__ inline void wgmma_first<__half>(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b)
{
    FB_WGMMA_64X64_FRESH_HELD("f16", "1");
}

/* c[64][64] = a[64][16] b[64][16]^T, a in registers, added to c unless `fresh`; bf16. */
__device__ inline void wgmma_turned(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b,
                                    bool fresh)
{
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "
                 "%31}, {%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}"
                 : FB_WGMMA_C4(0), FB_WGMMA_C4(4)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)fresh));
}

/* Writes of this thread become visible to the tensor cores. */
__device__ inline void publish_shared()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void barrier_init(uint32_t barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

__device__ inline void barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* Until the barrier's round of this parity is over. */
__device__ inline void barrier_wait(uint32_t barrier, uint32_t parity)
{
    uint32_t done = 0;
    while (done == 0)
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
}

#endif
#endif
