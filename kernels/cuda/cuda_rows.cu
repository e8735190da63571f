/* Products of the rows of two tensors: what the gradients of every attention start with. */
#include "cuda_rows.cuh"

#include "cuda_check.h"
#include "cuda_panels.cuh"

namespace
{

/* grid (rows / 16, heads): eight lanes a row; reads both tensors once */
template <typename T>
__global__ void __launch_bounds__(kPanelThreads)
    product_kernel(panel_tensor left, panel_tensor right, int heads, int rows, float *products)
{
    const int64_t b = blockIdx.y / heads, h = blockIdx.y % heads;
    const panel_rows<T> x(left, b, h, rows), y(right, b, h, rows);
    const int row = (int)blockIdx.x * (kPanelThreads / 8) + panel_row(0);
    float sum = 0.0F;
    for (int col = (int)threadIdx.x % 8 * 8; col < x.dim; col += kPanel) {
        float p[8], q[8];
        fetch_chunk(x, row, col, p);
        fetch_chunk(y, row, col, q);
#pragma unroll
        for (int e = 0; e < 8; e++)
            sum = fmaf(p[e], q[e], sum);
    }
    sum = sum_of_eight(sum);
    if (row < rows && threadIdx.x % 8 == 0)
        products[(int64_t)blockIdx.y * rows + row] = sum;
}

} // namespace

enum fb_status fb_cuda_row_products(const struct fb_tensor *x, const struct fb_tensor *y,
                                    float *products, cudaStream_t stream, struct fb_error *error)
{
    const int each = kPanelThreads / 8, heads = (int)x->shape[1], rows = (int)x->shape[2];
    const dim3 grid((unsigned)((rows + each - 1) / each), (unsigned)(x->shape[0] * heads));
    const auto kernel = x->dtype == FB_BF16  ? product_kernel<__nv_bfloat16>
                        : x->dtype == FB_F16 ? product_kernel<__half>
                                             : product_kernel<float>;
    kernel<<<grid, kPanelThreads, 0, stream>>>(panel_tensor_of(*x), panel_tensor_of(*y), heads,
                                               rows, products);
    return fb_cuda_launched("row products", error);
}
