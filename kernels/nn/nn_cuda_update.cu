/* Loss, norm of the gradient and update on the device: see nn_cuda.h. */
#include "nn_cuda_vector.cuh"
#include "nn_loss.h"

namespace
{

constexpr int kThreads = 256;
constexpr int kNormBlocks = 256;

cudaStream_t stream_of(const struct fb_nn_cuda *c)
{
    return (cudaStream_t)fb_nn_cuda_stream(c);
}

/* The sum over a block's threads, in every thread, in a fixed order. */
__device__ double block_sum(double x)
{
    __shared__ double sums[kThreads];
    sums[threadIdx.x] = x;
    __syncthreads();
    for (int i = kThreads / 2; i > 0; i /= 2) {
        if ((int)threadIdx.x < i)
            sums[threadIdx.x] += sums[threadIdx.x + i];
        __syncthreads();
    }
    const double sum = sums[0];
    __syncthreads();
    return sum;
}

__device__ float block_max(float x)
{
    __shared__ float most[kThreads];
    most[threadIdx.x] = x;
    __syncthreads();
    for (int i = kThreads / 2; i > 0; i /= 2) {
        if ((int)threadIdx.x < i)
            most[threadIdx.x] = fmaxf(most[threadIdx.x], most[threadIdx.x + i]);
        __syncthreads();
    }
    const float result = most[0];
    __syncthreads();
    return result;
}

/* A block takes a row of logits. A NaN reaches the sum, which fmaxf alone would hide. */
__global__ void loss_kernel(float *dlogits, double *row_loss, const float *logits,
                            const int32_t *targets, int64_t classes,
                            const struct fb_nn_cuda_step *step)
{
    const int64_t row = blockIdx.x;
    const double scale = step->counted > 0 ? 1.0 / (double)step->counted : 0.0;
    const float *in = logits + row * classes;
    const int32_t target = targets[row];
    float most = -INFINITY;
    for (int64_t i = threadIdx.x; i < classes; i += kThreads)
        most = fmaxf(most, in[i]);
    most = block_max(most);
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < classes; i += kThreads)
        sum += (double)expf(in[i] - most);
    sum = block_sum(sum);
    for (int64_t i = threadIdx.x; i < classes; i += kThreads) {
        const double p = (double)expf(in[i] - most) / sum;
        dlogits[row * classes + i] =
            target == FB_NN_IGNORED ? 0.0f : (float)(scale * (i == target ? p - 1.0 : p));
    }
    if (threadIdx.x == 0)
        row_loss[row] =
            target == FB_NN_IGNORED ? 0.0 : log(sum) + (double)most - (double)in[target];
}

__global__ void loss_sum_kernel(struct fb_nn_cuda_verdict *verdict, const double *row_loss,
                                int64_t rows, const struct fb_nn_cuda_step *step)
{
    const int64_t counted = step->counted;
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < rows; i += kThreads)
        sum += row_loss[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        verdict->loss = counted > 0 ? sum / (double)counted : 0.0;
}

/* A block takes a range of whole fours. */
__global__ void squares_kernel(double *partials, const float *g, int64_t count)
{
    constexpr int N = 4;
    const int64_t fours = count / N;
    const int64_t first = fours * blockIdx.x / gridDim.x,
                  end = fours * (blockIdx.x + 1) / gridDim.x;
    double sum = 0.0;
#pragma unroll 4
    for (int64_t i = first + threadIdx.x; i < end; i += kThreads) {
        float v[N];
        fb_nn_cuda_load<float, N>(v, g + N * i);
        for (int j = 0; j < N; j++)
            sum += (double)v[j] * (double)v[j];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        partials[blockIdx.x] = sum;
}

__global__ void norm_kernel(struct fb_nn_cuda_verdict *verdict, const double *partials)
{
    const double sum = block_sum(partials[threadIdx.x]);
    if (threadIdx.x == 0)
        verdict->norm = sqrt(sum);
}

/* What one parameter becomes. */
__device__ __forceinline__ void update(const struct fb_nn_optimiser &o,
                                       const struct fb_nn_update &u, double scale, bool decays,
                                       float g, float &theta, float &m, float &v)
{
    const float clipped = scale < 1.0 ? (float)((double)g * scale) : g;
    const double grad = (double)clipped;
    const double first = o.beta1 * (double)m + (1.0 - o.beta1) * grad;
    const double second = o.beta2 * (double)v + (1.0 - o.beta2) * grad * grad;
    const double keep = decays ? u.keep : 1.0;
    const double change = u.adaptive ? first / (sqrt(second) / u.root + o.eps) : first;
    m = (float)first;
    v = (float)second;
    theta = (float)(keep * (double)theta - u.step * change);
}

/* A thread takes four parameters; their number is a multiple of that, as blocks of them are. */
__global__ void update_kernel(struct fb_nn_optimiser o, const struct fb_nn_cuda_step *step,
                              const struct fb_nn_cuda_verdict *verdict,
                              struct fb_nn_cuda_trained trained, double clip_norm)
{
    constexpr int N = 4;
    const int64_t i = N * ((int64_t)blockIdx.x * kThreads + threadIdx.x);
    const struct fb_nn_update u = step->update;
    const double norm = verdict->norm;
    if (i >= trained.count || !isfinite(norm) || !isfinite(verdict->loss))
        return;
    const double scale = clip_norm > 0.0 ? clip_norm / (norm + 1e-6) : 1.0;
    const uchar4 decays = *(const uchar4 *)(trained.decay + i);
    const unsigned char decay[N] = {decays.x, decays.y, decays.z, decays.w};
    float g[N], theta[N], m[N], v[N];
    fb_nn_cuda_load<float, N>(g, trained.gradient + i);
    fb_nn_cuda_load<float, N>(theta, trained.theta + i);
    fb_nn_cuda_load<float, N>(m, trained.m + i);
    fb_nn_cuda_load<float, N>(v, trained.v + i);
#pragma unroll
    for (int j = 0; j < N; j++)
        update(o, u, scale, decay[j] != 0, g[j], theta[j], m[j], v[j]);
    fb_nn_cuda_store<float, N>(trained.m + i, m);
    fb_nn_cuda_store<float, N>(trained.v + i, v);
    fb_nn_cuda_store<float, N>(trained.theta + i, theta);
    if (trained.rounded == nullptr)
        return;
    alignas(8) __nv_bfloat162 rounded[N / 2];
#pragma unroll
    for (int j = 0; j < N / 2; j++)
        rounded[j] = __floats2bfloat162_rn(theta[2 * j], theta[2 * j + 1]);
    *(uint2 *)((__nv_bfloat16 *)trained.rounded + i) = *(const uint2 *)rounded;
}

} // namespace

extern "C" void fb_nn_cuda_cross_entropy(struct fb_nn_cuda *c, struct fb_nn_cuda_verdict *verdict,
                                         float *dlogits, double *row_loss, const float *logits,
                                         const int32_t *targets, int64_t rows, int64_t classes)
{
    const struct fb_nn_cuda_step *step = fb_nn_cuda_step_there(c);
    loss_kernel<<<(unsigned int)rows, kThreads, 0, stream_of(c)>>>(dlogits, row_loss, logits,
                                                                   targets, classes, step);
    loss_sum_kernel<<<1, kThreads, 0, stream_of(c)>>>(verdict, row_loss, rows, step);
    fb_nn_cuda_note(c, cudaGetLastError(), "cross-entropy");
}

extern "C" int64_t fb_nn_cuda_norm_doubles(void)
{
    return kNormBlocks;
}

extern "C" void fb_nn_cuda_norm(struct fb_nn_cuda *c, struct fb_nn_cuda_verdict *verdict,
                                double *partials, const float *g, int64_t count)
{
    static_assert(kNormBlocks == kThreads, "one block adds up the partial sums");
    if (count % 4 != 0) {
        fb_nn_cuda_note(c, cudaErrorInvalidValue, "the norm of no whole fours");
        return;
    }
    squares_kernel<<<kNormBlocks, kThreads, 0, stream_of(c)>>>(partials, g, count);
    norm_kernel<<<1, kThreads, 0, stream_of(c)>>>(verdict, partials);
    fb_nn_cuda_note(c, cudaGetLastError(), "the norm of the gradient");
}

extern "C" void fb_nn_cuda_optimiser_step(struct fb_nn_cuda *c, const struct fb_nn_optimiser *o,
                                          const struct fb_nn_cuda_verdict *verdict,
                                          const struct fb_nn_cuda_trained *trained,
                                          double clip_norm)
{
    const int64_t blocks = (trained->count / 4 + kThreads - 1) / kThreads;
    if (trained->count % 4 != 0) {
        fb_nn_cuda_note(c, cudaErrorInvalidValue, "an update of parameters in no whole fours");
        return;
    }
    update_kernel<<<(unsigned int)blocks, kThreads, 0, stream_of(c)>>>(
        *o, fb_nn_cuda_step_there(c), verdict, *trained, clip_norm);
    fb_nn_cuda_note(c, cudaGetLastError(), "the update of the parameters");
}
