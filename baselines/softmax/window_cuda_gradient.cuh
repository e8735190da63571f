/* What the gradients of softmax over a band of keys share: with everything in shared memory
 * (window_cuda_gradient.cu) and panel by panel (window_cuda_gradient_wide.cu). */
#ifndef FB_WINDOW_CUDA_GRADIENT_CUH
#define FB_WINDOW_CUDA_GRADIENT_CUH

#include "cuda_panels.cuh"
#include "window_cuda.cuh"

struct gradient_arguments {
    window_arguments w; /* sizes, band, scale */
    panel_tensor q, k, v, dout, dq, dk, dv;
    int kv_heads;
    int dim_panels, value_panels;
    float slope;         /* of scores before log2(e): D^(-1/2) */
    const float *lse;    /* [batch heads][q_len], base 2 */
    const float *shares; /* [batch heads][q_len] dout out */
    bool ahead;          /* the next panels are brought while these are used */
};

template <typename P> __device__ float weight_of(float score, float lse)
{
    return P::wide_sums ? exp2f(score - lse) : window_power(score - lse);
}

/* sum += a b; in f32 by way of fresh registers, since tensor cores cut what they add */
template <typename P>
__device__ void add_product(strip_result &sum, const char *a, int strip, const char *b)
{
    if constexpr (P::wide_sums) {
        strip_result part;
        clear(part);
        P::multiply_straight(part, a, strip, b);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum[n][i] += part[n][i];
    } else {
        P::multiply_straight(sum, a, strip, b);
    }
}

/* A strip of dq, dk or dv times a factor, zero from row `rows` of the panel on. */
template <typename P, typename T>
__device__ void write_gradient(char *weights, int strip, strip_result &sum, const panel_rows<T> &to,
                               int first, int rows, int count, int part, float factor)
{
    each_pair(sum, strip, [&](int row, int, float &x0, float &x1) {
        x0 = row < rows ? x0 * factor : 0.0F;
        x1 = row < rows ? x1 * factor : 0.0F;
    });
    put_strip<P>(weights, strip, sum);
    write_strip<P, T>(weights, strip, to, first, count, part, [](int, int, float(&)[8]) {});
}

/* For problems of window_cuda_is_split: window_cuda_split_gradient.cu. */
enum fb_status window_cuda_split_gradient(const struct fb_problem *problem,
                                          const gradient_arguments &arguments, cudaStream_t stream,
                                          struct fb_error *error);

/* window_cuda_gradient_wide.cu */
enum fb_status window_cuda_gradient_wide(const struct fb_problem *problem,
                                         const gradient_arguments &arguments, cudaStream_t stream,
                                         struct fb_error *error);

#endif
