/*
 * Softmax over a band of keys in f32, heads of 64, on Hopper, products as three TF32 products by
 * warpgroups (cuda_split.cuh): what forward and gradients share. A block has two warpgroups of 64
 * rows each; panels of 64 rows of the other side pass by, brought in while those before are used.
 */
#ifndef FB_WINDOW_CUDA_SPLIT_CUH
#define FB_WINDOW_CUDA_SPLIT_CUH

#include "cuda_split.cuh"
#include "window_cuda_gradient.cuh"
#include "window_cuda_rows.cuh"

namespace
{

constexpr int kGroupsOfBlock = 2;
constexpr int kRowsOfBlock = kGroupsOfBlock * kPanel;
constexpr int kBlockThreads = kGroupsOfBlock * kPanelThreads;

__device__ inline int group_of_block()
{
    return (int)threadIdx.x / kPanelThreads;
}

/* Panels begin at multiples of 1024 bytes, which the swizzle asks for. */
__device__ inline char *align_panels(char *dynamic)
{
    return dynamic + (1024 - shared_address(dynamic) % 1024) % 1024;
}

/* The thread's own copies are there, and nothing that reads them goes before. */
__device__ inline void await_own_copies()
{
    wait_copies<0>();
    asm volatile("" ::: "memory");
}

/* The low parts of the thread's own quads of a panel that is used as it is. */
__device__ inline void split_panel(char *panel, char *low)
{
    finish_split(panel, low, [](int, float4 &) { return false; });
}

#if FB_HAVE_WGMMA

/* c = a b^T in fresh registers, since the tensor cores cut what they add; fill(half, step) loads
 * half of a. */
template <typename Fill>
__device__ void fresh_product(strip_result &c, const char *b, const char *b_low, Fill fill)
{
    clear(c);
    multiply_split_halves(c, b, b_low, fill);
}

__device__ inline void product_of_result(strip_result &c, const strip_result &a, const char *b,
                                         const char *b_low)
{
    fresh_product(c, b, b_low, [&](split_operand_of<4> &half, int step) { half.take(a, step); });
}

#endif

/* A strip's rows times a factor each, to those before `written`; zeros from `valid` on, whatever
 * they are: a row of padding may be infinite. */
__device__ inline void write_strip_rows(const head_rows<float> &to, const strip_result &c,
                                        const float (&factors)[2], int strip, int valid,
                                        int written)
{
    const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = strip + g + 8 * half;
        float *at = to.data + row * to.stride + 2 * t;
        if (row < min(valid, written)) {
#pragma unroll
            for (int n = 0; n < 8; n++)
                *reinterpret_cast<float2 *>(at + 8 * n) =
                    make_float2(c[n][2 * half] * factors[half], c[n][2 * half + 1] * factors[half]);
        } else if (row < written) {
#pragma unroll
            for (int n = 0; n < 8; n++)
                *reinterpret_cast<float2 *>(at + 8 * n) = make_float2(0.0F, 0.0F);
        }
    }
}

} // namespace

#endif
