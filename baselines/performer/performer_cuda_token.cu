/* Performer's features of one token a head on a GPU, for decoding; exponents are f32's. */
#include "performer_cuda_features.cuh"

namespace
{

constexpr int kTokenThreads = 256;

/* grid (heads): one token */
template <typename T>
__global__ void __launch_bounds__(kTokenThreads)
    token_kernel(const __grid_constant__ performer_arguments a, float stabiliser, float *phi,
                 float *exponents)
{
    __shared__ float row[FB_HEAD_DIM_MAX], tops[kTokenThreads / 32];
    const int64_t b = blockIdx.x / a.heads, h = blockIdx.x % a.heads;
    const panel_rows<T> x(a.x, b, h, 1);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float *out = phi + (int64_t)blockIdx.x * a.features;
    if ((int)threadIdx.x < a.dim)
        row[threadIdx.x] = a.scale * to_f32(*x.at(0, threadIdx.x));
    __syncthreads();
    float half_norm = 0.0F, top = -INFINITY;
    for (int c = 0; c < a.dim; c++)
        half_norm = fmaf(0.5F * row[c], row[c], half_norm);
    for (int f = warp; f < a.features; f += kTokenThreads / 32) {
        float u = 0.0F;
        for (int c = lane; c < a.dim; c += 32)
            u = fmaf(row[c], a.projection[(int64_t)f * a.dim + c], u);
        for (int step = 16; step > 0; step /= 2)
            u += __shfl_xor_sync(0xffffffffU, u, step);
        top = fmaxf(top, u);
        if (lane == 0)
            out[f] = u;
    }
    if (lane == 0)
        tops[warp] = top;
    __syncthreads();
    for (int i = 0; i < kTokenThreads / 32; i++)
        top = fmaxf(top, tops[i]);
    const float base = half_norm + (exponents == nullptr ? top : stabiliser);
    for (int f = threadIdx.x; f < a.features; f += kTokenThreads)
        out[f] = expf(out[f] - base) + kEpsilon;
    if (exponents != nullptr && threadIdx.x == 0)
        exponents[blockIdx.x] = top - base;
}

} // namespace

extern "C" enum fb_status fb_performer_cuda_token(const struct fb_tensor *x, int64_t features,
                                                  const float *projection, float stabiliser,
                                                  float *phi, float *exponents, void *stream,
                                                  struct fb_error *error)
{
    performer_arguments a = {};
    a.x = panel_tensor_of(*x);
    a.heads = (int)x->shape[1];
    a.projection = projection;
    a.dim = a.x.dim;
    a.features = (int)features;
    a.scale = (float)pow((double)a.dim, -0.25);
    const unsigned heads = (unsigned)(x->shape[0] * x->shape[1]);
    const auto kernel = x->dtype == FB_BF16  ? token_kernel<__nv_bfloat16>
                        : x->dtype == FB_F16 ? token_kernel<__half>
                                             : token_kernel<float>;
    kernel<<<heads, kTokenThreads, 0, (cudaStream_t)stream>>>(a, stabiliser, phi, exponents);
    return fb_cuda_launched("the features of a token", error);
}
