/*
 * Element-wise layers on the device: see nn_cuda.h. A thread takes four neighbouring values (16
 * bytes) at a time; the buffers start on such a boundary, the last values are taken one by one.
 */
#include "nn_cuda_dropout.cuh"
#include "nn_cuda_private.h"

namespace
{

constexpr int kThreads = 256;
constexpr float kSqrtHalf = 0.70710678118654752f;
constexpr float kInvSqrt2Pi = 0.39894228040143268f;
constexpr float kSqrt2Pi = 0.79788456080286536f; /* sqrt(2 / pi) */
constexpr float kGeluCube = 0.044715f;

__device__ __forceinline__ float gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + tanhf(kSqrt2Pi * (x + kGeluCube * x * x * x)));
}

__device__ __forceinline__ float gelu_tanh_slope(float x)
{
    const float t = tanhf(kSqrt2Pi * (x + kGeluCube * x * x * x));
    const float inner = kSqrt2Pi * (1.0f + 3.0f * kGeluCube * x * x);
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
}

__device__ __forceinline__ float gelu_erf_slope(float x)
{
    return 0.5f * (1.0f + erff(kSqrtHalf * x)) + x * kInvSqrt2Pi * __expf(-0.5f * x * x);
}

template <int kind> __device__ __forceinline__ float value_of(float x)
{
    if (kind == FB_NN_GELU_ERF)
        return 0.5f * x * (1.0f + erff(kSqrtHalf * x));
    if (kind == FB_NN_GELU_TANH)
        return gelu_tanh(x);
    return x > 0.0f ? x : 0.0f;
}

template <int kind> __device__ __forceinline__ float slope_of(float x)
{
    if (kind == FB_NN_GELU_ERF)
        return gelu_erf_slope(x);
    if (kind == FB_NN_GELU_TANH)
        return gelu_tanh_slope(x);
    return x > 0.0f ? 1.0f : 0.0f;
}

/* What one value becomes: f(i, x_i). */
template <int kind> struct activation {
    struct fb_nn_cuda_keep keep;
    __device__ float operator()(int64_t i, float x) const
    {
        return keep(i, value_of<kind>(x));
    }
};

template <int kind> struct slope {
    struct fb_nn_cuda_keep keep;
    const float *x;
    __device__ float operator()(int64_t i, float dy) const
    {
        return slope_of<kind>(x[i]) * keep(i, dy);
    }
};

struct scaled {
    float scale;
    __device__ float operator()(int64_t, float x) const
    {
        return scale * x;
    }
};

struct sum {
    struct fb_nn_cuda_keep keep;
    const float *other;
    __device__ float operator()(int64_t i, float x) const
    {
        return x + keep(i, other[i]);
    }
};

struct row_scaled {
    const float *factors;
    int64_t width;
    __device__ float operator()(int64_t i, float x) const
    {
        return factors[i / width] * x;
    }
};

template <typename F, bool add>
__global__ void map_kernel(float *y, const float *x, int64_t count, F f)
{
    const int64_t i = 4 * ((int64_t)blockIdx.x * kThreads + threadIdx.x);
    if (i + 4 <= count) {
        const float4 in = *(const float4 *)(x + i);
        float4 out = make_float4(f(i, in.x), f(i + 1, in.y), f(i + 2, in.z), f(i + 3, in.w));
        if (add) {
            const float4 old = *(const float4 *)(y + i);
            out = make_float4(old.x + out.x, old.y + out.y, old.z + out.z, old.w + out.w);
        }
        *(float4 *)(y + i) = out;
        return;
    }
    for (int64_t j = i; j < count; j++)
        y[j] = add ? y[j] + f(j, x[j]) : f(j, x[j]);
}

template <typename F>
void map(struct fb_nn_cuda *c, float *y, bool add, const float *x, int64_t count, F f,
         const char *what)
{
    const unsigned int blocks = (unsigned int)((count + 4 * kThreads - 1) / (4 * kThreads));
    cudaStream_t stream = (cudaStream_t)fb_nn_cuda_stream(c);
    if (count == 0)
        return;
    if (add)
        map_kernel<F, true><<<blocks, kThreads, 0, stream>>>(y, x, count, f);
    else
        map_kernel<F, false><<<blocks, kThreads, 0, stream>>>(y, x, count, f);
    fb_nn_cuda_note(c, cudaGetLastError(), what);
}

} // namespace

extern "C" void fb_nn_cuda_activation_forward(struct fb_nn_cuda *c, enum fb_nn_activation kind,
                                              const struct fb_nn_dropout *dropout, float *y,
                                              const float *x, int64_t count)
{
    const struct fb_nn_cuda_keep keep = fb_nn_cuda_keep_of(dropout);
    if (kind == FB_NN_GELU_ERF)
        map(c, y, false, x, count, activation<FB_NN_GELU_ERF>{keep}, "gelu");
    else if (kind == FB_NN_GELU_TANH)
        map(c, y, false, x, count, activation<FB_NN_GELU_TANH>{keep}, "gelu");
    else
        map(c, y, false, x, count, activation<FB_NN_RELU>{keep}, "relu");
}

extern "C" void fb_nn_cuda_activation_backward(struct fb_nn_cuda *c, enum fb_nn_activation kind,
                                               const struct fb_nn_dropout *dropout, float *dx,
                                               bool add_dx, const float *dy, const float *x,
                                               int64_t count)
{
    const struct fb_nn_cuda_keep keep = fb_nn_cuda_keep_of(dropout);
    if (kind == FB_NN_GELU_ERF)
        map(c, dx, add_dx, dy, count, slope<FB_NN_GELU_ERF>{keep, x}, "gelu's gradient");
    else if (kind == FB_NN_GELU_TANH)
        map(c, dx, add_dx, dy, count, slope<FB_NN_GELU_TANH>{keep, x}, "gelu's gradient");
    else
        map(c, dx, add_dx, dy, count, slope<FB_NN_RELU>{keep, x}, "relu's gradient");
}

extern "C" void fb_nn_cuda_dropout_apply(struct fb_nn_cuda *c, const struct fb_nn_dropout *dropout,
                                         float *y, bool add, const float *x, int64_t count)
{
    map(c, y, add, x, count, fb_nn_cuda_keep_of(dropout), "dropout");
}

extern "C" void fb_nn_cuda_sum_apply(struct fb_nn_cuda *c, const struct fb_nn_dropout *dropout,
                                     float *y, const float *a, const float *b, int64_t count)
{
    map(c, y, false, a, count, sum{fb_nn_cuda_keep_of(dropout), b}, "adding");
}

extern "C" void fb_nn_cuda_scale_apply(struct fb_nn_cuda *c, float *y, bool add, const float *x,
                                       float scale, int64_t count)
{
    map(c, y, add, x, count, scaled{scale}, "scaling");
}

extern "C" void fb_nn_cuda_mask_rows(struct fb_nn_cuda *c, float *y, bool add, const float *x,
                                     const float *factors, int64_t rows, int64_t width)
{
    map(c, y, add, x, rows * width, row_scaled{factors, width}, "masking");
}
