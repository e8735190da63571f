/*
 * Element-wise layers on the device: see nn_cuda.h. A thread takes 16 bytes of neighbouring values;
 * the buffers start on such a boundary, the last values are taken one by one.
 */
#include "nn_cuda_dropout.cuh"
#include "nn_cuda_vector.cuh"

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

/* What N values from index i on become: f(v, i). */
template <int kind> struct activation {
    struct fb_nn_cuda_keep keep;
    template <int N> __device__ __forceinline__ void operator()(float (&v)[N], int64_t i) const
    {
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] = value_of<kind>(v[j]);
        keep(v, i);
    }
};

template <int kind, typename T> struct slope {
    struct fb_nn_cuda_keep keep;
    const T *x;
    template <int N> __device__ __forceinline__ void operator()(float (&v)[N], int64_t i) const
    {
        float in[N];
        fb_nn_cuda_load<T, N>(in, x + i);
        keep(v, i);
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] *= slope_of<kind>(in[j]);
    }
};

struct scaled {
    float scale;
    template <int N> __device__ __forceinline__ void operator()(float (&v)[N], int64_t) const
    {
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] *= scale;
    }
};

template <typename T> struct sum {
    struct fb_nn_cuda_keep keep;
    const T *other;
    template <int N> __device__ __forceinline__ void operator()(float (&v)[N], int64_t i) const
    {
        float in[N];
        fb_nn_cuda_load<T, N>(in, other + i);
        keep(in, i);
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] += in[j];
    }
};

struct row_scaled {
    const float *factors;
    int64_t width;
    template <int N> __device__ __forceinline__ void operator()(float (&v)[N], int64_t i) const
    {
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] *= factors[(i + j) / width];
    }
};

struct same {
    template <int N> __device__ __forceinline__ void operator()(float (&)[N], int64_t) const
    {
    }
};

template <typename Y, typename X, bool add, typename F>
__global__ void map_kernel(Y *y, const X *x, int64_t count, F f)
{
    constexpr int N =
        fb_nn_cuda_pack < Y >> fb_nn_cuda_pack<X> ? fb_nn_cuda_pack<Y> : fb_nn_cuda_pack<X>;
    const int64_t i = N * ((int64_t)blockIdx.x * kThreads + threadIdx.x);
    if (i + N <= count) {
        float v[N];
        fb_nn_cuda_load<X, N>(v, x + i);
        f(v, i);
        fb_nn_cuda_put<Y, N>(y + i, add, v);
        return;
    }
    for (int64_t j = i; j < count; j++) {
        float v[1];
        fb_nn_cuda_load<X, 1>(v, x + j);
        f(v, j);
        fb_nn_cuda_put<Y, 1>(y + j, add, v);
    }
}

template <typename Y, typename X, typename F>
void map(struct fb_nn_cuda *c, Y *y, bool add, const X *x, int64_t count, F f, const char *what)
{
    constexpr int N =
        fb_nn_cuda_pack < Y >> fb_nn_cuda_pack<X> ? fb_nn_cuda_pack<Y> : fb_nn_cuda_pack<X>;
    const unsigned int blocks = (unsigned int)((count + N * kThreads - 1) / (N * kThreads));
    cudaStream_t stream = (cudaStream_t)fb_nn_cuda_stream(c);
    if (count == 0)
        return;
    if (add)
        map_kernel<Y, X, true><<<blocks, kThreads, 0, stream>>>(y, x, count, f);
    else
        map_kernel<Y, X, false><<<blocks, kThreads, 0, stream>>>(y, x, count, f);
    fb_nn_cuda_note(c, cudaGetLastError(), what);
}

template <int kind>
void activate(struct fb_nn_cuda *c, const struct fb_nn_cuda_keep &keep, void *y, const void *x,
              int64_t count)
{
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        map(c, (T *)y, false, (const T *)x, count, activation<kind>{keep}, "an activation");
    });
}

template <int kind>
void activate_backward(struct fb_nn_cuda *c, const struct fb_nn_cuda_keep &keep, void *dx,
                       bool add_dx, const void *dy, const void *x, int64_t count)
{
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        map(c, (T *)dx, add_dx, (const T *)dy, count, slope<kind, T>{keep, (const T *)x},
            "an activation's gradient");
    });
}

} // namespace

extern "C" void fb_nn_cuda_activation_forward(struct fb_nn_cuda *c, enum fb_nn_activation kind,
                                              const struct fb_nn_dropout *dropout, void *y,
                                              const void *x, int64_t count)
{
    const struct fb_nn_cuda_keep keep = fb_nn_cuda_keep_of(c, dropout);
    if (kind == FB_NN_GELU_ERF)
        activate<FB_NN_GELU_ERF>(c, keep, y, x, count);
    else if (kind == FB_NN_GELU_TANH)
        activate<FB_NN_GELU_TANH>(c, keep, y, x, count);
    else
        activate<FB_NN_RELU>(c, keep, y, x, count);
}

extern "C" void fb_nn_cuda_activation_backward(struct fb_nn_cuda *c, enum fb_nn_activation kind,
                                               const struct fb_nn_dropout *dropout, void *dx,
                                               bool add_dx, const void *dy, const void *x,
                                               int64_t count)
{
    const struct fb_nn_cuda_keep keep = fb_nn_cuda_keep_of(c, dropout);
    if (kind == FB_NN_GELU_ERF)
        activate_backward<FB_NN_GELU_ERF>(c, keep, dx, add_dx, dy, x, count);
    else if (kind == FB_NN_GELU_TANH)
        activate_backward<FB_NN_GELU_TANH>(c, keep, dx, add_dx, dy, x, count);
    else
        activate_backward<FB_NN_RELU>(c, keep, dx, add_dx, dy, x, count);
}

extern "C" void fb_nn_cuda_dropout_apply(struct fb_nn_cuda *c, const struct fb_nn_dropout *dropout,
                                         void *y, bool add, const void *x, int64_t count)
{
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        map(c, (T *)y, add, (const T *)x, count, fb_nn_cuda_keep_of(c, dropout), "dropout");
    });
}

extern "C" void fb_nn_cuda_sum_apply(struct fb_nn_cuda *c, const struct fb_nn_dropout *dropout,
                                     void *y, const void *a, const void *b, int64_t count)
{
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        map(c, (T *)y, false, (const T *)a, count,
            sum<T>{fb_nn_cuda_keep_of(c, dropout), (const T *)b}, "adding");
    });
}

extern "C" void fb_nn_cuda_scale_apply(struct fb_nn_cuda *c, void *y, bool add, const void *x,
                                       float scale, int64_t count)
{
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        map(c, (T *)y, add, (const T *)x, count, scaled{scale}, "scaling");
    });
}

extern "C" void fb_nn_cuda_mask_rows(struct fb_nn_cuda *c, void *y, bool add, const void *x,
                                     const float *factors, int64_t rows, int64_t width)
{
    fb_nn_cuda_by_type(c, [&](auto zero) {
        using T = decltype(zero);
        map(c, (T *)y, add, (const T *)x, rows * width, row_scaled{factors, width}, "masking");
    });
}

extern "C" void fb_nn_cuda_round(struct fb_nn_cuda *c, void *y, const float *x, int64_t count)
{
    map(c, (__nv_bfloat16 *)y, false, x, count, same(), "rounding to bf16");
}
