/*
 * Tensor maps, by which Hopper's copy engine brings 16 rows of a head at a time into shared memory,
 * laid out as cuda_fragments.cuh has its tiles. Rows beyond the last become zero.
 */
#ifndef FB_CUDA_TENSOR_MAP_CUH
#define FB_CUDA_TENSOR_MAP_CUH

#include "cuda_check.h"
#include "cuda_fragments.cuh"

#include <cuda.h>

constexpr int kMapRows = 16; /* of a copy */

/* Host: the map of a tensor of 64 columns of 16 bits, whose rows start on 16 bytes; `rows` are
 * copied at a time. Nothing is computed, so that bf16 stands for f16, too. */
static inline enum fb_status fb_cuda_map_rows(const struct fb_tensor &x, CUtensorMap *map,
                                              const char *name, struct fb_error *error,
                                              int rows = kMapRows)
{
    void *found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    enum fb_status status =
        fb_cuda_status(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                        cudaEnableDefault, &result),
                       name, error);
#else
    enum fb_status status = fb_cuda_status(
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result), name,
        error);
#endif
    if (status != FB_OK)
        return status;
    const cuuint64_t sizes[4] = {(cuuint64_t)x.shape[3], (cuuint64_t)x.shape[2],
                                 (cuuint64_t)x.shape[1], (cuuint64_t)x.shape[0]};
    cuuint64_t strides[3];
    for (int i = 0; i < 3; i++) /* that of a single one may be any number */
        strides[i] = x.shape[2 - i] > 1 ? 2 * (cuuint64_t)x.stride[2 - i] : kRowBytes;
    const cuuint32_t box[4] = {64, (cuuint32_t)rows, 1, 1}, steps[4] = {1, 1, 1, 1};
    CUresult made = CUDA_ERROR_NOT_FOUND;
    if (result == cudaDriverEntryPointSuccess)
        made = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found)(
            map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, x.data, sizes, strides, box, steps,
            CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
            CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (made != CUDA_SUCCESS)
        return fb_error_set(error, FB_ERROR_DEVICE, "%s: the driver makes no tensor map (%d)", name,
                            (int)made);
    return FB_OK;
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/* What the L2 cache shall do with what comes through it: what createpolicy.fractional leaves for
 * all of it, which costs a dozen instructions where it stands. */
__device__ inline uint64_t keep_cached()
{
    return 0x14f0000000000000U; /* evict_last */
}

__device__ inline uint64_t pass_cache()
{
    return 0x12f0000000000000U; /* evict_first */
}

/* In one lane of the warp, which must be together. */
__device__ inline bool is_elected()
{
    uint32_t elected;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(elected));
    return elected != 0;
}

/* So many bytes are on their way that count on the barrier. */
__device__ inline void announce_bytes(uint32_t barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

/* The rows of a copy, from `row` on, into a place that starts on 1024 bytes. By one thread. */
__device__ inline void copy_box(uint32_t strip, const CUtensorMap *map, int row, int h, int b,
                                uint32_t barrier, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%2, %3, %4, %5}], [%6], %7;" ::"r"(strip),
                 "l"(map), "r"(0), "r"(row), "r"(h), "r"(b), "r"(barrier), "l"(policy)
                 : "memory");
}

/* Likewise a strip, whose bytes are announced. */
__device__ inline void copy_rows(uint32_t strip, const CUtensorMap *map, int row, int h, int b,
                                 uint32_t barrier, uint64_t policy)
{
    announce_bytes(barrier, kMapRows * kRowBytes);
    copy_box(strip, map, row, h, b, barrier, policy);
}

/* The rows of a strip, those that exist, to memory, once the strip has been published to the copy
 * engine. By one thread, which can wait until all but so many of its strips have been read. */
__device__ inline void put_rows(const CUtensorMap *map, int row, int h, int b, uint32_t strip)
{
    asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group.L2::cache_hint "
                 "[%0, {%1, %2, %3, %4}], [%5], %6;" ::"l"(map),
                 "r"(0), "r"(row), "r"(h), "r"(b), "r"(strip), "l"(pass_cache())
                 : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

template <int Pending> __device__ void await_put_rows()
{
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Pending) : "memory");
}

#endif
#endif
