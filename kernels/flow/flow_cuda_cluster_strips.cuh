/*
 * What the kernels share in which a cluster of blocks holds a head, each warp 16 of its tokens:
 * bf16 or f16, head dimension 64, Hopper. A Block has `own`, its small arrays in shared memory
 * (with `barriers`, `parts` [Warps][2][64], `product` [64][64]), `rank` and `ranks`.
 */
#ifndef FB_FLOW_CUDA_CLUSTER_STRIPS_CUH
#define FB_FLOW_CUDA_CLUSTER_STRIPS_CUH

#include "cuda_exchange.cuh"
#include "cuda_wgmma.cuh"
#include "flow_cuda_strip_values.cuh"

namespace
{

#if FB_HAVE_WGMMA

/* Rows of a head, a multiple of 16 Warps; those beyond the valid ones become zero. */
template <int Warps>
__device__ void fetch_rows(char *tile, const tensor_view &view, int64_t b, int64_t h, int first,
                           int rows, int valid)
{
    constexpr int step = 4 * Warps;
    const head_rows<__nv_bfloat16> x = rows_of<__nv_bfloat16>(view, b, h, first);
    const int own = threadIdx.x / 8, chunk = threadIdx.x % 8;
#pragma unroll 4
    for (int row = own; row < rows; row += step) {
        const __nv_bfloat16 *from = x.data + row * x.stride + 8 * chunk;
        copy_chunk_async(shared_address(tile) + chunk_offset(row, chunk),
                         row < valid ? from : static_cast<__nv_bfloat16 *>(view.data), row < valid);
    }
}

/* ---- sums of columns ------------------------------------------------------------------------- */

/* The warps' parts added in order, to every block's slots; Count is 64 or 128. */
template <int Count, int Warps, typename Block>
__device__ void send_columns(const Block &x, float *slots, int name)
{
    if (threadIdx.x >= Count)
        return;
    float sum = 0.0F;
#pragma unroll
    for (int warp = 0; warp < Warps; warp++)
        sum += x.own->parts[warp][threadIdx.x / kDim][threadIdx.x % kDim];
    const uint32_t to = shared_address(slots + x.rank * Count + threadIdx.x);
    const uint32_t barrier = shared_address(&x.own->barriers[name]);
#pragma unroll 2
    for (int other = 0; other < x.ranks; other++)
        send(remote_address(to, other), remote_address(barrier, other), sum);
}

/* What all blocks have sent, added in the order of the ranks. */
template <int Count, typename Block>
__device__ void add_columns(const Block &x, const float *slots, int name, float *total)
{
    if (threadIdx.x >= Count)
        return;
    await(&x.own->barriers[name]);
    float sum = 0.0F;
#pragma unroll 2
    for (int other = 0; other < x.ranks; other++)
        sum += slots[other * Count + threadIdx.x];
    total[threadIdx.x] = sum;
}

/* ---- a product of 64 x 64 -------------------------------------------------------------------- */

/* Columns of a warpgroup's part: the first one computes all of them in blocks of 16 warps, two
 * halve them in blocks of 8. */
template <int Warps> constexpr int kProductColumns = Warps == 16 ? 64 : 32;
template <int Warps> constexpr int kProductWarps = 4 * kDim / kProductColumns<Warps>;
template <int Warps> using product_part = float[kProductColumns<Warps> / 8][4];

/* The transpose of one tile times the other, by the first kProductWarps: a warp computes 16 rows.
 * What the tiles hold has been published. */
template <int Warps, typename T = __nv_bfloat16>
__device__ void multiply_tiles(product_part<Warps> &sum, const char *turned, const char *straight)
{
    const uint64_t x = wgmma_tile(shared_address(turned));
    const uint64_t y = wgmma_tile(shared_address(straight)) +
                       threadIdx.x / 128 * (kProductColumns<Warps> * 2 / 16);
    wgmma_hold(sum);
    wgmma_begin();
#pragma unroll
    for (int strip = 0; strip < Warps; strip++)
        wgmma_add_turned<T>(sum, x + 128 * strip, y + 128 * strip);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(sum);
}

/* The warp's part of that product to the blocks that add it up: each an equal share of it. */
template <int Warps, typename Block>
__device__ void send_product(const Block &x, const product_part<Warps> &sum, int name)
{
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const uint32_t barrier = shared_address(&x.own->barriers[name]);
    const uint32_t slot = shared_address(x.own->product + x.rank * x.share);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = warp % 4 * 16 + g + 8 * half, first = row * x.ranks / kDim;
        const uint32_t remote = remote_address(slot, first);
        const uint32_t remote_barrier = remote_address(barrier, first);
#pragma unroll
        for (int n = 0; n < kProductColumns<Warps> / 8; n++) {
            /* a row belongs to one block, since no share is less than four rows */
            const int i =
                row * kDim + warp / 4 * kProductColumns<Warps> + 8 * n + 2 * t - first * x.share;
            send_pair(remote + 4 * (uint32_t)i, remote_barrier, __float_as_uint(sum[n][2 * half]),
                      __float_as_uint(sum[n][2 * half + 1]));
        }
    }
}

#endif

} // namespace

#endif
